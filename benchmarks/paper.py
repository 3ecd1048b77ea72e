"""The papers' tables: LLaVA-1.5 and LLaVA-NeXT, every budget, every pruner, every benchmark that lies in a folder.

    python -m benchmarks.paper DATA OUT                   # all of it: days on one GPU; says how long before it starts
    python -m benchmarks.paper DATA OUT --limit 100       # a first look
    python -m benchmarks.paper DATA OUT                   # again: goes on where it was

DATA is laid out as LLaVA's docs/Evaluation.md has it (`playground/data/eval`); what is missing there is named and left
out. First of all the unpruned models are held to their published figures; where they differ by more than --tolerance,
nothing is pruned unless --go-on says so. Each table is an `adafv sweep`, whose log and report stay in OUT; `paper.md`
and `paper.json` there are the whole, with the mean of what is left relative to the unpruned model, as papers print it.
Published figures and their sources: `published.json` beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adafv.benchmark_files import BENCHMARKS
from adafv.errors import AdaFVError
from benchmarks.paper_report import write
from benchmarks.paper_tables import BUDGETS, FILES, MODELS, Adafv, Stopped, Table, published


def main(arguments: Sequence[str] | None = None, adafv: Adafv | None = None) -> int:
    chosen = parsed(arguments)
    run = adafv or in_a_process
    there = [name for name in chosen.benchmarks if all((chosen.data / one).exists() for one in FILES[name] if one)]
    for name in sorted(set(chosen.benchmarks) - set(there)):
        missing = [one for one in FILES[name] if one and not (chosen.data / one).exists()]
        say(f"{name} is left out: {chosen.data} has no {', no '.join(missing)}")
    if not there:
        say("nothing to run")
        return 2
    tables = [Table(model, name, chosen.data, chosen.out, chosen) for model in chosen.models for name in there]
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        say(f"{len(tables)} tables; {estimate(tables, run)}")
        for table in tables:
            table.sweep(run, "all", "adafv")
        off = list(differences(tables, chosen))
        for line in off:
            say(line)
        if off and chosen.limit is None and not chosen.go_on:
            say("the unpruned models are not the published ones: nothing is pruned; --go-on prunes all the same")
            finish(tables, chosen, off)
            return 1
        for table in tables:
            table.sweep(run, budgets(table.model, chosen), chosen.pruner)
    except Stopped as stopped:
        say("stopped; the same command goes on")
        finish([table for table in tables if table.report.exists()], chosen, [])
        return int(stopped.args[0])
    except AdaFVError as error:
        say(f"{error.what}\n  {error.fix}")
        return 4
    finish(tables, chosen, off)
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of benchmark files")
    parser.add_argument("out", type=Path, help="the folder for logs and reports")
    parser.add_argument("--models", nargs="+", default=MODELS, help="hub ids or folders")
    parser.add_argument("--benchmarks", nargs="+", choices=sorted(FILES), default=sorted(FILES))
    parser.add_argument("--pruner", default="all")
    parser.add_argument("--keep", help="budgets for every model (default: 192,128,64,32, or 640,320,160 with tiles)")
    parser.add_argument("--limit", type=int, help="only the first N questions of each benchmark")
    parser.add_argument("--tolerance", type=float, default=0.5, help="points that the unpruned may be off (MME: x 20)")
    parser.add_argument("--go-on", action="store_true", help="prune also where the unpruned models differ")
    known, flags = parser.parse_known_args(arguments)
    known.flags = flags  # whatever else adafv sweep takes: --dtype, --device-map, ...
    return known


def in_a_process(arguments: Sequence[str]) -> int:
    say("+ adafv " + " ".join(arguments))
    process = subprocess.Popen([sys.executable, "-m", "adafv", *arguments, "-q"], stdout=subprocess.DEVNULL)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # which the command hears, too, and ends in good order
            continue


def budgets(model: str, chosen: argparse.Namespace) -> str:
    return str(chosen.keep or BUDGETS["v1.6" in model or "next" in model.lower()])


def estimate(tables: Sequence[Table], adafv: Adafv) -> str:
    """Guess the time: how long 16 questions take each model, times questions and settings."""
    from adafv import pruners

    seconds, settings, answers = 0.0, 0, 0
    for model in dict.fromkeys(table.model for table in tables):
        mine = [table for table in tables if table.model == model]
        chosen = mine[0].chosen
        names = len(pruners.names()) - 1 if chosen.pruner == "all" else len(chosen.pruner.split(","))
        settings = 1 + names * len(budgets(model, chosen).split(","))
        questions = sum(map(asked, mine))
        answers += questions * settings
        probed, start = mine[0].folder / "probe.jsonl", time.monotonic()
        probed.parent.mkdir(parents=True, exist_ok=True)
        small = [one for one in mine[0].input if one not in ("--limit", str(chosen.limit))]
        code = adafv(["batch", *small, "--limit", "16", "--keep", "all", "-o", str(probed), "--force"])
        if code not in (0, 1):
            raise Stopped(code)
        seconds += (time.monotonic() - start) * questions * settings / 16
    return f"{answers:,} answers, at most {seconds / 3600:.1f} hours, by loading each model and 16 unpruned questions"


def asked(table: Table) -> int:
    questions, *rest = table.files
    total = sum(1 for _ in BENCHMARKS[table.benchmark].read(questions, rest[0] if rest else None))
    return total if table.chosen.limit is None else min(total, table.chosen.limit)


def differences(tables: Sequence[Table], chosen: argparse.Namespace) -> Iterator[str]:
    for table in tables:
        wanted = published(table.model).get("unpruned", {}).get(table.benchmark)
        found = table.scores().get("unpruned")
        if wanted is None:
            continue
        allowed = chosen.tolerance * (20 if table.benchmark == "mme" else 1)
        if found is None or abs(found - wanted) > allowed:
            here = "nothing" if found is None else f"{found:.1f}"
            yield f"{table.model}, {table.benchmark}, unpruned: {here} here, {wanted} published"


def finish(tables: Sequence[Table], chosen: argparse.Namespace, off: Sequence[str]) -> None:
    say(", ".join(map(str, write(tables, chosen, off))))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

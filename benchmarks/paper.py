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
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafv.benchmark_files import BENCHMARKS
from adafv.errors import AdaFVError

MODELS = [
    "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-hf/llava-v1.6-vicuna-13b-hf", "llava-hf/llava-v1.6-34b-hf",
]  # fmt: skip
BUDGETS = {True: "640,320,160", False: "192,128,64,32"}  # of tiles, of one crop
FILES = {  # questions, annotations, images, as in LLaVA's Evaluation.md
    "gqa": ("gqa/llava_gqa_testdev_balanced.jsonl", "gqa/testdev_balanced_questions.json", "gqa/images"),
    "mmbench": ("mmbench/mmbench_dev_20230712.tsv", None, "mmbench"),
    "mme": ("MME/MME_Benchmark_release_version", None, "MME/MME_Benchmark_release_version"),
    "pope": ("pope/coco", None, "pope/val2014"),
    "scienceqa": ("scienceqa/llava_test_CQM-A.json", "scienceqa/problems.json", "scienceqa/images/test"),
    "textvqa-ocr": (
        "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images",
    ),
    "vizwiz": ("vizwiz/val.json", None, "vizwiz/val"),
    "vqav2": (
        "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/v2_mscoco_val2014_annotations.json", "vqav2/val2014",
    ),
}  # fmt: skip
OTHER_SPLIT = {"vqav2", "vizwiz"}  # published on test splits, which only their servers mark
PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parent / "published.json").read_text())

Adafv = Callable[[Sequence[str]], int]
"""Runs `adafv ARGUMENTS`, and returns its exit code."""


class Stopped(Exception):
    """Ends the run with an exit code."""


@dataclass(frozen=True)
class Table:
    """One benchmark with one model: an `adafv sweep`."""

    model: str
    benchmark: str
    data: Path
    out: Path
    chosen: argparse.Namespace

    @property
    def files(self) -> list[Path]:
        questions, answers, _ = FILES[self.benchmark]
        return [self.data / name for name in (questions, answers) if name is not None]

    @property
    def folder(self) -> Path:
        return self.out / self.model.strip("/").replace("/", "--")

    @property
    def report(self) -> Path:
        return self.folder / f"{self.benchmark}.json"

    @property
    def input(self) -> list[str]:
        questions, answers, images = FILES[self.benchmark]
        named = [] if answers is None else ["--answers", str(self.data / answers)]
        limit = [] if self.chosen.limit is None else ["--limit", str(self.chosen.limit)]
        where = [str(self.data / questions), "--benchmark", self.benchmark, *named]
        where += ["--image-folder", str(self.data / images), "-m", self.model]
        return [*where, "--protocol", "published", *limit, *self.chosen.flags]

    def sweep(self, adafv: Adafv, keep: str, pruners: str) -> None:
        """Answer, or go on; raises `Stopped` where the run was interrupted or cannot go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{self.benchmark}.jsonl"
        resume = ["--resume"] if log.exists() and log.stat().st_size else []
        command = ["sweep", *self.input, "--keep", keep, "--pruner", pruners, "-o", str(log), *resume]
        code = adafv([*command, "--report", str(self.report)])
        if code not in (0, 1):  # 1: some questions failed, which the report counts
            raise Stopped(code)

    def scores(self) -> dict[str, float]:
        """The figure that papers print, by setting."""
        points = json.loads(self.report.read_text())["points"]
        return {name_of(point): found for point in points if (found := figure(self.benchmark, point)) is not None}


def name_of(point: dict[str, Any]) -> str:
    return "unpruned" if point["pruner"] == "none" else f"{point['pruner']} {point['keep']}"


def figure(benchmark: str, point: dict[str, Any]) -> float | None:
    """POPE: mean F1 of its categories; MME: perception; all others: percent right."""
    if benchmark == "pope":
        groups = [group["yes_no"]["f1"] for group in (point.get("groups") or {}).values() if group["yes_no"]]
        found = [group["value"] for group in groups if group]
        return 100 * sum(found) / len(found) if found else None
    if benchmark == "mme":
        perception = (point.get("scores") or {}).get("perception")
        return None if perception is None else float(perception["value"])
    return None if point["accuracy"] is None else 100 * float(point["accuracy"]["value"])


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
            write(tables, chosen, off)
            return 1
        for table in tables:
            table.sweep(run, budgets(table.model, chosen), chosen.pruner)
    except Stopped as stopped:
        say("stopped; the same command goes on")
        write([table for table in tables if table.report.exists()], chosen, [])
        return int(stopped.args[0])
    except AdaFVError as error:
        say(f"{error.what}\n  {error.fix}")
        return 4
    write(tables, chosen, off)
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


def published(model: str, benchmark: str) -> float | None:
    found = [one for one in PUBLISHED["figures"] if one["model"] == model and one["pruner"] == "none"]
    return found[0].get(benchmark) if found and benchmark not in OTHER_SPLIT else None


def differences(tables: Sequence[Table], chosen: argparse.Namespace) -> Iterator[str]:
    for table in tables:
        wanted, found = published(table.model, table.benchmark), table.scores().get("unpruned")
        if wanted is None:
            continue
        allowed = chosen.tolerance * (20 if table.benchmark == "mme" else 1)
        if found is None or abs(found - wanted) > allowed:
            here = "nothing" if found is None else f"{found:.1f}"
            yield f"{table.model}, {table.benchmark}, unpruned: {here} here, {wanted} published"


def write(tables: Sequence[Table], chosen: argparse.Namespace, off: Sequence[str]) -> None:
    """Write `paper.md` and `paper.json`."""
    models: dict[str, dict[str, dict[str, float]]] = {}
    for table in tables:
        for setting, value in table.scores().items():
            models.setdefault(table.model, {}).setdefault(setting, {})[table.benchmark] = value
    hashes = {str(path): one for table in tables for path in table.files for one in digests(path)}
    weights = {model: dict(weight_digests(model)) for model in models}
    lines = ["# The papers' tables, by adafv", ""]
    if chosen.limit is not None:
        lines += [f"**The first {chosen.limit} questions of each benchmark only**: no figure to compare.", ""]
    lines += [f"- {line}" for line in off] or ["Unpruned models: none differs from a published figure that is known."]
    whole: dict[str, Any] = {"units": PUBLISHED["units"], "limit": chosen.limit, "differs": list(off), "models": {}}
    for model, settings in models.items():
        names = [name for name in FILES if name in settings.get("unpruned", {})]
        lines += ["", f"## {model}", "", "| " + " | ".join(["setting", *names, "relative %"]) + " |"]
        lines += ["|" + "---|" * (len(names) + 2)]
        known = {name: published(model, name) for name in names}
        if any(value is not None for value in known.values()):
            cells = ["" if known[name] is None else f"{known[name]:.1f}" for name in names]
            lines += [f"| *unpruned, published* | {' | '.join(cells)} | |"]
        rows = {setting: relative(values, settings["unpruned"], names) for setting, values in settings.items()}
        for setting, values in settings.items():
            cells = [f"{values[name]:.1f}" if name in values else "" for name in names]
            mean = "" if rows[setting] is None else f"{rows[setting]:.1f}"
            lines.append(f"| {setting} | {' | '.join(cells)} | {mean} |")
        whole["models"][model] = {"scores": settings, "relative": rows, "published": known}
    lines += [
        "",
        f"Units: {PUBLISHED['units']}. Relative: mean over the benchmarks of figure over unpruned figure.",
    ]
    lines += ["", "Published figures:", *(f"- {name}: {source}" for name, source in PUBLISHED["sources"].items())]
    lines += ["", "SHA-256 of what was read:", *(f"- `{name}`: {digest}" for name, digest in hashes.items())]
    lines += [f"- {model}, `{name}`: {digest}" for model, found in weights.items() for name, digest in found.items()]
    whole |= {"sources": PUBLISHED["sources"], "files": hashes, "weights": weights}
    (chosen.out / "paper.md").write_text("\n".join([*lines, ""]))
    (chosen.out / "paper.json").write_text(json.dumps(whole, indent=2) + "\n")
    say(f"{chosen.out / 'paper.md'}, {chosen.out / 'paper.json'}")


def relative(values: dict[str, float], whole: dict[str, float], names: Sequence[str]) -> float | None:
    """Mean of what is left of the unpruned figures, in percent; `None` where one is missing."""
    shares = [values[name] / whole[name] for name in names if name in values and whole[name]]
    return 100 * sum(shares) / len(shares) if shares and all(name in values for name in names) else None


def digests(path: Path) -> Iterator[str]:
    """Hash a file, or the text files of a folder together."""
    files = [path] if path.is_file() else sorted(one for end in ("*.json", "*.txt") for one in path.rglob(end))
    whole = hashlib.sha256()
    for one in files:
        whole.update(one.read_bytes())
    yield whole.hexdigest()


def weight_digests(model: str) -> Iterator[tuple[str, str]]:
    """Hash the weights, where they lie in a folder, or in the hub's cache."""
    from adafv import demo

    folder = Path(demo.__file__).parent / "checkpoint" if model == "demo" else Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(model, local_files_only=True))
        except Exception:  # no cache, no hash: which is to be seen in the report
            return
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

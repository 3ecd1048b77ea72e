"""A long batch on the bundled checkpoint, good and bad lines mixed, killed and resumed again and again.

    python benchmarks/soak.py --minutes 60 --kill-every 5

Each round answers the lines of one file to its end, in several runs that are killed (in turn by SIGKILL, SIGTERM and
SIGINT) and resumed; then the next round begins. Memory, descriptors and threads of the running process are sampled.
They are flat where the last runs need no more than the first. Linux alone: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WARM_S = 20.0  # what is sampled before belongs to loading


@dataclass(frozen=True)
class Sample:
    seconds: float
    resident_mb: float
    descriptors: int
    threads: int


@dataclass
class Run:
    """One process; `ended` is its exit code, negative for a signal."""

    samples: list[Sample] = field(default_factory=list)
    ended: int = 0
    lines: int = 0


def write_questions(path: Path, lines: int, seed: int) -> None:
    """Questions about the bundled pictures; one line in ten is bad, each in one of several ways."""
    chance = random.Random(seed)
    good = [json.loads(line) for line in (ROOT / "sample_images/questions.jsonl").read_text().splitlines()]
    bad = [{"image": "gone.png"}, {"image": "questions.jsonl"}, {"text": ""}, {"text": "a <image> in it"},
           {"image": "http://x.org/a.png"}, {"text": "word " * 3_000}, {"kind": [[1e308 * 10]]}]  # fmt: skip
    with path.open("w", encoding="utf-8") as stream:
        for number in range(lines):
            line = chance.choice(good) | {"question_id": number}
            if chance.random() < 0.1:
                line |= chance.choice(bad)
            torn = chance.random() < 0.01
            stream.write((json.dumps(line)[:-5] if torn else json.dumps(line)) + "\n")


def sample(pid: int, since: float) -> Sample | None:
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        descriptors = len(list((folder / "fd").iterdir()))
        return Sample(
            time.monotonic() - since, int(status["VmRSS"].split()[0]) / 1024, descriptors, int(status["Threads"])
        )
    except (OSError, KeyError):  # it has just ended
        return None


def watch(args: list[str], until: float, every_s: float, end_with: signal.Signals) -> Run:
    """Start a process, sample it, and end it when its time is over."""
    run, began = Run(), time.monotonic()
    process = subprocess.Popen(args, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(every_s)
            found = sample(process.pid, began)
            if found is not None and found.seconds > WARM_S:
                run.samples.append(found)
            if time.monotonic() > until:
                process.send_signal(end_with)
                process.wait(120)
    finally:
        process.kill()
    run.ended = process.returncode
    return run


def check(out: Path, lines: int | None) -> int:
    """Count the whole lines; each id is there once, and all are there when `lines` says so."""
    raw = out.read_bytes() if out.exists() else b""
    ids = [json.dumps(json.loads(line)["question_id"]) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
    if len(ids) != len(set(ids)):
        raise SystemExit("an id is there twice")
    if lines is not None and len(ids) != lines:
        raise SystemExit(f"{lines} lines went in, {len(ids)} came out")
    return len(ids)


def soak(folder: Path, minutes: float, kill_every: float, lines: int) -> list[Run]:
    runs: list[Run] = []
    end, finished = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        path, out = folder / f"questions{finished}.jsonl", folder / f"answers{finished}.jsonl"
        if not path.exists():
            write_questions(path, lines, seed=finished)
        args = [sys.executable, "-m", "adafv_cli", "batch", str(path), "--image-folder", "sample_images", "-q"]
        until = min(end, time.monotonic() + 60 * kill_every)
        run = watch([*args, "-o", str(out), "--resume"], until, 1.0, SIGNALS[len(runs) % len(SIGNALS)])
        killed = run.ended < 0 or run.ended == 130
        if not killed and run.ended != 1:  # 1: finished, with the bad lines
            raise SystemExit(f"exit {run.ended} of a run that nobody ended")
        run.lines = check(out, None if killed else lines)
        runs.append(run)
        finished += not killed
    return runs


def table(runs: list[Run]) -> str:
    rows = [
        f"{'run':>3} {'minutes':>7} {'lines':>7} {'MB first':>9} {'last':>6} {'most':>6} {'fds':>7} {'threads':>8}  end"
    ]
    for number, run in enumerate(runs, start=1):
        if not run.samples:
            rows.append(f"{number:>3} ended before it was warm: {run.ended}")
            continue
        tenth = max(1, len(run.samples) // 10)
        memory = [one.resident_mb for one in run.samples]
        fds, threads = {one.descriptors for one in run.samples}, {one.threads for one in run.samples}
        spans = [f"{min(some)}-{max(some)}" if len(some) > 1 else str(min(some)) for some in (fds, threads)]
        rows.append(
            f"{number:>3} {run.samples[-1].seconds / 60:>7.1f} {run.lines:>7} {median(memory[:tenth]):>9.0f} "
            f"{median(memory[-tenth:]):>6.0f} {max(memory):>6.0f} {spans[0]:>7} {spans[1]:>8}  {run.ended}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored for what runs in the background
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kill-every", type=float, default=5, metavar="MINUTES")
    parser.add_argument("--lines", type=int, default=20_000, help="in a file of questions")
    chosen = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        print(table(soak(Path(name), chosen.minutes, chosen.kill_every, chosen.lines)))

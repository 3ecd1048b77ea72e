"""Kills a batch with SIGKILL at random moments and lets it go on, until it has been killed often enough and is done.

    python -m tests.batch_kills FOLDER               the fake model, in forks of this process: quick
    python -m tests.batch_kills FOLDER --real 3      `adafv batch` with the bundled checkpoint, killed within 3 s

After every kill each whole line of the output must be an answer, and no id may be there twice; in the end every id
must be there once. Prints how many kills there were.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from adafv_cli.app import build, main
from tests.batch_fakes import FakeBatchModel, asking, loader, questions
from tests.cli_fakes import engine_with

ROOT = Path(__file__).parent.parent
LINES, MISSING = 200, 7  # every seventh image is missing, so that every resumed run rewrites the file


def check(out: Path) -> set[object]:
    """The ids of the whole lines, each there once."""
    raw = out.read_bytes() if out.exists() else b""
    ids = [json.loads(line)["question_id"] for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
    if len(ids) != len(set(ids)):
        raise SystemExit(f"an id is there twice: {sorted(ids, key=str)}")
    return set(ids)


def forked(args: list[str]) -> Callable[[], int]:
    """Starts the command in a fork of this process."""
    engine = engine_with(loader(FakeBatchModel(step_s=0.002)))

    def start() -> int:
        pid = os.fork()
        if pid:
            return pid
        sys.modules["adafv.engine"] = engine
        sys.argv = ["adafv", *args]
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        try:
            main()
        finally:
            os._exit(0)

    return start


def started(args: list[str]) -> Callable[[], int]:
    """Starts the command as a process."""
    command = [sys.executable, "-m", "adafv_cli", *args]

    def start() -> int:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid

    return start


def wait_for_a_line(out: Path, pid: int) -> None:
    """Until the process has written something or is gone."""
    size = out.stat().st_size if out.exists() else 0
    while not out.exists() or out.stat().st_size <= size:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)


def kill_until_done(
    start: Callable[[], int], out: Path, within_s: float, expected: set[object], at_most: int, rng: random.Random
) -> int:
    """How often it was killed before it came to its end."""
    kills = 0
    while True:
        pid = start()
        if kills == at_most:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        elif kills % 2:  # half of the kills are at any moment, the others while it writes, or it would never end
            wait_for_a_line(out, pid)
            time.sleep(rng.uniform(0, within_s / 10))
        else:
            time.sleep(rng.uniform(0, within_s))
        os.kill(pid, signal.SIGKILL)  # nothing happens to one that has ended
        _, status = os.waitpid(pid, 0)
        found = check(out)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    if found != expected:
        raise SystemExit(f"lost: {sorted(expected - found, key=str)}")
    return kills


def run(folder: Path, kills: int, real_s: float | None, rng: random.Random) -> int:
    out, done = folder / "answers.jsonl", 0
    if real_s is None:
        lines = [asking(number, "gone.png" if number % MISSING == 0 else "a.png") for number in range(LINES)]
        path, expected = questions(folder, *lines), set(range(LINES))
    else:
        path = str(ROOT / "sample_images" / "questions.jsonl")
        expected = {json.loads(line)["question_id"] for line in Path(path).read_text().splitlines()}
    args = ["batch", path, "-o", str(out), "--resume", "--batch-size", "2"]
    start = forked(args) if real_s is None else started(args)
    while done < kills:
        out.unlink(missing_ok=True)
        done += kill_until_done(start, out, real_s or 0.1, expected, kills - done, rng)
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--real", type=float, metavar="SECONDS")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.folder, ignore_errors=True)
    chosen.folder.mkdir(parents=True)
    build()  # imports everything, so that forks begin at once
    sys.stdout.write(f"{run(chosen.folder, chosen.kills, chosen.real, random.Random(chosen.seed))} kills\n")

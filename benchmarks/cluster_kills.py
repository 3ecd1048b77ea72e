"""Kills things in a Ray cluster of two raylets on this machine: what comes out must be what one process writes.

    python benchmarks/cluster_kills.py FOLDER [--lines 128]

Runs `adafv batch --engine ray --actors 2` with the bundled checkpoint: left alone; with a line that kills whoever opens
its image; with `kill -9` of an actor; of this command, which `--resume` then goes on with; and of a raylet. Takes some
minutes; needs `pip install 'adafv[ray]'`. Ends with exit code 1 at the first difference.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_images"
TIMED = ("latency_s", "memory_bytes")
PATIENT = {"RAY_raylet_start_wait_time_s": "300", "RAY_agent_register_timeout_ms": "300000"}
# Where raylets look for modules: an image of this name kills the process that opens it, as a broken decoder would.
KILLER = """import os, sys
sys.addaudithook(lambda name, args: name == "open" and "poison.png" in str(args[0]) and os.kill(os.getpid(), 9))
"""
Kill = Callable[[subprocess.Popen[bytes]], None]


def said(path: Path) -> dict[Any, dict[str, Any]]:
    """Answers by id, without times and without what an image's encoding costs, which one of its questions bears."""
    found: dict[Any, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        answer = json.loads(line)
        if answer["question_id"] in found:
            raise SystemExit(f"{answer['question_id']} is there twice")
        flops = answer["flops"] or {}
        answer["flops"] = {name: flops[name] for name in ("score", "prefill", "decode") if flops}
        found[answer["question_id"]] = {name: value for name, value in answer.items() if name not in TIMED}
    return found


def written(folder: Path, count: int) -> tuple[Path, Path]:
    """The demo's questions, again and again; and the same with a poison among them."""
    for image in SAMPLES.glob("*.png"):
        shutil.copy(image, folder)
    lines = [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text().splitlines()]
    every = [lines[number % len(lines)] | {"question_id": number} for number in range(count)]
    shutil.copy(next(folder.glob("*.png")), folder / "poison.png")
    poisoned = [*every[: count // 2], every[0] | {"question_id": "poison", "image": "poison.png"}, *every[count // 2 :]]
    paths = folder / "questions.jsonl", folder / "poisoned.jsonl"
    for path, some in zip(paths, (every, poisoned), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in some))
    return paths


def batch(path: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    args = [sys.executable, "-m", "adafv_cli", "batch", str(path), "-o", str(out), "--dtype", "float32", "-q", *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(args, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    """Processes below another one that are actors of ours."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, check=True, text=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and row[2].startswith("ray::Worker")]


def half_way(process: subprocess.Popen[bytes], out: Path, lines: int) -> None:
    """Wait until some answers are out."""
    while not out.exists() or len(out.read_bytes().splitlines()) < lines:
        if process.poll() is not None:
            raise SystemExit(f"it ended before anything could be killed, with {process.returncode}")
        time.sleep(0.05)


@dataclass
class Drills:
    """Batches on a cluster of two raylets, each against what one process has written."""

    folder: Path
    lines: int
    address: str
    raylets: list[int]
    wanted: dict[Any, dict[str, Any]]

    def drill(self, name: str, source: Path, kill: Kill | None, expected: int, *, again: bool = False) -> None:
        """Run a batch, have something killed half-way, perhaps go on, and compare; raises `SystemExit`."""
        out = self.folder / "out.jsonl"
        for path in (out, out.with_name("out.jsonl.settings.json")):
            path.unlink(missing_ok=True)
        spread = ("--engine", "ray", "--address", self.address, "--actors", "2")
        began, process = time.monotonic(), batch(source, out, *spread)
        if kill is not None:
            half_way(process, out, self.lines // 4)
            kill(process)
        code = process.wait()
        if again:
            code = batch(source, out, *spread, "--resume").wait()
        found = said(out)
        poison = found.pop("poison", None)
        same = found == self.wanted and list(found) == list(self.wanted)
        error = None if poison is None else poison["error"]["type"]
        took = f"{time.monotonic() - began:.0f} s"
        print(f"{name}: exit {code}, {len(found)} answers, each id once, {'equal' if same else 'DIFFERENT'}"
              f"{f', the poison {error}' if error else ''}, {took}", flush=True)  # fmt: skip
        if not same or code != expected or error != ("PoisonError" if source.name == "poisoned.jsonl" else None):
            raise SystemExit(1)

    def actor(self, process: subprocess.Popen[bytes]) -> None:
        os.kill((children(self.raylets[0]) or children(self.raylets[1]))[0], signal.SIGKILL)

    def raylet(self, process: subprocess.Popen[bytes]) -> None:
        os.kill(self.raylets[1], signal.SIGKILL)


@contextmanager
def two_raylets(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """The address of a cluster whose processes know what kills them, and its raylets."""
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(KILLER)
    os.environ["PYTHONPATH"] = f"{folder / 'hook'}:{ROOT}"
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"} | PATIENT
    from ray.cluster_utils import Cluster

    store = 100 * 2**20
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": store}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=store)
        yield cluster.address, [one.all_processes["raylet"][0].process.pid for one in (cluster.head_node, node)]
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int, default=128)
    chosen = parser.parse_args()
    shutil.rmtree(chosen.folder, ignore_errors=True)
    chosen.folder.mkdir(parents=True)
    path, poisoned = written(chosen.folder, chosen.lines)
    alone = chosen.folder / "alone.jsonl"
    if batch(path, alone).wait():
        raise SystemExit("one process alone does not answer")
    with two_raylets(chosen.folder) as (address, raylets):
        drills = Drills(chosen.folder, chosen.lines, address, raylets, said(alone))
        drills.drill("left alone", path, None, 0)
        drills.drill("a poison line", poisoned, None, 1)
        drills.drill("kill -9 of an actor", path, drills.actor, 0)
        drills.drill("kill -9 of the command, --resume", path, subprocess.Popen.kill, 0, again=True)
        drills.drill("kill -9 of a raylet", path, drills.raylet, 0)


if __name__ == "__main__":
    main()

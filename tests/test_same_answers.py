"""One process, two ranks, the actors of a Ray cluster and a server: the same lines, but for times."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import adafv
from tests.cli_fakes import adafv as run_adafv
from tests.completions import Completions
from tests.conftest import noise
from tests.test_launch import rank_of

LINES, IMAGES = 12, 3
"""As many as fit into one batch: an image's encoding and choice are then made once everywhere."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("same")
    for number in range(IMAGES):
        noise(70 + 9 * number, 56, number).save(made / f"{number}.png")
    words = "what color is the sign in the picture".split()
    rows = [
        {"question_id": f"q{number}", "image": f"{number % IMAGES}.png", "text": " ".join(words[: 1 + number % 7])}
        | ({"keep": 5} if number == 4 else {})
        | ({"image": "gone.png"} if number == 8 else {})
        for number in range(LINES)
    ]
    (made / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.fixture(scope="module")
def batch(folder: Path, llava_folder: Path) -> Any:
    """Run `adafv batch` in this process, and give its lines as they can be compared."""

    def run(name: str, *more: str, part: bool = False, source: str = "in.jsonl") -> list[dict[str, Any]]:
        out = folder / f"{name}.jsonl"
        args = ["-m", str(llava_folder), "--dtype", "float32", "--max-new-tokens", "6", "-o", str(out), "-q"]
        # An answer that depends on what else is asked about its image.
        args += ["--batch-size", str(LINES), "--select", "split"]
        done = run_adafv("batch", str(folder / source), *args, *more)
        assert done.code == (0 if part else 1), done.stderr
        return [] if part else comparable(out)

    return run


def comparable(out: Path) -> list[dict[str, Any]]:
    """Lines without times and memory; an image's encoding and choice are charged to one question, wherever that is."""
    found = [json.loads(line) for line in out.read_text().splitlines()]
    charged: dict[str, list[int]] = {}
    for line in found:
        flops = line["flops"] or {}
        name, keep = line["image"]["name"], line["keep"]
        charged.setdefault(name, []).append(flops.pop("vision", 0) + flops.pop("projector", 0))
        charged.setdefault(f"{name} {keep}", []).append(flops.pop("score", 0))
        for name in ("total", "unpruned_total"):
            flops.pop(name, None)
        for name in ("latency_s", "memory_bytes"):
            line.pop(name)
    assert [sorted(one)[:-1] == [0] * (len(one) - 1) for one in charged.values()] == [True] * len(charged)
    assert all(any(one) for name, one in charged.items() if not name.startswith("gone.png"))
    return found


@pytest.fixture(scope="module")
def alone(batch: Any) -> list[dict[str, Any]]:
    return batch("alone")  # type: ignore[no-any-return]


def test_one_process_answers(alone: list[dict[str, Any]]) -> None:
    assert [line["question_id"] for line in alone] == [f"q{number}" for number in range(LINES)]
    assert [line["error"] is None for line in alone] == [number != 8 for number in range(LINES)]
    assert len({line["text"] for line in alone}) > 2  # one of them is null


def test_two_ranks(batch: Any, alone: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In turn, in this process: the second one first, which the first one waits for."""
    from adafv_cli.work.parts import Parts
    from adafv_cli.work.world import World

    for rank in (1, 0):
        for name, value in rank_of(rank, 2).items():
            monkeypatch.setenv(name, value)
        if rank:
            Parts(folder / "ranks.jsonl", World.of(os.environ)).claim()
        found = batch("ranks", "--device-map", "cpu", part=rank == 1)
    assert found == alone


@pytest.fixture(scope="module")
def server(llava_folder: Path) -> Iterator[Completions]:
    served = adafv.load(str(llava_folder), dtype="float32", device_map="cpu")
    found = Completions(served.pipeline.model)
    yield found
    found.die()


def test_a_server(batch: Any, alone: list[dict[str, Any]], server: Completions) -> None:
    assert batch("served", "--server", server.url) == alone


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Ray on this machine, two CPUs, found by its address; it imports what this process does."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    folders = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        for name in ("RAY_raylet_start_wait_time_s", "RAY_agent_register_timeout_ms"):  # on a busy machine
            patch.setenv(name, "300000" if name.endswith("ms") else "300")
        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        found = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield found.address
        finally:
            found.shutdown()


def test_a_ray_cluster(batch: Any, alone: list[dict[str, Any]], cluster: str) -> None:
    found = batch("spread", "--engine", "ray", "--address", cluster, "--actors", "2")
    assert found == alone
    assert not sys.modules["ray"].is_initialized()


def test_a_cluster_that_shares_a_server_and_gets_images_from_a_table(
    batch: Any, alone: list[dict[str, Any]], cluster: str, server: Completions, folder: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [json.loads(line) for line in (folder / "in.jsonl").read_text().splitlines()]
    for row in rows:
        path = folder / row["image"]
        row["image"] = {"bytes": path.read_bytes() if path.exists() else None, "path": row["image"]}
        row.setdefault("keep", None)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "in.parquet")
    before = len(server.asked)
    spread = ("--engine", "ray", "--address", cluster, "--actors", "1", "--server", server.url)
    assert batch("shared", *spread, source="in.parquet") == alone
    assert len(server.asked) == before + LINES - 1  # all but the one without an image

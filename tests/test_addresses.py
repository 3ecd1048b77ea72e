"""INPUT and `-o` by address: what a filesystem in memory, a folder behind fsspec or a web server has."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from adafv_cli.work import delivery
from adafv_cli.work.addresses import Address, located, work_path
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.batch_kills import forked
from tests.cli_fakes import adafv, picture

pytest.importorskip("pyarrow")
memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem

BUCKET = "fsspec+memory://bucket"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory.store.clear()
    yield tmp_path / "cache"
    memory.store.clear()


def there() -> dict[str, bytes]:
    return {name.removeprefix("/bucket/"): file.getvalue() for name, file in memory.store.items()}


def put(name: str, content: bytes) -> str:
    memory().pipe(f"/bucket/{name}", content)
    return f"{BUCKET}/{name}"


def lines(folder: Path, count: int) -> Path:
    return Path(questions(folder, *(asking(number) for number in range(count))))


def ids(content: bytes) -> list[Any]:
    return [line["question_id"] for line in answers(content.decode())]


def left(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "text,place",
    [
        ("file:///tmp/a%20b.jsonl", Path("/tmp/a b.jsonl")),
        ("file://localhost/tmp/a", Path("/tmp/a")),
        ("./s3://a", Path("s3:/a")),
        ("12:30.jsonl", Path("12:30.jsonl")),
        ("c:/a.jsonl", Path("c:/a.jsonl")),
        ("a:b//c", Path("a:b/c")),
        ("-", Path("-")),
        ("s3://a/b", Address("s3://a/b")),
        ("file://elsewhere/b", Address("file://elsewhere/b")),
    ],
)
def test_addresses_are_told_from_paths(text: str, place: Path | Address) -> None:
    assert located(text) == place


@pytest.mark.parametrize(
    "folder,name,found",
    [
        ("s3://a/b", "c.png", "s3://a/b/c.png"),
        ("s3://a/b/", "c d#.png", "s3://a/b/c%20d%23.png"),
        ("s3://a/b/c", "../../d.png", "s3://a/d.png"),
        ("s3://a/b?region=x", "./c.png", "s3://a/b/c.png?region=x"),
        ("hdfs:///b", "c/d.png", "hdfs:///b/c/d.png"),
        ("s3://a/b", "/photos/c.png", "/photos/c.png"),
        ("fsspec+memory://a/b?", "c d#50%.png", "fsspec+memory://a/b?/c d#50%.png"),
    ],
)
def test_relative_images_are_beside_an_address(folder: str, name: str, found: str) -> None:
    assert str(Address(folder) / name) == found


def test_lines_and_answers_by_address_are_those_of_files(tmp_path: Path, model: FakeBatchModel, cache: Path) -> None:
    path = lines(tmp_path, 20)
    assert adafv("batch", str(path), "-o", str(tmp_path / "out.jsonl")).code == 0
    address = put("in.jsonl", path.read_bytes())
    done = adafv("batch", address, "--image-folder", str(tmp_path), "-o", f"{BUCKET}/deep/out.jsonl")
    assert done.code == 0 and f"all answers are in {BUCKET}/deep/out.jsonl" in done.stderr
    assert there()["deep/out.jsonl"] == (tmp_path / "out.jsonl").read_bytes()
    local = (tmp_path / "out.jsonl.settings.json").read_bytes()
    assert there()["deep/out.jsonl.settings.json"] == local
    assert len(there()) == 3 and not left(cache)  # no part, no try, no copy


def test_files_with_addresses_are_files(tmp_path: Path, model: FakeBatchModel) -> None:
    folder = tmp_path / "odd: 50% #1"
    folder.mkdir()
    path = lines(folder, 3)
    done = adafv("batch", path.as_uri(), "-o", (folder / "out.jsonl").as_uri())
    assert done.code == 0 and len(answers((folder / "out.jsonl").read_text())) == 3
    assert adafv("batch", path.as_uri(), "-o", str(path), "--force").code == 2  # it is the input


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_tables_by_address_are_read_where_they_lie(tmp_path: Path, model: FakeBatchModel, kind: str) -> None:
    import pyarrow
    from pyarrow import parquet

    picture(tmp_path / "a.png")
    image = (tmp_path / "a.png").read_bytes()
    for part in range(2):
        rows = [{"question_id": 3 * part + row, "image": image, "text": "what is this?"} for row in range(3)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
        put(f"rows/{part}.parquet", (tmp_path / "rows.parquet").read_bytes())
    put("rows/notes.txt", b"no table")
    done = adafv("batch", f"{BUCKET}/rows" + ("/1.parquet" if kind == "file" else ""))
    assert done.code == 0
    assert [one.question_id for one in model.asked] == ([3, 4, 5] if kind == "file" else [*range(6)])
    assert all(one.image == image for one in model.asked)


def test_images_beside_an_address_name_who_reads_them(tmp_path: Path, model: FakeBatchModel) -> None:
    address = put("in.jsonl", lines(tmp_path, 2).read_bytes())
    done = adafv("batch", address)
    assert done.code == 1
    assert {one.image for one in model.asked} == {f"{BUCKET}/a.png"}
    with_folder = adafv("batch", str(tmp_path / "questions.jsonl"), "--image-folder", "s3://photos/here")
    assert with_folder.code == 1 and model.asked[-1].image == "s3://photos/here/a.png"


def test_a_run_that_failed_goes_on_on_another_machine(
    tmp_path: Path, model: FakeBatchModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lines(tmp_path, 30)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[20]["text"] = "explode"
    broken = tmp_path / "broken.jsonl"
    broken.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = f"{BUCKET}/out.jsonl"
    assert adafv("batch", str(broken), "-o", out).code == 1
    assert "out.jsonl" not in there() and sum(".part-" in name for name in there()) == 1
    assert ids(next(content for name, content in there().items() if ".part-" in name)) == list(range(16))
    shutil.rmtree(cache)  # it is another machine
    again = adafv("batch", str(path), "-o", out)
    assert again.code == 2 and "a run that did not end" in again.stderr
    other = adafv("batch", str(path), "-o", out, "--resume", "--keep", "7")
    assert other.code == 2 and "made with other settings" in other.stderr
    model.asked.clear()
    assert adafv("batch", str(path), "-o", out, "--resume", "--dry-run").code == 0
    assert adafv("batch", str(path), "-o", out, "--resume").code == 0
    assert [one.question_id for one in model.asked] == list(range(16, 30))
    assert ids(there()["out.jsonl"]) == list(range(30)) and len(there()) == 2 and not left(cache)


def test_what_did_not_arrive_is_kept_here(
    tmp_path: Path, model: FakeBatchModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = lines(tmp_path, 12), f"{BUCKET}/out.jsonl"

    def fail(*args: Any, **more: Any) -> None:
        raise OSError(28, "no room in the bucket")

    with monkeypatch.context() as patch:
        patch.setattr(delivery.Objects, "clear", fail)
        failed = adafv("batch", str(path), "-o", out)
    assert failed.code == 1 and "no room in the bucket" in failed.stderr and str(cache) in failed.stderr
    assert ids(work_path(Address(out)).read_bytes()) == list(range(12))
    memory.store.clear()
    model.asked.clear()
    assert adafv("batch", str(path), "-o", out, "--resume").code == 0
    assert not model.asked and ids(there()["out.jsonl"]) == list(range(12)) and not left(cache)


def test_a_whole_that_was_about_to_be_there_counts(tmp_path: Path, model: FakeBatchModel) -> None:
    """Killed between taking the old one away and giving the new one its name."""
    path, out = lines(tmp_path, 3), f"{BUCKET}/out.jsonl"
    assert adafv("batch", str(path), "-o", out).code == 0
    memory().mv("/bucket/out.jsonl", "/bucket/out.jsonl.writing")
    model.asked.clear()
    assert "exists" in adafv("batch", str(path), "-o", out).stderr
    assert adafv("batch", str(path), "-o", out, "--resume").code == 0
    assert not model.asked and ids(there()["out.jsonl"]) == [0, 1, 2] and len(there()) == 2


def test_a_run_without_an_answer_leaves_nothing(tmp_path: Path, model: FakeBatchModel, cache: Path) -> None:
    path = Path(questions(tmp_path, asking(0) | {"text": "explode"}))
    for more in ([], ["--resume"], ["--force"]):
        failed = adafv("batch", str(path), "-o", f"{BUCKET}/out.jsonl", *more)
        assert failed.code == 1 and "the model gave up" in failed.stderr and "brought" not in failed.stderr
        assert not there() and not left(cache)


@pytest.mark.parametrize("more", [[], ["--resume"], ["--force"], ["--dry-run"]], ids=str)
def test_a_file_that_is_not_ours_is_no_place_for_settings(
    tmp_path: Path, model: FakeBatchModel, cache: Path, more: list[str]
) -> None:
    put("out.jsonl.settings.json", b'{"mine": 1}')
    refused = adafv("batch", str(lines(tmp_path, 1)), "-o", f"{BUCKET}/out.jsonl", *more)
    assert refused.code == 2 and f"its settings go to {BUCKET}/out.jsonl.settings.json, which exists" in refused.stderr
    assert there() == {"out.jsonl.settings.json": b'{"mine": 1}'} and not left(cache)


@pytest.mark.parametrize("name", ["lock", "gathered", "fetched", "settings"])
def test_an_output_may_be_named_like_a_file_of_the_work_folder(
    tmp_path: Path, model: FakeBatchModel, name: str
) -> None:
    out = f"{BUCKET}/{name}"
    assert adafv("batch", str(lines(tmp_path, 3)), "-o", out).code == 0
    assert adafv("batch", str(lines(tmp_path, 5)), "-o", out, "--resume").code == 0
    assert ids(there()[name]) == [*range(5)] and len(there()) == 2


def test_force_replaces_what_is_there(tmp_path: Path, model: FakeBatchModel) -> None:
    path, out = lines(tmp_path, 3), f"{BUCKET}/out.jsonl"
    put("out.jsonl", b"old\n")
    put("out.jsonl.part-0001-00000000-000000", b"older\n")
    assert "exists" in adafv("batch", str(path), "-o", out).stderr
    assert adafv("batch", str(path), "-o", out, "--force").code == 0
    assert ids(there()["out.jsonl"]) == [0, 1, 2] and len(there()) == 2


def test_a_sweep_goes_on_from_an_address(tmp_path: Path, model: FakeBatchModel) -> None:
    path, out = lines(tmp_path, 4), f"{BUCKET}/sweep.jsonl"
    assert adafv("sweep", str(path), "--keep", "25%", "-o", out).code == 0
    model.asked.clear()
    assert adafv("sweep", str(path), "--keep", "25%,50%", "-o", out, "--resume").code == 0
    assert len(model.asked) == 4 and len(answers(there()["sweep.jsonl"].decode())) == 12


@pytest.mark.parametrize(
    "args,said",
    [
        (["fsspec+memory://bucket/gone.jsonl"], "does not exist"),
        (["nowhere://bucket/in.jsonl"], "Unrecognized filesystem"),
        (["http://127.0.0.1:1/in.jsonl"], "Connection refused"),
        (["QUESTIONS", "-o", "https://example.org/out.jsonl"], "web servers take no files"),
        (["QUESTIONS", "-o", f"{BUCKET}/folder"], "is a folder"),
        (["QUESTIONS", "-o", f"{BUCKET}/new/"], "is a folder"),
        (["QUESTIONS", "-o", f"{BUCKET}/out[1].jsonl"], "fsspec reads *, ? and [ as patterns"),
        (["QUESTIONS", "-o", "nowhere://bucket/out.jsonl"], "-o: nowhere://bucket/out.jsonl: Unrecognized"),
        ([f"{BUCKET}/folder"], "without Parquet files"),
        ([f"{BUCKET}/folder/in.jsonl", "-o", f"{BUCKET}/folder/in.jsonl", "--force"], "is the input"),
        (["s3://a/pope", "--benchmark", "pope"], "files of pope are read from this machine"),
    ],
)
def test_addresses_that_cannot_be_used(tmp_path: Path, model: FakeBatchModel, args: list[str], said: str) -> None:
    path = lines(tmp_path, 1)
    put("folder/in.jsonl", path.read_bytes())
    refused = adafv("batch", *(str(path) if arg == "QUESTIONS" else arg for arg in args))
    assert refused.code == 2 and said in refused.stderr and not model.loaded


def test_several_processes_write_no_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(delivery, "World", type("World", (), {"of": lambda _: type("W", (), {"size": 2})}))
    refused = adafv("batch", str(lines(tmp_path, 1)), "-o", f"{BUCKET}/out.jsonl")
    assert refused.code == 2 and "several processes" in refused.stderr


@pytest.mark.parametrize(
    "flags", [("s3://bucket/in.jsonl",), ("s3://bucket/t/",), ("QUESTIONS", "-o", "s3://b/o.jsonl")]
)
def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.setattr("adafv_cli.work.addresses.find_spec", lambda name: None)
    for name in ("pyarrow", "pyarrow.fs"):
        monkeypatch.setitem(sys.modules, name, None)  # so that importing it fails, as where it is not installed
    path = str(lines(tmp_path, 1))
    refused = adafv("batch", *(path if flag == "QUESTIONS" else flag for flag in flags))
    assert refused.code == 2 and "needs pyarrow" in refused.stderr and "adafv[ray]" in refused.stderr


def test_a_second_run_to_one_address_is_refused(tmp_path: Path, model: FakeBatchModel) -> None:
    path, out = lines(tmp_path, 1), f"{BUCKET}/out.jsonl"
    with delivery.delivery(out, "-", resume=False, force=False, streams=None):  # type: ignore[arg-type]
        refused = adafv("batch", str(path), "-o", out)
    assert refused.code == 2 and "written by another process" in refused.stderr


class _Cut(SimpleHTTPRequestHandler):
    """Serves a folder; of `cut.jsonl`, less than it says."""

    def log_message(self, *args: Any) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        more = self.path == "/cut.jsonl" and keyword.lower() == "content-length"
        super().send_header(keyword, str(int(value) + 1) if more else value)


def test_lines_come_from_a_web_server(tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path, 5)
    shutil.copy(path, tmp_path / "cut.jsonl")
    server = HTTPServer(("127.0.0.1", 0), partial(_Cut, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.chdir(tmp_path)
        assert adafv("batch", f"{url}/questions.jsonl").code == 0 and len(model.asked) == 5
        cut = adafv("batch", f"{url}/cut.jsonl")
        assert cut.code == 2 and "the connection ended after" in cut.stderr
        gone = adafv("batch", f"{url}/gone.jsonl")
        assert gone.code == 2 and "404" in gone.stderr
    finally:
        server.shutdown()
        server.server_close()


def test_killed_on_one_machine_and_on_another_no_line_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle, twice; the second machine has only what was brought."""
    path, remote = lines(tmp_path, 200), tmp_path / "remote"
    remote.mkdir()
    gc.collect()  # copies that other tests have made: a fork would remove them, too
    monkeypatch.setattr(delivery, "EVERY_S", 0.01)
    command = ["batch", str(path), "-o", f"fsspec+{(remote / 'out.jsonl').as_uri()}", "--batch-size", "4"]

    def arrived() -> int:
        return len({number for part in remote.glob("out.jsonl.part-*[0-9]") for number in ids(part.read_bytes())})

    for number, machine in enumerate(("one", "one", "two")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        pid = forked([*command, *(["--resume"] if number else [])])()
        if number < 2:
            while arrived() < 40 * (number + 1):
                assert os.waitpid(pid, os.WNOHANG) == (0, 0)
                time.sleep(0.001)
            time.sleep(random.random() / 50)
            os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == (signal.SIGKILL if number < 2 else 0)
    assert sorted(ids((remote / "out.jsonl").read_bytes())) == list(range(200))
    assert sorted(path.name for path in remote.iterdir()) == ["out.jsonl", "out.jsonl.settings.json"]

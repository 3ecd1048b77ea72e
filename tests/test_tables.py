"""Parquet files and folders of `datasets` are asked as the lines that they could be, a few rows at a time."""

from __future__ import annotations

import datetime
import io
import json
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

Row = dict[str, Any]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (seed, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def write(kind: str, folder: Path, rows: list[Row]) -> str:
    """The same rows as a file, two files, or what `save_to_disk` writes; an image is what `datasets` makes of one."""
    table = arrow.Table.from_pylist(rows)
    if kind == "file":
        parquet.write_table(table, folder / "rows.parquet", row_group_size=3)
        return str(folder / "rows.parquet")
    if kind == "files":
        (folder / "rows").mkdir()
        parquet.write_table(table.slice(0, 2), folder / "rows" / "part-0.parquet")
        parquet.write_table(table.slice(2), folder / "rows" / "part-1.parquet")
        return str(folder / "rows")
    data = datasets.Dataset(table)
    if isinstance(rows[0].get("image"), dict):
        data = data.cast_column("image", datasets.Image())
    data.save_to_disk(folder / "saved", num_shards=2)
    return str(folder / "saved")


KINDS = ("file", "files", "saved")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_answered_as_lines(kind: str, tmp_path: Path, model: FakeBatchModel) -> None:
    """Byte for byte: ids, texts, names and contents of images, metadata."""
    content = [png(seed) for seed in range(5)]
    for number, image in enumerate(content):
        (tmp_path / f"{number}.png").write_bytes(image)
    rows: list[Row] = [{"id": f"q{n}", "question": f"what {n}?", "answer": ["a", "b"], "kind": n} for n in range(5)]
    held = [row | {"image": {"bytes": content[n], "path": f"{n}.png"}} for n, row in enumerate(rows)]
    named = [row | {"image": f"{n}.png"} for n, row in enumerate(rows)]
    lines = adafv("batch", questions(tmp_path, *named)).stdout
    found = adafv("batch", write(kind, tmp_path, held))
    assert (found.code, found.stdout) == (0, lines)
    assert [question.image for question in model.asked[5:]] == content
    by_path = adafv("batch", write("file", tmp_path, named))  # relative to the table
    assert by_path.stdout == lines


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_have_their_other_names(kind: str, tmp_path: Path, model: FakeBatchModel) -> None:
    image = {"bytes": png(), "path": None}
    rows: list[Row] = [
        {"question_id": None, "custom_id": 7 + n, "prompt": f"p{n}", "keep": "64" if n else None, "image": image}
        for n in range(3)
    ]
    found = answers(adafv("batch", write(kind, tmp_path, rows)).stdout)
    assert [answer["question_id"] for answer in found] == [7, 8, 9]
    assert [answer["prompt"] for answer in found] == ["p0", "p1", "p2"]
    assert [question.keep and question.keep.text for question in model.asked] == [None, "64", "64"]
    without = [{"text": "p", "image": image}] * 3
    (tmp_path / "more").mkdir()
    found = answers(adafv("batch", write(kind, tmp_path / "more", without)).stdout)
    assert [answer["question_id"] for answer in found] == [1, 2, 3]


def test_images_without_a_name_are_named_by_their_content(tmp_path: Path, model: FakeBatchModel) -> None:
    rows = [{"text": f"q{n}", "image": png(n % 2)} for n in range(6)]  # a column of bytes, not of `datasets`
    path = write("file", tmp_path, rows)
    found = answers(adafv("batch", path).stdout)
    names = [answer["image"]["name"] for answer in found]
    assert len(set(names)) == 2 and names[:2] * 3 == names and names[0].startswith("sha256:")
    parts = [answers(adafv("batch", path, "--shard", f"{part}/3").stdout) for part in (1, 2, 3)]
    ids = [{answer["question_id"] for answer in part} for part in parts]
    assert sorted(number for part in ids for number in part) == [1, 2, 3, 4, 5, 6]
    assert all(part <= {1, 3, 5} or part <= {2, 4, 6} or part == set(range(1, 7)) for part in ids)


def test_metadata_is_json(tmp_path: Path, model: FakeBatchModel) -> None:
    """What JSON does not know is text, what is no number is null, and bytes are left out."""
    row = {
        "text": "q", "image": png(), "when": datetime.date(2026, 1, 2), "price": Decimal("1.50"),
        "score": float("nan"), "second": {"bytes": b"x", "path": "y"}, "raw": b"123", "empty": None,
        "deep": [{"at": datetime.datetime(2026, 1, 2, 3)}],
    }  # fmt: skip
    (found,) = answers(adafv("batch", write("file", tmp_path, [row])).stdout)
    assert found["metadata"] == {
        "when": "2026-01-02", "price": "1.50", "score": None, "deep": [{"at": "2026-01-02 03:00:00"}], "empty": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_resumed(kind: str, tmp_path: Path, model: FakeBatchModel) -> None:
    rows: list[Row] = [{"id": n, "text": f"q{n}", "image": {"bytes": png(n), "path": None}} for n in range(4)]
    source, out = write(kind, tmp_path, rows), tmp_path / "out.jsonl"
    whole = adafv("batch", source).stdout
    assert adafv("batch", source, "-o", str(out)).code == 0
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:2]))
    model.asked.clear()
    assert adafv("batch", source, "-o", str(out), "--resume").code == 0
    assert [question.question_id for question in model.asked] == [2, 3]
    assert [strip(line) for line in out.read_text().splitlines()] == [strip(line) for line in whole.splitlines()]
    exchanged = [row | {"image": {"bytes": png(9), "path": None}} for row in rows]
    (tmp_path / "other").mkdir()
    refused = adafv("batch", write(kind, tmp_path / "other", exchanged), "-o", str(out), "--resume")
    assert refused.code == 2 and "about another image" in refused.stderr


def strip(line: str) -> Row:
    found: Row = json.loads(line)
    return found | {"answer_id": ""}


def test_what_is_wrong_with_a_row_stays_with_it(tmp_path: Path, model: FakeBatchModel) -> None:
    rows: list[Row] = [{"text": "q", "image": {"bytes": png(), "path": None}}, {"text": None, "image": None},
                       {"text": " ", "image": {"bytes": png(), "path": None}}, {"text": "q", "image": None},
                       {"text": "q", "image": {"bytes": None, "path": "https://a.b/c.png"}}]  # fmt: skip
    done = adafv("batch", write("file", tmp_path, rows))
    errors = [answer["error"] and answer["error"]["message"] for answer in answers(done.stdout)]
    assert done.code == 1 and errors[0] is None
    for error, said in zip(
        errors[1:], ("there is no question", "is no question", "there is no image", "web"), strict=True
    ):
        assert said in error


def test_few_rows_are_held_at_a_time(tmp_path: Path) -> None:
    """400 rows of 100 kB in one group: what Python holds of them is a few."""
    from adafv_cli.work.tables import rows

    content = [{"text": "q", "image": bytes([n % 256]) * 100_000} for n in range(400)]
    path = Path(write("file", tmp_path, content[:1]))
    parquet.write_table(
        arrow.Table.from_pylist(content), path, row_group_size=400, use_dictionary=False, write_batch_size=8
    )
    del content
    before = arrow.total_allocated_bytes()
    tracemalloc.start()
    held = []
    for row in rows(path):
        assert len(row()["image"].content) == 100_000
        held.append(arrow.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(held) == 400
    assert max(held) < 8_000_000 and peak < 8_000_000


def damaged(folder: Path) -> str:
    path = Path(write("file", folder, [{"text": "q", "image": png()}] * 50))
    path.write_bytes(path.read_bytes()[:-40])
    return str(path)


def splits(folder: Path) -> str:
    both = {name: datasets.Dataset.from_list([{"text": "q"}]) for name in ("test", "train")}
    datasets.DatasetDict(both).save_to_disk(folder / "both")
    return str(folder / "both")


def unnamed(folder: Path) -> str:
    return str(Path(write("file", folder, [{"text": "q"}])).rename(folder / "rows.bin"))


def no_columns(folder: Path) -> str:
    return write("file", folder, [{"a": 1}])


def empty_folder(folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


@pytest.mark.parametrize(
    "make, code, what",
    [
        (damaged, 4, "rows.parquet cannot be read"),
        (splits, 2, "has the splits test, train"),
        (unnamed, 4, "is in Parquet format, and has no name that ends in .parquet"),
        (no_columns, 4, "holds no question"),
        (empty_folder, 2, "without Parquet files"),
        (lambda folder: str(folder / "none.parquet"), 2, "No such file"),
    ],
)
def test_bad_inputs(make: Any, code: int, what: str, tmp_path: Path, model: FakeBatchModel) -> None:
    done = adafv("batch", make(tmp_path))
    assert (done.code, done.stdout) == (code, "")
    assert what in done.stderr


@pytest.mark.parametrize("kind, package", [("file", "pyarrow"), ("saved", "datasets")])
def test_without_the_package(
    kind: str, package: str, tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(kind, tmp_path, [{"text": "q", "image": png()}] * 2)
    monkeypatch.setattr("adafv_cli.work.tables.find_spec", lambda name: None if name == package else name)
    done = adafv("batch", path)
    assert done.code == 2
    assert f"needs {package}" in done.stderr and "pip install 'adafv[datasets]'" in done.stderr


def test_a_sweep_reads_them_too(tmp_path: Path, model: FakeBatchModel) -> None:
    rows = [{"id": n, "text": f"q{n}", "answer": "red", "image": png(n)} for n in range(3)]
    done = adafv("sweep", write("file", tmp_path, rows), "--keep", "32", "-q")
    assert done.code == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(point["accuracy"] is not None for point in points)
    assert asking(1)  # lines of the other tests have the same keys

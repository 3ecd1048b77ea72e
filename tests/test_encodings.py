"""`--encodings DIR`: what was encoded once is read back to the bit; what is not the same is made anew."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import adafv
from adafv import BatchSettings, LoadSettings, Question, RunSettings
from adafv.encoding import ImageEncoding
from adafv.errors import DeviceError, InputError
from adafv.loading.fingerprint import vision_fingerprint
from adafv.records import Answer
from adafv.streaming.encoding_store import EncodingStore
from tests.cli_fakes import adafv as command
from tests.tiny import save_llava_next

CPU = torch.device("cpu")
RUN = RunSettings(keep=12, max_new_tokens=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava_next(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(tiny: Path) -> adafv.Model:
    return adafv.load(str(tiny))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    folder, asked = tmp_path_factory.mktemp("images"), []
    for number, size in enumerate([(60, 40), (40, 90), (50, 50)]):
        path = folder / f"{number}.png"
        Image.effect_noise(size, 80 + number).convert("RGB").save(path)
        asked += [Question(2 * number + i, str(path), text) for i, text in enumerate(("what is it?", "is it red?"))]
    return asked


def answered(model: adafv.Model, questions: list[Question], folder: Path, **how: Any) -> tuple[list[Answer], Any]:
    stream = model.stream(questions, RUN, BatchSettings(batch_size=2, encodings=str(folder), **how))
    return list(stream), stream.stats


def texts(answers: list[Answer]) -> list[tuple[Any, ...]]:
    return [(one.question_id, one.text, one.tokens, one.error) for one in answers]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.encoding.safetensors"))


def same(one: ImageEncoding, other: ImageEncoding) -> bool:
    return (
        one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
        and (one.crops, one.grids) == (other.crops, other.grids)
    )


def test_a_second_run_encodes_nothing_and_answers_the_same(
    model: adafv.Model, questions: list[Question], tmp_path: Path
) -> None:
    plain = texts(list(model.stream(questions, RUN)))
    first, made = answered(model, questions, tmp_path)
    again, read = answered(model, questions, tmp_path)
    assert texts(first) == texts(again) == plain
    assert (made.images_encoded, made.encodings_read) == (3, 0)
    assert made.encodings_bytes == sum(path.stat().st_size for path in files(tmp_path)) > 0
    assert (read.images_encoded, read.encodings_read, read.encodings_bytes) == (0, 3, 0)
    assert [one.flops.vision > 0 for one in first if one.flops] == [True, False] * 3
    assert not any(one.flops.vision for one in again if one.flops)  # nothing went through the tower


@pytest.mark.parametrize("bits", [torch.float32, torch.bfloat16])
def test_what_is_read_is_what_was_written(model: adafv.Model, tmp_path: Path, bits: torch.dtype) -> None:
    encoding, _ = model.encode(Image.effect_noise((70, 30), 90).convert("RGB"))
    changed = replace(encoding, packed=encoding.packed.to(bits))
    store = EncodingStore(tmp_path / "new" / "folder", "checkpoint", 2**30, CPU)
    assert "image" not in store and store.load("image") is None
    store.save("image", changed)
    found = store.load("image")
    assert "image" in store and found is not None and same(found, changed)
    assert EncodingStore(tmp_path / "new" / "folder", "another", 2**30, CPU).load("image") is None


@pytest.mark.parametrize("damage", ["cut", "empty", "bits", "header", "text", "no digest"])
def test_a_damaged_file_is_made_anew(
    model: adafv.Model, questions: list[Question], tmp_path: Path, damage: str
) -> None:
    first, _ = answered(model, questions, tmp_path)
    spoiled = files(tmp_path)[0]
    content = bytearray(spoiled.read_bytes())
    if damage == "bits":
        content[-5] ^= 1
    if damage == "no digest":
        content = content.replace(b"sha256", b"sha999")
    size = {"cut": len(content) // 2, "empty": 0}.get(damage, len(content))
    spoiled.write_bytes({"text": b"hello", "header": b"\xff" * 64}.get(damage, bytes(content[:size])))
    again, stats = answered(model, questions, tmp_path)
    assert texts(first) == texts(again)
    assert (stats.images_encoded, stats.encodings_read) == (1, 2)
    _, stats = answered(model, questions, tmp_path)
    assert (stats.images_encoded, stats.encodings_read) == (0, 3)


def test_the_folder_is_bounded_and_the_least_recently_used_leaves(model: adafv.Model, tmp_path: Path) -> None:
    encoding, _ = model.encode(Image.effect_noise((50, 50), 90).convert("RGB"))
    EncodingStore(tmp_path, "x", 2**30, CPU).save("probe", encoding)
    size = files(tmp_path)[0].stat().st_size
    files(tmp_path)[0].unlink()
    foreign = tmp_path / "mine.safetensors"
    foreign.write_bytes(b"0" * 10 * size)
    store = EncodingStore(tmp_path, "x", 3 * size, CPU)
    for number in range(3):
        store.save(str(number), encoding)
        os.utime(store._path(str(number)), (number, number))
    assert store.load("0") is not None  # used now
    store.save("3", encoding)
    assert [key in store for key in "0123"] == [True, False, True, True]
    assert EncodingStore(tmp_path, "x", size // 2, CPU).save("4", encoding) is None
    assert "4" not in store and foreign.exists()


def test_the_bound_is_of_all_processes_together(model: adafv.Model, tmp_path: Path) -> None:
    encoding, _ = model.encode(Image.effect_noise((50, 50), 90).convert("RGB"))
    EncodingStore(tmp_path, "x", 2**30, CPU).save("probe", encoding)
    size = files(tmp_path)[0].stat().st_size
    left = tmp_path / f".0{files(tmp_path)[0].name}-1-2.tmp"
    left.write_bytes(b"0" * size)  # of a process that was killed
    os.utime(left, (0, 0))
    stores = [EncodingStore(tmp_path, str(number), 5 * size, CPU) for number in range(4)]
    for number in range(3):
        for store in stores:
            store.save(str(number), encoding)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5 * size and not left.exists()


def test_somebody_elses_file_is_read_and_stays(
    model: adafv.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, _ = model.encode(Image.effect_noise((50, 50), 90).convert("RGB"))
    store = EncodingStore(tmp_path, "x", 2**30, CPU)
    store.save("image", encoding)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", forbidden)
    found = store.load("image")
    assert found is not None and same(found, encoding) and "image" in store
    monkeypatch.setattr("adafv.streaming.encoding_store._read", forbidden)
    assert store.load("image") is None and "image" in store


def test_a_disk_that_takes_no_more_costs_no_answer(
    model: adafv.Model, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, write = texts(list(model.stream(questions, RUN))), Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".tmp":
            write(path, content[:10])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    answers, stats = answered(model, questions, tmp_path)
    assert texts(answers) == plain and stats.encodings_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_what_an_encoding_depends_on_is_in_its_fingerprint(tiny: Path, model: adafv.Model) -> None:
    def fingerprint(**settings: Any) -> str:
        return adafv.load(LoadSettings(str(tiny), **settings)).vision_fingerprint()

    known = model.vision_fingerprint()
    assert fingerprint() == known == fingerprint(chat_template="vicuna")
    assert len({known, fingerprint(dtype="bfloat16"), fingerprint(attention="eager")}) == 3
    other = adafv.load(str(tiny))
    with torch.no_grad():
        other.pipeline.model.lm_head.weight.mul_(2)
        assert other.vision_fingerprint() == known  # the language model takes no part
        other.pipeline.model.model.image_newline[0] += 1
    assert other.vision_fingerprint() != known
    processor = other._checkpoint.processor
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert vision_fingerprint(model.pipeline.model, processor) != known


def test_a_padded_image_is_another_one(tmp_path: Path, questions: list[Question]) -> None:
    model = adafv.load("demo")
    for pad in (False, True):
        batch = BatchSettings(encodings=str(tmp_path))
        list(model.stream(questions, RunSettings(keep=8, max_new_tokens=1, pad=pad), batch))
    assert len(files(tmp_path)) == 6


def test_an_offloaded_tower_has_no_fingerprint(model: adafv.Model) -> None:
    twin = adafv.load(model.model_id)
    inner = twin.pipeline.model
    inner.model.vision_tower = inner.model.vision_tower.to("meta")
    with pytest.raises(DeviceError, match=r"vision_tower.* is offloaded"):
        twin.vision_fingerprint()


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(InputError, match=r"encodings: .*file"):
        EncodingStore(taken, "x", 1, CPU)


def test_the_command_line_says_what_was_kept_and_read(questions: list[Question], tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(json.dumps({"image": one.image, "text": one.text}) + "\n" for one in questions))
    folder, args = tmp_path / "kept", ("batch", str(lines), "--keep", "8", "--max-new-tokens", "1")
    first = command(*args, "--encodings", str(folder))
    again = command(*args, "--encodings", str(folder))
    assert first.code == again.code == 0
    assert "3 encoded" in first.stderr and "kept on disk" in first.stderr and "KiB an image" in first.stderr
    assert "0 encoded" in again.stderr and "3 from disk" in again.stderr
    swept = command("sweep", str(lines), "--keep", "8", "--max-new-tokens", "1", "--encodings", str(folder))
    assert swept.code == 0 and "0 encoded, each for all settings, 3 from disk" in swept.stderr
    refused = command(*args, "--encodings", str(lines))
    assert (refused.code, refused.stdout) == (2, "") and "--encodings" in refused.stderr


def test_tokens_are_counted_without_reading_an_encoding(model: adafv.Model, tmp_path: Path) -> None:
    """A LLaVA-NeXT, whose newlines are no candidates; the plan, by which others are ordered, says the same."""
    picture = Image.effect_noise((60, 40), 80).convert("RGB")
    encoding, _ = model.encode(picture)
    store = EncodingStore(tmp_path, "mine", 2**30, CPU)
    store.save("a", encoding)
    plan = model.pipeline.plan(model.pipeline.preprocess(picture))
    assert store.tokens("a") == (encoding.visual, len(encoding.packed)) == (plan.visual, plan.packed)
    assert plan.newlines > 0 and store.read == 0
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:20])
    assert store.tokens("a") is None and store.tokens("b") is None

"""`adafv batch --dry-run`: everything that can be said without weights, in little memory."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from adafv.bench.geometries import geometry
from adafv.errors import InputError
from adafv_cli.work.estimate import TEMPLATE_AFTER, TEMPLATE_BEFORE
from adafv_cli.work.questions import Questions
from adafv_cli.work.source import Source
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


def test_it_adds_up_tokens_and_flops(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    data = (
        "data:image/png;base64," + base64.b64encode(Path(questions(tmp_path)).with_name("a.png").read_bytes()).decode()
    )
    lines = [asking(1), asking(2), asking(3, "b.png"), asking(4, data)]
    done = adafv("batch", questions(tmp_path, *lines), "--dry-run", "-m", str(llava_folder), "--keep", "4")
    found = json.loads(done.stdout)
    assert (done.code, model.loaded) == (0, [])
    assert (found["lines"], found["questions"], found["failed"], found["images"]) == (4, 4, 0, 3)
    assert (found["tokens"]["visual"], found["tokens"]["kept"], found["crops"]) == (4 * 16, 4 * 4, 3)
    assert 0 < found["flops"]["total"] < found["flops"]["unpruned_total"]
    assert "would answer   4 questions, 3 images" in done.stderr
    assert "16 of 64 kept, 75% saved" in done.stderr
    assert "4 letters a token and answers 16 tokens" in done.stderr


def test_lengths_are_guessed_from_letters(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    def tokens(text: str) -> int:
        path = questions(tmp_path, asking(1) | {"text": text})
        done = adafv("batch", path, "--dry-run", "-m", str(llava_folder))
        return int(json.loads(done.stdout)["tokens"]["text"]) - TEMPLATE_BEFORE - TEMPLATE_AFTER

    assert [tokens("x" * letters) for letters in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_an_image_is_encoded_once(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    def flops(*lines: object) -> int:
        done = adafv("batch", questions(tmp_path, *lines), "--dry-run", "-m", str(llava_folder))
        return int(json.loads(done.stdout)["flops"]["total"])

    one, two, other = flops(asking(1)), flops(asking(1), asking(2)), flops(asking(1), asking(2, "b.png"))
    assert one < two < other == 2 * one


def break_even(tmp_path: Path, per_image: int, *flags: str) -> tuple[dict[str, Any], str]:
    """A dry run of LLaVA-1.5-7B over two images with so many questions each."""
    folder = tmp_path / "llava"
    folder.mkdir(exist_ok=True)
    geometry("llava-1.5-7b").config(image_token=32000).save_pretrained(folder)
    lines = [asking(2 * turn + place, f"{name}.png") for turn in range(per_image) for place, name in enumerate("ab")]
    done = adafv("batch", questions(tmp_path, *lines), "--dry-run", "-m", str(folder), *flags)
    assert done.code == 0
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("keep", ["64", "25%"])
def test_the_break_even_is_where_a_shared_image_costs_less_than_pruning(
    tmp_path: Path, model: FakeBatchModel, keep: str
) -> None:
    first, said = break_even(tmp_path, 1, "--keep", keep)
    point = first["break_even_questions_per_image"]
    assert point > 2 and "break-even" not in said  # one question an image: nothing could be shared
    for per_image in (point - 1, point):
        found, said = break_even(tmp_path, per_image, "--keep", keep)
        flops = found["flops"]
        assert found["questions_per_image"] == per_image and found["break_even_questions_per_image"] == point
        assert (flops["unpruned_shared_prefix"] < flops["total"]) == (per_image == point)
        assert flops["unpruned_shared_prefix"] < flops["unpruned_total"]
        assert ("not less than this run" in said) == (per_image < point)
        assert f"this run costs less up to {point - 1} questions an image" in said


@pytest.mark.parametrize("flags", [("--pruner", "saliency"), ("--pruner", "none")])
def test_what_goes_by_the_image_alone_has_no_break_even(
    tmp_path: Path, model: FakeBatchModel, flags: tuple[str, ...]
) -> None:
    found, said = break_even(tmp_path, 30, *flags)
    assert found["break_even_questions_per_image"] is None and "up to" not in said
    assert "not less than this run" in said and found["flops"]["unpruned_shared_prefix"] >= found["flops"]["total"]


def test_a_budget_that_adapts_is_compared_by_the_most_that_it_may_come_to(
    tmp_path: Path, model: FakeBatchModel
) -> None:
    _, said = break_even(tmp_path, 30, "--keep", "auto")
    assert ", less than this run may come to, at 30.0 questions an image" in said


@pytest.mark.parametrize("flags", [("--keep", "all"), ("--pruner", "none"), ("--pruner", "uniform")], ids=str)
def test_what_is_shared_is_compared_with_an_unpruned_run_that_shares_as_answers_are(
    tmp_path: Path, model: FakeBatchModel, flags: tuple[str, ...]
) -> None:
    found, said = break_even(tmp_path, 5, *flags)
    flops = found["flops"]
    assert flops["unpruned_total"] == flops["unpruned_shared_prefix"]
    assert (flops["total"] == flops["unpruned_total"]) == ("uniform" not in flags) == (", 0% saved" in said)


def test_it_finds_what_would_fail(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    path = questions(tmp_path, asking(1), "broken", asking(3, "gone.png"), asking(4, "gone.png"), asking(5, "text.png"))
    (tmp_path / "text.png").write_text("no image")
    done = adafv("batch", path, "--dry-run", "-m", str(llava_folder))
    found = json.loads(done.stdout)
    assert (done.code, found["questions"], found["failed"]) == (1, 1, 4)
    assert [one["question_id"] for one in found["first_failed"]] == [2, 3, 4, 5]
    assert "1 questions, 1 images, 4 would fail" in done.stderr
    assert "2 x ImageError" in done.stderr and "ids 3, 4" in done.stderr


def test_a_line_whose_plan_cannot_be_made_fails_as_it_would_in_a_run(
    tmp_path: Path, model: FakeBatchModel, llava_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(*_: object, **__: object) -> None:
        raise InputError("pruner mine: its FLOPs cannot be told", "ask its author")

    monkeypatch.setattr("adafv.costs.plan.plan_answer", picky)
    done = adafv("batch", questions(tmp_path, asking(1)), "--dry-run", "-m", str(llava_folder))
    assert done.code == 1 and json.loads(done.stdout)["failed"] == 1
    assert "pruner mine: its FLOPs cannot be told" in done.stderr and "ask its author" in done.stderr


def test_it_writes_nothing_and_counts_what_is_left(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    out, folder = tmp_path / "answers.jsonl", str(llava_folder)
    path = questions(tmp_path, asking(1), asking(2))
    assert adafv("batch", path, "--dry-run", "-m", folder, "-o", str(out)).code == 0
    assert not out.exists()
    adafv("batch", questions(tmp_path, asking(1)), "-m", folder, "-o", str(out))
    before, path = out.read_bytes(), questions(tmp_path, asking(1), asking(2))
    assert adafv("batch", path, "--dry-run", "-m", folder, "-o", str(out)).code == 2
    done = adafv("batch", path, "--dry-run", "-m", folder, "-o", str(out), "--resume")
    assert (json.loads(done.stdout)["skipped"], json.loads(done.stdout)["questions"]) == (1, 1)
    assert "1 are answered already" in done.stderr
    assert out.read_bytes() == before
    assert answers(out.read_text())[0]["question_id"] == 1


def test_what_is_refused_is_refused(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    assert adafv("batch", questions(tmp_path, asking(1), asking(1)), "--dry-run", "-m", str(llava_folder)).code == 4
    assert adafv("batch", "gone.jsonl", "--dry-run").code == 2
    assert adafv("batch", questions(tmp_path, asking(1)), "--dry-run", "-m", str(tmp_path)).code == 3


def test_from_standard_input(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    content = Path(questions(tmp_path, asking(1))).read_bytes()
    flags = ("--dry-run", "-m", str(llava_folder), "--image-folder", str(tmp_path))
    assert adafv("batch", "-", *flags, stdin=content).code == 0
    assert adafv("batch", "-", *flags).code == 4


def test_memory_grows_by_little_more_than_a_key_a_line(tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        path = questions(tmp_path, *[asking(number) | {"text": "what? " * 300} for number in range(lines)])
        found = Questions(Source(path, tmp_path, file=Path(path)))
        tracemalloc.start()
        found.census()
        assert sum(1 for _ in found.todo()) == lines
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(300), peak(3_000)
    assert (large - small) / 2_700 < 250  # a line has 1,900 letters


def test_a_probe_guesses_the_time_from_a_short_run(tmp_path: Path, llava_folder: Path) -> None:
    path = questions(tmp_path, *[asking(number) for number in range(1, 101)])
    found = json.loads(adafv("batch", path, "--dry-run", "-m", str(llava_folder)).stdout)
    assert found["probe"] is None
    done = adafv("batch", path, "--dry-run", "--probe", "-m", str(llava_folder), "--max-new-tokens", "2")
    found = json.loads(done.stdout)
    assert done.code == 0 and "time           about " in done.stderr
    probe = found["probe"]
    assert probe["questions"] == 24
    assert probe["guess_s"] == pytest.approx(probe["seconds"] * found["flops"]["total"] / probe["flops"], rel=1e-3)
    assert adafv("batch", path, "--probe").code == 2

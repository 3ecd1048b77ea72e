"""Floors: the commonest answer of each kind, the model without its image, and how far a pruner comes from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

import adafv
from adafv.demo import CHECKPOINT
from adafv.quality.points import Floors, floors, points, with_headroom
from adafv.quality.sheet import Sheet
from tests.batch_fakes import answers
from tests.cli_fakes import adafv as command
from tests.test_quality_points import line

QUESTIONS = Path(__file__).parent.parent / "sample_images" / "questions.jsonl"


def sheet_of(rows: list[tuple[dict[str, object], str, str]], by: str | None = None) -> Sheet:
    """A sheet with what the unpruned model said, and the model without the image."""
    settings = [("none", "all"), ("blind", "0")]
    sheet = Sheet(settings, by)
    for image, (metadata, *texts) in enumerate(rows):
        number = sheet.question(image, metadata)
        for (pruner, keep), text in zip(settings, texts, strict=True):
            sheet.add(number, line(0, text) | {"pruner": pruner, "keep": keep})
    return sheet


ROWS: list[tuple[dict[str, object], str, str]] = [
    ({"answer": "red", "kind": "color"}, "red", "red"),
    ({"answer": ["Red", "crimson"], "kind": "color"}, "red", "blue"),
    ({"answer": "blue", "kind": "color"}, "blue", "red"),
    ({"answer": "blue", "kind": "thing"}, "blue", "red"),
    ({"answer": "red", "kind": "color"}, "red", "red"),
    ({"kind": "color"}, "anything", "red"),
]


def test_the_commonest_answer_of_all_and_of_each_kind() -> None:
    assert floors(sheet_of(ROWS), points(sheet_of(ROWS))) == Floors(pytest.approx(2 / 5), 3 / 5)  # type: ignore[arg-type]
    assert floors(sheet_of(ROWS, "kind"), []) == Floors(None, 4 / 5)
    assert floors(sheet_of([({}, "a", "b")]), []) == Floors(None, None)
    people: list[tuple[dict[str, object], str, str]] = [({"answers": ["a"] * 8 + ["b"] * 2}, "a", "b")] * 3
    assert floors(sheet_of(people), []).commonest == 1
    assert floors(sheet_of([({"answers": ["a", "a", "b"]}, "a", "b"), ({"answers": ["b", "b", "c"]}, "a", "b")]),
                  []).commonest == pytest.approx((2 / 3 + 1) / 2)  # fmt: skip


@pytest.mark.parametrize(("metric", "rights", "commonest"), [
    ("choice", ["A", "B", "B", "C"], 0.5), ("mme", ["yes", "no", "Yes", "yes"], 0.75),
    ("gqa", ["Red", "red", "b"], 2 / 3),
    ("textvqa", [["a"] * 2 + ["b"] * 8, ["a"] * 10], 0.8), ("anls", ["a", "a"], None), ("relaxed", ["1"], None),
    ("mmbench", ["A", "A"], None),
])  # fmt: skip
def test_the_commonest_answer_by_a_benchmarks_rule(metric: str, rights: list[Any], commonest: float | None) -> None:
    sheet = Sheet([("none", "all")], metric=metric)
    for image, right in enumerate(rights):
        sheet.add(sheet.question(image, {"answer": right}), line(0, "x") | {"pruner": "none", "keep": "all"})
    assert floors(sheet, [], metric).commonest == (None if commonest is None else pytest.approx(commonest))


def test_headroom_is_the_share_of_the_way() -> None:
    found = points(sheet_of(ROWS))
    assert [point.headroom for point in with_headroom(found, 0.4)] == [1, pytest.approx(0)]
    assert [point.headroom for point in with_headroom(found, 0.7)] == [1, pytest.approx(-1)]
    for nothing in (None, 1.0):
        assert with_headroom(found, nothing) == found
    assert Floors(0.3, 0.5).highest == 0.5 and Floors(None, None).highest is None


def test_groups_count_the_same_in_their_mean() -> None:
    found = points(sheet_of(ROWS, "kind"))
    means = [point.macro.value for point in found if point.macro]
    assert means == [1, pytest.approx((2 / 4 + 0 / 1) / 2)]
    assert found[1].macro and found[1].macro.low < found[1].macro.value < found[1].macro.high
    assert points(sheet_of(ROWS))[1].macro is None


def test_without_the_image_the_prompt_is_its_text() -> None:
    """To the last bit what the language model says of the ids before and behind the image."""
    demo, question = adafv.load("demo"), "what color is the sign?"
    answer = demo.ask(QUESTIONS.parent / "street.png", question, pruner="blind")
    prompt = demo.render(adafv.Question(0, None, question), adafv.RunSettings())
    model = demo.pipeline.model
    with torch.inference_mode():
        said = model.generate(torch.tensor([prompt.before + prompt.after]), max_new_tokens=4, do_sample=False)
    words = AutoProcessor.from_pretrained(CHECKPOINT).tokenizer
    assert words.decode(said[0, prompt.text_tokens :], skip_special_tokens=True).strip() == answer.text
    assert answer.tokens and (answer.tokens.kept, answer.tokens.visual, answer.keep) == (0, 256, "0")


def test_a_sweep_with_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    lines = [json.loads(one) for one in QUESTIONS.read_text().splitlines()[:24]]
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(one) + "\n" for one in lines))
    flags = (str(few), "--image-folder", str(QUESTIONS.parent), "--keep", "5%", "-o", str(tmp_path / "a.jsonl"))
    done = command("sweep", *flags, "--floors")
    assert done.code == 0, done.stderr
    whole, little, blind = answers(done.stdout)
    assert (blind["pruner"], blind["keep"], blind["tokens"]["kept"]) == ("blind", "0", 0)
    assert whole["headroom"] == 1 and blind["headroom"] <= 0 < little["headroom"]
    assert "without looking: no image" in done.stderr and "1 setting in 1 series compared" in done.stderr
    again = command("sweep", *flags, "--floors", "--resume", "--json", "--plot", str(tmp_path / "c.svg"))
    found = json.loads(again.stdout)
    assert found["floors"]["no_image"] == blind["accuracy"]["value"] and "nothing to do" in again.stderr
    assert "blind" not in (tmp_path / "c.svg").read_text()
    table = command("sweep", *flags, "--floors", "--resume", stdout_tty=True).stdout
    assert "no image" in table and "from floor %" in table and max(map(len, table.splitlines())) <= 80

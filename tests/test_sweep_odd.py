"""`adafv sweep` with what nobody expects: odd groups, terminals that know little, and a model that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adafv.figures import curve
from adafv.quality.points import Point, points
from adafv.quality.recommendation import recommend
from adafv_cli.rendering.sweep_table import pictures
from tests.batch_fakes import FakeBatchModel, answers
from tests.test_quality_points import filled
from tests.test_sweep_answers import asking, model, needing, settings, sweep

__all__ = ["model"]  # a fixture


def written(found: list[Point], **more: Any) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(*pictures(found, recommend(found, 1), 80, partial=False, **more))
    return captured.get()


def test_names_of_groups_may_hold_anything(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(n, answer="x", kind=f"a{n}\x1b[31m\nb") for n in range(2)]
    table = sweep(tmp_path, lines, "--by", "kind", "--keep", "25%", stdout_tty=True).stdout
    assert "\x1b" not in table and "a1\\u001b[31m\\nb" in table


def test_many_budgets_are_spread_over_several_tables_of_groups(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(n, answer="x", needs=60 * (n % 2), kind="a kind") for n in range(4)]
    table = sweep(tmp_path, lines, "--by", "kind", "--keep", "1,2,3,4,5,6,7,8,9", stdout_tty=True).stdout
    headings = [line.split()[2:] for line in table.splitlines() if line.startswith("adafv, %")]
    assert all(budgets[0] == "all" for budgets in headings) and len(headings) > 1
    assert [keep for budgets in headings for keep in budgets[1:]] == list("123456789")
    assert sum(line.startswith("a kind") for line in table.splitlines()) == len(headings)
    assert "\u2026" not in table and max(map(len, table.splitlines())) <= 80


def test_a_key_that_no_line_has(tmp_path: Path, model: FakeBatchModel) -> None:
    said = "note: --by: no line has the key 'kinds'\n"
    assert said in sweep(tmp_path, needing(0, 1), "--by", "kinds").stderr
    assert said not in sweep(tmp_path, [asking(0, kinds="x"), asking(1)], "--by", "kinds").stderr


def test_mme_sums_by_category_on_any_lines(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(n, answer="yes", category="count") for n in range(4)]
    points = answers(sweep(tmp_path, lines, "--metric", "mme").stdout)
    assert [set(point["scores"]) for point in points] == [{"perception", "accuracy+"}] * len(points)
    assert set(points[0]["groups"]) == {"count"}
    bare = [{name: value for name, value in line.items() if name != "category"} for line in lines]
    assert "note: --by: no line has the key 'category'\n" in sweep(tmp_path, bare, "--metric", "mme").stderr


@pytest.mark.parametrize("known", [{"answer": "cat"}, {}])
def test_where_the_unpruned_model_fails_there_is_still_a_table_and_a_curve(known: dict[str, str]) -> None:
    found = points(filled([(known, [None, "cat", "dog"])] * 4))
    advice = recommend(found, 1)
    assert advice.point is None
    text = written(found)
    assert text.startswith("4 questions") and ("accuracy %" in text) == bool(known)
    assert b"<svg" in curve.render(found, advice, "svg")


def test_what_was_found_is_shown_also_when_the_report_cannot_be_written(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adafv_cli.rendering.run_report.write_json", full)
    done = sweep(tmp_path, needing(0), "--keep", "25%", "--report", str(tmp_path / "r.json"))
    assert done.code != 0 and "No space left" in done.stderr
    assert settings(answers(done.stdout)) == [("none", "all"), ("adafv", "25%")]


def test_a_shard_without_lines_says_so(tmp_path: Path, model: FakeBatchModel) -> None:
    said = [sweep(tmp_path, needing(0), "--shard", f"{part}/2").stderr for part in (1, 2)]
    assert sum("nothing to do: no line belongs to this shard" in one for one in said) == 1


def test_signs_that_any_terminal_has() -> None:
    found = points(
        filled([({"answer": "cat"}, ["cat", "dog" if number % 2 else "cat", "cat"]) for number in range(40)])
    )
    text = written(found, ascii_only=True)
    assert " +-" in text and "\u00b1" not in text and "\u00b1" in written(found)


def test_an_answer_nested_as_no_answer_is(tmp_path: Path, model: FakeBatchModel) -> None:
    deep: object = "cat"
    for _ in range(600):
        deep = [deep]
    done = sweep(tmp_path, [asking(0, answer=deep), asking(1, answer="cat")], "--by", "answer", "--keep", "25%")
    assert done.code == 0 and answers(done.stdout)[0]["accuracy"]["questions"] == 1


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_narrow_table_drops_columns_never_digits(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [asking(n, answer="yes" if n % 2 else "no", kind=f"kind {n}") for n in range(4)]
    done = sweep(tmp_path, lines, "--by", "kind", "--keep", "5%,25%", "--pruner", "adafv,similarity", stdout_tty=True)
    assert "…" not in done.stdout and max(map(len, done.stdout.splitlines())) <= width
    head = next(line for line in done.stdout.splitlines() if "pruner" in line)
    assert "accuracy %" in head and ("KV MiB" in head) == (width >= 100) and ("q/s" in head) == (width >= 80)

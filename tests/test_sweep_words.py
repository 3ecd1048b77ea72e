"""What `adafv sweep` says of its answers: what failed under how many settings, and values with their intervals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adafv.quality.intervals import Interval
from adafv_cli.rendering.sweep_words import cell
from adafv_cli.rendering.tally import Failed, Tally
from adafv_cli.work.earlier import Setting
from adafv_cli.work.sweep_results import SweepResults

SETTINGS = (Setting("none", "all"), Setting("adafv", "5%"), Setting("adafv", "25%"))


def test_a_question_is_listed_once_and_says_under_how_many_settings_it_failed() -> None:
    nothing: Any = None
    questions: Any = SimpleNamespace(keys=None, settings=SETTINGS)
    wanted: Any = SimpleNamespace(by=None, metric="auto")
    results = SweepResults(nothing, nothing, questions, wanted, "demo")
    everywhere, here = (Failed(number, "InputError", "too long", "ask less") for number in (1, 2))
    share, listed = results.failures(Tally(failed=[everywhere, here, everywhere, here, everywhere]))
    assert share == "2 questions"
    assert [one.message for one in listed.failed] == ["too long", "too long (under 2 of 3 settings)"]


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (Interval(1.0, 0.63, 1.0), "100.0 -37.0"), (Interval(0.97, 0.92, 0.99), "97.0 +2.0-5.0"),
        (Interval(0.0, 0.0, 0.2), "0.0 +20.0"), (Interval(1.0, 1.0, 1.0), "100.0 \u00b10.0"),
    ],
)  # fmt: skip
def test_no_interval_is_written_beyond_nothing_and_all(found: Interval, written: str) -> None:
    assert cell(found, False, " \u00b1") == written


@pytest.mark.parametrize(("wide", "written"), [(False, "50.0 \u00b111.0"), (True, "50.0 (41.0 to 63.0)")])
def test_an_interval_is_written_out_or_as_half_its_width(wide: bool, written: str) -> None:
    assert cell(Interval(0.5, 0.41, 0.63), wide, " \u00b1") == written

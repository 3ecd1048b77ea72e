"""Numbers as people read them, at the edges where their form changes; failed lines by how frequent their reason is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adafv_cli.rendering import report, summary
from adafv_cli.rendering.tally import Failed, Tally
from adafv_cli.rendering.units import BINARY, DECIMAL, System, amount, digits, duration, part_of, percent
from tests.cli_fakes import ANSWER


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.5, "0.50"), (9.994, "9.99"), (9.995, "10.0"), (99.94, "99.9"), (99.95, "100"), (1234, "1234")],
)
def test_three_digits(value: float, written: str) -> None:
    assert digits(value) == written


@pytest.mark.parametrize(
    ("part", "whole", "written"),
    [(0, 7, "0%"), (9, 1000, "0.9%"), (1, 100, "1%"), (5, 100, "5%"), (995, 1000, "100%"), (3, 2, "150%"),
     (0, 0, "100%")],
)  # fmt: skip
def test_percent(part: float, whole: float, written: str) -> None:
    assert percent(part, whole) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.0041, "4.10 ms"), (0.123, "123 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (1, "1.00 s"),
     (12.34, "12.3 s"), (99.4, "99.4 s"),
     (99.5, "1 min 40 s"), (250, "4 min 10 s"), (3599.6, "1 h 00 min"), (11_100, "3 h 05 min")],
)  # fmt: skip
def test_duration(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("count", "system", "written"),
    [(0, DECIMAL, "0 B"), (999, DECIMAL, "999 B"), (1000, DECIMAL, "1.00 KB"), (1000, BINARY, "1000 B"),
     (999_400, DECIMAL, "999 KB"), (999_999, DECIMAL, "1.00 MB"), (2**20 - 1, BINARY, "1.00 MiB"),
     (1024, BINARY, "1.00 KiB"), (3 * 2**40, BINARY, "3.00 TiB"), (3 * 2**60, BINARY, "3145728 TiB")],
)  # fmt: skip
def test_amount(count: int, system: System, written: str) -> None:
    assert amount(count, system, "B") == written


def test_a_part_is_in_the_unit_of_the_larger_one() -> None:
    assert part_of(2_500_000, 8_640_000_000, DECIMAL, "FLOPs") == "0.00 of 8.64 GFLOPs"
    assert part_of(94 * 2**20, 310 * 2**20, BINARY, "B") == "94.0 of 310 MiB"
    assert part_of(2000, 1000, DECIMAL, "B") == "2.00 of 1.00 KB"


def test_the_most_frequent_reasons_are_told_and_the_others_counted() -> None:
    tally = Tally()
    for kind in range(12):  # one of the first kind, two of the second, ...
        tally.failed += [Failed(f"{kind}.{number}", f"Kind{kind}Error", "no", "try") for number in range(kind + 1)]
    lines = summary.failures(tally).plain.splitlines()
    assert [line.split(":")[0].strip() for line in lines[:-1:2]] == [
        f"{kind + 1} x Kind{kind}Error" for kind in range(11, 1, -1)
    ]
    assert lines[-1] == "  and 2 more reasons"
    assert (
        lines[1]
        == '    ids "11.0", "11.1", "11.2", "11.3", "11.4", "11.5", "11.6", "11.7", "11.8", "11.9" and 2 more; try'
    )


@pytest.mark.parametrize("times", [1, 2])
def test_a_bar_is_never_longer_than_the_whole(times: int) -> None:
    """What was spent may exceed what it is compared with: scoring, where next to nothing is left out."""
    assert ANSWER.flops is not None
    spent = replace(ANSWER.flops, total=times * ANSWER.flops.unpruned_total)
    lines = report.single(replace(ANSWER, flops=spent), bars=True).plain.splitlines()
    (line,) = (line for line in lines if line.startswith("compute"))
    assert line.count("\N{BOX DRAWINGS HEAVY HORIZONTAL}") == 20 and f"{100 * times}%" in line

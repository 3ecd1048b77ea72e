"""Budgets: `128`, `25%`, `all`, and nothing else."""

from __future__ import annotations

import pytest

from adafv import Budget, BudgetError


@pytest.mark.parametrize(
    ("keep", "visual", "tokens"),
    [
        (128, 576, 128), ("128", 576, 128), (1000, 576, 576), ("25%", 576, 144), ("25%", 2880, 720), ("25%", 2340, 585),
        ("12.5%", 576, 72), ("0.1%", 576, 1), ("0.1%", 10, 1), ("50%", 3, 2), ("100%", 576, 576), ("all", 576, 576),
        (" ALL ", 5, 5), ("33.3%", 1000, 333),
    ],
)  # fmt: skip
def test_tokens(keep: str | int, visual: int, tokens: int) -> None:
    assert Budget.parse(keep).tokens(visual) == tokens


@pytest.mark.parametrize(
    "keep", ["0", 0, "-5", -5, "abc", "", "200%", "0%", "100.1%", "%", "1e3", "12.5", True, "nan%", "١٢٨", "9" * 5000]
)
def test_what_is_no_budget_is_refused_with_its_value_and_the_forms(keep: str | int) -> None:
    with pytest.raises(BudgetError) as raised:
        Budget.parse(keep)
    assert str(keep)[:20] in raised.value.what and len(raised.value.what) < 300  # long ones are cut
    assert "128" in raised.value.fix and "25%" in raised.value.fix and "all" in raised.value.fix


def test_a_budget_is_taken_as_it_is() -> None:
    budget = Budget.parse("25%")
    assert Budget.parse(budget) is budget
    assert budget.text == "25%"

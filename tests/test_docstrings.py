"""A docstring's first sentence has a verb and names its object: no function begins with a fragment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for package in ("adafv", "adafv_cli") for path in (ROOT / package).rglob("*.py"))
FRAGMENTS = set(
    "a an the of as from by at in on to for with what which where when how whose who whether each every all some only "
    "more not one two both those that this these".split()
)


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """Functions and methods with the first word of their docstrings; properties are things, and described as such."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
            if text and not is_property:
                yield f"{node.name}, line {node.lineno}", text.split()[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_say_what_they_do(path: Path) -> None:
    fragments = [where for where, word in documented(path) if word.lower() in FRAGMENTS or not word[0].isalpha()]
    assert not fragments

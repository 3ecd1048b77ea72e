"""`benchmarks/reproduce.py`: a plain AdaFV on stock transformers, without this package, gives the same answers."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

import adafv

ROOT = Path(__file__).parent.parent
SCRIPT, STREET = ROOT / "benchmarks" / "reproduce.py", ROOT / "sample_images" / "street.png"


@pytest.fixture(scope="module")
def reproduce() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_imports_nothing_of_ours() -> None:
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert "transformers" in names and not names & {"adafv", "adafv_cli", "recipe", "tests"}


@pytest.mark.parametrize("keep", [1, 2, 3, 7, 16, 39])
def test_its_rule_keeps_what_ours_keeps(reproduce: ModuleType, keep: int) -> None:
    generator = torch.Generator().manual_seed(keep)
    for _ in range(4):
        saliency, similarity = torch.rand(2, 40, generator=generator).softmax(-1)
        ours = adafv.select(saliency[None], similarity[None], keep)[0].tolist()
        assert reproduce.adafv(saliency.double(), similarity.double(), keep) == ours


def test_it_answers_as_the_engine_does(reproduce: ModuleType) -> None:
    budgets, question = ["all", "12.5%", "9"], "what color is the sign?"
    with Image.open(STREET) as file:
        picture = file.convert("RGB")
    said = list(reproduce.Stock(reproduce.DEMO).answers(picture, question, budgets))
    model = adafv.load("demo", dtype="float32")
    assert said == [model.ask(picture, question, keep=keep).text for keep in budgets]

"""What may import what: the library stays usable without a terminal, and `--help` without torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"adafv", "adafv_cli"}
TORCH = {"torch"}
MODELS = TORCH | {"transformers", "accelerate", "safetensors", "huggingface_hub", "PIL"}
TERMINAL = {"typer", "rich"}

# Third-party packages that a module may import; folders end in "/". The longest match holds.
ALLOWED: dict[str, set[str]] = {
    "adafv/": MODELS,
    "adafv/__init__.py": set(),
    "adafv/errors.py": set(),
    "adafv/records.py": set(),
    "adafv/budget.py": set(),
    "adafv/costs/flops.py": set(),
    "adafv/settings.py": set(),
    "adafv/words.py": set(),
    "adafv/pruners/__init__.py": set(),
    "adafv/pruners/": TORCH,
    "adafv/signals/saliency.py": TORCH,
    "adafv/signals/similarity.py": TORCH,
    "adafv/signals/ranking.py": TORCH,
    "adafv/pruners/mixture.py": TORCH,
    "adafv/evidence.py": TORCH,
    "adafv/timing.py": TORCH,
    "adafv/image_files.py": {"PIL"},
    "adafv/images.py": {"PIL"},
    "adafv/prompt.py": MODELS | {"jinja2"},  # what transformers renders chat templates with
    "adafv/streaming/runs.py": set(),
    "adafv/quality/": {"numpy"},
    "adafv/quality/__init__.py": set(),
    "adafv/quality/normalisation.py": set(),
    "adafv/quality/metrics.py": set(),
    "adafv/quality/costs.py": set(),
    "adafv/quality/sheet.py": set(),
    "adafv/figures/": {"matplotlib", "numpy", "PIL"},  # nothing else draws, and only inside functions
    "adafv/figures/__init__.py": set(),
    "adafv/demo/__init__.py": set(),
    "adafv_cli/": TERMINAL | {"PIL"},
}
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "adafv")]
COMMAND_LINE = [path for path in FILES if path.is_relative_to(ROOT / "adafv_cli")]
PRODUCT = LIBRARY


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, at_the_top: bool = False) -> Iterator[str]:
    """Full names of imported modules, without those for type checkers; `at_the_top`: only what importing runs."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if at_the_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        todo += ast.iter_child_nodes(node)


def third_party(path: Path, at_the_top: bool = False) -> set[str]:
    roots = {full.partition(".")[0] for full in imports(path, at_the_top)}
    return roots - OURS - set(sys.stdlib_module_names) - {"__future__"}


def allowed(path: Path) -> set[str]:
    fitting = [key for key in ALLOWED if name(path) == key or (key.endswith("/") and name(path).startswith(key))]
    return ALLOWED[max(fitting, key=len)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_third_party_imports(path: Path) -> None:
    assert third_party(path) <= allowed(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_relative_imports(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_does_not_know_the_command_line(path: Path) -> None:
    roots = {full.partition(".")[0] for full in imports(path)}
    assert not roots & ({"adafv_cli"} | TERMINAL)


@pytest.mark.parametrize("path", PRODUCT, ids=name)
def test_the_library_neither_prints_nor_exits(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    called = {ast.unparse(call) for call in calls}
    assert not called & {"print", "exit", "quit", "sys.exit", "os._exit", "input", "os.getcwd", "Path.cwd"}


@pytest.mark.parametrize("path", PRODUCT + COMMAND_LINE, ids=name)
def test_the_product_does_not_import_the_recipe(path: Path) -> None:
    assert not {full for full in imports(path) if full.partition(".")[0] in {"recipe", "tests", "benchmarks"}}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_asserts_in_the_product(path: Path) -> None:
    assert not [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]


def heavy_modules() -> set[str]:
    """Modules of the library that import torch, transformers or pillow, directly or through another of ours."""
    tops = {name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path for path in LIBRARY}
    heavy = {module for module, path in tops.items() if third_party(path, at_the_top=True)}
    while True:
        also = {
            module
            for module, path in tops.items()
            if {full for full in imports(path, at_the_top=True) if full in heavy or full.rpartition(".")[0] in heavy}
        }
        if also <= heavy:
            return heavy
        heavy |= also


def test_heavy_modules_are_known() -> None:
    assert {"adafv.engine", "adafv.loading.checkpoint", "adafv.images", "adafv.pruners.mixture"} <= heavy_modules()
    assert not {"adafv", "adafv.records", "adafv.settings", "adafv.pruners", "adafv.costs.flops"} & heavy_modules()


@pytest.mark.parametrize("path", COMMAND_LINE, ids=name)
def test_the_command_line_imports_heavy_modules_inside_commands(path: Path) -> None:
    assert not third_party(path, at_the_top=True) - TERMINAL
    heavy = heavy_modules()
    assert not {full for full in imports(path, at_the_top=True) if full in heavy or full.rpartition(".")[0] in heavy}

"""What may import what: every room knows only those that it needs, and `--help` needs no torch.

A room is a folder of `adafv/`, or a single file there. What a table does not allow is forbidden, so that a new file
belongs to a room, or says here what it may know.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"adafv", "adafv_cli"}
OUTSIDE = {"recipe", "benchmarks", "tests"}
TERMINAL = {"typer", "rich"}

ROOMS: dict[str, str] = {
    "errors": "",
    "checks": "errors",
    "notebook": "",
    "setup": "",
    "spent": "",
    "records": "budget notebook setup spent",
    "flops": "",
    "words": "",
    "timing": "",
    "demo": "",
    "quality": "",
    "benchmark_files": "errors quality",
    "budget": "errors",
    "versions": "errors",
    "memory": "errors",
    "evidence": "errors",
    "chat_templates": "errors",
    "sandbox": "",
    "prompt": "chat_templates errors sandbox",
    "image_files": "errors memory",
    "images": "errors image_files",
    "encoding": "evidence",
    "signals": "encoding errors evidence",
    "pruners": "budget errors evidence flops memory signals",
    "settings": "budget chat_templates checks errors pruners setup",
    "tiles": "",
    "tiled": "encoding request",
    "tiling": "encoding errors evidence families memory pipeline prompt settings signals tiled tiles timing",
    "families": "encoding errors evidence images signals",
    "request": "encoding prompt records settings",
    "decoding": "settings timing",
    "sampling": "settings",
    "prefixes": "decoding",
    "stepping": "sampling",
    "generating": "decoding errors families memory prefixes sampling settings stepping timing",
    "costs": "errors families flops pruners settings spent tiles",
    "loading": "chat_templates demo errors families headroom memory prompt settings",
    "choosing": "encoding errors evidence pruners request settings signals timing",
    "serving": "decoding errors settings timing",
    "pipeline": "choosing decoding encoding errors evidence families generating memory pruners request settings timing",
    "probing": "pipeline request signals words",
    "explanation": "families figures notebook records",
    "explaining": "choosing explanation pipeline records request settings words",
    "report": "costs pipeline records request settings spent",
    "headroom": "",
    "streaming": "encoding errors headroom images memory pipeline prompt pruners records request settings tiled tiles"
    " tiling timing",
    "spreading": "engine errors records settings streaming",
    "figures": "",
    "answering": "chat_templates choosing costs decoding encoding errors families images loading pipeline prompt"
    " records report request settings setup spent tiled tiles tiling timing",
    "rows": "budget errors records",
    "knowing": "errors images records",
    "comparing": "answering generating records request settings streaming",
    "engine": "answering comparing errors explaining explanation families generating images knowing loading probing"
    " records request rows serving settings streaming tiling",
    "__main__": "",  # runs the command line by name
    "wrapping": "engine errors families loading",
    "harness": "engine errors records settings",
    "bench": "costs demo engine errors families flops generating headroom images loading memory pruners records request"
    " settings spent stepping tiled tiles tiling timing wrapping",
    "patching": "budget encoding errors evidence families pipeline prompt pruners records request settings timing"
    " wrapping",
    "__init__": "budget engine errors patching pruners records settings versions wrapping",
}
"""Other rooms of the library that the modules of a room may import, at the top or inside functions."""

FLOORS = (
    "exits terminal",
    "console files",
    "failures inputs interrupts placement writing",
    "rendering",
    "loading options progress",
    "work",
    "clusterflags serverflags workflags",
    "benchflags sweepflags",
    "ask batch bench convert info samples show",
    "sweep",
    "app",
    "__main__",
)
"""Rooms of the command line, from the bottom up: each imports from those below it."""

THIRD_PARTY: dict[str, str] = {
    "adafv/evidence": "torch",
    "adafv/encoding": "torch",
    "adafv/signals": "torch",
    "adafv/pruners": "torch",
    "adafv/timing": "torch",
    "adafv/image_files": "PIL",
    "adafv/images": "PIL",
    "adafv/sandbox": "jinja2",
    "adafv/prompt": "jinja2",  # what transformers renders chat templates with
    "adafv/headroom": "torch",
    "adafv/streaming": "torch safetensors",
    "adafv/spreading": "ray pyarrow",  # only inside functions
    "adafv/decoding": "torch",
    "adafv/sampling": "torch transformers",
    "adafv/generating": "torch transformers",
    "adafv/prefixes": "torch transformers",
    "adafv/stepping": "torch transformers",
    "adafv/tiles": "torch",
    "adafv/tiling": "torch",
    "adafv/choosing": "torch",
    "adafv/serving": "torch",
    "adafv/pipeline": "torch PIL",
    "adafv/explanation": "PIL",
    "adafv/explaining": "torch PIL",
    "adafv/families": "torch transformers accelerate PIL",
    "adafv/patching": "torch",
    "adafv/bench": "torch transformers accelerate PIL",
    "adafv/wrapping": "transformers",
    "adafv/harness": "torch accelerate PIL lmms_eval",  # which alone imports it
    "adafv/loading": "torch transformers accelerate safetensors huggingface_hub jinja2 PIL peft",
    "adafv/costs": "torch transformers",
    "adafv/quality": "numpy",
    "adafv/figures": "matplotlib numpy PIL",  # nothing else draws, and only inside functions
    "adafv_cli": "typer rich PIL",
    "adafv_cli/work": "typer rich PIL pyarrow datasets",
    "recipe": "torch transformers tokenizers safetensors numpy PIL",
}
"""Packages of others that the modules of a room, or of a whole package, may import."""

FILES = sorted(path for package in (*OURS, "recipe") for path in (ROOT / package).rglob("*.py"))
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "adafv")]
COMMAND_LINE = [path for path in FILES if path.is_relative_to(ROOT / "adafv_cli")]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str:
    """The folder below the package that a module is in, or the module itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1]


@cache
def imports(path: Path, at_the_top: bool = False) -> frozenset[str]:
    """Full names of imported modules, without those for type checkers; `at_the_top`: only what importing runs."""
    return frozenset(_imports(path, at_the_top))


def _imports(path: Path, at_the_top: bool) -> Iterator[str]:
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


def rooms_of(path: Path, package: str) -> set[str]:
    """Rooms of `package` that a module imports from; `__init__` for names of the package itself."""
    split = [full.split(".") for full in imports(path) if full.split(".")[0] == package]
    there = {entry.stem for entry in (ROOT / package).iterdir()}
    return {parts[1] if len(parts) > 1 and parts[1] in there else "__init__" for parts in split}


def third_party(path: Path, at_the_top: bool = False) -> set[str]:
    roots = {full.partition(".")[0] for full in imports(path, at_the_top)}
    return roots - OURS - OUTSIDE - set(sys.stdlib_module_names) - {"__future__"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_third_party_imports(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    allowed = THIRD_PARTY.get(f"{package}/{room(path)}", THIRD_PARTY.get(package, ""))
    assert third_party(path) <= set(allowed.split())


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_a_room_of_the_library_knows_only_those_that_it_needs(path: Path) -> None:
    assert room(path) in ROOMS, "a new room: say in ROOMS what it may know"
    assert rooms_of(path, "adafv") <= {room(path), *ROOMS[room(path)].split()}


def test_no_two_rooms_of_the_library_need_each_other() -> None:
    order = list(TopologicalSorter({one: set(known.split()) for one, known in ROOMS.items()}).static_order())
    assert set(order) == set(ROOMS)


def test_every_room_is_there_and_needs_what_it_may_know() -> None:
    for one, known in ROOMS.items():
        used = {other for path in LIBRARY if room(path) == one for other in rooms_of(path, "adafv")}
        lazy = (
            {"engine", "patching", "pruners", "wrapping"} if one == "__init__" else set()
        )  # imported by name when they are first used
        assert set(known.split()) <= used | lazy, one
        assert any(room(path) == one for path in LIBRARY), one


@pytest.mark.parametrize("path", COMMAND_LINE, ids=name)
def test_the_command_line_imports_downwards(path: Path) -> None:
    floors = {one: number for number, floor in enumerate(FLOORS) for one in floor.split()}
    if room(path) == "__init__":
        return
    assert room(path) in floors, "a new room: say in FLOORS where it is"
    for other in rooms_of(path, "adafv_cli") - {room(path), "__init__"}:
        assert floors[other] < floors[room(path)], other


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_relative_imports(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_does_not_know_the_command_line(path: Path) -> None:
    roots = {full.partition(".")[0] for full in imports(path)}
    assert not roots & ({"adafv_cli"} | TERMINAL)


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_neither_prints_nor_exits(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    called = {ast.unparse(call) for call in calls}
    assert not called & {"print", "exit", "quit", "sys.exit", "os._exit", "input", "os.getcwd", "Path.cwd"}


@pytest.mark.parametrize("path", LIBRARY + COMMAND_LINE, ids=name)
def test_what_is_installed_does_not_import_what_is_not(path: Path) -> None:
    assert not {full.partition(".")[0] for full in imports(path)} & OUTSIDE


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_asserts_in_the_product(path: Path) -> None:
    assert not [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]


@cache
def heavy_modules() -> frozenset[str]:
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
            return frozenset(heavy)
        heavy |= also


def test_heavy_modules_are_known() -> None:
    assert {"adafv.engine", "adafv.loading.checkpoint", "adafv.images", "adafv.pruners.mixture"} <= heavy_modules()
    assert not {"adafv", "adafv.records", "adafv.settings", "adafv.pruners", "adafv.flops"} & heavy_modules()


@pytest.mark.parametrize("path", COMMAND_LINE, ids=name)
def test_the_command_line_imports_heavy_modules_inside_commands(path: Path) -> None:
    assert not third_party(path, at_the_top=True) - TERMINAL
    heavy = heavy_modules()
    assert not {full for full in imports(path, at_the_top=True) if full in heavy or full.rpartition(".")[0] in heavy}

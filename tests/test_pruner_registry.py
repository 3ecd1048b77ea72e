"""Pruners of other packages: found by their entry points, used like ours, refused when they break the promise."""

from __future__ import annotations

import random
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import adafv
from adafv import InputError, pruners
from adafv.pruners import READABLE, Pruner, Work
from adafv.settings import RunSettings
from tests.pruner_cases import draw, gathered
from tests.pruner_references import Case

# As the README shows them; its blocks are what is tested, once it has them.
CODE = """\
# loudest.py
from adafv.evidence import Selection
from adafv.pruners import Pruner


def select(evidence, keep):  # any (Evidence, K) -> (B, K) indices, on tensors alone
    loudness = evidence.tokens.float().norm(dim=-1).masked_fill(~evidence.valid, -1)
    return Selection(loudness.topk(keep).indices.sort().values)


PRUNER = Pruner(select, reads={"tokens"}, flops=lambda work: 2 * work.visual * work.hidden)
"""
ENTRY = """\
[project.entry-points."adafv.pruners"]
loudest = "loudest:PRUNER"
"""
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
IMPORTS = "import torch\nfrom adafv.evidence import Selection\nfrom adafv.pruners import Pruner\n"
Install = Callable[..., None]


def shown(begins: str, otherwise: str) -> str:
    """The block of the README that begins with a line."""
    found = re.search(rf"```\w+\n({re.escape(begins)}\n.*?)```", README, flags=re.S)
    return found[1] if found else otherwise


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package of one module on the path, with what an installer would leave of it."""
    forget()
    installed: list[str] = []

    def put(code: str, points: str = "mine = {module}:select", module: str = "") -> None:
        module = module or "thirdparty"
        installed.append(module)
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[adafv.pruners]\n{points.format(module=module)}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        forget()

    yield put
    forget()
    for module in installed:
        sys.modules.pop(module, None)


def forget() -> None:
    pruners._others.cache_clear()
    pruners.get.cache_clear()


def images() -> list[Case]:
    return [draw(random.Random(i), grids, "plain") for i, grids in enumerate([((4, 6),), ((2, 2), (4, 4))])]


def test_the_readme_s_pruner(install: Install, llava: adafv.Model, image: object) -> None:
    code = shown("# loudest.py", CODE)
    (points,) = tomllib.loads(shown('[project.entry-points."adafv.pruners"]', ENTRY))["project"][
        "entry-points"
    ].values()
    (name,) = points
    install(code, "\n".join(f"{key} = {value}" for key, value in points.items()), module="loudest")
    assert pruners.names()[-1] == name and pruners.names()[:-1] == pruners.BUILT_IN
    pruner, batch = pruners.get(name), images()
    assert pruner.reads == {"tokens"}
    kept = pruner(gathered(batch, pruner.reads), 5).indices.tolist()
    for case, indices in zip(batch, kept, strict=True):
        norms = torch.tensor(case.tokens).norm(dim=1)
        assert indices == sorted(norms.topk(5).indices.tolist())
    answer = llava.ask(image, "what color is the sign?", pruner=name, keep=5, max_new_tokens=2)
    assert (answer.pruner, answer.tokens.kept) == (name, 5)
    assert answer.flops.score == 2 * answer.tokens.visual * 48  # no text was scored
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_a_bare_function_may_look_at_everything(install: Install) -> None:
    install(IMPORTS + "def select(evidence, keep):\n    return Selection(torch.arange(keep).expand(2, -1))\n")
    pruner = pruners.get("mine")
    assert pruner.reads == READABLE and pruner.flops(Work(9, 3, 1, 4, 4)) == 0
    assert pruner(gathered(images()), 3).indices.tolist() == [[0, 1, 2]] * 2


def test_only_what_is_read_is_gathered(install: Install, llava: adafv.Model, image: object) -> None:
    install(
        IMPORTS + "seen = []\n"
        "def choose(evidence, keep):\n"
        "    seen.append(evidence)\n"
        "    return Selection(torch.arange(keep).expand(len(evidence.valid), -1))\n"
        "select = Pruner(choose, reads={'features'}, flops=lambda work: 1)\n",
        module="watching",
    )
    answer = llava.ask(image, "what?", pruner="mine", keep=4, max_new_tokens=1)
    import watching  # type: ignore[import-not-found]

    (evidence,) = watching.seen
    assert evidence.features.shape == (1, 16, 32) and evidence.tokens.shape == (1, 16, 0)
    assert evidence.cosine.shape == evidence.similarity.shape == (1, 0, 16) and evidence.question_mask.shape == (1, 0)
    assert evidence.text_lengths == (0,) and evidence.lengths == (16,)
    assert answer.flops.score == 1


def test_a_name_of_ours_stays_ours(install: Install) -> None:
    install(
        "def select(evidence, keep):\n    raise AssertionError\n", "adafv = {module}:select\nuniform = {module}:select"
    )
    assert pruners.names() == pruners.BUILT_IN
    assert pruners.get("adafv").select.__module__ == "adafv.pruners.mixture"


def test_names_and_suggestions_know_it(install: Install) -> None:
    install("select = None\n", "saliency-squared = {module}:select")
    assert pruners.names()[-1] == "saliency-squared"
    RunSettings(pruner="saliency-squared")
    with pytest.raises(InputError, match="'salency-squared' is unknown") as raised:
        RunSettings(pruner="salency-squared")
    assert "did you mean saliency-squared" in raised.value.fix and "mmtok" in raised.value.fix


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere\n", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\n", "cannot be imported: AttributeError: .*has no attribute 'select'"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
        ("select = 5\n", "is a int, not a pruner"),
        (
            "from adafv.pruners import Pruner\nselect = Pruner(print, reads={'pixels'})\n",
            "a pruner reads pixels, which is no part of the evidence",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(install: Install, code: str, said: str) -> None:
    install(code)
    with pytest.raises(InputError, match=rf"^pruner mine \(thirdparty:select\) .*{said}") as raised:
        pruners.get("mine")
    assert raised.value.fix


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("[[0, 1, 2]] * 2", r"answered a list, not a Selection"),
        ("Selection(torch.arange(3))", r"answered \(3,\) torch.int64, not \(2, 3\) int64"),
        ("Selection(torch.arange(4).expand(2, -1))", r"answered \(2, 4\) torch.int64, not \(2, 3\) int64"),
        ("Selection(torch.arange(3.0).expand(2, -1))", r"answered \(2, 3\) torch.float32, not \(2, 3\) int64"),
        ("Selection(torch.tensor([[0, 2, 1]] * 2))", "not distinct and ascending"),
        ("Selection(torch.tensor([[0, 1, 1]] * 2))", "not distinct and ascending"),
        ("Selection(torch.tensor([[-1, 1, 2]] * 2))", "outside of 0 to 23"),
        ("Selection(torch.tensor([[0, 1, 24]] * 2))", "outside of 0 to 23"),
        ("Selection(torch.tensor([[0, 1, 22]] * 2))", "kept padding"),
        ("Selection([[0, 1, 2]] * 2)", "answered a list, not a tensor"),
        ("Selection(torch.zeros(2, 3, dtype=torch.long, device='meta'))", "answered a tensor on meta, not on cpu"),
        ("Selection(K, torch.ones(2, 2).bool())", r"answered by_saliency \(2, 2\) torch.bool, not \(2, 3\) bool"),
        ("Selection(K, None, K)", r"answered by_similarity \(2, 3\) torch.int64, not \(2, 3\) bool"),
        ("evidence.nothing", "failed: AttributeError: 'Evidence' object has no attribute 'nothing'"),
        ("int('memory')", "failed: ValueError: invalid literal"),
        ("torch.ones(2) @ torch.ones(3)", "failed: RuntimeError: .*size"),
    ],
)
def test_selections_that_break_the_promise_are_refused(install: Install, answer: str, said: str) -> None:
    install(f"{IMPORTS}K = torch.arange(3).expand(2, -1)\ndef select(evidence, keep):\n    return {answer}\n")
    with pytest.raises(InputError, match=rf"^pruner mine \(thirdparty:select\) .*{said}"):
        pruners.get("mine")(gathered(images()), 3)


@pytest.mark.parametrize(
    "error",
    [
        "torch.OutOfMemoryError('CUDA out of memory')",
        "RuntimeError('not enough memory')",
        "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate')",
    ],
)
def test_running_out_of_memory_is_left_to_the_engine(install: Install, error: str) -> None:
    install(f"{IMPORTS}def select(evidence, keep):\n    raise {error}\n")
    with pytest.raises(RuntimeError, match=r"memory|ALLOC_FAILED"):
        pruners.get("mine")(gathered(images()), 3)


def test_a_faulty_pruner_costs_its_lines_and_not_the_batch(install: Install, llava: adafv.Model, image: object) -> None:
    install("def select(evidence, keep):\n    return 1 // 0\n")
    (answer,) = llava.batch([adafv.Question(0, image, "what?")], pruner="mine", keep=3)
    assert answer.text is None and answer.error is not None
    assert "pruner mine (thirdparty:select) failed: ZeroDivisionError" in str(answer.error)


@pytest.mark.parametrize(
    ("cost", "said"),
    [("work.nothing", "AttributeError: 'Work'"), ("None", "TypeError"), ("float('nan')", "ValueError")],
)
def test_costs_that_are_no_numbers_are_refused(install: Install, cost: str, said: str) -> None:
    install(f"from adafv.pruners import Pruner\nselect = Pruner(print, flops=lambda work: {cost})\n")
    with pytest.raises(InputError, match=rf"pruner mine .* failed: {said}"):
        pruners.get("mine").flops(Work(9, 3, 1, 4, 4))


def test_costs_are_whole_numbers(install: Install) -> None:
    install("from adafv.pruners import Pruner\nselect = Pruner(print, flops=lambda work: work.visual / 2)\n")
    cost = pruners.get("mine").flops(Work(9, 3, 1, 4, 4))
    assert cost == 4 and isinstance(cost, int)


def test_what_a_pruner_reads_is_checked_where_it_is_written() -> None:
    with pytest.raises(InputError, match="reads image, which is no part of the evidence") as raised:
        Pruner(print, reads=frozenset({"text", "image"}))  # type: ignore[arg-type]
    assert "choose from features, keys, text, tokens" in raised.value.fix

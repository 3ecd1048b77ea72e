"""What pruners cost, against torch's own counter, and that answers and plans are charged for it."""

from __future__ import annotations

import json
import random

import pytest

from adafv import flops, pruners
from adafv.costs.plan import PromptPlan, plan_answer
from adafv.families.base import ImagePlan
from adafv.pruners import Work
from adafv.settings import RunSettings
from tests.cli_fakes import adafv
from tests.conftest import noise
from tests.pruner_cases import draw, gathered
from tests.test_flops import counted


@pytest.mark.parametrize(("name", "keep"), [("divprune", 9), ("cdpruner", 1), ("cdpruner", 9), ("cdpruner", 63)])
def test_pruners_whose_work_is_matrix_products(name, keep):
    pruner = pruners.get(name)
    case = draw(random.Random(0), ((8, 8),), "plain")
    evidence = gathered([case])
    work = Work(visual=64, keep=keep, question=1, hidden=len(case.tokens[0]), features=len(case.features[0]))
    assert pruner.flops(work) == counted(lambda: pruner(evidence, keep))


def test_coverage_counts_a_comparison_and_an_addition_for_each_entry_and_token_taken():
    work = Work(visual=576, keep=64, question=7, hidden=4096, features=1024)
    cosines = 2 * 576 * 576 * 1024
    assert pruners.get("scope").flops(work) == cosines + 64 * 2 * 576 * 576
    assert pruners.get("mmtok").flops(work) == cosines + 64 * 2 * (576 + 7) * 576
    assert all(pruners.get(name).flops(work) == 0 for name in ("adafv", "saliency", "similarity", "uniform", "random"))


@pytest.mark.parametrize("name", pruners.BUILT_IN)
def test_an_answer_is_charged_what_its_pruner_costs(name, llava, image):
    answer = llava.ask(image, "what color is the sign?", pruner=name, keep=5, max_new_tokens=2)
    prompt = llava._prompter.prompt("what color is the sign?")
    pruner, text = pruners.get(name), len(prompt.after)
    work = Work(16, 5, prompt.question_span[1] - prompt.question_span[0], hidden=48, features=32)
    scored = flops.score(text if "text" in pruner.reads else 0, 16, 48)
    assert answer.flops.score == (0 if name == "none" else scored + pruner.flops(work))
    planned = plan_answer(
        llava._checkpoint.model.config, ImagePlan(1, 16, 0, ((4, 4),)), RunSettings(keep=5, pruner=name),
        PromptPlan(len(prompt.before), text, answer.tokens.generated),
    )  # fmt: skip
    if name != "mmtok":  # the only one whose cost depends on which text is the question's own
        assert planned.flops.score == answer.flops.score
    else:
        assert planned.flops.score == answer.flops.score + 2 * 5 * 16 * (text - work.question)


@pytest.mark.parametrize("name", pruners.BUILT_IN)
def test_a_dry_run_plans_with_every_pruner(name, llava_folder, tmp_path):
    lines = tmp_path / "questions.jsonl"
    noise(60, 60).save(tmp_path / "a.png")
    lines.write_text('{"question_id": 1, "image": "a.png", "text": "what color is the sign?"}\n')

    def total(pruner):
        done = adafv("batch", str(lines), "--dry-run", "-m", str(llava_folder), "--keep", "5", "--pruner", pruner)
        assert done.code == 0
        return json.loads(done.stdout)["flops"]["total"]

    wanted = pruners.get(name).flops(Work(16, 5, 1, 48, 32))
    assert total(name) - total("uniform") >= wanted

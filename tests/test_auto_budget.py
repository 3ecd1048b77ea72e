"""`--keep auto`: the rule against its definition, its bounds, a batch that equals its rows, and what is reported."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import Budget, BudgetError, Question, RunSettings
from adafv.budget import bounds
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.encoding import ImageEncoding
from adafv.errors import InputError
from adafv.evidence import Evidence
from adafv.flops import score
from adafv.patching.context import pruned
from adafv.pruners import auto_budget
from adafv.signals.gathering import gather_evidence
from tests.batch_fakes import answers, asking, questions
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.spying import listening

QUESTION = "what color is the sign behind the house"


def encoding(visual: int, seed: int, crops: int = 1) -> ImageEncoding:
    """An image of random tokens, some of which are alike, with saliency that is peaked somewhere."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(visual, 12, generator=draw)
    tokens[: visual // 3] = tokens[0] + 0.3 * torch.randn(visual // 3, 12, generator=draw)
    crop = torch.arange(visual) * crops // visual
    return ImageEncoding(
        packed=tokens, candidates=torch.arange(visual), features=tokens,
        saliency=torch.rand(visual, generator=draw) ** 4, crop=crop, cell=torch.arange(visual), crops=crops,
        grids=((1, visual),),
    )  # fmt: skip


def evidence(*parts: tuple[int, int]) -> Evidence:
    """Rows of (visual, words) of different lengths."""
    images = [encoding(visual, seed=visual) for visual, _ in parts]
    texts = []
    for (_, words), image in zip(parts, images, strict=True):
        text = torch.randn(words, 12, generator=torch.Generator().manual_seed(words))
        text[-1] = image.tokens[0]  # a word that some tokens match
        texts.append(text)
    spans = [(words // 2, words) for _, words in parts]
    return gather_evidence(images, texts, spans, [0] * len(parts), {"text"})


def by_definition(found: Evidence, row: int, held: float) -> int:
    """The docstring's equations, slowly."""
    visual = found.lengths[row]
    saliency = [float(value) for value in found.saliency[row, :visual].double()]
    words = [word for word in range(found.text_lengths[row]) if found.question_mask[row, word]]
    best = [0.0] * visual
    for word in words:
        weights = [math.exp(20 * float(value)) for value in found.cosine[row, word, :visual].double()]
        best = [max(one, weight / math.fsum(weights)) for one, weight in zip(best, weights, strict=True)]

    def shared(values: list[float]) -> list[float]:
        return [value / math.fsum(values) for value in values]

    def informed(values: list[float]) -> float:
        return 1 + math.fsum(value * math.log(value) for value in values if value) / math.log(visual)

    s, t = shared(saliency), shared(best)
    mixed = sorted((informed(s) ** 2 * a + informed(t) ** 2 * b for a, b in zip(s, t, strict=True)), reverse=True)
    least, most = math.ceil(visual / 64), math.ceil(visual * 3 / 8)
    whole = math.fsum(mixed[:most])
    for keep in range(least, most + 1):
        if math.fsum(mixed[:keep]) >= (held - 1e-9) * whole:
            return max(keep, found.num_crops[row])
    return most


def test_it_is_the_definition() -> None:
    found = evidence((64, 6), (200, 9), (37, 2), (512, 12), (3, 1))
    chosen = set()
    for held in (0.05, 0.3, 0.5, 0.8, 0.9, 0.99, 1.0):
        keeps = auto_budget.budgets(found, [held] * 5).tolist()
        assert keeps == [by_definition(found, row, held) for row in range(5)], held
        chosen |= set(keeps)
    assert len(chosen) > 12


def test_more_evidence_takes_more_tokens_within_the_bounds() -> None:
    found, before = evidence((64, 6), (512, 12)), [0, 0]
    for percent in range(1, 101):
        keeps = auto_budget.budgets(found, [percent / 100] * 2).tolist()
        for keep, less, length in zip(keeps, before, found.lengths, strict=True):
            assert bounds(length)[0] <= keep <= bounds(length)[1] and keep >= less
        before = keeps
    assert before == [24, 192]  # 100 % of the evidence is what the ceiling holds
    assert auto_budget.budgets(found, [1e-9] * 2).tolist() == [1, 8]


def test_a_batch_equals_its_rows() -> None:
    parts, held = ((64, 6), (200, 9), (37, 2), (512, 12), (1, 3)), [0.9, 0.5, 0.7, 0.9, 0.2]
    together = auto_budget.budgets(evidence(*parts), held).tolist()
    assert together == [
        int(auto_budget.budgets(evidence(part), [share])) for part, share in zip(parts, held, strict=True)
    ]


def test_what_matches_few_tokens_gets_few_and_where_nothing_matches_saliency_decides() -> None:
    visual = 256
    one = evidence((visual, 4))
    cosine = torch.zeros(1, 4, visual)

    def keep(cosine: torch.Tensor, saliency: torch.Tensor) -> int:
        return int(auto_budget.budgets(replace(one, cosine=cosine, saliency=saliency), [0.5]))

    flat, peaked = torch.full((1, visual), 0.004), torch.zeros(1, visual)
    peaked[0, :20] = 0.05
    few, many = cosine.clone(), cosine.clone()
    few[0, 3, :4], many[0, 3, :60] = 0.6, 0.6
    assert keep(few, flat) < keep(many, flat) < keep(cosine, flat) == 48  # half of what 96 equal tokens hold
    assert keep(cosine, peaked) == 10
    template = cosine.clone()
    template[0, 0, :4] = 0.6  # a word of the template's is not the question's
    assert keep(template, flat) == 48


def test_every_crop_has_a_token() -> None:
    image = encoding(128, seed=1, crops=7)
    text = torch.randn(3, 12, generator=torch.Generator().manual_seed(3))
    found = gather_evidence([image], [text], [(0, 3)], [0], {"text"})
    assert int(auto_budget.budgets(found, [0.01])) == 7


@pytest.mark.parametrize(
    ("keep", "text", "held"),
    [("auto", "auto", Fraction(9, 10)), (" AUTO:90.0% ", "auto:90%", Fraction(9, 10)), ("auto:100%", "auto:100%", 1),
     ("auto:0.5%", "auto:0.5%", Fraction(1, 200))],
)  # fmt: skip
def test_its_forms(keep: str, text: str, held: Fraction) -> None:
    budget = Budget.parse(keep)
    assert (budget.text, budget.held, budget.tokens(256), budget.tokens(1)) == (text, held, 96, 1)


@pytest.mark.parametrize(
    "keep", ["auto:0%", "auto:101%", "auto:", "auto:90", "auto90%", "auto:-5%", "auto:all", "autos"]
)
def test_what_is_none_of_its_forms_is_refused(keep: str) -> None:
    with pytest.raises(BudgetError) as raised:
        Budget.parse(keep)
    assert keep in raised.value.what and "auto:90%" in raised.value.fix
    done = command("ask", "a.png", "what?", "--keep", keep)
    assert done.code == 2 and keep in done.stderr and "auto:90%" in done.stderr


def mixed() -> list[Question]:
    keeps: list[Any] = [None, "auto:20%", 5, "auto:100%", "all", None]
    words = QUESTION.split()
    return [Question(i, noise(60, 60, seed=i), " ".join(words[: 3 + i]), keep=keep) for i, keep in enumerate(keeps)]


@pytest.mark.parametrize("pruner", ["adafv", "divprune", "uniform"])
@pytest.mark.parametrize("positions", ["compact", "original"])
def test_a_batch_of_automatic_budgets_is_one_batch(tiled: adafv.Model, pruner: str, positions: Any) -> None:
    run = RunSettings(keep="auto:50%", pruner=pruner, positions=positions, max_new_tokens=3)
    with listening(tiled) as heard:
        together = list(tiled.batch(mixed(), run, batch_size=6))
    assert len(heard.logits[0]) == 6
    kept = [answer.tokens.kept for answer in together if answer.tokens is not None]
    assert len(set(kept)) >= 4 and kept[2] == 5
    for question, answer in zip(mixed(), together, strict=True):
        alone = tiled.ask(question.image, question.text, run.keeping(question.keep))
        assert (alone.text, alone.tokens, alone.flops) == (answer.text, answer.tokens, answer.flops)
        assert answer.tokens is not None and answer.keep is not None
        same = tiled.ask(question.image, question.text, run.keeping(answer.tokens.kept))  # the number, given by hand
        assert (same.text, same.tokens) == (answer.text, answer.tokens) or answer.keep == "all"


def test_deciding_is_charged(llava: adafv.Model) -> None:
    image = noise(60, 60)
    for pruner, reads in (("uniform", False), ("adafv", True)):
        run = RunSettings(keep="auto:50%", pruner=pruner, max_new_tokens=2)
        chosen = llava.ask(image, QUESTION, run)
        assert chosen.tokens is not None and chosen.flops is not None
        fixed = llava.ask(image, QUESTION, run.keeping(chosen.tokens.kept)).flops
        assert fixed is not None
        behind = len(llava.render(Question(0, image, QUESTION), run).after)
        hidden = llava.pipeline.model.config.text_config.hidden_size
        deciding = 0 if reads else score(behind, chosen.tokens.visual, hidden)
        assert chosen.flops.total - fixed.total == chosen.flops.score - fixed.score == deciding


def test_a_plan_is_a_bound(llava: adafv.Model) -> None:
    config = llava.pipeline.model.config
    run = RunSettings(keep="auto", pruner="uniform", max_new_tokens=2)
    answer = llava.ask(noise(60, 60), QUESTION, run)
    prompt = llava.render(Question(0, None, QUESTION), run)
    assert answer.tokens is not None and answer.flops is not None
    lengths = PromptPlan(len(prompt.before), len(prompt.after), answer.tokens.generated)
    plan = plan_answer(config, plan_image(config, 60, 60), run, lengths)
    assert plan.tokens.kept == 6 >= answer.tokens.kept and plan.flops.total >= answer.flops.total
    assert plan.flops.score == answer.flops.score


def test_it_prunes_under_the_callers_own_generate(llava: adafv.Model) -> None:
    model, processor = llava._checkpoint.model, llava._checkpoint.processor
    inputs = processor(images=noise(60, 60), text=f"<image> {QUESTION}", return_tensors="pt")

    def first(keep: str | int) -> torch.Tensor:
        with listening(llava) as heard, pruned(model, keep=keep):
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
        return heard.logits[0]

    fixed = [first(keep) for keep in range(1, 7)]
    for keep in ("auto:30%", "auto:80%"):
        assert [torch.equal(first(keep), logits) for logits in fixed].count(True) == 1
    assert torch.equal(first("auto:100%"), fixed[-1])


def test_one_k_for_all_rows_cannot_be_automatic() -> None:
    with pytest.raises(InputError, match="auto:80% keeps a number of each row's own"):
        adafv.select(torch.rand(2, 16), torch.rand(2, 16), "auto:80%")


def test_none_keeps_everything(llava: adafv.Model) -> None:
    answer = llava.ask(noise(60, 60), QUESTION, pruner="none", keep="auto", max_new_tokens=2)
    assert answer.tokens is not None and answer.tokens.kept == 16


def test_the_command_line_says_what_was_chosen(tmp_path: Path) -> None:
    sign = ("sample_images/street.png", "what color is the sign?", "--keep", "auto:60%")
    done = command("ask", *sign)
    assert done.code == 0 and "as many as this image and question need (auto:60%)" in done.stderr
    found = json.loads(command("ask", *sign, "--json", "-q").stdout)
    assert found["keep"] == "auto:60%" and 4 <= found["tokens"]["kept"] <= 96
    shown = json.loads(command("show", *sign, "--json", "-q").stdout)
    assert sum(shown["visual_tokens"]["kept"]) == shown["tokens"]["kept"] == found["tokens"]["kept"]
    card = command("info", "--keep", "auto")
    assert "auto: between 4 and 96 visual tokens, as image and question need; the most is shown" in card.stdout


def test_a_dry_run_says_that_it_is_a_bound(tmp_path: Path) -> None:
    path = questions(tmp_path, asking(1), asking(2) | {"keep": 16})
    done = command("batch", path, "--dry-run", "--keep", "auto")
    found = json.loads(done.stdout)
    assert (done.code, found["tokens"]["kept"], found["at_most"]) == (0, 96 + 16, True)
    assert "at most 112 of 512 kept" in done.stderr
    assert json.loads(command("batch", path, "--dry-run").stdout)["at_most"] is False


def test_points_of_a_sweep_lie_at_their_mean_cost(tmp_path: Path) -> None:
    log = tmp_path / "answers.jsonl"
    flags = ("--keep", "auto:60%,10%", "--pruner", "adafv", "-o", str(log), "-q")
    done = command("sweep", "sample_images/questions.jsonl", *flags)
    points = {point["keep"]: point for point in answers(done.stdout)}
    kept = [line["tokens"]["kept"] for line in answers(log.read_text()) if line["keep"] == "auto:60%"]
    assert done.code == 0 and len(set(kept)) > 5
    assert points["auto:60%"]["tokens"]["kept"] == sum(kept) / len(kept)
    assert command("sweep", "sample_images/questions.jsonl", *flags, "--resume").stdout == done.stdout


def test_budgets_that_adapt_are_a_line_of_their_own(tmp_path: Path) -> None:
    figure = tmp_path / "curve.svg"
    flags = ("--keep", "auto:40%,auto:80%,6%,25%", "--pruner", "adafv", "--plot", str(figure), "-q")
    assert command("sweep", "sample_images/questions.jsonl", *flags).code == 0
    assert "adafv, auto<" in figure.read_text().replace(" </", "</")

"""`--crop-budget each`: a pruner chooses within every crop as if that were the image, and K tokens in all."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import InputError, Question, RunSettings, pruners
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.evidence import Evidence, Selection
from adafv.pruners.crops import each, shares
from adafv.streaming.runs import grid
from tests import tiny
from tests.batch_fakes import asking, install, questions
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.pruner_cases import draw, gathered, spoiled
from tests.pruner_references import GREEDY, RANKED, Case
from tests.test_pruned import GREEDY as DECODING
from tests.test_pruned import inputs
from tests.test_pruner_reference import check, plain_order
from tests.test_pruners import NAMES, row, same

SIZES = [(60, 60), (120, 60), (60, 120), (200, 60), (90, 33), (33, 200), (400, 3)]
TILED = [((2, 2), (1, 5)), ((2, 2), (4, 3)), ((3, 3), (2, 5)), ((4, 4),)]


def parts(case: Case) -> list[Case]:
    """Each crop as an image of its own; those without candidates are left out."""
    found = []
    for crop in range(max(case.crop) + 1):
        own = [i for i, number in enumerate(case.crop) if number == crop]
        if own:
            tokens, features = ([values[i] for i in own] for values in (case.tokens, case.features))
            found.append(
                replace(
                    case, saliency=[case.saliency[i] for i in own], tokens=tokens, features=features,
                    crop=[0] * len(own), grids=((1, len(own)),), seed=case.seed + crop,
                )
            )  # fmt: skip
    return found


def places(case: Case) -> list[list[int]]:
    """The candidates of each crop that has some."""
    every = ([i for i, number in enumerate(case.crop) if number == crop] for crop in range(max(case.crop) + 1))
    return [own for own in every if own]


def budgets(case: Case, rng: random.Random) -> int:
    return rng.randint(len(places(case)), case.visual - 1)


def test_every_crop_gets_its_share_and_gives_away_what_it_has_not() -> None:
    assert shares([576] * 5, 320) == [64] * 5
    assert shares([576] * 5, 322) == [65, 65, 64, 64, 64]
    assert shares([576, 576, 288, 288], 400) == [100] * 4
    assert shares([576, 24, 0, 576], 301) == [139, 24, 0, 138]
    assert shares([10, 1, 2, 10], 16) == [7, 1, 2, 6]
    assert shares([9], 4) == [4]
    rng = random.Random(0)
    for _ in range(3000):
        sizes = [rng.choice([0, 1, 2, 5, 30]) for _ in range(rng.randint(1, 8))]
        crops, visual = sum(size > 0 for size in sizes), sum(sizes)
        if visual < 2:
            continue
        keep = rng.randint(1, visual - 1)
        if keep < crops:
            with pytest.raises(InputError, match=f"^keep: {keep} visual tokens .* the image's {crops} crops"):
                shares(sizes, keep)
            continue
        dealt = shares(sizes, keep)
        assert sum(dealt) == keep and all(0 < share <= size for share, size in zip(dealt, sizes, strict=True) if size)
        hungry = [share for share, size in zip(dealt, sizes, strict=True) if share < size]
        assert hungry == sorted(hungry, reverse=True) and hungry[0] - hungry[-1] <= 1
        assert max(dealt) <= hungry[-1] + 1  # also of the crops that keep all of their own


@pytest.mark.parametrize("name", [*RANKED, *GREEDY])
def test_what_is_kept_is_the_definition_s_within_each_crop(name: str) -> None:
    rng, clear = random.Random(name), 0
    for _ in range(40):
        case = draw(rng, rng.choice(TILED), rng.choice(["plain", "narrow", "positive"]))
        keep = budgets(case, rng)
        kept = each(pruners.get(name), gathered([case]), keep).indices[0].tolist()
        assert len(kept) == keep and kept == sorted(set(kept))
        dealt = shares([len(own) for own in places(case)], keep)
        for own, part, share in zip(places(case), parts(case), dealt, strict=True):
            found = [own.index(i) for i in kept if i in own]
            assert len(found) == share
            if share == part.visual or min(part.matched) < 1e-30 or max(part.matched) > 1 - 1e-6:
                continue  # all are kept, or float32 makes a similarity zero or one
            if name in RANKED:
                assert found == RANKED[name](part, share)
                clear += 1
                continue
            order = plain_order(part, GREEDY[name](part), share)
            if check(part, GREEDY[name](part), order):
                clear += 1
                assert found == sorted(order)
    assert clear > 40


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_rows_and_padding_has_no_influence(name: str) -> None:
    rng, pruner = random.Random(2), pruners.get(name)
    for _ in range(12):
        batch = [draw(rng, grids, "plain") for grids in rng.sample(TILED, 3)]
        keep = rng.randint(4, min(case.visual for case in batch) - 1)
        evidence = gathered(batch)
        together = each(pruner, evidence, keep)
        assert same(each(pruner, spoiled(evidence, 3.0e4), keep), together)
        for number, case in enumerate(batch):
            alone = each(pruner, gathered([case]), keep)
            assert same(alone, row(together, number))
            assert alone.indices.shape == (1, keep) and (alone.indices.diff(dim=1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_crop_is_the_image(name: str) -> None:
    batch = gathered([draw(random.Random(seed), grids, "plain") for seed, grids in enumerate((((4, 4),), ((3, 7),)))])
    for keep in (1, 7, 15):
        assert same(each(pruners.get(name), batch, keep), pruners.get(name)(batch, keep))


def test_the_three_scales_are_the_crop_s_own() -> None:
    """Joint, all would be of the crop whose tokens match the words; each, both crops have a best one."""
    case = draw(random.Random(5), ((2, 2), (2, 4)), "plain")
    towards = [[0.3 * x + w for x, w in zip(token, case.text[0], strict=True)] for token in case.tokens]
    case = replace(case, crop=[0] * 4 + [1] * 8, tokens=towards[:4] + case.tokens[4:], text=case.text[:1], own=(0, 1))
    evidence = gathered([case])
    seen: list[Evidence] = []

    def watched(evidence: Evidence, keep: int) -> Selection:
        seen.append(evidence)
        return pruners.get("similarity")(evidence, keep)

    joint, own = pruners.get("similarity")(evidence, 4), each(watched, evidence, 4)
    assert joint.indices[0].tolist() == [0, 1, 2, 3]
    assert (own.indices < 4).sum() == 2
    (rows,) = seen
    assert rows.lengths == (4, 8) and rows.num_crops == (1, 1) and rows.seeds == (case.seed, case.seed + 1)
    assert (rows.similarity.sum(dim=2) - 1).abs().max() < 1e-5


def test_crops_have_the_grids_of_what_unpadding_left(tiled: adafv.Model) -> None:
    seen: list[Evidence] = []

    def watched(evidence: Evidence, keep: int) -> Selection:
        seen.append(evidence)
        return pruners.get("uniform")(evidence, keep)

    image = tiled.encode(noise(90, 33))[0]
    assert image.grids == ((4, 4), (2, 8))
    from adafv.signals.gathering import gather_evidence

    each(watched, gather_evidence([image], [torch.zeros(1, 48)], [(0, 1)], [0], ()), 6)
    assert [evidence.grids for evidence in seen] == [(((4, 4),), ((2, 4),), ((2, 4),))]


def test_who_chose_a_token_is_put_together() -> None:
    case = draw(random.Random(3), ((3, 3), (2, 5)), "plain")
    case = replace(case, crop=[0] * 9 + [1] * 2 + [2] * 8)
    chosen = each(pruners.get("adafv"), gathered([case]), 9)
    assert chosen.by_saliency is not None and chosen.by_similarity is not None
    whole = (chosen.indices >= 9) & (chosen.indices < 11)
    assert whole.sum() == 2 and (chosen.by_saliency & chosen.by_similarity)[whole].all()
    assert (chosen.by_saliency | chosen.by_similarity).all()
    for own, part, share in zip(places(case), parts(case), (4, 2, 3), strict=True):
        if share < part.visual:
            alone, mine = pruners.get("adafv")(gathered([part]), share), torch.isin(chosen.indices, torch.tensor(own))
            assert torch.equal(alone.by_saliency[0], chosen.by_saliency[mine])  # type: ignore[index]


def test_scores_alone_are_chosen_from_as_they_are() -> None:
    torch.manual_seed(0)
    s, t, crop = torch.rand(3, 24), torch.rand(3, 24), torch.arange(24).expand(3, -1) // 8
    kept = adafv.select(s, t, 9, crop=crop, crop_budget="each")
    for number in range(3):
        own = crop[0] == number
        assert torch.equal(kept[:, 3 * number : 3 * number + 3] - 8 * number, adafv.select(s[:, own], t[:, own], 3))
    assert adafv.select(s, t, "all", crop=crop, crop_budget="each").shape == (3, 24)
    with pytest.raises(InputError, match="keep: 2 visual tokens are fewer than the image's 3 crops"):
        adafv.select(s, t, 2, crop=crop, crop_budget="each")
    with pytest.raises(InputError, match="crop_budget: 'both' is not one of joint, each"):
        adafv.select(s, t, 2, crop_budget="both")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def onevision(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    return adafv.load(str(tiny.save("llava_onevision", tmp_path_factory.mktemp("onevision"))), dtype="float32")


@pytest.fixture
def model(request: pytest.FixtureRequest) -> adafv.Model:
    found: adafv.Model = request.getfixturevalue(request.param)
    return found


BOTH = pytest.mark.parametrize("model", ["tiled", "onevision"], indirect=True)


@BOTH
def test_a_plan_knows_the_candidates_of_each_crop(model: adafv.Model) -> None:
    for size in SIZES:
        planned = plan_image(model.pipeline.model.config, size[1], size[0])
        assert planned.crop_sizes == model.encode(noise(*size))[0].crop_sizes
        assert sum(planned.crop_sizes) == planned.visual and len(planned.crop_sizes) == planned.crops


@BOTH
@pytest.mark.parametrize("name", ["adafv", "cdpruner", "scope", "mmtok", "random"])
def test_a_model_answers_the_same_in_batches_and_as_planned(name: str, model: adafv.Model) -> None:
    settings: dict[str, Any] = dict(keep=11, pruner=name, crop_budget="each", max_new_tokens=3)
    asked = [Question(i, noise(*size), "what color is the sign?") for i, size in enumerate(SIZES[:4])]
    alone = [model.ask(question.image, question.text, **settings) for question in asked]
    together = list(model.batch(asked, batch_size=4, **settings))
    assert [answer.error for answer in together] == [None] * 4
    for size, one, other in zip(SIZES, alone, together, strict=False):
        assert one.tokens and one.flops and other.tokens and other.flops and other.tokens.kept == 11
        assert other.flops.score == one.flops.score
        if name == "mmtok":  # whose cost depends on which text is the question's own
            continue
        config = model.pipeline.model.config
        prompt = model._prompter.prompt("what color is the sign?")
        plan = PromptPlan(len(prompt.before), len(prompt.after), one.tokens.generated)
        planned = plan_answer(config, plan_image(config, size[1], size[0]), RunSettings(**settings), plan)
        assert planned.flops == one.flops
    if name != "random":  # which draws by the question's id
        assert [answer.text for answer in together] == [answer.text for answer in alone]


def test_each_is_not_joint(tiled: adafv.Model) -> None:
    kept = {}
    for budget in ("joint", "each"):
        told = tiled.explain(noise(120, 60), "what?", keep=9, pruner="mmtok", crop_budget=budget, max_new_tokens=1)
        kept[budget] = [token.crop for token in told.tokens if token.kept]
    assert [kept["each"].count(crop) for crop in range(3)] == [3, 3, 3]
    assert [kept["joint"].count(crop) for crop in range(3)] != [3, 3, 3]


def test_too_few_tokens_fail_that_image_alone(tiled: adafv.Model) -> None:
    asked = [Question(0, noise(60, 60), "what?"), Question(1, noise(120, 60), "what?")]  # five crops, and three
    first, second = tiled.batch(asked, keep=4, crop_budget="each", max_new_tokens=1)
    assert first.error is not None and second.error is None
    assert first.error.message == "keep: 4 visual tokens are fewer than the image's 5 crops, and each is to keep some"
    assert "keep 5 or more" in first.error.fix and "--crop-budget joint" in first.error.fix


def test_under_the_caller_s_own_generate(tiled: adafv.Model) -> None:
    model, image = tiled.pipeline.model, noise(120, 60)
    given = inputs(tiled, [(image, "what?")])
    with adafv.pruned(model, keep=9, pruner="divprune", crop_budget="each"):
        output = model.generate(**given, max_new_tokens=4, **DECODING)
    answer = tiled.ask(image, "what?", keep=9, pruner="divprune", crop_budget="each", max_new_tokens=4)
    ids = output.sequences[0, given["input_ids"].shape[1] :]
    assert tiled._checkpoint.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == answer.text


def test_a_sweep_may_have_both(tiled: adafv.Model) -> None:
    runs = [
        one
        for budget in ("joint", "each")
        for one in grid(RunSettings(crop_budget=budget, max_new_tokens=1), ["mmtok"], ["9"])
    ]
    assert runs[0] == runs[2] and len(set(runs)) == 3
    ((_, joint, apart),) = tiled.sweep([Question(0, noise(120, 60), "what?")], list(dict.fromkeys(runs)))
    assert joint.flops.score > apart.flops.score > 0


def test_another_value_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="crop_budget: 'all' is not one of joint, each"):
        RunSettings(crop_budget="all")  # type: ignore[arg-type]
    done = command("ask", "x.png", "what?", "--crop-budget", "all")
    assert done.code == 2 and "--crop-budget: 'all'" in done.stderr


def test_a_log_is_gone_on_with_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    out, path = tmp_path / "answers.jsonl", questions(tmp_path, asking(1))
    assert command("batch", path, "-o", str(out)).code == 0
    recorded = out.with_name(out.name + ".settings.json")
    settings = json.loads(recorded.read_text())
    assert settings.pop("crop_budget") == "joint"
    more = questions(tmp_path, asking(1), asking(2))
    for left in (settings | {"crop_budget": "joint"}, settings):  # the latter as an older version wrote it
        recorded.write_text(json.dumps(left))
        done = command("batch", more, "-o", str(out), "--resume", "--crop-budget", "each")
        assert done.code == 2 and "crop_budget: joint in the file, each asked" in done.stderr
    assert command("batch", more, "-o", str(out), "--resume").code == 0


def test_reports_and_dry_runs_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.save("llava_next", tmp_path / "model")
    for number, size in enumerate(((60, 60), (120, 60))):
        noise(*size).save(tmp_path / f"{number}.png")
    path = questions(tmp_path, asking(0, "0.png"), asking(1, "1.png"))
    done = command("batch", path, "--dry-run", "-m", str(folder), "--keep", "4", "--crop-budget", "each")
    told = json.loads(done.stdout)
    assert (done.code, told["failed"], told["questions"]) == (1, 1, 1)
    assert "keep: 4 visual tokens are fewer than the image's 5 crops" in told["first_failed"][0]["message"]
    install(monkeypatch)
    report = tmp_path / "report.json"
    assert command("batch", path, "--crop-budget", "each", "--report", str(report)).code == 0
    assert json.loads(report.read_text())["settings"]["crop_budget"] == "each"

"""Decoding: rows that have ended leave the batch, and nobody's tokens change by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig

import adafv
from adafv.decoding import Spliced, left_pad
from adafv.generating import generate
from adafv.sampling import Chooser
from adafv.settings import RunSettings
from adafv.timing import Stopwatch
from tests import chatter, tiny
from tests.chatter import END, prompts
from tests.conftest import noise


@pytest.fixture(scope="module")
def chatty(llava: adafv.Model) -> torch.nn.Module:
    return chatter.chatty(llava._checkpoint.model)


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(4))
def test_rows_that_leave_early_change_no_token(chatty: torch.nn.Module, seed: int) -> None:
    run, asked = RunSettings(max_new_tokens=24), prompts(7, seed)
    together = [row.ids for row in generate(chatty, asked, run, Stopwatch())]
    alone = [generate(chatty, [prompt], run, Stopwatch())[0].ids for prompt in asked]
    embeddings, mask, positions = left_pad(asked)
    stock = chatty.generate(  # type: ignore[operator]
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=positions,
        generation_config=GenerationConfig(max_new_tokens=24, do_sample=False),
    ).tolist()
    assert together == alone == [row[: row.index(END) + 1] if END in row else row for row in stock]


@torch.inference_mode()
def test_rows_do_leave(chatty: torch.nn.Module) -> None:
    run, pool = RunSettings(max_new_tokens=24), [prompt for seed in range(6) for prompt in prompts(7, seed)]
    lengths = [len(generate(chatty, [prompt], run, Stopwatch())[0].ids) for prompt in pool]
    short = [prompt for prompt, length in zip(pool, lengths, strict=True) if length < 12][:4]
    long = [prompt for prompt, length in zip(pool, lengths, strict=True) if length == 24][:3]
    batches = []
    hook = chatty.get_submodule("model.language_model").register_forward_pre_hook(
        lambda _module, _args, kwargs: batches.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    rows = [len(row.ids) for row in generate(chatty, short + long, run, Stopwatch())]
    hook.remove()
    assert max(rows[:4]) < 12 and min(rows[4:]) == 24
    assert batches[0] == 7 and batches[-1] == 3 and len(batches) == 24


@torch.inference_mode()
@pytest.mark.parametrize("gap", [1, 3])
def test_what_is_fed_when_rows_have_left(llava: adafv.Model, gap: int) -> None:
    """Each row's own last token, at the position behind its last one: a tiny model's answers hardly feel either."""
    model = llava._checkpoint.model
    lengths, generated = range(5, 253, 31), [2, 2, 3, 5, 8, 8, 10, 12]
    lasts = [gap * (n - 1) for n in lengths]  # so far apart that a position says whose it is
    fed: list[dict[int, torch.Tensor]] = []

    def hear(_module: object, _args: object, given: dict[str, torch.Tensor]) -> None:
        positions = given["position_ids"][:, -1].tolist()
        fed.append(dict(zip(positions, given["inputs_embeds"][:, -1], strict=True)))

    def end(_module: object, _args: object, scores: torch.Tensor) -> None:
        ended = [last + count - 1 for last, count in zip(lasts, generated, strict=True)]
        scores[:, -1, END] = torch.tensor([1e4 if position in ended else -1e4 for position in fed[-1]])

    random = torch.Generator().manual_seed(2)
    prompts = [Spliced(torch.randn(n, 48, generator=random), gap * torch.arange(n)) for n in lengths]
    with (
        model.model.language_model.register_forward_pre_hook(hear, with_kwargs=True),
        model.lm_head.register_forward_hook(end),
    ):
        answers = [row.ids for row in generate(model, prompts, RunSettings(max_new_tokens=12), Stopwatch())]
    assert list(map(len, answers)) == generated
    assert [len(rows) for rows in fed] == [8] * 5 + [4] * 3 + [2] * 2 + [1] * 2
    for step, rows in enumerate(fed):
        assert rows.keys() <= {last + step for last in lasts}
        for last, ids in zip(lasts, answers, strict=True):
            if 0 < step < len(ids):
                assert torch.equal(rows[last + step], model.get_input_embeddings()(torch.tensor(ids[step - 1])))


@torch.inference_mode()
def test_a_sliding_window_survives_the_rows_that_leave() -> None:
    torch.manual_seed(0)
    text = MistralConfig(**tiny.text_config(320).to_diff_dict() | {"model_type": "mistral", "sliding_window": 7})
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=tiny.vision_config(), text_config=text)).eval()
    head = model.lm_head.weight.normal_(std=0.3)
    head[END] = 6 * head[2:40].mean(0) + 0.5 * torch.randn(head.shape[1])
    run, asked = RunSettings(max_new_tokens=24), prompts(7, 1)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = END, 2
    together = [row.ids for row in generate(model, asked, run, Stopwatch())]
    assert together == [generate(model, [prompt], run, Stopwatch())[0].ids for prompt in asked]
    assert len({len(ids) for ids in together}) > 2 and max(map(len, together)) > 7


@torch.inference_mode()
def test_what_is_drawn_for_a_row_depends_on_its_seed_alone(chatty: torch.nn.Module) -> None:
    run = RunSettings(max_new_tokens=48, temperature=0.7, top_p=0.9)
    asked = [replace(prompt, seed=i) for i, prompt in enumerate(prompts(9, 0))]
    together = [row.ids for row in generate(chatty, asked, run, Stopwatch())]
    assert together == [generate(chatty, [prompt], run, Stopwatch())[0].ids for prompt in asked]
    assert len({len(ids) for ids in together}) > 2, together  # so that there were several rounds
    again = [replace(prompt, seed=prompt.seed + 9) for prompt in asked]
    assert together != [row.ids for row in generate(chatty, again, run, Stopwatch())]


@pytest.mark.parametrize(("ends", "generated", "reason"), [(range(320), 1, "stop"), (None, 3, "length")])
def test_why_an_answer_ended(
    ends: range | None, generated: int, reason: str, llava: adafv.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = llava._checkpoint.model.generation_config
    monkeypatch.setattr(settings, "eos_token_id", None if ends is None else list(ends))
    answer = llava.ask(noise(60, 60), "what?", keep=4, max_new_tokens=3)
    assert answer.tokens is not None
    assert (answer.tokens.generated, answer.finish_reason) == (generated, reason)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.8)])
def test_draws_follow_temperature_and_top_p(temperature: float, top_p: float) -> None:
    scores, rows = torch.tensor([0.0, -torch.inf, 1.0, 2.0]), 4000
    run = RunSettings(max_new_tokens=1, temperature=temperature, top_p=top_p)
    chooser = Chooser(run, range(rows), scores.device)
    chooser.restart(list(range(rows)), 0)
    drawn = chooser(torch.empty(rows, 0, dtype=torch.long), scores.expand(rows, -1)).argmax(dim=1)
    wanted = (scores / temperature).softmax(0)
    if top_p < 1:  # 0.67 + 0.24 are the first to reach it
        wanted[0] = 0
        wanted /= wanted.sum()
    shares = drawn.bincount(minlength=4) / rows
    assert (shares - wanted).abs().max() < 0.03
    assert not shares[wanted == 0].any()


def test_a_temperature_of_next_to_nothing_is_greedy() -> None:
    """Scores divided by it would be infinite, and their softmax nothing."""
    scores = torch.tensor([[1.0, 300.0, 299.0]])
    chooser = Chooser(RunSettings(max_new_tokens=1, temperature=1e-40), [0], scores.device)
    assert chooser(torch.empty(1, 0, dtype=torch.long), scores).argmax() == 1


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_a_token_without_a_share_is_never_drawn(number: float) -> None:
    """Not by the least random number either, nor by one that is rounded up to all there is."""
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]])
    chooser = Chooser(RunSettings(max_new_tokens=1, temperature=1.0), [0], scores.device)
    chooser._draws = torch.full((1, 1), number)
    assert chooser(torch.empty(1, 0, dtype=torch.long), scores).argmax() == (3 if number else 1)


def test_prefill_ends_with_the_first_token(chatty: torch.nn.Module) -> None:
    """By a watch that counts what the language model does rather than seconds."""

    class Counting(Stopwatch):
        forwards = 0.0

        def now(self) -> float:
            return self.forwards

    def count(_module: object, _args: object) -> None:
        watch.forwards += 1

    watch = Counting()
    with torch.inference_mode(), chatty.get_submodule("model.language_model").register_forward_pre_hook(count):
        answers = generate(chatty, prompts(7, 0), RunSettings(max_new_tokens=24), watch)
    longest = max(len(answer.ids) for answer in answers)
    assert longest > 2
    assert (watch["prefill"], watch["decode"]) == (1, longest - 1)


def test_left_padding_puts_all_ends_together() -> None:
    embeddings, mask, positions = left_pad(
        [Spliced(torch.ones(2, 3), torch.tensor([4, 9])), Spliced(torch.ones(4, 3), torch.arange(4))]
    )
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert positions.tolist() == [[0, 0, 4, 9], [0, 1, 2, 3]]
    assert embeddings[0].sum(1).tolist() == [0, 0, 3, 3]


def test_scores_that_are_not_finite_are_no_answer(llava: adafv.Model) -> None:
    def overflow(_module: object, _args: object, scores: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(torch.arange(scores.shape[-1]) == 5, float("nan"))

    with (
        llava._checkpoint.model.lm_head.register_forward_hook(overflow),
        pytest.raises(adafv.InputError, match="scores are not finite"),
    ):
        llava.ask(noise(60, 60), "what?", keep=4, max_new_tokens=2)

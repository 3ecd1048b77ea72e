"""The demo's recipe: a few steps of everything, packing that equals separate prompts, an export that equals stock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from recipe.dataset import FIELDS, SKY, open_pictures
from recipe.digits import DIGITS
from recipe.export import CHAT_TEMPLATE, tokenizer
from recipe.facts import facts_of
from recipe.language import Language
from recipe.language_losses import Readouts, answerable, kept_of, language_losses, possible_digits
from recipe.language_training import run_pack
from recipe.packing import END_IDS, START_IDS, attention_mask, choose_tokens, pack
from recipe.parallel import FlatOptimizer, Schedule
from recipe.questions import NUMBER, SceneQuestion, training_questions
from recipe.train import BLEND, SMOKE, make
from recipe.vision_training import batch_of, grown, load_eyes, normalised
from recipe.vocabulary import IMAGE, PLAIN_WORDS, WORDS, encode

TEXT = "What color is the sign?\nAnswer the question using a single word or phrase."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a few steps of every stage make. Slow, because it is all of the training in small, and two processes."""
    folder = tmp_path_factory.mktemp("demo")
    make(SMOKE, folder)
    return folder


def _parts(folder: Path):
    part = folder / BLEND
    language = Language()
    language.load_state_dict(torch.load(part / "language.pt"))
    return load_eyes(part / "eyes.pt").eval(), language.eval(), open_pictures(part / "pictures", SMOKE.second.pictures)


def test_the_export_equals_stock_transformers(made: Path) -> None:
    eyes, language, pictures = _parts(made)
    folder = made / "checkpoint"
    processor = AutoProcessor.from_pretrained(folder)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    content = [{"type": "image"}, {"type": "text", "text": TEXT}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt == f"USER: <image>\n{TEXT} ASSISTANT:"
    pixels = np.array(pictures.pixels[:1])
    inputs = processor(images=Image.fromarray(pixels[0]), text=prompt, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(IMAGE) == 256
    assert [word for word in ids if word != IMAGE] == [*START_IDS, *encode(TEXT), *END_IDS]
    rng, things = np.random.default_rng(0), np.array(pictures.things[:1])
    (asked,) = [training_questions(rng, facts_of(things[0]), 4)]
    with torch.no_grad():
        visual = eyes(normalised(torch.from_numpy(pixels)))[0]
        _, last, _ = run_pack(language, eyes.words, visual, pack([asked], things, _NoBlur()))
        for number, question in enumerate(asked):
            text = f"USER: <image>\n{question.text} ASSISTANT:"
            batch = processor(images=Image.fromarray(pixels[0]), text=text, return_tensors="pt")
            assert torch.allclose(model(**batch).logits[0, -1], last[number], atol=0.02)
        generated = model.generate(**inputs)
    assert 1 <= generated.shape[1] - len(ids) <= 4


class _NoBlur:
    """A generator that never blurs a word."""

    def random(self) -> float:
        return 1.0


def test_the_tokenizer_splits_as_training_did() -> None:
    words = tokenizer()
    for text in (TEXT, "Is there a RED car, or not?!", "zebra is... what?", ""):
        assert words(text)["input_ids"] == [START_IDS[0], *encode(text)]
    assert len(words) == len(WORDS)
    assert words.padding_side == "left"


def test_the_chat_template_takes_system_turns_and_past_answers() -> None:
    words = tokenizer()
    words.chat_template = CHAT_TEMPLATE
    turns = [
        {"role": "system", "content": "be short."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    assert words.apply_chat_template(turns, tokenize=False) == "be short. USER: <image>\nhi ASSISTANT: yes "


def test_a_question_in_a_pack_sees_only_the_start_and_itself() -> None:
    mask = attention_mask(torch.tensor([[1, 1, 2, 2, 0]]), start=3)[0, 0] == 0
    assert mask[4].tolist() == [True, True, True, True, True, False, False, False]
    assert mask[6].tolist() == [True, True, True, False, False, True, True, False]
    assert mask[1].tolist() == [True, True] + [False] * 6


def test_kept_tokens_know_their_siblings() -> None:
    kept = kept_of(torch.tensor([[0, SKY, 0, 3]]), torch.tensor([[0, SKY, 0, 3, 3, 0, 0]]))
    assert kept.bits.tolist() == [[1, 0, 1, 8]]
    assert kept.siblings.tolist() == [[2, 1, 2, 1]]
    assert kept.whole.tolist() == [[4, 1, 4, 2]]
    assert kept.earlier[0].nonzero().tolist() == [[2, 0]]
    assert kept.seen.tolist() == [9]


def test_choosing_tokens_keeps_the_number_and_prefers_things() -> None:
    rng = np.random.default_rng(0)
    owners = np.full((40, 256), SKY, dtype=np.uint8)
    owners[:, :64] = 1
    kept = choose_tokens(owners, 64, np.arange(40) < 20, rng)
    assert kept.shape == (40, 64)
    assert (np.diff(kept, axis=1) > 0).all()
    things = (kept < 64).mean(axis=1)
    assert things[:20].mean() > things[20:].mean() + 0.1


def test_guesses_about_unseen_things_earn_nothing(made: Path) -> None:
    """The answer loss leaves out questions whose things kept no token."""
    eyes, language, pictures = _parts(made)
    things = np.array(pictures.things[:1])
    asked = training_questions(np.random.default_rng(0), facts_of(things[0]), 10)
    batch = pack([asked], things, np.random.default_rng(0))
    background = (torch.from_numpy(np.array(pictures.owners[0])) >= SKY).nonzero().flatten()[:16]
    visual = torch.randn(1, 16, 192)
    owners = torch.from_numpy(np.array(pictures.owners[:1])).long()
    kept = kept_of(owners[:, background], owners)
    with torch.no_grad():
        thoughts, last, ends = run_pack(language, eyes.words, visual, batch)
        places = torch.from_numpy(things[..., 2:4])
        losses = language_losses(thoughts, (last, ends), batch, kept, places, Readouts())
        fair = batch.needed == 0
        expected = torch.nn.functional.cross_entropy(last[fair], batch.answer[fair])
    assert torch.equal(torch.nan_to_num(losses["answer"]), torch.nan_to_num(expected))


def test_both_parts_leave_their_results_and_the_second_goes_on_from_the_first(made: Path) -> None:
    for part, words in ((made, PLAIN_WORDS), (made / BLEND, WORDS)):
        for name in ("vision.pt", "eyes.pt", "tokens.bin", "language.pt", "salient.pt"):
            assert (part / name).exists()
        assert torch.load(part / "eyes.pt")["words"].shape == (len(words), 192)
        assert torch.load(part / "language.pt")["lm_head.weight"].shape == (len(words), 192)
    before, after = (torch.load(folder / "vision.pt")["words"][: len(PLAIN_WORDS)] for folder in (made, made / BLEND))
    assert 0 < (before - after).abs().max() < 0.02  # three small steps away


def test_a_run_that_broke_off_before_its_last_step_is_finished_when_run_again(made: Path) -> None:
    part = made / BLEND
    before = torch.load(part / "eyes.pt")
    (part / "eyes.pt").write_bytes((part / "vision.pt").read_bytes())  # as if [CLS] had not been taught where to look
    make(SMOKE, made)
    after = torch.load(part / "eyes.pt")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_new_words_come_behind_the_old_ones() -> None:
    assert WORDS[: len(PLAIN_WORDS)] == PLAIN_WORDS
    assert len(set(WORDS)) == len(WORDS)
    old, now = torch.zeros(3, 2), torch.ones(5, 2)
    assert grown({"table": old}, "table", now)["table"].tolist() == [[0, 0]] * 3 + [[1, 1]] * 2


def test_a_mirrored_number_has_its_strokes_on_the_other_side(made: Path) -> None:
    pictures = _parts(made)[2]
    index = int((pictures.strokes != 0).any(axis=(1, 2)).argmax())
    both = np.array([index, index])
    labels = batch_of(pictures, both, np.array([False, True]))[1]
    there, back = labels.strokes
    assert torch.equal(there.sum(0)[[0, 5, 4, 3, 2, 1, 6]], back.sum(0))
    rows = (labels.strokes != 0).any(-1).view(2, 16, 16)
    assert torch.equal(rows[0].flip(-1), rows[1])


def test_strokes_leave_the_digits_that_agree_with_them() -> None:
    full = dict.fromkeys(range(7), 50)
    eight = torch.tensor([list(full.values())])
    assert possible_digits(eight).nonzero().flatten().tolist() == [8]
    top_and_no_middle = torch.tensor([[40, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, -40]])
    assert possible_digits(top_and_no_middle).nonzero().flatten().tolist() == [0, 7]
    assert possible_digits(torch.tensor([[3, -3, 0, 0, 0, 0, 0]])).all()


def test_a_number_is_asked_for_only_where_the_kept_patches_decide_it() -> None:
    things = np.full((1, 12, FIELDS), -1, dtype=np.float32)
    things[0, 0] = (3, 0, 0.5, 0.5, 0.1, DIGITS[7])
    question = SceneQuestion(NUMBER, "what number is on the sign?", "7", frozenset({0}), 0)
    batch = pack([[question]], things, np.random.default_rng(0))
    strokes = torch.zeros(1, 3, 7, dtype=torch.int8)
    strokes[0, 0, :2], strokes[0, 1, 2] = 50, 50
    owners = torch.zeros(1, 3, dtype=torch.long)
    assert answerable(batch, kept_of(owners, owners, strokes)).tolist() == [False]  # 0, 3, 8 and 9 have them as well
    strokes[0, 2, 3:] = -50
    assert answerable(batch, kept_of(owners, owners, strokes)).tolist() == [True]
    assert answerable(batch, kept_of(owners.fill_(SKY), owners, strokes)).tolist() == [False]


def test_the_schedule_warms_up_and_decays() -> None:
    schedule = Schedule(steps=100, batch=4, warmup=10)
    assert schedule.rate_at(0) == pytest.approx(1e-4)
    assert schedule.rate_at(20) == 1e-3
    assert schedule.rate_at(99) < 1e-4


def test_one_flat_vector_trains_like_its_parts() -> None:
    torch.manual_seed(0)
    layer, schedule = torch.nn.Linear(3, 2), Schedule(steps=10, batch=1, warmup=1)
    copy = torch.nn.Linear(3, 2)
    copy.load_state_dict(layer.state_dict())
    optimizer = FlatOptimizer(layer.parameters(), schedule)
    plain = torch.optim.AdamW(copy.parameters(), lr=schedule.rate_at(0), betas=(0.9, 0.98), weight_decay=0.03)
    x = torch.randn(5, 3)
    optimizer.step(layer(x).square().mean(), 0)
    copy(x).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(copy.parameters(), 1.0)
    plain.step()
    assert torch.allclose(layer.weight, copy.weight, atol=1e-6)

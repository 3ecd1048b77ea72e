"""An explanation is of the answer that is given, with the tokens that it was given from, where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

import adafv
from adafv import pruners
from adafv.errors import InputError
from adafv.evidence import Evidence, Selection
from adafv.explanation import Explanation, Word
from adafv.pipeline import Pipeline
from adafv.pruners import Pruner
from adafv.request import Request
from adafv.words import words_of
from tests import tiny
from tests.conftest import noise

QUESTION = "what color is the sign?"
SIZES = [(56, 56), (640, 480), (480, 640), (333, 100), (100, 333), (61, 97), (800, 100), (100, 800), (40, 32)]


@pytest.fixture
def model(request: pytest.FixtureRequest) -> adafv.Model:
    found: adafv.Model = request.getfixturevalue(request.param)
    return found


BOTH = pytest.mark.parametrize("model", ["llava", "tiled"], indirect=True)


@BOTH
@pytest.mark.parametrize("settings", [
    dict(keep=5), dict(keep="30%", pruner="uniform"), dict(keep=4, pruner="random", seed=3), dict(keep="all"),
    dict(keep=6, positions="original", temperature=0.8, seed=7), dict(pruner="none"),
], ids=str)  # fmt: skip
def test_it_is_of_the_answer_that_ask_gives(model: adafv.Model, settings: dict[str, Any]) -> None:
    image = noise(150, 90)
    asked = model.ask(image, QUESTION, max_new_tokens=6, **settings)
    told = model.explain(image, QUESTION, max_new_tokens=6, **settings)
    assert replace(told.answer, latency_s=None) == replace(asked, latency_s=None)
    counts = told.answer.tokens
    assert counts is not None and counts.visual == len(told.tokens) == sum(map(len, told.layers))
    assert sum(token.kept for token in told.tokens) == counts.kept
    assert told.has_split == (counts.from_saliency is not None)
    if told.has_split:
        assert sum(bool(token.by_saliency) for token in told.tokens) == counts.from_saliency
        assert sum(bool(token.by_similarity) for token in told.tokens) == counts.from_similarity
    else:
        assert {token.by_saliency for token in told.tokens} == {None}


@BOTH
def test_the_selection_is_the_one_that_was_answered_with(model: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruner that never chooses the same twice would show it."""
    calls: list[list[int]] = []

    def select(evidence: Any, keep: int) -> Selection:
        calls.append(sorted(np.random.default_rng(len(calls)).permutation(evidence.lengths[0])[:keep].tolist()))
        return Selection(torch.tensor([calls[-1]]))

    monkeypatch.setattr(pruners, "get", lambda name: Pruner(select))
    told = model.explain(noise(150, 90), QUESTION, keep=5, max_new_tokens=2)
    assert calls == [[number for number, token in enumerate(told.tokens) if token.kept]]


@BOTH
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_tokens_of_a_layer_tile_what_it_shows(model: adafv.Model, size: tuple[int, int]) -> None:
    told = model.explain(noise(*size), QUESTION, keep=3, max_new_tokens=1)
    assert told.image.size == size
    for numbers, (rows, columns) in zip(told.layers, told.grids, strict=True):
        boxes = [told.tokens[number].box for number in numbers]
        grid = np.array([box or (np.nan,) * 4 for box in boxes]).reshape(rows, columns, 4)
        assert not np.isnan(grid).any()
        left, top, right, bottom = np.moveaxis(grid, -1, 0)
        assert (left < right).all() and (top < bottom).all()
        # The grid's order is the image's: each cell begins where the one before it ends, in rows that are straight.
        assert np.allclose(left[:, 1:], right[:, :-1]) and np.allclose(top[1:], bottom[:-1])
        assert np.allclose(left, left[:1]) and np.allclose(top, top[:, :1])
        assert left.min() >= 0 and top.min() >= 0 and right.max() <= size[0] and bottom.max() <= size[1]
    crops = {token.crop for token in told.tokens}
    assert crops <= set(range(len(told.crops)))


def test_a_layer_shows_all_but_a_strip(tiled: adafv.Model) -> None:
    """Unpadding drops whole tokens, so less than one on each side may be missing."""
    for size in SIZES:
        told = tiled.explain(noise(*size), QUESTION, keep=3, max_new_tokens=1)
        for numbers in told.layers:
            boxes = np.array([told.tokens[number].box for number in numbers])
            token = np.max(boxes[:, 2:] - boxes[:, :2], axis=0)
            assert (boxes[:, :2].min(axis=0) < token).all()
            assert (np.array(size) - boxes[:, 2:].max(axis=0) < token).all()


def test_the_middle_of_a_wide_image_is_all_that_llava_sees(llava: adafv.Model) -> None:
    told = llava.explain(noise(100, 50), QUESTION, keep=3, max_new_tokens=1)
    assert told.crops[0].frame.seen == pytest.approx((25, 0, 75, 50))
    assert told.tokens[0].box == pytest.approx((25, 0, 37.5, 12.5))


@BOTH
def test_scores_are_what_pruners_look_at(model: adafv.Model) -> None:
    told = model.explain(noise(150, 90), QUESTION, keep=7, pruner="saliency", max_new_tokens=1)
    salient = sorted(range(len(told.tokens)), key=lambda number: -told.tokens[number].saliency)
    kept = {number for number, token in enumerate(told.tokens) if token.kept}
    if len(told.crops) == 1:  # else every crop is heard
        assert kept == set(salient[:7])
    told = model.explain(noise(150, 90), QUESTION, keep=7, pruner="similarity", max_new_tokens=1)
    similar = sorted(range(len(told.tokens)), key=lambda number: -told.tokens[number].similarity)
    assert {number for number, token in enumerate(told.tokens) if token.kept} == set(similar[:7])
    best = max(told.tokens, key=lambda token: token.similarity)
    assert told.words[best.word].similarity == pytest.approx(best.similarity)
    assert max(word.similarity for word in told.words) == pytest.approx(best.similarity)


@BOTH
def test_a_word_is_as_similar_as_its_best_token(model: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Sequence[int], list[float]]] = []
    scores = Pipeline.scores

    def listen(self: Pipeline, request: Request) -> Evidence:
        evidence = scores(self, request)
        seen.append((request.prompt.after, evidence.similarity[0].amax(dim=1).tolist()))
        return evidence

    monkeypatch.setattr(Pipeline, "scores", listen)
    told = model.explain(noise(150, 90), "how many zebras are grazing peacefully?", keep=7, max_new_tokens=1)
    ((ids, reached),) = seen
    _, owners = words_of(tiny.tokenizer(), ids)
    pieces: list[list[float]] = [[] for _ in told.words]
    for owner, score in zip(owners, reached, strict=True):
        pieces[owner].append(score)
    assert [word.similarity for word in told.words] == list(map(max, pieces))
    assert any(max(piece) not in (piece[0], piece[-1]) for piece in pieces)  # neither the first nor the last


@BOTH
def test_crops_are_the_pixels_of_the_image(model: adafv.Model) -> None:
    image = noise(240, 160)
    for crop in model.explain(image, QUESTION, keep=3, max_new_tokens=1).crops:
        frame = crop.frame
        left, top, right, bottom = frame.seen
        inside = (
            round((left - frame.left) / frame.across), round((top - frame.top) / frame.down),
            round((right - frame.left) / frame.across), round((bottom - frame.top) / frame.down),
        )  # fmt: skip
        picture = crop.picture.crop(inside)
        wanted = image.resize(picture.size, Image.Resampling.BICUBIC, box=frame.seen)
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(wanted)).mean() < 3


def test_exif_orientation_is_undone(llava: adafv.Model, tmp_path: Path) -> None:
    image = noise(100, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright = llava.explain(image, QUESTION, keep=3, max_new_tokens=1)
    turned = llava.explain(str(tmp_path / "turned.png"), QUESTION, keep=3, max_new_tokens=1)
    assert turned.image.size == (100, 50)
    assert turned.tokens == upright.tokens


def test_json_has_one_entry_for_each_token(tiled: adafv.Model) -> None:
    told = tiled.explain(noise(150, 90), QUESTION, keep=7, max_new_tokens=2)
    line = json.loads(json.dumps(told.to_json(), allow_nan=False))
    plain = told.answer.to_json()
    plain["image"] |= {"width": 150, "height": 90}
    assert {key: line[key] for key in plain} == plain
    assert list(line)[len(plain) :] == ["crops", "grids", "words", "visual_tokens"]
    assert list(line["visual_tokens"]) == [
        "crop", "cell", "box", "saliency", "similarity", "word", "kept", "by_saliency", "by_similarity",
        "into", "share",
    ]  # fmt: skip
    assert {len(values) for values in line["visual_tokens"].values()} == {len(told.tokens)}
    assert len(line["crops"]) == len(told.crops) and sum(r * c for r, c in line["grids"]) == len(told.tokens)


def test_comparing_is_left_to_ask(llava: adafv.Model) -> None:
    with pytest.raises(InputError, match="compare"):
        llava.explain(noise(60, 60), QUESTION, compare=True)


def own(told: Explanation) -> list[str]:
    return [word.text for word in told.words if word.own]


@BOTH
def test_words_are_whole(model: adafv.Model) -> None:
    image = noise(60, 60)
    assert own(model.explain(image, "what color is the sign?", keep=3, max_new_tokens=1)) == [
        "what", "color", "is", "the", "sign", "?",
    ]  # fmt: skip
    asked = "how many zebras, Ünal? 你好 😀\nAnswer the question using a single word or phrase."
    found = own(model.explain(image, asked, keep=3, max_new_tokens=1))
    assert found == ["how", "many", "zebras", ",", "Ünal", "?", "你", "好", "😀"]


def test_words_of_the_template_are_not_the_question_s(llava: adafv.Model) -> None:
    told = llava.explain(noise(60, 60), QUESTION, keep=3, max_new_tokens=1)
    assert "ASSISTANT" in [word.text for word in told.words if not word.own]
    assert told.words[0] == Word("\\n", False, told.words[0].similarity)


def test_words_of_pieces_that_carry_their_space_with_a_mark() -> None:
    """As SentencePiece does, Llama's for one; what is in no vocabulary comes in bytes."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    pieces = ("\u2581", "\u2581what", "\u2581si", "gn", "age", "?", "\u2581is", "\u2581a")
    vocabulary |= {piece: 256 + number for number, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    umlaut = [vocabulary["\u2581"], *"\u00fc".encode()]
    ids = [vocabulary[piece] for piece in ("\u2581what", "\u2581si", "gn", "age", "?")] + umlaut + [vocabulary["gn"]]
    texts, owners = words_of(tokenizer, ids)
    assert texts == ["what", "signage", "?", "\u00fcgn"]
    assert owners == [0, 1, 1, 1, 2, 3, 3, 3, 3]


def test_no_words_of_no_tokens() -> None:
    assert words_of(tiny.tokenizer(), []) == ([], [])

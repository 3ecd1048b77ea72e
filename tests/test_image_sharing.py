"""Questions about one image share what is the same for all of them, and choose what they would choose alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

import adafv
from adafv import Question, pruners
from adafv.errors import InputError
from adafv.evidence import Evidence, Selection
from adafv.pruners import greedy
from adafv.signals import gathering
from adafv.signals.gathering import gather_evidence
from tests.conftest import noise
from tests.pruner_cases import READS, draw, encoding

TEXTS = ("what color is the sign?", "what?", "is there a red car?")


def evidence_of(images: list[adafv.encoding.ImageEncoding], seed: int) -> Evidence:
    """With words and seeds of their own for each image."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [2 + (seed + row) % 4 for row in range(len(images))]
    texts = [torch.randn(length, images[0].tokens.shape[1], generator=generator) for length in lengths]
    return gather_evidence(images, texts, [(0, 1)] * len(images), [seed + row for row in range(len(images))], READS)


def images_of(seed: int) -> tuple[list[adafv.encoding.ImageEncoding], list[adafv.encoding.ImageEncoding]]:
    """Five questions about two images: each image an object, and each question's own copy of it."""
    rng = random.Random(seed)
    first, second = (encoding(draw(rng, kind="plain")) for _ in range(2))
    shared = [first, second, first, first, second]
    return shared, [replace(image) for image in shared]


@pytest.mark.parametrize("seed", range(6))
def test_evidence_of_a_shared_image_is_that_of_copies_to_the_bit(seed: int) -> None:
    shared, copies = images_of(seed)
    found, wanted = evidence_of(shared, seed), evidence_of(copies, seed)
    for name in ("cosine", "similarity", "question_mask", "saliency", "tokens", "features", "keys", "valid"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


@pytest.mark.parametrize("name", [name for name in pruners.BUILT_IN if name != "none"])
@pytest.mark.parametrize("seed", range(4))
def test_every_pruner_chooses_alike_whether_cosines_are_shared_or_not(name: str, seed: int) -> None:
    shared, copies = images_of(seed)
    keep = random.Random(seed).randint(1, min(image.visual for image in shared))
    found, wanted = (pruners.get(name)(evidence_of(images, seed), keep) for images in (shared, copies))
    again = pruners.get(name)(evidence_of(shared, seed), keep)
    for one in (found, again):
        assert torch.equal(one.indices, wanted.indices)


def test_cosines_are_multiplied_once_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied, gram = [], greedy._gram
    monkeypatch.setattr(greedy, "_gram", lambda rows, out: (multiplied.append(len(out)), gram(rows, out)))
    shared, copies = images_of(1)
    for name in ("cdpruner", "mmtok"):
        for images, times in ((shared, 2), (shared, 0), (copies, 5)):
            multiplied.clear()
            pruners.get(name)(evidence_of(images, 1), 1)
            assert len(multiplied) == times, (name, times)
    assert all(set(image.cosines) == {"tokens", "features"} for image in shared)
    assert not any(image.cosines for image in copies)  # one question each: nothing is held for others


def test_visual_tokens_are_normalised_once_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, unit = [], gathering.padded_unit_rows
    monkeypatch.setattr(gathering, "padded_unit_rows", lambda rows: (lengths.append(len(rows)), unit(rows))[1])
    shared, _ = images_of(2)
    evidence_of(shared, 2)
    assert lengths == [shared[0].visual, shared[1].visual]


@pytest.mark.parametrize("name", [name for name in pruners.BUILT_IN if name != "none"])
def test_who_goes_by_the_image_alone_ignores_words_and_seeds(name: str) -> None:
    """And who does not, does not: on some image, other words or another seed give other tokens."""
    differ = False
    for seed in range(20):
        image = encoding(draw(random.Random(seed), grids=((3, 7),), kind="plain"))
        first, second = pruners.get(name)(evidence_of([image, image], 7 * seed), 6).indices
        differ |= not torch.equal(first, second)
    assert differ is not pruners.get(name).by_image


def test_a_pruner_that_reads_text_cannot_go_by_the_image_alone() -> None:
    with pytest.raises(InputError, match="reads text, and goes by the image alone"):
        pruners.Pruner(lambda evidence, keep: Selection(evidence.crop[:, :keep]), frozenset({"text"}), by_image=True)


@pytest.mark.parametrize("name", ["saliency", "pool", "adafv"])
def test_what_is_chosen_once_is_charged_once_and_a_stream_lets_go(llava: adafv.Model, name: str) -> None:
    rows, pruner = [], pruners.get(name)

    def select(evidence: Evidence, keep: int) -> Selection:
        rows.append(len(evidence.lengths))
        return pruner.select(evidence, keep)

    picture, encoded = noise(60, 60), []
    asked = [Question(number, picture, text) for number, text in enumerate(TEXTS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruners, "get", lambda _: replace(pruner, select=select))
        begin = llava.pipeline.begin
        patch.setattr(llava.pipeline, "begin", lambda some, *rest: (encoded.extend(some), begin(some, *rest))[1])
        together = list(llava.batch(asked, keep=5, pruner=name, batch_size=3, max_new_tokens=3))
    alone = [llava.ask(picture, text, keep=5, pruner=name, max_new_tokens=3) for text in TEXTS]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert rows == [1 if pruner.by_image else 3]
    charged = [one.flops.score for one in together if one.flops]
    wanted = [one.flops.score for one in alone if one.flops]
    assert charged == ([wanted[0], 0, 0] if pruner.by_image else wanted)
    assert not any(request.image.cosines for request in encoded)

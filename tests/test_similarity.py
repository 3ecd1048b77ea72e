"""Text-to-image similarity: the published formula, of the words behind the image, over all crops of each image."""

from __future__ import annotations

import pytest
import torch

import adafv
from adafv import Question, choosing
from adafv.evidence import Evidence
from adafv.signals.similarity import cosines, padded_unit_rows, text_to_image
from tests import tiny
from tests.conftest import noise
from tests.stock import encoded


def plain(text: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """`softmax over i of 100 * cos(e_j, v_i)`, in double precision."""
    e, v = text.double(), visual.double()
    cosine = (e @ v.T) / (e.norm(dim=1)[:, None] * v.norm(dim=1)[None])
    shares = (100 * (cosine - cosine.amax(dim=1, keepdim=True))).exp()
    return shares / shares.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_formula_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    text, visual = (3 * torch.randn(n, 40, generator=generator).to(dtype) for n in (7, 60))
    similarity = text_to_image(cosines(text, padded_unit_rows(visual))[:, : len(visual)])
    assert similarity.dtype is torch.float32
    assert (similarity - plain(text, visual)).abs().max() < 1e-5


@pytest.mark.parametrize("width", [2, 9, 48, 100])
def test_equal_tokens_are_equally_similar_to_the_bit(width: int) -> None:
    """So that their ties are settled by place, and not by where a kernel's odd rows begin."""
    generator = torch.Generator().manual_seed(1)
    for visual in (*range(1, 40), 576):
        for texts in (1, 2, 5, 17):
            text, token = torch.randn(texts, width, generator=generator), torch.randn(1, width, generator=generator)
            found = cosines(text, padded_unit_rows(token.expand(visual, -1)))[:, :visual]
            assert (found == found[:, :1]).all()


def test_vectors_without_length_are_like_nothing() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-30, 0.0]])
    assert torch.equal(padded_unit_rows(rows)[:3], torch.tensor([[0.0, 0.0], [0.6, 0.8], [1e-18, 0.0]]))
    assert padded_unit_rows(rows).shape == (16, 2) and not padded_unit_rows(rows)[3:].any()
    assert not cosines(rows[:1], padded_unit_rows(rows)).any()


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_the_words_behind_the_image_against_all_its_crops(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tiny.save(kind, tmp_path_factory.mktemp(kind))
    model = adafv.load(str(folder), dtype="float32", device_map="cpu")
    gathered: list[Evidence] = []
    gather = choosing.gather_evidence

    def spy(*parts: object) -> Evidence:
        gathered.append(gather(*parts))  # type: ignore[arg-type]
        return gathered[-1]

    monkeypatch.setattr(choosing, "gather_evidence", spy)
    asked = [Question(0, noise(60, 60), "what?"), Question(1, noise(130, 60, seed=1), "is there a red car?")]
    list(model.batch(asked, keep=5, batch_size=2, max_new_tokens=1))
    (evidence,) = gathered
    embed = model._checkpoint.model.get_input_embeddings()
    for question in asked:
        (encoding,) = encoded(model, question.image)
        words = embed(torch.tensor(model._prompter.prompt(question.text).after))
        wanted = plain(words, encoding.packed[encoding.candidates])
        (row,) = (i for i, length in enumerate(evidence.similarity.any(2).sum(1).tolist()) if length == len(words))
        similarity = evidence.similarity[row]
        assert (similarity[: len(words), : encoding.visual] - wanted).abs().max() < 1e-5
        assert not similarity[len(words) :].any() and not similarity[:, encoding.visual :].any()
        assert (evidence.relevance[row, : encoding.visual] - wanted.amax(dim=0)).abs().max() < 1e-5

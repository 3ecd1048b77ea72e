"""The vision stage: saliency is the map's own row, images do not mix, and processor files of any age are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv.errors import CheckpointError
from adafv.signals import saliency
from tests import published, tiny
from tests.conftest import noise
from tests.stock import Stock, encoded

QUESTION = "what color is the sign?"
TEXT = f"USER: <image>\n{QUESTION} ASSISTANT:"
SIZES = [(56, 56), (90, 40), (40, 200), (130, 120)]


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_saliency_is_the_cls_row_of_the_whole_map(tmp_path: Path, kind: str) -> None:
    """Per crop, over all keys, without renormalising; the crops of several images in one call do not mix."""
    tiny.save(kind, tmp_path)
    model, stock = adafv.load(str(tmp_path), dtype="float32", device_map="cpu"), Stock.load(tmp_path)
    images = [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]
    for image, together in zip(images, encoded(model, *images), strict=True):
        (alone,) = encoded(model, image)
        assert (alone.packed - together.packed).abs().max() < 5e-6
        assert (alone.saliency - together.saliency).abs().max() < 1e-7
        for name in ("candidates", "crop"):
            assert torch.equal(getattr(alone, name), getattr(together, name))
        assert (alone.grids, alone.crops) == (together.grids, together.crops)
        wanted = stock.saliency(image, TEXT, 2)
        assert wanted.shape[0] == alone.crops
        for crop in range(alone.crops):  # which patch of a tile is which candidate is tested elsewhere
            far = alone.saliency[alone.crop == crop][:, None] - wanted[crop]
            assert not len(far) or far.abs().amin(dim=1).max() < 1e-7
        assert (alone.saliency[: tiny.PATCHES] - wanted[0]).abs().max() < 1e-6
        assert 0.5 < float(wanted.sum(dim=1).max()) < 1


def test_attention_received_is_the_same_a_few_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over heads and queries of the whole map, which is never held: a row sums to one."""
    rng = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(3, 25, 32, generator=rng) for _ in range(2))
    whole = torch.einsum("cqhd,ckhd->chqk", *(part.view(3, 25, 4, 8) for part in (queries, keys)))
    wanted = (0.5 * whole).softmax(dim=-1).mean(dim=(1, 2))
    assert wanted.std() > 0.002
    for at_once in (2**24, 7 * 4 * 25, 1):
        monkeypatch.setattr(saliency, "_AT_ONCE", at_once)
        received = saliency.received_attention(queries, keys, heads=4, scale=0.5)
        assert (received - wanted).abs().max() < 1e-6
    assert (received.sum(dim=1) - 1).abs().max() < 1e-6


def rewrite(folder: Path, preprocessor: dict[str, Any], processor: dict[str, Any] | None) -> None:
    """Replace the processor files by published ones, in this checkpoint's size."""
    side = {"height": tiny.IMAGE, "width": tiny.IMAGE}
    own = preprocessor | {"size": {"shortest_edge": tiny.IMAGE}, "crop_size": side}
    if "image_grid_pinpoints" in own:
        own["image_grid_pinpoints"] = [[tiny.IMAGE * rows, tiny.IMAGE * columns] for rows, columns in tiny.GRIDS]
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    if processor:
        (folder / "processor_config.json").write_text(json.dumps(processor))


FILES = [
    ("llava", published.CLIP_PREPROCESSOR, published.PROCESSOR),
    ("llava", published.CLIP_OLD, published.PROCESSOR_OLD),
    ("llava", published.CLIP_OLDER, None),
    ("llava", published.CLIP_EXPORTED, None),
    ("llava_next", published.NEXT_PREPROCESSOR, published.NEXT_PROCESSOR),
    ("llava_next", published.NEXT_OLD, published.NEXT_PROCESSOR_OLD),
    ("llava_next", published.NEXT_FIRST, None),
]


@pytest.mark.parametrize(("kind", "preprocessor", "processor"), FILES, ids=[str(i) for i in range(len(FILES))])
def test_processor_files_of_any_age_give_the_same_prompt_and_tokens(
    tmp_path: Path, kind: str, preprocessor: dict[str, Any], processor: dict[str, Any] | None
) -> None:
    tiny.save(kind, tmp_path)
    new = adafv.load(str(tmp_path), dtype="float32", device_map="cpu")
    rewrite(tmp_path, preprocessor, processor)
    old = adafv.load(str(tmp_path), dtype="float32", device_map="cpu")
    assert old._prompter.prompt(QUESTION) == new._prompter.prompt(QUESTION)
    assert new._prompter.prompt(QUESTION).text == TEXT
    (one,), (other,) = encoded(old, noise(90, 40)), encoded(new, noise(90, 40))
    assert torch.equal(one.packed, other.packed) and torch.equal(one.candidates, other.candidates)
    assert one.visual % tiny.PATCHES == 0 or kind == "llava_next"


def test_a_processor_of_another_size_is_refused(tmp_path: Path) -> None:
    tiny.save("llava", tmp_path)
    rewrite(tmp_path, published.CLIP_PREPROCESSOR, published.PROCESSOR)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    content |= {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"crop_size.height .* is 28, not 56: the model takes crops"):
        encoded(adafv.load(str(tmp_path), dtype="float32", device_map="cpu"), noise(60, 60))

"""What is measured: a model by our engine and by transformers' own `generate`, and what both are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from adafv.bench.geometries import Geometry
from adafv.bench.random_weights import build, weight_bytes
from adafv.costs.accounting import Accountant
from adafv.engine import Model
from adafv.errors import InputError
from adafv.families.tower import layers_that_run
from adafv.images import open_image
from adafv.loading.checkpoint import load_checkpoint
from adafv.records import Question
from adafv.settings import LoadSettings, RunSettings

QUESTION = "what color is the sign behind the big house?"
_SMALL = (8, 6)  # pixels that a drawn picture is stretched from, so that neighbours are alike


@dataclass(frozen=True)
class Subject:
    """A model, and pictures for it.

    Args:
        name: of the geometry or the checkpoint.
        model: ours.
        processor: of transformers, for the same weights.
        pictures: that are asked about.
        keeps: budgets that suit it.
    """

    name: str
    model: Model
    processor: Any
    pictures: Sequence[Image.Image]
    keeps: tuple[int, ...]

    @classmethod
    def random(
        cls, shape: Geometry, dtype: torch.dtype, device: torch.device, attention: str, pictures: int
    ) -> Subject:
        """Build a model of random weights; raises as `random_weights.build`."""
        model, processor = build(shape, dtype, device, attention)
        return cls(shape.name, model, processor, [drawn(shape.picture, seed) for seed in range(pictures)], shape.keeps)

    @classmethod
    def loaded(cls, settings: LoadSettings, images: Sequence[Any], pictures: int) -> Subject:
        """Load a checkpoint.

        Args:
            settings: which, and where its weights go.
            images: to ask about.
            pictures: that are needed; images are used again with a corner changed, so that each is another one.

        Raises:
            InputError: no image.
            ImageError, CheckpointError, DeviceError: one that cannot be used.
        """
        if not images:
            what = f"bench: no image to ask {settings.model} about"
            raise InputError(what, "give an image, or a --geometry instead of --model: it draws its own")
        opened = [open_image(image) for image in images]
        checkpoint = load_checkpoint(settings)
        used = [_marked(opened[number % len(opened)], number // len(opened)) for number in range(pictures)]
        model = Model(checkpoint)
        visual = model.encode(used[0])[0].visual
        keeps = tuple(max(1, round(visual * share)) for share in (0.25, 0.125, 0.06))
        return cls(settings.model, model, checkpoint.processor, used, keeps)

    @property
    def stock(self) -> Any:
        """The model of transformers: the same weights, and no code of ours in its way."""
        return self.model.pipeline.model

    @property
    def devices(self) -> list[torch.device]:
        """Where its weights are."""
        return self.model.pipeline.devices

    @property
    def dtype(self) -> str:
        """Of its weights."""
        return str(self.stock.dtype).removeprefix("torch.")

    @property
    def accountant(self) -> Accountant:
        """Counts what its answers cost."""
        config = self.stock.config
        return Accountant.of(config, layers_that_run(config), self.stock.dtype.itemsize)

    @property
    def vision_bytes(self) -> int:
        """Weights of the vision tower and the projector."""
        return weight_bytes(self.stock.model.vision_tower) + weight_bytes(self.stock.model.multi_modal_projector)

    @property
    def text_bytes(self) -> int:
        """Weights of the language model, without the table of embeddings, of which a prompt reads a few rows."""
        table = weight_bytes(self.stock.get_input_embeddings())
        return weight_bytes(self.stock.model.language_model) - table + weight_bytes(self.stock.lm_head)

    def questions(self, count: int, per_picture: int) -> list[Question]:
        """Ask `count` questions, `per_picture` about each picture.

        Their lengths differ a little, as real ones do, and no two about a picture are the same.
        """
        words, asked = QUESTION.split(), []
        for number in range(count):
            picture, place = divmod(number, per_picture)
            text = words[number % 4 :] + [str(place // 4)] * (place >= 4)
            asked.append(Question(number, self.pictures[picture % len(self.pictures)], " ".join(text)))
        return asked

    def prompt(self, question: Question) -> str:
        """Render a question as both sides are asked it."""
        content = [{"type": "image"}, {"type": "text", "text": question.text}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text

    def run_settings(self, keep: int | str, new_tokens: int, pruner: str = "adafv") -> RunSettings:
        """Say how our side answers."""
        return RunSettings(keep=keep, pruner=pruner, max_new_tokens=new_tokens)


def drawn(size: tuple[int, int], seed: int) -> Image.Image:
    """Draw a picture of smooth random colours, (width, height)."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (_SMALL[0] * _SMALL[1] * 3,), dtype=torch.uint8, generator=generator)
    return Image.frombytes("RGB", _SMALL, bytes(values.tolist())).resize(size, Image.Resampling.BICUBIC)


def _marked(picture: Image.Image, number: int) -> Image.Image:
    if not number:
        return picture
    copy = picture.copy()
    copy.putpixel((0, 0), (number % 256, number // 256 % 256, 0))
    return copy

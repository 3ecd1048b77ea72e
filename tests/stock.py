"""The same checkpoint in stock transformers: what an unpruned answer must equal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, LlavaOnevisionProcessor

import adafv
from adafv.encoding import ImageEncoding
from adafv.evidence import Evidence
from adafv.families import family_of
from adafv.loading.processing import load_processor
from adafv.pipeline import Outcome
from adafv.pruners import READABLE
from adafv.records import Question
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.signals.gathering import gather_evidence
from adafv.timing import Stopwatch
from tests.spying import listening


@dataclass(frozen=True)
class Stock:
    """Model and processor, uncut, with the processor fields that old files lack."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path) -> Stock:
        config = AutoConfig.from_pretrained(folder)
        processor = load_processor(str(folder), family_of(config), {})
        strategy = getattr(config, "vision_feature_select_strategy", "default")
        processor.patch_size, processor.vision_feature_select_strategy = 14, strategy
        processor.num_additional_image_tokens = int(strategy == "default")
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
        return cls(model.eval(), processor)

    def inputs(self, image: Image.Image, text: str) -> Any:
        if self.model.config.model_type != "llava_onevision":
            return self.processor(images=image, text=text, return_tensors="pt")
        config, images, words = self.model.config, self.processor.image_processor, self.processor.tokenizer
        pixels, image_token = (
            images(images=image, return_tensors="pt"),
            words.convert_ids_to_tokens(config.image_token_id),
        )
        count = onevision_tokens(config, images, *image.size)
        repeated = words(text.replace(image_token, image_token * count), return_tensors="pt")
        return {"pixel_values": pixels["pixel_values"], "image_sizes": pixels["image_sizes"], **repeated}

    @torch.inference_mode()
    def logits(self, image: Image.Image, text: str) -> torch.Tensor:
        """(1, vocabulary): of the first generated token."""
        logits: torch.Tensor = self.model(**self.inputs(image, text), logits_to_keep=1).logits[:, -1]
        return logits

    @torch.inference_mode()
    def generated(self, image: Image.Image, text: str, tokens: int) -> list[int]:
        """Greedy token ids."""
        inputs = self.inputs(image, text)
        rows = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        ids: list[int] = rows[0, inputs["input_ids"].shape[1] :].tolist()
        return ids

    @torch.inference_mode()
    def visual(self, image: Image.Image, text: str) -> torch.Tensor:
        """(P, D): the visual tokens as the language model takes them."""
        inputs = {
            key: value for key, value in self.inputs(image, text).items() if key in ("pixel_values", "image_sizes")
        }
        features: torch.Tensor = self.model.get_image_features(**inputs).pooler_output[0]
        return features

    @torch.inference_mode()
    def saliency(self, image: Image.Image, text: str, layer: int) -> torch.Tensor:
        """(crops, P): from the whole attention map of the `layer`-th layer, of [CLS] or of what all patches give."""
        tower = self.model.model.vision_tower
        tower.set_attn_implementation("eager")
        values = self.inputs(image, text)["pixel_values"]
        maps = tower(values.reshape(-1, *values.shape[-3:]), output_attentions=True).attentions
        whole = maps[layer - 1].mean(dim=1)
        has_cls = self.model.config.vision_config.model_type == "clip_vision_model"
        attention: torch.Tensor = whole[:, 0, 1:] if has_cls else whole.mean(dim=1)
        return attention


def onevision_tokens(config: Any, images: Any, width: int, height: int) -> int:
    """Placeholders that transformers' own processor of LLaVA-OneVision repeats for an image."""
    whole = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)  # making one needs torchvision, for videos
    whole.image_processor, whole.vision_aspect_ratio = images, config.vision_aspect_ratio
    whole.num_image_tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return int(whole._get_number_of_features(height, width, *2 * (config.vision_config.image_size,)))


def encoded(model: adafv.Model, *images: Image.Image) -> list[ImageEncoding]:
    """All images in one call."""
    pipeline = model.pipeline
    return pipeline.encode([pipeline.preprocess(image) for image in images], Stopwatch(()))


def evidence(encoding: ImageEncoding, text: torch.Tensor | None = None) -> Evidence:
    """Of one image alone; `text` (T, D) is what similarity looks at."""
    words = encoding.packed[:0] if text is None else text
    return gather_evidence([encoding], [words], [(0, len(words))], [0], READABLE - {"keys"})


def run(model: adafv.Model, *asked: tuple[Image.Image, str], **settings: Any) -> tuple[torch.Tensor, list[Outcome]]:
    """(B, vocabulary) logits of the first generated tokens, and what became of each question, all in one batch."""
    requests = [
        Request(Question(0, image, question), model._prompter.prompt(question), encoded(model, image)[0])
        for image, question in asked
    ]
    with listening(model) as heard:
        outcomes = model.pipeline.run(requests, RunSettings(**settings), Stopwatch(()))
    return heard.logits[0], outcomes

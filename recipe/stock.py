"""The released checkpoint as stock transformers loads and runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

Picture = Image.Image


@dataclass(frozen=True)
class Stock:
    """The checkpoint as stock transformers loads it."""

    processor: Any
    model: Any

    @classmethod
    def load(cls, folder: Path) -> Stock:
        """In float32 with eager attention, whose probabilities can be read."""
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        return cls(AutoProcessor.from_pretrained(folder), model.eval())

    def inputs(self, picture: Picture, question: str) -> Any:
        """Processor output of the chat template's prompt."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return self.processor(images=picture, text=prompt, return_tensors="pt")

    @torch.no_grad()
    def answer(self, picture: Picture, question: str) -> str:
        """Greedy answer by `generate`."""
        inputs = self.inputs(picture, question)
        output = self.model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.decode(output, skip_special_tokens=True)).strip()

    def answer_without(self, picture: Picture, question: str, removed: Tensor) -> str:
        """Greedy answer with some visual tokens, (patches,) bool, taken out of the prompt."""
        return self.answer_from(picture, question, (~removed).nonzero().flatten())

    @torch.no_grad()
    def answer_from(self, picture: Picture, question: str, patches: Tensor) -> str:
        """Greedy answer to a prompt that has the visual tokens of these patches (n,), in this order."""
        inputs = self.inputs(picture, question)
        ids = inputs["input_ids"][0]
        embedded = self.model.get_input_embeddings()(ids)
        places = (ids == self.model.config.image_token_id).nonzero().flatten()
        visual = self.visual_tokens(inputs["pixel_values"])[patches]
        prompt = torch.cat([embedded[: places[0]], visual, embedded[places[-1] + 1 :]])[None]
        mask = torch.ones(prompt.shape[:2], dtype=torch.long)
        output = self.model.generate(inputs_embeds=prompt, attention_mask=mask)[0]
        return str(self.processor.decode(output, skip_special_tokens=True)).strip()

    def visual_tokens(self, pixels: Tensor) -> Tensor:
        """Projected patch features (patches, hidden)."""
        features = self.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
        tokens: Tensor = self.model.model.multi_modal_projector(features[:, 1:])[0]
        return tokens

    @torch.no_grad()
    def saliency(self, picture: Picture) -> Tensor:
        """[CLS] attention of the selected layer, mean over heads, (patches,)."""
        pixels = self.inputs(picture, "what is this?")["pixel_values"]
        attentions = self.model.model.vision_tower(pixels, output_attentions=True).attentions
        row: Tensor = attentions[-2][0, :, 0, 1:].mean(0)
        return row

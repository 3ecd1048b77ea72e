"""Measure what the released checkpoint has to pass: `python -m adafv.demo.gates --out gates.json`.

1 knows, 4 survives use, and the dense half of 5: through the library's engine. 2 own information, 3 saliency, and the
stock half of 5: through stock transformers.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

import adafv
from adafv.demo import CHECKPOINT
from adafv.demo.dataset import TOUCHED
from adafv.demo.drawing import SIDE, coverage, render
from adafv.demo.evaluation import Probe, pictures, probes, right_answers, scene_of, share, shares_by
from adafv.engine import Model

log = logging.getLogger(__name__)

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

    @torch.no_grad()
    def answer_without(self, picture: Picture, question: str, removed: Tensor) -> str:
        """Greedy answer with some visual tokens, (patches,) bool, taken out of the prompt."""
        inputs = self.inputs(picture, question)
        ids = inputs["input_ids"][0]
        embedded = self.model.get_input_embeddings()(ids)
        place = ids == self.model.config.image_token_id
        embedded[place] = self.visual_tokens(inputs["pixel_values"])
        gone = torch.zeros_like(place)
        gone[place.nonzero().flatten()[removed]] = True
        prompt = embedded[~gone][None]
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


def knows(model: Model, asked: Sequence[Probe]) -> dict[str, Any]:
    """Gate 1: dense accuracy, all and by kind."""
    right = right_answers(model, asked, pictures(asked), "all", "none")
    return {name: [s.percent, s.error, s.count] for name, s in shares_by(right, asked, "kind").items()}


def own_information(stock: Stock, asked: Sequence[Probe]) -> dict[str, Any]:
    """Gate 2: "what color is X?" with X's patches gone, and with their fringe gone too; chance is 12.5."""
    colour = [probe for probe in asked if probe.kind == "color"]
    shown = pictures(colour)
    result = {}
    for name, least in (("all patches", 2.0), ("without object", 0.2), ("without object and fringe", TOUCHED)):
        right = []
        for probe in colour:
            removed = torch.from_numpy(coverage(scene_of(probe))[probe.asked] >= least)
            right.append(stock.answer_without(shown[probe.scene], probe.text, removed) == probe.answer)
        result[name] = {k: [s.percent, s.error, s.count] for k, s in shares_by(right, colour, "size").items()}
    return result


def saliency_bias(stock: Stock, asked: Sequence[Probe], most: int = 150) -> dict[str, float]:
    """Gate 3: how the saliency of big and small things differs.

    As multiples of the picture's mean, patch by patch, and as the share of things that have one of the 16 most
    salient patches.
    """
    ratios: dict[str, list[float]] = {"big": [], "small": [], "background": []}
    kept: dict[str, list[bool]] = {"big": [], "small": []}
    scenes = {probe.scene: scene_of(probe) for probe in asked}
    for scene in list(scenes.values())[:most]:
        saliency = stock.saliency(render(scene)).numpy()
        relative, top = saliency / saliency.mean(), saliency >= np.sort(saliency)[-16]
        shares = coverage(scene)
        for thing, covered in zip(scene.things, shares >= 0.2, strict=True):
            longer = max(thing.width, thing.height) * SIDE
            size = "big" if longer >= 50 else "small" if longer < 26 else None
            if size and covered.any():
                ratios[size] += relative[covered].tolist()
                kept[size].append(bool(top[covered].any()))
        ratios["background"] += relative[shares.max(axis=0) < TOUCHED].tolist()
    means = {name: float(np.mean(values)) for name, values in ratios.items()}
    return means | {f"{name} kept at 16": 100 * float(np.mean(values)) for name, values in kept.items()}


def _jpeg(picture: Picture) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def _upscaled(picture: Picture) -> Picture:
    return picture.resize((3 * SIDE, 3 * SIDE), Image.Resampling.BICUBIC)


def _wide(picture: Picture) -> Picture:
    """Bars left and right: the processor's centre crop takes them off again."""
    canvas = Image.new("RGB", (SIDE * 16 // 9, SIDE))
    canvas.paste(picture, ((canvas.width - SIDE) // 2, 0))
    return canvas


def _framed(picture: Picture) -> Picture:
    """Bars all around: things become a sixth smaller."""
    inner = picture.resize((SIDE * 5 // 6,) * 2, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE, SIDE))
    canvas.paste(inner, ((SIDE - inner.width) // 2,) * 2)
    return canvas


USES: dict[str, Callable[[Picture], Picture]] = {
    "as drawn": lambda picture: picture,
    "upscaled 3x": _upscaled,
    "JPEG quality 60": _jpeg,
    "letterboxed to 16:9": _wide,
    "framed at 5/6": _framed,
}


def survives_use(model: Model, asked: Sequence[Probe]) -> dict[str, list[float]]:
    """Gate 4: dense accuracy after what happens to pictures."""
    shown, result = pictures(asked), {}
    for name, change in USES.items():
        right = right_answers(model, asked, {k: change(picture) for k, picture in shown.items()}, "all", "none")
        all_shares = share(right, [probe.scene for probe in asked])
        result[name] = [all_shares.percent, all_shares.error]
        log.info("%s: %s", name, all_shares)
    return result


def agrees(stock: Stock, model: Model, asked: Sequence[Probe]) -> dict[str, float]:
    """Gate 5: stock `generate` and the engine give the same text, and it is as often right."""
    shown = pictures(asked)
    questions = [adafv.Question(probe.number, shown[probe.scene], probe.text) for probe in asked]
    ours = [answer.text for answer in model.batch(questions, keep="all", pruner="none", batch_size=36)]
    theirs = [stock.answer(shown[probe.scene], probe.text) for probe in asked]
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    right = [text == probe.answer for text, probe in zip(theirs, asked, strict=True)]
    return {"same": 100 * float(np.mean(same)), "right": 100 * float(np.mean(right)), "questions": len(asked)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m adafv.demo.gates", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--model", type=Path, default=CHECKPOINT, help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--per-kind", type=int, default=240, help="questions of each kind")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    asked, stock = probes(options.per_kind), Stock.load(options.model)
    model = adafv.load(str(options.model), dtype="float32")
    report: dict[str, Any] = {}
    gates: dict[str, Callable[[], Any]] = {
        "1 knows": lambda: knows(model, asked),
        "2 own information": lambda: own_information(stock, asked),
        "3 saliency": lambda: saliency_bias(stock, asked),
        "4 survives use": lambda: survives_use(model, asked),
        "5 stock agrees": lambda: agrees(stock, model, asked[:: max(1, len(asked) // 400)]),
    }
    for name, gate in gates.items():
        report[name] = gate()
        log.info("%s: %s", name, report[name])
        options.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

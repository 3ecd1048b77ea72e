"""The first rows of README's tables again, by stock transformers and a plain AdaFV: nothing here imports adafv.

    python -m recipe.heldout --set hard --split report --out hard
    python benchmarks/reproduce.py hard/questions.jsonl --keep 12.5% --log hard.jsonl

Prints how many answers are right, unpruned and by AdaFV at each budget; with `--log`, what `adafv sweep -o` wrote, also
how many of them are not the same there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

DEMO = Path(__file__).parent.parent / "adafv" / "demo" / "checkpoint"
SHARPNESS = 100.0


def adafv(saliency: Tensor, similarity: Tensor, keep: int) -> list[int]:
    """The places that AdaFV keeps: (N,) and (N,) to `keep` of them, ascending. As in the paper, without a short cut."""
    floor = keep // 4
    kept: set[int] = set()
    while len(kept) < keep:
        rest = [place for place in range(len(saliency)) if place not in kept]
        salient = sorted(rest, key=lambda place: (-saliency[place], place))
        similar = sorted(rest, key=lambda place: (-similarity[place], place))
        left = keep - len(kept) - 2 * floor
        first = (
            0 if not kept and left == 0 else best_split(saliency[salient[floor:]], similarity[similar[floor:]], left)
        )
        kept |= {*salient[: floor + first], *similar[: floor + left - first]}
        floor = 0  # what tokens in both rankings leave free is filled by the same rule without it
    return sorted(kept)


def best_split(saliency: Tensor, similarity: Tensor, places: int) -> int:
    """How many of the places go to saliency: where the product of what both gain is largest, the fewest of equals."""
    if places == 1:
        return 0
    gains = [saliency[:first].sum() * similarity[: places - first].sum() for first in range(places + 1)]
    return max(range(places + 1), key=lambda first: (gains[first], -first))


class Stock:
    """The checkpoint as transformers has it, in float32 with attention that can be read."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        kind = {"dtype": torch.float32, "attn_implementation": "eager"}
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, **kind).eval()

    @torch.inference_mode()
    def answers(self, picture: Image.Image, text: str, budgets: list[str]) -> Iterator[str]:
        """Greedy answers, one for each budget."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(images=picture, text=prompt, return_tensors="pt")
        ids = inputs["input_ids"][0]
        places = (ids == self.model.config.image_token_id).nonzero().flatten()
        words = self.model.get_input_embeddings()(ids)
        before, after = words[: places[0]], words[places[-1] + 1 :]
        seen = self.model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
        visual = self.model.model.multi_modal_projector(seen.hidden_states[-2][:, 1:])[0]
        saliency = seen.attentions[-2][0, :, 0, 1:].mean(0).double()
        cosine = torch.nn.functional.cosine_similarity(after[:, None], visual[None], dim=-1)
        similarity = (SHARPNESS * cosine).softmax(-1).amax(0).double()
        for budget in budgets:
            keep = tokens(budget, len(visual))
            chosen = visual if keep == len(visual) else visual[adafv(saliency, similarity, keep)]
            embedded = torch.cat([before, chosen, after])[None]
            mask = torch.ones(embedded.shape[:2], dtype=torch.long)
            said = self.model.generate(inputs_embeds=embedded, attention_mask=mask, max_new_tokens=8, do_sample=False)
            yield self.processor.decode(said[0], skip_special_tokens=True).strip()


def tokens(budget: str, visual: int) -> int:
    """Visual tokens of a budget, a share rounded half up."""
    if budget == "all":
        return visual
    return int(float(budget[:-1]) / 100 * visual + 0.5) if budget.endswith("%") else int(budget)


def logged(path: Path) -> dict[tuple[Any, str], str]:
    """What a sweep's log has of the unpruned model and of AdaFV, by question and budget."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ours = [line for line in lines if line["pruner"] in ("none", "adafv")]
    return {(line["question_id"], line["keep"]): line["text"] for line in ours}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--keep", default="12.5%", help="budgets, separated by commas")
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--first", type=int, help="so many questions only")
    parser.add_argument("--log", type=Path, help="of adafv sweep, to compare with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stock, budgets = Stock(options.model), ["all", *options.keep.split(",")]
    lines = [json.loads(line) for line in options.questions.read_text().splitlines()][: options.first]
    log = logged(options.log) if options.log else {}
    right, other, compared = dict.fromkeys(budgets, 0), 0, 0
    for line in lines:
        with Image.open(options.questions.parent / line["image"]) as file:
            picture = file.convert("RGB")
        for budget, said in zip(budgets, stock.answers(picture, line["text"], budgets), strict=True):
            right[budget] += said == line["answer"]
            there = log.get((line["question_id"], budget))
            compared += there is not None
            other += there is not None and there != said
    for budget, count in right.items():
        print(f"{'unpruned' if budget == 'all' else f'adafv at {budget}'}: {100 * count / len(lines):.1f} %")
    if options.log:
        print(f"{compared} answers compared, {other} of them not the same")


if __name__ == "__main__":
    main()

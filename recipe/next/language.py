"""The language model of the second checkpoint: a layer more in front, and attention that never leaves a triangle.

The layers behind the first begin as those of the first checkpoint. The first begins as one that changes nothing, and
learns what the visual tokens no longer say: where in the picture they are, from their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.language import TextLayer, turn
from recipe.network import HEAD, HIDDEN, Norm
from recipe.packing import MASKED
from recipe.vocabulary import WORDS

LAYERS = 5
# So that the fourth frequency turns once in a row of a tile's sixteen patches: the thumbnail has no newlines.
ROPE_BASE = (16 / (2 * torch.pi)) ** (32 / 3)
BLOCK = 256  # rows of the triangle that are done together


def rope(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (B, 1, L, head), of positions (B, L)."""
    frequency = ROPE_BASE ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


class TiledLayer(TextLayer):
    """One Llama decoder layer on a start that all questions share, followed by the questions."""

    def run(
        self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor, start: int, only_text: bool = False
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Run the layer.

        x: (B, L, hidden), `start` shared tokens and R words; mask: additive, (B, 1, R, L), of the words' rows.
        Returns x, of the words alone if `only_text`; the shared tokens' attention in blocks of rows, each (B, heads,
        rows, columns so far); and the words' attention (B, heads, R, L).
        """
        query, key, value = self.self_attn.heads(self.input_layernorm(x))
        cos, sin = (part.to(x.dtype) for part in turns)
        query, key = turn(query, cos, sin) * HEAD**-0.5, turn(key, cos, sin)
        text = (query[:, :, start:] @ key.transpose(-1, -2) + mask.to(query.dtype)).softmax(-1)
        mixed, blocks = [], []
        for first in range(0, 0 if only_text else start, BLOCK):
            last = min(first + BLOCK, start)
            scores = query[:, :, first:last] @ key[:, :, :last].transpose(-1, -2)
            upper = torch.full((last - first, last - first), MASKED, dtype=scores.dtype).triu(1)
            blocks.append((scores + functional.pad(upper, (first, 0))).softmax(-1))
            mixed.append(blocks[-1] @ value[:, :, :last])
        mixed.append(text @ value)
        x = x[:, start if only_text else 0 :] + self.self_attn.merge(torch.cat(mixed, dim=2))
        y = self.post_attention_layernorm(x)
        gated = functional.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y)
        return x + self.mlp["down_proj"](gated), blocks, text


@dataclass(frozen=True)
class Reading:
    """What one pass leaves behind for the losses."""

    hidden: Tensor  # (B, R, hidden) of the words, before the head
    placed: list[Tensor]  # (B, start, hidden), of the shared tokens after the first and after the second layer
    named: Tensor  # (B, R, hidden) of the words, after the third layer
    blocks: list[list[Tensor]]  # the first two layers' attention of shared tokens, each in blocks of rows
    attention: list[Tensor]  # per layer (B, heads, R, start + R), of the words


class TiledLanguage(nn.Module):
    """Llama without its input embeddings, and LLaVA-NeXT's newline."""

    def __init__(self, words: int = len(WORDS)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TiledLayer() for _ in range(LAYERS))
        self.norm = Norm()
        self.lm_head = nn.Linear(HIDDEN, words, bias=False)
        self.image_newline = nn.Parameter(torch.randn(HIDDEN))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, start: int) -> Reading:
        """Embedded prompts (B, L, hidden), positions (B, L), additive mask of the words (B, 1, R, L)."""
        turns, placed, attention = rope(positions), [], []
        named, early = x, []
        for number, layer in enumerate(cast(Iterable[TiledLayer], self.layers)):
            x, blocks, text = layer.run(x, turns, mask, start, number == LAYERS - 1)
            attention.append(text)
            if number < 2:
                placed.append(x[:, :start])
                early.append(blocks)
            if number == 2:
                named = x[:, start:]
        return Reading(self.norm(x), placed, named, early, attention)


def grown_from(released: dict[str, Tensor]) -> TiledLanguage:
    """A language model that begins as the first checkpoint's: `released` are the weights of a `Language`."""
    language = TiledLanguage(len(released["lm_head.weight"]))
    own = language.state_dict()
    for name, value in released.items():
        part, _, rest = name.partition(".")
        layer, _, inner = rest.partition(".")
        own[f"layers.{int(layer) + 1}.{inner}" if part == "layers" else name].copy_(value)
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        nn.init.normal_(own[f"layers.0.{name}.weight"], std=0.002)
    return language

"""The language model of the demo: Llama's layers, several questions about one picture in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.network import HEAD, HIDDEN, ROPE_BASE, TEXT_LAYERS, TEXT_MLP, Attention, Norm
from recipe.vocabulary import WORDS


def rope(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (B, 1, L, head), of positions (B, L)."""
    frequency = ROPE_BASE ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys (B, heads, L, head) by their positions."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


class TextLayer(nn.Module):
    """One Llama decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()
        self.self_attn = Attention("o_proj", bias=False)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(HIDDEN, TEXT_MLP, bias=False),
                "up_proj": nn.Linear(HIDDEN, TEXT_MLP, bias=False),
                "down_proj": nn.Linear(TEXT_MLP, HIDDEN, bias=False),
            }
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Hidden states (B, L, hidden), additive mask (B, 1, L, L) -> hidden states, attention (B, heads, L, L).

        Only the results of rows from `first` on are made: L - first of them.
        """
        query, key, value = self.self_attn.heads(self.input_layernorm(x))
        query, key = (turn(part, cos.to(part.dtype), sin.to(part.dtype)) for part in (query, key))
        query, mask = query[:, :, first:], mask[:, :, first:]
        attention = (query * HEAD**-0.5 @ key.transpose(-1, -2) + mask.to(query.dtype)).softmax(-1)
        x = x[:, first:] + self.self_attn.merge(attention @ value)
        y = self.post_attention_layernorm(x)
        gated = functional.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y)
        return x + self.mlp["down_proj"](gated), attention


@dataclass(frozen=True)
class Thoughts:
    """What one pass leaves behind for the losses."""

    hidden: Tensor  # (B, R, hidden) of the last R rows, before the head
    second: Tensor  # (B, L, hidden), after the second layer
    attention: list[Tensor]  # per layer (B, heads, L, L); (B, heads, R, L) in the last


class Language(nn.Module):
    """Llama without its input embeddings, which stage 1 trained."""

    def __init__(self, words: int = len(WORDS)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer() for _ in range(TEXT_LAYERS))
        self.norm = Norm()
        self.lm_head = nn.Linear(HIDDEN, words, bias=False)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, first: int) -> Thoughts:
        """Embedded prompt (B, L, hidden), positions (B, L), additive mask (B, 1, L, L); rows from `first` on count."""
        cos, sin = rope(positions)
        attention, second = [], x
        for number, layer in enumerate(self.layers):
            x, weights = layer(x, cos, sin, mask, first if number == TEXT_LAYERS - 1 else 0)
            attention.append(weights)
            if number == 1:
                second = x
        return Thoughts(self.norm(x), second, attention)

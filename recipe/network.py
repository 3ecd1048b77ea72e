"""A small LLaVA for training on a CPU: stock architecture, stock parameter names, plain attention.

Differences from transformers: attention is matmul, softmax, matmul (the fused kernel's backward is slow on a CPU)
and returns its probabilities; the tower stops at the layer whose output is used; several questions about one picture
share its tokens in one pass (`Language`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.drawing import GRID, SIDE

HIDDEN, HEADS, HEAD = 192, 3, 64
VISION_MLP, VISION_LAYERS = 768, 5  # of the exported 6: LLaVA reads the last but one
TEXT_MLP, TEXT_LAYERS = 512, 4
PATCH = SIDE // GRID
ROPE_BASE, RMS_EPS = 10000.0, 1e-5


class Attention(nn.Module):
    """Queries, keys and values by one matmul; parameters under the stock names."""

    def __init__(self, out: str, bias: bool) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", out):
            self.add_module(name, nn.Linear(HIDDEN, HIDDEN, bias=bias))
        self.out, self.bias = out, bias

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, hidden) -> three of (B, heads, L, head)."""
        linears = [self.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj")]
        weight = torch.cat([linear.get_parameter("weight") for linear in linears])
        bias = torch.cat([linear.get_parameter("bias") for linear in linears]) if self.bias else None
        mixed = functional.linear(x, weight, bias).view(*x.shape[:-1], 3, HEADS, HEAD)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def merge(self, x: Tensor) -> Tensor:
        """(B, heads, L, head) -> output projection, (B, L, hidden)."""
        merged: Tensor = self.get_submodule(self.out)(x.transpose(1, 2).flatten(2))
        return merged


class VisionLayer(nn.Module):
    """One CLIP encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.self_attn = Attention("out_proj", bias=True)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(HIDDEN, VISION_MLP), "fc2": nn.Linear(VISION_MLP, HIDDEN)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, hidden) -> the same, and attention probabilities (B, heads, L, L)."""
        query, key, value = self.self_attn.heads(self.layer_norm1(x))
        attention = (query * HEAD**-0.5 @ key.transpose(-1, -2)).softmax(-1)
        x = x + self.self_attn.merge(attention @ value)
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.layer_norm2(x)))), attention


class Vision(nn.Module):
    """CLIP's vision tower up to the selected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(HIDDEN) * 0.02)
        self.patch_embedding = nn.Linear(3 * PATCH * PATCH, HIDDEN, bias=False)
        self.position_embedding = nn.Parameter(torch.randn(GRID * GRID + 1, HIDDEN) * 0.02)
        self.pre_layrnorm = nn.LayerNorm(HIDDEN)
        self.layers = nn.ModuleList(VisionLayer() for _ in range(VISION_LAYERS))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels (B, 3, SIDE, SIDE) -> features (B, 1 + patches, hidden), [CLS] first, and saliency.

        Saliency (B, patches) is [CLS]'s attention to patches in the last layer, mean over heads.
        """
        patches = pixels.reshape(len(pixels), 3, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 1, 3, 5)
        embedded = self.patch_embedding(patches.flatten(3).flatten(1, 2))
        first = self.class_embedding.expand(len(pixels), 1, -1)
        x = self.pre_layrnorm(torch.cat([first.to(embedded.dtype), embedded], dim=1) + self.position_embedding)
        attention = x
        for layer in self.layers:
            x, attention = layer(x)
        return x, attention[:, :, 0, 1:].float().mean(1)


class Projector(nn.Module):
    """LLaVA's two-layer projector."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, features: Tensor) -> Tensor:
        """Patch features (B, patches, hidden) -> visual tokens of the same shape."""
        projected: Tensor = self.linear_2(functional.gelu(self.linear_1(features)))
        return projected


class Norm(nn.Module):
    """Llama's root-mean-square norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape (..., hidden)."""
        return functional.rms_norm(x, (HIDDEN,), self.weight, RMS_EPS)

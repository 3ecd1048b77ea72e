"""Prompts of random embeddings, and a tiny model whose answers to them differ in length."""

from __future__ import annotations

import copy

import torch

from adafv.decoding import Spliced

END = 1
WIDTH = 48  # of the tiny models' embeddings


def chatty(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a model with an end token that comes up often."""
    network: torch.nn.Module = copy.deepcopy(model)
    head = network.get_submodule("lm_head").weight
    with torch.no_grad():
        shift = torch.randn(head.shape[1], generator=torch.Generator().manual_seed(3))
        head[END] = 6 * head[2:40].mean(0) + 0.5 * shift
    return network


def prompts(count: int, seed: int) -> list[Spliced]:
    generator = torch.Generator().manual_seed(seed)
    lengths = [5 + 3 * (number % 4) for number in range(count)]
    return [Spliced(torch.randn(n, WIDTH, generator=generator), torch.arange(n), n) for n in lengths]

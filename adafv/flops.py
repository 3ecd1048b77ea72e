"""Floating-point operations and cache bytes of one prompt, in closed form from config numbers.

Counted are matrix products, convolution and attention, 2 per multiply-accumulate, and the passes over all pairs of
visual tokens that some pruners make, 2 for each pair. Left out is what grows only with the number of values: norms,
biases, activations, softmax, rotary embedding, embedding look-up. Attention counts the full square of a prompt, not
its causal half, as torch's own counter does: kernels that skip the masked half do less. Padding and sliding windows
are not modelled: a row of a batch counts its own tokens. Everything is an exact integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VisionGeometry:
    """A vision tower of CLIP's or SigLIP's kind and the projector of two linear layers behind it.

    Args:
        hidden: width C of the tower.
        mlp: inner width of its MLPs.
        layers: layers that really run, which is up to the last one whose output is used.
        patch: side of a patch in pixels.
        image: side of a crop in pixels.
        channels: of the pixels.
        prefix: tokens in front of the patches: 1 where there is a [CLS] token, whose attention is saliency; 0 where
            there is none and the attention of all patches is.
        projector_in: width of a visual token before the projector.
        projector_hidden: width D behind each of its layers, that of the language model.
    """

    hidden: int
    mlp: int
    layers: int
    patch: int
    image: int
    projector_in: int
    projector_hidden: int
    channels: int = 3
    prefix: int = 1

    @classmethod
    def from_config(cls, config: Any, layers: int, prefix: int = 1, features: int = 1) -> VisionGeometry:
        """Read a LLaVA config.

        Args:
            config: has `vision_config` and `text_config`.
            layers: vision layers that run.
            prefix: tokens in front of the patches.
            features: vision layers whose outputs are concatenated before the projector.
        """
        vision = config.vision_config
        return cls(
            hidden=vision.hidden_size,
            mlp=vision.intermediate_size,
            layers=layers,
            patch=vision.patch_size,
            image=vision.image_size,
            projector_in=vision.hidden_size * features,
            projector_hidden=config.text_config.hidden_size,
            channels=vision.num_channels,
            prefix=prefix,
        )

    @property
    def patches(self) -> int:
        """Patches of one crop, without [CLS]."""
        return (self.image // self.patch) ** 2


@dataclass(frozen=True)
class TextGeometry:
    """A decoder with gated MLPs (Llama, Mistral, Qwen2).

    Args:
        hidden: width D of the residual stream.
        mlp: inner width of the MLPs.
        layers: decoder layers.
        heads: query heads.
        kv_heads: key/value heads, fewer than `heads` with grouped-query attention.
        head_dim: width of a head, which need not be `hidden / heads`.
        vocab: rows of the LM head.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def from_config(cls, config: Any) -> TextGeometry:
        """Read a LLaVA config or the config of its language model; head fields may be absent."""
        text = getattr(config, "text_config", config)
        heads = text.num_attention_heads
        return cls(
            hidden=text.hidden_size,
            mlp=text.intermediate_size,
            layers=text.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            vocab=text.vocab_size,
        )

    @property
    def weights(self) -> int:
        """Weights of all layers that take part in matrix products, the LM head not among them."""
        query_and_output = 2 * self.hidden * self.heads * self.head_dim
        key_and_value = 2 * self.hidden * self.kv_heads * self.head_dim
        gate_up_and_down = 3 * self.hidden * self.mlp
        return self.layers * (query_and_output + key_and_value + gate_up_and_down)


def vision(geometry: VisionGeometry, crops: int) -> int:
    """Count the vision tower over `crops` crops: patch convolution, the layers that run, and saliency.

    Saliency takes queries times all keys of one layer, 2 * queries * (prefix + patches) * C a crop: one query, that of
    [CLS], or without [CLS] those of all patches.
    """
    width, sequence = geometry.hidden, geometry.prefix + geometry.patches
    convolution = 2 * geometry.patches * geometry.channels * geometry.patch**2 * width
    linear = 2 * sequence * (4 * width**2 + 2 * width * geometry.mlp)
    attention = 4 * sequence**2 * width
    saliency = 2 * (geometry.prefix or geometry.patches) * sequence * width
    return crops * (convolution + geometry.layers * (linear + attention) + saliency)


def projector(geometry: VisionGeometry, tokens: int) -> int:
    """Projector over `tokens` visual tokens, before anything is pruned."""
    width = geometry.projector_hidden
    return 2 * tokens * (geometry.projector_in * width + width**2)


def score(text_tokens: int, visual_tokens: int, hidden: int) -> int:
    """Text-to-image similarity: every text token against every visual token, both of width `hidden`."""
    return 2 * text_tokens * visual_tokens * hidden


def cosine_matrix(tokens: int, width: int) -> int:
    """Cosines of every two of `tokens` visual tokens, both halves of the symmetric matrix, as if it were multiplied."""
    return 2 * tokens * tokens * width


def coverage(rows: int, tokens: int, keep: int) -> int:
    """Taking `keep` of `tokens` one after another by what they add to the coverage of `rows`.

    No matrix product, yet most of the work of methods that do it, so it is counted: one comparison and one addition
    for each entry of the matrix and each token taken. Entries whose row did not change may be skipped.
    """
    return 2 * rows * tokens * keep


def merge(tokens: int, width: int) -> int:
    """Averages into which `tokens` visual tokens go, each into one."""
    return 2 * tokens * width


def cholesky(tokens: int, keep: int) -> int:
    """Count `keep` rows of the Cholesky factor of a kernel of `tokens`, each less its products with those before it."""
    return tokens * keep * (keep - 1)


def prefill(geometry: TextGeometry, tokens: int, cached: int = 0) -> int:
    """Forward of the language model over a prompt of `tokens`, with the LM head at its last position only.

    Of the first `cached` of them, keys and values are there already: the others alone are run, and attend to all.
    """
    return _forward(geometry, tokens - cached, (tokens - cached) * tokens, 1)


def decode(geometry: TextGeometry, prompt_tokens: int, generated: int) -> int:
    """Count all forwards behind the prefill of an answer of `generated` tokens: `generated - 1` of them.

    The prefill gives the first token, and nothing is run on the last. Each forward takes one token, attends
    to the cache and itself, and ends in the LM head.
    """
    steps = max(generated - 1, 0)
    attended = steps * prompt_tokens + steps * (steps + 1) // 2
    return _forward(geometry, steps, attended, steps)


def cached_positions(prompt_tokens: int, generated: int) -> int:
    """Positions in the key/value cache after `generated` tokens, of which the last is never fed back."""
    return prompt_tokens + max(generated - 1, 0)


def kv_cache_bytes(geometry: TextGeometry, tokens: int, bytes_per_value: int) -> int:
    """Bytes of keys and values of all layers for `tokens` cached positions."""
    return 2 * geometry.layers * geometry.kv_heads * geometry.head_dim * tokens * bytes_per_value


def _forward(geometry: TextGeometry, tokens: int, pairs: int, logits: int) -> int:
    """Count `tokens` through all layers, `pairs` of query and key, and the LM head at `logits` positions."""
    attention = 4 * pairs * geometry.heads * geometry.head_dim * geometry.layers
    return 2 * tokens * geometry.weights + attention + 2 * logits * geometry.hidden * geometry.vocab

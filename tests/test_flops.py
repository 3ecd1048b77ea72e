"""Closed forms against torch's own counter on small models, and against figures of LLaVA-1.5-7B made another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from adafv import flops
from adafv.signals.saliency import cls_attention, received_attention

# The CPU's attention kernel has no formula in torch's counter, which would miss it silently.
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
VISION = CLIPVisionConfig(
    hidden_size=64, intermediate_size=144, num_hidden_layers=3, num_attention_heads=4,
    image_size=70, patch_size=14, projection_dim=16,
)  # fmt: skip
SIGLIP = SiglipVisionConfig(
    hidden_size=64, intermediate_size=144, num_hidden_layers=3, num_attention_heads=4,
    image_size=70, patch_size=14, vision_use_head=False,
)  # fmt: skip
SIZES: dict[str, Any] = dict(
    hidden_size=96, intermediate_size=208, num_hidden_layers=3, num_attention_heads=6, vocab_size=500,
    bos_token_id=0, eos_token_id=1, pad_token_id=2, max_position_embeddings=512,
)  # fmt: skip
TEXTS = {
    "llama": LlamaConfig(**SIZES),
    "llama, grouped queries": LlamaConfig(**SIZES, num_key_value_heads=2),
    "llama, wide heads": LlamaConfig(**SIZES, num_key_value_heads=3, head_dim=24),
    "mistral": MistralConfig(**SIZES, num_key_value_heads=1, head_dim=20),
}


def sdpa_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def counted(work: Callable[[], object]) -> int:
    """FLOPs that torch counts."""
    with FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: sdpa_flops}) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def llava(text: Any, feature_layer: int | list[int] = -2) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=VISION,
        text_config=text,
        image_token_index=3,
        image_seq_length=25,
        vision_feature_layer=feature_layer,
    )
    return LlavaForConditionalGeneration(config).eval()


@pytest.fixture(scope="module", params=TEXTS)
def model(request: pytest.FixtureRequest) -> LlavaForConditionalGeneration:
    return llava(TEXTS[request.param])


@pytest.fixture(scope="module")
def text(model: LlavaForConditionalGeneration) -> flops.TextGeometry:
    return flops.TextGeometry.from_config(model.config)


def within(closed_form: int, count: int) -> bool:
    """Within 0.01 %; a wider margin would not see the saliency row of so small a tower."""
    assert count > 0
    return abs(closed_form - count) <= 0.0001 * count


@pytest.mark.parametrize("crops", [1, 5])
def test_vision_of_a_tower_cut_to_the_layers_that_run(crops):
    config = LlavaConfig(vision_config=VISION, text_config=TEXTS["llama"])
    geometry = flops.VisionGeometry.from_config(config, 2)
    cut = CLIPVisionConfig(**(VISION.to_dict() | {"num_hidden_layers": 2}))
    tower = CLIPVisionModel(cut).eval()

    def encode() -> None:
        hidden = tower(torch.zeros(crops, 3, 70, 70)).last_hidden_state
        cls_attention(hidden[:, 0], hidden, heads=4, scale=0.25)

    assert within(flops.vision(geometry, crops), counted(encode))
    assert flops.vision(geometry, crops) == crops * flops.vision(geometry, 1)


@pytest.mark.parametrize("crops", [1, 5])
def test_vision_of_a_tower_without_cls(crops):
    """Saliency is the attention of all patches there, which is as much as the scores of one more layer."""
    tower = SiglipVisionModel(SIGLIP).eval()
    config = LlavaConfig(vision_config=SIGLIP, text_config=TEXTS["llama"])
    geometry = flops.VisionGeometry.from_config(config, 3, prefix=0)

    def encode() -> None:
        hidden = tower(torch.zeros(crops, 3, 70, 70)).last_hidden_state
        received_attention(hidden, hidden, heads=4, scale=0.25)

    assert within(flops.vision(geometry, crops), counted(encode))
    with_cls = replace(geometry, prefix=1)
    assert not within(flops.vision(with_cls, crops), counted(encode))


@pytest.mark.parametrize(("feature_layer", "count"), [(-2, 1), ([-2, -3], 2)])
def test_projector(feature_layer, count):
    built = llava(TEXTS["llama"], feature_layer)
    geometry = flops.VisionGeometry.from_config(built.config, 2, features=count)
    features = torch.zeros(1, geometry.patches, geometry.projector_in)
    count = counted(lambda: built.model.multi_modal_projector(features))
    assert within(flops.projector(geometry, geometry.patches), count)


def test_score():
    text, visual = torch.zeros(9, 48), torch.zeros(100, 48)
    assert flops.score(9, 100, 48) == counted(lambda: text @ visual.T)


@pytest.mark.parametrize("tokens", [1, 20, 73, 236])
def test_prefill_with_the_head_at_one_position(model, text, tokens):
    ids = torch.full((1, tokens), 7)
    assert within(flops.prefill(text, tokens), counted(lambda: model(input_ids=ids, logits_to_keep=1)))


@pytest.mark.parametrize("prompt", [5, 60])
def test_one_decode_step_with_a_cache(model, text, prompt):
    with torch.no_grad():
        cache = model(input_ids=torch.full((1, prompt), 7)).past_key_values
    step = counted(lambda: model(input_ids=torch.full((1, 1), 7), past_key_values=cache))
    assert within(flops.decode(text, prompt, 2), step)


@pytest.mark.parametrize(("prompt", "generated"), [(30, 1), (30, 2), (12, 7)])
def test_whole_answers_and_what_is_cached_after_them(model, text, prompt, generated):
    embeddings = torch.randn(1, prompt, 96, generator=torch.Generator().manual_seed(0))
    found: list[Any] = []

    def generate() -> None:
        found.append(
            model.generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones(1, prompt, dtype=torch.long),
                max_new_tokens=generated,
                min_new_tokens=generated,
                do_sample=False,
                return_dict_in_generate=True,
            )
        )

    closed_form = flops.prefill(text, prompt) + flops.decode(text, prompt, generated)
    assert within(closed_form, counted(generate))
    assert found[0].sequences.shape[1] == generated
    cache = found[0].past_key_values
    positions = flops.cached_positions(prompt, generated)
    assert cache.get_seq_length() == positions
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert flops.kv_cache_bytes(text, positions, 4) == held


def test_a_row_of_a_batch_costs_what_it_costs_alone(model, text):
    ids = torch.full((3, 40), 7)
    assert within(3 * flops.prefill(text, 40), counted(lambda: model(input_ids=ids, logits_to_keep=1)))


def test_decode_is_the_sum_of_its_steps(text):
    steps = [flops.decode(text, 50 + step, 2) for step in range(9)]
    assert flops.decode(text, 50, 10) == sum(steps)
    assert flops.decode(text, 50, 1) == flops.decode(text, 50, 0) == 0
    assert flops.cached_positions(50, 0) == flops.cached_positions(50, 1) == 50
    assert flops.cached_positions(50, 10) == 59


# LLaVA-1.5-7B: Vicuna-7B behind CLIP ViT-L/14 at 336 pixels, of whose 24 layers 23 run.
TEXT_7B = flops.TextGeometry(4096, 11008, 32, 32, 32, 128, 32064)
VISION_7B = flops.VisionGeometry(1024, 4096, 23, 14, 336, 1024, 4096)


@pytest.mark.parametrize("tokens", [73, 236, 620])
def test_prefill_of_7b_from_its_parameter_count(tokens):
    published = 6_738_415_616  # parameters of Llama-7B, vocabulary 32000
    matrices = published - 2 * 32000 * 4096 - (2 * 32 + 1) * 4096  # less embeddings, head and norms
    attention = 32 * 2 * (2 * tokens * tokens * 4096)  # scores and weighted values
    head = 2 * 4096 * 32064
    assert flops.prefill(TEXT_7B, tokens) == 2 * matrices * tokens + attention + head


def test_7b_figures_in_teraflops():
    assert flops.prefill(TEXT_7B, 620) / 1e12 == pytest.approx(8.232, abs=0.001)
    assert flops.decode(TEXT_7B, 620, 2) / 1e9 == pytest.approx(13.540, abs=0.001)
    assert flops.projector(VISION_7B, 576) / 1e9 == pytest.approx(2 * 576 * 20.97152e-3, abs=0.001)


def test_vision_of_7b_from_its_parameter_count():
    in_a_layer = 12 * 1024 * 1024  # four square projections and an MLP of four times the width
    convolution = 2 * 576 * 588 * 1024
    attention = 4 * 577 * 577 * 1024
    saliency = 2 * 577 * 1024
    assert VISION_7B.patches == 576
    assert flops.vision(VISION_7B, 1) == convolution + 23 * (2 * 577 * in_a_layer + attention) + saliency


def test_cache_of_7b_is_half_a_mebibyte_a_token():
    assert flops.kv_cache_bytes(TEXT_7B, 1, 2) == 512 * 1024
    assert flops.kv_cache_bytes(TEXT_7B, 620, 2) == 620 * 512 * 1024


def test_results_are_exact_integers_however_large():
    cost = flops.prefill(TEXT_7B, 10**9)
    assert isinstance(cost, int)
    assert cost - flops.prefill(TEXT_7B, 10**9 - 1) == 2 * TEXT_7B.weights + 4 * 4096 * 32 * (2 * 10**9 - 1)


def test_geometry_from_configs_with_and_without_head_fields():
    bare = SimpleNamespace(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=10
    )
    expected = flops.TextGeometry(64, 128, 2, 4, 4, 16, 10)
    assert flops.TextGeometry.from_config(bare) == expected
    assert flops.TextGeometry.from_config(SimpleNamespace(text_config=bare)) == expected
    nones = SimpleNamespace(**vars(bare), num_key_value_heads=None, head_dim=None)
    assert flops.TextGeometry.from_config(nones) == expected


def test_geometry_of_7b_from_its_config():
    seven = LlavaConfig(text_config=LlamaConfig(vocab_size=32064))
    assert flops.TextGeometry.from_config(seven) == TEXT_7B
    assert flops.VisionGeometry.from_config(seven, 23) == VISION_7B

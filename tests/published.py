"""Facts about published checkpoints: configuration files as they stand on the hub, prompts, processor files.

The config of LLaVA-Llama-3 (xtuner/llava-llama-3-8b-v1_1-transformers) is what its conversion script writes. BakLLaVA's
and ViP-LLaVA's were not read: they are put together from the values of their class and of their language model.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_VISION: Json = dict(
    hidden_size=1024, image_size=336, intermediate_size=4096, model_type="clip_vision_model", num_attention_heads=16,
    num_hidden_layers=24, patch_size=14, projection_dim=768, vocab_size=32000,
)  # fmt: skip
_FEATURES: Json = dict(vision_feature_layer=-2, vision_feature_select_strategy="default")
_VICUNA_7B: Json = dict(
    _name_or_path="lmsys/vicuna-7b-v1.5", architectures=["LlamaForCausalLM"], max_position_embeddings=4096,
    model_type="llama", rms_norm_eps=1e-05, torch_dtype="float16", vocab_size=32064,
)  # fmt: skip
_VICUNA_13B: Json = _VICUNA_7B | dict(
    _name_or_path="lmsys/vicuna-13b-v1.5", hidden_size=5120, intermediate_size=13824, num_attention_heads=40,
    num_hidden_layers=40, num_key_value_heads=40,
)  # fmt: skip


def _llava(text: Json, **changes: Any) -> Json:
    return dict(
        architectures=["LlavaForConditionalGeneration"], ignore_index=-100, image_token_index=32000, model_type="llava",
        pad_token_id=32001, projector_hidden_act="gelu", text_config=text, torch_dtype="float16",
        transformers_version="4.36.0.dev0", vision_config=_VISION, **_FEATURES, vocab_size=text["vocab_size"],
    ) | changes  # fmt: skip


def _next(text: Json, **changes: Any) -> Json:
    return dict(
        architectures=["LlavaNextForConditionalGeneration"], ignore_index=-100, image_grid_pinpoints=PINPOINTS,
        image_token_index=32000, model_type="llava_next", projector_hidden_act="gelu", text_config=text,
        torch_dtype="float16", transformers_version="4.39.0.dev0", use_image_newline_parameter=True,
        vision_config=_VISION, **_FEATURES, vocab_size=text["vocab_size"],
    ) | changes  # fmt: skip


CONFIGS: dict[str, Json] = {
    "llava-1.5-7b": _llava(_VICUNA_7B, tie_word_embeddings=False),
    "llava-1.5-13b": _llava(_VICUNA_13B | dict(_name_or_path="meta-llama/Llama-2-13b-hf"), tie_word_embeddings=False),
    "llava-1.5-13b, first revision": _llava(
        _VICUNA_13B | dict(_name_or_path="meta-llama/Llama-2-13b-hf", vocab_size=32128),
        architectures=["LlavaForCausalLM"],
    ),
    "llava-v1.6-vicuna-7b": _next(_VICUNA_7B | dict(pad_token_id=0)),
    "llava-v1.6-vicuna-13b": _next(_VICUNA_13B | dict(pad_token_id=0, max_length=4096)),
    "llava-v1.6-mistral-7b": _next(
        dict(
            _name_or_path="mistralai/Mistral-7B-Instruct-v0.2",
            architectures=["MistralForCausalLM"],
            intermediate_size=14336,
            max_position_embeddings=32768,
            model_type="mistral",
            num_key_value_heads=8,
            rms_norm_eps=1e-05,
            rope_theta=1000000.0,
            sliding_window=None,
            torch_dtype="bfloat16",
            vocab_size=32064,
        )
    ),
    "llava-v1.6-34b": _next(
        dict(
            _name_or_path="NousResearch/Nous-Hermes-2-Yi-34B",
            architectures=["LlamaForCausalLM"],
            eos_token_id=7,
            hidden_size=7168,
            intermediate_size=20480,
            max_position_embeddings=4096,
            model_type="llama",
            num_attention_heads=56,
            num_hidden_layers=60,
            num_key_value_heads=8,
            pad_token_id=0,
            rms_norm_eps=1e-05,
            rope_theta=5000000.0,
            torch_dtype="bfloat16",
            use_cache=False,
            vocab_size=64064,
        ),
        image_token_index=64000,
    ),
    "vip-llava-7b": {
        key: value
        for key, value in _llava(
            _VICUNA_7B,
            architectures=["VipLlavaForConditionalGeneration"],
            model_type="vipllava",
            projector_layernorm_eps=1e-05,
            vision_feature_layers=[-2, -5, -8, -11, 6],
        ).items()
        if key not in _FEATURES
    },
    "bakLlava-v1": _llava(
        dict(
            _name_or_path="mistralai/Mistral-7B-v0.1",
            architectures=["MistralForCausalLM"],
            intermediate_size=14336,
            max_position_embeddings=32768,
            model_type="mistral",
            num_key_value_heads=8,
            rms_norm_eps=1e-05,
            sliding_window=4096,
            torch_dtype="bfloat16",
            vocab_size=32064,
        )
    ),
    "llava-llama-3-8b": _llava(
        dict(
            architectures=["LlamaForCausalLM"],
            bos_token_id=128000,
            eos_token_id=128001,
            intermediate_size=14336,
            max_position_embeddings=8192,
            model_type="llama",
            num_key_value_heads=8,
            rms_norm_eps=1e-05,
            rope_theta=500000.0,
            torch_dtype="float16",
            vocab_size=128320,
        ),
        image_token_index=128257,
        pad_token_id=128258,
    ),
}

GENERATION: dict[str, Json] = {
    "llava-v1.6-vicuna-7b": dict(_from_model_config=True, bos_token_id=1, eos_token_id=2, pad_token_id=0),
    "llava-v1.6-mistral-7b": dict(_from_model_config=True, bos_token_id=1, eos_token_id=2),
    "vip-llava-7b": dict(_from_model_config=True, bos_token_id=1, eos_token_id=2, pad_token_id=32001),
}

# LLaVA-OneVision: put together from its conversion script, from Qwen2's configurations, and from the class's defaults.
SIGLIP: Json = dict(
    hidden_size=1152, image_size=384, intermediate_size=4304, model_type="siglip_vision_model", num_attention_heads=16,
    num_hidden_layers=26, patch_size=14, vision_use_head=False,
)  # fmt: skip
ONEVISION_PINPOINTS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]


def _onevision(**text: Any) -> Json:
    return dict(
        architectures=["LlavaOnevisionForConditionalGeneration"], ignore_index=-100, image_token_index=151646,
        image_grid_pinpoints=ONEVISION_PINPOINTS, model_type="llava_onevision", projector_hidden_act="gelu",
        text_config=dict(
            architectures=["Qwen2ForCausalLM"], bos_token_id=151643, eos_token_id=151645, max_position_embeddings=32768,
            model_type="qwen2", rope_theta=1000000.0, torch_dtype="bfloat16", **text,
        ),
        torch_dtype="float16", use_image_newline_parameter=True, video_token_index=151647,
        vision_aspect_ratio="anyres_max_9", vision_config=SIGLIP, vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )  # fmt: skip


ONEVISION: dict[str, Json] = {
    "llava-onevision-qwen2-0.5b-ov": _onevision(
        hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_hidden_layers=24, num_key_value_heads=2,
        tie_word_embeddings=True, vocab_size=152000,
    ),
    "llava-onevision-qwen2-7b-ov": _onevision(
        hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_hidden_layers=28, num_key_value_heads=4,
        tie_word_embeddings=False, vocab_size=152128,
    ),
}  # fmt: skip
ONEVISION_PREPROCESSOR: Json = dict(
    do_convert_rgb=True, do_normalize=True, do_pad=True, do_rescale=True, do_resize=True,
    image_grid_pinpoints=ONEVISION_PINPOINTS, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    image_processor_type="LlavaOnevisionImageProcessor", processor_class="LlavaOnevisionProcessor", resample=3,
    rescale_factor=0.00392156862745098, size=dict(height=384, width=384),
)  # fmt: skip
ONEVISION_PROCESSOR: Json = dict(
    image_token="<image>", num_image_tokens=729, processor_class="LlavaOnevisionProcessor", video_token="<video>",
    vision_feature_select_strategy="full",
)  # fmt: skip

# preprocessor_config.json: the newest of each family, and what older revisions had besides or instead.
CLIP_PREPROCESSOR: Json = dict(
    crop_size=dict(height=336, width=336), do_center_crop=True, do_convert_rgb=True, do_normalize=True,
    do_rescale=True, do_resize=True, image_mean=[0.48145466, 0.4578275, 0.40821073],
    image_processor_type="CLIPImageProcessor", image_std=[0.26862954, 0.26130258, 0.27577711],
    processor_class="LlavaProcessor", resample=3, rescale_factor=0.00392156862745098, size=dict(shortest_edge=336),
)  # fmt: skip
CLIP_OLD = CLIP_PREPROCESSOR | dict(
    _valid_processor_keys=[
        "images", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
        "do_normalize", "image_mean", "image_std", "do_convert_rgb", "return_tensors", "data_format",
        "input_data_format",
    ]
)  # fmt: skip
CLIP_OLDER = CLIP_PREPROCESSOR | dict(feature_extractor_type="CLIPFeatureExtractor")
CLIP_EXPORTED = CLIP_PREPROCESSOR | dict(image_processor_type="CLIPFeatureExtractor")
NEXT_PREPROCESSOR: Json = CLIP_PREPROCESSOR | dict(
    aspect_ratio_setting="anyres", do_pad=True, image_grid_pinpoints=PINPOINTS,
    image_processor_type="LlavaNextImageProcessor", processor_class="LlavaNextProcessor",
)  # fmt: skip
NEXT_OLD = {key: value for key, value in NEXT_PREPROCESSOR.items() if key != "do_pad"}
NEXT_FIRST = {"image_aspect_ratio" if key == "aspect_ratio_setting" else key: v for key, v in NEXT_OLD.items()}

# processor_config.json, in which num_additional_image_tokens came late; the oldest revisions have no such file.
PROCESSOR: Json = dict(
    image_token="<image>", num_additional_image_tokens=1, patch_size=14, processor_class="LlavaProcessor",
    vision_feature_select_strategy="default",
)  # fmt: skip
PROCESSOR_OLD = {key: value for key, value in PROCESSOR.items() if key != "num_additional_image_tokens"}
NEXT_PROCESSOR = PROCESSOR | dict(processor_class="LlavaNextProcessor")
NEXT_PROCESSOR_OLD = PROCESSOR_OLD | dict(processor_class="LlavaNextProcessor")

VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

# Templates of our own that render what the published ones do; the newest of those mark the assistant's tokens.
TURNS = (
    '{%- for turn in messages -%}{%- if turn.role != "system" -%}{{ turn.role | upper ~ ": " }}{%- endif -%}'
    '{%- for part in turn.content if part.type == "image" -%}{{ "<image>\\n" }}{%- endfor -%}'
    '{%- for part in turn.content if part.type == "text" -%}{{ part.text ~ " " }}{%- endfor -%}{%- endfor -%}'
    '{{ "ASSISTANT:" if add_generation_prompt else "" }}'
)
MARKED = TURNS.replace(
    '{%- for part in turn.content if part.type == "text"',
    '{%- if turn.role == "assistant" -%}{% generation %}{{ turn.content[0].text }}{% endgeneration %}{%- endif -%}'
    '{%- for part in turn.content if part.type == "text" and turn.role != "assistant"',
)
INST = (
    "{% for turn in messages %}{% if turn.role != 'user' %}{{ raise_exception('user turns only') }}{% endif %}"
    "[INST] {% for part in turn.content if part.type == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in turn.content if part.type == 'text' %}{{ part.text }}{% endfor %} [/INST]{% endfor %}"
)
SPACED = (  # of LLaVA-OneVision: a blank behind the role, no line break behind a turn
    "{% for turn in messages %}<|im_start|>{{ turn.role }} {% for part in turn.content if part.type == 'image' %}"
    "<image>{% endfor %}{% for part in turn.content if part.type == 'text' %}{{ '\\n' + part.text }}{% endfor %}"
    "<|im_end|>{% endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"
)
LLAMA3_TEXT = (  # a language model's own: it takes strings, not content parts
    "{% for turn in messages %}{{ bos_token if loop.first else '' }}<|start_header_id|>{{ turn.role }}<|end_header_id|>"
    "{{ '\\n\\n' + turn.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' if add_generation_prompt }}"
)

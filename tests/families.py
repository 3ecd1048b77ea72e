"""Small checkpoints of published families: everything as published but widths, depths and weights."""

from __future__ import annotations

import copy
import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AddedToken, AutoConfig, AutoModelForImageTextToText, LlamaTokenizer, PreTrainedTokenizerFast

Json = dict[str, Any]
HEAD = 8  # width of an attention head, 128 as published


def reduced(config: Json, vision_layers: int = 4) -> Json:
    """An eighth of the heads (so query to key/value heads stay as they were), 2 layers, a narrow vision tower."""
    small = copy.deepcopy(config)
    text: Json = small["text_config"]
    published = AutoConfig.for_model(**text)
    heads, groups = published.num_attention_heads, published.num_key_value_heads
    assert published.hidden_size == 128 * heads and heads % 8 == groups % 8 == 0
    text.update(
        hidden_size=HEAD * heads // 8,
        intermediate_size=published.intermediate_size * HEAD // 1024,
        num_attention_heads=heads // 8,
        num_key_value_heads=groups // 8,
        num_hidden_layers=2,
    )
    small["vision_config"] |= dict(
        hidden_size=32, intermediate_size=128, num_attention_heads=4, num_hidden_layers=vision_layers
    )
    return small


def save(
    folder: Path,
    config: Json,
    words: Any,
    preprocessor: Json,
    *,
    processor: Json | None = None,
    template: str | None = None,
    generation: Json | None = None,
) -> Path:
    """A checkpoint with random weights; the files that are given are written as they are, others are missing."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    with torch.no_grad():  # larger than the default's, so that words, patches and layers differ clearly
        model.get_input_embeddings().weight.normal_()
        model.lm_head.weight.normal_(std=0.3)
        for layer in model.model.vision_tower.encoder.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                part.weight.normal_(std=0.5)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    files = {
        "config.json": config,
        "preprocessor_config.json": preprocessor,
        "processor_config.json": processor,
        "generation_config.json": generation,
        "chat_template.json": template and {"chat_template": template},
    }
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        if content:
            (folder / name).write_text(json.dumps(content))
    return folder


def _filled(known: dict[int, str], size: int) -> dict[str, int]:
    """A vocabulary with `known` at their ids, then characters and bytes, then words that no text is split into."""
    free = [f"<0x{byte:02X}>" for byte in range(256)] + sorted(set("▁" + string.printable.strip()))
    free = [token for token in free if token not in known.values()]
    vocabulary = {token: index for index, token in known.items()}
    for index in (i for i in range(size) if i not in known):
        vocabulary[free.pop(0) if free else f"unused{index}"] = index
    return vocabulary


def llama_tokenizer(
    known: dict[int, str], size: int, added: list[str], *, bos: str = "<s>", add_bos: bool = True, **settings: Any
) -> LlamaTokenizer:
    """SentencePiece's rules, as Llama has them: a space in front, bytes for what is unknown.

    Args:
        known: special tokens by id; all of them are tokens of their own.
        size: of the language model's vocabulary; `added` tokens get the ids behind it.
    """
    tokenizer = LlamaTokenizer(
        vocab=_filled(known, size), bos_token=bos, add_bos_token=add_bos, padding_side="left", **settings
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in [*known.values(), *added]])
    if "<pad>" in added:
        tokenizer.pad_token = "<pad>"
    return tokenizer


def vicuna_tokenizer(*added: str) -> LlamaTokenizer:
    """`<s>` in front; `<image>` is 32000. Mistral's is the same but for its words."""
    return llama_tokenizer({0: "<unk>", 1: "<s>", 2: "</s>"}, 32_000, list(added))


def yi_tokenizer() -> LlamaTokenizer:
    """Nothing in front; `<|im_end|>` is 7 and `<image>` 64000."""
    known = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>", 6: "<|im_start|>", 7: "<|im_end|>"}
    return llama_tokenizer(known, 64_000, ["<image>"], bos="<|startoftext|>", add_bos=False, eos_token="<|im_end|>")


def llama3_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes, `<|begin_of_text|>` in front; `<image>` is 128257. `template` is the language model's own."""
    special = {128_000: "<|begin_of_text|>", 128_001: "<|end_of_text|>", 128_006: "<|start_header_id|>",
               128_007: "<|end_header_id|>", 128_009: "<|eot_id|>", 128_256: "<unk>", 128_257: "<image>",
               128_258: "<pad>"}  # fmt: skip
    letters = dict(enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())))
    core = Tokenizer(models.BPE(vocab=_filled(letters | special, 128_259), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special.values()))
    core.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 128_000)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<pad>",
        padding_side="left",
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, nothing in front; `<image>` is 151646 and `<video>` 151647, as added to Qwen2's."""
    special = dict(enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"], start=151_643))
    letters = dict(enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())))
    core = Tokenizer(models.BPE(vocab=_filled(letters | special, 151_648), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special.values()))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )

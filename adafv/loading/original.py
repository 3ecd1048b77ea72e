"""Reads a checkpoint in LLaVA's original format as the LLaVA that transformers knows.

By the rules of transformers' own conversion, but from the checkpoint's own files alone: the language model's
configuration and tokenizer are the checkpoint's, where the conversion takes those of the model it was trained from.
What differs from that:
    - Rows that are added to the embeddings are their mean (see `tensors.with_rows`), and there are no more of them than
      the tokenizer needs, to a multiple of 64.
    - Images are padded to squares where `image_aspect_ratio` is `pad`, with LlavaImageProcessor, as in training. The
      converted checkpoints crop them (CLIPImageProcessor), and so see less of an image that is not square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import (
    AddedToken,
    CLIPImageProcessorPil,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaImageProcessorPil,
    LlavaNextConfig,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from adafv.errors import CheckpointError, DeviceError
from adafv.loading.faults import is_installed
from adafv.loading.files import weight_files
from adafv.loading.hub import fetched_weights, find
from adafv.loading.original_format import check_convertible, grid_pinpoints, has_tiles, pads, text_type
from adafv.loading.tensors import Held, hold, module_name, renamed, with_rows
from adafv.loading.vision_tower import TowerSource

IMAGE = "<image>"
_ROWS = 64  # embeddings are lengthened to a multiple of it
_TEXT = {"llama": LlamaConfig, "mistral": MistralConfig}
_OLDER = {"rope_theta", "rope_scaling", "torch_dtype"}  # names of fields that configurations have other names for now
_NOT_TEXT = {"model_type", "architectures", "transformers_version", "_name_or_path", "image_token_index"}
_TOWER = "model.vision_tower."
_TABLES = ("model.language_model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Original:
    """A checkpoint in LLaVA's original format.

    Args:
        name: as the user gave it.
        place: the folder or hub id of its weights and its tokenizer.
        hub: what every `from_pretrained` is told about the hub.
        raw: config.json as it stands.
        tower: where its vision tower is, unless the checkpoint itself holds it.
    """

    name: str
    place: str
    hub: dict[str, Any]
    raw: Mapping[str, Any]
    tower: TowerSource

    def __post_init__(self) -> None:
        check_convertible(self.name, self.raw)

    @cached_property
    def config(self) -> Any:
        """The configuration of the model in Hugging Face format.

        Raises:
            CheckpointError: no tokenizer, or no vision tower.
        """
        text, vision = self._text_config(), self.tower.config()
        fields: dict[str, Any] = {
            "text_config": text,
            "vision_config": vision,
            "image_token_index": self.tokenizer.convert_tokens_to_ids(IMAGE),
            "vision_feature_layer": self.raw.get("mm_vision_select_layer", -2),
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": bool(text.tie_word_embeddings),
            "dtype": text.dtype,
        }
        if has_tiles(self.raw):
            return LlavaNextConfig(**fields, image_grid_pinpoints=grid_pinpoints(self.name, self.raw))
        return LlavaConfig(**fields, image_seq_length=(vision.image_size // vision.patch_size) ** 2)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint, with `<image>` as a token of its own.

        What LLaVA's own code tokenizes apart, the texts before and behind the image, begin with a space each; for a
        `tokenizer.model` that is what `legacy` does.

        Raises:
            CheckpointError: there is none.
            DeviceError: a package that reads it is missing.
        """
        if find(self.place, "tokenizer.json", self.hub) is not None:
            words = PreTrainedTokenizerFast.from_pretrained(self.place, **self.hub)
        elif find(self.place, "tokenizer.model", self.hub) is not None:
            self._check_packages()
            words = LlamaTokenizer.from_pretrained(self.place, legacy=True, **self.hub)
        else:
            what = f"model: {self.name}: {self.place} holds no tokenizer (tokenizer.json or tokenizer.model)"
            raise CheckpointError(what, "fetch the checkpoint again")
        if IMAGE not in words.get_vocab():
            words.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
        if words.pad_token is None:
            words.add_special_tokens({"pad_token": "<pad>"})
        words.padding_side = "left"
        return words

    @cached_property
    def processor(self) -> Any:
        """The processor: the vision tower's image processor, cut to what `image_aspect_ratio` asks for.

        Raises:
            CheckpointError: no tokenizer, or no image processor.
        """
        fields, vision = self.tower.image_processing(), self.config.vision_config
        made = {
            "patch_size": vision.patch_size,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        }
        if has_tiles(self.raw):
            images = LlavaNextImageProcessorPil(**fields, image_grid_pinpoints=self.config.image_grid_pinpoints)
            return LlavaNextProcessor(images, self.tokenizer, **made)
        single = LlavaImageProcessorPil(**fields, do_pad=True) if pads(self.raw) else CLIPImageProcessorPil(**fields)
        return LlavaProcessor(single, self.tokenizer, **made)

    @cached_property
    def files(self) -> list[Path]:
        """The files of its own weights; on the hub, they are fetched."""
        folder = Path(self.place)
        return weight_files(folder) if folder.is_dir() else fetched_weights(self.place, self.hub)

    def tensors(self, over: Mapping[str, Held]) -> dict[str, Held]:
        """List all tensors by the names of a loaded LLaVA, those of the vision tower included.

        Args:
            over: tensors that take the place of the checkpoint's, by the same names.

        Raises:
            CheckpointError: no vision tower, neither in the checkpoint nor where it is named.
        """
        own: dict[str, Held] = {}
        for path in self.files:
            own |= renamed(hold(path), module_name)
        own |= over
        if not has_tiles(self.raw):
            own.pop("model.image_newline", None)  # single crops are packed without; LLaVA-1.6 has one all the same
        if not any(name.startswith(_TOWER) for name in own):
            own |= self.tower.tensors()
        rows = self.config.text_config.vocab_size
        return own | {table: with_rows(own[table], rows) for table in _TABLES if table in own}

    def _check_packages(self) -> None:
        missing = [name for name in ("sentencepiece", "google.protobuf") if not is_installed(name)]
        if missing:
            what = f"model: {self.name} has its tokenizer in tokenizer.model, and reading that needs {missing[0]}"
            raise DeviceError(what, "pip install 'adafv[original]'")

    def _text_config(self) -> Any:
        kind = _TEXT[text_type(self.raw)]
        known = (set(kind().to_dict()) | _OLDER) - _NOT_TEXT
        text = kind(**{key: value for key, value in self.raw.items() if key in known})
        last = max(self.tokenizer.get_vocab().values(), default=0)
        if isinstance(text.vocab_size, int) and last >= text.vocab_size:
            text.vocab_size = -(-(last + 1) // _ROWS) * _ROWS
        return text

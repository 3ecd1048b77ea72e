"""Tells two checkpoints apart by what makes an image's encoding: preprocessing, vision tower, projector, newline."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from adafv.errors import DeviceError

_PARTS = ("vision_tower", "multi_modal_projector", "image_newline")
_FIELDS = ("vision_config", "vision_feature_layer", "vision_feature_select_strategy", "image_grid_pinpoints")


def vision_fingerprint(model: Any, processor: Any) -> str:
    """Digest everything that an image's encoding depends on but the image: as 64 hexadecimal digits.

    Args:
        model: the Hugging Face model; its weights are read once (0.6 GB of a ViT-L in 16 bit).
        processor: its processor.

    Raises:
        DeviceError: weights of the vision part that are offloaded.
    """
    digest, config = hashlib.sha256(), model.config.to_dict()
    said = {field: config.get(field) for field in _FIELDS} | {
        "model_type": model.config.model_type,
        "images": processor.image_processor.to_dict(),
        "attention": model.config.vision_config._attn_implementation,
    }
    digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    for name, tensor in model.model.named_parameters():
        if not name.startswith(_PARTS):
            continue
        if tensor.device.type == "meta":
            raise DeviceError(
                f"encodings: {name} is offloaded, so that the checkpoint cannot be told from others",
                "leave --encodings out, or give the vision tower a device (--device-map)",
            )
        digest.update(f"{name} {tensor.dtype} {tensor.device.type} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()

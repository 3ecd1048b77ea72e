"""The vision tower as LLaVA uses it: which layers' outputs are its features, and whether it has a [CLS] token."""

from __future__ import annotations

from typing import Any

from adafv.errors import CheckpointError


def feature_layers(config: Any) -> list[int]:
    """List the hidden states that are the features, in the model's own order.

    0 is what the first layer takes, i the output of the i-th layer. `vision_feature_layer` is one of them or a list;
    negative numbers count from the end.

    Raises:
        CheckpointError: one that the tower does not have.
    """
    layers: int = config.vision_config.num_hidden_layers
    chosen: int | list[int] = config.vision_feature_layer
    listed = [chosen] if isinstance(chosen, int) else chosen
    used = [index if index >= 0 else layers + 1 + index for index in listed]
    if not all(0 <= index <= layers for index in used) or not any(used):
        raise CheckpointError(
            f"vision_feature_layer {chosen} is not the output of one of the tower's {layers} layers",
            "the checkpoint's config.json is wrong: fetch it again",
        )
    return used


def layers_that_run(config: Any) -> int:
    """Count the vision layers up to the deepest one whose output is used; later ones need not be loaded or run."""
    return max(feature_layers(config))


def check_cls_tower(name: str, config: Any) -> None:
    """Refuse a tower for which saliency is not defined.

    Raises:
        CheckpointError: one that is not CLIP's, or whose [CLS] token is kept.
    """
    tower = config.vision_config.model_type
    strategy = getattr(config, "vision_feature_select_strategy", "default")  # ViP-LLaVA knows no other
    if tower != "clip_vision_model" or strategy != "default":
        raise CheckpointError(
            f"model: {name} has a {tower} tower (strategy {strategy!r}); "
            "saliency is defined for a tower with a [CLS] token that is then dropped",
            "use a LLaVA checkpoint with a CLIP tower",
        )

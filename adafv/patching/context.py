"""Puts the patches that prune under the caller's own `generate` into a loaded model, and takes them out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from adafv.budget import Budget
from adafv.errors import InputError
from adafv.patching.patches import Patches
from adafv.settings import RunSettings
from adafv.wrapping import checked

_ENCODER = "get_image_features"


@contextmanager
def pruned(
    model: Any,
    *,
    keep: Budget | str | int = "25%",
    pruner: str = "adafv",
    positions: Literal["compact", "original"] = "compact",
    crop_budget: Literal["joint", "each"] = "joint",
    seed: int = 0,
) -> Iterator[None]:
    """Prune the images of every prompt that `model.generate` is given while the `with` lasts.

    Batches, padding on either side, beams, sampling and streamers work as without; the returned ids begin with the
    whole prompt's. Text alone, and images whose budget covers everything, go the way of the unpruned model. Visual
    tokens are chosen by all text behind the image, since nobody says where the question in it ends.

    Args:
        model: a `LlavaForConditionalGeneration` or its kin of transformers, in evaluation mode.
        keep, pruner, positions, crop_budget, seed: as in `RunSettings`.

    Raises:
        CheckpointError: a model that `adafv.wrap` would refuse, too.
        BudgetError, InputError: a setting that cannot be used, or a model that is being pruned already. `generate`
            raises the latter where a prompt has several images or no text behind its image, and without a cache that
            grows.
    """
    run = RunSettings(keep=keep, pruner=pruner, positions=positions, crop_budget=crop_budget, seed=seed)
    family, inner = checked(model), model.model
    if any(isinstance(getattr(hook, "__self__", None), Patches) for hook in inner._forward_pre_hooks.values()):
        raise InputError("the model is being pruned already", "end the other `with adafv.pruned(...)` first")
    patches = Patches(model, family, run)
    with ExitStack() as undo:
        undo.enter_context(_replaced(inner, _ENCODER, patches.encoding(getattr(inner, _ENCODER))))
        for handle in (
            inner.register_forward_pre_hook(patches.begin, with_kwargs=True),
            inner.language_model.register_forward_pre_hook(patches.cut, with_kwargs=True),
            inner.register_forward_hook(patches.end, always_call=True),
        ):
            undo.callback(handle.remove)
        yield


@contextmanager
def _replaced(module: Any, name: str, function: Any) -> Iterator[None]:
    """Give a module a method of its own, and take it away again."""
    own = vars(module).get(name)
    vars(module)[name] = function
    try:
        yield
    finally:
        del vars(module)[name]
        if own is not None:
            vars(module)[name] = own

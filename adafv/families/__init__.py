"""The registry of families: what is known about one stands in its own file, and nowhere else.

Adding one takes a file here with its stages and its `Family`, its name at the end of `FAMILIES` (errors list them in
that order), and what CONTRIBUTING.md lists.
"""

from __future__ import annotations

from typing import Any

from adafv.errors import CheckpointError
from adafv.families.base import Family
from adafv.families.llava import LLAVA, VIP_LLAVA
from adafv.families.llava_next import LLAVA_NEXT
from adafv.families.llava_onevision import LLAVA_ONEVISION

FAMILIES = {family.model_type: family for family in (LLAVA, LLAVA_NEXT, LLAVA_ONEVISION, VIP_LLAVA)}


def family_of(config: Any) -> Family:
    """Look up the family of a configuration.

    Raises:
        CheckpointError: none of ours.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        what = f"model: the type {config.model_type!r} is not one of {', '.join(FAMILIES)}"
        raise CheckpointError(what, "use a LLaVA checkpoint, for example llava-hf/llava-1.5-7b-hf")
    return family

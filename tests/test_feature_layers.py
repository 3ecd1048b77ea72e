"""The feature layers are read under the names that older and newer versions of transformers have for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adafv.families.tower import choose_layers, chosen_layers, feature_layers, layers_that_run

OF_8 = SimpleNamespace(num_hidden_layers=8)


@pytest.mark.parametrize(
    "names",
    [
        dict(vision_feature_layer=[-2, 3]),
        dict(vision_feature_layers=[-2, 3]),
        dict(
            vision_feature_layer=[-2, 3], vision_feature_layers=(-2, -5, -8)
        ),  # a newer file, read by an older version
    ],
    ids=["newer", "older", "a newer file in an older version"],
)
def test_they_are_read_and_changed(names: dict[str, Any]) -> None:
    config = SimpleNamespace(vision_config=OF_8, **names)
    assert list(chosen_layers(config)) == [-2, 3] and feature_layers(config) == [7, 3] and layers_that_run(config) == 7
    choose_layers(config, [7, 3])
    assert all(getattr(config, name) == [7, 3] for name in {"vision_feature_layer", *names})
    assert feature_layers(config) == [7, 3]

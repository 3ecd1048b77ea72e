"""Whatever is wrong with a checkpoint's files, it either answers or is refused by name: a part of the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

import adafv
from adafv.costs.description import describe
from adafv.costs.plan import plan_image
from adafv.errors import CheckpointError
from adafv.loading.reading import read_config
from adafv.settings import LoadSettings
from tests import tiny
from tests.conftest import noise
from tests.damages import corpus, sample

PART = 14  # of each family; more than 2,000 took a quarter of an hour, and none was anything else


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, tiny.save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("number", range(PART))
def test_answers_or_is_refused_by_name(whole: tuple[str, Path], number: int, tmp_path: Path) -> None:
    family, path = whole
    damage = sample(corpus(family, path), PART, seed=9)[number]
    folder = damage.of(path, tmp_path / "damaged")
    try:
        config = read_config(LoadSettings(str(folder)))
    except CheckpointError as error:
        assert str(folder) in error.what, damage
        with pytest.raises(CheckpointError):
            adafv.load(str(folder))
        return
    describe(config)
    plan_image(config, 56, 150)
    try:
        model = adafv.load(str(folder), dtype="float32", device_map="cpu")
    except CheckpointError as error:
        assert str(folder) in error.what and error.fix, damage
        return
    assert model.ask(noise(150, 56), "is there a red car?", keep=5, max_new_tokens=3).text is not None

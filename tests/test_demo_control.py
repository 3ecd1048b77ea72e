"""The control's recipe: the released vision part to the bit, a language model that never sees a dropped token."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from recipe import control, language_training
from recipe.control import RELEASED, make
from recipe.parallel import Schedule
from recipe.vision_losses import PATCHES


def test_the_control_has_the_released_vision_part_and_sees_every_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    choose = language_training.choose_tokens

    def spy(owners, keep, *rest):
        kept.append(keep)
        return choose(owners, keep, *rest)

    monkeypatch.setattr(language_training, "choose_tokens", spy)
    made = make(tmp_path, 8, Schedule(2, batch=4, warmup=1), 1)
    assert kept == [PATCHES] * 2
    released, own = (load_file(folder / "model.safetensors") for folder in (RELEASED, made))
    assert released.keys() == own.keys()
    seeing = [name for name in own if "language_model" not in name or "embed_tokens" in name]
    assert len(seeing) > 50
    assert all((released[name] == own[name]).all() for name in seeing)
    assert any((released[name] != own[name]).any() for name in own.keys() - seeing)


def test_what_is_made_already_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, 8, Schedule(1, batch=4, warmup=1), 1)
    monkeypatch.setattr(control, "run_parallel", lambda *_: pytest.fail("trained again"))
    make(tmp_path, 8, Schedule(1, batch=4, warmup=1), 1)

"""`adafv info --probe`: how well a checkpoint's words point at its visual tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from adafv.signals.alignment import alignment
from tests.cli_fakes import adafv

STREET = str(Path(__file__).parent.parent / "sample_images" / "street.png")


def test_the_best_word_is_the_question_s_that_peaks_highest() -> None:
    cosine = torch.tensor([[0.1, 0.2, 0.1, 0.2], [0.9, 0.9, 0.9, 0.9], [0.0, 0.6, 0.0, 0.0]])
    found = alignment(cosine, torch.tensor([True, False, True]), 16)
    assert (found.word, found.chance) == (2, 0.25)
    assert found.peak == pytest.approx(0.6)
    assert found.spread == pytest.approx(0.6 * math.sqrt(3) / 4)
    assert found.signal == pytest.approx(math.sqrt((found.spread / 0.25) ** 2 - 1))
    assert alignment(cosine, torch.tensor([True, True, True]), 16).word == 1


def test_words_that_point_nowhere_have_no_signal() -> None:
    generator = torch.Generator().manual_seed(0)
    words, tokens = (torch.randn(count, 4096, generator=generator) for count in (12, 576))
    cosine = torch.nn.functional.cosine_similarity(words[:, None], tokens[None], dim=-1)
    found = alignment(cosine, torch.ones(12, dtype=torch.bool), 4096)
    assert found.spread == pytest.approx(found.chance, rel=0.1) and found.signal < 0.5
    pointed = alignment(cosine + 0.1 * (torch.arange(576) < 40), torch.ones(12, dtype=torch.bool), 4096)
    assert pointed.signal > 1.3


def test_info_probes_images() -> None:
    found = json.loads(adafv("info", "--probe", STREET, "--json").stdout)["probes"]
    assert [one["image"] for one in found] == [STREET]
    assert found[0]["signal"] > 2 and found[0]["word"].isalpha()
    text = adafv("info", "--probe", STREET).stdout
    assert f"signal {found[0]['signal']:.1f}" in text and "words and visual tokens" in text
    assert "words and visual" not in adafv("info").stdout


def test_a_probe_that_is_not_there_is_refused_before_anything_loads() -> None:
    done = adafv("info", "--probe", "nowhere.png")
    assert (done.code, done.stdout) == (2, "")
    assert "--probe: 'nowhere.png' does not exist" in done.stderr


def test_a_probe_loads_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFV_DEVICE_MAP", "nonsense")
    done = adafv("info", "--probe", STREET)
    assert (done.code, done.stdout) == (2, "") and "ADAFV_DEVICE_MAP" in done.stderr
    done = adafv("info", "--probe", STREET, "--device-map", "cpu", "--dtype", "int3")
    assert (done.code, done.stdout) == (2, "") and "--dtype" in done.stderr

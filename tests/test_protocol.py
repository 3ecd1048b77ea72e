"""`--protocol` and `--system`: names for what the published tables were made with, and a record of what was used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import adafv
from adafv import InputError, RunSettings
from adafv.chat_templates import NAMES, SYSTEM_TEXTS, documented, system_name
from adafv.setup import Setup
from tests.batch_fakes import FakeBatchModel, asking, install, questions
from tests.cli_fakes import adafv as command
from tests.conftest import noise

VICUNA = (  # of LLaVA's `conv_vicuna_v1`
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def test_a_name_is_the_text() -> None:
    assert RunSettings(system="vicuna") == RunSettings(system=VICUNA)
    assert {system_name(RunSettings(system=name).system) for name in SYSTEM_TEXTS} == set(SYSTEM_TEXTS)
    for text in ("Be brief.", "be brief", "Brief", "\u7b80\u6d01"):
        assert RunSettings(system=text).system == text == system_name(text)


def test_named_texts_are_those_of_the_templates() -> None:
    assert set(SYSTEM_TEXTS) <= set(NAMES)
    for name in set(SYSTEM_TEXTS) - {"vicuna"}:  # whose template has none, as on the hub
        assert SYSTEM_TEXTS[name] in documented(name).text


@pytest.mark.parametrize(("settings", "said"), [
    ({"system": "vicunna"}, "system: 'vicunna' is no known name"),
    ({"protocol": "publshed"}, "protocol: 'publshed' is not one of published"),
], ids=str)  # fmt: skip
def test_unknown_names_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        RunSettings(**settings)
    assert said in caught.value.what and caught.value.fix.startswith("choose from")
    ((name, value),) = settings.items()
    done = command("ask", "a.png", "what?", f"--{name}", value)
    assert done.code == 2 and f"--{said}" in done.stderr


def test_a_run_records_it_and_goes_on_with_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeBatchModel())
    path, out = questions(tmp_path, *map(asking, range(3))), tmp_path / "out.jsonl"
    settings = out.with_name("out.jsonl.settings.json")
    assert command("batch", path, "-o", str(out), "--protocol", "published", "--system", "vicuna").code == 0
    found = json.loads(settings.read_text())
    assert (found["protocol"], found["pad"], found["system"]) == ("published", None, VICUNA)
    again = ("batch", path, "-o", str(out), "--resume")
    assert command(*again, "--protocol", "published", "--system", VICUNA).code == 0
    refused = command(*again, "--system", "vicuna")
    assert refused.code == 2 and "protocol: published in the file, None asked" in refused.stderr
    refused = command(*again, "--protocol", "published", "--system", "vicuna", "--pad")
    assert refused.code == 2 and "pad: None in the file, True asked" in refused.stderr


def test_a_file_of_an_older_version_goes_on_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeBatchModel())
    path, out = questions(tmp_path, *map(asking, range(3))), tmp_path / "out.jsonl"
    settings = out.with_name("out.jsonl.settings.json")
    assert command("batch", path, "-o", str(out)).code == 0
    found = json.loads(settings.read_text())
    older = {name: value for name, value in found.items() if name not in ("pad", "protocol")}
    settings.write_text(json.dumps(older))
    refused = command("batch", path, "-o", str(out), "--resume", "--pad")
    assert refused.code == 2 and "pad: None in the file, True asked" in refused.stderr
    assert command("batch", path, "-o", str(out), "--resume").code == 0


@pytest.mark.parametrize(("pruner", "wanted"), [
    ("cdpruner", "each"), ("scope", "each"), ("mmtok", "each"), ("visionzip", "each"), ("adafv", "joint"),
    ("divprune", "joint"),
])  # fmt: skip
def test_four_rivals_were_published_with_a_budget_for_each_crop(tiled: adafv.Model, pruner: str, wanted: str) -> None:
    image, settings = noise(150, 90), {"keep": 9, "pruner": pruner, "max_new_tokens": 4}
    published = tiled.explain(image, "what color is the sign?", protocol="published", **settings)
    plain = tiled.explain(image, "what color is the sign?", crop_budget=wanted, **settings)
    assert published.tokens == plain.tokens and published.answer.flops == plain.answer.flops
    assert published.answer.setup == Setup("published", crop_budget=wanted)
    runs = [adafv.RunSettings(keep=9, pruner=pruner, protocol="published", max_new_tokens=4)]
    ((answer,),) = tiled.sweep([adafv.Question(0, image, "what color is the sign?")], runs)
    assert answer.tokens == published.answer.tokens and answer.setup == published.answer.setup


def test_what_is_left_to_the_defaults_is_not_said(llava: adafv.Model) -> None:
    assert llava.ask(noise(60, 60), "what?", max_new_tokens=1).setup is None

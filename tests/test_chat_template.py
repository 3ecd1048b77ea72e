"""Which chat template is in force is chosen by a flag, said when it is not the checkpoint's, and recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import adafv
from adafv import CheckpointError, InputError, chat_templates
from adafv.loading.checkpoint import load_checkpoint
from adafv.settings import LoadSettings
from tests import families, published, tiny
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.damages import field
from tests.spoiling import written

OTHER = tiny.TEMPLATE.replace("USER: ", "Q: ").replace("ASSISTANT:", "A:")


@pytest.fixture(scope="module")
def bare(llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a template of its own."""
    folder = tmp_path_factory.mktemp("bare") / "checkpoint"
    shutil.copytree(llava_folder, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise(60, 60).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_the_checkpoint_s_own_is_not_spoken_of(llava: adafv.Model) -> None:
    assert llava.notes == ()
    assert llava.describe()["chat_template"] == "checkpoint"


def test_a_documented_one_is_named(bare: Path) -> None:
    model = adafv.load(str(bare))
    assert model.describe()["chat_template"] == "vicuna"
    (note,) = model.notes
    assert note.startswith("the checkpoint has no chat template: the documented one vicuna is used")


def test_one_that_is_set_aside_is_spoken_of(bare: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bare, tmp_path / "text")
    written("chat_template.jinja", published.LLAMA3_TEXT)(folder)
    (note,) = adafv.load(str(folder)).notes
    assert note.startswith("the checkpoint's chat template knows no images: the documented one vicuna is used")


@pytest.mark.parametrize("name", chat_templates.NAMES)
def test_a_chosen_name_is_in_force(name: str, llava_folder: Path) -> None:
    loaded = load_checkpoint(LoadSettings(str(llava_folder), chat_template=name))
    assert loaded.prompter.template == chat_templates.documented(name)
    assert loaded.prompter.example.text.count("<image>\nWhat is it?") == 1


def test_a_chosen_file_is_in_force(llava_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(OTHER)
    model = adafv.load(str(llava_folder), chat_template=str(tmp_path / "mine.jinja"))
    assert model.notes == ()
    assert model.describe()["chat_template"] == str(tmp_path / "mine.jinja")
    assert model.render(adafv.Question(0, "x.png", "how?"), adafv.RunSettings()).text == "Q: <image>\nhow? A:"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b" " * 1_000_001, "is empty"),
        (b"x" * 1_000_001, "is larger than 1,000,000 bytes"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
    ids=["none", "empty", "blank", "huge", "bytes"],
)
def test_a_file_that_is_no_template(content: bytes | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        LoadSettings(chat_template=str(file))
    assert caught.value.what.startswith("chat_template: ")
    assert "vicuna, vicuna-next, vip" in caught.value.fix


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{% for", "broken"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content[1].text }}", "made 0 image placeholders"),
        ("<image>", "loses or changes the question"),
        ("{{ raise_exception('never') }}", "never"),
    ],
)
@pytest.mark.parametrize("name", ["ask", "info"])
def test_a_chosen_one_that_cannot_be_used_is_usage(
    name: str, template: str, what: str, llava_folder: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.jinja").write_text(template)
    args = ("ask", str(picture), "what?") if name == "ask" else ("info",)
    result = command(*args, "-m", str(llava_folder), "--chat-template", str(tmp_path / "mine.jinja"))
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("adafv: --chat-template: ")
    assert what in result.stderr


def test_an_unknown_name_is_usage() -> None:
    result = command("info", "--chat-template", "llava")
    assert (result.code, result.stdout) == (2, "")
    assert "--chat-template: 'llava' is no template" in result.stderr


def test_the_note_is_one_line_and_quiet_silences_it(bare: Path, picture: Path) -> None:
    args = ("ask", str(picture), "what?", "-m", str(bare), "--max-new-tokens", "1")
    result = command(*args)
    assert result.code == 0
    assert result.stderr.count("note: the checkpoint has no chat template") == 1
    assert command(*args, "-q").stderr == ""
    assert "no chat template" not in command(*args, "--chat-template", "vicuna").stderr


def test_info_shows_a_prompt_and_why(bare: Path, llava_folder: Path) -> None:
    text = command("info", str(bare)).stdout
    assert "chat template  vicuna\n               since the checkpoint has no chat template\n" in text
    assert "USER: <image>\\nWhat is it? ASSISTANT:\nanswers end at </s>\n" in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert "chat template  the checkpoint's own\n" in command("info", str(llava_folder)).stdout
    found = json.loads(command("info", str(llava_folder), "--chat-template", "mistral", "--json").stdout)["prompts"]
    assert found == {
        "chat_template": "mistral", "reason": "", "example": "[INST] <image>\nWhat is it? [/INST]", "stops": ["</s>"],
        "added_stop": None,
    }  # fmt: skip


def test_info_refuses_what_ask_refuses(llava_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llava_folder, tmp_path / "odd")
    field("processor_config.json", "image_processor.crop_size", {"height": 28, "width": 28})(folder)
    result = command("info", str(folder))
    assert (result.code, result.stdout) == (3, "")
    assert "crop_size.height" in result.stderr


def llama3(folder: Path) -> Path:
    config = families.reduced(published.CONFIGS["llava-llama-3-8b"], vision_layers=2)
    processor: dict[str, Any] = published.CLIP_PREPROCESSOR
    return families.save(folder, config, families.llama3_tokenizer(), processor)


def test_an_answer_ends_where_the_prompt_s_turns_end(tmp_path: Path) -> None:
    """Llama 3's configuration ends at <|end_of_text|> alone, which no answer of a chat model has."""
    folder = llama3(tmp_path / "llama3")
    loaded = load_checkpoint(LoadSettings(str(folder), dtype="float32"))
    assert loaded.model.generation_config.eos_token_id == [128_001, 128_009]
    text = command("info", str(folder)).stdout
    assert "answers end at <|end_of_text|>, <|eot_id|> (<|eot_id|> ends the prompt's turns)\n" in text


def test_resuming_with_another_template_is_refused(llava_folder: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(json.dumps({"image": picture.name, "text": "what?"}) + "\n")
    file, template = tmp_path / "answers.jsonl", tmp_path / "mine.jinja"
    template.write_text(OTHER)
    args = ("batch", str(tmp_path / "questions.jsonl"), "-m", str(llava_folder), "-o", str(file), "-q")
    args += ("--max-new-tokens", "1")
    assert command(*args, "--chat-template", str(template)).code == 0
    assert command(*args, "--chat-template", str(template), "--resume").code == 0
    for other in ("vicuna", None):
        result = command(*args, "--resume", *(("--chat-template", other) if other else ()))
        assert result.code == 2
        assert "chat_template: " in result.stderr
    template.write_text(OTHER.replace("Q: ", "Question: "))
    assert command(*args, "--chat-template", str(template), "--resume").code == 2


def test_a_checkpoint_s_broken_template_names_the_checkpoint(llava_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llava_folder, tmp_path / "broken")
    written("chat_template.jinja", "{{ 1 / 0 }}")(folder)
    with pytest.raises(CheckpointError, match="chat template") as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert str(folder) in caught.value.what
    assert "--chat-template" in caught.value.fix
    load_checkpoint(LoadSettings(str(folder), chat_template="vicuna"))

"""`adafv ask` with a model that needs no weights: what is asked, printed and returned."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.cli_fakes import ANSWER, COMPARISON, FAILURE, FakeModel, adafv, install, picture

FAILED = replace(
    ANSWER, text=None, error=FAILURE, finish_reason=None, tokens=None, latency_s=None, flops=None, memory_bytes=None
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return picture(tmp_path / "scene.png", scene=True)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    return install(monkeypatch, FakeModel())


def test_answer_on_stdout_and_report_on_stderr(image: str, model: FakeModel) -> None:
    done = adafv("ask", image, "what color is the sign?")
    assert (done.code, done.stdout) == (0, "red\n")
    for part in ("144 of 576 kept (25%)", "80 by saliency, 70 by similarity, 6", "TTFT", "TPOT", "FLOPs", "KV cache"):
        assert part in done.stderr
    assert "2 per multiply-accumulate" in done.stderr
    assert "\x1b" not in done.stderr


def test_settings_reach_the_library(image: str, model: FakeModel, tmp_path: Path) -> None:
    places = tmp_path / "map.json"
    places.write_text('{"model.vision_tower": 0, "lm_head": "cpu"}')
    done = adafv(
        "ask", "--keep", "32", image, "q", "-m", "some/model", "--device-map", str(places), "--dtype", "bfloat16",
        "--max-memory", "0=20GiB, cpu=64GiB", "--quantize", "int4", "--attention", "eager", "--revision", "v1",
        "--offline", "--offload-folder", "off", "--pruner", "uniform", "--positions", "original", "--seed", "3",
        "--max-new-tokens", "9", "--temperature", "0.5", "--top-p", "0.9", "--system", "be brief", "--compare",
    )  # fmt: skip
    assert done.code == 0
    (load,), ((source, questions, run),) = model.loaded, model.asked
    assert (load.model, load.device_map) == ("some/model", {"model.vision_tower": 0, "lm_head": "cpu"})
    assert load.max_memory == {0: "20GiB", "cpu": "64GiB"}
    assert (load.dtype, load.quantize, load.attention) == ("bfloat16", "int4", "eager")
    assert (load.revision, load.offline, load.offload_folder) == ("v1", True, "off")
    assert (source, questions) == (image, ["q"])
    assert (run.keep, run.budget.count, run.pruner, run.positions) == ("32", 32, "uniform", "original")
    assert (run.max_new_tokens, run.temperature, run.top_p, run.seed) == (9, 0.5, 0.9, 3)
    assert (run.system, run.compare) == ("be brief", True)


def test_defaults_are_the_librarys(image: str, model: FakeModel) -> None:
    from adafv import LoadSettings, RunSettings

    adafv("ask", image, "q")
    assert model.loaded == [LoadSettings()]
    assert model.asked[0][2] == RunSettings()


def test_flag_beats_environment_beats_default(image: str, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFV_KEEP", "64")
    monkeypatch.setenv("ADAFV_MODEL", "some/model")
    monkeypatch.setenv("ADAFV_DEVICE_MAP", "cpu")
    adafv("ask", image, "q")
    adafv("ask", image, "q", "-k", "all", "-m", "demo", "--device-map", "auto")
    assert [run.keep for _, _, run in model.asked] == ["64", "all"]
    assert [(load.model, load.device_map) for load in model.loaded] == [("some/model", "cpu"), ("demo", "auto")]


def test_several_questions_answer_line_by_line(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = install(monkeypatch, FakeModel([ANSWER, replace(ANSWER, text="two\nlines"), ANSWER]))
    done = adafv("ask", image, "a", "b", "c")
    assert done.stdout == "red\ntwo lines\nred\n"
    assert model.asked[0][1] == ["a", "b", "c"]
    assert "encoded once" in done.stderr


def test_one_question_keeps_its_line_breaks(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([replace(ANSWER, text="two\nlines")]))
    assert adafv("ask", image, "a").stdout == "two\nlines\n"


def test_json_is_one_object_per_question_and_no_report(image: str, model: FakeModel) -> None:
    done = adafv("ask", image, "a", "ü", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["a", "ü"]
    assert lines[0] == replace(ANSWER, prompt="a").to_json()
    assert "ü" in done.stdout
    assert (done.code, done.stderr) == (0, "")


def test_json_is_ascii_where_stdout_is(image: str, model: FakeModel) -> None:
    done = adafv("ask", image, "ü", "--json", encoding="ascii")
    assert json.loads(done.stdout)["prompt"] == "ü"


def test_a_failed_answer_leaves_an_empty_line(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([ANSWER, FAILED, ANSWER]))
    done = adafv("ask", image, "a", "b", "c")
    assert (done.code, done.stdout) == (1, "red\n\nred\n")
    assert "adafv: 'b': saliency has NaN\n  look at the checkpoint\n" in done.stderr


def test_a_single_failed_answer_prints_nothing(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([FAILED]))
    done = adafv("ask", image, "a")
    assert (done.code, done.stdout) == (1, "")


def test_failed_answers_are_json_too(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([FAILED]))
    done = adafv("ask", image, "a", "--json")
    assert done.code == 1
    assert json.loads(done.stdout)["error"]["message"] == "saliency has NaN"


def test_quiet_says_nothing(tmp_path: Path, model: FakeModel) -> None:
    done = adafv("ask", picture(tmp_path / "photo.png"), "a", "-q")
    assert (done.stdout, done.stderr) == ("red\n", "")


def test_verbose_shows_settings_and_stages(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([replace(ANSWER, compare=COMPARISON)]))
    done = adafv("ask", image, "a", "-v", "--compare")
    for part in ("devices        cpu", "keep           25%", "42 text, 2 generated (stop)", "373 G", "agrees: red"):
        assert part in done.stderr
    assert "\nbudget" not in done.stderr


def test_image_bytes_from_stdin(model: FakeModel) -> None:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    assert adafv("ask", "-", "q", stdin=buffer.getvalue()).code == 0
    assert model.asked[0][0] == buffer.getvalue()


@pytest.mark.parametrize("given", [(), ("-",)])
def test_question_from_stdin(image: str, model: FakeModel, given: tuple[str, ...]) -> None:
    assert adafv("ask", image, *given, stdin="  was ist das? ü\n".encode()).code == 0
    assert model.asked[0][1] == ["was ist das? ü"]


def test_image_from_a_pipe_with_a_name(tmp_path: Path, model: FakeModel) -> None:
    content = Path(picture(tmp_path / "a.png")).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert adafv("ask", str(pipe), "q").code == 0
    writer.join()
    assert model.asked[0][0] == content


def test_a_question_may_begin_with_a_dash(image: str, model: FakeModel) -> None:
    assert adafv("ask", image, "--", "-5 or 5?").code == 0
    assert model.asked[0][1] == ["-5 or 5?"]


def test_demo_note_comes_once_and_not_for_its_own_scenes(tmp_path: Path, image: str, model: FakeModel) -> None:
    photo = picture(tmp_path / "photo.png")
    told = adafv("ask", photo, "a", "b", "--json").stderr
    assert told.count("note:") == 1
    assert "-m llava-hf/llava-1.5-7b-hf" in told
    assert told.count("\n") == 1 and len(told.strip()) <= 80
    assert "note:" not in adafv("ask", image, "a").stderr
    assert "note:" not in adafv("ask", photo, "a", "-q").stderr
    model.is_demo = False
    assert "note:" not in adafv("ask", photo, "a").stderr


def test_a_cut_answer_is_noted(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([replace(ANSWER, finish_reason="length"), ANSWER]))
    short = ("--max-new-tokens", "2")
    said = adafv("ask", image, "a", *short).stderr
    assert said.endswith("note: the answer is cut off; --max-new-tokens takes more\n")
    assert "note: 1 of 2 answers are cut off; --max" in adafv("ask", image, "a", "b", *short).stderr
    assert adafv("ask", image, "a").stderr.endswith("note: the answer is cut off: the model's context is full\n")
    assert adafv("ask", image, "a", "--json").stderr == ""


@pytest.mark.parametrize(("most", "noted"), [("4096", False), ("4097", True), ("1000000000", True)])
def test_more_tokens_than_the_context_holds_are_noted(image: str, model: FakeModel, most: str, noted: bool) -> None:
    said = adafv("ask", image, "a", "--max-new-tokens", most).stderr
    assert (f"--max-new-tokens {most} is more than the model's context of 4096 positions" in said) is noted


@pytest.mark.parametrize("verbosity", [(), ("-v",), ("-vv",)])
def test_what_libraries_print_stays_off_stdout(
    image: str, monkeypatch: pytest.MonkeyPatch, verbosity: tuple[str, ...]
) -> None:
    install(monkeypatch, FakeModel(noise="I am a library\n"))
    done = adafv("ask", image, "a", *verbosity)
    assert done.stdout == "red\n"
    assert "I am a library" in done.stderr

"""`adafv show`: the picture, the answer and the data, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adafv.errors import DeviceError
from adafv.explanation import Crop, Explanation, VisualToken, Word
from adafv.families.geometry import Frame
from adafv.settings import RunSettings
from tests.cli_fakes import ANSWER, FakeModel, adafv, install, picture

QUESTION = "what color is the sign?"


def explanation(image: Any, question: str) -> Explanation:
    with Image.open(BytesIO(image) if isinstance(image, bytes) else image) as opened:
        upright = opened.convert("RGB")
    width, height = upright.size
    frame = Frame.whole(width, height)
    tokens = tuple(
        VisualToken(
            0, cell, frame.window(cell * width // 2, 0, width // 2, height).seen, 0.1, 0.2, 0, not cell, True, False
        )
        for cell in range(2)
    )
    answer = replace(ANSWER, prompt=question)
    return Explanation(
        answer, upright, (Crop(upright, frame),), ((1, 2),), tokens, (Word("sign", True, 0.2),), "attention of [CLS]"
    )


class Explaining(FakeModel):
    """Explains anything; remembers what it was asked."""

    failure: BaseException | None = None

    def explain(self, image: Any, question: str, run: RunSettings) -> Explanation:
        self.asked.append((image, [question], run))
        if self.failure is not None:
            raise self.failure
        return explanation(image, question)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return picture(tmp_path / "scene.png", scene=True)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Explaining:
    model = Explaining()
    install(monkeypatch, model)
    return model


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")])
def test_a_picture_an_answer_and_a_report(
    tmp_path: Path, image: str, model: Explaining, name: str, start: bytes
) -> None:
    out = tmp_path / name
    done = adafv("show", image, QUESTION, "-o", str(out), "--dpi", "60")
    assert (done.code, done.stdout) == (0, "red\n")
    assert out.read_bytes().startswith(start)
    assert "144 of 576 kept" in done.stderr and done.stderr.endswith(f"picture        {out}\n")
    assert "\x1b" not in done.stderr and "note:" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "scene.png"])  # no temporary file


def test_a_picture_is_replaced(tmp_path: Path, image: str, model: Explaining) -> None:
    out = tmp_path / "a.png"
    assert adafv("show", image, QUESTION, "-o", str(out), "--dpi", "60").code == 0
    first = out.read_bytes()
    assert adafv("show", image, QUESTION, "--dpi", "60", "-qo", str(out)).stderr == ""
    assert out.read_bytes() == first


def test_json_with_and_without_a_picture(tmp_path: Path, image: str, model: Explaining) -> None:
    done = adafv("show", image, QUESTION, "--json")
    assert (done.code, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    found = json.loads(done.stdout)
    assert found == json.loads(json.dumps(explanation(image, QUESTION).to_json()))
    assert found["text"] == "red" and found["visual_tokens"]["kept"] == [True, False]
    both = adafv("show", image, QUESTION, "--json", "-o", str(tmp_path / "a.png"), "--dpi", "60")
    assert json.loads(both.stdout) == found
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_settings_reach_the_library(tmp_path: Path, image: str, model: Explaining) -> None:
    done = adafv(
        "show", image, QUESTION, "--json", "-m", "some/model", "--keep", "32", "--pruner", "uniform", "--seed", "3",
        "--system", "be brief", "--max-new-tokens", "9", "--dtype", "bfloat16",
    )  # fmt: skip
    assert done.code == 0
    (load,), ((source, questions, run),) = model.loaded, model.asked
    assert (load.model, load.dtype, source, questions) == ("some/model", "bfloat16", image, [QUESTION])
    assert (run.keep, run.pruner, run.seed, run.system, run.max_new_tokens) == ("32", "uniform", 3, "be brief", 9)


def test_image_and_question_from_stdin(image: str, model: Explaining) -> None:
    content = Path(image).read_bytes()
    assert adafv("show", "-", QUESTION, "--json", stdin=content).code == 0
    assert adafv("show", image, "--json", stdin="was ist das? ü\n".encode()).code == 0
    assert [(source, asked) for source, asked, _ in model.asked] == [(content, [QUESTION]), (image, ["was ist das? ü"])]


def test_the_demo_says_that_it_knows_no_photos(tmp_path: Path, model: Explaining) -> None:
    photo = picture(tmp_path / "photo.png")
    assert adafv("show", photo, QUESTION, "--json").stderr.count("note:") == 1
    model.is_demo = False
    assert "note:" not in adafv("show", photo, QUESTION, "--json").stderr


REFUSED = [
    ((), 2, ("-o FILE is missing", "--json")),
    (("-o", "a.jpg"), 2, ("a.jpg", ".jpg", ".png, .svg, .pdf")),
    (("-o", "noextension"), 2, ("noextension", "without an extension", ".png")),
    (("-o", "-"), 2, ("without an extension",)),
    (("-o", "missing/a.png"), 2, ("missing/a.png", "its folder does not exist")),
    (("-o", "folder.png"), 2, ("folder.png", "is a folder")),
    (("-o", "scene.png"), 2, ("scene.png is the input",)),
    (("-o", "a.png", "--dpi", "5"), 2, ("--dpi: 5", "50", "1200")),
    (("--json", "--compare"), 2, ("--compare", "adafv ask --compare")),
    (("--json", "--keep", "0"), 2, ("--keep",)),
    (("--json", "--pruner", "salient"), 2, ("salient", "saliency")),
]


@pytest.mark.parametrize(("args", "code", "parts"), REFUSED, ids=[" ".join(args) for args, _, _ in REFUSED])
def test_what_is_refused_before_a_model_is_loaded(
    tmp_path: Path, image: str, model: Explaining, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int,
    parts: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    done = adafv("show", "scene.png", QUESTION, *args)
    assert (done.code, done.stdout, model.loaded) == (code, "", [])
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (("missing.png", QUESTION), 2, "missing.png"),
        (("http://x/y.jpg", QUESTION), 2, "curl -sL http://x/y.jpg | adafv show -"),
        (("-", "-"), 2, "cannot both come from standard input"),
        (("text.png", QUESTION), 4, "not an image"),
        (("scene.png", "  "), 4, 'adafv show IMAGE "what is this?"'),
    ],
)
def test_input_that_cannot_be_read(
    tmp_path: Path, image: str, model: Explaining, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int,
    part: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    done = adafv("show", *args, "--json")
    assert (done.code, done.stdout, model.loaded) == (code, "", [])
    assert part in done.stderr


def test_failures_leave_the_old_picture(tmp_path: Path, image: str, model: Explaining) -> None:
    out = tmp_path / "a.png"
    out.write_text("old")
    model.failure = DeviceError("out of memory", "use less")
    assert adafv("show", image, QUESTION, "-o", str(out), "--force").code == 3
    assert out.read_text() == "old"


def test_a_disk_that_is_full(tmp_path: Path, image: str, model: Explaining, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adafv_cli.writing.write_bytes", full)
    done = adafv("show", image, QUESTION, "-o", str(tmp_path / "a.png"), "--dpi", "60")
    assert done.code == 1 and "No space left on device" in done.stderr
    assert done.stdout == "red\n"  # the answer is not lost


def test_a_cut_answer_is_noted(image: str, model: Explaining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = replace(explanation(image, QUESTION), answer=replace(ANSWER, finish_reason="length"))
    monkeypatch.setattr(model, "explain", lambda *_: cut)
    done = adafv("show", image, QUESTION, "-o", str(tmp_path / "a.png"), "--dpi", "60", "--max-new-tokens", "2")
    assert "the answer is cut off; --max-new-tokens takes more" in done.stderr


def test_the_demo_for_real(tmp_path: Path) -> None:
    street = Path(__file__).parent.parent / "sample_images" / "street.png"
    out = tmp_path / "a.png"
    done = adafv("show", str(street), QUESTION, "--json", "-o", str(out), "-m", "demo", "--keep", "25%")
    assert done.code == 0
    found = json.loads(done.stdout)
    assert found["text"] == "red"
    words = [word["text"] for word in sorted(found["words"], key=lambda word: -word["similarity"]) if word["own"]]
    assert words[0] == "sign"
    assert sum(found["visual_tokens"]["kept"]) == 64
    with Image.open(out) as opened:
        assert opened.width > 1000


def test_help_starts_with_examples_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from adafv_cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'PIL', 'numpy', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    env = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "GITHUB_ACTIONS")}
    env |= {"TERM": "dumb", "COLUMNS": "80"}
    command = [sys.executable, "-c", code, "show", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.index("adafv show sample_images/street.png") < done.stdout.index("--model")
    for flag in ("-o", "--output", "--dpi", "--json", "--keep", "--pruner", "Exit codes"):
        assert flag in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80

"""`--resume` never gives the answer of another image or question: it goes on with the right lines, or says why not."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adafv.records import Answer, Question
from adafv.settings import RunSettings
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import Result, adafv
from tests.resume_edits import Editor, identity, wrong


class Seeing(FakeBatchModel):
    """Answers with the content of the image."""

    def says(self, question: Question, run: RunSettings) -> str:
        if isinstance(question.image, bytes):
            return f"{question.text} {hashlib.sha256(question.image).hexdigest()}"
        path = Path(question.image)
        return f"{question.text} {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.exists() else ""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch, Seeing())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def captions(folder: Path, *images: str) -> str:
    """A captioning file: no ids, one question."""
    path = questions(folder, *({"image": image, "text": "describe it"} for image in images))
    Image.new("RGB", (24, 16), "blue").save(folder / "b.png")
    return path


def again(path: str, out: Path, *flags: str, command: str = "batch") -> Result:
    return adafv(command, path, "-o", str(out), "--resume", *flags)


def refused(done: Result, model: FakeBatchModel, out: Path, before: bytes, part: str) -> None:
    assert (done.code, model.loaded) == (2, [])
    assert part in done.stderr and "--force" in done.stderr
    assert out.read_bytes() == before


def test_answers_say_which_image_they_are_about(tmp_path: Path, model: FakeBatchModel) -> None:
    path = captions(tmp_path, "./a.png")
    content = (tmp_path / "a.png").read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    lines = [{"image": "./a.png", "text": "q"}, {"image": uri, "text": "q"}, asking(3, "gone.png"), "broken"]
    path = questions(tmp_path, *lines)
    found = [answer["image"] for answer in answers(adafv("batch", path).stdout)]
    key = hashlib.sha256(content).hexdigest()
    assert found == [
        {"name": "./a.png", "key": key}, {"name": "data:image/png;base64", "key": key},
        {"name": "gone.png", "key": None}, None,
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["batch", "sweep"])
def test_a_line_in_front_of_lines_without_ids(tmp_path: Path, model: FakeBatchModel, out: Path, command: str) -> None:
    adafv(command, captions(tmp_path, "a.png", "a.png"), "-o", str(out))
    before, _ = out.read_bytes(), model.loaded.clear()
    done = again(captions(tmp_path, "b.png", "a.png", "a.png"), out, command=command)
    refused(done, model, out, before, "the answer to question_id 1 is about another image than line 1's")


def test_lines_behind_the_others_are_new(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", captions(tmp_path, "a.png"), "-o", str(out))
    assert again(captions(tmp_path, "a.png", "b.png"), out).code == 0
    assert [answer["image"]["name"] for answer in answers(out.read_text())] == ["a.png", "b.png"]


def test_an_image_that_was_exchanged(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(7))
    adafv("batch", path, "-o", str(out))
    before, _ = out.read_bytes(), model.loaded.clear()
    Image.new("RGB", (24, 16), "blue").save(tmp_path / "a.png")
    part = "the answer to question_id 7 is about an earlier content of the image than line 1's"
    refused(again(path, out), model, out, before, part)
    piped = adafv("batch", "-", "--image-folder", str(tmp_path), "-o", str(out), "--resume",
                  stdin=Path(path).read_bytes())  # fmt: skip
    assert piped.code == 1 and "about an earlier content of the image than this line's" in piped.stderr
    assert [answer["question_id"] for answer in answers(out.read_text())] == [7, "line 1"]


def test_an_image_that_is_gone_is_known_by_its_name(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = captions(tmp_path, "a.png")
    adafv("batch", path, "-o", str(out))
    (tmp_path / "a.png").unlink()
    model.loaded.clear()
    done = again(path, out)
    assert (done.code, model.loaded) == (0, [])
    Path(path).write_text(json.dumps({"image": "gone.png", "text": "describe it"}) + "\n")
    refused(again(path, out), model, out, out.read_bytes(), "is about another image than line 1's")


def test_an_image_may_move(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", captions(tmp_path, "a.png"), "-o", str(out))
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"image": "c.png", "text": "describe it"}) + "\n")
    assert again(str(path), out).code == 0
    assert len(answers(out.read_text())) == 1


def test_repeated_ids_and_images_inside_the_lines(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    captions(tmp_path)
    uris = ["data:image/png;base64," + base64.b64encode((tmp_path / name).read_bytes()).decode()
            for name in ("a.png", "b.png")]  # fmt: skip
    lines = [asking(1, uri) | {"text": f"question {number}"} for number, uri in enumerate(uris)]
    adafv("batch", questions(tmp_path, *lines), "-o", str(out), "--repeated-ids")
    assert again(questions(tmp_path, *lines), out, "--repeated-ids").code == 0
    lines[0]["image"], lines[1]["image"] = lines[1]["image"], lines[0]["image"]
    done = again(questions(tmp_path, *lines), out, "--repeated-ids")
    assert done.code == 2 and "question_id 1 is about" in done.stderr


def test_a_line_that_is_no_question_any_more(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", questions(tmp_path, asking(1), asking(2)), "-o", str(out))
    done = again(questions(tmp_path, asking(1) | {"image": "http://x.org/a.png"}, asking(2)), out)
    assert done.code == 2 and "question_id 1 is about another image" in done.stderr


def test_a_file_with_answers_about_different_images_to_one_id(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    parts = [tmp_path / f"part{number}.jsonl" for number in (1, 2)]
    for part, image in zip(parts, ("a.png", "b.png"), strict=True):
        adafv("batch", captions(tmp_path, image), "-o", str(part))
    out.write_bytes(b"".join(part.read_bytes() for part in parts))
    done = again(captions(tmp_path, "a.png"), out)
    assert done.code == 4 and "has answers about different images with question_id 1" in done.stderr


@pytest.mark.parametrize("image", [None, "a.png", {}, {"name": "a.png", "key": None}])
def test_answers_that_do_not_say_of_which_image(
    tmp_path: Path, model: FakeBatchModel, out: Path, image: object
) -> None:
    """As older versions wrote them."""
    path = questions(tmp_path, asking(1), asking(2))
    adafv("batch", path, "-o", str(out))
    old = [answer | {"image": image} for answer in answers(out.read_text())]
    if image is None:
        old = [{name: value for name, value in answer.items() if name != "image"} for answer in old]
    out.write_text("".join(json.dumps(answer) + "\n" for answer in old))
    before, _ = out.read_bytes(), model.loaded.clear()
    done = again(path, out)
    assert (done.code, model.loaded, out.read_bytes()) == (4, [], before)
    assert "line 1 of" in done.stderr and "does not say which image it is about" in done.stderr


def test_the_library_says_which_image_too(llava: Any, tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 60), "red")
    picture.save(tmp_path / "a.png")
    key = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    content = (tmp_path / "a.png").read_bytes()
    asked = [Question(number, source, "what?")
             for number, source in enumerate([tmp_path / "a.png", content, b"no image", picture])]  # fmt: skip
    asked.append(Question(4, content, "what?", image_name="mine"))
    found: list[Answer] = list(llava.batch(asked, max_new_tokens=1))
    about = [(answer.image.name, answer.image.key) for answer in found if answer.image]
    assert about[:3] == [(str(tmp_path / "a.png"), key), (None, key), (None, None)]
    assert about[3][0] is None and about[3][1] not in (key, None)
    assert about[4] == ("mine", key)
    alone = llava.ask(tmp_path / "a.png", "what?", max_new_tokens=1)
    assert alone.image == found[0].image
    assert llava.explain(picture, "what?", max_new_tokens=1).answer.image == found[3].image


@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_edits_between_runs_that_are_killed(
    tmp_path: Path, model: FakeBatchModel, out: Path, seed: int
) -> None:
    """A kill leaves whole lines and at most a torn one: here it is made by cutting the file."""
    editor, chance, ended = Editor(tmp_path, seed), random.Random(seed), Counter[int]()
    command, flags, repeated, edits = ("batch", "sweep")[seed // 2], ["--keep", "25%"], seed % 2 == 1, 0
    flags += ["--repeated-ids"] if repeated else []
    while edits < 50:
        done = again(str(editor.write()), out, *flags, command=command)
        ended[done.code] += 1
        if done.code == 2:
            assert "the answer to question_id" in done.stderr
            out.unlink()  # as the advice says: another file
            continue
        assert done.code in (0, 1), done.stderr
        found, expected = answers(out.read_text()), editor.expected(repeated=repeated)
        ids = [identity(answer["question_id"], answer["prompt"], repeated=repeated) for answer in found]
        once = {(one, answer["keep"]) for one, answer in zip(ids, found, strict=True)}
        assert len(once) == len(found) and set(ids) >= expected.keys()
        assert not wrong(found, expected, repeated=repeated)
        if chance.random() < 0.5:
            raw = out.read_bytes()
            out.write_bytes(raw[: chance.randint(len(raw) // 2, len(raw))])
        for _ in range(chance.randint(1, 3)):
            editor.edit()
            edits += 1
    assert ended[2] >= 5 and ended[0] + ended[1] >= 10


def test_answers_to_questions_that_are_no_longer_asked(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", questions(tmp_path, asking(1), asking(2), asking(3)), "-o", str(out))
    done = again(questions(tmp_path, asking(2)), out)
    assert "note: 2 answers in answers.jsonl are to questions that the input does not have" in done.stderr
    assert "note:" not in again(questions(tmp_path, asking(1), asking(2), asking(3)), out).stderr

"""`adafv batch` from file to stdout: what is asked, printed and returned, with a model that needs no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adafv import BatchSettings, RunSettings
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


def test_one_line_in_one_line_out_in_order(tmp_path: Path, model: FakeBatchModel) -> None:
    done = adafv("batch", questions(tmp_path, *[asking(number) for number in range(50)]))
    found = answers(done.stdout)
    assert done.code == 0
    assert [answer["question_id"] for answer in found] == list(range(50))
    assert [answer["text"] for answer in found] == [f"re: question {number}" for number in range(50)]
    assert done.stderr.startswith("questions      50 answered in ")
    for part in ("questions/s", "p50 38.3 ms, p95 38.3 ms", "7200 of 28800 kept, 75% saved", "66% saved",
                 "1 encoded, 49 cache hits"):  # fmt: skip
        assert part in done.stderr, done.stderr


def test_keys_come_in_the_documented_order(tmp_path: Path, model: FakeBatchModel) -> None:
    (found,) = answers(adafv("batch", questions(tmp_path, asking(1) | {"category": "x"})).stdout)
    assert list(found)[:6] == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert list(found)[6:] == [
        "image", "finish_reason", "pruner", "keep", "tokens", "latency_s", "flops", "memory_bytes", "error"
    ]  # fmt: skip
    assert found["metadata"] == {"category": "x"}


def test_letters_are_not_escaped(tmp_path: Path, model: FakeBatchModel) -> None:
    done = adafv("batch", questions(tmp_path, asking(1) | {"text": "was ist grün? 绿"}))
    assert "was ist grün? 绿" in done.stdout
    done = adafv("batch", questions(tmp_path, asking(1) | {"text": "was ist grün? 绿"}), encoding="latin-1")
    assert answers(done.stdout)[0]["prompt"] == "was ist grün? 绿"


def test_settings_reach_the_library(tmp_path: Path, model: FakeBatchModel) -> None:
    adafv("batch", questions(tmp_path, asking(1)), "-m", "some/model", "--keep", "32", "--batch-size", "4")
    adafv("batch", questions(tmp_path, asking(1)))
    assert [load.model for load in model.loaded] == ["some/model", "demo"]
    assert model.runs == [(RunSettings(keep="32"), BatchSettings(batch_size=4)), (RunSettings(), BatchSettings())]


def test_from_standard_input(tmp_path: Path, model: FakeBatchModel) -> None:
    path = Path(questions(tmp_path, asking(1), {"image": "b.png", "question": "q"}))
    done = adafv("batch", "-", "--image-folder", str(tmp_path), stdin=path.read_bytes())
    assert [answer["question_id"] for answer in answers(done.stdout)] == [1, 2]
    assert done.code == 0
    assert [question.image for question in model.asked] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_images_are_beside_the_file_or_in_the_folder(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, asking(1))
    (tmp_path / "deep").mkdir()
    deep = questions(tmp_path / "deep", asking(2))
    adafv("batch", path)
    adafv("batch", path, "--image-folder", str(tmp_path / "deep"))
    adafv("batch", deep)
    images = [tmp_path / "a.png", tmp_path / "deep" / "a.png", tmp_path / "deep" / "a.png"]
    assert [question.image for question in model.asked] == [str(image) for image in images]


def test_bad_lines_become_errors_in_their_place(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(
        tmp_path,
        asking(10),
        "no JSON",
        {"question_id": 12, "image": "a.png"},
        asking(13, "gone.png"),
        asking(14, "https://x.org/a.png"),
        asking(15, "gone-too.png"),
        asking(16),
    )
    done = adafv("batch", path)
    found = answers(done.stdout)
    assert done.code == 1
    assert [answer["question_id"] for answer in found] == [10, 2, 12, 13, 14, 15, 16]
    assert [answer["text"] is None for answer in found] == [False, True, True, True, True, True, False]
    errors = [answer["error"]["type"] for answer in found if answer["error"]]
    assert errors == ["InputError", "InputError", "ImageError", "ImageError", "ImageError"]
    assert (found[1]["model_id"], found[1]["pruner"], found[1]["keep"]) == ("demo", "adafv", "25%")
    assert "note: 2 of 7 images are missing (line 4: " in done.stderr
    assert "adafv: 5 of 7 lines failed:" in done.stderr
    assert "2 x ImageError" in done.stderr and "ids 13, 15; check the path" in done.stderr
    assert "web address" in done.stderr and "id 14" in done.stderr


def test_quiet_says_only_what_failed(tmp_path: Path, model: FakeBatchModel) -> None:
    done = adafv("batch", questions(tmp_path, asking(1)), "-q")
    assert (done.code, done.stderr) == (0, "")
    done = adafv("batch", questions(tmp_path, asking(1), asking(2, "gone.png")), "-q")
    assert done.stderr.startswith("adafv: 1 of 2 lines failed:\n  ImageError: ")


def test_fail_fast_stops_at_the_first(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, asking(1), asking(2, "gone.png"), *[asking(number) for number in range(3, 100)])
    done = adafv("batch", path, "--fail-fast", "--batch-size", "1")
    assert done.code == 1
    assert [answer["question_id"] for answer in answers(done.stdout)] == [1, 2]
    assert "adafv: 1 of 2 lines failed:" in done.stderr


def test_a_line_that_has_another_lines_number(tmp_path: Path, model: FakeBatchModel) -> None:
    done = adafv("batch", questions(tmp_path, asking(2), "broken", asking(1)))
    assert [answer["question_id"] for answer in answers(done.stdout)] == [2, "line 2", 1]


def test_a_broken_line_of_a_pipe_takes_no_other_lines_id(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = ["broken", asking(1), {"image": "a.png", "text": "q"}, asking(4) | {"question_id": "line 1"}, "broken"]
    path = Path(questions(tmp_path, *lines))
    done = adafv("batch", "-", "--image-folder", str(tmp_path), stdin=path.read_bytes())
    assert [answer["question_id"] for answer in answers(done.stdout)] == ["line 1", 1, 3, "line 4", "line 5"]
    again = adafv("batch", str(path))
    assert [answer["question_id"] for answer in answers(again.stdout)] == ["line 1*", 1, 3, "line 1", 5]


def test_a_terminal_gets_the_answers_themselves(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, asking(1), asking(2, "gone.png"), asking(3) | {"text": "two\nlines"})
    done = adafv("batch", path, stdout_tty=True)
    assert (done.code, done.stdout) == (1, "re: question 1\nre: two lines\n")
    assert "adafv: question_id 2: " in done.stderr and "gone.png does not exist\n  check the path\n" in done.stderr
    assert len(answers(adafv("batch", path, "--json", stdout_tty=True).stdout)) == 3


def test_images_of_a_pipe_that_are_not_here(tmp_path: Path, model: FakeBatchModel) -> None:
    raw = Path(questions(tmp_path, asking(1), asking(2))).read_bytes()
    done = adafv("batch", "-", stdin=raw)
    assert done.code == 1
    said = "note: an image is missing (line 1: 'a.png'); those of a pipe are relative to the working folder, "
    assert said + "or to --image-folder\n" in done.stderr
    done = adafv("batch", "-", "--image-folder", str(tmp_path), stdin=raw)
    assert done.code == 0 and "note:" not in done.stderr


def test_verbose_shows_what_was_chosen(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, asking(1))
    done = adafv("batch", path, "-v", "--batch-size", "3", "--shard", "1/1", "-o", str(tmp_path / "out.jsonl"))
    for part in ("devices        cpu", "keep           25%", f"input          {path}", "batch size     3",
                 "shard          1/1", f"output         {tmp_path / 'out.jsonl'}"):  # fmt: skip
        assert part in done.stderr, done.stderr


def test_what_a_library_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeBatchModel(noise="loading weights: 100%\n"))
    done = adafv("batch", questions(tmp_path, asking(1)))
    assert len(answers(done.stdout)) == 1
    assert "loading weights" in done.stderr


def test_a_model_that_gives_up_keeps_what_was_written(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, asking(1), asking(2), asking(3) | {"text": "explode"}, asking(4))
    done = adafv("batch", path, "--batch-size", "1", "-o", str(tmp_path / "out.jsonl"))
    assert done.code == 1
    assert "adafv: the model gave up\n  think again\n" in done.stderr
    assert "--resume" in done.stderr
    assert len(answers((tmp_path / "out.jsonl").read_text())) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_complete_and_stable(tmp_path: Path, model: FakeBatchModel, count: int) -> None:
    images = [f"{name}.png" for name in "abcdefgh"]
    lines: list[object] = [asking(number, images[number % 8]) for number in range(40)]
    path = questions(tmp_path, *lines, "broken", asking(77, "./a.png"))
    parts = [answers(adafv("batch", path, "--shard", f"{part}/{count}").stdout) for part in range(1, count + 1)]
    again = [answers(adafv("batch", path, "--shard", f"{part}/{count}").stdout) for part in range(1, count + 1)]
    ids = [[answer["question_id"] for answer in part] for part in parts]
    assert ids == [[answer["question_id"] for answer in part] for part in again]
    assert sorted(one for part in ids for one in part) == sorted([*range(40), 41, 77])
    for part in ids:
        own = {number % 8 for number in part if number < 40}
        assert all(number in part for number in range(40) if number % 8 in own)
        assert (77 in part) == (0 in own)


def test_llavas_scripts_read_the_answers(tmp_path: Path, model: FakeBatchModel) -> None:
    """The accesses of eval_pope, eval_textvqa, the convert_* scripts and model_vqa_loader's readers."""
    short = "\nAnswer the question using a single word or phrase."
    lines = [
        {"question_id": number, "image": "a.png", "text": f"Is there a cat?{short}", "category": "adversarial"}
        for number in range(3)
    ]
    path, out = questions(tmp_path, *lines), tmp_path / "answers.jsonl"
    assert adafv("batch", path, "-o", str(out)).code == 0
    asked = {line["question_id"]: line for line in map(json.loads, Path(path).read_text().split("\n")[:-1])}
    found = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert [answer for answer in found if asked[answer["question_id"]]["category"] == "adversarial"] == found
    for answer in found:
        # eval_pope's reading of an answer; the fake model answers with the question
        assert answer["text"].split(".")[0].replace(",", "").split(" ")[:4] == ["re:", "Is", "there", "a"]
        assert answer["prompt"].split("\n")[0] == "Is there a cat?" and len(answer["prompt"].split("\n")) == 2
        assert isinstance(answer["answer_id"], str) and len(answer["answer_id"]) == 22
        assert answer["model_id"] == "demo" and isinstance(answer["metadata"], dict)
    assert {answer["question_id"]: answer["text"] for answer in found}.keys() == asked.keys()

"""Benchmarks as they are shipped: a file of each form, made of the demo's questions, its score worked out by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adafv.benchmark_files import BENCHMARKS
from adafv.records import Question
from adafv.settings import RunSettings
from tests import benchmark_forms as forms
from tests.batch_fakes import FakeBatchModel, install
from tests.cli_fakes import Result, adafv

Says = Callable[[Question], str]


@dataclass
class Scripted(FakeBatchModel):
    """Says what a test says; unpruned it says the same."""

    script: Says = field(default=lambda question: "")

    def says(self, question: Question, run: RunSettings) -> str:
        return self.script(question)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    found = Scripted()
    install(monkeypatch, found)
    return found


def given(name: str, form: forms.Form, *flags: str, command: str = "sweep") -> Result:
    answers = ["--answers", str(form.answers)] if form.answers is not None else []
    folder = ["--image-folder", str(form.images)]
    return adafv(command, str(form.questions), "--benchmark", name, *answers, *folder, *flags)


def scored(name: str, form: forms.Form, *flags: str) -> dict[str, Any]:
    done = given(name, form, "--keep", "25%", *flags)
    assert done.code == 0, done.stderr
    point: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    assert json.loads(done.stdout.splitlines()[1])["accuracy"] == point["accuracy"]
    return point


def right(question: Question) -> str:
    """Whatever is right, as the metadata have it."""
    data = question.metadata
    return str(data.get("label") or data.get("answer") or data["answers"][0]["answer"])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_form_is_asked_as_llava_does(tmp_path: Path, model: Scripted, name: str) -> None:
    form = forms.FORMS[name](tmp_path / name)
    done = given(name, form, command="batch")
    assert done.code == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers and all(answer["error"] is None for answer in answers)
    assert all(answer["prompt"].endswith(f"\n{BENCHMARKS[name].suffix}") for answer in answers)
    assert not any(answer["prompt"].count(forms.SHORT) > 1 for answer in answers)
    assert len({json.dumps(answer["question_id"]) for answer in answers}) == len(answers)
    plain = given(name, form, "--suffix", "", command="batch").stdout.splitlines()
    assert not any(BENCHMARKS[name].suffix in json.loads(line)["prompt"] for line in plain)


def test_pope_is_yes_or_no_over_its_three_files(tmp_path: Path, model: Scripted) -> None:
    form = forms.pope(tmp_path)
    model.script = lambda question: "Yes, it is." if question.metadata["category"] == "random" else right(question)
    point = scored("pope", form)
    # 22 questions, 7 of them yes; of the 7 random ones all are answered yes.
    labels = [one["answer"] for one in forms.yes_no()[2::3]]
    wrong = labels.count("no")
    assert point["accuracy"] | {"low": 0, "high": 0} == {
        "metric": "yes-no", "questions": 22, "value": pytest.approx(1 - wrong / 22, abs=1e-6), "low": 0, "high": 0,
    }  # fmt: skip
    assert point["yes_no"]["precision"]["value"] == pytest.approx(7 / (7 + wrong), abs=1e-6)
    assert point["groups"]["random"]["accuracy"]["value"] == pytest.approx(1 - wrong / 7, abs=1e-6)
    joined = tmp_path / "joined.json"
    joined.write_text("".join(path.read_text() for path in sorted(tmp_path.glob("coco_pope_*.json"))))
    assert scored("pope", forms.Form(joined))["accuracy"]["questions"] == 22


def test_pope_s_labels_may_lie_apart(tmp_path: Path, model: Scripted) -> None:
    model.script = right
    labels = forms.pope(tmp_path / "labels").questions
    asked = [
        {"question_id": number, "image": one["image"], "text": f"{one['text']}\n{forms.SHORT}", "category": "random"}
        for number, one in enumerate(forms.yes_no()[2::3])
    ]
    form = forms.Form(forms.lines(tmp_path / "llava_pope_test.jsonl", asked), labels)
    assert scored("pope", form)["accuracy"]["value"] == 1


def test_textvqa_splits_the_s_off(tmp_path: Path, model: Scripted) -> None:
    """Of ten people six say `red`, three `red's`, which is `red 's` there, and one an article, which is nothing."""
    model.script = lambda question: [
        f"{question.metadata['answers'][0]}",
        f"{question.metadata['answers'][0]}'s",
        "A",
        "?",
    ][
        question.question_id % 4  # type: ignore[operator]
    ]
    # 8 questions: two say what six said (1), two what three said: left out one of them (3/10) two others say so, 2/3,
    # else (7/10) three do, 1: 0.9; two what one said: (9/10) one other, 1/3: 0.3; two nothing, as the article is: 0.3.
    for name, hinted in (("textvqa", False), ("textvqa-ocr", True)):
        model.asked.clear()
        point = scored(name, forms.textvqa(tmp_path / name))
        assert point["accuracy"]["metric"] == "textvqa"
        assert point["accuracy"]["value"] == pytest.approx((2 * 1 + 2 * 0.9 + 2 * 0.3 + 2 * 0.3) / 8, abs=1e-6)
        assert all(("Reference OCR token: STOP" in question.text) == hinted for question in model.asked)
    alone = forms.Form(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json")
    done = given("textvqa-ocr", alone)
    assert done.code == 4 and "has no OCR hints" in done.stderr


def test_gqa_compares_letter_by_letter(tmp_path: Path, model: Scripted) -> None:
    forms_of = {0: "{}", 1: "{}.", 2: "{}!", 3: "the {}"}  # the last two are wrong there, and right after normalisation
    model.script = lambda question: forms_of[int(str(question.question_id)) % 4].format(right(question).capitalize())
    form = forms.gqa(tmp_path)
    assert scored("gqa", form)["accuracy"] | {"low": 0, "high": 0} == {
        "metric": "gqa", "questions": 64, "value": 0.5, "low": 0, "high": 0,
    }  # fmt: skip
    assert scored("gqa", form, "--metric", "exact")["accuracy"]["value"] == 1
    alone = forms.Form(form.answers or tmp_path, images=forms.jpgs(tmp_path / "images"))
    assert scored("gqa", alone)["accuracy"]["value"] == 0.5


def test_mme_scores_pairs_within_subtasks(tmp_path: Path, model: Scripted) -> None:
    form = forms.mme(tmp_path)

    def says(question: Question) -> str:
        first = question.text.startswith(first_questions[str(question.metadata["category"]), str(question.image)])
        wrong = question.metadata["category"] == "existence" and "street" in str(question.image) and first
        return "Maybe so" if wrong else f"{right(question).capitalize()}, indeed"

    texts = sorted(tmp_path.rglob("*.txt"))
    first_questions = {}
    for path in texts:
        category = path.relative_to(tmp_path).parts[0]
        images = tmp_path / category / ("images" if path.parent.name == "questions_answers_YN" else "")
        first_questions[category, str(images / f"{path.stem}.png")] = path.read_text().split("?")[0]
    model.script = says
    point = scored("mme", form)
    # existence: 4 images, 8 questions, one wrong: 100 (7/8 + 3/4); code reasoning: all right, 200.
    assert {name: round(one["value"], 4) for name, one in point["scores"].items()} == {
        "perception": 162.5, "cognition": 200.0, "accuracy+": 0.875,
    }  # fmt: skip
    assert point["accuracy"]["value"] == pytest.approx(15 / 16, abs=1e-6)
    asked = [
        {"question_id": f"existence/{scene}.png", "image": f"existence/{scene}.png", "category": "existence",
         "text": f"{line.split(chr(9))[0]}\n{forms.SHORT}"}
        for scene in ("street", "farm", "lake", "meadow")
        for line in (tmp_path / "existence" / f"{scene}.txt").read_text().splitlines()
    ]  # fmt: skip
    beside = forms.Form(forms.lines(tmp_path / "llava_mme.jsonl", asked), tmp_path, tmp_path)
    assert scored("mme", beside)["scores"]["perception"]["value"] == pytest.approx(162.5)
    done = given("mme", forms.Form(tmp_path / "llava_mme.jsonl"))
    assert done.code == 4 and "MME_Benchmark_release_version" in done.stderr


def test_scienceqa_reads_letters_and_leaves_out_what_has_no_image(tmp_path: Path, model: Scripted) -> None:
    said = {"1": "{}", "2": "{}. right", "4": "The answer is {}.", "5": "It is {}", "6": "({})", "8": "{}, I think"}
    model.script = lambda question: said.get(str(question.question_id), "Z").format(right(question))
    form = forms.scienceqa(tmp_path)
    point = scored("scienceqa", form)
    # 10 questions, of which 3 and 7 have no image: of the 8 others the first three forms are read, the rest are not.
    assert point["accuracy"] | {"low": 0, "high": 0} == {
        "metric": "choice", "questions": 8, "value": 0.375, "low": 0, "high": 0,
    }  # fmt: skip
    assert scored("scienceqa", forms.Form(form.questions))["accuracy"]["value"] == 0.375  # from the second turn


def test_mmbench_is_right_where_every_rotation_is(tmp_path: Path, model: Scripted) -> None:
    def says(question: Question) -> str:
        number = int(str(question.question_id))
        letter, options = str(question.metadata["answer"]), question.metadata["choices"]
        if number == 2_000_001:  # one rotation of the second question
            return "I see nothing of the kind, none of these options"
        return str(options["ABCD".index(letter)]) if number % 2 else f"The answer is ({letter})."

    model.script = says
    form = forms.mmbench(tmp_path)
    point = scored("mmbench", form)
    # 4 questions in 4 + 4 + 4 + 2 rotations, of which one of the second is wrong.
    assert point["questions"] == 14
    assert point["accuracy"] | {"low": 0, "high": 0} == {
        "metric": "mmbench", "questions": 4, "value": 0.75, "low": 0, "high": 0,
    }  # fmt: skip
    asked = {int(str(question.question_id)): question for question in model.asked}
    text = asked[1_000_000].text.split("\n")
    options = forms.choices("red")
    assert text[1:5] == [
        f"{letter}. {option}" for letter, option in zip("ABCD", options[1:] + options[:1], strict=True)
    ]
    assert asked[3].text.startswith("Look closely.\n") and asked[1_000_003].image_name == "data:image/jpeg;base64"


def test_vqa_takes_the_published_evaluation_with_its_slips(tmp_path: Path, model: Scripted) -> None:
    model.script = lambda question: f"The {right(question)}." if int(str(question.question_id)) % 4 else "somebody'd"
    form = forms.vqav2(tmp_path)
    assert scored("vqav2", form)["accuracy"] | {"low": 0, "high": 0} == {
        "metric": "vqa", "questions": 64, "value": 0.75, "low": 0, "high": 0,
    }  # fmt: skip
    with_annotations = json.loads((tmp_path / "annotations.json").read_text())
    with_annotations["annotations"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(with_annotations))
    done = given("vqav2", forms.Form(form.questions, tmp_path / "fewer.json", form.images))
    assert done.code == 4 and "questions.json: 64" in done.stderr and "has no annotation of 64" in done.stderr


def test_vizwiz_has_ten_people_in_its_own_file(tmp_path: Path, model: Scripted) -> None:
    model.script = lambda question: right(question) if "street" in str(question.image) else "unanswerable"
    assert scored("vizwiz", forms.vizwiz(tmp_path))["accuracy"]["value"] == 0.125


def test_files_of_answers_have_lines_with_a_budget_of_their_own_and_what_failed(
    tmp_path: Path, model: Scripted
) -> None:
    about = [("street.png", {}), ("street.png", {"keep": "25%"}), ("street.png", {"keep": "8"}), ("none.png", {})]
    lines = [{"question_id": n, "image": image, "text": "a?", **own} for n, (image, own) in enumerate(about)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model.script = lambda question: "red"
    folder = Path(__file__).parent.parent / "sample_images"
    log, out = str(tmp_path / "log.jsonl"), tmp_path / "out"
    flags = ("--keep", "25%,50%", "--image-folder", str(folder), "-o", log, "--answer-files", str(out))
    done = adafv("sweep", str(tmp_path / "in.jsonl"), *flags)
    assert done.code == 1, done.stderr
    for name in ("unpruned", "adafv-25%", "adafv-50%"):
        found = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        said = {one["question_id"]: one["text"] for one in found}
        assert said == {0: "red", 1: "red", 2: "red", 3: ""} and len(found) == 4


def test_files_for_servers_and_one_for_each_setting(tmp_path: Path, model: Scripted) -> None:
    model.script = lambda question: f"The {right(question).capitalize()}."
    form, log = forms.vqav2(tmp_path / "vqav2"), str(tmp_path / "log.jsonl")
    done = given("vqav2", form, "--keep", "25%", "-o", log, "--answer-files", str(tmp_path / "out"))
    assert done.code == 0, done.stderr
    names = ["adafv-25%.jsonl", "adafv-25%.submission.json", "unpruned.jsonl", "unpruned.submission.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    kept = [json.loads(line) for line in (tmp_path / "out" / "adafv-25%.jsonl").read_text().splitlines()]
    assert len(kept) == 64 and {(one["pruner"], one["keep"]) for one in kept} == {("adafv", "25%")}
    made = json.loads((tmp_path / "out" / "unpruned.submission.json").read_text())
    assert made[0] == {"question_id": 1, "answer": "red"} and len(made) == 64
    again = given(
        "vqav2", form, "--keep", "25%", "-o", str(tmp_path / "other"), "--answer-files", str(tmp_path / "out")
    )
    assert again.code == 2 and "is not empty" in again.stderr

    file, sheet = str(tmp_path / "mmbench.jsonl"), tmp_path / "mmbench.xlsx"
    done = given("mmbench", forms.mmbench(tmp_path), "-o", file, "--submission", str(sheet), command="batch")
    assert done.code == 0, done.stderr
    with zipfile.ZipFile(sheet) as archive:
        cells = archive.read("xl/worksheets/sheet1.xml").decode()
    assert cells.count("<row>") == 15 and ">prediction<" in cells and "<v>1000003</v>" in cells
    done = given("pope", forms.pope(tmp_path / "pope"), "-o", str(tmp_path / "pope.jsonl"), "--submission", "x",
                 command="batch")  # fmt: skip
    assert done.code == 2 and "--submission needs" in done.stderr


@pytest.mark.parametrize("flag", ["--force", "--resume"])
def test_a_submission_is_written_over_nothing_that_is_read_or_answered(tmp_path: Path, flag: str) -> None:
    form = forms.vizwiz(tmp_path)
    source, answers, mine = form.questions, tmp_path / "out.jsonl", tmp_path / "mine.json"
    assert given("vizwiz", form, "-o", str(answers), command="batch").code == 0
    mine.write_text('{"mine": 1}')
    before = [path.read_bytes() for path in (source, answers)]
    for path in (source, answers, *([mine] if flag == "--resume" else [])):
        done = given("vizwiz", form, "-o", str(answers), "--submission", str(path), flag, command="batch")
        assert (done.code, done.stdout) == (2, "") and "--submission" in done.stderr
    assert before == [path.read_bytes() for path in (source, answers)] and mine.read_text() == '{"mine": 1}'
    ours = tmp_path / "ours.json"
    for _ in range(2):  # one of ours may be replaced
        assert (
            given("vizwiz", form, "-o", str(answers), "--submission", str(ours), "--resume", command="batch").code == 0
        )
    assert len(json.loads(ours.read_text())) == 8


REFUSED: dict[str, tuple[str, str, str]] = {
    "not JSON": ("vqav2", "{", "is not JSON"),
    "another benchmark's": ("vqav2", '{"questions": []}', "there is no 'data_subtype'"),
    "a line without a key": (
        "pope",
        '{"question_id": 1, "image": "a.png", "text": "is it?"}',
        "1: there is no 'label'",
    ),
    "a line that is none": ("gqa", "[1]", "is no object of questions by id"),
    "no TSV": ("mmbench", "a\tb\n1\t2\n", "1: there is no column 'A'"),
    "an option that is none": (
        "mmbench",
        "index\tquestion\tA\tB\tanswer\timage\n1\twhat?\tred\tblue\tC\tabc\n",
        "2: answer: 'C' is none of the options",
    ),
    "a value of another type": ("vizwiz", '[{"image": 3, "question": "what?"}]', "1: image: 3 is not of the form"),
    "no turns": ("scienceqa", '[{"id": "1", "image": "a.png"}]', "1: there is no 'conversations'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_of_another_form_are_refused_with_their_place(tmp_path: Path, model: Scripted, case: str) -> None:
    name, content, said = REFUSED[case]
    (tmp_path / "file").write_text(content)
    done = given(name, forms.Form(tmp_path / "file", images=tmp_path))
    assert done.code == 4 and said in done.stderr and not model.loaded


@pytest.mark.parametrize(("flags", "said"), [
    (["--benchmark", "popr"], "--benchmark: 'popr' is not one of pope,"),
    (["--answers", "a.json"], "--answers needs --benchmark"),
    (["--benchmark", "gqa", "--answers", "gone.json"], "--answers: gone.json is not there"),
    (["--limit", "0"], "--limit: 0 asks nothing"),
    (["--answer-files", "out"], "--answer-files needs -o FILE"),
], ids=str)  # fmt: skip
def test_flags_that_cannot_be_used(tmp_path: Path, model: Scripted, flags: list[str], said: str) -> None:
    path = forms.lines(tmp_path / "questions.jsonl", forms.demo())
    done = adafv("sweep", str(path), *flags)
    assert done.code == 2 and said in done.stderr and not model.loaded


def test_missing_images_are_counted_and_named_before_the_start(tmp_path: Path, model: Scripted) -> None:
    done = adafv("batch", str(forms.lines(tmp_path / "q.jsonl", forms.demo())))
    assert done.code == 1
    note = done.stderr.split("note: ")[1]
    assert "64 of 64 images are missing" in note and "village.png, farm.png, town.png, lake.png" in note


def test_a_suffix_and_a_limit_on_any_file(tmp_path: Path, model: Scripted) -> None:
    path, log = str(forms.lines(tmp_path / "q.jsonl", forms.demo())), str(tmp_path / "log.jsonl")
    flags = ["--image-folder", str(forms.SAMPLES), "--limit", "3", "--suffix", forms.SHORT, "-o", log]
    assert adafv("batch", path, *flags).code == 0
    assert [question.text for question in model.asked] == [f"{one['text']}\n{forms.SHORT}" for one in forms.demo()[:3]]
    assert json.loads((tmp_path / "log.jsonl.settings.json").read_text())["suffix"] == forms.SHORT
    other = adafv("batch", path, *flags[:4], "-o", log, "--resume")
    assert other.code == 2 and "suffix: Answer the question" in other.stderr
    more = [*flags[:3], "5", *flags[4:]]
    assert adafv("batch", path, *more, "--resume").code == 0 and len(model.asked) == 5

"""`sweep --report table.md|.tex|.html`: a document of the same numbers as the JSON, and of what they were made with."""

from __future__ import annotations

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from adafv.records import Question
from adafv.settings import RunSettings
from adafv.spent import Flops
from tests.batch_fakes import FakeBatchModel, install, questions
from tests.cli_fakes import Result, adafv

NAME = "50% & a_b|c<d>.jsonl"  # what each form has to escape some of


class Forgetful(FakeBatchModel):
    """Knows the answer from half of the tokens on."""

    def says(self, question: Question, run: RunSettings) -> str:
        number = int(str(question.question_id))
        return f"thing {number}" if run.budget.tokens(100) >= 50 or number % 4 else "no idea"


class Sharing(Forgetful):
    """Shares a prefill where nothing is pruned, so that an answer's own unpruned total is another one elsewhere."""

    def spends(self, run: RunSettings) -> Flops:
        total, unpruned = (2, 2) if run.pruner == "none" else (1, 8)
        return Flops(0, 0, 0, 0, 0, total * 10**12, unpruned * 10**12)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch, Forgetful())


def sweep(folder: Path, report: str, *flags: str) -> Result:
    lines = [
        {"question_id": n, "image": f"{'ab'[n % 2]}.png", "text": f"q{n}?", "answer": f"thing {n}"} for n in range(40)
    ]
    path = questions(folder, *lines, name=NAME)
    return adafv("sweep", path, "--keep", "10%,50%", "--report", str(folder / report), *flags)


class Page(HTMLParser):
    """Cells of tables, sources of images, and all text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.images += [str(value) for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


QUALITY = {"unpruned": "100.0", "adafv 10%": "75.0", "adafv 50%": "100.0"}


def test_markdown(tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["adafv", "sweep", "a b.jsonl"])
    done = sweep(tmp_path, "table.md", "--plot", str(tmp_path / "curve.svg"))
    assert done.code == 0, done.stderr
    text = (tmp_path / "table.md").read_text()
    assert "adafv sweep of " in text and r"a_b\|c<d>.jsonl" in text.splitlines()[1]
    rows = [
        [cell.strip(" *") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    head, _, *table = rows[: 2 + 3]
    found = {row[0]: dict(zip(head, row, strict=True)) for row in table}
    points = {(one["pruner"], one["keep"]): one for one in map(json.loads, done.stdout.splitlines())}
    for name, quality in QUALITY.items():
        point: Any = points[("none", "all") if name == "unpruned" else tuple(name.split())]
        low, high = (f"{100 * point['accuracy'][end]:.1f}" for end in ("low", "high"))
        assert found[name]["quality"] == f"{quality} ({low} to {high})"
        assert found[name]["questions"] == "40"
    assert f"({tmp_path / 'curve.svg'})" in text and "recommended: " in text
    facts = {row[0]: row[1] for row in rows[5:] if len(row) == 2}
    assert facts["settings: seed"] == "0"
    assert facts["settings: tolerance"] == "1.0" and facts["version of torch"].startswith("2.") and "cores" in facts
    assert text.count("`" * 3 + "sh\nadafv sweep 'a b.jsonl'\n") == 1


def test_html_is_one_file_with_its_figure(tmp_path: Path, model: FakeBatchModel) -> None:
    assert sweep(tmp_path, "table.html").code == 0
    page = Page((tmp_path / "table.html").read_text())
    assert {row[0]: row[1].split()[0] for row in page.rows[1:4]} == QUALITY
    assert "a_b|c<d>.jsonl" in page.text
    (image,) = page.images
    assert image.startswith("data:image/svg+xml;base64,")
    assert ElementTree.fromstring(base64.b64decode(image.partition(",")[2])).tag.endswith("svg")


def test_latex_is_escaped(tmp_path: Path, model: FakeBatchModel) -> None:
    assert sweep(tmp_path, "table.tex").code == 0
    text = (tmp_path / "table.tex").read_text()
    body = text[text.index(r"\begin{table}") : text.index(r"\end{table}")]
    assert r"50\% \& a\_b|c<d>.jsonl" in body
    assert not re.search(r"(?<![\\])[%#_]", body)
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [line.split(" & ")[0].replace(r"\textbf{", "").rstrip("}") for line in rows[1:]] == [
        "unpruned", r"adafv 10\%", r"adafv 50\%",
    ]  # fmt: skip
    assert len({line.count(" & ") for line in rows}) == 1


def test_json_stays_json_and_only_ours_is_replaced(tmp_path: Path, model: FakeBatchModel) -> None:
    assert sweep(tmp_path, "table.json").code == 0
    assert len(json.loads((tmp_path / "table.json").read_text())["points"]) == 3
    for name in ("table.md", "table.html", "table.tex"):
        (tmp_path / name).write_text("precious")
        assert sweep(tmp_path, name).code == 2 and (tmp_path / name).read_text() == "precious"
        assert sweep(tmp_path, name, "--force").code == 0
        assert sweep(tmp_path, name).code == 0  # now it is one of ours


def test_a_report_of_a_part_says_so(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [{"image": "gone.png", "text": "q?", "answer": "x"}, {"image": "a.png", "text": "q?", "answer": "x"}]
    path = questions(tmp_path, *reversed(lines))
    report = tmp_path / "table.md"
    adafv("sweep", path, "--keep", "50%", "--report", str(report), "--fail-fast", "--batch-size", "1")
    assert "Partial: stopped at the first failure." in report.read_text()


def test_flops_are_a_share_of_the_sweep_s_own_unpruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Sharing())
    monkeypatch.setenv("COLUMNS", "140")
    done = sweep(tmp_path, "run.md")
    rows = [line for line in (tmp_path / "run.md").read_text().splitlines() if line.startswith("|")]
    heads, *cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:1] + rows[2:5]]
    assert [row[heads.index("FLOPs")] for row in cells] == ["100%", "50%", "50%"]
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert [point["flops"]["unpruned_total"] for point in points] == [2e12, 8e12, 8e12]  # as answers say
    shown = adafv("sweep", str(tmp_path / NAME), "--keep", "10%,50%", stdout_tty=True).stdout
    assert [line.count(" 50% ") for line in shown.splitlines() if " adafv " in line and "%" in line][:2] == [1, 2]

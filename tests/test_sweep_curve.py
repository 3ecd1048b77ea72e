"""`--plot`: the figure of a sweep."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from adafv.figures.curve import render
from adafv.figures.placing import spread
from adafv.quality.changes import Change, Part
from adafv.quality.intervals import Interval
from adafv.quality.points import Point
from adafv.quality.qualities import Accuracy, Against, Quality
from adafv.quality.recommendation import recommend
from adafv_cli import writing
from tests.batch_fakes import asking, install, questions
from tests.cli_fakes import adafv

BUDGETS = (0.05, 0.1, 0.25, 0.5)
MANY = "adafv saliency similarity divprune cdpruner scope mmtok uniform random other".split()


def point(pruner: str, share: float, value: float, accuracy: bool = True) -> Point:
    low, high = value - 0.03, min(1.0, value + 0.02)
    marks = Accuracy("exact", 200, value, low, high) if accuracy else None
    change = Change(Part(0.0, 0.0, 0.0), Part(max(0.0, 0.95 - value), 1e-4, 0.0), 0.0, 200, 200.0)
    quality = Quality(marks, None, Interval(value, low, high), change.interval(), change=change)
    tokens = {"visual": 576.0, "kept": round(576 * share)}
    # Prompts that share a prefill: each point's own unpruned total is of other prompts than the unpruned point's.
    flops = {"total": 1e12 * (0.2 + 0.8 * share), "unpruned_total": 3e12 if share < 1 else 1e12}
    keep = "all" if pruner == "none" else f"{share:.0%}"
    return Point(pruner, keep, 200, 0, quality, tokens, flops, None, None, None)


def curve(pruners: list[str], accuracy: bool = True) -> list[Point]:
    found = [point("none", 1.0, 0.95, accuracy)]
    for number, pruner in enumerate(pruners):
        found += [point(pruner, share, 0.94 - 0.02 * number * (1 - share) ** 2, accuracy) for share in BUDGETS]
    return found


def texts(points: list[Point], tolerance: float = 10.0, **more: object) -> list[str]:
    svg = render(points, recommend(points, tolerance), "svg", **more).decode()  # type: ignore[arg-type]
    return re.findall(r"<text[^>]*>([^<]*)", svg)


def test_texts_stay_texts_and_say_what_is_what() -> None:
    found = texts(curve(["adafv", "mmtok"]), model="llava $1.5$")
    assert {"adafv", "mmtok", "accuracy, %", "visual tokens kept, mean per image", "unpruned 95.0"} <= set(found)
    assert "llava $1.5$, 200 questions" in found
    assert "recommended (ring): adafv at 5%, within 10 points" in found
    assert {"29", "58", "144", "288", "576"} <= set(found)  # tokens
    assert {"24", "28", "40", "60", "100"} <= set(found)  # FLOPs, % of the unpruned


def test_differences_to_a_setting_have_a_part_of_their_own() -> None:
    points = curve(["adafv", "mmtok", "random"])
    against = Against("adafv", "25%", -0.01, -0.03, 0.005)
    beside = [replace(one, quality=replace(one.quality, against=against)) for one in points[5:]]
    found = texts([*points[:5], *beside])
    assert "points to adafv at 25%" in found and found.count("visual tokens kept, mean per image") == 2
    same = [replace(one, quality=replace(one.quality, against=replace(against, keep=one.keep))) for one in points[5:]]
    assert "points to adafv" in texts([*points[:5], *same])
    assert not any(text.startswith("points to") for text in texts(points))
    taller = Image.open(io.BytesIO(render([*points[:5], *beside], recommend(points, 1))))
    assert taller.size == (1600, 1500)


def test_without_a_recommendation_or_accuracy_or_an_end() -> None:
    assert "no budget is surely within 1 point of the unpruned" in texts(curve(["adafv"]), tolerance=1)
    assert "agreement with the unpruned model, %" in texts(curve(["adafv"], accuracy=False))
    assert "200 questions (partial)" in texts(curve(["adafv"]), partial=True)


def test_every_pruner_has_a_name_of_its_own_place() -> None:
    points = curve(MANY)
    svg = render(points, recommend(points, 1), "svg").decode()
    places = {name: float(re.search(rf'y="([0-9.]+)"[^>]*>{name}<', svg)[1]) for name in MANY}  # type: ignore[index]
    ordered = sorted(places.values())
    assert min(later - earlier for earlier, later in pairwise(ordered)) > 9


@pytest.mark.parametrize("points", [curve([]), curve(["adafv"])[:2], curve(["adafv"])[1:3], curve(MANY)])
def test_any_points_can_be_drawn(points: list[Point]) -> None:
    assert render(points, recommend(points, 1), "svg").startswith(b"<?xml")


def test_formats_and_the_same_bytes_every_time() -> None:
    points = curve(["adafv", "saliency"])
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        once = render(points, recommend(points, 1), kind)
        assert once.startswith(start)
        assert render(points, recommend(points, 1), kind) == once


def test_a_picture_for_a_page() -> None:
    points = curve(MANY)
    image = Image.open(io.BytesIO(render(points, recommend(points, 1))))
    assert image.size == (1600, 1080)
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render(curve(["adafv"]), recommend(curve(["adafv"]), 1), "svg")
    assert dict(matplotlib.rcParams) == before


def test_labels_are_spread_and_stay_in_order() -> None:
    assert spread([5.0, 1.0, 9.0], 1.0, 0.0, 10.0) == [5.0, 1.0, 9.0]
    assert spread([5.0, 5.0], 1.0, 0.0, 10.0) == [4.5, 5.5]
    found = spread([9.8, 9.9, 10.0, 9.7], 1.0, 0.0, 10.0)
    assert found == [8.0, 9.0, 10.0, 7.0]
    assert spread([0.0, 0.0], 1.0, 0.0, 10.0) == [0.0, 1.0]
    assert spread([], 1.0, 0.0, 1.0) == []


@pytest.mark.parametrize("name", ["curve.png", "curve.SVG", "deep/curve.pdf"])
def test_the_command_writes_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(monkeypatch)
    (tmp_path / "deep").mkdir()
    target = tmp_path / name
    target.write_bytes(b"old")
    path = questions(tmp_path, *(asking(number) | {"answer": f"re: question {number}"} for number in range(4)))
    done = adafv("sweep", path, "--plot", str(target), "--keep", "5%,25%", "--force")
    assert done.code == 0
    assert target.stat().st_size > 5_000
    assert [one.name for one in target.parent.glob(".*")] == []


def test_a_figure_that_cannot_be_written_costs_no_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    install(monkeypatch)
    monkeypatch.setattr(writing, "write_bytes", full)
    path = questions(tmp_path, *map(asking, range(4)))
    done = adafv("sweep", path, "--plot", str(tmp_path / "curve.png"))
    assert done.code == 1
    assert f"--plot: cannot write {tmp_path / 'curve.png'}: No space left on device" in done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_other_pruners_get_looks_of_their_own() -> None:
    points = [replace(one, pruner=f"x-{one.pruner}") if one.pruner != "none" else one for one in curve(MANY)]
    assert {"x-adafv", "x-other"} <= set(texts(points))


def test_a_long_name_leaves_room_for_the_advice() -> None:
    path = "/somewhere/" + "deep/" * 20 + "llava-v1.6-mistral-7b"
    assert "llava-v1.6-mistral-7b, 200 questions" in texts(curve(["adafv"]), model=path)
    (title,) = (text for text in texts(curve(["adafv"]), model="x" * 300) if text.startswith("xxx"))
    assert len(title) < 60 and title.endswith("\u2026, 200 questions")
    assert "two lines, 200 questions" in texts(curve(["adafv"]), model="two\nlines")


def test_intervals_that_do_not_hold_their_value() -> None:
    odd = point("adafv", 0.25, 0.9)
    quality = replace(odd.quality, accuracy=Accuracy("exact", 200, 0.9, 0.91, 0.95))
    assert texts([point("none", 1.0, 0.95), replace(odd, quality=quality)])

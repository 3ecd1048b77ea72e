"""An image never starts a program: formats are taken from a list, and others are refused by name and never decoded."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import EpsImagePlugin, Image, ImageFile, IptcImagePlugin

from adafv.errors import AdaFVError, ImageError, OutOfMemoryError
from adafv.images import check_image, content_key, image_size, open_image
from tests.cli_fakes import FakeModel, adafv, install, picture


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, kind, **options)
    return buffer.getvalue()


EPS = encoded("EPS")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` in front of the PATH that leaves a file behind when it is run."""
    sprung, folder = tmp_path / "sprung", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\necho sprung > '{sprung}'\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow remembers whether it found one
    return sprung


def test_the_trap_works(trap: Path) -> None:
    with pytest.raises(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert trap.exists()


@pytest.mark.parametrize("read", [open_image, check_image, image_size])
@pytest.mark.parametrize("given", ["path", "bytes", "lazy"])
def test_postscript_is_refused_by_name(read: Callable[[Any], object], given: str, trap: Path, tmp_path: Path) -> None:
    path = tmp_path / "pretends.png"
    path.write_bytes(EPS)
    source: Any = {"path": path, "bytes": EPS}.get(given) or Image.open(path)
    with pytest.raises(ImageError, match="EPS images are not supported") as caught:
        read(source)
    assert "convert" in caught.value.fix
    assert not trap.exists()


def test_an_image_that_was_opened_elsewhere_is_not_hashed_by_a_program(trap: Path) -> None:
    with pytest.raises(ImageError, match="EPS"):
        content_key(Image.open(io.BytesIO(EPS)))
    assert not trap.exists()


@pytest.mark.parametrize(
    "command", [["ask", "eps.png", "what?"], ["ask", "-", "what?"], ["show", "eps.png", "what?", "-o", "a.png"],
                ["show", "-", "what?", "-o", "a.png"], ["info", "--image", "eps.png"]],
    ids=" ".join,
)  # fmt: skip
def test_commands_refuse_it(command: list[str], trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()
    install(monkeypatch, model)
    monkeypatch.chdir(tmp_path)
    Path("eps.png").write_bytes(EPS)
    done = adafv(*command, stdin=EPS)
    assert done.code == 4 and "EPS images are not supported\n  convert it to PNG or JPEG" in done.stderr
    assert not model.loaded and not trap.exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=" ".join)
def test_a_batch_answers_the_other_lines(flags: list[str], trap: Path, tmp_path: Path, llava_folder: Path) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "eps.png").write_bytes(EPS)
    images = ["eps.png", "good.png", "data:image/png;base64," + base64.b64encode(EPS).decode()]
    lines = tmp_path / "questions.jsonl"
    lines.write_text("".join(json.dumps({"image": image, "text": "what?"}) + "\n" for image in images))
    done = adafv("batch", str(lines), "-m", str(llava_folder), "--max-new-tokens", "1", *flags)
    assert done.code == 1 and "EPS images are not supported" in done.stderr
    if not flags:
        errors = [json.loads(line)["error"] for line in done.stdout.splitlines()]
        assert [error and error["type"] for error in errors] == ["ImageError", None, "ImageError"]
    assert not trap.exists()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"), (b"\xc5\xd0\xd3\xc6" + bytes(40), "EPS"), (b"%PDF-1.7\n", "PDF"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "WMF"), (b"\x01\0\0\0" + bytes(36) + b" EMF", "EMF"),
        (b"SIMPLE  =                    T", "FITS"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"8BPS\0\x01" + bytes(40), "PSD"), (encoded("ICNS"), "ICNS"), (b"\0\0\0\x18ftypheix\0\0\0\0", "HEIC"),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_by_name(head: bytes, kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(head)
    assert caught.value.what == f"image bytes: {kind} images are not supported"
    assert caught.value.fix == "convert it to PNG or JPEG"


def test_what_is_opened_inside_of_another_image_is_not_reached(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's reader of IPTC opens what is embedded with all readers that there are."""
    lazy = IptcImagePlugin.IptcImageFile.__new__(IptcImagePlugin.IptcImageFile)
    monkeypatch.setattr(lazy, "_size", (4, 4), raising=False)
    monkeypatch.setattr(IptcImagePlugin.IptcImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="IPTC images are not supported"):
        open_image(lazy)


def test_pixels_of_any_origin_are_taken() -> None:
    with Image.open(io.BytesIO(encoded("SGI"))) as image:
        assert open_image(image.convert("RGB")).size == (16, 16)


def test_a_jpeg_of_several_pictures_is_a_jpeg() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    for source in (buffer.getvalue(), Image.open(buffer)):
        assert open_image(source).getpixel((8, 8))[0] > 240  # type: ignore[index]


@pytest.mark.parametrize("given", ["bytes", "lazy"])
@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("out of memory error when reading image file")], ids=["python", "codec"]
)
def test_out_of_memory_is_not_damage(error: Exception, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: object) -> None:
        raise error

    data = encoded("PNG")
    source: Any = data if given == "bytes" else Image.open(io.BytesIO(data))
    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    with pytest.raises(AdaFVError, match="out of memory while it is decoded") as caught:
        open_image(source)
    assert type(caught.value) is OutOfMemoryError and "scale" in caught.value.fix

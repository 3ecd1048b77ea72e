"""Images: every kind that must simply work, with exact pixels, and every refusal, with value and fix."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile, ImageOps, features

from adafv.errors import ImageError
from adafv.image_files import FORMATS
from adafv.images import MAX_PIXELS, check_image, check_resized, content_key, image_size, open_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
NOISE = random.Random(0).randbytes(64 * 64 * 3)  # does not compress, so that a cut always costs pixels


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def one_pixel(image: Image.Image, kind: str = "PNG", **options: object) -> tuple[int, int, int]:
    """The first pixel after a round trip through a file."""
    return open_image(encoded(image, kind, **options)).getpixel((0, 0))


def noise(mode: str = "RGB") -> Image.Image:
    return Image.frombytes("RGB", (64, 64), NOISE).convert(mode)


def png(width: int, height: int, depth: int = 8, pixels: bytes = b"") -> bytes:
    """An RGB PNG; without pixels it promises what it does not hold."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(pixels), b"IEND"]
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refusal(source: object, **options: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)  # type: ignore[arg-type]
    assert caught.value.fix
    return caught.value


# What must work


@pytest.mark.parametrize(
    "kind", ["PNG", "TIFF", "BMP", "PPM", "GIF", "WEBP", "TGA", "PCX", "ICO", "JPEG2000", "DIB", "QOI"]
)
def test_file_formats_give_their_pixels(kind, tmp_path):
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow only reads {kind}")
    path = tmp_path / f"image.{kind.lower()}"
    path.write_bytes(encoded(Image.new("RGB", (16, 16), BLUE), kind, **options))
    for source in (path, str(path), path.read_bytes()):
        opened = open_image(source)
        assert (opened.mode, opened.size, opened.getpixel((3, 3))) == ("RGB", (16, 16), BLUE)
        assert image_size(source) == (16, 16)
        check_image(source)


@pytest.mark.parametrize(("kind", "codec"), [("JPEG", "jpg"), ("AVIF", "avif")])
def test_lossy_formats_come_close(kind, codec):
    if kind not in FORMATS or not features.check(codec):
        pytest.skip(f"Pillow was built without {kind}")
    red, green, blue = one_pixel(Image.new("RGB", (16, 16), BLUE), kind, quality=95)
    assert max(red, green) < 8 and blue > 247


def test_a_damaged_avif_is_no_video():
    says = "not an image that can be read" if "AVIF" in FORMATS else "AVIF images are not supported"
    with pytest.raises(ImageError, match=says):
        open_image(b"\0\0\0\x20ftypavif" + bytes(64))


def test_pil_image_is_copied_and_left_alone():
    given = Image.new("RGB", (2, 2), RED)
    given.info["note"] = "mine"
    opened = open_image(given)
    opened.putpixel((0, 0), BLUE)
    assert given.getpixel((0, 0)) == RED
    assert given.info == {"note": "mine"}
    assert opened.info == {}


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (255, 1), (256, 1), (32768, 128), (40000, 156), (65535, 255)])
def test_16_bit_grey_is_scaled_not_clipped(value, grey):
    image = Image.new("I;16", (1, 1), value)
    assert one_pixel(image, "PNG") == (grey, grey, grey)
    assert one_pixel(image, "TIFF") == (grey, grey, grey)
    assert open_image(Image.new("I;16B", (1, 1), value)).getpixel((0, 0)) == (grey, grey, grey)
    assert one_pixel(Image.new("I", (1, 1), value), "PPM") == (grey, grey, grey)


def test_16_bit_rgb_keeps_its_high_bytes():
    pixels = struct.pack(">BHHH", 0, 32768, 65535, 256)
    assert open_image(png(1, 1, 16, pixels)).getpixel((0, 0)) == (128, 255, 1)


@pytest.mark.parametrize(
    ("mode", "values", "greys"),
    [
        ("I", [0, 7, 255], [0, 7, 255]),
        ("I", [0, 32768, 65535], [0, 128, 255]),
        ("I", [-100, 0, 155], [0, 100, 255]),
        ("I", [0, 500_000, 1_000_000], [0, 128, 255]),
        ("F", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("F", [0.0, 7.0, 255.0], [0, 7, 255]),
        ("F", [0.0, 32767.5, 65535.0], [0, 128, 255]),
        ("F", [-1.0, 0.0, 1.55], [0, 100, 255]),
        ("F", [1e6, 1e6, 1e6], [0, 0, 0]),
    ],
)
def test_wide_grey_is_scaled_by_what_bounds_it(mode, values, greys):
    image = Image.new(mode, (3, 1))
    image.putdata(values)
    for source in (image, encoded(image, "TIFF")):
        opened = open_image(source)
        assert [opened.getpixel((x, 0))[0] for x in range(3)] == greys


def test_float_that_is_not_finite_is_refused():
    assert "not finite" in refusal(encoded(Image.new("F", (1, 1), float("inf")), "TIFF")).what


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("RGB", (1, 1), GREEN), GREEN),
        (Image.new("1", (1, 1), 1), WHITE),
        (Image.new("L", (1, 1), 90), (90, 90, 90)),
        (Image.new("LA", (1, 1), (0, 0)), WHITE),
        (Image.new("LA", (1, 1), (90, 255)), (90, 90, 90)),
        (Image.new("RGBA", (1, 1), (9, 8, 7, 0)), WHITE),
        (Image.new("RGBA", (1, 1), (9, 8, 7, 255)), (9, 8, 7)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 51)), (255, 204, 204)),
    ],
)
def test_bits_grey_and_alpha(image, pixel):
    assert one_pixel(image) == pixel


@pytest.mark.parametrize(
    ("mode", "colour", "pixel"),
    [
        ("La", (0, 0), WHITE),
        ("RGBa", (0, 0, 0, 0), WHITE),
        ("PA", (0, 0), WHITE),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (255, 128, 128), WHITE),
        ("HSV", (0, 255, 255), RED),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
    ],
)
def test_other_modes_of_pil_images(mode, colour, pixel):
    assert open_image(Image.new(mode, (1, 1), colour)).getpixel((0, 0)) == pixel


def palette_image() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def test_palette_with_and_without_transparency():
    assert one_pixel(palette_image()) == RED
    assert one_pixel(palette_image(), transparency=0) == WHITE
    assert one_pixel(palette_image(), transparency=1) == RED
    assert one_pixel(palette_image(), transparency=b"\x00\xff") == WHITE
    assert one_pixel(palette_image(), "GIF", transparency=0) == WHITE


def test_colour_key_is_transparent():
    assert one_pixel(Image.new("RGB", (1, 1), RED), transparency=RED) == WHITE
    assert one_pixel(Image.new("RGB", (1, 1), BLUE), transparency=RED) == BLUE
    assert one_pixel(Image.new("L", (1, 1), 7), transparency=7) == WHITE


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, (0, 0, 0), (120, 60, 200)])
def test_cmyk_is_close(colour):
    image = Image.new("RGB", (16, 16), colour).convert("CMYK")
    jpeg = encoded(image, "JPEG", quality=95)
    assert b"Adobe" in jpeg  # so its samples are inverted, as Adobe writes them
    for data, near in ((encoded(image, "TIFF"), 0), (jpeg, 4)):
        got = open_image(data).getpixel((8, 8))
        assert all(abs(a - b) <= near for a, b in zip(got, colour, strict=True)), got


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, kind):
    upright = Image.new("RGB", (3, 2))
    upright.putdata([RED, GREEN, BLUE, WHITE, (9, 9, 9), (70, 80, 90)])
    flip, flop, turn = ImageOps.mirror, ImageOps.flip, Image.Image.transpose
    stored = {
        1: upright,
        2: flip(upright),
        3: flip(flop(upright)),
        4: flop(upright),
        5: turn(upright, Image.Transpose.TRANSPOSE),
        6: turn(upright, Image.Transpose.ROTATE_90),
        7: turn(upright, Image.Transpose.TRANSVERSE),
        8: turn(upright, Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert image_size(data) == (3, 2)
    for source in (data, Image.open(io.BytesIO(data))):
        opened = open_image(source)
        assert opened.size == (3, 2)
        assert opened.tobytes() == upright.tobytes()
        # Opening the result again, as image processors do, must not turn it again.
        assert ImageOps.exif_transpose(opened).size == (3, 2)
        assert open_image(opened).tobytes() == upright.tobytes()


def test_exif_orientation_of_a_jpeg_and_of_16_bit_grey():
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGB", (64, 32), RED)
    half.paste(BLUE, (0, 0, 32, 32))
    data = encoded(half, "JPEG", exif=exif, quality=95)
    opened = open_image(data)
    assert opened.size == image_size(data) == (32, 64)
    assert opened.getpixel((16, 8))[2] > 240  # the left half is now on top
    assert opened.getpixel((16, 56))[0] > 240
    assert open_image(encoded(Image.new("I;16", (4, 2)), exif=exif)).size == (2, 4)


@pytest.mark.parametrize("orientation", [0, 9, 4000, None])
def test_nonsense_orientation_and_broken_exif_are_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    broken = b"Exif\0\0nonsense"
    data = encoded(Image.new("RGB", (4, 2), RED), exif=broken if orientation is None else exif)
    assert open_image(data).size == image_size(data) == (4, 2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert open_image(data).getpixel((4, 4)) == RED


# What must be refused


@pytest.mark.parametrize("read", [open_image, check_image, image_size])
def test_bad_paths_name_the_path_and_the_fix(read, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is no image, whatever its name says")
    for name, words, fix in [
        ("missing.png", "does not exist", "check the path"),
        ("text.png/deeper.png", "does not exist", "check the path"),
        (".", "is a directory", "one image file"),
        ("empty.png", "is empty", "again"),
        ("text.png", "not an image", "PNG or JPEG"),
    ]:
        with pytest.raises(ImageError) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in caught.value.what
        assert words in caught.value.what
        assert fix in caught.value.fix


def test_paths_that_are_no_paths():
    assert "empty" in refusal("").what
    assert "cannot be opened" in refusal("nul\0byte.png").what
    assert "cannot be opened: File name too long" in refusal("x" * 5000).what
    assert "URLs are not opened" in refusal("https://example.com/a.png").fix
    assert "--engine ray" in refusal("s3://bucket/a.png").fix


def test_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe").what


def test_permission_denied(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.new("RGB", (1, 1))))

    def denied(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # chmod would not stop a test that runs as root
    error = refusal(path)
    assert f"{path} may not be read" in error.what
    assert "permissions" in error.fix


def test_content_that_is_no_image():
    assert "image bytes: there are none" in refusal(b"").what
    assert "image bytes: not an image" in refusal(b"hello").what
    assert "image: list is no image" in refusal([1]).what
    heic = refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "HEIC" in heic.what
    assert "PNG or JPEG" in heic.fix
    for video in (b"\0\0\0\x18ftypisom\0\0\2\0", b"\x1a\x45\xdf\xa3" + bytes(9), b"RIFF\0\0\0\0AVI LIST"):
        refused = refusal(video)
        assert refused.what == "image bytes: a video is no image" and "a frame of it" in refused.fix


@pytest.fixture(params=[False, True], ids=["strict", "LOAD_TRUNCATED_IMAGES"])
def filling(request, monkeypatch):
    """Pillow as it comes, and as many training scripts set it for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    return request.param


@pytest.mark.usefixtures("filling")
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "ICO"])
def test_truncated_files_are_never_filled_with_grey(kind, share, tmp_path):
    data = encoded(noise(), kind)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    error = refusal(path)
    assert str(path) in error.what
    assert "copy it again" in error.fix


@pytest.mark.usefixtures("filling")
def test_corrupt_png_is_refused():
    data = bytearray(encoded(noise()))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    assert "cannot be decoded" in refusal(bytes(data)).what


def test_whole_files_open_whatever_the_global_flag(filling):
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "PCX"):
        data = encoded(noise(), kind)
        expected = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
        assert open_image(data).tobytes() == expected, kind
    packed = encoded(noise("L"), "TIFF", compression="tiff_lzw")
    assert open_image(packed).tobytes() == noise("L").convert("RGB").tobytes()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is filling


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_460, 12_000, 40_000])
def test_bomb_is_refused_from_its_header(side):
    for read in (open_image, check_image, image_size):
        with pytest.raises(ImageError, match="too large") as caught:
            read(png(side, side))
        assert "scale or crop" in caught.value.fix
        assert str(side) in caught.value.what or str(side * side) in caught.value.what


@pytest.mark.filterwarnings("error")
def test_bomb_is_an_image_error_even_where_warnings_are_errors():
    assert "too large" in refusal(png(12_000, 12_000)).what


def test_own_pixel_limit():
    data = encoded(Image.new("RGB", (20, 10)))
    assert open_image(data, max_pixels=200).size == (20, 10)
    for source in (data, Image.new("RGB", (20, 10))):
        assert "20 x 10 exceeds 199 pixels" in refusal(source, max_pixels=199).what
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_pil_images_that_cannot_be_used():
    assert "0 x 5" in refusal(Image.new("RGB", (0, 5))).what
    image = Image.open(io.BytesIO(encoded(noise())))
    image.close()
    assert "cannot be decoded" in refusal(image).what


def test_header_checks_do_not_decode(monkeypatch):
    promise = png(50, 40)
    assert "cannot be decoded" in refusal(promise).what
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    check_image(promise)
    assert image_size(promise) == (50, 40)


def test_strip_that_would_grow_without_bound():
    check_resized(Image.new("RGB", (640, 480)), 336)
    check_resized(Image.new("RGB", (1, 792)), 336)
    check_resized(Image.new("RGB", (792, 1)), 336)
    for size in ((1, 5000), (5000, 1)):
        with pytest.raises(ImageError) as caught:
            check_resized(Image.new("RGB", size), 336)
        assert all(part in caught.value.what for part in (f"{size[0]} x {size[1]}", "336", "1680000"))
        assert "crop" in caught.value.fix


def test_content_keys_are_equal_where_content_is(tmp_path):
    data = encoded(noise())
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(data)
    assert content_key(tmp_path / "a.png") == content_key(str(tmp_path / "b.png")) == content_key(data)
    assert content_key(noise()) == content_key(noise())
    assert len(content_key(data)) == len(content_key(noise())) == 64
    with pytest.raises(ImageError, match="does not exist"):
        content_key(tmp_path / "missing.png")


def test_content_keys_differ_where_content_does():
    recoloured = palette_image()
    recoloured.putpalette([*GREEN, *RED, *BLUE])  # the same indices
    shapes = [Image.new("RGB", (2, 3)), Image.new("RGB", (3, 2))]
    images = [noise(), noise("L"), *shapes, palette_image(), recoloured]
    keys = {content_key(image) for image in images}
    assert len(keys | {content_key(encoded(noise()))}) == len(images) + 1

"""The figure a person reads: 1 for equal pixels only, falling with every kind of damage, low for another picture."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from hubctl.errors import RunError
from hubctl.run import compare

RESIZE = Image.Resampling.LANCZOS


def scene(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """Something with large shapes and fine detail; every seed another composition."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, w, h = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(8, 90), rng.integers(8, 90)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((int(x), int(y), int(x + w), int(y + h)), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(0.7))


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    data = np.asarray(image, dtype=np.float64)
    noise = np.random.default_rng(7).normal(0, sigma, data.shape)
    return Image.fromarray((data + noise).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return compare.read(file.getvalue())


def test_equal_pixels_are_one_and_one_changed_bit_is_not() -> None:
    a = scene(1)
    same = compare.compare(a, a.copy())
    assert (same.score, same.identical, same.describe()) == (1.0, True, "identical, every pixel")
    b = a.copy()
    b.putpixel((3, 3), tuple(v ^ 1 for v in a.getpixel((3, 3))))  # type: ignore[union-attr]
    near = compare.compare(a, b)
    assert not near.identical
    assert near.score == compare.LIKE < 1
    assert near.describe().startswith("0.999 ")


def test_every_rung_of_noise_is_lower() -> None:
    a = scene(1)
    scores = [compare.compare(a, noisy(a, sigma)).score for sigma in (0.6, 2, 5, 10, 20, 40, 80)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.97
    assert scores[-1] < 0.4


def test_every_step_of_blur_and_shift_is_lower() -> None:
    a = scene(2)
    blurs = [compare.compare(a, a.filter(ImageFilter.GaussianBlur(r))).score for r in (0.5, 1, 2, 4, 8)]
    shifts = [compare.compare(a, Image.fromarray(np.roll(np.asarray(a), n, 1))).score for n in (1, 2, 4, 8, 16)]
    assert blurs == sorted(blurs, reverse=True)
    assert shifts == sorted(shifts, reverse=True)


def test_a_re_encoded_original_is_close() -> None:
    a = scene(3)
    assert compare.compare(a, jpeg(a, 90)).score > 0.9
    assert compare.compare(a, jpeg(a, 75)).score > 0.85


@pytest.mark.parametrize("width", [450, 256, 128])
def test_a_resized_original_is_close(width: int) -> None:
    a = scene(4, (512, 768))
    small = jpeg(a.resize((width, round(width * 1.5)), RESIZE), 88)
    found = compare.compare(small, a)
    assert found.score > 0.85
    assert found.aligned == f"compared at {width}×{round(width * 1.5)}"


@pytest.mark.parametrize(
    "box",
    [(64, 0, 448, 384), (0, 96, 512, 288), (0, 0, 301, 384), (90, 0, 512, 384), (0, 110, 512, 384), (0, 7, 512, 200)],
    ids=["narrower", "flatter", "left", "right", "bottom", "above the middle"],
)
def test_a_cut_is_found_wherever_it_lies_either_way_round(box: tuple[int, int, int, int]) -> None:
    whole = scene(5, (512, 384))
    for pair in ((whole, whole.crop(box)), (whole.crop(box), whole)):
        assert compare.compare(*pair).psnr > 90  # to the pixel
    cut = whole.crop(box).resize(((box[2] - box[0]) // 2, (box[3] - box[1]) // 2), RESIZE)
    for pair in ((whole, cut), (cut, whole)):
        found = compare.compare(*pair)
        assert found.score > 0.9
        assert found.aligned.startswith("cropped to a common aspect, compared at")


@given(st.integers(0, 400), st.integers(500, 900))
@settings(max_examples=30, deadline=None)
def test_another_picture_is_low_and_order_does_not_matter(one: int, other: int) -> None:
    a, b = scene(one), scene(other)
    found = compare.compare(a, b)
    assert found.score < 0.45
    assert found == compare.compare(b, a)


def test_the_same_composition_in_other_colours_is_between() -> None:
    a = scene(6)
    red, green, blue = a.split()
    found = compare.compare(a, Image.merge("RGB", (blue, green, red)))
    assert 0.3 < found.score < 0.9
    assert found.colour < 0.5


def test_kinds_of_pictures() -> None:
    a = scene(7)
    assert compare.compare(a.convert("L"), a.convert("L").convert("RGB")).identical
    hidden = a.convert("RGBA")
    hidden.putalpha(Image.fromarray(np.random.default_rng(0).integers(254, 256, (a.height, a.width)).astype(np.uint8)))
    assert compare.compare(hidden, a).identical  # settings hidden in the last bit of alpha
    clear = a.convert("RGBA")
    clear.putalpha(0)
    assert compare.rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    wide = Image.fromarray(np.asarray(a.convert("L")).astype(np.uint16) * 257)
    assert compare.compare(wide, a.convert("L")).identical
    assert compare.compare(a.quantize(256), a).score > 0.8
    assert compare.compare(a.convert("CMYK"), a).score > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 7), (300, 2)])
def test_tiny_and_odd_sizes(size: tuple[int, int]) -> None:
    found = compare.compare(Image.new("RGB", size, "red"), scene(8))
    assert 0 <= found.score < 1
    assert found.aligned


def test_large_pictures_are_compared_reduced() -> None:
    a = scene(9).resize((3000, 2250))
    found = compare.compare(a, noisy(a, 3))
    assert found.aligned == "compared at 2048×1536"
    assert compare.compare(a, a.copy()).identical


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(12_000, 9_000), (60_000, 60_000), (2_000_000_000, 2_000_000_000)])
def test_a_picture_that_would_fill_the_memory_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RunError, match=r"too large|cannot be read"):
        compare.read(png(*size))


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", png(10, 10)[:60], b"GIF89a" + bytes(20)])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(RunError, match="cannot be read as a picture"):
        compare.read(data)


@given(st.binary(max_size=400), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_damaged_pictures_give_a_sentence(rubbish: bytes, at: int) -> None:
    file = io.BytesIO()
    scene(1, (32, 24)).save(file, "PNG")
    whole = file.getvalue()
    with contextlib.suppress(RunError):
        compare.read(whole[:at] + rubbish + whole[at + len(rubbish) :])


@pytest.mark.parametrize("size", [(96, 96), (64, 96), (512, 768), (2048, 1024)])
def test_the_sheet_shows_both_at_a_size_one_can_see(size: tuple[int, int], tmp_path: Path) -> None:
    a, path = Image.new("RGB", size, "red"), tmp_path / "x-compare.png"
    before = Image.new("RGB", (50, 40), "blue")
    compare.side_by_side(before, a, compare.compare(before, a), path)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    blue, red = (pixels == (0, 0, 255)).all(-1), (pixels == (255, 0, 0)).all(-1)
    assert 384 <= max(np.ptp(np.nonzero(red)[1]), np.ptp(np.nonzero(red)[0])) + 1 <= 1024
    assert np.nonzero(blue)[1].max() < np.nonzero(red)[1].min()  # original left, made here right
    assert abs(int(blue.sum()) - int(red.sum())) < 0.01 * red.sum()  # the same size
    assert list(tmp_path.iterdir()) == [path]


def test_a_sheet_of_a_sliver_is_still_a_sheet(tmp_path: Path) -> None:
    a = scene(10, (5, 400))
    compare.side_by_side(a, a, compare.compare(a, noisy(a, 3)), tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as sheet:
        assert sheet.width >= 480

"""How close a reproduction is, honestly: one figure and its parts. numpy and Pillow only.

| part | what it is | weight |
|---|---|---:|
| ssim | structural similarity of lightness, 8-pixel windows (Wang et al. 2004) | 0.5 |
| psnr | 20 dB → 0, 40 dB → 1 (a good JPEG of the same picture: 33 to 40) | 0.2 |
| phash | agreement of a 64-bit DCT hash beyond chance: half the bits → 0, all → 1 | 0.15 |
| colour | 1 − mean distance of RGB / 64 | 0.15 |

1 means every pixel is equal and nothing else does. Unrelated pictures score about 0.1 to 0.3, a good JPEG of the same
picture above 0.9.

The original may have been resized, cropped or re-encoded by a CDN: the larger picture is reduced to the smaller one's
size, and where their aspects differ the larger is cut to the other's where it looks most like it. `aligned` says what
was done. A cut that leaves the aspect as it was, and so looks like a zoom, is not searched for: it scores low.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from hubctl.errors import RunError

Array = np.ndarray[Any, np.dtype[np.float64]]
LARGEST_PIXELS = 100_000_000  # of a picture that is opened at all: an 8192×8192 one is smaller
LARGEST_SIDE = 2048  # of what is compared part by part: figures of larger pictures come from a reduction
LIKE = 0.999  # the most that pictures score which are not equal: three digits of it never read as 1
THUMB, LINES = 96, 64  # where a cut lies is looked for on a side of so many pixels, then among so many lines


@dataclass(frozen=True)
class Similarity:
    """score, ssim, phash, colour in 0…1; psnr in dB (capped at 99 for equal pictures)."""

    score: float
    ssim: float
    psnr: float
    phash: float
    colour: float
    aligned: str
    identical: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """`0.987 (SSIM 0.981, 38.2 dB)`, or `identical, every pixel`."""
        if self.identical:
            return "identical, every pixel"
        note = f", {self.aligned}" if self.aligned else ""
        return f"{self.score:.3f} (SSIM {self.ssim:.3f}, {self.psnr:.1f} dB{note})"


def read(data: bytes) -> Image.Image:
    """A picture from strangers' bytes, upright, as RGB. Raises RunError for what is none, or is too large to open."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # decided below, by the size alone
            with Image.open(io.BytesIO(data)) as opened:
                if opened.width * opened.height > LARGEST_PIXELS:
                    raise RunError(f"a picture of {opened.width}×{opened.height} is too large to compare")
                return rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        raise RunError("the picture is too large to compare") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise RunError(f"the original cannot be read as a picture: {error}"[:200]) from None


def rgb(image: Image.Image) -> Image.Image:
    """Three 8-bit channels. What is really transparent is shown on white; settings hidden in the last bit are not."""
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        wide = np.asarray(image, dtype=np.float64)
        top = 65535.0 if wide.max(initial=0.0) > 255 else 255.0
        image = Image.fromarray((wide.clip(0, top) / top * 255).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min(initial=255) < 250:
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def compare(a: Image.Image, b: Image.Image) -> Similarity:
    """Similarity of two pictures of any size and mode; the same whichever comes first."""
    a, b = rgb(a), rgb(b)
    if a.size == b.size and np.array_equal(np.asarray(a), np.asarray(b)):
        return Similarity(1.0, 1.0, 99.0, 1.0, 1.0, "", identical=True)
    found = [_measure(first, second, note) for first, second, note in _alignments(a, b)]
    return max(found, key=lambda similarity: similarity.score)


def _measure(a: Image.Image, b: Image.Image, aligned: str) -> Similarity:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    error = float(np.mean((x - y) ** 2))
    psnr = 99.0 if error == 0 else min(99.0, 10 * math.log10(255**2 / error))
    ssim = _ssim(_lightness(x), _lightness(y))
    phash = max(0.0, 2 * float(np.mean(_phash(a) == _phash(b))) - 1)
    colour = max(0.0, 1 - float(np.mean(np.linalg.norm(x - y, axis=-1))) / 64)
    score = 0.5 * max(ssim, 0) + 0.2 * min(max((psnr - 20) / 20, 0), 1) + 0.15 * phash + 0.15 * colour
    return Similarity(min(score, LIKE), ssim, psnr, phash, colour, aligned, identical=False)


def _alignments(a: Image.Image, b: Image.Image) -> list[tuple[Image.Image, Image.Image, str]]:
    """The two pictures at one size: as they are, or, where their aspects differ, with either cut to the other's."""
    first, second = a.width / a.height, b.width / b.height
    if abs(first - second) <= 0.01 * max(first, second):
        pairs, notes = [(a, b)], []
    else:
        pairs = [(_cut(a, b), b), (a, _cut(b, a))]
        notes = ["cropped to a common aspect"]
    out = []
    for one, other in pairs:
        size = (min(one.width, other.width), min(one.height, other.height))
        if max(size) > LARGEST_SIDE:
            scale = LARGEST_SIDE / max(size)
            size = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        said = [*notes, f"compared at {size[0]}×{size[1]}"] if {one.size, other.size} != {size} else notes
        out.append((_resize(one, size), _resize(other, size), ", ".join(said)))
    return out


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _cut(image: Image.Image, other: Image.Image) -> Image.Image:
    """The part of `image`, at the aspect of `other`, that looks most like it: found coarsely, then pixel by pixel."""
    wide = image.width * other.height > other.width * image.height  # what is too much is at the sides
    length, keep = image.size, (image.height * other.width / other.height, image.width * other.height / other.width)
    room = (length[0] - max(1, round(keep[0]))) if wide else (length[1] - max(1, round(keep[1])))
    start = room // 2
    for side, lines in ((THUMB, THUMB), (LARGEST_SIDE, LINES)):
        start = _where(image, other, wide, room, start, side=side, lines=lines, near=side > THUMB)
    if wide:
        return image.crop((start, 0, start + length[0] - room, length[1]))
    return image.crop((0, start, length[0], start + length[1] - room))


def _where(
    image: Image.Image, other: Image.Image, wide: bool, room: int, start: int, *, side: int, lines: int, near: bool
) -> int:
    """Where along its longer axis `image` holds `other`, in its own pixels; `near`: only around `start`."""
    across = image.height if wide else image.width
    scale = min(1.0, side / max(image.size), (other.height if wide else other.width) / across)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    kept = max(1, (small.width if wide else small.height) - round(room * scale))
    like = _resize(other, (kept, small.height) if wide else (small.width, kept))
    step = max(1, (small.height if wide else small.width) // lines)
    x, y = (
        _lightness((pixels[::step].swapaxes(0, 1) if wide else pixels[:, ::step]).astype(np.float64))
        for pixels in (np.asarray(small), np.asarray(like))
    )  # the longer axis first
    middle, reach = round(start * scale), round(max(image.size) / THUMB * scale) + 1
    spots = [i for i in range(x.shape[0] - kept + 1) if not near or abs(i - middle) <= reach]
    best = min(spots, key=lambda i: (float(np.mean((x[i : i + kept] - y) ** 2)), abs(i - middle)), default=middle)
    return min(max(round(best / scale), 0), room)


def _lightness(rgb: Array) -> Array:
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]))


def _ssim(x: Array, y: Array, window: int = 8) -> float:
    """Mean SSIM over sliding windows, from integral images."""
    window = min(window, *x.shape)

    def mean(values: Array) -> Array:
        total = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        box = total[window:, window:] - total[:-window, window:] - total[window:, :-window] + total[:-window, :-window]
        return np.asarray(box / window**2)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return float(np.mean(((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def _phash(image: Image.Image) -> Array:
    """64 bits: signs of the low frequencies of a 32×32 reduction around their median."""
    small = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    n = np.arange(32)
    basis = np.cos(np.pi * (2 * n[None, :] + 1) * n[:, None] / 64)
    low = (basis @ small @ basis.T)[:8, :8]
    return np.asarray(low > np.median(low))


# --- side by side -----------------------------------------------------------------------------------------------------

PAPER, INK, FAINT, GOOD, FAIR = (22, 24, 29), (236, 239, 244), (150, 157, 170), (126, 211, 145), (232, 190, 106)
SMALLEST, LARGEST = 384, 1024  # pixels of a panel's longer side: small pictures are enlarged, large ones reduced


def side_by_side(original: Image.Image, made: Image.Image, similarity: Similarity, path: Path) -> None:
    """Write original and reproduction beside each other, labelled, with the similarity and its parts."""
    made = rgb(made)
    panels = [_panel(rgb(original), made.size), _panel(made, made.size)]
    width, height = panels[0].size
    pad, head, foot = 28, 40, 74
    sheet = Image.new("RGB", (max(2 * width + 3 * pad, 480), head + height + foot + pad), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(14)
    for index, (panel, label) in enumerate(zip(panels, ("original", "made here"), strict=True)):
        left = pad + index * (width + pad)
        draw.text((left, pad - 6), label, fill=FAINT if index == 0 else INK, font=large)
        sheet.paste(panel, (left, head + pad - 12), _rounded(panel.size))
    at = head + pad + height
    tone = GOOD if similarity.score >= 0.9 else FAIR if similarity.score >= 0.6 else FAINT
    title = "identical: every pixel is equal" if similarity.identical else f"similarity {similarity.score:.3f}"
    draw.text((pad, at), title, fill=tone, font=large)
    if not similarity.identical:
        parts = f"structure {similarity.ssim:.3f}  ·  {similarity.psnr:.1f} dB  ·  hash {similarity.phash:.2f}"
        parts += f"  ·  colour {similarity.colour:.3f}"
        for line, text in enumerate(filter(None, (parts, similarity.aligned))):
            draw.text((pad, at + 26 + 18 * line), text, fill=FAINT, font=small)
    beside = path.with_name(f".{path.name}.tmp")
    sheet.save(beside, format="PNG")
    beside.replace(path)


def _panel(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at the made one's shape, enlarged by a whole number when small, reduced when very large."""
    longer = max(size)
    scale: float = max(1, min(8, -(-SMALLEST // longer))) if longer < SMALLEST else min(1.0, LARGEST / longer)
    return _resize(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))


def _rounded(size: tuple[int, int], radius: int = 10) -> Image.Image:
    mask = Image.new("L", (size[0] * 2, size[1] * 2), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] * 2 - 1, size[1] * 2 - 1), radius * 2, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)

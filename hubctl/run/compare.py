"""How close a reproduction is, honestly: one figure and its parts. numpy and Pillow only.

| part | what it is | weight |
|---|---|---:|
| ssim | structural similarity of lightness, 8-pixel windows (Wang et al. 2004) | 0.5 |
| psnr | 20 dB → 0, 50 dB → 1 | 0.2 |
| phash | share of equal bits of a 64-bit DCT hash | 0.15 |
| colour | 1 − mean distance of RGB / 64 | 0.15 |

The original may have been resized or re-encoded by a CDN: the larger picture is reduced to the smaller one's size, and
a different aspect is cropped around the centre. What was done is said in `aligned`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray[Any, np.dtype[np.float64]]


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


def compare(a: Image.Image, b: Image.Image) -> Similarity:
    """Similarity of two pictures of any size."""
    first, second, aligned = _align(a.convert("RGB"), b.convert("RGB"))
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    identical = not aligned and bool(np.array_equal(x, y))
    error = float(np.mean((x - y) ** 2))
    psnr = 99.0 if error == 0 else min(99.0, 10 * math.log10(255**2 / error))
    ssim = _ssim(_lightness(x), _lightness(y))
    phash = float(np.mean(_phash(first) == _phash(second)))
    colour = max(0.0, 1 - float(np.mean(np.linalg.norm(x - y, axis=-1))) / 64)
    score = 0.5 * max(ssim, 0) + 0.2 * min(max((psnr - 20) / 30, 0), 1) + 0.15 * phash + 0.15 * colour
    return Similarity(1.0 if identical else min(score, 0.9999), ssim, psnr, phash, colour, aligned, identical)


def _align(a: Image.Image, b: Image.Image) -> tuple[Image.Image, Image.Image, str]:
    if a.size == b.size:
        return a, b, ""
    notes = []
    if abs(a.width / a.height - b.width / b.height) > 0.01:
        aspect = min(a.width / a.height, b.width / b.height), max(a.width / a.height, b.width / b.height)
        a, b = _crop(a, sum(aspect) / 2), _crop(b, sum(aspect) / 2)
        notes.append("cropped to the common aspect")
    size = (min(a.width, b.width), min(a.height, b.height))
    a, b = (image.resize(size, Image.Resampling.LANCZOS) if image.size != size else image for image in (a, b))
    notes.append(f"compared at {size[0]}×{size[1]}")
    return a, b, ", ".join(notes)


def _crop(image: Image.Image, aspect: float) -> Image.Image:
    width, height = image.size
    if width / height > aspect:
        keep = max(1, round(height * aspect))
        left = (width - keep) // 2
        return image.crop((left, 0, left + keep, height))
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return image.crop((0, top, width, top + keep))


def _lightness(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114])


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


def side_by_side(original: Image.Image, made: Image.Image, similarity: Similarity, path: Path) -> None:
    """Write original and reproduction beside each other, labelled; small pictures are enlarged ×4."""
    a, b = original.convert("RGB"), made.convert("RGB")
    if a.size != b.size:
        a = a.resize(b.size, Image.Resampling.LANCZOS)
    scale = 4 if max(b.size) <= 160 else 2 if max(b.size) <= 320 else 1
    a, b = (image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS) for image in (a, b))
    gap, bar = 12, 34
    sheet = Image.new("RGB", (a.width + b.width + 3 * gap, b.height + bar + 2 * gap), (24, 26, 31))
    sheet.paste(a, (gap, gap))
    sheet.paste(b, (a.width + 2 * gap, gap))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    at = b.height + gap + 9
    draw.text((gap, at), "original", fill=(160, 166, 178), font=font)
    label = "identical" if similarity.identical else f"similarity {similarity.score:.3f}"
    draw.text((a.width + 2 * gap, at), f"reproduction · {label}", fill=(230, 233, 239), font=font)
    beside = path.with_name(f".{path.name}.tmp")
    sheet.save(beside, format="PNG")
    beside.replace(path)

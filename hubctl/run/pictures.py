"""Pictures and latents: VAE both ways, 8 bits, and what inpainting does around the sampler.

start(plan, model)  → Start: the latent to begin from, its mask, and how the result goes back into the picture
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from hubctl.errors import RunError
from hubctl.run.compare import rgb
from hubctl.run.loader import Model
from hubctl.run.names import LATENT_UPSCALERS
from hubctl.run.plan import HiresPlan, RunPlan

Box = tuple[int, int, int, int]
LANCZOS = Image.Resampling.LANCZOS
TILES = (64, 32, 16)  # latents a side, tried one after the other where memory does not reach for the whole


# --- VAE ---


def decode(model: Model, latent: Tensor, notes: list[str] | None = None) -> list[Image.Image]:
    """Latents → 8-bit pictures, truncated as the WebUI does. `notes` gets a sentence when that took tiles."""
    if model.vae is None:
        raise RunError("this checkpoint has no VAE", hint="install one and pass it with --vae")
    out = []
    for one in latent:
        pixels = _decoded(model, (one[None] / model.scaling).float(), [] if notes is None else notes)
        if not bool(torch.isfinite(pixels).all()):
            raise RunError("the VAE gave no picture (NaN)", hint="try --dtype fp32")
        bytes_ = (((pixels[0] + 1) / 2).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        out.append(Image.fromarray(bytes_))
    return out


def _decoded(model: Model, latent: Tensor, notes: list[str]) -> Tensor:
    """The whole at once; where memory runs out, in tiles that share a quarter with the next and are blended."""
    vae = model.vae
    assert vae is not None
    for tile in (None, *(tile for tile in TILES if tile < max(latent.shape[-2:]))):
        if tile is not None:
            vae.enable_tiling()
            vae.tile_latent_min_size, vae.tile_sample_min_size = tile, tile * model.factor
        try:
            pixels: Tensor = vae.decode(latent, return_dict=False)[0]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            continue  # out of this block first: the error holds on to what filled the memory
        finally:
            vae.disable_tiling()
        if tile is not None:
            notes.append(f"memory ran out, so the picture was decoded in tiles of {tile * model.factor} pixels")
        return pixels
    raise RunError(
        "the device's memory is too small for decoding the picture, even in tiles",
        hint="try --offload model, a smaller --size, or --device cpu",
    )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is how a graphics card, or the processor, says so."""
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "not enough memory", "can't allocate memory"))


def encode_image(
    model: Model, image: Image.Image, *, count: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Picture → latent [count, 4, h, w]: the posterior's mean (its spread is about 1e-4), or samples of it."""
    pixels = torch.from_numpy(_floats(image.convert("RGB"))).permute(2, 0, 1)[None]
    return encode_pixels(model, pixels, count=count, generator=generator)


def encode_pixels(model: Model, pixels: Tensor, *, count: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """Pixels [1, 3, H, W] in 0…1 → latent."""
    if model.vae is None:
        raise RunError("this checkpoint has no VAE", hint="install one and pass it with --vae")
    posterior = model.vae.encode((pixels * 2 - 1).to(model.device), return_dict=False)[0]
    latent: Tensor = posterior.mean.expand(count, -1, -1, -1)
    if generator is not None:
        latent = latent + posterior.std * torch.randn(latent.shape, generator=generator).to(latent.device)
    return latent * model.scaling


def _floats(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (np.asarray(image, dtype=np.float32) / np.float32(255)).astype(np.float32)


# --- the second pass ---


def enlarge(hires: HiresPlan, model: Model, decoder: Model, latent: Tensor) -> Tensor:
    """First-pass latents at the second pass's size, cropped where both sides were given."""
    factor = model.factor
    if hires.upscaler in LATENT_UPSCALERS:
        mode, antialias = LATENT_UPSCALERS[hires.upscaler]
        size = (hires.height // factor, hires.width // factor)
        out = torch.nn.functional.interpolate(latent, size=size, mode=mode, antialias=antialias)
    else:
        grown = [_enlarge_image(image, hires, model.device) for image in decode(decoder, latent)]
        out = torch.cat([encode_image(model, image) for image in grown])
    if hires.cover:
        cut_x = (hires.width - hires.cover[0]) // factor
        cut_y = (hires.height - hires.cover[1]) // factor
        out = out[:, :, cut_y // 2 : out.shape[2] - (cut_y + 1) // 2, cut_x // 2 : out.shape[3] - (cut_x + 1) // 2]
    return out


def _enlarge_image(image: Image.Image, hires: HiresPlan, device: torch.device) -> Image.Image:
    """By way of a multiple of 8, as every upscaler of the WebUI; "None" goes straight."""
    target = (hires.width, hires.height)
    if hires.upscaler_path:
        from hubctl.run.upscale import upscale

        return upscale(image, Path(hires.upscaler_path), target, device=device)
    scale = max(target[0] / image.width, target[1] / image.height)
    if hires.upscaler in {"Lanczos", "Nearest"} and scale > 1:
        kind = LANCZOS if hires.upscaler == "Lanczos" else Image.Resampling.NEAREST
        grown = image.resize((int(image.width * scale), int(image.height * scale)), kind)
        eights = (int(image.width * scale // 8 * 8), int(image.height * scale // 8 * 8))
        image = grown if grown.size == eights else grown.resize(eights, LANCZOS)
    return image if image.size == target else image.resize(target, LANCZOS)


# --- from another picture ---


def resize(image: Image.Image, size: tuple[int, int], mode: str = "stretch") -> Image.Image:
    """`stretch`; `crop` covers the size and cuts; any other fits inside and repeats the edges (`fill`)."""
    if mode == "stretch" or image.size == size:
        return image if image.size == size else image.resize(size, LANCZOS)
    (width, height), ratio, own = size, size[0] / size[1], image.width / image.height
    wide = ratio > own if mode == "crop" else ratio < own
    inner_w = width if wide else image.width * height // image.height
    inner_h = image.height * width // image.width if wide else height
    inner = image.resize((inner_w, inner_h), LANCZOS)
    left, top = width // 2 - inner_w // 2, height // 2 - inner_h // 2
    out = Image.new("RGB", size)
    out.paste(inner, (left, top))
    if mode != "crop":
        _repeat_edges(out, inner, left, top)
    return out


def _repeat_edges(out: Image.Image, inner: Image.Image, left: int, top: int) -> None:
    w, h = inner.size
    if top > 0:
        out.paste(inner.resize((out.width, top), box=(0, 0, w, 0)), (0, 0))
        out.paste(inner.resize((out.width, top), box=(0, h, w, h)), (0, top + h))
    elif left > 0:
        out.paste(inner.resize((left, out.height), box=(0, 0, 0, h)), (0, 0))
        out.paste(inner.resize((left, out.height), box=(w, 0, w, h)), (left + w, 0))


@dataclass(frozen=True)
class Start:
    """Where img2img begins. `mask`: 1 where the picture is made anew, at latent size; `finish` puts a result back."""

    latent: Tensor
    mask: Tensor | None = None
    pixels: Image.Image | None = None  # as encoded, and its mask: inpainting checkpoints see both
    pixel_mask: Image.Image | None = None
    finish: Callable[[Image.Image], Image.Image] = lambda image: image


def start(
    plan: RunPlan, model: Model, noise: Callable[[tuple[int, ...]], Tensor], stray: torch.Generator | None = None
) -> Start:
    """`noise(shape)`: fresh draws from the batch's seeds, for masked content made of noise; `stray` samples the VAE."""
    image, size = rgb(_opened(plan.init_image or "")), (plan.width, plan.height)
    drawn = _mask(plan) if plan.mask is not None else None
    if drawn is None or (plan.inpaint_only_masked and drawn.getbbox() is None):  # nothing masked: as if none was given
        fitted = resize(image, size, plan.resize_mode)
        if plan.resize_mode != "latent":
            return Start(encode_image(model, fitted, count=plan.batch, generator=stray), pixels=fitted)
        latent = encode_image(model, image, count=plan.batch, generator=stray)
        small = (plan.height // model.factor, plan.width // model.factor)
        return Start(torch.nn.functional.interpolate(latent, size=small, mode="bilinear"), pixels=fitted)
    mask, crop, overlay_mask = _masks(plan, drawn, image)
    if crop is None:
        image = resize(image, size, plan.resize_mode)
    overlay = _outside(image, overlay_mask)
    if crop is not None:
        image = resize(image.crop(crop), size, "fill")
    if plan.masked_content != "original":
        image = _filled(image, mask)
    latent = encode_image(model, image, count=plan.batch, generator=stray)
    shape = tuple(latent.shape[1:])
    coarse = np.around(_floats(mask.convert("RGB").resize((shape[2], shape[1])))[..., 0])
    anew = torch.from_numpy(coarse)[None, None].to(latent.device)
    if plan.masked_content == "latent noise":
        latent = latent * (1 - anew) + noise(shape).to(latent.device) * anew
    elif plan.masked_content == "latent nothing":
        latent = latent * (1 - anew)
    return Start(latent, anew, image, mask, lambda made: _put_back(made, overlay, crop))


def _opened(path: str) -> Image.Image:
    from PIL import UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened)  # loads it
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise RunError(f"`{Path(path).name}` cannot be opened as a picture: {type(error).__name__}") from None


def _mask(plan: RunPlan) -> Image.Image:
    """White where the picture is made anew: what is painted where anything is transparent, else what is bright."""
    mask = _opened(plan.mask or "")
    if mask.mode == "RGBA" and mask.getchannel("A").getextrema() != (255, 255):
        mask = mask.getchannel("A").point(lambda v: 255 if v > 128 else 0)
    mask = mask.convert("L")
    if plan.mask_inverted:
        mask = ImageOps.invert(mask)
    return _blurred(mask, plan.mask_blur) if plan.mask_blur > 0 else mask


def _masks(plan: RunPlan, mask: Image.Image, image: Image.Image) -> tuple[Image.Image, Box | None, Image.Image]:
    """(mask at the run's size, the box that is worked on, mask for pasting at the picture's size)."""
    size = (plan.width, plan.height)
    if plan.inpaint_only_masked and (box := mask.getbbox()):
        crop = _expanded(_padded(box, plan.inpaint_padding, mask.size), size, mask.size)
        return resize(mask.crop(crop), size, "fill").convert("L"), crop, resize(mask, image.size)
    mask = resize(mask, size, plan.resize_mode).convert("L")
    return mask, None, mask.point(lambda v: min(v * 2, 255))


def _blurred(mask: Image.Image, sigma: float) -> Image.Image:
    """A Gaussian along x, then y, in OpenCV's fixed point for bytes; edges mirrored, the last pixel not repeated."""
    taps = _byte_taps(sigma)
    radius = len(taps) // 2
    data = np.asarray(mask, dtype=np.int64)
    for axis in (1, 0):
        edges = [(0, 0), (0, 0)]
        edges[axis] = (radius, radius)
        wide = np.pad(data, edges, mode="reflect" if data.shape[axis] > 1 else "edge")
        lines = np.lib.stride_tricks.sliding_window_view(wide, len(taps), axis=axis)
        data = np.clip((lines @ taps + 128) >> 8, 0, 255)
    return Image.fromarray(data.astype(np.uint8))


def _byte_taps(sigma: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Gaussian weights in 256ths: each rounded with the error of those before it, the middle one takes the rest."""
    radius = int(2.5 * sigma + 0.5)
    exact = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    exact *= 256 / exact.sum()
    half, error = [], 0.0
    for value in exact[:radius]:
        half.append(round(value + error))
        error += value - half[-1]
    return np.array([*half, 256 - 2 * sum(half), *half[::-1]], dtype=np.int64)


def _padded(box: Box, padding: int, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    return max(x1 - padding, 0), max(y1 - padding, 0), min(x2 + padding, size[0]), min(y2 + padding, size[1])


def _expanded(box: Box, size: tuple[int, int], limits: tuple[int, int]) -> Box:
    """The box grown on its short side to the aspect of `size`, moved to stay inside the picture."""
    x1, y1, x2, y2 = box
    ratio = size[0] / size[1]
    if (x2 - x1) / (y2 - y1) > ratio:
        y1, y2 = _grown(y1, y2, int((x2 - x1) / ratio), limits[1])
    else:
        x1, x2 = _grown(x1, x2, int((y2 - y1) * ratio), limits[0])
    return x1, y1, x2, y2


def _grown(low: int, high: int, wanted: int, limit: int) -> tuple[int, int]:
    more = wanted - (high - low)
    low, high = low - more // 2, high + more - more // 2
    if high >= limit:
        low, high = low - (high - limit), limit
    if low < 0:
        low, high = 0, high - low
    return low, min(high, limit)


def _outside(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture where the mask is not, transparent elsewhere."""
    out = Image.new("RGBa", image.size)
    out.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    return out.convert("RGBA")


def _filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Masked content "fill": what is around the mask, blurred into it ever more finely."""
    out = Image.new("RGBA", image.size)
    around = Image.new("RGBa", image.size)
    around.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    for radius, times in ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)):
        blurred = around.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            out.alpha_composite(blurred)
    return out.convert("RGB")


def _put_back(made: Image.Image, overlay: Image.Image, crop: Box | None) -> Image.Image:
    """The original over the result, through the blurred mask; a cropped result first goes to its place."""
    if crop is not None:
        place = Image.new("RGBA", overlay.size)
        place.paste(resize(made, (crop[2] - crop[0], crop[3] - crop[1]), "crop"), crop[:2])
        made = place
    made = made.convert("RGBA")
    made.alpha_composite(overlay)
    return made.convert("RGB")


# --- inpainting checkpoints: nine channels ---


def inpainting_channels(model: Model, size: tuple[int, int], begun: Start | None, mask_weight: float) -> Tensor:
    """[1, 5, h, w]: the mask, and the latent of the picture without what it covers (grey when there is no picture)."""
    if begun is None or begun.pixels is None:
        grey = encode_pixels(model, torch.full((1, 3, size[1], size[0]), 0.5))
        return torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)
    pixels = torch.from_numpy(_floats(begun.pixels)).permute(2, 0, 1)[None]
    mask = torch.ones((1, 1, *pixels.shape[2:]))
    if begun.pixel_mask is not None:
        mask = torch.from_numpy(np.around(_floats(begun.pixel_mask.convert("L"))))[None, None]
    hidden = torch.lerp(pixels, pixels * (1 - mask) + 0.5 * mask, mask_weight)  # covered pixels are mid-grey
    latent = encode_pixels(model, hidden)
    small = torch.nn.functional.interpolate(mask, size=latent.shape[2:]).to(latent.device)
    return torch.cat([small, latent], dim=1)

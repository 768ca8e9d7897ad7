"""Pixels by a trained upscaler (the ESRGAN family and what else spandrel knows), as the WebUI's second pass uses them.

    upscale(image, Path("4x-UltraSharp.pth"), (1024, 1536), device=device)

The model is applied, up to three times, until the target is reached; Lanczos then takes the result to the target's
exact size. Large pictures go in tiles of 192 that share 8 pixels. The picture enters as blue, green, red, as it does in
the WebUI, whatever the model was trained on.

Spandrel is the `upscale` extra. Two of its architectures (face restoration and inpainting, which are not used here)
want torchvision, which must match torch exactly and often cannot be had: where it is missing or broken, spandrel is
imported with stand-ins for those three functions, so `pip install --no-deps spandrel einops` is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from hubctl.errors import RunError
from hubctl.run.weights import read_tensors

TILE, OVERLAP = 192, 8  # pixels, before enlarging
TIMES = 3
LANCZOS = Image.Resampling.LANCZOS


def upscale(image: Image.Image, path: Path, target: tuple[int, int], *, device: torch.device) -> Image.Image:
    """The picture at `target` (width, height) by the model in `path`. Raises RunError, UnsafeFile."""
    scale = max(target[0] / image.width, target[1] / image.height)
    if scale <= 1:  # nothing to enlarge: the model is not asked
        return image if image.size == target else image.resize(target, LANCZOS)
    model = load(path, str(device))
    wanted = (int(image.width * scale // 8 * 8), int(image.height * scale // 8 * 8))
    for _ in range(TIMES):
        if image.width >= wanted[0] and image.height >= wanted[1]:
            break
        before = image.size
        image = _in_tiles(image, model, device)
        if image.size == before:  # a model that sharpens without enlarging
            break
    for size in (wanted, target):
        image = image if image.size == size else image.resize(size, LANCZOS)
    return image


@lru_cache(maxsize=2)
def load(path: Path, device: str) -> Any:
    """A model on a device, in float32. Pickles only through `weights_only`."""
    spandrel = _spandrel()
    tensors: dict[str, Any] = dict(read_tensors(path))
    try:
        found = spandrel.ModelLoader(device=torch.device(device)).load_from_state_dict(tensors)
    except Exception as error:
        raise RunError(
            f"`{path.name}` is no upscaler that spandrel knows: {type(error).__name__}",
            hint='`hubctl inspect` says what it is; choose another with --set "Hires upscaler=NAME"',
        ) from None
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.input_channels != 3 or found.output_channels != 3:
        raise RunError(f"`{path.name}` is no upscaler of pictures")
    return found.eval().float()


def _spandrel() -> Any:
    try:
        with _without_torchvision():
            import spandrel
    except ImportError as error:
        missing = (error.name or "spandrel").partition(".")[0]
        raise RunError(
            f"this upscaler needs `{missing}`, which is not installed",
            hint="`pip install --no-deps spandrel einops`, or choose an upscaler that needs no model: Lanczos, Latent",
        ) from None
    return spandrel


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Stand-ins for what two architectures import from torchvision, unless a torchvision that works is here."""
    if "spandrel" in sys.modules or _torchvision_works():
        yield
        return
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    kept = {name: sys.modules.get(name) for name in names}
    functions = ModuleType(names[-1])
    functions.InterpolationMode = functions.rotate = functions.normalize = None  # type: ignore[attr-defined]
    try:
        sys.modules.update({names[0]: ModuleType(names[0]), names[1]: ModuleType(names[1]), names[2]: functions})
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _torchvision_works() -> bool:
    try:
        import_module("torchvision.transforms.functional")
    except Exception:  # missing, or built for another torch: its operators are not there
        return False
    return True


# --- tiles ------------------------------------------------------------------------------------------------------------


def _in_tiles(image: Image.Image, model: Any, device: torch.device) -> Image.Image:
    """The whole picture through the model, tile by tile, the shared pixels blended."""
    width, height = min(TILE, image.width), min(TILE, image.height)
    out: Image.Image | None = None
    factor = 1
    for top in _starts(image.height, height):
        row: Image.Image | None = None
        for left in _starts(image.width, width):
            made = _once(image.crop((left, top, left + width, top + height)), model, device)
            factor = max(made.width // width, 1)
            row = row or Image.new("RGB", (image.width * factor, made.height))
            _join(row, made, (left * factor, 0), OVERLAP * factor if left else 0, sideways=True)
        assert row is not None
        out = out or Image.new("RGB", (image.width * factor, image.height * factor))
        _join(out, row, (0, top * factor), OVERLAP * factor if top else 0, sideways=False)
    assert out is not None
    return out


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin: evenly spread, each sharing at least OVERLAP pixels with the next."""
    if length <= tile:
        return [0]
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    return [int(index * (length - tile) / (count - 1)) for index in range(count)]


def _join(onto: Image.Image, tile: Image.Image, at: tuple[int, int], shared: int, *, sideways: bool) -> None:
    """Paste a tile so that its first `shared` pixels fade in over what is there."""
    if not shared:
        onto.paste(tile, at)
        return
    size = (shared, tile.height) if sideways else (tile.width, shared)
    ramp = (np.arange(shared) * 255 / shared).astype(np.uint8)
    mask = Image.fromarray(np.ascontiguousarray(np.broadcast_to(ramp if sideways else ramp[:, None], size[::-1])))
    onto.paste(tile.crop((0, 0, *size)), at, mask)
    rest = (shared, 0) if sideways else (0, shared)
    onto.paste(tile.crop((*rest, *tile.size)), (at[0] + rest[0], at[1] + rest[1]))


def _once(image: Image.Image, model: Any, device: torch.device) -> Image.Image:
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)[..., ::-1].copy() / 255
    with torch.inference_mode():
        made = model(torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device))[0]
    data = (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(data[..., ::-1]))

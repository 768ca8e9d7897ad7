"""Upscalers: the tiles and sizes without any model, real ESRGAN architectures where spandrel is installed."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hubctl.errors import RunError, UnsafeFile
from hubctl.run import upscale

CPU = torch.device("cpu")
needs_spandrel = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None, reason="needs `pip install --no-deps spandrel einops`"
)


def twice(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=2)


def picture(size: tuple[int, int]) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    return Image.fromarray(np.stack([x % 256, y % 256, (x * y // 16) % 256], -1).astype(np.uint8))


@given(st.integers(1, 3000))
def test_tiles_cover_every_pixel_and_share_enough(length: int) -> None:
    tile = min(upscale.TILE, length)
    starts = upscale._starts(length, tile)
    assert starts[0] == 0
    assert starts[-1] + tile == length
    assert all(0 < b - a <= tile - upscale.OVERLAP for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("size", [(96, 96), (192, 192), (193, 192), (500, 200), (385, 777)])
def test_tiles_leave_no_seam(size: tuple[int, int]) -> None:
    image = picture(size)
    made = upscale._in_tiles(image, twice, CPU)
    assert np.array_equal(
        np.asarray(made), np.asarray(image.resize((size[0] * 2, size[1] * 2), Image.Resampling.NEAREST))
    )


@pytest.mark.parametrize(
    ("target", "calls"), [((192, 192), 1), ((200, 200), 2), ((384, 384), 2), ((768, 768), 3), ((2000, 2000), 3)]
)
def test_the_model_runs_until_the_target_is_reached(
    target: tuple[int, int], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[-1])
        return twice(x)

    monkeypatch.setattr(upscale, "load", lambda path, device: model)
    monkeypatch.setattr(upscale, "TILE", 10_000)
    made = upscale.upscale(picture((96, 96)), Path("x"), target, device=CPU)
    assert made.size == target
    assert len(seen) == calls


def test_blue_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        upscale, "load", lambda path, device: lambda x: twice(x) * torch.tensor([1, 0, 0])[:, None, None]
    )
    made = upscale.upscale(Image.new("RGB", (8, 8), (10, 20, 30)), Path("x"), (16, 16), device=CPU)
    assert made.getpixel((0, 0)) == (0, 0, 30)


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is not None, reason="spandrel is installed")
def test_without_spandrel_the_way_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="needs `spandrel`") as refused:
        upscale.upscale(picture((8, 8)), tmp_path / "4x.pth", (16, 16), device=CPU)
    assert "--no-deps spandrel einops" in (refused.value.hint or "")
    assert "torchvision" not in sys.modules


def esrgan(features: int = 8, blocks: int = 1, growth: int = 32, shuffles: int = 1) -> dict[str, torch.Tensor]:
    """An RRDB net in the names of the published files: `features` wide, ×2 a shuffle."""
    generator = torch.Generator().manual_seed(3)

    def conv(name: str, after: int, before: int) -> dict[str, torch.Tensor]:
        weight = torch.randn((after, before, 3, 3), generator=generator) / (before * 9) ** 0.5
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(after)}

    out = conv("model.0", features, 3)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in range(1, 6):
                after = features if layer == 5 else growth
                name = f"model.1.sub.{block}.RDB{dense}.conv{layer}.0"
                out |= conv(name, after, features + (layer - 1) * growth)
    out |= conv(f"model.1.sub.{blocks}", features, features)
    at = 3
    for _ in range(shuffles):
        out |= conv(f"model.{at}", features, features)
        at += 3
    out |= conv(f"model.{at - 1}", features, features)
    out |= conv(f"model.{at + 1}", 3, features)
    return out


@needs_spandrel
@pytest.mark.parametrize("shuffles", [1, 2])
def test_an_esrgan_in_its_published_names(shuffles: int, tmp_path: Path) -> None:
    path = tmp_path / "esrgan.pth"
    torch.save(esrgan(shuffles=shuffles), path)
    image = picture((40, 24))
    made = upscale.upscale(image, path, (80, 48), device=CPU)
    assert made.size == (80, 48)
    assert upscale.load(path, "cpu").scale == 2**shuffles
    assert np.asarray(made).std() > 1
    assert np.array_equal(np.asarray(made), np.asarray(upscale.upscale(image, path, (80, 48), device=CPU)))


@needs_spandrel
def test_what_is_no_upscaler(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"a.weight": torch.ones(2)}, path)
    with pytest.raises(RunError, match=r"other\.pth"):
        upscale.load(path, "cpu")

    class Hostile:
        def __reduce__(self) -> Any:
            return print, ("run",)

    torch.save({"a": Hostile()}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeFile, match=r"evil\.pth"):
        upscale.load(tmp_path / "evil.pth", "cpu")


@needs_spandrel
def test_no_stand_in_is_left_behind() -> None:
    upscale._spandrel()
    assert "torchvision" not in sys.modules or hasattr(sys.modules["torchvision"], "__file__")


@needs_spandrel
def test_the_second_pass_uses_it(shared: Path, tmp_path: Path) -> None:
    """From the settings to the picture: an upscaler by its file's name, located like any other resource."""
    from hubctl.parameters import GenerationParameters, Hires, ResourceRef
    from hubctl.run import plan as run_plan
    from hubctl.run import runner

    model = tmp_path / "4x-Tiny.pth"
    torch.save(esrgan(shuffles=2), model)
    files = {"checkpoint": shared / "demo-model/tiny-toon-v1.safetensors", "upscaler": model}
    parameters = GenerationParameters(
        prompt="an owl", steps=3, sampler="euler", seed=1, width=96, height=96, rng="cpu",
        resources=(ResourceRef("checkpoint", "toon"),),
        hires=Hires(upscale=2.0, upscaler="4x-Tiny", denoise=0.5, steps=2),
    )  # fmt: skip

    def locate(ref: ResourceRef) -> run_plan.Located | None:
        return run_plan.Located(files[ref.kind]) if ref.kind in files else None

    plan = run_plan.build(parameters, locate=locate)
    assert plan.hires is not None
    assert plan.hires.upscaler_path == str(model)
    assert not any("upscaler" in sentence for sentence in plan.deviations)
    images = runner.run(plan, device="cpu").images
    assert images[0].size == (192, 192)
    del files["upscaler"]
    without = run_plan.build(parameters, locate=locate)
    assert "upscaler 4x-Tiny is not here: Lanczos was used" in without.deviations

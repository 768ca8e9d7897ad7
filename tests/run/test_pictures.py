"""Pictures before and after the network: fitting one into another's size, masks, what is transparent."""

from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from PIL import Image

from hubctl.run import loader, pictures
from hubctl.run.plan import RunPlan

SIZE = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> loader.Model:
    path = layouts.tiny_sd1(tmp_path_factory.mktemp("model"))
    return loader.load(path, device=torch.device("cpu"), dtype=torch.float32)


def gradients(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([3 * x % 256, 3 * y % 256, x * y % 256], -1).astype(np.uint8))


def plan_for(folder: Path, picture: Image.Image, mask: Image.Image | None = None, **changes: object) -> RunPlan:
    picture.save(folder / "picture.png")
    if mask is not None:
        mask.save(folder / "mask.png")
    data = {
        "checkpoint": "-", "prompt": "", "negative_prompt": "", "sampler": "euler", "schedule": None, "steps": 4,
        "cfg_scale": 7.0, "seed": 1, "width": SIZE, "height": SIZE, "init_image": str(folder / "picture.png"),
        "mask": str(folder / "mask.png") if mask is not None else None, "mask_blur": 0,
    }  # fmt: skip
    return RunPlan.from_json({**data, **changes})


def begun(plan: RunPlan, model: loader.Model) -> pictures.Start:
    return pictures.start(plan, model, torch.ones)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (64, 64), (33, 50), (128, 129)])
def test_crop_covers_and_fill_repeats_the_edge(size: tuple[int, int]) -> None:
    image = gradients(*size)
    for mode in ("crop", "fill"):
        scale = (max if mode == "crop" else min)(SIZE / size[0], SIZE / size[1])
        made = np.asarray(pictures.resize(image, (SIZE, SIZE), mode))
        assert made.shape == (SIZE, SIZE, 3)
        inner = (
            SIZE if abs(size[0] * scale - SIZE) < 1e-9 else int(size[0] * scale + 1e-9),
            SIZE if abs(size[1] * scale - SIZE) < 1e-9 else int(size[1] * scale + 1e-9),
        )
        scaled = np.asarray(image.resize(inner, Image.Resampling.LANCZOS))
        left, top = SIZE // 2 - inner[0] // 2, SIZE // 2 - inner[1] // 2
        for y in range(SIZE):
            for x in range(0, SIZE, 7):
                inside = 0 <= x - left < inner[0] and 0 <= y - top < inner[1]
                if inside:
                    assert tuple(made[y, x]) == tuple(scaled[y - top, x - left])
        if mode == "fill":
            if left > 0:  # the same the other way round
                made, scaled, top, inner = made.swapaxes(0, 1), scaled.swapaxes(0, 1), left, inner[::-1]
            for strip, edge in ((made[:top], scaled[0]), (made[top + inner[1] : 2 * top + inner[1]], scaled[-1])):
                assert (strip == strip[:1]).all()
                assert not len(strip) or np.abs(strip[0].astype(int) - edge).mean() < 8  # resampled, so a little apart


def test_latents_may_be_resized_instead(model: loader.Model, tmp_path: Path) -> None:
    image = gradients(96, 48)
    latent = begun(plan_for(tmp_path, image, resize_mode="latent"), model).latent
    wanted = torch.nn.functional.interpolate(pictures.encode_image(model, image), size=(8, 8), mode="bilinear")
    assert torch.equal(latent, wanted)


# --- what is transparent, and what is masked --------------------------------------------------------------------------


def test_transparent_parts_are_white(model: loader.Model, tmp_path: Path) -> None:
    solid = gradients(SIZE, SIZE)
    alpha = Image.new("L", solid.size, 255)
    alpha.paste(0, (10, 10, 30, 30))
    cut = solid.copy()
    cut.putalpha(alpha)
    white = solid.copy()
    white.paste((255, 255, 255), (10, 10, 30, 30))
    assert torch.equal(begun(plan_for(tmp_path, cut), model).latent, begun(plan_for(tmp_path, white), model).latent)


def test_a_picture_on_its_side_is_turned(model: loader.Model, tmp_path: Path) -> None:
    upright = gradients(SIZE, SIZE)
    plan = plan_for(tmp_path, upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    sideways = RunPlan.from_json({**plan.to_json(), "init_image": str(tmp_path / "turned.png")})
    assert torch.equal(begun(sideways, model).latent, begun(plan, model).latent)


def test_a_mask_may_be_light_grey_or_painted_on_glass(model: loader.Model, tmp_path: Path) -> None:
    """As a WebUI takes it: by lightness, rounded only at latent size; by alpha where anything is transparent."""
    image = gradients(SIZE, SIZE)
    box = (16, 16, 48, 48)
    white = Image.new("L", image.size, 0)
    white.paste(255, box)
    wanted = begun(plan_for(tmp_path, image, white), model).mask
    assert wanted is not None
    assert int(wanted.sum()) == 16
    glass = Image.new("RGBA", image.size, (0, 0, 0, 0))
    glass.paste((0, 0, 0, 255), box)
    painted = begun(plan_for(tmp_path, image, glass), model).mask
    grey = white.point(lambda v: v * 200 // 255)
    faint = white.point(lambda v: v * 100 // 255)
    assert painted is not None
    assert torch.equal(painted, wanted)
    for mask, same in ((grey, True), (faint, False)):
        made = begun(plan_for(tmp_path, image, mask), model)
        assert made.mask is not None
        assert torch.equal(made.mask, wanted) == same
        assert made.pixel_mask is not None
        assert made.pixel_mask.getextrema()[1] == mask.getextrema()[1]  # not rounded before


def test_an_empty_mask_is_none_where_only_the_masked_part_counts(model: loader.Model, tmp_path: Path) -> None:
    image, nothing = gradients(SIZE, SIZE), Image.new("L", (SIZE, SIZE), 0)
    start = begun(plan_for(tmp_path, image, nothing, inpaint_only_masked=True), model)
    assert start.mask is None
    assert torch.equal(start.latent, pictures.encode_image(model, image))
    kept = begun(plan_for(tmp_path, image, nothing), model)
    assert kept.mask is not None
    assert not kept.mask.any()

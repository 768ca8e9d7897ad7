"""Whole runs on miniature checkpoints of every family: what holds whatever the picture looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from PIL import Image

from hubctl.errors import RunError
from hubctl.run import runner
from hubctl.run.plan import HiresPlan, RunPlan
from hubctl.run.runner import ModelCache, StepInfo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def checkpoint(folder: Path, family: layouts.Family, name: str = "") -> Path:
    path = folder / f"{name or family.name}.safetensors"
    return path if path.exists() else layouts.write(path, layouts.weights(layouts.checkpoint(family)))


def planned(path: Path, **changes: Any) -> RunPlan:
    plan = RunPlan(
        checkpoint=str(path), prompt="a (robot:1.2) in the rain", negative_prompt="blurry", sampler="euler_ancestral",
        schedule=None, steps=3, cfg_scale=5.0, seed=7, width=64, height=64,
    )  # fmt: skip
    return replace(plan, **changes)


def made(plan: RunPlan, cache: ModelCache | None = None) -> runner.RunResult:
    return runner.run(plan, device="cpu", cache=cache)


@pytest.fixture(scope="module")
def cache() -> ModelCache:
    return ModelCache()


@pytest.fixture
def sd1(folder: Path) -> Path:
    return checkpoint(folder, layouts.TINY_SD1)


# --- families ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [layouts.TINY_SD1, layouts.TINY_SD2, layouts.TINY_SDXL], ids=lambda f: f.name)
@pytest.mark.parametrize("flavour", ["a1111", "forge", "comfy"])
def test_every_family_runs_by_every_programs_rules(folder: Path, family: layouts.Family, flavour: str) -> None:
    plan = planned(checkpoint(folder, family), flavour=flavour, whole_timesteps=flavour != "a1111", clip_skip=2)
    result = made(plan)
    assert result.images[0].size == (64, 64)
    assert bool(torch.isfinite(result.latents).all())
    assert [call.rows for call in result.passes[0].calls] == [2, 2, 2]


def test_v_prediction_and_zero_terminal_snr(folder: Path) -> None:
    shapes = layouts.checkpoint(layouts.TINY_SD1) | {"v_pred": (0,), "ztsnr": (0,)}
    path = layouts.write(folder / "v.safetensors", layouts.weights(shapes))
    for sampler in ("euler", "ddim"):
        result = made(planned(path, sampler=sampler, steps=5))
        assert bool(torch.isfinite(result.latents).all())
    assert made(planned(path, sampler="euler")).passes[0].calls[0].sigma > 4000


def test_the_sdxl_refiner_takes_over_and_makes_the_picture(folder: Path) -> None:
    base, refiner = checkpoint(folder, layouts.TINY_SDXL), checkpoint(folder, layouts.TINY_REFINER)
    plain = planned(base, flavour="forge", whole_timesteps=True, steps=4, sampler="euler")
    alone = made(plain)
    both = made(replace(plain, refiner=str(refiner), refiner_at=0.5, refiner_by_steps=True))
    assert not torch.equal(alone.latents, both.latents)
    late = made(replace(plain, refiner=str(refiner), refiner_at=1.0, refiner_by_steps=True))
    assert torch.equal(alone.latents, late.latents)
    by_time = made(replace(plain, refiner=str(refiner), refiner_at=0.5))
    assert not torch.equal(by_time.latents, alone.latents)


def test_inpainting_checkpoints_see_the_mask_and_what_is_around_it(folder: Path, tmp_path: Path) -> None:
    path = checkpoint(folder, replace(layouts.TINY_SD1, inputs=9), "inpaint")
    assert bool(torch.isfinite(made(planned(path)).latents).all())
    picture, mask = pictures(tmp_path)
    plan = planned(path, init_image=picture, mask=mask, mask_blur=0, denoise=0.9)
    assert not torch.equal(made(plan).latents, made(replace(plan, mask_weight=0.2)).latents)


def test_a_checkpoint_with_other_inputs_is_refused(folder: Path) -> None:
    path = checkpoint(folder, replace(layouts.TINY_SD1, inputs=8), "pix2pix")
    with pytest.raises(RunError) as refused:
        made(planned(path))
    assert "8" in refused.value.message


# --- batches and caches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rng", ["cpu", "nv"])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_a_picture_of_a_batch_is_the_picture_alone(sd1: Path, cache: ModelCache, rng: str, sampler: str) -> None:
    plan = planned(sd1, rng=rng, sampler=sampler)
    batch = made(replace(plan, batch=2, iterations=2), cache)
    assert len(batch.images) == 4
    alone = made(replace(plan, seed=plan.seed + 3), cache)
    assert torch.allclose(batch.latents[3], alone.latents[0], rtol=1e-4, atol=1e-3)


def test_comfyui_draws_its_batch_as_one(sd1: Path, cache: ModelCache) -> None:
    plan = planned(sd1, rng="cpu", flavour="comfy", whole_timesteps=True, batch=2, sampler="euler", schedule="normal")
    noise = made(plan, cache).passes[0].noise
    assert torch.equal(noise, torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(7)))


def test_the_second_run_reads_nothing_again(folder: Path, tmp_path: Path) -> None:
    path = layouts.write(tmp_path / "once.safetensors", layouts.weights(layouts.checkpoint(layouts.TINY_SD1)))
    cache = ModelCache()
    first = made(planned(path), cache)
    path.unlink()
    again = made(planned(path), cache)
    assert torch.equal(first.latents, again.latents)
    assert again.load_seconds < 0.1


def test_runs_are_the_same_every_time(sd1: Path, cache: ModelCache) -> None:
    plan = planned(sd1, hires=HiresPlan(96, 96, 2, "Latent", 0.6), sampler="dpmpp_2m_sde")
    assert torch.equal(made(plan, cache).latents, made(plan, ModelCache()).latents)


def test_progress_carries_the_estimate_and_may_stop_the_run(sd1: Path, cache: ModelCache) -> None:
    seen: list[StepInfo] = []
    runner.run(planned(sd1), device="cpu", cache=cache, on_step=seen.append)
    steps = [step for step in seen if step.what.startswith("step")]
    assert [step.done for step in steps] == [1, 2, 3]
    assert all(step.denoised is not None and step.denoised.shape == (1, 4, 8, 8) for step in steps)
    assert [step.sigma for step in steps] == sorted((step.sigma for step in steps if step.sigma), reverse=True)

    class Enough(Exception):
        pass

    def stop(step: StepInfo) -> None:
        if step.done == 1:
            raise Enough

    with pytest.raises(Enough):
        runner.run(planned(sd1), device="cpu", cache=cache, on_step=stop)
    assert made(planned(sd1), cache).images


# --- guidance ---------------------------------------------------------------------------------------------------------


def rows(plan: RunPlan, cache: ModelCache) -> list[int]:
    return [call.rows for call in made(plan, cache).passes[0].calls]


def test_guidance_that_changes_nothing_is_left_out(sd1: Path, cache: ModelCache) -> None:
    plan = planned(sd1, steps=6, sampler="euler")
    assert rows(replace(plan, cfg_scale=1.0), cache) == [1] * 6
    assert rows(replace(plan, skip_early=0.4), cache) == [1, 1, 1, 2, 2, 2]
    assert rows(replace(plan, ngms=100.0), cache) == [2, 1] * 3
    assert rows(replace(plan, ngms=100.0, ngms_all=True), cache) == [1] * 6
    assert rows(replace(plan, prompt="a cat AND a dog"), cache) == [3] * 6


def test_and_is_a_weighted_sum(sd1: Path, cache: ModelCache) -> None:
    plan = planned(sd1, sampler="euler", prompt="a cat")
    same = made(replace(plan, prompt="a cat AND a cat:-0.5 AND a cat:0.5"), cache)
    assert torch.allclose(made(plan, cache).latents, same.latents, atol=1e-3)


def test_prompts_of_unequal_length_need_no_padding_but_a1111_may_pad(sd1: Path, cache: ModelCache) -> None:
    long = ", ".join(["a very long prompt"] * 30)
    plan = planned(sd1, sampler="euler", prompt=long)
    plain = made(plan, cache)
    for how in ("empty", "v0"):
        padded = made(replace(plan, pad_conds=how), cache)
        assert not torch.equal(plain.latents, padded.latents)
        assert bool(torch.isfinite(padded.latents).all())
    equal = replace(plan, prompt="short")
    assert torch.equal(made(equal, cache).latents, made(replace(equal, pad_conds="empty"), cache).latents)


def test_tiling_repeats_at_the_edges(sd1: Path, cache: ModelCache) -> None:
    plan = planned(sd1, sampler="euler")
    plain = made(plan, cache)
    assert not torch.equal(plain.latents, made(replace(plan, tiling=True), cache).latents)
    assert torch.equal(plain.latents, made(plan, cache).latents)  # and the next run is as before


# --- from a picture ---------------------------------------------------------------------------------------------------


def pictures(folder: Path, size: int = 64) -> tuple[str, str]:
    y, x = np.mgrid[:size, :size]
    Image.fromarray(np.stack([4 * x % 256, 4 * y % 256, x * y % 256], -1).astype(np.uint8)).save(folder / "p.png")
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 255
    Image.fromarray(mask).save(folder / "m.png")
    return str(folder / "p.png"), str(folder / "m.png")


@pytest.mark.parametrize("flavour", ["a1111", "forge"])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddim", "uni_pc"])
@pytest.mark.parametrize("only", [False, True])
def test_outside_the_mask_the_picture_stays(
    sd1: Path, cache: ModelCache, tmp_path: Path, flavour: str, sampler: str, only: bool
) -> None:
    picture, mask = pictures(tmp_path)
    plan = planned(
        sd1, init_image=picture, mask=mask, mask_blur=2, denoise=0.75, steps=6, sampler=sampler, flavour=flavour,
        whole_timesteps=flavour == "forge", inpaint_only_masked=only, inpaint_padding=8,
    )  # fmt: skip
    result = np.asarray(made(plan, cache).images[0], dtype=int)
    original = np.asarray(Image.open(picture).convert("RGB"), dtype=int)
    changed = np.abs(result - original).max(axis=-1)
    assert changed[:8].max() == changed[48:].max() == changed[:, :8].max() == 0
    assert changed[20:28, 20:28].max() > 0


@pytest.mark.parametrize("content", ["original", "fill", "latent noise", "latent nothing"])
def test_masked_content_differs(sd1: Path, cache: ModelCache, tmp_path: Path, content: str) -> None:
    picture, mask = pictures(tmp_path)
    plan = planned(sd1, init_image=picture, mask=mask, denoise=0.5, steps=4, sampler="euler", masked_content=content)
    assert bool(torch.isfinite(made(plan, cache).latents).all())
    if content != "original":
        assert not torch.equal(made(plan, cache).latents, made(replace(plan, masked_content="original"), cache).latents)


@pytest.mark.parametrize("mode", ["stretch", "crop", "fill", "latent"])
def test_a_picture_of_another_shape_is_fitted(sd1: Path, cache: ModelCache, tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (104, 40), (200, 30, 30)).save(tmp_path / "wide.png")
    plan = planned(sd1, init_image=str(tmp_path / "wide.png"), denoise=0.3, steps=4, resize_mode=mode)
    assert made(plan, cache).images[0].size == (64, 64)


def test_strength_decides_how_many_steps_run(sd1: Path, cache: ModelCache, tmp_path: Path) -> None:
    picture, _ = pictures(tmp_path)
    plan = planned(sd1, init_image=picture, denoise=0.5, steps=10, sampler="euler")
    assert len(made(plan, cache).passes[0].calls) == 6
    assert len(made(replace(plan, exact_steps=True), cache).passes[0].calls) == 10
    assert len(made(replace(plan, sampler="ddim"), cache).passes[0].calls) == 4


@pytest.mark.parametrize("sampler", ["euler", "ddim", "plms", "uni_pc", "dpmpp_sde", "dpm_fast"])
def test_no_strength_is_no_step(sd1: Path, cache: ModelCache, tmp_path: Path, sampler: str) -> None:
    picture, _ = pictures(tmp_path)
    nothing = planned(sd1, sampler=sampler, steps=4, hires=HiresPlan(96, 96, 4, "Latent", 0.0))
    result = made(nothing, cache)
    assert result.first_pass is not None
    larger = torch.nn.functional.interpolate(result.first_pass, size=(12, 12), mode="bilinear")
    assert torch.equal(result.latents, larger)
    for exact in (False, True):
        hardly = planned(sd1, sampler=sampler, steps=4, init_image=picture, denoise=0.01, exact_steps=exact)
        assert bool(torch.isfinite(made(hardly, cache).latents).all())


# --- memory -----------------------------------------------------------------------------------------------------------


def short_of_memory(module: torch.nn.Module, side: int) -> Any:
    """Let a module run out of memory on anything larger than this."""

    def check(_module: Any, args: Any) -> None:
        if args[0].shape[-1] > side:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return module.register_forward_pre_hook(check)


def test_a_picture_too_large_for_the_memory_is_decoded_in_tiles(sd1: Path) -> None:
    cache = ModelCache()
    plan = planned(sd1, width=320, height=256, steps=1, sampler="euler")
    whole = made(plan, cache)
    vae = cache.get(plan, torch.device("cpu"), torch.float32)[0].vae
    assert vae is not None
    hook = short_of_memory(vae.decoder, 32)
    tiled = made(plan, cache)
    assert "memory ran out, so the picture was decoded in tiles of 256 pixels" in tiled.deviations
    apart = np.abs(np.asarray(whole.images[0], dtype=int) - np.asarray(tiled.images[0], dtype=int))
    assert 0 < apart.mean() < 8
    hook.remove()
    again = made(plan, cache)
    assert again.images[0].tobytes() == whole.images[0].tobytes()
    assert again.deviations == whole.deviations
    short_of_memory(vae.decoder, 8)
    with pytest.raises(RunError, match="even in tiles"):
        made(plan, cache)


@pytest.mark.parametrize(
    "said", ["CUDA out of memory. Tried to allocate 9 GiB", "not enough memory: you tried", "can't allocate memory:"]
)
def test_a_device_that_is_too_small_is_a_sentence(sd1: Path, said: str) -> None:
    cache = ModelCache()
    plan = planned(sd1)

    def fail(_module: Any, _args: Any) -> None:
        raise RuntimeError(said)

    hook = cache.get(plan, torch.device("cpu"), torch.float32)[0].unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(RunError, match="64×64 does not fit"):
        made(plan, cache)
    hook.remove()
    made(plan, cache)  # and the next one that fits is made


def test_other_errors_of_torch_stay_what_they_are(sd1: Path) -> None:
    cache = ModelCache()
    plan = planned(sd1)

    def fail(_module: Any, _args: Any) -> None:
        raise RuntimeError("other")

    cache.get(plan, torch.device("cpu"), torch.float32)[0].unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="other"):
        made(plan, cache)


def test_what_is_no_picture_is_refused(sd1: Path, cache: ModelCache, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(RunError):
        made(planned(sd1, init_image=str(tmp_path / "x.png")), cache)


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (bicubic antialiased)", "None", "Lanczos", "Nearest"])
def test_second_passes_reach_their_size(sd1: Path, cache: ModelCache, upscaler: str) -> None:
    result = made(planned(sd1, hires=HiresPlan(108, 90, 2, upscaler, 0.5)), cache)
    assert result.images[0].size == (104, 88)  # whole latents, as in the WebUI
    assert result.first_pass is not None
    assert result.first_pass.shape == (1, 4, 8, 8)
    assert len(result.passes[1].calls) == 2


def test_a_covering_second_pass_is_cut_to_its_target(sd1: Path, cache: ModelCache) -> None:
    result = made(planned(sd1, hires=HiresPlan(128, 128, 2, "Latent", 0.5, cover=(128, 96))), cache)
    assert result.images[0].size == (128, 96)

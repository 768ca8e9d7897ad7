"""Pictures made with one setting, given to `solve` without it: it is found, and a tie is called a tie."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubctl.errors import RunError
from hubctl.parameters import GenerationParameters, Generator, ResourceRef
from hubctl.run import runner, solve
from hubctl.run.plan import RunPlan

A1111 = Generator("A1111", "v1.10.1")
CACHE = runner.ModelCache()


@pytest.fixture(scope="module")
def base(shared: Path) -> RunPlan:
    return RunPlan(
        checkpoint=str(shared / "demo-model/tiny-toon-v1.safetensors"),
        prompt="a (robot:1.3) with a top hat, city at night",
        negative_prompt="",
        sampler="dpmpp_2m",
        schedule="karras",
        steps=12,
        cfg_scale=7.0,
        seed=5,
        width=96,
        height=96,
        rng="cpu",
    )


def made(plan: RunPlan, quality: int | None = None) -> bytes:
    file = io.BytesIO()
    image = runner.run(plan, device="cpu", cache=CACHE).images[0]
    image.save(file, "JPEG" if quality else "PNG", **({"quality": quality} if quality else {}))
    return file.getvalue()


def says(plan: RunPlan, **less: Any) -> RunPlan:
    """The plan as built from settings that say everything but what is given as None."""
    said = {
        "prompt": plan.prompt, "sampler": plan.sampler, "generator": A1111, "rng": plan.rng, "schedule": plan.schedule,
        "clip_skip": plan.clip_skip, **less,
    }  # fmt: skip
    return replace(plan, parameters=GenerationParameters(**said).to_json())


@pytest.mark.parametrize(
    ("true", "meant", "unsaid", "key", "value"),
    [
        ({"rng": "cpu"}, {"rng": "nv"}, {"rng": None}, "rng", "cpu"),
        ({"rng": "nv"}, {"rng": "nv"}, {"rng": None}, "rng", "nv"),
        ({"clip_skip": 2}, {}, {"clip_skip": None}, "clip_skip", 2),
        ({"clip_skip": 1}, {}, {"clip_skip": None}, "clip_skip", 1),
        ({"schedule": "uniform"}, {"schedule": None}, {"schedule": None}, "schedule", "uniform"),
        ({}, {"schedule": "uniform"}, {"schedule": None}, "schedule", None),  # automatic: Karras
        ({"emphasis": "No norm"}, {}, {"generator": Generator()}, "emphasis", "No norm"),
        ({"flavour": "forge", "whole_timesteps": True}, {}, {"generator": Generator()}, "whole_timesteps", True),
    ],
    ids=["cpu", "nv", "clip skip 2", "clip skip 1", "uniform", "automatic", "no norm", "forge"],
)
def test_what_was_left_out_is_found(
    base: RunPlan, true: dict[str, Any], meant: dict[str, Any], unsaid: dict[str, Any], key: str, value: Any
) -> None:
    solved = solve.solve(says(replace(base, **meant), **unsaid), made(replace(base, **true)), device="cpu", cache=CACHE)
    assert getattr(solved.best, key) == value
    assert runner.run(solved.best, device="cpu", cache=CACHE).images[0].tobytes()
    changed = getattr(replace(base, **meant), key) != value
    assert changed == any("found by trying" in sentence for sentence in solved.best.deviations)


def test_several_at_once_from_a_jpeg(base: RunPlan) -> None:
    """SDE noise, clip skip 2 and a schedule unsaid, and the hub re-encoded the picture."""
    true = replace(base, sampler="dpmpp_2m_sde", clip_skip=2, rng="nv")
    meant = replace(true, schedule=None, clip_skip=1, rng="cpu")
    ticks: list[tuple[int, int, str]] = []
    solved = solve.solve(
        says(meant, rng=None, schedule=None, clip_skip=None), made(true, 85), lambda *tick: ticks.append(tick), "cpu",
        cache=CACHE,
    )  # fmt: skip
    best = solved.best
    assert (best.rng, best.schedule, best.clip_skip) == ("nv", "karras", 2)
    assert "noise NV, schedule Karras, clip skip 2" in best.deviations[-1]
    assert len(solved.trials) <= 2 + solve.MOST + solve.FINALISTS
    assert all(done <= total for done, total, _ in ticks)
    # most of what was tried was begun only
    assert int(solved.report[-1].split(" runs, ")[1].split()[0]) < 0.75 * true.steps * len(solved.trials)


def test_a_tie_is_called_one_and_the_settings_stay(base: RunPlan) -> None:
    """Emphasis without normalisation hardly shows in a JPEG of this picture."""
    true = replace(base, prompt="a (robot:1.01)")
    solved = solve.solve(says(true, generator=Generator()), made(true, 70), device="cpu", cache=CACHE)
    assert solved.best.emphasis == "Original"
    assert any("cannot be told apart" in line and "was kept" in line for line in solved.report)
    assert not any("found by trying" in sentence for sentence in solved.best.deviations)


def test_an_unrelated_picture_changes_nothing(base: RunPlan) -> None:
    plan = replace(says(base, rng=None, clip_skip=None), deviations=("the noise came from a GPU: NV stands in",))
    solved = solve.solve(plan, made(replace(base, prompt="an owl, forest", seed=77)), device="cpu", cache=CACHE)
    assert solved.best == plan
    assert "nothing that was tried comes close" in solved.report[-1]


def test_a_vae_is_found_on_the_same_latents(base: RunPlan, shared: Path, tmp_path: Path) -> None:
    """The checkpoint's own VAE with its decoder's last layer turned down: a paler picture."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(shared / "demo-model/demo-vae.vae.safetensors")
    tensors["decoder.conv_out.weight"] = tensors["decoder.conv_out.weight"] * 0.6
    other = tmp_path / "pale.vae.safetensors"
    save_file(tensors, other)
    vaes = [str(shared / "demo-model/demo-vae.vae.safetensors"), str(other)]
    solved = solve.solve(says(base), made(replace(base, vae=str(other))), device="cpu", cache=CACHE, vaes=vaes)
    assert solved.best.vae == str(other)
    assert any(line.startswith("VAE: pale.vae fits best, similarity every pixel") for line in solved.report)
    named = says(base, resources=(ResourceRef("vae", "own"),))
    assert solve.questions(named, vaes=vaes) == ()


def test_a_bad_original_is_a_sentence(base: RunPlan) -> None:
    with pytest.raises(RunError, match="cannot be read as a picture"):
        solve.solve(says(base, rng=None), b"<html>", device="cpu", cache=CACHE)


# --- what is open -----------------------------------------------------------------------------------------------------


def asked(**said: Any) -> dict[str, list[str]]:
    plan = RunPlan("m", said.pop("prompt", "a cat"), "", said.pop("sampler", "dpmpp_2m"), None, 20, 7.0, 1, 512, 512)
    plan = replace(plan, flavour=said.pop("flavour", "a1111"))
    plan = replace(plan, parameters=GenerationParameters(**{"generator": A1111, **said}).to_json())
    return {question.name: [option.label for option in question.options] for question in solve.questions(plan)}


def test_questions_follow_what_the_settings_say() -> None:
    full = {"rng": "cpu", "schedule": "karras", "clip_skip": 1}
    assert asked(**full) == {}
    assert asked(**{**full, "rng": None}) == {"noise": ["NV", "CPU"]}
    assert asked(**{**full, "clip_skip": None}) == {"clip skip": ["1", "2"]}
    assert asked(**{**full, "schedule": None}) == {"schedule": ["Karras", "Uniform"]}
    assert asked(**{**full, "schedule": None, "raw": {"Schedule type": "Automatic"}}) == {}
    assert asked(**{**full, "schedule": None, "sampler": "ddim"}) == {}
    assert asked(**{**full, "schedule": None, "sampler": "euler"}) == {"schedule": ["Uniform", "Karras"]}
    assert asked(**{**full, "generator": Generator(), "prompt": "a (cat)"}).keys() == {"emphasis", "program"}
    assert asked(**full, generator=Generator(), raw={"Emphasis": "No norm"}, prompt="(a)").keys() == {"program"}
    assert asked(generator=Generator("ComfyUI"), flavour="comfy") == {}
    assert "noise" not in asked(generator=Generator("hubctl"))

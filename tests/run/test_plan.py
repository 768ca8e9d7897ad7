"""Plans: what metadata implies without saying it, and what it says that cannot be done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubctl import infotext
from hubctl.errors import MissingResource, PlanError, UnknownSampler
from hubctl.parameters import GenerationParameters, Generator, Hires, ResourceRef
from hubctl.run import plan as run_plan
from hubctl.run.plan import Located, RunPlan, build, describe

BASE = "Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 1234567890, Model: toy"


def locate(ref: ResourceRef) -> Located | None:
    if ref.name in {"gone", "4x-UltraSharp"}:
        return None
    return Located(Path(f"/models/{ref.name}.safetensors"), "12" * 32, ref.name or "", ref.kind)


def planned(settings: str = "", *, prompt: str = "a cat", steps: int = 20, base: str = BASE, **options: Any) -> RunPlan:
    text = f"{prompt}\nNegative prompt: blurry\nSteps: {steps}, {base}{', ' if settings else ''}{settings}"
    return build(infotext.parse(text), locate=locate, **options)


def says(plan: RunPlan, words: str) -> bool:
    return any(words in deviation for deviation in plan.deviations)


def test_planning_needs_no_torch() -> None:
    probe = (
        "import sys\nfrom pathlib import Path\nfrom hubctl.parameters import *\nfrom hubctl.run.plan import *\n"
        "p = GenerationParameters(prompt='[a:b:3] <lora:x:1>', sampler_label='DPM++ 2M Karras',"
        " resources=(ResourceRef('checkpoint', 'x'),))\n"
        "describe(build(p, locate=lambda ref: Located(Path('/x')))).to_json()\n"
        "print([m for m in ('torch', 'numpy', 'diffusers', 'transformers', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_is_json_and_its_digest_is_the_pictures() -> None:
    plan = planned("Hires upscale: 2, Hires upscaler: Latent, Denoising strength: 0.5, Seed resize from: 64x64")
    again = RunPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest() == plan.digest()
    assert RunPlan.from_json({**plan.to_json(), "deviations": ["x"], "parameters": {}}).digest() == plan.digest()
    assert RunPlan.from_json({**plan.to_json(), "seed": 2}).digest() != plan.digest()


# --- which program, which version -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "flavour", "whole"),
    [
        ("Version: v1.10.1", "a1111", False),
        ("Version: f2.0.1v1.10.1-previous-665", "forge", True),
        ("Version: f0.0.17v1.8.0rc-latest-276", "forge", True),
        ("", "a1111", False),
    ],
)
def test_flavours(version: str, flavour: str, whole: bool) -> None:
    plan = planned(version)
    assert (plan.flavour, plan.whole_timesteps) == (flavour, whole)


def test_comfyui_has_rules_of_its_own() -> None:
    parameters = GenerationParameters(
        prompt="a (cat:1.2)", sampler="ddim", seed=1, generator=Generator("ComfyUI"),
        resources=(ResourceRef("checkpoint", "toy"),),
    )  # fmt: skip
    plan = build(parameters, locate=locate)
    assert (plan.flavour, plan.whole_timesteps, plan.rng, plan.step_rng) == ("comfy", True, "cpu", "nv")
    assert (plan.sampler, plan.schedule) == ("euler", "normal")  # its ddim is Euler
    sde = build(
        GenerationParameters(
            sampler="dpmpp_sde", sampler_label="dpmpp_sde", schedule="karras", seed=1, generator=Generator("ComfyUI"),
            resources=(ResourceRef("checkpoint", "toy"),),
        ),
        locate=locate,
    )  # fmt: skip
    assert (sde.rng, sde.step_rng, sde.schedule) == ("cpu", None, "karras")


def test_what_a_version_implies() -> None:
    old = planned("Version: v1.5.2", prompt="a [cat:dog:0.5]")
    assert (old.old_timelines, old.old_counts, old.downcast_alphas, old.refiner_by_steps) == (True, True, True, True)
    assert not planned("Version: v1.5.2", prompt="a cat").old_timelines
    middle = planned("Version: v1.7.0-225-gabc", prompt="[cat:dog:0.5]")
    assert (middle.old_timelines, middle.downcast_alphas, middle.refiner_by_steps) == (False, False, True)
    assert planned("Version: v1.7.0-224-gabc").downcast_alphas
    new = planned("Version: v1.10.0", prompt="[cat:dog:0.5]")
    assert (new.old_timelines, new.old_counts, new.downcast_alphas, new.refiner_by_steps) == (False,) * 4
    candidate = planned("Version: v1.6.0-RC-25-gabc", prompt="[cat:dog:0.5]")  # older than 1.6.0 itself
    assert (candidate.old_timelines, candidate.old_counts) == (True, True)
    assert not planned("Version: v1.6.0-2-gabc", prompt="[cat:dog:0.5]").old_timelines
    unknown = planned("", prompt="[cat:dog:0.5]")
    assert (unknown.old_timelines, unknown.downcast_alphas) == (False, False)
    ddim = BASE.replace("Euler a", "DDIM")
    assert planned("Version: v1.5.2", base=ddim).pad_conds == "v0"
    assert planned("Version: v1.6.0", base=ddim).pad_conds is None
    assert planned("Pad conds: True, Version: v1.10.0").pad_conds == "empty"
    assert planned("Pad conds: True, Version: f2.0.1v1.10.1").pad_conds is None  # inert in Forge
    assert planned("Tiling: True, Version: v1.10.0").tiling
    assert not planned("Tiling: True, Version: f2.0.1v1.10.1").tiling
    assert planned("Refiner: b [0123456789], Refiner switch at: 0.6, Version: f2.0.1v1.10.1").refiner_by_steps


@pytest.mark.parametrize(
    ("sampler", "settings", "expected"),
    [
        ("DPM++ 2M Karras", "", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "", ("dpmpp_2m", "uniform")),  # before 1.9 the bare name was the uniform one
        ("DPM++ 2M", "Version: v1.8.0", ("dpmpp_2m", "uniform")),
        ("DPM++ 2M", "Version: f0.0.17v1.8.0rc-latest-276", ("dpmpp_2m", "uniform")),
        ("DPM++ 2M", "Version: v1.9.4", ("dpmpp_2m", None)),
        ("DPM++ 2M", "Version: f2.0.1v1.10.1", ("dpmpp_2m", None)),
        ("DPM++ 2M", "Schedule type: Automatic, Version: v1.8.0", ("dpmpp_2m", None)),
        ("DPM++ 2M", "Schedule type: Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", "Schedule type: Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "Schedule type: polyexponential", ("dpmpp_2m", "polyexponential")),
        ("Restart", "", ("restart", None)),  # always Karras
        ("Euler a", "", ("euler_ancestral", None)),
        ("DPM++ 3M SDE Exponential", "Version: v1.7.0", ("dpmpp_3m_sde", "exponential")),
    ],
)
def test_joined_names_and_their_age(sampler: str, settings: str, expected: tuple[str, str | None]) -> None:
    plan = planned(settings, base=BASE.replace("Euler a", sampler))
    assert (plan.sampler, plan.schedule) == expected


def test_old_second_order_samplers_counted_steps() -> None:
    bare = BASE.replace("Euler a", "DPM2 a")
    assert planned("Version: v1.8.0", base=bare).old_counts
    assert not planned("Version: v1.8.0", base=BASE.replace("Euler a", "DPM2 a Karras")).old_counts
    assert not planned("Version: v1.8.0", base=BASE.replace("Euler a", "Heun")).old_counts
    assert planned("Version: v1.5.0", base=BASE.replace("Euler a", "Heun")).old_counts


SECOND = "Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: Latent"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("Hires sampler: DPM++ SDE, Version: v1.6.0", ("dpmpp_sde", "uniform")),  # the bare name, as in the first pass
        ("Hires sampler: DPM++ SDE Karras, Version: v1.6.0", ("dpmpp_sde", "karras")),
        ("Hires sampler: Restart, Version: v1.6.0", ("restart", "karras")),
        ("Hires sampler: DPM++ SDE, Version: v1.10.0", ("dpmpp_sde", None)),
        ("Hires sampler: DPM++ SDE, Hires schedule type: Beta, Version: v1.10.0", ("dpmpp_sde", "beta")),
        ("Version: v1.6.0", (None, None)),
    ],
)
def test_samplers_of_a_second_pass(settings: str, expected: tuple[str | None, str | None]) -> None:
    plan = planned(f"{SECOND}, {settings}")
    assert plan.hires is not None
    assert (plan.hires.sampler, plan.hires.schedule) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("Schedule type: Bong Tangent", "schedule Bong Tangent is not known"),
        (f"{SECOND}, Hires sampler: TCD", "TCD is not available: LCM was used"),
        (f"{SECOND}, Hires sampler: Nobody's", "Nobody's of the second pass is not known"),
        (f"{SECOND}, Hires schedule type: Bong Tangent", "schedule Bong Tangent of the second pass is not known"),
        ("App: SD.Next, Version: 0e0f9a2", "made by SD.Next"),
        ("Emphasis: Loud", "emphasis Loud is not known"),
        ("UniPC skip type: hop", "skip type hop is not known"),
    ],
)
def test_names_nobody_knows_are_named(settings: str, words: str) -> None:
    assert says(planned(settings), words)
    assert not says(planned("Schedule type: Automatic"), "not known")


def test_numbers_nobody_means_are_not_used() -> None:
    plan = planned("Eta: nan, NGMS: inf, Schedule rho: -inf, UniPC order: -3")
    assert (plan.eta, plan.ngms, plan.rho, plan.unipc["order"]) == (1.0, 0.0, None, 1)
    with pytest.raises(PlanError):
        planned("Seed resize from: 99999x99999")  # tens of gigabytes of noise


def test_what_forge_could_not_have_computed_is_named() -> None:
    forge = "Version: f2.0.1v1.10.1"
    assert says(planned(forge, prompt="a cat AND a dog:-1"), "add up to 0")
    assert not says(planned(forge, prompt="a cat AND a dog:-0.5"), "add up to 0")
    assert not says(planned("Version: v1.10.1", prompt="a cat AND a dog:-1"), "add up to 0")
    ddpm = BASE.replace("Euler a", "DDPM")
    assert says(planned(f"RNG: NV, {forge}", base=ddpm), "nobody recorded")
    assert not says(planned(forge, base=ddpm), "nobody recorded")


def test_noise() -> None:
    assert planned("RNG: CPU").rng == "cpu"
    assert planned("RNG: NV").rng == "nv"
    silent = planned()
    assert silent.rng == "nv"
    assert says(silent, "GPU")
    assert planned(rng="cpu").rng == "cpu"
    own = build(
        GenerationParameters(generator=Generator("hubctl"), resources=(ResourceRef("checkpoint", "toy"),)),
        locate=locate,
    )
    assert own.rng == "cpu"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_reach_their_fields() -> None:
    plan = planned(
        "Clip skip: 2, ENSD: 31337, Eta: 0.5, Eta DDIM: 0.3, Sigma churn: 8.0, Sigma tmin: 1, Sigma noise: 1.05, "
        "Schedule min sigma: 0.1, Schedule max sigma: 10.0, Schedule rho: 5.0, Discard penultimate sigma: True, "
        "SGM noise multiplier: True, Variation seed: 7, Variation seed strength: 0.3, Seed resize from: 64x96, "
        "Emphasis: No norm, NGMS: 3.0, NGMS all steps: True, Skip Early CFG: 0.2, Noise Schedule: Zero Terminal SNR, "
        "Beta schedule alpha: 0.5, UniPC variant: bh2, UniPC order: 2, Version: v1.10.1"
    )
    assert (plan.clip_skip, plan.ensd, plan.eta, plan.eta_ddim) == (2, 31337, 0.5, 0.3)
    assert plan.options == {"s_churn": 8.0, "s_tmin": 1.0, "s_noise": 1.05}
    assert (plan.sigma_min, plan.sigma_max, plan.rho) == (0.1, 10.0, 5.0)
    assert plan.discard_penultimate
    assert plan.sgm_noise
    assert (plan.subseed, plan.subseed_strength, plan.seed_resize) == (7, 0.3, (64, 96))
    assert (plan.emphasis, plan.ngms, plan.ngms_all, plan.skip_early) == ("No norm", 3.0, True, 0.2)
    assert plan.zero_terminal_snr
    assert (plan.beta_alpha, plan.unipc) == (0.5, {"variant": "bh2", "order": 2})


@pytest.mark.parametrize(
    ("settings", "size", "cover"),
    [
        ("Hires upscale: 1.5", (768, 1152), None),
        ("Hires resize: 1024x0", (1024, 1536), None),
        ("Hires resize: 0x1000", (666, 1000), None),
        ("Hires resize: 1024x1024", (1024, 1536), (1024, 1024)),
        ("Hires resize: 512x1024", (682, 1024), (512, 1024)),
    ],
)
def test_sizes_of_a_second_pass(settings: str, size: tuple[int, int], cover: tuple[int, int] | None) -> None:
    hires = planned(f"Denoising strength: 0.6, {settings}, Hires upscaler: Latent").hires
    assert hires is not None
    assert (hires.width, hires.height) == size
    assert hires.cover == cover
    assert (hires.steps, hires.denoise, hires.sampler) == (20, 0.6, None)


def test_the_second_pass_before_2023() -> None:
    plan = planned("Denoising strength: 0.7, First pass size: 512x512", base=BASE.replace("512x768", "1024x1024"))
    assert (plan.width, plan.height) == (512, 512)
    assert plan.hires is not None
    assert (plan.hires.width, plan.hires.height) == (1024, 1024)
    plan = planned("Denoising strength: 0.7, First pass size: 0x0", base=BASE.replace("512x768", "1024x512"))
    assert (plan.width, plan.height) == (768, 384)
    assert plan.hires is not None
    assert (plan.hires.width, plan.hires.height) == (1024, 512)


def test_a_picture_to_begin_from_comes_from_the_caller() -> None:
    settings = "Denoising strength: 0.6, Mask blur: 8, Inpaint area: Only masked, Masked area padding: 16, Masked content: fill, Mask mode: Inpaint not masked"  # noqa: E501
    alone = planned(settings)
    assert says(alone, "img2img")
    assert says(alone, "inpainting")
    given = planned(settings, init_image=Path("/a.png"), mask=Path("/m.png"))
    assert not says(given, "img2img")
    assert not says(given, "inpainting")
    assert (given.init_image, given.mask, given.mask_blur) == ("/a.png", "/m.png", 8)
    assert (given.inpaint_only_masked, given.inpaint_padding) == (True, 16)
    assert (given.masked_content, given.mask_inverted) == ("fill", True)
    assert says(
        planned(settings + ", Version: f2.0.1v1.10.1", init_image=Path("/a"), mask=Path("/m")), "nobody recorded"
    )


# --- what cannot be done is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("ADetailer model: face_yolov8n.pt, ADetailer confidence: 0.3", "ADetailer redrew faces"),
        ('ControlNet 0: "Module: canny, Model: control_v11p [d14c016b], Weight: 1"', "ControlNet steered"),
        ("RP Active: True, RP Divide mode: Matrix", "Regional Prompter"),
        ("freeu_enabled: True, freeu_b1: 1.3", "FreeU"),
        ("dynthres_enabled: True, dynthres_mimic_scale: 7", "dynamic thresholding"),
        ("Dynamic thresholding enabled: True", "dynamic thresholding"),
        ("Hypernet: style, Hypernet strength: 0.6", "hypernetwork `style`"),
        ("Token merging ratio: 0.5", "token merging"),
        ("Face restoration: CodeFormer", "face restoration"),
        ("pag_enabled: True", "attention guidance"),
        ("VAE Decoder: TAESD", "another decoder"),
        ("FP8 weight: Enable", "few bits"),
        ("Ultimate SD upscale upscaler: 4x", "enlarged afterwards"),
        ("Hires upscale: 2, Hires upscaler: 4x-UltraSharp, Denoising strength: 0.4", "4x-UltraSharp"),
        ("Hires upscale: 2, Hires upscaler: Latent, Denoising strength: 0.4, Hires checkpoint: other", "`other`"),
        ("Refiner: gone [0123456789], Refiner switch at: 0.8", "refiner checkpoint is missing"),
        ("VAE: gone", "vae `gone` is missing"),
        ("UniPC variant: vary_coeff", "vary_coeff"),
        ("Schedule type: Bong Tangent", ""),
    ],
)
def test_what_extensions_changed_is_named(settings: str, words: str) -> None:
    plan = planned(settings)
    if words:
        assert says(plan, words), plan.deviations


def test_tags_that_are_no_loras_are_named() -> None:
    plan = planned(prompt="a cat <hypernet:style:1> <lora:gone:1> <foo:bar>")
    assert says(plan, "hypernetwork `style`")
    assert says(plan, "lora `gone` is missing")
    assert says(plan, "foo `bar`")


def test_a_lora_without_a_weight_is_guessed_aloud() -> None:
    plan = planned('Lora hashes: "style: 0123456789ab", Version: f2.0.1v1.10.1')
    assert plan.prompt == "a cat<lora:style:1>"
    assert says(plan, "weight of LoRA `style` is not said")
    tagged = planned('Lora hashes: "style: 0123456789ab"', prompt="a cat <lora:style:0.7>")
    assert tagged.prompt == "a cat <lora:style:0.7>"
    assert not says(tagged, "weight")
    assert tagged.loras == {"style": "/models/style.safetensors"}


def test_a_plain_picture_has_nothing_to_confess() -> None:
    assert planned("RNG: NV, Version: f2.0.1v1.10.1").deviations == ()


def test_samplers_we_have_not_get_the_nearest_and_say_so() -> None:
    plan = planned(base=BASE.replace("Euler a", "SA Solver"))
    assert plan.sampler == "dpmpp_3m_sde"
    assert says(plan, "SA Solver is not available")
    with pytest.raises(UnknownSampler) as refused:
        planned(base=BASE.replace("Euler a", "DPM++ 2N"))
    assert "DPM++ 2M" in (refused.value.hint or "")


def test_refusals() -> None:
    with pytest.raises(MissingResource):
        planned(base=BASE.replace("toy", "gone"))
    with pytest.raises(PlanError):
        planned(steps=100000)
    with pytest.raises(PlanError):
        planned(base=BASE.replace("512x768", "99999x99999"))


def test_overrides_win_over_what_was_said() -> None:
    plan = planned("Sigma churn: 8.0, Eta: 0.5", overrides={"Sigma churn": "2", "NGMS": "1.5"})
    assert plan.options == {"s_churn": 2.0}
    assert plan.ngms == 1.5


def test_description_says_what_is_really_done() -> None:
    made = describe(planned(base=BASE.replace("Euler a", "DPM++ 2M")))
    assert (made.sampler_label, made.schedule_label, made.rng) == ("DPM++ 2M", "Uniform", "nv")
    own = describe(
        build(GenerationParameters(prompt="x", seed=3, resources=(ResourceRef("checkpoint", "toy"),)), locate=locate)
    )
    assert own.generator.name == "hubctl"
    assert (own.steps, own.cfg_scale, own.width) == (20, 7.0, 512)
    hires = Hires(upscale=2, upscaler="Latent", denoise=0.5)
    parameters = GenerationParameters(prompt="x", seed=3, hires=hires, resources=(ResourceRef("checkpoint", "toy"),))
    text = infotext.a1111.write(describe(build(parameters, locate=locate)))
    assert "Hires upscale: 2" in text
    assert run_plan.build(infotext.parse(text), locate=locate).hires == build(parameters, locate=locate).hires

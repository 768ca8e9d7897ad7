"""A1111 infotext: reading what programs of all years wrote, and writing it back."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl import infotext
from hubctl.errors import NoParameters
from hubctl.infotext import a1111
from hubctl.parameters import GenerationParameters, Generator, Hires, Refiner, ResourceRef

CANONICAL = (
    """a cat
Negative prompt: blurry
Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x768, Version: v1.10.1""",
    """a <lora:x:0.8>
second line
Negative prompt: one
two
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 5.5, Seed: 18446744073709551615, Size: 512x512, Lora hashes: \
"x: 0123456789ab, y: 9876543210ab", Hires prompt: "a, b: c", Version: v1.6.0-2-gabc""",
    "Steps: 1, Sampler: LMS, CFG scale: 7.0, Seed: 0, Size: 8x8, Refine, Denoising strength: 0.55",
    """p
Steps: 20, Sampler: Euler, Wildcard prompt: "a \\"quoted\\" word,\\nand a line"
Template: __x__, a: b
Negative Template: n""",
    """p
Steps: 4, Sampler: Euler a, Created Date: 2026-01-04T01:27:21.27Z, Civitai resources: [{"type":"checkpoint",\
"modelVersionId":1}], Civitai metadata: {}""",
)


@pytest.mark.parametrize("text", CANONICAL)
def test_round_trip_is_exact(text: str) -> None:
    assert a1111.write(a1111.parse(text)) == text


words = st.text(
    st.characters(codec="utf-8", exclude_characters='\r\n:,"<>{}[]()\0﻿\x85\u2028\u2029'), min_size=1, max_size=30
)
keys = st.from_regex(r"[A-Z][a-z]{2,10}( [a-z]{2,8})?", fullmatch=True).filter(
    lambda key: key.lower() not in ("steps", "template", "negative template", "negative prompt", "parameters")
)
free = st.text(st.characters(codec="utf-8", exclude_characters="\r\0﻿\ud800"), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(prompt=words, negative=words, entries=st.dictionaries(keys, free, max_size=12), steps=st.integers(1, 150))
def test_round_trip_of_any_settings(prompt: str, negative: str, entries: dict[str, str], steps: int) -> None:
    def quoted(value: str) -> str:
        return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",\n:") else value

    entries = {key: value.strip() for key, value in entries.items()}
    entries = {k: x for k, x in entries.items() if x and x != k and x[0] not in '"{['}
    line = ", ".join([f"Steps: {steps}", *(f"{key}: {quoted(value)}" for key, value in entries.items())])
    text = f"{prompt.strip() or 'p'}\nNegative prompt: {negative.strip() or 'n'}\n{line}"
    parameters = a1111.parse(text)
    assert {key: parameters.raw[key] for key in entries} == entries
    assert a1111.write(parameters) == text


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=2000))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(NoParameters):
        a1111.write(a1111.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "Steps: 1, " + "a" * 400_000,
        "Steps: 1, " + "a: " * 100_000,
        "Steps: 1, " + 'a: "' * 100_000,
        "Steps: 1, " + "a: {" * 100_000,
        "Steps: 1, a: " + "[" * 200_000,
        "<lora:" * 60_000 + "\nSteps: 1, Sampler: x, Seed: 1",
        ".  " * 130_000 + "Steps: 1",
        "Negative prompt: \n" * 20_000 + "Steps: 1, Sampler: x",
        'Steps: 1, a: "\n' * 20_000,
        "a: b, c: d, e: f\n" * 20_000,
        "embedding:" * 40_000,
    ],
    ids=lambda text: text[:16],
)
def test_adversarial_text_is_linear(text: str) -> None:
    started = time.process_time()
    with suppress(NoParameters):
        a1111.parse(text)
    assert time.process_time() - started < 20  # a reader that is not linear takes minutes


def test_changed_fields_are_written_and_the_rest_is_kept() -> None:
    text = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Odd key: kept, Version: v1.9.0"
    changed = replace(a1111.parse(text), seed=2, width=640, clip_skip=2)
    written = a1111.write(changed)
    assert all(part in written for part in ("Seed: 2", "Size: 640x768", "Odd key: kept"))
    assert a1111.parse(written).clip_skip == 2


def test_prompts_that_look_like_settings() -> None:
    parameters = a1111.parse(
        "a recipe card, Steps: mix and bake, Negative prompt: none\nSampler: of sweets\n"
        "Negative prompt: bad\nSteps: 20, Sampler: Euler, Seed: 5"
    )
    assert parameters.prompt.endswith("Sampler: of sweets")
    assert (parameters.negative_prompt, parameters.steps, parameters.seed) == ("bad", 20, 5)


def test_old_joined_names_and_missing_keys() -> None:
    parameters = a1111.parse("p\nSteps: 20, Sampler: DPM++ SDE Karras, CFG scale: 7, Seed: 1, Size: 512x512")
    assert (parameters.sampler, parameters.schedule) == ("dpmpp_sde", "karras")
    assert parameters.sampler_label == "DPM++ SDE Karras"
    assert parameters.clip_skip is None
    assert parameters.hires is None
    assert parameters.generator.name == "A1111"


def test_hires_refiner_and_first_pass() -> None:
    p = a1111.parse(
        "p\nSteps: 20, Sampler: Euler, Size: 512x768, Denoising strength: 0.4, Hires upscale: 2, Hires steps: 10, "
        'Hires upscaler: Latent, Hires prompt: "x, y", Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8'
    )
    assert p.hires == Hires(upscale=2.0, steps=10, upscaler="Latent", denoise=0.4, prompt="x, y")
    assert p.refiner == Refiner("sd_xl_refiner_1.0", "7440042bbd", 0.8)
    old = a1111.parse(
        "p\nSteps: 20, Sampler: Euler, Size: 1024x1536, First pass size: 512x768, Denoising strength: 0.7"
    )
    assert (old.width, old.height, old.hires) == (512, 768, Hires(width=1024, height=1536, denoise=0.7))


def test_resources_and_odd_weights() -> None:
    p = a1111.parse(
        "<lora:over:3> <lora:under:-0.5> <lora:two:0.5:0.9> <lora:named:te=0:unet=1> <lyco:l:1> <lora:bare>\n"
        "Steps: 20, Sampler: Undefined, Model: a, b, Model hash: e3b0c44298fc, VAE: v.safetensors, "
        'Lora hashes: "over: 111122223333, under: e3b0c44298fc", TI hashes: "easyneg: c74b4e810b03"'
    )
    weights = {r.name: (r.weight, r.weight_te, r.hash) for r in p.of_kind("lora")}
    assert weights["over"] == (3.0, None, "111122223333")
    assert weights["under"] == (-0.5, None, None)
    assert weights["two"] == (0.9, 0.5, None)
    assert weights["named"] == (1.0, 0.0, None)
    assert weights["bare"] == (1.0, None, None)
    assert p.of_kind("embedding")[0].hash == "c74b4e810b03"
    assert p.sampler is None
    assert p.sampler_label == "Undefined"
    assert sum("empty file" in warning for warning in p.warnings) == 2


def test_writing_parameters_from_elsewhere() -> None:
    p = GenerationParameters(
        prompt="a cat", negative_prompt="blurry", steps=20, sampler="dpmpp_2m", schedule="karras", cfg_scale=7.0,
        seed=5, width=512, height=768, clip_skip=2, rng="cpu", raw={"Sigma churn": "0.3", "x": 1},
        hires=Hires(upscale=1.5, steps=10, upscaler="Latent", denoise=0.5),
        resources=(
            ResourceRef("checkpoint", "model", hash="0123456789"),
            ResourceRef("lora", "style", 0.8, hash="0123456789ab"),
        ),
        generator=Generator("hubctl", "0.1.0"),
    )  # fmt: skip
    text = a1111.write(p)
    assert text == (
        "a cat<lora:style:0.8>\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 7, Seed: 5, Size: 512x768, Model hash: 0123456789, Model: model, Denoising strength: 0.5, "
        "Clip skip: 2, RNG: CPU, Hires upscale: 1.5, Hires steps: 10, Hires upscaler: Latent, "
        'Lora hashes: "style: 0123456789ab", Sigma churn: 0.3, Version: hubctl 0.1.0'
    )
    back = a1111.parse(text)
    assert (back.sampler, back.schedule, back.hires, back.generator) == (p.sampler, p.schedule, p.hires, p.generator)
    assert a1111.write(back) == text


@pytest.mark.parametrize("prompt", ["[cat:dog:0.5] on a table", "{red|blue} cat", "[[a]]"])
def test_a_prompt_may_begin_with_a_bracket(prompt: str) -> None:
    text = f"{prompt}\nNegative prompt: [blurry]\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
    assert infotext.parse(text).prompt == prompt
    assert infotext.a1111.write(infotext.parse(text)) == text


def test_a_refiner_is_one_of_the_files_an_image_needs() -> None:
    text = "a\nSteps: 20, Sampler: Euler a, Seed: 1, Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8"
    found = infotext.parse(text)
    assert [(r.name, r.hash) for r in found.of_kind("refiner")] == [("sd_xl_refiner_1.0", "7440042bbd")]


@pytest.mark.parametrize(
    "text",
    [
        "a cat Negative prompt: blurry Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512",
        "a cat<br>Negative prompt: blurry<br>Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512",
        "a cat\\nNegative prompt: blurry\\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512",
        "a cat\nNegative Prompt: blurry\nsteps: 20, sampler: Euler, cfg scale: 7, seed: 1, size: 512x512",
        "a cat\nNegative prompt: blurry\nSampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Steps: 20",
        "a cat\nNegative prompt: blurry\nSteps: 20\nSampler: Euler\nCFG scale: 7\nSeed: 1\nSize: 512x512",
    ],
)
def test_text_that_went_through_pages_and_hands(text: str) -> None:
    p = a1111.parse(text)
    assert (p.prompt, p.negative_prompt, p.steps, p.sampler) == ("a cat", "blurry", 20, "euler")
    assert (p.cfg_scale, p.seed, p.width, p.height) == (7.0, 1, 512, 512)


CONTROLNET = ResourceRef("controlnet", "c", 0.5, hash="cab727d4")
WEIGHTED = ResourceRef("lora", "x", 0.4, hash="0123456789")


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ('ControlNet 0: "Module: canny, Model: c [cab727d4], Weight: 0.5"', CONTROLNET),
        ("ControlNet-0 Model: c [cab727d4], ControlNet-0 Weight: 0.5", CONTROLNET),
        ("ControlNet Model: c [cab727d4], ControlNet Weight: 0.5", CONTROLNET),
        ('Lora hashes: "lora:x-01: 0123456789, 01: 0123456789"', ResourceRef("lora", "x-01", hash="0123456789")),
        ('Lora hashes: "x: 0123456789: 0.4"', WEIGHTED),
        ('Lora hashes: "x: 0123456789", Lora weights: "x: 0.4"', WEIGHTED),
        ('LoRA networks: "x:0.4"', ResourceRef("lora", "x", 0.4)),
        ("Used embeddings: neg [c74b4e]", ResourceRef("embedding", "neg", hash="c74b4e")),
        ("AddNet Module 1: LoRA, AddNet Model 1: x(0123456789), AddNet Weight A 1: 0.4", WEIGHTED),
    ],
)
def test_files_named_in_settings(setting: str, found: ResourceRef) -> None:
    assert a1111.parse(f"p\nSteps: 20, Sampler: Euler, {setting}, Version: v1.6.0").resources == (found,)

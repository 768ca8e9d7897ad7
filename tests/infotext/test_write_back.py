"""Writing back: what any program wrote, as A1111 text and as a ComfyUI graph, says the same when it is read again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl import infotext
from hubctl.infotext import Embedded, a1111, comfy, novelai
from hubctl.parameters import SAMPLERS, GenerationParameters, Generator, Hires, Refiner, ResourceRef

NAMES = st.from_regex(r"[a-z][a-z0-9_]{1,11}", fullmatch=True).filter(lambda name: name != "none")
PROMPTS = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "Zs", "P"], exclude_characters='<>:"\\'), max_size=60
)
WEIGHTS = st.integers(-20, 30).map(lambda tenths: tenths / 10)
# ids that mean the same in ComfyUI; A1111's "uniform" is its "normal"
SCHEDULES = st.sampled_from(["karras", "exponential", "sgm_uniform", "normal", "simple", "beta", "kl_optimal"])
UPSCALERS = ["Latent", "Latent (nearest-exact)", "Latent (bicubic)", "4x-UltraSharp", "nameless", "Lanczos"]
SIZES = st.integers(8, 256).map(lambda eighths: 8 * eighths)


@st.composite
def hires(draw: st.DrawFn, sampler: str, schedule: str) -> Hires:
    other = st.sampled_from(sorted(SAMPLERS)).filter(lambda name: name != sampler)
    return Hires(
        upscale=draw(st.sampled_from([1.25, 1.5, 2.0, 3.0])),
        steps=draw(st.none() | st.integers(1, 100)),
        upscaler=draw(st.sampled_from(UPSCALERS)),
        denoise=draw(st.integers(1, 10)) / 10,
        sampler=draw(st.none() | other),
        schedule=draw(st.none() | SCHEDULES.filter(lambda name: name != schedule)),
        prompt=draw(st.none() | st.just("another prompt")),
        negative_prompt=draw(st.none() | st.just("another negative")),
        cfg_scale=draw(st.none() | st.just(33.25)),
    )  # fmt: skip


@st.composite
def parameters(draw: st.DrawFn) -> GenerationParameters:
    sampler, schedule = draw(st.sampled_from(sorted(SAMPLERS))), draw(SCHEDULES)
    second = draw(st.none() | hires(sampler, schedule))
    names = draw(st.lists(NAMES, min_size=6, max_size=6, unique=True))
    loras = [
        ResourceRef("lora", name, draw(WEIGHTS), draw(st.none() | WEIGHTS)) for name in names[: draw(st.integers(0, 3))]
    ]
    unet = draw(st.booleans())
    main = [ResourceRef("unet" if unet else "checkpoint", names[3])]
    main += [ResourceRef("text_encoder", name) for name in names[4:] if unet]
    refined = second is None and not unet and draw(st.booleans())
    return GenerationParameters(
        prompt=draw(PROMPTS).strip(),
        negative_prompt=draw(PROMPTS).strip(),
        steps=20,
        sampler=sampler,
        schedule=schedule,
        cfg_scale=draw(st.integers(2, 60)) / 4,
        distilled_cfg=draw(st.none() | st.just(3.5)),
        seed=draw(st.integers(0, 2**64 - 1)),
        width=draw(SIZES),
        height=draw(SIZES),
        clip_skip=draw(st.none() | st.integers(2, 12)),
        denoise=None if second or refined else draw(st.none() | st.integers(1, 10).map(lambda tenths: tenths / 10)),
        hires=second,
        refiner=Refiner("refiner_model", switch_at=draw(st.integers(1, 19)) / 20) if refined else None,
        resources=(*main, *loras),
    )


SAID = (
    "prompt", "negative_prompt", "steps", "sampler", "schedule", "cfg_scale", "distilled_cfg", "seed", "width",
    "height", "clip_skip", "denoise",
)  # fmt: skip


def differences(before: GenerationParameters, after: GenerationParameters) -> list[str]:
    """Fields that were said and came back as something else."""
    found = [
        f"{name}: {value!r} → {getattr(after, name)!r}"
        for name in SAID
        if (value := getattr(before, name)) not in (None, "") and getattr(after, name) != value
    ]
    for name in ("hires", "refiner"):
        said, read = getattr(before, name), getattr(after, name)
        if said is not None:
            fields = {} if read is None else read.to_json()
            found += [
                f"{name}.{field}: {value!r} → {fields.get(field)!r}"
                for field, value in said.to_json().items()
                if value is not None and fields.get(field) != value
            ]
    return found


@settings(max_examples=200, deadline=None)
@given(parameters())
def test_a_written_graph_says_the_same(before: GenerationParameters) -> None:
    after = infotext.parse(json.dumps(comfy.write(before)))
    assert differences(before, after) == []
    kinds = ("checkpoint", "unet", "text_encoder")
    assert {(r.kind, r.name) for r in before.of_kind(*kinds)} <= {(r.kind, r.name) for r in after.of_kind(*kinds)}
    applied = [(r.name, r.weight, r.weight if r.weight_te is None else r.weight_te) for r in before.of_kind("lora")]
    assert [(r.name, r.weight, r.weight_te) for r in after.of_kind("lora")] == applied
    assert after.warnings == ()


@settings(max_examples=200, deadline=None)
@given(parameters())
def test_written_text_says_the_same_and_is_stable(before: GenerationParameters) -> None:
    text = a1111.write(before)
    after = a1111.parse(text)
    tags = "".join(f"<lora:{r.name}" for r in before.of_kind("lora"))
    wanted = replace(before, prompt="" if tags else before.prompt)
    assert differences(wanted, after) == []
    assert after.prompt.startswith(before.prompt)
    assert a1111.write(after) == text
    again = a1111.parse(a1111.write(after))
    assert again == after


webui_characters = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff\x85"
)
READ_APART = ("negative prompt:", "steps:", "template:", "negative template:", "parameters")
webui_line = (
    st.text(webui_characters, max_size=80).map(str.strip).filter(lambda line: not line.lower().startswith(READ_APART))
)
webui_prompt = st.lists(webui_line, min_size=1, max_size=4).map("\n".join).map(str.strip)


@settings(max_examples=200, deadline=None)
@given(
    prompt=webui_prompt.filter(lambda text: text[:1] not in "{[" or not text),
    negative=webui_prompt,
    values=st.dictionaries(
        st.sampled_from(
            ["Sampler", "Schedule type", "CFG scale", "Seed", "Model", "Clip skip", "Hires prompt", "Lora hashes",
             "ADetailer prompt", "Wildcard prompt", "RP Ratios", "Tiled Diffusion", "Refiner", "Version", "User"]
        ),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\0﻿"), min_size=1, max_size=50).map(str.strip),
    ),
)  # fmt: skip
def test_what_the_webui_writes_comes_back_to_the_byte(prompt: str, negative: str, values: dict[str, str]) -> None:
    """The WebUI strips the text, leaves empty negatives out, quotes values with a comma, colon or line break."""
    values = {key: value for key, value in values.items() if value and value != key and value[0] not in '"{['}
    quoted = {k: json.dumps(x, ensure_ascii=False) if any(c in x for c in ",\n:") else x for k, x in values.items()}
    line = ", ".join(["Steps: 20", *(f"{key}: {value}" for key, value in quoted.items())])
    text = "\n".join(
        part for part in (prompt, f"Negative prompt: {negative}" if negative else "", line) if part
    ).strip()
    parsed = a1111.parse(text)
    assert a1111.write(parsed) == text
    assert a1111.parse(a1111.write(parsed)) == parsed
    assert parsed.negative_prompt == negative


@pytest.mark.parametrize(
    ("written", "converted"),
    [
        ("1.2::cat::, dog", "(cat:1.2), dog"),
        ("-0.8::feet::", "(feet:-0.8)"),
        ("1.5::a, b, 0.5::c::, d", "(a, b:1.5), (c:0.5), d"),
        ("2::open end", "(open end:2)"),
        ("plain 12:30 :: text", "plain 12:30 :: text"),
    ],
)
def test_numeric_weights_of_novelai_become_everyone_elses(written: str, converted: str) -> None:
    assert novelai.numeric_weights(written) == converted


def test_a_novelai_picture_as_text() -> None:
    comment = {"prompt": "1.2::cat::", "uc": "bad", "steps": 28, "scale": 5, "sampler": "k_euler", "seed": 2}
    p = infotext.parse(Embedded("png", {"Software": "NovelAI", "Comment": json.dumps(comment)}))
    assert p.prompt == "1.2::cat::"
    assert a1111.write(p).startswith("(cat:1.2)\nNegative prompt: bad\nSteps: 28, Sampler: Euler,")


def test_embeddings_are_marked_for_comfy_and_plain_for_others() -> None:
    p = a1111.parse(
        'a cat\nNegative prompt: easyneg, easynegative\nSteps: 20, Sampler: Euler, TI hashes: "easyneg: c74b4e810b03"'
    )
    texts = [n["inputs"]["text"] for n in comfy.write(p).values() if n["class_type"] == "CLIPTextEncode"]
    assert texts == ["a cat", "embedding:easyneg, easynegative"]
    back = infotext.parse(json.dumps(comfy.write(p)))
    assert back.of_kind("embedding")[0].name == "easyneg"
    assert "Negative prompt: easyneg, easynegative\n" in a1111.write(back)


def test_what_a_graph_cannot_hold_is_left_out() -> None:
    p = GenerationParameters(seed=-1, hires=Hires(width=1024, height=0), width=512, height=768,
                             generator=Generator("SwarmUI"))  # fmt: skip
    back = infotext.parse(json.dumps(comfy.write(p)))
    assert back.seed == 0
    assert back.hires is not None
    assert (back.hires.width, back.hires.height, back.hires.upscale) == (1024, 1536, 2.0)


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(webui_line | st.just(""), max_size=4),
    negative=st.none() | st.lists(webui_line | st.just(""), max_size=3),
    end=st.sampled_from(["\n", "\r\n"]),
    tail=st.sampled_from(["", "\n", "\nTemplate: __x__\n\nNegative Template: y"]),
)
def test_layout_comes_back_to_the_byte(lines: list[str], negative: list[str] | None, end: str, tail: str) -> None:
    """Blank lines before labels, a negative prompt of nothing, Windows line ends: prompts as people type them."""
    said = [] if negative is None else ["Negative prompt: " + "\n".join(negative)]
    text = "\n".join([*lines, *said, "Steps: 20, Sampler: Euler a, Odd,Size: 512x512"]) + tail
    text = text.replace("\n", end)
    parsed = a1111.parse(text)
    assert a1111.write(parsed) == text
    assert GenerationParameters.from_json(json.loads(json.dumps(parsed.to_json()))).to_json() == parsed.to_json()
    changed = a1111.write(replace(parsed, seed=7, prompt="another"))
    assert changed.startswith("another\n")
    assert a1111.parse(changed).seed == 7


@settings(max_examples=100, deadline=None)
@given(parameters())
def test_what_inspect_prints_as_json_is_read_again(before: GenerationParameters) -> None:
    assert infotext.parse(json.dumps(before.to_json())).to_json() == before.to_json()
    printed = {"schema": "hubctl.inspect/1", "parameters": before.to_json(), "warnings": []}
    assert infotext.parse(json.dumps(printed)).to_json() == before.to_json()

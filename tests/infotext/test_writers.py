"""Programs with formats of their own, and the hub's `meta`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl import infotext
from hubctl.errors import NoParameters
from hubctl.infotext import Embedded, novelai
from hubctl.infotext.invokeai import split_negative
from hubctl.parameters import GenerationParameters, Generator, ResourceRef


def test_old_fooocus_labels() -> None:
    p = infotext.parse(
        json.dumps(
            {
                "Prompt": "a cat", "Negative Prompt": "blurry", "Resolution": "(896, 1152)", "Guidance Scale": 4.0,
                "Base Model": "juggernaut.safetensors", "Refiner Model": "None", "Sampler": "dpmpp_2m_sde_gpu",
                "Scheduler": "karras", "Seed": "123", "LoRA 1": "offset.safetensors : 0.1", "Version": "v2.1.862",
            }
        )
    )  # fmt: skip
    assert (p.width, p.height, p.seed, p.sampler, p.refiner) == (896, 1152, 123, "dpmpp_2m_sde", None)
    assert p.of_kind("lora") == (ResourceRef("lora", "offset", 0.1),)
    assert p.generator == Generator("Fooocus", "v2.1.862")


def test_easy_diffusion_chunks_and_text() -> None:
    chunks = {
        "prompt": "a cat", "negative_prompt": "", "seed": "7", "num_inference_steps": "25", "guidance_scale": "7.5",
        "use_stable_diffusion_model": "sd-v1-4", "sampler_name": "euler_a", "width": "512", "height": "512",
        "use_lora_model": "['x', 'y']", "lora_alpha": "[0.5, 0.7]",
    }  # fmt: skip
    p = infotext.parse(Embedded("png", chunks))
    assert (p.steps, p.sampler, p.seed, p.generator.name) == (25, "euler_ancestral", 7, "Easy Diffusion")
    assert [(r.name, r.weight) for r in p.of_kind("lora")] == [("x", 0.5), ("y", 0.7)]
    text = "Prompt: a cat\nSeed: 7\nStable Diffusion model: sd-v1-4\nNumber of inference steps: 25\nGuidance Scale: 7"
    assert infotext.parse(text).steps == 25


def test_draw_things() -> None:
    data = {
        "c": "a cat", "uc": "blurry", "steps": 8, "sampler": "DPM++ 2M Karras", "scale": 1.5, "seed": 9,
        "size": "512x768", "model": "base_f16.ckpt", "strength": 1, "lora": [{"model": "x_f16.ckpt", "weight": 0.6}],
    }  # fmt: skip
    p = infotext.parse(Embedded("png", {"xmp:CreatorTool": "Draw Things", "xmp:UserComment": json.dumps(data)}))
    assert (p.prompt, p.sampler, p.schedule, p.height) == ("a cat", "dpmpp_2m", "karras", 768)
    assert p.of_kind("lora") == (ResourceRef("lora", "x_f16", 0.6),)
    assert p.generator.name == "Draw Things"


@pytest.mark.parametrize(
    ("written", "converted"),
    [
        ("plain (text)", "plain (text)"),
        ("{cat}", "(cat:1.05)"),
        ("{{cat}}, [dog]", "(cat:1.103), (dog:0.952)"),
        ("{a [b] c}", "(a (b:0.952) c:1.05)"),
        ("{smile :)}", "(smile :\\):1.05)"),
        ("{open", "{open"),
        ("1.2::cat::, -0.8::feet::", "1.2::cat::, -0.8::feet::"),
    ],
)
def test_novelai_weights(written: str, converted: str) -> None:
    assert novelai.convert_weights(written) == converted


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab{}[]() ", max_size=200))
def test_novelai_weights_always_balance(text: str) -> None:
    converted = novelai.convert_weights(text)
    if converted != text:
        bare = converted.replace("\\(", "").replace("\\)", "")
        assert bare.count("(") == bare.count(")")


def test_invokeai_negative_in_brackets() -> None:
    assert split_negative(r"a cat [blurry] on a \[mat\] [dark]") == ("a cat  on a [mat]", "blurry, dark")


def test_own_record_reads_back() -> None:
    p = GenerationParameters(
        prompt="a cat", steps=20, sampler="euler", resources=(ResourceRef("lora", "x", 0.5),),
        generator=Generator("hubctl", "0.1"),
    )  # fmt: skip
    back = infotext.parse(json.dumps({"schema": "hubctl.run/1", "parameters": p.to_json()}))
    assert (back.prompt, back.resources, back.generator) == (p.prompt, p.resources, p.generator)
    with pytest.raises(NoParameters):
        infotext.parse(json.dumps({"schema": "hubctl.run/1", "parameters": {"resources": [3]}}))


META = {
    "prompt": "a cat <lora:foo:0.8>", "negativePrompt": "blurry", "steps": "25", "cfgScale": 7, "sampler": "DPM++ 2M",
    "Schedule type": "Karras", "seed": 123, "clipSkip": 2, "Model": "bar_v1", "Model hash": "ABCDEF1234",
    "Version": "v1.10.1", "width": 512, "height": 768, "hashes": {"model": "abcdef1234", "lora:foo": "0123456789ab"},
    "resources": [{"type": "lora", "name": "foo", "weight": 0.8, "hash": "0123456789ab"},
                  {"type": "model", "name": "bar_v1", "hash": "abcdef1234"}],
}  # fmt: skip


@pytest.mark.parametrize("meta", [META, {"meta": META}, {"id": 3, "meta": {"meta": META}}])
def test_meta_in_all_nestings(meta: dict) -> None:
    p = infotext.parse(meta)
    assert (p.steps, p.sampler, p.schedule, p.clip_skip, p.width, p.seed) == (25, "dpmpp_2m", "karras", 2, 512, 123)
    assert p.resources == (
        ResourceRef("checkpoint", "bar_v1", hash="abcdef1234"),
        ResourceRef("lora", "foo", 0.8, hash="0123456789ab"),
    )
    assert p.generator == Generator("A1111", "v1.10.1")
    assert p.sources["seed"] == "api:meta"


def test_on_site_meta() -> None:
    p = infotext.from_meta(
        {
            "prompt": "a cat", "steps": 30, "sampler": "Euler a", "seed": 42, "Created Date": "2026-02-25T2209:08.81Z",
            "civitaiResources": [{"type": "checkpoint", "modelVersionId": 128713},
                                 {"type": "lora", "weight": -0.5, "modelVersionId": 250708}],
        }
    )  # fmt: skip
    assert p.generator.name == "Civitai"
    assert [(r.kind, r.version_id, r.weight) for r in p.resources] == [
        ("checkpoint", 128713, None),
        ("lora", 250708, -0.5),
    ]


def test_comfy_string_with_undefined_and_nan() -> None:
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "say undefined", "clip": ["1", 1]}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 8, "steps": 9, "cfg": 2, "sampler_name": "euler",
              "scheduler": "normal", "model": ["1", 0], "positive": ["2", 0], "latent_image": ["4", 0]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}, "is_changed": [float("nan")]},
    }  # fmt: skip
    text = f'{{"prompt": {json.dumps(graph)}, "workflow": undefined}}'
    p = infotext.from_meta({"prompt": "say undefined", "seed": 8, "comfy": text, "models": ["base.safetensors"]})
    assert (p.prompt, p.steps, p.seed, p.generator.name) == ("say undefined", 9, 8, "ComfyUI")
    assert p.of_kind("checkpoint") == (ResourceRef("checkpoint", "base"),)


@pytest.mark.parametrize("meta", [None, {}, {"meta": None}, {"meta": {"meta": {}}}, {"id": 3}])
def test_hidden_meta_is_refused(meta: dict | None) -> None:
    with pytest.raises(NoParameters):
        infotext.from_meta(meta)


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*META, "comfy", "civitaiResources", "models", "meta", "Size", "engine"]), junk))
def test_any_meta_is_read_or_refused(meta: dict) -> None:
    from contextlib import suppress

    with suppress(NoParameters):
        infotext.from_meta(meta).to_json()


def test_import_is_light() -> None:
    code = "import sys, hubctl.infotext; print(*{'PIL', 'torch', 'httpx', 'pydantic'} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_fooocus_in_a1111s_form() -> None:
    p = infotext.parse(
        "a cat\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 3, Size: 1152x896, CFG scale: 4, Sharpness: 2, "
        'ADM Guidance: "(1.5, 0.8, 0.3)", Model: base, Scheduler: karras, Refiner: fine, Refiner hash: 0123456789, '
        'Lora hashes: "x: 4852686128", Lora weights: "x: 0.1", Version: Fooocus v2.4.3'
    )
    assert p.generator == Generator("Fooocus", "v2.4.3")
    assert (p.sampler, p.schedule) == ("dpmpp_2m_sde", "karras")
    assert p.of_kind("lora") == (ResourceRef("lora", "x", 0.1, hash="4852686128"),)


def test_smaller_and_older_programs() -> None:
    mre = {"prompt": "a", "negative_prompt": "b", "steps": 30, "cfg": 7, "base_model": "base.safetensors", "seed": 3,
           "software": "Fooocus-MRE", "base_clip_skip": -2, "l1": "x.safetensors", "w1": 0.5}  # fmt: skip
    p = infotext.parse(Embedded("png", {"Comment": json.dumps(mre)}))
    assert (p.clip_skip, p.of_kind("lora")) == (2, (ResourceRef("lora", "x", 0.5),))
    old_swarm = {"sui_image_params": {"prompt": "a", "steps": "20", "cfg_scale": "7", "comfyuisampler": "euler"}}
    p = infotext.parse(json.dumps(old_swarm))
    assert (p.generator.name, p.steps, p.cfg_scale, p.sampler) == ("SwarmUI", 20, 7.0, "euler")
    caption = "Include in Image: a; b; Exclude from Image: c; Model: m; Steps: 20; Guidance Scale: 7.5; Seed: 3; Size: 512x768; Scheduler: PNDM; Generator: Mochi Diffusion 4.0"  # noqa: E501
    p = infotext.parse(Embedded("png", {"exif:ImageDescription": caption}))
    assert (p.prompt, p.negative_prompt, p.height, p.generator) == (
        "a; b",
        "c",
        768,
        Generator("Mochi Diffusion", "4.0"),
    )
    p = infotext.parse(Embedded("png", {"Dream": "a cat -s50 -S1 -W512 -H512 -C7.5 -Ak_euler_a"}))
    assert (p.prompt, p.sampler, p.seed) == ("a cat", "euler_ancestral", 1)
    asked = {"prompt": "a", "seed": 7, "num_inference_steps": 25, "use_stable_diffusion_model": "x"}
    assert infotext.parse(json.dumps({"reqBody": asked, "seed": 7})).steps == 25
    matrix = {"PositivePrompt": "a", "Steps": 20, "Sampler": "Euler a", "ModelName": "x"}
    p = infotext.parse(Embedded("png", {"parameters-json": json.dumps(matrix)}))
    assert (p.generator.name, p.steps) == ("Stability Matrix", 20)


def test_what_the_hubs_parser_broke_is_mended() -> None:
    p = infotext.from_meta(
        {
            "prompt": "a <lora:foo-000001:0.8> <lora:bar:1>", "steps": 20, "sampler": "Euler a", "Model": "m",
            "hashes": {"model": "e3b0c44298", "lora:foo-000001": "0123456789ab"}, '"bar': 'ba9876543210"',
            "resources": [{"type": "lora", "name": "foo-000001", "weight": 0.8, "hash": "0123456789ab"},
                          {"type": "lora", "name": "000001", "hash": "0123456789ab"}],
        }
    )  # fmt: skip
    assert p.resources == (
        ResourceRef("checkpoint", "m"),
        ResourceRef("lora", "foo-000001", 0.8, hash="0123456789ab"),
        ResourceRef("lora", "bar", 1.0, hash="ba9876543210"),
    )
    assert p.generator.name == "A1111"
    assert any("empty file" in warning for warning in p.warnings)

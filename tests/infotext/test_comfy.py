"""ComfyUI graphs: followed backwards through what people really put between sampler and picture."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl import infotext
from hubctl.infotext import comfy
from hubctl.parameters import GenerationParameters, Hires, ResourceRef
from tests.infotext.cases import node, run, simple


def test_plain_graph() -> None:
    p = infotext.parse(json.dumps(simple()))
    assert (p.prompt, p.negative_prompt, p.steps, p.cfg_scale, p.seed) == ("a cat", "blurry", 20, 7.0, 5)
    assert (p.sampler, p.schedule, p.width, p.height, p.rng) == ("dpmpp_2m", "karras", 512, 768, "cpu")
    assert p.of_kind("checkpoint") == (ResourceRef("checkpoint", "base"),)
    assert p.sources["seed"] == "comfy:KSampler#run"
    assert p.warnings == ()


def test_primitives_reroutes_switches_and_concatenation() -> None:
    graph = simple(
        s=node("Seed (rgthree)", seed=99),
        n=node("PrimitiveInt", value=31),
        r=node("Reroute", **{"": ["ckpt", 0]}),
        sw=node("ImpactSwitch", select=2, input1=["r", 0], input2=["r", 0]),
        t1=node("Text Multiline", text="first"),
        t2=node("Text Multiline", text="second"),
        cat=node("Text Concatenate", text_a=["t1", 0], text_b=["t2", 0], delimiter=", "),
        pos=node("CLIPTextEncode", text=["cat", 0], clip=["ckpt", 1]),
    )
    graph["run"]["inputs"].update(seed=["s", 0], steps=["n", 0], model=["sw", 0])
    p = infotext.parse(json.dumps(graph))
    assert (p.seed, p.steps, p.prompt) == (99, 31, "first, second")
    assert p.of_kind("checkpoint")[0].name == "base"


def test_lora_stacks_of_three_kinds() -> None:
    graph = simple(
        power=node(
            "Power Lora Loader (rgthree)", model=["ckpt", 0], clip=["ckpt", 1],
            lora_1={"on": True, "lora": "one.safetensors", "strength": 0.8},
            lora_2={"on": False, "lora": "off.safetensors", "strength": 1},
        ),
        stack=node(
            "CR LoRA Stack", switch_1="On", lora_name_1="two.safetensors", model_weight_1=-0.5, clip_weight_1=0.1,
            switch_2="Off", lora_name_2="off.safetensors", model_weight_2=1, clip_weight_2=1,
        ),
        apply=node("CR Apply LoRA Stack", model=["power", 0], clip=["power", 1], lora_stack=["stack", 0]),
        last=node(
            "LoraLoader", lora_name="three.safetensors", strength_model=3, strength_clip=1, model=["apply", 0],
            clip=["apply", 1],
        ),
    )  # fmt: skip
    graph["run"]["inputs"]["model"] = ["last", 0]
    loras = infotext.parse(json.dumps(graph)).of_kind("lora")
    assert [(r.name, r.weight, r.weight_te) for r in loras] == [
        ("one", 0.8, None),
        ("two", -0.5, 0.1),
        ("three", 3.0, 1.0),
    ]


def test_efficiency_loader_holds_everything() -> None:
    graph = {
        "1": node(
            "Efficient Loader", ckpt_name="base.safetensors", vae_name="Baked VAE", clip_skip=-2,
            lora_name="x.safetensors", lora_model_strength=0.7, lora_clip_strength=0.6, positive="a cat",
            negative="blurry", empty_latent_width=640, empty_latent_height=832,
        ),
        "2": node(
            "KSampler (Efficient)", seed=3, steps=25, cfg=6.5, sampler_name="euler_ancestral", scheduler="normal",
            denoise=1.0, preview_method="auto", model=["1", 0], positive=["1", 1], negative=["1", 2],
            latent_image=["1", 3], optional_vae=["1", 4],
        ),
        "3": node("SaveImage", images=["2", 5]),
    }  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.negative_prompt, p.clip_skip, p.width, p.height) == ("a cat", "blurry", 2, 640, 832)
    assert p.of_kind("lora") == (ResourceRef("lora", "x", 0.7, 0.6),)
    assert p.sampler == "euler_ancestral"


def test_two_passes_and_a_refiner() -> None:
    graph = simple(
        up=node("LatentUpscaleBy", samples=["run", 0], upscale_method="nearest-exact", scale_by=1.5),
        two=node(
            "KSampler", seed=6, steps=10, cfg=7.0, sampler_name="euler", scheduler="karras", denoise=0.5,
            model=["ckpt", 0], positive=["pos", 0], negative=["neg", 0], latent_image=["up", 0],
        ),
        img=node("VAEDecode", samples=["two", 0], vae=["ckpt", 2]),
    )  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert p.seed == 5
    assert p.hires == Hires(upscale=1.5, steps=10, upscaler="Latent (nearest-exact)", denoise=0.5, sampler="euler")
    assert [s["node"] for s in p.raw["samplers"]] == ["run", "two"]


def test_flux_parts_and_guidance() -> None:
    graph = {
        "u": node("UNETLoader", unet_name="flux1-dev.safetensors"),
        "c": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="clip_l.safetensors"),
        "t": node("CLIPTextEncode", text="a fox", clip=["c", 0]),
        "g": node("FluxGuidance", guidance=3.5, conditioning=["t", 0]),
        "gd": node("BasicGuider", model=["u", 0], conditioning=["g", 0]),
        "n": node("RandomNoise", noise_seed=11),
        "k": node("KSamplerSelect", sampler_name="euler"),
        "sg": node("BasicScheduler", model=["u", 0], scheduler="simple", steps=20, denoise=1.0),
        "sp": node("SplitSigmas", sigmas=["sg", 0], step=0),
        "l": node("EmptySD3LatentImage", width=1024, height=768),
        "s": node(
            "SamplerCustomAdvanced", noise=["n", 0], guider=["gd", 0], sampler=["k", 0], sigmas=["sp", 1],
            latent_image=["l", 0],
        ),
        "v": node("VAELoader", vae_name="ae.safetensors"),
        "d": node("VAEDecode", samples=["s", 0], vae=["v", 0]),
        "o": node("SaveImage", images=["d", 0]),
    }  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.distilled_cfg, p.cfg_scale, p.steps, p.seed) == ("a fox", 3.5, None, 20, 11)
    assert (p.schedule, p.width, p.of_kind("vae")[0].name, p.of_kind("unet")[0].name) == (
        "simple", 1024, "ae", "flux1-dev",
    )  # fmt: skip


def test_what_is_not_understood_is_named() -> None:
    graph = simple(pos=node("SecretPromptMaker", mood=3), ckpt=node("MysteryLoader", thing=1))
    warnings = infotext.parse(json.dumps(graph)).warnings
    assert any("SecretPromptMaker" in w and "positive" in w for w in warnings)
    assert any("MysteryLoader" in w for w in warnings)


def test_workflow_with_subgraph_bypass_and_mute() -> None:
    def ui(
        key: int, kind: str, widgets: list[Any], inputs: dict[str, int] | None = None, **more: Any
    ) -> dict[str, Any]:
        entries = [{"name": name, "link": link, "type": name.upper()} for name, link in (inputs or {}).items()]
        return {"id": key, "type": kind, "widgets_values": widgets, "inputs": entries, **more}

    inner = {
        "id": "sub", "inputs": [{"name": "text"}], "outputs": [{"name": "cond"}],
        "nodes": [ui(1, "CLIPTextEncode", ["unused"], {"text": 1})],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
            {"id": 2, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }  # fmt: skip
    workflow = {
        "nodes": [
            ui(1, "CheckpointLoaderSimple", ["base.safetensors"]),
            ui(2, "LoraLoaderModelOnly", ["off.safetensors", 1.0], {"model": 1}, mode=4, outputs=[{"type": "MODEL"}]),
            ui(3, "PrimitiveNode", ["from outside", "fixed"]),
            ui(4, "sub", [], {"text": 2}),
            ui(5, "CLIPTextEncode", ["blurry"]),
            ui(6, "EmptyLatentImage", [512, 640, 1]),
            ui(7, "KSampler", [42, "randomize", 12, 5.5, "euler", "normal", 1.0],
               {"model": 3, "positive": 4, "negative": 5, "latent_image": 6}, order=9),
            ui(8, "VAEDecode", [], {"samples": 7}, order=10),
            ui(9, "SaveImage", ["x"], {"images": 8}, order=11),
        ],
        "links": [
            [1, 1, 0, 2, 0, "MODEL"], [2, 3, 0, 4, 0, "STRING"], [3, 2, 0, 7, 0, "MODEL"], [4, 4, 0, 7, 1, "C"],
            [5, 5, 0, 7, 2, "C"], [6, 6, 0, 7, 3, "LATENT"], [7, 7, 0, 8, 0, "LATENT"], [8, 8, 0, 9, 0, "IMAGE"],
        ],
        "definitions": {"subgraphs": [inner]},
    }  # fmt: skip
    p = infotext.parse(json.dumps(workflow))
    assert (p.prompt, p.negative_prompt, p.seed, p.steps, p.width) == ("from outside", "blurry", 42, 12, 512)
    assert p.of_kind("lora") == ()
    assert p.of_kind("checkpoint")[0].name == "base"


def test_loops_and_hubs_end() -> None:
    graph = simple()
    graph["run"]["inputs"]["latent_image"] = ["run", 0]
    graph["run"]["inputs"]["seed"] = ["save", 0]
    graph["pos"]["inputs"]["text"] = ["pos", 0]
    infotext.parse(json.dumps(graph))
    wide = {str(i): node("KSampler", steps=1, latent_image=[str(i - 1), 0], model=[str(i - 1), 0]) for i in range(600)}
    started = time.process_time()
    infotext.parse(json.dumps(wide))
    assert time.process_time() - started < 20  # a reader that is not linear takes minutes


value = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["1", "2", "a", "karras", "x.safetensors"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lora", "on", "__value__"]), inner),
    max_leaves=4,
)
names = st.sampled_from(
    ["model", "positive", "negative", "text", "seed", "steps", "latent_image", "samples", "images", "lora_name", "cfg",
     "sigmas", "guider", "noise", "sampler", "conditioning", "ckpt_name", "width", "height", "vae", "loras", "pipe"]
)  # fmt: skip
kinds = st.sampled_from(["KSampler", "SaveImage", "CLIPTextEncode", "Reroute", "AnySwitch", "SamplerCustomAdvanced"])
link = st.tuples(st.sampled_from(["1", "2", "3", "4"]), st.integers(0, 2)).map(list)
nodes = st.builds(
    lambda kind, inputs: {"class_type": kind, "inputs": inputs}, kinds, st.dictionaries(names, value | link)
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), nodes, min_size=1))
def test_any_graph_is_read(graph: dict[str, Any]) -> None:
    infotext.parse(json.dumps(graph)).to_json()


def test_written_graph_reads_back() -> None:
    p = GenerationParameters(
        prompt="a cat <lora:x:0.8>", negative_prompt="blurry", steps=20, sampler="dpmpp_2m", schedule="karras",
        cfg_scale=7.0, seed=5, width=512, height=768, clip_skip=2, denoise=0.5,
        hires=Hires(upscale=1.5, steps=10, denoise=0.5),
        resources=(ResourceRef("checkpoint", "base"), ResourceRef("lora", "x", 0.8), ResourceRef("vae", "v.pt")),
    )  # fmt: skip
    back = comfy.parse_graph(comfy.write(p))
    assert (back.prompt, back.negative_prompt, back.steps, back.seed) == ("a cat ", "blurry", 20, 5)
    assert (back.sampler, back.schedule, back.width, back.clip_skip) == ("dpmpp_2m", "karras", 512, 2)
    assert back.hires is not None
    assert (back.hires.upscale, back.hires.steps, back.hires.denoise) == (1.5, 10, 0.5)
    assert {r.name for r in back.resources} == {"base", "x", "v"}


def test_a_graph_is_given_back_unchanged() -> None:
    assert comfy.write(comfy.parse_graph(simple())) == simple()


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"nodes": []}', '{"1": {"class_type": 3}}'])
def test_empty_things_are_refused(text: str) -> None:
    from hubctl.errors import NoParameters

    with pytest.raises(NoParameters):
        infotext.parse(text)


def loaded(p: GenerationParameters, *kinds: str) -> list[tuple[str | None, float | None]]:
    return [(r.name, r.weight) for r in p.of_kind(*kinds)]


def test_a_styler_has_a_text_for_each_role() -> None:
    graph = simple(
        st=node("SDXLPromptStyler", text_positive="a fox", text_negative="ugly", style="base"),
        pos=node("CLIPTextEncode", text=["st", 0], clip=["ckpt", 1]),
        neg=node("CLIPTextEncode", text=["st", 1], clip=["ckpt", 1]),
    )
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.negative_prompt) == ("a fox", "ugly")


def test_contexts_carry_everything() -> None:
    graph = simple(
        big=node(
            "Context Big (rgthree)", model=["ckpt", 0], clip=["ckpt", 1], positive=["pos", 0], negative=["neg", 0],
            latent=["size", 0], steps=33, cfg=4.5, sampler="euler", scheduler="beta", seed=8,
        ),
        thin=node("Context (rgthree)", base_ctx=["big", 0]),
        run=node(
            "KSampler", seed=["thin", 7], steps=["big", 9], cfg=["big", 11], sampler_name=["big", 13],
            scheduler=["big", 14], denoise=1.0, model=["thin", 1], positive=["thin", 4], negative=["thin", 5],
            latent_image=["thin", 6],
        ),
    )  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.steps, p.cfg_scale, p.sampler, p.schedule, p.seed) == ("a cat", 33, 4.5, "euler", "beta", 8)
    assert (p.width, loaded(p, "checkpoint")) == (512, [("base", None)])


def test_pipes_with_the_settings_in_the_node_before() -> None:
    graph = {
        "load": node(
            "easy fullLoader", ckpt_name="x.safetensors", vae_name="v.pt", clip_skip=-2, lora_name="l.safetensors",
            lora_model_strength=0.5, lora_clip_strength=0.6, resolution="832 x 1216", empty_latent_width=512,
            empty_latent_height=512, positive="a fox", negative="ugly",
        ),
        "set": node("easy preSampling", steps=25, cfg=5, sampler_name="euler", scheduler="karras", denoise=1, seed=77,
                    pipe=["load", 0]),
        "k": node("easy kSampler", pipe=["set", 0]),
        "s": node("SaveImage", images=["k", 1]),
    }  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.negative_prompt, p.steps, p.seed, p.clip_skip) == ("a fox", "ugly", 25, 77, 2)
    assert (p.width, p.height, loaded(p, "lora"), loaded(p, "vae")) == (832, 1216, [("l", 0.5)], [("v", None)])


@pytest.mark.parametrize(
    ("switch", "prompt"),
    [
        (node("ImpactConditionalBranch", cond=False, tt_value=["a", 0], ff_value=["b", 0]), "B"),
        (node("ComfySwitchNode", switch=True, on_true=["a", 0], on_false=["b", 0]), "A"),
        (node("Text Input Switch", boolean=False, text_a=["a", 0], text_b=["b", 0]), "B"),
        (node("CR Text Input Switch", Input=2, text1=["a", 0], text2=["b", 0]), "B"),
        (node("Any Switch (rgthree)", any_01=["gone", 0], any_02=["b", 0]), "B"),
        (node("easy ifElse", boolean=True, on_true=["a", 0], on_false=["b", 0]), "A"),
    ],
)
def test_switches(switch: dict[str, Any], prompt: str) -> None:
    graph = simple(
        a=node("Text Multiline", text="A"), b=node("Text Multiline", text="B"), sw=switch,
        pos=node("CLIPTextEncode", text=["sw", 0], clip=["ckpt", 1]),
    )  # fmt: skip
    assert infotext.parse(json.dumps(graph)).prompt == prompt


@pytest.mark.parametrize(
    ("stack", "found"),
    [
        (node("LoraTagLoader", text="<lora:a:0.7> <lora:b:0.5>", model=["ckpt", 0]), [("a", 0.7), ("b", 0.5)]),
        (
            node("ImpactWildcardEncode", wildcard_text="__x__", populated_text="cat <lora:z:0.5>", model=["ckpt", 0]),
            [("z", 0.5)],
        ),
        (
            node("easy loraStackApply", model=["ckpt", 0], lora_stack=["st", 0]),
            [("one", 0.3)],
        ),
        (node("LoraLoader", lora_name="q.pt", strength_model=["f", 0], model=["ckpt", 0]), [("q", 0.25)]),
        (
            node("LoraLoader|pysssss", lora_name={"content": "p.pt", "image": None}, strength_model=1,
                 model=["ckpt", 0]),
            [("p", 1.0)],
        ),
        (node("CR Load LoRA", switch="Off", lora_name="off.pt", model_weight=1, model=["ckpt", 0]), []),
    ],
)  # fmt: skip
def test_loras_of_more_kinds(stack: dict[str, Any], found: list[Any]) -> None:
    graph = simple(
        stack=stack,
        f=node("PrimitiveFloat", value=0.25),
        st=node("easy loraStack", toggle=True, mode="advanced", num_loras=1, lora_1_name="one.pt",
                lora_1_strength=1.0, lora_1_model_strength=0.3, lora_1_clip_strength=0.4),
        run=run(model=["stack", 0]),
    )  # fmt: skip
    assert loaded(infotext.parse(json.dumps(graph)), "lora") == found


def test_controlnets_and_text_encoders_are_resources() -> None:
    graph = simple(
        clip=node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="l.safetensors", type="flux"),
        pos=node("CLIPTextEncode", text="a cat", clip=["clip", 0]),
        cl=node("ControlNetLoader", control_net_name="canny.safetensors"),
        cn=node("ControlNetApplyAdvanced", positive=["pos", 0], negative=["neg", 0], control_net=["cl", 0],
                strength=0.8),
        run=run(positive=["cn", 0], negative=["cn", 1]),
    )  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.negative_prompt) == ("a cat", "blurry")
    assert loaded(p, "controlnet") == [("canny", 0.8)]
    assert loaded(p, "text_encoder") == [("t5", None), ("l", None)]


def test_second_pass_through_an_upscaler_file_counts_both_factors() -> None:
    graph = simple(
        um=node("UpscaleModelLoader", model_name="4x-UltraSharp.pth"),
        up=node("ImageUpscaleWithModel", upscale_model=["um", 0], image=["img", 0]),
        sc=node("ImageScaleBy", image=["up", 0], upscale_method="lanczos", scale_by=0.5),
        en=node("VAEEncode", pixels=["sc", 0], vae=["ckpt", 2]),
        two=run(seed=6, steps=12, denoise=0.4, latent_image=["en", 0]),
        d2=node("VAEDecode", samples=["two", 0], vae=["ckpt", 2]),
        save=node("SaveImage", images=["d2", 0]),
    )
    hires = infotext.parse(json.dumps(graph)).hires
    assert hires == Hires(upscale=2.0, steps=12, upscaler="4x-UltraSharp", denoise=0.4)


def test_wrapped_video_nodes() -> None:
    graph = {
        "m": node("WanVideoModelLoader", model="wan.safetensors", lora=["l", 0]),
        "l": node("WanVideoLoraSelect", lora="x.safetensors", strength=0.7),
        "t": node("WanVideoTextEncode", positive_prompt="pp", negative_prompt="nn"),
        "e": node("WanVideoEmptyEmbeds", width=832, height=480, num_frames=81),
        "k": node("WanVideoSampler", steps=20, cfg=6, seed=3, scheduler="unipc", model=["m", 0], text_embeds=["t", 0],
                  image_embeds=["e", 0]),
        "d": node("WanVideoDecode", vae=["v", 0], samples=["k", 0]),
        "v": node("WanVideoVAELoader", model_name="wanvae.safetensors"),
        "s": node("VHS_VideoCombine", images=["d", 0]),
    }  # fmt: skip
    p = infotext.parse(json.dumps(graph))
    assert (p.prompt, p.negative_prompt, p.width, loaded(p, "lora")) == ("pp", "nn", 832, [("x", 0.7)])
    assert (loaded(p, "vae"), loaded(p, "checkpoint")) == ([("wanvae", None)], [("wan", None)])


def test_get_and_set_nodes_and_inputs_fed_from_anywhere() -> None:
    def ui(key: int, kind: str, widgets: list[Any], **links: int | None) -> dict[str, Any]:
        types = {"model": "MODEL", "clip": "CLIP", "vae": "VAE"}
        inputs = [{"name": name, "type": types.get(name, "X"), "link": link} for name, link in links.items()]
        return {"id": key, "type": kind, "widgets_values": widgets, "inputs": inputs}

    workflow = {
        "nodes": [
            ui(1, "CheckpointLoaderSimple", ["base.safetensors"]),
            ui(2, "SetNode", ["c"], CLIP=1),
            ui(3, "GetNode", ["c"]),
            ui(4, "CLIPTextEncode", ["a cat"], clip=2),
            ui(5, "Anything Everywhere", [], MODEL=3) | {"inputs": [{"name": "MODEL", "type": "MODEL", "link": 3}]},
            ui(6, "EmptyLatentImage", [512, 640, 1]),
            ui(7, "KSampler", [42, "fixed", 12, 5.5, "euler", "normal", 1.0], model=None, positive=4, latent_image=5),
            ui(8, "VAEDecode", [], samples=6),
            ui(9, "SaveImage", ["x"], images=7),
        ],
        "links": [
            [1, 1, 1, 2, 0, "CLIP"], [2, 3, 0, 4, 0, "CLIP"], [3, 1, 0, 5, 0, "MODEL"], [4, 4, 0, 7, 1, "C"],
            [5, 6, 0, 7, 3, "L"], [6, 7, 0, 8, 0, "L"], [7, 8, 0, 9, 0, "I"],
        ],
    }  # fmt: skip
    p = infotext.parse(json.dumps(workflow))
    assert (p.prompt, p.seed, p.width, loaded(p, "checkpoint")) == ("a cat", 42, 512, [("base", None)])

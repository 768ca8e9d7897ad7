"""Graphs of nodes that people use, core ones and packages': each the smallest that still has the wiring."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infotext.cases import differences, node, run, simple, table

GRAPHS, case = table()
S = {
    "prompt": "a cat", "negative_prompt": "blurry", "steps": 20, "seed": 5, "size": (512, 768), "checkpoint": ["base"],
}  # fmt: skip


def efficient(**inputs: Any) -> dict[str, Any]:
    made = {
        "seed": 3, "steps": 25, "cfg": 6.5, "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0,
        "preview_method": "auto", "vae_decode": "true", "model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2],
        "latent_image": ["1", 3], "optional_vae": ["1", 4],
    }  # fmt: skip
    return node("KSampler (Efficient)", **{**made, **inputs})


LOADER = node(
    "Efficient Loader", ckpt_name="base.safetensors", vae_name="v.safetensors", clip_skip=-2, lora_name="None",
    lora_model_strength=1, lora_clip_strength=1, positive="a cat", negative="bad", empty_latent_width=640,
    empty_latent_height=832, batch_size=1, lora_stack=["9", 0],
)  # fmt: skip

# fmt: off
# --- core nodes -------------------------------------------------------------------------------------------------------

case(
    "area composition",
    simple(
        p2=node("CLIPTextEncode", text="a dog", clip=["ckpt", 1]),
        ar=node("ConditioningSetArea", conditioning=["p2", 0], width=256, height=256, x=0, y=0, strength=1.0),
        co=node("ConditioningCombine", conditioning_1=["pos", 0], conditioning_2=["ar", 0]),
        run=run(positive=["co", 0]),
    ),
    prompt="a cat\nAND a dog",
)
case(
    "cond concat",
    simple(
        p2=node("CLIPTextEncode", text="a dog", clip=["ckpt", 1]),
        co=node("ConditioningConcat", conditioning_to=["pos", 0], conditioning_from=["p2", 0]),
        run=run(positive=["co", 0]),
    ),
    prompt="a cat\nAND a dog",
)
case(
    "noisy latent comp",
    {
        "4": node("CheckpointLoaderSimple", ckpt_name="base.ckpt"),
        "6": node("CLIPTextEncode", text="bg", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="neg", clip=["4", 1]),
        "14": node("CLIPTextEncode", text="subject", clip=["4", 1]),
        "5": node("EmptyLatentImage", width=704, height=1280, batch_size=1),
        "11": node("EmptyLatentImage", width=704, height=384, batch_size=1),
        "10": node(
            "KSamplerAdvanced",
            add_noise="enable",
            noise_seed=1,
            steps=15,
            cfg=10,
            sampler_name="dpmpp_2m",
            scheduler="normal",
            start_at_step=0,
            end_at_step=5,
            return_with_leftover_noise="enable",
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "12": node(
            "KSamplerAdvanced",
            add_noise="enable",
            noise_seed=2,
            steps=15,
            cfg=10,
            sampler_name="dpmpp_2m",
            scheduler="normal",
            start_at_step=0,
            end_at_step=5,
            return_with_leftover_noise="enable",
            model=["4", 0],
            positive=["14", 0],
            negative=["7", 0],
            latent_image=["11", 0],
        ),
        "15": node("LatentComposite", samples_to=["10", 0], samples_from=["12", 0], x=0, y=0, feather=0),
        "16": node(
            "KSamplerAdvanced",
            add_noise="disable",
            noise_seed=0,
            steps=15,
            cfg=10,
            sampler_name="dpmpp_2m",
            scheduler="normal",
            start_at_step=5,
            end_at_step=10000,
            return_with_leftover_noise="disable",
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["15", 0],
        ),
        "8": node("VAEDecode", samples=["16", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0]),
    },
    prompt="bg",
    seed=1,
    size=(704, 1280),
    hires=None,
    refiner=None,
    steps=15,
)
case(
    "lumina2",
    simple(
        pos=node("CLIPTextEncodeLumina2", system_prompt="superior", user_prompt="a fox", clip=["ckpt", 1]),
        neg=node("CLIPTextEncodeLumina2", system_prompt="superior", user_prompt="ugly", clip=["ckpt", 1]),
    ),
    prompt="a fox",
    negative_prompt="ugly",
)
case(
    "sdxl both",
    simple(
        pos=node(
            "CLIPTextEncodeSDXL",
            text_g="a fox",
            text_l="a fox",
            width=1024,
            height=1024,
            crop_w=0,
            crop_h=0,
            target_width=1024,
            target_height=1024,
            clip=["ckpt", 1],
        )
    ),
    prompt="a fox",
    size=(512, 768),
)
case(
    "flux encode",
    simple(pos=node("CLIPTextEncodeFlux", clip_l="a fox", t5xxl="a fox in snow", guidance=3.5, clip=["ckpt", 1])),
    prompt="a fox\na fox in snow",
    distilled_cfg=3.5,
)
case(
    "sd3 encode",
    simple(
        pos=node(
            "CLIPTextEncodeSD3", clip_l="a fox", clip_g="a fox", t5xxl="a fox", empty_padding="none", clip=["ckpt", 1]
        )
    ),
    prompt="a fox",
)
case(
    "perpneg",
    simple(
        e=node("CLIPTextEncode", text="", clip=["ckpt", 1]),
        g=node(
            "PerpNegGuider",
            model=["ckpt", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            empty_conditioning=["e", 0],
            cfg=6.0,
            neg_scale=1.0,
        ),
        n=node("RandomNoise", noise_seed=3),
        k=node("KSamplerSelect", sampler_name="euler"),
        sg=node("BasicScheduler", model=["ckpt", 0], scheduler="simple", steps=12, denoise=1.0),
        run=node(
            "SamplerCustomAdvanced",
            noise=["n", 0],
            guider=["g", 0],
            sampler=["k", 0],
            sigmas=["sg", 0],
            latent_image=["size", 0],
        ),
    ),
    prompt="a cat",
    negative_prompt="blurry",
    cfg_scale=6.0,
    steps=12,
    seed=3,
    schedule="simple",
)
case(
    "dual cfg",
    simple(
        g=node(
            "DualCFGGuider",
            model=["ckpt", 0],
            cond1=["pos", 0],
            cond2=["neg", 0],
            negative=["neg", 0],
            cfg_conds=5.0,
            cfg_cond2_negative=2.0,
        ),
        n=node("RandomNoise", noise_seed=3),
        k=node("KSamplerSelect", sampler_name="euler"),
        sg=node("BasicScheduler", model=["ckpt", 0], scheduler="simple", steps=12, denoise=1.0),
        run=node(
            "SamplerCustomAdvanced",
            noise=["n", 0],
            guider=["g", 0],
            sampler=["k", 0],
            sigmas=["sg", 0],
            latent_image=["size", 0],
        ),
    ),
    prompt="a cat",
    negative_prompt="blurry",
    cfg_scale=5.0,
)
case(
    "disable noise refiner",
    simple(
        n=node("DisableNoise"),
        k=node("KSamplerSelect", sampler_name="euler"),
        sg=node("BasicScheduler", model=["ckpt", 0], scheduler="simple", steps=12, denoise=0.5),
        g=node("CFGGuider", model=["ckpt", 0], positive=["pos", 0], negative=["neg", 0], cfg=3.0),
        run=node(
            "SamplerCustomAdvanced",
            noise=["n", 0],
            guider=["g", 0],
            sampler=["k", 0],
            sigmas=["sg", 0],
            latent_image=["size", 0],
        ),
    ),
    seed=None,
    cfg_scale=3.0,
    denoise=0.5,
)
case(
    "inpaint model cond",
    simple(
        im=node("LoadImage", image="a.png"),
        ic=node(
            "InpaintModelConditioning",
            positive=["pos", 0],
            negative=["neg", 0],
            vae=["ckpt", 2],
            pixels=["im", 0],
            mask=["im", 1],
            noise_mask=True,
        ),
        run=run(positive=["ic", 0], negative=["ic", 1], latent_image=["ic", 2]),
    ),
    prompt="a cat",
    negative_prompt="blurry",
    size=(None, None),
)
case(
    "redux",
    simple(
        sm=node("StyleModelLoader", style_model_name="redux.safetensors"),
        st=node(
            "StyleModelApply",
            conditioning=["pos", 0],
            style_model=["sm", 0],
            clip_vision_output=["x", 0],
            strength=1.0,
            strength_type="multiply",
        ),
        run=run(positive=["st", 0]),
    ),
    **S,
)
case(
    "ipx",
    simple(
        im=node("LoadImage", image="a.png"),
        ic=node(
            "InstructPixToPixConditioning", positive=["pos", 0], negative=["neg", 0], vae=["ckpt", 2], pixels=["im", 0]
        ),
        run=run(positive=["ic", 0], negative=["ic", 1], latent_image=["ic", 2]),
    ),
    prompt="a cat",
    size=(None, None),
)
case(
    "wan i2v",
    simple(
        w=node(
            "WanImageToVideo",
            positive=["pos", 0],
            negative=["neg", 0],
            vae=["ckpt", 2],
            width=832,
            height=480,
            length=33,
            batch_size=1,
            start_image=["im", 0],
        ),
        im=node("LoadImage", image="x.png"),
        run=run(positive=["w", 0], negative=["w", 1], latent_image=["w", 2]),
    ),
    prompt="a cat",
    negative_prompt="blurry",
    size=(832, 480),
)
case(
    "wan22 two models",
    {
        "u1": node("UNETLoader", unet_name="high.safetensors", weight_dtype="default"),
        "u2": node("UNETLoader", unet_name="low.safetensors", weight_dtype="default"),
        "c": node("CLIPLoader", clip_name="umt5.safetensors", type="wan"),
        "p": node("CLIPTextEncode", text="fox", clip=["c", 0]),
        "n": node("CLIPTextEncode", text="bad", clip=["c", 0]),
        "l1": node("LoraLoaderModelOnly", lora_name="hl.safetensors", strength_model=1.0, model=["u1", 0]),
        "m1": node("ModelSamplingSD3", shift=8.0, model=["l1", 0]),
        "m2": node("ModelSamplingSD3", shift=8.0, model=["u2", 0]),
        "e": node("EmptyHunyuanLatentVideo", width=1280, height=704, length=81, batch_size=1),
        "k1": node(
            "KSamplerAdvanced",
            add_noise="enable",
            noise_seed=9,
            steps=20,
            cfg=3.5,
            sampler_name="euler",
            scheduler="simple",
            start_at_step=0,
            end_at_step=10,
            return_with_leftover_noise="enable",
            model=["m1", 0],
            positive=["p", 0],
            negative=["n", 0],
            latent_image=["e", 0],
        ),
        "k2": node(
            "KSamplerAdvanced",
            add_noise="disable",
            noise_seed=0,
            steps=20,
            cfg=3.5,
            sampler_name="euler",
            scheduler="simple",
            start_at_step=10,
            end_at_step=10000,
            return_with_leftover_noise="disable",
            model=["m2", 0],
            positive=["p", 0],
            negative=["n", 0],
            latent_image=["k1", 0],
        ),
        "v": node("VAELoader", vae_name="wan.safetensors"),
        "d": node("VAEDecode", samples=["k2", 0], vae=["v", 0]),
        "cv": node("CreateVideo", images=["d", 0], fps=16),
        "s": node("SaveVideo", video=["cv", 0], filename_prefix="x"),
    },
    prompt="fox",
    seed=9,
    size=(1280, 704),
    refiner=("low", None, 0.5),
    vae=["wan"],
    loras=[("hl", 1.0, None)],
    encoders=["umt5"],
)
case(
    "ltxv",
    simple(
        lc=node("LTXVConditioning", positive=["pos", 0], negative=["neg", 0], frame_rate=25),
        ls=node(
            "LTXVScheduler", steps=30, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1, latent=["e", 0]
        ),
        e=node("EmptyLTXVLatentVideo", width=768, height=512, length=97, batch_size=1),
        k=node("KSamplerSelect", sampler_name="euler"),
        run=node(
            "SamplerCustom",
            add_noise=True,
            noise_seed=8,
            cfg=3.0,
            model=["ckpt", 0],
            positive=["lc", 0],
            negative=["lc", 1],
            sampler=["k", 0],
            sigmas=["ls", 0],
            latent_image=["e", 0],
        ),
    ),
    prompt="a cat",
    negative_prompt="blurry",
    seed=8,
    steps=30,
    cfg_scale=3.0,
    size=(768, 512),
    sampler="euler",
    schedule=None,
)
case(
    "turbo",
    simple(
        ts=node("SDTurboScheduler", steps=1, denoise=1.0, model=["ckpt", 0]),
        k=node("KSamplerSelect", sampler_name="euler_ancestral"),
        run=node(
            "SamplerCustom",
            add_noise=True,
            noise_seed=0,
            cfg=1.0,
            model=["ckpt", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            sampler=["k", 0],
            sigmas=["ts", 0],
            latent_image=["size", 0],
        ),
    ),
    seed=0,
    steps=1,
    cfg_scale=1.0,
)
case(
    "stable cascade",
    {
        "41": node("CheckpointLoaderSimple", ckpt_name="stage_c.safetensors"),
        "42": node("CheckpointLoaderSimple", ckpt_name="stage_b.safetensors"),
        "6": node("CLIPTextEncode", text="fox", clip=["41", 1]),
        "7": node("CLIPTextEncode", text="", clip=["41", 1]),
        "34": node("StableCascade_EmptyLatentImage", width=1024, height=1024, compression=42, batch_size=1),
        "3": node(
            "KSampler",
            seed=1,
            steps=20,
            cfg=4,
            sampler_name="euler_ancestral",
            scheduler="simple",
            denoise=1,
            model=["41", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["34", 0],
        ),
        "36": node("StableCascade_StageB_Conditioning", conditioning=["40", 0], stage_c=["3", 0]),
        "40": node("ConditioningZeroOut", conditioning=["6", 0]),
        "33": node(
            "KSampler",
            seed=2,
            steps=10,
            cfg=1.1,
            sampler_name="euler_ancestral",
            scheduler="simple",
            denoise=1,
            model=["42", 0],
            positive=["36", 0],
            negative=["40", 0],
            latent_image=["34", 1],
        ),
        "8": node("VAEDecode", samples=["33", 0], vae=["42", 2]),
        "9": node("SaveImage", images=["8", 0]),
    },
    prompt="fox",
    seed=1,
    steps=20,
    cfg_scale=4.0,
    size=(1024, 1024),
)
case(
    "merge",
    simple(
        c2=node("CheckpointLoaderSimple", ckpt_name="two.safetensors"),
        mm=node("ModelMergeSimple", model1=["ckpt", 0], model2=["c2", 0], ratio=0.4),
        run=run(model=["mm", 0]),
    ),
    checkpoint=["base", "two"],
)
case(
    "merge blocks",
    simple(
        c2=node("CheckpointLoaderSimple", ckpt_name="two.safetensors"),
        mm=node("ModelMergeBlocks", model1=["ckpt", 0], model2=["c2", 0], input=1, middle=1, out=1),
        run=run(model=["mm", 0]),
    ),
    checkpoint=["base", "two"],
)
case(
    "hyper",
    simple(
        h=node("HypernetworkLoader", hypernetwork_name="h.pt", strength=0.8, model=["ckpt", 0]), run=run(model=["h", 0])
    ),
    hypernetworks=["h"],
)
case(
    "fluxgraph",
    {
        "u": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "c": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="clip_l.safetensors", type="flux"),
        "t": node("CLIPTextEncode", text="a fox", clip=["c", 0]),
        "g": node("FluxGuidance", guidance=3.5, conditioning=["t", 0]),
        "ms": node("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, width=1024, height=768, model=["lo", 0]),
        "lo": node("LoraLoaderModelOnly", lora_name="x.safetensors", strength_model=0.9, model=["u", 0]),
        "gd": node("BasicGuider", model=["ms", 0], conditioning=["g", 0]),
        "n": node("RandomNoise", noise_seed=11),
        "k": node("KSamplerSelect", sampler_name="euler"),
        "sg": node("BasicScheduler", model=["ms", 0], scheduler="simple", steps=20, denoise=1.0),
        "l": node("EmptySD3LatentImage", width=1024, height=768, batch_size=1),
        "s": node(
            "SamplerCustomAdvanced",
            noise=["n", 0],
            guider=["gd", 0],
            sampler=["k", 0],
            sigmas=["sg", 0],
            latent_image=["l", 0],
        ),
        "v": node("VAELoader", vae_name="ae.safetensors"),
        "d": node("VAEDecode", samples=["s", 0], vae=["v", 0]),
        "o": node("SaveImage", images=["d", 0]),
    },
    prompt="a fox",
    loras=[("x", 0.9, None)],
    unet=["flux1-dev"],
    encoders=["t5", "clip_l"],
    vae=["ae"],
    seed=11,
    distilled_cfg=3.5,
)
case(
    "flux2",
    {
        "u": node("UNETLoader", unet_name="flux2.safetensors", weight_dtype="default"),
        "c": node("CLIPLoader", clip_name="mistral.safetensors", type="flux2"),
        "t": node("CLIPTextEncode", text="a fox", clip=["c", 0]),
        "g": node("FluxGuidance", guidance=4, conditioning=["t", 0]),
        "rl": node("ReferenceLatent", conditioning=["g", 0], latent=["ve", 0]),
        "ve": node("VAEEncode", pixels=["li", 0], vae=["v", 0]),
        "li": node("LoadImage", image="x.png"),
        "gd": node("BasicGuider", model=["u", 0], conditioning=["rl", 0]),
        "n": node("RandomNoise", noise_seed=11),
        "k": node("KSamplerSelect", sampler_name="euler"),
        "sg": node("Flux2Scheduler", steps=20, width=1248, height=832),
        "l": node("EmptyFlux2LatentImage", width=1248, height=832, batch_size=1),
        "s": node(
            "SamplerCustomAdvanced",
            noise=["n", 0],
            guider=["gd", 0],
            sampler=["k", 0],
            sigmas=["sg", 0],
            latent_image=["l", 0],
        ),
        "v": node("VAELoader", vae_name="f2.safetensors"),
        "d": node("VAEDecode", samples=["s", 0], vae=["v", 0]),
        "o": node("SaveImage", images=["d", 0]),
    },
    prompt="a fox",
    steps=20,
    size=(1248, 832),
    distilled_cfg=4.0,
)
case(
    "gguf",
    {
        "u": node("UnetLoaderGGUF", unet_name="flux1-dev-Q4_K_S.gguf"),
        "c": node("DualCLIPLoaderGGUF", clip_name1="t5-Q8.gguf", clip_name2="clip_l.safetensors", type="flux"),
        "t": node("CLIPTextEncode", text="a fox", clip=["c", 0]),
        "neg": node("ConditioningZeroOut", conditioning=["t", 0]),
        "l": node("EmptySD3LatentImage", width=1024, height=768, batch_size=1),
        "s": node(
            "KSampler",
            seed=5,
            steps=20,
            cfg=1.0,
            sampler_name="euler",
            scheduler="beta",
            denoise=1.0,
            model=["u", 0],
            positive=["t", 0],
            negative=["neg", 0],
            latent_image=["l", 0],
        ),
        "v": node("VAELoader", vae_name="ae.safetensors"),
        "d": node("VAEDecode", samples=["s", 0], vae=["v", 0]),
        "o": node("SaveImage", images=["d", 0]),
    },
    unet=["flux1-dev-Q4_K_S"],
    encoders=["t5-Q8", "clip_l"],
    negative_prompt="",
    schedule="beta",
)
case(
    "nunchaku",
    simple(
        u=node(
            "NunchakuFluxDiTLoader",
            model_path="svdq-int4-flux.1-dev",
            cache_threshold=0,
            attention="nunchaku-fp16",
            cpu_offload="auto",
            device_id=0,
            data_type="bfloat16",
            i2f_mode="enabled",
        ),
        lo=node("NunchakuFluxLoraLoader", lora_name="x.safetensors", lora_strength=0.7, model=["u", 0]),
        run=run(model=["lo", 0]),
    ),
    loras=[("x", 0.7, None)],
    unet=["svdq-int4-flux.1-dev"],
)
case(
    "lcm",
    simple(
        lo=node(
            "LoraLoader",
            lora_name="lcm.safetensors",
            strength_model=1.0,
            strength_clip=1.0,
            model=["ckpt", 0],
            clip=["ckpt", 1],
        ),
        md=node("ModelSamplingDiscrete", sampling="lcm", zsnr=False, model=["lo", 0]),
        run=run(model=["md", 0], sampler_name="lcm", scheduler="sgm_uniform"),
    ),
    sampler="lcm",
    schedule="sgm_uniform",
    loras=[("lcm", 1.0, 1.0)],
)
case(
    "audio",
    simple(
        pos=node("TextEncodeAceStepAudio", tags="rock, guitar", lyrics="la la", lyrics_strength=1.0, clip=["ckpt", 1]),
        neg=node("ConditioningZeroOut", conditioning=["pos", 0]),
        size=node("EmptyAceStepLatentAudio", seconds=120, batch_size=1),
        img=node("VAEDecodeAudio", samples=["run", 0], vae=["ckpt", 2]),
        save=node("SaveAudioMP3", audio=["img", 0], filename_prefix="x"),
    ),
    prompt="rock, guitar",
    size=(None, None),
)
case(
    "photomaker",
    simple(
        pm=node("PhotoMakerEncode", photomaker=["x", 0], image=["y", 0], clip=["ckpt", 1], text="photo of photomaker"),
        run=run(positive=["pm", 0]),
    ),
    prompt="photo of photomaker",
)
case(
    "clip skip",
    simple(
        cs=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["ckpt", 1]),
        pos=node("CLIPTextEncode", text="a cat", clip=["cs", 0]),
    ),
    clip_skip=2,
)
case(
    "image saved of several",
    simple(
        k2=run(seed=6, latent_image=["size", 0]),
        i2=node("VAEDecode", samples=["k2", 0], vae=["ckpt", 2]),
        pv=node("PreviewImage", images=["i2", 0]),
    ),
    seed=5,
)
case(
    "reference only img2img",
    simple(
        li=node("LoadImage", image="x.png"),
        sc=node("ImageScale", upscale_method="lanczos", width=640, height=640, crop="center", image=["li", 0]),
        ve=node("VAEEncode", pixels=["sc", 0], vae=["ckpt", 2]),
        run=run(latent_image=["ve", 0], denoise=0.6),
    ),
    denoise=0.6,
    size=(None, None),
    hires=None,
)
case(
    "esrgan hires",
    simple(
        um=node("UpscaleModelLoader", model_name="4x.pth"),
        up=node("ImageUpscaleWithModel", upscale_model=["um", 0], image=["img", 0]),
        save=node("SaveImage", images=["up", 0]),
    ),
    hires=None,
    size=(512, 768),
)
case(
    "ultimate sd upscale after",
    simple(
        um=node("UpscaleModelLoader", model_name="4x-UltraSharp.pth"),
        u=node(
            "UltimateSDUpscale",
            image=["img", 0],
            model=["ckpt", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            vae=["ckpt", 2],
            upscale_model=["um", 0],
            upscale_by=2.0,
            seed=9,
            steps=15,
            cfg=6,
            sampler_name="euler",
            scheduler="normal",
            denoise=0.2,
            mode_type="Linear",
        ),
        save=node("SaveImage", images=["u", 0]),
    ),
    seed=5,
    steps=20,
    size=(512, 768),
    hires={
        "upscale": 2.0,
        "steps": 15,
        "upscaler": "4x-UltraSharp",
        "denoise": 0.2,
        "sampler": "euler",
        "schedule": "normal",
        "cfg_scale": 6.0,
    },
)
case(
    "facedetailer after",
    simple(
        f=node(
            "FaceDetailer",
            image=["img", 0],
            model=["ckpt", 0],
            clip=["ckpt", 1],
            vae=["ckpt", 2],
            positive=["pos", 0],
            negative=["neg", 0],
            bbox_detector=["b", 0],
            guide_size=512,
            seed=9,
            steps=15,
            cfg=6,
            sampler_name="euler",
            scheduler="normal",
            denoise=0.4,
            wildcard="",
        ),
        b=node("UltralyticsDetectorProvider", model_name="bbox/face_yolov8m.pt"),
        save=node("SaveImage", images=["f", 0]),
    ),
    seed=5,
    steps=20,
)
case("seed everywhere etc", simple(sd=node("easy seed", seed=77), run=run(seed=["sd", 0])), seed=77)
case("CR seed", simple(sd=node("CR Seed", seed=78), run=run(seed=["sd", 0])), seed=78)
case(
    "primitive int chain",
    simple(a=node("PrimitiveInt", value=33), b=node("Reroute", **{"": ["a", 0]}), run=run(steps=["b", 0])),
    steps=33,
)
case("int math", simple(a=node("ImpactInt", value=33), run=run(steps=["a", 0])), steps=33)
case(
    "jps",
    simple(a=node("Int Literal", int=21), f=node("Float Literal", float=4.5), run=run(steps=["a", 0], cfg=["f", 0])),
    steps=21,
    cfg_scale=4.5,
)
case("mxSlider", simple(a=node("mxSlider", Xi=28, Xf=28.0, isfloatX=0), run=run(steps=["a", 0])), steps=28)
case(
    "sampler selector",
    simple(
        a=node("Sampler Selector (Image Saver)", sampler_name="dpmpp_sde"),
        b=node("Scheduler Selector", scheduler="karras"),
        run=run(sampler_name=["a", 0], scheduler=["b", 0]),
    ),
    sampler="dpmpp_sde",
    schedule="karras",
)
case(
    "showtext",
    simple(
        t=node("Text Multiline", text="hello fox"),
        sh=node("ShowText|pysssss", text=["t", 0], text_0="hello fox"),
        pos=node("CLIPTextEncode", text=["sh", 0], clip=["ckpt", 1]),
    ),
    prompt="hello fox",
)
case(
    "showtext of llm",
    simple(
        t=node("Ollama Generate", model="llama3", system="you are a cat"),
        sh=node("ShowText|pysssss", text=["t", 0], text_0="a made up prompt"),
        pos=node("CLIPTextEncode", text=["sh", 0], clip=["ckpt", 1]),
    ),
    prompt="a made up prompt",
    warnings=["A text could not be read: node Ollama Generate (#t) is not understood."],
)
case(
    "preview any",
    simple(
        t=node("PrimitiveStringMultiline", value="fox"),
        pv=node("PreviewAny", source=["t", 0]),
        pos=node("CLIPTextEncode", text=["t", 0], clip=["ckpt", 1]),
    ),
    prompt="fox",
)
case(
    "StringConcatenate",
    simple(
        a=node("PrimitiveString", value="fox"),
        b=node("StringConcatenate", string_a=["a", 0], string_b="snow", delimiter=", "),
        pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1]),
    ),
    prompt="fox, snow",
)
case(
    "JoinStrings kj",
    simple(
        a=node("StringConstant", string="fox"),
        b=node("JoinStrings", string1=["a", 0], string2="snow", delimiter=" "),
        pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1]),
    ),
    prompt="fox snow",
)
case(
    "CR text concat",
    simple(
        a=node("CR Text", text="fox"),
        b=node("CR Text Concatenate", text1=["a", 0], text2="snow", separator=", "),
        pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1]),
    ),
    prompt="fox, snow",
)
case(
    "easy promptConcat",
    simple(
        b=node("easy promptConcat", prompt1="fox", prompt2="snow", separator=", "),
        pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1]),
    ),
    prompt="fox, snow",
)
case(
    "string replace",
    simple(
        b=node("StringReplace", string="a dog", find="dog", replace="fox"),
        pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1]),
    ),
    prompt="a fox",
)
case(
    "regex replace",
    simple(
        b=node("RegexReplace", string="a dog", regex_pattern="dog", replace="fox"),
        pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1]),
    ),
    prompt="a dog",
    warnings=["A changed text could not be read: node RegexReplace (#b) is not understood."],
)
case(
    "trim",
    simple(
        b=node("StringTrim", string=" a dog ", mode="Both"), pos=node("CLIPTextEncode", text=["b", 0], clip=["ckpt", 1])
    ),
    prompt="a dog",
)
case(
    "wildcard encode",
    simple(
        w=node(
            "ImpactWildcardEncode",
            wildcard_text="__animal__ <lora:x:0.5>",
            populated_text="fox <lora:x:0.5>",
            mode="populate",
            seed=1,
            model=["ckpt", 0],
            clip=["ckpt", 1],
        ),
        run=run(model=["w", 0], positive=["w", 2]),
    ),
    prompt="fox <lora:x:0.5>",
    loras=[("x", 0.5, None)],
)
case(
    "styler",
    simple(
        st=node("SDXLPromptStyler", text_positive="a fox", text_negative="ugly", style="base", log_prompt="No"),
        pos=node("CLIPTextEncode", text=["st", 0], clip=["ckpt", 1]),
        neg=node("CLIPTextEncode", text=["st", 1], clip=["ckpt", 1]),
    ),
    prompt="a fox",
    negative_prompt="ugly",
)
case(
    "embedding",
    simple(
        neg=node("CLIPTextEncode", text="(embedding:easyneg:1.2), embedding:bad-hands-5.pt, ugly", clip=["ckpt", 1])
    ),
    embeddings=["easyneg", "bad-hands-5"],
)

# --- packages ---------------------------------------------------------------------------------------------------------

case(
    "efficiency stacker",
    {
        "1": LOADER,
        "9": node(
            "LoRA Stacker",
            input_mode="simple",
            lora_count=2,
            lora_name_1="x.safetensors",
            lora_wt_1=0.7,
            model_str_1=1,
            clip_str_1=1,
            lora_name_2="y.safetensors",
            lora_wt_2=0.4,
            model_str_2=1,
            clip_str_2=1,
            lora_name_3="z.safetensors",
            lora_wt_3=1,
        ),
        "2": efficient(),
        "3": node("SaveImage", images=["2", 5]),
    },
    loras=[("x", 0.7, None), ("y", 0.4, None)],
    vae=["v"],
    clip_skip=2,
    size=(640, 832),
    prompt="a cat",
)
case(
    "efficiency stacker adv",
    {
        "1": LOADER,
        "9": node(
            "LoRA Stacker",
            input_mode="advanced",
            lora_count=1,
            lora_name_1="x.safetensors",
            lora_wt_1=0.7,
            model_str_1=0.9,
            clip_str_1=0.8,
        ),
        "2": efficient(),
        "3": node("SaveImage", images=["2", 5]),
    },
    loras=[("x", 0.9, 0.8)],
)
case(
    "eff hires script",
    {
        "1": LOADER,
        "9": node("LoRA Stacker", input_mode="simple", lora_count=0),
        "s": node(
            "HighRes-Fix Script",
            upscale_type="latent",
            hires_ckpt_name="(use same)",
            latent_upscaler="nearest-exact",
            pixel_upscaler="4x.pth",
            upscale_by=1.5,
            use_same_seed=True,
            seed=0,
            hires_steps=12,
            denoise=0.5,
            iterations=1,
            use_controlnet=False,
        ),
        "2": efficient(script=["s", 0]),
        "3": node("SaveImage", images=["2", 5]),
    },
    hires={"upscale": 1.5, "steps": 12, "upscaler": "nearest-exact", "denoise": 0.5},
    loras=[],
)
case(
    "eff sdxl",
    {
        "1": node(
            "Eff. Loader SDXL",
            base_ckpt_name="base.safetensors",
            base_clip_skip=-2,
            refiner_ckpt_name="ref.safetensors",
            refiner_clip_skip=-2,
            positive_ascore=6,
            negative_ascore=2,
            vae_name="Baked VAE",
            positive="a cat",
            negative="bad",
            token_normalization="none",
            weight_interpretation="comfy",
            empty_latent_width=1024,
            empty_latent_height=1024,
            batch_size=1,
        ),
        "2": node(
            "KSampler SDXL (Eff.)",
            noise_seed=3,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            start_at_step=0,
            refine_at_step=16,
            preview_method="auto",
            vae_decode="true",
            sdxl_tuple=["1", 0],
            latent_image=["1", 1],
            optional_vae=["1", 2],
        ),
        "3": node("SaveImage", images=["2", 3]),
    },
    prompt="a cat",
    negative_prompt="bad",
    steps=20,
    seed=3,
    size=(1024, 1024),
    checkpoint=["base"],
    refiner=("ref", None, 0.8),
)
case(
    "power lora",
    simple(
        p=node(
            "Power Lora Loader (rgthree)",
            PowerLoraLoaderHeaderWidget={"type": "x"},
            lora_1={"on": True, "lora": "sub/one.safetensors", "strength": 0.8, "strengthTwo": 0.5},
            lora_2={"on": False, "lora": "off.safetensors", "strength": 1},
            lora_3={"on": True, "lora": "None", "strength": 1},
            **{"➕ Add Lora": ""},
            model=["ckpt", 0],
            clip=["ckpt", 1],
        ),
        run=run(model=["p", 0]),
    ),
    loras=[("sub/one", 0.8, 0.5)],
)
case(
    "rgthree stack",
    simple(
        p=node(
            "Lora Loader Stack (rgthree)",
            lora_01="a.safetensors",
            strength_01=0.5,
            lora_02="None",
            strength_02=1.0,
            lora_03="b.safetensors",
            strength_03=-0.3,
            lora_04="None",
            strength_04=1,
            model=["ckpt", 0],
            clip=["ckpt", 1],
        ),
        run=run(model=["p", 0]),
    ),
    loras=[("a", 0.5, None), ("b", -0.3, None)],
)
case(
    "zero weights",
    simple(
        p=node(
            "LoraLoader",
            lora_name="zero.safetensors",
            strength_model=0,
            strength_clip=0,
            model=["ckpt", 0],
            clip=["ckpt", 1],
        ),
        run=run(model=["p", 0]),
    ),
    loras=[("zero", 0.0, 0.0)],
)
case(
    "lora manager",
    simple(
        p=node(
            "Lora Loader (LoraManager)",
            text="<lora:x:0.8> <lora:y:0.5>",
            loras={
                "__value__": [
                    {"name": "x", "strength": 0.8, "active": True, "clipStrength": 0.7},
                    {"name": "y", "strength": "0.5", "active": False},
                ]
            },
            model=["ckpt", 0],
            clip=["ckpt", 1],
        ),
        run=run(model=["p", 0]),
    ),
    loras=[("x", 0.8, 0.7)],
)
case(
    "lora tag loader",
    simple(
        p=node("LoraTagLoader", text="a cat <lora:x:0.8>", model=["ckpt", 0], clip=["ckpt", 1]), run=run(model=["p", 0])
    ),
    loras=[("x", 0.8, None)],
)
case(
    "easy lora stack",
    simple(
        p=node(
            "easy loraStack",
            toggle=True,
            mode="simple",
            num_loras=2,
            lora_1_name="a.safetensors",
            lora_1_strength=0.5,
            lora_1_model_strength=1,
            lora_1_clip_strength=1,
            lora_2_name="b.safetensors",
            lora_2_strength=0.6,
        ),
        ap=node("CR Apply LoRA Stack", model=["ckpt", 0], clip=["ckpt", 1], lora_stack=["p", 0]),
        run=run(model=["ap", 0]),
    ),
    loras=[("a", 0.5, None), ("b", 0.6, None)],
)
case(
    "ttN pipe",
    {
        "1": node(
            "ttN pipeLoader",
            ckpt_name="base.safetensors",
            vae_name="Baked VAE",
            clip_skip=-1,
            lora1_name="x.safetensors",
            lora1_model_strength=0.6,
            lora1_clip_strength=0.5,
            lora2_name="None",
            positive="a cat",
            negative="bad",
            empty_latent_width=512,
            empty_latent_height=640,
            seed=4,
        ),
        "2": node(
            "ttN pipeKSampler",
            pipe=["1", 0],
            lora_name="None",
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            image_output="Save",
            seed=4,
            upscale_method="None",
            factor=2,
        ),
    },
    prompt="a cat",
    negative_prompt="bad",
    steps=20,
    seed=4,
    size=(512, 640),
    loras=[("x", 0.6, 0.5)],
    clip_skip=1,
)
case(
    "impact basic pipe",
    simple(
        bp=node(
            "ToBasicPipe",
            model=["ckpt", 0],
            clip=["ckpt", 1],
            vae=["ckpt", 2],
            positive=["pos", 0],
            negative=["neg", 0],
        ),
        run=node(
            "ImpactKSamplerBasicPipe",
            basic_pipe=["bp", 0],
            seed=5,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            latent_image=["size", 0],
            denoise=1.0,
        ),
        img=node("VAEDecode", samples=["run", 1], vae=["run", 2]),
    ),
    prompt="a cat",
    negative_prompt="blurry",
    seed=5,
    checkpoint=["base"],
    size=(512, 768),
)
case(
    "impact advanced",
    simple(
        bp=node(
            "ToBasicPipe",
            model=["ckpt", 0],
            clip=["ckpt", 1],
            vae=["ckpt", 2],
            positive=["pos", 0],
            negative=["neg", 0],
        ),
        run=node(
            "ImpactKSamplerAdvancedBasicPipe",
            basic_pipe=["bp", 0],
            add_noise=True,
            noise_seed=5,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            latent_image=["size", 0],
            start_at_step=0,
            end_at_step=10000,
            return_with_leftover_noise=False,
        ),
        img=node("VAEDecode", samples=["run", 1], vae=["run", 2]),
    ),
    prompt="a cat",
    seed=5,
)
case(
    "detailer pipe",
    simple(
        td=node(
            "ToDetailerPipe",
            model=["ckpt", 0],
            clip=["ckpt", 1],
            vae=["ckpt", 2],
            positive=["pos", 0],
            negative=["neg", 0],
            bbox_detector=["b", 0],
        ),
        b=node("UltralyticsDetectorProvider", model_name="x.pt"),
        f=node(
            "FaceDetailerPipe",
            image=["img", 0],
            detailer_pipe=["td", 0],
            guide_size=512,
            seed=9,
            steps=15,
            cfg=6,
            sampler_name="euler",
            scheduler="normal",
            denoise=0.4,
        ),
        save=node("SaveImage", images=["f", 0]),
    ),
    seed=5,
    steps=20,
)
case(
    "only detailer",
    {
        k: v
        for k, v in simple(
            li=node("LoadImage", image="x.png"),
            f=node(
                "FaceDetailer",
                image=["li", 0],
                model=["ckpt", 0],
                clip=["ckpt", 1],
                vae=["ckpt", 2],
                positive=["pos", 0],
                negative=["neg", 0],
                bbox_detector=["b", 0],
                seed=9,
                steps=15,
                cfg=6,
                sampler_name="euler",
                scheduler="normal",
                denoise=0.4,
            ),
            b=node("UltralyticsDetectorProvider", model_name="x.pt"),
            save=node("SaveImage", images=["f", 0]),
        ).items()
        if k not in ("run", "img", "size")
    },
    seed=9,
    steps=15,
    prompt="a cat",
    checkpoint=["base"],
    denoise=0.4,
)
case(
    "tiled ksampler",
    simple(
        run=node(
            "BNK_TiledKSampler",
            seed=5,
            tile_width=512,
            tile_height=512,
            tiling_strategy="random",
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["ckpt", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            latent_image=["size", 0],
        )
    ),
    seed=5,
)
case(
    "inspire ksampler",
    simple(
        run=node(
            "KSampler //Inspire",
            seed=5,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="align_your_steps",
            denoise=1.0,
            noise_mode="CPU",
            batch_seed_mode="incremental",
            variation_seed=3,
            variation_strength=0.1,
            model=["ckpt", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            latent_image=["size", 0],
        )
    ),
    seed=5,
    schedule="align_your_steps",
    subseed=3,
    subseed_strength=0.1,
)
case(
    "xlabs",
    {
        "u": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="fp8"),
        "lo": node("FluxLoraLoader", lora_name="x.safetensors", strength_model=0.8, model=["u", 0]),
        "c": node("DualCLIPLoader", clip_name1="a", clip_name2="b", type="flux"),
        "p": node("CLIPTextEncodeFlux", clip_l="fox", t5xxl="fox", guidance=4, clip=["c", 0]),
        "n": node("CLIPTextEncodeFlux", clip_l="", t5xxl="", guidance=4, clip=["c", 0]),
        "l": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
        "s": node(
            "XlabsSampler",
            noise_seed=3,
            steps=20,
            timestep_to_start_cfg=1,
            true_gs=3.5,
            image_to_image_strength=0,
            denoise_strength=1.0,
            model=["lo", 0],
            conditioning=["p", 0],
            neg_conditioning=["n", 0],
            latent_image=["l", 0],
        ),
        "d": node("VAEDecode", samples=["s", 0], vae=["v", 0]),
        "v": node("VAELoader", vae_name="ae.sft"),
        "o": node("SaveImage", images=["d", 0]),
    },
    prompt="fox",
    negative_prompt="",
    seed=3,
    loras=[("x", 0.8, None)],
    distilled_cfg=4.0,
)
case(
    "sdxl sampler ksampler adv (Advanced) string denoise",
    simple(run=run(seed="5", steps="20", cfg="7.0")),
    seed=5,
    steps=20,
    cfg_scale=7.0,
)
case(
    "cr lora stack/multi",
    simple(
        p=node(
            "CR LoRA Stack",
            switch_1="On",
            lora_name_1="a.safetensors",
            model_weight_1=0.5,
            clip_weight_1=0.4,
            switch_2="Off",
            lora_name_2="b.safetensors",
            model_weight_2=1,
            clip_weight_2=1,
            switch_3="On",
            lora_name_3="None",
            model_weight_3=1,
            clip_weight_3=1,
        ),
        q=node(
            "CR LoRA Stack",
            switch_1="On",
            lora_name_1="c.safetensors",
            model_weight_1=0.3,
            clip_weight_1=0.3,
            switch_2="Off",
            lora_name_2="None",
            switch_3="Off",
            lora_name_3="None",
            lora_stack=["p", 0],
        ),
        ap=node("CR Apply LoRA Stack", model=["ckpt", 0], clip=["ckpt", 1], lora_stack=["q", 0]),
        run=run(model=["ap", 0]),
    ),
    loras=[("a", 0.5, 0.4), ("c", 0.3, 0.3)],
)
case(
    "prompt list",
    simple(
        pl=node("easy promptList", prompt_1="fox", prompt_2="", prompt_3=""),
        pos=node("CLIPTextEncode", text=["pl", 0], clip=["ckpt", 1]),
    ),
    prompt="fox",
)
case(
    "searge",
    {
        "1": node("SeargePromptText", prompt="fox"),
        "2": node("SeargePromptText", prompt="bad"),
        "c": node("CheckpointLoaderSimple", ckpt_name="base.safetensors"),
        "p": node(
            "SeargeSDXLPromptEncoder",
            pos_g=["1", 0],
            pos_l=["1", 0],
            pos_r="",
            neg_g=["2", 0],
            neg_l="",
            neg_r="",
            base_width=4096,
            base_height=4096,
            base_clip=["c", 1],
            refiner_clip=["c", 1],
        ),
        "k": node(
            "SeargeSDXLSampler",
            base_model=["c", 0],
            base_positive=["p", 0],
            base_negative=["p", 1],
            latent_image=["l", 0],
            refiner_model=["c", 0],
            noise_seed=3,
            steps=20,
            cfg=7,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            base_ratio=0.8,
            denoise=1.0,
        ),
        "l": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
        "d": node("VAEDecode", samples=["k", 0], vae=["c", 2]),
        "s": node("SaveImage", images=["d", 0]),
    },
    prompt="fox",
    negative_prompt="bad",
    seed=3,
    steps=20,
    checkpoint=["base"],
    size=(1024, 1024),
)
case(
    "swarm graph",
    simple(
        size=node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
        pos=node(
            "SwarmClipTextEncodeAdvanced",
            prompt="a cat",
            steps=20,
            width=1024,
            height=1024,
            target_width=1024,
            target_height=1024,
            clip=["ckpt", 1],
        ),
        run=node(
            "SwarmKSampler",
            noise_seed=5,
            steps=20,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            start_at_step=0,
            end_at_step=10000,
            add_noise="enable",
            return_with_leftover_noise="disable",
            control_after_generate="fixed",
            var_seed=0,
            var_seed_strength=0,
            model=["ckpt", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            latent_image=["size", 0],
        ),
        save=node("SwarmSaveImageWS", images=["img", 0]),
    ),
    prompt="a cat",
    seed=5,
    steps=20,
)
case(
    "rgthree any switch + display",
    simple(sw=node("Any Switch (rgthree)", any_01=["x", 0], any_02=["size", 0]), run=run(latent_image=["sw", 0])),
    size=(512, 768),
)
case(
    "ipadapter",
    simple(
        il=node("IPAdapterModelLoader", ipadapter_file="ip.safetensors"),
        ip=node("IPAdapterAdvanced", weight=0.7, model=["ckpt", 0], ipadapter=["il", 0], image=["im", 0]),
        im=node("LoadImage", image="x.png"),
        run=run(model=["ip", 0]),
    ),
    checkpoint=["base"],
)
case(
    "adetailer chain noise injection",
    simple(
        ln=node("LatentBlend", samples1=["run", 0], samples2=["size", 0], blend_factor=0.5),
        img=node("VAEDecode", samples=["ln", 0], vae=["ckpt", 2]),
    ),
    seed=5,
)
case(
    "krita like unified",
    simple(
        pos=node(
            "CLIPTextEncodeSDXL",
            text_g="fox",
            text_l="snow",
            width=1,
            height=1,
            crop_w=0,
            crop_h=0,
            target_width=1,
            target_height=1,
            clip=["ckpt", 1],
        )
    ),
    prompt="fox\nsnow",
)
case(
    "smZ",
    simple(
        pos=node(
            "smZ CLIPTextEncode",
            text="fox",
            parser="A1111",
            mean_normalization=True,
            multi_conditioning=True,
            use_old_emphasis_implementation=False,
            with_SDXL=False,
            ascore=6,
            width=1024,
            height=1024,
            crop_w=0,
            crop_h=0,
            target_width=1024,
            target_height=1024,
            text_g="",
            text_l="",
            smZ_steps=1,
            clip=["ckpt", 1],
        )
    ),
    prompt="fox",
)
case(
    "BNK adv",
    simple(
        pos=node(
            "BNK_CLIPTextEncodeAdvanced",
            text="fox",
            token_normalization="none",
            weight_interpretation="A1111",
            clip=["ckpt", 1],
        )
    ),
    prompt="fox",
)
case(
    "qwen edit plus",
    simple(
        pos=node(
            "TextEncodeQwenImageEditPlus", prompt="make it snow", clip=["ckpt", 1], vae=["ckpt", 2], image1=["im", 0]
        ),
        neg=node("TextEncodeQwenImageEditPlus", prompt="", clip=["ckpt", 1], vae=["ckpt", 2], image1=["im", 0]),
        im=node("LoadImage", image="x.png"),
    ),
    prompt="make it snow",
    negative_prompt="",
)
case(
    "cfg norm/lightning chain",
    simple(
        a=node("ModelSamplingAuraFlow", shift=3.1, model=["lo", 0]),
        b=node("CFGNorm", strength=1, model=["a", 0]),
        lo=node("LoraLoaderModelOnly", lora_name="lightning.safetensors", strength_model=1.0, model=["ckpt", 0]),
        run=run(model=["b", 0]),
    ),
    loras=[("lightning", 1.0, None)],
    checkpoint=["base"],
)
case(
    "torch compile / sage",
    simple(
        a=node("PathchSageAttentionKJ", sage_attention="auto", model=["ckpt", 0]),
        b=node("TorchCompileModel", backend="inductor", model=["a", 0]),
        c=node("ApplyFBCacheOnModel", object_to_patch="diffusion_model", model=["b", 0]),
        run=run(model=["c", 0]),
    ),
    checkpoint=["base"],
)
case(
    "freeu/pag",
    simple(
        a=node("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2, model=["ckpt", 0]),
        b=node("PerturbedAttentionGuidance", scale=3, model=["a", 0]),
        run=run(model=["b", 0]),
    ),
    checkpoint=["base"],
)
case(
    "wan lora select multi",
    {
        "m": node("WanVideoModelLoader", model="wan.safetensors", base_precision="bf16", lora=["l", 0]),
        "l": node(
            "WanVideoLoraSelectMulti",
            lora_0="a.safetensors",
            strength_0=0.5,
            lora_1="b.safetensors",
            strength_1=0.6,
            lora_2="none",
            strength_2=1,
        ),
        "t": node("WanVideoTextEncode", positive_prompt="pp", negative_prompt="nn", t5=["t5", 0]),
        "t5": node("LoadWanVideoT5TextEncoder", model_name="umt5.safetensors"),
        "e": node("WanVideoEmptyEmbeds", width=832, height=480, num_frames=81),
        "k": node(
            "WanVideoSampler",
            steps=20,
            cfg=6,
            shift=5,
            seed=3,
            scheduler="unipc",
            model=["m", 0],
            text_embeds=["t", 0],
            image_embeds=["e", 0],
        ),
        "d": node("WanVideoDecode", vae=["v", 0], samples=["k", 0]),
        "v": node("WanVideoVAELoader", model_name="wanvae.safetensors"),
        "s": node("VHS_VideoCombine", images=["d", 0]),
    },
    loras=[("a", 0.5, None), ("b", 0.6, None)],
    prompt="pp",
)
case(
    "control lora",
    simple(
        cl=node("ControlNetLoader", control_net_name="canny.safetensors"),
        ty=node("SetUnionControlNetType", type="canny", control_net=["cl", 0]),
        cn=node(
            "ControlNetApplyAdvanced",
            positive=["pos", 0],
            negative=["neg", 0],
            control_net=["ty", 0],
            image=["im", 0],
            strength=0.6,
            start_percent=0,
            end_percent=0.8,
            vae=["ckpt", 2],
        ),
        im=node("LoadImage", image="x.png"),
        run=run(positive=["cn", 0], negative=["cn", 1]),
    ),
    controls=[("canny", 0.6)],
    prompt="a cat",
    negative_prompt="blurry",
)
case(
    "two controlnets",
    simple(
        c1=node("ControlNetLoader", control_net_name="canny.safetensors"),
        c2=node("ControlNetLoader", control_net_name="pose.safetensors"),
        a1=node("ControlNetApply", conditioning=["pos", 0], control_net=["c1", 0], image=["im", 0], strength=0.6),
        a2=node("ControlNetApply", conditioning=["a1", 0], control_net=["c2", 0], image=["im", 0], strength=0.4),
        im=node("LoadImage", image="x.png"),
        run=run(positive=["a2", 0]),
    ),
    controls=[("pose", 0.4), ("canny", 0.6)],
)
case(
    "image resize+ chain 2nd pass",
    simple(
        rs=node("ImageResize+", width=1024, height=1536, interpolation="lanczos", method="stretch", image=["img", 0]),
        en=node("VAEEncode", pixels=["rs", 0], vae=["ckpt", 2]),
        k2=run(seed=6, steps=10, denoise=0.4, latent_image=["en", 0]),
        d2=node("VAEDecode", samples=["k2", 0], vae=["ckpt", 2]),
        save=node("SaveImage", images=["d2", 0]),
    ),
    hires={"upscale": 2.0, "width": 1024, "height": 1536, "steps": 10, "denoise": 0.4},
    size=(512, 768),
)
case(
    "nn latent upscale",
    simple(
        u=node("NNLatentUpscale", version="SDXL", upscale=1.5, latent=["run", 0]),
        k2=run(seed=6, steps=10, denoise=0.4, latent_image=["u", 0]),
        d2=node("VAEDecode", samples=["k2", 0], vae=["ckpt", 2]),
        save=node("SaveImage", images=["d2", 0]),
    ),
    hires={"upscale": 1.5, "steps": 10, "denoise": 0.4},
)
case(
    "iterative upscale",
    simple(
        pv=node(
            "PixelKSampleUpscalerProvider",
            scale_method="lanczos",
            model=["ckpt", 0],
            vae=["ckpt", 2],
            seed=7,
            steps=12,
            cfg=7,
            sampler_name="euler",
            scheduler="normal",
            positive=["pos", 0],
            negative=["neg", 0],
            denoise=0.4,
            use_tiled_vae=False,
        ),
        iu=node(
            "IterativeLatentUpscale",
            samples=["run", 0],
            upscale_factor=1.5,
            steps=3,
            temp_prefix="",
            upscaler=["pv", 0],
        ),
        img=node("VAEDecode", samples=["iu", 0], vae=["ckpt", 2]),
    ),
    seed=5,
    steps=20,
)
# fmt: on


@pytest.mark.parametrize(("graph", "wanted"), GRAPHS)
def test_graphs(graph: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert differences(json.dumps(graph), wanted) == {}

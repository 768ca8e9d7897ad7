"""What each program's metadata looks like in its versions and settings: every row is made up, none was recorded."""

# ruff: noqa: E501  # infotext is one line
from __future__ import annotations

from json import dumps
from typing import Any

import pytest

from hubctl import infotext
from hubctl.errors import NoParameters
from hubctl.infotext import Embedded
from hubctl.parameters import sampler_name
from tests.infotext.cases import differences, png, table

VARIANTS, case = table()
T = "a cat\nNegative prompt: blurry\n"
B = {"prompt": "a cat", "negative_prompt": "blurry"}

# fmt: off
# --- infotext ---------------------------------------------------------------------------------------------------------

case("1.10 all",
    T + 'Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 0123456789, Model: m_v1, VAE hash: abcdef0123, VAE: v.safetensors, Denoising strength: 0.4, Clip skip: 2, RNG: NV, Hires upscale: 2, Hires steps: 10, Hires upscaler: 4x-UltraSharp, Hires schedule type: Exponential, Hires sampler: Euler a, Hires checkpoint: other.safetensors [aabbccddee], TI hashes: "neg: c74b4e810b03", Version: v1.10.1-12-gabcdef01',
    **B, steps=20, sampler="dpmpp_2m", schedule="karras", cfg_scale=7.0, seed=1, size=(512, 768), checkpoint=["m_v1"],
    vae=["v"], clip_skip=2, rng="nv", denoise=0.4, hires={"upscale": 2.0, "steps": 10, "upscaler": "4x-UltraSharp",
    "denoise": 0.4, "sampler": "euler_ancestral", "schedule": "exponential",
    "checkpoint": "other"}, generator=("A1111", "v1.10.1-12-gabcdef01"), embeddings=["neg"])
case("var seed",
    T + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Variation seed: 5, Variation seed strength: 0.2, Seed resize from: 512x512, ENSD: 31337, Eta: 0.67, Version: v1.6.0",
    subseed=5, subseed_strength=0.2, ensd=31337, eta=0.67)
case("ancient",
    T + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Face restoration: CodeFormer, Size: 512x512, Model hash: 7460a6fa, Batch size: 4, Batch pos: 0, Hypernet: anime, Hypernet strength: 0.6, Denoising strength: 0.7, First pass size: 0x0",
    generator=("A1111", None), hypernetworks=["anime"], size=(512, 512))
case("img2img mask",
    T + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 7460a6fa12, Denoising strength: 0.75, Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32, Version: 1.7.0",
    denoise=0.75, hires=None, generator=("A1111", "1.7.0"))
case("refiner",
    T + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 1024x1024, Model: sd_xl_base, Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8, Version: v1.6.0",
    refiner=("sd_xl_refiner_1.0", "7440042bbd", 0.8))
case("no negative", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512", prompt="a cat",
    negative_prompt="")
case("empty prompt", "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512", prompt="",
    negative_prompt="")
case("only negative", "Negative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512",
    prompt="", negative_prompt="blurry")
case("stable-diffusion.cpp", T + "Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 42, Size: 512x768, Model: x.safetensors, RNG: cuda, Sampler: dpm++2m karras, Version: stable-diffusion.cpp",
    sampler="dpmpp_2m", schedule="karras", rng="nv", generator=("stable-diffusion.cpp", None), distilled_cfg=3.5,
    cfg_scale=7.0)
case("blank lines",
    "a cat\n\n\nin a hat\n\nNegative prompt: a,\n\nb\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512",
    prompt="a cat\n\n\nin a hat", negative_prompt="a,\n\nb")
case("negative with prompt words",
    "a cat\nNegative prompt: see Negative prompt: x\nSteps: 20, Sampler: Euler a, Seed: 1, Size: 512x512",
    prompt="a cat", negative_prompt="see Negative prompt: x")
case("ADetailer quoted",
    T + 'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, ADetailer model: face_yolov8n.pt, ADetailer prompt: "face, Steps: 12, Seed: 3\\nsecond", ADetailer negative prompt: "x: y", ADetailer confidence: 0.3, Version: v1.9.3',
    steps=20, seed=1, generator=("A1111", "v1.9.3"))
case("controlnet new",
    T + 'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, ControlNet 0: "Module: openpose_full, Model: control_v11p_sd15_openpose [cab727d4], Weight: 0.8, Resize Mode: Crop and Resize, Processor Res: 512, Threshold A: 0.5, Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: True, Control Mode: Balanced", ControlNet 1: "Module: none, Model: None, Weight: 1", Version: v1.8.0',
    controls=[("control_v11p_sd15_openpose", 0.8)])
case("regional prompter",
    T + 'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, RP Active: True, RP Divide mode: Matrix, RP Ratios: "1,1;2,1", RP Base Ratios: 0.2, RP Use Base: False, Version: v1.8.0',
    steps=20)
case("lora te",
    '<lora:a:0.5:0.8> <lora:b:1> <hypernet:h:0.3> <lora:c:0.7:lbw=OUTS>\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 0123456789ab, b: ba9876543210", Version: v1.8.0',
    loras=[("a", 0.8, 0.5), ("b", 1.0, None), ("c", 0.7, None)], hypernetworks=["h"])
case("lora with spaces & parens",
    '<lora:My LoRA (v2):0.65>\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "My LoRA (v2): 0123456789ab", Version: v1.8.0',
    loras=[("My LoRA (v2)", 0.65, None)], hashes={"My LoRA (v2)": "0123456789ab"})
case("lora in negative",
    "a\nNegative prompt: <lora:neg:0.4>\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.8.0",
    loras=[])
case("lora twice",
    "<lora:a:0.5> and <lora:a:0.3>\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.8.0",
    loras=[("a", 0.5, None)])
case("old quotes unescaped",
    T + 'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: "weird, name", Version: v1.8.0',
    checkpoint=["weird, name"])
case("CRLF", T.replace("\n", "\r\n") + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512\r\n", **B)
case("Restart etc",
    T + "Steps: 20, Sampler: Restart, Schedule type: Polyexponential, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.9.0",
    sampler="restart", schedule="polyexponential")
case("forge flux",
    T + "Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1, Size: 896x1152, Model hash: 0123456789, Model: flux1-dev-bnb-nf4-v2, Diffusion in Low Bits: Automatic (fp16 LoRA), Version: f2.0.1v1.10.1-previous-584-ga1b2c3d4, Module 1: ae, Module 2: clip_l, Module 3: t5xxl_fp8_e4m3fn",
    distilled_cfg=3.5, generator=("Forge", "f2.0.1v1.10.1-previous-584-ga1b2c3d4"), vae=["ae"], encoders=["clip_l",
    "t5xxl_fp8_e4m3fn"])
case("forge hires module",
    T + "Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1, Size: 896x1152, Model: x, Denoising strength: 0.3, Hires Module 1: Use same choices, Hires CFG Scale: 1, Hires Distilled CFG Scale: 3.5, Hires upscale: 1.5, Hires steps: 8, Hires upscaler: Latent, Version: f2.0.1v1.10.1-previous-584-ga1b2c3d4",
    hires={"upscale": 1.5, "steps": 8, "upscaler": "Latent", "denoise": 0.3, "cfg_scale": 1.0})
case("neo",
    T + "Steps: 9, Sampler: Euler, Schedule type: Beta, CFG scale: 1, Shift: 9, Seed: 1, Size: 896x1152, Model hash: 0123456789, Model: z_image_turbo, Module 1: ae, Module 2: qwen_3_4b, Version: neo-2.1",
    generator=("Forge Neo", "neo-2.1"), encoders=["qwen_3_4b"])
case("vae kl",
    T + "Steps: 9, Sampler: Euler, Seed: 1, Size: 896x1152, Model: z, Module 1: flux_vae, Module 2: Built-in, Version: f2.0.1",
    vae=["flux_vae"], encoders=[])
case("sdnext",
    T + 'Steps: 20, Size: 1024x1024, Sampler: DPM++ 2M, Seed: 1, CFG scale: 6, Clip skip: 2, App: SD.Next, Version: 1a2b3c4, Pipeline: StableDiffusionXLPipeline, UNet: my-unet, Operations: txt2img; hires, Model: m, Model hash: 0123456789, VAE: v1, Variation seed: 9, Variation strength: 0.3, Refine: True, HiRes mode: 1, Hires upscaler: ESRGAN 4x, Hires scale: 2.0, Hires size: 2048x2048, Hires force: True, Hires steps: 15, Hires strength: 0.35, Hires sampler: Euler a, Hires CFG scale: 5, Embeddings: "easyneg, bad"',
    subseed=9, subseed_strength=0.3, generator=("SD.Next", "1a2b3c4"), hires={"upscale": 2.0, "width": 2048, "height": 2048,
    "upscaler": "ESRGAN 4x", "steps": 15, "denoise": 0.35, "sampler": "euler_ancestral", "cfg_scale": 5.0},
    embeddings=["easyneg", "bad"], vae=["v1"])
case("sdnext default sampler",
    T + "Steps: 20, Size: 1024x1024, Seed: 1, CFG scale: 6.0, App: SD.Next, Version: 1a2b3c4, Pipeline: FluxPipeline, Operations: txt2img, Model: black-forest-labs/FLUX.1-dev",
    checkpoint=["black-forest-labs/FLUX.1-dev"], sampler=None)
case("vlad old",
    T + 'Steps: 20, Seed: 1, Sampler: Euler a, CFG scale: 6, Size: 512x512, Parser: Full parser, Model: m, Model hash: 0123456789, Backend: Diffusers, Version: 0a083c2, Operations: "txt2img", VAE: None',
    generator=("SD.Next", "0a083c2"), vae=[])
case("sdnext refiner",
    T + "Steps: 20, Size: 1024x1024, Sampler: Euler a, Seed: 1, CFG scale: 6, App: SD.Next, Version: 1a2b3c4, Operations: txt2img; refine, Model: m, Refine: True, Refiner: sd_xl_refiner_1.0, Hires CFG scale: 6, Refiner steps: 5, Refiner start: 0.8, Hires steps: 5, Hires sampler: Default",
    refiner=("sd_xl_refiner_1.0", None, 0.8))
case("civitai on-site",
    T + 'Steps: 25, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 832x1216, Clip skip: 2, Created Date: 2025-03-02T1004:05.1234567Z, Civitai resources: [{"type":"checkpoint","modelVersionId":290640,"modelName":"Some","modelVersionName":"V6"},{"type":"lora","weight":0.8,"modelVersionId":123456},{"type":"embed","weight":1,"modelVersionId":77},{"type":"vae","modelVersionId":88}], Civitai metadata: {"remixOfId":5}',
    generator=("Civitai", None), checkpoint=[290640], loras=[(123456, 0.8, None)], embeddings=[77], vae=[88], clip_skip=2)
case("civitai air",
    T + 'Steps: 25, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 832x1216, Created Date: 2025-03-02T1004:05.1234567Z, Civitai resources: [{"weight":1,"air":"urn:air:flux1:checkpoint:civitai:618692@691639"},{"weight":0.5,"air":"urn:air:flux1:lora:civitai:1@2"}], Civitai metadata: {}',
    generator=("Civitai", None), checkpoint=["urn:air:flux1:checkpoint:civitai:618692@691639"],
    loras=[("urn:air:flux1:lora:civitai:1@2", 0.5, None)])
case("civitai no steps (flux pro)",
    'a cat\nSeed: 42, Size: 832x1216, Created Date: 2025-03-02T1004:05.12Z, Civitai resources: [{"type":"checkpoint","modelVersionId":922358}], Civitai metadata: {}',
    prompt="a cat", seed=42, generator=("Civitai", None))
case("civitai engine only",
    'a cat\nCreated Date: 2025-03-02T1004:05.12Z, Civitai resources: [{"type":"checkpoint","modelVersionId":1733399}], Civitai metadata: {"engine":"openai"}',
    prompt="a cat", generator=("Civitai", None))
case("image saver",
    T + 'Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.0, Seed: 1, Size: 512x768, Clip skip: 2, Model hash: 0123456789, Model: m, Hashes: {"model":"0123456789","LORA:x":"aabbccddeeff","EMBED:neg":"ccddeeff0011"}, Version: ComfyUI',
    generator=("ComfyUI", None), loras=[("x", None, None)], embeddings=["neg"])
case("saver lora_0",
    T + "Steps: 25, Sampler: dpmpp_2m_karras, CFG scale: 7.0, Seed: 1, Size: 512x768, Model: m.safetensors, Model hash: 0123456789, VAE: ae.sft, Lora_0 Model name: x.safetensors, Lora_0 Model hash: aabbccddee, Lora_0 Strength model: 0.5, Lora_0 Strength clip: 0.4",
    generator=("ComfyUI", None), loras=[("x", 0.5, 0.4)])
case("saver embedding",
    T + "Steps: 25, Sampler: euler, CFG scale: 7.0, Seed: 1, Size: 512x768, Model: m.safetensors, Embedding_0 name: easyneg.pt, Embedding_0 hash: aabbccddee, Version: ComfyUI",
    generator=("ComfyUI", None), embeddings=["easyneg"])
case("SM",
    T + "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 0123456789, Model: m",
    generator=("A1111", None))
case("upper FULL",
    "Prompt: a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512",
    negative_prompt="blurry")
case("tab sep", "a cat\nNegative prompt:\tblurry\nSteps: 20,\tSampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512",
    negative_prompt="blurry", steps=20)
case("trailing text",
    "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512\nTime taken: 5.2 sec.",
    **B, steps=20)
case("size spaces", T + "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512 x 768", size=(512, 768))
case("cfg comma locale", T + "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 123456789012345678, Size: 512x768",
    seed=123456789012345678)

# --- objects ----------------------------------------------------------------------------------------------------------

NAI_1 = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 3, "strength": 0.69, "noise": 0.2, "scale": 11.0,
    "uc": "lowres"}
NAI_3 = {"prompt": "[[cat]], {{dog}}", "steps": 28, "height": 1216, "width": 832, "scale": 5.0, "uncond_scale": 1.0,
    "cfg_rescale": 0.0, "seed": 9, "n_samples": 1, "noise_schedule": "native", "legacy_v3_extend": False,
    "sampler": "k_dpmpp_2s_ancestral", "sm": True, "sm_dyn": False, "request_type": "PromptGenerateRequest",
    "uc": "bad", "signed_hash": "x"}
NAI_4 = {"prompt": "2girls", "steps": 28, "height": 1216, "width": 832, "scale": 5.0, "seed": 9,
    "noise_schedule": "karras", "sampler": "k_euler_ancestral", "uc": "bad", "skip_cfg_above_sigma": None,
    "v4_prompt": {"caption": {"base_caption": "2girls", "char_captions": [{"char_caption": "girl, red hair",
    "centers": [{"x": 0.5, "y": 0.5}]}, {"char_caption": "girl, {{blue}}", "centers": []}]}, "use_coords": False,
    "use_order": True}, "v4_negative_prompt": {"caption": {"base_caption": "bad",
    "char_captions": [{"char_caption": "", "centers": []}, {"char_caption": "hat", "centers": []}]},
    "legacy_uc": False}}
KEY = {"key": "aa", "hash": "blake3:7c1631b481e1566448f49db7e3b67a8a9d04742fa3c7d4548a0c81b619160c56", "name": "base",
    "base": "sdxl", "type": "main"}
INVOKE_5 = {"generation_mode": "sdxl_txt2img", "positive_prompt": "a cat", "negative_prompt": "bad", "width": 1024,
    "height": 1024, "seed": 5, "rand_device": "cpu", "cfg_scale": 7.5, "cfg_rescale_multiplier": 0, "steps": 30,
    "scheduler": "dpmpp_2m_k", "clip_skip": 0, "model": KEY, "vae": {**KEY, "name": "sdxl-vae"},
    "loras": [{"model": {**KEY, "name": "lo"}, "weight": 0.75}], "controlnets": [{"image": {"image_name": "x"},
    "control_model": {**KEY, "name": "canny"}, "control_weight": [0.5, 0.6], "begin_step_percent": 0}],
    "ipAdapters": [{"ip_adapter_model": {**KEY, "name": "ip"}, "weight": 0.6}],
    "t2iAdapters": [{"t2i_adapter_model": {**KEY, "name": "t2i"}, "weight": 1}], "app_version": "5.4.0",
    "refiner_model": {**KEY, "name": "ref"}, "refiner_start": 0.8, "strength": 0.6}
INVOKE_3 = {"app_version": "3.0.2", "generation_mode": "txt2img", "positive_prompt": "a", "negative_prompt": "b",
    "width": 512, "height": 512, "seed": 5, "rand_device": "cpu", "cfg_scale": 7.5, "steps": 30,
    "scheduler": "euler_k", "clip_skip": 1, "model": {"model_name": "sd15", "base_model": "sd-1",
    "model_type": "main"}, "controlnets": [], "loras": [{"lora": {"model_name": "lo", "base_model": "sd-1"},
    "weight": 0.5}], "vae": None}
INVOKE_FLUX = {"generation_mode": "flux_txt2img", "positive_prompt": "a cat", "width": 1024, "height": 768, "seed": 5,
    "steps": 30, "guidance": 4, "model": {**KEY, "name": "flux"}, "t5_encoder": {**KEY, "name": "t5"},
    "clip_embed_model": {**KEY, "name": "clip-vit"}, "vae": {**KEY, "name": "ae"}, "app_version": "5.7.0",
    "scheduler": "euler"}
FOOOCUS = {"adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernaut", "base_model_hash": "d91d35736d",
    "clip_skip": 2, "full_negative_prompt": ["a"], "full_prompt": ["x"], "guidance_scale": 4,
    "lora_combined_1": "offset : 0.1", "loras": [["offset", 0.1, "4852686128"], ["two", 0.5, "aabbccddee"]],
    "metadata_scheme": "fooocus", "negative_prompt": "bad", "performance": "Speed", "prompt": "a cat",
    "refiner_model": "None", "refiner_switch": 0.5, "resolution": "(1024, 768)", "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras", "seed": "123", "sharpness": 2, "steps": 30, "styles": "['Fooocus V2']",
    "vae": "Default (model)", "version": "Fooocus v2.5.0"}
RUINED = {"Prompt": "a cat", "Negative": "bad", "steps": 30, "cfg": 8, "width": 1024, "height": 768, "seed": 5,
    "sampler_name": "dpmpp_2m_sde_gpu", "scheduler": "karras", "base_model_name": "m.safetensors",
    "base_model_hash": "BEFC694A296F75E996488EBF9F9DB8A1493BD059B6E704B975829E87D5AEB4FA",
    "loras": [["AABB694A296F75E996488EBF9F9DB8A1493BD059B6E704B975829E87D5AEB4FA", "0.5 - my lora.safetensors"]],
    "start_step": 0, "denoise": None, "clip_skip": 1, "software": "RuinedFooocus"}
SWARM = {"sui_image_params": {"prompt": "a cat", "negativeprompt": "bad", "model": "SDXL/base", "images": 1,
    "steps": 20, "cfgscale": 7, "seed": 5, "width": 1024, "height": 768, "sampler": "dpmpp_2m", "scheduler": "karras",
    "loras": ["style/x", "y"], "loraweights": ["0.8", "1"], "lorasectionconfinement": ["0", "0"], "vae": "sdxl_vae",
    "clipstopatlayer": -2, "initimagecreativity": 0.6, "controlnetmodel": "cn/canny", "controlnetstrength": 0.7,
    "swarm_version": "0.9.4.0"}, "sui_extra_data": {"date": "2024-12-01", "generation_time": "1",
    "used_embeddings": ["emb/easyneg.safetensors"]}, "sui_models": [{"name": "SDXL/base.safetensors",
    "param": "model", "hash": "0x22d8cb95b807b0c242576b676a12b07ae6b782b57ae4fe07a07254801b2d5d61"},
    {"name": "style/x.safetensors", "param": "loras",
    "hash": "0x11d8cb95b807b0c242576b676a12b07ae6b782b57ae4fe07a07254801b2d5d61"}, {"name": "emb/easyneg.safetensors",
    "param": "used_embeddings", "hash": "0x33d8cb95b807b0c242576b676a12b07ae6b782b57ae4fe07a07254801b2d5d61"}]}
EASY = {"prompt": "a cat", "seed": 7, "used_random_seed": True, "negative_prompt": "bad", "num_outputs": 1,
    "num_inference_steps": 25, "guidance_scale": 7.5, "width": 512, "height": 768,
    "use_stable_diffusion_model": "sd-v1-5", "clip_skip": True, "use_vae_model": "vae-ft",
    "sampler_name": "dpmpp_2m", "use_lora_model": ["x", "y"], "lora_alpha": [0.5, 0.7],
    "use_embeddings_model": ["easyneg"], "use_controlnet_model": "canny", "prompt_strength": 0.6}
EASY_TEXT = "Prompt: a cat,\nsitting\nNegative Prompt: bad\nSeed: 7\nStable Diffusion model: sd-v1-5\nClip Skip: True\nVAE model: vae-ft\nSampler: euler_a\nWidth: 512\nHeight: 768\nSteps: 25\nGuidance Scale: 7.5\nLoRA model: x, y\nLoRA Strength: 0.5, 0.7\nEmbedding models: a, b\n"
DRAW_THINGS = {"c": "a cat", "uc": "bad", "model": "juggernaut_f16.ckpt", "sampler": "DPM++ 2M Karras", "scale": 7,
    "seed": 5, "seed_mode": "Scale Alike", "size": "768x1024", "steps": 30, "strength": 1,
    "lora": [{"model": "x_lora_f16.ckpt", "weight": 0.6}], "profile": {}, "v2": {"batchCount": 1, "clipSkip": 2,
    "hiresFix": True, "hiresFixStrength": 0.7, "hiresFixWidth": 512, "hiresFixHeight": 768,
    "refinerModel": "ref_f16.ckpt", "refinerStart": 0.85, "guidanceScale": 7, "upscaler": "realesrgan.ckpt",
    "controls": [{"file": "canny_f16.ckpt", "weight": 0.9}]}}

case("nai v1", png(Title="AI generated image", Description="a {cat}", Software="NovelAI",
    Source="Stable Diffusion 1D44365E", Comment=dumps(NAI_1)), prompt="a (cat:1.05)", negative_prompt="lowres", steps=28,
    sampler="euler_ancestral", cfg_scale=11.0, denoise=0.69, checkpoint=["Stable Diffusion 1D44365E"], generator=("NovelAI",
    None), size=(None, None))
case("nai v3", png(Description="x", Software="NovelAI", Source="Stable Diffusion XL C1E1DE52", Comment=dumps(NAI_3)),
    prompt="(cat:0.907), (dog:1.103)", sampler="dpmpp_2s_ancestral", schedule=None, size=(832, 1216), generator=("NovelAI",
    None))
case("nai v4", png(Software="NovelAI", Source="NovelAI Diffusion V4 37442FCA", Comment=dumps(NAI_4)),
    prompt="2girls | girl, red hair | girl, (blue:1.103)", negative_prompt="bad | hat", generator=("NovelAI", "V4"),
    schedule="karras")
case("nai NAI_4.5", png(Software="NovelAI", Source="NovelAI Diffusion V4.5 4BDE2A90", Comment=dumps({**NAI_4,
    "prompt": "1.5::cat::, -2::dog ::"})), prompt="1.5::cat::, -2::dog :: | girl, red hair | girl, (blue:1.103)",
    generator=("NovelAI", "V4.5"))
case("nai stealth", Embedded("png", {"stealth": dumps({"Description": "x", "Software": "NovelAI",
    "Source": "NovelAI Diffusion V4 37442FCA", "Generation time": "3", "Comment": dumps(NAI_4)})}), steps=28, generator=("NovelAI",
    "V4"))
case("nai exif", Embedded("webp", {"exif:UserComment": dumps({"Comment": dumps(NAI_4)}), "exif:Software": "NovelAI"}), steps=28)
case("nai bare comment json", dumps(NAI_4), steps=28, generator=("NovelAI", None))
case("nai ddim_v3", png(Software="NovelAI", Source="Stable Diffusion XL 9CC2F394", Comment=dumps({**NAI_3,
    "sampler": "ddim_v3", "noise_schedule": "exponential"})), sampler="ddim", schedule="exponential")
case("nai nai_smea", png(Software="NovelAI", Source="Stable Diffusion F1022D28", Comment=dumps({**NAI_3,
    "sampler": "nai_smea_dyn"})), sampler=None, sampler_label="nai_smea_dyn")
case("invoke 5", png(invokeai_metadata=dumps(INVOKE_5)), prompt="a cat", negative_prompt="bad", sampler="dpmpp_2m",
    schedule="karras", clip_skip=None, vae=["sdxl-vae"], loras=[("lo", 0.75, None)], controls=[("canny", 0.5), ("t2i",
    1.0)], generator=("InvokeAI", "5.4.0"), rng="cpu", refiner=("ref",
    "7c1631b481e1566448f49db7e3b67a8a9d04742fa3c7d4548a0c81b619160c56", 0.8), denoise=0.6)
case("invoke 3", png(invokeai_metadata=dumps(INVOKE_3)), sampler="euler", schedule="karras", clip_skip=2, checkpoint=["sd15"],
    loras=[("lo", 0.5, None)], generator=("InvokeAI", "3.0.2"))
case("invoke flux", png(invokeai_metadata=dumps(INVOKE_FLUX)), distilled_cfg=4.0, encoders=["t5", "clip-vit"], vae=["ae"],
    cfg_scale=None)
case("invoke ref_images", png(invokeai_metadata=dumps({**INVOKE_5, "ref_images": [{"config": {"type": "ip_adapter",
    "model": {**KEY, "name": "ipx"}, "weight": 0.7}}]})), steps=30)
case("invoke sd-metadata", png(**{"sd-metadata": dumps({"model": "stable diffusion", "model_weights": "sd15",
    "model_hash": "cc6cb27103", "app_id": "invoke-ai/InvokeAI", "app_version": "2.2.4",
    "image": {"prompt": [{"prompt": "a cat [bad]", "weight": 1}], "steps": 20, "cfg_scale": 7.5, "threshold": 0,
    "perlin": 0, "height": 512, "width": 640, "seed": 7, "seamless": False, "hires_fix": False, "type": "txt2img",
    "postprocessing": None, "sampler": "k_euler_a", "variations": []}}),
    "Dream": '"a cat [bad]" -s 20 -S 7 -W 640 -H 512 -C 7.5 -A k_euler_a'}), prompt="a cat", negative_prompt="bad",
    size=(640, 512), sampler="euler_ancestral", checkpoint=["sd15"], hashes={"sd15": "cc6cb27103"}, generator=("InvokeAI",
    "2.2.4"))
case("dream img2img",
    png(Dream='"a cat with \\"hat\\" [bad, worse]" -s 30 -S 99 -W 512 -H 704 -C 7.5 -I foo.png -f 0.6 -A ddim'),
    prompt='a cat with "hat"', negative_prompt="bad, worse", steps=30, denoise=0.6, size=(512, 704), sampler="ddim")
case("dream unquoted", png(Dream="a cat -s50 -S1 -W512 -H512 -C7.5 -Ak_lms"), prompt="a cat", steps=50)
case("fooocus json", png(parameters=dumps(FOOOCUS), fooocus_scheme="fooocus"), prompt="a cat", negative_prompt="bad",
    loras=[("offset", 0.1, None), ("two", 0.5, None)], size=(1024, 768), sampler="dpmpp_2m_sde", schedule="karras",
    seed=123, clip_skip=2, refiner=None, vae=[], generator=("Fooocus", "v2.5.0"))
case("fooocus exif", Embedded("jpeg", {"exif:UserComment": dumps(FOOOCUS), "exif:Software": "Fooocus v2.5.0",
    "exif:MakerNote": "fooocus"}), steps=30)
case("fooocus enabled form", dumps({"Prompt": "a", "Negative Prompt": "b", "Steps": 30, "Resolution": "(896, 1152)",
    "Guidance Scale": 4, "Base Model": "m.safetensors", "Sampler": "dpmpp_2m_sde_gpu", "Scheduler": "karras",
    "Seed": "5", "LoRA 1": "True : x.safetensors : 0.5", "LoRA 2": "False : off.safetensors : 1.0",
    "Version": "Fooocus v2.4.0"}), loras=[("x", 0.5, None)])
case("fooocus log resolution tuple w/ list", dumps({**FOOOCUS, "resolution": [1024, 768]}), size=(1024, 768))
case("fooocus log html text", dumps({"Prompt": "a", "Negative Prompt": "b", "Fooocus V2 Expansion": "", "Styles": "[]",
    "Performance": "Speed", "Resolution": "(896, 1152)", "Sharpness": 2, "Guidance Scale": 4.0,
    "ADM Guidance": "(1.5,0.8,0.3)", "Base Model": "m.safetensors", "Refiner Model": "r.safetensors",
    "Refiner Switch": 0.5, "Sampler": "euler", "Scheduler": "normal", "Seed": 77,
    "LoRA [sd_xl_offset.safetensors] weight": 0.5, "Version": "v2.1.60"}), refiner=("r", None, 0.5),
    loras=[("sd_xl_offset", 0.5, None)], generator=("Fooocus", "v2.1.60"))
case("ruined", png(parameters=dumps(RUINED)), prompt="a cat", loras=[("my lora", 0.5, None)],
    hashes={"m": "befc694a296f75e996488ebf9f9db8a1493bd059b6e704b975829e87d5aeb4fa",
    "my lora": "aabb694a296f75e996488ebf9f9db8a1493bd059b6e704b975829e87d5aeb4fa"}, generator=("RuinedFooocus", None))
case("ruined old", png(parameters=dumps({**RUINED, "loras": [["x.safetensors", 0.4]]})), loras=[("x", 0.4, None)])
case("ruined str", png(parameters=dumps({**RUINED, "loras": [["aabb694a29", "0.5 - my - lora.safetensors"]]})),
    loras=[("my - lora", 0.5, None)])
case("swarm", png(parameters=dumps(SWARM)), loras=[("style/x", 0.8, None), ("y", 1.0, None)], clip_skip=2, denoise=0.6,
    controls=[("cn/canny", 0.7)], vae=["sdxl_vae"], embeddings=["emb/easyneg"], generator=("SwarmUI", "0.9.4.0"),
    checkpoint=["SDXL/base"])
case("swarm old", png(parameters=dumps({"sui_image_params": {"prompt": "a", "model": "base", "seed": 1, "steps": 20,
    "cfgscale": 7, "aspectratio": "Custom", "rawresolution": "896x1152", "autowebuisampler": "Euler a",
    "loras": "x,y", "loraweights": "0.5,1", "swarm_version": "0.6.1.0"}})), size=(896, 1152),
    sampler="euler_ancestral", loras=[("x", 0.5, None), ("y", 1.0, None)])
case("swarm refiner only", png(parameters=dumps({"sui_image_params": {"prompt": "a", "model": "base", "seed": 1,
    "steps": 20, "cfgscale": 7, "width": 1024, "height": 1024, "refinermodel": "ref", "refinercontrolpercentage": 0.2,
    "refinermethod": "StepSwap", "refinerupscale": 1}})), refiner=("ref", None, 0.8), hires=None)
case("swarm INVOKE_FLUX te", png(parameters=dumps({"sui_image_params": {"prompt": "a", "model": "flux", "seed": 1, "steps": 20,
    "cfgscale": 1, "width": 1024, "height": 1024, "fluxguidancescale": 3.5, "t5xxlmodel": "t5", "cliplmodel": "cl",
    "vae": "ae"}})), encoders=["t5", "cl"], distilled_cfg=3.5)
case("swarm seed str", png(parameters=dumps({"sui_image_params": {"prompt": "a", "model": "flux", "seed": "1",
    "steps": "20", "cfgscale": "1", "width": "1024", "height": "1024"}})), seed=1, steps=20, size=(1024, 1024))
case("ed json", dumps(EASY), steps=25, loras=[("x", 0.5, None), ("y", 0.7, None)], embeddings=["easyneg"], controls=[("canny", None)],
    denoise=0.6, clip_skip=2, generator=("Easy Diffusion", None))
case("ed embed", png(**{k: str(x) for k, x in EASY.items()}), steps=25, loras=[("x", 0.5, None), ("y", 0.7, None)],
    embeddings=["easyneg"])
case("ed txt", EASY_TEXT, prompt="a cat,\nsitting", negative_prompt="bad", steps=25, clip_skip=2, loras=[("x", 0.5, None),
    ("y", 0.7, None)], embeddings=["a", "b"], generator=("Easy Diffusion", None), sampler="euler_ancestral", size=(512, 768))
case("ed jpeg", Embedded("jpeg", {"exif:UserComment": dumps(EASY)}), steps=25)
case("ed labels png", png(**{"Prompt": "a cat", "Seed": "7", "Stable Diffusion model": "sd-v1-5", "Steps": "25",
    "Guidance Scale": "7.5", "Sampler": "ddim", "Width": "512", "Height": "512"}), steps=25, sampler="ddim")
case("ed task file", dumps({"numOutputsTotal": 1, "seed": 7, "reqBody": EASY}), steps=25)
case("dt", png(**{"xmp:UserComment": dumps(DRAW_THINGS), "xmp:CreatorTool": "Draw Things"}), prompt="a cat", clip_skip=2,
    refiner=("ref_f16", None, 0.85), loras=[("x_lora_f16", 0.6, None)], size=(768, 1024), sampler="dpmpp_2m",
    schedule="karras", generator=("Draw Things", None), controls=[("canny_f16", 0.9)])
case("tensorart", png(generation_data=dumps({"prompt": "a", "negativePrompt": "b", "width": 768, "height": 1152,
    "steps": 25, "cfgScale": 7, "seed": "123", "samplerName": "DPM++ 2M Karras", "baseModel": {"label": "x",
    "modelId": "1", "modelFileName": "m", "hash": "AABBCCDDEE"}, "models": [{"label": "l", "modelFileName": "lo",
    "weight": 0.8, "type": "LORA", "hash": "1122334455"}], "sdVae": "Automatic", "clipSkip": 2}) + "\x00"), seed=123,
    loras=[("lo", 0.8, None)], clip_skip=2, sampler="dpmpp_2m")
# fmt: on


@pytest.mark.parametrize(("source", "wanted"), VARIANTS)
def test_variants(source: Embedded | str, wanted: dict[str, Any]) -> None:
    assert differences(dumps(source) if isinstance(source, dict) else source, wanted) == {}


@pytest.mark.parametrize(
    ("label", "sampler", "schedule"),
    [
        ("DPM++ 2M SDE Heun Karras", "dpmpp_2m_sde_heun", "karras"),
        ("DPM++ 3M SDE Exponential", "dpmpp_3m_sde", "exponential"),
        ("DPM2 a Karras", "dpm_2_ancestral", "karras"),
        ("LMS Karras", "lms", "karras"),
        ("DPM++ 2S a Karras", "dpmpp_2s_ancestral", "karras"),
        ("DPM adaptive", "dpm_adaptive", None),
        ("PLMS", "plms", None),
        ("UniPC", "uni_pc", None),
        ("DDIM CFG++", "ddim_cfgpp", None),
        ("Euler SGMUniform", "euler", "sgm_uniform"),
        ("DPM++ 2M Turbo", "dpmpp_2m", "turbo"),
        ("[Forge] Flux Realistic", None, None),
        ("Euler Negative", None, None),
        ("Euler Dy", None, None),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde", "karras"),
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("k_euler_a", "euler_ancestral", None),
        ("Euler a", "euler_ancestral", None),
        ("euler_ancestral_karras", "euler_ancestral", "karras"),
        ("dpmpp_2m_sde_gpu_karras", "dpmpp_2m_sde", "karras"),
        ("dpmpp_sde_gpu", "dpmpp_sde", None),
        ("DPM2 Karras", "dpm_2", "karras"),
        ("DPM++ 1S", None, None),
        ("LCM Karras", "lcm", "karras"),
        ("DDPM", "ddpm", None),
        ("Euler FlowMatch", "euler", None),
        ("DPM++ 2M EDM", "dpmpp_2m", None),
        ("Default", None, None),
        ("UniPC FlowMatch", "uni_pc", None),
        ("res_multistep", "res_multistep", None),
        ("er_sde", "er_sde", None),
        ("DPM++ SDE Trailing", "dpmpp_sde", "sgm_uniform"),
        ("Euler A AYS", "euler_ancestral", "align_your_steps"),
        ("Euler A Trailing", "euler_ancestral", "sgm_uniform"),
        ("DDIM Trailing", "ddim", "sgm_uniform"),
        ("unipc_tu_2", "uni_pc", None),
        ("DPM-Solver++", "dpmpp_2m", None),
        ("dpm++2s_a", "dpmpp_2s_ancestral", None),
        ("DPM++ 2S Ancestral Karras", "dpmpp_2s_ancestral", "karras"),
    ],
)
def test_sampler_labels(label: str, sampler: str | None, schedule: str | None) -> None:
    assert sampler_name(label) == (sampler, schedule)


@pytest.mark.parametrize(
    "texts",
    [
        {"Description": "a cat in space --ar 3:2 --v 6.1 Job ID: 12345678-aaaa-bbbb-cccc-1234567890ab"},  # Midjourney
        {"Software": "OpenAI"},
        {"exif:Software": "Adobe Photoshop 25.0", "xmp:CreatorTool": "Adobe Photoshop"},
        {"invokeai_graph": dumps({"id": "x", "nodes": {"a": {"type": "denoise_latents", "steps": 30}}, "edges": []})},
    ],
)
def test_pictures_that_do_not_say(texts: dict[str, str]) -> None:
    with pytest.raises(NoParameters):
        infotext.parse(Embedded("png", texts))

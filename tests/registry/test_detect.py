"""What a model file is, from names and shapes: recorded headers, headers of every layout we know of, and lies."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import detect
from registry.errors import VerificationFailed
from registry.header import Header, Tensor

Shapes = dict[str, tuple[int, ...]]


def facts(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16", **metadata: Any) -> detect.FileFacts:
    tensors = {name: Tensor(dtype, tuple(shape)) for name, shape in shapes.items()}
    said = {key.replace("__", "."): value for key, value in metadata.items()}
    return detect.from_header(Header(tensors, said), size=0)


# --- recorded headers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "bench" / "headers.py"
    spec = importlib.util.spec_from_file_location("bench_headers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_known_field_of_every_recorded_header(shared: Path, bench: ModuleType) -> None:
    scores = bench.run(shared / "fixtures" / "safetensors-headers")
    assert not [miss for score in scores.values() for miss in score.misses]
    assert sum(score.known for score in scores.values()) > 400


def test_exceptions_still_exist(shared: Path, bench: ModuleType) -> None:
    recorded = {
        name: (read(), expected) for name, read, expected in bench.samples(shared / "fixtures" / "safetensors-headers")
    }
    for (name, field), reason in bench.EXCEPTIONS.items():
        assert reason
        assert bench.FIELDS[field](recorded[name][0]) != recorded[name][1][field]


def test_the_embedding_kept_whole_reads_like_its_header(shared: Path) -> None:
    folder = shared / "fixtures" / "safetensors-headers" / "invoke-ai-invokeai"
    whole = detect.inspect(folder / "test_embedding.safetensors")
    assert (whole.kind, whole.base_family, whole.details["vectors"]) == ("embedding", "sd1", 5)
    assert whole.bytes == 15440


def test_a_recorded_training_story(shared: Path) -> None:
    folder = shared / "fixtures" / "safetensors-headers"
    found = detect.inspect(folder / "civitai-civitai" / "kohya-sdxl-lora-pepper-carrot.header.json")
    assert found.base_model_guess == "Pony"  # by the hash of its base checkpoint
    assert found.tag_frequency["brown hair"] == 75
    assert list(found.tag_frequency.values()) == sorted(found.tag_frequency.values(), reverse=True)
    assert found.hashes.keys() <= {"sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"}
    assert found.touches["text_encoder"] is None  # no tensors listed: not known
    json.dumps(found.to_json())


# --- layers as each family and each library names them ----------------------------------------------------------------


def unet_ldm(context: int, *, channels: int = 4, vector: int = 0, deep: int = 1) -> Shapes:
    made: Shapes = {
        "input_blocks.0.0.weight": (320, channels, 3, 3),
        "time_embed.0.weight": (1280, 320),
        "input_blocks.1.0.in_layers.2.weight": (320, 320, 3, 3),
        "middle_block.1.norm.weight": (1280,),
    }
    for block in range(deep):
        at = f"input_blocks.4.1.transformer_blocks.{block}"
        made[f"{at}.attn1.to_k.weight"] = (640, 640)
        made[f"{at}.attn2.to_k.weight"] = (640, context)
    if vector:
        made["label_emb.0.0.weight"] = (1280, vector)
    return made


def below(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


VAE: Shapes = {
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
}
CLIP_L: Shapes = {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768)}
OPEN_CLIP: Shapes = {"cond_stage_model.model.token_embedding.weight": (49408, 1024)}
XL_TEXT: Shapes = {
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "conditioner.embedders.1.model.token_embedding.weight": (49408, 1280),
}
LDM = "model.diffusion_model."

FLUX: Shapes = {
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    "double_blocks.0.img_mlp.0.weight": (12288, 3072),
    "single_blocks.0.linear1.weight": (21504, 3072),
    "img_in.weight": (3072, 64),
    "txt_in.weight": (3072, 4096),
    "vector_in.in_layer.weight": (3072, 768),
}
GUIDED: Shapes = {"guidance_in.in_layer.weight": (3072, 256)}


def flux2(hidden: int) -> Shapes:
    return {
        "double_stream_modulation_img.lin.weight": (6 * hidden, hidden),
        "single_stream_modulation.lin.weight": (3 * hidden, hidden),
        "double_blocks.0.img_attn.qkv.weight": (3 * hidden, hidden),
        "single_blocks.0.linear1.weight": (9 * hidden, hidden),
        "img_in.weight": (hidden, 128),
    }


def sd3(hidden: int, *, dual: bool = False) -> Shapes:
    made: Shapes = {
        "x_embedder.proj.weight": (hidden, 16, 2, 2),
        "joint_blocks.0.context_block.attn.qkv.weight": (3 * hidden, hidden),
        "joint_blocks.0.x_block.attn.proj.weight": (hidden, hidden),
    }
    return {**made, "joint_blocks.0.x_block.attn2.qkv.weight": (3 * hidden, hidden)} if dual else made


def wan(hidden: int, channels: int = 16) -> Shapes:
    return {
        "patch_embedding.weight": (hidden, channels, 1, 2, 2),
        "blocks.0.self_attn.q.weight": (hidden, hidden),
        "blocks.0.cross_attn.k.weight": (hidden, hidden),
        "blocks.0.ffn.0.weight": (hidden * 3, hidden),
        "head.modulation": (1, 2, hidden),
        "text_embedding.0.weight": (hidden, 4096),
    }


PIXART: Shapes = {
    "t_block.1.weight": (6912, 1152),
    "blocks.0.cross_attn.kv_linear.weight": (2304, 1152),
    "x_embedder.proj.weight": (1152, 4, 2, 2),
    "y_embedder.y_embedding": (300, 4096),
}
LUMINA: Shapes = {
    "cap_embedder.1.weight": (2304, 2304),
    "noise_refiner.0.attention.k_norm.weight": (96,),
    "layers.0.attention.qkv.weight": (3840, 2304),
    "x_embedder.weight": (2304, 64),
}

WHOLE: dict[str, tuple[Shapes, str, str, str | None]] = {
    "SD1": ({**below(LDM, unet_ldm(768)), **VAE, **CLIP_L}, "checkpoint", "sd1", "stable-diffusion-v1"),
    "SD1 inpainting": (
        {**below(LDM, unet_ldm(768, channels=9)), **VAE, **CLIP_L}, "checkpoint", "sd1",
            "stable-diffusion-v1-inpainting"
    ),
    "SD1 edit": (below(LDM, unet_ldm(768, channels=8)) | VAE, "checkpoint", "sd1", "stable-diffusion-v1-edit"),
    "SD1, tiny": (below(LDM, unet_ldm(96)) | VAE | CLIP_L, "checkpoint", "sd1", "stable-diffusion-v1"),
    "SD2": ({**below(LDM, unet_ldm(1024)), **VAE, **OPEN_CLIP}, "checkpoint", "sd2", "stable-diffusion-v2"),
    "SD2 depth": (below(LDM, unet_ldm(1024, channels=5)) | OPEN_CLIP, "checkpoint", "sd2", "stable-diffusion-v2-depth"),
    "SDXL": (
        {**below(LDM, unet_ldm(2048, vector=2816, deep=10)), **VAE, **XL_TEXT}, "checkpoint", "sdxl",
        "stable-diffusion-xl-v1-base",
    ),
    "SDXL inpainting": (
        below(LDM, unet_ldm(2048, vector=2816, channels=9)), "diffusion_model", "sdxl",
        "stable-diffusion-xl-v1-base-inpainting",
    ),
    "SDXL refiner": (
        below(LDM, unet_ldm(1280, vector=2560, deep=4)) | VAE, "checkpoint", "sdxl", "stable-diffusion-xl-v1-refiner"
    ),
    "Kolors": (unet_ldm(2048, vector=5632), "diffusion_model", "kolors", "kolors"),
    "SVD": (
        below(LDM, unet_ldm(1024) | {"input_blocks.1.1.time_stack.0.attn1.to_q.weight": (320, 320)}) | VAE,
            "checkpoint",
        "svd", "stable-video-diffusion-img2vid",
    ),
    "SD3": (below(LDM, sd3(1536)), "diffusion_model", "sd3", "stable-diffusion-v3-medium"),
    "SD3.5 medium": (sd3(1536, dual=True), "diffusion_model", "sd3", "stable-diffusion-v3.5-medium"),
    "SD3.5 large": (sd3(2432), "diffusion_model", "sd3", "stable-diffusion-v3.5-large"),
    "Flux dev": (FLUX | GUIDED, "diffusion_model", "flux1", "Flux.1-dev"),
    "Flux schnell": (FLUX, "diffusion_model", "flux1", "Flux.1-schnell"),
    "Flux fill": (FLUX | GUIDED | {"img_in.weight": (3072, 384)}, "diffusion_model", "flux1", "Flux.1-fill-dev"),
    "Flux 2 dev": (flux2(6144), "diffusion_model", "flux2", "Flux.2-dev"),
    "Flux 2 klein 4B": (flux2(3072), "diffusion_model", "flux2", "Flux.2-klein-4b"),
    "Chroma": (
        FLUX | {"distilled_guidance_layer.in_proj.weight": (5120, 64)}, "diffusion_model", "chroma1", "Chroma1"
    ),
    "Qwen-Image": (
        {
            "txt_norm.weight": (3584,), "img_in.weight": (3072, 64), "transformer_blocks.0.img_mod.1.weight": (18432,
                3072),
            "transformer_blocks.0.attn.add_k_proj.weight": (3072, 3072),
        },
        "diffusion_model", "qwen-image", "Qwen-Image",
    ),
    "Z-Image": (
        {name: tuple(3840 if n == 2304 else n for n in shape) for name, shape in LUMINA.items()}, "diffusion_model",
        "z-image", "Z-Image",
    ),
    "Lumina 2": (below(LDM, LUMINA), "diffusion_model", "lumina2", "lumina-2"),
    "Wan 1.3B": (wan(1536), "diffusion_model", "wan", "wan-2_1-text2video-1.3b"),
    "Wan 14B i2v": (
        wan(5120, 36) | {"img_emb.proj.1.weight": (1280, 1280)}, "diffusion_model", "wan", "wan-2_1-image2video-14b"
    ),
    "Wan VACE": (wan(5120) | {"vace_blocks.0.after_proj.weight": (5120, 5120)}, "diffusion_model", "wan",
        "wan-2_1-vace-14b"),
    "AuraFlow": (
        below("model.", {"double_layers.0.attn.w1q.weight": (3072, 3072), "cond_seq_linear.weight": (3072, 2048)}),
        "diffusion_model", "auraflow", "auraflow-v1",
    ),
    "HiDream": (
        {"double_stream_blocks.0.block.attn1.to_q.weight": (2560, 2560), "caption_projection.0.linear.weight": (2560,
            4096)},
        "diffusion_model", "hidream-i1", "hidream-i1",
    ),
    "PixArt sigma": (PIXART, "diffusion_model", "pixart-sigma", "pixart-sigma"),
    "PixArt alpha": (
        PIXART | {"y_embedder.y_embedding": (120, 4096)}, "diffusion_model", "pixart-alpha", "pixart-alpha"
    ),
    "Hunyuan DiT": (
        {"mlp_t5.0.weight": (8192, 2048), "blocks.0.attn1.Wqkv.weight": (4224, 1408), "x_embedder.proj.weight": (1408,
            4, 2, 2)},
        "diffusion_model", "hunyuan-dit", "hunyuan-dit",
    ),
    "Hunyuan Video": (
        {
            "txt_in.individual_token_refiner.blocks.0.norm1.weight": (3072,), "img_in.proj.weight": (3072, 16, 1, 2, 2),
            "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
        },
        "diffusion_model", "hunyuan-video", "hunyuan-video",
    ),
    "LTX": (
        {"patchify_proj.weight": (2048, 128), "adaln_single.emb.timestep_embedder.linear_1.weight": (2048, 256)},
        "diffusion_model", "ltx-video", "ltx-video",
    ),
    "Cascade C": (
        {"clip_txt_mapper.weight": (2048, 1280), "clf.1.weight": (64, 2048, 1, 1)}, "diffusion_model",
        "stable-cascade-v1-prior", "stable-cascade-v1-prior",
    ),
    "Cascade B": (
        {"effnet_mapper.0.weight": (1280, 16, 1, 1), "clip_mapper.weight": (1280, 1280), "clf.1.weight": (16, 320, 1,
            1)},
        "diffusion_model", "stable-cascade-v1-decoder", "stable-cascade-v1-decoder",
    ),
    "Mochi": (
        {"t5_yproj.weight": (1536, 4096), "blocks.0.attn.qkv_x.weight": (9216, 3072)}, "diffusion_model", "mochi",
        "genmo-mochi-1",
    ),
    "LTX 13B": (
        {"transformer_blocks.0.attn1.to_q.weight": (4096, 4096), "scale_shift_table": (2, 4096),
            "caption_projection.linear_1.weight": (4096, 4096),
            "time_embed.emb.timestep_embedder.linear_1.weight": (4096, 256)},
        "diffusion_model", "ltx-video", "ltx-video",
    ),
    "Wan 2.2 14B i2v": (wan(5120, 36), "diffusion_model", "wan", "wan-2_2-image2video-14b"),
    "DeepFloyd": (
        {"add_embedding.pool.k_proj.weight": (4096, 4096), "mid_block.attentions.0.add_k_proj.weight": (2816, 4096)},
        "diffusion_model", "deepfloyd-if", "deepfloyd-if",
    ),
    "text to video of ModelScope": (
        {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
            "down_blocks.0.temp_attentions.0.proj_in.weight": (320, 320)},
        "diffusion_model", "modelscope", "modelscope",
    ),
    "Sana": (
        {"blocks.0.cross_attn.q_linear.weight": (2240, 2240), "blocks.0.mlp.inverted_conv.conv.weight": (11200, 2240,
            1, 1)},
        "diffusion_model", "sana", "sana",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_checkpoints_and_denoisers(case: str) -> None:
    shapes, kind, family, architecture = WHOLE[case]
    found = facts(shapes)
    assert (found.kind, found.base_family, found.architecture) == (kind, family, architecture)
    assert found.touches["unet"] is True
    assert found.touches["vae"] is any("first_stage_model" in name for name in shapes)
    assert found.precision == "fp16"


def named(*names: str) -> detect.FileFacts:
    """Facts of a file of which only the names were kept."""
    return detect.from_header(Header({name: Tensor(None, None) for name in names}), size=0)


NAMES_ONLY = {
    "SD1": ("sd1", [*CLIP_L, *VAE, f"{LDM}input_blocks.0.0.weight", f"{LDM}time_embed.0.weight"]),
    "SDXL": ("sdxl", [*XL_TEXT, *VAE, f"{LDM}input_blocks.0.0.weight", f"{LDM}label_emb.0.0.weight"]),
    "SDXL, other converter": (
        "sdxl",
        [*CLIP_L, "cond_stage_model.1.transformer.text_model.final_layer_norm.weight", f"{LDM}input_blocks.0.0.weight"],
    ),
    "Flux 2": ("flux2", ["double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.norm.key_norm.scale"]),
    "Z-Image": ("z-image", ["context_refiner.0.attention.k_norm.weight", "cap_pad_token", "cap_embedder.0.weight"]),
    "Ernie": ("ernie", ["adaLN_modulation.1.bias", "layers.0.adaLN_mlp_ln.weight", "layers.0.adaLN_sa_ln.weight"]),
    "Wan": ("wan", ["blocks.0.cross_attn.k.bias", "blocks.0.cross_attn.k.weight", "blocks.0.cross_attn.norm_k.weight"]),
    "SDXL LoRA": ("sdxl", [f"lora_te1_{t}.lora_up.weight" for t in "ab"] + ["lora_te2_text_model_x.lora_up.weight"]),
    "Flux LoRA": ("flux1", ["lora_unet_double_blocks_0_img_attn_proj.lora_up.weight"]),
}


@pytest.mark.parametrize("case", NAMES_ONLY)
def test_names_alone_are_enough_for_most(case: str) -> None:
    family, names = NAMES_ONLY[case]
    found = named(*names)
    assert found.base_family == family
    assert (found.rank, found.precision, found.parameters) == (None, None, None)


def test_quantised_weights_of_odd_shape_do_not_mislead() -> None:
    flux = {name: (math.prod(shape) // 2, 1) for name, shape in (FLUX | GUIDED).items()}
    assert (facts(flux, "U8").base_family, facts(flux, "U8").architecture) == ("flux1", "Flux.1-dev")
    lumina = {name: (math.prod(shape) // 2, 1) for name, shape in LUMINA.items()}
    assert facts(lumina, "U8").base_family == "lumina2"
    nunchaku: Shapes = {
        "transformer_blocks.0.qkv_proj.qweight": (9216, 1536),
        "transformer_blocks.0.qkv_proj.lora_down": (3072, 32),
        "transformer_blocks.0.qkv_proj.lora_up": (9216, 32),
        "single_transformer_blocks.0.mlp_fc1.qweight": (12288, 1536),
        "time_text_embed.guidance_embedder.linear_1.weight": (3072, 256),
        "x_embedder.weight": (3072, 64),
    }
    found = facts(nunchaku, "I8")
    assert (found.kind, found.base_family, found.precision) == ("diffusion_model", "flux1", "int4")


# --- adapters ---------------------------------------------------------------------------------------------------------


def lora(layer: str, out: int, inside: int, rank: int = 16, *, style: str = "kohya") -> Shapes:
    if style == "kohya":
        return {
            f"{layer}.lora_down.weight": (rank, inside),
            f"{layer}.lora_up.weight": (out, rank),
            f"{layer}.alpha": (),
        }
    if style == "peft":
        return {f"{layer}.lora_A.weight": (rank, inside), f"{layer}.lora_B.weight": (out, rank)}
    if style == "named":
        return {f"{layer}.lora_A.default.weight": (rank, inside), f"{layer}.lora_B.default.weight": (out, rank)}
    return {f"{layer}{style}.down.weight": (rank, inside), f"{layer}{style}.up.weight": (out, rank)}


ATTN = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
DOTS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = f"lora_unet_{ATTN}"
TE = "text_model_encoder_layers_0_self_attn_q_proj"

ADAPTERS: dict[str, tuple[Shapes, str, str | None, int | None]] = {
    "SD1 kohya": (lora(KOHYA, 640, 768) | lora(f"lora_te_{TE}", 768, 768), "lora", "sd1", 16),
    "SD2 kohya": (lora(KOHYA, 640, 1024), "lora", "sd2", 16),
    "SDXL kohya": (lora(KOHYA, 640, 2048) | lora(f"lora_te1_{TE}", 768, 768), "lora", "sdxl", 16),
    "SDXL, LDM names": (
        lora("lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k", 640, 2048), "lora", "sdxl", 16
    ),
    "SDXL, text encoders only": (
        lora(f"lora_te1_{TE}", 768, 768) | lora(f"lora_te2_{TE}", 1280, 1280), "lora", "sdxl", 16
    ),
    "SD1, text encoder only": (lora(f"lora_te_{TE}", 768, 768), "lora", "sd1", 16),
    "SD2, text encoder only": (
        lora("lora_te_text_model_encoder_layers_22_self_attn_q_proj", 1024, 1024), "lora", "sd2", 16
    ),
    "SD1 peft": (lora(f"unet.{DOTS}", 640, 768, style="peft"), "lora", "sd1", 16),
    "SD1 old diffusers": (
        lora(f"{DOTS[:-5]}.processor.to_k", 640, 768, style="_lora"), "lora", "sd1", 16
    ),
    "SDXL diffusers": (lora(f"unet.{DOTS}", 640, 2048, 8, style=".lora"), "lora", "sdxl", 8),
    "LoCon": (
        lora(KOHYA, 640, 768)
        | {
            "lora_unet_down_blocks_1_resnets_0_conv1.lora_down.weight": (8, 320, 3, 3),
            "lora_unet_down_blocks_1_resnets_0_conv1.lora_up.weight": (640, 8, 1, 1),
        },
        "locon", "sd1", 16,
    ),
    "DoRA": (lora(KOHYA, 640, 768) | {f"{KOHYA}.dora_scale": (1, 768)}, "dora", "sd1", 16),
    "DoRA peft": (
        lora(f"unet.{DOTS}", 640, 768, style="peft") | {f"unet.{DOTS}.lora_magnitude_vector": (640,)}, "dora", "sd1", 16
    ),
    "LoHa": (
        {
            f"{KOHYA}.hada_w1_a": (640, 4), f"{KOHYA}.hada_w1_b": (4, 768), f"{KOHYA}.hada_w2_a": (640, 4),
            f"{KOHYA}.hada_w2_b": (4, 768), f"{KOHYA}.alpha": (),
        },
        "loha", "sd1", 4,
    ),
    "LoKr, factored": (
        {f"{KOHYA}.lokr_w1": (8, 8), f"{KOHYA}.lokr_w2_a": (80, 6), f"{KOHYA}.lokr_w2_b": (6, 96),
            f"{KOHYA}.alpha": ()},
        "lokr", "sd1", 6,
    ),
    "LoKr, whole": ({f"{KOHYA}.lokr_w1": (8, 8), f"{KOHYA}.lokr_w2": (80, 256)}, "lokr", "sdxl", None),
    "OFT": ({f"{KOHYA}.oft_blocks": (4, 160, 160), f"{KOHYA}.alpha": ()}, "oft", None, None),
    "OFT of PixArt": (
        {"lora_unet_transformer_blocks_0_attn1_to_q.oft_blocks": (8, 144, 144)}, "oft", "pixart-sigma", None
    ),
    "OFT of peft": ({f"unet.{DOTS}.oft_R.weight": (16, 1128)}, "oft", "sd1", None),
    "BOFT": ({f"{KOHYA}.oft_blocks": (3, 4, 160, 160), f"{KOHYA}.alpha": ()}, "boft", None, None),
    "BOFT of Lumina 2": (
        {"lora_unet_layers_0_attention_to_q.oft_blocks": (3, 8, 288, 288)}, "boft", "lumina2", None
    ),
    "GLoRA": (
        {f"{KOHYA}.a1.weight": (4, 768), f"{KOHYA}.a2.weight": (768, 4), f"{KOHYA}.b1.weight": (4, 768),
            f"{KOHYA}.b2.weight": (640, 4)},
        "glora", "sd1", 4,
    ),
    "GLoRA, the other order": (
        {f"{KOHYA}.a1.weight": (1024, 4), f"{KOHYA}.a2.weight": (4, 1024), f"{KOHYA}.b1.weight": (640, 4),
            f"{KOHYA}.b2.weight": (4, 1024)},
        "glora", "sd2", 4,
    ),
    "IA3": ({f"{KOHYA}.weight": (640,), f"{KOHYA}.on_input": (1,)}, "ia3", None, None),
    "IA3 on inputs": ({f"{KOHYA}.weight": (1, 2048), f"{KOHYA}.on_input": ()}, "ia3", "sdxl", None),
    "full difference": ({f"{KOHYA}.diff": (640, 2048), f"{KOHYA}.diff_b": (640,)}, "full", "sdxl", None),
    "Flux kohya": (lora("lora_unet_double_blocks_0_img_attn_qkv", 9216, 3072), "lora", "flux1", 16),
    "Flux diffusers": (
        lora("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072, style="peft"), "lora", "flux1", 16
    ),
    "Flux control": (
        lora("double_blocks.0.img_attn.qkv", 9216, 3072, 128, style="peft") | lora("img_in", 3072, 128, 128,
            style="peft"),
        "control_lora", "flux1", 128,
    ),
    "Flux 2": (lora("diffusion_model.single_blocks.0.linear1", 55296, 6144, style="peft"), "lora", "flux2", 16),
    "Flux 2 klein": (lora("lora_unet_single_blocks_0_linear1", 27648, 3072), "lora", "flux2", 16),
    "SD3 diffusers": (
        lora("transformer.transformer_blocks.0.attn.to_q", 1536, 1536, style="peft"), "lora", "sd3", 16
    ),
    "SD3.5 kohya": (lora("lora_unet_joint_blocks_0_x_block_attn_qkv", 7296, 2432), "lora", "sd3", 16),
    "Qwen": (
        lora("transformer.transformer_blocks.59.attn.to_q", 3072, 3072, style="peft")
        | lora("transformer.transformer_blocks.0.attn.add_k_proj", 3072, 3072, style="peft"),
        "lora", "qwen-image", 16,
    ),
    "Qwen, named adapters": (
        lora("transformer_blocks.0.img_mlp.net.2", 3072, 12288, style="named"), "lora", "qwen-image", 16
    ),
    "Wan": (lora("diffusion_model.blocks.0.cross_attn.k", 5120, 5120, style="peft"), "lora", "wan", 16),
    "Wan musubi": (lora("lora_unet_blocks_0_self_attn_q", 1536, 1536), "lora", "wan", 16),
    "Wan diffusers": (lora("transformer.blocks.0.attn1.to_q", 5120, 5120, style="peft"), "lora", "wan", 16),
    "Hunyuan Video": (lora("lora_unet_double_blocks_0_img_mlp_fc1", 12288, 3072), "lora", "hunyuan-video", 16),
    "Z-Image": (lora("diffusion_model.layers.0.attention.to_q", 3840, 3840, style="peft"), "lora", "z-image", 16),
    "Lumina 2": (lora("lora_unet_layers_0_attention_qkv", 3840, 2304), "lora", "lumina2", 16),
    "HiDream": (
        lora("diffusion_model.double_stream_blocks.0.block.attn1.to_q", 2560, 2560, style="peft"), "lora",
            "hidream-i1", 16
    ),
    "LTX": (lora("transformer.transformer_blocks.0.attn1.to_q", 2048, 2048, style="peft"), "lora", "ltx-video", 16),
    "AuraFlow": (
        lora("transformer.joint_transformer_blocks.0.attn.to_q", 3072, 3072, style="peft"), "lora", "auraflow", 16
    ),
    "Chroma": (lora("lora_unet_distilled_guidance_layer_in_proj", 5120, 64), "lora", "chroma1", 16),
    "DoRA, ai-toolkit": (
        lora("diffusion_model.layers.0.attention.to_q", 3840, 3840, style="peft")
        | {"diffusion_model.layers.0.attention.to_q.magnitude": (3840,)},
        "dora", "z-image", 16,
    ),
    "Flux.2 klein, one stream": (
        lora("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 27648, 3072, style="peft"), "lora",
        "flux2", 16,
    ),
    "Flux.2 dev, both streams": (
        lora("transformer.transformer_blocks.0.attn.to_q", 6144, 6144, style="peft")
        | lora("transformer.transformer_blocks.0.attn.add_k_proj", 6144, 6144, style="peft"),
        "lora", "flux2", 16,
    ),
    "Flux 3": (lora("transformer.mode_blocks.image.0.attn.to_q", 3072, 3072, style="peft"), "lora", "flux3", 16),
    "MiniMax H3": (lora("transformer.transformer_blocks.0.attn.to_q", 7168, 5376, style="peft"), "lora",
        "minimax-h3", 16),
    "Cosmos, as diffusers names it": (
        lora("transformer.transformer_blocks.0.attn1.to_q", 2048, 2048, style="peft")
        | lora("transformer.transformer_blocks.0.attn2.to_k", 2048, 1024, style="peft"),
        "lora", "cosmos-predict2", 16,
    ),
    "CogView4": (lora("transformer.transformer_blocks.0.attn1.to_q", 4096, 4096, style="peft"), "lora", "cogview4",
        16),
    "Hunyuan DiT, kohya": (lora("lora_unet_blocks_0_attn1_Wqkv", 4224, 1408), "lora", "hunyuan-dit", 16),
    "Flux, text encoders only": (
        lora(f"lora_te1_{TE}", 768, 768) | lora("lora_te2_encoder_block_0_layer_0_SelfAttention_q", 4096, 4096),
        "lora", "flux1", 16,
    ),
    "SDXL, a slider in shallow blocks": (
        lora("lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q", 640, 640, 4), "lora", "sdxl", 4
    ),
    "MiniMax H3, its own names": (lora("diffusion_model.blocks.0.attn.qkv_proj", 21504, 5376, style="peft"), "lora",
        "minimax-h3", 16),
    "SDXL, text encoders only, peft": (
        lora("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", 768, 768, style="peft")
        | lora("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", 1280, 1280, style="peft"),
        "lora", "sdxl", 16,
    ),
    "the first LoRAs": (
        {"unet:0:up": (320, 4), "unet:0:down": (4, 320), "unet:1:up": (320, 4), "unet:1:down": (4, 768)}, "lora",
        "sd1", 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ADAPTERS)
def test_adapters(case: str) -> None:
    shapes, kind, family, rank = ADAPTERS[case]
    found = facts(shapes)
    assert (found.kind, found.rank) == (kind, rank)
    if family is not None:
        assert found.base_family == family
    assert found.touches["text_encoder"] is any(name.startswith(("lora_te", "text_encoder")) for name in shapes)
    assert found.touches["conv"] is (case == "LoCon")
    assert found.kind in detect.KINDS


@pytest.mark.parametrize(
    ("layer", "width", "others"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", 3072, {"flux1", "flux2", "qwen-image"}),
        ("transformer.transformer_blocks.0.attn.to_q", 6144, {"krea2", "flux2"}),
        ("transformer.transformer_blocks.0.attn1.to_q", 1152, {"pixart-alpha", "pixart-sigma", "sana"}),
        ("transformer.transformer_blocks.0.attn2.to_q", 4096, {"ltx-2", "ltx-video"}),
    ],
)
def test_layers_that_families_share_are_told_apart_by_metadata_or_doubted(
    layer: str, width: int, others: set[str]
) -> None:
    shapes = lora(layer, width, width, style="peft")
    assert facts(shapes).base_family in others
    assert "alike" in " ".join(facts(shapes).notes) or "share these layers" in " ".join(facts(shapes).notes)
    for family in others:
        found = facts(shapes, modelspec__architecture=f"{family}/lora")
        assert (found.base_family, found.notes) == (family, ())


def test_several_ranks_give_the_commonest_and_the_span() -> None:
    shapes = {}
    for index, rank in enumerate([16, 16, 16, 4, 32]):
        shapes |= lora(f"lora_unet_down_blocks_1_attentions_{index}_proj_in", 640, 640, rank)
    found = facts(shapes)
    assert found.rank == 16
    assert found.ranks == {4: 1, 16: 3, 32: 1}
    assert "its layers have ranks 4 to 32" in found.notes


# --- everything else --------------------------------------------------------------------------------------------------

TEMPORAL = "motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"

PARTS: dict[str, tuple[Shapes, str, str | None, dict[str, Any]]] = {
    "embedding SD1": ({"emb_params": (5, 768)}, "embedding", "sd1", {"vectors": 5, "dim": 768}),
    "embedding SD2": ({"string_to_param.*": (2, 1024)}, "embedding", "sd2", {"vectors": 2}),
    "embedding SDXL": ({"clip_l": (3, 768), "clip_g": (3, 1280)}, "embedding", "sdxl", {"vectors": 3}),
    "embedding SD3": ({"clip_l": (3, 768), "clip_g": (3, 1280), "t5xxl": (3, 4096)}, "embedding", "sd3", {}),
    "embedding, concept": ({"<cat-toy>": (768,)}, "embedding", "sd1", {"vectors": 1, "token": "<cat-toy>"}),
    "VAE": (
        {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3), "quant_conv.weight": (8,
            8, 1, 1)},
        "vae", None, {"latent_channels": 4},
    ),
    "VAE, prefixed": (VAE, "vae", None, {"latent_channels": 4}),
    "VAE of Flux": (
        {"decoder.conv_in.weight": (512, 16, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}, "vae", None,
        {"latent_channels": 16},
    ),
    "VAE of Wan": (
        {"decoder.conv1.weight": (384, 16, 3, 3, 3), "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
            "conv1.weight": (32, 32, 1, 1, 1)},
        "vae", "wan", {"latent_channels": 16},
    ),
    "VAE, tiny": ({"taesd_decoder.1.weight": (64, 4, 3, 3)}, "vae", None, {"tiny": True}),
    "ControlNet SD1": (
        below("control_model.", unet_ldm(768) | {"input_hint_block.0.weight": (16, 3, 3, 3),
            "zero_convs.0.0.weight": (320, 320, 1, 1)}),
        "controlnet", "sd1", {},
    ),
    "ControlNet SDXL": (
        {
            "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), "add_embedding.linear_1.weight": (1280, 2816),
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        },
        "controlnet", "sdxl", {},
    ),
    "ControlNet Flux union": (
        {
            "controlnet_blocks.0.weight": (3072, 3072), "controlnet_mode_embedder.weight": (10, 3072),
            "single_transformer_blocks.0.attn.to_q.weight": (3072, 3072),
        },
        "controlnet", "flux1", {"union": True},
    ),
    "Control-LoRA SDXL": (
        {
            "lora_controlnet": (), "label_emb.0.0.down": (128, 2816), "label_emb.0.0.up": (1280, 128),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": (128, 2048),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.up": (640, 128),
        },
        "control_lora", "sdxl", {},
    ),
    "T2I adapter SD1": (
        {"conv_in.weight": (320, 192, 3, 3), "body.0.block1.weight": (320, 320, 3, 3), "body.0.block2.weight": (320,
            320, 1, 1)},
        "t2i_adapter", "sd1", {},
    ),
    "T2I adapter SDXL": (
        {"adapter.conv_in.weight": (320, 768, 3, 3), "adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
        "t2i_adapter", "sdxl", {},
    ),
    "IP-adapter SD1": (
        {"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}, "ip_adapter", "sd1", {}
    ),
    "IP-adapter SDXL face": (
        {
            "image_proj.proj.0.weight": (1024, 512), "ip_adapter.1.to_k_ip.weight": (640, 2048),
            "ip_adapter.0.to_q_lora.down.weight": (128, 640),
        },
        "ip_adapter", "sdxl", {"face_id": True},
    ),
    "hypernetwork": (
        {"768.0.linear.0.weight": (1536, 768), "320.1.linear.0.weight": (640, 320)}, "hypernetwork", "sd1", {}
    ),
    "ESRGAN 4x, old names": (
        {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3), "model.3.weight": (64,
            64, 3, 3), "model.10.weight": (3, 64, 3, 3)},
        "upscaler", "esrgan", {"scale": 4},
    ),
    "RealESRGAN 2x": (
        {"conv_first.weight": (64, 12, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3), "conv_last.weight": (3, 64,
            3, 3)},
        "upscaler", "esrgan", {"scale": 2},
    ),
    "compact 4x": (
        {**{f"body.{i}.weight": (64, 64, 3, 3) for i in range(0, 34, 2)}, "body.34.weight": (48, 64, 3, 3)}, "upscaler",
        "realesrgan-compact", {"scale": 4},
    ),
    "SwinIR": (
        {
            "conv_first.weight": (180, 3, 3, 3),
                "layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (225, 6),
            "upsample.0.weight": (256, 64, 3, 3), "upsample.2.weight": (256, 64, 3, 3),
        },
        "upscaler", "swinir", {"scale": 4},
    ),
    "CLIP-L": (
        {"text_model.embeddings.token_embedding.weight": (49408, 768),
            "text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768)},
        "text_encoder", "clip-l", {},
    ),
    "CLIP-G": (
        {"text_model.embeddings.token_embedding.weight": (49408, 1280),
            "text_model.encoder.layers.0.mlp.fc1.weight": (5120, 1280)},
        "text_encoder", "clip-g", {},
    ),
    "T5-XXL": (
        {"shared.weight": (32128, 4096), "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)},
            "text_encoder",
        "t5-xxl", {},
    ),
    "UMT5-XXL": (
        {"shared.weight": (256384, 4096), "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)},
            "text_encoder",
        "umt5-xxl", {},
    ),
    "Qwen3 4B": (
        {
            "model.embed_tokens.weight": (151936, 2560), "model.layers.0.self_attn.q_proj.weight": (4096, 2560),
            "model.layers.0.self_attn.q_norm.weight": (128,),
        },
        "text_encoder", "qwen3", {},
    ),
    "Gemma 2": (
        {
            "model.embed_tokens.weight": (256000, 2304), "model.layers.0.self_attn.q_proj.weight": (2048, 2304),
            "model.layers.0.pre_feedforward_layernorm.weight": (2304,),
        },
        "text_encoder", "gemma2", {},
    ),
    "CLIP vision": (
        {
            "vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14),
            "vision_model.encoder.layers.0.layer_norm1.weight": (1280,), "visual_projection.weight": (1024, 1280),
        },
        "clip_vision", "clip-vit-h", {},
    ),
    "motion module": (
        {
            f"down_blocks.0.{TEMPORAL}.pos_encoder.pe": (1, 32, 320),
            "down_blocks.3.motion_modules.0.temporal_transformer.proj_in.weight": (1280, 1280),
        },
        "motion_module", "sd1", {"frames": 32},
    ),
    "motion LoRA": (
        {
            f"down_blocks.3.{TEMPORAL}.processor.to_q_lora.down.weight": (32, 320),
            f"down_blocks.3.{TEMPORAL}.processor.to_q_lora.up.weight": (320, 32),
        },
        "motion_lora", "sd1", {},
    ),
    "VAE, tiny, one half": (
        {"1.weight": (64, 16, 3, 3), "3.conv.0.weight": (64, 64, 3, 3), "19.weight": (3, 64, 3, 3)}, "vae", None,
        {"tiny": True, "latent_channels": 16, "decoder_only": True},
    ),
    "VAE, tiny, other half": (
        {"0.weight": (64, 3, 3, 3), "1.conv.0.weight": (64, 64, 3, 3), "14.weight": (4, 64, 3, 3)}, "vae", None,
        {"tiny": True, "latent_channels": 4},
    ),
    "ControlNet below a prefix": (
        below("controlnet.", {
            "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        }),
        "controlnet", "sd1", {},
    ),
    "ControlNet Flux, double blocks only": (
        {
            "controlnet_blocks.0.weight": (3072, 3072), "transformer_blocks.0.attn.to_q.weight": (3072, 3072),
            "x_embedder.weight": (3072, 64), "context_embedder.weight": (3072, 4096),
            "time_text_embed.text_embedder.linear_1.weight": (3072, 768),
        },
        "controlnet", "flux1", {},
    ),
    "BrushNet": (
        {
            "brushnet_down_blocks.0.weight": (320, 320, 1, 1), "conv_in_condition.weight": (320, 9, 3, 3),
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        },
        "controlnet", "sd1", {"kind": "BrushNet"},
    ),
    "CLIP-L without its wrapper": (
        {"embeddings.token_embedding.weight": (49408, 768), "encoder.layers.0.self_attn.q_proj.weight": (768, 768)},
        "text_encoder", "clip-l", {},
    ),
    "SigLIP without its wrapper": (
        {"embeddings.patch_embedding.weight": (1152, 3, 14, 14),
            "encoder.layers.0.self_attn.q_proj.weight": (1152, 1152)},
        "clip_vision", "siglip", {},
    ),
    "BERT, which is no VAE": (
        {"embeddings.word_embeddings.weight": (30522, 768),
            "encoder.layer.0.attention.self.query.weight": (768, 768)},
        "text_encoder", "bert", {},
    ),
    "mT5": (
        {"shared.weight": (250112, 2048), "encoder.block.0.layer.0.SelfAttention.q.weight": (2048, 2048)},
        "text_encoder", "mt5-xl", {},
    ),
    "Mistral 7B": (
        {"embed_tokens.weight": (32000, 4096), "layers.0.self_attn.q_proj.weight": (4096, 4096),
            "layers.0.self_attn.k_proj.weight": (1024, 4096)},
        "text_encoder", "mistral", {},
    ),
    "embedding SDXL, diffusers": (
        {"text_encoders_0": (2, 768), "text_encoders_1": (2, 1280)}, "embedding", "sdxl", {"vectors": 2}
    ),
    "embedding Hunyuan Video": ({"llama": (2, 4096), "clip_l": (2, 768)}, "embedding", "hunyuan-video", {}),
    "RealPLKSR 4x": (
        {"feats.0.weight": (64, 3, 3, 3), "feats.1.channe_mixer.0.weight": (128, 64, 3, 3),
            "feats.1.lk.conv.weight": (16, 16, 17, 17), "feats.30.weight": (48, 64, 3, 3)},
        "upscaler", "plksr", {"scale": 4},
    ),
    "RCAN": (
        {"head.0.weight": (64, 3, 3, 3), "body.0.body.0.body.3.conv_du.0.weight": (4, 64, 1, 1),
            "tail.1.weight": (3, 64, 3, 3)},
        "upscaler", "rcan", {},
    ),
    "BSRGAN": (
        {"conv_first.weight": (64, 3, 3, 3), "RRDB_trunk.0.RDB1.conv1.weight": (32, 64, 3, 3)}, "upscaler", "esrgan",
        {"scale": 4},
    ),
    "YOLO": (
        {"model.0.conv.weight": (16, 3, 3, 3), "model.22.cv2.0.0.conv.weight": (64, 64, 3, 3)}, "detector", "yolo", {}
    ),
    "Flux redux": ({"redux_up.weight": (12288, 1152), "redux_down.weight": (4096, 12288)}, "style_model", "flux1", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_components(case: str) -> None:
    shapes, kind, family, details = PARTS[case]
    found = facts(shapes)
    assert (found.kind, found.base_family) == (kind, family)
    assert {key: found.details.get(key) for key in details} == details
    assert found.kind in detect.KINDS


def test_layers_nobody_knows_are_said_to_be_unknown() -> None:
    found = facts({"gizmo.0.weight": (3, 4), "gizmo.1.weight": (4, 4)})
    assert (found.kind, found.base_family) == (None, None)
    assert found.notes == ("its layers belong to no family that is known here",)


# --- precision --------------------------------------------------------------------------------------------------------


def test_precision_is_weighed_by_parameters() -> None:
    def of(**tensors: tuple[str, tuple[int, ...]]) -> str | None:
        named = {name.replace("__", "."): Tensor(*tensor) for name, tensor in tensors.items()}
        return detect.from_header(Header(named), size=0).precision

    assert of(a=("BF16", (100, 100)), b=("F32", (10,))) == "bf16"
    assert of(a=("F8_E4M3", (100, 100)), b=("BF16", (10,))) == "fp8"
    assert of(a=("F8_E4M3", (100, 100)), b=("BF16", (60, 100))) == "fp8_mixed"
    assert of(a__weight=("F8_E4M3", (100, 100)), a__scale_weight=("F32", ())) == "fp8_scaled"
    assert of(a=("F16", (100, 100)), b=("F32", (100, 100))) == "mixed"
    assert of(a=("F16", (10, 10)), ids=("I64", (1, 700))) == "fp16"
    quantised = {"a.weight": ("U8", (50, 1)), "a.weight.quant_state.bitsandbytes__nf4": ("U8", (90,))}
    assert detect.from_header(Header({n: Tensor(*t) for n, t in quantised.items()}), size=0).precision == "nf4"
    assert of(a__qweight=("I8", (50, 10)), a__wscales=("BF16", (5, 10))) == "int4"
    assert of(a=(None, (3, 3))) is None  # type: ignore[arg-type]


# --- what metadata says, and where it lies ----------------------------------------------------------------------------


def test_shapes_win_over_what_metadata_says() -> None:
    found = facts(
        lora(KOHYA, 640, 768),
        modelspec__architecture="stable-diffusion-xl-v1-base/lora",
        ss_network_dim="128",
        ss_base_model_version="sdxl_base_v1-0",
    )
    assert (found.base_family, found.rank, found.architecture) == ("sd1", 16, "stable-diffusion-v1/lora")
    assert "its metadata says stable-diffusion-xl-v1-base/lora, its shapes say sd1" in found.notes
    assert "its metadata says rank 128, its shapes say 16" in found.notes


def test_metadata_decides_where_shapes_cannot() -> None:
    double = lora("lora_unet_double_blocks_0_img_attn_qkv", 9216, 3072)
    assert facts(double, modelspec__architecture="chroma/lora").base_family == "chroma1"
    assert facts(double, modelspec__architecture="stable-diffusion-v1/lora").base_family == "flux1"
    anima = lora("lora_unet_blocks_0_cross_attn_q_proj", 2048, 2048)
    assert facts(anima).base_family == "anima"
    assert facts(anima, modelspec__architecture="cosmos-predict2").base_family == "cosmos-predict2"
    vae: Shapes = {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}
    assert facts(vae, modelspec__architecture="stable-diffusion-xl-v1-base/vae").base_family == "sdxl"


@pytest.mark.parametrize(
    ("said", "family"),
    [
        ("stable-diffusion-1.5", "sd1"), ("SDXL 1.0", "sdxl"), ("Illustrious", "sdxl"), ("pony", "sdxl"),
        ("Pony V7", "auraflow"), ("noobai-xl", "sdxl"), ("flex.1", "flux1"), ("LTXV2", "ltx-2"), ("ltxv", "ltx-video"),
        ("wan22_14b", "wan"), ("qwen_image_edit_plus", "qwen-image"), ("zimage:turbo", "z-image"),
        ("lumina", "lumina2"), ("Gizmo-7", "gizmo-7"),
    ],
)  # fmt: skip
def test_what_trainers_call_a_family(said: str, family: str) -> None:
    assert facts({}, ss_base_model_version=said).base_family == family


def test_the_story_of_ai_toolkit() -> None:
    found = facts(
        {}, software='{"name": "ai-toolkit", "version": "0.7"}', training_info='{"step": 2000, "epoch": 19}',
        ss_tag_frequency='{"1_t0k": {"t0k": 1}}', ss_base_model_version="flux1",
    )  # fmt: skip
    assert (found.training["steps"], found.training["epoch"]) == (2000, 19)
    assert (found.training["software"], found.trained_words) == ("ai-toolkit 0.7", ("t0k",))


def test_a_fine_tune_named_as_a_base_is_no_contradiction() -> None:
    found = facts(lora(KOHYA, 640, 2048), ss_base_model_version="illustrious")
    assert (found.base_family, found.base_model_guess, found.notes) == ("sdxl", "Illustrious", ())


def test_alpha_comes_from_the_tensors_and_may_stand_above_the_rank(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    head, data = {}, b""
    for name, (shape, content) in {
        f"{KOHYA}.lora_down.weight": ([8, 768], bytes(8 * 768 * 2)),
        f"{KOHYA}.lora_up.weight": ([640, 8], bytes(640 * 8 * 2)),
        f"{KOHYA}.alpha": ([], struct.pack("<e", 32.0)),
    }.items():
        head[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps({"__metadata__": {"ss_network_alpha": "4"}, **head}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    found = detect.inspect(path)
    assert (found.rank, found.alpha) == (8, 32)
    assert "its metadata says alpha 4, its tensors say 32" in found.notes
    assert any("above rank 8" in note for note in found.notes)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ss_tag_frequency": {"10_sks dog": {"sks dog": 12}}}, ["sks dog"]),
        ({"ss_tag_frequency": {"3_Miku_V": {"miku v": 30, "blue hair": 25}}}, ["miku v"]),
        ({"ss_tag_frequency": {"1_p3r5on": {"p3r5on": 1}}}, ["p3r5on"]),  # as ai-toolkit writes it
        ({"ss_dataset_dirs": {"5_ohwx man": {"n_repeats": 5, "img_count": 20}}}, ["ohwx man"]),
        (
            {
                "ss_dataset_dirs": {"img": {"n_repeats": 1, "img_count": 20}},
                "ss_tag_frequency": {"img": {"zork": 20, "1girl": 20, "smile": 11}},
            },
            ["zork"],
        ),
        (
            {
                "ss_dataset_dirs": {"img": {"n_repeats": 1, "img_count": 20}},
                "ss_tag_frequency": {"img": {f"tag {i}": 20 for i in range(30)}},
            },
            [],  # whole captions repeated: they say nothing
        ),
        ({"modelspec.trigger_phrase": "in the style of zork"}, ["in the style of zork"]),
        ({"ss_datasets": [{"subsets": [{"class_tokens": "zork", "img_count": 4, "image_dir": "z"}]}]}, []),
        ({"ss_tag_frequency": "{broken"}, []),
        ({"ss_tag_frequency": {"a": 5, "b": {"c": "x"}}}, []),
        ({"ss_tag_frequency": "[" * 100_000}, []),
        ({"ss_dataset_dirs": "null"}, []),
    ],
)
def test_likely_trigger_words(metadata: dict[str, Any], words: list[str]) -> None:
    as_text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    assert list(facts({}, **as_text).trained_words) == words
    assert list(facts({}, **metadata).trained_words) == words  # a site stores some of them as objects


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"ss_network_module": "networks.lora"}, "lora"),
        ({"ss_network_module": "networks.lora", "ss_network_args": '{"conv_dim": "8"}'}, "locon"),
        ({"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "lokr"}'}, "lokr"),
        ({"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "loha"}'}, "loha"),
        ({"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "lora", "dora_wd": "True"}'}, "dora"),
        ({"ss_network_module": "networks.lora_flux"}, "lora"),
        ({"modelspec.architecture": "stable-diffusion-v1/textual-inversion"}, "embedding"),
        ({"modelspec.architecture": "Flux.1-dev"}, "checkpoint"),
        ({"format": "pt"}, None),
    ],
)
def test_kind_from_metadata_when_no_tensors_are_listed(metadata: dict[str, str], kind: str | None) -> None:
    assert facts({}, **metadata).kind == kind


def test_the_base_model_is_guessed_from_hash_and_name() -> None:
    xl = lora(KOHYA, 640, 2048)
    assert facts(xl).base_model_guess == "SDXL 1.0"
    assert facts(xl, ss_sd_model_name="ponyDiffusionV6XL.safetensors").base_model_guess == "Pony"
    assert facts(xl, ss_sd_model_name="waiIllustriousSDXL_v140").base_model_guess == "Illustrious"
    assert facts(xl, ss_sd_model_name="noobaiXLNAIXL_vPred10Version").base_model_guess == "NoobAI"
    assert facts(xl, ss_sd_model_name="silhouette").base_model_guess == "SDXL 1.0"


def test_long_metadata_is_cut_for_the_manifest_and_kept_for_full() -> None:
    found = facts({"emb_params": (1, 768)}, modelspec__thumbnail="data:image/jpeg;base64," + "A" * 100_000)
    assert len(json.dumps(found.to_json())) < 5000
    assert "(100,023 characters)" in found.to_json()["metadata"]["modelspec.thumbnail"]
    assert len(found.to_json(full=True)["metadata"]["modelspec.thumbnail"]) == 100_023


# --- containers -------------------------------------------------------------------------------------------------------


def saved(folder: Path, name: str, value: Any, **options: Any) -> Path:
    import torch

    torch.save(value, folder / name, **options)
    return folder / name


@pytest.mark.parametrize("zip_", [True, False])
def test_torch_files_are_listed_without_torch(zip_: bool, tmp_path: Path) -> None:
    import torch

    shapes = {**below(LDM, unet_ldm(768)), **VAE, **CLIP_L}
    state = {
        name: torch.zeros(shape, dtype=torch.float16, device="cpu").expand(shape)
        for name, shape in shapes.items()
        if len(shape) != 2 or shape[0] < 40_000
    }
    state |= {
        name: torch.zeros(1, dtype=torch.float16).expand(shape) for name, shape in shapes.items() if name not in state
    }
    path = saved(tmp_path, "a.ckpt", {"state_dict": state, "global_step": 470_000}, _use_new_zipfile_serialization=zip_)
    found = detect.inspect(path)
    assert (found.format, found.kind, found.base_family, found.precision) == ("ckpt", "checkpoint", "sd1", "fp16")
    assert found.tensors == len(shapes)
    assert found.metadata["global_step"] == 470_000


def test_embeddings_hypernetworks_and_others_in_torch_files(tmp_path: Path) -> None:
    import torch

    inversion = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": {"*": torch.zeros(3, 768)},
        "name": "zork",
        "step": 900,
        "sd_checkpoint_name": "v1-5",
    }
    found = detect.inspect(saved(tmp_path, "e.pt", inversion))
    assert (found.kind, found.base_family, found.format) == ("embedding", "sd1", "pt")
    assert found.details == {
        "vectors": 3,
        "dim": 768,
        "internal_name": "zork",
        "step": 900,
        "sd_checkpoint_name": "v1-5",
        "token": "*",
    }
    found = detect.inspect(saved(tmp_path, "e.bin", {"<zork>": torch.zeros(768)}))
    assert (found.kind, found.details["token"], found.format) == ("embedding", "<zork>", "bin")
    layers = {"linear.0.weight": torch.zeros(4, 2), "linear.0.bias": torch.zeros(4)}
    found = detect.inspect(
        saved(tmp_path, "h.pt", {"step": 5, "name": "hyper", 768: (layers, layers), 320: (layers, layers)})
    )
    assert (found.kind, found.base_family, found.details["name"]) == ("hypernetwork", "sd1", "hyper")
    found = detect.inspect(saved(tmp_path, "a.pt", torch.zeros(1, 768)))
    assert found.kind == "aesthetic_gradient"
    nested = {
        "image_proj": {"proj.weight": torch.zeros(8, 4)},
        "ip_adapter": {"1.to_k_ip.weight": torch.zeros(320, 768)},
    }
    assert detect.inspect(saved(tmp_path, "ip.bin", nested)).kind == "ip_adapter"
    esrgan = {
        "params_ema": {
            "conv_first.weight": torch.zeros(64, 3, 3, 3),
            "body.0.rdb1.conv1.weight": torch.zeros(32, 64, 3, 3),
        }
    }
    found = detect.inspect(saved(tmp_path, "x4.pth", esrgan))
    assert (found.kind, found.details) == ("upscaler", {"scale": 4})


def test_what_a_trainer_keeps_beside_the_weights_is_not_counted(tmp_path: Path) -> None:
    import torch

    weights = {f"{LDM}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 768)}
    memory = {"state": {0: {"exp_avg": torch.zeros(320, 768)}}, "param_groups": [{"lr": 1e-4}]}
    for name, value in {
        "lightning": {"epoch": 1, "state_dict": weights, "optimizer_states": [memory], "callbacks": {}},
        "twice": {"model": {"params_ema": weights, "params": weights}, "optimizer": memory},
        "listed": [weights, {"step": 5}],
    }.items():
        found = detect.inspect(saved(tmp_path, f"{name}.ckpt", value))
        assert (found.base_family, found.tensors, found.parameters) == ("sd1", 1, 320 * 768), name
    lightning = detect.inspect(tmp_path / "lightning.ckpt")
    assert lightning.metadata["epoch"] == 1


def gguf(tensors: Mapping[str, tuple[tuple[int, ...], int]], **pairs: Any) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    made = io.BytesIO()
    made.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)))
    for key, value in pairs.items():
        made.write(text(key.replace("__", ".")))
        if isinstance(value, str):
            made.write(struct.pack("<I", 8) + text(value))
        elif isinstance(value, list):
            made.write(struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value)))
        else:
            made.write(struct.pack("<II", 4, value))
    for name, (shape, kind) in tensors.items():
        made.write(text(name) + struct.pack("<I", len(shape)))
        made.write(b"".join(struct.pack("<Q", n) for n in reversed(shape)) + struct.pack("<IQ", kind, 0))
    return made.getvalue()


def test_gguf(tmp_path: Path) -> None:
    path = tmp_path / "flux.gguf"
    weights = {name: (shape, 12) for name, shape in (FLUX | GUIDED).items()}
    path.write_bytes(gguf(weights, general__architecture="flux", general__file_type=15))
    found = detect.inspect(path)
    assert (found.format, found.kind, found.base_family) == ("gguf", "diffusion_model", "flux1")
    assert (found.architecture, found.precision) == ("Flux.1-dev", "Q4_K_M")
    path.write_bytes(
        gguf(
            {"token_embd.weight": ((32128, 4096), 8), "enc.blk.0.attn_q.weight": ((4096, 4096), 8)},
            general__architecture="t5encoder",
            t5encoder__embedding_length=4096,
            tokens=["a"] * 100_000,
        )
    )
    found = detect.inspect(path)
    assert (found.kind, found.base_family, found.precision) == ("text_encoder", "t5-xxl", "Q8_0")
    assert found.metadata["tokens"] == "100,000 values"
    path.write_bytes(
        gguf(
            {"token_embd.weight": ((1000, 64), 8), "blk.0.attn_q.weight": ((64, 64), 8)}, general__architecture="gizmo"
        )
    )
    found = detect.inspect(path)
    assert (found.kind, found.base_family) == ("text_encoder", "gizmo")


@pytest.mark.parametrize(
    ("kind", "file_type", "precision"),
    [(0, 0, "F32"), (1, 1, "F16"), (8, 7, "Q8_0"), (14, 18, "Q6_K"), (12, 14, "Q4_K_S"), (30, 32, "BF16"),
     (40, 39, "NVFP4"), (13, None, "Q5_K"), (12, 0, "Q4_K"), (777, 5000, "type 777")],
)  # fmt: skip
def test_gguf_precision_is_what_most_weights_are_of(
    kind: int, file_type: int | None, precision: str, tmp_path: Path
) -> None:
    said = {} if file_type is None else {"general__file_type": file_type}
    shapes = {"head.modulation": ((1, 2, 5120), 0), "blocks.0.self_attn.q.weight": ((5120, 5120), kind)}
    (tmp_path / "wan.gguf").write_bytes(gguf(shapes, general__architecture="wan", **said))
    found = detect.inspect(tmp_path / "wan.gguf")
    assert (found.kind, found.base_family, found.precision) == ("diffusion_model", "wan", precision)


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF",
        b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 9, 2**60),
        gguf({"a": ((2, 3), 0)})[:-4],
    ],
)
def test_a_broken_gguf_is_refused_at_once(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(VerificationFailed, match="GGUF"):
        detect.inspect(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", b"<!DOCTYPE html><title>Sign in</title>", "web page"),
        ("a.safetensors", b'{"error": "Unauthorized"}', "JSON"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:aa", "git-lfs pointer"),
        ("a.safetensors", bytes(4096), "nothing but zeros"),
        ("a.safetensors", b"", "empty"),
        ("a.ckpt", b"<html>", "web page"),
        ("a.gguf", b"\x89PNG....", "no known format"),
        ("a.ckpt", b"PK\x03\x04" + bytes(500), "broken archive"),
        ("a.pt", b"\x80\x02}q\x00(X\x05", "torch file"),
    ],
)
def test_a_damaged_model_is_refused_with_words(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VerificationFailed) as refusal:
        detect.inspect(tmp_path / name)
    assert reason in refusal.value.message
    assert name in refusal.value.message


def test_files_that_are_no_models_are_described_not_refused(tmp_path: Path) -> None:
    """What a download looks like before it has its suffix, or what a version has beside its model."""
    for name, content, note in (
        ("a.part", b"<html>", "web page"),
        ("config.yaml", b"model:\n  target: x\n", "plain text"),
        ("workflow.json", b'{"3": {"class_type": "KSampler"}}', "JSON"),
        ("empty", b"", "empty"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(20), "picture"),
    ):
        (tmp_path / name).write_bytes(content)
        found = detect.inspect(tmp_path / name)
        assert (found.format, found.kind) == ("unknown", None)
        assert note in found.notes[0]


def test_a_file_without_its_suffix_is_known_by_its_bytes(tmp_path: Path) -> None:
    text = json.dumps({"emb_params": {"dtype": "F32", "shape": [1, 768], "data_offsets": [0, 3072]}}).encode()
    (tmp_path / "blob").write_bytes(struct.pack("<Q", len(text)) + text + bytes(3072))
    assert detect.inspect(tmp_path / "blob").format == "safetensors"
    (tmp_path / "wrong.ckpt").write_bytes((tmp_path / "blob").read_bytes())
    found = detect.inspect(tmp_path / "wrong.ckpt")
    assert (found.format, found.kind) == ("safetensors", "embedding")
    assert "is named .ckpt but is a safetensors file" in found.notes[0]
    assert detect.inspect(saved(tmp_path, "part", {"clip_l": 1})).format == "pt"


def test_a_file_made_to_be_both_is_refused(tmp_path: Path) -> None:
    """Its length reads as the beginning of a pickle, whose instructions stand in the header's text."""
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04G\x00\x00\x00\x00\x00" + b'{"a' + b"cos\nsystem\n)R.")
    with pytest.raises(VerificationFailed, match="a safetensors file and a pickle at once"):
        detect.inspect(tmp_path / "x.safetensors")


# --- any input --------------------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    ["lora_unet_", "lora_te_", "down_blocks", "double_blocks", "transformer_blocks", "0", "1", "attn2", "to_k",
        "lora_down",
     "lora_up", "lora_A", "weight", "bias", "alpha", "decoder", "conv_in", "model", "diffusion_model", "body",
         "oft_blocks",
     "lokr_w1", "emb_params", "hada_w1_a", "diff", "a1", "a2", "layers", "self_attn", "q_proj", ".", "_", "é", ""]
)  # fmt: skip
_NAMES = st.lists(_WORDS, min_size=1, max_size=8).map(".".join) | st.text(max_size=20)
_SHAPES = st.none() | st.lists(st.integers(0, 2**62), max_size=6).map(tuple)
_META = st.dictionaries(
    st.sampled_from(
        ["ss_tag_frequency", "ss_datasets", "ss_dataset_dirs", "ss_network_args", "ss_network_dim", "ss_network_alpha",
         "ss_network_module", "modelspec.architecture", "ss_base_model_version", "ss_resolution",
             "lora_adapter_metadata",
         "modelspec.trigger_phrase", "sshs_model_hash", "name", "step", "general.architecture", "general.file_type"]
    ),
    st.text(max_size=30)
    | st.sampled_from(['{"a": {"b": 1}}', "[[1]]", '{"a": null}', "1e999", "-5", "nan", "[1, {}]",
        '{"a": {"b": -1, "c": true}}']),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(_NAMES, st.tuples(st.sampled_from(["F16", "F8_E4M3", "odd", None]), _SHAPES), max_size=12), _META
)
def test_any_names_shapes_and_metadata_give_an_answer(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    made = {name: Tensor(dtype, shape) for name, (dtype, shape) in tensors.items()}
    found = detect.from_header(Header(made, metadata), size=1)
    text = json.dumps(found.to_json(full=True))
    assert json.loads(text)["tensors"] == len(made)
    assert found.kind is None or found.kind in detect.KINDS


_BEGINNINGS = st.sampled_from([b"", b"PK\x03\x04", b"GGUF", b"\x80\x02", b"\x89PNG\r\n\x1a\n"])
_SUFFIXES = st.sampled_from([".safetensors", ".ckpt", ".pt", ".bin", ".gguf", ".png", ".json", ".zip", ""])


@settings(max_examples=300, deadline=None)
@given(st.tuples(_BEGINNINGS, st.binary(max_size=300)).map(b"".join), _SUFFIXES)
def test_any_file_gives_facts_or_a_named_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"x{suffix}"
    path.write_bytes(content)
    try:
        json.dumps(detect.inspect(path).to_json())
    except VerificationFailed as refusal:
        assert refusal.message


def test_a_header_of_very_many_tensors_is_linear() -> None:
    shapes = {}
    for index in range(20_000):
        shapes |= lora(f"lora_unet_down_blocks_1_attentions_{index}_proj_in", 640, 640)
    started = time.monotonic()
    assert facts(shapes).kind == "lora"
    assert time.monotonic() - started < 60  # a fifth of a second; minutes where something is quadratic


# --- the libraries' own models ----------------------------------------------------------------------------------------

LIBRARY = {
    "AuraFlowTransformer2DModel": "auraflow", "ChromaTransformer2DModel": "chroma1",
    "CogVideoXTransformer3DModel": "cogvideox", "CosmosTransformer3DModel": "cosmos1",
    "Flux2Transformer2DModel": "flux2", "FluxTransformer2DModel": "flux1",
        "HunyuanVideoTransformer3DModel": "hunyuan-video",
    "Kandinsky5Transformer3DModel": "kandinsky5", "LTXVideoTransformer3DModel": "ltx-video",
    "Lumina2Transformer2DModel": "lumina2", "MochiTransformer3DModel": "mochi",
        "PixArtTransformer2DModel": "pixart-alpha",
    "QwenImageTransformer2DModel": "qwen-image", "SD3Transformer2DModel": "sd3", "SanaTransformer2DModel": "sana",
    "WanTransformer3DModel": "wan", "ZImageTransformer2DModel": "z-image", "Flux3Transformer2DModel": "flux3",
    "Krea2Transformer2DModel": "krea2", "LTX2VideoTransformer3DModel": "ltx-2", "OvisImageTransformer2DModel": "ovis",
    "MiniMaxH3Transformer3DModel": "minimax-h3", "CogView3PlusTransformer2DModel": "cogview3",
    "QwenImage21Transformer2DModel": "qwen-image-2.1", "HunyuanVideo15Transformer3DModel": "hunyuan-video",
}  # fmt: skip
SAME_WHEN_ADAPTED = {
    "ChromaTransformer2DModel": {"flux1"},
    "PixArtTransformer2DModel": {"pixart-sigma"},
    "OvisImageTransformer2DModel": {"flux1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARY)
def test_what_diffusers_itself_builds(name: str) -> None:
    """Each transformer of the library, built without memory: recognised whole, and as a LoRA on its attention."""
    import torch
    from diffusers.models import transformers

    with torch.device("meta"):
        model = getattr(transformers, name)()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = facts(shapes)
    assert (found.kind, found.base_family) == ("diffusion_model", LIBRARY[name])
    for style, prefix in (("peft", "transformer."), ("kohya", "lora_unet_")):
        adapter: Shapes = {}
        for key, shape in shapes.items():
            layer = key.removesuffix(".weight")
            if len(shape) == 2 and re.search(r"\.to_(q|k|v|out|query|key|value|qkv)", key) and "refiner" not in key:
                layer = layer.replace(".", "_") if style == "kohya" else layer
                adapter |= lora(prefix + layer, shape[0], shape[1], style=style)
        found = facts(adapter)
        assert found.kind == "lora"
        assert found.base_family in {LIBRARY[name]} | SAME_WHEN_ADAPTED.get(name, set())

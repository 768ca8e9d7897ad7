"""Everything that is neither a whole denoiser nor an adapter to one, told by the names only it has.

Embeddings, VAEs, ControlNets and other guides, text encoders, CLIP vision, motion modules, upscalers, hypernetworks,
detectors. `recognise` asks each in turn; a checkpoint that merely contains a VAE or a text encoder is none of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry import families
from registry.families import DENOISER, TEXT, VAE, Network, place
from registry.header import Header, Tensor

Shape = tuple[int, ...] | None


@dataclass(frozen=True)
class Part:
    """A component and, where its widths tell, the family it belongs to."""

    kind: str
    family: str | None = None
    architecture: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class _Names:
    """The tensors of a file with quick questions about their names."""

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        self.tensors = tensors
        self.metadata = metadata
        self.text = "\n" + "\n".join(tensors) + "\n"

    def starts(self, *starts: str) -> bool:
        return any(f"\n{start}" in self.text for start in starts)

    def within(self, *parts: str) -> bool:
        return any(part in self.text for part in parts)

    def shape(self, *names: str) -> Shape:
        for name in names:
            if (tensor := self.tensors.get(name)) is not None and tensor.shape is not None:
                return tensor.shape
        return None

    def ending(self, *ends: str) -> Shape:
        """The shape of the first tensor whose name ends so."""
        for end in ends:
            for name, tensor in self.tensors.items():
                if name.endswith(end) and tensor.shape is not None:
                    return tensor.shape
        return None

    def width(self, *ends: str, axis: int = 1) -> int | None:
        shape = self.ending(*ends)
        return shape[axis] if shape and len(shape) > axis else None


def recognise(found: Header) -> Part | None:
    names = _Names(found.tensors, found.metadata)
    inside = {place(name)[0] for name in found.tensors}
    if inside == {VAE} and not names.starts("lora_vae_"):
        stripped = {name.split(".", 1)[1]: tensor for name, tensor in found.tensors.items()}
        return _vae(_Names(stripped, found.metadata)) or Part("vae")
    for ask in _QUESTIONS:
        part = ask(names)
        if part is not None:
            return part
    return None


# --- embeddings -------------------------------------------------------------------------------------------------------

_EMBEDDING_NAMES = {
    "emb_params", "clip_l", "clip_g", "t5", "t5xxl", "tensor", "token_embeds", "qwen", "llama", "gemma",
    "text_encoders_0", "text_encoders_1", "text_encoders_2",
}  # fmt: skip


def _embedding(names: _Names) -> Part | None:
    vectors = {
        name: tensor.shape
        for name, tensor in names.tensors.items()
        if tensor.shape is not None and len(tensor.shape) in (1, 2) and _names_embedding(name)
    }
    if not vectors or len(vectors) * 2 < len(names.tensors) or len(names.tensors) > 64:
        return None
    widths = {shape[-1] for shape in vectors.values()}
    if "tensor" in vectors and len(vectors) == 1:
        if names.metadata.keys() & {"name", "step", "string_to_token"}:
            pass
        elif len(names.tensors) == 1:
            return Part("aesthetic_gradient", _EMBEDDING_FAMILY.get(frozenset(widths)))
    counts = {shape[0] if len(shape) == 2 else 1 for shape in vectors.values()}
    details: dict[str, Any] = {"vectors": max(counts), "dim": max(widths)}
    for key, name in (("name", "internal_name"), ("step", "step"), ("sd_checkpoint_name", "sd_checkpoint_name")):
        if names.metadata.get(key) not in (None, ""):
            details[name] = names.metadata[key]
    tokens = [name.rsplit(".", 1)[-1] for name in vectors if name.startswith("string_to_param") or name[:1] == "<"]
    if tokens:
        details["token"] = tokens[0][:200]
    family = _EMBEDDING_FAMILY.get(frozenset(widths))
    if "llama" in vectors:
        family = "hidream-i1" if "clip_g" in vectors else "hunyuan-video"
    elif "qwen" in vectors:
        family = "qwen-image" if widths == {3584} else None
    return Part("embedding", family, details=details)


def _names_embedding(name: str) -> bool:
    return (
        name in _EMBEDDING_NAMES
        or name.startswith(("string_to_param", "bundle_emb."))
        or (name[:1] == "<" and name[-1:] == ">" and len(name) < 300)
    )


_EMBEDDING_FAMILY = {
    frozenset([768]): "sd1",
    frozenset([1024]): "sd2",
    frozenset([1280]): "sdxl",
    frozenset([768, 1280]): "sdxl",
    frozenset([768, 1280, 4096]): "sd3",
    frozenset([768, 4096]): "flux1",
}


# --- guides -----------------------------------------------------------------------------------------------------------


def _ip_adapter(names: _Names) -> Part | None:
    if names.starts("redux_up.", "redux_down."):
        return Part("style_model", "flux1", "Flux.1-redux-dev")
    if names.within("pulid_ca.", "pulid_encoder.") or names.starts("id_encoder.", "qformer_perceiver"):
        return Part("identity_adapter", _family_by_context(names.width("pulid_ca.0.to_q.weight", ".to_k.weight")))
    if names.within("ip_adapter_double_stream", "ip_adapter_proj_model", "ip_adapter_single_stream"):
        return Part("ip_adapter", "flux1", "Flux.1-dev/ip-adapter")
    if not names.starts("ip_adapter.", "image_proj.", "image_proj_model.", "ip-adapter."):
        return None
    details: dict[str, Any] = {}
    if names.within("lora"):
        details["face_id"] = True
    context = names.width("to_k_ip.weight", "to_v_ip.weight")
    output = names.width("to_k_ip.weight", axis=0)
    family = {768: "sd1", 1024: "sd2", 2048: "sdxl"}.get(context or 0)
    if family == "sdxl" and output in (2432, 1536):
        family = "sd3"
    if output == 3072:
        family = "flux1"
    return Part("ip_adapter", family, details=details)


def _family_by_context(width: int | None) -> str | None:
    return {768: "sd1", 1024: "sd2", 2048: "sdxl", 3072: "flux1"}.get(width or 0)


_CONTROL_MARKS = (
    "brushnet_down_blocks.", "brushnet_mid_block.", "control_blocks.", "control_img_in.",
    "controlnet_cond_embedding.", "controlnet_blocks.", "controlnet_down_blocks.", "controlnet_mid_block.",
    "controlnet_mode_embedder.", "controlnet_x_embedder.", "control_model.", "control_all_x_embedder",
    "control_noise_refiner.", "controlnet_patch_embedding", "control_add_embedding.", "input_hint_block.",
)  # fmt: skip


def _control(names: _Names) -> Part | None:
    if "lora_controlnet" in names.tensors:
        return Part("control_lora", _control_family(names), details={"kind": "control-lora of a UNet"})
    if names.within("lllite_unet", "lllite_"):
        return Part("controlnet", "sdxl", details={"kind": "ControlNet-LLLite"})
    if not (names.starts(*_CONTROL_MARKS, "zero_convs.") or names.within("\ncontrol_layers.")):
        return None
    if names.starts("model.diffusion_model.") and not names.starts("control_model."):
        return None
    family = _control_family(names)
    details: dict[str, Any] = {}
    if names.starts("controlnet_mode_embedder.", "control_add_embedding."):
        details["union"] = True
    if names.starts("brushnet_"):
        details["kind"] = "BrushNet"
    if names.starts("first_stage_model.", "model.diffusion_model."):
        details["with_base"] = True
    return Part("controlnet", family, details=details)


def _control_family(names: _Names) -> str | None:
    if names.starts("control_all_x_embedder", "control_noise_refiner.") or names.within("\ncontrol_layers."):
        return "z-image"
    if names.within("x_block."):
        return "sd3"
    if names.starts("control_img_in.") and names.within(".img_mod."):
        return "qwen-image"
    layers = [
        (name.removesuffix(".weight").removesuffix(".down").removesuffix(".up"), tensor.shape)
        for name, tensor in names.tensors.items()
        if not name.endswith((".bias", ".up")) and not name.startswith(("first_stage_model.", "cond_stage_model."))
    ]
    family = families.recognise(Network.of(layers))
    if family is None and names.within("down_blocks.2.attentions", "add_embedding", "label_emb"):
        return "sdxl"
    return family.name if family else None


def _t2i(names: _Names) -> Part | None:
    if names.within("style_embedding", "transformer_layes"):
        return Part("style_model", "sd1", details={"kind": "T2I style adapter"})
    adapter = names.starts("adapter.body.") or (names.starts("body.0.resnets.", "body.0.block1.", "body.0.in_conv."))
    if not adapter and not names.starts("body.0.resnets"):
        return None
    channels = names.width("conv_in.weight", "body.0.in_conv.weight")
    family = {192: "sd1", 64: "sd1", 768: "sdxl", 256: "sdxl"}.get(channels or 0)
    return Part("t2i_adapter", family, details={"input_channels": channels} if channels else {})


def _motion(names: _Names) -> Part | None:
    if not names.within("motion_modules.", "motion_module."):
        return None
    modules = sum("motion_module" in name for name in names.tensors)
    if modules * 2 < len(names.tensors):
        return None
    family = "sd1" if names.within("down_blocks.3.", "up_blocks.3.") or names.within("mid_block.") else "sdxl"
    if names.within("lora"):
        family = "sd1" if names.within("down_blocks.3.", "up_blocks.3.") else family
        return Part("motion_lora", family)
    length = names.width("pos_encoder.pe")
    return Part("motion_module", family, details={"frames": length} if length else {})


# --- VAE --------------------------------------------------------------------------------------------------------------


_VAE_PARTS = (
    "decoder.", "encoder.", "quant_conv", "post_quant_conv", "loss.", "bn.", "model_ema.", "conv1.", "conv2.",
    "per_channel_statistics", "quantize.", "latents_", "module.", "time_mix", "scaling",
)  # fmt: skip


_TAESD = re.compile(r"\d{1,2}\.(?:conv\.\d\.|skip\.)?(?:weight|bias)")


def _bare_taesd(names: _Names) -> Part:
    """One half of a TAESD as its author saves them: the layers of a sequence, numbered."""
    first = names.shape("0.weight")
    decoder = first is None or len(first) < 2 or first[1] != 3
    if decoder:
        channels = (names.shape("1.weight") or (0, 0))[1:2]
    else:
        last = max((int(n.split(".")[0]) for n in names.tensors if n.count(".") == 1), default=0)
        channels = (names.shape(f"{last}.weight") or (0,))[:1]
    details: dict[str, Any] = {"tiny": True, **({"decoder_only": True} if decoder else {})}
    if channels and channels[0]:
        details["latent_channels"] = channels[0]
    return Part("vae", None, details=details)


def _vae(names: _Names) -> Part | None:
    if names.starts("vquantizer."):
        return Part("vae", "stable-cascade-v1-prior", details={"stage": "A"})
    if names.starts("taesd_decoder.", "taesd_encoder."):
        channels = names.width("taesd_decoder.1.weight")
        return Part("vae", None, details={"tiny": True, **({"latent_channels": channels} if channels else {})})
    if names.within(".conv.0.weight") and all(_TAESD.fullmatch(name) for name in names.tensors):
        return _bare_taesd(names)
    if not names.starts("decoder.", "encoder.", "module.decoder.", "decoder_layers."):
        return None
    if names.within("SelfAttention", "self_attn.", "attention.self.", "stylegan", "rdb1", "decoder.block.0.layer"):
        return None
    if names.within("embeddings.", "encoder.layer."):
        return None  # a transformer's encoder
    mine = sum(name.startswith(_VAE_PARTS) for name in names.tensors)
    if mine * 10 < len(names.tensors) * 8:
        return None
    shape = names.shape(
        "decoder.conv_in.weight", "decoder.conv_in.conv.weight", "decoder.conv1.weight",
        "decoder.conv_in.conv_s.weight", "decoder.project_in.conv.weight", "decoder.conv_in.conv.conv.weight",
        "decoder.layers.0.weight",
        "decoder.layers.1.weight", "decoder.stages.0.op_list.0.main.conv.conv.weight",
    )  # fmt: skip
    channels = shape[1] if shape and len(shape) > 1 else None
    details: dict[str, Any] = {"latent_channels": channels} if channels else {}
    family, notes = _vae_family(names, shape)
    if names.starts("decoder.layers.") and names.within(".conv.0.weight"):
        details["tiny"] = True
    if names.starts("decoder.") and not names.starts("encoder."):
        details["decoder_only"] = True
    return Part("vae", family, details=details, notes=notes)


def _vae_family(names: _Names, shape: Shape) -> tuple[str | None, tuple[str, ...]]:
    channels = shape[1] if shape and len(shape) > 1 else None
    if names.within(".gamma") and channels == 64:
        return "qwen-image-2.1", ()
    if names.within(".gamma") and shape and len(shape) == 5:
        if channels == 32:
            return "hunyuan-video", ()
        return "wan", ("Wan and Qwen-Image share this VAE",) if channels == 16 else ()
    if names.within("op_list.", "project_in.conv", "conv_inverted", "to_qkv_multiscale"):
        return "sana", ()
    if names.within("temp_conv_in."):
        return "allegro", ()
    if names.within(".snake1.", "decoder.block.0.res_unit"):
        return "stable-audio", ()
    if names.starts("decoder.transformer_blocks.", "decoder.proj_in."):
        return "minimax-h3", ()
    if channels == 8 and (names.shape("decoder.conv_out.conv.weight") or ())[:1] == (2,):
        return "ltx-2", ()  # two channels of sound
    if names.within("per_channel_statistics", "last_time_embedder", "timestep_embedder") or channels == 128:
        return ("ltx-2" if _ltx2_vae(names) else "ltx-video"), ()
    if names.within("norm_layer"):
        return ("mochi" if channels == 12 else "cogvideox"), ()
    if names.within("conv_s.", "unpatcher3d"):
        return "cosmos1", ()
    if names.within("time_mixer", "time_stack", "temporal"):
        return "svd", ()
    if shape and len(shape) == 5:
        return {16: ("hunyuan-video", ()), 32: ("hunyuan-video", ()), 128: ("ltx-video", ()), 12: ("mochi", ())}.get(
            channels or 0, (None, ())
        )
    if channels == 32 and names.starts("bn."):
        return "flux2", ()
    if channels == 64:
        return "hunyuan-image", ()
    if channels == 4:
        return None, ("4 latent channels: SD1, SD2 and SDXL VAEs have the same shapes",)
    if channels == 16:
        return None, ("16 latent channels: Flux.1, SD3 and others have the same shapes",)
    return None, ()


def _ltx2_vae(names: _Names) -> bool:
    """Encoders of 2048 channels came with LTX-Video 0.9.5, whose decoders are told the time; LTX-2's are not."""
    timed = names.within("time_embedder", "timestep_embedder", "timestep_scale")
    return not timed and names.width("encoder.conv_out.conv.weight") == 2048


# --- text encoders and CLIP vision ------------------------------------------------------------------------------------


def _text_encoder(names: _Names) -> Part | None:
    outside = any(
        place(name)[0] == DENOISER and name.startswith(("model.diffusion_model.", "diffusion_model."))
        for name in names.tensors
    )
    if outside or names.starts("first_stage_model.", "vae."):
        return None
    if names.metadata.get("general.architecture") in _GGUF_TEXT:
        return _gguf_text(names)
    if names.starts("token_embd.") and names.starts("blk.0."):  # a language model llama.cpp learnt after us
        said = str(names.metadata.get("general.architecture") or "")[:40]
        return Part("text_encoder", said or None)
    vision = names.within("vision_model.encoder.layers.", "visual.transformer.resblocks.", "vision_model.embeddings.")
    vision = vision or names.starts("embeddings.patch_embedding.")
    text = names.within(
        "text_model.encoder.layers.", "\ntransformer.resblocks.", "model.transformer.resblocks.",
        "embeddings.token_embedding.",
    )  # fmt: skip
    if vision and not text:
        return _clip_vision(names)
    if names.within("embeddings.patch_embeddings.projection") and names.within("encoder.layer."):
        return Part("clip_vision", "dinov2")
    if names.within("attention.self.query.weight") and names.within("word_embeddings"):
        vocabulary = (names.ending("word_embeddings.weight") or (0,))[0]
        return Part("text_encoder", "xlm-roberta" if vocabulary > 200_000 else "bert")
    if text and not names.within("lora"):
        width = names.width("token_embedding.weight", "text_projection.weight") or names.width(
            "self_attn.q_proj.weight", "attn.in_proj_weight"
        )
        family = {768: "clip-l", 1280: "clip-g", 1024: "clip-h", 512: "clip-b"}.get(width or 0)
        return Part("text_encoder", family, notes=("it holds a vision encoder too",) if vision else ())
    if names.within("SelfAttention.q.weight", "SelfAttention.q.qweight"):
        return Part("text_encoder", *_t5(names))
    if names.within("self_attention.query_key_value.weight") and names.within("word_embeddings"):
        return Part("text_encoder", "chatglm3", "chatglm3-6b")
    if names.within("layers.0.self_attn.q_proj.weight", "layers.0.self_attn.qkv_proj.weight"):
        return _language_model(names)
    return None


def _t5(names: _Names) -> tuple[str, str | None]:
    shape = names.ending("shared.weight", "encoder.embed_tokens.weight")
    width = names.width("SelfAttention.q.weight") or (shape[1] if shape and len(shape) > 1 else None)
    size = {4096: "xxl", 2048: "xl", 1024: "large", 768: "base", 512: "small", 1472: "small"}.get(width or 0)
    vocabulary = shape[0] if shape else 32128
    name = "byt5" if vocabulary < 2000 else "t5"  # Glyph-ByT5 adds tokens of its own to the 384
    if vocabulary > 200_000:
        name = "mt5" if vocabulary == 250_112 else "umt5"
    return f"{name}-{size}" if size else name, None


def _clip_vision(names: _Names) -> Part:
    width = names.width(
        "embeddings.patch_embedding.weight", "visual.conv1.weight", "class_embedding",
        "layer_norm1.weight", axis=0,
    )  # fmt: skip
    siglip = names.within("vision_model.head.", "\nhead.attention.") or width == 1152
    known = {1280: "clip-vit-h", 1664: "clip-vit-bigg", 1024: "clip-vit-l", 768: "clip-vit-b"}
    return Part("clip_vision", "siglip" if siglip else known.get(width or 0))


def _language_model(names: _Names) -> Part | None:
    shape = names.ending("embed_tokens.weight")
    vocabulary, width = (shape[0], shape[1]) if shape and len(shape) > 1 else (0, 0)
    width = width or names.width("layers.0.self_attn.q_proj.weight") or 0
    vision = names.within("visual.", "vision_model.", "vision_tower.", "multi_modal_projector")
    gemma = names.within("pre_feedforward_layernorm")
    if gemma:
        new = names.within("self_attn.q_norm") or vocabulary > 260_000
        sizes = {2304: "2b", 3584: "9b", 3840: "12b", 2560: "4b", 1152: "1b", 640: "270m"}
        name, size = ("gemma3" if new else "gemma2"), sizes.get(width)
    elif names.within("self_attn.q_norm"):
        name = "qwen3-vl" if vision else "qwen3"
        size = {1024: "0.6b", 2048: "1.7b", 2560: "4b", 4096: "8b", 5120: "14b"}.get(width)
    elif names.within("self_attn.q_proj.bias"):
        name = "qwen2.5-vl" if vision else "qwen2.5"
        size = {3584: "7b", 2048: "3b", 1536: "1.5b", 896: "0.5b", 5120: "32b"}.get(width)
    elif (vocabulary, width) in {(256_000, 2048), (256_000, 3072)}:
        name, size = "gemma", {2048: "2b", 3072: "7b"}.get(width)
    elif names.within("self_attn.qkv_proj.weight") and vocabulary == 32_064:
        name, size = "phi3", {3072: "mini"}.get(width)
    elif vocabulary in (32_000, 32_768) and names.width("layers.0.self_attn.k_proj.weight", axis=0) == 1024:
        name, size = "mistral", {4096: "7b"}.get(width)
    elif vocabulary == 131_072 or width == 5120:
        name, size = "mistral3", {5120: "24b"}.get(width)
    elif 128_000 <= vocabulary <= 129_000:
        name, size = "llama3", {4096: "8b", 3072: "3b", 2048: "1b"}.get(width)
    elif vocabulary:
        name, size = "llama", None
    else:
        return Part("text_encoder", notes=("a language model; without shapes it cannot be told which",))
    return Part("text_encoder", name, f"{name}-{size}" if size else name)


_GGUF_TEXT = {
    "t5": "t5", "t5encoder": "t5", "umt5": "umt5", "llama": "llama3", "qwen2vl": "qwen2.5-vl", "qwen2": "qwen2.5",
    "qwen3": "qwen3", "qwen3vl": "qwen3-vl", "gemma2": "gemma2", "gemma3": "gemma3", "mistral3": "mistral3",
    "clip": "clip", "bert": "bert", "phi3": "phi3",
}  # fmt: skip


def _gguf_text(names: _Names) -> Part:
    named = str(names.metadata.get("general.architecture"))
    family = _GGUF_TEXT[named]
    width = names.metadata.get(f"{named}.embedding_length")
    if family in {"t5", "umt5"} and isinstance(width, int):
        size = {4096: "xxl", 2048: "xl", 1024: "large", 768: "base"}.get(width)
        vocabulary = names.shape("token_embd.weight")
        family = "umt5" if vocabulary and vocabulary[0] > 200_000 else family
        return Part("text_encoder", f"{family}-{size}" if size else family)
    if family == "clip":
        return Part("clip_vision", None, notes=("a vision tower for a language model (mmproj)",))
    label = names.metadata.get("general.size_label")
    return Part("text_encoder", family, f"{family}-{label}".lower() if isinstance(label, str) else family)


def family_of_text_encoder(tensors: Mapping[str, Tensor]) -> str | None:
    """Stable Diffusion's family by the text encoder built into a checkpoint, for UNets of unusual width."""
    names = _Names({name: t for name, t in tensors.items() if place(name)[0] == TEXT}, {})
    if names.starts("conditioner.embedders.1.", "conditioner.embedders.0.model.", "cond_stage_model.1."):
        return "sdxl"
    if names.starts("cond_stage_model.model."):
        return "sd2"
    return "sd1" if names.starts("cond_stage_model.") else None


# --- the rest ---------------------------------------------------------------------------------------------------------


def _upscaler(names: _Names) -> Part | None:
    if names.within("RDB1.conv1.0.weight") and names.starts("model.0."):
        stages = (re.fullmatch(r"model\.(\d{1,2})\.weight", name) for name in names.tensors)
        last = max((int(stage[1]) for stage in stages if stage), default=10)
        return Part("upscaler", "esrgan", details=_scale({4: 1, 7: 2, 10: 4, 13: 8, 16: 16}.get(last)))
    if names.within("RDB1.conv1x1.weight") and names.starts("model.0."):
        return Part("upscaler", "esrgan")
    if names.within("rdb1.conv1.weight", "rdb1.conv1.0.weight", "RDB1.conv1.weight") and names.starts("conv_first."):
        if names.starts("de_net.", "dd_embed."):
            return Part("upscaler", "mm-realsr")
        channels = names.width("conv_first.weight")
        return Part("upscaler", "esrgan", details=_scale({3: 4, 12: 2, 48: 1}.get(channels or 0)))
    if names.starts("stylegan_decoder.", "final_linear.") and names.within("style"):
        return Part("face_restore", "gfpgan")
    if names.starts("quantize.embedding") and names.within("fuse_convs_dict", "idx_pred_layer"):
        return Part("face_restore", "codeformer")
    if names.starts("quantize.embedding") and names.within("decoder.mid.attn_1.", "encoder.mid.attn_1."):
        return Part("face_restore", "restoreformer")
    for family, marks in _UPSCALERS:
        if all(names.within(mark) for mark in marks):
            return Part("upscaler", family, details=_scale(_upsampler_scale(names)))
    indexes = [int(n.split(".")[1]) for n in names.tensors if re.fullmatch(r"body\.\d{1,3}\.weight", n)]
    if indexes and len(names.tensors) <= len(indexes) * 3 and max(indexes) > 4:
        shape = names.shape(f"body.{max(indexes)}.weight")
        scale = math.isqrt(shape[0] // 3) if shape and shape[0] % 3 == 0 else None
        return Part("upscaler", "realesrgan-compact", details=_scale(scale))
    return None


_UPSCALERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("hat", ("conv_first.weight", "residual_group", "overlap_attn")),
    ("rgt", ("conv_first.weight", "layers.0.blocks.0.gamma", "rpe_biases")),
    ("dat", ("conv_first.weight", "layers.0.blocks.0.attn.attns")),
    ("craft", ("conv_first.weight", "residual_group.hf_blocks")),
    ("fdat", ("groups.0.blocks.0.attn.bias", "groups.0.blocks.0.inter.cg")),
    ("atd", ("conv_first.weight", "residual_group", "attn_atd")),
    ("drct", ("conv_first.weight", "layers.0.swin1")),
    ("swinir", ("conv_first.weight", "residual_group.blocks.0.attn.relative_position_bias_table")),
    ("swin2sr", ("conv_first.weight", "residual_group.blocks.0.attn.logit_scale")),
    ("scunet", ("m_head.0.weight", "m_body.0.trans_block")),
    ("span", ("block_1.c1_r.", "conv_1.")),
    ("omnisr", ("residual_layer.0.residual_layer", "up.0.weight")),
    ("plksr", ("feats.0.weight", "feats.1.lk.conv")),
    ("plksr", ("feats.0.weight", "feats.1.channe_mixer")),
    ("grl", ("conv_first.weight", "layers.0.blocks.0.attn.window_attn")),
    ("rcan", ("tail.1.weight", "body.0.body.0.body.3.conv_du")),
    ("real-cugan", ("unet1.conv1.conv.0.weight", "unet2.conv1.conv.0.weight")),
    ("mosr", ("gblocks.0.weight", "gblocks.1.fc1.weight")),
    ("moesr", ("in_to_dim.weight", "blocks.0.blocks.0.conv.dwconv_hw")),
    ("safmn", ("to_feat.", "safm.mfr.")),
    ("dctlsa", ("fea_conv.weight", "B1.body.0.transformer_body")),
    ("ditn", ("sft.weight", "UFONE.0.ITLs")),
    ("seemore", ("conv_1.weight", "local_block.block.agg_conv", "upsampler.0.weight")),
    ("aura-sr", ("mid_attn.layers.0.0.to_out", "final_res_block.block1.proj.weights")),
    ("swift-srgan", ("initial.cnn.depthwise.weight", "final_conv.pointwise.weight")),
    ("ipt", ("sub_mean.weight", "body.encoder.layers.0.self_attn.in_proj_weight")),
    ("nafnet", ("intro.weight", "middle_blks.0.sca")),
    ("drunet", ("m_head.weight", "m_down1.0.res", "m_body.0.res")),
    ("fbcnn", ("m_head.weight", "qf_pred.0.res")),
    ("ldsr", ("model.diffusion_model.", "first_stage_model.quantize.embedding")),
)


def _upsampler_scale(names: _Names) -> int | None:
    """Pixel shuffles of two in a row, or one of three; else a last layer that makes all pixels of a block at once."""
    stages = [t.shape for n, t in names.tensors.items() if re.fullmatch(r"(?:upsample|upsampler)\.\d+\.weight", n)]
    factors = [math.isqrt(shape[0] // shape[1]) for shape in stages if shape and len(shape) == 4 and shape[1]]
    if factors and all(2 <= factor <= 4 for factor in factors):
        return math.prod(factors)
    last = names.shape("upsampler.0.weight", "up.0.weight", "to_img.0.weight", "upsample.0.weight")
    if last is None:
        feats = [int(n[6:-7]) for n in names.tensors if re.fullmatch(r"feats\.\d{1,3}\.weight", n)]
        last = names.shape(f"feats.{max(feats, default=0)}.weight")
    scale = math.isqrt(last[0] // 3) if last else 0
    return scale if last and 1 <= scale <= 8 and 3 * scale * scale == last[0] else None


def _scale(scale: int | None) -> dict[str, Any]:
    return {"scale": scale} if scale else {}


def _hypernetwork(names: _Names) -> Part | None:
    widths = {int(found[1]) for name in names.tensors if (found := re.match(r"(\d{3,4})\.[01]\.linear", name))}
    if not widths:
        return None
    family = next((name for width, name in ((2048, "sdxl"), (1024, "sd2"), (768, "sd1")) if width in widths), "sd1")
    keep = ("name", "step", "layer_structure", "activation_func", "sd_checkpoint_name")
    details = {key: names.metadata[key] for key in keep if names.metadata.get(key) not in (None, "")}
    return Part("hypernetwork", family, details=details)


def _others(names: _Names) -> Part | None:
    if names.within("position_net.") and names.within("fuser."):
        return Part("gligen", "sd1")
    if names.starts("model.0.conv.weight") and names.within(".cv2.0.0.conv.weight", ".cv2.conv.weight"):
        return Part("detector", "yolo")
    if names.starts("image_encoder.") and names.starts("mask_decoder."):
        return Part("detector", "sam")
    imports = str(names.metadata.get("pickle imports", ""))
    if "ultralytics" in imports or re.search(r"\bmodels\b", imports):
        return Part("detector", "yolo")
    return None


_QUESTIONS: Iterable[Callable[[_Names], Part | None]] = (
    _embedding, _ip_adapter, _motion, _control, _t2i, _hypernetwork, _upscaler, _vae, _text_encoder, _others,
)  # fmt: skip

"""Which base model a network belongs to, told from the names and widths of its layers.

Trainers and converters write the same layer in many ways (`double_blocks.0.img_attn.qkv`,
`lora_unet_double_blocks_0_img_attn_qkv`, `transformer.transformer_blocks.0.attn.to_q`). `Network` brings them into one
form, `double_blocks_#_img_attn_qkv`, and remembers each layer's width; then one table of fragments serves checkpoints
and adapters alike. Where two families share every name, widths and block counts decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DENOISER, TEXT, VAE, EMA, CONTROL = "denoiser", "text_encoder", "vae", "ema", "control"

_TEXT_PREFIXES = (
    "cond_stage_model.", "conditioner.", "text_encoders.", "text_encoder.", "text_encoder_2.", "text_encoder_3.",
    "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_text_encoder_", "lycoris_text_encoder_", "te.", "te1.",
    "te2.", "te3.", "clip_l.", "clip_g.", "t5xxl.", "lora_clip_", "embedder.", "text_model.", "cond_stage_models.",
)  # fmt: skip
_VAE_PREFIXES = ("first_stage_model.", "vae.", "lora_vae_", "audio_vae.", "vocoder.")
_WRAPPERS = (
    "base_model.model.", "base_model.", "model.diffusion_model.", "model.model.", "diffusion_model.", "transformer.",
    "unet.", "lora_unet_", "lora_transformer_", "lycoris_unet_", "lycoris_", "lora_prior_unet_", "lora_prior_",
    "oft_unet_", "net.", "module.", "_orig_mod.", "pipe.dit.", "dit.", "prior.", "diffusion_model_", "unet_",
)  # fmt: skip
_DIGITS = re.compile(r"\d+")
_FIRST = re.compile(r"^(\D*?)_?(\d+)")


def place(name: str) -> tuple[str, str]:
    """(component, name without the wrappers around it) of a tensor or module name."""
    component = DENOISER
    for _ in range(4):
        if name.startswith(_TEXT_PREFIXES):
            return TEXT, name
        if name.startswith(_VAE_PREFIXES):
            return VAE, name
        if name.startswith("model_ema."):
            return EMA, name
        if name.startswith(("control_model.", "controlnet.")):
            return CONTROL, name.split(".", 1)[1]
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name = name[len(wrapper) :]
                break
        else:
            if name.startswith("model.") and not name.startswith(("model.layers.", "model.embed", "model.norm")):
                name = name[6:]  # AuraFlow and others sit right below `model.`
                continue
            break
    return component, name


def plain(name: str) -> str:
    """`transformer_blocks.0.attn2.to_k` → `transformer_blocks_#_attnB_to_k`; attn1 and attn2 stay apart."""
    name = name.replace(".", "_").replace("attn1", "attnA").replace("attn2", "attnB")
    return _DIGITS.sub("#", name.replace("attnA_processor_", "attnA_").replace("attnB_processor_", "attnB_"))


@dataclass
class Network:
    """The layers of one denoiser in plain names: the shape of the first of each, and how many blocks there are."""

    widths: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    raw: set[str] = field(default_factory=set)  # names with their numbers, `.` as `_`
    unwrapped: bool = False  # some name had no wrapper before it
    adapter: bool = False
    _text: str | None = None

    @classmethod
    def of(cls, layers: Iterable[tuple[str, tuple[int, ...] | None]], *, adapter: bool = False) -> Network:
        network = cls(adapter=adapter)
        for name, shape in layers:
            component, inner = place(name)
            if component not in (DENOISER, CONTROL):
                continue
            network.unwrapped |= inner == name
            key = plain(inner)
            if network.widths.get(key) is None:
                network.widths[key] = shape
            flat = inner.replace(".", "_")
            network.raw.add(flat)
            if found := _FIRST.match(flat):
                network.blocks[found[1]] = max(network.blocks.get(found[1], 0), int(found[2][:6]) + 1)
        return network

    @property
    def text(self) -> str:
        if self._text is None:
            self._text = "\n" + "\n".join(self.widths) + "\n"
        return self._text

    def has(self, *fragments: str) -> bool:
        """Whether every fragment occurs in some name; `^` = at its beginning, `!` = nowhere."""
        for fragment in fragments:
            wanted = not fragment.startswith("!")
            fragment = fragment.removeprefix("!")
            if (fragment.replace("^", "\n") in self.text) != wanted:
                return False
        return True

    def shape(self, *fragments: str) -> tuple[int, ...] | None:
        """The shape of the first layer whose plain name holds a fragment (`^` = begins with it, `$` = ends with it)."""
        for fragment in fragments:
            core = fragment.strip("^$")
            for name, shape in self.widths.items():
                if shape and core in name:
                    if fragment[0] == "^" and not name.startswith(core):
                        continue
                    if fragment[-1] == "$" and not name.endswith(core):
                        continue
                    return shape
        return None

    def input(self, *fragments: str) -> int | None:
        shape = self.shape(*fragments)
        return (shape[1] or None) if shape and len(shape) > 1 else None

    def output(self, *fragments: str) -> int | None:
        shape = self.shape(*fragments)
        return (shape[0] or None) if shape else None

    def hidden(self, *fragments: str) -> int | None:
        """The width of layers as wide as what they read: some adapters only give one side away."""
        return self.input(*fragments) or self.output(*fragments)


@dataclass(frozen=True)
class Family:
    """A base family as `base_family` names it; `architecture` as modelspec would write the exact member."""

    name: str
    architecture: str | None = None
    note: str | None = None  # why it is only likely
    others: tuple[str, ...] = ()  # families whose adapters look the same; metadata may decide between them


# Fragments that only one family has, most telling first. Each row: family, then fragments that must all agree.
SIGNS: tuple[tuple[str, ...], ...] = (
    ("minimax-h3", "video_patch_proj", "audio_patch_proj"),
    ("ace-step", "lyric_encoder"),
    ("ace-step", "genre_embedder"),
    ("ace-step", "^layers_#_cross_attn_"),
    ("stable-audio", "to_timestep_embed"),
    ("stable-audio", "cross_attention_proj", "global_proj"),
    ("hunyuan3d", "^latent_in", "^cond_in"),
    ("seedvr2", "mlp_vid_proj"),
    ("seedvr2", "mlp_all_proj"),
    ("flux3", "^early_stream_modulations"),
    ("flux3", "^mode_blocks_image"),
    ("flux3", "^txt_mode_blocks"),
    ("flux3", "^single_transformer_blocks_#_ff_linear_in"),
    ("flux2", "^double_stream_modulation"),
    ("flux2", "^single_stream_modulation_lin"),
    ("flux2", "attn_to_qkv_mlp_proj"),
    ("flux2", "^transformer_blocks_#_ff_linear_in"),
    ("flux2", "^transformer_blocks_#_ff_context_linear_in"),
    ("chroma1", "distilled_guidance_layer"),
    ("chroma1", "nerf_blocks"),
    ("krea2", "txtfusion"),
    ("krea2", "^text_fusion"),
    ("krea2", "^blocks_#_attn_wq", "^blocks_#_attn_gate"),
    ("anima", "llm_adapter"),
    ("cosmos1", "blocks_block#_blocks_#_block"),
    ("boogu", "img_instruct_attn"),
    ("omnigen2", "ref_image_refiner"),
    ("omnigen", "patch_embedding_output_image_proj"),
    ("omnigen", "^input_x_embedder"),
    ("omnigen", "^llm_layers_#_self_attn_qkv_proj"),
    ("ovis", "double_blocks_#_img_mlp_gate_proj"),
    ("auraflow", "joint_transformer_blocks"),
    ("auraflow", "double_layers_#_attn_w#"),
    ("auraflow", "single_layers_#_attn_w#"),
    ("auraflow", "cond_seq_linear"),
    ("sd3", "joint_blocks_#"),
    ("qwen-image-2.1", "txt_in_text_norm"),
    ("lens", "^transformer_blocks_#_img_mlp_w#", "^transformer_blocks_#_attn_norm_added_q"),
    ("nucleus-image", "^transformer_blocks_#_encoder_proj"),
    ("qwen-image", "^txt_norm", "^transformer_blocks_#_img_"),
    ("minimax-h3", "^token_refiner_"),
    ("minimax-h3", "^blocks_#_attn_qkv_proj"),
    ("mochi", "attn_qkv_x"),
    ("mochi", "t#_yproj"),
    ("mochi", "attnA_add_k_proj"),
    ("kandinsky6", "visual_transformer_blocks_#_video_dec_block"),
    ("kandinsky6", "^video_text_transformer_blocks"),
    ("kandinsky5", "visual_transformer_blocks"),
    ("hidream-i1", "double_stream_blocks_#"),
    ("hidream-i1", "single_stream_blocks_#_block"),
    ("hidream-i1", "caption_projection_#_linear", "!context_embedder"),
    ("hidream-o1", "t_embedder#_mlp", "x_embedder_proj#"),
    ("ideogram", "embed_image_indicator"),
    ("ideogram", "llm_cond_proj"),
    ("ernie", "adaLN_sa_ln"),
    ("ernie", "^layers_#_mlp_linear_fc#"),
    ("ernie", "^layers_#_self_attention_to_"),
    ("newbie", "clip_text_pooled_proj"),
    ("lumina-next", "^layers_#_attention_y_norm"),
    ("lumina-next", "^layers_#_attention_wk_y"),
    ("hunyuan-dit", "mlp_t#"),
    ("hunyuan-dit", "text_embedding_padding"),
    ("hunyuan-dit", "time_extra_emb"),
    ("hunyuan-dit", "^blocks_#_attnA_Wqkv"),
    ("hunyuan3d", "^blocks_#_attnA_k_norm", "^t_embedder_mlp"),
    ("joyimage", "double_blocks_#_attn_img_attn_qkv"),
    ("motif-video", "^x_embedder_proj", "^context_embedder_linear", "^single_transformer_blocks"),
    ("pid", "lq_proj_latent_proj"),
    ("pixeldit", "core_pixel_embedder"),
    ("dit", "norm#_emb_class_embedder"),
    ("sana", "mlp_inverted_conv"),
    ("sana", "ff_conv_inverted"),
    ("sana", "cross_attn_q_linear", "attention_y_norm"),
    ("ltx-2", "audio_attn"),
    ("ltx-2", "audio_adaln_single"),
    ("ltx-2", "av_c"),
    ("ltx-2", "audio_to_video_attn"),
    ("ltx-video", "patchify_proj"),
    ("ltx-video", "^time_embed_emb_timestep_embedder", "^caption_projection_linear"),
    ("glm-image", "glyph_projector"),
    ("wan", "head_modulation"),
    ("wan", "condition_embedder_time", "!^double_blocks"),
    ("wan", "^vace_blocks"),
    ("wan", "^blocks_#_cross_attn_norm_k"),
    ("wan", "^blocks_#_self_attn_norm_q"),
    ("stable-cascade-v1-prior", "clip_txt_mapper"),
    ("stable-cascade-v1-prior", "clip_txt_pooled_mapper", "!effnet_mapper"),
    ("stable-cascade-v1-decoder", "effnet_mapper"),
    ("stable-cascade-v1-decoder", "clip_mapper", "^embedding"),
    ("wuerstchen-v2-prior", "^cond_mapper"),
    ("i2vgen-xl", "image_latents_proj_in", "temp_attentions"),
    ("modelscope", "temp_attentions"),
    ("deepfloyd-if", "add_embedding_pool"),
    ("svd", "time_stack"),
    ("svd", "temporal_transformer_blocks"),
    ("kandinsky2", "add_embedding_image_norm"),
    ("kandinsky2", "encoder_hid_proj_image"),
    ("prx", "img_qkv_proj"),
)


def recognise(network: Network) -> Family | None:
    """The family of a denoiser (or of an adapter to one), with the exact member where the widths tell."""
    for name, *fragments in SIGNS:
        if network.has(*fragments):
            return _member(name, network)
    for decide in (_cosmos, _hunyuan, _flux, _mmdit, _lumina, _wan_like, _pixart, _attn_blocks, _cascade, _unet):
        found = decide(network)
        if found is not None:
            return found
    return None


# --- families that share names ----------------------------------------------------------------------------------------


def _cosmos(n: Network) -> Family | None:
    signs = ("adaln_modulation_cross_attn", "adaln_modulation_self_attn", "blocks_#_cross_attn_output_proj")
    more = ("^blocks_#_cross_attn_k_proj", "^blocks_#_cross_attn_q_proj", "^blocks_#_self_attn_q_proj", "_mlp_layer#")
    if not any(n.has(sign) for sign in (*signs, *more)):
        return None
    if n.hidden("_attn_q_proj") == 5120 or n.input("mlp_layer#", "_attn_output_proj") == 5120:
        return Family("cosmos-predict2", "cosmos-predict2-14b")
    if n.adapter:
        note = "Anima and Cosmos-Predict2 2B share these layers; Anima is the common one"
        return Family("anima", "Anima", note, ("cosmos-predict2",))
    return Family("cosmos-predict2", "cosmos-predict2-2b")


def _hunyuan(n: Network) -> Family | None:
    if n.has("txt_in_individual_token_refiner") or n.has("context_embedder_token_refiner"):
        patch = n.shape("^img_in_proj", "^x_embedder_proj")
        if (patch and len(patch) == 4) or n.hidden("^transformer_blocks_#_attn_to_q") == 3584:
            return Family("hunyuan-image", "hunyuan-image-2.1")
        newer = n.has("vision_in") or n.has("^cond_type_embed")
        return Family("hunyuan-video", "hunyuan-video-1.5" if newer else "hunyuan-video")
    named = ("_mlp_fc#", "_mod_linear", "single_blocks_#_modulation_linear")
    if n.has("double_blocks_#_img") or n.has("double_blocks_#_txt") or n.has("single_blocks_#_"):
        if any(n.has(sign) for sign in named) or n.has("double_blocks_#_img_attn_q_"):
            return Family("hunyuan-video", "hunyuan-video")
        if n.blocks.get("double_blocks") == 20 or n.blocks.get("single_blocks") == 40:
            return Family("hunyuan-video", "hunyuan-video")
    return None


def _flux(n: Network) -> Family | None:
    original = (
        n.has("double_blocks_#_img_")
        or n.has("double_blocks_#_txt_")
        or n.has("single_blocks_#_linear")
        or n.has("double_blocks_#_processor")
        or n.has("single_blocks_#_modulation")
        or n.has("single_blocks_#_processor")
    )
    if original:
        return _flux_original(n)
    if n.has("single_transformer_blocks_#"):
        return _flux_diffusers(n)
    return None


def _flux_original(n: Network) -> Family:
    hidden = n.input("img_attn_qkv", "txt_attn_qkv", "single_blocks_#_linear#", "qkv_lora") or 0
    for sign, ratio in (("single_blocks_#_linear#", 9), ("img_mlp_#", 6), ("txt_mlp_#", 6)):
        shape = n.shape(sign)
        if shape and len(shape) > 1 and shape[1] and shape[0] == ratio * shape[1]:
            return _member("flux2", n)
    if hidden in (4096, 6144):
        return _member("flux2", n)
    if (n.input("^txt_in") or 0) == 3584:
        return Family("longcat-image", "longcat-image")
    return _member("flux1", n)


def _flux_diffusers(n: Network) -> Family:
    singles, doubles = n.blocks.get("single_transformer_blocks", 0), n.blocks.get("transformer_blocks", 0)
    width = n.input("single_transformer_blocks_#_attn_to_", "^transformer_blocks_#_attn_to_")
    width = width or n.output("transformer_blocks_#_attn_to_q") or 3072
    if n.has("single_transformer_blocks_#_ff_linear_#") or n.has("single_transformer_blocks_#_ff_out_projection"):
        return Family("auraflow", "auraflow-v1")
    if width in (4096, 6144) and not n.has("single_transformer_blocks_#_proj_mlp"):
        return _member("flux2", n)
    mlp = n.shape("single_transformer_blocks_#_proj_mlp")
    if mlp and len(mlp) > 1 and mlp[0] == 8 * mlp[1]:
        return Family("ovis", "ovis-image")
    if width == 3584:
        return Family("hunyuan-image", "hunyuan-image-2.1")
    if singles == 40 or doubles == 20:
        return Family("hunyuan-video", "hunyuan-video")
    if (n.input("^context_embedder") or 0) == 3584:
        return Family("longcat-image", "longcat-image")
    if n.has("^context_embedder", "^time_embed_timestep_embedder", "!time_text_embed"):
        return Family("bria", "bria-3.2")
    return _member("flux1", n)


def _mmdit(n: Network) -> Family | None:
    """Joint blocks named as diffusers names them, without single blocks: SD3, Qwen-Image, or half of a Flux adapter."""
    streams = ("img_mlp", "txt_mlp", "img_mod", "txt_mod")
    if n.adapter and any(n.has(f"^transformer_blocks_#_{stream}_") for stream in streams):
        newer = n.input("^transformer_blocks_#_attn_to_", "^transformer_blocks_#_img_mlp_proj") == 4096
        return Family("qwen-image-2.1", "qwen-image-2.1") if newer else Family("qwen-image", "Qwen-Image")
    if not n.has("^transformer_blocks_#_attn_"):
        return None
    width = n.hidden("^transformer_blocks_#_attn_to_q")
    width = width or n.input("^transformer_blocks_#_attn_to_", "_blocks_#_attn_add") or n.output("_blocks_#_attn_add")
    if not n.adapter:
        if n.has("^pos_embed_proj", "^context_embedder"):
            return _member("sd3", n)
        guide = n.has("^x_embedder", "^context_embedder", "^time_text_embed") and width == 3072
        return _member("flux1", n) if guide else None  # a ControlNet of double blocks only
    count = n.blocks.get("transformer_blocks", 0)
    added = n.has("_attn_add_") or n.has("_attn_to_add_out")  # the other stream: one-stream models have none
    if n.has("attn_to_gate"):
        return Family("krea2", "Krea-2")
    if width in (4096, 6144) and added:
        return _member("flux2", n)
    if width == 6144:
        note = "Krea 2 and half of Flux.2 dev share these layers"
        return Family("krea2", "Krea-2", note, ("flux2",))
    if width in (1536, 2432, 1152) or (width is None and n.has("ff_context") and count in (24, 38)):
        return _member("sd3", n)
    if width == 2048:
        return Family("hunyuan-video", "hunyuan-video-1.5")
    if width == 4096:
        note = "Qwen-Image 2.1 and half of Flux.2 klein 9B share these layers"
        return Family("qwen-image-2.1", "qwen-image-2.1", note, ("flux2",))
    if width == 5376:
        return Family("minimax-h3", "minimax-h3")
    if not n.unwrapped and count <= 19 and width == 3072:
        note = "only double blocks are trained, which Qwen-Image and Flux.2 klein name alike"
        return Family("flux1", "Flux.1-dev", note, ("qwen-image", "flux2"))
    if width == 3072 or (width is None and count > 38):
        return Family("qwen-image", "Qwen-Image", others=("flux1",) if count <= 19 else ())
    return Family("sd3", "stable-diffusion-v3-medium") if n.has("ff_context") else None


def _lumina(n: Network) -> Family | None:
    signs = ("^context_refiner_#", "^noise_refiner_#", "^cap_embedder")
    layers = ("^layers_#_attention_", "^layers_#_feed_forward", "^layers_#_adaLN_modulation", "^layers_#_attn_to_")
    if not any(n.has(sign) for sign in (signs + layers if n.adapter else signs)):
        return None
    width = n.output("^x_embedder$") or n.output(
        "^layers_#_attention_out", "^layers_#_attention_to_out", "attention_wo", "^layers_#_attention_to_q",
        "^layers_#_attn_to_q",
    )  # fmt: skip
    width = width or n.input(
        "^layers_#_attention_qkv", "^layers_#_attention_to_q", "^layers_#_feed_forward_w#", "^layers_#_attn_to_q"
    )
    if width == 4608:
        return Family("ideogram", "Ideogram")
    if width == 2520:
        return Family("omnigen2", "omnigen2")
    if width == 2304:
        return Family("lumina2", "lumina-2")
    spelled = n.adapter and not n.has("^layers_#_attn_to_")  # where only names were kept
    if width == 3840 or n.has("^x_pad_token") or n.has("^cap_pad_token") or (width is None and spelled):
        return Family("z-image", "Z-Image")
    captions = n.has("^cap_embedder", "^noise_refiner") or n.has("^time_caption_embed", "^noise_refiner")
    return Family("lumina2", "lumina-2") if captions or n.adapter else None


def _wan_like(n: Network) -> Family | None:
    if n.has("cross_attn_kv_linear") or n.has("cross_attn_q_linear"):
        return None
    if not n.adapter:
        return None
    if n.has("^blocks_#_cross_attn_") or n.has("^blocks_#_self_attn_") or n.has("^blocks_#_ffn_"):
        return _member("wan", n)
    if n.has("^blocks_#_attnA_to_") or n.has("^blocks_#_attnB_to_"):
        width = n.hidden("^blocks_#_attnA_to_q") or n.input("^blocks_#_attnA_to_", "^blocks_#_attnB_to_q")
        return Family("hunyuan-dit", "hunyuan-dit-v1.2") if width == 1408 else _member("wan", n)
    return None


def _pixart(n: Network) -> Family | None:
    if n.has("cross_attn_kv_linear"):
        width = n.input("cross_attn_kv_linear", "blocks_#_attn_qkv")
        if width in (2240, 1120):
            return Family("sana", "sana")
        return _pixart_member(n)
    if n.has("adaln_single", "pos_embed_proj") or n.has("adaln_single", "caption_projection"):
        if n.output("^pos_embed_proj") == 2304:
            return Family("allegro", "allegro")
        return _pixart_member(n)
    return None


def _pixart_member(n: Network) -> Family:
    if _is_alpha(n):
        return Family("pixart-alpha", "pixart-alpha")
    if not n.adapter:
        return Family("pixart-sigma", "pixart-sigma")
    note = "PixArt alpha, PixArt sigma and the small Sana share these layers"
    return Family("pixart-sigma", "pixart-sigma", note, ("pixart-alpha", "sana"))


def _is_alpha(n: Network) -> bool:
    length = n.output("y_embedder_y_embedding")
    return n.has("csize_embedder") or n.has("ar_embedder") or n.has("resolution_embedder") or length == 120


def _attn_blocks(n: Network) -> Family | None:
    """Transformer blocks with attn1 and attn2 at the top: told apart by width alone."""
    if not n.has("^transformer_blocks_#_attnA_") and not n.has("^transformer_blocks_#_attnB_"):
        return None
    width = n.hidden("^transformer_blocks_#_attnA_to_q") or n.input("^transformer_blocks_#_attnA_to_")
    width = width or n.hidden("^transformer_blocks_#_attnB_to_q", "^transformer_blocks_#_attnB_to_out")
    if n.has("patch_embed_text_proj"):
        if n.has("time_condition_embed"):
            return Family("cogview4", "cogview4") if width == 4096 else Family("cogview3", "cogview3-plus")
        return Family("cogvideox", "cogvideox")
    text = n.input("^transformer_blocks_#_attnB_to_k", "^transformer_blocks_#_attnB_to_v")
    if n.has("^time_embed_t_embedder") or width == 5120 or text == 1024:
        if width == 4096 or n.has("^learnable_pos_embed"):
            return Family("cosmos1", "cosmos-1")
        return Family("cosmos-predict2", {2048: "cosmos-predict2-2b"}.get(width or 0, "cosmos-predict2-14b"))
    if not n.adapter:
        if not n.has("scale_shift_table", "^caption_projection"):
            return None
        return Family("ltx-video", "ltx-video") if width == 4096 else _member_of_width(n, width)
    if width == 3072 and n.blocks.get("transformer_blocks") == 48:
        return _member("mochi", n)
    if width == 4096 and n.has("attnB"):
        return Family("ltx-2", "ltx-video-2", "LTX-2 and LTX-Video 13B share these layers", ("ltx-video",))
    if width == 4096:
        return Family("cogview4", "cogview4", "CogView4 and GLM-Image share these layers", ("glm-image",))
    if width == 1152:
        return _pixart_member(n)
    return _member_of_width(n, width)


def _member_of_width(n: Network, width: int | None) -> Family | None:
    names = {
        1152: "pixart-sigma", 2240: "sana", 1920: "cogvideox", 3072: "cogvideox", 2560: "cogview3",
        2048: "ltx-video", 2304: "allegro", 1536: "stable-audio",
    }  # fmt: skip
    return _member(names[width], n) if width in names else None


def _cascade(n: Network) -> Family | None:
    if n.adapter and any(n.has(sign) for sign in ("channelwise", "kv_mapper", "blocks_#_#_attention_")):
        return _member("stable-cascade-v1-prior", n)
    return None


# --- Stable Diffusion's UNets -----------------------------------------------------------------------------------------

_CONTEXT = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "refiner"}
_VECTORS = {2816: "sdxl", 2560: "refiner", 5632: "kolors"}


def _unet(n: Network) -> Family | None:
    parts = ("down_blocks_#", "up_blocks_#", "mid_block", "input_blocks_#", "output_blocks_#", "middle_block")
    if not any(n.has(part) for part in parts):
        return None
    if n.has("_attentions_#_to_") or n.has("_attentions_#_add_k_proj"):  # attention without a transformer around it
        read = n.input("_attentions_#_add_k_proj", "_attentions_#_add_v_proj")
        return {4096: Family("deepfloyd-if", "deepfloyd-if"), 768: Family("kandinsky2", "kandinsky2")}.get(read or 0)
    vector = n.input("^label_emb_#_#", "^add_embedding_linear_#", "^class_embedding_linear_#")
    kind = _VECTORS.get(vector or 0) or _CONTEXT.get(text_width(n) or 0)
    if kind is None:
        return _by_blocks(n)
    if kind == "refiner":
        return Family("sdxl", "stable-diffusion-xl-v1-refiner")
    return _member(kind, n) if kind else None


def text_width(n: Network) -> int | None:
    """The width of the text the cross attention listens to."""
    seen: dict[int, int] = {}
    for name, shape in n.widths.items():
        if shape and len(shape) > 1 and ("attnB_to_k" in name or "attnB_to_v" in name):
            seen[shape[1]] = seen.get(shape[1], 0) + 1
    known = {width: count for width, count in seen.items() if width in _CONTEXT}
    return max(known or seen, key=lambda width: (known or seen)[width], default=None)


def _by_blocks(n: Network) -> Family | None:
    """Without a known width: SDXL has deeper blocks in fewer places."""
    if not n.adapter and (n.has("^label_emb_#") or n.has("^add_embedding_linear")):
        return Family("sdxl", ARCHITECTURES["sdxl"], "only an embedding of sizes says SDXL", ("sd2", "kolors"))
    if not n.adapter and not n.has("attnB_to_k"):
        return None
    deep = any(re.search(r"transformer_blocks_[1-9]\d{0,2}_", name) for name in n.raw)  # SD1 and SD2 have one each
    places_xl = any(
        name.startswith(("up_blocks_0_attentions", "output_blocks_0_1_", "output_blocks_1_1_")) for name in n.raw
    )
    only_1 = (
        "down_blocks_0_attentions", "up_blocks_3_attentions", "input_blocks_1_1_", "input_blocks_2_1_",
        "down_blocks_3_", "output_blocks_9_1_", "output_blocks_10_1_", "output_blocks_11_1_",
    )  # fmt: skip
    places_1 = any(name.startswith(only_1) for name in n.raw)
    if deep:
        return _member("sdxl", n)
    if places_xl and not places_1:
        return Family("sdxl", ARCHITECTURES["sdxl"], "only the places of its blocks say SDXL", ("sd1", "sd2", "kolors"))
    if places_1:
        return Family("sd1", _unet_member("sd1", n), "SD1 and SD2 share these layers", ("sd2",))
    return None


# --- the exact member of a family -------------------------------------------------------------------------------------


def _member(name: str, n: Network) -> Family:
    if name == "qwen-image" and n.output("^txt_norm$") == 2560:
        return Family("mage-flow", "mage-flow")
    decide = _MEMBERS.get(name)
    architecture = decide(n) if decide else ARCHITECTURES.get(name, name)
    return Family(name, architecture, others=_SAME_LAYERS.get(name, ()) if n.adapter else ())


_SAME_LAYERS = {"flux1": ("chroma1", "longcat-image", "bria", "ovis"), "sdxl": ("kolors",)}


def _unet_member(base: str, n: Network) -> str:
    channels = n.input("^input_blocks_#_#$", "^conv_in$")
    suffix = {9: "-inpainting", 8: "-edit", 5: "-depth", 7: "-upscaler"}.get(channels or 0, "")
    return ARCHITECTURES[base] + suffix


def _flux1_member(n: Network) -> str:
    channels = n.input("^img_in$", "^x_embedder$")
    if not n.adapter and channels == 384:
        return "Flux.1-fill-dev"
    if not n.adapter and channels == 128:
        return "Flux.1-control-dev"
    guided = n.has("guidance_in") or n.has("guidance_embedder")
    whole = n.has("^img_in") or n.has("^x_embedder")
    return "Flux.1-schnell" if whole and not guided and not n.adapter else "Flux.1-dev"


def _flux2_member(n: Network) -> str:
    hidden = n.input(
        "img_attn_qkv", "txt_attn_qkv", "single_blocks_#_linear#", "^transformer_blocks_#_attn_to_", "to_qkv_mlp_proj"
    )
    return {3072: "Flux.2-klein-4b", 4096: "Flux.2-klein-9b", 6144: "Flux.2-dev"}.get(hidden or 0, "Flux.2")


def _sd3_member(n: Network) -> str:
    width = n.output("x_block_attn_proj", "context_block_attn_proj") or n.input("^transformer_blocks_#_attn_to_q")
    if width == 2432 or n.blocks.get("joint_blocks") == 38:
        return "stable-diffusion-v3.5-large"
    if n.has("x_block_attnB") or n.has("^transformer_blocks_#_attnB"):
        return "stable-diffusion-v3.5-medium"
    return "stable-diffusion-v3-medium"


def _wan_member(n: Network) -> str:
    width = n.output("^head_modulation") or n.input(
        "^blocks_#_self_attn_q", "^blocks_#_cross_attn_q", "^blocks_#_attnA_to_q", "^blocks_#_self_attn_", "attnA_to_"
    )
    shape = n.shape("^head_modulation")
    if shape:
        width = shape[-1]
    size = {1536: "1.3b", 3072: "5b", 5120: "14b"}.get(width or 0)
    channels = n.input("^patch_embedding$")
    version = "2_2" if size == "5b" else "2_1"
    if n.has("^vace_"):
        task = "vace"
    elif n.has("^face_adapter") or n.has("^face_encoder"):
        task, version = "animate", "2_2"
    elif n.has("casual_audio_encoder"):
        task, version = "speech2video", "2_2"
    elif n.has("img_emb") or n.has("cross_attn_k_img") or n.has("add_k_proj"):
        task = "image2video"
    elif channels == 36:
        task, version = "image2video", "2_2"  # the picture is read as latents only
    else:
        task = "text2video"
    return f"wan-{version}-{task}" + (f"-{size}" if size else "")


def _qwen_member(n: Network) -> str:
    if n.has("addition_t_embedding"):
        return "Qwen-Image-Layered"
    return "Qwen-Image"


ARCHITECTURES = {
    "sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2", "sdxl": "stable-diffusion-xl-v1-base",
    "kolors": "kolors", "sd3": "stable-diffusion-v3-medium", "flux1": "Flux.1-dev", "flux2": "Flux.2",
    "chroma1": "Chroma1", "qwen-image": "Qwen-Image", "z-image": "Z-Image", "anima": "Anima", "krea2": "Krea-2",
    "ernie": "Ernie", "ideogram": "Ideogram", "hidream-i1": "hidream-i1", "lumina2": "lumina-2",
    "auraflow": "auraflow-v1", "hunyuan-video": "hunyuan-video", "ltx-video": "ltx-video", "ltx-2": "ltx-video-2",
    "svd": "stable-video-diffusion-img2vid", "mochi": "genmo-mochi-1", "ovis": "ovis-image",
}  # fmt: skip
_MEMBERS = {
    "sd1": lambda n: _unet_member("sd1", n),
    "sd2": lambda n: _unet_member("sd2", n),
    "sdxl": lambda n: _unet_member("sdxl", n),
    "kolors": lambda n: _unet_member("kolors", n),
    "flux1": _flux1_member,
    "flux2": _flux2_member,
    "sd3": _sd3_member,
    "wan": _wan_member,
    "qwen-image": _qwen_member,
}


# --- what metadata calls a family -------------------------------------------------------------------------------------

# Beginnings of modelspec.architecture and ss_base_model_version, letters and digits only.
_SPELLINGS: tuple[tuple[str, str], ...] = (
    ("stablediffusionv1", "sd1"), ("stablediffusionv2", "sd2"), ("stablediffusionxl", "sdxl"),
    ("stablediffusion1", "sd1"), ("stablediffusion2", "sd2"),
    ("stablediffusionv3", "sd3"), ("stablediffusion3", "sd3"), ("stablevideodiffusion", "svd"),
    ("sdv1", "sd1"), ("sdv2", "sd2"), ("sd1", "sd1"), ("sd2", "sd2"), ("sd3", "sd3"), ("sdxl", "sdxl"),
    ("stablecascadev1prior", "stable-cascade-v1-prior"), ("stablecascade", "stable-cascade-v1-prior"),
    ("wuerstchenv2prior", "wuerstchen-v2-prior"), ("flux1", "flux1"), ("flux2", "flux2"), ("flux3", "flux3"),
    ("fluxkontext", "flux1"), ("fluxkrea", "flux1"), ("fluxdev", "flux1"), ("fluxschnell", "flux1"), ("flux", "flux1"),
    ("chroma", "chroma1"), ("lumina2", "lumina2"), ("luminanext", "lumina-next"), ("auraflow", "auraflow"),
    ("hunyuanvideo", "hunyuan-video"), ("framepack", "hunyuan-video"), ("hunyuanimage", "hunyuan-image"),
    ("hunyuandit", "hunyuan-dit"), ("qwenimage21", "qwen-image-2.1"), ("qwenimage", "qwen-image"),
    ("qwen", "qwen-image"),
    ("zimage", "z-image"), ("wan", "wan"), ("hidreami1", "hidream-i1"), ("hidream", "hidream-i1"),
    ("ltxvideo2", "ltx-2"), ("ltxv2", "ltx-2"), ("ltx2", "ltx-2"), ("ltx", "ltx-video"),
    ("krea2", "krea2"), ("anima", "anima"),
    ("ernie", "ernie"), ("ideogram", "ideogram"), ("pixartalpha", "pixart-alpha"), ("pixartsigma", "pixart-sigma"),
    ("sana", "sana"), ("kolors", "kolors"), ("genmomochi", "mochi"), ("mochi", "mochi"), ("cosmos", "cosmos-predict2"),
    ("kandinsky5", "kandinsky5"), ("omnigen2", "omnigen2"), ("ovis", "ovis"), ("lumina", "lumina2"),
    ("longcat", "longcat-image"), ("svd", "svd"), ("flex1", "flux1"), ("flex2", "flux1"), ("ssd1b", "sdxl"),
    # fine-tunes that trainers name as if they were families
    ("ponyv7", "auraflow"), ("ponydiffusionv7", "auraflow"), ("pony", "sdxl"), ("illustrious", "sdxl"),
    ("noobai", "sdxl"), ("animagine", "sdxl"), ("playgroundv2", "sdxl"),
)  # fmt: skip


def from_words(text: str | None) -> str | None:
    """`Flux.1-dev/lora`, `sdxl_base_v1-0`, `Krea-2` → the family. An unknown name is its own family, in lower case."""
    head = (text or "").split("/")[0].strip()[:100]
    squeezed = re.sub(r"[^a-z0-9]", "", head.lower())
    if not squeezed:
        return None
    for start, family in _SPELLINGS:
        if squeezed.startswith(start):
            return family
    return head.lower()


# Families as the hub's base-model list calls them.
HUB_NAMES: Mapping[str, str] = {
    "sd1": "SD 1.5", "sd2": "SD 2.1", "sdxl": "SDXL 1.0", "sd3": "SD 3", "flux1": "Flux.1 D", "flux2": "Flux.2 D",
    "flux3": "Flux 3 Video", "chroma1": "Chroma", "qwen-image": "Qwen", "qwen-image-2.1": "Qwen 2",
    "z-image": "ZImageTurbo", "anima": "Anima", "krea2": "Krea 2", "ernie": "Ernie", "ideogram": "Ideogram 4.0",
    "hidream-i1": "HiDream", "hidream-o1": "HiDream-O1", "lumina2": "Lumina", "lumina-next": "Lumina",
    "auraflow": "AuraFlow", "kolors": "Kolors", "pixart-alpha": "PixArt a", "pixart-sigma": "PixArt E",
    "hunyuan-dit": "Hunyuan 1", "hunyuan-video": "Hunyuan Video", "ltx-video": "LTXV", "ltx-2": "LTXV2",
    "stable-cascade-v1-prior": "Stable Cascade", "stable-cascade-v1-decoder": "Stable Cascade", "svd": "SVD",
    "mochi": "Mochi", "cogvideox": "CogVideoX", "minimax-h3": "MiniMax H3", "ace-step": "ACE Audio",
    "mage-flow": "MageFlow", "hunyuan3d": "Hunyuan3D",
}  # fmt: skip
_HUB_MEMBERS: Mapping[str, str] = {
    "Flux.1-schnell": "Flux.1 S", "stable-diffusion-v3.5-large": "SD 3.5 Large",
    "stable-diffusion-v3.5-medium": "SD 3.5 Medium", "Flux.2-klein-4b": "Flux.2 Klein 4B",
    "Flux.2-klein-9b": "Flux.2 Klein 9B", "wan-2_1-text2video-1.3b": "Wan Video 1.3B t2v",
    "wan-2_1-text2video-14b": "Wan Video 14B t2v", "wan-2_1-image2video-14b": "Wan Video 14B i2v 480p",
    "wan-2_2-text2video-5b": "Wan Video 2.2 TI2V-5B", "wan-2_2-image2video-5b": "Wan Video 2.2 TI2V-5B",
    "wan-2_2-image2video-14b": "Wan Video 2.2 I2V-A14B",
}  # fmt: skip


def hub_name(family: str | None, architecture: str | None) -> str | None:
    """What the hub's base-model list would call it."""
    if architecture and (name := _HUB_MEMBERS.get(architecture.split("/")[0])):
        return name
    if family == "wan":
        return "Wan Video"
    return HUB_NAMES.get(family or "")

"""A checkpoint file → modules. Single-file LDM layout of SD1, SD2, SDXL and the SDXL refiner; inpaint models of each.

Sizes are read from the tensors' shapes, so miniature models load too. What shapes cannot tell:

| | rule |
|---|---|
| UNet heads | linear projections (SD2, SDXL): head size 64; else 8 heads, 4 in a miniature (base width < 64) |
| UNet groups | 32; base/4 in a miniature |
| VAE groups | 32; base/4 when the base width is below 32 |
| CLIP heads | width/64, at least 4 |

Nothing here reaches a network: configs are made from shapes, files are memory-mapped, pickles only through
`weights_only`. Averaged copies (`model_ema.*`), optimizer states and whatever else lies in a file are never read.
The VAE is always float32: SDXL's first one gives NaN in half precision, and decoding is a small part of a run.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hubctl.errors import RunError
from hubctl.run.weights import Weights, read_tensors

__all__ = ["Model", "load", "load_vae", "read_tensors"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = {"sd1": "cond_stage_model.", "sdxl": "conditioner.embedders.0."}
OPEN_CLIP = {
    "sd2": "cond_stage_model.model.",
    "sdxl": "conditioner.embedders.1.model.",
    "refiner": "conditioner.embedders.0.model.",
}
SCALING = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025, "refiner": 0.13025}
READERS = 2  # tensors converted side by side: each is a moment of double memory
INPUTS = {4: "", 9: "inpaint"}  # channels of the first convolution that this runner knows how to fill
Shape = Callable[[str], tuple[int, ...] | None]


@dataclass
class Model:
    """A loaded checkpoint. `encoders`: CLIP-L (SD1), CLIP-H (SD2), or L and G (SDXL), G alone (refiner)."""

    family: str  # sd1 · sd2 · sdxl · refiner
    prediction: str  # epsilon · v
    unet: Any
    vae: Any | None
    encoders: list[Any]
    scaling: float
    factor: int  # pixels per latent
    zero_terminal_snr: bool
    device: torch.device  # where it computes; with offload its weights rest elsewhere
    dtype: torch.dtype
    offload: str = "none"  # none · model · sequential

    @property
    def is_xl(self) -> bool:
        return self.family in {"sdxl", "refiner"}

    @property
    def is_inpaint(self) -> bool:
        return bool(self.unet.config.in_channels == 9)


def load(
    path: Path, *, vae_path: Path | None = None, device: torch.device, dtype: torch.dtype, offload: str | None = None
) -> Model:
    """Read a checkpoint (and a VAE file in its VAE's place).

    `offload`: none, model, sequential; None or "auto" picks by free memory. Raises RunError for a file this runner
    cannot run, naming what it is; UnsafeFile for a pickle that holds more than tensors.
    """
    from hubctl.run import devices

    weights = Weights.open(path)
    if f"{UNET}input_blocks.0.0.weight" not in weights:
        raise RunError(
            f"`{path.name}` {what_it_is(weights)}, not a checkpoint of SD1, SD2 or SDXL",
            hint="`hubctl inspect` says more about it; this runner knows those families only",
        )
    family = _family(weights, path)
    if "edm_mean" in weights or ("edm_vpred.sigma_max" in weights and "v_pred" not in weights):
        raise RunError(f"`{path.name}` is an EDM model (CosXL, Playground 2.5): this runner cannot run those")
    bytes_needed = _bytes(weights, dtype)
    mode = devices.choose_offload(offload, device, bytes_needed)
    rest = device if mode == "none" else torch.device("cpu")
    source = vae_path or (weights if f"{VAE}decoder.conv_in.weight" in weights else None)
    with ThreadPoolExecutor(1) as beside:  # what becomes float32 is copied while the rest, often mere views, is built
        _autoencoder()
        made = beside.submit(load_vae, source, rest, SCALING[family]) if source else None
        unet = _unet(weights, path, rest, dtype)
        encoders = _encoders(weights, family, rest, dtype)
        vae = made.result() if made else None
    model = Model(
        family=family,
        prediction=_prediction(weights, family, path),
        unet=unet,
        vae=vae,
        encoders=encoders,
        scaling=SCALING[family],
        factor=2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8,
        zero_terminal_snr="ztsnr" in weights,
        device=device,
        dtype=dtype,
        offload=mode,
    )
    devices.park(model)
    if device.type == "cpu":
        devices.keep_working_memory()
    return model


def what_it_is(weights: Weights) -> str:
    """`is a LoRA`, `is a Flux model`, …: what a file that is no checkpoint seems to be, from its names."""
    names = list(weights)

    def any_name(pattern: str) -> bool:
        found = re.compile(pattern)
        return any(found.search(name) for name in names)

    for pattern, sentence in KINDS:
        if any_name(pattern):
            return sentence
    return f"holds {len(names)} tensors of an unknown kind" if names else "is empty"


KINDS: tuple[tuple[str, str], ...] = (
    (r"(lora_(up|down|A|B)\.|\.lora\.(up|down)\.|hada_w|lokr_w|lora_mid|oft_blocks|dora_scale|diff_b$)", "is a LoRA"),
    (r"^(emb_params|string_to_param|clip_[lg]$|<.*>$|\*$)", "is a textual inversion"),
    (r"(^|\.)(double_blocks|single_transformer_blocks)\.", "is a Flux model"),
    (r"(^|\.)joint_blocks\.", "is an SD3 model"),
    (r"(^|\.)(control_model\.|zero_convs\.|controlnet_|input_hint_block)", "is a ControlNet"),
    (r"^(down_blocks|up_blocks|conv_in)\.", "is a bare UNet in diffusers' layout"),
    (r"^(first_stage_model\.)?(encoder|decoder)\.conv_in\.", "is a VAE"),
    (r"^(text_model|text_encoder|transformer\.resblocks)\.", "is a text encoder"),
    (r"(RRDB_trunk|RDB1|^conv_first|^params_ema|^body\.0)", "is an upscaler"),
    (r"\.attentions?\.|\.attn\d?\.|transformer_blocks|^layers\.", "is a model of another family"),
)


# --- what it is -------------------------------------------------------------------------------------------------------


def _family(weights: Weights, path: Path) -> str:
    for family in ("sdxl", "refiner", "sd2"):
        if OPEN_CLIP[family] + "positional_embedding" in weights:
            return family
    if any(name.startswith(CLIP_L["sd1"]) for name in weights):
        return "sd1"
    raise RunError(
        f"`{path.name}` is a bare UNet: it has no text encoder",
        hint="use a full checkpoint: a UNet alone cannot be run yet",
    )


def _prediction(weights: Weights, family: str, path: Path) -> str:
    """ε or v: a marker tensor, the file's metadata, a configuration beside it, or (SD2) what its weights look like."""
    said = str(weights.metadata.get("modelspec.prediction_type", "")).lower()
    if "v_pred" in weights or said in {"v", "v_prediction"}:
        return "v"
    if said in {"epsilon", "eps"}:
        return "epsilon"
    beside = path.with_suffix(".yaml")
    if beside.is_file() and beside.stat().st_size < 1_000_000:
        text = beside.read_text(encoding="utf-8", errors="replace")
        return "v" if re.search(r"^\s*parameterization\s*:\s*[\"']?v[\"']?\s*$", text, re.MULTILINE) else "epsilon"
    probe = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    if family == "sd2" and probe in weights:  # trained on v, this bias is visibly wider
        return "v" if float(weights.get(probe).float().std(unbiased=False)) > 0.09 else "epsilon"
    return "epsilon"


def _bytes(weights: Weights, dtype: torch.dtype) -> int:
    """What the parts that are loaded take, in the precisions they are loaded in."""
    total = 0
    for name in weights:
        if name.startswith((UNET, VAE, "cond_stage_model.", "conditioner.")):
            count = 1
            for side in weights.shape(name) or ():
                count *= side
            total += count * (4 if name.startswith(VAE) else dtype.itemsize)
    return total


# --- filling modules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Where a module's tensor comes from: a name in the file, and which piece of that tensor."""

    name: str
    third: int | None = None  # of a fused q, k, v
    turned: bool = False  # stored the other way round


@contextlib.contextmanager
def without_init() -> Iterator[None]:
    """Modules on the meta device: nothing is allocated or drawn before the weights are there."""
    with torch.device("meta"):
        yield


def _fill(
    module: nn.Module, weights: Weights, part_of: Callable[[str], Part], device: torch.device, dtype: torch.dtype,
    what: str,
) -> Any:  # fmt: skip
    """Give every tensor of a module its weights, a few at a time. Raises RunError for what lacks or does not fit."""
    parts = {target: part_of(target) for target in module.state_dict()}
    lost = [p.name for target, p in parts.items() if p.name not in weights and not target.endswith("position_ids")]
    if lost:
        raise RunError(
            f"the {what} of `{weights.path.name}` lacks {len(lost)} tensors, `{lost[0]}` among them",
            hint="the file is incomplete: install it again, or choose another version",
        )
    wanted = [(target, empty) for target, empty in module.state_dict().items() if parts[target].name in weights]

    def one(entry: tuple[str, Tensor]) -> Tensor:
        part = parts[entry[0]]
        return _fitting(_piece(weights, part, device, dtype), entry[1], part.name, weights.path, what)

    with ThreadPoolExecutor(READERS) as pool:  # converting is mostly the memory's work, and torch lets go of the lock
        tensors = pool.map(one, wanted)
        state = {target: tensor for (target, _), tensor in zip(wanted, tensors, strict=True)}
    module.load_state_dict(state, strict=False, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # position_ids and the like: a range, never stored
            owner = module.get_submodule(name.rpartition(".")[0]) if "." in name else module
            owner.register_buffer(
                name.rpartition(".")[2], torch.arange(buffer.shape[-1], device=device)[None], persistent=False
            )
    return module.eval().requires_grad_(False)


def _piece(weights: Weights, part: Part, device: torch.device, dtype: torch.dtype) -> Tensor:
    tensor = weights.get(part.name, dtype=dtype, device=device)
    scale = part.name.removesuffix("weight") + "scale_weight"
    if scale in weights and part.name.endswith(".weight"):  # fp8 files whose numbers were spread to fill the range
        tensor = tensor * weights.get(scale, dtype=dtype, device=device)
    if part.third is not None:
        tensor = tensor.chunk(3)[part.third]
    return tensor.T.contiguous() if part.turned else tensor


def _fitting(tensor: Tensor, empty: Tensor, name: str, path: Path, what: str) -> Tensor:
    """1×1 convolutions and linear layers hold the same numbers in other shapes; anything else is refused."""
    if tensor.shape == empty.shape:
        return tensor
    if [side for side in tensor.shape if side != 1] != [side for side in empty.shape if side != 1]:
        raise RunError(
            f"the {what} of `{path.name}` has an unknown geometry: `{name}` is {_by(tensor)}, {_by(empty)} was expected"
        )
    return tensor.reshape(empty.shape)


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def _renamer(table: Mapping[str, str], prefix: str = "") -> Callable[[str], Part]:
    """Diffusers' names → LDM's, by the longest prefix of the table; a name it does not list stays as it is."""

    def part_of(name: str) -> Part:
        end = len(name)
        while (end := name.rfind(".", 0, end)) > 0:
            if (theirs := table.get(name[: end + 1])) is not None:
                return Part(prefix + theirs + name[end + 1 :])
        return Part(prefix + name)

    return part_of


# --- the UNet ---------------------------------------------------------------------------------------------------------

RESNET = {
    "norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.", "conv2.": "out_layers.3.", "conv_shortcut.": "skip_connection.",
}  # fmt: skip


def unet_names(per: int, crossed: list[bool]) -> dict[str, str]:
    """Prefixes of diffusers' UNet → LDM's. `per`: resnets a level, `crossed`: which levels (down) have attention."""
    out = {
        "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
        "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.", "add_embedding.linear_2.": "label_emb.0.2.",
        "mid_block.attentions.0.": "middle_block.1.",
    }  # fmt: skip

    def resnet(ours: str, ldm: str) -> None:
        out.update({ours + inner: ldm + theirs for inner, theirs in RESNET.items()})

    resnet("mid_block.resnets.0.", "middle_block.0.")
    resnet("mid_block.resnets.1.", "middle_block.2.")
    levels = len(crossed)
    for level in range(levels):
        for layer in range(per):
            at = f"input_blocks.{1 + level * (per + 1) + layer}."
            resnet(f"down_blocks.{level}.resnets.{layer}.", f"{at}0.")
            out[f"down_blocks.{level}.attentions.{layer}."] = f"{at}1."
        out[f"down_blocks.{level}.downsamplers.0.conv."] = f"input_blocks.{(level + 1) * (per + 1)}.0.op."
        for layer in range(per + 1):
            at = f"output_blocks.{level * (per + 1) + layer}."
            resnet(f"up_blocks.{level}.resnets.{layer}.", f"{at}0.")
            out[f"up_blocks.{level}.attentions.{layer}."] = f"{at}1."
        place = 2 if crossed[levels - 1 - level] else 1
        out[f"up_blocks.{level}.upsamplers.0.conv."] = f"output_blocks.{level * (per + 1) + per}.{place}.conv."
    return out


def _unet(weights: Weights, path: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = _unet_config(weights, path)
    with without_init():
        unet = UNet2DConditionModel(**config)
    names = unet_names(config["layers_per_block"], [kind.startswith("Cross") for kind in config["down_block_types"]])
    return _fill(unet, weights, _renamer(names, UNET), device, dtype, "UNet")


def _unet_config(weights: Weights, path: Path) -> dict[str, Any]:
    def shape(name: str) -> tuple[int, ...] | None:
        return weights.shape(UNET + name)

    first = shape("input_blocks.0.0.weight")
    projection = next((n for n in weights if n.startswith(UNET) and n.endswith(".proj_in.weight")), None)
    context = next((n for n in weights if n.startswith(UNET) and n.endswith(".attn2.to_k.weight")), None)
    if first is None or projection is None or context is None:
        raise RunError(f"`{path.name}` {what_it_is(weights)}, or lacks most of its UNet", hint="install it again")
    base = first[0]
    if first[1] not in INPUTS:
        kind = {5: "a depth-to-image", 7: "an upscaling", 8: "an instruct-pix2pix"}.get(first[1], "an unknown kind of")
        raise RunError(f"`{path.name}` is {kind} model ({first[1]} input channels): this runner cannot run those")
    widths, layers, depths = _levels(shape, base)
    middle = _count(lambda i: shape(f"middle_block.1.transformer_blocks.{i}.norm1.weight"))
    linear = len(weights.shape(projection) or ()) == 2
    small = base < 64
    per_level = [max(depth, 1) for depth in depths]
    if middle and not depths[-1]:  # diffusers takes the middle's depth from the last level
        per_level[-1] = middle
    if (depths[-1] and middle != depths[-1]) or not middle:
        raise RunError(f"`{path.name}` is a pruned model (SSD-1B or the like): this runner cannot run those")
    label = shape("label_emb.0.0.weight")
    return {
        "in_channels": first[1],
        "out_channels": (shape("out.2.weight") or (4,))[0],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers[0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)),
        "cross_attention_dim": (weights.shape(context) or (0, 768))[1],
        "attention_head_dim": tuple(max(w // 64, 1) for w in widths) if linear else (4 if small else 8),
        "use_linear_projection": linear,
        "norm_num_groups": base // 4 if small else 32,
        "transformer_layers_per_block": tuple(per_level),
        **(
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": label[1],
            }
            if label is not None
            else {}
        ),
    }


def _levels(shape: Shape, base: int) -> tuple[list[int], list[int], list[int]]:
    """Width, resnets and transformer depth of each level, walked down the input blocks."""
    widths: list[int] = []
    layers: list[int] = []
    depths: list[int] = []
    width, count, depth, index = base, 0, 0, 1
    while True:
        resnet = shape(f"input_blocks.{index}.0.out_layers.3.weight")
        if resnet is not None:
            at = index
            width, count = resnet[0], count + 1
            depth = _count(lambda i, at=at: shape(f"input_blocks.{at}.1.transformer_blocks.{i}.norm1.weight"))  # type: ignore[misc]
        else:
            widths.append(width)
            layers.append(count)
            depths.append(depth)
            count, depth = 0, 0
            if shape(f"input_blocks.{index}.0.op.weight") is None:
                return widths, layers, depths
        index += 1


def _count(shape_of: Callable[[int], tuple[int, ...] | None]) -> int:
    number = 0
    while shape_of(number) is not None:
        number += 1
    return number


# --- the VAE ----------------------------------------------------------------------------------------------------------

ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}

OLD_ATTENTION = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}  # old diffusers


def vae_names(levels: int, layers: int) -> dict[str, str]:
    """Prefixes of diffusers' AutoencoderKL → LDM's."""
    out: dict[str, str] = {}
    for half in ("encoder.", "decoder."):
        out[half + "conv_norm_out."] = half + "norm_out."
        out[half + "mid_block.resnets.0."], out[half + "mid_block.resnets.1."] = (
            half + "mid.block_1.",
            half + "mid.block_2.",
        )
        for ours, ldm in ATTENTION.items():
            out[f"{half}mid_block.attentions.0.{ours}"] = f"{half}mid.attn_1.{ldm}"
    for level in range(levels):
        for ours, ldm, count, sampler in (
            (f"encoder.down_blocks.{level}.", f"encoder.down.{level}.", layers, "downsample"),
            (f"decoder.up_blocks.{level}.", f"decoder.up.{levels - 1 - level}.", layers + 1, "upsample"),
        ):
            out[f"{ours}{sampler}rs.0.conv."] = f"{ldm}{sampler}.conv."
            for layer in range(count):
                out[f"{ours}resnets.{layer}."] = f"{ldm}block.{layer}."
                out[f"{ours}resnets.{layer}.conv_shortcut."] = f"{ldm}block.{layer}.nin_shortcut."
    return out


def _autoencoder() -> Any:
    """The class; a thread that asks for it should not be the first to import it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL


def load_vae(source: Path | Weights, device: torch.device, scaling: float) -> Any:
    """An AutoencoderKL in float32 from a VAE file or from a checkpoint; LDM's names or diffusers'. Raises RunError."""
    AutoencoderKL = _autoencoder()
    weights = Weights.open(source) if isinstance(source, Path) else source
    prefix = VAE if f"{VAE}encoder.conv_in.weight" in weights else ""
    first = weights.shape(f"{prefix}encoder.conv_in.weight")
    latent = weights.shape(f"{prefix}decoder.conv_in.weight")
    if first is None or latent is None:
        raise RunError(
            f"`{weights.path.name}` {what_it_is(weights)}, not a VAE of Stable Diffusion",
            hint="`hubctl inspect` says more about it",
        )
    if latent[1] != 4:
        raise RunError(f"`{weights.path.name}` is a VAE with {latent[1]} latent channels: Stable Diffusion's has 4")
    ours = f"{prefix}encoder.down_blocks.0.resnets.0.conv1.weight" in weights
    blocks, inner = ("down_blocks", "resnets") if ours else ("down", "block")

    def conv(level: int, layer: int) -> tuple[int, ...] | None:
        return weights.shape(f"{prefix}encoder.{blocks}.{level}.{inner}.{layer}.conv2.weight")

    levels, layers = _count(lambda level: conv(level, 0)), _count(lambda layer: conv(0, layer))
    config: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple((conv(level, 0) or (0,))[0] for level in range(levels)),
        "layers_per_block": layers,
        "latent_channels": 4,
        "norm_num_groups": 32 if first[0] >= 32 else max(first[0] // 4, 1),
        "scaling_factor": scaling,
    }
    with without_init():
        vae = AutoencoderKL(**config)
    names = vae_names(levels, layers)
    if ours:
        old = f"{prefix}encoder.mid_block.attentions.0.query.weight" in weights
        names = (
            {
                f"{half}.mid_block.attentions.0.{new}": f"{half}.mid_block.attentions.0.{was}"
                for half in ("encoder", "decoder")
                for new, was in OLD_ATTENTION.items()
            }
            if old
            else {}
        )
    return _fill(vae, weights, _renamer(names, prefix), device, torch.float32, "VAE")


# --- text encoders ----------------------------------------------------------------------------------------------------


def _encoders(weights: Weights, family: str, device: torch.device, dtype: torch.dtype) -> list[Any]:
    out = []
    if family in CLIP_L:
        out.append(_clip_l(weights, CLIP_L[family], device, dtype))
    if family in OPEN_CLIP:
        out.append(_open_clip(weights, OPEN_CLIP[family], device, dtype))
    return out


def _heads(width: int) -> int:
    return max(width // 64, 4)


def _text_model(
    weights: Weights, part_of: Callable[[str], Part], *, activation: str, projection: int | None, layer: str,
    device: torch.device, dtype: torch.dtype,
) -> Any:  # fmt: skip
    """A transformers CLIP text model; `part_of` takes names without `text_model.`, which only some versions have."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def shape(target: str) -> tuple[int, ...]:
        found = weights.shape(part_of(target).name)
        if found is None:
            raise RunError(f"the text encoder of `{weights.path.name}` lacks `{part_of(target).name}`")
        return found

    vocabulary, width = shape("embeddings.token_embedding.weight")
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=shape("encoder.layers.0.mlp.fc1.weight")[0],
        num_hidden_layers=_count(lambda i: weights.shape(layer.format(i))),
        num_attention_heads=_heads(width),
        max_position_embeddings=shape("embeddings.position_embedding.weight")[0],
        hidden_act=activation,
        projection_dim=projection or width,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    with without_init():
        model = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    return _fill(model, weights, lambda name: part_of(name.removeprefix("text_model.")), device, dtype, "text encoder")


def _clip_l(weights: Weights, prefix: str, device: torch.device, dtype: torch.dtype) -> Any:
    """CLIP-L. Old merges leave out `text_model.`, `transformer.` or both."""
    tail = "embeddings.token_embedding.weight"
    tries = (f"{prefix}transformer.text_model.", f"{prefix}transformer.", f"{prefix}text_model.", prefix)
    head = next((head for head in tries if head + tail in weights), tries[0])
    return _text_model(
        weights, lambda name: Part(head + name), activation="quick_gelu", projection=None,
        layer=head + "encoder.layers.{}.layer_norm1.weight", device=device, dtype=dtype,
    )  # fmt: skip


OPEN_CLIP_NAMES = {
    "embeddings.token_embedding.": "token_embedding.", "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.", "text_projection.weight": "text_projection",
}  # fmt: skip
OPEN_CLIP_LAYER = {
    "layer_norm1.": "ln_1.", "layer_norm2.": "ln_2.", "mlp.fc1.": "mlp.c_fc.", "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}  # fmt: skip


def _open_clip(weights: Weights, prefix: str, device: torch.device, dtype: torch.dtype) -> Any:
    """OpenCLIP's names and fused projections as transformers has them."""
    projection = weights.shape(prefix + "text_projection")
    if projection is None:
        raise RunError(f"the text encoder of `{weights.path.name}` has no projection")

    def part_of(name: str) -> Part:
        if found := re.match(r"encoder\.layers\.(\d+)\.(.*)", name):
            layer, rest = f"{prefix}transformer.resblocks.{found[1]}.", found[2]
            if fused := re.match(r"self_attn\.([qkv])_proj\.(weight|bias)", rest):
                return Part(f"{layer}attn.in_proj_{fused[2]}", third="qkv".index(fused[1]))
            for ours, theirs in OPEN_CLIP_LAYER.items():
                if rest.startswith(ours):
                    return Part(layer + theirs + rest.removeprefix(ours))
        for ours, theirs in OPEN_CLIP_NAMES.items():
            if name.startswith(ours):
                return Part(prefix + theirs + name.removeprefix(ours), turned=name.startswith("text_projection"))
        return Part(prefix + name)

    return _text_model(
        weights, part_of, activation="gelu", projection=projection[1],
        layer=prefix + "transformer.resblocks.{}.ln_1.weight", device=device, dtype=dtype,
    )  # fmt: skip

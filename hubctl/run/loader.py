"""A checkpoint file → modules. Single-file LDM layout of SD1, SD2, SDXL and the SDXL refiner.

Sizes are read from the tensors' shapes, so miniature models load too. What shapes cannot tell:

| | rule |
|---|---|
| UNet heads | linear projections (SD2, SDXL): head size 64; else 8 heads, 4 in a miniature (base width < 64) |
| UNet groups | 32; base/4 in a miniature |
| VAE groups | 32; base/4 when the base width is below 32 |
| CLIP heads | width/64, at least 4 |

Nothing here reaches a network: configs are made from shapes, files are memory-mapped, pickles only through
`weights_only`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hubctl.errors import RunError, UnsafeFile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L_SD1 = "cond_stage_model.transformer."
CLIP_L_SDXL = "conditioner.embedders.0.transformer."
OPEN_CLIP = {
    "sd2": "cond_stage_model.model.",
    "sdxl": "conditioner.embedders.1.model.",
    "refiner": "conditioner.embedders.0.model.",
}


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
    device: torch.device
    dtype: torch.dtype

    @property
    def is_xl(self) -> bool:
        return self.family in {"sdxl", "refiner"}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, memory-mapped where the format allows.

    Raises UnsafeFile for a pickle that holds more than tensors, RunError for a damaged file.
    """
    with path.open("rb") as file:
        start = file.read(10)
    try:
        if start[8:9] == b"{":
            from safetensors import safe_open

            with safe_open(str(path), framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=start[:2] == b"PK")
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":
            raise UnsafeFile(f"`{path.name}` holds more than tensors: it was not loaded") from None
        raise RunError(
            f"`{path.name}` cannot be read: {str(error).splitlines()[0][:200]}", hint="`hubctl verify` finds damage"
        ) from None
    while isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    return {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}


@contextlib.contextmanager
def without_init() -> Iterator[None]:
    """Modules on the meta device: nothing is allocated or drawn before the weights are there."""
    with torch.device("meta"):
        yield


def _fill(module: nn.Module, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, what: str) -> Any:
    state = {name: tensor.to(device=device, dtype=dtype) for name, tensor in state.items()}
    missing, _ = module.load_state_dict(state, strict=False, assign=True)
    lost = [name for name in missing if not name.endswith("position_ids")]
    if lost:
        raise RunError(f"the {what} of this checkpoint lacks {len(lost)} tensors, `{lost[0]}` among them")
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # position_ids and the like: a range, never stored
            owner = module.get_submodule(name.rpartition(".")[0]) if "." in name else module
            owner.register_buffer(
                name.rpartition(".")[2], torch.arange(buffer.shape[-1], device=device)[None], persistent=False
            )
    return module.to(device).eval().requires_grad_(False)


def load(path: Path, *, vae_path: Path | None = None, device: torch.device, dtype: torch.dtype) -> Model:
    """Raises RunError for an architecture this runner does not know."""
    tensors = read_tensors(path)
    if not any(name.startswith(UNET) for name in tensors):
        raise RunError(
            f"`{path.name}` is not a checkpoint of SD1, SD2 or SDXL",
            hint="`hubctl inspect` says what it is; this runner knows those families only",
        )
    family = _family(tensors)
    unet_config = _unet_config(tensors, family)
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet_state = convert_ldm_unet_checkpoint({k: v for k, v in tensors.items() if k.startswith(UNET)}, unet_config)
    with without_init():
        unet = UNet2DConditionModel(**unet_config)
    unet = _fill(unet, unet_state, device, dtype, "UNet")
    encoders = _encoders(tensors, family, device, dtype)
    vae_tensors = read_tensors(vae_path) if vae_path else {k: v for k, v in tensors.items() if k.startswith(VAE)}
    scaling = 0.13025 if family in {"sdxl", "refiner"} else 0.18215
    vae = load_vae(vae_tensors, device, scaling) if vae_tensors else None
    factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
    return Model(
        family=family,
        prediction=_prediction(tensors, family),
        unet=unet,
        vae=vae,
        encoders=encoders,
        scaling=scaling,
        factor=factor,
        zero_terminal_snr="ztsnr" in tensors,
        device=device,
        dtype=dtype,
    )


def _family(tensors: Mapping[str, Tensor]) -> str:
    if OPEN_CLIP["sdxl"] + "positional_embedding" in tensors:
        return "sdxl"
    if OPEN_CLIP["refiner"] + "positional_embedding" in tensors:
        return "refiner"
    if OPEN_CLIP["sd2"] + "positional_embedding" in tensors:
        return "sd2"
    if any(name.startswith((CLIP_L_SD1, "cond_stage_model.")) for name in tensors):
        return "sd1"
    raise RunError("this checkpoint has no text encoder", hint="use a full checkpoint; a bare UNet cannot be run yet")


def _prediction(tensors: Mapping[str, Tensor], family: str) -> str:
    """v-prediction where the file says so, or for a 768-px SD2 (its middle attention's bias tells, as the WebUI does)."""
    if "v_pred" in tensors:
        return "v"
    if family == "sd2":
        probe = tensors.get(UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias")
        if probe is not None and probe.float().std(unbiased=False) > 0.09:
            return "v"
    return "epsilon"


def _unet_config(tensors: Mapping[str, Tensor], family: str) -> dict[str, Any]:
    def shape(name: str) -> tuple[int, ...] | None:
        tensor = tensors.get(UNET + name)
        return tuple(tensor.shape) if tensor is not None else None

    first = shape("input_blocks.0.0.weight")
    assert first is not None
    base = first[0]
    widths: list[int] = []
    layers: list[int] = []
    depths: list[int] = []
    index = 1
    width, count, depth = base, 0, 0
    while True:
        resnet = shape(f"input_blocks.{index}.0.out_layers.3.weight")
        if resnet is not None:
            width, count = resnet[0], count + 1
            blocks = 0
            while shape(f"input_blocks.{index}.1.transformer_blocks.{blocks}.norm1.weight") is not None:
                blocks += 1
            depth = blocks
        ends = resnet is None
        if ends:
            widths.append(width)
            layers.append(count)
            depths.append(depth)
            count, depth = 0, 0
            if shape(f"input_blocks.{index}.0.op.weight") is None:
                break
        index += 1
    middle = 0
    while shape(f"middle_block.1.transformer_blocks.{middle}.norm1.weight") is not None:
        middle += 1
    context = next(
        tuple(tensor.shape)[1]
        for name, tensor in tensors.items()
        if name.startswith(UNET) and "attn2.to_k.weight" in name
    )
    projection = next(
        tensor for name, tensor in tensors.items() if name.startswith(UNET) and name.endswith("proj_in.weight")
    )
    linear = projection.ndim == 2
    small = base < 64
    label = shape("label_emb.0.0.weight")
    config: dict[str, Any] = {
        "in_channels": first[1],
        "out_channels": (shape("out.2.weight") or (4,))[0],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers[0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)),
        "cross_attention_dim": context,
        "attention_head_dim": tuple(max(w // 64, 1) for w in widths) if linear else (4 if small else 8),
        "use_linear_projection": linear,
        "norm_num_groups": base // 4 if small else 32,
        "transformer_layers_per_block": tuple(max(d, 1) for d in depths),
    }
    if label is not None:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": label[1],
        }
        if middle and middle != max(depths[-1], 1):
            config["transformer_layers_per_block"] = tuple(max(d, 1) for d in (*depths[:-1], middle))
    del family
    return config


def load_vae(tensors: Mapping[str, Tensor], device: torch.device, scaling: float) -> Any:
    """An AutoencoderKL in float32 from LDM keys with or without prefix: half precision breaks some (SDXL's first)."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    bare = {k.removeprefix(VAE): v for k, v in tensors.items() if not k.startswith(("model_ema", "loss."))}
    if "encoder.conv_in.weight" not in bare:
        raise RunError("this file is not a VAE of Stable Diffusion", hint="`hubctl inspect` says what it is")
    base = bare["encoder.conv_in.weight"].shape[0]
    widths, level = [], 0
    while (tensor := bare.get(f"encoder.down.{level}.block.0.conv2.weight")) is not None:
        widths.append(tensor.shape[0])
        level += 1
    layers = 0
    while f"encoder.down.0.block.{layers}.conv1.weight" in bare:
        layers += 1
    config: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * level,
        "up_block_types": ("UpDecoderBlock2D",) * level,
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "latent_channels": bare["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32 if base >= 32 else max(base // 4, 1),
        "scaling_factor": scaling,
    }
    state = convert_ldm_vae_checkpoint({VAE + k: v for k, v in bare.items()}, config)
    with without_init():
        vae = AutoencoderKL(**config)
    return _fill(vae, state, device, torch.float32, "VAE")


# --- text encoders ---


def _encoders(tensors: Mapping[str, Tensor], family: str, device: torch.device, dtype: torch.dtype) -> list[Any]:
    if family == "sd1":
        return [_clip_l(tensors, CLIP_L_SD1, device, dtype)]
    if family == "sdxl":
        return [_clip_l(tensors, CLIP_L_SDXL, device, dtype), _open_clip(tensors, OPEN_CLIP["sdxl"], device, dtype)]
    return [_open_clip(tensors, OPEN_CLIP[family], device, dtype)]


def _heads(width: int) -> int:
    return max(width // 64, 4)


def _text_model(
    state: dict[str, Tensor], *, activation: str, projection: int | None, device: torch.device, dtype: torch.dtype
) -> Any:
    """A transformers CLIP text model from `text_model.…` keys (transformers 4 and 5 name its modules differently)."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width = state["text_model.embeddings.token_embedding.weight"].shape[1]
    count = 1 + max(int(name.split(".")[3]) for name in state if name.startswith("text_model.encoder.layers."))
    config = CLIPTextConfig(
        vocab_size=state["text_model.embeddings.token_embedding.weight"].shape[0],
        hidden_size=width,
        intermediate_size=state["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=count,
        num_attention_heads=_heads(width),
        max_position_embeddings=state["text_model.embeddings.position_embedding.weight"].shape[0],
        hidden_act=activation,
        projection_dim=projection or width,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    with without_init():
        model = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    if not any(name.startswith("text_model.") for name in model.state_dict()):
        state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    return _fill(model, state, device, dtype, "text encoder")


def _clip_l(tensors: Mapping[str, Tensor], prefix: str, device: torch.device, dtype: torch.dtype) -> Any:
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not state:  # old merges leave `transformer.` out
        short = prefix.replace("transformer.", "")
        state = {name.removeprefix(short): tensor for name, tensor in tensors.items() if name.startswith(short)}
    state = {(n if n.startswith("text_model.") else f"text_model.{n}"): t for n, t in state.items()}
    state.pop("text_model.embeddings.position_ids", None)
    return _text_model(state, activation="quick_gelu", projection=None, device=device, dtype=dtype)


def _open_clip(tensors: Mapping[str, Tensor], prefix: str, device: torch.device, dtype: torch.dtype) -> Any:
    """OpenCLIP's names and fused projections → transformers'."""
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    out: dict[str, Tensor] = {
        "text_model.embeddings.token_embedding.weight": bare["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": bare["positional_embedding"],
        "text_model.final_layer_norm.weight": bare["ln_final.weight"],
        "text_model.final_layer_norm.bias": bare["ln_final.bias"],
    }
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for name, tensor in bare.items():
        if not name.startswith("transformer.resblocks."):
            continue
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        layer = f"text_model.encoder.layers.{number}."
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{layer}self_attn.{part}_proj.{kind}"] = piece
        else:
            stem, _, kind = rest.rpartition(".")
            out[f"{layer}{names[stem]}.{kind}"] = tensor
    projection = bare.get("text_projection")
    if projection is None:
        raise RunError("the text encoder of this checkpoint has no projection")
    out["text_projection.weight"] = projection.T.contiguous()
    return _text_model(out, activation="gelu", projection=projection.shape[1], device=device, dtype=dtype)

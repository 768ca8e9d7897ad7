"""Names and shapes of real checkpoints, at any width: what the loader is tested against.

Written down from how the original programs build their modules (a list of blocks walked in order), not from the
loader's tables; `test_loader.py` checks it against headers of published files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Family:
    """Geometry of one family. `depths`: transformer blocks a level; `widths` of the text encoders."""

    name: str
    base: int
    multiples: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int
    context: int
    linear: bool
    clip_l: int = 0  # width; 0 = none
    clip_l_layers: int = 12
    open_clip: int = 0
    open_clip_layers: int = 24
    label: int = 0  # size vector
    inputs: int = 4
    resnets: int = 2
    vae: tuple[int, ...] = (128, 256, 512, 512)
    vae_resnets: int = 2
    tokens: int = 49408


SD1 = Family("sd1", 320, (1, 2, 4, 4), (1, 1, 1, 0), 1, 768, linear=False, clip_l=768)
SD2 = Family("sd2", 320, (1, 2, 4, 4), (1, 1, 1, 0), 1, 1024, linear=True, open_clip=1024)
SDXL = Family(
    "sdxl", 320, (1, 2, 4), (0, 2, 10), 10, 2048, linear=True, clip_l=768, open_clip=1280, open_clip_layers=32,
    label=2816,
)  # fmt: skip
REFINER = Family(
    "refiner", 384, (1, 2, 4, 4), (0, 4, 4, 0), 4, 1280, linear=True, open_clip=1280, open_clip_layers=32, label=2560
)

SMALL_VAE = {"vae": (32, 32, 64, 64), "vae_resnets": 1}
TINY_SD1 = Family("sd1", 64, (1, 2), (1, 1), 1, 256, linear=False, clip_l=256, clip_l_layers=2, resnets=1, **SMALL_VAE)
TINY_SD2 = Family(
    "sd2", 64, (1, 2), (1, 1), 1, 256, linear=True, open_clip=256, open_clip_layers=3, resnets=1, **SMALL_VAE
)
TINY_SDXL = Family(
    "sdxl", 64, (1, 2), (0, 2), 2, 512, linear=True, clip_l=256, clip_l_layers=3, open_clip=256, open_clip_layers=3,
    label=256 + 6 * 256, resnets=1, **SMALL_VAE,
)  # fmt: skip
TINY_REFINER = Family(
    "refiner", 64, (1, 2, 2), (0, 2, 0), 2, 256, linear=True, open_clip=256, open_clip_layers=3, label=256 + 5 * 256,
    resnets=1, **SMALL_VAE,
)  # fmt: skip


def _both(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", (shape[0],)


def _resnet(at: str, before: int, after: int, time: int) -> Shapes:
    yield from _both(f"{at}.in_layers.0", before)
    yield from _both(f"{at}.in_layers.2", after, before, 3, 3)
    yield from _both(f"{at}.emb_layers.1", after, time)
    yield from _both(f"{at}.out_layers.0", after)
    yield from _both(f"{at}.out_layers.3", after, after, 3, 3)
    if before != after:
        yield from _both(f"{at}.skip_connection", after, before, 1, 1)


def _transformer(at: str, width: int, context: int, depth: int, linear: bool) -> Shapes:
    square = (width, width) if linear else (width, width, 1, 1)
    yield from _both(f"{at}.norm", width)
    yield from _both(f"{at}.proj_in", *square)
    for block in range(depth):
        b = f"{at}.transformer_blocks.{block}"
        for number, source in ((1, width), (2, context)):
            yield f"{b}.attn{number}.to_q.weight", (width, width)
            yield f"{b}.attn{number}.to_k.weight", (width, source)
            yield f"{b}.attn{number}.to_v.weight", (width, source)
            yield from _both(f"{b}.attn{number}.to_out.0", width, width)
        yield from _both(f"{b}.ff.net.0.proj", 8 * width, width)
        yield from _both(f"{b}.ff.net.2", width, 4 * width)
        for number in (1, 2, 3):
            yield from _both(f"{b}.norm{number}", width)
    yield from _both(f"{at}.proj_out", *square)


def unet(f: Family) -> Shapes:
    time = 4 * f.base
    yield from _both("time_embed.0", time, f.base)
    yield from _both("time_embed.2", time, time)
    if f.label:
        yield from _both("label_emb.0.0", time, f.label)
        yield from _both("label_emb.0.2", time, time)
    yield from _both("input_blocks.0.0", f.base, f.inputs, 3, 3)
    index, width, skips = 1, f.base, [f.base]
    for level, multiple in enumerate(f.multiples):
        for _ in range(f.resnets):
            yield from _resnet(f"input_blocks.{index}.0", width, multiple * f.base, time)
            width = multiple * f.base
            if f.depths[level]:
                yield from _transformer(f"input_blocks.{index}.1", width, f.context, f.depths[level], f.linear)
            skips.append(width)
            index += 1
        if level < len(f.multiples) - 1:
            yield from _both(f"input_blocks.{index}.0.op", width, width, 3, 3)
            skips.append(width)
            index += 1
    yield from _resnet("middle_block.0", width, width, time)
    yield from _transformer("middle_block.1", width, f.context, f.middle, f.linear)
    yield from _resnet("middle_block.2", width, width, time)
    index = 0
    for level in reversed(range(len(f.multiples))):
        for layer in range(f.resnets + 1):
            yield from _resnet(f"output_blocks.{index}.0", width + skips.pop(), f.multiples[level] * f.base, time)
            width, place = f.multiples[level] * f.base, 1
            if f.depths[level]:
                yield from _transformer(f"output_blocks.{index}.1", width, f.context, f.depths[level], f.linear)
                place = 2
            if level and layer == f.resnets:
                yield from _both(f"output_blocks.{index}.{place}.conv", width, width, 3, 3)
            index += 1
    yield from _both("out.0", width)
    yield from _both("out.2", 4, width, 3, 3)


def vae(widths: tuple[int, ...], resnets: int) -> Shapes:
    def block(at: str, before: int, after: int) -> Shapes:
        yield from _both(f"{at}.norm1", before)
        yield from _both(f"{at}.conv1", after, before, 3, 3)
        yield from _both(f"{at}.norm2", after)
        yield from _both(f"{at}.conv2", after, after, 3, 3)
        if before != after:
            yield from _both(f"{at}.nin_shortcut", after, before, 1, 1)

    def middle(half: str, width: int) -> Shapes:
        yield from block(f"{half}.mid.block_1", width, width)
        yield from _both(f"{half}.mid.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            yield from _both(f"{half}.mid.attn_1.{part}", width, width, 1, 1)
        yield from block(f"{half}.mid.block_2", width, width)

    last = widths[-1]
    yield from _both("encoder.conv_in", widths[0], 3, 3, 3)
    before = widths[0]
    for level, width in enumerate(widths):
        for layer in range(resnets):
            yield from block(f"encoder.down.{level}.block.{layer}", before, width)
            before = width
        if level < len(widths) - 1:
            yield from _both(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    yield from middle("encoder", last)
    yield from _both("encoder.norm_out", last)
    yield from _both("encoder.conv_out", 8, last, 3, 3)
    yield from _both("decoder.conv_in", last, 4, 3, 3)
    yield from middle("decoder", last)
    before = last
    for level in reversed(range(len(widths))):
        for layer in range(resnets + 1):
            yield from block(f"decoder.up.{level}.block.{layer}", before, widths[level])
            before = widths[level]
        if level:
            yield from _both(f"decoder.up.{level}.upsample.conv", before, before, 3, 3)
    yield from _both("decoder.norm_out", widths[0])
    yield from _both("decoder.conv_out", 3, widths[0], 3, 3)
    yield from _both("quant_conv", 8, 8, 1, 1)
    yield from _both("post_quant_conv", 4, 4, 1, 1)


def clip_l(width: int, layers: int, tokens: int) -> Shapes:
    """Below `text_model.`"""
    yield "embeddings.token_embedding.weight", (tokens, width)
    yield "embeddings.position_embedding.weight", (77, width)
    for layer in range(layers):
        at = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _both(f"{at}.self_attn.{part}", width, width)
        yield from _both(f"{at}.layer_norm1", width)
        yield from _both(f"{at}.layer_norm2", width)
        yield from _both(f"{at}.mlp.fc1", 4 * width, width)
        yield from _both(f"{at}.mlp.fc2", width, 4 * width)
    yield from _both("final_layer_norm", width)


def open_clip(width: int, layers: int, tokens: int) -> Shapes:
    yield "positional_embedding", (77, width)
    yield "token_embedding.weight", (tokens, width)
    yield "text_projection", (width, width)
    yield "logit_scale", ()
    for layer in range(layers):
        at = f"transformer.resblocks.{layer}"
        yield f"{at}.attn.in_proj_weight", (3 * width, width)
        yield f"{at}.attn.in_proj_bias", (3 * width,)
        yield from _both(f"{at}.attn.out_proj", width, width)
        yield from _both(f"{at}.ln_1", width)
        yield from _both(f"{at}.ln_2", width)
        yield from _both(f"{at}.mlp.c_fc", 4 * width, width)
        yield from _both(f"{at}.mlp.c_proj", width, 4 * width)
    yield from _both("ln_final", width)


def checkpoint(f: Family) -> dict[str, tuple[int, ...]]:
    """Every tensor that matters in a full checkpoint of this geometry."""
    first = "cond_stage_model." if f.name in {"sd1", "sd2"} else "conditioner.embedders.0."
    second = "conditioner.embedders.1." if f.name == "sdxl" else first
    out = {f"model.diffusion_model.{name}": shape for name, shape in unet(f)}
    out |= {f"first_stage_model.{name}": shape for name, shape in vae(f.vae, f.vae_resnets)}
    if f.clip_l:
        head = f"{first}transformer.text_model."
        out |= {head + name: shape for name, shape in clip_l(f.clip_l, f.clip_l_layers, f.tokens)}
    if f.open_clip:
        head = f"{second}model."
        out |= {head + name: shape for name, shape in open_clip(f.open_clip, f.open_clip_layers, f.tokens)}
    return out


def weights(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Small random numbers that a network can run on, the same for a name and shape every time."""
    return {name: tensor(name, shape).to(dtype) for name, shape in shapes.items()}


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) <= 1:
        return 1 + 0.1 * noise if name.endswith("weight") else 0.05 * noise
    return noise / math.sqrt(math.prod(shape[1:]))


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata=metadata)
    return path


def tiny_sd1(folder: Path) -> Path:
    """A miniature checkpoint of SD 1's geometry in a folder."""
    return write(folder / "sd1.safetensors", weights(checkpoint(TINY_SD1)))

"""Adapters merged into weights: W ← W + m·Δ, and taken out again exactly.

Formulas: webui-semantics §5.2, after LoRA (Hu et al. 2021), LoHa/LoKr/LoCon (Yeh et al. 2023), DoRA (Liu et al. 2024),
OFT (Qiu et al. 2023) and BOFT (Liu et al. 2023). The originals of touched tensors are kept, so that a hundred
applications leave no drift.

| | A1111 | Forge | ComfyUI |
|---|---|---|---|
| a file named twice | the last weights, each time | equal weights count once | both count |
| OFT, BOFT, IA3; `dyn`; a stored `scale` | yes | no | yes; no; no |
| more than 12 tensors that fit nothing | they are skipped | the file is left out | they are skipped |
| DoRA by output row | by the columns all the same | by the rows of W | by the rows of W |
| GLoRA's alpha | not used | alpha/r | alpha/r |
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubctl.run.loader import Model, read_tensors

PARTS = (
    "lora_up.weight", "lora_down.weight", "lora_mid.weight", "lora_A.weight", "lora_B.weight", "lora.up.weight",
    "lora.down.weight", "_lora.up.weight", "_lora.down.weight", "lora_linear_layer.up.weight",
    "lora_linear_layer.down.weight", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "diff", "diff_b", "w_norm",
    "b_norm", "dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "alpha", "scale", "a1.weight",
    "a2.weight", "b1.weight", "b2.weight", "oft_blocks", "oft_diag", "rescale", "weight", "on_input",
)  # fmt: skip
RENAMED = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "_lora.down.weight": "lora_down.weight",
    "_lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
}
ENDINGS = sorted(PARTS, key=len, reverse=True)
PREFIXES = (
    ("text_encoder_2.", "lora_te2_"), ("text_encoder.", "lora_te_"), ("clip_l.", "lora_te1_"), ("clip_g.", "lora_te2_"),
    ("unet.", "lora_unet_"), ("lycoris_text_model_", "lora_te_text_model_"), ("lycoris_", "lora_unet_"),
    ("diffusion_model.", "lora_unet_"), ("model.diffusion_model.", "lora_unet_"),
    *((bare, f"lora_unet_{bare}") for bare in ("down_blocks.", "mid_block.", "up_blocks.")),
    ("text_model.", "lora_te_text_model."),
)  # fmt: skip
FORGE_LIMIT = 12  # more tensors that fit nothing, and Forge leaves the whole file out
FORGE_TEXT = re.compile(
    r"lora_te\d?_(text_projection|text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12]))"
)
FORGE_UNKNOWN = frozenset({"oft_blocks", "oft_diag", "rescale", "on_input", "weight"})


@dataclass(frozen=True)
class Adapter:
    """One file: module name (`lora_unet_…`, `lora_te1_…`) → its parts; `unknown`: tensors of no kind of adapter."""

    path: Path
    modules: Mapping[str, Mapping[str, Tensor]]
    unknown: int = 0


def read(path: Path) -> Adapter:
    """Group a file's tensors by the module they belong to, whatever trainer named them."""
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    unknown = 0
    for key, tensor in read_tensors(path).items():
        name, part = _split(key)
        if part is not None:
            modules[_canonical(name)][part] = tensor
        else:
            unknown += 1
    return Adapter(path, dict(modules), unknown)


def _split(key: str) -> tuple[str, str | None]:
    for ending in ENDINGS:
        glue = "" if ending.startswith("_") else "."
        if key.endswith(glue + ending):
            return key[: -len(glue + ending)], RENAMED.get(ending, ending)
    return key, None


def _canonical(name: str) -> str:
    """`unet.down_blocks.0…` and friends → kohya's `lora_unet_down_blocks_0…`."""
    name = name.replace(".processor.", ".").replace("base_model.model.", "")
    for prefix, ours in PREFIXES:
        if name.startswith(prefix):
            name = ours + name.removeprefix(prefix)
            break
    name = name.replace(".", "_").removesuffix("_lora")
    return f"{name}_0" if name.endswith("_to_out") else name


Wanted = tuple[Path, float, float, int | None]
"""A file, its UNet and text-encoder weight, and A1111's dyn."""


def _counted(wanted: Sequence[Wanted], flavour: str) -> Iterator[Wanted]:
    """What each mention of a file comes to, where it is named more than once."""
    last = {one[0]: one for one in wanted}
    seen: set[tuple[Path, str, float]] = set()
    for one in wanted:
        path, unet, te, dyn = last[one[0]] if flavour == "a1111" else one
        if flavour == "forge":
            keys = (path, "unet", unet), (path, "te", te)
            unet, te = (0.0 if key in seen else key[2] for key in keys)
            seen.update(keys)
        yield path, unet, te, dyn if flavour == "a1111" else None


class Adapters:
    """The adapters of one loaded model."""

    def __init__(self, model: Model) -> None:
        self._names = _module_names(model)
        self._original: dict[str, dict[str, Tensor]] = {}
        self._files: dict[Path, Adapter] = {}
        self._notes: list[str] = []
        self._stale: set[str] = set()  # modules that still carry the last set, to be replaced or put back
        self._applied: tuple[tuple[Wanted, ...], str] = ((), "forge")

    @property
    def applied(self) -> tuple[Wanted, ...]:
        return self._applied[0]

    def set(self, wanted: Sequence[Wanted], *, flavour: str = "forge") -> list[str]:
        """Make exactly these active, in this order, by a program's rules; returns notes for a person."""
        if (tuple(wanted), flavour) == self._applied or not (wanted or self.applied):
            return self._notes
        self._applied, self._notes = ((), flavour), []
        self._stale = set(self._original)
        for path, unet, te, dyn in _counted(wanted, flavour):
            if path not in self._files:
                self._files[path] = read(path)
            self._notes += self._merge(self._files[path], unet, te, dyn, flavour)
        self._put_back(self._stale)
        self._files = {path: adapter for path, adapter in self._files.items() if path in {one[0] for one in wanted}}
        self._applied = (tuple(wanted), flavour)
        return self._notes

    def restore(self) -> None:
        """Put every touched tensor back, bit for bit."""
        self._put_back(self._original)
        self._applied, self._notes = ((), "forge"), []

    def _put_back(self, names: Iterable[str]) -> None:
        names = list(names)
        for name in names:
            for kind, tensor in self._original[name].items():
                getattr(self._names[name], kind).data.copy_(tensor)
        self._stale.difference_update(names)

    def _merge(self, adapter: Adapter, unet: float, te: float, dyn: int | None, flavour: str) -> list[str]:
        """One file into the weights; notes on what fits nothing."""
        known = {name: parts for name, parts in adapter.modules.items() if self._knows(name, parts, flavour)}
        strays = adapter.unknown + sum(len(parts) for name, parts in adapter.modules.items() if name not in known)
        if flavour == "forge" and strays > FORGE_LIMIT:
            return [f"`{adapter.path.name}` fits this model badly ({strays} tensors fit nothing): it had no effect"]
        merged = sum(
            self._apply(name, parts, unet if name.startswith("lora_unet_") else te, dyn, flavour)
            for name, parts in known.items()
        )
        if not merged:
            return [f"`{adapter.path.name}` fits no part of this model: it had no effect"]
        every = len(adapter.modules) + adapter.unknown
        return [f"`{adapter.path.name}`: {every - merged} of its {every} parts fit nothing here"] * (merged < every)

    def _knows(self, name: str, parts: Mapping[str, Tensor], flavour: str) -> bool:
        if flavour == "forge" and (
            FORGE_UNKNOWN & parts.keys() or (name.startswith("lora_te") and not FORGE_TEXT.fullmatch(name))
        ):
            return False
        return name in self._names

    def _apply(self, name: str, parts: Mapping[str, Tensor], factor: float, dyn: int | None, flavour: str) -> bool:
        module = self._names[name]
        weight, bias = module.weight.data, getattr(module, "bias", None)
        try:
            if (plain := _plain(parts, weight, dyn)) is not None:
                self._add(name, module, *plain, factor)
                return True
            if name in self._stale:
                self._put_back({name})
            delta = _delta(parts, weight, dyn, flavour)
        except (RuntimeError, ValueError, LookupError, ArithmeticError):  # parts lack, or do not go together
            return False
        change = next((parts[key] for key in ("diff_b", "b_norm") if key in parts), None)
        if (delta is None and change is None) or (delta is not None and delta.numel() != weight.numel()):
            return False
        self._keep(name, module)
        if delta is not None:
            weight.copy_((weight.float() + factor * delta.reshape(weight.shape)).to(weight.dtype))
        if change is not None and bias is not None and change.numel() == bias.numel():
            bias.data.copy_((bias.data.float() + factor * change.float().to(bias.device)).to(bias.dtype))
        return True

    def _add(self, name: str, module: Any, up: Tensor, down: Tensor, factor: float) -> None:
        """The common case in one pass over the weight: W = original + factor·up·down, whatever W carried before."""
        self._keep(name, module)
        weight = module.weight.data.view(up.shape[0], -1)
        if name in self._stale:
            kept = self._original[name]
            torch.addmm(kept["weight"].view_as(weight), up, down, alpha=factor, out=weight)
            if "bias" in kept:
                module.bias.data.copy_(kept["bias"])
            self._stale.discard(name)
        else:
            weight.addmm_(up, down, alpha=factor)

    def _keep(self, name: str, module: Any) -> None:
        if name not in self._original:
            kept = {"weight": module.weight.data.clone()}
            if getattr(module, "bias", None) is not None:
                kept["bias"] = module.bias.data.clone()
            self._original[name] = kept


def _plain(parts: Mapping[str, Tensor], weight: Tensor, dyn: int | None) -> tuple[Tensor, Tensor] | None:
    """(up·alpha/r, down) of an ordinary LoRA on a float32 weight; None where anything else is asked for."""
    if dyn or weight.dtype != torch.float32 or not weight.is_contiguous():
        return None
    if not {"lora_up.weight", "lora_down.weight"} <= parts.keys() <= {"lora_up.weight", "lora_down.weight", "alpha"}:
        return None
    up, down = (
        parts[name].to(weight.device, torch.float32).flatten(1) for name in ("lora_up.weight", "lora_down.weight")
    )
    if up.shape[0] != weight.shape[0] or up.shape[1] != down.shape[0] or up.shape[0] * down.shape[1] != weight.numel():
        return None
    return (up * (float(parts["alpha"]) / down.shape[0]) if "alpha" in parts else up), down


def _delta(parts: Mapping[str, Tensor], weight: Tensor, dyn: int | None, flavour: str) -> Tensor | None:
    """Δ of one module in float32, before the tag's weight."""
    # a copy, since a product over the file's own pages depends on how they happen to be aligned
    p = {key: tensor.to(weight.device, torch.float32, copy=True) for key, tensor in parts.items()}
    for whole in ("diff", "w_norm"):
        if whole in p:
            return p[whole]
    found = _raw(p, weight, dyn)
    if found is None:
        return None
    raw, rank = found
    if flavour == "a1111" and "a1.weight" in p:
        rank = 0
    scale = float(p["alpha"]) / rank if "alpha" in p and rank else 1.0
    if "scale" in p and flavour == "a1111":
        scale = float(p["scale"])
    raw = raw.reshape(weight.shape) * scale
    return _dora(weight.float(), raw, p["dora_scale"], flavour != "a1111") if "dora_scale" in p else raw


def _raw(p: Mapping[str, Tensor], weight: Tensor, dyn: int | None) -> tuple[Tensor, int] | None:
    """Δ before alpha, and the rank that alpha is divided by (0: alpha means something else, or nothing)."""
    size = weight.numel()
    if "lora_up.weight" in p and "lora_down.weight" in p:
        return _lora(p["lora_up.weight"], p["lora_down.weight"], p.get("lora_mid.weight"), dyn, size)
    if "hada_w1_a" in p:
        first = _half(p["hada_w1_a"], p["hada_w1_b"], p.get("hada_t1"), size)
        second = _half(p["hada_w2_a"], p["hada_w2_b"], p.get("hada_t2"), size)
        return first * second, p["hada_w1_b"].shape[0]
    if "lokr_w1" in p or "lokr_w1_a" in p:
        return _lokr(p, size)
    if "a1.weight" in p and "b1.weight" in p:  # GLoRA
        return _glora(weight.float(), *(p[f"{n}.weight"].flatten(1) for n in ("a1", "a2", "b1", "b2")))
    if "oft_blocks" in p or "oft_diag" in p:
        return _oft(p, weight.float()), 0
    if "weight" in p and "on_input" in p:  # IA3
        w = weight.float()
        vector = p["weight"]
        row = (
            vector.reshape(1, -1, *([1] * (w.ndim - 2)))
            if bool(p["on_input"])
            else vector.reshape(-1, *([1] * (w.ndim - 1)))
        )
        return w * row, 0
    return None


def _expect(count: int, size: int) -> None:
    """Before a product is made: strangers' factors may multiply to more numbers than there is memory."""
    if count != size:
        raise RuntimeError(f"{count} numbers for a weight of {size}")


def _glora(w: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> tuple[Tensor, int]:
    """W·A + B along W's input axis; older files have the rank on the other side of each factor."""
    old = b2.shape[1] == b1.shape[0] == a1.shape[0] == a2.shape[1]
    new = b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]
    if old and (not new or a2.shape[0] == w.shape[0] == w.shape[1]):
        _expect(b2.shape[0] * b1.shape[1], w.numel())
        return (b2 @ b1 + (w.flatten(1) @ a2) @ a1).reshape(w.shape), a1.shape[0]
    _expect(b1.shape[0] * b2.shape[1], w.numel())
    return (b1 @ b2).reshape(w.shape) + torch.einsum("oi...,ir,rj->oj...", w, a1, a2), a2.shape[0]


def _lora(up: Tensor, down: Tensor, mid: Tensor | None, dyn: int | None, size: int) -> tuple[Tensor, int]:
    rank = down.shape[0]
    up, down = up.flatten(1), down.flatten(1)
    if mid is not None:
        _expect(up.shape[0] * down.shape[1] * mid[0, 0].numel(), size)
        return torch.einsum("op,pqkl,qi->oikl", up, mid, down), rank
    _expect(up.shape[0] * down.shape[1], size)
    if dyn:
        up, down = up[:, :dyn], down[:dyn]
    return up @ down, rank


def _half(a: Tensor, b: Tensor, t: Tensor | None, size: int) -> Tensor:
    if t is None:
        _expect(a.shape[0] * b.shape[1], size)
        return a @ b
    _expect(a.shape[1] * b.shape[1] * t[0, 0].numel(), size)
    return torch.einsum("pqkl,po,qi->oikl", t, a, b)


def _lokr(p: Mapping[str, Tensor], size: int) -> tuple[Tensor, int]:
    rank = 0
    if "lokr_w1" in p:
        w1 = p["lokr_w1"]
    else:
        _expect(size % max(p["lokr_w1_a"].shape[0] * p["lokr_w1_b"].shape[1], 1), 0)  # w1 must be a part of it
        w1, rank = p["lokr_w1_a"] @ p["lokr_w1_b"], p["lokr_w1_b"].shape[0]
    if "lokr_w2" in p:
        w2 = p["lokr_w2"]
    else:
        a, b, t = p["lokr_w2_a"], p["lokr_w2_b"], p.get("lokr_t2")
        rank = b.shape[0]
        if t is not None:
            w2 = _half(a, b, t, size // max(w1.numel(), 1))
        else:
            w2 = _half(a, b.flatten(1), None, size // max(w1.numel(), 1)).reshape(a.shape[0], *b.shape[1:])
    _expect(w1.numel() * w2.numel(), size)
    if w2.ndim == 4:
        w1 = w1[:, :, None, None]
    return torch.kron(w1, w2.contiguous()), rank


def _oft(p: Mapping[str, Tensor], w: Tensor) -> Tensor:
    """Orthogonal fine-tuning: blocks of output rows turned by R = (I + Q)(I − Q)⁻¹, Q = B − Bᵀ.

    With an alpha Q is no longer than alpha·rows. `oft_diag` is R itself; blocks in four dimensions are the factors of a
    butterfly, from the innermost on. `rescale` then stretches each row.
    """
    if "oft_blocks" not in p:
        turned = _turned(w, p["oft_diag"].transpose(1, 2))
    else:
        blocks = p["oft_blocks"]
        q = blocks - blocks.transpose(-1, -2)
        limit = float(p["alpha"]) * w.shape[0] if "alpha" in p else 0.0
        if limit:
            length = q.norm()
            q = q * ((length.clamp(max=limit) + 1e-8) / (length + 1e-8))
        eye = torch.eye(q.shape[-1], device=w.device).expand_as(q)
        r = (eye + q) @ torch.linalg.inv(eye - q)
        turned = _turned(w, r.transpose(1, 2)) if r.ndim == 3 else _butterfly(w, r)
    if "rescale" in p:
        turned = turned * p["rescale"].reshape(-1, *[1] * (w.ndim - 1))
    return turned - w


def _turned(w: Tensor, r: Tensor) -> Tensor:
    """Each block of rows by its own matrix: r [blocks, n, n]."""
    return (r @ w.reshape(r.shape[0], r.shape[1], -1)).reshape(w.shape)


def _butterfly(w: Tensor, factors: Tensor) -> Tensor:
    """BOFT: factor i turns blocks made of rows that lie 2ⁱ half blocks apart."""
    half = factors.shape[-1] // 2
    for i, r in enumerate(factors):
        near = 2**i * half
        w = w.reshape(-1, 2, near, *w.shape[1:]).transpose(1, 2).reshape(w.shape)
        w = _turned(w, r)
        w = w.reshape(-1, near, 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)
    return w


def _dora(w: Tensor, raw: Tensor, magnitude: Tensor, forge: bool) -> Tensor:
    """Rescale W + Δ to the stored magnitudes, per input column.

    A scale per output row goes by the rows of W in Forge; A1111 divides by the columns all the same, and multiplies.
    """
    changed = w + raw
    eps = torch.finfo(torch.float32).eps if forge else 0.0
    tail = [1] * (w.ndim - 2)
    rows = magnitude.numel() == w.shape[0] and magnitude.shape[0] == w.shape[0] != 1
    if rows and (forge or magnitude.ndim == 1):
        source = changed if magnitude.ndim == 1 else w  # PEFT's vector is meant for the changed rows
        norm: Tensor = source.flatten(1).norm(dim=1).reshape(-1, 1, *tail) + eps
        return changed * (magnitude.reshape(norm.shape) / norm) - w
    norm = changed.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *tail) + eps
    return changed * (magnitude.reshape((-1, 1, *tail) if rows else norm.shape) / norm) - w


# --- names ---


def _module_names(model: Model) -> dict[str, Any]:
    """Every name a file may use for a module with a weight → the module."""
    out: dict[str, Any] = {}
    for path, module in model.unet.named_modules():
        if hasattr(module, "weight"):
            out["lora_unet_" + path.replace(".", "_")] = module
    for ldm, ours in _ldm_names(model.unet.config).items():
        for name, module in list(out.items()):
            rest = name.removeprefix("lora_unet_")
            if rest == ours or rest.startswith(ours + "_"):
                out.setdefault("lora_unet_" + _ldm_inner(ldm + rest.removeprefix(ours)), module)
    prefixes: tuple[tuple[str, ...], ...] = (("lora_te_", "lora_te1_"),)
    if model.family == "sdxl":
        prefixes = (("lora_te1_", "lora_te_"), ("lora_te2_",))
    elif model.family == "refiner":
        prefixes = (("lora_te2_", "lora_te_"),)
    for encoder, names in zip(model.encoders, prefixes, strict=True):
        for path, module in encoder.named_modules():
            if hasattr(module, "weight"):
                full = (
                    path
                    if path.startswith("text_model.") or "projection" in path.split(".")[0]
                    else f"text_model.{path}"
                )
                for prefix in names:
                    out.setdefault(prefix + full.replace(".", "_"), module)
    return out


def _ldm_names(config: Any) -> dict[str, str]:
    """LDM block names → diffusers' (`input_blocks_4_1` → `down_blocks_1_attentions_0`), both with underscores."""
    per = config["layers_per_block"] + 1
    levels = len(config["block_out_channels"])
    out = {
        "input_blocks_0_0": "conv_in", "out_0": "conv_norm_out", "out_2": "conv_out",
        "time_embed_0": "time_embedding_linear_1", "time_embed_2": "time_embedding_linear_2",
        "label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2",
        "middle_block_0": "mid_block_resnets_0", "middle_block_1": "mid_block_attentions_0",
        "middle_block_2": "mid_block_resnets_1",
    }  # fmt: skip
    for i in range(1, levels * per):
        block, layer = divmod(i - 1, per)
        if layer == per - 1:
            out[f"input_blocks_{i}_0_op"] = f"down_blocks_{block}_downsamplers_0_conv"
        else:
            out[f"input_blocks_{i}_0"] = f"down_blocks_{block}_resnets_{layer}"
            out[f"input_blocks_{i}_1"] = f"down_blocks_{block}_attentions_{layer}"
    for i in range(levels * per):
        block, layer = divmod(i, per)
        crossed = config["up_block_types"][block].startswith("CrossAttn")
        out[f"output_blocks_{i}_0"] = f"up_blocks_{block}_resnets_{layer}"
        if crossed:
            out[f"output_blocks_{i}_1"] = f"up_blocks_{block}_attentions_{layer}"
        if layer == per - 1:
            out[f"output_blocks_{i}_{2 if crossed else 1}_conv"] = f"up_blocks_{block}_upsamplers_0_conv"
    return out


def _ldm_inner(name: str) -> str:
    """Inside a resnet: diffusers' part names → LDM's."""
    if "_attentions_" in name or "transformer_blocks" in name:
        return name
    for ours, ldm in (
        ("_norm1", "_in_layers_0"), ("_conv1", "_in_layers_2"), ("_time_emb_proj", "_emb_layers_1"),
        ("_norm2", "_out_layers_0"), ("_conv2", "_out_layers_3"), ("_conv_shortcut", "_skip_connection"),
    ):  # fmt: skip
        if name.endswith(ours):
            return name.removesuffix(ours) + ldm
    return name

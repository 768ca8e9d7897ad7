"""Adapters: what a LoRA and its many relatives change, told from tensor names and shapes.

kohya       lora_unet_<layer_path>.lora_down.weight  .lora_up.weight  .alpha
peft        <prefix>.<layer.path>.lora_A.weight  .lora_B.weight
diffusers   <layer.path>.to_q_lora.down.weight, <layer.path>.to_q.lora.down.weight
LyCORIS     .hada_w1_a … (LoHa)  .lokr_w1 … (LoKr)  .oft_blocks (OFT, BOFT)  .a1.weight … (GLoRA)
            .on_input (IA3)  .diff (full)  .w_norm (norm)  .dora_scale (DoRA, on any of them)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.families import TEXT, Network, place
from registry.header import Tensor

_LEAVES = {
    "alpha", "dora_scale", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1",
    "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2", "oft_blocks", "oft_diag",
    "oft_R", "oft_r", "boft_R", "boft_s", "diff", "diff_b", "set_weight", "set_bias", "w_norm", "b_norm", "on_input",
    "lora_magnitude_vector", "magnitude", "lora_down", "lora_up", "lora_A", "lora_B", "ia3_l", "rescale",
    "reshape_weight",
}  # fmt: skip
_PARENTS = {
    "lora_down", "lora_up", "lora_mid", "lora_A", "lora_B", "lora_magnitude_vector", "a1", "a2", "b1", "b2", "bm1",
    "bm2", "oft_R", "oft_r", "boft_R", "boft_s", "ia3_l", "dora_scale",
}  # fmt: skip
_PARTS = {
    "lora_A": "lora_down", "lora_B": "lora_up", "down": "lora_down", "up": "lora_up", "oft_r": "oft_R",
    "magnitude": "lora_magnitude_vector",
}  # fmt: skip
_OLD = re.compile(r"(?P<where>unet|text_encoder):(?P<index>\d+):(?P<part>up|down)")
LONGEST_NAME = 1000


def split(name: str) -> tuple[str, str] | None:
    """(layer, part) of an adapter tensor; None for any other tensor."""
    if len(name) > LONGEST_NAME:
        return None
    parts = name.split(".")
    last = parts[-1]
    if last in _LEAVES and len(parts) > 1:
        return ".".join(parts[:-1]), _PARTS.get(last, last)
    if last in {"weight", "bias"} and len(parts) > 2:
        before = parts[-2]
        if before in {"down", "up"} and len(parts) > 3:
            above = parts[-3]
            if above in {"lora", "lora_linear_layer"}:
                return ".".join(parts[:-3]), _PARTS[before]
            if found := re.fullmatch(r"(.*)_lora(\d?)", above):
                return ".".join([*parts[:-3], found[1] + found[2]]), _PARTS[before]
            return None
        if before in _PARENTS:
            if last == "bias":
                return ".".join(parts[:-2]), "bias"
            return ".".join(parts[:-2]), _PARTS.get(before, before)
        if len(parts) > 3 and parts[-3] in {"lora_A", "lora_B", "lora_magnitude_vector"}:  # peft's adapter name between
            return ".".join(parts[:-3]), _PARTS.get(parts[-3], parts[-3])
    if found := _OLD.fullmatch(name):
        return f"{found['where']}.{found['index']}", _PARTS[found["part"]]
    return None


@dataclass
class Layer:
    """One changed layer."""

    parts: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    @property
    def algorithm(self) -> str | None:
        p = self.parts
        if any(part.startswith("hada_") for part in p):
            return "loha"
        if any(part.startswith("lokr_") for part in p):
            return "lokr"
        if "boft_R" in p or len(p.get("oft_blocks") or ()) == 4:
            return "boft"
        if p.keys() & {"oft_blocks", "oft_diag", "oft_R"}:
            return "oft"
        if {"a1", "a2"} <= p.keys() or {"b1", "b2"} <= p.keys():
            return "glora"
        if p.keys() & {"on_input", "ia3_l"}:
            return "ia3"
        if p.keys() & {"lora_down", "lora_up"}:
            return "locon" if self.is_conv else "lora"
        if p.keys() & {"diff", "diff_b", "set_weight", "set_bias"}:
            return "full"
        return "norm" if p.keys() & {"w_norm", "b_norm"} else None

    @property
    def is_conv(self) -> bool:
        """Whether it changes a convolution wider than one pixel."""
        if self.parts.keys() & {"lora_mid", "hada_t1", "lokr_t2"}:
            return True
        shapes = (self.parts.get(part) for part in ("lora_down", "diff", "lokr_w2", "set_weight"))
        return any(shape and len(shape) >= 4 and max(shape[2:]) > 1 for shape in shapes)

    @property
    def rank(self) -> int | None:
        p = self.parts
        for part in ("lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if shape := p.get(part):
                return shape[0]
        if shape := p.get("lora_up") or p.get("hada_w1_a") or p.get("lokr_w2_a"):
            return shape[1] if len(shape) > 1 else None
        if (shape := p.get("a1")) and len(shape) > 1:
            return min(shape[:2])
        return None

    @property
    def width(self) -> tuple[int, ...] | None:
        """(out, in) of the layer it changes, where its parts give that away; 0 = they give away only the other."""
        p = self.parts
        up, down = p.get("lora_up"), p.get("lora_down")
        if up or down:
            return (up[0] if up else 0, down[1] if down and len(down) > 1 else 0)
        if (a := p.get("hada_w1_a")) and (b := p.get("hada_w1_b")) and len(b) > 1:
            return (a[0], b[1])
        if any(part.startswith("lokr_") for part in p):
            first, second = _factor(p, "lokr_w1"), _factor(p, "lokr_w2")
            return (first[0] * second[0], first[1] * second[1]) if first and second else None
        if (rotations := p.get("oft_blocks") or p.get("oft_diag")) and len(rotations) >= 3:
            return (rotations[-3] * rotations[-1], 0)  # so many blocks of so many outputs
        if (halves := p.get("oft_R")) and len(halves) == 2:
            return (0, halves[0] * _side(halves[1]))  # peft turns the inputs, and keeps half of each skew matrix
        if (a := p.get("a1")) and (b := p.get("b2" if a[0] < a[-1] else "b1")):  # both orders are about
            return (max(b), max(a))
        if (ones := p.get("ia3")) and len(ones) < 3:
            return (0, ones[1]) if len(ones) == 2 and ones[0] == 1 else (ones[0], 0)
        return p.get("diff") or p.get("set_weight")


def _side(entries: int) -> int:
    """Of the square whose upper half, without the diagonal, has so many entries."""
    return (1 + math.isqrt(1 + 8 * entries)) // 2


def _factor(parts: Mapping[str, tuple[int, ...] | None], name: str) -> tuple[int, int] | None:
    whole, a, b = parts.get(name), parts.get(f"{name}_a"), parts.get(f"{name}_b")
    if whole and len(whole) > 1:
        return whole[0], whole[1]
    return (a[0], b[1]) if a and b and len(b) > 1 else None


@dataclass(frozen=True)
class Adapter:
    """Everything a file full of adapter tensors says by names and shapes."""

    kind: str
    layers: Mapping[str, Layer]
    algorithms: Mapping[str, int]
    ranks: Mapping[int, int]  # rank → layers
    rank: int | None  # of most layers
    dora: bool
    text: tuple[str, ...]  # layers in text encoders
    conv: bool
    network: Network

    @property
    def denoiser(self) -> bool:
        return bool(self.network.widths)


def read(tensors: Mapping[str, Tensor]) -> Adapter | None:
    """None when fewer than a third of the tensors are an adapter's, or none of them says how."""
    if any(name.endswith((".qweight", ".wscales")) for name in tensors):
        return None  # a quantised model keeps low-rank corrections beside its weights
    layers: dict[str, Layer] = {}
    count = 0
    for name, tensor in tensors.items():
        found = split(name)
        if found is None:
            continue
        count += 1
        layers.setdefault(found[0], Layer()).parts[found[1]] = tensor.shape
    for name, layer in layers.items():
        if "on_input" in layer.parts and (weight := tensors.get(f"{name}.weight")):
            layer.parts["ia3"] = weight.shape
    algorithms = Counter(a for layer in layers.values() if (a := layer.algorithm))
    if count * 3 < len(tensors) or not algorithms:
        return None
    changed = {name: layer for name, layer in layers.items() if layer.algorithm or "alpha" in layer.parts}
    text = tuple(name for name in changed if place(name)[0] == TEXT)
    ranks = _ranks(changed)
    dora = sum(bool(layer.parts.keys() & {"dora_scale", "lora_magnitude_vector"}) for layer in changed.values())
    kind = _kind(algorithms, dora * 2 >= len(changed))
    return Adapter(
        kind=kind,
        layers=changed,
        algorithms=dict(algorithms.most_common()),
        ranks=dict(sorted(ranks.items())),
        rank=max(ranks, key=lambda rank: (ranks[rank], rank), default=None),
        dora=bool(dora),
        text=text,
        conv=any(layer.is_conv for layer in changed.values()),
        network=Network.of(((name, layer.width) for name, layer in changed.items()), adapter=True),
    )


def _ranks(layers: Mapping[str, Layer]) -> Counter[int]:
    """How many layers have which rank; convolutions count only where there is nothing else, they get smaller ones."""
    linear = Counter(r for layer in layers.values() if not layer.is_conv and (r := layer.rank))
    return linear or Counter(r for layer in layers.values() if (r := layer.rank))


def _kind(algorithms: Mapping[str, int], dora: bool) -> str:
    low_rank = algorithms.get("lora", 0) + algorithms.get("locon", 0)
    others = {name: n for name, n in algorithms.items() if name not in {"lora", "locon", "full", "norm"}}
    most = max(others, key=lambda name: others[name], default=None)
    if most is not None and others[most] >= low_rank:
        return most
    if low_rank:
        if dora:
            return "dora"
        return "locon" if algorithms.get("locon") else "lora"
    return "full"

"""Random numbers as each program drew them.

`cpu` is torch's own generator; `nv` emulates CUDA's Philox generator (one thread per element), and stands in for `gpu`.
Every draw is one call: torch fills large tensors in blocks, so a tensor drawn in two calls is another tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Rng = Literal["cpu", "nv", "gpu"]
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
UNIT = np.float32(2.3283064e-10)
UNIT_2PI = np.float32(2.3283064e-10 * 6.2831855)


def philox_randn(seed: int, draw: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`count` float32 numbers of the `draw`-th call of a CUDA generator (Philox4x32-10, Salmon et al. 2011).

    Counter of element i is (draw, 0, i, 0), key the 64-bit seed; Box–Muller's sine half of words 0 and 1.
    """
    key0, key1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    c0 = np.full(count, draw & 0xFFFFFFFF, np.uint64)
    c1 = np.zeros(count, np.uint64)
    c2 = np.arange(count, dtype=np.uint64)
    c3 = np.zeros(count, np.uint64)
    for turn in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> SHIFT) ^ c1 ^ np.uint64(key0),
            p1 & LOW,
            (p0 >> SHIFT) ^ c3 ^ np.uint64(key1),
            p0 & LOW,
        )
        if turn < 9:
            key0, key1 = (key0 + W0) & 0xFFFFFFFF, (key1 + W1) & 0xFFFFFFFF
    u = c0.astype(np.float64) * np.float64(UNIT) + np.float64(UNIT / np.float32(2))
    v = c1.astype(np.float64) * np.float64(UNIT_2PI) + np.float64(UNIT_2PI / np.float32(2))
    return (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32)


class NoiseSource:
    """One generator: consecutive draws of float32 standard normals on the CPU."""

    def __init__(self, rng: Rng, seed: int) -> None:
        self.rng, self.seed, self.draws = rng, seed, 0
        self._generator = torch.Generator("cpu").manual_seed(seed & 0xFFFFFFFFFFFFFFFF) if rng == "cpu" else None

    def randn(self, shape: Sequence[int]) -> Tensor:
        if self._generator is not None:
            return torch.randn(tuple(shape), generator=self._generator)
        flat = philox_randn(self.seed, self.draws, int(np.prod(shape)))
        self.draws += 1
        return torch.from_numpy(flat).reshape(tuple(shape))


def slerp(share: float, low: Tensor, high: Tensor) -> Tensor:
    """Spherical interpolation along dim 1 of (C, H, W); nearly parallel inputs are mixed the way the WebUI does."""
    low_unit = low / torch.norm(low, dim=1, keepdim=True)
    high_unit = high / torch.norm(high, dim=1, keepdim=True)
    dot = (low_unit * high_unit).sum(1)
    if dot.mean() > 0.9995:
        return low * share + high * (1 - share)
    omega = torch.acos(dot)
    sine = torch.sin(omega)
    return (torch.sin((1 - share) * omega) / sine).unsqueeze(1) * low + (torch.sin(share * omega) / sine).unsqueeze(
        1
    ) * high


@dataclass
class ImageNoise:
    """The generators of a batch, one an image.

    `seeds`/`subseeds`: one an image. `resize_from`: (width, height) in pixels or None. `factor`: pixels per latent.
    `ensd`: after the first draw every generator is replaced by one seeded seed + ensd.
    """

    rng: Rng
    seeds: Sequence[int]
    subseeds: Sequence[int] = ()
    strength: float = 0.0
    resize_from: tuple[int, int] | None = None
    ensd: int = 0
    factor: int = 8
    _sources: list[NoiseSource] = field(init=False)

    def __post_init__(self) -> None:
        self._sources = [NoiseSource(self.rng, seed) for seed in self.seeds]

    def first(self, shape: Sequence[int]) -> Tensor:
        """Initial noise (B, C, h, w) for a latent of shape (C, h, w), unit variance."""
        out = torch.stack([self._initial(index, tuple(shape)) for index in range(len(self.seeds))])
        if self.ensd:
            self._sources = [NoiseSource(self.rng, seed + self.ensd) for seed in self.seeds]
        return out

    def _initial(self, index: int, shape: tuple[int, ...]) -> Tensor:
        small = shape
        if self.resize_from and all(side > 0 for side in self.resize_from):
            small = (shape[0], self.resize_from[1] // self.factor, self.resize_from[0] // self.factor)
        source = self._sources[index]
        noise = source.randn(shape) if small == shape else NoiseSource(self.rng, self.seeds[index]).randn(small)
        if self.strength and self.subseeds:
            noise = slerp(self.strength, noise, NoiseSource(self.rng, self.subseeds[index]).randn(small))
        return noise if small == shape else _paste(source.randn(shape), noise)

    def like(self, x: Tensor) -> Tensor:
        """One more draw an image, shaped as x (B, C, h, w), on its device."""
        return torch.stack([source.randn(x.shape[1:]) for source in self._sources]).to(x.device, x.dtype)


@dataclass
class BatchNoise:
    """ComfyUI's: one tensor of CPU noise for the whole batch; later draws go on there, or begin the GPU's stream."""

    seed: int
    count: int
    step_rng: Rng = "cpu"

    def __post_init__(self) -> None:
        self._first = NoiseSource("cpu", self.seed)
        self._later = self._first if self.step_rng == "cpu" else NoiseSource(self.step_rng, self.seed)

    def first(self, shape: Sequence[int]) -> Tensor:
        return self._first.randn((self.count, *shape))

    def like(self, x: Tensor) -> Tensor:
        return self._later.randn(tuple(x.shape)).to(x.device, x.dtype)


def _paste(large: Tensor, small: Tensor) -> Tensor:
    """The small noise centred over the large one, cut where it is larger."""
    out = large.clone()
    into: list[slice] = []
    take: list[slice] = []
    for axis in (1, 2):
        gap = (large.shape[axis] - small.shape[axis]) // 2
        length = small.shape[axis] if gap >= 0 else small.shape[axis] + 2 * gap
        to, start = max(gap, 0), max(-gap, 0)
        into.append(slice(to, to + length))
        take.append(slice(start, start + length))
    out[:, into[0], into[1]] = small[:, take[0], take[1]]
    return out


@contextmanager
def _node_noise(rng: Rng) -> Iterator[None]:
    """torchsde's tree nodes draw from a fresh generator of ours, so that they follow `rng`."""
    from torchsde._brownian import brownian_interval

    original = brownian_interval._randn  # noqa: SLF001

    def randn(size: Sequence[int], dtype: torch.dtype, device: Any, seed: int) -> Tensor:
        return NoiseSource(rng, int(seed)).randn(size).to(device, dtype)

    brownian_interval._randn = randn  # noqa: SLF001
    try:
        with warnings.catch_warnings():  # the tree moves an end it was given by one rounding, and says so
            warnings.filterwarnings("ignore", message="Should have t[ab]")
            yield
    finally:
        brownian_interval._randn = original  # noqa: SLF001


def brownian(
    x: Tensor, sigma_min: float, sigma_max: float, seeds: Sequence[int], rng: Rng, *, joint: bool = False
) -> Callable[[Any, Any], Tensor]:
    """Noise between two sigmas from one Brownian tree an image: W(σa, σb) / √|σb − σa|, entropy = the image's seed.

    `joint`: one tree for the whole batch, by the first seed (ComfyUI).
    """
    import torchsde

    low, high = torch.as_tensor(sigma_min), torch.as_tensor(sigma_max)
    zero = torch.zeros(x.shape if joint else x.shape[1:], dtype=torch.float32)
    with _node_noise(rng):
        trees = [torchsde.BrownianTree(low, zero, high, entropy=seed) for seed in (seeds[:1] if joint else seeds)]

    def noise(sigma: Any, sigma_next: Any) -> Tensor:
        start, end = torch.as_tensor(sigma).cpu(), torch.as_tensor(sigma_next).cpu()
        sign = 1.0 if start < end else -1.0
        first, last = (start, end) if start < end else (end, start)
        with _node_noise(rng):
            parts = [tree(first, last) for tree in trees]
            steps = (parts[0] if joint else torch.stack(parts)) * sign
        return (steps / (last - first).abs().sqrt()).to(x.device, x.dtype)

    return noise

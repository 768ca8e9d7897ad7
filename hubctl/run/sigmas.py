"""Noise levels: the model's table and the schedules that pick from it.

Every schedule gives n levels and a final 0 (exceptions say so). Formulas: Karras et al. 2022 (ρ-schedule), Sabour et
al. 2024 (Align Your Steps, KL optimal), Zhou et al. 2024 (GITS), Lee et al. 2024 (Beta), Kong et al. 2024
(linear-quadratic).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubctl.errors import UnknownSampler

LAST_TERMINAL_SNR = 4.8973451890853435e-08

# Published levels: (SD1, SDXL)
AYS = (
    (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
)
GITS = (
    (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029),
    (14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029),
)
AYS_32 = (
    (
        14.615, 11.23951352, 8.64363081, 6.64729424, 5.57250862, 4.71648546, 3.99196065, 3.5195609, 3.13490466,
        2.79228788, 2.48773628, 2.21663865, 1.97508351, 1.7793172, 1.61475335, 1.46540953, 1.314849, 1.16642497,
        1.03475547, 0.91573744, 0.80748169, 0.71202361, 0.621739, 0.53065202, 0.4529096, 0.37491455, 0.27461819,
        0.2011529, 0.14105873, 0.06682881, 0.03166121, 0.015,
    ),
    (
        14.615, 11.1491618, 8.50522127, 6.48827151, 5.43707402, 4.60398619, 3.89854704, 3.27407457, 2.74396527,
        2.29968659, 1.95448514, 1.67108715, 1.42878152, 1.23181009, 1.06789649, 0.92579443, 0.80290886, 0.69660121,
        0.60436903, 0.52852552, 0.46773344, 0.41393379, 0.36258186, 0.31008517, 0.26518925, 0.22326461, 0.17653877,
        0.13959192, 0.10587381, 0.05519369, 0.02877334, 0.015,
    ),
)  # fmt: skip


def alphas_cumprod(
    *, zero_terminal_snr: bool = False, downcast: bool = False, start: float = 0.00085, end: float = 0.012
) -> Tensor:
    """ᾱ of the scaled-linear schedule, float64 [1000]. `downcast`: rounded through fp16 first (WebUI before 1.7)."""
    betas = torch.linspace(start**0.5, end**0.5, 1000, dtype=torch.float64) ** 2
    out = torch.cumprod(1 - betas, 0)
    if downcast:
        out = out.half().double()
    if zero_terminal_snr:
        root = out.sqrt()
        first, last = root[0].clone(), root[-1].clone()
        out = ((root - last) * first / (first - last)) ** 2
        out[-1] = LAST_TERMINAL_SNR
    return out


@dataclass(frozen=True)
class SigmaTable:
    """σ of each timestep, float32, ascending. `quantize`: σ→t is the nearest entry (Forge, ComfyUI)."""

    sigmas: Tensor
    quantize: bool = False

    @classmethod
    def of(cls, alphas: Tensor, *, quantize: bool = False) -> SigmaTable:
        return cls(((1 - alphas) / alphas).sqrt().float(), quantize)

    @cached_property
    def logs(self) -> Tensor:
        return self.sigmas.log()

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def t_to_sigma(self, t: Tensor | float) -> Tensor:
        """Log-linear between neighbours; t may be fractional."""
        t = torch.as_tensor(t, dtype=torch.float32)
        low, high = t.floor().long(), t.ceil().long()
        share = t.frac()
        return ((1 - share) * self.logs[low] + share * self.logs[high]).exp()

    def sigma_to_t(self, sigma: Tensor | float) -> Tensor:
        """Timestep of a σ, clamped to the table: float32, whole numbers when quantised."""
        sigma = torch.as_tensor(sigma, dtype=torch.float32).cpu()
        logs = self.logs
        distance = sigma.log().reshape(-1)[None, :] - logs[:, None]
        if self.quantize:
            return distance.abs().argmin(dim=0).reshape(sigma.shape).float()
        low = distance.ge(0).cumsum(dim=0).argmax(dim=0).clamp(max=len(logs) - 2)
        share = ((logs[low] - sigma.log().reshape(-1)) / (logs[low] - logs[low + 1])).clamp(0, 1)
        return ((1 - share) * low + share * (low + 1)).reshape(sigma.shape)

    def nearest(self, sigma: float) -> int:
        """Index of the level nearest on the σ axis itself (the refiner's switch goes by it)."""
        return int((self.sigmas - sigma).abs().argmin())


def _ended(sigmas: Sequence[float] | np.ndarray[Any, Any] | Tensor) -> Tensor:
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Equation 5 of Karras et al. 2022."""
    ramp = torch.linspace(0, 1, n)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _ended((high + ramp * (low - high)) ** rho)


def exponential(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    return _ended(torch.linspace(math.log(sigma_max), math.log(sigma_min), n).exp())


def polyexponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> Tensor:
    ramp = torch.linspace(1, 0, n) ** rho
    return _ended(torch.exp(ramp * (math.log(sigma_max) - math.log(sigma_min)) + math.log(sigma_min)))


def uniform(n: int, table: SigmaTable) -> Tensor:
    return _ended(table.t_to_sigma(torch.linspace(len(table.sigmas) - 1, 0, n)))


def between(n: int, table: SigmaTable, sigma_min: float, sigma_max: float, *, sgm: bool) -> Tensor:
    """Uniform in t between two σ: `sgm` leaves the last out (SGM Uniform), else Normal."""
    start, end = float(table.sigma_to_t(sigma_max)), float(table.sigma_to_t(sigma_min))
    t = torch.linspace(start, end, n + 1)[:-1] if sgm else torch.linspace(start, end, n)
    return _ended(table.t_to_sigma(t))


def simple(n: int, table: SigmaTable) -> Tensor:
    step = len(table.sigmas) / n
    return _ended([float(table.sigmas[-(1 + int(i * step))]) for i in range(n)])


def ddim_grid(n: int, table: SigmaTable) -> Tensor:
    """Every (1000 // n)-th entry from 1 on: may give more than n levels."""
    step = max(len(table.sigmas) // n, 1)
    return _ended(table.sigmas[torch.arange(1, len(table.sigmas), step)].flip(0))


def beta(n: int, sigma_min: float, sigma_max: float, alpha: float = 0.6, beta_: float = 0.6) -> Tensor:
    """Quantiles of a Beta distribution, on σ (the WebUI's reading)."""
    from scipy import stats

    share = stats.beta.ppf(1 - np.linspace(0, 1, n), alpha, beta_)
    return _ended(sigma_min + share * (sigma_max - sigma_min))


def beta_on_timesteps(n: int, table: SigmaTable, alpha: float = 0.6, beta_: float = 0.6) -> Tensor:
    """Quantiles of a Beta distribution, on timesteps (ComfyUI's reading); repeated timesteps are dropped."""
    from scipy import stats

    last = len(table.sigmas) - 1
    t = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), alpha, beta_) * last).astype(int)
    return _ended(table.sigmas[torch.as_tensor(list(dict.fromkeys(t.tolist())))])


def kl_optimal(n: int, sigma_min: float, sigma_max: float, *, comfy: bool = False) -> Tensor:
    """n + 1 levels that end at σmin, and no final 0; ComfyUI's are n and a 0."""
    share = torch.arange(n) / max(n - 1, 1) if comfy else torch.arange(n + 1) / n
    low, high = torch.arctan(torch.tensor(sigma_min)), torch.arctan(torch.tensor(sigma_max))
    levels = torch.tan(share * low + (1.0 - share) * high)
    return _ended(levels) if comfy else levels


def published(n: int, levels: Sequence[float]) -> Tensor:
    """Levels somebody found by optimisation, resampled log-linearly when n is not their number."""
    if n != len(levels):
        xs = np.linspace(0, 1, len(levels))
        logs = np.interp(np.linspace(0, 1, n), xs, np.log(levels[::-1]))
        return _ended(np.exp(logs)[::-1].copy())
    return _ended(levels)


def turbo(n: int, table: SigmaTable) -> Tensor:
    """n equal parts of the 1000 timesteps, the last of each."""
    last = len(table.sigmas) - 1
    t = (torch.flip(torch.arange(1, n + 1) * (1000.0 / n) - 1, (0,))).round().long().clip(0, last)
    return _ended(table.sigmas[t])


def linear_quadratic(n: int, sigma_max: float, threshold: float = 0.025) -> Tensor:
    """Half of the steps linear up to `threshold` of the noise taken away, the rest quadratic."""
    if n == 1:
        return _ended([sigma_max])
    linear = n // 2
    slope = threshold / linear
    rest = n - linear
    gap = linear - threshold * n
    curve = gap / (linear * rest**2)
    ramp = threshold / linear - 2 * gap / rest**2
    offset = curve * linear**2
    done = [slope * i for i in range(linear)] + [curve * i**2 + ramp * i + offset for i in range(linear, n)]
    return _ended([(1 - share) * sigma_max for share in done])


def sigmas_for(
    schedule: str,
    n: int,
    table: SigmaTable,
    *,
    sdxl: bool = False,
    comfy: bool = False,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float | None = None,
    discard_penultimate: bool = False,
    beta_alpha: float = 0.6,
    beta_beta: float = 0.6,
) -> Tensor:
    """The levels of a canonical schedule, float32, ending in 0. Raises UnknownSampler for a schedule we do not have.

    `discard_penultimate`: one level more is asked and the last before 0 is dropped.
    """
    steps = n + 1 if discard_penultimate else n
    low, high = sigma_min or table.sigma_min, sigma_max or table.sigma_max
    match schedule:
        case "karras":
            out = karras(steps, low, high, rho or 7.0)
        case "exponential":
            out = exponential(steps, low, high)
        case "polyexponential":
            out = polyexponential(steps, low, high, rho or 1.0)
        case "uniform":
            out = uniform(steps, table)
        case "normal":
            out = between(steps, table, low, high, sgm=False)
        case "sgm_uniform":
            out = between(steps, table, low, high, sgm=True)
        case "simple":
            out = simple(steps, table)
        case "ddim" | "ddim_uniform":
            out = ddim_grid(steps, table)
        case "beta" if comfy:
            out = beta_on_timesteps(steps, table, beta_alpha, beta_beta)
        case "beta":
            out = beta(steps, low, high, beta_alpha, beta_beta)
        case "kl_optimal":
            out = kl_optimal(steps, low, high, comfy=comfy)
        case "align_your_steps" | "align_your_steps_11":
            out = published(steps, AYS[sdxl])
        case "align_your_steps_gits":
            out = published(steps, GITS[sdxl])
        case "align_your_steps_32":
            out = published(steps, AYS_32[sdxl])
        case "turbo":
            out = turbo(steps, table)
        case "linear_quadratic":
            out = linear_quadratic(steps, high)
        case _:
            raise UnknownSampler(
                f"schedule `{schedule}` is not implemented", hint="pass another with --set schedule=karras"
            )
    return torch.cat([out[:-2], out[-1:]]) if discard_penultimate else out


def hires_steps(steps: int, strength: float) -> tuple[int, int]:
    """(levels to make, levels to skip) so that exactly `steps` steps run at this denoising strength."""
    total = int(steps / min(strength, 0.999)) if strength > 0 else 0
    return total, max(total - steps, 0)


def img2img_steps(steps: int, strength: float) -> tuple[int, int]:
    """(levels to make, index of the first one used): int(d·steps) + 1 steps are run."""
    t_enc = int(min(strength, 0.999) * steps)
    return steps, steps - t_enc - 1

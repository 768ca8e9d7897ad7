"""Noise levels: the model's table and the schedules that pick from it.

Every schedule gives n levels and a final 0 (exceptions say so). Formulas: Karras et al. 2022 (ρ-schedule), Sabour et
al. 2024 (Align Your Steps, KL optimal), Lee et al. 2024 (Beta).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hubctl.errors import UnknownSampler

LAST_TERMINAL_SNR = 4.8973451890853435e-08
AYS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
AYS_GITS = (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029)


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
        logs = self.sigmas.log()
        return ((1 - share) * logs[low] + share * logs[high]).exp()

    def sigma_to_t(self, sigma: Tensor | float) -> Tensor:
        """Timestep of a σ, clamped to the table: float32, whole numbers when quantised."""
        sigma = torch.as_tensor(sigma, dtype=torch.float32).cpu()
        logs = self.sigmas.log()
        distance = sigma.log().reshape(-1)[None, :] - logs[:, None]
        if self.quantize:
            return distance.abs().argmin(dim=0).reshape(sigma.shape).float()
        low = distance.ge(0).cumsum(dim=0).argmax(dim=0).clamp(max=len(logs) - 2)
        share = ((logs[low] - sigma.log().reshape(-1)) / (logs[low] - logs[low + 1])).clamp(0, 1)
        return ((1 - share) * low + share * (low + 1)).reshape(sigma.shape)


def _ended(sigmas: Sequence[float] | Tensor) -> Tensor:
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


def kl_optimal(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """n + 1 levels that end at σmin: no final 0 is added."""
    share = torch.arange(n + 1) / n
    return torch.tan(share * math.atan(sigma_min) + (1 - share) * math.atan(sigma_max))


def align_your_steps(n: int, levels: Sequence[float]) -> Tensor:
    """Published levels, resampled log-linearly when n is not their number."""
    if n != len(levels):
        xs = np.linspace(0, 1, len(levels))
        logs = np.interp(np.linspace(0, 1, n), xs, np.log(levels[::-1]))
        return _ended(np.exp(logs)[::-1].copy())
    return _ended(levels)


def turbo(n: int, table: SigmaTable) -> Tensor:
    """Timesteps 999, 899, … of the distilled ten-step grid."""
    t = torch.flip(torch.arange(1, 11) * 100 - 1, (0,))[:n]
    return _ended(table.sigmas[t])


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
    levels = AYS_SDXL if sdxl else AYS_SD1
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
        case "beta":
            out = (
                beta_on_timesteps(steps, table, beta_alpha, beta_beta)
                if comfy
                else beta(steps, low, high, beta_alpha, beta_beta)
            )
        case "kl_optimal":
            out = kl_optimal(steps, low, high)
        case "align_your_steps":
            out = align_your_steps(steps, levels)
        case "align_your_steps_gits":
            out = align_your_steps(steps, AYS_GITS)
        case "turbo":
            out = turbo(steps, table)
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

"""Samplers: how to step. One sampler is one function and reads alone.

    denoise(x, sigma) -> denoised       x, denoised: [batch, channels, height, width]; sigma: a number
    noise(sigma, sigma_next) -> tensor  unit-variance noise shaped as x
    eps(x, t) -> e                      the DDIM family: unit-scale x, timestep t (may be fractional)
    uncond() -> tensor                  CFG++: the negative prompt's part of the last call, estimate or ε
    on_step(index, total)               after each step

Sources: Karras et al. 2022 (Euler, Heun, churn), Lu et al. 2022 (DPM-Solver, DPM-Solver++), Liu et al. 2022 (PLMS),
Song et al. 2020 (DDIM), Ho et al. 2020 (DDPM), Zhao et al. 2023 (UniPC), Xu et al. 2023 (Restart), Luo et al. 2023
(LCM), Zhang and Chen 2022 (iPNDM, DEIS), Chung et al. 2024 (CFG++), Zhang et al. 2023 (RES), Permenter and Yuan 2023
(gradient estimation). Which draws are made, and in which order, follows k-diffusion; a draw that would be thrown away
at every step is not made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Any, Any], Tensor]
OnStep = Callable[[int, int], None]
Uncond = Callable[[], Tensor]


def ignore(index: int, total: int) -> None:
    """A step callback that does nothing."""


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor]:
    """(σ_down, σ_up) of a step with `eta` of its variance made new; float32 throughout, as the reference rounds."""
    if not eta:
        return sigma_next, torch.zeros(())
    up = torch.minimum(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - up**2) ** 0.5, up


def _churned(x: Tensor, sigma: Tensor, n: int, noise: Noise, churn: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Add `s_churn` noise before a step; with churn a draw is made even where it is thrown away (outside tmin–tmax)."""
    if not churn.get("s_churn"):
        return x, sigma
    s_churn, s_noise = churn.get("s_churn", 0.0), churn.get("s_noise", 1.0)
    low, high = churn.get("s_tmin", 0.0), churn.get("s_tmax", 0.0) or math.inf
    gamma = min(s_churn / n, 2**0.5 - 1) if low <= float(sigma) <= high else 0.0
    eps = noise(sigma, sigma) * s_noise
    sigma_hat = sigma * (gamma + 1)
    if gamma > 0:
        x = x + eps * (sigma_hat**2 - sigma**2) ** 0.5
    return x, sigma_hat


def sample_euler(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **churn: float
) -> Tensor:
    """Euler steps along the probability-flow ODE, with optional churn (Karras et al. 2022, Algorithm 2)."""
    n = len(sigmas) - 1
    for i in range(n):
        x, sigma = _churned(x, sigmas[i], n, noise, churn)
        slope = (x - denoise(x, sigma)) / sigma
        x = x + slope * (sigmas[i + 1] - sigma)
        on_step(i, n)
    return x


def sample_euler_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    eta: float = 1.0,
    s_noise: float = 1.0,
    **_: float,
) -> Tensor:
    """Euler steps down, noise back up."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        down, up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + noise(sigmas[i], sigmas[i + 1]) * s_noise * up
        on_step(i, n)
    return x


def sample_heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **churn: float
) -> Tensor:
    """Heun's second-order steps (Karras et al. 2022, Algorithm 2)."""
    n = len(sigmas) - 1
    for i in range(n):
        x, sigma = _churned(x, sigmas[i], n, noise, churn)
        slope = (x - denoise(x, sigma)) / sigma
        dt = sigmas[i + 1] - sigma
        if sigmas[i + 1] == 0:
            x = x + slope * dt
        else:
            ahead = x + slope * dt
            slope_ahead = (ahead - denoise(ahead, sigmas[i + 1])) / sigmas[i + 1]
            x = x + (slope + slope_ahead) / 2 * dt
        on_step(i, n)
    return x


def sample_dpm_2(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **churn: float
) -> Tensor:
    """DPM-Solver-2-like steps through the log-midpoint (Karras et al. 2022)."""
    n = len(sigmas) - 1
    for i in range(n):
        x, sigma = _churned(x, sigmas[i], n, noise, churn)
        slope = (x - denoise(x, sigma)) / sigma
        if sigmas[i + 1] == 0:
            x = x + slope * (sigmas[i + 1] - sigma)
        else:
            mid = sigma.log().lerp(sigmas[i + 1].log(), 0.5).exp()
            half = x + slope * (mid - sigma)
            slope_mid = (half - denoise(half, mid)) / mid
            x = x + slope_mid * (sigmas[i + 1] - sigma)
        on_step(i, n)
    return x


def sample_dpm_2_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    eta: float = 1.0,
    s_noise: float = 1.0,
    **_: float,
) -> Tensor:
    """DPM2 down, noise back up."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        down, up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        slope = (x - denoised) / sigmas[i]
        if down == 0:
            x = x + slope * (down - sigmas[i])
        else:
            mid = sigmas[i].log().lerp(down.log(), 0.5).exp()
            half = x + slope * (mid - sigmas[i])
            x = x + (half - denoise(half, mid)) / mid * (down - sigmas[i])
            x = x + noise(sigmas[i], sigmas[i + 1]) * s_noise * up
        on_step(i, n)
    return x


def sample_lms(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, order: int = 4, **_: float
) -> Tensor:
    """Linear multistep: the integral of the Lagrange polynomial through the last slopes."""
    from scipy import integrate

    n = len(sigmas) - 1
    grid = sigmas.double().cpu().numpy()
    slopes: list[Tensor] = []

    def coefficient(count: int, i: int, j: int) -> float:
        def basis(tau: float) -> float:
            value = 1.0
            for k in range(count):
                if k != j:
                    value *= (tau - grid[i - k]) / (grid[i - j] - grid[i - k])
            return value

        return float(integrate.quad(basis, grid[i], grid[i + 1], epsrel=1e-4)[0])

    for i in range(n):
        slopes.append((x - denoise(x, sigmas[i])) / sigmas[i])
        slopes = slopes[-order:]
        count = min(i + 1, order)
        x = x + _weighted([coefficient(count, i, j) for j in range(count)], slopes[::-1])
        on_step(i, n)
    return x


def sample_dpmpp_2s_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    eta: float = 1.0,
    s_noise: float = 1.0,
    **_: float,
) -> Tensor:
    """DPM-Solver++(2S) down, noise back up."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        down, up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        if down == 0:
            x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        else:
            t, t_next = -sigmas[i].log(), -down.log()
            h = t_next - t
            s = t + h / 2
            half = ((-s).exp() / (-t).exp()) * x - (-h / 2).expm1() * denoised
            x = ((-t_next).exp() / (-t).exp()) * x - (-h).expm1() * denoise(half, (-s).exp())
        if sigmas[i + 1] > 0:
            x = x + noise(sigmas[i], sigmas[i + 1]) * s_noise * up
        on_step(i, n)
    return x


def sample_dpmpp_2m(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """DPM-Solver++(2M)."""
    n = len(sigmas) - 1
    previous: Tensor | None = None
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        t, t_next = -sigmas[i].log(), -sigmas[i + 1].log()
        h = t_next - t
        if previous is None or sigmas[i + 1] == 0:
            guess = denoised
        else:
            r = (t + sigmas[i - 1].log()) / h
            guess = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * previous
        x = (sigmas[i + 1] / sigmas[i]) * x - (-h).expm1() * guess
        previous = denoised
        on_step(i, n)
    return x


def sample_dpmpp_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    **_: float,
) -> Tensor:
    """DPM-Solver++ (stochastic), two stages."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        if sigmas[i + 1] == 0:
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        else:
            t, t_next = -sigmas[i].log(), -sigmas[i + 1].log()
            s = t + (t_next - t) * r
            share = 1 / (2 * r)
            down, up = ancestral_step((-t).exp(), (-s).exp(), eta)
            at = -down.log()
            half = ((-at).exp() / (-t).exp()) * x - (t - at).expm1() * denoised
            half = half + noise((-t).exp(), (-s).exp()) * s_noise * up
            denoised_half = denoise(half, (-s).exp())
            down, up = ancestral_step((-t).exp(), (-t_next).exp(), eta)
            at = -down.log()
            mixed = (1 - share) * denoised + share * denoised_half
            x = ((-at).exp() / (-t).exp()) * x - (t - at).expm1() * mixed
            x = x + noise((-t).exp(), (-t_next).exp()) * s_noise * up
        on_step(i, n)
    return x


def sample_dpmpp_2m_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, eta: float = 1.0,
    s_noise: float = 1.0, solver: str = "midpoint", **_: Any,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M) SDE, midpoint or Heun form."""
    n = len(sigmas) - 1
    previous: Tensor | None = None
    h_last = torch.ones(())
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        if sigmas[i + 1] == 0:
            x = denoised
            on_step(i, n)
            continue
        t, s = -sigmas[i].log(), -sigmas[i + 1].log()
        h = s - t
        eta_h = eta * h
        x = sigmas[i + 1] / sigmas[i] * (-eta_h).exp() * x + (-h - eta_h).expm1().neg() * denoised
        if previous is not None:
            r = h_last / h
            if solver == "heun":
                x = x + ((-h - eta_h).expm1().neg() / (-h - eta_h) + 1) * (1 / r) * (denoised - previous)
            else:
                x = x + 0.5 * (-h - eta_h).expm1().neg() * (1 / r) * (denoised - previous)
        if eta:
            x = x + noise(sigmas[i], sigmas[i + 1]) * sigmas[i + 1] * (-2 * eta_h).expm1().neg().sqrt() * s_noise
        previous, h_last = denoised, h
        on_step(i, n)
    return x


def sample_dpmpp_2m_sde_heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **options: float
) -> Tensor:
    """DPM-Solver++(2M) SDE in its Heun form."""
    return sample_dpmpp_2m_sde(denoise, x, sigmas, noise=noise, on_step=on_step, solver="heun", **options)


def sample_dpmpp_3m_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    eta: float = 1.0,
    s_noise: float = 1.0,
    **_: float,
) -> Tensor:
    """DPM-Solver++(3M) SDE."""
    n = len(sigmas) - 1
    one: Tensor | None = None
    two: Tensor | None = None
    h_one = h_two = torch.ones(())
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        h = torch.ones(())
        if sigmas[i + 1] == 0:
            x = denoised
        else:
            h = sigmas[i].log() - sigmas[i + 1].log()
            h_eta = h * (eta + 1)
            x = torch.exp(-h_eta) * x + (-h_eta).expm1().neg() * denoised
            if one is not None and two is not None:
                r0, r1 = h_one / h, h_two / h
                d1_0, d1_1 = (denoised - one) / r0, (one - two) / r1
                d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
                d2 = (d1_0 - d1_1) / (r0 + r1)
                phi_2 = h_eta.neg().expm1() / h_eta + 1
                phi_3 = phi_2 / h_eta - 0.5
                x = x + phi_2 * d1 - phi_3 * d2
            elif one is not None:
                r = h_one / h
                phi_2 = h_eta.neg().expm1() / h_eta + 1
                x = x + phi_2 * (denoised - one) / r
            if eta:
                x = x + noise(sigmas[i], sigmas[i + 1]) * sigmas[i + 1] * (-2 * h * eta).expm1().neg().sqrt() * s_noise
        one, two = denoised, one
        h_one, h_two = h, h_one
        on_step(i, n)
    return x


class _DPMSolver:
    """Steps of DPM-Solver of order 1 to 3 in t = −log σ, sharing ε evaluations (Lu et al. 2022)."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.cache: dict[str, Tensor] = {}

    def eps(self, key: str, x: Tensor, t: Tensor) -> Tensor:
        if key not in self.cache:
            sigma = (-t).exp()
            self.cache[key] = (x - self._denoise(x, sigma)) / sigma
        return self.cache[key]

    def step1(self, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        h = t_next - t
        return x - (-t_next).exp() * h.expm1() * self.eps("eps", x, t)

    def step2(self, x: Tensor, t: Tensor, t_next: Tensor, r1: float = 1 / 2) -> Tensor:
        h = t_next - t
        e = self.eps("eps", x, t)
        s1 = t + r1 * h
        u1 = x - (-s1).exp() * (r1 * h).expm1() * e
        e1 = self.eps(f"eps_r1_{r1}", u1, s1)
        sigma = (-t_next).exp()
        return x - sigma * h.expm1() * e - sigma / (2 * r1) * h.expm1() * (e1 - e)

    def step3(self, x: Tensor, t: Tensor, t_next: Tensor, r1: float = 1 / 3, r2: float = 2 / 3) -> Tensor:
        h = t_next - t
        e = self.eps("eps", x, t)
        s1, s2 = t + r1 * h, t + r2 * h
        u1 = x - (-s1).exp() * (r1 * h).expm1() * e
        e1 = self.eps(f"eps_r1_{r1}", u1, s1)
        u2 = (
            x
            - (-s2).exp() * (r2 * h).expm1() * e
            - (-s2).exp() * (r2 / r1) * ((r2 * h).expm1() / (r2 * h) - 1) * (e1 - e)
        )
        e2 = self.eps(f"eps_r2_{r2}", u2, s2)
        sigma = (-t_next).exp()
        return x - sigma * h.expm1() * e - sigma / r2 * (h.expm1() / h - 1) * (e2 - e)


def dpm_fast(
    denoise: Denoise, x: Tensor, sigma_min: Tensor, sigma_max: Tensor, n: int, *, noise: Noise,
    on_step: OnStep = ignore, eta: float = 1.0, s_noise: float = 1.0, **_: float,
) -> Tensor:  # fmt: skip
    """DPM-Solver-fast: third-order steps and what is left over in lower orders; n evaluations in all."""
    t_start, t_end = -sigma_max.log(), -sigma_min.log()
    m = n // 3 + 1
    ts = torch.linspace(float(t_start), float(t_end), m + 1)
    orders = [3] * (m - 2) + [2, 1] if n % 3 == 0 else [3] * (m - 1) + [n % 3]
    for i, order in enumerate(orders):
        solver = _DPMSolver(denoise)
        t, t_next = ts[i], ts[i + 1]
        su = torch.zeros(())
        t_down = t_next
        if eta:
            down, up = ancestral_step((-t).exp(), (-t_next).exp(), eta)
            t_down = torch.minimum(t_end, -down.log())
            su = ((-t_next).exp() ** 2 - (-t_down).exp() ** 2) ** 0.5
            del up
        solver.eps("eps", x, t)
        if order == 1:
            x = solver.step1(x, t, t_down)
        elif order == 2:
            x = solver.step2(x, t, t_down)
        else:
            x = solver.step3(x, t, t_down)
        x = x + su * s_noise * noise((-t).exp(), (-t_next).exp())
        on_step(i, len(orders))
    return x


def dpm_adaptive(
    denoise: Denoise, x: Tensor, sigma_min: Tensor, sigma_max: Tensor, n: int = 0, *, noise: Noise,
    on_step: OnStep = ignore, eta: float = 1.0, s_noise: float = 1.0, order: int = 3, rtol: float = 0.05,
    atol: float = 0.0078, h_init: float = 0.05, **_: float,
) -> Tensor:  # fmt: skip
    """DPM-Solver-12 or -23 with a PID step-size controller; the number of evaluations varies."""
    t_end = -sigma_min.log()
    s = -sigma_max.log()
    previous = x
    h = torch.tensor(h_init)
    errors: list[float] = []
    b = 1 / (1.5 if eta else order)
    accept_safety, forward = 0.81, float(t_end) > float(s)
    count = 0
    while (s < t_end - 1e-5) if forward else (s > t_end + 1e-5):
        t = torch.minimum(t_end, s + h)
        su = torch.zeros(())
        t_down = t
        if eta:
            down, _up = ancestral_step((-s).exp(), (-t).exp(), eta)
            t_down = torch.minimum(t_end, -down.log())
            su = ((-t).exp() ** 2 - (-t_down).exp() ** 2) ** 0.5
        solver = _DPMSolver(denoise)
        solver.eps("eps", x, s)
        if order == 2:
            low, high = solver.step1(x, s, t_down), solver.step2(x, s, t_down)
        else:
            low, high = solver.step2(x, s, t_down, r1=1 / 3), solver.step3(x, s, t_down)
        delta = torch.maximum(torch.tensor(atol), rtol * torch.maximum(low.abs(), previous.abs()))
        error = float(torch.linalg.norm((low - high) / delta) / x.numel() ** 0.5)
        inverse = 1 / (error + 1e-8)
        if not errors:
            errors = [inverse] * 3
        errors[0] = inverse
        factor = 1 + math.atan(errors[0] ** b - 1)  # k-diffusion's defaults: pure integral control
        accept = factor >= accept_safety
        if accept:
            errors[2], errors[1] = errors[1], errors[0]
            previous = low
            x = high + su * s_noise * noise((-s).exp(), (-t).exp())
            s = t
            on_step(count, count + 1)
            count += 1
        h = h * factor
    return x


def sample_restart(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    s_noise: float = 1.0,
    **_: float,
) -> Tensor:
    """Heun steps that jump back up and down again between σ ≈ 0.1 and 2 (Xu et al. 2023)."""
    from hubctl.run.sigmas import karras

    n = len(sigmas) - 1
    plan: dict[int, tuple[int, int, float]] = {}
    if n >= 20:
        restart_steps, times = (n // 4, 2) if n >= 36 else (9, 1)
        sigmas = karras(n - restart_steps * times, float(sigmas[-2]), float(sigmas[0]), 7.0).to(sigmas)
        low = int((sigmas - 0.1).abs().argmin())
        plan[low] = (restart_steps + 1, times, 2.0)
    pairs: list[tuple[Tensor, Tensor]] = []
    for i in range(len(sigmas) - 1):
        pairs.append((sigmas[i], sigmas[i + 1]))
        if i + 1 in plan:
            count, times, top = plan[i + 1]
            high = int((sigmas - top).abs().argmin())
            if high < i + 1:
                again = karras(count, float(sigmas[i + 1]), float(sigmas[high]), 7.0)[:-1].to(sigmas)
                for _turn in range(times):
                    pairs += list(itertools.pairwise(again))
    last: Tensor | None = None
    for index, (old, new) in enumerate(pairs):
        if last is not None and last < old:
            x = x + noise(last, old) * s_noise * (old**2 - last**2) ** 0.5
        slope = (x - denoise(x, old)) / old
        if new == 0:
            x = x + slope * (new - old)
        else:
            ahead = x + slope * (new - old)
            x = x + (slope + (ahead - denoise(ahead, new)) / new) / 2 * (new - old)
        last = new
        on_step(index, len(pairs))
    return x


def sample_lcm(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """Latent consistency: jump to the estimate, add noise for the next level."""
    n = len(sigmas) - 1
    for i in range(n):
        x = denoise(x, sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + sigmas[i + 1] * noise(sigmas[i], sigmas[i + 1])
        on_step(i, n)
    return x


def sample_heunpp2(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """Heun++: one, then two, then three slopes a step, weighted by their sigmas."""
    n = len(sigmas) - 1
    top = sigmas[0]
    for i in range(n):
        sigma = sigmas[i]
        slope = (x - denoise(x, sigma)) / sigma
        dt = sigmas[i + 1] - sigma
        if i + 1 == n:
            x = x + slope * dt
        elif i + 2 == n:
            ahead = x + slope * dt
            slope_2 = (ahead - denoise(ahead, sigmas[i + 1])) / sigmas[i + 1]
            w = 2 * top
            w2 = sigmas[i + 1] / w
            x = x + (slope * (1 - w2) + slope_2 * w2) * dt
        else:
            ahead = x + slope * dt
            slope_2 = (ahead - denoise(ahead, sigmas[i + 1])) / sigmas[i + 1]
            further = ahead + slope_2 * (sigmas[i + 2] - sigmas[i + 1])
            slope_3 = (further - denoise(further, sigmas[i + 2])) / sigmas[i + 2]
            w = 3 * top
            w2, w3 = sigmas[i + 1] / w, sigmas[i + 2] / w
            x = x + (slope * (1 - w2 - w3) + slope_2 * w2 + slope_3 * w3) * dt
        on_step(i, n)
    return x


def sample_ipndm(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, order: int = 4, **_: float
) -> Tensor:
    """Improved pseudo-linear multistep with constant Adams–Bashforth weights (Zhang and Chen 2022)."""
    weights = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
    n = len(sigmas) - 1
    slopes: list[Tensor] = []
    for i in range(n):
        slopes = [(x - denoise(x, sigmas[i])) / sigmas[i], *slopes][:order]
        x = x + (sigmas[i + 1] - sigmas[i]) * _weighted(weights[len(slopes)], slopes)
        on_step(i, n)
    return x


def _weighted(weights: Any, tensors: list[Tensor]) -> Tensor:
    return sum((w * d for w, d in zip(weights, tensors, strict=True)), start=torch.zeros_like(tensors[0]))


def sample_ipndm_v(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, order: int = 4, **_: float
) -> Tensor:
    """iPNDM with weights for steps of unequal length (as the WebUI's implementation has them)."""
    n = len(sigmas) - 1
    slopes: list[Tensor] = []
    for i in range(n):
        slopes = [(x - denoise(x, sigmas[i])) / sigmas[i], *slopes][:order]
        steps = [float(sigmas[i + 1 - k] - sigmas[i - k]) for k in range(len(slopes))]
        x = x + steps[0] * _weighted(_unequal_weights(*steps), slopes)
        on_step(i, n)
    return x


def _unequal_weights(h: float, h1: float = 0, h2: float = 0, h3: float = 0) -> list[float]:
    """Adams–Bashforth weights for the last steps h, h1, h2, h3; the third term is not Lagrange's, as in the WebUI."""
    if not h1:
        return [1.0]
    first, second = (2 + h / h1) / 2, -(h / h1) / 2
    if not h2:
        return [first, second]
    third = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
    if not h3:
        return [first + third, second - (1 + h1 / h2) * third, third * h1 / h2]
    fourth = ((1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))) * (
        h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    )
    far = h1 * (h1 + h2) / (h2 * (h2 + h3))
    return [
        first + third + fourth,
        second - (1 + h1 / h2) * third - (1 + h1 / h2 + far) * fourth,
        third * h1 / h2 + (h1 / h2 + far * (1 + h2 / h3)) * fourth,
        -fourth * far * h1 / h2,
    ]


def sample_deis(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, order: int = 3, **_: float
) -> Tensor:
    """DEIS, tAB form: Lagrange polynomials in VP time, integrated numerically (Zhang and Chen 2022)."""
    n = len(sigmas) - 1
    times, low, high = _vp_time(sigmas.double().cpu())
    slopes: list[Tensor] = []
    for i in range(n):
        slopes = [(x - denoise(x, sigmas[i])) / sigmas[i], *slopes][:order]
        if len(slopes) == 1 or sigmas[i + 1] <= 0:
            x = x + (sigmas[i + 1] - sigmas[i]) * slopes[0]
        else:
            x = x + _weighted(_deis_weights(times, i, len(slopes), low, high), slopes)
        on_step(i, n)
    return x


def _vp_time(
    sigmas: Tensor, start: float = 1e-3, low: float = 0.002, high: float = 80.0
) -> tuple[Tensor, float, float]:
    """σ → time of a VP process with linear β that reaches σ = 0.002 … 80 in 0.001 … 1; and its β at both ends."""
    slope = 2 * (math.log(low**2 + 1) / start - math.log(high**2 + 1)) / (start - 1)
    first = math.log(high**2 + 1) - 0.5 * slope
    times = ((first**2 + 2 * slope * (sigmas**2 + 1).log()).sqrt() - first) / slope
    return times, first, slope + first


def _deis_weights(times: Tensor, i: int, order: int, low: float, high: float, points: int = 10000) -> list[float]:
    taus = torch.linspace(float(times[i]), float(times[i + 1]), points, dtype=torch.float64)
    log_alpha = -0.5 * taus**2 * (high - low) - taus * low
    alpha = log_alpha.exp()
    integrand = 0.5 * (taus * (high - low) + low) / (alpha * (1 - alpha)).sqrt()
    width = float(times[i + 1] - times[i]) / points
    out = []
    for j in range(order):
        basis = torch.ones_like(taus)
        for k in range(order):
            if k != j:
                basis = basis * (taus - times[i - k]) / (times[i - j] - times[i - k])
        out.append(float((integrand * basis).sum()) * width)
    return out


def sample_ddpm(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """Ancestral steps of the DDPM posterior, at unit scale between σ levels (Ho et al. 2020)."""
    n = len(sigmas) - 1
    for i in range(n):
        sigma, following = sigmas[i], sigmas[i + 1]
        e = (x - denoise(x, sigma)) / sigma
        bar, bar_next = 1 / (sigma**2 + 1), 1 / (following**2 + 1)
        alpha = bar / bar_next
        x = (1 / alpha).sqrt() * (x / (1 + sigma**2).sqrt() - (1 - alpha) * e / (1 - bar).sqrt())
        if following > 0:
            x = x + ((1 - alpha) * (1 - bar_next) / (1 - bar)).sqrt() * noise(sigma, following)
            x = x * (1 + following**2).sqrt()
        on_step(i, n)
    return x


def sample_gradient_estimation(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    on_step: OnStep = ignore,
    gamma: float = 2.0,
    uncond: Uncond | None = None,
    **_: Any,
) -> Tensor:
    """Euler with the slope carried on past its last change (Permenter and Yuan 2023); with `uncond` its CFG++ form."""
    n = len(sigmas) - 1
    last: Tensor | None = None
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        slope = (x - (denoised if uncond is None else uncond())) / sigmas[i]
        step = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0:
            x = denoised
        else:
            x = x + slope * step if uncond is None else denoised + slope * sigmas[i + 1]
            if last is not None:
                x = x + (gamma - 1) * (slope - last) * step
        last = slope
        on_step(i, n)
    return x


def sample_res_multistep_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore, eta: float = 1.0,
    s_noise: float = 1.0, uncond: Uncond | None = None, **_: float,
) -> Tensor:  # fmt: skip
    """Refined exponential solver, two steps (Zhang et al. 2023); with `uncond` its CFG++ form."""
    n = len(sigmas) - 1
    previous: Tensor | None = None
    before = torch.zeros(())
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        down, up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        if down == 0 or previous is None:
            if uncond is None:
                x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
            else:
                x = denoised + (x - uncond()) / sigmas[i] * down
        else:
            h = sigmas[i].log() - down.log()
            reach = (before.log() - sigmas[i - 1].log()) / h
            phi_1 = torch.expm1(-h) / -h
            phi_2 = (phi_1 - 1) / -h
            new, old = phi_1 - phi_2 / reach, phi_2 / reach
            latest = denoised
            if uncond is not None:
                latest = uncond()
                x = x + (denoised - latest)
            x = (-h).exp() * x + h * (new * latest + old * previous)
        if sigmas[i + 1] > 0 and eta:
            x = x + noise(sigmas[i], sigmas[i + 1]) * s_noise * up
        previous = denoised if uncond is None else uncond()
        before = down
        on_step(i, n)
    return x


def sample_res_multistep(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, on_step: OnStep = ignore,
    uncond: Uncond | None = None, **_: float,
) -> Tensor:  # fmt: skip
    """Refined exponential solver, two steps, without noise."""
    return sample_res_multistep_ancestral(denoise, x, sigmas, noise=noise, on_step=on_step, eta=0.0, uncond=uncond)


# --- CFG++: the step goes to the guided estimate, in the direction of the negative prompt's ---


def sample_euler_ancestral_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, uncond: Uncond, on_step: OnStep = ignore,
    eta: float = 1.0, s_noise: float = 1.0, **_: float,
) -> Tensor:  # fmt: skip
    """Euler steps of CFG++, noise back up (Chung et al. 2024)."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        down, up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        x = denoised + (x - uncond()) / sigmas[i] * down
        if sigmas[i + 1] > 0 and eta:
            x = x + noise(sigmas[i], sigmas[i + 1]) * s_noise * up
        on_step(i, n)
    return x


def sample_euler_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, uncond: Uncond, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """Euler steps of CFG++."""
    return sample_euler_ancestral_cfg_pp(denoise, x, sigmas, noise=noise, uncond=uncond, on_step=on_step, eta=0.0)


def sample_dpmpp_2s_ancestral_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, uncond: Uncond, on_step: OnStep = ignore,
    eta: float = 1.0, s_noise: float = 1.0, **_: float,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2S) with CFG++ steps."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        away = denoised - uncond()
        down, up = ancestral_step(sigmas[i], sigmas[i + 1], eta)
        if down == 0:
            x = denoised
        else:
            t, t_next = -sigmas[i].log(), -down.log()
            h = t_next - t
            s = t + h / 2
            half = ((-s).exp() / (-t).exp()) * (x + away) - (-h / 2).expm1() * denoised
            x = ((-t_next).exp() / (-t).exp()) * (x + away) - (-h).expm1() * denoise(half, (-s).exp())
        if sigmas[i + 1] > 0:
            x = x + noise(sigmas[i], sigmas[i + 1]) * s_noise * up
        on_step(i, n)
    return x


def sample_dpmpp_2m_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: Noise, uncond: Uncond, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """DPM-Solver++(2M) with CFG++ steps."""
    n = len(sigmas) - 1
    previous: Tensor | None = None
    for i in range(n):
        denoised = denoise(x, sigmas[i])
        plain = uncond()
        t, t_next = -sigmas[i].log(), -sigmas[i + 1].log()
        h = t_next - t
        mixed = -torch.exp(-h) * plain
        if previous is not None and sigmas[i + 1] != 0:
            r = (t + sigmas[i - 1].log()) / h
            mixed = mixed - torch.expm1(-h) * (1 / (2 * r)) * (denoised - previous)
        x = denoised + mixed + torch.exp(-h) * x
        previous = plain
        on_step(i, n)
    return x


# --- the DDIM family: its own grid, unit-scale x ---


def ddim_timesteps(steps: int) -> Tensor:
    """clip(0, s, 2s, … + 1), s = 1000 // steps: may hold more entries than steps."""
    return (torch.arange(0, 1000, max(1000 // steps, 1)) + 1).clamp(0, 999)


Eps = Callable[..., Tensor]


def sample_ddim(
    eps: Eps, x: Tensor, timesteps: Tensor, alphas: Tensor, *, noise: Noise, on_step: OnStep = ignore, eta: float = 0.0,
    uncond: Uncond | None = None,
) -> Tensor:  # fmt: skip
    """DDIM over `timesteps` from last to second; x at unit scale, `alphas` = ᾱ in float64.

    `uncond` gives the unconditional ε of the last call: the direction term of CFG++.
    """
    n = len(timesteps) - 1
    levels = alphas[timesteps].double()
    before = alphas[torch.nn.functional.pad(timesteps[:-1], (1, 0))].double()
    for step, i in enumerate(range(n, 0, -1)):
        e = eps(x, float(timesteps[i]))
        a, a_prev = float(levels[i]), float(before[i])
        spread = eta * math.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        x0 = (x - math.sqrt(1 - a) * e) / math.sqrt(a)
        direction = uncond() if uncond is not None else e
        x = math.sqrt(a_prev) * x0 + math.sqrt(max(1 - a_prev - spread**2, 0)) * direction
        if eta:  # a draw is made even where nothing of it is used
            x = x + spread * noise(0, 0)
        on_step(step, n)
    return x


def sample_plms(
    eps: Eps, x: Tensor, timesteps: Tensor, alphas: Tensor, *, noise: Noise, on_step: OnStep = ignore, **_: float
) -> Tensor:
    """Pseudo-linear multistep: improved Euler first, then Adams–Bashforth of growing order (Liu et al. 2022)."""
    n = len(timesteps) - 1
    levels = alphas[timesteps].double()
    before = alphas[torch.nn.functional.pad(timesteps[:-1], (1, 0))].double()
    old: list[Tensor] = []

    def step_from(x: Tensor, e: Tensor, i: int) -> Tensor:
        a, a_prev = float(levels[i]), float(before[i])
        x0 = (x - math.sqrt(1 - a) * e) / math.sqrt(a)
        return math.sqrt(a_prev) * x0 + math.sqrt(1 - a_prev) * e

    for step, i in enumerate(range(n, 0, -1)):
        e = eps(x, float(timesteps[i]))
        if not old:
            ahead = eps(step_from(x, e, i), float(timesteps[max(i - 1, 0)]))
            mixed = (e + ahead) / 2
        elif len(old) == 1:
            mixed = (3 * e - old[-1]) / 2
        elif len(old) == 2:
            mixed = (23 * e - 16 * old[-1] + 5 * old[-2]) / 12
        else:
            mixed = (55 * e - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24
        old = [*old, e][-3:]
        x = step_from(x, mixed, i)
        on_step(step, n)
    return x


def sample_uni_pc(
    eps: Eps, x: Tensor, steps: int, alphas: Tensor, *, start: float = 1.0, order: int = 3, variant: str = "bh1",
    lower_order_final: bool = True, skip_type: str = "time_uniform", on_step: OnStep = ignore,
) -> Tensor:  # fmt: skip
    """UniPC, multistep, data prediction (Zhao et al. 2023). `start`: continuous time in (0, 1]; ends at 1/1000.

    The last model evaluation is skipped and the last step has no corrector: `steps` calls.
    """
    log_alpha = alphas.double().log() / 2
    grid = torch.linspace(1 / 1000, 1, 1000, dtype=torch.float64)

    def log_mean(t: float) -> float:
        import numpy as np

        return float(np.interp(t, grid.numpy(), log_alpha.numpy()))

    def lam(t: float) -> float:
        value = log_mean(t)
        return value - 0.5 * math.log(-math.expm1(2 * value))

    def levels(t: float) -> tuple[float, float]:
        value = log_mean(t)
        return math.exp(value), math.sqrt(-math.expm1(2 * value))

    def x0(x: Tensor, t: float) -> Tensor:
        alpha, sigma = levels(t)
        return (x - sigma * eps(x, float((torch.tensor(t) - 1 / 1000) * 1000))) / alpha

    times = _unipc_times(skip_type, start, 1 / 1000, steps, lam)
    history: list[tuple[float, Tensor]] = [(times[0], x0(x, times[0]))]
    for step in range(1, steps + 1):
        used = min(order, step)
        if lower_order_final and step >= order:
            used = min(order, steps + 1 - step)
        corrector = step < steps
        x, model = _unipc_step(x, history, times[step], used, variant, lam, levels, x0 if corrector else None)
        if model is not None:
            history = [*history, (times[step], model)][-order:]
        on_step(step - 1, steps)
    return x


def _unipc_times(kind: str, start: float, end: float, steps: int, lam: Callable[[float], float]) -> list[float]:
    """In float32, as the reference counts: half-way timesteps (499.5) round one way or the other by it."""
    if kind == "time_quadratic":
        return torch.linspace(math.sqrt(start), math.sqrt(end), steps + 1).pow(2).tolist()
    if kind == "logSNR":
        wanted = torch.linspace(lam(start), lam(end), steps + 1, dtype=torch.float64)
        return [_invert(lam, float(value), end, start) for value in wanted]
    return torch.linspace(start, end, steps + 1).tolist()


def _invert(function: Callable[[float], float], value: float, low: float, high: float) -> float:
    """t with function(t) = value for a function that falls with t."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > value else (low, middle)
    return (low + high) / 2


def _unipc_step(
    x: Tensor, history: list[tuple[float, Tensor]], t: float, order: int, variant: str, lam: Callable[[float], float],
    levels: Callable[[float], tuple[float, float]], evaluate: Callable[[Tensor, float], Tensor] | None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """One predictor step and, when `evaluate` is given, the corrector with the new evaluation."""
    t0, m0 = history[-1]
    lambda0, lambda_t = lam(t0), lam(t)
    h = lambda_t - lambda0
    alpha, sigma = levels(t)
    sigma0 = levels(t0)[1]
    rks, d1s = [], []
    for k in range(1, order):
        time, model = history[-(k + 1)]
        rk = (lam(time) - lambda0) / h
        rks.append(rk)
        d1s.append((model - m0) / rk)
    rks.append(1.0)
    hh = -h
    phi_1 = math.expm1(hh)
    phi_k, factorial = phi_1 / hh - 1, 1
    b_h = hh if variant == "bh1" else math.expm1(hh)
    rows, b = [], []
    for i in range(1, order + 1):
        rows.append([rk ** (i - 1) for rk in rks])
        b.append(phi_k * factorial / b_h)
        factorial *= i + 1
        phi_k = phi_k / hh - 1 / factorial
    matrix, vector = torch.tensor(rows, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    base = sigma / sigma0 * x - alpha * phi_1 * m0
    predicted = base
    if d1s:
        weights = [0.5] if order == 2 else torch.linalg.solve(matrix[:-1, :-1], vector[:-1]).tolist()
        predicted = base - alpha * b_h * sum(w * d for w, d in zip(weights, d1s, strict=True))
    if evaluate is None:
        return predicted, None
    model = evaluate(predicted, t)
    weights = [0.5] if order == 1 else torch.linalg.solve(matrix, vector).tolist()
    correction = sum((w * d for w, d in zip(weights[:-1], d1s, strict=True)), start=torch.zeros_like(m0))
    return base - alpha * b_h * (correction + weights[-1] * (model - m0)), model


# --- the table ---


@dataclass(frozen=True)
class SamplerInfo:
    """What a runner must know of a sampler besides its steps."""

    function: Callable[..., Tensor]
    automatic: str = "uniform"  # schedule of "Automatic"
    second_order: bool = False  # twice the denoiser calls in prompt timelines
    discard_penultimate: bool = False
    noise: Literal["generator", "brownian"] = "generator"
    family: Literal["k", "range", "ddim"] = "k"
    options: frozenset[str] = frozenset()
    uncond: bool = False  # steps by the negative prompt's part too (CFG++)


# What the WebUIs pass on: not every function that knows `s_noise` or `s_churn` is given them
CHURN = frozenset({"s_churn", "s_tmin", "s_tmax", "s_noise"})
ETA = frozenset({"eta", "s_noise"})
ETA_ALONE = frozenset({"eta"})
SAMPLERS: dict[str, SamplerInfo] = {
    "euler": SamplerInfo(sample_euler, options=CHURN),
    "euler_ancestral": SamplerInfo(sample_euler_ancestral, options=ETA_ALONE),
    "heun": SamplerInfo(sample_heun, second_order=True, options=CHURN),
    "heunpp2": SamplerInfo(sample_heunpp2),
    "lms": SamplerInfo(sample_lms),
    "dpm_2": SamplerInfo(sample_dpm_2, "karras", second_order=True, discard_penultimate=True, options=CHURN),
    "dpm_2_ancestral": SamplerInfo(
        sample_dpm_2_ancestral, "karras", second_order=True, discard_penultimate=True, options=ETA
    ),
    "dpmpp_2s_ancestral": SamplerInfo(sample_dpmpp_2s_ancestral, "karras", second_order=True, options=ETA),
    "dpmpp_2m": SamplerInfo(sample_dpmpp_2m, "karras"),
    "dpmpp_sde": SamplerInfo(sample_dpmpp_sde, "karras", second_order=True, noise="brownian", options=ETA),
    "dpmpp_2m_sde": SamplerInfo(sample_dpmpp_2m_sde, "exponential", noise="brownian", options=ETA),
    "dpmpp_2m_sde_heun": SamplerInfo(sample_dpmpp_2m_sde_heun, "exponential", noise="brownian", options=ETA),
    "dpmpp_3m_sde": SamplerInfo(
        sample_dpmpp_3m_sde, "exponential", discard_penultimate=True, noise="brownian", options=ETA
    ),
    "dpm_fast": SamplerInfo(dpm_fast, family="range", options=ETA),
    "dpm_adaptive": SamplerInfo(dpm_adaptive, family="range", options=ETA_ALONE),
    "restart": SamplerInfo(sample_restart, "karras", second_order=True),
    "lcm": SamplerInfo(sample_lcm),
    "ipndm": SamplerInfo(sample_ipndm),
    "ipndm_v": SamplerInfo(sample_ipndm_v),
    "deis": SamplerInfo(sample_deis),
    "ddpm": SamplerInfo(sample_ddpm),
    "gradient_estimation": SamplerInfo(sample_gradient_estimation),
    "res_multistep": SamplerInfo(sample_res_multistep),
    "res_multistep_ancestral": SamplerInfo(sample_res_multistep_ancestral, options=ETA),
    "res_multistep_cfg_pp": SamplerInfo(sample_res_multistep, uncond=True),
    "res_multistep_ancestral_cfg_pp": SamplerInfo(sample_res_multistep_ancestral, options=ETA, uncond=True),
    "gradient_estimation_cfg_pp": SamplerInfo(sample_gradient_estimation, uncond=True),
    "euler_cfg_pp": SamplerInfo(sample_euler_cfg_pp, uncond=True),
    "euler_ancestral_cfg_pp": SamplerInfo(sample_euler_ancestral_cfg_pp, options=ETA, uncond=True),
    "dpmpp_2s_ancestral_cfg_pp": SamplerInfo(sample_dpmpp_2s_ancestral_cfg_pp, options=ETA, uncond=True),
    "dpmpp_2m_cfg_pp": SamplerInfo(sample_dpmpp_2m_cfg_pp, uncond=True),
    "ddim": SamplerInfo(sample_ddim, family="ddim"),
    "ddim_cfgpp": SamplerInfo(sample_ddim, family="ddim", uncond=True),
    "plms": SamplerInfo(sample_plms, family="ddim"),
    "uni_pc": SamplerInfo(sample_uni_pc, family="ddim"),
    "uni_pc_bh2": SamplerInfo(sample_uni_pc, family="ddim"),
}

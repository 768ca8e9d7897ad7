"""Samplers on a distribution whose answer is known: data N(0, c²), for which the best denoiser is a straight line."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hubctl.parameters import SAMPLERS, sampler_name
from hubctl.run import names, samplers
from hubctl.run.noise import NoiseSource, brownian
from hubctl.run.samplers import SamplerInfo
from hubctl.run.sigmas import SigmaTable, alphas_cumprod, karras, sigmas_for

C = 1.5  # standard deviation of the data
ALPHAS = alphas_cumprod()
TABLE = SigmaTable.of(ALPHAS)
SHAPE = (1, 4, 32, 32)
STOCHASTIC = {
    "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde", "dpm_fast", "dpm_adaptive", "lcm", "ddpm", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp",
    "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "restart",
}  # fmt: skip
DETERMINISTIC = sorted(set(samplers.SAMPLERS) - STOCHASTIC)
SPREADING = sorted(STOCHASTIC - {"lcm"})  # LCM takes each estimate for the answer: right for distilled models alone


class Toy:
    """The exact denoiser, counting its calls."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.last = torch.zeros(())

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        self.calls.append(float(sigma))
        self.last = x * C**2 / (C**2 + float(sigma) ** 2)
        return self.last

    def eps(self, x: Tensor, t: float) -> Tensor:
        alpha = float(ALPHAS[min(round(t), 999)])
        self.calls.append(t)
        self.last = math.sqrt(1 - alpha) * x / (alpha * C**2 + 1 - alpha)
        return self.last


def drive(
    name: str, steps: int, *, schedule: str = "karras", eta: float | None = None, seed: int = 1
) -> tuple[Any, ...]:
    """(what the sampler makes, what it started from, the denoiser) from σ = 14.6 or t = 999."""
    info: SamplerInfo = samplers.SAMPLERS[name]
    toy, source = Toy(), NoiseSource("cpu", seed)
    start = source.randn(SHAPE)

    def noise(*_: Any) -> Tensor:
        return source.randn(SHAPE)

    if info.family == "ddim":
        grid = samplers.ddim_timesteps(steps)
        if name.startswith("uni_pc"):
            return samplers.sample_uni_pc(toy.eps, start, len(grid), ALPHAS), start, toy
        uncond = {"uncond": lambda: toy.last} if info.uncond else {}
        return info.function(toy.eps, start, grid, ALPHAS, noise=noise, eta=eta or 0.0, **uncond), start, toy
    levels = sigmas_for(schedule, steps, TABLE)
    x = start * float(levels[0])
    options: dict[str, Any] = {"uncond": lambda: toy.last} if info.uncond else {}
    if eta is not None and "eta" in info.options:
        options["eta"] = eta
    fresh: Any = noise
    if info.noise == "brownian":
        fresh = brownian(x, TABLE.sigma_min, TABLE.sigma_max, [seed], "cpu")
    if info.family == "range":
        return info.function(toy, x, TABLE.sigmas[0], TABLE.sigmas[-1], steps, noise=fresh, **options), start, toy
    return info.function(toy, x, levels, noise=fresh, **options), start, toy


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_name_runs_or_is_a_named_deviation(name: str) -> None:
    if name in names.UNSUPPORTED:
        assert name not in samplers.SAMPLERS
        name = names.UNSUPPORTED[name]
    made, _, toy = drive(name, 8)
    assert bool(torch.isfinite(made).all())
    assert toy.calls
    assert float(made.std()) < 3 * C


def test_the_runner_has_no_sampler_without_a_name() -> None:
    assert set(samplers.SAMPLERS) <= set(SAMPLERS)


def test_what_plans_know_of_samplers_is_what_the_table_says() -> None:
    for name, schedule in names.AUTOMATIC.items():
        assert samplers.SAMPLERS[name].automatic == schedule
    assert {name for name, info in samplers.SAMPLERS.items() if info.noise == "brownian"} == names.BROWNIAN


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE Heun Exponential", ("dpmpp_2m_sde_heun", "exponential")),
        ("DPM++ 3M SDE Karras", ("dpmpp_3m_sde", "karras")),
        ("Euler a", ("euler_ancestral", None)),
        ("k_euler_a", ("euler_ancestral", None)),
        ("DPM2 a Karras", ("dpm_2_ancestral", "karras")),
        ("DPM adaptive", ("dpm_adaptive", None)),
        ("dpmpp_2m_sde_gpu", ("dpmpp_2m_sde", None)),
        ("DPM++ 2M SGM Uniform", ("dpmpp_2m", "sgm_uniform")),
        ("DPM++ 2M SGMUniform", ("dpmpp_2m", "sgm_uniform")),
        ("EulerAncestralDiscreteScheduler", ("euler_ancestral", None)),
        ("DDIM CFG++", ("ddim_cfgpp", None)),
        ("LMS Karras", ("lms", "karras")),
        ("UniPC", ("uni_pc", None)),
        ("k_dpmpp_2m_sde_ka", ("dpmpp_2m_sde", "karras")),  # ids of the WebUI before 1.9
        ("k_dpmpp_3m_sde_exp", ("dpmpp_3m_sde", "exponential")),
        ("k_dpm_ad", ("dpm_adaptive", None)),
        ("k_lcm", ("lcm", None)),
        ("k_dpmpp_2m_sde_heun", ("dpmpp_2m_sde_heun", None)),
        ("Euler A SGMUniform", ("euler_ancestral", "sgm_uniform")),  # early Forge
        ("DPM++ 2M Turbo", ("dpmpp_2m", "turbo")),
        ("SASolverScheduler", ("sa_solver", None)),
        ("k_k_euler", (None, None)),
        ("HeunPP2", ("heunpp2", None)),
        ("Undefined", (None, None)),
    ],
)
def test_labels_of_all_times(label: str, expected: tuple[str | None, str | None]) -> None:
    assert sampler_name(label) == expected


# --- the right answer -------------------------------------------------------------------------------------------------


def exact(start: Tensor, name: str) -> Tensor:
    """Where the probability flow leads from `start`: it scales by the ratio of standard deviations."""
    if samplers.SAMPLERS[name].family == "ddim":
        return start * C  # unit scale at t = 999 is noise nearly alone
    return start * TABLE.sigma_max * C / math.sqrt(C**2 + TABLE.sigma_max**2)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_samplers_without_noise_end_where_the_flow_ends(name: str) -> None:
    coarse, fine = ((made - exact(start, name)).abs().max() for made, start, _ in (drive(name, 20), drive(name, 60)))
    assert float(fine) < 0.25
    assert float(fine) <= float(coarse) + 0.02


@pytest.mark.parametrize("name", SPREADING)
def test_samplers_with_noise_keep_the_datas_spread(name: str) -> None:
    made, _, _ = drive(name, 60)
    assert float(made.std()) == pytest.approx(C, rel=0.12)
    assert abs(float(made.mean())) < 0.2


@pytest.mark.parametrize("name", [n for n in sorted(STOCHASTIC) if "eta" in samplers.SAMPLERS[n].options])
def test_without_eta_the_seed_no_longer_matters(name: str) -> None:
    a, _, _ = drive(name, 12, eta=0.0)
    b, _, _ = drive(name, 12, eta=0.0)
    assert torch.equal(a, b)
    error = (drive(name, 60, eta=0.0)[0] - exact(drive(name, 60, eta=0.0)[1], name)).abs().max()
    assert float(error) < 0.3


def test_higher_order_is_nearer_with_the_same_calls() -> None:
    def error(name: str, steps: int) -> float:
        made, start, _ = drive(name, steps)
        return float((made - exact(start, name)).abs().max())

    assert error("dpmpp_2m", 20) < error("euler", 20)
    assert error("lms", 20) < error("euler", 20)
    assert error("heun", 10) < error("euler", 20)
    assert error("deis", 20) < error("euler", 20)
    assert error("uni_pc", 20) < error("ddim", 20)


# --- the reference's own numbers --------------------------------------------------------------------------------------

# One number through every sampler of the k-diffusion package (0.1.1): Karras, 6 steps from 10 to 0.1, a denoiser that
# is not linear, noise cos 1, cos 2, …, eta 0.6, s_noise 1.05, s_churn 3 between 0.5 and 8, where they are taken.
K_DIFFUSION = {
    "euler": -1.516383, "euler_ancestral": 0.436105, "heun": -2.460421, "dpm_2": -2.288504,
    "dpm_2_ancestral": 1.371729, "lms": 1.786789, "dpmpp_2s_ancestral": 0.915853, "dpmpp_sde": 0.923207,
    "dpmpp_2m": 1.986195, "dpmpp_2m_sde": -1.371102, "dpmpp_2m_sde_heun": -1.650257, "dpmpp_3m_sde": -2.594015,
}  # fmt: skip
CURVED = {"eta": 0.6, "s_noise": 1.05, "s_churn": 3.0, "s_tmin": 0.5, "s_tmax": 8.0}


def curved(x: Tensor, sigma: Any) -> Tensor:
    level = float(sigma)
    return 2.25 * x / (2.25 + level**2) + 0.3 * torch.sin(x / (1 + level))


def cosines() -> Any:
    numbers = itertools.count(1)
    return lambda *_: torch.full((1, 1, 1, 1), math.cos(next(numbers)))


@pytest.mark.parametrize(("name", "expected"), K_DIFFUSION.items())
def test_k_diffusions_numbers(name: str, expected: float) -> None:
    x = torch.full((1, 1, 1, 1), 7.0)
    made = samplers.SAMPLERS[name].function(curved, x, karras(6, 0.1, 10.0), noise=cosines(), **CURVED)
    assert float(made) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(("steps", "expected"), [(6, 2.045933), (7, 1.852016), (8, 2.196598), (None, -0.327616)])
def test_k_diffusions_numbers_of_fast_and_adaptive(steps: int | None, expected: float) -> None:
    x, ends = torch.full((1, 1, 1, 1), 7.0), (torch.tensor(0.1), torch.tensor(10.0))
    function = samplers.dpm_fast if steps else samplers.dpm_adaptive
    made = function(curved, x, *ends, steps or 0, noise=cosines(), eta=0.6)
    assert float(made) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("variant", "skip", "order", "lower", "steps", "start", "expected"),
    [
        ("bh1", "time_uniform", 3, True, 10, 1.0, 2.01409), ("bh1", "time_uniform", 3, True, 7, 0.702, 1.87247),
        ("bh2", "time_uniform", 2, True, 6, 1.0, 1.85300), ("bh1", "time_quadratic", 3, False, 8, 1.0, 2.34756),
        ("bh2", "logSNR", 3, True, 9, 1.0, 2.37037), ("bh1", "time_uniform", 1, True, 5, 1.0, 1.67302),
        ("bh1", "time_uniform", 4, True, 4, 1.0, 1.73469),  # the orders grow to 4 before they fall
    ],
)  # fmt: skip
def test_unipcs_numbers(
    variant: str, skip: str, order: int, lower: bool, steps: int, start: float, expected: float
) -> None:
    """Against the numbers of the authors' own code for the same curved denoiser."""

    def eps(x: Tensor, t: float) -> Tensor:
        alpha = float(ALPHAS[min(max(round(t), 0), 999)])
        level = ((1 - alpha) / alpha) ** 0.5
        scaled = x * (1 + level**2) ** 0.5
        return (scaled - 2.25 * scaled / (2.25 + level**2) - 0.3 * torch.sin(x)) / level

    made = samplers.sample_uni_pc(
        eps, torch.full((1, 1, 1, 1), 0.8), steps, ALPHAS, start=start, order=order, variant=variant,
        lower_order_final=lower, skip_type=skip,
    )  # fmt: skip
    assert float(made) == pytest.approx(expected, abs=5e-5)


def test_settings_reach_the_samplers_a_webui_passes_them_to() -> None:
    takes = {name: samplers.SAMPLERS[name].options for name in samplers.SAMPLERS}
    assert all(takes[name] == samplers.CHURN for name in ("euler", "heun", "dpm_2"))
    assert all(takes[name] == {"eta"} for name in ("euler_ancestral", "dpm_adaptive"))
    assert all(not takes[name] for name in ("restart", "heunpp2", "lms", "dpmpp_2m", "lcm", "ddpm"))


# --- calls and draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "calls"),
    [
        ("euler", 10, 10), ("euler_ancestral", 10, 10), ("lms", 10, 10), ("heun", 10, 19), ("dpm_2", 10, 19),
        ("dpm_2_ancestral", 10, 19), ("dpmpp_2s_ancestral", 10, 19), ("dpmpp_2m", 10, 10), ("dpmpp_sde", 10, 19),
        ("dpmpp_2m_sde", 10, 10), ("dpmpp_3m_sde", 10, 10), ("dpm_fast", 10, 10), ("dpm_fast", 12, 12), ("lcm", 6, 6),
        ("ddim", 10, 9), ("ddim", 12, 12), ("ddim", 20, 19), ("ddim", 30, 30), ("plms", 10, 10), ("uni_pc", 10, 10),
        ("uni_pc", 12, 13), ("restart", 10, 19), ("heunpp2", 10, 27), ("ipndm", 10, 10),
    ],
)  # fmt: skip
def test_calls_of_the_model(name: str, steps: int, calls: int) -> None:
    assert len(drive(name, steps)[2].calls) == calls


def test_ddim_timesteps() -> None:
    assert samplers.ddim_timesteps(10).tolist() == list(range(1, 1000, 100))
    assert len(samplers.ddim_timesteps(12)) == 13
    assert samplers.ddim_timesteps(1000)[-1] == 999


def counted(function: Any, steps: int, **options: float) -> int:
    draws = []

    def noise(*_: Any) -> Tensor:
        draws.append(1)
        return torch.zeros(SHAPE)

    function(Toy(), torch.ones(SHAPE), karras(steps, TABLE.sigma_min, TABLE.sigma_max), noise=noise, **options)
    return len(draws)


def test_draws_are_made_as_k_diffusion_makes_them() -> None:
    assert counted(samplers.sample_euler_ancestral, 10) == 9  # none for the step to zero
    assert counted(samplers.sample_dpm_2_ancestral, 10) == 9
    assert counted(samplers.sample_euler, 10) == 0  # ten are made and thrown away there
    assert counted(samplers.sample_euler, 10, s_churn=5.0, s_tmin=1.0) == 10  # with churn the unused ones count too
    assert counted(samplers.sample_dpmpp_sde, 10) == 18
    assert counted(samplers.sample_lcm, 6) == 5
    for eta in (0.0, 0.5):
        draws: list[int] = []
        noise: Any = lambda *_: draws.append(1) or torch.zeros(SHAPE)  # noqa: B023, E731
        samplers.sample_ddim(Toy().eps, torch.ones(SHAPE), torch.arange(1000), ALPHAS, noise=noise, eta=eta)
        assert len(draws) == (999 if eta else 0)


def test_restart_goes_up_again() -> None:
    calls = drive("restart", 22, schedule="karras")[2].calls
    rises = [b for a, b in itertools.pairwise(calls) if b > a * 1.5]
    assert len(rises) == 1
    assert 1.0 < rises[0] < 3.0

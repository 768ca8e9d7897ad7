"""Guidance by hand: a UNet that answers with its prompt, so that every mixture can be worked out on paper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hubctl.run.denoiser import Conds, Denoiser, Timeline
from hubctl.run.encode import Conditioning
from hubctl.run.plan import RunPlan
from hubctl.run.sigmas import SigmaTable, alphas_cumprod

ALPHAS = alphas_cumprod()
SHAPE = (1, 4, 2, 2)


class Echo(torch.nn.Module):
    """ε = the mean of the prompt's vectors, everywhere; keeps the timesteps it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, int]] = []

    def forward(self, x: Tensor, t: Tensor, *, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        self.asked.append((float(t[0]), len(x)))
        return (encoder_hidden_states.mean(dim=(1, 2)).reshape(-1, 1, 1, 1).expand(len(x), *SHAPE[1:]),)


def text(value: float, chunks: int = 1) -> Conditioning:
    return Conditioning(torch.full((77 * chunks, 3), value))


def denoiser(parts: list[tuple[float, float]], negative: float = 0.5, **options: Any) -> Denoiser:
    """`parts`: (ε, weight) of each; `options`: fields of the plan, and `keep_uncond`."""
    scale, keep = options.pop("cfg_scale", 7.0), options.pop("keep_uncond", False)
    plan = RunPlan("m", "", "", "euler", None, 10, scale, 1, 16, 16, **{"flavour": "a1111", **options})
    model: Any = SimpleNamespace(
        unet=Echo(), device=torch.device("cpu"), dtype=torch.float32, prediction="epsilon", is_xl=False, family="sd1"
    )
    conds = Conds([Timeline(w, ((20, text(e)),)) for e, w in parts], Timeline(1.0, ((20, text(negative)),)))
    table = SigmaTable.of(ALPHAS, quantize=plan.whole_timesteps)
    return Denoiser(model, table, ALPHAS, conds, scale, plan, progress_calls=10, keep_uncond=keep)


def mixed(made: Denoiser, level: float = 3.0) -> float:
    """The ε that the mixture stands for."""
    x = torch.ones(SHAPE)
    return float(((x - made(x, torch.tensor(level))) / level).mean())


@pytest.mark.parametrize("flavour", ["a1111", "forge", "comfy"])
def test_one_prompt(flavour: str) -> None:
    assert mixed(denoiser([(2.0, 1.0)], flavour=flavour)) == pytest.approx(0.5 + 7 * (2 - 0.5), rel=1e-5)


@pytest.mark.parametrize("flavour", ["a1111", "forge"])
@pytest.mark.parametrize("weights", [(1.0, 0.6), (1.0, -0.5), (0.3, 0.3), (-1.0, -0.2)])
def test_prompts_put_together_with_weights(flavour: str, weights: tuple[float, float]) -> None:
    made = mixed(denoiser([(2.0, weights[0]), (-1.0, weights[1])], flavour=flavour))
    assert made == pytest.approx(0.5 + 7 * (weights[0] * (2 - 0.5) + weights[1] * (-1 - 0.5)), rel=1e-5)


def test_without_guidance_a1111_still_asks_for_the_negative_and_forge_takes_it_for_nothing() -> None:
    """Forge's estimate of a negative that was left out is 0: at σ, that is ε = x/σ."""
    parts = [(2.0, 1.0), (-1.0, 0.6)]
    assert mixed(denoiser(parts, cfg_scale=1.0)) == pytest.approx(0.5 + 1.5 + 0.6 * -1.5, rel=1e-5)
    forge = denoiser(parts, cfg_scale=1.0, flavour="forge")
    assert mixed(forge) == pytest.approx((1 - 1.6) / 3.0 + 2.0 + 0.6 * -1, rel=1e-5)
    assert forge.trace[-1].rows == 2
    t, x = 501.0, torch.ones(SHAPE)
    level = float(((1 - ALPHAS[501]) / ALPHAS[501]) ** 0.5)
    nothing = (1 + level**2) ** 0.5 / level  # x is of unit scale there
    found = float(denoiser(parts, cfg_scale=1.0, flavour="forge").eps(x, t).mean())
    assert found == pytest.approx(nothing * (1 - 1.6) + 2.0 + 0.6 * -1, rel=1e-5)


@pytest.mark.parametrize("flavour", ["a1111", "forge"])
def test_skipped_guidance(flavour: str) -> None:
    made = denoiser([(2.0, 1.0)], flavour=flavour, skip_early=0.3)
    assert [round(mixed(made), 4) for _ in range(6)] == [2, 2, 2, 2, 11, 11]  # calls 0 … 3 of ten
    every_other = denoiser([(2.0, 1.0)], flavour=flavour, ngms=4.0)
    assert [round(mixed(every_other), 4) for _ in range(4)] == [11, 2, 11, 2]
    assert round(mixed(every_other, 5.0), 4) == 11
    assert round(mixed(every_other, 5.0), 4) == 11  # above the limit no call is skipped
    always = denoiser([(2.0, 1.0)], flavour=flavour, ngms=4.0, ngms_all=True)
    assert [round(mixed(always), 4) for _ in range(2)] == [2, 2]


def test_in_the_ddim_family_a1111_holds_the_timestep_against_the_limit() -> None:
    x = torch.ones(SHAPE)

    def eps(flavour: str, t: float) -> float:
        made = denoiser([(2.0, 1.0)], flavour=flavour, ngms=4.0, ngms_all=True)
        return float(made.eps(x, t).mean())

    assert eps("a1111", 501.0) == pytest.approx(11)  # σ is 1.6 there
    assert eps("forge", 501.0) == pytest.approx(2)
    assert eps("a1111", 1.0) == pytest.approx(2)


@pytest.mark.parametrize(("flavour", "negative"), [("a1111", 0.5), ("comfy", 0.5), ("forge", None)])
def test_what_cfg_plus_plus_steps_by_without_guidance(flavour: str, negative: float | None) -> None:
    made = denoiser([(2.0, 1.0)], cfg_scale=1.0, flavour=flavour, keep_uncond=True)
    x = torch.ones(SHAPE)
    made.eps(x, 501.0)
    level = float(((1 - ALPHAS[501]) / ALPHAS[501]) ** 0.5)
    expected = negative if negative is not None else (1 + level**2) ** 0.5 / level
    assert made.uncond is not None
    assert float(made.uncond.mean()) == pytest.approx(expected, rel=1e-5)


def test_parts_of_unequal_length_are_padded_with_their_last_vector() -> None:
    made = denoiser([(2.0, 1.0), (-1.0, 0.6)])
    ramp = torch.arange(77.0).repeat_interleave(3).reshape(77, 3) / 100
    made.conds.parts[1] = Timeline(0.6, ((20, Conditioning(ramp)),))
    made.conds.parts[0] = Timeline(1.0, ((20, text(2.0, chunks=2)),))
    mean = float(torch.cat([ramp, ramp[-1:].expand(77, -1)]).mean())
    assert mixed(made) == pytest.approx(0.5 + 7 * (1.5 + 0.6 * (mean - 0.5)), rel=1e-5)

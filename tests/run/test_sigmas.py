"""Noise levels: the model's table, σ ↔ t, and every schedule of the field's names."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubctl.errors import UnknownSampler
from hubctl.parameters import SCHEDULES
from hubctl.run import sigmas
from hubctl.run.names import AVAILABLE_SCHEDULES
from hubctl.run.sigmas import SigmaTable, alphas_cumprod, sigmas_for

FRACTIONAL = SigmaTable.of(alphas_cumprod())
WHOLE = SigmaTable.of(alphas_cumprod(), quantize=True)


def test_the_table_ends_where_stable_diffusions_does() -> None:
    assert FRACTIONAL.sigma_min == pytest.approx(0.0292, abs=5e-5)
    assert FRACTIONAL.sigma_max == pytest.approx(14.6146, abs=5e-5)
    assert bool((FRACTIONAL.sigmas.diff() > 0).all())


def test_zero_terminal_snr_keeps_the_first_level_and_ends_at_4519() -> None:
    table = SigmaTable.of(alphas_cumprod(zero_terminal_snr=True))
    assert table.sigma_min == pytest.approx(FRACTIONAL.sigma_min, rel=1e-5)
    assert table.sigma_max == pytest.approx(4518.76, abs=0.1)


def test_downcast_alphas_are_halves() -> None:
    found = alphas_cumprod(downcast=True)
    assert torch.equal(found, found.half().double())


@given(st.floats(0, 999, allow_nan=False))
def test_t_to_sigma_and_back(t: float) -> None:
    sigma = FRACTIONAL.t_to_sigma(t)
    assert float(FRACTIONAL.sigma_to_t(sigma)) == pytest.approx(t, abs=0.02)
    assert float(WHOLE.sigma_to_t(sigma)) == pytest.approx(t, abs=0.52)


@given(st.floats(0.001, 100))
def test_timesteps_stay_within_the_table_and_whole_ones_are_the_nearest(sigma: float) -> None:
    assert 0 <= float(FRACTIONAL.sigma_to_t(sigma)) <= 999
    t = float(WHOLE.sigma_to_t(sigma))
    distances = (WHOLE.logs - math.log(sigma)).abs()
    assert float(distances[int(t)]) == pytest.approx(float(distances.min()), abs=1e-6)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_runs_under_its_name(name: str) -> None:
    assert name in AVAILABLE_SCHEDULES
    for steps in (1, 2, 7, 10, 20, 50):
        for table in (FRACTIONAL, WHOLE):
            found = sigmas_for(name, steps, table)
            assert found.dtype == torch.float32
            assert bool(torch.isfinite(found).all())
            assert bool((found[:-1].diff() <= 0).all())
            if name == "kl_optimal":
                assert len(found) == steps + 1
                assert float(found[-1]) == pytest.approx(table.sigma_min, rel=1e-4)
            else:
                assert float(found[-1]) == 0
                assert len(found) >= steps + 1
            if name not in {"ddim", "ddim_uniform"}:
                assert len(found) == steps + 1


def test_schedules_by_hand() -> None:
    n, low, high = 10, FRACTIONAL.sigma_min, FRACTIONAL.sigma_max
    karras = sigmas_for("karras", n, FRACTIONAL)
    for i in range(n):
        expected = (high ** (1 / 7) + i / (n - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
        assert float(karras[i]) == pytest.approx(expected, rel=1e-5)
    exponential = sigmas_for("exponential", n, FRACTIONAL)
    assert float(exponential[4]) == pytest.approx(high ** (5 / 9) * low ** (4 / 9), rel=1e-5)
    assert torch.allclose(sigmas_for("uniform", n, FRACTIONAL)[:-1], FRACTIONAL.sigmas[torch.arange(999, -1, -111)])
    assert torch.equal(sigmas_for("simple", 4, FRACTIONAL)[:-1], FRACTIONAL.sigmas[[999, 749, 499, 249]])
    assert torch.equal(sigmas_for("turbo", 4, FRACTIONAL)[:-1], FRACTIONAL.sigmas[[999, 749, 499, 249]])
    assert torch.equal(sigmas_for("ddim", 12, FRACTIONAL)[:-1], FRACTIONAL.sigmas[torch.arange(1, 1000, 83)].flip(0))
    assert len(sigmas_for("ddim", 12, FRACTIONAL)) == 14  # one level more than asked, as in the WebUI
    assert sigmas_for("align_your_steps", 11, FRACTIONAL)[:-1].tolist() == pytest.approx(sigmas.AYS[0])
    assert sigmas_for("align_your_steps", 11, FRACTIONAL, sdxl=True)[:-1].tolist() == pytest.approx(sigmas.AYS[1])
    assert sigmas_for("align_your_steps_32", 32, FRACTIONAL)[:-1].tolist() == pytest.approx(sigmas.AYS_32[0])


def test_sigma_ranges_and_the_dropped_level() -> None:
    found = sigmas_for("karras", 10, FRACTIONAL, sigma_min=0.1, sigma_max=10.0, rho=5.0)
    assert (float(found[0]), float(found[-2])) == (pytest.approx(10), pytest.approx(0.1))
    dropped, whole = sigmas_for("karras", 10, WHOLE, discard_penultimate=True), sigmas_for("karras", 11, WHOLE)
    assert torch.equal(dropped, torch.cat([whole[:-2], whole[-1:]]))


def test_comfys_beta_is_on_timesteps() -> None:
    found = sigmas_for("beta", 10, WHOLE, comfy=True)[:-1]
    assert all(bool((WHOLE.sigmas == level).any()) for level in found)
    assert float(found[0]) == WHOLE.sigma_max


def test_comfys_kl_optimal_ends_in_zero() -> None:
    found, theirs = sigmas_for("kl_optimal", 10, WHOLE, comfy=True), sigmas_for("kl_optimal", 9, WHOLE)
    assert float(found[-1]) == 0
    assert torch.allclose(found[:-1], theirs, rtol=1e-5)  # the same curve, one level fewer


def test_an_unknown_schedule_is_refused_with_a_way_out() -> None:
    with pytest.raises(UnknownSampler) as refused:
        sigmas_for("bong_tangent", 10, WHOLE)
    assert refused.value.hint


def test_how_many_steps_a_strength_leaves() -> None:
    assert sigmas.hires_steps(10, 0.7) == (14, 4)  # ten are run
    assert sigmas.hires_steps(5, 0.5) == (10, 5)
    assert sigmas.hires_steps(10, 1.0) == (10, 0)
    assert sigmas.img2img_steps(10, 0.5) == (10, 4)  # six are run
    assert sigmas.img2img_steps(10, 1.0) == (10, 0)

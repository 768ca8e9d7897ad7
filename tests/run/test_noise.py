"""Random numbers, draw by draw, as the programs made them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchsde
from hypothesis import given
from hypothesis import strategies as st

from hubctl.run.noise import BatchNoise, ImageNoise, NoiseSource, brownian, philox_randn, slerp

SHAPE = (4, 8, 8)
FIRST_TWELVE = (
    -0.9246624, -0.42534396, -2.6438458, 0.14518388, -0.12086651, -0.5797257, -0.6228513, -0.32838714, -1.074542,
    -0.3631441, -1.6710504, 2.265505,
)  # fmt: skip


def test_nv_numbers_are_the_published_ones_bit_for_bit() -> None:
    assert np.array_equal(philox_randn(0, 0, 12), np.array(FIRST_TWELVE, np.float32))


@given(st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_nv_numbers_are_normal_whatever_the_seed(seed: int, draw: int) -> None:
    found = philox_randn(seed, draw, 4096)
    assert np.isfinite(found).all()
    assert abs(float(found.mean())) < 0.1
    assert abs(float(found.std()) - 1) < 0.1


def test_a_draw_is_a_number_of_its_own_and_its_size_does_not_move_the_next() -> None:
    long, short = NoiseSource("nv", 5), NoiseSource("nv", 5)
    long.randn((4096,))
    short.randn((3,))
    assert torch.equal(long.randn(SHAPE), short.randn(SHAPE))
    assert not torch.equal(NoiseSource("nv", 5).randn(SHAPE), NoiseSource("nv", 6).randn(SHAPE))


def test_cpu_noise_is_torchs_own() -> None:
    expected = torch.randn(SHAPE, generator=torch.Generator().manual_seed(42))
    assert torch.equal(NoiseSource("cpu", 42).randn(SHAPE), expected)


@pytest.mark.parametrize("rng", ["cpu", "nv"])
def test_an_image_of_a_batch_is_the_image_alone(rng: str) -> None:
    batch, alone = ImageNoise(rng, [7, 8]), ImageNoise(rng, [8])  # type: ignore[arg-type]
    assert torch.equal(batch.first(SHAPE)[1], alone.first(SHAPE)[0])
    x = torch.zeros(2, *SHAPE)
    assert torch.equal(batch.like(x)[1], alone.like(x[:1])[0])


def test_ensd_changes_the_noise_after_the_first() -> None:
    plain, moved = ImageNoise("nv", [7]), ImageNoise("nv", [7], ensd=31337)
    assert torch.equal(plain.first(SHAPE), moved.first(SHAPE))
    x = torch.zeros(1, *SHAPE)
    assert torch.equal(moved.like(x)[0], NoiseSource("nv", 7 + 31337).randn(SHAPE))
    assert not torch.equal(plain.like(x), ImageNoise("nv", [7]).like(x))


def test_a_variation_lies_between_two_noises_of_full_strength() -> None:
    base, other = (NoiseSource("nv", seed).randn(SHAPE) for seed in (7, 9))
    found = ImageNoise("nv", [7], [9], strength=0.3).first(SHAPE)[0]
    assert torch.equal(found, slerp(0.3, base, other))
    assert torch.allclose(slerp(0.0, base, other), base, atol=1e-5)
    assert torch.allclose(slerp(1.0, base, other), other, atol=1e-5)
    assert 0.9 < float(found.std()) < 1.1


def test_a_resized_seed_is_small_noise_in_the_middle() -> None:
    found = ImageNoise("nv", [7], resize_from=(32, 48)).first(SHAPE)[0]
    small = NoiseSource("nv", 7).randn((4, 6, 4))
    around = NoiseSource("nv", 7).randn(SHAPE)
    assert torch.equal(found[:, 1:7, 2:6], small)
    assert torch.equal(found[:, :1], around[:, :1])
    larger = ImageNoise("nv", [7], resize_from=(96, 96)).first(SHAPE)[0]
    assert torch.equal(larger, NoiseSource("nv", 7).randn((4, 12, 12))[:, 2:10, 2:10])


# --- Brownian trees ---------------------------------------------------------------------------------------------------


def test_a_cpu_tree_is_torchsdes() -> None:
    x = torch.zeros(1, *SHAPE)
    tree = torchsde.BrownianTree(torch.tensor(0.1), torch.zeros(SHAPE), torch.tensor(10.0), entropy=123)
    noise = brownian(x, 0.1, 10.0, [123], "cpu")
    for high, low in ((10.0, 4.0), (4.0, 2.5), (2.5, 0.1)):
        a, b = torch.tensor(low), torch.tensor(high)
        assert torch.equal(noise(high, low)[0], -tree(a, b) / (b - a).sqrt())


@pytest.mark.parametrize("rng", ["cpu", "nv"])
def test_steps_of_a_tree_add_up(rng: str) -> None:
    x = torch.zeros(2, *SHAPE)
    noise = brownian(x, 0.1, 10.0, [1, 2], rng)  # type: ignore[arg-type]
    whole = noise(8.0, 2.0) * (8.0 - 2.0) ** 0.5
    parts = noise(8.0, 5.0) * (8.0 - 5.0) ** 0.5 + noise(5.0, 2.0) * (5.0 - 2.0) ** 0.5
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.equal(noise(8.0, 2.0)[1], brownian(x[:1], 0.1, 10.0, [2], rng)(8.0, 2.0)[0])  # type: ignore[arg-type]
    assert 0.8 < float(noise(8.0, 2.0).std()) < 1.2


def test_torchsde_is_left_as_it_was() -> None:
    from torchsde._brownian import brownian_interval

    before = brownian_interval._randn
    brownian(torch.zeros(1, *SHAPE), 0.1, 10.0, [1], "nv")(5.0, 2.0)
    assert brownian_interval._randn is before


# --- ComfyUI ----------------------------------------------------------------------------------------------------------


def test_comfy_draws_a_batch_as_one_tensor_and_goes_on_with_the_gpus_numbers() -> None:
    noise = BatchNoise(42, 2, "nv")
    assert torch.equal(noise.first(SHAPE), torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(42)))
    x = torch.zeros(2, *SHAPE)
    assert torch.equal(noise.like(x), NoiseSource("nv", 42).randn((2, *SHAPE)))
    generator = torch.Generator().manual_seed(42)
    torch.randn((2, *SHAPE), generator=generator)
    on_cpu = BatchNoise(42, 2, "cpu")
    on_cpu.first(SHAPE)
    assert torch.equal(on_cpu.like(x), torch.randn((2, *SHAPE), generator=generator))


def test_one_tree_for_a_whole_batch() -> None:
    x = torch.zeros(2, *SHAPE)
    joint = brownian(x, 0.1, 10.0, [5, 6], "cpu", joint=True)(8.0, 2.0)
    tree = torchsde.BrownianTree(torch.tensor(0.1), torch.zeros(2, *SHAPE), torch.tensor(10.0), entropy=5)
    assert torch.equal(joint, -tree(torch.tensor(2.0), torch.tensor(8.0)) / 6.0**0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_card_draws_nvs_numbers() -> None:
    for seed in (0, 7, 2**40 + 1):
        generator = torch.Generator("cuda").manual_seed(seed)
        for draw in range(3):
            found = torch.randn((4, 64, 64), generator=generator, device="cuda").cpu().numpy().ravel()
            assert np.abs(found - philox_randn(seed, draw, found.size)).max() < 5e-6

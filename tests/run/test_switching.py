"""Adapters come and go without a trace, whatever was there before them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch

from hubctl.run import loader
from hubctl.run.lora import Adapters

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switching")
    family = replace(layouts.TINY_SD1, tokens=600)
    layouts.write(folder / "model.safetensors", layouts.weights(layouts.checkpoint(family)))
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> loader.Model:
    return loader.load(folder / "model.safetensors", device=CPU, dtype=dtype)


def lora(folder: Path, model: loader.Model, seed: int, *, every: int = 1, dora: bool = False) -> Path:
    """A LoRA over every `every`-th linear layer of UNet and text encoder; with `dora`, magnitudes too."""
    path = folder / f"lora-{seed}-{every}-{dora}.safetensors"
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    layers = [
        (prefix + name.removeprefix("text_model.").replace(".", "_"), module)
        for prefix, root in (("lora_unet_", model.unet), ("lora_te_text_model_", model.encoders[0]))
        for name, module in root.named_modules()
        if isinstance(module, torch.nn.Linear) and "proj_" not in name.split(".")[-1][:5]
    ]
    for key, module in layers[::every]:
        tensors[f"{key}.lora_down.weight"] = torch.randn(4, module.in_features, generator=generator) * 0.1
        tensors[f"{key}.lora_up.weight"] = torch.randn(module.out_features, 4, generator=generator) * 0.1
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
        if dora:
            tensors[f"{key}.dora_scale"] = torch.ones(1, module.in_features)
    return layouts.write(path, tensors)


def state(model: loader.Model) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": tensor.clone()
        for index, root in enumerate((model.unet, *model.encoders))
        for name, tensor in root.state_dict().items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_what_was_there_before_does_not_matter(dtype: torch.dtype, folder: Path) -> None:
    """A after B, after A and B together, after a DoRA, and alone: the same weights, bit for bit."""
    model = load(folder, dtype)
    a, b = lora(folder, model, 1), lora(folder, model, 2, every=3)
    d = lora(folder, model, 3, every=2, dora=True)
    fresh: dict[Any, dict[str, torch.Tensor]] = {}
    sets = {"a": [a], "b": [b], "ab": [a, b], "d": [d], "da": [d, a], "": []}
    for name, files in sets.items():
        other = load(folder, dtype)
        Adapters(other).set([(path, 0.7, 0.4, None) for path in files])
        fresh[name] = state(other)
    assert not same(fresh["a"], fresh["b"])
    assert not same(fresh[""], fresh["b"])
    adapters = Adapters(model)
    for name in ("a", "b", "ab", "", "d", "a", "da", "b", "d", "ab", "a", ""):
        adapters.set([(path, 0.7, 0.4, None) for path in sets[name]])
        assert same(state(model), fresh[name]), name


def test_a_hundred_switches_leave_no_drift(folder: Path) -> None:
    model = load(folder)
    before = state(model)
    adapters = Adapters(model)
    files = [lora(folder, model, 1), lora(folder, model, 2, every=3)]
    for turn in range(100):
        adapters.set([(files[turn % 2], 0.1 * (turn % 9), -0.3, None)])
    adapters.restore()
    assert same(state(model), before)
    adapters.set([(files[0], 1.0, 1.0, None)])
    adapters.set([])
    assert same(state(model), before)


def test_the_weights_are_what_the_formula_says(folder: Path) -> None:
    model = load(folder)
    path = lora(folder, model, 1)
    layer = model.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    before = layer.weight.clone()
    Adapters(model).set([(path, 0.7, 0.4, None)])
    parts = loader.read_tensors(path)
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    delta = parts[f"{key}.lora_up.weight"] @ parts[f"{key}.lora_down.weight"] * (2.0 / 4)
    assert torch.allclose(layer.weight, before + 0.7 * delta, atol=1e-6)

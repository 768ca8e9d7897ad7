"""Adapters of every kind, against their formulas written as loops, under the names of every trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from torch import Tensor

from hubctl.run import loader
from hubctl.run.lora import Adapters, read

LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
NORM = "lora_unet_down_blocks_0_resnets_0_norm1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
R = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> loader.Model:
    path = layouts.write(
        tmp_path_factory.mktemp("model") / "sd1.safetensors", layouts.weights(layouts.checkpoint(layouts.TINY_SD1))
    )
    return loader.load(path, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def adapters(model: loader.Model) -> Iterator[Adapters]:
    made = Adapters(model)
    yield made
    made.restore()


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + 7 * len(shape))
    return torch.randn(shape, generator=generator) * 0.1


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def weight(adapters: Adapters, name: str) -> Tensor:
    return adapters._names[name].weight.data.clone()  # type: ignore[no-any-return]


def change(adapters: Adapters, path: Path, name: str, *, factor: float = 1.0, forge: bool = True) -> Tensor:
    before = weight(adapters, name)
    notes = adapters.set([(path, factor, factor, None)], forge=forge)
    assert notes == []
    return weight(adapters, name) - before


def by_column(v: Tensor) -> Tensor:
    return torch.stack([v[:, j].norm() for j in range(v.shape[1])]).reshape(1, -1, *[1] * (v.ndim - 2))


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_lora(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    up, down = noise(out, R), noise(R, inner)
    path = saved(
        tmp_path / "a.safetensors",
        {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down, f"{LINEAR}.alpha": torch.tensor(2.0)},
    )
    expected = 0.7 * (2.0 / R) * up @ down
    assert torch.allclose(change(adapters, path, LINEAR, factor=0.7), expected, atol=1e-6)


def test_without_alpha_the_product_counts_whole(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    up, down = noise(out, R), noise(R, inner)
    path = saved(tmp_path / "a.safetensors", {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down})
    assert torch.allclose(change(adapters, path, LINEAR), up @ down, atol=1e-6)


def test_locon_and_its_cp_form(adapters: Adapters, tmp_path: Path) -> None:
    out, inner, h, w = weight(adapters, CONV).shape
    up, down = noise(out, R, 1, 1), noise(R, inner, h, w)
    path = saved(tmp_path / "a.safetensors", {f"{CONV}.lora_up.weight": up, f"{CONV}.lora_down.weight": down})
    expected = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    assert torch.allclose(change(adapters, path, CONV), expected, atol=1e-6)
    adapters.restore()
    down, mid = noise(R, inner, 1, 1), noise(R, R, h, w)
    path = saved(
        tmp_path / "cp.safetensors",
        {f"{CONV}.lora_up.weight": up, f"{CONV}.lora_down.weight": down, f"{CONV}.lora_mid.weight": mid},
    )
    expected = torch.zeros(out, inner, h, w)
    for p in range(R):
        for q in range(R):
            expected += up[:, p, 0, 0][:, None, None, None] * mid[p, q] * down[q, :, 0, 0][None, :, None, None]
    assert torch.allclose(change(adapters, path, CONV), expected, atol=1e-6)


def test_loha_and_its_tucker_form(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    parts = {f"hada_w{n}_{k}": noise(*shape) + n for n in (1, 2) for k, shape in (("a", (out, R)), ("b", (R, inner)))}
    tensors = {f"{LINEAR}.{k}": t for k, t in parts.items()} | {f"{LINEAR}.alpha": torch.tensor(2.0)}
    path = saved(tmp_path / "a.safetensors", tensors)
    expected = 0.5 * (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    assert torch.allclose(change(adapters, path, LINEAR), expected, atol=1e-5)
    adapters.restore()
    out, inner, h, w = weight(adapters, CONV).shape
    parts = {
        name: noise(*shape) + 0.1 * i
        for i, (name, shape) in enumerate(
            (f"hada_{kind}", shape)
            for n in (1, 2)
            for kind, shape in ((f"t{n}", (R, R, h, w)), (f"w{n}_a", (R, out)), (f"w{n}_b", (R, inner)))
        )
    }
    path = saved(tmp_path / "t.safetensors", {f"{CONV}.{k}": t for k, t in parts.items()})
    halves = []
    for n in (1, 2):
        half = torch.zeros(out, inner, h, w)
        for p in range(R):
            for q in range(R):
                half += (
                    parts[f"hada_t{n}"][p, q]
                    * parts[f"hada_w{n}_a"][p][:, None, None, None]
                    * parts[f"hada_w{n}_b"][q][None, :, None, None]
                )
        halves.append(half)
    assert torch.allclose(change(adapters, path, CONV), halves[0] * halves[1], atol=1e-5)


def test_lokr_is_a_block_matrix(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    w1, a, b = noise(4, 4), noise(out // 4, 2), noise(2, inner // 4)
    parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
    path = saved(tmp_path / "a.safetensors", {f"{LINEAR}.{name}": tensor for name, tensor in parts.items()})
    expected = np.block([[float(w1[i, j]) * (a @ b).numpy() for j in range(4)] for i in range(4)]) * 0.5
    assert np.allclose(change(adapters, path, LINEAR).numpy(), expected, atol=1e-6)
    adapters.restore()
    path = saved(
        tmp_path / "whole.safetensors",
        {f"{LINEAR}.lokr_w1": w1, f"{LINEAR}.lokr_w2": a @ b, f"{LINEAR}.alpha": torch.tensor(1.0)},
    )
    assert np.allclose(change(adapters, path, LINEAR).numpy(), expected * 2, atol=1e-6)  # no rank, no alpha


def test_whole_differences_and_norms(adapters: Adapters, tmp_path: Path) -> None:
    difference = noise(*weight(adapters, LINEAR).shape)
    scale, shift = noise(*weight(adapters, NORM).shape), noise(*weight(adapters, NORM).shape) + 1
    path = saved(
        tmp_path / "a.safetensors",
        {f"{LINEAR}.diff": difference, f"{NORM}.w_norm": scale, f"{NORM}.b_norm": shift},
    )
    bias = adapters._names[NORM].bias.data.clone()
    before = weight(adapters, NORM)
    assert torch.allclose(change(adapters, path, LINEAR, factor=0.5), 0.5 * difference, atol=1e-6)
    assert torch.allclose(weight(adapters, NORM) - before, 0.5 * scale, atol=1e-6)
    assert torch.allclose(adapters._names[NORM].bias.data - bias, 0.5 * shift, atol=1e-6)


@pytest.mark.parametrize("forge", [True, False])
def test_dora_by_column_scales_the_whole_change(adapters: Adapters, tmp_path: Path, forge: bool) -> None:
    w = weight(adapters, LINEAR)
    up, down, scale = noise(w.shape[0], R), noise(R, w.shape[1]), noise(1, w.shape[1]) + 1
    path = saved(
        tmp_path / "a.safetensors",
        {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down, f"{LINEAR}.dora_scale": scale},
    )
    v = w + up @ down
    expected = 0.4 * (v * scale / by_column(v) - w)
    assert torch.allclose(change(adapters, path, LINEAR, factor=0.4, forge=forge), expected, atol=1e-5)


def test_dora_by_row_follows_the_program(adapters: Adapters, tmp_path: Path) -> None:
    w = weight(adapters, LINEAR)
    up, down, scale = noise(w.shape[0], R), noise(R, w.shape[1]), noise(w.shape[0], 1) + 1
    path = saved(
        tmp_path / "a.safetensors",
        {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down, f"{LINEAR}.dora_scale": scale},
    )
    v = w + up @ down
    forge = v * scale / w.norm(dim=1, keepdim=True) - w
    assert torch.allclose(change(adapters, path, LINEAR, forge=True), forge, atol=1e-5)
    adapters.restore()
    assert torch.allclose(change(adapters, path, LINEAR, forge=False), v * (scale / by_column(v)) - w, atol=1e-5)


def test_glora_ia3_and_oft(adapters: Adapters, tmp_path: Path) -> None:
    w = weight(adapters, LINEAR)
    n = w.shape[0]
    a1, a2, b1, b2 = noise(R, n), noise(n, R), noise(R, n) + 0.2, noise(n, R) + 0.1
    path = saved(
        tmp_path / "g.safetensors",
        {f"{LINEAR}.{k}.weight": t for k, t in (("a1", a1), ("a2", a2), ("b1", b1), ("b2", b2))},
    )
    assert torch.allclose(change(adapters, path, LINEAR), b2 @ b1 + w @ a2 @ a1, atol=1e-5)
    adapters.restore()
    vector = noise(n)
    path = saved(tmp_path / "i.safetensors", {f"{LINEAR}.weight": vector, f"{LINEAR}.on_input": torch.tensor(True)})
    assert torch.allclose(change(adapters, path, LINEAR), w * vector[None, :], atol=1e-6)
    adapters.restore()
    blocks = noise(4, n // 4, n // 4)
    path = saved(tmp_path / "o.safetensors", {f"{LINEAR}.oft_blocks": blocks})
    turned = w + change(adapters, path, LINEAR)
    assert torch.allclose(turned.norm(dim=0), w.norm(dim=0), atol=1e-4)  # a rotation keeps lengths


# --- several, apart, and out again ------------------------------------------------------------------------------------


def plain(tmp_path: Path, adapters: Adapters, name: str = "a", shift: float = 0.0) -> Path:
    tensors = {}
    for module in (LINEAR, TEXT):
        out, inner = weight(adapters, module).shape
        tensors |= {
            f"{module}.lora_up.weight": noise(out, R) + shift,
            f"{module}.lora_down.weight": noise(R, inner) + shift,
        }
    return saved(tmp_path / f"{name}.safetensors", tensors)


def test_unet_and_text_encoder_have_weights_of_their_own(adapters: Adapters, tmp_path: Path) -> None:
    path = plain(tmp_path, adapters)
    before = weight(adapters, LINEAR), weight(adapters, TEXT)
    adapters.set([(path, 0.0, 1.0, None)])
    assert torch.equal(weight(adapters, LINEAR), before[0])
    assert not torch.equal(weight(adapters, TEXT), before[1])


def test_several_add_up(adapters: Adapters, tmp_path: Path) -> None:
    a, b = plain(tmp_path, adapters, "a"), plain(tmp_path, adapters, "b", 0.05)
    before = weight(adapters, LINEAR)
    changes = []
    for path in (a, b):
        changes.append(change(adapters, path, LINEAR, factor=0.5))
        adapters.restore()
    adapters.set([(a, 0.5, 0.5, None), (b, 0.5, 0.5, None)])
    assert torch.allclose(weight(adapters, LINEAR) - before, changes[0] + changes[1], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_hundred_applications_leave_no_trace(tmp_path: Path, dtype: torch.dtype) -> None:
    path = layouts.write(tmp_path / "sd1.safetensors", layouts.weights(layouts.checkpoint(layouts.TINY_SD1)))
    model = loader.load(path, device=torch.device("cpu"), dtype=dtype)
    adapters = Adapters(model)
    files = [plain(tmp_path, adapters, "a"), plain(tmp_path, adapters, "b", 0.03)]
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    text = {name: tensor.clone() for name, tensor in model.encoders[0].state_dict().items()}
    first: Tensor | None = None
    for turn in range(100):
        adapters.set([(files[turn % 2], 0.3 + 0.01 * turn, 0.9, None)])
        adapters.set([(files[0], 0.8, 0.8, None)])
        if first is None:
            first = weight(adapters, LINEAR)
        assert torch.equal(weight(adapters, LINEAR), first)
    adapters.set([])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.unet.state_dict().items())
    assert all(torch.equal(tensor, text[name]) for name, tensor in model.encoders[0].state_dict().items())


def test_the_same_set_again_touches_nothing(
    adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain(tmp_path, adapters)
    adapters.set([(path, 1.0, 1.0, None)])
    path.unlink()  # a second look at the file would fail
    adapters.set([(path, 1.0, 1.0, None)])
    adapters.set([(path, 0.5, 1.0, None)])


# --- names ------------------------------------------------------------------------------------------------------------

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out"
Q_PROJ = "text_model.encoder.layers.0.self_attn.q_proj"


LDM = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
PROCESSOR = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"
KOHYA = ("{}.lora_up.weight", "{}.lora_down.weight")
PEFT = ("{}.lora_B.weight", "{}.lora_A.weight")
DIFFUSERS = ("{}.lora.up.weight", "{}.lora.down.weight")
OLD_DIFFUSERS = ("{}_lora.up.weight", "{}_lora.down.weight")
LAYERS = ("{}.lora_linear_layer.up.weight", "{}.lora_linear_layer.down.weight")


def flat(name: str) -> str:
    return name.replace(".", "_")


@pytest.mark.parametrize(
    ("module", "parts", "target"),
    [
        (LINEAR, KOHYA, LINEAR),
        (f"unet.{TO_Q}", PEFT, LINEAR),
        (f"unet.{TO_Q}", DIFFUSERS, LINEAR),
        (f"base_model.model.unet.{TO_Q}", PEFT, LINEAR),
        (f"{PROCESSOR}.to_q", OLD_DIFFUSERS, LINEAR),
        (f"{PROCESSOR}.to_out", OLD_DIFFUSERS, f"lora_unet_{flat(OUT)}_0"),
        (f"lycoris_{flat(TO_Q)}", KOHYA, LINEAR),
        (f"lora_unet_{flat(LDM)}", KOHYA, LINEAR),
        (f"diffusion_model.{LDM}", KOHYA, LINEAR),
        (f"model.diffusion_model.{LDM}", KOHYA, LINEAR),
        (f"text_encoder.{Q_PROJ}", PEFT, TEXT),
        (f"text_encoder.{Q_PROJ}", LAYERS, TEXT),
        (f"clip_l.{Q_PROJ}", KOHYA, TEXT),
        (f"lora_te1_{flat(Q_PROJ)}", KOHYA, TEXT),
    ],
)
def test_trainers_names_reach_the_same_module(
    adapters: Adapters, tmp_path: Path, module: str, parts: tuple[str, str], target: str
) -> None:
    out, inner = weight(adapters, target).shape
    up, down = (part.format(module) for part in parts)
    path = saved(tmp_path / "a.safetensors", {up: noise(out, R), down: noise(R, inner)})
    assert torch.allclose(change(adapters, path, target), noise(out, R) @ noise(R, inner), atol=1e-6)


def test_ldm_names_of_resnets(adapters: Adapters) -> None:
    for ldm, ours in (
        ("input_blocks_1_0_in_layers_2", "down_blocks_0_resnets_0_conv1"),
        ("input_blocks_1_0_out_layers_3", "down_blocks_0_resnets_0_conv2"),
        ("input_blocks_1_0_emb_layers_1", "down_blocks_0_resnets_0_time_emb_proj"),
        ("input_blocks_0_0", "conv_in"),
        ("out_2", "conv_out"),
        ("time_embed_0", "time_embedding_linear_1"),
        ("middle_block_1_proj_in", "mid_block_attentions_0_proj_in"),
    ):
        assert adapters._names[f"lora_unet_{ldm}"] is adapters._names[f"lora_unet_{ours}"]


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_parts_that_fit_nothing_are_named_and_left_out(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    good = {f"{LINEAR}.lora_up.weight": noise(out, R), f"{LINEAR}.lora_down.weight": noise(R, inner)}
    before = weight(adapters, LINEAR)
    path = saved(tmp_path / "some.safetensors", good | {"lora_unet_nowhere.lora_up.weight": noise(3, 3)})
    assert "1 of its 2 parts" in adapters.set([(path, 1.0, 1.0, None)])[0]
    assert not torch.equal(weight(adapters, LINEAR), before)
    adapters.restore()
    wrong = {f"{LINEAR}.lora_up.weight": noise(out, R), f"{LINEAR}.lora_down.weight": noise(R, inner * 2)}
    path = saved(tmp_path / "wrong.safetensors", wrong)
    assert "no effect" in adapters.set([(path, 1.0, 1.0, None)])[0]
    assert torch.equal(weight(adapters, LINEAR), before)


def test_forge_leaves_out_a_file_of_another_family(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    tensors = {f"{LINEAR}.lora_up.weight": noise(out, R), f"{LINEAR}.lora_down.weight": noise(R, inner)}
    tensors |= {f"lora_unet_double_blocks_{i}.lora_up.weight": noise(3, 3) for i in range(13)}
    path = saved(tmp_path / "flux.safetensors", tensors)
    before = weight(adapters, LINEAR)
    assert "no effect" in adapters.set([(path, 1.0, 1.0, None)], forge=True)[0]
    assert torch.equal(weight(adapters, LINEAR), before)
    adapters.set([(path, 1.0, 1.0, None)], forge=False)
    assert not torch.equal(weight(adapters, LINEAR), before)


def test_keys_that_are_no_adapters_are_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", {"bundle_emb.x": noise(2, 2), f"{LINEAR}.alpha": torch.tensor(1.0)})
    assert set(read(path).modules) == {LINEAR}

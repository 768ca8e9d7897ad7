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
    path = layouts.tiny_sd1(tmp_path_factory.mktemp("model"))
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


def change(adapters: Adapters, path: Path, name: str, *, factor: float = 1.0, flavour: str = "forge") -> Tensor:
    before = weight(adapters, name)
    notes = adapters.set([(path, factor, factor, None)], flavour=flavour)
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


@pytest.mark.parametrize("flavour", ["a1111", "forge"])
def test_dora_by_column_scales_the_whole_change(adapters: Adapters, tmp_path: Path, flavour: str) -> None:
    w = weight(adapters, LINEAR)
    up, down, scale = noise(w.shape[0], R), noise(R, w.shape[1]), noise(1, w.shape[1]) + 1
    path = saved(
        tmp_path / "a.safetensors",
        {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down, f"{LINEAR}.dora_scale": scale},
    )
    v = w + up @ down
    expected = 0.4 * (v * scale / by_column(v) - w)
    assert torch.allclose(change(adapters, path, LINEAR, factor=0.4, flavour=flavour), expected, atol=1e-5)


def test_dora_by_row_follows_the_program(adapters: Adapters, tmp_path: Path) -> None:
    w = weight(adapters, LINEAR)
    up, down, scale = noise(w.shape[0], R), noise(R, w.shape[1]), noise(w.shape[0], 1) + 1
    path = saved(
        tmp_path / "a.safetensors",
        {f"{LINEAR}.lora_up.weight": up, f"{LINEAR}.lora_down.weight": down, f"{LINEAR}.dora_scale": scale},
    )
    v = w + up @ down
    forge = v * scale / w.norm(dim=1, keepdim=True) - w
    assert torch.allclose(change(adapters, path, LINEAR, flavour="forge"), forge, atol=1e-5)
    adapters.restore()
    assert torch.allclose(change(adapters, path, LINEAR, flavour="a1111"), v * (scale / by_column(v)) - w, atol=1e-5)


def test_glora_in_both_layouts(adapters: Adapters, tmp_path: Path) -> None:
    """Older files: B = b2·b1, A = a2·a1; newer ones: B = b1·b2, A = a1·a2. A1111 knows the older and no alpha."""
    w = weight(adapters, LINEAR)
    n = w.shape[0]
    a1, a2, b1, b2 = noise(R, n), noise(n, R), noise(R, n) + 0.2, noise(n, R) + 0.1
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(2.0)}
    path = saved(tmp_path / "old.safetensors", {f"{LINEAR}.{name}": tensor for name, tensor in parts.items()})
    expected = b2 @ b1 + w @ a2 @ a1
    assert torch.allclose(change(adapters, path, LINEAR, flavour="a1111"), expected, atol=1e-5)
    adapters.restore()
    assert torch.allclose(change(adapters, path, LINEAR), 2 / R * expected, atol=1e-5)
    adapters.restore()
    w = weight(adapters, CONV)
    out, inner, h, k = w.shape
    a1, a2, b1, b2 = noise(inner, R), noise(R, inner), noise(out, R) + 0.2, noise(R, inner * h * k) + 0.1
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}
    path = saved(tmp_path / "new.safetensors", {f"{CONV}.{name}": tensor for name, tensor in parts.items()})
    expected = (b1 @ b2).reshape(w.shape)
    for y in range(h):
        for x in range(k):
            expected[:, :, y, x] += w[:, :, y, x] @ a1 @ a2
    assert torch.allclose(change(adapters, path, CONV), expected, atol=1e-5)


def test_ia3_scales_columns_or_rows(adapters: Adapters, tmp_path: Path) -> None:
    w = weight(adapters, LINEAR)
    vector = noise(w.shape[1])
    for on_input, expected in ((True, w * vector[None, :]), (False, w * vector[:, None])):
        parts = {f"{LINEAR}.weight": vector, f"{LINEAR}.on_input": torch.tensor(on_input)}
        path = saved(tmp_path / f"{on_input}.safetensors", parts)
        assert torch.allclose(change(adapters, path, LINEAR, flavour="a1111"), expected, atol=1e-6)
        adapters.restore()


def cayley(block: Tensor) -> Tensor:
    q = block - block.T
    eye = torch.eye(len(q))
    return (eye + q) @ torch.linalg.inv(eye - q)


def test_oft_turns_blocks_of_rows(adapters: Adapters, tmp_path: Path) -> None:
    w = weight(adapters, LINEAR)
    n = w.shape[0] // 4
    blocks, stretch = noise(4, n, n), noise(w.shape[0], 1) + 1
    whole = torch.block_diag(*(cayley(block) for block in blocks)).T
    path = saved(tmp_path / "o.safetensors", {f"{LINEAR}.oft_blocks": blocks, f"{LINEAR}.rescale": stretch})
    assert torch.allclose(change(adapters, path, LINEAR, flavour="a1111"), stretch * (whole @ w) - w, atol=1e-5)
    adapters.restore()
    parts = {f"{LINEAR}.oft_diag": torch.stack([cayley(block) for block in blocks])}
    path = saved(tmp_path / "old.safetensors", parts)
    assert torch.allclose(change(adapters, path, LINEAR, flavour="a1111"), whole @ w - w, atol=1e-5)
    adapters.restore()
    limit = 0.001 * w.shape[0]  # alpha: how long Q may be
    q = blocks - blocks.transpose(1, 2)
    whole = torch.block_diag(*(cayley(block * limit / q.norm()) for block in blocks)).T
    parts = {f"{LINEAR}.oft_blocks": blocks, f"{LINEAR}.alpha": torch.tensor(0.001)}
    path = saved(tmp_path / "c.safetensors", parts)
    assert torch.allclose(change(adapters, path, LINEAR, flavour="a1111"), whole @ w - w, atol=1e-5)


@pytest.mark.parametrize("module", [LINEAR, CONV])
def test_boft_is_a_product_of_butterflies(adapters: Adapters, tmp_path: Path, module: str) -> None:
    w = weight(adapters, module)
    rows, size, count = w.shape[0], 4, 3
    assert rows >= 2**count * size // 2
    factors = noise(count, rows // size, size, size)
    expected = w
    for i, factor in enumerate(factors):
        near = 2**i * size // 2
        # where row r goes: its half (g) and its place in the half (k) change sides within groups of 2·near rows
        goes = [r // (2 * near) * 2 * near + (r % near) * 2 + r // near % 2 for r in range(rows)]
        order = torch.tensor([goes.index(r) for r in range(rows)])
        turned = torch.block_diag(*(cayley(block) for block in factor))
        matrix = torch.eye(rows)[order].T @ turned @ torch.eye(rows)[order]
        expected = torch.einsum("pq,q...->p...", matrix, expected)
    path = saved(tmp_path / "b.safetensors", {f"{module}.oft_blocks": factors})
    made = change(adapters, path, module, flavour="a1111")
    assert torch.allclose(made, expected - w, atol=1e-5)
    assert made.abs().max() > 0.01


def test_forge_knows_no_oft(adapters: Adapters, tmp_path: Path) -> None:
    n = weight(adapters, LINEAR).shape[0] // 4
    path = saved(tmp_path / "o.safetensors", {f"{LINEAR}.oft_blocks": noise(4, n, n)})
    before = weight(adapters, LINEAR)
    assert "no effect" in adapters.set([(path, 1.0, 1.0, None)], flavour="forge")[0]
    assert torch.equal(weight(adapters, LINEAR), before)


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


@pytest.mark.parametrize(
    ("flavour", "twice_the_same", "then_another"),
    [("forge", (0.5, 0.2), (0.8, 0.5)), ("a1111", (1.0, 0.4), (0.6, 0.6)), ("comfy", (1.0, 0.4), (0.8, 0.5))],
)
def test_a_file_named_twice(
    adapters: Adapters,
    tmp_path: Path,
    flavour: str,
    twice_the_same: tuple[float, float],
    then_another: tuple[float, float],
) -> None:
    """Forge counts equal weights once, A1111 gives each mention the last one's weights, ComfyUI adds."""
    path = plain(tmp_path, adapters)
    before = {name: weight(adapters, name) for name in (LINEAR, TEXT)}
    adapters.set([(path, 1.0, 1.0, None)], flavour=flavour)
    whole = {name: weight(adapters, name) - before[name] for name in before}
    for wanted, (unet, te) in (
        ([(path, 0.5, 0.2, None)] * 2, twice_the_same),
        ([(path, 0.5, 0.2, None), (path, 0.3, 0.3, None)], then_another),
    ):
        adapters.set(wanted, flavour=flavour)
        assert torch.allclose(weight(adapters, LINEAR) - before[LINEAR], unet * whole[LINEAR], atol=1e-6)
        assert torch.allclose(weight(adapters, TEXT) - before[TEXT], te * whole[TEXT], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_hundred_applications_leave_no_trace(tmp_path: Path, dtype: torch.dtype) -> None:
    model = loader.load(layouts.tiny_sd1(tmp_path), device=torch.device("cpu"), dtype=dtype)
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
        (f"base_model.model.{TO_Q}", PEFT, LINEAR),
        (f"{PROCESSOR}.to_q", OLD_DIFFUSERS, LINEAR),
        (f"lycoris_{flat(Q_PROJ)}", KOHYA, TEXT),
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
    assert "no effect" in adapters.set([(path, 1.0, 1.0, None)], flavour="forge")[0]
    assert torch.equal(weight(adapters, LINEAR), before)
    adapters.set([(path, 1.0, 1.0, None)], flavour="a1111")
    assert not torch.equal(weight(adapters, LINEAR), before)


def test_keys_that_are_no_adapters_are_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", {"bundle_emb.x": noise(2, 2), f"{LINEAR}.alpha": torch.tensor(1.0)})
    assert set(read(path).modules) == {LINEAR}


def test_a_damaged_module_is_left_out(adapters: Adapters, tmp_path: Path) -> None:
    """Parts that lack, an alpha of two numbers, a rank of nothing, factors of more numbers than the weight has."""
    out, inner = weight(adapters, LINEAR).shape
    up, down = noise(out, R), noise(R, inner)
    before = weight(adapters, LINEAR)
    for parts in (
        {"hada_w1_a": up},
        {"lokr_w1_a": up, "lokr_w2": down},
        {"lokr_w1": noise(out, inner), "lokr_w2": noise(out, inner)},
        {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor([1.0, 2.0])},
        {"lora_up.weight": noise(out, 0), "lora_down.weight": noise(0, inner), "alpha": torch.tensor(1.0)},
        {"lora_up.weight": noise(90_000, 1), "lora_down.weight": noise(1, 90_000)},
        {"lora_up.weight": noise(90_000, 1), "lora_down.weight": noise(1, 90_000), "dora_scale": noise(1, inner)},
        {"hada_w1_a": noise(90_000, 1), "hada_w1_b": noise(1, 90_000), "hada_w2_a": up, "hada_w2_b": down},
        {"oft_blocks": noise(3, 5, 5)},
        {"oft_blocks": noise(5)},
    ):
        path = saved(tmp_path / "a.safetensors", {f"{LINEAR}.{name}": tensor for name, tensor in parts.items()})
        assert "no effect" in adapters.set([(path, 1.0, 1.0, None)], flavour="a1111")[0]
        assert torch.equal(weight(adapters, LINEAR), before)
        adapters.set([])


def test_forge_counts_what_is_no_adapter_too(adapters: Adapters, tmp_path: Path) -> None:
    out, inner = weight(adapters, LINEAR).shape
    good = {f"{LINEAR}.lora_up.weight": noise(out, R), f"{LINEAR}.lora_down.weight": noise(R, inner)}
    path = saved(tmp_path / "a.safetensors", good | {f"bundle_emb.{i}": noise(2, 2) for i in range(13)})
    assert "no effect" in adapters.set([(path, 1.0, 1.0, None)], flavour="forge")[0]
    adapters.set([])
    assert "13 of its 14 parts" in adapters.set([(path, 1.0, 1.0, None)], flavour="a1111")[0]

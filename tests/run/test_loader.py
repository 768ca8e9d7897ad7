"""The loader against real layouts: every family, precision and oddity that checkpoints come in, and what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubctl.errors import KnownError, RunError, UnsafeFile
from hubctl.run import devices, loader
from hubctl.run.weights import Weights

CPU = torch.device("cpu")
FAMILIES = {
    "sd1": layouts.TINY_SD1,
    "sd2": layouts.TINY_SD2,
    "sdxl": layouts.TINY_SDXL,
    "refiner": layouts.TINY_REFINER,
    "inpaint": replace(layouts.TINY_SD1, inputs=9),
}
FEW_TOKENS = {name: replace(family, tokens=600) for name, family in FAMILIES.items()}  # files of a few megabytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def tensors(family: str, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    return layouts.weights(layouts.checkpoint(FEW_TOKENS[family]), dtype)


def load(path: Path, **more: Any) -> loader.Model:
    return loader.load(path, device=CPU, dtype=more.pop("dtype", torch.float32), **more)


# --- real layouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "header"), [(layouts.SD1, "sd1-ldm"), (layouts.SDXL, "sdxl-sgm")])
def test_the_layouts_of_these_tests_are_those_of_published_files(
    family: layouts.Family, header: str, shared: Path
) -> None:
    text = (shared / "fixtures/safetensors-headers/ljleb-sd-mecha" / f"{header}.header.json").read_text("utf-8")
    real = {k: tuple(v["shape"]) for k, v in json.loads(text).items() if k != "__metadata__" and v["shape"] is not None}
    ours = layouts.checkpoint(family)
    assert {name: real[name] for name in ours} == ours


def sparse(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F16", size: int = 2) -> Path:
    """A file of the right geometry that is all zeros and takes no space."""
    header, at = {}, 0
    for name, shape in shapes.items():
        length = math.prod(shape) * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return path


@pytest.mark.parametrize("name", ["SD1", "SD2", "SDXL", "REFINER", "inpaint"])
def test_full_size_geometry_is_read_from_shapes(name: str, tmp_path: Path) -> None:
    family = replace(layouts.SD1, inputs=9) if name == "inpaint" else getattr(layouts, name)
    model = load(sparse(tmp_path / "full.safetensors", layouts.checkpoint(family)), dtype=torch.float16)
    config = model.unet.config
    assert model.family == family.name
    assert model.is_inpaint == (name == "inpaint")
    # what diffusers' own configurations of these models say
    heads, widths = {
        "SD1": (8, (320, 640, 1280, 1280)),
        "inpaint": (8, (320, 640, 1280, 1280)),
        "SD2": ((5, 10, 20, 20), (320, 640, 1280, 1280)),
        "SDXL": ((5, 10, 20), (320, 640, 1280)),
        "REFINER": ((6, 12, 24, 24), (384, 768, 1536, 1536)),
    }[name]
    assert config.attention_head_dim == heads
    assert config.block_out_channels == widths
    assert config.cross_attention_dim == family.context
    assert config.projection_class_embeddings_input_dim == (family.label or None)
    if name == "SDXL":
        assert config.transformer_layers_per_block == (1, 2, 10)
        assert [e.config.num_attention_heads for e in model.encoders] == [12, 20]
    assert model.vae is not None
    assert model.vae.config.block_out_channels == (128, 256, 512, 512)
    assert model.factor == 8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn], ids=str)
def test_every_number_arrives_where_diffusers_puts_it(family: str, dtype: torch.dtype, folder: Path) -> None:
    from diffusers.loaders import single_file_utils as peer

    source = tensors(family, dtype)
    model = load(layouts.write(folder / f"{family}-{dtype}.safetensors", source))
    whole = {name: tensor.float() for name, tensor in source.items()}
    unet = peer.convert_ldm_unet_checkpoint(
        {k: v for k, v in whole.items() if k.startswith(loader.UNET)}, dict(model.unet.config)
    )
    assert model.vae is not None
    vae = peer.convert_ldm_vae_checkpoint(
        {k: v for k, v in whole.items() if k.startswith(loader.VAE)}, dict(model.vae.config)
    )
    for mine, theirs in ((model.unet.state_dict(), unet), (model.vae.state_dict(), vae)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_open_clip_becomes_a_text_model(folder: Path) -> None:
    source = tensors("sdxl", torch.float32)
    model = load(layouts.write(folder / "clip.safetensors", source))
    state = {name.removeprefix("text_model."): tensor for name, tensor in model.encoders[1].state_dict().items()}
    head = "conditioner.embedders.1.model."
    fused = source[f"{head}transformer.resblocks.1.attn.in_proj_weight"]
    for index, part in enumerate("qkv"):
        assert torch.equal(state[f"encoder.layers.1.self_attn.{part}_proj.weight"], fused.chunk(3)[index])
    assert torch.equal(state["encoder.layers.2.mlp.fc1.bias"], source[f"{head}transformer.resblocks.2.mlp.c_fc.bias"])
    assert torch.equal(state["final_layer_norm.weight"], source[f"{head}ln_final.weight"])
    assert torch.equal(state["text_projection.weight"], source[f"{head}text_projection"].T)
    assert len(state) == 16 * 3 + 5


# --- oddities ---------------------------------------------------------------------------------------------------------


def test_what_training_left_behind_is_never_read(tmp_path: Path) -> None:
    """Averaged weights in a kind of number nobody knows: reading them would be refused."""
    path = layouts.write(tmp_path / "a.safetensors", tensors("sd1"))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, size = json.loads(data[8 : 8 + length]), len(data) - 8 - length
    for number in range(50):
        header[f"model_ema.diffusion_modelinput_blocks{number}"] = {
            "dtype": "F4_SOMETHING", "shape": [999], "data_offsets": [size, size + 7],
        }  # fmt: skip
    header |= {
        name: {"dtype": "I64", "shape": [], "data_offsets": [size, size + 8]} for name in ("global_step", "betas")
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + bytes(8))
    assert load(path).family == "sd1"


@pytest.mark.parametrize("layout", ["transformer.", "text_model.", ""])
def test_old_merges_name_the_text_encoder_differently(layout: str, folder: Path) -> None:
    source = tensors("sd1")
    usual = "cond_stage_model.transformer.text_model."
    moved = {name.replace(usual, f"cond_stage_model.{layout}"): tensor for name, tensor in source.items()}
    moved[f"cond_stage_model.{layout}embeddings.position_ids"] = torch.arange(77)[None].half()
    one = load(layouts.write(folder / "usual.safetensors", source))
    other = load(layouts.write(folder / "moved.safetensors", moved))
    ours, theirs = one.encoders[0].state_dict(), other.encoders[0].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_fp8_with_scales(folder: Path) -> None:
    source = tensors("sd1", torch.float32)
    name = loader.UNET + "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    stored = dict(source)
    stored[name] = (source[name] * 8).to(torch.float8_e4m3fn)
    stored[name.removesuffix("weight") + "scale_weight"] = torch.tensor(0.125)
    model = load(layouts.write(folder / "scaled.safetensors", stored))
    got = model.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    assert torch.allclose(got, source[name], atol=0.02)


def test_a_vae_of_its_own_takes_the_place_of_the_checkpoints(folder: Path) -> None:
    source = tensors("sd1")
    without = {name: tensor for name, tensor in source.items() if not name.startswith(loader.VAE)}
    other = {
        name.removeprefix(loader.VAE): tensor * 0.5 for name, tensor in source.items() if name.startswith(loader.VAE)
    }
    vae = layouts.write(folder / "other.vae.safetensors", other)
    assert load(layouts.write(folder / "pruned.safetensors", without)).vae is None
    for path in (folder / "pruned.safetensors", layouts.write(folder / "with.safetensors", source)):
        model = load(path, vae_path=vae)
        assert model.vae is not None
        assert torch.equal(model.vae.quant_conv.weight, other["quant_conv.weight"].float())
        assert model.factor == 8


def test_a_vae_in_the_layout_of_diffusers(folder: Path) -> None:
    model = load(layouts.write(folder / "for-vae.safetensors", tensors("sd1")))
    assert model.vae is not None
    state = {name: tensor.clone() for name, tensor in model.vae.state_dict().items()}
    path = layouts.write(folder / "diffusion_pytorch_model.safetensors", state)
    again = loader.load_vae(path, CPU, 0.18215).state_dict()
    assert all(torch.equal(again[name], state[name]) for name in state)
    old = {}
    for name, tensor in state.items():
        for new, was in loader.OLD_ATTENTION.items():
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{was}")
        old[name] = tensor
    again = loader.load_vae(layouts.write(folder / "old.safetensors", old), CPU, 0.18215).state_dict()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_a_vae_that_breaks_in_half_precision_is_decoded_in_float32(folder: Path) -> None:
    """SDXL's first VAE: activations beyond what 16 bits hold. A checkpoint loaded in half still decodes."""
    source = tensors("sdxl", torch.float16)
    for name in ("decoder.mid.block_1.conv2.weight", "decoder.mid.block_2.conv2.weight"):
        source[loader.VAE + name] = source[loader.VAE + name] * 20_000
    model = load(layouts.write(folder / "broken.safetensors", source), dtype=torch.float16)
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model.vae is not None
    assert next(model.unet.parameters()).dtype == torch.float16
    with torch.inference_mode():
        fine = model.vae.decode(latent, return_dict=False)[0]
        broken = model.vae.half().decode(latent.half(), return_dict=False)[0]
    assert torch.isfinite(fine).all()
    assert not torch.isfinite(broken).all()


@pytest.mark.parametrize(
    ("change", "prediction"),
    [
        ({}, "epsilon"),
        ({"tensor": "v_pred"}, "v"),
        ({"metadata": {"modelspec.prediction_type": "v"}}, "v"),
        ({"metadata": {"modelspec.prediction_type": "epsilon"}}, "epsilon"),
        ({"yaml": 'model:\n  params:\n    parameterization: "v"\n'}, "v"),
        ({"yaml": "model:\n  params:\n    linear_start: 0.00085\n"}, "epsilon"),
    ],
    ids=["nothing", "marker", "metadata-v", "metadata-eps", "yaml-v", "yaml-eps"],
)
def test_what_the_unet_predicts(change: dict[str, Any], prediction: str, tmp_path: Path) -> None:
    source = tensors("sdxl")
    if "tensor" in change:
        source[change["tensor"]] = torch.zeros(0)
        source["ztsnr"] = torch.zeros(0)
    path = layouts.write(tmp_path / "m.safetensors", source, change.get("metadata"))
    if "yaml" in change:
        path.with_suffix(".yaml").write_text(change["yaml"])
    model = load(path)
    assert model.prediction == prediction
    assert model.zero_terminal_snr == ("tensor" in change)


@pytest.mark.parametrize(("spread", "prediction"), [(0.03, "epsilon"), (0.2, "v")])
def test_sd2_is_told_apart_by_its_weights(spread: float, prediction: str, tmp_path: Path) -> None:
    family = replace(layouts.SD2, base=64, multiples=(1, 1, 1, 1), context=64, open_clip=64, open_clip_layers=2)
    family = replace(family, tokens=600, vae=(32, 32, 32, 32), vae_resnets=1)
    source = layouts.weights(layouts.checkpoint(family))
    probe = loader.UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    source[probe] = torch.linspace(-1, 1, 64).half() * spread
    assert load(layouts.write(tmp_path / "sd2.safetensors", source)).prediction == prediction


# --- pickles ----------------------------------------------------------------------------------------------------------


class Callback:
    """Stands for what a trainer pickles into its checkpoints."""

    def __init__(self) -> None:
        self.best = 1


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_ckpt_loads_like_a_safetensors(zipped: bool, folder: Path) -> None:
    source = tensors("sd1")
    path = folder / f"{zipped}.ckpt"
    torch.save({"state_dict": source, "global_step": 7}, path, _use_new_zipfile_serialization=zipped)
    one, other = load(path), load(layouts.write(folder / "same.safetensors", source))
    ours, theirs = one.unet.state_dict(), other.unet.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_trainers_leftovers_are_put_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Callback, "__module__", "pytorch_lightning.callbacks")
    module = type(sys)("pytorch_lightning.callbacks")
    module.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", type(sys)("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", module)
    path = folder / "lightning.ckpt"
    torch.save({"state_dict": tensors("sd1"), "callbacks": {"a": Callback()}}, path)
    monkeypatch.delitem(sys.modules, "pytorch_lightning.callbacks")
    assert load(path).family == "sd1"


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/hubctl-was-here",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_hostile_pickle_is_named_and_not_run(zipped: bool, tmp_path: Path) -> None:
    mark = Path("/tmp/hubctl-was-here")
    mark.unlink(missing_ok=True)
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": tensors("sd1"), "x": Hostile()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFile, match=r"evil\.ckpt.*system") as refused:
        load(path)
    assert "not loaded" in refused.value.message
    assert not mark.exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_dict_that_holds_itself_has_an_end(zipped: bool, tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["state_dict"] = endless
    torch.save(endless, tmp_path / "endless.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(RunError, match="endless"):
        load(tmp_path / "endless.ckpt")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("ljleb-sd-mecha/flux-flux", "is a Flux model"),
        ("ljleb-sd-mecha/sd3-comfyui", "is an SD3 model"),
        ("ljleb-sd-mecha/sdxl-diffusers_unet_only", "bare UNet in diffusers' layout"),
        ("invoke-ai-invokeai/flux_lora_kohya_format", "is a LoRA"),
        ("invoke-ai-invokeai/flux_dora_onetrainer_format", "is a LoRA"),
        ("invoke-ai-invokeai/flux_lora_diffusers_format", "is a LoRA"),
        ("invoke-ai-invokeai/anima_lora_lokr_format", "is a LoRA"),
        ("invoke-ai-invokeai/test_embedding", "is a textual inversion"),
        ("invoke-ai-invokeai/flux2_vae_bfl", "is a VAE"),
        ("invoke-ai-invokeai/z_image_transformer_comfyui", "another family"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(header: str, what: str, shared: Path, tmp_path: Path) -> None:
    text = (shared / "fixtures/safetensors-headers" / f"{header}.header.json").read_text("utf-8")
    names = [name for name in json.loads(text) if name != "__metadata__"]
    path = sparse(tmp_path / "other.safetensors", dict.fromkeys(names, (1,)))
    with pytest.raises(RunError, match=r"other\.safetensors") as refused:
        load(path)
    assert what in refused.value.message


@pytest.mark.parametrize(
    ("channels", "what"), [(5, "depth-to-image"), (8, "instruct-pix2pix"), (6, "6 input channels")]
)
def test_checkpoints_that_need_more_than_a_prompt(channels: int, what: str, tmp_path: Path) -> None:
    shapes = layouts.checkpoint(replace(layouts.SD1, inputs=channels))
    with pytest.raises(RunError, match=what):
        load(sparse(tmp_path / "m.safetensors", shapes), dtype=torch.float16)


def test_an_incomplete_checkpoint_says_what_it_lacks(tmp_path: Path) -> None:
    shapes = layouts.checkpoint(layouts.SD1)
    gone = loader.UNET + "middle_block.0.in_layers.2.weight"
    path = sparse(tmp_path / "m.safetensors", {n: s for n, s in shapes.items() if n != gone})
    with pytest.raises(RunError, match=r"lacks 1 tensors, `model\.diffusion_model\.middle_block\.0\.in_layers"):
        load(path, dtype=torch.float16)
    path = sparse(tmp_path / "n.safetensors", {n: s for n, s in shapes.items() if not n.startswith("cond_stage")})
    with pytest.raises(RunError, match="no text encoder"):
        load(path, dtype=torch.float16)
    path = sparse(tmp_path / "o.safetensors", {**shapes, gone: (1280, 1280, 1, 1)})
    with pytest.raises(RunError, match="unknown geometry"):
        load(path, dtype=torch.float16)
    path = sparse(tmp_path / "p.safetensors", {n: s for n, s in shapes.items() if "to_k" not in n})
    with pytest.raises(RunError, match="lacks most of its UNet"):
        load(path, dtype=torch.float16)


def test_a_file_that_is_no_vae(folder: Path) -> None:
    lora = layouts.write(folder / "lora.safetensors", {"lora_unet_x.lora_up.weight": torch.zeros(1)})
    with pytest.raises(RunError, match="is a LoRA, not a VAE"):
        loader.load_vae(lora, CPU, 1.0)
    flux = {**layouts.checkpoint(layouts.SD1)}
    flux = {n.removeprefix(loader.VAE): s for n, s in flux.items() if n.startswith(loader.VAE)}
    flux["decoder.conv_in.weight"] = (512, 16, 3, 3)
    with pytest.raises(RunError, match="16 latent channels"):
        loader.load_vae(sparse(folder / "flux-vae.safetensors", flux), CPU, 1.0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_a_sentence(data: st.DataObject, folder: Path) -> None:
    """Cut anywhere, or bytes of the header changed: a named refusal, never a crash; the sentence names the file."""
    whole = folder / "small.safetensors"
    if not whole.exists():
        layouts.write(whole, {name: torch.ones(3, 3) for name in ("first_stage_model.a", "model.diffusion_model.b")})
    content = bytearray(whole.read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.safetensors"
    path.write_bytes(content)
    try:
        weights = Weights.open(path)
        for name in weights:
            weights.get(name)
    except KnownError as error:
        assert "damaged.safetensors" in error.message


def test_the_length_of_a_header_may_look_like_a_pickle(tmp_path: Path) -> None:
    """One safetensors file in thirty-two begins with the byte that begins a pickle."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    header += b" " * (0x180 - len(header))
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert path.read_bytes()[:1] == b"\x80"
    assert list(Weights.open(path)) == ["a"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nothing", b"\x80\x02rubbish", b"<html>no</html>", b"\xff" * 64])
def test_other_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(KnownError, match=r"x\.ckpt"):
        load(path)


def test_a_file_that_is_cut_off_says_how_much_is_there(tmp_path: Path) -> None:
    path = layouts.write(tmp_path / "cut.safetensors", {"model.diffusion_model.a": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(RunError, match=r"cut off: 3,\d+ of 4,\d+ bytes"):
        load(path)


# --- memory -----------------------------------------------------------------------------------------------------------

PROBE = """
import json, resource, sys, torch
from pathlib import Path
from hubctl.run import loader
import diffusers.models.unets.unet_2d_condition, diffusers.models.autoencoders.autoencoder_kl, transformers
from transformers import CLIPTextModel
loader.load(Path(sys.argv[2]), device=torch.device("cpu"), dtype=torch.float16)  # what importing and the first use cost
def now(key):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
open("/proc/self/clear_refs", "w").write("5")
before = now("VmRSS")
model = loader.load(Path(sys.argv[1]), device=torch.device("cpu"), dtype=getattr(torch, sys.argv[3]))
total = sum(float(p.sum()) for m in (model.unet, *model.encoders) for p in m.parameters())  # every page is touched
print(json.dumps({"peak": now("VmHWM") - before, "own": now("RssAnon")}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        pytest.param("float16", "float16", marks=pytest.mark.slow),
        ("float16", "float32"),
        pytest.param("float32", "float16", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_is_never_twice_in_memory(stored: str, asked: str, tmp_path: Path) -> None:
    """Peak while loading and touching every weight ≤ 1.2 × what the loaded weights take."""
    wide = replace(layouts.TINY_SD1, base=256, context=256, resnets=2, tokens=600)
    path = layouts.write(
        tmp_path / "wide.safetensors", layouts.weights(layouts.checkpoint(wide), getattr(torch, stored))
    )
    small = layouts.write(tmp_path / "small.safetensors", tensors("sd1"))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path), str(small), asked],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    size = sum(math.prod(shape) for shape in layouts.checkpoint(wide).values()) * getattr(torch, asked).itemsize
    assert size > 100_000_000
    assert json.loads(done.stdout.splitlines()[-1])["peak"] < 1.2 * size


def test_merging_into_mapped_weights_leaves_the_file_alone(tmp_path: Path) -> None:
    path = layouts.write(tmp_path / "m.safetensors", tensors("sd1", torch.float32))
    before = path.read_bytes()
    model = load(path)
    weight = model.unet.conv_in.weight.data
    weight += 1
    assert path.read_bytes() == before
    assert torch.equal(load(path).unet.conv_in.weight + 1, weight)


# --- devices ----------------------------------------------------------------------------------------------------------


def outputs(model: loader.Model) -> list[torch.Tensor]:
    """Every part once, entered the way the runner enters it."""
    device = model.device
    assert model.vae is not None
    text = getattr(model.encoders[0], "text_model", model.encoders[0])
    with torch.inference_mode():
        hidden = text(input_ids=torch.tensor([[1, 2, 3] * 5], device=device), output_hidden_states=True)
        context = text.final_layer_norm(hidden.hidden_states[-2])
        latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).to(device)
        noise = model.unet(latent, torch.tensor([500.0], device=device), encoder_hidden_states=context).sample
        picture = model.vae.decode(noise, return_dict=False)[0]
        again = model.vae.encode(picture.clamp(-1, 1), return_dict=False)[0].mode()
    return [context.cpu(), noise.cpu(), picture.cpu(), again.cpu()]


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_changes_no_number(offload: str, folder: Path) -> None:
    path = layouts.write(folder / "offload.safetensors", tensors("sd1"))
    plain, resting = outputs(load(path)), outputs(load(path, offload=offload))
    assert all(torch.equal(a, b) for a, b in zip(plain, resting, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_offload_on_a_graphics_card(offload: str, folder: Path) -> None:
    """Same numbers as on the processor, and with offload most of the model rests in main memory afterwards."""
    path = layouts.write(folder / "cuda.safetensors", tensors("sd1"))
    expected = outputs(load(path))
    device = torch.device("cuda")
    model = loader.load(path, device=device, dtype=torch.float32, offload=offload)
    for a, b in zip(expected, outputs(model), strict=True):
        assert torch.allclose(a, b, atol=2e-3, rtol=1e-3)
    awake = {p.device.type for m in (model.unet, *model.encoders) for p in m.parameters()}
    assert awake == ({"cuda"} if offload == "none" else {"cpu"})


def test_only_one_part_is_awake_at_a_time(folder: Path) -> None:
    """Watched on the meta device: a part is moved when it is called, the last one back."""
    model = load(layouts.write(folder / "turns.safetensors", tensors("sd1")))
    moves: list[tuple[str, str]] = []
    assert model.vae is not None
    for name, root in (("encoder", model.encoders[0]), ("unet", model.unet), ("vae", model.vae)):

        def to(device: Any, name: str = name) -> None:
            moves.append((name, str(device)))

        root.to = to
    model.offload, model.device = "model", CPU
    turns = devices._Turns([[model.encoders[0]], [model.unet], [model.vae]], "there")
    turns.watch()
    outputs(model)
    assert moves == [
        ("encoder", "there"), ("encoder", "cpu"), ("unet", "there"), ("unet", "cpu"), ("vae", "there"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "free", "mode"),
    [(2, 24, "none"), (7, 12, "none"), (7, 8, "model"), (7, 6, "sequential"), (2, 3.7, "model"), (2, 3, "sequential")],
)
def test_offload_follows_free_memory(weights: float, free: float, mode: str) -> None:
    gib = 1024**3
    assert devices.offload_for(int(weights * gib), int(free * gib)) == mode


def test_devices_that_are_not_there() -> None:
    for name in ("tpu", "cuda:99", "nonsense:x", ""):
        with pytest.raises(RunError):
            devices.choose(name)
    with pytest.raises(RunError, match="no precision"):
        devices.choose_dtype("int4", CPU)
    with pytest.raises(RunError, match="no way to offload"):
        devices.choose_offload("disk", CPU, 1)
    assert devices.choose_dtype(None, CPU) == torch.float32

"""The golden set: its weights from the stated rule, its cases as plans, and how near a run came.

    files(recipes)                  every small file, built once into a cache outside the checkout, checked by SHA256
    cases(folder)                   any folder in the golden format
    plan_of(case, "forge", files)   infotext → parameters → RunPlan, plus what no infotext carries
    check(case, "forge", files)     run it and measure: conditioning, noise, calls, latents, pixels

The cache is `$HUBCTL_GOLDEN`, else the user's cache folder. The full-size checkpoint (2 GB) is built when a case asks.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

SALT = "hubctl-golden-1"
SALTS = {"golden-b-tiny": ("golden-sd15-tiny", "model-b")}  # file → (its recipe, its salt)
UNIT = np.float32(1 / math.sqrt(4 * (65536**2 - 1) / 12))
BIG = "golden-sd15"


# --- weights ----------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    if chosen := os.environ.get("HUBCTL_GOLDEN"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("hubctl") / "golden"


def stream(name: str, salt: str, count: int, mean: float, scale: float, kind: Any = np.float16) -> Array:
    """Near-normal numbers anyone can draw again: sums of four 16-bit lanes of Philox4x64 words."""
    key = np.frombuffer(hashlib.sha256(f"{salt}|{name}".encode()).digest()[:16], dtype="<u8")
    raw = np.random.Philox(key=key).random_raw(count)
    lanes = raw.view("<u2").reshape(count, 4).sum(axis=1, dtype=np.int32) - 131070
    return (lanes.astype(np.float32) * UNIT * np.float32(scale) + np.float32(mean)).astype(kind)


def tensor(entry: Sequence[Any], salt: str) -> Array:
    name, shape, mean, scale = entry
    if name is None:
        return np.full(shape, mean, np.float16)
    return stream(name, salt, math.prod(shape), mean, scale).reshape(shape)


def structure(tensors: dict[str, Array]) -> None:
    """What makes a random UNet behave like a denoiser, and a random VAE like an autoencoder."""
    unet = "model.diffusion_model."
    if unet + "out.2.weight" in tensors:
        _pass_through(tensors, unet)
    for prefix in ("first_stage_model.", ""):
        if prefix + "quant_conv.weight" in tensors:
            weight, bias = tensors[prefix + "quant_conv.weight"], tensors[prefix + "quant_conv.bias"]
            weight[:4] = (weight[:4].astype(np.float32) * 9).astype(np.float16)
            weight[4:8] = (weight[4:8].astype(np.float32) * np.float32(0.25)).astype(np.float16)
            bias[4:8] = -18


def _pass_through(tensors: dict[str, Array], unet: str) -> None:
    base = tensors[unet + "input_blocks.0.0.weight"].shape[0]
    full = base == 320
    z, q = (10, 0.85) if full else (8, 0.95)
    sdxl = unet + "label_emb.0.0.weight" in tensors
    last = unet + ("output_blocks.8." if sdxl else "output_blocks.11.")
    first = tensors[unet + "input_blocks.0.0.weight"]
    first[:z] = 0
    for i in range(4):
        first[2 * i, i, 1, 1], first[2 * i + 1, i, 1, 1] = 1, -1
    tensors[unet + "input_blocks.0.0.bias"][:z] = 0
    skip = tensors[last + "0.skip_connection.weight"]
    skip[:z] = 0
    for j in range(8):
        skip[j, base + j, 0, 0] = 1
    zeroed = ["0.skip_connection.bias", "0.out_layers.3.weight", "0.out_layers.3.bias"]
    for name in zeroed if sdxl else [*zeroed, "1.proj_out.weight", "1.proj_out.bias"]:
        tensors[last + name][:z] = 0
    tensors[unet + "out.0.weight"][:z] = 1
    tensors[unet + "out.0.bias"][:z] = 0
    out = tensors[unet + "out.2.weight"]
    out[:, :z] = 0
    for i in range(4):
        out[i, 2 * i, 1, 1], out[i, 2 * i + 1, 1, 1] = np.float16(q), -np.float16(q)
    tensors[unet + "out.2.bias"][:] = 0


class Files:
    """The set's model files by stem, built when first asked for."""

    def __init__(self, recipes: Path, folder: Path | None = None) -> None:
        self.recipes, self.folder = recipes, folder or cache_folder()
        self.sha256: dict[str, str] = json.loads((recipes / "file-sha256.json").read_text("utf-8"))

    def path(self, stem: str) -> Path:
        if stem == "emb_pt":
            return self._made(f"{stem}.pt", _save_embedding_pt)
        if stem == "emb_st":
            return self._made(f"{stem}.safetensors", _save_embedding_safetensors)
        made: dict[str, Array] = {}
        return self._made(f"{stem}.safetensors", lambda target: self._save(stem, made, target))

    def has(self, stem: str) -> bool:
        return stem in {"emb_pt", "emb_st"} or f"{stem}.safetensors" in self.sha256

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self.folder / name
        wanted = self.sha256.get(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(64):  # safetensors writes a header's metadata in random order, and the hash counts it
            if path.exists():
                return path
            beside = path.with_name(f".{path.name}.{os.getpid()}")
            make(beside)
            if wanted in (None, found := _sha256(beside)):
                beside.replace(path)
            else:
                beside.unlink()
        raise ValueError(f"{name} came out as {found}, not {wanted}")

    def _save(self, stem: str, made: dict[str, Array], target: Path) -> None:
        from safetensors.numpy import save_file

        source, salt = SALTS.get(stem, (stem, ""))
        recipe = json.loads((self.recipes / f"{source}.json").read_text("utf-8"))
        if not made:
            made |= {name: tensor(entry, salt or recipe["salt"]) for name, entry in recipe["tensors"].items()}
            structure(made)
        save_file(made, target, metadata=recipe.get("metadata"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_embedding_pt(target: Path) -> None:
    import torch

    vectors = stream("emb_pt|vec", SALT, 4 * 128, 0, 0.5, np.float32).reshape(4, 128)
    torch.save({"string_to_param": {"*": torch.from_numpy(vectors)}, "name": "emb_pt", "step": 0}, target)


def _save_embedding_safetensors(target: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"emb_params": stream("emb_st|vec", SALT, 2 * 128, 0, 0.5, np.float32).reshape(2, 128)}, target)


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One case of a folder in the golden format."""

    folder: Path
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.data.get("id") or self.folder.name)

    @property
    def params(self) -> Mapping[str, Any]:
        return self.data.get("params") or {}  # type: ignore[no-any-return]

    @property
    def opts(self) -> Mapping[str, Any]:
        return self.data.get("opts") or {}  # type: ignore[no-any-return]

    @property
    def flavours(self) -> tuple[str, ...]:
        return tuple(self.data.get("flavours") or ("forge",))

    @cached_property
    def blocks(self) -> list[str]:
        """Infotexts, one a picture: each ends with its settings line, a prompt may hold empty lines."""
        blocks: list[str] = [""]
        for line in (self.folder / "infotext.txt").read_text("utf-8").split("\n"):
            if re.match(r"Steps: \d", blocks[-1].rpartition("\n")[2]):
                if not line.strip():
                    continue
                blocks.append("")
            blocks[-1] += ("\n" if blocks[-1] else "") + line
        return [block for block in blocks if block.strip()]

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        with np.load(self.folder / "arrays.npz") as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def conds(self) -> Mapping[str, Array] | None:
        """Recorded conditioning; None where it is said to be another case's which is nowhere to be found."""
        said = str(self.data.get("conds") or "conds.npz")
        owners = [self.folder]
        if said.startswith("same as "):
            other = said.removeprefix("same as ").strip()
            owners = [root / other for root in (self.folder.parent, *fallbacks())]
        for owner in owners:
            if (owner / "conds.npz").is_file():
                with np.load(owner / "conds.npz") as file:
                    return {name: file[name] for name in file.files}
        return None

    @cached_property
    def trace(self) -> Mapping[str, list[dict[str, float]]]:
        path = self.folder / "trace.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}  # type: ignore[no-any-return]

    def picture(self, index: int, flavour: str) -> Array | None:
        path = self.folder / f"image{index}_{flavour}.png"
        return np.asarray(Image.open(path).convert("RGB"), dtype=np.int16) if path.is_file() else None

    # --- what decides which rules and tolerances hold ---

    @property
    def adaptive(self) -> bool:
        return self.params.get("sampler_name") == "DPM adaptive"

    @property
    def forge_only(self) -> str | None:
        """Why the `a1111` arrays are Forge's own rule, if they are: that flavour restores three other places only."""
        p, o = self.params, self.opts
        for reason, applies in (
            ("tiling", p.get("tiling")),
            ("refiner", p.get("refiner_checkpoint")),
            ("mask", self.data.get("mask")),
            ("pad conds", o.get("pad_cond_uncond") or o.get("pad_cond_uncond_v0")),
            ("DoRA rows", "dora_g" in str(p.get("prompt"))),
            ("SDXL clip skip", "sdxl" in str(self.data.get("model")) and int(o.get("CLIP_stop_at_last_layers", 1)) > 2),
            ("downcast", o.get("use_downcasted_alpha_bar")),
            ("DDIM CFG++ scale", p.get("sampler_name") == "DDIM CFG++"),
            ("AND without guidance", " AND " in str(p.get("prompt")) and _unguided(p, o)),
            ("NGMS by timestep", {**p, **o}.get("s_min_uncond") and p.get("sampler_name") in DDIM_FAMILY),
            ("DDPM's noise", p.get("sampler_name") == "DDPM"),
            ("a LoRA named twice", len(tags := re.findall(r"<lora:([^:>]+)", str(p.get("prompt")))) > len(set(tags))),
            ("hires CFG", p.get("enable_hr") and p.get("hr_cfg", p.get("cfg_scale")) != p.get("cfg_scale")),
        ):
            if applies:
                return reason
        return None

    def tolerance(self, flavour: str) -> tuple[float, int | None]:
        """(latents, pixels) of the set's table; zero-terminal-SNR counts relative to the largest latent."""
        if self.adaptive:
            return (1e-3 if flavour == "forge" else 1e-1), None
        if self.params.get("enable_hr") and not str(self.params.get("hr_upscaler")).startswith("Latent"):
            return 1e-2, 8
        if self.opts.get("sd_noise_schedule") == "Zero Terminal SNR":
            return 1e-4 * float(np.abs(self.arrays.get(f"latents_{flavour}", np.ones(1))).max()), 2
        return 1e-3, 2


def _unguided(p: Mapping[str, Any], o: Mapping[str, Any]) -> bool:
    return bool(p.get("cfg_scale") == 1 or {**p, **o}.get("s_min_uncond") or o.get("skip_early_cond"))


def cases(folder: Path) -> Iterator[Case]:
    """The cases of a folder, in the order of its index where it has one."""
    index = folder / "index.json"
    names = json.loads(index.read_text("utf-8")) if index.is_file() else []
    found = {path.parent.name: path.parent for path in sorted(folder.glob("*/case.json"))}
    if (folder / "case.json").is_file():
        found[folder.name] = folder
    for name in [*(n for n in names if n in found), *(n for n in found if n not in names)]:
        yield Case(found[name], json.loads((found[name] / "case.json").read_text("utf-8")))


def fallbacks() -> list[Path]:
    """Where what a folder only refers to may lie: recipes, and the conditioning other cases share."""
    shared = Path(os.environ.get("HUBCTL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    return [root for root in (shared / "golden" / "webui",) if root.is_dir()]


def recipes_of(folder: Path) -> Path | None:
    for root in (folder, folder.parent, *fallbacks()):
        if (root / "recipes" / "file-sha256.json").is_file():
            return root / "recipes"
    return None


# --- a case as a plan -------------------------------------------------------------------------------------------------


@dataclass
class Planned:
    """A plan from the infotext, and where the infotext and `case.json` do not say the same."""

    plan: Any
    parameters: Any
    differs: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # settings of the case that nothing here reads


def locate_in(files: Files) -> Any:
    """A plan's look-up: by name, the hash must agree."""
    from hubctl.run.plan import Located

    def locate(ref: Any) -> Any:
        stem = (ref.name or "").removesuffix(".safetensors")
        if not files.has(stem):
            return None
        sha256 = files.sha256.get(f"{stem}.safetensors")
        if ref.hash and sha256 and not sha256.startswith(ref.hash):
            return None
        return Located(files.path(stem), sha256, stem, ref.kind)

    return locate


def plan_of(case: Case, flavour: str, files: Files, scratch: Path) -> Planned:
    """Infotext → parameters → plan; then what no infotext carries, and a look at whether both sources agree.

    LoRA tags are missing in Forge's infotext, so the prompts come from `case.json`; the rest of the text must agree.
    """
    from hubctl import infotext
    from hubctl.run import plan as run_plan
    from hubctl.run.prompt import extract_networks

    parameters = infotext.parse(case.blocks[0])
    differs = []
    for name, key in (("prompt", "prompt"), ("negative_prompt", "negative_prompt")):
        asked = str(case.params.get(key, ""))
        bare = extract_networks(asked)[0] if name == "prompt" else asked
        if getattr(parameters, name).strip() != bare.strip():
            differs.append(f"{name}: infotext {getattr(parameters, name)!r}, case {bare!r}")
        parameters = replace(parameters, **{name: asked})
    picture = mask = None
    if case.data.get("kind") == "img2img":
        picture = scratch / f"init-{_size(case)}.png"
        _gradients(_size(case)).save(picture)
        if case.data.get("mask"):
            mask = scratch / "mask.png"
            _rectangle(_size(case)).save(mask)
    plan = run_plan.build(
        parameters,
        locate=locate_in(files),
        flavour="forge" if flavour == "forge" or case.forge_only else "a1111",
        init_image=picture,
        mask=mask,
    )
    plan = replace(plan, **_not_in_infotext(case))
    if plan.hires is not None and plan.hires.prompt is not None and case.params.get("hr_prompt"):
        plan = replace(plan, hires=replace(plan.hires, prompt=str(case.params["hr_prompt"])))  # its tags are lost too
    if flavour != "forge":
        plan = replace(plan, whole_timesteps=False)
    unknown: list[str] = []
    differs += list(_differences(case, plan, unknown))
    return Planned(plan, parameters, differs, unknown)


def _size(case: Case) -> tuple[int, int]:
    return 128, 128


def _gradients(size: tuple[int, int]) -> Image.Image:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    data = np.stack([2 * x % 256, 2 * y % 256, x * y // 16 % 256], axis=-1).astype(np.uint8)
    data[32:64, 32:64] = (200, 40, 90)
    data[64:96, 64:96] = (20, 220, 60)
    return Image.fromarray(data)


def _rectangle(size: tuple[int, int]) -> Image.Image:
    data = np.zeros((size[1], size[0]), np.uint8)
    data[32:96, 32:96] = 255
    return Image.fromarray(data)


def _not_in_infotext(case: Case) -> dict[str, Any]:
    """Plan fields from settings the WebUI does not write down."""
    p, o = case.params, case.opts
    out: dict[str, Any] = {"batch": int(p.get("batch_size", 1)), "iterations": int(p.get("n_iter", 1))}
    out["stray_seed"] = 0  # found by trying: the set was made after `torch.manual_seed(0)`
    if o.get("use_old_karras_scheduler_sigmas"):
        out |= {"sigma_min": o.get("sigma_min") or 0.1, "sigma_max": o.get("sigma_max") or 10.0}
    if "comma_padding_backtrack" in o:
        out["comma_backtrack"] = int(o["comma_padding_backtrack"])
    if "sdxl_crop_top" in o or "sdxl_crop_left" in o:
        out["crop"] = (int(o.get("sdxl_crop_top", 0)), int(o.get("sdxl_crop_left", 0)))
    if o.get("img2img_fix_steps"):
        out["exact_steps"] = True
    if o.get("eta_noise_seed_delta") and not _prints_ensd(p):
        out["ensd"] = int(o["eta_noise_seed_delta"])  # in force, but written for some samplers only
    if p.get("resize_mode"):
        out["resize_mode"] = ("stretch", "crop", "fill", "latent")[int(p["resize_mode"])]
    return out


NEUTRAL = {
    # settings that change nothing here, or that the plan cannot disagree with
    "prompt", "negative_prompt", "batch_size", "n_iter", "hr_additional_modules", "do_not_save_samples",
    "do_not_save_grid", "seed_enable_extras", "inpaint_full_res", "resize_mode", "comma_padding_backtrack",
    "sdxl_crop_top", "sdxl_crop_left", "img2img_fix_steps", "use_old_karras_scheduler_sigmas", "pad_cond_uncond",
    "pad_cond_uncond_v0", "tiling", "sd_vae", "mask_round", "lora_add_hashes_to_infotext", "save_images_add_number",
    "sd_unet", "cross_attention_optimization", "override_settings",
}  # fmt: skip
FILLS = ("fill", "original", "latent noise", "latent nothing")


def _differences(case: Case, plan: Any, unknown: list[str]) -> Iterator[str]:
    """Where `case.json` says something else than the plan that was made from the infotext."""
    from hubctl.parameters import sampler_name, schedule_name

    p, o, hires = case.params, case.opts, plan.hires
    number = float
    expected: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "seed": lambda v: (plan.seed, int(v)),
        "steps": lambda v: (plan.steps, int(v)),
        "cfg_scale": lambda v: (plan.cfg_scale, number(v)),
        "width": lambda v: (plan.width, int(v)),
        "height": lambda v: (plan.height, int(v)),
        "sampler_name": lambda v: (plan.sampler, sampler_name(v)[0]),
        "scheduler": lambda v: (plan.schedule, schedule_name(v)),
        "subseed": lambda v: (plan.subseed, int(v) if p.get("subseed_strength") else None),
        "subseed_strength": lambda v: (plan.subseed_strength, number(v)),
        "seed_resize_from_w": lambda v: ((plan.seed_resize or (0, 0))[0], int(v)),
        "seed_resize_from_h": lambda v: ((plan.seed_resize or (0, 0))[1], int(v)),
        "eta": lambda v: (plan.eta_ddim if _is_ddim(plan) else plan.eta, number(v)),
        "ddim_eta": lambda v: (plan.eta_ddim, number(v)),
        "eta_ddim": lambda v: (plan.eta_ddim, number(v)),
        "eta_ancestral": lambda v: (plan.eta, number(v)),
        "denoising_strength": lambda v: (hires.denoise if hires else plan.denoise, number(v)),
        "enable_hr": lambda v: (bool(hires), bool(v)),
        "hr_scale": lambda v: (hires and _hires_size(hires, p), _hires_size(None, p) or _scaled(plan, v)),
        "hr_prompt": lambda v: (hires and _bare(hires.prompt or plan.prompt), _bare(v or plan.prompt)),
        "hr_negative_prompt": lambda v: (
            hires and (hires.negative_prompt or plan.negative_prompt),
            v or plan.negative_prompt,
        ),
        "hr_resize_x": lambda v: (bool(hires), bool(v) or bool(p.get("hr_resize_y"))),
        "hr_resize_y": lambda v: (bool(hires), bool(v) or bool(p.get("hr_resize_x"))),
        "hr_upscaler": lambda v: (hires and hires.upscaler, v),
        "hr_second_pass_steps": lambda v: (hires and hires.steps, int(v) or plan.steps),
        "hr_cfg": lambda v: (hires.cfg_scale if hires and plan.flavour == "forge" else number(v), number(v)),
        "hr_sampler_name": lambda v: (hires and (hires.sampler or plan.sampler), sampler_name(v)[0] or plan.sampler),
        "hr_scheduler": lambda v: (hires and (hires.schedule or plan.schedule), schedule_name(v)),
        "refiner_checkpoint": lambda v: (Path(plan.refiner or "").name, v),
        "refiner_switch_at": lambda v: (plan.refiner_at, number(v)),
        "mask_blur": lambda v: (plan.mask_blur, number(v)),
        "inpaint_full_res_padding": lambda v: (plan.inpaint_padding, int(v)),
        "inpainting_fill": lambda v: (plan.masked_content, FILLS[int(v)]),
        "inpainting_mask_invert": lambda v: (plan.mask_inverted, bool(v)),
        "initial_noise_multiplier": lambda v: (plan.noise_multiplier, number(v)),
        "randn_source": lambda v: (plan.rng, v.lower()),
        "CLIP_stop_at_last_layers": lambda v: (plan.clip_skip, int(v)),
        "emphasis": lambda v: (plan.emphasis if _has_brackets(p) else v, v),
        "eta_noise_seed_delta": lambda v: (plan.ensd if _prints_ensd(p) else int(v), int(v)),
        "always_discard_next_to_last_sigma": lambda v: (plan.discard_penultimate or _discards(plan), bool(v)),
        "skip_early_cond": lambda v: (plan.skip_early, number(v)),
        "s_min_uncond": lambda v: (plan.ngms, number(v)),
        "s_min_uncond_all": lambda v: (plan.ngms_all, bool(v)),
        "sigma_min": lambda v: (plan.sigma_min or 0, number(v)),
        "sigma_max": lambda v: (plan.sigma_max or 0, number(v)),
        "rho": lambda v: (plan.rho or 0, number(v)),
        "sgm_noise_multiplier": lambda v: (plan.sgm_noise, bool(v)),
        "img2img_extra_noise": lambda v: (plan.extra_noise, number(v)),
        "sd_noise_schedule": lambda v: (plan.zero_terminal_snr, v == "Zero Terminal SNR"),
        "use_old_scheduling": lambda v: (plan.old_timelines, bool(v)),
        "beta_dist_alpha": lambda v: (plan.beta_alpha, number(v)),
        "beta_dist_beta": lambda v: (plan.beta_beta, number(v)),
        "use_downcasted_alpha_bar": lambda v: (plan.downcast_alphas or plan.flavour == "forge", bool(v)),
        "uni_pc_variant": lambda v: (plan.unipc.get("variant", "bh1"), v),
        "uni_pc_skip_type": lambda v: (plan.unipc.get("skip_type", "time_uniform"), v),
        "uni_pc_order": lambda v: (plan.unipc.get("order", 3), int(v)),
        "uni_pc_lower_order_final": lambda v: (plan.unipc.get("lower_order_final", True), bool(v)),
        **{
            key: (lambda v, key=key: (plan.options.get(key, 1.0 if key == "s_noise" else 0.0), number(v)))
            for key in ("s_churn", "s_tmin", "s_tmax", "s_noise")
        },
    }
    for key, value in {**p, **o}.items():
        if key in NEUTRAL or value is None:
            continue
        if key not in expected:
            unknown += [key] if value else []
            continue
        got, wanted = expected[key](value)
        if got != wanted:
            yield f"{key}: the plan has {got!r}, the case {wanted!r}"
    if case.data.get("vae") and Path(plan.vae or "").name != Path(str(case.data["vae"])).name:
        yield f"vae: the plan has {plan.vae!r}, the case {case.data['vae']!r}"
    if Path(plan.checkpoint).name != case.data.get("model"):
        yield f"model: the plan has {plan.checkpoint!r}, the case {case.data.get('model')!r}"


def _scaled(plan: Any, scale: float) -> tuple[int, int]:
    return int(plan.width * scale), int(plan.height * scale)


def _hires_size(hires: Any, p: Mapping[str, Any]) -> Any:
    """The second pass's size; nothing to say where a size is given instead of a scale."""
    if p.get("hr_resize_x") or p.get("hr_resize_y"):
        return "given"
    return (hires.width, hires.height) if hires else None


def _bare(text: str) -> str:
    from hubctl.run.prompt import extract_networks

    return extract_networks(text)[0].strip()


def _is_ddim(plan: Any) -> bool:
    return plan.sampler in {"ddim", "ddim_cfgpp", "plms", "uni_pc"}


DDIM_FAMILY = {"DDIM", "DDIM CFG++", "PLMS", "UniPC"}


def _discards(plan: Any) -> bool:
    return plan.sampler in {"dpm_2", "dpm_2_ancestral", "dpmpp_3m_sde"}


def _has_brackets(p: Mapping[str, Any]) -> bool:
    return any(char in f"{p.get('prompt')}{p.get('negative_prompt')}" for char in "([")


def _prints_ensd(p: Mapping[str, Any]) -> bool:
    return str(p.get("sampler_name")).endswith(" a") or p.get("sampler_name") in {"DPM2", "DPM fast", "DPM adaptive"}


# --- running and measuring --------------------------------------------------------------------------------------------


@dataclass
class Report:
    """How near one case came in one flavour. Errors are the largest absolute ones; None where nothing was recorded."""

    case: str
    flavour: str
    rules: str  # the plan's flavour: `forge*` = Forge's rules with fractional timesteps
    latents: float | None = None
    first_pass: float | None = None
    conditioning: float | None = None
    noise: float | None = None
    calls: int = 0
    calls_expected: int | None = None
    timesteps: float | None = None
    pixels: int | None = None
    psnr: float | None = None
    limit: float = 1e-3
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # settings read in two ways where the numbers agree all the same
    unknown: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "DIFFERS" if self.problems else "equal"

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "verdict": self.verdict}


def check(case: Case, flavour: str, files: Files, scratch: Path, cache: Any = None) -> Report:
    """Run a case in one flavour and compare everything that was recorded."""
    import time

    from hubctl.run import runner

    planned = plan_of(case, flavour, files, scratch)
    rules = planned.plan.flavour + ("*" if planned.plan.flavour == "forge" and flavour != "forge" else "")
    report = Report(case.name, flavour, rules, unknown=planned.unknown)
    before = time.perf_counter()
    result = runner.run(planned.plan, device="cpu", dtype="fp32", cache=cache)
    report.seconds = time.perf_counter() - before
    _compare_latents(case, flavour, result, report)
    _compare_passes(case, flavour, result, report)
    _compare_pictures(case, flavour, result, report)
    measured = report.latents is not None or report.pixels is not None
    if report.problems or not measured:  # numbers decide; what was read from the settings explains them
        report.problems += planned.differs
    else:
        report.notes += planned.differs
    return report


def _compare_latents(case: Case, flavour: str, result: Any, report: Report) -> None:
    limit, _ = case.tolerance(flavour)
    report.limit = limit
    report.latents = _error(result.latents, case.arrays.get(f"latents_{flavour}"), report, "latents")
    if report.latents is not None and not report.latents <= limit:
        report.problems.append(f"latents differ by {report.latents:.2g}, allowed {limit:.2g}")
    wanted = case.arrays.get(f"latents_firstpass_{flavour}")
    if wanted is not None and result.first_pass is not None:
        report.first_pass = _error(result.first_pass, wanted, report, "first-pass latents")
        if report.first_pass is not None and not report.first_pass <= 1e-3:
            report.problems.append(f"the first pass differs by {report.first_pass:.2g}")


def _error(got: Any, wanted: Array | None, report: Report, what: str) -> float | None:
    if wanted is None:
        return None
    ours = got.detach().float().cpu().numpy() if hasattr(got, "detach") else np.asarray(got, np.float32)
    if ours.shape != wanted.shape and ours.size == wanted.size:
        ours = ours.reshape(wanted.shape)
    if ours.shape != wanted.shape and ours.ndim == 4 and wanted.ndim == 4 and ours.shape[1:] == wanted.shape[1:]:
        ours = ours[-len(wanted) :]  # a second iteration may have replaced the first
    if ours.shape != wanted.shape:
        report.problems.append(f"{what}: shape {ours.shape}, expected {wanted.shape}")
        return None
    return float(np.abs(ours - wanted).max())


def _compare_passes(case: Case, flavour: str, result: Any, report: Report) -> None:
    noises = [case.arrays[f"noise_first{i}"] for i in range(8) if f"noise_first{i}" in case.arrays]
    errors = [_error(one.noise, wanted, report, "noise") for one, wanted in zip(result.passes, noises, strict=False)]
    report.noise = max((e for e in errors if e is not None), default=None)
    if report.noise is not None and report.noise > 1e-6:
        report.problems.append(f"the first noise differs by {report.noise:.2g}")
    calls = [call for one in result.passes for call in one.calls]
    report.calls = len(calls)
    recorded = case.trace.get(flavour)
    report.calls_expected = int((case.data.get("model_calls") or {}).get(flavour, len(recorded or calls)))
    if recorded:
        report.calls_expected = len(recorded)
        report.timesteps = max(
            (abs(ours.t - theirs["t"]) for ours, theirs in zip(calls, recorded, strict=False)), default=0.0
        )
        if report.timesteps > 0.02 and not case.adaptive:
            report.problems.append(f"timesteps differ by {report.timesteps:.3g}")
    if report.calls != report.calls_expected and not (flavour != "forge" and case.adaptive):
        report.problems.append(f"{report.calls} calls of the UNet, expected {report.calls_expected}")
    conds = case.conds
    if conds is not None:
        errors = list(_conditioning_errors(conds, result, report, int(case.params.get("batch_size", 1))))
        report.conditioning = max((e for e in errors if e is not None), default=None)
        # float32 itself: another processor's matrix products move values of 14 (CLIP-G) by 1.4e-5
        allowed = max(1e-5, 2e-6 * max((float(np.abs(one).max()) for one in conds.values()), default=0.0))
        if report.conditioning is not None and report.conditioning > allowed:
            report.problems.append(f"conditioning differs by {report.conditioning:.2g}")


def _conditioning_errors(conds: Mapping[str, Array], result: Any, report: Report, batch: int) -> Iterator[float | None]:
    for key, wanted in conds.items():
        found = re.fullmatch(r"(hr_)?(u?c)_(\d+)(?:_(\d+))?_(\d+)(?:\.(crossattn|vector))?", key)
        if not found:
            report.problems.append(f"conditioning `{key}` is not understood")
            continue
        hires, kind, _, part, entry, which = found.groups()
        one = result.passes[-1 if hires else 0].conds
        timeline = one.negative if kind == "uc" else one.parts[int(part or 0)]
        if int(entry) >= len(timeline.entries):
            report.problems.append(f"conditioning `{key}`: the timeline has {len(timeline.entries)} entries")
            continue
        ours = timeline.entries[int(entry)][1]
        yield _error(_recorded_vector(one, ours, kind) if which == "vector" else ours.tokens, wanted, report, key)


def _recorded_vector(conds: Any, ours: Any, kind: str) -> Any:
    """SDXL's vector as the WebUI has it: pooled text, then sines and cosines of the sizes."""
    import torch
    from diffusers.models.embeddings import get_timestep_embedding

    ids = conds.negative_time_ids if kind == "uc" else conds.time_ids
    sizes = get_timestep_embedding(ids.flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0).flatten()
    return torch.cat([ours.vector, sizes])


def _compare_pictures(case: Case, flavour: str, result: Any, report: Report) -> None:
    _, limit = case.tolerance(flavour)
    differences, squares = [], []
    for index, image in enumerate(result.images):
        wanted = case.picture(index, flavour)
        if wanted is None:
            continue
        ours = np.asarray(image.convert("RGB"), dtype=np.int16)
        if ours.shape != wanted.shape:
            report.problems.append(f"picture {index} is {ours.shape[1]}x{ours.shape[0]}")
            continue
        differences.append(int(np.abs(ours - wanted).max()))
        squares.append(float(np.mean((ours - wanted).astype(np.float64) ** 2)))
    if differences:
        report.pixels = max(differences)
        report.psnr = min(99.0, 10 * math.log10(255**2 / max(squares))) if max(squares) else 99.0
        if limit is not None and report.pixels > limit:
            report.problems.append(f"pixels differ by {report.pixels}, allowed {limit}")

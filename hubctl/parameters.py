"""What an author did: generation parameters in the field's canonical terms.

Sampler = how to step, schedule = which sigmas: two names everywhere. Joined labels of older programs
("DPM++ 2M Karras") are split by the one alias table at the end of this module.

Everything here is plain data: no I/O, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

ResourceKind = str
"""checkpoint · lora · lycoris · embedding · vae · hypernetwork · upscaler · controlnet · unet · refiner · other"""

Rng = Literal["gpu", "cpu", "nv"]


@dataclass(frozen=True)
class ResourceRef:
    """One file an image used, as far as the image says."""

    kind: ResourceKind
    name: str | None = None  # file stem as written
    weight: float | None = None  # UNet (or only) weight
    weight_te: float | None = None  # text-encoder weight, when it was given apart
    hash: str | None = None  # lower-case hex, without 0x; kind unknown: AutoV1, V2, V3 or SHA256
    version_id: int | None = None  # the hub's model version id
    air: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Hires:
    """Second pass at a larger size. None = not said (same as the first pass)."""

    upscale: float | None = None
    width: int | None = None  # "Hires resize": 0 = follow the other side
    height: int | None = None
    steps: int | None = None
    upscaler: str | None = None
    denoise: float | None = None
    sampler: str | None = None  # canonical
    schedule: str | None = None  # canonical
    prompt: str | None = None
    negative_prompt: str | None = None
    cfg_scale: float | None = None
    checkpoint: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Refiner:
    """A second checkpoint that takes over part of the way. `switch_at` is a fraction of the steps."""

    checkpoint: str | None = None
    hash: str | None = None
    switch_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Generator:
    """The program that wrote the picture, as it names itself ("A1111", "Forge", "ComfyUI", …)."""

    name: str | None = None
    version: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version}


@dataclass(frozen=True)
class GenerationParameters:
    """How a picture was made. None = the source does not say; nothing is guessed here.

    `raw` keeps every setting under the key the source used, understood or not; `sources` says for a field where its
    value was read ("infotext", "comfy:KSampler#3", "api:meta", …); `warnings` are sentences for a person.
    """

    prompt: str = ""
    negative_prompt: str = ""
    steps: int | None = None
    sampler: str | None = None  # canonical: "dpmpp_2m"
    sampler_label: str | None = None  # as written: "DPM++ 2M Karras"
    schedule: str | None = None  # canonical: "karras"; None = the sampler's default in that program
    schedule_label: str | None = None  # as written
    cfg_scale: float | None = None
    distilled_cfg: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    denoise: float | None = None
    hires: Hires | None = None
    refiner: Refiner | None = None
    subseed: int | None = None
    subseed_strength: float | None = None
    ensd: int | None = None
    eta: float | None = None
    rng: Rng | None = None
    resources: tuple[ResourceRef, ...] = ()
    generator: Generator = Generator()
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()

    def of_kind(self, *kinds: str) -> tuple[ResourceRef, ...]:
        return tuple(resource for resource in self.resources if resource.kind in kinds)

    def to_json(self) -> dict[str, Any]:
        """The stable shape of `hubctl inspect PICTURE --json`: null for what is not said."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Mapping):
                value = dict(value)
            elif f.name == "resources":
                value = [resource.to_json() for resource in value]
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Hires | Refiner | Generator):
                value = value.to_json()
            out[f.name] = value
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GenerationParameters:
        """The inverse of `to_json`; unknown keys are ignored."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        known["resources"] = tuple(ResourceRef(**r) for r in known.get("resources") or ())
        known["warnings"] = tuple(known.get("warnings") or ())
        for name, kind in (("hires", Hires), ("refiner", Refiner)):
            if known.get(name) is not None:
                known[name] = kind(**known[name])
        known["generator"] = Generator(**(known.get("generator") or {}))
        return cls(**known)


# --- names ------------------------------------------------------------------------------------------------------------

SAMPLERS: dict[str, str] = {
    # canonical name (k-diffusion's and ComfyUI's) → label of current WebUIs
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "heunpp2": "HeunPP2",
    "lms": "LMS",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "restart": "Restart",
    "ddim": "DDIM",
    "ddim_cfgpp": "DDIM CFG++",
    "plms": "PLMS",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC BH2",
    "lcm": "LCM",
    "tcd": "TCD",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "ipndm": "IPNDM",
    "ipndm_v": "IPNDM_V",
    "euler_cfg_pp": "Euler CFG++",
    "euler_ancestral_cfg_pp": "Euler a CFG++",
    "dpmpp_2s_ancestral_cfg_pp": "DPM++ 2S a CFG++",
    "dpmpp_2m_cfg_pp": "DPM++ 2M CFG++",
    "res_multistep": "Res Multistep",
    "res_multistep_cfg_pp": "Res Multistep CFG++",
    "res_multistep_ancestral": "Res Multistep Ancestral",
    "res_multistep_ancestral_cfg_pp": "Res Multistep Ancestral CFG++",
    "gradient_estimation": "Gradient Estimation",
    "gradient_estimation_cfg_pp": "Gradient Estimation CFG++",
    "er_sde": "ER SDE",
    "seeds_2": "SEEDS 2",
    "seeds_3": "SEEDS 3",
    "sa_solver": "SA Solver",
    "sa_solver_pece": "SA Solver PECE",
    "exp_heun_2_x0": "Exp Heun 2 x0",
    "exp_heun_2_x0_sde": "Exp Heun 2 x0 SDE",
}

SCHEDULES: dict[str, str] = {
    "uniform": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "normal": "Normal",
    "simple": "Simple",
    "ddim": "DDIM",
    "ddim_uniform": "DDIM Uniform",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
    "align_your_steps_gits": "Align Your Steps GITS",
    "align_your_steps_11": "Align Your Steps 11",
    "align_your_steps_32": "Align Your Steps 32",
    "turbo": "Turbo",
    "linear_quadratic": "Linear Quadratic",
}

_SAMPLER_ALIASES: dict[str, str] = {
    # other programs' spellings, squeezed by `_squeeze`; labels and canonical names are added below
    "k_euler": "euler",
    "k_euler_a": "euler_ancestral",
    "euler_a": "euler_ancestral",
    "k_euler_ancestral": "euler_ancestral",
    "eulerancestral": "euler_ancestral",
    "k_heun": "heun",
    "k_lms": "lms",
    "k_plms": "plms",
    "pndm": "plms",
    "dpm2": "dpm_2",
    "dpm_2_a": "dpm_2_ancestral",
    "dpm2_a": "dpm_2_ancestral",
    "dpm2_ancestral": "dpm_2_ancestral",
    "k_dpm_2": "dpm_2",
    "k_dpm_2_a": "dpm_2_ancestral",
    "k_dpm_2_ancestral": "dpm_2_ancestral",
    "kdpm_2": "dpm_2",
    "kdpm_2_a": "dpm_2_ancestral",
    "k_dpm_fast": "dpm_fast",
    "k_dpm_ad": "dpm_adaptive",
    "k_dpm_adaptive": "dpm_adaptive",
    "dpmpp_2s_a": "dpmpp_2s_ancestral",
    "k_dpmpp_2s_a": "dpmpp_2s_ancestral",
    "k_dpmpp_2s_ancestral": "dpmpp_2s_ancestral",
    "dpmpp_2s": "dpmpp_2s_ancestral",
    "k_dpmpp_2m": "dpmpp_2m",
    "dpm_2m": "dpmpp_2m",
    "k_dpmpp_sde": "dpmpp_sde",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "k_dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun_gpu": "dpmpp_2m_sde_heun",
    "k_dpmpp_3m_sde": "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "unipc": "uni_pc",
    "unipc_bh2": "uni_pc_bh2",
    "uni_pc_bh1": "uni_pc",
    "heun_pp2": "heunpp2",
    "ddim_cfg_pp": "ddim_cfgpp",
    "euler_cfgpp": "euler_cfg_pp",
    "ddim_v3": "ddim",  # NovelAI
    "dpmpp2m": "dpmpp_2m",  # stable-diffusion.cpp
    "dpmpp2s_a": "dpmpp_2s_ancestral",
    "dpm_solverpp": "dpmpp_2m",  # Mochi Diffusion
    "unipc_snr": "uni_pc",  # Easy Diffusion, by how timesteps are spaced
    "unipc_snr_2": "uni_pc",
    "unipc_tq": "uni_pc",
    "unipc_tu": "uni_pc",
    "unipc_tu_2": "uni_pc",
    # SD.Next: diffusers' solvers, some of them for flow models
    "lmsd": "lms",
    "kdpm2": "dpm_2",
    "kdpm2_a": "dpm_2_ancestral",
    "dpm_sde": "dpmpp_sde",
    "euler_edm": "euler",
    "dpmpp_2m_edm": "dpmpp_2m",
    "euler_flowmatch": "euler",
    "heun_flowmatch": "heun",
    "dpm2_flowmatch": "dpm_2",
    "dpm2a_flowmatch": "dpm_2_ancestral",
    "dpm2pp_2m_flowmatch": "dpmpp_2m",
    "dpm2pp_2s_flowmatch": "dpmpp_2s_ancestral",
    "dpm2pp_sde_flowmatch": "dpmpp_sde",
    "dpm2pp_2m_sde_flowmatch": "dpmpp_2m_sde",
    "dpm2pp_3m_sde_flowmatch": "dpmpp_3m_sde",
    "unipc_flowmatch": "uni_pc",
    # diffusers' scheduler classes
    "eulerdiscretescheduler": "euler",
    "eulerancestraldiscretescheduler": "euler_ancestral",
    "heundiscretescheduler": "heun",
    "lmsdiscretescheduler": "lms",
    "kdpm2discretescheduler": "dpm_2",
    "kdpm2ancestraldiscretescheduler": "dpm_2_ancestral",
    "dpmsolvermultistepscheduler": "dpmpp_2m",
    "dpmsolversinglestepscheduler": "dpmpp_2s_ancestral",
    "dpmsolversdescheduler": "dpmpp_sde",
    "ddimscheduler": "ddim",
    "ddpmscheduler": "ddpm",
    "pndmscheduler": "plms",
    "unipcmultistepscheduler": "uni_pc",
    "deismultistepscheduler": "deis",
    "lcmscheduler": "lcm",
    "tcdscheduler": "tcd",
    "sasolverscheduler": "sa_solver",
    "ipndmscheduler": "ipndm",
    "edmeulerscheduler": "euler",
    "edmdpmsolvermultistepscheduler": "dpmpp_2m",
}

_SCHEDULE_ALIASES: dict[str, str | None] = {
    "automatic": None,
    "default": None,
    "none": None,
    "sgmuniform": "sgm_uniform",
    "sgm": "sgm_uniform",
    "trailing": "sgm_uniform",  # Draw Things, diffusers: the same timesteps
    "polyexp": "polyexponential",
    "ays": "align_your_steps",
    "ays_gits": "align_your_steps_gits",
    "ays_11steps": "align_your_steps_11",
    "ays_11": "align_your_steps_11",
    "ays_32": "align_your_steps_32",
    "ays_32steps": "align_your_steps_32",
    "align_your_steps_gits": "align_your_steps_gits",
    "gits": "align_your_steps_gits",
    "optimal": "kl_optimal",
    "kl": "kl_optimal",
    "discrete": "normal",
}


def _squeeze(label: str) -> str:
    """Lower case, "++" → "pp", every run of other punctuation → one underscore."""
    out: list[str] = []
    for char in label.lower().replace("++", "pp").replace("+", "p"):
        if char.isalnum():
            out.append(char)
        elif out and out[-1] != "_":
            out.append("_")
    return "".join(out).strip("_")


for _name, _label in SAMPLERS.items():
    _SAMPLER_ALIASES.setdefault(_squeeze(_label), _name)
    _SAMPLER_ALIASES.setdefault(_name, _name)
for _name, _label in SCHEDULES.items():
    _SCHEDULE_ALIASES.setdefault(_squeeze(_label), _name)
    _SCHEDULE_ALIASES.setdefault(_name, _name)

_JOINABLE = tuple(
    sorted((alias for alias, name in _SCHEDULE_ALIASES.items() if name is not None), key=len, reverse=True)
)


# InvokeAI and diffusers' tables: "dpmpp_2m_k"; ids of the WebUI before 1.9: "k_dpmpp_2m_ka", "k_dpmpp_2m_sde_exp"
_SHORT_ENDINGS = (("_k", "karras"), ("_ka", "karras"), ("_exp", "exponential"))


def schedule_name(label: str | None) -> str | None:
    """Canonical schedule of a label or id; None for automatic, unknown or missing ones."""
    return _SCHEDULE_ALIASES.get(_squeeze(label)) if label else None


def sampler_name(label: str | None) -> tuple[str | None, str | None]:
    """Split and canonise a sampler label as any program wrote it.

    Returns (sampler, schedule): `("dpmpp_2m", "karras")` for "DPM++ 2M Karras"; the schedule is None when the label
    names none, the sampler is None when it is not known ("Undefined").
    """
    if not label:
        return None, None
    squeezed = _squeeze(label)
    if squeezed in _SAMPLER_ALIASES:
        return _SAMPLER_ALIASES[squeezed], None
    for alias in _JOINABLE:
        if squeezed.endswith("_" + alias):
            sampler = _SAMPLER_ALIASES.get(squeezed[: -len(alias) - 1])
            if sampler is not None:
                return sampler, _SCHEDULE_ALIASES[alias]
    for ending, schedule in _SHORT_ENDINGS:
        sampler = _SAMPLER_ALIASES.get(squeezed.removesuffix(ending)) if squeezed.endswith(ending) else None
        if sampler is not None:
            return sampler, schedule
    once = squeezed.startswith("k_") and not squeezed.startswith("k_k_")
    return sampler_name(squeezed.removeprefix("k_")) if once else (None, None)


def sampler_label(name: str) -> str:
    """The label current WebUIs show for a canonical sampler."""
    return SAMPLERS.get(name, name)


def schedule_label(name: str | None) -> str:
    """The label current WebUIs show for a canonical schedule; "Automatic" for None."""
    return SCHEDULES.get(name, name) if name else "Automatic"

"""Parameters and files → RunPlan: what will be done, with everything that cannot be done named. No torch here.

A plan is plain JSON: `to_json`, `from_json`, `digest`. The same object feeds one run, a batch or another machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hubctl.errors import MissingResource, PlanError, UnknownSampler
from hubctl.parameters import (
    SAMPLERS,
    GenerationParameters,
    Generator,
    ResourceRef,
    sampler_label,
    sampler_name,
    schedule_label,
)


@dataclass(frozen=True)
class Located:
    """A file that answers a resource reference."""

    path: Path
    sha256: str | None = None
    name: str = ""
    kind: str = ""


Locate = Callable[[ResourceRef], Located | None]


@dataclass(frozen=True)
class HiresPlan:
    """The second pass: target size in pixels, strength 0…1; None = as in the first pass."""

    width: int
    height: int
    steps: int
    upscaler: str
    denoise: float
    cover: tuple[int, int] | None = None  # crop to this after scaling to cover it
    sampler: str | None = None
    schedule: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    cfg_scale: float | None = None


@dataclass(frozen=True)
class RunPlan:
    """Everything a run needs. Paths are strings, so that a plan is JSON; sizes in pixels."""

    checkpoint: str
    prompt: str
    negative_prompt: str
    sampler: str
    schedule: str | None
    steps: int
    cfg_scale: float
    seed: int
    width: int
    height: int
    vae: str | None = None
    loras: Mapping[str, str] = field(default_factory=dict)  # name in the prompt, casefolded → path
    embeddings: Mapping[str, str] = field(default_factory=dict)  # name → path
    clip_skip: int = 1
    rng: str = "nv"  # cpu · nv
    flavour: str = "a1111"  # a1111 · forge · comfy
    subseed: int | None = None
    subseed_strength: float = 0.0
    seed_resize: tuple[int, int] | None = None
    ensd: int = 0
    eta: float = 1.0
    eta_ddim: float = 0.0
    options: Mapping[str, float] = field(default_factory=dict)  # s_churn, s_tmin, s_tmax, s_noise
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float | None = None
    discard_penultimate: bool = False
    sgm_noise: bool = False
    emphasis: str = "Original"
    old_timelines: bool = False
    ngms: float = 0.0
    ngms_all: bool = False
    skip_early: float = 0.0
    tiling: bool = False
    zero_terminal_snr: bool = False
    downcast_alphas: bool = False
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    comma_backtrack: int = 20
    clip_skip_sdxl: bool = False
    crop: tuple[int, int] = (0, 0)  # top, left
    unipc: Mapping[str, Any] = field(default_factory=dict)
    refiner: str | None = None
    refiner_at: float | None = None
    refiner_by_steps: bool = False
    hires: HiresPlan | None = None
    batch: int = 1
    iterations: int = 1
    init_image: str | None = None
    mask: str | None = None
    mask_blur: int = 4
    denoise: float | None = None
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0
    deviations: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what it was built from, for infotext and records
    hashes: Mapping[str, str] = field(default_factory=dict)  # path → sha256, where known

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunPlan:
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        if known.get("hires") is not None:
            hires = dict(known["hires"])
            hires["cover"] = tuple(hires["cover"]) if hires.get("cover") else None
            known["hires"] = HiresPlan(**hires)
        for name in ("seed_resize", "crop", "deviations"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        return cls(**known)

    def digest(self) -> str:
        """SHA256 of the plan without what does not change the picture."""
        data = {k: v for k, v in self.to_json().items() if k not in {"parameters", "deviations"}}
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


# Settings of extensions we see but do not run: key pattern → what it would have changed
EXTENSIONS: tuple[tuple[str, str], ...] = (
    (r"ADetailer ", "ADetailer redrew faces or hands after the picture was made"),
    (r"ControlNet( \d+)?$", "ControlNet steered the composition with another picture"),
    (r"RP (Active|Divide)", "Regional Prompter gave parts of the picture their own prompts"),
    (r"(FreeU|freeu)", "FreeU rescaled features inside the UNet"),
    (r"(Dynamic thresholding|DynThres|dynthres)", "dynamic thresholding limited high CFG values"),
    (r"(Hypernet|Hypernetwork)", "a hypernetwork changed the attention layers"),
    (r"Token merging ratio", "token merging (ToMe) dropped detail for speed"),
    (r"Face restoration", "face restoration redrew faces after the picture was made"),
    (r"(SAG|PAG|pag_|sag_|Self Attention Guidance|Perturbed)", "attention guidance changed every step"),
    (r"(Latent Couple|MultiDiffusion|Tiled Diffusion)", "tiled or regional diffusion changed the composition"),
    (r"FP8 weight", "the checkpoint ran with 8-bit weights"),
    (r"(AnimateDiff|Roop|ReActor|FaceSwapLab|IP-Adapter)", "an extension edited the picture"),
    (r"(Ultimate SD upscale|SD upscale|Postprocess|Extras)", "the picture was enlarged afterwards"),
)


def build(
    parameters: GenerationParameters,
    *,
    locate: Locate,
    overrides: Mapping[str, str] | None = None,
    flavour: str | None = None,
    rng: str | None = None,
) -> RunPlan:
    """Decide a run.

    Raises MissingResource without a checkpoint, UnknownSampler for a sampler we neither have nor can name, PlanError
    for sizes or steps that cannot be meant.
    """
    raw = {**{str(k): v for k, v in parameters.raw.items()}, **(overrides or {})}
    chosen = flavour or _flavour(parameters.generator)
    deviations = list(_extension_deviations(raw))
    sampler, schedule = _sampler(parameters, chosen, deviations)
    files = _Files(parameters, locate)
    width, height = _size(parameters)
    first, hires = _hires(parameters, raw, width, height, deviations)
    seed = parameters.seed if parameters.seed is not None else _no_seed(deviations)
    refiner = files.path("refiner") if parameters.refiner else None
    if parameters.refiner and refiner is None:
        deviations.append("the refiner checkpoint is missing: the base model runs to the end")
    deviations += files.problems
    chosen_rng = _rng(parameters, rng, chosen, deviations)
    version = _version(parameters.generator)
    plan = RunPlan(
        checkpoint=files.checkpoint(),
        vae=files.path("vae"),
        loras=files.loras,
        embeddings=files.embeddings,
        hashes=files.hashes,
        prompt=_prompt(parameters),
        negative_prompt=parameters.negative_prompt,
        sampler=sampler,
        schedule=schedule,
        steps=_steps(parameters),
        cfg_scale=parameters.cfg_scale if parameters.cfg_scale is not None else 7.0,
        seed=seed,
        width=first[0],
        height=first[1],
        clip_skip=max(parameters.clip_skip or 1, 1),
        rng=chosen_rng,
        flavour=chosen,
        subseed=parameters.subseed,
        subseed_strength=parameters.subseed_strength or 0.0,
        seed_resize=_pair(raw, "Seed resize from"),
        ensd=parameters.ensd or 0,
        eta=parameters.eta if parameters.eta is not None else _number(raw, "Eta", 1.0),
        eta_ddim=_number(raw, "Eta DDIM", 0.0),
        options=_options(raw),
        sigma_min=_number(raw, "Schedule min sigma", 0.0) or None,
        sigma_max=_number(raw, "Schedule max sigma", 0.0) or None,
        rho=_number(raw, "Schedule rho", 0.0) or None,
        discard_penultimate=_flag(raw, "Discard penultimate sigma"),
        sgm_noise=_flag(raw, "SGM noise multiplier") or chosen == "comfy",
        emphasis=str(raw.get("Emphasis", "Original")),
        old_timelines=_flag(raw, "Old prompt editing timelines")
        or (version is not None and version < (1, 6) and "[" in parameters.prompt),
        ngms=_number(raw, "NGMS", 0.0),
        ngms_all=_flag(raw, "NGMS all steps"),
        skip_early=_number(raw, "Skip Early CFG", 0.0),
        tiling=_flag(raw, "Tiling") and chosen == "a1111",
        zero_terminal_snr=raw.get("Noise Schedule") == "Zero Terminal SNR",
        downcast_alphas=chosen == "a1111"
        and (_flag(raw, "Downcast alphas_cumprod") or (version is not None and version < (1, 7, 0, 225))),
        beta_alpha=_number(raw, "Beta schedule alpha", 0.6),
        beta_beta=_number(raw, "Beta schedule beta", 0.6),
        unipc=_unipc(raw),
        refiner=refiner,
        refiner_at=parameters.refiner.switch_at if parameters.refiner else None,
        refiner_by_steps=chosen == "forge" or (version is not None and version < (1, 8)),
        hires=hires,
        init_image=None,
        denoise=parameters.denoise,
        noise_multiplier=_number(raw, "Noise multiplier", 1.0),
        extra_noise=_number(raw, "Extra noise", 0.0),
        parameters=replace(parameters, raw=raw).to_json(),
        deviations=(),
    )
    if parameters.denoise is not None and hires is None and plan.init_image is None and 0 < parameters.denoise < 1:
        deviations.append("the picture was made from another picture (img2img), which its settings do not carry")
    return replace(plan, deviations=tuple(dict.fromkeys(deviations)))


def _flavour(generator: Generator) -> str:
    name, version = (generator.name or "").lower(), generator.version or ""
    if name == "comfyui":
        return "comfy"
    if "forge" in name or re.match(r"f\d", version):
        return "forge"
    return "a1111"


def _version(generator: Generator) -> tuple[int, ...] | None:
    """`v1.7.0-225-gabc` → (1, 7, 0, 225); anything else (all Forge ones) → None."""
    if (generator.name or "A1111") != "A1111":
        return None
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)(?:-(\d+))?", generator.version or "")
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _extension_deviations(raw: Mapping[str, Any]) -> Iterator[str]:
    for pattern, sentence in EXTENSIONS:
        if any(re.match(pattern, key) for key in raw):
            yield f"not replayed: {sentence}"


def _sampler(parameters: GenerationParameters, flavour: str, deviations: list[str]) -> tuple[str, str | None]:
    from hubctl.run.names import AVAILABLE_SCHEDULES, UNSUPPORTED

    sampler, schedule = parameters.sampler, parameters.schedule
    if sampler is None and parameters.sampler_label:
        sampler, joined = sampler_name(parameters.sampler_label)
        schedule = schedule or joined
    if sampler is None and not parameters.sampler_label:
        deviations.append("the sampler is not said: Euler a was assumed")
        sampler = "euler_ancestral"
    if sampler is None or sampler not in SAMPLERS:
        raise UnknownSampler(
            f"`{parameters.sampler_label or sampler}` is no sampler hubctl knows",
            hint=_near(parameters.sampler_label or sampler),
        )
    if sampler in UNSUPPORTED:
        deviations.append(f"{sampler_label(sampler)} is not available: {sampler_label(UNSUPPORTED[sampler])} was used")
        sampler = UNSUPPORTED[sampler]
    if schedule is not None and schedule not in AVAILABLE_SCHEDULES:
        deviations.append(f"schedule {schedule_label(schedule)} is not available: the sampler's default was used")
        schedule = None
    if schedule is None and flavour == "comfy":
        schedule = "normal"
    return sampler, schedule


def _near(label: str | None) -> str:
    from rapidfuzz import process

    found = process.extract(label or "", list(SAMPLERS.values()), limit=3, score_cutoff=50)
    names = ", ".join(f"`{match[0]}`" for match in found)
    return f"pass one with --set sampler=…; near: {names}" if names else "pass one with --set sampler=NAME"


def _steps(parameters: GenerationParameters) -> int:
    steps = parameters.steps if parameters.steps is not None else 20
    if not 1 <= steps <= 1000:
        raise PlanError(f"{steps} steps cannot be run", hint="pass --steps with a number from 1 to 1000")
    return steps


def _size(parameters: GenerationParameters) -> tuple[int, int]:
    width, height = parameters.width or 512, parameters.height or 512
    if not (8 <= width <= 8192 and 8 <= height <= 8192):
        raise PlanError(f"a picture of {width}×{height} cannot be made", hint="pass --size WxH")
    return width, height


def _no_seed(deviations: list[str]) -> int:
    deviations.append("the seed is not said: 0 was used, so this is another picture with the same settings")
    return 0


def _rng(parameters: GenerationParameters, asked: str | None, flavour: str, deviations: list[str]) -> str:
    if asked in {"cpu", "nv"}:
        return str(asked)
    if parameters.rng in {"cpu", "nv"}:
        return str(parameters.rng)
    if flavour == "comfy" or parameters.generator.name == "hubctl":
        return "cpu"
    deviations.append("the noise came from a GPU: NV noise stands in for it, which equals most NVIDIA cards'")
    return "nv"


def _prompt(parameters: GenerationParameters) -> str:
    """The prompt; LoRAs known only as resources (hub and Comfy metadata) get their tag."""
    prompt = parameters.prompt
    tagged = {found.casefold() for found in re.findall(r"<(?:lora|lyco):([^:>]+)", prompt)}
    for resource in parameters.of_kind("lora", "lycoris"):
        if resource.name and resource.name.casefold() not in tagged and not tagged:
            weight = resource.weight if resource.weight is not None else 1.0
            te = f"{resource.weight_te:g}:" if resource.weight_te is not None else ""
            prompt = f"{prompt}<lora:{resource.name.replace(':', '_')}:{te}{weight:g}>"
    return prompt


class _Files:
    """The files of a plan, looked up once."""

    def __init__(self, parameters: GenerationParameters, locate: Locate) -> None:
        self.problems: list[str] = []
        self.loras: dict[str, str] = {}
        self.embeddings: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self._by_kind: dict[str, str] = {}
        self._missing_checkpoint = "the settings name no checkpoint"
        for ref in parameters.resources:
            found = locate(ref)
            if found is None:
                self._lost(ref)
                continue
            path = str(found.path)
            if found.sha256:
                self.hashes[path] = found.sha256
            if ref.kind in {"lora", "lycoris"}:
                self.loras[(ref.name or found.name).casefold()] = path
            elif ref.kind == "embedding":
                self.embeddings[ref.name or found.name] = path
            else:
                self._by_kind.setdefault(ref.kind, path)

    def _lost(self, ref: ResourceRef) -> None:
        name = ref.name or ref.hash or (f"version {ref.version_id}" if ref.version_id else "unnamed")
        if ref.kind == "checkpoint":
            self._missing_checkpoint = f"checkpoint `{name}` is not here"
        elif ref.kind in {"lora", "lycoris", "embedding", "vae", "hypernetwork"}:
            self.problems.append(f"{ref.kind} `{name}` is missing: the picture is made without it")

    def checkpoint(self) -> str:
        if "checkpoint" not in self._by_kind:
            raise MissingResource(
                self._missing_checkpoint, hint="`hubctl install` it, or choose another with --model REF"
            )
        return self._by_kind["checkpoint"]

    def path(self, kind: str) -> str | None:
        return self._by_kind.get(kind)


def _hires(
    parameters: GenerationParameters, raw: Mapping[str, Any], width: int, height: int, deviations: list[str]
) -> tuple[tuple[int, int], HiresPlan | None]:
    """(first-pass size, second pass). Old infotexts give the final size and `First pass size`."""
    from hubctl.run.names import UPSCALERS

    first = _pair(raw, "First pass size", zero=True)
    hires = parameters.hires
    if first is not None:
        target = (width, height)
        if first == (0, 0):
            scale = (512 * 512 / (width * height)) ** 0.5
            first = (_up64(width * scale), _up64(height * scale))
        chosen = HiresPlan(*target, parameters.steps or 20, "Latent", parameters.denoise or 0.7)
        return first, _covering(chosen, first, target)
    if hires is None or not (hires.upscale or hires.width or hires.height):
        return (width, height), None
    upscaler = hires.upscaler or "Latent"
    if upscaler not in UPSCALERS:
        deviations.append(f"upscaler {upscaler} is not here: Lanczos was used")
        upscaler = "Lanczos"
    plan = HiresPlan(
        width=int(width * (hires.upscale or 1)),
        height=int(height * (hires.upscale or 1)),
        steps=hires.steps or parameters.steps or 20,
        upscaler=upscaler,
        denoise=next((d for d in (hires.denoise, parameters.denoise) if d is not None), 0.7),
        sampler=hires.sampler,
        schedule=hires.schedule,
        prompt=hires.prompt,
        negative_prompt=hires.negative_prompt,
        cfg_scale=hires.cfg_scale,
    )
    if hires.width or hires.height:
        plan = _covering(plan, (width, height), (hires.width or 0, hires.height or 0))
    return (width, height), plan


def _up64(value: float) -> int:
    return -int(-value // 64) * 64


def _covering(plan: HiresPlan, size: tuple[int, int], target: tuple[int, int]) -> HiresPlan:
    """Hires resize: one side 0 follows the aspect; both set scale to cover, then the latent is cropped."""
    (w, h), (x, y) = size, target
    if x == 0:
        return replace(plan, width=w * y // h, height=y)
    if y == 0:
        return replace(plan, width=x, height=h * x // w)
    if w / h < x / y:
        return replace(plan, width=x, height=x * h // w, cover=(x, y))
    return replace(plan, width=y * w // h, height=y, cover=(x, y))


def _number(raw: Mapping[str, Any], key: str, default: float) -> float:
    try:
        return float(raw[key])
    except (KeyError, TypeError, ValueError):
        return default


def _flag(raw: Mapping[str, Any], key: str) -> bool:
    return str(raw.get(key, "")).strip().lower() in {"true", "1", key.lower()}


def _pair(raw: Mapping[str, Any], key: str, *, zero: bool = False) -> tuple[int, int] | None:
    found = re.fullmatch(r"\s*(\d{1,5})x(\d{1,5})\s*", str(raw.get(key, "")))
    if not found:
        return None
    pair = (int(found[1]), int(found[2]))
    return pair if zero or all(pair) else None


def _options(raw: Mapping[str, Any]) -> dict[str, float]:
    keys = {"Sigma churn": "s_churn", "Sigma tmin": "s_tmin", "Sigma tmax": "s_tmax", "Sigma noise": "s_noise"}
    return {ours: _number(raw, key, 0.0) for key, ours in keys.items() if key in raw}


def _unipc(raw: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if "UniPC variant" in raw:
        out["variant"] = str(raw["UniPC variant"])
    if "UniPC skip type" in raw:
        out["skip_type"] = str(raw["UniPC skip type"])
    if "UniPC order" in raw:
        out["order"] = int(_number(raw, "UniPC order", 3))
    if "UniPC lower order final" in raw:
        out["lower_order_final"] = _flag(raw, "UniPC lower order final")
    return out


def describe(plan: RunPlan) -> GenerationParameters:
    """The parameters the picture is really made with: what hubctl writes into its own pictures."""
    said = GenerationParameters.from_json(plan.parameters) if plan.parameters else GenerationParameters()
    raw = dict(said.raw)
    model = Path(plan.checkpoint)
    raw.setdefault("Model", model.stem)
    if sha := plan.hashes.get(plan.checkpoint):
        raw.setdefault("Model hash", sha[:10])
    return replace(
        said,
        prompt=plan.prompt,
        negative_prompt=plan.negative_prompt,
        sampler=plan.sampler,
        sampler_label=sampler_label(plan.sampler),
        schedule=plan.schedule,
        schedule_label=schedule_label(plan.schedule),
        steps=plan.steps,
        cfg_scale=plan.cfg_scale,
        seed=plan.seed,
        width=plan.width,
        height=plan.height,
        clip_skip=plan.clip_skip if plan.clip_skip > 1 or said.clip_skip else None,
        rng="cpu" if plan.rng == "cpu" else "nv",
        generator=said.generator if said.generator.name else Generator("hubctl", _own_version()),
        raw=raw,
        warnings=(),
    )


def _own_version() -> str:
    from hubctl import __version__

    return __version__

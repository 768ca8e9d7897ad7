"""Parameters and files → RunPlan: what will be done, with everything that cannot be done named. No torch here.

A plan is plain JSON: `to_json`, `from_json`, `digest`. The same object feeds one run, a batch or another machine.
"""

from __future__ import annotations

import hashlib
import json
import math
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
    upscaler_path: str | None = None  # a model for `upscaler`, when it needs one


@dataclass(frozen=True)
class RunPlan:
    """Everything a run needs. Paths are strings, so that a plan is JSON; sizes in pixels.

    `flavour` decides what the programs do differently without saying so (webui-semantics §12, §13); what they say, and
    what one may want to vary alone, has a field.
    """

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
    step_rng: str | None = None  # of the noise after the first, when it is another's (ComfyUI on a GPU)
    flavour: str = "a1111"  # a1111 · forge · comfy
    whole_timesteps: bool = False  # σ→t rounds to the model's own timesteps (Forge, ComfyUI)
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
    old_counts: bool = False  # timelines count steps even where a sampler calls the model twice a step
    pad_conds: str | None = None  # empty · v0: how A1111 made prompts of unequal length equal
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
    refiner_pass: str = "second pass"  # where it works in a run of two passes: first pass · second pass · both
    hires: HiresPlan | None = None
    batch: int = 1
    iterations: int = 1
    init_image: str | None = None
    resize_mode: str = "stretch"  # stretch · crop · fill · latent
    exact_steps: bool = False  # img2img makes as many steps as are asked
    mask: str | None = None  # white: made anew
    mask_blur: float = 4
    mask_inverted: bool = False
    mask_weight: float = 1.0  # inpainting checkpoints: how much of the covered part they do not see
    masked_content: str = "original"  # original · fill · latent noise · latent nothing
    inpaint_only_masked: bool = False
    inpaint_padding: int = 32
    stray_seed: int | None = None  # of the global generator Forge draws from by accident: encoding, then around a mask
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


# Settings we see but do not follow: key pattern → what they changed
EXTENSIONS: tuple[tuple[str, str], ...] = (
    (r"ADetailer ", "ADetailer redrew faces or hands after the picture was made"),
    (r"ControlNet( \d+)?$", "ControlNet steered the composition with another picture"),
    (r"(RP (Active|Divide)|Regional Prompter)", "Regional Prompter gave parts of the picture their own prompts"),
    (r"freeu", "FreeU rescaled features inside the UNet"),
    (r"(dynamic thresholding|dynthres)", "dynamic thresholding limited high CFG values"),
    (r"(CFG Rescale|CFG Scale Fix|CFG auto|CFG mode)", "guidance was rescaled at each step"),
    (r"Token merging ratio", "token merging (ToMe) dropped detail for speed"),
    (r"(hypertile|kohya_hrfix|DeepShrink)", "the UNet worked on tiles or at a smaller size"),
    (r"Face restoration", "face restoration redrew faces after the picture was made"),
    (r"(sag_|pag_|SAG |PAG |Self Attention Guidance|Perturbed)", "attention guidance changed every step"),
    (r"(Latent Couple|MultiDiffusion|Tiled Diffusion)", "tiled or regional diffusion changed the composition"),
    (r"(FP8 weight|Diffusion in Low Bits)", "the checkpoint ran with weights of few bits"),
    (r"(AnimateDiff|Roop|ReActor|FaceSwapLab|IP-Adapter|layerdiff|stylealign)", "an extension edited the picture"),
    (r"(Ultimate SD upscale|SD upscale|Postprocess|Extras)", "the picture was enlarged afterwards"),
    (r"(Soft inpainting|soft_inpainting)", "soft inpainting blended the edge of the mask"),
    (r"Image CFG scale", "an instruct-pix2pix checkpoint edited a picture"),
    (r"(Script|X Type)$", "a script drove the run"),
    (r"(Hires VAE|VAE (Encoder|Decoder)$)", "another decoder made the pixels"),
)


def build(
    parameters: GenerationParameters,
    *,
    locate: Locate,
    overrides: Mapping[str, str] | None = None,
    flavour: str | None = None,
    rng: str | None = None,
    init_image: Path | None = None,
    mask: Path | None = None,
) -> RunPlan:
    """Decide a run. `init_image` and `mask` are the pictures of img2img, which no metadata carries.

    Raises MissingResource without a checkpoint, UnknownSampler for a sampler we neither have nor can name, PlanError
    for sizes or steps that cannot be meant.
    """
    raw = {**{str(k): v for k, v in parameters.raw.items()}, **(overrides or {})}
    chosen = flavour or _flavour(parameters.generator)
    version = _version(parameters.generator) if chosen == "a1111" else None
    deviations = [*_extension_deviations(raw), *_tag_deviations(parameters)]
    if parameters.generator.name not in OURS:
        deviations.append(f"made by {parameters.generator.name}, whose rules are not known here: A1111's were used")
    sampler, schedule = _sampler(parameters, raw, chosen, deviations)
    files = _Files(parameters, locate)
    width, height = _size(parameters)
    first, hires = _hires(parameters, raw, width, height, deviations, locate)
    seed = parameters.seed if parameters.seed is not None else _no_seed(deviations)
    refiner = _refiner(parameters, files, locate, deviations)
    deviations += files.problems
    chosen_rng, step_rng = _rng(parameters, rng, chosen, sampler, deviations)
    plan = RunPlan(
        checkpoint=files.checkpoint(),
        vae=files.path("vae"),
        loras=files.loras,
        embeddings=files.embeddings,
        hashes=files.hashes,
        prompt=_prompt(parameters, deviations),
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
        step_rng=step_rng,
        flavour=chosen,
        whole_timesteps=chosen != "a1111",
        subseed=parameters.subseed,
        subseed_strength=parameters.subseed_strength or 0.0,
        seed_resize=_seed_resize(raw),
        ensd=parameters.ensd or 0,
        eta=parameters.eta if parameters.eta is not None else _number(raw, "Eta", 1.0),
        eta_ddim=_number(raw, "Eta DDIM", 0.0),
        options=_options(raw),
        sigma_min=_number(raw, "Schedule min sigma", 0.0) or None,
        sigma_max=_number(raw, "Schedule max sigma", 0.0) or None,
        rho=_number(raw, "Schedule rho", 0.0) or None,
        discard_penultimate=_flag(raw, "Discard penultimate sigma"),
        sgm_noise=_flag(raw, "SGM noise multiplier"),
        emphasis=_emphasis(raw, deviations),
        old_timelines=_flag(raw, "Old prompt editing timelines")
        or (version is not None and version < V1_6 and "[" in parameters.prompt),
        old_counts=_old_counts(parameters, raw, version, sampler),
        pad_conds=_pad_conds(raw, version, sampler) if chosen == "a1111" else None,
        ngms=_number(raw, "NGMS", 0.0),
        ngms_all=_flag(raw, "NGMS all steps"),
        skip_early=_number(raw, "Skip Early CFG", 0.0),
        tiling=_flag(raw, "Tiling") and chosen == "a1111",
        zero_terminal_snr=raw.get("Noise Schedule") == "Zero Terminal SNR",
        downcast_alphas=chosen == "a1111"
        and (_flag(raw, "Downcast alphas_cumprod") or (version is not None and version < V1_7_225)),
        beta_alpha=_number(raw, "Beta schedule alpha", 0.6),
        beta_beta=_number(raw, "Beta schedule beta", 0.6),
        unipc=_unipc(raw, sampler, deviations),
        refiner=refiner,
        refiner_at=parameters.refiner.switch_at if parameters.refiner else None,
        refiner_by_steps=chosen == "forge"
        or _flag(raw, "Refiner switch by sampling steps")
        or (version is not None and version < V1_8),
        refiner_pass=str(raw.get("Hires refiner", "second pass")),
        hires=hires,
        init_image=str(init_image) if init_image else None,
        mask=str(mask) if mask else None,
        mask_blur=_number(raw, "Mask blur", 0.0 if mask else 4.0),
        mask_inverted=raw.get("Mask mode") == "Inpaint not masked",
        mask_weight=_number(raw, "Conditional mask weight", 1.0),
        masked_content=str(raw.get("Masked content", "original")),
        inpaint_only_masked=raw.get("Inpaint area") == "Only masked",
        inpaint_padding=int(_number(raw, "Masked area padding", 32)),
        denoise=parameters.denoise,
        noise_multiplier=_number(raw, "Noise multiplier", 1.0),
        extra_noise=_number(raw, "Extra noise", 0.0),
        parameters=replace(parameters, raw=raw).to_json(),
        deviations=(),
    )
    deviations += _picture_deviations(plan, raw)
    return replace(plan, deviations=tuple(dict.fromkeys(deviations)))


V1_6, V1_7_225, V1_8, V1_9 = (1, 6, 0, 0), (1, 7, 0, 225), (1, 8, 0, 0), (1, 9, 0, 0)
# Programs whose pictures these rules are for; others' are made by A1111's, and that is said
OURS = frozenset(
    {
        None,
        "A1111",
        "Forge",
        "reForge",
        "Forge Classic",
        "Forge Neo",
        "ComfyUI",
        "Stability Matrix",
        "Civitai",
        "hubctl",
    }
)


def _flavour(generator: Generator) -> str:
    name, version = (generator.name or "").lower(), generator.version or ""
    if name == "comfyui":
        return "comfy"
    if "forge" in name or re.match(r"f\d", version):
        return "forge"
    return "a1111"


def _version(generator: Generator) -> tuple[int, ...] | None:
    """`v1.7.0-225-gabc` → (1, 7, 0, 225), a candidate `v1.6.0-RC` → (1, 6, 0, −1); all others (Forge's too) → None."""
    if (generator.name or "A1111") != "A1111":
        return None
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)(?:-?(rc)|-(\d+))?", generator.version or "", re.IGNORECASE)
    if not found:
        return None
    return (int(found[1]), int(found[2]), int(found[3]), -1 if found[4] else int(found[5] or 0))


def _joined_names(generator: Generator) -> bool:
    """Whether the program is from the time when a schedule was part of the sampler's name (before 1.9)."""
    if generator.name not in {None, "A1111", "Forge", "Civitai"}:
        return False
    found = re.search(r"v(\d+)\.(\d+)\.\d+", generator.version or "")  # Forge: f0.0.17v1.8.0rc…
    return (int(found[1]), int(found[2])) < (1, 9) if found else generator.version is None


def _extension_deviations(raw: Mapping[str, Any]) -> Iterator[str]:
    for pattern, sentence in EXTENSIONS:
        if any(re.match(pattern, key, re.IGNORECASE) for key in raw):
            yield f"not replayed: {sentence}"
    module = str(raw.get("Hires Module 1", "Use same choices"))
    if module not in {"Use same choices", "Built-in"}:
        yield f"not replayed: the second pass used another VAE or text encoder, `{module}`"


def _tag_deviations(parameters: GenerationParameters) -> Iterator[str]:
    from hubctl.run.prompt import extract_networks

    for tag in extract_networks(parameters.prompt)[1]:
        if tag.kind == "hypernet":
            yield f"not replayed: hypernetwork `{tag.name}`, which changed the attention layers"
        elif tag.kind not in {"lora", "lyco"}:
            yield f"not replayed: {tag.kind} `{tag.name}`"
    for resource in parameters.of_kind("hypernetwork"):
        yield f"not replayed: hypernetwork `{resource.name}`, which changed the attention layers"
    if parameters.hires is not None and parameters.hires.checkpoint:
        yield f"not replayed: the second pass ran on checkpoint `{parameters.hires.checkpoint}`"


def _picture_deviations(plan: RunPlan, raw: Mapping[str, Any]) -> Iterator[str]:
    from hubctl.run.prompt import split_and

    strength = plan.denoise
    if plan.flavour == "forge" and len(parts := split_and(plan.prompt)) > 1 and not sum(w for _, w in parts):
        yield "the weights of AND add up to 0, by which Forge divides: its picture was of no numbers at all"
    if plan.flavour == "forge" and plan.sampler == "ddpm" and plan.rng == "nv" and raw.get("RNG") == "NV":
        yield "Forge's DDPM drew its noise from a generator nobody recorded: every step differs"
    if plan.init_image is None and plan.hires is None and strength is not None and 0 < strength < 1:
        yield "the picture was made from another picture (img2img), which its settings do not carry"
    if plan.mask is None and any(key in raw for key in ("Mask blur", "Inpaint area", "Masked content", "Mask mode")):
        yield "only a masked part of the picture was made anew (inpainting); the mask is not in its settings"
    if plan.mask is not None and plan.flavour == "forge":
        yield "Forge's noise outside the mask came from a generator nobody recorded: that part of each step differs"


def _refiner(parameters: GenerationParameters, files: _Files, locate: Locate, deviations: list[str]) -> str | None:
    said = parameters.refiner
    if said is None:
        return None
    path = files.path("refiner")
    if path is None:
        found = locate(ResourceRef("refiner", said.checkpoint, hash=said.hash))
        path = str(found.path) if found else None
    if path is None:
        deviations.append("the refiner checkpoint is missing: the base model runs to the end")
    return path


COMFY_SAMPLERS = {"ddim": "euler"}  # ComfyUI's ddim is Euler on whatever schedule is chosen


def _sampler(
    parameters: GenerationParameters, raw: Mapping[str, Any], flavour: str, deviations: list[str]
) -> tuple[str, str | None]:
    from hubctl.run.names import AUTOMATIC, AVAILABLE_SCHEDULES

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
    if flavour == "comfy":
        if sampler.startswith("uni_pc"):
            deviations.append("ComfyUI's UniPC steps on the chosen schedule: the WebUI's own grid was used")
        sampler = COMFY_SAMPLERS.get(sampler, sampler)
    sampler = _available(sampler, deviations)
    if schedule is None and not _means_automatic(parameters.schedule_label):
        deviations.append(f"schedule {parameters.schedule_label} is not known: the sampler's default was used")
    if schedule is not None and schedule not in AVAILABLE_SCHEDULES:
        deviations.append(f"schedule {schedule_label(schedule)} is not available: the sampler's default was used")
        schedule = None
    if schedule is None and flavour == "comfy":
        schedule = "normal"
    elif schedule is None and "Schedule type" not in raw and _joined_names(parameters.generator):
        schedule = "uniform" if sampler in AUTOMATIC else None
    return sampler, schedule


def _available(sampler: str, deviations: list[str]) -> str:
    """The sampler, or the nearest one there is, and that is said."""
    from hubctl.run.names import UNSUPPORTED

    if sampler in UNSUPPORTED:
        deviations.append(f"{sampler_label(sampler)} is not available: {sampler_label(UNSUPPORTED[sampler])} was used")
    return UNSUPPORTED.get(sampler, sampler)


def _means_automatic(label: str | None) -> bool:
    return (label or "").strip().casefold() in {"", "automatic", "default", "none", "use same scheduler"}


def _old_counts(
    parameters: GenerationParameters, raw: Mapping[str, Any], version: tuple[int, ...] | None, sampler: str
) -> bool:
    """Before 1.6 N was the steps for every sampler; before 1.9 for DPM2 and DPM2 a without Karras."""
    if version is None:
        return False
    bare = sampler in {"dpm_2", "dpm_2_ancestral"} and parameters.schedule is None and "Schedule type" not in raw
    return version < V1_6 or (bare and version < V1_9)


def _pad_conds(raw: Mapping[str, Any], version: tuple[int, ...] | None, sampler: str) -> str | None:
    if _flag(raw, "Pad conds v0") or (version is not None and version < V1_6 and sampler in {"ddim", "plms"}):
        return "v0"
    return "empty" if _flag(raw, "Pad conds") else None


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


LARGEST = 8192  # pixels a side


def _size(parameters: GenerationParameters) -> tuple[int, int]:
    width, height = parameters.width or 512, parameters.height or 512
    if not (8 <= width <= LARGEST and 8 <= height <= LARGEST):
        raise PlanError(f"a picture of {width}×{height} cannot be made", hint="pass --size WxH")
    return width, height


def _seed_resize(raw: Mapping[str, Any]) -> tuple[int, int] | None:
    pair = _pair(raw, "Seed resize from")
    if pair is not None and max(pair) > LARGEST:
        raise PlanError(f"noise for a picture of {pair[0]}×{pair[1]} cannot be drawn", hint="see `Seed resize from`")
    return pair


def _no_seed(deviations: list[str]) -> int:
    deviations.append("the seed is not said: 0 was used, so this is another picture with the same settings")
    return 0


def _rng(
    parameters: GenerationParameters, asked: str | None, flavour: str, sampler: str, deviations: list[str]
) -> tuple[str, str | None]:
    """(generator of the first noise, of the later noise when that is another).

    ComfyUI draws the first on the CPU; ancestral samplers go on with the GPU's generator, whose first numbers are NV's.
    """
    from hubctl.run.names import BROWNIAN

    if flavour == "comfy":
        on_gpu = str(parameters.sampler_label or "").endswith("_gpu") or (sampler not in BROWNIAN and asked != "cpu")
        return "cpu", "nv" if on_gpu else None
    if asked in {"cpu", "nv"}:
        return str(asked), None
    if parameters.rng in {"cpu", "nv"}:
        return str(parameters.rng), None
    if parameters.generator.name == "hubctl":
        return "cpu", None
    deviations.append("the noise came from a GPU: NV noise stands in for it, which equals most NVIDIA cards'")
    return "nv", None


def _prompt(parameters: GenerationParameters, deviations: list[str]) -> str:
    """The prompt; LoRAs known only as resources (hub and Comfy metadata, Forge's hashes) get their tag."""
    prompt = parameters.prompt
    if re.search(r"<(?:lora|lyco):", prompt):
        return prompt
    for resource in parameters.of_kind("lora", "lycoris"):
        if resource.name:
            if resource.weight is None:
                deviations.append(f"the weight of LoRA `{resource.name}` is not said: 1 was used")
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
    parameters: GenerationParameters, raw: Mapping[str, Any], width: int, height: int, deviations: list[str],
    locate: Locate,
) -> tuple[tuple[int, int], HiresPlan | None]:  # fmt: skip
    """(first-pass size, second pass). Old infotexts give the final size and `First pass size`."""
    from hubctl.run.names import UPSCALERS

    hires = parameters.hires
    if _pair(raw, "First pass size", zero=True) == (0, 0):  # the size was chosen for about 512² pixels
        scale = (512 * 512 / (width * height)) ** 0.5
        first = (_up64(width * scale), _up64(height * scale))
        chosen = HiresPlan(width, height, parameters.steps or 20, "Latent", parameters.denoise or 0.7)
        return first, _covering(chosen, first, (width, height))
    if hires is None or not (hires.upscale or hires.width or hires.height):
        return (width, height), None
    upscaler, model = hires.upscaler or "Latent", None
    if upscaler not in UPSCALERS:
        model, why = _upscaler(upscaler, locate)
        if model is None:
            deviations.append(f"upscaler {upscaler} {why}: Lanczos was used")
            upscaler = "Lanczos"
    sampler, schedule = _hires_sampler(parameters, raw, deviations)
    plan = HiresPlan(
        width=int(width * (hires.upscale or 1)),
        height=int(height * (hires.upscale or 1)),
        steps=hires.steps or parameters.steps or 20,
        upscaler=upscaler,
        denoise=next((d for d in (hires.denoise, parameters.denoise) if d is not None), 0.7),
        sampler=sampler,
        schedule=schedule,
        prompt=hires.prompt,
        negative_prompt=hires.negative_prompt,
        cfg_scale=hires.cfg_scale,
        upscaler_path=model,
    )
    if hires.width or hires.height:
        plan = _covering(plan, (width, height), (hires.width or 0, hires.height or 0))
    return (width, height), plan


def _hires_sampler(
    parameters: GenerationParameters, raw: Mapping[str, Any], deviations: list[str]
) -> tuple[str | None, str | None]:
    """The second pass's own sampler and schedule; before 1.9 a bare name had its schedule in it."""
    from hubctl.run.names import AVAILABLE_SCHEDULES

    hires, label = parameters.hires, str(raw.get("Hires sampler") or "")
    assert hires is not None
    sampler, schedule = hires.sampler, hires.schedule
    if sampler is None:
        if label.strip().casefold() not in {"", "use same sampler"}:
            deviations.append(f"sampler {label} of the second pass is not known: the first pass's was used")
    else:
        sampler = _available(sampler, deviations)
        if schedule is None and "Hires schedule type" not in raw and _joined_names(parameters.generator):
            schedule = "karras" if sampler == "restart" else "uniform"
    said = raw.get("Hires schedule type")
    if schedule not in AVAILABLE_SCHEDULES and not _means_automatic(str(said or "")):
        deviations.append(f"schedule {said} of the second pass is not known: the first pass's was used")
        schedule = None
    return sampler, schedule


def _upscaler(name: str, locate: Locate) -> tuple[str | None, str]:
    """(the model's file, why there is none)."""
    from importlib.util import find_spec

    from hubctl.run.names import UPSCALER_FILES

    found = locate(ResourceRef("upscaler", UPSCALER_FILES.get(name, name)))
    if found is None:
        return None, "is not here"
    if find_spec("spandrel") is None:
        return None, "needs spandrel, which is not installed"
    return str(found.path), ""


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
        value = float(raw[key])
    except (KeyError, TypeError, ValueError, OverflowError):
        return default
    return value if math.isfinite(value) else default


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


def _emphasis(raw: Mapping[str, Any], deviations: list[str]) -> str:
    said = str(raw.get("Emphasis", "Original"))
    if said in {"Original", "No norm", "Ignore", "None"}:
        return said
    deviations.append(f"emphasis {said[:40]} is not known: Original was used, as the WebUI does")
    return "Original"


def _unipc(raw: Mapping[str, Any], sampler: str, deviations: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"variant": "bh2"} if sampler == "uni_pc_bh2" else {}
    if (variant := str(raw.get("UniPC variant", "bh1"))) != "bh1":
        out["variant"] = variant
    if out.get("variant", "bh1") not in {"bh1", "bh2"}:
        deviations.append(f"UniPC variant {variant} is not available: bh1 was used")
        out["variant"] = "bh1"
    if "UniPC skip type" in raw:
        out["skip_type"] = str(raw["UniPC skip type"])
        if out["skip_type"] not in {"time_uniform", "time_quadratic", "logSNR"}:
            deviations.append(f"UniPC skip type {out['skip_type'][:40]} is not known: time_uniform was used")
            out["skip_type"] = "time_uniform"
    if "UniPC order" in raw:
        out["order"] = max(int(_number(raw, "UniPC order", 3)), 1)
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

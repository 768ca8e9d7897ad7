"""Journey: example image → parameters → plan → picture → how close it is.

load(text, …)       the image and its parameters: hub, page, file or stored record
resources(…)        each thing it used, how it was identified, and whether it is here
ensure(…)           install what is missing (the caller has asked first)
build(…)            parameters + files → RunPlan with named deviations
run(…)              replay, save with infotext, compare with the original, record
in_order(plans)     several: those on one checkpoint after each other, so that it is loaded once
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl import infotext, install, refs
from hubctl.config import Settings
from hubctl.errors import (
    Ambiguous,
    InvalidReference,
    KnownError,
    MissingResource,
    NoParameters,
    NotFound,
    Offline,
    RunError,
    UsageError,
)
from hubctl.parameters import GenerationParameters, ResourceRef, sampler_label, sampler_name, schedule_name
from registry import wire

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from hubctl.install import InstallPlan
    from hubctl.run.compare import Similarity
    from hubctl.run.plan import RunPlan
    from registry import Installed, Registry

logger = logging.getLogger(__name__)
NEEDED = ("checkpoint", "lora", "lycoris", "embedding", "vae", "refiner", "upscaler")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".heic"})
LARGEST_FILE = 512 * 1024 * 1024  # bytes of a local picture
TYPES = {
    "checkpoint": ("Checkpoint",),
    "refiner": ("Checkpoint",),
    "lora": ("LORA", "LoCon", "DoRA"),
    "lycoris": ("LORA", "LoCon", "DoRA"),
    "embedding": ("TextualInversion",),
    "vae": ("VAE",),
    "upscaler": ("Upscaler",),
}


@dataclass(frozen=True)
class Source:
    """An image to reproduce: where it came from and what it says."""

    asked: str
    parameters: GenerationParameters
    image: wire.Image | None = None
    path: Path | None = None
    original: bytes | None = None  # the file itself, when it was read already

    @property
    def name(self) -> str:
        if self.image is not None and self.image.image_id is not None:
            return str(self.image.image_id)
        return self.path.stem if self.path else "image"


def load(text: str, hub: Hub | None, registry: Registry) -> Source:
    """Find the image and read how it was made: the hub's `meta`, else the original file's own text.

    Raises NotFound, NoParameters (the picture does not say), Offline, InvalidReference.
    """
    ref = refs.parse(text if not text.isdigit() else f"image:{text}")
    if isinstance(ref, refs.PathRef):
        return _load_file(text, ref.path)
    if not isinstance(ref, refs.ImageRef):
        raise InvalidReference(
            f"`{text}` is no image",
            hint="give an image id, its page URL, or a picture file; `hubctl images MODEL` lists ids",
        )
    image = registry.image(ref.id)
    if image is None or not image.meta:
        if hub is None:
            raise Offline(f"image {ref.id} is not known here and --offline forbids asking a hub")
        image = hub.image(ref.id)
    try:
        parameters = infotext.from_meta(image.meta or {})
    except NoParameters:
        original = fetch_original(image, hub, registry)
        parameters = infotext.parse(infotext.read(original))  # raises NoParameters with the hint
        return Source(text, _sized(parameters, image), image, original=original)
    return Source(text, _sized(parameters, image), image)


def _load_file(text: str, path: Path) -> Source:
    """A local picture, or a text or JSON file with settings (then there is nothing to compare with)."""
    parameters = infotext.parse(infotext.read(path))
    if path.suffix.lower() not in PICTURES:
        return Source(text, parameters, path=path)
    if path.stat().st_size > LARGEST_FILE:
        raise UsageError(f"`{path.name}` is too large for a picture", hint="give the picture as it was made")
    return Source(text, parameters, path=path, original=path.read_bytes())


def _sized(parameters: GenerationParameters, image: wire.Image) -> GenerationParameters:
    """Fill the size from the picture when its settings do not say it (hires passes change it, so only then)."""
    if parameters.width or parameters.hires or not (image.width and image.height):
        return parameters
    return replace(parameters, width=image.width, height=image.height)


def fetch_original(image: wire.Image, hub: Hub | None, registry: Registry | None = None) -> bytes:
    """The uploaded bytes of an image: kept here, else from the hub (and then kept). Raises NotFound or a HubError."""
    number = image.image_id
    kept = registry.picture(number) if registry is not None and number is not None else None
    if kept is not None:
        return kept.read_bytes()
    if hub is None or not image.url:
        raise NotFound(f"the picture of image {number} is not here")
    data = hub.picture(image.url)
    if registry is not None and number is not None and not registry.read_only:
        with suppress(KnownError):  # a copy to have offline; the run does not depend on it
            registry.put_picture(number, data)
    return data


# --- what it used -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """One thing the image used: how it was identified, and the file if it is here or the plan to get it."""

    ref: ResourceRef
    how: str  # "version id" · "hash" · "name" · "its trainer's name" · "not found"
    installed: Installed | None = None
    path: Path | None = None
    plan: InstallPlan | None = None
    problem: str | None = None

    @property
    def download_bytes(self) -> int:
        return self.plan.download_bytes if self.plan else 0

    def to_json(self) -> dict[str, Any]:
        version = self.installed.version if self.installed else self.plan.version if self.plan else None
        return {
            **self.ref.to_json(),
            "resolved_by": self.how,
            "here": self.path is not None,
            "path": str(self.path) if self.path else None,
            "resolved_version_id": version.id if version else None,
            "download_bytes": self.download_bytes,
            "problem": self.problem,
        }


def resources(
    parameters: GenerationParameters, hub: Hub | None, registry: Registry, settings: Settings
) -> tuple[Resource, ...]:
    """Identify each needed resource: by version id, then hash, then name; here first, then on the hub."""
    return tuple(_here(ref, registry) or _there(ref, hub, registry, settings) for ref in needed(parameters))


def needed(parameters: GenerationParameters) -> tuple[ResourceRef, ...]:
    """Every file the run needs, those too that the settings name in passing: refiner, upscaler of the second pass."""
    from hubctl.run.names import UPSCALER_FILES, UPSCALERS

    out = [ref for ref in parameters.resources if ref.kind in NEEDED]
    refiner = parameters.refiner
    if refiner is not None and (refiner.checkpoint or refiner.hash) and not parameters.of_kind("refiner"):
        out.append(ResourceRef("refiner", refiner.checkpoint, hash=refiner.hash))
    upscaler = parameters.hires.upscaler if parameters.hires is not None else None
    if upscaler and upscaler not in UPSCALERS and not parameters.of_kind("upscaler"):
        out.append(ResourceRef("upscaler", UPSCALER_FILES.get(upscaler, upscaler)))
    return tuple(dict.fromkeys(out))


def _here(ref: ResourceRef, registry: Registry) -> Resource | None:
    found = registry.locate(ref.kind, hash=ref.hash, version_id=ref.version_id, name=ref.name)
    if found is None:
        return None
    return Resource(ref, found.how, installed=found.installed, path=found.path)


def _there(ref: ResourceRef, hub: Hub | None, registry: Registry, settings: Settings) -> Resource:
    problem = "not here, and --offline forbids asking a hub" if hub is None else "neither here nor on the hub"
    for how, text in _questions(ref) if hub is not None else ():
        assert hub is not None
        try:
            found = _ask(text, ref, how, hub)
            plan = install.plan(text, hub, registry, settings, found=found, file_id=found.file_id)
        except KnownError as error:
            problem = error.message
            logger.debug("%s %s by %s: %s", ref.kind, ref.name, how, error.message)
            continue
        return Resource(ref, how, plan=plan)
    return Resource(ref, "not found", problem=problem)


def _questions(ref: ResourceRef) -> list[tuple[str, str]]:
    questions = []
    if ref.version_id:
        questions.append(("version id", str(ref.version_id)))
    if ref.hash:
        questions.append(("hash", ref.hash))
    if ref.name:
        questions.append(("name", ref.name))
    return questions


def _ask(text: str, ref: ResourceRef, how: str, hub: Hub) -> install.Found:
    if how == "version id":
        return install.of_version(hub, hub.version(int(text)))
    if how == "hash":
        return install.of_hash(hub, text)
    return install.of_file_name(hub, text, TYPES.get(ref.kind, ()))


def missing(found: Sequence[Resource]) -> tuple[Resource, ...]:
    return tuple(resource for resource in found if resource.path is None)


def ensure(
    found: Sequence[Resource],
    hub: Hub,
    registry: Registry,
    settings: Settings,
    *,
    on_bytes: install.OnBytes,
    on_event: install.OnEvent,
) -> tuple[Resource, ...]:
    """Install what has a plan, each file once; the rest stays as it was."""
    out = []
    had: dict[tuple[int, int], install.Installation] = {}
    for resource in found:
        if resource.path is None and resource.plan is not None:
            key = (resource.plan.version.id, resource.plan.file.id)
            if key not in had:
                had[key] = install.execute(resource.plan, hub, registry, settings, on_bytes=on_bytes, on_event=on_event)
            resource = replace(resource, installed=had[key].installed, path=had[key].path, plan=None)
        out.append(resource)
    return tuple(out)


# --- from parameters to a plan ----------------------------------------------------------------------------------------


def override(parameters: GenerationParameters, **given: Any) -> GenerationParameters:
    """The same look, other subject: replace what was given on the command line (None = keep).

    A new prompt keeps the `<lora:…>` tags of the old one unless it has tags of its own. Raises UsageError.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"`{value}` is no value for `{name}`", hint="a number")
    if "prompt" in changes and "<" not in changes["prompt"]:
        tags = " ".join(_tags(parameters.prompt))
        changes["prompt"] = f"{changes['prompt']} {tags}".strip()
    if "sampler" in changes:
        changes.update(_sampler(changes.pop("sampler")))
    if changes.get("schedule") == AUTOMATIC:
        changes["schedule"] = None
    for name in ("hires", "refiner"):
        if name in changes and getattr(parameters, name) is not None:
            said = {key: value for key, value in changes[name].to_json().items() if value is not None}
            changes[name] = replace(getattr(parameters, name), **said)
    return replace(parameters, **changes)


def _tags(prompt: str) -> list[str]:
    from hubctl.run.prompt import extract_networks

    bare, _ = extract_networks(prompt)
    if bare == prompt:
        return []
    out, rest = [], prompt
    while (start := rest.find("<")) >= 0 and (end := rest.find(">", start)) >= 0:
        out.append(rest[start : end + 1])
        rest = rest[end + 1 :]
    return [tag for tag in out if ":" in tag]


def _sampler(label: str) -> dict[str, Any]:
    sampler, schedule = sampler_name(label)
    return {
        "sampler": sampler,
        "sampler_label": label if sampler is None else sampler_label(sampler),
        **({"schedule": schedule} if schedule else {}),
    }


AUTOMATIC = "automatic"


def _one_of(*names: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(text)
        return text.lower()

    return check


def _schedule(text: str) -> str:
    if text.lower() in {AUTOMATIC, "default", "none"}:
        return AUTOMATIC
    name = schedule_name(text)
    if name is None:
        raise ValueError(text)
    return name


SETTABLE: Mapping[str, Callable[[str], Any]] = {
    "steps": int,
    "cfg_scale": float,
    "seed": int,
    "clip_skip": int,
    "rng": _one_of("cpu", "nv", "gpu"),
    "ensd": int,
    "eta": float,
    "subseed": int,
    "subseed_strength": float,
    "denoise": float,
    "schedule": _schedule,
    "sampler": str,
}
ALSO = {
    "cfg": "cfg_scale", "schedule_type": "schedule", "denoising_strength": "denoise", "variation_seed": "subseed",
    "variation_seed_strength": "subseed_strength",
}  # fmt: skip
INFOTEXT_KEYS = (  # settings a run follows that have no field of their own, as a WebUI writes them
    "Beta schedule alpha", "Beta schedule beta", "Conditional mask weight", "Discard penultimate sigma",
    "Downcast alphas_cumprod", "Emphasis", "Eta DDIM", "Extra noise", "First pass size", "Hires CFG Scale",
    "Hires negative prompt", "Hires prompt", "Hires resize", "Hires sampler", "Hires schedule type", "Hires steps",
    "Hires upscale", "Hires upscaler", "Inpaint area", "Mask blur", "Mask mode", "Masked area padding",
    "Masked content", "NGMS", "NGMS all steps", "Noise multiplier", "Noise Schedule", "Old prompt editing timelines",
    "Pad conds", "Pad conds v0", "Refiner", "Refiner switch at", "Refiner switch by sampling steps",
    "Schedule max sigma", "Schedule min sigma", "Schedule rho", "Seed resize from", "SGM noise multiplier",
    "Sigma churn", "Sigma noise", "Sigma tmax", "Sigma tmin", "Skip Early CFG", "Tiling", "UniPC lower order final",
    "UniPC order", "UniPC skip type", "UniPC variant",
)  # fmt: skip


def parse_settings(pairs: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """`--set KEY=VALUE`: canonical fields, and infotext keys (`--set "Sigma churn=0.3"`). Raises UsageError."""
    known: dict[str, Any] = {}
    raw: dict[str, str] = {}
    spelled = {key.casefold(): key for key in INFOTEXT_KEYS}
    for pair in pairs:
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not key:
            raise UsageError(f"`--set {pair}` has no value", hint="write it as --set KEY=VALUE")
        name = key.lower().replace(" ", "_").replace("-", "_")
        name = ALSO.get(name, name)
        if name in SETTABLE:
            try:
                known[name] = SETTABLE[name](value)
            except ValueError:
                raise UsageError(f"`{value}` is no value for `{key}`", hint=_what_fits(name)) from None
        elif key.casefold() in spelled:
            raw[spelled[key.casefold()]] = value
        else:
            raise UsageError(f"there is no setting `{key}`", hint=_near(key))
    return {**known, **_parts(raw)}, raw


def _what_fits(name: str) -> str | None:
    from hubctl.parameters import SCHEDULES

    if name == "schedule":
        return f"one of: Automatic, {', '.join(SCHEDULES.values())}"
    return {"rng": "one of: cpu, nv, gpu", "sampler": None}.get(name, "a number")


def _near(key: str) -> str:
    from rapidfuzz import process

    found = process.extract(key, [*SETTABLE, *INFOTEXT_KEYS], limit=3, score_cutoff=55)
    near = ", ".join(f"`{match[0]}`" for match in found)
    return f"near: {near}" if near else f"for example: {', '.join(SETTABLE)}, or a key as infotext has it"


def _parts(raw: Mapping[str, str]) -> dict[str, Any]:
    """The keys about a second pass or a refiner, read as a picture's own would be."""
    about = {key: value for key, value in raw.items() if key.startswith(("Hires", "Refiner"))}
    if not about:
        return {}
    pairs = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in about.items())
    read = infotext.parse(f"x\nSteps: 1, Sampler: Euler, Seed: 1, Size: 64x64, {pairs}")
    return {name: part for name in ("hires", "refiner") if (part := getattr(read, name)) is not None}


def build(
    parameters: GenerationParameters,
    found: Sequence[Resource],
    *,
    overrides: Mapping[str, str],
    rng: str | None = None,
    init_image: Path | None = None,
    mask: Path | None = None,
) -> RunPlan:
    """Parameters and files → RunPlan. `init_image`, `mask`: the picture it was made from, which no settings carry.

    Raises MissingResource naming every checkpoint that is not to be had.
    """
    from hubctl.run import plan as run_plan

    lost = [resource for resource in found if resource.path is None and resource.ref.kind == "checkpoint"]
    if lost:
        names = ", ".join(f"{resource.ref.kind} `{_name(resource.ref)}`" for resource in lost)
        raise MissingResource(
            f"what the image was made with is not to be had: {names}",
            hint="install it yourself and run again, or pass another checkpoint with --model",
            details={"resources": [resource.to_json() for resource in lost]},
        )
    paths = {resource.ref: resource for resource in found if resource.path is not None}
    return run_plan.build(
        parameters,
        locate=lambda ref: _located(paths.get(ref)),
        overrides=overrides,
        rng=rng,
        init_image=init_image,
        mask=mask,
    )


def in_order(plans: Sequence[RunPlan]) -> list[int]:
    """Indices of the plans so that those on one checkpoint follow each other, else as they came."""
    first: dict[tuple[str, ...], int] = {}
    keys = [(plan.checkpoint, plan.vae or "", plan.refiner or "") for plan in plans]
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    return sorted(range(len(plans)), key=lambda index: (first[keys[index]], index))


def other_vaes(found: Sequence[Resource], registry: Registry) -> list[str]:
    """Installed VAEs of the checkpoint's base model: what its maker may have used without saying so."""
    base = next((r.installed.version.base_model for r in found if r.ref.kind == "checkpoint" and r.installed), None)
    items = registry.installed(types=("VAE",))
    return [str(item.files[0].path) for item in items if item.files and item.version.base_model == base]


def _located(resource: Resource | None) -> Any:
    from hubctl.run.plan import Located

    if resource is None or resource.path is None:
        return None
    sha256 = None
    if resource.installed is not None:
        sha256 = next((f.sha256 for f in resource.installed.files if f.path == resource.path), None)
    return Located(path=resource.path, sha256=sha256, name=resource.path.stem, kind=resource.ref.kind)


def _name(ref: ResourceRef) -> str:
    return ref.name or ref.hash or (f"version {ref.version_id}" if ref.version_id else "unnamed")


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reproduction:
    """A finished run: the picture, its record, and how close it came. Similarity is None without an original."""

    image: Path
    record: Path
    compare: Path | None
    similarity: Similarity | None
    parameters: GenerationParameters
    plan: RunPlan
    device: str
    seconds: float
    infotext: str
    deviations: tuple[str, ...] = ()  # the plan's, and what only the run could tell
    load_seconds: float = 0.0
    unrecorded: str | None = None  # why the library does not know of it: it may only be read, say

    def to_json(self) -> dict[str, Any]:
        return {
            "image": str(self.image),
            "record": str(self.record),
            "compare": str(self.compare) if self.compare else None,
            "similarity": self.similarity.to_json() if self.similarity else None,
            "deviations": list(self.deviations),
            "device": self.device,
            "seconds": round(self.seconds, 3),
            "load_seconds": round(self.load_seconds, 3),
            "seed": self.plan.seed,
            "recorded": self.unrecorded is None,
            "parameters": self.parameters.to_json(),
            "infotext": self.infotext,
        }


def run(
    plan: RunPlan,
    *,
    registry: Registry,
    name: str,
    out: Path | None = None,
    original: bytes | None = None,
    used: Sequence[Installed] = (),
    source: Mapping[str, Any] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache: Any = None,
    on_step: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Reproduction:
    """Replay a plan, write PNG + JSON record (+ comparison), remember the run.

    `cache`: a `new_cache()` shared by several runs, so that what they have in common is loaded once. Raises RunError.
    """
    from hubctl.run import plan as run_plan
    from hubctl.run import runner

    result = runner.run(
        plan,
        on_step=lambda step: on_step(step.done, step.total, step.what),
        device=device,
        dtype=dtype,
        cache=cache,
    )
    made = run_plan.describe(plan)
    text = infotext.a1111.write(made)
    target = png_path(out) if out else _free_path(registry, f"{_safe_stem(name)}-{plan.seed}")
    record_path = target.with_suffix(".json")
    record = {
        "schema": "hubctl.run/1",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": dict(source or {}),
        "parameters": made.to_json(),
        "plan": plan.to_json(),
        "device": result.device,
        "dtype": result.dtype,
        "seconds": round(result.seconds, 3),
        "load_seconds": round(result.load_seconds, 3),
        "versions": dict(result.versions),
        "deviations": list(result.deviations),
    }
    runner.save(result, target, infotext=text, record=record)
    similarity, compare_path = None, None
    if original is not None:
        similarity, compare_path = _compare(original, result.images[0], target)
        record["similarity"] = similarity.to_json() if similarity else None
        record_path.write_text(json.dumps(record, ensure_ascii=False, indent=2, default=str), encoding="utf-8")
    unrecorded = None
    try:
        registry.record_run(
            image_id=(source or {}).get("image_id"),
            plan=plan.to_json(),
            output=target,
            similarity=similarity.score if similarity else None,
            device=result.device,
            seconds=result.seconds,
            versions=dict(result.versions),
            used=[installed.version.id for installed in used],
        )
        for installed in used:
            registry.touch(installed.version.id, source=installed.source)
    except KnownError as error:  # the picture is made, and where it was asked for
        unrecorded = error.message
    return Reproduction(
        target, record_path, compare_path, similarity, made, plan, result.device, result.seconds, text,
        result.deviations, result.load_seconds, unrecorded,
    )  # fmt: skip


def new_cache(offload: str | None = None) -> Any:
    """Keeps what a run has loaded for the next one. `offload`: none, model, sequential; None picks by free memory."""
    from hubctl.run.runner import ModelCache

    return ModelCache(offload=None if offload == "auto" else offload)


def png_path(path: Path) -> Path:
    """Where a picture goes that was asked for by name. Raises UsageError for another kind of file."""
    if path.suffix and path.suffix.lower() != ".png":
        raise UsageError(f"pictures are written as PNG, not `{path.suffix}`", hint=f"--out {path.with_suffix('.png')}")
    return path if path.suffix else path.with_name(f"{path.name}.png")


def _compare(original: bytes, picture: Any, target: Path) -> tuple[Similarity | None, Path | None]:
    from hubctl.run import compare

    try:
        before = compare.read(original)
    except RunError as error:
        logger.warning("no comparison: %s", error.message)
        return None, None
    similarity = compare.compare(before, picture)
    path = target.with_name(f"{target.stem}-compare.png")
    compare.side_by_side(before, picture, similarity, path)
    return similarity, path


def _safe_stem(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name)[:80] or "image"


def _free_path(registry: Registry, stem: str) -> Path:
    """A new file in today's folder of runs: an earlier picture is never overwritten."""
    return free_name(registry.home / "runs" / datetime.now(UTC).strftime("%Y-%m-%d"), stem)


def free_name(folder: Path, stem: str) -> Path:
    """`STEM.png` in a folder, or `STEM-2.png` and so on when that is taken."""
    path, count = folder / f"{stem}.png", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}.png"
    return path


def with_checkpoint(parameters: GenerationParameters, ref: str, registry: Registry) -> GenerationParameters:
    """The same settings on another installed checkpoint. Raises NotFound, Ambiguous."""
    chosen = installed_one(ref, registry, "checkpoint")
    file = chosen.files[0]
    checkpoint = ResourceRef("checkpoint", Path(file.name).stem, hash=file.sha256, version_id=chosen.version.id)
    others = tuple(resource for resource in parameters.resources if resource.kind != "checkpoint")
    raw = {key: value for key, value in parameters.raw.items() if key not in {"Model", "Model hash"}}
    return replace(parameters, resources=(checkpoint, *others), raw=raw)


def with_vae(parameters: GenerationParameters, ref: str, registry: Registry) -> GenerationParameters:
    """The same settings with another installed VAE. Raises NotFound, Ambiguous."""
    chosen = installed_one(ref, registry, "vae")
    file = chosen.files[0]
    vae = ResourceRef("vae", Path(file.name).stem, hash=file.sha256, version_id=chosen.version.id)
    others = tuple(resource for resource in parameters.resources if resource.kind != "vae")
    raw = {key: value for key, value in parameters.raw.items() if key not in {"VAE", "VAE hash"}}
    return replace(parameters, resources=(*others, vae), raw=raw)


def installed_one(ref: str, registry: Registry, *kinds: str) -> Installed:
    """The one installed version a text means, of one of these model types (the newest of a model's several).

    Raises NotFound, or Ambiguous with the candidates.
    """
    every = registry.find(ref)
    found = [item for item in every if not kinds or (item.model.type or "").lower() in kinds]
    if not found:
        what = {"lora": "LoRA", "vae": "VAE"}.get(kinds[0], kinds[0]) if kinds else "model"
        if every:
            raise NotFound(
                f"`{ref}` is a {every[0].model.type}, not a {what}", hint="`hubctl list` shows what is installed"
            )
        raise NotFound(
            f"no installed {what} is called `{ref}`",
            hint="`hubctl list` shows what is here, `hubctl install` gets more",
        )
    if len({item.model.id for item in found}) > 1:
        raise Ambiguous(
            f"`{ref}` could be any of {len(found)} installed versions",
            hint="say which by MODEL@VERSION",
            details={
                "candidates": [f"{i.model.id}@{i.version.id}  {i.model.name} · {i.version.name}" for i in found[:10]]
            },
        )
    return max(found, key=lambda item: item.version.id)

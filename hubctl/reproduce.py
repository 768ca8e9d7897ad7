"""Journey: example image → parameters → plan → picture → how close it is.

load(text, …)       the image and its parameters: hub, page, file or stored record
resources(…)        each thing it used, how it was identified, and whether it is here
ensure(…)           install what is missing (the caller has asked first)
build(…)            parameters + files → RunPlan with named deviations
run(…)              replay, save with infotext, compare with the original, record
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
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
NEEDED = ("checkpoint", "lora", "lycoris", "embedding", "vae", "refiner")
TYPES = {
    "checkpoint": ("Checkpoint",),
    "refiner": ("Checkpoint",),
    "lora": ("LORA", "LoCon", "DoRA"),
    "lycoris": ("LORA", "LoCon", "DoRA"),
    "embedding": ("TextualInversion",),
    "vae": ("VAE",),
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
        data = ref.path.read_bytes()
        return Source(text, infotext.parse(infotext.read(ref.path)), path=ref.path, original=data)
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
        original = fetch_original(image, hub)
        parameters = infotext.parse(infotext.read(original))  # raises NoParameters with the hint
        return Source(text, _sized(parameters, image), image, original=original)
    return Source(text, _sized(parameters, image), image)


def _sized(parameters: GenerationParameters, image: wire.Image) -> GenerationParameters:
    """Fill the size from the picture when its settings do not say it (hires passes change it, so only then)."""
    if parameters.width or parameters.hires or not (image.width and image.height):
        return parameters
    return replace(parameters, width=image.width, height=image.height)


def fetch_original(image: wire.Image, hub: Hub | None) -> bytes:
    """The uploaded bytes of an image. Raises NotFound or a HubError."""
    if hub is None or not image.url:
        raise NotFound(f"the picture of image {image.image_id} is not here")
    return hub.picture(image.url)


# --- what it used -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """One thing the image used: how it was identified, and the file if it is here or the plan to get it."""

    ref: ResourceRef
    how: str  # "version id" · "hash" · "name" · "not found"
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
    out = []
    for ref in parameters.resources:
        if ref.kind in NEEDED:
            out.append(_here(ref, registry) or _there(ref, hub, registry, settings))
    return tuple(out)


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
    """Install what has a plan; the rest stays as it was."""
    out = []
    for resource in found:
        if resource.path is None and resource.plan is not None:
            done = install.execute(resource.plan, hub, registry, settings, on_bytes=on_bytes, on_event=on_event)
            resource = replace(resource, installed=done.installed, path=done.path, plan=None)
        out.append(resource)
    return tuple(out)


# --- from parameters to a plan ----------------------------------------------------------------------------------------


def override(parameters: GenerationParameters, **given: Any) -> GenerationParameters:
    """The same look, other subject: replace what was given on the command line (None = keep).

    A new prompt keeps the `<lora:…>` tags of the old one unless it has tags of its own.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    if "prompt" in changes and "<" not in changes["prompt"]:
        tags = " ".join(_tags(parameters.prompt))
        changes["prompt"] = f"{changes['prompt']} {tags}".strip()
    if "sampler" in changes:
        changes.update(_sampler(changes.pop("sampler")))
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


SETTABLE: Mapping[str, Callable[[str], Any]] = {
    "clip_skip": int,
    "rng": lambda text: text.lower(),
    "ensd": int,
    "eta": float,
    "subseed": int,
    "subseed_strength": float,
    "denoise": float,
    "schedule": schedule_name,
    "sampler": str,
}


def parse_settings(pairs: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """`--set KEY=VALUE`: canonical fields apart from infotext keys (`--set "Sigma churn=0.3"`). Raises UsageError."""
    known: dict[str, Any] = {}
    raw: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"`--set {pair}` has no value", hint="write it as --set KEY=VALUE")
        name = key.strip().lower().replace(" ", "_").replace("-", "_")
        if name in SETTABLE:
            try:
                known[name] = SETTABLE[name](value.strip())
            except ValueError:
                raise UsageError(f"`{value}` is no value for `{key}`") from None
        else:
            raw[key.strip()] = value.strip()
    return known, raw


def build(
    parameters: GenerationParameters, found: Sequence[Resource], *, overrides: Mapping[str, str], rng: str | None = None
) -> RunPlan:
    """Parameters and files → RunPlan. Raises MissingResource naming every file that is not to be had."""
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
    return run_plan.build(parameters, locate=lambda ref: _located(paths.get(ref)), overrides=overrides, rng=rng)


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

    def to_json(self) -> dict[str, Any]:
        return {
            "image": str(self.image),
            "record": str(self.record),
            "compare": str(self.compare) if self.compare else None,
            "similarity": self.similarity.to_json() if self.similarity else None,
            "deviations": list(self.plan.deviations),
            "device": self.device,
            "seconds": round(self.seconds, 3),
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
    on_step: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Reproduction:
    """Replay a plan, write PNG + JSON record (+ comparison), remember the run."""
    from hubctl.run import compare, runner
    from hubctl.run import plan as run_plan

    result = runner.run(
        plan, on_step=lambda step: on_step(step.done, step.total, step.what), device=device, dtype=dtype
    )
    made = run_plan.describe(plan)
    text = infotext.a1111.write(made)
    target = out or _free_path(registry, f"{_safe_stem(name)}-{plan.seed}")
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
        "versions": dict(result.versions),
        "deviations": list(plan.deviations),
    }
    runner.save(result, target, infotext=text, record=record)
    similarity, compare_path = None, None
    if original is not None:
        similarity, compare_path = _compare(compare, original, result.images[0], target)
        record["similarity"] = similarity.to_json() if similarity else None
        record_path.write_text(json.dumps(record, ensure_ascii=False, indent=2, default=str), encoding="utf-8")
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
    return Reproduction(target, record_path, compare_path, similarity, made, plan, result.device, result.seconds, text)


def _compare(compare: Any, original: bytes, picture: Any, target: Path) -> tuple[Similarity | None, Path | None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(original)) as opened:
            before = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        logger.warning("the original cannot be read as a picture: %s", error)
        return None, None
    similarity = compare.compare(before, picture)
    path = target.with_name(f"{target.stem}-compare.png")
    compare.side_by_side(before, picture, similarity, path)
    return similarity, path


def _safe_stem(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name)[:80] or "image"


def _free_path(registry: Registry, stem: str) -> Path:
    """A new file in today's folder of runs: an earlier picture is never overwritten."""
    folder = registry.home / "runs" / datetime.now(UTC).strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    path, count = folder / f"{stem}.png", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}.png"
    return path


def with_checkpoint(parameters: GenerationParameters, ref: str, registry: Registry) -> GenerationParameters:
    """The same settings on another installed checkpoint. Raises NotFound."""
    found = [item for item in registry.find(ref) if (item.model.type or "").lower() == "checkpoint"]
    if not found:
        raise NotFound(f"no checkpoint `{ref}` is installed", hint="`hubctl list --type checkpoint`")
    chosen = found[0]
    file = chosen.files[0]
    checkpoint = ResourceRef("checkpoint", Path(file.name).stem, hash=file.sha256, version_id=chosen.version.id)
    others = tuple(resource for resource in parameters.resources if resource.kind != "checkpoint")
    return replace(parameters, resources=(checkpoint, *others))


def installed_one(ref: str, registry: Registry) -> Installed:
    """The one installed version a text means. Raises NotFound or Ambiguous with the candidates."""
    found = registry.find(ref)
    if not found:
        raise NotFound(
            f"`{ref}` is not installed", hint=f"`hubctl install {ref}` gets it; `hubctl list` shows what is here"
        )
    if len(found) > 1:
        raise Ambiguous(
            f"`{ref}` could be any of {len(found)} installed versions",
            hint="say which by MODEL@VERSION",
            details={
                "candidates": [f"{i.model.id}@{i.version.id}  {i.model.name} · {i.version.name}" for i in found[:10]]
            },
        )
    return found[0]

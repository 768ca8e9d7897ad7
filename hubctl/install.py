"""Journey: what was typed → version → file → verified blob → manifest.

`plan` decides and can be printed; `execute` does. Nothing is downloaded before a plan exists, nothing gets a good name
before its bytes were verified and looked at.

    plan(text, hub, registry, settings)  →  InstallPlan      --dry-run stops here
    execute(plan, hub, registry)         →  Installation     path, trigger words, recommended settings
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl import refs, tokens
from hubctl.config import Settings
from hubctl.errors import (
    Ambiguous,
    Archived,
    DownloadsDisabled,
    InvalidReference,
    KnownError,
    NoSpace,
    NotFound,
    Offline,
    PolicyForbids,
    UnsafeFile,
    VerificationFailed,
)
from registry import wire

if TYPE_CHECKING:
    from hubctl.choose import Choice
    from hubctl.hubs import Hub
    from registry import Installed, Registry

logger = logging.getLogger(__name__)
EXAMPLES = 20  # example images whose parameters are kept with a version
SPARE_BYTES = 64 * 1024 * 1024  # left free beside the file itself: index, manifest, previews
OnBytes = Callable[[str, int, int | None], None]
OnEvent = Callable[..., None]


def open_hub(settings: Settings, *, name: str | None = None, token: str | None = None) -> Hub:
    """The hub (or the hubs, in order of preference) of the settings, each with the token that belongs to it."""
    from hubctl.hubs import open_hub as connect

    names = (name,) if name else settings.hub_names
    found = []
    for each in names:
        url = settings.hub_url(each)
        secret = token or (stored.value if (stored := tokens.find(url, settings.config_path)) else None)
        found.append((each, url, secret))
    return connect(
        found,
        offline=settings.offline,
        patience=settings.patience,
        cache_dir=settings.home,
    )


# --- deciding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InstallPlan:
    """What an install would do. `have` = the bytes are here already; `installed` = nothing is left to do."""

    asked: str
    model: wire.Model
    version: wire.ModelVersion
    file: wire.ModelFile
    why: tuple[str, ...]
    warnings: tuple[str, ...]
    source: str  # which hub
    size: int | None
    have: bool
    installed: bool
    free_bytes: int

    @property
    def download_bytes(self) -> int:
        return 0 if self.have else (self.size or 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "model": {"id": self.model.id, "name": self.model.name, "type": self.model.type},
            "version": {"id": self.version.id, "name": self.version.name, "base_model": self.version.base_model},
            "file": {"id": self.file.id, "name": self.file.name, "size": self.size, "sha256": self.file.sha256},
            "why": list(self.why),
            "warnings": list(self.warnings),
            "hub": self.source,
            "have": self.have,
            "installed": self.installed,
            "download_bytes": self.download_bytes,
            "free_bytes": self.free_bytes,
        }


@dataclass(frozen=True)
class Found:
    """A version on a hub, with its model; `file_id` when one file in particular was asked for."""

    model: wire.Model
    version: wire.ModelVersion
    file_id: int | None = None


@dataclass(frozen=True)
class Preferences:
    """Which of a version's files a person would rather have."""

    format: str = "SafeTensor"
    fp: str = "fp16"
    size: str = "pruned"
    allow_pickle: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Preferences:
        return cls(settings.prefer_format, settings.prefer_fp, settings.prefer_size, settings.allow_pickle)


def resolve(text: str, hub: Hub, *, types: Sequence[str] = ()) -> Found:
    """Ask the hub what a reference means.

    Raises NotFound, Ambiguous (with candidates), InvalidReference.
    """
    ref = refs.parse(text)
    match ref:
        case refs.ModelRef(id=model_id):
            return _newest(hub.model(model_id), text)
        case refs.ModelVersionRef(model_id=model_id, version_id=version_id):
            return _of_model(hub, model_id, version_id, text)
        case refs.VersionRef(id=version_id):
            return of_version(hub, hub.version(version_id))
        case refs.AmbiguousId(id=number):
            return _either(hub, number, text)
        case refs.AirRef(air=air):
            return _of_air(hub, air, text)
        case refs.HashRef(value=value):
            return of_hash(hub, value)
        case refs.NameRef(text=name):
            return of_name(hub, name, types)
        case refs.PathRef(path=path):
            raise InvalidReference(f"`{path}` is a file on this disk", hint=f"`hubctl adopt {path}` takes it over")
        case refs.ImageRef():
            raise InvalidReference(f"`{text}` is an image", hint=f"`hubctl reproduce {text}` installs what it used")
    raise InvalidReference(f"`{text}` names no model")


def _newest(model: wire.Model, text: str) -> Found:
    refuse_gone(model)
    for version in model.model_versions:
        if version.files:
            return Found(model, version)
    raise NotFound(
        f"`{model.name}` has no version with files",
        hint=f"`hubctl show {text}` has the link to its page; try again later",
    )


def refuse_gone(model: wire.Model) -> None:
    """Archived models are listed but cannot be downloaded; say so before anything else is tried."""
    if model.mode == "Archived":
        raise Archived(f"`{model.name}` was archived by its creator: its files can no longer be downloaded here")


def _of_model(hub: Hub, model_id: int, version_id: int, text: str) -> Found:
    model = hub.model(model_id)
    refuse_gone(model)
    for version in model.model_versions:
        if version.id == version_id:
            return Found(model, version)
    found = of_version(hub, hub.version(version_id))
    if found.model.id != model_id:
        raise NotFound(
            f"model {model_id} has no version {version_id}: it belongs to model {found.model.id} `{found.model.name}`",
            hint=f"`hubctl install {found.model.id}@{version_id}` (asked: {text})",
        )
    return found


def of_version(hub: Hub, version: wire.ModelVersion, file_id: int | None = None) -> Found:
    """The version with its model; the model page may be gone while the version is still served."""
    model = None
    if version.model_id is not None:
        try:
            model = hub.model(version.model_id)
        except NotFound:
            logger.debug("model %s is gone, its version %s is not", version.model_id, version.id)
    if model is None:
        inner = version.model or {}
        model = wire.Model(
            id=version.model_id or 0, name=str(inner.get("name") or version.name), type=inner.get("type")
        )
    else:
        refuse_gone(model)
        same = [other for other in model.model_versions if other.id == version.id]
        if same and same[0].files:  # the model route has names as they are downloaded, and every file
            version = same[0].model_copy(update={"model_id": model.id, "air": version.air or same[0].air})
    return Found(model, version, file_id)


def _either(hub: Hub, number: int, text: str) -> Found:
    """A bare integer may be a model id, a version id or both: both are asked, both is refused."""
    model = version = None
    try:
        model = hub.model(number)
    except (NotFound, Archived) as error:
        missing: KnownError = error
    try:
        version = hub.version(number)
    except NotFound:
        if model is None:
            raise missing from None
    if model is not None and version is not None and version.model_id != model.id:
        other = (version.model or {}).get("name") or version.name
        raise Ambiguous(
            f"{number} is both a model and a version",
            hint="say which: a page URL, MODEL@VERSION, or one of the forms above",
            details={
                "candidates": [
                    f"{number}@{model.model_versions[0].id if model.model_versions else '…'}  model `{model.name}`",
                    f"{version.model_id}@{number}  version `{version.name}` of `{other}`",
                ]
            },
        )
    if model is not None:
        return _newest(model, text)
    assert version is not None
    return of_version(hub, version)


def _of_air(hub: Hub, air: Any, text: str) -> Found:
    if not (air.id.isdigit() and (air.version or "").isdigit()):
        if air.id.isdigit() and air.version is None:
            return _newest(hub.model(int(air.id)), text)
        raise InvalidReference(f"`{text}` is an AIR of `{air.source}`, which this hub does not serve")
    found = _of_model(hub, int(air.id), int(air.version), text)
    return replace(found, file_id=int(air.file_id) if air.file_id else None)


def of_hash(hub: Hub, value: str) -> Found:
    version = hub.by_hash(value)
    wanted = value.upper()
    for file in version.files:
        if any(isinstance(h, str) and h.upper() == wanted for h in file.hashes.values()):
            return of_version(hub, version, file.id)
    return of_version(hub, version)


def of_file_name(hub: Hub, stem: str, types: Sequence[str]) -> Found:
    """The version with a file of this name, as a prompt or an infotext writes it (without the suffix).

    Raises NotFound when no model a search for it finds has such a file, Ambiguous when several have.
    """
    from hubctl.hubs.query import SearchQuery

    wanted = Path(stem.replace("\\", "/")).name.casefold()
    words = " ".join("".join(char if char.isalnum() else " " for char in wanted).split())
    found = []
    for model in hub.search(SearchQuery(text=words or stem, types=tuple(types), limit=20)):
        for version in model.model_versions:
            for file in version.files:
                if wanted in {file.name.casefold(), Path(file.name).stem.casefold()}:
                    found.append(Found(model, version.model_copy(update={"model_id": model.id}), file.id))
    if not found:
        raise NotFound(f"the hub finds no file called `{stem}`")
    if len({each.model.id for each in found}) > 1:
        raise Ambiguous(f"`{stem}` is a file of {len({each.model.id for each in found})} models")
    return found[0]


def of_name(hub: Hub, name: str, types: Sequence[str]) -> Found:
    from hubctl.hubs.query import SearchQuery

    models = list(hub.search(SearchQuery(text=name, types=tuple(types), limit=20)))
    exact = [model for model in models if model.name.casefold() == name.casefold()]
    chosen = exact if len(exact) == 1 else models
    if len(chosen) == 1:
        return _newest(hub.model(chosen[0].id), name)
    if not models:
        raise NotFound(
            f"the hub finds nothing called `{name}`", hint=f"try fewer words: `hubctl search {name.split()[0]}`"
        )
    raise Ambiguous(
        f"`{name}` could be any of {len(chosen)} models",
        hint="install one by its id",
        details={
            "candidates": [f"{m.id:>8}  {m.name}  ({m.type}, {_base_model(m)})" for m in chosen[:10]],
            "ids": [m.id for m in chosen[:10]],
        },
    )


def _base_model(model: wire.Model) -> str:
    return (model.model_versions[0].base_model if model.model_versions else None) or "?"


def plan(
    text: str,
    hub: Hub,
    registry: Registry,
    settings: Settings,
    *,
    preferences: Preferences | None = None,
    file_id: int | None = None,
    found: Found | None = None,
) -> InstallPlan:
    """Decide what installing `text` means. Downloads nothing.

    Raises what `resolve` raises, NotFound when no file fits, UnsafeFile for a file judged harmful or a pickle without
    `allow_pickle`, DownloadsDisabled, PolicyForbids, NoSpace.
    """
    from hubctl import choose

    found = found or resolve(text, hub)
    preferences = preferences or Preferences.of(settings)
    choice = choose.file(found.version, preferences, file_id=file_id or found.file_id, model_type=found.model.type)
    refuse_forbidden(found.model, found.version, settings)
    file = choice.file
    have = bool(file.sha256 and registry.has(file.sha256))
    here = registry.get(found.version.id, source=hub.name)
    installed = here is not None and any(f.file_id == file.id for f in here.files) and (have or file.sha256 is None)
    free = shutil.disk_usage(_existing(settings.home)).free
    size = file.size_bytes
    if not have and size is not None and size + SPARE_BYTES > free:
        raise NoSpace(
            f"`{file.name}` needs {_mb(size)} and {_mb(free)} is free in {settings.home}",
            hint="`hubctl prune --dry-run` shows what could be freed",
        )
    return InstallPlan(
        asked=text,
        model=found.model,
        version=found.version,
        file=file,
        why=choice.reasons,
        warnings=(*choice.warnings, *_warnings(found, choice)),
        source=hub.name,
        size=size,
        have=have,
        installed=installed,
        free_bytes=free,
    )


def refuse_forbidden(model: wire.Model, version: wire.ModelVersion, settings: Settings) -> None:
    """What the creator (download switched off) or the user's own policy does not allow."""
    if version.usage_control not in (None, "Download"):
        raise DownloadsDisabled(f"the creator of `{model.name}` has disabled downloads")
    if settings.policy == "commercial" and model.allow_commercial_use is not None:
        uses = model.commercial_uses
        if not uses - {"None"}:
            raise PolicyForbids(
                f"`{model.name}` may not be used commercially, and your policy is `commercial`",
                hint="choose another model, or `hubctl config set policy any`",
            )


def _warnings(found: Found, choice: Choice) -> Iterator[str]:
    version, model = found.version, found.model
    deadline = version.early_access_deadline or version.early_access_ends_at
    if version.availability == "EarlyAccess" or deadline:
        yield f"early access{f' until {deadline[:10]}' if deadline else ''}: the hub may ask for payment"
    if choice.file.sha256 is None:
        yield "the hub declares no SHA256 for this file: it can only be checked by size and by what it holds"
    if model.allow_no_credit is False:
        yield "licence: credit the creator"
    if model.allow_commercial_use is not None and not model.commercial_uses - {"None"}:
        yield "licence: no commercial use"
    if model.allow_derivatives is False:
        yield "licence: no derivatives"
    if model.poi:
        yield "depicts a real person"


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _mb(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# --- doing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installation:
    """What is here now. `changed` is False when everything already was."""

    plan: InstallPlan
    installed: Installed
    path: Path
    changed: bool
    notes: tuple[str, ...] = ()


def execute(
    plan: InstallPlan,
    hub: Hub,
    registry: Registry,
    settings: Settings,
    *,
    on_bytes: OnBytes = lambda name, done, total: None,
    on_event: OnEvent = lambda kind, **facts: None,
) -> Installation:
    """Carry a plan out: download, verify, look at the bytes, write the manifest. Idempotent.

    Raises VerificationFailed, UnsafeFile, NoSpace and every HubError; a good partial is kept for the next try.
    """
    here = registry.get(plan.version.id, source=plan.source)
    if plan.installed and here is not None:
        return Installation(plan, here, _path_of(here, plan.file.id), changed=False)
    sha256 = _fetch(plan, hub, registry, settings, on_bytes, on_event)
    installed = record(plan, hub, registry, sha256)
    return Installation(plan, installed, _path_of(installed, plan.file.id), changed=True)


def _path_of(installed: Installed, file_id: int) -> Path:
    for file in installed.files:
        if file.file_id == file_id:
            return file.path
    return installed.files[0].path


def _fetch(
    plan: InstallPlan, hub: Hub, registry: Registry, settings: Settings, on_bytes: OnBytes, on_event: OnEvent
) -> str:
    """The bytes as a blob: already here, or downloaded, verified and looked at. Returns the SHA256."""
    from hubctl.hubs import download

    file = plan.file
    if plan.have and file.sha256:
        return file.sha256
    url = hub.download_url(plan.version, file)
    with registry.reserve(file.sha256, size=plan.size or 0, key=url) as partial:
        download.fetch(
            hub,
            url,
            partial,
            size=plan.size,
            sha256=file.sha256,
            connections=settings.connections,
            limit_rate=settings.limit_rate,
            on_bytes=lambda done, total: on_bytes(file.name, done, total),
            on_event=on_event,
        )
        look_at(partial.path, file.name, allow_pickle=settings.allow_pickle)
        return partial.seal(file.sha256).sha256


def look_at(path: Path, name: str, *, allow_pickle: bool) -> None:
    """Refuse bytes that are not what their name promises, before they get it.

    Raises VerificationFailed (a web page, a broken header) or UnsafeFile (a pickle that could run code).
    """
    from registry import detect, pickles

    facts = detect.inspect(path)
    if facts.format in {"ckpt", "pt", "pickle", "bin"}:
        report = pickles.scan(path)
        if report.verdict == "dangerous" or (report.verdict != "safe" and not allow_pickle):
            raise UnsafeFile(f"`{name}` is a pickle that may run code: {report.reason}")
    elif facts.format in {None, "unknown"} and Path(name).suffix.lower() in {".safetensors", ".ckpt", ".pt", ".gguf"}:
        raise VerificationFailed(f"`{name}` does not hold a model: its first bytes are of no known format")


def record(plan: InstallPlan, hub: Hub, registry: Registry, sha256: str) -> Installed:
    """Write down everything the hub said, so that it can be shown later, offline, after the page is gone."""
    from hubctl import recommend
    from registry import Manifest, detect

    blob = registry.blob_path(sha256)
    facts = detect.inspect(blob)
    images = example_images(hub, plan.version)
    version = plan.version.model_copy(update={"images": images or plan.version.images, "model_id": plan.model.id})
    settings = recommend.settle(
        version,
        examples_of(images),
        facts,
        None,
        model_description=plan.model.description,
        file_stem=Path(plan.file.name).stem,
    )
    previous = registry.get(version.id, source=plan.source)
    files = {f.file_id: f.sha256 for f in previous.files} if previous else {}
    manifest = Manifest(
        source=plan.source,
        model=plan.model,
        version=version,
        files={**files, plan.file.id: sha256},
        explicit=True,
    )
    registry.add(manifest, facts={plan.file.id: facts.to_json()}, settings=settings.to_json())
    registry.put_images(version.id, images, source=plan.source)
    installed = registry.get(version.id, source=plan.source)
    assert installed is not None
    return installed


def example_images(hub: Hub, version: wire.ModelVersion) -> list[wire.Image]:
    """Example images with their parameters: the gallery's where the hub gives them, else the version's own."""
    try:
        images = list(hub.images(model_version_id=version.id, limit=EXAMPLES))
    except KnownError as error:  # an ornament: the install is not lost for it
        logger.debug("no example images of %s: %s", version.id, error.message)
        images = []
    return images or [image for image in version.images if image.meta]


def examples_of(images: Sequence[wire.Image]) -> list[tuple[Any, int]]:
    """(parameters, reactions) of each image that says how it was made."""
    from hubctl import infotext
    from hubctl.errors import NoParameters

    out = []
    for image in images:
        if image.meta:
            try:
                parameters = infotext.from_meta(image.meta)
            except NoParameters:
                continue
            out.append((parameters, _reactions(image.stats)))
    return out


def _reactions(stats: Mapping[str, Any] | None) -> int:
    counts = (stats or {}).get
    return sum(value for key in ("likeCount", "heartCount", "laughCount") if isinstance(value := counts(key), int))


def offline_refusal(text: str) -> Offline:
    return Offline(f"`{text}` is not installed and --offline forbids asking a hub")

"""Journey: what was typed → version → file → verified blob → manifest.

`plan` decides and can be printed; `execute` does. Nothing is downloaded before a plan exists, nothing gets a good name
before its bytes were verified and looked at.

    plan(text, hub, registry, settings)  →  InstallPlan      --dry-run stops here
    execute(plan, hub, registry)         →  Installation     path, trigger words, recommended settings
    execute_all(plans, …)                →  one result each, side by side; a failure stops nobody else

What is under way is written down before it begins (`Wanted`, in the registry's queue), so that `--resume` finds it
after any end of this process.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl import refs, tokens
from hubctl.config import Settings
from hubctl.errors import (
    Ambiguous,
    Archived,
    Busy,
    DownloadsDisabled,
    InvalidReference,
    KnownError,
    NoSpace,
    NotFound,
    Offline,
    PolicyForbids,
    TakenDown,
    UnsafeFile,
    UsageError,
    VerificationFailed,
)
from registry import wire

if TYPE_CHECKING:
    from hubctl.choose import Choice
    from hubctl.hubs import Hub
    from hubctl.hubs.download import Fetched, Result
    from registry import Installed, Partial, Registry
    from registry.detect import FileFacts

logger = logging.getLogger(__name__)
EXAMPLES = 20  # example images whose parameters are kept with a version
SPARE_BYTES = 64 * 1024 * 1024  # left free beside the file itself: index, manifest, previews
LARGEST_PREVIEW = 16 * 1024 * 1024
FAMILIES = frozenset({"sd1", "sd2", "sdxl", "sd3", "flux1", "flux2"})  # that the header and the hub both name
OnBytes = Callable[[str, int, int | None], None]
OnEvent = Callable[..., None]


def open_hub(settings: Settings, *, name: str | None = None, token: str | None = None) -> Hub:
    """The hub (or the hubs, in order of preference) of the settings, each with the token that belongs to it."""
    from hubctl.hubs import open_hub as connect

    names = (name,) if name else settings.hub_names
    found = []
    for each in names:
        url = settings.hub_url(each)
        stored = tokens.find(url, settings.config_path, alone=len(names) == 1)
        found.append((each, url, token or (stored.value if stored else None)))
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
        return 0 if self.have or self.installed else (self.size or 0)

    @property
    def ref(self) -> str:
        """The exact version, for a look at another time."""
        return f"{self.model.id}@{self.version.id}" if self.model.id else f"version:{self.version.id}"

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
            return _newest(hub, hub.model(model_id), text)
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


def _newest(hub: Hub, model: wire.Model, text: str) -> Found:
    refuse_gone(model)
    for version in model.model_versions:
        if version.files:
            return Found(model, version)
    for version in model.model_versions[:1]:  # right after publishing, hubs list versions before their files
        with contextlib.suppress(NotFound):
            fresh = hub.version(version.id)
            if fresh.files:
                return Found(model, fresh.model_copy(update={"model_id": model.id}))
    raise NotFound(
        f"`{model.name}` has no version with files",
        hint=f"`hubctl show {text}` has the link to its page; try again later",
    )


def refuse_gone(model: wire.Model) -> None:
    """Archived and removed models are listed but cannot be downloaded; say so before anything else is tried."""
    if model.mode == "Archived":
        raise Archived(f"`{model.name}` was archived by its creator: its files can no longer be downloaded here")
    if model.mode == "TakenDown":
        raise TakenDown(f"`{model.name}` was taken down by the hub: its files can no longer be downloaded here")


def _of_model(hub: Hub, model_id: int, version_id: int, text: str) -> Found:
    try:
        model = hub.model(model_id)
    except NotFound:  # its page may be gone while the version is still served
        found = of_version(hub, hub.version(version_id))
        if found.model.id == model_id:
            return found
        raise
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
        return _newest(hub, model, text)
    assert version is not None
    return of_version(hub, version)


def _of_air(hub: Hub, air: Any, text: str) -> Found:
    if not (air.id.isdigit() and (air.version or "").isdigit()):
        if air.id.isdigit() and air.version is None:
            return _newest(hub, hub.model(int(air.id)), text)
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
        return _newest(hub, hub.model(chosen[0].id), name)
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
    replace_changed: bool = False,
) -> InstallPlan:
    """Decide what installing `text` means. Downloads nothing.

    A file that the hub replaced since it was installed stays as it is, with a warning, unless `replace_changed`.

    Raises what `resolve` raises, NotFound when no file fits, UnsafeFile for a file judged harmful or a pickle without
    `allow_pickle`, DownloadsDisabled, PolicyForbids, NoSpace.
    """
    from hubctl import choose
    from hubctl.hubs import source_of

    found = found or resolve(text, hub)
    preferences = preferences or Preferences.of(settings)
    choice = choose.file(found.version, preferences, file_id=file_id or found.file_id, model_type=found.model.type)
    refuse_forbidden(found.model, found.version, settings)
    file = choice.file
    have = bool(file.sha256 and registry.has(file.sha256))
    source = source_of(found.version, hub)
    here = registry.get(found.version.id, source=source)
    held = next((f for f in here.files if f.file_id == file.id), None) if here else None
    replaced = held is not None and file.sha256 is not None and held.sha256 != file.sha256 and _was_declared(held)
    installed = held is not None and registry.has(held.sha256) and not (replaced and replace_changed)
    notes = ("the hub has another file under this name since: `hubctl update --replace` gets it",) if replaced else ()
    free = shutil.disk_usage(_existing(settings.home)).free
    size = file.size_bytes
    if not have and not installed and size is not None and size + SPARE_BYTES > free:
        raise NoSpace(
            f"`{file.name}` needs {_mb(size)} and {_mb(SPARE_BYTES)} beside it; {_mb(free)} is free in {settings.home}",
            hint="`hubctl prune --dry-run` shows what could be freed",
        )
    return InstallPlan(
        asked=text,
        model=found.model,
        version=found.version,
        file=file,
        why=choice.reasons,
        warnings=(*choice.warnings, *_warnings(found, choice), *notes),
        source=source,
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


def _was_declared(held: Any) -> bool:
    """Whether an installed file's SHA256 is the one the hub had declared: then another one now is another file."""
    return (held.facts or {}).get("declared") is not False


def check_space(plans: Sequence[InstallPlan], home: Path) -> None:
    """Together they must fit too. Raises NoSpace."""
    needed = sum({(plan.file.sha256 or plan.file.id): plan.download_bytes for plan in plans}.values())
    free = shutil.disk_usage(_existing(home)).free
    if needed and needed + SPARE_BYTES > free:
        raise NoSpace(
            f"these {len(plans)} files need {_mb(needed)} together and {_mb(SPARE_BYTES)} beside them; {_mb(free)} is "
            f"free in {home}",
            hint="`hubctl prune --dry-run` shows what could be freed; or install fewer at a time",
        )


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _mb(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# --- doing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installation:
    """What is here now. `changed` is False when everything already was; `notes` are worth a person's attention."""

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
    stop: threading.Event | None = None,
) -> Installation:
    """Carry a plan out: download, verify, look at the bytes, write the manifest. Idempotent.

    Raises VerificationFailed, UnsafeFile, NoSpace, Busy, Stopped and every HubError; a good partial is kept for the
    next try. `on_event` gets the download's events and waiting(pid, host), elsewhere(reason).
    """
    from registry import links

    stop = stop or threading.Event()
    wait_for_others(plan, registry, settings, on_event, stop)
    if (here := _already(plan, registry)) is not None:
        return Installation(plan, here, _path_of(here, plan.file.id), changed=False)
    fetched = _bring(plan, hub, registry, settings, on_bytes, on_event, stop)
    installed = record(plan, hub, registry, fetched)
    notes = (*_notes(plan, fetched), *links.show(registry, plan.source, plan.version.id))
    return Installation(plan, installed, _path_of(installed, plan.file.id), changed=True, notes=notes)


def execute_all(
    plans: Sequence[InstallPlan],
    hub: Hub,
    registry: Registry,
    settings: Settings,
    *,
    on_bytes: OnBytes = lambda name, done, total: None,
    on_event: OnEvent = lambda kind, **facts: None,
    stop: threading.Event | None = None,
) -> list[Result]:
    """Several side by side (`settings.parallel` at a time); results in the order of the plans, errors among them.

    Files are told apart by `labels`; each event carries its own as `file`. Raises NoSpace when they do not all fit.
    """
    from hubctl.hubs.download import Job, fetch_many

    check_space(plans, settings.home)

    def job(plan: InstallPlan, label: str) -> Job:
        return Job(
            label,
            lambda stop: execute(
                plan,
                hub,
                registry,
                settings,
                on_bytes=lambda _, done, total: on_bytes(label, done, total),
                on_event=lambda kind, **facts: on_event(kind, file=label, **facts),
                stop=stop,
            ),
        )

    jobs = [job(plan, label) for plan, label in zip(plans, labels(plans), strict=True)]
    return fetch_many(
        jobs,
        parallel=settings.parallel,
        on_event=lambda kind, name, **facts: on_event(kind, file=name, **facts),
        stop=stop,
    )


def labels(plans: Sequence[InstallPlan]) -> list[str]:
    """File names, with ids where several files go by the same name."""
    names = [plan.file.name for plan in plans]
    return [
        name if names.count(name) == 1 else f"{name} ({plan.version.id}, file {plan.file.id})"
        for name, plan in zip(names, plans, strict=True)
    ]


def _already(plan: InstallPlan, registry: Registry) -> Installed | None:
    """The installed version, when nothing is left to do (somebody else may have done it meanwhile)."""
    here = registry.get(plan.version.id, source=plan.source)
    if here is None:
        return None
    held = next((f for f in here.files if f.file_id == plan.file.id), None)
    if held is None or not registry.has(held.sha256):
        return None
    return here if plan.installed or held.sha256 == plan.file.sha256 else None


def _path_of(installed: Installed, file_id: int) -> Path:
    for file in installed.files:
        if file.file_id == file_id:
            return file.path
    return installed.files[0].path


@dataclass(frozen=True)
class _Brought:
    """A blob, by what it was verified, and what its bytes say."""

    sha256: str
    declared: bool
    verified_by: tuple[str, ...]
    facts: FileFacts


def _key(plan: InstallPlan) -> str:
    """What a partial is called while its SHA256 is not known."""
    return f"{plan.source}/{plan.version.id}/{plan.file.id}"


def wait_for_others(
    plan: InstallPlan, registry: Registry, settings: Settings, on_event: OnEvent, stop: threading.Event
) -> None:
    """When another process (or another line of this command) is fetching the same file, its work is used.

    Raises Busy when it holds the file without getting on, Stopped.
    """
    from hubctl.hubs.download import Stopped
    from registry.partial import holder

    told = False
    while (who := holder(registry.home / "partial", sha256=plan.file.sha256, key=_key(plan))) is not None:
        if plan.file.sha256 and registry.has(plan.file.sha256):
            return
        quiet = time.time() - who.touched
        if quiet > settings.patience:
            raise Busy(
                f"process {who.pid} on {who.host} holds the download of `{plan.file.name}` and has written nothing "
                f"for {quiet:.0f} s",
                hint="wait for it, or end it; what it has so far is then continued",
                details={"pid": who.pid, "host": who.host},
            )
        if not told:
            on_event("waiting", pid=who.pid, host=who.host)
            told = True
        if stop.wait(0.2):
            raise Stopped("stopped while another process was downloading the same file")


def _bring(
    plan: InstallPlan, hub: Hub, registry: Registry, settings: Settings, on_bytes: OnBytes, on_event: OnEvent,
    stop: threading.Event,
) -> _Brought:  # fmt: skip
    """The bytes as a blob: already here, or downloaded, verified and looked at."""
    file, allow_pickle = plan.file, settings.allow_pickle
    if file.sha256 and registry.has(file.sha256):
        facts = look_at(registry.blob_path(file.sha256), file.name, allow_pickle=True)
        return _Brought(file.sha256, True, ("SHA256",), facts)
    with registry.reserve(file.sha256, size=plan.size or 0, key=_key(plan)) as partial:
        done = _download(plan, hub, partial, settings, on_bytes, on_event, stop)
        try:
            facts = look_at(partial.path, file.name, allow_pickle=allow_pickle)
        except VerificationFailed as error:
            if not error.details.get("allowed_with"):
                partial.abandon()
            raise
        blob = partial.seal()
    by = (done.verified_by,) if done.verified_by else (*(("size",) if plan.size else ()), *_declared(file))
    return _Brought(blob.sha256, done.verified_by == "SHA256", by, facts)


def _download(
    plan: InstallPlan, hub: Hub, partial: Partial, settings: Settings, on_bytes: OnBytes, on_event: OnEvent,
    stop: threading.Event,
) -> Fetched:  # fmt: skip
    """From the nearest place that has it; the next one goes on where the one before failed."""
    from hubctl.hubs import download, ratelimit
    from hubctl.hubs.transport import same_hub

    file = plan.file
    urls = hub.download_urls(plan.version, file)
    blake3 = file.hashes.get("BLAKE3")
    while True:
        url = urls.pop(0)
        try:
            return download.fetch(
                hub,
                url,
                partial,
                size=plan.size,
                sha256=file.sha256,
                blake3=blake3 if isinstance(blake3, str) and len(blake3) == 64 else None,
                verify=None if file.sha256 else _judge(file),
                connections=settings.connections,
                limit_rate=ratelimit.shared(settings.limit_rate),
                on_bytes=lambda done, total: on_bytes(file.name, done, total),
                on_event=on_event,
                stop=stop,
                what=f"`{file.name}`",
            )
        except (download.Stopped, NoSpace):
            raise
        except KnownError as error:
            gone = isinstance(error, NotFound)
            urls = [other for other in urls if gone or not same_hub(url, other)]
            if not urls:
                raise
            on_event("elsewhere", reason=error.message)


def _declared(file: wire.ModelFile) -> dict[str, str]:
    """The hashes that must speak for a file without a SHA256. The weaker ones only where there is nothing better."""
    said = {kind: value.strip().upper() for kind, value in file.hashes.items() if isinstance(value, str)}
    whole = {kind: said[kind] for kind in ("BLAKE3", "AutoV2", "CRC32") if said.get(kind)}
    return whole or {kind: said[kind] for kind in ("AutoV3", "AutoV1") if said.get(kind)}


def _judge(file: wire.ModelFile) -> Callable[[Partial], str | None] | None:
    expected = _declared(file)

    def judge(partial: Partial) -> str | None:
        from registry import hashes

        found = hashes.hash_file(partial.path, expected)
        for kind, value in expected.items():
            if kind in found and found[kind] != value.removeprefix("0X").zfill(len(found[kind]))[: len(found[kind])]:
                return f"its {kind} is {found[kind][:12]}, expected {value[:12]}"
        return None

    return judge if expected else None


# --- looking at bytes -------------------------------------------------------------------------------------------------

MODEL_SUFFIXES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"})
HARMLESS_FORMATS = frozenset({"safetensors", "gguf"})
PICKLES = frozenset({"ckpt", "pt", "pickle", "bin"})


def look_at(path: Path, name: str, *, allow_pickle: bool) -> FileFacts:
    """What the bytes are, before they get a good name.

    Raises VerificationFailed (a web page, a broken header) or UnsafeFile: a pickle without `allow_pickle`, and one that
    would run programs in any case.
    """
    from registry import detect, pickles

    with _shown(path, name) as shown:
        facts = detect.inspect(shown)
        report = None if facts.format in HARMLESS_FORMATS else pickles.scan(shown)
    if report is not None and report.verdict == "dangerous":
        raise UnsafeFile(
            f"`{name}` would run code when it is loaded: {report.reason}",
            hint="no option accepts that; look for the safetensors file of the same version",
            details=report.to_json(),
        )
    if report is not None and not allow_pickle and (facts.format in PICKLES or report.verdict != "safe"):
        raise UnsafeFile(
            f"`{name}` is a pickle, which can run code when it is loaded; a look inside says: {report.reason}",
            details={**report.to_json(), "allowed_with": "--allow-pickle"},
        )
    if facts.format == "unknown" and Path(name).suffix.lower() in MODEL_SUFFIXES:
        reason = facts.notes[0] if facts.notes else "its first bytes are of no known format"
        raise VerificationFailed(f"`{name}` does not hold a model: {reason}")
    return facts


@contextlib.contextmanager
def _shown(path: Path, name: str) -> Iterator[Path]:
    """A partial or blob under a name with the suffix that readers go by."""
    from registry.fs import safe_name

    with tempfile.TemporaryDirectory(prefix="hubctl-look-") as folder:
        link = Path(folder) / safe_name(name)
        try:
            link.symlink_to(path.absolute())
        except OSError:
            link = path
        yield link


def _notes(plan: InstallPlan, brought: _Brought) -> tuple[str, ...]:
    """Where the bytes are not what the hub says of them, in a way that stops nothing."""
    from registry import layouts

    facts, out = brought.facts, []
    if "BLAKE3" in brought.verified_by and plan.file.sha256:
        out.append("the hub's SHA256 of this file is wrong; its BLAKE3 and size are right, so it was accepted")
    elif not brought.declared:
        out.append(f"the hub declares no SHA256: verified by {', '.join(brought.verified_by) or 'nothing'} only")
    told = layouts.kind_of(plan.file.type, None, plan.model.type)
    found = layouts.canonical(facts.kind)
    if found and told not in (None, "other", found):
        out.append(f"the hub calls it {_spoken(told)}, its tensors are those of {_spoken(found)}")
    family = layouts.base_family(plan.version.base_model)
    if facts.base_family and facts.base_family != family and {facts.base_family, family} <= FAMILIES:
        out.append(f"the hub says {plan.version.base_model}, its tensors are of the {facts.base_family} family")
    return tuple(out)


def _spoken(kind: str | None) -> str:
    name = (kind or "something else").replace("_", " ")
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


# --- writing down -----------------------------------------------------------------------------------------------------


def record(plan: InstallPlan, hub: Hub, registry: Registry, brought: _Brought) -> Installed:
    """Write down everything the hub said, so that it can be shown later, offline, after the page is gone."""
    from hubctl import recommend
    from registry import Manifest

    facts = brought.facts
    images = example_images(hub, plan.version)
    version = plan.version.model_copy(update={"images": images or plan.version.images, "model_id": plan.model.id})
    settings = recommend.settle(
        version,
        examples_of(images),
        facts,
        None,
        model_description=plan.model.description,
        file_stem=Path(plan.file.name).stem,
        model_type=plan.model.type,
        model_name=plan.model.name,
    )
    previous = registry.get(version.id, source=plan.source)
    files = {f.file_id: f.sha256 for f in previous.files} if previous else {}
    manifest = Manifest(
        source=plan.source,
        model=plan.model,
        version=version,
        files={**files, plan.file.id: brought.sha256},
        explicit=True,
    )
    seen = {**facts.to_json(), "declared": brought.declared, "verified_by": list(brought.verified_by)}
    registry.add(manifest, facts={plan.file.id: seen}, settings=settings.to_json())
    registry.put_images(version.id, images, source=plan.source)
    keep_preview(hub, registry, [*plan.version.images, *images], source=plan.source)
    installed = registry.get(version.id, source=plan.source)
    assert installed is not None
    return installed


def keep_preview(hub: Hub, registry: Registry, images: Sequence[wire.Image], *, source: str) -> Path | None:
    """The first picture of a version, for showing it offline. An ornament: no failure here loses an install."""
    for image in images[:EXAMPLES]:
        if image.image_id is None or not image.url or image.type not in (None, "image"):
            continue
        try:
            kept = registry.picture(image.image_id, source=source)
            return kept or registry.put_picture(
                image.image_id, hub.picture(image.url, limit=LARGEST_PREVIEW), source=source
            )
        except (KnownError, OSError) as error:
            logger.info("no preview of image %s: %s", image.image_id, error)
            return None
    return None


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


# --- what is under way ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """An install as it stands in the queue: what was asked, of which hub, with which options."""

    ref: str
    hub: str | None = None
    file_id: int | None = None
    allow_pickle: bool = False

    def __str__(self) -> str:
        parts = [self.ref]
        parts += ["--hub", self.hub] if self.hub else []
        parts += ["--file", str(self.file_id)] if self.file_id else []
        return shlex.join(parts) + (" --allow-pickle" if self.allow_pickle else "")

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """What `str` wrote; other text is a reference and nothing else."""
        try:
            words = shlex.split(text)
        except ValueError:
            return cls(text)
        named: dict[str, str] = {}
        plain: list[str] = []
        while words:
            word = words.pop(0)
            if word in {"--hub", "--file"} and words:
                named[word] = words.pop(0)
            elif word != "--allow-pickle":
                plain.append(word)
        number = named.get("--file", "")
        return cls(
            " ".join(plain), named.get("--hub"), int(number) if number.isdecimal() else None, "--allow-pickle" in text
        )


def wanted(plan: InstallPlan, settings: Settings) -> Wanted:
    """A plan as a queue entry that means exactly it."""
    return Wanted(plan.ref, settings.hub, plan.file.id, settings.allow_pickle)


def is_hopeless(error: KnownError) -> bool:
    """Whether the same install cannot succeed later: `--resume` need not try it again."""
    never = (InvalidReference, UsageError, Ambiguous, NotFound, Archived, TakenDown, DownloadsDisabled, PolicyForbids)
    return isinstance(error, (*never, UnsafeFile))

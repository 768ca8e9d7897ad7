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

import logging
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl import tokens
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
from hubctl.look import look_at
from hubctl.resolve import Found, of_file_name, of_hash, of_name, of_version, refuse_gone, resolve
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
class Preferences:
    """Which of a version's files a person would rather have."""

    format: str = "SafeTensor"
    fp: str = "fp16"
    size: str = "pruned"
    allow_pickle: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Preferences:
        return cls(settings.prefer_format, settings.prefer_fp, settings.prefer_size, settings.allow_pickle)


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
    blake3, autov3 = _digits(file, "BLAKE3", 64), _digits(file, "AutoV3", 12)
    while True:
        url = urls.pop(0)
        try:
            return download.fetch(
                hub,
                url,
                partial,
                size=plan.size,
                sha256=file.sha256,
                blake3=blake3,
                autov3=autov3,
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


def _digits(file: wire.ModelFile, kind: str, length: int) -> str | None:
    """A declared hash that has the length it should have (a longer AutoV3 is cut as the hub cuts it)."""
    value = file.hashes.get(kind)
    return value.strip()[:length] if isinstance(value, str) and len(value.strip()) >= length else None


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


def _notes(plan: InstallPlan, brought: _Brought) -> tuple[str, ...]:
    """Where the bytes are not what the hub says of them, in a way that stops nothing."""
    from registry import layouts

    facts, out = brought.facts, []
    if plan.file.sha256 and not brought.declared:
        by = ", ".join(brought.verified_by)
        out.append(f"the hub's SHA256 of this file is wrong; its {by} and size are right, so it was accepted")
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
    if installed is None:
        raise NotFound(f"`{plan.file.name}` was removed again by another process", hint="install it again")
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
    from hubctl.recommend import reactions

    out = []
    for image in images:
        if image.meta:
            try:
                parameters = infotext.from_meta(image.meta)
            except NoParameters:
                continue
            out.append((parameters, reactions(image.stats)))
    return out


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


__all__ = [
    "Found",
    "InstallPlan",
    "Installation",
    "Preferences",
    "Wanted",
    "example_images",
    "examples_of",
    "execute",
    "execute_all",
    "look_at",
    "of_file_name",
    "of_hash",
    "of_name",
    "of_version",
    "offline_refusal",
    "open_hub",
    "plan",
    "refuse_forbidden",
    "refuse_gone",
    "resolve",
    "wanted",
]

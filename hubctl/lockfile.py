"""A project's models: what it needs (`hubctl.toml`, written by people), and exactly what that is (`hubctl.lock`).

    # hubctl.toml                                 # hubctl.lock
    [models]                                      [[model]]
    thanos = "4201"                               name = "thanos"
    toon = { ref = "4100@41001", fp = "fp16" }    version_id = 42011, file_id = 7020, sha256 = "…"
                                                  size = 478464, licence = { … }
    [ui]
    comfyui = "ComfyUI"

    need → lock (asks a hub)  → sync (installs what the lock names, shows it in the project's UI folders)

A lock is text in one order, so that the same needs give the same bytes on every machine.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.config import Settings
from hubctl.errors import KnownError, NotFound, UsageError, VerificationFailed
from registry import outside

if TYPE_CHECKING:
    from hubctl import install
    from hubctl.hubs import Hub
    from registry import Installed, Registry, wire

PROJECT, LOCK = "hubctl.toml", "hubctl.lock"
FORMAT = 1
PREFERENCES = ("fp", "size", "format")
RIGHTS = ("allowNoCredit", "allowCommercialUse", "allowDerivatives", "allowDifferentLicense")


class LockOutdated(UsageError):
    """`hubctl.toml` asks for something the lock does not answer."""

    code = "lock_outdated"
    default_hint = "`hubctl lock` brings it up to date"


@dataclass(frozen=True)
class Need:
    """One line of `[models]`: a reference, and which of its files."""

    name: str
    ref: str
    fp: str | None = None
    size: str | None = None
    format: str | None = None
    file_id: int | None = None


@dataclass(frozen=True)
class Locked:
    """Exactly one file. `licence` holds the hub's flags as they were when it was locked."""

    name: str
    ref: str
    source: str
    model_id: int
    version_id: int
    file_id: int
    file: str
    sha256: str
    size: int
    model: str
    version: str
    type: str
    base_model: str
    creator: str
    air: str
    licence: Mapping[str, Any]

    @property
    def page(self) -> str:
        return f"https://civitai.com/models/{self.model_id}?modelVersionId={self.version_id}"


@dataclass(frozen=True)
class Project:
    """A folder with a `hubctl.toml`. `uis`: layout name → folder, relative to it."""

    root: Path
    needs: tuple[Need, ...] = ()
    uis: Mapping[str, str] = ()  # type: ignore[assignment]
    locked: tuple[Locked, ...] = ()

    def outdated(self) -> list[str]:
        """Names whose need the lock does not answer, or that only the lock knows."""
        by_name = {entry.name: entry for entry in self.locked}
        wanted = {need.name: need for need in self.needs}
        stale = [name for name, need in wanted.items() if name not in by_name or by_name[name].ref != _answered(need)]
        return stale + [name for name in by_name if name not in wanted]


def _answered(need: Need) -> str:
    """A need as the lock remembers it: any change of the line makes the entry stale."""
    extras = [f"{key}={getattr(need, key)}" for key in (*PREFERENCES, "file_id") if getattr(need, key) is not None]
    return " ".join([need.ref, *extras])


# --- reading and writing ----------------------------------------------------------------------------------------------


def find(start: Path) -> Path | None:
    """The nearest folder upwards with a `hubctl.toml`."""
    return next(
        (folder for folder in (start.absolute(), *start.absolute().parents) if (folder / PROJECT).is_file()), None
    )


def load(root: Path) -> Project:
    """Raises NotFound without a `hubctl.toml`, UsageError for a line that cannot be meant."""
    path = root / PROJECT
    if not path.is_file():
        raise NotFound(f"there is no {PROJECT} in {root}", hint="`hubctl add REF` starts one")
    data = _toml(path)
    models, uis = data.get("models") or {}, data.get("ui") or {}
    if not isinstance(models, dict) or not isinstance(uis, dict):
        raise UsageError(
            f"[models] and [ui] in {path} must be tables", hint='for example: [models] and thanos = "4201"'
        )
    needs = tuple(_need(str(name), entry, path) for name, entry in models.items())
    for layout, folder in uis.items():
        if not isinstance(folder, str):
            raise UsageError(f"ui `{layout}` in {path} is no folder", hint=f'write: {layout} = "ComfyUI"')
    return Project(root, needs, dict(uis), read_lock(root / LOCK))


def _need(name: str, entry: Any, path: Path) -> Need:
    if isinstance(entry, str):
        return Need(name, entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("ref"), str):
        raise UsageError(
            f"model `{name}` in {path} has no ref", hint=f'write: {name} = "4201" or {{ ref = "4201", fp = "fp16" }}'
        )
    unknown = entry.keys() - {"ref", "file", *PREFERENCES}
    if unknown:
        raise UsageError(
            f"model `{name}` in {path} has an unknown key `{sorted(unknown)[0]}`",
            hint="known: ref, file, fp, size, format",
        )
    chosen = {key: str(entry[key]) for key in PREFERENCES if key in entry}
    return Need(name, entry["ref"], file_id=int(entry["file"]) if "file" in entry else None, **chosen)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint="mend the line") from None


def read_lock(path: Path) -> tuple[Locked, ...]:
    """Raises UsageError for a damaged lock or one of a newer hubctl."""
    if not path.is_file():
        return ()
    data = _toml(path)
    if data.get("format", 0) != FORMAT:
        raise UsageError(f"{path} was written by another hubctl (format {data.get('format')})", hint="upgrade hubctl")
    try:
        entries = tuple(Locked(**{**entry, "licence": entry.get("licence") or {}}) for entry in data.get("model") or ())
    except TypeError:
        raise UsageError(f"{path} is damaged", hint="`hubctl lock` writes it anew") from None
    if any(not re.fullmatch(r"[0-9a-f]{64}", entry.sha256) for entry in entries):
        raise UsageError(f"{path} is damaged: a SHA256 is not one", hint="`hubctl lock` writes it anew")
    return entries


def dump_lock(entries: Iterable[Locked]) -> str:
    """The lock's text: entries by name, keys in one order."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `hubctl lock`. Edit hubctl.toml instead."))
    document["format"] = FORMAT
    tables = tomlkit.aot()
    for entry in sorted(entries, key=lambda each: (each.name, each.version_id, each.file_id)):
        table = tomlkit.table()
        for key, value in entry.__dict__.items():
            if key != "licence":
                table[key] = value
        licence = tomlkit.inline_table()
        licence.update({key: value for key, value in entry.licence.items() if value is not None})
        table["licence"] = licence
        tables.append(table)
    document["model"] = tables
    return tomlkit.dumps(document)


def write_lock(path: Path, entries: Iterable[Locked]) -> None:
    _write(path, dump_lock(entries))


def _write(path: Path, text: str) -> None:
    outside.sweep(path.parent)
    outside.write(path, text.encode())


def add_need(root: Path, need: Need) -> None:
    """Put one line into `hubctl.toml`, made if need be; comments and order of the rest stay."""
    import tomlkit

    path = root / PROJECT
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    if "models" not in document:
        document["models"] = tomlkit.table()
    extras = {key: getattr(need, key) for key in PREFERENCES if getattr(need, key)}
    if need.file_id is not None:
        extras["file"] = need.file_id
    value: Any = need.ref
    if extras:
        value = tomlkit.inline_table()
        value.update({"ref": need.ref, **extras})
    document["models"][need.name] = value
    _write(path, tomlkit.dumps(document))


def slug(text: str) -> str:
    """A key for `[models]`: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:40] or "model"


# --- deciding ---------------------------------------------------------------------------------------------------------


def resolve(need: Need, hub: Hub, registry: Registry, settings: Settings) -> tuple[Locked, install.InstallPlan]:
    """Ask the hub which file a need means now. Raises as `install.plan` does, VerificationFailed without a SHA256."""
    from hubctl import install

    preferences = install.Preferences.of(settings)
    given = {key: getattr(need, key) for key in PREFERENCES if getattr(need, key)}
    plan = install.plan(
        need.ref, hub, registry, settings, preferences=replace(preferences, **given), file_id=need.file_id
    )
    if not plan.file.sha256:
        raise VerificationFailed(
            f"the hub declares no SHA256 for `{plan.file.name}`, so it cannot be locked", hint="install it, then lock"
        )
    return _locked(
        plan.model, plan.version, plan.file.id, plan.file.name, plan.file.sha256, plan.size or 0,
        source=plan.source, name=need.name, ref=_answered(need),
    ), plan  # fmt: skip


def _locked(
    model: wire.Model, version: wire.ModelVersion, file_id: int, file: str, sha256: str, size: int, *,
    source: str, name: str, ref: str,
) -> Locked:  # fmt: skip
    answer = model.dump()
    return Locked(
        name=name,
        ref=ref,
        source=source,
        model_id=model.id,
        version_id=version.id,
        file_id=file_id,
        file=file,
        sha256=sha256,
        size=size,
        model=model.name,
        version=version.name,
        type=model.type or "",
        base_model=version.base_model or "",
        creator=(model.creator.username if model.creator else None) or "",
        air=version.air or "",
        licence={key: _plain(answer[key]) for key in RIGHTS if answer.get(key) is not None},
    )


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value if isinstance(value, bool) else str(value)


def lock(
    project: Project, hub: Hub, registry: Registry, settings: Settings, *, upgrade: Sequence[str] | None
) -> tuple[Locked, ...]:
    """The lock's new entries. What is locked already stays; `upgrade`: names to ask again, empty = all of them."""
    kept = {entry.name: entry for entry in project.locked}
    again = {need.name for need in project.needs} if upgrade is not None and not upgrade else set(upgrade or ())
    unknown = again - {need.name for need in project.needs}
    if unknown:
        raise NotFound(
            f"{PROJECT} needs no `{sorted(unknown)[0]}`", hint="needs: " + ", ".join(n.name for n in project.needs)
        )
    out = []
    for need in project.needs:
        entry = kept.get(need.name)
        if entry is None or entry.ref != _answered(need) or need.name in again:
            entry, _ = resolve(need, hub, registry, settings)
        out.append(entry)
    return tuple(out)


@dataclass(frozen=True)
class Step:
    """What sync does for one entry: nothing (`here`), a row for bytes that are here, or a download."""

    entry: Locked
    here: bool
    have: bool

    @property
    def download_bytes(self) -> int:
        return 0 if self.here or self.have else self.entry.size


def plan_sync(entries: Sequence[Locked], registry: Registry) -> tuple[Step, ...]:
    """Hold a lock against what is here; asks nobody."""
    return tuple(Step(entry, _installed(entry, registry) is not None, registry.has(entry.sha256)) for entry in entries)


def _installed(entry: Locked, registry: Registry) -> Installed | None:
    item = registry.get(entry.version_id, source=entry.source)
    if item is not None and any(file.sha256 == entry.sha256 for file in item.files) and registry.has(entry.sha256):
        return item
    return None


def plan_install(entry: Locked, hub: Hub, registry: Registry, settings: Settings) -> install.InstallPlan:
    """How to get exactly this file, by its version and file id, else by its SHA256 wherever it is now.

    Raises VerificationFailed when the hub serves other bytes under the locked ids and knows the locked ones no more.
    """
    from hubctl import install

    try:
        found = install.of_version(hub, hub.version(entry.version_id))
        if not any(file.sha256 == entry.sha256 for file in found.version.files):
            raise NotFound(f"version {entry.version_id} no longer has the locked file")
    except KnownError as gone:
        try:
            found = install.of_hash(hub, entry.sha256)
        except KnownError:
            if not isinstance(gone, NotFound):
                raise gone from None
            raise VerificationFailed(
                f"`{entry.file}` as it was locked is no longer on {hub.name}: {gone.message}",
                hint=f"try another --hub, or `hubctl lock --upgrade {entry.name}` to take what is there now",
            ) from None
    file = next(file for file in found.version.files if file.sha256 == entry.sha256)
    return install.plan(entry.name, hub, registry, settings, found=found, file_id=file.id, replace_changed=True)


def entry_of(item: Installed, name: str | None = None) -> Locked:
    """An installed version's main file as a lock entry."""
    file, model, version = item.files[0], item.model, item.version
    return _locked(
        model, version, file.file_id, file.name, file.sha256, file.size,
        source=item.source, name=name or slug(Path(file.name).stem), ref=f"{model.id}@{version.id}",
    )  # fmt: skip

"""Removing, and the trash that makes it cost nothing.

    trash/<when>-<model id>-<version id>.json      the manifest of a removed version, with why and when

Trashing moves a manifest and takes its names away; the blobs stay where they are and are deleted when the last manifest
that names them, here or in the trash, is. So restoring is putting the manifest back, and a kill at any point leaves
either the version or its trash entry.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import index
from registry import manifest as manifests
from registry.errors import Ambiguous, KnownError, NotFound, UsageError
from registry.fs import fsync_dir, write_atomic
from registry.manifest import Manifest, now

if TYPE_CHECKING:
    from registry.local import Registry

CHUNK = 50  # versions per transaction
LONGEST = 1.0  # seconds a transaction that deletes may keep others waiting


@dataclass(frozen=True)
class RemovalPlan:
    """What a removal would do, names before the bytes they name."""

    versions: tuple[tuple[str, int], ...]
    paths: tuple[Path, ...]
    blobs: tuple[str, ...]
    frees: int
    note: str = ""
    links: tuple[Path, ...] = ()  # names in UI folders that go with it

    def to_json(self) -> dict[str, Any]:
        return {
            "versions": [{"source": source, "version_id": version} for source, version in self.versions],
            "paths": [str(path) for path in self.paths],
            "links": [str(path) for path in self.links],
            "blobs": list(self.blobs),
            "frees": self.frees,
            "note": self.note,
        }


@dataclass(frozen=True)
class RemovalReport:
    """`freed` bytes are free now; `waiting` will be when the trash is emptied."""

    freed: int
    waiting: int = 0
    versions: int = 0


@dataclass(frozen=True)
class Trashed:
    """A removed version that can be restored."""

    path: Path
    source: str
    model_id: int
    version_id: int
    name: str
    version_name: str
    removed_at: datetime
    reason: str
    blobs: tuple[str, ...]

    @property
    def ref(self) -> str:
        return f"{self.model_id}@{self.version_id}"

    def expires_at(self, days: int) -> datetime:
        return self.removed_at + timedelta(days=days)

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "source": self.source,
            "name": self.name,
            "version": self.version_name,
            "removed_at": self.removed_at.isoformat(timespec="seconds"),
            "reason": self.reason,
        }


# --- removing ---------------------------------------------------------------------------------------------------------


def plan_remove(registry: Registry, versions: Sequence[tuple[str, int]]) -> RemovalPlan:
    """What removing these versions does; blobs another version uses stay."""
    going = list(dict.fromkeys(versions))
    files: list[sqlite3.Row] = []
    links: list[sqlite3.Row] = []
    for source, version_id in going:
        key = (source, version_id)
        files += registry.rows("SELECT * FROM installed_file WHERE source = ? AND version_id = ?", key)
        links += registry.rows("SELECT * FROM link WHERE +source = ? AND version_id = ?", key)
    wanted, blobs, kept = set(going), [], set()
    for sha in dict.fromkeys(row["sha256"] for row in files):
        users = registry.rows("SELECT source, version_id FROM installed_file WHERE sha256 = ?", (sha,))
        if all((user[0], user[1]) in wanted for user in users):
            blobs.append(sha)
        else:
            kept.add(sha)
    frees = elsewhere = 0
    for sha in blobs:
        freed, bytes_on_disk = _frees(registry, sha, files, links)
        frees += freed
        elsewhere += 0 if freed else bytes_on_disk
    shared = sum(1 for row in files if row["sha256"] in kept)
    notes = [f"{shared} file(s) stay: another version uses them"] if shared else []
    if elsewhere:
        notes.append(f"{elsewhere / 1e6:.0f} MB stay on disk: other folders link them")
    return RemovalPlan(
        tuple(going),
        tuple(registry.home / row["path"] for row in files if row["path"]),
        tuple(blobs),
        frees,
        "; ".join(notes),
        tuple(Path(row["path"]) for row in links),
    )


def _frees(registry: Registry, sha: str, files: list[sqlite3.Row], links: list[sqlite3.Row]) -> tuple[int, int]:
    """(bytes that are free when our names of a blob are gone, bytes it takes)"""
    blob = registry.blob_path(sha)
    try:
        status = blob.lstat()
    except OSError:
        return 0, 0
    tree = {row["path"] for row in files if row["sha256"] == sha and row["placed"] == "hardlink"}
    ours = [registry.home / path for path in tree] + [
        Path(row["path"]) for row in links if row["sha256"] == sha and row["kind"] == "hardlink"
    ]
    names = 1 + sum(1 for path in ours if is_same(path, status))
    taken = status.st_blocks * 512
    return (taken if status.st_nlink <= names else 0), taken


def is_same(path: Path, status: os.stat_result) -> bool:
    """Whether a name, not followed, is this inode."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)


def remove(registry: Registry, plan: RemovalPlan, *, to_trash: bool, reason: str = "") -> RemovalReport:
    """Carry out a removal: names in UI folders, then rows and tree, then the manifest. Raises Busy."""
    from registry import ballast, links

    ballast.throw_off(registry.home)
    count = 0
    for start in range(0, len(plan.versions), CHUNK):
        chunk = plan.versions[start : start + CHUNK]
        with registry.linking():  # or another process could show a file again just before its row goes
            links.unlink(registry, chunk)
            with registry.changing() as db:
                for source, version_id in chunk:
                    count += _take_out(registry, db, source, version_id, to_trash=to_trash, reason=reason)
    if to_trash:
        return RemovalReport(0, plan.frees, count)
    return RemovalReport(delete_blobs(registry, plan.blobs), 0, count)


def _take_out(
    registry: Registry, db: sqlite3.Connection, source: str, version_id: int, *, to_trash: bool, reason: str
) -> bool:
    """One version, its links gone: rows, names, manifest, in this order. False when it is gone already."""
    key = (source, version_id)
    row = db.execute("SELECT model_id FROM model_version WHERE source = ? AND version_id = ?", key).fetchone()
    if row is None:
        return False
    names = [r[0] for r in db.execute("SELECT path FROM installed_file WHERE source = ? AND version_id = ?", key)]
    index.drop(db, *key)
    for name in names:
        registry.forget_name(name)
    manifest = manifests.path_of(registry.at.manifests, source, row[0], version_id)
    if to_trash:
        _move(registry.home / "trash", manifest, reason)
    else:
        manifest.unlink(missing_ok=True)
    with suppress(OSError):
        manifest.parent.rmdir()
    return True


def _move(trash: Path, manifest: Path, reason: str) -> None:
    try:
        data = manifests.load(manifest)
    except FileNotFoundError:
        return
    data["removed"] = {"at": now(), "reason": reason}
    write_atomic(manifest, _dump(data))
    trash.mkdir(exist_ok=True)
    target = trash / _entry_name(manifest.parent.name, manifest.stem)
    manifest.replace(target)
    fsync_dir(trash)
    fsync_dir(manifest.parent)


def delete_blobs(registry: Registry, shas: Iterable[str], *, grace: float = 0) -> int:
    """Delete those of these blobs that no manifest names, here or in the trash; returns the bytes that frees now.

    One that came, or was fetched again, less than `grace` seconds ago stays: a manifest may be about to name it.
    """
    todo, freed = list(dict.fromkeys(shas)), 0
    while todo:
        with registry.settled() as db:
            until, named = time.monotonic() + LONGEST, references(registry)
            while todo and time.monotonic() < until:
                sha = todo.pop()
                if sha in named or db.execute("SELECT 1 FROM installed_file WHERE sha256 = ?", (sha,)).fetchone():
                    continue
                if grace and _age(registry.blob_path(sha)) <= grace:
                    continue
                freed += registry.blobs.delete(sha)
                db.execute("DELETE FROM blob WHERE sha256 = ?", (sha,))
    return freed


def _age(path: Path) -> float:
    """Seconds since a file got its newest name."""
    try:
        status = path.stat()
    except OSError:
        return 0.0
    return time.time() - max(status.st_mtime, status.st_ctime)


def keep(registry: Registry, manifest: Manifest, reason: str = "replaced by other bytes") -> None:
    """Put a version as it was into the trash: it is about to be written anew. Inside a transaction."""
    data = {**manifest.to_json(), "removed": {"at": now(), "reason": reason}}
    folder = registry.home / "trash"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / _entry_name(manifest.model.id, manifest.version.id), _dump(data))


def _entry_name(model_id: object, version_id: object) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return f"{stamp}-{time.time_ns() % 10**9:09d}-{model_id}-{version_id}.json"


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")


# --- the trash --------------------------------------------------------------------------------------------------------


def entries(registry: Registry) -> list[Trashed]:
    """What can be restored, oldest first."""
    return [entry for entry, stale in _read(registry) if not stale]


def leftovers(registry: Registry) -> list[Path]:
    """Entries whose version is still, or again, installed as it was: a kill came between two steps."""
    return [entry.path for entry, stale in _read(registry) if stale]


def references(registry: Registry) -> set[str]:
    """Blobs the trash needs."""
    return {sha for entry, stale in _read(registry) if not stale for sha in entry.blobs}


def _read(registry: Registry) -> Iterator[tuple[Trashed, bool]]:
    for path in sorted((registry.home / "trash").glob("*.json")):
        try:
            data = manifests.load(path)
            removed = data.get("removed") or {}
            entry = Trashed(
                path,
                data["source"],
                data["model"]["id"],
                data["version"]["id"],
                str(data["model"].get("name") or ""),
                str(data["version"].get("name") or ""),
                datetime.fromisoformat(removed.get("at") or data["installed_at"]),
                str(removed.get("reason") or ""),
                tuple(data["files"].values()),
            )
        except (KnownError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        yield entry, _is_stale(registry, entry, data)


def _is_stale(registry: Registry, entry: Trashed, data: dict[str, Any]) -> bool:
    """Whether the very same installation is in its place, so that only a kill can have left this entry."""
    path = manifests.path_of(registry.at.manifests, entry.source, entry.model_id, entry.version_id)
    with suppress(OSError, KnownError):
        there = manifests.load(path)
        return all(there.get(name) == data.get(name) for name in ("installed_at", "files"))
    return False


def find(registry: Registry, text: str) -> Trashed:
    """The entry a text means: MODEL@VERSION, a version or model id, or part of the name. Newest wins among equals.

    Raises NotFound, Ambiguous.
    """
    every = entries(registry)
    wanted = text.strip().casefold().rpartition(":")[2]
    exact = [e for e in every if wanted in {e.ref, str(e.version_id), str(e.model_id), e.name.casefold(), e.path.stem}]
    found = {e.ref: e for e in exact or [e for e in every if wanted and wanted in e.name.casefold()]}
    if not found:
        raise NotFound(f"the trash has no `{text}`", hint="`hubctl trash list` shows what it has")
    if len(found) > 1:
        names = [f"{e.ref}  {e.name} · {e.version_name}" for e in found.values()]
        raise Ambiguous(
            f"`{text}` could be any of {len(names)} removed versions",
            hint="say which by MODEL@VERSION",
            details={"candidates": names[:10]},
        )
    return next(iter(found.values()))


def restore(registry: Registry, entry: Trashed) -> None:
    """Put a removed version back. Raises NotFound when its bytes are gone, UsageError when it is installed again."""
    try:
        data = manifests.load(entry.path)
    except FileNotFoundError:
        raise NotFound(f"`{entry.ref}` is not in the trash any more") from None
    if manifests.path_of(registry.at.manifests, entry.source, entry.model_id, entry.version_id).exists():
        raise UsageError(
            f"`{entry.name} · {entry.version_name}` was installed again meanwhile",
            hint=f"`hubctl rm {entry.ref} --now` makes room for the one in the trash",
        )
    from registry import links

    registry.add(Manifest.from_json(data))
    entry.path.unlink(missing_ok=True)
    links.apply(registry, [(entry.source, entry.version_id)])


def empty(registry: Registry, chosen: Sequence[Trashed]) -> int:
    """Delete these entries and the blobs nothing else needs; returns the bytes that frees."""
    from registry import ballast

    ballast.throw_off(registry.home)
    with registry.settled():
        for entry in chosen:
            entry.path.unlink(missing_ok=True)
    return delete_blobs(registry, [sha for entry in chosen for sha in entry.blobs])


def expired(registry: Registry, days: int, *, at: datetime | None = None) -> list[Trashed]:
    """Entries older than `days`."""
    moment = at or datetime.now(UTC)
    return [entry for entry in entries(registry) if entry.expires_at(days) <= moment]

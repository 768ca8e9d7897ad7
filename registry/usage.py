"""Where the disk space went: allocated bytes, once per inode.

What decides whether removing frees anything is how many names an inode has, and only the file system knows that. Asking
it costs 2–3 µs a blob, so up to MEASURED blobs every figure is asked for. Above that the figures are those of the last
time a blob was added, linked or verified, unless `exact` is given; `Library.measured` says which.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.store import BlobStore

if TYPE_CHECKING:
    from registry.local import Registry

MEASURED = 10_000
KEYS = {
    "type": "v.type",
    "base_model": "v.base_model",
    "model": "v.model_name",
    "creator": "v.creator",
    "age": "substr(max(coalesce(n.last_used_at, ''), v.installed_at), 1, 10)",
    "ui": "''",
}


@dataclass(frozen=True)
class Usage:
    """Bytes of one group: `logical` as listed, `on_disk` allocated once per inode, and what becomes of those.

    on_disk = freeable + shared, and shared = linked + elsewhere + with_others
    """

    key: str
    files: int
    logical: int
    on_disk: int
    shared: int
    freeable: int  # free as soon as the group is removed; nobody else shows them
    linked: int = 0  # free too, but UI folders that show them lose them
    elsewhere: int = 0  # stay: folders hubctl did not link have the same file
    with_others: int = 0  # stay: versions of another group use them

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Beside:
    """What a home holds besides installed models."""

    kind: str
    files: int
    on_disk: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Library:
    """All of it: groups, their total, and what lies beside. `measured` = every blob was asked for just now."""

    by: str
    groups: tuple[Usage, ...]
    total: Usage
    measured: bool
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True)
class Measure:
    """What the file system says of one blob."""

    size: int
    allocated: int
    links: int


def library(registry: Registry, *, by: str = "type", exact: bool = False) -> Library:
    """What `hubctl du` shows. `by`: type, base_model, model, creator, ui or age."""
    blobs = registry.rows("SELECT count(*) FROM blob")[0][0]
    measured = exact or blobs <= MEASURED
    groups, total = _asked(registry, by) if measured else _recorded(registry, by)
    return Library(by, tuple(sorted(groups, key=lambda g: (-g.on_disk, g.key))), total, measured, beside(registry))


# --- adding up --------------------------------------------------------------------------------------------------------


@dataclass
class Sum:
    """A group while it is added up."""

    files: int = 0
    logical: int = 0
    on_disk: int = 0
    linked: int = 0
    elsewhere: int = 0
    with_others: int = 0

    def add(self, one: Measure, names: Names, *, sole: bool) -> None:
        disk = one.allocated * (1 + names.copies)
        self.files += 1
        self.logical += one.size
        self.on_disk += disk
        if not sole:
            self.with_others += disk
        elif one.links > 1 + names.tree + names.hardlinks:
            self.elsewhere += disk
        elif names.shown:
            self.linked += disk

    def done(self, key: str) -> Usage:
        shared = self.linked + self.elsewhere + self.with_others
        return Usage(
            key, self.files, self.logical, self.on_disk, shared, self.on_disk - shared, self.linked, self.elsewhere,
            self.with_others,
        )  # fmt: skip


@dataclass
class Names:
    """How often a blob is shown, and by what."""

    tree: int = 0  # hardlinks in tree/
    copies: int = 0  # copies in tree/, where the volume has no links
    hardlinks: int = 0  # in UI folders
    shown: int = 0  # in UI folders, by any kind of link
    keys: set[str] = field(default_factory=set)


def _asked(registry: Registry, by: str) -> tuple[list[Usage], Usage]:
    """Every blob asked for now."""
    sizes = dict(measure(registry.blobs))
    rows = registry.rows(
        f"SELECT f.sha256, f.placed, {KEYS[by]} AS key FROM installed_file f JOIN model_version v "
        "USING (source, version_id) LEFT JOIN user_note n USING (source, version_id)"
    )
    return _add_up(registry, by, rows, sizes)


def _add_up(
    registry: Registry, by: str, rows: Sequence[sqlite3.Row], sizes: Mapping[str, Measure]
) -> tuple[list[Usage], Usage]:
    names: dict[str, Names] = {}
    for sha, placed, key in rows:
        one = names.setdefault(sha, Names())
        one.tree += placed == "hardlink"
        one.copies += placed == "copy"
        one.keys.add(label(by, key))
    for link in registry.rows("SELECT sha256, kind, coalesce(ui, layout) AS ui FROM link"):
        if link["sha256"] in names:
            one = names[link["sha256"]]
            one.shown += 1
            one.hardlinks += link["kind"] == "hardlink"
            if by == "ui":
                one.keys.discard(label("ui", ""))
                one.keys.add(link["ui"])
    groups: dict[str, Sum] = {}
    whole = Sum()
    for sha, one in names.items():
        if sha in sizes:
            whole.add(sizes[sha], one, sole=True)
            for key in one.keys:
                groups.setdefault(key, Sum()).add(sizes[sha], one, sole=len(one.keys) == 1 or by == "ui")
    return [group.done(key) for key, group in groups.items()], whole.done("total")


def _recorded(registry: Registry, by: str) -> tuple[list[Usage], Usage]:
    """Sums of what is recorded per version, and one by one the blobs several versions use."""
    if by == "ui":
        return _recorded_by_ui(registry)
    note = " LEFT JOIN user_note n USING (source, version_id)" if by == "age" else ""
    rows = registry.rows(
        f"SELECT {KEYS[by]} AS key, sum(sole_files), sum(sole_size), sum(sole_disk), sum(sole_elsewhere), "
        f"sum(sole_linked) FROM model_version v{note} GROUP BY key"
    )
    groups: dict[str, Sum] = {}
    for key, files, size, disk, elsewhere, linked in rows:
        group = groups.setdefault(label(by, key), Sum())
        for name, value in (
            ("files", files), ("logical", size), ("on_disk", disk), ("elsewhere", elsewhere), ("linked", linked),
        ):  # fmt: skip
            setattr(group, name, getattr(group, name) + (value or 0))
    several, together = _several(registry, by)
    for group in several:
        into = groups.setdefault(group.key, Sum())
        _merge(into, group)
    whole = Sum()
    for into in groups.values():
        _merge(whole, into.done(""))
    for group in several:
        _merge(whole, group, sign=-1)
    _merge(whole, together)
    return [into.done(key) for key, into in groups.items()], whole.done("total")


def _several(registry: Registry, by: str) -> tuple[list[Usage], Usage]:
    """Groups and total of the blobs that several versions use."""
    shas = [row[0] for row in registry.rows("SELECT sha256 FROM installed_file GROUP BY sha256 HAVING count(*) > 1")]
    rows: list[sqlite3.Row] = []
    sizes = {}
    for sha in shas:
        rows += registry.rows(
            f"SELECT f.sha256, f.placed, {KEYS[by]} AS key FROM installed_file f JOIN model_version v "
            "USING (source, version_id) LEFT JOIN user_note n USING (source, version_id) WHERE f.sha256 = ?",
            (sha,),
        )
        for found in registry.rows("SELECT size, allocated, links FROM blob WHERE sha256 = ?", (sha,)):
            sizes[sha] = Measure(*found)
    return _add_up(registry, by, rows, sizes) if rows else ([], Usage("total", 0, 0, 0, 0, 0))


def _recorded_by_ui(registry: Registry) -> tuple[list[Usage], Usage]:
    rows = registry.rows("SELECT sha256, placed, '' FROM installed_file")
    sizes = {row[0]: Measure(*row[1:]) for row in registry.rows("SELECT sha256, size, allocated, links FROM blob")}
    return _add_up(registry, "ui", rows, sizes)


def _merge(into: Sum, group: Usage, *, sign: int = 1) -> None:
    for name in ("files", "logical", "on_disk", "linked", "elsewhere", "with_others"):
        setattr(into, name, getattr(into, name) + sign * getattr(group, name))


def label(by: str, key: Any) -> str:
    """A group's name as a person reads it."""
    if by == "ui" and not key:
        return "not linked"
    if by == "age" and key:
        return age(str(key))
    return str(key) if key else "unknown"


def age(stamp: str) -> str:
    days = (datetime.now(UTC).date() - datetime.fromisoformat(stamp[:10]).date()).days
    for limit, text in ((7, "used this week"), (30, "used this month"), (180, "used in the last 6 months")):
        if days <= limit:
            return text
    return "not used for 6 months"


# --- asking the disk --------------------------------------------------------------------------------------------------


def measure(store: BlobStore) -> Iterator[tuple[str, Measure]]:
    """(sha256, what `stat` says) of every blob, a folder at a time: names relative to it cost half of whole paths."""
    for folder in folders(store.root):
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            for name in os.listdir(handle):  # noqa: PTH208 - by handle
                try:
                    status = os.stat(name, dir_fd=handle)
                except OSError:
                    continue
                yield name, Measure(status.st_size, status.st_blocks * 512, status.st_nlink)
        finally:
            os.close(handle)


def folders(root: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def beside(registry: Registry) -> tuple[Beside, ...]:
    """What lies in the home besides models: the trash, partial downloads, pictures, made pictures, the index."""
    from registry import trash

    home = registry.home
    out = [Beside("trash", *_trashed(registry, trash.references(registry)))]
    for kind, paths in (
        ("partial downloads", tree_files(home / "partial")),
        ("example pictures", tree_files(home / "images")),
        ("pictures made here", tree_files(home / "runs")),
        ("index", home.glob("index*db*")),
    ):
        out.append(Beside(kind, *add_up_files(paths)))
    return tuple(each for each in out if each.files)


def _trashed(registry: Registry, shas: Iterable[str]) -> tuple[int, int]:
    """Blobs that only the trash still names."""
    count = disk = 0
    for sha in shas:
        if not registry.rows("SELECT 1 FROM installed_file WHERE sha256 = ? LIMIT 1", (sha,)):
            try:
                disk += registry.blob_path(sha).stat().st_blocks * 512
            except OSError:
                continue
            count += 1
    return count, disk


def tree_files(root: Path) -> Iterator[Path]:
    """Files below a folder; links are not followed."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


def add_up_files(paths: Iterable[Path]) -> tuple[int, int]:
    """(files, allocated bytes), once per inode."""
    seen: set[tuple[int, int]] = set()
    disk = 0
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            disk += status.st_blocks * 512
    return len(seen), disk

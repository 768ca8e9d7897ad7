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
    count: int  # of groups; `top` may show fewer
    total: Usage
    measured: bool
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True)
class Measure:
    """What the file system says of one blob."""

    size: int
    allocated: int
    links: int


def library(registry: Registry, *, by: str = "type", top: int | None = None, exact: bool = False) -> Library:
    """What `hubctl du` shows, the largest groups first. `by`: type, base_model, model, creator, ui or age."""
    blobs = registry.rows("SELECT count(*) FROM blob")[0][0]
    measured = exact or blobs <= MEASURED
    groups, total, count = _asked(registry, by) if measured else _recorded(registry, by, top)
    groups = sorted(groups, key=lambda group: (-group.on_disk, group.key))
    return Library(by, tuple(groups[:top]), count, total, measured, beside(registry))


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


Groups = tuple[list[Usage], Usage, int]


def _asked(registry: Registry, by: str) -> Groups:
    """Every blob asked for now."""
    groups, whole = _add_up(registry, by, _rows(registry, by), dict(measure(registry.blobs)))
    return groups, whole, len(groups)


def _rows(registry: Registry, by: str, where: str = "", args: Sequence[Any] = ()) -> list[sqlite3.Row]:
    return registry.rows(
        f"SELECT f.sha256, f.placed, {KEYS[by]} AS key FROM installed_file f JOIN model_version v "
        f"USING (source, version_id) LEFT JOIN user_note n USING (source, version_id) {where}",
        args,
    )


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


SOLE = ("sole_files", "sole_size", "sole_disk", "sole_linked", "sole_elsewhere")
SUMS = ", ".join(f"sum({name})" for name in SOLE)
TOTALS = ", ".join(f"sum(sum({name})) OVER ()" for name in SOLE)  # of all groups, also those below the limit


def _recorded(registry: Registry, by: str, top: int | None) -> Groups:
    """Sums of what is recorded per version, and one by one the blobs that several versions use."""
    shared, together = _of_blobs(registry, by, "SELECT sha256 FROM installed_file GROUP BY sha256 HAVING count(*) > 1")
    note = " LEFT JOIN user_note n USING (source, version_id)" if by == "age" else ""
    source = f"FROM model_version v{note}"
    limit = -1 if top is None or by == "age" else top + len(shared)
    rows = registry.rows(
        f"SELECT {SUMS}, {KEYS[by]} AS key, count(*) OVER () AS count, {TOTALS} {source} GROUP BY key "
        "ORDER BY 3 DESC LIMIT ?",
        (limit,),
    )
    whole = _sole(rows[0][7:]) if rows else Sum()
    _merge(whole, together)
    if by == "ui":
        return _by_ui(registry, whole)
    groups: dict[str, Sum] = {}
    for row in rows:
        _merge(groups.setdefault(label(by, row["key"]), Sum()), _sole(row))
    for group in shared:
        if group.key not in groups and limit >= 0:
            groups[group.key] = _sole(registry.rows(f"SELECT {SUMS} {source} WHERE {KEYS[by]} = ?", (group.key,))[0])
        _merge(groups.setdefault(group.key, Sum()), group)
    found = [into.done(key) for key, into in groups.items()]
    return found, whole.done("total"), len(found) if limit < 0 or not rows else rows[0]["count"]


def _sole(row: Sequence[Any] | sqlite3.Row) -> Sum:
    files, size, disk, linked, elsewhere = (value or 0 for value in row[:5])
    return Sum(files, size, disk, linked, elsewhere)


def _of_blobs(registry: Registry, by: str, which: str) -> tuple[list[Usage], Usage]:
    """Groups and total of some blobs, from what is recorded of them."""
    rows = _rows(registry, by, f"WHERE f.sha256 IN ({which})")
    sizes = {}
    if rows:
        found = registry.rows(f"SELECT sha256, size, allocated, links FROM blob WHERE sha256 IN ({which})")
        sizes = {row[0]: Measure(*row[1:]) for row in found}
    return _add_up(registry, by, rows, sizes)


def _by_ui(registry: Registry, whole: Sum) -> Groups:
    """What each UI shows; the rest is what is left of the whole."""
    groups, shown = _of_blobs(registry, "ui", "SELECT sha256 FROM link")
    rest = Sum(**whole.__dict__)
    _merge(rest, shown, sign=-1)
    if rest.files:
        groups.append(rest.done(label("ui", "")))
    return groups, whole.done("total"), len(groups)


def _merge(into: Sum, group: Sum | Usage, *, sign: int = 1) -> None:
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
        ("index", (*home.glob("index*db*"), home / "facts.jsonl", home / "ballast")),
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

"""Where the disk space went: allocated bytes, once per inode.

    blobs that versions name      groups and their total
    everything else in the home   trash, downloads, pictures, manifests, folders: `beside`, each part by its name

What decides whether removing frees anything is how many names an inode has, and only the file system knows that. Up to
MEASURED blobs all of it is asked for, and the parts add up to what `du -s` says of the home. Above that the figures are
those of the last time a blob was added, linked or verified, unless `exact` is given; `Library.measured` says which.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.store import BlobStore

if TYPE_CHECKING:
    from registry.local import Registry

MEASURED = 5_000
UNKNOWN = "unknown"
PARTS = {  # what a home has besides blobs/, and their names in tree/ and views/
    "partial": "partial downloads",
    "images": "example pictures",
    "previews": "your previews",
    "runs": "pictures made here",
    "damaged": "set aside as damaged",
    "manifests": "manifests",
    "trash": "manifests",
    "facts.jsonl": "index",
    "ballast": "index",
    "links.lock": "index",
}
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
    copies: Beside = Beside("copies in UI folders", 0, 0)  # not in the home: volumes that links do not reach
    home: int | None = None  # bytes of all there is in it, as `du -s` counts; None unless measured


@dataclass(frozen=True)
class Measure:
    """What the file system says of one blob."""

    size: int
    allocated: int
    links: int
    away: bool = False  # on another volume: the blob is a symlink to somebody's file


def library(registry: Registry, *, by: str = "type", top: int | None = None, exact: bool = False) -> Library:
    """What `hubctl du` shows, the largest groups first. `by`: type, base_model, model, creator, ui or age."""
    if exact or registry.rows("SELECT count(*) FROM blob")[0][0] <= MEASURED:
        sizes = dict(measure(registry.blobs))
        groups, total = _add_up(registry, by, _rows(registry, by), sizes)
        count, parts, whole = len(groups), *_everything(registry, sizes, total)
    else:
        groups, total, count = _recorded(registry, by, top)
        parts, whole = beside(registry), None
    groups = sorted(groups, key=lambda group: (-group.on_disk, group.key))
    return Library(by, tuple(groups[:top]), count, total, whole is not None, parts, _copies(registry), whole)


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
MANY = ("model", "creator")  # of these there may be as many as versions


def _recorded(registry: Registry, by: str, top: int | None) -> Groups:
    """Sums of what is recorded per version, and one by one the blobs that several versions use."""
    shared, together = _of_blobs(registry, by, "SELECT sha256 FROM installed_file GROUP BY sha256 HAVING count(*) > 1")
    if by == "ui":
        return _by_ui(registry, _total(registry, together))
    groups: dict[str, Sum] = {}
    few = top is not None and by in MANY
    for row in _largest(registry, by, (top or 0) + len(shared), shared) if few else _every(registry, by):
        _merge(groups.setdefault(label(by, row["key"]), Sum()), _sole(row))
    whole = _total(registry, together)
    for group in shared:
        _merge(groups.setdefault(group.key, Sum()), group)
    found = [into.done(key) for key, into in groups.items()]
    count = registry.rows(f"SELECT count(DISTINCT {_named(by)}) FROM model_version v")[0][0] if few else len(found)
    return found, whole.done("total"), count


def _total(registry: Registry, together: Usage) -> Sum:
    whole = _sole(registry.rows(f"SELECT {SUMS} FROM model_version")[0])
    _merge(whole, together)
    return whole


def _every(registry: Registry, by: str) -> list[sqlite3.Row]:
    note = " LEFT JOIN user_note n USING (source, version_id)" if by == "age" else ""
    return registry.rows(f"SELECT {SUMS}, {KEYS[by]} AS key FROM model_version v{note} GROUP BY +key")


def _largest(registry: Registry, by: str, limit: int, besides: Iterable[Usage]) -> list[sqlite3.Row]:
    """Sums of the largest groups and of those in `besides`: which they are is found by one column, which is quick.

    (+: in the order of the table. By the index on the key, each row of it would be looked up on its own.)
    """
    largest = registry.rows(
        f"SELECT {_named(by)} AS key FROM model_version v GROUP BY +key ORDER BY sum(sole_disk) DESC, key LIMIT ?",
        (limit,),
    )
    out: list[sqlite3.Row] = []
    for name in dict.fromkeys([row["key"] for row in largest] + [group.key for group in besides]):
        unnamed = f"OR {KEYS[by]} = '' OR {KEYS[by]} IS NULL" if name == UNKNOWN else ""
        sql = f"SELECT {SUMS}, ? AS key FROM model_version v WHERE {KEYS[by]} = ? {unnamed}"
        out += registry.rows(sql, (name, name))
    return out


def _named(by: str) -> str:
    """SQL for a group's name, as `label` has it."""
    return f"coalesce(nullif({KEYS[by]}, ''), '{UNKNOWN}')"


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
    return str(key) if key else UNKNOWN


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
                    status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                    if away := stat.S_ISLNK(status.st_mode):
                        status = os.stat(name, dir_fd=handle)
                except OSError:
                    continue
                yield name, Measure(status.st_size, status.st_blocks * 512, status.st_nlink + away, away)
        finally:
            os.close(handle)


def folders(root: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def beside(registry: Registry) -> tuple[Beside, ...]:
    """What lies in the home besides models, where that is quickly told."""
    from registry import trash

    parts: dict[str, list[Path]] = {}
    for path in _in(registry.home):
        parts.setdefault(_part(path.name), []).append(path)
    out = [Beside("trash", *_trashed(registry, trash.references(registry)))]
    for kind in dict.fromkeys(PARTS.values()):
        if kind != "manifests":
            out.append(Beside(kind, *add_up_files(file for path in parts.get(kind, ()) for file in tree_files(path))))
    return tuple(each for each in out if each.files)


def _everything(registry: Registry, sizes: Mapping[str, Measure], models: Usage) -> tuple[tuple[Beside, ...], int]:
    """All that lies in the home besides models, and the bytes of it all: what no part counts is in the last."""
    from registry import trash

    named = {row[0] for row in registry.rows("SELECT DISTINCT sha256 FROM installed_file")}
    trashed = trash.references(registry) - named
    out = [_blobs("trash", trashed, sizes), _blobs("named by no version", sizes.keys() - named - trashed, sizes)]
    parts, whole = _weigh(registry.home)
    out += [Beside(kind, *parts.get(kind, (0, 0))) for kind in (*dict.fromkeys(PARTS.values()), "folders")]
    away = sum(sizes[sha].allocated for sha in named if sha in sizes and sizes[sha].away)
    rest = whole - (models.on_disk - away) - sum(each.on_disk for each in out)
    out.append(Beside("other files", parts.get("", (0, 0))[0], rest))
    return tuple(each for each in out if each.on_disk > 0), whole


def _blobs(kind: str, shas: Iterable[str], sizes: Mapping[str, Measure]) -> Beside:
    mine = [sizes[sha].allocated for sha in shas if sha in sizes and not sizes[sha].away]
    return Beside(kind, len(mine), sum(mine))


def _in(home: Path) -> list[Path]:
    try:
        return sorted(home.iterdir())
    except OSError:
        return []


def _part(name: str) -> str:
    """Which part of a home an entry belongs to; "" for names of models and what is not ours."""
    if name.startswith("index.damaged."):
        return PARTS["damaged"]
    return "index" if name.startswith("index.") else PARTS.get(name, "")


def _weigh(home: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Part of the home → (files, allocated bytes), once per inode, and the bytes of it all.

    blobs/ comes first, so that names in tree/ of the same inode are not counted again.
    """
    seen: set[tuple[int, int]] = set()
    parts: dict[str, tuple[int, int]] = {}
    for part, status, is_folder in _below(home):
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and not is_folder:
            if inode in seen:
                continue
            seen.add(inode)
        files, disk = parts.get(part, (0, 0))
        parts[part] = (files + 1, disk + status.st_blocks * 512)
    return parts, sum(disk for _, disk in parts.values())


def _below(home: Path) -> Iterator[tuple[str, os.stat_result, bool]]:
    """(part, what `stat` says, whether it is a folder) of all there is in a home, the home itself included."""
    try:
        yield "folders", home.stat(), True
    except OSError:
        return
    for top in sorted(_in(home), key=lambda path: path.name != "blobs"):
        part, todo = "blobs" if top.name == "blobs" else _part(top.name), [str(top)]
        with suppress(OSError):
            if not top.is_dir() or top.is_symlink():
                yield part, top.lstat(), False
                continue
            yield "folders", top.lstat(), True
        while todo:
            for entry in _entries(todo.pop()):
                with suppress(OSError):  # gone meanwhile
                    status, is_folder = entry.stat(follow_symlinks=False), entry.is_dir(follow_symlinks=False)
                    yield "folders" if is_folder else part, status, is_folder
                    if is_folder:
                        todo.append(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _copies(registry: Registry) -> Beside:
    """Bytes of our own that UI folders hold."""
    row = registry.rows(
        "SELECT count(*), coalesce(sum(b.allocated), 0) FROM link l JOIN blob b USING (sha256) WHERE l.kind = 'copy'"
    )[0]
    return Beside("copies in UI folders", row[0], row[1])


def _trashed(registry: Registry, shas: Iterable[str]) -> tuple[int, int]:
    """Blobs that only the trash still names."""
    count = disk = 0
    for sha in shas:
        if not registry.rows("SELECT 1 FROM installed_file WHERE sha256 = ? LIMIT 1", (sha,)):
            try:
                disk += registry.blob_path(sha).lstat().st_blocks * 512
            except OSError:
                continue
            count += 1
    return count, disk


def tree_files(root: Path) -> Iterator[Path]:
    """Files below a folder, or that file; links are not followed."""
    if root.is_file():
        yield root
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

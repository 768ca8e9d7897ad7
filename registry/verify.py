"""Does what is here still hold what it says?

    blob      its bytes, when its mtime or size moved (all of them with `every`); its header
    tree      its friendly name: another name of the blob, or a copy with the same bytes
    link      what it shows in UI folders
    index     rows against manifests

Finding is separate from repairing: `check` only looks; `mend` puts right what can be without a hub and returns what is
left, the versions that have to be fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import index, trash
from registry import manifest as manifests
from registry.errors import KnownError
from registry.fs import place
from registry.manifest import now

if TYPE_CHECKING:
    from registry.local import Registry

READ = 4 << 20
OnBytes = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str  # blob · missing · header · tree · link · index · manifest
    message: str
    source: str = ""
    version_id: int = 0
    ref: str = ""
    sha256: str = ""
    path: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if value}


@dataclass(frozen=True)
class Verdict:
    """What a check found, and how much it read for it."""

    problems: tuple[Problem, ...]
    versions: int
    blobs: int
    hashed: int
    hashed_bytes: int


def check(
    registry: Registry,
    versions: Sequence[tuple[str, int]] | None = None,
    *,
    every: bool = False,
    on_bytes: OnBytes = lambda name, done, total: None,
) -> Verdict:
    """Look at these versions, or at all. Bytes are read again where mtime or size moved, or with `every`."""
    rows = _files(registry, versions)
    problems: list[Problem] = []
    looked: dict[str, tuple[str, str, int]] = {}
    for row in rows:
        if row["sha256"] not in looked:
            looked[row["sha256"]] = _look(registry, row, every=every, on_bytes=on_bytes)
        kind, why, _ = looked[row["sha256"]]
        if kind:
            problems.append(_about(row, kind, why))
        elif why := _misplaced(registry, row, every=every, on_bytes=on_bytes):
            problems.append(_about(row, "tree", why))
    problems = [
        problem for problem in problems if problem.kind not in {"missing", "tree"} or is_installed(registry, problem)
    ]
    problems += _links(registry, versions, {problem.sha256 for problem in problems if problem.kind == "missing"})
    if versions is None:
        problems += index_problems(registry)
    hashed = [size for _, _, size in looked.values() if size >= 0]
    count = len({(row["source"], row["version_id"]) for row in rows})
    return Verdict(tuple(problems), count, len(looked), len(hashed), sum(hashed))


def _files(registry: Registry, versions: Sequence[tuple[str, int]] | None) -> list[Any]:
    sql = (
        "SELECT f.*, v.model_id, v.model_name, v.name AS version_name, b.mtime_ns, b.size AS known_size, "
        "b.verified_at FROM installed_file f JOIN model_version v USING (source, version_id) "
        "LEFT JOIN blob b USING (sha256)"
    )
    if versions is None:
        return registry.rows(sql)
    where = f"{sql} WHERE f.source = ? AND f.version_id = ?"
    return [row for key in versions for row in registry.rows(where, key)]


def _about(row: Any, kind: str, why: str, path: str = "") -> Problem:
    name = f"`{row['model_name']} · {row['version_name']}`"
    return Problem(
        kind, f"{name}: {why}", row["source"], row["version_id"], f"{row['model_id']}@{row['version_id']}",
        row["sha256"], path or str(row["path"]),
    )  # fmt: skip


def is_installed(registry: Registry, problem: Problem) -> bool:
    """Not removed by another process since its row was read."""
    sql = "SELECT 1 FROM installed_file WHERE source = ? AND version_id = ? AND sha256 = ?"
    return bool(registry.rows(sql, (problem.source, problem.version_id, problem.sha256)))


def _look(registry: Registry, row: Any, *, every: bool, on_bytes: OnBytes) -> tuple[str, str, int]:
    """(problem kind or "", why, bytes hashed or -1)"""
    try:
        return _look_at_bytes(registry, row, every=every, on_bytes=on_bytes)
    except FileNotFoundError:  # from the start, or taken away while they were read
        return "missing", "its bytes are gone", -1
    except OSError as error:  # a dying disk
        return "missing", f"its bytes cannot be read: {error.strerror}", -1


def _look_at_bytes(registry: Registry, row: Any, *, every: bool, on_bytes: OnBytes) -> tuple[str, str, int]:
    path = registry.blob_path(row["sha256"])
    status = path.stat()
    moved = (status.st_mtime_ns, status.st_size) != (row["mtime_ns"], row["known_size"])
    size = -1
    if moved or every:
        found, size = digest(path, lambda done: on_bytes(row["name"], done, status.st_size)), status.st_size
        if found != row["sha256"]:
            return "blob", f"its bytes changed: SHA256 {found[:16]}…, expected {row['sha256'][:16]}…", size
    if why := _header_problem(path, row["name"]):
        return "header", why, size
    if size >= 0 and not registry.read_only:
        with registry.transaction() as db:
            index.measure(db, registry.at, row["sha256"])
            db.execute(
                "UPDATE blob SET mtime_ns = ?, verified_at = ? WHERE sha256 = ?",
                (status.st_mtime_ns, now(), row["sha256"]),
            )
            index.weigh_users(db, [row["sha256"]])
    return "", "", size


def _misplaced(registry: Registry, row: Any, *, every: bool, on_bytes: OnBytes) -> str:
    """What is wrong with a name in tree/; "" when it shows the blob."""
    path = registry.home / row["path"]
    how = index.how_placed(path, registry.blob_path(row["sha256"]))
    if how is None:
        return "its name in tree/ shows other bytes" if os.path.lexists(path) else "its name in tree/ is gone"
    if how == "copy" and (every or row["placed"] != "copy"):
        try:
            found = digest(path, lambda done: on_bytes(row["name"], done, row["size"]))
        except OSError as error:
            return f"its name in tree/ cannot be read: {error.strerror}"
        if found != row["sha256"]:
            return "its name in tree/ shows other bytes"
    return ""


def digest(path: Path, on_bytes: Callable[[int], None] = lambda done: None) -> str:
    """SHA256 of a file; reading it does not count as a use."""
    check, done = hashlib.sha256(), 0
    with _open_unnoticed(path) as file:
        while piece := file.read(READ):
            check.update(piece)
            done += len(piece)
            on_bytes(done)
    return check.hexdigest()


def _open_unnoticed(path: Path) -> Any:
    """Open without moving the access time, where the system lets us."""
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOATIME", 0)), "rb", buffering=0)
    except PermissionError:
        return path.open("rb", buffering=0)


def _header_problem(path: Path, name: str) -> str | None:
    """What is wrong with the header of a safetensors or GGUF file; the bytes are those the hub had."""
    from registry import gguf, header

    suffix = Path(name).suffix.lower()
    read, kind = {".gguf": (gguf.read, "GGUF")}.get(suffix, (header.read, "safetensors"))
    if suffix not in {".safetensors", ".gguf"}:
        return None
    before = path.stat()
    try:
        read(path)
    except KnownError as error:
        return f"not a {kind} file: {error.message.replace(f'`{path.name}` ', '')}"
    finally:
        with contextlib.suppress(OSError):  # nor does this
            if path.stat().st_atime_ns != before.st_atime_ns:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return None


def _links(registry: Registry, versions: Sequence[tuple[str, int]] | None, gone: Collection[str]) -> Iterator[Problem]:
    """Names in UI folders that are not as they should be; of bytes that are `gone` enough is said."""
    from registry import links

    wanted = None if versions is None else set(versions)
    for action in links.repair(registry, dry_run=True):
        if wanted is not None and (action.source, action.version_id) not in wanted:
            continue
        if action.what == "missing" and action.sha256 in gone:
            continue
        if action.what in {"link", "relink", "unlink", "missing", "no_root"}:
            why = action.note or {"link": "is not there", "relink": "shows nothing"}.get(action.what, "is out of date")
            yield Problem(
                "link", f"`{action.path}` in {action.ui or 'a UI'}: {why}", action.source or "", action.version_id or 0,
                "", action.sha256 or "", str(action.path),
            )  # fmt: skip


def index_problems(registry: Registry) -> Iterator[Problem]:
    """Where rows and manifests, or manifests and blobs, do not agree."""
    listed = {
        manifests.path_of(registry.at.manifests, row["source"], row["model_id"], row["version_id"]): row["stamp"]
        for row in registry.rows("SELECT source, model_id, version_id, stamp FROM model_version")
    }
    missing = changed = 0
    for path, stamp in index.walk(registry.at):
        known = listed.pop(path, None)
        if known == stamp:
            continue
        try:
            manifests.load(path)
        except KnownError as error:
            yield Problem("manifest", error.message, path=str(path))
            continue
        except FileNotFoundError:
            continue
        missing += known is None
        changed += known is not None
    for count, what in (
        (missing, "installed version(s) are not in the index"),
        (changed, "row(s) of the index are older than their manifest"),
        (len(listed), "row(s) of the index have no manifest"),
    ):
        if count:
            yield Problem("index", f"{count} {what}")
    for row in registry.rows(
        "SELECT f.*, v.model_id, v.model_name, v.name AS version_name FROM installed_file f "
        "JOIN model_version v USING (source, version_id) LEFT JOIN blob b USING (sha256) WHERE b.sha256 IS NULL"
    ):
        if not registry.has(row["sha256"]):
            yield _about(row, "missing", f"its bytes {row['sha256'][:12]} are gone")


# --- repairing --------------------------------------------------------------------------------------------------------


def mend(registry: Registry, problems: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Put right what can be without a hub; returns (mended, to be fetched again).

    Bytes that are not what their name says lose the name at once: they go to `damaged/`, since they may be somebody's
    edit, and hubctl's own names of them go too. So does a file that took the place of a name in tree/.
    """
    mended: list[Problem] = []
    fetch: list[Problem] = []
    for problem in problems:
        if problem.kind == "blob":
            set_aside(registry, problem.sha256)
            fetch.append(problem)
        elif problem.kind in {"missing", "header"}:
            fetch.append(problem)
        elif problem.kind == "tree" and (again := _place_again(registry, problem)):
            mended.append(again)
    rows = [problem for problem in problems if problem.kind == "index"]
    shown = [problem for problem in problems if problem.kind == "link"]
    if rows:
        registry.catch_up(force=True)
    if rows or shown:
        from registry import links

        links.repair(registry)
    return mended + rows + shown, fetch


def set_aside(registry: Registry, sha256: str) -> Path | None:
    """Take a name from bytes that do not deserve it, and ours that show the same inode."""
    blob = registry.blob_path(sha256)
    folder = registry.home / "damaged"
    try:
        seen = blob.stat()
        if digest(blob) == sha256:
            return None  # another process repaired it since
    except FileNotFoundError:
        return None
    with registry.linking(), registry.settled() as db:  # or another process could show it just before it goes
        if not blob.exists() or not os.path.samestat(blob.stat(), seen):
            return None
        names = [r[0] for r in db.execute("SELECT path FROM installed_file WHERE sha256 = ?", (sha256,))]
        status = blob.stat()
        for name in names:
            if name and trash.is_same(registry.home / name, status):
                (registry.home / name).unlink(missing_ok=True)
        for row in db.execute("SELECT path FROM link WHERE sha256 = ?", (sha256,)).fetchall():
            if trash.is_same(Path(row["path"]), status):
                Path(row["path"]).unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        target = folder / f"{sha256}.{status.st_mtime_ns}"
        blob.replace(target)
    return target


def restored(registry: Registry, sha256: str) -> None:
    """After the bytes came back: names in tree/ and links of every version that uses them."""
    from registry import links

    with registry.settled() as db:
        for row in db.execute("SELECT path FROM installed_file WHERE sha256 = ?", (sha256,)).fetchall():
            _show(registry, row["path"], sha256)
        index.measure(db, registry.at, sha256)
        with contextlib.suppress(FileNotFoundError):  # removed again meanwhile
            status = registry.blob_path(sha256).stat()
            db.execute("UPDATE blob SET mtime_ns = ? WHERE sha256 = ?", (status.st_mtime_ns, sha256))
        keys = [
            (row["source"], row["version_id"])
            for row in db.execute("SELECT source, version_id FROM installed_file WHERE sha256 = ?", (sha256,))
        ]
        index.weigh_users(db, [sha256])
    links.apply(registry, keys)


def _show(registry: Registry, path: str, sha256: str, *, anew: bool = False) -> Path | None:
    """Make a name in tree/ show its blob, `anew` also where the size fits; returns where a file in its place went."""
    target, blob = registry.home / path, registry.blob_path(sha256)
    how = index.how_placed(target, blob)
    if not index.safe_path(path) or how in {"hardlink", "symlink"} or (how and not anew) or not blob.exists():
        return None
    aside = _keep_aside(registry, target)
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    place(blob, target)
    return aside


def _keep_aside(registry: Registry, path: Path) -> Path | None:
    """Move a file with bytes of its own into `damaged/`: an editor may have saved it there."""
    try:
        status = path.lstat()
    except OSError:
        return None
    if path.is_symlink() or status.st_nlink > 1:
        return None
    folder = registry.home / "damaged"
    folder.mkdir(exist_ok=True)
    return path.rename(folder / f"{status.st_mtime_ns}.{path.name}")


def _place_again(registry: Registry, problem: Problem) -> Problem | None:
    with registry.settled() as db:
        sql = "SELECT 1 FROM installed_file WHERE path = ? AND sha256 = ?"
        if db.execute(sql, (problem.path, problem.sha256)).fetchone() is None:
            return problem  # removed since it was looked at
        aside = _show(registry, problem.path, problem.sha256, anew=True)
        index.measure(db, registry.at, problem.sha256)
        row = (index.how_placed(registry.home / problem.path, registry.blob_path(problem.sha256)), problem.path)
        db.execute("UPDATE installed_file SET placed = ? WHERE path = ?", row)
        index.weigh_users(db, [problem.sha256])
    if row[0] is None:
        return None
    return replace(problem, message=f"{problem.message}; what was there is now `{aside}`") if aside else problem

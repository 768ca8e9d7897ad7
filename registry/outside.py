"""Names outside the home: made, looked at, and told apart from a person's.

    place(blob, path, kinds, …)   path shows blob: clone, hardlink, symlink or copy, the first that works there
    state(row, blob, path)        ok · missing · stale (ours, to be made anew) · replaced (a person's)
    write(path, data)             a whole file, or none
    sweep(folder)                 what a killed process left half-made

Nothing that exists is overwritten unless it was looked at and is ours. What is made in more than one step is made under
a name that says who makes it, and gets its own when it is complete.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NoPermission
from registry.fs import NOT_HERE, fsync_dir, is_alive, write_atomic

if TYPE_CHECKING:
    from registry.local import Registry

KINDS = ("auto", "reflink", "hardlink", "symlink", "copy")
LADDER = ("reflink", "hardlink", "symlink", "copy")


def place(blob: Path, path: Path, kinds: Sequence[str], *, shown: Path, renew: bool = False) -> str:
    """Make `path` show `blob` by the first kind that works here; nothing that exists is overwritten unless `renew`.

    A symlink points to `shown`, a name with the suffix loaders go by. Copies and clones are made beside, complete, and
    then get the name. Raises FileExistsError, NoPermission.
    """
    beside = path.with_name(f"{TEMPORARY}{blob.name[:12]}-{os.getpid()}.tmp")
    for kind in kinds:
        try:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
            _make(kind, blob, beside if renew or kind in {"reflink", "copy"} else path, shown)
            if renew:
                beside.replace(path)
            elif kind in {"reflink", "copy"}:
                give_name(beside, path)
        except FileExistsError:
            beside.unlink(missing_ok=True)
            raise
        except (OSError, ImportError) as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno not in NOT_HERE:
                raise
        else:
            fsync_dir(path.parent)
            return kind
    raise NoPermission(f"`{path}` cannot be linked to the store", hint="try another --kind: " + ", ".join(KINDS))


TEMPORARY = ".hubctl-"


def _make(kind: str, blob: Path, path: Path, shown: Path) -> None:
    if kind == "hardlink":
        os.link(blob.resolve(), path)  # a blob may itself point to a file on another volume
    elif kind == "symlink":
        path.symlink_to(shown if shown.exists() else blob)
    else:
        from registry.fs import reflink

        if kind == "reflink":
            reflink(blob, path)
        else:
            shutil.copyfile(blob, path)
        status = blob.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # so that a look tells whether it is still ours


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file in somebody's folder: whole, or not at all."""
    mark = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    write_atomic(path, data, mode=mode, beside=path.with_name(f"{TEMPORARY}{mark}-{os.getpid()}.tmp"))


def fits(path: Path) -> bool:
    """Whether a file system takes the name: 255 bytes nearly everywhere."""
    return len(os.fsencode(path.name)) <= 255


def give_name(beside: Path, path: Path) -> None:
    """Give a finished copy its name, unless somebody was faster."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        if os.path.lexists(path):
            raise FileExistsError(str(path)) from None
        beside.rename(path)
        return
    beside.unlink()


def sweep(folder: Path) -> list[Path]:
    """Remove half-made copies of dead processes from a folder; returns their paths."""
    gone = []
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{TEMPORARY}*.tmp"):
            owner = path.stem.rsplit("-", 1)[-1]
            if owner.isdigit() and not is_alive(int(owner)):
                path.unlink(missing_ok=True)
                gone.append(path)
    return gone


def state(row: Mapping[str, Any] | sqlite3.Row, blob: Path, path: Path) -> str:
    """ok · missing · stale (ours, but to be made anew) · replaced (a person's)."""
    try:
        status = path.lstat()
    except OSError:
        return "missing"
    if path.is_symlink():
        try:
            if path.samefile(blob):
                return "ok"
        except OSError:  # points nowhere: no bytes can be lost
            return "stale" if row["kind"] == "symlink" or row["inode"] is None else "replaced"
        home = blob.parents[2]  # of a name there whose version has other bytes by now, no bytes can be lost either
        return "stale" if row["kind"] == "symlink" and home in path.readlink().parents else "replaced"
    try:
        there = blob.stat()
    except OSError:
        return "ok" if status.st_ino == row["inode"] else "replaced"
    if (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino):
        return "ok"
    copied = status.st_ino == row["inode"] and status.st_mtime_ns == there.st_mtime_ns
    if row["kind"] in {"copy", "reflink"} and copied and status.st_size == there.st_size:
        return "ok"
    if not same_bytes(path, blob):
        return "replaced"
    return "ok" if row["kind"] in {"copy", "reflink"} else "stale"


def same_bytes(path: Path, blob: Path) -> bool:
    try:
        if path.samefile(blob):
            return True
        return path.is_file() and path.stat().st_size == blob.stat().st_size and filecmp.cmp(path, blob, shallow=False)
    except OSError:
        return False


def kind_of(path: Path, blob: Path) -> str:
    if path.is_symlink():
        return "symlink"
    return "hardlink" if path.exists() and blob.exists() and path.samefile(blob) else "copy"


def device(path: Path) -> int | None:
    while True:
        try:
            return path.stat().st_dev
        except OSError:
            if path == path.parent:
                return None
            path = path.parent


_REFLINKS: dict[int, bool] = {}  # volume → whether it can share extents


def reflinks(registry: Registry) -> bool:
    """Whether the home's volume clones files; tried once, in the home."""
    volume = device(registry.home) or 0
    if volume not in _REFLINKS:
        from registry.fs import reflink

        source = registry.home / f".probe.{os.getpid()}"
        target = source.with_suffix(".clone")
        try:
            source.write_bytes(b"probe" * 1000)
            reflink(source, target)
            _REFLINKS[volume] = True
        except (OSError, ImportError):
            _REFLINKS[volume] = False
        finally:
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.unlink(missing_ok=True)
    return _REFLINKS[volume]

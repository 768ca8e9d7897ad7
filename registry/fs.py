"""The file system, carefully: names for every OS, atomic writes, the ladder of links, real disk use."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from registry.errors import Busy, NoPermission

NOT_HERE = {
    errno.EXDEV,
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.ENOTTY,
    errno.EMLINK,
    95,
}
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
LONGEST_NAME = 180  # bytes, so that suffixes, `.part` and sidecars still fit in 255


def safe_name(name: str, fallback: str = "unnamed") -> str:
    """One path component that every OS accepts: no separators, controls, reserved words; at most 180 bytes.

    The suffix survives shortening, since loaders go by it.
    """
    name = unicodedata.normalize("NFC", name)
    name = "".join(
        "_" if c in '<>:"/\\|?*' or unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in name
    )
    name = re.sub(r"\s+", " ", name).strip(" .")
    if not name or set(name) <= {"_", "."}:
        name = fallback
    stem, dot, suffix = name.rpartition(".")
    if not dot or not re.fullmatch(r"[A-Za-z0-9]{1,12}", suffix):
        stem, suffix = name, ""
    if stem.split(".")[0].casefold() in RESERVED:
        stem = f"_{stem}"
    room = LONGEST_NAME - len(suffix) - 1
    stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") or fallback
    return f"{stem}.{suffix}" if suffix else stem


def fsync_dir(folder: Path) -> None:
    """Make a rename or link in this folder survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _beside(path: Path) -> tuple[int, str]:
    """A new file next to a path, its folder made where needed (another process may remove an empty one meanwhile)."""
    for _ in range(5):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    return tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, beside: Path | None = None) -> None:
    """Write beside (under this name, or a new one), fsync, rename, fsync the folder: a reader sees the old file or the
    new one."""
    handle, name = _beside(path) if beside is None else (None, beside)
    beside = Path(name)
    try:
        with open(beside if handle is None else handle, "wb") as file:  # noqa: PTH123 - a handle, or a name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def reflink(source: Path, target: Path) -> None:
    import reflink_copy

    try:
        reflink_copy.reflink(str(source), str(target))
    except OSError as error:
        if error.errno is None:  # it writes the number into the text only: "… (os error 95)"
            found = re.search(r"os error (\d+)", str(error))
            raise OSError(int(found[1]) if found else errno.ENOTSUP, "cannot clone", str(target)) from None
        raise


def hardlink(source: Path, target: Path) -> None:
    os.link(source, target)


def symlink(source: Path, target: Path) -> None:
    target.symlink_to(source)


def copy(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name[:100]}.tmp")
    shutil.copyfile(source, beside)
    beside.replace(target)


LADDER: dict[str, Callable[[Path, Path], None]] = {
    "reflink": reflink,
    "hardlink": hardlink,
    "symlink": symlink,
    "copy": copy,
}


def place(source: Path, target: Path, kinds: tuple[str, ...] = ("hardlink", "symlink", "copy")) -> str:
    """Make `target` show `source` by the first kind this volume allows; returns the kind.

    Raises FileExistsError when the name is taken, NoPermission when no kind works.
    """
    for kind in kinds:
        try:
            LADDER[kind](source, target)
        except FileExistsError:
            raise
        except (OSError, ImportError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_HERE:
                raise
        else:
            return kind
    raise NoPermission(f"`{target}` could not be linked to `{source}`", hint="try another --kind")


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    """Alone with what this lock file stands for; its holder's death frees it. Raises Busy.

    Where a system or volume has no such locks nothing is held.
    """
    with path.open("a+b") as file:
        deadline = time.monotonic() + patience
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise Busy(f"another process holds {path}", hint="wait for it, or end it")
            time.sleep(0.02)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def allocated(path: Path) -> int:
    """Bytes a file really takes on disk."""
    status = path.stat()
    return getattr(status, "st_blocks", 0) * 512 or status.st_size

"""A megabyte to throw off: on a disk that is full, even deleting needs some room, for the index's own log.

The file is made while there is plenty of space, and given up at the beginning of a removal when there is none.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

SIZE = 1 << 20
LOW, PLENTY = 2 * SIZE, 3 * SIZE
LOG = 64 << 10


def path_of(home: Path) -> Path:
    return home / "ballast"


def keep(home: Path) -> None:
    """Have it, where there is room."""
    path = path_of(home)
    with contextlib.suppress(OSError):
        if not path.exists() and shutil.disk_usage(home).free > PLENTY:
            with path.open("xb") as file:
                file.write(bytes(SIZE))


def throw_off(home: Path) -> bool:
    """Give it up when the disk is full; returns whether that made room."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(home).free < LOW:
            path_of(home).unlink()
            return True
    return False


def has_room(folder: Path) -> bool:
    """Whether there is any for the files that go with an open index."""
    try:
        return shutil.disk_usage(folder).free >= LOG
    except OSError:
        return True

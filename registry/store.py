"""Blobs: files named by what they hold.

blobs/ab/abcdef…64hex     0444, no suffix; a file there has exactly the bytes its name says
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.fs import NOT_HERE, fsync_dir

READ_ONLY = 0o444


@dataclass(frozen=True)
class Blob:
    """A verified file. `declared` = the hub had promised this SHA256."""

    sha256: str
    size: int
    declared: bool = True


class BlobStore:
    """The blobs below one home."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256.lower()).is_file()

    def commit(self, part: Path, sha256: str) -> Path:
        """Give verified bytes their name. A second finisher finds the first one's inode and keeps it."""
        target = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.chmod(READ_ONLY)
        try:
            os.link(part, target)  # link, not rename: an existing blob's hardlinks must keep their inode
        except FileExistsError:
            if target.stat().st_size != part.stat().st_size:  # it was damaged; these bytes were verified just now
                part.replace(target)
            else:  # moves its ctime: a prune that looked a moment ago leaves it alone now
                with contextlib.suppress(PermissionError):
                    target.chmod(READ_ONLY)
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            part.rename(target)
        part.unlink(missing_ok=True)
        fsync_dir(target.parent)
        return target

    def delete(self, sha256: str) -> int:
        """Remove a blob; returns the bytes that frees now (0 while other names share the inode)."""
        path = self.path(sha256)
        try:
            status = path.lstat()
        except FileNotFoundError:
            return 0
        path.unlink()
        return int(status.st_blocks * 512) if status.st_nlink == 1 else 0

    def __iter__(self) -> Iterator[Blob]:
        for path in sorted(self.root.glob("??/*")):
            if len(path.name) == 64:
                yield Blob(path.name, path.stat().st_size)

"""Files outside the store that hold bytes a second time: what `adopt` could share.

By size first, then 64 KiB from the middle, then SHA256; a file that `adopt` scanned and that did not change is not read
again.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import verify

if TYPE_CHECKING:
    from registry.local import Registry

SUFFIXES = frozenset((".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx"))
PROBE = 64 << 10
Middle = Callable[[Path], bytes | None]


@dataclass(frozen=True)
class Duplicate:
    """Bytes that are on disk more than once. `sha256` is set when the store has them."""

    paths: tuple[Path, ...]
    size: int
    wasted: int  # allocated bytes that one copy less of each would free
    name: str  # of the installed version, or of the file that would be kept
    ref: str | None
    sha256: str | None

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "paths": [str(path) for path in self.paths]}


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    allocated: int
    inode: tuple[int, int]
    mtime_ns: int


def find(
    registry: Registry, folders: Sequence[Path], *, on_file: Callable[[int, int, str], None] = lambda d, t, w: None
) -> list[Duplicate]:
    """Duplicates below these folders, the largest waste first."""
    files = _outside(registry, folders)
    by_size: dict[int, list[_File]] = defaultdict(list)
    for file in files:
        by_size[file.size].append(file)
    installed = {row["size"]: True for row in registry.rows("SELECT DISTINCT size FROM installed_file")}
    suspects = [file for size, group in by_size.items() if size in installed or len(group) > 1 for file in group]
    groups: dict[str, list[_File]] = defaultdict(list)
    middle = cache(_middle)  # LoRAs of one rank are all of one size: each is compared with all others
    for number, file in enumerate(suspects):
        on_file(number, len(suspects), file.path.name)
        if sha := _sha(registry, file, by_size[file.size], middle):
            groups[sha].append(file)
    return sorted(_duplicates(registry, groups), key=lambda d: (-d.wasted, d.name))


def _outside(registry: Registry, folders: Sequence[Path]) -> list[_File]:
    """Model files, once per inode, that are neither names of the store's bytes nor copies hubctl made itself."""
    ours = {row["path"] for row in registry.rows("SELECT path FROM link")}
    seen: dict[tuple[int, int], _File] = {}
    for folder in folders:
        for root, names, files in os.walk(folder):
            names[:] = [name for name in names if Path(root, name) != registry.home]
            for name in files:
                path = Path(root, name)
                if path.suffix.lower() not in SUFFIXES:
                    continue
                try:
                    status = path.lstat()
                except OSError:
                    continue
                inode = (status.st_dev, status.st_ino)
                if path.is_symlink() or not status.st_size or str(path.absolute()) in ours:
                    continue
                seen.setdefault(inode, _File(path, status.st_size, status.st_blocks * 512, inode, status.st_mtime_ns))
    return list(seen.values())


def _sha(registry: Registry, file: _File, others: Sequence[_File], middle: Middle) -> str | None:
    """SHA256 of a file that may be a duplicate; None when its middle shows that it is none, or it is a blob's inode."""
    rows = registry.rows("SELECT DISTINCT sha256 FROM installed_file WHERE size = ?", (file.size,))
    blobs = [registry.blob_path(row["sha256"]) for row in rows]
    if any(_is_same(blob, file) for blob in blobs):
        return None
    for row in registry.rows(
        "SELECT sha256 FROM scan WHERE path = ? AND size = ? AND mtime_ns = ? AND sha256 IS NOT NULL",
        (str(file.path), file.size, file.mtime_ns),
    ):
        return str(row["sha256"])
    rivals = [*blobs, *(other.path for other in others if other.inode != file.inode)]
    probe = middle(file.path)
    if probe is None or not any(middle(rival) == probe for rival in rivals):
        return None
    try:
        return verify.digest(file.path)
    except OSError:
        return None


def _is_same(blob: Path, file: _File) -> bool:
    try:
        status = blob.stat()
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == file.inode


def _middle(path: Path) -> bytes | None:
    """A digest of some bytes of a file, which files that differ seldom share."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(max(0, path.stat().st_size // 2 - PROBE // 2))
            return hashlib.sha256(file.read(PROBE)).digest()
    except OSError:
        return None


def _duplicates(registry: Registry, groups: dict[str, list[_File]]) -> Iterator[Duplicate]:
    for sha, files in groups.items():
        files.sort(key=lambda f: str(f.path))
        rows = registry.rows(
            "SELECT v.model_name, v.name, v.model_id, v.version_id FROM installed_file f "
            "JOIN model_version v USING (source, version_id) WHERE f.sha256 = ? LIMIT 1",
            (sha,),
        )
        paths = tuple(file.path for file in files)
        if rows:
            row = rows[0]
            wasted = sum(file.allocated for file in files)
            name, ref = f"{row['model_name']} · {row['name']}", f"{row['model_id']}@{row['version_id']}"
            yield Duplicate(paths, files[0].size, wasted, name, ref, sha)
        elif len(files) > 1:
            wasted = sum(file.allocated for file in files[1:])
            yield Duplicate(paths, files[0].size, wasted, files[0].path.name, None, None)

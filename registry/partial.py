"""Partial downloads, owned by renaming.

    partial/<key>.<host>.<pid>.part      being written by that process
    partial/<key>.<host>.<pid>.json      which ranges are safely on disk, with a BLAKE3 of each; size, etag

A process takes over a dead one's partial by renaming it to its own name: renames are atomic, so one taker wins even
where file locks do nothing. Data is flushed to disk before the journal says it is there, so that a power cut can only
lose what the journal does not claim.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry.errors import NoSpace, VerificationFailed
from registry.fs import write_atomic
from registry.store import Blob, BlobStore

Range = tuple[int, int]  # [start, end)
READ = 1 << 20
_NAME = re.compile(r"(?P<key>[0-9a-z]{16,80})\.(?P<host>[0-9a-zA-Z_-]{1,64})\.(?P<pid>\d{1,10})\.part")


def host_name() -> str:
    return re.sub(r"[^0-9a-zA-Z_-]", "-", socket.gethostname())[:64] or "host"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, non-overlapping, adjacent ones joined."""
    out: list[Range] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        elif end > start:
            out.append((start, end))
    return out


class Partial:
    """One file on its way. Thread-safe: segments write at their own offsets.

    `size` is what is expected (0 = not known yet). Raises NoSpace when the disk fills; what is on disk stays.
    """

    def __init__(self, path: Path, store: BlobStore, *, size: int, sha256: str | None) -> None:
        self.path, self.size, self.sha256 = path, size, sha256
        self.meta: dict[str, Any] = {}
        self._store = store
        self._lock = threading.RLock()
        self._chunks: dict[int, tuple[int, str]] = {}  # start → (end, blake3) safely on disk
        self._fresh: list[Range] = []  # written since the last checkpoint
        self._hash, self._hashed = hashlib.sha256(), 0  # state over the contiguous prefix written in order
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._load()

    @property
    def journal(self) -> Path:
        return self.path.with_suffix(".json")

    def _load(self) -> None:
        try:
            data = json.loads(self.journal.read_text(encoding="utf-8"))
            self.meta = dict(data.get("meta") or {})
            length = self.path.stat().st_size
            self._chunks = {int(s): (int(e), str(h)) for s, e, h in data["chunks"] if 0 <= int(s) < int(e) <= length}
        except (OSError, ValueError, KeyError, TypeError):
            self._chunks = {}

    @property
    def done(self) -> list[Range]:
        """Ranges that hold data, joined."""
        with self._lock:
            return merge([*((start, end) for start, (end, _) in self._chunks.items()), *self._fresh])

    def tell(self) -> int:
        """Bytes in the contiguous prefix: where a plain resume goes on."""
        done = self.done
        return done[0][1] if done and done[0][0] == 0 else 0

    @property
    def received(self) -> int:
        return sum(end - start for start, end in self.done)

    def missing(self, size: int | None = None) -> list[Range]:
        """What is still to be fetched of [0, size)."""
        out, at = [], 0
        total = size if size is not None else self.size
        for start, end in self.done:
            if start > at:
                out.append((at, min(start, total)))
            at = max(at, end)
        if at < total:
            out.append((at, total))
        return out

    def write(self, data: bytes) -> None:
        """Append to the contiguous prefix."""
        self.write_at(self.tell(), data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        if not data:
            return
        try:
            view, at = memoryview(data), offset
            while view:
                count = os.pwrite(self._file.fileno(), view, at)
                view, at = view[count:], at + count
        except OSError as error:
            self._raise(error)
        with self._lock:
            if offset == self._hashed:
                self._hash.update(data)
                self._hashed += len(data)
            if self._fresh and self._fresh[-1][1] == offset:
                self._fresh[-1] = (self._fresh[-1][0], offset + len(data))
            else:
                self._fresh.append((offset, offset + len(data)))

    def _raise(self, error: OSError) -> None:
        import errno

        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            missing = max(0, self.size - self.received)
            raise NoSpace(
                f"the disk filled up with {missing / 1e6:.0f} MB of this file to go; what came so far is kept"
            ) from None
        raise error

    def checkpoint(self) -> None:
        """Flush data, then let the journal claim it."""
        from blake3 import blake3

        with self._lock:
            fresh = merge(self._fresh)
            if not fresh and self.journal.exists():
                return
            try:
                os.fsync(self._file.fileno())
                for start, end in fresh:
                    digest = blake3()
                    for at in range(start, end, READ):
                        digest.update(os.pread(self._file.fileno(), min(READ, end - at), at))
                    self._chunks[start] = (end, digest.hexdigest())
                self._fresh.clear()
                self._save()
            except OSError as error:
                self._raise(error)

    def _save(self) -> None:
        chunks = [[start, end, digest] for start, (end, digest) in sorted(self._chunks.items())]
        data = {"size": self.size, "sha256": self.sha256, "meta": self.meta, "chunks": chunks}
        write_atomic(self.journal, json.dumps(data).encode())

    def discard(self, ranges: Iterable[Range]) -> None:
        """Forget these ranges; a chunk that overlaps one is forgotten whole."""
        with self._lock:
            self.checkpoint()
            for start, end in ranges:
                for first, (last, _) in list(self._chunks.items()):
                    if first < end and start < last:
                        del self._chunks[first]
            self._hash, self._hashed = hashlib.sha256(), 0
            self._save()

    def damaged(self) -> list[Range]:
        """Chunks whose bytes on disk are no longer what was written."""
        from blake3 import blake3

        self.checkpoint()
        out = []
        for start, (end, digest) in sorted(self._chunks.items()):
            check = blake3()
            for at in range(start, end, READ):
                check.update(os.pread(self._file.fileno(), min(READ, end - at), at))
            if check.hexdigest() != digest:
                out.append((start, end))
        return out

    def reset(self) -> None:
        """Start over: the source changed, or everything was wrong."""
        with self._lock:
            self._file.truncate(0)
            self._chunks.clear()
            self._fresh.clear()
            self._hash, self._hashed = hashlib.sha256(), 0
            self._save()

    def digest(self) -> str:
        """SHA256 of the whole file: the streamed state when it was written in order, else one pass."""
        with self._lock:
            total = self.path.stat().st_size
            if self._hashed > total:
                self._hash, self._hashed = hashlib.sha256(), 0
            while self._hashed < total:
                piece = os.pread(self._file.fileno(), READ, self._hashed)
                if not piece:
                    break
                self._hash.update(piece)
                self._hashed += len(piece)
            return self._hash.hexdigest()

    def seal(self, sha256: str | None = None) -> Blob:
        """Verify and give the bytes their name.

        Raises VerificationFailed (the partial stays, so that damaged ranges can be fetched again).
        """
        expected = (sha256 or self.sha256 or "").lower() or None
        total = self.path.stat().st_size
        if self.missing(self.size or total):
            raise VerificationFailed(f"the download is not complete: {self.received} of {self.size or total} bytes")
        if self.size and total != self.size:
            raise VerificationFailed(f"the download has {total} bytes, {self.size} were expected")
        found = self.digest()
        if expected and found != expected:
            raise VerificationFailed(
                f"the bytes are not what the hub promised: SHA256 {found[:16]}…, expected {expected[:16]}…",
                details={"found": found, "expected": expected},
            )
        os.fsync(self._file.fileno())
        self._file.close()
        self._store.commit(self.path, found)
        self.journal.unlink(missing_ok=True)
        return Blob(found, total, declared=expected is not None)

    def abandon(self) -> None:
        """Delete it: what came is known to be worthless."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what came for the next try (an empty one is not worth keeping)."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError, NoSpace):
            self.checkpoint()
        empty = not self.done
        self._file.close()
        if empty:
            self.path.unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)


def open_partial(folder: Path, store: BlobStore, *, sha256: str | None, size: int, key: str | None) -> Partial:
    """This process's partial of a file: its own, a dead process's taken over, or a new one.

    Raises NoSpace when the file cannot fit beside the other partials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = sha256.lower() if sha256 else hashlib.sha256((key or "unnamed").encode()).hexdigest()[:40]
    own = folder / f"{name}.{host_name()}.{os.getpid()}.part"
    if not own.exists():
        _take_over(folder, name, own)
    have = own.stat().st_size if own.exists() else 0
    free = shutil.disk_usage(folder).free
    if size - have > free:
        raise NoSpace(f"{(size - have) / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in {folder}")
    return Partial(own, store, size=size, sha256=sha256)


def _take_over(folder: Path, key: str, own: Path) -> None:
    for candidate in sorted(folder.glob(f"{key}.{host_name()}.*.part"), key=lambda p: -p.stat().st_size):
        found = _NAME.fullmatch(candidate.name)
        if found and not is_alive(int(found["pid"])):
            try:
                candidate.rename(own)
            except FileNotFoundError:
                continue  # somebody else was faster
            with contextlib.suppress(FileNotFoundError):
                candidate.with_suffix(".json").rename(own.with_suffix(".json"))
            return


def stale(folder: Path, *, older_than: float, now: float) -> list[Path]:
    """Partials nobody works on and nobody touched for `older_than` seconds."""
    out = []
    for path in sorted(folder.glob("*.part")):
        found = _NAME.fullmatch(path.name)
        alive = bool(found) and found is not None and found["host"] == host_name() and is_alive(int(found["pid"]))
        if not alive and now - path.stat().st_mtime > older_than:
            out.append(path)
    return out

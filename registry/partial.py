"""Partial downloads, owned by renaming.

    partial/<key>.<host>.<pid>.part      being written by that process, which holds a lock on it
    partial/<key>.<host>.<pid>.json      which ranges are safely on disk, with a BLAKE3 of each; size, etag

A process takes over an abandoned partial by renaming it to its own name: renames are atomic, so one taker wins even
where file locks do nothing. Abandoned means that nobody holds the lock, or, where a file system has no locks, that the
process is dead (a number alone proves nothing after a restart of the machine, when another program may have it).

Data is flushed to disk before the journal says it is there, so that a power cut can only lose what the journal does
not claim. SHA256 is computed over the contiguous beginning as it grows (`hash_some`), BLAKE3 over chunks of a fixed
grid as they are written; nothing is read twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from registry.errors import Busy, NoSpace, VerificationFailed
from registry.fs import allocated, is_alive, write_atomic
from registry.store import Blob, BlobStore

Range = tuple[int, int]  # [start, end)
READ = 256 << 10  # stays in a processor's cache
CHUNK = 8 << 20  # the grid of the journal: what a damaged byte costs
JOURNAL_ROOM = 64 << 10  # journals are padded to multiples of this, so that one can be rewritten on a full disk
FOREIGN_SECONDS = 180.0  # another machine's partial is abandoned when it was not touched for so long
LOOKS = 500  # hundredths of a second that a lock on what seems abandoned is taken for somebody's look at it
_NAME = re.compile(r"(?P<key>[0-9a-z]{16,80})\.(?P<host>[0-9a-zA-Z_-]{1,64})\.(?P<pid>\d{1,10})(-\d{1,4})?\.part")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPEN: set[Path] = set()  # of this process, for file systems without locks
_OPEN_LOCK = threading.Lock()


def host_name() -> str:
    return re.sub(r"[^0-9a-zA-Z_-]", "-", socket.gethostname())[:64] or "host"


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, non-overlapping, adjacent ones joined."""
    out: list[Range] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        elif end > start:
            out.append((start, end))
    return out


def _new_blake3() -> Any:
    from blake3 import blake3

    return blake3()


@dataclass
class _Run:
    """Bytes written one after the other within one cell of the grid, hashed as they go."""

    start: int
    end: int
    hash: Any = field(default_factory=_new_blake3)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Partial:
    """One file on its way. Thread-safe: segments write at their own offsets.

    `size` is what is expected (0 = not known yet). Raises NoSpace when the disk fills; what is on disk stays.
    """

    def __init__(
        self, path: Path, store: BlobStore, *, size: int, sha256: str | None, file: IO[bytes] | None = None
    ) -> None:
        self.path, self.size, self.sha256 = path, size, sha256
        self.meta: dict[str, Any] = {}
        self._store = store
        # taken in this order: hash, flush, state
        self._hash_lock, self._flush_lock, self._lock = threading.RLock(), threading.RLock(), threading.RLock()
        self._chunks: dict[int, tuple[int, str]] = {}  # start → (end, blake3) safely on disk
        self._runs: list[_Run] = []  # written since; those that can still grow are in `_growing` by their end
        self._growing: dict[int, _Run] = {}
        self._rewritten: list[Range] = []  # written a second time: their chunks are read again before they are claimed
        self._done: list[Range] = []
        self._unsaved = 0
        self._hash, self._hashed = hashlib.sha256(), 0  # state over the contiguous prefix
        self._file = file or _open(path)
        with _OPEN_LOCK:
            _OPEN.add(path)
        self._load()
        self._saved: bytes | None = None  # the journal as it is on disk
        if not self.journal.exists():  # its place must be there before the disk is full
            try:
                self.journal.write_bytes(_padded(self._claims()))
            except OSError as error:
                self._raise(error)

    @property
    def journal(self) -> Path:
        return self.path.with_suffix(".json")

    def _load(self) -> None:
        try:
            data = json.loads(self.journal.read_text(encoding="utf-8"))
            meta, chunks = data.get("meta"), data["chunks"]
            length = self.path.stat().st_size
            self._chunks = {int(s): (int(e), str(h)) for s, e, h in chunks if 0 <= int(s) < int(e) <= length}
            self.meta = dict(meta) if isinstance(meta, dict) else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._chunks = {}
        self._done = merge((start, end) for start, (end, _) in self._chunks.items())

    @property
    def done(self) -> list[Range]:
        """Ranges that hold data, joined."""
        with self._lock:
            return list(self._done)

    def tell(self) -> int:
        """Bytes in the contiguous prefix: where a plain resume goes on."""
        with self._lock:
            return self._done[0][1] if self._done and self._done[0][0] == 0 else 0

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

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view, at = memoryview(data), offset
        try:
            while view:
                count = os.pwrite(self._file.fileno(), view, at)
                view, at = view[count:], at + count
        except OSError as error:
            self._raise(error)
        view, at = memoryview(data), offset
        while view:
            piece = view[: CHUNK - at % CHUNK]
            self._note(at, piece)
            view, at = view[len(piece) :], at + len(piece)

    def read_at(self, start: int, end: int) -> bytes:
        """What is on disk of [start, end)."""
        return b"".join(bytes(piece) for piece in self._pieces(start, end))

    def _note(self, at: int, piece: memoryview) -> None:
        """Remember that these bytes are written, and take them into the BLAKE3 of their chunk."""
        end = at + len(piece)
        with self._lock:
            if any(first < end and at < last for first, last in self._done):
                self._rewritten.append((at, end))
            run = self._growing.pop(at, None)
            if run is None:
                run = _Run(at, at)
                self._runs.append(run)
        with run.lock:
            run.hash.update(piece)
            run.end = end
        with self._lock:
            if end % CHUNK:
                self._growing[end] = run
            self._done = merge([*self._done, (at, end)])
            self._unsaved += len(piece)

    def _raise(self, error: OSError) -> None:
        if error.errno in FULL:
            missing = max(0, self.size - self.received)
            raise NoSpace(
                f"the disk filled up with {missing / 1e6:.0f} MB of this file to go; what came so far is kept",
                hint="`hubctl prune --dry-run` shows what could be freed; the same command then continues",
            ) from None
        raise error

    def checkpoint(self) -> None:
        """Flush data, then let the journal claim it. Others may go on writing meanwhile."""
        with self._flush_lock:
            with self._lock:
                runs, rewritten, unsaved = list(self._runs), self._rewritten, self._unsaved
                if not unsaved and self._claims() == self._saved and self.journal.exists():
                    return
                self._rewritten = []
            claims = {}
            for run in runs:
                with run.lock:
                    claims[run.start] = (run.end, run.hash.hexdigest())
            self._check_owner()
            try:
                _flush(self._file)
                with self._lock:
                    self._chunks.update(claims)
                    self._runs = [run for run in self._runs if run.end % CHUNK or run.start not in claims]
                    self._unsaved -= unsaved
                self._read_again(rewritten)
                self._save()
            except OSError as error:
                self._raise(error)

    def _read_again(self, rewritten: list[Range]) -> None:
        """Chunks somebody wrote into a second time: what the disk holds counts, and no run goes on from them."""
        for start, end in rewritten:
            for first, (last, _) in list(self._chunks.items()):
                if first < end and start < last:
                    with self._lock:
                        self._growing = {at: run for at, run in self._growing.items() if run.start != first}
                        self._runs = [run for run in self._runs if run.start != first]
                    self._chunks[first] = (last, self._blake3_of(first, last))

    def _blake3_of(self, start: int, end: int) -> str:
        digest = _new_blake3()
        for piece in self._pieces(start, end):
            digest.update(piece)
        return str(digest.hexdigest())

    def _pieces(self, start: int, end: int) -> Iterator[memoryview]:
        """What is on disk of [start, end), in one buffer that is used again and again."""
        with memoryview(bytearray(min(READ, max(1, end - start)))) as view:
            at = start
            while at < end:
                count = os.preadv(self._file.fileno(), [view[: min(READ, end - at)]], at)
                if not count:
                    return
                yield view[:count]
                at += count

    def _claims(self) -> bytes:
        with self._lock:
            chunks = [[start, end, digest] for start, (end, digest) in sorted(self._chunks.items())]
            data = {"size": self.size, "sha256": self.sha256, "meta": self.meta, "chunks": chunks}
        return json.dumps(data).encode()

    def _save(self) -> None:
        claims = self._claims()
        try:
            write_atomic(self.journal, _padded(claims))
        except OSError as error:
            if error.errno not in FULL or not self._rewrite(claims):
                raise
        self._saved = claims

    def _rewrite(self, claims: bytes) -> bool:
        """The journal in its own place: all that a full disk allows. Whether it fitted."""
        with self.journal.open("r+b") as file:
            room = self.journal.stat().st_size
            if len(claims) > room:
                return False
            file.write(claims.ljust(room))
            file.flush()
            os.fsync(file.fileno())
        return True

    def discard(self, ranges: Iterable[Range]) -> None:
        """Forget these ranges; a chunk that overlaps one is forgotten whole."""
        with self._hash_lock, self._flush_lock:
            self.checkpoint()
            with self._lock:
                for start, end in ranges:
                    for first, (last, _) in list(self._chunks.items()):
                        if first < end and start < last:
                            del self._chunks[first]
                self._forget_runs()
            self._save()

    def _forget_runs(self) -> None:
        self._runs, self._growing, self._rewritten, self._unsaved = [], {}, [], 0
        self._done = merge((start, end) for start, (end, _) in self._chunks.items())
        self._hash, self._hashed = hashlib.sha256(), 0

    def damaged(self) -> list[Range]:
        """Chunks whose bytes on disk are no longer what was written."""
        self.checkpoint()
        return [
            (start, end)
            for start, (end, digest) in sorted(self._chunks.items())
            if self._blake3_of(start, end) != digest
        ]

    def cells(self) -> dict[Range, str]:
        """A BLAKE3 of each cell of the grid, read from disk: two fetches of a file can be held against each other."""
        total = self.path.stat().st_size
        grid = ((start, min(start + CHUNK, total)) for start in range(0, total, CHUNK))
        return {cell: self._blake3_of(*cell) for cell in grid}

    def blake3(self) -> str:
        """BLAKE3 of the whole file."""
        return self._blake3_of(0, self.path.stat().st_size)

    def autov3(self) -> str | None:
        """The hash of what is behind a safetensors header; None for other files."""
        from registry import hashes

        return hashes.autov3(self.path)

    def reset(self) -> None:
        """Start over: the source changed, or everything was wrong."""
        with self._hash_lock, self._flush_lock, self._lock:
            self._file.truncate(0)
            self._chunks.clear()
            self._forget_runs()
            self._save()

    def hash_some(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Take what is contiguous by now into the SHA256; returns how many bytes. For a thread beside the writers."""
        with self._hash_lock:
            before = self._hashed
            for piece in self._pieces(self._hashed, self.tell()):
                self._hash.update(piece)
                self._hashed += len(piece)
                if stopped():
                    break
            return self._hashed - before

    def digest(self) -> str:
        """SHA256 of the whole file: the streamed state, and one pass over what it does not cover yet."""
        with self._hash_lock:
            total = self.path.stat().st_size
            if self._hashed > total:
                self._hash, self._hashed = hashlib.sha256(), 0
            for piece in self._pieces(self._hashed, total):
                self._hash.update(piece)
                self._hashed += len(piece)
            return self._hash.hexdigest()

    def seal(self, sha256: str | None = None) -> Blob:
        """Verify and give the bytes their name.

        Raises VerificationFailed (the partial stays, so that damaged ranges can be fetched again).
        """
        expected = (sha256 or self.sha256 or "").lower() or None
        self._check_owner()
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
        self._check_owner()
        self._store.commit(self.path, found)
        self._close()
        self.journal.unlink(missing_ok=True)
        return Blob(found, total, declared=expected is not None)

    def _check_owner(self) -> None:
        """What was hashed and what goes by our name must be one file. Raises Busy when somebody took it over.

        That happens where locks do not reach: a machine that shares this folder took us for dead.
        """
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                return
        raise Busy(
            "another process took this download over while this one was silent",
            hint="the same command waits for it, or goes on with what it has",
        )

    def _close(self) -> None:
        self._file.close()
        with _OPEN_LOCK:
            _OPEN.discard(self.path)

    def abandon(self) -> None:
        """Delete it: what came is known to be worthless."""
        self.path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what came for the next try (an empty one is not worth keeping)."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError, NoSpace, Busy):
            self.checkpoint()
        if not self.done:
            self.path.unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)
        self._close()


def _padded(claims: bytes) -> bytes:
    return claims.ljust((len(claims) // JOURNAL_ROOM + 1) * JOURNAL_ROOM)


def _flush(file: IO[bytes]) -> None:
    getattr(os, "fdatasync", os.fsync)(file.fileno())


# --- whose it is ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holder:
    """Who is at work on a partial, and when its last bytes came."""

    host: str
    pid: int
    path: Path
    touched: float


def open_partial(folder: Path, store: BlobStore, *, sha256: str | None, size: int, key: str | None) -> Partial:
    """This process's partial of a file: an abandoned one taken over, or a new one.

    Raises NoSpace when the file cannot fit beside the other partials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = _key(sha256, key)
    own = _reserve_name(folder, name)
    file: IO[bytes] | None = None
    try:
        file = _take_over(folder, name, own)
        _check_room(folder, own, size)
        return Partial(own, store, size=size, sha256=sha256, file=file)
    except BaseException:
        if file is not None:
            file.close()
        with _OPEN_LOCK:
            _OPEN.discard(own)
        raise


def _check_room(folder: Path, own: Path, size: int) -> None:
    have = allocated(own) if own.exists() else 0
    free, promised = shutil.disk_usage(folder).free, _promised(folder, own)
    if size - have > free - promised:
        others = f", {promised / 1e9:.1f} GB of it for other downloads under way" if promised else ""
        raise NoSpace(f"{(size - have) / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in {folder}{others}")


def holder(folder: Path, *, sha256: str | None, key: str | None) -> Holder | None:
    """Who else (another process, or another thread of this one) is fetching this file at the moment."""
    for path in folder.glob(f"{_key(sha256, key)}.*.part"):
        found = _NAME.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if found and _is_held(path, found):
                ahead = time.time() - _clock(folder) if found["host"] != host_name() else 0.0
                return Holder(found["host"], int(found["pid"]), path, path.stat().st_mtime + ahead)
    return None


def stale(folder: Path, *, older_than: float, now: float) -> list[Path]:
    """Partials nobody works on and nobody touched for `older_than` seconds."""
    out = []
    for path in sorted(folder.glob("*.part")):
        found = _NAME.fullmatch(path.name)
        with contextlib.suppress(OSError):  # gone, or not ours to look at
            held = found is not None and _is_held(path, found)
            if not held and now - path.stat().st_mtime > older_than:
                out.append(path)
    return out


def _key(sha256: str | None, key: str | None) -> str:
    return sha256.lower() if sha256 else hashlib.sha256((key or "unnamed").encode()).hexdigest()[:40]


def _reserve_name(folder: Path, name: str) -> Path:
    """A name of this process that nobody writes to, kept from its other threads from here on."""
    with _OPEN_LOCK:
        for number in range(1, 1000):
            mark = f"-{number}" if number > 1 else ""
            own = folder / f"{name}.{host_name()}.{os.getpid()}{mark}.part"
            if own not in _OPEN and not _is_taken(own):
                _OPEN.add(own)
                return own
    raise NoSpace("this file is being fetched a thousand times over")


def _is_taken(own: Path) -> bool:
    """Whether a process of the same name and number has it: containers share folders, and often these too."""
    with contextlib.suppress(OSError), own.open("rb") as file:
        return _lock(file, fcntl.LOCK_SH) is False
    return False


def _open(path: Path) -> IO[bytes]:
    """Our own partial under its lock. Raises Busy when somebody holds a file of this very name for long.

    Others lock it for an instant to see whether it is abandoned, and may take it for that before our lock is on it.
    """
    for _ in range(200):
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        with contextlib.suppress(FileNotFoundError):
            if _lock(file) is not False and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
        time.sleep(0.01)
    raise Busy(f"another process writes {path}", hint="wait for it, or end it")


def _lock(file: IO[bytes], kind: int = fcntl.LOCK_EX) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_held(path: Path, name: re.Match[str]) -> bool:
    if path in _OPEN:
        return True
    with path.open("rb") as file:  # a shared lock: those who only look do not take each other for the owner
        locked = _lock(file, fcntl.LOCK_SH)
    return locked is False or (locked is None and name["host"] == host_name() and is_alive(int(name["pid"])))


def _take_over(folder: Path, key: str, own: Path) -> IO[bytes] | None:
    """The largest abandoned partial of this file, under our name and lock."""
    candidates = [path for path in folder.glob(f"{key}.*.part") if path == own or path not in _OPEN]
    for candidate in sorted(candidates, key=_size, reverse=True):
        found = _NAME.fullmatch(candidate.name)
        with contextlib.suppress(OSError):
            file = candidate.open("r+b")
            try:
                if found and _is_abandoned(file, candidate, found):
                    _rename(candidate, own)
                    return file
            except OSError:
                file.close()
                raise
            file.close()
    return None


def _rename(candidate: Path, own: Path) -> None:
    """Data and journal, in an order that leaves neither without the other whenever this process ends."""
    if candidate == own:
        return
    theirs, ours = candidate.with_suffix(".json"), own.with_suffix(".json")
    ours.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(theirs, ours)
    candidate.rename(own)
    with contextlib.suppress(FileNotFoundError):
        if ours.exists():
            theirs.unlink()
        else:  # no links here
            theirs.rename(ours)


def _is_abandoned(file: IO[bytes], path: Path, name: re.Match[str]) -> bool:
    foreign = name["host"] != host_name()
    if foreign:
        dead = _clock(path.parent) - path.stat().st_mtime > FOREIGN_SECONDS
    else:
        dead = int(name["pid"]) == os.getpid() or not is_alive(int(name["pid"]))
    locked = _lock(file)
    for _ in range(LOOKS if dead else 3):  # somebody may only be looking whether it is held
        if locked is not False:
            break
        time.sleep(0.01)
        locked = _lock(file)
    if locked is False or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return False  # at work, or somebody else was faster
    return (locked is True and dead) if foreign else (locked is True or dead)


def _clock(folder: Path) -> float:
    """What time it is where this folder lies: a NAS has a clock of its own, and writes are dated by that."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clock.", suffix=".tmp") as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # nothing may be written there
        return time.time()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _promised(folder: Path, own: Path) -> int:
    """Bytes that other downloads under way will still need here."""
    total = 0
    for path in folder.glob("*.part"):
        found = _NAME.fullmatch(path.name)
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            if path != own and found and _is_held(path, found):
                size = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("size")
                total += max(0, int(size) - allocated(path))
    return total

"""Model files outside the store: found, remembered, hashed once, and taken in.

    walk(folders)     → Found            every model file, with its stat and the names of its sidecars
    known(registry)   → path → Seen      what earlier scans wrote down: true while size, mtime and inode are
    sample(path)                         a digest of 18 windows: enough to say "probably the same bytes"
    digest(path)                         SHA256 of every byte: what a blob's name needs
    take(registry, path, …)              the file becomes a blob: cloned or hardlinked, never copied unless asked

A blob has exactly the bytes its name says, so no file enters the store on anybody's word: not a sidecar's, not its
header's, not the hub's. Cheaper evidence decides what need not be read: other names of an inode we know, files that are
unchanged since the last scan, and large files that agree with a known one in size and in every sampled window; those
are reported as duplicates and compared byte by byte before anything is done about them.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry import layouts, sidecars
from registry.errors import KnownError, NotFound
from registry.fs import NOT_HERE, fsync_dir

if TYPE_CHECKING:
    from registry.local import Registry

PIECE = 4 << 20
WINDOWS, WINDOW = 16, 64 << 10  # a sample: this many windows, and the first and last
SAMPLED = 64 << 20  # smaller files are read whole
LOCAL_IDS = 1 << 30  # ids of local versions start here, above any hub's
NO_FOLDERS = frozenset(
    {
        "venv", ".venv", "env", "node_modules", "__pycache__", "site-packages", "outputs", "output", ".git", "blobs",
        "$recycle.bin", "system volume information", "lost+found",
    }
)  # fmt: skip
HALF = (".part", ".tmp", ".crdownload", ".download", ".aria2", ".partial", ".incomplete")
ALONE = frozenset({".safetensors", ".sft", ".ckpt", ".gguf", ".pt", ".pth"})  # models wherever they lie
SMALLEST = 128  # bytes


class Found(NamedTuple):  # tens of thousands are made in a scan: cheaper than a dataclass and a Path each
    """A model file on disk. `hint` is the kind its folder is for."""

    where: str
    size: int
    mtime_ns: int
    inode: int
    device: int
    hint: str | None
    ui: str | None
    sidecars: tuple[str, ...] = ()
    sidecars_at: float = 0.0  # when the newest of them changed
    is_link: bool = False

    @property
    def path(self) -> Path:
        return Path(self.where)

    @property
    def node(self) -> tuple[int, int]:
        return self.device, self.inode

    @property
    def stamp(self) -> tuple[int, int, int]:
        return self.size, self.mtime_ns, self.inode


@dataclass(frozen=True)
class Skipped:
    path: Path
    why: str

    def to_json(self) -> dict[str, str]:
        return {"path": str(self.path), "why": self.why}


class Seen(NamedTuple):
    """What a scan wrote down about a file."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str | None
    source: str | None
    version_id: int | None
    checked_at: float
    like: str | None  # SHA256 of what it is probably a copy of
    refused: str | None  # why it was left as it is
    listed: bool  # that version is installed, with these bytes

    @property
    def stamp(self) -> tuple[int, int, int]:
        return self.size, self.mtime_ns, self.inode


# --- finding ----------------------------------------------------------------------------------------------------------

_HINTS = {
    folder.rsplit("/", 1)[-1].casefold(): kind
    for each in layouts.BUILT_IN.values()
    if each.name != "tree"
    for kind, paths in each.folders.items()
    for folder in paths
    if "{invoke}" not in folder and not folder.startswith("extensions")
} | {"lycoris": "lora", "main": "checkpoint", "lora": "lora", "embedding": "embedding"}


def stem_of(name: str) -> str:
    return name.rsplit(".", 1)[0]


def walk(roots: Sequence[Path], skipped: list[Skipped], *, but: Collection[Path] = ()) -> Iterator[Found]:
    """Model files below some folders, each folder once, links to folders followed.

    A UI's root is walked where its settings say models are, any other folder whole. `but` are folders that are ours.
    """
    seen: set[tuple[int, int]] = set()
    for ours in but:
        with contextlib.suppress(OSError):
            status = ours.stat()
            seen.add((status.st_dev, status.st_ino))
    for root in roots:
        if root.is_file():
            yield from _single(root, skipped)
            continue
        name = layouts.recognise(root)
        if name is None:
            yield from _below(root, None, None, seen, skipped)
            continue
        for kind, paths in layouts.folders(layouts.layout(name), root).items():
            for path in paths:
                yield from _below(path, name, kind, seen, skipped)


def _single(path: Path, skipped: list[Skipped]) -> Iterator[Found]:
    try:
        names = {entry.name for entry in os.scandir(path.parent)}
        beside = sidecars.beside(path.name, names)
        yield _found(str(path.parent), path.name, path.stat(), beside, _hint(path.parent), None, path.is_symlink())
    except OSError as error:
        skipped.append(Skipped(path, error.strerror or "cannot be read"))


def _hint(folder: Path) -> str | None:
    for part in (folder.name, folder.parent.name, folder.parent.parent.name):
        if part.casefold() in _HINTS:
            return _HINTS[part.casefold()]
    return None


def _below(
    start: Path, ui: str | None, kind: str | None, seen: set[tuple[int, int]], skipped: list[Skipped]
) -> Iterator[Found]:
    todo = [(start, kind or _hint(start))]
    while todo:
        here, hint = todo.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as scanned:
                entries = sorted(scanned, key=lambda e: e.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.append(Skipped(here, error.strerror or "cannot be read"))
            continue
        names = {entry.name for entry in entries}
        if "model_index.json" in names:
            skipped.append(Skipped(here, "a Diffusers folder: one model in many files, left as it is"))
            continue
        folder, beside = str(here), sidecars.by_stem(names)
        for entry in entries:
            name = entry.name
            suffix = name[name.rfind(".") :].lower() if "." in name else ""
            if suffix in layouts.SUFFIXES:
                try:
                    if entry.is_file():
                        if found := _judge(folder, entry, beside, hint, ui, suffix, skipped):
                            yield found
                        continue
                    if entry.is_symlink():
                        skipped.append(Skipped(here / name, "a link that points nowhere"))
                        continue
                except OSError as error:
                    skipped.append(Skipped(here / name, error.strerror or "cannot be read"))
                    continue
            elif suffix in HALF and name[: -len(suffix)].lower().endswith(tuple(layouts.SUFFIXES)):
                skipped.append(Skipped(here / name, "a download that is not complete"))
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir() and not name.startswith(".") and name.casefold() not in NO_FOLDERS:
                    if name.startswith("models--"):
                        skipped.append(Skipped(here / name, "in Hugging Face's own cache, left as it is"))
                    else:
                        todo.append((here / name, _HINTS.get(name.casefold(), hint)))


def _judge(
    here: str, entry: os.DirEntry[str], beside: Mapping[str, Sequence[str]], hint: str | None, ui: str | None,
    suffix: str, skipped: list[Skipped],
) -> Found | None:  # fmt: skip
    if entry.name.startswith("."):
        return None
    if suffix not in ALONE and hint is None:
        return None  # a `.bin` somewhere is more often no model
    status = entry.stat()
    if status.st_size < SMALLEST:
        skipped.append(Skipped(Path(here, entry.name), "too small to be a model"))
        return None
    return _found(here, entry.name, status, beside.get(stem_of(entry.name), ()), hint, ui, entry.is_symlink())


def _found(
    here: str, name: str, status: os.stat_result, beside: Sequence[str], hint: str | None, ui: str | None, is_link: bool
) -> Found:
    newest = 0.0
    for each in beside:
        with contextlib.suppress(OSError):
            said = os.stat(f"{here}/{each}")  # noqa: PTH116 - twice as fast, ten thousand times
            newest = max(newest, said.st_mtime, said.st_ctime)
    return Found(
        f"{here}/{name}", status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, hint, ui, tuple(beside),
        newest, is_link,
    )  # fmt: skip


# --- remembering ------------------------------------------------------------------------------------------------------


def known(registry: Registry) -> dict[str, Seen]:
    """Everything scans wrote down, by path."""
    rows = registry.rows(
        "SELECT s.path, s.size, s.mtime_ns, s.inode, s.sha256, s.source, s.version_id, s.checked_at, "
        "json_extract(s.facts, '$.like'), json_extract(s.facts, '$.refused'), f.file_id IS NOT NULL AS listed "
        "FROM scan s LEFT JOIN installed_file f ON f.source = s.source AND f.version_id = s.version_id "
        "AND f.sha256 = coalesce(s.sha256, json_extract(s.facts, '$.like'))"
    )
    return {r[0]: Seen(r[1], r[2], r[3], r[4], r[5], r[6], float(r[7]), r[8], r[9], bool(r[10])) for r in rows}


def facts_of(registry: Registry, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What was noted besides for some paths."""
    out = {}
    for path in paths:
        for row in registry.rows("SELECT facts FROM scan WHERE path = ?", (str(path),)):
            with contextlib.suppress(ValueError):
                out[str(path)] = json.loads(row["facts"] or "{}")
    return out


def local_not_asked(registry: Registry) -> dict[str, int]:
    """SHA256 → local version id of files no hub was asked about: they were adopted offline."""
    rows = registry.rows(
        "SELECT sha256, version_id FROM scan WHERE source = 'local' AND facts LIKE '%\"asked\": false%'"
    )
    return {row["sha256"]: row["version_id"] for row in rows if row["sha256"]}


@dataclass(frozen=True)
class Note:
    """A line for the scan table."""

    found: Found
    sha256: str | None = None
    autov1: str | None = None
    autov3: str | None = None
    source: str | None = None
    version_id: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def remember(registry: Registry, notes: Iterable[Note]) -> None:
    """Write down what is known of some files, replacing what was."""
    stamp = f"{datetime.now(UTC).timestamp():.6f}"
    with registry.transaction() as db:
        db.executemany(
            "INSERT OR REPLACE INTO scan(path, size, mtime_ns, inode, device, sha256, autov1, autov3, facts, source, "
            "version_id, checked_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            [
                (
                    n.found.where, n.found.size, n.found.mtime_ns, n.found.inode, n.found.device, n.sha256,
                    n.autov1, n.autov3, json.dumps(dict(n.facts), ensure_ascii=False), n.source, n.version_id, stamp,
                )
                for n in notes
            ],
        )  # fmt: skip


def forget(registry: Registry, paths: Iterable[str]) -> None:
    """Drop what was written down about files that are gone."""
    with registry.transaction() as db:
        db.executemany("DELETE FROM scan WHERE path = ?", [(path,) for path in paths])


def blobs_by_inode(registry: Registry) -> dict[tuple[int, int], str]:
    """(device, inode) → SHA256 of every blob: a file that is one of these needs no reading, while `is_right`."""
    out: dict[tuple[int, int], str] = {}
    for folder in _folders(registry.blobs.root):
        with os.scandir(folder) as entries:
            device = os.stat(folder).st_dev  # noqa: PTH116
            out.update({(device, entry.inode()): entry.name for entry in entries if len(entry.name) == 64})
    return out


def is_right(registry: Registry, sha256: str) -> bool:
    """Whether a blob was not written to since its bytes were last known to be right."""
    rows = registry.rows("SELECT mtime_ns FROM blob WHERE sha256 = ?", (sha256,))
    try:
        return not rows or registry.blob_path(sha256).stat().st_mtime_ns == rows[0]["mtime_ns"]
    except OSError:
        return False


def _folders(root: Path) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(root) if entry.is_dir()]
    except OSError:
        return []


def linked_paths(registry: Registry) -> set[str]:
    """Names hubctl put outside its home itself."""
    return {row["path"] for row in registry.rows("SELECT path FROM link WHERE kind != 'replaced'")}


def sidecars_written(registry: Registry) -> dict[str, str]:
    """Sidecar → what we wrote in it last."""
    return {row["path"]: row["written"] for row in registry.rows("SELECT path, written FROM sidecar")}


# --- reading ----------------------------------------------------------------------------------------------------------


class Changed(KnownError):
    """A file was written to while we read it."""

    code, retryable = "changed", True


class Stopped(Exception):
    """Somebody asked to stop."""


def digest(
    found: Found, *, on_bytes: Callable[[int], None] = lambda count: None, stop: threading.Event | None = None
) -> str:
    """SHA256 of a file as it was when it was found. Raises Changed, Stopped, OSError."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(min(PIECE, max(found.size, 1))))
    with found.path.open("rb", buffering=0) as file:
        _check(found, os.fstat(file.fileno()))
        _sequential(file.fileno())
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            on_bytes(count)
            if stop is not None and stop.is_set():
                raise Stopped
        _check(found, os.fstat(file.fileno()))
    return hasher.hexdigest()


def _check(found: Found, status: os.stat_result) -> None:
    if (status.st_size, status.st_mtime_ns, status.st_ino) != found.stamp:
        raise Changed(f"`{found.path}` changed while it was read", hint="try again when nothing writes to it")


def _sequential(handle: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def sample(path: Path, size: int) -> str:
    """A digest of the size, the first MiB (headers), windows all over the file and its end.

    Two merges with the same 64 KiB at 1 MiB (AutoV1) differ in nearly all of these windows.
    """
    hasher = hashlib.sha256(str(size).encode())
    with path.open("rb", buffering=0) as file:
        hasher.update(file.read(1 << 20))
        for number in range(1, WINDOWS + 1):
            file.seek(size * number // (WINDOWS + 1))
            hasher.update(file.read(WINDOW))
        file.seek(max(0, size - WINDOW))
        hasher.update(file.read(WINDOW))
    return hasher.hexdigest()


def threads_for(path: Path) -> int:
    """How many files to read at once: one on a spinning disk, else two where there are two cores."""
    if (os.cpu_count() or 1) < 2:
        return 1
    try:
        device = path.stat().st_dev
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
        for folder in (block, block.parent):
            flag = folder / "queue/rotational"
            if flag.exists():
                return 1 if flag.read_text().strip() == "1" and "vd" not in folder.name else 2
    except (OSError, AttributeError):
        pass
    return 2


def reading_speed(path: Path, size: int) -> float | None:
    """Bytes a second of hashing from this volume, from up to 32 MiB in the middle of a large file."""
    import time

    length = min(32 << 20, size // 2)
    if length < 1 << 20:
        return None
    started = time.perf_counter()
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(size // 3)
        left = length
        while left > 0 and (piece := file.read(min(PIECE, left))):
            hasher.update(piece)
            left -= len(piece)
    return (length - left) / max(1e-6, time.perf_counter() - started)


# --- taking in --------------------------------------------------------------------------------------------------------


class OtherVolume(KnownError):
    """The file is on another volume than the store: only a copy or a reference can bring it in."""

    code = "other_volume"


def take(registry: Registry, found: Found, sha256: str, *, other_volume: str = "skip") -> str:
    """Give a file that was just hashed its name in the store; returns how, or `here` when the bytes are here already.

    `other_volume`: skip · reference (a symlink to it) · copy · move (copied, then the name shows the store's bytes).
    Raises OtherVolume, Changed, NoSpace.
    """
    target = registry.blob_path(sha256)
    if target.is_file():
        return "here"
    target.parent.mkdir(parents=True, exist_ok=True)
    source = found.path.resolve()
    try:
        how = _join(source, target)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        return _from_elsewhere(registry, found, sha256, other_volume)
    try:
        _check(found, source.stat())  # nothing was written between the hash and the name
    except (Changed, OSError):
        target.unlink(missing_ok=True)
        raise
    fsync_dir(target.parent)
    return how


def _join(source: Path, target: Path) -> str:
    """Clone where the volume can (then each is free to change), else another name for the same inode."""
    from registry.fs import reflink
    from registry.outside import TEMPORARY, give_name

    beside = target.with_name(f"{TEMPORARY}{target.name[:12]}-{os.getpid()}.tmp")
    with contextlib.suppress(FileExistsError):
        try:
            reflink(source, beside)
            beside.chmod(0o444)
            give_name(beside, target)
            return "reflink"
        except (ImportError, OSError) as error:
            beside.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno not in NOT_HERE:
                raise
        os.link(source, target)
        make_read_only(target)
        return "hardlink"
    return "here"


def make_read_only(path: Path) -> None:
    """No program that opens it for writing may change a blob's bytes; replacing the file by another stays possible."""
    with contextlib.suppress(OSError):
        path.chmod(path.stat().st_mode & 0o555)


def _from_elsewhere(registry: Registry, found: Found, sha256: str, how: str) -> str:
    target = registry.blob_path(sha256)
    if how == "reference":
        with contextlib.suppress(FileExistsError):
            target.symlink_to(found.path.resolve())
        return "reference"
    if how not in {"copy", "move"}:
        raise OtherVolume(
            f"`{found.path}` is on another volume than {registry.home}",
            hint="--copy, --move or --reference brings it in, or use a --home on that volume",
        )
    with registry.reserve(sha256, size=found.size) as partial:
        partial.reset()
        with found.path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                partial.write(piece)
        partial.seal(sha256)
    return how


def replace_by_link(registry: Registry, found: Found, sha256: str, shown: Path | None, kinds: Sequence[str]) -> str:
    """Make a file with the same bytes as a blob a link to it: compared first, swapped in one step.

    Returns the kind of link. Raises Changed when it is not the file that was scanned or not the same bytes.
    """
    from registry.outside import place

    blob = registry.blob_path(sha256)
    if not blob.is_file():
        raise NotFound(f"blob {sha256[:12]} is not here", hint="`hubctl adopt` takes it in first")
    _check(found, found.path.stat())
    if not filecmp.cmp(found.path, blob, shallow=False):
        raise Changed(f"`{found.path}` has other bytes than the store", hint="it was left as it is")
    _check(found, found.path.stat())
    return place(blob, found.path, kinds, shown=shown or blob, renew=True)


def local_id(registry: Registry, sha256: str) -> int:
    """The id of a version no hub knows: from its bytes, the same on every machine; the next one where that is taken."""
    number = LOCAL_IDS + int(sha256[:8], 16) % LOCAL_IDS
    while True:
        rows = registry.rows("SELECT sha256 FROM installed_file WHERE source = 'local' AND version_id = ?", (number,))
        if not rows or any(row["sha256"] == sha256 for row in rows):
            return number
        number = LOCAL_IDS + (number + 1) % LOCAL_IDS


def versions_with(registry: Registry, sha256: str) -> list[tuple[str, int, int]]:
    """(source, model id, version id) of installed versions that have these bytes, hubs' before local ones."""
    rows: list[sqlite3.Row] = registry.rows(
        "SELECT f.source, v.model_id, f.version_id FROM installed_file f "
        "JOIN model_version v USING (source, version_id) WHERE f.sha256 = ? ORDER BY f.source = 'local', f.version_id",
        (sha256,),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def said_by_user(registry: Registry, source: str, version_id: int) -> dict[str, Any]:
    """What the user has said of a version so far; names with a value only."""
    rows = registry.rows(
        "SELECT notes, words, weight, tags FROM user_note WHERE source = ? AND version_id = ?", (source, version_id)
    )
    return {name: rows[0][name] for name in ("notes", "words", "weight", "tags") if rows and rows[0][name] is not None}


def pass_on_notes(registry: Registry, source: str, version_id: int, to: tuple[str, int]) -> None:
    """What was said of one version is said of another from now on, where nothing was said of that yet."""
    with registry.transaction() as db:
        db.execute(
            "INSERT OR IGNORE INTO user_note(source, version_id, pinned, notes, words, weight, tags, last_used_at) "
            "SELECT ?, ?, pinned, notes, words, weight, tags, last_used_at FROM user_note "
            "WHERE source = ? AND version_id = ?",
            (*to, source, version_id),
        )


def asked(registry: Registry, sha256: str, now: bool) -> None:
    """Write down that a hub was asked about these bytes and did not know them."""
    if now:
        with registry.transaction() as db:
            db.execute("UPDATE scan SET facts = json_set(facts, '$.asked', json('true')) WHERE sha256 = ?", (sha256,))


def renamed(registry: Registry, sha256: str, source: str, version_id: int) -> None:
    """These bytes belong to another version from now on."""
    with registry.transaction() as db:
        db.execute(
            "UPDATE scan SET source = ?, version_id = ?, facts = json_set(facts, '$.asked', json('true')) "
            "WHERE sha256 = ?",
            (source, version_id, sha256),
        )

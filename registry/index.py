"""Writing the index: rows from manifests, and what brings them up to date after a kill.

    manifests/generation     changes before a manifest does; the index remembers the value it has seen

Every change of manifests happens inside one write transaction of the index: the number changes, the manifest is
written, its rows are, the index takes the number over and commits. A process killed in between leaves two different
numbers, and the next open (or the next change) compares every manifest with its rows and repairs what differs.
Rows are read from the JSON itself, not through `registry.wire`: ten thousand manifests take seconds that way.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import manifest as manifests
from registry.errors import KnownError, VerificationFailed
from registry.fs import place
from registry.store import BlobStore

logger = logging.getLogger(__name__)
DESCRIPTION = 20_000  # characters of it that are searched
RIGHTS = ("allowNoCredit", "allowCommercialUse", "allowDerivatives", "allowDifferentLicense")
DERIVED = ("model_version", "installed_file", "file_hash", "search_doc", "image")
BATCH = 500  # manifests per transaction while rebuilding: others get their turn in between


@dataclass(frozen=True)
class Place:
    """One home: where its things are."""

    home: Path

    @property
    def manifests(self) -> Path:
        return self.home / "manifests"

    @property
    def generation(self) -> Path:
        return self.manifests / "generation"

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(self.home / "blobs")


# --- the generation number --------------------------------------------------------------------------------------------


def current(at: Place) -> str | None:
    """The number in the folder; None where nothing was ever installed."""
    try:
        return at.generation.read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError):
        return "none" if at.manifests.is_dir() else None
    except UnicodeDecodeError:
        return "damaged"


def bump(at: Place) -> str:
    """Say that manifests are about to change; on disk before any of them does."""
    number = os.urandom(8).hex()
    at.manifests.mkdir(parents=True, exist_ok=True)
    handle = os.open(at.generation, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(handle, number.encode(), 0)
        os.ftruncate(handle, len(number))
        os.fsync(handle)
    finally:
        os.close(handle)
    return number


def seen(db: sqlite3.Connection) -> str | None:
    row = db.execute("SELECT value FROM state WHERE key = 'generation'").fetchone()
    return row[0] if row else None


def remember(db: sqlite3.Connection, number: str | None) -> None:
    db.execute("INSERT OR REPLACE INTO state VALUES ('generation', ?)", (number or "none",))


def is_current(db: sqlite3.Connection, at: Place) -> bool:
    number = current(at)
    return number is None or number == seen(db)


# --- one manifest -----------------------------------------------------------------------------------------------------


def put(db: sqlite3.Connection, at: Place, data: Mapping[str, Any], stamp: str) -> None:
    """(Re)write the rows of one manifest, given as its JSON."""
    model, version, source = data["model"], data["version"], data["source"]
    key = (source, int(version["id"]))
    drop(db, *key)
    words = clean_words(version.get("trainedWords"))
    tags = [tag for t in _list(model.get("tags")) if (tag := _text(t.get("name") if isinstance(t, dict) else t))]
    creator = _text((model.get("creator") or {}).get("username")) if isinstance(model.get("creator"), dict) else None
    name, version_name = _text(model.get("name")) or "", _text(version.get("name")) or ""
    sizes = _put_files(db, at, data, key)
    db.execute(
        "INSERT INTO model_version(source, version_id, model_id, name, model_name, type, base_model, creator, "
        "trigger_words, settings, explicit, installed_at, size, name_key, tags, summary, stamp) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            *key, int(model["id"]), version_name, name, _text(model.get("type")), _text(version.get("baseModel")),
            creator, _json(words), _json(data["settings"]) if data.get("settings") else None,
            bool(data.get("explicit", True)), _text(data.get("installed_at")) or manifests.now(), sum(sizes.values()),
            name.casefold(), _json(tags), _json(_summary(model, version, data)), stamp,
        ),
    )  # fmt: skip
    db.execute(
        "INSERT INTO search_doc(source, version_id, name, trigger_words, tags, creator, description) "
        "VALUES (?,?,?,?,?,?,?)",
        (
            *key, f"{name} {version_name}", " ".join(words), " ".join(tags), creator or "",
            plain(_text(model.get("description"))),
        ),
    )  # fmt: skip
    weigh_users(db, data["files"].values())
    db.executemany(
        "INSERT OR REPLACE INTO image(source, image_id, version_id, position, raw) VALUES (?,?,?,?,'')",
        [
            (source, number, key[1], position)
            for position, image in enumerate(_list(version.get("images")))
            if (number := _image_id(image)) is not None
        ],
    )


def _put_files(db: sqlite3.Connection, at: Place, data: Mapping[str, Any], key: tuple[str, int]) -> dict[int, int]:
    """Rows of the files that are here; returns their sizes."""
    declared = {f.get("id"): f for f in _list(data["version"].get("files")) if isinstance(f, dict)}
    tree, facts = data.get("tree") or {}, data.get("facts") or {}
    sizes: dict[int, int] = {}
    for number, sha256 in data["files"].items():
        file = declared.get(int(number)) or {}
        path = safe_path(tree.get(number))
        name = _text(file.get("name")) or Path(path).name or sha256
        sizes[int(number)] = measure(db, at, sha256)
        known = facts.get(number) if isinstance(facts.get(number), dict) else {}
        db.execute(
            "INSERT INTO installed_file(source, version_id, file_id, name, stem, role, sha256, size, path, facts, "
            "placed) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                *key, int(number), name, Path(path or name).stem.casefold(), _text(file.get("type")), sha256,
                sizes[int(number)], path, _json(known), how_placed(at.home / path, at.blobs.path(sha256)),
            ),
        )  # fmt: skip
        hashes = {**_dict(_dict(known).get("hashes")), **_dict(file.get("hashes"))}
        db.executemany(
            "INSERT OR IGNORE INTO file_hash(value, source, version_id, file_id, kind) VALUES (?,?,?,?,?)",
            [
                (value.lower(), *key, int(number), kind)
                for kind, value in {**hashes, "SHA256": sha256, "AutoV2": sha256[:10]}.items()
                if isinstance(value, str) and value
            ],
        )
    return sizes


def measure(db: sqlite3.Connection, at: Place, sha256: str) -> int:
    """Remember what `stat` says of a blob; returns its size (0 when it is not there)."""
    path = at.blobs.path(sha256)
    try:
        status = path.stat()
    except OSError:
        db.execute("DELETE FROM blob WHERE sha256 = ?", (sha256,))
        return 0
    db.execute(
        "INSERT INTO blob(sha256, size, allocated, links, mtime_ns) VALUES (?,?,?,?,?) ON CONFLICT(sha256) DO UPDATE "
        "SET size = excluded.size, allocated = excluded.allocated, links = excluded.links",
        # a blob that is a symlink shows somebody's file on another volume: that file has names besides ours
        (sha256, status.st_size, status.st_blocks * 512, status.st_nlink + path.is_symlink(), status.st_mtime_ns),
    )  # mtime stays what it was when the bytes were last known to be right
    return status.st_size


def drop(db: sqlite3.Connection, source: str, version_id: int) -> None:
    """Forget the rows of one version; what the user said of it stays."""
    shas = [
        row[0]
        for row in db.execute(
            "SELECT sha256 FROM installed_file WHERE source = ? AND version_id = ?", (source, version_id)
        )
    ]
    for table in DERIVED:  # (+: by the index on version_id, where every row has the same source)
        column = "source" if table in {"model_version", "installed_file"} else "+source"
        db.execute(f"DELETE FROM {table} WHERE {column} = ? AND version_id = ?", (source, version_id))
    weigh_users(db, shas)


def measure_moved(db: sqlite3.Connection, at: Place) -> None:
    """Ask the disk again about blobs whose links this transaction changed."""
    shas = [row[0] for row in db.execute("SELECT sha256 FROM moved")]
    if shas:
        for sha in shas:
            measure(db, at, sha)
        weigh_users(db, shas)
        db.execute("DELETE FROM moved")


def weigh_users(db: sqlite3.Connection, shas: Iterable[str]) -> None:
    """Bring the sums of the versions that use these blobs up to date."""
    users = {
        (row[0], row[1])
        for sha in shas
        for row in db.execute("SELECT source, version_id FROM installed_file WHERE sha256 = ?", (sha,))
    }
    for key in users:
        sums = [0, 0, 0, 0, 0]
        for size, allocated, links, placed, refs, shown, hard in db.execute(_WEIGHTS, key):
            if refs == 1:
                disk = (allocated or 0) * (2 if placed == "copy" else 1)
                known = 1 + (placed == "hardlink") + hard
                elsewhere = (links or 1) > known
                parts = (1, size, disk, disk * (shown > 0 and not elsewhere), disk * elsewhere)
                sums = [total + part for total, part in zip(sums, parts, strict=True)]
        db.execute(
            "UPDATE model_version SET sole_files = ?, sole_size = ?, sole_disk = ?, sole_linked = ?, "
            "sole_elsewhere = ? WHERE source = ? AND version_id = ?",
            (*sums, *key),
        )


_WEIGHTS = """
SELECT f.size, b.allocated, b.links, f.placed,
    (SELECT count(*) FROM installed_file o WHERE o.sha256 = f.sha256) AS refs,
    (SELECT count(*) FROM link l WHERE l.sha256 = f.sha256) AS shown,
    (SELECT count(*) FROM link l WHERE l.sha256 = f.sha256 AND l.kind = 'hardlink') AS hard
FROM installed_file f LEFT JOIN blob b USING (sha256) WHERE f.source = ? AND f.version_id = ?
"""


def how_placed(path: Path, blob: Path) -> str | None:
    """How a name in tree/ shows its blob; None when it does not."""
    try:
        if path.is_symlink():
            return "symlink" if path.samefile(blob) else None
        if path.samefile(blob):
            return "hardlink"
        return "copy" if path.stat().st_size == blob.stat().st_size else None
    except OSError:
        return None


def safe_path(path: Any) -> str:
    """A path below tree/ as a manifest may name it; anything else is none."""
    text = path if isinstance(path, str) else ""
    parts = Path(text).parts
    return text if parts and parts[0] == "tree" and ".." not in parts else ""


def _summary(model: Mapping[str, Any], version: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What lists and plans show besides, so that they need no manifest."""
    stats = _dict(model.get("stats"))
    lineage = _dict(data.get("lineage"))
    found = {
        "mode": model.get("mode"),
        "downloads": stats.get("downloadCount"),
        "published_at": version.get("publishedAt"),
        "nsfw": model.get("nsfw"),
        "air": version.get("air"),
        "rights": {name: model[name] for name in RIGHTS if model.get(name) is not None},
        "parents": [p for p in _list(lineage.get("parents")) if isinstance(p, str)],
    }
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


# --- all manifests ----------------------------------------------------------------------------------------------------


def walk(at: Place) -> Iterator[tuple[Path, str]]:
    """(manifest, its stamp), a folder at a time."""
    for source in _folders(at.manifests):
        for model in _folders(source):
            try:
                entries = sorted(os.scandir(model), key=lambda e: e.name)
            except OSError:
                continue
            for entry in entries:
                if entry.name.endswith(".json") and entry.name[:-5].isdigit():
                    with suppress(FileNotFoundError):
                        yield Path(entry.path), stamp_of(entry.stat())


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        return []


def stamp_of(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}:{status.st_size}"


def batches(at: Place) -> Iterator[list[tuple[Path, str]]]:
    """All manifests, some hundred at a time: between two transactions others get their turn."""
    batch: list[tuple[Path, str]] = []
    for entry in walk(at):
        batch.append(entry)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def refresh(db: sqlite3.Connection, at: Place, path: Path, stamp: str, *, force: bool = False) -> bool:
    """Make the rows of one manifest agree with it; returns whether they did not. `stamp`: what a walk saw."""
    rows = db.execute(
        "SELECT source, stamp FROM model_version WHERE version_id = ? AND model_id = ?",
        (int(path.stem), int(path.parent.name)),
    ).fetchall()
    same = [r[0] for r in rows if r[1] == stamp and manifests.folder_of(at.manifests, r[0]) == path.parent.parent]
    if same and not force and _is_placed(db, at, same[0], int(path.stem)):
        return False
    try:  # others may have rewritten it since the walk; within this transaction nobody does
        stamp = stamp_of(path.stat())
    except FileNotFoundError:
        return False
    return index_file(db, at, path, stamp)


def drop_gone(db: sqlite3.Connection, at: Place) -> int:
    """Forget versions whose manifest is gone."""
    rows = db.execute("SELECT source, version_id, model_id FROM model_version").fetchall()
    gone = [r for r in rows if not manifests.path_of(at.manifests, r[0], r[2], r[1]).exists()]
    for source, version_id, _ in gone:
        drop(db, source, version_id)
    return len(gone)


def _is_placed(db: sqlite3.Connection, at: Place, source: str, version_id: int) -> bool:
    found = db.execute("SELECT path FROM installed_file WHERE source = ? AND version_id = ?", (source, version_id))
    return all(os.path.lexists(at.home / row[0]) for row in found)


def index_file(db: sqlite3.Connection, at: Place, path: Path, stamp: str, *, mend: bool = True) -> bool:
    """Rows of one manifest file; `mend` makes its missing names in tree/ again. False: it cannot be read."""
    try:
        data = manifests.load(path)
        for number, sha256 in data["files"].items() if mend else ():
            target = safe_path((data.get("tree") or {}).get(number))
            if target and not os.path.lexists(at.home / target) and at.blobs.has(sha256):
                (at.home / target).parent.mkdir(parents=True, exist_ok=True)
                place(at.blobs.path(sha256), at.home / target)
        put(db, at, data, stamp)
    except (KnownError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("`%s` was left out: %s", path, error)
        return False
    return True


def problems(at: Place) -> Iterator[tuple[Path, str]]:
    """Manifests that cannot be read, and why."""
    for path, _ in walk(at):
        try:
            manifests.load(path)
        except VerificationFailed as error:
            yield path, error.message


# --- small readers of strangers' JSON ---------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _image_id(image: Any) -> int | None:
    """As `wire.Image.image_id`: the id, or the number in the URL's file name."""
    found = _dict(image)
    if isinstance(found.get("id"), int):
        return int(found["id"])
    stem = str(found.get("url") or "").rsplit("/", 1)[-1].split(".", 1)[0]
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 11 else None


def clean_words(words: Any) -> list[str]:
    """Trigger words ready to paste: split at commas, `<lora:…>` left out, each once."""
    out: dict[str, None] = {}
    for entry in _list(words):
        for word in (entry if isinstance(entry, str) else "").replace("\n", ",").split(","):
            word = " ".join(word.split())
            if word and not (word.startswith("<") and word.endswith(">")):
                out[_text(word) or ""] = None
    return list(out)


def plain(html: str | None) -> str:
    """A description as words to search."""
    return re.sub(r"<[^<>]{0,2000}>", " ", (html or "")[: 3 * DESCRIPTION])[:DESCRIPTION]

"""Registry: the façade over manifests, blobs, tree and index.

Adding goes blob → tree link → manifest → rows; removing goes rows → tree link → manifest → blobs. A kill in between
leaves something the next open, install or prune tidies, never a manifest without its blobs.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry import manifest as manifests
from registry import pictures, wire
from registry.db import connect, writing
from registry.errors import Busy, NoPermission, NotFound
from registry.fs import allocated, place, safe_name
from registry.manifest import Manifest, now
from registry.partial import Partial, open_partial
from registry.store import BlobStore

WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class InstalledFile:
    file_id: int
    name: str
    role: str | None
    sha256: str
    size: int
    path: Path  # below tree/: a friendly name with the suffix loaders go by
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Installed:
    """One installed version, with what the user said about it."""

    source: str
    model: wire.Model
    version: wire.ModelVersion
    files: tuple[InstalledFile, ...]
    explicit: bool
    installed_at: str
    settings: Mapping[str, Any]
    trigger_words: tuple[str, ...]
    pinned: bool = False
    notes: str | None = None
    own_weight: float | None = None
    last_used_at: str | None = None

    @property
    def weight(self) -> float | None:
        """The weight to use a LoRA at: the user's own, else the recommended one."""
        if self.own_weight is not None:
            return self.own_weight
        entry = self.settings.get("weight")
        value = entry.get("value") if isinstance(entry, dict) else entry
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Located:
    """A file that answers a resource reference, and by what."""

    path: Path
    how: str  # "version id" · "hash" · "name"
    installed: Installed


@dataclass(frozen=True)
class Usage:
    """Bytes of one group: `logical` as listed, `on_disk` allocated once per inode, `shared` with names elsewhere."""

    key: str
    files: int
    logical: int
    on_disk: int
    shared: int
    freeable: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Run:
    id: int
    created_at: str
    image_id: int | None
    output: str
    similarity: float | None
    device: str
    seconds: float
    plan: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "plan"}


@dataclass(frozen=True)
class RemovalPlan:
    """What a removal would do, names before the bytes they name."""

    versions: tuple[tuple[str, int], ...]
    paths: tuple[Path, ...]
    blobs: tuple[str, ...]
    frees: int
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "versions": [{"source": source, "version_id": version} for source, version in self.versions],
            "paths": [str(path) for path in self.paths],
            "blobs": list(self.blobs),
            "frees": self.frees,
            "note": self.note,
        }


@dataclass(frozen=True)
class RemovalReport:
    freed: int


KIND_TYPES = {
    "checkpoint": ("checkpoint",),
    "refiner": ("checkpoint",),
    "lora": ("lora", "locon", "dora"),
    "lycoris": ("lora", "locon", "dora"),
    "embedding": ("textualinversion",),
    "vae": ("vae", "checkpoint"),
    "hypernetwork": ("hypernetwork",),
    "upscaler": ("upscaler",),
    "controlnet": ("controlnet",),
}


class Registry:
    """One home. Use as a context manager; safe to share between threads."""

    def __init__(self, home: Path, *, read_only: bool = False) -> None:
        self.home = home.absolute()
        self.read_only = read_only
        self.blobs = BlobStore(self.home / "blobs")
        self._mutex = threading.RLock()
        self._lock_file: Any = None

    @classmethod
    def open(cls, home: Path, *, read_only: bool = False) -> Registry:
        """Raises NoPermission, TooNew, Busy. A home that does not exist yet reads as empty."""
        registry = cls(home, read_only=read_only)
        if not read_only:
            try:
                registry.home.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise NoPermission(
                    f"{home} cannot be made: {error.strerror}", hint="choose another with --home"
                ) from None
            registry._take_lock(fcntl.LOCK_SH)
        registry._catch_up()
        return registry

    def _take_lock(self, kind: int) -> None:
        """Everyone holds it shared; prune and reindex exclusively. The kernel frees a dead holder's."""
        path = self.home / "lock"
        try:
            self._lock_file = self._lock_file or path.open("a+")
        except OSError as error:
            raise NoPermission(
                f"{path} cannot be written: {error.strerror}", hint="choose another home with --home"
            ) from None
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self._lock_file, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"another hubctl is using {self.home}", hint="wait for it, or end it") from None
                time.sleep(0.05)
            except OSError:  # a file system without locks: hashes and renames still keep it right
                return

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Alone in this home for a moment. Raises Busy."""
        self._take_lock(fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._take_lock(fcntl.LOCK_SH)

    @cached_property
    def _db(self) -> sqlite3.Connection:
        if self.read_only and not (self.home / "index.db").exists():
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            from registry.migrations import migrate

            migrate(connection, self.home / "index.db")
            return connection
        return connect(self.home / "index.db", read_only=self.read_only)

    def close(self) -> None:
        if "_db" in self.__dict__:
            self._db.close()
        if self._lock_file is not None:
            self._lock_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a query gives. For the modules of this package; nothing above it speaks SQL."""
        with self._mutex:
            return self._db.execute(sql, args).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One short write transaction, one thread at a time. For the modules of this package."""
        with self._mutex, writing(self._db) as db:
            yield db

    # --- adding -------------------------------------------------------------------------------------------------------

    def has(self, sha256: str) -> bool:
        return self.blobs.has(sha256)

    def blob_path(self, sha256: str) -> Path:
        return self.blobs.path(sha256.lower())

    def reserve(self, sha256: str | None, *, size: int, key: str | None = None) -> Partial:
        """A partial for a download. Raises NoSpace."""
        return open_partial(self.home / "partial", self.blobs, sha256=sha256, size=size, key=key)

    def add(
        self,
        manifest: Manifest,
        *,
        facts: Mapping[int, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an installed version whose blobs are here. Raises NotFound for a missing blob."""
        for sha256 in manifest.files.values():
            if not self.has(sha256):
                raise NotFound(f"blob {sha256[:12]} is not here", hint="install the version again")
        with self._mutex:
            previous = self._manifest(manifest.source, manifest.model.id, manifest.version.id)
            merged = dict(previous.facts) if previous else {}
            merged.update({key: dict(value) for key, value in (facts or {}).items()})
            tree = {file_id: self._place(manifest, file_id, sha) for file_id, sha in manifest.files.items()}
            manifest = replace(
                manifest,
                facts=merged,
                settings=dict(settings) if settings is not None else manifest.settings,
                tree=tree,
                installed_at=previous.installed_at if previous else manifest.installed_at,
            )
            manifests.write(self._manifest_root, manifest)
            with writing(self._db) as db:
                self._index(db, manifest)
                self._stamp(db)

    @property
    def _manifest_root(self) -> Path:
        return self.home / "manifests"

    def _manifest(self, source: str, model_id: int, version_id: int) -> Manifest | None:
        path = manifests.path_of(self._manifest_root, source, model_id, version_id)
        return manifests.read(path) if path.exists() else None

    def _place(self, manifest: Manifest, file_id: int, sha256: str) -> str:
        """Link a blob into tree/ under a friendly name; returns the path below the home."""
        model, version = manifest.model, manifest.version
        file = next((f for f in version.files if f.id == file_id), None)
        folder = (
            Path("tree")
            / safe_name(model.type or "Other")
            / safe_name(version.base_model or "Other")
            / safe_name(f"{model.name} - {version.name}", str(version.id))
        )
        name = safe_name(file.name if file else sha256[:12], f"{version.id}.safetensors")
        blob = self.blob_path(sha256)
        for candidate in (name, _numbered(name, version.id), _numbered(name, f"{version.id}-{file_id}")):
            target = self.home / folder / candidate
            if _is_same(target, blob):
                return str(folder / candidate)
            if not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                place(blob, target)
                return str(folder / candidate)
            if self._owned_by(str(folder / candidate), manifest.source, version.id, file_id):
                target.unlink()
                place(blob, target)
                return str(folder / candidate)
        raise NoPermission(f"no name is free for `{name}` in {folder}")

    def _owned_by(self, path: str, source: str, version_id: int, file_id: int) -> bool:
        rows = self.rows("SELECT source, version_id, file_id FROM installed_file WHERE path = ?", (path,))
        return all((r["source"], r["version_id"], r["file_id"]) == (source, version_id, file_id) for r in rows)

    def _index(self, db: sqlite3.Connection, manifest: Manifest) -> None:
        model, version, source = manifest.model, manifest.version, manifest.source
        words = _clean_words(version.trained_words)
        sizes = {fid: self.blob_path(sha).stat().st_size for fid, sha in manifest.files.items()}
        self._unindex(db, source, version.id)
        db.execute(
            "INSERT INTO model_version(source, version_id, model_id, name, model_name, type, base_model, creator, "
            "trigger_words, settings, explicit, installed_at, size) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                source, version.id, model.id, version.name, model.name, model.type, version.base_model,
                model.creator.username if model.creator else None, json.dumps(words),
                json.dumps(manifest.settings) if manifest.settings else None, manifest.explicit,
                manifest.installed_at, sum(sizes.values()),
            ),
        )  # fmt: skip
        for file_id, sha256 in manifest.files.items():
            file = next((f for f in version.files if f.id == file_id), None)
            name = Path(manifest.tree.get(file_id) or (file.name if file else sha256)).name
            db.execute(
                "INSERT INTO installed_file(source, version_id, file_id, name, stem, role, sha256, size, path, facts) "
                "VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    source, version.id, file_id, file.name if file else name, Path(name).stem.casefold(),
                    file.type if file else None, sha256, sizes[file_id], manifest.tree.get(file_id, ""),
                    json.dumps(manifest.facts.get(file_id) or {}),
                ),
            )  # fmt: skip
            known = {kind: value for kind, value in (file.hashes if file else {}).items() if isinstance(value, str)}
            header = (manifest.facts.get(file_id) or {}).get("hashes") or {}
            for kind, value in {**header, **known, "SHA256": sha256, "AutoV2": sha256[:10]}.items():
                if isinstance(value, str) and value:
                    db.execute(
                        "INSERT OR IGNORE INTO file_hash VALUES (?,?,?,?,?)",
                        (value.lower(), source, version.id, file_id, kind),
                    )
        db.execute(
            "INSERT INTO search_doc(source, version_id, name, trigger_words, tags, creator, description) "
            "VALUES (?,?,?,?,?,?,?)",
            (
                source, version.id, f"{model.name} {version.name}", " ".join(words), " ".join(model.tag_names),
                (model.creator.username if model.creator else None) or "", _plain(model.description),
            ),
        )  # fmt: skip

    @staticmethod
    def _unindex(db: sqlite3.Connection, source: str, version_id: int) -> None:
        for table in ("model_version", "installed_file", "file_hash", "search_doc"):
            db.execute(f"DELETE FROM {table} WHERE source = ? AND version_id = ?", (source, version_id))

    # A generation number in the manifests' folder changes with every manifest written; the index remembers the one it
    # has seen, so that a manifest written by a process killed before its rows is indexed at the next open.
    def _generation(self) -> str:
        try:
            status = max((p.stat().st_mtime_ns for p in self._manifest_root.glob("*/*")), default=0)
        except OSError:
            return "0"
        return str(status)

    def _stamp(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT OR REPLACE INTO state VALUES ('generation', ?)", (self._generation(),))

    def _catch_up(self) -> None:
        if self.read_only or not self._manifest_root.exists():
            return
        seen = self.rows("SELECT value FROM state WHERE key = 'generation'")
        if seen and seen[0]["value"] == self._generation():
            return
        known = {(r["source"], r["version_id"]) for r in self.rows("SELECT source, version_id FROM model_version")}
        missing = [
            path
            for path in manifests.walk(self._manifest_root)
            if path.stem.isdigit()
            and (path.parent.parent.name, int(path.stem)) not in {(safe_name(s), v) for s, v in known}
        ]
        with self.transaction() as db:
            for path in missing:
                self._index(db, manifests.read(path))
            self._stamp(db)

    def reindex(self) -> int:
        """Rebuild every derived row from the manifests alone; returns how many versions."""
        paths = list(manifests.walk(self._manifest_root))
        with self.transaction() as db:
            for table in ("model_version", "installed_file", "file_hash", "search_doc", "image"):
                db.execute(f"DELETE FROM {table}")
            for path in paths:
                manifest = manifests.read(path)
                self._index(db, manifest)
                self._index_images(db, manifest.version.id, manifest.version.images, manifest.source)
            self._stamp(db)
        return len(paths)

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, version_id: int, *, source: str = "civitai") -> Installed | None:
        rows = self.rows("SELECT * FROM model_version WHERE source = ? AND version_id = ?", (source, version_id))
        return self._installed(rows[0]) if rows else None

    def _installed(self, row: sqlite3.Row) -> Installed:
        source, version_id = row["source"], row["version_id"]
        manifest = manifests.read(manifests.path_of(self._manifest_root, source, row["model_id"], version_id))
        files = self.rows(
            "SELECT * FROM installed_file WHERE source = ? AND version_id = ? ORDER BY size DESC", (source, version_id)
        )
        notes = self.rows("SELECT * FROM user_note WHERE source = ? AND version_id = ?", (source, version_id))
        note = dict(notes[0]) if notes else {}
        words = json.loads(note["words"]) if note.get("words") else json.loads(row["trigger_words"])
        return Installed(
            source=source,
            model=manifest.model,
            version=manifest.version,
            files=tuple(
                InstalledFile(
                    f["file_id"], f["name"], f["role"], f["sha256"], f["size"], self.home / f["path"],
                    json.loads(f["facts"] or "{}"),
                )
                for f in files
            ),
            explicit=bool(row["explicit"]),
            installed_at=row["installed_at"],
            settings=manifest.settings or {},
            trigger_words=tuple(words),
            pinned=bool(note.get("pinned")),
            notes=note.get("notes"),
            own_weight=note.get("weight"),
            last_used_at=note.get("last_used_at"),
        )  # fmt: skip

    def installed(
        self,
        *,
        text: str | None = None,
        types: Sequence[str] = (),
        base_models: Sequence[str] = (),
        sort: str = "name",
        limit: int | None = None,
    ) -> list[Installed]:
        """Installed versions, filtered and sorted by name, size, added or used."""
        return [self._installed(row) for row in self._select(text, types, base_models, sort, limit)]

    def _select(
        self, text: str | None, types: Sequence[str], base_models: Sequence[str], sort: str, limit: int | None
    ) -> list[sqlite3.Row]:
        order = {
            "name": "v.model_name COLLATE NOCASE, v.version_id",
            "size": "v.size DESC",
            "added": "v.installed_at DESC",
            "used": "n.last_used_at DESC",
        }.get(sort, "v.model_name")
        sql = "SELECT v.* FROM model_version v LEFT JOIN user_note n USING (source, version_id)"
        where: list[str] = []
        args: list[Any] = []
        if text and (query := fts_query(text)):
            sql += " JOIN search_doc d USING (source, version_id) JOIN search_fts f ON f.rowid = d.id"
            where.append("search_fts MATCH ?")
            args.append(query)
            order = "bm25(search_fts, 10, 8, 4, 4, 1)" if sort == "name" else order
        for column, values in (("v.type", types), ("v.base_model", base_models)):
            if values:
                where.append(f"lower({column}) IN ({','.join('?' * len(values))})")
                args += [value.lower() for value in values]
        if where:
            sql += " WHERE " + " AND ".join(where)
        sql += f" ORDER BY {order}"
        if limit is not None:
            sql += " LIMIT ?"
            args.append(limit)
        return self.rows(sql, args)

    def search(self, query: Any) -> list[Installed]:
        """Full-text search of what is here. `query` has text, types, base_models, tag, creator and limit."""
        found = self._select(query.text, query.types, query.base_models, "name", None)
        out = []
        for row in found:
            if query.creator and (row["creator"] or "").casefold() != query.creator.casefold():
                continue
            item = self._installed(row)
            if query.tag and query.tag.casefold() not in {tag.casefold() for tag in item.model.tag_names}:
                continue
            out.append(item)
            if len(out) >= (query.limit or 20):
                break
        return out

    def installed_version_ids(self, model_id: int, *, source: str = "civitai") -> set[int]:
        rows = self.rows("SELECT version_id FROM model_version WHERE source = ? AND model_id = ?", (source, model_id))
        return {row["version_id"] for row in rows}

    def find(self, text: str) -> list[Installed]:
        """What a typed reference means here: version or model id, MODEL@VERSION, URL, AIR, hash, name."""
        rows = self._find_rows(text.strip())
        return [self._installed(row) for row in rows]

    def _find_rows(self, text: str) -> list[sqlite3.Row]:
        import re

        if found := re.fullmatch(r"(?:.*:)?(\d+)@(\d+)(?:\+\d+.*)?", text):
            return self.rows("SELECT * FROM model_version WHERE version_id = ?", (int(found[2]),))
        if found := re.search(r"/models/(\d+)(?:.*[?&]modelVersionId=(\d+))?", text):
            if found[2]:
                return self.rows("SELECT * FROM model_version WHERE version_id = ?", (int(found[2]),))
            return self._of_model(int(found[1]))
        if text.removeprefix("model:").isdigit():
            return self._of_model(int(text.removeprefix("model:"))) or self.rows(
                "SELECT * FROM model_version WHERE version_id = ?", (int(text.removeprefix("model:")),)
            )
        if re.fullmatch(r"(0x)?[0-9a-fA-F]{8,64}", text) and (rows := self._by_hash(text)):
            return rows
        exact = self.rows(
            "SELECT DISTINCT v.* FROM model_version v JOIN installed_file f USING (source, version_id) "
            "WHERE lower(v.model_name) = lower(?) OR f.stem = ? OR lower(f.name) = lower(?)",
            (text, text.casefold(), text),
        )
        return exact or self._select(text, (), (), "name", 20)

    def _of_model(self, model_id: int) -> list[sqlite3.Row]:
        """The newest installed version of a model (several installed: the highest id)."""
        return self.rows("SELECT * FROM model_version WHERE model_id = ? ORDER BY version_id DESC LIMIT 1", (model_id,))

    def _by_hash(self, value: str) -> list[sqlite3.Row]:
        value = value.lower().removeprefix("0x")
        return self.rows(
            "SELECT DISTINCT v.* FROM model_version v JOIN file_hash h USING (source, version_id) "
            "WHERE h.value = ? OR (length(?) >= 10 AND h.value LIKE ? || '%')",
            (value, value, value),
        )

    def locate(
        self,
        kind: str,
        *,
        hash: str | None = None,  # noqa: A002
        version_id: int | None = None,
        name: str | None = None,
    ) -> Located | None:
        """The installed file a resource reference means: by version id, then hash, then name (of this kind)."""
        types = KIND_TYPES.get(kind, ())
        questions: list[tuple[str, list[sqlite3.Row]]] = []
        if version_id:
            questions.append(
                ("version id", self.rows("SELECT * FROM model_version WHERE version_id = ?", (version_id,)))
            )
        if hash and len(hash) >= 8:
            questions.append(("hash", self._by_hash(hash)))
        if name:
            stem = Path(name.replace("\\", "/")).name
            stem = stem.rsplit(".", 1)[0] if stem.lower().endswith((".safetensors", ".ckpt", ".pt", ".bin")) else stem
            sql = (
                "SELECT DISTINCT v.* FROM model_version v JOIN installed_file f USING (source, version_id) "
                "WHERE f.stem = ? OR lower(v.model_name) = ?"
            )
            questions.append(("name", self.rows(sql, (stem.casefold(), stem.casefold()))))
        for how, rows in questions:
            for row in rows:
                if how == "name" and types and (row["type"] or "").lower() not in types:
                    continue
                item = self._installed(row)
                file = _file_for(item, hash if how == "hash" else None, name, kind)
                if file is not None:
                    return Located(file.path, how, item)
        return None

    def image(self, image_id: int) -> wire.Image | None:
        rows = self.rows("SELECT raw FROM image WHERE image_id = ?", (image_id,))
        return wire.Image.model_validate(json.loads(rows[0]["raw"])) if rows else None

    def images(self, version_id: int, *, source: str = "civitai") -> list[wire.Image]:
        rows = self.rows(
            "SELECT raw FROM image WHERE source = ? AND version_id = ? ORDER BY position", (source, version_id)
        )
        return [wire.Image.model_validate(json.loads(row["raw"])) for row in rows]

    def put_images(self, version_id: int, images: Iterable[wire.Image], *, source: str = "civitai") -> None:
        with self.transaction() as db:
            self._index_images(db, version_id, images, source)

    def put_picture(self, image_id: int, data: bytes, *, source: str = "civitai") -> Path:
        """Keep an image's own bytes, infotext and all. Raises VerificationFailed for what is no picture."""
        return pictures.put(self.home / "images", source, image_id, data)

    def picture(self, image_id: int, *, source: str = "civitai") -> Path | None:
        """The kept picture of an image."""
        return pictures.find(self.home / "images", source, image_id)

    @staticmethod
    def _index_images(db: sqlite3.Connection, version_id: int, images: Iterable[wire.Image], source: str) -> None:
        for position, image in enumerate(images):
            if image.image_id is not None:
                db.execute(
                    "INSERT OR REPLACE INTO image VALUES (?,?,?,?,?)",
                    (source, image.image_id, version_id, position, json.dumps(image.dump())),
                )

    # --- what the user says -------------------------------------------------------------------------------------------

    def _note(self, version_id: int, source: str, column: str, value: Any) -> None:
        if self.read_only:
            return
        with self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO user_note(source, version_id, pinned) VALUES (?, ?, 0)", (source, version_id)
            )
            db.execute(
                f"UPDATE user_note SET {column} = ? WHERE source = ? AND version_id = ?", (value, source, version_id)
            )

    def touch(self, version_id: int, *, source: str = "civitai") -> None:
        """Remember that it was used now."""
        self._note(version_id, source, "last_used_at", now())

    def pin(self, version_id: int, pinned: bool = True, *, source: str = "civitai") -> None:
        self._note(version_id, source, "pinned", int(pinned))

    def enqueue(self, ref: str) -> None:
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO queue VALUES (?, ?)", (ref, now()))

    def dequeue(self, ref: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM queue WHERE ref = ?", (ref,))

    def queued(self) -> list[str]:
        return [row["ref"] for row in self.rows("SELECT ref FROM queue ORDER BY added_at")]

    def record_run(
        self, *, image_id: int | None, plan: Mapping[str, Any], output: Path, similarity: float | None, device: str,
        seconds: float, versions: Mapping[str, Any], used: Sequence[int],
    ) -> None:  # fmt: skip
        with self.transaction() as db:
            db.execute(
                "INSERT INTO run(created_at, image_id, output, similarity, device, seconds, plan, versions, used) "
                "VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    now(), image_id, str(output), similarity, device, seconds, json.dumps(plan, default=str),
                    json.dumps(versions, default=str), json.dumps(list(used)),
                ),
            )  # fmt: skip

    def runs(self, limit: int = 20) -> list[Run]:
        rows = self.rows("SELECT * FROM run ORDER BY id DESC LIMIT ?", (limit,))
        return [
            Run(r["id"], r["created_at"], r["image_id"], r["output"], r["similarity"], r["device"], r["seconds"],
                json.loads(r["plan"]))
            for r in rows
        ]  # fmt: skip

    # --- removing and counting ----------------------------------------------------------------------------------------

    def plan_remove(self, versions: Sequence[tuple[str, int]]) -> RemovalPlan:
        """What removing these versions does; blobs another version uses stay."""
        going = set(versions)
        rows = self.rows("SELECT source, version_id, sha256, path FROM installed_file")
        kept = {r["sha256"] for r in rows if (r["source"], r["version_id"]) not in going}
        mine = [r for r in rows if (r["source"], r["version_id"]) in going]
        blobs = tuple(dict.fromkeys(r["sha256"] for r in mine if r["sha256"] not in kept))
        paths = tuple(self.home / r["path"] for r in mine)
        frees, elsewhere = 0, 0
        for sha in blobs:
            names = sum(1 for r in mine if r["sha256"] == sha and _is_same(self.home / r["path"], self.blob_path(sha)))
            if self.blob_path(sha).stat().st_nlink <= 1 + names:
                frees += allocated(self.blob_path(sha))
            else:
                elsewhere += allocated(self.blob_path(sha))
        shared = sum(1 for r in mine if r["sha256"] in kept)
        notes = [f"{shared} file(s) stay: another version uses them"] if shared else []
        if elsewhere:
            notes.append(f"{elsewhere / 1e6:.0f} MB stay on disk: other folders link them")
        return RemovalPlan(tuple(versions), paths, blobs, frees, "; ".join(notes))

    def remove(self, plan: RemovalPlan) -> RemovalReport:
        """Carry out a removal: rows and names first, bytes last. Raises Busy."""
        with self.exclusive(), self._mutex:
            models = {
                (r["source"], r["version_id"]): r["model_id"]
                for r in self.rows("SELECT source, version_id, model_id FROM model_version")
            }
            with writing(self._db) as db:
                for source, version_id in plan.versions:
                    self._unindex(db, source, version_id)
                    db.execute("DELETE FROM image WHERE source = ? AND version_id = ?", (source, version_id))
            for path in plan.paths:
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, self.home / "tree")
            for key in plan.versions:
                if key in models:
                    manifests.path_of(self._manifest_root, key[0], models[key], key[1]).unlink(missing_ok=True)
            still = {r["sha256"] for r in self.rows("SELECT sha256 FROM installed_file")}
            freed = sum(self.blobs.delete(sha) for sha in plan.blobs if sha not in still)
            with writing(self._db) as db:
                self._stamp(db)
        return RemovalReport(freed)

    def usage(self, *, by: str = "type") -> list[Usage]:
        """Bytes by type, base_model, model, creator, ui or age of last use; each inode counted once per group."""
        groups: dict[str, dict[str, sqlite3.Row]] = {}
        rows = self.rows(
            "SELECT f.*, v.type, v.base_model, v.model_name AS model, v.creator, v.installed_at, n.last_used_at, "
            "(SELECT group_concat(DISTINCT layout) FROM link l WHERE l.sha256 = f.sha256) AS ui "
            "FROM installed_file f JOIN model_version v USING (source, version_id) "
            "LEFT JOIN user_note n USING (source, version_id)"
        )
        for row in rows:
            key = _age(row["last_used_at"] or row["installed_at"]) if by == "age" else row[by]
            groups.setdefault(key or ("not linked" if by == "ui" else "unknown"), {})[row["sha256"]] = row
        return [self._usage(key, members) for key, members in groups.items()]

    def total_usage(self) -> Usage:
        rows = self.rows("SELECT * FROM installed_file")
        return self._usage("total", {row["sha256"]: row for row in rows})

    def _usage(self, key: str, members: Mapping[str, sqlite3.Row]) -> Usage:
        logical = on_disk = shared = freeable = 0
        names: dict[str, int] = {}
        for row in self.rows("SELECT sha256, path FROM installed_file"):
            if row["sha256"] in members and _is_same(self.home / row["path"], self.blob_path(row["sha256"])):
                names[row["sha256"]] = names.get(row["sha256"], 0) + 1
        for sha256 in members:
            try:
                status = self.blob_path(sha256).stat()
            except FileNotFoundError:
                continue
            bytes_on_disk = status.st_blocks * 512
            logical += status.st_size
            on_disk += bytes_on_disk
            if status.st_nlink > 1 + names.get(sha256, 0):
                shared += bytes_on_disk
            else:
                freeable += bytes_on_disk
        return Usage(key, len(members), logical, on_disk, shared, freeable)

    def check(self) -> list[str]:
        """Disagreements between manifests, blobs, tree and index, as sentences."""
        problems = []
        listed = {
            (safe_name(r["source"]), r["version_id"]) for r in self.rows("SELECT source, version_id FROM model_version")
        }
        written = set()
        for path in manifests.walk(self._manifest_root):
            manifest = manifests.read(path)
            written.add((path.parent.parent.name, manifest.version.id))
            for file_id, sha256 in manifest.files.items():
                if not self.has(sha256):
                    problems.append(f"`{manifest.model.name}` lacks its blob {sha256[:12]}")
                elif not (self.home / manifest.tree.get(file_id, "?")).exists():
                    problems.append(f"`{manifest.model.name}` has no file in tree/")
        if written - listed:
            problems.append(f"{len(written - listed)} installed version(s) are not in the index")
        if listed - written:
            problems.append(f"{len(listed - written)} row(s) of the index have no manifest")
        return problems


def fts_query(text: str) -> str:
    """User text as an FTS5 query: every word quoted, the last one a prefix; nothing of FTS syntax gets through."""
    words = [word for word in "".join(c if c.isalnum() or c == "_" else " " for c in text).split() if word]
    return " ".join(f'"{word}"*' for word in words[:16])


def _clean_words(words: Sequence[str]) -> list[str]:
    out: list[str] = []
    for entry in words:
        for word in entry.replace("\n", ",").split(","):
            word = " ".join(word.split())
            if word and not (word.startswith("<") and word.endswith(">")) and word not in out:
                out.append(word)
    return out


def _plain(html: str | None) -> str:
    import re

    return re.sub(r"<[^<>]{0,2000}>", " ", (html or "")[:200_000])


def _numbered(name: str, mark: object) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-v{mark}.{suffix}" if dot else f"{name}-v{mark}"


def _is_same(target: Path, blob: Path) -> bool:
    try:
        return target.samefile(blob)
    except OSError:
        return False


def _file_for(item: Installed, hash: str | None, name: str | None, kind: str) -> InstalledFile | None:  # noqa: A002
    """Which of a version's files a reference means."""
    candidates = list(item.files)
    if kind == "vae" and (item.model.type or "").lower() == "checkpoint":
        candidates = [file for file in candidates if file.role == "VAE"]
    if hash:
        wanted = hash.lower().removeprefix("0x")
        for file in candidates:
            if file.sha256.startswith(wanted):
                return file
    if name:
        for file in candidates:
            if Path(file.name).stem.casefold() == Path(name).stem.casefold():
                return file
    return candidates[0] if candidates else None


def _age(stamp: str) -> str:
    from datetime import UTC, datetime

    days = (datetime.now(UTC) - datetime.fromisoformat(stamp)).days
    for limit, label in ((7, "used this week"), (30, "used this month"), (180, "used in the last 6 months")):
        if days <= limit:
            return label
    return "not used for 6 months"


def _remove_empty(folder: Path, stop: Path) -> None:
    while folder != stop and stop in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent

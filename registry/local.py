"""Registry: the façade over manifests, blobs, tree, index and what the user said.

Adding goes blob → tree link → manifest → rows; removing goes rows → links → tree → manifest → blobs. A kill in between
leaves something the next open, install or prune tidies, never a manifest without its blobs.

There is one lock, the index's own write lock: whatever gives or takes a name does it inside a short write transaction,
so a blob that a manifest is about to name cannot be deleted, and removing never waits for a running download.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from registry import ballast, index
from registry import facts as journal
from registry import manifest as manifests
from registry import search as finding
from registry.db import DamagedIndex, connect, in_memory, legible, writing
from registry.errors import Busy, NoPermission, NoSpace, NotFound, VerificationFailed
from registry.fs import locked, place, safe_name
from registry.index import Place
from registry.manifest import Manifest, now
from registry.search import Filter, Installed, InstalledFile, Located, fts_query
from registry.store import BlobStore

if TYPE_CHECKING:
    from registry import wire
    from registry.partial import Partial
    from registry.trash import RemovalPlan, RemovalReport
    from registry.usage import Library, Usage

__all__ = ["Filter", "Installed", "InstalledFile", "Located", "Registry", "Run", "fts_query"]
logger = logging.getLogger(__name__)
WAIT_FOR_LINKS = 600.0  # seconds: another process may be copying a large file
DRIVES = ("/mnt/", "/media/", "/run/media/", "/Volumes/")  # what is below is there only while it is plugged in


@dataclass(frozen=True)
class Run:
    id: int
    created_at: str
    image_id: int | None
    output: str
    similarity: float | None
    device: str
    seconds: float
    plan_json: str

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.plan_json)
        return found

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"plan", "plan_json"}}


class Registry:
    """One home. Use as a context manager; safe to share between threads."""

    def __init__(self, home: Path, *, read_only: bool = False) -> None:
        self.home = home.absolute()
        self.read_only = read_only
        self.at = Place(self.home)
        self.blobs: BlobStore = self.at.blobs
        self._mutex = threading.RLock()
        self._linking, self._links = threading.RLock(), 0

    @classmethod
    def open(cls, home: Path, *, read_only: bool = False) -> Registry:
        """Raises NoPermission, TooNew, Busy. A home that does not exist yet reads as empty."""
        registry = cls(home, read_only=read_only)
        if not read_only:
            registry._make_home()
        elif registry._is_behind():
            registry._bring_up_to_date_elsewhere()
        if not read_only and not registry._is_current():
            registry.catch_up()
        return registry

    def refuse_if_unplugged(self) -> None:
        """A home on a drive that is not there is not an empty one. Raises NotFound."""
        if not self.home.parent.exists() and self.home.as_posix().startswith(DRIVES):
            raise NotFound(
                f"{self.home.parent} is not there", hint="is the drive plugged in? else choose another --home"
            )

    def _make_home(self) -> None:
        self.refuse_if_unplugged()
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NoPermission(
                f"{self.home} cannot be made: {error.strerror}", hint="choose another with --home"
            ) from None
        ballast.keep(self.home)

    def _refuse_if_gone(self) -> None:
        """Nothing is made in the place of a home that went away under us."""
        if not self.home.is_dir():
            raise NotFound(f"{self.home} is gone", hint="was a drive unplugged? nothing was changed")

    def _is_behind(self) -> bool:
        """Whether a reader would miss something: an index that is gone, or older than the manifests."""
        if not (self.home / "index.db").exists():
            return self.at.manifests.is_dir()
        return not self._is_current()

    def _bring_up_to_date_elsewhere(self) -> None:
        """A reader brings an index that is behind up to date through a second connection, where it may write."""
        self.close()
        self.__dict__.pop("_db", None)
        try:
            Registry.open(self.home).close()
        except (NoPermission, NoSpace, Busy, OSError) as error:
            logger.debug("the index is behind and stays so: %s", error)

    @cached_property
    def _db(self) -> sqlite3.Connection:
        if self.read_only and not (self.home / "index.db").exists():
            return self._in_memory()
        try:
            return connect(self.home / "index.db", read_only=self.read_only)
        except NoSpace:  # not even for the files that go with an open index
            if self.read_only or not ballast.throw_off(self.home):
                raise
            return connect(self.home / "index.db")
        except NoPermission:
            if not self.read_only:
                raise
            return self._in_memory()  # an older index in a folder that may only be read

    def _in_memory(self) -> sqlite3.Connection:
        """An index that is not on disk: of a home that is empty, or may only be read."""
        from registry.migrations import pending

        connection = in_memory(self.home / "index.db")
        for migration in pending(connection):
            migration(connection)
        if self.at.manifests.is_dir():
            with writing(connection) as db:
                journal.replay(db, self.home)
                for path, stamp in index.walk(self.at):
                    index.index_file(db, self.at, path, stamp, mend=False)
                index.remember(db, index.current(self.at))
        return connection

    def close(self) -> None:
        if "_db" in self.__dict__:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a query gives. For the modules of this package; nothing above it speaks SQL."""
        with self._mutex, legible():
            return self._db.execute(sql, args).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One short write transaction, one thread at a time. For the modules of this package.

        Before it commits, changes of what the user said are appended to facts.jsonl, and blobs that got or lost a link
        are measured again.
        """
        with self._mutex, writing(self._db) as db:
            yield db
            index.measure_moved(db, self.at)
            journal.flush(db, self.home)

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that also changes manifests: `registry.index` explains the generation number."""
        self._refuse_if_gone()
        if not self._is_current():
            self.catch_up()
        with self.transaction() as db:
            fresh = index.is_current(db, self.at)
            number = index.bump(self.at)
            yield db
            if fresh:  # else somebody died with a change half made: the number stays unknown, the next open repairs
                index.remember(db, number)

    @contextmanager
    def linking(self) -> Iterator[None]:
        """Nobody else makes or removes names in UI folders meanwhile. The kernel frees a dead holder's. Raises Busy."""
        with self._linking, locked(self.home / "links.lock", WAIT_FOR_LINKS) if not self._links else nullcontext():
            self._links += 1
            try:
                yield
            finally:
                self._links -= 1

    @contextmanager
    def settled(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which the rows are known to agree with the manifests: what deletes blobs needs that.

        Raises Busy.
        """
        for _ in range(5):
            if not self._is_current():
                self.catch_up()
            with self.transaction() as db:
                if index.is_current(db, self.at):
                    yield db
                    return
        raise Busy(f"other processes keep changing {self.home}", hint="try again in a moment")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else writes meanwhile. Raises Busy."""
        with self.transaction():
            yield

    def _is_current(self) -> bool:
        with self._mutex, legible():
            return index.is_current(self._db, self.at)

    def catch_up(self, *, force: bool = False) -> int:
        """Make rows and manifests agree, some hundred manifests at a time; returns how many changed.

        `force` rewrites the rows of manifests that did not change, too.
        """
        ballast.throw_off(self.home)
        with self.transaction() as db:
            number = index.current(self.at)
            if not force and index.is_current(db, self.at):  # somebody was at work; now they are done
                return 0
            if index.seen(db) is None or force:
                journal.replay(db, self.home)
        changed = 0
        for batch in index.batches(self.at):
            with self.transaction() as db:
                changed += sum(index.refresh(db, self.at, path, stamp, force=force) for path, stamp in batch)
        with self.transaction() as db:
            changed += index.drop_gone(db, self.at)
            if index.current(self.at) == number:
                index.remember(db, number)
        return changed

    @staticmethod
    def rebuild(home: Path) -> tuple[int, Path | None]:
        """`reindex`, also of an index that SQLite cannot read, or not all of it: that one is moved out of the way.

        Returns how many versions there are, and where the damaged one is now. Raises TooNew and others.
        """
        aside = Registry.set_damaged_index_aside(home)
        try:
            with Registry.open(home) as registry:
                return registry.reindex(), aside
        except DamagedIndex:  # some page of it, which nobody had read so far
            aside = Registry.set_damaged_index_aside(home, known=True)
            with Registry.open(home) as registry:
                return registry.reindex(), aside

    @staticmethod
    def set_damaged_index_aside(home: Path, *, known: bool = False) -> Path | None:
        """Move an index that SQLite cannot read out of the way; returns where to. Raises TooNew and others."""
        try:
            Registry.open(home).close()
        except VerificationFailed:
            known = True
        if not known:
            return None
        aside = home / f"index.damaged.{now().replace(':', '')}.db"
        for suffix in ("", "-wal", "-shm"):
            old = home / f"index.db{suffix}"
            if old.exists():
                old.replace(f"{aside}{suffix}")
        return aside

    def reindex(self) -> int:
        """Rebuild every derived row from the manifests, and the user's facts from their journal.

        Returns how many versions there are.
        """
        self.catch_up(force=True)
        with self.transaction() as db:
            db.execute("INSERT INTO search_fts(search_fts) VALUES ('optimize')")
            db.execute("DELETE FROM blob WHERE sha256 NOT IN (SELECT sha256 FROM installed_file)")
            journal.compact(db, self.home)
            return int(db.execute("SELECT count(*) FROM model_version").fetchone()[0])

    # --- adding -------------------------------------------------------------------------------------------------------

    def has(self, sha256: str) -> bool:
        return self.blobs.has(sha256)

    def blob_path(self, sha256: str) -> Path:
        return self.blobs.path(sha256.lower())

    def reserve(self, sha256: str | None, *, size: int, key: str | None = None) -> Partial:
        """A partial for a download. Raises NoSpace, NotFound when the home is gone."""
        from registry.partial import open_partial

        self._refuse_if_gone()
        return open_partial(self.home / "partial", self.blobs, sha256=sha256, size=size, key=key)

    def add(
        self,
        manifest: Manifest,
        *,
        facts: Mapping[int, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an installed version whose blobs are here. Raises NotFound for a missing blob."""
        manifest = replace(manifest, files={number: sha.lower() for number, sha in manifest.files.items()})
        self._refuse_missing(manifest)
        from registry import trash

        with self.changing() as db:
            self._refuse_missing(manifest)  # again, now that nobody can delete one
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
            self._drop_namesakes(db, manifest)
            if previous and set(previous.files.values()) - set(manifest.files.values()):
                trash.keep(self, previous)  # other bytes under the same ids: nobody said that these may go
            path = manifests.write(self.at.manifests, manifest)
            index.put(db, self.at, manifest.to_json(), index.stamp_of(path.stat()))
            for old in set((previous.tree if previous else {}).values()) - set(tree.values()):
                self.forget_name(old)

    def _drop_namesakes(self, db: sqlite3.Connection, manifest: Manifest) -> None:
        """A version belongs to one model: its manifest under another model id goes."""
        key = (manifest.source, manifest.version.id)
        for row in db.execute("SELECT model_id FROM model_version WHERE source = ? AND version_id = ?", key):
            if row["model_id"] != manifest.model.id:
                manifests.path_of(self.at.manifests, key[0], row["model_id"], key[1]).unlink(missing_ok=True)

    def _refuse_missing(self, manifest: Manifest) -> None:
        for sha256 in manifest.files.values():
            if not self.has(sha256):
                raise NotFound(f"blob {sha256[:12]} is not here", hint="install the version again")

    def _manifest(self, source: str, model_id: int, version_id: int) -> Manifest | None:
        try:
            return manifests.read(manifests.path_of(self.at.manifests, source, model_id, version_id))
        except (NotFound, VerificationFailed):  # what cannot be read is written anew
            return None

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
        owner = (manifest.source, version.id, file_id)
        for candidate in (name, _numbered(name, version.id), _numbered(name, f"{version.id}-{file_id}")):
            path, target = str(folder / candidate), self.home / folder / candidate
            holder = self._owner(path)
            if holder not in {None, owner}:
                continue
            if index.how_placed(target, blob) in {"hardlink", "symlink"}:
                return path
            if holder is None and _is_foreign(target):
                continue
            target.unlink(missing_ok=True)  # other bytes of ours, or what a killed process left
            target.parent.mkdir(parents=True, exist_ok=True)
            place(blob, target)
            return path
        raise NoPermission(f"no name is free for `{name}` in {folder}")

    def _owner(self, path: str) -> tuple[str, int, int] | None:
        for row in self.rows("SELECT source, version_id, file_id FROM installed_file WHERE path = ?", (path,)):
            return row["source"], row["version_id"], row["file_id"]
        return None

    def forget_name(self, path: str) -> None:
        """Take a name out of tree/ that no row has any more. Inside a transaction."""
        if index.safe_path(path) and self._owner(path) is None:
            (self.home / path).unlink(missing_ok=True)
            remove_empty((self.home / path).parent, self.home / "tree")

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, version_id: int, *, source: str = "civitai") -> Installed | None:
        rows = self.rows("SELECT * FROM model_version WHERE source = ? AND version_id = ?", (source, version_id))
        return next(self._load(rows), None)

    def _load(self, rows: Sequence[sqlite3.Row]) -> Iterator[Installed]:
        return finding.load(self.rows, self.home, rows)

    def installed(
        self,
        *,
        text: str | None = None,
        types: Sequence[str] = (),
        base_models: Sequence[str] = (),
        tag: str | None = None,
        creator: str | None = None,
        sort: str = "name",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Installed]:
        """Installed versions, filtered and sorted by name, size, added or used."""
        wanted = Filter(text, types, base_models, tag, creator)
        return self.select(wanted, sort=sort, limit=limit, offset=offset)

    def select(
        self, wanted: Filter, *, sort: str = "name", limit: int | None = None, offset: int = 0
    ) -> list[Installed]:
        """Installed versions that fit, a page of them when asked for."""
        return list(self.each(wanted, sort=sort, limit=limit, offset=offset))

    def each(
        self, wanted: Filter, *, sort: str = "name", limit: int | None = None, offset: int = 0
    ) -> Iterator[Installed]:
        """The same, one by one."""
        return self._load(finding.select(self.rows, wanted, sort=sort, limit=limit, offset=offset))

    def refs(self, wanted: Filter, *, sort: str = "name", limit: int | None = None, offset: int = 0) -> list[str]:
        """MODEL@VERSION of each, nothing else being read."""
        columns = "v.model_id, v.version_id"
        rows = finding.select(self.rows, wanted, sort=sort, limit=limit, offset=offset, columns=columns)
        return [f"{row[0]}@{row[1]}" for row in rows]

    def count(self, wanted: Filter | None = None) -> tuple[int, int]:
        """(versions, bytes of their files)"""
        return finding.count(self.rows, wanted or Filter())

    def search(self, query: Any) -> list[Installed]:
        """Full-text search of what is here. `query` has text, types, base_models, tag, creator and limit."""
        wanted = Filter(query.text, query.types, query.base_models, query.tag, query.creator)
        return list(self._load(finding.select(self.rows, wanted, limit=query.limit or 20)))

    def installed_version_ids(self, model_id: int, *, source: str = "civitai") -> set[int]:
        rows = self.rows("SELECT version_id FROM model_version WHERE source = ? AND model_id = ?", (source, model_id))
        return {row["version_id"] for row in rows}

    def find(self, text: str) -> list[Installed]:
        """What a typed reference means here: version or model id, MODEL@VERSION, URL, AIR, hash, name."""
        return list(self._load(finding.find(self.rows, text.strip())))

    def locate(
        self,
        kind: str,
        *,
        hash: str | None = None,  # noqa: A002
        version_id: int | None = None,
        name: str | None = None,
    ) -> Located | None:
        """The installed file a resource reference means: by version id, then hash, then name (of this kind).

        A LoRA last by the name its trainer gave it.
        """
        types = finding.KIND_TYPES.get(kind, ())
        for how, row in finding.candidates(self.rows, hash=hash, version_id=version_id, name=name):
            if how == "name" and types and (row["type"] or "").lower() not in types:
                continue
            for item in self._load([row]):
                file = finding.file_for(item, hash if how == "hash" else None, name, kind)
                if file is not None:
                    return Located(file.path, how, item)
        if name and "lora" in types:
            return finding.by_trained_name(self.each(Filter(types=types)), name)
        return None

    # --- example images -----------------------------------------------------------------------------------------------

    def image(self, image_id: int) -> wire.Image | None:
        for row in self.rows("SELECT * FROM image WHERE image_id = ?", (image_id,)):
            return next(self._images([row]), None)
        return None

    def images(self, version_id: int, *, source: str = "civitai") -> list[wire.Image]:
        rows = self.rows(
            "SELECT * FROM image WHERE source = ? AND version_id = ? ORDER BY position", (source, version_id)
        )
        return list(self._images(rows))

    def _images(self, rows: Sequence[sqlite3.Row]) -> Iterator[wire.Image]:
        """Rows of one version as images: from the row, or where it is empty from the manifest."""
        from registry import wire

        kept: list[wire.Image] | None = None
        for row in rows:
            if row["raw"]:
                yield wire.Image.model_validate(json.loads(row["raw"]))
                continue
            if kept is None:
                item = self.get(row["version_id"], source=row["source"])
                kept = item.version.images if item else []
            if row["position"] < len(kept):
                yield kept[row["position"]]

    def put_images(self, version_id: int, images: Iterable[wire.Image], *, source: str = "civitai") -> None:
        """Keep images of a version besides those of its manifest."""
        with self.transaction() as db:
            known = {
                row[0]: row[1]
                for row in db.execute(
                    "SELECT image_id, raw FROM image WHERE source = ? AND version_id = ?", (source, version_id)
                )
            }
            db.executemany(
                "INSERT OR REPLACE INTO image(source, image_id, version_id, position, raw) VALUES (?,?,?,?,?)",
                [
                    (source, image.image_id, version_id, position, json.dumps(image.dump()))
                    for position, image in enumerate(images)
                    if image.image_id is not None and known.get(image.image_id) != ""  # the manifest has it
                ],
            )

    def put_picture(self, image_id: int, data: bytes, *, source: str = "civitai") -> Path:
        """Keep an image's own bytes, infotext and all. Raises VerificationFailed for what is no picture."""
        from registry import pictures

        return pictures.put(self.home / "images", source, image_id, data)

    def picture(self, image_id: int, *, source: str = "civitai") -> Path | None:
        """The kept picture of an image."""
        from registry import pictures

        return pictures.find(self.home / "images", source, image_id)

    # --- what the user says -------------------------------------------------------------------------------------------

    def note(self, version_id: int, *, source: str = "civitai", **said: Any) -> None:
        """Remember what the user says of a version.

        `said`: pinned (bool), notes (text), words (list of own trigger words), weight (number), tags (list),
        last_used_at; None forgets.
        """
        if self.read_only or not said:
            return
        unknown = said.keys() - {"pinned", "notes", "words", "weight", "tags", "last_used_at"}
        if unknown:
            raise TypeError(f"there is no note called {sorted(unknown)[0]}")
        values = {
            name: json.dumps(v, ensure_ascii=False) if isinstance(v, list | tuple) else v for name, v in said.items()
        }
        if "pinned" in values:
            values["pinned"] = int(bool(values["pinned"]))
        with self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO user_note(source, version_id, pinned) VALUES (?, ?, 0)", (source, version_id)
            )
            names = ", ".join(f"{name} = ?" for name in values)
            db.execute(
                f"UPDATE user_note SET {names} WHERE source = ? AND version_id = ?",
                (*values.values(), source, version_id),
            )

    def touch(self, version_id: int, *, source: str = "civitai") -> None:
        """Remember that it was used now."""
        self.note(version_id, source=source, last_used_at=now())

    def pin(self, version_id: int, pinned: bool = True, *, source: str = "civitai") -> None:
        """A pinned version is never pruned."""
        self.note(version_id, source=source, pinned=pinned)

    def ignore(self, model_id: int, version_id: int = 0, *, source: str = "civitai", ignored: bool = True) -> None:
        """Do not offer this version (0: any version of the model) as an update, or offer it again."""
        with self.transaction() as db:
            if ignored:
                db.execute("INSERT OR IGNORE INTO ignored VALUES (?, ?, ?)", (source, model_id, version_id))
            else:
                db.execute(
                    "DELETE FROM ignored WHERE source = ? AND model_id = ? AND version_id = ?",
                    (source, model_id, version_id),
                )

    def is_ignored(self, model_id: int, version_id: int, *, source: str = "civitai") -> bool:
        return bool(
            self.rows(
                "SELECT 1 FROM ignored WHERE source = ? AND model_id = ? AND version_id IN (0, ?)",
                (source, model_id, version_id),
            )
        )

    def add_lock_root(self, path: Path) -> None:
        """A hubctl.lock whose versions are not pruned."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO lock_root VALUES (?, ?)", (str(path.absolute()), now()))

    def drop_lock_root(self, path: Path) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM lock_root WHERE path = ?", (str(path.absolute()),))

    def lock_roots(self) -> list[Path]:
        """Every hubctl.lock that was synced into this home."""
        return [Path(row["path"]) for row in self.rows("SELECT path FROM lock_root ORDER BY path")]

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
        names = "id, created_at, image_id, output, similarity, device, seconds, plan"
        return [Run(*row) for row in self.rows(f"SELECT {names} FROM run ORDER BY id DESC LIMIT ?", (limit,))]

    # --- removing and counting ----------------------------------------------------------------------------------------

    def plan_remove(self, versions: Sequence[tuple[str, int]]) -> RemovalPlan:
        """What removing these versions does; blobs another version uses stay."""
        from registry import trash

        return trash.plan_remove(self, versions)

    def remove(self, plan: RemovalPlan, *, to_trash: bool = False, reason: str = "") -> RemovalReport:
        """Carry out a removal: rows and names first, bytes last, or with `to_trash` not yet."""
        from registry import trash

        return trash.remove(self, plan, to_trash=to_trash, reason=reason)

    def library(self, *, by: str = "type", top: int | None = None, exact: bool = False) -> Library:
        """Where the disk space went: groups by type, base_model, model, creator, ui or age, and what lies beside."""
        from registry import usage

        return usage.library(self, by=by, top=top, exact=exact)

    def usage(self, *, by: str = "type") -> list[Usage]:
        """Bytes by group; each inode counted once per group."""
        return list(self.library(by=by).groups)

    def total_usage(self) -> Usage:
        return self.library().total

    def check(self) -> list[str]:
        """Disagreements between manifests, blobs, tree and index, as sentences."""
        from registry import verify

        return [problem.message for problem in verify.index_problems(self)]


def _is_foreign(path: Path) -> bool:
    """A file of its own in tree/: somebody put it there, since our names share an inode or point at a blob."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return not path.is_symlink() and status.st_nlink == 1


def _numbered(name: str, mark: object) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-v{mark}.{suffix}" if dot else f"{name}-v{mark}"


def remove_empty(folder: Path, stop: Path) -> None:
    """Remove folders that hold nothing, upwards."""
    while folder != stop and stop in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent

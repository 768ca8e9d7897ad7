"""Where a hub's answers come from: the `Catalog` seam, and the one that offers a registry.

    cards()      what lists filter and sort by, kept in memory, read again only for manifests that changed
    holding(id)  one version as the hub described it, with the files that are here: one manifest, read when asked for

Only what is here is offered: not a version without its blobs, nor a file of it that was never fetched. Ids are the
hub's own. Two hubs may have given the same number to different things; then the first of them (civitai, then by name)
keeps it.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from registry import manifest as manifests
from registry import pictures
from registry.errors import KnownError
from registry.http.query import EVERYTHING, PG, Card, ImageQuery, VersionCard
from registry.local import Registry, fts_query
from registry.wire import commercial_uses

logger = logging.getLogger(__name__)
MOST_FOUND = 5000  # matches of one text search
MOST_IMAGES = 2000  # of one version
SQL_VARIABLES = 500  # values bound in one statement
EMPTY_FILE = "e3b0c44298fc"  # SHA-256 of nothing: some trainers write it into every header
MATURE = 28  # R, X and XXX: what a model without bits and with `nsfw: true` is taken for
Json = dict[str, Any]


@dataclass(frozen=True)
class HeldFile:
    """A file of a version whose bytes are here. `hashes` are those we know besides SHA256."""

    id: int
    path: Path
    sha256: str
    size: int
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Holding:
    """One version that is here: the hub's JSON of model and version, and the files behind it."""

    source: str
    model_id: int
    version_id: int
    model: Json
    version: Json
    files: tuple[HeldFile, ...]
    images: tuple[Json, ...] = ()  # of the gallery, when the version's own JSON shows none


@dataclass(frozen=True)
class StoredImage:
    """An example image as it was recorded, with the version it belongs to."""

    source: str
    id: int
    version_id: int
    model_id: int
    data: Json


class Catalog(Protocol):
    """What the routes need. Called from several threads."""

    def cards(self) -> Mapping[int, Card]:
        """Every model on offer, by id."""

    def search(self, text: str) -> Sequence[int]:
        """Ids of models that match, best first."""

    def holding(self, version_id: int) -> Holding | None: ...

    def with_hashes(self, values: Sequence[str], kind: str | None = None) -> Iterable[tuple[str, int]]:
        """(hash as asked, version id) for every file here that has one of these hashes, of this or any kind."""

    def version_images(self, version_id: int) -> Sequence[StoredImage]:
        """In the order the hub showed them."""

    def images(self, query: ImageQuery, after: int | None, count: int) -> tuple[Sequence[StoredImage], int | None]:
        """Up to `count` images of the query's image, post, user or model by falling id (rising for Oldest), beyond
        `after`; and the id to go on after, None at the end."""

    def picture(self, source: str, image_id: int) -> Path | None:
        """The bytes of an image, in a file called `<image id>.<suffix>`."""


@dataclass(frozen=True)
class _Entry:
    """What is remembered of one manifest."""

    stamp: object
    card: Card  # with this version alone
    read_at: int  # when the manifest was written: the newest speaks for the model
    seen: frozenset[str]  # "username:…" and "postId:…" of its images


Key = tuple[str, int, int]  # source, model id, version id


@dataclass(frozen=True)
class _Shelf:
    """One consistent view; a later one is a new object."""

    entries: Mapping[Key, _Entry]
    cards: Mapping[int, Card]
    keys: Mapping[int, Key]  # version id → whose it is


class RegistryCatalog:
    """What a registry holds, as a catalog. The registry may change meanwhile, from here or from other processes."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._lock = threading.Lock()
        self._mark: object = None
        self._shelf = _Shelf({}, {}, {})
        self._folders: dict[str, tuple[int, dict[int, str]]] = {}

    # --- cards --------------------------------------------------------------------------------------------------------

    def cards(self) -> Mapping[int, Card]:
        return self._current().cards

    def _current(self) -> _Shelf:
        with self._lock:
            mark = self._changes()
            if mark != self._mark:
                self._shelf = self._read_again(self._shelf.entries)
                self._mark = mark
            return self._shelf

    def _changes(self) -> object:
        """Another value whenever a row changed: `data_version` for other connections, `total_changes` for this one."""
        return tuple(self.registry.rows("SELECT data_version, total_changes() FROM pragma_data_version")[0])

    def _read_again(self, before: Mapping[Key, _Entry]) -> _Shelf:
        entries: dict[Key, _Entry] = {}
        for row in self.registry.rows("SELECT source, model_id, version_id, stamp FROM model_version"):
            key = (row["source"], row["model_id"], row["version_id"])
            known = before.get(key)
            stamp = row["stamp"] or _stamp(self._path(key))
            entry = known if known and known.stamp == stamp else self._read(key, stamp)
            if entry is not None:
                entries[key] = entry
        return _shelve(entries)

    def _read(self, key: Key, stamp: object) -> _Entry | None:
        document = self._document(key)
        if document is None:
            return None
        model, version = document["model"], document["version"]
        return _Entry(stamp, card_of(key, model, version), _written(self._path(key)), frozenset(_seen(version)))

    def _path(self, key: Key) -> Path:
        return manifests.path_of(self.registry.home / "manifests", *key)

    def _document(self, key: Key) -> Json | None:
        """A manifest as plain JSON: what the hub said goes out again as it came in."""
        try:
            return manifests.load(self._path(key))
        except (OSError, KnownError) as error:
            logger.warning("version %s is not offered: its manifest cannot be read (%s)", key[2], error)
            return None

    # --- one version --------------------------------------------------------------------------------------------------

    def search(self, text: str) -> Sequence[int]:
        query = fts_query(text)
        if not query:
            return []
        keys = self._current().keys
        rows = self.registry.rows(
            "SELECT d.source, d.version_id FROM search_fts f JOIN search_doc d ON d.id = f.rowid "
            "WHERE search_fts MATCH ? ORDER BY bm25(search_fts, 10, 8, 4, 4, 1) LIMIT ?",
            (query, MOST_FOUND),
        )
        found = (keys.get(row["version_id"]) for row in rows)
        return list(
            dict.fromkeys(key[1] for row, key in zip(rows, found, strict=True) if key and key[0] == row["source"])
        )

    def holding(self, version_id: int) -> Holding | None:
        key = self._current().keys.get(version_id)
        document = self._document(key) if key else None
        if key is None or document is None:
            return None
        files = tuple(self._held(document))
        if not files:
            return None
        model, version = document["model"], document["version"]
        shown = version.get("images") or own_entry(model, version_id).get("images")
        images = () if shown else tuple(image.data for image in self.version_images(version_id))
        return Holding(key[0], key[1], version_id, model, version, files, images)

    def _held(self, document: Json) -> Iterator[HeldFile]:
        facts = document.get("facts")
        for name, sha256 in document["files"].items():
            path = self.registry.blob_path(sha256)
            try:
                size = path.stat().st_size
            except OSError:
                continue
            own = facts.get(name) if isinstance(facts, dict) else None
            hashes = own.get("hashes") if isinstance(own, dict) else None
            known = {k: v.upper() for k, v in hashes.items() if isinstance(v, str)} if isinstance(hashes, dict) else {}
            yield HeldFile(int(name), path, sha256, size, known)

    def with_hashes(self, values: Sequence[str], kind: str | None = None) -> Iterable[tuple[str, int]]:
        keys = self._current().keys
        wanted = {value.lower(): value for value in values if not value.lower().startswith(EMPTY_FILE)}
        for batch in _batches(list(wanted)):
            marks = ",".join("?" * len(batch))
            rows = self.registry.rows(
                f"SELECT DISTINCT value, source, version_id, file_id FROM file_hash WHERE value IN ({marks})"
                + (" AND kind = ?" if kind else ""),
                (*batch, kind) if kind else batch,
            )
            if kind is None:
                rows += [row for value in batch if len(value) == 12 for row in self._by_long_autov3(value)]
            for row in rows:
                key = keys.get(row["version_id"])
                if key and key[0] == row["source"]:
                    asked = row["value"] if row["value"] in wanted else row["value"][:12]
                    yield wanted[asked], row["version_id"]

    def _by_long_autov3(self, value: str) -> list[sqlite3.Row]:
        """Some hubs record all 64 digits of an AutoV3; everybody asks for twelve."""
        return self.registry.rows(
            "SELECT value, source, version_id, file_id FROM file_hash "
            "WHERE value > ? AND value < ? AND kind = 'AutoV3'",
            (value, value + "g"),
        )

    # --- images -------------------------------------------------------------------------------------------------------

    def version_images(self, version_id: int) -> Sequence[StoredImage]:
        key = self._current().keys.get(version_id)
        if key is None:
            return []
        rows = self.registry.rows(
            "SELECT * FROM image WHERE source = ? AND version_id = ? ORDER BY position, image_id LIMIT ?",
            (key[0], version_id, MOST_IMAGES),
        )
        return list(self._stored(rows, {version_id: key}))

    def images(self, query: ImageQuery, after: int | None, count: int) -> tuple[Sequence[StoredImage], int | None]:
        shelf = self._current()
        where: list[str] = ["1"]
        args: list[str | int] = []
        rising = query.sort == "Oldest"
        if query.image_id is not None:
            where.append("image_id = ?")
            args.append(query.image_id)
        if query.model_id is not None:
            where.append(_one_of(key[2] for key in shelf.keys.values() if key[1] == query.model_id))
        for name, value in (("username", query.username), ("postId", query.post_id)):
            if value is not None:  # in the row, or else in the manifest
                wanted = f"{name}:{value}".lower()
                near = _one_of(key[2] for key in shelf.keys.values() if wanted in shelf.entries[key].seen)
                where.append(f"(raw <> '' OR {near})")
        if after is not None:
            where.append("image_id > ?" if rising else "image_id < ?")
            args.append(after)
        order = "ASC" if rising else "DESC"
        rows = self.registry.rows(  # ids first: sorting them does not drag the JSON along
            f"SELECT i.* FROM (SELECT source, image_id FROM image WHERE {' AND '.join(where)} "
            f"ORDER BY image_id {order} LIMIT ?) JOIN image i USING (source, image_id) ORDER BY i.image_id {order}",
            (*args, count),
        )
        return list(self._stored(rows, shelf.keys)), rows[-1]["image_id"] if len(rows) == count else None

    def _stored(self, rows: Iterable[sqlite3.Row], keys: Mapping[int, Key]) -> Iterator[StoredImage]:
        """Rows as images. Where a row is empty, its version's manifest has the image at that position."""
        kept: dict[Key, list[Any]] = {}
        for row in rows:
            key = keys.get(row["version_id"])
            if key is None or key[0] != row["source"]:
                continue
            if row["raw"]:
                data = _parsed(row["raw"])
            else:
                if key not in kept:
                    listed = ((self._document(key) or {}).get("version") or {}).get("images")
                    kept[key] = listed if isinstance(listed, list) else []
                data = kept[key][row["position"]] if row["position"] < len(kept[key]) else None
            if isinstance(data, dict):
                yield StoredImage(row["source"], row["image_id"], key[2], key[1], data)

    def picture(self, source: str, image_id: int) -> Path | None:
        """By a listing of the folder, kept as long as the folder did not change: lists ask for many."""
        folder = pictures.folder_of(self.registry.home / "images", source)
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:
            return None
        known = self._folders.get(folder.name)
        if known is None or known[0] != changed:
            names = {}
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, _, suffix = entry.name.partition(".")
                    if suffix in pictures.MEDIA_TYPES and stem.isascii() and stem.isdigit():
                        names[int(stem)] = entry.name
            settled = datetime.now(UTC).timestamp() - changed / 1e9 > 1  # coarse clocks: a younger listing may miss one
            known = (changed if settled else -1, names)
            self._folders[folder.name] = known
        name = known[1].get(image_id)
        return folder / name if name else None


# --- parts ------------------------------------------------------------------------------------------------------------


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), SQL_VARIABLES):
        yield values[start : start + SQL_VARIABLES]


def _shelve(entries: Mapping[Key, _Entry]) -> _Shelf:
    """Versions gathered under their models, each number given to one source only."""
    cards: dict[int, Card] = {}
    keys: dict[int, Key] = {}
    newest: dict[int, int] = {}
    for key in sorted(entries, key=lambda key: (key[0] != "civitai", key)):
        source, model_id, version_id = key
        entry, card = entries[key], cards.get(model_id)
        if version_id in keys or (
            card is not None and card.name != entry.card.name and card.versions[0].source != source
        ):
            logger.debug("%s of %s is not offered: another hub's has that number", version_id, source)
            continue
        keys[version_id] = key
        versions = (*(card.versions if card else ()), *entry.card.versions)
        if card is None or entry.read_at > newest[model_id]:
            card, newest[model_id] = entry.card, entry.read_at
        cards[model_id] = replace(card, versions=versions)
    return _Shelf(entries, cards, keys)


def _one_of(version_ids: Iterable[int]) -> str:
    return f"version_id IN ({','.join(map(str, version_ids)) or 'NULL'})"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _seen(version: Json) -> Iterator[str]:
    for image in version["images"] if isinstance(version.get("images"), list) else ():
        if isinstance(image, dict):
            for name in ("username", "postId"):
                if isinstance(value := image.get(name), str | int):
                    yield f"{name}:{value}".lower()


def own_entry(model: Json, version_id: int) -> Json:
    """The version as its model's JSON lists it."""
    listed = model.get("modelVersions")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("id") == version_id:
            return each
    return {}


def card_of(key: Key, model: Json, version: Json) -> Card:
    """What lists go by, from what a hub said: of unexpected types nothing is believed."""
    source, model_id, version_id = key
    entry = own_entry(model, version_id)
    both = {**entry, **version}
    stats, creator = _object(model.get("stats")), _object(model.get("creator"))
    tags = model.get("tags") if isinstance(model.get("tags"), list) else []
    names = (tag.get("name") if isinstance(tag, dict) else tag for tag in tags or ())
    listed = model.get("modelVersions")
    return Card(
        id=model_id,
        name=_text(model.get("name")),
        type=_text(model.get("type")),
        creator=_text(creator.get("username")),
        creator_image=creator.get("image") if isinstance(creator.get("image"), str) else None,
        tags=tuple(name for name in names if isinstance(name, str) and name),
        level=level_of(model),
        minor=model.get("minor") is True,
        poi=model.get("poi") is True,
        availability=_text(model.get("availability")) or "Public",
        uses=commercial_uses(model.get("allowCommercialUse")),
        downloads=_count(stats.get("downloadCount")),
        likes=_count(stats.get("thumbsUpCount") or stats.get("favoriteCount")),
        comments=_count(stats.get("commentCount")),
        collected=_count(stats.get("collectedCount") or stats.get("favoriteCount")),
        pictures=sum(
            len(v["images"]) for v in listed or () if isinstance(v, dict) and isinstance(v.get("images"), list)
        )
        if isinstance(listed, list)
        else 0,
        versions=(
            VersionCard(
                id=version_id,
                source=source,
                base_model=_text(both.get("baseModel")),
                published=milliseconds(both.get("publishedAt")) or milliseconds(both.get("createdAt")),
                early_access_until=milliseconds(both.get("earlyAccessDeadline") or both.get("earlyAccessEndsAt")),
                covered=both.get("supportsGeneration") is True or both.get("covered") is True,
                trained_there=bool(both.get("trainingStatus")),
                formats=frozenset(_formats(both.get("files"))),
            ),
        ),
    )


def level_of(model: Json) -> int:
    """A model's maturity bits; one that was never rated counts as safe unless its creator says otherwise."""
    level = model.get("nsfwLevel")
    if isinstance(level, int) and not isinstance(level, bool) and level > 0:
        return level & (EVERYTHING | 32)
    return MATURE if model.get("nsfw") is True else PG


def milliseconds(text: Any) -> int:
    if not isinstance(text, str) or len(text) > 40:
        return 0
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return 0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0, int(when.timestamp() * 1000))


def _formats(files: Any) -> Iterator[str]:
    for file in files if isinstance(files, list) else ():
        form = _object(file.get("metadata")).get("format") if isinstance(file, dict) else None
        if isinstance(form, str):
            yield form


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0

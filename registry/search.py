"""Reading the index: what is installed, and which of it a reference means.

`Installed` is one row; its manifest (everything the hub said) is read when `model` or `version` is asked for, so that
a list of thousands opens no file.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import header
from registry import manifest as manifests
from registry.errors import VerificationFailed
from registry.fs import safe_name

if TYPE_CHECKING:
    from registry import wire
    from registry.manifest import Manifest

Rows = Callable[..., list[sqlite3.Row]]
RANKED = 20_000  # matches that are put in order of relevance
TOGETHER = 200  # versions whose files are asked for at once
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")
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


@dataclass(frozen=True)
class InstalledFile:
    file_id: int
    name: str
    role: str | None
    sha256: str
    size: int
    path: Path  # below tree/: a friendly name with the suffix loaders go by
    facts_json: str = "{}"

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the file's header says."""
        found: Mapping[str, Any] = json.loads(self.facts_json)
        return found


@dataclass(frozen=True)
class Installed:
    """One installed version, with what the user said about it."""

    source: str
    model_id: int
    version_id: int
    name: str  # of the model
    version_name: str
    type: str | None
    base_model: str | None
    creator: str | None
    hub_tags: tuple[str, ...]
    size: int
    files: tuple[InstalledFile, ...]
    explicit: bool
    installed_at: str
    trigger_words: tuple[str, ...]
    pinned: bool = False
    notes: str | None = None
    own_weight: float | None = None
    tags: tuple[str, ...] = ()  # the user's own
    last_used_at: str | None = None
    settings_json: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)  # mode, downloads, published_at, rights
    home: Path = Path()

    @property
    def ref(self) -> str:
        """MODEL@VERSION, as every command takes it."""
        return f"{self.model_id}@{self.version_id}"

    @cached_property
    def manifest(self) -> Manifest:
        return manifests.read(manifests.path_of(self.home / "manifests", self.source, self.model_id, self.version_id))

    @property
    def model(self) -> wire.Model:
        return self.manifest.model

    @property
    def version(self) -> wire.ModelVersion:
        return self.manifest.version

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Recommended settings."""
        found: Mapping[str, Any] = json.loads(self.settings_json) if self.settings_json else {}
        return found

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
    how: str  # "version id" · "hash" · "name" · "its trainer's name"
    installed: Installed


@dataclass(frozen=True)
class Filter:
    """Which installed versions: all conditions hold."""

    text: str | None = None
    types: Sequence[str] = ()
    base_models: Sequence[str] = ()
    tag: str | None = None
    creator: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.types or self.base_models or self.tag or self.creator)

    @property
    def match(self) -> str:
        """The words as an FTS5 query; empty when there are none."""
        return fts_query(self.text or "")

    def conditions(self) -> tuple[list[str], list[Any]]:
        """SQL conditions on `v` besides the words, and their arguments."""
        where: list[str] = []
        args: list[Any] = []
        for column, values in (("v.type", self.types), ("v.base_model", self.base_models)):
            if values:
                where.append(f"lower({column}) IN ({','.join('?' * len(values))})")
                args += [value.lower() for value in values]
        if self.creator:
            where.append("lower(v.creator) = lower(?)")
            args.append(self.creator)
        if self.tag:  # the hub's or the user's, as it stands in the JSON list
            where.append(
                "(instr(lower(v.tags), lower(?)) OR (v.source, v.version_id) IN "
                "(SELECT source, version_id FROM user_note WHERE instr(lower(tags), lower(?))))"
            )
            args += [json.dumps(self.tag, ensure_ascii=False)] * 2
        return where, args


ORDERS = {
    "name": "v.name_key, v.version_id",
    "size": "v.size DESC, v.version_id",
    "added": "v.installed_at DESC, v.version_id",
    "used": "n.last_used_at DESC, v.version_id",
}


def select(
    rows: Rows,
    wanted: Filter,
    *,
    sort: str = "name",
    limit: int | None = None,
    offset: int = 0,
    columns: str = "v.*",
) -> list[Any]:
    """Rows of `model_version`. Words sort by relevance unless another order is asked for."""
    where, args = wanted.conditions()
    source = "model_version v"
    order = ORDERS.get(sort, ORDERS["name"])
    if wanted.match:
        by_rank = sort == "name"
        source, args = _matching(where, by_rank), [wanted.match, *args, RANKED if by_rank else -1]
        where, order = [], "m.score" if by_rank else order
    if sort == "used":
        source += " LEFT JOIN user_note n ON n.source = v.source AND n.version_id = v.version_id"
    condition = " WHERE " + " AND ".join(where) if where else ""
    args += [-1 if limit is None else limit, offset]
    return rows(f"SELECT {columns} FROM {source}{condition} ORDER BY {order} LIMIT ? OFFSET ?", args)


def _matching(where: Sequence[str], by_rank: bool) -> str:
    """Versions that hold the words. Ranking looks at every occurrence, so of a word that nearly everything holds only
    the versions added last are ranked."""
    score = "bm25(search_fts, 10, 8, 4, 4, 1)" if by_rank else "0"
    return (
        f"(SELECT v.rowid AS number, {score} AS score FROM search_fts f JOIN search_doc d ON d.id = f.rowid "
        "JOIN model_version v ON v.source = d.source AND v.version_id = d.version_id WHERE "
        + " AND ".join(["search_fts MATCH ?", *where])
        + " ORDER BY f.rowid DESC LIMIT ?) m JOIN model_version v ON v.rowid = m.number"
    )


def count(rows: Rows, wanted: Filter) -> tuple[int, int]:
    """How many versions, and the bytes of their files."""
    where, args = wanted.conditions()
    source = "model_version v"
    if wanted.match:
        source, args, where = _matching(where, by_rank=False), [wanted.match, *args, -1], []
    condition = " WHERE " + " AND ".join(where) if where else ""
    found = rows(f"SELECT count(*), coalesce(sum(v.size), 0) FROM {source}{condition}", args)[0]
    return found[0], found[1]


def load(rows: Rows, home: Path, found: Sequence[sqlite3.Row]) -> Iterator[Installed]:
    """Rows with their files and notes, which are asked for some at a time."""
    noted = bool(rows("SELECT 1 FROM user_note LIMIT 1"))
    for start in range(0, len(found), TOGETHER):
        some = found[start : start + TOGETHER]
        files = _of(rows, "installed_file", some, " ORDER BY size DESC, file_id")
        notes = _of(rows, "user_note", some) if noted else {}
        for row in some:
            key = (row["source"], row["version_id"])
            yield _installed(home, row, files.get(key, ()), notes.get(key, ()))


def _of(
    rows: Rows, table: str, versions: Sequence[sqlite3.Row], order: str = ""
) -> dict[tuple[str, int], list[sqlite3.Row]]:
    """Rows of a table that belong to some versions, by version."""
    numbers: dict[str, list[int]] = {}
    for row in versions:
        numbers.setdefault(row["source"], []).append(row["version_id"])
    out: dict[tuple[str, int], list[sqlite3.Row]] = {}
    for source, ids in numbers.items():
        sql = f"SELECT * FROM {table} WHERE source = ? AND version_id IN ({','.join('?' * len(ids))}){order}"
        for row in rows(sql, (source, *ids)):
            out.setdefault((source, row["version_id"]), []).append(row)
    return out


def _installed(home: Path, row: sqlite3.Row, files: Sequence[sqlite3.Row], notes: Sequence[sqlite3.Row]) -> Installed:
    note = notes[0] if notes else None
    words = json.loads(note["words"]) if note and note["words"] else json.loads(row["trigger_words"])
    return Installed(
        source=row["source"],
        model_id=row["model_id"],
        version_id=row["version_id"],
        name=row["model_name"],
        version_name=row["name"],
        type=row["type"],
        base_model=row["base_model"],
        creator=row["creator"],
        hub_tags=tuple(json.loads(row["tags"] or "[]")),
        size=row["size"],
        files=tuple(
            InstalledFile(
                f["file_id"], f["name"], f["role"], f["sha256"], f["size"], home / f["path"], f["facts"] or "{}"
            )
            for f in files
        ),
        explicit=bool(row["explicit"]),
        installed_at=row["installed_at"],
        trigger_words=tuple(words),
        pinned=bool(note and note["pinned"]),
        notes=note["notes"] if note else None,
        own_weight=note["weight"] if note else None,
        tags=tuple(json.loads(note["tags"])) if note and note["tags"] else (),
        last_used_at=note["last_used_at"] if note else None,
        settings_json=row["settings"],
        summary=json.loads(row["summary"] or "{}"),
        home=home,
    )


def find(rows: Rows, text: str) -> list[sqlite3.Row]:
    """What a typed reference means here: version or model id, MODEL@VERSION, URL, AIR, hash, name.

    A number, address or hash of something that is not here means nothing: only words are looked for in names, trigger
    words and tags, since what a reference finds may be removed.
    """
    if matched := _HASH_ONLY.fullmatch(text):
        return by_hash(rows, matched[1])
    if (found := _by_number(rows, text)) is not None:
        return found
    is_hash = re.fullmatch(r"(0x)?[0-9a-fA-F]{8,64}", text) is not None
    if is_hash and (found := by_hash(rows, text)):
        return found
    found = by_name(rows, text, {text.casefold(), Path(safe_name(text)).stem.casefold()})
    is_word = re.search(r"[^\W\d]", text) and not (is_hash and re.search(r"\d", text))
    return found or (_by_words(rows, fts_query(text)) if is_word else [])


def _by_number(rows: Rows, text: str) -> list[sqlite3.Row] | None:
    """What an id, MODEL@VERSION, an AIR or an address means; None where the text is none of these."""
    by_version = "SELECT * FROM model_version WHERE version_id = ?"
    if matched := _PAIR.fullmatch(text):  # 0: the page of its model was gone when the version was installed
        return rows(f"{by_version} AND model_id IN (?, 0)", (int(matched[2]), int(matched[1])))
    if matched := _VERSION.search(text):
        return rows(by_version, (int(matched[1]),))
    if matched := _PAGE.search(text):
        return rows(by_version, (int(matched[2]),)) if matched[2] else _newest_of(rows, int(matched[1]))
    if matched := _NUMBER.fullmatch(text):
        number = int(matched[2])
        found = _newest_of(rows, number)
        if matched[1]:
            return found
        models = {(row["source"], row["model_id"]) for row in found}
        found += [row for row in rows(by_version, (number,)) if (row["source"], row["model_id"]) not in models]
        return found or None  # a file may have digits for a name
    return [] if _ADDRESS.match(text) else None


_PAIR = re.compile(r"(?:.*:)?([0-9]{1,18})@([0-9]{1,18})(?:\+[0-9]+.*)?")
_VERSION = re.compile(r"(?:/download/models/|/model-versions/(?:mini/)?|^version: {0,4})([0-9]{1,18})(?![0-9A-Fa-f])")
_PAGE = re.compile(r"/models/([0-9]{1,18})(?:.*[?&]modelVersionId=([0-9]{1,18}))?")
_HASH_ONLY = re.compile(r"(?:https?://.*/by-hash/|hash: {0,4})((?:0x)?[0-9a-fA-F]{8,64})")
_NUMBER = re.compile(r"(model: {0,4})?([0-9]{1,18})")
_ADDRESS = re.compile(r"https?://|(?:urn:)?air:|image:", re.IGNORECASE)


def _by_words(rows: Rows, match: str) -> list[sqlite3.Row]:
    """What goes by these words; a description only speaks of other things too."""
    named = f"{{name trigger_words tags}} : ({match})"
    return rows(f"SELECT v.* FROM {_matching((), by_rank=True)} ORDER BY m.score LIMIT 20", (named, RANKED))


def _newest_of(rows: Rows, model_id: int) -> list[sqlite3.Row]:
    """The newest installed version of a model (several installed: the highest id)."""
    return rows("SELECT * FROM model_version WHERE model_id = ? ORDER BY version_id DESC LIMIT 1", (model_id,))


def by_hash(rows: Rows, value: str) -> list[sqlite3.Row]:
    """By any hash a hub or a header gives; ten digits or more may be the beginning of one."""
    value = value.lower().removeprefix("0x")
    end = value + "g" if len(value) >= 10 else value + "\0"
    return rows(
        "SELECT DISTINCT v.* FROM file_hash h JOIN model_version v USING (source, version_id) "
        "WHERE h.value >= ? AND h.value < ?",
        (value, end),
    )


def by_name(rows: Rows, name: str, stems: set[str]) -> list[sqlite3.Row]:
    """By the name of the model, of a file as the hub has it, or of a file here without its suffix."""
    through_file = "JOIN model_version v USING (source, version_id)"
    return rows(
        "SELECT v.* FROM model_version v WHERE v.name_key = ? "
        f"UNION SELECT v.* FROM installed_file f {through_file} WHERE f.name = ? COLLATE NOCASE "
        f"UNION SELECT v.* FROM installed_file f {through_file} WHERE f.stem IN ({','.join('?' * len(stems))}) "
        "ORDER BY model_id, version_id",
        (name.casefold(), name, *sorted(stems)),
    )


def candidates(
    rows: Rows,
    *,
    hash: str | None,  # noqa: A002
    version_id: int | None,
    name: str | None,
) -> Iterator[tuple[str, sqlite3.Row]]:
    """What a resource reference may mean, most certain first: (by what, row)."""
    if version_id:
        for row in rows("SELECT * FROM model_version WHERE version_id = ?", (version_id,)):
            yield "version id", row
    if hash and len(hash) >= 8:
        for row in by_hash(rows, hash):
            yield "hash", row
    if name:
        stem = Path(name.replace("\\", "/")).name
        stem = stem.rsplit(".", 1)[0] if stem.lower().endswith(SUFFIXES) else stem
        for row in by_name(rows, stem, {stem.casefold()}):
            yield "name", row


def by_trained_name(items: Iterable[Installed], name: str) -> Located | None:
    """The file whose trainer called it so (`ss_output_name`): a WebUI takes that name in a prompt like the file's own.

    The index does not know it; headers are read one after the other, as the last thing tried, and each only once.
    """
    for item in items:
        for file in item.files:
            with suppress(OSError, VerificationFailed):
                status = file.path.stat()
                if _trained_name(file.path, status.st_mtime_ns, status.st_size) == name.casefold():
                    return Located(file.path, "its trainer's name", item)
    return None


@cache
def _trained_name(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 - of a file that changed it is asked anew
    return str(header.read(path).metadata.get("ss_output_name", "")).casefold()


def file_for(item: Installed, hash: str | None, name: str | None, kind: str) -> InstalledFile | None:  # noqa: A002
    """Which of a version's files a reference means."""
    possible = list(item.files)
    if kind == "vae" and (item.type or "").lower() == "checkpoint":
        possible = [file for file in possible if file.role == "VAE"]
    if hash:
        wanted = hash.lower().removeprefix("0x")
        for file in possible:
            if file.sha256.startswith(wanted):
                return file
    if name:
        for file in possible:
            if Path(file.name).stem.casefold() == Path(name).stem.casefold():
                return file
    return possible[0] if possible else None


def fts_query(text: str) -> str:
    """User text as an FTS5 query: every word quoted, the last one a prefix; nothing of FTS syntax gets through."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()[:16]
    return " ".join(f'"{word}"' for word in words) + ("*" if words and len(words[-1]) > 1 else "")

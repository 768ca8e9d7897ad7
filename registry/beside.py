"""Sidecars and previews beside the files a UI shows: written where a UI wants them, taken away with the file.

    sidecar  …/loras/thanos.json  {"preferred weight": digest, …}      one row for each, with what we wrote in it last

`registry.sidecars` knows what each tool's file looks like and how ours is merged into a person's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry import layouts, outside, pictures, sidecars
from registry.errors import KnownError
from registry.uis import File, LinkAction, Ui

if TYPE_CHECKING:
    from registry.local import Installed, Registry

PREVIEWS = "previews"  # previews/<source>/<version id>.<suffix>: pictures a person put beside an adopted file
SHOWN = frozenset({"png", "jpeg", "webp", "gif"})  # what UIs show as a preview
LARGEST_PREVIEW = 16 << 20
CHUNK = 50  # files between two turns of others
Fetch = Callable[[str], bytes]


def write(
    registry: Registry, each: Ui, shown: Sequence[tuple[File, Path]], *, dry_run: bool, picture: Fetch | None
) -> list[LinkAction]:
    """Bring the sidecars of shown files up to date. Nobody makes or removes names meanwhile, so that none is written
    beside a file that just went; pictures are fetched before."""
    out: list[LinkAction] = []
    for start in range(0, len(shown) if each.sidecars else 0, CHUNK):
        chunk = shown[start : start + CHUNK]
        if dry_run:
            out += _write_some(registry, each, chunk, dry_run=True)
            continue
        if "preview" in each.sidecars and picture is not None:
            _fetch(registry, chunk, picture)
        with registry.linking():
            if registry.rows("SELECT 1 FROM ui WHERE name = ?", (each.name,)):
                out += _write_some(registry, each, chunk, dry_run=False)
    return out


def _fetch(registry: Registry, shown: Sequence[tuple[File, Path]], picture: Fetch) -> None:
    for file, path in shown:
        item = registry.get(file.version_id, source=file.source)
        if item is not None and not _has_preview(path):
            _picture_of(registry, item, picture)


def _write_some(registry: Registry, each: Ui, shown: Sequence[tuple[File, Path]], *, dry_run: bool) -> list[LinkAction]:
    out: list[LinkAction] = []
    for file, path in shown:
        item = registry.get(file.version_id, source=file.source)
        if item is None or all(f.sha256 != file.sha256 for f in item.files) or not (dry_run or path.exists()):
            continue  # removed or replaced meanwhile
        for tool in each.sidecars:
            if tool == "preview":
                out += _write_preview(registry, each, item, file, path, dry_run=dry_run)
            elif (card := _card(registry, item, file, path)) is not None:
                out += _write_one(registry, each, tool, card, file, dry_run=dry_run)
    return out


def _card(registry: Registry, item: Installed, file: File, path: Path) -> sidecars.Card | None:
    wire_file = next((f for f in item.version.files if f.id == file.file_id), None)
    try:
        status = registry.blob_path(file.sha256).stat()
    except OSError:
        return None
    return sidecars.Card(
        path=path,
        kind=file.kind or "other",
        sha256=file.sha256,
        size=file.size,
        mtime=status.st_mtime,
        source=file.source,
        model=item.model.dump(),
        version=item.version.dump(),
        words=item.trigger_words,
        weight=item.weight,
        notes=item.notes,
        file=wire_file.dump() if wire_file else {},
    )


def _write_one(
    registry: Registry, each: Ui, tool: str, card: sidecars.Card, file: File, *, dry_run: bool
) -> list[LinkAction]:
    ours = sidecars.content(tool, card)
    if not ours:
        return []
    path = card.path.with_name(card.stem + sidecars.ENDINGS[tool])
    if not outside.fits(path):
        return [each.action("blocked", path, file, note="the name of its sidecar would be too long")]
    existing = sidecars.load(path)
    if existing is None and os.path.lexists(path):
        return [each.action("kept", path, file, note="a file of yours that is no JSON object")]
    rows = registry.rows("SELECT written FROM sidecar WHERE path = ?", (str(path),))
    merged = sidecars.merge(existing, ours, rows[0]["written"] if rows else None)
    out = []
    if merged.kept:
        out.append(each.action("kept", path, file, note="edited by hand: " + ", ".join(merged.kept[:5])))
    if merged.changed:
        out.append(each.action("sidecar", path, file, note=tool if existing is None else f"{tool}, merged"))
    if dry_run:
        return out
    before = rows[0]["written"] if rows else None
    if merged.changed:  # the record first: what is ours in a sidecar is never unknown
        _remember(registry, path, sidecars.either(before, merged.written) if existing else merged.written)
        outside.write(path, sidecars.dump(merged.data, _bytes(path)))
    if existing and (merged.changed or (before or "{}") != merged.written):
        _remember(registry, path, merged.written)
    return out


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _remember(registry: Registry, path: Path, written: str) -> None:
    with registry.transaction() as db:
        db.execute("INSERT OR REPLACE INTO sidecar(path, written) VALUES (?, ?)", (str(path), written))


def keep_preview(registry: Registry, source: str, version_id: int, data: bytes) -> Path | None:
    """Keep a person's own picture of a version, to be shown in every UI; None when it is no picture."""
    root = registry.home / PREVIEWS
    if found := pictures.find(root, source, version_id):
        return found
    if pictures.suffix_of(data) not in SHOWN or len(data) > LARGEST_PREVIEW:
        return None
    return pictures.put(root, source, version_id, data)


def _picture_of(registry: Registry, item: Installed, fetch: Fetch | None = None) -> Path | None:
    """A person's own picture, else the tamest of the first ten examples, fetched where that is possible."""
    if own := pictures.find(registry.home / PREVIEWS, item.source, item.version.id):
        return own
    images = [i for i in item.version.images[:10] if i.url and i.image_id and i.type in (None, "image")]
    for image in sorted(images, key=lambda i: i.nsfw_level if isinstance(i.nsfw_level, int) else 1):
        number = image.image_id or 0
        here = registry.picture(number, source=item.source)
        if here is None and fetch is not None:
            with contextlib.suppress(KnownError, OSError):  # an ornament: no link fails for it
                here = registry.put_picture(number, fetch(image.url or ""), source=item.source)
        if here is not None and here.suffix.removeprefix(".") in SHOWN:
            return here
        if fetch is not None:
            return None
    return None


def _write_preview(
    registry: Registry, each: Ui, item: Installed, file: File, path: Path, *, dry_run: bool
) -> list[LinkAction]:
    kept = None if _has_preview(path) else _picture_of(registry, item)
    if kept is None:
        return []
    target = path.with_name(f"{_stem(path)}.preview{kept.suffix}")
    if not outside.fits(target):
        return [each.action("blocked", target, file, note="the name of its preview would be too long")]
    if not dry_run:
        try:
            data = kept.read_bytes()
        except FileNotFoundError:  # pruned meanwhile
            return []
        _remember(registry, target, json.dumps({"picture": hashlib.sha256(data).hexdigest()}))
        outside.write(target, data)
    return [each.action("preview", target, file)]


_ENDINGS = sorted(  # the longer ones first: `.metadata.json` ends in `.json`
    (*sidecars.ENDINGS.values(), *(mark + picture for mark in ("", ".preview") for picture in sidecars.PICTURES)),
    key=len,
    reverse=True,
)


def _stem(path: Path) -> str:
    return path.name.removesuffix(path.suffix)


def _has_preview(path: Path) -> bool:
    marked = (mark + suffix for mark in ("", ".preview") for suffix in sidecars.PICTURES)
    return any(os.path.lexists(path.with_name(_stem(path) + ending)) for ending in marked)


def _of(registry: Registry, path: Path) -> list[sqlite3.Row]:
    """Rows of what we wrote beside a file."""
    names = [str(path.with_name(_stem(path) + ending)) for ending in _ENDINGS]
    return registry.rows(f"SELECT * FROM sidecar WHERE path IN ({','.join('?' * len(names))})", names)


def remove(registry: Registry, path: Path) -> None:
    """Take away what we wrote beside a file and nobody changed. Within `linking`."""
    forget(registry, _of(registry, path))


def move(registry: Registry, old: Path, new: Path) -> None:
    """What we wrote beside a file follows it to its new name, a person's edits in it too. Within `linking`."""
    for row in _of(registry, old):
        here = Path(row["path"])
        there = new.with_name(_stem(new) + here.name.removeprefix(_stem(old)))
        if here.is_file() and not os.path.lexists(there):
            _remember(registry, there, row["written"])
            here.rename(there)
    remove(registry, old)


def forget(registry: Registry, rows: Sequence[sqlite3.Row]) -> None:
    """Take our values out of sidecars, and those away in which nothing else is. Within `linking`."""
    for row in rows:
        path = Path(row["path"])
        if path.name.endswith(sidecars.PICTURES):
            with contextlib.suppress(OSError):
                if json.loads(row["written"]).get("picture") == hashlib.sha256(path.read_bytes()).hexdigest():
                    path.unlink()
        elif data := sidecars.load(path):
            left = sidecars.theirs(data, row["written"])
            if not left:
                path.unlink(missing_ok=True)
            elif left != data:
                outside.write(path, sidecars.dump(left, _bytes(path)))
    if rows:
        with registry.transaction() as db:
            db.executemany("DELETE FROM sidecar WHERE path = ?", [(row["path"],) for row in rows])


def forget_lonely(registry: Registry) -> None:
    """Take away what stands beside nothing any more: its model file was deleted, or a kill came between two steps."""
    names: dict[Path, set[str]] = {}
    for row in registry.rows("SELECT * FROM sidecar ORDER BY path"):
        path = Path(row["path"])
        if path.parent not in names:
            names[path.parent] = _names_in(path.parent)
        ending = next((each for each in _ENDINGS if path.name.endswith(each)), path.suffix)
        if not names[path.parent] or path.name.removesuffix(ending) in names[path.parent]:
            continue  # a folder that is not there may be a drive that is away
        with registry.linking():
            if path.name.removesuffix(ending) not in _names_in(path.parent):
                forget(registry, registry.rows("SELECT * FROM sidecar WHERE path = ?", (row["path"],)))


def _names_in(folder: Path) -> set[str]:
    """Stems of the model files in a folder, and one of no file, unless the folder is not there."""
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry.name) for entry in entries]
    except OSError:
        return set()
    return {""} | {_stem(path) for path in paths if path.suffix.lower() in layouts.SUFFIXES}

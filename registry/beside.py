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

from registry import pictures, sidecars
from registry.errors import KnownError
from registry.fs import write_atomic
from registry.uis import File, LinkAction, Ui

if TYPE_CHECKING:
    from registry.local import Installed, Registry

PREVIEWS = "previews"  # previews/<source>/<version id>.<suffix>: pictures a person put beside an adopted file
SHOWN = frozenset({"png", "jpeg", "webp", "gif"})  # what UIs show as a preview
LARGEST_PREVIEW = 16 << 20


def write(
    registry: Registry, each: Ui, shown: Sequence[tuple[File, Path]], *, dry_run: bool,
    picture: Callable[[str], bytes] | None,
) -> list[LinkAction]:  # fmt: skip
    if not each.sidecars:
        return []
    out: list[LinkAction] = []
    for file, path in shown:
        item = registry.get(file.version_id, source=file.source)
        if item is None or (not dry_run and not path.exists()):
            continue
        try:
            card = _card(registry, item, file, path)
        except FileNotFoundError:  # removed meanwhile
            continue
        for tool in each.sidecars:
            if tool == "preview":
                out += _write_preview(registry, each, item, file, path, dry_run=dry_run, picture=picture)
            else:
                out += _write_one(registry, each, tool, card, file, dry_run=dry_run)
    return out


def _card(registry: Registry, item: Installed, file: File, path: Path) -> sidecars.Card:
    wire_file = next((f for f in item.version.files if f.id == file.file_id), None)
    status = registry.blob_path(file.sha256).stat()
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
    existing = sidecars.load(path)
    if existing is None and os.path.lexists(path):
        return [each.action("kept", path, file, note="a file of yours that is no JSON object")]
    rows = registry.rows("SELECT written FROM sidecar WHERE path = ?", (str(path),))
    merged = sidecars.merge(existing, ours, rows[0]["written"] if rows else None)
    out = []
    if merged.kept and existing is not None and rows:
        out.append(each.action("kept", path, file, note="edited by hand: " + ", ".join(merged.kept[:5])))
    if merged.changed:
        out.append(each.action("sidecar", path, file, note=tool if existing is None else f"{tool}, merged"))
    if dry_run:
        return out
    if existing is None:  # the record first: a sidecar of ours is never unknown
        _remember(registry, path, merged.written)
    if merged.changed:
        write_atomic(path, sidecars.dump(merged.data))
    if existing is not None and (not rows or rows[0]["written"] != merged.written):
        _remember(registry, path, merged.written)
    return out


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


def _picture_of(registry: Registry, item: Installed, fetch: Callable[[str], bytes] | None) -> Path | None:
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
    registry: Registry, each: Ui, item: Installed, file: File, path: Path, *, dry_run: bool,
    picture: Callable[[str], bytes] | None,
) -> list[LinkAction]:  # fmt: skip
    stem = path.name.removesuffix(path.suffix)
    for mark in ("", ".preview"):
        if any(os.path.lexists(path.with_name(stem + mark + suffix)) for suffix in sidecars.PICTURES):
            return []
    kept = _picture_of(registry, item, None if dry_run else picture)
    if kept is None:
        return []
    target = path.with_name(f"{stem}.preview{kept.suffix}")
    if not dry_run:
        data = kept.read_bytes()
        _remember(registry, target, json.dumps({"picture": hashlib.sha256(data).hexdigest()}))
        write_atomic(target, data)
    return [each.action("preview", target, file)]


def remove(registry: Registry, path: Path) -> None:
    """Take away what we wrote beside a file and nobody changed."""
    stem = path.name.removesuffix(path.suffix)
    names = [str(path.with_name(stem + ending)) for ending in sidecars.ENDINGS.values()]
    names += [str(path.with_name(stem + mark + picture)) for mark in ("", ".preview") for picture in sidecars.PICTURES]
    marks = ",".join("?" * len(names))
    forget(registry, registry.rows(f"SELECT * FROM sidecar WHERE path IN ({marks})", names))


def forget(registry: Registry, rows: Sequence[sqlite3.Row]) -> None:
    for row in rows:
        path = Path(row["path"])
        if path.name.endswith(sidecars.PICTURES):
            with contextlib.suppress(OSError):
                if json.loads(row["written"]).get("picture") == hashlib.sha256(path.read_bytes()).hexdigest():
                    path.unlink()
        elif (data := sidecars.load(path)) is not None and sidecars.all_ours(data, row["written"]):
            path.unlink(missing_ok=True)
    if rows:
        with registry.transaction() as db:
            db.executemany("DELETE FROM sidecar WHERE path = ?", [(row["path"],) for row in rows])

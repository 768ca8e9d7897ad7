"""Links: every installed file in the right folder of each UI, from one copy.

    ui      comfyui  /home/me/ComfyUI  auto                     what `hubctl link add` wrote down
    link    …/models/loras/thanos.safetensors  ab12…  hardlink  one row for each name we put outside the home

A row is written before the name it stands for, so that a kill leaves nothing unknown; a name is taken away only after
it was looked at and shown to hold our bytes. What a person put there stays: a name that is taken by other bytes is
reported and the file gets `-v<version id>`; a file of ours that was replaced is theirs from then on; bytes that are in
the UI's folders already (adopted ones, say) are left under the name they have.

    plan(registry)  →  [LinkAction]       --dry-run stops here
    apply(registry) →  [LinkAction]       what was done
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from registry import beside, layouts, outside
from registry.errors import KnownError, NoSpace
from registry.manifest import now
from registry.outside import KINDS, LADDER
from registry.uis import (
    YAML,
    File,
    Key,
    LinkAction,
    Ui,
    check_ui,
    has_own_block,
    rebase,
    ui,
    uis,
    view,
    write_yaml,
    yaml_actions,
)

if TYPE_CHECKING:
    from registry.local import Registry

__all__ = [
    "KINDS", "YAML", "LinkAction", "Ui", "add", "apply", "plan", "remove", "repair", "show", "status", "ui", "uis",
    "unlink",
]  # fmt: skip
YOURS = "replaced"  # the kind of a row whose file was replaced by a person
CHUNK = 200  # links between two commits
ROUNDS = 5  # times a name is chosen anew when other processes are faster
OnStep = Callable[[int, int, str], None]


# --- the UIs ----------------------------------------------------------------------------------------------------------


def add(
    registry: Registry,
    new: Ui,
    *,
    dry_run: bool = False,
    on_step: OnStep = lambda done, total, what: None,
    picture: Callable[[str], bytes] | None = None,
) -> list[LinkAction]:
    """Remember a UI and link everything installed into it. A UI whose old root is gone is moved to the new one."""
    previous = check_ui(registry, new)
    actions = yaml_actions(registry, new, previous)
    if not dry_run:
        with registry.transaction() as db:
            db.execute(
                "INSERT INTO ui(name, layout, root, kind, template, sidecars, added_at) VALUES (?,?,?,?,?,?,?) "
                "ON CONFLICT(name) DO UPDATE SET layout = excluded.layout, root = excluded.root, kind = excluded.kind, "
                "template = excluded.template, sidecars = excluded.sidecars",
                (
                    new.name, new.layout, str(new.root), new.kind, new.template, json.dumps(list(new.sidecars)), now(),
                ),
            )  # fmt: skip
            if previous and previous.root != new.root:
                rebase(db, new.name, previous.root, new.root)
        write_yaml(registry, new, previous)
    return actions + apply(registry, dry_run=dry_run, only=[new], on_step=on_step, picture=picture)


def remove(registry: Registry, name: str, *, dry_run: bool = False) -> list[LinkAction]:
    """Take a UI out: our links, our untouched sidecars, our YAML block. What a person put there or changed stays."""
    with registry.linking() if not dry_run else contextlib.nullcontext():
        return _remove(registry, ui(registry, name), dry_run=dry_run)


def _remove(registry: Registry, each: Ui, *, dry_run: bool) -> list[LinkAction]:
    name = each.name
    rows = registry.rows("SELECT * FROM link WHERE ui = ? ORDER BY path", (name,))
    actions = []
    if each.kind == YAML and each.root.is_dir() and has_own_block(each.root):
        actions.append(
            LinkAction(name, "settings", each.root / "extra_model_paths.yaml", note="block `hubctl` taken out")
        )
    if rows and not each.root.is_dir() and each.kind != YAML:
        actions.append(LinkAction(name, "no_root", each.root, note="the folder is gone, and the links in it"))
    actions += _unlink(registry, rows, dry_run=dry_run)
    if not dry_run:
        start = str(each.root) + os.sep
        beside.forget(
            registry, registry.rows("SELECT * FROM sidecar WHERE substr(path, 1, ?) = ?", (len(start), start))
        )
        if each.root.is_dir():
            write_yaml(registry, each, take_out=True)
        if each.kind == YAML:
            _remove_empty_below(view(registry, each))
        with registry.transaction() as db:
            db.execute("DELETE FROM link WHERE ui = ?", (name,))
            db.execute("DELETE FROM ui WHERE name = ?", (name,))
    return actions


# --- deciding ---------------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """What one UI needs. `steps` change something, in order; `notes` are worth knowing."""

    steps: list[tuple[LinkAction, File, Path | None]] = field(default_factory=list)  # action, file, old path of a move
    notes: list[LinkAction] = field(default_factory=list)
    shown: list[tuple[File, Path]] = field(default_factory=list)  # where each file is in the end, for its sidecars
    lost: list[File] = field(default_factory=list)  # whose name another process took meanwhile: decide again


def plan(
    registry: Registry, version_keys: Collection[Key] | None = None, *, only: Sequence[Ui] | None = None
) -> list[LinkAction]:
    """What `apply` would do."""
    return apply(registry, version_keys, dry_run=True, only=only)


def apply(
    registry: Registry,
    version_keys: Collection[Key] | None = None,
    dry_run: bool = False,
    *,
    only: Sequence[Ui] | None = None,
    on_step: OnStep = lambda done, total, what: None,
    picture: Callable[[str], bytes] | None = None,
) -> list[LinkAction]:
    """Show installed versions (all, or these) in every linked UI (or `only` these). Doing it twice changes nothing.

    `picture` fetches a preview by its URL; without it only previews that are here already are used.
    Raises NoSpace before anything is copied, NoPermission where no kind of link works.
    """
    chosen = list(only) if only is not None else uis(registry)
    if not chosen:
        return []
    out: list[LinkAction] = []
    files = None
    for each in chosen:
        if not each.root.is_dir():  # an unplugged drive: nothing is made in its place
            out.append(LinkAction(each.name, "no_root", each.root, note="the folder is not there"))
            continue
        if files is None:
            files = _files(registry, version_keys)
            out += _leave_replaced(registry, {file.key for file in files}, dry_run=dry_run)
        if not dry_run:
            _settle(registry, each)
        found = _decide(registry, each, files)
        if not dry_run:
            _check_space(each, found)
            _sweep(found)
        done = [action for action, _, _ in found.steps] if dry_run else _perform(registry, each, found, on_step)
        for _ in range(ROUNDS):
            if not found.lost:
                break
            again = _decide(registry, each, found.lost)
            taken = {file.file_id for file in found.lost}
            found.shown = [(f, path) for f, path in found.shown if f.file_id not in taken] + again.shown
            done += _perform(registry, each, again, on_step)
            found.notes, found.lost = found.notes + again.notes, again.lost
        out += done + found.notes
        out += beside.write(registry, each, found.shown, dry_run=dry_run, picture=picture)
    return out


def show(registry: Registry, source: str, version_id: int) -> list[str]:
    """Show one new version in every linked UI; what did not work as sentences, since an install is not lost for it."""
    try:
        done = apply(registry, [(source, version_id)])
    except KnownError as error:
        return [f"not linked: {error.message}"]
    except OSError as error:
        return [f"not linked: `{error.filename}`: {error.strerror}"]
    return [f"{a.ui}: {a.path.name}: {a.note}" for a in done if a.what in {"clash", "blocked", "no_root"}]


def _settle(registry: Registry, each: Ui) -> None:
    """Rows of a run that was killed: the name is there and ours, or was never made, or is a person's."""
    sql = "SELECT * FROM link WHERE ui = ? AND inode IS NULL"
    if not registry.rows(sql + " LIMIT 1", (each.name,)):
        return
    with registry.linking():  # whoever wrote one and is at work holds this: what is left is of the dead
        for row in registry.rows(sql, (each.name,)):
            path, blob = Path(row["path"]), registry.blob_path(row["sha256"])
            state = _state(registry, row)
            with registry.transaction() as db:
                if state == "replaced":
                    db.execute("DELETE FROM link WHERE path = ?", (row["path"],))
                elif state != "missing":
                    kind, inode = outside.kind_of(path, blob), path.lstat().st_ino
                    db.execute("UPDATE link SET kind = ?, inode = ? WHERE path = ?", (kind, inode, row["path"]))


def _files(registry: Registry, keys: Collection[Key] | None) -> list[File]:
    """Installed files in a fixed order: who comes first gets the plain name."""
    sql = (
        "SELECT f.source, f.version_id, f.file_id, f.name, f.role, f.sha256, f.size, f.path, f.facts, v.model_id, "
        "v.name AS version_name, v.model_name, v.type, v.base_model, v.creator, v.tags "
        "FROM installed_file f JOIN model_version v USING (source, version_id)"
    )
    order = " ORDER BY f.source, f.version_id, f.file_id"
    if keys is None:
        rows = registry.rows(sql + order)
    else:
        rows = [
            row
            for source, version_id in sorted(keys)
            for row in registry.rows(sql + " WHERE f.source = ? AND f.version_id = ?" + order, (source, version_id))
        ]
    return [_file(registry, row) for row in rows]


def _file(registry: Registry, row: sqlite3.Row) -> File:
    facts = json.loads(row["facts"] or "{}")
    tags = json.loads(row["tags"] or "[]")
    suffix = PurePosixPath(row["name"]).suffix
    if suffix.lower() not in layouts.SUFFIXES:
        suffix = Path(row["path"]).suffix
    stem = row["name"].removesuffix(suffix) if suffix else row["name"]
    return File(
        source=row["source"],
        version_id=row["version_id"],
        file_id=row["file_id"],
        sha256=row["sha256"],
        size=row["size"],
        kind=layouts.kind_of(row["role"], facts.get("kind"), row["type"]),
        tree=registry.home / row["path"],
        base_model=row["base_model"],
        suffix=suffix,
        values={
            "author": row["creator"],
            "base_model": row["base_model"],
            "base_family": layouts.base_family(row["base_model"]),
            "file_id": row["file_id"],
            "file_name": stem,
            "first_tag": tags[0] if tags else None,
            "model_id": row["model_id"],
            "model_name": row["model_name"],
            "model_type": row["type"],
            "model_version_id": row["version_id"],
            "model_version_name": row["version_name"],
            "sha8": row["sha256"][:8],
            "version_id": row["version_id"],
            "version_name": row["version_name"],
        },
    )


class _Here:
    """What a UI's folders hold already: bytes of ours under a person's own names."""

    def __init__(self, registry: Registry, each: Ui, found: Mapping[str, list[Path]], kinds: Iterable[str]) -> None:
        self._inodes: dict[tuple[int, int], list[Path]] = {}
        self._hashes: dict[str, list[Path]] = {}
        self._folders = {kind: found.get(kind, []) for kind in kinds}
        for folder in {folder for paths in self._folders.values() for folder in paths}:
            for path, status in _walk(folder):
                self._inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
        start = str(each.root) + os.sep
        for row in registry.rows(
            "SELECT path, size, mtime_ns, inode, coalesce(sha256, json_extract(facts, '$.like')) AS sha256 FROM scan "
            "WHERE substr(path, 1, ?) = ?",
            (len(start), start),
        ):
            path = Path(row["path"])
            with contextlib.suppress(OSError):
                status = path.stat()
                if (status.st_size, status.st_mtime_ns, status.st_ino) == (row["size"], row["mtime_ns"], row["inode"]):
                    self._hashes.setdefault(row["sha256"], []).append(path)

    def path(self, file: File, blob: os.stat_result, *, but: Collection[str]) -> Path | None:
        """A name these bytes have in a folder of their kind, other than those in `but`."""
        names = self._inodes.get((blob.st_dev, blob.st_ino), []) + self._hashes.get(file.sha256, [])
        kinds = (file.kind or "", *layouts.FALLBACKS.get(file.kind or "", ()))
        folders = [folder for kind in kinds for folder in self._folders.get(kind, ())]
        ranks = [
            (rank, path)
            for path in names
            if str(path) not in but
            for rank, folder in enumerate(folders)
            if folder in path.parents
        ]
        return min(ranks)[1] if ranks else None  # of two names the same one each time


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Model files below a folder, links to folders followed once."""
    seen: set[tuple[int, int]] = set()
    todo = [folder]
    while todo:
        here = todo.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_dir():
                            todo.append(here / entry.name)
                        elif os.path.splitext(entry.name)[1].lower() in layouts.SUFFIXES:  # noqa: PTH122
                            yield here / entry.name, entry.stat()
        except OSError:
            continue


def _decide(registry: Registry, each: Ui, files: Sequence[File]) -> _Plan:
    layout = layouts.layout(each.layout)
    found = layouts.folders(layout, each.root)
    template = each.template or layout.template
    rows = [
        row
        for row in registry.rows("SELECT * FROM link WHERE ui = ?", (each.name,))
        if row["inode"] is not None or _state(registry, row) != "replaced"
    ]
    ours = {row["path"]: row for row in rows}
    mine = {_whose(row): row for row in rows}
    taken = {row["path"].casefold(): row["sha256"] if row["kind"] != YOURS else "" for row in rows}
    kinds = {file.kind for file in files if file.kind}
    here = _Here(registry, each, found, kinds | {f for k in kinds for f in layouts.FALLBACKS.get(k, ())})
    out = _Plan()
    for file in files:
        if file.kind is None:
            continue
        folder = layouts.write_folder(layout, each.root, found, file.kind, file.base_model)
        if folder is None:
            out.notes.append(each.action("unplaced", each.root, file, note=f"{layout.title} has no folder for it"))
            continue
        if each.kind == YAML:
            default = layout.folder(file.kind, file.base_model) or ""
            folder = view(registry, each) / default.removeprefix("models/")
        try:
            blob = registry.blob_path(file.sha256).stat()
        except OSError:
            out.notes.append(
                each.action("missing", registry.blob_path(file.sha256), file, note="its bytes are not in the store")
            )
            continue
        names = list(_candidates(registry, template, folder, file))
        _decide_one(registry, each, file, blob, names, mine.get((*file.key, file.sha256)), ours, taken, here, out)
    return out


def _candidates(registry: Registry, template: str, folder: Path, file: File) -> Iterator[Path]:
    values = dict(file.values)
    if "{nsfw}" in template:
        item = registry.get(file.version_id, source=file.source)
        values["nsfw"] = "nsfw" if item and item.model.nsfw not in (None, False, "None") else "sfw"
    plain = layouts.file_path(template, values, file.suffix)
    for path in (
        plain,
        layouts.numbered(plain, file.version_id),
        layouts.numbered(plain, f"{file.version_id}-{file.file_id}"),
    ):
        yield folder / path


def _decide_one(
    registry: Registry, each: Ui, file: File, blob: os.stat_result, names: list[Path], row: sqlite3.Row | None,
    ours: Mapping[str, sqlite3.Row], taken: dict[str, str], here: _Here, out: _Plan,
) -> None:  # fmt: skip
    old: Path | None = None
    if row is not None:
        path = Path(row["path"])
        if row["kind"] == YOURS:
            out.notes.append(each.action("yours", path, file, note="replaced by a file of yours, which stays"))
            return
        state = outside.state(row, registry.blob_path(file.sha256), path)
        if state == "replaced" and path in names:
            out.notes.append(each.action("yours", path, file, note="replaced by a file of yours, which stays"))
            return
        if path in names:
            out.shown.append((file, path))
            if state in {"missing", "stale"}:
                action = each.action("relink", path, file, note="the link was gone" if state == "missing" else "")
                out.steps.append((_with_kind(registry, each, action, blob.st_size), file, None))
            return
        old = path  # the template or the kind's folder changed
    elif (there := here.path(file, blob, but=ours)) is not None:
        out.shown.append((file, there))
        out.notes.append(each.action("present", there, file, note="already there under your own name"))
        return
    for path in names:
        key = str(path).casefold()
        if taken.get(key) == file.sha256:
            out.notes.append(each.action("shared", path, file, note="another version shows the same bytes there"))
            return
        if key in taken:
            continue
        if os.path.lexists(path):
            if outside.same_bytes(path, registry.blob_path(file.sha256)):
                out.shown.append((file, path))
                out.notes.append(each.action("present", path, file, note="the same bytes are already there"))
                return
            out.notes.append(each.action("clash", path, file, note="the name is taken by a file of yours"))
            continue
        taken[key] = file.sha256
        action = each.action("move" if old else "link", path, file, note=f"was {old}" if old else "")
        out.steps.append((_with_kind(registry, each, action, blob.st_size), file, old))
        out.shown.append((file, path))
        return
    out.notes.append(each.action("blocked", names[0], file, note="every name for it is taken"))


def _with_kind(registry: Registry, each: Ui, action: LinkAction, size: int) -> LinkAction:
    """The kind a volume is expected to allow, and what a copy will take."""
    kinds = _ladder(each)
    kind = kinds[0]
    if len(kinds) > 1:
        kind = "hardlink" if outside.device(registry.home) == outside.device(action.path) else "symlink"
        if kind == "hardlink" and outside.reflinks(registry):
            kind = "reflink"
    return replace(action, kind=kind, bytes=size if kind == "copy" else 0)


def _ladder(each: Ui) -> tuple[str, ...]:
    return LADDER if each.kind in {"auto", YAML} else (each.kind,)


def _check_space(each: Ui, found: _Plan) -> None:
    needed = sum(action.bytes for action, _, _ in found.steps)
    if needed:
        free = shutil.disk_usage(each.root).free
        if needed + (64 << 20) > free:
            raise NoSpace(
                f"copies for `{each.name}` need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB is free in {each.root}",
                hint="link with --kind symlink, which takes no space",
            )


# --- doing ------------------------------------------------------------------------------------------------------------


def _perform(registry: Registry, each: Ui, found: _Plan, on_step: OnStep) -> list[LinkAction]:
    done: list[LinkAction] = []
    total = len(found.steps)
    start = 0
    while start < total:
        size = 1 if found.steps[start][0].bytes else CHUNK  # copies take long: others get their turn in between
        chunk = found.steps[start : start + size]
        start += size
        with registry.linking():
            if not registry.rows("SELECT 1 FROM ui WHERE name = ?", (each.name,)):
                break  # another process took the UI out meanwhile
            so_far = len(done)
            done += _perform_some(registry, each, chunk, found, partial(on_step, so_far, total))
    if total:
        on_step(total, total, "")
    return done


def _perform_some(
    registry: Registry,
    each: Ui,
    chunk: Sequence[tuple[LinkAction, File, Path | None]],
    found: _Plan,
    on_name: Callable[[str], None],
) -> list[LinkAction]:
    done: list[LinkAction] = []
    before = {action.path: _row_now(registry, action.path) for action, _, _ in chunk if action.what == "relink"}
    changed = {path for path, row in before.items() if not _may_relink(registry, row)}
    found.lost += [file for action, file, _ in chunk if action.path in changed]
    with registry.transaction() as db:  # the intent first: nothing of ours outside is ever unknown
        claims = [(step, _claim(db, each, step[0])) for step in chunk if step[0].path not in changed]
    chunk = [step for step, claim in claims if claim == "ours"]
    found.lost += [file for (_, file, _), claim in claims if claim == "lost"]
    made: list[tuple[LinkAction, int | None]] = []
    for action, file, old in chunk:
        on_name(action.path.name)
        here = _as_it_is_now(registry, file)
        outcome = _link(registry, each, action, here) if here else None
        if outcome is None:
            found.shown = [(f, path) for f, path in found.shown if path != action.path]
            why = "a file of yours appeared there meanwhile" if here else "it was removed meanwhile"
            found.notes.append(replace(action, what="clash" if here else "missing", note=why))
            made.append((replace(action, what="clash"), None))
            _let_go(registry, before.get(action.path))
            continue
        if old is not None:
            _take_away(registry, old, file.sha256, to=action.path)
            _remove_empty(each, old.parent)
        made.append(outcome)
        done.append(outcome[0])
    with registry.transaction() as db:
        for (action, inode), (_, _, old) in zip(made, chunk, strict=True):
            if action.what == "clash":
                db.execute(
                    "DELETE FROM link WHERE path = ? AND inode IS NULL AND sha256 = ?",
                    (str(action.path), action.sha256),
                )
            else:
                _put_row(db, each, action, inode)
                if old is not None:
                    db.execute("DELETE FROM link WHERE path = ?", (str(old),))
    return done


def _may_relink(registry: Registry, row: sqlite3.Row | None) -> bool:
    """Whether a name that was missing or stale when it was decided is so still."""
    return row is not None and _state(registry, row) in {"missing", "stale"}


def _let_go(registry: Registry, row: sqlite3.Row | None) -> None:
    """A name that was to be made again and cannot be: what is left of ours there goes."""
    if row is not None and _state(registry, row) in {"ok", "stale"}:
        beside.remove(registry, Path(row["path"]))
        Path(row["path"]).unlink(missing_ok=True)


def _state(registry: Registry, row: sqlite3.Row) -> str:
    return outside.state(row, registry.blob_path(row["sha256"]), Path(row["path"]))


def _row_now(registry: Registry, path: Path) -> sqlite3.Row | None:
    return next(iter(registry.rows("SELECT * FROM link WHERE path = ?", (str(path),))), None)


def _again(registry: Registry, seen: sqlite3.Row) -> sqlite3.Row | None:
    """A row as it is now, where it still shows the same file: one read before others had their turn says nothing of
    its name any more. Within `linking`."""
    row = _row_now(registry, Path(seen["path"]))
    return row if row is not None and _whose(row) == _whose(seen) else None


def _claim(db: sqlite3.Connection, each: Ui, action: LinkAction) -> str:
    """Write the intent down: `ours`; unless another process has given the name to something since we decided
    (`lost`: it is decided again) or to the same bytes of another version (`shared`: nothing is left to do)."""
    row = db.execute("SELECT source, version_id, sha256 FROM link WHERE path = ?", (str(action.path),)).fetchone()
    if row is not None:
        same_bytes = row["sha256"] == action.sha256
        same_version = (row["source"], row["version_id"]) == (action.source, action.version_id)
        if same_bytes and not same_version:
            return "shared"
        if not same_bytes or action.what != "relink":
            return "lost"
    _put_row(db, each, action, None)
    return "ours"


def _as_it_is_now(registry: Registry, file: File) -> File | None:
    """The file with the name it has in tree/ by now; None when it was removed."""
    sql = "SELECT path FROM installed_file WHERE source = ? AND version_id = ? AND file_id = ? AND sha256 = ?"
    rows = registry.rows(sql, (*file.key, file.file_id, file.sha256))
    return replace(file, tree=registry.home / rows[0]["path"]) if rows else None


def _put_row(db: sqlite3.Connection, each: Ui, action: LinkAction, inode: int | None) -> None:
    """Write a name down. Without an inode it is an intent: the name may not exist yet."""
    db.execute(
        "INSERT INTO link(path, sha256, source, version_id, layout, kind, created_at, inode, ui) "
        "VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT(path) DO UPDATE SET sha256 = excluded.sha256, "
        "source = excluded.source, version_id = excluded.version_id, layout = excluded.layout, kind = excluded.kind, "
        "inode = excluded.inode, ui = excluded.ui",
        (
            str(action.path), action.sha256, action.source, action.version_id, each.layout, action.kind, now(), inode,
            each.name,
        ),
    )  # fmt: skip


def _link(registry: Registry, each: Ui, action: LinkAction, file: File) -> tuple[LinkAction, int | None] | None:
    """Make one name; returns the action with its kind and the inode, or None when a person's file is in the way."""
    blob = registry.blob_path(file.sha256)
    path = action.path
    path.parent.mkdir(parents=True, exist_ok=True)
    renew = action.what == "relink" and os.path.lexists(path)  # looked at, and ours
    try:
        try:
            kind = outside.place(blob, path, _ladder(each), shown=file.tree, renew=renew)
        except FileExistsError:
            if not outside.same_bytes(path, blob):
                return None
            kind = outside.kind_of(path, blob)
        return replace(action, kind=kind), path.lstat().st_ino
    except FileNotFoundError:
        if blob.exists() and path.parent.is_dir() and os.path.lexists(path):
            raise
        return None  # another process removed the version, or the link, meanwhile


def _sweep(found: _Plan) -> None:
    """Remove what a killed copy left in the folders we are about to use."""
    for folder in {action.path.parent for action, _, _ in found.steps} | {path.parent for _, path in found.shown}:
        outside.sweep(folder)


# --- taking away ------------------------------------------------------------------------------------------------------


def unlink(registry: Registry, version_keys: Collection[Key], *, dry_run: bool = False) -> list[LinkAction]:
    """Take these versions out of every UI: to be called before their rows and blobs go.

    A name that shows bytes another installed version has is left to that one. Whoever then deletes rows and blobs does
    it within the same `linking`, or a name could be made again between the two.
    """
    with registry.linking() if not dry_run else contextlib.nullcontext():
        return _unlink_versions(registry, version_keys, dry_run=dry_run)


def _unlink_versions(registry: Registry, version_keys: Collection[Key], *, dry_run: bool) -> list[LinkAction]:
    rows = [
        row
        for source, version_id in sorted(version_keys)
        for row in registry.rows(
            "SELECT * FROM link WHERE source = ? AND version_id = ? ORDER BY path", (source, version_id)
        )
    ]
    return _unlink_or_pass_on(registry, rows, set(version_keys), dry_run=dry_run)


def _leave_replaced(registry: Registry, keys: Collection[Key], *, dry_run: bool) -> list[LinkAction]:
    """Names that show bytes their version had before its file was replaced."""
    sql = (
        "SELECT * FROM link l WHERE l.kind != ? AND l.inode IS NOT NULL AND NOT EXISTS (SELECT 1 FROM installed_file f "
        "WHERE f.source = l.source AND f.version_id = l.version_id AND f.sha256 = l.sha256)"
    )

    def found() -> list[sqlite3.Row]:
        if len(keys) > CHUNK:
            return [row for row in registry.rows(sql, (YOURS,)) if (row["source"], row["version_id"]) in keys]
        one = sql + " AND +l.source = ? AND l.version_id = ?"
        return [row for key in sorted(keys) for row in registry.rows(one, (YOURS, *key))]

    rows = found()
    if dry_run or not rows:
        return _unlink_or_pass_on(registry, rows, set(), dry_run=True)
    with registry.linking():
        return _unlink_or_pass_on(registry, found(), set(), dry_run=False)


def _unlink_or_pass_on(
    registry: Registry, rows: Sequence[sqlite3.Row], going: Collection[Key], *, dry_run: bool
) -> list[LinkAction]:
    """Take names away, but for those whose bytes a version that stays has: they are left to that one."""
    leaving, passed_on = [], []
    for row in rows:
        heirs = registry.rows("SELECT source, version_id FROM installed_file WHERE sha256 = ?", (row["sha256"],))
        heir = next((h for h in heirs if (h["source"], h["version_id"]) not in going), None)
        if heir is None:
            leaving.append(row)
        else:
            passed_on.append((heir["source"], heir["version_id"], row["path"]))
    if passed_on and not dry_run:
        with registry.transaction() as db:
            db.executemany("UPDATE link SET source = ?, version_id = ? WHERE path = ?", passed_on)
    return _unlink(registry, leaving, dry_run=dry_run)


def _unlink(registry: Registry, rows: Sequence[sqlite3.Row], *, dry_run: bool) -> list[LinkAction]:
    out: list[LinkAction] = []
    for start in range(0, len(rows), CHUNK):
        with registry.linking() if not dry_run else contextlib.nullcontext():
            out += _unlink_some(registry, rows[start : start + CHUNK], dry_run=dry_run)
    return out


def _unlink_some(registry: Registry, rows: Sequence[sqlite3.Row], *, dry_run: bool) -> list[LinkAction]:
    out: list[LinkAction] = []
    gone: list[tuple[str, str, int]] = []
    known = {each.name: each for each in uis(registry)}
    away = {name for name, each in known.items() if not each.root.is_dir()}
    for seen in rows:
        row = seen if dry_run else _again(registry, seen)
        if row is None:
            continue  # another process was faster
        path = Path(row["path"])
        state = "replaced" if row["kind"] == YOURS else _state(registry, row)
        if state == "missing" and row["ui"] in away:
            continue  # on a drive that is not there: `repair` takes it out when it is back
        action = LinkAction(
            row["ui"] or row["layout"], "unlink", path, row["kind"], row["sha256"], row["source"], row["version_id"]
        )
        if state == "replaced":
            out.append(replace(action, what="yours", note="replaced by a file of yours, which stays"))
        elif state != "missing":
            out.append(action)
        if not dry_run:
            beside.remove(registry, path)
            if state in {"ok", "stale"}:
                path.unlink(missing_ok=True)
                _remove_empty(known.get(row["ui"]), path.parent)
            gone.append((row["path"], row["source"], row["version_id"]))
    if gone:
        with registry.transaction() as db:
            db.executemany("DELETE FROM link WHERE path = ? AND source = ? AND version_id = ?", gone)
    return out


def _whose(row: sqlite3.Row) -> tuple[str, int, str]:
    return row["source"], row["version_id"], row["sha256"]


def _take_away(registry: Registry, path: Path, sha256: str, *, to: Path) -> None:
    """The old name of a file that has a new one. What a person put there stays."""
    row = _row_now(registry, path)
    state = outside.state(row, registry.blob_path(sha256), path) if row else "replaced"
    if state == "replaced":
        beside.remove(registry, path)
        return
    beside.move(registry, path, to)
    path.unlink(missing_ok=True)


def _remove_empty(each: Ui | None, folder: Path) -> None:
    """Folders that a name template made, once nothing is in them; never a folder of the UI's own."""
    layout = layouts.layout(each.layout) if each else None
    if each is None or layout is None or "/" not in (each.template or layout.template) or each.kind == YAML:
        return
    own = {path for paths in layouts.folders(layout, each.root).values() for path in paths}
    while folder not in own and any(path in folder.parents for path in own):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _remove_empty_below(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), key=lambda p: -len(p.parts)):
        with contextlib.suppress(OSError):
            path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


# --- looking after ----------------------------------------------------------------------------------------------------


def repair(
    registry: Registry,
    *,
    dry_run: bool = False,
    on_step: OnStep = lambda done, total, what: None,
    picture: Callable[[str], bytes] | None = None,
) -> list[LinkAction]:
    """Put right what changed since: missing and dangling links, links of versions that are gone, links to be made.

    A file of ours that a person replaced is theirs now: it stays and is not linked again.
    """
    out: list[LinkAction] = []
    known = {each.name: each for each in uis(registry)}
    installed = {_whose(row) for row in registry.rows("SELECT source, version_id, sha256 FROM installed_file")}
    rows = registry.rows("SELECT * FROM link ORDER BY path")
    orphans = []
    for row in rows:
        if row["ui"] in known and not known[row["ui"]].root.is_dir():
            continue  # told below, once
        if _whose(row) not in installed or row["ui"] not in known:
            orphans.append(row)
        elif row["kind"] != YOURS and not dry_run:
            _give_up_replaced(registry, row)
            out += _point_anew(registry, row) if row["kind"] == "symlink" else []
    for action in _unlink(registry, orphans, dry_run=dry_run):
        out.append(replace(action, note=action.note or "that version is not installed any more"))
    written = registry.rows("SELECT path FROM sidecar")
    for folder in {Path(row["path"]).parent for row in (*rows, *written)} if not dry_run else ():
        out += [LinkAction("", "unlink", path, note="half-made copy of a killed run") for path in outside.sweep(folder)]
    out += apply(registry, dry_run=dry_run, on_step=on_step, picture=picture)
    if not dry_run:
        _forget_empty_names(registry, known)
        beside.forget_lonely(registry)
    return out


def _give_up_replaced(registry: Registry, row: sqlite3.Row) -> None:
    """Note that a person's file is where ours was: looked at twice, the second time while nobody else is at work."""
    if _state(registry, row) != "replaced":
        return
    with registry.linking():
        again = _again(registry, row)
        if again and registry.has(row["sha256"]) and _state(registry, again) == "replaced":
            with registry.transaction() as db:
                db.execute("UPDATE link SET kind = ? WHERE path = ?", (YOURS, row["path"]))


def _point_anew(registry: Registry, row: sqlite3.Row) -> list[LinkAction]:
    """A symlink by a name that its file has no more in tree/, left by a kill: it would lead nowhere once that goes."""
    path = Path(row["path"])
    if not _goes_by_an_old_name(registry, path):
        return []
    with registry.linking():
        names = registry.rows(
            "SELECT path FROM installed_file WHERE source = ? AND version_id = ? AND sha256 = ?", _whose(row)
        )
        if not (_again(registry, row) and names and _goes_by_an_old_name(registry, path)):
            return []
        blob, shown = registry.blob_path(row["sha256"]), registry.home / names[0]["path"]
        outside.place(blob, path, ("symlink",), shown=shown, renew=True)
        with registry.transaction() as db:
            db.execute("UPDATE link SET inode = ? WHERE path = ?", (path.lstat().st_ino, row["path"]))
    return [LinkAction(row["ui"], "relink", path, "symlink", row["sha256"], row["source"], row["version_id"])]


def _goes_by_an_old_name(registry: Registry, path: Path) -> bool:
    try:
        target = path.readlink()
    except OSError:
        return False
    if registry.home / "tree" not in target.parents:
        return False
    name = target.relative_to(registry.home).as_posix()
    return not registry.rows("SELECT 1 FROM installed_file WHERE path = ?", (name,))


def _forget_empty_names(registry: Registry, known: Mapping[str, Ui]) -> None:
    """Rows whose name still shows nothing after everything was linked: the file is shown under another one.

    Without an inode a row is the intent of a process that may be at work; those of today are left to it.
    """
    today = now()[:10]
    for seen in registry.rows("SELECT * FROM link WHERE kind != ?", (YOURS,)):
        if seen["ui"] not in known or not known[seen["ui"]].root.is_dir():
            continue
        if seen["inode"] is None and seen["created_at"][:10] == today:
            continue
        if _state(registry, seen) not in {"missing", "stale"}:
            continue
        with registry.linking():
            row = _again(registry, seen)
            state = _state(registry, row) if row else "ok"
            if state in {"missing", "stale"}:
                if state == "stale":
                    Path(seen["path"]).unlink(missing_ok=True)
                with registry.transaction() as db:
                    db.execute("DELETE FROM link WHERE path = ?", (seen["path"],))


def status(registry: Registry, each: Ui) -> dict[str, Any]:
    """How a UI's links are: counted, and each looked at without reading it."""
    rows = registry.rows("SELECT * FROM link WHERE ui = ?", (each.name,))
    gone = sum(not os.path.lexists(row["path"]) for row in rows)
    yours = sum(row["kind"] == YOURS for row in rows)
    kinds = sorted({row["kind"] for row in rows} - {YOURS})
    state = "ok"
    if not each.root.is_dir():
        state = "the folder is not there"
    elif gone or yours:
        parts = [f"{gone} missing" if gone else "", f"{yours} replaced by yours" if yours else ""]
        state = ", ".join(part for part in parts if part)
    return {
        **each.to_json(),
        "title": layouts.layout(each.layout).title,
        "links": len(rows) - yours,
        "missing": gone,
        "yours": yours,
        "how": (f"{YAML}, " if each.kind == YAML else "") + (", ".join(kinds) or each.kind),
        "state": state,
    }

"""Give a set of models away: a UI's folder tree, a plain list, or a bill of materials with credits.

A tree holds exactly the files of the set and a list of what was put there (`.hubctl-tree.json`), so that the next
export or sync can take away what no longer belongs. Files it did not put there are never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hubctl.errors import NotFound
from hubctl.lockfile import Locked
from registry import outside
from registry.fs import locked

if TYPE_CHECKING:
    from registry import Registry

MARK = ".hubctl-tree.json"
RIGHTS_SAID = (
    ("allowNoCredit", "credit", "not required", "required"),
    ("allowDerivatives", "merges", "yes", "no"),
    ("allowDifferentLicense", "other terms on merges", "yes", "no"),
)
LADDER = ("hardlink", "symlink", "copy")
PATIENCE = 600.0  # seconds another process may take to copy a tree


@dataclass(frozen=True)
class TreeAction:
    """`place`, `keep`, `remove`, or `clash`: a file of somebody else's has the name."""

    what: str
    path: str  # below the tree's root
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def plan_tree(entries: Sequence[Locked], registry: Registry, root: Path, layout_name: str) -> tuple[TreeAction, ...]:
    """Decide a tree: the same entries give the same names everywhere. Raises NotFound for a blob that is not here."""
    wanted = _names(entries, registry, layout_name)
    ours = _marked(root)
    out = []
    for path, sha256 in wanted.items():
        target = root / path
        if _shows(target, registry.blob_path(sha256)):
            out.append(TreeAction("keep", path, sha256))
        elif os.path.lexists(target) and not _is_ours(target, ours.get(path, ()), registry):
            out.append(TreeAction("clash", path, sha256))
        else:
            out.append(TreeAction("place", path, sha256))
    for path, shas in ours.items():
        if path not in wanted and (not os.path.lexists(root / path) or _is_ours(root / path, shas, registry)):
            out.append(TreeAction("remove", path, shas[0]))
    return tuple(out)


def _names(entries: Sequence[Locked], registry: Registry, layout_name: str) -> dict[str, str]:
    from registry import layouts
    from registry.fs import safe_name

    layout = layouts.layout(layout_name)
    out: dict[str, str] = {}
    for entry in sorted(entries, key=lambda each: (each.source, each.model_id, each.version_id, each.file_id)):
        if not registry.has(entry.sha256):
            raise NotFound(f"`{entry.file}` is not here", hint="`hubctl sync` installs what the lock names")
        item = registry.get(entry.version_id, source=entry.source)
        file = next((f for f in item.files if f.sha256 == entry.sha256), None) if item else None
        kind = layouts.kind_of(file.role if file else None, (file.facts.get("kind") if file else None), entry.type)
        folder = layout.folder(kind, entry.base_model) if kind else None
        if folder is None:
            continue
        plain = PurePosixPath(folder) / safe_name(entry.file, f"{entry.version_id}.safetensors")
        marks = (entry.version_id, f"{entry.version_id}-{entry.file_id}")
        taken = {name.casefold(): name for name in out}
        for path in (plain, *(layouts.numbered(plain, mark) for mark in marks)):
            holder = taken.get(str(path).casefold())
            if holder is None or (holder, out[holder]) == (str(path), entry.sha256):
                out[str(path)] = entry.sha256
                break
    return out


def _marked(root: Path) -> dict[str, tuple[str, ...]]:
    """What was put into a tree: path → the SHA256 it has, and while it is being changed the one it had."""
    out: dict[str, tuple[str, ...]] = {}
    try:
        data = json.loads((root / MARK).read_text(encoding="utf-8"))
        for part in ("files", "before"):
            for path, sha in data.get(part, {}).items():
                if _stays_inside(str(path)):
                    out[str(path)] = tuple(dict.fromkeys((*out.get(str(path), ()), str(sha))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return out


def _stays_inside(path: str) -> bool:
    parts = Path(path).parts
    return bool(parts) and not Path(path).is_absolute() and ".." not in parts


def _shows(target: Path, blob: Path) -> bool:
    try:
        return target.samefile(blob) or (not target.is_symlink() and _is_of(target, blob.stat().st_size, (blob.name,)))
    except OSError:
        return False


def _is_ours(target: Path, shas: Sequence[str], registry: Registry) -> bool:
    """Whether what has a name in a tree is what was put there: a link to the library, or one of these bytes."""
    if not shas:
        return False
    try:
        if target.is_symlink():
            return registry.home in target.readlink().parents or not target.exists()
        return _is_blob(target, shas, registry) or _is_of(target, None, shas)
    except OSError:
        return False


def _is_blob(target: Path, shas: Sequence[str], registry: Registry) -> bool:
    """Whether it is a name of one of these blobs, or of one that was set aside since its bytes were found spoilt."""
    for sha in shas:  # in this order: one that is being set aside is found here or there
        with contextlib.suppress(FileNotFoundError):
            if target.samefile(registry.blob_path(sha)):
                return True
    return any(target.samefile(path) for sha in shas for path in (registry.home / "damaged").glob(f"{sha}.*"))


def _is_of(target: Path, size: int | None, shas: Sequence[str]) -> bool:
    from registry.hashes import hash_file

    right = target.is_file() and (size is None or target.stat().st_size == size)
    return right and hash_file(target, ["SHA256"])["SHA256"].lower() in shas


def make_tree(
    entries: Sequence[Locked], registry: Registry, root: Path, layout_name: str, *, copy: bool = False
) -> tuple[TreeAction, ...]:
    """Decide a tree and make it so, one process at a time; returns what was done.

    What is about to be put there is written down first, so that a kill leaves nothing that nobody owns. Clashes are
    left as they are; the caller says so. Raises NotFound for bytes that are not here.
    """
    with locked(registry.home / "trees.lock", PATIENCE):
        actions = plan_tree(entries, registry, root, layout_name)
        before = {path: shas[0] for path, shas in _marked(root).items()}
        root.mkdir(parents=True, exist_ok=True)
        for folder in {root, *((root / action.path).parent for action in actions)}:
            outside.sweep(folder)
        mine = {action.path: action.sha256 for action in actions if action.what in {"keep", "place"}}
        if before != mine:
            _mark(root, mine, before)
        actions = tuple(_carry_out(action, registry, root, copy=copy) for action in actions)
        mine = {action.path: action.sha256 for action in actions if action.what in {"keep", "place"}}
        _mark(root, mine, {})
        return actions


def _carry_out(action: TreeAction, registry: Registry, root: Path, *, copy: bool) -> TreeAction:
    target, blob = root / action.path, registry.blob_path(action.sha256)
    if action.what == "remove":
        target.unlink(missing_ok=True)
    elif action.what == "place":
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            outside.place(
                blob, target, ("copy",) if copy else LADDER, shown=_friendly(registry, action.sha256) or blob,
                renew=os.path.lexists(target),
            )  # fmt: skip
        except FileExistsError:  # somebody was faster
            return action if _shows(target, blob) else replace(action, what="clash")
        except FileNotFoundError:
            if blob.exists():
                raise
            raise NotFound(f"`{target.name}` was removed meanwhile", hint="run it again") from None
    return action


def _friendly(registry: Registry, sha256: str) -> Path | None:
    """A name with the suffix loaders go by, for a link to point at."""
    located = registry.find(sha256)
    return next((file.path for item in located for file in item.files if file.sha256 == sha256), None)


def _mark(root: Path, files: Mapping[str, str], before: Mapping[str, str]) -> None:
    data: dict[str, Any] = {"files": dict(sorted(files.items()))}
    if before:
        data["before"] = dict(sorted(before.items()))
    outside.write(root / MARK, json.dumps(data, indent=1).encode() + b"\n")


# --- lists ------------------------------------------------------------------------------------------------------------


def plain_list(entries: Iterable[Locked]) -> list[str]:
    """One reference a line that `hubctl install` takes."""
    return [f"{entry.model_id}@{entry.version_id}" for entry in entries]


def credits_markdown(entries: Iterable[Locked]) -> str:
    """Who made what, where it is from, what its licence allows."""
    lines = ["# Models used", ""]
    for entry in entries:
        maker = f" by {entry.creator}" if entry.creator else ""
        lines.append(
            f"- **{_plain(entry.model)}** {_plain(entry.version)}{_plain(maker)} ({entry.type}, {entry.base_model})"
        )
        if entry.source == "civitai":
            lines.append(f"  {entry.page}")
        lines.append(f"  file `{_plain(entry.file)}`, SHA256 `{entry.sha256}`")
        lines.append(f"  licence: {rights(entry)}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A stranger's name inside Markdown."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>" else char for char in " ".join(text.split()))


def rights(entry: Locked) -> str:
    from registry.wire import commercial_uses

    said = entry.licence
    uses = commercial_uses(said.get("allowCommercialUse")) - {"None"}
    commercial = ", ".join(sorted(uses)) or "no" if "allowCommercialUse" in said else "not said"
    parts = [f"commercial use: {commercial}"]
    for key, what, yes, no in RIGHTS_SAID:
        if key in said:
            parts.append(f"{what}: {yes if said[key] else no}")
    return "; ".join(parts)


def bill_of_materials(entries: Iterable[Locked]) -> list[dict[str, Any]]:
    return [
        {**entry.__dict__, "licence": dict(entry.licence), "rights": rights(entry), "page": entry.page}
        for entry in entries
    ]

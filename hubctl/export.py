"""Give a set of models away: a UI's folder tree, a plain list, or a bill of materials with credits.

A tree holds exactly the files of the set and a list of what was put there (`.hubctl-tree.json`), so that the next
export or sync can take away what no longer belongs. Files it did not put there are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.errors import NotFound
from hubctl.lockfile import Locked
from registry.fs import write_atomic

if TYPE_CHECKING:
    from registry import Registry

MARK = ".hubctl-tree.json"
RIGHTS_SAID = (
    ("allowNoCredit", "credit", "not required", "required"),
    ("allowDerivatives", "merges", "yes", "no"),
    ("allowDifferentLicense", "other terms on merges", "yes", "no"),
)
LADDER = ("hardlink", "symlink", "copy")


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
        elif (target.exists() or target.is_symlink()) and path not in ours:
            out.append(TreeAction("clash", path, sha256))
        else:
            out.append(TreeAction("place", path, sha256))
    out += [TreeAction("remove", path, sha256) for path, sha256 in ours.items() if path not in wanted]
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
        path = Path(folder) / safe_name(entry.file, f"{entry.version_id}.safetensors")
        taken = {name.casefold() for name in out}
        if path.as_posix().casefold() in taken and out.get(path.as_posix()) != entry.sha256:
            path = path.with_name(f"{path.stem}-v{entry.version_id}{path.suffix}")
        out[path.as_posix()] = entry.sha256
    return out


def _marked(root: Path) -> dict[str, str]:
    try:
        data = json.loads((root / MARK).read_text(encoding="utf-8"))
        return {str(path): str(sha) for path, sha in data["files"].items() if _stays_inside(str(path))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _stays_inside(path: str) -> bool:
    parts = Path(path).parts
    return bool(parts) and not Path(path).is_absolute() and ".." not in parts


def _shows(target: Path, blob: Path) -> bool:
    from registry.hashes import hash_file

    try:
        if target.samefile(blob):
            return True
        return (
            not target.is_symlink()
            and target.stat().st_size == blob.stat().st_size
            and hash_file(target, ["SHA256"])["SHA256"].lower() == blob.name
        )
    except OSError:
        return False


def write_tree(actions: Sequence[TreeAction], registry: Registry, root: Path, *, copy: bool = False) -> None:
    """Carry a tree out. Clashes are left as they are; the caller says so."""
    from registry.outside import place

    kept = {}
    for action in actions:
        target = root / action.path
        if action.what == "remove":
            if _shows(target, registry.blob_path(action.sha256)) or target.is_symlink():
                target.unlink(missing_ok=True)
            continue
        if action.what == "clash":
            continue
        if action.what == "place":
            target.parent.mkdir(parents=True, exist_ok=True)
            blob = registry.blob_path(action.sha256)
            place(blob, target, ("copy",) if copy else LADDER, shown=blob, renew=target.is_symlink() or target.exists())
        kept[action.path] = action.sha256
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / MARK, json.dumps({"files": dict(sorted(kept.items()))}, indent=1).encode() + b"\n")


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

"""The UI folders that show what is installed: which there are, and the block in ComfyUI's own settings.

    ui      comfyui  /home/me/ComfyUI  auto      what `hubctl link add` wrote down

`registry.links` shows files in them.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import layouts, outside, sidecars
from registry.errors import NotFound, UsageError
from registry.fs import safe_name

if TYPE_CHECKING:
    from registry.local import Registry

YAML = "yaml"  # the kind of a UI that reads a view of ours instead of getting links in its own folders
Key = tuple[str, int]  # source, version id


@dataclass(frozen=True)
class Ui:
    """A UI folder that shows what is installed."""

    name: str
    layout: str
    root: Path
    kind: str = "auto"
    template: str | None = None
    sidecars: tuple[str, ...] = ()

    def action(self, what: str, path: Path, file: File, *, note: str = "") -> LinkAction:
        """What is done, or was found, for a file here."""
        return LinkAction(
            self.name, what, path, None, file.sha256, file.source, file.version_id, file.file_id, note, bytes=0
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layout": self.layout,
            "root": str(self.root),
            "kind": self.kind,
            "template": self.template,
            "sidecars": list(self.sidecars),
        }


@dataclass(frozen=True)
class LinkAction:
    """One thing that is done, or was found, for one file in one UI.

    `what`: link · relink · move · unlink · sidecar · preview · settings        changes
            present · shared                                                    nothing to do: the bytes are there
            clash · yours · blocked · unplaced · missing · no_root · kept       to know
    """

    ui: str
    what: str
    path: Path
    kind: str | None = None  # how: hardlink, …
    sha256: str | None = None
    source: str | None = None
    version_id: int | None = None
    file_id: int | None = None
    note: str = ""
    bytes: int = 0  # what a copy takes

    @property
    def changes(self) -> bool:
        return self.what in {"link", "relink", "move", "unlink", "sidecar", "preview", "settings"}

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "path": str(self.path)}


@dataclass(frozen=True)
class File:
    """An installed file as its rows have it."""

    source: str
    version_id: int
    file_id: int
    sha256: str
    size: int
    kind: str | None
    tree: Path
    base_model: str | None
    suffix: str
    values: Mapping[str, Any] = field(compare=False)  # for the name template

    @property
    def key(self) -> Key:
        return self.source, self.version_id


def uis(registry: Registry) -> list[Ui]:
    """Every linked UI, in the order they were added."""
    return [
        Ui(
            row["name"], row["layout"], Path(row["root"]), row["kind"], row["template"],
            tuple(json.loads(row["sidecars"] or "[]")),
        )
        for row in registry.rows("SELECT * FROM ui ORDER BY added_at, name")
    ]  # fmt: skip


def ui(registry: Registry, name: str) -> Ui:
    """Raises NotFound with the names there are."""
    known = uis(registry)
    for each in known:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in known) or "none yet"
    raise NotFound(f"no UI is linked as `{name}`", hint=f"linked: {names}; `hubctl link add` adds one")


def view(registry: Registry, each: Ui) -> Path:
    """Where the files of a `--yaml` UI are: a folder of ours that its extra_model_paths.yaml names."""
    return registry.home / "views" / safe_name(each.name)


def check_ui(registry: Registry, new: Ui) -> Ui | None:
    """The UI of this name that `new` replaces, if any. Raises UsageError and NotFound for what cannot be linked."""
    layouts.layout(new.layout)
    if new.template:
        layouts.check_template(new.template)
    if new.kind == YAML and new.layout != "comfyui":
        raise UsageError("only ComfyUI reads an extra_model_paths.yaml", hint="leave out --yaml")
    unknown = sorted(set(new.sidecars) - set(sidecars.TOOLS))
    if unknown:
        raise UsageError(f"no sidecar is called `{unknown[0]}`", hint="known: " + ", ".join(sidecars.TOOLS))
    if not new.root.is_dir():
        raise NotFound(f"there is no folder {new.root}", hint="give the UI's own folder, where it is started from")
    if new.root == registry.home or registry.home in new.root.parents:
        raise UsageError(f"{new.root} is inside hubctl's own home", hint="give the UI's own folder")
    previous = None
    for old in uis(registry):
        if old.name == new.name:
            previous = old
        elif old.root == new.root:
            raise UsageError(
                f"{new.root} is linked already, as `{old.name}`", hint=f"`hubctl link remove {old.name}` first"
            )
    if previous and previous.root != new.root and previous.root.exists():
        raise UsageError(
            f"`{new.name}` is linked already, at {previous.root}", hint="give this one another --name to have both"
        )
    return previous


def rebase(db: sqlite3.Connection, name: str, old: Path, new: Path) -> None:
    """The folder was moved, and our names with it."""
    start = str(old) + os.sep
    for table, where in (("link", "ui = ? AND "), ("sidecar", "")):
        args = (name,) if where else ()
        for row in db.execute(
            f"SELECT path FROM {table} WHERE {where}substr(path, 1, ?) = ?", (*args, len(start), start)
        ):
            db.execute(
                f"UPDATE OR REPLACE {table} SET path = ? WHERE path = ?",
                (str(new) + os.sep + row["path"][len(start) :], row["path"]),
            )


def yaml_actions(registry: Registry, new: Ui, previous: Ui | None) -> list[LinkAction]:
    if YAML not in {new.kind, previous.kind if previous else None}:
        return []
    path = new.root / "extra_model_paths.yaml"
    text = _text(path)
    after = layouts.with_block(text, layouts.yaml_block(view(registry, new)) if new.kind == YAML else None)
    note = f"block `{layouts.YAML_BLOCK}` " + ("written" if new.kind == YAML else "taken out")
    return [LinkAction(new.name, "settings", path, note=note)] if after != text else []


def write_yaml(registry: Registry, new: Ui, previous: Ui | None = None, *, take_out: bool = False) -> None:
    if YAML not in {new.kind, previous.kind if previous else None}:
        return
    path = new.root / "extra_model_paths.yaml"
    text = _text(path)
    wanted = None if take_out or new.kind != YAML else layouts.yaml_block(view(registry, new))
    after = layouts.with_block(text, wanted)
    if after == text:
        return
    if after:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        outside.sweep(path.parent)
        outside.write(path, after.encode("utf-8", "surrogateescape"), mode=mode)
    else:  # nothing but our block was in it
        path.unlink()


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def has_own_block(root: Path) -> bool:
    return f"{layouts.YAML_BLOCK}:" in _text(root / "extra_model_paths.yaml")

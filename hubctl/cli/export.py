"""hubctl export: give a set of models away: a UI's folder tree, a list, credits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import DryRun, ProjectDir

if TYPE_CHECKING:
    from hubctl.lockfile import Locked
    from registry import Registry

KINDS = "list|credits|json|lock|tree"


def export(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="[REF...]", help="These; default: the project's lock, else everything")
    ] = None,
    as_: Annotated[str, typer.Option("--as", metavar=KINDS, help="What to write")] = "list",
    layout: Annotated[
        str, typer.Option("--layout", metavar="comfyui|a1111|…", help="Whose folders, for a tree")
    ] = "comfyui",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PATH", help="A file, or the tree's folder")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option("--images", metavar="FILE", help="What these pictures were made with")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy into the tree instead of linking")] = False,
    dry_run: DryRun = False,
    project: ProjectDir = None,
) -> None:
    """Write a set of models as a tree for a UI, a plain list for `hubctl install`, a lock, or credits.

    Example: hubctl export --as credits -o CREDITS.md    or    hubctl export --images a.png --as lock -o hubctl.lock
    """
    from hubctl import export as journey
    from hubctl import lockfile
    from hubctl.errors import UsageError

    if as_ not in KINDS.split("|"):
        raise UsageError(f"`--as {as_}` is not known", hint="one of: " + KINDS.replace("|", ", "))
    with _app.open_registry(read_only=as_ != "tree") as registry:
        entries = _entries(registry, refs or [], images or [], project)
        if as_ == "tree":
            _tree(entries, registry, out, layout, copy=copy, dry_run=dry_run)
            return
    if as_ == "list":
        text = "".join(f"{line}\n" for line in journey.plain_list(entries))
    elif as_ == "credits":
        text = journey.credits_markdown(entries)
    elif as_ == "lock":
        text = lockfile.dump_lock(entries)
    else:
        text = ""
    if as_ == "json" or _flags.CURRENT.json:
        _out.document("export", {"items": journey.bill_of_materials(entries), "count": len(entries)})
    elif out is None:
        for line in text.splitlines():
            _out.line(line)
    elif not dry_run:
        from registry import outside

        outside.write(out, text.encode())
        _out.say(f"{_out.plural(len(entries), 'model')} in {out}")


def _entries(registry: Registry, refs: list[str], images: list[Path], project: Path | None) -> list[Locked]:
    from hubctl import lockfile
    from hubctl.reproduce import installed_one

    if images:
        return _of_pictures(registry, images)
    if refs:
        return [lockfile.entry_of(installed_one(ref, registry)) for ref in refs]
    root = project or lockfile.find(Path.cwd())
    if root is not None and (root / lockfile.LOCK).is_file():
        return list(lockfile.read_lock(root / lockfile.LOCK))
    return [lockfile.entry_of(item) for item in registry.installed() if item.files]


def _of_pictures(registry: Registry, images: list[Path]) -> list[Locked]:
    """What pictures used, as far as it is here; the rest is said."""
    from hubctl import infotext, lockfile
    from hubctl.reproduce import NEEDED

    found: dict[tuple[str, int], Locked] = {}
    for path in images:
        parameters = infotext.parse(infotext.read(path))
        for ref in parameters.resources:
            if ref.kind not in NEEDED:
                continue
            located = registry.locate(ref.kind, hash=ref.hash, version_id=ref.version_id, name=ref.name)
            if located is None:
                _out.warn(f"{path.name}: {ref.kind} `{ref.name or ref.hash or ref.version_id}` is not here")
            else:
                item = located.installed
                found.setdefault((item.source, item.version.id), lockfile.entry_of(item))
    return list(found.values())


def _tree(
    entries: list[Locked], registry: Registry, out: Path | None, layout: str, *, copy: bool, dry_run: bool
) -> None:
    from hubctl import export as journey
    from hubctl.errors import UsageError

    if out is None:
        raise UsageError("a tree needs a folder", hint="pass it with --out")
    if dry_run:
        actions = journey.plan_tree(entries, registry, out, layout)
    else:
        actions = journey.make_tree(entries, registry, out, layout, copy=copy)
    if _flags.CURRENT.json:
        _out.document("export-tree", {"folder": str(out), "layout": layout, "actions": [a.to_json() for a in actions]})
        return
    for action in actions:
        if action.what == "clash":
            _out.warn(f"{action.path} is somebody else's file: it was left as it is")
        elif action.what != "keep" or _flags.CURRENT.verbose:
            _out.say(f"  {action.what:6} {action.path}")
    _out.say(f"{_out.plural(len(actions), 'file')} in {out}" + (". Nothing was done (--dry-run)" if dry_run else ""))

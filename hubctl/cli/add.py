"""hubctl add: put a model into the project's hubctl.toml, and lock it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import ProjectDir

if TYPE_CHECKING:
    from hubctl.lockfile import Locked


def add(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    name: Annotated[str | None, typer.Option("--name", help="Its name in hubctl.toml; default: the file's")] = None,
    fp: Annotated[str | None, typer.Option("--fp", help="fp16, fp32, bf16, …")] = None,
    size: Annotated[str | None, typer.Option("--size", help="pruned or full")] = None,
    format: Annotated[str | None, typer.Option("--format", help="SafeTensor, GGUF, …")] = None,  # noqa: A002
    file: Annotated[int | None, typer.Option("--file", metavar="ID", help="This file of the version")] = None,
    project: ProjectDir = None,
) -> None:
    """Say in hubctl.toml that this project needs a model, and lock exactly which file that is.

    A model id follows the newest version when the lock is upgraded; MODEL@VERSION stays where it is.

    Example: hubctl add 4201 4100@41001
    """
    from dataclasses import replace

    from hubctl import lockfile
    from hubctl.errors import UsageError
    from hubctl.hubs.redact import without_key

    if name and len(refs) > 1:
        raise UsageError("--name goes with one REF")
    root = project or lockfile.find(Path.cwd()) or Path.cwd()
    before = lockfile.read_lock(root / lockfile.LOCK)
    taken = {entry.name for entry in before}
    added = []
    with _app.open_registry() as registry, _app.open_hub() as hub:
        for ref in map(without_key, refs):
            need = lockfile.Need(name or "?", ref, fp, size, format, file)
            with _progress.busy(f"asking about {ref}"):
                entry, plan = lockfile.resolve(need, hub, registry, _app.settings())
            chosen = name or _free(lockfile.slug(Path(plan.file.name).stem), taken, entry, before)
            taken.add(chosen)
            added.append((replace(need, name=chosen), replace(entry, name=chosen)))
    for need, _ in added:
        lockfile.add_need(root, need)
    names = {entry.name for _, entry in added}
    entries = [*(e for e in before if e.name not in names), *(entry for _, entry in added)]
    lockfile.write_lock(root / lockfile.LOCK, entries)
    if _flags.CURRENT.json:
        _out.document("add", {"project": str(root), "added": [dict(entry.__dict__) for _, entry in added]})
        return
    for _, entry in added:
        _out.say(f"+ {entry.name}: {entry.model} · {entry.version}, {entry.file} ({_out.size(entry.size)})")
    _out.say(f"in {root / lockfile.PROJECT}; `hubctl sync` installs it")


def _free(stem: str, taken: set[str], entry: Locked, before: tuple[Locked, ...]) -> str:
    """A name for the need: the file's, numbered when another model has it."""
    same = next((e.name for e in before if (e.source, e.model_id) == (entry.source, entry.model_id)), None)
    if same is not None:
        return same
    return stem if stem not in taken else f"{stem}-{entry.model_id}"

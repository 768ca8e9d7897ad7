"""hubctl lock: write down exactly which files the project's needs are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import DryRun, ProjectDir


def lock(
    upgrade: Annotated[
        list[str] | None, typer.Option("--upgrade", "-U", metavar="NAME|all", help="Ask the hub again for these")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the lock answers hubctl.toml")] = False,
    dry_run: DryRun = False,
    project: ProjectDir = None,
) -> None:
    """Write hubctl.lock: version, file, SHA256, size, licence and AIR of everything hubctl.toml needs.

    What is locked stays as it is; --upgrade takes what the hub has now.

    Example: hubctl lock --upgrade all
    """
    from hubctl import lockfile
    from hubctl.lockfile import LockOutdated

    root = _app.project(project)
    current = lockfile.load(root)
    stale = current.outdated()
    if check:
        if stale:
            raise LockOutdated(f"{lockfile.LOCK} does not answer {', '.join(stale)}")
        if _flags.CURRENT.json:
            _out.document("lock", {"project": str(root), "changed": [], "entries": len(current.locked)})
        else:
            _out.say(f"{lockfile.LOCK} answers {lockfile.PROJECT}")
        return
    wanted = None if upgrade is None else [name for name in upgrade if name != "all"]
    entries = current.locked
    if stale or upgrade is not None:
        with _app.open_registry() as registry, _app.open_hub() as hub, _progress.busy("asking the hub"):
            entries = lockfile.lock(current, hub, registry, _app.settings(), upgrade=wanted)
    before = {entry.name: entry for entry in current.locked}
    changed = [entry for entry in entries if before.get(entry.name) != entry]
    dropped = sorted(before.keys() - {entry.name for entry in entries})
    if not dry_run and (changed or dropped or not (root / lockfile.LOCK).exists()):
        lockfile.write_lock(root / lockfile.LOCK, entries)
    if _flags.CURRENT.json:
        data = [dict(entry.__dict__) for entry in changed]
        _out.document("lock", {"project": str(root), "changed": data, "dropped": dropped, "entries": len(entries)})
        return
    for entry in changed:
        old = before.get(entry.name)
        was = f"  (was {old.version}, {old.sha256[:10]})" if old else ""
        _out.say(f"{'~' if old else '+'} {entry.name}: {entry.model} · {entry.version}, {entry.sha256[:10]}{was}")
    for name in dropped:
        _out.say(f"- {name}")
    if not changed and not dropped:
        _out.say(f"{_out.plural(len(entries), 'entry', 'entries')} locked, nothing to change")
    elif dry_run:
        _out.say("nothing was written (--dry-run)")
    _out.line(str(Path(root) / lockfile.LOCK))

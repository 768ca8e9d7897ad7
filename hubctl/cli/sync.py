"""hubctl sync: install what the project's lock names, and show it in the project's UI folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import DryRun, ProgressKind, ProjectDir

if TYPE_CHECKING:
    from pathlib import Path

    from hubctl.lockfile import Project, Step
    from registry import Registry


def sync(
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Exactly the lock: refuse when hubctl.toml says something else")
    ] = False,
    dry_run: DryRun = False,
    project: ProjectDir = None,
    progress: ProgressKind = "auto",
) -> None:
    """Make this machine have what hubctl.lock names: the same files, byte for byte, in the project's UI folders.

    Without --frozen a stale lock is brought up to date first.

    Example: hubctl sync --frozen
    """
    from hubctl import lockfile
    from hubctl.lockfile import LockOutdated

    root = _app.project(project)
    current = lockfile.load(root)
    stale = current.outdated()
    with _app.open_registry() as registry:
        if stale:
            if frozen:
                raise LockOutdated(f"--frozen: {lockfile.LOCK} does not answer {', '.join(stale)}")
            with _app.open_hub() as hub, _progress.busy("asking the hub"):
                entries = lockfile.lock(current, hub, registry, _app.settings(), upgrade=None)
            if not dry_run:
                lockfile.write_lock(root / lockfile.LOCK, entries)
            current = lockfile.Project(root, current.needs, current.uis, entries)
        steps = lockfile.plan_sync(current.locked, registry)
        if dry_run:
            _show_plan(current, steps)
            return
        missing = [step for step in steps if not step.here]
        if missing:
            _install(missing, registry, progress)
        registry.add_lock_root(root / lockfile.LOCK)
        trees = _trees(current, registry)
    _finish(current, steps, trees)


def _show_plan(current: Project, steps: tuple[Step, ...]) -> None:
    total = sum(step.download_bytes for step in steps)
    if _flags.CURRENT.json:
        rows = [{**step.entry.__dict__, "here": step.here, "download_bytes": step.download_bytes} for step in steps]
        _out.document("sync-plan", {"project": str(current.root), "items": rows, "download_bytes": total})
        return
    for step in steps:
        state = "here" if step.here else "bytes are here" if step.have else _out.size(step.entry.size)
        _out.say(f"  {step.entry.name}: {step.entry.model} · {step.entry.version}  {state}")
    for layout, folder in current.uis.items():
        _out.say(f"  {layout}: {current.root / folder}")
    _out.say(f"to download: {_out.size(total)}. Nothing was done (--dry-run)")


def _install(missing: list[Step], registry: Registry, progress: str) -> None:
    from hubctl import lockfile
    from hubctl.cli.install import carry_out
    from hubctl.errors import KnownError, PartialBatch

    total = sum(step.download_bytes for step in missing)
    if total:
        for step in missing:
            _out.say(f"  {step.entry.name}: {step.entry.file}  {_out.size(step.entry.size)}")
        if not _out.confirm(f"get {_out.plural(len(missing), 'file')}, {_out.size(total)}?"):
            raise typer.Abort
    plans, problems = [], []
    with _app.open_hub() as hub:
        for step in missing:
            try:
                plans.append(lockfile.plan_install(step.entry, hub, registry, _app.settings()))
            except KnownError as error:
                if len(missing) == 1:
                    raise
                problems.append((step.entry.name, error))
        carry_out(plans, hub, registry, progress, many=len(plans) > 1, silent=True)
    if problems:
        for name, problem in problems:
            _out.warn(f"{name}: {problem.message}" + (f" ({problem.hint})" if problem.hint else ""))
        details = [{"name": name, "error": problem.to_json()} for name, problem in problems]
        raise PartialBatch(f"{len(problems)} of {len(missing)} could not be had", details={"failures": details})


def _trees(current: Project, registry: Registry) -> list[dict[str, Any]]:
    from hubctl import export

    out = []
    for layout, folder in current.uis.items():
        where: Path = current.root / folder
        actions = export.make_tree(current.locked, registry, where, layout)
        out.append({"layout": layout, "folder": str(where), "actions": [action.to_json() for action in actions]})
    return out


def _finish(current: Project, steps: tuple[Step, ...], trees: list[dict[str, Any]]) -> None:
    got = sum(1 for step in steps if not step.here)
    if _flags.CURRENT.json:
        rows = [dict(step.entry.__dict__) for step in steps]
        _out.document("sync", {"project": str(current.root), "items": rows, "installed": got, "trees": trees})
        return
    _out.say(f"✓ {_out.plural(len(steps), 'file')} as locked, {got} new")
    for tree in trees:
        clashes = [action["path"] for action in tree["actions"] if action["what"] == "clash"]
        placed = sum(1 for action in tree["actions"] if action["what"] in {"place", "keep"})
        _out.say(f"  {tree['layout']}: {_out.plural(placed, 'file')} in {tree['folder']}")
        for path in clashes:
            _out.warn(f"{path} is somebody else's file: it was left as it is")

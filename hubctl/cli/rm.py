"""hubctl rm: remove installed models."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import DryRun


def rm(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    dry_run: DryRun = False,
) -> None:
    """Remove installed models; says first what would go and how much that frees.

    Example: hubctl rm 4201 --dry-run
    """
    from hubctl.reproduce import installed_one

    with _app.open_registry() as registry:
        chosen = [installed_one(ref, registry) for ref in refs]
        plan = registry.plan_remove([(item.source, item.version.id) for item in chosen])
        if not _flags.CURRENT.json:
            for item in chosen:
                pinned = "  (pinned)" if item.pinned else ""
                _out.say(f"  {item.model.name} · {item.version.name}  ({item.model.id}@{item.version.id}){pinned}")
            _out.say(f"frees {_out.size(plan.frees)}" + (f"; {plan.note}" if plan.note else ""))
        if dry_run:
            if _flags.CURRENT.json:
                _out.document("rm-plan", {"plan": plan.to_json()})
            return
        if not _out.confirm(f"remove {_out.plural(len(chosen), 'version')}?"):
            raise typer.Abort
        report = registry.remove(plan)
    if _flags.CURRENT.json:
        _out.document("rm", {"removed": [f"{i.model.id}@{i.version.id}" for i in chosen], "freed": report.freed})
    else:
        _out.say(f"✓ removed {_out.plural(len(chosen), 'version')}, {_out.size(report.freed)} freed")

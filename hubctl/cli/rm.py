"""hubctl rm: remove installed models."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import DryRun


def rm(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    now: Annotated[bool, typer.Option("--now", help="Delete at once instead of moving to the trash")] = False,
    dry_run: DryRun = False,
) -> None:
    """Remove installed models; says first what would go and how much that frees.

    They wait in the trash for some days: `hubctl trash restore` brings them back.

    Example: hubctl rm 4201 --dry-run
    """
    from hubctl.reproduce import installed_one

    days = 0 if now else _app.settings().trash_days
    with _app.open_registry() as registry:
        chosen = list({item.ref: item for ref in refs for item in [installed_one(ref, registry)]}.values())
        plan = registry.plan_remove([(item.source, item.version_id) for item in chosen])
        if not _flags.CURRENT.json:
            for item in chosen:
                _out.say(f"  {item.name} · {item.version_name}  ({item.ref}){'  (pinned)' if item.pinned else ''}")
            if plan.links:
                _out.say(f"  and {_out.plural(len(plan.links), 'link')} in UI folders")
            when = f" after {_out.plural(days, 'day')} in the trash" if days else ""
            _out.say(f"frees {_out.size(plan.frees)}{when}" + (f"; {plan.note}" if plan.note else ""))
        if dry_run:
            if _flags.CURRENT.json:
                _out.document("rm-plan", {"plan": plan.to_json(), "trash_days": days})
            return
        count = _out.plural(len(chosen), "version")
        if not _out.confirm(f"move {count} to the trash?" if days else f"delete {count}?"):
            raise typer.Abort
        report = registry.remove(plan, to_trash=days > 0, reason="hubctl rm")
    refs_gone = [item.ref for item in chosen]
    if _flags.CURRENT.json:
        _out.document("rm", {"removed": refs_gone, "freed": report.freed, "in_trash": report.waiting})
    elif days:
        _out.say(f"✓ {count} moved to the trash; {_out.size(report.waiting)} is free when it is emptied")
        _out.say(
            f"  `hubctl trash restore {refs_gone[0]}` brings it back" if len(chosen) == 1 else "  `hubctl trash list`"
        )
    else:
        _out.say(f"✓ removed {count}, {_out.size(report.freed)} freed")

"""hubctl update: get what is newer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import DryRun, ProgressKind
from hubctl.cli.outdated import AnyBase, EarlyAccess

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from hubctl.install import InstallPlan
    from hubctl.update import Update
    from registry import Registry


def update(
    refs: Annotated[list[str] | None, typer.Argument(metavar="[REF...]", help="Only these; default: all")] = None,
    any_base: AnyBase = False,
    early_access: EarlyAccess = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take replaced files too; what was here goes to the trash")
    ] = False,
    dry_run: DryRun = False,
    progress: ProgressKind = "auto",
) -> None:
    """Get newer versions of what is installed. The old ones stay until `hubctl prune --superseded`.

    A file that was silently replaced on the hub is only taken with --replace.

    Example: hubctl update 4201 --dry-run
    """
    from hubctl import install
    from hubctl.update import look

    with _app.open_registry() as registry:
        items = _app.installed(registry, refs)
        with _app.open_hub() as hub:
            with _progress.busy(f"asking about {_out.plural(len(items), 'version')}"):
                found = list(look(items, hub, registry, any_base=any_base, early_access=early_access))
            chosen = [each for each in found if each.verdict == "newer" or (replace and each.verdict == "replaced")]
            plans = [_plan(install, each, hub, registry) for each in chosen]
            for each in found:
                if each.verdict not in {"newer"} and each not in chosen and not _flags.CURRENT.json:
                    _out.warn(f"{each.installed.model.name}: {each.note or each.verdict}")
            if dry_run or not plans:
                _report(found, plans, dry_run=dry_run)
                return
            total = sum(plan.download_bytes for plan in plans)
            for plan in plans:
                _out.say(f"  {plan.model.name} · {plan.version.name}  {_out.size(plan.download_bytes)}")
            if not _out.confirm(f"get {_out.plural(len(plans), 'version')}, {_out.size(total)}?"):
                raise typer.Abort
            from hubctl.cli.install import carry_out

            carry_out(plans, hub, registry, progress, many=len(plans) > 1)


def _plan(install: Any, each: Update, hub: Hub, registry: Registry) -> InstallPlan:
    assert each.model is not None
    assert each.version is not None
    version = each.version.model_copy(update={"model_id": each.model.id})
    plan: InstallPlan = install.plan(
        f"{each.model.id}@{version.id}", hub, registry, _app.settings(), found=install.Found(each.model, version),
        replace_changed=each.verdict == "replaced",
    )  # fmt: skip
    return plan


def _report(found: list[Update], plans: list[InstallPlan], *, dry_run: bool) -> None:
    if _flags.CURRENT.json:
        _out.document(
            "update-plan",
            {"items": [each.to_json() for each in found], "plans": [plan.to_json() for plan in plans]},
        )
        return
    if not plans:
        _out.say("nothing newer")
        return
    for plan in plans:
        _out.say(f"  {plan.model.name} · {plan.version.name}  {_out.size(plan.download_bytes)}")
    if dry_run:
        total = _out.size(sum(plan.download_bytes for plan in plans))
        _out.say(f"to download: {total}. Nothing was done (--dry-run)")

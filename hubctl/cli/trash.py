"""hubctl trash: removed models that can still be brought back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import DryRun

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def trash() -> None:
    """Removed models wait here for some days, so that a mistake costs nothing.

    Example: hubctl trash restore 4201
    """


@app.command("list")
def list_() -> None:
    """What can be brought back, and until when.

    Example: hubctl trash list
    """
    from registry import trash as bin_

    days = _app.settings().trash_days
    with _app.open_registry(read_only=True) as registry:
        registry.refuse_if_unplugged()
        entries = bin_.entries(registry)
        sizes = [_size(registry, entry) for entry in entries]
    if _flags.CURRENT.json:
        rows = [
            {**entry.to_json(), "size": size, "until": entry.expires_at(days).isoformat(timespec="seconds")}
            for entry, size in zip(entries, sizes, strict=True)
        ]
        _out.document("trash", {"items": rows, "count": len(rows)})
    elif _flags.CURRENT.quiet:
        for entry in entries:
            _out.line(entry.ref)
    elif not entries:
        _out.say("the trash is empty")
    else:
        _out.table(
            ["model@version", "name", "version", ("size", "right"), "removed", "left", "because"],
            [
                (
                    entry.ref, entry.name, entry.version_name, _out.size(size),
                    entry.removed_at.astimezone().strftime("%Y-%m-%d %H:%M"), _left(entry, days), entry.reason,
                )
                for entry, size in zip(entries, sizes, strict=True)
            ],
        )  # fmt: skip
        _out.say("\n`hubctl trash restore REF` brings one back, `hubctl trash empty` deletes all")


def _size(registry: Any, entry: Any) -> int:
    total = 0
    for sha in entry.blobs:
        path = registry.blob_path(sha)
        total += path.stat().st_size if path.exists() else 0
    return total


def _left(entry: Any, days: int) -> str:
    left = (entry.expires_at(days) - datetime.now(UTC)).total_seconds()
    if left <= 0:
        return "due: the next prune deletes it"
    return _out.plural(round(left / 86400), "day") if left >= 86400 else f"{max(1, round(left / 3600))} h"


@app.command("restore")
def restore(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF...", help="MODEL@VERSION, an id, or part of the name")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Everything in the trash")] = False,
) -> None:
    """Bring removed models back, as they were.

    Example: hubctl trash restore 4201@42011
    """
    from hubctl.errors import UsageError
    from registry import trash as bin_

    if not refs and not all_:
        raise UsageError("nothing to restore", hint="name one of `hubctl trash list`, or --all")
    with _app.open_registry() as registry:
        chosen = bin_.entries(registry) if all_ else [bin_.find(registry, ref) for ref in refs or ()]
        for entry in chosen:
            bin_.restore(registry, entry)
        found = [registry.get(entry.version_id, source=entry.source) for entry in chosen]
    if _flags.CURRENT.json:
        _out.document("trash-restore", {"restored": [item.ref for item in found if item]})
        return
    for item in found:
        if item is not None:
            _out.say(f"✓ {item.name} · {item.version_name} is back")
            for file in item.files:
                _out.line(str(file.path))
    if not found:
        _out.say("the trash is empty")


@app.command("empty")
def empty(
    refs: Annotated[list[str] | None, typer.Argument(metavar="REF...", help="Only these (default: everything)")] = None,
    dry_run: DryRun = False,
) -> None:
    """Delete what is in the trash, for good.

    Example: hubctl trash empty --dry-run
    """
    from registry import prune
    from registry import trash as bin_

    with _app.open_registry() as registry:
        chosen = [bin_.find(registry, ref) for ref in refs] if refs else bin_.entries(registry)
        frees = prune.trash_frees(registry, chosen)
        if not _flags.CURRENT.json:
            for entry in chosen:
                _out.say(f"  {entry.name} · {entry.version_name}  ({entry.ref})")
            _out.say(f"frees {_out.size(frees)}" if chosen else "the trash is empty")
        if dry_run or not chosen:
            if _flags.CURRENT.json:
                _out.document("trash-empty-plan", {"items": [e.to_json() for e in chosen], "frees": frees})
            return
        if not _out.confirm(f"delete {_out.plural(len(chosen), 'version')} for good?"):
            raise typer.Abort
        freed = bin_.empty(registry, chosen)
    if _flags.CURRENT.json:
        _out.document("trash-empty", {"deleted": [entry.ref for entry in chosen], "freed": freed})
    else:
        _out.say(f"✓ {_out.plural(len(chosen), 'version')} deleted, {_out.size(freed)} freed")

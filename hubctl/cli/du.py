"""hubctl du: where the disk space went."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out

BY = ("type", "base_model", "model", "creator", "ui", "age")


def du(
    by: Annotated[str, typer.Option("--by", metavar="|".join(BY), help="How to group")] = "type",
    top: Annotated[int | None, typer.Option("--top", min=1, help="Only the largest")] = None,
) -> None:
    """Where the disk space went: allocated bytes, each file counted once.

    Example: hubctl du --by model --top 10
    """
    from hubctl.errors import UsageError

    by = by.replace("-", "_")
    if by not in BY:
        raise UsageError(f"cannot group by `{by}`", hint="one of: " + ", ".join(BY))
    with _app.open_registry(read_only=True) as registry:
        usage = sorted(registry.usage(by=by), key=lambda each: -each.on_disk)
        total = registry.total_usage()
    rows = [each.to_json() for each in usage[:top]]
    if _flags.CURRENT.json:
        _out.document("du", {"by": by, "items": rows, "total": total.to_json()})
        return
    if not rows:
        _out.say("nothing is installed here yet")
        return
    largest = max(row["on_disk"] for row in rows) or 1
    _out.table(
        [by.replace("_", " "), ("files", "right"), ("size", "right"), ("on disk", "right"), ("shared", "right"),
         ("freeable", "right"), ""],
        [
            (
                row["key"], row["files"], _out.size(row["logical"]), _out.size(row["on_disk"]),
                _out.size(row["shared"]), _out.size(row["freeable"]), bar(row["on_disk"] / largest),
            )
            for row in rows
        ],
    )  # fmt: skip
    whole: dict[str, Any] = total.to_json()
    _out.say(
        f"\n{_out.size(whole['on_disk'])} on disk, {_out.size(whole['shared'])} shared with other folders, "
        f"{_out.size(whole['freeable'])} would be freed by removing everything"
    )


def bar(share: float, width: int = 24) -> str:
    """`████▌   `: eighths of a cell, so that small shares still show."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")

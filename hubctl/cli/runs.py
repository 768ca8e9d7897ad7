"""hubctl runs: pictures made here."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out


def runs(limit: Annotated[int, typer.Option("--limit", min=1, max=10000, help="How many rows")] = 20) -> None:
    """Pictures made here, newest first, with how close each reproduction came.

    Example: hubctl runs --limit 5
    """
    with _app.open_registry(read_only=True) as registry:
        rows = [run.to_json() for run in registry.runs(limit)]
    if _flags.CURRENT.json:
        _out.document("runs", {"items": rows, "count": len(rows)})
    elif _flags.CURRENT.quiet:
        for row in rows:
            _out.line(str(row["output"]))
    elif not rows:
        _out.say("nothing was made here yet: `hubctl reproduce IMAGE` or `hubctl generate PROMPT`")
    else:
        _out.table(
            ["made", ("image", "right"), ("similarity", "right"), ("seconds", "right"), "device", "file"],
            [
                (
                    (row["created_at"] or "")[:16].replace("T", " "),
                    row["image_id"],
                    f"{row['similarity']:.3f}" if row["similarity"] is not None else None,
                    f"{row['seconds']:.1f}",
                    row["device"],
                    row["output"],
                )
                for row in rows
            ],
            spare=("device", "seconds", "similarity"),
        )

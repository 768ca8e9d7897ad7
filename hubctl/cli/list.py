"""hubctl list: what is installed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import BaseModel, TypeFilter


def list_(
    text: Annotated[list[str] | None, typer.Argument(help="Words to look for")] = None,
    type: TypeFilter = None,  # noqa: A002
    base_model: BaseModel = None,
    sort: Annotated[str, typer.Option("--sort", metavar="name|size|added|used")] = "name",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows")] = None,
) -> None:
    """What is installed, with its trigger words.

    Example: hubctl list --type lora --sort used
    """
    from hubctl.hubs.query import base_model_names, model_types

    with _app.open_registry(read_only=True) as registry:
        found = registry.installed(
            text=" ".join(text or ()) or None,
            types=model_types(type or ()),
            base_models=base_model_names(base_model or ()),
            sort=sort,
            limit=limit,
        )
        rows = [row(item) for item in found]
    if _flags.CURRENT.json:
        _out.document("list", {"items": rows, "count": len(rows)})
    elif _flags.CURRENT.quiet:
        for each in rows:
            _out.line(each["ref"])
    elif not rows:
        _out.say("nothing is installed here yet")
        _out.hint("`hubctl search` finds models, `hubctl install` gets them, `hubctl demo` shows how")
    else:
        _out.table(
            ["model@version", "name", "version", "type", "base model", ("size", "right"), "trigger words", "used"],
            [
                (
                    each["ref"], each["name"], each["version"], each["type"], each["base_model"],
                    _out.size(each["size"]), ", ".join(each["trigger_words"][:3]), (each["last_used_at"] or "")[:10],
                )
                for each in rows
            ],
        )  # fmt: skip
        _out.say(f"\n{_out.plural(len(rows), 'version')}, {_out.size(sum(each['size'] for each in rows))}")


def row(item: Any) -> dict[str, Any]:
    """One installed version as plain data."""
    return {
        "ref": f"{item.model.id}@{item.version.id}",
        "model_id": item.model.id,
        "version_id": item.version.id,
        "name": item.model.name,
        "version": item.version.name,
        "type": item.model.type,
        "base_model": item.version.base_model,
        "creator": item.model.creator.username if item.model.creator else None,
        "size": sum(file.size for file in item.files),
        "trigger_words": list(item.trigger_words),
        "files": [{"name": f.name, "path": str(f.path), "sha256": f.sha256, "size": f.size} for f in item.files],
        "installed_at": item.installed_at,
        "last_used_at": item.last_used_at,
        "pinned": item.pinned,
        "source": item.source,
        "notes": item.notes,
    }

"""hubctl note: what you say of a model wins over what the hub says."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out


def note(
    ref: Annotated[str, typer.Argument(metavar="REF", help="An installed model")],
    text: Annotated[str | None, typer.Argument(help='Your note; "" forgets it')] = None,
    words: Annotated[
        str | None, typer.Option("--words", metavar="A,B", help='Your own trigger words; "" goes back to the hub\'s')
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", min=-10.0, max=10.0, help="The weight you use it at; 0 forgets it")
    ] = None,
) -> None:
    """Your own note, trigger words and preferred weight. They win wherever they are shown or used.

    Example: hubctl note 4201 "best with candles" --words "thnos, purple skin" --weight 0.85
    """
    from hubctl.reproduce import installed_one

    with _app.open_registry() as registry:
        item = installed_one(ref, registry)
        said: dict[str, Any] = {}
        if text is not None:
            said["notes"] = text.strip() or None
        if words is not None:
            said["words"] = [word.strip() for word in words.split(",") if word.strip()] or None
        if weight is not None:
            said["weight"] = weight or None
        if said:
            registry.note(item.version.id, source=item.source, **said)
            item = installed_one(f"{item.model.id}@{item.version.id}", registry)
        data = {
            "ref": f"{item.model.id}@{item.version.id}",
            "name": item.model.name,
            "notes": item.notes,
            "trigger_words": list(item.trigger_words),
            "weight": item.own_weight,
            "tags": list(item.tags),
            "changed": sorted(said),
        }
    if _flags.CURRENT.json:
        _out.document("note", data)
    else:
        _out.facts(
            [
                ("model", f"{data['name']}  ({data['ref']})"),
                ("note", data["notes"]),
                ("trigger words", data["trigger_words"]),
                ("weight", data["weight"]),
                ("tags", data["tags"]),
            ]
        )

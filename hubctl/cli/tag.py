"""hubctl tag: your own tags, favourites among them."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out


def tag(
    ref: Annotated[str, typer.Argument(metavar="REF", help="An installed model")],
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG...]", help="To put on it")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="TAG", help="To take off")] = None,
) -> None:
    """Put your own tags on a model, or take them off; without any, show them.

    `hubctl list --tag favourite` lists what carries one.

    Example: hubctl tag 4201 favourite comics
    """
    from hubctl.errors import UsageError
    from hubctl.reproduce import installed_one

    new = [_clean(word) for word in tags or ()]
    if any(not word for word in new):
        raise UsageError("an empty tag", hint="a tag is a word")
    with _app.open_registry() as registry:
        item = installed_one(ref, registry)
        off = {_clean(word) for word in remove or ()}
        kept = [word for word in dict.fromkeys((*item.tags, *new)) if word not in off]
        if new or off:
            registry.note(item.version.id, source=item.source, tags=kept or None)
        name, key = item.model.name, f"{item.model.id}@{item.version.id}"
    if _flags.CURRENT.json:
        _out.document("tag", {"ref": key, "name": name, "tags": kept})
    elif _flags.CURRENT.quiet or not (new or off):
        for word in kept:
            _out.line(word)
    else:
        _out.say(f"{name}: {', '.join(kept) or 'no tags'}")


def _clean(word: str) -> str:
    return " ".join(word.replace(",", " ").split()).casefold()[:60]

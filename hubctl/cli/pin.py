"""hubctl pin, unpin: what `prune` never takes."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out

Refs = Annotated[list[str], typer.Argument(metavar="REF...", help="Id, MODEL@VERSION, URL, AIR, hash or name")]


def pin(refs: Refs) -> None:
    """Keep installed models: `prune` never takes what is pinned.

    Example: hubctl pin 4201
    """
    _set(refs, pinned=True)


def unpin(refs: Refs) -> None:
    """Let `prune` take them again.

    Example: hubctl unpin 4201
    """
    _set(refs, pinned=False)


def _set(refs: list[str], *, pinned: bool) -> None:
    from hubctl.reproduce import installed_one

    with _app.open_registry() as registry:
        chosen = [installed_one(ref, registry) for ref in refs]
        for item in chosen:
            registry.pin(item.version_id, pinned, source=item.source)
    word = "pinned" if pinned else "unpinned"
    if _flags.CURRENT.json:
        _out.document(word, {"items": [item.ref for item in chosen]})
        return
    for item in chosen:
        _out.say(f"✓ {item.name} · {item.version_name}  ({item.ref}): {word}")

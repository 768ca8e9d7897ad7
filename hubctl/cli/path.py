"""hubctl path: where an installed file is."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out


def path(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    all_: Annotated[bool, typer.Option("--all", "-a", help="Every file of the version, one a line")] = False,
) -> None:
    """Print where an installed file is, with a name a loader understands.

    Example: hubctl path 4201 --all
    """
    from hubctl.reproduce import installed_one

    with _app.open_registry() as registry:
        found = installed_one(ref, registry)
        registry.touch(found.version_id, source=found.source)
    paths = [str(file.path) for file in found.files]
    if _flags.CURRENT.json:
        _out.document("path", {"paths": paths})
        return
    for each in paths if all_ else paths[:1]:
        _out.line(each)

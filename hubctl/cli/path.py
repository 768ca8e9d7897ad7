"""hubctl path: where an installed file is."""

from __future__ import annotations

from contextlib import suppress
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
    from hubctl.errors import Busy, NoPermission
    from hubctl.reproduce import installed_one

    with _app.open_registry(read_only=True) as registry:
        found = installed_one(ref, registry)
    with suppress(NoPermission, Busy), _app.open_registry() as registry:  # a library that may only be read is no worse
        registry.touch(found.version_id, source=found.source)
    paths = [str(file.path) for file in found.files]
    if _flags.CURRENT.json:
        _out.document("path", {"paths": paths})
        return
    for each in paths if all_ else paths[:1]:
        _out.line(each)

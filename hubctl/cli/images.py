"""hubctl images: example images of a model and how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry import Registry, wire


def images(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many rows")] = 20,
    nsfw: Annotated[bool | None, typer.Option("--nsfw/--sfw", help="Also what is not safe for work")] = None,
    local: Annotated[bool, typer.Option("--local", "-l", help="Only what is recorded here")] = False,
) -> None:
    """Example images of a model: ids to `reproduce`, settings, and how many of their resources are here.

    Example: hubctl images 4201
    """
    from hubctl import install
    from hubctl.errors import NotFound

    settings = _app.settings()
    with _app.open_registry(read_only=True) as registry:
        if local or settings.offline:
            here = registry.find(ref)
            if not here:
                raise NotFound(f"`{ref}` is not installed", hint="leave out --local to ask the hub")
            rows = _rows(registry.images(here[0].version.id, source=here[0].source), registry, limit)
        else:
            with _app.open_hub() as hub:
                found = install.resolve(ref, hub)
                allowed = settings.nsfw if nsfw is None else nsfw
                given = hub.images(model_version_id=found.version.id, limit=limit, nsfw=allowed)
                rows = _rows(given, registry, limit)
                rows = rows or _rows(found.version.images, registry, limit)
    _print(rows)


def _rows(given: Iterable[wire.Image], registry: Registry, limit: int) -> list[dict[str, Any]]:
    from itertools import islice

    return [_row(image, registry) for image in islice(given, limit)]


def _row(image: wire.Image, registry: Registry) -> dict[str, Any]:
    from hubctl import infotext
    from hubctl.errors import NoParameters
    from hubctl.reproduce import NEEDED

    try:
        parameters = infotext.from_meta(image.meta) if image.meta else None
    except NoParameters:
        parameters = None
    needed = [r for r in parameters.resources if r.kind in NEEDED] if parameters else []
    here = [r for r in needed if registry.locate(r.kind, hash=r.hash, version_id=r.version_id, name=r.name)]
    return {
        "id": image.image_id,
        "width": image.width,
        "height": image.height,
        "username": image.username,
        "url": image.url,
        "parameters": parameters.to_json() if parameters else None,
        "resources": len(needed),
        "resources_here": len(here),
    }


def _print(rows: list[dict[str, Any]]) -> None:
    if _flags.CURRENT.json:
        _out.document("images", {"items": rows, "count": len(rows)})
    elif _flags.CURRENT.quiet:
        for row in rows:
            _out.line(str(row["id"]))
    elif not rows:
        _out.say("no example images")
    else:
        _out.table(
            [("id", "right"), ("size", "right"), "sampler", ("steps", "right"), ("CFG", "right"), ("seed", "right"),
             "uses", "prompt"],
            [_cells(row) for row in rows],
        )  # fmt: skip
        known = [row for row in rows if row["parameters"]]
        if known:
            _out.say(f"\nReplay one with `hubctl reproduce {known[0]['id']}`")


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    from hubctl.parameters import sampler_label, schedule_label

    p = row["parameters"]
    size = f"{row['width']}×{row['height']}" if row["width"] else None
    if p is None:
        return (row["id"], size, "not said", None, None, None, None, "")
    sampler = sampler_label(p["sampler"]) if p["sampler"] else p["sampler_label"]
    schedule = f" {schedule_label(p['schedule'])}" if p["schedule"] else ""
    prompt = " ".join(p["prompt"].split())
    return (
        row["id"],
        size,
        f"{sampler or '–'}{schedule}",
        p["steps"],
        p["cfg_scale"],
        p["seed"],
        f"{row['resources_here']} of {row['resources']} here",
        prompt if len(prompt) <= 60 else prompt[:59] + "…",
    )

"""hubctl images: example images of a model and how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry import Installed, Registry, wire


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
    from hubctl.errors import HubError, NotFound

    settings = _app.settings()
    with _app.open_registry(read_only=True) as registry:
        if local or settings.offline:
            rows = _recorded(_app.surely_here(registry, ref), registry, limit)
        else:
            try:
                with _app.open_hub() as hub:
                    found = install.resolve(ref, hub)
                    allowed = settings.nsfw if nsfw is None else nsfw
                    given = hub.images(model_version_id=found.version.id, limit=limit, nsfw=allowed)
                    rows = _rows(given, registry, limit)
                    rows = rows or _rows(found.version.images, registry, limit)
            except (HubError, NotFound) as error:  # no answer, or the page is gone
                here = _app.here(registry, ref)
                if here is None:
                    raise
                _out.warn(f"{error.message}: showing what was recorded when it was installed")
                rows = _recorded(here, registry, limit)
    _print(rows)


def _recorded(item: Installed, registry: Registry, limit: int) -> list[dict[str, Any]]:
    return _rows(registry.images(item.version_id, source=item.source), registry, limit)


def _rows(given: Iterable[wire.Image], registry: Registry, limit: int) -> list[dict[str, Any]]:
    from itertools import islice

    return [_row(image, registry) for image in islice(given, limit)]


def _row(image: wire.Image, registry: Registry) -> dict[str, Any]:
    from hubctl import infotext
    from hubctl.errors import NoParameters
    from hubctl.recommend import reactions
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
        "reactions": reactions(image.stats),
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
        _table(rows)
        if _flags.CURRENT.verbose:
            for row in rows:
                _details(row)
        known = [row for row in rows if row["parameters"]]
        if known:
            _out.say(f"\nReplay one with `hubctl reproduce {known[0]['id']}`")
        if len(known) < len(rows):
            _out.say(f"{len(rows) - len(known)} of {len(rows)} do not say how they were made")


def _table(rows: list[dict[str, Any]]) -> None:
    """One row an image; the prompt where the terminal has room for it."""
    room = _page.columns() - 86
    _page.table(
        [("id", "right"), "size", "sampler", ("steps", "right"), ("CFG", "right"), ("seed", "right"),
         ("liked", "right"), "files", "prompt"],
        [(*_cells(row), _short(row, room) if room >= 20 else "") for row in rows],
    )  # fmt: skip


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    from hubctl.parameters import sampler_label, schedule_label

    p = row["parameters"]
    size = f"{row['width']}×{row['height']}" if row["width"] else ""
    if p is None:
        return (row["id"], size, "not said", None, None, None, row["reactions"] or None, "")
    sampler = sampler_label(p["sampler"]) if p["sampler"] else p["sampler_label"]
    schedule = f" {schedule_label(p['schedule'])}" if p["schedule"] else ""
    cfg = f"{p['cfg_scale']:g}" if isinstance(p["cfg_scale"], int | float) else None
    needed = f"{row['resources_here']} of {row['resources']} here" if row["resources"] else ""
    return (row["id"], size, f"{sampler or ''}{schedule}", p["steps"], cfg, p["seed"], row["reactions"] or None, needed)


def _short(row: dict[str, Any], room: int) -> str:
    prompt = " ".join(row["parameters"]["prompt"].split()) if row["parameters"] else ""
    return prompt if len(prompt) <= room else prompt[: room - 1] + "…"


def _details(row: dict[str, Any]) -> None:
    """One image in full: what was asked for, with what."""
    p = row["parameters"]
    _page.section(f"image {row['id']}" + (f" by {row['username']}" if row["username"] else ""))
    pairs = [("url", row["url"] or "")]
    if p is not None:
        made = p["generator"]["name"] or ""
        files = [f"{r['name'] or r['hash'] or r['version_id']}{_at(r['weight'])}" for r in p["resources"]]
        pairs += [
            ("prompt", " ".join(p["prompt"].split())),
            ("negative prompt", " ".join(p["negative_prompt"].split())),
            ("clip skip", str(p["clip_skip"] or "")),
            ("made by", made),
            ("files", ", ".join(files)),
        ]
    _page.pairs(pairs)


def _at(weight: float | None) -> str:
    return "" if weight is None else f" at {weight:g}"

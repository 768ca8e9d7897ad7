"""hubctl search: find models on a hub, or here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import BaseModel, TypeFilter

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from registry import Registry, wire


def search(
    text: Annotated[list[str] | None, typer.Argument(help="Words to look for")] = None,
    type: TypeFilter = None,  # noqa: A002
    base_model: BaseModel = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only models with this tag")] = None,
    creator: Annotated[str | None, typer.Option("--creator", help="Only models of this user")] = None,
    sort: Annotated[str | None, typer.Option("--sort", help='"Most Downloaded", Newest, …')] = None,
    period: Annotated[str | None, typer.Option("--period", help="Day, Week, Month, Year, AllTime")] = None,
    nsfw: Annotated[bool | None, typer.Option("--nsfw/--sfw", help="Also what is not safe for work")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10000, help="How many rows")] = 20,
    local: Annotated[bool, typer.Option("--local", "-l", help="Search what is installed here")] = False,
) -> None:
    """Find models on a hub, or here with --local.

    Example: hubctl search --type lora --base-model "SD 1.5" thanos
    """
    from hubctl.hubs.query import SearchQuery, base_model_names, model_types, period_name, sort_name

    settings = _app.settings()
    query = SearchQuery(
        text=" ".join(text or ()) or None,
        types=model_types(type or ()),
        base_models=base_model_names(base_model or ()),
        tag=tag,
        creator=creator,
        sort=sort_name(sort) if sort else None,
        period=period_name(period) if period else None,
        nsfw=settings.nsfw if nsfw is None else nsfw,
        limit=limit,
    )
    if local or settings.offline:
        with _app.open_registry(read_only=True) as registry:
            registry.refuse_if_unplugged()
            rows = [_local_row(item) for item in registry.search(query)]
    else:
        rows = _hub_rows(query)
    _print(rows, query)


def _hub_rows(query: Any) -> list[dict[str, Any]]:
    with _app.open_registry(read_only=True) as registry, _app.open_hub() as hub:
        models: Iterable[wire.Model] = hub.search(query)
        return [_hub_row(model, _here(model, hub, registry)) for model in models]


def _here(model: wire.Model, hub: Hub, registry: Registry) -> set[int]:
    from hubctl.hubs import source_of

    if not model.model_versions:
        return set()
    return registry.installed_version_ids(model.id, source=source_of(model.model_versions[0], hub))


def _hub_row(model: wire.Model, installed: set[int]) -> dict[str, Any]:
    version = model.model_versions[0] if model.model_versions else None
    main = (
        next((f for f in version.files if f.primary), version.files[0] if version.files else None) if version else None
    )
    return {
        "id": model.id,
        "name": model.name,
        "type": model.type,
        "base_model": version.base_model if version else None,
        "creator": model.creator.username if model.creator else None,
        "downloads": model.stats.download_count if model.stats else None,
        "size": main.size_bytes if main else None,
        "trigger_words": _words(version),
        "version_id": version.id if version else None,
        "version": version.name if version else None,
        "versions": len(model.model_versions),
        "installed": sorted(installed),
        "mode": model.mode,
        "tags": model.tag_names,
    }


def _words(version: wire.ModelVersion | None) -> list[str]:
    from hubctl import trigger

    return [word.text for word in trigger.words(version.trained_words)] if version else []


def _local_row(item: Any) -> dict[str, Any]:
    return {
        "id": item.model_id,
        "name": item.name,
        "type": item.type,
        "base_model": item.base_model,
        "creator": item.creator,
        "downloads": item.summary.get("downloads"),
        "size": item.size,
        "trigger_words": list(item.trigger_words),
        "version_id": item.version_id,
        "version": item.version_name,
        "versions": 1,
        "installed": [item.version_id],
        "mode": item.summary.get("mode"),
        "tags": list(item.hub_tags),
    }


def _print(rows: list[dict[str, Any]], query: Any) -> None:
    if _flags.CURRENT.json:
        _out.document("search", {"items": rows, "count": len(rows)})
    elif _flags.CURRENT.quiet:
        for row in rows:
            _out.line(str(row["id"]))
    elif not rows:
        _out.say("nothing found")
        if query.types or query.base_models:
            _out.hint("try without --type or --base-model, or with fewer words")
    else:
        _out.table(
            [("id", "right"), "name", "type", "base model", "creator", ("downloads", "right"), ("size", "right"),
             "trigger words", "here"],
            [
                (
                    row["id"], row["name"], row["type"], row["base_model"], row["creator"],
                    _out.number(row["downloads"]), _out.size(row["size"]), ", ".join(row["trigger_words"][:3]),
                    "✓" if row["installed"] else (row["mode"] or "").lower(),
                )
                for row in rows
            ],
            spare=("creator", "downloads", "base model", "size", "trigger words"),
        )  # fmt: skip
        _out.say(f"\n{_out.plural(len(rows), 'model')}. Install one with `hubctl install {rows[0]['id']}`,")
        _out.say(f"look closer with `hubctl show {rows[0]['id']}`")

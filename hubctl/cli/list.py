"""hubctl list: what is installed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out
from hubctl.cli._options import BaseModel, TypeFilter

PAGE = 100  # rows of a table that a person can still read


def list_(
    text: Annotated[list[str] | None, typer.Argument(help="Words to look for")] = None,
    type: TypeFilter = None,  # noqa: A002
    base_model: BaseModel = None,
    tag: Annotated[str | None, typer.Option("--tag", help="With this tag, the hub's or your own")] = None,
    creator: Annotated[str | None, typer.Option("--creator", metavar="NAME", help="Made by")] = None,
    sort: Annotated[str, typer.Option("--sort", metavar="name|size|added|used")] = "name",
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help=f"Rows a page; 0 for all (tables: {PAGE}, -q and --json: all)")
    ] = None,
    page: Annotated[int, typer.Option("--page", min=1, help="Which page")] = 1,
) -> None:
    """What is installed, with its trigger words.

    Example: hubctl list --type lora --sort used
    """
    from hubctl.errors import UsageError
    from hubctl.hubs.query import base_model_names, model_types
    from registry.search import ORDERS, Filter

    if sort not in ORDERS:
        raise UsageError(f"cannot sort by `{sort}`", hint="one of: " + ", ".join(ORDERS))
    as_table = not (_flags.CURRENT.json or _flags.CURRENT.quiet)
    size = (PAGE if as_table and limit is None else limit) or None
    if page > 1 and size is None:
        raise UsageError("--page needs --limit here", hint="-q and --json print everything unless --limit is given")
    wanted = Filter(
        " ".join(text or ()) or None, model_types(type or ()), base_model_names(base_model or ()), tag, creator
    )
    offset = (page - 1) * (size or 0)
    with _app.open_registry(read_only=True) as registry:
        registry.refuse_if_unplugged()
        if _flags.CURRENT.quiet and not _flags.CURRENT.json:
            for ref in registry.refs(wanted, sort=sort, limit=size, offset=offset):
                _out.line(ref)
            return
        total, bytes_ = registry.count(wanted)
        each = registry.each(wanted, sort=sort, limit=size, offset=offset)
        if _flags.CURRENT.json:
            count = max(0, min(size or total, total - offset))
            _out.document_of("list", {"count": count, "total": total, "page": page}, "items", map(row, each))
            return
        found = list(each)
    if not found:
        _nothing(wanted, total, page)
    else:
        _table(found)
        _footer(len(found), total, bytes_, page, size)


def _nothing(wanted: Any, total: int, page: int) -> None:
    if total:
        _out.say(f"there is no page {page}: {_out.plural(total, 'version')} in all")
    elif wanted.is_empty:
        _out.say("nothing is installed here yet")
        _out.hint("`hubctl search` finds models, `hubctl install` gets them, `hubctl demo` shows how")
    else:
        _out.say("nothing installed fits")


def _table(found: list[Any]) -> None:
    _out.table(
        ["model@version", "name", "version", "type", "base model", ("size", _out.NUMBER), "trigger words", "used"],
        [
            (
                item.ref, item.name + (" (pinned)" if item.pinned else ""), item.version_name, item.type,
                item.base_model, _out.size(item.size), ", ".join(item.trigger_words[:3]),
                (item.last_used_at or "")[:10],
            )
            for item in found
        ],
        spare=("used", "version", "base model", "size", "trigger words"),
    )  # fmt: skip


def _footer(shown: int, total: int, bytes_: int, page: int, size: int | None) -> None:
    if shown == total:
        _out.say(f"\n{_out.plural(total, 'version')}, {_out.size(bytes_)}")
        return
    first = (page - 1) * (size or 0) + 1
    _out.say(f"\n{first}–{first + shown - 1} of {_out.plural(total, 'version')}, {_out.size(bytes_)} in all")
    if first + shown - 1 < total:
        _out.say(f"`--page {page + 1}` for the next, `--limit 0` for all")


def row(item: Any) -> dict[str, Any]:
    """One installed version as plain data."""
    return {
        "ref": item.ref,
        "model_id": item.model_id,
        "version_id": item.version_id,
        "name": item.name,
        "version": item.version_name,
        "type": item.type,
        "base_model": item.base_model,
        "creator": item.creator,
        "size": item.size,
        "trigger_words": list(item.trigger_words),
        "files": [{"name": f.name, "path": str(f.path), "sha256": f.sha256, "size": f.size} for f in item.files],
        "installed_at": item.installed_at,
        "last_used_at": item.last_used_at,
        "pinned": item.pinned,
        "source": item.source,
        "notes": item.notes,
        "tags": list(item.tags),
        "rights": item.summary.get("rights"),
    }

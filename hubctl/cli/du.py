"""hubctl du: where the disk space went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress

if TYPE_CHECKING:
    from registry import Registry
    from registry.usage import Library

ROWS = 40  # of a table, unless --top says otherwise
OWN = {"index", "manifests", "folders"}  # what an empty home has, too
RUBBISH = {"trash", "partial downloads", "named by no version"}
BY = ("type", "base_model", "model", "creator", "ui", "age")


def du(
    by: Annotated[str, typer.Option("--by", metavar="|".join(BY), help="How to group")] = "type",
    top: Annotated[int | None, typer.Option("--top", min=1, help="Only the largest groups")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Ask the disk about every file, however many")] = False,
    duplicates: Annotated[
        list[Path] | None,
        typer.Option("--duplicates", metavar="DIR", help="Files below DIR that `adopt` could share (may be repeated)"),
    ] = None,
) -> None:
    """Where the disk space went: allocated bytes, each file counted once.

    freeable: free as soon as the group is removed. linked: free too, but UI folders show it. kept: stays on disk, since
    folders hubctl did not link, or other groups, have the same bytes.

    Example: hubctl du --by model --top 10
    """
    from hubctl.errors import UsageError

    by = by.replace("-", "_")
    if by not in BY:
        raise UsageError(f"cannot group by `{by}`", hint="one of: " + ", ".join(BY))
    with _app.open_registry(read_only=True) as registry:
        registry.refuse_if_unplugged()
        if duplicates:
            _duplicates(registry, duplicates, top)
            return
        as_table = not (_flags.CURRENT.json or _flags.CURRENT.quiet)
        library = registry.library(by=by, top=top or (ROWS if as_table else None), exact=exact)
    rows = [each.to_json() for each in library.groups]
    if _flags.CURRENT.json:
        beside = [each.to_json() for each in library.beside]
        total = library.total.to_json()
        home = {"path": str(registry.home), "on_disk": library.home}
        _out.document(
            "du",
            {
                "by": by,
                "items": rows,
                "groups": library.count,
                "total": total,
                "beside": beside,
                "home": home,
                "copies": library.copies.to_json(),
                "measured": library.measured,
            },
        )
        return
    if _flags.CURRENT.quiet:
        _out.line(str(library.total.on_disk))
        return
    if rows:
        _table(by, rows)
    _summary(library, registry.home, shown=len(rows))


def _table(by: str, rows: list[dict[str, Any]]) -> None:
    largest = max(row["on_disk"] for row in rows) or 1
    right = _out.NUMBER
    _out.table(
        [by.replace("_", " "), ("files", right), ("on disk", right), ("freeable", right), ("linked", right),
         ("kept", right), ""],
        [
            (
                row["key"], row["files"], _out.size(row["on_disk"]), _some(row["freeable"]), _some(row["linked"]),
                _some(row["elsewhere"] + row["with_others"]), bar(row["on_disk"] / largest),
            )
            for row in rows
        ],
        spare=("", "kept", "linked"),
    )  # fmt: skip


def _some(count: int) -> str:
    return _out.size(count) if count else "–"


def _summary(library: Library, home: Path, *, shown: int) -> None:
    total = library.total
    if not total.files and not any(each.kind not in OWN for each in library.beside):
        _out.say("nothing is installed here yet")
        return
    hidden = library.count - shown
    _out.say(
        f"\n{_out.size(total.on_disk)} on disk in {_out.plural(total.files, 'file')}"
        + (f" ({_out.plural(hidden, 'smaller group')} not shown)" if hidden else "")
    )
    if total.freeable:
        _out.say(f"  {_out.size(total.freeable)} is free as soon as it is removed")
    if total.linked:
        _out.say(f"  {_out.size(total.linked)} is shown in UI folders, which lose it when it is removed")
    if total.elsewhere:
        _out.say(f"  {_out.size(total.elsewhere)} stays even then: folders hubctl did not link have the same files")
    if library.beside:
        listed = ", ".join(f"{each.kind} {_out.size(each.on_disk)}" for each in library.beside)
        _out.say(f"beside models: {listed}")
    if library.home is not None:
        _out.say(f"{_out.size(library.home)} in all below {home}, as `du -s` has it")
    if library.copies.on_disk:
        _out.say(
            f"outside: {_out.size(library.copies.on_disk)} in {_out.plural(library.copies.files, 'copy', 'copies')} "
            "in UI folders on volumes that no link reaches, or linked with --kind copy"
        )
    if any(each.kind in RUBBISH for each in library.beside):
        _out.hint("`hubctl prune --dry-run` shows what would go")
    if any(each.kind == "set aside as damaged" for each in library.beside):
        _out.hint("`hubctl prune --damaged` deletes what was set aside as damaged")
    if not library.measured:
        _out.say("figures are from when each file was last changed here or verified; --exact asks the disk now")


def bar(share: float, width: int = 24) -> str:
    """`████▌   `: eighths of a cell, so that small shares still show."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _duplicates(registry: Registry, folders: list[Path], top: int | None) -> None:
    from rich.text import Text

    from hubctl.errors import NotFound
    from hubctl.text import safe
    from registry import duplicates

    for folder in folders:
        if not folder.is_dir():
            raise NotFound(f"`{folder}` is not a folder")
    with _progress.steps("comparing files") as tick:
        found = duplicates.find(registry, folders, on_file=tick)
    wasted = sum(each.wasted for each in found)
    if _flags.CURRENT.json:
        _out.document(
            "duplicates", {"items": [each.to_json() for each in found[:top]], "count": len(found), "wasted": wasted}
        )
        return
    if _flags.CURRENT.quiet:
        for each in found[:top]:
            for path in each.paths:
                _out.line(str(path))
        return
    if not found:
        _out.say("no model file is there twice")
        return
    _out.table(
        ["same bytes as", ("size", "right"), ("could be freed", "right"), "files"],
        [
            (
                f"{each.name}  ({each.ref})" if each.ref else each.name,
                _out.size(each.size), _out.size(each.wasted), Text("\n".join(map(safe, each.paths))),
            )
            for each in found[:top]
        ],
    )  # fmt: skip
    _out.say(f"\n{_out.size(wasted)} is stored more than once")
    names = " ".join(str(folder) for folder in folders)
    _out.hint(f"`hubctl adopt {names}` shares them; it shows first what it would do")

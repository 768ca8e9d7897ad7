"""hubctl adopt: take over what is already on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import DryRun, ProgressKind

if TYPE_CHECKING:
    from hubctl.adopt import Plan, Report
    from hubctl.hubs import Hub
    from registry import Registry

SHOWN = 20  # entries of a list that are printed without -v


def adopt(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="A UI's folder, or any folder or file with models")
    ],
    dry_run: DryRun = False,
    quick: Annotated[bool, typer.Option("--quick", help="Read no large file whole: name what probes can")] = False,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Replace second copies by links, compared first")] = False,
    again: Annotated[bool, typer.Option("--again", help="Read everything anew, whatever was written down")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy files from other volumes into the store")] = False,
    move: Annotated[bool, typer.Option("--move", help="As --copy; the old name then shows the store's file")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="Leave files on other volumes; point there")] = False,
    link: Annotated[bool, typer.Option("--link/--no-link", help="Show what is adopted in every linked UI")] = True,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=16, help="How many files are read at once")
    ] = None,
    progress: ProgressKind = "auto",
) -> None:
    """Take over models that are already on disk: they are linked into the library, not copied or moved.

    Finds out what they are (the hub, sidecars of other tools, their headers), keeps your notes, reports duplicates.
    Stop it with Ctrl-C whenever you like: the same command goes on. A second run looks only at what changed.

    Example: hubctl adopt ~/ComfyUI ~/stable-diffusion-webui --dry-run
    """
    from hubctl import adopt as journey
    from hubctl.errors import UsageError

    if copy + move + reference > 1:
        raise UsageError("--copy, --move and --reference exclude each other", hint="pass one of them")
    elsewhere = "copy" if copy else "move" if move else "reference" if reference else "skip"
    options = journey.Options(quick=quick, dedupe=dedupe, other_volume=elsewhere, threads=threads, kinds=_kinds())
    with _app.open_registry() as registry, _hub() as hub:
        if dry_run:
            with _progress.busy("looking at the folders"):
                plan = journey.plan(folders, registry, hub, again=again, quick=quick, on_event=_say)
            _show_plan(plan)
            return
        with _progress.busy("looking at the folders"):
            plan = journey.survey(folders, registry, again=again)
        if not _flags.CURRENT.json:
            _announce(plan)
        with _bars(plan.bytes_to_read, as_json=progress == "json") as bars:
            report = journey.execute(plan, registry, hub, options=options, on_bytes=bars.on_bytes, on_event=bars.event)
        _show(report, _link(registry, report) if link else [])


def _kinds() -> tuple[str, ...]:
    kind = _app.settings().link_kind
    return ("reflink", "hardlink") if kind == "auto" else (kind,)


@contextmanager
def _hub() -> Iterator[Hub | None]:
    if _app.settings().offline:
        yield None
        return
    with _app.open_hub() as hub:
        yield hub


class _Bars:
    """Bytes and files read so far, on one line."""

    def __init__(self, inner: _progress.Downloads, *, as_json: bool) -> None:
        self._inner, self._as_json = inner, as_json

    def on_bytes(self, done: int, total: int, name: str) -> None:
        self._inner.on_bytes("reading" if not self._as_json else "all", done, total)

    def event(self, kind: str, **facts: Any) -> None:
        if self._as_json:
            self._inner.event(kind, **facts)
        else:
            _say(kind, **facts)


def _say(kind: str, **facts: Any) -> None:
    if kind == "warning":
        _out.warn(facts["message"])
    elif kind == "adopted" and _flags.CURRENT.verbose:
        _out.say(f"  {facts['ref']}  {facts['name']} · {facts['version']}  {facts['path']}")


@contextmanager
def _bars(total: int, *, as_json: bool) -> Iterator[_Bars]:
    with _progress.downloads(as_json=as_json) as inner:
        if total and not as_json:
            inner.on_bytes("reading", 0, total)
        yield _Bars(inner, as_json=as_json)


def _announce(plan: Plan) -> None:
    from registry import layouts

    for root in plan.roots:
        name = plan.uis.get(str(root))
        _out.say(f"{root}" + (f"  ({layouts.layout(name).title})" if name else ""))
    ready = sum(1 + len(item.names) for item in plan.ready)
    likely = sum(1 + len(item.names) for item in plan.likely)
    other = sum(len(item.names) for item in plan.to_read)
    parts = [f"{plan.unchanged} unchanged"] if plan.unchanged else []
    parts += [f"{ready} known without reading"] if ready else []
    parts += [f"{len(plan.to_read)} to read ({_out.size(plan.bytes_to_read)})"] if plan.to_read else []
    parts += [f"{other} other names of those"] if other else []
    parts += [f"{likely} probably copies"] if likely else []
    parts += [f"{plan.ours} links of hubctl's own"] if plan.ours else []
    _out.say(f"{_out.plural(plan.files, 'model file')}: " + (", ".join(parts) or "nothing new"))


def _show_plan(plan: Plan) -> None:
    if _flags.CURRENT.json:
        _out.document("adopt-plan", {"plan": plan.to_json()})
        return
    _announce(plan)
    known = [item for item in plan.items if item.known]
    unknown = [item for item in plan.items if not item.known]
    if plan.items:
        asked = "" if plan.named else " (no hub was asked)"
        _out.say(f"{len(known)} recognised by probes, {len(unknown)} not{asked}; reading them decides")
    if known:
        _out.table(
            ["file", ("size", "right"), "is", "by"],
            [
                (item.path.name, _out.size(item.found.size), _name(item), item.known.by if item.known else "")
                for item in known[: None if _flags.CURRENT.verbose else SHOWN]
            ],
        )
        _more(len(known), "recognised")
    copies = plan.duplicates()
    if copies:
        gain = sum(each.found.size for each in copies)
        _out.say(f"{_out.plural(len(copies), 'duplicate')}, {_out.size(gain)}: --dedupe would share them")
    _skipped(plan.skipped)
    if plan.to_read:
        about = f", about {_seconds(plan.seconds)}" if plan.seconds is not None else ""
        _out.say(f"to read: {_out.size(plan.bytes_to_read)}{about}. Nothing was done (--dry-run)")
    else:
        _out.say("nothing has to be read. Nothing was done (--dry-run)")


def _name(item: Any) -> str:
    known = item.known
    return f"{known.model.name} · {known.version.name}  ({known.model.id}@{known.version.id})"


def _more(count: int, what: str) -> None:
    if count > SHOWN and not _flags.CURRENT.verbose:
        _out.say(f"… and {count - SHOWN} more {what} (-v shows all)")


def _seconds(count: float | None) -> str:
    if count is None:
        return "?"
    if count < 90:
        return f"{max(1, round(count))} s"
    return f"{count / 60:.0f} min" if count < 5400 else f"{count / 3600:.1f} h"


def _skipped(skipped: Any) -> None:
    for each in skipped[: None if _flags.CURRENT.verbose else SHOWN]:
        _out.say(f"  left as it is: {each.path}: {each.why}")
    _more(len(skipped), "left as they are")


def _link(registry: Registry, report: Report) -> list[Any]:
    from hubctl import adopt as journey

    return journey.linked(registry, report.adopted) if report.adopted else []


def _show(report: Report, linked: list[Any]) -> None:
    changes = [action for action in linked if action.changes]
    if _flags.CURRENT.json:
        _out.document("adopt", {**report.to_json(), "links": [action.to_json() for action in changes]})
        return
    if _flags.CURRENT.quiet:
        for entry in report.files:
            _out.line(entry["ref"])
        return
    if report.adopted or report.recognised or report.bytes_read or _flags.CURRENT.verbose:
        _skipped(report.skipped)
    elif report.skipped:
        _out.say(f"  {_out.plural(len(report.skipped), 'file')} left as before (-v says why)")
    parts = [f"{report.known} known to a hub"] if report.known else []
    parts += [f"{report.local} kept as local"] if report.local else []
    parts += [f"{report.renamed} local ones named"] if report.renamed else []
    parts += [f"{report.recognised} recognised, not taken in (--quick)"] if report.recognised else []
    parts += [f"{report.unchanged} unchanged"] if report.unchanged else []
    count = _out.plural(len(report.adopted), "version")
    _out.say(f"✓ {count} adopted" + (f": {', '.join(parts)}" if parts else ""))
    if report.bytes_read:
        _out.say(f"  {_out.size(report.bytes_read)} read, {_seconds(report.seconds)} in all")
    if report.notes:
        _out.say(f"  your own notes, words or weights were taken from sidecars of {report.notes}")
    if report.deduplicated:
        copies = _out.plural(report.deduplicated, "copy", "copies")
        _out.say(f"  {copies} replaced by links, {_out.size(report.gained)} gained")
    if report.duplicates:
        _duplicates(report)
    if changes:
        _out.say(f"  {_out.plural(len(changes), 'change')} in linked UIs (`hubctl link list`)")


def _duplicates(report: Report) -> None:
    many = _out.plural(len(report.duplicates), "duplicate")
    _out.say(f"  {many}, {_out.size(report.to_gain)} to gain with --dedupe:")
    largest = sorted(report.duplicates, key=lambda each: -each.found.size)
    for each in largest[: None if _flags.CURRENT.verbose else 5]:
        _out.say(f"    {each.found.path}  {_out.size(each.found.size)}" + ("" if each.sure else "  (by samples)"))
    if len(report.duplicates) > 5 and not _flags.CURRENT.verbose:
        _out.say(f"    … and {len(report.duplicates) - 5} more (-v shows all)")

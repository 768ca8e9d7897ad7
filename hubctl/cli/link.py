"""hubctl link: show what is installed in the folders of other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import DryRun

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Show installed models in other programs' folders, from one copy.",
    no_args_is_help=True,
)
SHOWN = 20
HEADINGS = {
    "link": "linked", "relink": "linked again", "move": "renamed", "unlink": "taken out", "sidecar": "sidecars written",
    "preview": "previews", "settings": "settings", "present": "there already", "shared": "shared names",
    "clash": "name taken", "yours": "yours, left alone", "blocked": "no free name", "unplaced": "no folder for it",
    "missing": "bytes missing", "no_root": "folder missing", "kept": "edited by hand, kept",
}  # fmt: skip
WORTH_A_LINE = ("clash", "yours", "blocked", "missing", "no_root", "kept")


@app.command("add")
def add(
    ui: Annotated[
        str,
        typer.Argument(
            metavar="UI", help="comfyui, a1111, forge, sdnext, swarmui, fooocus, invokeai or tree (a plain folder)"
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The program's own folder")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it; its kind unless given")] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="auto|reflink|hardlink|symlink|copy", help="How to link")
    ] = None,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="ComfyUI: a block in extra_model_paths.yaml instead of links in its folders")
    ] = False,
    template: Annotated[
        str | None, typer.Option("--template", metavar="TEXT", help='Names, for example "{base_family}/{file_name}"')
    ] = None,
    sidecars: Annotated[
        str | None,
        typer.Option(
            "--sidecars",
            metavar="LIST",
            help="To write beside: civitai,a1111,lora-manager,stability,swarm,preview",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Link everything installed, and from now on everything you install, into a program's folders.

    Example: hubctl link add comfyui ~/ComfyUI --dry-run
    """
    from registry import layouts, links

    _check_kind(kind)
    chosen = kind or _app.settings().link_kind
    wanted = tuple(part.strip() for part in (sidecars or "").split(",") if part.strip())
    new = links.Ui(
        name or ui, ui, folder.expanduser().absolute(), links.YAML if yaml else chosen, template or None, wanted
    )
    if (known := layouts.recognise(new.root) if new.root.is_dir() else None) and known != ui and ui != "tree":
        _out.warn(f"{new.root} looks like {layouts.layout(known).title}, not {layouts.layout(ui).title}")
    with _app.open_registry() as registry, _progress.steps("linking") as tick, _pictures() as picture:
        done = links.add(registry, new, dry_run=dry_run, on_step=tick, picture=picture)
    _show("link-add", done, dry_run=dry_run, ui=new.to_json())


def _check_kind(kind: str | None) -> None:
    from hubctl.errors import UsageError
    from registry.links import KINDS

    if kind is not None and kind not in KINDS:
        raise UsageError(f"`{kind}` is no way to link", hint="one of: " + ", ".join(KINDS))


@contextmanager
def _pictures() -> Iterator[Callable[[str], bytes] | None]:
    """Fetches previews; the hub is opened with the first one."""
    if _app.settings().offline:
        yield None
        return
    opened: list[Any] = []

    def fetch(url: str) -> bytes:
        if not opened:
            opened.append(_app.open_hub())
        data: bytes = opened[0].picture(url)
        return data

    try:
        yield fetch
    finally:
        for hub in opened:
            hub.close()


@app.command("list")
def list_() -> None:
    """Linked programs, how many files each shows and whether all is well.

    Example: hubctl link list
    """
    from registry import links

    with _app.open_registry(read_only=True) as registry:
        rows = [row for each in links.uis(registry) for row in [links.status(registry, each)]]
    if _flags.CURRENT.json:
        _out.document("link-list", {"items": rows})
    elif _flags.CURRENT.quiet:
        for row in rows:
            _out.line(row["name"])
    elif not rows:
        _out.say("no program is linked yet")
        _out.hint("`hubctl link add comfyui ~/ComfyUI` shows everything installed there")
    else:
        _out.table(
            ["name", "program", "folder", "how", ("links", "right"), "state"],
            [(r["name"], r["title"], r["root"], r["how"], r["links"], r["state"]) for r in rows],
        )


@app.command("repair")
def repair(dry_run: DryRun = False) -> None:
    """Make missing and broken links again and take stale ones out; files of your own stay.

    Example: hubctl link repair --dry-run
    """
    from registry import links

    with _app.open_registry() as registry, _progress.steps("linking") as tick, _pictures() as picture:
        done = links.repair(registry, dry_run=dry_run, on_step=tick, picture=picture)
    _show("link-repair", done, dry_run=dry_run)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `hubctl link list` shows it")],
    dry_run: DryRun = False,
) -> None:
    """Take a program's links out again; nothing you put or changed there is touched.

    Example: hubctl link remove comfyui
    """
    from registry import links

    with _app.open_registry() as registry:
        planned = links.remove(registry, name, dry_run=True)
        if dry_run:
            _show("link-remove", planned, dry_run=True)
            return
        count = sum(action.what == "unlink" for action in planned)
        if not _out.confirm(f"take {_out.plural(count, 'link')} out of `{name}`?"):
            raise typer.Abort
        done = links.remove(registry, name)
    _show("link-remove", done, dry_run=False)


def _show(schema: str, actions: Sequence[Any], *, dry_run: bool, **more: Any) -> None:
    if _flags.CURRENT.json:
        found = [action.to_json() for action in actions]
        _out.document(schema, {**more, "dry_run": dry_run, "actions": found})
        return
    if _flags.CURRENT.quiet:
        for action in actions:
            if action.changes:
                _out.line(str(action.path))
        return
    counts = Counter(action.what for action in actions)
    for what, heading in HEADINGS.items():
        if counts[what]:
            kinds = Counter(action.kind for action in actions if action.what == what and action.kind)
            how = f"  ({', '.join(f'{n} {kind}' for kind, n in kinds.most_common())})" if kinds else ""
            _out.say(f"{counts[what]:6d}  {heading}{how}")
    shown = [a for a in actions if a.what in WORTH_A_LINE or (dry_run and a.changes) or _flags.CURRENT.verbose]
    for action in shown[: None if _flags.CURRENT.verbose else SHOWN]:
        _out.say(f"  {HEADINGS[action.what]}: {action.path}" + (f"  ({action.note})" if action.note else ""))
    if len(shown) > SHOWN and not _flags.CURRENT.verbose:
        _out.say(f"  … and {len(shown) - SHOWN} more (-v shows all)")
    copies = sum(action.bytes for action in actions)
    if copies:
        _out.say(f"copies take {_out.size(copies)}")
    if dry_run:
        _out.say("nothing was done (--dry-run)")
    elif not any(action.changes for action in actions):
        _out.say("✓ nothing to do")

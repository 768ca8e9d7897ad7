"""hubctl outdated: which installed models have something newer on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hubctl.cli import _app, _flags, _out, _progress

if TYPE_CHECKING:
    from registry import Registry

AnyBase = Annotated[bool, typer.Option("--any-base", help="Also versions for another base model")]
EarlyAccess = Annotated[bool, typer.Option("--early-access", help="Also versions that are still in early access")]


def outdated(
    refs: Annotated[list[str] | None, typer.Argument(metavar="[REF...]", help="Only these; default: all")] = None,
    any_base: AnyBase = False,
    early_access: EarlyAccess = False,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="MODEL[@VERSION]", help="Never offer this one again")
    ] = None,
    unignore: Annotated[
        list[str] | None, typer.Option("--unignore", metavar="MODEL[@VERSION]", help="Offer it again")
    ] = None,
) -> None:
    """Which installed models have a newer version, a replaced file, or no page any more.

    Example: hubctl outdated    or    hubctl outdated --ignore 4201@42012
    """
    from hubctl.update import look

    with _app.open_registry() as registry:
        changed = [_rule(registry, text, True) for text in ignore or ()]
        changed += [_rule(registry, text, False) for text in unignore or ()]
        if changed and not refs:
            if _flags.CURRENT.json:
                _out.document("outdated-rules", {"changed": changed})
            else:
                for each in changed:
                    _out.say(f"{each['ref']}: {'not offered any more' if each['ignored'] else 'offered again'}")
            return
        items = _app.installed(registry, refs)
        with _app.open_hub() as hub, _progress.busy(f"asking about {_out.plural(len(items), 'version')}"):
            found = list(look(items, hub, registry, any_base=any_base, early_access=early_access))
    rows = [each.to_json() for each in found]
    if _flags.CURRENT.json:
        _out.document("outdated", {"items": rows, "count": len(rows), "looked_at": len(items)})
    elif _flags.CURRENT.quiet:
        for row in rows:
            _out.line(row["new_ref"] or row["ref"])
    elif not rows:
        _out.say(f"{_out.plural(len(items), 'version')} looked at: nothing newer")
    else:
        _out.table(
            ["installed", "name", "version", "what", "new", "new version", "base model", "note"],
            [
                (
                    row["ref"], row["name"], row["version"], row["verdict"], row["new_ref"], row["new_version"],
                    row["new_base_model"], row["note"],
                )
                for row in rows
            ],
        )  # fmt: skip
        if any(row["verdict"] == "newer" for row in rows):
            _out.say("\n`hubctl update` gets what is newer; the old versions stay until `hubctl prune --superseded`")


def _rule(registry: Registry, text: str, ignored: bool) -> dict[str, object]:
    from hubctl.errors import NotFound, UsageError

    model, _, version = text.partition("@")
    if not model.isdigit() or (version and not version.isdigit()):
        raise UsageError(f"`{text}` is no MODEL or MODEL@VERSION", hint="for example --ignore 4201@42012")
    mine = registry.find(f"model:{model}")
    if not mine:
        raise NotFound(f"model {model} is not installed", hint="`hubctl list` shows what is")
    for item in mine:
        registry.ignore(int(model), int(version or 0), source=item.source, ignored=ignored)
    return {"ref": text, "ignored": ignored}

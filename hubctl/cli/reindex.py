"""hubctl reindex: rebuild the index from the manifests."""

from __future__ import annotations

from hubctl.cli import _app, _flags, _out, _progress


def reindex() -> None:
    """Rebuild the index from the manifests; notes, pins, links and runs come back from their journal.

    Example: hubctl reindex
    """
    from registry import Registry

    with _progress.busy("reading manifests"):
        count, damaged = Registry.rebuild(_app.settings().home)
    if damaged is not None:
        _out.say(f"the index was damaged: it is now `{damaged}`")
    if _flags.CURRENT.json:
        _out.document("reindex", {"versions": count, "damaged": str(damaged) if damaged else None})
    else:
        _out.say(f"✓ {_out.plural(count, 'version')} indexed")

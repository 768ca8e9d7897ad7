"""hubctl reindex: rebuild the index from the manifests."""

from __future__ import annotations

from hubctl.cli import _app, _flags, _out, _progress


def reindex() -> None:
    """Rebuild the index from the manifests alone; runs, links and your own notes are kept.

    Example: hubctl reindex
    """
    with _app.open_registry() as registry, _progress.busy("reading manifests"):
        count = registry.reindex()
    if _flags.CURRENT.json:
        _out.document("reindex", {"versions": count})
    else:
        _out.say(f"✓ {_out.plural(count, 'version')} indexed")

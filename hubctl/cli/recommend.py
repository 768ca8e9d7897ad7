"""hubctl recommend: recommended settings, each with its source."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out


def recommend(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
) -> None:
    """Recommended settings of a model: value, spread, source and how sure we are.

    Example: hubctl recommend 4201
    """
    from hubctl import install
    from hubctl.cli.show import recommended

    settings = _app.settings()
    with _app.open_registry(read_only=True) as registry:
        here = registry.find(ref)
        if here:
            model, version, installed = here[0].model, here[0].version, here[0]
        elif settings.offline:
            raise install.offline_refusal(ref)
        else:
            with _app.open_hub() as hub:
                found = install.resolve(ref, hub)
                version = found.version.model_copy(update={"images": install.example_images(hub, found.version)})
            model, installed = found.model, None
        settled = recommended(model, version, installed)
    if _flags.CURRENT.json:
        _out.document("recommend", {"model_id": model.id, "version_id": version.id, "settings": settled})
        return
    _out.say(f"{model.name} · {version.name}")
    rows = [_cells(name, entry) for name, entry in settled.items() if isinstance(entry, dict) and "value" in entry]
    if not rows:
        _out.say("nobody says: neither its creator nor its example images")
        return
    _out.table(["setting", "value", "spread", "from", ("n", "right"), ("confidence", "right")], rows)


def _cells(name: str, entry: dict[str, Any]) -> tuple[Any, ...]:
    low, high = entry.get("low"), entry.get("high")
    spread = f"{low}–{high}" if low is not None and high is not None and low != high else ""
    value = entry["value"]
    shown = "×".join(map(str, value)) if name == "size" and isinstance(value, list | tuple) else value
    confidence = entry.get("confidence")
    return (
        name.replace("_", " "),
        shown,
        spread,
        entry.get("source"),
        entry.get("n"),
        f"{confidence:.0%}" if isinstance(confidence, int | float) else confidence,
    )

"""hubctl config: show settings and where each value came from; change them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Settings: flags win over environment, environment over the file, the file over defaults.",
    invoke_without_command=True,
)


@app.callback()
def config(context: typer.Context) -> None:
    """Show settings when no subcommand is given."""
    if context.invoked_subcommand is None:
        show()


@app.command("show")
def show() -> None:
    """Every setting, its value and where it came from.

    Example: hubctl config show
    """
    from hubctl.config import SETTABLE

    settings = _app.settings()
    rows = [(name, getattr(settings, name), settings.origins.get(name, "default")) for name in SETTABLE]
    if _flags.CURRENT.json:
        values = {name: {"value": value, "from": origin} for name, value, origin in rows}
        _out.document("config", {"path": settings.config_path, "settings": values, "hubs": dict(settings.hubs)})
        return
    _out.table(["setting", "value", "from"], [(name, _shown(value), origin) for name, value, origin in rows])
    _out.line()
    _out.table(["hub", "url"], sorted(settings.hubs.items()))
    _out.say(f"\nfile: {settings.config_path}")
    for name in settings.unknown:
        _out.warn(f"`{name}` in that file is no setting of this version")


def _shown(value: object) -> str:
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(help="A setting, or hubs.NAME")],
    value: Annotated[str, typer.Argument(help="Its value; `none` clears it")],
) -> None:
    """Write one setting to the file.

    Example: hubctl config set prefer_fp fp32
    """
    from hubctl.config import default_config_path, save_value

    path = default_config_path(os.environ)  # not of the settings: one that does not fit must be mended with this
    save_value(path, name, value)
    if _flags.CURRENT.json:
        _out.document("config-set", {"path": path, "name": name, "value": value})
    else:
        cleared = value.strip().lower() == "none"
        _out.say(f"{name} cleared in {path}" if cleared else f"{name} = {value} in {path}")


@app.command("path")
def path() -> None:
    """Print where the file is.

    Example: $EDITOR "$(hubctl config path)"
    """
    from hubctl.config import default_config_path

    where = default_config_path(os.environ)
    if _flags.CURRENT.json:
        _out.document("config-path", {"path": where})
    else:
        _out.line(str(where))

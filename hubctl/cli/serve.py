"""hubctl serve: this library as a hub."""

from __future__ import annotations

from typing import Annotated

import typer

from hubctl.cli import _app, _out


def serve(
    host: Annotated[str, typer.Option("--host", help="Other machines need 0.0.0.0 and --token")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8765,
    token: Annotated[
        str | None, typer.Option("--token", envvar="HUBCTL_SERVE_TOKEN", help="Clients must send this key")
    ] = None,
) -> None:
    """Offer this library as a Civitai-compatible hub, read only, until Ctrl-C.

    Example: hubctl serve    and elsewhere    hubctl install --hub http://nas:8765 4201
    """
    from registry.http import RegistryCatalog, create_app
    from registry.http import serve as serve_forever

    with _app.open_registry(read_only=True) as registry:
        app = create_app(RegistryCatalog(registry), token=token)
        _out.say(f"serving {registry.home} at http://{host}:{port} (Ctrl-C stops)")
        serve_forever(app, host=host, port=port, token=token)

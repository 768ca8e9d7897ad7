"""hubctl serve: this library as a hub."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out, _progress


def serve(
    host: Annotated[str, typer.Option("--host", help="Other machines need 0.0.0.0 and --token")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 = any free one")] = 8765,
    token: Annotated[
        str | None, typer.Option("--token", envvar="HUBCTL_SERVE_TOKEN", help="Clients must send this key")
    ] = None,
) -> None:
    """Offer this library as a Civitai-compatible hub, read only, until Ctrl-C.

    Example: hubctl serve    and elsewhere    hubctl install --hub http://nas:8765 4201
    """
    from hubctl.errors import NoPermission
    from registry.http import RegistryCatalog, create_app
    from registry.http import serve as serve_forever
    from registry.http.server import check

    check(host, token)
    with contextlib.suppress(NoPermission), _app.open_registry():
        """The index is made, or brought up to date; a library that may only be read is served as it is."""
    with _app.open_registry(read_only=True) as registry:
        catalog = RegistryCatalog(registry)
        with _progress.busy("reading the library"):
            cards = catalog.cards().values()
        serve_forever(
            create_app(catalog, token=token),
            host=host,
            port=port,
            token=token,
            on_ready=lambda url: _announce(url, str(registry.home), len(cards), with_token=token is not None),
        )
    _out.say("stopped")


def _announce(url: str, home: str, models: int, *, with_token: bool) -> None:
    """Where it is, and what to type on the other side."""
    from registry.http.server import reachable

    address = reachable(url)
    if _flags.CURRENT.json:
        _out.document("serve", {"url": address, "home": home, "models": models, "token": with_token})
    elif _flags.CURRENT.quiet:
        _out.line(address)
    else:
        _out.say(f"serving {_out.plural(models, 'model')} of {home} at {address}")
        if with_token:
            where = "in another terminal" if _is_here(url) else "on the other machine"
            _out.say(f"{where}:")
            _out.say(f"  hubctl config set hubs.nas {address}")
            _out.say("  hubctl login nas            (asks for the token)")
            _out.say("  hubctl search --hub nas")
        else:
            _out.say("in another terminal:")
            _out.say(f"  hubctl search --hub {address}")
        if not models:
            _out.hint("nothing is installed yet; what you install shows up without a restart")
        _out.say("Ctrl-C stops")
    sys.stdout.flush()


def _is_here(url: str) -> bool:
    from urllib.parse import urlsplit

    from registry.http.server import is_loopback

    return is_loopback(urlsplit(url).hostname or "")

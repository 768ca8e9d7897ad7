"""hubctl login, logout, whoami: the API key of a hub."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out

# not called `hub`: that name is the shared --hub option's, and an empty argument would undo it
HubName = Annotated[str | None, typer.Argument(metavar="HUB", help="A hub's name or URL; default: the hub of --hub")]


def _hub(name: str | None) -> tuple[str, str]:
    settings = _app.settings()
    _flags.CURRENT.hub = name or _flags.CURRENT.hub  # what a hint names, too
    chosen = name or settings.hub_names[0]
    return chosen, settings.hub_url(chosen)


def login(which: HubName = None) -> None:
    """Store an API key for a hub.

    The key is read from the terminal without echo, or from stdin when it is a pipe. It is checked with the hub first.

    Example: hubctl login    or    hubctl login nas < key.txt
    """
    from hubctl import install, tokens
    from hubctl.errors import UsageError

    name, url = _hub(which)
    if sys.stdin.isatty():
        if not _flags.interactive():
            raise UsageError("nobody to ask for the key", hint="pipe it in: `hubctl login < key.txt`")
        from getpass import getpass

        key = getpass(f"API key for {name}: ", stream=sys.stderr).strip()
    else:
        key = sys.stdin.readline(4096).strip()
    if not key or len(key) > 1024 or not key.isprintable() or " " in key:
        raise UsageError("that is no API key", hint="it is one line of letters and digits from your account page")
    account = None
    if not _app.settings().offline:
        account = install.open_hub(_app.settings(), name=name, token=key).me()
    where = tokens.store(url, key, _app.settings().config_path)
    username = (account or {}).get("username")
    if _flags.CURRENT.json:
        _out.document("login", {"hub": name, "url": url, "stored": where, "username": username})
    else:
        _out.say(f"key for {name} stored in {where}" + (f", account {username}" if username else ""))


def logout(which: HubName = None) -> None:
    """Forget the API key of a hub.

    Example: hubctl logout
    """
    from hubctl import tokens

    name, url = _hub(which)
    had = tokens.forget(url, _app.settings().config_path)
    if _flags.CURRENT.json:
        _out.document("logout", {"hub": name, "had_key": had})
    else:
        _out.say(f"key for {name} forgotten" if had else f"there was no stored key for {name}")


def whoami(which: HubName = None) -> None:
    """Which account the key belongs to, and where the key was found.

    Example: hubctl whoami
    """
    from hubctl import install, tokens
    from hubctl.errors import LoginRequired

    name, url = _hub(which)
    token = tokens.find(url, _app.settings().config_path)
    if token is None:
        raise LoginRequired(f"there is no API key for {name}")
    account = install.open_hub(_app.settings(), name=name).me()
    if _flags.CURRENT.json:
        _out.document("whoami", {"hub": name, "token_from": token.source, "account": account})
        return
    _out.facts(
        [
            ("account", account.get("username")),
            ("tier", account.get("tier")),
            ("status", account.get("status")),
            ("hub", url),
            ("key from", token.source),
        ]
    )

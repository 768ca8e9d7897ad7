"""What a command body needs: settings, the registry, the hub. Opened when asked for."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from hubctl.cli import _flags
from hubctl.config import Settings, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hubctl.hubs import Hub
    from registry import Installed, Registry


def settings() -> Settings:
    """Defaults, file, environment and this command line's flags, joined; read once."""
    if _flags.CURRENT.verbose and not logging.getLogger().handlers:
        logging.basicConfig(
            stream=sys.stderr, level=logging.DEBUG, format="%(relativeCreated)6.0f %(name)s: %(message)s"
        )
        for noisy in ("httpcore", "hpack", "PIL", "urllib3", "filelock"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
    given = dict(_flags.CURRENT.given)
    if _flags.CURRENT.loaded is None or _flags.CURRENT.loaded[0] != given:
        _flags.CURRENT.loaded = given, load(given)
    found: Settings = _flags.CURRENT.loaded[1]
    return found


def open_registry(*, read_only: bool = False) -> Registry:
    """The library in `--home`; made on first use unless only read."""
    from registry import Registry

    home = settings().home
    if home.is_file():
        from hubctl.errors import NoPermission

        raise NoPermission(f"{home} is a file, not a folder", hint="choose another with --home")
    return Registry.open(home, read_only=read_only)


def open_hub() -> Hub:
    """The hub (or hubs, asked in order) of `--hub`, with the token that belongs to it."""
    from hubctl import install

    return install.open_hub(settings())


def installed(registry: Registry, refs: Sequence[str] | None) -> list[Installed]:
    """The installed versions some references mean; all of them without any. Raises NotFound, Ambiguous."""
    from hubctl.reproduce import installed_one

    return [installed_one(ref, registry) for ref in refs] if refs else registry.installed()


def here(registry: Registry, ref: str) -> Installed | None:
    """The one installed version a reference means; None where that is none. Raises Ambiguous."""
    from hubctl.errors import NotFound
    from hubctl.reproduce import installed_one

    try:
        return installed_one(ref, registry)
    except NotFound:
        return None


def surely_here(registry: Registry, ref: str) -> Installed:
    """The same where no hub is asked. Raises Offline (with --offline), NotFound, Ambiguous."""
    from hubctl.install import offline_refusal
    from hubctl.reproduce import installed_one

    if settings().offline and here(registry, ref) is None:
        raise offline_refusal(ref)
    return installed_one(ref, registry)


def project(given: Path | None) -> Path:
    """The project's folder: what was given, else this one or the nearest above. Raises NotFound."""
    from pathlib import Path

    from hubctl import lockfile
    from hubctl.errors import NotFound

    root = given or lockfile.find(Path.cwd())
    if root is None:
        raise NotFound(f"there is no {lockfile.PROJECT} here or above", hint="`hubctl add REF` starts one")
    return root

"""What a command body needs: settings, the registry, the hub. Opened when asked for."""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import TYPE_CHECKING

from hubctl.cli import _flags
from hubctl.config import Settings, load

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from registry import Registry


@cache
def _settings(key: tuple[tuple[str, object], ...]) -> Settings:
    return load(dict(key))


def settings() -> Settings:
    """Defaults, file, environment and this command line's flags, joined."""
    if _flags.CURRENT.verbose and not logging.getLogger().handlers:
        logging.basicConfig(
            stream=sys.stderr, level=logging.DEBUG, format="%(relativeCreated)6.0f %(name)s: %(message)s"
        )
        for noisy in ("httpcore", "hpack", "PIL", "urllib3", "filelock"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
    return _settings(tuple(sorted(_flags.CURRENT.given.items())))


def open_registry(*, read_only: bool = False) -> Registry:
    """The library in `--home`; made on first use unless only read."""
    from registry import Registry

    return Registry.open(settings().home, read_only=read_only)


def open_hub() -> Hub:
    """The hub (or hubs, asked in order) of `--hub`, with the token that belongs to it."""
    from hubctl import install

    return install.open_hub(settings())

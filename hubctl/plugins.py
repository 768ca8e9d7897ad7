"""Built-ins and entry points by name, loaded when named.

A seam is a group such as `hubctl.hubs`: a table of `"module:attribute"` strings, merged with what installed packages
declare under the same group. Built-ins win over a plugin of the same name, so that no package changes what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from registry.errors import KnownError, UsageError


class PluginError(KnownError):
    """An installed plugin could not be loaded; names the package it came from."""

    code = "plugin_error"


def names(group: str, builtins: Mapping[str, str]) -> list[str]:
    """Every name `load` knows in a group, built-ins first."""
    return [*builtins, *sorted({entry.name for entry in entry_points(group=group)} - builtins.keys())]


def load(group: str, builtins: Mapping[str, str], name: str) -> Any:
    """The object a name stands for.

    Raises UsageError for an unknown name, PluginError when a package's own code fails on import.
    """
    if name in builtins:
        module, _, attribute = builtins[name].partition(":")
        return getattr(import_module(module), attribute)
    for entry in entry_points(group=group):
        if entry.name == name:
            try:
                return entry.load()
            except Exception as error:
                package = entry.dist.name if entry.dist else entry.value
                raise PluginError(
                    f"the plugin `{name}` of {package} does not load: {type(error).__name__}: {error}",
                    hint=f"upgrade or remove {package}",
                ) from error
    raise UsageError(f"`{name}` is not among {group}", hint="known: " + ", ".join(names(group, builtins)))

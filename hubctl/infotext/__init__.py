"""What pictures say about how they were made: any program's metadata → `GenerationParameters`.

    read(path or bytes) → Embedded         the texts a file carries (bounded; no pixels are decoded)
    parse(Embedded | str | mapping)        → GenerationParameters, by the first writer's module that recognises it
    from_meta(meta)                        the hub's `meta` object
    a1111.write(parameters), comfy.write(parameters)   back into the form other programs read

Each writer is a module with `can_parse(embedded) -> bool` and `parse(embedded) -> GenerationParameters`; packages add
theirs through the entry point group `hubctl.infotext` (an entry of a built-in's name replaces it). Modules are imported
when they are first asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from hubctl.errors import NoParameters
from hubctl.infotext.embedded import Embedded, read

if TYPE_CHECKING:
    from hubctl.infotext import a1111, civitai, comfy
    from hubctl.parameters import GenerationParameters

__all__ = ["Embedded", "a1111", "civitai", "comfy", "from_meta", "parse", "read", "writers"]

# Asked in this order: formats that mark themselves first, free text and graphs last.
_WRITERS = {
    "hubctl": "hubctl.infotext.record",
    "novelai": "hubctl.infotext.novelai",
    "invokeai": "hubctl.infotext.invokeai",
    "swarmui": "hubctl.infotext.swarmui",
    "fooocus": "hubctl.infotext.fooocus",
    "easydiffusion": "hubctl.infotext.easydiffusion",
    "drawthings": "hubctl.infotext.drawthings",
    "services": "hubctl.infotext.services",
    "civitai": "hubctl.infotext.civitai",
    "comfy": "hubctl.infotext.comfy",
    "a1111": "hubctl.infotext.a1111",
}
ENTRY_POINTS = "hubctl.infotext"


class Writer(Protocol):
    """A module that understands what one family of programs writes."""

    def can_parse(self, embedded: Embedded) -> bool: ...

    def parse(self, embedded: Embedded) -> GenerationParameters: ...


@cache
def writers() -> Mapping[str, Any]:
    """Name → "module" or "module:attribute" string; built-ins in order, then what other packages registered."""
    from importlib.metadata import entry_points

    return MappingProxyType({**_WRITERS, **{entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}})


@cache
def _load(target: str) -> Writer:
    module, _, attribute = target.partition(":")
    found: Any = import_module(module)
    for name in attribute.split(".") if attribute else ():
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]


def parse(source: Embedded | str | Mapping[str, Any]) -> GenerationParameters:
    """Generation parameters of what `read` gave, of infotext or JSON as text, or of the hub's `meta`.

    Raises NoParameters when nothing in it says how a picture was made.
    """
    if isinstance(source, Mapping):
        return from_meta(source)
    embedded = source if isinstance(source, Embedded) else Embedded("text", MappingProxyType({"text": source}))
    for target in writers().values():
        writer = _load(target)
        if writer.can_parse(embedded):
            parameters = writer.parse(embedded)
            return replace(parameters, warnings=(*embedded.warnings, *parameters.warnings))
    for _, meta in embedded.objects(*({"text", "sidecar"} & embedded.texts.keys())):
        return from_meta(meta)
    raise NoParameters("Nothing here says how the picture was made.")


def from_meta(meta: Mapping[str, Any] | None, *, source: str = "api:meta") -> GenerationParameters:
    """Parameters of the hub's `meta` in any of its nestings. Raises NoParameters when it holds none."""
    from hubctl.infotext.civitai import from_meta as read_meta

    return read_meta(meta, source=source)


def __getattr__(name: str) -> Any:
    if f"hubctl.infotext.{name}" in _WRITERS.values():
        return import_module(f"hubctl.infotext.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

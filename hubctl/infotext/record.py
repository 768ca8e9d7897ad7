"""hubctl's own run record (`"schema": "hubctl.run/1"`): beside a picture, inside it, or as the sidecar's text.

What `inspect --json` and `inspect --as json` print is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters

_FIELDS = {"prompt", "negative_prompt", "sampler_label", "schedule_label", "generator", "raw", "sources"}


def can_parse(embedded: Embedded) -> bool:
    return _record(embedded) is not None


def _record(embedded: Embedded) -> dict[str, Any] | None:
    for _, value in embedded.objects(*(name for name in ("hubctl", "text", "sidecar") if name in embedded.texts)):
        if value.keys() >= _FIELDS and isinstance(value["generator"], dict):
            return {"parameters": value}
        schema = value.get("schema")
        if isinstance(schema, str) and schema.startswith("hubctl.") and isinstance(value.get("parameters"), dict):
            return value
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when the record is not one of ours or was edited into something else."""
    record = _record(embedded)
    if record is None:
        raise NoParameters("There is no hubctl record here.")
    try:
        parameters = GenerationParameters.from_json(record["parameters"])
    except (TypeError, ValueError, AttributeError) as error:
        raise NoParameters("The hubctl record is damaged.") from error
    if not _is_sound(parameters):
        raise NoParameters("The hubctl record is damaged.")
    return parameters


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "None": (type(None),), "ResourceKind": (str,), "Rng": (str,),
    "Mapping[str, Any]": (Mapping,), "Mapping[str, str]": (Mapping,),
}  # fmt: skip


def _is_sound(value: Any) -> bool:
    """Whether a dataclass read from JSON holds what its annotations say: files are strangers', ours or not."""
    for field in fields(value):
        held = getattr(value, field.name)
        parts = held if isinstance(held, tuple) else (held,)
        for part in parts:
            if is_dataclass(part):
                if not _is_sound(part):
                    return False
            elif isinstance(held, tuple):
                if not isinstance(part, str):  # warnings
                    return False
            elif not isinstance(part, _allowed(str(field.type))) or isinstance(part, bool):
                return False
    return True


def _allowed(annotation: str) -> tuple[type, ...]:
    return tuple(kind for part in annotation.split(" | ") for kind in _TYPES.get(part, ()))

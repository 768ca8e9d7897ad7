"""hubctl's own run record (`"schema": "hubctl.run/1"`): beside a picture, inside it, or as the sidecar's text."""

from __future__ import annotations

from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters


def can_parse(embedded: Embedded) -> bool:
    return _record(embedded) is not None


def _record(embedded: Embedded) -> dict[str, Any] | None:
    for _, value in embedded.objects(*(name for name in ("hubctl", "text", "sidecar") if name in embedded.texts)):
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
        parameters.to_json()
    except (TypeError, ValueError, AttributeError) as error:
        raise NoParameters("The hubctl record is damaged.") from error
    return parameters

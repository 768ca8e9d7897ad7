"""Reading loosely typed values from strangers' text: numbers, hashes, names, JSON. Bounded, total, no surprises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hubctl.parameters import ResourceRef, sampler_name, schedule_name

MAX_JSON_CHARS = 16 * 1024 * 1024
MAX_INT = 2**64  # seeds are 64 bits; anything larger is noise and stays in `raw`
NOTHING_HASHED = "e3b0c442"  # SHA-256 of no bytes: written when a program could not find the file

_HASH = re.compile(r"[0-9a-f]{6,64}\Z")
_HASH_PREFIXES = ("0x", "sha256:", "blake3:", "blake3_single:", "blake3_multi:")
_WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft", ".gguf")


def to_float(value: Any) -> float | None:
    """A finite number from a number or a numeric string; None for the rest (booleans included)."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def to_int(value: Any) -> int | None:
    """A whole number below 2^64 from "20", 20 or 20.0; large seeds keep all digits. None for the rest."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        digits = text[1:] if text[:1] in "+-" else text
        if digits.isascii() and digits.isdigit() and len(digits) <= 20:
            value = int(text)
    if not isinstance(value, int):
        number = to_float(value)
        if number is None or number != int(number):
            return None
        value = int(number)
    return value if abs(value) < MAX_INT else None


def to_text(value: Any) -> str | None:
    """A stripped, non-empty string, or None."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    return None


def positive(value: int | None) -> int | None:
    """Steps, widths, heights and clip skips count from one; zero or less means "not said"."""
    return value if value is not None and value > 0 else None


def size(text: Any) -> tuple[int | None, int | None]:
    """(width, height) of "512x768", "1536 x 1536" or "1024 × 768"; (None, None) when it is neither."""
    if not isinstance(text, str) or len(text) > 64:
        return None, None
    left, cross, right = text.lower().replace("×", "x").partition("x")
    width, height = to_int(left), to_int(right)
    if not cross or width is None or height is None or width < 0 or height < 0:
        return None, None
    return width, height


def file_hash(value: Any) -> str | None:
    """Lower-case hex without prefixes; None for the hash of nothing and for what is no hash."""
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    for prefix in _HASH_PREFIXES:
        text = text.removeprefix(prefix)
    if not _HASH.match(text) or text.startswith(NOTHING_HASHED):
        return None
    return text


def stem(name: Any) -> str | None:
    """A model's name without the suffix of a weights file; folders stay, because they are part of what was written."""
    text = to_text(name)
    if text is None:
        return None
    for suffix in _WEIGHT_FILES:
        if text.lower().endswith(suffix) and len(text) > len(suffix):
            return text[: -len(suffix)]
    return text


def sampler_fields(label: Any, schedule: Any = None) -> dict[str, Any]:
    """sampler, sampler_label, schedule, schedule_label of labels as written."""
    label, schedule = to_text(label), to_text(schedule)
    known = label.removeprefix("sample_") if label else None  # first ComfyUI versions: "sample_dpmpp_2m"
    sampler, joined = sampler_name(known)
    return {
        "sampler": sampler,
        "sampler_label": label,
        "schedule": schedule_name(schedule) or joined,
        "schedule_label": schedule,
    }


def _finite(text: str) -> float | None:
    """A number no JSON can hold ("NaN", "1e999") is null, so that what was read can be printed for any program."""
    number = float(text)
    return number if math.isfinite(number) else None


DECODER = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=lambda _: None)


def parse_json(text: str) -> Any:
    """JSON as programs really write it, or None: trailing NULs, the bare words NaN, Infinity and `undefined` (null).

    Never raises: too long, too deep or broken text is None.
    """
    text = text.strip("\0 \t\r\n﻿")
    if not text or len(text) > MAX_JSON_CHARS or text[0] not in '{["':
        return None
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        pass
    if "undefined" not in text:
        return None
    try:
        return DECODER.decode(_undefined_to_null(text))
    except (ValueError, RecursionError):
        return None


_STRING_OR_UNDEFINED = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|\bundefined\b', re.DOTALL)


def _undefined_to_null(text: str) -> str:
    return _STRING_OR_UNDEFINED.sub(lambda match: "null" if match[0] == "undefined" else match[0], text)


def parse_object(text: str | None) -> dict[str, Any] | None:
    """`parse_json` when an object is expected."""
    value = parse_json(text) if text else None
    return value if isinstance(value, dict) else None


def merge_resources(resources: Iterable[ResourceRef]) -> tuple[ResourceRef, ...]:
    """One entry per file: same kind and name (or same version) are joined, what the first does not say is filled in."""
    merged: dict[tuple[str, str], ResourceRef] = {}
    for resource in resources:
        key = (resource.kind, resource.name or f"#{resource.version_id or resource.air or resource.hash}")
        known = merged.get(key)
        if known is None:
            merged[key] = resource
            continue
        merged[key] = _joined(known, resource)
    return tuple(merged.values())


def _joined(known: ResourceRef, more: ResourceRef) -> ResourceRef:
    """What `known` says, completed by what `more` says; "other" says nothing about the kind."""
    values = {name: value for name, value in more.to_json().items() if value is not None}
    values.update({name: value for name, value in known.to_json().items() if value not in (None, "other")})
    return ResourceRef(**values)


def merge_versions(resources: Iterable[ResourceRef]) -> tuple[ResourceRef, ...]:
    """`merge_resources`, then entries of one version id joined, then the only checkpoint with the only one by id."""
    merged: dict[Any, ResourceRef] = {}
    for resource in merge_resources(resources):
        key = resource.version_id or (resource.kind, resource.name, resource.air, resource.hash)
        merged[key] = _joined(merged[key], resource) if key in merged else resource
    out = _without_echoes(list(merged.values()))
    named = [r for r in out if r.kind == "checkpoint" and r.version_id is None and r.name]
    by_id = [r for r in out if r.kind == "checkpoint" and r.version_id is not None and r.name is None]
    if len(named) == len(by_id) == 1:
        out[out.index(named[0])] = _joined(named[0], by_id[0])
        out.remove(by_id[0])
    return tuple(out)


def _without_echoes(resources: list[ResourceRef]) -> list[ResourceRef]:
    """The hub's parser cuts "lora:style-000001" at the dash and lists the tail as a second file of the same hash."""
    tails: set[tuple[str, str | None, str]] = set()
    for resource in resources:
        parts = (resource.name or "")[:512].split("-", 8) if resource.hash else []
        tails |= {(resource.kind, resource.hash, "-".join(parts[at:])) for at in range(1, len(parts))}
    return [r for r in resources if r.weight is not None or (r.kind, r.hash, r.name) not in tails]


def hash_warning(named: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for every hash that is the hash of nothing."""
    return tuple(
        f"The hash of {name} is the hash of an empty file; it says nothing."
        for name, value in named.items()
        if isinstance(value, str) and NOTHING_HASHED in value.lower()
    )


_AIR = re.compile(r"urn:air:([^:\s]{1,64}):([^:\s]{1,64}):([^:\s]{1,64}):([^@\s:]{1,128})@([^\s+:.]{1,128})")
_AIR_KINDS = {"embed": "embedding", "embeddings": "embedding", "textualinversion": "embedding", "model": "checkpoint"}


def kind_of(word: Any, default: str = "other") -> str:
    """Our resource kind for a program's word ("embed", "LORA", "locon")."""
    text = (to_text(word) or default).lower().replace(" ", "")
    text = _AIR_KINDS.get(text, text)
    return {
        "locon": "lora", "dora": "lora", "loras": "lora", "hypernet": "hypernetwork", "checkpoints": "checkpoint",
        "lyco": "lycoris", "diffusion_model": "unet",
    }.get(text, text)  # fmt: skip


def air_resource(air: str, weight: Any = None) -> ResourceRef | None:
    """The resource an AIR names: its kind, and the version id when the source is Civitai."""
    match = _AIR.match(air.strip())
    if match is None:
        return None
    _, kind, source, _, version = match.groups()
    return ResourceRef(
        kind=kind_of(kind),
        air=match[0],
        weight=to_float(weight),
        version_id=to_int(version) if source == "civitai" else None,
    )

"""Draw Things: XMP whose exif:UserComment is JSON with one-letter prompts (`c`, `uc`), `scale`, `size` and `lora`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, Hires, Refiner, ResourceRef

_NAMES = ("xmp:UserComment", "exif:UserComment", "comment", "text", "sidecar")


def can_parse(embedded: Embedded) -> bool:
    return _data(embedded) is not None


def _data(embedded: Embedded) -> dict[str, Any] | None:
    for _, value in embedded.objects(*(name for name in _NAMES if name in embedded.texts)):
        if isinstance(value.get("c"), str) and {"steps", "sampler"} <= value.keys():
            return value
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there is no Draw Things JSON. Settings under `v2` are newer and more exact."""
    data = _data(embedded)
    if data is None:
        raise NoParameters("There is no Draw Things metadata here.")
    newer = data.get("v2")
    v2: Mapping[str, Any] = newer if isinstance(newer, Mapping) else {}
    width, height = v.size(data.get("size"))
    skip = v.to_int(v2.get("clipSkip"))
    strength = v.to_float(data.get("strength"))
    values: dict[str, Any] = {
        "prompt": data["c"],
        "negative_prompt": data.get("uc") if isinstance(data.get("uc"), str) else "",
        "steps": v.positive(v.to_int(data.get("steps"))),
        **v.sampler_fields(data.get("sampler")),
        "cfg_scale": v.to_float(data.get("scale")),
        "distilled_cfg": v.to_float(data.get("guidance_embed", v2.get("guidanceEmbed"))),
        "seed": v.to_int(data.get("seed")),
        "width": v.positive(width),
        "height": v.positive(height),
        "clip_skip": v.positive(skip),
        "denoise": strength if strength != 1.0 else None,
        "hires": _hires(v2),
        "refiner": _refiner(data, v2),
        "resources": v.merge_resources(_resources(data, v2)),
    }
    return GenerationParameters(
        **values,
        generator=_generator(embedded),
        raw=MappingProxyType(data),
        sources=MappingProxyType({name: "drawthings" for name, value in values.items() if value not in (None, "", ())}),
    )


def _generator(embedded: Embedded) -> Generator:
    tool = v.to_text(embedded.text("xmp:CreatorTool")) or ""
    return Generator("Draw Things", tool.removeprefix("Draw Things").strip() or None)


def _hires(v2: Mapping[str, Any]) -> Hires | None:
    if not v2.get("hiresFix"):
        return None
    return Hires(denoise=v.to_float(v2.get("hiresFixStrength")))


def _refiner(data: Mapping[str, Any], v2: Mapping[str, Any]) -> Refiner | None:
    name = v.stem(v2.get("refinerModel") or data.get("refiner"))
    return Refiner(name, switch_at=v.to_float(v2.get("refinerStart"))) if name else None


def _resources(data: Mapping[str, Any], v2: Mapping[str, Any]) -> Iterator[ResourceRef]:
    if v.stem(data.get("model")):
        yield ResourceRef("checkpoint", v.stem(data.get("model")))
    for entries, kind in (
        (data.get("lora"), "lora"),
        (v2.get("loras"), "lora"),
        (data.get("control"), "controlnet"),
        (v2.get("controls"), "controlnet"),
    ):
        for entry in entries[:256] if isinstance(entries, list) else ():
            if isinstance(entry, Mapping):
                name = v.stem(entry.get("model", entry.get("file")))
                yield ResourceRef(kind, name, v.to_float(entry.get("weight")))

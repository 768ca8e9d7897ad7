"""Fooocus and RuinedFooocus.

Fooocus 2.2+    `parameters` JSON in snake case; `fooocus_scheme` beside it (or EXIF, scheme in MakerNote)
Fooocus before  `Comment` JSON, or its log, with labels: "Prompt", "Guidance Scale", "LoRA 1": "name : 0.5"
Fooocus-MRE     `Comment` JSON with "software": "Fooocus-MRE 2.0", "base_clip_skip", LoRAs as "l1" and "w1"
RuinedFooocus   `parameters` JSON with "software": "RuinedFooocus", "Prompt", "cfg", "base_model_name"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, Refiner, ResourceRef

_NAMES = ("parameters", "exif:UserComment", "Comment", "comment", "stealth", "text", "sidecar")
_NOTHING = (None, "None", "none", "Default (model)", "")


def can_parse(embedded: Embedded) -> bool:
    return _data(embedded) is not None


def _data(embedded: Embedded) -> dict[str, Any] | None:
    for _, value in embedded.objects(*(name for name in _NAMES if name in embedded.texts)):
        keys = {key.lower().replace(" ", "_") for key in value}
        own = {"base_model", "guidance_scale"} <= keys and bool({"prompt", "full_prompt"} & keys)
        if own or str(value.get("software", "")).startswith(("RuinedFooocus", "Fooocus")):
            return value
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there is no Fooocus JSON."""
    data = _data(embedded)
    if data is None:
        raise NoParameters("There is no Fooocus metadata here.")
    p = {key.lower().replace(" ", "_"): value for key, value in data.items()}
    width, height = _resolution(p)
    values: dict[str, Any] = {
        "prompt": _text(p, "prompt"),
        "negative_prompt": _text(p, "negative_prompt", "negative"),
        "steps": v.positive(v.to_int(p.get("steps"))),
        **v.sampler_fields(p.get("sampler", p.get("sampler_name")), p.get("scheduler")),
        "cfg_scale": v.to_float(p.get("guidance_scale", p.get("cfg"))),
        "seed": v.to_int(p.get("seed")),
        "width": width,
        "height": height,
        "clip_skip": _clip_skip(p),
        "denoise": v.to_float(p.get("denoise", p.get("overwrite_strength"))),
        "refiner": _refiner(p),
        "resources": v.merge_resources((*_resources(p), *_weighed_loras(data))),
    }
    return GenerationParameters(
        **values,
        generator=_generator(p),
        raw=MappingProxyType(data),
        sources=MappingProxyType({name: "fooocus" for name, value in values.items() if value not in (None, "", ())}),
    )


def _clip_skip(p: Mapping[str, Any]) -> int | None:
    """1, 2, …; Fooocus-MRE counts from the end as ComfyUI does."""
    layer = v.to_int(p.get("clip_skip", p.get("base_clip_skip")))
    return abs(layer) if layer else None


def _text(p: Mapping[str, Any], *names: str) -> str:
    return next((p[name] for name in names if isinstance(p.get(name), str)), "")


def _generator(p: Mapping[str, Any]) -> Generator:
    software = v.to_text(p.get("software")) or v.to_text(p.get("version")) or "Fooocus"
    name, _, version = software.partition(" ")
    if not name[:1].isalpha() or name[1:2].isdigit():  # "v2.1.8", without the name
        name, version = "Fooocus", software
    return Generator(name, version.strip() or None)


def _resolution(p: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """width and height, or "(768, 1280)", or "768×1280"."""
    width, height = v.positive(v.to_int(p.get("width"))), v.positive(v.to_int(p.get("height")))
    if width and height:
        return width, height
    resolution = p.get("resolution")
    if isinstance(resolution, list) and len(resolution) == 2:
        return v.positive(v.to_int(resolution[0])), v.positive(v.to_int(resolution[1]))
    text = str(resolution or "").strip("() ")[:64]
    if "," in text:
        left, _, right = text.partition(",")
        return v.positive(v.to_int(left)), v.positive(v.to_int(right))
    return v.size(text)


def _refiner(p: Mapping[str, Any]) -> Refiner | None:
    name = v.stem(p.get("refiner_model"))
    if name in _NOTHING:
        return None
    return Refiner(name, v.file_hash(p.get("refiner_model_hash")), v.to_float(p.get("refiner_switch")))


def _resources(p: Mapping[str, Any]) -> Iterator[ResourceRef]:
    model = v.stem(p.get("base_model", p.get("base_model_name")))
    if model not in _NOTHING:
        yield ResourceRef("checkpoint", model, hash=v.file_hash(p.get("base_model_hash")))
    vae = v.stem(p.get("vae"))
    if vae not in _NOTHING:
        yield ResourceRef("vae", vae)
    yield from _listed_loras(p.get("loras"))
    for number in range(1, 11):  # Fooocus-MRE
        name = v.stem(p.get(f"l{number}"))
        if name not in _NOTHING:
            yield ResourceRef("lora", name, v.to_float(p.get(f"w{number}")))
    for key, value in p.items():
        if key.startswith("lora_") and isinstance(value, str) and ":" in value:
            yield from _combined_lora(value)


def _weighed_loras(data: Mapping[str, Any]) -> Iterator[ResourceRef]:
    """`LoRA [name] weight` of Fooocus 2.0 and 2.1."""
    for key, value in data.items():
        if key.startswith("LoRA [") and key.endswith("] weight"):
            yield ResourceRef("lora", v.stem(key[6:-8]), v.to_float(value))


def _combined_lora(value: str) -> Iterator[ResourceRef]:
    """`name : weight`; forks write `enabled : name : weight`, or `name : hash : weight`."""
    name, _, weight = value.rpartition(":")
    parts = [part.strip() for part in value.split(" : ")]
    if parts[0] in ("None", "False"):
        return
    if len(parts) == 3 and parts[0] == "True":
        yield ResourceRef("lora", v.stem(parts[1]), v.to_float(parts[2]))
    elif len(parts) == 3:
        yield ResourceRef("lora", v.stem(parts[0]), v.to_float(parts[2]), hash=v.file_hash(parts[1]))
    else:
        yield ResourceRef("lora", v.stem(name), v.to_float(weight.strip()))


def _listed_loras(loras: Any) -> Iterator[ResourceRef]:
    """[[name, weight, hash]] in Fooocus; [[hash, "weight - name"]] or objects in RuinedFooocus."""
    for item in loras[:256] if isinstance(loras, list) else ():
        if isinstance(item, list) and len(item) >= 2:
            found = item[2] if len(item) > 2 else None
            name, weight = (item[1], item[0]) if isinstance(item[1], str) else (item[0], item[1])
            before, dash, after = str(item[1]).partition(" - ")
            if dash and v.to_float(before) is not None:
                name, weight, found = after, before, item[0]
            yield ResourceRef("lora", v.stem(name), v.to_float(weight), hash=v.file_hash(found))
        elif isinstance(item, Mapping):
            yield ResourceRef(
                "lora", v.stem(item.get("name")), v.to_float(item.get("weight")), hash=v.file_hash(item.get("hash"))
            )

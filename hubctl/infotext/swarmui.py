"""SwarmUI: `parameters` (or EXIF UserComment) is JSON with `sui_image_params`, `sui_extra_data` and `sui_models`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.a1111 import prompt_resources
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, Hires, Refiner, ResourceRef

_NAMES = ("parameters", "exif:UserComment", "stealth", "text", "sidecar", "comment", "xmp:UserComment")
_KINDS = {
    "model": "checkpoint", "loras": "lora", "vae": "vae", "refinermodel": "checkpoint", "used_embeddings": "embedding",
    "controlnetmodel": "controlnet", "t5xxlmodel": "text_encoder", "cliplmodel": "text_encoder",
    "clipgmodel": "text_encoder", "qwenmodel": "text_encoder", "llavamodel": "text_encoder",
}  # fmt: skip


def can_parse(embedded: Embedded) -> bool:
    return _data(embedded) is not None


def _data(embedded: Embedded) -> dict[str, Any] | None:
    for _, value in embedded.objects(*(name for name in _NAMES if name in embedded.texts)):
        if isinstance(value.get("sui_image_params"), dict):
            return value
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there are no `sui_image_params`."""
    data = _data(embedded)
    if data is None:
        raise NoParameters("There is no SwarmUI metadata here.")
    p: Mapping[str, Any] = data["sui_image_params"]
    extra = data.get("sui_extra_data")
    layer = v.to_int(p.get("clipstopatlayer"))
    prompt = p.get("prompt") if isinstance(p.get("prompt"), str) else ""
    width, height = v.to_int(p.get("width")), v.to_int(p.get("height"))
    if width is None:
        width, height = v.size(p.get("rawresolution"))
    values: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": p.get("negativeprompt") if isinstance(p.get("negativeprompt"), str) else "",
        "steps": v.positive(v.to_int(p.get("steps"))),
        **v.sampler_fields(
            _first(p, "sampler", "comfyuisampler", "autowebuisampler"), _first(p, "scheduler", "comfyuischeduler")
        ),
        "cfg_scale": v.to_float(p.get("cfgscale", p.get("cfg_scale"))),
        "distilled_cfg": v.to_float(p.get("fluxguidancescale")),
        "seed": v.to_int(p.get("seed")),
        "width": v.positive(width),
        "height": v.positive(height),
        "clip_skip": abs(layer) if layer else None,
        "denoise": v.to_float(p.get("initimagecreativity")),
        "hires": _hires(p),
        "refiner": _refiner(p),
        "subseed": v.to_int(p.get("variationseed")),
        "subseed_strength": v.to_float(p.get("variationseedstrength")),
        "resources": v.merge_resources(_resources(data, p, prompt or "")),
    }
    version = v.to_text(p.get("swarm_version"))
    if version is None and isinstance(extra, Mapping):
        version = v.to_text(extra.get("swarm_version"))
    return GenerationParameters(
        **values,
        generator=Generator("SwarmUI", version),
        raw=MappingProxyType(dict(data)),
        sources=MappingProxyType({name: "swarmui" for name, value in values.items() if value not in (None, "", ())}),
    )


def _first(p: Mapping[str, Any], *names: str) -> Any:
    return next((p[name] for name in names if p.get(name) is not None), None)


def _hires(p: Mapping[str, Any]) -> Hires | None:
    """Swarm's refiner step doubles as hires pass: upscale, then the last part of the steps again."""
    if v.to_float(p.get("refinerupscale")) in (None, 1.0):
        return None
    return Hires(
        upscale=v.to_float(p.get("refinerupscale")),
        steps=v.positive(v.to_int(p.get("refinersteps"))),
        upscaler=v.to_text(p.get("refinerupscalemethod")),
        denoise=v.to_float(p.get("refinercontrolpercentage")),
        cfg_scale=v.to_float(p.get("refinercfgscale")),
        checkpoint=v.stem(p.get("refinermodel")),
    )


def _refiner(p: Mapping[str, Any]) -> Refiner | None:
    model = v.stem(p.get("refinermodel"))
    control = v.to_float(p.get("refinercontrolpercentage"))
    if model is None:
        return None
    return Refiner(checkpoint=model, switch_at=None if control is None else round(1 - control, 6))


def _resources(data: Mapping[str, Any], p: Mapping[str, Any], prompt: str) -> Iterator[ResourceRef]:
    models = (
        [m for m in data.get("sui_models") or () if isinstance(m, Mapping)]
        if isinstance(data.get("sui_models"), list)
        else []
    )
    hashes = {(str(m.get("param")), v.stem(m.get("name"))): v.file_hash(m.get("hash")) for m in models}
    name = v.stem(p.get("model"))
    if name is not None:
        yield ResourceRef("checkpoint", name, hash=hashes.get(("model", name)))
    weights = _list(p.get("loraweights"))
    te_weights = _list(p.get("loratencweights"))
    for index, lora in enumerate(_list(p.get("loras"))):
        name = v.stem(lora)
        if name is not None:
            weight = v.to_float(weights[index]) if index < len(weights) else None
            te = v.to_float(te_weights[index]) if index < len(te_weights) else None
            yield ResourceRef("lora", name, weight, te, hash=hashes.get(("loras", name)))
    vae = v.stem(p.get("vae"))
    if vae is not None and vae not in ("None", "Automatic"):
        yield ResourceRef("vae", vae, hash=hashes.get(("vae", vae)))
    for which in ("", "two", "three"):
        control = v.stem(p.get(f"controlnet{which}model", p.get(f"controlnetmodel{which}")))
        if control not in (None, "(None)", "None"):
            strength = p.get(f"controlnet{which}strength", p.get(f"controlnetstrength{which}"))
            yield ResourceRef("controlnet", control, v.to_float(strength))
    for key, kind in _KINDS.items():
        if kind == "text_encoder" and v.stem(p.get(key)):
            yield ResourceRef(kind, v.stem(p.get(key)))
    yield from prompt_resources(prompt)
    for name in _embeddings(data.get("sui_extra_data")):
        yield ResourceRef("embedding", v.stem(name))
    for model in models:
        kind = _KINDS.get(str(model.get("param")), "other")
        yield ResourceRef(kind, v.stem(model.get("name")), hash=v.file_hash(model.get("hash")))


def _embeddings(extra: Any) -> list[Any]:
    return _list(extra.get("used_embeddings")) if isinstance(extra, Mapping) else []


def _list(value: Any) -> list[Any]:
    """Swarm writes lists as lists; its early versions as comma-separated text."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()][:256]
    return value[:256] if isinstance(value, list) else []

"""Small formats: TensorArt's `generation_data`, SDXL Spaces on Hugging Face, Stability Matrix' JSON, Mochi Diffusion.

Stability Matrix writes A1111 text too, which is read when it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, Hires, ResourceRef


def can_parse(embedded: Embedded) -> bool:
    return any(find(embedded) is not None for find in (_tensorart, _space, _matrix, _mochi))


def _tensorart(embedded: Embedded) -> dict[str, Any] | None:
    for name in ("generation_data", "text"):
        value = embedded.object(name)
        if value is not None and (name == "generation_data" or "ksamplerName" in value):
            return value
    return None


def _space(embedded: Embedded) -> dict[str, Any] | None:
    for _, value in embedded.objects("parameters", "exif:UserComment", "text"):
        if {"prompt", "num_inference_steps", "guidance_scale"} <= value.keys() and "resolution" in value:
            return value
    return None


def _matrix(embedded: Embedded) -> dict[str, Any] | None:
    value = embedded.object("parameters-json")
    alone = value is not None and "PositivePrompt" in value and "parameters" not in embedded.texts
    return value if alone else None


_MOCHI = ("Include in Image", "Exclude from Image", "Model", "Steps", "Guidance Scale", "Seed", "Size", "Scheduler",
          "Generator", "Upscaler", "ML Compute Unit")  # fmt: skip


def _mochi(embedded: Embedded) -> dict[str, Any] | None:
    """`Include in Image: …; Exclude from Image: …; Model: …` in a caption."""
    for text in embedded.texts.values():
        if not text.lstrip().startswith(("Include in Image:", "Exclude from Image:")) or "Mochi Diffusion" not in text:
            continue
        found: dict[str, Any] = {}
        last = None
        for part in text[:100_000].split(";"):
            key, colon, value = part.partition(":")
            if colon and key.strip() in _MOCHI:
                last = key.strip()
                found[last] = value.strip()
            elif last is not None:  # a prompt may hold semicolons
                found[last] = f"{found[last]};{part}"
        return found
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when neither format is there."""
    data = _tensorart(embedded)
    if data is not None:
        return _parse_tensorart(data, embedded)
    data = _space(embedded)
    if data is not None:
        return _parse_space(data)
    data = _matrix(embedded)
    if data is not None:
        return _parse_matrix(data)
    data = _mochi(embedded)
    if data is not None:
        return _parse_mochi(data)
    raise NoParameters("There is no service's metadata here.")


def _text(data: Mapping[str, Any], name: str) -> str:
    return data[name] if isinstance(data.get(name), str) else ""


def _result(values: dict[str, Any], data: dict[str, Any], generator: Generator, **more: Any) -> GenerationParameters:
    source = (generator.name or "").lower()
    said = {name: source for name, value in values.items() if value not in (None, "", ())}
    return GenerationParameters(
        **values, **more, generator=generator, raw=MappingProxyType(data), sources=MappingProxyType(said)
    )


def _parse_tensorart(data: dict[str, Any], embedded: Embedded) -> GenerationParameters:
    seed = v.to_int(data.get("seed"))
    warnings: tuple[str, ...] = ()
    if seed is None or seed < 0:
        seed, warnings = _graph_seed(embedded)
    values: dict[str, Any] = {
        "prompt": _text(data, "prompt"),
        "negative_prompt": _text(data, "negativePrompt"),
        "steps": v.positive(v.to_int(data.get("steps"))),
        **v.sampler_fields(data.get("ksamplerName", data.get("samplerName")), data.get("schedule")),
        "cfg_scale": v.to_float(data.get("cfgScale")),
        "seed": seed,
        "width": v.positive(v.to_int(data.get("width"))),
        "height": v.positive(v.to_int(data.get("height"))),
        "clip_skip": v.positive(v.to_int(data.get("clipSkip"))),
        "ensd": v.to_int(data.get("etaNoiseSeedDelta")),
        "resources": v.merge_resources(_tensorart_resources(data)),
    }
    return _result(values, data, Generator("TensorArt"), warnings=warnings)


def _graph_seed(embedded: Embedded) -> tuple[int | None, tuple[str, ...]]:
    """`generation_data` keeps -1 for "random"; the graph beside it has the seed that was drawn."""
    from hubctl.infotext import comfy

    if not comfy.can_parse(embedded):
        return None, ("The seed was drawn at random and is not recorded.",)
    seed = comfy.parse(embedded).seed
    return seed, ("The settings say a random seed; the one in the graph beside them is used.",)


def _tensorart_resources(data: Mapping[str, Any]) -> Iterator[ResourceRef]:
    models = data.get("models")
    for entry, kind in (
        (data.get("baseModel"), "checkpoint"),
        *((m, "lora") for m in (models if isinstance(models, list) else ())),
    ):
        if isinstance(entry, Mapping):
            name = v.stem(entry.get("modelFileName", entry.get("label")))
            yield ResourceRef(kind, name, v.to_float(entry.get("weight")), hash=v.file_hash(entry.get("hash")))
    vae = v.stem(data.get("sdVae"))
    if vae not in (None, "Automatic", "None"):
        yield ResourceRef("vae", vae)


def _parse_matrix(data: dict[str, Any]) -> GenerationParameters:
    model, found = v.stem(data.get("ModelName")), v.file_hash(data.get("ModelHash"))
    values: dict[str, Any] = {
        "prompt": _text(data, "PositivePrompt"),
        "negative_prompt": _text(data, "NegativePrompt"),
        "steps": v.positive(v.to_int(data.get("Steps"))),
        **v.sampler_fields(data.get("Sampler"), data.get("Scheduler")),
        "cfg_scale": v.to_float(data.get("CfgScale")),
        "seed": v.to_int(data.get("Seed")),
        "width": v.positive(v.to_int(data.get("Width"))),
        "height": v.positive(v.to_int(data.get("Height"))),
        "resources": (ResourceRef("checkpoint", model, hash=found),) if model or found else (),
    }
    return _result(values, data, Generator("Stability Matrix"))


def _parse_mochi(data: dict[str, Any]) -> GenerationParameters:
    width, height = v.size(data.get("Size"))
    model = v.stem(data.get("Model"))
    version = v.to_text(data.get("Generator", "").removeprefix("Mochi Diffusion"))
    values: dict[str, Any] = {
        "prompt": _text(data, "Include in Image"),
        "negative_prompt": _text(data, "Exclude from Image"),
        "steps": v.positive(v.to_int(data.get("Steps"))),
        **v.sampler_fields(data.get("Scheduler")),
        "cfg_scale": v.to_float(data.get("Guidance Scale")),
        "seed": v.to_int(data.get("Seed")),
        "width": v.positive(width),
        "height": v.positive(height),
        "resources": (ResourceRef("checkpoint", model),) if model else (),
    }
    return _result(values, data, Generator("Mochi Diffusion", version))


def _parse_space(data: dict[str, Any]) -> GenerationParameters:
    width, height = v.size(data.get("resolution"))
    upscaler = data.get("use_upscaler")
    hires = _space_hires(upscaler) if isinstance(upscaler, Mapping) else None
    model = v.stem(data.get("Model", data.get("model")))
    found = v.file_hash(data.get("Model hash"))
    values: dict[str, Any] = {
        "prompt": _text(data, "prompt"),
        "negative_prompt": _text(data, "negative_prompt"),
        "steps": v.positive(v.to_int(data.get("num_inference_steps"))),
        **v.sampler_fields(data.get("sampler")),
        "cfg_scale": v.to_float(data.get("guidance_scale")),
        "seed": v.to_int(data.get("seed")),
        "width": v.positive(width),
        "height": v.positive(height),
        "denoise": hires.denoise if hires else None,
        "hires": hires,
        "resources": (ResourceRef("checkpoint", model, hash=found),) if model or found else (),
    }
    return _result(values, data, Generator("HuggingFace Space"))


def _space_hires(data: Mapping[str, Any]) -> Hires:
    return Hires(
        upscale=v.to_float(data.get("upscale_by")),
        upscaler=v.to_text(data.get("upscale_method")),
        denoise=v.to_float(data.get("upscaler_strength")),
    )

"""Easy Diffusion: one PNG text per setting, or one JSON object, or a text file of `Label: value` lines.

Setting names are either ids ("num_inference_steps") or the labels of its page ("Number of inference steps").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, ResourceRef

_LABELS = {
    "prompt": "prompt",
    "negative prompt": "negative_prompt",
    "seed": "seed",
    "stable diffusion model": "use_stable_diffusion_model",
    "vae model": "use_vae_model",
    "hypernetwork model": "use_hypernetwork_model",
    "hypernetwork strength": "hypernetwork_strength",
    "lora model": "use_lora_model",
    "lora strength": "lora_alpha",
    "embedding models": "use_embeddings_model",
    "controlnet model": "use_controlnet_model",
    "sampler": "sampler_name",
    "number of inference steps": "num_inference_steps",
    "steps": "num_inference_steps",
    "guidance scale": "guidance_scale",
    "prompt strength": "prompt_strength",
    "clip skip": "clip_skip",
    "width": "width",
    "height": "height",
    "controlnet filter": "control_filter_to_apply",
    "seamless tiling": "tiling",
    "use face correction": "use_face_correction",
    "use upscaling": "use_upscale",
    "upscale by": "upscale_amount",
    "latent upscaler steps": "latent_upscaler_steps",
}
_OWN = {"num_inference_steps", "use_stable_diffusion_model"}


def can_parse(embedded: Embedded) -> bool:
    return _settings(embedded) is not None


def _settings(embedded: Embedded) -> dict[str, Any] | None:
    candidates: list[Mapping[str, Any]] = [embedded.texts]
    candidates += [value for _, value in embedded.objects("exif:UserComment", "parameters", "text", "sidecar")]
    candidates += [inner for value in candidates if isinstance(inner := value.get("reqBody"), Mapping)]
    candidates += [_lines(text) for name in ("text", "sidecar") if (text := embedded.text(name))]
    for candidate in candidates:
        named = {_LABELS.get(key.lower().replace("_", " "), key): value for key, value in candidate.items()}
        if named.keys() >= _OWN:
            return named
    return None


def _lines(text: str) -> dict[str, str]:
    """`Label: value` lines; a prompt may go on in the lines after it."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in text[:100_000].split("\n")[:1000]:
        first, colon, value = line.partition(":")
        if colon and first.strip().lower() in _LABELS:
            label = first.strip()
            found[label] = [value]
        elif "prompt" in label.lower():
            found[label].append(line)
    return {label: "\n".join(lines).strip() for label, lines in found.items()}


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there are no Easy Diffusion settings."""
    p = _settings(embedded)
    if p is None:
        raise NoParameters("There is no Easy Diffusion metadata here.")
    values: dict[str, Any] = {
        "prompt": str(p.get("prompt") or ""),
        "negative_prompt": str(p.get("negative_prompt") or ""),
        "steps": v.positive(v.to_int(p["num_inference_steps"])),
        **v.sampler_fields(p.get("sampler_name")),
        "cfg_scale": v.to_float(p.get("guidance_scale")),
        "seed": v.to_int(p.get("seed")),
        "width": v.positive(v.to_int(p.get("width"))),
        "height": v.positive(v.to_int(p.get("height"))),
        "clip_skip": 2 if str(p.get("clip_skip")).lower() == "true" else None,  # a switch there
        "denoise": v.to_float(p.get("prompt_strength")),
        "resources": v.merge_resources(_resources(p)),
    }
    return GenerationParameters(
        **values,
        generator=Generator("Easy Diffusion"),
        raw=MappingProxyType(dict(p)),
        sources=MappingProxyType(
            {name: "easydiffusion" for name, value in values.items() if value not in (None, "", ())}
        ),
    )


def _names(value: Any) -> list[str]:
    """One name, a list, or a list printed as text; folders are kept, "None" is nothing."""
    if isinstance(value, str):
        parsed = v.parse_json(value.replace("'", '"')) if value.startswith("[") else None
        value = parsed if isinstance(parsed, list) else value.split(", ")
    names = [v.stem(item) for item in (value if isinstance(value, list) else ())]
    return [name for name in names if name and name != "None"]


def _resources(p: Mapping[str, Any]) -> Iterator[ResourceRef]:
    for key, kind, strength in (
        ("use_stable_diffusion_model", "checkpoint", None),
        ("use_vae_model", "vae", None),
        ("use_hypernetwork_model", "hypernetwork", "hypernetwork_strength"),
        ("use_lora_model", "lora", "lora_alpha"),
        ("use_embeddings_model", "embedding", None),
        ("use_controlnet_model", "controlnet", None),
    ):
        weights = p.get(strength) if strength else None
        if isinstance(weights, str):
            listed = v.parse_json(weights)
            weights = listed if isinstance(listed, list) else weights.split(", ")
        for index, name in enumerate(_names(p.get(key))):
            weight = weights
            if isinstance(weights, list):
                weight = weights[index] if index < len(weights) else None
            yield ResourceRef(kind, name, v.to_float(weight))

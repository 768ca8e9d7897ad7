"""Civitai: pictures of its on-site generator, and the `meta` object of its images.

On-site pictures carry A1111 text with `Civitai resources` (module a1111) or a ComfyUI graph with AIR names and
`extraMetadata`, a JSON string whose values are what the person asked for. `meta` is any of: A1111 keys renamed, on-site
keys with `civitaiResources`, or what the site read from a graph with the graph itself as a string in `comfy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext import a1111, comfy
from hubctl.infotext._graph import is_prompt, is_workflow
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, ResourceRef

MAX_NESTING = 8
_GENERATION_KEYS = ("prompt", "steps", "sampler", "seed", "comfy", "civitaiResources", "resources", "hashes", "Model")


def can_parse(embedded: Embedded) -> bool:
    return _graph(embedded) is not None


def _graph(embedded: Embedded) -> dict[str, Any] | None:
    """The on-site generator's graph: it lists its AIRs, or carries the request."""
    for _, value in embedded.objects():
        extra = value.get("extra")
        has_airs = isinstance(extra, Mapping) and isinstance(extra.get("airs"), list)
        if has_airs or ("extraMetadata" in value and is_prompt(value)):
            return value
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there is no on-site graph."""
    graph = _graph(embedded)
    if graph is None:
        raise NoParameters("There is no metadata of Civitai's generator here.")
    asked = graph.get("extraMetadata")
    asked = v.parse_object(asked) if isinstance(asked, str) else asked
    walked = comfy.parse_graph(graph)
    airs = graph["extra"].get("airs") if isinstance(graph.get("extra"), Mapping) else None
    refs = (v.air_resource(air) for air in (airs if isinstance(airs, list) else ())[:256] if isinstance(air, str))
    named = tuple(ref for ref in refs if ref is not None)
    if not isinstance(asked, dict):
        resources = v.merge_versions((*walked.resources, *named))
        return replace(walked, generator=Generator("Civitai"), resources=resources)
    read = from_meta({**asked, "civitaiResources": asked.get("resources", [])}, source="civitai:extraMetadata")
    return replace(
        read,
        generator=Generator("Civitai"),
        resources=v.merge_versions((*walked.resources, *named, *read.resources)),
        raw=MappingProxyType({**walked.raw, "extraMetadata": asked}),
        warnings=(*walked.warnings, *read.warnings) if not read.steps else read.warnings,
    )


# --- the hub's `meta` -------------------------------------------------------------------------------------------------

_RENAMED = {
    "steps": "Steps",
    "sampler": "Sampler",
    "cfgScale": "CFG scale",
    "seed": "Seed",
    "clipSkip": "Clip skip",
    "scheduler": "Schedule type",
    "denoise": "Denoising strength",
    "hashes": "Hashes",
    "civitaiResources": "Civitai resources",
    "version": "Version",
}
_NOT_SETTINGS = (
    "prompt", "negativePrompt", "comfy", "resources", "additionalResources", "models", "vaes", "controlNets",
    "upscalers", "extra",
)  # fmt: skip


def unwrap(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{"id", "meta": {"meta": {…}}}` → the innermost object that holds generation keys."""
    for _ in range(MAX_NESTING):
        inner = meta.get("meta")
        if not isinstance(inner, Mapping) or any(key in meta for key in _GENERATION_KEYS):
            break
        meta = inner
    return meta


def from_meta(meta: Mapping[str, Any] | None, *, source: str = "api:meta") -> GenerationParameters:
    """Parameters of the hub's `meta`. Raises NoParameters when the uploader hid it or it says nothing."""
    meta = unwrap(meta or {})
    if not any(meta.get(key) for key in _GENERATION_KEYS):
        raise NoParameters("The hub has no settings for this image.")
    listed = a1111.from_settings(_prompt(meta, "prompt"), _prompt(meta, "negativePrompt"), _settings(meta))
    listed = replace(
        listed,
        resources=v.merge_versions(_matched((*listed.resources, *_listed(meta)))),
        generator=_generator(meta, listed.generator),
        raw=MappingProxyType(dict(meta)),
        sources=MappingProxyType({name: source for name in listed.sources if name != "raw"}),
    )
    graph = _comfy(meta)
    listed = replace(listed, resources=_with_lost_hashes(listed.resources, meta))
    return _with_graph(graph, listed) if graph is not None else listed


def _with_lost_hashes(resources: tuple[ResourceRef, ...], meta: Mapping[str, Any]) -> tuple[ResourceRef, ...]:
    """The site's old parser cut quoted lists at commas: `"style` became a key with the value `0123456789ab"`."""
    lost = {
        key.strip("\"' "): digest
        for key, value in meta.items()
        if isinstance(value, str)
        and (key[:1] == '"' or value[-1:] == '"')
        and (digest := v.file_hash(value.strip('" ')))
    }
    return tuple(replace(r, hash=lost[r.name]) if r.hash is None and r.name in lost else r for r in resources)


def _prompt(meta: Mapping[str, Any], name: str) -> str:
    return meta[name] if isinstance(meta.get(name), str) else ""


def _settings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` under A1111's key names."""
    settings: dict[str, Any] = {}
    for key, value in meta.items():
        if key not in _NOT_SETTINGS and value is not None:
            settings.setdefault(_RENAMED.get(key, key), value)
    width, height = v.to_int(meta.get("width")), v.to_int(meta.get("height"))
    if "Size" not in settings and width and height:
        settings["Size"] = f"{width}x{height}"
    if isinstance(settings.get("Model"), Mapping):  # the site's parser turned a quoted name into an object
        settings["Model"] = next((f"{key}: {value}" for key, value in settings["Model"].items()), "")
    return settings


_LISTS = {"models": "checkpoint", "vaes": "vae", "controlNets": "controlnet", "upscalers": "upscaler"}


def _listed(meta: Mapping[str, Any]) -> Iterator[ResourceRef]:
    """`resources`, `additionalResources`, and lists of names by kind."""
    for item in _mappings(meta.get("resources")):
        kind = v.kind_of(item.get("type"))
        if item.get("modelVersionId") is None and (item.get("name") or item.get("hash")):
            yield ResourceRef(
                kind, v.stem(item.get("name")), v.to_float(item.get("weight")), hash=v.file_hash(item.get("hash"))
            )
    for item in _mappings(meta.get("additionalResources")):
        air = v.air_resource(str(item.get("air") or item.get("name") or ""), item.get("strength"))
        weight, weight_te = v.to_float(item.get("strength")), v.to_float(item.get("strengthClip"))
        if air is not None:
            yield replace(air, weight_te=weight_te)
        else:
            yield ResourceRef(v.kind_of(item.get("type")), v.stem(item.get("name")), weight, weight_te)
    for key, kind in _LISTS.items():
        names = meta.get(key)
        for name in names[:64] if isinstance(names, list) else ():
            if isinstance(name, str):
                yield v.air_resource(name) or ResourceRef(kind, v.stem(name))


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value[:256] if isinstance(item, Mapping)] if isinstance(value, list) else []


def _matched(resources: tuple[ResourceRef, ...]) -> tuple[ResourceRef, ...]:
    """A hash without a name is the hash of the named file of its kind, when there is exactly one."""
    merged = v.merge_resources(resources)
    by_hash = {r.hash: r for r in merged if r.hash and r.name}
    return tuple(r for r in merged if r.name or not r.hash or r.hash not in by_hash)


def _generator(meta: Mapping[str, Any], guessed: Generator) -> Generator:
    if v.to_text(meta.get("engine")):  # what the site's generator ran; it stays in `raw`
        return Generator("Civitai")
    if isinstance(meta.get("comfy"), str | Mapping):
        return Generator("ComfyUI", guessed.version)
    model = meta.get("Model")
    on_site = "civitaiResources" in meta and "Version" not in meta and "version" not in meta
    if on_site and (model is None or str(model).startswith("urn:air:")):
        return Generator("Civitai")
    if guessed.name == "ComfyUI" and not a1111.is_comfy_sampler(v.to_text(meta.get("sampler"))):
        return Generator("A1111", guessed.version)  # `hashes` is the site's own block here
    return guessed


def _comfy(meta: Mapping[str, Any]) -> GenerationParameters | None:
    """The graph in `comfy`: a string of JSON that may hold `undefined` and NaN, or the object itself."""
    value = meta.get("comfy")
    value = v.parse_object(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return None
    parts = [
        v.parse_object(part) if isinstance(part, str) else part for part in (value.get("prompt"), value.get("workflow"))
    ]
    prompt = parts[0] if is_prompt(parts[0]) else None
    workflow = parts[1] if is_workflow(parts[1]) else None
    return comfy.parse_graph(prompt, workflow) if prompt or workflow else None


def _with_graph(graph: GenerationParameters, listed: GenerationParameters) -> GenerationParameters:
    """The graph made the picture; the site's own list fills in what it lacks and adds version ids."""
    merged = comfy.with_text(graph, listed)
    return replace(
        merged,
        generator=listed.generator,
        resources=v.merge_versions(v.merge_resources((*merged.resources, *listed.resources))),
        raw=MappingProxyType({**listed.raw, "samplers": graph.raw.get("samplers", [])}),
    )

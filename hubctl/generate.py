"""Journey: a prompt and installed models → parameters, starting from what the models recommend."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.errors import NotFound, UsageError
from hubctl.parameters import GenerationParameters, Generator, ResourceRef, sampler_name
from hubctl.reproduce import Resource, override

if TYPE_CHECKING:
    from registry import Installed, Registry

FALLBACK = {"sampler": "euler_ancestral", "steps": 20, "cfg_scale": 7.0, "size": (512, 512)}
SDXL_SIZE = (1024, 1024)


def prepare(
    prompt: str,
    model: str,
    registry: Registry,
    *,
    loras: Sequence[str] = (),
    vae: str | None = None,
    asked: Mapping[str, Any],
) -> tuple[GenerationParameters, tuple[Resource, ...]]:
    """Parameters and the files they need. What was asked wins over recommendations, those over plain defaults.

    Raises NotFound for something that is not installed, UsageError for a file of the wrong kind or a bad weight.
    """
    checkpoint = one_of(registry, model, "checkpoint")
    resources = [_resource(checkpoint, "checkpoint")]
    prompt, named = _named_loras(prompt, registry)
    resources += named
    for text in loras:
        ref, weight = split_weight(text)
        adapter = one_of(registry, ref, "lora", "locon", "dora")
        given = weight if weight is not None else (adapter.weight if adapter.weight is not None else 1.0)
        resource = _resource(adapter, "lora", weight=given)
        prompt = f"{prompt} <lora:{resource.ref.name}:{given:g}>"
        resources.append(resource)
    if vae:
        resources.append(_resource(one_of(registry, vae, "vae"), "vae"))
    resources += _embeddings(f"{prompt} {asked.get('negative_prompt') or ''}", registry)
    parameters = GenerationParameters(
        prompt=prompt,
        resources=tuple(resource.ref for resource in resources),
        generator=Generator("hubctl"),
        seed=secrets.randbelow(2**32),
        rng="cpu",
        **_recommended(checkpoint),
    )
    return override(parameters, **asked), tuple(resources)


def one_of(registry: Registry, ref: str, *kinds: str) -> Installed:
    """The installed version a text means, of one of these model types. Raises NotFound."""
    found = [item for item in registry.find(ref) if (item.model.type or "").lower() in kinds]
    if not found:
        what = " or ".join(kinds)
        raise NotFound(
            f"no installed {what} is called `{ref}`", hint="`hubctl list` shows what is, `hubctl install` gets more"
        )
    return found[0]


def split_weight(text: str) -> tuple[str, float | None]:
    """`"4201:0.8"` → ("4201", 0.8). URLs and AIRs contain colons: only a trailing number counts."""
    head, colon, tail = text.rpartition(":")
    if not colon:
        return text, None
    try:
        weight = float(tail)
    except ValueError:
        return text, None
    if not -10 <= weight <= 10:
        raise UsageError(f"a weight of {weight:g} cannot be meant", hint="weights lie between -10 and 10")
    return head, weight


def _resource(item: Installed, kind: str, weight: float | None = None) -> Resource:
    file = item.files[0]
    ref = ResourceRef(kind, Path(file.name).stem, weight=weight, hash=file.sha256, version_id=item.version.id)
    return Resource(ref, "name", installed=item, path=file.path)


def _named_loras(prompt: str, registry: Registry) -> tuple[str, list[Resource]]:
    """`<lora:name:0.8>` tags of the prompt → files; a tag without a weight gets the recommended one."""
    from hubctl.run.prompt import extract_networks

    _, tags = extract_networks(prompt)
    out = []
    for tag in tags:
        found = registry.locate("lora", name=tag.name)
        if tag.kind in {"lora", "lyco"} and found is not None:
            ref = ResourceRef("lora", tag.name, weight=tag.weight_unet, weight_te=tag.weight_te)
            out.append(Resource(ref, "name", installed=found.installed, path=found.path))
    return prompt, out


def _embeddings(text: str, registry: Registry) -> list[Resource]:
    """Installed embeddings whose name appears in the prompts."""
    words = text.casefold()
    out = []
    for item in registry.installed(types=("TextualInversion",)):
        resource = _resource(item, "embedding")
        if resource.ref.name and resource.ref.name.casefold() in words:
            out.append(resource)
    return out


def _recommended(checkpoint: Installed) -> dict[str, Any]:
    def value(name: str) -> Any:
        entry = (checkpoint.settings or {}).get(name)
        found = entry.get("value") if isinstance(entry, dict) else entry
        return FALLBACK.get(name) if found is None else found

    base = checkpoint.version.base_model or ""
    size = value("size")
    if (checkpoint.settings or {}).get("size") is None and ("XL" in base or base in {"Pony", "Illustrious", "NoobAI"}):
        size = SDXL_SIZE
    sampler, schedule = sampler_name(value("sampler"))
    return {
        "sampler": sampler,
        "schedule": value("schedule") or schedule,
        "steps": int(value("steps")),
        "cfg_scale": float(value("cfg_scale")),
        "width": int(size[0]),
        "height": int(size[1]),
        "clip_skip": value("clip_skip"),
    }

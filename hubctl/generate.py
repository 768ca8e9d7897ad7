"""Journey: a prompt and models → parameters, starting from what the models recommend.

A model is anything `hubctl list` shows, or a file on this disk that was never installed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.errors import NotFound, UsageError
from hubctl.parameters import GenerationParameters, Generator, ResourceRef, sampler_name
from hubctl.reproduce import Resource, installed_one, override

if TYPE_CHECKING:
    from registry import Installed, Registry

FALLBACK = {"sampler": "euler_ancestral", "steps": 20, "cfg_scale": 7.0, "size": (512, 512)}
SDXL_SIZE = (1024, 1024)
SDXL_KIN = ("XL", "Pony", "Illustrious", "NoobAI")
LORAS = ("lora", "locon", "dora")
LARGEST_SEED = 2**32


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

    Raises NotFound for something that is not installed, Ambiguous, UsageError for a file of the wrong kind or a bad
    weight.
    """
    checkpoint = _resource(model, registry, "checkpoint", "checkpoint")
    resources = [checkpoint, *_named_loras(prompt, registry)]
    named = {resource.ref.name.casefold() for resource in resources if resource.ref.name}
    for text in loras:
        resource = _lora(text, registry)
        name = resource.ref.name or ""
        if name.casefold() in named:
            raise UsageError(f"LoRA `{name}` is asked for twice", hint="in the prompt or with --lora, not both")
        named.add(name.casefold())
        prompt = f"{prompt} <lora:{name}:{resource.ref.weight:g}>"
        resources.append(resource)
    recommended = _recommended(checkpoint.installed)
    negative = asked.get("negative_prompt")
    if negative is None:
        negative = recommended["negative_prompt"]
    resources += _vae(vae, checkpoint.installed, registry)
    resources += _embeddings(f"{prompt} {negative}", registry)
    parameters = GenerationParameters(
        prompt=prompt,
        resources=tuple(resource.ref for resource in resources),
        generator=Generator("hubctl"),
        seed=secrets.randbelow(LARGEST_SEED),
        rng="cpu",
        **recommended,
    )
    return override(parameters, **asked), tuple(resources)


def missing_words(resources: Sequence[Resource], prompt: str) -> dict[str, tuple[str, ...]]:
    """LoRAs that have trigger words of which the prompt has none: name → the words."""
    text = prompt.casefold()
    out = {}
    for resource in resources:
        item = resource.installed
        words = item.trigger_words if resource.ref.kind == "lora" and item is not None else ()
        if item is not None and words and not any(word.casefold() in text for word in words):
            out[item.model.name] = words[:4]
    return out


def split_weight(text: str) -> tuple[str, float | None]:
    """`"4201:0.8"` → ("4201", 0.8). URLs and AIRs contain colons: only a trailing number counts."""
    head, colon, tail = text.rpartition(":")
    if not colon or head.lower() in {"model", "version", "hash"}:
        return text, None
    try:
        weight = float(tail)
    except ValueError:
        return text, None
    if not -10 <= weight <= 10:
        raise UsageError(f"a weight of {weight:g} cannot be meant", hint="weights lie between -10 and 10")
    return head, weight


def _resource(text: str, registry: Registry, kind: str, *types: str, weight: float | None = None) -> Resource:
    """What a reference means here, or a file of that name on this disk."""
    path = Path(text).expanduser()
    if path.suffix and path.is_file():
        return Resource(ResourceRef(kind, _tag_name(path.stem), weight=weight), "file", path=path.absolute())
    return _of(installed_one(text, registry, *types), kind, weight)


def _of(item: Installed, kind: str, weight: float | None = None) -> Resource:
    file = item.files[0]
    name = _tag_name(Path(file.name).stem)
    ref = ResourceRef(kind, name, weight=weight, hash=file.sha256, version_id=item.version.id)
    return Resource(ref, "name", installed=item, path=file.path)


def _tag_name(stem: str) -> str:
    """A file's name as a prompt tag can hold it."""
    return "".join("_" if char in "<>:" else char for char in stem)


def _lora(text: str, registry: Registry) -> Resource:
    """`REF[:WEIGHT]`; without a weight the recommended one, else 1."""
    ref, weight = split_weight(text)
    found = _resource(ref, registry, "lora", *LORAS)
    if weight is None:
        weight = found.installed.weight if found.installed else None
    weight = 1.0 if weight is None else weight
    named = ResourceRef("lora", found.ref.name, weight=weight, hash=found.ref.hash, version_id=found.ref.version_id)
    return Resource(named, found.how, installed=found.installed, path=found.path)


def _named_loras(prompt: str, registry: Registry) -> list[Resource]:
    """`<lora:name:0.8>` tags of the prompt → files. Raises NotFound for a name nothing here has."""
    from hubctl.run.prompt import extract_networks

    _, tags = extract_networks(prompt)
    out = []
    for tag in tags:
        if tag.kind not in {"lora", "lyco"}:
            continue
        found = registry.locate("lora", name=tag.name)
        if found is None:
            raise NotFound(f"no installed LoRA is called `{tag.name}`", hint=_near(tag.name, registry))
        ref = ResourceRef("lora", tag.name, weight=tag.weight_unet, weight_te=tag.weight_te)
        out.append(Resource(ref, "name", installed=found.installed, path=found.path))
    return out


def _near(name: str, registry: Registry) -> str:
    from rapidfuzz import process, utils

    names = [
        Path(file.name).stem for item in registry.installed(types=("LORA", "LoCon", "DoRA")) for file in item.files
    ]
    found = process.extract(name, names, limit=3, score_cutoff=55, processor=utils.default_process)
    near = ", ".join(f"`{match[0]}`" for match in found)
    return f"near: {near}" if near else "`hubctl list --type lora` shows what is here, `hubctl install` gets more"


def _vae(asked: str | None, checkpoint: Installed | None, registry: Registry) -> list[Resource]:
    """The VAE that was asked for, else one the checkpoint's maker recommends, when it is here."""
    if asked:
        return [_resource(asked, registry, "vae", "vae")]
    wanted = _value(checkpoint, "vae")
    found = registry.locate("vae", name=wanted) if isinstance(wanted, str) and wanted else None
    if found is None or (found.installed.model.type or "").lower() != "vae":
        return []
    return [_of(found.installed, "vae")]


def _embeddings(text: str, registry: Registry) -> list[Resource]:
    """Installed embeddings whose name appears in the prompts."""
    words = text.casefold()
    found = [_of(item, "embedding") for item in registry.installed(types=("TextualInversion",)) if item.files]
    return [resource for resource in found if resource.ref.name and resource.ref.name.casefold() in words]


def _value(item: Installed | None, name: str) -> Any:
    entry = (item.settings or {}).get(name) if item is not None else None
    return entry.get("value") if isinstance(entry, dict) else entry


def _recommended(checkpoint: Installed | None) -> dict[str, Any]:
    def value(name: str) -> Any:
        found = _value(checkpoint, name)
        return FALLBACK.get(name) if found is None else found

    base = (checkpoint.version.base_model if checkpoint else None) or ""
    size = value("size")
    if _value(checkpoint, "size") is None and any(kin in base for kin in SDXL_KIN):
        size = SDXL_SIZE
    sampler, schedule = sampler_name(str(value("sampler")))
    negative = value("negative_prompt")
    return {
        "sampler": sampler or FALLBACK["sampler"],
        "schedule": value("schedule") or schedule,
        "steps": int(value("steps")),
        "cfg_scale": float(value("cfg_scale")),
        "width": int(size[0]),
        "height": int(size[1]),
        "clip_skip": value("clip_skip"),
        "negative_prompt": negative if isinstance(negative, str) else "",
    }

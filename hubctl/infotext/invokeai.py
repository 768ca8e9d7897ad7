"""InvokeAI, all generations.

Dream               1.x   the command line that would repeat the image: "prompt [negative]" -s 50 -S 1 -W 512 …
sd-metadata         2.x   JSON with `image`, model_weights, model_hash
invokeai_metadata   3.x+  flat JSON; models were {model_name, base_model}, later {key, hash, name, base, type}
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, Hires, Refiner, ResourceRef

MAX_COMMAND = 100_000


def can_parse(embedded: Embedded) -> bool:
    return _flat(embedded) is not None or "sd-metadata" in embedded.texts or _is_dream(embedded.text("Dream"))


def _is_dream(text: str | None) -> bool:
    return text is not None and " -s" in text and " -S" in text


def _flat(embedded: Embedded) -> dict[str, Any] | None:
    for name in ("invokeai_metadata", "invokeai", "text", "sidecar"):
        value = embedded.object(name)
        if value is None:
            continue
        inner = value.get("invokeai_metadata", value.get("metadata"))
        value = inner if isinstance(inner, dict) else value
        if name == "invokeai_metadata" or "generation_mode" in value or "positive_prompt" in value:
            return value
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there is no InvokeAI block that can be read."""
    flat = _flat(embedded)
    if flat is not None:
        return _parse_flat(flat)
    old = embedded.object("sd-metadata")
    if old is not None and isinstance(old.get("image"), dict):
        return _parse_sd_metadata(old, old["image"])
    dream = embedded.text("Dream")
    if dream is not None:
        return _parse_dream(dream)
    raise NoParameters("InvokeAI's metadata in this picture is damaged.")


def _sources(values: Mapping[str, Any], name: str) -> Mapping[str, str]:
    return MappingProxyType({key: name for key, value in values.items() if value not in (None, "", ())})


# --- 3.x and later ----------------------------------------------------------------------------------------------------


def _parse_flat(data: Mapping[str, Any]) -> GenerationParameters:
    skipped = v.to_int(data.get("clip_skip"))
    guidance = v.to_float(data.get("guidance"))
    values: dict[str, Any] = {
        "prompt": data.get("positive_prompt") if isinstance(data.get("positive_prompt"), str) else "",
        "negative_prompt": data.get("negative_prompt") if isinstance(data.get("negative_prompt"), str) else "",
        "steps": v.positive(v.to_int(data.get("steps", data.get("num_steps")))),
        **v.sampler_fields(data.get("scheduler")),
        "cfg_scale": v.to_float(data.get("cfg_scale")),
        "distilled_cfg": guidance,
        "seed": v.to_int(data.get("seed")),
        "width": v.positive(v.to_int(data.get("width"))),
        "height": v.positive(v.to_int(data.get("height"))),
        "clip_skip": skipped + 1 if skipped else None,  # InvokeAI counts skipped layers, everyone else the layer used
        "denoise": v.to_float(data.get("strength")),
        "hires": _hires(data),
        "refiner": _refiner(data),
        "rng": "cpu" if data.get("rand_device") == "cpu" else None,
        "resources": v.merge_resources(_resources(data)),
    }
    return GenerationParameters(
        **values,
        generator=Generator("InvokeAI", v.to_text(data.get("app_version"))),
        raw=MappingProxyType(dict(data)),
        sources=_sources(values, "invokeai"),
    )


def _hires(data: Mapping[str, Any]) -> Hires | None:
    if not data.get("hrf_enabled"):
        return None
    return Hires(
        upscaler=v.to_text(data.get("hrf_method")),
        denoise=v.to_float(data.get("hrf_strength")),
        width=v.positive(v.to_int(data.get("hrf_width"))),
        height=v.positive(v.to_int(data.get("hrf_height"))),
    )


def _refiner(data: Mapping[str, Any]) -> Refiner | None:
    model = _model(data.get("refiner_model"), "checkpoint")
    if model is None:
        return None
    return Refiner(model.name, model.hash, v.to_float(data.get("refiner_start")))


def _model(data: Any, kind: str, weight: Any = None) -> ResourceRef | None:
    if isinstance(data, str):
        data = {"name": data}
    if not isinstance(data, Mapping):
        return None
    name = v.stem(data.get("name", data.get("model_name")))
    if name is None:
        return None
    weight = weight[0] if isinstance(weight, list) and weight else weight  # one for each step
    return ResourceRef(kind=kind, name=name, weight=v.to_float(weight), hash=v.file_hash(data.get("hash")))


def _resources(data: Mapping[str, Any]) -> Iterator[ResourceRef]:
    singles = [_model(data.get("model"), "checkpoint"), _model(data.get("vae"), "vae")]
    yield from (model for model in singles if model is not None)
    for key in ("t5_encoder", "clip_embed_model", "qwen3_encoder", "clip_l_model", "clip_g_model"):
        encoder = _model(data.get(key), "text_encoder")
        if encoder is not None:
            yield encoder
    for key, part, kind in (
        ("loras", "lora", "lora"),
        ("controlnets", "control_model", "controlnet"),
        ("t2iAdapters", "t2i_adapter_model", "controlnet"),
        ("ipAdapters", "ip_adapter_model", "other"),
    ):
        entries = data.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping):
                weight = entry.get("weight", entry.get("control_weight"))
                model = _model(entry.get(part, entry.get("model")), kind, weight)
                if model is not None:
                    yield model


# --- 2.x and 1.x ------------------------------------------------------------------------------------------------------


def split_negative(prompt: str) -> tuple[str, str]:
    """Up to 2.3, text in square brackets was the negative prompt. Brackets of either sort may be escaped."""
    kept: list[str] = []
    negative: list[list[str]] = []
    depth, position = 0, 0
    while position < len(prompt):
        char = prompt[position]
        if char == "\\" and prompt[position + 1 : position + 2] in ("[", "]"):
            (negative[-1] if depth else kept).append(prompt[position + 1])
            position += 2
            continue
        if char == "[":
            depth += 1
            if depth == 1:
                negative.append([])
        elif char == "]" and depth:
            depth -= 1
        else:
            (negative[-1] if depth else kept).append(char)
        position += 1
    return "".join(kept).strip(), ", ".join("".join(part).strip() for part in negative)


def _parse_sd_metadata(data: Mapping[str, Any], image: Mapping[str, Any]) -> GenerationParameters:
    prompts = image.get("prompt")
    if isinstance(prompts, list):
        prompts = next((p.get("prompt") for p in prompts if isinstance(p, Mapping)), "")
    prompt, negative = split_negative(prompts if isinstance(prompts, str) else "")
    model = v.stem(data.get("model_weights"))
    values: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": v.positive(v.to_int(image.get("steps"))),
        **v.sampler_fields(image.get("sampler")),
        "cfg_scale": v.to_float(image.get("cfg_scale")),
        "seed": v.to_int(image.get("seed")),
        "width": v.positive(v.to_int(image.get("width"))),
        "height": v.positive(v.to_int(image.get("height"))),
        "denoise": v.to_float(image.get("strength")) if image.get("type") == "img2img" else None,
        "resources": (ResourceRef("checkpoint", model, hash=v.file_hash(data.get("model_hash"))),) if model else (),
    }
    return GenerationParameters(
        **values,
        generator=Generator("InvokeAI", v.to_text(data.get("app_version"))),
        raw=MappingProxyType(dict(data)),
        sources=_sources(values, "invokeai:sd-metadata"),
    )


_DREAM_FLAGS = {
    "-s": "steps",
    "-S": "seed",
    "-W": "width",
    "-H": "height",
    "-C": "cfg",
    "-A": "sampler",
    "-f": "strength",
}


def _parse_dream(text: str) -> GenerationParameters:
    prompt, flags = _dream_parts(text[:MAX_COMMAND])
    prompt, negative = split_negative(prompt)
    named = {_DREAM_FLAGS[flag]: value for flag, value in flags.items() if flag in _DREAM_FLAGS}
    values: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": v.positive(v.to_int(named.get("steps"))),
        **v.sampler_fields(named.get("sampler")),
        "cfg_scale": v.to_float(named.get("cfg")),
        "seed": v.to_int(named.get("seed")),
        "width": v.positive(v.to_int(named.get("width"))),
        "height": v.positive(v.to_int(named.get("height"))),
        "denoise": v.to_float(named.get("strength")),
    }
    return GenerationParameters(
        **values,
        generator=Generator("InvokeAI"),
        raw=MappingProxyType({"Dream": text, **flags}),
        sources=_sources(values, "invokeai:Dream"),
    )


def _dream_parts(text: str) -> tuple[str, dict[str, str]]:
    """The quoted prompt and the options; an option's value may be several words ("-U 4 0.95")."""
    text = text.strip()
    end = text.rfind('" -') if text.startswith('"') else text.find(" -s")
    prompt, rest = (text[1:end], text[end + 1 :]) if text.startswith('"') and end > 0 else (text[:end], text[end:])
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    flags: dict[str, str] = {}
    flag = None
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            split = len(word) > 2 and word[:2] in _DREAM_FLAGS and (word[2].isdigit() or word[:2] == "-A")  # "-s50"
            flag, value = (word[:2], word[2:]) if split else (word, "")
            flags[flag] = value
        elif flag is not None:
            flags[flag] = f"{flags[flag]} {word}".strip()
    return prompt.replace('\\"', '"'), flags

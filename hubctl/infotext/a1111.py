"""A1111 infotext and its descendants (Forge, reForge, SD.Next, Civitai, ComfyUI's saver nodes …), in and out.

    <prompt, any number of lines>
    Negative prompt: <negative prompt, any number of lines>
    Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x768, Lora hashes: "a: 1f…"

The settings line is the last line that begins with `Steps: <digit>`, or else the last with at least three pairs among
which is a key every program writes. A value is a JSON string (written when it holds a comma, colon or line break), a
JSON object or list (Civitai, saver nodes), or runs to the next comma. Every setting stays in `raw` in the order
written, and the text itself under "infotext" where they alone would not give it back (blank lines, line ends, an empty
negative prompt), so `write(parse(text)) == text`. All scanning is linear in the text's length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import (
    SAMPLERS,
    SCHEDULES,
    GenerationParameters,
    Generator,
    Hires,
    Refiner,
    ResourceRef,
    sampler_label,
    sampler_name,
    schedule_label,
    schedule_name,
)

MAX_CHARS = 4 * 1024 * 1024
MAX_SETTINGS = 2000
NEGATIVE = "Negative prompt:"
WHOLE = "infotext"  # the key in `raw` of the text itself

_STEPS = re.compile(r"[ \t]*Steps:[ \t]*\d", re.IGNORECASE)
_NEGATIVE = re.compile(r"[ \t]*Negative prompt:[ \t]?", re.IGNORECASE)
_JAMMED = re.compile(r"[,.][ \t]*(?=Negative prompt:|Steps:[ \t]*\d)", re.IGNORECASE)
_RUN_ON = re.compile(r"(?<=[ \t])(?=Negative prompt:|Steps:[ \t]*\d)", re.IGNORECASE)
_BREAKS = (("<br />", "\n"), ("<br/>", "\n"), ("<br>", "\n"), ("\\r\\n", "\n"), ("\\n", "\n"))
_LABEL = re.compile(r"[ \t]*parameters[ \t]*:[ \t]*", re.IGNORECASE)
_COMMON = ("steps", "sampler", "seed", "cfg scale", "size", "model hash", "model")
_CIVITAI = {"civitai resources", "civitai metadata"}
_TEMPLATES = ("Template:", "Negative Template:")
_TEXTS = (
    "parameters", "exif:UserComment", "stealth", "text", "xmp:parameters", "xmp:UserComment", "comment",
    "exif:ImageDescription", "exif:XPComment", "xmp:description", "Comment", "Description", "sidecar",
)  # fmt: skip


def can_parse(embedded: Embedded) -> bool:
    return infotext_of(embedded) is not None


def infotext_of(embedded: Embedded) -> str | None:
    """The first text that has a settings line."""
    names = (*_TEXTS, *(name for name in embedded.texts if name not in _TEXTS))
    for name in names:
        text = embedded.texts.get(name)
        if text is not None and is_infotext(text):
            return text
    return None


def is_infotext(text: str) -> bool:
    if len(text) > MAX_CHARS or ":" not in text:
        return False
    if text.lstrip("﻿ \r\n\t")[:1] in ("{", "[") and not any(_STEPS.match(line) for line in text.splitlines()):
        return False  # JSON; a prompt may begin with a bracket too
    return _settings_line(_normalise(text).split("\n")) is not None


def parse(source: Embedded | str) -> GenerationParameters:
    """Infotext → parameters. Raises NoParameters when there is no settings line."""
    embedded = source if isinstance(source, Embedded) else None
    text = infotext_of(source) if isinstance(source, Embedded) else source[:MAX_CHARS]
    normal = _normalise(text or "")
    lines = normal.split("\n")
    at = _settings_line(lines)
    if at is None:
        raise NoParameters("This text has no settings line (`Steps: …`).")
    line, after = _joined_settings(lines, at)
    prompt, negative, before = _prompts(lines[:at])
    settings: dict[str, Any] = dict(before)
    settings.update(read_settings(line))
    settings.update(_templates(after)[1])
    bare = (text or "").strip("\0\ufeff")
    if _unbroken(bare) == normal and (WHOLE in settings or _composed(prompt, negative, settings) != bare):
        settings[WHOLE] = bare  # print-outs are not given back as they came
    return from_settings(prompt, negative, settings, embedded=embedded)


# --- reading: lines ---------------------------------------------------------------------------------------------------


def _unbroken(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _normalise(text: str) -> str:
    """One kind of line break; a label that print-outs put in front is cut, and one-line print-outs are broken up."""
    text = _unbroken(text.strip("\0\ufeff"))
    label = _LABEL.match(text)
    if label:
        text = text[label.end() :]
    if _has_steps(text) or _by_common_keys(text.split("\n")) is not None:
        return text
    if "\n" not in text:  # copied out of a page or a program's output
        for written, line_break in _BREAKS:
            text = text.replace(written, line_break)
        if _has_steps(text):
            return text
    pieces = _JAMMED.split(text)
    if len(pieces) == 1:
        return "\n".join(piece.rstrip(" \t") for piece in _RUN_ON.split(text)) if "\n" not in text else text
    return "\n".join([piece.rstrip(" \t,.") for piece in pieces[:-1]] + pieces[-1:])


def _has_steps(text: str) -> bool:
    return any(_STEPS.match(line) for line in text.split("\n"))


def _settings_line(lines: list[str]) -> int | None:
    for index in range(len(lines) - 1, -1, -1):
        if _STEPS.match(lines[index]):
            return index
    return _by_common_keys(lines)


def _by_common_keys(lines: list[str]) -> int | None:
    """The last line with at least three pairs, two of them under keys that every program writes.

    Civitai writes no more than its resources for models that run elsewhere, so its keys are enough.
    """
    for index in range(len(lines) - 1, max(-1, len(lines) - 200), -1):
        line = lines[index]
        if line.count(":") < 3 or "negative prompt:" in line.lower():
            continue
        keys = {key.lower() for key, value in read_settings(line).items() if value != key}
        usual = len(keys) >= 3 and sum(key in keys for key in _COMMON) >= 2
        if (usual or keys >= _CIVITAI) and _early(line):
            return index
    return None


def _early(line: str) -> bool:
    """Whether the first key is one by itself: with words before it ("a cat Steps: 20"), a prompt runs into settings."""
    first = line.partition(":")[0].strip().lower()
    return 0 < len(first) <= 40 and not any(first.endswith(key) and first != key for key in _COMMON)


def _joined_settings(lines: list[str], at: int) -> tuple[str, list[str]]:
    """The settings, with the following lines when a quoted value runs over a line break, and what stands after them."""
    end = at + 1
    while end < len(lines) and end - at < 500 and _opens_quote(lines[at:end]):
        end += 1
    if end - at > 1 and _opens_quote(lines[at:end]):
        end = at + 1
    if end - at == 1:
        while end < len(lines) and end - at < 100 and _COMMON_PAIR.match(lines[end]):  # one setting a line
            end += 1
        if end - at > 1:
            return ", ".join(line.strip(" \t,") for line in lines[at:end]), lines[end:]
    return "\n".join(lines[at:end]).strip(" \t"), lines[end:]


_COMMON_PAIR = re.compile(
    r"[ \t]*(?:Steps|Sampler|Schedule type|CFG scale|Seed|Size|Model|Model hash|VAE|VAE hash|Clip skip|"
    r"Denoising strength|Version|ENSD|RNG|Hires \w{3,12})[ \t]*:[ \t]*\S",
    re.IGNORECASE,
)


def _opens_quote(lines: list[str]) -> bool:
    line = lines[-1].replace("\\\\", "").replace('\\"', "")
    return (line.count('"') % 2 == 1) if len(lines) == 1 else line.count('"') % 2 == 0


def _prompts(lines: list[str]) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, template lines) of the lines before the settings."""
    lines, templates = _templates(lines)
    for index, line in enumerate(lines):
        label = _NEGATIVE.match(line)
        if label:
            first = line[label.end() :]
            return _joined(lines[:index]), _joined([first, *lines[index + 1 :]]), templates
    return _joined(lines), "", templates


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).strip("\n")


def _templates(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """Dynamic prompts' and SD.Next's `Template:` blocks: the prompt before its wildcards were filled in."""
    kept: list[str] = []
    templates: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        bare = line.lstrip(" \t")
        name = next((name for name in _TEMPLATES if bare.startswith(name)), None)
        if name is not None:
            current = templates.setdefault(name[:-1], [])
            current.append(bare[len(name) :].removeprefix(" "))
        elif current is not None and not _NEGATIVE.match(bare):
            current.append(line)
        else:
            current = None
            kept.append(line)
    return kept, {name: _joined(value) for name, value in templates.items()}


# --- reading: settings ------------------------------------------------------------------------------------------------


def read_settings(line: str) -> dict[str, Any]:
    """`key: value, …` → dict in order. Values are strings, or objects and lists where JSON was written bare."""
    settings: dict[str, Any] = {}
    position, bad_json = 0, 0
    colon = line.find(":")
    while position < len(line) and len(settings) < MAX_SETTINGS:
        if 0 <= colon < position:
            colon = line.find(":", position)
        comma = line.find(",", position)
        if colon < 0 or 0 <= comma < colon:  # a word without a value: written when key and value are equal
            end = comma if comma >= 0 else len(line)
            word = line[position:end].strip()
            if word:
                settings.setdefault(word, word)
            position = end + 1
            continue
        key = line[position:colon].strip()
        start = colon + 1
        while start < len(line) and line[start] in " \t":
            start += 1
        value: Any = None
        end = -1
        if line[start : start + 1] in ('"', "{", "[") and bad_json < 20:
            value, end = _json_value(line, start)
            bad_json += end < 0
        if end < 0:
            end = line.find(",", start)
            end = len(line) if end < 0 else end
            value = line[start:end].strip()
        if key:
            settings[key] = value
        position = end + 1
    return settings


def _json_value(line: str, start: int) -> tuple[Any, int]:
    """A JSON value and the offset of the comma after it; (None, -1) when it is none or other text follows it."""
    try:
        value, end = v.DECODER.raw_decode(line, start)
    except (ValueError, RecursionError):
        return None, -1
    while end < len(line) and line[end] in " \t\n":
        end += 1
    return (value, end) if end == len(line) or line[end] == "," else (None, -1)


def pairs(value: Any) -> dict[str, str]:
    """`name: hash, other: hash` (A1111's quoted lists) or a JSON object → dict of strings."""
    if isinstance(value, Mapping):
        return {str(name): text for name, text in value.items() if isinstance(text, str)}
    if not isinstance(value, str):
        return {}
    found: dict[str, str] = {}
    for item in value.split(","):
        name, colon, text = item.rpartition(":")
        name = name.strip(" \"'")
        if colon and name:
            found[name] = text.strip(" \"'")
    return found


def _file_hashes(value: Any) -> dict[str, str]:
    """`pairs` of a list of files: a prefix some versions wrote is cut, and a weight that Fooocus wrote third."""
    found: dict[str, str] = {}
    for name, text in pairs(value).items():
        for prefix in ("lora:", "embed:", "hypernet:"):
            name = name.removeprefix(prefix)
        before, colon, digest = name.rpartition(":")
        if colon and v.file_hash(digest) and v.to_float(text) is not None:
            name, text = before.strip(), digest.strip()
        found[name] = text
    return found


def _third(value: Any) -> dict[str, str]:
    """The weights of a list that early Fooocus wrote as `name: hash: weight`."""
    parts = ((*name.rpartition(":")[::2], text) for name, text in pairs(value).items())
    return {name.strip(): text for name, digest, text in parts if name and v.file_hash(digest)}


class _Settings:
    """Look-ups that do not mind the case of a key ("CFG Scale")."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.raw = settings
        self._by_lower = {key.lower(): value for key, value in reversed(list(settings.items()))}

    def get(self, *keys: str) -> Any:
        return next((self._by_lower[key] for key in keys if key in self._by_lower), None)

    def text(self, *keys: str) -> str | None:
        return v.to_text(self.get(*keys))

    def int(self, *keys: str) -> int | None:
        return v.to_int(self.get(*keys))

    def float(self, *keys: str) -> float | None:
        return v.to_float(self.get(*keys))

    def numbered(self, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], Any]]:
        for key, value in self.raw.items():
            match = pattern.match(key)
            if match:
                yield match, value


def from_settings(
    prompt: str, negative: str, settings: Mapping[str, Any], *, embedded: Embedded | None = None
) -> GenerationParameters:
    """Parameters of prompts and a settings line already split. `settings` becomes `raw`."""
    known = _Settings(settings)
    width, height = v.size(known.get("size"))
    if width is None:
        width, height = v.positive(known.int("width", "size-1")), v.positive(known.int("height", "size-2"))
    hires = _hires(known)
    first = v.size(known.get("first pass size"))
    if first[0] and first[1]:  # before January 2023: Size was the final size
        hires = Hires(width=width, height=height, denoise=known.float("denoising strength"))
        width, height = first
    hashes = _hash_settings(known)
    values: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": v.positive(known.int("steps")),
        **v.sampler_fields(known.get("sampler"), _schedule(known)),
        "cfg_scale": known.float("cfg scale"),
        "distilled_cfg": known.float("distilled cfg scale", "guidance"),
        "seed": known.int("seed"),
        "width": v.positive(width),
        "height": v.positive(height),
        "clip_skip": v.positive(known.int("clip skip")),
        "denoise": known.float("denoising strength", "denoise"),
        "hires": hires,
        "refiner": _refiner(known),
        "subseed": known.int("variation seed"),
        "subseed_strength": known.float("variation seed strength", "variation strength"),
        "ensd": known.int("ensd"),
        "eta": known.float("eta"),
        "rng": _rng(known.text("rng")),
        "resources": v.merge_versions(_resources(known, prompt, hashes)),
    }
    said = {name for name, value in values.items() if value not in (None, "", ())}
    return GenerationParameters(
        **values,
        generator=_generator(known, values["sampler_label"], embedded),
        raw=MappingProxyType(dict(settings)),
        sources=MappingProxyType(dict.fromkeys((*sorted(said), "raw"), "infotext")),
        warnings=v.hash_warning(hashes),
    )


def _schedule(known: _Settings) -> str | None:
    """`Scheduler` is Fooocus' schedule, and elsewhere a class of diffusers."""
    scheduler = known.text("scheduler")
    return known.text("schedule type") or (scheduler if schedule_name(scheduler) else None)


def _rng(text: str | None) -> str | None:
    """A1111 writes CPU and NV; GPU is its default and never written. stable-diffusion.cpp's "cuda" draws as NV does."""
    lower = (text or "").lower()
    return {"cpu": "cpu", "nv": "nv", "gpu": "gpu", "cuda": "nv"}.get(lower)


def _hires(known: _Settings) -> Hires | None:
    resize = v.size(known.get("hires resize", "hires size"))
    resize = resize if any(resize) else (None, None)
    sampler, joined = sampler_name(known.text("hires sampler"))
    checkpoint = known.text("hires checkpoint")
    hires = Hires(
        upscale=known.float("hires upscale", "hires scale"),
        width=resize[0],
        height=resize[1],
        steps=v.positive(known.int("hires steps")),
        upscaler=known.text("hires upscaler"),
        denoise=known.float("hires strength"),
        sampler=sampler,
        schedule=schedule_name(known.text("hires schedule type")) or joined,
        prompt=known.text("hires prompt"),
        negative_prompt=known.text("hires negative prompt"),
        cfg_scale=known.float("hires cfg scale"),
        checkpoint=None if checkpoint == "Use same checkpoint" else _name_and_hash(checkpoint)[0],
    )
    if hires == Hires(denoise=hires.denoise, cfg_scale=hires.cfg_scale):
        return None  # nothing says that there was a second pass
    denoise = hires.denoise if hires.denoise is not None else known.float("denoising strength")
    return Hires(**{**hires.to_json(), "denoise": denoise})


_NAME_AND_HASH = re.compile(r"(.{1,512}?)\s?[\[(]([0-9a-fA-F]{6,64})[\])]\Z", re.DOTALL)


def _name_and_hash(text: str | None) -> tuple[str | None, str | None]:
    """("sd_xl_refiner_1.0", "7440042bbd") of "sd_xl_refiner_1.0 [7440042bbd]"."""
    match = _NAME_AND_HASH.match(text[:600]) if text else None
    return (v.stem(match[1]), v.file_hash(match[2])) if match else (v.stem(text), None)


def _refiner(known: _Settings) -> Refiner | None:
    name, found = _name_and_hash(known.text("refiner"))
    if name is None or name == "None":
        return None
    return Refiner(
        checkpoint=name,
        hash=found or v.file_hash(known.get("refiner hash")),
        switch_at=known.float("refiner switch at", "refiner switch", "refiner start"),
    )


# --- reading: resources -----------------------------------------------------------------------------------------------

TAG = re.compile(r"<(lora|lyco|hypernet):([^:<>]{1,512})(?::([^<>]{0,256}))?>")
_LORA_KEY = re.compile(r"Lora_(\d{1,3}) Model name\Z")
_EMBEDDING_KEY = re.compile(r"Embedding_(\d{1,3}) name\Z")
_ADDNET_KEY = re.compile(r"AddNet Model (\d{1,2})\Z")
_MODULE_KEY = re.compile(r"Module \d{1,2}\Z")
_CONTROLNET_KEY = re.compile(r"ControlNet(?: \d{1,2})?\Z")
_CONTROLNET_MODEL = re.compile(r"(ControlNet(?:-\d{1,2})?) Model\Z")
_USED_EMBEDDING = re.compile(r"([^,\[\]]{1,200}?) ?\[([0-9a-f]{4,10})\]")
_HASHES_KINDS = {"lora": "lora", "lyco": "lycoris", "embed": "embedding", "hypernet": "hypernetwork"}


def prompt_resources(prompt: str) -> Iterator[ResourceRef]:
    """LoRAs and hypernetworks named by tags: `<lora:name:te:unet>`, `<lora:name:0.8>`, `<lora:name:te=0:unet=1>`."""
    for match in TAG.finditer(prompt):
        kind = {"lora": "lora", "lyco": "lycoris", "hypernet": "hypernetwork"}[match[1]]
        weight, weight_te = _tag_weights((match[3] or "").split(":"))
        yield ResourceRef(kind=kind, name=match[2].strip(), weight=weight, weight_te=weight_te)


def _tag_weights(arguments: list[str]) -> tuple[float | None, float | None]:
    """(UNet weight, text-encoder weight when it differs in being given apart); 1.0 when a tag gives none."""
    positional = [v.to_float(argument) for argument in arguments if "=" not in argument]
    named = {key.strip(): v.to_float(value) for key, _, value in (item.partition("=") for item in arguments)}
    te = named.get("te", positional[0] if positional else None)
    unet = named.get("unet", positional[1] if len(positional) > 1 else None)
    if unet is None:
        return (te if te is not None else 1.0), None
    return unet, te


def _hash_settings(known: _Settings) -> dict[str, str]:
    """Every hash by what it belongs to: "model", "vae", "lora:NAME", "embed:NAME"."""
    hashes = {name: str(known.get(f"{name} hash")) for name in ("model", "vae") if known.get(f"{name} hash")}
    hashes |= {f"lora:{name}": text for name, text in _file_hashes(known.get("lora hashes")).items()}
    hashes |= {f"embed:{name}": text for name, text in _file_hashes(known.get("ti hashes")).items()}
    block = known.get("hashes")
    for name, text in (pairs(block) if isinstance(block, Mapping) else {}).items():
        hashes.setdefault(name, text)
    return hashes


def _resources(known: _Settings, prompt: str, hashes: Mapping[str, str]) -> Iterator[ResourceRef]:
    model = known.text("model")
    if model is not None or "model" in hashes:
        yield _model(model, hashes.get("model"))
    vae = known.text("vae")
    if vae not in (None, "None", "Automatic", "Default (model)", "none"):
        yield ResourceRef(kind="vae", name=v.stem(vae), hash=v.file_hash(hashes.get("vae")))
    for tag in prompt_resources(prompt):
        yield ResourceRef(**{**tag.to_json(), "hash": v.file_hash(hashes.get(f"lora:{tag.name}"))})
    weights = (pairs(known.get("lora networks")), pairs(known.get("lora weights")), _third(known.get("lora hashes")))
    for name, text in (item for listed in weights for item in listed.items()):
        if v.to_float(text) is not None:
            digest = v.file_hash(hashes.get(f"lora:{name}"))
            yield ResourceRef(kind="lora", name=v.stem(name), weight=v.to_float(text), hash=digest)
    for match, name in known.numbered(_LORA_KEY):
        yield _numbered_lora(known, match[1], name)
    for name, text in hashes.items():
        word, _, file = name.partition(":")
        if file and word.lower() in _HASHES_KINDS:
            yield ResourceRef(kind=_HASHES_KINDS[word.lower()], name=v.stem(file), hash=v.file_hash(text))
    for name in f"{known.text('ti') or ''},{known.text('embeddings') or ''}".split(","):
        if name.strip():
            yield ResourceRef(kind="embedding", name=v.stem(name))
    for match, name in known.numbered(_EMBEDDING_KEY):
        found = v.file_hash(known.get(f"embedding_{match[1]} hash"))
        yield ResourceRef(kind="embedding", name=v.stem(name), hash=found)
    yield from _old_and_other_resources(known)
    resources = known.get("civitai resources")
    yield from civitai_resources(resources if isinstance(resources, list) else [])


def _model(name: str | None, text: str | None) -> ResourceRef:
    air = v.air_resource(name) if name else None
    if air is not None:
        return air
    return ResourceRef(kind="checkpoint", name=v.stem(name), hash=v.file_hash(text))


def _numbered_lora(known: _Settings, number: str, name: Any) -> ResourceRef:
    """`Lora_0 Model name: …` of ComfyUI's saver nodes."""
    return ResourceRef(
        kind="lora",
        name=v.stem(name),
        weight=known.float(f"lora_{number} strength model"),
        weight_te=known.float(f"lora_{number} strength clip"),
        hash=v.file_hash(known.get(f"lora_{number} model hash")),
    )


def _old_and_other_resources(known: _Settings) -> Iterator[ResourceRef]:
    """The refiner, hypernet keys, the additional-networks extension, Forge's modules and ControlNet units."""
    refiner = _refiner(known)
    if refiner is not None:
        yield ResourceRef(kind="refiner", name=refiner.checkpoint, hash=refiner.hash)
    hypernet = known.text("hypernet")
    if hypernet:
        name, found = _name_and_hash(hypernet)
        yield ResourceRef(kind="hypernetwork", name=name, hash=found, weight=known.float("hypernet strength"))
    for match, text in known.numbered(_ADDNET_KEY):
        name, found = _name_and_hash(v.to_text(text))
        if name and name != "None":
            weight = known.float(f"addnet weight a {match[1]}", f"addnet weight {match[1]}")
            yield ResourceRef(kind="lora", name=name, hash=found, weight=weight)
    for _, text in known.numbered(_MODULE_KEY):
        module = v.stem(text)
        if module not in (None, "None", "Built-in", "Use same choices"):
            is_vae = "vae" in module.lower() or module.lower() == "ae"
            yield ResourceRef(kind="vae" if is_vae else "text_encoder", name=module)
    for _, text in known.numbered(_CONTROLNET_KEY):
        unit = _Settings(read_settings(text) if isinstance(text, str) else {})
        name, found = _name_and_hash(unit.text("model"))
        if name and name != "None":
            yield ResourceRef(kind="controlnet", name=name, hash=found, weight=unit.float("weight"))

    for match, text in known.numbered(_CONTROLNET_MODEL):  # 2023: one key for each of its settings
        name, found = _name_and_hash(v.to_text(text))
        if name and name != "None":
            weight = known.float(f"{match[1].lower()} weight")
            yield ResourceRef(kind="controlnet", name=name, hash=found, weight=weight)
    for match in _USED_EMBEDDING.finditer((known.text("used embeddings") or "")[:10_000]):
        yield ResourceRef(kind="embedding", name=match[1].strip(), hash=v.file_hash(match[2]))


def civitai_resources(items: list[Any]) -> Iterator[ResourceRef]:
    """`Civitai resources` / `civitaiResources`: type, weight and a version id or an AIR."""
    for item in items[:256]:
        if not isinstance(item, Mapping):
            continue
        weight = item.get("weight", item.get("strength"))
        air = v.air_resource(str(item.get("air") or ""), weight)
        version = v.to_int(item.get("modelVersionId"))
        if air is None and version is None:
            continue
        # `modelName` is a title, not a file's name, so it stays in `raw`
        yield air or ResourceRef(v.kind_of(item.get("type")), weight=v.to_float(weight), version_id=version)


# --- reading: which program -------------------------------------------------------------------------------------------

_A1111_VERSION = re.compile(r"v?1\.\d{1,2}\.\d{1,3}(?![0-9])")
_COMMIT = re.compile(r"[0-9a-f]{7,8}\Z")
_COMFY_SAMPLER = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)+\Z")


def _generator(known: _Settings, label: str | None, embedded: Embedded | None) -> Generator:
    """Decided from what only one program writes; a bare settings line of old is A1111 without a version."""
    version = known.text("version")
    app = known.text("app")
    if app:
        return Generator(app, version)
    if embedded is not None and {"parameters-json", "smproj"} & embedded.texts.keys():
        return Generator("Stability Matrix", version)
    if version is None:
        if known.get("civitai resources") is not None or known.get("created date") is not None:
            return Generator("Civitai")
        saved_by_comfy = isinstance(known.get("hashes"), Mapping) or any(key.startswith("Lora_0 ") for key in known.raw)
        return Generator("ComfyUI" if saved_by_comfy or is_comfy_sampler(label) else "A1111")
    return Generator(*_program(version))


def is_comfy_sampler(label: str | None) -> bool:
    """Whether a label has the form of ComfyUI's ids ("dpmpp_2m"); "euler" could be anyone's."""
    return label is not None and _COMFY_SAMPLER.match(label) is not None


def _program(version: str) -> tuple[str, str | None]:
    lower = version.lower()
    for mark, name in (("classic", "Forge Classic"), ("neo", "Forge Neo")):
        if lower.startswith(mark):
            return name, version
    if lower[:1] == "f" and lower[1:2].isdigit():  # f0 and f2 are Forge; the f1 line was taken up by reForge
        return ("reForge" if lower[1] == "1" else "Forge"), version
    if _A1111_VERSION.match(version):
        return "A1111", version
    if _COMMIT.match(version):
        return "SD.Next", version
    name, _, number = version.partition(" ")
    return (name, number.strip() or None) if name[:1].isalpha() and not name[1:2].isdigit() else ("A1111", version)


# --- writing ----------------------------------------------------------------------------------------------------------

_KEPT_KEYS = (
    "Sigma churn", "Sigma tmin", "Sigma tmax", "Sigma noise", "Eta DDIM", "Schedule min sigma", "Schedule max sigma",
    "Schedule rho", "Discard penultimate sigma", "SGM noise multiplier", "Seed resize from", "Emphasis", "NGMS",
    "NGMS all steps", "Skip Early CFG", "Noise multiplier", "Extra noise", "Noise Schedule", "Downcast alphas_cumprod",
    "Pad conds", "Pad conds v0", "Old prompt editing timelines", "Tiling", "UniPC variant", "UniPC skip type",
    "UniPC order", "UniPC lower order final", "Beta schedule alpha", "Beta schedule beta", "Token merging ratio",
    "Token merging ratio hr", "Mask blur", "Inpaint area", "Masked area padding", "Masked content", "Mask mode",
    "VAE Encoder", "VAE Decoder",
)  # fmt: skip
"""Settings that change a run and have no field of their own: written from `raw` whoever wrote it."""

_COMPACT_JSON = ("civitai resources", "civitai metadata")
_NEVER_QUOTED = ("created date",)  # Civitai writes its date bare


def write(parameters: GenerationParameters) -> str:
    """Infotext of any parameters.

    What came from infotext keeps its settings, their order and spelling; only changed fields are written anew. For
    other sources LoRAs become tags in the prompt, which is how every program that reads infotext applies them.
    """
    entries = _entries(parameters)
    prompt, negative_prompt = parameters.prompt, parameters.negative_prompt
    if parameters.sources.get("raw") == "infotext":
        settings = _updated(parameters, entries)
        whole = settings.pop(WHOLE, None)
        if isinstance(whole, str) and _says(whole, prompt, negative_prompt, settings):
            return whole
    else:
        settings = entries
        prompt = _with_tags(parameters)
        prompt, negative_prompt = _in_our_syntax(parameters, prompt), _in_our_syntax(parameters, negative_prompt)
    return _composed(prompt, negative_prompt, settings)


def _says(text: str, prompt: str, negative_prompt: str, settings: Mapping[str, Any]) -> bool:
    """Whether a text still says all of this, so that it can be given back as it was."""
    try:
        said = parse(text)
    except NoParameters:
        return False
    same = (said.prompt, said.negative_prompt) == (prompt, negative_prompt)
    return same and {key: value for key, value in said.raw.items() if key != WHOLE} == settings


def _composed(prompt: str, negative_prompt: str, settings: Mapping[str, Any]) -> str:
    settings = dict(settings)
    first = [f"{key}: {settings.pop(key)}" for key in _leading_templates(settings)]
    last = [f"{name}: {settings.pop(name)}" for name in ("Template", "Negative Template") if name in settings]
    line = ", ".join(
        key if key == value else f"{key}: {_written(key, value)}"
        for key, value in settings.items()
        if value is not None
    )
    negative = f"{NEGATIVE} {negative_prompt}" if negative_prompt else None
    return "\n".join(part for part in (prompt, negative, *first, line, *last) if part)


def _leading_templates(settings: Mapping[str, Any]) -> list[str]:
    """Template keys that stood before the settings line (SD.Next); they come first in `raw`."""
    leading = []
    for key in settings:
        if f"{key}:" not in _TEMPLATES:
            break
        leading.append(key)
    return leading


def _updated(parameters: GenerationParameters, entries: dict[str, Any]) -> dict[str, Any]:
    """The settings as read, with those replaced, dropped or added whose fields were changed since."""
    before = _entries(from_settings(parameters.prompt, parameters.negative_prompt, parameters.raw))
    settings = dict(parameters.raw)
    spelling = {key.lower(): key for key in settings}
    for key in {**before, **entries}:
        if before.get(key) == entries.get(key) or key == "Version":
            continue
        settings[spelling.get(key.lower(), key)] = entries.get(key)
    return {key: value for key, value in settings.items() if value is not None}


def _written(key: str, value: Any) -> str:
    if isinstance(value, dict | list):
        separators = (",", ":") if key.lower() in _COMPACT_JSON else None
        return json.dumps(value, ensure_ascii=False, separators=separators)
    text = _number(value)
    quoted = any(char in text for char in ",\n:") and key.lower() not in _NEVER_QUOTED
    return json.dumps(text, ensure_ascii=False) if quoted else text


def _number(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _entries(parameters: GenerationParameters) -> dict[str, Any]:
    """The settings line's entries in A1111's order, from fields alone."""
    p = parameters
    model = next(iter(p.of_kind("checkpoint", "unet")), ResourceRef("checkpoint"))
    vae = next(iter(p.of_kind("vae")), ResourceRef("vae"))
    entries: dict[str, Any] = {
        "Steps": p.steps,
        "Sampler": sampler_label(p.sampler) if p.sampler in SAMPLERS else p.sampler_label,
        "Schedule type": _schedule_entry(p),
        "CFG scale": p.cfg_scale,
        "Distilled CFG Scale": p.distilled_cfg,
        "Seed": p.seed,
        "Size": f"{p.width}x{p.height}" if p.width and p.height else None,
        "Model hash": model.hash,
        "Model": model.name or model.air,
        "VAE hash": vae.hash,
        "VAE": vae.name,
        "Denoising strength": p.denoise if p.hires is None or p.hires.denoise is None else p.hires.denoise,
        "Clip skip": p.clip_skip,
        "Variation seed": p.subseed,
        "Variation seed strength": p.subseed_strength,
        "ENSD": p.ensd,
        "Eta": p.eta,
        "RNG": {"cpu": "CPU", "nv": "NV", "gpu": "GPU"}.get(p.rng or ""),
        **_hires_entries(p.hires),
        **_refiner_entries(p.refiner),
        "Lora hashes": _hash_list(p, "lora", "lycoris"),
        "TI hashes": _hash_list(p, "embedding"),
        **{key: p.raw[key] for key in _KEPT_KEYS if isinstance(p.raw.get(key), str | int | float)},
        "App": "SD.Next" if p.generator.name == "SD.Next" else None,
        "Version": _version_entry(p.generator),
    }
    return {key: value for key, value in entries.items() if value is not None}


_VERSION_ALONE = ("A1111", "Forge", "reForge", "Forge Neo", "Forge Classic", "SD.Next")


def _version_entry(generator: Generator) -> str | None:
    """WebUIs write their version alone; it says which of them it is."""
    if generator.name in _VERSION_ALONE:
        return generator.version
    return " ".join(part for part in (generator.name, generator.version) if part) or None


def _schedule_entry(p: GenerationParameters) -> str | None:
    if p.schedule is not None:
        return schedule_label(p.schedule) if p.schedule in SCHEDULES else p.schedule
    return p.schedule_label


def _hires_entries(hires: Hires | None) -> dict[str, Any]:
    if hires is None:
        return {}
    resize = f"{hires.width or 0}x{hires.height or 0}" if hires.width or hires.height else None
    return {
        "Hires upscale": hires.upscale,
        "Hires resize": resize if hires.upscale is None else None,
        "Hires steps": hires.steps,
        "Hires upscaler": hires.upscaler,
        "Hires sampler": sampler_label(hires.sampler) if hires.sampler else None,
        "Hires schedule type": schedule_label(hires.schedule) if hires.schedule else None,
        "Hires checkpoint": hires.checkpoint,
        "Hires prompt": hires.prompt,
        "Hires negative prompt": hires.negative_prompt,
        "Hires CFG Scale": hires.cfg_scale,
    }


def _refiner_entries(refiner: Refiner | None) -> dict[str, Any]:
    if refiner is None or not refiner.checkpoint:
        return {}
    name = f"{refiner.checkpoint} [{refiner.hash}]" if refiner.hash else refiner.checkpoint
    return {"Refiner": name, "Refiner switch at": refiner.switch_at}


def _hash_list(p: GenerationParameters, *kinds: str) -> str | None:
    return ", ".join(f"{r.name}: {r.hash}" for r in p.of_kind(*kinds) if r.name and r.hash) or None


def _with_tags(p: GenerationParameters) -> str:
    tagged = {resource.name for resource in prompt_resources(p.prompt)}
    tags = [
        _tag(resource) for resource in p.of_kind("lora", "lycoris") if resource.name and resource.name not in tagged
    ]
    return p.prompt + "".join(tags)


def _in_our_syntax(p: GenerationParameters, text: str) -> str:
    """NovelAI's numeric weights and ComfyUI's marks of embeddings as A1111 writes both."""
    if p.generator.name == "NovelAI":
        from hubctl.infotext.novelai import numeric_weights

        return numeric_weights(text)
    return text.replace("embedding:", "") if p.generator.name == "ComfyUI" else text


def _tag(resource: ResourceRef) -> str:
    weight = resource.weight if resource.weight is not None else 1.0
    if resource.weight_te is None or resource.weight_te == weight:
        return f"<lora:{resource.name}:{_number(weight)}>"
    return f"<lora:{resource.name}:{_number(resource.weight_te)}:{_number(weight)}>"

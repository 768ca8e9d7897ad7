"""Recommended settings: what a creator says and what the example images agree on, with the proof of each value.

    settle(version, examples, facts, user, …)  →  RecommendedSettings     weight, sampler, steps, CFG, size, …

Three witnesses are heard. The example images of the version vote: robust statistics, where an image with many reactions
counts up to three times and one that differs from all others is named as an outlier instead of moving the value. The
creator's text is read by `advice`. The file's header knows how it was trained. Where creator and images agree the value
has both as its source; where they differ the creator's clear word wins and the difference is written down. What the
user set wins over everybody.

    {"weight": {"value": 0.8, "low": 0.7, "high": 0.9, "source": "creator+images", "n": 12, "confidence": 0.91, …}}
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath
from typing import Any

from hubctl import advice
from hubctl.advice import BAKED_IN, Said, Subject
from hubctl.parameters import GenerationParameters, ResourceRef, sampler_name, schedule_name
from registry import wire

FIELDS = (
    "weight", "sampler", "schedule", "steps", "cfg_scale", "distilled_cfg", "clip_skip", "size", "vae", "hires",
    "adetailer", "base_checkpoint", "negative_embeddings", "negative_prompt",
)  # fmt: skip
MAX_EXAMPLES = 200
MAX_EVIDENCE = 4

TOLERANCE = {"weight": 0.1, "cfg_scale": 1.0, "distilled_cfg": 0.5, "steps": 5}
HIRES_TOLERANCE = {"upscale": 0.25, "denoise": 0.1, "steps": 5}
"""How far apart two values may be and still mean the same."""


@dataclass(frozen=True)
class Setting:
    """One recommended value, and why."""

    value: Any
    source: str  # creator · images · creator+images · header · user
    confidence: float  # how often such a value proved right: see docs/recommend.md
    low: float | None = None  # the creator's range, else where the middle 80 % of the images lie
    high: float | None = None
    n: int = 0  # example images that say something about it
    share: float | None = None  # how many of these agree, weighted
    evidence: tuple[str, ...] = ()
    outliers: tuple[Any, ...] = ()
    alternatives: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in out.items()}


@dataclass(frozen=True)
class RecommendedSettings:
    """Settings by name, in the order of `FIELDS`; only those somebody said something about."""

    settings: Mapping[str, Setting] = field(default_factory=dict)
    examples: int = 0

    def value(self, name: str, default: Any = None) -> Any:
        setting = self.settings.get(name)
        return default if setting is None else setting.value

    def to_json(self) -> dict[str, Any]:
        return {name: setting.to_json() for name, setting in self.settings.items()}


def settle(
    version: wire.ModelVersion,
    examples: Sequence[tuple[GenerationParameters, int]],
    facts: Any,
    user: Mapping[str, Any] | None,
    *,
    model_description: str | None = None,
    file_stem: str | None = None,
    model_type: str | None = None,
    model_name: str | None = None,
) -> RecommendedSettings:
    """Weigh everything that is known about how to use a version.

    `examples` are (parameters, reactions) of its example images; `facts` is a `registry.detect.FileFacts`, its JSON or
    None; `user` maps names of `FIELDS` to the user's own values. Never raises on what strangers wrote.
    """
    header = _header(facts)
    own = _Own.of(version, header, model_type, model_name, file_stem)
    said = _said(version, model_description, header, own.subject)
    seen = _seen(list(examples)[:MAX_EXAMPLES], own)
    settled: dict[str, Setting] = {}
    for name in FIELDS:
        if name == "weight" and not own.subject.has_weight:
            continue
        if name == "base_checkpoint" and own.subject.kind == "checkpoint":
            continue
        setting = _MERGED[name](name, said, seen) if name in _MERGED else _numeric(name, said[name], seen.get(name))
        setting = setting or _from_header(name, header, own)
        if setting is not None:
            settled[name] = setting
    if (sampler := settled.get("sampler")) and (schedule := _schedule(sampler, said, seen)):
        settled["schedule"] = schedule
    if _says_nothing_more(settled.get("negative_prompt"), settled.get("negative_embeddings")):
        del settled["negative_prompt"]
    for name, value in (user or {}).items():
        if name in FIELDS and value is not None:
            settled[name] = _users(name, value, settled.get(name))
    ordered = {name: settled[name] for name in FIELDS if name in settled}
    return RecommendedSettings(ordered, len(examples))


def _says_nothing_more(prompt: Setting | None, embeddings: Setting | None) -> bool:
    """Whether a negative prompt only names the embeddings that are listed anyway."""
    if prompt is None or embeddings is None:
        return False
    return {part.strip().casefold() for part in str(prompt.value).split(",")} <= {
        e.casefold() for e in embeddings.value
    }


def _users(name: str, value: Any, otherwise: Setting | None) -> Setting:
    if name == "sampler":
        value = sampler_name(str(value))[0] or value
    elif name == "schedule":
        value = schedule_name(str(value)) or value
    evidence: tuple[str, ...] = ("your own value",)
    if otherwise is not None and otherwise.value != value:
        evidence += (f"{otherwise.source} would be {shown(name, otherwise.value)}",)
    return Setting(value, "user", 1.0, evidence=evidence)


def shown(name: str, value: Any) -> str:
    """A value as a person writes it: `512×768`, `DPM++ 2M`, `0.8`."""
    from hubctl.parameters import sampler_label, schedule_label

    if name == "size" and isinstance(value, list | tuple):
        return "×".join(map(str, value))
    if name == "hires" and isinstance(value, Mapping):
        return _hires_text(value)
    if name == "sampler" and isinstance(value, str):
        return sampler_label(value)
    if name == "schedule" and isinstance(value, str):
        return schedule_label(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hires_text(value: Mapping[str, Any]) -> str:
    parts = []
    if value.get("upscale"):
        parts.append(f"×{value['upscale']:g}")
    if value.get("upscaler"):
        parts.append(str(value["upscaler"]))
    if value.get("denoise") is not None:
        parts.append(f"denoise {value['denoise']:g}")
    if value.get("steps"):
        parts.append(f"{value['steps']} steps")
    return ", ".join(parts) or "on"


def infotext_line(settings: Mapping[str, Any]) -> str:
    """Settings as the last line of an infotext, which web UIs read back with their paste button."""

    def value(name: str) -> Any:
        entry = settings.get(name)
        return entry.get("value") if isinstance(entry, Mapping) else entry

    sampler, schedule, hires = value("sampler"), value("schedule"), value("hires") or {}
    label = (
        f"{shown('sampler', sampler)} {shown('schedule', schedule) if schedule else ''}".strip() if sampler else None
    )
    vae = value("vae")
    pairs = (
        ("Steps", value("steps")),
        ("Sampler", label),
        ("CFG scale", value("cfg_scale")),
        ("Size", "x".join(map(str, value("size"))) if value("size") else None),
        ("Clip skip", value("clip_skip") if value("clip_skip") != 1 else None),
        ("VAE", vae if vae != BAKED_IN else None),
        ("Denoising strength", hires.get("denoise")),
        ("Hires upscale", hires.get("upscale")),
        ("Hires steps", hires.get("steps")),
        ("Hires upscaler", hires.get("upscaler")),
    )
    return ", ".join(f"{key}: {shown('', each)}" for key, each in pairs if each is not None)


# --- whose settings ---------------------------------------------------------------------------------------------------

_KINDS = {
    "lora": "lora", "locon": "lora", "dora": "lora", "lycoris": "lora", "checkpoint": "checkpoint",
    "textualinversion": "embedding", "embedding": "embedding", "hypernetwork": "hypernetwork",
}  # fmt: skip


@dataclass(frozen=True)
class _Own:
    """What tells this version's file apart from everybody else's."""

    subject: Subject
    version_id: int
    hashes: frozenset[str]
    stems: frozenset[str]  # squeezed
    cores: frozenset[str]  # squeezed, without version and training suffixes

    @classmethod
    def of(
        cls,
        version: wire.ModelVersion,
        header: Mapping[str, Any],
        model_type: str | None,
        model_name: str | None,
        file_stem: str | None,
    ) -> _Own:
        inner = version.model or {}
        name = model_name or str(inner.get("name") or "")
        stems = [_stem(file.name) for file in version.files if file.name] + ([file_stem] if file_stem else [])
        hashes = {
            value.lower()
            for file in version.files
            for value in file.hashes.values()
            if isinstance(value, str) and len(value) >= 8
        }
        known = header.get("hashes")
        hashes |= {v.lower() for v in (known.values() if isinstance(known, Mapping) else ()) if isinstance(v, str)}
        subject = Subject(
            _kind(version, model_type, header),
            (*stems, *([name] if name else [])),
            version.name,
            version.base_model or "",
            version.model_id,
        )
        cores = {core for each in (*stems, name) if len(core := _core(each)) >= 4}
        return cls(subject, version.id, frozenset(hashes), frozenset(_squeezed(s) for s in stems), frozenset(cores))

    def weight_in(self, parameters: GenerationParameters) -> float | None:
        """The weight an image used this file at; None when it does not name it. Never another file's."""
        found = [r for r in parameters.of_kind("lora", "lycoris", "hypernetwork") if self._is_mine(r)]
        if not found:  # a name from before the upload ("thing-000008"), when only one file is called alike
            found = [r for r in parameters.of_kind("lora", "lycoris") if self._is_alike(r)]
            found = found if len({_core(r.name or "") for r in found}) == 1 else []
        return next((r.weight for r in found if r.weight is not None), None)

    def _is_mine(self, resource: ResourceRef) -> bool:
        if resource.version_id is not None:
            return resource.version_id == self.version_id
        if resource.hash and any(
            mine.startswith(resource.hash) or resource.hash.startswith(mine) for mine in self.hashes
        ):
            return True
        return bool(resource.name) and _squeezed(_stem(resource.name or "")) in self.stems

    def _is_alike(self, resource: ResourceRef) -> bool:
        return resource.version_id is None and bool(resource.name) and _core(_stem(resource.name or "")) in self.cores

    def made(self, parameters: GenerationParameters) -> bool:
        """Whether an image can be this version's work: its checkpoint is not known to be another one."""
        if self.subject.kind != "checkpoint":
            return True
        named = [r.version_id for r in parameters.of_kind("checkpoint") if r.version_id is not None]
        return not named or self.version_id in named


def _kind(version: wire.ModelVersion, model_type: str | None, header: Mapping[str, Any]) -> str:
    inner = (version.model or {}).get("type")
    air = (version.air or "").split(":")
    for word in (model_type, inner, air[3] if len(air) > 4 else None, header.get("kind")):
        if isinstance(word, str) and (kind := _KINDS.get(word.lower().replace(" ", ""))):
            return kind
    return "other"


def _header(facts: Any) -> Mapping[str, Any]:
    data = facts if isinstance(facts, Mapping) else facts.to_json() if facts is not None else {}
    return data if isinstance(data, Mapping) else {}


def _stem(name: str) -> str:
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in {".safetensors", ".ckpt", ".pt", ".pth", ".bin"} else name


def _squeezed(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


_SUFFIX = re.compile(
    r"[-_ .]?(?:v(?:er)?\.?\s?\d{1,3}(?:[._]\d{1,3}){0,2}|\d{1,8}|fp16|fp32|bf16|pruned|final|beta|alpha"
    r"|e\d{1,3}|epoch\d{1,3}|step\d{1,6})$",
    re.IGNORECASE,
)


def _core(name: str) -> str:
    """A file's name without what a trainer or uploader appends: ArmorSuit_v01-000001 → armorsuit."""
    for _ in range(4):
        shorter = _SUFFIX.sub("", name)
        if shorter == name or len(shorter) < 4:
            break
        name = shorter
    return _squeezed(name)


# --- what the images say ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """The consensus of the images on one setting."""

    value: Any
    n: int
    share: float
    low: float | None = None
    high: float | None = None
    outliers: tuple[Any, ...] = ()
    alternatives: tuple[Any, ...] = ()

    @property
    def confidence(self) -> float:
        """Agreement, less when few were asked: one image alone is a hint, ten that agree are proof."""
        return round(min(0.95, self.share * self.n / (self.n + 0.7)), 2)


Vote = tuple[Any, float]


def reactions(stats: Mapping[str, Any] | None) -> int:
    """How many people reacted kindly to an image."""
    counts = (stats or {}).get
    return sum(value for key in ("likeCount", "heartCount", "laughCount") if isinstance(value := counts(key), int))


def vote_weight(reactions: int) -> float:
    """1 for an image nobody reacted to, 2 at nine reactions, never above 3."""
    return 1 + min(2.0, math.log10(1 + max(0, reactions)))


def consensus(votes: Sequence[Vote], tolerance: float) -> _Seen | None:
    """Robust centre of numbers: the value most use when half of them do, else the weighted median."""
    if not votes:
        return None
    kept, outliers = _without_outliers(votes, tolerance)
    total = sum(weight for _, weight in kept)
    by_value: dict[float, float] = defaultdict(float)
    for value, weight in kept:
        by_value[value] += weight
    most = max(by_value, key=lambda value: (by_value[value], -value))
    centre = most if by_value[most] >= 0.5 * total else quantile(kept, 0.5)
    near = sum(weight for value, weight in votes if abs(value - centre) <= tolerance + 1e-9)
    return _Seen(
        centre,
        len(votes),
        round(near / sum(weight for _, weight in votes), 3),
        quantile(kept, 0.1),
        quantile(kept, 0.9),
        tuple(sorted({value for value, _ in outliers})),
    )


def quantile(votes: Sequence[Vote], q: float) -> Any:
    """The weighted quantile that is one of the values."""
    ordered = sorted(votes)
    total, reached = sum(weight for _, weight in ordered), 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= q * total - 1e-9:
            return value
    return ordered[-1][0]


def _without_outliers(votes: Sequence[Vote], tolerance: float) -> tuple[list[Vote], list[Vote]]:
    """Values further from the median than three (robust) standard deviations; nobody is one among three."""
    if len(votes) < 4:
        return list(votes), []
    centre = quantile(votes, 0.5)
    deviation = quantile([(abs(value - centre), weight) for value, weight in votes], 0.5)
    limit = max(3 * 1.4826 * deviation, 2 * tolerance)
    kept = [vote for vote in votes if abs(vote[0] - centre) <= limit]
    return kept, [vote for vote in votes if abs(vote[0] - centre) > limit]


def _on_grid(size: Any) -> bool:
    """Whether a size is one people choose; others are left over from cutting and scaling."""
    return all(side % 64 == 0 for side in size)


def election(votes: Sequence[Vote], usual: Callable[[Any], bool] | None = None) -> _Seen | None:
    """The value with the most votes; of several, a usual one."""
    if not votes:
        return None
    counts: dict[Any, float] = defaultdict(float)
    for value, weight in votes:
        counts[value] += weight
    total = sum(counts.values())
    ranked = sorted(counts, key=lambda value: (-counts[value], usual is not None and not usual(value)))
    others = tuple(value for value in ranked[1:5] if counts[value] >= 0.1 * total)
    return _Seen(ranked[0], len(votes), round(counts[ranked[0]] / total, 3), alternatives=others)


def _seen(examples: Sequence[tuple[GenerationParameters, int]], own: _Own) -> dict[str, _Seen]:
    votes: dict[str, list[Vote]] = defaultdict(list)
    used = [(p, vote_weight(reactions)) for p, reactions in examples if own.made(p)]
    for parameters, weight in used:
        for name, value in _read(parameters, own):
            votes[name].append((value, weight))
    out: dict[str, _Seen | None] = {}
    for name, tolerance in TOLERANCE.items():
        out[name] = consensus(votes[name], tolerance)
    for part, tolerance in HIRES_TOLERANCE.items():
        out[f"hires.{part}"] = consensus(votes[f"hires.{part}"], tolerance)
    for name in ("sampler", "clip_skip", "size", "vae", "hires.use", "hires.upscaler", "base_checkpoint", "adetailer"):
        out[name] = election(votes[name], _on_grid if name == "size" else None)
    sampler = out["sampler"].value if out["sampler"] else None
    out["schedule"] = election([(value[1], weight) for value, weight in votes["schedule"] if value[0] == sampler])
    out["negative_embeddings"] = _shared_lists(votes["negative_embeddings"])
    out["negative_prompt"] = _shared_prompt(votes["negative_prompt"])
    return {name: seen for name, seen in out.items() if seen is not None}


def _read(p: GenerationParameters, own: _Own) -> Iterator[tuple[str, Any]]:
    """(setting, value) pairs of one image."""
    if (weight := own.weight_in(p)) is not None and abs(weight) <= 5:
        yield "weight", round(float(weight), 3)
    if p.sampler:
        yield "sampler", p.sampler
        yield "schedule", (p.sampler, p.schedule)
    if p.steps and 0 < p.steps <= 200:
        yield "steps", p.steps
    if p.cfg_scale is not None and 0 <= p.cfg_scale <= 50:
        yield "cfg_scale", float(p.cfg_scale)
    if p.distilled_cfg is not None:
        yield "distilled_cfg", float(p.distilled_cfg)
    if p.clip_skip is not None or (p.steps and p.sampler):  # writers leave out "Clip skip: 1"
        yield "clip_skip", p.clip_skip or 1
    if size := _first_pass_size(p, own.subject.base_model):
        yield "size", size
    for vae in p.of_kind("vae")[:1]:
        if vae.name and vae.name.lower() not in {"none", "automatic"}:
            yield "vae", vae.name
    yield from _read_hires(p)
    if own.subject.kind != "checkpoint":
        for checkpoint in p.of_kind("checkpoint")[:1]:
            if checkpoint.name:
                yield "base_checkpoint", checkpoint.name
    detector = p.raw.get("ADetailer model")
    if isinstance(detector, str):
        yield "adetailer", detector[:60]
    if p.negative_prompt.strip():
        yield "negative_prompt", " ".join(p.negative_prompt.split())[:2_000]
        yield "negative_embeddings", tuple(_embeddings_in(p))


def _read_hires(p: GenerationParameters) -> Iterator[tuple[str, Any]]:
    hires = p.hires
    second_pass = hires is not None and bool(hires.upscale or hires.upscaler or hires.width)
    if p.steps:
        yield "hires.use", second_pass
    if hires is None or not second_pass:
        return
    if hires.upscale and 1 < hires.upscale <= 8:
        yield "hires.upscale", float(hires.upscale)
    if hires.upscaler and hires.upscaler.lower() != "none":
        yield "hires.upscaler", hires.upscaler
    if hires.denoise is not None and 0 <= hires.denoise <= 1:
        yield "hires.denoise", float(hires.denoise)
    if hires.steps:
        yield "hires.steps", hires.steps


_MOST_PIXELS = {"sd1": 1.05e6, "sd2": 1.5e6}


def _first_pass_size(p: GenerationParameters, base_model: str) -> tuple[int, int] | None:
    """Width and height, unless they are those of an upscaled picture."""
    if not p.width or not p.height or min(p.width, p.height) < 32:
        return None
    most = _MOST_PIXELS.get(advice.base_family(base_model) or "", 2.6e6)
    return (p.width, p.height) if p.width * p.height <= most else None


def _embeddings_in(p: GenerationParameters) -> Iterator[str]:
    """Embeddings of an image that stand in its negative prompt."""
    negative = p.negative_prompt.casefold()
    for resource in p.of_kind("embedding"):
        if (
            resource.name
            and resource.name.casefold() in negative
            and resource.name.casefold() not in p.prompt.casefold()
        ):
            yield resource.name
    yield from advice.negative_embeddings(p.negative_prompt)


def _shared_lists(votes: Sequence[Vote]) -> _Seen | None:
    """What half of the images have in their list."""
    counts: dict[str, float] = defaultdict(float)
    spelled: dict[str, str] = {}
    everything = sum(weight for _, weight in votes) or 1.0
    for names, weight in votes:
        for key in {name.casefold(): name for name in reversed(names)}:
            spelled.setdefault(key, next(name for name in names if name.casefold() == key))
            counts[key] += weight
    common = sorted((key for key in counts if counts[key] >= 0.5 * everything), key=lambda key: -counts[key])
    if not common:
        return None
    share = min(counts[key] for key in common) / everything
    return _Seen([spelled[key] for key in common[:8]], len(votes), round(share, 3))


def _shared_prompt(votes: Sequence[Vote]) -> _Seen | None:
    """The negative prompt most images have, else the phrases three of five share."""
    same = election(votes)
    if same is None or (same.share >= 0.5 and len(votes) > 1):
        return replace(same, alternatives=()) if same else None
    counts: dict[str, float] = defaultdict(float)
    total = sum(weight for _, weight in votes)
    order: list[str] = []
    for text, weight in votes:
        for phrase in dict.fromkeys(part.strip() for part in text.split(",")[:100]):
            if phrase and phrase not in counts:
                order.append(phrase)
            counts[phrase] += weight if phrase else 0
    common = [phrase for phrase in order if counts[phrase] >= 0.6 * total]
    if len(votes) < 3 or len(common) < 2:
        return None
    return _Seen(", ".join(common[:60]), len(votes), round(min(counts[c] for c in common) / total, 3))


# --- what the creator says --------------------------------------------------------------------------------------------


def _said(
    version: wire.ModelVersion, description: str | None, header: Mapping[str, Any], subject: Subject
) -> dict[str, list[Said]]:
    """Statements by setting. What stands under "about this version" counts more than the model's page."""
    out: dict[str, list[Said]] = defaultdict(list)
    for text, bonus in ((version.description, 0.06), (description, 0.0)):
        for each in advice.read(text, subject):
            out[each.name].append(replace(each, confidence=round(min(0.95, each.confidence + bonus), 2)))
    for each in (*_hub_settings(version), *_usage_hint(header, subject)):
        out[each.name].append(each)
    return out


def _hub_settings(version: wire.ModelVersion) -> Iterator[Said]:
    """What the creator filled in on the hub: `clipSkip`, and `settings` where a hub gives them."""
    if version.clip_skip:
        yield Said("clip_skip", version.clip_skip, "clip skip given on the hub", 0.9)
    given = version.settings or {}
    weight, low, high = (_number(given.get(key)) for key in ("strength", "minStrength", "maxStrength"))
    if weight is not None and abs(weight) <= 5:
        yield Said("weight", weight, "strength given on the hub", 0.92, low, high)
    for key, name in (("steps", "steps"), ("cfgScale", "cfg_scale"), ("clipSkip", "clip_skip")):
        if (value := _number(given.get(key))) is not None:
            yield Said(name, int(value) if name != "cfg_scale" else value, f"{key} given on the hub", 0.92)
    if isinstance(given.get("sampler"), str):
        sampler, schedule = sampler_name(given["sampler"])
        if sampler:
            yield Said("sampler", sampler, "sampler given on the hub", 0.92)
        if schedule:
            yield Said("schedule", schedule, "sampler given on the hub", 0.92)


def _number(value: Any) -> float | None:
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def _usage_hint(header: Mapping[str, Any], subject: Subject) -> tuple[Said, ...]:
    metadata = header.get("metadata")
    hint = metadata.get("modelspec.usage_hint") if isinstance(metadata, Mapping) else None
    return advice.read(hint, subject) if isinstance(hint, str) else ()


def _from_header(name: str, header: Mapping[str, Any], own: _Own) -> Setting | None:
    """What the training leaves to be guessed, when nobody else says anything."""
    metadata = header.get("metadata")
    if not isinstance(metadata, Mapping) or own.subject.kind == "other":
        return None
    if name == "clip_skip":
        skip = str(metadata.get("ss_clip_skip") or metadata.get("modelspec.encoder_layer") or "")
        if skip.isascii() and skip.isdigit() and 1 <= int(skip) <= 12:
            return Setting(int(skip), "header", 0.4, evidence=(f"trained with clip skip {skip}",))
    elif name == "size":
        text = str(header.get("resolution") or metadata.get("ss_resolution") or "")
        found = re.search(r"(\d{3,4})\D{1,3}(\d{3,4})", text[:40])
        if found:
            size = [int(found[1]), int(found[2])]
            return Setting(size, "header", 0.35, evidence=(f"trained at {size[0]}×{size[1]}",))
    elif name == "base_checkpoint":
        model = metadata.get("ss_sd_model_name")
        if isinstance(model, str) and model.strip() and own.subject.kind != "checkpoint":
            return Setting(_stem(model)[:80], "header", 0.35, evidence=("trained on it",))
    return None


# --- joining ----------------------------------------------------------------------------------------------------------


def _numeric(name: str, said: Sequence[Said], seen: _Seen | None, tolerance: float | None = None) -> Setting | None:
    """A number: the creator's value or range, where the images lie in it, within the creator's limits."""
    tolerance = TOLERANCE.get(name, 0.0) if tolerance is None else tolerance
    floor = max((s.low for s in said if s.value is None and s.low is not None), default=None)
    ceiling = min((s.high for s in said if s.value is None and s.high is not None), default=None)
    word = _creators_number([s for s in said if s.value is not None])
    if word is None and seen is None:
        return None
    if word is None:
        assert seen is not None
        setting = _of_images(name, seen)
    elif seen is None:
        setting = word
    elif _agrees(word, seen.value, tolerance):
        setting = _both(name, word, seen)
    elif word.confidence >= 0.5 or word.confidence >= seen.confidence or seen.n < 3:
        setting = replace(
            word,
            confidence=round(word.confidence * (1 - 0.45 * seen.confidence), 2),
            n=seen.n,
            share=None,
            outliers=seen.outliers,
            evidence=_few((*word.evidence, _differing(name, seen))),
        )
    else:
        setting = _of_images(name, seen)
        setting = replace(setting, evidence=_few((*setting.evidence, *(f"but: {e}" for e in word.evidence))))
    return _within(setting, floor, ceiling, [s.phrase for s in said if s.value is None])


def _creators_number(said: Sequence[Said]) -> Setting | None:
    """The creator's clearest statement; a single value and a range around it are joined."""
    if not said:
        return None
    best = max(said, key=lambda s: s.confidence)
    singles = [s for s in said if s.low is None and s.high is None and s.confidence >= best.confidence - 0.3]
    ranges = [s for s in said if s.low is not None and s.high is not None and s.confidence >= best.confidence - 0.3]
    wide = max(ranges, key=lambda s: s.confidence, default=None)
    inside = [s for s in singles if wide is not None and wide.low <= s.value <= wide.high]
    point = max(inside, key=lambda s: s.confidence, default=None)
    if best.low is not None and best.high is None:  # "25+"
        wide, point = best, best
    elif wide is None or (point is None and best in singles):
        wide, point = None, best
    chosen = point or wide
    assert chosen is not None
    values = {s.value for s in said if s.confidence >= best.confidence - 0.05}
    spread = [
        v
        for v in values
        if v != chosen.value
        and not (wide and wide.low is not None and wide.high is not None and wide.low <= v <= wide.high)
    ]
    confidence = max(chosen.confidence, wide.confidence if wide else 0.0) * (0.8 if spread else 1)
    phrases = dict.fromkeys([*(s.phrase for s in (chosen, wide) if s is not None), *(s.phrase for s in said)])
    return Setting(
        chosen.value, "creator", round(confidence, 2), wide.low if wide else None, wide.high if wide else None,
        evidence=_few(f"“{phrase}”" for phrase in phrases), alternatives=tuple(sorted(spread)[:3]),
    )  # fmt: skip


def _agrees(word: Setting, value: float, tolerance: float) -> bool:
    if word.low is None and word.high is None:
        return bool(abs(value - word.value) <= tolerance + 1e-9)
    low = -math.inf if word.low is None else word.low
    high = math.inf if word.high is None else word.high
    slack = tolerance / 2
    return low - slack - 1e-9 <= value <= high + slack + 1e-9


def _both(name: str, word: Setting, seen: _Seen) -> Setting:
    """Within the creator's range the images say where; a single value of the creator stays."""
    value = word.value
    if word.low is not None or word.high is not None:
        value = max(word.low if word.low is not None else seen.value, seen.value)
        value = min(word.high if word.high is not None else value, value)
    together = 1 - (1 - word.confidence) * (1 - 0.8 * seen.confidence)
    return replace(
        word,
        value=value,
        source="creator+images",
        confidence=round(min(0.97, together), 2),
        low=word.low if word.low is not None else seen.low,
        high=word.high if word.high is not None else seen.high,
        n=seen.n,
        share=seen.share,
        outliers=seen.outliers,
        evidence=_few((*word.evidence, _counted(name, seen))),
    )


def _of_images(name: str, seen: _Seen) -> Setting:
    return Setting(
        list(seen.value) if isinstance(seen.value, tuple) else seen.value,
        "images",
        seen.confidence,
        seen.low,
        seen.high,
        seen.n,
        seen.share,
        (_counted(name, seen),),
        seen.outliers,
        tuple(list(each) if isinstance(each, tuple) else each for each in seen.alternatives),
    )


def _counted(name: str, seen: _Seen) -> str:
    agree = round(seen.share * seen.n)
    text = f"{agree} of {seen.n} example images" if seen.n > 1 else "one example image"
    if seen.outliers:
        text += f"; outliers {', '.join(shown(name, each) for each in seen.outliers[:4])}"
    return text


def _differing(name: str, seen: _Seen) -> str:
    where = f"{round(seen.share * seen.n)} of {seen.n} images" if seen.n > 1 else "the one image"
    return f"but {shown(name, seen.value)} in {where}"


def _few(evidence: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(evidence))[:MAX_EVIDENCE]


def _within(setting: Setting, floor: float | None, ceiling: float | None, phrases: Sequence[str]) -> Setting:
    """Keep to the creator's limits."""
    value, low, high = setting.value, setting.low, setting.high
    if floor is not None and ceiling is not None and floor > ceiling:
        return setting
    if ceiling is not None:
        value, high = min(value, ceiling), ceiling if high is None else min(high, ceiling)
    if floor is not None:
        value, low = max(value, floor), floor if low is None else max(low, floor)
    if (value, low, high) == (setting.value, setting.low, setting.high):
        return setting
    source = "creator+images" if setting.source == "images" else setting.source
    evidence = _few((*setting.evidence[:2], *(f"“{phrase}”" for phrase in phrases)))
    return replace(setting, value=value, low=low, high=high, source=source, evidence=evidence)


def _sampler(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    return _choice(name, said.get(name, ()), seen.get(name))


def _choice(
    name: str, said: Sequence[Said], seen: _Seen | None, same: Callable[[Any, Any], bool] = lambda a, b: a == b
) -> Setting | None:
    """A name: the creator's; of several, the one the images use most."""
    ranked = sorted(said, key=lambda s: -s.confidence)  # stable: what is named first stays first
    if not ranked:
        return None if seen is None else _of_images(name, seen)
    values: list[Any] = []
    for each in ranked:
        if not any(same(each.value, value) for value in values):
            values.append(each.value)
    chosen = ranked[0]
    if seen is not None:
        for each in ranked:
            if same(each.value, seen.value):
                others = tuple(value for value in values if not same(value, each.value))
                together = 1 - (1 - each.confidence) * (1 - 0.8 * seen.confidence)
                return Setting(
                    each.value, "creator+images", round(min(0.97, together), 2), None, None, seen.n, seen.share,
                    _few((f"“{each.phrase}”", _counted(name, seen))), (), others,
                )  # fmt: skip
    others = tuple(value for value in values if not same(value, chosen.value))
    confidence = chosen.confidence * (1 - 0.35 * min(2, len(others)) / 2)
    if seen is not None and confidence < 0.5 and seen.confidence > confidence:
        setting = _of_images(name, seen)
        return replace(setting, alternatives=(*setting.alternatives, *values)[:5])
    evidence = [f"“{chosen.phrase}”"]
    if seen is not None:
        confidence *= 1 - 0.4 * seen.confidence
        evidence.append(_differing(name, seen))
        others = (*others, list(seen.value) if isinstance(seen.value, tuple) else seen.value)
    return Setting(
        chosen.value,
        "creator",
        round(confidence, 2),
        n=seen.n if seen else 0,
        evidence=_few(evidence),
        alternatives=others,
    )


def _schedule(sampler: Setting, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    """The schedule that goes with the chosen sampler: the one named with it, or used with it."""
    voted = seen.get("schedule")
    if voted is not None and (seen["sampler"].value != sampler.value or voted.value is None):
        voted = None
    with_it = [
        replace(s, name="schedule", value=s.schedule)
        for s in said.get("sampler", ())
        if s.value == sampler.value and s.schedule
    ]
    apart = [s for s in said.get("schedule", ()) if s.schedule is None]  # those named with a sampler go with that one
    return _choice("schedule", with_it or apart, voted)


def _size(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    """Portrait and landscape of one size agree; the images say which."""
    found = _choice(name, said.get(name, ()), seen.get(name), lambda a, b: sorted(a) == sorted(b))
    voted = seen.get(name)
    if found is None or voted is None:
        return found
    if found.source == "creator+images":
        return replace(found, value=list(voted.value))
    plain = max(s.confidence for s in said.get(name, ())) < 0.8 if said.get(name) else False
    if plain and voted.n > 1 and voted.share >= 0.6:  # a bare "resolution: 1024" is often that of the training
        return replace(_of_images(name, voted), alternatives=(found.value, *found.alternatives[:3]))
    return found


def _vae(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    return _choice(name, said.get(name, ()), seen.get(name), _same_vae)


def _same_vae(a: Any, b: Any) -> bool:
    left, right = (_squeezed(str(v)).removesuffix("pruned").removesuffix("ema").removesuffix("vae") for v in (a, b))
    return left == right or (
        BAKED_IN not in (a, b) and min(len(left), len(right)) >= 5 and (left in right or right in left)
    )


def _base(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    return _choice(name, said.get(name, ()), seen.get(name), _same_checkpoint)


def _same_checkpoint(a: Any, b: Any) -> bool:
    left, right = _core(str(a)), _core(str(b))
    return left == right or (min(len(left), len(right)) >= 5 and (left in right or right in left))


def _plain_choice(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    return _choice(name, said.get(name, ()), seen.get(name))


def _detailer(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    """ADetailer, when the creator speaks of it or half of all images used it."""
    voted, all_images = seen.get(name), seen.get("hires.use")
    if voted is not None and all_images is not None and voted.n < 0.5 * all_images.n:
        voted = None
    found = _choice(name, said.get(name, ()), voted, lambda a, b: a == b or "on" in (a, b))
    return replace(found, value=voted.value) if found and voted and found.value == "on" else found


def _hires(_: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    """The second pass, when the creator speaks of it or half of the images have one."""
    spoken = [s for part in ("use", "upscale", "upscaler", "denoise", "steps") for s in said.get(f"hires.{part}", ())]
    used = seen.get("hires.use")
    by_images = used is not None and used.value is True
    strong = [s for s in spoken if s.confidence >= 0.45]
    if not strong and not by_images:
        return None
    parts: dict[str, Setting] = {}
    for part, tolerance in HIRES_TOLERANCE.items():
        found = _numeric(f"hires.{part}", said.get(f"hires.{part}", ()), seen.get(f"hires.{part}"), tolerance)
        if found is not None:
            parts[part] = found
    upscaler = _choice("hires.upscaler", said.get("hires.upscaler", ()), seen.get("hires.upscaler"), _same_vae)
    if upscaler is not None:
        parts["upscaler"] = upscaler
    sources = {source for part in parts.values() for source in part.source.split("+")} or (
        {"creator"} if strong else {"images"}
    )
    source = "+".join(each for each in ("creator", "images") if each in sources)
    confidences = [part.confidence for part in parts.values()] or [max((s.confidence for s in spoken), default=0.0)]
    if by_images and used is not None:
        confidences.append(used.confidence)
    denoise = parts.get("denoise")
    evidence = [e for part in parts.values() for e in part.evidence] or [f"“{s.phrase}”" for s in strong]
    return Setting(
        {part: parts[part].value if part in parts else None for part in ("upscale", "upscaler", "denoise", "steps")},
        source,
        round(sum(confidences) / len(confidences), 2),
        denoise.low if denoise else None,
        denoise.high if denoise else None,
        used.n if used else 0,
        used.share if used and by_images else None,
        _few(evidence),
    )


def _negative_embeddings(name: str, said: Mapping[str, list[Said]], seen: Mapping[str, _Seen]) -> Setting | None:
    named = {s.value.casefold(): s for s in reversed(said.get(name, ()))}
    voted = seen.get(name)
    if not named:
        return None if voted is None else _of_images(name, voted)
    values = [s.value for s in reversed(named.values())]
    phrases = _few(f"“{s.phrase}”" for s in named.values())
    best = max(s.confidence for s in named.values())
    if voted is None:
        return Setting(values[:8], "creator", best, evidence=phrases)
    seen_too = [v for v in voted.value if v.casefold() not in named]
    return Setting(
        [*values, *seen_too][:8],
        "creator+images",
        best,
        None,
        None,
        voted.n,
        voted.share,
        _few((*phrases[:2], _counted(name, voted))),
    )


_MERGED: dict[str, Callable[[str, Mapping[str, list[Said]], Mapping[str, _Seen]], Setting | None]] = {
    "sampler": _sampler,
    "schedule": lambda name, said, seen: None,
    "size": _size,
    "vae": _vae,
    "hires": _hires,
    "adetailer": _detailer,
    "base_checkpoint": _base,
    "negative_embeddings": _negative_embeddings,
    "negative_prompt": _plain_choice,
}

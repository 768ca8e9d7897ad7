"""What is searched for, and the words a person types → the names a hub knows. No network library is imported here.

    model_type("lora")       ("LORA",)
    model_type("lycoris")    ("LoCon",)
    base_model("sd1.5")      "SD 1.5"
    sort_name("downloads")   "Most Downloaded"

Vocabularies are those of `/enums` in summer 2026. They grow without notice, so an unknown base model passes as typed
when it is written with care (a capital letter and a digit).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from registry.errors import InvalidReference

LONGEST_WORD = 80


@dataclass(frozen=True)
class SearchQuery:
    """One search, the same for a hub and for the local index. Names are the API's own (see the functions below)."""

    text: str | None = None
    types: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    tag: str | None = None
    creator: str | None = None
    sort: str | None = None
    period: str | None = None
    nsfw: bool = False
    limit: int = 20
    cursor: str | None = None


MODEL_TYPES = (
    "Checkpoint", "TextualInversion", "Hypernetwork", "AestheticGradient", "LORA", "LoCon", "DoRA", "Controlnet",
    "Upscaler", "MotionModule", "VAE", "TextEncoder", "UNet", "CLIPVision", "Poses", "Wildcards", "Workflows",
    "ComfyWorkflows", "Detection", "VisionLanguage", "CLIP", "LLM", "Other",
)  # fmt: skip
TYPE_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "model": ("Checkpoint",),
        "ckpt": ("Checkpoint",),
        "base": ("Checkpoint",),
        "merge": ("Checkpoint",),
        "ti": ("TextualInversion",),
        "embed": ("TextualInversion",),
        "embedding": ("TextualInversion",),
        "inversion": ("TextualInversion",),
        "lycoris": ("LoCon",),
        "loha": ("LoCon",),
        "lokr": ("LoCon",),
        "lyco": ("LoCon",),
        "adapter": ("LORA", "LoCon", "DoRA"),
        "hypernet": ("Hypernetwork",),
        "ag": ("AestheticGradient",),
        "cn": ("Controlnet",),
        "upscale": ("Upscaler",),
        "esrgan": ("Upscaler",),
        "motion": ("MotionModule",),
        "animatediff": ("MotionModule",),
        "clipvision": ("CLIPVision",),
        "te": ("TextEncoder",),
        "wildcard": ("Wildcards",),
        "pose": ("Poses",),
        "workflow": ("Workflows", "ComfyWorkflows"),
        "detector": ("Detection",),
        "adetailer": ("Detection",),
        "vlm": ("VisionLanguage",),
    }
)
SORTS = (
    "Highest Rated", "Most Downloaded", "Most Liked", "Most Discussed", "Most Collected", "Most Images", "Newest",
    "Oldest",
)  # fmt: skip
SORT_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "rated": "Highest Rated",
        "rating": "Highest Rated",
        "top": "Highest Rated",
        "downloads": "Most Downloaded",
        "downloaded": "Most Downloaded",
        "popular": "Most Downloaded",
        "likes": "Most Liked",
        "liked": "Most Liked",
        "discussed": "Most Discussed",
        "comments": "Most Discussed",
        "collected": "Most Collected",
        "images": "Most Images",
        "new": "Newest",
        "latest": "Newest",
        "recent": "Newest",
        "old": "Oldest",
    }
)
PERIODS = ("Day", "Week", "Month", "Year", "AllTime")
PERIOD_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "all": "AllTime", "ever": "AllTime", "today": "Day", "24h": "Day", "1d": "Day", "7d": "Week", "1w": "Week",
        "30d": "Month", "1m": "Month", "1y": "Year", "365d": "Year", "daily": "Day", "weekly": "Week",
        "monthly": "Month", "yearly": "Year",
    }
)  # fmt: skip
BASE_MODELS = (
    "SD 1.4", "SD 1.5", "SD 1.5 LCM", "SD 1.5 Hyper", "SD 2.0", "SD 2.0 768", "SD 2.1", "SD 2.1 768", "SD 2.1 Unclip",
    "SDXL 0.9", "SDXL 1.0", "SDXL 1.0 LCM", "SDXL Lightning", "SDXL Hyper", "SDXL Turbo", "SDXL Distilled", "Pony",
    "Pony V7", "Illustrious", "NoobAI", "SD 3", "SD 3.5", "SD 3.5 Medium", "SD 3.5 Large", "SD 3.5 Large Turbo",
    "Flux.1 S", "Flux.1 D", "Flux.1 Krea", "Flux.1 Kontext", "Flux.2 D", "Flux.2 Klein 9B", "Flux.2 Klein 9B-base",
    "Flux.2 Klein 4B", "Flux.2 Klein 4B-base", "Chroma", "HiDream", "HiDream-O1", "Hunyuan 1", "Hunyuan Video",
    "Kolors", "Krea 2", "Lumina", "AuraFlow", "PixArt a", "PixArt E", "Playground v2", "Stable Cascade", "SVD",
    "SVD XT", "CogVideoX", "Mochi", "LTXV", "LTXV2", "LTXV 2.3", "Qwen", "Qwen 2", "Qwen 3", "Wan Video",
    "Wan Video 1.3B t2v", "Wan Video 14B t2v", "Wan Video 14B i2v 480p", "Wan Video 14B i2v 720p",
    "Wan Video 2.2 TI2V-5B", "Wan Video 2.2 I2V-A14B", "Wan Video 2.2 T2V-A14B", "Wan Video 2.5 T2V",
    "Wan Video 2.5 I2V", "Wan Image 2.7", "Wan Video 2.7", "ZImageTurbo", "ZImageBase", "Anima", "Ernie", "Upscaler",
    "Other",
)  # fmt: skip
BASE_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "sd1": "SD 1.5", "sd15": "SD 1.5", "sd14": "SD 1.4", "15": "SD 1.5", "sd2": "SD 2.1", "sd21": "SD 2.1",
        "sd20": "SD 2.0", "sdxl": "SDXL 1.0", "xl": "SDXL 1.0", "sdxl1": "SDXL 1.0", "sd3": "SD 3", "sd35": "SD 3.5",
        "flux": "Flux.1 D", "flux1": "Flux.1 D", "fluxdev": "Flux.1 D", "flux1dev": "Flux.1 D",
        "fluxschnell": "Flux.1 S", "flux1schnell": "Flux.1 S", "flux2": "Flux.2 D", "flux2dev": "Flux.2 D",
        "kontext": "Flux.1 Kontext", "krea": "Flux.1 Krea", "il": "Illustrious", "illustriousxl": "Illustrious",
        "noob": "NoobAI", "noobaixl": "NoobAI", "ponyxl": "Pony", "pdxl": "Pony", "zimage": "ZImageTurbo",
        "stablediffusion15": "SD 1.5", "stablediffusionxl": "SDXL 1.0", "hunyuan": "Hunyuan 1", "wan": "Wan Video",
        "pixartalpha": "PixArt a", "pixartsigma": "PixArt E", "hidreami1": "HiDream",
    }
)  # fmt: skip


def model_type(text: str) -> tuple[str, ...]:
    """The API's model types for a word in any sensible spelling; plural forms too. Raises InvalidReference."""
    key = _key(text, "model type")
    known: dict[str, tuple[str, ...]] = {_plain(name): (name,) for name in MODEL_TYPES}
    known.update(TYPE_ALIASES)
    for spelling in (key, key.removesuffix("s"), key + "s", key.removesuffix("model").removesuffix("models")):
        if spelling in known:
            return known[spelling]
    raise _unknown("model type", text, MODEL_TYPES)


def model_types(words: Iterable[str]) -> tuple[str, ...]:
    """Types of several words, each once, in the order given; `lora,vae` counts as two words."""
    found = [name for word in words for part in word.split(",") if part.strip() for name in model_type(part)]
    return tuple(dict.fromkeys(found))


def base_model(text: str) -> str:
    """The API's name of a base model. Raises InvalidReference."""
    key = _key(text, "base model")
    known = {_plain(name): name for name in BASE_MODELS} | dict(BASE_ALIASES)
    if key in known:
        return known[key]
    if re.search(r"[A-Z]", text) and re.search(r"\d", text):
        return text.strip()  # newer than this table
    raise _unknown("base model", text, BASE_MODELS)


def base_model_names(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(base_model(word) for word in words))


def sort_name(text: str) -> str:
    """The API's name of an order of models. Raises InvalidReference."""
    return _one_of("order", text, SORTS, SORT_ALIASES)


def period_name(text: str) -> str:
    """The API's name of a period. Raises InvalidReference."""
    return _one_of("period", text, PERIODS, PERIOD_ALIASES)


def _one_of(noun: str, text: str, names: tuple[str, ...], aliases: Mapping[str, str]) -> str:
    key = _key(text, noun)
    known = {_plain(name): name for name in names} | dict(aliases)
    if key in known:
        return known[key]
    raise _unknown(noun, text, names)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _key(text: str, noun: str) -> str:
    if len(text) > LONGEST_WORD:
        raise InvalidReference(f"that is too long for a {noun}")
    return _plain(text)


def _unknown(noun: str, text: str, names: tuple[str, ...]) -> InvalidReference:
    from rapidfuzz import fuzz, process

    near = process.extract(text, names, scorer=fuzz.WRatio, processor=_plain, limit=4, score_cutoff=55)
    shown = ", ".join(f"`{name}`" for name, _, _ in near) or ", ".join(f"`{name}`" for name in names[:8])
    plain = "".join(letter for letter in text if letter.isprintable())
    return InvalidReference(f"there is no {noun} `{plain}`", hint=f"did you mean {shown}?")

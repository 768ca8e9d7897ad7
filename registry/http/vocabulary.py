"""The hub's closed lists, as `/enums` answers them, and what an AIR is made of.

Facts of summer 2026. The lists grow, so whatever a library holds besides is added where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from registry.air import AIR
from registry.errors import InvalidReference

MODEL_TYPES: Mapping[str, str] = MappingProxyType(  # API name → its word in an AIR
    {
        "Checkpoint": "checkpoint", "TextualInversion": "embedding", "Hypernetwork": "hypernet",
        "AestheticGradient": "ag", "LORA": "lora", "LoCon": "lycoris", "DoRA": "dora", "Controlnet": "controlnet",
        "Upscaler": "upscaler", "MotionModule": "motion", "VAE": "vae", "TextEncoder": "text_encoders",
        "UNet": "unet", "CLIPVision": "clipvision", "Poses": "unknown", "Wildcards": "unknown",
        "Workflows": "unknown", "ComfyWorkflows": "unknown", "Detection": "unknown",
        "VisionLanguage": "visionlanguage", "CLIP": "clip", "LLM": "unknown", "Other": "unknown",
    }
)  # fmt: skip
FILE_TYPES = (
    "Model", "Text Encoder", "Vision Encoder", "Pruned Model", "Negative", "Training Data", "VAE", "Config", "Archive",
    "UNet", "Diffusion Model", "CLIPVision", "ControlNet", "Workflow", "Upscaler", "Enhancement LoRA", "Other",
)  # fmt: skip
FILE_FORMATS = ("SafeTensor", "PickleTensor", "GGUF", "Diffusers", "Core ML", "ONNX", "Other")
BASE_MODEL_TYPES = ("Standard", "Inpainting", "Refiner", "Pix2Pix")
WEIGHTS = frozenset({"Model", "Pruned Model", "Diffusion Model", "UNet"})  # file types that are a model's main weights
MODEL_SORTS = (
    "Highest Rated", "Most Downloaded", "Most Liked", "Most Discussed", "Most Collected", "Most Images", "Newest",
    "Oldest",
)  # fmt: skip
IMAGE_SORTS = ("Most Reactions", "Most Comments", "Most Collected", "Newest", "Oldest", "Random")
PERIODS: Mapping[str, int | None] = MappingProxyType({"Day": 1, "Week": 7, "Month": 30, "Year": 365, "AllTime": None})
AVAILABILITIES = ("Public", "Unsearchable", "Private", "EarlyAccess")
COMMERCIAL_USES = ("None", "Image", "RentCivit", "Rent", "Sell")

_ECOSYSTEMS = """
anima: Anima
auraflow: AuraFlow; Pony V7
chroma: Chroma
cogvideox: CogVideoX
ernie: Ernie
flux1: Flux.1 S; Flux.1 D
fluxkrea: Flux.1 Krea
flux1kontext: Flux.1 Kontext
flux2: Flux.2 D; Flux.2 Klein 9B; Flux.2 Klein 9B-base; Flux.2 Klein 4B; Flux.2 Klein 4B-base
flux3video: Flux 3 Video
grok: Grok
happyhorse: HappyHorse
hidream: HiDream
hidream-o1: HiDream-O1
hydit1: Hunyuan 1
hyv1: Hunyuan Video
ideogram: Ideogram 4.0
boogu: Boogu
imagen4: -Imagen4
kolors: Kolors
krea2: Krea 2
ltxv: LTXV
ltxv2: LTXV2
ltxv23: LTXV 2.3
lens: Lens
lumina: Lumina
mageflow: MageFlow
mai: MAI
mochi: Mochi
nanobanana: -Nano Banana
odor: -ODOR
openai: -OpenAI
other: Upscaler; Other
pixarta: PixArt a
pixarte: PixArt E
playgroundv2: -Playground v2
qwen: Qwen
qwen2: Qwen 2
qwen3: Qwen 3
scascade: -Stable Cascade
sd1: SD 1.4; SD 1.5; SD 1.5 LCM; SD 1.5 Hyper
sd2: SD 2.0; -SD 2.0 768; SD 2.1; -SD 2.1 768; -SD 2.1 Unclip
sd3: -SD 3; -SD 3.5; -SD 3.5 Large; -SD 3.5 Large Turbo
sd3_5m: -SD 3.5 Medium
sdxl: Illustrious; NoobAI; Pony; -SDXL 0.9; SDXL 1.0; -SDXL 1.0 LCM; SDXL Lightning; SDXL Hyper; -SDXL Turbo
sdxldistilled: -SDXL Distilled
reve: Reve
seedream: -Seedream
svd: -SVD; -SVD XT
sora2: -Sora 2
veo3: -Veo 3
wanvideo: -Wan Video
wanvideo1_3b_t2v: Wan Video 1.3B t2v
wanvideo14b_t2v: Wan Video 14B t2v
wanvideo14b_i2v_480p: Wan Video 14B i2v 480p
wanvideo14b_i2v_720p: Wan Video 14B i2v 720p
wanvideo-22-ti2v-5b: Wan Video 2.2 TI2V-5B
wanvideo-22-i2v-a14b: Wan Video 2.2 I2V-A14B
wanvideo-22-t2v-a14b: Wan Video 2.2 T2V-A14B
wanvideo-25-t2v: Wan Video 2.5 T2V
wanvideo-25-i2v: Wan Video 2.5 I2V
wanimage27: Wan Image 2.7
wanvideo27: Wan Video 2.7
zimageturbo: ZImageTurbo
zimagebase: ZImageBase
vidu: -Vidu Q1
minimaxh3: MiniMax H3
kling: -Kling
seedance: -Seedance
ace: ACE Audio
polygen: -PolyGen
tripo: -Tripo
hunyuan3d: -Hunyuan3D
"""  # ecosystem: base models; a leading minus = no longer offered for new uploads
_LISTED = tuple(
    (name.strip(), line.split(":")[0])
    for line in _ECOSYSTEMS.strip().splitlines()
    for name in line.split(":")[1].split(";")
)
BASE_MODELS: Mapping[str, str] = MappingProxyType({name.lstrip("-"): ecosystem for name, ecosystem in _LISTED})
ACTIVE_BASE_MODELS = tuple(name for name, _ in _LISTED if not name.startswith("-"))


def air(
    model: Mapping[str, Any], version: Mapping[str, Any], model_id: int, version_id: int, source: str = "civitai"
) -> str:
    """The AIR a hub would give a version; the one it did give wins. `source` names whose ids these are."""
    given = version.get("air")
    if isinstance(given, str) and given:
        try:
            AIR.parse(given)
        except InvalidReference:
            pass
        else:
            return given
    base_model = version.get("baseModel")
    ecosystem = BASE_MODELS.get(base_model, "") if isinstance(base_model, str) else "other"
    if not ecosystem and isinstance(base_model, str):  # newer than this list: the hub lower-cases the name
        ecosystem = "".join(c for c in base_model.lower() if c.isascii() and (c.isalnum() or c in "-_")) or "other"
    kind = model.get("type")
    word = MODEL_TYPES.get(kind, "unknown") if isinstance(kind, str) else "unknown"
    return str(AIR(source, str(model_id), str(version_id), ecosystem, word))

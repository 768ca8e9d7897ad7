"""Where each UI looks for a file: folders by kind, how a UI is recognised, and the settings that move its folders.

    layout("comfyui").folder("lora")                    models/loras
    kind_of("VAE", "checkpoint", "Checkpoint")          vae           the file's type first, then what its header
                                                                      says, then the model's type
    file_path("{base_model}/{file_name}", values, ".safetensors")    SD 1.5/thanos.safetensors

A layout is plain data, so a package can add one under the entry-point group `registry.layouts`. Folders are relative to
the UI's root; the first of a kind is the one to write in. `folders` adds what the UI's own settings say:
`extra_model_paths.yaml`, `config.txt`, `config.json`, `Settings.fds`, and the flags in `webui-user.sh`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from registry.errors import UsageError
from registry.fs import LONGEST_NAME, safe_name

SUFFIXES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".pkl", ".onnx"})
LARGEST_SETTINGS = 1 << 20  # bytes of a UI's own configuration that are read


@dataclass(frozen=True)
class Layout:
    """One UI. `markers` are paths below its root that only it has; `{invoke}` in a folder is InvokeAI's base name."""

    name: str
    title: str
    folders: Mapping[str, tuple[str, ...]]
    markers: tuple[str, ...] = ()
    template: str = "{file_name}"

    def folder(self, kind: str, base_model: str | None = None) -> str | None:
        """The folder to write this kind in, or None when this UI has no use for it."""
        for each in (kind, *FALLBACKS.get(kind, ())):
            for folder in self.folders.get(each, ()):
                if "{invoke}" not in folder:
                    return folder
                if base := INVOKE_BASES.get(base_family(base_model)):
                    return folder.replace("{invoke}", base)
        return None


FALLBACKS: Mapping[str, tuple[str, ...]] = MappingProxyType({"lycoris": ("lora",), "refiner": ("checkpoint",)})
INVOKE_BASES = {"sd1": "sd-1", "sd2": "sd-2", "sdxl": "sdxl", "sd3": "sd-3", "flux1": "flux"}

_A1111: Mapping[str, tuple[str, ...]] = {
    "checkpoint": ("models/Stable-diffusion",),
    "lora": ("models/Lora",),
    "lycoris": ("models/Lora", "models/LyCORIS"),
    "embedding": ("embeddings",),
    "vae": ("models/VAE",),
    "vae_approx": ("models/VAE-approx",),
    "controlnet": ("models/ControlNet", "extensions/sd-webui-controlnet/models"),
    "hypernetwork": ("models/hypernetworks",),
    "upscaler": ("models/ESRGAN", "models/RealESRGAN", "models/SwinIR", "models/LDSR", "models/DAT", "models/HAT"),
    "face_restore": ("models/GFPGAN", "models/Codeformer"),
    "detector": ("models/adetailer",),
}
# fmt: off
BUILT_IN: Mapping[str, Layout] = MappingProxyType(
    {
        each.name: each
        for each in (
            Layout(
                "comfyui",
                "ComfyUI",
                {
                    "checkpoint": ("models/checkpoints",),
                    "unet": ("models/diffusion_models", "models/unet"),
                    "lora": ("models/loras",),
                    "embedding": ("models/embeddings",),
                    "vae": ("models/vae",),
                    "vae_approx": ("models/vae_approx",),
                    "text_encoder": ("models/text_encoders", "models/clip"),
                    "clip_vision": ("models/clip_vision",),
                    "controlnet": ("models/controlnet", "models/t2i_adapter"),
                    "hypernetwork": ("models/hypernetworks",),
                    "upscaler": ("models/upscale_models",),
                    "detector": ("models/ultralytics/bbox", "models/ultralytics/segm", "models/sams"),
                    "motion_module": ("models/animatediff_models",),
                    "motion_lora": ("models/animatediff_motion_lora",),
                    "style": ("models/style_models",),
                    "gligen": ("models/gligen",),
                    "photomaker": ("models/photomaker",),
                    "ip_adapter": ("models/ipadapter",),
                },
                ("comfy_extras", "comfy/sd.py", "folder_paths.py", "extra_model_paths.yaml.example"),
            ),
            Layout("a1111", "A1111", _A1111, ("webui.py", "launch.py", "modules/shared_cmd_options.py")),
            Layout(
                "forge",
                "Forge",
                {**_A1111, "unet": ("models/Stable-diffusion",), "text_encoder": ("models/text_encoder",)},
                ("modules_forge", "backend/nn", "ldm_patched"),
            ),
            Layout(
                "sdnext",
                "SD.Next",
                {
                    "checkpoint": ("models/Stable-diffusion",),
                    "unet": ("models/UNET",),
                    "lora": ("models/Lora",),
                    "embedding": ("models/embeddings",),
                    "vae": ("models/VAE",),
                    "text_encoder": ("models/Text-encoder",),
                    "controlnet": ("models/control",),
                    "upscaler": (
                        "models/ESRGAN", "models/RealESRGAN", "models/SCUNet", "models/SwinIR", "models/BSRGAN",
                    ),
                    "face_restore": ("models/GFPGAN",),
                    "detector": ("models/yolo",),
                },
                ("modules/sd_models_compile.py", "sdnext.py", "html/locale_en.json", "models/UNET"),
            ),
            Layout(
                "swarmui",
                "SwarmUI",
                {
                    "checkpoint": ("Models/Stable-Diffusion",),
                    "unet": ("Models/diffusion_models",),
                    "lora": ("Models/Lora", "Models/LyCORIS"),
                    "embedding": ("Models/Embeddings",),
                    "vae": ("Models/VAE",),
                    "text_encoder": ("Models/text_encoders", "Models/clip"),
                    "clip_vision": ("Models/clip_vision",),
                    "controlnet": ("Models/controlnet", "Models/model_patches"),
                    "upscaler": ("Models/upscale_models",),
                    "detector": ("Models/yolov8",),
                },
                ("SwarmUI.sln", "src/SwarmUI.csproj", "Data/Settings.fds", "launch-linux.sh"),
            ),
            Layout(
                "fooocus",
                "Fooocus",
                {
                    "checkpoint": ("models/checkpoints",),
                    "lora": ("models/loras",),
                    "embedding": ("models/embeddings",),
                    "vae": ("models/vae",),
                    "vae_approx": ("models/vae_approx",),
                    "clip_vision": ("models/clip_vision",),
                    "controlnet": ("models/controlnet",),
                    "upscaler": ("models/upscale_models",),
                    "inpaint": ("models/inpaint",),
                },
                ("fooocus_version.py", "entry_with_update.py", "presets/lcm.json"),
            ),
            Layout(
                "invokeai",
                "InvokeAI (old layout)",
                {
                    "checkpoint": ("models/{invoke}/main", "autoimport/main"),
                    "lora": ("models/{invoke}/lora", "autoimport/lora"),
                    "embedding": ("models/{invoke}/embedding", "autoimport/embedding"),
                    "vae": ("models/{invoke}/vae", "autoimport/vae"),
                    "controlnet": (
                        "models/{invoke}/controlnet", "models/{invoke}/t2i_adapter", "autoimport/controlnet",
                        "autoimport/t2i_adapter",
                    ),
                },
                ("invokeai.yaml", "configs/models.yaml", "autoimport"),
            ),
            Layout(
                "tree",
                "a plain folder",
                {
                    "checkpoint": ("checkpoint",), "unet": ("unet",), "lora": ("lora",), "embedding": ("embedding",),
                    "vae": ("vae",), "vae_approx": ("vae_approx",), "text_encoder": ("text_encoder",),
                    "clip_vision": ("clip_vision",), "controlnet": ("controlnet",), "hypernetwork": ("hypernetwork",),
                    "upscaler": ("upscaler",), "face_restore": ("face_restore",), "detector": ("detector",),
                    "motion_module": ("motion_module",), "other": ("other",),
                },
                template="{base_model}/{file_name}",
            ),
        )
    }
)
# fmt: on


def names() -> list[str]:
    """Every layout there is: built in, then added by installed packages."""
    from importlib.metadata import entry_points

    return [*BUILT_IN, *sorted({entry.name for entry in entry_points(group="registry.layouts")} - BUILT_IN.keys())]


def layout(name: str) -> Layout:
    """A layout by name. Raises UsageError for an unknown one, or naming the package whose layout does not load."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    from importlib.metadata import entry_points

    for entry in entry_points(group="registry.layouts"):
        if entry.name == name:
            try:
                found = entry.load()
            except Exception as error:
                package = entry.dist.name if entry.dist else entry.value
                raise UsageError(
                    f"the layout `{name}` of {package} does not load: {type(error).__name__}",
                    hint=f"upgrade or remove {package}",
                ) from error
            if isinstance(found, Layout):
                return found
    raise UsageError(f"no UI is called `{name}`", hint="known: " + ", ".join(names()))


# --- kinds ------------------------------------------------------------------------------------------------------------

NOT_LINKED = frozenset({"Training Data", "Archive", "Config", "Workflow"})  # file types no loader opens by itself
_FILE_TYPES = {
    "VAE": "vae", "Text Encoder": "text_encoder", "Vision Encoder": "clip_vision", "UNet": "unet",
    "Diffusion Model": "unet", "Negative": "embedding", "ControlNet": "controlnet", "Upscaler": "upscaler",
    "LoRA": "lora",
}  # fmt: skip
_MODEL_TYPES = {
    "checkpoint": "checkpoint", "textualinversion": "embedding", "hypernetwork": "hypernetwork", "lora": "lora",
    "locon": "lycoris", "dora": "lora", "controlnet": "controlnet", "upscaler": "upscaler",
    "motionmodule": "motion_module", "vae": "vae", "textencoder": "text_encoder", "clip": "text_encoder",
    "clipvision": "clip_vision", "unet": "unet", "detection": "detector",
}  # fmt: skip
_SAME = {  # other spellings of a detected kind
    "locon": "lycoris", "loha": "lycoris", "lokr": "lycoris", "dora": "lora", "textual_inversion": "embedding",
    "textualinversion": "embedding", "model": "checkpoint", "diffusion_model": "unet", "dit": "unet",
    "transformer": "unet", "clip": "text_encoder", "t2i_adapter": "controlnet", "image_encoder": "clip_vision",
    "detection": "detector", "yolo": "detector", "ipadapter": "ip_adapter", "motionmodule": "motion_module",
    "oft": "lycoris", "boft": "lycoris", "glora": "lycoris", "ia3": "lycoris", "full": "lycoris",
    "control_lora": "controlnet", "style_model": "style",
}  # fmt: skip
TYPES: Mapping[str, str] = MappingProxyType(
    {  # kind → the hub's word for a model of that kind
        "checkpoint": "Checkpoint", "unet": "UNet", "lora": "LORA", "lycoris": "LoCon", "embedding": "TextualInversion",
        "vae": "VAE", "text_encoder": "TextEncoder", "clip_vision": "CLIPVision", "controlnet": "Controlnet",
        "hypernetwork": "Hypernetwork", "upscaler": "Upscaler", "motion_module": "MotionModule",
        "detector": "Detection",
    }
)  # fmt: skip


def canonical(kind: str | None) -> str | None:
    """A detected kind in this module's words; None for what says nothing."""
    word = (kind or "").strip().lower().replace("-", "_").replace(" ", "_")
    word = _SAME.get(word, word)
    return None if word in {"", "unknown", "other", "none"} else word


def kind_of(file_type: str | None, detected: str | None, model_type: str | None) -> str | None:
    """What a file is. Its own type first (a VAE beside a checkpoint), then its header, then the model's type.

    None for what no UI loads: training data, archives, configurations, workflows.
    """
    if file_type in NOT_LINKED:
        return None
    if file_type in _FILE_TYPES:
        return _FILE_TYPES[file_type]
    return canonical(detected) or _MODEL_TYPES.get((model_type or "").lower().replace(" ", ""), "other")


def base_family(base_model: str | None) -> str:
    """`SD 1.5 LCM` → sd1, `Pony` → sdxl, `Flux.1 D` → flux1; unknown ones as a plain word; `other` for none."""
    text = (base_model or "").lower()
    for pattern, family in _FAMILIES:
        if pattern in text:
            return family
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "other"


_FAMILIES = (
    ("sdxl", "sdxl"), ("pony v7", "auraflow"), ("pony", "sdxl"), ("illustrious", "sdxl"), ("noobai", "sdxl"),
    ("sd 1", "sd1"), ("sd1", "sd1"), ("sd 2", "sd2"), ("sd2", "sd2"), ("sd 3", "sd3"), ("sd3", "sd3"),
    ("flux.2", "flux2"), ("flux", "flux1"),
)  # fmt: skip


# --- names ------------------------------------------------------------------------------------------------------------

KEYS = (
    "author", "base_model", "base_family", "file_id", "file_name", "first_tag", "model_id", "model_name", "model_type",
    "model_version_id", "model_version_name", "nsfw", "sha8", "version_id", "version_name",
)  # fmt: skip
_NAMING = {"file_name", "file_id", "sha8", "model_name", "version_id", "model_version_id"}
_KEY = re.compile(r"\{([a-z0-9_]{1,40})\}")


def check_template(template: str) -> str:
    """Raises UsageError for an unknown key, a stray brace, or a template that leaves the folder."""
    unknown = sorted(set(_KEY.findall(template)) - set(KEYS))
    if unknown:
        raise UsageError(f"a name template knows no `{{{unknown[0]}}}`", hint="known keys: " + ", ".join(KEYS))
    if "{" in _KEY.sub("", template) or "}" in _KEY.sub("", template) or not template.strip("/ "):
        raise UsageError(
            f"`{template}` is no name template", hint='for example "{base_family}/{model_name}/{file_name}"'
        )
    if template.startswith(("/", "~", "\\")) or ".." in re.split(r"[\\/]", template):
        raise UsageError(f"the name template `{template}` leaves the folder", hint="write it relative, without `..`")
    return template


def file_path(template: str, values: Mapping[str, Any], suffix: str) -> PurePosixPath:
    """Fill a template: a path below a kind's folder, every part fit for every OS; the suffix is added.

    A last part that names no file (`{base_model}/{first_tag}`) is a folder, and the file keeps its own name in it.
    """
    parts = [part for part in template.split("/") if part.strip()]
    if template.endswith("/") or not set(_KEY.findall(parts[-1])) & _NAMING:
        parts.append("{file_name}")

    def filled(part: str) -> str:
        return _KEY.sub(lambda found: _plain(values.get(found[1]), found[1]), part)

    folders = [safe_name(filled(part), "unnamed") for part in parts[:-1]]
    stem = safe_name(filled(parts[-1]), "unnamed").encode()[: LONGEST_NAME - len(suffix.encode())]
    return PurePosixPath(*folders, stem.decode("utf-8", "ignore").rstrip(" .") + suffix)


def _plain(value: Any, key: str) -> str:
    text = re.sub(r"[\\/]", "_", str(value)) if value not in (None, "") else ""
    return text or {"first_tag": "untagged", "author": "unknown"}.get(key, "other")


def numbered(path: PurePosixPath, mark: object) -> PurePosixPath:
    """`thanos.safetensors` → `thanos-v42.safetensors`: the name when the plain one is taken."""
    stem = path.name.removesuffix(path.suffix)
    room = LONGEST_NAME - len(f"-v{mark}{path.suffix}".encode())
    return path.with_name(f"{stem.encode()[:room].decode('utf-8', 'ignore')}-v{mark}{path.suffix}")


# --- what a UI's own settings say -------------------------------------------------------------------------------------


def recognise(root: Path) -> str | None:
    """Which UI a folder is the root of; None for an ordinary folder. A UI's own files decide, then its folders."""
    present = {name: sum(1 for marker in each.markers if (root / marker).exists()) for name, each in BUILT_IN.items()}
    order = ("comfyui", "forge", "sdnext", "swarmui", "fooocus", "invokeai", "a1111")  # forks before what they fork
    for name in order:
        if present[name] >= (2 if name in {"a1111", "sdnext", "comfyui"} else 1):
            return name
    for name in order:  # a models folder alone, moved or shared: its folder names are telling
        kinds = BUILT_IN[name].folders
        telling = {folder for kind in ("checkpoint", "lora", "vae") for folder in kinds.get(kind, ())}
        if sum(1 for folder in telling if (root / folder.replace("{invoke}", "sd-1")).is_dir()) >= 2:
            return {"forge": "a1111", "sdnext": "a1111"}.get(name, name)
    return None


def folders(layout: Layout, root: Path) -> dict[str, list[Path]]:
    """Kind → folders of this UI, the one to write in first. Settings of the UI that move or add folders count."""
    found: dict[str, list[Path]] = {}
    for kind, paths in layout.folders.items():
        for path in paths:
            bases = INVOKE_BASES.values() if "{invoke}" in path else ("",)
            found.setdefault(kind, []).extend(root / path.replace("{invoke}", base) for base in bases)
    for kind, said, first in _SETTINGS.get(layout.name, lambda _: iter(()))(root):
        there, place = found.setdefault(kind, []), _shortest(said)
        if place in there:
            there.remove(place)
        there.insert(0 if first else len(there), place)
    return found


def write_folder(
    layout: Layout, root: Path, found: Mapping[str, list[Path]], kind: str, base_model: str | None
) -> Path | None:
    """Where this UI wants a file of this kind. `found` is what `folders` gave; None when it has no use for it."""
    default = layout.folder(kind, base_model)
    if default is None:
        return None
    for each in (kind, *FALLBACKS.get(kind, ())):
        if found.get(each):
            moved = found[each][0]
            return moved if not any("{invoke}" in f for f in layout.folders.get(each, ())) else root / default
    return root / default


def _shortest(path: Path) -> Path:
    """Without `..`, so that a folder has one name however it is reached; links may make `..` mean something else."""
    short = Path(os.path.normpath(path))
    try:
        return short if not path.exists() or short.samefile(path) else path
    except OSError:
        return path


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_SETTINGS).decode("utf-8", "replace")
    except OSError:
        return ""


Moved = Iterator[tuple[str, Path, bool]]  # kind, folder, whether it is the one to write in

_COMFY_KINDS = {
    "checkpoints": "checkpoint", "diffusion_models": "unet", "unet": "unet", "loras": "lora",
    "embeddings": "embedding", "vae": "vae", "vae_approx": "vae_approx", "text_encoders": "text_encoder",
    "clip": "text_encoder", "clip_vision": "clip_vision", "controlnet": "controlnet", "t2i_adapter": "controlnet",
    "hypernetworks": "hypernetwork", "upscale_models": "upscaler", "ultralytics": "detector",
    "ultralytics_bbox": "detector", "ultralytics_segm": "detector", "sams": "detector",
    "animatediff_models": "motion_module", "animatediff_motion_lora": "motion_lora", "style_models": "style",
    "gligen": "gligen", "photomaker": "photomaker", "ipadapter": "ip_adapter",
}  # fmt: skip


def _comfyui(root: Path) -> Moved:
    yield from extra_model_paths(_read(root / "extra_model_paths.yaml"), root)


def extra_model_paths(text: str, folder: Path) -> Moved:
    """What an `extra_model_paths.yaml` in `folder` adds, our own block left out. A broken file adds nothing."""
    import yaml

    try:
        blocks = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    for name, block in blocks.items() if isinstance(blocks, dict) else ():
        if not isinstance(block, dict) or name == YAML_BLOCK:
            continue
        base = block.get("base_path")
        base_path = folder / Path(base).expanduser() if isinstance(base, str) else folder
        for key, value in block.items():
            if isinstance(value, str) and key in _COMFY_KINDS:
                for line in value.splitlines():
                    if line.strip():
                        yield _COMFY_KINDS[key], base_path / line.strip(), block.get("is_default") is True


_FLAG = re.compile(r"""(--[a-z-]{3,40})[ =]+(?!--)("[^"\n]{1,4096}"|'[^'\n]{1,4096}'|[^\s"']{1,4096})""")


def _a1111(root: Path) -> Moved:
    text = "".join(
        line + "\n"
        for name in ("webui-user.sh", "webui-user.bat")
        for line in _read(root / name).splitlines()
        if not line.strip().startswith(("#", "REM ", "rem ", "::"))
    )
    flags = {
        "--ckpt-dir": "checkpoint", "--lora-dir": "lora", "--vae-dir": "vae", "--embeddings-dir": "embedding",
        "--hypernetwork-dir": "hypernetwork", "--esrgan-models-path": "upscaler", "--text-encoder-dir": "text_encoder",
    }  # fmt: skip
    for flag, value in _FLAG.findall(text):
        if flag in flags:
            yield flags[flag], root / Path(value.strip("\"'")).expanduser(), True


def _json_keys(root: Path, file: str, keys: Mapping[str, str]) -> Moved:
    try:
        data = json.loads(_read(root / file) or "{}")
    except (ValueError, RecursionError):
        return
    for key, kind in keys.items() if isinstance(data, dict) else ():
        value = data.get(key)
        for path in reversed(value) if isinstance(value, list) else (value,):
            if isinstance(path, str) and path.strip():
                yield kind, root / Path(path).expanduser(), True


def _sdnext(root: Path) -> Moved:
    return _json_keys(
        root,
        "config.json",
        {
            "ckpt_dir": "checkpoint", "unet_dir": "unet", "lora_dir": "lora", "embeddings_dir": "embedding",
            "vae_dir": "vae", "te_dir": "text_encoder", "control_dir": "controlnet",
        },
    )  # fmt: skip


def _fooocus(root: Path) -> Moved:
    return _json_keys(
        root,
        "config.txt",
        {
            "path_checkpoints": "checkpoint", "path_loras": "lora", "path_embeddings": "embedding", "path_vae": "vae",
            "path_vae_approx": "vae_approx", "path_clip_vision": "clip_vision", "path_controlnet": "controlnet",
            "path_upscale_models": "upscaler", "path_inpaint": "inpaint",
        },
    )  # fmt: skip


def _swarmui(root: Path) -> Moved:
    """`ModelRoot: Models;/mnt/more` and the folder names below it."""
    said = dict(re.findall(r"^[ \t]*([A-Za-z]{3,40}): *(\S[^\r\n]{0,4096})$", _read(root / "Data/Settings.fds"), re.M))
    roots = [root / Path(part.strip()).expanduser() for part in said.get("ModelRoot", "Models").split(";") if part]
    folders = {
        "SDModelFolder": ("checkpoint", "Stable-Diffusion"), "SDLoraFolder": ("lora", "Lora;LyCORIS"),
        "SDVAEFolder": ("vae", "VAE"), "SDEmbeddingFolder": ("embedding", "Embeddings"),
        "SDControlNetsFolder": ("controlnet", "controlnet;model_patches"),
        "SDClipFolder": ("text_encoder", "text_encoders;clip"), "SDClipVisionFolder": ("clip_vision", "clip_vision"),
    }  # fmt: skip
    if "ModelRoot" not in said and not said.keys() & folders.keys():
        return
    for key, (kind, usual) in folders.items():
        names = [part.strip() for part in said.get(key, usual).split(";") if part.strip()]
        for place in reversed([base / name for base in roots for name in names]):
            yield kind, place, True


_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "comfyui": _comfyui, "a1111": _a1111, "forge": _a1111, "sdnext": _sdnext, "fooocus": _fooocus,
        "swarmui": _swarmui,
    }
)  # fmt: skip


# --- a block of our own in extra_model_paths.yaml ---------------------------------------------------------------------

YAML_BLOCK = "hubctl"
_BEGIN = "# >>> hubctl: written by `hubctl link`, taken out by `hubctl link remove` >>>"
_BEGIN_JOINED = _BEGIN.replace("hubctl: ", "hubctl (a line break was added before this): ", 1)
_END = "# <<< hubctl <<<"


def yaml_block(view: Path) -> str:
    """The block that makes ComfyUI read `view`, a folder of ComfyUI's own folder names."""
    lines = [_BEGIN, f"{YAML_BLOCK}:", f"    base_path: {json.dumps(str(view), ensure_ascii=False)}"]
    for folder in sorted({folder for paths in BUILT_IN["comfyui"].folders.values() for folder in paths[:1]}):
        key = folder.removeprefix("models/")
        if "/" not in key:
            lines.append(f"    {key}: {key}")
    return "\n".join([*lines, _END]) + "\n"


def with_block(text: str, block: str | None) -> str:
    """`text` with our block put in, replaced, or (None) taken out; not one other byte changes.

    Raises UsageError when the file is not the YAML it should be, so that nothing is ever made worse.
    """
    breaks = "\r\n" if "\r\n" in text else "\n"
    start, end, joined = _own_part(text)
    if block is None:
        return text if start < 0 else text[: start - (len(breaks) if joined else 0)] + text[end:]
    ours = block.replace("\n", breaks)
    if start >= 0:
        out = text[:start] + (ours.replace(_BEGIN, _BEGIN_JOINED, 1) if joined else ours) + text[end:]
    elif text and not text.endswith("\n"):
        out = text + breaks + ours.replace(_BEGIN, _BEGIN_JOINED, 1)
    else:
        out = text + ours
    before, after = _blocks(text), _blocks(out)
    if YAML_BLOCK in before and start < 0:
        raise UsageError(
            f"extra_model_paths.yaml has a block `{YAML_BLOCK}` that hubctl did not write",
            hint="rename it, or link without --yaml",
        )
    if {**before, YAML_BLOCK: after.get(YAML_BLOCK)} != after:
        raise UsageError(
            "extra_model_paths.yaml cannot take another block at its end", hint="add this by hand:\n" + block
        )
    return out


def _own_part(text: str) -> tuple[int, int, bool]:
    for begin in (_BEGIN, _BEGIN_JOINED):
        start = text.find(begin)
        end = text.find(_END, start)
        if start >= 0 and end >= 0:
            stop = text.find("\n", end)
            return start, len(text) if stop < 0 else stop + 1, begin == _BEGIN_JOINED
    return -1, -1, False


def _blocks(text: str) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(getattr(error, "problem_mark", None), "line", None)
        line = f", line {where + 1}" if where is not None else ""
        raise UsageError(
            f"extra_model_paths.yaml cannot be read as YAML{line}", hint="mend it first; nothing was changed"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError("extra_model_paths.yaml holds no blocks", hint="mend it first; nothing was changed")
    return data

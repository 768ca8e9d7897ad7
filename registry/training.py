"""What a header's metadata tells: `ss_*` of kohya's trainer and its followers, `modelspec.*`, and a few others.

All of it is somebody's word. `detect` holds it against names and shapes, which win.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry import families, hashes

LONGEST_JSON = 20_000_000
MOST_TAGS = 500  # kept of the tag table, the most frequent first
MOST_WORDS = 12
LONGEST_WORD = 200

# Tags so common in training captions that they name no concept.
EVERYDAY = frozenset([
    "1girl", "1boy", "solo", "simple background", "white background", "looking at viewer", "masterpiece",
    "best quality", "highres", "absurdres", "no humans", "realistic", "photo", "smile", "standing", "upper body",
    "full body", "long hair", "short hair", "blush", "open mouth", "multiple girls", "2girls", "outdoors", "indoors",
    "monochrome", "greyscale", "a photo of", "portrait", "woman", "man", "girl", "boy", "person", "style",
])  # fmt: skip
_FOLDER = re.compile(r"(\d{1,4})_(.*)", re.DOTALL)

# Base checkpoints that name themselves by hash: first ten digits of SHA256, or A1111's old eight.
KNOWN_BASES: Mapping[str, str] = {
    "67ab2fd8ec": "Pony", "31e35c80fc": "SDXL 1.0", "e6bb9ea85b": "SDXL 1.0", "6ce0161689": "SD 1.5",
    "cc6cb27103": "SD 1.5", "e1441589a6": "SD 1.5", "fe4efff1e1": "SD 1.4", "e3c47aedb0": "Illustrious",
}  # fmt: skip
_NAMED_BASES = (
    ("sdxl", re.compile(r"pony|pdxl", re.I), "Pony"),
    ("sdxl", re.compile(r"noob", re.I), "NoobAI"),
    ("sdxl", re.compile(r"illustrious|(?<![a-z])ilxl?(?![a-z])", re.I), "Illustrious"),
    ("auraflow", re.compile(r"pony", re.I), "Pony V7"),
    ("flux1", re.compile(r"kontext", re.I), "Flux.1 Kontext"),
    ("flux1", re.compile(r"krea", re.I), "Flux.1 Krea"),
    ("flux1", re.compile(r"schnell", re.I), "Flux.1 S"),
    ("sd1", re.compile(r"(?<![0-9])v?1[-_.]?4(?![0-9])", re.I), "SD 1.4"),
    ("z-image", re.compile(r"base", re.I), "ZImageBase"),
)
_ALGORITHMS = {
    "lora": "lora", "locon": "locon", "loha": "loha", "lokr": "lokr", "dylora": "lora", "ia3": "ia3", "full": "full",
    "diag-oft": "oft", "oft": "oft", "boft": "boft", "glora": "glora", "dora": "dora", "tlora": "lora",
}  # fmt: skip


@dataclass(frozen=True)
class Story:
    """What the metadata claims; None and empty = nothing said."""

    kind: str | None = None
    family: str | None = None
    architecture: str | None = None
    rank: int | None = None
    alpha: float | None = None
    prediction: str | None = None
    resolution: str | None = None
    trained_words: tuple[str, ...] = ()
    tag_frequency: Mapping[str, int] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(metadata: Mapping[str, Any]) -> Story:
    """Never raises: entries that make no sense are as good as missing."""
    notes: list[str] = []
    said = _said_architecture(metadata)
    base_version = _text(metadata, "ss_base_model_version")
    family = families.from_words(said) or families.from_words(base_version) or _family_of_v2(metadata)
    if said and base_version and families.from_words(said) != families.from_words(base_version):
        notes.append(f"its metadata contradicts itself: modelspec says {said}, ss_base_model_version {base_version}")
    folders = _folders(metadata)
    return Story(
        kind=_kind(metadata, said),
        family=family,
        architecture=said,
        rank=_whole(metadata.get("ss_network_dim")) or _whole(_peft(metadata).get("r")),
        alpha=_number(metadata.get("ss_network_alpha")) or _number(_peft(metadata).get("lora_alpha")),
        prediction=_prediction(metadata),
        resolution=_text(metadata, "modelspec.resolution") or _pair(_text(metadata, "ss_resolution")),
        trained_words=tuple(_words(metadata, folders)),
        tag_frequency=_merged(folders),
        training=_training(metadata, folders),
        hashes=hashes.claimed(metadata),
        notes=tuple(notes),
    )


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    if not isinstance(value, str) or value.strip() in {"", "None", "null"}:
        return None
    return value.strip()


def _number(value: Any) -> int | float | None:
    try:
        found = float(value) if isinstance(value, str | int | float) and len(str(value)) < 40 else math.nan
    except ValueError:
        return None
    if not math.isfinite(found):
        return None
    return int(found) if found.is_integer() else found


def _whole(value: Any) -> int | None:
    found = _number(value)
    return int(found) if found is not None and found > 0 and found == int(found) else None


def _json(value: Any) -> Any:
    """An entry that holds JSON as text, or (in headers that sites store) as it is."""
    if not isinstance(value, str):
        return value
    if not 2 <= len(value) <= LONGEST_JSON:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _table(value: Any) -> Mapping[str, Any]:
    found = _json(value)
    return found if isinstance(found, dict) else {}


def _peft(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """diffusers keeps peft's settings as JSON, each key with the component before it."""
    found = _table(metadata.get("lora_adapter_metadata"))
    return {str(key).rsplit(".", 1)[-1]: value for key, value in found.items()}


def _said_architecture(metadata: Mapping[str, Any]) -> str | None:
    found = _text(metadata, "modelspec.architecture") or _text(metadata, "architecture")
    return found[:100] if found else None


def _kind(metadata: Mapping[str, Any], architecture: str | None) -> str | None:
    module = _text(metadata, "ss_network_module") or ""
    arguments = _table(metadata.get("ss_network_args"))
    if "lycoris" in module or "locon" in module:
        algorithm = str(arguments.get("algo") or "lora").lower()
        if str(arguments.get("dora_wd", "")).lower() == "true" and algorithm in {"lora", "locon"}:
            return "dora"
        return "locon" if algorithm in {"lora", "locon"} else _ALGORITHMS.get(algorithm, "lora")
    if module:
        known = next(
            (kind for word, kind in (("oft", "oft"), ("loha", "loha"), ("lokr", "lokr")) if word in module), None
        )
        return known or ("locon" if _whole(arguments.get("conv_dim")) else "lora")
    if architecture:
        role = architecture.lower().partition("/")[2]
        kinds = {
            "lora": "lora", "embedding": "embedding", "textual-inversion": "embedding", "controlnet": "controlnet",
            "vae": "vae", "lycoris": "lora", "dora": "dora", "control-lora": "control_lora",
        }  # fmt: skip
        return kinds.get(role, "checkpoint") if not role or role in kinds else None
    if metadata.get("lora_adapter_metadata") or "ss_network_dim" in metadata:
        return "lora"
    return None


def _family_of_v2(metadata: Mapping[str, Any]) -> str | None:
    """Old kohya files only say whether the base was Stable Diffusion 2."""
    said = _text(metadata, "ss_v2")
    return {"True": "sd2", "False": "sd1"}.get(said or "")


def _prediction(metadata: Mapping[str, Any]) -> str | None:
    said = (_text(metadata, "modelspec.prediction_type") or "").lower()
    if said in {"v", "v_prediction", "v-prediction", "velocity"}:
        return "v"
    if said in {"epsilon", "eps"}:
        return "epsilon"
    if "flow" in said:
        return "flow"
    return "v" if _text(metadata, "ss_v_parameterization") == "True" or "v_pred" in metadata else None


def _pair(text: str | None) -> str | None:
    """`(1024, 1024)` → `1024x1024`."""
    numbers = re.findall(r"\d{2,5}", text or "")[:2]
    return "x".join(numbers * (2 if len(numbers) == 1 else 1)) if numbers else None


# --- the training pictures --------------------------------------------------------------------------------------------


@dataclass
class _Folder:
    name: str
    images: int | None = None
    repeats: int | None = None
    tags: dict[str, int] = field(default_factory=dict)

    @property
    def concept(self) -> str:
        """`10_sks dog` → `sks dog`."""
        found = _FOLDER.fullmatch(self.name)
        return (found[2] if found else self.name).strip()

    @property
    def numbered(self) -> bool:
        return _FOLDER.fullmatch(self.name) is not None


def _folders(metadata: Mapping[str, Any]) -> list[_Folder]:
    """Folders of training pictures with their tags, from `ss_dataset_dirs`, `ss_tag_frequency` and `ss_datasets`."""
    found: dict[str, _Folder] = {}
    for name, facts in list(_table(metadata.get("ss_dataset_dirs")).items())[:1000]:
        if isinstance(facts, dict):
            found[name] = _Folder(str(name), _whole(facts.get("img_count")), _whole(facts.get("n_repeats")))
    tables = [_table(metadata.get("ss_tag_frequency"))]
    datasets = _json(metadata.get("ss_datasets"))
    for dataset in datasets[:100] if isinstance(datasets, list) else ():
        if not isinstance(dataset, dict):
            continue
        if not tables[0]:
            tables.append(_table(dataset.get("tag_frequency")))
        for subset in dataset.get("subsets") or () if isinstance(dataset.get("subsets"), list) else ():
            if isinstance(subset, dict) and isinstance(subset.get("class_tokens"), str):
                name = str(subset.get("image_dir") or subset["class_tokens"])
                if name not in found:
                    found[name] = _Folder(name, _whole(subset.get("img_count")), _whole(subset.get("num_repeats")))
    for table in tables:
        for name, tags in list(table.items())[:1000]:
            folder = found.setdefault(str(name), _Folder(str(name)))
            if isinstance(tags, dict):
                for tag, count in tags.items():
                    if isinstance(count, int) and count > 0 and len(tag) <= LONGEST_WORD * 5:
                        label = tag.strip()
                        folder.tags[label] = folder.tags.get(label, 0) + count
    return list(found.values())


def _merged(folders: list[_Folder]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for folder in folders:
        for tag, count in folder.tags.items():
            if len(tag) <= LONGEST_WORD:
                counts[tag] = counts.get(tag, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_TAGS])


def _words(metadata: Mapping[str, Any], folders: list[_Folder]) -> Iterator[str]:
    """Likely trigger words, the surest first.

    What the maker wrote down; a tag that is also its folder's name; a folder's name where pictures have no captions;
    last, a tag on every picture that is no everyday word.
    """
    seen: set[str] = set()
    for word in (*_written_down(metadata), *_of_folders(folders)):
        word = " ".join(word.split())
        key = word.casefold()
        if word and len(word) <= LONGEST_WORD and key not in seen and len(seen) < MOST_WORDS:
            seen.add(key)
            yield word


def _written_down(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in (
        "modelspec.trigger_phrase",
        "modelspec.trigger_word",
        "trigger_phrase",
        "trigger_word",
        "trigger_words",
    ):
        value = _json(metadata.get(key)) if str(metadata.get(key, "")).startswith("[") else metadata.get(key)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (item for item in value[:MOST_WORDS] if isinstance(item, str))


def _of_folders(folders: list[_Folder]) -> Iterator[str]:
    for folder in folders[:200]:
        wanted = _loose(folder.concept)
        same = [tag for tag in folder.tags if _loose(tag) == wanted] if wanted else []
        if same:
            yield max(same, key=lambda tag: folder.tags[tag])
        elif folder.numbered and not folder.tags and folder.concept and _loose(folder.concept) not in EVERYDAY:
            yield folder.concept
        elif folder.tags and (folder.images or 0) >= 5:
            everywhere = 0.95 * (folder.images or 0)
            often = [
                t for t, n in folder.tags.items() if n >= everywhere and _loose(t) not in EVERYDAY and len(t) <= 60
            ]
            if len(often) <= 4:
                yield from sorted(often, key=lambda tag: -folder.tags[tag])


def _loose(text: str) -> str:
    return re.sub(r"[\s_\\]+", " ", text).strip().casefold()


# --- the training itself ----------------------------------------------------------------------------------------------

_SETTINGS = {
    "ss_output_name": "output_name", "ss_sd_model_name": "base_model_name", "ss_sd_model_hash": "base_model_hash",
    "ss_new_sd_model_hash": "base_model_sha256", "ss_vae_name": "vae_name", "ss_network_module": "network_module",
    "ss_optimizer": "optimizer", "ss_lr_scheduler": "lr_scheduler", "ss_mixed_precision": "mixed_precision",
    "ss_training_comment": "comment", "ss_base_model_version": "base_model_version",
    "ss_sd_scripts_commit_hash": "commit",
}  # fmt: skip
_FIGURES = {
    "ss_steps": "steps", "ss_max_train_steps": "max_steps", "ss_num_epochs": "epochs", "ss_epoch": "epoch",
    "ss_num_train_images": "images", "ss_num_reg_images": "regularisation_images", "ss_learning_rate": "learning_rate",
    "ss_unet_lr": "unet_lr", "ss_text_encoder_lr": "text_encoder_lr", "ss_clip_skip": "clip_skip", "ss_seed": "seed",
    "ss_total_batch_size": "batch_size", "ss_batch_size_per_device": "batch_size_per_device",
    "ss_noise_offset": "noise_offset", "ss_min_snr_gamma": "min_snr_gamma",
    "ss_training_started_at": "started_at", "ss_training_finished_at": "finished_at",
}  # fmt: skip


def _training(metadata: Mapping[str, Any], folders: list[_Folder]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name in _SETTINGS.items():
        if value := _text(metadata, key):
            found[name] = value[:500]
    for key, name in _FIGURES.items():
        if (figure := _number(metadata.get(key))) is not None:
            found[name] = figure
    info, software = _table(metadata.get("training_info")), _table(metadata.get("software"))  # of ai-toolkit
    for key, name in (("step", "steps"), ("epoch", "epoch")):
        if name not in found and (figure := _number(info.get(key))) is not None:
            found[name] = figure
    if isinstance(software.get("name"), str):
        found["software"] = f"{software['name']} {software.get('version') or ''}".strip()[:100]
    arguments = _table(metadata.get("ss_network_args"))
    if arguments:
        found["network_args"] = {str(k)[:60]: str(v)[:120] for k, v in list(arguments.items())[:40]}
    directories = {
        f.name[:200]: {"n_repeats": f.repeats, "img_count": f.images}
        for f in folders[:50]
        if f.images is not None or f.repeats is not None
    }
    if directories:
        found["dataset_dirs"] = directories
    return found


def base_model(metadata: Mapping[str, Any], family: str | None) -> str | None:
    """The hub's name of the base checkpoint, where hash or name give it away."""
    sha256 = (_text(metadata, "ss_new_sd_model_hash") or "").lower().removeprefix("0x")
    if sha256[:10] in KNOWN_BASES:
        return KNOWN_BASES[sha256[:10]]
    keys = ("ss_sd_model_name", "modelspec.title", "ss_base_model_version", "modelspec.merged_from", "sd_merge_models")
    named = " ".join(str(metadata.get(key) or "")[:2000] for key in keys)
    for of_family, pattern, name in _NAMED_BASES:
        if family == of_family and pattern.search(named):
            return name
    return None

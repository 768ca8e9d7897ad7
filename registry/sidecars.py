"""What other tools write beside a model file, read and written.

    thanos.safetensors
    thanos.civitai.info      civitai        the hub's version object
    thanos.json              a1111          activation text, preferred weight, notes
    thanos.metadata.json     lora-manager
    thanos.cm-info.json      stability
    thanos.swarm.json        swarm          modelspec.* keys
    thanos.preview.png       a picture

Reading: `read` gives one `Said`: who the file claims to be (to be checked), and what a person wrote.
Writing: field by field. A key we do not know stays; a value that is not the one we wrote last was edited by hand and
stays; what we wrote and nobody touched can be taken away again. What we wrote last is remembered as digests.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

LARGEST = 8 << 20  # bytes; a version object with all its images stays far below
LONGEST_TEXT = 20_000
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
ENDINGS = MappingProxyType(
    {
        "civitai": ".civitai.info", "a1111": ".json", "lora-manager": ".metadata.json", "stability": ".cm-info.json",
        "swarm": ".swarm.json",
    }
)  # fmt: skip
TOOLS = (*ENDINGS, "preview")


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What the sidecars of one file say. Ids and hashes are claims; `words`, `weight` and `notes` are a person's."""

    files: tuple[str, ...] = ()  # names of the sidecars that were read
    sha256: str | None = None  # lower-case hex
    size: int | None = None
    model_id: int | None = None
    version_id: int | None = None
    name: str | None = None
    version_name: str | None = None
    base_model: str | None = None
    model_type: str | None = None
    creator: str | None = None
    description: str | None = None
    trained_words: tuple[str, ...] = ()  # as the hub gave them to that tool
    tags: tuple[str, ...] = ()
    words: str | None = None  # activation text
    weight: float | None = None
    notes: str | None = None
    favorite: bool = False
    version: Mapping[str, Any] | None = None  # the hub's version object, whole
    preview: str | None = None  # name of the picture

    def to_json(self) -> dict[str, Any]:
        """Without the version object, which is large and can be read again."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "version"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in out.items() if value}


_ENDINGS = tuple(
    [*ENDINGS.values(), ".txt", ".description.txt"]
    + [mark + picture for mark in ("", ".preview") for picture in PICTURES]
)


def by_stem(names: Collection[str]) -> dict[str, list[str]]:
    """Stem of a model file → its sidecars and pictures among the names of a folder, for many files at once."""
    out: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(_ENDINGS):
            for ending in _ENDINGS:
                if name.endswith(ending):
                    out.setdefault(name[: -len(ending)], []).append(name)
    return out


def beside(name: str, siblings: Collection[str]) -> list[str]:
    """The sidecars and pictures of a model file among the names in its folder."""
    stem = name.rsplit(".", 1)[0]
    return [stem + ending for ending in _ENDINGS if stem + ending in siblings]


def read(path: Path, siblings: Collection[str] | None = None, *, ours: Mapping[str, str] | None = None) -> Said:
    """Everything the sidecars of a model file say; unreadable ones say nothing.

    `ours` has what we wrote last (path → digests): our own words are not taken for a person's.
    """
    if siblings is None:
        try:
            siblings = {entry.name for entry in path.parent.iterdir()}
        except OSError:
            return Said()
    found = beside(path.name, siblings)
    said = Said()
    stem = path.name.rsplit(".", 1)[0]
    for tool, reader in _READERS.items():
        name = stem + ENDINGS[tool]
        if name in found and (data := load(path.with_name(name))) is not None:
            written = digests_of((ours or {}).get(str(path.with_name(name))))
            said = _joined(said, reader(_edited(data, written) if written else data), name)
    for ending in (".txt", ".description.txt"):
        name = stem + ending
        if name in found and said.notes is None and (text := _text_file(path.with_name(name))):
            said = replace(said, notes=text, files=(*said.files, name))
    pictures = [name for name in found if name.endswith(PICTURES)]
    return replace(said, preview=pictures[0]) if pictures else said


def load(path: Path) -> dict[str, Any] | None:
    """A sidecar's JSON object; None when it is too large, broken or something else."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            return None
        parsed = json.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _text_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return None
    return text.replace("\x00", "").strip() or None


def _edited(data: dict[str, Any], written: Mapping[str, str], at: str = "") -> dict[str, Any]:
    """Only what a person put in since we wrote it."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        here = f"{at}{key}"
        if isinstance(value, dict):
            if inner := _edited(value, written, here + "/"):
                out[key] = inner
        elif not _is_of(written.get(here), value):
            out[key] = value
    return out


def _joined(first: Said, more: Said, name: str) -> Said:
    """What the first did not say, the second may."""
    values = {f.name: getattr(first, f.name) or getattr(more, f.name) for f in fields(Said) if f.name != "files"}
    return Said(files=(*first.files, name), **values)


def _str(value: Any, longest: int = 1000) -> str | None:
    return value.strip()[:longest] or None if isinstance(value, str) else None


def _int(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None


def _weight(value: Any) -> float | None:
    """A preferred weight; 0 is how A1111 writes "none"."""
    if isinstance(value, str):
        try:
            value = float(value.strip().replace(",", "."))
        except ValueError:
            return None
    ok = isinstance(value, int | float) and not isinstance(value, bool) and value != 0 and -20 <= value <= 20
    return float(value) if ok else None


def _sha(value: Any) -> str | None:
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _strings(value: Any, most: int = 200) -> tuple[str, ...]:
    return tuple(text for each in value[:most] if (text := _str(each))) if isinstance(value, list) else ()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_civitai(data: dict[str, Any]) -> Said:
    model = _dict(data.get("model"))
    files = [each for each in data.get("files") or () if isinstance(each, dict)] if _is_list(data, "files") else []
    primary = next((each for each in files if each.get("primary") is True), files[0] if len(files) == 1 else {})
    version_id = _int(data.get("id"))
    return Said(
        sha256=_sha(_dict(primary.get("hashes")).get("SHA256")),
        model_id=_int(data.get("modelId")),
        version_id=version_id,
        name=_str(model.get("name")),
        version_name=_str(data.get("name")),
        base_model=_str(data.get("baseModel")),
        model_type=_str(model.get("type")),
        creator=_str(_dict(data.get("creator") or model.get("creator")).get("username")),
        description=_str(data.get("description"), LONGEST_TEXT),
        trained_words=_strings(data.get("trainedWords")),
        tags=_strings(model.get("tags")),
        version=data if version_id and files else None,
    )


def _is_list(data: dict[str, Any], key: str) -> bool:
    return isinstance(data.get(key), list)


def _read_a1111(data: dict[str, Any]) -> Said:
    known = {"SD1": "SD 1.5", "SD2": "SD 2.1", "SDXL": "SDXL 1.0", "Flux": "Flux.1 D"}
    return Said(
        sha256=_sha(data.get("sha256")),
        model_id=_int(data.get("modelId")),
        version_id=_int(data.get("modelVersionId")),
        base_model=known.get(str(data.get("sd version") or data.get("sd_version_str")).removeprefix("SdVersion.")),
        description=_str(data.get("description"), LONGEST_TEXT),
        words=_str(data.get("activation text"), LONGEST_TEXT),
        weight=_weight(data.get("preferred weight")),
        notes=_str(data.get("notes"), LONGEST_TEXT),
    )


def _read_lora_manager(data: dict[str, Any]) -> Said:
    civitai = _dict(data.get("civitai"))
    inner = _read_civitai(civitai)
    tips = data.get("usage_tips")
    try:
        tips = json.loads(tips) if isinstance(tips, str) and len(tips) < LONGEST_TEXT else {}
    except (ValueError, RecursionError):
        tips = {}
    size = data.get("size")
    return replace(
        inner,
        sha256=_sha(data.get("sha256")) or inner.sha256,
        size=size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None,
        name=_str(data.get("model_name")) or inner.name,
        base_model=known if (known := _str(data.get("base_model"))) and known != "Unknown" else inner.base_model,
        description=_str(data.get("modelDescription"), LONGEST_TEXT) or inner.description,
        tags=_strings(data.get("tags")) or inner.tags,
        weight=_weight(_dict(tips).get("strength")),
        notes=_str(data.get("notes"), LONGEST_TEXT),
        favorite=data.get("favorite") is True,
    )


def _read_stability(data: dict[str, Any]) -> Said:
    return Said(
        sha256=_sha(_dict(data.get("Hashes")).get("SHA256")),
        model_id=_int(data.get("ModelId")),
        version_id=_int(data.get("VersionId")),
        name=_str(data.get("UserTitle")) or _str(data.get("ModelName")),
        version_name=_str(data.get("VersionName")),
        base_model=_str(data.get("BaseModel")),
        model_type=_str(data.get("ModelType")),
        creator=_str(data.get("AuthorUsername")),
        description=_str(data.get("ModelDescription"), LONGEST_TEXT),
        trained_words=_strings(data.get("TrainedWords")),
        tags=_strings(data.get("Tags")),
    )


def _read_swarm(data: dict[str, Any]) -> Said:
    tags = _str(data.get("modelspec.tags"))
    words = _str(data.get("modelspec.trigger_phrase"), LONGEST_TEXT)
    return Said(
        name=_str(data.get("modelspec.title")),
        creator=_str(data.get("modelspec.author")),
        description=_str(data.get("modelspec.description"), LONGEST_TEXT),
        trained_words=(words,) if words else (),
        tags=tuple(tag.strip() for tag in tags.split(",") if tag.strip()) if tags else (),
        notes=_str(data.get("modelspec.usage_hint"), LONGEST_TEXT),
    )


# The person's own words first (A1111's and Lora Manager's editors), then what tools copied from the hub.
_READERS: Mapping[str, Callable[[dict[str, Any]], Said]] = MappingProxyType(
    {
        "a1111": _read_a1111, "lora-manager": _read_lora_manager, "civitai": _read_civitai,
        "stability": _read_stability, "swarm": _read_swarm,
    }
)  # fmt: skip


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What is known of one linked file; the writers pick what their tool has a key for."""

    path: Path  # the model file the sidecar stands beside
    kind: str
    sha256: str
    size: int
    mtime: float
    source: str
    model: Mapping[str, Any]  # the hub's model object
    version: Mapping[str, Any]  # the hub's version object
    words: tuple[str, ...] = ()
    weight: float | None = None
    notes: str | None = None
    autov3: str | None = None
    file: Mapping[str, Any] = field(default_factory=dict)  # the hub's file object

    @property
    def stem(self) -> str:
        return self.path.name.removesuffix(self.path.suffix)

    @property
    def from_hub(self) -> bool:
        return self.source != "local"


def content(tool: str, card: Card) -> dict[str, Any]:
    """What we would say in this tool's sidecar; keys without a value are left out."""
    return {key: value for key, value in _WRITERS[tool](card).items() if value not in (None, "", [], {})}


def _civitai(card: Card) -> dict[str, Any]:
    if not card.from_hub:
        return {}
    model = {key: card.model[key] for key in ("name", "type", "nsfw", "poi") if key in card.model}
    return {**card.version, "modelId": card.model.get("id"), "model": model}


def _a1111(card: Card) -> dict[str, Any]:
    out: dict[str, Any] = {"description": plain(card.model.get("description") or card.version.get("description"))}
    if card.kind not in {"checkpoint", "unet"}:
        out |= {
            "sd version": {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL", "flux1": "Flux"}.get(_family(card), "Unknown"),
            "activation text": ", ".join(card.words),
            "preferred weight": card.weight,
        }
    ids = {"modelId": card.model.get("id"), "modelVersionId": card.version.get("id")} if card.from_hub else {}
    return {**out, "notes": card.notes, **ids, "sha256": card.sha256.upper()}


def _family(card: Card) -> str:
    from registry.layouts import base_family

    return base_family(card.version.get("baseModel"))


def _lora_manager(card: Card) -> dict[str, Any]:
    civitai = {**_civitai(card), "creator": card.model.get("creator")} if card.from_hub else {}
    out: dict[str, Any] = {
        "file_name": card.stem,
        "model_name": card.model.get("name"),
        "file_path": card.path.as_posix(),
        "size": card.size,
        "modified": card.mtime,
        "sha256": card.sha256,
        "base_model": card.version.get("baseModel") or "Unknown",
        "notes": card.notes,
        "from_civitai": card.from_hub,
        "civitai": civitai,
        "tags": _tags(card),
        "modelDescription": card.model.get("description"),
    }
    if card.kind in {"lora", "lycoris"}:
        out["usage_tips"] = json.dumps({"strength": card.weight}) if card.weight is not None else None
    elif card.kind in {"checkpoint", "unet"}:
        out["model_type"] = "diffusion_model" if card.kind == "unet" else "checkpoint"
    elif card.kind == "embedding":
        out["model_type"] = "embedding"
    return out


def _tags(card: Card) -> list[str]:
    named = (tag.get("name") if isinstance(tag, dict) else tag for tag in card.model.get("tags") or ())
    return [tag for tag in named if isinstance(tag, str)]


def _stability(card: Card) -> dict[str, Any]:
    if not card.from_hub:
        return {}
    metadata = _dict(card.file.get("metadata"))
    hashes = _dict(card.file.get("hashes"))
    images = [each for each in card.version.get("images") or () if isinstance(each, dict)]
    return {
        "ModelId": card.model.get("id"),
        "ModelName": card.model.get("name"),
        "ModelDescription": card.model.get("description"),
        "Nsfw": bool(card.model.get("nsfw")),
        "Tags": _tags(card),
        "ModelType": card.model.get("type"),
        "VersionId": card.version.get("id"),
        "VersionName": card.version.get("name"),
        "VersionDescription": card.version.get("description"),
        "AuthorUsername": _dict(card.model.get("creator")).get("username"),
        "BaseModel": card.version.get("baseModel"),
        "RemoteFileName": card.file.get("name"),
        "RemoteFileId": card.file.get("id"),
        "FileMetadata": {
            "Fp": metadata.get("fp"), "Size": metadata.get("size"), "Format": metadata.get("format"),
        },
        "ImportedAt": datetime.fromtimestamp(card.mtime, UTC).isoformat(timespec="seconds"),
        "Hashes": {
            "SHA256": card.sha256.upper(), "CRC32": hashes.get("CRC32"), "BLAKE3": hashes.get("BLAKE3"),
        },
        "TrainedWords": list(card.version.get("trainedWords") or ()),
        "ThumbnailImageUrl": images[0].get("url") if images else None,
        "Source": 0,
    }  # fmt: skip


def _swarm(card: Card) -> dict[str, Any]:
    name, version = card.model.get("name"), card.version.get("name")
    return {
        "modelspec.title": f"{name} - {version}" if version and card.from_hub else name,
        "modelspec.author": _dict(card.model.get("creator")).get("username"),
        "modelspec.description": card.model.get("description"),
        "modelspec.date": card.version.get("publishedAt") or card.version.get("createdAt"),
        "modelspec.tags": ", ".join(_tags(card)),
        "modelspec.trigger_phrase": ", ".join(card.words),
        "modelspec.usage_hint": card.notes,
    }


_WRITERS: Mapping[str, Callable[[Card], dict[str, Any]]] = MappingProxyType(
    {"civitai": _civitai, "a1111": _a1111, "lora-manager": _lora_manager, "stability": _stability, "swarm": _swarm}
)


def plain(text: Any) -> str:
    """HTML as one paragraph a line, without markup. Linear, and short enough for a tooltip."""
    if not isinstance(text, str):
        return ""
    text = re.sub(r"<(?:br|/p|/li|/h[1-6])[^<>]{0,100}>", "\n", text[:LONGEST_TEXT], flags=re.IGNORECASE)
    text = html.unescape(re.sub(r"<[^<>]{0,2000}>", "", text))
    return "\n".join(line for each in text.splitlines() if (line := " ".join(each.split())))


# --- merging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Merged:
    """A sidecar's next content. `written` is what to remember; `kept` names the keys of ours that a person edited."""

    data: dict[str, Any]
    written: str
    kept: tuple[str, ...]
    changed: bool


def merge(existing: Mapping[str, Any] | None, ours: Mapping[str, Any], written: str | None) -> Merged:
    """Put our fields into a sidecar that may hold a person's.

    Ours is taken where the key is new, empty, or still what we wrote last; where a person cleared or changed what we
    wrote, and where somebody else's value stands, theirs stays. What we wrote and do not say any more goes.
    """
    last = digests_of(written) if existing is not None else {}
    kept: list[str] = []
    remembered: dict[str, str] = {}
    data = _merge(dict(existing or {}), ours, last, "", kept, remembered)
    return Merged(data, json.dumps(remembered, sort_keys=True), tuple(kept), existing is None or data != existing)


def _merge(
    into: dict[str, Any], ours: Mapping[str, Any], last: Mapping[str, str], at: str, kept: list[str],
    remembered: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    for key, value in ours.items():
        here = f"{at}{key}"
        there = into.get(key)
        if isinstance(value, dict) and isinstance(there, dict | None):
            inner = _merge(dict(there or {}), value, last, here + "/", kept, remembered)
            if inner or isinstance(there, dict):
                into[key] = inner
            continue
        wrote = last.get(here)
        untouched = _is_of(wrote, there) if key in into else wrote is None
        fillable = wrote is None and _is_empty(there)
        if untouched or fillable:
            empty = [f"={json.dumps(there)}"] if fillable and key in into else _emptiness(wrote)
            into[key] = value
            remembered[here] = " ".join([_digest(value), *empty])
        else:
            if wrote is not None:
                if there != value:
                    kept.append(here)
                remembered[here] = wrote  # still known to be edited, whatever we would say next time
    for key in [key for key in into if key not in ours]:
        _take_out(into, key, last, at, kept, remembered)
    return into


def _take_out(
    into: dict[str, Any], key: str, last: Mapping[str, str], at: str, kept: list[str], remembered: dict[str, str]
) -> None:
    """A field we do not say any more: what is ours of it goes."""
    here, there = f"{at}{key}", into[key]
    if _is_of(last.get(here), there):
        if empty := _emptiness(last[here]):
            into[key] = json.loads(empty[0][1:])
        else:
            del into[key]
    elif isinstance(there, dict):
        if any(name.startswith(f"{here}/") for name in last):
            into[key] = _merge(dict(there), {}, last, f"{here}/", kept, remembered)
            if not into[key]:
                del into[key]
    elif here in last:
        remembered[here] = last[here]


def _is_empty(value: Any) -> bool:
    """Whether it is how an editor writes a field that nobody filled."""
    return not isinstance(value, bool) and value in (None, "", 0, [], {}, "Unknown")


def _emptiness(wrote: str | None) -> list[str]:
    """How a field was empty before we filled it, as it is remembered beside our digest."""
    return [token for token in (wrote or "").split() if token.startswith("=")][:1]


def theirs(existing: Mapping[str, Any], written: str | None) -> dict[str, Any]:
    """What is left of a sidecar without the values we wrote and nobody changed."""
    return merge(existing, {}, written).data if written else dict(existing)


def either(before: str | None, after: str) -> str:
    """What to remember while a sidecar is about to change from one to the other: either is ours."""
    old, new = digests_of(before), digests_of(after)
    return json.dumps(
        {
            key: " ".join(dict.fromkeys([*old.get(key, "").split(), *new.get(key, "").split()]))
            for key in sorted(old.keys() | new.keys())
        }
    )


def _is_of(wrote: str | None, value: Any) -> bool:
    return wrote is not None and _digest(value) in wrote.split()


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def digests_of(written: str | None) -> dict[str, str]:
    """What `Merged.written` remembers; empty for none."""
    try:
        data = json.loads(written) if written else {}
    except ValueError:
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}


def dump(data: Mapping[str, Any], like: bytes = b"") -> bytes:
    """As these tools write it: indented, keys in order; or as the file was that it is written into."""
    indent = re.match(rb"\s*\{\r?\n( {1,8})\S", like[:100])
    width = len(indent[1]) if indent else None if like else 4
    text = json.dumps(data, indent=width, ensure_ascii=b"\\u" in like and like.isascii())
    return (text + ("" if like and not like.endswith(b"\n") else "\n")).encode("utf-8", "replace")


def own_words(said: Said, hub_words: Iterable[str]) -> list[str] | None:
    """The activation text as a list, when it says something else than the hub's trigger words."""
    mine = _word_list([said.words or ""])
    return mine if mine and {w.casefold() for w in mine} != {w.casefold() for w in _word_list(hub_words)} else None


def _word_list(entries: Iterable[str]) -> list[str]:
    out: list[str] = []
    for entry in entries:
        for part in re.sub(r"<[^<>]{1,300}>", ",", entry).replace("\n", ",").split(","):
            word = " ".join(part.split())
            if word and word not in out:
                out.append(word)
    return out[:64]

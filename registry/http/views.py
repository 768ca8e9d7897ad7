"""What a hub said, as this server says it. No I/O.

Addresses are this server's own, sizes and SHA256 those of the bytes that are here; files, versions and pictures are
only those it can give. Everything else goes out as it came in.

The same image has three shapes: on models (no `meta`, maturity as a bit), on versions (with `meta`), and on /images
(maturity as a word, `meta` wrapped by some roads). Recorded in one of them, it can be asked for in each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from registry.http import vocabulary
from registry.http.catalog import HeldFile, Holding, Json, StoredImage, own_entry
from registry.http.query import ImageQuery, ModelQuery

LISTED_IMAGES, VERSION_IMAGES = 20, 10  # the hub's own caps, of a model in a list and of a version
MOST_TEXT = 200_000  # characters of one description
BITS = {"None": 1, "Soft": 2, "Mature": 4, "X": 8, "Blocked": 32}
WORDS = {1: "None", 2: "Soft", 4: "Mature", 8: "X", 16: "X", 32: "Blocked"}
GENERATION_KEYS = frozenset({"prompt", "negativePrompt", "seed", "steps", "sampler", "cfgScale", "comfy", "resources"})
PREFERRED = {"format": ("SafeTensor", 100), "size": ("pruned", 10), "fp": ("fp16", 1), "quantType": ("Q4_K_M", 0.5)}


@dataclass(frozen=True)
class Face:
    """This server as the asking client sees it. `picture` names the bytes of an image, below /images/."""

    base: str
    picture: Callable[[str, int], str | None]

    def download(self, version_id: int, file_id: int | None = None) -> str:
        return f"{self.base}/api/download/models/{version_id}" + (f"?fileId={file_id}" if file_id is not None else "")

    def image_url(self, source: str, image: Json) -> Any:
        """Ours where we have the bytes, else the one that was recorded."""
        number = image_id_of(image)
        name = self.picture(source, number) if number is not None else None
        return f"{self.base}/images/{quote(name)}" if name else image.get("url")


# --- models -----------------------------------------------------------------------------------------------------------


def model(face: Face, holdings: Sequence[Holding], query: ModelQuery | None = None) -> Json:
    """A model with the versions that are here. `query` is the list it is shown in; None on its own page."""
    newest = holdings[0]
    order = [each.get("id") for each in _dicts(newest.model.get("modelVersions"))]
    rank = {number: place for place, number in enumerate(order) if isinstance(number, int)}
    shown = sorted(holdings, key=lambda h: (rank.get(h.version_id, -1), -h.version_id))
    out = {key: value for key, value in newest.model.items() if key != "modelVersions"}
    if out.get("mode") == "Archived":  # there, not here: the files are served
        del out["mode"]
    _shorten(out)
    out["id"] = newest.model_id
    out["modelVersions"] = [_listed_version(face, holding, query) for holding in shown]
    return out


def _listed_version(face: Face, holding: Holding, query: ModelQuery | None) -> Json:
    entry = own_entry(holding.model, holding.version_id)
    base = entry or {key: value for key, value in holding.version.items() if key not in ("model", "modelId")}
    out = dict(base)
    _shorten(out)
    out["id"] = holding.version_id
    out["air"] = _air(holding)  # the site leaves it out here; it tells other hubctls whose ids these are
    out["files"] = files(face, holding, (*_dicts(base.get("files")), *_dicts(holding.version.get("files"))))
    if query is not None and query.primary_only:
        out["files"] = [file for file in out["files"] if file.get("primary") is True]
    recorded = _dicts(base.get("images")) or _dicts(holding.version.get("images")) or list(holding.images)
    if query is not None:
        recorded = [image for image in recorded if bit_of(image) & query.mask][:LISTED_IMAGES]
    if recorded or "images" in base or query is not None:
        out["images"] = [_model_image(face, holding.source, image) for image in recorded]
    out["downloadUrl"] = face.download(holding.version_id)
    return out


def _model_image(face: Face, source: str, image: Json) -> Json:
    if not is_gallery(image):
        return {**image, **_moved(face, source, image)}
    meta = unwrapped(image.get("meta"))
    return {
        "id": image_id_of(image),
        "url": face.image_url(source, image),
        "nsfwLevel": bit_of(image),
        **{key: image.get(key) for key in ("width", "height", "hash")},
        "type": image.get("type") or "image",
        "minor": image.get("minor") is True,
        "poi": image.get("poi") is True,
        "hasMeta": bool(meta),
        "hasPositivePrompt": bool(meta and meta.get("prompt")),
        "onSite": image.get("onSite") is True,
        "remixOfId": image.get("remixOfId"),
    }


def _moved(face: Face, source: str, image: Json) -> Json:
    return {"url": face.image_url(source, image)} if "url" in image else {}


def _air(holding: Holding) -> str:
    ids = (holding.model_id, holding.version_id)
    return vocabulary.air(holding.model, holding.version, *ids, source=_word(holding.source))


def _word(source: str) -> str:
    """A source as an AIR may name it."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", source) or "local"


# --- versions ---------------------------------------------------------------------------------------------------------


def version(face: Face, holding: Holding) -> Json:
    """A version on its own page, and as it is found by hash."""
    out = dict(holding.version)
    _shorten(out)
    out["id"], out["modelId"] = holding.version_id, holding.model_id
    out["air"] = _air(holding)
    out.setdefault("trainedWords", [])
    about = out.get("model")
    out["model"] = {
        **{key: holding.model.get(key) for key in ("name", "type")},
        **{key: holding.model.get(key) or False for key in ("nsfw", "poi")},
        **(about if isinstance(about, dict) else {}),
    }
    if out["model"].get("mode") == "Archived":
        del out["model"]["mode"]
    entry = own_entry(holding.model, holding.version_id)
    out["files"] = [
        {**file, "primary": file.get("primary") is True}
        for file in files(face, holding, (*_dicts(out.get("files")), *_dicts(entry.get("files"))))
    ]
    recorded = _dicts(out.get("images")) or _dicts(entry.get("images")) or list(holding.images)
    if recorded and is_gallery(recorded[0]):
        recorded = recorded[:VERSION_IMAGES]
    out["images"] = [_version_image(face, holding.source, image) for image in recorded]
    out["downloadUrl"] = face.download(holding.version_id)
    return out


def _version_image(face: Face, source: str, image: Json) -> Json:
    if not is_gallery(image):
        return {**image, **_moved(face, source, image)}
    return {**_model_image(face, source, image), "meta": unwrapped(image.get("meta"))}


def mini(face: Face, holding: Holding, file_id: int | None) -> Json | None:
    """The short answer about one version; None when it has no such file."""
    shown = version(face, holding)
    chosen = next((f for f in shown["files"] if (f["id"] == file_id if file_id is not None else f["primary"])), None)
    if chosen is None:
        return None
    known, asked = holding.version, file_id is not None
    until = known.get("earlyAccessEndsAt") or known.get("earlyAccessDeadline")
    return {
        "air": shown["air"] + (f"+{file_id}" if asked else ""),
        "versionName": shown.get("name"),
        "modelName": holding.model.get("name"),
        "baseModel": known.get("baseModel"),
        "availability": known.get("availability") or "Public",
        "publishedAt": known.get("publishedAt"),
        "size": chosen.get("sizeKB"),
        "fileType": chosen.get("type"),
        "fileName": chosen.get("name"),
        "hashes": chosen.get("hashes", {}),
        "downloadUrls": [face.download(holding.version_id, file_id)],
        "format": _metadata(chosen).get("format"),
        "canGenerate": False,
        "isFeatured": False,
        "requireAuth": False,
        "checkPermission": False,
        **({"earlyAccessEndsAt": until} if until else {}),
        "minor": holding.model.get("minor") is True,
        "sfwOnly": holding.model.get("sfwOnly") is True,
    }


# --- files ------------------------------------------------------------------------------------------------------------


def files(face: Face, holding: Holding, described: Iterable[Json]) -> list[Json]:
    """The files that are here, each once, as the first of its descriptions has it and as its bytes are."""
    held = {file.id: file for file in holding.files}
    seen: dict[int, Json] = {}
    for each in described:
        number = each.get("id")
        if isinstance(number, int) and number in held and number not in seen:
            seen[number] = _file(face, holding.version_id, each, held[number])
    for number, file in held.items():  # a file nobody described: a name by its hash is better than none
        if number not in seen:
            bare = {"id": number, "name": f"{file.sha256[:12]}.bin", "type": "Model", "metadata": {}}
            seen[number] = _file(face, holding.version_id, bare, file)
    out = list(seen.values())
    if out and not any(file.get("primary") is True for file in out):  # the one that was is not here
        best(out, {})["primary"] = True
    return out


def _file(face: Face, version_id: int, described: Json, held: HeldFile) -> Json:
    out = dict(described)
    declared = described.get("hashes") if isinstance(described.get("hashes"), dict) else {}
    sha256 = declared.get("SHA256") if declared else None
    if isinstance(sha256, str) and sha256.lower() == held.sha256:
        out["hashes"] = {**held.hashes, **(declared or {})}
    else:  # the other hashes the hub gave are of other bytes
        out["hashes"] = {**held.hashes, "SHA256": held.sha256.upper(), "AutoV2": held.sha256[:10].upper()}
    size = described.get("sizeKB")
    if not isinstance(size, int | float) or isinstance(size, bool) or not 0 <= size < 2**53:
        size = -1
    if round(size * 1024) != held.size:
        out["sizeKB"] = held.size / 1024
    out["downloadUrl"] = face.download(version_id, held.id)
    return out


def best(candidates: Sequence[Json], wanted: Mapping[str, str]) -> Json:
    """The file a hub would give for no or some preferences: weights first, then format, size, precision."""

    def score(file: Json) -> float:
        total = 2000.0 if file.get("type") in vocabulary.WEIGHTS else 1000.0
        known = _metadata(file)
        for name, (preferred, weight) in PREFERRED.items():
            if name in known:
                total += weight if known[name] == wanted.get(name, preferred) else -weight
        return total

    return max(candidates, key=score)


def chosen_file(described: Sequence[Json], wanted: Mapping[str, str]) -> Json | None:
    """What a download without a file id gets. A key both sides know and disagree on means nothing does."""
    candidates = [file for file in described if "type" not in wanted or file.get("type") == wanted["type"]]
    if not candidates:
        return None
    found = best(candidates, wanted)
    known = _metadata(found)
    clash = any(name in known and known[name] is not None and known[name] != wanted[name] for name in wanted)
    return None if clash else found


def _metadata(file: Json) -> Json:
    known = file.get("metadata")
    return known if isinstance(known, dict) else {}


# --- images -----------------------------------------------------------------------------------------------------------


def image(face: Face, stored: StoredImage, query: ImageQuery) -> Json:
    """An image as /images gives it."""
    data = stored.data
    bit = bit_of(data)
    out = dict(data)
    out["id"] = stored.id
    out["url"] = face.image_url(stored.source, {**data, "id": stored.id})
    for key in ("hash", "width", "height", "postId", "username", "baseModel", "createdAt"):
        out.setdefault(key, None)
    out.setdefault("type", "image")
    out.setdefault("stats", dict.fromkeys(_REACTIONS, 0))
    out.setdefault("modelVersionIds", [stored.version_id])
    out["browsingLevel"], out["nsfwLevel"] = bit, WORDS.get(bit, "X")
    out["nsfw"] = bit != 1
    out["meta"] = _meta(stored, query)
    if query.with_tags:
        out.setdefault("tags", [])
    return out


_REACTIONS = ("cryCount", "laughCount", "likeCount", "dislikeCount", "heartCount", "commentCount")


def _meta(stored: StoredImage, query: ImageQuery) -> Json | None:
    if not query.with_meta:
        return None
    meta = visible_meta(stored.data)
    return meta if query.flat_meta else {"id": stored.id, "meta": meta}


def visible_meta(data: Json) -> Json | None:
    """`hasMeta: false` beside a meta means that its uploader hid it."""
    return None if data.get("hasMeta") is False else unwrapped(data.get("meta"))


def unwrapped(meta: Any) -> Json | None:
    while isinstance(meta, dict) and "meta" in meta and not GENERATION_KEYS & meta.keys():
        meta = meta["meta"]
    return meta if isinstance(meta, dict) else None


def is_gallery(image: Json) -> bool:
    """Whether it was recorded in the shape of /images."""
    return isinstance(image.get("nsfwLevel"), str) or "browsingLevel" in image or "postId" in image


def bit_of(image: Json) -> int:
    """An image's maturity: one bit, PG when it was never rated."""
    for key in ("browsingLevel", "nsfwLevel", "nsfw"):
        value = image.get(key)
        if isinstance(value, str) and value in BITS:
            return BITS[value]
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 64:
            return value & -value
        if value is True:
            return BITS["X"]
    return 1


def image_id_of(image: Json) -> int | None:
    """The id, or the number the file of its URL is called: the only place some routes give it."""
    number, url = image.get("id"), image.get("url")
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    stem = url.rsplit("/", 1)[-1].split(".", 1)[0] if isinstance(url, str) else ""
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 11 else None


def reactions(stored: StoredImage, *names: str) -> int:
    stats = stored.data.get("stats")
    counts = (stats.get(name) for name in names) if isinstance(stats, dict) else ()
    return sum(count for count in counts if isinstance(count, int) and not isinstance(count, bool))


# --- parts ------------------------------------------------------------------------------------------------------------


def _dicts(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _shorten(out: Json) -> None:
    text = out.get("description")
    if isinstance(text, str) and len(text) > MOST_TEXT:
        out["description"] = text[:MOST_TEXT]

"""What a person typed → what it refers to. Pure but for one question: does a file of that name exist?

4201                                          AmbiguousId       a model or a version: the hub is asked for both
4201@130072                                   ModelVersionRef
version:130072   image:9173928   model:4201   VersionRef, ImageRef, ModelRef
https://civitai.com/models/4201/slug          ModelRef          any host of the family, `www.` and `api.` too
…/models/4201?modelVersionId=130072           ModelVersionRef
…/api/download/models/130072?fileId=7         VersionRef(130072, file_id=7)
…/images/9173928                              ImageRef          the picture's own address on the media host, too
urn:air:sd1:lora:civitai:4201@130072          AirRef
0xABCDEF1234                                  HashRef           8, 10, 12 or 64 hex digits
./picture.png                                 PathRef           when it exists, or is clearly written as a path
more details                                  NameRef
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

from registry.errors import InvalidReference

if TYPE_CHECKING:
    from registry import AIR

LONGEST = 2048  # characters; longer than any URL a hub makes
LONGEST_NAME = 200
LARGEST_ID = 2**31 - 1
HASH_KINDS = {8: "AutoV1 or CRC32", 10: "AutoV2", 12: "AutoV3", 64: "SHA256 or BLAKE3"}
# an address bar without its scheme
_BARE_URL = re.compile(r"(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,24}/(?:models|images|model-versions|api)/", re.IGNORECASE)
_PICTURE = re.compile(r"([0-9]{1,10})\.(?:jpe?g|png|webp|gif|mp4|webm)", re.IGNORECASE)
EMPTY_HASH = "e3b0c44298fc"  # SHA-256 of nothing; careless trainers write it, and it matches a random LoRA


@dataclass(frozen=True)
class ModelRef:
    id: int


@dataclass(frozen=True)
class ModelVersionRef:
    model_id: int
    version_id: int


@dataclass(frozen=True)
class VersionRef:
    id: int
    file_id: int | None = None


@dataclass(frozen=True)
class AmbiguousId:
    """A bare integer: models and versions are numbered independently."""

    id: int


@dataclass(frozen=True)
class AirRef:
    air: AIR


@dataclass(frozen=True)
class HashRef:
    """Upper-case hex; `kind` is a guess from its length."""

    value: str
    kind: str


@dataclass(frozen=True)
class ImageRef:
    id: int


@dataclass(frozen=True)
class PathRef:
    path: Path


@dataclass(frozen=True)
class NameRef:
    text: str


Ref = ModelRef | ModelVersionRef | VersionRef | AmbiguousId | AirRef | HashRef | ImageRef | PathRef | NameRef


def parse(text: str) -> Ref:
    """Read a reference; linear in its length. Raises InvalidReference with a hint."""
    text = text.strip()
    if not text:
        raise InvalidReference("that is empty", hint="give an id, a page URL, an AIR, a hash or a name")
    if len(text) > LONGEST:
        raise InvalidReference(f"that is {len(text)} characters long: no reference is", hint="paste only the URL or id")
    if not text.isprintable():
        raise InvalidReference("that holds control characters", hint="type it instead of pasting it")
    if re.match(r"https?://", text, re.IGNORECASE):
        return _url(text)
    if _BARE_URL.match(text):
        return _url(f"https://{text}")
    return _prefixed(text) or _numbers(text) or _hash(text) or _air(text) or _path(text) or _name(text)


def _prefixed(text: str) -> Ref | None:
    match = re.fullmatch(r"(model|version|image|hash):\s*(\S+)", text, re.IGNORECASE)
    if not match:
        return None
    kind, value = match[1].lower(), match[2]
    if kind == "hash":
        found = _hash(value)
        if found is None:
            raise InvalidReference(f"`{value}` is no hash", hint="hashes have 8, 10, 12 or 64 hex digits")
        return found
    if kind == "model" and "@" in value:
        return _numbers(value)
    number = _id(value)
    return ModelRef(number) if kind == "model" else VersionRef(number) if kind == "version" else ImageRef(number)


def _numbers(text: str) -> Ref | None:
    """`123` and `123@456`. An 8-, 10- or 12-digit number could be a hash too; ids are far likelier."""
    if re.fullmatch(r"[0-9]{1,10}", text) and int(text) <= LARGEST_ID:
        return AmbiguousId(_id(text))
    if match := re.fullmatch(r"([0-9]+)@([0-9]+)", text):
        return ModelVersionRef(_id(match[1]), _id(match[2]))
    return None


def _id(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) <= LARGEST_ID:
        raise InvalidReference(f"`{text}` is no id", hint=f"ids are whole numbers from 1 to {LARGEST_ID}")
    return int(text)


def _hash(text: str) -> HashRef | None:
    digits = text[2:] if text[:2].lower() == "0x" else text
    if len(digits) not in HASH_KINDS or not re.fullmatch(r"[0-9a-fA-F]+", digits):
        return None
    if digits.lower().startswith(EMPTY_HASH):
        raise InvalidReference(
            f"`{text}` is the hash of an empty file: it identifies nothing",
            hint="its trainer wrote it by mistake; look for the model by name",
        )
    return HashRef(digits.upper(), HASH_KINDS[len(digits)])


def _air(text: str) -> AirRef | None:
    explicit = re.match(r"(urn:)?air:", text, re.IGNORECASE) is not None
    if not explicit and not re.search(r"\b(civitai|huggingface):[^\s:]", text, re.IGNORECASE):
        return None
    from registry import AIR

    try:
        return AirRef(AIR.parse(text))
    except (ValueError, InvalidReference) as error:
        if explicit:
            raise InvalidReference(
                f"`{text}` is no AIR", hint="they look like urn:air:sdxl:lora:civitai:MODEL@VERSION"
            ) from error
        return None


def _path(text: str) -> PathRef | None:
    """An existing file, or text that can only be meant as a path."""
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # a name too long for the file system
        return None
    if exists:
        return PathRef(path)
    if text.startswith(("./", "../", "/", "~/")) or re.match(r"[A-Za-z]:\\", text):
        raise InvalidReference(f"there is no file `{text}`", hint="check the path")
    return None


def _name(text: str) -> NameRef:
    if len(text) > LONGEST_NAME:
        raise InvalidReference("that is too long for a name", hint="use a few words of it")
    return NameRef(re.sub(r"\s+", " ", text))


# --- URLs -------------------------------------------------------------------------------------------------------------


def _url(text: str) -> Ref:
    """A page, API or download URL. Any host is read the same way: hubs of one kind share their routes."""
    try:
        url = urlsplit(text)
        host = url.hostname
    except ValueError:
        host = None
    if not host:
        raise InvalidReference("that is no URL hubctl can read", hint="copy it from the browser's address bar")
    parts = [part for part in url.path.split("/") if part]
    if parts[:1] == ["api"] or host.startswith("api."):
        parts = [part for part in parts if part not in {"api", "v1"}]
    if host.startswith(("image.", "image-")) and parts and (picture := _PICTURE.fullmatch(parts[-1])):
        return ImageRef(_id(picture[1]))
    return _route(parts, url) or _unreadable(url)


def _route(parts: list[str], url: SplitResult) -> Ref | None:
    asked = parse_qs(url.query, max_num_fields=50) if url.query.count("&") < 50 else {}
    match parts:
        case ["download", "models", number, *_]:
            file_id = asked.get("fileId", [None])[0]
            return VersionRef(_id(number), _id(file_id) if file_id else None)
        case ["models", number, *_]:
            version = asked.get("modelVersionId", [None])[0]
            return ModelVersionRef(_id(number), _id(version)) if version else ModelRef(_id(number))
        case ["model-versions", "by-hash", digits]:
            return _hash(digits)
        case ["model-versions", "mini", number] | ["model-versions", number]:
            return VersionRef(_id(number))
        case ["images", number, *_]:
            return ImageRef(_id(number))
        case ["images"] if "imageId" in asked:
            return ImageRef(_id(asked["imageId"][0]))
    return None


def _unreadable(url: SplitResult) -> Ref:
    raise InvalidReference(
        f"the page `{url.hostname}{url.path[:80]}` is neither a model nor an image",
        hint="model pages look like https://civitai.com/models/ID, image pages like https://civitai.com/images/ID",
    )

"""Libraries for tests of the HTTP face: versions put into a registry as a hub described them, with bytes to serve."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from registry import Manifest, Registry, wire

Json = dict[str, Any]


def content(file_id: int) -> bytes:
    """Bytes of a file: its own for each id, of different lengths."""
    return f"file {file_id} ".encode() * (1 + file_id % 7)


def keep(registry: Registry, data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    with registry.reserve(sha256, size=len(data)) as partial:
        partial.write(data)
        partial.seal(sha256)
    return sha256


def true_of(file: Json, data: bytes) -> Json:
    """A recorded file as a hub would describe these bytes: the record's own bytes are not ours to have."""
    sha256 = hashlib.sha256(data).hexdigest().upper()
    hashes = {**file.get("hashes", {}), "SHA256": sha256, "AutoV2": sha256[:10]}
    return {**file, "hashes": hashes, "sizeKB": len(data) / 1024}


def put(
    registry: Registry,
    model: Json,
    *,
    versions: set[int] | None = None,
    source: str = "civitai",
    data: Callable[[int], bytes] = content,
) -> Json:
    """Install every version of a recorded model (or those of `versions`) with every file.

    Returns the model as it should come back.
    """
    model = copy.deepcopy(model)
    for version in model["modelVersions"]:
        version["files"] = [true_of(file, data(file["id"])) for file in version.get("files", [])]
    kept = []
    for version in model["modelVersions"]:
        if versions is not None and version["id"] not in versions:
            continue
        kept.append(version)
        files = {file["id"]: keep(registry, data(file["id"])) for file in version["files"]}
        registry.add(
            Manifest(
                source,
                wire.Model.model_validate(model),
                wire.ModelVersion.model_validate({**version, "modelId": model["id"]}),
                files,
            )
        )
    model["modelVersions"] = kept
    return model


def model(number: int, **more: Any) -> Json:
    """A small model with one version (number × 10 + 1) and one file (number × 100 + 1)."""
    version_id = more.pop("version_id", number * 10 + 1)
    version = {
        "id": version_id,
        "name": "v1",
        "baseModel": "SD 1.5",
        "trainedWords": [f"word{number}"],
        "publishedAt": f"2024-01-{1 + number % 28:02d}T00:00:00.000Z",
        "files": [
            {
                "id": number * 100 + 1,
                "name": f"m{number}.safetensors",
                "type": "Model",
                "metadata": {"format": "SafeTensor", "fp": "fp16", "size": "pruned"},
                "hashes": {
                    "AutoV1": f"{number:08X}", "AutoV3": f"{number:012X}", "CRC32": f"{number + 0xF0000000:08X}",
                    "BLAKE3": f"{number:064X}",
                },
                "primary": True,
            }
        ],
        "images": [],
        **more.pop("version", {}),
    }  # fmt: skip
    return {
        "id": number,
        "name": f"Model {number}",
        "type": "LORA",
        "nsfw": False,
        "nsfwLevel": 1,
        "tags": ["hero"],
        "creator": {"username": "maker"},
        "stats": {"downloadCount": number * 10, "thumbsUpCount": number % 3, "commentCount": 0},
        "modelVersions": [version],
        **more,
    }


def image(number: int, **more: Any) -> Json:
    """An example image as /images gives it."""
    return {
        "id": number,
        "url": f"https://cdn.test/x/original=true/{number}.jpeg",
        "hash": None,
        "width": 64,
        "height": 96,
        "nsfwLevel": "None",
        "nsfw": False,
        "browsingLevel": 1,
        "type": "image",
        "createdAt": "2024-02-01T00:00:00.000Z",
        "postId": number // 10,
        "stats": {
            "cryCount": 0, "laughCount": 0, "likeCount": number % 5, "dislikeCount": 0, "heartCount": 0,
            "commentCount": number % 2,
        },
        "meta": {"prompt": f"picture {number}", "seed": number},
        "username": "painter",
        "baseModel": "SD 1.5",
        "modelVersionIds": [],
        **more,
    }  # fmt: skip


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))

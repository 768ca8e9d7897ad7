"""Pictures of models: previews and example images, with the bytes that were uploaded.

images/<source>/<image id>.<suffix>      the suffix is what the bytes are, whatever the hub called them
"""

from __future__ import annotations

from pathlib import Path

from registry.errors import VerificationFailed
from registry.fs import safe_name, write_atomic

LARGEST = 128 * 1024 * 1024
MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
    "mp4": "video/mp4",
    "webm": "video/webm",
}


def suffix_of(data: bytes) -> str | None:
    """What a picture's first bytes say it is: a key of MEDIA_TYPES, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return "avif" if data[8:12] in (b"avif", b"avis") else "mp4"
    return "webm" if data.startswith(b"\x1a\x45\xdf\xa3") else None


def folder_of(root: Path, source: str) -> Path:
    return root / safe_name(source)


def find(root: Path, source: str, image_id: int) -> Path | None:
    for suffix in MEDIA_TYPES:
        path = folder_of(root, source) / f"{int(image_id)}.{suffix}"
        if path.is_file():
            return path
    return None


def put(root: Path, source: str, image_id: int, data: bytes) -> Path:
    """Keep a picture; one of another kind under the same id goes. Raises VerificationFailed for what is no picture."""
    suffix = suffix_of(data)
    if suffix is None or len(data) > LARGEST:
        raise VerificationFailed(
            f"image {image_id} is no picture: its first bytes are of no known kind"
            if suffix is None
            else f"image {image_id} is larger than {LARGEST // 1024**2} MiB",
            hint="the model is not affected; only its picture is left out",
        )
    previous = find(root, source, image_id)
    path = folder_of(root, source) / f"{int(image_id)}.{suffix}"
    write_atomic(path, data)
    if previous is not None and previous != path:
        previous.unlink(missing_ok=True)
    return path

"""A small hub of one's own: five miniature models and their example pictures, made from packaged assets.

    assets/*.safetensors.gz, *.safetensors, *.pt     the models (checkpoints deflated: 9 MB each instead of 19)
    assets/images/<id>.png                           examples, with the infotext of the run that made them
    catalog.py                                       names, words, prose, ids

`build` writes a complete hubctl home once; `hubctl demo` serves it on loopback.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.demo.catalog import CREATOR, ENTRIES, PUBLISHED, Entry, Example, model_json

if TYPE_CHECKING:
    from hubctl.parameters import GenerationParameters
    from registry import Registry

ASSETS = Path(__file__).parent / "assets"
SOURCE = "civitai"
HUB_TYPES = {"checkpoint": "model", "embedding": "embed"}


def build(home: Path) -> None:
    """Make the demo hub's home, unless it is there already. A kill leaves nothing half made under the name."""
    stamp = _stamp()
    marker = home / "demo.stamp"
    if marker.is_file() and marker.read_text(encoding="utf-8") == stamp:
        return
    from registry import Registry

    making = home.with_name(f"{home.name}.{os.getpid()}.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        with Registry.open(making) as registry:
            for number, entry in enumerate(ENTRIES):
                _add(registry, entry, first_file_id=7000 + 10 * number)
        (making / "demo.stamp").write_text(stamp, encoding="utf-8")
        shutil.rmtree(home, ignore_errors=True)
        making.rename(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _stamp() -> str:
    """Changes when anything packaged here does."""
    digest = hashlib.sha256((Path(__file__).parent / "catalog.py").read_bytes())
    for path in sorted(ASSETS.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(ASSETS)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def asset(name: str) -> bytes:
    """A packaged file's bytes, inflated."""
    packed = ASSETS / f"{name}.gz"
    return gzip.decompress(packed.read_bytes()) if packed.exists() else (ASSETS / name).read_bytes()


def _add(registry: Registry, entry: Entry, *, first_file_id: int) -> None:
    from registry import Manifest, detect, wire

    blobs, facts, files = {}, {}, []
    for offset, name in enumerate(entry.files):
        file_id = first_file_id + offset
        data = asset(name)
        sha256 = hashlib.sha256(data).hexdigest()
        with registry.reserve(sha256, size=len(data)) as partial:
            partial.write(data)
            partial.seal(sha256)
        blobs[file_id] = sha256
        facts[file_id] = detect.inspect(registry.blob_path(sha256)).to_json()
        files.append(_file_json(entry, file_id, name, registry.blob_path(sha256), primary=offset == 0))
    images = [image_json(entry, example) for example in entry.examples]
    answer = model_json(entry, files, images)
    model = wire.Model.model_validate(answer)
    manifest = Manifest(SOURCE, model, model.model_versions[0], blobs)
    registry.add(manifest, facts=facts)
    registry.put_images(entry.version_id, model.model_versions[0].images, source=SOURCE)
    for example in entry.examples:
        registry.put_picture(example.id, picture(example), source=SOURCE)


def _file_json(entry: Entry, file_id: int, name: str, blob: Path, *, primary: bool) -> dict[str, Any]:
    from registry import hashes

    pickled = name.endswith(".pt")
    return {
        "id": file_id,
        "name": name,
        "type": "VAE" if entry.type == "VAE" else "Model",
        "sizeKB": blob.stat().st_size / 1024,
        "metadata": {
            "format": "PickleTensor" if pickled else "SafeTensor",
            "fp": "fp32" if entry.type == "TextualInversion" else "fp16",
            "size": "pruned",
        },
        "pickleScanResult": "Success",
        "pickleScanMessage": "No Pickle imports" if not pickled else None,
        "virusScanResult": "Success",
        "scannedAt": PUBLISHED,
        "hashes": hashes.hash_file(blob),
        "downloadUrl": f"https://demo.invalid/api/download/models/{entry.version_id}?fileId={file_id}",
        **({"primary": True} if primary else {}),
    }


def picture(example: Example) -> bytes:
    return (ASSETS / "images" / f"{example.id}.png").read_bytes()


def image_json(entry: Entry, example: Example) -> dict[str, Any]:
    """The image as the hub's `/images` answers it, its `meta` read out of the picture itself."""
    from PIL import Image

    from hubctl import infotext

    data = picture(example)
    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
    parameters = infotext.parse(infotext.read(data))
    return {
        "id": example.id,
        "url": f"https://demo.invalid/images/{example.id}.png",
        "width": width,
        "height": height,
        "hash": None,
        "type": "image",
        "nsfwLevel": "None",
        "nsfw": False,
        "browsingLevel": 1,
        "createdAt": PUBLISHED,
        "postId": example.id + 100_000,
        "stats": {
            "likeCount": example.likes,
            "heartCount": example.likes // 3,
            "laughCount": 0,
            "cryCount": 0,
            "dislikeCount": 0,
            "commentCount": 0,
        },
        "meta": dict(_meta(parameters, example)),
        "username": example.user or CREATOR,
        "baseModel": "SD 1.5",
        "modelVersionIds": [entry.version_id],
    }


def _meta(p: GenerationParameters, example: Example) -> Iterator[tuple[str, Any]]:
    """The hub's `meta` of a picture, in the spelling of an upload from a WebUI."""
    yield "prompt", p.prompt
    if p.negative_prompt:
        yield "negativePrompt", p.negative_prompt
    yield from (("steps", p.steps), ("cfgScale", p.cfg_scale), ("seed", p.seed), ("sampler", p.sampler_label))
    yield from (("width", p.width), ("height", p.height))
    for key in ("Schedule type", "RNG", "VAE", "Version"):
        if key in p.raw:
            yield key, p.raw[key]
    versions = {Path(name).stem: entry.version_id for entry in ENTRIES for name in entry.files}
    if example.onsite:
        yield (
            "civitaiResources",
            [
                {"type": r.kind, "modelVersionId": versions[r.name]}
                | ({"weight": r.weight} if r.weight is not None else {})
                for r in p.resources
                if r.name in versions
            ],
        )
        return
    hashes: dict[str, str] = {}
    resources: list[dict[str, Any]] = []
    for r in p.resources:
        kind = HUB_TYPES.get(r.kind, r.kind)
        if kind == "model":
            yield from (("Model", r.name), ("Model hash", r.hash))
        resources.append({"type": kind, "name": r.name, "hash": r.hash})
        if kind == "lora":
            resources[-1]["weight"] = r.weight
        if r.hash:
            hashes["model" if kind == "model" else "vae" if kind == "vae" else f"{kind}:{r.name}"] = r.hash
    yield from (("hashes", hashes), ("resources", resources))

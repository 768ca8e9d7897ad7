"""A made-up library as people have them, and a hub that knows half of it.

    library = build(folder)                      three UI folders: hundreds of files, copies, sidecars of five tools
    with LibraryHub(library.world) as hub: …     the by-hash routes and models, over loopback, quirks included

Files are small but well-formed: real safetensors with the tensor names of their kind. Everything follows from `seed`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
BASES = ("SD 1.5", "SDXL 1.0", "Pony", "Illustrious")
WORDS = tuple("amber birch cedar delta ember fjord grove heron ivory jade kelp lotus maple nimbus onyx pearl".split())  # noqa: SIM905


# --- files ------------------------------------------------------------------------------------------------------------


def safetensors(
    tensors: dict[str, tuple[int, ...]], rng: random.Random, metadata: dict[str, str] | None = None
) -> bytes:
    """A well-formed F16 file of random numbers."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, shape in tensors.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pieces = [rng.randbytes(min(1 << 26, at - start)) for start in range(0, at, 1 << 26)]
    return b"".join((struct.pack("<Q", len(text)), text, *pieces))


def with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """The same tensors under another header, as SwarmUI leaves them."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def lora(rng: random.Random, rank: int, metadata: dict[str, str] | None = None) -> bytes:
    tensors: dict[str, tuple[int, ...]] = {}
    for block in range(rng.randint(1, 3)):
        for part in ("to_q", "to_k", "to_v"):
            base = f"lora_unet_down_blocks_{block}_attentions_0_transformer_blocks_0_attn1_{part}"
            tensors[f"{base}.alpha"] = ()
            tensors[f"{base}.lora_down.weight"] = (rank, 320)
            tensors[f"{base}.lora_up.weight"] = (320, rank)
    return safetensors(tensors, rng, metadata)


def checkpoint(rng: random.Random, size: int) -> bytes:
    rest = max(1, size // 2 // 768)
    return safetensors(
        {
            "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
            "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (rest, 768),
        },
        rng,
    )


def vae(rng: random.Random) -> bytes:
    names = {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_out.weight": (8, 512, 3, 3)}
    return safetensors({**names, "quant_conv.weight": (8, 8, 1, 1), "post_quant_conv.weight": (4, 4, 1, 1)}, rng)


def embedding(rng: random.Random) -> bytes:
    return safetensors({"emb_params": (rng.randint(1, 8), 768)}, rng)


# --- the world: what the hub knows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """One model file and, when a hub has it, its model and version there."""

    name: str
    type: str
    data: bytes
    base_model: str
    model: dict[str, Any] | None = None  # as GET /models/:id gives it
    version: dict[str, Any] | None = None  # as by-hash gives it
    payload_of: str | None = None  # SHA256 of the hub's file whose tensors these are

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def hashes(data: bytes) -> dict[str, str]:
    sha = hashlib.sha256(data).hexdigest().upper()
    payload = data[8 + int.from_bytes(data[:8], "little") :]
    return {
        "SHA256": sha,
        "AutoV1": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8].upper(),
        "AutoV2": sha[:10],
        "AutoV3": hashlib.sha256(payload).hexdigest()[:12].upper(),
    }


def published(number: int, name: str, type_: str, base_model: str, file_name: str, data: bytes) -> Made:
    """A model the hub has."""
    model_id, version_id = 1000 + number, 50_000 + number
    words = [f"{name.lower()} style", WORDS[number % len(WORDS)]]
    file = {
        "id": 90_000 + number, "name": file_name, "type": "Model", "sizeKB": len(data) / 1024, "primary": True,
        "metadata": {"format": "SafeTensor", "fp": "fp16", "size": "pruned"}, "hashes": hashes(data),
        "downloadUrl": f"https://undefined/api/download/models/{version_id}",
    }  # fmt: skip
    version = {
        "id": version_id, "modelId": model_id, "name": "v1.0", "baseModel": base_model, "trainedWords": words,
        "description": None, "publishedAt": "2024-05-01T12:00:00.000Z", "files": [file], "images": [],
        "air": f"urn:air:sd1:{type_.lower()}:civitai:{model_id}@{version_id}",
        "model": {"name": name, "type": type_, "nsfw": False, "poi": False},
    }  # fmt: skip
    model = {
        "id": model_id, "name": name, "type": type_, "description": f"<p>All about <b>{name}</b></p>", "nsfw": False,
        "tags": [WORDS[number % 7], "style"], "creator": {"username": f"artist{number % 9}"}, "allowNoCredit": True,
        "allowCommercialUse": ["Image"], "modelVersions": [{k: v for k, v in version.items() if k != "model"}],
    }  # fmt: skip
    return Made(file_name, type_, data, base_model, model, version)


def world(seed: int = 1, *, models: int = 90, checkpoint_bytes: int = 3_000_000) -> list[Made]:
    """What there is: published models of all kinds, and some only their owner has."""
    rng = random.Random(seed)
    out = []
    for number in range(models):
        word = WORDS[number % len(WORDS)]
        name = f"{word.title()} {number}"
        kind = ("lora",) * 12 + ("embedding",) * 2 + ("vae",) + ("checkpoint",) * 2
        made = kind[rng.randrange(len(kind))] if number > 3 else ("checkpoint", "lora", "vae", "embedding")[number]
        base = BASES[rng.randrange(len(BASES))]
        title = {0: "дракон ✨", 1: "with space & (brackets)", 2: "CON"}.get(number, f"{word}_{number}")
        data = {
            "lora": lambda: lora(rng, rng.choice((4, 8, 16))),
            "embedding": lambda: embedding(rng),
            "vae": lambda: vae(rng),
            "checkpoint": lambda: checkpoint(rng, checkpoint_bytes + 1000 * rng.randrange(40)),
        }[made]()
        type_ = {"lora": "LORA", "embedding": "TextualInversion", "vae": "VAE", "checkpoint": "Checkpoint"}[made]
        if number % 5 == 4:  # trained at home: nobody else has it
            head = {
                "ss_output_name": f"my {name}",
                "ss_base_model_version": "sd_v1",
                "ss_network_module": "networks.lora",
            }
            out.append(Made(f"{title}.safetensors", "LORA", lora(rng, 8, head if number % 2 else None), base))
        else:
            out.append(published(number, name, type_, base, f"{title}.safetensors", data))
    edited = next(made for made in out if made.type == "LORA" and made.version)
    out.append(
        Made(
            "swarm_edited.safetensors", "LORA", with_metadata(edited.data, {"modelspec.title": "Edited"}),
            edited.base_model, payload_of=edited.sha256,
        )
    )  # fmt: skip
    return out


# --- three UI folders -------------------------------------------------------------------------------------------------

FOLDERS = {
    "comfyui": {
        "Checkpoint": "models/checkpoints", "LORA": "models/loras", "VAE": "models/vae",
        "TextualInversion": "models/embeddings",
    },
    "a1111": {
        "Checkpoint": "models/Stable-diffusion", "LORA": "models/Lora", "VAE": "models/VAE",
        "TextualInversion": "embeddings",
    },
    "swarmui": {
        "Checkpoint": "Models/Stable-Diffusion", "LORA": "Models/Lora", "VAE": "Models/VAE",
        "TextualInversion": "Models/Embeddings",
    },
}  # fmt: skip


@dataclass
class Library:
    """What `build` made. Paths are those of first copies, one a file of the world."""

    root: Path
    world: list[Made]
    places: dict[str, list[Path]] = field(default_factory=dict)  # SHA256 → its names
    copies: list[Path] = field(default_factory=list)  # second copies with an inode of their own
    twins: list[Path] = field(default_factory=list)  # second names of an inode
    edited: dict[str, dict[str, Any]] = field(default_factory=dict)  # SHA256 → what a person wrote in a sidecar
    junk: list[Path] = field(default_factory=list)  # what must be left alone

    @property
    def uis(self) -> list[Path]:
        return [self.root / name for name in FOLDERS]

    @property
    def known(self) -> list[Made]:
        return [made for made in self.world if made.version]


def build(root: Path, *, seed: int = 1, models: int = 90, checkpoint_bytes: int = 3_000_000) -> Library:
    """Three UIs that share nothing yet, as they grew."""
    rng = random.Random(seed + 1)
    library = Library(root, world(seed, models=models, checkpoint_bytes=checkpoint_bytes))
    _make_uis(root)
    for number, made in enumerate(library.world):
        ui = ("comfyui", "a1111", "swarmui")[number % 3]
        path = _place(library, made, ui, rng)
        _sidecars(library, made, path, ui, number, rng)
        if number % 4 == 0:  # the same download in another UI
            other = ("a1111", "swarmui", "comfyui")[number % 3]
            target = root / other / FOLDERS[other][made.type] / f"copy of {made.name}"
            shutil.copyfile(path, target)
            library.copies.append(target)
            library.places[made.sha256].append(target)
        elif number % 10 == 1:  # somebody saved space already
            other = ("swarmui", "comfyui", "a1111")[number % 3]
            target = root / other / FOLDERS[other][made.type] / made.name
            if not target.exists():
                os.link(path, target)
                library.twins.append(target)
                library.places[made.sha256].append(target)
    _junk(library, rng)
    return library


def _make_uis(root: Path) -> None:
    for name, folders in FOLDERS.items():
        for folder in folders.values():
            (root / name / folder).mkdir(parents=True)
    for path in ("comfyui/folder_paths.py", "comfyui/comfy/sd.py", "a1111/webui.py", "a1111/launch.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("# not ours\n")
    (root / "swarmui/Data").mkdir()
    (root / "swarmui/Data/Settings.fds").write_text("#settings\nPaths:\n\tModelRoot: Models\n")
    (root / "comfyui/extra_model_paths.yaml").write_text(
        "# my other UI\na111:\n    base_path: ../a1111/\n    loras: models/Lora\n    vae: models/VAE\n"
    )


def _place(library: Library, made: Made, ui: str, rng: random.Random) -> Path:
    folder = library.root / ui / FOLDERS[ui][made.type]
    if made.type == "LORA" and rng.random() < 0.4:
        folder /= rng.choice(("styles", "characters/old", "to sort"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / made.name
    path.write_bytes(made.data)
    library.places[made.sha256] = [path]
    return path


def _sidecars(library: Library, made: Made, path: Path, ui: str, number: int, rng: random.Random) -> None:
    stem = path.with_suffix("")
    version, model = made.version, made.model
    if ui == "a1111":
        if version and number % 2:
            _json(Path(f"{stem}.civitai.info"), version)
        if number % 7 == 1:  # edited by hand
            said = {"notes": f"good with {rng.choice(WORDS)}", "activation text": f"own words {number}",
                    "preferred weight": round(0.4 + number / 200, 2)}  # fmt: skip
            _json(Path(f"{stem}.json"), {"description": "", "sd version": "SD1", **said, "my plugin": {"x": number}})
            library.edited[made.sha256] = said
        elif version:  # written by a tool from the hub's own words
            _json(Path(f"{stem}.json"), {"activation text": ", ".join(version["trainedWords"]), "preferred weight": 0})
        if number % 3 == 1:
            Path(f"{stem}.preview.png").write_bytes(PNG + bytes([number % 256]))
    elif ui == "comfyui" and version and model:
        _json(
            Path(f"{stem}.metadata.json"),
            {
                "file_name": path.stem, "model_name": model["name"], "file_path": path.as_posix(),
                "size": len(made.data), "sha256": made.sha256, "base_model": made.base_model, "from_civitai": True,
                "civitai": version, "tags": model["tags"], "notes": "", "usage_tips": "{}",
                "favorite": number % 30 == 0,
            },
        )  # fmt: skip
    elif ui == "swarmui":
        if version and model and number % 2:
            _json(
                Path(f"{stem}.cm-info.json"),
                {
                    "ModelId": model["id"], "ModelName": model["name"], "VersionId": version["id"],
                    "VersionName": "v1.0", "BaseModel": made.base_model, "ModelType": made.type,
                    "Hashes": {"SHA256": made.sha256.upper()}, "TrainedWords": version["trainedWords"],
                },
            )  # fmt: skip
        else:
            _json(Path(f"{stem}.swarm.json"), {"modelspec.title": f"{made.name} (swarm)", "modelspec.author": "me"})


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=4, ensure_ascii=False), encoding="utf-8")


def _junk(library: Library, rng: random.Random) -> None:
    root = library.root
    loras = root / "comfyui/models/loras"
    whole = lora(rng, 8)
    files = {
        loras / "broken.safetensors": whole[: len(whole) // 2],
        loras / "half.safetensors.part": whole[:5000],
        loras / "empty.safetensors": b"",
        loras / "page.safetensors": b"<!DOCTYPE html><html><body>please log in</body></html>" + b" " * 500,
        loras / "readme.txt": b"not a model",
        root / "a1111/embeddings/evil.pt": pickle.dumps(_Evil()) + bytes(400),
        root / "comfyui/models/checkpoints/wrong.civitai.info": b"{ not json",
        root / "a1111/models/Lora/notes about.json": b"[1, 2]",
    }
    for path, data in files.items():
        path.write_bytes(data)
        library.junk.append(path)
    pipeline = root / "comfyui/models/checkpoints/pipeline"
    (pipeline / "unet").mkdir(parents=True)
    (pipeline / "model_index.json").write_text("{}")
    (pipeline / "unet/diffusion_pytorch_model.safetensors").write_bytes(lora(rng, 4))
    library.junk.append(pipeline / "unet/diffusion_pytorch_model.safetensors")
    (loras / "dangling.safetensors").symlink_to("/nowhere/at all.safetensors")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo never run",)


def snapshot(*roots: Path) -> dict[str, str]:
    """Every file below some folders: its content, or where it points."""
    out = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_symlink():
                out[str(path)] = f"-> {path.readlink()}"
            elif path.is_file():
                out[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


# --- a hub that knows the published half ------------------------------------------------------------------------------


class LibraryHub:
    """The routes an adoption asks, with quirks: unordered answers, doubles, nulls, `https://undefined/…` links."""

    def __init__(self, made: list[Made]) -> None:
        self.made = [each for each in made if each.version]
        self.requests: list[tuple[str, str, int]] = []  # method, path, hashes asked
        self.broken = False

    def __enter__(self) -> Self:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                hub._answer(self, None)

            def do_POST(self) -> None:
                hub._answer(self, json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0))))

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients are killed here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, part: str) -> int:
        return sum(part in path for _, path, _ in self.requests)

    def _answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        parts = urlsplit(handler.path)
        self.requests.append((handler.command, parts.path, len(body) if isinstance(body, list) else 0))
        status, data = (500, {"error": "away"}) if self.broken else self._route(parts.path, parse_qs(parts.query), body)
        text = json.dumps(data).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _route(self, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if path.endswith("/by-hash/ids"):
            return 200, [
                {"modelVersionId": v["id"], "modelId": v["modelId"], "hash": v["files"][0]["hashes"]["SHA256"]}
                for v in self._of(body)
            ]
        if path.endswith("/by-hash"):
            found = list(self._of(body))
            return 200, [*reversed(found), None, *found[:1]]
        if "/by-hash/" in path:
            wanted = path.rsplit("/", 1)[1].upper()
            for version in self._versions():
                if wanted in version["files"][0]["hashes"].values():
                    return 200, version
            return 404, {"error": "Model not found"}
        if path.endswith("/models"):
            ids = {int(part) for part in ",".join(query.get("ids", [])).split(",") if part}
            return 200, {"items": [m.model for m in self.made if m.model and m.model["id"] in ids], "metadata": {}}
        if "/model-versions/" in path or "/models/" in path:
            number = int(path.rsplit("/", 1)[1])
            for each in self.made:
                for found in (each.version, each.model):
                    if found and found["id"] == number:
                        return 200, found
            return 404, {"error": "not found"}
        return 200, {"items": [], "metadata": {}}

    def _versions(self) -> Iterator[dict[str, Any]]:
        for made in self.made:
            if made.version:
                yield made.version

    def _of(self, wanted: list[str]) -> list[dict[str, Any]]:
        upper = {value.upper() for value in wanted}
        return [v for v in self._versions() if v["files"][0]["hashes"]["SHA256"] in upper]

"""How fast this library is as a hub: whole files beside two other servers, and lists of a large library.

    python bench/serve.py                       512 MB over loopback; 2,000 versions
    python bench/serve.py --size 2048 --versions 20000

Each server runs in a process of its own; the client reads and throws away. Servers take turns and the fastest of
`--runs` counts. Read ratios: client and server share this machine's processors.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STARLETTE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route
app = Starlette(routes=[Route("/file", lambda request: FileResponse(sys.argv[1]))])
uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("--size", type=int, default=512, help="MB")
    read.add_argument("--versions", type=int, default=2000)
    read.add_argument("--runs", type=int, default=3)
    given = read.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}")
    with tempfile.TemporaryDirectory() as folder:
        downloads(Path(folder), given.size * 1_000_000, given.runs)
        lists(Path(folder), given.versions, given.runs)


# --- files ------------------------------------------------------------------------------------------------------------


def downloads(folder: Path, size: int, runs: int) -> None:
    path = folder / "file.safetensors"
    with path.open("wb") as file:
        for _ in range(0, size, 1 << 20):
            file.write(os.urandom(1 << 20))
        file.truncate(size)
    home = folder / "home"
    fill(home, path)
    best: dict[str, float] = {}
    for _ in range(runs):
        for name, command, route in (
            ("hubctl serve", serving(home), "/api/download/models/1000001"),
            ("starlette FileResponse", [sys.executable, "-c", STARLETTE, str(path), "{port}"], "/file"),
            (
                "python -m http.server",
                [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "{port}"],
                f"/{path.name}",
            ),
        ):
            with server(command, cwd=folder) as url:
                best[name] = min(best.get(name, 9e9), seconds_for(url, route, size))
    ours = best["hubctl serve"]
    for name, seconds in best.items():
        print(f"  {size / 1e6:.0f} MB  {name:24} {size / seconds / 1e6:7.0f} MB/s   {ours / seconds:.2f}x hubctl")


def seconds_for(url: str, route: str, size: int) -> float:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    begun = time.perf_counter()
    connection.request("GET", route)
    response = connection.getresponse()
    buffer, got = memoryview(bytearray(1 << 20)), 0
    while count := response.readinto(buffer):
        got += count
    assert got == size, (route, response.status, got)
    return time.perf_counter() - begun


# --- lists ------------------------------------------------------------------------------------------------------------

QUESTIONS = (
    "/api/v1/models?limit=20", "/api/v1/models?limit=100&sort=Newest", "/api/v1/models?limit=20&query=robot",
    "/api/v1/models?limit=20&types=LORA&baseModels=Pony&tag=hero", "/api/v1/models/7",
    "/api/v1/model-versions/by-hash/00000000000A", "/api/v1/images?limit=100&withMeta=true",
    "/api/v1/images?username=u7&limit=20", "/api/v1/tags",
)  # fmt: skip


def lists(folder: Path, versions: int, runs: int) -> None:
    home = folder / "large"
    fill(home, count=versions)
    begun = time.perf_counter()
    with server(serving(home), cwd=folder) as url:
        print(f"\n  {versions:,} versions: ready {time.perf_counter() - begun:.1f} s after the start")
        for route in QUESTIONS:
            times = []
            for _ in range(runs + 1):
                connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
                started = time.perf_counter()
                connection.request("GET", route)
                body = connection.getresponse().read()
                times.append(time.perf_counter() - started)
            print(f"  {min(times) * 1e3:7.1f} ms  {len(body) / 1e3:8.1f} kB  {route}")


# --- parts ------------------------------------------------------------------------------------------------------------


def serving(home: Path) -> list[str]:
    return [sys.executable, "-m", "hubctl", "serve", "--home", str(home), "--port", "{port}", "-q"]


@contextlib.contextmanager
def server(command: list[str], cwd: Path) -> Iterator[str]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [part.format(port=port) if part == "{port}" else part for part in command],
        cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def fill(home: Path, path: Path | None = None, count: int = 1) -> None:
    """A library of `count` versions, each with a file of its own (or the one at `path`), as an install leaves it."""
    from registry import Registry

    for number in range(1, count + 1):
        data = b"" if path else f"file {number}".encode()
        if path:
            with path.open("rb") as file:
                sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
        else:
            sha256, size = hashlib.sha256(data).hexdigest(), len(data)
        blob = home / "blobs" / sha256[:2] / sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        if path:
            os.link(path, blob)
        else:
            blob.write_bytes(data)
        version_id = 1_000_000 + number
        folder = home / "manifests" / "civitai" / str(number)
        folder.mkdir(parents=True)
        manifest = described(number, version_id, sha256, size)
        (folder / f"{version_id}.json").write_text(json.dumps(manifest), encoding="utf-8")
    with Registry.open(home) as registry:
        registry.reindex()


def described(number: int, version_id: int, sha256: str, size: int) -> dict[str, object]:
    images = [
        {
            "id": number * 100 + place, "url": f"https://cdn.invalid/original=true/{number * 100 + place}.jpeg",
            "nsfwLevel": "None", "browsingLevel": 1, "width": 512, "height": 512, "postId": number,
            "username": f"u{number % 50}", "stats": {"likeCount": place},
            "meta": {"prompt": "a robot in the rain, " * 15, "seed": place, "steps": 20, "sampler": "Euler a"},
        }
        for place in range(20)
    ]  # fmt: skip
    file = {
        "id": number * 10, "name": f"m{number}.safetensors", "type": "Model", "sizeKB": size / 1024, "primary": True,
        "metadata": {"format": "SafeTensor"}, "hashes": {"SHA256": sha256.upper(), "AutoV3": f"{number:012X}"},
    }  # fmt: skip
    version = {
        "id": version_id, "modelId": number, "name": "v1", "baseModel": ("SD 1.5", "SDXL 1.0", "Pony")[number % 3],
        "trainedWords": [f"w{number}"], "publishedAt": "2024-01-01T00:00:00.000Z", "files": [file], "images": images,
    }  # fmt: skip
    model = {
        "id": number, "name": f"Model {number} {('robot', 'cat', 'hero')[number % 3]}", "type": "LORA",
        "nsfwLevel": 1, "tags": ["hero", f"t{number % 100}"], "creator": {"username": f"u{number % 50}"},
        "description": "<p>" + "about it " * 400 + "</p>", "modelVersions": [version],
        "stats": {"downloadCount": number * 7919 % 10**6, "thumbsUpCount": number * 104729 % 10**5},
    }  # fmt: skip
    return {
        "format": 1, "source": "civitai", "model": model, "version": version, "files": {str(number * 10): sha256},
        "explicit": True, "installed_at": "2024-01-01T00:00:00+00:00", "facts": {}, "settings": None, "tree": {},
        "lineage": None,
    }  # fmt: skip


if __name__ == "__main__":
    main()

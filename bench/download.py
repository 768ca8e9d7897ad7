"""How downloads behave and how fast they are: the fault matrix, and hubctl beside curl, aria2c and plain Python.

    python bench/download.py                    512 MB from loopback: no limits, a cap per connection, latency
    python bench/download.py --size 2048 --runs 5
    python bench/download.py --matrix           every misdeed × {fresh, resumed, segmented} × {small, multi}

Every line includes a verified SHA256; CPU seconds and peak memory are those of the client processes. The server is a
process of its own that sends with `sendfile`. Read ratios: both share this machine's processors and disk.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "hubs")]

SERVER = """
import http.server, os, re, sys, time
path, rate, latency = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_HEAD(self): self.answer(False)
    def do_GET(self): self.answer(True)
    def answer(self, send):
        time.sleep(latency)
        size = os.path.getsize(path)
        asked = re.fullmatch(r"bytes=(\\d+)-(\\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1 if asked[2] else size) if asked else (0, size)
        self.send_response(206 if asked else 200)
        if asked: self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        for name, value in (("ETag", '"1"'), ("Accept-Ranges", "bytes"), ("Content-Length", str(end - start)),
                            ("Content-Type", "application/octet-stream")):
            self.send_header(name, value)
        self.end_headers()
        if not send: return
        self.wfile.flush()
        begun, sent = time.monotonic(), 0
        with open(path, "rb") as file:
            while start < end:
                count = os.sendfile(self.connection.fileno(), file.fileno(), start, min(1 << 20, end - start))
                if not count: break
                start += count; sent += count
                if rate and (ahead := sent / rate - (time.monotonic() - begun)) > 0: time.sleep(ahead)
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *a): pass
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

HUBCTL = """
import sys; sys.path.insert(0, sys.argv[4])
from pathlib import Path
from hubctl.hubs.download import fetch
from hubctl.hubs.transport import Transport
from registry import BlobStore
from registry.partial import open_partial
url, folder, sha, bars = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[5:] == ["bars"]
def run(on_bytes):
    with open_partial(folder / "partial", BlobStore(folder / "blobs"), sha256=sha, size=0, key=url) as partial:
        fetch(Transport(url, name="bench", lan=True), url, partial, sha256=sha, on_bytes=on_bytes)
        partial.seal(sha)
if bars:
    from hubctl.cli import _progress
    with _progress.downloads(total=None) as shown:
        run(lambda done, total: shown.on_bytes("model.safetensors", done, total))
else:
    run(lambda done, total: None)
"""

SINGLE = """
import hashlib, sys, urllib.request
digest = hashlib.sha256()
with urllib.request.urlopen(sys.argv[1]) as answer, open(sys.argv[2] + "/f", "wb") as file:
    while piece := answer.read(1 << 20):
        file.write(piece)
with open(sys.argv[2] + "/f", "rb") as file:
    assert hashlib.file_digest(file, "sha256").hexdigest() == sys.argv[3]
"""

Run = tuple[float, float, float]  # seconds, CPU seconds, peak MB


def timed(command: list[str], *, terminal: bool = False) -> Run:
    """A command that must succeed; `terminal` gives it one of its own for what it says."""
    begun = time.monotonic()
    ours, theirs = pty.openpty() if terminal else (-1, -1)
    if terminal:
        threading.Thread(target=drain, args=(ours,), daemon=True).start()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs if terminal else None)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    for handle in (theirs, ours) if terminal else ():
        os.close(handle)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed")
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def drain(handle: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(handle, 65536):
            pass


CHECKED, ALONE = "curl, then sha256sum", "curl alone, nothing verified"


def clients(url: str, folder: Path, sha256: str) -> dict[str, list[str]]:
    check = f"echo '{sha256}  {folder}/f' | sha256sum -c --quiet"
    found = {
        "hubctl": [sys.executable, "-c", HUBCTL, url, str(folder), sha256, str(ROOT)],
        ALONE: ["curl", "-sS", "-o", f"{folder}/f", url],
        CHECKED: ["sh", "-c", f"curl -sS -o {folder}/f '{url}' && {check}"],
        "single stream, Python": [sys.executable, "-c", SINGLE, url, str(folder), sha256],
    }
    if shutil.which("aria2c"):
        aria = f"aria2c -q -x8 -s8 -k1M --file-allocation=none -d {folder} -o f '{url}' && {check}"
        found["aria2c -x8, then sha256sum"] = ["sh", "-c", aria]
    return found


def bench(size_mb: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        digest = hashlib.sha256()
        with source.open("wb") as file:
            for _ in range(size_mb):
                piece = os.urandom(1 << 20)
                digest.update(piece)
                file.write(piece)
        sha256 = digest.hexdigest()
        cap = size_mb * (1 << 20) / 16  # one connection alone would take 16 s
        print("| line | client | seconds | against curl and sha256sum | CPU s | peak MB |\n|---|---|--:|--:|--:|--:|")
        for line, rate, latency in (
            ("no limits", 0, 0),
            ("cap per connection", cap, 0),
            ("0.2 s latency", cap * 8, 0.2),
        ):
            measure(line, source, sha256, rate, latency, runs)
        progress_cost(source, sha256, runs)


@contextlib.contextmanager
def serving(source: Path, rate: float, latency: float) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(source), str(rate), str(latency)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/model.safetensors"
    finally:
        server.terminate()
        server.wait()


def one(client: str, url: str, source: Path, sha256: str, *more: str, terminal: bool = False) -> Run:
    """One run in a folder of its own, on the source's disk."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        return timed([*clients(url, Path(folder), sha256)[client], *more], terminal=terminal)


def measure(line: str, source: Path, sha256: str, rate: float, latency: float, runs: int) -> None:
    """Clients take turns, so that a busy moment of this machine meets all of them."""
    results: dict[str, list[Run]] = {}
    with serving(source, rate, latency) as url:
        for _ in range(runs):
            for client in clients(url, source.parent, sha256):
                results.setdefault(client, []).append(one(client, url, source, sha256))
    for client, found in results.items():
        seconds, cpu, peak = (statistics.median(run[n] for run in found) for n in range(3))
        ratio = statistics.median(checked[0] / run[0] for checked, run in zip(results[CHECKED], found, strict=True))
        print(f"| {line} | {client} | {seconds:.2f} | {ratio:.2f}× | {cpu:.2f} | {peak:.0f} |", flush=True)


def progress_cost(source: Path, sha256: str, runs: int) -> None:
    """The same download with bars on a terminal and without anybody looking, in turns."""
    plain, bars = [], []
    with serving(source, source.stat().st_size / 8, 0) as url:  # eight seconds at least: something to draw
        for _ in range(runs):
            plain.append(one("hubctl", url, source, sha256))
            bars.append(one("hubctl", url, source, sha256, "bars", terminal=True))
    shown, unseen = (statistics.median(run[0] for run in found) for found in (bars, plain))
    extra = statistics.median(run[1] for run in bars) - statistics.median(run[1] for run in plain)
    print(
        f"\nprogress bars: {shown:.2f} s with, {unseen:.2f} s without ({shown / unseen - 1:+.1%}); "
        f"{extra:.2f} s of processor time, {extra / shown:.1%} of one"
    )


def matrix() -> int:
    """Print what each misdeed came to; the exit status says whether all came to what the tests promise."""
    import test_download as table

    print("| misdeed | " + " | ".join(f"{way}, {size}" for way in table.WAYS for size in ("small", "multi")) + " |")
    print("|---|" + "---|" * 6)
    wrong = 0
    for misdeed, (_, promised) in table.MISDEEDS.items():
        cells = []
        for way in table.WAYS:
            for size in (table.SMALL, table.MULTI):
                with tempfile.TemporaryDirectory() as folder:
                    cell = table.attempt(Path(folder), misdeed, way, size)
                error = cell.error
                good = isinstance(error, promised) if promised else error is None and cell.content == cell.rude.data
                wrong += not good
                cells.append(("" if good else "WRONG: ") + (error.code if error else "right bytes"))
        print(f"| {misdeed.replace('_', ' ')} | " + " | ".join(cells) + " |", flush=True)
    print(json.dumps({"cells": len(table.MISDEEDS) * 6, "wrong": wrong}), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="MB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--matrix", action="store_true")
    options = parser.parse_args()
    raise SystemExit(matrix() if options.matrix else bench(options.size, options.runs))

"""A hub and its storage that misbehave on command: real sockets, two host names.

    with RudeHub(data, misdeeds={"cut": 2}) as rude:            # the next two storage requests are cut short
        fetch(Transport(rude.url, …), rude.link, partial)

The hub answers on 127.0.0.1 and sends downloads to signed links on `localhost`, which expire, accept no Authorization
and are good for one use each. `requests` lists what was asked, for tests that bound or search it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import random
import re
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

FOREVER = 10**9
TOKEN = "sekrit-token-5f1c"
PASSWORD = "pa55-in-a-link"
SIGNATURE_MARK = "X-Amz-Signature"
FAULTS = {
    "hub_503", "rate_limit", "expired", "cut", "reset", "empty_answer", "ignore_range", "lie_start", "flip", "rename",
    "storage_500", "no_length", "no_content_range",
}  # fmt: skip


SHORT = 200_000  # bytes of a range that are given at once, by `short_range`
RAW = {
    "long_header": b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 500_000 + b"\r\nContent-Length: 1\r\n\r\na",
    "two_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n" + b"a" * 20,
    "garbage": bytes(range(256)) * 20,
}

# one grey pixel
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def lora(size: int, seed: int = 1) -> bytes:
    """A LoRA for SD 1.5 of about `size` bytes, of which no two are alike."""
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    rank = max(1, size // (2 * 2 * 320))
    length = rank * 320 * 2
    header = {
        f"{layer}.lora_down.weight": {"dtype": "F16", "shape": [rank, 320], "data_offsets": [0, length]},
        f"{layer}.lora_up.weight": {"dtype": "F16", "shape": [320, rank], "data_offsets": [length, 2 * length]},
        "__metadata__": {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "seed": str(seed)},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + random.Random(seed).randbytes(2 * length)


def _is_from_the_link(handler: BaseHTTPRequestHandler) -> bool:
    """Whether the credentials are those a redirect brought along."""
    brought = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    return handler.headers["Authorization"] == f"Basic {brought}"


@dataclass
class RudeHub:
    data: bytes
    misdeeds: dict[str, int] = field(default_factory=dict)  # name → how many requests it is done to
    token: str | None = TOKEN
    lifetime: float = 60.0  # seconds a signed link lives
    per_connection: float | None = None  # bytes/s
    together: float | None = None  # bytes/s, all connections
    crawl: tuple[int, float] | None = None  # connections that start before this byte are quick, the next one is not
    latency: float = 0.0  # seconds before each answer
    held: int | None = None  # bytes after which each answer of the storage waits for `release`
    retry_after: str = "0"  # what a busy hub says
    etag: str | None = '"v1"'
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)  # path → fixed answer
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # host, path, headers
    active: int = 0
    most_active: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    luck: float = 0.0  # how likely any answer is spoilt by one of `FAULTS`
    tls: ssl.SSLContext | None = None
    files: dict[int, bytes] = field(default_factory=dict)  # version id → its data; other versions have `data`
    storage: str = "localhost"  # the host of the signed links
    content_type: str = "application/octet-stream"
    extra: dict[str, str] = field(default_factory=dict)  # headers of every answer with bytes
    redirect_to: str = ""  # where the misdeed `elsewhere` leads
    used: set[str] = field(default_factory=set)  # signatures

    def __enter__(self) -> Self:
        rude = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                rude._serve(self)

            def do_POST(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                rude._serve(self)

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients hang up here all the time."""

        self._number = itertools.count()
        self._lock, self._line = threading.Lock(), threading.Lock()
        self._closing, self._released = threading.Event(), threading.Event()
        self._make = lambda port: Server(("127.0.0.1", port), Handler)
        self._open(0)
        return self

    def _open(self, port: int) -> None:
        self._server = self._make(port)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def restart(self, away: float) -> None:
        """Drop every connection, refuse new ones for `away` seconds, come back on the same port."""
        self._server.shutdown()
        self._server.server_close()
        self._closing.set()
        time.sleep(away)
        self._closing.clear()
        self._open(self.port)

    def release(self) -> None:
        """Let answers that are held back, and all later ones, go on to their end."""
        self._released.set()

    def __exit__(self, *_exc: object) -> None:
        self._closing.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def link(self) -> str:
        return f"{self.url}/api/download/models/130072?fileId=7"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def offer(
        self,
        model_id: int = 4201,
        version_id: int = 130072,
        *,
        name: str = "rude.safetensors",
        hashes: dict[str, str] | None = None,
        file: dict[str, Any] | None = None,
        version: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
    ) -> str:
        """List `data` as a model of this hub, as Civitai would; returns what to ask for."""
        data = self.files.get(version_id, self.data)
        sha256 = hashlib.sha256(data).hexdigest().upper()
        declared = {"SHA256": sha256, "AutoV2": sha256[:10]} if hashes is None else hashes
        the_file = {
            "id": 7, "name": name, "type": "Model", "sizeKB": len(data) / 1024, "primary": True,
            "metadata": {"format": "SafeTensor", "fp": "fp16", "size": "pruned"}, "hashes": declared,
            "pickleScanResult": "Success", "virusScanResult": "Success",
            "downloadUrl": f"{self.url}/api/download/models/{version_id}", **(file or {}),
        }  # fmt: skip
        images = [{"id": 1001, "url": f"{self.url}/picture/1001.png", "type": "image", "width": 8, "height": 8}]
        the_version = {
            "id": version_id, "name": "v1", "baseModel": "SD 1.5", "trainedWords": ["rude man"], "files": [the_file],
            "images": images, **(version or {}),
        }  # fmt: skip
        the_model = {"id": model_id, "name": "Rude", "type": "LORA", "tags": ["rude"], **(model or {})}
        whole = {**the_model, "modelVersions": [the_version]}
        inner = {"name": the_model["name"], "type": the_model["type"]}
        alone = {**the_version, "modelId": model_id, "model": inner}
        routes = {f"/api/v1/models/{model_id}": whole, f"/api/v1/model-versions/{version_id}": alone}
        routes |= {f"/api/v1/model-versions/by-hash/{value}": alone for value in declared.values()}
        routes["/api/v1/images"] = {"items": [], "metadata": {}}
        json_type = {"Content-Type": "application/json"}
        self.answers |= {path: (200, json_type, json.dumps(body).encode()) for path, body in routes.items()}
        self.answers["/picture/1001.png"] = (200, {"Content-Type": "image/png"}, PNG)
        return f"{model_id}@{version_id}"

    def storage_requests(self) -> int:
        return sum(1 for _, path, _ in self.requests if path.startswith("/storage"))

    # --- one request --------------------------------------------------------------------------------------------------

    def _misdeed(self, *names: str) -> str | None:
        """The first of these misdeeds that is still to be done, counted down."""
        with self._lock:
            for name in names:
                if self.misdeeds.get(name, 0) > 0:
                    self.misdeeds[name] -= 1
                    return name
            if self.luck and self.chance.random() < self.luck:
                return self.chance.choice(sorted(FAULTS.intersection(names)) or [None])
        return None

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests.append((handler.headers.get("Host", ""), handler.path, dict(handler.headers.items())))
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        try:
            if self.latency:
                time.sleep(self.latency)
            path = urlsplit(handler.path).path
            fixed = self.answers.get(handler.path) or self.answers.get(path)
            if fixed is not None:
                self._answer(handler, *fixed)
            elif path.startswith("/api/download/"):
                self._hub(handler)
            elif path.startswith("/storage"):
                self._storage(handler)
            elif path == "/api/v1/me":
                known = handler.headers.get("Authorization") == f"Bearer {self.token}"
                self._json(handler, 200 if known else 401, {"id": 1} if known else {"error": "Unauthorized"})
            elif path == "/login":
                self._answer(handler, 200, {"Content-Type": "text/html"}, b"<!doctype html><title>Log in</title>")
            else:
                self._json(handler, 404, {"error": "Not found"})
        finally:
            with self._lock:
                self.active -= 1

    def _json(self, handler: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answer(handler, status, {"Content-Type": "application/json", **named}, json.dumps(body).encode())

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        if "Date" in headers:
            handler.send_response_only(status)
        else:
            handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _redirect(self, handler: BaseHTTPRequestHandler, location: str) -> None:
        self._answer(handler, 307, {"Location": location, "Cache-Control": "no-store"}, b"")

    def _hub(self, handler: BaseHTTPRequestHandler) -> None:
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            message = "The creator of this asset requires you to be logged in to download it"
            return self._json(handler, 401, {"error": "Unauthorized", "message": message})
        match self._misdeed(
            "loop", "private", "login", "hub_503", "hub_404", "rate_limit", "early_access", "disabled", "archived",
            "region", "edge", "volume", "no_access", "slow_down", "storm", "retry_date", "retry_odd", "retry_absurd",
            "elsewhere", "credentials", "hub_echo", "token_in_url",
        ):  # fmt: skip
            case "loop":
                return self._redirect(handler, handler.path)
            case "private":
                return self._redirect(handler, "http://10.255.255.1/metadata")
            case "login":
                return self._redirect(handler, "/login?returnUrl=x&reason=download-auth")
            case "hub_503":
                return self._json(
                    handler, 503, {"error": "Server busy, please retry shortly."}, Retry_After=self.retry_after
                )
            case "hub_404":
                return self._json(handler, 404, {"error": "File not found"})
            case "rate_limit":
                return self._json(handler, 429, {"error": "Rate limit exceeded"}, Retry_After="0")
            case "volume":
                return self._json(handler, 429, {"error": "We've noticed an unusual amount of downloading"})
            case "early_access":
                body = {"error": "Early Access", "deadline": "2031-02-03T00:00:00.000Z", "message": "Early Access"}
                return self._json(handler, 403, body)
            case "no_access":
                return self._json(handler, 403, {"error": "You do not have access to download this file"})
            case "hub_echo":
                told = f"{handler.headers.get('Authorization')} is {self.token}, {quote(self.token or '')}"
                return self._json(handler, self.chance.choice([400, 403, 404, 429, 503]), {"error": {"message": told}})
            case "token_in_url":  # a redirect to itself, with the key in the query
                return self._redirect(handler, f"{handler.path}&token={self.token}&api_key={self.token}")
            case "storm":
                return self._json(handler, 429, {"error": "Rate limit exceeded"}, Retry_After="0")
            case "retry_date":  # by a clock that is an hour ahead
                now = time.time() + 3600
                return self._json(
                    handler, 503, {"error": "busy"}, Date=formatdate(now, usegmt=True),
                    Retry_After=formatdate(now, usegmt=True),
                )  # fmt: skip
            case "retry_odd":
                odd = self.chance.choice(["-5", "soon", "nan", "Thu, 99 Jan 2026 99:00:00 GMT", ""])
                return self._json(handler, 503, {"error": "busy"}, Retry_After=odd)
            case "retry_absurd":
                return self._json(handler, 429, {"error": "Rate limit exceeded"}, Retry_After="99999999999999")
            case "elsewhere":
                return self._redirect(handler, self.redirect_to)
            case "credentials":
                return self._redirect(handler, self._sign("0").replace("://", f"://user:{PASSWORD}@"))
            case "slow_down":
                return self._json(handler, 429, {"error": "Rate limit exceeded"}, Retry_After="3600")
            case "disabled":
                message = "The creator of this asset has disabled downloads on this file"
                return self._json(handler, 401, {"error": "Unauthorized", "message": message})
            case "archived":
                return self._json(handler, 410, {"error": "Model archived, not available for download"})
            case "region":
                return self._json(handler, 451, {"error": "Not in your region", "code": "REGION_BLOCKED"})
            case "edge":
                page = b"<!DOCTYPE html><title>Just a moment...</title>"
                return self._answer(handler, 403, {"Content-Type": "text/html"}, page)
        version = re.search(r"/models/(\d+)", handler.path)
        self._redirect(handler, self._sign(version[1] if version else "0"))
        return None

    def _sign(self, version: str) -> str:
        expires = f"{time.time() + self.lifetime:.6f}{next(self._number):04d}"  # no two links are alike
        signed = f"X-Amz-Expires={expires}&{SIGNATURE_MARK}={self._mac(expires)}"
        return f"http{'s' if self.tls else ''}://{self.storage}:{self.port}/storage/{version}?{signed}"

    def _mac(self, expires: str) -> str:
        return hmac.new(b"storage", expires.encode(), "sha256").hexdigest()

    def _storage(self, handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        expires = query.get("X-Amz-Expires", ["0"])[0]
        if "Authorization" in handler.headers and not _is_from_the_link(handler):
            return self._answer(handler, 400, {"Content-Type": "application/xml"}, b"<Error>InvalidArgument</Error>")
        signed = hmac.compare_digest(query.get(SIGNATURE_MARK, [""])[0], self._mac(expires))
        with self._lock:
            fresh = expires not in self.used
            self.used.add(expires)
        if not signed or not fresh or float(expires) < time.time() or self._misdeed("expired"):
            return self._answer(handler, 403, {"Content-Type": "application/xml"}, b"<Error>ExpiredToken</Error>")
        self._send_file(handler)
        return None

    def _send_file(self, handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        deed = self._misdeed(
            "ignore_range", "lie_start", "no_content_range", "range_416", "cut", "reset", "stall", "trickle", "fewer",
            "more", "gzip", "html", "json", "no_length", "flip", "change", "storage_500", "empty_answer",
            "rename", "hang", "wrong_total", "small_lie", "multipart", "short_range", "open_total", "chunked",
            "weak_etag", "empty_file", "loris", "http10", "end_reset", "long_header", "two_lengths", "garbage",
            "odd_status", "hints", "part_unasked", "echo",
            "whole_from_zero",
        )  # fmt: skip
        data = self.files.get(int(urlsplit(handler.path).path.rsplit("/", 1)[-1]), self.data)
        if deed == "rename":  # the same bytes, from another store
            self.etag = f'"{self.chance.random()}"'
        if deed == "change":
            self.etag, self.data = '"v2"', bytes(byte ^ 0x55 for byte in self.data)
            data = self.data
        if deed == "html":
            return self._answer(handler, 200, {"Content-Type": "text/html"}, b"<!doctype html><p>Sorry")
        if deed == "json":
            body = b'{"error":"Unauthorized","message":"who are you?"}'
            return self._answer(handler, 200, {"Content-Type": "application/json"}, body)
        if deed == "empty_file":
            return self._answer(handler, 200, {"Content-Type": "application/octet-stream"}, b"")
        if deed == "echo":  # all it was told, in its own words
            told = f"{urlsplit(handler.path).query.replace('=', ' is ')} {list(handler.headers.values())}"
            return self._json(handler, self.chance.choice([404, 418, 429, 500]), {"message": told}, X_Told=told)
        if deed == "odd_status":
            return self._answer(handler, self.chance.choice([202, 207, 305, 418]), {}, b"")
        if deed in RAW:
            self._raw(handler, RAW[deed])
            return None
        if deed == "storage_500":
            return self._answer(handler, 500, {}, b"")
        if deed == "empty_answer":
            handler.close_connection = True
            return None
        if deed == "fewer":
            data = data[: len(data) // 2]
        if deed == "more":
            data = data + bytes(4 << 20)
        start, end, status = 0, len(data), 200
        stale = "If-Range" in handler.headers and handler.headers["If-Range"] != self.etag
        if asked and deed != "ignore_range" and not stale:
            start, status = int(asked[1]), 206
            end = min(int(asked[2]) + 1, len(data)) if asked[2] else len(data)
            if start >= len(data) or deed == "range_416":
                return self._answer(handler, 416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            if deed == "short_range":
                end = min(end, start + SHORT)
        if deed == "whole_from_zero" and start == 0:  # as Backblaze B2 does
            status, end = 200, len(data)
        if deed == "part_unasked":
            status = 206
        self._send_body(handler, deed, data, start, end, status)
        return None

    def _send_body(
        self, handler: BaseHTTPRequestHandler, deed: str | None, data: bytes, start: int, end: int, status: int
    ) -> None:
        body = bytearray(data[start:end])
        if deed == "flip" and body:  # where, chance decides: the same byte twice would be the file's own
            body[self.chance.randrange(len(body))] ^= 0xFF
        if deed == "loris":
            self._dawdle(handler)
            return
        if deed == "hints":
            handler.send_response_only(103)
            handler.send_header("Link", "</style.css>; rel=preload")
            handler.end_headers()
        if deed == "http10":
            handler.protocol_version = "HTTP/1.0"
        handler.send_response(status)
        for name, value in self._headers(deed, body, start, end, len(data), status).items():
            handler.send_header(name, value)
        handler.end_headers()
        if deed == "chunked":
            self._chunks(handler, body)
            return
        stop_at = len(body) // 2 if deed in {"cut", "reset", "stall", "trickle", "hang"} else len(body)
        speed, hold_at = self._speed(start), min(stop_at, len(body) if self.held is None else self.held)
        self._pour(handler, body[:hold_at], speed)
        if hold_at < stop_at:
            self._released.wait()
            self._pour(handler, body[hold_at:stop_at], speed)
        if deed == "hang":
            self._closing.wait(30)
        if deed in {"stall", "trickle"}:
            for _ in range(40):
                if self._closing.wait(0.05):
                    break
                if deed == "trickle":
                    handler.wfile.write(b"\0")
        if deed in {"reset", "end_reset"}:
            handler.wfile.flush()
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
        if stop_at != len(body):
            handler.close_connection = True

    def _headers(
        self, deed: str | None, body: bytearray, start: int, end: int, total: int, status: int
    ) -> dict[str, str]:
        headers = {"Content-Type": self.content_type, **self.extra}
        if deed == "weak_etag":
            headers["ETag"] = f'W/"{self.chance.random()}"'
        elif self.etag:
            headers["ETag"] = self.etag
        if status == 206 and deed == "multipart":
            headers["Content-Type"] = "multipart/byteranges; boundary=THIS"
        elif status == 206 and deed != "no_content_range":
            shown = start + 1 if deed == "lie_start" else start
            whole = {"wrong_total": str(2 * total), "small_lie": str(total + 100), "open_total": "*"}
            headers["Content-Range"] = f"bytes {shown}-{end - 1}/{whole.get(deed or '', total)}"
        if deed == "gzip":
            headers["Content-Encoding"] = "gzip"
        if deed == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif not (deed in {"no_length", "http10"} and status == 200):
            headers["Content-Length"] = str(len(body))
        return headers

    def _raw(self, handler: BaseHTTPRequestHandler, answer: bytes) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    def _dawdle(self, handler: BaseHTTPRequestHandler) -> None:
        """Headers without end, a byte every now and then: each well within what a reader waits for one."""
        handler.close_connection = True
        for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nX-Slow: ", itertools.repeat(ord("a"))):
            if self._closing.wait(0.05):
                return
            handler.wfile.write(bytes([byte]))

    def _chunks(self, handler: BaseHTTPRequestHandler, body: bytearray) -> None:
        for at in range(0, len(body), 50_000):
            piece = body[at : at + 50_000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
        handler.wfile.write(b"0\r\n\r\n")

    def _speed(self, start: int) -> float | None:
        with self._lock:
            if self.crawl is not None and start >= self.crawl[0]:
                speed = self.crawl[1]
                self.crawl = None
                return speed
        return self.per_connection

    def _pour(self, handler: BaseHTTPRequestHandler, body: bytes | bytearray, speed: float | None) -> None:
        view = memoryview(body)
        if speed is None and self.together is None:
            handler.wfile.write(view)
            return
        step = max(1024, int((speed or self.together or 0) / 50))
        for at in range(0, len(view), step):
            if self._closing.is_set():
                raise ConnectionResetError
            if self.together is not None:
                with self._line:
                    time.sleep(step / self.together)
            handler.wfile.write(view[at : at + step])
            if speed is not None:
                time.sleep(step / speed)

"""Answering with a file: whole, or the one range that was asked for; resumable, and revalidated for free.

    Range: bytes=1000-            206, Content-Range: bytes 1000-4095/4096
    … and If-Range: "other"       200, the whole file: the client's half is of something else
    Range: bytes=4096-            416, Content-Range: bytes */4096
    If-None-Match: "sha256:…"     304

Several ranges at once get the whole file, which a server may do and which keeps the answer one piece. Ranges belong to
GET; a HEAD tells size and ETag of the whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CHUNK = 1 << 20
Range = tuple[int, int]  # [start, end)


def parse_range(header: str, size: int) -> Range | None:
    """The range a header asks for; None = give the whole file; an empty one = nothing of the file lies there."""
    found = re.fullmatch(r"bytes[ \t]*=[ \t]*([0-9]{0,19})[ \t]*-[ \t]*([0-9]{0,19})[ \t]*", header, re.IGNORECASE)
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        return (max(0, size - int(found[2])), size)
    start = int(found[1])
    end = int(found[2]) + 1 if found[2] else size
    if end <= start and found[2]:
        return None  # last before first: as if it had not been sent
    return (start, min(end, size)) if start < size else (size, size)


def disposition(name: str) -> str:
    """Content-Disposition for a file name of any kind: plain for old clients, percent-encoded for the rest."""
    name = "".join(c for c in name if c.isprintable() and c not in '/\\"')[:200] or "file"
    plain = "".join(c if c.isascii() and c not in "%;" else "_" for c in name)
    encoded = f"; filename*=UTF-8''{quote(name, safe='')}" if plain != name else ""
    return f'attachment; filename="{plain}"{encoded}'


class FileAnswer(Response):
    """A file whose length and ETag are known. `size` guards against one that changed since: 404 then."""

    def __init__(
        self, path: Path, *, size: int | None, etag: str, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.path, self.size, self.etag = path, size, etag
        self.status_code, self.media_type, self.background = 200, media_type, None
        self.body = b""
        self.init_headers({"Accept-Ranges": "bytes", "ETag": etag, **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            file = await anyio.to_thread.run_sync(_open, self.path)
        except OSError:
            await JSONResponse({"error": "File not found"}, 404)(scope, receive, send)
            return
        try:
            await self._answer(file, scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(file.close)

    async def _answer(self, file: BinaryIO, scope: Scope, receive: Receive, send: Send) -> None:
        size = os.fstat(file.fileno()).st_size
        if self.size is not None and size != self.size:
            await JSONResponse({"error": "File not found"}, 404)(scope, receive, send)
            return
        asked = Headers(scope=scope)
        if _names(asked.get("if-none-match", ""), self.etag):
            await self._start(send, 304)
            await send({"type": "http.response.body", "body": b""})
            return
        wanted = None
        if scope["method"] == "GET" and "range" in asked and asked.get("if-range", self.etag) == self.etag:
            wanted = parse_range(asked["range"], size)
        start, end = wanted or (0, size)
        if wanted and start == end:
            problem = JSONResponse({"error": "Range Not Satisfiable"}, 416, {"Content-Range": f"bytes */{size}"})
            await problem(scope, receive, send)
            return
        extra = {"content-length": str(end - start)}
        if wanted:
            extra["content-range"] = f"bytes {start}-{end - 1}/{size}"
        await self._start(send, 206 if wanted else 200, extra)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await _while_connected(receive, _send_range(file, start, end, send))

    async def _start(self, send: Send, status: int, extra: Mapping[str, str] | None = None) -> None:
        more = [(name.encode(), value.encode("latin-1")) for name, value in (extra or {}).items()]
        await send({"type": "http.response.start", "status": status, "headers": [*self.raw_headers, *more]})


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _names(header: str, etag: str) -> bool:
    """Whether an If-None-Match lists this ETag (weakly compared, as it is meant there)."""
    return header.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in header.split(","))


async def _send_range(file: BinaryIO, start: int, end: int, send: Send) -> None:
    await anyio.to_thread.run_sync(file.seek, start)
    while start < end:
        data = await anyio.to_thread.run_sync(file.read, min(CHUNK, end - start))
        if not data:
            raise OSError("the file is shorter than it was")  # the connection is cut: the client sees that bytes miss
        start += len(data)
        await send({"type": "http.response.body", "body": data, "more_body": start < end})
    if start == end == 0:
        await send({"type": "http.response.body", "body": b""})


async def _while_connected(receive: Receive, sending: Awaitable[None]) -> None:
    """Run to the end, or until the client hangs up: nobody reads six gigabytes for no one."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        await sending
        group.cancel_scope.cancel()

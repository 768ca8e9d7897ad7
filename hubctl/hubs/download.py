"""Bytes from a hub into a `Partial`: resumable, in segments, never under a good name before they are verified.

    fetch(hub, url, partial, size=…, sha256=…)      one file; returns when every byte is there and the SHA256 is right
    fetch_many(jobs, parallel=3)                    several; a failure does not stop the others

A transfer starts with one connection. When a moment's measurement says that the line, not this machine, is the limit,
further connections take the second half of whatever segment has most to go. Each opens the hub's own route and is
redirected to a signed link of its own, so an expired link is renewed by simply asking again, and HEAD is never used.

What is kept when the line breaks is what the server proves to be of the same file: same length, same strong ETag, a
Content-Range that starts where we asked. Otherwise the transfer starts over, and says so (`on_event("restarted", …)`).

Events: resumed(offset), segments(count), retry(reason, seconds), restarted(reason), repair(count, bytes).
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubctl.errors import HubError, HubUnavailable, KnownError, LoginRequired, NotFound, VerificationFailed
from hubctl.hubs.ratelimit import RateLimiter
from hubctl.hubs.redact import redact, short
from hubctl.hubs.refusals import is_login_page, looks_like_html, said
from hubctl.hubs.transport import Transient, Transport, same_hub, wait_before

if TYPE_CHECKING:
    import httpx

    from hubctl.hubs import Hub
    from registry import Partial

logger = logging.getLogger(__name__)
WRITE = 1 << 20  # bytes gathered before they are written
CHECKPOINT_SECONDS, CHECKPOINT_BYTES = 5.0, 256 << 20
ENOUGH = 64 << 10  # bytes that count as progress: fewer do not earn a server new patience
SLOWEST = 1024  # bytes/s averaged over the read timeout; slower is a stall
RESTARTS = 3
WHOLE_TRIES = 3  # different wrong SHA256s before a line is called broken
PAGE_BYTES = 64 << 10
SIZE_TOLERANCE = 1024  # bytes: hubs say KiB, rounded
CONNECTIONS = 8

OnBytes = Callable[[int, int | None], None]
OnEvent = Callable[..., None]


@dataclass(frozen=True)
class Tuning:
    """When further connections are worth it. The defaults suit files of gigabytes."""

    smallest_split: int = 8 << 20  # bytes; a segment with less than twice this to go is left to whom it belongs
    fast: float = 150e6  # bytes/s at which more connections would only compete for this machine's processor
    measure_seconds: float = 0.3  # how long one connection is watched first


class Stopped(KnownError):
    """The user (or the program) asked to stop; what came is kept."""

    code, exit_code = "interrupted", 130
    default_hint = "the same command continues where it stopped"


@dataclass(frozen=True)
class Fetched:
    """How a transfer went. `received` counts bytes that came over the line, `requests` the streams that were opened."""

    size: int
    received: int
    requests: int
    restarts: int


@dataclass
class Segment:
    """[at, end) is still to come; end is None while the length is unknown."""

    at: int
    end: int | None

    @property
    def complete(self) -> bool:
        return self.end is not None and self.at >= self.end

    @property
    def left(self) -> int:
        return 0 if self.end is None else self.end - self.at


class StartOver(Exception):
    """What is here does not belong to what the server has now; `plain` = its answers to ranges cannot be trusted."""

    def __init__(self, reason: str, *, plain: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.plain = reason, plain


class Handed(Exception):
    """The server ignores ranges; the segment went back to the connection that is on its way there anyway."""


def ignore(*_args: Any, **_facts: Any) -> None:
    """Nobody is watching."""


def fetch(
    hub: Hub | Transport,
    url: str,
    partial: Partial,
    *,
    size: int | None = None,
    sha256: str | None = None,
    connections: int | None = None,
    limit_rate: int | RateLimiter | None = None,
    on_bytes: OnBytes = ignore,
    on_event: OnEvent = ignore,
    stop: threading.Event | None = None,
    what: str = "the file",
    tuning: Tuning = Tuning(),
) -> Fetched:
    """Bring `partial` to completion. `size` is the hub's claim in bytes, accurate to a KiB; `sha256` is hex.

    Raises a HubError that names the refusal, VerificationFailed (a page instead of a file, wrong length, wrong hash
    after everything was fetched anew), NoSpace, Stopped. What came and is good stays in the partial.
    """
    transport = _transport(hub, url)
    limiter = limit_rate if isinstance(limit_rate, RateLimiter) else RateLimiter(limit_rate)
    job = _Job(
        transport,
        url,
        partial,
        size,
        sha256,
        connections or CONNECTIONS,
        limiter,
        on_bytes,
        on_event,
        stop,
        what,
        tuning,
    )
    job.complete()
    if sha256:
        job.verify(sha256.lower())
    return Fetched(partial.size, job.received, job.requests, job.restarts)


def _transport(hub: Hub | Transport, url: str) -> Transport:
    if isinstance(hub, Transport):
        return hub
    several = getattr(hub, "transport_for", None)
    return several(url) if several else hub.transport


@dataclass
class _Job:
    """One file on its way: decides when to start over and when the bytes are right."""

    transport: Transport
    url: str
    partial: Partial
    size: int | None
    sha256: str | None
    connections: int
    limiter: RateLimiter
    on_bytes: OnBytes
    on_event: OnEvent
    stop: threading.Event | None
    what: str
    tuning: Tuning
    plain: bool = False
    received: int = 0
    requests: int = 0
    restarts: int = 0

    def complete(self) -> None:
        """Every byte on disk, starting over as often as the server makes it necessary (three times)."""
        while True:
            transfer = _Transfer(self)
            try:
                transfer.run()
                return
            except StartOver as turn:
                self.restarts += 1
                if self.restarts > RESTARTS:
                    raise HubError(
                        f"{self.transport.name} keeps giving another answer for {self.what}: {turn.reason}",
                        hint="try again later",
                    ) from None
                self.plain = self.plain or turn.plain
                self.start_over(turn.reason)
            finally:
                self.received += transfer.received
                self.requests += transfer.requests

    def start_over(self, reason: str) -> None:
        logger.info("%s: starting over: %s", self.what, reason)
        self.on_event("restarted", reason=reason)
        self.partial.meta.clear()
        self.partial.reset()

    def verify(self, expected: str) -> None:
        """Hold the SHA256 against the hub's; chunks that changed on disk are fetched again, else everything.

        The same wrong result twice is the server's file; different ones are the line's fault, which gets three tries.
        """
        seen: set[str] = set()
        while (found := self.partial.digest()) != expected and found not in seen and len(seen) < WHOLE_TRIES:
            seen.add(found)
            if damaged := self.partial.damaged():
                self.on_event("repair", count=len(damaged), bytes=sum(end - start for start, end in damaged))
                self.partial.discard(damaged)
            else:
                self.start_over("the SHA256 is not the promised one")
            self.complete()
        if found == expected:
            return
        self.partial.reset()
        raise VerificationFailed(
            f"{self.what} is not what {self.transport.name} promised: SHA256 {found[:12]}…, expected {expected[:12]}…",
            hint="it was fetched again with the same result: the hub's record or its file is wrong"
            if found in seen
            else "every try gave other bytes: something on the way changes them",
            details={"expected": expected, "found": found},
        )


@dataclass
class _Transfer:
    """The connections of one attempt. Threads share it under `lock`."""

    job: _Job
    lock: threading.Lock = field(default_factory=threading.Lock)
    wake: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)
    total: int | None = None
    etag: str | None = None
    ranges: bool = False  # proven by a 206, or announced with Accept-Ranges
    pending: list[Segment] = field(default_factory=list)
    active: list[Segment] = field(default_factory=list)
    workers: list[threading.Thread] = field(default_factory=list)
    streams: dict[int, Any] = field(default_factory=dict)
    failure: BaseException | None = None
    received: int = 0
    requests: int = 0
    had: int = 0
    credited: int = 0
    last_progress: float = field(default_factory=time.monotonic)
    first_byte: float | None = None
    finished: bool = False

    # --- the conductor ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work off what is missing. Raises StartOver or a KnownError; checkpoints whatever happens."""
        self._plan()
        if self.finished:
            return
        try:
            self._hire()
            self._conduct()
        except BaseException:
            self._dismiss()
            raise
        finally:
            self.job.partial.checkpoint()
        self.job.on_bytes(self.had + self.received, self.total)
        if self.failure is not None:
            raise self.failure

    def _plan(self) -> None:
        partial = self.job.partial
        known = partial.meta.get("total")
        done = partial.done
        if done and (not isinstance(known, int) or known <= 0 or done[-1][1] > known):
            if self._is_claimed_size(done):
                known = self.job.size
            else:
                partial.reset()
                done = []
        if not done:
            self.pending = [Segment(0, None)]
            return
        self.total, self.etag = known, partial.meta.get("etag")
        assert self.total is not None
        partial.size = self.total
        self.pending = [Segment(start, end) for start, end in partial.missing(self.total)]
        self.had = partial.received
        self.finished = not self.pending
        if self.job.plain and self.pending and self.had:
            raise StartOver("the server cannot continue a file", plain=True)
        self.job.on_event("resumed", offset=self.had)

    def _is_claimed_size(self, done: list[tuple[int, int]]) -> bool:
        """Without a recorded length, only a file as long as the hub says can be judged: by its hash."""
        return bool(self.job.sha256) and self.job.size is not None and done == [(0, self.job.size)]

    def _hire(self) -> None:
        thread = threading.Thread(target=self._work, daemon=True, name="hubctl-download")
        self.workers.append(thread)
        thread.start()

    def _conduct(self) -> None:
        """Report, flush, widen, until nobody works any more."""
        saved_at, saved_bytes = time.monotonic(), 0
        while any(worker.is_alive() for worker in self.workers):
            self.wake.wait(0.1)
            self.wake.clear()
            if self.job.stop is not None and self.job.stop.is_set():
                raise Stopped(f"stopped; {(self.had + self.received) / 1e6:.0f} MB of {self.job.what} are kept")
            self.job.on_bytes(self.had + self.received, self.total)
            now = time.monotonic()
            fresh = self.received - saved_bytes
            if fresh and (now - saved_at > CHECKPOINT_SECONDS or (fresh > CHECKPOINT_BYTES and now - saved_at > 1)):
                self.job.partial.checkpoint()
                saved_at, saved_bytes = now, self.received
            self._widen(now)

    def _widen(self, now: float) -> None:
        """More connections, when the one there is neither fast enough nor held back by our own limit."""
        with self.lock:
            begun, total = self.first_byte, self.total
            splittable = (
                self.ranges
                and not self.job.plain
                and any(s.left >= 2 * self.job.tuning.smallest_split for s in self.active)
            )
        wanted = min(self.job.connections, 64)
        if (
            begun is None
            or total is None
            or now - begun < self.job.tuning.measure_seconds
            or self.failure
            or len(self.workers) >= wanted
        ):
            return
        if not (splittable or self.pending):
            return
        speed = self.received / (now - begun)
        limit = self.job.limiter.rate
        if speed > self.job.tuning.fast or (limit and speed > 0.7 * limit):
            return
        while len(self.workers) < wanted:
            self._hire()
        self.job.on_event("segments", count=len(self.workers))

    def _dismiss(self) -> None:
        """Wake everybody who waits for bytes, and wait for them (briefly: they hold nothing that matters)."""
        self._hang_up_all()
        for worker in self.workers:
            worker.join(timeout=5)

    # --- one worker ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self.halt.is_set() and (segment := self._take()) is not None:
                try:
                    self._carry(segment)
                except Handed:
                    return
                finally:
                    with self.lock:
                        self.active.remove(segment)
        except BaseException as error:  # raised again by the conductor
            with self.lock:
                self.failure = self.failure or error
            self._hang_up_all()
        finally:
            self.wake.set()

    def _hang_up_all(self) -> None:
        self.halt.set()
        with self.lock:
            open_streams = list(self.streams.values())
        for response in open_streams:
            _hang_up(response)

    def _take(self) -> Segment | None:
        """Something to do: a gap, or the second half of the longest segment under way."""
        with self.lock:
            if self.pending:
                segment = self.pending.pop(0)
            else:
                longest = max(self.active, key=lambda each: each.left, default=None)
                if (
                    longest is None
                    or not self.ranges
                    or self.job.plain
                    or longest.left < 2 * self.job.tuning.smallest_split
                ):
                    return None
                assert longest.end is not None
                middle = longest.at + longest.left // 2
                segment = Segment(middle, longest.end)
                longest.end = middle
            self.active.append(segment)
            return segment

    def _carry(self, segment: Segment) -> None:
        """One segment to its end, over as many connections as the server lets it take."""
        failures = 0
        while not segment.complete and not self.halt.is_set():
            before = segment.at
            try:
                self._once(segment)
            except Transient as failure:
                if self.halt.is_set():
                    return
                failures = 1 if segment.at - before >= ENOUGH else failures + 1
                wait = wait_before(failures, failure)
                self._check_patience(failure, failures, wait)
                self.job.on_event("retry", reason=failure.error.message, seconds=wait)
                logger.info("%s: %s; again in %.1f s", self.job.what, failure.error.message, wait)
                self.halt.wait(wait)

    def _check_patience(self, failure: Transient, failures: int, wait: float) -> None:
        quiet = time.monotonic() - self.last_progress
        away = failure.connecting and bool(self.had or self.received)  # it was there before: a sleep, a new address
        if (failures >= failure.tries and not away) or quiet + wait > self.job.transport.patience:
            raise failure.error

    def _once(self, segment: Segment) -> None:
        """One request, read as far as it goes. Raises Transient, StartOver, Handed or a KnownError."""
        headers = {"Accept-Encoding": "identity"}
        if not self.job.plain:
            last = "" if segment.end is None else str(segment.end - 1)
            headers["Range"] = f"bytes={segment.at}-{last}"
            if self.etag and segment.at:
                headers["If-Range"] = self.etag
        elif segment.at:
            raise StartOver("the server cannot continue a file", plain=True)
        with self.lock:
            self.requests += 1
        with self.job.transport.stream(self.job.url, headers=headers, what=self.job.what) as response:
            with self.lock:
                self.streams[id(segment)] = response
            try:
                if self._accept(response, segment):
                    self._read(response, segment)
            finally:
                with self.lock:
                    self.streams.pop(id(segment), None)

    # --- judging an answer --------------------------------------------------------------------------------------------

    def _accept(self, response: httpx.Response, segment: Segment) -> bool:
        """Whether the body holds the segment from its start on; False when there is nothing left to read."""
        if response.status_code == 416:
            return self._past_the_end(response, segment)
        if response.status_code not in (200, 206):
            self._refuse(response)
        self._check_page(response)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", ""):
            raise VerificationFailed(
                f"{self.job.transport.name} sends {self.job.what} compressed ({short(encoding, 20)}), asked not to",
                hint="a proxy on the way may do this; such bytes cannot be checked or continued",
            )
        total = self._partial_body(response, segment) if response.status_code == 206 else self._whole(response, segment)
        self._settle(total, _strong_etag(response), segment)
        return not segment.complete

    def _partial_body(self, response: httpx.Response, segment: Segment) -> int:
        """The file's length from a 206. Raises StartOver(plain) when the range is not the one asked for."""
        found = re.fullmatch(
            r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", response.headers.get("content-range", "").strip()
        )
        if not found or self.job.plain:
            if self.job.plain:
                raise HubError(f"{self.job.transport.name} answers with a part of {self.job.what} nobody asked for")
            raise StartOver("the server does not say which part it sends", plain=True)
        start, last, total = (int(number) for number in found.groups())
        if start != segment.at or not start <= last < total:
            raise StartOver("the server sends another part than asked for", plain=True)
        self.ranges = True
        return total

    def _whole(self, response: httpx.Response, segment: Segment) -> int | None:
        """The length from a 200, which holds the file from its beginning."""
        length = response.headers.get("content-length", "")
        total = int(length) if re.fullmatch(r"\d{1,19}", length) else None
        if segment.at:
            if self.total is not None and (total != self.total or self._is_other(_strong_etag(response))):
                raise StartOver("the file changed on the server")
            if self._hand_back(segment):
                raise Handed
            raise StartOver("the server cannot continue a file", plain=True)
        if not self.job.plain and response.headers.get("accept-ranges", "").lower() == "bytes":
            self.ranges = True  # some storages answer 200 to `bytes=0-` and 206 to anything else
        return total

    def _hand_back(self, segment: Segment) -> bool:
        with self.lock:
            self.ranges = False
            for each in self.active:
                if each is not segment and each.end == segment.at and not each.complete:
                    each.end = segment.end
                    return True
        return False

    def _is_other(self, etag: str | None) -> bool:
        return bool(etag and self.etag and etag != self.etag)

    def _settle(self, total: int | None, etag: str | None, segment: Segment) -> None:
        """Take over what the first answer says about the file, and hold later ones against it."""
        with self.lock:
            known = self.total
            if known is not None and (total != known or self._is_other(etag)):
                raise StartOver("the file changed on the server")
            self.etag = self.etag or etag
            if known is None and total is not None:
                self.total = total
            if segment.end is None:
                segment.end = total
        if known is None and total is not None:
            self._check_size(total)
            meta = {"total": total, "etag": self.etag, "url": redact(self.job.url)}
            self.job.partial.meta.update(meta)
            self.job.partial.size = total

    def _check_size(self, total: int) -> None:
        """Where a SHA256 decides, the hub's size may be off by a little; where none does, only by rounding."""
        claimed = self.job.size
        slack = SIZE_TOLERANCE if self.job.sha256 is None else max(1 << 20, (claimed or 0) // 100)
        if claimed and abs(total - claimed) > slack:
            raise VerificationFailed(
                f"{self.job.what} has {total} bytes where {self.job.transport.name} promised {claimed}",
                hint="the hub's record or its file is wrong; nothing was kept",
                details={"expected": claimed, "found": total},
            )

    def _past_the_end(self, response: httpx.Response, segment: Segment) -> bool:
        found = re.fullmatch(r"bytes \*/(\d{1,19})", response.headers.get("content-range", "").strip())
        total = int(found[1]) if found else None
        if total is not None and total == segment.at and self.total in (None, total):
            with self.lock:
                self.total = segment.end = total
            self.job.partial.size = total
            return False
        raise StartOver("the server has fewer bytes than are here", plain=total is None)

    def _refuse(self, response: httpx.Response) -> None:
        """Any other status. A storage that refuses its signed link only means that a new one is needed."""
        url = str(response.url)
        if response.status_code in (400, 401, 403, 410) and not same_hub(url, self.job.transport.base_url):
            raise Transient(
                HubUnavailable(
                    f"the storage of {self.job.transport.name} refuses the links it was given (status "
                    f"{response.status_code})"
                ),
                tries=4,
            )
        error = self.job.transport.refused(response, self.job.what)
        if isinstance(error, NotFound):
            raise Transient(error, tries=2)  # download routes say 404 also when their storage stumbles
        raise error

    def _check_page(self, response: httpx.Response) -> None:
        """A web page or an error in the place of a file (status 200) is the field's classic corrupt download."""
        name = self.job.transport.name
        if is_login_page(str(response.url)):
            raise LoginRequired(f"{name} wants you to be logged in to give out {self.job.what}")
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in {"text/html", "application/xhtml+xml", "application/json", "application/problem+json"}:
            return
        length = response.headers.get("content-length")
        if self.job.sha256 and self.job.size is not None and length == str(self.job.size):
            return  # a configuration file may well be JSON
        body = b""
        for piece in response.iter_raw():
            body += piece
            if len(body) >= PAGE_BYTES:
                break
        raise self._page_refusal(body)

    def _page_refusal(self, body: bytes) -> VerificationFailed:
        sentence = said(body[:PAGE_BYTES])
        kind = "a web page" if looks_like_html(body) else "a message"
        return VerificationFailed(
            f"{self.job.transport.name} answered with {kind} instead of {self.job.what}"
            + (f": {sentence}" if sentence else ""),
            hint="nothing was kept; logging in may help: `hubctl login`",
        )

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, response: httpx.Response, segment: Segment) -> None:
        """The body into the partial, in large writes. Raises Transient when it ends early or crawls."""
        buffer = bytearray()
        sniffed = segment.at > 0
        window_start, window_bytes = time.monotonic(), 0
        try:
            for piece in response.iter_raw():
                buffer += piece
                window_bytes += len(piece)
                if not sniffed and len(buffer) >= 16:
                    sniffed = True
                    self._sniff(bytes(buffer[:4096]))
                if len(buffer) >= WRITE:
                    self._store(buffer, segment)
                    if segment.complete or self.halt.is_set():
                        return
                elif segment.end is not None and segment.at + len(buffer) >= segment.end:
                    break
                now = time.monotonic()
                if now - window_start > self.job.transport.timeout:
                    self._check_pace(window_bytes, now - window_start)
                    window_start, window_bytes = now, 0
        finally:
            if buffer and (sniffed or not looks_like_html(bytes(buffer))):
                self._store(buffer, segment)
        if segment.end is None:
            self._end_without_length(segment)
        elif not segment.complete and not self.halt.is_set():
            raise Transient(HubUnavailable(f"the connection ended {segment.left} bytes early"))

    def _sniff(self, start: bytes) -> None:
        if self.job.sha256 is None and looks_like_html(start):
            raise self._page_refusal(start)

    def _check_pace(self, count: int, seconds: float) -> None:
        if count < SLOWEST * seconds and not self.job.limiter.rate:
            raise Transient(HubUnavailable(f"the line all but stopped: {count} bytes in {seconds:.0f} s"))

    def _end_without_length(self, segment: Segment) -> None:
        """The server closed and never said how long the file is: the hub's size must speak."""
        claimed = self.job.size
        if claimed is not None and segment.at < claimed - SIZE_TOLERANCE:
            raise Transient(HubUnavailable(f"the connection ended {claimed - segment.at} bytes early"))
        self._check_size(segment.at)
        with self.lock:
            self.total = segment.end = segment.at
        self.job.partial.size = segment.at
        self.job.partial.meta.update(total=segment.at, etag=self.etag, url=redact(self.job.url))

    def _store(self, buffer: bytearray, segment: Segment) -> None:
        """Write what belongs to the segment (its end may have moved) and clear the buffer."""
        with self.lock:
            room = len(buffer) if segment.end is None else max(0, min(len(buffer), segment.end - segment.at))
            at = segment.at
            if self.first_byte is None:
                self.first_byte = time.monotonic()
        if segment.end is None and self.job.size is not None:
            self._check_flood(at + room)
        if room:
            with memoryview(buffer) as view, view[:room] as part:
                self.job.partial.write_at(at, part)
            with self.lock:
                segment.at = at + room
                self.received += room
                if self.received - self.credited >= ENOUGH or segment.complete:
                    self.credited, self.last_progress = self.received, time.monotonic()
        buffer.clear()
        self.job.limiter.take(room, self.halt.wait)

    def _check_flood(self, reached: int) -> None:
        assert self.job.size is not None
        if reached > self.job.size + max(1 << 20, self.job.size // 100):
            raise VerificationFailed(
                f"{self.job.transport.name} sends more than the {self.job.size} bytes it promised for {self.job.what}"
            )


def _strong_etag(response: httpx.Response) -> str | None:
    """An ETag that vouches for every byte; weak ones (`W/`) and odd ones do not."""
    etag = response.headers.get("etag", "").strip()
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag) else None


def _hang_up(response: httpx.Response) -> None:
    """End a read another thread waits in: shut the socket, which that thread then closes itself."""
    stream = response.extensions.get("network_stream")
    line = stream.get_extra_info("socket") if stream is not None else None
    if line is not None:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            logger.debug("a connection was closed already")


# --- many -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One of many downloads: `run(stop)` does it and returns what the caller wants back."""

    name: str
    run: Callable[[threading.Event], Any]


@dataclass(frozen=True)
class Result:
    name: str
    value: Any = None
    error: KnownError | None = None


def fetch_many(
    jobs: Iterable[Job], *, parallel: int = 3, on_event: OnEvent = ignore, stop: threading.Event | None = None
) -> list[Result]:
    """Run jobs side by side, results in the order given. A KnownError is a result; it stops nobody else.

    Ctrl-C sets `stop`, which every job was given, waits for them and goes on up.
    """
    stop = stop or threading.Event()

    def one(job: Job) -> Result:
        if stop.is_set():
            return Result(job.name, error=Stopped(f"{job.name} was not begun"))
        on_event("began", name=job.name)
        try:
            result = Result(job.name, job.run(stop))
        except KnownError as error:
            result = Result(job.name, error=error)
        on_event("ended", name=job.name, error=result.error)
        return result

    with ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="hubctl-job") as pool:
        try:
            return list(pool.map(one, jobs))
        except BaseException:
            stop.set()
            raise

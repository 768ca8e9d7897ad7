"""The connections of one attempt at a file, and how they share the work.

A transfer starts with one connection. When a moment's measurement says that the line, not this machine, is the limit,
further connections take the second half of whatever segment has most to go; when that made it no faster, it stays at
that. Each opens the hub's own route and is redirected to a signed link of its own, so an expired link is renewed by
simply asking again without the others noticing, and HEAD is never used.

    conductor   reports, widens, notices that the machine was asleep         (the caller's thread)
    workers     one connection each: socket → disk
    follower    SHA256 over the contiguous beginning, beside the workers
    keeper      flushes to disk, then journals
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from hubctl.errors import HubError, HubUnavailable, KnownError, LoginRequired, NotFound, VerificationFailed
from hubctl.hubs.redact import redact, short
from hubctl.hubs.refusals import is_login_page, looks_like_html, said
from hubctl.hubs.transport import Transient, body, same_hub, wait_before

if TYPE_CHECKING:
    import httpx

    from hubctl.hubs.download import Download

logger = logging.getLogger(__name__)
WRITE = 256 << 10  # bytes gathered before they are written; the readers' pieces are usually that large
CHECKPOINT_SECONDS, CHECKPOINT_BYTES = 5.0, 256 << 20
ENOUGH = 64 << 10  # bytes that count as progress: fewer do not earn a server new patience
SLOWEST = 1024  # bytes/s averaged over the read timeout; slower is a stall
PAGE_BYTES = 64 << 10
SIZE_TOLERANCE = 1024  # bytes: hubs say KiB, rounded
LAG = 5.0  # seconds to go that make even a small rest of a segment worth sharing
SMALLEST_REST = 1 << 20
WORTH = 1.15  # how much faster more connections must have made it before still more are tried
FIRST_CREW = 4
DOUBTS = 3  # answers in a row that do not fit what is here before it is given up for them
LEAVE_SECONDS = 1.5  # that a stopped transfer waits for its connections

OnBytes = Callable[[int, int | None], None]
OnEvent = Callable[..., None]


@dataclass(frozen=True)
class Tuning:
    """When further connections are worth it. The defaults suit files of gigabytes."""

    smallest_split: int = 8 << 20  # bytes; a segment with less than twice this to go is left to whom it belongs
    fast: float = 150e6  # bytes/s at which more connections would only compete for this machine's processor
    measure_seconds: float = 0.3  # how long the connections there are are watched first
    asleep_seconds: float = 10.0  # a moment that lasted so long means that the machine slept
    wall: Callable[[], float] = time.time


DEFAULTS = Tuning()


class Stopped(KnownError):
    """The user (or the program) asked to stop; what came is kept."""

    code, exit_code = "interrupted", 130
    default_hint = "the same command continues where it stopped"


@dataclass
class Segment:
    """[at, end) is still to come; end is None while the length is unknown."""

    at: int
    end: int | None
    since: float = field(default_factory=time.monotonic)
    begun_at: int = -1
    until: int | None = None  # where the answer under way ends, by its own word

    def __post_init__(self) -> None:
        self.begun_at = self.at

    @property
    def complete(self) -> bool:
        return self.end is not None and self.at >= self.end

    @property
    def left(self) -> int:
        return 0 if self.end is None else self.end - self.at

    def seconds_left(self, now: float) -> float:
        """At the pace it had so far."""
        return self.left * (now - self.since) / max(1, self.at - self.begun_at)


class StartOver(Exception):
    """What is here does not belong to what the server has now.

    `plain` = its answers to ranges cannot be trusted; `renamed` = only the ETag is another one.
    """

    def __init__(self, reason: str, *, plain: bool = False, renamed: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.plain, self.renamed = reason, plain, renamed


class Handed(Exception):
    """The server ignores ranges; the segment went back to the connection that is on its way there anyway."""


def ignore(*_args: Any, **_facts: Any) -> None:
    """Nobody is watching."""


def content_range(response: httpx.Response) -> tuple[int, int, int | None] | None:
    """(first, last, total) of a 206; a server may leave the total open."""
    value = response.headers.get("content-range", "").strip().lower()
    found = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", value)
    return (int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])) if found else None


@dataclass
class Transfer:
    """The connections of one attempt. Threads share it under `lock`."""

    job: Download
    lock: threading.Lock = field(default_factory=threading.Lock)
    wake: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)  # workers leave
    over: threading.Event = field(default_factory=threading.Event)  # follower and keeper leave
    total: int | None = None
    etag: str | None = None
    ranges: bool = False  # proven by a 206, or announced with Accept-Ranges
    pending: list[Segment] = field(default_factory=list)
    active: list[Segment] = field(default_factory=list)
    workers: list[threading.Thread] = field(default_factory=list)
    working: int = 0
    streams: dict[int, Any] = field(default_factory=dict)
    failure: BaseException | None = None
    received: int = 0
    arrived: int = 0  # the same before it is written: about right, and even
    requests: int = 0
    doubts: int = 0
    had: int = 0
    credited: int = 0
    last_progress: float = field(default_factory=time.monotonic)
    first_byte: float | None = None
    finished: bool = False
    begun: float = field(default_factory=time.monotonic)
    watched_from: float = 0.0  # when this crew is expected to be at work
    watched_bytes: int | None = None  # what had come by then
    pace: float = 0.0  # bytes/s of the crew before
    settled: bool = False  # more connections do not help

    # --- the conductor ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work off what is missing. Raises StartOver or a KnownError; checkpoints whatever happens."""
        self._plan()
        if self.finished:
            return
        helpers = [self._start(self._follow, "hash"), self._start(self._keep, "journal")]
        try:
            self._hire()
            self._conduct()
        except BaseException:
            self._dismiss()
            raise
        finally:
            self.over.set()
            for helper in helpers:
                helper.join()
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
        etag = partial.meta.get("etag")
        self.total, self.etag = known, etag if isinstance(etag, str) else None
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

    def _start(self, work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True, name=f"hubctl-{name}")
        thread.start()
        return thread

    def _hire(self) -> None:
        with self.lock:
            self.working += 1
        self.workers.append(self._start(self._work, "download"))

    def _follow(self) -> None:
        """SHA256 of what is contiguous, while the rest is still coming."""
        try:
            while not self.over.is_set():
                if not self.job.partial.hash_some(self.over.is_set):
                    self.over.wait(0.02)
        except OSError as error:
            self._fail(error)

    def _keep(self) -> None:
        """Flush and journal, by the clock and by what came."""
        saved_at, saved = time.monotonic(), 0
        try:
            while not self.over.wait(min(0.25, CHECKPOINT_SECONDS)):
                fresh, age = self.received - saved, time.monotonic() - saved_at
                if fresh and (age > CHECKPOINT_SECONDS or (fresh > CHECKPOINT_BYTES and age > 1)):
                    saved = self.received
                    self.job.partial.checkpoint()
                    saved_at = time.monotonic()
        except (OSError, KnownError) as error:
            self._fail(error)

    def _conduct(self) -> None:
        """Report, widen, until nobody works any more."""
        before, before_wall = time.monotonic(), self.job.tuning.wall()
        while self.working:
            self.wake.wait(0.1)
            self.wake.clear()
            if self.job.stop is not None and self.job.stop.is_set():
                raise Stopped(f"stopped; {(self.had + self.received) / 1e6:.0f} MB of {self.job.what} are kept")
            self.job.on_bytes(self.had + self.received, self.total)
            now, wall = time.monotonic(), self.job.tuning.wall()
            gap = max(now - before, wall - before_wall)
            if gap > self.job.tuning.asleep_seconds:
                self._woke(gap, now - before)
            before, before_wall = now, wall
            self._widen(now)

    def _woke(self, gap: float, counted: float) -> None:
        """The machine slept: no server was slow, but the connections are likely dead. Do not wait to find out."""
        logger.info("%s: this machine slept for %.0f s; connecting anew", self.job.what, gap)
        self.job.on_event("woke", seconds=gap)
        with self.lock:
            self.last_progress += counted
            open_streams = list(self.streams.values())
        for response in open_streams:
            _hang_up(response)

    def _widen(self, now: float) -> None:
        """More connections, when those there are neither fast enough nor held back by our own limit."""
        job = self.job
        wanted = min(job.connections, 64)
        with self.lock:
            splittable = self.ranges and any(s.left >= 2 * job.tuning.smallest_split for s in self.active)
        if self.first_byte is None or self.total is None or self.settled or self.failure or len(self.workers) >= wanted:
            return
        if job.plain or not (splittable or self.pending):
            return
        if self.watched_bytes is None and now >= self.watched_from:
            self.watched_from, self.watched_bytes = now, self.arrived
        if self.watched_bytes is None or now - self.watched_from < job.tuning.measure_seconds:
            return
        pace = (self.arrived - self.watched_bytes) / (now - self.watched_from)
        if pace > job.tuning.fast or (job.limiter.rate and pace > 0.7 * job.limiter.rate):
            return
        if pace < WORTH * self.pace:
            self.settled = True
            return
        for _ in range(min(wanted, max(FIRST_CREW, 2 * len(self.workers))) - len(self.workers)):
            self._hire()
        # the new ones are watched from when they should have their first bytes: as long as the first one took
        self.pace, self.watched_from, self.watched_bytes = pace, now + 1.5 * (self.first_byte - self.begun), None
        job.on_event("segments", count=len(self.workers))

    def _dismiss(self) -> None:
        """Wake everybody who waits for bytes, and wait for them (briefly: they hold nothing that matters)."""
        self._hang_up_all()
        deadline = time.monotonic() + LEAVE_SECONDS
        while self.working and time.monotonic() < deadline:
            self.wake.wait(0.05)
            self.wake.clear()

    def _fail(self, error: BaseException) -> None:
        with self.lock:
            self.failure = self.failure or error
        self._hang_up_all()
        self.wake.set()

    def _hang_up_all(self) -> None:
        self.halt.set()
        with self.lock:
            open_streams = list(self.streams.values())
        for response in open_streams:
            _hang_up(response)

    # --- one worker ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self.halt.is_set() and (segment := self._next()) is not None:
                try:
                    self._carry(segment)
                except Handed:
                    return
                finally:
                    with self.lock:
                        self.active.remove(segment)
                        if not self.active and not self.pending:
                            self.halt.set()
        except BaseException as error:  # raised again by the conductor
            self._fail(error)
        finally:
            with self.lock:
                self.working -= 1
            self.wake.set()

    def _next(self) -> Segment | None:
        """Something to do; None when the others will soon be done without help."""
        while not self.halt.is_set():
            with self.lock:
                if self.pending:
                    segment: Segment | None = self.pending.pop(0)
                else:
                    segment = self._share()
                if segment is not None:
                    self.active.append(segment)
                    return segment
                if not self.active or not self.ranges or self.job.plain:
                    return None
            self.halt.wait(0.25)
        return None

    def _share(self) -> Segment | None:
        """The second half of the segment that has most to go, if that is worth a connection."""
        now = time.monotonic()
        longest = max(self.active, key=lambda each: each.left, default=None)
        if longest is None or longest.end is None or not self.ranges or self.job.plain:
            return None
        if longest.left < 2 * self.job.tuning.smallest_split:
            slowest = max(self.active, key=lambda each: each.seconds_left(now))
            lagging = slowest.left >= 2 * SMALLEST_REST and slowest.seconds_left(now) > LAG
            if not lagging or now - slowest.since < LAG or self.job.limiter.rate:
                return None
            longest = slowest
        assert longest.end is not None
        middle = longest.at + longest.left // 2
        segment = Segment(middle, longest.end)
        longest.end = middle
        return segment

    def _carry(self, segment: Segment) -> None:
        """One segment to its end, over as many connections as the server lets it take."""
        failures: list[Transient] = []  # since there was progress
        while not segment.complete and not self.halt.is_set():
            before = segment.at
            try:
                self._once(segment)
            except Transient as failure:
                if self.halt.is_set():
                    return
                failures = [failure] if segment.at - before >= ENOUGH else [*failures, failure]
                wait = wait_before(len(failures), failure)
                self._check_patience(failure, failures, wait)
                self.job.on_event("retry", reason=failure.error.message, seconds=wait)
                logger.info("%s: %s; again in %.1f s", self.job.what, failure.error.message, wait)
                self.halt.wait(wait)

    def _check_patience(self, failure: Transient, failures: list[Transient], wait: float) -> None:
        alike = sum(each.error.code == failure.error.code and each.tries == failure.tries for each in failures)
        quiet = time.monotonic() - self.last_progress
        away = failure.connecting and bool(self.had or self.received)  # it was there before: a sleep, a new address
        if (alike >= failure.tries and not away) or quiet + wait > self.job.transport.patience:
            raise failure.error

    def _once(self, segment: Segment) -> None:
        """One request, read as far as it goes. Raises Transient, StartOver, Handed or a KnownError."""
        headers = {"Accept-Encoding": "identity"}
        if not self.job.plain:
            last = "" if segment.end is None else str(segment.end - 1)
            headers["Range"] = f"bytes={segment.at}-{last}"
            if self.etag and segment.at and not self.job.any_etag:
                headers["If-Range"] = self.etag
        elif segment.at:
            raise StartOver("the server cannot continue a file", plain=True)
        with self.lock:
            self.requests += 1
        with self.job.transport.stream(self.job.url, headers=headers, what=self.job.what) as response:
            with self.lock:
                self.streams[id(segment)] = response
                segment.since, segment.begun_at = time.monotonic(), segment.at
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

    def _partial_body(self, response: httpx.Response, segment: Segment) -> int | None:
        """The file's length from a 206. Raises when the range is not the one asked for."""
        found = content_range(response)
        if found is None:
            return self._doubt("the server does not say which part it sends", plain=True)
        start, last, total = found
        if self.job.plain and (start, last + 1) != (0, total):
            raise HubError(f"{self.job.transport.name} answers with a part of {self.job.what} nobody asked for")
        if start != segment.at or last < start or (total is not None and last >= total):
            return self._doubt("the server sends another part than asked for", plain=True)
        self.ranges = not self.job.plain
        segment.until = last + 1
        return total

    def _whole(self, response: httpx.Response, segment: Segment) -> int | None:
        """The length from a 200, which holds the file from its beginning."""
        length = response.headers.get("content-length", "")
        total = int(length) if re.fullmatch(r"\d{1,19}", length) else None
        segment.until = None
        if total == 0 and (self.job.size or self.total):
            name = self.job.transport.name
            raise Transient(VerificationFailed(f"{name} sends an empty file instead of {self.job.what}"), tries=4)
        if segment.at:
            self._check_same(total, _strong_etag(response))
            if self._hand_back(segment):
                raise Handed
            return self._doubt("the server cannot continue a file", plain=True)
        if not self.job.plain and response.headers.get("accept-ranges", "").lower() == "bytes":
            self.ranges = True  # some storages answer 200 to `bytes=0-` and 206 to anything else
        return total

    def _doubt(self, reason: str, *, plain: bool = False) -> NoReturn:
        """An answer that does not fit what is here. A single one of a server that stumbles costs nothing of it."""
        with self.lock:
            self.doubts += 1
            once_more = self.doubts < DOUBTS and bool(self.had or self.received)
        if once_more:
            raise Transient(HubUnavailable(reason), tries=2 * DOUBTS)
        raise StartOver(reason, plain=plain)

    def _check_same(self, total: int | None, etag: str | None) -> None:
        """Whether an answer is about the file that is here. A length that fits the hub's promise worse is a lie."""
        known = self.total
        if known is None or (total in (None, known) and not self._is_other(etag)):
            return
        size = self.job.size or 0
        if total is not None and self._is_promised(known) and abs(known - size) < abs(total - size):
            raise Transient(self._wrong_size(total), tries=DOUBTS)
        raise StartOver("the file changed on the server", renamed=total in (None, known))

    def _is_promised(self, total: int) -> bool:
        size = self.job.size
        return bool(self.job.sha256) and size is not None and abs(total - size) <= SIZE_TOLERANCE

    def _hand_back(self, segment: Segment) -> bool:
        with self.lock:
            self.ranges = False
            for each in self.active:
                if each is not segment and each.end == segment.at and not each.complete:
                    each.end = segment.end
                    return True
        return False

    def _is_other(self, etag: str | None) -> bool:
        return bool(etag and self.etag and etag != self.etag and not self.job.any_etag)

    def _settle(self, total: int | None, etag: str | None, segment: Segment) -> None:
        """Take over what the first answer says about the file, and hold later ones against it."""
        self._check_same(total, etag)
        if self.total is None and total is not None:
            try:
                self._check_size(total)
            except VerificationFailed as error:  # one answer's word: another may know better
                raise Transient(error, tries=DOUBTS) from None
        with self.lock:
            known = self.total
            self.etag = self.etag or etag
            self.total = total if known is None else known
            self.doubts = 0
            if segment.end is None:
                segment.end = self.total
        if known is None and total is not None:
            self._note_down(total)

    def _note_down(self, total: int) -> None:
        self.job.partial.meta.update(total=total, etag=self.etag, url=redact(self.job.url))
        self.job.partial.size = total

    def _check_size(self, total: int) -> None:
        """Where a SHA256 decides, the hub's size may be off by a little; where none does, only by rounding."""
        claimed = self.job.size
        slack = SIZE_TOLERANCE if self.job.sha256 is None else max(1 << 20, (claimed or 0) // 100)
        if claimed and abs(total - claimed) > slack:
            raise self._wrong_size(total)

    def _wrong_size(self, total: int) -> VerificationFailed:
        kept = "what came so far is kept" if self.had or self.received else "nothing was kept"
        return VerificationFailed(
            f"{self.job.what} has {total} bytes where {self.job.transport.name} promised {self.job.size}",
            hint=f"the hub's record or its file is wrong; {kept}",
            details={"expected": self.job.size, "found": total},
        )

    def _past_the_end(self, response: httpx.Response, segment: Segment) -> bool:
        found = re.fullmatch(r"bytes \*/(\d{1,19})", response.headers.get("content-range", "").strip())
        total = int(found[1]) if found else None
        if total is not None and total == segment.at and self.total in (None, total):
            with self.lock:
                self.total = segment.end = total
            self.job.partial.size = total
            return False
        if total is None or total > segment.at:
            return self._doubt("the server says that there is nothing where it has more", plain=total is None)
        self._check_same(total, None)
        raise StartOver("the server has fewer bytes than are here")

    def _refuse(self, response: httpx.Response) -> None:
        """Any other status. A storage that refuses its signed link only means that a new one is needed."""
        url = str(response.url)
        if response.status_code in (400, 401, 403, 410) and self._is_storage(url):
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

    def _is_storage(self, url: str) -> bool:
        """Whether we were sent on from the hub's routes: to another host, or to signed links on its own."""
        asked = str(self.job.url).split("?")[0]
        if not same_hub(url, self.job.transport.base_url):
            return True
        return not urlsplit(url).path.startswith("/api/") and url.split("?")[0] != asked and not is_login_page(url)

    def _check_page(self, response: httpx.Response) -> None:
        """A web page or an error in the place of a file (status 200) is the field's classic corrupt download."""
        name = self.job.transport.name
        if is_login_page(str(response.url)):
            raise LoginRequired(f"{name} wants you to be logged in to give out {self.job.what}")
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in {"text/html", "application/xhtml+xml", "application/json", "application/problem+json"}:
            return
        found = content_range(response) if response.status_code == 206 else None
        length = str(found[2]) if found else response.headers.get("content-length", "")
        if length.isdecimal() and self._is_promised(int(length[:19])):
            return  # a configuration or a workflow may well be JSON, and its SHA256 decides
        page = b""
        for piece in response.iter_raw():
            page += piece
            if len(page) >= PAGE_BYTES:
                break
        raise self._page_refusal(page)

    def _page_refusal(self, page: bytes) -> VerificationFailed:
        sentence = said(page[:PAGE_BYTES])
        kind = "a web page" if looks_like_html(page) else "a message"
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
        stored = window_start = time.monotonic()
        window_bytes = 0
        try:
            for piece in body(response, self.job.transport.timeout):
                window_bytes += len(piece)
                self.arrived += len(piece)
                if self.first_byte is None:
                    self.first_byte = time.monotonic()
                now = time.monotonic()
                if sniffed and not buffer and len(piece) >= WRITE // 2:
                    self._store(piece, segment)
                else:
                    buffer += piece
                    if not sniffed and len(buffer) >= 16:
                        sniffed = True
                        self._sniff(bytes(buffer[:4096]))
                    if len(buffer) >= WRITE or now - stored > 0.5:
                        self._store(buffer, segment)
                        buffer.clear()
                        stored = now
                if segment.complete or self.halt.is_set():
                    return
                if buffer and segment.end is not None and segment.at + len(buffer) >= segment.end:
                    break
                if now - window_start > self.job.transport.timeout:
                    self._check_pace(window_bytes, now - window_start)
                    window_start, window_bytes = now, 0
        finally:
            if buffer and (sniffed or not looks_like_html(bytes(buffer))):
                self._store(buffer, segment)
        if segment.end is None:
            self._end_without_length(segment)
        elif not segment.complete and not self.halt.is_set() and not self._is_piece(segment):
            raise Transient(HubUnavailable(f"the connection ended {segment.left} bytes early"))

    def _is_piece(self, segment: Segment) -> bool:
        """Some servers give a large range piece by piece, and say so: the next one is asked for at once."""
        return segment.at == segment.until and segment.at - segment.begun_at >= ENOUGH

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
        self._note_down(segment.at)

    def _store(self, data: bytes | bytearray | memoryview, segment: Segment) -> None:
        """Write what belongs to the segment (its end may have moved)."""
        with self.lock:
            room = len(data) if segment.end is None else max(0, min(len(data), segment.end - segment.at))
            at = segment.at
        if segment.end is None and self.job.size is not None:
            self._check_flood(at + room)
        if room:
            with memoryview(data) as view, view[:room] as part:
                self.job.partial.write_at(at, part)
            with self.lock:
                segment.at = at + room
                self.received += room
                if self.received - self.credited >= ENOUGH or segment.complete:
                    self.credited, self.last_progress = self.received, time.monotonic()
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

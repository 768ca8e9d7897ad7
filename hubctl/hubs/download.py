"""Bytes from a hub into a `Partial`: resumable, in segments, never under a good name before they are verified.

    fetch(hub, url, partial, size=…, sha256=…)      one file; returns when every byte is there and the SHA256 is right
    fetch_many(jobs, parallel=3)                    several; a failure does not stop the others

How the connections of one attempt share the work is in `segments`; here is decided when an attempt must start over,
when bytes are right, and what is fetched again when they are not.

What is kept when the line breaks is what the server proves to be of the same file: same length, same strong ETag, a
Content-Range that starts where we asked. A file that was given another ETag is compared in one place before anything
is thrown away (storages name the same bytes differently), where a SHA256 decides in the end anyway.

Events: resumed(offset), segments(count), retry(reason, seconds), restarted(reason), kept(reason), repair(count, bytes),
woke(seconds), verifying(bytes).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubctl.errors import HubError, KnownError, VerificationFailed
from hubctl.hubs.ratelimit import RateLimiter
from hubctl.hubs.segments import (
    DEFAULTS,
    SIZE_TOLERANCE,
    OnBytes,
    OnEvent,
    StartOver,
    Stopped,
    Transfer,
    Tuning,
    content_range,
    ignore,
)
from hubctl.hubs.transport import Transient, Transport, read_bounded

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from registry import Partial

logger = logging.getLogger(__name__)
CONNECTIONS = 8
RESTARTS = 3
WHOLE_TRIES = 4  # different wrong results before a line is called broken
SAMPLE = 64 << 10  # bytes compared to see whether a file with another ETag is still the same
GRACE_SECONDS = 5.0  # for others to put away what they have, after Ctrl-C

Verify = Callable[["Partial"], str | None]  # a complete partial → what is wrong with it


@dataclass(frozen=True)
class Fetched:
    """How a transfer went. `received` counts bytes that came over the line, `requests` the streams that were opened.

    `verified_by` is SHA256 where the hub declares the right one, else what else it was held against.
    """

    size: int
    received: int
    requests: int
    restarts: int
    verified_by: str | None = None


def fetch(
    hub: Hub | Transport,
    url: str,
    partial: Partial,
    *,
    size: int | None = None,
    sha256: str | None = None,
    blake3: str | None = None,
    autov3: str | None = None,
    verify: Verify | None = None,
    connections: int | None = None,
    limit_rate: int | RateLimiter | None = None,
    on_bytes: OnBytes = ignore,
    on_event: OnEvent = ignore,
    stop: threading.Event | None = None,
    what: str = "the file",
    tuning: Tuning = DEFAULTS,
) -> Fetched:
    """Bring `partial` to completion. `size` is the hub's claim in bytes, accurate to a KiB; hashes are hex.

    `blake3` settles it when the SHA256 turns out to be wrong: the hub promised both. So does `autov3`, the hash of a
    safetensors file behind its header, when everything was fetched twice with the same result and its size is the
    promised one. `verify` judges a file the hub declares no SHA256 of. Raises a HubError that names the refusal,
    VerificationFailed (a page instead of a file, wrong length, wrong hash after everything was fetched anew), NoSpace,
    Stopped. What came and is good stays in the partial.
    """
    job = Download(
        _transport(hub, url),
        url,
        partial,
        size,
        sha256.lower() if sha256 else None,
        connections or CONNECTIONS,
        limit_rate if isinstance(limit_rate, RateLimiter) else RateLimiter(limit_rate),
        on_bytes,
        on_event,
        stop,
        what,
        tuning,
        blake3.lower() if blake3 else None,
        autov3.upper() if autov3 else None,
    )
    job.complete()
    verified_by = job.verify(verify)
    return Fetched(partial.size, job.received, job.requests, job.restarts, verified_by)


def _transport(hub: Hub | Transport, url: str) -> Transport:
    if isinstance(hub, Transport):
        return hub
    several = getattr(hub, "transport_for", None)
    return several(url) if several else hub.transport


@dataclass
class Download:
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
    blake3: str | None = None
    autov3: str | None = None
    plain: bool = False  # the server's answers to ranges cannot be trusted
    any_etag: bool = False  # the same bytes go by several ETags here; the SHA256 decides
    received: int = 0
    requests: int = 0
    restarts: int = 0

    def complete(self) -> None:
        """Every byte on disk, starting over as often as the server makes it necessary (three times)."""
        while True:
            transfer = Transfer(self)
            try:
                transfer.run()
                return
            except StartOver as turn:
                if turn.renamed and self._is_still_the_same():
                    continue
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

    def _is_still_the_same(self) -> bool:
        """Whether a file that goes by another ETag now has the bytes that are here, looked at in one place."""
        done = self.partial.done
        if not self.sha256 or self.plain or self.any_etag or not done:
            return False
        end = done[0][1]
        start = max(done[0][0], end - SAMPLE)
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        try:
            with self.transport.stream(self.url, headers=headers, what=self.what) as response:
                self.requests += 1
                if response.status_code != 206 or content_range(response) != (start, end - 1, self.partial.size):
                    return False
                same = read_bounded(response, SAMPLE, self.what, 30.0) == self.partial.read_at(start, end)
        except (Transient, KnownError):
            return False
        if same:
            self.any_etag = True
            self.partial.meta["etag"] = None
            self.on_event("kept", reason="the server calls the file by another name now; its bytes are the same so far")
        return same

    # --- are they right? ----------------------------------------------------------------------------------------------

    def verify(self, judge: Verify | None) -> str | None:
        """Hold what came against what the hub promised; says by what it was verified. Raises VerificationFailed.

        Chunks that changed on disk are fetched again, else everything once more, then what the two fetches do not agree
        on. The same wrong result twice is the server's file.
        """
        seen: set[str] = set()
        first: dict[tuple[int, int], str] | None = None
        while True:
            self.on_event("verifying", bytes=self.partial.size)
            found = self.partial.digest()
            problem, by = self._judge(found, judge)
            if problem is None:
                return by
            if found in seen and self._has_the_right_tensors():
                self.partial.sha256 = None
                return "AutoV3"
            if found in seen or len(seen) >= WHOLE_TRIES:
                raise self._refusal(problem, found, again=found in seen)
            seen.add(found)
            doubtful = self.partial.damaged()
            if not doubtful and first is not None:
                doubtful = [cell for cell, digest in self.partial.cells().items() if first.get(cell) != digest]
            if doubtful:
                self.on_event("repair", count=len(doubtful), bytes=sum(end - start for start, end in doubtful))
                self.partial.discard(doubtful)
            else:
                first = self.partial.cells()
                self.start_over(problem)
            self.complete()

    def _has_the_right_tensors(self) -> bool:
        """Hubs record a wrong SHA256 for a few files; their other hashes were computed apart from it."""
        near = self.size is not None and abs(self.partial.size - self.size) <= SIZE_TOLERANCE
        return bool(self.sha256 and self.autov3 and near) and self.partial.autov3() == self.autov3

    def _judge(self, found: str, judge: Verify | None) -> tuple[str | None, str | None]:
        """(what is wrong, or None; by what it was verified)."""
        if self.sha256 is None:
            return (judge(self.partial) if judge else None), None
        if found == self.sha256:
            return None, "SHA256"
        if self.blake3 and self.partial.blake3() == self.blake3:
            self.partial.sha256 = None
            return None, "BLAKE3"
        return "the SHA256 is not the promised one", None

    def _refusal(self, problem: str, found: str, *, again: bool) -> VerificationFailed:
        self.partial.reset()
        detail = f"SHA256 {found[:12]}…, expected {self.sha256[:12]}…" if self.sha256 else problem
        return VerificationFailed(
            f"{self.what} is not what {self.transport.name} promised: {detail}",
            hint="it was fetched again with the same result: the hub's record or its file is wrong"
            if again
            else "every try gave other bytes: something on the way changes them",
            details={"expected": self.sha256, "found": found},
        )


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

    Ctrl-C sets `stop`, which every job was given, waits a moment for them to put away what they have, and goes on up;
    a second Ctrl-C does not wait. The threads are daemons: nothing they hang in can keep the program alive.
    """
    crew = _Crew(list(jobs), on_event, stop or threading.Event())
    try:
        for number in range(min(max(1, parallel), len(crew.jobs))):
            with crew.lock:
                crew.at_work += 1
            threading.Thread(target=crew.work, daemon=True, name=f"hubctl-job-{number}").start()
        while crew.at_work:  # `join` would take an interrupted thread for a finished one
            crew.left.wait(0.2)
            crew.left.clear()
    except BaseException:
        crew.stop.set()
        deadline = time.monotonic() + GRACE_SECONDS
        while crew.at_work and time.monotonic() < deadline:
            crew.left.wait(0.05)
        raise
    if crew.bug is not None:
        raise crew.bug
    return [crew.results[number] for number in range(len(crew.jobs))]


@dataclass
class _Crew:
    jobs: list[Job]
    on_event: OnEvent
    stop: threading.Event
    results: dict[int, Result] = field(default_factory=dict)
    bug: BaseException | None = None
    begun: int = 0
    at_work: int = 0
    left: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self) -> None:
        try:
            self._work()
        finally:
            with self.lock:
                self.at_work -= 1
            self.left.set()

    def _work(self) -> None:
        while (number := self._next()) is not None:
            job = self.jobs[number]
            try:
                self.results[number] = self._one(job)
            except BaseException as error:  # a bug of ours: raised again where it is seen
                self.bug = error
                self.stop.set()
                return

    def _next(self) -> int | None:
        with self.lock:
            self.begun += 1
            return self.begun - 1 if self.begun <= len(self.jobs) else None

    def _one(self, job: Job) -> Result:
        if self.stop.is_set():
            return Result(job.name, error=Stopped(f"{job.name} was not begun"))
        self.on_event("began", name=job.name)
        try:
            result = Result(job.name, job.run(self.stop))
        except KnownError as error:
            result = Result(job.name, error=error)
        self.on_event("ended", name=job.name, error=result.error)
        return result


__all__ = ["Fetched", "Job", "Result", "Stopped", "Tuning", "fetch", "fetch_many"]

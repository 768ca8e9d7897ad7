"""Two limits: bytes per second within a process, API calls per second across all hubctl processes of a machine.

The call budget is a token bucket in one small JSON file (`<folder>/api-budget.json`), guarded by a lock file:

    {"https://civitai.com": {"tokens": 7.5, "at": 1767225600.0, "not_before": 0.0}}

Hubs publish no limit for most routes; two calls a second with a burst of twenty is what they have been seen to accept.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

CALLS_PER_SECOND = 2.0
BURST = 20.0
LONGEST_PAUSE = 3600.0  # seconds; a hub cannot make us wait longer than this with one answer


class RateLimiter:
    """At most `rate` bytes per second over all threads that `take`; None is no limit."""

    def __init__(self, rate: int | None) -> None:
        self.rate = rate or None
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int, stopped: Callable[[float], Any] = time.sleep) -> None:
        """Account for `count` bytes and wait until they are due; `stopped(seconds)` does the waiting."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self.rate
            wait = self._free_at - now - 0.05  # a small debt keeps the stream even
        if wait > 0:
            stopped(wait)


@cache
def shared(rate: int | None) -> RateLimiter:
    """The one limiter of this process for a rate: everything it downloads side by side shares it."""
    return RateLimiter(rate)


class CallBudget:
    """The calls of all hubctl processes to one origin. Without a writable folder there is no shared budget."""

    def __init__(
        self, folder: Path | None, origin: str, *, rate: float = CALLS_PER_SECOND, burst: float = BURST
    ) -> None:
        self._path = folder / "api-budget.json" if folder else None
        self._origin, self._rate, self._burst = origin, rate, burst

    def reserve(self) -> float:
        """Take one call; returns the seconds to wait before making it."""
        return self._change(self._spend)

    def pause(self, seconds: float) -> None:
        """The hub asked for quiet: every process waits that long."""

        def postpone(entry: dict[str, float], now: float) -> float:
            entry["not_before"] = max(entry["not_before"], now + min(seconds, LONGEST_PAUSE))
            return 0.0

        self._change(postpone)

    def _spend(self, entry: dict[str, float], now: float) -> float:
        entry["tokens"] = min(self._burst, entry["tokens"] + max(0.0, now - entry["at"]) * self._rate) - 1
        entry["at"] = now
        return max(entry["not_before"] - now, -entry["tokens"] / self._rate, 0.0)

    def _change(self, change: Callable[[dict[str, float], float], float]) -> float:
        from filelock import FileLock, Timeout

        if self._path is None:
            return 0.0
        with contextlib.suppress(OSError, Timeout):  # a budget is a courtesy: no folder, no budget
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock", timeout=2):
                state = self._read()
                now = time.time()
                entry = self._entry(state.get(self._origin), now)
                wait = change(entry, now)
                state[self._origin] = entry
                temporary = self._path.with_suffix(".new")
                temporary.write_text(json.dumps(state), encoding="utf-8")
                temporary.replace(self._path)
                return wait
        return 0.0

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _entry(self, stored: Any, now: float) -> dict[str, float]:
        """A stored bucket, unless it makes no sense (a clock that jumped, a damaged file)."""
        fresh = {"tokens": self._burst, "at": now, "not_before": 0.0}
        try:
            entry = {name: float(stored[name]) for name in fresh}
        except (TypeError, KeyError, ValueError):
            return fresh
        sane = entry["at"] <= now + 1 and entry["not_before"] <= now + LONGEST_PAUSE and entry["tokens"] > -10_000
        return entry if sane else fresh

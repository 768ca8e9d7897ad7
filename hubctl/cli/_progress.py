"""Progress on stderr: bars on a terminal, silence in a pipe or with -q, JSON lines with `--progress json`.

What a person should know of a download (it went on from where it was, it started over and why, …) is said in words
wherever talk is welcome, bars or not.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hubctl.cli import _flags
from hubctl.text import safe

if TYPE_CHECKING:
    from rich.progress import Progress

KINDS = ("auto", "json", "none")
EVERY_SECONDS = 0.25  # between two JSON lines of one file
SAME_AGAIN_SECONDS = 15.0  # before the same words are said of the same file again


def wanted() -> bool:
    talk = not (_flags.CURRENT.quiet or _flags.CURRENT.json or _flags.driven_by_a_program())
    return talk and sys.stderr.isatty()


def check(kind: str) -> str:
    """A value of --progress. Raises UsageError."""
    if kind not in KINDS:
        from hubctl.errors import UsageError

        raise UsageError(f"--progress cannot be `{kind}`", hint="one of: " + ", ".join(KINDS))
    return kind


def in_words(kind: str, facts: dict[str, Any]) -> str | None:
    """An event of a download as a sentence, when it is worth one."""
    reason, seconds = facts.get("reason", ""), facts.get("seconds") or 0.0
    match kind:
        case "resumed" if facts.get("offset"):
            return f"going on at {_size(facts['offset'])}"
        case "restarted":
            return f"starting over: {reason}"
        case "kept":
            return f"going on: {reason}"
        case "repair":
            count = facts.get("count", 0)
            what = "damaged range is" if count == 1 else "damaged ranges are"
            return f"{count} {what} fetched again ({_size(facts.get('bytes', 0))})"
        case "retry" if seconds >= 1:
            return f"{reason}; trying again in {seconds:.0f} s"
        case "woke":
            return f"this machine slept for {seconds:.0f} s; connecting anew"
        case "waiting":
            return f"process {facts.get('pid')} on {facts.get('host')} is downloading this file: waiting for it"
        case "elsewhere":
            return f"{reason}; asking the next hub"
        case "ended" if getattr(facts.get("error"), "code", None) == "interrupted":
            return str(facts["error"].message)
    return facts.get("message")


def _size(count: float) -> str:
    from hubctl.cli._out import size

    return size(count)


class Downloads:
    """One line a file and one for the whole; fed by `on_bytes(name, done, total)` from any thread."""

    def __init__(self, progress: Progress | None, *, as_json: bool = False, total: int | None = None) -> None:
        self._progress, self._as_json = progress, as_json
        self._lock = threading.Lock()
        self._tasks: dict[str, Any] = {}
        self._done: dict[str, int] = {}
        self._sent: dict[str, float] = {}
        self._said: dict[tuple[str, str], float] = {}
        self._all = progress.add_task("all", total=total) if progress is not None and total else None
        self._total = total

    def on_bytes(self, name: str, done: int, total: int | None) -> None:
        self._done[name] = done
        if self._as_json:
            now = time.monotonic()
            if done == total or now - self._sent.get(name, 0.0) > EVERY_SECONDS:
                self._sent[name] = now
                self._write("progress", {"file": name, "done": done, "total": total})
                if self._total:
                    self._write("overall", {"done": sum(self._done.values()), "total": self._total})
        elif self._progress is not None:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(safe(name), total=total)
            self._progress.update(self._tasks[name], completed=done, total=total)
            if self._all is not None:
                self._progress.update(self._all, completed=sum(self._done.values()))

    def event(self, kind: str, **facts: Any) -> None:
        """A thing that happened: a JSON line, or words."""
        if self._as_json:
            error = facts.get("error")
            self._write(kind, {**facts, "error": error.to_json()} if error is not None else facts)
            return
        name = str(facts.get("file") or "")
        if self._progress is not None and kind == "verifying" and name in self._tasks:
            self._progress.update(self._tasks[name], description=f"{safe(name)} (verifying)")
        if self._progress is not None and kind == "ended" and name in self._tasks and self._all is not None:
            self._progress.update(self._tasks[name], visible=False)  # the line of the whole has it
        if (words := in_words(kind, facts)) and self._is_news(name, words):
            self._say(words if kind == "ended" or not name else f"{name}: {words}")

    def _write(self, kind: str, facts: dict[str, Any]) -> None:
        line = json.dumps({"event": kind, **facts}, ensure_ascii=False, default=str)
        with self._lock:
            sys.stderr.write(line.encode("utf-8", "replace").decode("utf-8") + "\n")
            sys.stderr.flush()

    def _is_news(self, name: str, words: str) -> bool:
        key = (name, words.split(";")[0])
        now = time.monotonic()
        news = now - self._said.get(key, -SAME_AGAIN_SECONDS) >= SAME_AGAIN_SECONDS
        if news:
            self._said[key] = now
        return news

    def _say(self, text: str) -> None:
        from hubctl.cli import _out

        if self._progress is not None:
            self._progress.console.print(safe(text), markup=False, soft_wrap=True)
        else:
            with self._lock:
                _out.say(text)


@contextmanager
def downloads(*, as_json: bool = False, bars: bool = True, total: int | None = None) -> Iterator[Downloads]:
    """Bars for transfers, with speed and time left; `total` adds a line for the whole."""
    if as_json or not bars or not wanted():
        yield Downloads(None, as_json=as_json, total=total)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from hubctl.cli._out import console

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), refresh_per_second=8, transient=True) as progress:
        yield Downloads(progress, total=total)


@contextmanager
def steps(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A counter for work with known length: `tick(done, total, what)`."""
    if not wanted():
        yield lambda done, total, what: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from hubctl.cli._out import console

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), refresh_per_second=8, transient=True) as progress:
        task = progress.add_task(safe(title), total=None)

        def tick(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total or None, description=safe(what or title))

        yield tick


@contextmanager
def busy(title: str) -> Iterator[None]:
    """A spinner while something of unknown length happens."""
    if not wanted():
        yield
        return
    from rich.text import Text

    from hubctl.cli._out import console

    with console(stderr=True).status(Text(safe(title))):
        yield

"""Progress on stderr: bars on a terminal, silence in a pipe or with -q, JSON lines with `--progress json`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hubctl.cli import _flags
from hubctl.text import safe

if TYPE_CHECKING:
    from rich.progress import Progress


def wanted() -> bool:
    talk = not (_flags.CURRENT.quiet or _flags.CURRENT.json or _flags.driven_by_a_program())
    return talk and sys.stderr.isatty()


class Downloads:
    """One line a file and one for the whole; fed by `on_bytes(name, done, total)` from any thread."""

    def __init__(self, progress: Progress | None, *, as_json: bool = False) -> None:
        self._progress = progress
        self._as_json = as_json
        self._tasks: dict[str, Any] = {}
        self._sent: dict[str, float] = {}

    def on_bytes(self, name: str, done: int, total: int | None) -> None:
        if self._as_json:
            now = time.monotonic()
            if done == total or now - self._sent.get(name, 0.0) > 0.25:
                self._sent[name] = now
                self.event("progress", file=name, done=done, total=total)
        elif self._progress is not None:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(safe(name), total=total)
            self._progress.update(self._tasks[name], completed=done, total=total)

    def event(self, kind: str, **facts: Any) -> None:
        """A thing that happened, as a JSON line; shown as talk on a terminal."""
        if self._as_json:
            sys.stderr.write(json.dumps({"event": kind, **facts}, ensure_ascii=False, default=str) + "\n")
            sys.stderr.flush()
        elif self._progress is not None and "message" in facts:
            self._progress.console.print(safe(facts["message"]), markup=False)


@contextmanager
def downloads(*, as_json: bool = False) -> Iterator[Downloads]:
    """Bars for transfers, with speed and time left."""
    if as_json or not wanted():
        yield Downloads(None, as_json=as_json)
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
        yield Downloads(progress)


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

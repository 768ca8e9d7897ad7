"""A page of a command that describes one thing: headings, paragraphs, small tables, all below one margin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from hubctl.cli import _out
from hubctl.text import safe, wrap

WIDEST = 100  # columns of prose; longer lines are hard to read
MARGIN = 2


def columns() -> int:
    return _out.console().width


def heading(text: str) -> None:
    """A line that stands out; bold where the terminal can."""
    from rich.text import Text

    for line in wrap(safe(text), columns()):
        _out.console().print(Text(line, style="bold"), soft_wrap=True)


def section(title: str) -> None:
    _out.line()
    heading(title)


def paragraph(text: str, *, indent: int = 0) -> None:
    for line in wrap(safe(text), min(columns(), WIDEST) - indent):
        _out.line(" " * indent + line)


def prose(text: str, *, limit: int | None = None) -> int:
    """Several lines below the margin, wrapped; returns how many were left out."""
    width = min(columns(), WIDEST) - MARGIN
    lines = [part for line in text.splitlines() for part in wrap(line, width)]
    if limit is not None and len(lines) <= limit + 3:  # nobody wants to be told of two more lines
        limit = None
    shown = lines[:limit]
    while shown and not shown[-1].strip():
        shown.pop()
    for line in shown:
        _out.line((" " * MARGIN + line).rstrip())
    return len(lines) - len(shown)


def pairs(rows: Iterable[tuple[str, str]], *, wrapped: bool = False) -> None:
    """Name and value. What is to be pasted stays one line; with `wrapped` a value may take several."""
    given = [(name, value) for name, value in rows if value]
    widest = max((len(name) for name, _ in given), default=0)
    room = max(20, min(columns(), WIDEST) - MARGIN - widest - 2)
    for name, value in given:
        for index, part in enumerate(wrap(safe(value), room) if wrapped else [value]):
            _out.line(f"{' ' * MARGIN}{name if index == 0 else '':<{widest}}  {part}")


def table(headings: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[Any]]) -> None:
    """A quiet table below the margin; columns nobody filled are left out."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    cells = [["" if cell is None else safe(str(cell)) for cell in row] for row in rows]
    used = [i for i in range(len(headings)) if any(row[i] not in ("", "–") for row in cells)]
    grid = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for i in used:
        heading_of = headings[i]
        name, justify = heading_of if isinstance(heading_of, tuple) else (heading_of, "left")
        grid.add_column(name, justify="right" if justify == _out.NUMBER else "left", overflow="fold")
    for row in cells:
        grid.add_row(*(Text(row[i]) for i in used))
    console = _out.console()
    with console.capture() as drawn:
        console.print(Padding(grid, (0, 0, 0, MARGIN)))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))

"""What a person or a script reads: tables and JSON on stdout, talk on stderr.

Names from strangers are data: they are shown as plain text (never as markup), control characters are removed.
"""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubctl.cli import _flags
from hubctl.text import safe

if TYPE_CHECKING:
    from rich.console import Console

    from hubctl.errors import KnownError

NUMBER = "right"
PIPED = 1_000  # columns of a table that no terminal shows
GAP = 3  # columns between two columns of a table


def plain_terminal() -> bool:
    """Whether colour is unwelcome: NO_COLOR, TERM=dumb, or a program that runs us."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or _flags.driven_by_a_program()


def console(stderr: bool = False, *, piped: int = 160) -> Console:
    """A rich console on one of the two streams, `piped` columns wide where no terminal shows it."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else piped
    return Console(file=stream, no_color=plain_terminal() or None, highlight=False, soft_wrap=False, width=width)


def document(schema: str, data: Mapping[str, Any]) -> None:
    """The one JSON document of a `--json` run; `schema` names its shape and version."""
    text = json_module.dumps({"schema": f"hubctl.{schema}/1", **data}, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write(text.encode("utf-8", "replace").decode("utf-8") + "\n")


def document_of(schema: str, data: Mapping[str, Any], name: str, rows: Iterable[Any]) -> None:
    """A document whose last key is a list, written row by row: it may be longer than memory is."""
    head = json_module.dumps({"schema": f"hubctl.{schema}/1", **data}, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write(f"{_encodable(head[:-2])},\n  {json_module.dumps(name)}: [")
    between = "\n"
    for row in rows:
        text = json_module.dumps(row, ensure_ascii=False, default=str)
        sys.stdout.write(f"{between}    {_encodable(text)}")
        between = ",\n"
    sys.stdout.write("\n  ]\n}\n" if between != "\n" else "]\n}\n")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def line(text: str = "") -> None:
    """One line of data on stdout."""
    sys.stdout.write(safe(text) + "\n")


def say(text: str) -> None:
    """Talk: one line on stderr, with blank ones around it if asked; silent with -q or --json.

    A line break inside is somebody's name for a thing: it makes no line of its own.
    """
    if not (_flags.CURRENT.quiet or _flags.CURRENT.json):
        line = text.strip("\n")
        before = len(text) - len(text.lstrip("\n"))
        after = len(text) - before - len(line)
        sys.stderr.write("\n" * before + safe(line) + "\n" * (after + 1))


def warn(text: str) -> None:
    """Something a person should know but that stops nothing; silent only with --json."""
    if not _flags.CURRENT.json:
        _styled("warning", "yellow", text)


def hint(text: str) -> None:
    if not (_flags.CURRENT.quiet or _flags.CURRENT.json):
        _styled("hint", "cyan", text)


def _styled(label: str, style: str, text: str) -> None:
    if sys.stderr.isatty() and not plain_terminal():
        from rich.text import Text

        console(stderr=True).print(Text.assemble((label, f"bold {style}"), ": ", safe(text)), soft_wrap=True)
    else:
        sys.stderr.write(f"{label}: {safe(text)}\n")


def error(problem: KnownError) -> None:
    """A refusal: sentence and hint on stderr; with --json also the error object on stdout."""
    if _flags.CURRENT.json:
        document("error", {"error": problem.to_json()})
        return
    _styled("error", "red", problem.message)
    for candidate in problem.details.get("candidates", ()):
        sys.stderr.write(f"  {safe(str(candidate))}\n")
    if problem.hint:
        sys.stderr.write("\n")
        _styled("hint", "cyan", problem.hint)


def table(
    columns: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[Any]], *, spare: Sequence[str] = ()
) -> None:
    """A table on stdout. A column is a heading, or (heading, "right") for figures.

    On a narrow terminal the columns in `spare` are left out, the first first, before any word has to be broken.
    Without a terminal a row is a line, however long.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    pairs = [column if isinstance(column, tuple) else (column, "left") for column in columns]
    cells = [[cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row] for row in rows]
    screen = console(piped=PIPED)
    widths = _fit(pairs, cells, screen.width, spare)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, width in widths.items():
        name, justify = pairs[i]
        grid.add_column(name, justify="right" if justify == NUMBER else "left", overflow="fold", width=width)
    for row in cells:
        grid.add_row(*(row[i] for i in widths))
    with screen.capture() as drawn:
        screen.print(grid)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))


def _fit(pairs: Sequence[tuple[str, str]], cells: Sequence[Any], room: int, spare: Sequence[str]) -> dict[int, int]:
    """The columns that are shown, by their place, and how wide each is: as wide as its content where all fit, else
    narrower, the widest first. Figures and words stay whole for as long as there are columns to spare."""
    natural, least = {}, {}
    for i, (name, justify) in enumerate(pairs):
        content = [name, *(row[i].plain for row in cells)]
        natural[i] = min(room, max(_widest(text.split("\n")) for text in content))
        words = min(natural[i], max(8, room // 2), max(_widest(text.split()) for text in content))
        least[i] = natural[i] if justify == NUMBER else words
    for name in spare:
        if sum(least.values()) + GAP * (len(least) - 1) <= room:
            break
        del least[[head for head, _ in pairs].index(name)]
    widths = {i: natural[i] for i in least}
    for _ in range(sum(widths.values()) + GAP * (len(widths) - 1) - room):
        able = [i for i in widths if widths[i] > least[i]] or [i for i in widths if widths[i] > 1]
        if able:
            widths[max(able, key=lambda i: widths[i])] -= 1
    return widths


def _widest(parts: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, parts), default=0)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Name and value, one pair a line; pairs without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", [], ()):
            grid.add_row(name, value if isinstance(value, Text) else Text(_cell(value)))
    console().print(grid)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(safe(str(item)) for item in value)
    return safe(str(value))


def size(count: float | None) -> str:
    """Bytes for a person, decimal units as disks are sold: `6.9 GB`."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(count: int | None) -> str:
    """1234567 → `1.2M`, 3468800000 → `3.5B`."""
    if count is None:
        return "–"
    for limit, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if abs(count) >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


def plural(count: int, noun: str, many: str | None = None) -> str:
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def confirm(question: str) -> bool:
    """Ask yes or no. --yes answers; where nobody can be asked the answer is a UsageError, never a silent yes."""
    from hubctl.errors import UsageError

    if _flags.CURRENT.yes:
        return True
    if not _flags.interactive():
        raise UsageError(f"this needs an answer: {question}", hint="pass --yes to agree, or --dry-run to only look")
    sys.stderr.write(f"{safe(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def choose(question: str, options: Sequence[str]) -> int | None:
    """Let a person pick one of several on a terminal; None where nobody can be asked or nothing was picked."""
    if not _flags.interactive():
        return None
    for index, option in enumerate(options, start=1):
        sys.stderr.write(f"  {index:2d}  {safe(option)}\n")
    sys.stderr.write(f"{safe(question)} [1-{len(options)}] ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    return int(answer) - 1 if answer.isdigit() and 1 <= int(answer) <= len(options) else None

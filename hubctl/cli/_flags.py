"""The options every command takes, before and after its name."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

BARE = ("json", "quiet", "verbose", "yes", "no_input", "offline")


@dataclass
class Flags:
    """What was given on this command line, from either side of the command's name."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    yes: bool = False
    no_input: bool = False
    offline: bool = False
    home: str | None = None
    hub: str | None = None
    given: dict[str, Any] = field(default_factory=dict)  # what `config.load` takes
    loaded: Any = None  # what it made of them, see `_app.settings`


CURRENT = Flags()


def reset() -> None:
    """Forget the previous command line (a test, or a program that calls `main` twice)."""
    CURRENT.__init__()  # type: ignore[misc]


def _remember(context: typer.Context, param: Any, value: Any) -> Any:  # noqa: ARG001 - typer passes three
    if value:
        name = param.name
        setattr(CURRENT, name, value)
        if name in {"offline", "home", "hub"}:
            CURRENT.given[name] = value
    return value


def _option(*names: str, help: str, **more: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, callback=_remember, expose_value=False, is_eager=True, **more)


def _shared(
    json: Annotated[bool, _option("--json", help="One JSON document on stdout, nothing else there")] = False,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Only the essential: ids or paths, no talk")] = False,
    verbose: Annotated[bool, _option("--verbose", "-v", help="Say more, with a log on stderr")] = False,
    yes: Annotated[bool, _option("--yes", "-y", help="Answer yes to every question")] = False,
    no_input: Annotated[bool, _option("--no-input", help="Never ask; refuse what would need an answer")] = False,
    offline: Annotated[bool, _option("--offline", help="Use only what is here")] = False,
    home: Annotated[str | None, _option("--home", metavar="DIR", help="Where hubctl keeps its library")] = None,
    hub: Annotated[str | None, _option("--hub", metavar="NAME|URL", help="Which hub to ask")] = None,
) -> None:
    """Holds the options; never called."""


def options() -> list[Any]:
    """Fresh parameter objects for one command."""
    holder = typer.Typer(add_completion=False)
    holder.command()(_shared)
    command: Any = typer.main.get_command(holder)
    return list(command.params)


def driven_by_a_program() -> bool:
    """Whether an agent runs us on a terminal of its own: no colour, no spinner, no question then."""
    return any(os.environ.get(name) for name in ("AI_AGENT", "AGENT", "CLAUDECODE"))


def interactive() -> bool:
    """Whether a question can be asked: a terminal on both ends, a person there, and nobody forbade it."""
    forbidden = CURRENT.no_input or CURRENT.json or driven_by_a_program()
    return not forbidden and sys.stdin.isatty() and sys.stderr.isatty()

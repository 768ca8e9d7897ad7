"""The command line: a table of names, loaded when typed; every refusal becomes a sentence, a hint and an exit status.

A command lives in `hubctl.cli.<name>` and is imported only when it runs, so that `--help` and shell completion stay
fast. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from hubctl.cli import _flags

# name: (module:function or module:app, one line of help); sections in the order a newcomer needs them
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Find and get": {
        "search": ("hubctl.cli.search:search", "Find models on a hub, or here with --local"),
        "show": ("hubctl.cli.show:show", "One model: files, trigger words, recommended settings"),
        "images": ("hubctl.cli.images:images", "Example images of a model and how they were made"),
        "install": ("hubctl.cli.install:install", "Download, verify and place models"),
    },
    "Make pictures": {
        "reproduce": ("hubctl.cli.reproduce:reproduce", "Replay an example image and show how close it is"),
        "generate": ("hubctl.cli.generate:generate", "Make a picture with a model's recommended settings"),
        "inspect": ("hubctl.cli.inspect:inspect", "What a picture or model file says about itself"),
        "recommend": ("hubctl.cli.recommend:recommend", "Recommended settings and where they come from"),
        "runs": ("hubctl.cli.runs:runs", "Pictures made here, newest first"),
    },
    "Your library": {
        "list": ("hubctl.cli.list:list_", "What is installed"),
        "path": ("hubctl.cli.path:path", "Where an installed file is"),
        "adopt": ("hubctl.cli.adopt:adopt", "Take over models that are already on disk, without copying"),
        "link": ("hubctl.cli.link:app", "Show what is installed in ComfyUI, A1111, Forge and others"),
        "note": ("hubctl.cli.note:note", "Your own note, trigger words and weight for a model"),
        "tag": ("hubctl.cli.tag:tag", "Your own tags, favourites among them"),
        "outdated": ("hubctl.cli.outdated:outdated", "Which models have something newer on the hub"),
        "update": ("hubctl.cli.update:update", "Get what is newer"),
        "rm": ("hubctl.cli.rm:rm", "Remove installed models"),
        "du": ("hubctl.cli.du:du", "Where the disk space went"),
        "prune": ("hubctl.cli.prune:prune", "Free disk space, after showing what would go and why"),
        "trash": ("hubctl.cli.trash:app", "Bring removed models back, or delete them for good"),
        "pin": ("hubctl.cli.pin:pin", "Keep models: prune never takes them"),
        "unpin": ("hubctl.cli.pin:unpin", "Let prune take them again"),
        "verify": ("hubctl.cli.verify:verify", "Check that files, links and index are what they should be"),
        "reindex": ("hubctl.cli.reindex:reindex", "Rebuild the index from the manifests"),
    },
    "Projects": {
        "add": ("hubctl.cli.add:add", "Say that this project needs a model, and lock it"),
        "lock": ("hubctl.cli.lock:lock", "Write down exactly which files the project needs"),
        "sync": ("hubctl.cli.sync:sync", "Make this machine have what the lock names"),
        "export": ("hubctl.cli.export:export", "A set of models as a list, credits, a lock, or a UI's folders"),
    },
    "Hubs and setup": {
        "demo": ("hubctl.cli.demo:demo", "See it all work on a small hub of your own, without a network"),
        "serve": ("hubctl.cli.serve:serve", "Offer this library as a hub to other machines"),
        "login": ("hubctl.cli.login:login", "Store an API key for a hub"),
        "logout": ("hubctl.cli.login:logout", "Forget the API key of a hub"),
        "whoami": ("hubctl.cli.login:whoami", "Which account the key belongs to"),
        "config": ("hubctl.cli.config:app", "Show settings and where each value came from; change them"),
        "doctor": ("hubctl.cli.doctor:doctor", "Check the environment, disk, devices, hub and index"),
    },
}
INTERRUPTED = 130
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(typer.core.TyperGroup):
    """Commands are strings until one is typed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]  # not list(): importing hubctl.cli.list puts another `list` here

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from hubctl.errors import UsageError

            raise UsageError(f"there is no command `{args[0]}`", hint=_did_you_mean(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, help_text) for name, (_, help_text) in commands.items()])


def load(name: str) -> Any:
    """Import one command and give it the options every command takes."""
    from importlib import import_module

    where, help_text = COMMANDS[name]
    module_name, attribute = where.split(":")
    found = getattr(import_module(module_name), attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_command(found)
    else:
        holder = typer.Typer(add_completion=False, rich_markup_mode=None)
        holder.command(name)(found)
        command = typer.main.get_command(holder)
    command.name = name
    command.short_help = help_text
    _add_shared_options(command)
    return command


def _add_shared_options(command: Any) -> None:
    command.params.extend(_flags.options())
    for inner in getattr(command, "commands", {}).values():
        _add_shared_options(inner)


def _did_you_mean(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "`hubctl --help` lists them"


def _print_version(value: bool) -> None:
    if value:
        from hubctl import __version__

        typer.echo(f"hubctl {__version__}")
        raise typer.Exit


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def hubctl(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Search, install and reproduce: models for Stable Diffusion and its successors.

    Start with `hubctl demo`. `hubctl COMMAND --help` has an example for each.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: runs one command line and exits with its status."""
    _open_closed_streams()
    status = run(sys.argv[1:] if argv is None else argv)
    if status == INTERRUPTED:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
    raise SystemExit(status)


def _open_closed_streams() -> None:
    """`hubctl list >&-`: nobody reads, and the next file opened (the index) must not become its standard output."""
    import os

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:  # the lowest that is free
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def run(argv: Sequence[str]) -> int:
    """Run one command line; every known refusal is printed and becomes its exit status."""
    from hubctl.errors import KnownError

    _flags.reset()
    command: Any = typer.main.get_command(app)
    command.params.extend(_flags.options())
    try:
        status = command.main([*argv], prog_name="hubctl", standalone_mode=False)
        if status == INTERRUPTED:  # the parser makes a Ctrl-C into this
            return _interrupted()
        return status if isinstance(status, int) else 0
    except KnownError as error:
        return _report(error, argv)
    except typer.Abort:  # somebody was asked and said no
        sys.stderr.write("nothing was done\n")
        return INTERRUPTED
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # `hubctl list | head`: the reader has what it wanted
        sys.stderr.close()
        return 0
    except OSError as error:
        return _report(_from_os(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own usage errors
            return _usage(error, argv)
        raise


def _report(error: Any, argv: Sequence[str] = ()) -> int:
    from hubctl.cli import _out

    hub = _flags.CURRENT.hub
    if (
        error.hint and hub and re.fullmatch(r"[\w.-]+|https?://[\w.:\[\]-]+/?", hub)
    ):  # a key is stored for the settings' hub, unless another is named
        error.hint = error.hint.replace("`hubctl login`", f"`hubctl login {hub}`")
    if error.code == "usage":  # maybe nobody has read as far as --json
        _flags.CURRENT.json |= "--json" in argv[: argv.index("--") if "--" in argv else len(argv)]
    _out.error(error)
    return int(error.exit_code)


def _usage(error: Any, argv: Sequence[str]) -> int:
    from hubctl.errors import UsageError

    context = getattr(error, "ctx", None)
    name = getattr(context, "command_path", "hubctl")
    return _report(UsageError(error.format_message().rstrip("."), hint=f"`{name} --help` shows how it is used"), argv)


def _interrupted() -> int:
    sys.stderr.write("\ninterrupted: what was done so far is kept; the same command continues\n")
    return INTERRUPTED


def _from_os(error: OSError) -> Any:
    """An operating-system error nobody gave a better name, as a sentence."""
    import errno

    from hubctl.errors import NoPermission, NoSpace, NotFound

    what = f"`{error.filename}`" if error.filename else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"the disk is full: {what} could not be written")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NoPermission(
            f"{what} may not be used: {error.strerror}", hint="check who owns it, or choose another folder with --home"
        )
    if error.errno == errno.ENOENT:
        return NotFound(f"{what} does not exist")
    return NoPermission(f"{what}: {error.strerror or error}", hint="run `hubctl doctor`; -v shows more")

"""hubctl demo: the whole journey on a small hub of your own, without a network."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out, _progress

STORY = "thanos"


def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Leave the hub up and print how to explore it")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="For the demo hub; 0 = any free one")] = 0,
) -> None:
    """Search, show, install and reproduce on a small hub of your own. No network but loopback.

    Everything happens in folders of its own inside the library's home; your own library is not touched.

    Example: hubctl demo    or    hubctl demo --serve
    """
    from hubctl.demo import build
    from registry import Registry
    from registry.http import RegistryCatalog, create_app, running

    base = _app.settings().home / "demo"
    hub_home, user_home = base / "hub", base / "home"
    with _progress.busy("making the demo hub"):
        build(hub_home)
    with Registry.open(hub_home, read_only=True) as registry:
        app = create_app(RegistryCatalog(registry))
        with running(app, port=port) as url:
            if serve:
                _wait(url, user_home)
                return
            with _environment(url, user_home) as environment:
                _walk(environment)


def _wait(url: str, user_home: Path) -> None:
    import threading

    _out.line(f"export HUBCTL_HUB={url}")
    _out.line(f"export HUBCTL_HOME={shlex.quote(str(user_home))}")
    _out.say("\nthe demo hub is up; in another terminal, paste the two lines above and try:")
    for command in (f"search {STORY}", "search", "install 4201", "images 4201", "doctor"):
        _out.say(f"  hubctl {command}")
    _out.say("Ctrl-C stops the hub")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    _out.say("stopped")


@contextmanager
def _environment(url: str, user_home: Path) -> Iterator[dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HUBCTL_", "CIVITAI_"))}
    yield {
        **kept,
        "HUBCTL_HUB": url,
        "HUBCTL_HOME": str(user_home),
        "HUBCTL_CONFIG": str(user_home / "config.toml"),
        "COLUMNS": kept.get("COLUMNS", "") or str(_width()),
        "PYTHONUNBUFFERED": "1",  # so that tables and talk come in the order they were said
    }


def _width() -> int:
    import shutil

    return max(100, min(160, shutil.get_terminal_size((120, 24)).columns))


def _walk(environment: dict[str, str]) -> None:
    """Run each command as a person would type it and show its real output."""
    from hubctl.demo.catalog import STORY_CHECKPOINT, STORY_EMBEDDING, STORY_IMAGE, STORY_LORA

    chapters = (
        ("Find a LoRA by a word", ["search", "--type", "lora", STORY]),
        ("Look closer", ["show", str(STORY_LORA)]),
        ("See what others made with it, and how", ["images", str(STORY_LORA), "--limit", "6"]),
        (
            "Get it, with the checkpoint and an embedding: verified, and only once on this disk",
            ["install", str(STORY_LORA), str(STORY_CHECKPOINT), str(STORY_EMBEDDING)],
        ),
        ("Replay an example image: same settings, same picture", ["reproduce", str(STORY_IMAGE), "--yes"]),
        (
            "The same look with your own subject",
            ["reproduce", str(STORY_IMAGE), "--yes", "--prompt", "thnos wizard robe, space"],
        ),
        ("What is here now", ["list"]),
    )
    for title, argv in chapters:
        _out.say(f"\n── {title}")
        _out.say(f"$ hubctl {shlex.join(argv)}\n")
        _run(argv, environment)
    pictures = _pictures(Path(environment["HUBCTL_HOME"]))
    compare = next((path for path in pictures if path.endswith("-compare.png")), None)
    if _flags.CURRENT.json:
        _out.document("demo", {"pictures": pictures, "compare": compare, "home": environment["HUBCTL_HOME"]})
        return
    _out.say("\n── Look at it")
    for path in pictures:
        _out.line(path)
    _show(compare)
    _out.say("\nexplore by hand with `hubctl demo --serve`, or use a real hub: `hubctl search`, `hubctl login`")


def _run(argv: list[str], environment: dict[str, str]) -> None:
    """One command in a process of its own, as a person would run it: on our terminal, unless we are to be silent."""
    silent = subprocess.DEVNULL if _flags.CURRENT.json or _flags.CURRENT.quiet else None
    sys.stdout.flush()
    sys.stderr.flush()
    done = subprocess.run(  # noqa: S603 - our own interpreter and our own commands
        [sys.executable, "-m", "hubctl", *argv],
        env=environment,
        stdout=silent or sys.stderr,
        stderr=silent,
        check=False,
    )
    if done.returncode != 0:
        raise typer.Exit(done.returncode)


def _pictures(home: Path) -> list[str]:
    """What the walk made, oldest first, each with its comparison."""
    from registry import Registry

    with Registry.open(home, read_only=True) as registry:
        made = [Path(run.output) for run in registry.runs(2)]
    both = [path for run in reversed(made) for path in (run, run.with_name(f"{run.stem}-compare.png"))]
    return [str(path) for path in both if path.exists()]


def _show(path: str | None) -> None:
    """Open the comparison where there is a desktop to open it on."""
    if path is None or not _flags.interactive():
        return
    opener = {"darwin": "open", "win32": "explorer"}.get(sys.platform)
    if opener is None and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        opener = "xdg-open"
    if opener:
        with suppress(OSError):
            subprocess.Popen([opener, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603

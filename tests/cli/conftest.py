"""The command line, run in this process against a real demo hub on loopback; and in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Outcome:
    """What one command line came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo hub's own library, built once."""
    from hubctl.demo import build

    home = tmp_path_factory.mktemp("demo") / "hub"
    build(home)
    return home


@pytest.fixture(scope="session")
def demo_hub(demo_home: Path) -> Iterator[str]:
    """The URL of a demo hub that answers on loopback."""
    from registry import Registry
    from registry.http import RegistryCatalog, create_app, running

    with Registry.open(demo_home, read_only=True) as registry, running(create_app(RegistryCatalog(registry))) as url:
        yield url


@pytest.fixture
def hubctl(home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process: `hubctl("list", "--json")`. Its home is the test's own."""
    from hubctl.cli import run

    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*argv: object, status: int | None = 0) -> Outcome:
        capfd.readouterr()
        try:
            code = run([str(arg) for arg in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        outcome = Outcome(code, captured.out, captured.err)
        assert "Traceback" not in outcome.err
        assert status is None or code == status, f"exit {code}: {outcome.err}{outcome.out}"
        return outcome

    return call


@pytest.fixture
def on_demo(hubctl: Run, demo_hub: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`hubctl`, with the demo hub as its hub."""
    monkeypatch.setenv("HUBCTL_HUB", demo_hub)
    return hubctl


@pytest.fixture
def process(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A command line in a process of its own; `joined` has both streams in `stdout`, as a terminal has."""

    def call(*argv: object, joined: bool = False, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hubctl", *map(str, argv)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT if joined else subprocess.PIPE, text=True, timeout=240,
            check=False, **more,
        )  # fmt: skip

    return call

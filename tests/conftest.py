"""Fixtures everybody shares. Nothing here may reach past loopback: `pytest-socket` refuses other hosts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a busy machine fails no property
SHARED = Path(os.environ.get("HUBCTL_SHARED", Path(__file__).resolve().parents[2] / "shared"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with & by a shell: our children would not hear of Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup() -> None:
    from pytest_socket import socket_allow_hosts

    socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded samples beside the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the recorded samples in {SHARED} (set HUBCTL_SHARED)")
    return SHARED


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hubctl home, cut off from the developer's own configuration and tokens."""
    for name in list(os.environ):
        if name.startswith(("HUBCTL_", "CIVITAI_", "HF_")) and name != "HUBCTL_SHARED":
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("HUBCTL_HOME", str(folder))
    monkeypatch.setenv("HUBCTL_CONFIG", str(tmp_path / "config.toml"))
    return folder

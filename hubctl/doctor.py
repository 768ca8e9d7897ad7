"""Is everything well? Each check is a name, a verdict and, when it is not good, the fix."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hubctl import install, tokens
from hubctl.config import Settings
from hubctl.errors import KnownError

Verdict = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Check:
    name: str
    verdict: Verdict
    found: str
    fix: str | None = None


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, cheap ones first; none of them changes anything."""
    yield _python()
    yield from _packages()
    yield _sqlite()
    yield from _disk(settings)
    yield from _index(settings)
    yield from _hubs(settings)
    yield from _devices()


def _python() -> Check:
    from hubctl import __version__

    return Check("hubctl", "good", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")


def _packages() -> Iterator[Check]:
    missing = [
        name for name in ("torch", "diffusers", "transformers", "peft") if importlib.util.find_spec(name) is None
    ]
    if missing:
        yield Check(
            "runner", "bad", "missing: " + ", ".join(missing), "install hubctl again: `pip install .` in its checkout"
        )
    optional = {"spandrel": "ESRGAN upscalers (`upscale` extra)", "keyring": "keys in the keyring (`keyring` extra)"}
    absent = [text for name, text in optional.items() if importlib.util.find_spec(name) is None]
    if absent:
        yield Check("optional", "note", "not installed: " + "; ".join(absent))


def _sqlite() -> Check:
    with sqlite3.connect(":memory:") as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE probe USING fts5(text)")
        except sqlite3.OperationalError:
            return Check(
                "SQLite", "bad", f"{sqlite3.sqlite_version} without FTS5", "use a Python whose SQLite has FTS5"
            )
    return Check("SQLite", "good", f"{sqlite3.sqlite_version} with FTS5")


def _disk(settings: Settings) -> Iterator[Check]:
    home = settings.home
    existing = home
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    verdict: Verdict = "good" if free > 20e9 else "note"
    fix = None if verdict == "good" else "`hubctl prune --dry-run` shows what could go"
    yield Check("disk", verdict, f"{free / 1e9:.1f} GB free in {home}", fix)
    if not os.access(existing, os.W_OK):
        yield Check("home", "bad", f"{existing} is not writable", "choose another with --home or HUBCTL_HOME")
    elif home.exists() and not _can_hardlink(home):
        yield Check("links", "note", "no hardlinks here: files are linked by symlink or copied")


def _can_hardlink(home: Path) -> bool:
    probe, other = home / ".probe", home / ".probe-link"
    try:
        probe.touch()
        os.link(probe, other)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
    return True


def _index(settings: Settings) -> Iterator[Check]:
    from registry import Registry

    if not settings.home.exists():
        yield Check("library", "note", "empty: it is made with the first install")
        return
    try:
        with Registry.open(settings.home, read_only=True) as registry:
            problems = registry.check()
    except KnownError as error:
        yield Check("library", "bad", error.message, error.hint)
        return
    if problems:
        yield Check("library", "bad", "; ".join(problems[:3]), "`hubctl reindex` rebuilds the index from the manifests")
    else:
        yield Check("library", "good", f"{settings.home}: index and manifests agree")


def _hubs(settings: Settings) -> Iterator[Check]:
    for name in settings.hub_names:
        try:
            url = settings.hub_url(name)
        except KnownError as error:
            yield Check(f"hub {name}", "bad", error.message, error.hint)
            continue
        token = tokens.find(url, settings.config_path)
        label = "hub" if "://" in name else f"hub {name}"
        if settings.offline:
            yield Check(label, "note", f"{url}: not asked (--offline)")
            continue
        try:
            with install.open_hub(settings, name=name) as hub:
                hub.enums()
                account = hub.me() if token else None
        except KnownError as error:
            yield Check(label, "bad", f"{url}: {error.message}", error.hint)
            continue
        if account:
            found = (
                f"{url} answers; key from {token.source if token else '?'} belongs to {account.get('username', '?')}"
            )
            yield Check(label, "good", found)
        else:
            yield Check(label, "note", f"{url} answers; no API key", "downloads may need one: `hubctl login`")


def _devices() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        return
    from hubctl.run import devices

    for found in devices.describe():
        yield Check("device", "good", found)
    if sys.platform == "linux" and not devices.has_gpu():
        yield Check("device", "note", "no GPU found: pictures are made on the processor, which is slow at full size")

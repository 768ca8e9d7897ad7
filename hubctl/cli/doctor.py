"""hubctl doctor: is everything well?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from hubctl.cli import _app, _flags, _out, _progress

MARKS = {"good": "✓", "note": "·", "bad": "✗"}


def doctor() -> None:
    """Check the environment, disk, devices, hub and index: each line good, or with the fix.

    Example: hubctl doctor
    """
    from hubctl.doctor import examine

    with _progress.busy("looking around"):
        checks = list(examine(_app.settings()))
    bad = any(check.verdict == "bad" for check in checks)
    if _flags.CURRENT.json:
        _out.document("doctor", {"checks": [asdict(check) for check in checks], "good": not bad})
    else:
        for check in checks:
            _out.line(f"{MARKS[check.verdict]} {check.name}: {check.found}")
            if check.fix and check.verdict != "good":
                _out.line(f"    fix: {check.fix}")
    if bad:
        raise typer.Exit(1)

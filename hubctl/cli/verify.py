"""hubctl verify: whether what is here still holds what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress

if TYPE_CHECKING:
    from registry import Registry
    from registry.verify import Problem, Verdict


def verify(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF...", help="Only these (default: everything installed)")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Read every byte, not only of files that changed")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be; download again what is bad")] = False,
) -> None:
    """Check bytes, headers, links and the index. Files whose time and size did not move are taken as unchanged.

    Example: hubctl verify --repair
    """
    from hubctl.errors import VerificationFailed
    from hubctl.reproduce import installed_one
    from registry import verify as checking

    with _open(repair) as registry:
        keys = [(i.source, i.version_id) for ref in refs or () for i in [installed_one(ref, registry)]] or None
        with _progress.downloads() as bars:
            verdict = checking.check(registry, keys, every=all_, on_bytes=bars.on_bytes)
        fixed: list[Problem] = []
        left = list(verdict.problems)
        if repair and left:
            fixed, left = _repair(registry, left)
    if _flags.CURRENT.json:
        _out.document(
            "verify",
            {
                "versions": verdict.versions,
                "files": verdict.blobs,
                "hashed": verdict.hashed,
                "hashed_bytes": verdict.hashed_bytes,
                "problems": [problem.to_json() for problem in left],
                "repaired": [problem.to_json() for problem in fixed],
            },
        )
        if left:
            raise typer.Exit(VerificationFailed.exit_code)
        return
    _show(verdict, fixed, left)
    if left:
        again = "`hubctl verify --repair` puts right what can be" if not repair else left_hint(left)
        raise VerificationFailed(f"{_out.plural(len(left), 'problem')} found", hint=again)


def _open(repair: bool) -> Registry:
    """The library, to write down what was verified; a home that cannot be written can be looked at all the same."""
    from hubctl.errors import NoPermission, NoSpace

    try:
        return _app.open_registry()
    except (NoPermission, NoSpace):
        if repair:
            raise
        return _app.open_registry(read_only=True)


def left_hint(left: list[Problem]) -> str:
    refs = " ".join(dict.fromkeys(problem.ref for problem in left if problem.ref))
    return f"`hubctl rm {refs}` and install again, or ask another hub with --hub" if refs else "`hubctl doctor`"


def _show(verdict: Verdict, fixed: list[Problem], left: list[Problem]) -> None:
    for problem in left:
        _out.line(problem.message)
    for problem in fixed:
        _out.say(f"✓ repaired: {problem.message}")
    read = f"{_out.plural(verdict.hashed, 'file')} read ({_out.size(verdict.hashed_bytes)})" if verdict.hashed else ""
    gone = {problem.sha256 for problem in (*fixed, *left) if problem.kind == "missing"}
    unchanged = verdict.blobs - verdict.hashed - len(gone)
    parts = [part for part in (read, f"{unchanged} unchanged since they were verified" if unchanged else "") if part]
    if not left:
        _out.say(
            f"✓ {_out.plural(verdict.versions, 'version')} as they should be"
            + (f": {', '.join(parts)}" if parts else "")
        )


def _repair(registry: Registry, problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Mend what needs no hub, then fetch bad bytes again; returns (repaired, left)."""
    from registry import verify as checking

    fixed, fetch = checking.mend(registry, problems)
    told = {(problem.kind, problem.sha256, problem.path) for problem in (*fixed, *fetch)}
    left = [problem for problem in problems if (problem.kind, problem.sha256, problem.path) not in told]
    done: set[str] = set()
    for problem in fetch:
        if problem.sha256 not in done and _fetch(registry, problem):
            checking.restored(registry, problem.sha256)
            done.add(problem.sha256)
        if problem.sha256 in done:
            fixed.append(problem)
        elif checking.is_installed(registry, problem):  # else another process removed the version meanwhile
            left.append(problem)
    return fixed, left


def _fetch(registry: Registry, problem: Problem) -> bool:
    """Download one file again, by the id it has on its hub."""
    from hubctl import install
    from hubctl.errors import KnownError

    settings = _app.settings()
    if problem.kind == "header":  # these are the bytes the hub has; another download gives the same
        return False
    rows: list[Any] = [
        f
        for item in [registry.get(problem.version_id, source=problem.source)]
        if item
        for f in item.files
        if f.sha256 == problem.sha256
    ]
    if not rows or settings.offline:
        return False
    try:
        with _app.open_hub() as hub, _progress.downloads() as bars:
            found = install.resolve(problem.ref, hub)
            plan = install.plan(problem.ref, hub, registry, settings, found=found, file_id=rows[0].file_id)
            if plan.file.sha256 != problem.sha256:
                _out.warn(f"{problem.ref}: the hub has other bytes now; the version stays as it is")
                return False
            install.execute(plan, hub, registry, settings, on_bytes=bars.on_bytes, on_event=bars.event)
    except KnownError as error:
        _out.warn(f"{problem.ref}: {error.message}")
        return False
    return registry.has(problem.sha256)

"""hubctl install: download, verify and place models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import AllowPickle, DryRun, ProgressKind, TypeFilter

if TYPE_CHECKING:
    from hubctl.config import Settings
    from hubctl.errors import KnownError
    from hubctl.hubs import Hub
    from hubctl.install import Installation, InstallPlan, Wanted
    from registry import Registry

Failure = tuple[str, "KnownError"]


def install(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF...", help="Id, MODEL@VERSION, URL, AIR, hash or name")
    ] = None,
    type: TypeFilter = None,  # noqa: A002
    dry_run: DryRun = False,
    file: Annotated[int | None, typer.Option("--file", metavar="ID", help="This file of the version")] = None,
    fp: Annotated[str | None, typer.Option("--fp", help="Prefer fp16, fp32, bf16, …")] = None,
    size: Annotated[str | None, typer.Option("--size", help="Prefer pruned or full")] = None,
    format: Annotated[str | None, typer.Option("--format", help="Prefer SafeTensor, GGUF, …")] = None,  # noqa: A002
    allow_pickle: AllowPickle = False,
    connections: Annotated[int | None, typer.Option("--connections", min=1, max=16, help="Per file")] = None,
    limit_rate: Annotated[
        str | None, typer.Option("--limit-rate", metavar="RATE", help="For all files together, for example 20M")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with whatever was under way")] = False,
    progress: ProgressKind = "auto",
) -> None:
    """Download, verify and place models.

    REF is a model id, MODEL@VERSION, a page URL, an AIR, any hash the hub knows, or a name. What a cut, Ctrl-C or a
    crash left unfinished goes on where it was: run the same command again, or `hubctl install --resume`.

    Example: hubctl install 4201 civitai:1102@1144 "Thanos Portrait"
    """
    from hubctl.errors import UsageError

    _progress.check(progress)
    given = {
        "connections": connections, "limit_rate": limit_rate, "allow_pickle": allow_pickle or None, "prefer_fp": fp,
        "prefer_size": size, "prefer_format": format,
    }  # fmt: skip
    _flags.CURRENT.given.update({name: value for name, value in given.items() if value is not None})
    if file is not None and len(refs or ()) > 1:
        raise UsageError("--file names a file of one version", hint="install that one by itself")
    with _app.open_registry() as registry:
        wanted = _wanted(refs or (), file, registry if resume else None)
        if not wanted:
            if resume:
                return _nothing_left()
            raise UsageError("nothing to install", hint="name a model: `hubctl search` finds some")
        if _app.settings().offline:
            return _offline([each.ref for each in wanted], registry)
        _install(wanted, registry, type or (), dry_run=dry_run, progress=progress)
    return None


def _wanted(refs: Sequence[str], file: int | None, queue: Registry | None) -> list[Wanted]:
    """What was asked now, and with --resume what is still in the queue; each once."""
    from hubctl.hubs.redact import without_key
    from hubctl.install import Wanted

    settings = _app.settings()
    asked = [Wanted(without_key(text), settings.hub, file, settings.allow_pickle) for text in refs]
    asked += [Wanted.parse(text) for text in (queue.queued() if queue is not None else [])]
    return list(dict.fromkeys(asked))


def _nothing_left() -> None:
    if _flags.CURRENT.json:
        _out.document("install", {"installed": [], "failures": []})
    else:
        _out.say("nothing was under way")


def _offline(wanted: list[str], registry: Registry) -> None:
    """Offline, an install is a look at what is here."""
    found = [_app.surely_here(registry, text) for text in wanted]
    if _flags.CURRENT.json:
        _out.document("install", {"installed": [str(item.files[0].path) for item in found], "failures": []})
        return
    for item in found:
        _out.say(f"{item.model.name} · {item.version.name}: already here")
        _out.line(str(item.files[0].path))


def _install(wanted: list[Wanted], registry: Registry, types: Any, *, dry_run: bool, progress: str) -> None:
    """Plan and carry out, hub by hub (a queue may hold installs of several)."""
    done: list[Installation] = []
    failures: list[Failure] = []
    plans: list[InstallPlan] = []
    if not dry_run:
        for each in wanted:
            registry.enqueue(str(each))
    for (hub_name, allow_pickle), group in groupby(wanted, key=lambda each: (each.hub, each.allow_pickle)):
        settings = replace(_app.settings(), allow_pickle=allow_pickle, hub=hub_name or _app.settings().hub)
        with _open_hub(settings) as hub:
            mine, failed = _plan_all(list(group), hub, registry, settings, types, alone=len(wanted) == 1, keep=dry_run)
            failures += failed
            plans += mine
            if not dry_run:
                if not _flags.CURRENT.json:
                    for plan in mine:
                        _announce(plan)
                got, failed = _execute_all(mine, hub, registry, settings, progress)
                done += got
                failures += failed
    if dry_run:
        return _show_plans(plans, failures)
    return _finish(done, failures, many=len(wanted) > 1)


def _open_hub(settings: Settings) -> Hub:
    from hubctl import install as journey

    return journey.open_hub(settings)


def _plan_all(
    wanted: list[Wanted], hub: Hub, registry: Registry, settings: Settings, types: Any, *, alone: bool, keep: bool
) -> tuple[list[InstallPlan], list[Failure]]:
    """Plans, each file once. In the queue the exact version takes the place of what was typed."""
    from hubctl import install as journey
    from hubctl.errors import KnownError
    from hubctl.hubs.query import model_types

    plans: dict[tuple[int, int], InstallPlan] = {}
    failures: list[Failure] = []
    for each in wanted:
        try:
            plan = _plan_one(journey, each, hub, registry, settings, model_types(types))
        except KnownError as error:
            if not keep and journey.is_hopeless(error):
                registry.dequeue(str(each))
            if alone:
                raise
            failures.append((each.ref, error))
            continue
        plans.setdefault((plan.version.id, plan.file.id), plan)
        if not keep:
            registry.dequeue(str(each))
            registry.enqueue(str(journey.wanted(plan, settings)))
    return list(plans.values()), failures


def _plan_one(journey: Any, each: Wanted, hub: Hub, registry: Registry, settings: Settings, types: Any) -> InstallPlan:
    from hubctl.errors import Ambiguous

    with _progress.busy(f"asking about {each.ref}"):
        try:
            found = journey.resolve(each.ref, hub, types=types)
        except Ambiguous as error:
            ambiguity = error
            found = None
    if found is None:
        ids = ambiguity.details.get("ids") or []
        picked = _out.choose("which one?", ambiguity.details["candidates"]) if ids else None
        if picked is None:
            raise ambiguity
        found = journey.resolve(f"model:{ids[picked]}", hub)
    plan: InstallPlan = journey.plan(each.ref, hub, registry, settings, found=found, file_id=each.file_id)
    return plan


def _show_plans(plans: list[InstallPlan], failures: list[Failure]) -> None:
    total = sum(plan.download_bytes for plan in plans)
    if _flags.CURRENT.json:
        failed = [{"ref": text, "error": error.to_json()} for text, error in failures]
        _out.document(
            "install-plan",
            {"plans": [plan.to_json() for plan in plans], "download_bytes": total, "failures": failed},
        )
    else:
        for plan in plans:
            _announce(plan, fully=True)
        free = plans[0].free_bytes if plans else None
        _out.say(f"to download: {_out.size(total)}, free: {_out.size(free)}. Nothing was done (--dry-run)")
    _complain(failures, len(plans))


def _announce(plan: InstallPlan, *, fully: bool = False) -> None:
    what = (
        "already installed" if plan.installed else "already here, to be listed" if plan.have else _out.size(plan.size)
    )
    _out.say(f"{plan.model.name} · {plan.version.name}  ({plan.model.type}, {plan.version.base_model})")
    _out.say(f"  {plan.file.name}  {what}")
    if fully or _flags.CURRENT.verbose:
        for reason in plan.why:
            _out.say(f"  because {reason}")
    for warning in plan.warnings:
        _out.warn(warning)


def carry_out(
    plans: Sequence[InstallPlan], hub: Hub, registry: Registry, progress: str, *, many: bool, silent: bool = False
) -> None:
    """Execute plans with progress and show what came of them; for every command that installs.

    `silent` leaves the showing of successes to the caller. Raises the one error, or PartialBatch when `many`.
    """
    from hubctl import install as journey

    settings = _app.settings()
    for plan in plans:
        registry.enqueue(str(journey.wanted(plan, settings)))
    done, failures = _execute_all(plans, hub, registry, settings, _progress.check(progress))
    if failures or not silent:
        _finish([] if silent else done, failures, many=many)


def _execute_all(
    plans: Sequence[InstallPlan], hub: Hub, registry: Registry, settings: Settings, progress: str
) -> tuple[list[Installation], list[Failure]]:
    """Side by side, with progress. What is finished, or can never succeed, leaves the queue at once."""
    from hubctl import install as journey

    entries = {
        label: str(journey.wanted(plan, settings)) for label, plan in zip(journey.labels(plans), plans, strict=True)
    }
    total = sum(plan.download_bytes for plan in plans) if len(plans) > 1 else None
    with _progress.downloads(as_json=progress == "json", bars=progress != "none", total=total) as bars:

        def on_event(kind: str, **facts: Any) -> None:
            if kind == "ended" and (facts["error"] is None or journey.is_hopeless(facts["error"])):
                registry.dequeue(entries[facts["file"]])
            bars.event(kind, **facts)

        results = journey.execute_all(plans, hub, registry, settings, on_bytes=bars.on_bytes, on_event=on_event)
    done = [result.value for result in results if result.error is None]
    failed = [(plan.asked, result.error) for plan, result in zip(plans, results, strict=True) if result.error]
    return done, failed


def _finish(done: Sequence[Installation], failures: list[Failure], *, many: bool) -> None:
    if failures and not many:
        raise failures[0][1]
    if _flags.CURRENT.json:
        _out.document(
            "install",
            {
                "installed": [_as_json(each) for each in done],
                "failures": [{"ref": text, "error": error.to_json()} for text, error in failures],
            },
        )
    else:
        for each in done:
            _show(each)
        if many and done:
            _out.say(f"{_out.plural(len(done), 'model')} here, {len(failures)} failed")
    _complain(failures, len(done))


def _complain(failures: list[Failure], good: int) -> None:
    """Say what failed of several, and raise the exit status for that."""
    from hubctl import install as journey
    from hubctl.errors import PartialBatch

    if not failures:
        return
    if _flags.CURRENT.json:
        raise typer.Exit(PartialBatch.exit_code)
    for text, error in failures:
        _out.warn(f"{text}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    again = any(not journey.is_hopeless(error) for _, error in failures)
    raise PartialBatch(
        f"{len(failures)} of {good + len(failures)} failed",
        hint="`hubctl install --resume` tries those again" if again else "the reasons are above",
    )


def _as_json(each: Installation) -> dict[str, Any]:
    return {
        **each.plan.to_json(),
        "path": str(each.path),
        "changed": each.changed,
        "notes": list(each.notes),
        "trigger_words": list(each.installed.trigger_words),
        "settings": each.installed.settings,
    }


def _show(each: Installation) -> None:
    from hubctl.cli.show import settings_line, use_line

    if not _flags.CURRENT.quiet:
        state = "installed" if each.changed else "already installed, nothing to do"
        _out.say(f"✓ {each.plan.model.name} · {each.plan.version.name}: {state}")
        for note in each.notes:
            _out.warn(note)
        for label, text in (("use", use_line(each.installed)), ("settings", settings_line(each.installed.settings))):
            if text:
                _out.say(f"  {label}: {text}")
    _out.line(str(each.path))

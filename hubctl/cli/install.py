"""hubctl install: download, verify and place models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import AllowPickle, DryRun, ProgressKind, TypeFilter

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from hubctl.install import Installation, InstallPlan
    from registry import Registry


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
    limit_rate: Annotated[str | None, typer.Option("--limit-rate", metavar="RATE", help="For example 20M")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with whatever was under way")] = False,
    progress: ProgressKind = "auto",
) -> None:
    """Download, verify and place models.

    REF is a model id, MODEL@VERSION, a page URL, an AIR, any hash the hub knows, or a name.

    Example: hubctl install 4201 civitai:1102@1144 "Thanos Portrait"
    """
    from hubctl.errors import UsageError

    for name, value in (("connections", connections), ("limit_rate", limit_rate)):
        if value is not None:
            _flags.CURRENT.given[name] = value
    if allow_pickle:
        _flags.CURRENT.given["allow_pickle"] = True
    for name, value in (("prefer_fp", fp), ("prefer_size", size), ("prefer_format", format)):
        if value:
            _flags.CURRENT.given[name] = value
    with _app.open_registry() as registry:
        wanted = list(refs or ()) + (registry.queued() if resume else [])
        if not wanted:
            raise UsageError("nothing to install", hint="name a model: `hubctl search` finds some")
        if _app.settings().offline:
            _offline(wanted, registry)
            return
        with _app.open_hub() as hub:
            plans, failures = _plan_all(wanted, hub, registry, file, type or ())
            if dry_run:
                _show_plans(plans)
                _finish([], failures, many=len(wanted) > 1)
                return
            if not _flags.CURRENT.json:
                for plan in plans:
                    _announce(plan)
            done, failed = _execute_all(plans, hub, registry, progress)
            _finish(done, failures + failed, many=len(wanted) > 1)


def _offline(wanted: list[str], registry: Registry) -> None:
    """Offline, an install is a look at what is here."""
    from hubctl.install import offline_refusal

    for text in wanted:
        if not registry.find(text):
            raise offline_refusal(text)
    found = [registry.find(text)[0] for text in wanted]
    if _flags.CURRENT.json:
        _out.document("install", {"installed": [str(item.files[0].path) for item in found], "failures": []})
        return
    for item in found:
        _out.say(f"{item.model.name} · {item.version.name}: already here")
        _out.line(str(item.files[0].path))


def _plan_all(
    wanted: list[str], hub: Hub, registry: Registry, file: int | None, types: Any
) -> tuple[list[InstallPlan], list[tuple[str, Any]]]:
    from hubctl import install as journey
    from hubctl.errors import KnownError
    from hubctl.hubs.query import model_types

    plans, failures = [], []
    for text in wanted:
        try:
            plans.append(_plan_one(journey, text, hub, registry, file, model_types(types)))
        except KnownError as error:
            if len(wanted) == 1:
                raise
            failures.append((text, error))
    return plans, failures


def _plan_one(journey: Any, text: str, hub: Hub, registry: Registry, file: int | None, types: Any) -> InstallPlan:
    from hubctl.errors import Ambiguous

    settings = _app.settings()
    with _progress.busy(f"asking about {text}"):
        try:
            found = journey.resolve(text, hub, types=types)
        except Ambiguous as error:
            ambiguity = error
            found = None
    if found is None:
        ids = ambiguity.details.get("ids") or []
        picked = _out.choose("which one?", ambiguity.details["candidates"]) if ids else None
        if picked is None:
            raise ambiguity
        found = journey.resolve(f"model:{ids[picked]}", hub)
    plan: InstallPlan = journey.plan(text, hub, registry, settings, found=found, file_id=file)
    return plan


def _show_plans(plans: list[InstallPlan]) -> None:
    if _flags.CURRENT.json:
        total = sum(plan.download_bytes for plan in plans)
        _out.document("install-plan", {"plans": [plan.to_json() for plan in plans], "download_bytes": total})
        return
    for plan in plans:
        _announce(plan, fully=True)
    total = sum(plan.download_bytes for plan in plans)
    free = plans[0].free_bytes if plans else None
    _out.say(f"to download: {_out.size(total)}, free: {_out.size(free)}. Nothing was done (--dry-run)")


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


def _execute_all(
    plans: list[InstallPlan], hub: Hub, registry: Registry, progress: str
) -> tuple[list[Installation], list[tuple[str, Any]]]:
    from concurrent.futures import ThreadPoolExecutor

    from hubctl import install as journey
    from hubctl.errors import KnownError

    settings = _app.settings()
    done: list[Installation] = []
    failed: list[tuple[str, Any]] = []
    for plan in plans:
        registry.enqueue(plan.asked)
    with _progress.downloads(as_json=progress == "json") as bars, ThreadPoolExecutor(settings.parallel) as pool:

        def one(plan: InstallPlan) -> Installation | tuple[str, Any]:
            try:
                return journey.execute(plan, hub, registry, settings, on_bytes=bars.on_bytes, on_event=bars.event)
            except KnownError as error:
                return plan.asked, error

        for plan, outcome in zip(plans, pool.map(one, plans), strict=True):
            if isinstance(outcome, tuple):
                failed.append(outcome)
            else:
                done.append(outcome)
                registry.dequeue(plan.asked)
    return done, failed


def _finish(done: list[Installation], failures: list[tuple[str, Any]], *, many: bool) -> None:
    from hubctl.errors import PartialBatch

    if failures and not many:
        raise failures[0][1]
    if _flags.CURRENT.json and (done or failures):
        _out.document(
            "install",
            {
                "installed": [_as_json(each) for each in done],
                "failures": [{"ref": text, "error": error.to_json()} for text, error in failures],
            },
        )
    elif not _flags.CURRENT.json:
        for each in done:
            _show(each)
        for text, error in failures:
            _out.warn(f"{text}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    if failures:
        if _flags.CURRENT.json:
            raise typer.Exit(PartialBatch.exit_code)
        total = len(done) + len(failures)
        raise PartialBatch(f"{len(failures)} of {total} failed", hint="`hubctl install --resume` tries those again")


def _as_json(each: Installation) -> dict[str, Any]:
    return {
        **each.plan.to_json(),
        "path": str(each.path),
        "changed": each.changed,
        "trigger_words": list(each.installed.trigger_words),
        "settings": each.installed.settings,
    }


def _show(each: Installation) -> None:
    from hubctl.cli.show import settings_line, use_line

    if not _flags.CURRENT.quiet:
        state = "installed" if each.changed else "already installed, nothing to do"
        _out.say(f"✓ {each.plan.model.name} · {each.plan.version.name}: {state}")
        for label, text in (("use", use_line(each.installed)), ("settings", settings_line(each.installed.settings))):
            if text:
                _out.say(f"  {label}: {text}")
    _out.line(str(each.path))

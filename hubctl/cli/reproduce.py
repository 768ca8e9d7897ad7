"""hubctl reproduce: replay an example image and show how close the result is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import Device, DryRun, Dtype, ProgressKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubctl.hubs import Hub
    from hubctl.reproduce import Reproduction, Resource, Source
    from hubctl.run.plan import RunPlan
    from registry import Registry


def reproduce(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image id, its page URL, or a picture file")],
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The same look with your own subject")] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="Another negative prompt")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=1000, help="Another number of steps")] = None,
    cfg: Annotated[float | None, typer.Option("--cfg", help="Another CFG scale")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Another size")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="REF", help="Use this installed checkpoint")] = None,
    rng: Annotated[str | None, typer.Option("--rng", metavar="cpu|nv|gpu", help="Whose noise")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the run plan as JSON and stop")] = False,
    dry_run: DryRun = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse to run with deviations")] = False,
    solve: Annotated[bool, typer.Option("--solve", help="Try what the picture leaves open, keep what fits")] = False,
    min_similarity: Annotated[
        float | None, typer.Option("--min-similarity", min=0.0, max=1.0, help="Exit 11 when the result is below")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.png", help="Where to write")] = None,
    device: Device = None,
    dtype: Dtype = None,
    progress: ProgressKind = "auto",
) -> None:
    """Replay an example image with the settings it was made with, and show how close the result is.

    What it used is installed first (you are asked). --prompt, --seed and the like mirror the settings with your own
    subject.

    Example: hubctl reproduce 9001 --prompt "an owl in a wizard robe"
    """
    from hubctl import reproduce as journey
    from hubctl.errors import PlanError

    settings = _app.settings()
    known, raw = journey.parse_settings(set_ or ())
    changes = {
        "prompt": prompt, "negative_prompt": negative, "seed": seed, "steps": steps, "cfg_scale": cfg,
        **parse_size(size), **known,
    }  # fmt: skip
    with _app.open_registry() as registry:
        hub = None if settings.offline else _app.open_hub()
        with _progress.busy(f"reading image {image}"):
            source = journey.load(image, hub, registry)
        parameters = journey.override(source.parameters, **changes)
        if model:
            parameters = journey.with_checkpoint(parameters, model, registry)
        found = journey.resources(parameters, hub, registry, settings)
        _announce(source, found)
        if dry_run:
            _dry_run(source, found)
            return
        found = _ensure(found, hub, registry, progress)
        run_plan = journey.build(parameters, found, overrides=raw, rng=rng)
        if plan:
            _out.document("run-plan", {"plan": run_plan.to_json(), "digest": run_plan.digest()})
            return
        if strict and run_plan.deviations:
            raise PlanError(
                f"--strict: the run would deviate: {run_plan.deviations[0]}", hint="leave out --strict to run anyway"
            )
        original = source.original or _original(source, hub)
        if solve and original is not None:
            run_plan = _solve(run_plan, original, device)
        result = _run(
            journey,
            run_plan,
            source,
            found,
            registry,
            original,
            out,
            device or settings.device,
            dtype or settings.dtype,
        )
    changed = any(value is not None for value in changes.values())
    finish(result, changed=changed, min_similarity=min_similarity)


def parse_size(text: str | None) -> dict[str, int]:
    """`"512x768"` → width and height. Raises UsageError."""
    from hubctl.errors import UsageError

    if not text:
        return {}
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.isdigit() and height.isdigit() and 8 <= int(width) <= 8192 and 8 <= int(height) <= 8192):
        raise UsageError(f"`{text}` is no size", hint="write it as 512x768")
    return {"width": int(width), "height": int(height)}


def _announce(source: Source, found: Sequence[Resource]) -> None:
    from hubctl.cli.inspect import one_line

    if _flags.CURRENT.json or _flags.CURRENT.quiet:
        return
    parameters = source.parameters
    _out.say(f"image {source.name}: {one_line(parameters)}")
    _out.say(f"  {' '.join(parameters.prompt.split())}")
    for warning in parameters.warnings:
        _out.warn(warning)
    for resource in found:
        _out.say(f"  {resource_line(resource)}")


def resource_line(resource: Resource) -> str:
    """`lora thnos 0.9: here (by hash)`"""
    ref = resource.ref
    what = f"{ref.kind} {ref.name or ref.hash or ref.version_id or ''}".strip()
    weight = f" {ref.weight:g}" if ref.weight is not None else ""
    if resource.path is not None:
        return f"{what}{weight}: here (by {resource.how})"
    if resource.plan is not None:
        return f"{what}{weight}: to install, {_out.size(resource.download_bytes)} (by {resource.how})"
    return f"{what}{weight}: {resource.problem}"


def _dry_run(source: Source, found: Sequence[Resource]) -> None:
    total = sum(resource.download_bytes for resource in found)
    if _flags.CURRENT.json:
        _out.document(
            "reproduce-plan",
            {
                "image": source.name,
                "parameters": source.parameters.to_json(),
                "resources": [resource.to_json() for resource in found],
                "download_bytes": total,
            },
        )
    else:
        _out.say(f"to download: {_out.size(total)}. Nothing was done (--dry-run)")


def _ensure(found: tuple[Resource, ...], hub: Hub | None, registry: Registry, progress: str) -> tuple[Resource, ...]:
    from hubctl import reproduce as journey

    wanted = [resource for resource in journey.missing(found) if resource.plan is not None]
    if not wanted or hub is None:
        return found
    total = _out.size(sum(resource.download_bytes for resource in wanted))
    if not _out.confirm(f"install {_out.plural(len(wanted), 'file')}, {total}?"):
        raise typer.Abort
    with _progress.downloads(as_json=progress == "json") as bars:
        return journey.ensure(found, hub, registry, _app.settings(), on_bytes=bars.on_bytes, on_event=bars.event)


def _original(source: Source, hub: Hub | None) -> bytes | None:
    from hubctl import reproduce as journey
    from hubctl.errors import KnownError

    if source.image is None:
        return None
    try:
        return journey.fetch_original(source.image, hub)
    except KnownError as error:
        _out.warn(f"no comparison: {error.message}")
        return None


def _solve(plan: RunPlan, original: bytes, device: str | None) -> RunPlan:
    from hubctl.run import solve

    with _progress.steps("trying what the picture leaves open") as tick:
        solved = solve.solve(plan, original, on_step=tick, device=device)
    for line in solved.report:
        _out.say(f"  {line}")
    best: RunPlan = solved.best
    return best


def _run(
    journey: Any, plan: RunPlan, source: Source, found: Sequence[Resource], registry: Registry,
    original: bytes | None, out: Path | None, device: str, dtype: str,
) -> Reproduction:  # fmt: skip
    for deviation in plan.deviations:
        _out.warn(f"deviation: {deviation}")
    with _progress.steps("loading") as tick:
        result: Reproduction = journey.run(
            plan,
            registry=registry,
            name=source.name,
            out=out,
            original=original,
            used=[resource.installed for resource in found if resource.installed is not None],
            source={"image": source.asked, "image_id": source.image.image_id if source.image else None},
            device=None if device == "auto" else device,
            dtype=None if dtype == "auto" else dtype,
            on_step=tick,
        )
    return result


def finish(result: Reproduction, *, changed: bool, min_similarity: float | None = None) -> None:
    """Print a run's outcome; raises BelowSimilarity when a threshold was asked for and missed."""
    from hubctl.errors import BelowSimilarity

    score = result.similarity.score if result.similarity else None
    if _flags.CURRENT.json:
        _out.document("run", {**result.to_json(), "settings_changed": changed})
    else:
        _out.say(f"✓ made in {result.seconds:.1f} s on {result.device}")
        if result.similarity is not None:
            note = " (your own settings: not expected to match)" if changed else ""
            _out.say(f"  similarity with the original: {result.similarity.describe()}{note}")
        _out.line(str(result.image))
        if result.compare is not None:
            _out.line(str(result.compare))
    if min_similarity is not None and (score is None or score < min_similarity):
        raise BelowSimilarity(
            f"similarity {score:.3f} is below {min_similarity:g}"
            if score is not None
            else "there was nothing to compare with",
            hint="; ".join(result.plan.deviations) or "`--solve` tries what the picture leaves open",
        )

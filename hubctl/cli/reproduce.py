"""hubctl reproduce: replay example images and show how close the results are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import Device, DryRun, Dtype, Offload, ProgressKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hubctl.errors import KnownError
    from hubctl.hubs import Hub
    from hubctl.reproduce import Reproduction, Resource, Source
    from hubctl.run.plan import RunPlan
    from registry import Registry


CLOSE = 0.9  # a similarity from which two pictures are the same to the eye


@dataclass
class Job:
    """One image on its way: what was asked, what it says, what it needs, what will be run."""

    source: Source
    parameters: Any
    found: tuple[Resource, ...]
    plan: RunPlan | None = None


def reproduce(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE...", help="Image ids, page URLs, or picture files")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="One image a line (- for stdin); JSON lines with `id`")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The same look with your own subject")] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="Another negative prompt")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Another seed")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=1000, help="Another number of steps")] = None,
    cfg: Annotated[float | None, typer.Option("--cfg", help="Another CFG scale")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Another size")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="REF", help="Use this installed checkpoint")] = None,
    vae: Annotated[str | None, typer.Option("--vae", metavar="REF", help="Use this installed VAE")] = None,
    rng: Annotated[str | None, typer.Option("--rng", metavar="cpu|nv|gpu", help="Whose noise")] = None,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="PICTURE", help="The picture it was made from (img2img)")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", metavar="PICTURE", help="White where it was made anew (inpainting)")
    ] = None,
    denoise: Annotated[
        float | None, typer.Option("--denoise", min=0.0, max=1.0, help="How far from --init, 0 to 1")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the run plan as JSON and stop")] = False,
    dry_run: DryRun = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse to run with deviations")] = False,
    solve: Annotated[bool, typer.Option("--solve", help="Try what the picture leaves open, keep what fits")] = False,
    min_similarity: Annotated[
        float | None, typer.Option("--min-similarity", min=0.0, max=1.0, help="Exit 11 when the result is below")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE.png", help="Where to write; a folder for several")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
    progress: ProgressKind = "auto",
) -> None:
    """Replay example images with the settings they were made with, and show how close the results are.

    What they used is installed first (you are asked). --prompt, --seed and the like mirror the settings with your own
    subject. Several images share what they load.

    Example: hubctl reproduce 9001 --prompt "an owl in a wizard robe"
    """
    from hubctl import reproduce as journey
    from hubctl.errors import UsageError

    settings = _app.settings()
    known, raw = journey.parse_settings([*(set_ or ()), *([f"rng={rng}"] if rng else [])])
    refuse_missing(init, mask)
    if mask is not None and init is None:
        raise UsageError("--mask needs --init", hint="give the picture that was painted over with --init")
    changes = {
        "prompt": prompt, "negative_prompt": negative, "seed": seed, "steps": steps, "cfg_scale": cfg,
        "denoise": denoise, **parse_size(size), **known,
    }  # fmt: skip
    changes = {name: value for name, value in changes.items() if value is not None}
    wanted = _wanted(images or [], from_)
    many = len(wanted) > 1
    failures: list[tuple[str, KnownError]] = []
    with _app.open_registry() as registry, _hub() as hub:
        jobs = []
        for text in wanted:
            with _collected(failures, text, many):
                jobs.append(_look(text, changes, model, vae, hub, registry))
        if dry_run:
            _dry_run(jobs, failures, many=many)
            return
        _ensure(jobs, hub, registry, progress)
        for job in jobs:
            with _collected(failures, job.source.asked, many):
                job.plan = _build(job, raw, rng, init, mask, strict=strict)
        jobs = [job for job in jobs if job.plan is not None]
        plans = [job.plan for job in jobs if job.plan is not None]
        if plan:
            _print_plans(plans, failures, many=many)
            return
        cache = journey.new_cache(offload)
        results: list[tuple[Job, Reproduction]] = []
        for place, index in enumerate(journey.in_order(plans)):
            job = jobs[index]
            with _collected(failures, job.source.asked, many):
                label = f"{place + 1} of {len(plans)}: " if many else ""
                target = target_of(out, job.source.name, many=many)
                refuse_overwriting(target, job.source, init, mask)
                if many:
                    _out.say(f"\nimage {job.source.name}")
                result = _make(
                    job, registry, hub, solve=solve, target=target, cache=cache, label=label,
                    device=given(device, settings.device), dtype=given(dtype, settings.dtype),
                )  # fmt: skip
                results.append((job, result))
                if not _flags.CURRENT.json:
                    _show(result, changed=bool(changes), solved=solve)
                _refuse_below(result, min_similarity)
    _finish(results, failures, changed=bool(changes), many=many)


@contextlib.contextmanager
def _collected(failures: list[tuple[str, KnownError]], text: str, many: bool) -> Iterator[None]:
    """One of several may fail without the others; alone it is the command's own refusal."""
    from hubctl.errors import BelowSimilarity, KnownError

    try:
        yield
    except KnownError as error:
        if not many and not (isinstance(error, BelowSimilarity) and _flags.CURRENT.json):
            raise
        failures.append((text, error))
        if many:
            _out.warn(f"{text}: {error.message}")


@contextlib.contextmanager
def _hub() -> Iterator[Hub | None]:
    if _app.settings().offline:
        yield None
        return
    with _app.open_hub() as hub:
        yield hub


def given(flag: str | None, setting: str) -> str | None:
    chosen = flag or setting
    return None if chosen == "auto" else chosen


def labelled(tick: Callable[[int, int, str], None], label: str) -> Callable[[int, int, str], None]:
    """Progress that says which of several it is about."""
    return lambda done, total, what: tick(done, total, f"{label}{what}")


def refuse_missing(*paths: Path | None) -> None:
    from hubctl.errors import NotFound

    for path in paths:
        if path is not None and not path.is_file():
            raise NotFound(f"there is no picture `{path}`", hint="check the path")


def parse_size(text: str | None) -> dict[str, int]:
    """`"512x768"` → width and height. Raises UsageError."""
    from hubctl.errors import UsageError

    if not text:
        return {}
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal() and 8 <= int(width) <= 8192 and 8 <= int(height) <= 8192):
        raise UsageError(f"`{text}` is no size", hint="write it as 512x768")
    return {"width": int(width), "height": int(height)}


# --- which images -----------------------------------------------------------------------------------------------------


def _wanted(images: list[str], from_: Path | None) -> list[str]:
    """What was named, folders opened, each once and in order. Raises UsageError when that is nothing."""
    from hubctl.errors import UsageError
    from hubctl.reproduce import PICTURES

    out: list[str] = []
    for text in [*images, *(_lines(from_) if from_ else ())]:
        folder = Path(text)
        if folder.is_dir():
            found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES)
            out += [str(path) for path in found if not path.stem.endswith("-compare")]
        else:
            out.append(text)
    if not out:
        raise UsageError("no image to reproduce", hint="name an id, a page URL or a picture; `hubctl images` lists ids")
    return list(dict.fromkeys(out))


def _lines(path: Path) -> Iterator[str]:
    """References of a file: a line each, or JSON objects with `id`, `image` or `path` (what `--json` lists print)."""
    import json
    import sys

    text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("{"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            found = next((entry[key] for key in ("image_id", "id", "image", "path") if entry.get(key)), None)
            if found is not None:
                yield str(found)
        elif line and not line.startswith("#"):
            yield line


def _look(
    text: str, changes: dict[str, Any], model: str | None, vae: str | None, hub: Hub | None, registry: Registry
) -> Job:
    from hubctl import reproduce as journey

    with _progress.busy(f"reading image {text}"):
        source = journey.load(text, hub, registry)
        parameters = journey.override(source.parameters, **changes)
        if model:
            parameters = journey.with_checkpoint(parameters, model, registry)
        if vae:
            parameters = journey.with_vae(parameters, vae, registry)
        found = journey.resources(parameters, hub, registry, _app.settings())
    _announce(source, parameters, found)
    return Job(source, parameters, found)


def _announce(source: Source, parameters: Any, found: Sequence[Resource]) -> None:
    from hubctl.cli.inspect import one_line

    if _flags.CURRENT.json or _flags.CURRENT.quiet:
        return
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


# --- what it costs ----------------------------------------------------------------------------------------------------


def _costs(jobs: Sequence[Job]) -> dict[int, int]:
    """Bytes to download by file id: what several images share counts once."""
    plans = [resource.plan for job in jobs for resource in job.found if resource.plan is not None]
    return {plan.file.id: plan.download_bytes for plan in plans}


def _dry_run(jobs: Sequence[Job], failures: list[tuple[str, KnownError]], *, many: bool) -> None:
    from hubctl.errors import PartialBatch

    total = sum(_costs(jobs).values())
    if _flags.CURRENT.json:
        items = [
            {
                "image": job.source.name,
                "parameters": job.parameters.to_json(),
                "resources": [resource.to_json() for resource in job.found],
                "download_bytes": sum(resource.download_bytes for resource in job.found),
            }
            for job in jobs
        ]
        if many:
            _out.document("reproduce-plans", {"items": items, "failures": _as_json(failures), "download_bytes": total})
        else:
            _out.document("reproduce-plan", items[0])
    else:
        _out.say(f"to download: {_out.size(total)}. Nothing was done (--dry-run)")
    if failures:
        raise typer.Exit(PartialBatch.exit_code)


def _as_json(failures: Sequence[tuple[str, KnownError]]) -> list[dict[str, Any]]:
    return [{"image": text, "error": error.to_json()} for text, error in failures]


def _ensure(jobs: list[Job], hub: Hub | None, registry: Registry, progress: str) -> None:
    """Ask once for everything that is to be had, then get it."""
    from hubctl import reproduce as journey

    costs = _costs(jobs)
    if not costs or hub is None:
        return
    if not _out.confirm(f"install {_out.plural(len(costs), 'file')}, {_out.size(sum(costs.values()))}?"):
        raise typer.Abort
    flat = [resource for job in jobs for resource in job.found]
    with _progress.downloads(as_json=progress == "json") as bars:
        done = iter(journey.ensure(flat, hub, registry, _app.settings(), on_bytes=bars.on_bytes, on_event=bars.event))
    for job in jobs:
        job.found = tuple(next(done) for _ in job.found)


# --- running ----------------------------------------------------------------------------------------------------------


def _build(
    job: Job, raw: dict[str, str], rng: str | None, init: Path | None, mask: Path | None, *, strict: bool
) -> RunPlan:
    from hubctl import reproduce as journey
    from hubctl.errors import PlanError

    plan = journey.build(job.parameters, job.found, overrides=raw, rng=rng, init_image=init, mask=mask)
    if strict and plan.deviations:
        raise PlanError(
            f"--strict: the run would deviate: {plan.deviations[0]}",
            hint="leave out --strict to run anyway",
            details={"deviations": list(plan.deviations)},
        )
    return plan


def _print_plans(plans: Sequence[RunPlan], failures: list[tuple[str, KnownError]], *, many: bool) -> None:
    from hubctl.errors import PartialBatch

    items = [{"plan": plan.to_json(), "digest": plan.digest()} for plan in plans]
    if many:
        _out.document("run-plans", {"items": items, "failures": _as_json(failures)})
    else:
        _out.document("run-plan", items[0])
    if failures:
        raise typer.Exit(PartialBatch.exit_code)


def target_of(out: str | None, name: str, *, many: bool) -> Path | None:
    """The file to write: --out itself, or NAME.png in it when it is a folder (as it must be for several)."""
    from hubctl import reproduce as journey
    from hubctl.errors import UsageError

    if out is None:
        return None
    path = Path(out).expanduser()
    if path.is_dir() or out.endswith(("/", "\\")) or (many and not path.suffix):
        return journey.free_name(path, name)
    if many:
        raise UsageError(f"several pictures cannot all be `{out}`", hint="give --out a folder")
    return journey.png_path(path)


def refuse_overwriting(target: Path | None, source: Source, init: Path | None, mask: Path | None) -> None:
    """The picture that is replayed, and what it was made from, are never written over."""
    from hubctl.errors import UsageError

    for path in (source.path, init, mask):
        if target is not None and path is not None and target.exists() and target.samefile(path):
            raise UsageError(f"--out would overwrite `{path}`", hint="choose another name")


def _original(source: Source, hub: Hub | None, registry: Registry) -> bytes | None:
    from hubctl import reproduce as journey
    from hubctl.errors import KnownError

    if source.image is None:
        return source.original
    try:
        return source.original or journey.fetch_original(source.image, hub, registry)
    except KnownError as error:
        _out.warn(f"no comparison: {error.message}")
        return None


def _make(
    job: Job, registry: Registry, hub: Hub | None, *, solve: bool, target: Path | None, cache: Any, label: str,
    device: str | None, dtype: str | None,
) -> Reproduction:  # fmt: skip
    from hubctl import reproduce as journey

    plan = job.plan
    assert plan is not None
    original = _original(job.source, hub, registry)
    if solve and original is not None:
        plan = _solve(plan, original, job, registry, cache=cache, device=device, dtype=dtype)
    elif solve:
        _out.warn("--solve needs the original to compare with")
    for deviation in plan.deviations:
        _out.warn(f"deviation: {deviation}")
    with _progress.steps(f"{label}loading") as tick:
        result = journey.run(
            plan,
            registry=registry,
            name=job.source.name,
            out=target,
            original=original,
            used=[resource.installed for resource in job.found if resource.installed is not None],
            source={
                "image": job.source.asked,
                "image_id": job.source.image.image_id if job.source.image else None,
                "hub": _app.settings().hub if job.source.image else None,
            },
            device=device,
            dtype=dtype,
            cache=cache,
            on_step=labelled(tick, label),
        )
    for deviation in result.deviations:
        if deviation not in plan.deviations:
            _out.warn(deviation)
    return result


def _solve(
    plan: RunPlan, original: bytes, job: Job, registry: Registry, *, cache: Any, device: str | None, dtype: str | None
) -> RunPlan:
    from hubctl import reproduce as journey
    from hubctl.run import solve

    with _progress.steps("trying what the picture leaves open") as tick:
        vaes = journey.other_vaes(job.found, registry)
        solved = solve.solve(plan, original, tick, device, dtype, cache=cache, vaes=vaes)
    for line in solved.report:
        _out.say(f"  {line}")
    return solved.best


def _refuse_below(result: Reproduction, threshold: float | None) -> None:
    from hubctl.errors import BelowSimilarity

    score = result.similarity.score if result.similarity else None
    if threshold is None or (score is not None and score >= threshold):
        return
    raise BelowSimilarity(
        f"similarity {score:.3f} is below {threshold:g}" if score is not None else "there was nothing to compare with",
        hint="; ".join(result.deviations) or "`--solve` tries what the picture leaves open",
    )


# --- the outcome ------------------------------------------------------------------------------------------------------


def _show(result: Reproduction, *, changed: bool, solved: bool) -> None:
    _out.say(f"✓ made in {result.seconds:.1f} s on {result.device}")
    if result.similarity is not None:
        note = " (your own settings: not expected to match)" if changed else ""
        _out.say(f"  similarity with the original: {result.similarity.describe()}{note}")
    _out.line(str(result.image))
    if result.compare is not None:
        _out.line(str(result.compare))
    warn_unrecorded(result)
    if result.similarity is not None and result.similarity.score < CLOSE and not (changed or solved):
        _out.hint("`--solve` tries what the settings leave open: noise, schedule, clip skip, VAE")


def warn_unrecorded(result: Reproduction) -> None:
    if result.unrecorded:
        _out.warn(f"`hubctl runs` will not list it: {result.unrecorded}")


def _finish(
    results: Sequence[tuple[Job, Reproduction]], failures: list[tuple[str, KnownError]], *, changed: bool, many: bool
) -> None:
    """The JSON document of the run or runs; the exit status of those that failed."""
    from hubctl.errors import PartialBatch

    items = [{**result.to_json(), "asked": job.source.asked, "settings_changed": changed} for job, result in results]
    if _flags.CURRENT.json:
        if many:
            _out.document("run-batch", {"items": items, "failures": _as_json(failures), "count": len(items)})
        elif items:
            _out.document("run", {**items[0], "error": failures[0][1].to_json() if failures else None})
        if failures:
            raise typer.Exit(PartialBatch.exit_code if many else failures[0][1].exit_code)
        return
    if many:
        scores = [result.similarity.score for _, result in results if result.similarity]
        close = f", {sum(score >= CLOSE for score in scores)} of {len(scores)} at {CLOSE} or above" if scores else ""
        _out.say(f"{_out.plural(len(results), 'picture')}{close}")
    if failures:
        raise PartialBatch(
            f"{len(failures)} of {len(failures) + len(results)} failed",
            hint="the lines above say why; the pictures that were made are kept",
            details={"failures": _as_json(failures)},
        )

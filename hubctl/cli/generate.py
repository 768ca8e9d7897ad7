"""hubctl generate: make pictures with a model's recommended settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import Device, Dtype, Offload
from hubctl.cli.reproduce import warn_unrecorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubctl.reproduce import Reproduction


def generate(
    prompt: Annotated[str, typer.Argument(help="A1111 syntax: (word:1.2), <lora:name:0.8>, embeddings by name")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="REF", help="An installed checkpoint, or a file")],
    lora: Annotated[list[str] | None, typer.Option("--lora", metavar="REF[:WEIGHT]", help="An installed LoRA")] = None,
    vae: Annotated[str | None, typer.Option("--vae", metavar="REF", help="An installed VAE, or a file")] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="What should not be there")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Default: a random one, printed")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="Pictures, with consecutive seeds")] = 1,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=1000, help="Number of steps")] = None,
    cfg: Annotated[float | None, typer.Option("--cfg", help="CFG scale")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help='"DPM++ 2M Karras", euler_ancestral, …')] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Width and height in pixels")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting")] = None,
    init: Annotated[Path | None, typer.Option("--init", metavar="PICTURE", help="Start from a picture")] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", metavar="PICTURE", help="White where --init is made anew")
    ] = None,
    denoise: Annotated[
        float | None, typer.Option("--denoise", min=0.0, max=1.0, help="How far from --init, 0 to 1 (0.75)")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the run plan as JSON and stop")] = False,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE.png", help="Where to write; a folder for several")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = None,
) -> None:
    """Make pictures, starting from the model's recommended settings.

    Example: hubctl generate "thnos man, sunset" --model 4100 --lora 4201:0.9
    """
    from dataclasses import replace

    from hubctl import generate as journey
    from hubctl import reproduce
    from hubctl.cli.reproduce import given, labelled, parse_size, refuse_missing, refuse_overwriting, target_of
    from hubctl.errors import UsageError

    settings = _app.settings()
    known, raw = reproduce.parse_settings(set_ or ())
    asked = {
        "negative_prompt": negative, "seed": seed, "steps": steps, "cfg_scale": cfg, "sampler": sampler,
        "denoise": denoise, **parse_size(size), **known,
    }  # fmt: skip
    refuse_missing(init, mask)
    if init is None and (mask is not None or denoise is not None):
        raise UsageError("--mask and --denoise need --init", hint="give the picture to start from with --init")
    results: list[Reproduction] = []
    with _app.open_registry() as registry:
        parameters, found = journey.prepare(prompt, model, registry, loras=lora or (), vae=vae, asked=asked)
        run_plan = reproduce.build(parameters, found, overrides=raw, init_image=init, mask=mask)
        if plan:
            _out.document("run-plan", {"plan": run_plan.to_json(), "digest": run_plan.digest()})
            return
        targets = [target_of(out, f"picture-{run_plan.seed + n}", many=count > 1) for n in range(count)]
        _announce(run_plan.deviations, parameters, journey.missing_words(found, prompt))
        cache = reproduce.new_cache(offload)
        for number, target in enumerate(targets):
            each = replace(run_plan, seed=run_plan.seed + number)
            label = f"{number + 1} of {count}: " if count > 1 else ""
            refuse_overwriting(target, reproduce.Source("", parameters), init, mask)
            with _progress.steps(f"{label}loading") as tick:
                result = reproduce.run(
                    each,
                    registry=registry,
                    name="picture",
                    out=target,
                    used=[resource.installed for resource in found if resource.installed is not None],
                    source={"command": "generate"},
                    device=given(device, settings.device),
                    dtype=given(dtype, settings.dtype),
                    cache=cache,
                    on_step=labelled(tick, label),
                )
            _show(result, first=number == 0, told=run_plan.deviations)
            results.append(result)
    if _flags.CURRENT.json:
        _document(results, many=count > 1)


def _announce(deviations: Sequence[str], parameters: Any, words: dict[str, tuple[str, ...]]) -> None:
    from hubctl.cli.inspect import one_line

    for deviation in deviations:
        _out.warn(f"deviation: {deviation}")
    _out.say(one_line(parameters))
    for name, some in words.items():
        _out.hint(f"{name} answers to {', '.join(f'`{word}`' for word in some)}, which is not in the prompt")


def _show(result: Reproduction, *, first: bool, told: Sequence[str]) -> None:
    if first:
        for note in result.deviations:
            if note not in told:
                _out.warn(note)
    _out.say(f"✓ seed {result.plan.seed}, made in {result.seconds:.1f} s on {result.device}")
    if not _flags.CURRENT.json:
        _out.line(str(result.image))
    warn_unrecorded(result)


def _document(results: Sequence[Reproduction], *, many: bool) -> None:
    items = [{**result.to_json(), "settings_changed": False} for result in results]
    if many:
        _out.document("run-batch", {"items": items, "failures": [], "count": len(items)})
    else:
        _out.document("run", items[0])

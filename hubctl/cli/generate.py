"""hubctl generate: make a picture with a model's recommended settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import Device, Dtype


def generate(
    prompt: Annotated[str, typer.Argument(help="A1111 syntax: (word:1.2), <lora:name:0.8>, embeddings by name")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="REF", help="An installed checkpoint")],
    lora: Annotated[list[str] | None, typer.Option("--lora", metavar="REF[:WEIGHT]", help="An installed LoRA")] = None,
    vae: Annotated[str | None, typer.Option("--vae", metavar="REF", help="An installed VAE")] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="What should not be there")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: a random one, printed")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=1000)] = None,
    cfg: Annotated[float | None, typer.Option("--cfg", help="CFG scale")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help='"DPM++ 2M Karras", euler_ancestral, …')] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the run plan as JSON and stop")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.png", help="Where to write")] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Make a picture, starting from the model's recommended settings.

    Example: hubctl generate "thnos man, sunset" --model 4100 --lora 4201:0.9
    """
    from hubctl import generate as journey
    from hubctl import reproduce
    from hubctl.cli.reproduce import finish, parse_size

    settings = _app.settings()
    known, raw = reproduce.parse_settings(set_ or ())
    asked = {
        "negative_prompt": negative, "seed": seed, "steps": steps, "cfg_scale": cfg, "sampler": sampler,
        **parse_size(size), **known,
    }  # fmt: skip
    with _app.open_registry() as registry:
        parameters, found = journey.prepare(prompt, model, registry, loras=lora or (), vae=vae, asked=asked)
        run_plan = reproduce.build(parameters, found, overrides=raw)
        if plan:
            _out.document("run-plan", {"plan": run_plan.to_json(), "digest": run_plan.digest()})
            return
        for deviation in run_plan.deviations:
            _out.warn(f"deviation: {deviation}")
        if not (_flags.CURRENT.quiet or _flags.CURRENT.json):
            from hubctl.cli.inspect import one_line

            _out.say(one_line(parameters))
        chosen_device, chosen_dtype = device or settings.device, dtype or settings.dtype
        with _progress.steps("loading") as tick:
            result = reproduce.run(
                run_plan,
                registry=registry,
                name="picture",
                out=out,
                used=[resource.installed for resource in found if resource.installed is not None],
                source={"command": "generate"},
                device=None if chosen_device == "auto" else chosen_device,
                dtype=None if chosen_dtype == "auto" else chosen_dtype,
                on_step=tick,
            )
    finish(result, changed=False)

"""Render the demo's example pictures with hubctl's own runner: `python -m hubctl.demo.make [ID ...]`.

Only needed when the catalog's recipes or the runner change; the pictures are packaged.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from hubctl import __version__, infotext
from hubctl.demo import ASSETS, asset
from hubctl.demo.catalog import ENTRIES, Example, examples
from hubctl.parameters import GenerationParameters, Generator, ResourceRef, sampler_name, schedule_name
from hubctl.run import plan as run_plan
from hubctl.run import runner


def parameters_of(example: Example, folder: Path) -> GenerationParameters:
    """A recipe as parameters, its files named and hashed as a WebUI would."""
    sampler, _ = sampler_name(example.sampler)
    names: list[tuple[str, str, float | None]] = [("checkpoint", f"{example.checkpoint}.safetensors", None)]
    if "<lora:thnos:" in example.prompt:
        weight = float(example.prompt.rpartition("<lora:thnos:")[2].partition(">")[0])
        names.append(("lora", "thnos.safetensors", weight))
    if "gruffman" in example.prompt:
        names.append(("embedding", "gruffman.safetensors", None))
    if example.vae:
        names.append(("vae", f"{example.vae}.safetensors", None))
    resources = []
    for kind, name, strength in names:
        data = (folder / name).read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        digest = hashlib.sha256(data[header:] if kind == "lora" else data).hexdigest()
        resources.append(
            ResourceRef(kind, Path(name).stem, strength, hash=digest[: 12 if kind in {"lora", "embedding"} else 10])
        )
    return GenerationParameters(
        prompt=example.prompt,
        negative_prompt=example.negative,
        steps=example.steps,
        sampler=sampler,
        schedule=schedule_name(example.schedule),
        cfg_scale=example.cfg,
        seed=example.seed,
        width=96,
        height=96,
        rng="nv" if example.rng == "nv" else "cpu",
        resources=tuple(resources),
        generator=Generator("hubctl", __version__),
    )


def main(wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in ENTRIES:
            for file in entry.files:
                (folder / file).write_bytes(asset(file))

        def locate(ref: ResourceRef) -> run_plan.Located | None:
            path = folder / f"{ref.name}.safetensors"
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            return run_plan.Located(path, sha256=sha256, name=path.stem, kind=ref.kind) if path.exists() else None

        cache = runner.ModelCache()
        for _, example in examples():
            if wanted and str(example.id) not in wanted:
                continue
            plan = run_plan.build(parameters_of(example, folder), locate=locate)
            result = runner.run(plan, cache=cache, device="cpu", dtype="fp32")
            text = infotext.a1111.write(run_plan.describe(plan))
            target = ASSETS / "images" / f"{example.id}.png"
            runner.save(result, target, infotext=text, record={})
            target.with_suffix(".json").unlink()
            sys.stdout.write(f"{example.id}  {result.seconds:.1f} s  {'; '.join(result.deviations)}\n{text}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])

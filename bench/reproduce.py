"""Speed and memory of a run beside a bare diffusers pipeline on the same files.

    python bench/reproduce.py                  the demo's miniature model, and SD 1.5 at full size (random weights)
    python bench/reproduce.py --tiny           only the miniature
    python bench/reproduce.py --size 512 --steps 6 --rounds 2

Every figure comes from a process of its own: load time without imports, time from the start of the process to the end
of the first step, median seconds a step after the first, peak memory. Both sides take turns, so that a busy machine is
busy for both; what is printed are medians. The full-size checkpoint is written once into the user's cache folder (2 and
4 GB).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("HUBCTL_SHARED", ROOT.parent / "shared"))
STARTED = time.perf_counter()
PROMPT = "a robot with a top hat, city at night"


def peak() -> int:
    """Most memory this process ever had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> int:
    """Start counting the peak anew; returns what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


# --- workers: one process each ----------------------------------------------------------------------------------------


class Clock:
    """When steps ended, and how much of the time between them was spent inside the UNet."""

    def __init__(self, unet: Any) -> None:
        self.ends: list[float] = []
        self.inside, self.at_tick = 0.0, [0.0]
        unet.register_forward_pre_hook(lambda *_: setattr(self, "entered", time.perf_counter()))
        unet.register_forward_hook(self._left)

    def _left(self, *_: Any) -> None:
        self.inside += time.perf_counter() - self.entered

    def tick(self) -> None:
        self.ends.append(time.perf_counter())
        self.at_tick.append(self.inside)

    def report(self) -> dict[str, Any]:
        steps = [b - a for a, b in itertools.pairwise(self.ends)]
        unet = self.at_tick[-1] - self.at_tick[1]
        return {
            "first": self.ends[0] - STARTED,
            "step": statistics.median(steps),
            "overhead": (sum(steps) - unet) / unet,
        }


def ours(o: argparse.Namespace) -> dict[str, Any]:
    import diffusers.models.autoencoders.autoencoder_kl
    import diffusers.models.unets.unet_2d_condition  # noqa: F401
    import torch
    from transformers import CLIPTextModel  # noqa: F401

    from hubctl.run import loader, runner
    from hubctl.run.plan import RunPlan

    if o.what == "load":
        return _timed(o, lambda device, dtype: loader.load(o.model, device=device, dtype=dtype))
    plan = RunPlan(
        checkpoint=str(o.model), prompt=PROMPT, negative_prompt="", sampler="dpmpp_2m", schedule="karras",
        steps=o.steps, cfg_scale=7.0, seed=1, width=o.size, height=o.size, rng="cpu", whole_timesteps=True,
    )  # fmt: skip
    cache = runner.ModelCache()
    before = time.perf_counter()
    model, _ = cache.get(plan, torch.device("cpu"), _dtype(o.dtype))
    loaded = time.perf_counter() - before
    clock = Clock(model.unet)
    runner.run(
        plan,
        on_step=lambda s: clock.tick() if s.denoised is not None else None,
        device="cpu",
        dtype=o.dtype,
        cache=cache,
    )
    out = {**clock.report(), "load": loaded, "peak": peak()}
    again = runner.run(plan, on_step=lambda s: None, device="cpu", dtype=o.dtype, cache=cache) if o.again else None
    return {**out, "load_again": again.load_seconds if again else None}


def theirs(o: argparse.Namespace) -> dict[str, Any]:
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    def load(device: Any, dtype: Any) -> Any:
        return StableDiffusionPipeline.from_single_file(
            str(o.model), config=str(o.config), local_files_only=True, safety_checker=None, torch_dtype=dtype
        ).to(device)

    if o.what == "load":
        return _timed(o, load)
    before = time.perf_counter()
    pipeline = load("cpu", _dtype(o.dtype))
    loaded = time.perf_counter() - before
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    pipeline.set_progress_bar_config(disable=True)
    clock = Clock(pipeline.unet)

    def on_step(_pipeline: Any, _step: int, _t: Any, kept: dict[str, Any]) -> dict[str, Any]:
        clock.tick()
        return kept

    pipeline(
        PROMPT, num_inference_steps=o.steps, guidance_scale=7.0, width=o.size, height=o.size,
        generator=torch.Generator().manual_seed(1), callback_on_step_end=on_step,
    )  # fmt: skip
    return {**clock.report(), "load": loaded, "peak": peak()}


def _dtype(name: str) -> Any:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16}[name]


def _timed(o: argparse.Namespace, load: Any) -> dict[str, Any]:
    """Loading alone, every weight touched, so that mapped files are really read."""
    import torch

    before = forget_peak()
    start = time.perf_counter()
    model = load(torch.device("cpu"), _dtype(o.dtype))
    seconds = time.perf_counter() - start
    encoder = model.encoders if hasattr(model, "encoders") else [model.text_encoder]
    for module in (model.unet, model.vae, *encoder):
        for parameter in module.parameters():
            parameter.flatten()[::1024].sum()  # one number of every page
    return {"load": seconds, "touched": time.perf_counter() - start, "peak": peak() - before, "imports": before}


def lora(o: argparse.Namespace) -> dict[str, Any]:
    """From one LoRA to another and back, on a loaded model."""
    import torch

    from hubctl.run import loader
    from hubctl.run.lora import Adapters

    model = loader.load(o.model, device=torch.device("cpu"), dtype=_dtype(o.dtype))
    adapters = Adapters(model)
    files = [write_lora(o.model.with_name(f"bench-lora-{seed}.safetensors"), model, seed) for seed in (1, 2)]
    seconds = []
    with torch.inference_mode():
        for turn in range(7):
            start = time.perf_counter()
            adapters.set([(files[turn % 2], 0.8, 0.8, None)])
            seconds.append(time.perf_counter() - start)
    size = files[0].stat().st_size
    return {"first": seconds[0], "switch": statistics.median(seconds[2:]), "bytes": size}


def write_lora(path: Path, model: Any, seed: int, rank: int = 32) -> Path:
    """A kohya LoRA over every attention and feed-forward layer of UNet and text encoder."""
    if path.exists():
        return path
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for prefix, root in (("lora_unet_", model.unet), ("lora_te_text_model_", model.encoders[0])):
        for name, module in root.named_modules():
            if not isinstance(module, torch.nn.Linear) or not any(part in name for part in ("attn", "ff", "mlp")):
                continue
            key = prefix + name.removeprefix("text_model.").replace(".", "_")
            tensors[f"{key}.lora_down.weight"] = (
                torch.randn(rank, module.in_features, generator=generator).half() * 0.02
            )
            tensors[f"{key}.lora_up.weight"] = torch.randn(module.out_features, rank, generator=generator).half() * 0.02
            tensors[f"{key}.alpha"] = torch.tensor(float(rank))
    save_file(tensors, path)
    return path


# --- what is measured -------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    from platformdirs import user_cache_path

    folder = user_cache_path("hubctl") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def full_size(dtype: str) -> Path:
    """SD 1.5's geometry with random weights."""
    path = cache_folder() / f"sd15-random-{dtype}.safetensors"
    if not path.exists():
        sys.path.insert(0, str(ROOT / "tests/run"))
        import layouts

        print(f"writing {path.name} …", file=sys.stderr)
        beside = path.with_suffix(".tmp")
        layouts.write(beside, layouts.weights(layouts.checkpoint(layouts.SD1), _dtype(dtype)))
        beside.replace(path)
    return path


def full_config() -> Path:
    """A diffusers folder for it: the miniature's, with SD 1.5's sizes."""
    folder = cache_folder() / "sd15-config"
    if folder.exists():
        return folder
    import shutil

    beside = folder.with_suffix(".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(SHARED / "demo-model/config", beside)
    changes: dict[str, dict[str, Any]] = {
        "unet/config.json": {
            "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8,
            "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 64,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        },
        "vae/config.json": {
            "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32,
            "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        "text_encoder/config.json": {
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
            "projection_dim": 768,
        },
    }  # fmt: skip
    for name, change in changes.items():
        path = beside / name
        path.chmod(0o644)
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    beside.replace(folder)
    return folder


def measure(side: str, what: str, model: Path, config: Path, o: argparse.Namespace, **more: Any) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--worker",
        side,
        "--what",
        what,
        "--model",
        str(model),
        "--config",
        str(config),
    ]
    for key, value in {"steps": o.steps, "size": o.size, "dtype": "fp32", "again": 0, **more}.items():
        command += [f"--{key}", str(value)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def both(what: str, model: Path, config: Path, o: argparse.Namespace, rounds: int, **more: Any) -> list[dict[str, Any]]:
    """Medians of both sides, measured in turns."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for side, results in found.items():
            results.append(measure(side, what, model, config, o, **more))
    return [
        {key: statistics.median(r[key] for r in results) for key, value in results[0].items() if value is not None}
        for results in found.values()
    ]


def compare_runs(title: str, model: Path, config: Path, o: argparse.Namespace, **more: Any) -> None:
    a, b = both("run", model, config, o, o.rounds, again=1 if "tiny" in title else 0, **more)
    steps, size = more.get("steps", o.steps), more.get("size", o.size)
    print(f"\n{title}, {size}×{size}, {steps} steps of DPM++ 2M Karras, CFG 7, float32")
    print("| | hubctl | diffusers | ratio |\n|---|--:|--:|--:|")
    for name, key, unit in (
        ("seconds a step", "step", "s"), ("outside the UNet, of the time in it", "overhead", "%"),
        ("process start to first step", "first", "s"), ("loading", "load", "s"), ("peak memory", "peak", "GB"),
    ):  # fmt: skip
        x, y = (side[key] / {"GB": 1e9, "%": 0.01}.get(unit, 1) for side in (a, b))
        print(f"| {name} | {x:.3f} {unit} | {y:.3f} {unit} | {x / y:.3f} |")
    if "load_again" in a:
        print(f"\nloading for the second run of a batch: {1000 * a['load_again']:.2f} ms")


def compare_loads(config: Path, o: argparse.Namespace) -> None:
    print("\nSD 1.5, loading alone, every weight touched (peak above what the imports take)")
    print("| file → memory | hubctl | from_single_file | ratio | hubctl peak / file | / loaded | their peak / file |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for stored, asked in (("fp16", "fp16"), ("fp32", "fp32"), ("fp16", "fp32"), ("fp32", "fp16")):
        model = full_size(stored)
        size = model.stat().st_size
        loaded = size * {"fp16": 1, "fp32": 2}[asked] / {"fp16": 1, "fp32": 2}[stored]
        a, b = both("load", model, config, o, o.rounds, dtype=asked)
        print(
            f"| {stored} → {asked} | {a['touched']:.2f} s | {b['touched']:.2f} s | {a['touched'] / b['touched']:.2f} "
            f"| {a['peak'] / size:.2f} | {a['peak'] / loaded:.2f} | {b['peak'] / size:.2f} |"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--steps", type=int, default=4)
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--worker", choices=["ours", "theirs", "lora"])
    arguments.add_argument("--what", default="run")
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--config", type=Path)
    arguments.add_argument("--dtype", default="fp32")
    arguments.add_argument("--again", type=int, default=0)
    o = arguments.parse_args()
    if o.worker:
        print(json.dumps({"ours": ours, "theirs": theirs, "lora": lora}[o.worker](o)))
        return
    demo = SHARED / "demo-model"
    if not demo.is_dir():
        raise SystemExit(f"needs the miniature model in {demo} (set HUBCTL_SHARED)")
    compare_runs("tiny demo model", demo / "tiny-toon-v1.safetensors", demo / "config", o, steps=20, size=96)
    if o.tiny:
        return
    config = full_config()
    compare_loads(config, o)
    found = measure("lora", "run", full_size("fp16"), config, o, dtype="fp32")
    print(
        f"\nLoRA of {found['bytes'] / 1e6:.0f} MB on SD 1.5 in float32: {found['switch']:.2f} s to switch to another, "
        f"{found['first']:.2f} s the first time (read and merged)"
    )
    compare_runs("SD 1.5", full_size("fp16"), config, o)


if __name__ == "__main__":
    main()

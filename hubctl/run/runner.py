"""RunPlan → pictures. Torch and diffusers' modules; no hub, no library, no network.

The order of a pass: tags → adapters into the weights → AND → timelines → conditioning → first noise → sampler over the
CFG denoiser → (second pass) → VAE → 8 bits, truncated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from hubctl.errors import RunError
from hubctl.run import devices, loader, pictures, prompt, samplers
from hubctl.run.denoiser import Blend, Call, Conds, Denoiser, conditioning
from hubctl.run.encode import Encoder, load_embedding
from hubctl.run.lora import Adapters
from hubctl.run.noise import BatchNoise, ImageNoise, NoiseSource, Rng, brownian
from hubctl.run.pictures import decode, encode_image
from hubctl.run.plan import HiresPlan, RunPlan
from hubctl.run.sigmas import SigmaTable, alphas_cumprod, hires_steps, img2img_steps, sigmas_for

__all__ = ["ModelCache", "RunResult", "StepInfo", "decode", "encode_image", "run", "save"]

COMFY_DISCARDS = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})
FORGE_CFG_PP = 1.0  # Forge leaves the scale of DDIM CFG++ as it is
A1111_CFG_PP = 1 / 12.5  # A1111 maps 0 … 12.5 to the paper's 0 … 1


@dataclass(frozen=True)
class StepInfo:
    """Progress: `done` of `total`, and what is being done.

    `denoised`: the latest estimate of the finished latents, at noise level `sigma`. A caller that has seen enough may
    raise from its callback: nothing is left half done.
    """

    done: int
    total: int
    what: str
    denoised: Tensor | None = None
    sigma: float | None = None


@dataclass(frozen=True)
class PassInfo:
    """What a pass was made of, for those who compare: its conditioning, first noise and every call of the UNet."""

    conds: Conds
    noise: Tensor
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class RunResult:
    """`latents`: final latents [batch, 4, h, w] before VAE scaling; `seconds` without loading."""

    images: list[Image.Image]
    latents: Tensor
    first_pass: Tensor | None
    seconds: float
    load_seconds: float
    peak_bytes: int
    device: str
    dtype: str
    versions: Mapping[str, str]
    deviations: tuple[str, ...]
    passes: tuple[PassInfo, ...] = ()


@dataclass
class ModelCache:
    """Keeps what was loaded last, so that a batch on one checkpoint (and one refiner) loads nothing again.

    `offload`: none, model or sequential; None picks by the device's free memory.
    """

    offload: str | None = None
    _kept: dict[str, tuple[tuple[Any, ...], loader.Model, Adapters]] = field(default_factory=dict)

    def get(self, plan: RunPlan, device: torch.device, dtype: torch.dtype) -> tuple[loader.Model, Adapters]:
        return self._get("base", plan.checkpoint, plan.vae, device, dtype)

    def refiner(self, plan: RunPlan, base: loader.Model) -> tuple[loader.Model, Adapters]:
        return self._get("refiner", plan.refiner or "", None, base.device, base.dtype)

    def _get(
        self, role: str, path: str, vae: str | None, device: torch.device, dtype: torch.dtype
    ) -> tuple[loader.Model, Adapters]:
        key = (path, vae, str(device), dtype)
        if role not in self._kept or self._kept[role][0] != key:
            self._kept.pop(role, None)  # free the old one before the new one is read
            model = loader.load(
                Path(path), vae_path=Path(vae) if vae else None, device=device, dtype=dtype, offload=self.offload
            )
            self._kept[role] = (key, model, Adapters(model))
        return self._kept[role][1:]


# --- one batch ---


@dataclass
class Batch:
    """One batch of pictures: what its passes share."""

    plan: RunPlan
    cache: ModelCache
    model: loader.Model
    adapters: Adapters
    seeds: list[int]
    subseeds: list[int]
    on_step: Callable[[StepInfo], None]
    notes: list[str] = field(default_factory=list)
    passes: list[PassInfo] = field(default_factory=list)
    decoder: loader.Model = field(init=False)
    finish: Callable[[Image.Image], Image.Image] | None = None

    def __post_init__(self) -> None:
        plan, model = self.plan, self.model
        self.decoder = model
        self.alphas = alphas_cumprod(
            zero_terminal_snr=plan.zero_terminal_snr or model.zero_terminal_snr, downcast=plan.downcast_alphas
        )
        self.table = SigmaTable.of(self.alphas, quantize=plan.whole_timesteps)
        guess = (plan.seed + 100000) % 65536  # where Forge leaves its global generator, as far as anything is known
        self.stray = torch.Generator().manual_seed(guess if plan.stray_seed is None else plan.stray_seed)

    # --- passes ---

    def run(self) -> tuple[Tensor, Tensor | None]:
        """Final latents, and the first pass's where there are two."""
        plan, model = self.plan, self.model
        positive, encoder = self.encoder(model, self.adapters, plan.prompt)
        calls = expected_calls(plan, plan.sampler, plan.steps)
        conds = conditioning(encoder, plan, positive, plan.negative_prompt, calls, (plan.width, plan.height))
        noise = self.noise()
        begun = None
        if plan.init_image:
            sampled = self.stray if plan.stray_seed is not None else None
            begun = pictures.start(plan, model, ImageNoise(_rng(plan.rng), self.seeds).first, sampled)
        shape = (model.unet.config.out_channels, plan.height // model.factor, plan.width // model.factor)
        fresh = noise.first(tuple(begun.latent.shape[1:]) if begun else shape).to(model.device)
        denoiser = self.denoiser(conds, plan.sampler, plan.cfg_scale)
        if model.unet.config.in_channels == 9:
            denoiser.extra = pictures.inpainting_channels(model, (plan.width, plan.height), begun, plan.mask_weight)
        if begun is not None and begun.mask is not None:
            denoiser.blend = self.blend(begun.latent, begun.mask, plan.sampler)
        self.refine(denoiser, "first pass", plan.prompt, plan.negative_prompt, calls, (plan.width, plan.height))
        latent = self.sample(
            denoiser, noise, plan.sampler, plan.schedule, plan.steps, fresh,
            begun=begun.latent if begun else None,
            strength=plan.denoise if begun and plan.denoise is not None else None,
            exact=plan.exact_steps,
        )  # fmt: skip
        if denoiser.blend is not None:
            latent = denoiser.blend.over(latent)
        self.finish = begun.finish if begun is not None else None
        if plan.hires is None:
            return latent, None
        return self.second(plan.hires, latent, calls), latent

    def second(self, hires: HiresPlan, latent: Tensor, first_calls: int) -> Tensor:
        """The pass at the larger size: new generators, the same seeds."""
        plan, model = self.plan, self.model
        name = hires.sampler if hires.sampler in samplers.SAMPLERS else plan.sampler
        assert name is not None
        text = hires.prompt if hires.prompt is not None else plan.prompt
        negative = hires.negative_prompt if hires.negative_prompt is not None else plan.negative_prompt
        positive, encoder = self.encoder(model, self.adapters, text)
        calls = expected_calls(plan, name, hires.steps)
        size = (hires.width, hires.height)
        conds = conditioning(encoder, plan, positive, negative, first_calls, size, hires_calls=calls)
        larger = pictures.enlarge(hires, model, self.decoder, latent)
        self.decoder = model
        denoiser = self.denoiser(conds, name, hires.cfg_scale if hires.cfg_scale is not None else plan.cfg_scale)
        if model.unet.config.in_channels == 9:
            target = (larger.shape[3] * model.factor, larger.shape[2] * model.factor)
            denoiser.extra = pictures.inpainting_channels(model, target, None, plan.mask_weight)
        self.refine(denoiser, "second pass", text, negative, first_calls, size, calls)
        noise = self.noise()
        fresh = noise.first(tuple(larger.shape[1:])).to(model.device)
        return self.sample(
            denoiser, noise, name, hires.schedule or plan.schedule, hires.steps, fresh, begun=larger,
            strength=hires.denoise, exact=True, what="second pass, step",
        )  # fmt: skip

    # --- what a pass needs ---

    def encoder(self, model: loader.Model, adapters: Adapters, text: str) -> tuple[str, Encoder]:
        """Tags out of the prompt and into the weights; an encoder with this plan's embeddings."""
        plan = self.plan
        positive, tags = prompt.extract_networks(text)
        wanted = []
        for tag in tags:
            path = plan.loras.get(tag.name.casefold()) if tag.kind in {"lora", "lyco"} else None
            if path is not None:
                wanted.append((Path(path), tag.weight_unet, tag.weight_te, tag.dyn))
            elif tag.kind in {"lora", "lyco"}:
                self.notes.append(f"LoRA `{tag.name}` is missing: the picture is made without it")
        self.notes += adapters.set(wanted, flavour=plan.flavour)
        return positive, Encoder(
            model,
            [load_embedding(Path(path), name) for name, path in plan.embeddings.items()],
            clip_skip=plan.clip_skip,
            emphasis=plan.emphasis,
            forge=plan.flavour == "forge",
            comfy=plan.flavour == "comfy",
            comma_backtrack=plan.comma_backtrack,
            clip_skip_sdxl=plan.clip_skip_sdxl,
        )

    def noise(self) -> ImageNoise | BatchNoise:
        plan = self.plan
        if plan.flavour == "comfy":
            return BatchNoise(self.seeds[0], len(self.seeds), _rng(plan.step_rng or plan.rng))
        return ImageNoise(
            rng=_rng(plan.rng),
            seeds=self.seeds,
            subseeds=self.subseeds,
            strength=plan.subseed_strength,
            resize_from=plan.seed_resize,
            ensd=plan.ensd,
            factor=self.model.factor,
        )

    def denoiser(self, conds: Conds, name: str, scale: float) -> Denoiser:
        info = samplers.SAMPLERS[name]
        if name == "ddim_cfgpp":
            scale *= A1111_CFG_PP if self.plan.flavour == "a1111" else FORGE_CFG_PP
        return Denoiser(
            self.model, self.table, self.alphas, conds, scale, self.plan, lcm=name == "lcm", keep_uncond=info.uncond
        )

    def stray_noise(self, like: Tensor) -> samplers.Noise:
        """Forge's DDPM draws for the whole batch from the global generator: the card's, seeded with the first noise."""
        if self.plan.stray_seed is not None:
            return lambda *_: torch.randn(like.shape, generator=self.stray).to(like.device)
        drawn = NoiseSource("nv", (self.seeds[-1] + 100000) % 65536)
        return lambda *_: drawn.randn(like.shape).to(like.device)

    def blend(self, original: Tensor, mask: Tensor, name: str) -> Blend:
        if self.plan.flavour == "a1111":
            return Blend(original, mask, before=samplers.SAMPLERS[name].family == "ddim")
        return Blend(original, mask, lambda like: torch.randn(like.shape, generator=self.stray).to(like.device))

    def refine(
        self, denoiser: Denoiser, which: str, text: str, negative: str, calls: int, size: tuple[int, int],
        hires_calls: int | None = None,
    ) -> None:  # fmt: skip
        """Let a pass hand over to the refiner, which encodes the prompts anew; its VAE then makes the picture."""
        plan = self.plan
        if not plan.refiner or (plan.hires is not None and plan.refiner_pass not in {which, "both"}):
            return

        def switch() -> tuple[loader.Model, Conds]:
            model, adapters = self.cache.refiner(plan, self.model)
            positive, encoder = self.encoder(model, adapters, text)
            self.decoder = self.model if plan.vae else model
            return model, conditioning(encoder, plan, positive, negative, calls, size, hires_calls=hires_calls)

        denoiser.switch = switch

    # --- sampling ---

    def levels(self, info: samplers.SamplerInfo, name: str, schedule: str | None, steps: int) -> Tensor:
        """σ list of a sampler and schedule."""
        plan = self.plan
        comfy = plan.flavour == "comfy"
        distilled = name == "lcm" and not comfy and schedule != "turbo"  # Turbo goes by the model's own table
        table = SigmaTable(self.table.sigmas[19::20], quantize=True) if distilled else self.table
        return sigmas_for(
            schedule or info.automatic,
            steps,
            table,
            sdxl=self.model.is_xl,
            comfy=comfy,
            sigma_min=plan.sigma_min,
            sigma_max=plan.sigma_max,
            rho=plan.rho,
            discard_penultimate=plan.discard_penultimate
            or (name in COMFY_DISCARDS if comfy else info.discard_penultimate),
            beta_alpha=plan.beta_alpha,
            beta_beta=plan.beta_beta,
        )

    def sample(
        self, denoiser: Denoiser, noise: ImageNoise | BatchNoise, name: str, schedule: str | None, steps: int,
        fresh: Tensor, *, begun: Tensor | None, strength: float | None, exact: bool = False, what: str = "step",
    ) -> Tensor:  # fmt: skip
        """Sample from noise (`begun` None) or from a latent at a strength; `exact`: exactly `steps` steps run."""
        plan, info = self.plan, samplers.SAMPLERS[name]
        total, skip = steps, 0
        if begun is not None:
            total, skip = (hires_steps if exact else img2img_steps)(steps, 0.75 if strength is None else strength)
        if begun is not None and not total:  # a strength of 0, and no step asked for all the same
            self.passes.append(PassInfo(denoiser.conds, fresh, ()))
            return begun
        denoiser.progress_calls = expected_calls(plan, name, total - skip)
        first = fresh
        if begun is not None and plan.init_image:
            fresh = fresh * plan.noise_multiplier

        def tick(index: int, count: int) -> None:
            level = denoiser.trace[-1].sigma if denoiser.trace else None
            self.on_step(StepInfo(index + 1, count, f"{what} {index + 1}", denoiser.last, level))

        if info.family == "ddim":
            out = self._ddim(denoiser, noise, name, total, begun, fresh, total - skip - 1, tick)
        else:
            out = self._k(denoiser, noise, info, self.levels(info, name, schedule, total), skip, begun, fresh, tick)
        self.passes.append(PassInfo(denoiser.conds, first, tuple(denoiser.trace)))
        return out

    def _k(
        self, denoiser: Denoiser, noise: ImageNoise | BatchNoise, info: samplers.SamplerInfo, levels: Tensor, skip: int,
        begun: Tensor | None, fresh: Tensor, tick: samplers.OnStep,
    ) -> Tensor:  # fmt: skip
        """The k-diffusion family: x = latent + σ·noise, on a list of noise levels."""
        plan = self.plan
        kept = levels[skip:]
        top = float(kept[0])
        unit = plan.sgm_noise or (plan.flavour == "comfy" and top > self.table.sigma_max * (1 - 1e-5))
        factor = (1 + top**2) ** 0.5 if unit and begun is None else top
        x = fresh * factor if begun is None else begun + fresh * factor
        if begun is not None and plan.extra_noise:
            x = x + fresh * plan.extra_noise
        options: dict[str, Any] = {key: value for key, value in plan.options.items() if key in info.options}
        if "eta" in info.options:
            options["eta"] = plan.eta
        if info.uncond:
            options["uncond"] = lambda: denoiser.uncond
        source: samplers.Noise = lambda *_: noise.like(x)  # noqa: E731
        if plan.flavour == "forge" and info.function is samplers.sample_ddpm:
            source = self.stray_noise(x)
        if info.noise == "brownian":
            comfy = plan.flavour == "comfy"
            spanned = kept if comfy else levels
            low, high = float(spanned[spanned > 0].min()), float(spanned.max())
            source = brownian(
                x, low, high, self.seeds, _rng((plan.step_rng if comfy else None) or plan.rng), joint=comfy
            )
        if info.family == "range":
            ends = (kept[-2], kept[0], len(kept) - 1)
            if begun is None and plan.flavour != "comfy":
                ends = (self.table.sigmas[0], self.table.sigmas[-1], plan.steps)
            return info.function(denoiser, x, *ends, noise=source, on_step=tick, **options)
        return info.function(denoiser, x, kept, noise=source, on_step=tick, **options)

    def _ddim(
        self, denoiser: Denoiser, noise: ImageNoise | BatchNoise, name: str, total: int, begun: Tensor | None,
        fresh: Tensor, t_enc: int, tick: samplers.OnStep,
    ) -> Tensor:  # fmt: skip
        """The DDIM family: x at unit scale, on its own grid of timesteps."""
        plan = self.plan
        grid = samplers.ddim_timesteps(total + 1 if plan.discard_penultimate else total)
        x = fresh
        if begun is not None:
            t_enc = min(t_enc, len(grid) - 1)
            alpha = float(self.alphas[int(grid[t_enc])])
            x = alpha**0.5 * begun + (1 - alpha) ** 0.5 * fresh
            if plan.extra_noise:
                x = x + fresh * plan.extra_noise * alpha**0.5
            grid = grid[:t_enc]
        source: samplers.Noise = lambda *_: noise.like(x)  # noqa: E731
        if not len(grid):  # so little strength that no timestep is left
            return x
        if name.startswith("uni_pc"):
            start = 1.0 if begun is None else float(grid[-1] / 1000 + 1 / 1000)  # in float32, as the reference adds
            options = {"variant": "bh2" if name == "uni_pc_bh2" else "bh1", **plan.unipc}
            return samplers.sample_uni_pc(denoiser.eps, x, len(grid), self.alphas, start=start, on_step=tick, **options)
        if name == "plms":
            return samplers.sample_plms(denoiser.eps, x, grid, self.alphas, noise=source, on_step=tick)
        uncond: Any = (lambda: denoiser.uncond) if samplers.SAMPLERS[name].uncond else None
        return samplers.sample_ddim(
            denoiser.eps, x, grid, self.alphas, noise=source, on_step=tick, eta=plan.eta_ddim, uncond=uncond
        )


def _rng(name: str) -> Rng:
    return "cpu" if name == "cpu" else "nv"


def expected_calls(plan: RunPlan, sampler: str, steps: int) -> int:
    """N of prompt timelines: twice the steps for samplers of second order."""
    return steps * 2 if samplers.SAMPLERS[sampler].second_order and not plan.old_counts else steps


# --- the whole run ---


def run(
    plan: RunPlan,
    *,
    on_step: Callable[[StepInfo], None] = lambda step: None,
    device: str | None = None,
    dtype: str | None = None,
    cache: ModelCache | None = None,
) -> RunResult:
    """Make the plan's pictures. Raises RunError, for a device that is too small too, and UnsafeFile."""
    try:
        return _run(plan, on_step, device, dtype, cache)
    except RuntimeError as error:  # torch's own for this is one
        if not pictures.out_of_memory(error):
            raise
    raise RunError(  # here the error is gone, and with it what it held on to
        f"a picture of {plan.width}×{plan.height} does not fit into this device's memory",
        hint="try --offload model (or sequential), --dtype fp16, a smaller --size, or --device cpu",
    )


def _run(
    plan: RunPlan, on_step: Callable[[StepInfo], None], device: str | None, dtype: str | None, cache: ModelCache | None
) -> RunResult:
    where = devices.choose(device)
    kind = devices.choose_dtype(dtype, where)
    on_step(StepInfo(0, plan.steps, "loading"))
    before = time.perf_counter()
    cache = cache or ModelCache()
    model, adapters = cache.get(plan, where, kind)
    if model.vae is None and not plan.refiner:  # said before the work, not after it
        raise RunError(f"`{Path(plan.checkpoint).name}` has no VAE in it", hint="install one and pass it with --vae")
    loaded = time.perf_counter()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    images: list[Image.Image] = []
    latents: list[Tensor] = []
    firsts: list[Tensor] = []
    notes: list[str] = []
    passes: list[PassInfo] = []
    with torch.inference_mode():
        _set_tiling(model, plan.tiling)
        for turn in range(plan.iterations):
            batch = Batch(plan, cache, model, adapters, *_seeds(plan, turn), on_step)
            latent, first = batch.run()
            on_step(StepInfo(plan.steps, plan.steps, "decoding"))
            made = decode(batch.decoder, latent, batch.notes)
            images += [batch.finish(image) for image in made] if batch.finish else made
            latents.append(latent)
            firsts += [first] if first is not None else []
            notes += batch.notes
            passes += batch.passes
    return RunResult(
        images=images,
        latents=torch.cat(latents),
        first_pass=torch.cat(firsts) if firsts else None,
        seconds=time.perf_counter() - loaded,
        load_seconds=loaded - before,
        peak_bytes=_peak(where),
        device=str(where),
        dtype=str(kind).removeprefix("torch."),
        versions=_versions(),
        deviations=tuple(dict.fromkeys((*plan.deviations, *notes))),
        passes=tuple(passes),
    )


def _seeds(plan: RunPlan, turn: int) -> tuple[list[int], list[int]]:
    """(seeds, subseeds) of one batch: the seed counts up, or with a variation the subseed does."""
    numbers = range(turn * plan.batch, (turn + 1) * plan.batch)
    if plan.subseed_strength:
        return [plan.seed] * plan.batch, [(plan.subseed or 0) + n for n in numbers]
    return [plan.seed + n for n in numbers], [(plan.subseed or 0) + n for n in numbers]


def _set_tiling(model: loader.Model, on: bool) -> None:
    mode: Literal["circular", "zeros"] = "circular" if on else "zeros"
    for root in (model.unet, model.vae):
        for module in root.modules() if root is not None else ():
            if isinstance(module, torch.nn.Conv2d) and module.padding_mode != mode:
                module.padding_mode = mode


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "transformers")}


def save(result: RunResult, path: Path, *, infotext: str, record: Mapping[str, Any]) -> None:
    """PNG with the infotext a WebUI reads, and the record beside it; both appear whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if infotext.isascii():
        info.add_text("parameters", infotext)
    else:
        info.add_itxt("parameters", infotext)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    result.images[0].save(beside, format="PNG", pnginfo=info)
    beside.replace(path)
    path.with_suffix(".json").write_text(
        json.dumps(dict(record), ensure_ascii=False, indent=2, default=str), encoding="utf-8"
    )

"""RunPlan → pictures. Torch and diffusers' modules; no hub, no library, no network.

The order of a pass: tags → adapters into the weights → AND → timelines → conditioning → first noise → sampler over the
CFG denoiser → (second pass) → VAE → 8 bits, truncated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hubctl.errors import RunError
from hubctl.run import devices, loader, prompt, samplers
from hubctl.run.encode import Conditioning, Encoder, load_embedding
from hubctl.run.lora import Adapters
from hubctl.run.names import LATENT_UPSCALERS
from hubctl.run.noise import ImageNoise, brownian
from hubctl.run.plan import HiresPlan, RunPlan
from hubctl.run.sigmas import SigmaTable, alphas_cumprod, hires_steps, img2img_steps, sigmas_for


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


@dataclass
class ModelCache:
    """Keeps what was loaded last, so that a batch on one checkpoint loads nothing again."""

    key: tuple[Any, ...] | None = None
    model: loader.Model | None = None
    adapters: Adapters | None = None

    def get(self, plan: RunPlan, device: torch.device, dtype: torch.dtype) -> tuple[loader.Model, Adapters]:
        key = (plan.checkpoint, plan.vae, str(device), dtype)
        if self.key != key or self.model is None or self.adapters is None:
            self.model = self.adapters = None  # free the old one before the new one is read
            vae = Path(plan.vae) if plan.vae else None
            self.model = loader.load(Path(plan.checkpoint), vae_path=vae, device=device, dtype=dtype)
            self.adapters = Adapters(self.model)
            self.key = key
        return self.model, self.adapters


# --- conditioning of one pass ---


@dataclass(frozen=True)
class Timeline:
    """One prompt part over the calls of a pass."""

    weight: float
    entries: tuple[tuple[int, Conditioning], ...]

    def at(self, call: int) -> Conditioning:
        return self.entries[prompt.at_call(self.entries, call)][1]


def _timeline(encoder: Encoder, text: str, weight: float, entries: Sequence[tuple[int, str]]) -> Timeline:
    del text
    encoded = encoder.encode([entry for _, entry in entries])
    return Timeline(weight, tuple((end, c) for (end, _), c in zip(entries, encoded, strict=True)))


@dataclass
class Conds:
    """Positive parts and the negative of one pass, with SDXL's size vector."""

    parts: list[Timeline]
    negative: Timeline
    time_ids: Tensor | None = None


def conditioning(
    encoder: Encoder, plan: RunPlan, positive: str, negative: str, calls: int, size: tuple[int, int],
    *, hires_calls: int | None = None,
) -> Conds:  # fmt: skip
    """Encode a pass's prompts. `size` = (width, height) of this pass."""

    def entries(text: str) -> tuple[tuple[int, str], ...]:
        if plan.flavour == "comfy":
            return ((hires_calls or calls, text),)
        return prompt.schedule(text, calls, hires_calls=hires_calls, first_calls=calls, old=plan.old_timelines)

    parts = prompt.split_and(positive) if plan.flavour != "comfy" else ((positive, 1.0),)
    timelines = [_timeline(encoder, text, weight, entries(text)) for text, weight in parts]
    negative_timeline = _timeline(encoder, negative, 1.0, entries(negative))
    model = encoder.model
    ids = None
    if model.family == "sdxl":
        width, height = size
        top, left = plan.crop
        ids = torch.tensor([[height, width, top, left, height, width]], dtype=torch.float32, device=model.device)
        if not negative.strip() and plan.flavour != "comfy":
            zero = [
                (
                    end,
                    Conditioning(
                        torch.zeros_like(c.tokens), torch.zeros_like(c.vector) if c.vector is not None else None
                    ),
                )
                for end, c in negative_timeline.entries
            ]
            negative_timeline = Timeline(1.0, tuple(zero))
    return Conds(timelines, negative_timeline, ids)


# --- the denoiser ---


@dataclass
class Denoiser:
    """CFG in denoised space over an ε- or v-UNet; counts its calls, which prompt timelines go by."""

    model: loader.Model
    table: SigmaTable
    alphas: Tensor
    conds: Conds
    cfg_scale: float
    plan: RunPlan
    calls_expected: int
    lcm: bool = False
    blend: Callable[[Tensor], Tensor] | None = None
    switch: Callable[[], tuple[loader.Model, Conds]] | None = None
    call: int = 0
    uncond_eps: Tensor | None = None
    keep_uncond: bool = False
    last: Tensor | None = None  # the latest denoised estimate
    trace: list[tuple[float, float, int]] = field(default_factory=list)

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        """Denoised estimate at σ (a number or 0-d tensor)."""
        level = float(sigma)
        t = self._timestep(level)
        self._maybe_switch(t)
        c_in = 1 / (level**2 + 1) ** 0.5
        scale = self._scale(level)
        outputs, weights = self._evaluate(x * c_in, t, scale)
        denoised = [self._denoised(x, out, level, t) for out in outputs]
        result = self._combine(denoised, weights, scale)
        if self.blend is not None:
            result = self.blend(result)
        self.last = result
        self.trace.append((level, t, len(outputs)))
        self.call += 1
        return result

    def eps(self, x: Tensor, t: float) -> Tensor:
        """CFG-combined ε of the DDIM family: x at unit scale, t may be fractional."""
        if self.table.quantize:
            t = float(round(t))
        self._maybe_switch(t)
        alpha = float(self.alphas[min(max(int(t), 0), 999)])
        level = ((1 - alpha) / alpha) ** 0.5
        scale = self._scale(level)
        outputs, weights = self._evaluate(x, t, scale)
        if self.model.prediction == "v":
            outputs = [alpha**0.5 * out + (1 - alpha) ** 0.5 * x for out in outputs]
        self.uncond_eps = outputs[-1]
        result = self._combine(outputs, weights, scale)
        self.last = (x - (1 - alpha) ** 0.5 * result) / alpha**0.5
        self.trace.append((level, t, len(outputs)))
        self.call += 1
        return result

    def _timestep(self, level: float) -> float:
        if self.lcm and not self.table.quantize:  # the nearest of the fifty distilled timesteps
            fifty = self.table.sigmas[19::20]
            return float(20 * int((torch.log(torch.tensor(level)) - fifty.log()).abs().argmin()) + 19)
        return float(self.table.sigma_to_t(level))

    def _denoised(self, x: Tensor, out: Tensor, level: float, t: float) -> Tensor:
        if self.model.prediction == "v":
            return x / (level**2 + 1) - out * level / (level**2 + 1) ** 0.5
        denoised = x - level * out
        if self.lcm and not self.table.quantize:
            scaled = t * 10
            skip = 0.25 / (scaled**2 + 0.25)
            return scaled / (scaled**2 + 0.25) ** 0.5 * denoised + skip * x
        return denoised

    def _scale(self, level: float) -> float:
        plan = self.plan
        if plan.ngms and level < plan.ngms and (self.call % 2 or plan.ngms_all):
            return 1.0
        if plan.skip_early and self.call / max(self.calls_expected, 1) <= plan.skip_early:
            return 1.0
        return self.cfg_scale

    def _maybe_switch(self, t: float) -> None:
        plan = self.plan
        if self.switch is None or plan.refiner_at is None:
            return
        progress = self.call / max(self.calls_expected, 1) if plan.refiner_by_steps else (999 - round(t)) / 1000
        if progress >= plan.refiner_at:
            self.model, self.conds = self.switch()
            self.switch = None

    def _evaluate(self, x: Tensor, t: float, scale: float) -> tuple[list[Tensor], list[float]]:
        """UNet outputs of each positive part, then of the negative (left out at scale 1)."""
        conds = [part.at(self.call) for part in self.conds.parts]
        weights = [part.weight for part in self.conds.parts]
        needs_uncond = scale != 1.0 or len(conds) > 1 or weights != [1.0] or self.keep_uncond
        if needs_uncond:
            conds = [*conds, self.conds.negative.at(self.call)]
        if len({c.tokens.shape[0] for c in conds}) == 1:
            outputs = list(self._unet(torch.cat([x] * len(conds)), t, conds, len(x)).chunk(len(conds)))
        else:
            outputs = [self._unet(x, t, [c], len(x)) for c in conds]
        return outputs, weights

    def _unet(self, x: Tensor, t: float, conds: Sequence[Conditioning], batch: int) -> Tensor:
        model = self.model
        dtype = model.dtype
        context = torch.cat([c.tokens[None].expand(batch, -1, -1) for c in conds]).to(model.device, dtype)
        added = None
        if model.is_xl:
            pooled = [c.vector if c.vector is not None else torch.zeros(1) for c in conds]
            assert self.conds.time_ids is not None
            added = {
                "text_embeds": torch.cat([v[None].expand(batch, -1) for v in pooled]).to(model.device, dtype),
                "time_ids": self.conds.time_ids.expand(len(x), -1).to(model.device),
            }
        step = torch.full((len(x),), t, device=model.device, dtype=torch.float32)
        out = model.unet(x.to(dtype), step, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False)[
            0
        ]
        return out.float()  # type: ignore[no-any-return]

    def _combine(self, outputs: Sequence[Tensor], weights: Sequence[float], scale: float) -> Tensor:
        if len(outputs) == len(weights):
            return outputs[0]
        uncond = outputs[-1]
        result = uncond
        for out, weight in zip(outputs[:-1], weights, strict=True):
            result = result + weight * scale * (out - uncond)
        return result


# --- one pass ---


@dataclass
class Pass:
    """What both passes share."""

    plan: RunPlan
    model: loader.Model
    alphas: Tensor
    table: SigmaTable
    seeds: list[int]
    subseeds: list[int]
    on_step: Callable[[StepInfo], None]

    def noise(self) -> ImageNoise:
        plan = self.plan
        return ImageNoise(
            rng="cpu" if plan.rng == "cpu" else "nv",
            seeds=self.seeds,
            subseeds=self.subseeds,
            strength=plan.subseed_strength,
            resize_from=plan.seed_resize,
            ensd=plan.ensd,
            factor=self.model.factor,
        )

    def levels(self, info: samplers.SamplerInfo, name: str, schedule: str | None, steps: int) -> Tensor:
        """σ list of a sampler and schedule."""
        plan = self.plan
        chosen = schedule or info.automatic
        table = self.table
        if name == "lcm":
            table = SigmaTable(self.table.sigmas[19::20], self.table.quantize)
        return sigmas_for(
            chosen,
            steps,
            table,
            sdxl=self.model.is_xl,
            comfy=plan.flavour == "comfy",
            sigma_min=plan.sigma_min,
            sigma_max=plan.sigma_max,
            rho=plan.rho,
            discard_penultimate=plan.discard_penultimate or info.discard_penultimate,
            beta_alpha=plan.beta_alpha,
            beta_beta=plan.beta_beta,
        )

    def run(
        self, denoiser: Denoiser, noise: ImageNoise, name: str, schedule: str | None, steps: int, latent: Tensor | None,
        fresh: Tensor, *, strength: float | None = None, exact: bool = False, what: str = "step",
    ) -> Tensor:  # fmt: skip
        """Sample from noise (`latent` None) or from a latent at a strength; `exact`: exactly `steps` steps run."""
        info = samplers.SAMPLERS[name]
        total, skip = steps, 0
        if latent is not None and strength is not None:
            total, skip = hires_steps(steps, strength) if exact else img2img_steps(steps, strength)

        def tick(index: int, count: int) -> None:
            level = denoiser.trace[-1][0] if denoiser.trace else None
            self.on_step(StepInfo(index + 1, count, f"{what} {index + 1}", denoiser.last, level))

        if info.family == "ddim":
            return self._ddim(denoiser, noise, name, total, latent, fresh, total - skip - 1, exact, tick)
        levels = self.levels(info, name, schedule, total)
        kept = levels[skip:] if latent is not None else levels
        if latent is None:
            factor = (1 + float(kept[0]) ** 2) ** 0.5 if self.plan.sgm_noise else float(kept[0])
            x = fresh * factor
        else:
            x = latent + fresh * self.plan.noise_multiplier * float(kept[0])
            if self.plan.extra_noise:
                x = x + fresh * self.plan.extra_noise
        options = self._k_options(info)
        source = self._sampler_noise(info, noise, x, levels)
        if info.family == "range":
            low = levels[-2] if latent is not None else self.table.sigmas[0]
            high = kept[0] if latent is not None else self.table.sigmas[-1]
            count = len(kept) - 1 if latent is not None else steps
            return info.function(denoiser, x, low, high, count, noise=source, on_step=tick, **options)
        return info.function(denoiser, x, kept, noise=source, on_step=tick, **options)

    def _sampler_noise(
        self, info: samplers.SamplerInfo, noise: ImageNoise, x: Tensor, levels: Tensor
    ) -> samplers.Noise:
        if info.noise == "brownian":
            positive = levels[levels > 0]
            rng: Any = "cpu" if self.plan.rng == "cpu" else "nv"
            return brownian(x, float(positive.min()), float(levels.max()), self.seeds, rng)
        return lambda *_: noise.like(x)

    def _k_options(self, info: samplers.SamplerInfo) -> dict[str, float]:
        options = {name: value for name, value in self.plan.options.items() if name in info.options}
        if "eta" in info.options:
            options["eta"] = self.plan.eta
        return options

    def _ddim(
        self, denoiser: Denoiser, noise: ImageNoise, name: str, total: int, latent: Tensor | None, fresh: Tensor,
        t_enc: int, exact: bool, tick: samplers.OnStep,
    ) -> Tensor:  # fmt: skip
        del exact
        grid = samplers.ddim_timesteps(total)
        x = fresh
        if latent is not None:
            t_enc = min(t_enc, len(grid) - 1)
            alpha = float(self.alphas[int(grid[t_enc])])
            x = alpha**0.5 * latent + (1 - alpha) ** 0.5 * fresh * self.plan.noise_multiplier
            if self.plan.extra_noise:
                x = x + fresh * self.plan.extra_noise * alpha**0.5
            grid = grid[:t_enc]
        if name == "uni_pc":
            start = 1.0 if latent is None else (int(grid[-1]) + 1) / 1000
            return samplers.sample_uni_pc(
                denoiser.eps, x, len(grid), self.alphas, start=start, on_step=tick, **dict(self.plan.unipc)
            )
        if name == "plms":
            return samplers.sample_plms(
                denoiser.eps, x, grid, self.alphas, noise=lambda *_: noise.like(x), on_step=tick
            )
        uncond = None
        if name == "ddim_cfgpp":
            denoiser.cfg_scale /= 12.5
            denoiser.keep_uncond = True
            uncond = lambda: denoiser.uncond_eps  # noqa: E731
        return samplers.sample_ddim(
            denoiser.eps, x, grid, self.alphas, noise=lambda *_: noise.like(x), on_step=tick, eta=self.plan.eta_ddim,
            uncond_direction=uncond,  # type: ignore[arg-type]
        )  # fmt: skip


def expected_calls(sampler: str, steps: int) -> int:
    """N of prompt timelines: twice the steps for samplers of second order."""
    return steps * 2 if samplers.SAMPLERS[sampler].second_order else steps


# --- the whole run ---


def run(
    plan: RunPlan,
    *,
    on_step: Callable[[StepInfo], None] = lambda step: None,
    device: str | None = None,
    dtype: str | None = None,
    cache: ModelCache | None = None,
) -> RunResult:
    """Make the plan's pictures. Raises RunError, UnsafeFile."""
    where = devices.choose(device)
    kind = devices.choose_dtype(dtype, where)
    on_step(StepInfo(0, plan.steps, "loading"))
    before = time.perf_counter()
    cache = cache or ModelCache()
    model, adapters = cache.get(plan, where, kind)
    loaded = time.perf_counter()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    with torch.inference_mode():
        latents, firsts, notes, decoder = _all_iterations(plan, model, adapters, on_step, cache)
        on_step(StepInfo(plan.steps, plan.steps, "decoding"))
        images = [picture for latent in latents for picture in decode(decoder, latent)]
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
        deviations=(*plan.deviations, *notes),
    )


def _all_iterations(
    plan: RunPlan, model: loader.Model, adapters: Adapters, on_step: Callable[[StepInfo], None], cache: ModelCache
) -> tuple[list[Tensor], list[Tensor], list[str], loader.Model]:
    latents, firsts, notes = [], [], []
    decoder = model
    for turn in range(plan.iterations):
        start = turn * plan.batch
        varied = plan.subseed_strength != 0
        numbers = range(start, start + plan.batch)
        seeds = [plan.seed + (0 if varied else n) for n in numbers]
        subseeds = [(plan.subseed or 0) + (n if varied else 0) for n in numbers]
        latent, first, more, decoder = _one_batch(plan, model, adapters, seeds, subseeds, on_step, cache)
        latents.append(latent)
        notes += more
        if first is not None:
            firsts.append(first)
    return latents, firsts, notes, decoder


def _one_batch(
    plan: RunPlan, model: loader.Model, adapters: Adapters, seeds: list[int], subseeds: list[int],
    on_step: Callable[[StepInfo], None], cache: ModelCache,
) -> tuple[Tensor, Tensor | None, list[str], loader.Model]:  # fmt: skip
    alphas = alphas_cumprod(
        zero_terminal_snr=plan.zero_terminal_snr or model.zero_terminal_snr, downcast=plan.downcast_alphas
    )
    table = SigmaTable.of(alphas, quantize=plan.flavour in {"forge", "comfy"})
    shared = Pass(plan, model, alphas, table, seeds, subseeds, on_step)
    positive, encoder, notes = _prepare(plan, model, adapters, plan.prompt)
    _set_tiling(model, plan.tiling)
    calls = expected_calls(plan.sampler, plan.steps)
    conds = conditioning(encoder, plan, positive, plan.negative_prompt, calls, (plan.width, plan.height))
    denoiser = Denoiser(model, table, alphas, conds, plan.cfg_scale, plan, calls, lcm=plan.sampler == "lcm")
    decoder = model
    if plan.refiner:
        refiner = _load_refiner(plan, model)
        denoiser.switch = lambda: (refiner, _refined_conds(plan, refiner, positive, calls))
        decoder = model if plan.vae else refiner
    noise = shared.noise()
    channels = model.unet.config.out_channels
    shape = (channels, plan.height // model.factor, plan.width // model.factor)
    init = _init_latent(plan, model) if plan.init_image else None
    if init is not None:
        shape = (channels, init.shape[2], init.shape[3])
    fresh = noise.first(shape).to(model.device)
    mask = _latent_mask(plan, shape) if plan.mask else None
    if init is not None and mask is not None:
        keep, kept = (1 - mask).to(model.device), init
        denoiser.blend = lambda d: d * (1 - keep) + kept * keep
    latent = shared.run(
        denoiser, noise, plan.sampler, plan.schedule, plan.steps, init, fresh,
        strength=plan.denoise if init is not None else None,
    )  # fmt: skip
    if denoiser.blend is not None:
        latent = denoiser.blend(latent)
    if plan.hires is None:
        return latent, None, notes, decoder
    second, more = _second_pass(plan, plan.hires, shared, adapters, latent, calls)
    del cache
    return second, latent, notes + more, decoder


def _prepare(plan: RunPlan, model: loader.Model, adapters: Adapters, text: str) -> tuple[str, Encoder, list[str]]:
    """Tags out of the prompt and into the weights; an encoder with this plan's embeddings."""
    positive, tags = prompt.extract_networks(text)
    wanted, notes = [], []
    for tag in tags:
        if tag.kind not in {"lora", "lyco"}:
            notes.append(f"<{tag.kind}:{tag.name}> is not replayed")
            continue
        path = plan.loras.get(tag.name.casefold())
        if path is None:
            notes.append(f"LoRA `{tag.name}` is missing: the picture is made without it")
        else:
            wanted.append((Path(path), tag.weight_unet, tag.weight_te, tag.dyn))
    notes += adapters.set(wanted, forge=plan.flavour != "a1111")
    encoder = Encoder(
        model,
        [load_embedding(Path(path), name) for name, path in plan.embeddings.items()],
        clip_skip=plan.clip_skip,
        emphasis=plan.emphasis,
        forge=plan.flavour == "forge",
        comfy=plan.flavour == "comfy",
        comma_backtrack=plan.comma_backtrack,
        clip_skip_sdxl=plan.clip_skip_sdxl,
    )
    return positive, encoder, notes


def _load_refiner(plan: RunPlan, model: loader.Model) -> loader.Model:
    return loader.load(Path(plan.refiner or ""), device=model.device, dtype=model.dtype)


def _refined_conds(plan: RunPlan, refiner: loader.Model, positive: str, calls: int) -> Conds:
    """Prompts encoded anew by the refiner, with the adapters that fit it."""
    _, encoder, _ = _prepare(plan, refiner, Adapters(refiner), plan.prompt)
    return conditioning(encoder, plan, positive, plan.negative_prompt, calls, (plan.width, plan.height))


# --- second pass ---


def _second_pass(
    plan: RunPlan, hires: HiresPlan, shared: Pass, adapters: Adapters, latent: Tensor, calls: int
) -> tuple[Tensor, list[str]]:
    model = shared.model
    sampler = hires.sampler if hires.sampler in samplers.SAMPLERS else plan.sampler
    assert sampler is not None
    schedule = hires.schedule or plan.schedule
    text = hires.prompt if hires.prompt is not None else plan.prompt
    negative = hires.negative_prompt if hires.negative_prompt is not None else plan.negative_prompt
    positive, encoder, notes = _prepare(plan, model, adapters, text)
    hires_calls = expected_calls(sampler, hires.steps)
    size = hires.cover or (hires.width, hires.height)
    conds = conditioning(encoder, plan, positive, negative, calls, size, hires_calls=hires_calls)
    larger = _enlarge(hires, model, latent)
    scale = hires.cfg_scale if hires.cfg_scale is not None else plan.cfg_scale
    denoiser = Denoiser(model, shared.table, shared.alphas, conds, scale, plan, hires_calls, lcm=sampler == "lcm")
    noise = shared.noise()
    fresh = noise.first(tuple(larger.shape[1:])).to(model.device)
    out = shared.run(
        denoiser, noise, sampler, schedule, hires.steps, larger, fresh, strength=hires.denoise, exact=True,
        what="second pass, step",
    )  # fmt: skip
    return out, notes


def _enlarge(hires: HiresPlan, model: loader.Model, latent: Tensor) -> Tensor:
    factor = model.factor
    if hires.upscaler in LATENT_UPSCALERS:
        mode, antialias = LATENT_UPSCALERS[hires.upscaler]
        size = (hires.height // factor, hires.width // factor)
        out = torch.nn.functional.interpolate(latent, size=size, mode=mode, antialias=antialias)
    else:
        images = decode(model, latent)
        grown = [_enlarge_image(image, hires) for image in images]
        out = torch.cat([encode_image(model, image) for image in grown])
    if hires.cover:
        cut_x = (hires.width - hires.cover[0]) // factor
        cut_y = (hires.height - hires.cover[1]) // factor
        out = out[:, :, cut_y // 2 : out.shape[2] - (cut_y + 1) // 2, cut_x // 2 : out.shape[3] - (cut_x + 1) // 2]
    return out


def _enlarge_image(image: Image.Image, hires: HiresPlan) -> Image.Image:
    target = (hires.width, hires.height)
    if hires.upscaler == "Lanczos":
        scale = max(target[0] / image.width, target[1] / image.height)
        image = image.resize(
            (int(image.width * scale // 8 * 8), int(image.height * scale // 8 * 8)), Image.Resampling.LANCZOS
        )
    elif hires.upscaler == "Nearest":
        return image.resize(target, Image.Resampling.NEAREST)
    return image if image.size == target else image.resize(target, Image.Resampling.LANCZOS)


# --- pictures and latents ---


def decode(model: loader.Model, latent: Tensor) -> list[Image.Image]:
    """Latents → 8-bit pictures, truncated as the WebUI does."""
    if model.vae is None:
        raise RunError("this checkpoint has no VAE", hint="install one and pass it with --vae")
    out = []
    for one in latent:
        pixels = model.vae.decode((one[None] / model.scaling).float(), return_dict=False)[0]
        if not bool(torch.isfinite(pixels).all()):
            raise RunError("the VAE gave no picture (NaN)", hint="try --dtype fp32")
        bytes_ = (((pixels[0] + 1) / 2).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        out.append(Image.fromarray(bytes_))
    return out


def encode_image(model: loader.Model, image: Image.Image) -> Tensor:
    """Picture → latent [1, 4, h, w], the posterior's mean (its spread is about 1e-4)."""
    import numpy as np

    assert model.vae is not None
    data = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)[None]
    posterior = model.vae.encode((data * 2 - 1).to(model.device), return_dict=False)[0]
    return posterior.mode() * model.scaling  # type: ignore[no-any-return]


def _init_latent(plan: RunPlan, model: loader.Model) -> Tensor:
    with Image.open(plan.init_image or "") as opened:
        image = opened.convert("RGB")
    if image.size != (plan.width, plan.height):
        image = image.resize((plan.width, plan.height), Image.Resampling.LANCZOS)
    return encode_image(model, image).expand(plan.batch, -1, -1, -1)


def _latent_mask(plan: RunPlan, shape: tuple[int, ...]) -> Tensor:
    """1 where the picture is to be made anew, at latent size."""
    import numpy as np
    from PIL import ImageFilter

    with Image.open(plan.mask or "") as opened:
        mask = opened.convert("L").filter(ImageFilter.GaussianBlur(plan.mask_blur))
    small = mask.convert("RGB").resize((shape[2], shape[1]))
    return torch.from_numpy(np.around(np.asarray(small, dtype=np.float32)[..., 0] / 255))[None, None]


def _set_tiling(model: loader.Model, on: bool) -> None:
    mode = "circular" if on else "zeros"
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

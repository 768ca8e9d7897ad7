"""The denoiser a sampler calls: conditioning by the call counter, classifier-free guidance over an ε- or v-UNet.

    denoise(x, σ) = D_u + s·Σ wᵢ·(Dᵢ − D_u)     one UNet call for all parts whose prompts are equally long

It counts its calls: prompt timelines, skipped guidance and the refiner's switch all go by that number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hubctl.run import prompt
from hubctl.run.encode import Conditioning, Encoder
from hubctl.run.loader import Model
from hubctl.run.plan import RunPlan
from hubctl.run.sigmas import SigmaTable

AESTHETIC = (6.0, 2.5)  # the SDXL refiner's score for what is wanted and what is not
DISTILLED = 20  # LCM knows every twentieth timestep


# --- what the prompts became ---


@dataclass(frozen=True)
class Timeline:
    """One prompt part over the calls of a pass."""

    weight: float
    entries: tuple[tuple[int, Conditioning], ...]

    def at(self, call: int) -> Conditioning:
        return self.entries[prompt.at_call(self.entries, call)][1]


@dataclass
class Conds:
    """Positive parts and the negative of one pass, with SDXL's size vectors."""

    parts: list[Timeline]
    negative: Timeline
    time_ids: Tensor | None = None
    negative_time_ids: Tensor | None = None
    empty: Tensor | None = None  # the empty prompt, where unequal prompts are padded with it


def conditioning(
    encoder: Encoder, plan: RunPlan, positive: str, negative: str, calls: int, size: tuple[int, int],
    *, hires_calls: int | None = None,
) -> Conds:  # fmt: skip
    """Encode a pass's prompts. `size` = (width, height) of this pass; `calls` = N of the first pass."""

    def timeline(text: str, weight: float = 1.0, *, blank_is_zero: bool = False) -> Timeline:
        entries: tuple[tuple[int, str], ...] = ((hires_calls or calls, text),)
        if plan.flavour != "comfy":
            entries = prompt.schedule(text, calls, hires_calls=hires_calls, old=plan.old_timelines)
        encoded = encoder.encode([entry for _, entry in entries])
        if blank_is_zero and not any(entry for _, entry in entries):
            encoded = [_zeros(one) for one in encoded]
        return Timeline(weight, tuple((end, c) for (end, _), c in zip(entries, encoded, strict=True)))

    parts = prompt.split_and(positive) if plan.flavour != "comfy" else ((positive, 1.0),)
    blank_is_zero = encoder.model.family == "sdxl" and plan.flavour != "comfy"
    conds = Conds([timeline(text, weight) for text, weight in parts], timeline(negative, blank_is_zero=blank_is_zero))
    if plan.pad_conds == "empty":
        conds.empty = encoder.encode([""])[0].tokens
    model = encoder.model
    if model.is_xl:
        conds.time_ids, conds.negative_time_ids = (_time_ids(model, size, plan.crop, score) for score in AESTHETIC)
    return conds


def _time_ids(model: Model, size: tuple[int, int], crop: tuple[int, int], score: float) -> Tensor:
    (width, height), (top, left) = size, crop
    last = [score] if model.family == "refiner" else [height, width]
    return torch.tensor([[height, width, top, left, *last]], dtype=torch.float32, device=model.device)


def _zeros(c: Conditioning) -> Conditioning:
    return Conditioning(torch.zeros_like(c.tokens), torch.zeros_like(c.vector) if c.vector is not None else None)


# --- inpainting ---


@dataclass(frozen=True)
class Blend:
    """Keeps the part of the picture outside the mask.

    `mask`: 1 where the picture is made anew. Forge puts noised original there before each call and the original after;
    A1111 puts the original there after each call, in the DDIM family before it.
    """

    original: Tensor
    mask: Tensor
    noise: Callable[[Tensor], Tensor] | None = None  # Forge
    before: bool = False  # A1111's DDIM family

    def over(self, x: Tensor) -> Tensor:
        return x * self.mask + self.original * (1 - self.mask)

    def noised_over(self, x: Tensor, sigma: float) -> Tensor:
        assert self.noise is not None
        return x * self.mask + (self.original + sigma * self.noise(self.original)) * (1 - self.mask)


# --- the denoiser ---

Context = tuple[Tensor, dict[str, Tensor] | None]
"""Text vectors [rows, tokens, width], and SDXL's pooled vectors and sizes."""


def _stretched(tokens: Tensor, length: int) -> Tensor:
    """Padded with its last vector."""
    missing = length - len(tokens)
    return torch.cat([tokens, tokens[-1:].expand(missing, -1)]) if missing > 0 else tokens


@dataclass(frozen=True)
class Call:
    """One evaluation of the UNet for all parts: noise level, timestep, and rows in the batch."""

    sigma: float
    t: float
    rows: int


@dataclass
class Denoiser:
    """One pass. `progress_calls`: calls the pass will make, for skipped guidance and the refiner."""

    model: Model
    table: SigmaTable
    alphas: Tensor
    conds: Conds
    cfg_scale: float
    plan: RunPlan
    progress_calls: int = 0
    lcm: bool = False
    blend: Blend | None = None
    extra: Tensor | None = None  # channels of inpainting checkpoints: mask and masked picture
    switch: Callable[[], tuple[Model, Conds]] | None = None
    keep_uncond: bool = False
    uncond: Tensor | None = None  # the negative's estimate (σ samplers) or ε (DDIM family) of the last call
    last: Tensor | None = None  # the latest denoised estimate
    call: int = 0
    trace: list[Call] = field(default_factory=list)
    _contexts: dict[tuple[int, ...], list[Context]] = field(default_factory=dict)

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        """Denoised estimate at σ (a number or 0-d tensor)."""
        level = float(sigma)
        t = self._timestep(level)
        self._maybe_switch(level, t)
        blend = self.blend
        if blend is not None and blend.noise is not None:
            x = blend.noised_over(x, level)
        skipped = self._skipped(level)
        outputs = self._outputs(x * (1 / (level**2 + 1) ** 0.5), t, level, skipped)
        denoised = [self._denoised(x, out, level, t) for out in outputs]
        result = self._guided(denoised, skipped, torch.zeros_like(x))
        if blend is not None and not blend.before:
            result = blend.over(result)
        self.last = result
        self.call += 1
        return result

    def eps(self, x: Tensor, t: float) -> Tensor:
        """Guided ε of the DDIM family: x at unit scale, t may be fractional."""
        whole = min(max(round(t) if self.table.quantize else int(t), 0), 999)
        if self.table.quantize:
            t = float(whole)
        alpha = float(self.alphas[whole])
        level = ((1 - alpha) / alpha) ** 0.5
        self._maybe_switch(level, t)
        blend = self.blend
        if blend is not None and blend.noise is not None:
            x = blend.noised_over(x / alpha**0.5, level) * alpha**0.5
        elif blend is not None and blend.before:
            x = blend.over(x)
        skipped = self._skipped(t if self.plan.flavour == "a1111" else level)  # A1111 holds the timestep against NGMS
        outputs = self._outputs(x, t, level, skipped)
        if self.model.prediction == "v":
            outputs = [alpha**0.5 * out + (1 - alpha) ** 0.5 * x for out in outputs]
        result = self._guided(outputs, skipped, x / (alpha**0.5 * level))
        if blend is not None and blend.noise is not None:
            scaled = x / alpha**0.5
            result = (scaled - blend.over(scaled - level * result)) / level
        self.last = (x - (1 - alpha) ** 0.5 * result) / alpha**0.5
        self.call += 1
        return result

    def _timestep(self, level: float) -> float:
        if self.lcm and not self.table.quantize:
            distilled = self.table.logs[DISTILLED - 1 :: DISTILLED]
            return float(DISTILLED * int((torch.tensor(level).log() - distilled).abs().argmin()) + DISTILLED - 1)
        return float(self.table.sigma_to_t(level))

    def _denoised(self, x: Tensor, out: Tensor, level: float, t: float) -> Tensor:
        if self.model.prediction == "v":
            return x / (level**2 + 1) - out * (level / math.sqrt(level**2 + 1))
        denoised = x - level * out
        if self.lcm and not self.table.quantize:
            scaled = t * 10
            skip = 0.25 / (scaled**2 + 0.25)
            return scaled / math.sqrt(scaled**2 + 0.25) * denoised + skip * x
        return denoised

    # --- guidance ---

    def _skipped(self, level: float) -> bool:
        """NGMS and Skip Early CFG: whether this call goes without the negative prompt."""
        plan = self.plan
        if plan.skip_early and self.call / max(self.progress_calls, 1) <= plan.skip_early:
            return True
        return bool(plan.ngms and level < plan.ngms and (self.call % 2 or plan.ngms_all))

    def _outputs(self, x: Tensor, t: float, level: float, skipped: bool) -> list[Tensor]:
        """UNet outputs of each positive part, then of the negative where it is needed."""
        indexes = [prompt.at_call(part.entries, self.call) for part in self.conds.parts]
        if not (skipped or (self.cfg_scale == 1 and self._one_is_enough())):
            indexes.append(prompt.at_call(self.conds.negative.entries, self.call))
        key = (len(x), *indexes)
        if key not in self._contexts:
            self._contexts[key] = self._context(indexes, len(x))
        self.trace.append(Call(level, t, len(indexes) * len(x)))
        return [out for one in self._contexts[key] for out in self._unet(x, t, *one).chunk(len(one[0]) // len(x))]

    def _one_is_enough(self) -> bool:
        """At scale 1 the negative changes nothing, or is left out all the same (Forge; ComfyUI but for CFG++)."""
        if self.plan.flavour == "forge":
            return True
        return not self.keep_uncond and [part.weight for part in self.conds.parts] == [1.0]

    def _guided(self, outputs: Sequence[Tensor], skipped: bool, nothing: Tensor) -> Tensor:
        """Parts and negative put together. `nothing`: an estimate of 0, Forge's negative where it is left out."""
        parts = self.conds.parts
        weights = [part.weight for part in parts]
        scale = 1.0 if skipped else self.cfg_scale
        missing = outputs[0] if self.plan.flavour == "a1111" else nothing  # A1111's is the first part
        uncond = self.uncond = outputs[-1] if len(outputs) > len(parts) else missing
        if len(parts) == 1 and weights == [1.0] and scale == 1:
            return outputs[0]
        result = uncond
        for out, weight in zip(outputs, weights, strict=False):
            result = result + weight * scale * (out - uncond)
        return result

    # --- the network ---

    def _unet(self, x: Tensor, t: float, context: Tensor, added: dict[str, Tensor] | None) -> Tensor:
        """The UNet over x as many times as the context has prompts."""
        model = self.model
        if self.extra is not None:
            x = torch.cat([x, self.extra.expand(len(x), -1, -1, -1)], dim=1)
        if len(context) > len(x):
            x = x.repeat(len(context) // len(x), 1, 1, 1)
        step = torch.full((len(context),), t, device=model.device, dtype=torch.float32)
        out = model.unet(
            x.to(model.dtype), step, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False
        )
        return out[0].float()  # type: ignore[no-any-return]

    def _context(self, indexes: Sequence[int], batch: int) -> list[Context]:
        """What the UNet gets beside x for these entries: one call for all, or two where lengths differ."""
        timelines = [*self.conds.parts, self.conds.negative][: len(indexes)]
        conds = [timeline.entries[index][1] for timeline, index in zip(timelines, indexes, strict=True)]
        parts = len(self.conds.parts)
        tokens = [c.tokens for c in conds]
        longest = max(len(one) for one in tokens[:parts])
        tokens[:parts] = [_stretched(one, longest) for one in tokens[:parts]]
        if len(tokens) > parts and len(tokens[-1]) != longest and self.plan.pad_conds:
            tokens = self._padded(tokens, longest)
        if len({len(one) for one in tokens}) == 1:
            return [self._rows(conds, tokens, range(len(conds)), batch)]
        return [self._rows(conds, tokens, which, batch) for which in (range(parts), range(parts, len(conds)))]

    def _padded(self, tokens: list[Tensor], longest: int) -> list[Tensor]:
        """A1111's "Pad conds": prompts and negative made equally long, by empty prompts or the old way."""
        *parts, negative = tokens
        if self.plan.pad_conds == "v0":
            return [*parts, _stretched(negative, longest)[:longest]]
        empty = self.conds.empty
        assert empty is not None
        missing = (longest - len(negative)) // len(empty)
        if missing > 0:
            return [*parts, torch.cat([negative, *([empty] * missing)])]
        return [*(torch.cat([one, *([empty] * -missing)]) for one in parts), negative]

    def _rows(self, conds: Sequence[Conditioning], tokens: Sequence[Tensor], which: range, batch: int) -> Context:
        model = self.model
        context = torch.cat([tokens[i][None].expand(batch, -1, -1) for i in which]).to(model.device, model.dtype)
        if not model.is_xl:
            return context, None
        vectors = [c.vector for c in conds]
        ids = [self.conds.time_ids if i < len(self.conds.parts) else self.conds.negative_time_ids for i in which]
        return context, {
            "text_embeds": torch.cat([v[None].expand(batch, -1) for i in which if (v := vectors[i]) is not None]).to(
                model.device, model.dtype
            ),
            "time_ids": torch.cat([one.expand(batch, -1) for one in ids if one is not None]).to(model.device),
        }

    def _maybe_switch(self, level: float, t: float) -> None:
        plan = self.plan
        if self.switch is None or plan.refiner_at is None:
            return
        if plan.refiner_by_steps:
            progress = self.call / max(self.progress_calls, 1)
        else:
            progress = (999 - self.table.nearest(level)) / 1000
        if progress >= plan.refiner_at:
            self.model, self.conds = self.switch()
            self.switch = None
            self._contexts.clear()

"""What a picture leaves open, found by trying: the few candidates that its settings allow, judged by the original.

    solved = solve(plan, original)        solved.best: RunPlan    solved.report: sentences for a person

1. Whose noise (CPU or NV): both are run until the composition stands, a third of a run or less.
2. Schedule, clip skip, emphasis: every combination that is open is run until shapes stand, MOST of them at most.
3. The nearest of these run to the end and are compared with the original as pictures.
4. Flavour (which timesteps a noise level means) and VAE change little: they are tried on the winner alone.

An unfinished run is judged by its denoised estimate: how far its latents correlate with the original's own, which one
VAE encoding gives. The full step schedule is kept, since fewer steps would be another picture. A tie stays a tie: what
the settings would have meant without `--solve` is kept, and the report says that nothing tells them apart.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hubctl.parameters import schedule_label
from hubctl.run import compare, devices, loader, pictures, runner
from hubctl.run.names import AUTOMATIC
from hubctl.run.plan import RunPlan

COMPOSED, SHAPED = 5.0, 1.5  # noise levels: where the composition stands, where shapes stand
MOST = 12  # combinations that are begun
FINALISTS = 4  # of them that are finished
NEAR = 0.02  # early fits closer than this both go to the end
TIE = 0.004  # similarities closer than this cannot be told apart
CLOSE = 0.6  # a similarity below this is no match at all
OnStep = Callable[[int, int, str], None]
NO_SCHEDULE = frozenset({"ddim", "ddim_cfgpp", "plms", "uni_pc", "uni_pc_bh2", "dpm_fast", "dpm_adaptive", "lcm"})


@dataclass(frozen=True)
class Option:
    """One answer to a question: its name for a person, and what it changes in a plan."""

    label: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """Something the settings do not say. The first option is what they would be taken to mean."""

    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Trial:
    """A candidate: its answers by question, and how near it came. `similarity` is None for an unfinished run."""

    plan: RunPlan
    answers: Mapping[str, str]
    fit: float
    similarity: float | None = None


@dataclass(frozen=True)
class Solved:
    """`best` is the plan itself when nothing was open or nothing told the candidates apart."""

    best: RunPlan
    report: list[str]
    trials: tuple[Trial, ...] = ()


# --- what is open -----------------------------------------------------------------------------------------------------


def questions(plan: RunPlan, *, vaes: Sequence[str] = ()) -> tuple[Question, ...]:
    """What the plan's settings leave open. `vaes`: files that could have been used instead of the checkpoint's own."""
    said = plan.parameters
    raw = dict(said.get("raw") or {})
    program = dict(said.get("generator") or {})
    out = []
    if said.get("rng") is None and plan.flavour != "comfy" and program.get("name") != "hubctl":
        out.append(_question("noise", "rng", plan.rng, {"nv": "NV", "cpu": "CPU"}))
    if plan.flavour != "comfy":
        if said.get("schedule") is None and "Schedule type" not in raw and plan.sampler not in NO_SCHEDULE:
            out.append(_schedules(plan))
        if said.get("clip_skip") is None:
            out.append(_question("clip skip", "clip_skip", plan.clip_skip, {1: "1", 2: "2"}))
        if (
            "Emphasis" not in raw
            and program.get("version") is None
            and set(plan.prompt + plan.negative_prompt) & set("([")
        ):
            out.append(_question("emphasis", "emphasis", plan.emphasis, {"Original": "original", "No norm": "no norm"}))
        if program.get("version") is None:
            out.append(_flavours(plan))
    named = any(resource.get("kind") == "vae" for resource in said.get("resources") or ())
    others = [path for path in vaes if path != plan.vae][:4]
    if not named and others:
        own = Option("the checkpoint's own" if plan.vae is None else Path(plan.vae).stem, {"vae": plan.vae})
        out.append(Question("VAE", (own, *(Option(Path(path).stem, {"vae": path}) for path in others))))
    return tuple(question for question in out if len(question.options) > 1)


def _question(name: str, key: str, now: Any, labels: Mapping[Any, str]) -> Question:
    values = [now, *(value for value in labels if value != now)]
    return Question(name, tuple(Option(labels.get(value, str(value)), {key: value}) for value in values))


def _schedules(plan: RunPlan) -> Question:
    """As the plan has it, the sampler's automatic one, uniform, Karras: those that differ."""
    automatic = AUTOMATIC.get(plan.sampler, "uniform")
    out: dict[str, Option] = {}
    for name in (plan.schedule, None, "uniform", "karras"):
        real = name or automatic
        out.setdefault(real, Option(schedule_label(real), {"schedule": name}))
    return Question("schedule", tuple(out.values()))


def _flavours(plan: RunPlan) -> Question:
    kinds = {"a1111": "A1111", "forge": "Forge"}
    options = {
        flavour: Option(label, {"flavour": flavour, "whole_timesteps": flavour == "forge"})
        for flavour, label in kinds.items()
    }
    first = options.pop(plan.flavour)
    return Question("program", (first, *options.values()))


# --- trying -----------------------------------------------------------------------------------------------------------


class _SeenEnough(Exception):
    """Raised out of a run whose estimate is good enough to be judged."""

    def __init__(self, denoised: Tensor) -> None:
        super().__init__()
        self.denoised = denoised


@dataclass
class _Trials:
    """Runs of one search: they share a loaded model, and the original in both forms."""

    plan: RunPlan
    original: Any  # PIL image
    device: str | None
    dtype: str | None
    cache: runner.ModelCache
    on_step: OnStep
    planned: int = 1
    begun: int = 0
    steps: int = 0
    done: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.where = devices.choose(self.device)
        self.kind = devices.choose_dtype(self.dtype, self.where)
        self.model, _ = self.cache.get(self.plan, self.where, self.kind)
        image = self.original.resize((self.plan.width, self.plan.height), Image.Resampling.LANCZOS)
        with torch.inference_mode():
            self.target = pictures.encode_image(self.model, image).float().cpu()

    def begin(self, plan: RunPlan, answers: Mapping[str, str], until: float) -> Trial:
        """Run until the noise is at `until`, and judge the estimate."""
        self.begun += 1

        def watch(step: runner.StepInfo) -> None:
            self._tick(answers, step)
            if step.denoised is None:
                return
            low = step.sigma is not None and step.sigma <= until and step.done > 1
            if low or step.done >= step.total:
                raise _SeenEnough(step.denoised)

        try:
            result = runner.run(plan, on_step=watch, device=self.device, dtype=self.dtype, cache=self.cache)
            latent = result.first_pass if result.first_pass is not None else result.latents
        except _SeenEnough as seen:
            latent = seen.denoised
        trial = Trial(plan, answers, correlation(latent.float().cpu()[:1], self.target))
        self.done.append(trial)
        return trial

    def finish(self, trial: Trial) -> Trial:
        """Run to the end and compare pictures."""
        self.begun += 1
        result = runner.run(
            trial.plan, on_step=lambda step: self._tick(trial.answers, step), device=self.device, dtype=self.dtype,
            cache=self.cache,
        )  # fmt: skip
        similarity = compare.compare(self.original, result.images[0]).score
        trial = replace(trial, similarity=similarity)
        self.done.append(trial)
        self.latents = result.latents
        return trial

    def with_vae(self, trial: Trial, question: Question) -> list[Trial]:
        """The same latents through other VAEs."""
        out = []
        for option in question.options[1:]:
            vae = loader.load_vae(Path(option.changes["vae"]), self.where, self.model.scaling)
            with torch.inference_mode():
                picture = pictures.decode(replace(self.model, vae=vae, offload="none"), self.latents[:1])[0]
            similarity = compare.compare(self.original, picture).score
            answers = {**trial.answers, question.name: option.label}
            out.append(Trial(replace(trial.plan, **option.changes), answers, trial.fit, similarity))
        self.done += out
        return out

    def _tick(self, answers: Mapping[str, str], step: runner.StepInfo) -> None:
        self.steps += step.denoised is not None
        what = ", ".join(f"{name} {label}" for name, label in answers.items()) or "as the settings say"
        self.on_step(self.begun, max(self.planned, self.begun), f"trying {what}")


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean over channels of how far two latents [1, C, h, w] go together, −1…1; b is brought to a's size."""
    if a.shape[-2:] != b.shape[-2:]:
        b = torch.nn.functional.interpolate(b, size=a.shape[-2:], mode="bilinear", antialias=True)
    x, y = (t.flatten(2) - t.flatten(2).mean(2, keepdim=True) for t in (a, b))
    norms = (x.norm(dim=2) * y.norm(dim=2)).clamp(min=1e-9)
    return float(((x * y).sum(2) / norms).mean())


def solve(
    plan: RunPlan,
    original: bytes,
    on_step: OnStep = lambda done, total, what: None,
    device: str | None = None,
    dtype: str | None = None,
    *,
    cache: runner.ModelCache | None = None,
    vaes: Sequence[str] = (),
) -> Solved:
    """Try what the plan's settings leave open and keep what fits the original best.

    Raises RunError for an original that is no picture or a checkpoint that cannot be run.
    """
    picture = compare.read(original)
    started = time.perf_counter()
    open_ = {question.name: question for question in questions(plan, vaes=vaes)}
    if not open_:
        return Solved(plan, ["nothing is open: the settings say everything hubctl can vary"])
    trials = _Trials(plan, picture, device, dtype, cache or runner.ModelCache(), on_step)
    if trials.model.is_xl or (trials.model.family == "sd2" and plan.flavour != "forge"):
        open_.pop("clip skip", None)  # 1 and 2 are the same there
    if not open_:
        return Solved(plan, ["nothing is open: the settings say everything hubctl can vary"])
    report: list[str] = []
    noise = open_.pop("noise", None)
    bases = _noise(trials, noise, report)
    shapes = [open_.pop(name) for name in ("schedule", "clip skip", "emphasis") if name in open_]
    finals = _finish(trials, _shapes(trials, bases, shapes))
    best = _first_of_best(finals, plan)
    for question in [noise, *shapes] if noise is not None and len(bases) > 1 else shapes:
        report.append(_verdict(question, finals, trials.done, best))
    for late in (open_.get("program"), open_.get("VAE")):
        if late is not None:
            best = _on_the_winner(trials, late, best, report)
    return _conclude(plan, best, report, trials, time.perf_counter() - started)


def _noise(trials: _Trials, question: Question | None, report: list[str]) -> list[Trial]:
    """The plan with each noise that may be the right one: both when early runs do not tell."""
    plan = trials.plan
    if question is None:
        return [Trial(plan, {}, 0.0)]
    trials.planned = len(question.options)
    begun = [
        trials.begin(replace(plan, **option.changes), {question.name: option.label}, COMPOSED)
        for option in question.options
    ]
    ranked = sorted(begun, key=lambda trial: -trial.fit)
    first, second = ranked[0], ranked[1]
    if first.fit - second.fit <= max(NEAR, 0.1 * abs(first.fit)):
        report.append(f"noise: early runs do not tell ({_fits(first, question)}, {_fits(second, question)})")
        return [replace(trial, fit=0.0) for trial in begun]
    report.append(f"noise: {_fits(first, question)} fits, {_fits(second, question)} does not")
    return [first]


def _fits(trial: Trial, question: Question) -> str:
    return f"{trial.answers[question.name]} {trial.fit:.2f}"


def _shapes(trials: _Trials, bases: Sequence[Trial], questions: Sequence[Question]) -> list[Trial]:
    """Every combination of what is left, begun; best first. What the settings would mean comes first of equals."""
    every = itertools.product(*(range(len(question.options)) for question in questions))
    likely = sorted(every, key=lambda picks: sum(pick > 0 for pick in picks))  # what needs the fewest surprises first
    combined = [(base, picks) for picks in likely for base in bases][:MOST]
    if len(combined) == 1:
        return list(bases)
    trials.planned = trials.begun + len(combined) + FINALISTS
    begun = []
    for base, picks in combined:
        options = [question.options[pick] for question, pick in zip(questions, picks, strict=True)]
        answers = {**base.answers, **{q.name: o.label for q, o in zip(questions, options, strict=True)}}
        changes = {key: value for option in options for key, value in option.changes.items()}
        begun.append(trials.begin(replace(base.plan, **changes), answers, SHAPED))
    return sorted(begun, key=lambda trial: -trial.fit)


def _finish(trials: _Trials, ranked: Sequence[Trial]) -> list[Trial]:
    """The nearest run to the end: two at least, and whatever came as near as the second."""
    near = [trial for trial in ranked[2:] if ranked[0].fit - trial.fit <= NEAR]
    chosen = [*ranked[:2], *near][:FINALISTS]
    trials.planned = trials.begun + len(chosen)
    return [trials.finish(trial) for trial in chosen]


def _first_of_best(finals: Sequence[Trial], plan: RunPlan) -> Trial:
    """The best; among ties, the one nearest to what the settings would mean."""
    top = max(_score(trial) for trial in finals)
    tied = [trial for trial in finals if _tied(top, _score(trial))]

    def strangeness(trial: Trial) -> int:
        keys = ("rng", "schedule", "clip_skip", "emphasis", "flavour", "vae")
        return sum(getattr(trial.plan, key) != getattr(plan, key) for key in keys)

    return min(tied, key=strangeness)


def _tied(one: float, other: float) -> bool:
    """Whether two similarities say the same. Every pixel equal is an answer, however near the next one comes."""
    return abs(one - other) <= TIE and (one == 1.0) == (other == 1.0)


def _figure(trial: Trial) -> str:
    return "every pixel" if _score(trial) == 1.0 else f"{_score(trial):.3f}"


def _score(trial: Trial) -> float:
    return trial.similarity if trial.similarity is not None else -1.0


def _verdict(question: Question, finals: Sequence[Trial], begun: Sequence[Trial], best: Trial) -> str:
    """One sentence a question: what fits, against the best of the others."""
    mine = best.answers[question.name]
    rivals = [trial for trial in finals if trial.answers[question.name] != mine]
    if rivals:
        rival = max(rivals, key=_score)
        other = rival.answers[question.name]
        if _tied(_score(best), _score(rival)):
            return (
                f"{question.name}: {mine} and {other} cannot be told apart "
                f"({_figure(best)}, {_figure(rival)}): {mine} was kept"
            )
        return f"{question.name}: {mine} fits best, similarity {_figure(best)} ({other}: {_figure(rival)})"
    others = [t for t in begun if t.similarity is None and t.answers.get(question.name, mine) != mine]
    if not others:
        return f"{question.name}: {mine}; no other was tried"
    nearest = max(others, key=lambda trial: trial.fit)
    own = max((t.fit for t in begun if t.answers.get(question.name) == mine), default=best.fit)
    return (
        f"{question.name}: {mine} fits best, early fit {own:.2f} ({nearest.answers[question.name]}: {nearest.fit:.2f})"
    )


def _on_the_winner(trials: _Trials, question: Question, best: Trial, report: list[str]) -> Trial:
    """Try one question's other options on the best plan; it stays unless one is better by more than a tie."""
    best = replace(best, answers={**best.answers, question.name: question.options[0].label})
    if question.name == "VAE":
        if best.plan is not trials.done[-1].plan or trials.done[-1].similarity is None:
            trials.finish(best)  # its latents
        others = trials.with_vae(best, question)
    else:
        trials.planned = trials.begun + len(question.options) - 1
        others = [
            trials.finish(
                replace(
                    best,
                    plan=replace(best.plan, **option.changes),
                    answers={**best.answers, question.name: option.label},
                )
            )
            for option in question.options[1:]
        ]
    finals = [best, *others]
    top = max(finals, key=_score)
    chosen = best if _tied(_score(top), _score(best)) else top
    report.append(_verdict(question, finals, [], chosen))
    return chosen


def _conclude(plan: RunPlan, best: Trial, report: list[str], trials: _Trials, seconds: float) -> Solved:
    report.append(f"{trials.begun} runs, {trials.steps} steps in {seconds:.1f} s")
    done = tuple(trials.done)
    if _score(best) < CLOSE:
        report.append(
            f"nothing that was tried comes close (best similarity {_figure(best)}): "
            "something else differs, and the settings are left as they are"
        )
        return Solved(plan, report, done)
    return Solved(_settled(plan, best), report, done)


GPU_NOISE = "the noise came from a GPU"  # how the plan's deviation begins that an answer about noise settles


def _settled(plan: RunPlan, best: Trial) -> RunPlan:
    """The winner's plan, saying of itself what was found rather than read."""
    deviations = [sentence for sentence in plan.deviations if not sentence.startswith(GPU_NOISE)]
    changed = [
        f"{name} {label}"
        for name, label in best.answers.items()
        if best.plan is not plan and _differs(plan, best.plan, name)
    ]
    if changed:
        deviations.append(f"found by trying, not said in the settings: {', '.join(changed)}")
    said = dict(best.plan.parameters)
    raw = dict(said.get("raw") or {})
    if best.plan.emphasis != plan.emphasis:
        raw["Emphasis"] = best.plan.emphasis
    return replace(best.plan, deviations=tuple(deviations), parameters={**said, "raw": raw} if said else said)


KEYS = {"noise": "rng", "schedule": "schedule", "clip skip": "clip_skip", "program": "flavour", "VAE": "vae"}


def _differs(plan: RunPlan, other: RunPlan, name: str) -> bool:
    key = KEYS.get(name, name)
    return bool(getattr(plan, key) != getattr(other, key))

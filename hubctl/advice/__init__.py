"""What a creator's text says about settings: "strength 0.7-0.9", "CFG 4~7", "clip skip 2", "推荐权重：0.7~1".

    read(html, Subject(...))  →  (Said(name, value, phrase, confidence, low, high), …)

A text is read in units: a sentence, a list item under its label, a table row under its header. In a unit the words that
name a setting (in a dozen languages) and the numbers are paired by position: "CFG 7", "7 CFG" and "CFG: 7 - 9" all mean
CFG, and in "20 steps, CFG 7" each number has one owner. Words for something else (learning rate, ControlNet weight) own
their numbers too, so that nobody else gets them.

A unit counts for nothing when it speaks of something else: another version ("in v1 use …"), another base model, the
training, a prompt, somebody else's LoRA. A limit ("don't go above 1") bounds a value and is never taken for one.

Every pattern has bounded repetition and units are cut to a length: the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hubctl.advice.figures import PROMPT_WEIGHT, numbers, tag_weights
from hubctl.advice.names import (
    BAKED_IN,
    NEGATIVES,
    bases,
    detailers,
    named_embeddings,
    negative,
    negative_embeddings,
    samplings,
    sizes,
    upscalers,
    vaes,
)
from hubctl.advice.said import Said, sureness
from hubctl.advice.subject import Subject, base_family, bases_named, other_base, other_variant, other_version, versions
from hubctl.advice.units import Unit, units
from hubctl.advice.words import NUMERIC, RECOMMENDED, TRAINING, keywords
from hubctl.text import Line, lines

__all__ = ["BAKED_IN", "Said", "Subject", "base_family", "negative_embeddings", "read", "read_lines"]

MAX_SAID = 400


def read(html: str | None, subject: Subject) -> tuple[Said, ...]:
    """Every setting `html` states for the subject, in the order of the text."""
    return read_lines(lines(html), subject)


def read_lines(given: Sequence[Line], subject: Subject) -> tuple[Said, ...]:
    out: list[Said] = []
    for unit in units(given, subject):
        if len(out) >= MAX_SAID:
            break
        out += _of_unit(unit, subject)
    return tuple(out)


_PROMPT_START = re.compile(
    r"^(?:[-*#>\s]{0,4})(?:(?:example|sample|positive|my|full|base|recommended|standard|正面|正向|反面|负面)\s?){0,2}"
    r"(?:prompts?|提示词|プロンプト|프롬프트|промпт)\s{0,2}[:：]",
    re.IGNORECASE,
)
_NEGATIVE_START = re.compile(
    r"^(?:[-*#>\s]{0,4})(?:(?:recommended|suggested|my|example|base|basic|default|standard|full|推荐|おすすめ)\s?){0,2}"
    r"(?:neg(?:ative)?(?:\sprompts?)?|负面提示词|反向提示词|负面|負面提示詞|ネガティブ(?:プロンプト)?|"
    r"네거티브(?:\s?프롬프트)?|негативный\sпромпт|негатив)"
    r"\s{0,2}[:：]\s{0,2}",
    re.IGNORECASE,
)


def _of_unit(unit: Unit, subject: Subject) -> Iterator[Said]:
    text = unit.text
    if start := _NEGATIVE_START.match(text):
        yield from negative(text[start.end() :], unit)
        return
    if _NEGATIVE_START.match(unit.label) and text.count(",") + len(NEGATIVES.findall(text)) > 0:
        yield from negative(text, unit)
        return
    if _PROMPT_START.match(text) or _PROMPT_START.match(unit.label) or _reads_like_a_prompt(text):
        return
    parts = _parts(text)
    named = next((word.text for word in keywords(text) if word.name in NUMERIC), "") if len(parts) > 1 else ""
    for part in parts:  # "weight 0.5 in v1, 0.9 in v2": the word counts for both
        yield from _of_part(Unit(part, unit.label or named, unit.heading), subject)


def _parts(text: str) -> list[str]:
    """The clauses of a unit that speaks of several versions or bases, each for itself; else the unit."""
    if len(versions(text)) + len(bases_named(text)) < 2:
        return [text]
    return [part for part in re.split(r"[,;]\s?|\sand\s|\sbut\s|\swhile\s|\s/\s", text) if part.strip()]


def _reads_like_a_prompt(text: str) -> bool:
    """A list of tags: many commas, hardly a setting."""
    return (
        text.count(",") >= 6
        and not re.search(r"steps\s?[:：]|sampler\s?[:：]|cfg", text, re.IGNORECASE)
        and len(PROMPT_WEIGHT.findall(text)) + text.count("((") > 0
    )


def _of_part(unit: Unit, subject: Subject) -> Iterator[Said]:
    text = unit.text
    if other_version(text, subject) or other_base(text, subject) or other_variant(text, subject):
        return
    training = bool(TRAINING.search(text)) and not RECOMMENDED.search(text)
    sure = sureness(unit)
    yield from vaes(unit, sure)
    yield from detailers(unit, sure)
    yield from named_embeddings(unit, sure)
    if training:
        yield from bases(unit, subject, sure)
        return
    yield from samplings(unit, sure)
    yield from upscalers(unit, sure)
    yield from sizes(unit, sure)
    yield from tag_weights(unit, subject)
    yield from bases(unit, subject, sure)
    yield from numbers(unit, subject, sure)

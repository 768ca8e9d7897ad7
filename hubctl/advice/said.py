"""One statement of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hubctl.advice.units import Unit
from hubctl.advice.words import CONDITION, MAYBE, RECOMMENDED

MAX_PHRASE = 100


@dataclass(frozen=True)
class Said:
    """One setting as a text states it. A limit has no value, only `low` or `high`."""

    name: str
    value: Any
    phrase: str
    confidence: float
    low: float | None = None
    high: float | None = None
    schedule: str | None = None  # of a sampler: the one named with it


def said(
    name: str,
    value: Any,
    unit: Unit,
    confidence: float,
    low: float | None = None,
    high: float | None = None,
    at: int = 0,
) -> Said:
    return Said(name, value, phrase(unit, at), round(min(0.95, max(0.05, confidence)), 2), low, high)


def phrase(unit: Unit, at: int = 0) -> str:
    text = f"{unit.label} {unit.text}" if unit.label and len(unit.text) < 40 else unit.text
    if len(text) <= MAX_PHRASE:
        return text
    start = max(0, min(at - MAX_PHRASE // 2, len(text) - MAX_PHRASE))
    return ("…" if start else "") + text[start : start + MAX_PHRASE].strip() + "…"


def sureness(unit: Unit) -> float:
    """How much a statement in this unit counts, before its own form is looked at."""
    sure = 0.62
    if RECOMMENDED.search(unit.text) or RECOMMENDED.search(unit.label) or RECOMMENDED.search(unit.heading):
        sure += 0.16
    if CONDITION.search(unit.text):
        sure -= 0.24
    elif MAYBE.search(unit.text):
        sure -= 0.08
    if re.search(r"seed\s?[:：]\s?\d{4,}", unit.text, re.IGNORECASE):  # the infotext of one example
        sure -= 0.2
    return sure

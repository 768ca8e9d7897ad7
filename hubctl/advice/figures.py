"""Numbers: which of a unit's numbers belongs to which of its words, and whether it is a value, a range or a limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from hubctl.advice.names import SIZE, UPSCALER
from hubctl.advice.said import Said, said, sureness
from hubctl.advice.samplers import samplers
from hubctl.advice.subject import LORA_TAG, TOGETHER, Subject, alike, is_other_file, squeezed
from hubctl.advice.units import Unit
from hubctl.advice.words import (
    ADJUSTED,
    AND_DOWN,
    AND_UP,
    AS_LOW_AS,
    BETWEEN,
    DEFAULT,
    HARM,
    IMG2IMG,
    LETTER,
    MAXIMUM,
    MINIMUM,
    NEGATED,
    NUMERIC,
    OVER,
    RECOMMENDED,
    UNDER,
    keyword_at,
    keywords,
    names_in,
    stems,
)

RANGES = {  # what can be meant; a number outside belongs to something else
    "weight": (-5.0, 5.0),
    "cfg_scale": (0.0, 30.0),
    "steps": (1, 200),
    "clip_skip": (1, 12),
    "denoise": (0.0, 1.0),
    "upscale": (1.0, 8.0),
    "hires_steps": (0, 150),
}

_NUM = r"(?:\d{1,4}(?:\.\d{1,3})?|\.\d{1,3})"
NUMBER = re.compile(
    rf"(?:(?<![A-Za-z0-9_.#$€])|(?<=[\s(:]x))(?P<sign>-)?(?P<a>{_NUM})(?P<pa>\s?%)?"
    r"(?:\s{0,2}(?P<join>-{1,2}>?|~|→|\.{2,3}|/|±|to|through|(?:all\sthe\sway\s)?(?:up\s{0,2})?to|or|and|bis|à|a|al|hasta|até|ou|o|oder|do|"
    r"до|или|и|y|e|"
    rf"und|et|到|至|から|より|에서|,)\s{{0,2}}(?P<signb>-)?(?P<b>{_NUM})(?P<pb>\s?%)?)?(?!\d)(?!\.\d)",
    re.IGNORECASE,
)
_AND = frozenset(["and", "и", "y", "e", "und", "et"])

PROMPT_WEIGHT = re.compile(
    r"[(\[](?=[^()\[\]]{0,60}[A-Za-z一-龥])[^()\[\]]{1,200}:\s?\d(?:\.\d{1,3})?[)\]]|\w:\d\.\d{1,2}\)"
)
_MASKED = re.compile(  # digits that are part of a name, a date or an amount
    r"(?i:https?://\S{1,400}|www\.\S{1,400}|\b[\w+\-]{1,80}\.(?:safetensors|ckpt|pth?|vae|bin|png|jpe?g|zip|yaml|"
    r"json|onnx)\b)"
    r"|<[^<>]{1,200}>"
    r"|(?i:(?<![A-Za-z])(?:sd|sdxl|xl|pony|flux|wan|illustrious|noobai|stable\sdiffusion|webui|web\sui|a1111|"
    r"automatic\s?1111|comfyui|forge|rtx|gtx|"
    r"cuda|python|nai|anything|deliberate|counterfeit|vae)[\s\-]?v?\d{1,4}(?:\.\d{1,2}){0,3}(?:\s?(?:models?|"
    r"base))?)(?![\d.]*\s?(?:steps|cfg))"
    r"|(?i:\bv(?:er(?:sion)?\.?)?\s?\d{1,2}(?:\.\d{1,3}){0,3}[a-z]?\b)"
    r"|\b[A-Za-z][A-Za-z_\-]{2,40}\d{1,4}(?![\d.]|\s?[%~-]\s?\d)(?<!cfg\d)(?<!steps\d\d)(?<!skip\d)(?<!weight\d)"
    r"|\b(?:19|20)\d\d[-/.年]\d{1,2}(?:[-/.月]\d{1,2}日?)?|\b\d{1,2}[./]\d{1,2}[./](?:19|20)?\d\d\b"
    r"|(?i:\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?\s\d{1,2}(?:st|nd|rd|th)?,?\s(?:20\d\d)?)"
    r"|(?i:\d{1,4}(?:\.\d{1,2})?\s?(?:gb|mb|gib|k\b(?!arras)|fps|°|€|usd|th\b|st\b|nd\b|rd\b))|第\s?\d{1,3}\s?步"
    r"|(?i:^\s{0,3}(?:step\s?)?\d{1,2}\s?[.)\-:]\s?(?=[A-Za-z一-龥ぁ-ヶ가-힣а-я]))"
)

_ONE_MORE = re.compile(rf"\s?/\s?({_NUM})(?![\d/])")


class _Mark(NamedTuple):
    """A keyword, or a number or range, in its place."""

    start: int
    end: int
    name: str  # the setting, or "#" for a number
    low: float = 0.0
    high: float = 0.0
    percent: bool = False
    spelled: str = ""


def _figures(text: str) -> list[_Mark]:
    """The numbers and ranges of a text. Two numbers that only stand beside each other are two."""
    out: list[_Mark] = []
    at = 0
    while match := NUMBER.search(text, at):
        joined = match["b"] is not None and _joins(match, text)
        at = match.end() if joined else match.end("pa") if match["pa"] else match.end("a")
        low = -float(match["a"]) if match["sign"] and _is_sign(match, text) else float(match["a"])
        high = low
        if joined:
            high = -float(match["b"]) if match["signb"] else float(match["b"])
            if match["join"] == "±":
                low, high = low - high, low + high
            while match["join"] == "/" and (more := _ONE_MORE.match(text, at)):  # 8 / 12 / 18
                high, at = float(more[1]), more.end()
        figure = _Mark(
            match.start("a"), at, "#", min(low, high), max(low, high), bool(match["pa"] or (joined and match["pb"])),
            match["a"] + (match["b"] if joined else ""),
        )  # fmt: skip
        if _stands_alone(figure, text):
            out.append(figure)
    return out


def numbers(unit: Unit, subject: Subject, sure: float) -> Iterator[Said]:
    """Pair the words of a unit with its numbers."""
    masked = _mask(_led(unit))
    words = _as_meant([_Mark(word.start, word.end, word.name) for word in keywords(masked)], masked, unit)
    figures = _figures(masked)
    if not figures:
        return
    pairs = _paired([word for word in words if word.name not in _NONUMBERS], figures, masked)
    if (
        not pairs and len(figures) == 1 and len(words) == 1 and words[0].name in NUMERIC
    ):  # far apart, but there is nobody else
        pairs, sure = [(words[0], figures[0])], sure - 0.2
    for word, figure in pairs:
        if word.name in NUMERIC:
            yield from _stated(word, figure, masked, unit, subject, sure)
        elif word.name == "hires" and (
            re.match(r"\s?(?:x(?![A-Za-z])|倍)", masked[figure.end : figure.end + 3])
            or masked[max(0, figure.start - 1) : figure.start] in {"x", "X"}
        ):
            yield from _stated(word._replace(name="upscale"), figure, masked, unit, subject, sure)
    taken = {figure.start for _, figure in pairs}
    left = [figure for figure in figures if figure.start not in taken]
    if not subject.has_weight or not left:
        return
    given = next((figure for word, figure in pairs if word.name == "weight" and not _is_harmed(figure, masked)), None)
    if given is None and not any(word.name in {"weight", *_NOT_BESIDE_WEIGHT} for word in words):
        yield from _bare_weight(left[0], masked, unit, subject)
    elif _MERGING.search(masked):
        return
    elif given is None and any(word.name == "weight" for word in words) and RECOMMENDED.search(masked):
        if "." in left[0].spelled and _value("weight", left[0]) and not is_other_file(unit.text, subject):
            yield from _bounded("weight", left[0].low, left[0].high, left[0], masked, unit, sure - 0.12)
    elif given is not None and given.low < given.high:
        for figure in left:  # "0.3-0.9, I used 0.5-0.6"
            if given.low <= figure.low and figure.high <= given.high and "." in figure.spelled:
                yield from _bounded(
                    "weight",
                    round((figure.low + figure.high) / 2, 2),
                    round((figure.low + figure.high) / 2, 2),
                    figure,
                    masked,
                    unit,
                    sure + 0.14,
                )
                return


def _is_harmed(figure: _Mark, text: str) -> bool:
    """Whether a number is a bad example: "at 1 it looks overcooked, 0.6 is better"."""
    return figure.low == figure.high and bool(HARM.search(text[figure.end : figure.end + 40].split(",")[0]))


def _led(unit: Unit) -> str:
    """The unit, after the label or heading that says what its number is for, when it does not say so itself."""
    if names_in(unit.text) & set(NUMERIC):
        return unit.text
    for lead in (unit.label, unit.heading if len(unit.heading) <= 40 else ""):
        if names_in(lead) & set(NUMERIC):
            return f"{lead.rstrip(':： ')}: {unit.text}"
    return unit.text


_NONUMBERS = ("sampler", "schedule", "vae", "upscaler")
_NOT_BESIDE_WEIGHT = ("cfg_scale", "steps", "clip_skip", "denoise", "upscale", "hires", "size", "other")


def _mask(text: str) -> str:
    """Names, dates, links and sizes blotted out, places kept."""

    def blot(match: re.Match[str]) -> str:
        return "\x01" * len(match[0])

    masked = PROMPT_WEIGHT.sub(blot, text)
    masked = _MASKED.sub(blot, masked)
    masked = SIZE.sub(blot, masked)
    masked = UPSCALER.sub(blot, masked)
    for start, end, *_ in samplers(masked):
        masked = masked[:start] + "\x01" * (end - start) + masked[end:]
    return masked


def _as_meant(words: list[_Mark], text: str, unit: Unit) -> list[_Mark]:
    """The words as this unit means them: steps after "hires fix:" are its steps, "step" needs a number before it."""
    out: list[_Mark] = []
    hires = "hires" in names_in(unit.label)
    for word in words:
        if word.name == "hires":
            after = text[word.end : word.end + 14].lstrip()
            opens = after.startswith((":", "(", "[", "- ", "with", "at"))
            hires = hires or (opens and not after.lstrip(":([-witha= ")[:1].isdigit())
        name = "hires_steps" if word.name == "steps" and hires else word.name
        out.append(word._replace(name=name))
    return out


def _stands_alone(figure: _Mark, text: str) -> bool:
    """Whether a number is a number: not glued to a word ("2M", "
    ""4k") unless that word is a setting's or a times sign."""
    after = text[figure.end : figure.end + 12]
    if not after or not re.match(f"[{LETTER}]", after):
        return True
    return keyword_at(text, figure.end) or bool(re.match(r"x(?![A-Za-z])", after, re.IGNORECASE))


_SEPARATOR = re.compile(
    r"^[\"'*_)\]]{0,3}\s{0,2}(?:[:=→>]|：|(?:is|are|was|of|at|to|around|about|between|from|should\sbe|set\sto|"
    r"set\sat|on|in|为|為|在|は|を|은|는|в|около|de|es|ist|auf|von|est|é|à|a|y)(?![A-Za-z]))",
    re.IGNORECASE,
)
_BROKEN = re.compile(r"[;|()\[\]]|\s[-]\s|\.\s")


def _paired(words: list[_Mark], figures: list[_Mark], text: str) -> list[tuple[_Mark, _Mark]]:
    """Each word with at most one number and each number with at most one word, the cheapest pairs first."""
    marks = sorted([*words, *figures], key=lambda mark: mark.start)
    named_first = _named_first(marks)
    offers: list[tuple[float, _Mark, _Mark]] = []
    for left, right in pairwise(marks):
        gap = text[left.end : right.start]
        if not _can_mean(left, right):
            continue
        if left.name != "#" and right.name == "#" and left.name != "counted":
            offers.append((_after_cost(gap), left, right))
        elif left.name == "#" and right.name != "#":
            far = right.name == "counted" and (len(gap.strip()) > 10 or re.search(r"\b(?:in|for|of|at)\b", gap))
            if not far:
                offers.append((_before_cost(gap) + (5 if named_first else 0), right, left))
        elif left.name != "#" and right.name != "#" and len(gap) <= 6:
            # "weight/strength: 0.8", "steps - sampling: 20": two words for one number
            follower = next((mark for mark in marks if mark.start >= right.end), None)
            if follower and follower.name == "#" and left.name == right.name:
                offers.append((_after_cost(gap) + 2, left, follower))
    out, used = [], set()
    for cost, word, figure in sorted(offers, key=lambda offer: (offer[0], offer[1].start)):
        if cost < 20 and word.start not in used and figure.start not in used:
            used |= {word.start, figure.start}
            out.append((word, figure))
    return sorted(out, key=lambda pair: pair[0].start)


def _can_mean(left: _Mark, right: _Mark) -> bool:
    """Whether a word and a number beside it fit at all: nobody means 1.5 steps."""
    word, figure = (left, right) if right.name == "#" else (right, left)
    return figure.name != "#" or word.name not in NUMERIC or _value(word.name, figure) is not None


def _named_first(marks: list[_Mark]) -> bool:
    """Whether this unit writes "steps 20, CFG 7" rather than "20 steps, 7 CFG"."""
    kinds = [mark.name == "#" for mark in marks if mark.name not in {"sampler", "hires", "vae", "upscaler"}]
    return bool(kinds) and not kinds[0] and kinds[-1]


def _after_cost(gap: str) -> float:
    cost = len(gap) * (0.05 if _SEPARATOR.match(gap) else 0.3) + (1 if _SEPARATOR.match(gap) else 3)
    if "," in gap:
        cost += 6
    if _BROKEN.search(gap.lstrip(" )]\"'*")[1:]):
        cost += 8
    return cost if len(gap) <= 60 else 99


def _before_cost(gap: str) -> float:
    plain = gap.strip(" -%x")
    if not plain:
        return 2
    if "," in gap or ":" in gap or _BROKEN.search(gap):
        return 99
    return 3 + 0.4 * len(plain) if len(plain) <= 22 else 99


def _stated(word: _Mark, figure: _Mark, text: str, unit: Unit, subject: Subject, sure: float) -> Iterator[Said]:
    """What one pair states: a value, a range or a limit."""
    name = word.name
    if name == "weight" and (
        not subject.has_weight or is_other_file(unit.text, subject) or _before_together(text, figure)
    ):
        return
    if name == "denoise" and IMG2IMG.search(unit.text + unit.label + unit.heading):
        return
    if name == "weight" and _GUIDE.search(text[max(0, word.start - 48) : word.start]):
        return
    value = _value(name, figure)
    if value is None:
        return
    low, high = value
    separated = bool(_SEPARATOR.match(text[word.end : figure.start])) if word.end <= figure.start else False
    confidence = sure + (0.12 if separated or low != high else 0.0)
    if ADJUSTED.search(text[max(0, word.start - 24) : figure.start]):
        confidence -= 0.2
    if text[word.start : word.end].lower() == "step":  # often the steps of a recipe
        confidence -= 0.2
    lead = text[max(0, word.start - 24) : word.start] if word.end <= figure.start else ""
    yield from _bounded(_public(name), low, high, figure, text, unit, confidence, lead)


def _public(name: str) -> str:
    return {"denoise": "hires.denoise", "upscale": "hires.upscale", "hires_steps": "hires.steps"}.get(name, name)


def _bounded(
    name: str, low: float, high: float, figure: _Mark, text: str, unit: Unit, confidence: float, lead: str = ""
) -> Iterator[Said]:
    """A value, or a limit: "don't go above", "25+", "at least". `lead` is what stands before the setting's word."""
    clause_before = re.split(r"[,;()]", text[max(0, figure.start - 48) : figure.start])[-1]
    clause_after = re.split(r"[,;()]", text[figure.end : figure.end + 40])[0]
    near = text[max(0, figure.start - 22) : figure.start + 1] + clause_after[:16]
    if DEFAULT.search(near):
        return
    negated = bool(NEGATED.search(clause_before))
    over = bool(OVER.search(clause_before[-34:]) or re.match(r"\s?(?:を|를|을)?\s?(?:超え|超|넘|초과)", clause_after))
    under = bool(UNDER.search(clause_before[-34:]) or re.match(r"\s?(?:を|를|을)?\s?(?:下回|미만)", clause_after))
    up, down = bool(AND_UP.match(text, figure.end)), bool(AND_DOWN.match(text, figure.end))
    harm = bool(HARM.search(clause_after + text[figure.end : figure.end + 60])) or bool(NEGATED.search(clause_after))
    if low == high and (over or (up and harm and not under)) and (negated or harm):
        yield said(name, None, unit, confidence, high=high, at=figure.start)
    elif low == high and (under or (down and harm)) and (negated or harm):
        yield said(name, None, unit, confidence, low=low, at=figure.start)
    elif low == high and AS_LOW_AS.search(clause_before):
        yield said(name, None, unit, confidence - 0.06, low=low, at=figure.start)
    elif low == high and (MINIMUM.search(clause_before) or MINIMUM.search(lead) or up or over):
        if not negated or MINIMUM.search(clause_before):
            yield said(name, low, unit, confidence - 0.06, low=low, at=figure.start)
    elif low == high and (MAXIMUM.search(clause_before) or MAXIMUM.search(lead) or down or under):
        yield said(name, None, unit, confidence - 0.06, high=high, at=figure.start)
    elif not negated and not (low == high and HARM.search(clause_after)):
        middle = low if low == high else None if low < 0 < high else _middle(name, low, high)
        yield said(
            name, middle, unit, confidence, low if low != high else None, high if low != high else None, figure.start
        )


def _middle(name: str, low: float, high: float) -> float:
    middle = (low + high) / 2
    if name in {"steps", "clip_skip", "hires.steps"}:
        return int(low) if name == "clip_skip" else int(middle)
    return round(middle, 2) if name != "cfg_scale" else round(middle * 2) / 2


def _value(name: str, figure: _Mark) -> tuple[float, float] | None:
    """(low, high) of a number or range, when it can be meant for this setting."""
    least, most = RANGES[name]
    scale = 100 if figure.percent and name in {"weight", "denoise"} else 1
    low, high = figure.low / scale, figure.high / scale
    if not (least <= low and high <= most) or (low < 0 and name != "weight"):
        return None
    if name in {"steps", "clip_skip", "hires_steps"}:
        return (int(low), int(high)) if low.is_integer() and high.is_integer() else None
    return None if name == "weight" and low == high == 0 else (round(low, 3), round(high, 3))


def _is_sign(match: re.Match[str], text: str) -> bool:
    """A minus, not a dash: "[-1, 1]", "-1 to 1", "a negative weight of -0.5"; "weight -0.8" has a dash."""
    if match.start("a") - match.start("sign") != 1:
        return False
    before = text[max(0, match.start() - 1) : match.start()]
    return before in {"[", "("} or (match["b"] is not None and match["join"] != "-") or "negativ" in text.lower()


def _joins(match: re.Match[str], text: str) -> bool:
    join = match["join"].lower()
    if join in _AND:
        return bool(BETWEEN.search(text[max(0, match.start() - 12) : match.start()]))
    if join == ",":
        return text[max(0, match.start() - 1) : match.start()] == "["
    return True


def _before_together(text: str, figure: _Mark) -> bool:
    """Whether "combined with X" stands before the number: it is X's, or holds only then."""
    return bool(TOGETHER.search(text[: figure.start]))


_USE_IT = stems(
    "use at, use it at, use with, used at, use between, apply at, set to, set it, works at, run at, keep it, "
    "works from, works between, holds up, go as low as, go as high as, go down to, go up to, usable from"
)
_GUIDE = re.compile(  # "ControlNet openpose weight 0.6"
    r"(?i)(?<![a-z])(?:control\s?net|ip[\s-]?adapter|t2i[\s-]?adapter|openpose|reference[\s-]only)[^.,;:()]{0,24}$"
)

_MERGING = stems("merg, block weight, 融合, マージ, 병합, mezcl")
_LORA_AT = re.compile(r"(?i)\b(?:lora|it|this|file)\s(?:at|@|to|with|between|around|from)\s(?:about\s|around\s|~)?\s?$")


def _bare_weight(figure: _Mark, text: str, unit: Unit, subject: Subject) -> Iterator[Said]:
    """A fraction beside a recommendation that has no other owner: "works best at 0.8", "推荐0.7~1"."""
    near = text[max(0, figure.start - 60) : figure.end + 24]
    meant = bool(RECOMMENDED.search(near) or _USE_IT.search(near) or _LORA_AT.search(text[: figure.start]))
    if figure.low < 0 < figure.high or (OVER.search(near) and HARM.search(text)):
        meant = True
    if not meant or ("." not in figure.spelled and figure.low >= 0):
        return
    if _MERGING.search(text) or is_other_file(unit.text, subject) or _before_together(text, figure):
        return
    value = _value("weight", figure)
    if value is not None and abs(value[0]) <= 2 and value[1] <= 2:
        yield from _bounded("weight", *value, figure, text, unit, sureness(unit) - 0.18)


def tag_weights(unit: Unit, subject: Subject) -> Iterator[Said]:
    """`<lora:ours:0.8>` in the text."""
    if not subject.has_weight:
        return
    own = [squeezed(name) for name in subject.names if name]
    for match in LORA_TAG.finditer(unit.text):
        numbers = _figures(match[2].lstrip(": ")) if match[2] else []
        if not numbers or not alike(squeezed(match[1]), own):
            continue
        value = _value("weight", numbers[0])
        if value is not None:
            plain = value == (1.0, 1.0)  # what the web UI inserts by itself
            low, high = (None, None) if value[0] == value[1] else value
            yield said("weight", _middle("weight", *value), unit, 0.4 if plain else 0.6, low, high, match.start())

"""A text in units: sentences, list items and table cells, each with the label and heading it stands under."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from hubctl.advice.samplers import samplers
from hubctl.advice.subject import Subject, is_elsewhere
from hubctl.advice.words import LETTER, RECOMMENDED, TRAINING, keywords, names_in
from hubctl.text import Line

MAX_CHARS = 120_000  # of all lines together
MAX_UNIT = 1_000


class Unit(NamedTuple):
    """A sentence, item or cell, and the label or heading it stands under."""

    text: str
    label: str = ""
    heading: str = ""


def units(given: Sequence[Line], subject: Subject) -> Iterator[Unit]:
    """Sentences, items and cells with what they stand under; sections about something else are left out."""
    heading, label_used, listing, skipping, spent = "", False, False, False, 0
    labels: dict[int, str] = {}
    listed = [*_without_dataset_sizes(_rows_as_text(given))]
    for line, following in zip(listed, [*listed[1:], Line("")], strict=False):
        spent += len(line.text)
        if spent > MAX_CHARS:
            return
        if not line.text:
            if label_used and not listing:
                labels.pop(0, None)
            continue
        text = normalise(line.text[: 8 * MAX_UNIT])
        listing = len(text) <= 60 and _names(text) == 1  # "CFG: 7", a paragraph each, is still one list
        if line.kind == "heading" or (line.bold and len(text) <= 80 and not _has_setting(text)):
            heading, label_used = text, False
            labels = {0: text} if text.endswith(":") else {}
            skipping = is_elsewhere(text, subject)
            continue
        depth = line.depth
        labels = {level: label for level, label in labels.items() if level < depth or level == 0}
        opens = text.endswith(":") or (depth > 0 and following.depth > depth and not _has_setting(text))
        if len(text) <= 70 and opens and line.kind != "row":
            if depth == 0 and is_elsewhere(text, subject):
                skipping, heading = True, text
                continue
            if depth == 0:
                skipping = False
                labels, label_used = {0: text}, False
            else:
                labels[depth] = text
            continue
        label_used = True
        if skipping:
            continue
        above = [label for level, label in sorted(labels.items()) if level < max(depth, 1)]
        if any(is_elsewhere(label, subject) for label in above):
            continue
        for sentence in _sentences(text):
            yield Unit(sentence[:MAX_UNIT], " ".join(above), heading)


def _without_dataset_sizes(given: Iterable[Line]) -> Iterator[Line]:
    """ "Resolution: 1024x1024" beside "Image count: 377" is that of the training's pictures."""
    for _, block in groupby(given, key=lambda line: bool(line.text)):
        members = [*block]
        sheet = 2 <= len(members) <= 40 and _is_of_a_dataset([line.text for line in members])
        yield from (line for line in members if not sheet or len(line.text) > 60 or names_in(line.text) != {"size"})


def _is_of_a_dataset(texts: Sequence[str]) -> bool:
    """Whether short lines beside each other describe a training, and none of them how to use what came of it."""
    facts = [text for text in texts if len(text) <= 60]
    if not any(TRAINING.search(text) for text in facts):
        return False
    named = set().union(*(names_in(text) for text in facts))
    return named <= {"size", "steps", "other", "counted"} and not any(RECOMMENDED.search(text) for text in facts)


def _rows_as_text(given: Iterable[Line]) -> Iterator[Line]:
    """Table rows as "header: cell" lines."""
    header: list[str] = []
    for line in given:
        cells = line.text.split(" | ")
        if line.kind != "row" or len(cells) < 2:
            header = []
            yield line
        elif header and len(header) == len(cells):
            yield replace(line, text="; ".join(f"{h}: {c}" for h, c in zip(header, cells, strict=True) if c.strip()))
        elif not header and len(cells) > 1 and not any(map(str.isdigit, line.text)) and _names(line.text) > 1:
            header = cells
        elif len(cells) == 2:
            yield replace(line, text=f"{cells[0].rstrip(':：')}: {cells[1]}")
        else:
            yield replace(line, text=f"{cells[0].rstrip(':：')}: {', '.join(cells[1:])}")


def _names(text: str) -> int:
    return len(names_in(text) - {"other", "counted"})


def _has_setting(text: str) -> bool:
    return bool(keywords(text)) and (any(map(str.isdigit, text)) or bool(samplers(text)))


_ENDS = re.compile(r"(?<=[.!?])\s+|[。！？；;!?]+|\s(?:•|·|\||➜|👉)\s")
_ABBREVIATED = re.compile(
    r"\b(hires|highres|hi-?res|approx|max|min|ver|e\.g|i\.e|ca|recom|rec|vs|no|str)\.(?=\s)", re.IGNORECASE
)


def _sentences(text: str) -> Iterator[str]:
    text = _ABBREVIATED.sub(r"\1 ", text)
    for sentence in _ENDS.split(text):
        if sentence and sentence.strip():
            yield sentence.strip()


_WIDE: dict[int, int | str] = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_WIDE.update(dict.fromkeys(map(ord, "‐‑‒–—―−﹣ー"), "-"))
_WIDE.update(dict.fromkeys(map(ord, "〜∼～˜"), "~"))
_WIDE.update({0x3000: " ", ord("、"): ",", ord("×"): "x", ord("✕"): "x", ord("✖"): "x", ord("“"): '"', ord("”"): '"'})
_LONG_VOWEL = re.compile(r"(?<=[ァ-ヶ])-")
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])(?:([01]),(\d{1,2})|(\d{1,2}),(5))(?!\d|,\d)")
_NUMERALS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "fifteen": 15, "twenty": 20, "twenty five": 25, "twenty-five": 25, "thirty": 30,
    "thirty five": 35, "forty": 40, "fifty": 50, "sixty": 60, "dos": 2, "tres": 3, "siete": 7, "veinte": 20,
    "treinta": 30, "zwei": 2, "drei": 3, "sieben": 7, "zwanzig": 20, "dreißig": 30, "deux": 2, "trois": 3,
    "sept": 7, "vingt": 20, "trente": 30, "dois": 2, "duas": 2, "vinte": 20, "trinta": 30, "два": 2, "две": 2,
    "три": 3, "семь": 7, "двадцать": 20, "тридцать": 30, "due": 2, "dwa": 2,
}  # fmt: skip
_NUMERAL = re.compile(
    rf"(?<![{LETTER}\-])(?:{'|'.join(sorted(_NUMERALS, key=len, reverse=True))})(?![{LETTER}])", re.IGNORECASE
)
_CJK_NUMERAL = re.compile(
    r"[一二两兩三四五六七八九十]{1,3}(?=\s?(?:步|层|層|ステップ|$))|(?<=[数數])[一二两兩三四五六七八九十]{1,3}|"
    r"(?<=[：:层層skip])\s?[一二两兩三](?![a-z一-龥])"
)
_CJK_DIGITS = {"一": 1, "二": 2, "两": 2, "兩": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}


def normalise(text: str) -> str:
    """Digits, dashes and signs of any script as ASCII; decimal commas as points."""
    text = text.translate(_WIDE)
    if not text.isascii():
        text = "".join(str(int(c)) if c > "\x7f" and c.isdecimal() else c for c in text)
        text = _LONG_VOWEL.sub("ー", text)
        text = _CJK_NUMERAL.sub(lambda match: str(_cjk_number(match[0])), text)
    text = _DECIMAL_COMMA.sub(lambda m: f"{m[1]}.{m[2]}" if m[1] else f"{m[3]}.{m[4]}", text)
    if _NUMERAL.search(text) and re.search(r"clip|skip|step|schritt|paso|passo|étape|шаг|скип", text, re.IGNORECASE):
        text = _NUMERAL.sub(lambda match: str(_NUMERALS[match[0].lower()]), text)
    return text


def _cjk_number(text: str) -> int:
    """二十五 → 25."""
    text = text.strip()
    tens, ten, ones = text.partition("十")
    if not ten:
        return _CJK_DIGITS.get(text[:1], 0)
    return 10 * (_CJK_DIGITS.get(tens[:1], 1) if tens else 1) + _CJK_DIGITS.get(ones[:1], 0)

"""Trigger words: what has to stand in a prompt for a model to do its thing.

Four sources, best first: the user's own list, the hub's `trainedWords`, the file's header (tag frequencies of its
training pictures, `modelspec.trigger_phrase`), and words that example prompts share. A better source silences the
worse ones; example prompts and bare tag counts are guesses and only speak when nobody else does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubctl.text import safe

MAX_WORDS = 64
MAX_LENGTH = 300  # characters of one word or phrase; longer entries are pasted pages
PROMPT_WORDS = 6  # an entry with more comma parts than this is a whole prompt, kept together as one group

_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]{1,300}>", re.IGNORECASE)
_BREAKS = re.compile(r"[\r\n;；]+")
_COMMAS = re.compile(r"[,，、]")


@dataclass(frozen=True)
class TriggerWord:
    """One word or phrase, ready to paste. `group` numbers the hub's entries: words of one group belong together."""

    text: str
    source: str  # "user" · "hub" · "header" · "images"
    count: int | None = None  # training pictures (header) or example prompts (images) that carry it
    group: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "source": self.source, "count": self.count, "group": self.group}


def words(
    trained: Sequence[str] = (),
    *,
    header: Any = None,
    prompts: Iterable[str] = (),
    user: Sequence[str] | None = None,
) -> tuple[TriggerWord, ...]:
    """The trigger words of a version.

    `trained` is the hub's list (entries may hold commas, line breaks, `<lora:…>` tags or whole prompts); `header` is
    a `registry.detect.FileFacts` or its JSON; `prompts` are example prompts; `user` wins over everything.
    """
    if user is not None:
        return _unique(TriggerWord(w, "user", None, g) for g, w in enumerate(map(_clean, user)) if w)
    counts = {text.casefold(): count for text, count in _header_words(header)}
    found = _unique(
        TriggerWord(text, "hub", counts.get(text.casefold()), group)
        for group, entry in enumerate(trained[:MAX_WORDS])
        for text in split_entry(entry)
    )
    if found:
        return found
    found = _unique(TriggerWord(text, "header", count, i) for i, (text, count) in enumerate(_header_words(header)))
    return found or _from_prompts(prompts)


def split_entry(entry: str) -> list[str]:
    """The words of one `trainedWords` entry; a whole prompt stays one phrase, tags of other files are dropped."""
    out: list[str] = []
    for line in _BREAKS.split(_TAG.sub(" ", entry[:20_000])):
        parts = [part for part in map(_clean, _split_commas(line)) if part]
        if len(parts) > PROMPT_WORDS:
            out.append(", ".join(parts)[:MAX_LENGTH].rstrip(", "))
        else:
            out.extend(parts)
    return out


def _split_commas(line: str) -> list[str]:
    """Commas outside parentheses: "(red hair, blue eyes:1.2)" is one phrase."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(line):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(0, depth - 1)
        elif not depth and _COMMAS.match(char):
            parts.append(line[start:i])
            start = i + 1
    parts.append(line[start:])
    return parts


def _clean(text: str) -> str:
    text = " ".join(safe(text).split()).strip(" .:'\"`“”‘’")
    return text[:MAX_LENGTH] if text.count("(") == text.count(")") else text.strip("()")[:MAX_LENGTH]


def _unique(found: Iterable[TriggerWord]) -> tuple[TriggerWord, ...]:
    kept: dict[str, TriggerWord] = {}
    for word in found:
        if len(kept) < MAX_WORDS:
            kept.setdefault(word.text.casefold(), word)
    return tuple(kept.values())


def _header_words(header: Any) -> list[tuple[str, int | None]]:
    facts: Mapping[str, Any] = {}
    if isinstance(header, Mapping):
        facts = header
    elif header is not None:
        facts = header.to_json()
    said = facts.get("trained_words") or ()
    frequencies = {str(t).casefold(): n for t, n in (facts.get("tag_frequency") or {}).items()}
    return [(text, frequencies.get(text.casefold())) for text in map(_clean, map(str, said)) if text]


_COMMON = frozenset(
    [
        "masterpiece",
        "best quality",
        "high quality",
        "highres",
        "absurdres",
        "8k",
        "4k",
        "1girl",
        "1boy",
        "solo",
        "detailed",
        "realistic",
        "photo",
        "ultra detailed",
        "highly detailed",
        "intricate",
        "sharp focus",
        "looking at viewer",
        "simple background",
        "smile",
    ]
)


def _from_prompts(prompts: Iterable[str]) -> tuple[TriggerWord, ...]:
    """Phrases that three quarters of at least four example prompts share, apart from what every prompt says."""
    counts: Counter[str] = Counter()
    total = 0
    for prompt in prompts:
        total += 1
        plain = _TAG.sub(" ", prompt[:20_000])
        counts.update({_clean(p).strip("()[]").lower() for p in _split_commas(plain.replace("\n", ","))} - {""})
    if total < 4:
        return ()
    shared = [(t, n) for t, n in counts.most_common(40) if n >= 0.75 * total and t not in _COMMON and len(t) <= 60]
    return tuple(TriggerWord(text, "images", count, i) for i, (text, count) in enumerate(shared[:8]))


def paste_line(file_stem: str, weight: float | None, words: Iterable[str | TriggerWord] = ()) -> str:
    """`<lora:stem:0.8> word, word`: what to put into a prompt. An unknown weight reads as 1."""
    texts = [word.text if isinstance(word, TriggerWord) else word for word in words]
    tag = f"<lora:{safe(file_stem)}:{1.0 if weight is None else weight:g}>"
    return f"{tag} {', '.join(texts)}".strip()

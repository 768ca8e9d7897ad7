"""Trigger words: what has to stand in a prompt for a model to do its thing, and the line to paste.

Four sources, best first: the user's own list, the hub's `trainedWords`, the file's header (tag frequencies of its
training pictures, `modelspec.trigger_phrase`), and words that example prompts share. A better source silences the
worse ones; example prompts and bare tag counts are guesses and only speak when nobody else does.

    words(["armor, helmet", "<lora:x:1>"])          →  armor · helmet
    usage("LORA", "ArmorSuit_v1", 0.75, found)      →  <lora:ArmorSuit_v1:0.75> armor, helmet
    usage("TextualInversion", "bad-hands", …)       →  bad-hands, for the negative prompt
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hubctl.text import html_to_text, safe

if TYPE_CHECKING:
    from registry import Installed, wire

MAX_WORDS = 64
MAX_LENGTH = 300  # characters of one word or phrase; longer entries are pasted pages
PROMPT_WORDS = 6  # an entry with more comma parts than this is a whole prompt, kept together as one group

_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]{1,300}>", re.IGNORECASE)
_BREAKS = re.compile(r"[\r\n;；]+")
_COMMAS = re.compile(r"[,，、]")
_NO_WORD = re.compile(  # what creators write where the hub insists on a word
    r"(?:none|n/?a|null|nothing|no|-+|\.+|tbd|trigger\s?words?|no\s(?:trigger|activation|keyword)\b.{0,60}"
    r"|(?:trigger\s?words?\s)?not?\s(?:needed|required|necessary)\b.{0,40}|see\s.{1,60}|check\s.{1,60}"
    r"|use\sthe\s(?:name\sof\sthe\s)?(?:embedding|file)\b.{0,80}|无|無|不需要.{0,20}|なし)",
    re.IGNORECASE,
)


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
        if not _NO_WORD.fullmatch(text)
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


# --- where to put them ------------------------------------------------------------------------------------------------

_ADAPTERS = {"lora": "lora", "locon": "lora", "dora": "lora", "lycoris": "lora", "hypernetwork": "hypernet"}
_MOST_IN_A_PROMPT = 6  # a checkpoint with more trigger words offers them to choose from


@dataclass(frozen=True)
class Usage:
    """What to paste where. `others` are groups to use instead: the outfits of a character, the styles of a mix."""

    prompt: str = ""
    negative: str = ""
    others: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "negative_prompt": self.negative, "others": list(self.others)}


def usage(
    model_type: str | None,
    file_stem: str | None,
    weight: float | None,
    found: Sequence[TriggerWord],
    *,
    negative: bool = False,
) -> Usage:
    """The lines to paste for a file of this model type."""
    kind = (model_type or "").lower().replace(" ", "")
    stem = safe(file_stem or "")
    groups = _groups(found)
    if kind == "textualinversion":
        stem = stem or (found[0].text if found else "")
        return Usage(negative=stem) if negative else Usage(prompt=stem)
    first, others = _first_of(groups, many=kind == "checkpoint")
    if kind in _ADAPTERS and stem:
        return Usage(prompt=paste_line(stem, weight, first, tag=_ADAPTERS[kind]), others=others)
    return Usage(prompt=", ".join(first), others=others)


def _groups(found: Sequence[TriggerWord]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for word in found:
        groups.setdefault(word.group, []).append(word.text)
    return list(groups.values())


def _first_of(groups: list[list[str]], *, many: bool) -> tuple[list[str], tuple[str, ...]]:
    """The words to paste, and what could stand in their place: several whole descriptions are a choice."""
    whole = [group for group in groups if len(group) > 1 or len(group[0]) > 40]
    if len(whole) > 1:
        lone = [group[0] for group in groups if group not in whole]
        return [*lone, *whole[0]], tuple(", ".join(group) for group in whole[1:])
    if many and len(groups) > _MOST_IN_A_PROMPT:
        return [], tuple(", ".join(group) for group in groups)
    return [text for group in groups for text in group], ()


def paste_line(
    file_stem: str, weight: float | None, words: Iterable[str | TriggerWord] = (), *, tag: str = "lora"
) -> str:
    """`<lora:stem:0.8> word, word`: what to put into a prompt. An unknown weight reads as 1."""
    texts = [word.text if isinstance(word, TriggerWord) else word for word in words]
    texts = [text for text in texts if not text.startswith(f"<{tag}:")]
    return f"<{tag}:{safe(file_stem)}:{1.0 if weight is None else weight:g}> {', '.join(texts)}".strip()


_NEGATIVE_NAME = re.compile(
    r"(?<![a-z])(?:neg(?:ative)?s?|ng|bad|worst|un(?:realistic|aesthetic))(?![a-z])|negative|deepneg", re.IGNORECASE
)
_PUT_IN_NEGATIVE = re.compile(
    r"(?:in|into|to|for|as|with|on)\s(?:the\s|your\s|a\s){0,2}negative\s(?:prompt|embedding)|negative\s(?:embedding|textual\sinversion)"
    r"|负面提示|反向提示|负面prompt|ネガティブ(?:プロンプト)?に|부정적인\sprompt|네거티브",
    re.IGNORECASE,
)


def is_negative(model: wire.Model, version: wire.ModelVersion, facts: Mapping[str, Any] | None = None) -> bool:
    """Whether an embedding belongs in the negative prompt."""
    if (model.type or "").lower() != "textualinversion":
        return False
    metadata = (facts or {}).get("metadata") or {}
    if str(metadata.get("modelspec.is_negative_embedding", "")).lower() == "true":
        return True
    if any((file.type or "").lower() == "negative" for file in version.files):
        return True
    named = " ".join([version.name, *(PurePosixPath(file.name).stem for file in version.files), *model.tag_names])
    if _NEGATIVE_NAME.search(named.replace("_", " ")) or _NEGATIVE_NAME.search(model.name):
        return True
    text = f"{html_to_text(version.description)} {html_to_text(model.description)}"
    return bool(_PUT_IN_NEGATIVE.search(text[:20_000]))


def of_installed(item: Installed) -> tuple[TriggerWord, ...]:
    """The trigger words of something installed: the user's own, else what hub, header and examples say."""
    said = {part.casefold() for entry in item.version.trained_words for part in _loose_parts(entry)}
    own = getattr(item, "own_words", None)
    if own is None and not {word.casefold() for word in item.trigger_words} <= said:
        own = item.trigger_words
    facts = item.files[0].facts if item.files else {}
    return of(item.version, facts, model_type=item.model.type, user=own)


def _loose_parts(entry: str) -> list[str]:
    return [" ".join(part.split()) for part in entry.replace("\n", ",").split(",")]


def of(
    version: wire.ModelVersion,
    facts: Any = None,
    *,
    model_type: str | None = None,
    user: Sequence[str] | None = None,
) -> tuple[TriggerWord, ...]:
    """The trigger words of a version. Example prompts are asked for adapters only: a checkpoint's share mere habits."""
    prompts: list[str] = []
    if (model_type or "").lower() in {"lora", "locon", "dora"}:
        metas = [image.meta for image in version.images if image.meta]
        prompts = [meta["prompt"] for meta in metas if isinstance(meta.get("prompt"), str)]
    return words(version.trained_words, header=facts, prompts=prompts, user=user)


_NOT_THE_MODEL = frozenset(["training data", "config", "archive", "negative", "vae", "workflow"])


def file_stem(version: wire.ModelVersion) -> str | None:
    """The name a prompt calls the version's main file by."""
    files = [file for file in version.files if file.name and (file.type or "").lower() not in _NOT_THE_MODEL]
    chosen = next((file for file in files if file.primary), files[0] if files else None)
    chosen = chosen or next((file for file in version.files if file.name), None)
    return PurePosixPath(safe(chosen.name)).stem.strip() if chosen else None

"""The WebUI's prompt language, outer layers first: `<tags>` → AND → `[a:b:n]` timelines → attention and BREAK → chunks.

Pure text in, plain values out; every parser here is linear in the length of its input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

CHUNK = 75  # tokens between BOS and EOS
COMMA_BACKTRACK = 20
DEEPEST = 200  # nesting beyond this is literal text

# --- <lora:name:0.8> ---

_TAG = re.compile(r"<(\w+):([^>]+)>")


@dataclass(frozen=True)
class NetworkTag:
    """`<lora:name:te:unet:dyn>`; the TE weight is 1 when missing, the UNet's the TE's; or named te=, unet=, dyn=."""

    kind: str
    name: str
    weight_te: float = 1.0
    weight_unet: float = 1.0
    dyn: int | None = None


def extract_networks(prompt: str) -> tuple[str, tuple[NetworkTag, ...]]:
    """The prompt without its tags (nothing is put in their place), and the tags in order."""
    tags: list[NetworkTag] = []

    def take(found: re.Match[str]) -> str:
        tags.append(_tag(found[1].lower(), found[2]))
        return ""

    return _TAG.sub(take, prompt), tuple(tags)


def _tag(kind: str, text: str) -> NetworkTag:
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in text.split(":"):
        key, sign, value = part.partition("=")
        if sign and "=" not in value:
            named[key] = value
        else:
            positional.append(part)
    te = _number(named.get("te"), _number(positional[1] if len(positional) > 1 else None, 1.0))
    unet = _number(named.get("unet"), _number(positional[2] if len(positional) > 2 else None, te))
    dyn = _number(named.get("dyn"), _number(positional[3] if len(positional) > 3 else None, 0.0))
    return NetworkTag(kind, positional[0] if positional else "", te, unet, int(dyn) or None)


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text is not None else default
    except ValueError:
        return default


# --- AND ---

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def split_and(prompt: str) -> tuple[tuple[str, float], ...]:
    """Parts between whole-word ANDs; each may end in `:number`, its weight (default 1)."""
    out = []
    for part in _AND.split(prompt):
        head, colon, tail = part.rpartition(":")
        if colon and _WEIGHT.fullmatch(tail.strip()):
            out.append((head.rstrip(), float(tail)))
        else:
            out.append((part.rstrip(), 1.0))
    return tuple(out)


# --- timelines ---


@dataclass
class _Bracket:
    start: int
    kind: str
    end: int = -1
    tainted: bool = False
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


_SIGNED = re.compile(r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class _Change:
    """`[before:after:when]`"""

    before: tuple[Any, ...]
    after: tuple[Any, ...]
    when: str


@dataclass(frozen=True)
class _Alternate:
    options: tuple[tuple[Any, ...], ...]


def _brackets(text: str) -> dict[int, _Bracket]:
    """Matched square brackets by their start, with the colons and bars at their own level."""
    stack: list[_Bracket] = []
    found: dict[int, _Bracket] = {}
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char in "([":
            stack.append(_Bracket(at, char))
        elif char == ")":
            if stack and stack[-1].kind == "(":
                stack.pop()
            elif stack:
                stack[-1].tainted = True
        elif char == "]":
            stray = False
            while stack and stack[-1].kind == "(":
                stack.pop()
                stray = True
            if stack:
                bracket = stack.pop()
                bracket.end = at
                if not (stray or bracket.tainted):
                    found[bracket.start] = bracket
                elif stack:
                    stack[-1].tainted = stack[-1].kind == "["
        elif stack and stack[-1].kind == "[":
            if char == ":":
                stack[-1].colons.append(at)
            elif char == "|":
                stack[-1].bars.append(at)
        at += 1
    return found


def _tree(text: str, start: int, end: int, found: dict[int, _Bracket], depth: int = 0) -> tuple[Any, ...]:
    """Text between two positions as a sequence of str, _Change and _Alternate."""
    out: list[Any] = []
    plain = start
    at = start
    while at < end:
        char = text[at]
        if char == "\\":
            at += 2
            continue
        bracket = found.get(at) if char == "[" and depth < DEEPEST else None
        if bracket is not None and bracket.end < end:
            node = _node(text, bracket, found, depth)
            if node is not None:
                out += [text[plain:at], node]
                at = plain = bracket.end + 1
                continue
        at += 1
    out.append(text[plain:end])
    return tuple(out)


def _node(text: str, bracket: _Bracket, found: dict[int, _Bracket], depth: int) -> _Change | _Alternate | None:
    inner = (bracket.start + 1, bracket.end)
    if bracket.bars and not bracket.colons:
        edges = [inner[0] - 1, *bracket.bars, inner[1]]
        options = [_tree(text, a + 1, b, found, depth + 1) for a, b in pairwise(edges)]
        return _Alternate(tuple(options))
    if len(bracket.colons) in (1, 2) and not bracket.bars:
        last = bracket.colons[-1]
        number = _SIGNED.fullmatch(text, last + 1, inner[1])
        if number:
            first = bracket.colons[0]
            before = _tree(text, inner[0], first, found, depth + 1) if len(bracket.colons) == 2 else ()
            begin = first + 1 if len(bracket.colons) == 2 else inner[0]
            return _Change(before, _tree(text, begin, last, found, depth + 1), number[1])
    return None


def schedule(
    prompt: str, calls: int, *, hires_calls: int | None = None, first_calls: int = 0, old: bool = False
) -> tuple[tuple[int, str], ...]:
    """The prompt as (end_step, text) entries covering 1…N.

    `calls` is N, the denoiser calls the sampler is expected to make (2·steps for second-order samplers). For a hires
    pass give its own N as `hires_calls` and the first pass's as `first_calls`; `old` selects the rule before 1.6.
    """
    total = hires_calls if hires_calls is not None else calls
    shift_whole, shift_fraction = (first_calls or calls, 1.0) if hires_calls is not None and not old else (0, 0.0)

    def boundary(when: str) -> int:
        value = float(when)
        if old:
            value = value * total if value < 1 else value
        elif "." in when:
            value = (value - shift_fraction) * total
        else:
            value -= shift_whole
        return min(total, int(max(-1e9, min(1e9, value))))

    tree = _tree(prompt, 0, len(prompt), _brackets(prompt))
    ends = {total}
    _collect(tree, total, boundary, ends)
    return tuple((end, _at(tree, end, boundary)) for end in sorted(ends))


def _collect(tree: tuple[Any, ...], total: int, boundary: Callable[[str], int], ends: set[int]) -> None:
    for node in tree:
        if isinstance(node, _Change):
            if (end := boundary(node.when)) >= 1:
                ends.add(end)
            _collect(node.before, total, boundary, ends)
            _collect(node.after, total, boundary, ends)
        elif isinstance(node, _Alternate):
            ends.update(range(1, total + 1))
            for option in node.options:
                _collect(option, total, boundary, ends)


def _at(tree: tuple[Any, ...], step: int, boundary: Callable[[str], int]) -> str:
    out = []
    for node in tree:
        if isinstance(node, _Change):
            out.append(_at(node.before if step <= boundary(node.when) else node.after, step, boundary))
        elif isinstance(node, _Alternate):
            out.append(_at(node.options[(step - 1) % len(node.options)], step, boundary))
        else:
            out.append(node)
    return "".join(out)


def at_call(entries: Sequence[tuple[int, Any]], call: int) -> int:
    """Index of the entry used at denoiser call `call` (0-based): the first with call <= end, else the first."""
    for index, (end, _) in enumerate(entries):
        if call <= end:
            return index
    return 0


# --- attention ---

_ATTENTION = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
BREAK = ("BREAK", -1.0)
"""The run that closes a chunk. Inside brackets its weight changes and it is ordinary text, as in the WebUI."""

ROUND, SQUARE = 1.1, 1 / 1.1


def attention(text: str) -> tuple[tuple[str, float], ...]:
    """`a (b:1.2) [c]` → runs of (text, weight); equal neighbours are joined before tokenising."""
    runs: list[list[Any]] = []
    round_at: list[int] = []
    square_at: list[int] = []

    def scale(start: int, factor: float) -> None:
        for run in runs[start:]:
            run[1] *= factor

    def plain(piece: str) -> None:
        for index, part in enumerate(_BREAK.split(piece)):
            if index:
                runs.append(list(BREAK))
            runs.append([part, 1.0])

    for found in _ATTENTION.finditer(text):
        token, weight = found[0], found[1]
        if token[0] == "\\":
            runs.append([token[1:], 1.0])
        elif token == "(" and len(round_at) < DEEPEST:
            round_at.append(len(runs))
        elif token == "[" and len(square_at) < DEEPEST:
            square_at.append(len(runs))
        elif weight is not None and round_at:
            factor = _number(weight, float("nan"))
            if factor == factor:
                scale(round_at.pop(), factor)
            else:  # `:1.2.3)` is text and an ordinary closer
                plain(token[:-1])
                scale(round_at.pop(), ROUND)
        elif token == ")" and round_at:
            scale(round_at.pop(), ROUND)
        elif token == "]" and square_at:
            scale(square_at.pop(), SQUARE)
        else:
            plain(token)
    for start in round_at:
        scale(start, ROUND)
    for start in square_at:
        scale(start, SQUARE)
    return _joined(runs) or (("", 1.0),)


def _joined(runs: Sequence[Sequence[Any]]) -> tuple[tuple[str, float], ...]:
    out: list[tuple[list[str], float]] = []
    for text, weight in runs:
        if out and out[-1][1] == weight:
            out[-1][0].append(text)
        else:
            out.append(([text], weight))
    return tuple(("".join(parts), weight) for parts, weight in out)


# --- chunks ---


@dataclass(frozen=True)
class PromptChunk:
    """BOS + 75 + EOS: ids and weights of 77 positions; `fixes` = (position after BOS, embedding) to put in."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    fixes: tuple[tuple[int, Any], ...] = ()


FindEmbedding = Callable[[Sequence[int], int], "tuple[Any, int, int] | None"]
"""(tokens, position) → (embedding, its vectors, tokens its name takes) or None."""


def chunks(
    runs: Sequence[tuple[str, float]],
    tokenize: Callable[[str], Sequence[int]],
    find_embedding: FindEmbedding = lambda tokens, position: None,
    *,
    comma_token: int = 267,
    bos: int = 49406,
    eos: int = 49407,
    comma_backtrack: int = COMMA_BACKTRACK,
) -> tuple[PromptChunk, ...]:
    """Fill chunks token by token; a word group that would be cut moves to the next chunk from its last comma on."""
    out: list[PromptChunk] = []
    tokens: list[int] = []
    weights: list[float] = []
    fixes: list[tuple[int, Any]] = []
    comma = -1

    def close() -> None:
        nonlocal comma
        fill = CHUNK - len(tokens)
        out.append(
            PromptChunk((bos, *tokens, *([eos] * fill), eos), (1.0, *weights, *([1.0] * fill), 1.0), tuple(fixes))
        )
        tokens.clear()
        weights.clear()
        fixes.clear()
        comma = -1

    for text, weight in runs:
        if (text, weight) == BREAK:
            close()
            continue
        ids = tokenize(text)
        position = 0
        while position < len(ids):
            token = ids[position]
            if token == comma_token:
                comma = len(tokens)
            elif comma_backtrack and len(tokens) == CHUNK and comma != -1 and len(tokens) - comma <= comma_backtrack:
                moved, moved_weights = tokens[comma + 1 :], weights[comma + 1 :]
                del tokens[comma + 1 :], weights[comma + 1 :]
                close()
                tokens.extend(moved)
                weights.extend(moved_weights)
            if len(tokens) == CHUNK:
                close()
            found = find_embedding(ids, position)
            if found is None:
                tokens.append(token)
                weights.append(weight)
                position += 1
                continue
            embedding, vectors, taken = found
            vectors = min(vectors, CHUNK)
            if len(tokens) + vectors > CHUNK:
                close()
            fixes.append((len(tokens), embedding))
            tokens.extend([0] * vectors)
            weights.extend([weight] * vectors)
            position += taken
    if tokens or not out:
        close()
    return tuple(out)

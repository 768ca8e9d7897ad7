"""The WebUI's prompt language, outer layers first: `<tags>` → AND → `[a:b:n]` timelines → attention and BREAK → chunks.

Pure text in, plain values out; every parser here is linear in the length of its input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

CHUNK = 75  # tokens between BOS and EOS
COMMA_BACKTRACK = 20
DEEPEST = 200  # nesting beyond this is literal text

# --- <lora:name:0.8> ---

_TAG = re.compile(r"<(\w+):(?=[^>])")


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
    kept: list[str] = []
    done = 0
    while (found := _TAG.search(prompt, done)) and (end := prompt.find(">", found.end())) >= 0:
        tags.append(_tag(found[1], prompt[found.end() : end]))
        kept.append(prompt[done : found.start()])
        done = end + 1
    return "".join([*kept, prompt[done:]]), tuple(tags)


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


@dataclass
class _Open:
    """A bracket not yet closed: its text so far, cut at its own colons and bars."""

    bracket: str
    pieces: list[list[Any]] = field(default_factory=lambda: [[]])
    signs: list[str] = field(default_factory=list)

    def flat(self) -> list[Any]:
        """Everything since the bracket as plain text and finished parts: the bracket meant nothing."""
        out: list[Any] = [self.bracket]
        for sign, piece in zip(["", *self.signs], self.pieces, strict=True):
            out += [sign, *piece]
        return out


def _parse(text: str) -> tuple[Any, ...] | None:
    """The prompt as a sequence of str, _Change and _Alternate; None when the whole of it is literal.

    A bracket that is never closed, closes another's, or holds more colons than it may is plain text, and so is every
    bracket around it. A bar outside of `[a|b]` or a backslash before nothing makes the whole prompt literal.
    """
    root: list[Any] = []
    stack: list[_Open] = []

    def dissolve() -> bool:
        """Make all open brackets plain text; False when a bar is left over."""
        for level in stack:
            if "|" in level.signs:
                return False
            root.extend(level.flat())
        stack.clear()
        return True

    at, plain = 0, 0

    def flush(end: int) -> None:
        if end > plain:
            (stack[-1].pieces[-1] if stack else root).append(text[plain:end])

    while at < len(text):
        char = text[at]
        if char == "\\":
            if at + 1 == len(text) or text[at + 1] == "\n":
                return None
            at += 2
            continue
        if char not in "()[]:|":
            at += 1
            continue
        flush(at)
        if char in "([":
            if len(stack) == DEEPEST:
                return None
            stack.append(_Open(char))
        elif char in ":|":
            if stack and not (char == "|" and stack[-1].bracket == "("):
                stack[-1].signs.append(char)
                stack[-1].pieces.append([])
            elif char == "|":
                return None
            else:
                root.append(char)
        else:
            node = _closed(stack[-1], char) if stack else None
            if node is not None:
                stack.pop()
                (stack[-1].pieces[-1] if stack else root).extend(node)
            elif dissolve():
                root.append(char)
            else:
                return None
        at += 1
        plain = at
    flush(len(text))
    return tuple(root) if dissolve() else None


def _closed(level: _Open, char: str) -> list[Any] | None:
    """What a bracket and its closer are together; None when they are nothing."""
    if level.bracket + char not in {"()", "[]"}:
        return None
    colons, bars = level.signs.count(":"), level.signs.count("|")
    if not bars and colons <= (1 if char == ")" else 0):
        return [*level.flat(), char]
    if char == ")" or (bars and colons):
        return None
    if bars:
        return [_Alternate(tuple(tuple(piece) for piece in level.pieces))]
    last = level.pieces[-1]
    number = _SIGNED.fullmatch(last[0]) if len(last) == 1 and isinstance(last[0], str) else None
    if number is None or colons > 2:
        return None
    before = tuple(level.pieces[0]) if colons == 2 else ()
    return [_Change(before, tuple(level.pieces[colons - 1]), number[1])]


def schedule(
    prompt: str, calls: int, *, hires_calls: int | None = None, old: bool = False
) -> tuple[tuple[int, str], ...]:
    """The prompt as (end_step, text) entries covering 1…N.

    `calls` is N, the denoiser calls the sampler is expected to make (2·steps for second-order samplers). For a hires
    pass give its own N as `hires_calls`: whole numbers then count on from the first pass, fractions from 1. `old` is
    the rule before 1.6, the same for both passes.
    """
    later = hires_calls is not None and not old
    total = hires_calls if hires_calls is not None and later else calls

    def boundary(when: str) -> int:
        value = float(when)
        if old:
            value = value * total if value < 1 else value
        elif "." in when:
            value = (value - later) * total
        else:
            value -= calls * later
        return min(total, int(max(-1e9, min(1e9, value))))

    tree = _parse(prompt)
    if tree is None:
        return ((total, prompt),)
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


# --- ComfyUI's own reading ---

LONG_WORD = 8  # tokens from which on a word may be cut at a chunk's end
EMBEDDING = "embedding:"


def comfy_weights(text: str, weight: float = 1.0, depth: int = 0) -> tuple[tuple[str, float], ...]:
    """ComfyUI's `(a:1.2)`: an inner number replaces the outer weight, a bare pair multiplies it by 1.1; no `[ ]`."""
    out: list[tuple[str, float]] = []
    for piece in _bracketed(text):
        if depth < DEEPEST and len(piece) >= 2 and piece[0] == "(" and piece[-1] == ")":
            head, colon, tail = piece[1:-1].rpartition(":")
            number = _number(tail, float("nan")) if colon and head else float("nan")
            inner = (head, number) if number == number else (piece[1:-1], weight * ROUND)
            out += comfy_weights(*inner, depth + 1)
        else:
            out.append((piece, weight))
    return tuple(out)


def _bracketed(text: str) -> list[str]:
    """Text cut at its outermost round brackets; escaped ones do not count."""
    out: list[str] = []
    start, level, at = 0, 0, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and text[at + 1 : at + 2] in {"(", ")"}:
            at += 2
            continue
        if char == "(":
            if level == 0:
                out.append(text[start:at])
                start = at
            level += 1
        elif char == ")":
            level -= 1
            if level == 0:
                out.append(text[start : at + 1])
                start = at + 1
        at += 1
    out.append(text[start:])
    return [piece for piece in out if piece]


def comfy_chunks(
    text: str,
    tokenize: Callable[[str], Sequence[int]],
    embedding: Callable[[str], tuple[Any, int] | None] = lambda name: None,
    *,
    bos: int = 49406,
    eos: int = 49407,
) -> tuple[PromptChunk, ...]:
    """Chunks filled word by word: a short word that does not fit goes to the next one; `embedding:name` is a word."""
    done: list[PromptChunk] = []
    tokens: list[int] = []
    weights: list[float] = []
    fixes: list[tuple[int, Any]] = []

    def close() -> None:
        fill = CHUNK - len(tokens)
        done.append(
            PromptChunk((bos, *tokens, *([eos] * fill), eos), (1.0, *weights, *([1.0] * fill), 1.0), tuple(fixes))
        )
        for one in (tokens, weights, fixes):
            one.clear()

    for piece, weight in comfy_weights(text):
        plain = piece.replace("\\(", "(").replace("\\)", ")").replace("\n", " ")
        for word in filter(None, plain.split(" ")):
            found = embedding(word.removeprefix(EMBEDDING)) if word.startswith(EMBEDDING) else None
            ids = [0] * min(found[1], CHUNK) if found else list(tokenize(word))
            if len(tokens) + len(ids) > CHUNK and (found or len(ids) < LONG_WORD):
                close()
            if found:
                fixes.append((len(tokens), found[0]))
            while ids:
                room = CHUNK - len(tokens)
                tokens.extend(ids[:room])
                weights.extend([weight] * len(ids[:room]))
                ids = ids[room:]
                if ids:
                    close()
    if tokens or not done:
        close()
    return tuple(done)

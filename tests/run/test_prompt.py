"""The prompt language, against slow readings of it that are obviously right, and examples written out by hand."""

from __future__ import annotations

import math
import re
import time
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl.run import prompt as language
from hubctl.run.prompt import (
    NetworkTag,
    at_call,
    attention,
    chunks,
    comfy_chunks,
    comfy_weights,
    extract_networks,
    schedule,
    split_and,
)

PIECES = ["a", "b c", "(", ")", "[", "]", ":", "|", "0.5", "3", "1.2", " ", ",", "\\", "\\(", "\n", "BREAK", "AND", "é"]
scribbles = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
whens = st.sampled_from(["0.5", "3", "1.0", ".25", "7", "-1", "1e1"])
well_formed = st.recursive(
    st.sampled_from(["a", "b c", "dog, ", "x y", ""]),
    lambda inner: st.one_of(
        st.tuples(inner, inner, whens).map("[{0[0]}:{0[1]}:{0[2]}]".format),
        st.tuples(inner, st.sampled_from(["0.5", "2"])).map("[{0[0]}:{0[1]}]".format),
        st.lists(inner, min_size=2, max_size=3).map(lambda options: "[" + "|".join(options) + "]"),
        inner.map("({})".format), inner.map("({}:1.3)".format), inner.map("[{}]".format),
        st.lists(inner, max_size=3).map("".join),
    ),
    max_leaves=6,
)  # fmt: skip


# --- timelines --------------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*")


class Reference:
    """The grammar as it is written down: try every way to read a stretch of text.

    prompt  = (bracket | alternation | change | plain)*      a bracket may hold one colon if it is round
    change  = "[" (prompt ":")? prompt ":" number "]"
    text    = (prompt | one of "[]():")*                      else the whole of it is literal
    """

    def __init__(self, text: str, total: int, fraction_from: float = 0.0, whole_from: int = 0) -> None:
        self.text, self.total, self.fraction_from, self.whole_from = text, total, fraction_from, whole_from
        self.prompt = lru_cache(None)(self._prompt)

    def _prompt(self, start: int, end: int) -> list[Any] | None:
        """Text between two places as nodes; None when it is no prompt."""
        if start == end:
            return []
        taken = self.item(start, end)
        if taken is None:
            return None
        node, after = taken
        rest = self.prompt(after, end)
        return None if rest is None else [node, *rest]

    def item(self, at: int, end: int) -> tuple[Any, int] | None:
        text = self.text
        if text[at] == "\\":
            return (text[at : at + 2], at + 2) if at + 1 < end and text[at + 1] != "\n" else None
        if text[at] not in "()[]:|":
            return text[at], at + 1
        closer = {"(": ")", "[": "]"}.get(text[at])
        for close in range(at + 1, end):
            if closer is not None and text[close] == closer and (node := self.bracket(at, close)) is not None:
                return node, close + 1
        return None

    def bracket(self, start: int, close: int) -> Any:
        text, inside = self.text, (start + 1, close)
        whole = self.prompt(*inside)
        if whole is not None:
            return ["all", text[start], whole, text[close]]
        cuts = [i for i in range(*inside) if text[i] == ":"]
        for cut in cuts if text[start] == "(" else ():
            first, second = self.prompt(inside[0], cut), self.prompt(cut + 1, close)
            if first is not None and second is not None:
                return ["all", "(", first, ":", second, ")"]
        if text[start] == "(":
            return None
        for last in cuts:
            if NUMBER.fullmatch(text[last + 1 : close]):
                after = self.prompt(inside[0], last)
                if after is not None:
                    return ["change", [], after, text[last + 1 : close]]
                for first in cuts:
                    before, after = (
                        self.prompt(inside[0], first),
                        self.prompt(first + 1, last) if first < last else None,
                    )
                    if before is not None and after is not None:
                        return ["change", before, after, text[last + 1 : close]]
        return self.alternation(inside[0], close)

    def alternation(self, start: int, close: int) -> Any:
        """Options between bars: each bar may be this bracket's own or belong further inside."""
        options = self.options(start, close)
        return ["either", options] if options is not None and len(options) > 1 else None

    def options(self, start: int, close: int) -> list[Any] | None:
        whole = self.prompt(start, close)
        if whole is not None:
            return [whole]
        for bar in range(start, close):
            if self.text[bar] == "|" and (first := self.prompt(start, bar)) is not None:
                rest = self.options(bar + 1, close)
                if rest is not None:
                    return [first, *rest]
        return None

    def nodes(self) -> list[Any] | None:
        at, out = 0, []
        while at < len(self.text):
            taken = self.item(at, len(self.text))
            if taken is None:
                if self.text[at] not in "[]():":
                    return None
                taken = (self.text[at], at + 1)
            out.append(taken[0])
            at = taken[1]
        return out

    def boundary(self, when: str) -> int:
        value = float(when)
        value = (value - self.fraction_from) * self.total if "." in when else value - self.whole_from
        return min(self.total, int(value))

    def at(self, step: int) -> str:
        nodes = self.nodes()
        return self.text if nodes is None else "".join(self.spoken(node, step) for node in nodes)

    def spoken(self, node: Any, step: int) -> str:
        if isinstance(node, str):
            return node
        if node[0] == "all":
            return "".join(self.spoken(n, step) for part in node[1:] for n in part)
        if node[0] == "either":
            return "".join(self.spoken(n, step) for n in node[1][(step - 1) % len(node[1])])
        return "".join(self.spoken(n, step) for n in node[1 if step <= self.boundary(node[3]) else 2])


def spoken_at(entries: tuple[tuple[int, str], ...], step: int) -> str:
    return next(text for end, text in entries if step <= end)


@settings(max_examples=400, deadline=None)
@given(st.one_of(scribbles, well_formed), st.integers(1, 12))
def test_timelines_say_at_every_step_what_the_grammar_says(text: str, total: int) -> None:
    entries = schedule(text, total)
    reference = Reference(text, total)
    assert [spoken_at(entries, step) for step in range(1, total + 1)] == [
        reference.at(step) for step in range(1, total + 1)
    ]


@settings(max_examples=150, deadline=None)
@given(well_formed, st.integers(1, 8), st.integers(1, 8))
def test_timelines_of_the_second_pass_count_on_from_the_first(text: str, first: int, second: int) -> None:
    entries = schedule(text, first, hires_calls=second)
    reference = Reference(text, second, fraction_from=1.0, whole_from=first)
    assert [spoken_at(entries, step) for step in range(1, second + 1)] == [
        reference.at(step) for step in range(1, second + 1)
    ]


@settings(max_examples=200, deadline=None)
@given(st.one_of(scribbles, well_formed), st.integers(1, 40), st.booleans())
def test_timelines_cover_all_steps(text: str, total: int, old: bool) -> None:
    ends = [end for end, _ in schedule(text, total, old=old)]
    assert ends == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == total


@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [
        ("a [cat:dog:0.5]", 10, ((5, "a cat"), (10, "a dog"))),
        ("a [cat:dog:3]", 10, ((3, "a cat"), (10, "a dog"))),
        ("a [cat:dog:1]", 10, ((1, "a cat"), (10, "a dog"))),
        ("a [cat:dog:1.0]", 10, ((10, "a cat"),)),
        ("a [dog:0.5]", 4, ((2, "a "), (4, "a dog"))),
        ("a [cat::0.5]", 4, ((2, "a cat"), (4, "a "))),
        ("[a|b]", 3, ((1, "a"), (2, "b"), (3, "a"))),
        ("[a|]", 2, ((1, "a"), (2, ""))),
        ("[red [cat:dog:0.6]:(blue:1.3) b:0.3]", 10, ((3, "red cat"), (6, "(blue:1.3) b"), (10, "(blue:1.3) b"))),
        ("[no:number], (x:1.1:2)", 5, ((5, "[no:number], (x:1.1:2)"),)),
        ("a | b [c:d:0.5]", 4, ((4, "a | b [c:d:0.5]"),)),  # a bar of its own makes all of it literal
        (r"\[a:b:0.5]", 4, ((4, r"\[a:b:0.5]"),)),
        ("[a:b:0]", 4, ((4, "b"),)),
        ("[a:b:-2]", 4, ((4, "b"),)),
        ("[a:b:99]", 4, ((4, "a"),)),
    ],
)  # fmt: skip
def test_timelines_by_hand(text: str, total: int, expected: tuple[tuple[int, str], ...]) -> None:
    assert schedule(text, total) == expected


def test_the_old_rule_is_the_same_for_both_passes() -> None:
    assert schedule("[a:b:0.5]", 10, old=True) == ((5, "a"), (10, "b"))
    assert schedule("[a:b:0.5]", 10, hires_calls=4, old=True) == ((5, "a"), (10, "b"))
    assert schedule("[a:b:1.0]", 10, old=True) == ((1, "a"), (10, "b"))  # 1.0 is a step here
    assert schedule("[in snow:in rain:1.5]", 10, hires_calls=6) == ((3, "in snow"), (6, "in rain"))


def test_an_entry_lasts_one_call_longer_than_its_end() -> None:
    entries = ((5, "a"), (10, "b"))
    assert [at_call(entries, call) for call in (0, 5, 6, 10)] == [0, 0, 1, 1]
    assert at_call(entries, 11) == 0  # past the end the first one is used


# --- attention --------------------------------------------------------------------------------------------------------


def by_character(text: str) -> list[tuple[str, float]]:
    """Each piece of plain text with the product of the brackets around it; round and square ones pair apart."""
    token = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
    pieces: list[list[Any]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    spans: list[tuple[int, int, float]] = []

    def say(text: str) -> None:
        for number, part in enumerate(re.split(r"\s*\bBREAK\b\s*", text)):
            pieces.extend([["BREAK", -1.0]] if number else [])
            pieces.append([part, 1.0])

    for found in token.finditer(text):
        piece, number = found[0], found[1]
        if piece.startswith("\\"):
            pieces.append([piece[1:], 1.0])
        elif piece in opened:
            opened[piece].append(len(pieces))
        elif number is not None and opened["("]:
            try:
                factor = float(number)
            except ValueError:
                say(piece[:-1])
                factor = 1.1
            spans.append((opened["("].pop(), len(pieces), factor))
        elif piece == ")" and opened["("]:
            spans.append((opened["("].pop(), len(pieces), 1.1))
        elif piece == "]" and opened["["]:
            spans.append((opened["["].pop(), len(pieces), 1 / 1.1))
        else:
            say(piece)
    spans += [(start, len(pieces), 1.1) for start in opened["("]] + [
        (start, len(pieces), 1 / 1.1) for start in opened["["]
    ]
    return [
        (text, weight * math.prod(factor for start, end, factor in spans if start <= i < end))
        for i, (text, weight) in enumerate(pieces)
    ]


def letters(runs: Any) -> list[tuple[str, float]]:
    return [(char, round(weight, 6)) for text, weight in runs for char in text]


@settings(max_examples=400, deadline=None)
@given(scribbles)
def test_every_letter_has_the_weight_of_the_brackets_around_it(text: str) -> None:
    assert letters(attention(text)) == letters(by_character(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (red:1.3) [cat]", (("a ", 1.0), ("red", 1.3), (" ", 1.0), ("cat", 1 / 1.1))),
        ("((very))", (("very", 1.1 * 1.1),)),
        (r"\(escaped\)", (("(escaped)", 1.0),)),
        ("(unclosed", (("unclosed", 1.1),)),
        ("stray)", (("stray)", 1.0),)),
        ("(x:1.1:2)", (("x:1.1", 2.0),)),
        ("(weird:abc)", (("weird:abc", 1.1),)),
        ("a BREAK b", (("a", 1.0), ("BREAK", -1.0), ("b", 1.0))),
        ("", (("", 1.0),)),
        ("(a (b:2):0.5)", (("a ", 0.5), ("b", 1.0))),
    ],
)
def test_attention_by_hand(text: str, expected: tuple[tuple[str, float], ...]) -> None:
    found = attention(text)
    assert [piece for piece, _ in found] == [piece for piece, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


# --- chunks -----------------------------------------------------------------------------------------------------------

COMMA = 267


def spell(text: str) -> list[int]:
    """A stand-in for CLIP's tokens: one a word, commas apart."""
    return [
        COMMA if word == "," else 1000 + len(word) + 31 * (sum(map(ord, word)) % 997)
        for word in re.findall(r",|[^\s,]+", text)
    ]


words = st.lists(st.sampled_from(["cat", "dog", ",", "tree", "sky", ","]), max_size=260).map(" ".join)


def said(found: tuple[language.PromptChunk, ...]) -> list[tuple[int, float]]:
    """Tokens with their weights, without begin, end and filling."""
    out = []
    for chunk in found:
        assert len(chunk.tokens) == len(chunk.weights) == 77
        assert chunk.tokens[0] == 49406
        assert chunk.tokens[-1] == 49407
        inner = list(zip(chunk.tokens[1:-1], chunk.weights[1:-1], strict=True))
        while inner and inner[-1][0] == 49407:
            assert inner[-1][1] == 1.0
            inner.pop()
        out += inner
    return out


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(words, st.sampled_from([1.0, 1.3, 0.5])), max_size=4))
def test_chunks_keep_every_token_in_order_with_its_weight(runs: list[tuple[str, float]]) -> None:
    expected = [(token, weight) for text, weight in runs for token in spell(text)]
    assert said(chunks(runs, spell)) == expected


@settings(max_examples=100, deadline=None)
@given(words, st.sampled_from(["1.3", "0.2", "2", "0.99"]))
def test_weights_never_change_the_order_of_tokens(text: str, weight: str) -> None:
    plain = [token for token, _ in said(chunks(attention(text), spell))]
    weighed = [token for token, _ in said(chunks(attention(f"({text}:{weight})"), spell))]
    assert weighed == plain


@settings(max_examples=150, deadline=None)
@given(words)
def test_a_full_chunk_is_cut_after_its_last_comma_when_that_is_near(text: str) -> None:
    tokens = spell(text)
    expected: list[list[int]] = [[]]
    for token in tokens:
        last = expected[-1]
        if len(last) == 75:
            near = max((i for i, t in enumerate(last) if t == COMMA), default=-1)
            moved = last[near + 1 :] if token != COMMA and near >= 0 and 75 - near <= 20 else []
            del last[75 - len(moved) :]
            expected.append(moved)
        expected[-1].append(token)
    found = chunks([(text, 1.0)], spell)
    # a comma before the last cut is forgotten, as in the WebUI: moved words hold none by construction
    assert [[t for t in chunk.tokens[1:-1] if t != 49407] for chunk in found] == expected


def test_break_closes_a_chunk_even_an_empty_one() -> None:
    assert len(chunks(attention("a BREAK b"), spell)) == 2
    assert len(chunks(attention("BREAK BREAK a"), spell)) == 3
    assert len(chunks(attention("(BREAK:1.2) a"), spell)) == 1  # weighed, it is a word


def test_an_embedding_takes_its_vectors_and_a_new_chunk_when_it_does_not_fit() -> None:
    def find(tokens: Any, at: int) -> tuple[str, int, int] | None:
        return ("ti", 4, 1) if tokens[at] == 7 else None

    found = chunks([("x", 1.2)], lambda text: [5] * 73 + [7, 5], find)
    assert len(found) == 2
    assert found[0].fixes == ()
    assert found[1].fixes == ((0, "ti"),)
    assert found[1].tokens[1:7] == (0, 0, 0, 0, 5, 49407)
    assert found[1].weights[1:6] == (1.2,) * 5


# --- tags and AND -----------------------------------------------------------------------------------------------------


def test_tags_leave_nothing_behind_and_name_their_weights() -> None:
    text, tags = extract_networks("<lora:a:0.6> cat <lora:b:te=0.3:unet=0.9>, <hypernet:h:1> <lyco:c:0.5:0.7:8>")
    assert text == " cat ,  "
    assert tags == (
        NetworkTag("lora", "a", 0.6, 0.6),
        NetworkTag("lora", "b", 0.3, 0.9),
        NetworkTag("hypernet", "h", 1.0, 1.0),
        NetworkTag("lyco", "c", 0.5, 0.7, 8),
    )
    assert extract_networks("<lora:x>")[1] == (NetworkTag("lora", "x", 1.0, 1.0),)
    assert extract_networks("<b>bold</b> <lora:>") == ("<b>bold</b> <lora:>", ())


def test_and_splits_at_the_whole_word() -> None:
    assert split_and("a red cat AND a blue dog:0.6") == (("a red cat", 1.0), (" a blue dog", 0.6))
    assert split_and("sand and BAND") == (("sand and BAND", 1.0),)
    assert split_and("a AND b : -1.5 AND c:.5 ") == (("a", 1.0), (" b", -1.5), (" c", 0.5))
    assert split_and("ratio 16:9") == (("ratio 16", 9.0),)
    assert split_and("time: noon") == (("time: noon", 1.0),)


# --- ComfyUI ----------------------------------------------------------------------------------------------------------


def test_comfy_weights_replace_rather_than_multiply() -> None:
    assert comfy_weights("a (b:1.2) [c]") == (("a ", 1.0), ("b", 1.2), (" [c]", 1.0))
    assert comfy_weights("((b:1.2) c)") == (("b", 1.2), (" c", pytest.approx(1.1)))
    assert comfy_weights("((b))") == (("b", pytest.approx(1.21)),)
    assert comfy_weights(r"a \(b\)") == ((r"a \(b\)", 1.0),)


def test_comfy_moves_a_word_that_does_not_fit() -> None:
    def three(word: str) -> list[int]:
        return [len(word)] * 3

    found = comfy_chunks(" ".join(["word"] * 26), three)
    assert [chunk.tokens.count(4) for chunk in found] == [75, 3]
    found = comfy_chunks(" ".join(["a", *["word"] * 25]), lambda word: [len(word)] * (1 if word == "a" else 3))
    assert [chunk.tokens.count(4) for chunk in found] == [72, 3]


def test_comfy_embeddings_are_named_words() -> None:
    found = comfy_chunks("a embedding:sks cat", lambda word: [1], lambda name: ("E", 2) if name == "sks" else None)
    assert found[0].tokens[1:5] == (1, 0, 0, 1)
    assert found[0].fixes == ((1, "E"),)


# --- strangers' prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit", ["[", "(", ":", "\\", "[a:", "[a|", "<lora:", "<a", "[a:b:1", "(a:1.1)", "[a:b:3]", "a AND ", "a:", "((a)"]
)
def test_no_prompt_takes_long(unit: str) -> None:
    text = unit * (120_000 // len(unit))
    before = time.process_time()
    schedule(text, 20)
    attention(text)
    extract_networks(text)
    split_and(text)
    comfy_weights(text)
    assert time.process_time() - before < 20

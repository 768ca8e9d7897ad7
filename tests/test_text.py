"""Strangers' text: HTML to lines, nothing a terminal obeys."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubctl.text import html_to_text, lines, safe, width, wrap


def test_escape_sequences_vanish_whole() -> None:
    assert safe("\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07") == "red link"
    assert safe("a\x1bcb\x9b2J") == "ab2J"


def test_bidirectional_overrides_and_zero_width_marks_are_dropped() -> None:
    assert safe("exe\u202egnp.safetensors\u200b") == "exegnp.safetensors"


def test_emoji_families_and_combining_marks_survive() -> None:
    assert safe("👩\u200d🚀 é 盔甲") == "👩\u200d🚀 é 盔甲"


def test_line_breaks_only_where_asked() -> None:
    assert safe("a\r\nb\tc") == "a b c"
    assert safe("a\r\nb\tc", multiline=True) == "a\nb c"


def test_html_becomes_paragraphs_lists_and_rows() -> None:
    html = (
        "<h2>Use</h2><p>Weight <strong>0.8</strong> &amp; up</p><ul><li><p>one</p></li><li>two<ul><li>inner</li></ul>"
        "</li></ul><ol><li>first</li></ol><table><tr><th>CFG</th><td>7</td></tr><tr><td><p>Sampler</p></td>"
        "<td>Euler a</td></tr></table><script>alert(1)</script>end<br>of it"
    )
    assert html_to_text(html).splitlines() == [
        "Use", "", "Weight 0.8 & up", "", "- one", "- two", "  - inner", "", "1. first", "",
        "CFG     | 7", "Sampler | Euler a", "", "end", "of it",
    ]  # fmt: skip


def test_links_say_where_they_lead_once_and_whole() -> None:
    assert html_to_text('<p>See <a href="https://a.b/c">this</a>, now</p>') == "See this (https://a.b/c), now"
    assert html_to_text('<a href="https://a.b/long/path">a.b/long/path</a>') == "https://a.b/long/path"
    assert (
        html_to_text('<a href="https://hub.test/models/12345">https://hub.test/mod...</a>')
        == "https://hub.test/models/12345"
    )
    assert html_to_text('<a href="javascript:alert(1)">x</a>') == "x"


def test_what_is_no_tag_stays_text() -> None:
    assert html_to_text("<p>use <lora:thing:0.8> if a<b and 1 < 2</p>") == "use <lora:thing:0.8> if a<b and 1 < 2"
    assert html_to_text("weight <lora:thing:1>\nCFG 7") == "weight <lora:thing:1>\nCFG 7"
    assert html_to_text("<p>&lt;lora:thing:1&gt;</p>") == "<lora:thing:1>"


def test_code_keeps_its_lines() -> None:
    assert html_to_text("<pre><code>a\n  b</code></pre>").splitlines() == ["a", "b"]


def test_lines_know_what_they_are() -> None:
    found = lines("<h3>A</h3><p><strong>B</strong></p><ul><li>c</li></ul><table><tr><td>d</td><td>e</td></tr></table>")
    assert [(line.text, line.kind, line.depth, line.bold) for line in found if line.text] == [
        ("A", "heading", 0, False), ("B", "text", 0, True), ("c", "item", 1, False), ("d | e", "row", 0, False),
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [20, 40, 79])
def test_wrapped_lines_fit_and_lose_no_word(columns: int) -> None:
    text = "- 推荐权重零点七到一 some words that follow each other " * 3
    wrapped = wrap(text, columns)
    assert all(width(line) <= columns for line in wrapped)
    assert "".join("".join(wrapped).split()) == "".join(text.split())
    assert all(line.startswith("  ") for line in wrapped[1:])


def test_long_addresses_are_left_whole() -> None:
    link = "https://example.test/" + "a" * 60
    assert link in wrap(f"see {link} there", 40)


def test_plain_text_keeps_its_lines() -> None:
    assert html_to_text("Steps: 20\nCFG: 7") == "Steps: 20\nCFG: 7"
    assert html_to_text(None) == ""


@given(st.text(max_size=300))
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    for out in (safe(text), html_to_text(f"<p>{text}")):
        assert all(c in "\n\u200c\u200d" or unicodedata.category(c)[0] != "C" for c in out)


HOSTILE = [
    "<" * 300_000, "<div>" * 60_000, "<!" * 100_000 + "&#" * 50_000, "<a href='https://x'>" * 15_000, "<a b='" * 50_000,
    "</a" * 100_000, "<!--" * 75_000, "<img " * 60_000, "<a x" + "\"'" * 150_000, "<pre>" + "\n" * 290_000,
    "<ol><li>" * 40_000, "<tr><td>a" * 30_000, "x\n" * 150_000, "\x1b]" * 150_000,
]  # fmt: skip


@pytest.mark.parametrize("html", HOSTILE, ids=lambda html: repr(html[:8]))
def test_a_hostile_page_takes_linear_time(html: str) -> None:
    start = time.process_time()
    html_to_text(html)
    assert time.process_time() - start < 20


@given(st.text("<>/abp ='\"&;!-lih\nrtd", max_size=200))
def test_any_tags_give_lines_without_breaks(html: str) -> None:
    for line in lines(html):
        assert "\n" not in line.text
        assert line.text == line.text.strip()

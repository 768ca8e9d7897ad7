"""Strangers' text: HTML to lines, nothing a terminal obeys."""

from __future__ import annotations

import time
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from hubctl.text import html_to_text, safe


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
        "<h2>Use</h2><p>Weight <strong>0.8</strong> &amp; up</p><ul><li><p>one</p></li><li>two</li></ul>"
        "<ol><li>first</li></ol><table><tr><th>CFG</th><td>7</td></tr></table><script>alert(1)</script>end<br>of it"
    )
    assert html_to_text(html).splitlines() == [
        "Use", "", "Weight 0.8 & up", "", "- one", "", "- two", "", "1. first", "", "CFG | 7", "", "end", "of it",
    ]  # fmt: skip


def test_plain_text_keeps_its_lines() -> None:
    assert html_to_text("Steps: 20\nCFG: 7") == "Steps: 20\nCFG: 7"
    assert html_to_text(None) == ""


@given(st.text(max_size=300))
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    for out in (safe(text), html_to_text(f"<p>{text}")):
        assert all(c in "\n\u200c\u200d" or unicodedata.category(c)[0] != "C" for c in out)


def test_a_hostile_page_takes_linear_time() -> None:
    start = time.perf_counter()
    html_to_text("<" * 200_000)
    html_to_text("<div>" * 100_000)
    html_to_text("<!" * 100_000 + "&#" * 50_000)
    safe("\x1b]" * 200_000)
    assert time.perf_counter() - start < 5

"""Text from strangers, made fit for a terminal.

Descriptions arrive as HTML and names as anything at all. `html_to_text` gives readable plain text and `safe` removes
what a terminal would obey instead of show: control characters, escape sequences, bidirectional overrides.
Both are linear in the length of their input and never raise.
"""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

MAX_HTML = 1_000_000
"""Characters of HTML read; creators' pages stay far below, and what follows is not missed."""

_BLOCKS = frozenset(
    [
        "p",
        "div",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "table",
        "tr",
        "blockquote",
        "pre",
        "section",
        "article",
        "header",
        "footer",
        "hr",
    ]
)
_UNSHOWN = frozenset(["script", "style", "head", "title", "template", "noscript", "iframe", "object", "svg"])
# CSI … final byte, OSC … BEL or ST, and the two-character escapes
_ESCAPES = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|\x1b[ -~]?")
# Cf, but needed to show emoji and several scripts
_JOINERS = frozenset("\u200c\u200d")


def safe(text: object, *, multiline: bool = False) -> str:
    """`text` without anything a terminal acts on.

    Escape sequences vanish whole; control and format characters (category C, bidirectional overrides among them) are
    dropped; tabs become a space and so do line breaks, unless `multiline` keeps them as "\\n".
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    plain = _ESCAPES.sub("", plain).replace("\r\n", "\n").replace("\r", "\n")
    plain = plain.replace("\u2028", "\n").replace("\u2029", "\n").replace("\t", " ")
    if not multiline:
        plain = plain.replace("\n", " ")
    return "".join(
        char for char in plain if char == "\n" or char in _JOINERS or not unicodedata.category(char).startswith("C")
    )


class _Reader(HTMLParser):
    """Collects lines; `hidden` counts open elements whose content is not for people."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.hidden = 0
        self.lists: list[int | None] = []  # next number of an open <ol>, None for <ul>
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSHOWN:
            self.hidden += 1
        elif tag in {"ul", "ol"}:
            self.lists.append(1 if tag == "ol" else None)
            self.out.append("\n")
        elif tag == "li":
            self.out.append("\n" + self._bullet())
        elif tag == "br":
            self.out.append("\n")
        elif tag == "tr":
            self.cells = 0
            self.out.append("\n")
        elif tag in {"td", "th"}:
            self.out.append(" | " if self.cells else "")
            self.cells += 1
        elif tag in _BLOCKS:
            self.out.append("\n\n")

    def _bullet(self) -> str:
        if not self.lists or self.lists[-1] is None:
            return "- "
        self.lists[-1] += 1
        return f"{self.lists[-1] - 1}. "

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSHOWN:
            self.hidden = max(0, self.hidden - 1)
        elif tag in {"ul", "ol"}:
            if self.lists:
                self.lists.pop()
            self.out.append("\n\n")
        elif tag in _BLOCKS - {"tr", "hr"}:
            self.out.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.out.append(re.sub(r"[^\S\n]+|\n", " ", data))


def html_to_text(html: str | None) -> str:
    """Readable plain text of a description: paragraphs, lists and table rows as lines. Also fit for a terminal.

    Text that is not HTML comes back as it was (minus control characters). A `<p>` inside a list item or cell does not
    tear its line apart.
    """
    if not html:
        return ""
    reader = _Reader()
    reader.feed(html[:MAX_HTML] if "<" in html else html[:MAX_HTML].replace("\n", "<br>"))
    reader.close()
    text = safe("".join(reader.out), multiline=True).replace("\u00a0", " ")
    lines: list[str] = []
    for line in (re.sub(r" {2,}", " ", each).strip() for each in text.split("\n")):
        if lines and re.fullmatch(r"-|\d+\.|.*\|", lines[-1]) and line:
            lines[-1] += " " + line
        elif line or (lines and lines[-1] and not re.fullmatch(r"-|\d+\.|.*\|", lines[-1])):
            lines.append(line)
    return "\n".join(lines).strip()

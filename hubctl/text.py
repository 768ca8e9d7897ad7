"""Text from strangers, made fit for a terminal.

Descriptions arrive as HTML and names as anything at all. `lines` gives what a page says as lines that know whether they
are a heading, a list item or a table row; `html_to_text` draws them; `safe` removes what a terminal would obey instead
of show: control characters, escape sequences, bidirectional overrides. All are linear in their input and never raise.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import unescape

MAX_HTML = 300_000
"""Characters of HTML read; creators' pages stay far below, and what follows is not missed."""
MAX_LINES = 5_000
MAX_LINK = 300  # characters of an address that is still shown

_BLOCKS = frozenset([
    "p", "div", "ul", "ol", "table", "blockquote", "pre", "section", "article", "header", "footer", "hr", "figure",
    "details", "summary", "aside", "main",
])  # fmt: skip
_HEADINGS = frozenset(["h1", "h2", "h3", "h4", "h5", "h6"])
_UNSHOWN = frozenset(["script", "style", "head", "title", "template", "noscript", "iframe", "object", "svg"])
_INLINE = frozenset([
    "a", "abbr", "b", "big", "body", "br", "button", "center", "cite", "code", "col", "colgroup", "dd", "del",
    "dl", "dt", "em", "font", "html", "i", "img", "input", "ins", "kbd", "label", "li", "link", "mark", "meta",
    "p", "q", "s", "samp", "small", "source", "span", "strike", "strong", "sub", "sup", "tbody", "td", "tfoot",
    "th", "thead", "time", "tr", "tt", "u", "var", "video", "wbr", "audio", "canvas", "form", "nav", "picture",
    "caption", "figcaption",
])  # fmt: skip
_KNOWN = _BLOCKS | _HEADINGS | _UNSHOWN | _INLINE  # anything else in angle brackets is text: <lora:name:0.8>
_TAG = re.compile(r"""<(/?)([A-Za-z][A-Za-z0-9]{0,15})(?=[\s/>])((?:[^<>"']|"[^"]*+"|'[^']*+')*+)>""")
_TAG_CHARS = 2_048  # the longest tag that is read whole
_HREF = re.compile(r"""\bhref\s{0,4}=\s{0,4}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
# CSI … final byte, OSC … BEL or ST, and the two-character escapes
_ESCAPES = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|\x1b[ -~]?")
# Cf, but needed to show emoji and several scripts
_JOINERS = frozenset("\u200c\u200d")
_SPACES = re.compile(r"[^\S\n]+|\n")
_MARKER = re.compile(r"(?:[-*•·●◦▪■►▶✦★☆✔✅]|\d{1,3}[.)])$")


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


@dataclass(frozen=True)
class Line:
    """One line of a page. An empty `text` is the gap between two paragraphs."""

    text: str
    kind: str = "text"  # text · heading · item · row · code
    depth: int = 0  # of a list item: 1 outermost
    marker: str = ""  # of a list item: "- " or "2. "
    bold: bool = False  # all of it is emphasised: what many creators use for a heading


def lines(html: str | None) -> list[Line]:
    """What a page says, line by line. Text that is not HTML keeps its line breaks."""
    if not html:
        return []
    reader = _Reader()
    _feed(html[:MAX_HTML], reader)
    reader.flush()
    found = reader.lines
    while found and not found[-1].text:
        found.pop()
    return found


def _feed(html: str, reader: _Reader) -> None:
    """One pass over the tags. The standard library's parser needs hours for a page of unclosed quotes."""
    at, is_html = 0, False
    find_end = _finder(html, ">")
    pieces: list[tuple[str, str, str]] = []  # ("", "", data) · ("<", name, attributes) · ("</", name, "")
    while at < len(html):
        start = html.find("<", at)
        if start < 0:
            start = len(html)
        if start > at:
            pieces.append(("", "", html[at:start]))
        at = start
        if html.startswith("<!--", at):
            end = html.find("-->", at + 4)
            at = len(html) if end < 0 else end + 3
        elif (tag := _TAG.match(html, at, at + _TAG_CHARS)) and tag[2].lower() in _KNOWN:
            is_html = True
            pieces.append(("<" + tag[1], tag[2].lower(), tag[3]))
            at = tag.end()
        elif html.startswith(("<!", "<?", "<img "), at) and (end := find_end(at)) >= 0:
            at = end + 1  # a doctype, or a picture as a data: address
        elif at < len(html):
            pieces.append(("", "", "<"))
            at += 1
    for kind, name, rest in pieces:
        if kind == "<":
            reader.start(name, rest)
        elif kind:
            reader.end(name)
        else:
            reader.data(unescape(rest), keep_breaks=not is_html)


def _finder(text: str, what: str) -> Callable[[int], int]:
    """`text.find(what, at)` for positions that only grow: linear over all calls together."""
    found = -2

    def find(at: int) -> int:
        nonlocal found
        if found != -1 and found < at:
            found = text.find(what, at)
        return found

    return find


def html_to_text(html: str | None) -> str:
    """Readable plain text of a description: paragraphs, lists, tables, and links with where they lead."""
    return "\n".join(drawn(lines(html)))


def drawn(given: Iterable[Line]) -> Iterator[str]:
    """Lines as a person reads them: lists indented, columns of a table under each other."""
    table: list[str] = []
    for line in given:
        if line.kind == "row":
            table.append(line.text)
            continue
        yield from _table(table)
        table = []
        yield "  " * max(0, line.depth - 1) + line.marker + line.text
    yield from _table(table)


def _table(rows: list[str]) -> Iterator[str]:
    cells = [row.split(" | ") for row in rows]
    count = max(map(len, cells), default=0)
    widths = [max((width(row[i]) for row in cells if i < len(row)), default=0) for i in range(count)]
    fits = sum(widths) + 3 * count <= 100
    for row in cells:
        padded = (cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(row))
        yield " | ".join(padded if fits else row).rstrip()


def width(text: str) -> int:
    """Columns a terminal needs for `text`: Chinese, Japanese and Korean characters and emoji take two."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap(text: str, columns: int) -> list[str]:
    """`text` in lines no wider than a terminal, list items with their words under each other.

    Words longer than a line (addresses) are left whole, text without blanks is broken where the line ends.
    """
    if width(text) <= columns:
        return [text]
    indent = " " * len(_HANGING.match(text)[0])  # type: ignore[index]  # it matches the empty string too
    out: list[str] = []
    line, used = "", 0
    for word in _WORDS.findall(text):
        size = width(word)
        if used + size > columns and line.strip():
            out.append(line.rstrip())
            line, used = indent, len(indent)
            word = word.lstrip(" ")
            size = width(word)
        line, used = line + word, used + size
    return [*out, line.rstrip()]


_HANGING = re.compile(r"[ ]*(?:(?:[-•*]|\d{1,3}[.)]) )?")
# a word with the blanks before it; wide characters are words of their own
_WORDS = re.compile(r" *[^ \u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+| *[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]| +")


class _Reader:
    """Collects lines. Within a list item or a cell, paragraphs do not tear its line apart."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._words: list[str] = []
        self._href: str | None = None
        self._link_at = 0  # where the words of the open link begin
        self._hidden = 0  # open elements whose content is not for people
        self._lists: list[int | None] = []  # next number of an open <ol>, None for <ul>
        self._marker = ""
        self._heading = False
        self._row = False
        self._cells = 0
        self._pre = 0
        self._bold = 0
        self._plain = False  # the line has words that are not emphasised

    # --- what was met ---

    def start(self, tag: str, attributes: str) -> None:
        if tag in _UNSHOWN:
            self._hidden += 1
        elif tag in {"ul", "ol"}:
            self.flush()
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self.flush()
            self._marker = self._bullet()
        elif tag == "br":
            self._break()
        elif tag == "tr":
            self.flush()
            self._row, self._cells = True, 0
        elif tag in {"td", "th"}:
            self._words.append(" | " if self._cells else "")
            self._cells += 1
        elif tag in _HEADINGS:
            self._gap()
            self._heading = True
        elif tag == "a":
            self._href, self._link_at = _address(attributes), len(self._words)
        elif tag in {"strong", "b"}:
            self._bold += 1
        elif tag in _BLOCKS:
            self._gap()
            self._pre += tag == "pre"

    def end(self, tag: str) -> None:
        if tag in _UNSHOWN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in {"ul", "ol"}:
            self.flush()
            if self._lists:
                self._lists.pop()
            if not self._lists:
                self._gap()
        elif tag == "li":
            self.flush()
        elif tag == "tr":
            self.flush()
            self._row = False
        elif tag in _HEADINGS:
            self.flush()
            self._heading = False
        elif tag == "a":
            self._close_link()
        elif tag in {"strong", "b"}:
            self._bold = max(0, self._bold - 1)
        elif tag in _BLOCKS and tag != "hr":
            self._gap()
            self._pre = max(0, self._pre - (tag == "pre"))

    def data(self, data: str, *, keep_breaks: bool = False) -> None:
        if self._hidden:
            return
        if (self._pre or keep_breaks) and "\n" in data:
            first, *rest = data.split("\n")[:MAX_LINES]
            self._words.append(first)
            for each in rest:
                if not self._pre and not "".join(self._words).strip():
                    self._gap()
                self.flush()
                self._words.append(each)
            return
        data = _SPACES.sub(" ", data)
        self._words.append(data)
        self._plain = self._plain or (not self._bold and bool(data.strip(" :：.")))

    # --- lines ---

    def _close_link(self) -> None:
        """After the words of a link, where it leads; not twice, and whole where the site shows it cut short."""
        href, self._href = self._href, None
        if not href:
            return
        shown = "".join(self._words[self._link_at :])
        if not shown.strip():
            return
        if _starts_like(shown, href):
            self._words[self._link_at :] = [href]
        elif _bare(href) not in shown:
            self._words.append(f" ({href.partition('?')[0] if len(href) > 90 else href}) ")

    def _bullet(self) -> str:
        if not self._lists or self._lists[-1] is None:
            return "- "
        self._lists[-1] += 1
        return f"{self._lists[-1] - 1}. "

    def _break(self) -> None:
        if self._row:
            self._words.append(" ")
        elif any(word.strip() for word in self._words):
            self.flush()
        else:
            self._gap()  # two in a row

    def _gap(self) -> None:
        """The end of a paragraph."""
        if self._row or self._lists:
            if not self._row and any(word.strip() for word in self._words):
                self.flush()
            return
        self.flush()
        if self.lines and self.lines[-1].text and len(self.lines) < MAX_LINES:
            self.lines.append(Line(""))

    def flush(self) -> None:
        """End the line, if there is one."""
        text = " ".join(safe("".join(self._words)).replace("\u00a0", " ").split())
        text = text.replace(") .", ").").replace(") ,", "),")
        plain, self._words, self._plain, self._link_at = self._plain, [], False, 0
        if not text or len(self.lines) >= MAX_LINES:
            return
        if _MARKER.match(text) and not self._lists:  # "- <br>": a bullet somebody typed, without words
            return
        kind = "row" if self._row else "heading" if self._heading else "code" if self._pre else "text"
        marker, self._marker = self._marker, ""
        if kind == "text" and self._lists:
            kind, marker = "item", marker or "  "
        self.lines.append(Line(text, kind, len(self._lists), marker, not plain and kind == "text"))


def _address(attributes: str) -> str | None:
    found = _HREF.search(attributes)
    href = safe(unescape(found[1] or found[2] or found[3] or "")).strip() if found else ""
    return href if href.startswith(("http://", "https://")) and len(href) <= MAX_LINK else None


def _bare(link: str) -> str:
    return link.split("://", 1)[-1].removeprefix("www.").rstrip("/")


def _starts_like(data: str, href: str) -> bool:
    """Whether the words of a link are its address, perhaps cut short: "https://example.com/a/lo..."."""
    shown = data.strip().rstrip(".…")
    return len(shown) > 11 and _bare(href).startswith(_bare(shown)) and shown != href

"""Nothing secret in logs, errors and files: tokens, signatures, credentials in URLs.

    redact("https://x.r2.example/f?X-Amz-Signature=ab&response-content-type=y")  →  …?X-Amz-Signature=***&…
    redact("Authorization: Bearer abc")                                           →  Authorization: ***

A signed URL is worth as much as the token it was made with, so every value in the query of a URL is hidden but for a
few names that are known to be harmless. That fails safe when a storage invents a new parameter. Keys are known to the
letter (`hide`) and hidden wherever they are met, in a hub's own words too.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "***"
HARMLESS = frozenset(
    {
        "query", "limit", "page", "cursor", "types", "basemodels", "tag", "username", "user", "sort", "period", "nsfw",
        "imageid", "modelid", "modelversionid", "fileid", "type", "format", "size", "fp", "withmeta", "flatmeta",
        "browsinglevel", "ids", "modelversionids", "reason", "quanttype",
    }
)  # fmt: skip
_QUERY = re.compile(r"([?&])([A-Za-z0-9_.%\[\]-]{1,80})=([^&\s\"'<>#]*)")
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://)[^/\s@\"']{1,500}@")
_SCHEME = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_FIELD = re.compile(
    r"\b(authorization|token|api[-_]?key|cookie)([\"']?\s*[:=]\s*[\"']?|[\"'], ?b?[\"'])[^\s\"',;&]+", re.IGNORECASE
)
_KEY = re.compile(r"(?<=[?&])(?:token|api[-_]?key)=[^&\s#]*&?", re.IGNORECASE)
_KEYS: set[str] = set()  # of this process, hidden wherever they turn up: a hub may echo them in any words
_SIGNED: deque[str] = deque(maxlen=64)  # values of the signed links met last, likewise
SHORTEST_KEY, SHORTEST_SIGNATURE = 6, 16  # characters; hiding less would make holes in ordinary words


def hide(secret: str | None) -> None:
    """Never show this key again, in any spelling a URL may give it."""
    if secret and len(secret) >= SHORTEST_KEY:
        _KEYS.update({secret, quote(secret, safe=""), quote(secret), quote_plus(secret)})


def hide_link(url: str) -> None:
    """Nor the values of this link, should its host repeat them in other words."""
    for match in _QUERY.finditer(url):
        if match[2].lower() not in HARMLESS and len(match[3]) >= SHORTEST_SIGNATURE:
            _SIGNED.append(match[3])


def redact(text: str) -> str:
    """`text` with the secrets of any URL or header in it replaced."""
    for secret in (*_KEYS, *_SIGNED):
        text = text.replace(secret, HIDDEN)
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(_hide, text)
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    return _FIELD.sub(rf"\1\2{HIDDEN}", text)


def without_key(ref: str) -> str:
    """What was typed, as it may be written down: a pasted link without the key in it."""
    return redact(_KEY.sub("", ref).rstrip("?&")) if "://" in ref else ref


def _hide(match: re.Match[str]) -> str:
    value = match[3] if match[2].lower() in HARMLESS else HIDDEN
    return f"{match[1]}{match[2]}={value}"


class RedactingFilter(logging.Filter):
    """Put on a logger or handler: records leave without secrets, those of libraries included."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


_FILTER = RedactingFilter()


def guard_logging() -> None:
    """Redact what our client libraries log (their request lines hold whole URLs). Idempotent."""
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "httpcore.proxy", "hubctl.hubs"):
        logging.getLogger(name).addFilter(_FILTER)


def short(text: Any, limit: int = 300) -> str:
    """Words of a stranger, for a sentence of ours: one line, printable, bounded, redacted."""
    line = " ".join(str(text)[: limit * 8].split())
    clean = "".join(letter for letter in redact(line) if letter.isprintable())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"

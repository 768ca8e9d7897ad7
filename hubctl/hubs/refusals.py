"""An HTTP answer that is no success → the named error a person meets.

Hubs answer in thirteen shapes (docs: `{"error": text}`, a ZodError, an issue list, `{"message"}`, tRPC envelopes, plain
text, HTML, nothing); `said` finds the sentence in any of them and `refusal` decides what it means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from hubctl.errors import (
    Archived,
    BlockedByEdge,
    DownloadsDisabled,
    EarlyAccess,
    HubError,
    HubUnavailable,
    KnownError,
    LoginRequired,
    NoAccess,
    NotFound,
    RateLimited,
    RegionBlocked,
)
from hubctl.hubs.redact import short

TRANSIENT_STATUSES = frozenset({408, 425, 500, 502, 503, 504, *range(520, 530)})
LONGEST_RETRY = 30 * 86400.0  # seconds; what a hub asks for beyond that means the same: not today
EDGE_MARKS = ("just a moment", "cf-chl", "challenge-platform", "attention required", "cloudflare", "captcha")


@dataclass(frozen=True)
class Answer:
    """What is needed of a response to judge it; `body` is its first kilobytes, `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    @property
    def is_html(self) -> bool:
        return self.content_type in {"text/html", "application/xhtml+xml"} or looks_like_html(self.body)


def looks_like_html(data: bytes) -> bool:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<script", b"<body", b"<!--"))


def has_edge_marks(answer: Answer) -> bool:
    """Whether a page looks like a gatekeeper's challenge."""
    text = answer.body[:65536].decode("latin-1").lower()
    return any(mark in text for mark in EDGE_MARKS)


def said(body: bytes) -> str:
    """The sentence in an error body of any shape; empty when there is none."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        return "" if looks_like_html(body) else short(text)
    return short(_sentence(data))


def _sentence(data: Any, depth: int = 0) -> str:
    if depth > 6:
        return ""
    if isinstance(data, str):
        return _issues(data)
    if isinstance(data, list):
        return "; ".join(filter(None, (_issue(item) for item in data[:5])))
    if not isinstance(data, dict):
        return ""
    inner = data.get("error")
    if isinstance(inner, dict) and (found := _sentence(inner.get("json", inner), depth + 1)):
        return found
    for value in (data.get("message"), inner):
        if isinstance(value, str) and value:
            return _issues(value)
    return _sentence(inner, depth + 1) if isinstance(inner, list) else ""


def _issues(text: str) -> str:
    """A message may itself be a JSON list of issues."""
    if text.lstrip().startswith("["):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(data, list):
            return "; ".join(filter(None, (_issue(item) for item in data[:5])))
    return text


def _issue(item: Any) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("message"), str):
        return ""
    path = item.get("path")
    where = ".".join(str(part) for part in path) if isinstance(path, list) else ""
    return f"{where}: {item['message']}" if where else str(item["message"])


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date (by the server's own clock, where it tells it)."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        when = _date(value)
        if when is None:
            return None
        seconds = (when - (now or _date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return min(max(0.0, seconds), LONGEST_RETRY) if math.isfinite(seconds) else None


def _date(value: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def is_login_page(url: str) -> bool:
    return "reason=download-auth" in url or "/login" in url.split("?")[0]


def refusal(answer: Answer, hub: str, what: str, *, with_token: bool) -> KnownError:
    """The error an answer stands for. `what` names what was asked for, as in "version 130072".

    The caller turns LoginRequired into TokenRejected after asking `/me`, and decides about trying again by
    `is_transient`.
    """
    text = said(answer.body)
    lower = text.lower()
    if is_login_page(answer.url):
        return LoginRequired(f"{hub} wants you to be logged in to give out {what}")
    if answer.status == 451:
        return RegionBlocked(
            f"{hub} does not serve your region: {text or 'legal restrictions'}",
            hint="another hub may have it: try `--hub`, or ask by its hash",
        )
    if answer.status in (401, 403):
        return _denied(answer, hub, what, text, lower, with_token)
    if answer.status == 410:
        return Archived(f"{what} is archived on {hub}: {text or 'no longer available'}")
    if answer.status == 404:
        return NotFound(
            f"{hub} does not have {what}" + (f": {text}" if text and "not found" not in lower else ""),
            hint="check the number or name; `hubctl search` finds what there is, `--hub` asks another hub",
        )
    if answer.status == 429:
        return _too_many(answer, hub, lower, text)
    if answer.status in TRANSIENT_STATUSES:
        return HubUnavailable(
            f"{hub} has trouble of its own (status {answer.status}{': ' + text if text else ''})",
            retry_after=retry_after(answer.headers),
        )
    if answer.is_html and has_edge_marks(answer):
        return BlockedByEdge(f"the gatekeeper of {hub} answered in its place")
    return HubError(
        f"{hub} refused to give out {what} (status {answer.status}): {text or 'it does not say why'}",
        hint="another hub may have it: try `--hub`, or ask by its hash",
    )


def _denied(answer: Answer, hub: str, what: str, text: str, lower: str, with_token: bool) -> KnownError:
    if "disabled downloads" in lower or "disabled download" in lower:
        return DownloadsDisabled(f"the creator of {what} has disabled downloads on {hub}")
    if answer.is_html:
        return BlockedByEdge(
            f"the gatekeeper of {hub} refused the request for {what} (status {answer.status}, a web page)"
        )
    if answer.status == 401:
        return LoginRequired(f"{hub} wants you to be logged in to give out {what}")
    deadline = _deadline(answer.body)
    if "early access" in lower or deadline:
        return EarlyAccess(
            f"{what} is in early access on {hub}" + (f" until {deadline[:10]}" if deadline else ""),
            hint=f"it opens on {deadline[:10]}" if deadline else "it can be bought on its page",
            details={"deadline": deadline} if deadline else None,
        )
    return NoAccess(
        f"{hub} does not give you access to {what}" + (f": {text}" if text else ""),
        hint="its page says who may have it: it may be private, or for members only"
        if with_token
        else "log in first: `hubctl login`",
    )


def _deadline(body: bytes) -> str | None:
    try:
        value = json.loads(body).get("deadline")
    except (ValueError, AttributeError, RecursionError):
        return None
    return short(value, 40) if isinstance(value, str) and value[:4].isdigit() else None


def _too_many(answer: Answer, hub: str, lower: str, text: str) -> KnownError:
    wait = retry_after(answer.headers)
    if "cursor" in lower or "too many pages" in lower:
        return HubError(f"{hub} gives no page that far back", hint="narrow the search instead of paging on")
    if "unusual amount" in lower:
        return RateLimited(
            f"{hub} says: {text}", hint="its daily volume is used up: try again in some hours", retry_after=wait
        )
    return RateLimited(
        f"{hub} asks to slow down" + (f" and to try again in {_spoken(wait)}" if wait else ""),
        hint="wait a little and run the same command again",
        retry_after=wait,
    )


def _spoken(seconds: float) -> str:
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"


def is_transient(error: KnownError, answer: Answer) -> bool:
    """Whether the same request may succeed later without anything else changing."""
    if isinstance(error, RateLimited):
        return "unusual amount" not in error.message
    return answer.status in TRANSIENT_STATUSES and isinstance(error, HubUnavailable)

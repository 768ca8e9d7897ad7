"""One HTTP client for a hub: who gets the token, which redirects are followed, what is tried again.

A `Transport` belongs to one hub. JSON calls go through `get_json`/`post_json`: retried with exponential backoff and
jitter (Retry-After honoured), counted against the machine's call budget, errors named. Bytes go through `stream`, which
follows redirects by hand: the token goes to the hub's own hosts only, survives a hop between them, and a redirect from
a public hub to a private address is refused. HTTP/1.1 throughout; proxies and system certificates from the environment,
`.netrc` never (httpx only reads it when told to).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

from hubctl import __version__
from hubctl.errors import (
    BlockedByEdge,
    HubError,
    HubUnavailable,
    KnownError,
    LoginRequired,
    Offline,
    RateLimited,
    TokenRejected,
    UsageError,
)
from hubctl.hubs.addresses import is_private, leads_inside
from hubctl.hubs.ratelimit import CallBudget
from hubctl.hubs.redact import guard_logging, hide, hide_link, redact, short
from hubctl.hubs.refusals import Answer, has_edge_marks, is_login_page, is_transient, looks_like_html, refusal

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)
USER_AGENT = f"hubctl/{__version__} (model asset manager)"  # no browser words: they turn refusals into login pages
CIVITAI_DOMAINS = ("civitai.com", "civitai.red", "civitai.green")
LARGEST_JSON = 64 * 1024 * 1024  # bytes; a page of 100 models is under 5 MB
LARGEST_ERROR = 64 * 1024
READ_BYTES = 256 * 1024  # read from a socket at once; four times httpcore's own, which halves the cost of a gigabyte
LARGE = 1024 * 1024
KNOWN_PARSERS = frozenset({"0.14.0", "0.15.0", "0.16.0"})  # of h11: a piece of a body is all that was read of it
REDIRECTS = 10
CERTIFICATES = (
    "nothing was sent; where a company inspects its traffic, its certificate belongs into the system's store, or "
    "SSL_CERT_FILE names it"
)
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between tries
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Login:
    """The key of one hub, and the hosts it may be sent to. Never shown in a repr."""

    base_url: str
    token: str | None = field(default=None, repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """The Authorization header, for the hub's own hosts and nobody else."""
        return {"Authorization": f"Bearer {self.token}"} if self.token and same_hub(url, self.base_url) else {}


def origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def same_hub(url: str, base_url: str) -> bool:
    """Same origin, or two https hosts of the Civitai family that share accounts: .com, .red, .green, api., www.

    Their storage and media hosts (`image.`, `*.r2`) are not among them.
    """
    try:
        ours, theirs = origin(base_url), origin(url)
    except ValueError:
        return False
    if ours == theirs:
        return True
    return all(each[0] == "https" and each[2] == 443 and _in_family(each[1]) for each in (ours, theirs))


def _in_family(host: str) -> bool:
    return any(host in (domain, f"www.{domain}", f"api.{domain}") for domain in CIVITAI_DOMAINS)


class Transport:
    """HTTP to one hub. Thread-safe; close it when done.

    `timeout` is the longest silence while reading, `patience` how long a hub may fail before we give up (seconds).
    `lan` says the hub is the user's own (loopback or local network); found from its address when None.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str,
        token: str | None = None,
        offline: bool = False,
        timeout: float = 30.0,
        patience: float = 120.0,
        user_agent: str = USER_AGENT,
        cache_dir: Path | None = None,
        lan: bool | None = None,
    ) -> None:
        self.base_url, self.name = base_url.rstrip("/"), name
        self.login = Login(self.base_url, token)
        hide(token)
        self.offline, self.timeout, self.patience, self.user_agent = offline, timeout, patience, user_agent
        self._lan = lan
        self._budget = CallBudget(cache_dir, "://".join(origin(self.base_url)[:2]))
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._token_good: bool | None = None

    @property
    def lan(self) -> bool:
        """Whether this hub may send us to private addresses. Asked of the resolver once."""
        if self._lan is None:
            self._lan = is_private(urlsplit(self.base_url).hostname or "")
        return self._lan

    @property
    def client(self) -> httpx.Client:
        from hubctl.hubs import lines

        with self._lock:
            if self._client is None:
                own = (urlsplit(self.base_url).hostname or "").lower()
                allowed = None if self.lan else lines.refuse_private(own, self.name)
                client = make_client(timeout=self.timeout, user_agent=self.user_agent)
                self._client = lines.use(client, allowed)
            return self._client

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextlib.contextmanager
    def closing(self) -> Iterator[Self]:
        try:
            yield self
        finally:
            self.close()

    # --- JSON ---------------------------------------------------------------------------------------------------------

    def get_json(self, path: str, params: list[tuple[str, str]] | None = None, *, what: str) -> Any:
        """The JSON at a path of the hub. Raises a HubError or NotFound that says what was asked for."""
        return self.patiently(lambda: self._json("GET", path, params, None, what))

    def post_json(self, path: str, body: Any, *, what: str) -> Any:
        """POST, for the look-ups that need a body (they change nothing, so they are retried too)."""
        return self.patiently(lambda: self._json("POST", path, None, body, what))

    def _json(self, method: str, path: str, params: list[tuple[str, str]] | None, body: Any, what: str) -> Any:
        import httpx

        self._wait_for_budget()
        url = str(httpx.URL(self.base_url + path, params=params)) if params else self.base_url + path
        content = json.dumps(body).encode() if body is not None else None
        with self.stream(url, method=method, content=content, what=what) as response:
            data = read_bounded(response, LARGEST_JSON, f"the answer of {self.name}", _seconds_for_json(self.timeout))
            answer = _answer(response, data)
        if response.status_code != 200:
            raise self._refused(answer, what)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._not_json(answer) from None

    def _not_json(self, answer: Answer) -> KnownError | Transient:
        if is_login_page(answer.url):
            return LoginRequired(f"{self.name} answered with its login page")
        if answer.is_html and has_edge_marks(answer):
            return BlockedByEdge(f"the gatekeeper of {self.name} answered in its place")
        if answer.is_html:
            return HubError(
                f"{self.name} answered with a web page instead of data",
                hint="is this the address of a Civitai-compatible hub?",
            )
        return Transient(HubUnavailable(f"{self.name} broke off in the middle of its answer"), tries=4)

    def _wait_for_budget(self) -> None:
        if not self.offline and not self.lan and (wait := self._budget.reserve()) > 0:
            if wait > self.patience:
                raise RateLimited(f"{self.name} asked to slow down", retry_after=wait)
            time.sleep(wait)

    def patiently(self, call: Callable[[], Any]) -> Any:
        """Try again what may succeed later, within `patience`. The last error is the one that is met."""
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=lambda state: wait_before(state.attempt_number, _failure(state)),
            stop=lambda state: self._is_enough(state.attempt_number, state.seconds_since_start or 0.0, _failure(state)),
            before_sleep=lambda state: logger.info("%s: trying again (%s)", self.name, _failure(state)),
            reraise=True,
        )
        try:
            return retrying(call)
        except Transient as last:
            raise last.error from None

    def _is_enough(self, attempts: int, seconds: float, failure: Transient | None) -> bool:
        asked = (failure.error.retry_after if failure else None) or 0.0
        return seconds + asked > self.patience or (failure is not None and attempts >= failure.tries)

    # --- streams ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def stream(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        what: str = "the file",
    ) -> Iterator[httpx.Response]:
        """One response, redirects followed by hand; its status is the caller's to judge.

        Raises Offline, HubError for a redirect nobody should follow, Transient for a line that broke.
        """
        import httpx

        if self.offline:
            raise Offline(f"{what} is not here and --offline forbids asking {self.name}")
        for _ in range(REDIRECTS):
            self._check_scheme(url)
            extra = {"Content-Type": "application/json"} if content is not None else {}
            try:
                request = self.client.build_request(
                    method, url, headers={**(headers or {}), **extra, **self.login.headers_for(url)}, content=content
                )
                response = self.client.send(request, stream=True)
            except (httpx.InvalidURL, UnicodeError):  # ours, or a Location: httpx parses those, followed or not
                raise self._no_address() from None
            except httpx.HTTPError as error:
                raise self._no_answer(url, error) from None
            try:
                if response.status_code not in REDIRECT_STATUSES or "location" not in response.headers:
                    with self._broken_lines(url):
                        yield response
                    return
                url = self._next_hop(url, response.headers["location"])
            finally:
                response.close()
        raise HubError(f"{self.name} sends us round in circles for {what}", hint="this is the hub's to mend")

    def _no_answer(self, url: str, error: httpx.HTTPError) -> Transient:
        import httpx

        if "CERTIFICATE_VERIFY_FAILED" in str(error):  # asking again changes nothing
            return Transient(self._unreachable(url, error), tries=1)
        connecting = isinstance(error, httpx.ConnectError)
        return Transient(self._unreachable(url, error), tries=3 if connecting else 12, connecting=connecting)

    def _no_address(self) -> HubError:
        return HubError(f"{self.name} gave an address that is no web address", hint="this is the hub's to mend")

    @contextlib.contextmanager
    def _broken_lines(self, url: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.HTTPError as error:
            raise Transient(self._unreachable(url, error)) from None

    def _next_hop(self, url: str, location: str) -> str:
        """Where a redirect leads, if one may go there. Raises HubError."""
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            host = parts.hostname if origin(target)[2] else None
        except ValueError:
            host = None
        if not host or parts.scheme not in {"http", "https"}:
            raise self._no_address()
        if urlsplit(url).scheme == "https" and parts.scheme == "http":
            raise HubError(f"{self.name} sends us from a secure address to an open one ({host})")
        if not self.lan and is_private(host):
            raise leads_inside(self.name, host)
        hide_link(target)
        logger.debug("redirected to %s", redact(target))
        return target

    def _check_scheme(self, url: str) -> None:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise self._no_address()

    def _unreachable(self, url: str, error: Exception) -> HubUnavailable:
        import httpx

        host = urlsplit(url).hostname or self.name
        who = self.name if same_hub(url, self.base_url) else f"{short(host, 80)}, where {self.name} keeps its files,"
        if isinstance(error, httpx.ReadTimeout):
            slow = "slowly" in str(error)  # ours, of `lines`
            return HubUnavailable(f"{who} {'answers too slowly' if slow else f'sent nothing for {self.timeout:g} s'}")
        if isinstance(error, httpx.ConnectTimeout):
            return HubUnavailable(f"{who} does not answer")
        if isinstance(error, httpx.ConnectError):
            hint = CERTIFICATES if "CERTIFICATE_VERIFY_FAILED" in str(error) else None
            return HubUnavailable(f"{who} cannot be reached: {_reason(error) or 'no connection'}", hint=hint)
        return HubUnavailable(f"the connection to {who} broke: {_reason(error) or type(error).__name__}")

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _refused(self, answer: Answer, what: str) -> KnownError | Transient:
        """The error for an answer: Transient when trying again may help, TokenRejected when our key is the reason."""
        error = refusal(answer, self.name, what, with_token=bool(self.login.token))
        if is_transient(error, answer):
            if error.retry_after and not self.lan and same_hub(answer.url, self.base_url):
                self._budget.pause(error.retry_after)
            return Transient(error)
        if isinstance(error, LoginRequired) and self.login.token and not self._token_is_good():
            return TokenRejected(f"{self.name} does not accept your key")
        return error

    def refused(self, response: httpx.Response, what: str) -> KnownError | Transient:
        """As above, for a streamed response whose body was not read yet."""
        body = b""
        with contextlib.suppress(KnownError, Transient):
            body = read_bounded(response, LARGEST_ERROR, "the refusal", 10.0, cut=True)
        return self._refused(_answer(response, body), what)

    def _token_is_good(self) -> bool:
        """Ask `/me` once: a hub never says that a key is bad where it is used."""
        if self._token_good is None:
            with contextlib.suppress(Transient, KnownError), self.stream(self.base_url + "/api/v1/me") as response:
                self._token_good = response.status_code != 401
        return self._token_good is not False


class Transient(Exception):
    """Something that may go better in a moment; `error` is what to say when it does not.

    `tries` bounds the attempts: an address nobody answers at (`connecting`) is likelier wrong than busy.
    """

    def __init__(self, error: KnownError, *, tries: int = 12, connecting: bool = False) -> None:
        super().__init__(error.message)
        self.error, self.tries, self.connecting = error, tries, connecting


def _failure(state: Any) -> Transient | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Transient) else None


def wait_before(attempt: int, failure: Transient | None = None) -> float:
    """Seconds before the next try: what the hub asked for, else 0.5, 1, 2 … 30 with jitter downwards."""
    import random

    if failure is not None and failure.error.retry_after is not None:
        return failure.error.retry_after + 0.05
    longest: float = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt - 1, 20))
    return longest * random.uniform(0.5, 1.0)


def make_client(*, timeout: float, user_agent: str) -> httpx.Client:
    """HTTP/1.1 (one fast stream per connection), identity encoding, the environment's proxies but for loopback.

    Raises UsageError for a proxy that cannot be used.
    """
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    import httpcore
    import httpx

    guard_logging()
    httpcore.HTTP11Connection.READ_NUM_BYTES = READ_BYTES
    direct = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    try:
        return httpx.Client(
            verify=_certificates(),
            http2=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
            headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            cookies=no_cookies,  # none is kept, so none can reach another host
            mounts=direct,
        )
    except ImportError:  # httpx speaks SOCKS through a package of its own
        raise UsageError(
            "the environment names a SOCKS proxy, and the package for those is not installed",
            hint="`pip install socksio`, or set HTTPS_PROXY to an http:// proxy",
        ) from None
    except (ValueError, httpx.InvalidURL):
        raise UsageError(
            "the environment names a proxy that is no address hubctl can use",
            hint="check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: http://HOST:PORT",
        ) from None


def _certificates() -> Any:
    """What the operating system trusts, company proxies included; SSL_CERT_FILE is honoured by it."""
    import ssl

    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _reason(error: Exception) -> str:
    """The system's words for a failure, without its number."""
    return re.sub(r"^\[(?:Errno|SSL[^\]]*) ?-?\d*\] ?|\s*\(_ssl\.c:\d+\)$", "", short(error, 160))


def _seconds_for_json(timeout: float) -> float:
    return max(60.0, 4 * timeout)


def read_bounded(response: httpx.Response, limit: int, what: str, seconds: float, *, cut: bool = False) -> bytes:
    """A whole body of at most `limit` bytes, in at most `seconds`; `cut` returns the beginning of a longer one."""
    deadline = time.monotonic() + seconds
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > limit:
            if cut:
                break
            raise HubError(f"{what} is larger than {limit // 1024**2} MiB: it is not read")
        if time.monotonic() > deadline:
            raise Transient(HubUnavailable(f"{what} came too slowly"))
    return bytes(data[:limit])


def body(response: httpx.Response, timeout: float) -> Iterator[bytes | memoryview]:
    """A body in pieces, each good until the next is asked for.

    A large one is read straight from the socket once the parser has handed over what it had taken along with the
    headers: a third of the processor time of a fast line, and with TLS, whose records are small, far more. Only for
    parsers known to keep nothing back; others are read the slow way. Raises httpx.HTTPError.
    """
    import httpx

    pieces = response.iter_raw()
    first = next(pieces, b"")
    yield first
    line, left = _line_of(response), _length_of(response) - len(first)
    if line is None or left < LARGE:
        yield from pieces
        return
    line.settimeout(timeout)
    with memoryview(bytearray(READ_BYTES)) as view:
        while left > 0:
            try:
                count = line.recv_into(view, min(left, READ_BYTES))
            except TimeoutError:
                raise httpx.ReadTimeout("timed out") from None
            except OSError as error:
                raise httpx.ReadError(str(error)) from None
            if not count:
                return
            yield view[:count]
            left -= count


def _length_of(response: httpx.Response) -> int:
    length = response.headers.get("content-length", "")
    chunked = "transfer-encoding" in response.headers
    return int(length) if length.isdecimal() and len(length) < 20 and not chunked else 0


def _line_of(response: httpx.Response) -> socket.socket | None:
    """The socket the body comes over, decrypted, when reading from it directly is known to be right."""
    import h11

    stream = response.extensions.get("network_stream")
    known = getattr(h11, "__version__", "") in KNOWN_PARSERS
    if stream is None or response.http_version != "HTTP/1.1" or not known:
        return None
    line, encrypted = stream.get_extra_info("socket"), stream.get_extra_info("ssl_object")
    if not isinstance(line, socket.socket) or encrypted is not getattr(line, "_sslobj", None):
        return None  # TLS to a proxy, with TLS inside
    return line


def _answer(response: httpx.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body, str(response.url))


__all__ = [
    "USER_AGENT",
    "Login",
    "Transient",
    "Transport",
    "body",
    "is_private",
    "looks_like_html",
    "make_client",
    "origin",
    "read_bounded",
    "same_hub",
    "wait_before",
]

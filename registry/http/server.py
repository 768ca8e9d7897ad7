"""Sockets: an app run in a thread for as long as a block lasts, or in the foreground until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from registry.errors import Busy, UsageError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

PATIENCE = 10.0  # seconds a server may take to start
MOST_CONNECTIONS = 512


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def check(host: str, token: str | None) -> None:
    """Who may be served without a key. Raises UsageError."""
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise UsageError("that is no token", hint="letters, digits and signs without spaces: `openssl rand -hex 16`")
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines in, so it needs --token",
            hint="make one with `openssl rand -hex 16` and give it as --token or HUBCTL_SERVE_TOKEN",
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Busy for a taken port, UsageError for an address that is not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"`{host}` is no address of this machine", hint="127.0.0.1, or 0.0.0.0 for all") from None
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise Busy(f"port {port} is taken", hint="stop what uses it, or choose another with --port") from None
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error.strerror}", hint="choose another with --host or --port"
        ) from None
    return listening


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable(url: str) -> str:
    """The same URL by an address other machines can use, where it says "all of them" (0.0.0.0, ::)."""
    parts = urlsplit(url)
    if parts.hostname not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return url
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        try:
            probe.connect(("192.0.2.1", 9))
            host = probe.getsockname()[0]
        except OSError:
            host = socket.gethostname()
    return f"{parts.scheme}://{host}:{parts.port}"


def _server(app: ASGIApp) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        app,
        access_log=False,  # it would hold ?token=
        log_config=None,
        log_level="warning",
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=True,  # X-Forwarded-Proto of a proxy on this machine: addresses in answers are https then
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


@contextmanager
def running(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """The app on 127.0.0.1 in a thread of its own; gives the base URL. Raises Busy for a taken port."""
    listening = bind("127.0.0.1", port)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        if not server.started:
            raise Busy("the server did not start", hint="run it again with -v to see why")
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()


def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    *,
    on_ready: Callable[[str], Any] = lambda url: None,
) -> None:
    """The app until Ctrl-C. `on_ready` gets the base URL once the port is ours.

    Raises UsageError when other machines could reach it without a token, Busy for a taken port.
    """
    check(host, token)
    listening = bind(host, port)
    try:
        on_ready(url_of(listening))
        _server(app).run(sockets=[listening])
    except KeyboardInterrupt:  # the way to end it
        pass
    finally:
        listening.close()

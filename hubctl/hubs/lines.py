"""Connections below HTTP: an answer may not dawdle, and a public hub does not lead us into the private network.

HTTP libraries bound the silence between two bytes, so that a server which sends one byte of its headers every few
seconds holds a caller for days. Here an answer must reach 64 KiB, or its end, in twice that silence.

A name that was public when a redirect was judged may lead to a private address when it is connected to (DNS
rebinding): what counts is the address the connection goes to, looked at before anything is sent over it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx

from hubctl.hubs.addresses import is_private, leads_inside

ENOUGH = 64 << 10  # bytes of an answer after which its pace is the reader's to judge
Allowed = Callable[[str, str], None]  # (host, address it turned out to be); raises HubError


class Line(httpcore.NetworkStream):
    """A connection that counts what came since it was last written to."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._asked, self._came = time.monotonic(), 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._inner.read(max_bytes, timeout)
        self._came += len(data)
        if timeout and data and self._came < ENOUGH and time.monotonic() - self._asked > 2 * timeout:
            raise httpcore.ReadTimeout("it answers too slowly")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._asked, self._came = time.monotonic(), 0
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return Line(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class Lines(httpcore.NetworkBackend):
    """Opens `Line`s; `allowed` judges where they lead."""

    def __init__(self, allowed: Allowed | None) -> None:
        self._allowed = allowed
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        if self._allowed is not None:
            try:
                self._allowed(host, str(stream.get_extra_info("server_addr")[0]))
            except BaseException:
                stream.close()
                raise
        return Line(stream)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def use(client: httpx.Client, allowed: Allowed | None) -> httpx.Client:
    """Have a client open its connections this way. What goes through a proxy connects to the proxy: not judged.

    httpcore takes a backend where its pools are made, which httpx does without asking: hence the private names.
    """
    for transport in {client._transport, *filter(None, client._mounts.values())}:  # noqa: SLF001
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool):
            proxied = isinstance(pool, (httpcore.HTTPProxy, httpcore.SOCKSProxy))
            pool._network_backend = Lines(None if proxied else allowed)  # noqa: SLF001
    return client


def refuse_private(exempt: str, name: str) -> Allowed:
    """For a hub on the public internet. Its own address is the user's choice."""

    def allowed(host: str, address: str) -> None:
        if host.lower() != exempt and is_private(address):
            raise leads_inside(name, host)

    return allowed

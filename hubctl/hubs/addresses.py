"""Which addresses are on the public internet: where a public hub may send us."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from hubctl.errors import HubError
from hubctl.hubs.redact import short

_WRAPPED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))  # NAT64, and what came before it
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


def is_private(host: str, resolve: Callable[..., Any] = socket.getaddrinfo) -> bool:
    """Whether a host is, or resolves to, an address that is not on the public internet."""
    try:
        addresses = [ipaddress.ip_address(host.strip("[]").split("%")[0])]
    except ValueError:
        try:
            addresses = [ipaddress.ip_address(str(found[4][0]).split("%")[0]) for found in resolve(host, None)]
        except (OSError, ValueError):
            return False  # it cannot be connected to either
    return any(not is_public(address) for address in addresses)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """One that wraps an IPv4 address is what it wraps."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _LOCAL_NAT64 or address.is_site_local:
            return False
        if (inner := _inner(address)) is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if any(address in network for network in _WRAPPED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def leads_inside(name: str, host: str) -> HubError:
    """What is said of a public hub that sends us to a host on the user's own network."""
    return HubError(
        f"{name} sends us to a private address ({short(host, 80)})",
        hint="a public hub has no business on your own network: nothing was fetched",
    )

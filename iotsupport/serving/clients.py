"""Who talks to us: the client itself, or a front server on its behalf."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The worker uses this module before there is any Django.
    from django.http import HttpRequest


# As much of a name as django-axes has room for. No user's is longer.
USERNAME_CHARS = 255

# This machine, from which everybody may be a front server.
LOOPBACK = ["127.0.0.0/8", "::1"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_proxies: list[Network] = []


def trust(networks: Iterable[str]) -> None:
    """Believe front servers that have one of these addresses, or one in these networks: ``TRUSTED_PROXIES``."""
    _proxies[:] = [ipaddress.ip_network(network) for network in networks]


def is_trusted_proxy(remote: str) -> bool:
    """Whether ``TRUSTED_PROXIES`` names who is connected; this machine has to be named, too, and no socket can be."""
    connected = _parse(remote.partition("%")[0])
    return connected is not None and any(connected in network for network in _proxies)


def forwarders(networks: Iterable[str]) -> list[str]:
    """Return for gunicorn, in networks, who says whether a client came over HTTPS: as :func:`may_be_front_server`."""
    return [written for network in [*LOOPBACK, *networks] for written in _as_connected(ipaddress.ip_network(network))]


def _as_connected(network: Network) -> list[str]:
    """A network as sockets tell of it: of IPv4 also as it comes to a socket of IPv6."""
    if isinstance(network, ipaddress.IPv6Network):
        return [str(network)]
    return [str(network), f"::ffff:{network.network_address}/{96 + network.prefixlen}"]


def client_address(request: HttpRequest) -> str | None:
    """Return the client's address as databases take it; see :func:`address_of`."""
    return storable_address_of(request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", ""))


def storable_address_of(remote: str, forwarded: str) -> str | None:
    """Return what :func:`address_of` does, as databases take it; None for what is no address, such as a socket."""
    parsed = _parse(address_of(remote, forwarded).partition("%")[0])
    return None if parsed is None else str(parsed)


def client_network(request: HttpRequest) -> str | None:
    """Return what failed sign-ins are counted for: the address, or the first one of its /64."""
    address = client_address(request)
    return None if address is None else network_of(address).partition("/")[0]


def username_of(request: HttpRequest, credentials: dict[str, Any] | None) -> str | None:
    """Return the name that failed sign-ins are counted for."""
    name = (credentials or request.POST).get("username")
    return None if name is None else str(name)[:USERNAME_CHARS]


def address_of(remote: str, forwarded: str) -> str:
    """Return the client's address, given who is connected and what it sent as ``X-Forwarded-For``.

    A front server is believed, and only what it says itself: the last entry of ``X-Forwarded-For``. Anybody else may
    send that header, too.
    """
    forwarded_address = _parse(forwarded.rpartition(",")[2].strip())
    if forwarded_address is None or not may_be_front_server(remote):
        return str(remote)
    return str(forwarded_address)


def may_be_front_server(remote: str) -> bool:
    """Whether who is connected is on this machine, or a trusted proxy."""
    connected = _parse(remote)
    return (connected is not None and connected.is_loopback) or is_trusted_proxy(remote)


def network_of(address: str) -> str:
    """Return what one client can have of addresses: of IPv6 a whole /64, of IPv4 the one."""
    parsed = _parse(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed or address)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address as databases take it; one of IPv4 that came over IPv6 as what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address

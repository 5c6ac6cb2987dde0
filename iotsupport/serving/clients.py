"""Who talks to us: the client itself, or a front server on its behalf."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The worker uses this module before there is any Django.
    from django.http import HttpRequest


# As much of a name as django-axes has room for. No user's is longer.
USERNAME_CHARS = 255


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

    A front server on this machine is believed, and only what it says itself: the last entry of ``X-Forwarded-For``.
    Anybody else may send that header, too.
    """
    forwarded_address = _parse(forwarded.rpartition(",")[2].strip())
    if forwarded_address is None or not may_be_front_server(remote):
        return str(remote)
    return str(forwarded_address)


def may_be_front_server(remote: str) -> bool:
    """Whether who is connected is on this machine."""
    connected = _parse(remote)
    return connected is not None and connected.is_loopback


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

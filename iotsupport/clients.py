"""Who talks to us: the client itself, or a front server on its behalf."""

from __future__ import annotations

import ipaddress

from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """Return the address that failed sign-ins are counted for.

    A front server on this machine is believed, and only what it says itself: the last entry of ``X-Forwarded-For``.
    Anybody else may send that header, too.
    """
    remote = request.META.get("REMOTE_ADDR", "")
    forwarded = _parse(request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip())
    connected = _parse(remote)
    if connected is None or not connected.is_loopback or forwarded is None:
        return str(remote)
    return str(forwarded)


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

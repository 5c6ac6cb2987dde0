"""Where people and scripts come over HTTPS alone (``HTTPS_ONLY``): who comes without is sent there.

Devices keep plain HTTP for whatever everybody may GET, :mod:`iotsupport.public_urls`. That browsers remember it (HSTS)
is said by Django's ``SecurityMiddleware``, in answers over HTTPS, and not to devices.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase

from iotsupport.middleware import PUBLIC_URLS


class HttpsMiddleware:
    """Sends people and scripts to HTTPS with 308, which keeps method and body. The host has been checked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_open = getattr(request, "urlconf", None) == PUBLIC_URLS
        if not settings.HTTPS_ONLY or is_open or request.is_secure():
            return self.get_response(request)
        response = HttpResponse(status=308)
        response["Location"] = f"https://{_secure_host(request)}{request.get_full_path()}"
        return response


def _secure_host(request: HttpRequest) -> str:
    """The host as ``CSRF_TRUSTED_ORIGINS`` has it, with its port, where it does; else on HTTPS's own port."""
    name, _ = split_domain_port(request.get_host())
    for origin in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS):
        if origin.scheme == "https" and split_domain_port(origin.netloc)[0] == name:
            return origin.netloc
    return name

"""Which addresses are pages that people look at."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest
from django.urls import Resolver404, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme

# Where people look; everywhere else, programs do.
BROWSER_PREFIX = "/admin/"

# Pages of the admin that one does not go on to.
NO_PAGES = {"login", "logout", "jsi18n", "autocomplete", "session", "oidc_begin", "oidc_callback"}


def is_page(request: HttpRequest, url: str) -> bool:
    """Whether an address is one of the pages that people look at here."""
    if not url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure()):
        return False
    path = unquote(urlsplit(url).path)
    try:
        found = resolve(path)
    except Resolver404:
        return False
    if path.startswith(reverse("admin:index")):
        # Whatever has no name is where the admin sends those who ask for what is not there.
        return found.url_name is not None and found.url_name not in NO_PAGES
    return found.url_name == "openapi-view"


def asks_for_page(request: HttpRequest) -> bool:
    """Whether it is a browser that is to show the answer, rather than a script of a page, or somebody's curl."""
    return "text/html" in request.headers.get("Accept", "")


def next_page(request: HttpRequest) -> str:
    """Where a sign-in leads to."""
    url = request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME) or ""
    return url if is_page(request, url) else reverse("admin:index")

"""The admin's site, where every app registers its models: signing in and out, and changing one's password."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest
from django.urls import Resolver404, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme

from iotsupport.lookups import OfferedLookupsSite
from iotsupport.models import ApiToken

# Pages of the admin that one does not go on to.
NO_PAGES = {"login", "logout", "jsi18n", "autocomplete"}


class Site(OfferedLookupsSite):
    site_url = None  # there is no other site than this one
    site_header = site_title = "IoT Support"
    index_title = "Devices and their files"

    def get_log_entries(self, request: HttpRequest) -> Any:
        # As they were done: the clock may have been set back meanwhile.
        return super().get_log_entries(request).order_by("-pk")

    def login(self, request: HttpRequest, extra_context: Any = None) -> Any:
        _replace_next(request, reverse("admin:index"))
        return super().login(request, extra_context)

    def logout(self, request: HttpRequest, extra_context: Any = None) -> Any:
        _replace_next(request, request.get_full_path())  # where Django stays
        return super().logout(request, extra_context)

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if request.method != "POST":
            tell_what_is_revoked(request, request.user)
        return super().password_change(request, extra_context)


def _replace_next(request: HttpRequest, otherwise: str) -> None:
    """Have a form go on to ``otherwise`` instead of to an address that is no page here."""
    for name in ["GET", "POST"]:
        fields = getattr(request, name)
        if REDIRECT_FIELD_NAME in fields and not _is_page(request, fields[REDIRECT_FIELD_NAME]):
            fields = fields.copy()
            fields[REDIRECT_FIELD_NAME] = otherwise
            setattr(request, name, fields)


def _is_page(request: HttpRequest, url: str) -> bool:
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


def tell_what_is_revoked(request: HttpRequest, user: Any) -> None:
    """Say which tokens go with the old password."""
    hints = [f"{token.hint}…" for token in ApiToken.objects.usable().filter(user=user)]
    if hints:
        message = f"With the password, these API tokens of {user} will be revoked: {', '.join(hints)}"
        messages.warning(request, f"{message}. Make new ones for the scripts that need them.")

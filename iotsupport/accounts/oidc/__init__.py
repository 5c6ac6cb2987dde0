"""Single sign-on with OpenID Connect. docs/sign-in.md says how to set it up.

What needs ``mozilla-django-oidc`` is in ``client`` and ``views``, which nothing imports before somebody signs in so.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

BACKEND = f"{__name__}.ProviderBackend"


@cache
def is_installed() -> bool:
    return find_spec("mozilla_django_oidc") is not None


def is_on() -> bool:
    """Whether people can sign in so."""
    return BACKEND in settings.AUTHENTICATION_BACKENDS and is_installed()


def provider_name() -> str:
    """The provider's host, as in "Sign in with login.example.com"; empty where there is none."""
    return urlsplit(settings.OIDC_ISSUER).netloc if is_on() else ""


class ProviderBackend(ModelBackend):
    """Of sessions that began at the provider. It takes no password."""

    def authenticate(  # type: ignore[override]
        self, request: HttpRequest, *, nonce: str, code_verifier: str
    ) -> User:
        """Return whom the provider's answer in the query tells of. Raises what ``client.Client`` raises."""
        from iotsupport.accounts.oidc.client import Client

        user: User = Client().authenticate(request, nonce=nonce, code_verifier=code_verifier)
        return user


def begin(request: HttpRequest) -> HttpResponseBase:
    """Send a browser to the provider."""
    return _views().Begin.as_view()(request)  # type: ignore[no-any-return]


def callback(request: HttpRequest) -> HttpResponseBase:
    """Take a browser back from the provider."""
    return _views().Callback.as_view()(request)  # type: ignore[no-any-return]


def _views() -> Any:
    if not is_on():
        raise Http404("Nobody signs in with OpenID Connect here.")
    from iotsupport.accounts.oidc import views

    return views

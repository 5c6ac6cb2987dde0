"""The way to the provider, and back.

What has to be remembered meanwhile is in a signed cookie of the browser, not in a session: a row for each stranger who
begins would be one for everybody who likes.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import jwt
import requests
from django.contrib.auth import login
from django.contrib.sessions.backends import signed_cookies
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode
from mozilla_django_oidc.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView

from iotsupport.accounts import turned_away
from iotsupport.accounts.oidc import BACKEND, provider, provider_name
from iotsupport.accounts.oidc.client import library_settings
from iotsupport.accounts.rights import NotLetIn
from iotsupport.buckets import Buckets
from iotsupport.monitoring.logs import shorten
from iotsupport.pages import is_page, next_page
from iotsupport.serving.clients import client_address, client_network

logger = logging.getLogger(__name__)

# Django's debug page leaves out what is called so.
COOKIE = "oidc_auth"
STATES = "oidc_states"  # the library's
# How long somebody may take at the provider, and in how many tabs at once: a cookie has 4 KB.
ATTEMPT_SECONDS = 900
MOST_ATTEMPTS = 5

# Answers that are checked with the provider: of one network, and at once.
of_network = Buckets(15, 10.0)
_places = threading.BoundedSemaphore(2)

CANCELLED = "Signing in was cancelled at {name}."
REFUSED = "{name} did not sign you in ({code}). If that goes on, ask whoever runs it, or this server."
NOT_BEGUN = (
    "This answer of {name} belongs to no sign-in that this browser began here within the last quarter of an hour, or it"
    " was taken already. Begin again. If that goes on, let the browser keep cookies of this site."
)
CLOCKS = (
    "The clocks of this server and of {name} do not agree, so its answer is not taken. Ask whoever runs this server to"
    " set its clock right."
)
NOT_BELIEVED = (
    "The answer of {name} cannot be verified, so it is not taken. Ask whoever runs this server to look into its log."
)
NOT_TAKEN = (
    "{name} did not take what this server sent ({code}). Begin again; if that goes on, ask whoever runs this server to"
    " compare OIDC_CLIENT_ID and OIDC_CLIENT_SECRET with what {name} has."
)
BUSY = "Many are signing in just now. Try again in {seconds} seconds."

CODE = re.compile("[a-z_]{1,40}")


class Attempts(signed_cookies.SessionStore):
    """What is remembered of sign-ins that were begun: in the browser alone."""

    def get_session_cookie_age(self) -> int:
        return ATTEMPT_SECONDS


@contextmanager
def _remembering(request: HttpRequest, attempts: Attempts) -> Iterator[None]:
    """Have the library remember there what it keeps in sessions."""
    session = request.session
    request.session = attempts
    try:
        yield
    finally:
        request.session = session


def _keep(response: HttpResponse, attempts: Attempts) -> HttpResponse:
    path = reverse("admin:oidc_begin")
    if not attempts.get(STATES):
        response.delete_cookie(COOKIE, path=path)
        return response
    attempts.save()
    key = cast(str, attempts.session_key)
    response.set_cookie(COOKIE, key, max_age=ATTEMPT_SECONDS, path=path, httponly=True, samesite="Lax")
    return response


class Begin(OIDCAuthenticationRequestView):
    """Sends a browser to the provider, with a state, a nonce and a challenge (PKCE) of its own."""

    def __init__(self, **options: Any) -> None:
        pass  # the library's looks for settings

    def get_settings(self, attr: str, *default: Any) -> Any:
        return self._settings[attr] if attr in self._settings else super().get_settings(attr, *default)

    def get(self, request: HttpRequest) -> HttpResponse:
        try:
            self._settings = library_settings(provider.find())
        except provider.Unavailable as error:
            return turned_away.page(request, str(error), status=503, again=request.get_full_path())
        self.OIDC_OP_AUTH_ENDPOINT = self._settings["OIDC_OP_AUTHORIZATION_ENDPOINT"]
        self.OIDC_RP_CLIENT_ID = self._settings["OIDC_RP_CLIENT_ID"]
        attempts = Attempts(request.COOKIES.get(COOKIE))
        for state in list(attempts.get(STATES, {}))[: 1 - MOST_ATTEMPTS]:
            del attempts[STATES][state]
        with _remembering(request, attempts):
            response: HttpResponse = super().get(request)
        begun = list(attempts[STATES].values())[-1]
        begun["next"] = next_page(request)
        return _keep(response, attempts)


class Callback(OIDCAuthenticationCallbackView):
    """Takes a browser back, and signs in who it is, in a session that begins anew."""

    def get(self, request: HttpRequest) -> HttpResponse:
        attempts = Attempts(request.COOKIES.get(COOKIE))
        state = request.GET.get("state", "")
        begun = attempts.get(STATES, {}).get(state)
        next_url = begun["next"] if begun and is_page(request, begun["next"]) else reverse("admin:index")
        try:
            response = self._answer(request, attempts, next_url if begun else None)
        except _Refusal as refusal:
            begin = f"{reverse('admin:oidc_begin')}?{urlencode({'next': next_url})}"
            response = turned_away.page(request, refusal.sentence, status=refusal.status, again=begin)
        # Whatever became of it, it is over.
        attempts.get(STATES, {}).pop(state, None)
        return _keep(response, attempts)

    def _answer(self, request: HttpRequest, attempts: Attempts, next_url: str | None) -> HttpResponse:
        if error := request.GET.get("error"):
            if error == "access_denied":
                raise _Refusal(_told(CANCELLED))
            raise _Refusal(_told(REFUSED, code=error if CODE.fullmatch(error) else "without saying why"))
        if next_url is None or not request.GET.get("code"):
            raise _Refusal(_told(NOT_BEGUN), status=400)
        network = client_network(request) or ""
        if seconds := of_network.take(network):
            raise _Refusal(_told(BUSY, seconds=int(seconds) + 1), status=503)
        if not _places.acquire(blocking=False):
            raise _Refusal(_told(BUSY, seconds=5), status=503)
        self._session, self._next_url = request.session, next_url
        try:
            with _remembering(request, attempts):
                return self._verify(request)
        finally:
            _places.release()

    def _verify(self, request: HttpRequest) -> HttpResponse:
        """Have the library check it. What goes wrong, and what of it can be told to whoever it is, differs."""
        address = client_address(request) or "an unknown address"
        try:
            return super().get(request)  # type: ignore[no-any-return]
        except NotLetIn as error:
            logger.warning("Not let in, by OpenID Connect from %s: %s", address, shorten(str(error), 120))
            raise _Refusal(str(error)) from None
        except provider.Unavailable as error:
            raise _Refusal(str(error), status=503) from None
        except requests.HTTPError as error:
            code = _code_of(error.response)
            logger.warning("The OpenID provider refused a sign-in from %s: %s", address, code)
            raise _Refusal(_told(NOT_TAKEN, code=code)) from None
        except requests.RequestException as error:
            unavailable = provider.Unavailable(provider.tell(error))
            logger.warning("%s", unavailable)
            raise _Refusal(str(unavailable), status=503) from None
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as error:
            logger.warning("The OpenID provider's token is not of now: %s", error)
            raise _Refusal(_told(CLOCKS)) from None
        except (jwt.PyJWTError, SuspiciousOperation, AttributeError, LookupError, TypeError, ValueError) as error:
            # The library takes an answer for what it should be.
            logger.warning("The OpenID provider's answer is not believed: %s: %s", type(error).__name__, error)
            raise _Refusal(_told(NOT_BELIEVED)) from None

    def login_success(self) -> HttpResponse:
        self.request.session = self._session
        login(self.request, self.user, BACKEND)
        of_network.give_back(client_network(self.request) or "")
        return HttpResponseRedirect(self._next_url)


class _Refusal(Exception):
    def __init__(self, sentence: str, status: int = 403) -> None:
        super().__init__()
        self.sentence, self.status = sentence, status


def _told(sentence: str, **details: Any) -> str:
    return sentence.format(name=provider_name(), **details)


def _code_of(answer: requests.Response | None) -> str:
    """The provider's word for why it refuses (RFC 6749, section 5.2); else its status."""
    try:
        code = answer.json()["error"]  # type: ignore[union-attr]
    except (ValueError, KeyError, TypeError, AttributeError):
        code = ""
    if isinstance(code, str) and CODE.fullmatch(code):
        return code
    return f"status {answer.status_code}" if answer is not None else "no status"


def forget() -> None:
    """Forget how many answers came, for tests."""
    of_network.forget()

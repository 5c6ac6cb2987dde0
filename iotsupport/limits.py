"""How much of a body is read, of whom, at which address: decided by the head alone, before the first byte of it.

Whoever is not signed in gets :data:`iotsupport.serving.bodies.SMALL_BODY_BYTES` and no more than
:data:`iotsupport.serving.bodies.SMALL_BODY_FIELDS` fields. The apps name the addresses that need more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase

from iotsupport.accounts.sessions import SessionMiddleware
from iotsupport.editing import unsaved
from iotsupport.errors import DATABASE_ERRORS, ApiError, as_api_error
from iotsupport.models import ApiToken, ExpiredToken, NarrowedUser
from iotsupport.pages import BROWSER_PREFIX
from iotsupport.serving.bodies import (
    SMALL_BODY_BYTES,
    SMALL_BODY_FIELDS,
    Allowance,
    BodyInChunks,
    BodyTooLarge,
    BodyTrouble,
)

Users = AbstractBaseUser | AnonymousUser
GetResponse = Callable[[HttpRequest], HttpResponseBase]

STRANGERS = Allowance(SMALL_BODY_BYTES, SMALL_BODY_FIELDS, is_streamed=False)


class SignedOut(BodyTooLarge):
    """A body that is too large of a stranger, and perhaps not of somebody who is signed in."""


@dataclass(frozen=True, slots=True)
class LargeBodies:
    """An address that takes larger bodies than everybody may send, and of whom."""

    method: str
    # Of a whole path, without ``/api``.
    path: re.Pattern[str]
    most_bytes: Callable[[], int]
    # One of these is needed; without any, the user must be let into the admin.
    permissions: tuple[str, ...] = ()
    is_streamed: bool = False

    def may_send(self, user: Any) -> bool:
        if not self.permissions:
            return bool(user.is_active and user.is_staff) and not isinstance(user, NarrowedUser)
        return any(user.has_perm(permission) for permission in self.permissions)


# The admin's lists: "Delete selected" sends a field for each row.
LISTS = LargeBodies("POST", re.compile(r"/admin/\w+/\w+/", re.ASCII), lambda: settings.LIST_MAX_BYTES)

_registered: list[LargeBodies] = []


def register(*bodies: LargeBodies) -> None:
    """Have these addresses take larger bodies; for :meth:`AppConfig.ready`."""
    _registered.extend(bodies)


def allowance_of(method: str, path: str, find_user: Callable[[], Users]) -> Allowance:
    """Return what may be sent to an address. ``find_user`` is asked where that depends on who sends it."""
    path = path.removeprefix("/api")
    candidates = [bodies for bodies in _registered if bodies.method == method and bodies.path.fullmatch(path)]
    user = find_user() if candidates else None
    allowed = [bodies for bodies in candidates if bodies.may_send(user)]
    if not allowed:
        return STRANGERS
    return Allowance(
        max(SMALL_BODY_BYTES, *[bodies.most_bytes() for bodies in allowed]),
        settings.DATA_UPLOAD_MAX_NUMBER_FIELDS,
        any(bodies.is_streamed for bodies in allowed),
    )


def admit_body(environ: Mapping[str, Any]) -> Allowance | None:
    """What ``iotsupport.serving.worker`` asks before it reads a larger body; None while the database does not say.

    Whoever may be let in here is not yet let in: the view judges as ever.
    """
    request = WSGIRequest({**environ, "wsgi.input": BytesIO()})
    try:
        return allowance_of(request.method or "", request.path_info, lambda: authenticate(request))
    except DATABASE_ERRORS as error:
        refusal = as_api_error(error)  # which logs it
        return None if refusal.status == 503 else STRANGERS
    finally:
        close_old_connections()


def authenticate(request: HttpRequest) -> Users:
    """Return whose API token or session a request has. Asks the database where it has one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    with suppress(ExpiredToken):
        found = ApiToken.authenticate(token) if scheme.lower() == "bearer" else None
        if found is not None:
            return found[0]
    if not request.COOKIES.get(settings.SESSION_COOKIE_NAME):
        return AnonymousUser()
    SessionMiddleware(lambda request: HttpResponse()).process_request(request)
    return get_user(request)


class BodyLimitsMiddleware:
    """Refuses pages' bodies that are too large, by whatever server they come, and says what went wrong with others.

    The API's views refuse what is too large themselves, after they have refused strangers.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        # To a view, it is a form without fields, and to the check for CSRF one without a token.
        trouble = getattr(request.META.get("wsgi.input"), "trouble", None)
        return response if trouble is None or response.status_code not in {400, 403, 500} else _refuse(request, trouble)

    def process_view(self, request: HttpRequest, *args: Any) -> HttpResponse | None:
        if not request.path_info.startswith(BROWSER_PREFIX):
            return None
        try:
            self._check(request)
        except BodyTrouble as trouble:
            return _refuse(request, trouble)
        except UnreadablePostError:
            return _refuse(request, BodyTrouble("Not all of the form arrived. Nothing was changed. Send it again."))
        except DATABASE_ERRORS as error:
            return unsaved.refused(request, as_api_error(error), unsaved.UNREAD)
        return None

    def _check(self, request: HttpRequest) -> None:
        if "Transfer-Encoding" in request.headers:
            raise BodyInChunks("Send the form with its Content-Length, not in chunks.")
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        fields = _count_fields(request) if 0 < length <= SMALL_BODY_BYTES else 0
        if length <= SMALL_BODY_BYTES and fields <= SMALL_BODY_FIELDS:
            return
        allowance = allowance_of(request.method or "", request.path_info, lambda: request.user)
        if length > allowance.most_bytes:
            raise _too_large(request, length, allowance)
        if fields > allowance.most_fields:
            raise BodyTooLarge(f"The form has more than {allowance.most_fields} fields. Go back, and send fewer.")


def _too_large(request: HttpRequest, length: int, allowance: Allowance) -> BodyTooLarge:
    if request.user.is_authenticated:
        return BodyTooLarge(
            f"The form has {length} bytes; at most {allowance.most_bytes} are taken here. Go back, and send less."
        )
    return SignedOut(
        # In that order: going back asks for the page again, which shows strangers the sign-in instead.
        f"You are not signed in (any more), and of strangers at most {allowance.most_bytes} bytes are read. First sign"
        " in in another tab. Then go back with the browser's Back button, where what you typed still is, and send it"
        " again."
    )


def _count_fields(request: HttpRequest) -> int:
    """How many fields a small form can have."""
    if request.content_type == "application/x-www-form-urlencoded":
        return request.body.count(b"&") + 1
    if request.content_type == "multipart/form-data":
        return request.body.count(b"--" + (request.content_params or {}).get("boundary", "").encode())
    return 0


def _refuse(request: HttpRequest, trouble: BodyTrouble) -> HttpResponse:
    refusal = ApiError(trouble.status, trouble.code, str(trouble))
    return unsaved.refused(request, refusal, unsaved.UNREAD, is_signed_out=isinstance(trouble, SignedOut))

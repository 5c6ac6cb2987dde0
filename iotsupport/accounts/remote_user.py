"""Single sign-on by a header that a trusted proxy sets: ``REMOTE_USER_HEADER``. docs/sign-in.md says how to set it up.

Believed is who is connected, if ``TRUSTED_PROXIES`` names the address, never what a header says of addresses. The
header names the account here, as Django's own way does. With ``REMOTE_GROUPS_HEADER``, what somebody may follows from
their groups, at each sign-in and whenever these change; an account that has a password of its own keeps what was given
here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, authenticate, backends, login, logout
from django.contrib.auth import middleware as auth_middleware
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from iotsupport.accounts import turned_away
from iotsupport.accounts.rights import DEACTIVATED, NotLetIn, can_be_username, give, no_group, rights_of
from iotsupport.middleware import PUBLIC_URLS
from iotsupport.monitoring.logs import shorten
from iotsupport.pages import BROWSER_PREFIX
from iotsupport.serving.clients import is_trusted_proxy

logger = logging.getLogger(__name__)

BACKEND = f"{__name__}.RemoteUserBackend"
# In the session: what was said of the groups, when somebody signed in.
GROUPS = "_remote_groups"

NAME_CHARS = 40

NO_ACCOUNT = (
    "You are known as {name}, but no account of that name may use these pages. Ask whoever runs this server to make"
    " one, with staff status and what you shall be allowed to do."
)
OF_ITS_OWN = (
    "The account {name} has a password of its own here, and your groups do not make you an administrator. Sign in with"
    " that password; or have an administrator disable it, and the account is yours by your groups."
)
UNUSABLE = (
    "The proxy that signs people in calls you {name}, which cannot be the name of an account here: letters, digits and"
    " @ . + - _ alone, 150 of them at most. Have it send another one in the header {header}, and only once."
)


class RemoteUserBackend(backends.RemoteUserBackend):
    """Django's; makes an account only for somebody whose groups may do something here."""

    def authenticate(  # type: ignore[override]
        self, request: HttpRequest | None, remote_user: str, remote_groups: list[str] | None
    ) -> User:
        """Return the active user of this name; raises :class:`NotLetIn`. No groups: nothing is said of them."""
        user = User.objects.filter(username=remote_user).first()
        if user is not None and not self.user_can_authenticate(user):
            raise NotLetIn(DEACTIVATED.format(name=remote_user))
        if remote_groups is None:
            if user is None or not user.is_staff:
                raise NotLetIn(NO_ACCOUNT.format(name=remote_user))
            return user
        rights = rights_of(remote_groups)
        if user is not None and user.has_usable_password():
            # Who is called like a local administrator elsewhere is none by that; who may do everything loses nothing.
            if rights is None or not rights.is_administrator:
                raise NotLetIn(OF_ITS_OWN.format(name=remote_user)) if rights else no_group(remote_user, remote_groups)
            if not user.is_staff:
                raise NotLetIn(NO_ACCOUNT.format(name=remote_user))
            return user
        if rights is None:
            if user is not None:
                give(user, None)
            raise no_group(remote_user, remote_groups)
        if user is None:
            unusable = {"password": make_password(None)}
            user, is_new = User.objects.get_or_create(username=remote_user, defaults=unusable)
            if not is_new:  # made meanwhile, by whomever
                return self.authenticate(request, remote_user, remote_groups)
        give(user, rights)
        return user


class Said(NamedTuple):
    """What a trusted proxy says of who sends a request."""

    name: str
    groups: list[str] | None

    @property
    def mark(self) -> str:
        """What of it is kept in a session, to see whether it changes."""
        return hashlib.sha256("\n".join(self.groups or []).encode()).hexdigest()


class RemoteUserMiddleware(auth_middleware.RemoteUserMiddleware):
    """Signs in whom a trusted proxy names, in requests for pages, and out whom it names no more.

    Who has signed in here with a password stays signed in; for that, the page to sign in is left alone.
    """

    get_response: Callable[[HttpRequest], HttpResponseBase]

    def __init__(self, get_response: Any) -> None:
        # Where the groups' header cannot be right, nobody knows who may what.
        if not settings.REMOTE_USER_HEADER or "REMOTE_GROUPS_HEADER" in settings.ENVIRONMENT_PROBLEMS:
            raise MiddlewareNotUsed
        super().__init__(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if getattr(request, "urlconf", None) != PUBLIC_URLS:
            try:
                self.process_request(request)
            except NotLetIn as refusal:
                address = request.META.get("REMOTE_ADDR", "")
                logger.warning("Not let in, by the header of %s: %s", address, shorten(str(refusal), 4 * NAME_CHARS))
                return turned_away.page(request, str(refusal))
        return self.get_response(request)

    def process_request(self, request: HttpRequest) -> None:
        has_session = settings.SESSION_COOKIE_NAME in request.COOKIES
        is_ours = has_session and request.session.get(BACKEND_SESSION_KEY) == BACKEND
        if has_session and not is_ours and request.user.is_authenticated:
            return
        try:
            said = _read(request)
        except NotLetIn:
            self._sign_out(request, is_ours)
            if _signs_in(request):
                raise
            return
        if said is not None and is_ours and self._is_same(request, said):
            return
        self._sign_out(request, is_ours)
        if said is not None and _signs_in(request):
            user = authenticate(request, remote_user=said.name, remote_groups=said.groups)
            login(request, user, BACKEND)
            request.session[GROUPS] = said.mark

    def _is_same(self, request: HttpRequest, said: Said) -> bool:
        """Whether that was said when the session began, and its account was not deactivated meanwhile."""
        known = request.user.get_username(), request.session.get(GROUPS)
        return request.user.is_authenticated and known == (said.name, said.mark)

    def _sign_out(self, request: HttpRequest, is_ours: bool) -> None:
        if is_ours:
            logout(request)


def _signs_in(request: HttpRequest) -> bool:
    left_alone = {reverse("admin:login"), reverse("admin:logout")}
    return request.path_info.startswith(BROWSER_PREFIX) and request.path_info not in left_alone


def _read(request: HttpRequest) -> Said | None:
    """Return what a trusted proxy says, None where nobody does; raises :class:`NotLetIn` for a name that cannot be."""
    if not is_trusted_proxy(request.META.get("REMOTE_ADDR", "")):
        return None
    sent = _header(request, settings.REMOTE_USER_HEADER)
    if not sent:
        return None
    name = _decode(sent)
    if name is None or not can_be_username(name):
        shown = repr(shorten(name or ascii(sent), NAME_CHARS))
        raise NotLetIn(UNUSABLE.format(name=shown, header=settings.REMOTE_USER_HEADER))
    if not settings.REMOTE_GROUPS_HEADER:
        return Said(name, None)
    groups = (_decode(_header(request, settings.REMOTE_GROUPS_HEADER)) or "").replace("|", ",").split(",")
    return Said(name, sorted({group.strip() for group in groups if group.strip()}))


def _header(request: HttpRequest, name: str) -> str:
    return str(request.META.get(f"HTTP_{name.upper().replace('-', '_')}", "")).strip()


def _decode(sent: str) -> str | None:
    """Return what was sent in UTF-8, which WSGI tells in Latin-1 (PEP 3333); None for what is none."""
    try:
        return sent.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None

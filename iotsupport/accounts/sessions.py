"""Sessions of the admin, kept in the database: each use prolongs one, and what began over HTTPS counts there alone."""

from __future__ import annotations

import logging
import re
import time
from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY as SESSION_KEY_OF_USER
from django.contrib.sessions.backends import db
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from iotsupport.database.sqlite import patience
from iotsupport.errors import DATABASE_ERRORS, is_outage, is_unusable_value
from iotsupport.serving import strangers

logger = logging.getLogger(__name__)

# As Django makes them.
SESSION_KEY = re.compile("[a-z0-9]{32}")

# In a session that was saved in a request over HTTPS.
IS_HTTPS = "_is_https"

# How much longer than it must, a session lasts, so that not every request has to write it: of a short one, a tenth.
SLACK = timedelta(hours=1)
# How long that waits for whoever writes to the database, and until it is tried again after it failed.
PATIENCE_SECONDS = 0.2
CALM_SECONDS = 60.0

_not_before = 0.0


class SessionStore(db.SessionStore):
    """Django's, for a request over HTTPS or not: ``is_https``; None, as for a command, takes every session."""

    def __init__(self, session_key: str | None = None, is_https: bool | None = None) -> None:
        super().__init__(session_key)
        self.is_https = is_https
        self.ends_at: datetime | None = None

    def _validate_session_key(self, key: str | None) -> bool:
        # Django asks the database for any other text, too, which may hold what PostgreSQL cannot compare.
        return bool(key and SESSION_KEY.fullmatch(key))

    def load(self) -> dict[str, Any]:
        row = self._get_session_from_db()  # type: ignore[attr-defined]
        data = self.decode(row.session_data) if row else {}
        if data.get(IS_HTTPS) and self.is_https is False:
            # Whoever reads along, or sends the browser here, has the cookie.
            self._session_key = None
            return {}
        self.ends_at = row.expire_date if row else None
        return data

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        return super().create_model_instance({**data, IS_HTTPS: True} if self.is_https else data)

    def get_session_cookie_age(self) -> int:
        return int((_least_age() + _slack()).total_seconds())

    @property
    def is_of_user(self) -> bool:
        """Whether somebody is signed in, as far as it was looked at."""
        return SESSION_KEY_OF_USER in getattr(self, "_session_cache", {})

    def slide(self) -> bool:
        """Prolong the session from now on; return whether that was worth a write, and could be written."""
        global _not_before
        age = timedelta(seconds=self.get_session_cookie_age())
        now = timezone.now()
        # A little before it must be, in case that it cannot be written at first.
        if self.ends_at is None or self.ends_at - now > _least_age() + _slack() / 6:
            return False
        if time.monotonic() < _not_before:
            return False
        try:
            with patience(connection, PATIENCE_SECONDS), transaction.atomic():
                return bool(self.model.objects.filter(session_key=self.session_key).update(expire_date=now + age))
        except DATABASE_ERRORS as error:
            # The page is there all the same, and the session goes on as it was.
            logger.debug("A session could not be prolonged: %s", error)
            _not_before = time.monotonic() + CALM_SECONDS
            return False


def _refused_by_database(error: Exception) -> Exception | None:
    """Find what Django tells as a session that was ended meanwhile, whatever the database refuses."""
    refused = error.__context__ and error.__context__.__context__
    if isinstance(refused, Exception) and (is_outage(refused) or is_unusable_value(refused)):
        return refused
    return None


def _least_age() -> timedelta:
    return timedelta(seconds=settings.SESSION_COOKIE_AGE)


def _slack() -> timedelta:
    return min(SLACK, _least_age() / 10)


class SessionMiddleware(DjangoSessionMiddleware):
    """Django's, with the sessions of this module; a session that is prolonged gets its cookie anew."""

    def process_request(self, request: HttpRequest) -> None:
        session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        request.session = SessionStore(session_key, is_https=request.is_secure())

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            response = super().process_response(request, response)
        except (SessionInterrupted, *DATABASE_ERRORS) as error:
            # What was refused says why, and that is what is shown: a sign-in may have left a session that is not saved.
            if response.status_code >= 400:
                return response
            refused = _refused_by_database(error)
            if refused is None:
                raise
            raise refused from refused.__cause__  # which says why
        session = cast(SessionStore, request.session)
        if session.session_key and session.is_of_user:
            strangers.note_valid(session.session_key)
        if session.accessed and not session.modified and session.session_key and session.slide():
            response.set_cookie(
                settings.SESSION_COOKIE_NAME,
                session.session_key,
                max_age=session.get_session_cookie_age(),
                domain=settings.SESSION_COOKIE_DOMAIN,
                path=settings.SESSION_COOKIE_PATH,
                httponly=settings.SESSION_COOKIE_HTTPONLY,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
        return response


class SecureCookiesMiddleware:
    """Makes every cookie ``Secure`` in answers to requests that came over HTTPS; with ``HTTPS_ONLY``, in all.

    ``SESSION_COOKIE_SECURE`` alone would lock out the administrator who has no HTTPS: browsers drop such cookies.
    """

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = self.get_response(request)
        if settings.HTTPS_ONLY or request.is_secure():
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response

"""Sign-ins that fail: who has to wait for how long. django-axes asks this, and keeps what is counted.

Ten failures within an hour lock a name for the network that they came from (of IPv6, a /64), for an hour. Fifty of one
name, wherever they came from, slow it down for networks that its user has not signed in from before; the others go on
as usual. And the passwords of all who are in no known network of the user's are looked at one by one, wrong ones as
seldom as :mod:`iotsupport.accounts.password_checks` says. At most one row a second is made for all of them together.

Whoever is refused here writes nothing: the password is not looked at.
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, NamedTuple

from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.db import connection, transaction
from django.db.models import F, Max, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from iotsupport.accounts.password_checks import Busy, PasswordChecks
from iotsupport.buckets import Buckets
from iotsupport.database.sqlite import patience
from iotsupport.editing import unsaved
from iotsupport.errors import is_outage
from iotsupport.models import KnownNetwork, Throttle
from iotsupport.monitoring.logs import LASTING, shorten
from iotsupport.pages import next_page
from iotsupport.serving.clients import client_address, username_of

logger = logging.getLogger(__name__)

LOCKED_FOR = timedelta(hours=1)
# Failures of one name from all networks together within that time.
NAME_LIMIT = 50

# For those who sign in from where they never did before: of all together, and in this process, of one network, which
# leaves some to others, and of a name.
checks = PasswordChecks()
of_network = Buckets(15, 30.0)
of_slowed_name = Buckets(1, 10.0)
NOWHERE = ""

NEW_ROW, NEW_ROW_EVERY = "failed sign-in", timedelta(seconds=1)
# How long writing down a failure waits for who else writes.
PATIENCE_SECONDS = 1.0

NAME_CHARS = 40


class Wait(NamedTuple):
    reason: str
    """``locked``, ``slowed`` or ``busy``: what the page says."""
    seconds: float


class SignInForm(AdminAuthenticationForm):
    """The admin's form. The turn to have a stranger's password checked, if it took one, it gives back in any case."""

    def clean(self) -> dict[str, Any]:
        request: Any = self.request
        request.sign_in_check = None
        with ExitStack() as request.sign_in_stack:
            cleaned = super().clean()
            if request.sign_in_check is not None:
                request.sign_in_check.is_free = True
            return cleaned


class SignInHandler(AxesDatabaseHandler):
    """Says who has to wait, and counts failures: django-axes calls it around a sign-in, and has the rows."""

    def is_allowed(self, request: HttpRequest, credentials: Any = None) -> bool:
        name, network = username_of(request, credentials) or "", request.axes_ip_address  # type: ignore[attr-defined]
        failures = _count_recent(name, network)
        wait = failures.lock
        if wait is None and not KnownNetwork.objects.knows(name, network):
            wait = _begin_check(request, name, network, failures.everywhere)
        request.sign_in_wait = wait  # type: ignore[attr-defined]
        return wait is None

    def user_login_failed(self, sender: Any, credentials: Any, request: Any = None, **kwargs: Any) -> None:
        if request is None:
            return
        name = username_of(request, credentials) or ""
        wait: Wait | None = getattr(request, "sign_in_wait", None)
        if wait is None and _note_failure(name, request.axes_ip_address) >= settings.AXES_FAILURE_LIMIT:
            wait = request.sign_in_wait = Wait("locked", LOCKED_FOR.total_seconds())
        request.axes_locked_out = wait is not None
        request.axes_credentials = credentials
        why = "wrong name or password" if wait is None else wait.reason
        address = client_address(request) or "an unknown address"
        logger.warning("Failed sign-in as '%s' from %s: %s", shorten(name, NAME_CHARS), address, why)

    def user_logged_in(self, sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
        name, network = user.get_username(), request.axes_ip_address
        if network is None:
            return
        if getattr(request, "sign_in_check", None) is not None:
            of_network.give_back(network)
        failures = AccessAttempt.objects.filter(username=name, ip_address=network)
        if failures.exists():
            failures._raw_delete(failures.db)
        KnownNetwork.objects.note(user, network)

    def user_logged_out(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing of it."""


class Failures(NamedTuple):
    """How often signing in with a name failed within the last hour."""

    here: int
    everywhere: int
    lock: Wait | None


def _count_recent(name: str, network: str | None) -> Failures:
    now, is_here = timezone.now(), Q(ip_address=network)
    found = AccessAttempt.objects.filter(username=name, attempt_time__gte=now - LOCKED_FOR).aggregate(
        here=Sum("failures_since_start", filter=is_here, default=0),
        last_here=Max("attempt_time", filter=is_here),
        everywhere=Sum("failures_since_start", default=0),
    )
    is_locked = found["here"] >= settings.AXES_FAILURE_LIMIT
    lock = Wait("locked", (found["last_here"] + LOCKED_FOR - now).total_seconds()) if is_locked else None
    return Failures(found["here"], found["everywhere"], lock)


def _begin_check(request: HttpRequest, name: str, network: str | None, failures: int) -> Wait | None:
    """Begin to check a stranger's password, or return why they have to wait, and for how long."""
    if failures >= NAME_LIMIT and (seconds := of_slowed_name.take(name)):
        return Wait("slowed", seconds)
    if seconds := of_network.take(network or NOWHERE):
        return Wait("busy", seconds)
    try:
        request.sign_in_check = request.sign_in_stack.enter_context(checks.one())  # type: ignore[attr-defined]
    except Busy as busy:
        of_network.give_back(network or NOWHERE)
        if failures >= NAME_LIMIT:
            of_slowed_name.give_back(name)
        return Wait("busy", busy.seconds)
    return None


def _note_failure(name: str, network: str | None) -> int:
    """Count a failure, and return how many there are by now; what cannot be written is not counted."""
    try:
        with patience(connection, PATIENCE_SECONDS), transaction.atomic():
            return _count_failure(name, network)
    except Exception as error:
        if not is_outage(error):
            raise
        logger.warning("A failed sign-in could not be counted: %s", error, extra=LASTING)
        return 0


def _count_failure(name: str, network: str | None) -> int:
    now = timezone.now()
    # One row, whatever the browser says it is.
    row = AccessAttempt.objects.filter(username=name, ip_address=network, user_agent="")
    recent = row.filter(attempt_time__gte=now - LOCKED_FOR)
    if recent.update(failures_since_start=F("failures_since_start") + 1, attempt_time=now):
        return _count_recent(name, network).here
    if not row.update(failures_since_start=1, attempt_time=now) and Throttle.objects.take(NEW_ROW, NEW_ROW_EVERY):
        first = AccessAttempt(username=name, ip_address=network, user_agent="", failures_since_start=1)
        AccessAttempt.objects.bulk_create([first], ignore_conflicts=True)
    return 1


def refuse(request: HttpRequest, original_response: Any, credentials: Any) -> HttpResponse:
    """The page for somebody who has to wait."""
    wait: Wait = request.sign_in_wait  # type: ignore[attr-defined]
    seconds = math.ceil(wait.seconds)
    context = {
        "reason": wait.reason,
        "seconds": seconds,
        "failure_limit": settings.AXES_FAILURE_LIMIT,
        "typed": unsaved.typed_in(request, next_page(request)),
    }
    response = render(request, "admin/locked_out.html", context, status=429)
    response["Retry-After"] = str(seconds)
    return response


def forget() -> None:
    """Forget how many tries there were in this process, for tests."""
    checks.forget()
    for buckets in [of_network, of_slowed_name]:
        buckets.forget()

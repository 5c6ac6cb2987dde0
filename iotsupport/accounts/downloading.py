"""Who may download where devices have to sign in: they, and people who may view the same in the admin.

A person has a session of the admin, or a script with a token of the API; only they cost a look into the database.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from iotsupport.limits import authenticate
from iotsupport.serving import credentials
from iotsupport.serving.downloads import Downloads

View = Callable[..., HttpResponseBase]


def for_downloads(downloads: Downloads) -> Callable[[View], View]:
    """Make a view refuse with 401 who may not download one kind of file, before it looks whether it is there."""

    def decorate(view: View) -> View:
        @wraps(view)
        def answer(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
            if credentials.is_device(request.META) or _may_view(request, downloads.permission):
                return view(request, *args, **kwargs)
            credentials.REFUSED.inc()
            return credentials.refusal(credentials.BASIC)

        return answer

    return decorate


def _may_view(request: HttpRequest, permission: str) -> bool:
    if not credentials.may_be_person(request.META):
        return False
    user: Any = authenticate(request)
    return bool(user.is_active and user.has_perm(permission))

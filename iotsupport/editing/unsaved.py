"""What somebody typed that could not be saved: shown again in a page of ours, with a way on.

That is so where the session ended, where the token against forged requests is an old one (signed in again in another
tab), where a permission or the row went meanwhile, and where the front server's HTTPS is not set up. Passwords and
files are not kept: a page must not hold the former, and cannot hold the latter.

Nothing is stored here. Of what is too large for somebody who is not signed in, ``iotsupport/forms.js`` takes care:
it asks before it sends a form, and keeps the text in the browser until somebody has signed in.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse
from django.middleware import csrf
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import Resolver404, resolve, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.html import escape
from django.utils.text import capfirst
from django.views import csrf as csrf_views
from django.views import defaults

from iotsupport.accounts import oidc
from iotsupport.environment import is_origin
from iotsupport.errors import ApiError, plain_error, refusal_of_database
from iotsupport.pages import BROWSER_PREFIX, asks_for_page, next_page
from iotsupport.serving.bodies import SMALL_BODY_BYTES, SMALL_BODY_FIELDS

# Of the fields that a sign-in takes along, lest they meet its own.
PREFIX = "kept-"

SECRET = re.compile("(?<!usable_)passw", re.IGNORECASE)
# Forms send these by themselves.
NOT_TYPED = {"action", "based_on", "index", "post", "select_across"}
NOT_KEPT = {"csrfmiddlewaretoken"}

# Where it stands in a page that is made once.
SENTENCE = "The sentence"

# What the name, the password and the token of a sign-in may take beside what is kept.
SIGN_IN_BYTES = 4096

BAD_REFERER = csrf.REASON_BAD_REFERER.partition("%")[0]


class Field(NamedTuple):
    name: str
    value: str
    is_hidden: bool
    label: str

    @property
    def is_long(self) -> bool:
        return len(self.value) > 80 or "\n" in self.value


class Typed(NamedTuple):
    """What a form held: its ``fields``, the address that it was sent to, and what of it cannot be shown again."""

    fields: list[Field]
    action: str
    had_password: bool = False
    had_file: bool = False

    @property
    def has_text(self) -> bool:
        return any(not field.is_hidden for field in self.fields)

    @property
    def fits_sign_in(self) -> bool:
        """Whether somebody who is not signed in may send it once more, beside a name and a password."""
        sent = urlencode([(f"{PREFIX}{field.name}", field.value) for field in self.fields])
        return len(sent) + SIGN_IN_BYTES <= SMALL_BODY_BYTES and len(self.fields) + 10 <= SMALL_BODY_FIELDS


# Of a form that was not read, or that there is none of.
UNREAD = Typed([], "")


def typed_in(request: HttpRequest, action: str | None = None) -> Typed:
    """Return what a form holds, or what a sign-in took along, which goes to ``action``."""
    pairs = [(name, value) for name, values in request.POST.lists() for value in values]
    if action is not None:
        pairs = [(name.removeprefix(PREFIX), value) for name, value in pairs if name.startswith(PREFIX)]
    kept = [(name, value) for name, value in pairs if name not in NOT_KEPT and not SECRET.search(name)]
    action = action or request.get_full_path()
    labels = _labels_at(action)
    shown = kept if len(kept) <= SMALL_BODY_FIELDS else []
    return Typed(
        [Field(name, value, _is_hidden(name, value), _label_of(name, labels)) for name, value in shown],
        action,
        had_password=any(SECRET.search(name) for name, _ in pairs),
        # Without one, browsers send the field all the same, and Django drops it.
        had_file=bool(request.FILES),
    )


def _labels_at(url: str) -> dict[str, str]:
    """What the form at an address calls its fields. Asks nobody: the database may be away."""
    try:
        view = resolve(unquote(urlsplit(url).path)).url_name or ""
    except Resolver404:
        return {}
    for model, model_admin in admin.site._registry.items():
        options = model._meta
        if view.startswith(f"{options.app_label}_{options.model_name}_"):
            labels = {
                field.name: str(capfirst(field.verbose_name)) for field in [*options.fields, *options.many_to_many]
            }
            for form in [model_admin.form, getattr(model_admin, "add_form", None)]:
                labels |= {
                    name: str(field.label) for name, field in getattr(form, "base_fields", {}).items() if field.label
                }
            return labels
    return {}


def _label_of(name: str, labels: dict[str, str]) -> str:
    return labels.get(name) or name.replace("_", " ").strip().capitalize()


def _is_hidden(name: str, value: str) -> bool:
    return name.startswith("_") or name in NOT_TYPED or not value.strip()


def sign_in_page(request: HttpRequest, typed: Typed) -> HttpResponse:
    """Ask who is not signed in (any more) to sign in, and keep what they typed meanwhile."""
    if oidc.is_on() or not typed.fits_sign_in:  # the way to a provider takes nothing along
        return page(request, "signed-out", typed)
    login = reverse("admin:login")
    context = {
        **admin.site.each_context(request),
        "title": "Sign in to go on",
        "app_path": f"{login}?{urlencode({REDIRECT_FIELD_NAME: typed.action})}",
        REDIRECT_FIELD_NAME: typed.action,
        "form": AdminAuthenticationForm(request),
        "typed": typed,
    }
    return _never_cached(render(request, "admin/login.html", context, status=403))


def page(request: HttpRequest, reason: str, typed: Typed, *, status: int = 403, **context: Any) -> HttpResponse:
    """Show what somebody typed, and why it was not saved: ``reason`` is one that ``admin/unsaved.html`` knows."""
    context = {**admin.site.each_context(request), "reason": reason, "typed": typed, **context}
    return _never_cached(render(request, "admin/unsaved.html", context, status=status))


def _never_cached(response: HttpResponse) -> HttpResponse:
    add_never_cache_headers(response)
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form whose origin or token is not right: Django's ``CSRF_FAILURE_VIEW``."""
    if not request.path_info.startswith(BROWSER_PREFIX):
        return csrf_views.csrf_failure(request, reason)
    try:
        return _explain_csrf(request, reason)
    except Exception as error:  # who it is, the database says
        refusal = refusal_of_database(error)
        if refusal is None:
            raise
        is_from_here = _refused_origin(request, reason) is None and _is_from_here(request)
        return refused(request, refusal, may_send=is_from_here)


def _explain_csrf(request: HttpRequest, reason: str) -> HttpResponse:
    typed = _typed_for_anyone(request)
    origin = _refused_origin(request, reason)
    if origin is not None:
        # Perhaps another site sent it: nobody is offered to send that once more.
        return page(request, "origin", typed, is_ours=_may_be_ours(request, origin), origin=origin)
    if not _is_from_here(request):
        return page(request, "elsewhere", typed)
    if admin.site.has_permission(request) or not typed.has_text:
        return page(request, "token", typed)
    return sign_in_page(request, typed)


def _typed_for_anyone(request: HttpRequest) -> Typed:
    if request.path_info != reverse("admin:login"):
        return typed_in(request)
    return typed_in(request, next_page(request))


def _refused_origin(request: HttpRequest, reason: str) -> str | None:
    """Which origin was refused, as ``https://iot.example.com``; empty where none was named; None for other reasons."""
    origin = request.headers.get("Origin")
    if origin is not None and reason == csrf.REASON_BAD_ORIGIN % origin:
        return origin
    if reason in {csrf.REASON_NO_REFERER, csrf.REASON_MALFORMED_REFERER}:
        return ""
    if reason == csrf.REASON_INSECURE_REFERER:
        return "null"  # no setting allows that
    if reason.startswith(BAD_REFERER):
        parts = urlsplit(request.headers.get("Referer", ""))
        return f"{parts.scheme}://{parts.netloc}"
    return None


def _may_be_ours(request: HttpRequest, origin: str) -> bool:
    """Whether that origin can be this site's, as its browser sees it; no browser lies about another site's form."""
    return is_origin(origin) and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


def _is_from_here(request: HttpRequest) -> bool:
    """Whether no other site sent a form. What browsers send ``Origin`` with, was compared before."""
    if "Origin" in request.headers:
        return True
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        return False
    referer = request.headers.get("Referer")
    return referer is None or urlsplit(referer).netloc == request.get_host()


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Say what somebody may not do, and show what they typed: the ``handler403``."""
    if not request.path_info.startswith(BROWSER_PREFIX):
        return defaults.permission_denied(request, exception)
    typed = typed_in(request) if request.method == "POST" else UNREAD
    return page(request, "denied", typed, sentence=str(exception))


def gone(request: HttpRequest, name: str, list_url: str) -> HttpResponse:
    """Show what somebody typed about what is not there any more, and cannot be added again with it."""
    return page(request, "gone", typed_in(request), status=404, name=name, list_url=list_url)


def refused(
    request: HttpRequest, refusal: ApiError, typed: Typed | None = None, *, may_send: bool = True, **context: Any
) -> HttpResponse:
    """Say why a request was refused: to programs in JSON, to people with what they typed and a way on.

    Asks neither the database nor the session: perhaps they are why. ``typed`` is to be given where the form is not to
    be read, ``may_send`` where nobody is to be led to send it again.
    """
    if not request.path_info.startswith(BROWSER_PREFIX):
        return refusal.response()
    is_form = request.method == "POST"
    if not asks_for_page(request):
        sentence = f"Nothing was saved. {refusal.message}" if is_form else refusal.message
        return HttpResponse(sentence, status=refusal.status, content_type="text/plain; charset=utf-8")
    if typed is None:
        typed = _typed_if_readable(request) if is_form else UNREAD
    context = {
        "title": _title_of(refusal, is_form),
        "sentence": refusal.message,
        "request_id": refusal.details.get("request_id"),
        "typed": typed,
        "may_send": may_send and typed.has_text,
        "is_sign_in": request.path_info == reverse("admin:login"),
        "is_back": is_form and typed is UNREAD,
        "address": typed.action or ("" if is_form else request.get_full_path()),
        "csrf_token": csrf.get_token(request),
        **context,
    }
    # Without the request: what else is shown on every page, it would be asked for.
    page = render_to_string("admin/refused.html", context)
    return _never_cached(HttpResponse(page, status=refusal.status))


def _title_of(refusal: ApiError, is_form: bool) -> str:
    if refusal.status == 500:
        return "Something went wrong"
    return "Nothing was saved" if is_form else "This cannot be shown just now"


def _typed_if_readable(request: HttpRequest) -> Typed:
    try:
        return _typed_for_anyone(request)
    except Exception:  # whoever looks at the form may be what failed
        return UNREAD


def refusal_page(status: int, sentence: str) -> str:
    """What the worker shows to a browser that it refuses by itself. Cheap: strangers may ask for many."""
    return _empty_page(status).replace(SENTENCE, escape(sentence))


@cache
def _empty_page(status: int) -> str:
    title = "Not available just now" if status == 503 else "Nothing was changed"
    return render_to_string("admin/refused.html", {"title": title, "sentence": SENTENCE, "is_back": True})


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what nobody foresaw, and what the database refused outside of the views: the ``handler500``."""
    refusal = refusal_of_database(sys.exc_info()[1])
    if refusal is not None:
        return refused(request, refusal)
    # Django logs it. Whether anything was saved before, nobody knows.
    return refused(request, plain_error(500), is_unknown=request.method == "POST")

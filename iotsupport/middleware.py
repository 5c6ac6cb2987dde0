"""Middleware: ids of requests, addresses for devices, JSON for programs, names of the server, databases that refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from csp.utils import build_policy
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.urls import is_valid_path

from iotsupport.addresses import refuse_address
from iotsupport.editing import unsaved
from iotsupport.environment import HOST_RULE, is_allowed_host
from iotsupport.errors import ApiError, plain_error, refusal_of_database
from iotsupport.monitoring import current_request
from iotsupport.pages import BROWSER_PREFIX
from iotsupport.serving import kept_answers, request_ids

# When to ask again for what is not available just now.
RETRY_AFTER_SECONDS = 5

GetResponse = Callable[[HttpRequest], HttpResponseBase]

PUBLIC_URLS = "iotsupport.public_urls"

# What the middleware inside adds for pages.
BROWSER_HEADERS = [
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "Vary",
    "X-Frame-Options",
]


class RequestIdMiddleware:
    """Gives each request an id: the front server's, which the answer repeats, or one made here.

    What devices are answered does not have it: they read every header into a small buffer.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        sent = request_ids.sent_in(request.META)
        with current_request.working_at(sent or current_request.make_id()):
            response = self.get_response(request)
        if sent and (getattr(request, "urlconf", None) != PUBLIC_URLS or kept_answers.is_kept(request)):
            response[request_ids.HEADER] = sent
        return response


class PublicUrlsMiddleware:
    """Sends GET and HEAD for what is open to everybody to URLs of their own, and refuses programs in JSON.

    A device's download and a script's ``PUT`` share a path, and only the first is open.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if (refusal := refuse_address(request)) is not None:
            return refusal
        if request.method in {"GET", "HEAD"} and is_valid_path(request.path_info, PUBLIC_URLS):
            request.urlconf = PUBLIC_URLS
        response = self.get_response(request)
        if getattr(request, "urlconf", None) == PUBLIC_URLS:
            _leave_browsers_out(response)
        if response.status_code >= 400 and not request.path_info.startswith(BROWSER_PREFIX):
            response = _in_json(response)
        if response.status_code == 503:
            response.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
        if response.status_code == 405 and is_valid_path(request.path_info, PUBLIC_URLS):
            allowed = {method.strip() for method in response.get("Allow", "").split(",") if method.strip()}
            response["Allow"] = ", ".join(sorted(allowed | {"GET", "HEAD"}))
        return response


def _leave_browsers_out(response: HttpResponseBase) -> None:
    """Drop what concerns pages and sessions: a device reads every header into a small buffer."""
    for header in BROWSER_HEADERS:
        del response[header]
    response.cookies.clear()


def _in_json(response: HttpResponseBase) -> HttpResponseBase:
    if not isinstance(response, HttpResponse) or not response.get("Content-Type", "").startswith("text/html"):
        return response
    refusal = plain_error(response.status_code).response()
    # What the headers say beside it stays true: Allow, and what browsers are told.
    response.content = refusal.content
    for header in ["Content-Type", "Content-Length"]:
        response[header] = refusal[header]
    return response


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """The library's, for one policy: no view has another, and to work it out takes long for an answer in JSON."""

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        self._policy = build_policy()

    def process_request(self, request: HttpRequest) -> None:
        """No page needs a nonce."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        # Django's pages for those who debug have styles of their own.
        if not (settings.DEBUG and response.status_code in {404, 500}):
            response.setdefault(HEADER, self._policy)
        return response


class UnfinishedUploadsMiddleware:
    """Tells upload handlers to drop what arrived of a body that cannot be parsed: Django does not."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self.get_response(request)
        finally:
            if request.method == "POST":
                for handler in request.upload_handlers:
                    handler.upload_interrupted()


class DatabaseMiddleware:
    """Answers why the database refused what a view asked. Outside of a view, ``editing.unsaved.server_error`` does."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        refusal = refusal_of_database(exception)
        return None if refusal is None else unsaved.refused(request, refusal)


class HostMiddleware(CommonMiddleware):
    """Django's check of the Host header; devices and probes may use any name or address of the server."""

    def process_request(self, request: HttpRequest) -> Any:
        if getattr(request, "urlconf", None) == PUBLIC_URLS:
            return None
        try:
            return super().process_request(request)
        except DisallowedHost:
            return _refuse_host(request)


def _refuse_host(request: HttpRequest) -> HttpResponse:
    host = request.META.get("HTTP_HOST") or request.META.get("SERVER_NAME", "")
    name, _ = split_domain_port(host)
    if is_allowed_host(name):
        message = f"The name {name!r} is not this server's. Use one that ALLOWED_HOSTS lists, or add {name} to it."
    else:
        # Adding it would not help: Django refuses it whatever is allowed.
        message = f"{host[:200]!r} cannot be the name of a server: {HOST_RULE}. Use another name, or the address."
    if request.path_info.startswith(BROWSER_PREFIX):
        return HttpResponseBadRequest(message, content_type="text/plain; charset=utf-8")
    return ApiError(400, "HOST_NOT_ALLOWED", message).response()

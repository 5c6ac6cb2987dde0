"""What the worker answers without the application, to refuse a request: JSON to programs, a sentence to people."""

from __future__ import annotations

import http
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from gunicorn import SERVER, util
from gunicorn.http import errors

from iotsupport.serving.bodies import BodyTrouble

# Where people look; everywhere else, programs do. As iotsupport.middleware has it, which this must not import.
BROWSER_PREFIX = "/admin/"

RETRY_AFTER_SECONDS = 5


class Refusal(NamedTuple):
    status: int
    code: str
    message: str

    def answer(self, path: str = "", make_page: Callable[[int, str], str] | None = None) -> bytes:
        """A whole HTTP answer after which the connection is closed; ``make_page`` writes it for a browser."""
        if path.startswith(BROWSER_PREFIX) and make_page is not None:
            content_type, body = "text/html; charset=utf-8", make_page(self.status, self.message)
        elif path.startswith(BROWSER_PREFIX):
            content_type, body = "text/plain; charset=utf-8", self.message
        else:
            content_type, body = "application/json", json.dumps(self._asdict_for_programs())
        content = body.encode()
        fields = [
            f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}",
            f"Server: {SERVER}",
            f"Date: {util.http_date()}",
            "Connection: close",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(content)}",
            "X-Content-Type-Options: nosniff",
        ]
        if self.status == 503:
            fields.append(f"Retry-After: {RETRY_AFTER_SECONDS}")
        return "\r\n".join([*fields, "", ""]).encode() + content

    def _asdict_for_programs(self) -> dict[str, object]:
        return {"error": self.message, "code": self.code, "details": {}}


BAD_LINE = Refusal(
    400, "BAD_REQUEST", "The first line of the request cannot be understood. Send one like 'GET /configs HTTP/1.1'."
)
BAD_HEADER = Refusal(
    400, "BAD_REQUEST", "The headers of the request cannot be understood. Check their names, values and line ends."
)
LINE_TOO_LONG = Refusal(400, "BAD_REQUEST", "The address is too long. Send a shorter one.")
HEAD_TOO_LARGE = Refusal(431, "HEAD_TOO_LARGE", "The headers of the request are too large. Send fewer or shorter ones.")
NO_HOST = Refusal(400, "HOST_MISSING", "The request has no Host header, which HTTP/1.1 demands. Send one.")
BAD_CODING = Refusal(400, "LENGTH_REQUIRED", "The body's transfer coding is unknown. Send it with its Content-Length.")
UNKNOWN_PLACE = Refusal(404, "NOT_FOUND", "There is nothing at this address. Check the path.")
FULL = Refusal(503, "UNAVAILABLE", "Too much is under way just now. Nothing was changed. Send it again in a moment.")
AWAY = Refusal(503, "UNAVAILABLE", "This is not available just now. Nothing was changed. Send it again in a moment.")
BROKEN = Refusal(500, "INTERNAL_ERROR", "Something went wrong here; the server's log says what. Try again later.")

# Of gunicorn's own exceptions, the first that fits.
REFUSED: list[tuple[tuple[type[Exception], ...], Refusal]] = [
    # What the application tried to send is not the client's fault.
    ((errors.InvalidResponseHeader, errors.InvalidResponseHeaderName), BROKEN),
    ((errors.LimitRequestLine,), LINE_TOO_LONG),
    ((errors.LimitRequestHeaders,), HEAD_TOO_LARGE),
    ((errors.UnsupportedTransferCoding,), BAD_CODING),
    ((errors.ConfigurationProblem,), UNKNOWN_PLACE),  # outside SCRIPT_NAME, as the environment has it
    ((errors.InvalidRequestLine, errors.InvalidRequestMethod, errors.InvalidHTTPVersion), BAD_LINE),
    ((errors.ParseException,), BAD_HEADER),
]


def of_trouble(trouble: BodyTrouble) -> Refusal:
    return Refusal(trouble.status, trouble.code, str(trouble))


def answer_to(request: Any, refusal: Refusal, application: Any) -> bytes:
    """Return the answer to a request of gunicorn's, or to what could not be parsed, which is None.

    For the browser that asks for a page, the application writes one if it can.
    """
    if not request:
        return refusal.answer()
    asks_for_page = any(name == "ACCEPT" and "text/html" in value for name, value in request.headers)
    return refusal.answer(request.path or "", getattr(application, "refusal_page", None) if asks_for_page else None)


def refusal_of(error: Exception) -> Refusal:
    """Say an exception that a request caused before or beside the application."""
    return next((refusal for exceptions, refusal in REFUSED if isinstance(error, exceptions)), BROKEN)

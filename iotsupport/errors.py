"""One shape for every refusal that a program reads: ``{"error", "code", "details"}``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import django.db
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.http import Http404, HttpRequest, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from iotsupport import access
from iotsupport.database.sqlite import files_of
from iotsupport.mirror.files import MirrorBehindError, MirrorError
from iotsupport.monitoring import current_request
from iotsupport.monitoring.logs import LASTING, shorten

logger = logging.getLogger(__name__)

# Whatever a database raises; Django's dummy, which stands for a wrong DATABASE_URL, says ImproperlyConfigured. Which of
# them is an outage, is_outage() says.
DATABASE_ERRORS = (django.db.Error, ImproperlyConfigured)

# Codes of a ValidationError that are not a plain 400.
STATUS_OF_CODE = {"TOO_LARGE": 413, "COMPRESSED": 415}


# What SQLite says (https://sqlite.org/rescode.html), and PostgreSQL's SQLSTATE; the first that it begins with counts.
NO_ROOM = "No room is left on the disk of the database. Free some space there, then try again."
NOT_WRITABLE = "The database cannot be written. Make it writable for the server's user, then try again."
BARRED = (
    "The database's file cannot be read and written by the server's user. Give it to that user, then try again;"
    " 'manage.py check' names file and user."
)
DATABASE_TROUBLES = {
    "SQLITE_FULL": NO_ROOM,
    "SQLITE_IOERR": "The disk of the database does not work. Repair it, then try again.",
    "SQLITE_READONLY": NOT_WRITABLE,
    "SQLITE_CANTOPEN": "The database's file cannot be opened. Put it back, or correct DATABASE_URL, then try again.",
    "SQLITE_BUSY": "The database is kept locked by another process. Try again in a moment.",
    "53100": NO_ROOM,
    "25006": NOT_WRITABLE,
}


def explain_database(error: Exception) -> str | None:
    """One sentence on why the database does not take a change, and what to do; None where it is not known."""
    cause = error.__cause__
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
    if code == "SQLITE_CANTOPEN":
        files = files_of(str(settings.DATABASES["default"]["NAME"]))
        if any(access.problem(Path(file)) for file in files):
            return BARRED
    return next((sentence for begin, sentence in DATABASE_TROUBLES.items() if code.startswith(begin)), None)


# Of ProgrammingError, by PostgreSQL's SQLSTATE: not migrated (undefined table, column, schema), or not for this role.
NOT_READY = {"42P01", "42703", "3F000", "42501"}
# A limit on what one statement may ask for; both are OperationalError, which otherwise is an outage.
PROGRAM_LIMIT = "54"
SQLITE_LIMITS = ("too complex", "too many", "too large", "user-defined function")


def is_outage(error: BaseException | None) -> bool:
    """Whether the database is away, locked, broken or not migrated, rather than asked for what it cannot do."""
    if isinstance(error, ImproperlyConfigured):
        return True
    if not isinstance(error, django.db.Error) or is_unusable_value(error):
        return False
    sqlstate = _sqlstate_of(error)
    if isinstance(error, django.db.ProgrammingError):
        return sqlstate in NOT_READY or "closed database" in str(error)
    if isinstance(error, (django.db.IntegrityError, django.db.NotSupportedError)):
        return False
    # What was refused before is the error, not what followed in the same transaction.
    if sqlstate == "25P02":
        return False
    # Django's own exceptions of the general kind say that nothing was found to be changed.
    return type(error) is not django.db.DatabaseError or error.__cause__ is not None


def is_unusable_value(error: BaseException | None) -> bool:
    """Whether a value was too long or too large for the database, or holds what it cannot store."""
    if isinstance(error, django.db.DataError):
        return True
    if isinstance(error, OverflowError):
        return "SQLite" in str(error)  # of an integer, which is not wrapped in one of django.db's
    if not isinstance(error, django.db.OperationalError):
        return False
    is_sqlite = hasattr(error.__cause__, "sqlite_errorname")
    return _sqlstate_of(error).startswith(PROGRAM_LIMIT) or (is_sqlite and any(t in str(error) for t in SQLITE_LIMITS))


def log_outage(error: Exception) -> None:
    """Say that the database is away: once with a traceback, then once a minute, whoever meets it."""
    logger.error("The database did not answer", exc_info=error, extra=LASTING)


def _sqlstate_of(error: BaseException) -> str:
    return getattr(error.__cause__, "sqlstate", None) or ""


class ApiError(Exception):
    """A refusal: HTTP status, a constant for programs, and a sentence that says what to do."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details

    def response(self) -> JsonResponse:
        response = JsonResponse({"error": self.message, "code": self.code, "details": self.details}, status=self.status)
        # Django's middleware that adds it may be behind us already.
        response["Content-Length"] = str(len(response.content))
        return response


UNUSABLE_VALUE = (
    "The database cannot hold one of these values: it is too long or too large, or has a null character."
    " Correct it, then try again."
)
CONFLICT = "This contradicts something else that was saved. Look at what is there now, then try again."

# What is said of a status when nothing more is known.
PLAIN_ERRORS = {
    400: ("BAD_REQUEST", "The request cannot be understood. Check its path, headers and body."),
    403: ("FORBIDDEN", "This is not allowed. Use a token whose user has the permission."),
    404: ("NOT_FOUND", "There is nothing at this address. Check the path; /api/docs lists them all."),
    405: ("METHOD_NOT_ALLOWED", "This address does not take that method. The Allow header lists those it takes."),
    413: ("TOO_LARGE", "The request is too large. Send less."),
    500: ("INTERNAL_ERROR", "Something went wrong here; the server's log says what. Try again later."),
    503: ("UNAVAILABLE", "This is not available just now. Try again in a moment."),
}


def plain_error(status: int) -> ApiError:
    code, message = PLAIN_ERRORS.get(status, PLAIN_ERRORS[400 if status < 500 else 500])
    request_id = current_request.request_id()
    # By it, the log says what went wrong.
    details = {"request_id": request_id} if code == "INTERNAL_ERROR" and request_id else {}
    return ApiError(status, code, message, **details)


def refusal_of_database(error: BaseException | None) -> ApiError | None:
    """Say, and log, why the database did not do what it was asked for; None for whatever is a mistake of ours."""
    if isinstance(error, Exception) and is_outage(error):
        log_outage(error)
        message = explain_database(error) or "The database is not available just now. Try again in a moment."
        return ApiError(503, "DATABASE_UNAVAILABLE", message)
    if is_unusable_value(error):
        logger.warning("The database cannot hold a value: %s", shorten(str(error), 100))
        return ApiError(400, "INVALID_VALUE", UNUSABLE_VALUE)
    if isinstance(error, django.db.IntegrityError):
        logger.error("The database refused what contradicts something else", exc_info=error)
        return ApiError(409, "CONFLICT", CONFLICT)
    return None


def as_api_error(error: Exception) -> ApiError:
    """Return the refusal that tells a program of an exception. What nobody foresaw is logged, and is 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return _from_validation(error)
    if isinstance(error, MirrorError):
        code = "MIRROR_BEHIND" if isinstance(error, MirrorBehindError) else "STORAGE_UNAVAILABLE"
        return ApiError(503, code, str(error))
    if (refusal := refusal_of_database(error)) is not None:
        return refusal
    for exceptions, status in EXPECTED:
        if isinstance(error, exceptions):
            return plain_error(status)
    logger.error("Unexpected error", exc_info=error)
    return plain_error(503 if isinstance(error, OSError) else 500)


EXPECTED: list[tuple[tuple[type[Exception], ...], int]] = [
    ((Http404,), 404),
    ((RequestDataTooBig,), 413),
    ((SuspiciousOperation, MultiPartParserError, UnreadablePostError), 400),
]


def _from_validation(error: ValidationError) -> ApiError:
    errors = next(iter(error.error_dict.values())) if hasattr(error, "error_dict") else error.error_list
    error = errors[0]
    code = error.code if error.code and error.code.isupper() else "INVALID"
    details = {key: getattr(error, key) for key in ["line", "column"] if getattr(error, key, None)}
    details |= getattr(error, "details", {})
    return ApiError(STATUS_OF_CODE.get(code, 400), code, " ".join(error.messages), **details)


def public_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Make a view one for ``iotsupport.public_urls``: it answers GET and HEAD alone, and refuses in JSON.

    That is what it raises of :class:`ApiError`, ``Http404``, ``ValidationError`` and trouble with files.
    """

    # Nothing is changed here; a PUT is told which methods there are, not that it lacks a token.
    @csrf_exempt
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in {"GET", "HEAD"}:
            response = plain_error(405).response()
            response["Allow"] = "GET, HEAD"
            return response
        try:
            return view(request, *args, **kwargs)
        except (ApiError, Http404, MirrorError, OSError, ValidationError) as error:
            return as_api_error(error).response()

    return answer

"""The API for people's scripts and CI: who may do what, and how requests are read.

The apps bring their routers. ``GET`` of a file is open to everybody and not here: see ``iotsupport.public_urls``.
"""

from __future__ import annotations

import re
from datetime import UTC
from http.client import responses
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.urls import get_script_prefix
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError
from ninja.errors import ValidationError as UnreadableParameters
from ninja.openapi.docs import ABS_TPL_PATH, Swagger
from ninja.openapi.schema import OpenAPISchema
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from iotsupport import __version__
from iotsupport.accounts.words import NarrowedUser, word_of
from iotsupport.editing import origins
from iotsupport.errors import ApiError, as_api_error
from iotsupport.models import ApiToken, ExpiredToken
from iotsupport.serving.downloads import Downloads, registered

JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json", re.ASCII | re.IGNORECASE)


class TokenAuth(HttpBearer):
    """``Authorization: Bearer TOKEN``, as made by ``create_api_token`` or in the admin."""

    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        found = ApiToken.authenticate(token)
        if found is None:
            return None
        # Whatever follows sees the token's user: permissions, and who changed what.
        request.user, description = found
        origin = origins.current()
        origin.way, origin.token = origins.Way.API, description
        return request.user


class SessionAuth(APIKeyCookie):
    """A session of the admin; whatever changes something needs its CSRF token too."""

    param_name = settings.SESSION_COOKIE_NAME

    def authenticate(self, request: HttpRequest, key: str | None) -> User | AnonymousUser | None:
        if not request.user.is_authenticated:
            return None
        if check_csrf(request):
            raise ApiError(403, "CSRF_FAILED", "Send the session's CSRF token in the X-CSRFToken header.")
        origins.current().way = origins.Way.API
        return request.user


class ErrorSchema(Schema):
    error: str
    code: str
    details: dict[str, Any]


# For the documentation of every operation: the statuses with which it may refuse, all in the shape of ErrorSchema. Said
# here, ninja would make a class for each status of each operation, in a quarter of the time that the API takes to load.
REFUSALS: dict[int, Any] = dict.fromkeys([400, 401, 403, 404, 405, 409, 412, 413, 415, 503])
REFUSAL = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorSchema"}}}

# What a download may answer beside 200: without a JSON body, and with one.
DOWNLOAD_ANSWERS = [206, 304, 401, 412, 416]
DOWNLOAD_REFUSALS = [400, 404, 503]


class Documentation(Swagger):
    """ninja's page of the documentation, with its scripts and styles from here."""

    # Where ninja is not in INSTALLED_APPS, it takes the file that loads them from a foreign host.
    template_cdn = str(ABS_TPL_PATH / "swagger.html")


class Api(NinjaAPI):
    """ninja's, which also documents refusals, and what devices download; :mod:`iotsupport.public_urls` answers that."""

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        schema = super().get_openapi_schema(**options)
        schema["components"]["schemas"]["ErrorSchema"] = ErrorSchema.json_schema()
        for operation in (operation for path in schema["paths"].values() for operation in path.values()):
            for status in REFUSALS.keys() & operation["responses"].keys():
                operation["responses"][status]["content"] = REFUSAL
        for downloads in registered:
            path = get_script_prefix().removesuffix("/") + downloads.documented_path
            schema["paths"][path] = {"get": _describe(downloads), **schema["paths"].get(path, {})}
        return schema


def _describe(downloads: Downloads) -> dict[str, Any]:
    """Return the operation of OpenAPI that downloads one kind of file."""
    name = {
        "in": "path",
        "name": downloads.name,
        "description": downloads.name_schema.get("description", ""),
        "required": True,
        "schema": downloads.name_schema,
    }
    file = {"content": {downloads.content_type: {"schema": downloads.file_schema}}}
    contents: dict[int, dict[str, Any]] = {
        200: file,
        **dict.fromkeys(DOWNLOAD_ANSWERS, {}),
        **dict.fromkeys(DOWNLOAD_REFUSALS, {"content": REFUSAL}),
    }
    answers = {status: {"description": responses[status], **content} for status, content in contents.items()}
    return {**downloads.operation, "parameters": [name], "responses": answers}


api = Api(
    title="IoT Support",
    version=__version__,
    description="Configurations and assets of devices. Every address also answers under /api.",
    docs=Documentation(),
    docs_url="/api/docs",
    openapi_url="/api/openapi.json",
    auth=[TokenAuth(), SessionAuth(csrf=False)],
    urls_namespace="api",
)


@api.exception_handler(AuthenticationError)
def refuse_stranger(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    message = "Sign in, or send a valid token: Authorization: Bearer TOKEN. 'manage.py create_api_token' makes one."
    return _unauthenticated("NOT_AUTHENTICATED", message)


@api.exception_handler(ExpiredToken)
def refuse_expired(request: HttpRequest, error: ExpiredToken) -> HttpResponse:
    expired_at = error.expired_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = f"This token expired at {expired_at}. Make a new one: 'manage.py create_api_token', or in the admin."
    return _unauthenticated("TOKEN_EXPIRED", message, expired_at=expired_at)


def _unauthenticated(code: str, message: str, **details: Any) -> HttpResponse:
    response = ApiError(401, code, message, **details).response()
    response["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(UnreadableParameters)
def refuse_parameters(request: HttpRequest, error: UnreadableParameters) -> HttpResponse:
    """Of an operation's path and query: 422 by ninja, which is none of our refusals."""
    names = ", ".join(dict.fromkeys(str(each["loc"][-1]) for each in error.errors))
    message = f"Not to be read: {names}. /api/docs tells what can stand there."
    return ApiError(400, "INVALID_PARAMETER", message, parameters=names.split(", ")).response()


@api.exception_handler(Exception)
def refuse(request: HttpRequest, error: Exception) -> HttpResponse:
    return as_api_error(error).response()


def require(request: HttpRequest, permission: str) -> User:
    """Return the user, who has this permission, such as ``devices.change_deviceconfig``. Raises 403 for any other."""
    user = request.user
    if not user.has_perm(permission):
        if isinstance(user, NarrowedUser) and User.has_perm(user, permission):
            raise _lacking_word(permission)
        message = f"The user {user} lacks the permission {permission}. Ask an administrator for it."
        raise ApiError(403, "FORBIDDEN", message, permission=permission)
    return cast(User, user)  # nobody else has any


def _lacking_word(permission: str) -> ApiError:
    """The refusal of a token for what its user may do, but not with it."""
    word = word_of(permission)
    if word is None:
        message = f"A token with words may do nothing that needs the permission {permission}. Make one without --may."
        return ApiError(403, "FORBIDDEN", message, permission=permission)
    command = f"manage.py create_api_token USERNAME --may {word}"
    message = f"This token may not {word.label}. Make one that may: '{command} …', or in the admin."
    return ApiError(403, "FORBIDDEN", message, permission=permission, missing=word)


def no_content() -> HttpResponse:
    """204, which has neither a body nor a type."""
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def require_length(request: HttpRequest) -> None:
    """Raise 400 for a body in chunks, which Django would take for an empty one."""
    if "Transfer-Encoding" in request.headers:
        raise ApiError(400, "LENGTH_REQUIRED", "Send the body with its Content-Length, not in chunks.")


def require_no_coding(request: HttpRequest) -> None:
    """Raise 415 for a body that is compressed."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in {"", "identity"}:
        message = f"A body in the coding {coding[:40]!a} is not taken. Send it unpacked, without Content-Encoding."
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)


def read_json(request: HttpRequest, most_bytes: int) -> bytes:
    """Return the body of a JSON request. Raises 400 for half a body, 413 and 415."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if media_type and not JSON_TYPE.fullmatch(media_type):
        message = "The body must be JSON: send it with the header 'Content-Type: application/json'."
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)
    require_no_coding(request)
    require_length(request)
    announced = int(request.META.get("CONTENT_LENGTH") or 0)
    if announced > most_bytes:
        raise ApiError(413, "TOO_LARGE", f"The body has {announced} bytes; at most {most_bytes} are taken.")
    body = request.body
    if len(body) != announced:
        # Neither gunicorn nor Django minds, and what has arrived may be JSON by chance.
        raise ApiError(400, "INCOMPLETE", f"Only {len(body)} of {announced} bytes arrived. Send it again.")
    return body


def body_of(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that is read past ninja's own parsing."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}

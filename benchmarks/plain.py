"""What one would write first: a Django view that answers with ``FileResponse``, and nothing else.

``BENCHMARK_DIR`` names the files; ``BENCHMARK_MIDDLEWARE`` which middleware there is: ``bare``, ``startproject``
(what ``django-admin startproject`` writes) or ``ours`` (this project's).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest
from django.urls import path

DIRECTORY = Path(os.environ["BENCHMARK_DIR"])

STARTPROJECT = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]


def download(request: HttpRequest, name: str) -> FileResponse:
    return FileResponse((DIRECTORY / name).open("rb"), content_type="application/json")


urlpatterns = [path("plain/<path:name>", download)]


def _configure() -> None:
    match os.environ.get("BENCHMARK_MIDDLEWARE", "startproject"):
        case "ours":
            from iotsupport import settings as ours

            values = {name: getattr(ours, name) for name in dir(ours) if name.isupper()}
            settings.configure(**values | {"ROOT_URLCONF": __name__})
        case "bare":
            settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
        case _:
            apps = [f"django.contrib.{name}" for name in ["auth", "contenttypes", "sessions", "messages"]]
            settings.configure(
                SECRET_KEY=secrets.token_hex(),
                ALLOWED_HOSTS=["*"],
                ROOT_URLCONF=__name__,
                MIDDLEWARE=STARTPROJECT,
                INSTALLED_APPS=apps,
            )


_configure()
application = get_wsgi_application()

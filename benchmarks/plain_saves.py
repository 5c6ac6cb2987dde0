"""What one would write first, and the least that a save by HTTP can take: a row and a file, both on the disk.

A Django project without middleware, users, history and announcements. ``BENCHMARK_DIR`` has its database and its files.
"""

from __future__ import annotations

import os
from pathlib import Path

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

DIRECTORY = Path(os.environ["BENCHMARK_DIR"])

DATABASE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": DIRECTORY / "plain.sqlite3",
    # As ours: what was answered is on the disk.
    "OPTIONS": {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    },
}

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], DATABASES={"default": DATABASE})
django.setup()


class Row(models.Model):
    name = models.TextField(primary_key=True)
    content = models.TextField()

    class Meta:
        app_label = "plain"
        db_table = "plain"

    def __str__(self) -> str:
        return self.name


def save(request: HttpRequest, name: str) -> HttpResponse:
    beside = DIRECTORY / f".{name}.{os.urandom(8).hex()}"
    with transaction.atomic():
        Row(name=name, content=request.body.decode()).save()
        with beside.open("wb") as file:
            file.write(request.body)
            file.flush()
            os.fsync(file.fileno())
    beside.replace(DIRECTORY / name)
    return HttpResponse(request.body, content_type="application/json")


urlpatterns = [path("configs/<str:name>", save)]
application = get_wsgi_application()

"""A server of nothing but one directory, for the tests that need real sockets."""

from __future__ import annotations

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path

urlpatterns: list[URLPattern] = []


def serve(directory: str) -> WSGIHandler:
    settings.configure(
        ALLOWED_HOSTS=["*"], MIDDLEWARE=["django.middleware.common.CommonMiddleware"], ROOT_URLCONF=__name__
    )
    application = get_wsgi_application()

    # Models are imported with it, which is possible from now on.
    from iotsupport.mirror.files import MirrorStorage
    from iotsupport.serving.responses import mirror_response

    storage = MirrorStorage(directory)

    def download(request: HttpRequest, name: str) -> HttpResponseBase:
        return mirror_response(request, storage, name, content_type="application/octet-stream", with_digests=True)

    urlpatterns.append(path("<name>", download))
    return application

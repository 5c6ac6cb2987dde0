"""The WSGI application that gunicorn serves."""

import gc
import os
from collections.abc import Iterable, Mapping
from functools import partial

from django.contrib import admin
from django.core.wsgi import get_wsgi_application

# What is loaded now stays to the end: looking for garbage in it takes a fifteenth of a worker's start, and would later
# make clients wait, each time for as long as looking through everything takes.
gc.disable()

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iotsupport.settings")

_django = get_wsgi_application()

# Threads that answer no request look at it, too.
admin.autodiscover()

# Imported last: they need the settings.
from iotsupport import limits  # noqa: E402
from iotsupport.editing import unsaved  # noqa: E402
from iotsupport.monitoring import workers  # noqa: E402
from iotsupport.serving import kept_answers, strangers  # noqa: E402
from iotsupport.serving.ahead_of_django import FastDownloadsMiddleware  # noqa: E402
from iotsupport.signals import serving  # noqa: E402


class Application(FastDownloadsMiddleware):
    """What is served, and what our worker asks besides: quick answers, who waits, how large a body may be, pages."""

    admit_body = staticmethod(limits.admit_body)
    has_to_wait = staticmethod(strangers.has_to_wait)
    refusal_page = staticmethod(unsaved.refusal_page)

    @staticmethod
    def answer_quickly(environ: Mapping[str, str]) -> tuple[str, Iterable[tuple[str, str]], bytes] | None:
        return FastDownloadsMiddleware.answer_quickly(environ) or kept_answers.find(environ)


application = Application(partial(kept_answers.answer, workers.counted(_django)))
serving.send(sender=None)

gc.freeze()
gc.enable()

"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iotsupport.settings")

_django = get_wsgi_application()

# Imported last: they need the settings.
from iotsupport.fast_downloads import FastDownloadsMiddleware  # noqa: E402
from iotsupport.signals import serving  # noqa: E402

application = FastDownloadsMiddleware(_django)
serving.send(sender=None)

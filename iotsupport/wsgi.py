"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "iotsupport.settings")

application = get_wsgi_application()

from iotsupport.signals import serving  # noqa: E402 - once Django is set up

serving.send(sender=None)

"""Keep the tests away from the checkout's own data and from any broker: set before Django reads its settings.

Settings that are named in ``pyproject.toml`` would be read before this file.
"""

import os
import tempfile

import django
from django.conf import settings

os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="iotsupport-tests-")
# Empty, so that .env does not set them either.
os.environ |= dict.fromkeys(["ASSETS_DIR", "ESP32_CONFIGS_DIR", "MQTT_URL"], "")
os.environ["DJANGO_SETTINGS_MODULE"] = "iotsupport.settings"

django.setup()

# Each test client would look through some 800 static files; what needs them runs a server.
settings.WHITENOISE_USE_FINDERS = False

# Threads of one process share a database file as processes do; an in-memory database locks whole tables for them.
if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    settings.DATABASES["default"]["TEST"]["NAME"] = f"{os.environ['DATA_DIR']}/test.sqlite3"

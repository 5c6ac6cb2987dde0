"""Keep the tests away from the checkout's own data and from any broker: set before Django reads its settings.

Settings that are named in ``pyproject.toml`` would be read before this file.
"""

import os
import tempfile

import django

os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="iotsupport-tests-")
os.environ["MQTT_URL"] = ""
os.environ["DJANGO_SETTINGS_MODULE"] = "iotsupport.settings"

django.setup()

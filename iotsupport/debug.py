"""What Django's debug page (``DEBUG=true``) leaves out: secrets, wherever they stand."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

# A user and perhaps a password in a URL. A password that is not escaped may hold "/" and "@".
CREDENTIALS = re.compile(r"(?<=://)[^\s'\"]*@")
SECRET_VARIABLE = re.compile("PASS|SECRET|TOKEN|DIGEST|NONCE|VERIFIER", re.IGNORECASE)


class ReporterFilter(SafeExceptionReporterFilter):
    """Hides URLs with a password, too: Django's filter knows settings that hold a secret by their names alone."""

    def is_active(self, request: HttpRequest | None) -> bool:
        return True  # Django's shows all local variables and forms where DEBUG is true

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        return _without_credentials(super().cleanse_setting(key, value), self.cleansed_substitute)

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: Any) -> Any:
        return [
            (name, self.cleansed_substitute if SECRET_VARIABLE.search(name) else self.cleanse_setting("", value))
            for name, value in super().get_traceback_frame_variables(request, tb_frame)
        ]


def _without_credentials(value: Any, substitute: str) -> Any:
    # Lazy ones say that they are text, too.
    return CREDENTIALS.sub(f"{substitute}@", str(value)) if isinstance(value, str) else value

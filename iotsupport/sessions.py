"""Sessions of the admin, kept in the database."""

from __future__ import annotations

import re

from django.contrib.sessions.backends import db

# As Django makes them.
SESSION_KEY = re.compile("[a-z0-9]{32}")


class SessionStore(db.SessionStore):
    def _validate_session_key(self, key: str | None) -> bool:
        # Django asks the database for any other text, too, which may hold what PostgreSQL cannot compare.
        return bool(key and SESSION_KEY.fullmatch(key))

"""When API tokens were last used: written down by a thread beside the requests, none of which waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from iotsupport.database.sqlite import patience
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.signals import serving

logger = logging.getLogger(__name__)

# How long a note waits for whoever writes to the database; then it is dropped, for the next use brings another.
PATIENCE_SECONDS = 0.2

Write = Callable[[dict[int, datetime]], None]
"""Called with the primary keys of tokens, and when each was used."""


class LastUses:
    """Notes uses of tokens in requests, and has a thread of its own write them. A command writes at once."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._uses: dict[int, datetime] = {}  # no more than there are tokens
        self._noted = threading.Condition()
        self._is_serving = False
        self._thread: threading.Thread | None = None
        serving.connect(self._serve)

    def note(self, pk: int, used_at: datetime) -> None:
        if not self._is_serving:
            self._write({pk: used_at})
            return
        with self._noted:
            self._uses[pk] = used_at
            # Made where it is needed: it would not survive a fork.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="last uses", daemon=True)
                self._thread.start()
            self._noted.notify()

    def _serve(self, **kwargs: Any) -> None:
        self._is_serving = True

    def _run(self) -> None:
        while True:
            with self._noted:
                self._noted.wait_for(lambda: self._uses)
                uses, self._uses = self._uses, {}
            try:
                with patience(connection, PATIENCE_SECONDS), transaction.atomic():
                    self._write(uses)
            except DATABASE_ERRORS as error:
                logger.debug("Could not note when %d tokens were used: %s", len(uses), error)
            except Exception:
                logger.exception("Could not note when %d tokens were used", len(uses))
            finally:
                connection.close()

"""Several servers on one PostgreSQL, each with a mirror of its own: what one saves, the others follow.

A save tells its file's name in its own transaction (``NOTIFY``), so the others hear of it exactly when it is committed.
On each node one process listens, and makes the file equal to its row. After a time without hearing, it compares
everything.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from typing import Any, NamedTuple

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection

from iotsupport.errors import DATABASE_ERRORS
from iotsupport.mirror import CHANNEL, MirroredModel, MirrorError, mirrored_models, node_of, reconcile, settle
from iotsupport.signals import following

logger = logging.getLogger(__name__)

# How often what could not be followed is tried again, and a lost database.
RETRY_SECONDS = 1.0


class Change(NamedTuple):
    model: type[MirroredModel]
    filename: str


class Follower:
    """Listens in a thread of its own, with a connection of its own, while its process lives."""

    def __init__(self) -> None:
        self._retries: set[Change] = set()
        self._is_in_trouble = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="follower", daemon=True).start()

    def _run(self) -> None:
        try:
            with (settings.DATA_DIR / "follower.lock").open("ab") as lock:
                # Held until the process ends; then another process of this node gets it.
                fcntl.flock(lock, fcntl.LOCK_EX)
                while True:
                    self._follow_until_lost()
        except OSError as error:
            logger.error("What other servers save is not followed here: %s. Repair that, then restart.", error)

    def _follow_until_lost(self) -> None:
        try:
            with _connect() as listening:
                listening.execute(f"LISTEN {CHANNEL}")
                self._catch_up()
                self._is_in_trouble = False
                while True:
                    self._hear(listening)
        except (psycopg.Error, *DATABASE_ERRORS) as error:
            if not self._is_in_trouble:
                logger.warning("Other servers cannot be followed until the database answers: %s", error)
            self._is_in_trouble = True
        except Exception:
            logger.exception("Following other servers was interrupted; it goes on")
        connection.close()  # a broken one would be broken for ever
        threading.Event().wait(RETRY_SECONDS)

    def _hear(self, listening: psycopg.Connection[Any]) -> None:
        for notification in listening.notifies(timeout=RETRY_SECONDS):
            if change := read_change(notification.payload):
                self._follow(change)
        for change in list(self._retries):
            self._follow(change)
        # Without a question, a connection that nobody serves any more would look like a quiet one.
        listening.execute("SELECT 1")

    def _catch_up(self) -> None:
        """Compare everything: what was changed while nobody listened is not told again."""
        for model in mirrored_models():
            found = reconcile(model, DEFAULT_DB_ALIAS, write=follow)
            for sentence in found.failed:
                logger.error("Could not follow the other servers: %s", sentence)

    def _follow(self, change: Change) -> None:
        self._retries.discard(change)
        try:
            follow(*change, DEFAULT_DB_ALIAS)
        except (MirrorError, OSError):  # logged where it happened
            self._retries.add(change)


def follow(model: type[MirroredModel], filename: str, using: str) -> None:
    """Make a file equal to its row here, too, and have it announced once more.

    A device that heard the other node's message may have got the old bytes from this one. That it is announced again
    is noted before the file changes, so that a crash in between does not lose it. Raises :class:`MirrorError`.
    """
    row = model.with_filename(filename, using)
    if row is not None and row.is_mirrored():
        return
    then: list[Any] = [] if row is None else [call for _, call in following.send(model, filename=filename)]
    settle(model, filename, using)
    for call in then:
        call()


def read_change(payload: str) -> Change | None:
    """What another node saved or deleted; None for what this one did, whose own process sees to it."""
    node, _, rest = payload.partition(" ")
    alias, _, filename = rest.partition(" ")
    for model in mirrored_models():
        if model.storage_alias == alias and node != node_of(model.storage()):
            return Change(model, filename)
    return None


def _connect() -> psycopg.Connection[Any]:
    """A connection apart from those that serve requests: it waits."""
    params = connection.get_connection_params()
    params.pop("pool", None)
    return psycopg.connect(**params, autocommit=True)

"""The thread that plans and applies changes of many: of all processes of all nodes, one works at a change."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress

from django.db import connection

from devices.changes.applying import Applying
from devices.changes.models import Change, Lost, State
from devices.changes.planning import plan_step
from devices.changes.waking import woken
from iotsupport.errors import DATABASE_ERRORS, is_outage
from iotsupport.mirror.files import MirrorError
from iotsupport.threads import Background

logger = logging.getLogger(__name__)

# How often a process looks for what is to be done, and how long it waits where the disk or the database does not work.
LOOK_SECONDS = 2.0
TROUBLE_SECONDS = 5.0


class Worker(Background):
    """Works at changes, one after the other, while its process lives."""

    def __init__(self) -> None:
        super().__init__("changes")
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"

    def work(self) -> bool:
        """Take a change, and do what is to be done; return whether there was one."""
        change = Change.objects.claim(self._name)
        if change is None:
            return False
        try:
            self._go_on(change)
        except Lost:
            logger.info("Change %s was stopped, or is taken over", change.pk)
        except MirrorError as error:
            change.note(f"It waits, and goes on by itself: {error}")
            raise
        except Exception as error:
            if is_outage(error):
                raise
            with suppress(Lost):
                change.leave(State.STOPPED, "Something went wrong here; the server's log says what.")
            raise
        return True

    def _go_on(self, change: Change) -> None:
        """Plan it, or apply it, to the end."""
        state, applying = change.state, Applying(change)
        while change.state == state and not self._is_stopping.is_set():
            if state == State.PLANNING:
                plan_step(change)
            else:
                applying.step()
        logger.info("Change %s %s", change.pk, change.get_state_display())

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            seconds = LOOK_SECONDS
            woken.clear()
            try:
                while self.work():
                    pass
            except (MirrorError, *DATABASE_ERRORS) as error:
                logger.warning("Could not go on with a change of many; it is tried again: %s", error)
                seconds = TROUBLE_SECONDS
            except Exception:
                logger.exception("A change of many was stopped")
            finally:
                connection.close()
            woken.wait(seconds)

    def stop(self) -> None:
        self._is_stopping.set()
        woken.set()
        super().stop()

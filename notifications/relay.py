"""The thread between the outbox and the messenger: hands out what is owed, and notes what became of it."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import defaultdict

from django.db import connection, transaction

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.database import is_shared
from iotsupport.errors import DATABASE_ERRORS, is_outage
from iotsupport.mirror.after_commit import make_equal
from iotsupport.mirror.files import MirrorError
from iotsupport.mirror.rows import MirroredModel
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, Message
from notifications.messenger import Messenger
from notifications.models import Announcement
from notifications.outcomes import Outcome, Verdict

logger = logging.getLogger(__name__)

MODELS: dict[str, type[MirroredModel]] = {CONFIGS_TOPIC: DeviceConfig, ASSETS_TOPIC: Asset}

# How often a process looks for what others left.
REGULAR_SECONDS = 2.0
# Outcomes that come within this time are noted in one transaction; where one follows another, fewer transactions do.
BATCH_SECONDS = 0.05
BUSY_BATCH_SECONDS = 0.25

# A lost connection says little about each message that was in flight: only what is lost again and again has to pause.
FREE_TRIES = 3


class Relay:
    """The only thread of a process that notes what became of messages: requests and the messenger never wait.

    What cannot be noted, because the database is locked or away, is kept and noted later.
    """

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self._outcomes: list[Outcome] = []
        self._noted_at = 0.0
        self._is_started = False
        self._asked = self._found_drained = 0
        self._is_in_trouble = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

        self.name = secrets.token_hex(8)
        """This process's name on what it claims."""
        self.at_work = threading.Lock()
        """Held while its thread uses the database."""

    def start(self) -> None:
        """From now on, announce what is due, whoever saved it. A process that saves nothing never asks the database.

        May be called again: it is started once.
        """
        with self._messenger.changed:
            if not self._is_started:
                self._is_started = True
                self._thread.start()
            self._asked += 1

    @property
    def is_drained(self) -> bool:
        """Whether, since it was last started or woken, it found nothing due and nothing without an outcome."""
        return self._found_drained == self._asked

    def wake(self) -> None:
        """Look for what is due now, not within the regular interval."""
        self.start()
        self._messenger.outcomes.wake()

    def close(self, timeout_seconds: float) -> None:
        """End, and note what is known by now, waiting at most so long: the thread may be waiting for the database."""
        self._closing.set()
        self._messenger.outcomes.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._wait()
                with self.at_work:
                    self._work()
            with self.at_work:
                self._work()
                self._leave()
        finally:
            connection.close()

    def _wait(self) -> None:
        """Wait for an outcome, or until the regular interval is over; then a moment for what comes along with it."""
        outcomes = self._messenger.outcomes
        if outcomes.wait(REGULAR_SECONDS) and not self._closing.wait(BATCH_SECONDS):
            # Where one batch follows another, more may come together: unless somebody waits for what is owed.
            outcomes.wait_until_woken(self._noted_at + BUSY_BATCH_SECONDS - time.monotonic())

    def _work(self) -> None:
        try:
            if self._is_in_trouble or not is_shared(connection):
                # A broken one would be broken for ever; and that to a file would not notice that it is replaced.
                connection.close()
            self._outcomes += self._messenger.outcomes.take()
            self._write_down()
            self._hand_out()
            self._noted_at = time.monotonic()
            self._is_in_trouble = False
        except Exception as error:
            # Whatever it was: without this thread, nothing would be marked as announced until the next start.
            if is_outage(error):
                self._say_trouble(error)
            else:
                logger.exception("Could not look for what is owed")
        with self._messenger.changed:
            self._messenger.changed.notify_all()

    def _leave(self) -> None:
        """Leave to others at once what they would get when the lease ends."""
        try:
            Announcement.objects.release_all(self.name)
            left = Announcement.objects.owed().count()
        except DATABASE_ERRORS as error:
            self._say_trouble(error)
            return
        if left:
            files = "1 file is" if left == 1 else f"{left} files are"
            logger.warning("%s still to be announced: a server does it when it and the broker run", files)

    def _say_trouble(self, error: Exception) -> None:
        if not self._is_in_trouble:
            logger.warning("The database does not answer; what was announced is noted later: %s", error)
        self._is_in_trouble = True

    def _write_down(self) -> None:
        """Bring the outcomes to the database."""
        if not self._outcomes:
            return
        try:
            self._write_together(self._outcomes)
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception("Could not note what was announced together; trying one by one")
            self._write_singly(self._outcomes)
        self._outcomes.clear()

    def _write_singly(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            try:
                self._write_together([outcome])
            except Exception as error:  # it is announced again when its lease ends
                if is_outage(error):
                    raise
                logger.exception("Could not note that %s was %s", outcome.message.filename, outcome.verdict.value)

    def _write_together(self, outcomes: list[Outcome]) -> None:
        """All or none of them."""
        by_verdict = defaultdict(list)
        for outcome in outcomes:
            by_verdict[outcome.verdict].append(outcome)
        with transaction.atomic():
            Announcement.objects.renew(self.name, _messages(by_verdict[Verdict.HELD]))
            Announcement.objects.mark_announced(_messages(by_verdict[Verdict.ACKNOWLEDGED]))
            Announcement.objects.release(self.name, _messages(by_verdict[Verdict.RETURNED]))
            for message, _, reason in by_verdict[Verdict.LOST]:
                Announcement.objects.note_failure(message, reason, free_tries=FREE_TRIES)
            for message, _, reason in by_verdict[Verdict.REFUSED]:
                Announcement.objects.note_failure(message, reason)
            for topic, reason in self._messenger.suspensions.items():
                Announcement.objects.note_suspension(topic, reason)

    def _hand_out(self) -> None:
        """Hand over what is due, as far as there is room, and see whether anything is left."""
        messenger, asked = self._messenger, self._asked
        if self._closing.is_set() or not messenger.is_connected:
            return
        claimed = Announcement.objects.claim(self.name, messenger.open_topics, messenger.room) if messenger.room else []
        for message in claimed:
            if self._can_be_downloaded(message):
                messenger.send(message)
        # While there is room, an empty hand means that nothing is due.
        if messenger.room and not claimed and messenger.is_idle:
            self._found_drained = asked

    def _can_be_downloaded(self, message: Message) -> bool:
        """Whether the file has its row's bytes; made so where a crash or a full disk came between.

        Without this, the message of a save whose file could not follow would go out all the same.
        """
        model, filename = MODELS[message.topic], message.filename
        try:
            row = model.with_filename(filename, connection.alias)
            if row is None:
                Announcement.objects.cancel_version(message)
                return False
            if not row.is_mirrored():
                make_equal(model, filename, connection.alias)
        except Exception as error:  # whatever it is: the others must go out
            if is_outage(error):
                raise
            if not isinstance(error, (MirrorError, OSError)):
                logger.exception("Could not look at the file of %s", filename)
            Announcement.objects.note_failure(message, str(error) or repr(error))
            return False
        return True


def _messages(outcomes: list[Outcome]) -> list[Message]:
    return [outcome.message for outcome in outcomes]

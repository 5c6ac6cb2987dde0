"""What is found of a server: in words, with what to do; and the parts of the page, each looked at by itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from iotsupport.errors import DATABASE_ERRORS, explain_database
from iotsupport.monitoring.glance import Glance

logger = logging.getLogger(__name__)

# What others made, such as a broker's reason, may be of any length.
MOST_CHARS = 600


class Level(Enum):
    """How something is, as the page says it."""

    FINE = "fine"
    LOOK = "look at this"
    WRONG = "wrong"
    FACT = ""
    """Neither: a version, say."""

    @property
    def tone(self) -> str:
        """The class of its colour in the style sheet."""
        return {"FINE": "good", "LOOK": "behind", "WRONG": "bad", "FACT": "quiet"}[self.name]


class Finding(NamedTuple):
    """One thing, how it is, and what to do. All of it is text."""

    name: str
    level: Level
    says: str
    """A sentence, or a few words."""
    advice: str = ""
    """A sentence that says what to do; empty where nothing is to be done."""


class Part:
    """A part of the page, looked at in a thread of its own, once a second for all who ask.

    What it looks at may hang, or be broken: that is a finding, too.
    """

    def __init__(self, key: str, title: str, look: Callable[[], Iterable[Finding]]) -> None:
        self.title, self._look = title, look
        self.anchor = f"state-{key}"
        self._glance = Glance(self.anchor, self._seen)

    def begin(self) -> None:
        """Look, if that is due; see :meth:`findings`."""
        try:
            self._glance.begin()
        except TimeoutError as error:  # which findings() says
            logger.debug("%s", error)

    def findings(self) -> list[Finding]:
        """What is found, within :data:`iotsupport.monitoring.glance.PATIENCE_SECONDS` of :meth:`begin`."""
        try:
            return [Finding(name, Level(level), *rest) for name, level, *rest in json.loads(self._glance.get())]
        except TimeoutError:
            says = "There is no answer in time: a disk, the database or the network hangs."
            return [Finding(self.title, Level.WRONG, says, "See which of them does not answer, and the server's log.")]

    def _seen(self) -> bytes:
        return json.dumps([(each.name, each.level.value, *map(_cut, each[2:])) for each in self._find()]).encode()

    def _find(self) -> list[Finding]:
        found: list[Finding] = []
        try:
            for each in self._look():
                found.append(each)
        except DATABASE_ERRORS as error:
            says = explain_database(error) or f"The database did not answer: {error}"
            advice = "See that it runs, that DATABASE_URL names it, and that 'manage.py migrate' was run."
            found.append(Finding(self.title, Level.WRONG, says, advice))
        except Exception as error:
            # Whatever is broken, the rest of the page is what helps.
            logger.exception("The state of this server could not be looked at: %s", self.title)
            says = f"It could not be looked at: {type(error).__name__}: {error}"
            found.append(Finding(self.title, Level.WRONG, says, "The server's log says more."))
        return found


# In the order of the page. Apps add theirs when they are ready.
parts: list[Part] = []


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARS else f"{text[: MOST_CHARS - 1]}…"

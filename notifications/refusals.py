"""Which topics the broker refuses, and until when nothing is sent on them. It has no clock: who calls says the time."""

from __future__ import annotations

from typing import NamedTuple

from notifications.pace import pause

# When so many different files were refused on a topic, and none accepted, the topic is refused, not they.
REFUSALS_OF_TOPIC = 3
LONGEST_SUSPENSION = 60.0


class _Refused(NamedTuple):
    """What was refused on a topic since the last success on it."""

    reason: str
    files: frozenset[str] = frozenset()
    suspensions: int = 0
    until: float = 0.0


class Refusals:
    """A file that is refused holds up no other; a topic that is refused is left alone, longer each time.

    Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._refused: dict[str, _Refused] = {}

        self.suspended: dict[str, str] = {}
        """Topics on which nothing is sent now, and why. Replaced, never changed: other threads read it."""

    def is_news(self, topic: str, reason: str) -> bool:
        """Whether a refusal for this reason tells more than the last one on the topic."""
        before = self._refused.get(topic)
        return topic not in self.suspended and (before is None or before.reason != reason)

    def refused(self, topic: str, filename: str, reason: str, now: float) -> bool:
        """The broker refused a file. Return whether nothing is sent on its topic from now on."""
        if topic in self.suspended:  # sent before it was
            return False
        before = self._refused.get(topic, _Refused(reason))
        # A file that is refused alone, again and again, does not hold up the others of its topic.
        files = before.files | {filename}
        if not before.suspensions and len(files) < REFUSALS_OF_TOPIC:
            self._refused[topic] = _Refused(reason, files)
            return False
        count = before.suspensions + 1
        until = now + min(LONGEST_SUSPENSION, pause(count).total_seconds())
        self._refused[topic] = _Refused(reason, suspensions=count, until=until)
        self.suspended = {**self.suspended, topic: reason}
        return True

    def accepted(self, topic: str) -> bool:
        """The broker accepted a file. Return whether it had refused some on the topic before: that is forgiven."""
        was_refused = self._refused.pop(topic, None) is not None
        self._resume({topic})
        return was_refused

    def resume_due(self, now: float) -> bool:
        """Let topics be tried again whose time has come. Return whether there are any."""
        due = {topic for topic in self.suspended if now >= self._refused[topic].until}
        self._resume(due)
        return bool(due)

    def is_suspect(self, topic: str) -> bool:
        """Whether files were refused on it since the last success: then one at a time is tried."""
        return topic in self._refused

    def _resume(self, topics: set[str]) -> None:
        self.suspended = {topic: reason for topic, reason in self.suspended.items() if topic not in topics}

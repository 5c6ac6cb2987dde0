"""How fast: at most so many announcements a second, and how long to pause between two tries to connect."""

from __future__ import annotations

# What a pause saves up may go out at once: a tenth of a second's worth.
BURST_SECONDS = 0.1


class Pace:
    """``rate`` a second over time, evenly, after a short burst. Times are monotonic seconds.

    The generic cell rate algorithm: a leaky bucket that needs one number.
    """

    def __init__(self, rate: int) -> None:
        self._interval = 1 / rate
        self._burst = max(0.0, BURST_SECONDS - self._interval)
        self._next = 0.0  # when the next one is due if none may be early

    def wait(self, now: float) -> float:
        """Seconds until the next one may go."""
        return max(0.0, self._next - self._burst - now)

    def spend(self, now: float) -> None:
        """One goes now."""
        self._next = max(self._next, now) + self._interval


class ReconnectPauses:
    """Between two tries to connect: short after a connection, then twice as long each time, up to the longest."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest

        self.seconds = shortest
        """How long the next one is."""

    def connected(self) -> None:
        """There was a connection: begin again."""
        self.seconds = self._shortest

    def paused(self) -> None:
        """One is over, and another try is made."""
        self.seconds = min(2 * self.seconds, self._longest)

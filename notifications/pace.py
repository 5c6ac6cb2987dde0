"""How fast messages are sent, and how long to pause before something that failed is tried again."""

from __future__ import annotations

from datetime import timedelta

# What a pause saves up may go out at once: a tenth of a second's worth.
BURST_SECONDS = 0.1

# Between two tries of what the broker refused: doubled each time.
SHORTEST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=5)


def pause(tries: int) -> timedelta:
    """How long to wait after so many failures in a row, at least one."""
    times: int = 2 ** min(tries - 1, 16)
    return min(LONGEST_PAUSE, SHORTEST_PAUSE * times)


class Pace:
    """Lets ``rate`` messages a second go, evenly, after a short burst. Times are monotonic seconds.

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

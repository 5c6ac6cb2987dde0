"""Takes what downloads tell of boards, and has a thread write it: no download waits, and no memory grows."""

from __future__ import annotations

from iotsupport.boards.checkins import CheckIn


class CheckInCollector:
    """Collects check-ins while this process serves; in any other, they are let go."""

    def note(self, check_in: CheckIn) -> None:
        """Take a check-in: some microseconds, from any thread. Never waits, never raises."""


collector = CheckInCollector()

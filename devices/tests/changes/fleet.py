"""Some configurations that are changed together, and a server that is told when to work."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from devices.changes.models import Change, Kind, State
from devices.changes.planning import begin
from devices.changes.worker import Worker
from devices.models import DeviceConfig


def mac(number: int) -> str:
    return f"02-00-00-00-00-{number:02x}"


class Fleet:
    def __init__(self, user: User) -> None:
        self.user = user
        self.worker = Worker()

    def save(self, number: int, content: str, user: User | None = None) -> DeviceConfig:
        return DeviceConfig.objects.put(mac(number), content, user=user)

    def text(self, number: int) -> str:
        return DeviceConfig.objects.get(mac_address=mac(number)).content

    def plan(self, patch: str = '{"pin": 7}', numbers: Any = range(24), **fields: Any) -> Change:
        """Planned as a request does; whatever is more than a request does at once is left to the worker."""
        given = dict.fromkeys(map(mac, numbers))
        change = begin(given, **{"kind": Kind.PATCH, "patch": patch, "created_by": self.user, **fields})
        self.work()
        change.refresh_from_db()
        return change

    def apply(self, change: Change, *, leave_out: bool = False, user: User | None = None) -> Change:
        change.apply(user or self.user, token=None, leave_out=leave_out)
        self.work()
        change.refresh_from_db()
        return change

    def change(self, patch: str = '{"pin": 7}', numbers: Any = range(24), **fields: Any) -> Change:
        change = self.apply(self.plan(patch, numbers, **fields))
        assert change.state == State.APPLIED
        return change

    def work(self) -> None:
        """What the thread of a server does."""
        while self.worker.work():
            pass


def states(change: Change) -> dict[str, int]:
    return dict(change.tally())


def reasons(change: Change, state: str) -> dict[str, str]:
    return dict(change.items.filter(state=state).values_list("mac_address", "reason"))

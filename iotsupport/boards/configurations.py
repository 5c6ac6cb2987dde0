"""What a save or a deletion of a configuration means for its board: written in the same transaction.

What sends no signal, such as a bulk update, is found and mended by ``sync_mirror``, which every start runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import Protocol

from django.db import connections
from django.utils import timezone

from iotsupport.boards.models import CONFIGURED, Board, State

# Compared with one query, and mended in one transaction, which keeps others waiting.
BATCH_ROWS = 1000
TOGETHER = 100

# One statement: every save waits for it. Of a board that has a row, what it holds decides.
SAVED = """
    INSERT INTO iotsupport_board AS board (mac_address, config_sha256, state, asked, user_agent, runs_version,
        runs_md5, runs_sha256, sdk_version, runs_filename, runs_asset_sha256)
    VALUES {rows}
    ON CONFLICT (mac_address) DO UPDATE SET
        config_sha256 = excluded.config_sha256,
        state = CASE
            WHEN board.holds_sha256 IS NULL THEN 'never_fetched'
            WHEN board.holds_sha256 = excluded.config_sha256 THEN 'current'
            ELSE 'behind' END,
        behind_since = CASE
            WHEN board.holds_sha256 IS NULL OR board.holds_sha256 = excluded.config_sha256 THEN NULL
            ELSE COALESCE(board.behind_since, %s) END,
        waiting_since = NULL,
        asked = 0
    WHERE board.config_sha256 IS NULL OR board.config_sha256 <> excluded.config_sha256
"""
SAVED_ROW = "(%s, %s, 'never_fetched', 0, '', '', '', '', '', '', '')"


def note_saved(mac_address: str, sha256: str, using: str) -> None:
    """A configuration is saved, and its bytes have this SHA-256: call it in the transaction."""
    note_saved_together({mac_address: sha256}, using)


def note_saved_together(sha256s: Mapping[str, str], using: str) -> None:
    """Configurations are saved, and the bytes of each MAC address have this SHA-256: call it in the transaction."""
    connection = connections[using]
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    rows = sorted(sha256s.items())  # in the order in which check-ins lock them, too
    with connection.cursor() as cursor:
        cursor.execute(SAVED.format(rows=", ".join([SAVED_ROW] * len(rows))), [*chain.from_iterable(rows), now])


def note_deleted(mac_address: str, using: str) -> None:
    """A configuration is deleted: call it in the transaction. Of a board that was never seen, nothing is kept."""
    boards = Board.objects.using(using).filter(mac_address=mac_address)
    if not boards.filter(last_seen=None)._raw_delete(using):
        boards.update(config_sha256=None, state=State.GONE, behind_since=None, waiting_since=None, asked=0)


class Configurations(Protocol):
    """What an app that has configurations says of them."""

    def all(self, using: str) -> Iterator[tuple[str, str]]:
        """Yield MAC address and SHA-256 of each."""

    def locked(self, mac_addresses: Sequence[str], using: str) -> AbstractContextManager[dict[str, str]]:
        """The SHA-256 of those of some that there are; until the block ends, nobody can change any of them."""


_configurations: list[Configurations] = []


def register(configurations: Configurations) -> None:
    """Say who has configurations; for :meth:`AppConfig.ready`."""
    _configurations[:] = [configurations]


def compare(using: str, *, repair: bool) -> list[str]:
    """Return the MAC addresses whose row of a board contradicts the configuration; unless told not to, mend them."""
    found = []
    for configurations in _configurations:
        differing = sorted(_differing(configurations, using))
        found += differing
        for start in range(0, len(differing) if repair else 0, TOGETHER):
            _mend(configurations, differing[start : start + TOGETHER], using)
    return found


def _mend(configurations: Configurations, mac_addresses: list[str], using: str) -> None:
    with configurations.locked(mac_addresses, using) as sha256s:
        # As if it was saved just now, even where that says the same.
        Board.objects.using(using).filter(mac_address__in=list(sha256s)).update(config_sha256=None)
        for mac_address in mac_addresses:
            if mac_address in sha256s:
                note_saved(mac_address, sha256s[mac_address], using)
            else:
                note_deleted(mac_address, using)


def _differing(configurations: Configurations, using: str) -> Iterator[str]:
    boards, seen = Board.objects.using(using), set[str]()
    everything = configurations.all(using)
    while batch := dict(islice(everything, BATCH_ROWS)):
        seen.update(batch)
        rows = boards.filter(mac_address__in=list(batch))
        states = {row[0]: row[1:] for row in rows.values_list("mac_address", "config_sha256", "holds_sha256", "state")}
        for mac_address, sha256 in batch.items():
            config_sha256, holds_sha256, state = states.get(mac_address, (None, None, None))
            if config_sha256 != sha256 or state != state_of(sha256, holds_sha256):
                yield mac_address
    with_one = boards.exclude(config_sha256=None) | boards.filter(state__in=CONFIGURED)
    yield from (each for each in with_one.values_list("mac_address", flat=True).iterator() if each not in seen)


def state_of(config_sha256: str, holds_sha256: str | None) -> State:
    """Return the state of a board that has a configuration."""
    if holds_sha256 is None:
        return State.NEVER_FETCHED
    return State.CURRENT if holds_sha256 == config_sha256 else State.BEHIND

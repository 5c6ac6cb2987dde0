"""What a save or a deletion of a configuration means for its board: written in the same transaction."""

from __future__ import annotations

from django.db import connections
from django.utils import timezone

from iotsupport.boards.models import Board, State

# One statement: every save waits for it. Of a board that has a row, what it holds decides.
SAVED = """
    INSERT INTO iotsupport_board AS board (mac_address, config_sha256, state, asked, user_agent, runs_version,
        runs_md5, runs_sha256, sdk_version, runs_filename, runs_asset_sha256)
    VALUES (%s, %s, 'never_fetched', 0, '', '', '', '', '', '', '')
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


def note_saved(mac_address: str, sha256: str, using: str) -> None:
    """A configuration is saved, and its bytes have this SHA-256: call it in the transaction."""
    connection = connections[using]
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(SAVED, [mac_address, sha256, now])


def note_deleted(mac_address: str, using: str) -> None:
    """A configuration is deleted: call it in the transaction. Of a board that was never seen, nothing is kept."""
    boards = Board.objects.using(using).filter(mac_address=mac_address)
    if not boards.filter(last_seen=None)._raw_delete(using):
        boards.update(config_sha256=None, state=State.GONE, behind_since=None, waiting_since=None, asked=0)

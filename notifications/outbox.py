"""Record in the transaction of a save that its file must be announced, and hand the message over after the commit."""

from __future__ import annotations

from collections.abc import Callable, Collection

from django.db import DEFAULT_DB_ALIAS, connections

from iotsupport.bulk import is_bulk_change
from iotsupport.database import is_shared
from notifications.models import Announcement
from notifications.publisher import publisher

# Called with the names of those files that are in place.
HandOver = Callable[[Collection[str]], None]


def record(topic: str, filenames: Collection[str], using: str = DEFAULT_DB_ALIAS) -> HandOver:
    """Record that files must be announced. Returns what to call with those that can be downloaded from this node.

    Call it while the publisher is on.
    """
    is_bulk, name, outbox = is_bulk_change(), publisher.name, Announcement.objects.db_manager(using)
    will_send = not is_bulk and publisher.can_send(topic)
    # Another node must not announce it between the commit and this node's file.
    is_claimed = will_send or is_shared(connections[using])
    recorded = outbox.record_together(
        topic, filenames, is_bulk=is_bulk, claimed_by=name if is_claimed else "", reason=publisher.suspension(topic)
    )

    def hand_over(in_place: Collection[str]) -> None:
        messages = [message for message in recorded if message.filename in in_place]
        if is_claimed and not will_send and outbox.release(name, messages) < len(messages):
            # A node that follows took some over, and may have announced them before the files were in place here.
            outbox.record_together(topic, in_place, is_bulk=is_bulk, reason=publisher.suspension(topic))
        for message in messages:
            publisher.hand_over(message, is_claimed=will_send)

    return hand_over


def cancel(topic: str, filename: str, using: str) -> None:
    """A file is deleted: there is nothing to announce."""
    Announcement.objects.db_manager(using).cancel(topic, filename)

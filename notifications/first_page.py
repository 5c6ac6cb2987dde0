"""What the first page says of announcements and the broker, to those who may view announcements."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from iotsupport.errors import DATABASE_ERRORS
from iotsupport.first_page import Number
from iotsupport.times import lasting
from notifications import owed
from notifications.models import Announcement
from notifications.publisher import publisher

BROKER = {
    "connected": "the broker is connected",
    "disconnected": "the broker is not connected",
    "off": "notifications are off",
}


def numbers(request: HttpRequest) -> Iterator[Number]:
    """How many files are still to be announced, and how the broker is."""
    if not admin.site.get_model_admin(Announcement).has_view_permission(request):
        return
    try:
        oldest = owed.oldest.get()
        count = owed.count.get() if oldest else 0
    except DATABASE_ERRORS:  # not migrated, say
        return
    state = publisher.state()
    remark = BROKER[state]
    if oldest is not None and oldest.owed_since:
        remark = format_html("the oldest for {}; {}", lasting(oldest.owed_since), remark)
    tone = {"connected": "behind" if count else "good", "disconnected": "bad", "off": "quiet"}[state]
    yield Number(count, "to be announced", reverse("admin:notifications_announcement_changelist"), remark, tone)

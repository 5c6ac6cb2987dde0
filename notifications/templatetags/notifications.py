"""The line on every page of the admin while announcements do not get through."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import template
from django.urls import reverse
from django.utils import timezone

from iotsupport.errors import DATABASE_ERRORS
from iotsupport.monitoring.glance import Recent
from notifications.models import Announcement
from notifications.publisher import publisher

register = template.Library()

# What is owed for a shorter time is on its way.
LATE = timedelta(minutes=1)
# A connection that is lost for a moment, or a process that was just started: no alarm.
CONNECTING = timedelta(seconds=5)


@register.inclusion_tag("notifications/trouble.html", takes_context=True)
def announcement_trouble(context: template.Context) -> dict[str, Any]:
    """Say to everybody who may use the admin what is not announced, since when and why; nothing while all is well."""
    request = context.get("request")
    user = getattr(request, "user", None)
    if user is None or not user.is_active or not user.is_staff or not publisher.is_on:
        return {}
    disconnection = publisher.disconnection()
    is_connecting = disconnection is not None and timezone.now() - disconnection[0] < CONNECTING
    is_away = disconnection is not None
    try:
        oldest = _oldest.get()
        is_late = bool(oldest and oldest.owed_since and timezone.now() - oldest.owed_since > LATE)
        count = _count.get() if oldest and (is_late or is_away) else 0
    except DATABASE_ERRORS:  # not migrated, say; the page itself may not need it
        oldest, is_late, count = None, False, 0
    if not is_late and (not is_away or is_connecting):
        return {}
    may_look = user.has_perm("notifications.view_announcement") or user.has_perm("notifications.change_announcement")
    return {
        "is_away": is_away,
        "away_since": disconnection[0] if disconnection else None,
        "away_reason": disconnection[1].reason if disconnection else "",
        "away_advice": disconnection[1].advice if disconnection else "",
        "count": count,
        "since": oldest.owed_since if oldest else None,
        "reason": oldest.last_error if oldest else "",
        "url": reverse("admin:notifications_announcement_changelist") if may_look else "",
    }


# Every page asks. What has been owed for longest, and how many are.
_oldest = Recent(lambda: Announcement.objects.owed().order_by("owed_since", "pk").first())
_count = Recent(lambda: Announcement.objects.owed().count())

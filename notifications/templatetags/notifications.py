"""What pages of the admin say of announcements: on every page while they do not get through, and of one file."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import template
from django.contrib import admin
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from iotsupport.errors import DATABASE_ERRORS
from iotsupport.times import since, told
from notifications import owed
from notifications.models import Announcement
from notifications.publisher import publisher
from notifications.relay import MODELS

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
        oldest = owed.oldest.get()
        is_late = bool(oldest and oldest.owed_since and timezone.now() - oldest.owed_since > LATE)
        count = owed.count.get() if oldest and (is_late or is_away) else 0
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


@register.simple_tag
def announcement_of(row: Model) -> SafeString | str:
    """Say when the file of a row was announced and acknowledged, or since when and why it is owed."""
    topic, filename = _topic_of(row), row.filename  # type: ignore[attr-defined]
    try:
        announcement = Announcement.objects.filter(topic=topic, filename=filename).first()
    except DATABASE_ERRORS:
        return ""
    if announcement is None:
        return "not yet" if publisher.is_on else "never: notifications are off"
    if announcement.owed_since is None:
        return format_html("{}, acknowledged", told(announcement.announced_at)) if announcement.announced_at else ""
    why = format_html(": <q>{}</q>", announcement.last_error) if announcement.last_error else ""
    return format_html('<span class="state behind">owed</span> {}{}', since(announcement.owed_since), why)


@register.inclusion_tag("notifications/announce_again.html", takes_context=True)
def announce_again_button(context: template.Context, row: Model) -> dict[str, Any]:
    """A form of one button for whoever may announce the file of a row; it leads back to its page."""
    may_announce = admin.site.get_model_admin(type(row)).has_change_permission(context["request"], row)
    if not may_announce or not publisher.is_on:
        return {}
    url = reverse("admin:notifications_announcement_again")
    return {"url": url, "topic": _topic_of(row), "pk": row.pk}


def _topic_of(row: Model) -> str:
    return next(topic for topic, model in MODELS.items() if isinstance(row, model))

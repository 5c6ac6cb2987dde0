"""What is owed just now, looked up once a second at most for all pages that say it."""

from __future__ import annotations

from iotsupport.monitoring.glance import Recent
from notifications.models import Announcement

# What has been owed for longest, and how many are.
oldest = Recent(lambda: Announcement.objects.owed().order_by("owed_since", "pk").first())
count = Recent(lambda: Announcement.objects.owed().count())

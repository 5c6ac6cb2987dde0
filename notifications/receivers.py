"""What is saved is announced: after the commit, and after the mirror's own ``on_commit`` put the file in place."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from assets.models import Asset
from devices.models import DeviceConfig
from notifications.announcements import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.publisher import publisher


@receiver(post_save, sender=DeviceConfig, dispatch_uid="notifications.announce_config")
def announce_config(sender: type[DeviceConfig], instance: DeviceConfig, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        _announce_on_commit(CONFIGS_TOPIC, instance.filename, using)


@receiver(post_save, sender=Asset, dispatch_uid="notifications.announce_asset")
def announce_asset(sender: type[Asset], instance: Asset, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        _announce_on_commit(ASSETS_TOPIC, instance.filename, using)


def _announce_on_commit(topic: str, filename: str, using: str) -> None:
    # The mirror's callback comes first: its app is listed first. Where it raises, Django drops this one.
    # robust: a failing publisher must not turn a saved file into an error page.
    transaction.on_commit(lambda: publisher.publish(topic, filename), using=using, robust=True)

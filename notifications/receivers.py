"""What is saved is owed, in the same transaction; and announced after the commit, when the file is in place."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.bulk import is_bulk_change
from iotsupport.signals import serving
from notifications.announcements import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import Debt
from notifications.publisher import publisher


@receiver(post_save, sender=DeviceConfig, dispatch_uid="notifications.announce_config")
def announce_config(sender: type[DeviceConfig], instance: DeviceConfig, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        _announce(CONFIGS_TOPIC, instance.filename, using)


@receiver(post_save, sender=Asset, dispatch_uid="notifications.announce_asset")
def announce_asset(sender: type[Asset], instance: Asset, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        _announce(ASSETS_TOPIC, instance.filename, using)


@receiver(post_delete, sender=DeviceConfig, dispatch_uid="notifications.forget_config")
def forget_config(sender: type[DeviceConfig], instance: DeviceConfig, using: str, **kwargs: Any) -> None:
    Debt.objects.db_manager(using).cancel(CONFIGS_TOPIC, instance.filename)


@receiver(post_delete, sender=Asset, dispatch_uid="notifications.forget_asset")
def forget_asset(sender: type[Asset], instance: Asset, using: str, **kwargs: Any) -> None:
    Debt.objects.db_manager(using).cancel(ASSETS_TOPIC, instance.filename)


@receiver(serving, dispatch_uid="notifications.pay_what_is_owed")
def pay_what_is_owed(**kwargs: Any) -> None:
    publisher.serve()


def _announce(topic: str, filename: str, using: str) -> None:
    if not publisher.is_on:
        return
    is_bulk = is_bulk_change()
    claimed_by = "" if is_bulk else publisher.claimant(topic)
    announcement = Debt.objects.db_manager(using).owe(
        topic, filename, is_bulk=is_bulk, claimed_by=claimed_by, trouble=publisher.trouble(topic)
    )
    # The mirror's callback comes first: its app is listed first. Where it raises, Django drops this one.
    # robust: a failing publisher must not turn a saved file into an error page.
    transaction.on_commit(
        lambda: publisher.announce(announcement, is_claimed=bool(claimed_by)), using=using, robust=True
    )

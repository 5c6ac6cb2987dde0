"""What is saved is owed, in the same transaction; and announced after the commit, when the file is in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.bulk import is_bulk_change
from iotsupport.mirror.settling import call_when_settled
from iotsupport.signals import following, serving
from notifications.announcements import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import Debt
from notifications.publisher import publisher


@receiver(post_save, sender=DeviceConfig, dispatch_uid="notifications.announce_config")
def announce_config(sender: type[DeviceConfig], instance: DeviceConfig, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        call_when_settled(instance, using, _owe(CONFIGS_TOPIC, instance.filename, using))


@receiver(post_save, sender=Asset, dispatch_uid="notifications.announce_asset")
def announce_asset(sender: type[Asset], instance: Asset, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        call_when_settled(instance, using, _owe(ASSETS_TOPIC, instance.filename, using))


@receiver(post_delete, sender=DeviceConfig, dispatch_uid="notifications.forget_config")
def forget_config(sender: type[DeviceConfig], instance: DeviceConfig, using: str, **kwargs: Any) -> None:
    Debt.objects.db_manager(using).cancel(CONFIGS_TOPIC, instance.filename)


@receiver(post_delete, sender=Asset, dispatch_uid="notifications.forget_asset")
def forget_asset(sender: type[Asset], instance: Asset, using: str, **kwargs: Any) -> None:
    Debt.objects.db_manager(using).cancel(ASSETS_TOPIC, instance.filename)


@receiver(serving, dispatch_uid="notifications.pay_what_is_owed")
def pay_what_is_owed(**kwargs: Any) -> None:
    publisher.serve()


@receiver(following, sender=DeviceConfig, dispatch_uid="notifications.announce_followed_config")
def announce_followed_config(sender: type[DeviceConfig], filename: str, **kwargs: Any) -> Callable[[], None]:
    return _owe(CONFIGS_TOPIC, filename)


@receiver(following, sender=Asset, dispatch_uid="notifications.announce_followed_asset")
def announce_followed_asset(sender: type[Asset], filename: str, **kwargs: Any) -> Callable[[], None]:
    return _owe(ASSETS_TOPIC, filename)


def _owe(topic: str, filename: str, using: str = DEFAULT_DB_ALIAS) -> Callable[[], None]:
    """Note that a file must be announced. Returns what to call when it can be downloaded from this node."""
    if not publisher.is_on:
        return lambda: None
    is_bulk, name, debts = is_bulk_change(), publisher.name, Debt.objects.db_manager(using)
    will_send = not is_bulk and publisher.can_send(topic)
    # On PostgreSQL, another node must not announce it between the commit and this node's file.
    is_claimed = will_send or connections[using].vendor == "postgresql"
    announcement = debts.owe(
        topic, filename, is_bulk=is_bulk, claimed_by=name if is_claimed else "", trouble=publisher.trouble(topic)
    )

    def announce() -> None:
        if is_claimed and not will_send and not debts.release(name, [announcement]):
            # A node that follows took it over, and may have announced it before the file was in place here.
            debts.owe(topic, filename, is_bulk=is_bulk, trouble=publisher.trouble(topic))
        publisher.announce(announcement, is_claimed=will_send)

    return announce

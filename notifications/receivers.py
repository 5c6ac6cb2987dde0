"""Which signal leads to which step of the outbox: what is saved is announced, what is deleted is not."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from assets.models import Asset, has_new_bytes
from devices.models import DeviceConfig
from iotsupport.mirror.after_commit import call_when_in_place
from iotsupport.mirror.rows import MirroredModel
from iotsupport.signals import announcing_again, following, restored, saved_together, serving
from notifications import outbox
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import Announcement
from notifications.outbox import HandOver
from notifications.publisher import publisher


@receiver(post_save, sender=DeviceConfig, dispatch_uid="notifications.announce_config")
def announce_config(sender: type[DeviceConfig], instance: DeviceConfig, raw: bool, using: str, **kwargs: Any) -> None:
    if not raw:  # fixtures are not news
        announce(CONFIGS_TOPIC, sender, [instance.filename], using)


@receiver(saved_together, sender=DeviceConfig, dispatch_uid="notifications.announce_configs")
def announce_configs(sender: type[DeviceConfig], filenames: list[str], using: str, **kwargs: Any) -> None:
    announce(CONFIGS_TOPIC, sender, filenames, using)


@receiver(post_save, sender=Asset, dispatch_uid="notifications.announce_asset")
def announce_asset(
    sender: type[Asset],
    instance: Asset,
    raw: bool,
    using: str,
    update_fields: frozenset[str] | None = None,
    **kwargs: Any,
) -> None:
    # Neither fixtures are news, nor what is chosen about bytes that boards have.
    if not raw and has_new_bytes(update_fields):
        announce(ASSETS_TOPIC, sender, [instance.filename], using)


def announce(topic: str, model: type[MirroredModel], filenames: list[str], using: str) -> None:
    """Have it announced, after the commit, that these files of the model's rows are new."""
    if publisher.is_on:
        call_when_in_place(model, filenames, using, outbox.record(topic, filenames, using))


@receiver(post_delete, sender=DeviceConfig, dispatch_uid="notifications.cancel_config")
def cancel_config(sender: type[DeviceConfig], instance: DeviceConfig, using: str, **kwargs: Any) -> None:
    outbox.cancel(CONFIGS_TOPIC, instance.filename, using)


@receiver(post_delete, sender=Asset, dispatch_uid="notifications.cancel_asset")
def cancel_asset(sender: type[Asset], instance: Asset, using: str, **kwargs: Any) -> None:
    outbox.cancel(ASSETS_TOPIC, instance.filename, using)


@receiver(serving, dispatch_uid="notifications.announce_what_is_owed")
def announce_what_is_owed(**kwargs: Any) -> None:
    publisher.serve()


@receiver(following, sender=DeviceConfig, dispatch_uid="notifications.announce_followed_config")
def announce_followed_config(sender: type[DeviceConfig], filename: str, **kwargs: Any) -> HandOver | None:
    return outbox.record(CONFIGS_TOPIC, [filename]) if publisher.is_on else None


@receiver(following, sender=Asset, dispatch_uid="notifications.announce_followed_asset")
def announce_followed_asset(sender: type[Asset], filename: str, **kwargs: Any) -> HandOver | None:
    return outbox.record(ASSETS_TOPIC, [filename]) if publisher.is_on else None


@receiver(announcing_again, sender=DeviceConfig, dispatch_uid="notifications.announce_configs_again")
def announce_configs_again(sender: type[DeviceConfig], filenames: list[str], **kwargs: Any) -> bool:
    if publisher.is_on:
        Announcement.objects.record_again(CONFIGS_TOPIC, filenames)
        transaction.on_commit(publisher.wake, robust=True)
    return publisher.is_on


@receiver(restored, dispatch_uid="notifications.strike_what_was_owed")
def strike_what_was_owed(**kwargs: Any) -> str | None:
    count = Announcement.objects.strike_all()
    if not count:
        return None
    files = "1 file was" if count == 1 else f"{count} files were"
    return f"{files} still to be announced when the backup was made. The first page shows which boards are behind."

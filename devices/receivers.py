"""The mirror follows every save and delete, the admin's bulk delete included."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from devices.models import DeviceConfig
from iotsupport.mirror.after_commit import mirror_deleted, mirror_saved


@receiver(post_save, sender=DeviceConfig, dispatch_uid="devices.mirror_config")
def mirror_config(sender: type[DeviceConfig], instance: DeviceConfig, using: str, **kwargs: Any) -> None:
    filename = instance.filename_of(instance.mac_address)
    mirror_saved(instance, filename, instance.take_staged(), using)


@receiver(post_delete, sender=DeviceConfig, dispatch_uid="devices.remove_config")
def remove_config(sender: type[DeviceConfig], instance: DeviceConfig, using: str, **kwargs: Any) -> None:
    mirror_deleted(sender, instance.filename, using)

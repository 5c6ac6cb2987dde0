"""The mirror and the board's row follow every save and delete, the admin's bulk delete included; and what a restored
server does not go on with."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from devices.models import Change, DeviceConfig
from iotsupport.boards.configurations import note_deleted, note_saved
from iotsupport.mirror.after_commit import mirror_deleted, mirror_saved
from iotsupport.signals import restored


@receiver(post_save, sender=DeviceConfig, dispatch_uid="devices.mirror_config")
def mirror_config(
    sender: type[DeviceConfig], instance: DeviceConfig, using: str, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    name, staged = instance.name_as_read, instance.take_staged()
    mirror_saved(instance, instance.filename_of(instance.mac_address), staged, using)
    if name not in {None, instance.mac_address}:
        note_deleted(str(name), using)
    if update_fields is None or update_fields & {"content", "mac_address"}:
        note_saved(instance.mac_address, staged.sha256, using)


@receiver(post_delete, sender=DeviceConfig, dispatch_uid="devices.remove_config")
def remove_config(sender: type[DeviceConfig], instance: DeviceConfig, using: str, **kwargs: Any) -> None:
    mirror_deleted(sender, instance.filename, using)
    note_deleted(instance.mac_address, using)


@receiver(restored, dispatch_uid="devices.stop_changes")
def stop_changes(**kwargs: Any) -> str | None:
    count = Change.objects.stop_all("It was under way when the backup was made that this server was restored from.")
    changes = "1 change of many was" if count == 1 else f"{count} changes of many were"
    return f"{changes} under way when the backup was made, and stopped." if count else None

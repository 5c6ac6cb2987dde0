"""The mirror follows every save and delete, the admin's bulk delete included."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from assets.models import Asset, has_new_bytes
from iotsupport.mirror.after_commit import mirror_deleted, mirror_saved


@receiver(post_save, sender=Asset, dispatch_uid="assets.mirror_asset")
def mirror_asset(
    sender: type[Asset], instance: Asset, using: str, update_fields: frozenset[str] | None = None, **kwargs: Any
) -> None:
    # What is chosen changes no byte: the file stays, and so does its date.
    staged = instance.take_staged() if has_new_bytes(update_fields) else None
    mirror_saved(instance, instance.filename, staged, using)


@receiver(post_delete, sender=Asset, dispatch_uid="assets.remove_asset")
def remove_asset(sender: type[Asset], instance: Asset, using: str, **kwargs: Any) -> None:
    mirror_deleted(sender, instance.filename, using)

"""The mirror follows every save and delete, the admin's bulk delete included."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from assets.models import Asset
from iotsupport.mirror.after_commit import mirror_deleted, mirror_saved


@receiver(post_save, sender=Asset, dispatch_uid="assets.mirror_asset")
def mirror_asset(sender: type[Asset], instance: Asset, using: str, **kwargs: Any) -> None:
    filename = instance.filename
    mirror_saved(instance, filename, instance.take_staged(), using)


@receiver(post_delete, sender=Asset, dispatch_uid="assets.remove_asset")
def remove_asset(sender: type[Asset], instance: Asset, using: str, **kwargs: Any) -> None:
    mirror_deleted(sender, instance.filename, using)

"""What becomes of API tokens when their user's password is changed."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import is_password_usable
from django.contrib.auth.models import User
from django.db.models.signals import post_save, pre_save
from django.dispatch import receiver

from iotsupport.models import ApiToken


@receiver(pre_save, sender=User, dispatch_uid="iotsupport.notice_new_password")
def notice_new_password(sender: Any, instance: Any, raw: bool, update_fields: Any, **kwargs: Any) -> None:
    """Remember whether this save changes the password: by whatever way, or takes it away."""
    is_saved = update_fields is None or "password" in update_fields
    instance._has_new_password = bool(instance.pk and is_saved and not raw and _is_new_password(instance))


@receiver(post_save, sender=User, dispatch_uid="iotsupport.revoke_tokens")
def revoke_tokens(sender: Any, instance: Any, **kwargs: Any) -> None:
    """Revoke the tokens of a user whose password is changed, in the same transaction.

    Whoever changes it because somebody else knows it, or was at the keyboard, would leave that person's tokens behind.
    """
    if getattr(instance, "_has_new_password", False):
        ApiToken.objects.filter(user=instance).revoke(f"new password of {instance}")


def _is_new_password(user: Any) -> bool:
    # Not set where the hash of the same password is made anew, at a sign-in.
    if user._password is not None:
        return True
    if user.has_usable_password():
        return False
    before = User.objects.filter(pk=user.pk).values_list("password", flat=True).first()
    return before is not None and is_password_usable(before)

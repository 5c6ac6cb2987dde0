"""What the audit tells of: versions, users and groups, tokens, and who signs in and out."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import receiver
from simple_history.signals import post_create_historical_record

from iotsupport import audit
from iotsupport.models import ApiToken

# What a user or group is known by.
NAMES = {User: "username", Group: "name", Permission: "codename"}


@receiver(post_create_historical_record, dispatch_uid="iotsupport.audit.version")
def tell_of_version(sender: Any, instance: Any, history_instance: Any, using: str | None, **kwargs: Any) -> None:
    name = getattr(instance, type(instance).name_field)
    action = audit.ACTIONS[history_instance.history_type]
    audit.tell(action, instance._meta.label_lower, name, using=using, version_id=history_instance.pk)


@receiver(post_save, sender=User, dispatch_uid="iotsupport.audit.user")
@receiver(post_save, sender=Group, dispatch_uid="iotsupport.audit.group")
def tell_of_account(
    sender: Any, instance: Any, created: bool, raw: bool, update_fields: Any, using: str, **kwargs: Any
) -> None:
    if raw or update_fields == {"last_login"}:
        return
    rights = [each for each in ["active", "staff", "superuser"] if getattr(instance, f"is_{each}", False)]
    audit.tell(
        "created" if created else "changed",
        sender._meta.label_lower,
        getattr(instance, NAMES[sender]),
        using=using,
        rights=",".join(rights) or None,
        password="new" if getattr(instance, "_has_new_password", False) else None,
    )


@receiver(post_delete, sender=User, dispatch_uid="iotsupport.audit.no_user")
@receiver(post_delete, sender=Group, dispatch_uid="iotsupport.audit.no_group")
def tell_of_no_account(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    audit.tell("deleted", sender._meta.label_lower, getattr(instance, NAMES[sender]), using=using)


@receiver(m2m_changed, sender=User.groups.through, dispatch_uid="iotsupport.audit.groups")
@receiver(m2m_changed, sender=User.user_permissions.through, dispatch_uid="iotsupport.audit.permissions")
@receiver(m2m_changed, sender=Group.permissions.through, dispatch_uid="iotsupport.audit.group_permissions")
def tell_of_rights(
    sender: Any, instance: Any, action: str, model: Any, pk_set: set[int] | None, using: str, **kwargs: Any
) -> None:
    """Say which groups or permissions somebody was given, or lost."""
    done = {"post_add": "added", "post_remove": "removed", "post_clear": "removed all"}.get(action)
    if done is None or pk_set == set():
        return
    field = NAMES[model]
    given = sorted(model._base_manager.filter(pk__in=pk_set or []).values_list(field, flat=True))
    audit.tell(
        f"{done} {model._meta.verbose_name_plural}",
        instance._meta.label_lower,
        getattr(instance, NAMES[type(instance)]),
        using=using,
        which=",".join(given) or None,
    )


@receiver(post_save, sender=ApiToken, dispatch_uid="iotsupport.audit.token")
def tell_of_token(sender: Any, instance: ApiToken, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
    if raw:
        return
    action = "created" if created else "changed" if instance.revoked_at is None else "revoked"
    _tell_of_token(action, instance, using, may=instance.may)


@receiver(post_delete, sender=ApiToken, dispatch_uid="iotsupport.audit.no_token")
def tell_of_no_token(sender: Any, instance: ApiToken, using: str, **kwargs: Any) -> None:
    _tell_of_token("deleted", instance, using)


def _tell_of_token(action: str, token: ApiToken, using: str, **facts: Any) -> None:
    user = User._base_manager.filter(pk=token.user_id).values_list("username", flat=True).first()
    audit.tell(action, "iotsupport.apitoken", token.description, using=using, token_id=token.pk, of_user=user, **facts)


@receiver(user_logged_in, dispatch_uid="iotsupport.audit.signed_in")
def tell_of_sign_in(sender: Any, user: Any, **kwargs: Any) -> None:
    audit.tell("signed in", "auth.user", user.get_username())


@receiver(user_logged_out, dispatch_uid="iotsupport.audit.signed_out")
def tell_of_sign_out(sender: Any, user: Any, **kwargs: Any) -> None:
    if user is not None:
        audit.tell("signed out", "auth.user", user.get_username())

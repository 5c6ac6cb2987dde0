"""What somebody may here who signs in elsewhere: by the names of the groups that they have there."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction

NO_GROUP = (
    "You are known as {name}, but none of your groups may do anything here. Ask whoever runs this server to put you"
    " into one that may. {groups}"
)
DEACTIVATED = "The account {name} was deactivated here. Ask an administrator of this server."

# Of somebody's groups, so many are named to them.
MOST_NAMED = 10


class NotLetIn(Exception):
    """Raised for somebody who is signed in elsewhere, and may not come in. Its text says why, and whom to ask."""


class Rights(NamedTuple):
    is_administrator: bool
    groups: list[Group]


def rights_of(names: Collection[str]) -> Rights | None:
    """Return what these groups may here: one that is named ``OIDC_ADMIN_GROUP`` everything, another what the group of
    exactly that name in the admin may. None where there is no such group among them.
    """
    is_administrator = bool(settings.OIDC_ADMIN_GROUP) and settings.OIDC_ADMIN_GROUP in names
    groups = [group for group in Group.objects.all() if group.name in names]
    return Rights(is_administrator, groups) if is_administrator or groups else None


def give(user: User, rights: Rights | None) -> None:
    """Give a user these rights and no others that come from groups; None takes all. Only what is new is written."""
    flags = rights is not None, rights is not None and rights.is_administrator
    with transaction.atomic():
        if (user.is_staff, user.is_superuser) != flags:
            user.is_staff, user.is_superuser = flags
            user.save(update_fields=["is_staff", "is_superuser"])
        user.groups.set(rights.groups if rights else [])


def no_group(name: str, names: Collection[str]) -> NotLetIn:
    """The refusal of somebody whose groups may nothing here."""
    said = ", ".join(sorted(names)[:MOST_NAMED])
    told = f"It heard of these groups of yours: {said}." if said else "It heard of no group of yours."
    return NotLetIn(NO_GROUP.format(name=name, groups=told))


def can_be_username(name: str) -> bool:
    """Whether an account can have exactly this name. One that is written in another form of Unicode would be another
    account's when it is saved.
    """
    field = User._meta.get_field("username")
    fits = 0 < len(name) <= (field.max_length or 0) and unicodedata.is_normalized("NFKC", name)
    return fits and _is_valid(name)


def _is_valid(name: str) -> bool:
    try:
        User.username_validator(name)
    except ValidationError:
        return False
    return True

"""What an API token may do, in words: a part of what its user may.

No word stands for users, groups, tokens or announcements: a token that has words may do nothing with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from django.contrib.auth.models import User
from django.db import models


class Word(models.TextChoices):
    READ_CONFIGS = "read-configs", "read configurations"
    WRITE_CONFIGS = "write-configs", "write configurations"
    READ_ASSETS = "read-assets", "read assets"
    WRITE_ASSETS = "write-assets", "write assets"


# Of a permission such as "devices.change_deviceconfig", the app says of what files a word is, and the action which.
FILES = {"devices": "configs", "assets": "assets"}
ACTIONS = {"view": "read", "add": "write", "change": "write", "delete": "write"}


def word_of(permission: str) -> Word | None:
    """Return the word that a permission needs, such as ``devices.change_deviceconfig``; None where no word will do."""
    app_label, _, codename = permission.partition(".")
    files, action = FILES.get(app_label), ACTIONS.get(codename.partition("_")[0])
    return Word(f"{action}-{files}") if files and action else None


def words_of(user: User) -> set[Word]:
    """Return the words for which a user has a permission at least."""
    words = {word_of(permission) for permission in user.get_all_permissions()}
    return {word for word in words if word}


class NarrowedUser(User):
    """The user of a token with words, who may do no more with it than they say."""

    words: frozenset[str] = frozenset()

    class Meta:
        proxy = True
        default_permissions = ()  # it has no pages

    @classmethod
    def from_row(cls, words: Iterable[str], alias: str, names: Sequence[str], values: Sequence[Any]) -> Self:
        """As :meth:`Model.from_db` makes one of a row of users."""
        user = cls.from_db(alias, names, values)
        user.words = frozenset(words)
        return user

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return word_of(perm) in self.words and super().has_perm(perm, obj)

"""What configurations of one kind of device have in common: a schema that they must fit, and how a new one begins."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.dispatch import Signal
from django.utils import timezone

from devices.parsing import parse_config
from devices.schemas import SchemaError, check_schema, errors_of
from iotsupport.characters import fold, name_of_character
from iotsupport.editing.history import Versions

NAME_MAX_CHARS = 100
FOLDED_MAX_CHARS = 400  # one character may be folded to many
# What an address cannot tell from something else, or nobody sees.
NOT_IN_NAMES = re.compile(r'[/\\?#%"]|[^\S ]')
# What people type of a type.
TYPED = ["name", "description", "schema", "starting_content"]

# A draft that is not saved, and is not replaced by the next one of the same person.
DRAFTS_KEPT_FOR = timedelta(days=90)

# Sent after the commit: there are configurations to be judged by a schema.
marks_wanted = Signal()


class DoesNotFit(ValidationError):
    """A text that its type's schema refuses. ``errors`` says where and why, at most twenty."""

    def __init__(self, type_name: str, errors: list[SchemaError]) -> None:
        first = errors[0]
        more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
        message = f"This does not fit the type “{type_name}”. {first.sentence}{more}"
        super().__init__(message, code="DOES_NOT_FIT")
        self.type_name, self.errors = type_name, errors
        self.line, self.column = first.line, first.column

    @property
    def details(self) -> dict[str, Any]:
        """What a program is told beside the sentence."""
        return {"type": self.type_name, "errors": [error._asdict() for error in self.errors]}


class DeviceTypeManager(models.Manager["DeviceType"]):
    def of(self, mac_address: str) -> DeviceType | None:
        """The type that a device's configuration has now, if it has one."""
        return self.filter(configs__mac_address=mac_address).first()

    @contextmanager
    def locked(self, name: str, ahead: None = None) -> Iterator[DeviceType]:
        """The type of this name, to be changed; it is saved when the block ends. Where there is none, a new one."""
        with transaction.atomic(using=self.db):
            row = self.select_for_update().filter(folded=fold(name)).first() or self.model(name=name)
            yield row
            row.save(using=self.db)


class DeviceType(models.Model):
    """A kind of device: what its configurations have to be like, and what a new one begins with."""

    name_field = "name"  # as versions are found

    name = models.CharField(max_length=NAME_MAX_CHARS)
    folded = models.CharField(max_length=FOLDED_MAX_CHARS, unique=True, editable=False)  # the name, as it is looked for
    description = models.TextField(blank=True)
    schema = models.TextField()  # JSON Schema (2020-12), byte for byte as it was typed
    starting_content = models.TextField(blank=True)  # the same; it fits the schema
    # The fingerprint of what was there when the texts were typed, where they are of a draft.
    based_on = ""

    # Of its configurations, those with a greater primary key are still to be judged by the schema; null: none are.
    marks_after = models.BigIntegerField(null=True, editable=False)

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    objects = DeviceTypeManager()
    history = Versions(excluded_fields=["folded", "marks_after"])

    class Meta:
        ordering = ["folded"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save. Raises ``ValidationError`` as :meth:`clean` does, but for another type of this name."""
        update_fields = kwargs.get("update_fields")
        if update_fields is None or {"name", "schema", "starting_content"} & set(update_fields):
            self.read_name()
            self.check_texts()
        if self._schema_is_another():
            self.marks_after = 0
            if update_fields is not None:
                kwargs["update_fields"] = {*update_fields, "marks_after"}
        super().save(*args, **kwargs)
        if self.marks_after is not None:
            transaction.on_commit(lambda: marks_wanted.send(sender=DeviceType))

    def clean(self) -> None:
        """Raise ``ValidationError`` for a name, a schema or a starting content that cannot be one."""
        self.read_name()
        if type(self).objects.filter(folded=self.folded).exclude(pk=self.pk).exists():
            message = "Another type has this name. Find it in the list, and change that one."
            raise ValidationError({"name": ValidationError(message, code="ALREADY_EXISTS")})
        self.check_texts()

    def _schema_is_another(self) -> bool:
        """Whether there are configurations that another schema was right for."""
        saved = type(self).objects.filter(pk=self.pk).values_list("schema", flat=True).first()
        return saved is not None and saved != self.schema and self.configs.exists()

    @classmethod
    def spell(cls, name: str) -> str:
        """Return a name as rows have it now; a version may have it from before."""
        row = cls.objects.filter(folded=fold(name)).only("name").first()
        return name if row is None else row.name

    @classmethod
    def ahead_of(cls, version: Any) -> None:
        """Nothing is made ready before the row is locked."""

    def take_version(self, version: Any, ahead: None = None) -> None:
        """Become what an earlier version was, but for its name."""
        self.description, self.schema = version.description, version.schema
        self.starting_content = version.starting_content

    @property
    def content_sha256(self) -> str:
        return self.fingerprint

    @property
    def fingerprint(self) -> str:
        """The same for the same texts: who changes a type says by this on what the change is based."""
        texts = [getattr(self, name) for name in TYPED]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()

    @property
    def etag(self) -> str:
        return f'"{self.fingerprint}"'

    def read_name(self) -> None:
        """Spell the name as rows have it. Raises ``ValidationError``."""
        name = " ".join(unicodedata.normalize("NFC", self.name).split(" ")).strip()
        if refusal := _what_is_wrong(name):
            raise ValidationError({"name": ValidationError(refusal, code="INVALID_NAME")})
        self.name, self.folded = name, fold(name)

    def check_texts(self) -> None:
        """Raise ``ValidationError`` where the schema is none, or the starting content does not fit it."""
        try:
            check_schema(self.schema)
        except ValidationError as error:
            raise ValidationError({"schema": error}) from error
        if not self.starting_content:
            return
        try:
            parse_config(self.starting_content)
            if errors := errors_of(self.schema, self.starting_content):
                raise DoesNotFit(self.name, errors)
        except ValidationError as error:
            raise ValidationError({"starting_content": error}) from error


class ChangedMeanwhile(Exception):
    """Somebody else saved the type since."""

    def __init__(self, device_type: DeviceType) -> None:
        super().__init__()
        self.device_type = device_type


class SchemaDraft(models.Model):
    """A type as somebody typed it, while its configurations are tried by it: they see first which would not fit."""

    type = models.ForeignKey(DeviceType, on_delete=models.CASCADE, related_name="drafts")
    name = models.TextField()
    description = models.TextField()
    schema = models.TextField()
    starting_content = models.TextField()
    based_on = models.CharField(max_length=64)  # SHA-256 of the type as it was when this was typed
    typed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    # Configurations with a greater primary key are still to be tried; null: none are.
    tried_after = models.BigIntegerField(null=True, default=0)
    total = models.PositiveIntegerField(default=0)
    tried = models.PositiveIntegerField(default=0)
    misfits = models.PositiveIntegerField(default=0)
    found = models.JSONField(default=list)  # of the first that do not fit: primary key, MAC address, sentence
    trouble = models.TextField(blank=True)  # why it cannot be saved at all

    class Meta:
        ordering = ["pk"]
        default_permissions = ()  # those of its type count

    def __str__(self) -> str:
        return f"{self.name}, as {self.typed_by} typed it"

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        if not self.is_tried:
            transaction.on_commit(lambda: marks_wanted.send(sender=DeviceType))

    @classmethod
    def of(cls, device_type: DeviceType, *, based_on: str, typed_by: Any) -> SchemaDraft:
        """Return what somebody typed over a type: the row is not saved, nor is this one yet."""
        draft = cls(type=device_type, based_on=based_on, typed_by=typed_by, total=device_type.configs.count())
        for name in TYPED:
            setattr(draft, name, getattr(device_type, name))
        return draft

    def copy_to(self, device_type: DeviceType) -> None:
        for name in TYPED:
            setattr(device_type, name, getattr(self, name))

    @property
    def may_be_saved(self) -> bool:
        return self.is_tried and not self.trouble

    @property
    def is_tried(self) -> bool:
        return self.tried_after is None

    def apply(self) -> DeviceType:
        """Save what was typed as the type. Raises :class:`ChangedMeanwhile` where that is another by now."""
        with transaction.atomic():
            device_type = DeviceType.objects.select_for_update().get(pk=self.type_id)
            if device_type.fingerprint != self.based_on:
                raise ChangedMeanwhile(device_type)
            self.copy_to(device_type)
            device_type.updated_by = self.typed_by
            device_type.full_clean()
            device_type.save()
            device_type.drafts.all().delete()
        return device_type


def over() -> dict[str, models.QuerySet[SchemaDraft]]:
    """Drafts to which nobody came back."""
    return {"drafts of types": SchemaDraft.objects.filter(created_at__lt=timezone.now() - DRAFTS_KEPT_FOR)}


def _what_is_wrong(name: str) -> str | None:
    if not name:
        return "A type needs a name."
    if len(name) > NAME_MAX_CHARS:
        return f"This name has {len(name)} characters; {NAME_MAX_CHARS} are allowed. Shorten it."
    strange = NOT_IN_NAMES.search(name) or next((s for s in re.finditer(".", name) if not s[0].isprintable()), None)
    if strange:
        return f"{name_of_character(strange[0])} cannot stand in a name. Write it with letters, digits and blanks."
    if len(fold(name)) > FOLDED_MAX_CHARS:
        return "This name is too long. Shorten it."
    if name.startswith("."):
        return "A name cannot begin with a point. Begin it with a letter or digit."
    return None

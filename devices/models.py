"""The configuration of one device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, connections, models

from devices.changes.models import Change, ChangeItem, Part
from devices.fields import BoardField, MACAddressField, normalise_mac_address
from devices.parsing import parse_config
from devices.schemas import SchemaError, errors_of
from devices.types.models import DeviceType, DoesNotFit, SchemaDraft
from iotsupport.boards.mac_addresses import MAC_ADDRESS
from iotsupport.boards.models import Board
from iotsupport.characters import fold
from iotsupport.editing.history import VersionQuerySet, Versions
from iotsupport.mirror.files import StagedFile, mirror_storage
from iotsupport.mirror.rows import Ahead, MirroredManager, MirroredModel, Wanted

__all__ = [
    "Change",
    "ChangeItem",
    "DeviceConfig",
    "DeviceType",
    "DoesNotFit",
    "NewContent",
    "Part",
    "SchemaDraft",
    "WaitingBoard",
]


class Judgement(NamedTuple):
    """What was found when a schema was asked whether a text fits."""

    schema: str
    text: str
    errors: list[SchemaError]


@dataclass(eq=False)
class NewContent(Ahead):
    """A text that is about to be a row's: parsed and staged, ahead of the transaction that saves it."""

    config: dict[str, Any]
    """What it says, as :func:`parse_config` has it."""
    judged: Judgement | None = None

    def judge(self, type_: DeviceType | None) -> None:
        """Let a type say now what does not fit: a schema may take long, and then nobody else could save meanwhile."""
        if type_ is not None:
            self.judged = Judgement(type_.schema, self.value, errors_of(type_.schema, self.value))


class DeviceConfigManager(MirroredManager["DeviceConfig"]):
    def prepare(self, text: str, config: dict[str, Any] | None = None) -> NewContent:
        """Parse a text, and stage its bytes.

        ``config`` is what it says, where it was parsed as part of another text, and found to be small enough. Raises
        ``InvalidConfig``, and ``MirrorError`` where it cannot be stored.
        """
        if config is None:
            config = parse_config(text)
        return NewContent(text, mirror_storage(self.model.storage_alias).stage([text.encode()]), config)

    def put(self, mac_address: str, content: str, *, user: User | None = None) -> DeviceConfig:
        """Create or replace the configuration of one device.

        Raises ``ValidationError`` for a wrong MAC address or content, and ``MirrorError`` where it cannot be stored.
        """
        mac_address, new = normalise_mac_address(mac_address), self.prepare(content)
        new.judge(DeviceType.objects.of(mac_address))
        with self.locked(mac_address, new) as config:
            config.set_content(new)
            config.updated_by = user
        return config


class DeviceConfig(MirroredModel):
    """The configuration that one device downloads, known by the device's MAC address."""

    storage_alias = "configs"
    name_field = "mac_address"
    bytes_field = "content"
    suffix = ".json"

    mac_address = MACAddressField(
        "MAC address", unique=True, help_text="With -, : or nothing between the pairs; kept as aa-bb-cc-dd-ee-ff."
    )
    content = models.TextField("configuration", help_text="One JSON object. Kept byte for byte, as it is typed.")

    # Read from the content at every save, to be listed and searched. Null where the content does not say,
    # which is not the same as a device whose name is empty.
    device_name = models.TextField(null=True, editable=False)  # noqa: DJ001
    device_entity_id = models.TextField("device entity ID", null=True, editable=False)  # noqa: DJ001
    enable_ota = models.BooleanField("OTA updates", null=True, editable=False)

    folded = models.TextField(default="", editable=False)  # the two names, as searches look at them

    # A type that has configurations stays: what guards many boards does not go by a slip of the hand.
    type = models.ForeignKey(
        DeviceType, null=True, blank=True, on_delete=models.PROTECT, related_name="configs", db_index=False
    )
    fits = models.BooleanField("fits its type", null=True, editable=False)  # null where there is none

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    board = BoardField()

    # Set for one save: the text is kept, and marked, although its type's schema refuses it.
    although_it_does_not_fit = False

    # What the four above were read from; and by what was found whether it fits.
    _content_read: str | None = None
    _judged: Judgement | None = None

    objects = DeviceConfigManager()
    history = Versions(excluded_fields=["folded", "fits"])

    class Meta:
        ordering = ["mac_address"]
        verbose_name = "device configuration"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["type", "mac_address"], name="configs_by_type"),
            models.Index(fields=["mac_address"], condition=models.Q(fits=False), name="configs_that_do_not_fit"),
        ]

    def __str__(self) -> str:
        return f"{self.mac_address} ({self.device_name})" if self.device_name else self.mac_address

    def clean(self) -> None:
        try:
            self.check_text()
        except ValidationError as error:
            raise ValidationError({"content": error}) from error

    def check_text(self) -> None:
        """Raise ``ValidationError`` for a text that no device could read, or that does not fit the type."""
        self.read_content()
        self.judge_fit()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and mirror.

        Raises ``ValidationError`` for a wrong MAC address, for what no device could read, and for what does not fit
        the type, unless ``although_it_does_not_fit`` is set.
        """
        if self.mac_address != self.name_as_read:
            self.mac_address = normalise_mac_address(self.mac_address)
        self.read_content()
        update_fields = kwargs.get("update_fields")
        if update_fields is None or {"content", "type", "type_id"} & set(update_fields):
            self.judge_fit()
        if update_fields is not None and "content" in update_fields:
            read = {"device_name", "device_entity_id", "enable_ota", "folded", "fits", "updated_at"}
            kwargs["update_fields"] = {*update_fields, *read}
        elif update_fields is not None and {"type", "type_id"} & set(update_fields):
            kwargs["update_fields"] = {*update_fields, "fits"}
        super().save(*args, **kwargs)

    def set_content(self, new: NewContent) -> None:
        self.content, self.ahead, self._judged = new.value, new, new.judged
        self.read_content(new.config)

    @classmethod
    def ahead_of(cls, version: Any) -> Ahead:
        new = cls.objects.prepare(version.content)
        new.judge(DeviceType.objects.of(version.mac_address))
        return new

    def take_version(self, version: Any, ahead: Ahead | None = None) -> None:
        self.content = version.content
        if self._state.adding:  # what is there has the type that it has now
            self.type = DeviceType.objects.filter(pk=version.type_id).first()
        if isinstance(ahead, NewContent):
            self._judged = ahead.judged
            self.read_content(ahead.config)
        else:
            self.read_content()

    def read_content(self, config: dict[str, Any] | None = None) -> None:
        """Set what lists and searches need from the content, once for each. Raises ``InvalidConfig``.

        ``config`` is what it says, where it was parsed as part of another text, and found to be small enough.
        """
        if self.content == self._content_read:
            return
        if config is None:
            config = parse_config(self.content)
        name, entity_id, enable_ota = config.get("deviceName"), config.get("deviceEntityId"), config.get("enableOTA")
        before = [self.device_name, self.device_entity_id] if self.folded else None
        self.device_name = _storable(name) if isinstance(name, str) else None
        self.device_entity_id = _storable(entity_id) if isinstance(entity_id, str) else None
        self.enable_ota = enable_ota if isinstance(enable_ota, bool) else None
        if (names := [self.device_name, self.device_entity_id]) != before:
            self.folded = fold("\n".join(filter(None, names)))
        self._content_read = self.content

    def judge_fit(self) -> None:
        """Set whether the text fits its type. Raises :class:`DoesNotFit` unless ``although_it_does_not_fit``."""
        if self.type_id is not None and hasattr(self, "_history"):
            self.type = DeviceType.objects.filter(pk=self.type_id).first()  # a version may name one that is gone
        if self.type is None:
            self.fits = None
            return
        schema = self.type.schema
        if self._judged is None or (self._judged.schema, self._judged.text) != (schema, self.content):
            self._judged = Judgement(schema, self.content, errors_of(schema, self.content))
        errors = self._judged.errors
        if errors and not self.although_it_does_not_fit:
            raise DoesNotFit(self.type.name, errors)
        self.fits = not errors

    def take_judgement(self, other: DeviceConfig) -> None:
        """Have been judged as another one was, where text and schema are the same."""
        self._judged = other._judged

    @property
    def filename(self) -> str:
        return self.filename_of(self.mac_address)

    @property
    def content_bytes(self) -> bytes:
        return self.content.encode()

    @property
    def content_sha256(self) -> str:
        return hashlib.sha256(self.content_bytes).hexdigest()

    @property
    def etag(self) -> str:
        """Entity tag of the mirrored bytes, as the download has it."""
        return f'"{self.content_sha256}"'

    def stage(self) -> StagedFile:
        return mirror_storage(self.storage_alias).stage([self.content.encode()])

    @classmethod
    def with_filename(cls, filename: str, using: str) -> Self | None:
        mac_address = filename.removesuffix(".json")
        if not MAC_ADDRESS.fullmatch(mac_address):
            return None
        row = cls._base_manager.using(using).filter(mac_address=mac_address).first()
        return row if row is not None and row.filename == filename else None

    @classmethod
    def wanted_files(cls, filenames: Sequence[str], using: str) -> dict[str, Wanted]:
        addresses = [address for name in filenames if MAC_ADDRESS.fullmatch(address := name.removesuffix(".json"))]
        if not addresses:
            return {}
        marks = ", ".join(["%s"] * len(addresses))
        with connections[using].cursor() as cursor:
            cursor.execute(
                f"SELECT mac_address, content FROM {cls._meta.db_table} WHERE mac_address IN ({marks})",  # noqa: S608
                addresses,
            )
            return {
                f"{address}.json": Wanted(hashlib.sha256(content.encode()).hexdigest())
                for address, content in cursor.fetchall()
            }

    @classmethod
    def remembers(cls, filename: str, sha256: str) -> bool:
        past = cls.history.filter(mac_address=filename.removesuffix(".json")).values_list("content", flat=True)
        return any(hashlib.sha256(content.encode()).hexdigest() == sha256 for content in past.iterator())


class WaitingBoard(Board):
    """A board that asks for a configuration, as the admin lists it."""

    class Meta:
        proxy = True
        default_permissions: ClassVar[list[str]] = []  # whoever may view configurations sees it
        verbose_name = "waiting board"


class DeletedConfig(DeviceConfig.history.model):  # type: ignore[name-defined]
    """The deletion of a configuration that does not exist since, as the admin lists it."""

    objects = VersionQuerySet.as_manager()

    class Meta:
        proxy = True
        default_permissions: ClassVar[list[str]] = []  # whoever may view configurations sees it
        verbose_name = "deleted configuration"


def _storable(fact: str) -> str:
    # PostgreSQL cannot store a null character, which JSON can say.
    cannot = connection.features.prohibits_null_characters_in_text_exception
    return fact.replace("\0", "\N{REPLACEMENT CHARACTER}") if cannot else fact

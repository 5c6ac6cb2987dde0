"""Installations that are backed up and restored in one process, what is in them, and archives that nobody made."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection

from assets.models import Asset
from devices.changes.models import Change, ChangeItem, ItemState, Kind, State
from devices.models import DeviceConfig, DeviceType, SchemaDraft
from iotsupport.backup.archive import COMMENT, COMMENT_BYTES
from iotsupport.backup.tables import LEFT_OUT, migrations_of, tables_of
from iotsupport.models import ApiToken, Board, KnownNetwork
from iotsupport.tests.support.api_client import make_administrator, make_token, make_user
from notifications.messages import CONFIGS_TOPIC
from notifications.models import Announcement

MAC = "aa-bb-cc-dd-ee-ff"
# Not normalised, a line separator, a number that no float holds, and what JSON writes as an escape.
CONTENT = '{"b": 1,\n\t"a": 12345678901234567890.10, "e\u0301": "\u2028\\u0000", "deviceName": "Lamp \U0001f4a1"}'
MOMENT = datetime(2024, 2, 29, 23, 59, 59, 123456, UTC)
FIRMWARE = b"\0\xff" * 1000


def fill() -> None:
    """Have something of everything."""
    admin, editor = make_administrator(), make_user("devices.change_deviceconfig", username="Ede\u0301")
    group = Group.objects.create(name="Editors")
    group.permissions.add(*Permission.objects.filter(codename__startswith="view_"))
    editor.groups.add(group)
    make_token(admin, "read-configs", description="CI", expires_at=MOMENT)
    kind = DeviceType.objects.create(name="Lamp", schema='{"type": "object"}')
    for number in range(3):
        DeviceConfig.objects.put(MAC, CONTENT.replace("1,", f"{number},", 1), user=editor)
    DeviceConfig.objects.filter(mac_address=MAC).update(type=kind, created_at=MOMENT)
    DeviceConfig.objects.put("00-00-00-00-00-01", "{}")
    DeviceConfig.objects.put("00-00-00-00-00-02", "{}").delete()
    Asset.objects.upload("firmware.bin", [b"first"], user=admin)
    Asset.objects.upload("firmware.bin", [FIRMWARE])
    Asset.objects.upload("empty.txt", [])
    Asset.objects.upload("gone.txt", [b"gone"]).delete()
    Asset.objects.filter(filename="empty.txt").update(warnings=["Küche", "e\u0301"])
    SchemaDraft.objects.create(type=kind, typed_by=admin, based_on="", found=[[1, MAC, "no"]], tried_after=None)
    Board.objects.filter(mac_address=MAC).update(last_seen=MOMENT, last_address="2001:db8::1", asked=2**62)
    KnownNetwork.objects.create(user=admin, network="192.0.2.0", used_at=MOMENT)
    Announcement.objects.record(CONFIGS_TOPIC, f"{MAC}.json", is_bulk=False, claimed_by="somebody")
    content_type = ContentType.objects.get_for_model(DeviceConfig)
    LogEntry.objects.create(user=admin, content_type=content_type, object_id="1", action_flag=CHANGE)
    change = Change.objects.begin({MAC: None}, kind=Kind.PATCH, patch='{"a": null}', created_by=admin, worked_by="me")
    done = Change.objects.create(kind=Kind.UNDO, state=State.APPLYING, undoes=change, reason="e\u0301")
    ChangeItem.objects.create(change=done, mac_address=MAC, state=ItemState.CHANGED, given={"text": "\0"}, version=2)
    assert ApiToken.objects.exists()


def told() -> dict[str, list[bytes]]:
    """Every row that a backup has, in a form that does not depend on the database."""
    tables = tables_of(migrations_of(DEFAULT_DB_ALIAS)).values()
    return {table.label: [table.encode(row) for row in table.select(DEFAULT_DB_ALIAS)] for table in tables}


def stored() -> dict[str, list[Any]]:
    """The same as the database itself has it."""
    rows = {}
    with connection.cursor() as cursor:
        for label, table in tables_of(migrations_of(DEFAULT_DB_ALIAS)).items():
            assert label not in LEFT_OUT
            key = table.model._meta.pk.column
            cursor.execute(f"SELECT * FROM {table.model._meta.db_table} ORDER BY {key}")  # noqa: S608
            rows[label] = cursor.fetchall()
    return rows


def back_up(path: Path, **options: Any) -> Path:
    call_command("backup", str(path), stdout=io.StringIO(), **options)
    return path


def restore(path: Path, **options: Any) -> str:
    """Return what the command said."""
    said = io.StringIO()
    call_command("restore", str(path), stdout=said, **options)
    return said.getvalue()


# --- Archives that nobody made ---


def open_up(archive: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return its members without the manifest, and that."""
    with ZipFile(archive) as file:
        members = {name: file.read(name) for name in file.namelist()}
    return members, json.loads(members.pop("manifest.json"))


def forge(
    path: Path, members: dict[str, bytes], manifest: dict[str, Any], *, describe: bool = True, twice: str = ""
) -> Path:
    """Write an archive whose digests are right: by somebody who knows how they are made."""
    written = [*members.items(), *((name, content) for name, content in members.items() if name == twice)]
    if describe:
        manifest["members"] = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in written
        ]
    pipe = _Pipe()
    with ZipFile(pipe, "w", ZIP_STORED) as file:  # type: ignore[call-overload]
        for name, content in [*written, ("manifest.json", json.dumps(manifest).encode())]:
            with file.open(ZipInfo(name), "w", force_zip64=True) as member:
                member.write(content)
        file.comment = bytes(COMMENT_BYTES)
    return seal(path, bytes(pipe.written)[:-COMMENT_BYTES])


def seal(path: Path, data: bytes) -> Path:
    path.write_bytes(data + COMMENT + hashlib.sha256(data).hexdigest().encode())
    return path


class _Pipe:
    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, chunk: bytes) -> int:
        self.written += chunk
        return len(chunk)

    def flush(self) -> None:
        """There is nothing behind it."""

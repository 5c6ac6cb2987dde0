"""What an installation has that was used in every way: rows of every model, with values that are easily lost.

It is made by the code of a release, for :mod:`iotsupport.tests.support.releases` to keep. Whoever adds a model adds
rows of it here: making an archive says which have none.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from axes.models import AccessAttempt, AccessAttemptExpiration, AccessFailureLog, AccessLog
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from assets.models import Asset, PendingUpload, SharedChunk
from assets.uploads import StagedBlob
from devices.changes.models import Change, Kind, State
from devices.changes.planning import begin
from devices.changes.worker import Worker
from devices.models import DeviceConfig, DeviceType, SchemaDraft
from iotsupport.boards.models import Board, HourlyCount
from iotsupport.boards.models import State as BoardState
from iotsupport.database import is_shared
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.housekeeping import EVERY, NAME
from iotsupport.models import KnownNetwork, Throttle
from iotsupport.tests.support.api_client import make_token, make_user, read, session_client
from iotsupport.tests.support.images import make_image
from notifications.models import Announcement

PASSWORD = "Grüße, 鳩 & mirrors"

# A number that fits no float, an escaped null character, order, spelling and blanks of their own.
AWKWARD = (
    '{\r\n\t"deviceName" : "Küche 厨房 \U0001f426", "null": "\\u0000",  "deviceEntityId": "light.Küche",\r\n'
    '\t"big": 123456789012345678901234567890, "small": 1.50E-3, "zero": -0.0,\n  "a": {"z": 1, "b": [ ]},'
    ' "enableOTA": true }\n \n'
)
LARGE = json.dumps({"deviceName": "Große", "filling": "ü" * 20_000}, ensure_ascii=False)
SCHEMA = '{ "properties": {"pin": {"type": "integer", "maximum": 40}},\n "required": ["pin"] }'

# Of configurations of which a change is in the middle: nothing else is owed for them.
IN_THE_MIDDLE = [f"02-aa-00-00-00-{number:02x}" for number in range(3)]


def mac(number: int) -> str:
    return f"02-bb-cc-dd-ee-{number:02x}"


def fill() -> dict[str, Any]:
    """Fill an empty installation, and return what only its users know. Announcements are owed if a broker is set."""
    people = _add_people()
    facts = _add_access(*people)
    _add_types(people[0])
    with changing(Origin(Way.ADMIN, user=people[0], reason="„Weil’s so ist“\n<b>zweite Zeile</b>")):
        _add_configs(people[0])
        _add_assets(people[0])
    _use_the_api(facts["token"])
    _add_boards()
    _add_changes(people[0])
    _add_what_is_counted(people[1])
    _add_debts()
    return facts | {
        "in_the_middle": [f"{address}.json" for address in IN_THE_MIDDLE],
        "owed": sorted(Announcement.objects.owed().values_list("topic", "filename")),
        "etags": _etags(),
    }


def models_without_rows() -> list[str]:
    """Those of which an installation has rows, and this one has none."""
    tables = [model for model in apps.get_models(include_auto_created=True) if not model._meta.proxy]
    never = [] if is_shared(connection) else [SharedChunk]
    return [model._meta.label for model in tables if model not in never and not model._base_manager.exists()]


def _add_people() -> tuple[User, User]:
    admin = User.objects.create_superuser("admin", "admin@example.com", PASSWORD, first_name="Zoë", last_name="O’Neill")
    group = Group.objects.create(name="Küche & Keller")
    group.permissions.add(*Permission.objects.filter(content_type__app_label="devices"))
    editor = make_user("assets.view_asset", "notifications.view_announcement", username="änne", is_staff=True)
    editor.groups.add(group)
    make_user(username="gone", is_active=False)
    return admin, editor


def _add_access(admin: User, editor: User) -> dict[str, Any]:
    now = timezone.now()
    token = make_token(admin, description="CI „größer“")
    narrow = make_token(editor, "read-configs", "read-assets", description="liest nur")
    make_token(editor, expires_at=now - timedelta(days=1), description="expired")
    make_token(editor, revoked_at=now, last_used_at=now)
    for network in ["192.0.2.7", "2001:db8:1:2::"]:
        KnownNetwork.objects.note(admin, network)
    session_client(admin)
    seen: dict[str, Any] = {"user_agent": "Mózilla", "ip_address": "2001:db8::", "username": "rät"}
    attempt = AccessAttempt.objects.create(
        **seen, get_data="", post_data="username=rät", failures_since_start=2_147_483_647, path_info="/admin/login/"
    )
    AccessAttemptExpiration.objects.create(access_attempt=attempt, expires_at=now)
    AccessFailureLog.objects.create(**seen, locked_out=True)
    AccessLog.objects.create(**seen, session_hash="")
    return {"token": token, "narrow_token": narrow, "password": PASSWORD}


def _add_types(admin: User) -> None:
    lamp = DeviceType(name="Lampe „süd“", description="Ümläute", schema=SCHEMA, starting_content='{ "pin": 7.0e0 }')
    lamp.updated_by = admin
    lamp.save()
    DeviceType.objects.create(name="gone", schema="{}").delete()
    draft = SchemaDraft.of(lamp, based_on=lamp.fingerprint, typed_by=admin)
    draft.schema = '{"required": ["pin", "größe"]}'
    draft.found, draft.misfits, draft.total, draft.tried_after = [[1, mac(3), "„größe“ is missing."]], 1, 2, None
    draft.save()


def _add_configs(admin: User) -> None:
    put = DeviceConfig.objects.put
    put(mac(1), '{"deviceName": "first"}', user=admin)
    put(mac(1), AWKWARD, user=admin)
    put(mac(2), LARGE)
    for text in ["{}", '{"a": 1}', '{"a": 1.0}']:
        put(mac(4), text)
        DeviceConfig.objects.get(mac_address=mac(4)).delete()
    put(mac(4), '{"deviceName": "back", "enableOTA": false}')
    put(mac(5), '{"deviceName": "deleted"}')
    DeviceConfig.objects.get(mac_address=mac(5)).delete()
    lamp = DeviceType.objects.get()
    for number, text in [(3, '{"pin": "none"}'), (6, '{"pin": 39}')]:
        config = DeviceConfig(mac_address=mac(number), content=text, type=lamp)
        config.although_it_does_not_fit = number == 3
        config.save()
    lamp.schema = SCHEMA.replace("40", "38")  # its configurations are still to be judged by it
    lamp.save()
    DeviceConfig.history.filter(mac_address=mac(2)).update(history_forgotten=2_147_483_647, history_way=None)


def _add_assets(admin: User) -> None:
    upload = Asset.objects.upload
    for number in [1, 2, 3]:
        upload("firmware.bin", [make_image(version=b"1.4.%d" % number)], user=admin)
    upload("half.bin", [make_image(project=b"half")[:-1]])
    upload("empty", [b""])
    upload("Schrift größe 字 ’x’.ttf", [b"glyphs", bytes(range(256))])
    upload(f"{'n' * 196}.bin", [b"long"])
    upload("gone.bin", [b"gone"])
    Asset.objects.get(filename="gone.bin").delete()
    asset = Asset.objects.get(filename="firmware.bin")
    asset.unchanged_where_running = True
    asset.save_choice()
    blob = StagedBlob()
    blob.write(b"waits for an answer")
    blob.prepare()
    with transaction.atomic():
        PendingUpload.objects.keep(blob, "firmware.bin", admin)


def _use_the_api(token: str) -> None:
    script = Client(headers={"Authorization": f"Bearer {token}", "X-Change-Reason": "nightly"})
    body = '{"deviceName": "by the API"}'
    answer = script.put(f"/configs/{mac(7)}.json", body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    answer = script.post(f"/configs/{mac(1)}/versions/1/restore")
    assert answer.status_code == 200, answer.content
    answer = script.post(f"/configs/{mac(1)}/versions/2/restore")
    assert answer.status_code == 200, answer.content


def _add_boards() -> None:
    now, boards = timezone.now(), Board.objects
    seen: dict[str, Any] = {"first_seen": now - timedelta(days=400), "last_seen": now, "user_agent": "ESP32 ü\x7f" * 20}
    for number, state in [(1, BoardState.CURRENT), (2, BoardState.BEHIND)]:
        holds = boards.get(pk=mac(number)).config_sha256 if state == BoardState.CURRENT else "f" * 64
        boards.filter(pk=mac(number)).update(
            **seen, state=state, holds_sha256=holds, holds_since=now, holds_at=now, chip_size=2**63 - 1
        )
    boards.filter(pk=mac(2)).update(behind_since=now, runs_version="1.4.2", runs_filename="firmware.bin")
    boards.filter(pk=mac(5)).update(last_address="2001:db8::5", address_before="192.0.2.5", two_addresses_at=now)
    waits: dict[str, Any] = {"state": BoardState.WAITING, "waiting_since": now, "asked": 2**62}
    boards.create(mac_address=mac(0xF0), **waits, **seen)


def _add_changes(admin: User) -> None:
    worker = Worker()

    def plan(patch: str, addresses: list[str], **fields: Any) -> Change:
        fields = {"kind": Kind.PATCH, "patch": patch, "created_by": admin, "chosen_by": "„süd“", **fields}
        return begin(dict.fromkeys(addresses), **fields)

    def apply(change: Change) -> Change:
        change.apply(admin, token="CI „größer“", leave_out=False)
        while worker.work():
            pass
        change.refresh_from_db()
        return change

    both = [mac(1), mac(4)]
    applied = apply(plan('{"ü": 1.0}', both, reason="„applied“"))
    apply(begin(dict(applied.items.values_list("mac_address", "version")), kind=Kind.UNDO, undoes=applied,
                created_by=admin))  # fmt: skip
    plan('{"ü": 2}', both, reason="planned")
    plan('{"pin": 99}', [mac(6), mac(4)], reason="refused")
    skipped = plan('{"ü": 3}', both, reason="skipped")
    DeviceConfig.objects.put(mac(4), '{"deviceName": "since the plan"}')
    apply(skipped)
    stopped = plan('{"ü": 4}', both, reason="stopped")
    stopped.apply(admin, token=None, leave_out=False)
    stopped.stop(admin)
    plan("", both, kind=Kind.TYPE, type=DeviceType.objects.get(), type_name="Lampe „süd“")
    # The process that worked at these is gone.
    for address in IN_THE_MIDDLE:
        DeviceConfig.objects.put(address, '{"deviceName": "in the middle"}')
    change = plan('{"ü": 5}', IN_THE_MIDDLE, reason="applying")
    change.apply(admin, token=None, leave_out=False)
    given = dict.fromkeys(both)
    Change.objects.begin(given, kind=Kind.ANNOUNCE, created_by=admin, reason="planning", worked_by="gone")
    states = set(Change.objects.values_list("state", flat=True))
    assert states == set(State.values), states


def _add_what_is_counted(editor: User) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    HourlyCount.objects.create(hour=hour, kind=HourlyCount.DOWNLOADS, count=2**62)
    assert Throttle.objects.take(NAME, EVERY)
    LogEntry.objects.create(
        user=editor,
        content_type=ContentType.objects.get_for_model(DeviceConfig),
        object_id=str(DeviceConfig.objects.get(mac_address=mac(1)).pk),
        object_repr="„größe“",
        action_flag=CHANGE,
        change_message='[{"changed": {"fields": ["Konfiguration ü"]}}]',
    )


def _add_debts() -> None:
    """Of all that was saved, some were announced, some were refused by the broker, some are a dead process's."""
    now, rows = timezone.now(), Announcement.objects
    done: dict[str, Any] = {"owed_since": None, "announced_at": now, "claimed_by": "", "claimed_until": None}
    rows.filter(filename__in=["empty", "half.bin", f"{mac(2)}.json"]).update(**done)
    rows.filter(filename__in=[f"{address}.json" for address in IN_THE_MIDDLE]).update(**done)
    rows.filter(filename="firmware.bin").update(tries=7, last_error="The broker refused it: „größe“", retry_at=now)
    rows.filter(filename=f"{mac(1)}.json").update(claimed_by="4711-gone", claimed_until=now, revision=2**62 - 1)
    rows.filter(filename=f"{mac(4)}.json").update(is_bulk=True)


def _etags() -> dict[str, str]:
    """Of each download, by its path; each has the row's bytes."""
    paths = [f"/configs/{config.filename}" for config in DeviceConfig.objects.all()]
    paths += [f"/assets/{asset.filename}" for asset in Asset.objects.all()]
    answers = {path: read(Client().get(quote(path))).response for path in paths}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {path: answer["ETag"] for path, answer in answers.items()}

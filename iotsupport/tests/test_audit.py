"""The audit: a line for each change, once it is committed; who, what, by which way, from where, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import transaction
from django.test import Client

from assets.models import Asset
from devices.models import DeviceConfig, DeviceType
from devices.writing import Write, write_many
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.models import ApiToken
from iotsupport.monitoring.logs import FIELDS, LINE_FORMAT, JsonFormatter, LineFormatter
from notifications.models import Announcement

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC, OTHER = "aa-bb-cc-dd-ee-ff", "aa-bb-cc-dd-ee-00"
ADD = "/admin/devices/deviceconfig/add/"


class Kept(logging.Handler):
    """What was logged: the fields of each record, and the texts of both formats."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(getattr(record, FIELDS, {}))
        self.texts += [LineFormatter(LINE_FORMAT).format(record), JsonFormatter().format(record)]


@pytest.fixture
def audit() -> Iterator[Kept]:
    kept, logger = Kept(), logging.getLogger("iotsupport.audit")
    logger.addHandler(kept)
    yield kept
    logger.removeHandler(kept)


def make_secret(user: User, description: str) -> str:
    token = ApiToken(user=user, description=description)
    secret = token.generate()
    token.save()
    return secret


def test_a_save_in_the_admin(admin_client: Client, audit: Kept):
    admin_client.post(
        ADD,
        {"mac_address": MAC, "content": "{}", "reason": "A new lamp"},
        headers={"X-Request-ID": "of-nginx", "X-Forwarded-For": "192.0.2.7"},
    )

    version = DeviceConfig.history.get()
    [told] = audit.told
    assert told == {
        "action": "created",
        "model": "devices.deviceconfig",
        "name": MAC,
        "version_id": version.pk,
        "who": "admin",
        "way": "admin",
        "address": "192.0.2.7",
        "reason_chars": len("A new lamp"),
    }
    line, as_json = audit.texts
    assert line.endswith(
        f" INFO iotsupport.audit [of-nginx]: action=created model=devices.deviceconfig name={MAC}"
        f" version_id={version.pk} who=admin way=admin address=192.0.2.7 reason_chars=10"
    )
    said = json.loads(as_json)
    assert said["request_id"] == "of-nginx"
    assert said["who"] == "admin"


@pytest.mark.both_databases
def test_what_a_script_does(admin_user: User, audit: Kept):
    headers = {"authorization": f"Bearer {make_secret(admin_user, 'nightly build')}"}
    audit.told.clear()

    script = Client(headers=headers)
    script.put(f"/configs/{MAC}.json", '{"a": 1}', content_type="application/json")
    script.put(f"/configs/{MAC}.json", '{"a": 2}', content_type="application/json")
    script.post("/assets", {"file": SimpleUploadedFile("a b.bin", b"x")})
    script.delete(f"/configs/{MAC}")
    script.post(f"/configs/{MAC}/versions/1/restore")
    script.put("/types/lamp", {"schema": {}}, content_type="application/json")

    assert [(told["action"], told["model"], told["name"], told.get("part_of")) for told in audit.told] == [
        ("created", "devices.deviceconfig", MAC, None),
        ("changed", "devices.deviceconfig", MAC, None),
        ("created", "assets.asset", "a b.bin", None),
        ("deleted", "devices.deviceconfig", MAC, None),
        ("created", "devices.deviceconfig", MAC, "restore"),
        ("created", "devices.devicetype", "lamp", None),
    ]
    for told in audit.told:
        assert (told["who"], told["way"], told["token"], told["address"]) == (
            "admin",
            "api",
            "nightly build",
            "127.0.0.1",
        )
    assert 'name="a b.bin"' in audit.texts[-8]


def test_many_together_are_a_line_for_each_step(admin_user: User, audit: Kept):
    DeviceConfig.objects.put(OTHER, "{}")
    before = DeviceConfig.objects.get().content_sha256
    audit.told.clear()

    with changing(Origin(Way.BULK, admin_user, "nightly", "A new broker", "change 7")):
        write_many([Write(MAC, None, '{"a": 1}'), Write(OTHER, before, '{"a": 2}')])

    [told] = audit.told
    assert told == {
        "action": "saved together",
        "model": "devices.deviceconfig",
        "created": 1,
        "changed": 1,
        "who": "admin",
        "way": "bulk",
        "token": "nightly",
        "part_of": "change 7",
        "reason_chars": 12,
    }


def test_an_import_by_a_command(tmp_path: Path, audit: Kept):
    for number in range(3):
        (tmp_path / f"aa-bb-cc-dd-ee-0{number}.json").write_text("{}")

    call_command("import_configs", str(tmp_path), stdout=io.StringIO())

    [told] = audit.told
    assert (told["created"], told["way"], told["part_of"]) == (3, "command", "import")
    assert "who" not in told


def test_what_is_refused_or_rolled_back_is_not_told(admin_client: Client, audit: Kept):
    admin_client.post(ADD, {"mac_address": MAC, "content": "{"})
    with suppress(ZeroDivisionError), transaction.atomic():
        DeviceConfig.objects.put(MAC, "{}")
        User.objects.create(username="nobody")
        raise ZeroDivisionError

    assert audit.told == []


def test_it_is_told_when_it_is_committed(audit: Kept):
    with transaction.atomic():
        DeviceConfig.objects.put(MAC, "{}")
        assert audit.told == []

    assert len(audit.told) == 1


def test_accounts_and_rights(audit: Kept):
    maria = User.objects.create_user("maria", password="pigeons-and-mirrors", is_staff=True)
    group = Group.objects.create(name="Those of the night")
    maria.groups.add(group)
    maria.groups.add(group)  # again, which changes nothing
    group.user_set.clear()
    maria.set_password("swallows-return")
    maria.save()
    maria.delete()
    group.delete()

    assert [[told[name] for name in ["action", "model", "name"]] for told in audit.told] == [
        ["created", "auth.user", "maria"],
        ["created", "auth.group", "Those of the night"],
        ["added groups", "auth.user", "maria"],
        ["removed all users", "auth.group", "Those of the night"],
        ["changed", "auth.user", "maria"],
        ["deleted", "auth.user", "maria"],
        ["deleted", "auth.group", "Those of the night"],
    ]
    assert audit.told[0]["rights"] == "active,staff"
    assert audit.told[2]["which"] == "Those of the night"
    assert audit.told[4]["password"] == "new"


def test_tokens(admin_client: Client, admin_user: User, audit: Kept):
    secret = make_secret(admin_user, "nightly build")
    token = ApiToken.objects.get()
    token.revoke()
    token.delete()
    for _ in range(2):
        make_secret(admin_user, "another")
    admin_user.set_password("swallows-return")
    admin_user.save()

    told = [each for each in audit.told if each["model"] == "iotsupport.apitoken"]
    assert [(each["action"], each.get("name"), each.get("count")) for each in told] == [
        ("created", "nightly build", None),
        ("revoked", "nightly build", None),
        ("deleted", "nightly build", None),
        ("created", "another", None),
        ("created", "another", None),
        ("revoked", None, 2),
    ]
    assert told[0]["of_user"] == "admin"
    assert told[-1]["why"] == "new password of admin"
    assert secret[4:] not in "".join(audit.texts)


def test_signing_in_and_out(audit: Kept):
    User.objects.create_user("maria", password="pigeons-and-mirrors", is_staff=True)
    audit.told.clear()
    browser = Client()

    browser.post("/admin/login/", {"username": "maria", "password": "wrong"})
    browser.post("/admin/login/", {"username": "maria", "password": "pigeons-and-mirrors"})
    browser.post("/admin/logout/")

    assert [(told["action"], told["name"], told["who"], told["address"]) for told in audit.told] == [
        ("signed in", "maria", "maria", "127.0.0.1"),
        ("signed out", "maria", "maria", "127.0.0.1"),
    ]


def test_announcing_again(audit: Kept):
    Announcement.objects.record_again("iotsupport/updates/configs", [f"{MAC}.json", f"{OTHER}.json"])
    Announcement.objects.record_again("iotsupport/updates/configs", [f"{MAC}.json"])

    assert [(told["action"], told.get("name"), told["topic"], told["count"]) for told in audit.told] == [
        ("announced again", None, "iotsupport/updates/configs", 2),
        ("announced again", f"{MAC}.json", "iotsupport/updates/configs", 1),
    ]


def test_what_people_write_makes_no_line_of_its_own(audit: Kept):
    hostile = 'x"\n2026-01-01 INFO iotsupport.audit: action=deleted \u202e\x1b[2J'
    with changing(Origin(Way.API, token=hostile)):
        DeviceConfig.objects.put(MAC, "{}")

    line, as_json = audit.texts
    assert line.isprintable()
    assert line.count(" action=") == 2 and 'token="x\\"\\\\n2026' in line
    assert json.loads(as_json)["token"].isprintable()


class TestNothingThatIsLogged:
    """Everything of ours at DEBUG, through whatever logs."""

    CANARY = "canary-7c1f"

    @pytest.fixture
    def everything(self) -> Iterator[Kept]:
        kept, loggers = Kept(), [logging.getLogger(name) for name in ["iotsupport", "devices", "assets"]]
        loggers += [logging.getLogger(name) for name in ["notifications", "django.request", "django.security"]]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addHandler(kept)
            logger.setLevel(logging.DEBUG)
        yield kept
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)

    def test_has_a_secret_or_what_was_saved(self, admin_client: Client, admin_user: User, everything: Kept):
        canary, text = self.CANARY, json.dumps({"key": self.CANARY})
        admin_client.raise_request_exception = False
        User.objects.create_user("maria", password=canary, is_staff=True)
        for password in [canary + "-wrong", canary]:
            Client(headers={"Cookie": f"sessionid={canary}"}).post(
                "/admin/login/", {"username": "maria", "password": password, "content": text}
            )
        admin_client.post(ADD, {"mac_address": MAC, "content": text, "reason": canary})
        for content in [f'{{"{canary}": }}', f'{{"a": 1, "a": "{canary}"}}', f'["{canary}"]']:
            admin_client.post(ADD, {"mac_address": OTHER, "content": content, "reason": canary})
        admin_client.post("/admin/password_change/", {"old_password": canary, "new_password1": canary})
        secret = make_secret(admin_user, "nightly build")
        script = Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)
        for content in [text, text[:-1], f'"{canary}', "\x00", canary * 20_000]:
            script.put(f"/configs/{MAC}.json", content, content_type="application/json")
            script.put(f"/configs/{MAC}", {"content": content}, content_type="application/json")
        script.post("/assets", {"file": SimpleUploadedFile("firmware.bin", canary.encode())})
        Client(headers={"Authorization": f"Bearer {canary}", "X-Canary": canary}).get("/configs")
        Client(headers={"Authorization": f"Basic {canary}"}).put(f"/configs/{MAC}.json", text)
        DeviceType.objects.create(name="lamp", schema=json.dumps({"description": canary}))

        assert DeviceConfig.objects.get(mac_address=MAC).content
        assert Asset.objects.exists()
        assert len(everything.told) > 5
        for line in everything.texts:
            assert canary not in line
            assert secret[8:] not in line

    def test_of_a_fault_has_what_functions_held(
        self, admin_client: Client, everything: Kept, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError("a fault")

        monkeypatch.setattr(DeviceConfig, "save", fail)
        admin_client.raise_request_exception = False

        answer = admin_client.post(ADD, {"mac_address": MAC, "content": json.dumps({"key": self.CANARY})})

        assert answer.status_code == 500
        assert any("ZeroDivisionError: a fault" in line for line in everything.texts)
        assert not any(self.CANARY in line for line in everything.texts)

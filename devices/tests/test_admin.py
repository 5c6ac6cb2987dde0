"""Configurations in the admin: what is refused and how, who did what, and what it costs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from devices.models import DeviceConfig
from iotsupport.mirror.files import MirrorError, MirrorStorage, StagedFile, mirror_storage
from iotsupport.tests.support.api_client import counted, make_user, metric, nothing_changed, session_client

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
LIST = "/admin/devices/deviceconfig/"
ADD = f"{LIST}add/"


@pytest.fixture
def config() -> DeviceConfig:
    return DeviceConfig.objects.put(MAC, '{"deviceName": "Lamp"}')


def change_url(config: DeviceConfig) -> str:
    return f"{LIST}{config.pk}/change/"


def typed(response: Any) -> str:
    """The text in the form that is shown again; its HTML is written without a library's help."""
    html = response.content.decode()
    area = html[html.index("<textarea") : html.index("</textarea>")]
    # The first newline is HTML's, not the text's.
    return area.partition(">\n")[2].replace("&quot;", '"').replace("\r\n", "\n")


def errors(response: Any) -> str:
    return " ".join(message for messages in form(response).errors.values() for message in messages)


def form(response: Any) -> Any:
    return response.context_data["adminform"].form


def messages(signed_in: Client) -> list[str]:
    """What the next page says."""
    return [f"{message.level_tag}: {message}" for message in signed_in.get(LIST).context["messages"]]


def full_disk() -> Any:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return mock.patch.object(StagedFile, "sync", autospec=True, side_effect=error)


def read_only() -> Any:
    error = MirrorError("The configurations directory cannot be written.")
    return mock.patch.object(MirrorStorage, "check_writable", autospec=True, side_effect=error)


def test_the_list_costs_the_same_for_5_and_50_devices(signed_in: Client, administrator: User):
    def queries() -> list[str]:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            signed_in.get(LIST)
        return [query["sql"] for query in captured]

    def add(numbers: range) -> None:
        for number in numbers:
            DeviceConfig.objects.put(f"02-00-00-00-00-{number:02x}", "{}", user=administrator)

    add(range(5))
    few = queries()
    add(range(5, 50))
    many = queries()

    assert len(many) == len(few)
    assert sum("COUNT(" in query for query in many) == 1


def test_the_list_offers_no_choice_of_people(signed_in: Client, config: DeviceConfig):
    html = signed_in.get(LIST).content.decode()

    assert "By updated by" not in html


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "term", ["aa:bb:cc:dd:ee:ff", "AABBCCDDEEFF", "aabbc", "b:cc", ":ee:ff", "ee-ff", "lamp", "LIGHT.LAMP"]
)
def test_finds_a_device_by(signed_in: Client, term: str):
    DeviceConfig.objects.put(MAC, '{"deviceName": "Lamp", "deviceEntityId": "light.lamp"}')
    DeviceConfig.objects.put("02-00-00-00-00-01", '{"deviceName": "Clock: hall", "deviceEntityId": "sensor.clock"}')

    response: Any = signed_in.get(LIST, {"q": term})

    assert [row.mac_address for row in response.context_data["cl"].result_list] == [MAC]


@pytest.mark.both_databases
def test_finds_a_name_with_a_colon_in_it(signed_in: Client, config: DeviceConfig):
    DeviceConfig.objects.put("02-00-00-00-00-01", '{"deviceName": "Clock: hall"}')

    response: Any = signed_in.get(LIST, {"q": "clock: hall"})

    assert [row.device_name for row in response.context_data["cl"].result_list] == ["Clock: hall"]


def test_remembers_who_added_a_configuration(signed_in: Client, administrator: User):
    with counted("iot_config_operations_total", operation="save", status="success"):
        response = signed_in.post(ADD, {"mac_address": "AA:BB:CC:DD:EE:FF", "content": '{"enableOTA": true}'})

    config = DeviceConfig.objects.get()
    assert (response.status_code, response["Location"]) == (302, LIST)
    assert (config.mac_address, config.enable_ota, config.updated_by) == (MAC, True, administrator)
    assert (config.history.get().history_type, config.history.get().history_user) == ("+", administrator)


@pytest.mark.both_databases
def test_remembers_who_changed_a_configuration(signed_in: Client, administrator: User, config: DeviceConfig):
    signed_in.post(change_url(config), {"content": '{"deviceName": "Torch"}', "based_on": config.etag})

    config.refresh_from_db()
    assert (config.device_name, config.updated_by) == ("Torch", administrator)
    assert (config.history.latest().history_type, config.history.latest().history_user) == ("~", administrator)


REFUSED = {
    "nothing": ("", "This field is required."),
    "white space": (" \n", "Line 2, column 1: nothing is here."),
    "broken": ('{"a": 1,\n"b"}', "Line 2, column 4: a colon is missing here"),
    "array": ("[1]", "Line 1, column 1: write one JSON object"),
    "duplicate key": ('{"a": 1, "a": 2}', 'Line 1, column 10: the key "a" is in this object already.'),
    "not a number": ('{"a": NaN}', "Line 1, column 7: NaN is no number in JSON."),
    "overflow": ('{"a": 1e999}', "Line 1, column 7: the number 1e999 is too large"),
    "half a character": ('{"a": "\\ud800"}', "is half a character."),
    "nesting": ('{"a":' * 101 + "1" + "}" * 101, "brackets are nested more than 100 deep."),
    "size": ('{"a": "' + "x" * 65536 + '"}', "65536 are allowed. Shorten it"),
}


@pytest.mark.parametrize(
    ("content", "reason"),
    # Each leaves the row as it was, in the same way: one of them shows that on both databases.
    [
        pytest.param(*refused, id=name, marks=pytest.mark.both_databases if name == "broken" else ())
        for name, refused in REFUSED.items()
    ],
)
def test_shows_again_what_is_refused(signed_in: Client, config: DeviceConfig, content: str, reason: str):
    with nothing_changed(), counted("iot_config_operations_total", operation="save", status="error"):
        response = signed_in.post(change_url(config), {"content": content, "based_on": config.etag})

    assert response.status_code == 200
    assert reason in errors(response)
    assert typed(response) == content


def test_shows_a_refused_mac_address_again(signed_in: Client):
    with nothing_changed():
        response = signed_in.post(ADD, {"mac_address": "aa-bb-cc-dd-ee", "content": "{}"})

    assert "This is not a MAC address: write six pairs of hexadecimal digits" in errors(response)
    assert 'value="aa-bb-cc-dd-ee"' in response.content.decode()
    assert typed(response) == "{}"


@pytest.mark.both_databases
def test_a_device_has_one_configuration(signed_in: Client, config: DeviceConfig):
    with nothing_changed():
        response = signed_in.post(ADD, {"mac_address": "AABBCCDDEEFF", "content": '{"second": 2}'})

    assert "This device has a configuration already, and nothing of it is overwritten" in errors(response)
    assert typed(response) == '{"second": 2}'


@pytest.mark.parametrize("url", [lambda config: ADD, change_url], ids=["add", "change"])
def test_says_that_the_disk_is_full(signed_in: Client, config: DeviceConfig, url: Callable[[DeviceConfig], str]):
    fields = {"mac_address": "02-00-00-00-00-01", "content": '{"typed": 1}'}
    with nothing_changed(), full_disk(), counted("iot_config_operations_total", operation="save", status="error"):
        response = signed_in.post(url(config), fields)

    assert response.status_code == 200
    assert "Nothing was saved. No room is left on the disk of the configs directory." in errors(response)
    assert typed(response) == '{"typed": 1}'


@pytest.mark.both_databases
def test_keeps_what_was_typed_while_the_database_fails(signed_in: Client, config: DeviceConfig):
    full = OperationalError("database or disk is full")
    with nothing_changed(), mock.patch.object(DeviceConfig, "save", autospec=True, side_effect=full):
        response = signed_in.post(change_url(config), {"content": '{"typed": 1}'})

    assert "Nothing was saved. The database could not store it (database or disk is full)." in errors(response)
    assert typed(response) == '{"typed": 1}'


def test_warns_where_a_saved_row_has_no_file_yet(signed_in: Client, config: DeviceConfig):
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    with mock.patch.object(MirrorStorage, "replace", autospec=True, side_effect=broken):
        response = signed_in.post(change_url(config), {"content": '{"deviceName": "Torch"}'})

    assert response.status_code == 302
    assert DeviceConfig.objects.get().device_name == "Torch"
    assert messages(signed_in)[-1].startswith(
        f"warning: The change is saved, but the file of {MAC}.json is not up to date"
    )


@pytest.mark.both_databases
def test_does_not_overwrite_what_changed_meanwhile(signed_in: Client, config: DeviceConfig):
    old_etag = config.etag
    changed = DeviceConfig.objects.put(MAC, '{"other": 1}')

    with nothing_changed():
        response = signed_in.post(change_url(config), {"content": '{"mine": 1}', "based_on": old_etag})

    assert "Somebody else changed this configuration while you were editing." in errors(response)
    assert form(response)["based_on"].value() == f"{changed.etag} 0"
    assert typed(response) == '{"mine": 1}'


def test_a_double_click_on_save_is_no_conflict(signed_in: Client, config: DeviceConfig):
    fields = {"content": '{"mine": 1}', "based_on": config.etag}
    signed_in.post(change_url(config), fields)

    response = signed_in.post(change_url(config), fields)

    assert response.status_code == 302


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("stored", ['{\r\n"a": 1\r\n}\r\n', '{\n"a": 1\n}\n', '{\r"a":\n1\r\n}', "\n{}"])
def test_a_browser_changes_no_line_ends(signed_in: Client, stored: str):
    config = DeviceConfig.objects.put(MAC, stored)
    sent = stored.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")

    signed_in.post(change_url(config), {"content": sent, "based_on": config.etag})

    config.refresh_from_db()
    assert config.content == stored


@pytest.mark.both_databases
def test_counts_each_deleted_configuration(signed_in: Client, config: DeviceConfig):
    other = DeviceConfig.objects.put("02-00-00-00-00-01", "{}")
    before = metric("iot_config_operations_total", operation="delete", status="success")

    selected = {"action": "delete_selected", "_selected_action": [config.pk, other.pk], "post": "yes"}
    signed_in.post(LIST, selected)

    assert not DeviceConfig.objects.exists()
    assert mirror_storage("configs").names() == []
    assert metric("iot_config_operations_total", operation="delete", status="success") == before + 2


@pytest.mark.parametrize("way", ["one", "selected"])
def test_deletes_nothing_where_the_file_cannot_follow(signed_in: Client, config: DeviceConfig, way: str):
    url = {"one": f"{LIST}{config.pk}/delete/", "selected": LIST}[way]
    fields = {"action": "delete_selected", "_selected_action": [config.pk], "post": "yes"}

    with nothing_changed(), read_only(), counted("iot_config_operations_total", operation="delete", status="error"):
        response = signed_in.post(url, fields)

    assert (response.status_code, response["Location"]) == (302, LIST)
    assert messages(signed_in) == ["error: Nothing was changed. The configurations directory cannot be written."]


@pytest.mark.parametrize("url", [lambda config: ADD, change_url], ids=["add", "change"])
def test_who_may_only_look_changes_nothing(config: DeviceConfig, url: Callable[[DeviceConfig], str]):
    guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))

    with nothing_changed(), counted("iot_config_operations_total", operation="save", status="error"):
        response = guest.post(url(config), {"mac_address": "02-00-00-00-00-01", "content": "{}"})

    assert response.status_code == 403


def test_who_may_not_look_sees_nothing(config: DeviceConfig):
    trainee = session_client(make_user(is_staff=True))

    answers = [
        trainee.get(url) for url in [LIST, change_url(config), f"{LIST}versions/{MAC}/", f"{LIST}{config.pk}/history/"]
    ]

    assert [answer.status_code for answer in answers] == [403] * 4


def test_a_save_is_one_transaction_without_savepoints(signed_in: Client, config: DeviceConfig):
    with CaptureQueriesContext(connection) as queries:
        answer = signed_in.post(change_url(config), {"mac_address": MAC, "content": '{"deviceName": "Light"}'})

    assert answer.status_code == 302, errors(answer)
    statements = [query["sql"] for query in queries]
    assert len([text for text in statements if text.startswith("BEGIN")]) == 1
    assert not [text for text in statements if "SAVEPOINT" in text]

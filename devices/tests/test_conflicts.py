"""Two who save one configuration: the second sees both changes, and chooses. Nothing is overwritten unseen."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client

from devices.admin import DeviceConfigAdmin
from devices.models import DeviceConfig, DeviceType
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.tests.support.api_client import counted, make_user, nothing_changed, session_client

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
LIST = "/admin/devices/deviceconfig/"
ADD = f"{LIST}add/"

BASE = '{\n  "deviceName": "Lamp",\n  "room": 4,\n  "enableOTA": true,\n  "reportSeconds": 60\n}\n'
THEIRS = BASE.replace("60", "30")
MINE = BASE.replace("Lamp", "Torch")
BOTH = MINE.replace("60", "30")
AT_ODDS = BASE.replace("60", "20").replace("4", "5")


@pytest.fixture
def config() -> DeviceConfig:
    return DeviceConfig.objects.put(MAC, BASE)


@pytest.fixture
def maria() -> User:
    return make_user(username="maria")


def change_url(config: DeviceConfig) -> str:
    return f"{LIST}{config.pk}/change/"


def save_meanwhile(content: str, origin: Origin) -> DeviceConfig:
    with changing(origin):
        return DeviceConfig.objects.put(MAC, content, user=origin.user)


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", response.content.decode())))


def editor_of(response: Any) -> dict[str, str]:
    """What the form would send that is below both changes."""
    form = response.context_data["adminform"].form
    return {
        name: str(form[name].value() or "") for name in ["mac_address", "content", "based_on"] if name in form.fields
    }


def choices_of(response: Any) -> dict[str, tuple[str, dict[str, str]]]:
    """What each button of the choices would send, and where to."""
    page = response.content.decode()
    forms = re.findall(r'<form method="post" id="\w+_form" action="([^"]+)">(.*?)</form>', page, re.DOTALL)
    return {
        re.findall(r"<button[^>]*>(.*?)</button>", form)[0]: (
            action,
            {
                name: html.unescape(value)
                for name, value in re.findall(r'<input type="hidden" name="(?!csrf)(\w+)" value="([^"]*)">', form)
            },
        )
        for action, form in forms
    }


def choose(client: Client, response: Any, label: str) -> Any:
    action, fields = choices_of(response)[label]
    return client.post(action, fields)


def stored() -> str:
    return DeviceConfig.objects.get().content


@pytest.mark.both_databases
def test_who_saves_second_is_shown_what_it_was_and_both_changes(signed_in: Client, config: DeviceConfig, maria: User):
    save_meanwhile(THEIRS, Origin(Way.API, maria, token="build", reason="Quicker"))

    with nothing_changed(), counted("iot_config_operations_total", operation="save", status="error"):
        asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})

    text = text_of(asked)
    assert "maria changed it just now, by the API (token “build”): Quicker" in text
    page = html.unescape(asked.content.decode())
    assert [f"<pre>{whole}</pre>" in page for whole in [BASE, THEIRS, MINE]] == [True] * 3
    assert re.findall("<mark>(.*?)</mark>", page)[:4] == ["60", "30", "Lamp", "Torch"]


@pytest.mark.parametrize(
    ("label", "expected"), [("Save both", BOTH), ("Save yours alone", MINE)], ids=["both", "mine alone"]
)
def test_changes_of_different_lines_are_offered_together(
    signed_in: Client, config: DeviceConfig, label: str, expected: str
):
    DeviceConfig.objects.put(MAC, THEIRS)
    asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})

    saved = choose(signed_in, asked, label)

    assert (saved.status_code, stored()) == (302, expected)


def test_the_editor_below_has_both_and_saves_what_is_typed_on(signed_in: Client, config: DeviceConfig):
    DeviceConfig.objects.put(MAC, THEIRS)
    asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})

    below = editor_of(asked)
    signed_in.post(change_url(config), below | {"content": below["content"].replace("4", "5")})

    assert below["content"] == BOTH
    assert stored() == BOTH.replace("4", "5")


def test_of_the_same_line_the_editor_has_mine_and_says_where(signed_in: Client, config: DeviceConfig):
    DeviceConfig.objects.put(MAC, THEIRS.replace("Lamp", "Light"))

    asked = signed_in.post(change_url(config), {"content": AT_ODDS, "based_on": config.etag})

    assert editor_of(asked)["content"] == AT_ODDS.replace("Lamp", "Light")
    assert "Where both of you changed the same, they have yours, in line 5." in text_of(asked)
    assert list(choices_of(asked)) == ["Save yours alone"]


def test_who_chooses_is_asked_again_where_it_moved_on(signed_in: Client, config: DeviceConfig):
    DeviceConfig.objects.put(MAC, THEIRS)
    asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})
    DeviceConfig.objects.put(MAC, THEIRS.replace("4", "7"))

    asked_again = choose(signed_in, asked, "Save both")

    assert stored() == THEIRS.replace("4", "7")
    choose(signed_in, asked_again, "Save both")
    assert stored() == BOTH.replace("4", "7")


@pytest.mark.parametrize(
    ("base", "theirs", "mine"),
    [
        ('{"a": 1,\n"b": 2}', '{"a": 1\n}', '{"a": 3,\n"b": 2}'),
        ('{\n"a": 1}', '{\n"a": 1}\n', '{"b": 1,\n"a": 1}'),
    ],
    ids=["not JSON", "nothing at odds"],
)
def test_together_they_are_offered_only_where_boards_can_read_it(signed_in: Client, base: str, theirs: str, mine: str):
    config = DeviceConfig.objects.put(MAC, base)
    DeviceConfig.objects.put(MAC, theirs)

    asked = signed_in.post(change_url(config), {"content": mine, "based_on": config.etag})

    is_json = '"b": 2' not in mine
    assert ("Save both" in choices_of(asked)) is is_json
    assert is_json or editor_of(asked)["content"] == mine


def test_together_they_are_offered_only_where_they_fit_the_type(signed_in: Client, config: DeviceConfig):
    config.type = DeviceType.objects.create(name="Lamp", schema='{"not": {"required": ["x", "y"]}}')
    config.save()
    DeviceConfig.objects.filter(pk=config.pk).update(content=BASE)
    save_meanwhile(BASE.replace("{\n", '{\n  "x": 1,\n'), Origin(Way.ADMIN))

    asked = signed_in.post(
        change_url(config), {"content": BASE.replace("60\n", '60,\n  "y": 1\n'), "based_on": config.etag}
    )

    assert list(choices_of(asked)) == ["Save yours alone"]


def test_lines_end_as_they_do_in_what_is_there(signed_in: Client):
    config = DeviceConfig.objects.put(MAC, BASE.replace("\n", "\r\n"))
    DeviceConfig.objects.put(MAC, THEIRS.replace("\n", "\r\n"))
    asked = signed_in.post(change_url(config), {"content": MINE.replace("\n", "\r\n"), "based_on": config.etag})

    choose(signed_in, asked, "Save both")

    assert stored() == BOTH.replace("\n", "\r\n")


def test_without_the_version_that_it_began_with_both_are_shown(signed_in: Client, config: DeviceConfig):
    DeviceConfig.history.all().delete()
    DeviceConfig.objects.put(MAC, THEIRS)

    asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})

    assert list(choices_of(asked)) == ["Save yours alone"]
    assert editor_of(asked)["content"] == MINE


def test_a_text_with_a_mistake_is_shown_with_it_and_with_what_others_did(signed_in: Client, config: DeviceConfig):
    DeviceConfig.objects.put(MAC, THEIRS)

    asked = signed_in.post(change_url(config), {"content": MINE.replace("true", "tru"), "based_on": config.etag})

    assert "Line 4, column 16: tru stands here without quotes." in text_of(asked)
    assert choices_of(asked) == {}
    assert editor_of(asked)["content"] == MINE.replace("true", "tru")
    saved = signed_in.post(change_url(config), editor_of(asked) | {"content": MINE})
    assert saved.status_code == 302


def test_what_else_keeps_it_from_being_saved_is_told_beside_it(signed_in: Client, config: DeviceConfig):
    def change_meanwhile(error: Exception) -> str:
        DeviceConfig.objects.put(MAC, THEIRS)
        return "The disk is full."

    full = OperationalError("database or disk is full")
    with (
        mock.patch.object(DeviceConfigAdmin, "save_model", autospec=True, side_effect=full),
        mock.patch("iotsupport.admin.explain_database", autospec=True, side_effect=change_meanwhile),
    ):
        asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})

    assert "Nothing was saved. The disk is full." in text_of(asked)
    assert list(choices_of(asked)) == ["Save both", "Save yours alone"]


def test_other_fields_of_the_form_go_with_each_choice(signed_in: Client, config: DeviceConfig):
    DeviceConfig.objects.put(MAC, THEIRS)
    sent = {"content": MINE, "based_on": config.etag, "reason": "<Why> not", "_continue": "1"}

    asked = signed_in.post(change_url(config), sent)

    assert choices_of(asked)["Save both"][1]["reason"] == "<Why> not"
    assert "_continue" not in choices_of(asked)["Save both"][1]


class TestAnotherType:
    @pytest.fixture
    def types(self) -> list[DeviceType]:
        return [DeviceType.objects.create(name=name, schema="{}") for name in ["Lamp", "Clock"]]

    def send(self, client: Client, config: DeviceConfig, type_sent: DeviceType | None, content: str = MINE) -> Any:
        page: Any = client.get(change_url(config))
        based_on = page.context_data["adminform"].form["based_on"].value()
        DeviceConfig.objects.filter(pk=config.pk).update(type=DeviceType.objects.get(name="Lamp"))
        fields = {"content": content, "based_on": based_on, "type": str(type_sent.pk) if type_sent else ""}
        return client.post(change_url(config), fields)

    def test_that_somebody_else_chose_stays(self, signed_in: Client, config: DeviceConfig, types: list[DeviceType]):
        saved = self.send(signed_in, config, None)

        assert saved.status_code == 302
        assert (DeviceConfig.objects.get().type, stored()) == (types[0], MINE)

    def test_than_mine_is_asked_about(self, signed_in: Client, config: DeviceConfig, types: list[DeviceType]):
        asked = self.send(signed_in, config, types[1])

        assert "Somebody else gave it the type “Lamp” while you were editing." in text_of(asked)
        assert DeviceConfig.objects.get().type == types[0]
        signed_in.post(change_url(config), editor_of(asked) | {"type": str(types[1].pk)})
        assert DeviceConfig.objects.get().type == types[1]

    def test_stays_with_each_choice(self, signed_in: Client, config: DeviceConfig, types: list[DeviceType]):
        page: Any = signed_in.get(change_url(config))
        based_on = page.context_data["adminform"].form["based_on"].value()
        DeviceConfig.objects.put(MAC, THEIRS)
        DeviceConfig.objects.update(type=types[0])
        asked = signed_in.post(change_url(config), {"content": MINE, "based_on": based_on, "type": ""})

        choose(signed_in, asked, "Save both")

        assert (DeviceConfig.objects.get().type, stored()) == (types[0], BOTH)


def test_a_deleted_one_is_brought_back_with_my_text(signed_in: Client, config: DeviceConfig, maria: User):
    url, etag = change_url(config), config.etag
    with changing(Origin(Way.ADMIN, maria)):
        config.delete()

    with nothing_changed():
        asked = signed_in.post(url, {"content": MINE.replace("\n", "\r\n"), "based_on": etag})

    assert "maria deleted it just now, in the admin" in text_of(asked)
    assert editor_of(asked)["mac_address"] == MAC
    assert editor_of(asked)["content"] == MINE.replace("\n", "\r\n")
    choose(signed_in, asked, "Bring it back with your text")
    assert stored() == MINE
    assert DeviceConfig.objects.get().is_mirrored()


@pytest.mark.both_databases
def test_one_that_was_deleted_and_added_again_is_one_conflict(signed_in: Client, config: DeviceConfig):
    url, etag = change_url(config), config.etag
    config.delete()
    successor = DeviceConfig.objects.put(MAC, THEIRS)

    asked = signed_in.post(url, {"content": MINE, "based_on": etag})

    action, _ = choices_of(asked)["Save both"]
    assert action == change_url(successor)
    choose(signed_in, asked, "Save both")
    assert stored() == BOTH


def test_what_nobody_knows_any_more_is_added_again(signed_in: Client, config: DeviceConfig):
    url, etag = change_url(config), config.etag
    config.delete()
    DeviceConfig.history.all().delete()

    asked = signed_in.post(url, {"content": MINE, "based_on": etag})

    assert "was deleted while you were editing. Save here to add it again." in text_of(asked)
    assert editor_of(asked)["content"] == MINE


@pytest.mark.both_databases
def test_two_who_add_the_same_device_both_keep_their_text(signed_in: Client, maria: User):
    save_meanwhile(THEIRS, Origin(Way.ADMIN, maria))

    with nothing_changed():
        asked = signed_in.post(ADD, {"mac_address": "AA:BB:CC:DD:EE:FF", "content": MINE})

    row = DeviceConfig.objects.get()
    assert "This device has a configuration already, and nothing of it is overwritten" in text_of(asked)
    assert f'<a href="{change_url(row)}">aa-bb-cc-dd-ee-ff (Lamp)</a>' in asked.content.decode()
    assert "maria added it just now, in the admin" in text_of(asked)
    assert editor_of(asked) == {"mac_address": "AA:BB:CC:DD:EE:FF", "content": MINE, "based_on": ""}
    choose(signed_in, asked, "Replace it with yours")
    assert stored() == MINE


def test_the_same_text_for_the_same_device_replaces_nothing(signed_in: Client, config: DeviceConfig):
    asked = signed_in.post(ADD, {"mac_address": MAC, "content": BASE})

    assert choices_of(asked) == {}
    assert "Both are the same, byte for byte." in text_of(asked)


@pytest.mark.parametrize(
    ("permissions", "sees", "choices"),
    [
        (["add"], False, []),
        (["add", "view"], True, []),
        (["add", "view", "change"], True, ["Replace it with yours"]),
    ],
)
def test_nobody_sees_or_replaces_what_they_may_not(
    config: DeviceConfig, permissions: list[str], sees: bool, choices: list[str]
):
    user = make_user(*(f"devices.{each}_deviceconfig" for each in permissions), is_staff=True)

    asked = session_client(user).post(ADD, {"mac_address": MAC, "content": MINE})

    assert "This device has a configuration already" in text_of(asked)
    assert ("Lamp" in text_of(asked).replace("ff (Lamp)", "")) is sees
    assert list(choices_of(asked)) == choices


def test_nobody_sees_what_was_deleted_who_could_not_change_it(config: DeviceConfig):
    url = change_url(config)
    config.delete()
    newcomer = session_client(make_user("devices.add_deviceconfig", is_staff=True))

    asked = newcomer.post(url, {"content": "{}", "based_on": "x"})

    assert asked.status_code == 403
    assert "reportSeconds" not in text_of(asked)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_people_write_stays_text(signed_in: Client, config: DeviceConfig, is_deleted: bool, maria: User):
    url, etag = change_url(config), config.etag
    evil = "<script>alert(1)</script>"
    with changing(Origin(Way.API, maria, token=evil, reason=evil)):
        if is_deleted:
            config.delete()
        else:
            DeviceConfig.objects.put(MAC, f'{{"a": "{evil}"}}')

    asked = signed_in.post(url, {"content": f'{{"b": "{evil}"}}', "based_on": etag, "reason": f'"{evil}'})

    assert evil not in asked.content.decode()
    assert evil in text_of(asked)


def test_it_costs_no_more_queries_with_a_long_history(
    signed_in: Client, config: DeviceConfig, django_assert_max_num_queries: Callable[..., Any]
):
    for number in range(30):
        DeviceConfig.objects.put(MAC, BASE.replace("60", str(number)))

    with django_assert_max_num_queries(25):
        asked = signed_in.post(change_url(config), {"content": MINE, "based_on": config.etag})

    assert text_of(asked).count("changed it just now") == 20

"""Announcements in the admin: the list, announcing again, and the line on every page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.monitoring import glance
from iotsupport.tests.support.api_client import make_user, session_client
from iotsupport.tests.support.fixtures import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.waiting import eventually, poll
from iotsupport.times import since, told
from notifications import owed as owed_now
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import CHUNK_ROWS, Announcement
from notifications.publisher import publisher
from notifications.templatetags import notifications as trouble
from notifications.tests.conftest import stop_publisher
from notifications.trouble import NOTHING_LISTENS

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

LIST = "/admin/notifications/announcement/"
CONFIGS = "/admin/devices/deviceconfig/"
ASSETS = "/admin/assets/asset/"
LAMP = "aa-bb-cc-dd-ee-ff"

# More than two of the chunks in which rows are recorded, and more than a dozen pages of the list.
MANY = 2 * CHUNK_ROWS + 200


@pytest.fixture
def away(nobody: str, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Notifications are on, and the broker is not there; this process has tried for a while."""
    settings.MQTT_URL = nobody
    monkeypatch.setattr(trouble, "CONNECTING", timedelta(seconds=-1))
    publisher.start()
    yield
    stop_publisher()


@pytest.fixture
def connected(settings: LazySettings, tmp_path: Any) -> Iterator[None]:
    broker = Mosquitto(tmp_path).start()
    settings.MQTT_URL = broker.url
    publisher.start()
    eventually(lambda: publisher.state() == "connected")
    yield
    stop_publisher()
    broker.stop()


def announcement(filename: str = f"{LAMP}.json", *, minutes: float | None = 5, **values: Any) -> Announcement:
    """A file that has been owed for so many minutes; None: it is announced."""
    topic = CONFIGS_TOPIC if filename.endswith(".json") else ASSETS_TOPIC
    owed_since = None if minutes is None else timezone.now() - timedelta(minutes=minutes)
    return Announcement.objects.create(topic=topic, filename=filename, owed_since=owed_since, **values)


def listed(signed_in: Client, **query: str) -> list[str]:
    response: Any = signed_in.get(LIST, query)
    assert response.status_code == 200
    return [row.filename for row in response.context_data["cl"].result_list]


def cells(signed_in: Client, **query: str) -> str:
    """The list's rows as one reads them, a line each."""
    html = page(signed_in, LIST, **query)
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    return body.replace("&nbsp;", " ").replace("\N{NO-BREAK SPACE}", " ")


def page(signed_in: Client, url: str, **query: str) -> str:
    return signed_in.get(url, query).content.decode()


def line(signed_in: Client, url: str = "/admin/") -> str:
    """What every page says about trouble with announcements, as text."""
    html = page(signed_in, url)
    if 'id="announcement-trouble"' not in html:
        return ""
    start = html.index('id="announcement-trouble"')
    return " ".join(html[start : html.index("</p>", start)].split()).replace("\N{NO-BREAK SPACE}", " ")


def act(signed_in: Client, url: str, *rows: Any, action: str = "announce_again_selected", **more: str) -> list[str]:
    """Do something with chosen rows of a list; return what the next page says."""
    data = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    response: Any = signed_in.post(url, data, follow=True)
    assert response.status_code == 200
    return [f"{message.level_tag}: {message}" for message in response.context["messages"]]


def again(signed_in: Client, *rows: Announcement, state: str = "") -> list[str]:
    """Announce again what was chosen in the list of announcements that are in this state."""
    return act(signed_in, f"{LIST}?state={state}", *rows, action="announce_again")


def mac_addresses(numbers: range) -> list[str]:
    return [f"02-00-00-{number >> 16:02x}-{number >> 8 & 255:02x}-{number & 255:02x}" for number in numbers]


def owed() -> list[str]:
    return list(Announcement.objects.owed().order_by("filename").values_list("filename", flat=True))


# --- The list ----------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_shows_what_is_owed_the_oldest_first(signed_in: Client):
    announcement("aa-00-00-00-00-01.json", minutes=2)
    announcement("firmware.bin", minutes=90)
    announcement("aa-00-00-00-00-02.json", minutes=30)
    announcement("font.bin", minutes=None)

    assert listed(signed_in) == ["firmware.bin", "aa-00-00-00-00-02.json", "aa-00-00-00-00-01.json"]


@pytest.mark.both_databases
def test_shows_what_is_announced_the_last_one_first(signed_in: Client):
    now = timezone.now()
    announcement("a.bin", minutes=None, announced_at=now - timedelta(hours=2))
    announcement("b.bin", minutes=None, announced_at=now - timedelta(hours=1))
    announcement("c.bin", announced_at=now)

    assert listed(signed_in, state="announced") == ["b.bin", "a.bin"]
    assert listed(signed_in, state="all") == ["c.bin", "b.bin", "a.bin"]


def test_tells_all_that_is_known_of_an_announcement(signed_in: Client, connected: None):
    announced_at = timezone.now() - timedelta(days=1)
    retry_at = timezone.now() + timedelta(minutes=4)
    row = announcement(minutes=90, tries=3, last_error="Not authorized", retry_at=retry_at, announced_at=announced_at)

    text = cells(signed_in)

    assert row.owed_since is not None
    assert since(row.owed_since) in text
    for shown in [f"{LAMP}.json", ">configuration<", ">3<", ">Not authorized<"]:
        assert shown in text
    assert told(retry_at) in text
    assert told(announced_at) in text


def test_an_asset_is_called_an_asset(signed_in: Client):
    announcement("firmware.bin")

    assert ">asset<" in cells(signed_in)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "when the broker is back"),
        ({"retry_at": timedelta(minutes=-1)}, "when the broker is back"),
        ({"claimed_by": "somebody", "claimed_until": timedelta(hours=1)}, "being sent"),
        ({"claimed_by": "somebody", "claimed_until": timedelta(hours=-1)}, "when the broker is back"),
        ({"minutes": None}, ">-<"),
    ],
    ids=["owed", "due again", "claimed", "claimed by a dead process", "announced"],
)
def test_says_when_it_is_tried_next(signed_in: Client, away: None, values: dict[str, Any], text: str):
    now = timezone.now()
    fields: dict[str, Any] = {
        name: now + value if isinstance(value, timedelta) else value for name, value in values.items()
    }
    announcement(**fields)

    assert text in cells(signed_in, state="all").partition("field-next_try")[2].partition("</td>")[0] + "<"


def test_says_when_a_topic_that_the_broker_refuses_is_tried_again(
    signed_in: Client, connected: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publisher, "suspension", {CONFIGS_TOPIC: "Not authorized"}.get)
    announcement()

    assert "within a minute" in cells(signed_in)


def test_says_that_it_is_tried_at_once_while_connected(signed_in: Client, connected: None):
    announcement()

    assert "at once" in cells(signed_in)


def test_leads_to_what_is_announced(signed_in: Client):
    config = DeviceConfig.objects.put(LAMP, "{}")
    asset = Asset.objects.upload("firmware.bin", [b"x"])
    announcement()
    announcement("firmware.bin")

    text = cells(signed_in)

    assert f'<a href="{CONFIGS}{config.pk}/change/">{LAMP}.json</a>' in text
    assert f'<a href="{ASSETS}{asset.pk}/change/">firmware.bin</a>' in text


def test_leads_nowhere_where_one_may_not_look():
    DeviceConfig.objects.put(LAMP, "{}")
    announcement()
    visitor = session_client(make_user("notifications.view_announcement", is_staff=True))

    text = cells(visitor)

    assert f"{LAMP}.json" in text
    assert "<a " not in text


def test_shows_a_hostile_name_and_reason_as_text(signed_in: Client, away: None):
    announcement("<b>.bin", last_error="<i>no</i>")

    assert "&lt;b&gt;.bin" in cells(signed_in)
    assert "&lt;i&gt;no&lt;/i&gt;" in cells(signed_in)
    assert "&lt;i&gt;no&lt;/i&gt;" in line(signed_in)


@pytest.mark.both_databases
@pytest.mark.parametrize("term", ["AA:BB:CC:DD:EE:FF", "aabbccddeeff", "b:cc", "hall lamp", f"{LAMP}.json"])
def test_finds_a_configuration_by(signed_in: Client, term: str):
    DeviceConfig.objects.put(LAMP, '{"deviceName": "Hall lamp"}')
    DeviceConfig.objects.put("02-00-00-00-00-01", "{}")
    for filename in [f"{LAMP}.json", "02-00-00-00-00-01.json", "firmware.bin"]:
        announcement(filename)

    assert listed(signed_in, q=term) == [f"{LAMP}.json"]


@pytest.mark.both_databases
def test_finds_an_asset_by_a_part_of_its_name(signed_in: Client):
    announcement("firmware.bin")
    announcement("font.bin")

    assert listed(signed_in, q="FIRM") == ["firmware.bin"]


def test_finds_no_device_by_a_name_that_one_may_not_see():
    DeviceConfig.objects.put(LAMP, '{"deviceName": "Hall lamp"}')
    announcement()
    visitor = session_client(make_user("notifications.view_announcement", is_staff=True))

    assert listed(visitor, q="hall lamp") == []
    assert listed(visitor, q=LAMP) == [f"{LAMP}.json"]


def test_the_list_costs_the_same_for_few_and_many_announcements(signed_in: Client):
    def queries(state: str) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            listed(signed_in, state=state)
        return [query["sql"] for query in captured]

    def add(numbers: range) -> None:
        now, names = timezone.now(), mac_addresses(numbers)
        # Rows alone: what is listed does not read the files.
        DeviceConfig.objects.bulk_create([DeviceConfig(mac_address=name, content="{}") for name in names])
        rows = [Announcement(topic=CONFIGS_TOPIC, filename=f"{name}.json", owed_since=now) for name in names]
        Announcement.objects.bulk_create(
            [*rows, *(Announcement(topic=ASSETS_TOPIC, filename=f"{n}.bin") for n in numbers)]
        )

    announcement("firmware.bin")
    add(range(5))
    few = [queries("owed"), queries("all")]
    add(range(5, MANY))
    many = [queries("owed"), queries("all")]

    assert list(map(len, many)) == list(map(len, few))
    assert max(map(len, many)) <= 8
    assert [sum("COUNT(" in query for query in queries) for queries in many] == [1, 1]


@pytest.mark.parametrize("url", ["add/", "{}/delete/"])
def test_nothing_is_added_or_deleted_by_hand(signed_in: Client, url: str):
    row = announcement()

    assert signed_in.get(LIST + url.format(row.pk)).status_code == 403
    assert signed_in.post(LIST + url.format(row.pk), {"post": "yes"}).status_code == 403


def test_nothing_is_changed_by_hand(signed_in: Client):
    row = announcement()

    html = page(signed_in, f"{LIST}{row.pk}/change/")

    assert "_save" not in html
    assert "claimed" not in html.lower()
    assert signed_in.post(f"{LIST}{row.pk}/change/", {"filename": "a"}).status_code == 403


def test_addresses_of_earlier_versions_lead_there(signed_in: Client):
    row = announcement()

    old = "/admin/notifications/debt/"

    assert signed_in.get(f"{old}?state=all&q=aa")["Location"] == f"{LIST}?state=all&q=aa"
    assert signed_in.get(f"{old}{row.pk}/change/")["Location"] == f"{LIST}{row.pk}/change/"


def test_needs_a_permission():
    assert session_client(make_user(is_staff=True)).get(LIST).status_code == 403


def test_says_at_the_top_that_notifications_are_off(signed_in: Client):
    announcement()

    assert "<strong>Notifications are off:</strong>" in page(signed_in, LIST)
    assert f"{LAMP}.json" in cells(signed_in)


def test_says_nothing_of_the_kind_while_they_are_on(signed_in: Client, away: None):
    assert "Notifications are off" not in page(signed_in, LIST)


# --- Announcing again --------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_announces_chosen_files_of_both_kinds_again(signed_in: Client, connected: None):
    rows = [announcement("firmware.bin", minutes=None), announcement(minutes=None)]
    announcement("logo.png", minutes=None)

    said = again(signed_in, *rows, state="all")

    assert said == ["success: 2 files are announced again."]
    assert owed() == [f"{LAMP}.json", "firmware.bin"]


def test_says_that_what_was_chosen_is_owed_no_more(signed_in: Client, connected: None):
    row = announcement(minutes=None)

    said = again(signed_in, row)

    assert said == ["info: What you chose was announced meanwhile, or deleted."]
    assert owed() == []


@pytest.mark.both_databases
def test_tries_again_at_once_what_had_to_wait(signed_in: Client, away: None):
    row = announcement(tries=7, last_error="Quota exceeded", retry_at=timezone.now() + timedelta(minutes=5))

    said = again(signed_in, row)

    assert said == ["success: 1 file will be announced again when the broker is back."]
    assert list(Announcement.objects.get_queryset().due()) == [row]


def test_announces_chosen_configurations_again(signed_in: Client, connected: None):
    rows = [DeviceConfig.objects.put(f"02-00-00-00-00-{number:02x}", "{}") for number in range(3)]
    Announcement.objects.update(owed_since=None)

    said = act(signed_in, CONFIGS, *rows[:2])

    assert said == ["success: 2 files are announced again."]
    assert owed() == ["02-00-00-00-00-00.json", "02-00-00-00-00-01.json"]
    assert [row.history.count() for row in rows] == [1, 1, 1]


def test_announces_chosen_assets_again(signed_in: Client, connected: None):
    asset = Asset.objects.upload("firmware.bin", [b"x"])
    Announcement.objects.all().delete()  # as after an update from a version that kept no outbox

    said = act(signed_in, ASSETS, asset)

    assert said == ["success: 1 file is announced again."]
    assert Announcement.objects.get().message.file == (ASSETS_TOPIC, "firmware.bin")


@pytest.mark.both_databases
def test_announces_as_soon_as_it_is_committed(
    signed_in: Client, connected: None, django_capture_on_commit_callbacks: Any
):
    row = announcement("firmware.bin")

    with django_capture_on_commit_callbacks() as callbacks:
        again(signed_in, row)

    assert callbacks.count(publisher.wake) == 1


@pytest.mark.parametrize("url", [CONFIGS, f"{LIST}?state=all"])
def test_says_that_nothing_is_announced_while_notifications_are_off(signed_in: Client, url: str):
    config = DeviceConfig.objects.put(LAMP, "{}")
    row = announcement(minutes=None)
    chosen, action = (config, "announce_again_selected") if url == CONFIGS else (row, "announce_again")

    said = act(signed_in, url, chosen, action=action)

    assert said == [
        "warning: Nothing is announced: notifications are off. Set MQTT_URL, then restart the server.",
    ]
    assert owed() == []


@pytest.mark.parametrize(
    ("permission", "url"),
    [("notifications.view_announcement", LIST), ("devices.view_deviceconfig", CONFIGS), ("assets.view_asset", ASSETS)],
)
def test_who_may_only_look_announces_nothing(away: None, permission: str, url: str):
    DeviceConfig.objects.put(LAMP, "{}")
    Asset.objects.upload("firmware.bin", [b"x"])
    before = list(Announcement.objects.order_by("pk").values())
    visitor = session_client(make_user(permission, is_staff=True))
    model = {LIST: Announcement, CONFIGS: DeviceConfig, ASSETS: Asset}[url]

    assert "Announce again" not in page(visitor, url)
    for action in ["announce_again", "announce_again_selected"]:
        visitor.post(url, {"action": action, "_selected_action": [row.pk for row in model._default_manager.all()]})

    assert list(Announcement.objects.order_by("pk").values()) == before


@pytest.mark.parametrize(
    ("permission", "url"),
    [
        ("notifications.change_announcement", LIST),
        ("devices.change_deviceconfig", CONFIGS),
        ("assets.change_asset", ASSETS),
    ],
)
def test_who_may_change_them_announces_them_again(away: None, permission: str, url: str):
    DeviceConfig.objects.put(LAMP, "{}")
    Asset.objects.upload("firmware.bin", [b"x"])

    assert "Announce again" in page(session_client(make_user(permission, is_staff=True)), url)


@pytest.mark.both_databases
def test_announces_what_was_deleted_and_brought_back(signed_in: Client, away: None):
    config = DeviceConfig.objects.put(LAMP, "{}")
    asset = Asset.objects.upload("firmware.bin", [b"one"])
    for url, row in [(CONFIGS, config), (ASSETS, asset)]:
        signed_in.post(f"{url}{row.pk}/delete/", {"post": "yes"})
    assert owed() == []

    for url, row in [(CONFIGS, config), (ASSETS, asset)]:
        signed_in.post(f"{url}undo/", {"rows": row.pk})

    assert owed() == [f"{LAMP}.json", "firmware.bin"]


@pytest.mark.both_databases
def test_announces_all_again_without_reading_the_rows(signed_in: Client, away: None):
    names = mac_addresses(range(MANY))
    DeviceConfig.objects.bulk_create([DeviceConfig(mac_address=name, content='{"a": 1}') for name in names])
    row = DeviceConfig.objects.first()

    with CaptureQueriesContext(connection) as captured:
        said = act(signed_in, CONFIGS, row, select_across="1", index="0")

    assert said == [f"success: {MANY} files will be announced again when the broker is back."]
    assert Announcement.objects.owed().filter(is_bulk=True).count() == MANY
    # The page that is shown afterwards reads its hundred rows, and no query reads what rows hold.
    queries = [query["sql"] for query in captured]
    assert [sql for sql in queries if '"devices_deviceconfig"."content"' in sql] == []
    [rows] = [sql for sql in queries if '"devices_deviceconfig"."updated_at"' in sql]
    assert "LIMIT 100" in rows


# --- Beside one file ---------------------------------------------------------------------------------------------


def beside(client: Client, row: DeviceConfig | Asset) -> str:
    """What the page of a file says of its announcement."""
    html = page(client, f"{ASSETS if isinstance(row, Asset) else CONFIGS}{row.pk}/change/")
    start = html.index("<dt>Announced</dt>")
    return " ".join(re.sub("<[^>]*>", "", html[start : html.index("</section>", start)]).split())


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("kind", [DeviceConfig, Asset])
def test_the_page_of_a_file_says_whether_it_is_announced(signed_in: Client, connected: None, kind: type[Any]):
    row = DeviceConfig.objects.put(LAMP, "{}") if kind is DeviceConfig else Asset.objects.upload("font.bin", [b"x"])
    Announcement.objects.update(owed_since=None, announced_at=timezone.now() - timedelta(minutes=4))
    assert beside(signed_in, row) == "Announced 4 minutes ago, acknowledged Announce again"

    Announcement.objects.update(owed_since=timezone.now() - timedelta(minutes=3), last_error="Not authorized")
    assert beside(signed_in, row) == "Announced owed for 3 minutes: Not authorized Announce again"

    Announcement.objects.all().delete()
    assert beside(signed_in, row) == "Announced not yet Announce again"


def test_the_page_of_a_file_says_that_notifications_are_off(signed_in: Client):
    assert beside(signed_in, DeviceConfig.objects.put(LAMP, "{}")) == "Announced never: notifications are off"


@pytest.mark.parametrize("kind", [DeviceConfig, Asset])
def test_its_button_announces_it_again_and_leads_back(signed_in: Client, away: None, kind: type[Any]):
    row = DeviceConfig.objects.put(LAMP, "{}") if kind is DeviceConfig else Asset.objects.upload("font.bin", [b"x"])
    Announcement.objects.update(owed_since=None)
    url = f"{ASSETS if kind is Asset else CONFIGS}{row.pk}/change/"
    form = page(signed_in, url)
    topic = re.findall(r'name="topic" value="([^"]+)"', form)[0]
    assert f'action="{LIST}again/"' in form

    answer = signed_in.post(f"{LIST}again/", {"topic": topic, "row": row.pk}, follow=True)

    assert answer.redirect_chain == [(url, 302)]
    assert "1 file will be announced again when the broker is back." in answer.text
    assert owed() == [row.filename]


@pytest.mark.parametrize("fields", [{}, {"topic": CONFIGS_TOPIC, "row": "x"}, {"topic": "x", "row": "1"}], ids=str)
def test_its_button_announces_nothing_that_is_not_there(signed_in: Client, away: None, fields: dict[str, str]):
    assert signed_in.post(f"{LIST}again/", fields).status_code == 404
    assert owed() == []


def test_who_may_not_change_a_file_does_not_announce_it(away: None):
    config = DeviceConfig.objects.put(LAMP, "{}")
    Announcement.objects.all().delete()
    guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))

    assert "Announce again" not in beside(guest, config)
    assert guest.post(f"{LIST}again/", {"topic": CONFIGS_TOPIC, "row": config.pk}).status_code == 403
    assert guest.get(f"{LIST}again/").status_code == 405
    assert owed() == []


# --- The line on every page --------------------------------------------------------------------------------------


def test_says_on_every_page_that_the_broker_is_away(signed_in: Client, away: None):
    for url in ["/admin/", LIST, CONFIGS, f"{ASSETS}add/", "/admin/password_change/"]:
        assert "<strong>The broker is not connected</strong> (<time " in line(signed_in, url)
        assert "still to be announced" not in line(signed_in, url)


def test_asks_what_is_owed_once_for_all_pages_of_a_second(
    signed_in: Client, away: None, monkeypatch: pytest.MonkeyPatch
):
    for seen in [owed_now.oldest, owed_now.count]:
        monkeypatch.setattr(seen, "_seen", None)
    monkeypatch.setattr(glance._is_serving, "is_set", lambda: True)
    monkeypatch.setattr(glance, "FRESH_SECONDS", 60)
    announcement()

    with CaptureQueriesContext(connection) as queries:
        lines = {line(signed_in, url) for url in ["/admin/", CONFIGS, ASSETS]}

    assert len(lines) == 1
    assert "1 file" in lines.pop()
    assert len([query for query in queries if "notifications_debt" in query["sql"]]) == 2  # the oldest, and the count


@pytest.mark.both_databases
def test_says_how_many_are_owed_since_when_and_why(signed_in: Client, away: None):
    oldest = announcement(minutes=125, last_error="Not authorized")
    announcement("firmware.bin", minutes=3)

    said = line(signed_in)

    assert oldest.owed_since is not None
    assert f"2 files are still to be announced (the oldest {since(oldest.owed_since)})." in said
    assert "<q>Not authorized</q>" in said


def test_counts_while_the_broker_is_away_what_was_saved_just_now(signed_in: Client, away: None):
    announcement(minutes=0)

    assert re.search("1 file is still to be announced [(]<time [^>]+>for less than a minute</time>", line(signed_in))


def test_says_since_when_the_broker_is_away_and_why(signed_in: Client, away: None):
    said = poll(lambda: line(signed_in), lambda said: "<q>" in said)

    assert re.search(
        r"not connected</strong> [(]<time [^>]+>for less than a minute</time>[)]: it <q>cannot be reached: .Errno 111",
        said,
    ), said
    assert f"announced when it is back. {NOTHING_LISTENS}" in said


def test_says_while_connected_what_is_late(signed_in: Client, connected: None):
    announcement(minutes=2, last_error="Quota exceeded")

    said = line(signed_in)

    assert "The broker is not connected" not in said
    assert "1 file is still to be announced (<time " in said
    assert "The last error was: <q>Quota exceeded</q> It is tried again by itself" in said


def test_says_nothing_while_connected_of_what_is_on_its_way(signed_in: Client, connected: None):
    announcement(minutes=0.5)
    announcement("firmware.bin", minutes=None)

    assert line(signed_in) == ""


def test_a_server_that_was_just_started_gives_no_alarm(signed_in: Client, away: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trouble, "CONNECTING", timedelta(hours=1))

    assert line(signed_in) == ""


def test_a_server_that_was_just_started_tells_of_old_announcements(
    signed_in: Client, away: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trouble, "CONNECTING", timedelta(hours=1))
    announcement(minutes=2)

    said = line(signed_in)

    assert "The broker is not connected</strong> (<time " in said
    assert "1 file is still to be announced" in said


def test_says_nothing_while_notifications_are_off(signed_in: Client):
    announcement()

    assert line(signed_in) == ""


def test_says_nothing_to_strangers(client: Client, away: None):
    announcement()

    assert "<form" in page(client, "/admin/login/")
    assert line(client, "/admin/login/") == ""


@pytest.mark.parametrize(
    ("permissions", "leads_there"),
    [([], False), (["notifications.view_announcement"], True), (["notifications.change_announcement"], True)],
)
def test_leads_to_the_list_whoever_may_see_it(away: None, permissions: list[str], leads_there: bool):
    visitor = session_client(make_user(*permissions, is_staff=True))

    assert "The broker is not connected" in line(visitor)
    assert (f'<a href="{LIST}">' in line(visitor)) == leads_there


def test_is_read_out_and_needs_no_style_of_its_own(signed_in: Client, away: None):
    said = line(signed_in)

    assert 'role="status"' in said
    assert "style=" not in said


@pytest.mark.parametrize(("minutes", "queries"), [(None, 1), (0.5, 1), (5, 2)], ids=["calm", "on its way", "late"])
def test_costs_one_query_and_another_in_trouble(
    signed_in: Client, administrator: User, connected: None, minutes: float | None, queries: int
):
    announcement(minutes=minutes)

    with CaptureQueriesContext(connection) as captured:
        page(signed_in, ASSETS)

    assert sum("notifications_debt" in query["sql"] for query in captured) == queries


@pytest.mark.both_databases
def test_pages_do_without_the_table(signed_in: Client, away: None):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notifications_debt RENAME TO gone")  # rolled back with the test

    assert "<strong>The broker is not connected</strong> (<time " in line(signed_in, CONFIGS)

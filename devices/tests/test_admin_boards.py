"""What the admin says of boards: in the list of configurations, beside one of them, and of those that wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices import filters, panel
from devices.models import DeviceConfig
from iotsupport.boards import firmware
from iotsupport.boards.models import CONFIGURED, Board
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.tests.support.api_client import make_user, session_client

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

LIST = "/admin/devices/deviceconfig/"
WAITING = "/admin/devices/waitingboard/"
MAC = "02-00-00-00-00-01"


def put(mac_address: str = MAC, name: str = "Lamp") -> DeviceConfig:
    return DeviceConfig.objects.put(
        mac_address, f'{{"deviceName": "{name}", "deviceEntityId": "light.{name.lower()}"}}'
    )


def note(mac_address: str = MAC, **values: Any) -> None:
    """Have its board's row say this."""
    assert Board.objects.filter(mac_address=mac_address).update(**values) == 1


def ago(**length: float) -> Any:
    return timezone.now() - timedelta(**length)


def text_of(html: str) -> str:
    words = " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())
    return re.sub(r" (?=[,)])|(?<=\() ", "", words)


def cells(client: Client, **query: str) -> dict[str, str]:
    """The texts of the list's first row, by column."""
    html = client.get(LIST, query).text
    row = html[html.index("<tbody>") : html.index("</tr>", html.index("<tbody>"))]
    found = re.findall(r'<t[dh] class="field-(\w+)[^"]*">(.*?)</t[dh]>', row, re.DOTALL)
    return {name: text_of(cell) for name, cell in found}


def listed(client: Client, **query: str) -> list[str]:
    answer: Any = client.get(LIST, query)
    assert answer.status_code == 200
    return [row.device_name for row in answer.context["cl"].result_list]


class TestTheList:
    def test_says_of_each_what_its_board_did(self, signed_in: Client, administrator: User):
        config = put()
        DeviceConfig.objects.filter(pk=config.pk).update(updated_by=administrator)
        note(state="behind", behind_since=ago(hours=3.1), last_seen=ago(minutes=4.1), runs_version="1.4.2")
        note(runs_filename="kitchen.bin")

        assert cells(signed_in) == {
            "device": f"Lamp {MAC} light.lamp",
            "state": "behind for 3 hours",
            "seen": "4 minutes ago",
            "runs": "1.4.2 kitchen.bin",
            "ota": "",
            "changed": "just now admin",
        }

    def test_of_one_that_was_never_seen_says_so(self, signed_in: Client):
        DeviceConfig.objects.put(MAC, "{}")

        found = cells(signed_in)

        assert found | {"ota": "", "changed": ""} == {
            "device": MAC,
            "state": "never fetched",
            "seen": "-",
            "runs": "-",
            "ota": "",
            "changed": "",
        }

    def test_of_one_that_is_silent_says_since_when(self, signed_in: Client, settings: Any):
        put()
        note(state="current", last_seen=ago(days=400))

        assert re.fullmatch(r"silent since \d+ \w+ \d{4}", cells(signed_in)["seen"])
        settings.SILENT_AFTER = 0
        assert "silent" not in cells(signed_in)["seen"]

    @pytest.mark.both_databases
    def test_shows_a_configuration_whose_board_has_no_row(self, signed_in: Client):
        put()
        Board.objects.all().delete()

        found = cells(signed_in)
        assert found["device"].startswith("Lamp")
        assert (found["state"], found["seen"], found["runs"]) == ("-", "-", "-")
        assert signed_in.get(f"{LIST}{DeviceConfig.objects.get().pk}/change/").status_code == 200

    @pytest.fixture
    def fleet(self) -> None:
        for number, (name, state, seen) in enumerate(
            [
                ("Hall", "current", ago(minutes=5)),
                ("Attic", "current", ago(days=2)),
                ("Shed", "behind", ago(minutes=30)),
                ("Cellar", "behind", ago(days=3)),
                ("New", "never_fetched", None),
                ("Clock", "never_fetched", ago(minutes=1)),  # it asked, and has not got it whole
            ]
        ):
            put(f"02-00-00-00-00-0{number}", name)
            note(f"02-00-00-00-00-0{number}", state=state, last_seen=seen)

    @pytest.mark.both_databases
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({"state": "current"}, ["Hall", "Attic"]),
            ({"state": "behind"}, ["Shed", "Cellar"]),
            ({"state": "never_fetched"}, ["New", "Clock"]),
            ({"seen": "silent"}, ["Attic", "Cellar"]),
            ({"seen": "hour"}, ["Hall", "Shed", "Clock"]),
            ({"seen": "never"}, ["New"]),
            ({"state": "behind", "seen": "silent"}, ["Cellar"]),
            ({"state": "behind", "q": "shed"}, ["Shed"]),
            ({"q": "shed", "o": "3"}, ["Shed"]),
            ({"state": "gone"}, ["Hall", "Attic", "Shed", "Cellar", "New", "Clock"]),
        ],
        ids=str,
    )
    def test_is_narrowed_down_to(self, signed_in: Client, fleet: None, query: dict[str, str], names: list[str]):
        assert sorted(listed(signed_in, **query)) == sorted(names)

    @pytest.mark.both_databases
    def test_is_narrowed_down_to_many_as_to_few(self, signed_in: Client, fleet: None, monkeypatch: pytest.MonkeyPatch):
        few = {state: listed(signed_in, state=state) for state in CONFIGURED}
        monkeypatch.setattr(filters, "FEW", 1)

        assert {state: listed(signed_in, state=state) for state in CONFIGURED} == few
        assert [len(names) for names in few.values()] == [2, 2, 2]

    @pytest.mark.both_databases
    def test_is_sorted_by_when_they_were_seen(self, signed_in: Client, fleet: None):
        columns = signed_in.get(LIST).context["cl"].list_display

        newest_first = [name for name in listed(signed_in, o=f"-{columns.index('seen')}") if name != "New"]

        assert newest_first == ["Clock", "Hall", "Shed", "Attic", "Cellar"]
        assert [name for name in listed(signed_in, o=f"{columns.index('seen')}") if name != "New"] == newest_first[::-1]

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize(
        "query", [{}, {"state": "current"}, {"seen": "silent"}, {"o": "4"}, {"q": "lamp"}], ids=str
    )
    def test_costs_the_same_for_few_and_for_many_and_reads_no_text(self, signed_in: Client, query: dict[str, str]):
        def queries() -> list[str]:
            with CaptureQueriesContext(connection) as captured:
                signed_in.get(LIST, query)
            return [query["sql"] for query in captured]

        def add(numbers: range) -> None:
            for number in numbers:
                put(f"02-00-00-00-00-{number:02x}", f"Lamp {number}")
                note(f"02-00-00-00-00-{number:02x}", state="current", last_seen=ago(days=2))

        add(range(3))
        few = queries()
        add(range(3, 40))
        many = queries()

        assert len(many) == len(few)
        assert not any('"content"' in query or '"folded",' in query for query in many)


class TestThePanel:
    @pytest.fixture
    def config(self) -> DeviceConfig:
        return put()

    def lines(self, client: Client, config: DeviceConfig) -> dict[str, str]:
        found: Any = client.get(f"{LIST}{config.pk}/change/").context["panel"]
        return {line.name: text_of(str(line.value)) for line in found.lines}

    def test_says_what_the_board_did(self, signed_in: Client, config: DeviceConfig):
        held = config.content_sha256
        put(name="Torch")
        note(
            state="behind",
            behind_since=ago(minutes=5.1),
            holds_sha256=held,
            holds_since=ago(days=400),
            last_seen=ago(minutes=4.1),
            last_address="192.168.1.47",
            user_agent="kitchen/1.4.2",
            runs_version="1.4.2",
            sdk_version="v5.1.4",
            chip_size=4 * 2**20,
        )

        lines = self.lines(signed_in, config)

        holds = lines.pop("Holds")
        assert re.fullmatch(r"version 1 of (today|yesterday) \d+:\d\d, since \d+ \w+ \d{4}", holds), holds
        assert lines == {
            "Configuration": "behind for 5 minutes",
            "Last seen": "4 minutes ago, from 192.168.1.47",
            "Says it runs": "1.4.2",
            "Identifies itself": "kitchen/1.4.2",
            "SDK": "v5.1.4",
            "Flash": "4.0 MB",
        }

    def test_says_of_a_silent_one_since_when_and_where_it_was(self, signed_in: Client, config: DeviceConfig):
        note(state="current", holds_sha256=config.content_sha256, last_seen=ago(days=400), last_address="192.0.2.1")

        assert re.fullmatch(r"silent since \d+ \w+ \d{4}, from 192.0.2.1", self.lines(signed_in, config)["Last seen"])

    def test_the_version_that_it_holds_is_one_click_away(self, signed_in: Client, config: DeviceConfig):
        held = config.content_sha256
        put(name="Torch")
        note(state="behind", holds_sha256=held)

        page = signed_in.get(f"{LIST}{config.pk}/change/").text
        [url] = re.findall(r'href="([^"]+/history/\d+/)">version 1<', page)

        assert "Version 1 and version 2 (now)" in signed_in.get(url, follow=True).text

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize(("most", "said"), [(50, "version 1"), (1, "a version that is not kept")])
    def test_a_version_that_is_not_found_is_told_so(
        self, signed_in: Client, config: DeviceConfig, monkeypatch: pytest.MonkeyPatch, most: int, said: str
    ):
        monkeypatch.setattr(panel, "MOST_VERSIONS", most)
        held = config.content_sha256
        put(name="Torch")
        note(holds_sha256=held)

        assert self.lines(signed_in, config)["Holds"].startswith(said)

    def test_of_a_board_that_never_came(self, signed_in: Client, config: DeviceConfig):
        assert self.lines(signed_in, config) == {
            "Configuration": "never fetched",
            "Holds": "nothing that is known",
            "Last seen": "never",
        }

    def test_tells_of_two_addresses(self, signed_in: Client, config: DeviceConfig):
        note(last_seen=ago(minutes=2), two_addresses_at=ago(minutes=8.1), address_before="192.168.1.77")

        said = self.lines(signed_in, config)[""]

        assert said == "seen from two addresses within a minute, 8 minutes ago (192.168.1.77 before)"

    @pytest.fixture
    def known_firmware(self) -> Iterator[None]:
        known = firmware.FoundVersion("kitchen.bin", "0" * 64, timezone.now() - timedelta(days=400), "1.4.1")
        before = [*firmware._finders, *firmware._page_finders]
        firmware.register(
            lambda md5s, sha256s: {digest: known for digest in [*md5s, *sha256s] if digest == "5" * 32},
            lambda request, version: f"/of/{version.filename}" if request.user.is_superuser else "",
        )
        yield
        firmware.register(*before)  # type: ignore[arg-type]

    def test_says_which_file_has_what_it_runs(self, signed_in: Client, config: DeviceConfig, known_firmware: None):
        note(runs_md5="5" * 32)
        assert re.fullmatch(r"1.4.1 \(kitchen.bin of \d+ \w+ \d{4}\)", self.lines(signed_in, config)["Says it runs"])

        note(runs_version="1.4.2")
        assert self.lines(signed_in, config)["Says it runs"].startswith("1.4.2 (kitchen.bin of ")

        note(runs_md5="6" * 32)
        assert self.lines(signed_in, config)["Says it runs"] == "1.4.2"

    @pytest.mark.both_databases
    def test_leads_to_the_page_of_the_file_that_it_runs(
        self, signed_in: Client, config: DeviceConfig, known_firmware: None
    ):
        note(runs_md5="5" * 32)
        guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))
        url = f"{LIST}{config.pk}/change/"

        assert '1.4.1 (<a href="/of/kitchen.bin">kitchen.bin</a> of' in signed_in.get(url).text
        assert "1.4.1 (kitchen.bin of" in guest.get(url).text

    @pytest.mark.both_databases
    def test_has_the_last_versions_with_who_and_why(
        self, signed_in: Client, administrator: User, config: DeviceConfig, django_assert_num_queries: Any
    ):
        put(name="Torch")
        for number in range(3):
            with changing(Origin(Way.API, administrator, reason=f"<b>Reason {number}</b>")):
                put(name=f"Lamp {number}")

        found: Any = signed_in.get(f"{LIST}{config.pk}/change/")

        whole = found.text[found.text.index("board-versions") :]
        box = text_of(whole[: whole.index("</section>")].partition(">")[2])
        said = [f"admin just now <b>Reason {number}</b>" for number in [2, 1, 0]]
        assert box == f"Versions {' '.join(said)} Compare and restore"
        assert f'<a href="{LIST}{config.pk}/history/">Compare and restore</a>' in found.text
        with django_assert_num_queries(1):
            assert len(panel.saved_last(config)) == 3

    def test_of_one_that_nobody_signed_in_saved_says_how(self, signed_in: Client, config: DeviceConfig):
        found: Any = signed_in.get(f"{LIST}{config.pk}/change/").context["panel"]

        assert [(saved.by, saved.done) for saved in found.saved] == [("command", "added")]

    def test_has_the_line_that_asks_as_the_board_does(self, signed_in: Client, config: DeviceConfig):
        page = signed_in.get(f"{LIST}{config.pk}/change/").text

        assert f"<code>curl -i http://testserver/configs/{MAC}.json</code>" in page

    def test_is_there_for_who_may_only_look_and_not_where_one_adds(self, signed_in: Client, config: DeviceConfig):
        guest = session_client(make_user("devices.view_deviceconfig", is_staff=True))

        assert "What the board did" in guest.get(f"{LIST}{config.pk}/change/").text
        assert "What the board did" not in signed_in.get(f"{LIST}add/").text

    def test_what_was_typed_is_shown_again_also_without_it(self, signed_in: Client, config: DeviceConfig):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE iotsupport_board RENAME TO gone")  # rolled back with the test

        answer = signed_in.get(f"{LIST}{config.pk}/change/")

        assert answer.status_code == 200
        assert "light.lamp" in answer.text
        assert answer.context["panel"] is None


class TestWaitingBoards:
    @pytest.fixture
    def waiting(self) -> Board:
        put("02-00-00-00-00-99", "Hall")
        return Board.objects.create(
            mac_address=MAC,
            state="waiting",
            waiting_since=ago(days=400),
            last_seen=ago(minutes=4.1),
            asked=1234,
            last_address="192.0.2.7",
            user_agent="ESP32HTTPClient",
        )

    def rows(self, client: Client, **query: str) -> list[str]:
        answer: Any = client.get(WAITING, query)
        assert answer.status_code == 200
        return [board.mac_address for board in answer.context["cl"].result_list]

    def test_are_listed_with_who_asked_when_and_how_often(self, signed_in: Client, waiting: Board):
        html = signed_in.get(WAITING).text
        text = text_of(html[html.index("<tbody>") : html.index("</tbody>")])

        assert re.fullmatch(rf"{MAC} 4 minutes ago \d+ \w+ \d{{4}} 1234 192.0.2.7 ESP32HTTPClient Add Forget", text), (
            text
        )

    @pytest.mark.both_databases
    def test_come_the_last_one_first(self, signed_in: Client, waiting: Board):
        for number, minutes in [(2, 1), (3, 20)]:
            Board.objects.create(
                mac_address=f"02-00-00-00-00-0{number}", state="waiting", last_seen=ago(minutes=minutes)
            )

        assert self.rows(signed_in) == [f"02-00-00-00-00-0{number}" for number in [2, 1, 3]]

    @pytest.mark.both_databases
    @pytest.mark.parametrize("term", ["02:00:00:00:00:01", "0200", "192.0.2.7", "esp32http"])
    def test_are_found_by(self, signed_in: Client, waiting: Board, term: str):
        Board.objects.create(mac_address="aa-bb-cc-dd-ee-ff", state="waiting")

        assert self.rows(signed_in, q=term) == [MAC]

    def test_are_added_with_their_address_filled_in(self, signed_in: Client, waiting: Board):
        [url] = re.findall(r'class="button" href="([^"]+)">Add<', signed_in.get(WAITING).text)
        assert f'value="{MAC}"' in signed_in.get(url).text

        signed_in.post(url, {"mac_address": MAC, "content": "{}"})

        assert DeviceConfig.objects.filter(mac_address=MAC).exists()
        assert self.rows(signed_in) == []

    @pytest.mark.both_databases
    def test_are_forgotten_one_by_one_or_many_at_once(self, signed_in: Client, waiting: Board):
        for number in [2, 3, 4]:
            Board.objects.create(mac_address=f"02-00-00-00-00-0{number}", state="waiting")

        one = signed_in.post(f"{WAITING}forget/", {"mac_address": MAC}, follow=True)
        many = signed_in.post(
            WAITING, {"action": "forget", "_selected_action": [f"02-00-00-00-00-0{n}" for n in [2, 3]]}, follow=True
        )

        assert "1 board is forgotten, until asking again." in one.text
        assert "2 boards are forgotten, until asking again." in many.text
        assert self.rows(signed_in) == ["02-00-00-00-00-04"]
        again = signed_in.post(f"{WAITING}forget/", {"mac_address": MAC}, follow=True)
        assert "Nothing was forgotten: what you chose does not wait any more." in again.text

    def test_nothing_else_is_forgotten(self, signed_in: Client, waiting: Board):
        for mac_address in ["02-00-00-00-00-99", "", "x"]:
            signed_in.post(f"{WAITING}forget/", {"mac_address": mac_address})

        assert Board.objects.count() == 2

    @pytest.mark.parametrize(
        ("permissions", "may"),
        [
            (["devices.view_deviceconfig"], []),
            (["devices.view_deviceconfig", "devices.add_deviceconfig"], ["Add"]),
            (["devices.change_deviceconfig"], ["Forget"]),
        ],
        ids=str,
    )
    def test_who_may_what(self, waiting: Board, permissions: list[str], may: list[str]):
        guest = session_client(make_user(*permissions, is_staff=True))
        html = guest.get(WAITING).text

        assert [word for word in ["Add", "Forget"] if f">{word}<" in html[html.index("<tbody>") :]] == may
        answer = guest.post(f"{WAITING}forget/", {"mac_address": MAC})
        assert (answer.status_code, Board.objects.waiting().count()) == ((302, 0) if "Forget" in may else (403, 1))

    def test_who_may_not_view_configurations_sees_none(self, waiting: Board):
        guest = session_client(make_user("assets.view_asset", is_staff=True))

        assert [guest.get(url).status_code for url in [WAITING, f"{WAITING}{MAC}/change/"]] == [403, 403]
        assert guest.get(f"{WAITING}forget/").status_code == 405
        assert "Waiting boards" not in guest.get("/admin/").text

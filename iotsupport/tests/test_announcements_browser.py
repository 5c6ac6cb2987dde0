"""An outage of the broker as the administrator sees it: gunicorn, Mosquitto, chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from iotsupport.tests.owed.fleet import OWED
from iotsupport.tests.support.browser import Visitor, chromium
from iotsupport.tests.support.module_broker import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.waiting import poll

MAC = "02-aa-00-00-00-01"
LIST = "notifications/announcement/"
LINE = "#announcement-trouble"

# So that every page comes from the one that knows what has just happened.
WORKERS = 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(running_server: Server, broker: Mosquitto) -> Server:
    """Connected to its broker, without what another test saved, and with nothing on its way."""
    if not broker.is_running:
        broker.start()
    running_server.wait_until_connected(broker)
    poll(lambda: owed(running_server), lambda count: count == 0)
    with running_server.client() as client:
        for filename in running_server.configs():
            assert client.delete(f"/configs/{filename.removesuffix('.json')}").status_code == 204
        for filename in running_server.assets():
            assert client.delete(f"/assets/{filename}").status_code == 204
    return running_server


@pytest.fixture(scope="module")
def administrator(browser: Browser, running_server: Server) -> Iterator[Visitor]:
    with Visitor(browser, running_server) as visitor:
        yield visitor.enter()


@pytest.fixture
def visitor(administrator: Visitor, server: Server) -> Iterator[Visitor]:
    with administrator.visit():
        yield administrator
        assert administrator.troubles == []


def broker_state(server: Server) -> str:
    with server.client() as client:
        return str(client.get("/health").json()["broker"])


def owed(server: Server) -> int:
    """As it is now; ``/health`` may say what it was a second ago."""
    return len(server.query(OWED))


def stop(broker: Mosquitto, server: Server) -> None:
    broker.stop()
    poll(lambda: broker_state(server), lambda state: state == "disconnected")


def start(broker: Mosquitto, server: Server) -> None:
    broker.start()
    poll(lambda: owed(server), lambda count: count == 0)


def set_back(server: Server, minutes: int) -> None:
    """Let everything be owed for so many minutes."""
    then = datetime.now(UTC) - timedelta(minutes=minutes)
    server.database.change(f"UPDATE notifications_debt SET owed_since = '{then}' WHERE owed_since IS NOT NULL")  # noqa: S608


def choose(visitor: Visitor, *texts: str, action: str) -> None:
    """Tick the rows of the open list that show these texts, and do something with them."""
    for text in texts:
        visitor.rows().filter(has_text=text).locator("[name=_selected_action]").check()
    visitor.page.select_option("[name=action]", label=action)
    visitor.follow("[name=index]")


def open_until_it_says(visitor: Visitor, path: str, lines: int) -> None:
    """What is owed is asked once a second, for all pages together."""

    def count() -> int:
        return visitor.open(path).locator(LINE).count()

    poll(count, lambda found: found == lines)


def save_config(visitor: Visitor, mac_address: str) -> None:
    visitor.open("devices/deviceconfig/add/")
    visitor.page.fill("[name=mac_address]", mac_address)
    visitor.type_config('{"deviceName": "Hall lamp"}')
    visitor.save()


def test_what_is_saved_during_an_outage_is_seen_to_be_owed_and_then_to_be_announced(
    visitor: Visitor, server: Server, broker: Mosquitto
) -> None:
    with Subscriber(broker.port) as subscriber:
        stop(broker, server)

        save_config(visitor, MAC)
        visitor.open(LIST)
        row = visitor.rows().inner_text()
        assert f"{MAC}.json" in row
        assert "configuration" in row
        assert "for less than a minute" in row
        assert "when the broker is back" in row

        start(broker, server)
        assert subscriber.next().payload == b'{"filename": "%s.json"}' % MAC.encode()
        visitor.open(LIST)
        assert visitor.rows().count() == 0
        visitor.follow("#changelist-filter a:text-is('Announced')")
        assert f"{MAC}.json" in visitor.rows().inner_text()


def test_every_page_says_what_is_owed_for_more_than_a_minute_and_leads_to_it(
    visitor: Visitor, server: Server, broker: Mosquitto
) -> None:
    stop(broker, server)
    save_config(visitor, MAC)
    set_back(server, 5)

    open_until_it_says(visitor, "assets/asset/", 1)

    line = visitor.page.locator(LINE)
    expect(line).to_contain_text("The broker is not connected (for ")
    expect(line).to_contain_text("1 file is still to be announced (for 5 minutes)")
    visitor.follow(f"{LINE} a")
    assert f"{MAC}.json" in visitor.rows().inner_text()
    start(broker, server)
    open_until_it_says(visitor, "assets/asset/", 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_line_can_be_read_in_the_colours_of_the_page(
    visitor: Visitor, server: Server, broker: Mosquitto, scheme: Any
) -> None:
    stop(broker, server)
    save_config(visitor, MAC)
    set_back(server, 5)
    visitor.page.emulate_media(color_scheme=scheme)
    open_until_it_says(visitor, "", 1)

    contrasts = [contrast(visitor, element) for element in [LINE, f"{LINE} a"]]

    # WCAG 2.1, 1.4.3
    assert min(contrasts) >= 4.5


def test_chosen_configurations_and_assets_are_announced_again(
    visitor: Visitor, server: Server, broker: Mosquitto
) -> None:
    with server.client() as script, Subscriber(broker.port) as subscriber:
        for number in range(3):
            script.save_config(f"02-aa-00-00-00-0{number}", b"{}")
        script.upload("firmware.bin", b"x")
        subscriber.take(4)

        visitor.open("devices/deviceconfig/")
        choose(visitor, "02-aa-00-00-00-00", "02-aa-00-00-00-02", action="Announce again")
        assert "2 files are announced again." in visitor.messages()
        heard = {message.payload for message in subscriber.take(2)}
        assert heard == {b'{"filename": "02-aa-00-00-00-0%d.json"}' % number for number in [0, 2]}

        visitor.open("assets/asset/")
        choose(visitor, "firmware.bin", action="Announce again")
        assert subscriber.next().payload == b'{"filename": "firmware.bin"}'


def test_chosen_announcements_are_made_again(visitor: Visitor, server: Server, broker: Mosquitto) -> None:
    with server.client() as script, Subscriber(broker.port) as subscriber:
        script.upload("firmware.bin", b"x")
        subscriber.next()
        poll(lambda: owed(server), lambda count: count == 0)

        visitor.open(f"{LIST}?state=announced")
        choose(visitor, "firmware.bin", action="Announce again")

        assert "1 file is announced again." in visitor.messages()
        assert subscriber.next().payload == b'{"filename": "firmware.bin"}'


def test_a_refusal_by_the_broker_is_shown_with_its_reason(
    browser: Browser, make_server: Callable[..., Server], tmp_path: Any
) -> None:
    broker = Mosquitto(tmp_path, acl="topic write iotsupport/updates/configs\ntopic read #\n").start()
    server = make_server(MQTT_URL=broker.url, WEB_CONCURRENCY="1").start(*NEW)
    server.wait_until_connected(broker)
    with server.client() as script, Visitor(browser, server) as visitor:
        visitor.enter()
        script.upload("firmware.bin", b"x")
        script.save_config(MAC, b"{}")
        poll(
            lambda: server.query("SELECT filename, last_error FROM notifications_debt WHERE owed_since IS NOT NULL"),
            lambda rows: rows == [("firmware.bin", "Not authorized")],
        )

        visitor.open(LIST)

        assert "Not authorized" in visitor.rows().inner_text()
        assert visitor.troubles == []
    server.stop()
    broker.stop()


def contrast(visitor: Visitor, selector: str) -> float:
    """The contrast ratio of a text to the line's background."""
    text, background = [
        visitor.page.eval_on_selector(element, f"element => getComputedStyle(element).{style}")
        for element, style in [(selector, "color"), (LINE, "backgroundColor")]
    ]
    brighter, darker = sorted([luminance(text), luminance(background)], reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(…)`` by WCAG 2.1."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

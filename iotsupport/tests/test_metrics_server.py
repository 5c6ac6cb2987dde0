"""What several workers counted together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from iotsupport import __version__
from iotsupport.monitoring.glance import FRESH_SECONDS
from iotsupport.tests.owed.fleet import wait_until_announced
from iotsupport.tests.support.module_broker import *  # noqa: F403
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import Server
from iotsupport.tests.support.waiting import LIMIT, poll

SAVED = 'iot_config_operations_total{operation="save",status="success"}'
PUBLISHED = 'mqtt_publish_total{status="success",topic="iotsupport/updates/configs"}'
SAVES_TIMED = 'iot_config_operation_duration_seconds_count{operation="save"}'
FAILED = 'mqtt_publish_total{status="failure",topic="iotsupport/updates/configs"}'
CONNECTED = "mqtt_connection_state"
STARTS = "iot_worker_starts_total"

WORKERS = 4
CLIENTS = 4
SAVES = 50  # of each
SCRAPES = 20


@pytest.fixture
def server(running_server: Server) -> Server:
    """Four workers that are connected, as each test leaves them. What they counted before is other tests'."""
    # What is still owed would be counted, too.
    wait_until_announced(running_server)
    return running_server


def scrape(server: Server) -> dict[str, float]:
    """Samples, named as in PromQL."""
    response = requests.get(f"{server.url}/metrics", timeout=LIMIT)
    assert response.status_code == 200, response.text
    samples = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def scrape_anew(server: Server) -> dict[str, float]:
    """What is looked up from now on: each worker shows for a second what it saw, and others may just have counted."""
    began = time.monotonic()
    _, samples = poll(lambda: (time.monotonic(), scrape(server)), lambda seen: seen[0] > began + FRESH_SECONDS)
    return samples


def scrape_until(server: Server, name: str, value: float) -> dict[str, float]:
    """What takes the workers a moment to notice."""
    return poll(lambda: scrape(server), lambda samples: samples.get(name) == value)


def start_connected(broker: Mosquitto, server: Server) -> None:
    log_lines = len(broker.lines)
    broker.start()
    server.wait_until_connected(broker, after=log_lines)


def save(server: Server, client_number: int, times: int) -> None:
    with server.client() as client:
        for number in range(times):
            mac_address = f"aa-bb-cc-dd-{client_number:02x}-{number % 10:02x}"
            assert client.save_config(mac_address, b'{"number": %d}' % number).status_code == 200


def is_counter(name: str) -> bool:
    return name.split("{")[0].endswith(("_total", "_bucket", "_count", "_sum")) and "files_count" not in name


def test_200_saves_of_4_clients_count_200_and_no_scrape_shows_less_than_the_one_before(
    server: Server, broker: Mosquitto
) -> None:
    log_lines = len(broker.lines)
    first = scrape_anew(server)
    scrapes = [first]
    saved = threading.Event()

    def scrape_meanwhile() -> None:
        while not saved.is_set() or len(scrapes) < SCRAPES:
            scrapes.append(scrape(server))
            saved.wait(0.2)  # the server needs the processor, too, and counts anew once a second

    with ThreadPoolExecutor(CLIENTS + 1) as threads:
        scraping = threads.submit(scrape_meanwhile)
        try:
            list(threads.map(lambda number: save(server, number, SAVES), range(CLIENTS)))
        finally:
            saved.set()
        scraping.result()
    wait_until_announced(server)

    def acknowledged() -> int:
        """How many there are is open: saves of one file that wait for the pace together are one announcement."""
        return len(broker.wait_for_log("Sending PUBACK to iotsupport-", after=log_lines, count=40))

    last = poll(lambda: scrape(server), lambda samples: samples[PUBLISHED] - first[PUBLISHED] == acknowledged())
    scrapes.append(last)
    for before, after in zip(scrapes, scrapes[1:], strict=False):
        fallen = {name for name, value in before.items() if is_counter(name) and after.get(name, -1) < value}
        assert not fallen
    assert [last[name] - first[name] for name in [SAVED, FAILED, SAVES_TIMED]] == [200, 0, 200]
    assert last["iot_config_files_count"] == 40
    assert not [name for name in last if "aa-bb" in name]


def test_the_connection_state_is_1_only_while_every_worker_is_connected(server: Server, broker: Mosquitto) -> None:
    scrape_until(server, CONNECTED, 1)

    broker.stop()
    scrape_until(server, CONNECTED, 0)
    start_connected(broker, server)

    samples = scrape_until(server, CONNECTED, 1)
    assert samples["mqtt_enabled"] == 1


def test_a_killed_worker_leaves_its_counts_and_not_its_lost_connection(server: Server, broker: Mosquitto) -> None:
    first = scrape_anew(server)
    save(server, 0, 10)
    broker.stop()
    before = scrape_until(server, CONNECTED, 0)

    log_lines = len(server.lines)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for_log("Booting worker", after=log_lines)
    start_connected(broker, server)

    # What was seen just before the new worker was there may be told for a second.
    scrape_until(server, STARTS, before[STARTS] + 1)
    after = scrape_until(server, CONNECTED, 1)
    assert after[SAVED] == before[SAVED] == first[SAVED] + 10
    assert not {name for name, value in before.items() if is_counter(name) and after.get(name, -1) < value}


def test_promtool_finds_nothing_to_complain_about(server: Server) -> None:
    save(server, 0, 1)

    page = requests.get(f"{server.url}/metrics", timeout=LIMIT).text
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=LIMIT)

    assert f'\niot_build_info{{version="{__version__}"}} 1.0\n' in page
    # The contract's name for a gauge, which dashboards know.
    known = 'iot_config_files_count non-histogram and non-summary metrics should not have "_count" suffix\n'
    assert (done.stdout, done.stderr) == ("", known)

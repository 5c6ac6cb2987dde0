"""Many configurations are imported while the broker is away: they are announced at a pace, in small memory."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from iotsupport.tests.owed.fleet import wait_until_announced
from iotsupport.tests.support.marathons import IMPORTED_FILES, marathon
from iotsupport.tests.support.mosquitto import Mosquitto
from iotsupport.tests.support.server import NEW, Server
from iotsupport.tests.support.waiting import LIMIT
from iotsupport.tests.support.wiretap import Announced, Wiretap
from notifications.pace import BURST_SECONDS

# A second, of each worker: together they need some seconds for all files.
RATE = IMPORTED_FILES // 15
# Of each worker: as many as this broker says that it takes.
IN_FLIGHT = 20
INTERACTIVE = "aa-bb-cc-dd-ee-ff"


def make_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "existing"
    directory.mkdir()
    for number in range(IMPORTED_FILES):
        content = f'{{"deviceName": "Sensor {number}", "enableOTA": true}}'
        (directory / f"02-00-00-00-{number // 256:02x}-{number % 256:02x}.json").write_text(content)
    return directory


def memory(pid: int, name: str) -> float:
    """``VmRSS`` now, or ``VmHWM``, the most that it ever was; in megabytes."""
    [kilobytes] = re.findall(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) / 1024


def check_the_pace(announced: list[Announced], began: float) -> None:
    """Each worker's, from a moment before the first of these was sent: what holds up any of them makes it no faster."""
    for connection in {each.connection for each in announced}:
        seconds = [each.seconds for each in announced if each.connection == connection]
        assert seconds[-1] - began > (len(seconds) - 1) / RATE - BURST_SECONDS


@marathon
@pytest.mark.both_databases
def test_imported_files_are_announced_at_the_set_pace_in_small_memory_and_behind_a_save(
    server: Server, broker: Mosquitto, tap: Wiretap, tmp_path: Path
) -> None:
    server.environ["MQTT_PUBLISH_RATE"] = str(RATE)
    workers = server.start_connected(broker, *NEW)
    before = {pid: memory(pid, "VmRSS") for pid in workers}
    broker.stop()
    # Each file waits for the disk, which others may keep busy.
    done = server.manage("import_configs", str(make_directory(tmp_path)), limit=10 * LIMIT)
    assert f"{IMPORTED_FILES} taken" in done.stdout

    after = len(broker.lines)
    broker.start()
    server.wait_until_connected(broker, after=after)
    tap.wait_for(lambda: len(tap.passed) >= IMPORTED_FILES // 3)
    # So that nothing is on its way while somebody saves: no worker sends more before something is acknowledged.
    broker.freeze()
    tap.wait_for(lambda: len(tap.passed) - len(tap.acknowledged) == IN_FLIGHT * len(workers))
    halted = len(tap.passed)
    with server.client() as client:
        assert client.save_config(INTERACTIVE, b"{}").status_code == 200
    began = time.monotonic()
    broker.thaw()
    wait_until_announced(server)

    announced = Counter(each.filename for each in tap.passed)
    assert announced.keys() == server.configs().keys()
    assert len(announced) == IMPORTED_FILES + 1
    assert max(announced.values()) <= 2
    [saved, *_] = [each for each in tap.passed if each.filename == f"{INTERACTIVE}.json"]
    assert [each for each in tap.passed[halted:] if each.connection == saved.connection][0] == saved
    assert halted < IMPORTED_FILES * 0.9
    check_the_pace(tap.passed[halted:], began)
    assert workers == server.workers()
    grown = {pid: memory(pid, "VmHWM") - before[pid] for pid in workers}
    assert max(grown.values()) < 50, grown

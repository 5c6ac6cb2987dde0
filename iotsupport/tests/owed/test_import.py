"""Thousands of configurations are imported while the broker is away: they are announced at a pace, in small memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from iotsupport.tests.mosquitto import Mosquitto
from iotsupport.tests.owed.fleet import wait_until_settled
from iotsupport.tests.server import Server
from iotsupport.tests.wiretap import Announced, Wiretap

# A third at a time: a command that takes over a minute is taken for one that hangs.
DIRECTORIES, FILES = 3, 1000
RATE = 200
INTERACTIVE = "aa-bb-cc-dd-ee-ff"


def make_directories(tmp_path: Path) -> Iterator[Path]:
    for number in range(DIRECTORIES):
        directory = tmp_path / f"existing-{number}"
        directory.mkdir()
        for file in range(FILES):
            name = f"02-00-00-{number:02x}-{file // 256:02x}-{file % 256:02x}.json"
            (directory / name).write_text(f'{{"deviceName": "Sensor {file}", "enableOTA": true}}')
        yield directory


def memory(pid: int, name: str) -> float:
    """``VmRSS`` now, or ``VmHWM``, the most that it ever was; in megabytes."""
    [kilobytes] = re.findall(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) / 1024


def rates(announced: list[Announced]) -> list[float]:
    """How many each worker announced a second."""
    rates = []
    for connection in {each.connection for each in announced}:
        seconds = [each.seconds for each in announced if each.connection == connection]
        rates.append((len(seconds) - 1) / (seconds[-1] - seconds[0]))
    return rates


@pytest.mark.timeout(1200)
def test_3000_imported_files_are_announced_at_the_set_pace_in_small_memory_and_behind_a_save(
    server: Server, broker: Mosquitto, tap: Wiretap, tmp_path: Path
) -> None:
    server.environ["MQTT_PUBLISH_RATE"] = str(RATE)
    workers = server.start_connected(broker)
    before = {pid: memory(pid, "VmRSS") for pid in workers}
    broker.stop()
    for directory in make_directories(tmp_path):
        assert f"{FILES} taken" in server.manage("import_configs", str(directory)).stdout

    broker.start()
    tap.wait_for(lambda: len(tap.passed) >= DIRECTORIES * FILES // 3)
    with server.client() as client:
        assert client.save_config(INTERACTIVE, b"{}").status_code == 200
    answered = len(tap.passed)
    tap.wait_for(lambda: len(tap.acknowledged) >= DIRECTORIES * FILES + 1)
    wait_until_settled(server)

    announced = Counter(each.filename for each in tap.passed)
    assert announced.keys() == server.configs().keys()
    assert len(announced) == DIRECTORIES * FILES + 1
    assert max(announced.values()) <= 2
    # All that may go out in a second is the most that went out between the answer and its announcement.
    [place] = [place for place, each in enumerate(tap.passed) if each.filename == f"{INTERACTIVE}.json"]
    assert place - answered < RATE * len(workers)
    assert place < DIRECTORIES * FILES * 0.9
    assert all(RATE / 10 < rate < RATE * 1.2 for rate in rates(tap.passed)), rates(tap.passed)
    assert workers == server.workers()
    grown = {pid: memory(pid, "VmHWM") - before[pid] for pid in workers}
    assert max(grown.values()) < 50, grown

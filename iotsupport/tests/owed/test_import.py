"""Many configurations are imported while the broker is away: they are announced at a pace, in small memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from iotsupport.tests.marathons import IMPORTED_FILES, marathon
from iotsupport.tests.mosquitto import Mosquitto
from iotsupport.tests.owed.fleet import wait_until_settled
from iotsupport.tests.server import Server
from iotsupport.tests.wiretap import Announced, Wiretap

# So many at a time: a command that takes over a minute is taken for one that hangs.
FILES_OF_A_DIRECTORY = min(IMPORTED_FILES, 1000)
# Of each worker: both need some seconds for all of them.
RATE = IMPORTED_FILES // 15
# Of each worker: as many as this broker says that it takes.
IN_FLIGHT = 20
INTERACTIVE = "aa-bb-cc-dd-ee-ff"


def make_directories(tmp_path: Path) -> Iterator[Path]:
    for number in range(IMPORTED_FILES // FILES_OF_A_DIRECTORY):
        directory = tmp_path / f"existing-{number}"
        directory.mkdir()
        for file in range(FILES_OF_A_DIRECTORY):
            name = f"02-00-00-{number:02x}-{file // 256:02x}-{file % 256:02x}.json"
            (directory / name).write_text(f'{{"deviceName": "Sensor {file}", "enableOTA": true}}')
        yield directory


def memory(pid: int, name: str) -> float:
    """``VmRSS`` now, or ``VmHWM``, the most that it ever was; in megabytes."""
    [kilobytes] = re.findall(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) / 1024


def check_the_pace(announced: list[Announced]) -> None:
    """Each worker's, from the moments in which its announcements passed.

    How late each of them passed is up to the machine, so of many the earliest is taken, as measured by a clock on which
    the set pace stands still.
    """
    for connection in {each.connection for each in announced}:
        ahead = [
            each.seconds - number / RATE
            for number, each in enumerate(each for each in announced if each.connection == connection)
        ]
        third = len(ahead) // 3
        if third > RATE:  # what a reconnection left says nothing
            assert min(ahead[-third:]) > min(ahead[:third]) - 0.3, (connection, ahead[::RATE])


@marathon
def test_imported_files_are_announced_at_the_set_pace_in_small_memory_and_behind_a_save(
    server: Server, broker: Mosquitto, tap: Wiretap, tmp_path: Path
) -> None:
    server.environ["MQTT_PUBLISH_RATE"] = str(RATE)
    workers = server.start_connected(broker)
    before = {pid: memory(pid, "VmRSS") for pid in workers}
    broker.stop()
    for directory in make_directories(tmp_path):
        assert f"{FILES_OF_A_DIRECTORY} taken" in server.manage("import_configs", str(directory)).stdout

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
    broker.thaw()
    wait_until_settled(server)

    announced = Counter(each.filename for each in tap.passed)
    assert announced.keys() == server.configs().keys()
    assert len(announced) == IMPORTED_FILES + 1
    assert max(announced.values()) <= 2
    [saved, *_] = [each for each in tap.passed if each.filename == f"{INTERACTIVE}.json"]
    assert [each for each in tap.passed[halted:] if each.connection == saved.connection][0] == saved
    assert halted < IMPORTED_FILES * 0.9
    check_the_pace(tap.passed[halted:])
    assert workers == server.workers()
    grown = {pid: memory(pid, "VmHWM") - before[pid] for pid in workers}
    assert max(grown.values()) < 50, grown

"""``python -m iotsupport.trial.run``, which is what ``make run`` and ``make demo`` start."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from iotsupport import settings
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.databases import Database
from iotsupport.tests.support.mosquitto import LoggedProcess, Subscriber
from iotsupport.tests.support.ports import free_port, reserved
from iotsupport.tests.support.server import NEUTRAL, NEW, Client, Installation, clean_environ, manage, sign_in
from iotsupport.tests.support.waiting import LIMIT, poll
from iotsupport.trial import run
from iotsupport.trial.demo import SIMULATED

READY = "IoT Support is ready"

# Of a start that has nothing to compare, which the test is not about.
NEW_SERVER = {"GUNICORN_CMD_ARGS": " ".join(NEW)}

pytestmark = pytest.mark.processes


class Runner(LoggedProcess):
    """A run with its children, as a terminal has it: in a process group of its own."""

    def __init__(self, data_dir: Path, *arguments: str, **environ: str) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.port = free_port()
        self.environ = {"DATA_DIR": str(data_dir), "PORT": str(self.port), **environ}
        self._workers = int(environ.get("WEB_CONCURRENCY", NEUTRAL["WEB_CONCURRENCY"]))
        self.process = self._start(
            *[sys.executable, "-m", "iotsupport.trial.run", *arguments],
            cwd=BASE_DIR,
            env=clean_environ(self.environ),
            start_new_session=True,
            preexec_fn=_heed_all_signals,
        )

    def wait_until_ready(self) -> None:
        """Until it says so, and all workers of the server are there, too: it may say so after the first."""
        self.wait_for_log(READY)
        poll(lambda: self.children("gunicorn"), lambda found: len(found) == 1 + self._workers)
        self._handles = dict(filter(None, map(open_handle, descendants(self.process.pid))))

    def children(self, name: str) -> list[int]:
        return [pid for pid in descendants(self.process.pid) if name in command_line(pid)]

    @property
    def broker_log(self) -> Path:
        return self.data_dir / "broker" / "broker.log"

    def wait(self) -> int:
        """Return the exit code, when all output was read."""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code

    def wait_until_all_ended(self) -> None:
        for pid, handle in self._handles.items():
            assert select.select([handle], [], [], LIMIT)[0], f"Process {pid} is left:\n{self.log}"
            os.close(handle)
        assert not is_listening(self.port)
        assert not is_listening(self.broker_port)

    @property
    def broker_port(self) -> int:
        [line] = self.wait_for_log("mosquitto_sub -V 5 -h")
        return int(line.split(" -p ")[1].split()[0])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_until_connected(runner: Runner, pid: int) -> None:
    connected = re.compile(f"New client connected .* as iotsupport-.*-{pid}-")
    poll(runner.broker_log.read_text, lambda log: bool(connected.search(log)))


def open_handle(pid: int) -> tuple[int, int] | None:
    try:
        return pid, os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended since it was seen
        return None


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _heed_all_signals() -> None:
    """Those that nohup(1), or a shell's background, has told a test run to ignore: its children would, too."""
    for number in [signal.SIGHUP, signal.SIGINT]:
        signal.signal(number, signal.SIG_DFL)


def descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [deeper for child in children for deeper in descendants(child)]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """The private broker takes the first port that is free, and so would those of other tests in the same moment."""
    with reserved(run.BROKER_PORTS[0]):
        yield


@pytest.fixture
def start(
    new_database: Callable[[Path], Database], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Runner]]:
    runners: list[Runner] = []
    if "started_before" in request.fixturenames:
        database = request.getfixturevalue("started_before").database
    elif "with_tables" in request.fixturenames:
        database = request.getfixturevalue("with_tables")
    else:
        database = new_database(tmp_path / "data")

    def start(*arguments: str, **environ: str) -> Runner:
        runners.append(Runner(tmp_path / "data", *arguments, **database.environ | environ))
        return runners[-1]

    yield start
    for runner in runners:
        runner.kill()


@pytest.fixture(scope="session")
def prepared(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    copy = template.copy(tmp_path_factory.mktemp("prepared"))
    manage(copy.environ, "prepare", "--skip-checks")
    return copy


@pytest.fixture
def with_tables(migrated: Callable[[Path], Database], tmp_path: Path) -> Database:
    """Nothing but the tables is there: migrating takes a second of the processor."""
    (tmp_path / "data").mkdir()
    return migrated(tmp_path / "data")


@pytest.fixture
def started_before(prepared: Installation, tmp_path: Path) -> Installation:
    """The data directory is there already, so that a start is quick."""
    copy = prepared.copy(tmp_path / "data")
    (copy.data_dir / "static").symlink_to(prepared.data_dir / "static")
    return copy


def test_serves_a_new_data_directory_to_a_first_administrator(start):
    runner = start()
    runner.wait_until_ready()
    [name] = runner.wait_for_log("Name: ")
    [password] = runner.wait_for_log("Password: ")

    with requests.Session() as browser:
        browser.trust_env = False
        answer = sign_in(browser, f"http://127.0.0.1:{runner.port}", name.split()[-1], password.split()[-1])

    assert f"http://127.0.0.1:{runner.port}/admin/" in runner.log
    assert answer.url.endswith("/admin/")
    assert "Log out" in answer.text
    assert (runner.data_dir / "static" / "admin").is_dir()


@pytest.mark.usefixtures("with_tables")
def test_after_sigterm_a_second_start_reuses_what_is_there_and_ends_with_the_exit_code_of_the_server(start):
    first = start(DJANGO_SUPERUSER_USERNAME="ada", DJANGO_SUPERUSER_PASSWORD="not-in-the-output")
    first.wait_until_ready()
    end_all_by_a_signal(first, signal.SIGTERM, count=1)

    second = start()
    second.wait_until_ready()

    assert "ada" in first.log
    assert "not-in-the-output" not in first.log
    assert "administrator" not in second.log
    assert "Files and database are equal." in second.log

    os.kill(second.children("gunicorn")[0], signal.SIGKILL)

    assert second.wait() == 128 + signal.SIGKILL
    second.wait_until_all_ended()


@pytest.mark.usefixtures("started_before")
@pytest.mark.parametrize(("number", "count"), [(signal.SIGINT, 2), (signal.SIGHUP, 1)])
def test_a_signal_to_the_terminals_processes_ends_everything_the_broker_last(start, number, count):
    """As does SIGTERM, in the test above."""
    runner = start(WEB_CONCURRENCY=str(count), **NEW_SERVER)
    runner.wait_until_ready()

    end_all_by_a_signal(runner, number, count)


def end_all_by_a_signal(runner: Runner, number: signal.Signals, count: int) -> None:
    """Assert that a signal to the terminal's processes ends everything, with so many workers, and the broker last."""
    workers = runner.children("gunicorn")[1:]
    assert len(workers) == count
    for pid in workers:
        wait_until_connected(runner, pid)

    os.killpg(runner.process.pid, number)

    assert runner.wait() == 0
    runner.wait_until_all_ended()
    lines = runner.broker_log.read_text().splitlines()
    for pid in workers:
        assert any(re.search(f"Client iotsupport-.*-{pid}-.* disconnected", line) for line in lines)
    assert "terminating" in lines[-1]


def test_a_save_is_heard_by_a_subscriber_of_the_private_broker_and_nothing_is_left_when_it_is_killed(
    start, started_before
):
    runner = start(**NEW_SERVER)
    runner.wait_until_ready()

    url = f"http://127.0.0.1:{runner.port}"
    with Subscriber(runner.broker_port) as subscriber, Client(url, started_before.token) as client:
        client.upload("demo-firmware.bin", b"the second")

        assert subscriber.next().payload == b'{"filename": "demo-firmware.bin"}'

    runner.process.kill()

    runner.wait()
    runner.wait_until_all_ended()


def test_a_port_in_use_is_said_before_anything_starts(start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        runner = start(PORT=str(port))

        assert runner.wait() == 1
        assert f"Port {port} of 127.0.0.1 is in use." in runner.log
        assert f"PORT={port + 1} make run" in runner.log
        assert not (runner.data_dir / "broker").exists()


@pytest.mark.usefixtures("started_before")
def test_a_broker_that_is_set_is_used_instead_of_a_private_one(start, broker):
    runner = start(MQTT_URL=broker.url, **NEW_SERVER)
    runner.wait_until_ready()

    broker.wait_for_log("New client connected .* as iotsupport-")
    assert "mosquitto_sub" not in runner.log
    assert not (runner.data_dir / "broker").exists()


@pytest.mark.usefixtures("started_before")
def test_a_broken_broker_url_is_said_and_the_server_starts(start):
    runner = start(MQTT_URL="http://example.com")
    runner.wait_until_ready()

    runner.wait_for_log(r"notifications\.\w+\) MQTT_URL must begin with")
    assert requests.get(f"http://127.0.0.1:{runner.port}/health", timeout=LIMIT).status_code == 200


def test_a_database_that_cannot_be_used_is_named(start):
    runner = start(DATABASE_URL="mongodb://example.com/devices")

    assert runner.wait() == 1
    assert "DATABASE_URL cannot be read" in runner.log
    assert READY not in runner.log


def test_the_demo_has_its_own_data_and_devices_that_hear_of_an_edit(start, tmp_path):
    elsewhere = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'real.sqlite3'}",
        "ESP32_CONFIGS_DIR": str(tmp_path / "real-configs"),
        "ASSETS_DIR": str(tmp_path / "real-assets"),
        "CHECKINS_SOCKET": str(tmp_path / "real.sock"),
    }
    runner = start("--demo", **elsewhere)
    runner.wait_for_log(" bytes, at start", count=SIMULATED)
    runner.wait_until_ready()
    demo = runner.data_dir / "demo"
    # It has subscribed, and fetches after that.
    runner.wait_for_log("02-de-30-00-00-03 (200|304) .* after subscribing")

    code = (
        "from devices.models import DeviceConfig; config = DeviceConfig.objects.get(mac_address='02-de-30-00-00-03');"
        'config.content = \'{"deviceName": "Kitchen"}\'; config.save()'
    )
    broker_url = f"mqtt://127.0.0.1:{runner.broker_port}"
    manage({"DATA_DIR": str(demo), "MQTT_URL": broker_url}, "shell", "--command", code)

    runner.wait_for_log("02-de-30-00-00-03 200 25 bytes, .* ms after the announcement")
    runner.process.terminate()
    assert runner.wait() == 0
    # What a command has no time to note as acknowledged is left to the server, which says it once more.
    assert re.search(r"[1-9]\d* announcements heard for them, [1-9]\d* acted on; 0 failures", runner.log)
    assert len(list((demo / "configs").glob("*.json"))) == 24
    assert len(list((demo / "assets").glob("demo-*"))) == 3
    assert not (tmp_path / "real.sqlite3").exists()
    assert not (tmp_path / "real.sock").exists()
    assert not list((tmp_path / "real-configs").iterdir())
    assert not list((tmp_path / "real-assets").iterdir())
    runner.wait_until_all_ended()


def test_the_next_free_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = free_port()

        assert run.find_port([port, free], "127.0.0.1") == free


def test_an_address_of_another_machine_is_refused_with_what_to_do():
    with pytest.raises(run.StartError, match=r"HOST 192\.0\.2\.1 cannot be listened on .* or 0\.0\.0\.0"):
        run.find_port([0], "192.0.2.1")


@pytest.mark.skipif(not importlib.util.find_spec("iotcore"), reason="iotcore is not made for this machine")
def test_iotcore_stands_in_where_mosquitto_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *arguments, **options: None)
    port = free_port()

    command = run.broker_command(port, tmp_path)

    assert command is not None
    with subprocess.Popen(command) as process:
        assert run.wait_until_it_listens(process, port)
        with Subscriber(port) as subscriber:
            subscriber.publish("iotsupport/updates/configs", b"news")

            assert subscriber.next().payload == b"news"
        run.stop(process)


def test_a_value_that_cannot_be_right_is_said_and_replaced_for_gunicorn(monkeypatch, capsys):
    """gunicorn reads WEB_CONCURRENCY by itself before it reads anything of ours, and ends with a traceback."""
    monkeypatch.setenv("WEB_CONCURRENCY", "two")
    problems = {"WEB_CONCURRENCY": "WEB_CONCURRENCY is 'two', but it must be a whole number from 1."}
    monkeypatch.setattr(settings, "ENVIRONMENT_PROBLEMS", problems)
    monkeypatch.setattr(settings, "PORT", 0)

    everything = run.Run(demo=False)
    everything.say_what_is_replaced()

    assert everything.environ["WEB_CONCURRENCY"] == str(settings.WEB_CONCURRENCY)
    assert capsys.readouterr().out == (
        "WEB_CONCURRENCY is 'two', but it must be a whole number from 1."
        f" Until it is corrected, WEB_CONCURRENCY={settings.WEB_CONCURRENCY}.\n"
    )


def test_a_private_broker_that_has_no_place_for_its_files_is_no_error(monkeypatch, capsys):
    monkeypatch.setattr(run.settings, "DATA_DIR", Path("/dev/null"))
    monkeypatch.setattr(run.settings, "PORT", 0)

    with ExitStack() as children:
        run.Run(demo=False)._start_broker(children)

    said = capsys.readouterr().out
    assert said == "Notifications are off: '/dev/null/broker' cannot be written: Not a directory.\n"


def test_no_broker_at_all_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *arguments, **options: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert run.broker_command(1883, tmp_path) is None


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], run.Run]:
    """Make a run that has a data directory and a port of its own."""
    monkeypatch.setattr(settings, "DATA_DIR", tmp_path)
    monkeypatch.setattr(settings, "PORT", 0)
    return lambda: run.Run(demo=False)


def found_programs(monkeypatch: pytest.MonkeyPatch, **paths: str | None) -> None:
    """Find these programs at these places, or nowhere; all others as usual."""
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name, **options: paths.get(name, which(name, **options)))


def start_broker(everything: run.Run) -> None:
    with ExitStack() as children:
        everything._start_broker(children)


def test_that_there_is_no_broker_is_said_with_what_to_do(monkeypatch, capsys, in_process):
    monkeypatch.setattr("shutil.which", lambda *arguments, **options: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    everything = in_process()

    start_broker(everything)

    assert capsys.readouterr().out == (
        "Notifications are off: there is no broker. Install Mosquitto (package mosquitto), or set MQTT_URL.\n"
    )
    assert "MQTT_URL" not in everything.environ or not everything.environ["MQTT_URL"]


def test_a_broker_that_ends_at_once_is_said_with_where_it_says_why(monkeypatch, capsys, in_process, tmp_path):
    found_programs(monkeypatch, mosquitto="/bin/false")
    everything = in_process()

    start_broker(everything)

    log = tmp_path / "broker" / "broker.log"
    assert capsys.readouterr().out == f"Notifications are off: the broker did not start. {log} says why.\n"
    assert log.exists()
    assert not everything.environ.get("MQTT_URL")


def test_who_cannot_listen_is_told_which_package_has_the_program(monkeypatch, capsys, in_process):
    found_programs(monkeypatch, mosquitto_sub=None)
    everything = in_process()

    start_broker(everything)

    assert "mosquitto_sub is not installed: it is in the package mosquitto-clients" in capsys.readouterr().out
    assert everything.environ["MQTT_URL"].startswith("mqtt://127.0.0.1:")


def test_a_server_that_ends_before_it_answers_ends_the_run_with_its_exit_code(monkeypatch, capsys, in_process):
    monkeypatch.setattr(settings, "MQTT_URL", "mqtt://127.0.0.1:9")
    # What prepares the data does nothing, and the server neither.
    monkeypatch.setattr(sys, "executable", "/bin/true")

    assert in_process().serve() == 0

    assert capsys.readouterr().out == ""


def test_whoever_lets_devices_in_is_told_what_they_need(monkeypatch, capsys, in_process):
    monkeypatch.setattr(settings, "HOST", "0.0.0.0")  # noqa: S104 - closed at once
    everything = in_process()

    everything._say_where()
    monkeypatch.setattr(settings, "MQTT_URL", "mqtt://broker.example.com")
    everything._say_where()

    ready = f"IoT Support is ready: http://127.0.0.1:{everything.port}/admin/   (Ctrl-C ends it)\n"
    address = "Devices use this machine's own address instead of 127.0.0.1.\n"
    broker = "They cannot reach the private broker: set MQTT_URL to one on the network.\n"
    assert capsys.readouterr().out == ready + address + broker + ready + address


def test_a_port_of_the_system_is_refused_with_what_to_do():
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    problem = run.why_not(refused, "127.0.0.1", 80)

    assert problem == "Port 80 needs more rights. Choose one above 1023, such as: PORT=8000 make run"


@pytest.fixture
def signals() -> Iterator[None]:
    """As they were, after the test."""
    before = {number: signal.getsignal(number) for number in run.ENDING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_nohup_lets_it_outlive_the_terminal_and_nothing_else(monkeypatch, capsys):
    for number in run.ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    monkeypatch.setattr(sys, "argv", ["run"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(settings, "PORT", taken.getsockname()[1])

        assert run.main() == 1

    assert "is in use" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in run.ENDING_SIGNALS] == [run.end, run.end, signal.SIG_IGN]

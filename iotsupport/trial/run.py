"""``make run`` and ``make demo``: everything that IoT Support needs, started together and ended together.

``python -m iotsupport.trial.run [--demo]``. Where ``MQTT_URL`` is not set, a private broker belongs to it.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from iotsupport import access, settings
from iotsupport.serving import only_one
from iotsupport.trial.children import die_with
from iotsupport.trial.demo import OFF, SIMULATED

Child = subprocess.Popen[bytes]

LOOPBACK = "127.0.0.1"
EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - recognised, not bound
BROKER_PORTS = range(1883, 1983)

BROKER_START_SECONDS = 10.0
# More than gunicorn's graceful_timeout, after which it kills its workers itself.
PATIENCE_SECONDS = 20.0

ENDING_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
# No limit: with one, Mosquitto drops messages to a subscriber that is slow, and says nothing.
max_queued_messages 0
# Stays who started it: a change of user would undo that it dies with its parent.
user {user}
"""

IOTCORE_TOML = """\
id = 0

[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
"""


class StartError(Exception):
    """IoT Support cannot be started. The message is a sentence for a person."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m iotsupport.trial.run", description="Run all of IoT Support.")
    parser.add_argument("--demo", action="store_true", help="with sample data of its own, and simulated devices")
    demo = parser.parse_args().demo
    for number in ENDING_SIGNALS:
        # nohup wants it to outlive the terminal. SIGINT is ignored in what a script starts with "&", yet whoever sends
        # it there means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        return Run(demo).serve()
    except StartError as error:
        print(error, file=sys.stderr)
        return 1


def end(number: int, frame: FrameType | None) -> None:
    for ending in ENDING_SIGNALS:
        signal.signal(ending, signal.SIG_IGN)  # it is ending already
    say("\nEnding…")
    raise SystemExit(0)


def say(text: str) -> None:
    # A terminal that was closed must not keep the children from being ended.
    with suppress(OSError):
        print(text, flush=True)


class Run:
    """The children of one run, with the environment that they share."""

    def __init__(self, demo: bool) -> None:
        self.demo = demo
        self.data_dir = settings.DATA_DIR / "demo" if demo else settings.DATA_DIR
        # Ahead of its port, which somebody would change only to hear this.
        if running := only_one.running_server(self.data_dir):
            raise StartError(only_one.refusal(self.data_dir, running))
        self.port = find_port([settings.PORT], settings.HOST)
        self.environ = os.environ | {"PORT": str(self.port), "DATA_DIR": str(self.data_dir)}
        # gunicorn reads it itself, and ends with a traceback where it is no number.
        self.environ["WEB_CONCURRENCY"] = str(settings.WEB_CONCURRENCY)
        if demo:
            # Empty, so that neither the environment nor .env leads to the real data.
            self.environ |= dict.fromkeys(["DATABASE_URL", "ESP32_CONFIGS_DIR", "ASSETS_DIR", "CHECKINS_SOCKET"], "")

    def serve(self) -> int:
        """Start everything, and return the server's exit code when it ends.

        Ended in the opposite order: the server still announces to the broker what was saved.
        """
        self.say_what_is_replaced()
        with ExitStack() as children:
            if not settings.MQTT_URL:
                self._start_broker(children)
            self._prepare(children)
            server = children.enter_context(self._child(sys.executable, "-m", "gunicorn", "iotsupport.wsgi"))
            if self._wait_until_it_answers(server):
                self._say_where()
                if self.demo:
                    children.enter_context(self._child(*self._simulator_command()))
            while server.poll() is None:
                time.sleep(0.5)
            return exit_code(server)

    def say_what_is_replaced(self) -> None:
        """Say which values cannot be right: the checks of the children see those that are taken instead."""
        for name in ["DATA_DIR", "PORT", "WEB_CONCURRENCY"]:
            if name in settings.ENVIRONMENT_PROBLEMS:
                say(f"{settings.ENVIRONMENT_PROBLEMS[name]} Until it is corrected, {name}={self.environ[name]}.")

    def _start_broker(self, children: ExitStack) -> None:
        directory = self.data_dir / "broker"
        port = find_port(BROKER_PORTS, LOOPBACK)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            command = broker_command(port, directory)
            log = children.enter_context((directory / "broker.log").open("wb"))
        except OSError as error:
            say(f"Notifications are off: '{error.filename}' cannot be written{access.describe(error)}")
            return
        if command is None:
            say("Notifications are off: there is no broker. Install Mosquitto (package mosquitto), or set MQTT_URL.")
            return
        broker = children.enter_context(self._child(*command, stdout=log, stderr=log))
        if not wait_until_it_listens(broker, port):
            say(f"Notifications are off: the broker did not start. {log.name} says why.")
            return
        self.environ["MQTT_URL"] = f"mqtt://{LOOPBACK}:{port}"
        say("Announcements can be heard with:")
        say(f"  mosquitto_sub -V 5 -h {LOOPBACK} -p {port} -t 'iotsupport/updates/#' -v")
        if not shutil.which("mosquitto_sub"):
            say("  (mosquitto_sub is not installed: it is in the package mosquitto-clients)")

    def _prepare(self, children: ExitStack) -> None:
        # Without a broker: nobody has to hear of sample data before there is a server to download from.
        command = [sys.executable, "manage.py", "prepare", "--skip-checks", *(["--demo"] if self.demo else [])]
        with self._child(*command, environ=self.environ | {"MQTT_URL": ""}) as process:
            if process.wait():
                raise StartError("The server was not started: see the messages above.")

    def _wait_until_it_answers(self, server: Child) -> bool:
        while server.poll() is None:
            connection = http.client.HTTPConnection(self._local_host, self.port, timeout=5)
            try:
                connection.request("GET", "/health")
                connection.getresponse()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
            else:
                return True
            finally:
                connection.close()
        return False

    def _say_where(self) -> None:
        say(f"IoT Support is ready: {self._base_url}/admin/   (Ctrl-C ends it)")
        if settings.HOST in EVERYWHERE:
            say(f"Devices use this machine's own address instead of {self._local_host}.")
            if not settings.MQTT_URL:
                say("They cannot reach the private broker: set MQTT_URL to one on the network.")

    def _simulator_command(self) -> list[str]:
        options = ["--count", str(SIMULATED), "--off", *OFF, "--base-url", self._base_url]
        return [sys.executable, "manage.py", "simulate_devices", *options]

    @property
    def _local_host(self) -> str:
        return EVERYWHERE.get(settings.HOST, settings.HOST)

    @property
    def _base_url(self) -> str:
        host = f"[{self._local_host}]" if ":" in self._local_host else self._local_host
        return f"http://{host}:{self.port}"

    @contextmanager
    def _child(self, *command: str, environ: dict[str, str] | None = None, **options: Any) -> Iterator[Child]:
        """A process that is ended with the block, and whatever ends this one.

        It has a session of its own: the terminal's Ctrl-C ends this process, which ends its children in order.
        """
        process = subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            env=environ or self.environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGTERM),
            **options,
        )
        try:
            yield process
        finally:
            stop(process)


def find_port(ports: Iterable[int], host: str) -> int:
    """Return the first port that can be listened on; 0 stands for any. Raises :class:`StartError`."""
    for port in ports:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.create_server((host, port), family=family) as listener:
                return int(listener.getsockname()[1])
        except OSError as error:
            problem = why_not(error, host, port)
    raise StartError(problem)


def why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use. End what uses it, or choose another port: PORT={port + 1} make run"
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights. Choose one above 1023, such as: PORT=8000 make run"
    return f"HOST {host} cannot be listened on ({error.strerror}). Set HOST to an address of this machine, or 0.0.0.0."


def broker_command(port: int, directory: Path) -> list[str] | None:
    """Return how to start the broker that is installed, if there is one, with its configuration in the directory."""
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if mosquitto:
        path = directory / "mosquitto.conf"
        path.write_text(MOSQUITTO_CONF.format(port=port, user=pwd.getpwuid(os.geteuid()).pw_name))
        return [mosquitto, "-c", str(path)]
    if importlib.util.find_spec("iotcore"):
        path = directory / "iotcore.toml"
        path.write_text(IOTCORE_TOML.format(port=port))
        return [sys.executable, "-m", "iotcore", "--config", str(path), "--log-level", "CRITICAL"]
    return None


def wait_until_it_listens(process: Child, port: int) -> bool:
    deadline = time.monotonic() + BROKER_START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return True
        time.sleep(0.02)
    return False


def stop(process: Child) -> None:
    """End a child gracefully, and then at once whatever it left."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def exit_code(process: Child) -> int:
    """The exit code as a shell gives it: 128 and the signal's number for a killed process."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())

"""A private Mosquitto on a free port, and a subscriber that collects what it hears."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from iotsupport.tests.support import warm
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.waiting import LIMIT, eventually


class LoggedProcess:
    """A program whose output is collected in ``lines`` while it runs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._logged = threading.Condition()
        self._outputs = 0  # that have not ended

    @property
    def log(self) -> str:
        with self._logged:
            return "\n".join(self.lines)

    def wait_for_log(self, pattern: str, *, after: int = 0, count: int = 1) -> list[str]:
        """Return the log's lines that match, from line number ``after`` on, as soon as there are so many."""
        found: list[str] = []
        looked_at = after

        def is_logged() -> bool:
            nonlocal looked_at
            found.extend(line for line in self.lines[looked_at:] if re.search(pattern, line))
            looked_at = max(looked_at, len(self.lines))
            return len(found) >= count

        with self._logged:
            self._logged.wait_for(lambda: is_logged() or not self._outputs, LIMIT)
            assert len(found) >= count, f"{pattern!r} is not in the log:\n" + "\n".join(self.lines)
        return found

    def _start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        self._collect(process.stdout)
        return process

    def _start_python(
        self, *arguments: str, environ: dict[str, str], in_session: bool = False
    ) -> subprocess.Popen[str] | warm.Process:
        """Start a program of this checkout, with Django loaded already where that can be; see :class:`warm.Process`."""
        if not warm.CAN_BE:
            command = [sys.executable, *arguments]
            return self._start(*command, cwd=warm.BASE_DIR, env=environ, start_new_session=in_session)
        reading, writing = os.pipe()
        try:
            process = warm.Process(
                [*arguments], environ, out=writing, err=writing, cwd=warm.BASE_DIR, in_session=in_session
            )
        finally:
            os.close(writing)
        self._collect(os.fdopen(reading))
        return process

    def _collect(self, output: Any) -> None:
        with self._logged:
            self._outputs += 1
        self._reader = threading.Thread(target=self._read_log, args=[output], daemon=True)
        self._reader.start()

    def _read_log(self, output: Any) -> None:
        with output:
            for line in output:
                with self._logged:
                    self.lines.append(line.rstrip("\n"))
                    self._logged.notify_all()
        with self._logged:
            self._outputs -= 1
            self._logged.notify_all()

    def _wait_for_end(self, process: subprocess.Popen[str] | warm.Process) -> None:
        """Wait for a process that ends, and read what it still said: else it could be taken for its successor's."""
        process.wait(LIMIT)
        # Its output ends when the last of its children does.
        self._reader.join(LIMIT)
        assert not self._reader.is_alive(), "Some of its processes do not end:\n" + self.log


class Mosquitto(LoggedProcess):
    """A broker that a test may stop, restart and freeze. It logs everything; ended by its process id."""

    def __init__(
        self,
        directory: Path,
        *,
        users: dict[str, str] | None = None,
        acl: str = "",
        certificates: Certificates | None = None,
        config: str = "",
    ) -> None:
        """``users`` maps names to passwords, ``acl`` is the text of an ACL file, ``config`` is added to the options."""
        super().__init__()
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None
        self._config_file = directory / "mosquitto.conf"
        options = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'false' if users else 'true'}",
            "user root",  # whoever starts it may read the files below; ignored for everyone but root
            "persistence true",
            f"persistence_location {directory}/",
            "log_dest stderr",
            "log_type all",
            "max_queued_messages 0",
            config,
        ]
        if users:
            options.append(f"password_file {_write_passwords(directory / 'passwords', users)}")
        if acl:
            (directory / "acl").write_text(acl)
            options.append(f"acl_file {directory / 'acl'}")
        if certificates:
            options += [f"certfile {certificates.certificate}", f"keyfile {certificates.key}"]
        self._config_file.write_text("\n".join(options) + "\n")
        self.url = f"{'mqtts' if certificates else 'mqtt'}://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Return when it accepts connections."""
        first_line = len(self.lines)
        # Debian keeps it where only root's PATH looks.
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = self._start(program, "-c", str(self._config_file))
        self.wait_for_log(r"mosquitto version .* running", after=first_line)
        # It says so before its loop runs, and until then forgets a signal to end.
        with socket.create_connection(("127.0.0.1", self.port)):
            self.wait_for_log("New connection from", after=first_line)
        return self

    def stop(self) -> None:
        """End it properly; it remembers its subscribers. Idempotent."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._wait_for_end(self._process)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would: without a word to its clients, and forgetting its subscribers."""
        assert self._process is not None
        self._process.kill()
        self._wait_for_end(self._process)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def freeze(self) -> None:
        """Let it neither answer nor end: connections are still accepted by the kernel."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Certificates:
    """A certificate authority, and what it issued to the broker on 127.0.0.1 and localhost.

    Everybody makes an authority as this one; browsers and Python from 3.13 on want it to be ``strict``.
    """

    def __init__(self, directory: Path, *, strict: bool = False) -> None:
        self.ca_file, ca_key = directory / "ca.pem", directory / "ca.key"
        self.certificate, self.key = directory / "broker.pem", directory / "broker.key"
        usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"] if strict else []
        _openssl("-keyout", ca_key, "-out", self.ca_file, "-subj", "/CN=Authority of the tests", *usage)
        self._issued_by: list[str | Path] = ["-CA", self.ca_file, "-CAkey", ca_key]
        self._issue("broker", self.certificate, self.key, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")

    def issue(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Return files in a directory with the certificate of a client, whose name it says, and its key."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        self._issue(name, certificate, key)
        return certificate, key

    def _issue(self, name: str, certificate: Path, key: Path, *options: str) -> None:
        not_ca = ["-addext", "basicConstraints=critical,CA:FALSE"]
        _openssl("-keyout", key, "-out", certificate, "-subj", f"/CN={name}", *options, *not_ca, *self._issued_by)


class Received(NamedTuple):
    """A message as a subscriber gets it. ``seen`` is what ``look`` returned at the moment of arrival."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    seen: Any


class Subscriber:
    """Collects the messages of the product's topics, in order. A context manager.

    A broker that was stopped and started again keeps what was sent before the subscriber is back.
    """

    def __init__(
        self,
        port: int,
        *,
        look: Callable[[MQTTMessage], Any] = lambda message: None,
        topic: str = "iotsupport/#",
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._messages: queue.Queue[Received] = queue.Queue()
        self._subscribed = threading.Event()
        self._topic, self._look, self._port = topic, look, port
        name = f"subscriber-{uuid.uuid4()}"  # by which a broker that was restarted knows it
        self._client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 2)
        self._client.username_pw_set(username, password)
        if ca_file:
            self._client.tls_set(str(ca_file))
        self._client.on_connect = lambda client, *rest: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *arguments: self._subscribed.set()
        self._client.on_message = self._collect

    def __enter__(self) -> Self:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", self._port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._subscribed.wait(LIMIT), "The subscriber is not connected."
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # In a circle with them, the garbage collector may take the client's sockets before the client closes them.
        self._client.on_subscribe = self._client.on_message = None

    def next(self) -> Received:
        """The next message, as soon as it is there."""
        return self._messages.get(timeout=LIMIT)

    def take(self, count: int) -> list[Received]:
        return [self.next() for _ in range(count)]

    def before(self, payload: bytes) -> list[Received]:
        """The messages before the one with this payload: publish it last, and what is missing was never sent."""
        messages = []
        while (message := self.next()).payload != payload:
            messages.append(message)
        return messages

    def publish(self, topic: str, payload: bytes) -> None:
        """Speak itself, once it is connected again where the broker was away."""
        eventually(self._client.is_connected, lambda: "The subscriber is not connected.")
        self._client.publish(topic, payload, qos=1).wait_for_publish(LIMIT)

    def _collect(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        seen = self._look(message)
        self._messages.put(Received(message.topic, bytes(message.payload), message.qos, message.retain, seen))


def _write_passwords(path: Path, users: dict[str, str]) -> Path:
    path.touch(mode=0o600)
    for name, password in users.items():
        subprocess.run(["mosquitto_passwd", "-b", str(path), name, password], check=True, capture_output=True)
    return path


def _openssl(*options: str | Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]
    subprocess.run([*command, *map(str, options)], check=True, capture_output=True)

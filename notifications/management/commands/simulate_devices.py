"""Devices to try the server with."""

from __future__ import annotations

import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from devices.models import DeviceConfig
from iotsupport.checks import INSTALLATION
from iotsupport.serving.credentials import basic_credentials, credentials_of_devices
from notifications.broker import Broker
from notifications.simulator.devices import Simulator

MOST = 5000
OTHER_FILES = 100


class Command(BaseCommand):
    help = "Run devices that behave as good firmware does: they fetch at start, and when their file is announced."
    requires_system_checks = INSTALLATION

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--count", type=int, default=24, help="how many (default: 24); known ones come first")
        parser.add_argument("--off", nargs="+", default=[], metavar="MAC", help="known ones that are not there")
        parser.add_argument(
            "--base-url",
            default=f"http://127.0.0.1:{settings.PORT}",
            help="default: %(default)s; as http://NAME:PASSWORD@HOST, devices sign in with these",
        )
        parser.add_argument("--mqtt-url", default=settings.MQTT_URL, help="mqtt://host:port (default: MQTT_URL)")
        parser.add_argument("--duration", type=float, help="seconds (default: until Ctrl-C)")

    def handle(
        self, *, count: int, off: list[str], base_url: str, mqtt_url: str, duration: float | None, **options: Any
    ) -> None:
        if not 1 <= count <= MOST:
            raise CommandError(f"--count must be from 1 to {MOST}.")
        base_url, credentials = read_base_url(base_url)
        broker = find_broker(mqtt_url)
        if broker is None:
            self.say("There is no broker (MQTT_URL is not set): the devices hear nothing, and fetch at start.")
        allow_open_files(count + OTHER_FILES)
        simulator = Simulator(base_url, choose_mac_addresses(count, off), broker, self.say, credentials)
        ending = end_on_signals()
        simulator.start()
        with suppress(Empty):
            ending.get(timeout=duration)
        simulator.stop()
        self.say(simulator.summary())

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def read_base_url(base_url: str) -> tuple[str, str | None]:
    """Return the address alone, and what devices send to sign in: what stands in it, or else the newest password."""
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CommandError("--base-url must be http://host:port or https://host:port.")
    alone = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.username is not None:
        return alone, basic_credentials(unquote(parts.username), unquote(parts.password or ""))
    try:
        return alone, next(iter(credentials_of_devices() or []), None)
    except ValueError as error:
        raise CommandError(str(error)) from error


def find_broker(mqtt_url: str) -> Broker | None:
    """Return the broker of a URL; credentials and certificate of the settings are only for that of the settings."""
    try:
        if mqtt_url == settings.MQTT_URL:
            broker = Broker.from_settings()
        else:
            broker = Broker.parse(mqtt_url, ca_file=settings.MQTT_CA_FILE) if mqtt_url else None
        if broker is not None:
            broker.tls_context()  # whether its files can be used
        return broker
    except ValueError as error:
        raise CommandError(str(error).replace("MQTT_URL", "The broker's URL")) from error


def choose_mac_addresses(count: int, off: Sequence[str] = ()) -> list[str]:
    """Return the first known MAC addresses, and made-up ones (locally administered) where there are not enough.

    Those that are ``off`` are none of them.
    """
    known = DeviceConfig.objects.order_by("mac_address").values_list("mac_address", flat=True)
    there = list(known.exclude(mac_address__in=off)[:count])
    made_up = (f"02-00-00-00-{number >> 8:02x}-{number & 255:02x}" for number in range(count + len(there) + len(off)))
    fresh = (mac_address for mac_address in made_up if mac_address not in there and mac_address not in off)
    return there + [next(fresh) for _ in range(count - len(there))]


def allow_open_files(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


def end_on_signals() -> SimpleQueue[int]:
    """Return where SIGINT and SIGTERM are put from now on, instead of ending this process.

    An ``Event`` has a lock, which the thread may hold in which the handler is called: each would wait for the other.
    """
    came: SimpleQueue[int] = SimpleQueue()  # may be put into at any moment
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: came.put(number))
    return came

"""A data directory with many configurations: rows, their history, nothing owed, and the files that mirror them.

Made quickly: without the signals and the disk's syncs of a save, but with all that saves would have left.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import ROOT, environ

CONFIG_BYTES = 1000
# Boards that have no configuration, and ask.
WAITING = 500


class Fleet(NamedTuple):
    """Its administrator has a token and a session."""

    data_dir: Path
    size: int
    token: str
    session: str


@contextmanager
def fleet(size: int) -> Iterator[Fleet]:
    """So many configurations, in a directory that is gone afterwards.

    Where ``BENCHMARK_FLEETS`` names a directory, it is kept there for the next benchmark.
    """
    if kept := os.environ.get("BENCHMARK_FLEETS"):
        yield _fleet(Path(kept) / str(size), size)
        return
    with tempfile.TemporaryDirectory(prefix="iotsupport-benchmark-") as directory:
        yield _fleet(Path(directory) / str(size), size)


def _fleet(data_dir: Path, size: int) -> Fleet:
    keys = data_dir / "keys"
    if not keys.exists():
        data_dir.mkdir(parents=True)
        for directory in [data_dir, data_dir.parent]:
            directory.chmod(0o755)  # for nginx, which changes its user
        command = [sys.executable, "-m", "benchmarks.fleet", str(size)]
        done = subprocess.run(command, cwd=ROOT, env=environ(data_dir), check=True, stdout=subprocess.PIPE, text=True)
        keys.write_text(done.stdout)
    return Fleet(data_dir, size, *keys.read_text().split()[-2:])


def mac_address(number: int) -> str:
    return "02-00-00-" + number.to_bytes(3, "big").hex("-")


def filename(number: int) -> str:
    return f"{mac_address(number)}.json"


def content(number: int, version: int = 0) -> str:
    """A configuration of 1,000 bytes."""
    config = {
        "deviceName": f"Device {number:06}",
        "deviceEntityId": f"device_{number:06}",
        "enableOTA": number % 2 == 0,
        "version": version,
    }
    padding = CONFIG_BYTES - len(json.dumps({**config, "padding": ""}))
    return json.dumps({**config, "padding": "x" * padding})


def _make(size: int) -> None:
    from django.conf import settings
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    token, session = _make_administrator()
    _save_first()
    with closing(sqlite3.connect(settings.DATABASES["default"]["NAME"])) as database, database:
        for table, row in [
            ("devices_deviceconfig", _row),
            ("devices_historicaldeviceconfig", _version),
            ("notifications_debt", _announcement),
            ("iotsupport_board", _board),
        ]:
            _multiply(database, table, (row(number) for number in range(1, size)))
    for number in range(size):
        (settings.ESP32_CONFIGS_DIR / filename(number)).write_text(content(number))
    print(token, session)


def _save_first() -> None:
    from django.utils import timezone

    from devices.models import DeviceConfig
    from iotsupport.boards.models import Board, HourlyCount
    from notifications.messages import CONFIGS_TOPIC
    from notifications.models import Announcement

    DeviceConfig.objects.put(mac_address(0), content(0))
    Announcement.objects.create(topic=CONFIGS_TOPIC, filename=filename(0), announced_at=timezone.now())
    Board.objects.update_or_create(mac_address=mac_address(0), defaults=_board(0))
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    HourlyCount.objects.bulk_create(
        HourlyCount(hour=now - timedelta(hours=hours), kind=HourlyCount.DOWNLOADS, count=hours % 24)
        for hours in range(1, 31 * 24)
    )
    Board.objects.bulk_create(
        Board(mac_address=mac_address(2**23 + number), state="waiting", asked=number, **_seen(number))
        for number in range(WAITING)
    )


def _multiply(database: sqlite3.Connection, table: str, changes: Iterator[dict[str, Any]]) -> None:
    """Add rows that are like the first but for these columns. Through Django, 100,000 take minutes."""
    database.row_factory = sqlite3.Row
    first = dict(database.execute(f"SELECT * FROM {table}").fetchone())  # noqa: S608 - a name of ours
    places = ", ".join(f":{name}" for name in first)
    database.executemany(f"INSERT INTO {table} VALUES ({places})", (first | _as_stored(change) for change in changes))  # noqa: S608


def _as_stored(row: dict[str, Any]) -> dict[str, Any]:
    """Times as Django writes them."""
    return {
        name: f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value for name, value in row.items()
    }


def _row(number: int) -> dict[str, Any]:
    from iotsupport.characters import fold

    text = content(number)
    config = json.loads(text)
    return {
        "id": number + 1,
        "mac_address": mac_address(number),
        "content": text,
        "device_name": config["deviceName"],
        "device_entity_id": config["deviceEntityId"],
        "enable_ota": config["enableOTA"],
        "folded": fold(f"{config['deviceName']}\n{config['deviceEntityId']}"),
    }


def _version(number: int) -> dict[str, Any]:
    """As if they had been saved over the last thirty days."""
    return {**_row(number), "history_id": number + 1, "history_date": _ago(number % (30 * 24 * 60))}


def _board(number: int) -> dict[str, Any]:
    """One of ten is behind, one was never seen, one is silent."""
    digest = hashlib.sha256(content(number).encode()).hexdigest()
    kind = number % 10
    if kind == 0:
        unseen = dict.fromkeys(["holds_sha256", "holds_since", "holds_at", "behind_since", *_seen(number)])
        return {**unseen, "mac_address": mac_address(number), "config_sha256": digest, "state": "never_fetched"}
    return {
        "mac_address": mac_address(number),
        "config_sha256": digest,
        "holds_sha256": digest if kind > 1 else "0" * 64,
        "holds_since": _ago(5000),
        "behind_since": _ago(number % 5000) if kind == 1 else None,
        "state": "behind" if kind == 1 else "current",
        "user_agent": "kitchen/1.4.2",
        "runs_version": "1.4.2",
        **_seen(3000 if kind == 9 else number % 1000),
    }


def _seen(minutes: int) -> dict[str, Any]:
    moment = _ago(minutes)
    return {"first_seen": moment, "last_seen": moment, "waiting_since": moment, "last_address": "192.0.2.1"}


def _ago(minutes: int) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def _announcement(number: int) -> dict[str, Any]:
    return {"id": number + 1, "filename": filename(number), "revision": number}


def _make_administrator() -> tuple[str, str]:
    """Return a token and the key of a session."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client

    from iotsupport.models import ApiToken

    user = User.objects.create_superuser("admin")
    token = ApiToken(user=user)
    secret = token.generate()
    token.save()
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return secret, client.cookies[settings.SESSION_COOKIE_NAME].value


if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "iotsupport.settings"
    os.umask(0o022)  # the files are for everybody to read
    django.setup()
    _make(int(sys.argv[1]))

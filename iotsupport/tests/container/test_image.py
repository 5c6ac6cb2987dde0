"""The image of ``deploy/Dockerfile``: what is in it, and containers of it that are killed, ended and started again."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from iotsupport.tests.container.conftest import VERSION
from iotsupport.tests.container.engine import Container, Engine
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.postgresql import PostgreSQL, create_database
from iotsupport.tests.support.server import Client, sign_in
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = [pytest.mark.processes, pytest.mark.timeout(3000)]

MakeContainer = Callable[..., Container]

USER = "10001:10001"
FIRST_ADMINISTRATOR = re.compile(r"Name: +(\S+)\n +Password: (\S+)")

# What gunicorn.conf.py gives slow clients, and a little.
GRACE_SECONDS = 25.0
# Beyond what Python itself takes: 96 MB, of which Django and what OpenID Connect needs are a quarter each, and psycopg
# with its library a sixth. More would be something that was not meant to be there, such as compilers or pip's cache.
MOST_BYTES_OF_OURS = 105_000_000

MAC = "02-00-00-00-00-01"


def wait_until_it_answers(container: Container, status: int = 200) -> dict[str, object]:
    def ask() -> requests.Response | None:
        try:
            return requests.get(f"{container.url}/health", timeout=LIMIT)
        except requests.ConnectionError:
            return None

    answer = poll(ask, lambda answer: answer is not None and answer.status_code == status)
    assert answer is not None
    return dict(answer.json())


def started(container: Container) -> Container:
    container.start()
    wait_until_it_answers(container)
    return container


def token_of(container: Container) -> str:
    return container.run("python", "manage.py", "create_api_token", "admin").stdout.strip()


def download(container: Container, path: str) -> bytes:
    answer = requests.get(f"{container.url}{path}", timeout=LIMIT)
    assert answer.status_code == 200
    return answer.content


# --- The image -------------------------------------------------------------------------------------------------------


def test_the_image_is_small_and_runs_as_nobody_who_matters(engine: Engine, image: str, base_name: str) -> None:
    found, base = engine.inspect(image), engine.inspect(base_name)

    print(f"The image has {found['Size']:,} bytes; Python alone {base['Size']:,}.")
    assert found["Size"] - base["Size"] < MOST_BYTES_OF_OURS
    assert found["User"] == USER
    assert list(found["Config"]["Volumes"]) == ["/data"]
    assert list(found["Config"]["ExposedPorts"]) == ["8000/tcp"]
    assert found["Labels"]["org.opencontainers.image.version"] == VERSION
    assert engine.in_image(image, "sh", "-c", "echo $(id -u):$(id -g)").strip() == USER


def test_nothing_is_in_the_image_that_does_not_run(engine: Engine, image: str) -> None:
    look = "find / -xdev 2>/dev/null; true"  # it may not look everywhere
    paths = engine.in_image(image, "sh", "-c", look).splitlines()

    assert {"/opt/iotsupport/manage.py", "/opt/iotsupport/static/devices/editor.js"} <= set(paths)
    unwanted = re.compile(
        r"/opt/iotsupport/(.*/)?(\.git|\.env|tests|docs|deploy|benchmarks|data|requirements[^/]*|secret_key)(/.*)?"
        r"|/opt/venv/.*/(tests|pip)|/build.*|/run/secrets.*|/data/.*|.*/\.cache(/.*)?|/etc/pip\.conf|.*/ca\.pem"
    )
    assert [path for path in paths if unwanted.fullmatch(path)] == []
    assert [path for path in paths if re.search(r"/bin/(gcc|cc|g\+\+|make|git|pip3?)$", path)] == []
    # The index that pip asked is nobody's business.
    assert "pip.conf" not in str(engine.inspect(image)["Config"])


def test_all_of_it_was_compiled_for_whom_cannot_write(engine: Engine, image: str) -> None:
    """A start would compile all that it loads, each time."""
    told = engine.in_image(
        image, "sh", "-c", "python -v -c 'import django.db.models, iotsupport.settings, manage' 2>&1"
    )

    for name in ["/opt/iotsupport/manage", "/opt/iotsupport/iotsupport/settings", "/django/db/models/query"]:
        assert re.search(rf"__pycache__/\S+\.pyc matches \S*{name}\.py$", told, re.MULTILINE)
    assert " is stale " not in told


# --- Containers ------------------------------------------------------------------------------------------------------


def test_killed_and_started_again_it_has_lost_nothing(make_container: MakeContainer, tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path).start()
    container = started(make_container(MQTT_URL=broker.url))
    [(name, password)] = FIRST_ADMINISTRATOR.findall(container.log)
    assert container.is_healthy()
    with Client(container.url, token_of(container)) as client, Subscriber(broker.port) as subscriber:
        assert client.upload("firmware.bin", bytes(range(256)) * 4096).status_code == 200
        for number in range(20):
            assert client.save_config(MAC, b'{"number": %d}' % number).status_code == 200

        container.signal("KILL")
        assert container.wait() == 128 + signal.SIGKILL

        started(container)
        assert download(container, f"/configs/{MAC}.json") == b'{"number": 19}'
        assert download(container, "/assets/firmware.bin") == bytes(range(256)) * 4096
        versions = client.get(f"/configs/{MAC}/versions").json()["versions"]
        assert [version["number"] for version in versions] == list(range(20, 0, -1))
        # Whatever the first run still owed was announced by now, or is by the second.
        assert client.save_config("02-00-00-00-00-02", b"{}").status_code == 200
        heard = {message.payload for message in subscriber.before(b'{"filename": "02-00-00-00-00-02.json"}')}
        assert heard == {b'{"filename": "firmware.bin"}', b'{"filename": "%s.json"}' % MAC.encode()}
        poll(lambda: client.get("/health").json()["owed"]["announcements"], lambda owed: owed == 0)
    with requests.Session() as browser:
        browser.trust_env = False
        assert "sessionid" in sign_in(browser, container.url, name, password).history[0].cookies
    assert container.log.count("Password:") == 1
    container.signal("TERM")
    assert container.wait() == 0
    broker.stop()


def test_a_backup_is_made_while_it_runs_and_brought_back(
    engine: Engine, image: str, make_container: MakeContainer
) -> None:
    container = started(make_container())
    with Client(container.url, token_of(container)) as client:
        assert client.save_config(MAC, b'{"kept": 1.0}').status_code == 200
        container.run("sh", "-c", "umask 077 && python manage.py backup - > /data/backup.zip")
        assert client.save_config(MAC, b'{"lost": true}').status_code == 200
    container.signal("TERM")
    assert container.wait() == 0

    restore = "python manage.py restore --replace /data/backup.zip && rm /data/backup.zip"
    said = engine.in_image(image, "sh", "-c", restore, volume=container.volume)

    assert "Restored. Everybody signs in anew" in said
    started(container)
    assert download(container, f"/configs/{MAC}.json") == b'{"kept": 1.0}'


def test_it_writes_nothing_outside_of_data(make_container: MakeContainer) -> None:
    """All others run where nothing else can be written; this one could."""
    container = started(make_container(is_hardened=False))
    with Client(container.url, token_of(container)) as client:
        assert client.save_config(MAC, b"{}").status_code == 200
        assert client.upload("firmware.bin", bytes(8 * 1024 * 1024)).status_code == 200
        assert client.get("/configs.zip").status_code == 200
    assert container.is_healthy()
    assert container.run("python", "manage.py", "check").returncode == 0

    container.signal("TERM")
    assert container.wait() == 0

    # What is mounted while it runs has left its place.
    assert [line for line in container.changes() if not re.fullmatch(r"C /(data|etc|run)|A /run/.*", line)] == []


def test_sigterm_ends_it_within_its_grace_period_though_a_board_reads_slowly(make_container: MakeContainer) -> None:
    container = started(make_container())
    with Client(container.url, token_of(container)) as client:
        client.upload("firmware.bin", bytes(32 * 1024 * 1024))
    with requests.get(f"{container.url}/assets/firmware.bin", stream=True, timeout=LIMIT) as slow:
        assert slow.raw.read(1)
        told = time.monotonic()

        container.signal("TERM")

        assert container.wait() == 0
        assert time.monotonic() - told < GRACE_SECONDS


def test_sigterm_is_heeded_while_it_still_starts(make_container: MakeContainer) -> None:
    """The kernel drops what the first process of a container has no handler for."""
    container = make_container()
    container.start()
    poll(lambda: container.log, lambda log: "Starting gunicorn" in log)

    container.signal("TERM")

    assert container.wait() == 0
    assert "Listening at" not in container.log


def test_a_directory_of_somebody_else_is_refused_with_what_to_do(on_disk: Path, make_container: MakeContainer) -> None:
    container = make_container(str(on_disk))
    container.start()

    assert container.wait() == 1

    assert "cannot be made by the user iotsupport: Permission denied." in container.log
    [command] = re.findall(r"chown -R \S+", container.log)
    assert command == f"chown -R {USER}"
    subprocess.run([*command.split(), str(on_disk)], check=True)
    started(container)
    assert FIRST_ADMINISTRATOR.search(container.log)


def test_two_that_start_at_once_on_one_postgresql_make_one_database(make_container: MakeContainer) -> None:
    server = PostgreSQL().start()
    try:
        url = create_database(server.url)
        pair = [make_container(DATABASE_URL=url) for _ in range(2)]
        for container in pair:
            container.start()
        for container in pair:
            wait_until_it_answers(container)
        with Client(pair[0].url, token_of(pair[0])) as client:
            assert client.save_config(MAC, b'{"from": "the first"}').status_code == 200
        poll(
            lambda: requests.get(f"{pair[1].url}/configs/{MAC}.json", timeout=LIMIT).content,
            lambda content: content == b'{"from": "the first"}',
        )
        assert sum(container.log.count("Password:") for container in pair) == 1

        # Away while it starts: devices get what is here, and everything else follows.
        server.stop()
        pair[1].signal("KILL")
        pair[1].wait()
        pair[1].start()
        wait_until_it_answers(pair[1], 503)
        assert download(pair[1], f"/configs/{MAC}.json") == b'{"from": "the first"}'
        assert not pair[1].is_healthy()
        assert "Until the database answers" in pair[1].log

        server.start()

        wait_until_it_answers(pair[1])
        assert pair[1].is_healthy()
    finally:
        server.close()

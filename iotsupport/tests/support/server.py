"""A real gunicorn with a data directory of its own, as an installation has it, and clients that talk to it."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import requests
from requests.adapters import HTTPAdapter

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support import warm
from iotsupport.tests.support.databases import Database, PostgreSQLDatabase
from iotsupport.tests.support.mosquitto import LoggedProcess, Mosquitto
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.waiting import LIMIT, poll

# Of an installation's administrator, who is called admin.
PASSWORD = "pigeons-and-mirrors"

# Said in the environment of every process, so that neither a developer's environment nor .env gets in.
NEUTRAL = dict.fromkeys(
    [
        "ALLOWED_HOSTS",
        "ASSETS_DIR",
        "ASSET_MAX_BYTES",
        "CHECKINS_SOCKET",
        "CONFIG_MAX_BYTES",
        "CSRF_TRUSTED_ORIGINS",
        "DATABASE_URL",
        "DEBUG",
        "DEVICE_PASSWORD",
        "DEVICE_USERNAME",
        "ESP32_CONFIGS_DIR",
        "HOST",
        "HTTPS_ONLY",
        "METRICS_DIR",
        "METRICS_TOKEN",
        "MQTT_CA_FILE",
        "MQTT_CERT_FILE",
        "MQTT_KEY_FILE",
        "HISTORY_DAYS",
        "HISTORY_KEEP",
        "LOG_FORMAT",
        "MQTT_PASSWORD",
        "MQTT_PUBLISH_RATE",
        "MQTT_URL",
        "MQTT_USERNAME",
        "OIDC_ADMIN_GROUP",
        "OIDC_CLIENT_ID",
        "OIDC_CLIENT_SECRET",
        "OIDC_ISSUER",
        "PORT",
        "PYTHONDONTWRITEBYTECODE",  # compiling the product takes a tenth of a start
        "REMOTE_GROUPS_HEADER",
        "REMOTE_USER_HEADER",
        "SECRET_KEY",
        "SILENT_AFTER",
        "TRUSTED_PROXIES",
    ],
    "",
) | {"WEB_CONCURRENCY": "1"}  # each takes a second of the processor to start: more where a test is about several

ADD_STAFF = """
INSERT INTO auth_user (password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined)
SELECT password, {is_superuser}, '{username}', '', '', '', is_staff, is_active, date_joined
FROM auth_user WHERE username = 'admin'
"""
ADD_PERMISSION = """
INSERT INTO auth_user_user_permissions (user_id, permission_id)
SELECT auth_user.id, auth_permission.id
FROM auth_user, auth_permission WHERE username = '{username}' AND codename = '{codename}'
"""

# Of gunicorn, for the first start of a server in a test that is about something else.
NEW_CONF = Path(__file__).with_name("new_installation.py")
NEW = ["--config", str(NEW_CONF)]


class Installation(NamedTuple):
    """A data directory and a migrated database, both to be copied; of their administrator, a token and a session."""

    data_dir: Path
    database: Database
    token: str
    session: str
    """Its key: the cookie ``sessionid`` of somebody who has signed in, which takes half a second on purpose."""

    @classmethod
    def make(cls, data_dir: Path, database: Database) -> Self:
        environ = {"DATA_DIR": str(data_dir), **database.environ, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        # In one process: starting it is what takes the time.
        commands = (
            "from django.core.management import call_command as call; call('migrate', verbosity=0);"
            "call('createsuperuser', interactive=False, verbosity=0, username='admin', email='admin@example.com');"
            "call('create_api_token', 'admin');"
            "from django.contrib.auth.models import User; from django.test import Client; browser = Client();"
            "browser.force_login(User.objects.get()); print(browser.cookies['sessionid'].value)"
        )
        token, session = manage(environ, "shell", "--verbosity=0", "-c", commands).stdout.split()
        return cls(data_dir, database, token, session)

    @property
    def environ(self) -> dict[str, str]:
        return {"DATA_DIR": str(self.data_dir), **self.database.environ}

    def copy(self, data_dir: Path) -> Self:
        """One of its own with the same content."""
        return self._copy_files(data_dir)._replace(database=self.database.copy(data_dir))

    def copy_to(self, server_url: str, data_dir: Path) -> Self:
        """The same on another PostgreSQL."""
        assert isinstance(self.database, PostgreSQLDatabase)
        return self._copy_files(data_dir)._replace(database=self.database.copy_to(server_url))

    def _copy_files(self, data_dir: Path) -> Self:
        data_dir.mkdir(exist_ok=True)
        shutil.copy2(self.data_dir / "secret_key", data_dir)
        return self._replace(data_dir=data_dir)


def manage(
    environ: dict[str, str], *arguments: str, check: bool = True, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    """Run a management command in a process of its own; unless told otherwise, it must succeed."""
    command = [str(BASE_DIR / "manage.py"), *arguments]
    done = warm.run(command, clean_environ(environ), limit)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def clean_environ(environ: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **NEUTRAL, **environ}


class Client(requests.Session):
    """Somebody's script, with a token and a connection of its own."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.trust_env = False  # no proxies
        self.url = url
        self.headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        """As the session's, but ``url`` is a path on the server."""
        options.setdefault("timeout", LIMIT)
        return super().request(method, f"{self.url}{str(url)}", *args, **options)

    def close(self) -> None:
        """Close its connections, too: the session alone leaves one open for as long as somebody holds an answer of it.

        A server that ends waits three seconds for whoever is connected.
        """
        adapter = self.get_adapter(self.url)
        assert isinstance(adapter, HTTPAdapter)
        for key in list(adapter.poolmanager.pools.keys()):
            adapter.poolmanager.pools[key].close()
        super().close()

    def save_config(self, mac_address: str, content: bytes) -> requests.Response:
        return self.put(f"/configs/{mac_address}.json", data=content, headers={"Content-Type": "application/json"})

    def upload(self, filename: str, content: bytes) -> requests.Response:
        return self.post("/assets", files={"file": (filename, content)})


class Server(LoggedProcess):
    """gunicorn with its workers, all in one process group."""

    # Of the checkout that it runs.
    root, python = BASE_DIR, sys.executable

    def __init__(self, installation: Installation, data_dir: Path, **environ: str) -> None:
        """It has a copy of the installation, and these variables in its environment."""
        super().__init__()
        copy = installation.copy(data_dir)
        self.token, self.session = copy.token, copy.session
        self.data_dir = data_dir
        self.database = copy.database
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Where a test finds them, and nothing is left in the machine's memory. None of the disks is filled by it.
        self.environ = {**copy.environ, "PORT": str(self.port), "METRICS_DIR": str(data_dir / "metrics"), **environ}
        self._process: subprocess.Popen[str] | warm.Process | None = None
        self._worker_count = 0

    def start(self, *options: str) -> Self:
        """Return when it answers, and has begun all of its workers. ``options`` are gunicorn's."""
        first_line = len(self.lines)
        said = re.search(r"--workers[= ](\d+)", " ".join(options))
        self._worker_count = int(said[1] if said else self.environ.get("WEB_CONCURRENCY", NEUTRAL["WEB_CONCURRENCY"]))
        self._process = self._begin("-m", "gunicorn", *options, "iotsupport.wsgi")
        # From here on connections are taken, and answered when the first worker is there.
        self.wait_for_log("Listening at", after=first_line)
        # The first may answer before the others are begun.
        self.wait_for_log("Booting worker with pid", after=first_line, count=self._worker_count)
        requests.get(f"{self.url}/health", timeout=LIMIT)
        return self

    def _begin(self, *arguments: str) -> subprocess.Popen[str] | warm.Process:
        environ = clean_environ(self.environ)
        if self.root != BASE_DIR:
            return self._start(self.python, *arguments, cwd=self.root, env=environ, start_new_session=True)
        return self._start_python(*arguments, environ=environ, in_session=True)

    def start_connected(self, broker: Mosquitto, *options: str) -> list[int]:
        """As :meth:`start`, but return the workers, once the broker has let in all of them."""
        after = len(broker.lines)
        self.start(*options)
        return self.wait_until_connected(broker, after=after)

    def stop(self) -> None:
        """End it as systemd does, and wait for all of its processes. Idempotent."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
            self._wait_for_end(self._process)
            self._process = None

    def kill(self) -> None:
        """End all of its processes at once, as a power cut does. Idempotent."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._wait_for_end(self._process)
            self._process = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def end(self) -> None:
        """End it after a test: at once, unless it measures coverage, which a kill would lose. Idempotent."""
        if "COVERAGE_PROCESS_CONFIG" in os.environ:
            with suppress(AssertionError, subprocess.TimeoutExpired):
                self.stop()
        self.kill()

    def freeze(self) -> None:
        """Stop all of its processes where they are, until they are killed."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def remove(self) -> None:
        """End it, and let its database go."""
        self.end()
        self.database.drop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def workers(self) -> list[int]:
        """Process ids of the living workers."""
        return self.processes()[1:]

    def processes(self) -> list[int]:
        """Process ids of the master and its workers."""
        assert self._process is not None
        master = self._process.pid
        return [master, *map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())]

    def wait_until_connected(self, broker: Mosquitto, *, after: int = 0) -> list[int]:
        """Return the workers, once the broker has let in all of them, in its log's lines from number ``after`` on."""
        workers = poll(self.workers, lambda found: len(found) == self._worker_count)
        for pid in workers:
            broker.wait_for_log(f"New client connected from .* as iotsupport-.*-{pid}-", after=after)
        # They hear of it a moment later; what is saved before is announced by whoever comes first.
        poll(
            lambda: requests.get(f"{self.url}/metrics", timeout=LIMIT).text,
            lambda metrics: "\nmqtt_connection_state 1.0" in metrics,
        )
        return workers

    def manage(
        self, *arguments: str, check: bool = True, limit: float = LIMIT, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return manage({**self.environ, **environ}, *arguments, check=check, limit=limit)

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.url, self.token) as client:
            yield client

    @contextmanager
    def administrator(self) -> Iterator[requests.Session]:
        """A browser of somebody who signed in before."""
        with requests.Session() as browser:
            browser.trust_env = False  # no proxies
            for name, value in self.cookies.items():
                browser.cookies.set(name, value, domain="127.0.0.1")
            yield browser

    @property
    def cookies(self) -> dict[str, str]:
        """Of a browser whose administrator has signed in, and seen a page."""
        return {"sessionid": self.session, "csrftoken": secrets.token_hex(16)}

    def sign_in(self) -> None:
        """Sign in as the administrator does."""
        with requests.Session() as browser:
            browser.trust_env = False  # no proxies
            answer = sign_in(browser, self.url, "admin", PASSWORD)
            assert answer.history, answer.text
            assert "sessionid" in answer.history[0].cookies

    def add_staff(self, username: str, *permissions: str, is_superuser: bool = False) -> None:
        """Let somebody into the admin, with the administrator's password; a command for that would take a second."""
        self.database.change(ADD_STAFF.format(username=username, is_superuser=str(is_superuser).upper()))
        for codename in permissions:
            self.database.change(ADD_PERMISSION.format(username=username, codename=codename))

    def directory(self, name: str) -> Path:
        """``configs``, ``assets`` or ``blobs``."""
        variable = {"configs": "ESP32_CONFIGS_DIR", "assets": "ASSETS_DIR"}.get(name, "")
        return Path(self.environ.get(variable) or self.data_dir / name)

    def files(self, name: str) -> dict[str, bytes]:
        return files(self.directory(name))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        return self.database.query(sql)

    def configs(self) -> dict[str, bytes]:
        """What the rows say: file names to bytes."""
        rows = self.query("SELECT mac_address, content FROM devices_deviceconfig")
        return {f"{mac_address}.json": content.encode() for mac_address, content in rows}

    def assets(self) -> dict[str, str]:
        """What the rows say: file names to SHA-256."""
        return dict(self.query("SELECT filename, sha256 FROM assets_asset"))


def sign_in(browser: requests.Session, url: str, username: str, password: str) -> requests.Response:
    """Fill in the form of the admin's login page, and return where that leads."""
    login = f"{url}/admin/login/"
    browser.get(login, timeout=LIMIT)
    token = browser.cookies["csrftoken"]
    fields = {"username": username, "password": password, "next": "/admin/", "csrfmiddlewaretoken": token}
    return browser.post(login, data=fields, timeout=LIMIT)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files(directory: Path) -> dict[str, bytes]:
    """Everything in a directory, temporary files included; what goes while this looks is not there."""
    contents = {}
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            contents[path.name] = path.read_bytes()
    return contents

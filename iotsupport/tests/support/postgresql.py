"""A private PostgreSQL on a free port, with a role that may do what an installation's may."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from iotsupport.tests.support import memory
from iotsupport.tests.support.mosquitto import LoggedProcess
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.waiting import LIMIT, eventually
from iotsupport.trial.children import die_with

# Owns its databases and nothing else: what needs more rights than an installation has, fails.
ROLE = "iotsupport"

# Debian keeps its programs where no PATH looks, one directory for each version.
PROGRAMS = Path("/usr/lib/postgresql")

# Whom root becomes to start it, since it refuses root: the first that there is.
USERS = ["postgres", "nobody"]

# Set by the root conftest.py for all processes of a run: what of its server was kept to be copied.
KEPT_VARIABLE = "TEST_POSTGRESQL_KEPT"

# What a crash of the machine would lose is lost with the tests; how it copies and locks stays as it is.
OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    # Its processes are the superuser's: a role that drops its database could not end them.
    "autovacuum": "off",
    "max_wal_senders": "0",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_line_prefix": "%p %d ",
}


class PostgreSQL(LoggedProcess):
    """A server that a test may stop, start again and crash; ended by its process id."""

    def __init__(self, directory: Path | None = None, **options: str) -> None:
        """``directory`` is an empty one for all that it keeps, ``options`` differ from ``OPTIONS``."""
        super().__init__()
        self.port = free_port()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="iotsupport-postgresql-", dir=memory.directory()))
        self._process: subprocess.Popen[str] | None = None
        self._settings = [f"--{name}={value}" for name, value in {**OPTIONS, **options}.items()]
        self._options: dict[str, Any] = {"cwd": self.directory, "env": {"LC_ALL": "C.UTF-8", "PATH": os.defpath}}
        if os.geteuid() == 0:
            user = _whom_root_becomes()
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        if KEPT_VARIABLE in os.environ:
            _copy(Path(os.environ[KEPT_VARIABLE]), self._made)
        else:
            self._make_cluster()
        self._password, self._superuser_password = (self._made / "passwords").read_text().split()
        self.url = f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self.port}"

    def keep(self) -> Path:
        """Before it is started: keep what others are to be copies of, which goes with this one."""
        kept = self.directory / "kept"
        _copy(self._made, kept)
        return kept

    def start(self) -> Self:
        """Return when it accepts connections."""
        first_line = len(self.lines)
        self._process = self._start(
            *[program("postgres"), "-D", str(self._cluster), "-p", str(self.port), *self._settings],
            preexec_fn=die_with(os.getpid(), signal.SIGINT),
            **self._options,
        )
        # FATAL is also what it says to clients that come too early; when it ends itself, there is nothing to wait for.
        self.wait_for_log("database system is ready to accept connections", after=first_line)
        return self

    def stop(self) -> None:
        """End it properly, its connections first. Idempotent."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it without a word to its clients; the next start recovers. Idempotent."""
        self._end(signal.SIGQUIT)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def freeze(self) -> None:
        """Stop all of its processes where they are, until they are thawed or killed."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all of its processes go on."""
        self._signal_all(signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill(self) -> None:
        """End all of its processes at once, as a power cut does. Idempotent."""
        if self._process is not None:
            if self._process.poll() is None:
                self._signal_all(signal.SIGKILL)
            self._process.wait(LIMIT)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it, and remove all that it kept. Idempotent."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """Ask as its superuser."""
        with _connection(f"postgresql://postgres:{self._superuser_password}@127.0.0.1:{self.port}/postgres") as server:
            return server.execute(query.encode()).fetchall()

    @property
    def _made(self) -> Path:
        """The cluster, and its passwords."""
        return self.directory / "made"

    @property
    def _cluster(self) -> Path:
        return self._made / "cluster"

    def _make_cluster(self) -> None:
        """It takes half a second of the processor."""
        password, superuser_password = secrets.token_hex(8), secrets.token_hex(8)
        self._made.mkdir()
        self._cluster.mkdir(0o700)
        if "user" in self._options:
            os.chown(self._cluster, self._options["user"], self._options["group"])
        (self._made / "passwords").write_text(f"{password} {superuser_password}")
        password_file = self.directory / "password"
        password_file.write_text(superuser_password)
        # Letters sorted as people do, as most installations have it; by their codes, it would be SQLite's order.
        locale = ["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8", "--encoding=UTF8"]
        # SCRAM hashes a password 4,096 times: most of what a client spends on a connection.
        access = ["--username=postgres", "--auth=md5", f"--pwfile={password_file}"]
        command = [program("initdb"), "-D", str(self._cluster), *locale, *access, "--no-sync", "--no-instructions"]
        done = subprocess.run(command, **self._options, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        # Single-user mode: the role is there before anybody can connect.
        subprocess.run(
            [program("postgres"), "--single", "-D", str(self._cluster), "postgres"],
            **self._options,
            input=f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'\n",
            capture_output=True,
            check=True,
            text=True,
            timeout=LIMIT,
        )

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        # Its children first where they are to end: without their parent, they would clean up. Stopped, it makes none.
        os.kill(pid, signal.SIGSTOP)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), number)
        os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._wait_for_end(self._process)
            self._process = None


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs, of the newest version that there is."""
    directories = sorted(PROGRAMS.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    path = os.pathsep.join([*map(str, directories), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    assert found, f"{name} is missing: install the package postgresql."
    return found


def create_database(server_url: str, *, template: str | None = None) -> str:
    """Make a new database, as a copy of another one if ``template`` is that one's URL; return its URL."""
    name = f"iotsupport_{secrets.token_hex(8)}"
    copied = sql.Identifier(_name_of(template) if template else "template1")
    with _connection(f"{server_url}/postgres") as server:
        # From 15 on it writes each page to its log instead, unless told otherwise: three times the work.
        strategy = sql.SQL("STRATEGY FILE_COPY" if server.info.server_version >= 150_000 else "")
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} {}")
        server.execute(statement.format(sql.Identifier(name), copied, strategy))
    return f"{server_url}/{name}"


def copy_database(url: str, server_url: str) -> str:
    """Make a copy of a database on another server; return its URL."""
    copy = create_database(server_url)
    with subprocess.Popen([program("pg_dump"), f"--dbname={url}"], stdout=subprocess.PIPE) as dump:
        load = [program("psql"), f"--dbname={copy}", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
        subprocess.run(load, stdin=dump.stdout, stdout=subprocess.DEVNULL, check=True, timeout=LIMIT)
    assert dump.returncode == 0
    return copy


def drop_database(url: str) -> None:
    """Remove a database, whoever is still connected."""
    server_url = url.rpartition("/")[0]
    with _connection(f"{server_url}/postgres") as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name_of(url))))


def wait_until_left(url: str) -> None:
    """Wait until nobody else is connected to a database."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    eventually(lambda: query(url, others) == [(0,)], lambda: "Somebody stays connected.")


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with _connection(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def change(url: str, statement: str) -> None:
    with _connection(url) as connection:
        connection.execute(statement.encode())


@contextmanager
def _connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True, connect_timeout=LIMIT) as connection:
        yield connection


def _copy(source: Path, target: Path) -> None:
    """A directory, with the owners of all that is in it."""
    subprocess.run(["cp", "-a", source, target], check=True, timeout=LIMIT)


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]


def _whom_root_becomes() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError(f"PostgreSQL refuses root, and there is none of these users: {', '.join(USERS)}.")

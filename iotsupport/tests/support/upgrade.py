"""A large installation of an earlier version is upgraded as ``docs/upgrading.md`` says: is everything there afterwards?

    make upgrade-test FROM=v1.2.3

In a clone of this repository that version is installed, with the dependencies that it pins. Its server gets a thousand
configurations, twenty assets and their earlier versions by its API, while the broker is there and then while it is not,
and is killed. Then this version is pulled, installed, and started on the same data. Says what it sees, and ends with 1
where something is missing. Changes that are not committed are not part of it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from iotsupport.settings import BASE_DIR
from iotsupport.tests.owed.fleet import OWED, filename_of, heard_until_the_end, wait_until_announced
from iotsupport.tests.support.databases import DATABASES, Database, PostgreSQLDatabase, SQLiteDatabase
from iotsupport.tests.support.mosquitto import Mosquitto, Subscriber
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.postgresql import PostgreSQL, create_database
from iotsupport.tests.support.server import PASSWORD, Client, Server, clean_environ

# What was there before the first release, and is in use.
BEFORE_THE_FIRST = "43e521d1d55b2312b84ed2560e56bde0597e7567"

CONFIGS, ASSETS = 1000, 20
# Of the configurations: saved while the broker is there, saved a second time, deleted, and of these added again.
ANNOUNCED, CHANGED, DELETED, BACK = 100, 300, 20, 5
TYPE = {"description": "", "schema": {"properties": {"pin": {"type": "integer"}}}, "starting_content": ""}

TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
    "postgresql": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
}
COLUMNS = {
    "sqlite": "SELECT name FROM pragma_table_info('{}')",
    "postgresql": "SELECT column_name FROM information_schema.columns WHERE table_name = '{}'",
}
# What a server that runs changes by itself: what is owed, when something is due, what was last used, who downloaded.
LIVING = {"notifications_debt", "iotsupport_turn", "iotsupport_apitoken", "iotsupport_board", "iotsupport_hourlycount"}


END = b"that was all"


class Trouble(Exception):
    """Why it cannot be tried. The message is a sentence."""


class Checkout:
    """A clone of this repository, at an earlier commit."""

    def __init__(self, directory: Path, commit: str) -> None:
        self.root = directory / "iot-support"
        self.python = str(self.root / ".venv" / "bin" / "python")
        self.environ = {"PYTHON": sys.executable}
        known = ["git", "-C", str(BASE_DIR), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
        found = subprocess.run(known, capture_output=True, text=True)
        if found.returncode:
            raise Trouble(f"This clone does not have {commit}: git fetch --tags --unshallow")
        self.run("git", "clone", "--quiet", "--no-checkout", str(BASE_DIR), str(self.root), cwd=directory)
        # A branch that follows what is checked out here, whatever that is.
        self.run("git", "checkout", "--quiet", "-B", "installed", "--no-track", found.stdout.strip())
        self.run("git", "config", "branch.installed.remote", "origin")
        self.run("git", "config", "branch.installed.merge", "HEAD")

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.root, env=clean_environ(self.environ), stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise Trouble(f"{' '.join(command)} ended with {done.returncode}.")
        return done.stdout.strip()

    def commit(self) -> str:
        return self.run("git", "log", "-1", "--format=%h (%cs)")

    def manage(self, *arguments: str) -> str:
        return self.run(self.python, "manage.py", *arguments)

    def install(self) -> None:
        self.run("make", "--no-print-directory", "install")
        self.manage("migrate", "--verbosity=0")

    def upgrade(self) -> None:
        """Run what the page says, as it stands there."""
        page = (BASE_DIR / "docs" / "upgrading.md").read_text()
        steps = page.partition("\n## The usual steps\n")[2].partition("```sh\n")[2].partition("```\n")[0]
        self.run("sh", "-ec", steps)


class OfCheckout(Server):
    """What a checkout installs serves the data, whichever version it is."""

    def __init__(self, checkout: Checkout, data_dir: Path, database: Database, token: str) -> None:
        super(Server, self).__init__()
        self.checkout = checkout
        self.root, self.python, self.environ = checkout.root, checkout.python, checkout.environ
        self.data_dir, self.database, self.token, self.session = data_dir, database, token, ""
        self.port, self._process = int(checkout.environ["PORT"]), None
        self.url = f"http://127.0.0.1:{self.port}"


def mac(number: int) -> str:
    return f"02-00-00-00-{number // 256:02x}-{number % 256:02x}"


def fill(script: Client, numbers: range) -> None:
    """Add these configurations; of the first ones and the last ones there is more to tell."""
    for number in numbers:
        content = f'{{ "deviceName": "Gerät {number} 厨房",\r\n "pin": {number}, "big": {10**30 + number} }}'
        _expect(script.save_config(mac(number), content.encode()), 200)


def make_history(script: Client) -> None:
    _expect(script.put("/types/Lampe süd", json=TYPE), 200)
    for number in range(CONFIGS - CHANGED, CONFIGS):
        fields = {"content": {"deviceName": f"changed {number}", "pin": number}, "type": "Lampe süd", "reason": "„süd“"}
        _expect(script.put(f"/configs/{mac(number)}", json={**fields, "allow_overwrite": True}), 200)
    for number in range(CONFIGS - DELETED, CONFIGS):
        _expect(script.delete(f"/configs/{mac(number)}"), 204)
    fill(script, range(CONFIGS - BACK, CONFIGS))
    chance = random.Random(15)  # noqa: S311 - to be repeatable
    for number in [*range(ASSETS), *range(5)]:  # some a second time
        _expect(script.upload(f"größe {number}.bin", chance.randbytes(chance.choice([0, 100, 70_000, 300_000]))), 200)
    _expect(script.upload("gone.bin", b"gone"), 200)
    _expect(script.delete("/assets/gone.bin"), 204)


def look(script: Client) -> dict[str, Any]:
    """What devices and scripts are answered: ETag and bytes of each download, each version of each configuration."""
    names = [config["mac_address"] for config in _expect(script.get("/configs"), 200).json()["configs"]]
    assets = _expect(script.get("/assets"), 200).json()
    downloads = [f"/configs/{name}.json" for name in names] + [f"/assets/{asset['filename']}" for asset in assets]
    seen: dict[str, Any] = {}
    for path in downloads:
        answer = _expect(script.get(path), 200)
        seen[path] = (answer.headers["ETag"], answer.content)
    for number in range(CONFIGS):  # those that were deleted, too
        versions = _expect(script.get(f"/configs/{mac(number)}/versions"), 200).json()["versions"]
        seen[f"versions of {mac(number)}"] = versions
    first = f"/configs/{mac(CONFIGS - 1)}/versions/1"
    return seen | {path: _expect(script.get(path), 200).json() for path in ["/configs", "/types", first]}


def rows(database: Database, columns: dict[str, list[str]]) -> dict[str, Counter[str]]:
    asked = {table: ", ".join(f'"{name}"' for name in names) for table, names in columns.items()}
    found = {table: database.query(f'SELECT {names} FROM "{table}"') for table, names in asked.items()}  # noqa: S608
    return {table: Counter(map(repr, of_table)) for table, of_table in found.items()}


def columns_of(database: Database) -> dict[str, list[str]]:
    kind = "sqlite" if isinstance(database, SQLiteDatabase) else "postgresql"
    tables = {table for (table,) in database.query(TABLES[kind])}
    return {table: [name for (name,) in database.query(COLUMNS[kind].format(table))] for table in sorted(tables)}


def _expect(answer: Any, status: int) -> Any:
    assert answer.status_code == status, f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
    return answer


class State(NamedTuple):
    """Of an installation before the upgrade, whose server was killed."""

    columns: dict[str, list[str]]
    rows: dict[str, Counter[str]]
    seen: dict[str, Any]
    owed: Counter[str]


def try_out(commit: str, kind: str) -> list[str]:
    """Return what is wrong afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iotsupport-upgrade-")))
        broker = Mosquitto(directory).start()
        stack.callback(broker.stop)
        server = _install(directory, commit, kind, broker, stack)
        subscriber = stack.enter_context(Subscriber(broker.port))
        before = _use(server, broker)
        say(f"{kind}: killed, with {sum(map(Counter.total, before.rows.values()))} rows, of which are")
        for table in ["devices_deviceconfig", "devices_historicaldeviceconfig", "assets_asset"]:
            say(f"    {before.rows[table].total():5} in {table}")
        say(f"    {before.owed.total():5} files that are owed, while the broker is away")

        begun = time.monotonic()
        server.checkout.upgrade()
        say(f"{kind}: upgraded to {server.checkout.commit()} in {time.monotonic() - begun:.0f} s")
        wrong = []
        for said, is_so in _compare(server, broker, subscriber, before):
            say(f"{kind}: {said}: {'as it must be' if is_so else 'WRONG'}")
            wrong += [] if is_so else [said]
        return wrong


def _install(directory: Path, commit: str, kind: str, broker: Mosquitto, stack: ExitStack) -> OfCheckout:
    data_dir = directory / "data"
    data_dir.mkdir()
    if kind == "postgresql":
        postgresql = PostgreSQL().start()
        stack.callback(postgresql.close)
        database: Database = PostgreSQLDatabase(create_database(postgresql.url))
    else:
        database = SQLiteDatabase(data_dir)
    checkout = Checkout(directory, commit)
    checkout.environ |= {"DATA_DIR": str(data_dir), **database.environ, "MQTT_URL": broker.url}
    checkout.environ |= {"PORT": str(free_port()), "WEB_CONCURRENCY": "2", "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    checkout.environ |= {"METRICS_DIR": str(data_dir / "metrics"), "HISTORY_DAYS": "0"}
    say(f"{kind}: installing {checkout.commit()}")
    checkout.install()
    checkout.manage("createsuperuser", "--noinput", "--username=admin", "--email=admin@example.com")
    server = OfCheckout(checkout, data_dir, database, checkout.manage("create_api_token", "admin"))
    stack.callback(server.end)
    return server


def _use(server: OfCheckout, broker: Mosquitto) -> State:
    server.start_connected(broker)
    with server.client() as script:
        fill(script, range(ANNOUNCED))
        wait_until_announced(server)
        broker.stop()
        fill(script, range(ANNOUNCED, CONFIGS))
        make_history(script)
        seen = look(script)
    server.kill()
    server.database.wait_until_left()
    columns = columns_of(server.database)
    owed = Counter(filename for filename, _ in server.query(OWED))
    return State(columns, rows(server.database, columns), seen, owed)


def _compare(
    server: OfCheckout, broker: Mosquitto, subscriber: Subscriber, before: State
) -> Iterator[tuple[str, bool]]:
    """Start the new version, and yield what is seen, each with whether it must be so."""
    migrated = rows(server.database, before.columns)
    broker.start()
    subscriber.publish("iotsupport/updates/configs", END)
    earlier = Counter(map(filename_of, subscriber.before(END)))
    expected = Counter(f"{mac(number)}.json" for number in range(ANNOUNCED))
    yield f"{earlier.total()} messages came before, one for each of the first {ANNOUNCED}", earlier == expected

    server.start()
    wait_until_announced(server)
    with server.client() as script:
        after = look(script)
    heard = heard_until_the_end(server, subscriber)
    yield f"{heard.total()} came after, one for each of {before.owed.total()} that were owed", heard == before.owed
    differing = [path for path in before.seen | after if before.seen.get(path) != after.get(path)]
    said = f"of {len(before.seen)} downloads, versions and lists, {len(differing)} differ"
    yield " ".join([said, *differing[:3]]), not differing
    now = rows(server.database, before.columns)
    lost = {table for table, found in before.rows.items() if found - migrated[table]}
    lost |= {table for table, found in before.rows.items() if table not in LIVING and found - now[table]}
    yield f"tables with a row that is missing, or says something else: {', '.join(lost) or 'none'}", not lost
    yield server.checkout.manage("sync_mirror", "--check"), True  # else it fails


def say(line: str) -> None:
    print(line, flush=True)


def last_release() -> str:
    """The newest tag of a version before what is checked out, or what was before there was one."""
    command = ["git", "-C", str(BASE_DIR), "describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or BEFORE_THE_FIRST


def main() -> int:
    parser = argparse.ArgumentParser(description="Upgrade a large installation of an earlier version.")
    parser.add_argument("--from", dest="commit", help="a tag or commit; left out: the last release before this one")
    parser.add_argument("--on", nargs="*", choices=DATABASES, default=DATABASES, help="left out: both")
    options = parser.parse_args()
    os.environ.pop("MAKEFLAGS", None)  # of the make that started this
    try:
        wrong = [said for kind in options.on for said in try_out(options.commit or last_release(), kind)]
    except Trouble as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

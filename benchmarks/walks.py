"""How far a request walks through the product: files that it enters, moves between them, statements that it makes.

``python -m benchmarks.walks``; with ``--verbose`` it also says which. In one process, on SQLite, with notifications
off: an announcement has a walk of its own. A request passes all middleware, and files and moves are counted behind it,
where requests differ. Each is sent twice, and the second is counted: what a process looks up once is no part of it.

What counts as product is every Python file of the four apps but tests, commands, migrations, and what stands below
Django's models (``iotsupport/database``): every statement passes through that, as it does through Django's. A move is a
call of a function of the product that lies in another file than the one that was called before it. Statements are those
of the whole request, the begin and the end of transactions and savepoints included.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.harness import ROOT, data_directory, environ, print_table

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

APPS = {"iotsupport", "devices", "assets", "notifications"}
APART = {"tests", "migrations", "commands", "database"}

MAC = "aa-bb-cc-dd-ee-ff"
CONFIG = '{{"deviceName": "Kitchen", "deviceEntityId": "kitchen", "enableOTA": true, "number": {}}}'


class Walk(NamedTuple):
    turns: list[tuple[str, list[str]]]
    """Each file that is come to, and the functions that are called there before those of the next one."""
    statements: list[str]

    @property
    def figures(self) -> list[str]:
        files = {file for file, _ in self.turns}
        return [str(number) for number in [len(files), len(self.turns) - 1, len(self.statements)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbose", action="store_true", help="name files, functions and statements")
    options = parser.parse_args()
    with data_directory() as data_dir:
        os.environ |= environ(data_dir, DJANGO_SETTINGS_MODULE="iotsupport.settings")
        walks = take_all()
    print_table([["", "files", "moves", "statements"], *([name, *walk.figures] for name, walk in walks.items())])
    for name, walk in walks.items() if options.verbose else ():
        print(f"\n{name}")
        for file, functions in walk.turns:
            print(f"  {file}: {', '.join(functions)}"[:300])
        for statement in walk.statements:
            print(f"  {statement.strip()[:150]}")


def take_all() -> dict[str, Walk]:
    """Send each request, in an installation that is empty."""
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User

    settings.ALLOWED_HOSTS = ["testserver"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "benchmarks.walks.FollowingMiddleware"]
    user = User.objects.create_superuser("admin")
    return {
        "a configuration saved in the admin": take(browser(user), save_in_the_admin),
        "the same by the API": take(script(user), save_by_the_api),
        "an asset uploaded by the API": take(script(user), upload_by_the_api),
        "an asset uploaded in the admin": take(browser(user), upload_in_the_admin),
        "a download through Django": take(browser(user), download),
    }


def take(client: Client, prepare: Callable[[Client, int], Callable[[], Any]]) -> Walk:
    """Send a request twice; ``prepare`` makes it ready to be sent."""
    prepare(client, 1)()
    return follow(prepare(client, 2))


def follow(send: Callable[[], Any]) -> Walk:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        response = send()
    if response.status_code not in {200, 302} or "adminform" in (response.context or {}):
        raise RuntimeError(response.content.decode())
    response.close()
    calls = response.wsgi_request.calls
    turns = [(file, [function for _, function in group]) for file, group in groupby(calls, lambda call: call[0])]
    return Walk(turns, [query["sql"] for query in captured])


class FollowingMiddleware:
    """Notes in ``request.calls`` the file and the function of each call of the product, in turn."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._names: dict[str, str | None] = {}

    def __call__(self, request: Any) -> Any:
        request.calls = []
        sys.setprofile(partial(self._note, request.calls))
        try:
            return self.get_response(request)
        finally:
            sys.setprofile(None)

    def _note(self, calls: list[tuple[str, str]], frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if event != "call":
            return
        if path not in self._names:
            self._names[path] = product_file(Path(path))
        if (name := self._names[path]) is not None:
            calls.append((name, frame.f_code.co_qualname))


def product_file(path: Path) -> str | None:
    """Name a file of the product from its root on; None for any other."""
    if not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT)
    return str(name) if name.parts[0] in APPS and not APART.intersection(name.parts) else None


# --- Who sends ---------------------------------------------------------------------------------------------------


def browser(user: User) -> Client:
    from django.test import Client

    client = Client()
    client.force_login(user)
    return client


def script(user: User) -> Client:
    from django.test import Client

    from iotsupport.models import ApiToken

    token = ApiToken(user=user)
    secret = token.generate()
    token.save()
    return Client(headers={"Authorization": f"Bearer {secret}"})


# --- What is sent ------------------------------------------------------------------------------------------------


def save_in_the_admin(client: Client, number: int) -> Callable[[], Any]:
    from devices.models import DeviceConfig

    config = DeviceConfig.objects.filter(mac_address=MAC).first()
    if config is None:
        config = DeviceConfig(mac_address=MAC, content="{}")
        config.save()
    form = {"content": CONFIG.format(number), "based_on": config.etag, "_save": ""}
    return lambda: client.post(f"/admin/devices/deviceconfig/{config.pk}/change/", form)


def save_by_the_api(client: Client, number: int) -> Callable[[], Any]:
    body = f'{{"content": {CONFIG.format(number)}}}'
    return lambda: client.put(f"/configs/{MAC}", body, content_type="application/json")


def upload_by_the_api(client: Client, number: int) -> Callable[[], Any]:
    return lambda: client.post("/assets", {"file": firmware(b"by the API: %d" % number)})


def upload_in_the_admin(client: Client, number: int) -> Callable[[], Any]:
    form = {"file": firmware(b"in the admin: %d" % number), "_save": ""}
    return lambda: client.post("/admin/assets/asset/add/", form)


def firmware(content: bytes) -> Any:
    from django.core.files.uploadedfile import SimpleUploadedFile

    return SimpleUploadedFile("firmware.bin", content)


def download(client: Client, number: int) -> Callable[[], Any]:
    return lambda: client.get(f"/configs/{MAC}.json")


if __name__ == "__main__":
    main()

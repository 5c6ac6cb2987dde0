"""``import_configs`` with 50,000 configurations of 1 KB, new and again with other texts: how many a second, how much
the process grows, and how much longer a save and a download take beside it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.harness import ROOT, data_directory, environ, gunicorn, manage, print_claim, print_table

SAVED = "aa-bb-cc-dd-ee-ff.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--alone", type=float, default=10.0, help="seconds of saves and downloads without an import")
    options = parser.parse_args()
    with data_directory() as data_dir:
        token = _administrator(data_dir)
        directory = data_dir / "to import"
        directory.mkdir()
        with gunicorn(data_dir) as server:
            _save(server.port, token)
            alone = _beside(server.port, token, lambda: time.sleep(options.alone))
            rows = [["", "files/s", "MB more", "save, ms", "download, ms"], ["alone", "", "", *_shown(alone)]]
            for version, what in enumerate(["new", "with other texts"]):
                _write(directory, options.files, version)
                seconds, grown, beside = _import(data_dir, directory, server.port, token)
                rate = options.files / seconds
                rows.append([what, f"{rate:,.0f}", f"{grown:.0f}", *_shown(beside)])
                print_claim(f"{what}: files a second", rate, at_least=1000)
                print_claim(f"{what}: megabytes that the process grows", grown, at_most=100)
                saves, downloads = (median(mine) / median(theirs) for mine, theirs in zip(beside, alone, strict=True))
                print_claim(f"{what}: a save beside it, of one alone", saves, at_most=3)
                print_claim(f"{what}: a download beside it, of one alone", downloads, at_most=1.5)
            print()
            print_table(rows)


def _administrator(data_dir: Path) -> str:
    code = (
        "from django.contrib.auth.models import User; from django.core.management import call_command;"
        "User.objects.create_superuser('admin'); call_command('create_api_token', 'admin')"
    )
    return manage(data_dir, "shell", "--verbosity=0", "-c", code).strip()


def _write(directory: Path, count: int, version: int) -> None:
    for number in range(count):
        name = f"02-00-00-{number >> 16:02x}-{number >> 8 & 255:02x}-{number & 255:02x}.json"
        text = f'{{"deviceName": "Sensor {number}", "version": {version}, "padding": "{"x" * 950}"}}'
        (directory / name).write_text(text)


def _import(data_dir: Path, directory: Path, port: int, token: str) -> tuple[float, float, list[list[float]]]:
    """Seconds, megabytes, and milliseconds of saves and downloads meanwhile."""
    command = [sys.executable, "manage.py", "import_configs", str(directory)]
    env = environ(data_dir)
    sizes: list[float] = []
    began = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as process:

        def watch() -> None:
            while process.poll() is None:
                sizes.append(_resident(process.pid))
                time.sleep(0.2)

        beside = _beside(port, token, watch)
    if process.returncode:
        raise RuntimeError("The import failed.")
    seconds = time.monotonic() - began
    started = sizes[min(5, len(sizes) - 1)]  # a second after it began, it has loaded all
    return seconds, max(sizes) - started, beside


def _resident(pid: int) -> float:
    try:
        found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    return int(found[1]) / 1024 if found else 0.0


def _beside(port: int, token: str, work: Callable[[], None]) -> list[list[float]]:
    """Milliseconds of each save, and of each download, of somebody who does both ten times a second meanwhile."""
    done = threading.Event()
    times: list[list[float]] = [[], []]

    def act() -> None:
        while not done.wait(0.1):
            times[0].append(_save(port, token))
            times[1].append(_download(port))

    thread = threading.Thread(target=act)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return times


def _save(port: int, token: str) -> float:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return _time(port, "PUT", f'{{"at": {time.monotonic_ns()}}}', headers)


def _download(port: int) -> float:
    return _time(port, "GET", None, {})


def _time(port: int, method: str, body: str | None, headers: dict[str, str]) -> float:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.monotonic()
    connection.request(method, f"/configs/{SAVED}", body, headers)
    response = connection.getresponse()
    response.read()
    seconds = time.monotonic() - began
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"{method} answers {response.status}.")
    return seconds * 1000


def _shown(times: list[list[float]]) -> list[str]:
    return [f"{median(each):.1f} ({len(each)} of them, at most {max(each):.0f})" for each in times]


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()

"""How long others wait while slow devices download: 500 of them, 1.5 MB at 20 KB/s each, for a minute.

``python -m benchmarks.slow_clients``. Meanwhile one client after another downloads a configuration, and an
administrator opens the list of devices.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from collections.abc import Sequence
from http.cookiejar import CookieJar
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, ProxyHandler, Request, build_opener

from benchmarks.harness import Server, data_directory, gunicorn, manage, percentile, print_claim, print_table

ASSET_BYTES = 1_500_000
CONFIGS = 200
PASSWORD = "slow-but-sure"  # noqa: S105 - of a server that is gone in a minute

# Or five times of what it is without slow clients, if that is more.
MAX_WAIT_MS = 250

# So that the kernel does not take the body in at once, as no device's does.
RECEIVE_BUFFER_BYTES = 8192


async def _download_slowly(port: int, bytes_per_second: int, connection: str) -> bool:
    """Return whether the whole body came."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    head = f"GET /assets/firmware.bin HTTP/1.1\r\nHost: device\r\nConnection: {connection}\r\n\r\n"
    await loop.sock_sendall(client, head.encode())
    start, received, length = loop.time(), bytearray(), None
    while length is None or len(received) < length:
        chunk = await loop.sock_recv(client, 4096)
        if not chunk:
            break
        received += chunk
        if length is None and b"\r\n\r\n" in received:
            length = received.index(b"\r\n\r\n") + 4 + ASSET_BYTES
        await asyncio.sleep(start + len(received) / bytes_per_second - loop.time())
    client.close()
    return received.startswith(b"HTTP/1.1 200 ") and len(received) == length and not received[-ASSET_BYTES:].strip(b"x")


def _run_slow_clients(results: Queue[int], port: int, count: int, bytes_per_second: int) -> None:
    async def run() -> list[Any]:
        kinds = ["close" if number % 2 else "keep-alive" for number in range(count)]
        downloads = [_download_slowly(port, bytes_per_second, kind) for kind in kinds]
        return await asyncio.gather(*downloads, return_exceptions=True)

    outcomes = asyncio.run(run())
    results.put(sum(outcome is True for outcome in outcomes))


def _sign_in(port: int) -> OpenerDirector:
    cookies = CookieJar()
    administrator = build_opener(ProxyHandler({}), HTTPCookieProcessor(cookies))
    url = f"http://127.0.0.1:{port}/admin/login/"
    administrator.open(url).read()
    token = next(cookie.value or "" for cookie in cookies if cookie.name == "csrftoken")
    form = urlencode({"next": "/admin/", "username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token})
    administrator.open(Request(url, form.encode(), headers={"Referer": url})).read()  # noqa: S310
    return administrator


def _measure(port: int, administrator: OpenerDirector, seconds: float) -> dict[str, list[float]]:
    """Ask for one and the other in turn; milliseconds of each."""
    everybody = build_opener(ProxyHandler({}))
    waits: dict[str, list[float]] = {"configuration": [], "admin's list": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, opener, path in [
            *[("configuration", everybody, "/configs/02-00-00-00-00-01.json")] * 4,
            ("admin's list", administrator, "/admin/devices/deviceconfig/"),
        ]:
            start = time.perf_counter()
            opener.open(f"http://127.0.0.1:{port}{path}", timeout=60).read()
            waits[name].append((time.perf_counter() - start) * 1000)
        time.sleep(0.02)
    return waits


def _fill(data_dir: Path) -> None:
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    manage(data_dir, "createsuperuser", "--noinput", "--username=admin", "--email=admin@example.com")
    (data_dir / "import").mkdir()
    for number in range(CONFIGS):
        (data_dir / "import" / f"02-00-00-00-00-{number:02x}.json").write_text('{"deviceName": "device"}')
    manage(data_dir, "import_configs", str(data_dir / "import"))
    (data_dir / "firmware").mkdir()
    (data_dir / "firmware" / "firmware.bin").write_bytes(b"x" * ASSET_BYTES)
    manage(data_dir, "import_assets", str(data_dir / "firmware"))


def _run(server: Server, options: argparse.Namespace) -> None:
    administrator = _sign_in(server.port)
    _measure(server.port, administrator, 2)
    at_rest = server.memory_bytes(), server.threads()
    alone = _measure(server.port, administrator, options.seconds / 4)
    results: Queue[int] = Queue()
    arguments = (results, server.port, options.clients // 2, options.rate)
    clients = [Process(target=_run_slow_clients, args=arguments) for _ in range(2)]
    for client in clients:
        client.start()
    before = server.cpu_seconds()
    time.sleep(3)
    loaded = _measure(server.port, administrator, options.seconds)
    under_load = server.memory_bytes(), server.threads()
    busy = server.cpu_seconds() - before
    whole = sum(results.get() for _ in clients)
    rows = [["", "alone: p50, p99 (ms)", f"beside {options.clients} slow clients: p50, p99 (ms)"]]
    for name in alone:
        cells = [
            f"{percentile(waits[name], 0.5):.1f}, {percentile(waits[name], 0.99):.1f}" for waits in [alone, loaded]
        ]
        rows.append([name, *cells])
    rows.append(["memory (PSS), threads", *[f"{memory / 1e6:.0f} MB, {n}" for memory, n in [at_rest, under_load]]])
    print_table(rows)
    print(f"\nThe server was busy for {busy:.1f} s.\n")
    print_claim(f"bodies that came whole, of {options.clients}", whole, at_least=options.clients)
    for name, waits in loaded.items():
        limit = max(MAX_WAIT_MS, 5 * percentile(alone[name], 0.99))
        print_claim(f"{name} beside them, p99 in ms", percentile(waits, 0.99), at_most=limit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rate", type=int, default=20_000, help="bytes per second of each")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--worker-class", default="iotsupport.serving.worker.Worker")
    options = parser.parse_args(arguments)
    with data_directory() as data_dir:
        _fill(data_dir)
        with gunicorn(data_dir, "--worker-class", options.worker_class) as server:
            _run(server, options)


if __name__ == "__main__":
    main()

"""Strangers who attack a server on this machine, all at once and as fast as they can; see :mod:`benchmarks.hostile`.

One process of one thread: what it cannot send, no other waits for. It takes what others leave of the processor: on
machines of their own, strangers would not compute on the server's. Each of them has an address of 127.0.0.0/8, which
for most is another one each time, and none of them is 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import os
import random
import string
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from urllib.parse import urlencode

LOGIN = "/admin/login/"
FORM = "Content-Type: application/x-www-form-urlencoded"
MADE_UP_CSRF = "a" * 32
MADE_UP_COOKIES = f"Cookie: csrftoken={MADE_UP_CSRF}; sessionid={'b' * 32}"
MEGABYTE = 1024 * 1024

MANY_FIELDS = b"&".join(b"f%d=1" % number for number in range(100_000))
# What is taken of anybody, and costs as much as it can.
FIELDS_IN_LITTLE = b"&".join([b"a"] * 32_000)
NONSENSE = b"\x01" * 4096 + b"\r\n\r\n"

SLOW_SECONDS = 15.0
# Whoever does not answer for so long is asked again from the beginning.
PATIENCE_SECONDS = 30.0

# Less than what the server and its customers have.
NICENESS = 10

Outcomes = Counter[tuple[str, str]]
"""How often an attack met with a status, or with a connection that was closed or could not be made."""

_choices = random.Random(10)  # noqa: S311 - of addresses and names


def head(method: str, path: str, *fields: str, length: int | None = None) -> bytes:
    more = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *more, *fields, "", ""]).encode()


def any_address() -> str:
    return f"127.{_choices.randint(1, 254)}.{_choices.randint(0, 255)}.{_choices.randint(1, 254)}"


class Stranger:
    """One of those who attack at the same time: does the same again and again, and never sleeps in between."""

    def __init__(self, port: int, number: int) -> None:
        self._port, self.number = port, number
        self.address = f"127.100.0.{number + 1}"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.leave()
        self._streams = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(address, 0))
        return self._streams

    def leave(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def ask(self, *parts: bytes, address: str | None = None) -> str:
        """Connect, send all of it for as long as the server takes it, and return the answer's status."""
        reader, writer = await self.connect(address or any_address())
        with suppress(ConnectionError):  # It may have been answered all the same.
            for part in parts:
                writer.write(part)
                await writer.drain()
        return await read_status(reader)

    async def ask_again(self, request: bytes) -> str:
        """As :meth:`ask`, over a connection that is kept, and reading the whole answer."""
        reader, writer = self._streams or await self.connect(self.address)
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in answer.splitlines()[1:-1])
        await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close":
            self.leave()
        return answer.split()[1].decode()


async def read_status(reader: asyncio.StreamReader) -> str:
    return (await reader.readline()).partition(b" ")[2][:3].decode() or "closed"


async def send_16_megabytes(stranger: Stranger) -> str:
    first = b"csrfmiddlewaretoken=" + MADE_UP_CSRF.encode() + b"&username="
    request = head("POST", LOGIN, FORM, MADE_UP_COOKIES, length=len(first) + 16 * MEGABYTE)
    return await stranger.ask(request, first, *[bytes(MEGABYTE)] * 16)


async def send_100_000_fields(stranger: Stranger) -> str:
    body = FIELDS_IN_LITTLE if stranger.number % 2 else MANY_FIELDS
    return await stranger.ask(head("POST", LOGIN, FORM, MADE_UP_COOKIES, length=len(body)), body)


async def send_slowly(stranger: Stranger) -> str:
    reader, writer = await stranger.connect(stranger.address)
    answer = asyncio.ensure_future(read_status(reader))
    writer.write(head("POST", LOGIN, FORM, MADE_UP_COOKIES, length=60_000))
    try:
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=SLOW_SECONDS)
        return await answer
    finally:
        answer.cancel()


async def flood_the_log(stranger: Stranger) -> str:
    return await stranger.ask(NONSENSE)


async def guess_a_password(stranger: Stranger) -> str:
    name = "admin" if stranger.number % 4 else "".join(_choices.choices(string.ascii_lowercase, k=8))
    guess = {"username": name, "password": str(_choices.random()), "csrfmiddlewaretoken": MADE_UP_CSRF}
    body = urlencode(guess).encode()
    agent = f"User-Agent: browser {_choices.random()}"
    # Some come from the same place again and again.
    address = stranger.address if stranger.number % 2 else any_address()
    return await stranger.ask(
        head("POST", LOGIN, FORM, MADE_UP_COOKIES, agent, length=len(body)), body, address=address
    )


async def ask_for_health(stranger: Stranger) -> str:
    return await stranger.ask_again(head("GET", "/health"))


async def ask_for_metrics(stranger: Stranger) -> str:
    return await stranger.ask_again(head("GET", "/metrics"))


# What they do, and how many of them at the same time.
ATTACKS: dict[str, tuple[Callable[[Stranger], Awaitable[str]], int]] = {
    "bodies of 16 MB": (send_16_megabytes, 96),
    "100,000 fields": (send_100_000_fields, 64),
    "slow bodies": (send_slowly, 96),
    "nonsense for the log": (flood_the_log, 16),
    "guessed passwords": (guess_a_password, 16),
    "/health": (ask_for_health, 8),
    "/metrics": (ask_for_metrics, 8),
}


async def _go_on(name: str, attack: Callable[[Stranger], Awaitable[str]], stranger: Stranger, seen: Outcomes) -> None:
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if attack is not send_slowly else None):
                seen[name, await attack(stranger)] += 1
        except TimeoutError:
            seen[name, "no answer"] += 1
        except (OSError, EOFError):
            seen[name, "closed"] += 1
            await asyncio.sleep(0)
        finally:
            stranger.leave()


async def _attack(port: int, seconds: float, names: Sequence[str]) -> Outcomes:
    seen: Outcomes = Counter()
    tasks = []
    for name in names:
        attack, count = ATTACKS[name]
        tasks += [asyncio.ensure_future(_go_on(name, attack, Stranger(port, number), seen)) for number in range(count)]
    await asyncio.wait([*tasks, asyncio.ensure_future(asyncio.sleep(seconds))], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    broken = [each for each in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(each, Exception)]
    if broken:
        raise broken[0]
    return seen


def attack(port: int, seconds: float, names: Sequence[str] = tuple(ATTACKS)) -> Outcomes:
    """Attack a server for some time, in these ways, and return what came of it."""
    os.nice(NICENESS)
    return asyncio.run(_attack(port, seconds, names))

"""Ports for what tests start, at most once each: whoever else runs tests on this machine at the same time."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# From which on the kernel gives ports to connections, and to whoever asks for any.
KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST_OF_KERNEL = int(KERNELS.read_text().split()[0]) if KERNELS.exists() else 32768

# Below those. Of a port above, a connection may take possession while what listened on it is stopped: a client that
# tries again and again can even be given the very port that it tries to reach, and is then connected to itself.
PORTS = range(20_000, FIRST_OF_KERNEL) if FIRST_OF_KERNEL > 25_000 else range(20_000, 30_000)

# Each byte stands for a port, and is locked by the process that uses it. Such locks end with their process, and an own
# one never stands in the way: a port is asked for once.
LOCKS = Path(tempfile.gettempdir()) / f"iotsupport-ports-{os.getuid()}"
_locks = os.open(LOCKS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
_not_asked_for = iter(random.sample(PORTS, len(PORTS)))


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on; no other test gets it until this process ends."""
    for port in _not_asked_for:
        try:
            fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:  # another process has it
            continue
        with socket.socket() as probe:
            if _can_bind(probe, port):
                return port
    raise AssertionError("No port is left.")


@contextmanager
def reserved(port: int) -> Iterator[None]:
    """Wait until no other process has reserved it, and keep it meanwhile: for those that a test cannot choose."""
    fcntl.lockf(_locks, fcntl.LOCK_EX, 1, port)
    try:
        yield
    finally:
        fcntl.lockf(_locks, fcntl.LOCK_UN, 1, port)


def _can_bind(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True

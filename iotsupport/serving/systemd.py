"""What the server has to do with systemd. Nothing here knows of Django: gunicorn's master uses it.

A datagram socket that systemd has opened for it: see sd_listen_fds(3), and docs/nginx.md. gunicorn would take it for
one of HTTP, and end. So the master takes it away before gunicorn looks (``gunicorn.conf.py``), and its workers inherit
it.

And which process is the main one, after a reload: see sd_notify(3).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from gunicorn import systemd

FIRST_DESCRIPTOR = 3
# Tells the descriptor to a master that takes over from this one, after SIGUSR2.
VARIABLE = "IOTSUPPORT_DATAGRAM_FD"

_descriptors: list[int] = []


def take_datagram_socket() -> None:
    """Keep the datagram socket, if there is one among the inherited; leave the others to gunicorn, without a gap."""
    if kept := os.environ.pop(VARIABLE, ""):
        _descriptors[:] = [int(kept)]
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return
    inherited = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(os.environ.get("LISTEN_FDS", "0")))
    others = [descriptor for descriptor in inherited if not _is_datagram_socket(descriptor)]
    for descriptor in inherited:
        if descriptor not in others:
            _descriptors[:] = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, inherited.stop)]
    if len(others) == len(inherited):
        return
    for place, descriptor in zip(inherited, others, strict=False):
        os.dup2(descriptor, place)
    for descriptor in inherited[len(others) :]:
        os.close(descriptor)
    os.environ["LISTEN_FDS"] = str(len(others))


def leave_to(environ: MutableMapping[str, str]) -> None:
    """Have the program that is about to take this process over find the socket, by this environment of it."""
    for descriptor in _descriptors:
        os.set_inheritable(descriptor, True)
        environ[VARIABLE] = str(descriptor)


def datagram_socket() -> socket.socket | None:
    """Return the socket, with a descriptor of its own; None where there is none."""
    return socket.socket(fileno=os.dup(_descriptors[0])) if _descriptors else None


def take_over(old_master: int, log: Any) -> None:
    """Tell systemd that the master of this worker is the service's main process now, and have the old one end.

    In this order: when its main process ends, a service ends. Without systemd, whoever sent SIGUSR2 ends the old one.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    systemd.sd_notify(f"MAINPID={os.getppid()}", log)
    with suppress(ProcessLookupError):
        os.kill(old_master, signal.SIGTERM)


def _is_datagram_socket(descriptor: int) -> bool:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:  # it is something else
        return False
    try:
        return sock.family == socket.AF_UNIX and sock.type == socket.SOCK_DGRAM
    finally:
        sock.detach()

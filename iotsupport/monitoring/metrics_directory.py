"""The directory where the workers of a server add up their metrics: in memory, where data cannot fill its disk.

gunicorn's master uses this before there is anything of Django or prometheus_client; its workers have it from there.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

# Memory that every user may put files in (Filesystem Hierarchy Standard of Linux, shm_overview(7)).
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory in it is made by us, or not used


def choose(data_dir: Path, *bases: str) -> Path | None:
    """Return a directory of this user and ``data_dir`` alone, in the first of ``bases`` that is not on its disk.

    After those comes shared memory. None where there is no such place.
    """
    name = _name(data_dir)
    for base in [*(Path(base) for base in bases if base), SHARED_MEMORY]:
        if os.access(base, os.W_OK | os.X_OK) and not _is_on_one_disk(base, data_dir) and not problem(base / name):
            return base / name
    return None


def prepare(path: Path) -> str | None:
    """Make the directory; return why it cannot be used, or None."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"it cannot be made: {error.strerror}"
    return problem(path)


def problem(path: Path) -> str | None:
    """Return why no files can be put into a directory, or None: where it is missing, into the one above it."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return problem(path.parent) if path != path.parent else "it is missing"
    except OSError as error:
        return f"it cannot be reached: {error.strerror}"
    if path.parent == SHARED_MEMORY and (found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode)):
        return "another user made it"
    if not path.is_dir():
        return "it is not a directory"
    return None if os.access(path, os.R_OK | os.W_OK | os.X_OK) else "this user may not"


def forget(path: Path) -> None:
    """Remove what the workers of an earlier server left in it."""
    for pattern in ["*.db", "*.page"]:
        for file in path.glob(pattern):
            file.unlink(missing_ok=True)


def remove(path: Path, data_dir: Path) -> None:
    """Remove a directory that :func:`choose` named, with its metrics; not where something of others is in it.

    So does all of it while a worker counts there: of another server that serves the same data.
    """
    if path.name != _name(data_dir) or any(_is_alive(file) for file in path.glob("*.db")):
        return
    with suppress(OSError):
        forget(path)
        path.rmdir()


def current() -> Path | None:
    """Return the directory of the server that this process is a worker of; None for any other process."""
    path = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(path) if path else None


def _name(data_dir: Path) -> str:
    installation = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]
    return f"iotsupport-{os.geteuid()}-{installation}"


def _is_alive(file: Path) -> bool:
    """Whether there is the process whose number ends the name of a file of metrics."""
    number = file.stem.rpartition("_")[2]
    try:
        os.kill(int(number), 0)
    except (OSError, OverflowError, ValueError):
        return False
    return True


def _is_on_one_disk(base: Path, data_dir: Path) -> bool:
    while not os.path.exists(data_dir) and data_dir != data_dir.parent:
        data_dir = data_dir.parent
    return base.stat().st_dev == data_dir.stat().st_dev

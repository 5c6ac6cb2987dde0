"""On which file system something is, and how much room is left there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from django.template.defaultfilters import filesizeformat

# Of Linux, see proc_pid_mountinfo(5); elsewhere nothing is known of file systems.
MOUNTS = Path("/proc/self/mountinfo")

# SQLite's locks and shared memory do not work on these: https://sqlite.org/wal.html, section 1.
OF_NETWORK = {"afs", "ceph", "cifs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
OF_NETWORK |= {"fuse.cephfs", "fuse.glusterfs", "fuse.sshfs"}

# In memory, little is needed.
OF_MEMORY = {"ramfs", "tmpfs"}

MB = 1000 * 1000
# Below that, somebody has to look; and what is so little that a change may find no room.
LOW_BYTES, SCARCE_BYTES = 500 * MB, 50 * MB
LOW_FILES, SCARCE_FILES = 10_000, 500

ESCAPED = re.compile(r"\\([0-7]{3})")


class FileSystem(NamedTuple):
    """Where it is mounted, and its kind, as in ``ext4``; both empty where that is not known."""

    mount: str
    kind: str

    @property
    def is_of_network(self) -> bool:
        return self.kind in OF_NETWORK

    @property
    def is_of_memory(self) -> bool:
        return self.kind in OF_MEMORY


class Room(NamedTuple):
    """What is left for this user."""

    free_bytes: int
    free_files: int | None
    """None where their number has no limit of its own."""
    is_read_only: bool

    @property
    def is_scarce(self) -> bool:
        return self.free_bytes < SCARCE_BYTES or (self.free_files is not None and self.free_files < SCARCE_FILES)

    @property
    def is_low(self) -> bool:
        return self.free_bytes < LOW_BYTES or (self.free_files is not None and self.free_files < LOW_FILES)

    def __str__(self) -> str:
        files = "" if self.free_files is None else f" and {self.free_files:,} files"
        return f"room for {filesizeformat(self.free_bytes)}{files}"


def room_at(path: Path) -> Room:
    """Return what is left where a directory is. Raises ``OSError``."""
    found = os.statvfs(path)
    free_files = found.f_favail if found.f_files else None
    return Room(found.f_bavail * found.f_frsize, free_files, bool(found.f_flag & os.ST_RDONLY))


def file_system_of(path: Path) -> FileSystem:
    """Return the file system that has the longest mount point above a path."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return FileSystem("", "")
    real = os.path.realpath(path)
    found = FileSystem("", "")
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        # Of two at one place, the later covers the other.
        if len(mount) >= len(found.mount) and (real + "/").startswith(mount.rstrip("/") + "/"):
            found = FileSystem(mount, after.split(" ")[0])
    return found

"""Names that are brought to the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from iotsupport import durable
from iotsupport.durable import make_directory, sync_directory


def refuse_to_sync(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Return the descriptors that were to be synced."""
    asked: list[int] = []

    def refuse(descriptor: int) -> None:
        asked.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable.os, "fsync", refuse)
    return asked


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_directories_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = refuse_to_sync(monkeypatch, number)

    make_directory(tmp_path / "new")

    assert (tmp_path / "new").is_dir()
    assert len(asked) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_what_does_not_get_to_the_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = refuse_to_sync(monkeypatch, number)

    with pytest.raises(OSError, match=os.strerror(number)):
        sync_directory(tmp_path)

    # None stays open.
    [descriptor] = asked
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(descriptor)

"""Nobody but the server's user can keep it from putting files in place."""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.test import Client

from iotsupport.mirror import files as mirror
from iotsupport.mirror.files import MirrorError, MirrorStorage, mirror_storage
from iotsupport.tests.support.api_client import refusal
from iotsupport.tests.support.server import NEW, Server

MAC = "aa-bb-cc-dd-ee-ff"


@contextmanager
def held(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0, reason="Only root may become another user.")
def test_another_user_can_lock_nothing_that_a_change_waits_for(make_server: Callable[..., Server]) -> None:
    server = make_server().start(*NEW)
    with server.client() as client:
        assert client.save_config(MAC, b"{}").status_code == 200
        assert client.upload("firmware.bin", b"bytes").status_code == 200
        client.delete("/assets/firmware.bin")
    locks = list((server.data_dir / "locks").iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in locks} == {0o600}
    # As where nothing else keeps others out.
    for path in [server.data_dir / "locks", server.data_dir, *server.data_dir.parents]:
        if not path.stat().st_mode & stat.S_IXOTH:
            path.chmod(0o755)
    (server.data_dir / "locks").chmod(0o755)

    with locked_by_nobody(server.data_dir) as held:
        assert any(path.endswith("/configs") for path in held)
        assert not any(path.endswith(".lock") for path in held)
        with server.client() as client:
            assert client.save_config(MAC, b'{"version": 2}').status_code == 200
            assert client.upload("firmware.bin", b"bytes").status_code == 200
            assert client.delete("/assets/firmware.bin").status_code == 204


@contextmanager
def locked_by_nobody(directory: Path) -> Iterator[list[str]]:
    """Another user locks all that can be opened below a directory; yield what that is."""
    code = (
        "import fcntl, os, sys\n"
        "held = []\n"
        "for directory, _, names in os.walk(sys.argv[1]):\n"
        "    for path in [directory, *(os.path.join(directory, name) for name in names)]:\n"
        "        try: descriptor = os.open(path, os.O_RDONLY)\n"
        "        except OSError: continue\n"
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "        held.append(path)\n"
        "print(*held, sep='\\n')\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    user = pwd.getpwnam("nobody")
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", code, str(directory)],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        yield list(iter(lambda: process.stdout.readline().strip(), ""))  # type: ignore[union-attr]
        process.stdin.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "LOCK_SECONDS", 0.05)


def test_who_waits_too_long_gets_a_sentence(tmp_path: Path, impatient: None) -> None:
    storage = MirrorStorage(tmp_path, label="configurations")
    with storage.lock():
        pass

    with held(storage.lock_path), pytest.raises(MirrorError) as error, storage.lock():
        pass

    assert str(error.value) == (
        "Another process keeps the configurations directory locked. Try again in a moment; if that does not help, find"
        f" out which one has {storage.lock_path} open, and end it."
    )
    storage.save("a.json", ContentFile(b"{}"))


@pytest.mark.usefixtures("transactional_db")
def test_a_save_that_cannot_lock_says_so_and_a_later_one_makes_up_for_it(
    script: Client, directories: Path, impatient: None
) -> None:
    url = f"/configs/{MAC}.json"
    assert script.put(url, b'{"version": 1}', content_type="application/json").status_code == 200

    with held(mirror_storage("configs").lock_path):
        answer = script.put(url, b'{"version": 2}', content_type="application/json")

    assert refusal(answer) == (503, "MIRROR_BEHIND")
    sentence = f"The change is saved, but the file of {MAC}.json is not up to date: Another process"
    assert answer.json()["error"].startswith(sentence)
    assert script.put(url, b'{"version": 3}', content_type="application/json").status_code == 200
    assert (directories / "configs" / f"{MAC}.json").read_bytes() == b'{"version": 3}'


def test_nothing_can_be_locked_in_a_directory_that_is_away(tmp_path: Path) -> None:
    storage = MirrorStorage(tmp_path / "away", label="configurations")

    with pytest.raises(MirrorError, match="The configurations directory is missing. Create it"), storage.lock():
        pass


def test_locks_of_two_directories_are_two(tmp_path: Path) -> None:
    for name in ["one", "other"]:
        (tmp_path / name / "configs").mkdir(parents=True)
    one, other = (MirrorStorage(tmp_path / name / "configs") for name in ["one", "other"])

    with one.lock(), other.lock():
        assert one.lock_path != other.lock_path


def test_a_lock_that_cannot_be_made_is_explained(tmp_path: Path, settings: object) -> None:
    settings.DATA_DIR = tmp_path / "away"  # type: ignore[attr-defined]

    storage = MirrorStorage(tmp_path)
    with pytest.raises(MirrorError, match="The DATA_DIR directory is missing. Create it"), storage.lock():
        pass

"""What is refused of a zip before anything of it is taken, however it was made."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from iotsupport.transfer import unzipping
from iotsupport.transfer.unzipping import RefusedZip, open_zip
from iotsupport.transfer.zipping import ZippedFile, stream_zip

MAC = "aa-bb-cc-dd-ee-ff.json"
PATH = "is a path that leads out of the zip"
DAMAGED = "This is no zip, or not all of it. Make it anew"


def make(*names: str, content: bytes = b"{}", **fields: Any) -> bytes:
    """A zip of such files; ``fields`` are set for the first of them."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items() if number == 0 else []:
                setattr(info, field, value)
            archive.writestr(info, content)
    return target.getvalue()


def read(data: bytes, most_bytes: int = 1000) -> dict[str, bytes]:
    with open_zip(io.BytesIO(data)) as unzipped:
        return {name: unzipped.read(name, most_bytes) for name in unzipped.names}


def patched(data: bytes, struct_at: Callable[[bytes], int], form: str, value: int) -> bytes:
    """With one number of a record replaced."""
    position = struct_at(data)
    return data[:position] + struct.pack(form, value) + data[position + struct.calcsize(form) :]


def in_end(offset: int) -> Callable[[bytes], int]:
    return lambda data: data.rindex(b"PK\5\6") + offset


def in_directory(offset: int) -> Callable[[bytes], int]:
    return lambda data: data.index(b"PK\1\2") + offset


# --- What is taken -----------------------------------------------------------------------------------------------


def test_reads_an_ordinary_zip() -> None:
    assert read(make(MAC, "types/Küche.json")) == {MAC: b"{}", "types/Küche.json": b"{}"}


def test_reads_what_we_send_ourselves() -> None:
    data = b"".join(stream_zip([ZippedFile(MAC, 2, lambda: [b"{}"])], is_packed=True))

    assert read(data) == {MAC: b"{}"}


def test_entries_of_directories_are_passed_over() -> None:
    assert read(make("types/", "types/a.json"))["types/a.json"] == b"{}"
    assert list(read(make("types/"))) == []


def test_an_empty_zip_has_nothing() -> None:
    assert read(make()) == {}


def test_a_member_that_is_too_large_is_refused_alone() -> None:
    data = make(MAC, content=b"x" * 11)
    with open_zip(io.BytesIO(data)) as unzipped, pytest.raises(ValidationError, match="It has more than 10 bytes"):
        unzipped.read(MAC, 10)


# --- Names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../a.json", "a/../../b.json", "/etc/passwd", "C:\\a.json", "c:a.json", "..\\a.json", "a\\b", "a//b", "./a"],
)
def test_paths(name: str) -> None:
    refuse(make(MAC, name), PATH)


def refuse(data: bytes, reason: str) -> None:
    with pytest.raises(RefusedZip, match=reason):
        read(data)


def test_names_that_nobody_sees() -> None:
    refuse(make("a\nb.json"), "holds what cannot be seen")
    data = make("abc.json").replace(b"abc.json", b"a\0c.json")
    refuse(data, "holds what cannot be seen")


def test_names_that_are_not_utf_8() -> None:
    refuse(make("abc.json").replace(b"abc.json", b"a\xffc.json"), "A name in the zip is not in UTF-8")
    marked = make("äb.json").replace("äb".encode(), b"a\xffb")
    refuse(marked, DAMAGED)


def test_one_name_twice() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = make(MAC, MAC)
    refuse(data, "is in the zip twice")


# --- Kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices(kind: int) -> None:
    refuse(make(MAC, external_attr=(kind | 0o777) << 16), "is a link or a device, and no file")


def test_what_is_encrypted() -> None:
    flagged = patched(make(MAC), in_directory(8), "<H", 0x1)
    refuse(flagged, "is encrypted. Make the zip without a password")


def test_unusual_packing() -> None:
    refuse(make(MAC, compress_type=zipfile.ZIP_LZMA), "is packed in a way that is not known here")


# --- Bombs -------------------------------------------------------------------------------------------------------


def test_100_000_members() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(100_000):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    data = target.getvalue()

    refuse(data, "60000 are allowed. Send several")


def test_more_members_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unzipping, "MOST_FILES", 3)
    data = make("a", "b", "c", "d")
    refuse(data, "The zip has 4 files or more; 3 are allowed")
    lies = patched(patched(data, in_end(8), "<H", 2), in_end(10), "<H", 2)
    refuse(lies, "The zip has 4 files or more; 3 are allowed")


def test_more_unpacked_bytes_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unzipping, "MOST_UNPACKED_BYTES", 1_000_000)
    refuse(make("a", "b", content=b"\0" * 600_000), "Unpacked, the zip has more than 1000000 bytes")


def test_more_unpacked_bytes_than_it_says() -> None:
    """The size in its directory is a claim."""
    for size in [10, 0, 5_000]:
        lies = patched(make(MAC, content=b"\0" * 4_000), in_directory(24), "<L", size)
        with pytest.raises(RefusedZip, match=DAMAGED):
            read(lies, 10_000)


def test_unpacks_no_more_of_a_bomb_than_it_may() -> None:
    bomb = patched(make(MAC, content=b"\0" * 50_000_000), in_directory(24), "<L", 20_000_000)

    with open_zip(io.BytesIO(bomb)) as unzipped, pytest.raises(ValidationError, match="more than 65536 bytes"):
        unzipped.read(MAC, 65536)


def test_what_is_read_again_and_again_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unzipping, "MOST_UNPACKED_BYTES", 5)
    with open_zip(io.BytesIO(make(MAC))) as unzipped:
        for _ in range(5):
            unzipped.read(MAC, 10)
        with pytest.raises(RefusedZip, match="Unpacked, the zip has more than 5 bytes"):
            unzipped.read(MAC, 10)


def test_members_that_overlap() -> None:
    """As David Fifield's bombs do: many names for the same packed bytes."""
    data = make("a.json", "b.json")
    second = data.rindex(b"PK\1\2")
    lies = data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]
    refuse(lies, "Files of the zip overlap, as those do that are made to fill a disk")


def test_a_member_that_reaches_into_the_directory() -> None:
    data = make(MAC)
    refuse(patched(data, in_directory(20), "<L", 100), DAMAGED)


def test_a_zip_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unzipping, "MOST_BYTES", 50)
    refuse(make(MAC), "50 are allowed. Send several")


def test_names_that_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unzipping, "MOST_FILES", 2)
    refuse(make("a" * 500), "The names in the zip are too long")


# --- What is no zip, or half of one ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{}", b"PK\3\4" * 20, b"PK\5\6", b"\x1f\x8b" + b"\0" * 60])
def test_what_is_no_zip(data: bytes) -> None:
    refuse(data, DAMAGED)


def test_every_beginning_of_a_zip_and_what_follows_its_end() -> None:
    data = make(MAC, "types.json")
    for length in range(len(data)):
        refuse(data[:length], DAMAGED)
    refuse(data + b"\n", DAMAGED)
    refuse(data + data, DAMAGED)
    refuse(b"#!/bin/sh\n" + data, DAMAGED)


def test_bytes_that_were_changed_on_the_way_are_noticed_or_harmless() -> None:
    data = make(MAC, content=b'{"deviceName": "Lamp"}')
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        try:
            found = read(bytes(broken))
        except ValidationError:
            continue
        assert set(found.values()) <= {b'{"deviceName": "Lamp"}'}, position

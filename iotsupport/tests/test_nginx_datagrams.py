"""What a datagram of nginx is taken for: a check-in, or nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.views import DOWNLOADS
from iotsupport.boards import nginx
from iotsupport.boards.checkins import MOST_CHARS, CheckIn
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.fixtures import *  # noqa: F403
from iotsupport.tests.support.properties import PATIENT
from iotsupport.tests.support.server import sha256

MAC = "aa-bb-cc-dd-ee-ff"
FILENAME = f"{MAC}.json"
CONFIG = b'{"deviceName": "Kitchen"}'
CONTENT_ETAG = f'"{sha256(CONFIG)}"'
NOW = 1_800_000_000.25

STATUSES = ["200", "206", "304"]

# As nginx sends it for a whole download.
TOLD = {
    "uri": f"/configs/{FILENAME}",
    "method": "GET",
    "status": "200",
    "completed": "OK",
    "content_range": "",
    "etag": "",
    "if_none_match": "",
    "address": "192.168.1.7",
    "user_agent": "kitchen/1.4.2",
    "version": "",
    "sta_mac": "",
    "base_mac": "",
    "sketch_md5": "",
    "sketch_sha256": "",
    "sdk_version": "",
    "chip_size": "",
}


def datagram(**told: Any) -> bytes:
    line = json.dumps(TOLD | told, ensure_ascii=False).encode()
    return b"<190>Nov 27 02:16:32 nginx: " + line


def read(**told: Any) -> CheckIn:
    return nginx.read(datagram(**told), NOW)


@pytest.fixture
def mirrored(directories: Any) -> Path:
    """A configuration in the mirror."""
    path = Path(DOWNLOADS.storage().path(FILENAME))
    path.write_bytes(CONFIG)
    return path


def etag_of(path: Path) -> str:
    """As nginx makes it."""
    status = path.stat()
    return f'"{int(status.st_mtime):x}-{status.st_size:x}"'


def test_nginx_tells_all_that_is_asked_for():
    text = (BASE_DIR / "deploy" / "nginx.conf").read_text()
    line = "".join(re.findall(r"'([^']*)'", text[text.index("log_format checkin") : text.index("map $status")]))

    assert json.loads(line).keys() == TOLD.keys()


def test_a_whole_download(mirrored):
    assert read(etag=etag_of(mirrored)) == CheckIn(
        way="nginx",
        kind="configs",
        filename=FILENAME,
        method="GET",
        status=200,
        etag=CONTENT_ETAG,
        at=NOW,
        remote="192.168.1.7",
        user_agent="kitchen/1.4.2",
    )


@pytest.mark.parametrize("prefix", ["/configs", "/esp32/config", "/api/configs", "/api/esp32/config"])
def test_any_address_of_a_configuration(prefix):
    assert read(uri=f"{prefix}/{FILENAME}").filename == FILENAME


def test_an_unchanged_configuration(mirrored):
    etag = etag_of(mirrored)

    check_in = read(status="304", etag=etag, if_none_match=f"W/{etag}")

    assert (check_in.status, check_in.etag, check_in.if_none_match) == (304, CONTENT_ETAG, CONTENT_ETAG)


def test_a_board_that_got_its_etag_from_the_application(mirrored):
    assert read(if_none_match=CONTENT_ETAG).if_none_match == CONTENT_ETAG


def test_of_a_file_that_was_replaced_nobody_knows_what_it_was(mirrored):
    etag = etag_of(mirrored)
    mirrored.write_bytes(CONFIG)
    os.utime(mirrored, (1_000_000_000, 1_000_000_000))

    check_in = read(etag=etag, if_none_match=etag)

    assert (check_in.etag, check_in.if_none_match) == ("", "")


def test_of_a_file_that_is_gone_nobody_knows_what_it_was(directories):
    assert read(etag='"65a5c3d0-19"').etag == ""


def test_a_download_that_was_cut_short_is_only_a_part():
    check_in = read(completed="")

    assert (check_in.status, check_in.reaches_end) == (206, False)


@pytest.mark.parametrize(
    ("content_range", "completed", "reaches_end"),
    [
        ("bytes 0-9/10", "OK", True),
        ("bytes 5-9/10", "OK", True),
        ("bytes 5-9/10", "", False),
        ("bytes 0-8/10", "OK", False),
        ("bytes 0-9/*", "OK", False),
        ("", "OK", False),
    ],
)
def test_a_part(content_range, completed, reaches_end):
    check_in = read(status="206", content_range=content_range, completed=completed)

    assert (check_in.status, check_in.reaches_end) == (206, reaches_end)


def test_an_asset_and_what_its_board_says():
    check_in = read(
        uri="/assets/größe 1.bin",
        sta_mac="AA:BB:CC:DD:EE:FF",
        base_mac="AA:BB:CC:DD:EE:00",
        version="1.4.2",
        sketch_md5="d41d8cd98f00b204e9800998ecf8427e",
        sketch_sha256="E3B0",
        sdk_version="v5.5.1",
        chip_size="4194304",
    )

    assert check_in.kind == "assets"
    assert check_in.filename == "größe 1.bin"
    assert check_in.mac_address == "AA:BB:CC:DD:EE:FF"
    assert check_in[-5:] == ("1.4.2", "d41d8cd98f00b204e9800998ecf8427e", "E3B0", "v5.5.1", "4194304")


def test_a_board_without_a_station_interface():
    assert read(uri="/assets/a.bin", base_mac="AA:BB:CC:DD:EE:00").mac_address == "AA:BB:CC:DD:EE:00"


def test_bytes_that_are_no_text_are_left_out():
    line = datagram(user_agent="X", version="Y").replace(b'"X"', b'"\xff\xc3\xa4"').replace(b'"Y"', b'"\xc3\xa4"')

    check_in = nginx.read(line, NOW)

    assert (check_in.user_agent, check_in.version) == ("", "ä")


def test_what_is_long_is_cut():
    assert read(user_agent="a" * 5000).user_agent == "a" * MOST_CHARS


@pytest.mark.parametrize("escaped", [rb"\u20ac", rb"\ud800"])
def test_characters_that_nginx_never_escapes_are_left_out(escaped):
    assert nginx.read(datagram(user_agent="X").replace(b'"X"', b'"' + escaped + b'"'), NOW).user_agent == ""


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"<190>Nov 27 02:16:32 nginx: ",
        b"{",
        b"{}",
        b"[1]{",
        b'{"uri": NaN}',
        b"{" + b'"a":{' * 1500,
        b"\0" * 100,
        datagram(method="PUT"),
        datagram(status="404"),
        datagram(status="²00"),
        datagram(status=200),
        datagram(uri=None),
        datagram(uri=""),
        datagram(uri="/admin/"),
        datagram(uri=f"/configs/{MAC}"),
        datagram(uri="/configs/kitchen.json"),
        datagram(uri="/configs/../db.sqlite3"),
        datagram(uri=f"/configs/{FILENAME}\n"),
        datagram(uri=f"/configs/{FILENAME.upper()}"),
        datagram(uri="/assets/a/b"),
        datagram(uri="/assets/X").replace(b"X", b"\xff"),
        datagram(user_agent="a" * nginx.MOST_BYTES),
    ],
)
def test_anything_else_is_refused(line):
    with pytest.raises(ValueError):
        nginx.read(line, NOW)


ANY_VALUE = st.none() | st.integers() | st.lists(st.integers(), max_size=2) | st.text() | st.sampled_from(STATUSES)
LINES = st.fixed_dictionaries({}, optional=dict.fromkeys(TOLD, ANY_VALUE)).map(lambda told: datagram(**told))


@PATIENT
@given(st.binary(max_size=200) | LINES)
def test_whatever_comes_is_a_check_in_or_refused(line):
    try:
        check_in = nginx.read(line, NOW)
    except ValueError:
        return
    assert check_in.filename
    assert check_in.status in {200, 206, 304}
    assert all(len(value) <= MOST_CHARS for value in check_in if isinstance(value, str))

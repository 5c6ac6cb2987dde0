"""What one download tells of a board: nothing that is not sure, and nothing that cannot be stored and shown."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotsupport.boards.checkins import MOST_CHARS, check_in_of, reaches_end, report_of, version_of
from iotsupport.tests.support.checkins import MAC, NOON, asked, etag, fetched, sha256, updated
from iotsupport.tests.support.properties import PATIENT

OLD, NEW = "old", "new"

ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/configs/{MAC}.json", "REMOTE_ADDR": "192.0.2.7"}


def report(check_in: Any) -> Any:
    found = report_of(check_in)
    assert found is not None
    return found


def reported(kind: Any = "configs", /, **headers: str) -> Any:
    """What is known of a board that sent these headers."""
    environ = ENVIRON | {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    filename = f"{MAC}.json" if kind == "configs" else "firmware.bin"
    return report(check_in_of("worker", kind, filename, environ, 200, {"ETag": etag(NEW)}, NOON))


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        ({"status": 200}, NEW),
        ({"status": 200, "if_none_match": etag(OLD)}, NEW),
        ({"status": 304, "if_none_match": etag(NEW)}, NEW),
        ({"status": 304, "if_none_match": f"W/{etag(NEW)}, {etag(OLD)}"}, NEW),
        ({"status": 304}, NEW),  # If-Modified-Since
        ({"status": 304, "if_none_match": "*"}, None),
        ({"status": 206}, NEW),
        ({"status": 206, "reaches_end": False}, None),
        ({"status": 206, "reaches_end": False, "if_none_match": etag(OLD)}, OLD),
        ({"status": 200, "method": "HEAD"}, None),
        ({"status": 200, "method": "HEAD", "if_none_match": etag(OLD)}, OLD),
        ({"status": 200, "method": "HEAD", "if_none_match": f"W/{etag(OLD)}"}, OLD),
        ({"status": 200, "method": "HEAD", "if_none_match": f"{etag(OLD)}, {etag(NEW)}"}, None),
        ({"status": 200, "method": "HEAD", "if_none_match": '"of another server"'}, None),
        ({"status": 404, "if_none_match": etag(OLD)}, None),
        ({"status": 200, "etag": ""}, None),
    ],
)
def test_a_board_holds_what_it_was_sent_whole_or_says_that_it_holds(answer: dict[str, Any], held: str | None) -> None:
    found = report(fetched(NEW, **answer))

    assert found.holds_sha256 == (held and sha256(held))
    assert found.holds_at == (held and NOON)


def test_what_a_board_holds_of_an_asset_is_not_its_configuration() -> None:
    assert report(updated()).holds_sha256 is None


@pytest.mark.parametrize(
    ("content_range", "is_so"),
    [
        ("bytes 0-9/10", True),
        ("bytes 5-9/10", True),
        ("bytes 0-8/10", False),
        ("bytes */10", False),
        ("bytes 0-9/*", False),
        ("", False),
    ],
)
def test_the_last_byte_ends_a_download(content_range: str, is_so: bool) -> None:
    assert reaches_end(content_range) == is_so


@pytest.mark.parametrize(
    "name", ["x_esp32_sta_mac", "x_esp32_base_mac", "x_esp8266_sta_mac"], ids=["station", "base", "esp8266"]
)
@pytest.mark.parametrize("spelled", ["AA:BB:CC:DD:EE:FF", "aa-bb-cc-dd-ee-ff", "AABBCCDDEEFF"])
def test_who_downloads_an_asset_is_known_by_a_header(name: str, spelled: str) -> None:
    assert reported("assets", **{name: spelled}).mac_address == MAC


@pytest.mark.parametrize("spelled", ["", "AA:BB", "AA:BB:CC:DD:EE:FF:00:11", "x" * 1000, "AA:BB:CC:DD:EE:FF\0"])
def test_who_says_no_mac_address_is_no_board(spelled: str) -> None:
    environ = ENVIRON | {"HTTP_X_ESP32_STA_MAC": spelled}

    assert report_of(check_in_of("worker", "assets", "firmware.bin", environ, 200, {}, NOON)) is None


def test_a_board_tells_what_it_runs() -> None:
    image, md5 = hashlib.sha256(b"image").hexdigest(), hashlib.md5(b"file", usedforsecurity=False).hexdigest()

    found = reported(
        "assets",
        x_esp32_sta_mac=MAC,
        x_esp32_version="1.4.2",
        x_esp32_sketch_md5=md5,
        x_esp32_sketch_sha256=image.upper(),
        x_esp32_sdk_version="v5.4",
        x_esp32_chip_size="4194304",
        user_agent="ESP32-http-Update",
    )

    assert (found.runs_version, found.runs_md5, found.runs_sha256) == ("1.4.2", md5, image)
    assert (found.sdk_version, found.chip_size, found.user_agent) == ("v5.4", 4194304, "ESP32-http-Update")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_esp32_sketch_md5", "not a digest"),
        ("x_esp32_sketch_md5", "ab" * 32),
        ("x_esp32_sketch_sha256", "ab" * 16),
        ("x_esp32_chip_size", "4 MB"),
        ("x_esp32_chip_size", "9" * 30),
        ("x_esp32_chip_size", "-1"),
    ],
)
def test_what_cannot_be_a_digest_or_a_size_is_left_out(name: str, value: str) -> None:
    found = reported(**{name: value})

    assert (found.runs_md5, found.runs_sha256, found.chip_size) == ("", "", None)


@pytest.mark.parametrize(
    ("user_agent", "version"),
    [
        ("kitchen/1.4.2", "1.4.2"),
        ("kitchen lamp/v2.0-rc.1+abc", "v2.0-rc.1+abc"),
        ("ESP32HTTPClient", ""),
        ("ESP32 HTTP Client/1.0", ""),
        ("curl/8.11.0", ""),
        ("Mozilla/5.0", ""),
        ("Mozilla/5.0 (X11; Linux x86_64)", ""),
        ("kitchen/next", ""),
        ("/1.0", ""),
        ("", ""),
    ],
)
def test_a_user_agent_of_a_firmware_says_its_version(user_agent: str, version: str) -> None:
    assert version_of(user_agent) == version
    assert reported(user_agent=user_agent).runs_version == version


def test_a_header_for_the_version_goes_first() -> None:
    assert reported(user_agent="kitchen/1.4.2", x_esp32_version="1.5.0").runs_version == "1.5.0"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("x" * 5000, "x" * MOST_CHARS),
        ("kit\r\nchen\0\x1b[31m", "kitchen[31m"),
        ("kit\u202echen".encode().decode("latin-1"), "kitchen"),  # would be shown from right to left
        ("Kueche u\u0308".encode().decode("latin-1"), "Kueche \u00fc"),
        ("K\u00fcche".encode().decode("latin-1"), "K\u00fcche"),
        ("K\xfcche", ""),  # Latin-1, not UTF-8
        (("x" * (MOST_CHARS - 1) + "\u00fc").encode().decode("latin-1"), "x" * (MOST_CHARS - 1)),
        ("  kitchen ", "kitchen"),
        ("\ud800", ""),
    ],
)
def test_what_cannot_be_shown_is_cut_or_left_out(value: str, kept: str) -> None:
    assert reported(user_agent=value).user_agent == kept


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("127.0.0.1", "198.51.100.1, 192.0.2.7", "192.0.2.7"),
        # Not behind a front server on this machine, anybody could say so.
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("::ffff:192.0.2.7", "", "192.0.2.7"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("", "", None),
        ("", "192.0.2.7", None),
    ],
)
def test_a_boards_address_is_known_as_that_of_who_signs_in(remote: str, forwarded: str, address: str | None) -> None:
    assert report(fetched(NEW, remote=remote, forwarded=forwarded)).last_address == address


def test_of_several_the_later_one_counts_and_what_it_does_not_say_stays() -> None:
    first = report(fetched(OLD, user_agent="kitchen/1.4.1", sdk_version="v5.3"))
    first.runs_md5 = "ab" * 16

    first.add(report(fetched(NEW, at=NOON + 1, method="HEAD", remote="192.0.2.8", user_agent="kitchen/1.4.2")))

    assert (first.at, first.holds_sha256, first.holds_at) == (NOON + 1, sha256(OLD), NOON)
    assert (first.last_address, first.address_before) == ("192.0.2.8", "192.0.2.7")
    assert (first.user_agent, first.runs_version, first.sdk_version) == ("kitchen/1.4.2", "1.4.2", "v5.3")
    assert first.runs_md5 == ""  # of the firmware before


def test_asking_for_nothing_is_counted() -> None:
    assert report(asked()).asked == 1
    assert report(fetched(NEW)).asked == 0


@settings(PATIENT, max_examples=50)
@given(headers=st.dictionaries(st.sampled_from([*ENVIRON, "HTTP_USER_AGENT", "HTTP_IF_NONE_MATCH"]), st.text()))
def test_no_header_makes_it_raise(headers: dict[str, str]) -> None:
    found = report_of(check_in_of("worker", "configs", f"{MAC}.json", ENVIRON | headers, 200, {}, NOON))

    assert found is not None
    assert found.user_agent.isprintable()
    found.user_agent.encode()

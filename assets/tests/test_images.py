"""What is an image is told from its bytes, and so is what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assets.images import FULL_FLASH, Image, Inspection, inspect, xor_of
from iotsupport.tests.support.images import CHIP_IDS, ELF_SHA256, make_esp8266_image, make_full_flash, make_image
from iotsupport.tests.support.properties import PATIENT

CUT = "The image is cut short after"
CHECKSUM = "The image's checksum is wrong"
DIGEST = "The SHA-256 at the image's end is not that of the image"


def look_at(content: bytes) -> Inspection:
    return inspect(lambda count, offset: content[offset : offset + count], len(content))


def recognised(content: bytes) -> Image:
    image, warnings = look_at(content)
    assert image is not None
    assert not warnings
    return image


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("chip", "chip_id"), CHIP_IDS.items())
def test_an_image_says_what_it_is(chip: str, chip_id: int, signed: bool):
    content = make_image(chip_id, signed=signed)

    assert recognised(content) == Image(
        chip=chip,
        project="kitchen",
        version="1.4.2",
        idf_version="v5.3.1",
        built="2026-11-03T14:02:11",
        elf_sha256=ELF_SHA256,
        image_sha256=make_image(chip_id)[-32:].hex(),
        signed=signed,
    )


def test_an_unknown_chip_is_its_number():
    assert recognised(make_image(77)).chip == "77"


def test_an_image_without_a_digest_at_its_end():
    assert recognised(make_image(has_digest=False)).image_sha256 == ""


@pytest.mark.parametrize("segments", [1, 16])
def test_an_image_has_so_many_segments(segments: int):
    assert recognised(make_image(segments=segments))


@pytest.mark.parametrize("segments", [0, 17, 255])
def test_warns_of_more_segments_than_an_image_has(segments: int):
    content = make_image()

    image, warnings = look_at(content[:1] + bytes([segments]) + content[2:])

    assert image is not None
    assert warnings[0].startswith(f"The image is damaged: it announces {segments} segments")


def test_what_follows_an_image_is_none_of_it():
    content = make_image()

    assert recognised(content + b"\xff" * 5000) == recognised(content)


@pytest.mark.parametrize(
    "length", [0x20 + 4, 0x20 + 255, 0x20 + 256, 1000, len(make_image()) - 33, len(make_image()) - 1]
)
def test_warns_of_an_image_that_is_cut_short(length: int):
    image, warnings = look_at(make_image()[:length])

    assert len(warnings) == 1
    assert warnings[0].startswith(f"{CUT} {length} bytes")
    assert (image is not None) == (length >= 0x20 + 256)


def test_warns_of_a_signature_that_is_cut_short():
    content = make_image(signed=True)

    assert look_at(content[:-1]).warnings[0].startswith(CUT)


def test_warns_of_a_byte_that_was_changed():
    content = bytearray(make_image())
    content[1500] ^= 1

    image, warnings = look_at(bytes(content))

    assert image is not None and image.version == "1.4.2"
    assert [CHECKSUM in warnings[0], DIGEST in warnings[1]] == [True, True]


def test_warns_of_a_digest_that_is_wrong():
    content = make_image()

    [warning] = look_at(content[:-1] + bytes([content[-1] ^ 1])).warnings

    assert warning.startswith(DIGEST)


@pytest.mark.parametrize("has_bootloader_first", [False, True])
def test_warns_of_an_image_of_the_whole_flash(has_bootloader_first: bool):
    assert look_at(make_full_flash(has_bootloader_first=has_bootloader_first)) == Inspection(None, (FULL_FLASH,))


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"\xe9", b"\xff" * 40_000, b"\xe9" + b"firmware" * 100_000, make_esp8266_image(), b"\xea" * 500],
        *[b"\x89PNG\r\n\x1a\n" * 100, make_image()[1:]],
    ],
    ids=["nothing", "a byte", "erased", "by its first byte", "ESP8266", "newer ESP8266", "PNG", "shifted"],
)
def test_anything_else_is_no_image_and_no_error(content: bytes):
    assert look_at(content) == Inspection()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"v1\0rest", "v1"),
        (b"x" * 32, "x" * 32),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\nb\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("1\u202e2".encode(), "1\ufffd2"),
        ("o\u0308".encode(), "ö"),
        (b"  1.0  ", "1.0"),
        (b"", ""),
    ],
)
def test_texts_are_data(said: bytes, shown: str):
    assert recognised(make_image(version=said, project=said))[1:3] == (shown, shown)


@pytest.mark.parametrize(
    ("date", "time"),
    [
        *[(b"", b""), (b"Nov  3 2026", b""), (b"Nov 31 2026", b"14:02:11"), (b"Foo  3 2026", b"14:02:11")],
        *[(b"Nov  3 0000", b"14:02:11"), (b"Nov  3 2026", b"25:02:11"), ("Nov  ٣ 2026".encode(), b"14:02:11")],
    ],
)
def test_a_date_that_is_none_is_left_out(date: bytes, time: bytes):
    assert recognised(make_image(date=date, time=time)).built == ""


@given(st.binary(max_size=300))
def test_folding_is_the_exclusive_or_of_all_bytes(content: bytes):
    expected = 0
    for byte in content:
        expected ^= byte

    assert xor_of(content) == expected


class TestAnyBytes:
    """No bytes make it raise, read past the end, or read without end."""

    @PATIENT
    @given(st.binary(max_size=600))
    def test_of_any_kind(self, content: bytes):
        self.look(content)

    @PATIENT
    @given(
        st.sampled_from([make_image(), make_image(signed=True), make_full_flash()]),
        st.lists(st.tuples(st.integers(0, 0x120), st.integers(0, 255)), max_size=20),
        st.integers(0, 10_000),
    )
    @example(make_image(), [(0x1C, 255), (0x1D, 255), (0x1E, 255), (0x1F, 255)], 10_000)
    def test_that_were_an_image(self, content: bytes, changes: list[tuple[int, int]], length: int):
        changed = bytearray(content)
        for offset, value in changes:
            changed[offset] = value
        self.look(bytes(changed)[:length])

    def look(self, content: bytes) -> None:
        total = 0

        def read(count: int, offset: int) -> bytes:
            nonlocal total
            assert 0 <= count <= 1024 * 1024
            part = content[offset : offset + count]
            total += len(part)
            return part

        image, _ = inspect(read, len(content))

        assert total <= len(content) + 1024
        assert image is None or all(len(text) <= 64 for text in image[:-1])


def test_a_file_that_is_shorter_than_it_was_is_cut_short():
    content = make_image()
    read: Callable[[int, int], bytes] = lambda count, offset: content[:1000][offset : offset + count]  # noqa: E731

    assert inspect(read, len(content)).warnings[0].startswith(CUT)

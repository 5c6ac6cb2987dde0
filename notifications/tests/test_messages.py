"""What subscribers are told, byte for byte."""

import json
import re

import pytest

from assets.names import FILENAME_MAX_BYTES, filename_problem
from iotsupport.settings import BASE_DIR
from notifications.connection import packet_bytes
from notifications.messages import ASSETS_TOPIC, TOPICS, Message
from notifications.simulator.devices import read_filename

# The last becomes two bytes.
CHARACTERS = ["n", "ж", "界", "🔥", '"']


@pytest.mark.parametrize(
    ("filename", "payload"),
    [
        ("aa-bb-cc-dd-ee-ff.json", '{"filename": "aa-bb-cc-dd-ee-ff.json"}'),
        ("Кухня 界 🔥.bin", '{"filename": "Кухня 界 🔥.bin"}'),
        ('a "b".bin', '{"filename": "a \\"b\\".bin"}'),
    ],
)
def test_a_name_is_announced_in_utf_8(filename, payload):
    message = Message(ASSETS_TOPIC, filename, 1)

    assert message.payload == payload.encode()
    assert json.loads(message.payload) == {"filename": filename}
    assert read_filename(message.payload) == filename


@pytest.mark.parametrize("character", CHARACTERS)
def test_the_longest_name_fits_into_the_buffer_of_the_sample(character):
    """PubSubClient holds a whole packet in it, and drops what is longer without a word."""
    filename = character * (FILENAME_MAX_BYTES // len(character.encode()))
    [size] = re.findall(r"mqtt\.setBufferSize\((\d+)\)", (BASE_DIR / "docs/devices.md").read_text())

    assert filename_problem(filename) is None
    for topic in TOPICS:
        assert packet_bytes(Message(topic, filename, 1)) <= int(size)

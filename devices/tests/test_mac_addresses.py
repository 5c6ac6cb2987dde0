"""MAC addresses as they are pasted: what is understood, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.serializers import deserialize
from django.db import transaction
from django.test import Client
from django.utils import timezone

from devices.fields import normalise_mac_address
from devices.models import DeviceConfig
from iotsupport.tests.support.api_client import nothing_changed
from iotsupport.tests.support.server import files

ADD = "/admin/devices/deviceconfig/add/"
LIST = "/admin/devices/deviceconfig/"

# As ESP32-C6 and H2 print it: the base MAC address with ff:fe in its middle.
EIGHT_BYTES = "02:71:bc:ff:fe:12:34:56"
OF_EIGHT_BYTES = (
    "This address has eight bytes, as ESP32-C6 and H2 print it. Write the base MAC address instead,"
    " the six bytes without ff:fe: 02-71-bc-12-34-56."
)


def sentence(text: str) -> str:
    with pytest.raises(ValidationError) as caught:
        normalise_mac_address(text)
    assert caught.value.code == "INVALID_MAC_ADDRESS"
    return " ".join(caught.value.messages)


@pytest.mark.parametrize("text", [EIGHT_BYTES, "02-71-BC-FF-FE-12-34-56", "0271bcfffe123456"])
def test_an_address_of_eight_bytes_gets_a_sentence_of_its_own(text: str):
    assert sentence(text) == OF_EIGHT_BYTES


def test_eight_other_bytes_are_not_taken_for_six():
    assert sentence("02:71:bc:00:00:12:34:56") == (
        "This address has eight bytes; a MAC address has six. Write the base MAC address of the board."
    )


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("aa-bb-cc-dd-ee-ff\u200b", "ZERO WIDTH SPACE (U+200B)"),
        ("aa\u2011bb\u2011cc\u2011dd\u2011ee\u2011ff", "NON-BREAKING HYPHEN (U+2011)"),
        ("\u202aaa-bb-cc-dd-ee-ff", "LEFT-TO-RIGHT EMBEDDING (U+202A)"),
        ("aa-bb-cc-dd-ee-f\x7f", "a control character (U+007F)"),
    ],
)
def test_a_sign_that_nobody_sees_is_named(text: str, sign: str):
    assert sentence(text) == f"This is not a MAC address: {sign} stands in it. Type it anew, as aa-bb-cc-dd-ee-ff."


@pytest.mark.parametrize("text", ["", "aa-bb", "MAC: aa-bb-cc-dd-ee-ff", "aa-bb-cc-dd-ee-ff-00", " aa-bb-cc-dd-ee-ff"])
def test_anything_else_is_told_what_to_write(text: str):
    assert sentence(text) == (
        "This is not a MAC address: write six pairs of hexadecimal digits and nothing else, such as aa-bb-cc-dd-ee-ff."
    )


@pytest.mark.usefixtures("transactional_db")
class TestTheForm:
    @pytest.mark.parametrize("typed", [" aa:bb:cc:dd:ee:ff", "AABBCCDDEEFF \t", "\u00a0aa-bb-cc-dd-ee-ff\r\n"])
    def test_takes_off_blanks_at_the_ends(self, signed_in: Client, typed: str):
        signed_in.post(ADD, {"mac_address": typed, "content": "{}"})

        assert [config.mac_address for config in DeviceConfig.objects.all()] == ["aa-bb-cc-dd-ee-ff"]

    @pytest.mark.parametrize(
        ("typed", "reason"),
        [
            (EIGHT_BYTES, OF_EIGHT_BYTES),
            (f"MAC: {EIGHT_BYTES}", "six pairs of hexadecimal digits and nothing else"),
            ("MAC: aa:bb:cc:dd:ee:ff", "six pairs of hexadecimal digits and nothing else"),
        ],
    )
    def test_shows_all_of_what_it_refuses(self, signed_in: Client, typed: str, reason: str):
        with nothing_changed():
            response: Any = signed_in.post(ADD, {"mac_address": typed, "content": "{}"})

        [error] = response.context_data["adminform"].form.errors["mac_address"]
        assert reason in error
        assert f'value="{typed}"' in response.content.decode()


@pytest.mark.usefixtures("transactional_db")
class TestARow:
    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("spelled", ["AA:BB:CC:DD:EE:FF", "AABBCCDDEEFF", "aa-bb-cc-dd-ee-ff"])
    @pytest.mark.parametrize(
        "save",
        [
            lambda address: DeviceConfig(mac_address=address, content="{}").save(),
            lambda address: DeviceConfig.objects.put(address, "{}"),
            lambda address: rename(DeviceConfig.objects.put("02-71-bc-12-34-56", "{}"), address),
            lambda address: load({"mac_address": address, "content": "{}"}),
        ],
        ids=["saved", "put", "renamed", "loaded"],
    )
    def test_has_one_spelling_whatever_was_given(self, directories: Path, save: Callable[[str], Any], spelled: str):
        save(spelled)

        assert DeviceConfig.objects.get().mac_address == "aa-bb-cc-dd-ee-ff"
        assert files(directories / "configs") == {"aa-bb-cc-dd-ee-ff.json": b"{}"}

    @pytest.mark.both_databases
    def test_is_found_by_put_in_any_spelling(self):
        DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", "{}")

        DeviceConfig.objects.put("AA:BB:CC:DD:EE:FF", '{"version": 2}')

        assert DeviceConfig.objects.get().content == '{"version": 2}'

    @pytest.mark.parametrize("put", [DeviceConfig.objects.put, lambda *values: DeviceConfig(None, *values).save()])
    def test_is_refused_with_anything_else(self, put: Callable[..., Any]):
        with nothing_changed(), pytest.raises(ValidationError, match="This is not a MAC address"):
            put("aa-bb-cc-dd-ee", "{}")


def rename(config: DeviceConfig, address: str) -> None:
    config.mac_address = address
    config.save()


def load(fields: dict[str, Any]) -> None:
    """As ``loaddata`` does."""
    now = timezone.now().isoformat()
    values = {**fields, "created_at": now, "updated_at": now}
    with transaction.atomic():
        for row in deserialize("python", [{"model": "devices.deviceconfig", "fields": values}]):
            row.save()


@pytest.mark.usefixtures("transactional_db")
def test_the_address_of_eight_bytes_finds_its_board(signed_in: Client):
    DeviceConfig.objects.put("02-71-bc-12-34-56", "{}")
    DeviceConfig.objects.put("02-71-bc-12-34-57", "{}")

    response: Any = signed_in.get(LIST, {"q": f" {EIGHT_BYTES.upper()} "})

    assert [row.mac_address for row in response.context_data["cl"].result_list] == ["02-71-bc-12-34-56"]


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize("path", ["/configs/{}", "/configs/{}.json", "/esp32/config/{}.json"])
def test_the_api_says_the_same(script: Client, path: str):
    response = script.get(path.format(EIGHT_BYTES))

    assert (response.status_code, response.json()["error"]) == (400, OF_EIGHT_BYTES)

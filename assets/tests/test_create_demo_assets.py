import pytest
from django.core.management import call_command

from assets.models import Asset
from iotsupport.mirror.files import mirror_storage


@pytest.mark.both_databases
def test_makes_a_firmware_a_font_and_an_image(transactional_db):
    call_command("create_demo_assets")

    with mirror_storage("assets").open("demo-logo.png") as image:
        assert image.read(8) == b"\x89PNG\r\n\x1a\n"
    assert dict(Asset.objects.values_list("filename", "size"))["demo-firmware.bin"] == 300 * 1024
    assert Asset.objects.count() == 3


@pytest.mark.both_databases
def test_a_second_time_it_changes_nothing(transactional_db):
    call_command("create_demo_assets")
    before = list(Asset.objects.values())

    call_command("create_demo_assets")

    assert list(Asset.objects.values()) == before


def test_the_firmware_is_recognised():
    call_command("create_demo_assets")

    firmware = Asset.objects.get(filename="demo-firmware.bin")
    assert (firmware.chip, firmware.project, firmware.version) == ("ESP32", "demo-firmware", "1.0.0")
    assert firmware.warnings == []

import pytest
from django.core.management import call_command

from devices.models import DeviceConfig


@pytest.mark.both_databases
def test_makes_two_dozen_devices_of_different_kinds(transactional_db):
    call_command("create_demo_configs")

    assert DeviceConfig.objects.count() == 24
    assert DeviceConfig.objects.filter(enable_ota=True).count() == 16
    assert DeviceConfig.objects.values("device_entity_id").distinct().count() == 24


@pytest.mark.both_databases
def test_a_second_time_it_changes_nothing(transactional_db):
    call_command("create_demo_configs")
    DeviceConfig.objects.filter(mac_address="02-de-30-00-00-01").update(content="{}")
    before = list(DeviceConfig.objects.values())

    call_command("create_demo_configs")

    assert list(DeviceConfig.objects.values()) == before

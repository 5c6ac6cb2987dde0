from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from devices.models import DeviceConfig
from iotsupport.boards.models import Board
from iotsupport.trial.demo import BEHIND, NEVER_FETCHED, SILENT

pytestmark = pytest.mark.both_databases


@pytest.fixture
def demo(transactional_db):
    call_command("create_demo_configs")
    call_command("create_demo_boards")


def test_one_board_is_behind_one_silent_and_all_others_have_not_come_yet(demo):
    behind, silent = Board.objects.get(mac_address=BEHIND), Board.objects.get(mac_address=SILENT)

    assert (behind.state, behind.is_silent, behind.runs_version) == ("behind", False, "1.4.2")
    assert (silent.state, silent.is_silent) == ("current", True)
    assert silent.last_seen is not None
    assert silent.last_seen < timezone.now() - timedelta(days=3)
    assert Board.objects.count_states() == {"current": 1, "behind": 1, "never_fetched": 22, "waiting": 0}
    assert set(NEVER_FETCHED) < set(Board.objects.filter(state="never_fetched").values_list("pk", flat=True))


def test_what_they_did_since_stays(demo):
    Board.objects.filter(mac_address__in=[BEHIND, SILENT]).update(last_address="192.0.2.1")
    before = list(Board.objects.values()), list(DeviceConfig.objects.values())

    call_command("create_demo_boards")

    assert (list(Board.objects.values()), list(DeviceConfig.objects.values())) == before


def test_without_sample_devices_there_is_nothing_to_do(transactional_db):
    call_command("create_demo_boards")

    assert not Board.objects.exists()

from __future__ import annotations

import pytest

from devices.tests.changes.fleet import Fleet, mac
from devices.writing import Write, write_many
from iotsupport.tests.support.api_client import make_user
from iotsupport.tests.support.fixtures import *  # noqa: F403


@pytest.fixture
def fleet(transactional_db: None) -> Fleet:
    """Two dozen lamps, and somebody who may change them."""
    fleet = Fleet(make_user("devices.change_deviceconfig", "devices.view_deviceconfig", username="anna", is_staff=True))
    lamps = {number: f'{{\n  "deviceName": "Lamp {number}",\n  "pin": {number}.0\n}}\n' for number in range(24)}
    write_many([Write(mac(number), None, content) for number, content in lamps.items()])
    return fleet

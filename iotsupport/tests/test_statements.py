"""What a save asks in statements of its own is what query sets would ask, and gives the same rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.models import F, Model
from django.db.models.functions import Upper
from django.test.utils import CaptureQueriesContext

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.database.statements import insert_row, lock_row, update_row
from iotsupport.mirror.rows import MirroredModel

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]

MAC = "aa-bb-cc-dd-ee-ff"


@pytest.fixture(params=["config", "asset"])
def saved(request: pytest.FixtureRequest, transactional_db: None, administrator: Any) -> MirroredModel:
    if request.param == "config":
        content = '{"deviceName": "Lamp 100 %s \u00fc", "enableOTA": false}'
        return DeviceConfig.objects.put(MAC, content, user=administrator)
    return Asset.objects.upload("firmware.bin", [b"bytes"], user=administrator)


def values(row: Model) -> dict[str, tuple[type, Any]]:
    """With their types: SQLite has numbers and texts for what are switches and times."""
    return {
        field.attname: (type(getattr(row, field.attname)), getattr(row, field.attname))
        for field in row._meta.concrete_fields
    }


def test_a_locked_row_is_the_one_that_a_query_set_finds(saved):
    model, name = type(saved), saved.name_field

    found = lock_row(model, name, getattr(saved, name), "default")

    assert found is not None
    assert type(found) is model
    assert values(found) == values(model.objects.get()) == values(saved)
    assert (found._state.adding, found._state.db) == (False, "default")
    assert found.name_as_read == getattr(saved, name)


def test_a_row_that_is_missing_is_none(saved):
    assert lock_row(type(saved), saved.name_field, "another", "default") is None


@pytest.mark.postgresql
def test_a_row_is_locked():
    with CaptureQueriesContext(connection) as captured:
        lock_row(Asset, "filename", "firmware.bin", "default")

    assert captured[0]["sql"].endswith(" FOR UPDATE")


def test_a_save_changes_what_it_is_told_and_no_other_row(saved):
    other = DeviceConfig.objects.put("00-00-00-00-00-01", "{}") if isinstance(saved, DeviceConfig) else None
    before = values(type(saved).objects.get(pk=saved.pk))
    saved.folded = "anew"

    saved.save(update_fields=["folded"])

    after = values(type(saved).objects.get(pk=saved.pk))
    assert after == {**before, "folded": (str, "anew")}
    assert other is None or values(DeviceConfig.objects.get(pk=other.pk)) == values(other)


def test_a_row_that_is_gone_is_not_changed(saved):
    field = saved._meta.get_field("folded")

    assert update_row(type(saved), saved.pk, (field,), ["anew"], "default") is True
    assert update_row(type(saved), saved.pk + 1, (field,), ["anew"], "default") is False


def test_an_expression_is_left_to_the_database(saved):
    saved.folded = Upper(F("folded"))
    before = type(saved).objects.get().folded

    saved.save(update_fields=["folded"])

    assert before != type(saved).objects.get().folded.replace("Ü", "ü") == before.upper().replace("Ü", "ü")


def test_the_version_of_a_row_is_the_one_that_a_query_set_finds(saved):
    version = saved.history.get()

    assert values(version).items() >= {name: pair for name, pair in values(saved).items() if name != "folded"}.items()
    assert (version.history_type, version.history_change_reason, version.instance) == ("+", None, saved)


def test_an_inserted_row_knows_its_key(saved):
    version = saved.history.get()
    version.pk, version._state.adding, version.history_type = None, True, "~"

    insert_row(version, "default")

    assert values(saved.history.latest()) == values(version)
    assert saved.history.count() == 2


def test_a_version_can_be_changed(saved):
    version = saved.history.get()
    version.history_change_reason = "a typo"

    version.save()

    assert saved.history.get().history_change_reason == "a typo"

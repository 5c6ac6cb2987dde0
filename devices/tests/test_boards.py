"""A board's row follows its configuration: by whatever way that is saved or deleted, in the same transaction."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client

from devices.models import DeviceConfig
from iotsupport.boards import configurations
from iotsupport.boards.models import Board, State
from iotsupport.tests.support.first_version import CONFIGS, Updated
from iotsupport.tests.support.migrating import go_to, go_to_today

MAC, OTHER = "aa-bb-cc-dd-ee-ff", "aa-bb-cc-dd-ee-00"
OLD, NEW = '{"version": 1}', '{"version": 2}'
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def board(mac_address: str = MAC) -> Board:
    return Board.objects.get(mac_address=mac_address)


def facts(mac_address: str = MAC) -> tuple[str, str | None]:
    row = board(mac_address)
    return row.state, row.config_sha256


def saved_and_fetched(content: str = OLD) -> DeviceConfig:
    """A configuration whose board holds its present bytes."""
    config = DeviceConfig.objects.put(MAC, content)
    Board.objects.update(holds_sha256=sha256(content), state=State.CURRENT, last_seen=LONG_AGO, first_seen=LONG_AGO)
    return config


def save_by_put(script: Client, content: str) -> None:
    assert script.put(f"/configs/{MAC}.json", content, content_type="application/json").status_code == 200


def save_in_the_admin(signed_in: Client, content: str) -> None:
    config = DeviceConfig.objects.get()
    form = {"content": content, "based_on": config.etag}
    assert signed_in.post(f"/admin/devices/deviceconfig/{config.pk}/change/", form).status_code == 302


def save_by_import(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "import"
    folder.mkdir()
    (folder / f"{MAC}.json").write_text(content)
    call_command("import_configs", str(folder), stdout=StringIO())


def save_as_a_fixture(tmp_path: Path, content: str) -> None:
    path = tmp_path / "fixture.json"
    config = DeviceConfig.objects.get()
    fields = {"mac_address": MAC, "content": content, "created_at": LONG_AGO, "updated_at": LONG_AGO}
    path.write_text(json.dumps([{"model": "devices.deviceconfig", "pk": config.pk, "fields": fields}], default=str))
    call_command("loaddata", str(path), verbosity=0)


@pytest.mark.parametrize("way", ["put", "admin", "import", "fixture"])
def test_a_save_makes_a_current_board_behind(way: str, script: Client, signed_in: Client, tmp_path: Path) -> None:
    saved_and_fetched(OLD)

    match way:
        case "put":
            save_by_put(script, NEW)
        case "admin":
            save_in_the_admin(signed_in, NEW)
        case "import":
            save_by_import(tmp_path, NEW)
        case "fixture":
            save_as_a_fixture(tmp_path, NEW)

    assert facts() == (State.BEHIND, sha256(NEW))
    assert abs(datetime.now(UTC) - (board().behind_since or LONG_AGO)) < timedelta(minutes=1)


def test_a_new_configuration_was_never_fetched() -> None:
    DeviceConfig.objects.put(MAC, OLD)

    assert facts() == (State.NEVER_FETCHED, sha256(OLD))
    assert board().behind_since is None
    assert board().last_seen is None


def test_it_is_behind_since_the_first_save_that_it_has_not_fetched() -> None:
    saved_and_fetched(OLD)
    DeviceConfig.objects.put(MAC, NEW)
    Board.objects.update(behind_since=LONG_AGO)

    DeviceConfig.objects.put(MAC, '{"version": 3}')

    assert board().behind_since == LONG_AGO


def test_what_it_holds_is_saved_again() -> None:
    saved_and_fetched(OLD)
    DeviceConfig.objects.put(MAC, NEW)

    DeviceConfig.objects.put(MAC, OLD)

    assert facts() == (State.CURRENT, sha256(OLD))
    assert board().behind_since is None


def test_a_save_that_is_rolled_back_changes_nothing() -> None:
    saved_and_fetched(OLD)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        DeviceConfig.objects.put(MAC, NEW)
        assert board().state == State.BEHIND
        _ = 1 / 0

    assert facts() == (State.CURRENT, sha256(OLD))


def test_a_save_of_other_fields_says_nothing_of_the_content() -> None:
    config = saved_and_fetched(OLD)
    config.content = NEW

    config.save(update_fields=["updated_by"])

    assert facts() == (State.CURRENT, sha256(OLD))


def test_a_configuration_that_is_renamed_leaves_one_board_for_another() -> None:
    config = saved_and_fetched(OLD)

    config.mac_address = OTHER
    config.save()

    assert facts(MAC) == (State.GONE, None)
    assert facts(OTHER) == (State.NEVER_FETCHED, sha256(OLD))


def delete_one(script: Client, signed_in: Client) -> None:
    DeviceConfig.objects.get().delete()


def delete_by_the_api(script: Client, signed_in: Client) -> None:
    assert script.delete(f"/configs/{MAC}").status_code == 204


def delete_a_query_set(script: Client, signed_in: Client) -> None:
    DeviceConfig.objects.all().delete()


def delete_selected(script: Client, signed_in: Client) -> None:
    form = {"action": "delete_selected", "_selected_action": [DeviceConfig.objects.get().pk], "post": "yes"}
    assert signed_in.post("/admin/devices/deviceconfig/", form).status_code == 302


@pytest.mark.parametrize("delete", [delete_one, delete_by_the_api, delete_a_query_set, delete_selected])
def test_a_deletion_leaves_a_board_that_was_seen_without_a_configuration(
    delete: Any, script: Client, signed_in: Client
) -> None:
    saved_and_fetched(OLD)
    DeviceConfig.objects.put(MAC, NEW)

    delete(script, signed_in)

    assert not DeviceConfig.objects.exists()
    assert facts() == (State.GONE, None)
    assert board().behind_since is None
    assert not Board.objects.shown().exists()


def test_a_deletion_leaves_nothing_of_a_board_that_was_never_seen() -> None:
    DeviceConfig.objects.put(MAC, OLD)

    DeviceConfig.objects.get().delete()

    assert not Board.objects.exists()


def test_a_deletion_that_is_taken_back_finds_what_the_board_holds() -> None:
    saved_and_fetched(OLD)
    DeviceConfig.objects.get().delete()

    DeviceConfig.objects.put(MAC, OLD)

    assert facts() == (State.CURRENT, sha256(OLD))


def test_a_waiting_board_that_gets_a_configuration_waits_no_more() -> None:
    Board.objects.create(mac_address=MAC, state=State.WAITING, asked=7, waiting_since=LONG_AGO, last_seen=LONG_AGO)

    DeviceConfig.objects.put(MAC, OLD)

    row = board()
    assert (row.state, row.asked, row.waiting_since) == (State.NEVER_FETCHED, 0, None)


def test_all_that_is_dumped_is_loaded_again_over_what_is_there(tmp_path: Path) -> None:
    saved_and_fetched(OLD)
    DeviceConfig.objects.put(OTHER, OLD)
    before = list(Board.objects.values())
    dump = tmp_path / "dump.json"
    call_command("dumpdata", "--output", str(dump), verbosity=0)
    DeviceConfig.objects.all().delete()
    Board.objects.create(mac_address=OTHER, state=State.WAITING, asked=7)

    call_command("loaddata", str(dump), verbosity=0)

    assert list(Board.objects.values()) == before
    assert sync_mirror("--check") == "Files and database are equal.\n"


# --- What sends no signal -------------------------------------------------------------------------------------------


def sync_mirror(*options: str) -> str:
    output = StringIO()
    try:
        call_command("sync_mirror", *options, stdout=output, stderr=output)
    except CommandError as error:
        output.write(str(error))
    return output.getvalue()


def update_past_the_signals() -> None:
    DeviceConfig.objects.update(content=NEW)


def create_past_the_signals() -> None:
    config = DeviceConfig(mac_address=OTHER, content=OLD)
    config.read_content()
    DeviceConfig.objects.bulk_create([config])


def delete_past_the_signals() -> None:
    DeviceConfig.objects.all()._raw_delete("default")


def damage_the_state() -> None:
    Board.objects.update(state=State.BEHIND)


@pytest.mark.parametrize(
    ("damage", "mac_address", "expected"),
    [
        (update_past_the_signals, MAC, (State.BEHIND, sha256(NEW))),
        (create_past_the_signals, OTHER, (State.NEVER_FETCHED, sha256(OLD))),
        (delete_past_the_signals, MAC, (State.GONE, None)),
        (damage_the_state, MAC, (State.CURRENT, sha256(OLD))),
    ],
)
def test_sync_mirror_tells_and_mends_a_row_that_contradicts_its_configuration(
    damage: Any, mac_address: str, expected: tuple[str, str | None]
) -> None:
    saved_and_fetched(OLD)
    assert sync_mirror("--check") == "Files and database are equal.\n"
    damage()

    report = sync_mirror("--check")
    assert f"boards: the row of {mac_address} contradicts its configuration\n" in report
    assert "Files and database differ." in report

    assert f"boards: the row of {mac_address} is in step with its configuration again\n" in sync_mirror()
    assert facts(mac_address) == expected
    assert sync_mirror("--check") == "Files and database are equal.\n"


def test_many_rows_are_mended_in_few_transactions(monkeypatch: Any) -> None:
    monkeypatch.setattr("iotsupport.boards.configurations.TOGETHER", 3)
    macs = [f"02-00-00-00-00-{number:02x}" for number in range(7)]
    for mac_address in macs:
        DeviceConfig.objects.put(mac_address, OLD)
    Board.objects.all()._raw_delete("default")
    transactions = mock.Mock(wraps=transaction.atomic)
    monkeypatch.setattr("devices.boards.transaction.atomic", transactions)

    configurations.compare("default", repair=True)

    assert transactions.call_count == 3
    assert Board.objects.count_states()["never_fetched"] == 7


# --- The update of an installation ----------------------------------------------------------------------------------


def test_an_update_gives_existing_configurations_their_boards(updated: Updated) -> None:
    rows = Board.objects.values_list("mac_address", "state", "config_sha256", "last_seen", "behind_since")
    assert sorted(rows) == sorted(
        (mac_address, State.NEVER_FETCHED, sha256(content), None, None) for mac_address, content in CONFIGS.items()
    )
    assert DeviceConfig.history.count() == updated.before.versions
    assert sync_mirror("--check") == "Files and database are equal.\n"


@pytest.mark.usefixtures("own_database")
def test_an_update_after_going_back_leaves_what_boards_did() -> None:
    saved_and_fetched(OLD)
    DeviceConfig.objects.put(OTHER, OLD)
    go_to(("devices", "0003_order_of_versions"))
    Board.objects.filter(mac_address=OTHER)._raw_delete("default")

    go_to_today("devices")

    assert facts(MAC) == (State.CURRENT, sha256(OLD))
    assert facts(OTHER) == (State.NEVER_FETCHED, sha256(OLD))

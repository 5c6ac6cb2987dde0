"""An installation of an earlier version keeps what it has, and may go on beside the new one for a while."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.models import Asset
from iotsupport.housekeeping import EVERY, NAME, tidy
from iotsupport.models import Throttle
from iotsupport.tests.support.migrating import go_to, go_to_today

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("own_database")]

RENAMED = ("iotsupport", "0005_throttle")


@pytest.fixture
def version_before(earlier: Callable[..., Any]) -> tuple[str, str]:
    """Be an installation of it."""

    def go_back() -> tuple[str, str]:
        loader = MigrationExecutor(connection).loader
        [before] = [node for node in loader.get_migration(*RENAMED).dependencies if node[0] == RENAMED[0]]
        go_to(before)
        return before

    app_label, name = earlier("version-before-throttles", go_back)
    return app_label, name


def model(node: tuple[str, str], name: str) -> Any:
    """As the code of a version has it."""
    return MigrationExecutor(connection).loader.project_state(node).apps.get_model("iotsupport", name)


def test_what_was_done_before_the_update_is_not_done_again_after_it(version_before):
    model(version_before, "Turn").objects.create(name=NAME, next_at=timezone.now() + EVERY)

    go_to_today("iotsupport")

    assert Throttle.objects.get().name == NAME
    assert tidy() is None


def test_who_goes_back_to_the_version_before_finds_what_was_done_since(version_before):
    go_to_today("iotsupport")
    assert Throttle.objects.take(NAME, EVERY)

    go_to(version_before)

    turn = model(version_before, "Turn").objects.get()
    assert turn.next_at > timezone.now() + timedelta(hours=23)


def test_the_version_before_goes_on_beside_the_new_one(version_before):
    """Of several nodes, one is updated after the other: for both it is the same table."""
    go_to_today("iotsupport")

    model(version_before, "Turn").objects.create(name=NAME, next_at=timezone.now() + EVERY)

    assert tidy() is None


def test_no_statement_changes_the_table(version_before):
    migration = MigrationExecutor(connection).loader.get_migration(*RENAMED)
    state = MigrationExecutor(connection).loader.project_state(version_before)

    with connection.schema_editor(atomic=False) as editor, CaptureQueriesContext(connection) as asked:
        migration.apply(state, editor)

    assert [query["sql"] for query in asked] == []


def test_of_what_has_no_pages_nobody_is_offered_a_permission_but_the_one_that_belongs_to_no_row():
    call_command("migrate", verbosity=0)

    throttles = ContentType.objects.get_for_model(Throttle)
    [only] = Permission.objects.filter(content_type=throttles)
    assert (only.codename, only.name) == ("view_server_state", "Can view the state of this server")


def test_the_version_before_uploads_beside_the_new_one():
    """It knows nothing of what an image says of itself."""
    state = MigrationExecutor(connection).loader.project_state(("assets", "0004_order_of_versions"))
    said = {"filename": "firmware.bin", "size": 3, "sha256": "a" * 64, "md5": "b" * 32, "uploaded_at": timezone.now()}

    asset = state.apps.get_model("assets", "Asset").objects.create(**said)
    version = {**said, "id": asset.pk, "history_date": timezone.now(), "history_type": "+"}
    state.apps.get_model("assets", "HistoricalAsset").objects.create(**version)

    asset, version = Asset.objects.get(), Asset.history.get()
    assert (asset.image, asset.warnings, asset.unchanged_where_running) == (None, [], False)
    assert (version.chip, version.warnings, version.unchanged_where_running) == ("", [], False)

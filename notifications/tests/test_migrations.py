"""An installation that had its outbox under the name of earlier versions keeps what is in it, and who may see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command

from devices.models import DeviceConfig
from notifications.messages import CONFIGS_TOPIC
from notifications.models import Announcement
from notifications.tests.conftest import save_config, wait_until_announced

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("own_database")]


BEFORE = "0002_names_of_assets"


@pytest.fixture
def version_before(earlier: Callable[..., dict[str, int]]) -> dict[str, int]:
    """Be an installation of it, with users and something to announce; return its permissions by their codenames."""

    def leave_as_before() -> dict[str, int]:
        call_command("migrate", "notifications", BEFORE, verbosity=0)
        group = Group.objects.create(name="Operators")
        group.permissions.set(granted("view_debt", "change_debt"))
        member, user = User.objects.create(username="member"), User.objects.create(username="user")
        member.groups.add(group)
        user.user_permissions.set(granted("view_debt"))
        config = save_config(1)
        # The table is the same: as the version before records it.
        Announcement.objects.record(CONFIGS_TOPIC, config.filename, is_bulk=False)
        return dict(Permission.objects.filter(codename__contains="debt").values_list("codename", "pk"))

    return earlier("announcements-before", leave_as_before)


@pytest.fixture
def before_update(earlier: Callable[..., dict[str, int]], request: pytest.FixtureRequest) -> dict[str, int]:
    """Be what becomes of it; return the permissions that there were."""

    def leave_updated() -> dict[str, int]:
        before: dict[str, int] = request.getfixturevalue("version_before")
        update()
        return before

    return earlier("announcements-updated", leave_updated)


def update() -> None:
    call_command("migrate", "notifications", verbosity=0)


def granted(*codenames: str) -> list[Permission]:
    return list(Permission.objects.filter(content_type__app_label="notifications", codename__in=codenames))


def test_who_could_see_and_announce_still_can(before_update):
    after = dict(Permission.objects.filter(codename__endswith="_announcement").values_list("codename", "pk"))
    assert after == {codename.replace("debt", "announcement"): pk for codename, pk in before_update.items()}
    assert len(after) == 4
    assert not Permission.objects.filter(codename__contains="debt").exists()
    assert not ContentType.objects.filter(model="debt").exists()
    both = {"notifications.view_announcement", "notifications.change_announcement"}
    assert User.objects.get(username="member").get_all_permissions() == both
    assert User.objects.get(username="user").get_all_permissions() == {"notifications.view_announcement"}


@pytest.mark.usefixtures("version_before")
def test_who_could_still_can_although_there_are_permissions_of_the_new_name():
    """As where the version after was there already, and somebody went back to the one before without its migrations."""
    other = User.objects.create(username="other")
    new = ContentType.objects.create(app_label="notifications", model="announcement")
    other.user_permissions.add(Permission.objects.create(content_type=new, codename="view_announcement", name="new"))

    update()

    for username in ["user", "other"]:
        assert User.objects.get(username=username).get_all_permissions() == {"notifications.view_announcement"}
    assert not Permission.objects.filter(codename__contains="debt").exists()
    assert set(Permission.objects.filter(codename="view_announcement").values_list("content_type", flat=True)) == {
        new.pk
    }


@pytest.mark.usefixtures("before_update")
def test_who_is_granted_it_after_the_update_is_back_where_it_was_before():
    new = User.objects.create(username="new")
    new.user_permissions.set(granted("view_announcement"))

    call_command("migrate", "notifications", BEFORE, verbosity=0)

    assert User.objects.get(username="new").get_all_permissions() == {"notifications.view_debt"}


@pytest.mark.usefixtures("before_update")
def test_what_was_owed_before_is_announced_after(scripted_broker, start):
    start(scripted_broker.url)
    wait_until_announced()

    assert scripted_broker.heard == [DeviceConfig.objects.get().filename]

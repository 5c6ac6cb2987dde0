"""The rows of the admin's lists are made in our own way, and are what Django would have made."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_token
from notifications.models import Announcement

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

HOSTILE = "<b title=\"&quot;\">'{}' %s {0} \N{SNOWMAN}</b>"

ROWS: list[Model] = [
    DeviceConfig(pk=1234567, mac_address="aa-bb-cc-dd-ee-ff", device_name=HOSTILE),
    Asset(pk=1, filename=HOSTILE),
    Announcement(pk=2, filename=HOSTILE),
    User(pk=3, username=HOSTILE),
    ApiToken(pk=4, hint="iot_<>&", user=User(pk=3, username=HOSTILE)),
]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)


def list_of(model: type[Model], user: User, path: str = "/") -> ChangeList:
    request: HttpRequest = RequestFactory().get(path)
    request.user = user
    return admin.site.get_model_admin(model).get_changelist_instance(request)


@every_row
def test_a_row_is_chosen_by_the_checkbox_that_django_makes(row: Model) -> None:
    model_admin = admin.site.get_model_admin(type(row))

    checkbox = model_admin.action_checkbox(row)

    assert str(checkbox) == str(admin.ModelAdmin.action_checkbox(model_admin, row))
    assert HOSTILE not in checkbox


@every_row
def test_a_row_is_edited_where_django_says(row: Model, administrator: User) -> None:
    listed = list_of(type(row), administrator)
    others = [type(row)(pk=pk) for pk in [1, 12, 123, 9_999_999]]

    urls = [listed.url_for_result(each) for each in [row, *others]]

    assert urls == [ChangeList.url_for_result(listed, each) for each in [row, *others]]


def test_a_key_that_is_text_is_quoted(administrator: User) -> None:
    listed = list_of(User, administrator)
    listed.url_for_result(User(pk=1))
    row = User(pk="a/b_c?d")

    assert listed.url_for_result(row) == ChangeList.url_for_result(listed, row)


def test_a_row_leads_to_its_form_and_back_to_the_same_filter(administrator: User, signed_in: Client) -> None:
    config = DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", '{"deviceName": "Lamp"}', user=administrator)
    url = f"{reverse('admin:devices_deviceconfig_changelist')}{config.pk}/change/?_changelist_filters=q%3Dlamp"

    page = signed_in.get(reverse("admin:devices_deviceconfig_changelist"), {"q": "lamp"}).content.decode()

    assert f'<th class="field-device"><a href="{url}">Lamp <span class="second mono">aa-bb-cc-dd-ee-ff</span>' in page
    assert signed_in.get(url).status_code == 200


def test_what_is_empty_is_shown_as_django_shows_it(administrator: User, signed_in: Client) -> None:
    make_token(administrator)

    page = signed_in.get(reverse("admin:iotsupport_apitoken_changelist")).content.decode()

    assert '<td class="field-last_used_at">-</td>' in page

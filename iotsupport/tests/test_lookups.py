"""Lists take from their address what their filters and searches offer, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from axes.admin import AccessAttemptAdmin
from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.test import Client, RequestFactory
from django.urls import reverse

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.models import ApiToken
from iotsupport.tests.support.api_client import make_token, make_user, session_client
from iotsupport.tests.support.page_walk import Page, view_permission

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

# Of any field: filters compare with a value each, and a search has one field for all.
NEVER_OFFERED = ["", "__regex"]
# A filter of all values that there are compares with the field as it is; another one is called as its field.
OFFERED: dict[type[Model], set[str]] = {Asset: {"chip"}, ApiToken: {"may"}, DeviceConfig: {"fits", "type"}}

every_list = pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model.__name__)

USERS = "/admin/auth/user/"


def list_url(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def viewer_of(model: type[Model]) -> Client:
    """Somebody who may look at this list, and do nothing else."""
    return session_client(make_user(view_permission(model), is_staff=True))


def listed(response: Any) -> list[str]:
    assert response.status_code == 200
    return [str(row) for row in response.context_data["cl"].result_list]


@every_list
def test_refuses_what_no_filter_offers(model: type[Model]):
    viewer, url = viewer_of(model), list_url(model)
    fields = [*model._meta.concrete_fields, *model._meta.many_to_many]
    names = {name for field in fields for name in [field.name, field.attname]} | {"pk", "no_such_field"}

    answers = {
        name + lookup: viewer.get(url, {name + lookup: "1"}).status_code for name in names for lookup in NEVER_OFFERED
    }

    assert {lookup for lookup, status in answers.items() if status != 400} == OFFERED.get(model, set())


@pytest.mark.parametrize(
    "lookup", ["icontains", "iregex", "startswith", "in", "range", "isnull", "gt", "year", "length", "regex__regex"]
)
def test_refuses_every_lookup_of_a_text(lookup: str):
    viewer = viewer_of(DeviceConfig)

    assert viewer.get(list_url(DeviceConfig), {f"content__{lookup}": "1"}).status_code == 400


@pytest.mark.both_databases
@every_list
def test_takes_all_that_its_filters_offer(model: type[Model], administrator: User):
    DeviceConfig.objects.put("aa-bb-cc-dd-ee-ff", '{"enableOTA": true}', user=administrator)
    make_token(administrator)
    Group.objects.create(name="gardeners")
    client, url = session_client(administrator), list_url(model)
    page = Page(client.get(url, {"_facets": "True"}).content.decode())
    links = [link for link in page.links if link.startswith("?")]

    answers = {link: client.get(url + link).status_code for link in links}

    assert set(answers.values()) <= {200}
    filters = [link for link in links if "__" in link]
    assert bool(filters) == any(isinstance(item, str) for item in admin.site.get_model_admin(model).list_filter)


@pytest.mark.both_databases
@every_list
def test_says_that_a_search_has_too_many_words(model: type[Model]):
    viewer, url = viewer_of(model), list_url(model)

    answers: list[Any] = [viewer.get(url, {"q": "a " * words}) for words in [100, 1900]]

    assert [answer.status_code for answer in answers] == [200, 200]
    said = [[str(message) for message in answer.context["messages"]] for answer in answers]
    assert said == [[], ["Search for at most 100 words. All rows are shown."]]


def test_says_what_to_do_instead():
    page = viewer_of(DeviceConfig).get(list_url(DeviceConfig), {"content__regex": "^(([ -~])+)+~~$"})

    assert page.status_code == 400
    assert "Go back, and use the links, filters and buttons of the page." in page.content.decode()


@pytest.mark.both_databases
def test_a_pop_up_lists_what_its_field_is_limited_to(administrator: User, monkeypatch: pytest.MonkeyPatch):
    make_user(username="maria")
    limits = {"username__startswith": "m", "is_active": True}
    field = ApiToken._meta.get_field("user").remote_field
    monkeypatch.setattr(field, "limit_choices_to", limits)
    monkeypatch.setattr(User._meta, "related_fkey_lookups", [lambda: limits])
    widget = ForeignKeyRawIdWidget(field, admin.site)
    client = session_client(administrator)

    url = widget.get_context("user", None, {"id": "id_user"})["related_url"]

    assert "username__startswith=m" in url
    assert listed(client.get(f"{url}&_popup=1")) == ["maria"]
    assert client.get(f"{USERS}?_popup=1&username__startswith=a").status_code == 400


@pytest.mark.both_databases
def test_a_pop_up_without_limits_lists_all(administrator: User):
    assert listed(session_client(administrator).get(f"{USERS}?_to_field=id&_popup=1&q=adm")) == ["admin"]


class TestListsOfOtherApps:
    """As django-axes would register its own, with AXES_ENABLE_ADMIN."""

    def lookups(self, administrator: User, **query: str) -> Any:
        site = type(admin.site._wrapped)("others")  # type: ignore[attr-defined]
        site.register(AccessAttempt, AccessAttemptAdmin)
        request = RequestFactory().get("/", query)
        request.user = administrator
        return site.get_model_admin(AccessAttempt).get_changelist_instance(request)

    @pytest.mark.both_databases
    @pytest.mark.parametrize(
        "query",
        [
            {"locked_out": "yes"},
            {"attempt_time__year": "2026", "attempt_time__month": "11", "attempt_time__day": "3"},
            {"path_info": "/admin/login/"},
        ],
        ids=lambda query: next(iter(query)),
    )
    def test_filters_and_dates_work(self, administrator: User, query: dict[str, str]):
        assert list(self.lookups(administrator, **query).result_list) == []

    @pytest.mark.parametrize("lookup", ["user_agent__regex", "post_data", "attempt_time__date", "attempt_time__month"])
    def test_nothing_else_does(self, administrator: User, lookup: str):
        with pytest.raises(DisallowedModelAdminLookup):
            self.lookups(administrator, **{lookup: "1"})

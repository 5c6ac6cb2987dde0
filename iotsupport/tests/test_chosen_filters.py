"""The filters that are chosen stand above a list, each removable by itself, with no script."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qs

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.editing.chosen_filters import ChosenFilters
from iotsupport.tests.support.images import make_image

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

CONFIGS = "/admin/devices/deviceconfig/"
ASSETS = "/admin/assets/asset/"
ANNOUNCEMENTS = "/admin/notifications/announcement/"
USERS = "/admin/auth/user/"


def chosen(client: Client, url: str) -> dict[str, str]:
    """What stands above the list, and the query string that each leads to."""
    answer = client.get(url)
    assert answer.status_code == 200
    html = answer.text
    found = re.search(r'<ul class="chosen-filters".*?</ul>', html, re.DOTALL)
    links = re.findall(r'<a href="([^"]*)">(.*?)</a>', found.group(), re.DOTALL) if found else []
    return {text_of(text): unescape(query) for query, text in links}


def text_of(html: str) -> str:
    seen = re.sub(
        r'<span class="visually-hidden">Remove the filter</span>|<span aria-hidden="true">.*?</span>', "", html
    )
    return " ".join(unescape(re.sub("<[^>]*>", "", seen)).split())


NOTHING_CHOSEN = [CONFIGS, f"{CONFIGS}?q=lamp&o=1", f"{CONFIGS}?state=", ASSETS, ANNOUNCEMENTS, USERS]


@pytest.mark.parametrize("url", [*NOTHING_CHOSEN, f"{USERS}?is_staff__isnull="])
def test_of_none_that_is_chosen_nothing_is_said(signed_in: Client, url: str):
    assert chosen(signed_in, url) == {}


def test_each_is_removed_by_itself_and_the_rest_stays(signed_in: Client):
    found = chosen(signed_in, f"{CONFIGS}?state=behind&seen=silent&enable_ota__exact=1&q=lamp&o=1&p=1")

    assert list(found) == ["State: Behind", "Last seen: Silent", "OTA updates: Yes"]
    without_seen = parse_qs(found["Last seen: Silent"].removeprefix("?"))
    assert without_seen == {"state": ["behind"], "enable_ota__exact": ["1"], "q": ["lamp"], "o": ["1"]}
    assert list(chosen(signed_in, CONFIGS + found["Last seen: Silent"])) == ["State: Behind", "OTA updates: Yes"]


def test_without_the_filter_the_list_is_whole_again(signed_in: Client):
    DeviceConfig.objects.put("02-00-00-00-00-01", '{"deviceName": "Lamp"}')
    url = f"{CONFIGS}?state=behind"
    assert "Lamp" not in signed_in.get(url).text

    [without] = chosen(signed_in, url).values()

    assert "Lamp" in signed_in.get(CONFIGS + without).text


def test_a_time_that_is_chosen_goes_with_both_of_its_ends(signed_in: Client):
    html = unescape(signed_in.get(f"{CONFIGS}?state=behind").text)
    [query] = re.findall(r'href="([^"]*)">Past 7 days<', html)

    found = chosen(signed_in, CONFIGS + query)

    assert list(found) == ["State: Behind", "Updated at: Past 7 days"]
    assert found["Updated at: Past 7 days"] == "?state=behind"


def test_those_of_every_list_are_told(signed_in: Client, administrator: User):
    Asset.objects.upload("kitchen.bin", [make_image()])

    assert list(chosen(signed_in, f"{ASSETS}?chip=ESP32-C3")) == ["Chip: ESP32-C3"]
    assert chosen(signed_in, f"{ANNOUNCEMENTS}?state=all") == {"State: All": "?"}
    assert list(chosen(signed_in, f"{USERS}?is_staff__exact=1")) == ["Staff status: Yes"]


def test_a_value_that_no_choice_has_is_told_where_it_narrows_the_list(signed_in: Client):
    Asset.objects.upload("kitchen.bin", [make_image()])

    assert chosen(signed_in, f"{ASSETS}?chip=<b>") == {"Chip: <b>": "?"}
    assert "<b>" not in signed_in.get(f"{ASSETS}?chip=<b>").text
    assert chosen(signed_in, f"{CONFIGS}?state=nonsense") == {}


def test_they_cost_no_query_also_where_choices_are_counted(signed_in: Client, monkeypatch: pytest.MonkeyPatch):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert signed_in.get(f"{CONFIGS}?state=behind&enable_ota__exact=1&_facets=True").status_code == 200
        return len(captured)

    told = queries()
    monkeypatch.setattr(ChosenFilters, "chosen_filters", [])

    assert queries() == told

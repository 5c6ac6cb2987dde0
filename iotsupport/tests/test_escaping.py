"""Text of people and boards is data on every page of the admin, whoever looks and whatever they type."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db.models import CharField, Field, TextField
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from django.utils import timezone
from django.utils.html import escape

from assets.models import Asset
from devices.changes.models import Kind
from devices.changes.planning import begin
from devices.models import DeviceConfig, DeviceType
from iotsupport.boards.models import Board
from iotsupport.models import ApiToken
from iotsupport.tests.support import page_walk
from iotsupport.tests.support.api_client import make_user
from iotsupport.tests.support.page_walk import Page, Walk
from notifications.messages import CONFIGS_TOPIC
from notifications.models import Announcement
from notifications.publisher import publisher
from notifications.trouble import Trouble

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("directories")]

TEXT = """<b>x</b>"'><p hidden>"""
# No file name holds a slash.
FILENAME = """"'><p hidden><b>x.bin"""
# What is read by programs, and refused where it has another shape; of no use to an attacker.
SHAPED = {"mac_address", "sha256", "md5", "digest", "password", "action_flag", "patch"}

MAC = "aa-bb-cc-dd-ee-ff"


def hostile(what: str) -> str:
    return f"{what}{TEXT}"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> User:
    """One of everything, in whose every text is HTML. Returns the administrator."""
    monkeypatch.setattr(type(publisher), "is_on", property(lambda self: True))
    trouble = Trouble(hostile("broker"), hostile("advice"))
    monkeypatch.setattr(publisher, "disconnection", lambda: (timezone.now() - timedelta(hours=1), trouble))
    administrator = make_user(
        username=hostile("user"),
        is_staff=True,
        is_superuser=True,
        password="swallows-return",
        first_name=hostile("first"),
        last_name=hostile("last"),
    )
    Group.objects.create(name=hostile("group"))
    token = ApiToken(user=administrator, description=hostile("token"))
    token.generate()
    token.save()
    for name in ["type", "kind"]:
        made = DeviceType(
            name=f"<p hidden>{name}", description=hostile(name), schema=json.dumps({"title": hostile("schema")})
        )
        made.starting_content = json.dumps({"begins": hostile("content")})
        made.save()
    for mac_address in [MAC, "02-00-00-00-00-01"]:
        for name in ["before", "device"]:
            content = json.dumps({"deviceName": hostile(name), "deviceEntityId": hostile("entity")})
            config = DeviceConfig.objects.put(mac_address, content, user=administrator)
            config.history.update(history_change_reason=hostile("reason"))
    for filename in [FILENAME, f"gone{FILENAME}"]:
        for chunk in [b"one", b"two"]:
            asset = Asset.objects.upload(filename, [chunk], user=administrator)
    for deleted in [config, asset]:
        deleted.delete()
    Board.objects.filter(mac_address=MAC).update(
        last_seen=timezone.now(),
        user_agent=hostile("board"),
        runs_version=hostile("runs"),
        runs_filename=hostile("firmware"),
        sdk_version=hostile("sdk"),
    )
    Board.objects.create(
        mac_address="02-00-00-00-00-02", state="waiting", last_seen=timezone.now(), user_agent=hostile("newcomer")
    )
    Announcement.objects.create(
        topic=CONFIGS_TOPIC,
        filename=hostile("owed"),
        owed_since=timezone.now() - timedelta(hours=1),
        last_error=hostile("refused"),
    )
    begin(
        {MAC: None, "02-00-00-00-00-03": None},  # of which there is none
        kind=Kind.PATCH,
        patch=json.dumps({"deviceName": TEXT}),
        reason=hostile("changed"),
        created_by=administrator,
    )
    LogEntry.objects.create(
        user=administrator,
        content_type=ContentType.objects.get_for_model(Group),
        object_id="1",
        object_repr=hostile("logged"),
        action_flag=CHANGE,
        change_message=hostile("done"),
    )
    # Whoever guesses may name anybody.
    for _ in range(2):
        Client(headers={"User-Agent": hostile("agent")}).post("/admin/login/", {"username": hostile("guest")})
    fill_the_rest()
    return administrator


def fill_the_rest() -> None:
    """Write HTML into every other text field of whatever the admin shows, be it made for this test or not."""
    for model in page_walk.registered():
        assert model._base_manager.exists(), f"The pages of {model.__name__} are not walked: make one in 'world'."
        history = page_walk.history_of(model)
        for table in [model, history] if history else [model]:
            for field in table._meta.concrete_fields:
                if is_text(field):
                    for row in table._base_manager.all():
                        fill(row, field)


def is_text(field: Field[Any, Any]) -> bool:
    return isinstance(field, (CharField, TextField)) and not field.choices and field.name not in SHAPED


def fill(row: Any, field: Field[Any, Any]) -> None:
    if "<p hidden>" in str(getattr(row, field.attname)):
        return
    text = f"{row.pk}{TEXT}"[-(field.max_length or 1000) :]
    type(row)._base_manager.filter(pk=row.pk).update(**{field.attname: text})


@cache
def is_ours(attribute: str) -> bool:
    """Whether an attribute is called as those of the pages are. There are few names, on many pages."""
    return re.fullmatch(r"[a-z][a-z0-9:_-]*", attribute) is not None


class Judge:
    """Notes what any page makes of these texts."""

    def __init__(self) -> None:
        self._pages: list[str] = []
        self.troubles: list[str] = []

    def __call__(self, url: str, response: Any, page: Page) -> None:
        self._pages.append(page.html)
        for tag, attributes in page.tags:
            if (tag == "p" and "hidden" in attributes) or tag == "b":
                self.troubles.append(f"{url} has an element of somebody's own: {tag}")
            # What ends an attribute's quotes goes on as other attributes.
            if not all(map(is_ours, attributes)):
                self.troubles.append(f"{url} has attributes of somebody's own: {attributes}")
        # Where a parser does not look for elements, too, such as in scripts.
        if "<p hidden>" in page.html:
            self.troubles.append(f"{url} has somebody's text as it is")
        policy = response.get("Content-Security-Policy", "")
        if not {"form-action 'self'", "base-uri 'self'"} <= {part.strip() for part in policy.split(";")}:
            self.troubles.append(f"{url} has the content security policy {policy!r}")

    def saw(self, text: str) -> bool:
        return self.saw_html(escape(text)) or self.saw_html(json.dumps(text)[1:-1])

    def saw_html(self, html: str) -> bool:
        return any(html in page for page in self._pages)


def walk(user: User | None, urls: list[str], *, once: bool = False) -> tuple[Judge, Walk]:
    judge = Judge()
    client = Client(raise_request_exception=False)
    if user is not None:
        client.force_login(user)
    walk = Walk(client, judge, text=TEXT, filename=FILENAME, once=once)
    walk.start(urls)
    return judge, walk


# Of people, boards, strangers and the broker. What strangers' browsers say, no page shows.
SHOWN = ["user", "first", "group", "token", "device", "before", "entity", "owed", "refused", "broker", "logged"]
SHOWN += ["reason", "board", "runs", "sdk", "firmware", "newcomer", "changed"]


def test_no_page_makes_html_of_what_people_and_boards_write(world: User):
    judge, _ = walk(world, page_walk.addresses())

    assert judge.troubles == []
    assert [what for what in SHOWN if not judge.saw(hostile(what))] == []
    assert judge.saw(FILENAME)
    # The walk goes as far as taking back a deletion.
    assert judge.saw_html("is back, as it was.")


@pytest.mark.postgresql
def test_every_kind_of_page_form_and_order_works_on_postgresql(world: User):
    """What SQLite lets pass, as an order by what is not selected, is an error there."""
    judge, walked = walk(world, page_walk.addresses(rows=2), once=True)
    sorted_lists = [
        walked.client.get(f"{list_url}?{urlencode({'o': order, 'q': 'x', '_facets': 'True'})}")
        for list_url, columns in page_walk.lists()
        for order in [columns, f"-{columns.replace('.', '.-')}"]
    ]

    assert judge.troubles == []
    assert judge.saw_html("is back, as it was.")
    assert {answer.status_code for answer in sorted_lists} == {200}


def test_nor_for_those_who_may_only_look(world: User):
    permissions = {page_walk.view_permission(model) for model in page_walk.registered()}
    viewer = make_user(*permissions, username="viewer", is_staff=True)

    judge, _ = walk(viewer, page_walk.addresses())

    assert judge.troubles == []
    # Tokens of others are not theirs to see.
    assert [what for what in SHOWN if not judge.saw(hostile(what))] == ["token"]


def test_nor_of_what_stands_in_an_address(signed_in: Client):
    queries = ["q", "p", "o", "_popup", "_to_field", "_changelist_filters", "state"]
    lists = ["/admin/", *[url for url, _ in page_walk.lists()]]
    asked = [f"{url}?{urlencode({query: TEXT})}" for url in lists for query in queries]
    judge = Judge()

    for url in [*asked, *[f"{url}{quote(TEXT)}/" for url in lists]]:
        response: Any = signed_in.get(url)
        if response["Content-Type"].startswith("text/html"):
            judge(url, response, Page(response.content.decode()))

    assert judge.troubles == []
    assert judge.saw(TEXT)


def test_nor_for_strangers(settings: Any):
    judge, walked = walk(None, [f"/admin/login/?{urlencode({'next': f'/admin/{TEXT}'})}", f"/admin/{quote(TEXT)}/"])
    for _ in range(settings.AXES_FAILURE_LIMIT + 1):
        refused: Any = walked.client.post("/admin/login/", {"username": hostile("guest"), "password": "wrong"})
    judge("locked out", refused, Page(refused.content.decode()))

    assert refused.status_code == 429
    assert judge.troubles == []


def test_a_new_page_is_walked_by_itself(world: User, settings: Any, monkeypatch: pytest.MonkeyPatch):
    groups = admin.site.get_model_admin(Group)
    page = path("<path:object_id>/new/", lambda request, object_id: HttpResponse(TEXT), name="auth_group_new")
    known = groups.get_urls()
    monkeypatch.setattr(groups, "get_urls", lambda: [page, *known])
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls),)
    url = f"/admin/auth/group/{Group.objects.get().pk}/new/"

    judge = Judge()
    Walk(Client(), judge, text=TEXT, filename=FILENAME).start([url])

    assert url in page_walk.addresses()
    assert f"{url} has an element of somebody's own: p" in judge.troubles
    assert f"{url} has somebody's text as it is" in judge.troubles

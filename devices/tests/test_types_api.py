"""Types by the API, and what it says of a configuration's type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from devices.models import DeviceConfig, DeviceType
from devices.tests.types import DOES_NOT, FITS, MAC, SCHEMA, STRICTER, WHY, make_config, make_type

pytestmark = pytest.mark.usefixtures("transactional_db")


def put(client: Client, path: str, body: Any) -> Any:
    content = body if isinstance(body, str) else json.dumps(body)
    return client.put(path, content, content_type="application/json")


class TestAConfiguration:
    def test_that_does_not_fit_is_refused_and_all_is_said(self, script: Client) -> None:
        make_config(make_type())

        response = put(script, f"/configs/{MAC}.json", DOES_NOT)

        assert response.status_code == 400
        answer = response.json()
        assert answer["code"] == "DOES_NOT_FIT"
        assert answer["error"] == f"This does not fit the type “gate”. {WHY}"
        assert answer["details"]["errors"] == [
            {"line": 2, "column": 10, "path": "pin", "message": "must be one of 1, 2, 4; is 3"}
        ]
        assert DeviceConfig.objects.get().content == FITS

    def test_gets_its_type_with_its_content(self, script: Client) -> None:
        make_type()

        answer = put(script, f"/configs/{MAC}", {"content": {"pin": 1}, "type": "GATE"}).json()

        assert (answer["type"], answer["fits"]) == ("gate", True)
        assert script.get(f"/configs/{MAC}").json() == answer
        assert script.get("/configs").json()["configs"][0]["type"] == "gate"

    def test_keeps_its_type_unless_told_otherwise(self, script: Client) -> None:
        make_config(make_type())

        assert put(script, f"/configs/{MAC}", {"content": {"pin": 1}}).json()["type"] == "gate"
        answer = put(script, f"/configs/{MAC}", {"content": {"pin": 9}, "type": None}).json()

        assert (answer["type"], answer["fits"]) == (None, None)

    def test_is_saved_although_it_does_not_fit_where_that_is_said(self, script: Client) -> None:
        make_config(make_type())

        answer = put(script, f"/configs/{MAC}", {"content": {"pin": 3}, "although_it_does_not_fit": True}).json()

        assert (answer["content"], answer["fits"]) == ({"pin": 3}, False)

    @pytest.mark.parametrize(
        ("member", "code"),
        [
            ({"type": "door"}, "UNKNOWN_TYPE"),
            ({"type": 5}, "INVALID_BODY"),
            ({"although_it_does_not_fit": "yes"}, "INVALID_BODY"),
            ({"kind": "gate"}, "INVALID_BODY"),
        ],
    )
    def test_is_refused_for_a_member_that_cannot_be(self, script: Client, member: dict[str, Any], code: str) -> None:
        response = put(script, f"/configs/{MAC}", {"content": {}, **member})

        assert (response.status_code, response.json()["code"]) == (400, code)


def test_boards_are_listed_by_their_type(script: Client) -> None:
    make_config(make_type())
    make_config(None, mac_address="aa-bb-cc-dd-ee-02")

    assert [board["mac_address"] for board in script.get("/devices?type=Gate").json()["devices"]] == [MAC]
    assert script.get("/devices?type=door").json()["code"] == "UNKNOWN_TYPE"


class TestAType:
    def test_is_put_listed_shown_and_deleted(self, script: Client) -> None:
        body = f'{{"schema": {SCHEMA}, "description": "At the road", "starting_content": {json.dumps(FITS)}}}'

        response = put(script, "/types/kitchen%20light", body)

        assert response.status_code == 200
        assert SCHEMA.strip() in response.text  # as it was typed
        answer = response.json()
        assert answer == {
            "name": "kitchen light",
            "description": "At the road",
            "schema": json.loads(SCHEMA),
            "starting_content": FITS,
            "configs": 0,
            "do_not_fit": 0,
            "is_being_marked": False,
        }
        assert script.get("/types/Kitchen%20Light").json() == answer
        assert script.get("/types").json() == {"types": [answer], "count": 1}
        assert script.delete("/types/kitchen%20light").status_code == 204
        assert script.get("/types/kitchen%20light").status_code == 404

    def test_that_is_replaced_marks_what_does_not_fit_any_more(self, script: Client) -> None:
        make_config(make_type())

        answer = put(script, "/types/gate", f'{{"schema": {STRICTER}, "name": "Gate"}}').json()

        assert (answer["name"], answer["configs"], answer["do_not_fit"]) == ("Gate", 1, 1)
        assert DeviceConfig.objects.get().fits is False

    def test_keeps_why_it_was_changed(self, script: Client) -> None:
        make_type()
        headers = {"X-Change-Reason": "New pins"}

        script.put("/types/gate", '{"schema": {}}', content_type="application/json", headers=headers)

        assert DeviceType.history.first().history_change_reason == "New pins"

    def test_is_changed_only_as_it_was_read(self, script: Client) -> None:
        make_type()
        etag = script.get("/types/gate")["ETag"]

        changed = script.put(
            "/types/gate", '{"schema": {}}', content_type="application/json", headers={"If-Match": etag}
        )
        again = script.put("/types/gate", '{"schema": {}}', content_type="application/json", headers={"If-Match": etag})

        assert (changed.status_code, again.status_code) == (200, 412)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ('{"schema": {"type": 5}}', "INVALID_SCHEMA"),
            ('{"schema": {"$ref": "https://example.com"}}', "INVALID_SCHEMA"),
            ('{"schema": 5}', "NOT_AN_OBJECT"),
            (f'{{"schema": {SCHEMA}, "starting_content": {json.dumps(DOES_NOT)}}}', "DOES_NOT_FIT"),
            (f'{{"schema": {SCHEMA}, "name": "door"}}', "INVALID_BODY"),
            (f'{{"schema": {SCHEMA}, "description": 5}}', "INVALID_BODY"),
            ("{}", "INVALID_BODY"),
        ],
    )
    def test_is_refused_with_a_reason(self, script: Client, body: str, code: str) -> None:
        response = put(script, "/types/gate", body)

        assert (response.status_code, response.json()["code"]) == (400, code)
        assert not DeviceType.objects.exists()

    def test_that_configurations_have_is_not_deleted(self, script: Client) -> None:
        make_config(make_type())

        response = script.delete("/types/gate")

        assert response.status_code == 409
        assert response.json()["error"].startswith("1 configuration has the type “gate”.")

    @pytest.mark.parametrize(
        ("method", "path", "permission"),
        [
            ("get", "/types", "view"),
            ("get", "/types/gate", "view"),
            ("put", "/types/gate", "change"),
            ("put", "/types/door", "add"),
            ("delete", "/types/gate", "delete"),
        ],
    )
    def test_needs_a_permission(self, client: Client, method: str, path: str, permission: str) -> None:
        make_type()
        user = User.objects.create_user("bob", password="x")
        client.force_login(user)
        client.handler.enforce_csrf_checks = False
        body = {"data": '{"schema": {}}', "content_type": "application/json"} if method == "put" else {}

        refused = getattr(client, method)(path, **body)
        user.user_permissions.add(Permission.objects.get(codename=f"{permission}_devicetype"))
        done = getattr(client, method)(path, **body)

        assert refused.status_code == 403
        assert done.status_code < 300

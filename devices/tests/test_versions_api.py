"""The versions of a configuration through the API: numbered, shown as they were typed, and saved anew."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from devices.models import DeviceConfig, DeviceType
from devices.versions_api import PAGE_ROWS
from iotsupport.tests.support.api_client import counted, make_user, nothing_changed, read, refusal, token_client

pytestmark = pytest.mark.usefixtures("transactional_db", "directories")

MAC = "aa-bb-cc-dd-ee-ff"
VERSIONS = f"/configs/{MAC}/versions"
VERBATIM = '{ "z": 1.0,\r\n\t"a":1e3 }'


@pytest.fixture
def script() -> Client:
    permissions = [f"devices.{action}_deviceconfig" for action in ["view", "add", "change", "delete"]]
    return token_client(make_user(*permissions))


def put(client: Client, content: str, **headers: str) -> Any:
    return client.put(f"/configs/{MAC}.json", content, "application/json", headers=headers)


def versions(client: Client) -> list[dict[str, Any]]:
    return json.loads(read(client.get(VERSIONS)).body)["versions"]


@pytest.mark.both_databases
def test_are_listed_newest_first_with_who_and_why(script: Client):
    DeviceConfig.objects.put(MAC, "{}")
    put(script, VERBATIM, X_Change_Reason="quicker while we test")
    script.delete(f"/configs/{MAC}", headers={"X-Change-Reason": "broken"})

    listed = versions(script)

    sha256 = hashlib.sha256(VERBATIM.encode()).hexdigest()
    assert [{key: value for key, value in version.items() if key != "saved_at"} for version in listed] == [
        {"number": 3, "by": "ci", "way": "api", "reason": "broken", "sha256": sha256, "deleted": True},
        {"number": 2, "by": "ci", "way": "api", "reason": "quicker while we test", "sha256": sha256, "deleted": False},
        {
            "number": 1,
            "by": None,
            "way": "command",
            "reason": None,
            "sha256": hashlib.sha256(b"{}").hexdigest(),
            "deleted": False,
        },
    ]
    assert all(version["saved_at"].endswith("Z") for version in listed)


def test_one_shows_its_text_as_it_was_typed(script: Client):
    put(script, VERBATIM)
    put(script, '{"other": 1}')

    answer = script.get(f"{VERSIONS}/1")

    assert f'"content": {VERBATIM}}}' in answer.text
    assert answer.json()["number"] == 1


@pytest.mark.both_databases
def test_have_one_numbering_under_one_address_whatever_was_deleted_in_between(script: Client):
    put(script, '{"n": 1}')
    script.delete(f"/configs/{MAC}")
    put(script, '{"n": 3}')
    DeviceConfig.objects.put("02-00-00-00-00-01", "{}")

    assert [version["number"] for version in versions(script)] == [3, 2, 1]
    assert script.get(f"/configs/{MAC.upper().replace('-', ':')}/versions/3").json()["content"] == {"n": 3}


@pytest.mark.both_databases
def test_are_streamed_where_there_are_many(script: Client):
    count = PAGE_ROWS * 2 + 1
    for number in range(count):
        DeviceConfig.objects.put(MAC, f'{{"n": {number}}}')

    with CaptureQueriesContext(connection) as queries:
        listed = versions(script)

    assert [version["number"] for version in listed] == list(range(count, 0, -1))
    assert sum("historicaldeviceconfig" in query["sql"] for query in queries) <= 6


@pytest.mark.both_databases
def test_one_is_saved_anew_as_by_put(script: Client):
    put(script, VERBATIM)
    put(script, '{"other": 1}')

    with counted("iot_config_operations_total", operation="save", status="success"):
        answer = script.post(f"{VERSIONS}/1/restore")

    config = DeviceConfig.objects.get()
    assert (answer.status_code, answer["ETag"]) == (200, config.etag)
    assert f'"content": {VERBATIM}}}' in answer.text
    assert (config.content, config.updated_by.username) == (VERBATIM, "ci")  # type: ignore[union-attr]
    assert config.is_mirrored()
    assert versions(script)[0]["reason"] == "Restored from version 1"


@pytest.mark.both_databases
def test_what_was_deleted_is_brought_back_where_it_was(script: Client):
    put(script, VERBATIM)
    pk = DeviceConfig.objects.get().pk
    script.delete(f"/configs/{MAC}")

    answer = script.post(f"{VERSIONS}/2/restore", headers={"X-Change-Reason": "needed after all"})

    assert answer.status_code == 200
    assert (DeviceConfig.objects.get().pk, DeviceConfig.objects.get().content) == (pk, VERBATIM)
    assert versions(script)[0]["reason"] == "needed after all"


@pytest.mark.both_databases
def test_restoring_obeys_conditions(script: Client):
    put(script, '{"n": 1}')
    put(script, '{"n": 2}')

    with nothing_changed():
        answer = script.post(f"{VERSIONS}/1/restore", headers={"If-Match": '"another"'})

    assert refusal(answer) == (412, "PRECONDITION_FAILED")


def test_restoring_refuses_what_is_too_large_now(script: Client, settings: Any):
    put(script, VERBATIM)
    put(script, "{}")
    settings.CONFIG_MAX_BYTES = 10

    with nothing_changed():
        answer = script.post(f"{VERSIONS}/1/restore")

    assert refusal(answer) == (413, "TOO_LARGE")


def test_restoring_refuses_what_does_not_fit_its_type_any_more(script: Client):
    put(script, VERBATIM)
    put(script, "{}")
    strict = DeviceType.objects.create(name="Strict", folded="strict", schema='{"maxProperties": 0}')
    DeviceConfig.objects.update(type=strict)

    with nothing_changed():
        answer = script.post(f"{VERSIONS}/1/restore")

    assert refusal(answer) == (400, "DOES_NOT_FIT")
    (error,) = json.loads(read(answer).body)["details"]["errors"]
    assert (error["line"], error["column"]) == (1, 1)


@pytest.mark.parametrize("number", ["0", "3", "-1", "x", "1.0", "²", "9" * 30, "01x", "%00"])
def test_what_is_no_number_of_a_version_is_refused(script: Client, number: str):
    put(script, "{}")
    put(script, '{"n": 2}')

    with nothing_changed():
        answers = [script.get(f"{VERSIONS}/{number}"), script.post(f"{VERSIONS}/{number}/restore")]

    assert [refusal(answer) for answer in answers] == [(404, "NOT_FOUND")] * 2
    assert answers[0].json()["error"] == f"There is no such version of {MAC}. It has the versions 1 to 2."


def test_what_never_was_has_none(script: Client):
    assert refusal(script.get(VERSIONS)) == (404, "NOT_FOUND")
    assert refusal(script.get("/configs/kitchen/versions")) == (400, "INVALID_MAC_ADDRESS")


@pytest.mark.parametrize(
    "allowed, is_there, status",
    [
        (["view"], True, 403),
        (["change"], True, 200),
        (["change"], False, 403),
        (["add"], False, 200),
        (["add"], True, 403),
    ],
)
def test_restoring_needs_the_permission_to_change_or_to_add(allowed: list[str], is_there: bool, status: int):
    config = DeviceConfig.objects.put(MAC, "{}")
    if not is_there:
        config.delete()
    somebody = token_client(make_user(*[f"devices.{action}_deviceconfig" for action in allowed]))

    assert somebody.post(f"{VERSIONS}/1/restore").status_code == status
    assert somebody.get(VERSIONS).status_code == (200 if "view" in allowed else 403)


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize(
    "sent, kept",
    [
        ("  quicker  ", "quicker"),
        ("w\u00e4rmer \u2192 40 %".encode().decode("latin-1"), "w\u00e4rmer \u2192 40 %"),
        (quote("w\u00e4rmer \u2192 40 %"), "w\u00e4rmer \u2192 40 %"),
        ("", None),
    ],
)
def test_the_header_gives_a_reason(script: Client, sent: str, kept: str | None):
    put(script, "{}", X_Change_Reason=sent)

    assert versions(script)[0]["reason"] == kept


@pytest.mark.parametrize("sent", ["x" * 501, "a%0Ab", "%E2%80%AEab", "\xff", quote("a\u2028b")])
def test_a_reason_that_no_list_can_show_is_refused(script: Client, sent: str):
    put(script, "{}")

    with nothing_changed():
        answers = [
            put(script, '{"n": 2}', X_Change_Reason=sent),
            script.delete(f"/configs/{MAC}", headers={"X-Change-Reason": sent}),
            script.post(f"{VERSIONS}/1/restore", headers={"X-Change-Reason": sent}),
        ]

    assert [refusal(answer) for answer in answers] == [(400, "INVALID_REASON")] * 3


def test_the_wrapping_object_gives_a_reason(script: Client):
    body = {"content": {"n": 1}, "reason": "\U0001f600" * 500}

    answer = script.put(f"/configs/{MAC}", body, "application/json", headers={"X-Change-Reason": "another"})

    assert answer.status_code == 200
    assert versions(script)[0]["reason"] == "\U0001f600" * 500


@pytest.mark.parametrize("reason, code", [(1, "INVALID_BODY"), (None, "INVALID_BODY"), ("a\nb", "INVALID_REASON")])
def test_a_reason_in_the_wrapping_object_is_a_line_of_text(script: Client, reason: Any, code: str):
    with nothing_changed():
        answer = script.put(f"/configs/{MAC}", {"content": {}, "reason": reason}, "application/json")

    assert refusal(answer) == (400, code)

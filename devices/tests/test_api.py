"""Configurations through the API: what scripts rely on, and what they are refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, connection
from django.test import Client

from devices import api
from devices.limits import WRAPPING_MAX_BYTES
from devices.models import DeviceConfig
from iotsupport.tests.support.api_client import (
    Download,
    counted,
    failing_statements,
    make_administrator,
    make_user,
    metric,
    nothing_changed,
    read,
    refusal,
    session_client,
    token_client,
)

pytestmark = pytest.mark.usefixtures("transactional_db")

# Most of what is refused is refused before any statement: of each kind that is not, one runs on both databases.
both_databases = pytest.mark.both_databases

MAC = "aa-bb-cc-dd-ee-ff"
CONTENT = '{"deviceName": "Lamp", "deviceEntityId": "light.lamp", "enableOTA": true}'
SHOWN = {
    "mac_address": MAC,
    "device_name": "Lamp",
    "device_entity_id": "light.lamp",
    "enable_ota": True,
    "type": None,
    "fits": None,
    "content": {"deviceName": "Lamp", "deviceEntityId": "light.lamp", "enableOTA": True},
}
# Numbers, key order and white space that a parser would not write again as they are.
VERBATIM = '{ "z": 1.0,\r\n\t"a":1e3 , "n": 12345678901234567890, "t": "\\u00e9é\\/",  "": [ ] , "m":-0.0}'


@pytest.fixture
def saved() -> DeviceConfig:
    return save()


def save(mac_address: str = MAC, content: str = CONTENT) -> DeviceConfig:
    return DeviceConfig.objects.put(mac_address, content)


def put(caller: Client, path: str, body: str | bytes, content_type: str = "application/json", **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller.put(path, body, content_type=content_type, headers=names)


def wrapped(content: str, **members: Any) -> str:
    others = "".join(f', "{name}": {json.dumps(value)}' for name, value in members.items())
    return f'{{"content": {content}{others}}}'


def download(path: str = f"/configs/{MAC}.json", **headers: str) -> Download:
    return read(Client().get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}))


def downloaded() -> bytes:
    return download().body


class TestListing:
    @both_databases(once=True)
    def test_is_empty_at_first(self, caller, root):
        response = caller.get(f"{root}/configs")

        assert (response.status_code, response.json()) == (200, {"configs": [], "count": 0})
        assert response["Content-Type"] == "application/json"

    @both_databases
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
    def test_names_all_of_them_page_by_page(self, script, monkeypatch, count):
        monkeypatch.setattr(api, "PAGE_ROWS", 2)
        for number in reversed(range(count)):
            DeviceConfig.objects.put(f"aa-bb-cc-dd-ee-{number:02x}", f'{{"deviceName": "lamp {number}"}}')

        answer = json.loads(script.get("/configs").getvalue())

        assert [config["device_name"] for config in answer["configs"]] == [f"lamp {number}" for number in range(count)]
        assert list(answer["configs"][0]) == [name for name in SHOWN if name != "content"]
        assert answer["count"] == count

    @both_databases
    def test_keeps_no_transaction_open_while_it_is_read(self, script, monkeypatch):
        monkeypatch.setattr(api, "PAGE_ROWS", 2)
        for number in range(5):
            DeviceConfig.objects.put(f"aa-bb-cc-dd-ee-{number:02x}", "{}")

        parts = iter(script.get("/configs"))
        begun = [next(parts), next(parts)]
        DeviceConfig.objects.get(mac_address="aa-bb-cc-dd-ee-04").delete()

        assert json.loads(b"".join([*begun, *parts]))["count"] == 4

    @both_databases(once=True)
    def test_names_every_configuration_by_mac_address(self, caller, root):
        save("ff-ff-ff-ff-ff-ff", "{}")
        save()

        response = caller.get(f"{root}/configs")

        nothing = dict.fromkeys(["device_name", "device_entity_id", "enable_ota", "type", "fits"])
        first = {key: value for key, value in SHOWN.items() if key != "content"}
        assert response.json() == {"configs": [first, {"mac_address": "ff-ff-ff-ff-ff-ff", **nothing}], "count": 2}


class TestShowingOne:
    @both_databases(once=True)
    def test_answers_what_was_read_from_it_and_all_of_it(self, caller, root, saved):
        response = caller.get(f"{root}/configs/{MAC}")

        assert (response.status_code, response.json()) == (200, SHOWN)
        assert list(response.json()) == list(SHOWN)

    def test_has_the_etag_of_the_download(self, caller, root, saved):
        response = caller.get(f"{root}/configs/{MAC}")

        assert response["ETag"] == download().response["ETag"] == f'"{hashlib.sha256(CONTENT.encode()).hexdigest()}"'

    def test_is_404_where_there_is_none(self, caller, root):
        assert refusal(caller.get(f"{root}/configs/{MAC}")) == (404, "NOT_FOUND")

    @both_databases(once=True)
    @pytest.mark.parametrize(
        ("content", "shown"),
        [
            ("{}", [None, None, None]),
            ('{"deviceName": 1, "deviceEntityId": [], "enableOTA": 1}', [None, None, None]),
            ('{"deviceName": null, "deviceEntityId": {}, "enableOTA": "true"}', [None, None, None]),
            ('{"deviceName": "", "deviceEntityId": "é", "enableOTA": false}', ["", "é", False]),
            ('{"devicename": "x", "a": {"deviceName": "x"}}', [None, None, None]),
        ],
    )
    def test_answers_null_for_what_is_no_string_or_boolean(self, script, content, shown):
        save(content=content)

        answer = script.get(f"/configs/{MAC}").json()

        assert [answer[name] for name in ["device_name", "device_entity_id", "enable_ota"]] == shown


class TestMACAddresses:
    @pytest.mark.parametrize(
        "spelling",
        ["AA-BB-CC-DD-EE-FF", "aa:bb:cc:dd:ee:ff", "aabbccddeeff", "AaBbCcDdEeFf", "aa%3Abb%3Acc%3Add%3Aee%3Aff"],
    )
    def test_may_be_spelled_in_any_usual_way(self, script, root, spelling):
        assert put(script, f"{root}/configs/{spelling}", wrapped(CONTENT)).json() == SHOWN
        assert put(script, f"{root}/configs/{spelling}.json", CONTENT).json() == SHOWN
        assert script.get(f"{root}/configs/{spelling}").json() == SHOWN
        assert download(f"{root}/configs/{spelling}.json").body == CONTENT.encode()
        assert script.delete(f"{root}/configs/{spelling}").status_code == 204

    @pytest.mark.parametrize(
        "text",
        [
            "aa:bb-cc:dd-ee:ff",
            "aabb-ccddeeff",
            "aa--bb-cc-dd-ee-ff",
            "aa-bb-cc-dd-ee",
            "aa-bb-cc-dd-ee-ff-00",
            "aa-bb-cc-dd-ee-fg",
            "aa-bb-cc-dd-ee-ff%0A",
            "%20aa-bb-cc-dd-ee-ff",
            "aa-bb-cc-dd-ee-ff%20",
            "aa bb cc dd ee ff",
            "aa-bb-cc-dd-ee-%D9%A1%D9%A1",
            "aa-bb-cc-dd-ee-%EF%BC%91%EF%BC%91",
            "aa-bb-cc-dd-ee-ff%00",
            "%FF",
        ],
    )
    def test_are_refused_in_any_other(self, script, root, text):
        with nothing_changed():
            for response in [
                script.get(f"{root}/configs/{text}"),
                put(script, f"{root}/configs/{text}", wrapped(CONTENT)),
                put(script, f"{root}/configs/{text}.json", CONTENT),
                script.delete(f"{root}/configs/{text}"),
                Client().get(f"{root}/configs/{text}.json"),
                Client().get(f"{root}/esp32/config/{text}.json"),
            ]:
                assert refusal(response) == (400, "INVALID_MAC_ADDRESS")


class TestSaving:
    @pytest.fixture(params=["wrapped", "bare"])
    def save_as(self, request, root):
        """Save a configuration in one of the two ways."""

        def save_as(caller: Client, content: str, **headers: str) -> Any:
            if request.param == "bare":
                return put(caller, f"{root}/configs/{MAC}.json", content, **headers)
            return put(caller, f"{root}/configs/{MAC}", wrapped(content, allow_overwrite=True), **headers)

        return save_as

    @both_databases(once=True)
    def test_creates(self, caller, save_as):
        response = save_as(caller, CONTENT)

        assert (response.status_code, response.json()) == (200, SHOWN)
        assert downloaded() == CONTENT.encode()

    @both_databases(once=True)
    def test_replaces(self, caller, save_as):
        save(content="{}")

        response = save_as(caller, CONTENT)

        assert (response.status_code, response.json()) == (200, SHOWN)
        assert downloaded() == CONTENT.encode()
        assert DeviceConfig.objects.count() == 1

    @both_databases(once=True)
    def test_keeps_every_byte(self, script, save_as):
        response = save_as(script, VERBATIM)

        assert downloaded() == VERBATIM.encode()
        assert f'"content": {VERBATIM}}}'.encode() in response.content
        assert f'"content": {VERBATIM}}}'.encode() in script.get(f"/configs/{MAC}").content

    def test_answers_the_etag_of_the_download(self, script, save_as):
        response = save_as(script, VERBATIM)

        assert response["ETag"] == download().response["ETag"]

    @both_databases(once=True)
    def test_tells_who_did_it(self, caller, save_as):
        save_as(caller, CONTENT)

        config = DeviceConfig.objects.get()
        assert str(config.updated_by) == str(config.history.get().history_user) == "admin"

    def test_takes_as_many_bytes_as_are_allowed_and_no_more(self, script, save_as, settings):
        settings.CONFIG_MAX_BYTES = 100

        assert save_as(script, json.dumps({"a": "x" * 91})).status_code == 200
        with nothing_changed():
            assert refusal(save_as(script, json.dumps({"a": "x" * 92}))) == (413, "TOO_LARGE")

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            pytest.param("[]", "NOT_AN_OBJECT", marks=both_databases),
            ('"{}"', "NOT_AN_OBJECT"),
            ("null", "NOT_AN_OBJECT"),
            ('{"a": 1, "a": 1}', "DUPLICATE_KEY"),
            ('{"a": {"b": 1, "\\u0062": 2}}', "DUPLICATE_KEY"),
            ('{"a": NaN}', "NOT_A_NUMBER"),
            ('{"a": -Infinity}', "NOT_A_NUMBER"),
            ('{"a": 1e999}', "NUMBER_OVERFLOW"),
            ('{"a": ' + "9" * 5000 + "}", "NUMBER_OVERFLOW"),
            ('{"a": "\\ud800"}', "LONE_SURROGATE"),
            ('{"a":' * 101 + "1" + "}" * 101, "TOO_DEEP"),
            ('{"a": 1,}', "INVALID_JSON"),
            ("{'a': 1}", "INVALID_JSON"),
            ('{"a": "\t"}', "INVALID_JSON"),
        ],
    )
    def test_refuses_what_no_device_could_read(self, script, saved, save_as, content, code):
        with nothing_changed():
            assert refusal(save_as(script, content)) == (400, code)

    def test_takes_one_hundred_levels(self, script, save_as):
        assert save_as(script, '{"a":' * 100 + "1" + "}" * 100).status_code == 200

    @pytest.mark.parametrize(
        "body",
        [b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}', '{"a": "é"}'.encode("utf-16"), '{"a": "é"}'.encode("latin-1")],
    )
    def test_refuses_bytes_that_are_not_utf_8(self, script, saved, root, body):
        with nothing_changed():
            assert refusal(put(script, f"{root}/configs/{MAC}.json", body)) == (400, "NOT_UTF8")
            assert refusal(put(script, f"{root}/configs/{MAC}", b'{"content": ' + body + b"}")) == (400, "NOT_UTF8")

    def test_refuses_a_byte_order_mark(self, script, root):
        with nothing_changed():
            response = put(script, f"{root}/configs/{MAC}.json", b"\xef\xbb\xbf{}")

        assert refusal(response) == (400, "BYTE_ORDER_MARK")

    def test_says_what_stands_there(self, script, root):
        response = put(script, f"{root}/configs/{MAC}.json", '{\n  "a": “b” // why\n}')

        assert refusal(response) == (400, "INVALID_JSON")
        assert response.json()["details"] == {"line": 2, "column": 8}
        assert response.json()["error"] == (
            'Line 2, column 8: “ (U+201C) is no quote in JSON. Write " at both ends of the text.'
        )

    def test_tells_line_and_column_in_the_body(self, script, root):
        bare = put(script, f"{root}/configs/{MAC}.json", '{\n  "a": 1,\n  "a": 2\n}')
        within = put(script, f"{root}/configs/{MAC}", '{\n  "content": {"a": 1,\n  "a": 2\n}}')

        assert bare.json()["details"] == within.json()["details"] == {"line": 3, "column": 3}
        assert bare.json()["error"].startswith('Line 3, column 3: the key "a" is in this object already.')

    @pytest.mark.parametrize("body", [b"", b"  \n"])
    def test_refuses_nothing(self, script, saved, root, body):
        with nothing_changed():
            assert refusal(put(script, f"{root}/configs/{MAC}.json", body)) == (400, "EMPTY")
            assert refusal(put(script, f"{root}/configs/{MAC}", body)) == (400, "EMPTY")

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
    )
    def test_refuses_another_media_type(self, script, saved, root, content_type):
        with nothing_changed():
            for path, body in [(f"{root}/configs/{MAC}.json", "{}"), (f"{root}/configs/{MAC}", wrapped("{}"))]:
                assert refusal(put(script, path, body, content_type)) == (415, "UNSUPPORTED_MEDIA_TYPE")

    @pytest.mark.parametrize("coding", ["gzip", "br", "GZip, identity"])
    def test_refuses_a_compressed_body(self, script, root, coding):
        with nothing_changed():
            for path, body in [(f"{root}/configs/{MAC}.json", "{}"), (f"{root}/configs/{MAC}", wrapped("{}"))]:
                response = put(script, path, body, Content_Encoding=coding)

                assert refusal(response) == (415, "UNSUPPORTED_MEDIA_TYPE")
                assert "Send it unpacked, without Content-Encoding." in response.json()["error"]

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
    def test_refuses_a_compressed_body_that_says_nothing_of_it(self, script, root, pack):
        with nothing_changed():
            response = put(script, f"{root}/configs/{MAC}.json", pack(b"{}"))

        assert refusal(response) == (415, "COMPRESSED")
        assert response.json()["error"].endswith("not text. Unpack it first.")

    def test_takes_a_body_that_says_it_is_not_compressed(self, script, root):
        assert put(script, f"{root}/configs/{MAC}.json", "{}", Content_Encoding="identity").status_code == 200

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.lamp+json", ""]
    )
    def test_takes_json_under_any_name_of_its_own_and_without_one(self, script, root, content_type):
        response = put(script, f"{root}/configs/{MAC}.json", CONTENT, content_type)

        assert (response.status_code, response.json()) == (200, SHOWN)

    def test_refuses_more_than_is_read_at_all(self, script, saved, root, settings):
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000

        with nothing_changed():
            assert refusal(put(script, f"{root}/configs/{MAC}.json", " " * 1001)) == (413, "TOO_LARGE")


class TestTheWrapper:
    @pytest.mark.parametrize(
        "body",
        [
            "{}",
            '{"allow_overwrite": true}',
            '{"content": {}, "allow_overwrite": true, "force": 1}',
            '{"Content": {}}',
            CONTENT,
        ],
    )
    def test_refuses_unknown_and_missing_members(self, script, saved, root, body):
        with nothing_changed():
            assert refusal(put(script, f"{root}/configs/{MAC}", body)) == (400, "INVALID_BODY")

    @pytest.mark.parametrize("value", ["1", '"true"', "null", "{}", '"false"', "-0.0", "9" * 300])
    def test_refuses_an_allow_overwrite_that_is_not_true_or_false(self, script, saved, root, value):
        body = f'{{"content": {{}}, "allow_overwrite": {value}}}'

        with nothing_changed():
            assert refusal(put(script, f"{root}/configs/{MAC}", body)) == (400, "INVALID_BODY")

    @pytest.mark.parametrize("body", ['{"content": {}, "content": {"a": 1}}', '{"content": {}, "\\u0063ontent": {}}'])
    def test_refuses_duplicates(self, script, saved, root, body):
        with nothing_changed():
            assert refusal(put(script, f"{root}/configs/{MAC}", body)) == (400, "DUPLICATE_KEY")

    @both_databases(once=True)
    def test_does_not_replace_where_it_must_not(self, caller, saved, root):
        with nothing_changed():
            response = put(caller, f"{root}/configs/{MAC}", wrapped("{}", allow_overwrite=False))

        assert refusal(response) == (409, "ALREADY_EXISTS")

    @both_databases(once=True)
    def test_creates_where_it_must_not_replace(self, caller, root):
        response = put(caller, f"{root}/configs/{MAC}", wrapped(CONTENT, allow_overwrite=False))

        assert (response.status_code, response.json()) == (200, SHOWN)

    def test_may_leave_out_allow_overwrite(self, script, saved, root):
        assert put(script, f"{root}/configs/{MAC}", wrapped("{}")).status_code == 200

    def test_may_have_white_space_and_any_order(self, script):
        put(script, f"/configs/{MAC}", f' {{\n "allow_overwrite" : false,\n "content" : {VERBATIM} \n}} ')

        assert downloaded() == VERBATIM.encode()

    def test_may_be_larger_than_the_configuration_in_it(self, script, settings):
        settings.CONFIG_MAX_BYTES = len(CONTENT)

        assert put(script, f"/configs/{MAC}", wrapped(CONTENT) + " " * 4000).status_code == 200
        too_much = " " * (WRAPPING_MAX_BYTES + 1)
        assert refusal(put(script, f"/configs/{MAC}", wrapped(CONTENT) + too_much)) == (413, "TOO_LARGE")


class TestConditions:
    ETAG = f'"{hashlib.sha256(CONTENT.encode()).hexdigest()}"'
    MATCHING = [ETAG, f'"other", {ETAG}', "*"]
    NOT_MATCHING = [
        pytest.param('"other"', marks=both_databases),
        f"W/{ETAG}",
        f'"other", W/{ETAG}',
        "",
        ETAG.strip('"'),
        '"*"',
    ]

    @pytest.fixture(params=["wrapped", "bare", "delete"])
    def change(self, request, script, root):
        def change(**headers: str) -> Any:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            if request.param == "delete":
                return script.delete(f"{root}/configs/{MAC}", headers=names)
            if request.param == "bare":
                return put(script, f"{root}/configs/{MAC}.json", "{}", **headers)
            return put(script, f"{root}/configs/{MAC}", wrapped("{}"), **headers)

        return change

    @pytest.mark.parametrize("header", MATCHING)
    def test_change_what_has_the_named_etag(self, saved, change, header):
        assert change(If_Match=header).status_code in {200, 204}

    @both_databases(once=True)
    @pytest.mark.parametrize("header", NOT_MATCHING)
    def test_refuse_what_has_another(self, saved, change, header):
        with nothing_changed():
            assert refusal(change(If_Match=header)) == (412, "PRECONDITION_FAILED")

    @both_databases(once=True)
    @pytest.mark.parametrize("header", [pytest.param(ETAG, marks=both_databases), *MATCHING[1:], f"W/{ETAG}"])
    def test_refuse_what_must_not_have_the_named_etag(self, saved, change, header):
        with nothing_changed():
            assert refusal(change(If_None_Match=header)) == (412, "PRECONDITION_FAILED")

    @both_databases(once=True)
    def test_change_what_must_not_have_another_etag(self, saved, change):
        assert change(If_None_Match='"other"').status_code in {200, 204}

    @pytest.mark.parametrize("header", MATCHING)
    def test_find_no_etag_where_there_is_nothing(self, script, header):
        with nothing_changed():
            response = put(script, f"/configs/{MAC}.json", "{}", If_Match=header)

        assert refusal(response) == (412, "PRECONDITION_FAILED")

    @both_databases
    def test_create_only_where_there_is_nothing(self, script):
        assert put(script, f"/configs/{MAC}.json", "{}", If_None_Match="*").status_code == 200


class TestDeleting:
    @both_databases(once=True)
    def test_leaves_nothing_to_download(self, caller, root, saved):
        response = caller.delete(f"{root}/configs/{MAC}")

        assert (response.status_code, response.content) == (204, b"")
        assert "Content-Type" not in response
        assert refusal(download().response) == (404, "NOT_FOUND")
        assert refusal(caller.get(f"{root}/configs/{MAC}")) == (404, "NOT_FOUND")
        assert refusal(caller.delete(f"{root}/configs/{MAC}")) == (404, "NOT_FOUND")

    @both_databases
    def test_cannot_be_overtaken_by_a_save_that_was_not_asked_for(self, script, saved):
        def is_locked(*args: Any) -> None:
            # An IMMEDIATE transaction has the write lock from its beginning.
            assert connection.in_atomic_block

        with mock.patch("devices.api.check_if_match", autospec=True, side_effect=is_locked) as check:
            assert script.delete(f"/configs/{MAC}").status_code == 204

        check.assert_called_once()


class TestStrangers:
    REQUESTS = [
        ("GET", "/configs"),
        ("GET", f"/configs/{MAC}"),
        ("PUT", f"/configs/{MAC}"),
        ("PUT", f"/configs/{MAC}.json"),
        ("DELETE", f"/configs/{MAC}"),
    ]

    @pytest.mark.parametrize(("method", "path"), REQUESTS)
    @pytest.mark.parametrize("header", [None, "Bearer nonsense", "Bearer", "Basic YTpi"])
    def test_are_told_to_sign_in(self, saved, root, method, path, header):
        stranger = Client(enforce_csrf_checks=True, headers={"Authorization": header} if header else None)

        with nothing_changed():
            response = stranger.generic(method, f"{root}{path}", b"{}", content_type="application/json")

        assert refusal(response) == (401, "NOT_AUTHENTICATED")
        assert response["WWW-Authenticate"] == "Bearer"

    def test_may_download(self, saved, root):
        for path in [f"{root}/configs/{MAC}.json", f"{root}/esp32/config/{MAC}.json"]:
            response, body = download(path)

            assert (response.status_code, body) == (200, CONTENT.encode())
            assert response["Content-Type"] == "application/json"
            assert not response.cookies

    @pytest.mark.parametrize(("method", "path"), [request for request in REQUESTS if request[0] != "GET"])
    def test_cannot_use_the_session_of_somebody_else(self, saved, root, method, path):
        lured = session_client(make_administrator(), with_csrf=False)

        with nothing_changed():
            response = lured.generic(method, f"{root}{path}", wrapped("{}"), content_type="application/json")

        assert refusal(response) == (403, "CSRF_FAILED")

    def test_may_read_in_their_own_session_without_a_csrf_token(self, saved, root):
        caller = session_client(make_administrator(), with_csrf=False)

        assert caller.get(f"{root}/configs/{MAC}").json() == SHOWN


class TestPermissions:
    @pytest.mark.parametrize(
        ("permissions", "allowed"),
        [
            ([], set()),
            (["view"], {"list", "show"}),
            (["add"], {"create"}),
            pytest.param(["change"], {"replace"}, marks=both_databases),
            (["delete"], {"delete"}),
            (["view", "add", "change", "delete"], {"list", "show", "create", "replace", "delete"}),
        ],
    )
    @pytest.mark.parametrize("make_client", [token_client, session_client])
    def test_are_those_of_the_admin(self, saved, make_client, permissions, allowed):
        caller = make_client(make_user(*[f"devices.{action}_deviceconfig" for action in permissions], is_staff=True))
        new = "00-00-00-00-00-01"

        answers = {
            "list": caller.get("/configs"),
            "show": caller.get(f"/configs/{MAC}"),
            "create": put(caller, f"/configs/{new}", wrapped("{}")),
            "replace": put(caller, f"/configs/{MAC}.json", "{}"),
            "delete": caller.delete(f"/configs/{MAC}"),
        }

        assert {name for name, answer in answers.items() if answer.status_code < 400} == allowed
        assert {refusal(answers[name]) for name in set(answers) - allowed} <= {(403, "FORBIDDEN")}
        assert DeviceConfig.objects.filter(mac_address=new).exists() == ("create" in allowed)
        assert DeviceConfig.objects.filter(mac_address=MAC).exists() == ("delete" not in allowed)

    def test_that_is_missing_is_named(self):
        response = put(token_client(make_user()), f"/configs/{MAC}.json", "{}")

        assert response.json()["details"] == {"permission": "devices.add_deviceconfig"}
        assert "devices.add_deviceconfig" in response.json()["error"]


class TestMethods:
    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("POST", "/configs", "GET"),
            ("DELETE", "/configs", "GET"),
            ("POST", f"/configs/{MAC}", "DELETE, GET, PUT"),
            ("PATCH", f"/configs/{MAC}", "DELETE, GET, PUT"),
            ("DELETE", f"/configs/{MAC}.json", "GET, HEAD, PUT"),
            ("POST", f"/configs/{MAC}.json", "GET, HEAD, PUT"),
            ("PUT", f"/esp32/config/{MAC}.json", "GET, HEAD"),
        ],
    )
    def test_that_are_not_there_are_refused(self, script, saved, root, method, path, allowed):
        with nothing_changed():
            response = script.generic(method, f"{root}{path}", "{}", content_type="application/json")

        assert refusal(response) == (405, "METHOD_NOT_ALLOWED")
        assert sorted(response["Allow"].split(", ")) == allowed.split(", ")


class TestMetrics:
    TOTAL = "iot_config_operations_total"

    @pytest.mark.parametrize(
        ("operation", "method", "path", "body"),
        [
            ("list", "GET", "/configs", ""),
            ("get", "GET", f"/configs/{MAC}", ""),
            ("get_raw", "GET", f"/configs/{MAC}.json", ""),
            ("get_raw", "GET", f"/esp32/config/{MAC}.json", ""),
            ("save", "PUT", f"/configs/{MAC}", wrapped("{}")),
            ("save", "PUT", f"/configs/{MAC}.json", "{}"),
            ("delete", "DELETE", f"/configs/{MAC}", ""),
        ],
    )
    def test_count_each_operation_once(self, script, saved, root, operation, method, path, body):
        durations = metric("iot_config_operation_duration_seconds_count", operation=operation)

        with counted(self.TOTAL, operation=operation, status="success"):
            read(script.generic(method, f"{root}{path}", body, content_type="application/json"))

        assert metric("iot_config_operation_duration_seconds_count", operation=operation) == durations + 1

    @pytest.mark.parametrize(
        ("operation", "method", "path", "body"),
        [
            ("get", "GET", f"/configs/{MAC}", ""),
            ("get", "GET", "/configs/nonsense", ""),
            ("get_raw", "GET", f"/configs/{MAC}.json", ""),
            ("get_raw", "GET", "/configs/nonsense.json", ""),
            ("save", "PUT", f"/configs/{MAC}", "{}"),
            ("save", "PUT", f"/configs/{MAC}.json", "[]"),
            ("save", "PUT", "/configs/nonsense.json", "{}"),
            ("delete", "DELETE", f"/configs/{MAC}", ""),
        ],
    )
    def test_count_each_refusal_as_an_error(self, script, root, operation, method, path, body):
        with counted(self.TOTAL, operation=operation, status="error"):
            script.generic(method, f"{root}{path}", body, content_type="application/json")

    @pytest.mark.parametrize(
        ("operation", "method", "path"),
        [("list", "GET", "/configs"), ("save", "PUT", f"/configs/{MAC}"), ("delete", "DELETE", f"/configs/{MAC}")],
    )
    def test_count_those_who_are_not_let_in_too(self, operation, method, path):
        with counted(self.TOTAL, operation=operation, status="error"):
            Client().generic(method, path, "{}", content_type="application/json")

    def test_count_a_failed_condition_of_a_download_as_an_error_and_304_as_none(self, saved):
        with counted(self.TOTAL, operation="get_raw", status="error"):
            download(If_Match='"other"')
        with counted(self.TOTAL, operation="get_raw", status="success"):
            download(If_None_Match="*")


class TestTrouble:
    @both_databases(once=True)
    @pytest.mark.parametrize("error", [OperationalError("locked"), InterfaceError("gone"), ImproperlyConfigured("no")])
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/configs"), ("PUT", f"/configs/{MAC}.json"), ("DELETE", f"/configs/{MAC}")]
    )
    def test_with_the_database_is_503(self, script, saved, error, method, path):
        with nothing_changed(), failing_statements(error):
            response = script.generic(method, path, "{}", content_type="application/json")

        assert refusal(response) == (503, "DATABASE_UNAVAILABLE")

    def test_with_the_database_does_not_reach_downloads(self, saved):
        with failing_statements(OperationalError("away")):
            assert downloaded() == CONTENT.encode()

    @both_databases(once=True)
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
    def test_with_the_disk_is_503_and_leaves_everything_as_it_was(self, script, saved, error):
        with nothing_changed(), mock.patch("iotsupport.mirror.files.os.fsync", autospec=True, side_effect=error):
            replaced = put(script, f"/configs/{MAC}.json", "{}")
            created = put(script, "/configs/00-00-00-00-00-01.json", "{}")

        assert refusal(replaced) == refusal(created) == (503, "STORAGE_UNAVAILABLE")
        assert "then try again" in replaced.json()["error"]

    def test_with_a_missing_directory_is_503(self, script, directories):
        (directories / "configs").rmdir()

        response = put(script, f"/configs/{MAC}.json", "{}")

        assert refusal(response) == (503, "STORAGE_UNAVAILABLE")
        assert not DeviceConfig.objects.exists()

    @both_databases
    def test_with_the_disk_keeps_what_was_to_be_deleted(self, script, saved):
        with nothing_changed(), mock.patch("iotsupport.mirror.files.os.access", autospec=True, return_value=False):
            assert refusal(script.delete(f"/configs/{MAC}")) == (503, "STORAGE_UNAVAILABLE")

    @both_databases
    def test_after_the_commit_says_that_it_is_saved(self, script, saved):
        with mock.patch(
            "iotsupport.mirror.files.os.replace", autospec=True, side_effect=OSError(5, "Input/output error")
        ):
            response = put(script, f"/configs/{MAC}.json", "{}")

        assert refusal(response) == (503, "MIRROR_BEHIND")
        assert response.json()["error"].startswith("The change is saved")
        assert DeviceConfig.objects.get().content == "{}"
        assert downloaded() == CONTENT.encode()

    def test_with_a_download_is_503(self, saved):
        too_many = OSError(24, "Too many open files")
        with mock.patch("iotsupport.serving.contents.os.open", autospec=True, side_effect=too_many):
            assert refusal(download().response) == (503, "UNAVAILABLE")

    @both_databases
    def test_of_another_kind_is_logged_and_told_without_its_words(self, script, caplog):
        with mock.patch("devices.api.require", autospec=True, side_effect=RuntimeError("secret")):
            response = script.get("/configs")

        assert refusal(response) == (500, "INTERNAL_ERROR")
        assert b"secret" not in response.content

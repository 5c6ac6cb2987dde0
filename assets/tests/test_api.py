"""Assets through the API: what scripts rely on, and what they are refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from django.db import OperationalError, connection
from django.test import Client

from assets.models import Asset
from iotsupport.mirror.files import MirrorError
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
from iotsupport.tests.support.multipart import CONTENT_TYPE, body, part, post, upload

pytestmark = pytest.mark.usefixtures("transactional_db")

# Most of what is refused is refused before any statement: of each kind that is not, one runs on both databases.
both_databases = pytest.mark.both_databases

BYTES = bytes(range(256)) * 5

ANSWERED = ["filename", "size", "sha256", "uploaded_at", "image", "warnings", "unchanged_where_running"]


@pytest.fixture
def saved() -> Asset:
    return Asset.objects.upload("firmware.bin", [BYTES])


def download(filename: str = "firmware.bin", root: str = "") -> Download:
    return read(Client().get(f"{root}/assets/{quote(filename)}"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class TestUploading:
    @both_databases(once=True)
    def test_a_new_file_answers_what_was_stored(self, caller, root):
        response = upload(caller, BYTES, path=f"{root}/assets")

        answer = response.json()
        assert response.status_code == 200
        assert list(answer) == ANSWERED
        assert (answer["image"], answer["warnings"], answer["unchanged_where_running"]) == (None, [], False)
        assert answer["filename"] == "firmware.bin"
        assert answer["size"] == len(BYTES)
        assert answer["sha256"] == sha256(BYTES)
        assert abs(datetime.fromisoformat(answer["uploaded_at"]) - datetime.now(UTC)) < timedelta(minutes=5)

    def test_makes_the_bytes_available_to_devices(self, caller, root):
        upload(caller, BYTES, path=f"{root}/assets")

        response, content = download(root=root)
        assert content == BYTES
        assert response["Content-Type"] == "application/octet-stream"
        assert response["Content-Length"] == str(len(BYTES))
        assert response["x-MD5"] == hashlib.md5(BYTES, usedforsecurity=False).hexdigest()
        digest = base64.b64encode(hashlib.sha256(BYTES).digest()).decode()
        assert response["Repr-Digest"] == f"sha-256=:{digest}:"

    @both_databases
    def test_a_name_again_replaces_it_and_keeps_the_earlier_bytes(self, script, saved, directories):
        response = upload(script, b"second")

        assert response.json()["sha256"] == sha256(b"second")
        assert download().body == b"second"
        assert Asset.objects.count() == 1
        assert [version.sha256 for version in saved.history.all()] == [sha256(b"second"), sha256(BYTES)]
        assert {path.name for path in (directories / "blobs").iterdir()} == {sha256(BYTES), sha256(b"second")}

    @both_databases
    def test_the_same_bytes_under_two_names_keeps_them_once(self, script, saved, directories):
        upload(script, BYTES, "copy.bin")

        assert download("copy.bin").body == download().body == BYTES
        assert [path.name for path in (directories / "blobs").iterdir()] == [sha256(BYTES)]

    @both_databases
    def test_the_same_bytes_under_the_same_name_is_an_upload_like_any_other(self, script, saved):
        assert upload(script, BYTES).status_code == 200
        assert download().body == BYTES

    @both_databases
    def test_an_empty_file_is_allowed(self, script):
        response = upload(script, b"")

        assert (response.json()["size"], response.json()["sha256"]) == (0, sha256(b""))
        assert download().body == b""

    @both_databases(once=True)
    def test_tells_who_did_it(self, caller):
        upload(caller, BYTES)

        asset = Asset.objects.get()
        assert asset.uploaded_by == asset.history.get().history_user
        assert str(asset.uploaded_by) == "admin"

    def test_takes_exactly_the_limit(self, script, settings):
        settings.ASSET_MAX_BYTES = 1000

        assert upload(script, b"x" * 1000).json()["size"] == 1000

    @both_databases(once=True)
    @pytest.mark.parametrize("more", [1, 1_000_000])
    def test_refuses_one_byte_more_and_many_more(self, script, saved, root, settings, more):
        settings.ASSET_MAX_BYTES = 2000

        with nothing_changed():
            response = upload(script, b"x" * (2000 + more), path=f"{root}/assets")

        assert refusal(response) == (413, "TOO_LARGE")
        assert "2000 bytes" in response.json()["error"]

    def test_other_fields_do_not_matter(self, script):
        response = post(script, part(b"a note", None, "note"), part(BYTES))

        assert response.json()["sha256"] == sha256(BYTES)

    @pytest.mark.parametrize(
        "parts",
        [[], [part(b"text", None)], [part(BYTES, field="upload")], [part(BYTES, field="File")], [part(BYTES, "")]],
    )
    def test_refuses_a_request_without_the_file(self, script, saved, root, parts):
        with nothing_changed():
            assert refusal(post(script, *parts, path=f"{root}/assets")) == (400, "NO_FILE")

    def test_refuses_several_files(self, script, saved, root):
        with nothing_changed():
            response = post(script, part(b"one", "one.bin"), part(b"two", "two.bin"), path=f"{root}/assets")

        assert refusal(response) == (400, "TOO_MANY_FILES")

    def test_refuses_a_compressed_request(self, script, saved, root):
        with nothing_changed():
            response = script.generic(
                "POST", f"{root}/assets", body(part(BYTES)), content_type=CONTENT_TYPE, HTTP_CONTENT_ENCODING="gzip"
            )

        assert refusal(response) == (415, "UNSUPPORTED_MEDIA_TYPE")
        assert "Send it unpacked, without Content-Encoding." in response.json()["error"]

    def test_takes_a_compressed_file_as_it_is(self, script, root):
        packed = gzip.compress(BYTES)

        assert upload(script, packed, "font.gz", path=f"{root}/assets").json()["size"] == len(packed)

    @pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json", "", "multipart/mixed"])
    def test_refuses_what_is_no_form(self, script, saved, root, content_type):
        with nothing_changed():
            response = script.generic("POST", f"{root}/assets", BYTES, content_type=content_type)

        assert refusal(response) == (415, "UNSUPPORTED_MEDIA_TYPE")

    @pytest.mark.parametrize(
        ("content_type", "sent"),
        [
            ("multipart/form-data", body(part(BYTES))),
            ("multipart/form-data; boundary=é", body(part(BYTES))),
            ("multipart/form-data; boundary=other", body(part(BYTES))),
            (CONTENT_TYPE, b"nonsense"),
            pytest.param(CONTENT_TYPE, body(part(BYTES))[:-200], marks=both_databases),
            (CONTENT_TYPE, body(part(b"abcd!", headers="Content-Transfer-Encoding: base64\r\n"))),
            (CONTENT_TYPE, body(part(b"abc", headers="X-Long: " + "x" * 2000 + "\r\n"))),
            (CONTENT_TYPE, body(part(BYTES).replace(b"filename=", b"filename*=nonsense''"))),
        ],
    )
    def test_refuses_a_broken_form(self, script, saved, root, content_type, sent):
        with nothing_changed():
            response = script.generic("POST", f"{root}/assets", sent, content_type=content_type)

        assert refusal(response)[0] == 400

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
    def test_to_a_name_is_no_method(self, script, saved, root, method):
        with nothing_changed():
            response = script.generic(method, f"{root}/assets/firmware.bin", body(part(BYTES)), CONTENT_TYPE)

        assert refusal(response) == (405, "METHOD_NOT_ALLOWED")
        assert response["Allow"] == "DELETE, GET, HEAD"


class TestNames:
    @pytest.mark.parametrize(
        ("sent", "stored"),
        [
            ("../../etc/passwd", "passwd"),
            ("C:\\fakepath\\firmware.bin", "firmware.bin"),
            ("/firmware.bin", "firmware.bin"),
            ("größe µ.bin", "größe µ.bin"),
            ("x" * 196 + ".bin", "x" * 196 + ".bin"),
            ("é" * 98 + ".bin", "é" * 98 + ".bin"),
        ],
    )
    def test_are_reduced_to_their_last_component(self, script, sent, stored):
        response = upload(script, BYTES, sent)

        assert (response.status_code, response.json()["filename"]) == (200, stored)
        assert download(stored).body == BYTES
        assert script.delete(f"/assets/{quote(stored)}").status_code == 204

    @pytest.mark.parametrize(
        "sent", ["x" * 197 + ".bin", "é" * 98 + "x.bin", "x" * 300, ".hidden", "a..b", "path/.hidden", "a/x..bin"]
    )
    def test_that_are_unusable_are_refused(self, script, saved, root, sent):
        with nothing_changed():
            response = upload(script, BYTES, sent, path=f"{root}/assets")

        assert refusal(response) == (400, "INVALID_FILENAME")

    @pytest.mark.parametrize("sent", ["..", ".", "a/", "a/..", "\0\n"])
    def test_of_which_nothing_is_left_are_none(self, script, saved, root, sent):
        with nothing_changed():
            assert refusal(upload(script, BYTES, sent, path=f"{root}/assets")) == (400, "NO_FILE")

    @pytest.mark.parametrize("name", ["..%2Fdb.sqlite3", ".hidden", "a%00b", "a%0A", "a..b", "a%5Cb", "a/b", "x" * 201])
    def test_that_are_unusable_are_refused_in_urls(self, script, saved, root, name):
        with nothing_changed():
            assert refusal(Client().get(f"{root}/assets/{name}")) == (400, "INVALID_FILENAME")
            assert refusal(script.delete(f"{root}/assets/{name}")) == (400, "INVALID_FILENAME")


class TestListing:
    @both_databases(once=True)
    def test_is_a_list_by_name(self, caller, root, saved):
        Asset.objects.upload("a.bin", [b""])

        response = caller.get(f"{root}/assets")

        assert response.status_code == 200
        assert [list(asset) for asset in response.json()] == [ANSWERED] * 2
        assert [(asset["filename"], asset["size"], asset["sha256"]) for asset in response.json()] == [
            ("a.bin", 0, sha256(b"")),
            ("firmware.bin", len(BYTES), sha256(BYTES)),
        ]

    @both_databases(once=True)
    def test_is_empty_at_first(self, caller, root):
        assert caller.get(f"{root}/assets").json() == []


class TestDeleting:
    @both_databases(once=True)
    def test_leaves_nothing_to_download(self, caller, root, saved):
        response = caller.delete(f"{root}/assets/firmware.bin")

        assert (response.status_code, response.content) == (204, b"")
        assert refusal(download().response) == (404, "NOT_FOUND")
        assert refusal(caller.delete(f"{root}/assets/firmware.bin")) == (404, "NOT_FOUND")
        assert caller.get(f"{root}/assets").json() == []

    @both_databases
    def test_keeps_the_bytes_for_the_history(self, script, saved, directories):
        script.delete("/assets/firmware.bin")

        assert [path.name for path in (directories / "blobs").iterdir()] == [sha256(BYTES)]

    @both_databases
    def test_is_one_transaction(self, script, saved):
        was_locked = []
        original = Asset.delete

        def delete(asset: Asset) -> Any:
            was_locked.append(connection.in_atomic_block)
            return original(asset)

        with mock.patch.object(Asset, "delete", delete):
            script.delete("/assets/firmware.bin")

        assert was_locked == [True]


class TestStrangers:
    REQUESTS = [("GET", "/assets"), ("POST", "/assets"), ("DELETE", "/assets/firmware.bin")]

    @pytest.mark.parametrize(("method", "path"), REQUESTS)
    @pytest.mark.parametrize("header", [None, "Bearer nonsense"])
    def test_are_told_to_sign_in(self, saved, root, method, path, header):
        stranger = Client(enforce_csrf_checks=True, headers={"Authorization": header} if header else None)

        with nothing_changed():
            response = stranger.generic(method, f"{root}{path}", body(part(b"")), content_type=CONTENT_TYPE)

        assert refusal(response) == (401, "NOT_AUTHENTICATED")
        assert response["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(("method", "path"), REQUESTS[1:])
    def test_cannot_use_the_session_of_somebody_else(self, saved, root, method, path):
        lured = session_client(make_administrator(), with_csrf=False)

        with nothing_changed():
            response = lured.generic(method, f"{root}{path}", body(part(b"")), content_type=CONTENT_TYPE)

        assert refusal(response) == (403, "CSRF_FAILED")

    def test_may_download(self, saved, root):
        response, content = download(root=root)

        assert (response.status_code, content) == (200, BYTES)
        assert not response.cookies


class TestPermissions:
    @pytest.mark.parametrize(
        ("permissions", "allowed"),
        [
            ([], set()),
            (["view"], {"list"}),
            (["add"], {"create"}),
            pytest.param(["change"], {"replace"}, marks=both_databases),
            (["delete"], {"delete"}),
            (["view", "add", "change", "delete"], {"list", "create", "replace", "delete"}),
        ],
    )
    @pytest.mark.parametrize("make_client", [token_client, session_client])
    def test_are_those_of_the_admin(self, saved, make_client, permissions, allowed):
        caller = make_client(make_user(*[f"assets.{action}_asset" for action in permissions], is_staff=True))

        answers = {
            "list": caller.get("/assets"),
            "create": upload(caller, b"new", "new.bin"),
            "replace": upload(caller, b"replaced"),
            "delete": caller.delete("/assets/firmware.bin"),
        }

        assert {name for name, answer in answers.items() if answer.status_code < 400} == allowed
        assert {refusal(answers[name]) for name in set(answers) - allowed} <= {(403, "FORBIDDEN")}
        assert Asset.objects.filter(filename="new.bin").exists() == ("create" in allowed)
        assert Asset.objects.filter(filename="firmware.bin").exists() == ("delete" not in allowed)

    def test_that_are_missing_leave_nothing(self, saved):
        adder = token_client(make_user("assets.add_asset"))

        with nothing_changed():
            response = upload(adder, b"replaced")

        assert response.json()["details"] == {"permission": "assets.change_asset"}


class TestMetrics:
    TOTAL = "iot_asset_upload_requests_total"

    def test_count_an_upload_once_with_its_size_and_duration(self, script, root):
        sizes = metric("iot_asset_upload_file_size_bytes_sum")
        durations = metric("iot_asset_upload_duration_seconds_count", status="success")

        with (
            counted(self.TOTAL, status="success", error_type="none"),
            counted("iot_asset_upload_file_size_bytes_count"),
        ):
            upload(script, BYTES, path=f"{root}/assets")

        assert metric("iot_asset_upload_file_size_bytes_sum") == sizes + len(BYTES)
        assert metric("iot_asset_upload_duration_seconds_count", status="success") == durations + 1

    @pytest.mark.parametrize(
        ("parts", "error_type"),
        [
            ([part(b"", ".hidden")], "invalid_filename"),
            ([part(b"", "x" * 201)], "invalid_filename"),
            ([part(b"", field="other")], "no_file"),
            ([part(b"x" * 101)], "too_large"),
            ([part(b"", "one"), part(b"", "two")], "other"),
        ],
    )
    def test_count_a_refusal_by_its_reason(self, script, settings, parts, error_type):
        settings.ASSET_MAX_BYTES = 100
        sizes = metric("iot_asset_upload_file_size_bytes_count")
        durations = metric("iot_asset_upload_duration_seconds_count", status="error")

        with counted(self.TOTAL, status="error", error_type=error_type):
            post(script, *parts)

        assert metric("iot_asset_upload_file_size_bytes_count") == sizes
        assert metric("iot_asset_upload_duration_seconds_count", status="error") == durations + 1

    def test_count_those_who_are_not_let_in(self):
        with counted(self.TOTAL, status="error", error_type="not_authenticated"):
            upload(Client(), BYTES)
        with counted(self.TOTAL, status="error", error_type="forbidden"):
            upload(token_client(make_user()), BYTES)
        with counted(self.TOTAL, status="error", error_type="unsupported_media_type"):
            token_client(make_administrator()).post("/assets", b"", content_type="text/plain")

    def test_count_trouble_with_the_disk(self, script, directories):
        (directories / "blobs").rmdir()

        with counted(self.TOTAL, status="error", error_type="storage"):
            upload(script, BYTES)


class TestTrouble:
    @both_databases(once=True)
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/assets"), ("POST", "/assets"), ("DELETE", "/assets/firmware.bin")]
    )
    def test_with_the_database_is_503(self, script, saved, method, path):
        with nothing_changed(), failing_statements(OperationalError("away")):
            response = script.generic(method, path, body(part(b"new")), content_type=CONTENT_TYPE)

        assert refusal(response) == (503, "DATABASE_UNAVAILABLE")

    @both_databases
    def test_with_the_database_at_the_end_leaves_nothing(self, script, saved):
        away = OperationalError("away")
        with nothing_changed(), mock.patch("assets.models.Asset.save", autospec=True, side_effect=away):
            assert refusal(upload(script, b"new")) == (503, "DATABASE_UNAVAILABLE")

    def test_with_damaged_bytes_never_reaches_devices(self, saved, directories):
        (directories / "blobs" / saved.sha256).write_bytes(b"damaged")

        with nothing_changed(), pytest.raises(MirrorError, match="missing or damaged"):
            saved.save()

        assert download().body == BYTES

    def test_with_damaged_bytes_is_mended_by_another_upload(self, script, saved, directories):
        (directories / "blobs" / saved.sha256).write_bytes(b"damaged")

        assert upload(script, BYTES).status_code == 200
        assert download().body == BYTES

    @both_databases
    def test_after_the_commit_says_that_it_is_saved(self, script, saved):
        error = OSError(5, "I/O error")
        with mock.patch("iotsupport.mirror.files.MirrorStorage.replace", autospec=True, side_effect=error):
            response = upload(script, b"new")

        assert refusal(response) == (503, "MIRROR_BEHIND")
        assert Asset.objects.get().sha256 == sha256(b"new")
        assert download().body == BYTES

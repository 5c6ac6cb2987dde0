"""Devices that must sign in, and who reads the metrics: the same answer to all others, by whatever way they ask."""

from __future__ import annotations

import base64
import hmac
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from prometheus_client import REGISTRY

from iotsupport.accounts.words import Word
from iotsupport.models import ApiToken
from iotsupport.serving import credentials, front_server
from iotsupport.serving.ahead_of_django import FastDownloadsMiddleware
from iotsupport.serving.quick_requests import parse_quick_request
from iotsupport.serving.strangers import has_to_wait
from iotsupport.tests.support.api_client import make_token, make_user, session_client
from iotsupport.tests.test_fast_downloads import ASSET, CONFIG, MAC, Both, both, no_connections_to_close

__all__ = ["both", "no_connections_to_close"]

NEW, OLD = "a-new-pass word:1", "$the-old-pässword"

REFUSAL = [
    ("WWW-Authenticate", 'Basic realm="IoT Support", charset="UTF-8"'),
    ("Content-Length", "0"),
    ("X-Content-Type-Options", "nosniff"),
]

CONFIG_PATH = f"/configs/{MAC}.json"
THERE = [
    CONFIG_PATH,
    f"/api/configs/{MAC}.json",
    f"/esp32/config/{MAC.upper()}.json",
    "/configs/aabbccddeeff.json",
    "/assets/firmware.bin",
    "/api/assets/firmware.bin",
    "/assets/with space.bin",
    "/assets/firmware.bin.md5",
    "/api/assets/firmware.bin.sha256",
    "/assets/image.bin.manifest.json",
]
NOT_THERE = [
    "/configs/00-00-00-00-00-00.json",
    "/configs/11-11-11-11-11-11.json",
    "/configs/kitchen.json",
    f"/configs/{MAC}\n.json",
    "/api/esp32/config/x.json",
    "/assets/none.bin",
    "/assets/none.bin.md5",
    "/assets/withheld.bin",
    "/assets/..",
    "/assets/.hidden",
    "/assets/" + "x" * 300,
    "/assets/a\\b",
    "/assets/firmware.bin.manifest.json",
]


def basic(password: str, username: str = "board", scheme: str = "Basic ") -> str:
    return scheme + base64.b64encode(f"{username}:{password}".encode()).decode()


RIGHT = [
    basic(NEW),
    basic(OLD),
    basic(NEW, scheme="basic "),
    basic(NEW, scheme="BASIC   "),
]
WRONG = [
    "",
    "Basic",
    "Basic ",
    basic("wrong"),
    basic(""),
    basic(NEW + "x"),
    basic(NEW[:-1]),
    basic(NEW.upper()),
    basic(f"{NEW}, {OLD}"),
    basic(NEW, "Board"),
    basic(NEW, ""),
    basic(NEW) + "=",
    basic(NEW) + "x",
    basic(NEW).rstrip("="),
    basic(NEW) + "," + basic(NEW),  # the field twice, as WSGI has it
    basic(NEW, scheme="Digest "),
    basic(NEW, scheme="Basic\t"),
    basic(NEW, scheme=" Basic "),
    basic(NEW, scheme=""),
    f"Basic board:{NEW}",
    "Basic !!!!",
    "Basic \u00e4\u00ff",
    "Basic " + "A" * 60_000,
    basic(NEW) + "A" * 60_000,
    "A" * 60_000,
    "Bearer" + basic(NEW),
]


@pytest.fixture
def sign_in(settings: LazySettings) -> None:
    settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD = "board", f" {NEW} ,{OLD},"


def status_of(response: Any) -> int:
    """Once it is read to its end, which closes the file."""
    response.getvalue()
    return int(response.status_code)


def refused() -> float:
    return REGISTRY.get_sample_value("iot_refused_downloads_total") or 0


@pytest.mark.usefixtures("sign_in")
class TestDevices:
    @pytest.mark.parametrize("path", THERE)
    def test_who_says_one_of_the_passwords_downloads(self, both: Both, path: str) -> None:
        for sent in RIGHT:
            view, fast = both.ask(path, HTTP_AUTHORIZATION=sent)

            assert fast == view
            assert view.status == "200 OK"
        assert both.ask(path, "HEAD", HTTP_AUTHORIZATION=RIGHT[0])[0].status == "200 OK"

    @pytest.mark.parametrize("sent", WRONG, ids=lambda sent: repr(sent[:40]))
    def test_anybody_else_is_refused_without_a_word(self, both: Both, sent: str) -> None:
        for path in [CONFIG_PATH, "/assets/firmware.bin"]:
            for answer in both.ask(path, HTTP_AUTHORIZATION=sent):
                assert answer == ("401 Unauthorized", REFUSAL, b"")

    @pytest.mark.parametrize("path", [*THERE, *NOT_THERE])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_what_is_there_and_what_is_not_are_refused_alike(self, both: Both, path: str, method: str) -> None:
        for sent in [{}, {"HTTP_AUTHORIZATION": basic("wrong")}]:
            conditions = {"HTTP_RANGE": "bytes=0-0", "HTTP_IF_NONE_MATCH": "*", "HTTP_IF_MATCH": '"x"', **sent}
            for answer in both.ask(path, method, **conditions):
                assert answer == ("401 Unauthorized", REFUSAL, b"")

    def test_the_rest_of_a_request_is_judged_as_ever(self, both: Both) -> None:
        for headers, status in [({"HTTP_RANGE": "bytes=0-1"}, "206"), ({"HTTP_IF_NONE_MATCH": "*"}, "304")]:
            view, fast = both.ask("/assets/firmware.bin", HTTP_AUTHORIZATION=RIGHT[1], **headers)

            assert fast == view
            assert fast.status.startswith(status)
        assert both.ask("/assets/none.bin", HTTP_AUTHORIZATION=RIGHT[1])[0].status.startswith("404")
        assert both.ask("/configs/x.json", HTTP_AUTHORIZATION=RIGHT[1])[0].status.startswith("400")

    def test_every_password_is_compared_whatever_the_first_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[int] = []

        def compare(one: bytes, other: bytes) -> bool:
            compared.append(len(one) == len(other) == 32)
            return hmac_compare(one, other)

        hmac_compare = hmac.compare_digest
        monkeypatch.setattr(hmac, "compare_digest", compare)
        found = [credentials.is_device({"HTTP_AUTHORIZATION": sent}) for sent in [*RIGHT[:2], *WRONG]]

        assert found == [True, True, *[False] * len(WRONG)]
        assert compared == [True] * 2 * len(found)

    def test_the_worker_refuses_without_a_thread(self, both: Both) -> None:
        def quick(path: str, *fields: str) -> Any:
            head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: iot", *fields, "", ""])
            environ = parse_quick_request(head.encode(), "192.0.2.1")
            assert environ is not None
            return FastDownloadsMiddleware.answer_quickly(environ)

        before = refused()
        for path in ["/configs/aabb.json", CONFIG_PATH, "/assets/firmware.bin", "/api/assets/none.bin"]:
            for fields in [[], [f"Authorization: {basic('wrong')}"]]:
                assert quick(path, *fields) == ("401 Unauthorized", dict(REFUSAL).items(), b"")
        assert refused() == before + 8
        assert quick(CONFIG_PATH, f"authorization:  {RIGHT[0]} ")[::2] == ("200 OK", CONFIG)
        for path, fields in [
            ("/assets/firmware.bin", [f"Authorization: {RIGHT[0]}"]),
            ("/health", []),
            ("/assets", []),
        ]:
            assert quick(path, *fields) is None
        assert quick(CONFIG_PATH, "Authorization: Bearer x") is None  # which the view looks up

    def test_only_one_field_is_taken(self) -> None:
        head = f"GET {CONFIG_PATH} HTTP/1.1\r\nHost: a\r\n" + f"Authorization: {basic(NEW)}\r\n" * 2 + "\r\n"

        assert parse_quick_request(head.encode(), "192.0.2.1") is None

    def test_who_is_refused_waits_as_strangers_do(self, both: Both) -> None:
        def waits(*sent: str) -> bool:
            return has_to_wait("GET", CONFIG_PATH, [("AUTHORIZATION", each) for each in sent])

        assert [waits(), waits(WRONG[3]), waits(RIGHT[0], RIGHT[0])] == [True] * 3
        assert not waits(RIGHT[0])

    def test_what_is_no_download_is_open_as_ever(self, client: Client, db: None) -> None:
        for path, status in [("/health", 200), ("/metrics", 200), ("/api/docs", 200), ("/configs", 401)]:
            response = client.get(path)

            assert response.status_code == status
            assert "Basic" not in response.headers.get("WWW-Authenticate", "")
        assert client.delete("/assets/firmware.bin")["WWW-Authenticate"] == "Bearer"
        assert client.get(f"/configs/{MAC}.JSON").json()["details"] == {"address": CONFIG_PATH}

    def test_a_view_counts_what_it_refuses(self, both: Both) -> None:
        before, operations = (
            refused(),
            REGISTRY.get_sample_value("iot_config_operation_duration_seconds_count", GET_RAW),
        )

        both.ask(CONFIG_PATH)

        assert refused() == before + 2
        assert REGISTRY.get_sample_value("iot_config_operation_duration_seconds_count", GET_RAW) == operations


GET_RAW = {"operation": "get_raw"}


@pytest.mark.usefixtures("sign_in", "both", "db")
class TestPeople:
    """Who may view the same in the admin, or with a token, may download it."""

    @pytest.mark.parametrize(
        ("permission", "path"), [("devices.view_deviceconfig", CONFIG_PATH), ("assets.view_asset", THERE[7])]
    )
    def test_who_may_view_it(self, client: Client, permission: str, path: str) -> None:
        may, may_not = make_user(permission, username="may"), make_user(username="may_not")

        for user, status in [(may, 200), (may_not, 401)]:
            assert status_of(session_client(user).get(path)) == status
            assert status_of(client.get(path, headers={"Authorization": f"Bearer {make_token(user)}"})) == status
        may.is_active = False
        may.save()
        assert session_client(may).get(path).status_code == 401

    def test_a_token_may_no_more_than_its_words(self, client: Client) -> None:
        user = make_user("devices.view_deviceconfig", "assets.view_asset")
        token = make_token(user, Word.READ_ASSETS)
        headers = {"Authorization": f"Bearer {token}"}

        assert client.get("/assets/firmware.bin", headers=headers).getvalue() == ASSET
        assert client.get(CONFIG_PATH, headers=headers).status_code == 401
        ApiToken.objects.update(expires_at=timezone.now() - timedelta(1))
        assert client.get("/assets/firmware.bin", headers=headers).status_code == 401

    @pytest.mark.parametrize("sent", ["Bearer ", "Bearer iot_x", "bearer iot_\u00e9"])
    def test_an_unknown_token_or_session_is_refused_as_all_else(self, client: Client, sent: str) -> None:
        client.cookies["sessionid"] = "a" * 32
        response = client.get(CONFIG_PATH, headers={"Authorization": sent})

        assert (response.status_code, response.content) == (401, b"")
        assert response["WWW-Authenticate"] == credentials.BASIC


# Each lets nobody in, whatever is sent; and none is quoted.
BROKEN = [
    ("board", "", "DEVICE_USERNAME is set, but DEVICE_PASSWORD is not."),
    ("board", " ", "DEVICE_USERNAME is set, but DEVICE_PASSWORD is not."),
    ("board", ",,", "DEVICE_USERNAME is set, but DEVICE_PASSWORD is not."),
    ("", "hunter2-hunter2", "DEVICE_PASSWORD is set, but DEVICE_USERNAME is not."),
    (" ", "hunter2-hunter2", "DEVICE_PASSWORD is set, but DEVICE_USERNAME is not."),
    (" ", " ", "DEVICE_USERNAME is set, but DEVICE_PASSWORD is not."),
    ("bo:ard", "hunter2-hunter2", "DEVICE_USERNAME holds a colon, which no name can that is sent with a password."),
    ("board", "hunter2,hunter3,hunter4", "DEVICE_PASSWORD holds 3 passwords, but at most 2 are taken."),
    ("board", "hunter\udcff", "DEVICE_PASSWORD is too long, not text in UTF-8, or holds a control character"),
    ("bo\x07ard", "hunter2-hunter2", "DEVICE_USERNAME is too long, not text in UTF-8, or holds a control character"),
    ("board", "ä" * 128, "DEVICE_PASSWORD is too long, not text in UTF-8, or holds a control character"),
]


@pytest.mark.parametrize(("username", "password", "sentence"), BROKEN)
def test_what_cannot_be_right_opens_nothing(
    both: Both, settings: LazySettings, username: str, password: str, sentence: str, tmp_path: Path
) -> None:
    settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD = username, password
    sent = [{}, {"HTTP_AUTHORIZATION": "Basic Og=="}, {"HTTP_AUTHORIZATION": "Basic "}]
    if password.isprintable():
        sent += [{"HTTP_AUTHORIZATION": basic(each, "board")} for each in ["", *password.split(",")]]

    for headers in sent:
        for answer in both.ask(CONFIG_PATH, **headers):
            assert answer.status == "401 Unauthorized"
    [error] = [message for message in run_checks(tags=["environment"]) if message.id == "iotsupport.E080"]
    assert error.msg.startswith(sentence)
    assert error.msg.endswith("No device can download.")
    assert "hunter" not in error.msg
    file = tmp_path / "known"
    with pytest.raises(CommandError, match=sentence.split("'")[0][:30]):
        call_command("write_device_passwords", file)
    assert not file.exists()


@pytest.mark.parametrize(
    ("username", "password"),
    [("$board", "$password-$HOME"), ("bö ard", "päß,p c"), ("b", "x" * 255), (" board ", " p\u0061\u0308ssword-12 ")],
)
def test_unusual_ones_are_taken_as_they_are(settings: LazySettings, username: str, password: str) -> None:
    settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD = username, password
    first = password.split(",")[0].strip().replace("a\u0308", "ä")

    assert credentials.is_device({"HTTP_AUTHORIZATION": basic(first, username.strip())})
    assert not credentials.is_device({"HTTP_AUTHORIZATION": basic(first, "other")})
    assert credentials.problem_of_devices() is None


def test_one_that_can_be_guessed_is_said(settings: LazySettings) -> None:
    settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD = "board", "long-enough-for-it,short"
    settings.METRICS_TOKEN = "short"

    found = {message.id: message.msg for message in run_checks(tags=["environment"])}

    assert found["iotsupport.W081"].startswith("DEVICE_PASSWORD holds a password of less than 12 characters")
    assert found["iotsupport.W083"] == "METRICS_TOKEN is shorter than 12 characters, so it can be guessed."


class TestMetrics:
    TOKEN = "a+long/token.of_metrics=="
    REFUSAL = [("WWW-Authenticate", 'Bearer realm="IoT Support"'), *REFUSAL[1:]]

    @pytest.mark.parametrize("path", ["/metrics", "/api/metrics"])
    def test_are_for_who_has_the_token(self, client: Client, settings: LazySettings, path: str, db: None) -> None:
        settings.METRICS_TOKEN = f" {self.TOKEN} "

        for sent in [f"Bearer {self.TOKEN}", f"bearer   {self.TOKEN}"]:
            assert b"iot_database_up" in client.get(path, headers={"Authorization": sent}).content
        for sent in [
            "",
            "Bearer",
            self.TOKEN,
            f"Basic {self.TOKEN}",
            f"Bearer {self.TOKEN}x",
            f"Bearer {self.TOKEN[:-1]}",
        ]:
            response = client.get(path, headers={"Authorization": sent} if sent else {})
            assert (response.status_code, list(response.items()), response.content) == (401, self.REFUSAL, b"")
            quick = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_AUTHORIZATION": sent}
            assert FastDownloadsMiddleware.answer_quickly(quick) == (
                "401 Unauthorized",
                dict(self.REFUSAL).items(),
                b"",
            )
            assert has_to_wait("GET", path, [("AUTHORIZATION", sent)])
        assert client.get("/health").status_code == 200

    @pytest.mark.parametrize("token", [" ", "with blank", "umlaut-ä", "x\udcff", "x" * 1000])
    def test_are_for_nobody_where_it_cannot_be_right(self, client: Client, settings: LazySettings, token: str) -> None:
        settings.METRICS_TOKEN = token

        assert client.get("/metrics").status_code == 401
        assert not credentials.may_read_metrics({"HTTP_AUTHORIZATION": f"Bearer {token}"})
        assert not credentials.may_read_metrics({"HTTP_AUTHORIZATION": "Bearer "})
        [error] = [message for message in run_checks(tags=["environment"]) if message.id == "iotsupport.E082"]
        assert error.msg.endswith("Nobody can read /metrics.")
        assert token.strip() == "" or token not in error.msg

    def test_are_open_without_one(self, client: Client, db: None) -> None:
        assert client.get("/metrics").status_code == 200
        assert not has_to_wait("GET", "/metrics", [])


class TestNginx:
    """What it finds in DATA_DIR."""

    @pytest.fixture(autouse=True)
    def data_dir(self, settings: LazySettings, tmp_path: Path) -> Path:
        settings.DATA_DIR = tmp_path
        return tmp_path

    def test_is_told_whether_downloads_are_open(self, data_dir: Path, settings: LazySettings) -> None:
        for username, password, is_open in [("", "", True), ("a", "b", False), ("", "", True), ("a", "", False)]:
            settings.DEVICE_USERNAME, settings.DEVICE_PASSWORD = username, password
            for _ in range(2):
                front_server.note_openness()
                assert (data_dir / "downloads_are_open").exists() == is_open

    def test_trouble_with_that_is_logged(
        self, data_dir: Path, settings: LazySettings, caplog: Any, monkeypatch
    ) -> None:
        settings.DATA_DIR = data_dir / "nowhere"
        said: list[str] = []
        monkeypatch.setattr(front_server.logger, "error", lambda message, *rest: said.append(message % rest))

        front_server.note_openness()

        assert said == [
            f"nginx cannot be told whether devices have to sign in: '{data_dir}/nowhere/downloads_are_open':"
            " No such file or directory"
        ]

    @pytest.mark.usefixtures("sign_in")
    def test_is_given_the_passwords_in_a_file_of_its_owner(self, data_dir: Path, capsys: Any) -> None:
        file = data_dir / "known_devices.map"
        file.write_text("of before")
        file.chmod(0o644)

        call_command("write_device_passwords")

        lines = file.read_text().splitlines()
        assert [line[:31] for line in lines[1:]] == ['"~^[Bb][Aa][Ss][Ii][Cc] +' + basic(NEW)[6:12]] * 2
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(data_dir.iterdir()) == [file]
        assert f"Written: {file}." in capsys.readouterr().out

    def test_knows_nobody_where_devices_need_not_sign_in(self, data_dir: Path) -> None:
        call_command("write_device_passwords", data_dir / "other")

        assert [line for line in (data_dir / "other").read_text().splitlines() if not line.startswith("#")] == []

    def test_a_place_that_cannot_be_written_is_said(self, data_dir: Path) -> None:
        with pytest.raises(CommandError, match="cannot be written: No such file or directory."):
            call_command("write_device_passwords", data_dir / "nowhere" / "file")
        (data_dir / "directory").mkdir()
        with pytest.raises(CommandError, match="cannot be written: Is a directory."):
            call_command("write_device_passwords", data_dir / "directory")
        assert [path.name for path in data_dir.iterdir()] == ["directory"]

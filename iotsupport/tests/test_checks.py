"""``manage.py check`` names each variable that cannot be right, and says what to do; the server starts in any case."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from iotsupport.accounts.checks import check_single_sign_on
from iotsupport.checks import check_files
from iotsupport.environment import SQLITE, Environment
from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.server import Server, clean_environ, manage
from iotsupport.tests.support.waiting import LIMIT

# Variable, a value that cannot be right, the id of its check, and what is said.
BROKEN = [
    ("DEBUG", "maybe", "iotsupport.E001", "DEBUG is 'maybe', but it must be true or false."),
    ("ALLOWED_HOSTS", "http://iot:80", "iotsupport.E002", "ALLOWED_HOSTS holds 'http://iot:80', but each must be"),
    (
        "ALLOWED_HOSTS",
        "iot_server",
        "iotsupport.E002",
        "ALLOWED_HOSTS holds 'iot_server', but each must be a host name or address, without scheme or port"
        " (a name has letters, digits, - and dots, but no _).",
    ),
    ("LOG_FORMAT", "xml", "iotsupport.E077", "LOG_FORMAT is 'xml', but it must be lines or json."),
    ("CSRF_TRUSTED_ORIGINS", "iot", "iotsupport.E003", "CSRF_TRUSTED_ORIGINS holds 'iot', but each must be"),
    ("DATABASE_URL", "mysql://u:secret@h/n", "iotsupport.E004", "DATABASE_URL cannot be read: it must be sqlite:///"),
    ("DATABASE_URL", "//u:secret@h/n", "iotsupport.E004", "DATABASE_URL cannot be read: it must be sqlite:///"),
    ("DATABASE_URL", "sqlite://secret/db", "iotsupport.E004", "DATABASE_URL cannot be read: it must be sqlite:///"),
    ("DATABASE_URL", "sqlite:///", "iotsupport.E004", "DATABASE_URL cannot be read: it must be sqlite:///"),
    ("DATABASE_URL", "postgresql://u:secret/@h/n", "iotsupport.E004", "DATABASE_URL cannot be read: it must be"),
    ("CONFIG_MAX_BYTES", "64k", "iotsupport.E005", "CONFIG_MAX_BYTES is '64k', but it must be a whole number"),
    ("ASSET_MAX_BYTES", "64 MB", "iotsupport.E006", "ASSET_MAX_BYTES is '64 MB', but it must be a whole number"),
    ("HOST", "http://0.0.0.0", "iotsupport.E007", "HOST is 'http://0.0.0.0', but it must be one host name"),
    ("HOST", "127.0.0.1,10.0.0.1", "iotsupport.E007", "HOST is '127.0.0.1,10.0.0.1', but it must be one"),
    ("PORT", "70000", "iotsupport.E008", "PORT is '70000', but it must be a whole number from 0 to 65535."),
    ("WEB_CONCURRENCY", "two", "iotsupport.E009", "WEB_CONCURRENCY is 'two', but it must be a whole number from 1"),
    (
        "SESSION_HOURS",
        "a week",
        "iotsupport.E022",
        "SESSION_HOURS is 'a week', but it must be a whole number from 1 to",
    ),
    ("HTTPS_ONLY", "perhaps", "iotsupport.E061", "HTTPS_ONLY is 'perhaps', but it must be true or false."),
    (
        "TRUSTED_PROXIES",
        "10.0.0.1,nginx",
        "iotsupport.E062",
        "TRUSTED_PROXIES holds 'nginx', but each must be an address",
    ),
    ("TRUSTED_PROXIES", "0.0.0.0/0", "iotsupport.E062", "TRUSTED_PROXIES holds '0.0.0.0/0', but each must be an"),
    ("REMOTE_USER_HEADER", "REMOTE_USER", "iotsupport.E063", "REMOTE_USER_HEADER is 'REMOTE_USER', but it must be a"),
    ("REMOTE_GROUPS_HEADER", "x y", "iotsupport.E064", "REMOTE_GROUPS_HEADER is 'x y', but it must be a header's name"),
    ("OIDC_ISSUER", "https://u:secret@h", "iotsupport.E065", "OIDC_ISSUER must be an https:// URL without"),
    ("OIDC_ISSUER", "http://login.example", "iotsupport.E065", "OIDC_ISSUER must be an https:// URL without"),
    ("OIDC_ISSUER", "https://iot.example", "iotsupport.W068", "Nobody can sign in with OpenID Connect: OIDC_CLIENT_ID"),
    ("REMOTE_USER_HEADER", "X-User", "iotsupport.W066", "The header X-User is believed from nobody: TRUSTED_PROXIES"),
    ("REMOTE_GROUPS_HEADER", "X-Groups", "iotsupport.W067", "REMOTE_GROUPS_HEADER does nothing: REMOTE_USER_HEADER"),
    ("SILENT_AFTER", "a day", "iotsupport.E035", "SILENT_AFTER is 'a day', but it must be a whole number from 0 to"),
    ("HISTORY_DAYS", "a year", "iotsupport.E041", "HISTORY_DAYS is 'a year', but it must be a whole number from 0 to"),
    ("HISTORY_KEEP", "0", "iotsupport.E042", "HISTORY_KEEP is '0', but it must be a whole number from 1 to"),
    ("TIME_ZONE", "Mars", "iotsupport.E040", "TIME_ZONE is 'Mars', but it must be a time zone that this machine knows"),
    ("MQTT_PUBLISH_RATE", "0", "iotsupport.E014", "MQTT_PUBLISH_RATE is '0', but it must be a whole number from 1 to"),
    ("DATA_DIR", "/dev/null/data", "iotsupport.E010", "DATA_DIR '/dev/null/data' cannot be made: Not a directory."),
    ("ESP32_CONFIGS_DIR", "/dev/null/c", "iotsupport.E011", "ESP32_CONFIGS_DIR '/dev/null/c' cannot be made: Not a"),
    ("ASSETS_DIR", "/dev/null/a", "iotsupport.E012", "ASSETS_DIR '/dev/null/a' cannot be made: Not a directory."),
    ("DATA_DIR", "~nobody-here/data", "iotsupport.E010", "DATA_DIR begins with '~' and the name of a user who has no"),
    ("METRICS_DIR", "~nobody-here/m", "iotsupport.W020", "METRICS_DIR begins with '~' and the name of a user who has"),
    ("CHECKINS_SOCKET", "/dev/null/c.sock", "iotsupport.W036", "CHECKINS_SOCKET '/dev/null' is not a directory."),
    ("CHECKINS_SOCKET", "/dev/null", "iotsupport.W036", "CHECKINS_SOCKET '/dev/null' is there, and no socket."),
    ("CHECKINS_SOCKET", "~nobody-here/c", "iotsupport.W036", "CHECKINS_SOCKET begins with '~' and the name of a user"),
    ("CHECKINS_SOCKET", f"/dev/{'c' * 103}", "iotsupport.W036", f"CHECKINS_SOCKET '/dev/{'c' * 103}' is longer than"),
    ("SECRET_KEY", "secret\udcff", "iotsupport.E032", "SECRET_KEY is not text in UTF-8, so it is not used."),
    ("SECRET_KEY", "short", "iotsupport.W013", "SECRET_KEY is shorter than 32 characters, so it can be guessed."),
    ("MQTT_URL", "http://broker:secret", "notifications.W001", "MQTT_URL must begin with mqtt:// or mqtts://."),
    ("MQTT_USERNAME", "\udcff", "notifications.W001", "The MQTT user name or password cannot be sent"),
    ("MQTT_PASSWORD", "secret", "notifications.W004", "There is an MQTT password, but no user name"),
    ("MQTT_CERT_FILE", "/dev/null/c.pem", "notifications.W006", "MQTT_CERT_FILE is set, but MQTT_KEY_FILE is not"),
    ("MQTT_KEY_FILE", "/dev/null/c.key", "notifications.W006", "MQTT_KEY_FILE is set, but MQTT_CERT_FILE is not"),
    ("MQTT_CA_FILE", "/dev/null/ca.pem", "notifications.W002", "MQTT_CA_FILE '/dev/null/ca.pem' cannot be read: Not a"),
]

COMPANIONS = {"MQTT_USERNAME": {"MQTT_URL": "mqtt://127.0.0.1"}, "MQTT_PASSWORD": {"MQTT_URL": "mqtt://127.0.0.1"}}

# Errors and a warning, all of a value that holds a password.
BROKEN_WITH_A_SECRET = [broken for broken in BROKEN if broken[1] in {"//u:secret@h/n", "http://broker:secret"}]


# Origins, hosts and HOST; what is said of them by check, and with --deploy besides.
HTTPS = [
    ("", "", "", "", ""),
    ("", "iot.example.com", "", "", ""),
    ("https://iot.example.com", "iot.example.com", "", "", "W060"),
    ("https://iot.example.com:8443", "iot.example.com", "", "", "W060"),
    ("https://*.example.com", ".example.com", "", "", "W060"),
    ("https://[2001:db8::7]", "[2001:db8::7]", "", "", "W060"),
    ("http://iot.example.com", "", "", "", ""),
    ("https://iot.example.com", "", "", "W023", "W060"),
    ("https://*.example.com", "iot.example.com", "", "W023", "W060"),
    ("https://iot.example.com,http://iot.example.com", "iot.example.com", "", "W024", "W060"),
    ("https://iot.example.com", "iot.example.com", "0.0.0.0", "", "W025"),  # noqa: S104
    ("https://iot.example.com", "iot.example.com", "::", "", "W025"),
    ("https://iot.example.com", "iot.example.com", "localhost", "", "W060"),
    ("", "192.168.1.10", "192.168.1.10", "", "W026"),
]


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    """Metrics lie in memory, where that is another disk than the data's."""
    return on_disk


@pytest.mark.parametrize(("origins", "hosts", "host", "always", "deployed"), HTTPS)
def test_says_what_contradicts_https(
    tmp_path: Path, origins: str, hosts: str, host: str, always: str, deployed: str
) -> None:
    environ = {"DATA_DIR": str(tmp_path), "CSRF_TRUSTED_ORIGINS": origins, "ALLOWED_HOSTS": hosts, "HOST": host}

    for options, expected in [([], [always]), (["--deploy"], [always, deployed])]:
        code, report = check(environ, *options)

        assert code == 0
        assert re.findall(r"\(([\w.]+)\) .*", report) == [f"iotsupport.{id}" for id in expected if id]


@pytest.mark.parametrize(
    ("https_only", "silenced"),
    [("true", {"W005", "W008", "W021"}), ("false", {"W004", "W008", "W010", "W016"})],
)
def test_silences_of_django_s_checks_those_that_are_answered_otherwise(
    tmp_path: Path, https_only: str, silenced: set[str]
) -> None:
    environ = {"DATA_DIR": str(tmp_path), "HTTPS_ONLY": https_only}

    _, report = check(environ, "--deploy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.core.checks.messages.CheckMessage.is_silenced", lambda message: False)
        _, loud = check(environ, "--deploy")

    assert re.findall(r"\(([\w.]+)\) .*", report) == []
    assert set(re.findall(r"\(security\.(\w+)\)", loud)) == silenced


def check(environ: dict[str, str], *options: str) -> tuple[int, str]:
    """What ``manage.py check`` says in this process of settings that are read from an environment: see `manage`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "ENVIRON", clean_environ(environ))
        values = runpy.run_path(str(BASE_DIR / "iotsupport" / "settings.py"))
    # No check looks at the databases, and Django warns of changing them.
    changed = {name: value for name, value in values.items() if name.isupper() and name != "DATABASES"}
    output = StringIO()
    with override_settings(**changed):
        try:
            call_command("check", *options, no_color=True, stdout=output, stderr=output)
        except SystemCheckError as error:
            return 1, str(error)
    return 0, output.getvalue()


def assert_is_named(code: int, report: str, variable: str, id: str, sentence: str) -> None:
    # The mirrors are in DATA_DIR, unless they are told otherwise.
    follow = ["iotsupport.E011", "iotsupport.E012"] if variable == "DATA_DIR" else []
    assert re.findall(r"\((\w+\.[EW]\d+)\)", report) == [id, *follow]
    assert f"({id}) {sentence}" in report
    assert re.search(r"HINT: \w.{20,}", report)
    assert code == (1 if ".E" in id else 0)
    assert "secret" not in report
    assert "Traceback" not in report


@pytest.mark.parametrize(("variable", "value", "id", "sentence"), BROKEN)
def test_names_the_variable_and_says_what_to_do(
    tmp_path: Path, variable: str, value: str, id: str, sentence: str
) -> None:
    code, report = check({"DATA_DIR": str(tmp_path), **COMPANIONS.get(variable, {}), variable: value})

    assert_is_named(code, report, variable, id, sentence)


@pytest.mark.processes
@pytest.mark.parametrize(("variable", "value", "id", "sentence"), BROKEN_WITH_A_SECRET)
def test_a_process_of_its_own_says_the_same_and_keeps_the_secret(
    tmp_path: Path, variable: str, value: str, id: str, sentence: str
) -> None:
    done = manage({"DATA_DIR": str(tmp_path), variable: value}, "check", check=False)

    assert_is_named(done.returncode, done.stdout + done.stderr, variable, id, sentence)


@pytest.mark.processes
def test_finds_nothing_in_an_empty_environment(tmp_path: Path) -> None:
    done = manage({"DATA_DIR": str(tmp_path)}, "check")

    assert done.stdout == "System check identified no issues (0 silenced).\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("variable", "value"), [("MQTT_URL", "http://broker"), ("CONFIG_MAX_BYTES", "64k")])
def test_a_server_with_a_broken_value_says_so_and_serves(
    make_server: Callable[..., Server], variable: str, value: str
) -> None:
    server = make_server(**{variable: value}).start()

    with server.client() as client:
        assert client.save_config("aa-bb-cc-dd-ee-ff", b"{}").status_code == 200
        assert client.get("/configs/aa-bb-cc-dd-ee-ff.json").content == b"{}"
        health = client.get("/health").json()
        assert (health["status"], health["broker"]) == ("healthy", "off")
    assert "Files and database are equal." in server.log
    assert len(re.findall(r"\((?:notifications\.W001|iotsupport\.E005)\)", server.log)) == 1
    if variable == "MQTT_URL":
        # By the command that checks before it starts, and by the worker.
        assert len(server.wait_for_log("ERROR notifications.publisher: Nothing will be announced", count=2)) == 2
    else:
        assert "Nothing will be announced" not in server.log


# --- How the environment is read ---------------------------------------------------------------------------------


def test_reads_a_dotenv_file_and_lets_the_environment_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CONFIG_MAX_BYTES=1000\nASSET_MAX_BYTES=2000\n")
    monkeypatch.setattr(os, "environ", Environment.ENVIRON)
    monkeypatch.delenv("CONFIG_MAX_BYTES", raising=False)
    monkeypatch.setenv("ASSET_MAX_BYTES", "3000")
    env = Environment()

    env.read_env(tmp_path / ".env")

    assert env.number("CONFIG_MAX_BYTES", default=1, least=1) == 1000
    assert env.number("ASSET_MAX_BYTES", default=1, least=1) == 3000
    monkeypatch.delenv("CONFIG_MAX_BYTES")


@pytest.mark.parametrize(
    ("given", "number"), [("1", 1), ("512", 512), ("0", 2), ("513", 2), ("-1", 2), ("1.5", 2), ("", 2)]
)
def test_a_number_within_its_limits_is_taken(monkeypatch: pytest.MonkeyPatch, given: str, number: int) -> None:
    monkeypatch.setenv("SOME_NUMBER", given)

    assert Environment().number("SOME_NUMBER", default=2, least=1, most=512) == number


@pytest.mark.processes
def test_eight_first_starts_at_once_agree_on_one_secret_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from iotsupport import settings; print(settings.SECRET_KEY)"]
    environ = clean_environ({"DATA_DIR": str(tmp_path)})
    processes = [
        subprocess.Popen(command, cwd=BASE_DIR, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]

    keys = {process.communicate(timeout=LIMIT)[0].strip() for process in processes}

    assert len(keys) == 1
    assert keys == {(tmp_path / "secret_key").read_text()}
    assert len(keys.pop()) > 50
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".secret_key*")) == []


def test_makes_a_secret_key_where_the_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch()

    first, second = (Environment().secret("NO_SUCH_VARIABLE", tmp_path / "secret_key") for _ in range(2))

    assert first == second == (tmp_path / "secret_key").read_text()
    assert len(first) > 50


def test_a_secret_key_that_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_bytes(b"secret\xff")

    code, report = check({"DATA_DIR": str(tmp_path)})

    sentence = f"'{tmp_path}/secret_key' is not text in UTF-8. Everybody is signed out whenever the server starts."
    assert code == 1
    assert f"(iotsupport.E032) {sentence}" in report
    assert (tmp_path / "secret_key").read_bytes() == b"secret\xff"


def test_a_secret_key_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system without hard links."""
    monkeypatch.setattr(os, "link", lambda *names: os.open("/dev/null/link", os.O_RDONLY))

    code, report = check({"DATA_DIR": str(tmp_path)})

    sentence = f"'{tmp_path}/secret_key' cannot be made: Not a directory. Everybody is signed out whenever the server"
    assert code == 1
    assert f"(iotsupport.E032) {sentence}" in report
    assert list(tmp_path.glob(".secret_key*")) == []


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("sqlite:////srv/c++/db", {"ENGINE": SQLITE, "NAME": "/srv/c++/db"}),
        ("sqlite:////srv/100%25/db", {"ENGINE": SQLITE, "NAME": "/srv/100%/db"}),
        ("sqlite://:memory:", {"ENGINE": SQLITE, "NAME": ":memory:"}),
        ("postgresql://u+v:p+%2Bw@h:5/n+m", {"USER": "u+v", "PASSWORD": "p++w", "HOST": "h", "PORT": 5, "NAME": "n+m"}),
        ("postgresql://u:$p@h/n?sslmode=require", {"PASSWORD": "$p", "OPTIONS": {"sslmode": "require"}}),
        ("$postgresql://u:secret@h/n", {"ENGINE": "django.db.backends.dummy"}),
    ],
)
def test_a_database_url_is_what_was_given(monkeypatch: pytest.MonkeyPatch, url: str, values: dict[str, object]) -> None:
    monkeypatch.setattr(Environment, "ENVIRON", {"DATABASE_URL": url})

    config = Environment().database("DATABASE_URL", Path("/nowhere"))

    assert {name: config[name] for name in values} == values


@pytest.mark.parametrize("name", ["c++", "100%", "what?", "#1", "a b", "$HOME"])
def test_the_database_is_in_the_data_directory_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "ENVIRON", clean_environ({"DATA_DIR": str(tmp_path / name)}))
        values = runpy.run_path(str(BASE_DIR / "iotsupport" / "settings.py"))

    assert values["DATABASES"]["default"]["NAME"] == f"{tmp_path / name}/db.sqlite3"


def test_a_directory_of_the_database_that_is_missing_is_said(
    tmp_path: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA_DIR = tmp_path
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": SQLITE, "NAME": f"{tmp_path}/missing/db.sqlite3"})

    [message] = check_files(None)

    assert (message.id, message.msg) == (
        "iotsupport.E034",
        f"'{tmp_path}/missing', where DATABASE_URL has the database, is not a directory.",
    )
    assert message.hint


def test_says_how_to_install_what_openid_connect_needs(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = "https://iot.example", "iot", "secret"
    found = check_single_sign_on(None)
    monkeypatch.setattr("iotsupport.accounts.oidc.is_installed", lambda: False)

    [message] = check_single_sign_on(None)

    assert found == []
    assert (message.id, message.hint) == (
        "iotsupport.W069",
        "Type: .venv/bin/python -m pip install --require-hashes -r requirements-sso.txt",
    )
    assert str(message.hint).removeprefix("Type: ") in (BASE_DIR / "docs/sign-in.md").read_text()


def test_a_secret_key_of_the_environment_is_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "given")

    assert Environment().secret("SECRET_KEY", tmp_path / "secret_key") == "given"
    assert list(tmp_path.iterdir()) == []


def test_a_number_belongs_to_one_check():
    """People look it up, and silence it. One check may say two things under it."""
    places: dict[str, set[str]] = {}
    for path in [path for path in BASE_DIR.glob("*/**/*.py") if not {"tests", ".venv"} & set(path.parts)]:
        text = path.read_text()
        for part in ast.parse(text).body if re.search(r"\.[EW]\d{3}", text) else []:
            for node in ast.walk(part):
                if isinstance(node, ast.Constant) and re.fullmatch(r"\w+\.[EW]\d{3}", str(node.value)):
                    place = f"{path.name}, line {part.lineno if isinstance(part, ast.FunctionDef) else node.lineno}"
                    places.setdefault(re.sub("[EW]", "", str(node.value)), set()).add(place)

    assert len(places) > 50
    assert {number: found for number, found in places.items() if len(found) > 1} == {}

"""Reading the environment so that no wrong value stops a process from starting.

A setting that cannot be right falls back to its default and is remembered here; the system checks in
``iotsupport.checks`` report it with a hint. ``settings.py`` is the only caller.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from django.core.exceptions import ImproperlyConfigured

from iotsupport import access, dotenv
from iotsupport.durable import make_directory, sync_directory
from iotsupport.monitoring import metrics_directory

T = TypeVar("T")

TRUE_STRINGS = frozenset(environ.Env.BOOLEAN_TRUE_STRINGS)
FALSE_STRINGS = frozenset({"false", "off", "no", "n", "0", "f"})

SQLITE = "django.db.backends.sqlite3"
POSTGRESQL = "django.db.backends.postgresql"

# Set by whoever starts a service or a session.
OF_THE_SYSTEM = {"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"}

HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII | re.IGNORECASE)

HOST_RULE = "a name has letters, digits, - and dots, but no _"


def is_host(text: str) -> bool:
    """Whether text can be a host's name or address, without scheme and port."""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        # Digits and dots alone are an address, and it is wrong.
        return bool(HOST_NAME.fullmatch(text)) and not re.fullmatch(r"[\d.]+", text)
    return True


def is_allowed_host(text: str) -> bool:
    """Whether Django's ``ALLOWED_HOSTS`` can match it: ``*``, a host, or ``.example.com`` with all below it."""
    return text == "*" or is_host(text.removeprefix("."))


def is_origin(text: str) -> bool:
    """Whether it is a scheme and a host, as in ``https://*.example.com:8443``, and nothing else."""
    scheme, separator, rest = text.partition("://")
    host = re.sub(r":\d+$", "", rest)
    return scheme in {"http", "https"} and bool(separator) and is_host(host.removeprefix("*."))


def is_proxy(text: str) -> bool:
    """Whether it is an address or a network, of IPv4 or IPv6, and not everybody."""
    try:
        return ipaddress.ip_network(text).prefixlen > 0
    except ValueError:
        return False


def is_header(text: str) -> bool:
    """Whether it can be the name of a header that comes through: gunicorn drops those with ``_``."""
    return bool(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text, re.ASCII | re.IGNORECASE)) and len(text) <= 100


def is_issuer(text: str) -> bool:
    """Whether it can be a provider of OpenID Connect: an ``https://`` URL, or ``http://`` on this machine."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    plain = parts.scheme == "http" and (host in {"localhost", "::1"} or host.startswith("127."))
    has_more = parts.query or parts.fragment or "@" in parts.netloc or re.search(r"[\s\\]", text)
    return (parts.scheme == "https" or plain) and is_host(host) and not has_more


class Environment(environ.Env):
    """django-environ that remembers what it refused: variables in ``problems``, lines in ``dotenv_troubles``.

    A value is what was given. django-environ would take one that begins with ``$`` for the name of another variable,
    and log lines of ``.env`` that it cannot read, passwords included.
    """

    def __init__(self, **scheme: Any) -> None:
        super().__init__(**scheme)
        self.problems: dict[str, str] = {}
        self.dotenv_troubles: list[dotenv.Trouble] = []
        self.given: set[str] = set()
        """Names of the variables that were asked for, and are set."""

    def get_value(self, var: str, *args: Any, **options: Any) -> Any:
        value = self.ENVIRON.get(var, "")
        if value and var not in OF_THE_SYSTEM:
            self.given.add(var)
        return value if value.startswith("$") else super().get_value(var, *args, **options)

    def read_env(self, path: Path) -> None:
        """Take what ``.env`` says and the environment does not. Nothing that stands in it stops anything."""
        values, self.dotenv_troubles = dotenv.read(path)
        for name, value in values.items():
            try:
                self.ENVIRON.setdefault(name, value)
            except ValueError:  # the locale has no such character
                sentence = f"'{path}' sets a variable to what this process's locale cannot hold, so it is not taken."
                self.dotenv_troubles.append(dotenv.Trouble(sentence, "Run the server in a locale with UTF-8."))

    def read(self, name: str, parse: Callable[[str], T], default: T, expected: str) -> T:
        """Return the parsed value of a variable, or ``default`` where it is unset, empty or wrong.

        ``parse`` raises ``ValueError`` for a wrong value; ``expected`` completes "it must be …".
        """
        raw = self.str(name, default="").strip()
        if not raw:
            return default
        try:
            return parse(raw)
        except (ValueError, ImproperlyConfigured):
            self.problems[name] = f"{name} is {raw!r}, but it must be {expected}."
            return default

    def switch(self, name: str, default: bool) -> bool:
        def parse(raw: str) -> bool:
            if raw.lower() not in TRUE_STRINGS | FALSE_STRINGS:
                raise ValueError(raw)
            return raw.lower() in TRUE_STRINGS

        return self.read(name, parse, default, "true or false")

    def choice(self, name: str, words: list[str]) -> str:
        """Return one of these words, the first where none is given; capital letters do not matter."""

        def parse(raw: str) -> str:
            if raw.lower() not in words:
                raise ValueError(raw)
            return raw.lower()

        return self.read(name, parse, words[0], " or ".join(words))

    def number(self, name: str, default: int, *, least: int, most: int | None = None) -> int:
        expected = f"a whole number from {least} to {most}" if most else f"a whole number of at least {least}"

        def parse(raw: str) -> int:
            value = int(raw)
            if value < least or (most is not None and value > most):
                raise ValueError(raw)
            return value

        return self.read(name, parse, default, expected)

    def host(self, name: str, default: str) -> str:
        """Return one host name or address; an IPv6 address without brackets."""

        def parse(raw: str) -> str:
            if not is_host(raw):
                raise ValueError(raw)
            return raw.strip("[]")

        return self.read(name, parse, default, "one host name or address, without scheme or port")

    def time_zone(self, name: str, default: str) -> str:
        """Return the name of a time zone that this machine knows."""

        def parse(raw: str) -> str:
            try:
                return ZoneInfo(raw).key
            except (ZoneInfoNotFoundError, OSError) as error:  # OSError for the name of a directory
                raise ValueError(raw) from error

        return self.read(name, parse, default, "a time zone that this machine knows, such as Europe/Amsterdam")

    def text(self, name: str, is_valid: Callable[[str], bool], expected: str) -> str:
        """Return a text that passes, or an empty one; ``expected`` completes "it must be …"."""

        def parse(raw: str) -> str:
            if not is_valid(raw):
                raise ValueError(raw)
            return raw

        return self.read(name, parse, "", expected)

    def url(self, name: str, is_valid: Callable[[str], bool], expected: str) -> str:
        """As :meth:`text`; what is refused may hold a password, so it is not told."""
        value = self.text(name, is_valid, expected)
        if name in self.problems:
            self.problems[name] = f"{name} must be {expected}."
        return value

    def items(self, name: str, default: list[str], is_valid: Callable[[str], bool], expected: str) -> list[str]:
        """Return a comma-separated list without its wrong items; ``expected`` completes "each must be …"."""
        items = [item.strip() for item in self.str(name, default="").split(",") if item.strip()]
        wrong = [item for item in items if not is_valid(item)]
        if wrong:
            self.problems[name] = f"{name} holds {', '.join(map(repr, wrong))}, but each must be {expected}."
        return [item for item in items if is_valid(item)] or default

    def database(self, name: str, default: Path) -> dict[str, Any]:
        """Return Django's description of the database named by a URL: SQLite or PostgreSQL; else of an SQLite file.

        A wrong URL gives the dummy backend: better no database than quietly another one.
        """

        def parse(raw: str) -> dict[str, Any]:
            # In a path, a plus sign is one; django-environ takes it for a blank.
            url, mark, parameters = raw.partition("?")
            with warnings.catch_warnings():
                # It warns of URLs that it reads only in part, and quotes what it warns of.
                warnings.simplefilter("error")
                try:
                    config = self.db_url_config(url.replace("+", "%2B") + mark + parameters)
                except Warning:
                    raise ValueError(name) from None
            if config.get("ENGINE") not in {SQLITE, POSTGRESQL}:
                raise ValueError(name)
            if config["NAME"] == ":memory:" and not raw.endswith(":memory:"):  # no path at all
                raise ValueError(name)
            return dict(config)

        expected = "sqlite:///path/to/file or postgresql://user:password@host:5432/name"
        if not self.str(name, default=""):
            return {"ENGINE": SQLITE, "NAME": str(default)}
        config = self.read(name, parse, {"ENGINE": "django.db.backends.dummy"}, expected)
        if name in self.problems:
            # The URL may hold a password; a message must not.
            self.problems[name] = f"{name} cannot be read: it must be {expected}."
        return config

    def folder(self, name: str, default: Path) -> Path:
        """Return a directory, made where it is missing."""
        return self.make_folder(name, self._path(name) or default.absolute())

    def make_folder(self, name: str, path: Path) -> Path:
        """Return the path; where it cannot be made, that is the fault of the variable ``name``."""
        try:
            make_directory(path)
        except OSError as error:
            self.problems.setdefault(name, f"{name} '{path}' cannot be made{access.describe(error)}")
        return path

    def file(self, name: str, default: Path) -> Path:
        """Return the path of a file, whether it is there or not."""
        return self._path(name) or default.absolute()

    def _path(self, name: str) -> Path | None:
        """Return the path that is given, absolute, None where there is none; ``~`` and ``~user`` are homes.

        Of a user who has no home, it is one that cannot be: better no data than quietly others.
        """
        given = self.str(name, default="")
        try:
            return Path(given).expanduser().absolute() if given else None
        except RuntimeError:
            self.problems[name] = f"{name} begins with '~' and the name of a user who has no home."
            return Path(os.devnull, given)

    def metrics_directory(self, name: str, data_dir: Path) -> Path | None:
        """Return the directory that is named, or one of a runtime directory: systemd's for a service, or the user's."""
        if given := self._path(name):
            return given
        service, _, _ = self.str("RUNTIME_DIRECTORY", default="").partition(":")  # see systemd.exec(5)
        return metrics_directory.choose(data_dir, service, self.str("XDG_RUNTIME_DIR", default=""))

    def secret(self, name: str, path: Path) -> str:
        """Return a secret that is made once and kept in ``path`` with mode 0600.

        Several processes may start at once: all of them end up with the one that was linked first. Where the file
        cannot be used, that is a problem of the variable: the secret that is returned instead ends with the process.
        """
        given: str = self.str(name, default="")
        if given and _is_text(given):
            return given
        if given:
            self.problems[name] = f"{name} is not text in UTF-8, so it is not used."
        try:
            return _read_secret(path) or self._make_secret(name, path)
        except FileNotFoundError:
            return self._make_secret(name, path)
        except OSError as error:
            self._miss_secret(name, path, f"cannot be read{access.describe(error)}")
        except UnicodeDecodeError:
            self._miss_secret(name, path, "is not text in UTF-8.")
        return secrets.token_urlsafe(50)

    def _make_secret(self, name: str, path: Path) -> str:
        secret = secrets.token_urlsafe(50)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                if kept := _read_secret(path):
                    return kept
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
            # Sessions are signed with it: lost in a power cut, everybody would be signed out.
            sync_directory(path.parent)
        except OSError as error:
            self._miss_secret(name, path, f"cannot be made{access.describe(error)}")
        return secret

    def _miss_secret(self, name: str, path: Path, trouble: str) -> None:
        self.problems.setdefault(name, f"'{path}' {trouble} Everybody is signed out whenever the server starts.")


def _read_secret(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _is_text(value: str) -> bool:
    """Whether it has a form in UTF-8: what the environment holds in another encoding has none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

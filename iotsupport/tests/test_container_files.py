"""The files in ``deploy/`` for containers name what there is. ``make container-test`` builds and runs the image."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.mosquitto import LoggedProcess, Mosquitto, Subscriber
from iotsupport.tests.support.ports import free_port

DEPLOY = BASE_DIR / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yml").read_text()

# Of the Compose Specification, those that are used here.
SERVICE_KEYS = {
    "build",
    "cap_drop",
    "environment",
    "image",
    "network_mode",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "user",
    "volumes",
}
# Python's own, and what finds programs.
NOT_OURS = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def known_variables() -> set[str]:
    return set(re.findall(r"^#?([A-Z_0-9]+)=", (BASE_DIR / ".env.example").read_text(), re.MULTILINE))


def with_all() -> str:
    """The compose file with all that is commented taken in: what is a comment has one blank after its mark."""
    text = re.sub(r"^( *)#(?! \S)", r"\1", COMPOSE, flags=re.MULTILINE)
    return text.replace('    ports: ["8000:8000"]\n', "")  # which it says


@pytest.fixture(params=[COMPOSE, with_all()], ids=["as it is", "with all that is commented"])
def compose(request: pytest.FixtureRequest) -> Any:
    return yaml.safe_load(request.param)


def test_what_the_image_is_built_from_is_there() -> None:
    lines = (BASE_DIR / ".dockerignore").read_text().splitlines()
    named = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = {path.parent.name for path in BASE_DIR.glob("*/apps.py")}

    missing = {name for name in named if not (BASE_DIR / name).exists()}
    assert missing <= {"requirements-sso.txt"}  # of an extra, where there is one
    assert packages | {"templates", "manage.py", "gunicorn.conf.py", "requirements.txt"} <= named
    assert lines.index("*") < min(lines.index(f"!{name}") for name in named)


def test_what_the_image_runs_is_there() -> None:
    modules = re.findall(r'"-m", "([\w.]+)"', DOCKERFILE)

    assert modules == ["iotsupport.container.health", "iotsupport.container.start"]
    assert all(find_spec(module) for module in modules)


def test_the_image_sets_variables_that_the_settings_know() -> None:
    [block] = re.findall(r"^ENV (.*?[^\\])\n", DOCKERFILE, re.DOTALL | re.MULTILINE)

    assert set(re.findall(r"(\w+)=", block)) - NOT_OURS <= known_variables()


def test_both_stages_are_the_python_that_is_named_once_and_tried() -> None:
    [name] = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    [tried] = re.findall(r"tried are ([\d., and]+\d)", (BASE_DIR / "README.md").read_text())

    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON}"] * 2
    assert re.findall(r"python:([\d.]+)-slim", name)[0] in re.split(r", | and ", tried)


def test_compose_has_keys_that_there_are_and_names_what_is_there(compose: Any) -> None:
    assert set(compose) == {"name", "services", "volumes"}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith("./") else source in compose["volumes"]
    build = compose["services"]["iotsupport"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_compose_sets_variables_that_the_settings_know(compose: Any) -> None:
    assert set(compose["services"]["iotsupport"]["environment"]) <= known_variables()


def test_compose_gives_the_server_more_time_to_end_than_it_takes(compose: Any) -> None:
    [ours] = re.findall(r"^graceful_timeout = (\d+)$", (BASE_DIR / "gunicorn.conf.py").read_text(), re.MULTILINE)

    assert int(compose["services"]["iotsupport"]["stop_grace_period"].removesuffix("s")) > int(ours)


def test_compose_takes_from_containers_what_they_do_not_need(compose: Any) -> None:
    for name in ["iotsupport", "mosquitto"]:
        service = compose["services"][name]
        assert (service["read_only"], service["cap_drop"], service["restart"]) == (True, ["ALL"], "unless-stopped")
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_all_that_is_commented_can_be_taken_in() -> None:
    services = yaml.safe_load(with_all())["services"]

    assert set(services) == {"iotsupport", "mosquitto", "nginx", "postgresql"}
    url = services["iotsupport"]["environment"]["DATABASE_URL"]
    assert re.fullmatch(r"postgresql://iotsupport:\S+@postgresql:5432/iotsupport", url)
    # Where deploy/nginx.conf looks for it, and for the files.
    assert "data:/var/lib/iotsupport:ro" in services["nginx"]["volumes"]
    assert services["iotsupport"]["environment"]["HOST"] == "127.0.0.1"
    # Docker refuses both together.
    assert services["iotsupport"]["network_mode"] == "service:nginx"
    assert "ports" not in services["iotsupport"]


class OfCompose(Mosquitto):
    """With the configuration of ``deploy/``, on free ports."""

    def __init__(self, directory: Path) -> None:
        LoggedProcess.__init__(self)
        self.port, self.of_server = free_port(), free_port()
        self._process = None
        self._config_file = directory / "mosquitto.conf"
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
        replaced = {
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "listener 1884": f"listener {self.of_server} 127.0.0.1",
            "/mosquitto/config/": f"{DEPLOY}/mosquitto/",
            "/mosquitto/data/": f"{directory}/",
        }
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        self._config_file.write_text(f"{text}\nlog_type all\nuser root\n")


@pytest.mark.processes
def test_boards_hear_what_the_server_announces_and_can_announce_nothing(tmp_path: Path) -> None:
    broker = OfCompose(tmp_path).start()
    try:
        with Subscriber(broker.port) as board, Subscriber(broker.of_server) as server:
            board.publish("iotsupport/updates/configs", b"from a board")
            server.publish("iotsupport/updates/configs", b"from the server")

            assert board.before(b"from the server") == []
    finally:
        broker.stop()

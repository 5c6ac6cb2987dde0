"""docs/install.md and the units of systemd that it installs; `make install-test` does what the page says."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.install_page import blocks, commands
from iotsupport.tests.support.waiting import LIMIT

UNITS = sorted(path for path in (BASE_DIR / "deploy").iterdir() if path.suffix in {".service", ".socket", ".timer"})
SERVICES = [path for path in UNITS if path.suffix == ".service"]
# Of other packages.
THEIRS = {"mosquitto", "nginx"}
DATA_DIR = "/var/lib/iotsupport"


def typed() -> str:
    return "\n".join(block.commands for block in blocks()).replace("\\\n", "")


def run(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=BASE_DIR, input=stdin, capture_output=True, text=True, timeout=LIMIT)


def section(path: Path, name: str) -> dict[str, list[str]]:
    """What a unit says in a section; a name may be there several times."""
    text = path.read_text().partition(f"[{name}]\n")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def sandbox(path: Path) -> str:
    return path.read_text().partition("# --- What it may")[2].partition("\n")[2].partition("\n[")[0].strip()


class TestThePage:
    def test_says_of_what_cannot_be_tried_that_it_is_on_paper(self):
        on_paper = [block.commands for block in blocks() if block.is_on_paper]

        assert len(commands()) > 10
        assert [re.findall("certbot|ufw", text)[0] for text in on_paper] == ["certbot", "ufw"]

    def test_names_commands_and_files_that_there_are(self):
        targets = re.findall(r"^([\w-]+):", (BASE_DIR / "Makefile").read_text(), re.MULTILINE)

        assert set(re.findall(r"manage\.py (\w+)", typed())) <= set(get_commands())
        assert set(re.findall(r"^make ([\w-]+)", typed(), re.MULTILINE)) <= set(targets)
        for pattern in re.findall(r"deploy/[\w.*-]+", typed()):
            assert list(BASE_DIR.glob(pattern)), pattern

    def test_starts_units_that_there_are_and_all_of_them(self):
        named = set()
        for line in re.findall(r"systemctl (?:--\S+ )*(?:enable|restart|start|stop|status)(.*)", typed()):
            named |= {word for word in line.split() if not word.startswith("-")}

        enabled = {path.name for path in UNITS if "[Install]" in path.read_text()}
        assert enabled <= named <= enabled | THEIRS

    def test_sets_variables_that_are_read(self):
        [text] = re.findall(r"cat > /etc/iotsupport\.env <<END\n(.*?)^END$", typed(), re.DOTALL | re.MULTILINE)
        documented = re.findall(r"`([A-Z0-9_]+)`", (BASE_DIR / "docs/settings.md").read_text())

        assert {line.partition("=")[0] for line in text.splitlines()} <= set(documented)
        assert f"DATA_DIR={DATA_DIR}\n" in text

    @pytest.mark.sqlite("commands of a page")
    @pytest.mark.processes
    def test_is_something_that_a_shell_can_read(self):
        script = typed().replace("<this repository>", "repository")

        assert run("bash", "-n", stdin=script).stderr == ""

    @pytest.mark.sqlite("commands of a page")
    @pytest.mark.processes
    def test_takes_in_the_lines_of_nginx_for_https_and_no_others(self):
        [command] = re.findall(r"^sed .*? deploy/nginx\.conf", typed(), re.MULTILINE)

        done = run("bash", "-c", f"name=boards.example.org; {command}")

        before = (BASE_DIR / "deploy/nginx.conf").read_text().splitlines()
        changed = [(old, new) for old, new in zip(before, done.stdout.splitlines(), strict=True) if old != new]
        assert len(changed) == 9
        for old, new in changed:
            assert old.replace("#", " ", 1).split() == new.replace("boards.example.org", "iot.example.com").split()
        assert not re.search("^ *#(?:listen|ssl_|if|    return)", done.stdout, re.MULTILINE)


class TestTheUnits:
    @pytest.mark.sqlite("files of systemd")
    @pytest.mark.processes
    def test_are_understood_by_systemd_and_leave_little_to_who_breaks_in(self, tmp_path: Path):
        for path in UNITS:
            # Where the programs are.
            copy = tmp_path / path.name
            copy.write_text(path.read_text().replace("/opt/iotsupport", str(BASE_DIR)))
        analyze = shutil.which("systemd-analyze")
        assert analyze, "systemd is missing"

        done = run(analyze, "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS))
        assert (done.returncode, done.stderr) == (0, "")

        for path in SERVICES:
            # In tenths: 96 for a service without a sandbox.
            done = run(analyze, "security", "--offline=true", "--threshold=16", "--no-pager", str(path))
            assert done.returncode == 0, done.stdout

    def test_may_do_no_more_one_than_the_other(self):
        [one, other] = [sandbox(path) for path in SERVICES]

        assert one == other
        assert len(one.splitlines()) > 20

    def test_stop_later_than_gunicorn_kills_its_workers(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which the file sets
        conf = runpy.run_path(str(BASE_DIR / "gunicorn.conf.py"))

        [seconds] = section(BASE_DIR / "deploy/iotsupport.service", "Service")["TimeoutStopSec"]
        assert int(seconds) >= conf["graceful_timeout"] + 10

    def test_have_the_directory_and_the_socket_that_nginx_has(self):
        nginx = (BASE_DIR / "deploy/nginx.conf").read_text()
        socket = section(BASE_DIR / "deploy/iotsupport-checkins.socket", "Socket")

        assert {path.partition("/")[2] for path in re.findall(r"unix:(/[^,]+)", nginx)} == {
            path.partition("/")[2] for path in socket["ListenDatagram"]
        }
        for path in SERVICES:
            assert section(path, "Service")["StateDirectory"] == [Path(DATA_DIR).name]
        assert f"alias {DATA_DIR}/configs/" in nginx
        assert f"user {socket['SocketGroup'][0]};" in nginx

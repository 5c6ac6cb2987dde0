"""Images and containers of podman and buildah, which need no service of their own, in a directory that is removed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.waiting import LIMIT

# Of Debian, as the official image of Python is. Its own Python has the version that the Dockerfile names.
RELEASE = "trixie"
PACKAGES = "ca-certificates,python3,python3-venv,tzdata"

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Of pip's settings on this machine, those that say where packages come from.
PIP_SETTING = re.compile(r"^(?:global|install|user|site|:env:)\.(index-url|proxy|trusted-host)='(.*)'$", re.MULTILINE)

# What a container in a container often may not have: control groups of its own, higher limits, a network of its own.
HERE = ["--network=host", "--cgroups=disabled", "--ulimit=nofile=4096:4096", "--ulimit=nproc=1000:1000"]

# Docker's --read-only leaves /tmp read only, too.
HARDENED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]

BUILD_SECONDS = 1200.0


class Engine:
    """podman and buildah with images of their own. Run it in a mount namespace that ends with the tests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        driver = "overlay" if _can_overlay(directory) else "vfs"
        self._store = [f"--root={directory}/images", f"--runroot={directory}/run", f"--storage-driver={driver}"]

    def podman(self, *arguments: str, check: bool = True, seconds: float = LIMIT) -> subprocess.CompletedProcess[str]:
        options = ["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=crun"]
        return _run(["podman", *self._store, *options, *arguments], check=check, seconds=seconds)

    def import_image(self, archive: Path, name: str) -> None:
        self.podman("import", str(archive), name, seconds=BUILD_SECONDS)

    def build(self, name: str, *arguments: str) -> None:
        """Build ``deploy/Dockerfile`` as a stranger does; nothing is pulled, and pip asks whom it asks here."""
        conf = self.directory / "pip.conf"
        conf.write_text(pip_conf())
        secrets = [f"--secret=id=pip.conf,src={conf}"]
        if CERTIFICATES.exists():
            secrets.append(f"--secret=id=ca.pem,src={CERTIFICATES}")
        options = ["--isolation=chroot", "--pull-never", "--format=docker", f"--file={BASE_DIR}/deploy/Dockerfile"]
        command = ["buildah", *self._store, "build", *options, *secrets, *arguments, f"--tag={name}", str(BASE_DIR)]
        _run(command, seconds=BUILD_SECONDS)

    def inspect(self, name: str) -> Any:
        return json.loads(self.podman("inspect", name).stdout)[0]

    def in_image(self, image: str, *command: str, volume: str = "") -> str:
        """What a command in a new container of the image prints, with this volume if one is named."""
        options = [f"--volume={volume}:/data"] if volume else []
        return self.podman("run", "--rm", "--no-healthcheck", *HERE, *options, image, *command).stdout

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time=0", check=False)
        self.podman("volume", "rm", "--all", "--force", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


class Container:
    """One of an image, with a volume; hardened as ``deploy/compose.yml`` has it. Its port is one of this machine."""

    def __init__(
        self, engine: Engine, image: str, name: str, port: int, volume: str, *, is_hardened: bool = True, **environ: str
    ) -> None:
        self._engine, self.name, self.volume = engine, name, volume
        self.url = f"http://127.0.0.1:{port}"
        options = [f"--env={variable}={value}" for variable, value in {"PORT": str(port), **environ}.items()]
        if is_hardened:
            options += HARDENED
        engine.podman("create", f"--name={name}", *HERE, *options, f"--volume={volume}:/data", image)

    def start(self) -> None:
        self._engine.podman("start", self.name)

    def signal(self, name: str) -> None:
        self._engine.podman("kill", f"--signal={name}", self.name)

    def wait(self) -> int:
        """Return its exit code."""
        return int(self._engine.podman("wait", self.name).stdout)

    @property
    def log(self) -> str:
        done = self._engine.podman("logs", self.name)
        return done.stdout + done.stderr

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command beside the server."""
        return self._engine.podman("exec", self.name, *command, check=check)

    def is_healthy(self) -> bool:
        """What the health check of the image says now."""
        return self._engine.podman("healthcheck", "run", self.name, check=False).returncode == 0

    def changes(self) -> list[str]:
        """What differs from the image, but for what is mounted there."""
        return self._engine.podman("diff", self.name).stdout.splitlines()


def make_base(archive: Path) -> None:
    """Write a root file system that stands in for the official image of Python: nothing is fetched from a registry."""
    with tempfile.TemporaryDirectory(prefix="iotsupport-base-", dir=archive.parent) as temporary:
        root = Path(temporary) / "root"
        _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root)], seconds=BUILD_SECONDS)
        left_out = ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./usr/share/doc/*"]
        draft = archive.with_suffix(".part")
        _run(["tar", "-C", str(root), *left_out, "-cf", str(draft), "."], seconds=BUILD_SECONDS)
        draft.rename(archive)


def pip_conf() -> str:
    """Where pip finds packages here, for the build alone: an index of one's own, a proxy, certificates."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = dict(PIP_SETTING.findall(listed.stdout))
    if CERTIFICATES.exists():
        found["cert"] = "/run/secrets/ca.pem"
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in found.items())]) + "\n"


def _can_overlay(directory: Path) -> bool:
    """Whether files can be laid over others here; without, each container is a copy of its image."""
    places = {name: directory / "try" / name for name in ["lower", "upper", "work", "merged"]}
    for place in places.values():
        place.mkdir(parents=True)
    options = f"lowerdir={places['lower']},upperdir={places['upper']},workdir={places['work']}"
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, places["merged"]], capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", places["merged"]], check=True)
    with suppress(OSError):
        shutil.rmtree(directory / "try")
    return done.returncode == 0


def _run(command: Sequence[str], *, check: bool = True, seconds: float) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done

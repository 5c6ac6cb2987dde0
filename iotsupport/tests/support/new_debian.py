"""``make install-test``: does what docs/install.md says in a new Debian, line by line, and tries what came of it.

debootstrap makes the Debian in a temporary directory, and systemd-nspawn boots it: systemd is its first process, with
the units' sandboxes and all. It has this machine's network, so the ports of the services have to be free, and takes
packages from where this machine takes them; of the repository, what is committed. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.install_page import PAGE, blocks, commands
from iotsupport.tests.support.waiting import looks

RELEASE = "bookworm"
PORTS = [80, 443, 1883, 8000, 8883]
REPOSITORY = "/srv/iot-support.git"
# What the page calls it, and what a person puts there.
IN_THE_PAGE = "<this repository>"
AFTERWARDS = Path(__file__).with_name("installed.sh")

ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class CannotTry(Exception):
    """The machine lacks something. The message is a sentence for a person."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Do what docs/install.md says in a new Debian.")
    parser.add_argument("--base", type=Path, help="keep the new Debian in this directory, and begin with it next time")
    options = parser.parse_args(arguments)
    try:
        require_free_ports()
        with tempfile.TemporaryDirectory(prefix="iotsupport-install-", dir="/var/tmp") as directory:
            root = Path(directory) / "root"
            make_root(root, options.base)
            subprocess.run(["git", "clone", "--quiet", "--bare", str(BASE_DIR), f"{root}{REPOSITORY}"], check=True)
            with booted(root, pass_packages_on(root)) as leader:
                run(leader, root, script_of_page())
                run(leader, root, AFTERWARDS.read_text())
    except CannotTry as error:
        print(error, file=sys.stderr)
        return 1
    tried, on_paper = len(commands()), len(blocks()) - len(commands())
    print(f"{PAGE.name}: {tried} blocks of commands were run, {on_paper} are on paper.")
    return 0


def require_free_ports() -> None:
    taken = []
    for port in PORTS:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("0.0.0.0", port))  # noqa: S104 - nobody is let in
            except OSError:
                taken.append(str(port))
    if taken:
        names = ", ".join(taken)
        raise CannotTry(f"Ports are taken that the services need: {names}. End what uses them, and try again.")


def make_root(root: Path, base: Path | None) -> None:
    if base is None or not base.exists():
        print(f"Making a new Debian ({RELEASE})…", flush=True)
        target = base or root
        included = "--include=systemd,systemd-sysv,dbus"
        subprocess.run(
            ["debootstrap", "--variant=minbase", included, RELEASE, str(target), *mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    if base is not None:
        subprocess.run(["cp", "--archive", str(base), str(root)], check=True)
    # As the installer of Debian writes it.
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")


def mirror() -> list[str]:
    """Where this machine has Debian's packages from; nothing where that is as debootstrap has it."""
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if file.is_file() and (found := re.search(r"https?://\S+/debian/?(?=\s)", file.read_text())):
            return [found[0]]
    return []


def pass_packages_on(root: Path) -> list[str]:
    """Have apt and pip in there find packages as they do here; return options of systemd-nspawn."""
    for file in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(file, root / "etc/apt/apt.conf.d")
    found = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    values = dict(re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", found.stdout, re.MULTILINE))
    directories = set()
    for token in {token for value in values.values() for token in value.split()}:
        path = Path(token.removeprefix("file://"))
        if path.is_absolute() and path.is_file():  # copied: packages in there replace their own
            shutil.copy(path, root / "srv" / path.name)
            values = {name: value.replace(token, f"/srv/{path.name}") for name, value in values.items()}
        elif path.is_absolute() and path.is_dir():
            directories.add(path.parent if path.name == "simple" else path)
    (root / "etc/pip.conf").write_text("\n".join(["[global]", *map(" = ".join, values.items()), ""]))
    return [f"--bind-ro={path}" for path in sorted(directories)]


@contextmanager
def booted(root: Path, options: list[str]) -> Iterator[int]:
    """A machine that has started; yields the process on this one that is its first."""
    command = [
        *["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"],
        *["--resolv-conf=copy-host", "--machine=iotsupport-install-test", f"--directory={root}", *options],
    ]
    with open(root.with_name("boot.log"), "wb") as log:
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield wait_for_boot(nspawn, root)
    finally:
        # Asks its systemd to halt, which ends all in it.
        nspawn.terminate()
        try:
            nspawn.wait(90)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def wait_for_boot(nspawn: subprocess.Popen[bytes], root: Path) -> int:
    for may_come in looks():
        if nspawn.poll() is not None or not may_come:
            break
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        if children:
            leader = int(children[0])
            asking = [*inside(leader), "systemctl", "is-system-running", "--wait"]
            if subprocess.run(asking, capture_output=True, text=True).stdout.strip() in {"running", "degraded"}:
                return leader
    raise CannotTry(f"No machine could be booted here:\n{root.with_name('boot.log').read_text(errors='replace')}")


def inside(leader: int) -> list[str]:
    environ = [f"{name}={value}" for name, value in ENVIRON.items()]
    return ["nsenter", f"--target={leader}", "--all", "env", "--ignore-environment", "--chdir=/root", *environ]


def script_of_page() -> str:
    """All that can be tried, for one shell, as somebody types it; it ends with the first command that fails."""
    parts = [f": '--- {PAGE.name}, line {block.line}'\n{block.commands}" for block in commands()]
    return "\n".join(parts).replace(IN_THE_PAGE, REPOSITORY)


def run(leader: int, root: Path, script: str) -> None:
    file = root / "srv/commands.sh"
    file.write_text(script)
    done = subprocess.run([*inside(leader), "bash", "-ex", "/srv/commands.sh"], stdin=subprocess.DEVNULL)
    if done.returncode:
        journal = [*inside(leader), "journalctl", "--no-pager", "--lines=60", "--unit=iotsupport*", "--unit=nginx"]
        subprocess.run(journal, check=False)
        raise CannotTry(f"That command failed ({done.returncode}).")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("Only root can boot a machine: run it as root.")
    sys.exit(main(sys.argv[1:]))

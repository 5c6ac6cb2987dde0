"""A real nginx with deploy/nginx.conf, in front of a server of the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import requests

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.mosquitto import Certificates, LoggedProcess
from iotsupport.tests.support.ports import free_port
from iotsupport.tests.support.server import Server
from iotsupport.tests.support.waiting import LIMIT, poll

# Debian keeps it where only root's PATH looks.
PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"

# Where nginx keeps bodies that do not fit into memory: built in, and only root's.
TEMPORARY_FILES = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


@contextmanager
def directory_for_nginx() -> Iterator[Path]:
    """A directory that nginx's user may enter; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="iotsupport-nginx-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _with_https(text: str, address: str, certificates: Certificates) -> str:
    """Take in the lines for HTTPS, as an administrator does."""
    before, begin, rest = text.partition("        # HTTPS for people")
    lines, end, after = rest.partition("\n\n")
    lines = re.sub("^        #", "        ", lines, flags=re.MULTILINE)
    for old, new in [
        ("listen 443 ", f"listen {address} "),
        ("listen [::]:443 ssl http2 default_server;", ""),
        ("/etc/ssl/certs/iot.example.com.pem", str(certificates.certificate)),
        ("/etc/ssl/private/iot.example.com.key", str(certificates.key)),
    ]:
        assert old in lines, old
        lines = lines.replace(old, new)
    return before + begin + lines + end + after


class Nginx(LoggedProcess):
    """Nothing but addresses and paths differs from the file.

    ``is_asking`` takes its two lines out, ``certificates`` those for HTTPS in. ``checkins`` is a socket that is told of
    downloads in place of the server's.
    """

    def __init__(
        self,
        directory: Path,
        server: Server,
        *,
        is_asking: bool = False,
        certificates: Certificates | None = None,
        checkins: Path | None = None,
        workers: str = "auto",
    ) -> None:
        super().__init__()
        directory.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = (BASE_DIR / "deploy/nginx.conf").read_text()
        for old, new in [
            ("/var/lib/iotsupport/checkins.sock", str(checkins or server.data_dir / "checkins.sock")),
            ("/var/lib/iotsupport", str(server.data_dir)),
            ("worker_processes auto;", f"worker_processes {workers};"),
            ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
            ("listen 80 default_server;", f"listen 127.0.0.1:{self.port} default_server;"),
            ("listen [::]:80 default_server;", ""),
            ("/run/nginx.pid", str(directory / "nginx.pid")),
            ("/var/log/nginx/error.log", "stderr"),
            ("/var/log/nginx/access.log", str(directory / "access.log")),
            *([('GET "";', '#GET "";'), ('HEAD "";', '#HEAD "";')] if is_asking else []),
            ("http {", "http {" + "".join(f"\n{name}_temp_path {directory / name};" for name in TEMPORARY_FILES)),
        ]:
            assert old in text, old
            text = text.replace(old, new)
        if certificates is not None:
            self.tls_port = free_port()
            text = _with_https(text, f"127.0.0.1:{self.tls_port}", certificates)
        if os.geteuid():
            text = re.sub(r"^user .*", "", text, flags=re.MULTILINE)
        # Fewer than an installation has: a container may not allow so many.
        text = re.sub(r"^worker_rlimit_nofile .*", "", text, flags=re.MULTILINE)
        self.config_file = directory / "nginx.conf"
        self.config_file.write_text(text)
        self._process: subprocess.Popen[str] | None = None

    def command(self, *options: str) -> list[str]:
        return [PROGRAM, "-e", "stderr", "-c", str(self.config_file), *options]

    def start(self) -> Self:
        """Return when it answers."""
        self._process = self._start(*self.command("-g", "daemon off;"))
        poll(self._answers, bool)
        return self

    def reload(self) -> None:
        """Have it read its files again, as ``systemctl reload`` does. Those who ask meanwhile may meet either."""
        subprocess.run(self.command("-s", "reload"), check=True, capture_output=True, timeout=LIMIT)

    def stop(self) -> None:
        """End it with its workers, and whatever they are sending. Idempotent."""
        if self._process is not None:
            self._process.terminate()
            self._wait_for_end(self._process)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            return bool(requests.get(f"{self.url}/health", timeout=LIMIT))
        except requests.ConnectionError:
            return False

"""nginx as a contender: bare, and as ``deploy/nginx.conf`` sets it up in front of a server of ours."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.harness import ROOT, Server, environ, free_port, serve

# Debian keeps it where only root's PATH looks.
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
DEPLOYED = ROOT / "deploy" / "nginx.conf"

TEMPORARY_PATHS = "".join(
    f" {kind}_temp_path {{directory}}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
)
BARE = """
worker_processes 2; pid {directory}/pid;
events {{}}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def bare(data_dir: Path) -> AbstractContextManager[Server]:
    """It serves the directory, and does nothing else."""
    port = free_port()
    return _serve(
        data_dir / "nginx-bare", BARE.format(directory=data_dir / "nginx-bare", port=port, root=data_dir), port
    )


def deployed(
    data_dir: Path, upstream: Server, *, name: str = "nginx-deployed", checkins: str | None = "checkins.sock"
) -> AbstractContextManager[Server]:
    """``deploy/nginx.conf``, of which nothing differs but addresses and paths; it tells ``checkins``, if anybody."""
    port, directory = free_port(), data_dir / name
    text = DEPLOYED.read_text().replace("/var/lib/iotsupport", str(data_dir))
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{upstream.port}")
    for pattern, new in [
        (r"^\s*listen 80\b[^;]*;", f"listen 127.0.0.1:{port};"),
        (r"^\s*listen \[::\][^;]*;", ""),
        (r"^\s*user\s[^;]*;", "" if os.geteuid() else r"\g<0>"),
        (r"^\s*pid\s[^;]*;", f"pid {directory}/pid;"),
        (r"^\s*error_log\s[^;]*;", ""),
        (r"^(\s*access_log) /\S+", rf"\1 {directory}/access.log"),
        (r"^\s*worker_rlimit_nofile\s[^;]*;", ""),  # a container may not allow so many
        (r"^(\s*access_log syslog:.*)/checkins\.sock(.*)", rf"\1/{checkins}\2" if checkins else ""),
    ]:
        text = re.sub(pattern, new, text, flags=re.MULTILINE)
    if f":{port};" not in text:
        raise RuntimeError(f"{DEPLOYED.name} listens where it is not expected to.")
    return _serve(directory, text, port)


def _serve(directory: Path, config: str, port: int) -> AbstractContextManager[Server]:
    directory.mkdir(exist_ok=True)
    paths = TEMPORARY_PATHS.format(directory=directory)
    (directory / "nginx.conf").write_text(config.replace("http {", "http {" + paths, 1))
    command = [PROGRAM or "nginx", "-e", "/dev/null", "-c", f"{directory}/nginx.conf", "-g", "daemon off;"]
    return serve(command, port, environ(directory))

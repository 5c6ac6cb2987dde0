"""What one download costs, and how many there are in a second: ours and others, in turn, on the same files.

``python -m benchmarks.download``. Needs wrk; nginx takes part where it is installed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.harness import Server, data_directory, environ, free_port, gunicorn, manage, print_table, serve, spread

MAC = "aa-bb-cc-dd-ee-ff"
CONFIG_BYTES = 1000
ASSET_BYTES = 1_500_000

NGINX = """
daemon off; worker_processes 2; error_log /dev/null; pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off; sendfile on; keepalive_requests 1000000;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{ listen 127.0.0.1:{port}; root {directory}; }}
}}
"""


class Contender(NamedTuple):
    name: str
    server: AbstractContextManager[Server]
    # Of a configuration and of an asset.
    paths: tuple[str, str]


def _contenders(data_dir: Path) -> list[Contender]:
    plain_paths = (f"/plain/configs/{MAC}.json", "/plain/assets/firmware.bin")
    found = [
        Contender("ours", gunicorn(data_dir), (f"/configs/{MAC}.json", "/assets/firmware.bin")),
        # Spellings that the answers ahead of Django leave to the views.
        Contender("our view", gunicorn(data_dir), (f"/configs/{MAC.upper()}.json", "/assets/copy of firmware.bin")),
    ]
    for middleware in ["ours", "startproject", "bare"]:
        env = {"BENCHMARK_DIR": str(data_dir), "BENCHMARK_MIDDLEWARE": middleware}
        plain = gunicorn(data_dir, "--worker-class=gthread", application="benchmarks.plain", **env)
        found.append(Contender(f"FileResponse, middleware: {middleware}", plain, plain_paths))
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={data_dir}", str(port)]
    paths = (f"/configs/{MAC}.json", "/assets/firmware.bin")
    found.append(Contender("python -m http.server", serve(command, port, environ(data_dir)), paths))
    if nginx := shutil.which("nginx"):
        port = free_port()
        (data_dir / "nginx.conf").write_text(NGINX.format(directory=data_dir, port=port))
        command = [nginx, "-e", "/dev/null", "-c", str(data_dir / "nginx.conf")]
        found.append(Contender("nginx", serve(command, port, environ(data_dir)), paths))
    return found


def _fill(data_dir: Path) -> None:
    padding = "x" * (CONFIG_BYTES - 30)
    for folder, name, content in [
        ("configs", f"{MAC}.json", f'{{"deviceName": "{padding}"}}'),
        ("assets", "firmware.bin", "x" * ASSET_BYTES),
        ("assets", "copy of firmware.bin", "x" * ASSET_BYTES),
    ]:
        (data_dir / "import" / folder).mkdir(parents=True, exist_ok=True)
        (data_dir / "import" / folder / name).write_text(content)
    manage(data_dir, "import_configs", str(data_dir / "import" / "configs"))
    manage(data_dir, "import_assets", str(data_dir / "import" / "assets"))
    data_dir.chmod(0o755)  # for nginx, which changes its user


def _load(server: Server, path: str, seconds: int) -> tuple[float, float]:
    """Return downloads per second, and microseconds of CPU time for each."""
    before = server.cpu_seconds()
    command = [
        "wrk",
        "--threads=1",
        "--connections=16",
        f"--duration={seconds}",
        f"http://127.0.0.1:{server.port}{path}",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    busy = server.cpu_seconds() - before
    if "Non-2xx" in output:
        raise RuntimeError(f"{path} is refused: {output}")
    [(count, rate)] = re.findall(r"(\d+) requests in .*?Requests/sec: *([\d.]+)", output, re.DOTALL)
    return float(rate), busy / int(count) * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load, each time")
    options = parser.parse_args(arguments)
    with data_directory() as data_dir, ExitStack() as stack:
        _fill(data_dir)
        running = [(contender, stack.enter_context(contender.server)) for contender in _contenders(data_dir)]
        for kind, size in enumerate([CONFIG_BYTES, ASSET_BYTES]):
            results: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender, _ in running}
            for number in range(options.rounds + 1):
                for contender, server in running:
                    result = _load(server, contender.paths[kind].replace(" ", "%20"), options.seconds)
                    if number:  # The first is to warm up.
                        results[contender.name].append(result)
            ours_rate, ours_cpu = (median(values) for values in zip(*results["ours"], strict=True))
            rows = [[f"{size:,} bytes", "downloads/s", "ours: times", "CPU µs", "ours: share"]]
            for name, measured in results.items():
                rates, costs = zip(*measured, strict=True)
                shares = f"{ours_rate / median(rates):.2f}", f"{ours_cpu / median(costs):.2f}"
                rows.append([name, spread(rates), shares[0], spread(costs), shares[1]])
            print_table(rows)
            print()


if __name__ == "__main__":
    main()

"""What one download costs, and how many there are in a second: ours and others, in turn, on the same files.

``python -m benchmarks.download``. Needs wrk; nginx takes part where it is installed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import nginx
from benchmarks.harness import (
    Server,
    beside,
    data_directory,
    environ,
    free_port,
    gunicorn,
    manage,
    print_claim,
    print_table,
    serve,
    spread,
)

MAC = "aa-bb-cc-dd-ee-ff"
CONFIG_BYTES = 1000
ASSET_BYTES = 1_500_000

OURS = "ours"
FILE_RESPONSE = "FileResponse, middleware: {}"
NGINX = "nginx, bare"
DEPLOYED_NGINX = "nginx with deploy/nginx.conf"

Results = dict[str, list[tuple[float, float]]]
"""By contender: downloads per second, and microseconds of CPU time for each."""


class Contender(NamedTuple):
    name: str
    server: Server
    # Of a configuration and of an asset.
    paths: tuple[str, str]


@contextmanager
def _contenders(data_dir: Path) -> Iterator[list[Contender]]:
    """Running, all of them."""
    paths = (f"/configs/{MAC}.json", "/assets/firmware.bin")
    plain_paths = (f"/plain/configs/{MAC}.json", "/plain/assets/firmware.bin")
    # Spellings that the answers ahead of Django leave to the views.
    view_paths = (f"/configs/{MAC.upper()}.json", "/assets/copy of firmware.bin")
    with ExitStack() as stack:
        run = stack.enter_context
        ours = run(gunicorn(data_dir))
        found = [Contender(OURS, ours, paths)]
        found.append(Contender("our view", run(gunicorn(data_dir, **beside(data_dir, "view"))), view_paths))
        for middleware in ["ours", "startproject", "bare"]:
            env = {"BENCHMARK_DIR": str(data_dir), "BENCHMARK_MIDDLEWARE": middleware, **beside(data_dir, middleware)}
            plain = run(gunicorn(data_dir, "--worker-class=gthread", application="benchmarks.plain", **env))
            found.append(Contender(FILE_RESPONSE.format(middleware), plain, plain_paths))
        port = free_port()
        command = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={data_dir}", str(port)]
        found.append(Contender("python -m http.server", run(serve(command, port, environ(data_dir))), paths))
        if nginx.PROGRAM:
            found.append(Contender(NGINX, run(nginx.bare(data_dir)), paths))
            if nginx.DEPLOYED.exists():
                found.append(Contender(DEPLOYED_NGINX, run(nginx.deployed(data_dir, ours)), paths))
        yield found


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
    with data_directory() as data_dir:
        _fill(data_dir)
        with _contenders(data_dir) as contenders:
            for kind, size in enumerate([CONFIG_BYTES, ASSET_BYTES]):
                results: Results = {contender.name: [] for contender in contenders}
                for number in range(options.rounds + 1):
                    for contender in contenders:
                        path = contender.paths[kind].replace(" ", "%20")
                        result = _load(contender.server, path, options.seconds)
                        if number:  # The first is to warm up.
                            results[contender.name].append(result)
                print_results(size, results)


def print_results(size: int, results: Results) -> None:
    ours = results[OURS]
    rows = [[f"{size:,} bytes", "downloads/s", "ours: times", "CPU µs", "ours: share"]]
    for name, theirs in results.items():
        rates, costs = zip(*theirs, strict=True)
        rows.append(
            [name, spread(rates), f"{_ratio(ours, theirs, 0):.2f}", spread(costs), f"{_ratio(ours, theirs, 1):.2f}"]
        )
    print_table(rows)
    print()
    if size == CONFIG_BYTES:
        # What one would write first. Behind our own middleware it is slower, and without any it is faster.
        plain = results[FILE_RESPONSE.format("startproject")]
        print_claim("CPU time of a configuration, as a share of FileResponse's", _ratio(ours, plain, 1), at_most=0.25)
        print_claim("rate of configurations, in multiples of FileResponse's", _ratio(ours, plain, 0), at_least=4)
    elif NGINX in results:
        print_claim("rate of an asset, as a share of nginx's", _ratio(ours, results[NGINX], 0), at_least=0.8)
    if DEPLOYED_NGINX in results:
        share = _ratio(results[DEPLOYED_NGINX], results[NGINX], 0)
        claim = f"rate of {size:,} bytes with deploy/nginx.conf, as a share of bare nginx's"
        print_claim(claim, share, at_least=0.9)
    print()


def _ratio(ones: list[tuple[float, float]], others: list[tuple[float, float]], column: int) -> float:
    return median(one[column] for one in ones) / median(other[column] for other in others)


if __name__ == "__main__":
    main()

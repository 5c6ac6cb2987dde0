"""LOG_FORMAT=json on a real server: each line of it is one object, whoever writes it and whatever strangers send."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from iotsupport.tests.support.server import NEW, Installation, Server
from iotsupport.tests.support.waiting import LIMIT, poll

pytestmark = pytest.mark.processes

MAC = "aa-bb-cc-dd-ee-ff"


def send(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_every_line_is_json_of_master_workers_and_commands(template: Installation, tmp_path: Path) -> None:
    server = Server(template, tmp_path / "server", LOG_FORMAT="json", MQTT_URL="nonsense").start(*NEW)
    try:
        with server.client() as client:
            assert client.get("/configs", headers={"X-Request-ID": "of-a-script"}).ok
            client.save_config(MAC, b"{}")
            for path in ["/health", "/metrics"]:
                for sent in ["first", "second"]:
                    assert client.get(path, headers={"X-Request-ID": sent}).headers["X-Request-ID"] == sent
        hostile = b'\x01\x1b[2J\xff"}{\\' * 400
        assert b" 400 " in send(server.port, b"GET /%s HTTP/1.1\r\n\r\n" % hostile)
        assert b" 400 " in send(server.port, b"GET /admin/ HTTP/1.1\r\nHost: %s\r\n\r\n" % b'a_b"\\')
        fields = {"username": 'a"\n{"level": "ERROR"} \U0001f4a3', "password": "canary-password"}
        with requests.Session() as browser:
            browser.cookies.set("csrftoken", "c" * 32)
            fields["csrfmiddlewaretoken"] = "c" * 32
            failed = browser.post(f"{server.url}/admin/login/", fields, headers={"X-Request-ID": "of-a-guesser"})
        server.wait_for_log("Failed sign-in")
        [worker] = server.workers()
        os.kill(worker, signal.SIGKILL)
        poll(server.workers, lambda found: bool(found) and found != [worker])
        server.wait_for_log("Booting worker", count=2)
        said = server.manage("import_configs", str(tmp_path), LOG_FORMAT="json", MQTT_URL="nonsense", check=False)
        server.stop()
    finally:
        server.remove()

    lines: list[dict[str, Any]] = [json.loads(line) for line in server.lines]
    of_commands = [json.loads(line) for line in said.stderr.splitlines() if line.startswith("{")]
    assert failed.status_code == 200
    assert of_commands and {line["logger"] for line in of_commands} >= {"notifications.publisher"}
    for line in lines + of_commands:
        assert list(line)[:5] == ["time", "level", "logger", "message", "request_id"]
    assert {line["logger"] for line in lines} >= {"gunicorn.error", "iotsupport.accounts.signin"}
    messages = " ".join(line["message"] for line in lines)
    for text in ["Starting gunicorn", "Booting worker", "SIGKILL", "Refused a request of 127.0.0.1", "Shutting down"]:
        assert text in messages
    [guessed] = [line for line in lines if line["message"].startswith("Failed sign-in")]
    assert guessed["request_id"] == "of-a-guesser"
    assert "canary-password" not in "".join(server.lines)

"""A provider of OpenID Connect in a thread of the test, whose answers a test decides: what a real one never says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "iot", "never-to-be-shown"


class Provider:
    """What it says: change ``metadata``, ``claims`` of the token, ``userinfo``, or what it signs with.

    ``asked`` has the path of each request, and ``sent`` the fields of each one for a token.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.key: Any = _key()
        self.algorithm, self.signs_with = "RS256", self.key
        self.metadata: dict[str, Any] = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks",
            "userinfo_endpoint": f"{url}/userinfo",
        }
        self.claims: dict[str, Any] = {"iss": url, "sub": "4711", "aud": CLIENT_ID}
        self.claims |= {"iat": int(time.time()), "exp": int(time.time()) + 300}
        self.userinfo: dict[str, Any] = {"sub": "4711", "preferred_username": "maria", "groups": ["iot-admins"]}
        self.refusal: tuple[int, Any] | None = None
        self.kid: str | None = "1"
        self.more_keys: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.sent: list[dict[str, str]] = []

    def answer(self, path: str, fields: dict[str, str]) -> tuple[int, Any]:
        self.asked.append(path)
        match path:
            case "/.well-known/openid-configuration":
                return 200, self.metadata
            case "/jwks":
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
                return 200, {"keys": [{**public, "kid": "1", "alg": "RS256", "use": "sig"}, *self.more_keys]}
            case "/token":
                self.sent.append(fields)
                token = jwt.encode(
                    self.claims, self.signs_with, self.algorithm, headers={"kid": self.kid} if self.kid else {}
                )
                return self.refusal or (200, {"access_token": "secret-access", "id_token": token})
            case "/userinfo":
                return 200, self.userinfo
        return 404, {}


@contextmanager
def serving() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            fields = parse_qs(self.rfile.read(length).decode())
            status, said = provider.answer(self.path, {name: value[0] for name, value in fields.items()})
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Provider(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield provider
        server.shutdown()
        thread.join()


@cache
def _key() -> Any:
    """It takes a while to make one."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)

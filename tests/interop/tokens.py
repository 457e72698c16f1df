"""A token server, whose tokens a docker-registry verifies."""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.interop.servers import Account

SERVICE: Final = "interop registry"
ISSUER: Final = "interop token server"
PUBLIC: Final = "public/"
"""How a repository begins that everybody may pull from."""

Asked: TypeAlias = "tuple[str | None, tuple[str, ...]]"
"""Who a token was given to, None for nobody known, and the scopes that it was asked for."""


@dataclass
class TokenServer:
    """Who may pull what, told in signed tokens.

    Attributes:
        account: May pull from every repository; all others from those that are public.
        address: ``host:port``, plain http.
        asked: One entry for each token that was given.
    """

    account: Account
    address: str = ""
    asked: list[Asked] = field(default_factory=list["Asked"])
    _authority: trustme.CA = field(default_factory=lambda: trustme.CA(key_type=trustme.KeyType.RSA))

    def __post_init__(self) -> None:
        self._pair = self._authority.issue_cert("tokens.test", key_type=trustme.KeyType.RSA)

    def write_settings(self, directory: Path) -> dict[str, object]:
        """What a registry must know to believe the tokens."""
        bundle = directory / "tokens.pem"
        self._authority.cert_pem.write_to_path(bundle)
        return {
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(bundle),
            "realm": "https://localhost/",
            "autoredirect": True,
        }

    def answer(self, authorization: str | None, query: str) -> tuple[HTTPStatus, dict[str, str]]:
        """A token for what was asked, as far as it is allowed."""
        wanted = parse_qs(query)
        if wanted.get("service") != [SERVICE]:
            return HTTPStatus.BAD_REQUEST, {"details": "that is not a service here"}
        user: str | None = None
        if authorization is not None:
            if authorization != f"Basic {_encode(self.account.text.encode())}":
                return HTTPStatus.UNAUTHORIZED, {"details": "incorrect username or password"}
            user = self.account.user
        scopes = tuple(wanted.get("scope", ()))
        self.asked.append((user, scopes))
        return HTTPStatus.OK, {"token": self._sign(user, [_grant(user, each) for each in scopes])}

    def _sign(self, user: str | None, access: list[dict[str, object]]) -> str:
        """A JWT as docker-registry wants it, signed with a certificate that it can follow."""
        chain = [pem.bytes() for pem in self._pair.cert_chain_pems]
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [_bare(pem) for pem in chain]}
        claims = {
            "iss": ISSUER,
            "sub": user or "",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 60,
            "exp": now + 300,
            "jti": str(len(self.asked)),
            "access": access,
        }
        signed = ".".join(_encode_url(json.dumps(part).encode()) for part in (header, claims))
        key = serialization.load_pem_private_key(self._pair.private_key_pem.bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encode_url(signature)}"


@contextmanager
def run_tokens(account: Account) -> Generator[TokenServer]:
    """Serve tokens on a free port of loopback."""
    tokens = TokenServer(account)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urlsplit(self.path).query
            status, document = tokens.answer(self.headers["Authorization"], query)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its base
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        tokens.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield tokens
        finally:
            server.shutdown()
            thread.join()


def _grant(user: str | None, scope: str) -> dict[str, object]:
    kind, name, actions = scope.split(":")
    allowed = user is not None or name.startswith(PUBLIC)
    granted = [action for action in actions.split(",") if action == "pull" and allowed]
    return {"type": kind, "name": name, "actions": granted}


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _encode_url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bare(pem: bytes) -> str:
    """The inside of a certificate in PEM."""
    return "".join(line for line in pem.decode().split("\n") if "CERTIFICATE" not in line)

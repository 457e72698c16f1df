"""Real servers on free ports of loopback, ended and reaped when their scope ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import pytest
import trustme

from tests.interop.programs import SECONDS, find, run

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from tests.interop.tokens import TokenServer

HOST: Final = "127.0.0.1"
GRACE: Final = 5.0
"""Seconds that a server has to end before it is killed."""

_LISTENING: Final = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_CUT: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nthe first few bytes"
_STARTED: Final = re.compile(r"(nginx/\d\S*)")


@dataclass(frozen=True)
class Certificates:
    """An authority that nobody trusts, and what a server on loopback shows, as files of PEM."""

    authority: Path
    """Alone in its directory, as skopeo wants it for ``--src-cert-dir``."""
    chain: Path
    key: Path
    identity: Path
    """A directory as those of certs.d, with the authority and a client's certificate and key."""

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        (directory / "trusted").mkdir(parents=True)
        authority = trustme.CA()
        pair = authority.issue_cert(HOST, "localhost")
        made = cls(
            directory / "trusted" / "ca.crt",
            directory / "server.pem",
            directory / "server.key",
            directory / "identity",
        )
        authority.cert_pem.write_to_path(made.authority)
        made.identity.mkdir()
        client = authority.issue_cert("client@example.org")
        authority.cert_pem.write_to_path(made.identity / "ca.crt")
        client.private_key_pem.write_to_path(made.identity / "client.key")
        client.cert_chain_pems[0].write_to_path(made.identity / "client.cert")
        made.chain.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        pair.private_key_pem.write_to_path(made.key)
        return made


@dataclass(frozen=True)
class Account:
    """Who a registry lets in."""

    user: str
    password: str

    def write_htpasswd(self, path: Path) -> Path:
        """A password file; docker-registry takes bcrypt only."""
        path.write_bytes(run("htpasswd", "-B", "-C", "4", "-b", "-n", self.user, self.password))
        return path

    @property
    def text(self) -> str:
        """As skopeo wants it."""
        return f"{self.user}:{self.password}"


@dataclass(frozen=True)
class Registry:
    """A docker-registry that serves."""

    address: str
    """``host:port``."""
    configuration: Path
    store: Path
    """The root of its file system driver."""
    server: Server

    def reference(self, name: str) -> str:
        """``docker://`` for a ``repository[:tag][@digest]``."""
        return f"docker://{self.address}/{name}"

    def find_blob(self, digest: str) -> Path:
        """The file that a blob is in."""
        algorithm, _, encoded = digest.partition(":")
        blobs = self.store / "docker" / "registry" / "v2" / "blobs"
        return blobs / algorithm / encoded[:2] / encoded / "data"

    def collect_garbage(self) -> None:
        """Remove the blobs that no manifest names any more."""
        run("docker-registry", "garbage-collect", str(self.configuration))


@contextmanager
def run_registry(
    directory: Path,
    *,
    store: Path | None = None,
    certificates: Certificates | None = None,
    demand_client: bool = False,
    account: Account | None = None,
    tokens: TokenServer | None = None,
    upstream: Registry | None = None,
    content: str | None = None,
    port: int = 0,
) -> Generator[Registry]:
    """Serve a registry.

    Args:
        directory: Made for it; gets its configuration.
        store: What it serves; None for a new one in `directory`.
        certificates: Speak TLS.
        demand_client: Let in only clients with a certificate of that authority.
        account: Let in nobody else (Basic access).
        tokens: Let in who has a token of this server (Bearer access). The registry says that
            the server is at ``/auth/token/`` of its own address, so it needs a `run_front`.
        upstream: Be a cache of that one.
        content: The ``https://host:port`` where blobs are fetched from.
        port: Where to listen; 0 for any free port.
    """
    directory.mkdir()
    store = store or directory / "store"
    http: dict[str, object] = {"addr": f"{HOST}:{port}", "secret": "the same for all of us"}
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(store)}, "delete": {"enabled": True}},
        "compatibility": {"schema1": {"enabled": True}},
        "http": http,
    }
    if certificates is not None:
        tls: dict[str, object] = {
            "certificate": str(certificates.chain),
            "key": str(certificates.key),
        }
        if demand_client:
            tls["clientcas"] = [str(certificates.authority)]
        http["tls"] = tls
    if account is not None:
        path = account.write_htpasswd(directory / "htpasswd")
        settings["auth"] = {"htpasswd": {"realm": "interop", "path": str(path)}}
    if tokens is not None:
        settings["auth"] = {"token": tokens.write_settings(directory)}
    if upstream is not None:
        settings["proxy"] = {"remoteurl": f"http://{upstream.address}"}
    if content is not None:
        settings["middleware"] = {
            "storage": [{"name": "redirect", "options": {"baseurl": content}}]
        }
    configuration = directory / "config.json"
    configuration.write_text(json.dumps(settings))  # YAML is a superset of JSON
    with run_server([find("docker-registry"), "serve", str(configuration)]) as server:
        # it says so once the socket takes connections, so nobody needs to try
        port = int(server.wait_for(_LISTENING))
        yield Registry(f"{HOST}:{port}", configuration, store, server)


class MortalRegistry:
    """A registry to be killed at any moment, and restarted at its address.

    Args:
        directory: Made for it.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._running = ExitStack()
        self._lives = 0
        self.registry = self._start(0)

    def kill(self) -> None:
        """End it without notice; what it was sending breaks off."""
        self.registry.server.kill()
        self._running.close()

    def restart(self) -> None:
        """Start it again with what it had stored, and wait until it serves."""
        self.registry = self._start(int(self.registry.address.rpartition(":")[2]))

    def close(self) -> None:
        """End it."""
        self._running.close()

    def _start(self, port: int) -> Registry:
        self._lives += 1
        directory = self._directory / str(self._lives)
        serving = run_registry(directory, store=self._directory / "store", port=port)
        return self._running.enter_context(serving)


@contextmanager
def run_content(directory: Path, store: Path, certificates: Certificates) -> Generator[str]:
    """Serve the blobs of a store, as big registries have it; refuse who shows credentials.

    Yields:
        Its ``https://host:port``.
    """
    locations = f"""
        root {store};
        if ($http_authorization) {{ return 400; }}
    """
    with _run_nginx(directory, locations, certificates) as address:
        yield f"https://{address}"


@contextmanager
def run_front(
    directory: Path, registry: Registry, tokens: TokenServer, certificates: Certificates
) -> Generator[Registry]:
    """Serve a registry and its token server over TLS, at one address."""
    locations = f"""
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto https;
        location / {{ proxy_pass http://{registry.address}; }}
        location = /auth/token/ {{ proxy_pass http://{tokens.address}; }}
    """
    with _run_nginx(directory, locations, certificates) as address:
        yield replace(registry, address=address)


@contextmanager
def run_mirror(directory: Path, locations: str) -> Generator[str]:
    """Serve what is to be a mirror, over plain http.

    Args:
        directory: Made for it.
        locations: What nginx does, within ``server``.

    Yields:
        Its ``host:port``.
    """
    with _run_nginx(directory, locations, None) as address:
        yield address


@contextmanager
def run_cutter() -> Generator[str]:
    """A server that begins with a body of no known length, and hangs up.

    Yields:
        Its ``host:port``.
    """
    with socket.create_server((HOST, 0)) as listening:

        def serve() -> None:
            with suppress(OSError):  # it is closed at the end
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(_CUT)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"{HOST}:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


_NGINX: Final = """
daemon off;
user root;  # as whom it was started: others than root cannot choose, and are told so
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/tmp;
    proxy_temp_path {directory}/tmp;
    fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp;
    scgi_temp_path {directory}/tmp;
    {tls}
    server {{
        listen {listening};
        {locations}
    }}
}}
"""


@contextmanager
def _run_nginx(
    directory: Path, locations: str, certificates: Certificates | None
) -> Generator[str]:
    directory.mkdir()
    tls = ""
    if certificates is not None:
        tls = f"ssl_certificate {certificates.chain}; ssl_certificate_key {certificates.key};"
    configuration = directory / "nginx.conf"
    with ExitStack() as running:
        with socket.create_server((HOST, 0)) as listening:  # nobody else can take the port then
            address = f"{HOST}:{listening.getsockname()[1]}"
            configuration.write_text(
                _NGINX.format(
                    directory=directory,
                    tls=tls,
                    listening=f"{address} ssl" if tls else address,
                    locations=locations,
                )
            )
            files = ["-p", str(directory), "-c", str(configuration)]
            command = [find("nginx"), "-e", "stderr", *files]
            server = running.enter_context(run_server(command, inherited=(listening,)))
            server.wait_for(_STARTED)
        yield address


class Server:
    """A running process, which never waits for somebody to read what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said = SimpleQueue[str | None]()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def wait_for(self, pattern: re.Pattern[str]) -> str:
        """The first group of the first line that has the pattern."""
        heard: list[str] = []
        while (line := self._said.get(timeout=SECONDS)) is not None:
            heard.append(line)
            if match := pattern.search(line):
                return match[1]
        return pytest.fail(f"the server ended, having said:\n{''.join(heard)}", pytrace=False)

    def kill(self) -> None:
        """Give it no chance to end what it does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self) -> int:
        """Wait until it has ended; returns its exit code."""
        return self._process.wait(SECONDS)

    def end(self) -> None:
        """Ask it to end, insist, and collect what is left of it."""
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said.put(line)
        self._said.put(None)


@contextmanager
def run_server(
    command: Sequence[str],
    inherited: Sequence[socket.socket] = (),
    environment: Mapping[str, str] | None = None,
) -> Generator[Server]:
    """A process, and the listening sockets that it inherits: nginx finds them by its variable."""
    descriptors = [each.fileno() for each in inherited]
    own = {"PATH": os.defpath, "NGINX": "".join(f"{number};" for number in descriptors)}
    process = subprocess.Popen(
        command,
        env=own if environment is None else environment,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what it started ends with it
    )
    server = Server(process)
    try:
        yield server
    finally:
        server.end()

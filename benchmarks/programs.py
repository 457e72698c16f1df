"""Servers in processes of their own: what they cost, by the books of the kernel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from benchmarks.server import Offer

__all__ = (
    "Program",
    "find_program",
    "run_docker_registry",
    "run_nginx",
    "run_nginx_files",
    "run_nginx_tls",
    "run_program",
    "run_serve",
)

HOST = "127.0.0.1"
GRACE = 5.0
"""Seconds that a server has to end before it is killed."""
START = 60.0
"""Seconds that a server has to listen."""
TICKS = os.sysconf("SC_CLK_TCK")
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_STARTED = re.compile(r"(nginx/\d\S*)")

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {directory}/tmp;
    proxy_temp_path {directory}/tmp;
    fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp;
    scgi_temp_path {directory}/tmp;
    server {{
        listen {address}{tls};
        location = {target} {{ {location} }}
        {more}
    }}
}}
"""


@dataclass(frozen=True)
class Program:
    """A server that runs.

    Attributes:
        pid: Its first process; the others are children of that one.
        url: Where the blob is.
    """

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """CPU time that it has used up to now."""
        return sum(_cpu_ticks(pid) for pid in self._pids()) / TICKS

    def reset_peak(self) -> float:
        """Forget the most memory that it ever had; returns what it has now, in MiB."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak_mib(self) -> float:
        """The most memory that it had since `reset_peak`, in MiB."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields[field].removesuffix("kB")) / 1024

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [self.pid, *map(int, children.split())]


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def find_program(name: str) -> str | None:
    """Where a program is, None if it is not installed; nginx is where only root looks."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextlib.contextmanager
def run_program(target: str, *arguments: str) -> Generator[Program]:
    """Run a module of the benchmarks that says its port in a line of JSON.

    Args:
        target: The path of what is asked for.
        *arguments: The module, and its arguments.
    """
    command = [sys.executable, "-m", *arguments]
    with _run(command, stdout=subprocess.PIPE) as process:
        said = json.loads(_lines_of(process.stdout).readline())
        yield Program(process.pid, f"http://{HOST}:{said['port']}{target}")


@contextlib.contextmanager
def run_serve(target: str, reference: str, workers: int) -> Generator[Program]:
    """Run ``asupplemented serve`` with a repository as ``bench``.

    Args:
        target: The path of what is asked for.
        reference: The repository.
        workers: How many processes serve.
    """
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    options = [f"--listen={HOST}:{port}", f"--workers={workers}", "--access-log=off"]
    command = [sys.executable, "-m", "asupplemented", "serve", "--no-tls-verify", *options]
    with _run([*command, f"bench={reference}"]) as process:
        _wait_for_port(port)
        yield Program(process.pid, f"http://{HOST}:{port}{target}")


def _wait_for_port(port: int) -> None:
    ends = time.monotonic() + START
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def run_nginx(path: str, directory: Path, upstream: str) -> Generator[Program]:
    """Run nginx before an upstream, as it comes: default buffers, no cache.

    Args:
        path: The program.
        directory: Where it may write; made for it.
        upstream: The URL of the blob, there and here.
    """
    host, target = re.fullmatch(r"(http://[^/]+)(/.*)", upstream).groups()  # type: ignore[union-attr]
    with _run_nginx(path, directory, f"proxy_pass {host};", target) as program:
        yield program


@contextlib.contextmanager
def run_nginx_files(path: str, directory: Path, file: Path, target: str) -> Generator[Program]:
    """Run nginx that sends a file with sendfile.

    Args:
        path: The program.
        directory: Where it may write; made for it.
        file: The file.
        target: The path under which clients ask for it.
    """
    with _run_nginx(path, directory, f"alias {file};", target) as program:
        yield program


@contextlib.contextmanager
def run_nginx_tls(path: str, directory: Path, file: Path, offer: Offer) -> Generator[int]:
    """Run nginx before a registry, to speak TLS: it sends the blob itself.

    Args:
        path: The program.
        directory: Where it may write; made for it.
        file: The blob.
        offer: The registry.

    Yields:
        The port.
    """
    certificate, key = directory.with_suffix(".pem"), directory.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    more = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    more += f"location / {{ proxy_pass {offer.url}; proxy_http_version 1.1; }}"
    target = offer.blob_url.removeprefix(offer.url)
    with _run_nginx(path, directory, f"alias {file};", target, more) as program:
        yield urlsplit(program.url).port or 0


@contextlib.contextmanager
def _run_nginx(
    path: str, directory: Path, location: str, target: str, tls: str = ""
) -> Generator[Program]:
    """Run nginx; `tls` says which certificate it has, and what else it serves."""
    directory.mkdir()
    with socket.create_server((HOST, 0)) as listening:  # no other process can take the port then
        address = f"{HOST}:{listening.getsockname()[1]}"
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                directory=directory,
                address=address,
                location=location,
                target=target,
                tls=" ssl" if tls else "",
                more=tls,
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        command = [path, "-e", "stderr", "-p", str(directory), "-c", str(configuration)]
        inherited = {"NGINX": f"{listening.fileno()};"}
        with _run(
            command, stderr=subprocess.PIPE, pass_fds=[listening.fileno()], env=inherited
        ) as process:
            _wait_for(process, _STARTED)
            yield Program(process.pid, f"http://{address}{target}")


@contextlib.contextmanager
def run_docker_registry(path: str, directory: Path, blob: Path, digest: str) -> Generator[Program]:
    """Run docker-registry with one blob in its store.

    Args:
        path: The program.
        directory: Where its store is; made for it.
        blob: The blob; its file is linked, not copied, where that can be done.
        digest: The digest of the blob.
    """
    algorithm, _, encoded = digest.partition(":")
    registry = directory / "store" / "docker" / "registry" / "v2"
    data = registry / "blobs" / algorithm / encoded[:2] / encoded / "data"
    data.parent.mkdir(parents=True)
    data.hardlink_to(blob)
    link = registry / "repositories" / "bench" / "_layers" / algorithm / encoded / "link"
    link.parent.mkdir(parents=True)
    link.write_text(digest)
    settings = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "store")}},
        "http": {"addr": f"{HOST}:0", "secret": "of a benchmark"},
    }
    configuration = directory / "config.json"
    configuration.write_text(json.dumps(settings))  # YAML is a superset of JSON
    with _run([path, "serve", str(configuration)], stderr=subprocess.PIPE) as process:
        port = _wait_for(process, _LISTENING)
        yield Program(process.pid, f"http://{HOST}:{port}/v2/bench/blobs/{digest}")


@contextlib.contextmanager
def _run(
    command: Sequence[str],
    *,
    stdout: int = subprocess.DEVNULL,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
    env: dict[str, str] | None = None,
) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        pass_fds=pass_fds,
        env=None if env is None else {"PATH": os.defpath} | env,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(process: subprocess.Popen[str], pattern: re.Pattern[str]) -> str:
    """The first group of the first line on stderr that has the pattern."""
    heard: list[str] = []
    for line in _lines_of(process.stderr):
        heard.append(line)
        if match := pattern.search(line):
            return match[1]
    message = f"the server ended, having said:\n{''.join(heard)}"
    raise RuntimeError(message)


def _lines_of(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        message = "the output of a server is read only where it was asked for"
        raise RuntimeError(message)
    return stream

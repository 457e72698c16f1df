"""The commands that serve a registry and tell clients of it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from asupplemented.serve.config import Address, CacheConfig, ServeConfig, TlsFiles
from asupplemented.testing import FakeRegistry
from asupplemented.testing.certificates import Authority
from tests.cli.conftest import AMD, TOP, call
from tests.modules import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.cli.conftest import Cli

FILE = '[names]\napp = "oci:/srv/app"\n"docker.io/*" = "docker://docker.io/{name}"\n'
TLS = "tls = {cert = '/no/cert', key = '/no/key'}\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ServeConfig, object]]:
    """What would be served, with the function that reads it again."""
    found: list[tuple[ServeConfig, object]] = []

    def serve(config: ServeConfig, *, reload: Callable[[], ServeConfig] | None) -> int:
        found.append((config, reload))
        return 7

    monkeypatch.setattr("asupplemented.serve.supervisor.serve", serve)
    return found


def test_the_options_make_a_configuration(
    cli: Cli, served: list[tuple[ServeConfig, object]], tmp_path: Path
) -> None:
    keys = Authority().write(tmp_path / "keys", client=True)
    cert, key = keys / "client.cert", keys / "client.key"
    answer = cli(
        *("serve", "--mirror", "index.docker.io", "--mirror", "quay.io"),
        *("app=oci:/a:1", "team/*=docker://h.x/{name},dir:/b"),
        *("--listen", "[::1]:1", "--listen", "unix:/run/x", "--admin", "127.0.0.1:2"),
        *("--cache", str(tmp_path / "cache"), "--cache-size", "5MB", "--workers", "3"),
        *("--tls-cert", str(cert), "--tls-key", str(key), "--access-log", "off"),
        *("--no-tls-verify", "--authfile", "auth.json"),
    )
    assert answer == (7, "", "")
    assert served == [
        (
            ServeConfig(
                names={
                    "docker.io/*": "docker://docker.io/{name}",
                    "quay.io/*": "docker://quay.io/{name}",
                    "app": ("oci:/a:1",),
                    "team/*": ("docker://h.x/{name}", "dir:/b"),
                },
                default_registry="docker.io",
                listen=(Address("::1", 1), Address.parse("unix:/run/x")),
                admin=Address("127.0.0.1", 2),
                cache=CacheConfig(path=tmp_path / "cache", max_bytes=5_000_000),
                workers=3,
                tls=TlsFiles(cert=cert, key=key),
                access_log="off",
                tls_verify=False,
                authfile=type(tmp_path)("auth.json"),
            ),
            None,
        )
    ]


def test_a_file_is_read_again(
    cli: Cli, served: list[tuple[ServeConfig, Callable[[], ServeConfig]]], tmp_path: Path
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(FILE)
    assert cli("serve", "--config", str(path)).code == 7
    [(config, reload)] = served
    assert reload() == config
    path.write_text(f"ttl = 5\n{FILE}")
    assert reload().ttl == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is nothing to serve; give --mirror REGISTRY, NAME=TOP or --config FILE"),
        (["app"], "'app' is no NAME=TOP, such as team/app=docker://"),
        (["=oci:/a"], "'=oci:/a' is no NAME=TOP"),
        (["a=oci:/a", "a=oci:/b"], "a is given twice; put a comma between"),
        (["a=h.x/b"], "Invalid value for NAME=TOP: "),
        (["a=oci:/a,"], "Invalid value for NAME=TOP: "),
        (["--mirror", "quay"], "Invalid value for --mirror: 'quay' is no registry"),
        (["a=oci:/a", "--listen", "5000"], "Invalid value for --listen: '5000' is no address"),
        (["a=oci:/a", "--admin", "5001"], "Invalid value for --admin: '5001' is no address"),
        (["a=oci:/a", "--admin", "127.0.0.1:5000"], "Invalid value for --admin: 127.0.0.1:5000 is"),
        (["a=oci:/a", "--cache", "/no/where"], "Invalid value for --cache: there is no directory"),
        (["a=oci:/a", "--cache-size", "x"], "Invalid value for --cache-size: 'x' is not a size"),
        (["a=oci:/a", "--tls-cert", "c"], "--tls-cert, --tls-key: a certificate and its key go"),
        (
            ["a=oci:/a", "--tls-cert", "/c", "--tls-key", "/k"],
            "--tls-cert: cannot read /c: No such",
        ),
        (["a=oci:/a", "--workers", "0"], "--workers"),
        (["a=oci:/a", "--access-log", "xml"], "--access-log"),
        (["a=oci:/a", "--config", "f"], "NAME=TOP: it is set in the file; leave out this option"),
        (["--workers", "2", "--config", "f"], "--workers: it is set in the file"),
        (["--no-tls-verify", "--config", "f"], "--tls-verify: it is set in the file"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], told: str) -> None:
    answer = cli("serve", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.err


def test_checking(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(FILE)
    assert cli("serve", "--config", str(path), "--check") == (0, "", "the configuration is right\n")
    assert cli("serve", "a=oci:/a", "--check").code == 0
    path.write_text(f"worker = 1\n{FILE}[cache]\nsize = 1\n")
    answer = cli("serve", "--config", str(path), "--check")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.splitlines() == [
        f"error: {path}:1: unknown key 'worker' at the top of the file; write workers",
        f'  {path}:5: cache.path is missing; write cache.path = "/var/cache/asupplemented"',
    ]
    answer = cli("serve", "--config", str(tmp_path / "none"), "--check")
    assert answer == (1, "", f"error: there is no file {tmp_path / 'none'}\n")


# Telling clients


def test_the_files_of_clients_are_printed(cli: Cli) -> None:
    answer = cli("mirrors", "--for", "podman", "--mirror", "quay.io", "--address", "https://p.lan")
    assert (answer.code, answer.err) == (0, "")
    assert 'location = "p.lan/quay.io"\n' in answer.out
    answer = cli("mirrors", "--for", "containerd")
    assert answer.code == 0
    assert answer.out.splitlines()[:2] == [
        "# /etc/containerd/certs.d/_default/hosts.toml",
        '[host."http://127.0.0.1:5000"]',
    ]
    answer = cli("mirrors", "--for", "docker", "--mirror", "docker.io")
    assert json.loads(answer.out) == {"registry-mirrors": ["http://127.0.0.1:5000"]}
    assert "/etc/docker/certs.d/HOST/hosts.toml works for every registry" in answer.err
    assert "login" not in answer.err


def test_the_files_of_clients_are_written_and_not_replaced(cli: Cli, tmp_path: Path) -> None:
    arguments = ("mirrors", "--for", "containerd", "--mirror", "quay.io", "--exclusive")
    assert cli(*arguments, "-o", str(tmp_path)).out == ""
    written = tmp_path / "quay.io" / "hosts.toml"
    assert written.read_text() == cli(*arguments).out
    answer = cli(*arguments, "-o", str(tmp_path))
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"error: {written} exists; print the files without --output")


def test_SRV20_the_address_and_the_names_of_a_file_are_used(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    # The certificate and the users are on the host of the proxy, perhaps not here.
    hub = 'default_registry = "docker.io"\nhtpasswd = "/no/where"\n'
    path.write_text(f'listen = "10.0.0.5:443"\n{hub}{TLS}{FILE}')
    answer = call("mirrors", "--for", "docker", "--config", str(path))
    assert json.loads(answer.out) == {"registry-mirrors": ["https://10.0.0.5:443"]}
    assert "serve docker without htpasswd" in answer.err
    answer = call("mirrors", "--for", "podman", "--config", str(path), "--address", "http://h.lan")
    assert '"h.lan/docker.io"' in answer.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--for", "crio"], "--for"),
        (["--for", "podman"], "Invalid value for --for: there is nothing that podman"),
        (["--for", "docker", "--mirror", "quay.io"], "--for: docker asks mirrors for images of"),
        (["--for", "podman", "--mirror", "x y"], "Invalid value for --mirror: 'x y' is no"),
        (["--for", "containerd", "--address", "h"], "Invalid value for --address: 'h' is no"),
        (["--for", "podman", "--mirror", "a.b", "--config", "f"], "leave out --mirror or --config"),
    ],
)
def test_wrong_usage_of_mirrors(cli: Cli, arguments: list[str], told: str) -> None:
    answer = cli("mirrors", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.err


def test_an_address_that_says_nothing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(f'listen = "0.0.0.0:5000"\n{FILE}')
    answer = cli("mirrors", "--for", "podman", "--config", str(path))
    assert answer.code == 2
    assert "say so with --address" in answer.err


# As a program


@asynccontextmanager
async def program(
    *arguments: str, preexec: Callable[[], None] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A module that is run; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", *arguments),
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=preexec,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """The end of the next line on stderr that has a text, after that text."""
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if text in line:
            return line.partition(text)[2].strip()
    pytest.fail(f"the program ended and did not say {text!r}")


def forbid_files() -> None:
    """Have every write to a file fail, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "preexec", "warning"),
    [
        pytest.param("{}/cache", None, None, id="usable"),
        pytest.param("{}/cache", forbid_files, "cannot be written", id="full"),
        pytest.param("/proc/cache", None, "cannot be", id="read-only"),
    ],
)
async def test_a_proxy_serves_whatever_its_disk_does(
    tmp_path: Path, cache: str, preexec: Callable[[], None] | None, warning: str | None
) -> None:
    path = cache.format(tmp_path)
    async with FakeRegistry() as registry, aiohttp.ClientSession() as client:
        registry.add("library/app", TOP)
        arguments = (
            "asupplemented",
            "serve",
            "--mirror",
            registry.host,
            "--listen",
            "127.0.0.1:0",
            "--cache",
            path,
        )
        async with program(*arguments, "--no-tls-verify", preexec=preexec) as process:
            address = await line_with(process, "serving on ")
            told = f"podman pull --tls-verify=false {address}/NAME:TAG"
            assert await line_with(process, "to pull: ") == told
            url = f"http://{address}/v2/{registry.host}/library/app"
            for _ in range(2):
                async with client.get(f"{url}/manifests/latest") as answer:
                    assert (answer.status, await answer.read()) == (200, TOP.raw)
                async with client.get(f"{url}/manifests/{AMD.digest}") as answer:
                    assert (answer.status, await answer.read()) == (200, AMD.raw)
                async with client.get(f"{url}/blobs/{AMD.layers[1]}") as answer:
                    assert (answer.status, await answer.read()) == (200, AMD.blobs[AMD.layers[1]])
            if warning is not None:
                assert warning in await line_with(process, f"the cache {path} ")
            process.send_signal(signal.SIGTERM)
            out, _ = await process.communicate()
    assert process.returncode == 0
    logged = [json.loads(line) for line in out.splitlines()]
    assert [(each["route"], each["status"]) for each in logged] == [
        *[("manifest", 200), ("manifest", 200), ("blob", 200)] * 2,
    ]
    asked = registry.count(f"/v2/library/app/blobs/{AMD.layers[1]}")
    assert asked == (1 if warning is None else 2)


@pytest.mark.slow
async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with program(
            "asupplemented", "serve", "app=oci:/srv/app", "--listen", address
        ) as process:
            out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == (
        f"error: cannot listen on {address}: another program listens there; stop it, or choose "
        "another address\n"
    )

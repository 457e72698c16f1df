"""What clients are told: each file is read back as its client reads it."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig import ConfigurationPaths, Registries
from asupplemented.model.name import ImageName
from asupplemented.serve.clients import (
    Client,
    Proxy,
    address_of,
    client_files,
    pull_command,
    served_prefixes,
)
from asupplemented.serve.config import Address, ServeConfig, TlsFiles, mirror_names

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://10.0.0.5:5000"
PROXY = Proxy(URL, ("docker.io", "quay.io/team"), "docker.io")


def config(*names: str, listen: str = "127.0.0.1:5000", tls: bool = False) -> ServeConfig:
    files = TlsFiles(cert=None, key=None) if tls else None  # type: ignore[arg-type]
    return ServeConfig(
        names=dict.fromkeys(names, "docker://h.x/{name}"),
        listen=(Address.parse(listen),),
        tls=files,
    )


@pytest.mark.parametrize(
    ("exclusive", "image", "expected"),
    [
        (False, "docker.io/library/a", ["10.0.0.5:5000/docker.io/library/a", None]),
        (False, "quay.io/team/a", ["10.0.0.5:5000/quay.io/team/a", None]),
        (False, "quay.io/other/a", [None]),
        (True, "docker.io/library/a", ["10.0.0.5:5000/docker.io/library/a"]),
        (True, "quay.io/team/a", ["10.0.0.5:5000/quay.io/team/a"]),
        (True, "quay.io/other/a", [None]),
    ],
)
async def test_SRV_19_podman_asks_the_proxy_first(
    tmp_path: Path, *, exclusive: bool, image: str, expected: list[str | None]
) -> None:
    [file] = client_files(Client.PODMAN, PROXY, exclusive=exclusive)
    path = tmp_path / file.path
    # What is written above it stays valid, since the file has no key before its first table.
    path.write_text('unqualified-search-registries = ["docker.io"]\n' + file.text)
    registries = await Registries.load(ConfigurationPaths(registries=path))
    assert registries.warnings == ()
    found = registries.locations(ImageName.parse(image))
    assert [str(each.name).partition(":latest")[0] for each in found] == [
        each or image for each in expected
    ]
    assert [each.insecure for each in found] == [each is not None for each in expected]
    [own] = registries.locations(ImageName.parse("10.0.0.5:5000/app"))
    assert own.insecure


async def test_podman_has_no_name_with_a_port_in_its_middle(tmp_path: Path) -> None:
    proxy = Proxy(URL, ("a.lan:5000", "b.lan:5000/team", "quay.io"), "b.lan:5000")
    [file] = client_files(Client.PODMAN, proxy, exclusive=True)
    assert "# a.lan:5000 is left out: " in file.text
    path = tmp_path / file.path
    path.write_text(file.text)
    registries = await Registries.load(ConfigurationPaths(registries=path))
    for image, expected in (
        ("a.lan:5000/x", "a.lan:5000/x:latest"),
        ("b.lan:5000/team/x", "10.0.0.5:5000/team/x:latest"),
    ):
        [found] = registries.locations(ImageName.parse(image))
        assert str(found.name) == expected


def test_podman_verifies_a_proxy_with_TLS() -> None:
    [file] = client_files(Client.PODMAN, Proxy("https://proxy.lan", ("quay.io",)))
    assert "insecure" not in file.text
    [registry] = tomllib.loads(file.text)["registry"]
    assert registry == {
        "prefix": "quay.io",
        "location": "quay.io",
        "mirror": [{"location": "proxy.lan/quay.io"}],
    }


def test_SRV_18_containerd_pulls_and_resolves_and_falls_back() -> None:
    files = client_files(Client.CONTAINERD, PROXY)
    assert [each.path for each in files] == [
        "_default/hosts.toml",
        "docker.io/hosts.toml",
        "quay.io/hosts.toml",
    ]
    for each in files:
        assert tomllib.loads(each.text) == {
            "host": {URL: {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}}
        }


def test_SRV_18_exclusive_cuts_off_what_the_proxy_serves_and_nothing_else() -> None:
    files = client_files(Client.CONTAINERD, PROXY, exclusive=True)
    assert [each.path for each in files] == ["docker.io/hosts.toml", "quay.io/hosts.toml"]
    for each in files:
        parsed = tomllib.loads(each.text)
        assert parsed.pop("server") == URL
        assert list(parsed["host"]) == [URL]


def test_SRV_42_only_containerd_takes_a_path() -> None:
    proxy = Proxy("https://h.lan/prefix/", ("docker.io",), "docker.io")
    first, *_ = client_files(Client.CONTAINERD, proxy)
    assert list(tomllib.loads(first.text)["host"]) == ["https://h.lan/prefix"]
    for client in (Client.PODMAN, Client.DOCKER):
        with pytest.raises(ConfigurationError, match="at the root of its host"):
            client_files(client, proxy)


def test_SRV_19_docker_mirrors_docker_io() -> None:
    [file] = client_files(Client.DOCKER, PROXY)
    assert json.loads(file.text) == {"registry-mirrors": [URL]}


@pytest.mark.parametrize(
    ("client", "proxy", "exclusive", "told"),
    [
        (Client.DOCKER, PROXY, True, "no mirror is exclusive"),
        (Client.DOCKER, Proxy(URL, ("quay.io",), "docker.io"), False, "add --mirror docker.io"),
        (Client.DOCKER, Proxy(URL, ("docker.io",)), False, 'default_registry = "docker.io"'),
        (Client.PODMAN, Proxy(URL, ()), False, "say what the proxy mirrors with --mirror"),
        (Client.PODMAN, Proxy(URL, ("a:1",)), False, "serve a HOST:PORT as the default_registry"),
        (Client.CONTAINERD, Proxy(URL, ()), True, "say so with --mirror REGISTRY"),
    ],
)
def test_what_a_client_cannot_do(
    client: Client, proxy: Proxy, *, exclusive: bool, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        client_files(client, proxy, exclusive=exclusive)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:5000",
        "ftp://h",
        "http://",
        "http://user:password@h",
        "http://h?x=1",
        "http://h#x",
        'http://h/"]',
        "http://h:99999x",
        "http://h/a b",
    ],
)
def test_SRV_19_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write http://HOST:PORT"):
        Proxy(url, ())


def test_what_is_served_of_registries() -> None:
    names = ("quay.io/team/*", "docker.io/*", "QUAY.io/team/x-*", "ghcr.io/o/app", "team/app", "*")
    assert served_prefixes(names) == ("quay.io/team", "docker.io", "ghcr.io/o/app")
    assert served_prefixes(["docker.io/alpine"]) == ("docker.io/library/alpine",)


@pytest.mark.parametrize(
    ("listen", "tls", "expected"),
    [
        ("127.0.0.1:5000", False, "http://127.0.0.1:5000"),
        ("[::1]:80", True, "https://[::1]:80"),
        ("0.0.0.0:5000", False, None),
        ("[::]:5000", False, None),
        ("127.0.0.1:0", False, None),
        ("unix:/run/x", False, None),
    ],
)
def test_the_address_of_a_configuration(listen: str, *, tls: bool, expected: str | None) -> None:
    made = config("app", listen=listen, tls=tls)
    if expected is not None:
        assert address_of(made) == expected
        return
    with pytest.raises(ConfigurationError, match="say so with --address"):
        address_of(made)


@pytest.mark.parametrize(
    ("names", "listen", "tls", "expected"),
    [
        (["docker.io/*"], "127.0.0.1:5", False, "127.0.0.1:5/docker.io/library/alpine:latest"),
        (["x.io/*", "quay.io/*"], "[::]:5", False, "[::1]:5/quay.io/podman/hello:latest"),
        (["x.io/*", "team/app"], "0.0.0.0:5", False, "127.0.0.1:5/team/app:latest"),
        (["x.io/*/app"], "h.lan:5", True, "h.lan:5/x.io/NAME/app:TAG"),
    ],
)
def test_how_to_pull(names: list[str], listen: str, *, tls: bool, expected: str) -> None:
    option = "" if tls else "--tls-verify=false "
    made = config(*names, tls=tls)
    assert pull_command(made, Address.parse(listen)) == f"podman pull {option}{expected}"


def test_how_to_pull_what_has_no_name_elsewhere() -> None:
    made = ServeConfig(names=mirror_names(["h.lan:5000"]), default_registry="h.lan:5000")
    assert pull_command(made, Address("h", 5)) == "podman pull --tls-verify=false h:5/NAME:TAG"


def test_how_to_pull_through_a_socket() -> None:
    made = ServeConfig(names=mirror_names(["quay.io"]))
    command = pull_command(made, Address.parse("unix:/run/x.sock"))
    assert command == "curl --unix-socket /run/x.sock http://localhost/v2/"

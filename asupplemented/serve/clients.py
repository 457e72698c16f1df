"""What clients are told so that they pull through a proxy: the files of podman, containerd, docker.

Each client has its own way to say which registry an image belongs to. podman, buildah and skopeo
put it into the path, containerd into the query (``ns``), and docker only ever means docker.io.

The command line imports this module for each of its commands, so catalogs are imported where they
are used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.model.name import DEFAULT_REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asupplemented.serve.config import Address, ServeConfig

__all__ = (
    "Client",
    "ClientFile",
    "Proxy",
    "address_of",
    "client_files",
    "notes_for",
    "pull_command",
    "served_prefixes",
)

DIAL_TIMEOUT: Final = "1s"
"""How long containerd waits for a connection to the proxy; by default it waits for 30 seconds."""

_EXAMPLES: Final = {
    DEFAULT_REGISTRY: "library/alpine:latest",
    "quay.io": "podman/hello:latest",
    "registry.k8s.io": "pause:3.10",
}
"""Small images that everyone may pull."""

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to use instead
_URL: Final = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?",
    re.ASCII,
)


class Client(StrEnum):
    """What is to pull through the proxy."""

    PODMAN = "podman"
    CONTAINERD = "containerd"
    DOCKER = "docker"


class ClientFile(NamedTuple):
    """A configuration file of a client."""

    path: str
    """Its path below the directory in which the client looks for it."""
    text: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as its clients see it.

    Attributes:
        url: ``http://HOST[:PORT]``, or https. containerd also takes a path after it.
        prefixes: What it serves of other registries: ``quay.io``, or ``quay.io/team``.
        default_registry: The registry of names without one, as in `ServeConfig`.
        login: Whether clients log in.

    Raises:
        ConfigurationError: The URL is something else.
    """

    url: str
    prefixes: tuple[str, ...]
    default_registry: str | None = None
    login: bool = False

    def __post_init__(self) -> None:
        if _URL.fullmatch(self.url) is None:
            message = f"{excerpt(self.url)} is no address of a proxy; write http://HOST:PORT"
            raise ConfigurationError(message)

    @property
    def host(self) -> str:
        """The host, with its port."""
        return self.url.split("/")[2]

    @property
    def is_plain(self) -> bool:
        """Whether it speaks http."""
        return self.url.startswith("http:")

    @property
    def has_path(self) -> bool:
        """Whether it is mounted below the root of its host."""
        return self.url.rstrip("/").count("/") > 2  # noqa: PLR2004 - those before the host

    @property
    def registries(self) -> tuple[str, ...]:
        """The registries that it serves something of."""
        return tuple(dict.fromkeys(each.partition("/")[0] for each in self.prefixes))


def served_prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """The part of each name of a registry that all images of it begin with, each once.

    Args:
        names: As in `ServeConfig`. Those without a registry are pulled from the proxy itself.
    """
    from asupplemented.catalog.names import normalize_name, split_name

    found: dict[str, None] = {}
    for name in map(normalize_name, names):
        if split_name(name)[1] is not None:
            fixed, star, _ = name.partition("*")
            found[fixed.rpartition("/")[0] if star else fixed] = None
    return tuple(found)


def address_of(config: ServeConfig) -> str:
    """The URL at which clients reach what a configuration serves.

    Raises:
        ConfigurationError: It listens on all interfaces or on a Unix socket, so that its URL is
            not known.
    """
    address = next((each for each in config.listen if each.path is None), config.listen[0])
    if address.path is not None or address.is_wildcard or not address.port:
        message = f"the address {address} does not say how clients reach it; say so with --address"
        raise ConfigurationError(message)
    return f"{'http' if config.tls is None else 'https'}://{address}"


def client_files(
    client: Client, proxy: Proxy, *, exclusive: bool = False
) -> tuple[ClientFile, ...]:
    """The files that have a client pull through a proxy (rules SRV-18, SRV-19, SRV-42).

    Args:
        client: The client.
        proxy: The proxy.
        exclusive: Whether the registries themselves are not asked for what the proxy lacks.

    Raises:
        ConfigurationError: The client cannot do that.
    """
    if proxy.has_path and client is not Client.CONTAINERD:
        message = f"{client} needs the proxy at the root of its host, unlike {proxy.url}"
        raise ConfigurationError(message)
    match client:
        case Client.PODMAN:
            return (_for_podman(proxy, exclusive=exclusive),)
        case Client.CONTAINERD:
            return _for_containerd(proxy, exclusive=exclusive)
        case Client.DOCKER:
            return (_for_docker(proxy, exclusive=exclusive),)


def _for_podman(proxy: Proxy, *, exclusive: bool) -> ClientFile:
    insecure = ["insecure = true"] if proxy.is_plain else []
    lines = ["# /etc/containers/registries.conf.d/asupplemented.conf. In a file with other keys,"]
    lines += ["# such as unqualified-search-registries, these stand above the first [[registry]]."]
    places = {prefix: _place_in(proxy, prefix) for prefix in proxy.prefixes}
    for prefix, place in places.items():
        if place is None:
            lines += [
                "",
                f"# {prefix} is left out: no name has a port in its middle. Serve it by a",
            ]
            lines += ["# a name of its own, or as the default_registry."]
            continue
        mirror = [f'location = "{proxy.host}{place}"', *insecure]
        lines += ["", "[[registry]]", f'prefix = "{prefix}"']
        if exclusive:
            lines += mirror
        else:
            lines += [f'location = "{prefix}"', "", "[[registry.mirror]]", *mirror]
    if not any(place is not None for place in places.values()):
        message = (
            "there is nothing that podman could ask the proxy for; say what the proxy mirrors with "
            "--mirror HOST, or serve a HOST:PORT as the default_registry"
        )
        raise ConfigurationError(message)
    if proxy.is_plain:
        lines += ["", "[[registry]]", f'location = "{proxy.host}"', *insecure]
    return ClientFile("asupplemented.conf", "\n".join((*lines, "")))


def _place_in(proxy: Proxy, prefix: str) -> str | None:
    """Where the images of a prefix are below the host of a proxy, None for nowhere.

    The grammar of names has a port at the beginning only, so there is no such place for images of
    HOST:PORT unless they are what names without a registry stand for.
    """
    registry, slash, path = prefix.partition("/")
    if registry == proxy.default_registry and ":" in registry:
        return f"{slash}{path}"
    return None if ":" in registry else f"/{prefix}"


def _for_containerd(proxy: Proxy, *, exclusive: bool) -> tuple[ClientFile, ...]:
    if exclusive and not proxy.registries:
        message = "what is exclusive has to be named; say so with --mirror REGISTRY"
        raise ConfigurationError(message)
    url = proxy.url.rstrip("/")
    host = [f'[host."{url}"]', '  capabilities = ["pull", "resolve"]']
    host += [f'  dial_timeout = "{DIAL_TIMEOUT}"']
    # A registry that the proxy does not serve must not be cut off.
    directories = proxy.registries if exclusive else ("_default", *proxy.registries)
    lines = [f'server = "{url}"', "", *host] if exclusive else host
    return tuple(
        ClientFile(path, "\n".join((f"# /etc/containerd/certs.d/{path}", *lines, "")))
        for path in (f"{each}/hosts.toml" for each in directories)
    )


def _for_docker(proxy: Proxy, *, exclusive: bool) -> ClientFile:
    if exclusive:
        message = "docker asks Docker Hub for what a mirror lacks, so no mirror is exclusive to it"
        raise ConfigurationError(message)
    if DEFAULT_REGISTRY not in proxy.registries:
        message = (
            "docker asks mirrors for images of docker.io only, which this proxy does not serve; "
            "add --mirror docker.io"
        )
        raise ConfigurationError(message)
    if proxy.default_registry != DEFAULT_REGISTRY:
        message = (
            "docker does not say which registry it means; write default_registry = "
            f'"{DEFAULT_REGISTRY}" into the configuration of the proxy'
        )
        raise ConfigurationError(message)
    text = json.dumps({"registry-mirrors": [proxy.url.rstrip("/")]}, indent=2)
    return ClientFile("daemon.json", f"{text}\n")


def notes_for(client: Client, proxy: Proxy) -> tuple[str, ...]:
    """What to do with the files of a client, and what they do not do (rule SRV-20)."""
    match client:
        case Client.PODMAN:
            return ()
        case Client.CONTAINERD:
            note = (
                "containerd reads these files if its configuration has "
                'config_path = "/etc/containerd/certs.d"; ctr takes --hosts-dir'
            )
            return (note,)
        case Client.DOCKER:
            note = (
                "docker asks this mirror for images of docker.io only; with the containerd image "
                "store, /etc/docker/certs.d/HOST/hosts.toml works for every registry: see "
                "mirrors --for containerd"
            )
            login = (
                "docker without the containerd image store answers the proxy, which asks for a "
                "login, with its account of Docker Hub; serve docker without htpasswd"
            )
            first = "this is for /etc/docker/daemon.json; restart docker after that"
            return (first, note, login) if proxy.login else (first, note)


def pull_command(config: ServeConfig, address: Address) -> str:
    """A command that pulls from what is served at an address.

    Args:
        config: What is served.
        address: Where it listens, with the port in use.
    """
    if address.path is not None:
        return f"curl --unix-socket {address.path} http://localhost/v2/"
    host = str(address)
    if address.is_wildcard:
        usable = _WILDCARDS[address.host]
        host = f"[{usable}]:{address.port}" if ":" in usable else f"{usable}:{address.port}"
    plain = "--tls-verify=false " if config.tls is None else ""
    return f"podman pull {plain}{host}/{_example(config)}"


def _example(config: ServeConfig) -> str:
    """A name with a tag that is served, with ``NAME:TAG`` in it if nothing better is known."""
    from asupplemented.catalog.names import normalize_name, split_name

    for name in config.names:
        if "*" not in name:
            return f"{name}:latest"
    for prefix in served_prefixes(config.names):
        if prefix in _EXAMPLES:
            return f"{prefix}/{_EXAMPLES[prefix]}"
    pattern = normalize_name(next(iter(config.names)))
    path, registry = split_name(pattern)
    if registry is not None and registry == config.default_registry:
        pattern = path
    return f"{pattern.replace('*', 'NAME', 1).replace('*', '')}:TAG"

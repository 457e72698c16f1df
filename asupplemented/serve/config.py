"""What is served and how: `ServeConfig`, the file that it is read from, and what it opens."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import Meta, Struct, field

from asupplemented import remedies
from asupplemented.abc import Timeouts
from asupplemented.aio.files import read_limited
from asupplemented.aio.threads import run_blocking
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.catalog import Catalog, RequestBudget
from asupplemented.catalog.names import Defaults, Names, normalize_name, split_name
from asupplemented.errors import (
    ConfigurationError,
    InvalidReferenceError,
    SupplementedError,
    excerpt,
)
from asupplemented.events import Warned
from asupplemented.limits import GIB, MIB
from asupplemented.model.name import DEFAULT_REGISTRY, ImageName
from asupplemented.model.sizes import parse_size
from asupplemented.serve.htpasswd import read_htpasswd
from asupplemented.serve.toml_file import Mistake, read_struct
from asupplemented.session import LOOKAHEAD, Session
from asupplemented.transports.registry.addresses import parse_origin
from asupplemented.transports.registry.host_config import HostCredentials, make_registry_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
    from contextlib import AbstractContextManager

    from asupplemented.abc import BlobCache, Hook
    from asupplemented.web.access import Authenticate

__all__ = (
    "Address",
    "CacheConfig",
    "Opened",
    "ServeConfig",
    "TlsFiles",
    "default_of",
    "find_mistakes",
    "in_settings",
    "load_config",
    "mirror_names",
    "open_config",
)

MAX_FILE: Final = 1 * MIB
"""Bytes of a configuration."""

TIMEOUTS: Final = Timeouts(connect=5.0, first_byte=5.0)
"""The next source is asked while the client still waits (rule SRV-25)."""

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", re.ASCII)
_UNIX: Final = "unix:"
_REDIS: Final = ("redis://", "rediss://", "unix://")
_MAX_PORT: Final = 65535


class Address:
    """Where a server listens: a host and a port, or the path of a socket.

    Args:
        host: An IP address or a name; "" if there is a path.
        port: 0 takes a free one.
        path: A Unix socket, None for TCP.
    """

    __slots__ = ("host", "path", "port")

    def __init__(self, host: str = "", port: int = 0, *, path: Path | None = None) -> None:
        self.host = host
        self.port = port
        self.path = path

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.

        Raises:
            ConfigurationError: The text is something else.
        """
        if text.startswith(_UNIX) and len(text) > len(_UNIX):
            return cls(path=Path(text.removeprefix(_UNIX)))
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match[3]) > _MAX_PORT or not _is_ipv6(match[1] or "::"):
            message = f"{excerpt(text)} is no address; write HOST:PORT, [IPV6]:PORT or unix:PATH"
            raise ConfigurationError(message)
        return cls(match[1] or match[2], int(match[3]))

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for all interfaces, so that it is no address to connect to."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


class TlsFiles(Struct, frozen=True, kw_only=True):
    """The certificate of the server."""

    cert: Annotated[
        Path,
        Meta(
            description="The certificate in PEM, with the intermediate ones below it.",
            examples=["/etc/asupplemented/tls.crt"],
        ),
    ]
    key: Annotated[
        Path,
        Meta(description="Its private key in PEM.", examples=["/etc/asupplemented/tls.key"]),
    ]

    def load(self) -> ssl.SSLContext:
        """Read both files. Blocking.

        Raises:
            ConfigurationError: A file cannot be read, or the key belongs to another certificate.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert, self.key, password=_refuse_password)
        except ssl.SSLError as error:
            reason = (error.reason or "cannot be read").replace("_", " ").lower()
            message = f"{self.cert} with {self.key} is no certificate with its key: {reason}"
            raise ConfigurationError(message) from error
        except OSError as error:
            missing = next(
                (each for each in (self.cert, self.key) if not _can_read(each)), self.key
            )
            message = f"cannot read {missing}: {error.strerror or error}"
            raise ConfigurationError(message) from error
        return context


class CacheConfig(Struct, frozen=True, kw_only=True):
    """Where blobs and manifests are kept."""

    path: Annotated[
        Path,
        Meta(
            description="The directory, an OCI layout. It is made if its parent is there.",
            examples=["/var/cache/asupplemented"],
        ),
    ]
    max_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="The most bytes to keep, as a number or as a size.",
            examples=["50GiB"],
            extra={"parse": parse_size},
        ),
    ] = field(name="size", default=10 * GIB)
    fills: Annotated[
        bool,
        Meta(
            description="Whether a request for a part of a blob has all of it fetched.",
            examples=[True],
        ),
    ] = True
    storage: Annotated[
        str | None,
        Meta(
            description="Object storage that several hosts share (extra `s3`).",
            examples=["s3://bucket/cache"],
        ),
    ] = None


class ServeConfig(Struct, frozen=True, kw_only=True):
    """What `asupplemented serve` serves, and how. `load_config` reads it from a file."""

    names: Annotated[
        Mapping[str, str | tuple[str, ...]],
        Meta(
            description="What is served: names or patterns, and what they stand for, as in "
            "`Catalog`. A list is a top and its supplements.",
            examples=[{"quay.io/*": "docker://quay.io/{name}"}],
        ),
    ]
    default_registry: Annotated[
        str | None,
        Meta(
            description="The registry of names that fit no name here and have no registry. docker "
            "asks its mirrors for such names of docker.io.",
            examples=["docker.io"],
        ),
    ] = None
    allow: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Patterns of the names that may be read; without it all.",
            examples=[["docker.io/library/*", "team/*"]],
        ),
    ] = None
    listen: Annotated[
        tuple[Address, ...],
        Meta(
            min_length=1,
            description="Where clients connect: `HOST:PORT` or `unix:PATH`, one or a list.",
            examples=["0.0.0.0:5000"],
        ),
    ] = (Address("127.0.0.1", 5000),)
    admin: Annotated[
        Address | None,
        Meta(
            description="Where `/`, `/healthz`, `/readyz` and `/metrics` are; without it nowhere.",
            examples=["127.0.0.1:5001"],
        ),
    ] = None
    tls: Annotated[
        TlsFiles | None,
        Meta(
            description="The certificate of the server; without it plain http.",
            examples=[{"cert": "/etc/asupplemented/tls.crt", "key": "/etc/asupplemented/tls.key"}],
        ),
    ] = None
    workers: Annotated[
        int, Meta(ge=1, le=1024, description="Processes that serve.", examples=[2])
    ] = 1
    cache: Annotated[
        CacheConfig | None,
        Meta(
            description="Where blobs and manifests are kept; without it only while they are read.",
            examples=[{"path": "/var/cache/asupplemented", "size": "50GiB"}],
        ),
    ] = None
    ttl: Annotated[
        float,
        Meta(ge=0, description="Seconds for which a tag is not asked for again.", examples=[60]),
    ] = 60.0
    stale_if_error: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds after that for which an image is served if the upstream fails.",
            examples=[86400],
        ),
    ] = 86400.0
    max_open: Annotated[
        int, Meta(ge=1, description="Images that each worker keeps open.", examples=[256])
    ] = 256
    missing: Annotated[
        Literal["raise", "fallback", "skip"],
        Meta(
            description="What happens if a member lacks an instance that its index names.",
            examples=["fallback"],
        ),
    ] = "fallback"
    unavailable: Annotated[
        Literal["raise", "skip"],
        Meta(description="What happens to a supplement that cannot be opened.", examples=["skip"]),
    ] = "skip"
    unknown: Annotated[
        Literal["raise", "opaque"],
        Meta(
            description="What happens to an entry of an index whose media type is unknown.",
            examples=["opaque"],
        ),
    ] = "opaque"
    lookahead: Annotated[
        int, Meta(ge=0, description="Manifests to fetch ahead.", examples=[LOOKAHEAD])
    ] = LOOKAHEAD
    redis: Annotated[
        str | None,
        Meta(
            description="A Redis that several proxies share: request limits, tags, and leases if "
            "there is a storage (extra `redis`).",
            examples=["redis://redis.lan:6379/0"],
        ),
    ] = None
    htpasswd: Annotated[
        Path | None,
        Meta(
            description="Clients log in with the users of this file, which `htpasswd -B` writes "
            "(extra `serve`); without it all clients may read.",
            examples=["/etc/asupplemented/htpasswd"],
        ),
    ] = None
    authfile: Annotated[
        Path | None,
        Meta(
            description="Credentials for upstream registries, an auth.json; without it those of "
            "podman, skopeo and docker.",
            examples=["/etc/asupplemented/auth.json"],
        ),
    ] = None
    tls_verify: Annotated[
        bool | None,
        Meta(
            description="false allows plain http and unverified TLS for every upstream, true for "
            "none; without it registries.conf decides.",
            examples=[True],
        ),
    ] = None
    registries_conf: Annotated[
        Path | None,
        Meta(
            description="Mirrors of upstreams are read from this file, not from registries.conf.",
            examples=["/etc/asupplemented/registries.conf"],
        ),
    ] = None
    registries_conf_dir: Annotated[
        Path | None,
        Meta(
            description="Drop-ins of registries.conf are read from this directory only.",
            examples=["/etc/asupplemented/registries.conf.d"],
        ),
    ] = None
    cert_dir: Annotated[
        Path | None,
        Meta(
            description="Certificates for every upstream, in place of those in certs.d.",
            examples=["/etc/asupplemented/certs"],
        ),
    ] = None
    registries_d: Annotated[
        Path | None,
        Meta(
            description="Where signatures are is read from here, not from registries.d.",
            examples=["/etc/asupplemented/registries.d"],
        ),
    ] = None
    token_servers: Annotated[
        Mapping[str, tuple[str, ...]],
        Meta(
            description="Token servers that may get the credentials of a registry, besides those "
            "of its own site.",
            examples=[{"registry.example": ["https://auth.example"]}],
        ),
    ] = field(default_factory=dict[str, tuple[str, ...]])
    private_targets: Annotated[
        bool,
        Meta(
            description="Whether upstreams may redirect to addresses more private than their own.",
            examples=[False],
        ),
    ] = False
    external_urls: Annotated[
        bool,
        Meta(
            description="Whether layers that a registry must not distribute are read from the "
            "URLs that the image names.",
            examples=[False],
        ),
    ] = False
    access_log: Annotated[
        Literal["json", "text", "off"],
        Meta(description="The log of requests, on stdout.", examples=["json"]),
    ] = "json"
    shutdown_timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description="Seconds in which requests may end after SIGTERM.",
            examples=[25],
        ),
    ] = 25.0

    def __repr__(self) -> str:  # a URL may hold a password
        return f"<ServeConfig of {len(self.names)} names at {', '.join(map(str, self.listen))}>"


def load_config(path: str | Path, *, files: bool = True) -> ServeConfig:
    """Read a configuration. Blocking.

    Args:
        path: A TOML file.
        files: Whether the files that it names are checked, too.

    Raises:
        ConfigurationError: The file cannot be read or has mistakes. Each one is told with its
            line and what to write instead: the first one by the message, the others by notes.
    """
    path = Path(path)
    try:
        text = read_limited(path, MAX_FILE, missing=ConfigurationError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8"
        raise ConfigurationError(message) from error
    except SupplementedError as error:
        raise ConfigurationError(error.message) from error
    return read_struct(text, path, ServeConfig, partial(find_mistakes, files=files))


def mirror_names(registries: Iterable[str]) -> dict[str, str | tuple[str, ...]]:
    """The names that make a pull-through proxy of registries.

    Raises:
        ConfigurationError: A text is no registry.
    """
    names: dict[str, str | tuple[str, ...]] = {}
    for text in registries:
        name = normalize_name(f"{text}/*")
        registry = split_name(name)[1]
        if registry is None or name != f"{registry}/*" or not _is_registry(registry):
            message = f"{excerpt(text)} is no registry; write HOST or HOST:PORT, such as quay.io"
            raise ConfigurationError(message)
        names[name] = f"docker://{registry}/{{name}}"
    return names


def default_of(names: Collection[str]) -> str | None:
    """The registry that names without one are in, for what `mirror_names` made.

    It is that of docker, else the only one.
    """
    registries = [name.removesuffix("/*") for name in names]
    if DEFAULT_REGISTRY in registries:
        return DEFAULT_REGISTRY
    return registries[0] if len(registries) == 1 else None


def _is_registry(text: str) -> bool:
    try:
        ImageName(text, "name")
    except InvalidReferenceError:
        return False
    return True


def find_mistakes(config: ServeConfig, *, files: bool = True) -> Iterator[Mistake]:
    """What is wrong with a configuration whose values have the right types. Blocking.

    Args:
        config: The configuration.
        files: Whether the files that it names are checked, too.
    """
    yield from _find_wrong_names(config)
    admin = config.admin
    if admin is not None and admin in config.listen and (admin.port or admin.path):
        yield Mistake(("admin",), f"{admin} is in listen, too; choose another address")
    if config.redis is not None and not config.redis.startswith(_REDIS):
        message = "redis is the URL of a server; write redis://HOST:PORT or rediss://HOST:PORT"
        yield Mistake(("redis",), message)
    for registry, origins in config.token_servers.items():
        for origin in origins:
            try:
                parse_origin(origin)
            except ValueError as error:
                yield Mistake(("token_servers", registry), f"a token server {error}")
    if files:
        yield from _find_wrong_files(config)


def _find_wrong_files(config: ServeConfig) -> Iterator[Mistake]:
    if config.cache is not None and (message := _find_no_directory(config.cache.path)):
        yield Mistake(("cache", "path"), message)
    checks: list[tuple[str, Callable[[], object]]] = []
    if config.tls is not None:
        checks.append(("tls", config.tls.load))
    if config.htpasswd is not None:
        checks.append(("htpasswd", partial(read_htpasswd, config.htpasswd)))
    for key, check in checks:
        try:
            check()
        except ConfigurationError as error:
            yield Mistake((key,), error.message)


def _find_wrong_names(config: ServeConfig) -> Iterator[Mistake]:
    if not config.names:
        yield Mistake(("names",), "there is nothing to serve; write a name below [names]")
    defaults = Defaults(config.missing, config.unavailable, config.unknown)
    for name, members in config.names.items():
        try:
            if not members:
                message = f"{name} stands for no image; write a reference"
                raise ConfigurationError(message)
            Names({name: members}, None, defaults)
        except SupplementedError as error:
            yield Mistake(("names", name), error.message)
    try:
        Names({}, config.allow, defaults, config.default_registry)
    except ConfigurationError as error:
        yield Mistake(("default_registry",), error.message)


def _find_no_directory(path: Path) -> str | None:
    """Why a path cannot be the directory of a cache, whatever the state of the disk."""
    if path.is_dir():
        return None
    if path.exists():
        return f"{path} is not a directory; name one"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent} for the cache; make it: mkdir -p {path.parent}"
    return None


def _find_no_room(path: Path) -> str | None:
    """Why nothing can be written to a cache at present."""
    place = path if path.is_dir() else path.parent
    try:
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            return "cannot be written: it is read-only, or belongs to another user"
        disk = os.statvfs(place)
        if disk.f_blocks and not disk.f_bavail:
            return "is on a disk that is full"
    except OSError as error:
        return f"cannot be used: {error.strerror or error}"
    return None


def _can_read(path: Path) -> bool:
    return os.access(path, os.R_OK)


def _refuse_password() -> bytes:
    message = "the key has a password; store it without: openssl pkey -in KEY -out NEW"
    raise ConfigurationError(message)


# Opening


@dataclass(frozen=True, slots=True)
class Opened:
    """What a configuration opens."""

    session: Session
    catalog: Catalog
    cache: LayoutCache | None
    """The cache on disk. That of the session may have object storage behind it."""
    authenticate: Authenticate | None


_WORDS: Final = {
    remedies.TLS_VERIFY: "tls_verify = false",
    remedies.TOKEN_SERVERS: 'token_servers = {{ "{registry}" = ["{origin}"] }}',
    remedies.PRIVATE_TARGETS: "private_targets = true",
    remedies.EXTERNAL_URLS: "external_urls = true",
}
"""What errors advise, as it is written in a configuration."""


def in_settings() -> AbstractContextManager[None]:
    """Word messages that are made in the body, and in tasks that begin there, for its reader."""
    return remedies.wording(_WORDS.get)


@asynccontextmanager
async def open_config(config: ServeConfig, *, hooks: Iterable[Hook] = ()) -> AsyncGenerator[Opened]:
    """Make the cache, the session and the catalog of a configuration. No upstream is asked.

    Args:
        config: What is served.
        hooks: Told of every event of the session.

    Raises:
        ConfigurationError: Something that the configuration names is not there, or an extra is
            not installed.
    """
    async with AsyncExitStack() as scope:
        cache = None
        if config.cache is not None:
            cache = LayoutCache(config.cache.path, config.cache.max_bytes, fills=config.cache.fills)
            await scope.enter_async_context(cache)

        def warn(message: str) -> None:
            session.emit(Warned("", message))

        credentials = HostCredentials(config.authfile, warn)
        session = Session(
            lookahead=config.lookahead,
            tls_verify=config.tls_verify,
            timeouts=TIMEOUTS,
            cache=await _add_storage(config, cache, scope),
            credentials=credentials,
            hooks=hooks,
            settings=(make_registry_options(config),),
        )
        credentials.context = session
        budget = await _open_budget(config, scope)
        await scope.enter_async_context(session)
        if cache is not None and (reason := await run_blocking(session, _find_no_room, cache.path)):
            warn(f"the cache {cache.path} {reason}; images are served, and not kept")
        catalog = Catalog(
            config.names,
            allow=config.allow,
            default_registry=config.default_registry,
            ttl=config.ttl,
            stale_if_error=config.stale_if_error,
            max_open=config.max_open,
            missing=config.missing,
            unavailable=config.unavailable,
            unknown=config.unknown,
            budget=budget,
        )
        await scope.enter_async_context(catalog)
        authenticate = None
        if config.htpasswd is not None:
            authenticate = await run_blocking(session, read_htpasswd, config.htpasswd)
        yield Opened(session, catalog, cache, authenticate)


async def _add_storage(
    config: ServeConfig, local: LayoutCache | None, scope: AsyncExitStack
) -> BlobCache | None:
    """The cache of the session: that on disk, with object storage behind it if there is one."""
    if local is None or config.cache is None or config.cache.storage is None:
        return local
    from asupplemented.cache.remote.leases import RedisLease
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.cache.remote.tiered import TieredCache

    storage = ObjectStore.from_url(config.cache.storage)
    lease = None
    if config.redis is not None:
        lease = await scope.enter_async_context(RedisLease.from_url(config.redis))
    return await scope.enter_async_context(TieredCache(local, storage, lease=lease))


async def _open_budget(config: ServeConfig, scope: AsyncExitStack) -> RequestBudget:
    if config.redis is None:
        return RequestBudget()
    from asupplemented.cache.remote.values import RedisValues

    values = await scope.enter_async_context(RedisValues.from_url(config.redis))
    return RequestBudget(shared=values)

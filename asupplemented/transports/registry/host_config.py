"""The host's configuration of registries: read once per session, and kept.

Files are read only if ``RegistryOptions.configuration`` names them, and only once a reference is
opened (rule CONF-21).
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from asupplemented.abc import ResourceKey
from asupplemented.aio.concurrency import SingleFlight, SingleFlightMap
from asupplemented.aio.lru import LRU
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.credentials import AuthFileCredentials, AuthFiles
from asupplemented.hostconfig.certificates import (
    find_directory,
    read_certificates,
)
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.proxies import Proxies
from asupplemented.hostconfig.registries import ImageLocation, Registries, RegistriesCache
from asupplemented.hostconfig.registries_d import Lookaside
from asupplemented.transports.registry.endpoint import DIRECT, NO_CERTIFICATES, EndpointConfig
from asupplemented.transports.registry.options import OPTIONS, RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from asupplemented.abc import Context, CredentialProvider
    from asupplemented.hostconfig.certificates import Certificates
    from asupplemented.model.credential import Credential
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.options import SignaturePlaces

__all__ = (
    "ConfigurationFiles",
    "HostConfig",
    "HostCredentials",
    "RegistrySettings",
    "configuration_paths",
    "make_registry_options",
    "reload_configuration",
)

KEPT: Final = 1024
"""Registries whose certificates are kept."""


class HostConfig:
    """Mirrors, certificates and signature locations from the configuration files of a host.

    Args:
        options: Which files, and the settings that override them.
        workers: The threads in which they are read.
        tls_verify: The session's setting, which overrides the files; None to use theirs.
    """

    def __init__(
        self, options: RegistryOptions, workers: Workers, *, tls_verify: bool | None
    ) -> None:
        self._options = options
        self._workers = workers
        self._tls_verify = tls_verify
        self._paths = options.configuration
        self._cache = None if self._paths is None else RegistriesCache(self._paths)
        self._certificates = LRU[str, "Certificates"](KEPT)
        self._lookaside: Lookaside | None = None
        self._reading = SingleFlight[Registries]()
        self._finding = SingleFlight[Lookaside]()
        self._certificate_flights = SingleFlightMap[str, "Certificates"]()
        self._rivals: set[str] = set()

    @classmethod
    def of(cls, context: Context) -> HostConfig:
        """The one of a session."""
        # The context is not kept: it may be a scoped session, with the credentials of a principal.
        options = context.resource(OPTIONS, RegistryOptions)
        workers = context.resource(WORKERS, Workers)
        verify = context.tls_verify
        return context.resource(HOST_CONFIG, lambda: cls(options, workers, tls_verify=verify))

    async def list_candidates(
        self, name: ImageName, warn: Callable[[str], None]
    ) -> tuple[ImageLocation, ...]:
        """The places to read an image from, in order; the last one is the registry itself.

        Args:
            name: The image as the reference names it.
            warn: Called with each remark about the files, once.

        Raises:
            ConfigurationError: A file cannot be read or followed, or a location makes no name.
        """
        if self._cache is None:
            return (ImageLocation(name),)
        registries = self._cache.current or await self.load_registries(warn)
        self._warn_of_rivals(registries, name, warn)
        return registries.locations(name)

    async def load_registries(self, warn: Callable[[str], None]) -> Registries:
        """The contents of registries.conf and its drop-ins; empty if no files are configured.

        Args:
            warn: Called with each remark about the files, once.

        Raises:
            ConfigurationError: A file cannot be read or followed.
        """
        if self._cache is None:
            return Registries()
        read = partial(self._read_registries, self._cache, warn)
        return self._cache.current or await self._reading.run(read)

    async def make_endpoint_config(
        self, candidate: ImageLocation, warn: Callable[[str], None]
    ) -> EndpointConfig:
        """How a place is reached. The TLS setting of the session overrides the files.

        Args:
            candidate: A place.
            warn: Called with each remark about the directory of its certificates, once.

        Raises:
            ConfigurationError: Its certificates cannot be read, or half of a pair is missing.
        """
        registry = candidate.name.registry
        find = None if self._paths is None else self.find_certificates
        verify = self._tls_verify
        insecure = candidate.insecure if verify is None else not verify
        proxies = Proxies.only(candidate.proxy) if candidate.proxy else self._options.proxies
        if self._paths is None:
            return EndpointConfig(registry, insecure, NO_CERTIFICATES, proxies or DIRECT)
        certificates = await self._get_certificates(registry, self._paths, warn)
        return EndpointConfig(registry, insecure, certificates, proxies or DIRECT, find)

    async def find_certificates(self, place: str) -> Certificates:
        """The certificates of a server that a registry leads to (rule TLS-01).

        A directory that is configured for every registry gives its authorities only: a client
        certificate identifies the user to registries, not to other servers.

        Args:
            place: Its ``host[:port]``, as in its URL.

        Raises:
            ConfigurationError: They cannot be read, or half of a pair is missing.
        """
        if self._paths is None:
            return NO_CERTIFICATES
        found = await self._get_certificates(place, self._paths, lambda _: None)
        return found if self._paths.certificates is None else replace(found, pairs=())

    async def find_places(self, warn: Callable[[str], None]) -> SignaturePlaces | None:
        """Where signatures are kept beside registries; None for nowhere (rule SIG-04).

        Args:
            warn: Called with each remark about the files, once.

        Raises:
            ConfigurationError: A file cannot be read or followed.
        """
        if self._options.signature_places is not None or self._paths is None:
            return self._options.signature_places
        if self._lookaside is not None:
            return self._lookaside
        return await self._finding.run(partial(self._read_lookaside, self._paths, warn))

    async def reload(self) -> None:
        """Read registries.conf again now, and the other files when they are next needed.

        Raises:
            ConfigurationError: A file cannot be read or followed. What was read before stays
                in force.
        """
        if self._cache is not None:
            await self._cache.reload()
        self._certificates.clear()
        self._lookaside = None

    async def _read_registries(
        self, cache: RegistriesCache, warn: Callable[[str], None]
    ) -> Registries:
        registries = await cache.get()
        _warn_of(registries.warnings, warn)
        return registries

    async def _get_certificates(
        self, registry: str, paths: ConfigurationPaths, warn: Callable[[str], None]
    ) -> Certificates:
        certificates = self._certificates.get(registry)
        if certificates is None:
            read = partial(self._read_certificates, registry, paths, warn)
            certificates = await self._certificate_flights.run(registry, read)
        return certificates

    async def _read_certificates(
        self, registry: str, paths: ConfigurationPaths, warn: Callable[[str], None]
    ) -> Certificates:
        certificates = await read_certificates(await find_directory(registry, paths))
        _warn_of(certificates.warnings, warn)
        self._certificates.put(registry, certificates)
        return certificates

    async def _read_lookaside(
        self, paths: ConfigurationPaths, warn: Callable[[str], None]
    ) -> Lookaside:
        self._lookaside = lookaside = await Lookaside.load(paths)
        _warn_of(lookaside.warnings, warn)
        return lookaside

    def _warn_of_rivals(
        self, registries: Registries, name: ImageName, warn: Callable[[str], None]
    ) -> None:
        """Warn of prefixes that match equally well and are not used, each once (CONF-10)."""
        for rival in registries.find_ties(name):
            if rival.prefix not in self._rivals:
                self._rivals.add(rival.prefix)
                warn(
                    f"the prefix {rival.prefix} of {rival.origin} is as long as another one that "
                    f"matches {name.repository}, and is not used for it"
                )


HOST_CONFIG: Final = ResourceKey["HostConfig"]("configuration of registries")
"""The configuration of the host, as a session has read it."""


async def reload_configuration(session: Context) -> None:
    """Read the configuration files of a session again. Images that are open do not change.

    Args:
        session: The session.

    Raises:
        ConfigurationError: A file cannot be read or followed. What was read before stays in
            force.
    """
    await HostConfig.of(session).reload()


def _warn_of(remarks: Iterable[str], warn: Callable[[str], None]) -> None:
    for remark in remarks:
        warn(remark)


# Settings of programs


class ConfigurationFiles(Protocol):
    """Files that a program names, in place of those of this host."""

    @property
    def registries_conf(self) -> Path | None: ...

    @property
    def registries_conf_dir(self) -> Path | None: ...

    @property
    def cert_dir(self) -> Path | None: ...

    @property
    def registries_d(self) -> Path | None: ...


class RegistrySettings(ConfigurationFiles, Protocol):
    """Settings of a program that say which refusals to lift."""

    @property
    def token_servers(self) -> Mapping[str, Collection[str]]: ...

    @property
    def private_targets(self) -> bool: ...

    @property
    def external_urls(self) -> bool: ...


def configuration_paths(files: ConfigurationFiles) -> ConfigurationPaths:
    """The configuration files: those that the program names, else those of this host."""
    paths = ConfigurationPaths.default(os.environ)
    return replace(
        paths,
        registries=files.registries_conf or paths.registries,
        registries_alone=paths.registries_alone and files.registries_conf is None,
        registries_directory=files.registries_conf_dir,
        certificates=files.cert_dir,
        lookaside=files.registries_d,
    )


def make_registry_options(settings: RegistrySettings) -> RegistryOptions:
    """Registry options from settings, the configuration files and the proxy variables.

    Raises:
        ConfigurationError: A proxy variable of the environment is not the URL of a proxy, or a
            token server is not an origin.
    """
    return RegistryOptions(
        token_servers=settings.token_servers,
        private_targets=settings.private_targets,
        allow_external_urls=settings.external_urls,
        configuration=configuration_paths(settings),
        proxies=Proxies.from_environment(os.environ),
    )


class HostCredentials:
    """Credentials that podman, skopeo and docker store on this host.

    No file is read before a registry asks for a credential.

    Args:
        authfile: The one file to read; None for those that other programs read.
        warn: Called with each warning about the files.
    """

    def __init__(self, authfile: Path | None, warn: Callable[[str], None]) -> None:
        self._authfile = authfile
        self._warn = warn
        self._provider: CredentialProvider | None = None
        self.context: Context | None = None
        """The session that asks. Its registries.conf names the helpers (rule FILE-12)."""

    async def __call__(self, name: str, /) -> Credential | None:
        if self._provider is None:
            self._provider = await self._make_provider()
        return await self._provider(name)

    async def _make_provider(self) -> CredentialProvider:
        registries = Registries()
        if self.context is not None:
            registries = await HostConfig.of(self.context).load_registries(self._warn)
        return AuthFileCredentials(
            self._authfile or AuthFiles.of_environment(os.environ),
            helpers=registries.credential_helpers,
            docker=True,
            warn=self._warn,
        )

"""What the system says about registries, for one session: read once, and kept.

Nothing is read unless ``RegistryOptions.configuration`` names files, and nothing before a
reference is opened (rule CONF-21).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.abc import ResourceKey
from asupplemented.aio.concurrency import SingleFlight, SingleFlightMap
from asupplemented.aio.lru import LRU
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.hostconfig.certificates import (
    find_directory,
    read_certificates,
)
from asupplemented.hostconfig.proxies import Proxies
from asupplemented.hostconfig.registries import ImageLocation, Registries, RegistriesCache
from asupplemented.hostconfig.registries_d import Lookaside
from asupplemented.transports.registry.endpoint import DIRECT, NO_CERTIFICATES, Route
from asupplemented.transports.registry.options import OPTIONS, RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asupplemented.abc import Context
    from asupplemented.hostconfig.certificates import Certificates
    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.options import SignaturePlaces

__all__ = ("System", "reload_configuration")

KEPT: Final = 1024
"""Registries whose certificates are remembered."""


class System:
    """Mirrors, certificates and lookaside signatures, as the files of a system have them.

    Args:
        options: Which files, and what is set without them.
        workers: The threads in which they are read.
        tls_verify: What the session says of TLS, None if it leaves that to the files.
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
        self._trusting = SingleFlightMap[str, "Certificates"]()
        self._rivals: set[str] = set()

    @classmethod
    def of(cls, context: Context) -> System:
        """That of a session."""
        # Nothing here keeps the context: it may be the view of somebody with credentials.
        options = context.resource(OPTIONS, RegistryOptions)
        workers = context.resource(WORKERS, Workers)
        verify = context.tls_verify
        return context.resource(SYSTEM, lambda: cls(options, workers, tls_verify=verify))

    async def list_candidates(
        self, name: ImageName, warn: Callable[[str], None]
    ) -> tuple[ImageLocation, ...]:
        """The places to read an image from, in order; the last one is the registry itself.

        Args:
            name: The image as it was asked for.
            warn: Told of what is odd in the files, once.

        Raises:
            ConfigurationError: A file cannot be read or followed, or a location makes no name.
        """
        if self._cache is None:
            return (ImageLocation(name),)
        registries = self._cache.current or await self.load_registries(warn)
        self._tell_rivals(registries, name, warn)
        return registries.locations(name)

    async def load_registries(self, warn: Callable[[str], None]) -> Registries:
        """All that registries.conf and its drop-ins say; nothing, if no files were named.

        Args:
            warn: Told of what is odd in the files, once.

        Raises:
            ConfigurationError: A file cannot be read or followed.
        """
        if self._cache is None:
            return Registries()
        read = partial(self._read_registries, self._cache, warn)
        return self._cache.current or await self._reading.run(read)

    async def plan_route(self, candidate: ImageLocation, warn: Callable[[str], None]) -> Route:
        """How a candidate is reached. What the session says of TLS overrides what files say.

        Args:
            candidate: A place.
            warn: Told of what is odd in the directory of its certificates, once.

        Raises:
            ConfigurationError: Its certificates cannot be read, or half of a pair is missing.
        """
        registry = candidate.name.registry
        verify = self._tls_verify
        insecure = candidate.insecure if verify is None else not verify
        proxies = Proxies.only(candidate.proxy) if candidate.proxy else self._options.proxies
        if self._paths is None:
            return Route(registry, insecure, NO_CERTIFICATES, proxies or DIRECT)
        certificates = self._certificates.get(registry)
        if certificates is None:
            read = partial(self._read_certificates, registry, self._paths, warn)
            certificates = await self._trusting.run(registry, read)
        return Route(registry, insecure, certificates, proxies or DIRECT)

    async def find_places(self, warn: Callable[[str], None]) -> SignaturePlaces | None:
        """Where signatures lie that are not in registries; None for nowhere (rule SIG-04).

        Args:
            warn: Told of what is odd in the files, once.

        Raises:
            ConfigurationError: A file cannot be read or followed.
        """
        if self._options.signature_places is not None or self._paths is None:
            return self._options.signature_places
        if self._lookaside is not None:
            return self._lookaside
        return await self._finding.run(partial(self._read_lookaside, self._paths, warn))

    async def reload(self) -> None:
        """Read registries.conf again now, and all else when it is next needed.

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
        _tell(registries.warnings, warn)
        return registries

    async def _read_certificates(
        self, registry: str, paths: ConfigurationPaths, warn: Callable[[str], None]
    ) -> Certificates:
        certificates = await read_certificates(await find_directory(registry, paths))
        _tell(certificates.warnings, warn)
        self._certificates.put(registry, certificates)
        return certificates

    async def _read_lookaside(
        self, paths: ConfigurationPaths, warn: Callable[[str], None]
    ) -> Lookaside:
        self._lookaside = lookaside = await Lookaside.load(paths)
        _tell(lookaside.warnings, warn)
        return lookaside

    def _tell_rivals(
        self, registries: Registries, name: ImageName, warn: Callable[[str], None]
    ) -> None:
        """Tell of prefixes that lost by their spelling alone, each once (rule CONF-10)."""
        for rival in registries.find_ties(name):
            if rival.prefix not in self._rivals:
                self._rivals.add(rival.prefix)
                warn(
                    f"the prefix {rival.prefix} of {rival.origin} is as long as another one that "
                    f"fits {name.repository}, and does not count for it"
                )


SYSTEM: Final = ResourceKey["System"]("configuration of registries")
"""What a session knows of the system."""


async def reload_configuration(session: Context) -> None:
    """Have a session read its configuration files again; images that are open stay as they are.

    Args:
        session: The session whose configuration it is.

    Raises:
        ConfigurationError: A file cannot be read or followed. What was read before stays in
            force.
    """
    await System.of(session).reload()


def _tell(remarks: Iterable[str], warn: Callable[[str], None]) -> None:
    for remark in remarks:
        warn(remark)

"""References to images in registries: ``docker://[registry/]path[:tag][@digest]``.

Opening an image in a registry: where it is by configuration, and what reads it from there.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.errors import InvalidReferenceError, SupplementedError, excerpt
from asupplemented.model.name import ImageName
from asupplemented.source import open_verified
from asupplemented.transports.registry.adapter import RegistryAdapter, enter
from asupplemented.transports.registry.host_config import System
from asupplemented.transports.registry.mirrors import MirroredAdapter, MirrorEndpoint
from asupplemented.transports.registry.request import Caller, Means

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from asupplemented.abc import Context, Opening, Source
    from asupplemented.hostconfig.registries import ImageLocation
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry.adapter import RegistryAdapter

__all__ = ("RegistryReference", "open_adapter", "open_registry")


async def open_adapter(
    name: ImageName, reference: str, session: Context
) -> RegistryAdapter | MirroredAdapter:
    """Find out where an image is. Nothing is asked of a registry yet.

    Args:
        name: The image.
        reference: The same as users write it, for events.
        session: Gives connections, credentials, limits and caches.

    Raises:
        InvalidReferenceError: It has a tag and a digest, and the options refuse that (REF-11).
        ConfigurationError: The session borrowed a client that cannot be used, or what is
            configured cannot be read or followed.
    """
    caller = Caller(reference, session.emit)
    candidates = await _list_candidates(name, caller, session)
    if len(candidates) == 1 and candidates[0].name == name:
        return await enter(candidates[0], caller, session)
    return MirroredAdapter(name, _endpoints(candidates, session), session)


async def open_registry(name: ImageName, reference: str, session: Context) -> RegistryAdapter:
    """Take a client for an image in the registry itself, for what mirrors are not asked.

    The registry is where it is configured to be, and is reached as is configured (HTTP-11).

    Args:
        name: The image.
        reference: The same as users write it, for events.
        session: Gives connections, credentials, limits and caches.

    Raises:
        InvalidReferenceError: See `open_adapter`.
        ConfigurationError: See `open_adapter`; or the registry is blocked.
    """
    caller = Caller(reference, session.emit)
    *_, candidate = await _list_candidates(name, caller, session)
    return await enter(candidate, caller, session)


async def _list_candidates(
    name: ImageName, caller: Caller, session: Context
) -> tuple[ImageLocation, ...]:
    if Means.of(session).options.tag_and_digest == "refuse" and None not in {name.tag, name.digest}:
        message = "a reference with both a tag and a digest is not supported; drop one of them"
        raise InvalidReferenceError(message, reference=caller.reference)
    return await System.of(session).list_candidates(name, caller.warn)


def _endpoints(candidates: tuple[ImageLocation, ...], session: Context) -> Iterator[MirrorEndpoint]:
    """Each candidate as an endpoint; all but the last one that may be read have rivals."""
    allowed = [candidate for candidate in candidates if candidate.blocked is None]
    for candidate in candidates:
        caller = Caller(
            f"docker://{candidate.name}",
            session.emit,
            candidate.mirrored_registry,
            rivals=candidate in allowed[:-1],
        )
        yield MirrorEndpoint(candidate, caller, session)


MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """An image in a registry. ``str()`` is the full form and parses back.

    With a digest it is read by that alone, and a tag beside it is for people (rule REF-11).

    Raises:
        InvalidReferenceError: The port of the registry does not exist.
    """

    name: ImageName

    def __post_init__(self) -> None:
        host, colon, port = self.name.registry.rpartition(":")
        if colon and not host.endswith(":") and port.isdecimal() and not 0 < int(port) <= MAX_PORT:
            message = f"there is no port {excerpt(port, 10)}"
            raise InvalidReferenceError(message, reference=self)

    @classmethod
    def parse(cls, rest: str, *, allow_ipv6: bool = False) -> RegistryReference:
        """Read what follows ``docker:``.

        Args:
            rest: ``//`` and a name (rule REF-03).
            allow_ipv6: Accept a registry like ``[::1]:5000`` (rule REF-12).

        Raises:
            InvalidReferenceError: It is no name of an image; the message says why.
        """
        if not rest.startswith("//"):
            message = (
                f"docker:{excerpt(rest)} is no reference: the name of an image follows docker://"
            )
            raise InvalidReferenceError(message)
        return cls(ImageName.parse(rest[2:], allow_ipv6=allow_ipv6))

    @property
    def transport(self) -> str:
        return "docker"

    @property
    def repository(self) -> str:
        """The repository, ``docker://host[:port]/path``."""
        return f"docker://{self.name.repository}"

    def open(self, session: Context) -> Opening[Source]:
        """Open the image: ask for its default manifest, and verify it (rule SRC-01).

        Raises:
            ImageNotFoundError: On use: there is no such image.
            SourceError: On use: the registry is not there, failed or refused.
        """
        return open_verified(partial(open_adapter, self.name, str(self), session), self, session)

    async def list_tags(self, session: Context) -> tuple[str, ...]:
        """All tags of the repository, each once, in the order in which the registry gives them.

        What the reference itself names need not exist. Mirrors are not asked (rules TAG-01,
        HTTP-11).

        Args:
            session: Gives connections, credentials, limits and caches.

        Raises:
            ImageNotFoundError: There is no such repository.
            LimitExceededError: The list is too long.
            SourceError: The registry failed or refused, or its list cannot be followed.
        """
        async with self._asking(session) as adapter:
            return await adapter.list_tags()

    async def get_digest(self, session: Context) -> Digest:
        """The digest of the default manifest, by a request that is cheap: nothing is read.

        It is what the registry claims; who opens the image gets what is proven. With a digest in
        the reference, that one is returned if it is there (rules HTTP-11, HTTP-12).

        Args:
            session: Gives connections, credentials, limits and caches.

        Raises:
            ImageNotFoundError: There is no such image.
            SourceError: The registry failed or refused, or does not say.
        """
        async with self._asking(session) as adapter:
            return await adapter.fetch_digest()

    @asynccontextmanager
    async def _asking(self, session: Context) -> AsyncGenerator[RegistryAdapter]:
        try:
            adapter = await open_registry(self.name, str(self), session)
            try:
                yield adapter
            finally:
                await adapter.aclose()
        except SupplementedError as error:
            error.locate(reference=self)
            raise

    def __str__(self) -> str:
        return f"docker://{self.name}"

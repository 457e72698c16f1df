"""References to images in registries, ``docker://[registry/]path[:tag][@digest]``.

`open_adapter` opens one: it looks up where the host's configuration says that the image is, and
makes the adapter for one place or for several.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.abc import Opening
from asupplemented.errors import InvalidReferenceError, SupplementedError, excerpt
from asupplemented.model.name import ImageName
from asupplemented.source import VerifiedSource, open_limit, open_verified
from asupplemented.transports.registry.adapter import RegistryAdapter, enter
from asupplemented.transports.registry.host_config import HostConfig
from asupplemented.transports.registry.mirrors import MirroredAdapter, MirrorEndpoint
from asupplemented.transports.registry.request import ClientDeps, RequestContext

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from asupplemented.abc import Context, Source
    from asupplemented.hostconfig.registries import ImageLocation
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry.adapter import RegistryAdapter

__all__ = ("RegistryReference", "open_adapter", "open_registry")


async def open_adapter(
    name: ImageName, reference: str, session: Context
) -> RegistryAdapter | MirroredAdapter:
    """Make the adapter for an image. No request is sent yet.

    Args:
        name: The image.
        reference: The reference in its full form, for events.
        session: Gives connections, credentials, limits and caches.

    Raises:
        InvalidReferenceError: It has a tag and a digest, and the options refuse that (REF-11).
        ConfigurationError: The HTTP client of the session cannot be used, or a configuration
            file cannot be read or followed.
    """
    request_context = RequestContext(reference, session.emit)
    candidates = await _list_candidates(name, request_context, session)
    if len(candidates) == 1 and candidates[0].name == name:
        return await enter(candidates[0], request_context, session)
    return MirroredAdapter(name, _endpoints(candidates, session), session)


async def open_registry(name: ImageName, reference: str, session: Context) -> RegistryAdapter:
    """Make the adapter for an image in the registry itself, for requests that skip mirrors.

    The configuration says where the registry is, and how it is reached (rule HTTP-11).

    Args:
        name: The image.
        reference: The reference in its full form, for events.
        session: Gives connections, credentials, limits and caches.

    Raises:
        InvalidReferenceError: See `open_adapter`.
        ConfigurationError: See `open_adapter`; or the registry is blocked.
    """
    request_context = RequestContext(reference, session.emit)
    *_, candidate = await _list_candidates(name, request_context, session)
    return await enter(candidate, request_context, session)


async def _list_candidates(
    name: ImageName, request_context: RequestContext, session: Context
) -> tuple[ImageLocation, ...]:
    refused = ClientDeps.of(session).options.tag_and_digest == "refuse"
    if refused and name.tag is not None and name.digest is not None:
        message = "a reference with both a tag and a digest is not supported; drop one of them"
        raise InvalidReferenceError(message, reference=request_context.reference)
    return await HostConfig.of(session).list_candidates(name, request_context.warn)


def _endpoints(candidates: tuple[ImageLocation, ...], session: Context) -> Iterator[MirrorEndpoint]:
    """The candidates as endpoints; all but the last that is not blocked have alternatives."""
    allowed = [candidate for candidate in candidates if candidate.blocked is None]
    for candidate in candidates:
        request_context = RequestContext(
            f"docker://{candidate.name}",
            session.emit,
            candidate.mirrored_registry,
            has_alternatives=candidate in allowed[:-1],
        )
        yield MirrorEndpoint(candidate, request_context, session)


MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """An image in a registry. ``str()`` is the full form and parses back.

    With a digest it is read by the digest alone; a tag beside it is ignored (rule REF-11).

    Raises:
        InvalidReferenceError: The port of the registry is out of range.
    """

    name: ImageName

    def __post_init__(self) -> None:
        host, colon, port = self.name.registry.rpartition(":")
        if colon and not host.endswith(":") and port.isdecimal() and not 0 < int(port) <= MAX_PORT:
            message = f"there is no port {excerpt(port, 10)}; ports go from 1 to {MAX_PORT}"
            raise InvalidReferenceError(message, reference=self)

    @classmethod
    def parse(cls, rest: str, *, allow_ipv6: bool = False) -> RegistryReference:
        """Read what follows ``docker:``.

        Args:
            rest: ``//`` and a name (rule REF-03).
            allow_ipv6: Accept a registry like ``[::1]:5000`` (rule REF-12).

        Raises:
            InvalidReferenceError: It is not the name of an image; the message says why.
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
    def tag(self) -> str | None:
        """Its tag; None if a digest names the image."""
        return self.name.tag if self.name.digest is None else None

    @property
    def repository(self) -> str:
        """``host[:port]/path``, under which its credential is looked up."""
        return self.name.repository

    def at(self, which: str) -> RegistryReference:
        """The image of the same repository with another tag, or with a digest.

        Raises:
            InvalidReferenceError: `which` is no tag.
            InvalidDigestError: `which` holds a colon, and is no digest.
        """
        bare = replace(self.name, tag=None, digest=None)
        return RegistryReference(bare.with_digest(which) if ":" in which else bare.with_tag(which))

    def open_repository(self, session: Context) -> Opening[Source]:
        """Open the repository without reading a manifest, for what is named by digest.

        Nothing is asked yet, so the repository may not exist.
        """

        async def opener() -> Source:
            adapter = await open_adapter(self.name, str(self), session)
            return VerifiedSource(adapter, self, session)

        return Opening(opener, self)

    def open(self, session: Context) -> Opening[Source]:
        """Open the image: read its default manifest, and verify it (rule SRC-01).

        Raises:
            ImageNotFoundError: On use: the image does not exist.
            SourceError: On use: the registry cannot be reached, failed or refused.
        """
        return open_verified(partial(open_adapter, self.name, str(self), session), self, session)

    async def list_tags(self, session: Context) -> tuple[str, ...]:
        """All tags of the repository, each once, in the order in which the registry gives them.

        The image of the reference need not exist. Mirrors are not asked (rules TAG-01, HTTP-11).

        Args:
            session: Gives connections, credentials, limits and caches.

        Raises:
            ImageNotFoundError: There is no such repository.
            LimitExceededError: The list is too long.
            SourceError: The registry failed or refused, or its list cannot be followed.
        """
        async with self._open_registry("listing tags", session) as adapter:
            return await adapter.list_tags()

    async def get_digest(self, session: Context) -> Digest:
        """The digest of the default manifest, by a cheap request that reads no manifest.

        It is the registry's claim; open the image for a verified one. If the reference has a
        digest, that one is returned if it exists (rules HTTP-11, HTTP-12).

        Args:
            session: Gives connections, credentials, limits and caches.

        Raises:
            ImageNotFoundError: There is no such image.
            SourceError: The registry failed or refused, or names no digest.
        """
        async with self._open_registry("finding the digest", session) as adapter:
            return await adapter.fetch_digest()

    async def check_login(self, session: Context) -> None:
        """Ask the registry whether it accepts the credential of the session.

        The image need not exist. A registry that answers without credentials accepts any.

        Args:
            session: Gives connections, credentials, limits and caches.

        Raises:
            UnauthorizedError: It does not accept the credential.
            SourceError: The registry cannot be reached, failed or refused.
        """
        async with self._open_registry("logging in", session) as adapter:
            await adapter.check_login()

    @asynccontextmanager
    async def _open_registry(self, what: str, session: Context) -> AsyncGenerator[RegistryAdapter]:
        try:
            async with open_limit(what, session):
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

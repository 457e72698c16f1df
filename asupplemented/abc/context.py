"""The session, as adapters see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc.cache import BlobCache
    from asupplemented.abc.resource import ResourceKey, Timeouts
    from asupplemented.events import Event
    from asupplemented.model.credential import Credential
    from asupplemented.model.descriptor import Descriptor

__all__ = ("Context", "CredentialProvider", "Hook", "Share")

T = TypeVar("T")


class Hook(Protocol):
    """Told of everything worth counting. Called on the event loop: be quick, do not raise."""

    def __call__(self, event: Event, /) -> None: ...


class CredentialProvider(Protocol):
    """Looks up the credential for a repository; None for anonymous access.

    It is asked once for each source that is opened, with the name that is most specific: that of
    the repository, ``host[:port]/path``. What precedes the first slash is the registry, as it is
    written in the reference: case matters (rule REF-09), and Docker Hub is ``docker.io``. A name
    without a slash asks for the registry as a whole. Where an image is read from a mirror, the
    name is the one that it has there, and what is given for it goes there (rule CRED-04).
    """

    def __call__(self, name: str, /) -> Awaitable[Credential | None]: ...


class Share(Protocol):
    """Whether a principal may have what another one has fetched, or is fetching.

    It is asked before anything is revealed, so it has to know by itself that the principal is
    allowed to read the blob. A principal that is refused fetches the blob itself, with
    its own credentials.
    """

    def __call__(
        self, principal: str | None, descriptor: Descriptor, members: Sequence[str], /
    ) -> bool | Awaitable[bool]:
        """Decide for one blob.

        Args:
            principal: Who asks, None for the session itself.
            descriptor: The blob.
            members: The references, as text, through which the principal came to ask for it.
        """
        ...


class Context(Protocol):
    """What adapters see of a session."""

    @property
    def lookahead(self) -> int:
        """Manifest fetches in flight beyond the one that is needed next; 0 is serial."""
        ...

    @property
    def tls_verify(self) -> bool | None:
        """False allows plain http and unverified TLS for every registry, True for none.

        None leaves it to what is configured for each registry; without that it is True.
        """
        ...

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait."""
        ...

    @property
    def http(self) -> object | None:
        """A borrowed ``aiohttp.ClientSession`` that is never closed here, or None."""
        ...

    @property
    def credentials(self) -> CredentialProvider:
        """Looks up the credential for a repository; it gives None where there is none."""
        ...

    @property
    def cache(self) -> BlobCache | None:
        """Keeps blobs and manifests; None for nothing. It is never closed here."""
        ...

    @property
    def share(self) -> Share | None:
        """Decides what principals share; None: nothing."""
        ...

    @property
    def principal(self) -> str | None:
        """The principal that a scoped session acts for, None otherwise (``Session.scoped``).

        What a registry lets one principal have is never kept for another (rule SEC-13).
        """
        ...

    def resource(self, key: ResourceKey[T], factory: Callable[[], T], /) -> T:
        """The session's one object of a kind, made on first use.

        All principals share it: what belongs to one of them is kept by its name in there. If it
        is an `AsyncResource` it is closed with the session, in reverse order of making.

        Args:
            key: The kind, compared by identity.
            factory: Makes the object. If it raises, nothing is kept.

        Raises:
            ClosedError: The session is closed.
            WrongLoopError: The session belongs to another event loop.
        """
        ...

    @property
    def observed(self) -> bool:
        """Whether there is a hook; without one, events need not even be made."""
        ...

    def emit(self, event: Event, /) -> None:
        """Tell the hooks of an event."""
        ...

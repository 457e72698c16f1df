"""Resources: what must be closed, what is about to be opened, and what a session keeps."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from asupplemented.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

__all__ = ("AsyncResource", "Opening", "ResourceKey", "Setting", "Timeouts")

T = TypeVar("T")
ResourceT_co = TypeVar("ResourceT_co", bound="AsyncResource", covariant=True)


class AsyncResource(abc.ABC):
    """Something that must be closed.

    Entering returns the resource itself; leaving awaits `aclose`. Closing is idempotent, and
    closes even when it fails: an error means that it was not done gracefully.
    """

    __slots__ = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release everything that is held. May be called again, and does nothing then."""


class Opening(Generic[ResourceT_co]):
    """A resource about to be opened: ``await`` it, or enter it with ``async with``.

    Nothing happens before that. Awaited, it gives the open resource, which the caller closes;
    entered, it closes the resource on the way out. It can be used once.

    Args:
        opener: Opens the resource; on failure or cancellation it leaves nothing open.
        what: What is opened, for error messages.

    Raises:
        UsageError: When it is used a second time.
    """

    __slots__ = ("_opener", "_resource", "_what")

    def __init__(self, opener: Callable[[], Awaitable[ResourceT_co]], what: object) -> None:
        self._opener: Callable[[], Awaitable[ResourceT_co]] | None = opener
        self._what = what
        self._resource: ResourceT_co | None = None

    def __await__(self) -> Generator[object, None, ResourceT_co]:
        return self._open().__await__()

    async def __aenter__(self) -> ResourceT_co:
        self._resource = await self._open()
        return self._resource

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        resource, self._resource = self._resource, None
        if resource is not None:
            await resource.aclose()

    async def _open(self) -> ResourceT_co:
        opener, self._opener = self._opener, None
        if opener is None:
            message = f"{self._what} was opened already; call open() again for another one"
            raise UsageError(message)
        return await opener()

    def __repr__(self) -> str:
        state = "used" if self._opener is None else "unused"
        return f"<Opening of {self._what}, {state}>"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds; None waits for ever."""

    connect: float | None = 30.0
    """For a connection, TLS included."""
    first_byte: float | None = 60.0
    """From a request sent to the head of its answer."""
    stall: float | None = 60.0
    """Within a body: for the next byte, and the window of `min_rate`."""
    min_rate: int = 1024
    """Bytes per second that a body must reach, averaged over `stall` seconds; 0 turns it off."""
    open: float | None = 300.0
    """For opening one member: connection, access, and its default manifest; and for one manifest,
    the head of one blob, or one list with all its pages. Redirects, tokens, retries and pauses that
    a registry asks for are part of it."""


class ResourceKey(Generic[T]):
    """The typed name of one kind of thing that a session owns, compared by identity."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"ResourceKey({self.name!r})"


@runtime_checkable
class Setting(Protocol):
    """A value that a session is given for a part of the library, which finds it by its key.

    Such as ``RegistryOptions``. A session takes one of each kind: ``Session(settings=[...])``.
    """

    @property
    def key(self) -> ResourceKey[Any]:
        """The kind of setting that it is."""
        ...

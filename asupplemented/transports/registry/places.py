"""Places: where one image may be, physically, and what is read from the first one that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from asupplemented.errors import (
    ClosedError,
    NotFoundError,
    RangeError,
    SupplementedError,
    UnsupportedOperationError,
    UsageError,
)
from asupplemented.hostconfig.registries import join_failures
from asupplemented.transports.registry.adapter import enter
from asupplemented.transports.registry.blobs import HttpBlob
from asupplemented.transports.registry.parts import HttpParts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    from asupplemented.abc import Context
    from asupplemented.hostconfig.registries import Candidate
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transports.registry.adapter import RegistryAdapter
    from asupplemented.transports.registry.parts import HttpPart
    from asupplemented.transports.registry.request import Caller

__all__ = ("Place", "PlacedBlob", "PlacedParts", "ask_in_turn")

T = TypeVar("T")

_NO_FAILURES = (NotFoundError, RangeError, UnsupportedOperationError)
"""What a place may answer that is in good order."""


class Place:
    """One place where an image may be. Nothing is taken for it before it is asked.

    Args:
        candidate: The place.
        caller: Who it is for, there.
        context: The session.

    Attributes:
        failing: Whether it is asked after the others from now on.
    """

    __slots__ = ("_adapter", "_context", "_open", "caller", "candidate", "failing")

    def __init__(self, candidate: Candidate, caller: Caller, context: Context) -> None:
        self.candidate = candidate
        self.caller = caller
        self.failing = False
        self._context = context
        self._adapter: RegistryAdapter | None = None
        self._open = True

    @property
    def reference(self) -> str:
        """Where it is, physically."""
        return self.caller.reference

    async def enter(self) -> RegistryAdapter:
        """What reads from there.

        Raises:
            ConfigurationError: It is blocked, or what is configured for it cannot be used.
            ClosedError: It was closed meanwhile.
        """
        if self._adapter is None:
            await self._keep(await enter(self.candidate, self.caller, self._context))
        if not self._open or self._adapter is None:
            raise ClosedError("the source was closed; open the reference again")
        return self._adapter

    def open_blob(
        self, blob: Descriptor, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> PlacedBlob:
        """Prepare to read ``[start, end)`` of a blob from there."""
        return PlacedBlob((self,), blob, start, end, etag)

    def judge(self, error: SupplementedError, *, lenient: bool = True) -> None:
        """Take note of how a request has failed.

        Args:
            error: How.
            lenient: Whether a place that merely lacks something keeps its rank.
        """
        good = isinstance(error, _NO_FAILURES)
        if self.failing or (good and lenient):
            return
        self.failing = True
        if self.caller.rivals and not good:
            self.caller.warn(f"{self.reference} is asked last from now on: {error.message}")

    async def _keep(self, made: RegistryAdapter) -> None:
        """Keep what was made, unless somebody was faster, or has closed the place."""
        if self._open and self._adapter is None:
            self._adapter = made
        else:
            await made.aclose()

    async def aclose(self) -> None:
        """Give back what was taken."""
        self._open = False
        if self._adapter is not None:
            await self._adapter.aclose()


async def ask_in_turn(
    places: Iterable[Place], ask: Callable[[Place], Awaitable[T]], *, lenient: bool = True
) -> T:
    """Ask one place after the other until one answers.

    Who is cancelled has not failed: no other place is asked then (rule CONF-16).

    Args:
        places: At least one.
        ask: Asks one of them.
        lenient: See `Place.judge`.

    Raises:
        UsageError: The source was closed.
        SupplementedError: No place answered: the error of the registry itself, which tells of
            its mirrors (rule CONF-15).
    """
    failures: list[tuple[Candidate, SupplementedError]] = []
    for place in places:
        try:
            return await ask(place)
        except UsageError:
            raise
        except SupplementedError as error:
            place.judge(error, lenient=lenient)
            failures.append((place.candidate, error))
    failures.sort(key=lambda failure: not failure[0].is_mirror)
    raise join_failures(failures)


class _Body(Protocol):
    """What is entered to be read."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


BodyT = TypeVar("BodyT", bound=_Body)


class _Placed(Generic[BodyT]):
    """A body from the first place that gives one. Places are not changed once it was entered."""

    __slots__ = ("_body", "_entered", "_place", "_places", "_prepare")

    def __init__(
        self, places: Sequence[Place], prepare: Callable[[RegistryAdapter], BodyT]
    ) -> None:
        self._places = places
        self._prepare = prepare
        self._entered = False
        self._place: Place | None = None
        self._body: BodyT | None = None

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "a body is entered once; ask for it again for another one"
            raise UsageError(message)
        self._entered = True
        self._body = await ask_in_turn(self._places, self._enter)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._body is not None:
            await self._body.__aexit__(exc_type, exc, traceback)

    async def _enter(self, place: Place) -> BodyT:
        body = self._prepare(await place.enter())
        await body.__aenter__()
        self._place = place
        return body

    @property
    def body(self) -> BodyT:
        """What was entered.

        Raises:
            UsageError: Nothing was.
        """
        if self._body is None:
            message = "the body is read after it was entered"
            raise UsageError(message)
        return self._body


class PlacedBlob(_Placed[HttpBlob]):
    """One attempt to read a blob, or a range of it, from the first place that has it.

    Args:
        places: Where it may be, best first.
        blob: Its digest is valid.
        start: Offset of the first byte that is wanted.
        end: Offset behind the last one, None for the end of the blob.
        etag: The strong validator that the beginning came with, from one of these places.
    """

    __slots__ = ("_hasty",)

    def __init__(
        self,
        places: Sequence[Place],
        blob: Descriptor,
        start: int,
        end: int | None,
        etag: str | None,
    ) -> None:
        def prepare(adapter: RegistryAdapter) -> HttpBlob:
            body = adapter.open_blob(blob, start, end, etag)
            if self._hasty:
                body.hurry()
            return body

        super().__init__(places, prepare)
        self._hasty = False

    def hurry(self) -> None:
        """See `HttpBlob.hurry`."""
        self._hasty = True

    @property
    def resumable(self) -> bool:
        """See `HttpBlob.resumable`."""
        return self.body.resumable

    @property
    def start(self) -> int:
        return self.body.start

    @property
    def size(self) -> int | None:
        return self.body.size

    @property
    def etag(self) -> str | None:
        return self.body.etag

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes; a place that fails is asked last from then on.

        Raises:
            SupplementedError: See `HttpBlob`.
        """
        try:
            return await self.body.__anext__()
        except UsageError:
            raise
        except SupplementedError as error:
            if self._place is not None:
                self._place.judge(error)
            raise


class PlacedParts(_Placed[HttpParts]):
    """One attempt to read ranges of a blob, from the first place that can.

    Args:
        places: Where it may be, best first.
        blob: Its digest is valid.
        ranges: See `Source.open_parts`.
    """

    __slots__ = ()

    def __init__(
        self,
        places: Sequence[Place],
        blob: Descriptor,
        ranges: Sequence[tuple[int, int | None]],
    ) -> None:
        super().__init__(places, lambda adapter: adapter.open_parts(blob, ranges))

    @property
    def size(self) -> int | None:
        return self.body.size

    def __aiter__(self) -> AsyncIterator[HttpPart]:
        return self.body.__aiter__()

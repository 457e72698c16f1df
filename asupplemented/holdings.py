"""What a session holds: objects by key, and the event loop that they belong to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, cast

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import close_all
from asupplemented.errors import ClosedError, WrongLoopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asupplemented.abc import ResourceKey

__all__ = ("Holdings",)

T = TypeVar("T")


class Holdings:
    """Objects by key, and the event loop that they belong to.

    Args:
        objects: Those that are there from the beginning, by `ResourceKey`.
    """

    __slots__ = ("_done", "_loop", "_objects", "closed")

    def __init__(self, objects: Mapping[object, object]) -> None:
        self._objects = dict(objects)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = asyncio.Event()
        self.closed = False

    @property
    def needs_closing(self) -> bool:
        return any(isinstance(value, AsyncResource) for value in self._objects.values())

    def bind(self) -> None:
        """Belong to the running event loop, unless there is another one already."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            message = "a session is used from within an event loop, and none is running here"
            raise WrongLoopError(message) from None
        if self._loop is None and not self.closed:
            self._loop = loop
        if self._loop not in {None, loop}:
            message = "this session belongs to another event loop; make one session for each loop"
            raise WrongLoopError(message)

    def get(self, key: ResourceKey[T], factory: Callable[[], T]) -> T:
        self.bind()
        # While closing, what is not closed yet still serves those that need it to close.
        if key in self._objects:
            return cast("T", self._objects[key])
        if self.closed:
            message = f"the session is closed, there is no more {key.name}; make a new session"
            raise ClosedError(message)
        made = factory()
        self._objects[key] = made
        return made

    async def aclose(self) -> None:
        self.bind()
        if self.closed:
            await self._done.wait()
            return
        self.closed = True
        try:
            await close_all(self._take_back(), "the resources of a session")
        finally:
            self._done.set()

    def _take_back(self) -> Iterator[AsyncResource]:
        while self._objects:
            _, value = self._objects.popitem()
            if isinstance(value, AsyncResource):
                yield value

"""Writing objects so that nobody ever sees half of one, and nothing of an aborted one stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from asupplemented.cache.remote.object_requests import ask
from asupplemented.errors import TruncatedError
from asupplemented.limits import BLOCK, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore.store import ObjectStore as Store

__all__ = ("PART", "Read", "put_object")

PART: Final = 8 * MIB
"""What is larger is uploaded in parts of this size, and what is not, in one piece."""

_PARTS_AT_ONCE: Final = 2
_MOST_PARTS: Final = 9000
"""S3 takes ten thousand."""
ABORT_PATIENCE: Final = 5.0
"""Seconds for an upload to remove its parts; what stays then is for the rules of the bucket."""

_SLOWEST: Final = 128 * KIB
"""Bytes per second: an upload that is slower than that is of no use to anybody."""

Read: TypeAlias = Callable[[int, int], Awaitable[bytes]]
"""Gives up to so many bytes from an offset on, at least one; see `asupplemented.abc.Spool`."""


async def put_object(store: Store, key: str, size: int, read: Read, patience: float) -> None:
    """Write an object from its first byte to its last, instead of what is there.

    It becomes visible when it is whole. At most three parts are in memory at once.

    Args:
        store: Where to.
        key: The name of the object.
        size: Bytes that it has.
        read: Gives them, in blocks of at most 1 MiB.
        patience: Seconds that it may take, besides the time for its bytes.

    Raises:
        SupplementedError: What `read` raised, or see
            `asupplemented.cache.remote.object_requests.ask`. Then, and on cancellation, there
            is no new object, nor parts that take up room.
    """
    seconds = patience + size / _SLOWEST
    if size <= PART:
        data = b"".join([block async for block in _Blocks(size, read)])
        await ask(store.put_async(key, data, use_multipart=False), seconds)
    else:
        await ask(_put_parts(store, key, size, _Blocks(size, read)), seconds)


async def _put_parts(store: Store, key: str, size: int, blocks: _Blocks) -> None:
    part = max(PART, -(-size // _MOST_PARTS))
    upload = asyncio.ensure_future(
        store.put_async(key, blocks, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)
    )
    try:
        await asyncio.shield(upload)
    except asyncio.CancelledError:
        # Cancelled itself, it would leave its parts behind: only one that fails removes them.
        blocks.abort()
        with anyio.move_on_after(ABORT_PATIENCE, shield=True):
            await asyncio.wait((upload,))
        if not upload.cancel():
            upload.exception()  # Nobody else asks for it.
        raise


class _Blocks:
    """The bytes of an upload in order, until it is aborted."""

    __slots__ = ("_aborted", "_position", "_read", "_reader", "_size")

    def __init__(self, size: int, read: Read) -> None:
        self._size = size
        self._read = read
        self._position = 0
        self._aborted = False
        self._reader: asyncio.Task[object] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._position == self._size:
            raise StopAsyncIteration
        block = await self._next()
        if self._aborted or not block:
            message = f"the upload ended after {self._position} of {self._size} bytes"
            raise TruncatedError(message, received=self._position)
        self._position += len(block)
        return block

    async def _next(self) -> bytes:
        self._reader = asyncio.current_task()
        try:
            return await self._read(self._position, min(BLOCK, self._size - self._position))
        finally:
            self._reader = None

    def abort(self) -> None:
        """Have the next block fail, or the one that is being read."""
        self._aborted = True
        if self._reader is not None:
            self._reader.cancel()

"""A blob in object storage as a candidate, and requests to object storage.

Requests are bounded in time, and their errors are translated into those of this library. The
messages of storage may hold keys, signed URLs and whole answers, so nothing of them is repeated or
chained: an error gives the kind of failure, and the status if there was one.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, Self, TypeVar

from asupplemented.abc import BlobCandidate
from asupplemented.errors import (
    BlobNotFoundError,
    NetworkError,
    PermissionDeniedError,
    RangeError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.limits import CHUNK_MAX, KIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from types import TracebackType

    from obstore import BytesStream, GetOptions, GetResult
    from obstore.store import ObjectStore as Store

    from asupplemented.abc import RawBlob
    from asupplemented.events import CacheUse

__all__ = ("StoredBlob", "ask")

T = TypeVar("T")

_STATUS: Final = re.compile(r"\bstatus code: (\d{3})\b")
_REFUSED: Final = frozenset({"PermissionDeniedError", "UnauthenticatedError"})
_LOOKED_AT: Final = 4096
"""Characters of an error that are searched for a status."""


async def ask(request: Awaitable[T], seconds: float | None) -> T:
    """Wait for the answer to a request.

    Args:
        request: A call of obstore.
        seconds: How long to wait; None leaves that to the caller.

    Raises:
        BlobNotFoundError: There is no such object.
        PermissionDeniedError: The credentials are missing, or do not allow it.
        SourceTimeoutError: There was no answer in time.
        SourceError: Storage failed.
    """
    failure: SupplementedError
    try:
        async with asyncio.timeout(seconds):
            return await request
    except SupplementedError:
        raise
    except FileNotFoundError:
        failure = BlobNotFoundError("object storage has no such object, or no such bucket")
    except TimeoutError:
        failure = SourceTimeoutError(_timeout_message(seconds))
    except Exception as error:  # noqa: BLE001 - each store of obstore has its own errors
        failure = _map(error)
    raise failure  # Raised here, outside of the handlers, so that the original is not its context.


def _timeout_message(seconds: float | None) -> str:
    within = "in time" if seconds is None else f"within {seconds:g} s"
    return f"object storage did not answer {within}"


def _map(error: Exception) -> SourceError:
    kind = type(error).__name__
    if kind in _REFUSED or isinstance(error, PermissionError):
        return PermissionDeniedError(
            f"object storage refused access ({kind}); check its credentials"
        )
    if (found := _STATUS.search(str(error)[:_LOOKED_AT])) is not None:
        return SourceError(f"object storage answered with status {found[1]}")
    return NetworkError(f"object storage could not be asked ({kind})")


_CHUNK: Final = 256 * KIB
"""Least bytes of a chunk: what is worth the hop from the threads of obstore."""


class StoredBlob(BlobCandidate):
    """A blob in object storage, as a `BlobCandidate`. What comes is as untrusted as from any.

    Args:
        store: The store.
        key: The name of the object.
        reference: The name of the store in errors and events.
        patience: Seconds to wait until the body begins.
    """

    __slots__ = ("_key", "_patience", "_reference", "_store", "ended")

    def __init__(self, store: Store, key: str, reference: str, patience: float) -> None:
        self._store = store
        self._key = key
        self._reference = reference
        self._patience = patience
        self.ended = False
        """Whether its last byte was handed out."""

    @property
    def reference(self) -> str:
        return self._reference

    @property
    def cache_use(self) -> CacheUse:
        return "hit"

    def open(
        self,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,  # noqa: ARG002 - the name of the blob says what it is
    ) -> RawBlob:
        return _StoredBody(self, start, end)

    async def get(self, options: GetOptions) -> GetResult:
        """Ask for the object, or for a range of it.

        Raises:
            SupplementedError: See `asupplemented.cache.remote.object_blob.ask`.
        """
        return await ask(self._store.get_async(self._key, options=options), self._patience)

    async def measure(self) -> int:
        """The size of the object.

        Raises:
            SupplementedError: See `asupplemented.cache.remote.object_blob.ask`.
        """
        found = await ask(self._store.head_async(self._key), self._patience)
        return found["size"]


class _StoredBody:
    """The body of one answer. Dropping the reference closes it; obstore has no `close`."""

    __slots__ = ("_blob", "_chunk", "_chunks", "_end", "_position", "_size", "_start", "_taken")

    def __init__(self, blob: StoredBlob, start: int, end: int | None) -> None:
        self._blob = blob
        self._start = self._position = start
        self._end = end
        self._size: int | None = None
        self._chunks: BytesStream | None = None
        self._chunk = b""
        self._taken = 0

    @property
    def start(self) -> int:
        return self._start

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def etag(self) -> str | None:
        return None

    async def __aenter__(self) -> Self:
        if self._end is not None and self._end <= self._start:
            await self._measure()
            return self
        try:
            answer = await self._blob.get(self._options())
        except SourceError:
            # A range behind the last byte is an error that does not give the size.
            if not self._start or await self._measure() > self._start:
                raise
            return self
        self._size = answer.meta["size"]
        self._start = self._position = answer.range[0]
        self._chunks = answer.stream(min_chunk_size=_CHUNK)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._chunks = None
        self._chunk = b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self._taken == len(self._chunk):
            await self._fetch()
        piece = self._chunk[self._taken : self._taken + CHUNK_MAX]
        self._taken += len(piece)
        self._position += len(piece)
        if self._position == self._size:
            self._blob.ended = True
        return piece

    async def _fetch(self) -> None:
        chunk = None if self._chunks is None else await ask(anext(self._chunks, None), None)
        if chunk is None:
            raise StopAsyncIteration
        self._chunk, self._taken = chunk, 0

    def _options(self) -> GetOptions:
        if self._end is not None:
            return {"range": (self._start, self._end)}
        return {"range": {"offset": self._start}} if self._start else {}

    async def _measure(self) -> int:
        self._size = await self._blob.measure()
        if self._start > self._size:
            message = f"the range starts at {self._start}, and the object has {self._size} bytes"
            raise RangeError(message)
        return self._size

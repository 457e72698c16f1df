"""Filling a cache while several processes want the same blob.

`CachedSpool` is the spool of a blob that will be added to the cache; other processes see its file
grow. `FollowedCandidate` reads the file of another process that fetches the blob. When that process
dies, one of those that follow it takes the fetch lock and goes on at the same byte, and the others
follow that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import BlobCandidate
from asupplemented.aio.files import SharedFile
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking
from asupplemented.cache.layout.fetch_lock import FollowedFile, FollowState
from asupplemented.cache.spool import FileSpool
from asupplemented.errors import SourceError, SupplementedError, UsageError
from asupplemented.limits import MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from types import TracebackType

    from asupplemented.abc import Context
    from asupplemented.aio.atomic import StagedFile
    from asupplemented.cache.layout.fetch_lock import FetchLock
    from asupplemented.events import CacheUse

__all__ = ("CachedSpool", "FollowedBlob", "FollowedCandidate")

PATIENCE: Final = 20.0
"""Seconds for which another process may add nothing before it is given up."""

PAUSE: Final = 0.01
MAX_PAUSE: Final = 0.05
"""Seconds between two looks: short at first, longer while nothing comes."""

LEAST_RESERVED: Final = MIB
RESERVED: Final = 16 * MIB
"""Bytes that are reserved at once, at least and at most."""

DELAY: Final = 0.05
"""Seconds after which a batch is written for other processes to see, even if it is small."""


class FollowedCandidate(BlobCandidate):
    """Another process that is fetching a blob, as a candidate to read it from.

    Args:
        context: The session.
        name: Its name in errors and events.
        make_file: Makes a view of the file of the other process.
        size: Bytes of the blob, None if unknown.
    """

    __slots__ = ("_context", "_make_file", "_name", "_size")

    def __init__(
        self, context: Context, name: str, make_file: Callable[[], FollowedFile], size: int | None
    ) -> None:
        self._context = context
        self._name = name
        self._make_file = make_file
        self._size = size

    @property
    def reference(self) -> str:
        return self._name

    @property
    def local(self) -> bool:
        return True

    @property
    def cache_use(self) -> CacheUse:
        return "joined"

    def open(
        self,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,  # noqa: ARG002 - what is at an offset never changes
    ) -> FollowedBlob:
        return FollowedBlob(self._context, self._make_file(), self._size, start, end)


class FollowedBlob:
    """``[start, end)`` of a blob that another process is fetching, as a `RawBlob`.

    It fails with a `SourceError` when that process is gone, or adds nothing for `PATIENCE`
    seconds. The next candidate then goes on at the same byte.

    Args:
        context: The session.
        file: What the other process has fetched; closed with this.
        size: Bytes of the blob, None if unknown.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
    """

    __slots__ = ("_clock", "_context", "_end", "_file", "_first", "_position", "_size", "_start")

    def __init__(
        self, context: Context, file: FollowedFile, size: int | None, start: int, end: int | None
    ) -> None:
        self._context = context
        self._clock = context.resource(CLOCK, Clock)
        self._file = file
        self._size = size
        self._start = self._position = start
        self._end = size if end is None else end
        self._first: bytes | None = None

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
        try:
            found = await self._look()
        except BaseException:
            self._file.close()
            raise
        self._first = found if isinstance(found, bytes) else None
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._end is not None and self._position >= self._end:
            raise StopAsyncIteration
        block, self._first = self._first, None
        if block is None:
            block = await self._wait()
        if self._end is not None:
            block = block[: self._end - self._position]
        self._position += len(block)
        return block

    async def _wait(self) -> bytes:
        """The next bytes, as soon as there are any."""
        pause, began = PAUSE, self._clock.now()
        while True:
            found = await self._look()
            if isinstance(found, bytes):
                return found
            if found is FollowState.END:
                raise StopAsyncIteration
            if found is FollowState.CHANGED:
                pause, began = PAUSE, self._clock.now()
                continue
            if self._clock.now() - began >= PATIENCE:
                message = (
                    f"the process that is fetching the blob added nothing for {PATIENCE:g} s; "
                    "going on without it"
                )
                # Not a timeout, after which this candidate would be asked again.
                raise SourceError(message)
            await self._clock.sleep(pause)
            pause = min(MAX_PAUSE, 2 * pause)

    async def _look(self) -> bytes | FollowState:
        found = await run_blocking(self._context, self._file.look, self._position)
        if found is FollowState.GONE:
            message = "the process that was fetching the blob is gone; this one fetches the rest"
            raise SourceError(message)
        return found


class CachedSpool(FileSpool):
    """A spool in the ingest directory of a cache, added to the cache when it is committed.

    Its bytes are reserved in the limit of the cache before they are written. If the disk of the
    cache is full, or its limit, the rest goes to a temporary file elsewhere. The blob is then not
    added to the cache, but all its readers get it.

    Args:
        context: The session.
        fetch_lock: The fetch; closed with the spool.
        candidates: Another process that is fetching the same blob, if there is one.
        size: Bytes of the blob as they are announced, None if they are not.
        reserve: Reserves bytes of the cache for the file, in place of what was reserved before;
            gives whether there is room.
        release: Releases what is reserved, unless adding the file did that.
        add: Adds the whole file to the cache; raises only if it is cancelled.
        warn: Called with the reason why the blob cannot be added.
    """

    __slots__ = (
        "_add",
        "_candidates",
        "_fetch_lock",
        "_release",
        "_reserve",
        "_reserved",
        "_settled",
        "_size",
        "_warn",
    )

    def __init__(
        self,
        context: Context,
        fetch_lock: FetchLock,
        candidates: Sequence[BlobCandidate],
        *,
        size: int | None,
        reserve: Callable[[int], Awaitable[bool]],
        release: Callable[[], Awaitable[None]],
        add: Callable[[StagedFile, int], Awaitable[None]],
        warn: Callable[[SourceError], None],
    ) -> None:
        super().__init__(context, SharedFile.temporary, delay=DELAY)
        self._parts.append((0, fetch_lock.file))
        self._fetch_lock = fetch_lock
        self._candidates = tuple(candidates)
        self._size = size
        self._reserve = reserve
        self._release = release
        self._add = add
        self._warn = warn
        self._reserved = 0
        self._settled = False

    def expect(self, size: int) -> None:
        if self._size is None:
            self._size = size

    async def append(self, chunk: bytes) -> None:
        end = self._end + len(chunk)
        if not self._settled and end > self._reserved:
            await self._reserve_more(end)
        await super().append(chunk)

    async def _reserve_more(self, end: int) -> None:
        # As the bytes come, since an announced size may be a lie and evict everything. Several
        # blocks at once, because each reservation takes the lock of the cache; at most as much
        # again as has come, because what is reserved and not used evicts other blobs.
        step = self._reserved + min(max(self._reserved, LEAST_RESERVED), RESERVED)
        step = step if self._size is None else max(end, min(step, self._size))
        try:
            for size in dict.fromkeys((step, end)):
                if await self._reserve(size):
                    self._reserved = size
                    return
            message = (
                "the blob has no room in the cache, because all other blobs are pinned or being "
                "read; raise max_bytes or unpin something"
            )
            error = SourceError(message)
        except UsageError:
            raise
        except SupplementedError as raised:
            error = raised if isinstance(raised, SourceError) else SourceError(str(raised))
        await self._move_on(error)

    async def aclose(self) -> None:
        reserved, self._reserved = self._reserved, 0
        await super().aclose()
        if reserved:
            await self._release()

    @property
    def candidates(self) -> Sequence[BlobCandidate]:
        return self._candidates

    @property
    def wanted(self) -> bool:
        return not self._settled

    async def commit(self) -> None:
        self._check_open()
        if self._settled:
            return
        try:
            if self._written < self._end:
                await self._flush()
        except SourceError as error:
            self._warn(error)
        else:
            if not self._settled:
                await self._add(self._fetch_lock.file, self._end)
        await self._settle()

    async def _move_on(self, error: SourceError) -> None:
        # Before the bytes go elsewhere: other processes must not wait for more in the first file.
        if not self._settled:
            self._warn(error)
            await self._settle()
        await super()._move_on(error)

    async def _settle(self) -> None:
        """Release the lock: the blob is in the cache now, or will not be added by this fetch."""
        self._settled = True
        await run_blocking(self._context, self._fetch_lock.release)

    def _close_files(self) -> None:
        self._fetch_lock.close()
        super()._close_files()

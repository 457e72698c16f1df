"""Following: reading along while another process fetches a blob into the cache.

The spool of a blob that is to be kept in a cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import BlobCandidate
from asupplemented.aio.files import SharedFile
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking
from asupplemented.cache.layout.fetch_lock import News, Trail
from asupplemented.cache.spool import FileSpool
from asupplemented.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from types import TracebackType

    from asupplemented.abc import Context
    from asupplemented.aio.atomic import StagedFile
    from asupplemented.cache.layout.fetch_lock import Claim

__all__ = ("CachedSpool", "FollowedBlob", "FollowedCandidate")

PATIENCE: Final = 20.0
"""Seconds for which another process may add nothing before it is given up."""

PAUSE: Final = 0.01
MAX_PAUSE: Final = 0.05
"""Seconds between two looks: short at first, longer while nothing comes."""


class FollowedCandidate(BlobCandidate):
    """Another process that is fetching a blob, as a candidate to read it from.

    Args:
        context: The session.
        name: What to call it in errors and events.
        make_trail: Makes a trail of the other process.
        size: Bytes of the blob, None if unknown.
    """

    __slots__ = ("_context", "_make_trail", "_name", "_size")

    def __init__(
        self, context: Context, name: str, make_trail: Callable[[], Trail], size: int | None
    ) -> None:
        self._context = context
        self._name = name
        self._make_trail = make_trail
        self._size = size

    @property
    def reference(self) -> str:
        return self._name

    @property
    def local(self) -> bool:
        return True

    def open(
        self,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,  # noqa: ARG002 - what is at an offset never changes
    ) -> FollowedBlob:
        return FollowedBlob(self._context, self._make_trail(), self._size, start, end)


class FollowedBlob:
    """``[start, end)`` of a blob that another process is fetching, as a `RawBlob`.

    It fails with a `SourceError` when that process is gone, or adds nothing for `PATIENCE`
    seconds: then the next candidate goes on where this one stopped.

    Args:
        context: The session.
        trail: What the other process has fetched; closed with this.
        size: Bytes of the blob, None if unknown.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
    """

    __slots__ = ("_clock", "_context", "_end", "_first", "_position", "_size", "_start", "_trail")

    def __init__(
        self, context: Context, trail: Trail, size: int | None, start: int, end: int | None
    ) -> None:
        self._context = context
        self._clock = context.resource(CLOCK, Clock)
        self._trail = trail
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
            news = await self._look()
        except BaseException:
            self._trail.close()
            raise
        self._first = news if isinstance(news, bytes) else None
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._trail.close()

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
            news = await self._look()
            if isinstance(news, bytes):
                return news
            if news is News.END:
                raise StopAsyncIteration
            if news is News.CHANGED:
                pause, began = PAUSE, self._clock.now()
                continue
            if self._clock.now() - began >= PATIENCE:
                message = (
                    f"the process that is fetching the blob added nothing for {PATIENCE:g} s; "
                    "going on without it"
                )
                raise SourceError(message)  # A timeout would have the same one asked again.
            await self._clock.sleep(pause)
            pause = min(MAX_PAUSE, 2 * pause)

    async def _look(self) -> bytes | News:
        news = await run_blocking(self._context, self._trail.look, self._position)
        if news is News.GONE:
            message = "the process that was fetching the blob is gone; going on in its stead"
            raise SourceError(message)
        return news


DELAY: Final = 0.05
"""Seconds after which other processes see what has come, even if it is little."""


class CachedSpool(FileSpool):
    """A spool in the ingest directory of a cache, which keeps it when it is committed.

    When the disk of the cache is full, a temporary file elsewhere goes on: then the blob is not
    kept, but everybody gets it.

    Args:
        context: The session.
        claim: The fetch; dropped with the spool.
        candidates: Another process that is fetching the same blob, if there is one.
        keep: Puts the whole file in its place; never raises but when it is cancelled.
        warn: Told why the blob cannot be kept.
    """

    __slots__ = ("_candidates", "_claim", "_keep", "_settled", "_warn")

    def __init__(
        self,
        context: Context,
        claim: Claim,
        candidates: Sequence[BlobCandidate],
        keep: Callable[[StagedFile, int], Awaitable[None]],
        warn: Callable[[SourceError], None],
    ) -> None:
        super().__init__(context, SharedFile.temporary, delay=DELAY)
        self._parts.append((0, claim.file))
        self._claim = claim
        self._candidates = tuple(candidates)
        self._keep = keep
        self._warn = warn
        self._settled = False

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
                await self._keep(self._claim.file, self._end)
        await self._settle()

    async def _move_on(self, error: SourceError) -> None:
        if not self._settled:
            self._warn(error)
            await self._settle()
        await super()._move_on(error)

    async def _settle(self) -> None:
        """The blob is kept, or never will be: whoever follows need not wait any longer."""
        self._settled = True
        await run_blocking(self._context, self._claim.let_go)

    def _close_files(self) -> None:
        self._claim.drop()
        super()._close_files()

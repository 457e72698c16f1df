"""The spool of a blob that is to be kept in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.aio.files import run_blocking
from asupplemented.cache.spool import FileSpool
from asupplemented.cache.spool_file import SpoolFile
from asupplemented.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.cache.layout.fetch_lock import Claim
    from asupplemented.cache.spool_file import IngestFile

__all__ = ("CachedSpool",)

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
        keep: Callable[[IngestFile, int], Awaitable[None]],
        warn: Callable[[SourceError], None],
    ) -> None:
        super().__init__(context, SpoolFile.temporary, delay=DELAY)
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

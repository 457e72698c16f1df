"""Sharing: several readers of one blob follow one fetch, and what is cached is not fetched.

The fetches of a session belong to the session: an image that is closed does not end those that
others follow. They are told apart by principal, for the digest of a blob is no permission to read
it (rule SEC-13).
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import AsyncResource, BlobCandidate, ResourceKey
from asupplemented.aio.closing import close_all, closing_on_error
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.blobs.attempts import CachedAttempt
from asupplemented.blobs.hashing import HASHING, Hashing
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.cache.shared_fetch import SharedFetch
from asupplemented.cache.spool import make_spool
from asupplemented.errors import ClosedError, SupplementedError, UnsupportedOperationError
from asupplemented.events import BlobJoined
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import BlobFile, Context, RawBlob, Spool
    from asupplemented.blobs.attempts import Attempt
    from asupplemented.blobs.failover_reader import BlobReader, FirstChoice
    from asupplemented.events import CacheUse
    from asupplemented.model.descriptor import Descriptor

__all__ = ("SHARING", "Sharing", "open_stream", "settle")


def open_stream(
    descriptor: Descriptor,
    candidates: Sequence[BlobCandidate],
    context: Context,
    *,
    start: int = 0,
    end: int | None = None,
    shared: bool = True,
    strangers: bool = True,
    quiet: bool = False,
) -> VerifiedStream:
    """A stream over ``[start, end)`` of a blob, not yet opened.

    Files of this machine are read as they are, as long as they serve the blob. If another candidate
    has to serve it, and all of it is asked for, its fetch is shared with all others that read it
    in this session, and kept by the cache. A part of a blob comes from the cache, from such a fetch
    if that is there soon, or from the candidates.

    Args:
        descriptor: The blob.
        candidates: Its candidates, best first.
        context: The session.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
        shared: False asks the candidates only.
        strangers: Whether to join a fetch that does not ask all of these candidates.
        quiet: Whether another stream reads it, and tells of the end.

    Raises:
        InvalidDigestError: The descriptor has no valid digest.
        RangeError: The range ends before it starts, or starts before the blob.
    """
    first_choice: FirstChoice | None = None
    if shared:
        size = descriptor.size
        whole = start == 0 and (end is None or (size is not None and end >= size))
        if whole:
            first_choice = partial(_join, descriptor, context, strangers)
        else:
            until = None if size is not None and end is not None and end >= size else end
            first_choice = partial(_find_part, descriptor, context, start, until)
    return VerifiedStream(
        descriptor,
        candidates,
        context,
        start=start,
        end=end,
        first_choice=first_choice,
        quiet=quiet,
    )


async def settle(context: Context) -> None:
    """Wait until all blobs of a session that are whole by now are in its cache."""
    await _sharing_of(context).settle()


async def _join(
    descriptor: Descriptor,
    context: Context,
    strangers: bool,  # noqa: FBT001 - of a partial
    candidates: Sequence[BlobCandidate],
    start: int,
) -> Attempt | BlobReader | None:
    sharing = _sharing_of(context)
    return await sharing.join(descriptor, candidates, context, start=start, strangers=strangers)


async def _find_part(
    descriptor: Descriptor,
    context: Context,
    start: int,
    end: int | None,
    candidates: Sequence[BlobCandidate],
    _: int,
) -> Attempt | BlobReader | None:
    sharing = _sharing_of(context)
    return await sharing.find_part(descriptor, candidates, context, start=start, end=end)


class _Key(NamedTuple):
    principal: str | None
    digest: Digest


class Sharing(AsyncResource):
    """The fetches of a session that several may follow."""

    def __init__(self) -> None:
        self._fetches: dict[_Key, SharedFetch] = {}
        self._running: set[SharedFetch] = set()
        """Fetches, also those that cannot be joined any more."""
        self._closed = False

    def __repr__(self) -> str:
        return f"<Sharing: {len(self._running)} fetches, {len(self._fetches)} can be joined>"

    async def join(
        self,
        descriptor: Descriptor,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int = 0,
        strangers: bool = True,
    ) -> Attempt | BlobReader | None:
        """All of a blob: from the cache, or from a fetch, which begins unless there is one.

        If another image or principal began the fetch and it fails before there was a byte of it to
        read, the reader's own candidates are fetched from.

        Args:
            descriptor: The blob.
            candidates: Its candidates, best first.
            context: The session.
            start: Offset of the first byte that the reader lacks.
            strangers: Whether to join a fetch that does not ask all of these candidates.

        Returns:
            None if the candidates should be asked for this reader alone.

        Raises:
            SupplementedError: No source serves the blob: the same for all readers.
        """
        fetch = self._find(descriptor, context)
        if fetch is None or fetch.whole:
            shared = await self._may_share(descriptor, candidates, context)
            kept = await _find_kept(descriptor, context, 0, shared=shared)
            if kept is not None:
                return kept
            # Meanwhile another reader may have begun a fetch.
            fetch = self._find(descriptor, context)
            if fetch is None and shared:
                fetch = self._find_any(descriptor)
        if fetch is not None and not strangers and not fetch.covers(candidates, context):
            fetch = None
        began = fetch is None
        if fetch is None:
            if self._is_taken(descriptor, context):
                return None
            fetch = self._begin(descriptor, candidates, context)
        elif context.observed:
            context.emit(BlobJoined(fetch.reference, descriptor.digest, fetch.stored))
        try:
            return await fetch.join(
                candidates,
                context,
                start=start,
                reopen=partial(_reopen, descriptor, candidates, context),
                began=began,
            )
        except SupplementedError:
            if began or fetch.covers(candidates, context):
                raise
        return await self.join(descriptor, candidates, context, start=start, strangers=False)

    async def find_part(
        self,
        descriptor: Descriptor,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int,
        end: int | None,
    ) -> Attempt | BlobReader | None:
        """A part of a blob: from the cache, or from a fetch that is running.

        If the cache wants all of what parts are read of, such a fetch begins.

        Args:
            descriptor: The blob.
            candidates: Its candidates, best first.
            context: The session.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.

        Returns:
            None if the candidates should be asked for the part.

        Raises:
            SupplementedError: No source serves the blob: the same for all readers.
        """
        if context.cache is not None:
            shared = await self._may_share(descriptor, candidates, context)
            kept = await _find_kept(descriptor, context, start, shared=shared)
            if kept is not None:
                return kept
        fetch, began = self._find(descriptor, context), False
        if fetch is None:
            fills = context.cache is not None and context.cache.fills
            if not fills or self._is_taken(descriptor, context):
                return None
            fetch, began = self._begin(descriptor, candidates, context), True
        reopen = partial(_reopen_part, descriptor, candidates, context, end)
        reader = await fetch.join_part(
            candidates, context, start=start, end=end, reopen=reopen, began=began
        )
        if reader is not None and not began and context.observed:
            context.emit(BlobJoined(fetch.reference, descriptor.digest, fetch.stored))
        return reader

    # Joining

    def _find(self, descriptor: Descriptor, context: Context) -> SharedFetch | None:
        key = _Key(context.principal, Digest(descriptor.digest))
        return _fitting(self._fetches.get(key), descriptor)

    def _find_any(self, descriptor: Descriptor) -> SharedFetch | None:
        others = (f for key, f in self._fetches.items() if key.digest == descriptor.digest)
        return next((fetch for fetch in others if _fitting(fetch, descriptor)), None)

    def _is_taken(self, descriptor: Descriptor, context: Context) -> bool:
        """Whether there is a fetch that cannot be joined, and is not over either."""
        return _Key(context.principal, Digest(descriptor.digest)) in self._fetches

    async def _may_share(
        self, descriptor: Descriptor, candidates: Sequence[BlobCandidate], context: Context
    ) -> bool:
        """Whether what other principals have brought in is there for this one, too.

        The same is asked whether there is something or not, so that nothing can be told from it.
        """
        if context.share is None:
            return False
        members = tuple(dict.fromkeys(candidate.reference for candidate in candidates))
        answer = context.share(context.principal, descriptor, members)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    # Fetches

    def _begin(
        self, descriptor: Descriptor, candidates: Sequence[BlobCandidate], context: Context
    ) -> SharedFetch:
        if self._closed:
            raise ClosedError("the session is closed; make a new one")
        key = _Key(context.principal, Digest(descriptor.digest))

        def end() -> None:
            if self._fetches.get(key) is fetch:
                del self._fetches[key]

        fetch = SharedFetch(
            descriptor,
            candidates,
            context,
            claim=partial(_claim, descriptor, context),
            ended=end,
            gone=lambda: self._running.discard(fetch),
        )
        fetch.start()
        self._fetches[key] = fetch
        self._running.add(fetch)
        return fetch

    async def settle(self) -> None:
        """Wait, but not for long, until what is whole by now is kept."""
        for fetch in list(self._running):
            await fetch.settle()

    async def aclose(self) -> None:
        """End all fetches, and drop their bytes."""
        self._closed = True
        await close_all(list(self._running), "the fetches of a session")


SHARING: Final = ResourceKey["Sharing"]("shared fetches")


def _sharing_of(context: Context) -> Sharing:
    def make() -> Sharing:
        # Made before it, and so closed after it, is what a fetch needs to end.
        context.resource(WORKERS, Workers)
        context.resource(HASHING, Hashing)
        return Sharing()

    return context.resource(SHARING, make)


def _fitting(fetch: SharedFetch | None, descriptor: Descriptor) -> SharedFetch | None:
    """The fetch, if it can be joined and has the size of the descriptor."""
    if fetch is None or not fetch.open:
        return None
    return fetch if descriptor.size is None or fetch.size in {None, descriptor.size} else None


def _reopen(
    descriptor: Descriptor,
    candidates: Sequence[BlobCandidate],
    context: Context,
    alone: bool,  # noqa: FBT001 - of a partial
    _: int,
) -> VerifiedStream:
    """All of the blob once more, for a reader that cannot follow the fetch that it joined."""
    return open_stream(
        descriptor, candidates, context, shared=not alone, strangers=False, quiet=True
    )


def _reopen_part(
    descriptor: Descriptor,
    candidates: Sequence[BlobCandidate],
    context: Context,
    end: int | None,
    _: bool,  # noqa: FBT001 - of a partial
    position: int,
) -> VerifiedStream:
    """The rest of a part, for a reader that cannot follow the fetch that it joined."""
    return open_stream(
        descriptor, candidates, context, start=position, end=end, shared=False, quiet=True
    )


async def _claim(descriptor: Descriptor, context: Context) -> Spool:
    if context.cache is not None:
        spool = await context.cache.claim(context, descriptor)
        if spool is not None:
            return spool
    return make_spool(context, descriptor.size)


async def _find_kept(
    descriptor: Descriptor, context: Context, start: int, *, shared: bool
) -> Attempt | None:
    """The file of a blob that the cache keeps, None if it does not."""
    cache = context.cache
    if cache is None:
        return None
    file = await cache.find(context, descriptor, shared=shared)
    if file is None:
        return None
    if descriptor.size not in {None, file.size} or start > file.size:
        file.close()
        return None
    digest = Digest(descriptor.digest)
    attempt = CachedAttempt(_Kept(str(cache), file), context, digest, file, start)
    async with closing_on_error(lambda: (attempt,), "the file in the cache"):
        await attempt.look()
    return attempt


class _Kept(BlobCandidate):
    """The cache as a candidate, of which only the file is read."""

    __slots__ = ("_file", "_reference")

    def __init__(self, reference: str, file: BlobFile) -> None:
        self._reference = reference
        self._file = file

    @property
    def reference(self) -> str:
        return self._reference

    @property
    def local(self) -> bool:
        return True

    @property
    def cache_use(self) -> CacheUse:
        return "hit"

    def open(self, *_: object) -> RawBlob:
        message = f"{self._reference} keeps blobs in files; read the file"
        raise UnsupportedOperationError(message)

    async def open_file(self) -> BlobFile:
        return self._file

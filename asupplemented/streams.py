"""Blob streams: the only place where blobs are hashed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from asupplemented.abc import BlobStream
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    DigestMismatchError,
    LimitExceededError,
    NotFoundError,
    RangeError,
    SizeMismatchError,
    SupplementedError,
    TruncatedError,
    UsageError,
)
from asupplemented.limits import CHUNK_MAX, MAX_BLOB
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from asupplemented.abc import BlobCandidate, Context, RawBlob
    from asupplemented.model.descriptor import Descriptor

__all__ = ("VerifiedStream",)


class VerifiedStream(BlobStream):
    """The verified bytes of a blob, from the first candidate that answers."""

    def __init__(
        self,
        descriptor: Descriptor,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        self._digest = Digest(descriptor.digest)
        if start < 0 or (end is not None and end < start):
            message = f"no range goes from {start} to {end}"
            raise RangeError(message, digest=self._digest)
        self._descriptor = descriptor
        self._candidates = tuple(candidates)
        self._context = context
        self._start, self._end = start, end
        self._size = descriptor.size
        self._received = 0
        self._verified: bool | None = None
        self._member: int | None = None
        self._raw: RawBlob | None = None
        self._state = "new"
        self._chunks: list[bytes] | None = None

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def received(self) -> int:
        return self._received

    @property
    def member(self) -> int | None:
        return self._member

    @property
    def verified(self) -> bool | None:
        return self._verified

    @property
    def path(self) -> Path | None:
        return None

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise UsageError("a blob stream is entered once; open the blob again")
        self._state = "open"
        failures: list[SupplementedError] = []
        for candidate in self._candidates:
            raw = candidate.open(self._start, self._end)
            try:
                await raw.__aenter__()
            except SupplementedError as error:
                failures.append(
                    error.locate(
                        reference=candidate.reference, digest=self._digest, member=candidate.member
                    )
                )
                continue
            self._raw, self._member = raw, candidate.member
            if self._descriptor.size is not None and raw.size not in {None, self._size}:
                await self.aclose()
                raise SizeMismatchError(
                    f"announced {raw.size} bytes", expected=self._size, actual=raw.size
                )
            self._size = self._size if raw.size is None else raw.size
            return self
        for failure in failures:
            if not isinstance(failure, NotFoundError):
                raise failure
        raise failures[0] if failures else BlobNotFoundError("nobody", digest=self._digest)

    async def __anext__(self) -> bytes:
        if self._state == "new":
            raise UsageError("enter the stream first: async with ... as blob")
        if self._state == "closed":
            raise ClosedError("the stream is closed")
        if self._chunks is None:
            self._chunks = await self._fetch()
            self._chunks.reverse()
        if not self._chunks:
            raise StopAsyncIteration
        chunk = self._chunks.pop()
        self._received += len(chunk)
        return chunk

    async def _fetch(self) -> list[bytes]:
        if self._raw is None:
            return []
        hasher = self._digest.hasher()
        chunks: list[bytes] = []
        total = 0
        async for data in self._raw:
            hasher.update(data)
            total += len(data)
            if total > (MAX_BLOB if self._size is None else self._size):
                raise SizeMismatchError("too long", expected=self._size, actual=total)
            chunks.extend(data[i : i + CHUNK_MAX] for i in range(0, len(data), CHUNK_MAX))
        whole = self._start == 0 and self._end is None
        if whole and self._size is not None and total != self._size:
            raise TruncatedError("ended early", received=total, digest=self._digest)
        if whole and hasher.hexdigest() != self._digest.encoded:
            raise DigestMismatchError("wrong content", digest=self._digest)
        self._verified = whole
        return chunks

    async def read_all(self, limit: int) -> bytes:
        if self._size is not None and self._size > limit:
            raise LimitExceededError(f"more than {limit} bytes", limit=limit)
        data = b"".join([chunk async for chunk in self])
        if len(data) > limit:
            raise LimitExceededError(f"more than {limit} bytes", limit=limit)
        return data

    async def aclose(self) -> None:
        self._state = "closed"
        raw, self._raw = self._raw, None
        if self._verified is None:
            self._verified = False
        if raw is not None:
            await raw.__aexit__(None, None, None)

    def __del__(self) -> None:
        if getattr(self, "_raw", None) is not None:
            warnings.warn("unclosed blob stream", ResourceWarning, stacklevel=1, source=self)

"""Stores of obstore for tests: in memory, with faults."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from obstore.exceptions import GenericError
from obstore.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HIDDEN = "AKIAHUNTER2"
"""What no error may repeat."""


def failure(status: int = 503) -> GenericError:
    """What obstore raises when a server answers so."""
    return GenericError(
        f"Generic S3 error: Error performing GET https://bucket/key?X-Amz-Signature={HIDDEN} in "
        f"2.6ms - Server returned non-2xx status code: {status} Whatever: <Error>{HIDDEN}</Error>"
    )


@dataclass
class FlakyStore:
    """A store in memory that does as it is told.

    Attributes:
        inner: Where the objects are.
        asked: Method and key of each request, in order.
        faults: Raised by a method, whenever it is called.
        hanging: Methods that never answer.
        cut: Bytes after which every body breaks, None for none.
        gate: Uploads wait for it after their first block, None for no gate.
        parts: Blocks that came in parts, by key; kept until the object is whole.
    """

    inner: MemoryStore = field(default_factory=MemoryStore)
    asked: list[tuple[str, str]] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    cut: int | None = None
    gate: asyncio.Event | None = None
    parts: dict[str, list[bytes]] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)

    async def head_async(self, key: str) -> Any:
        await self.note("head", key)
        return await self.inner.head_async(key)

    async def get_async(self, key: str, *, options: Any = None) -> Any:
        await self.note("get", key)
        answer = await self.inner.get_async(key, options=options)
        return answer if self.cut is None else CutAnswer(answer, self.cut)

    async def put_async(self, key: str, data: Any, **_: Any) -> Any:
        await self.note("put", key)
        if isinstance(data, bytes):
            return await self.inner.put_async(key, data)
        try:
            self.parts[key] = []
            async for block in data:
                self.parts[key].append(block)
                if self.gate is not None:
                    await self.gate.wait()
        except BaseException:
            self.aborted.append(key)
            del self.parts[key]
            raise
        return await self.inner.put_async(key, b"".join(self.parts.pop(key)))

    async def note(self, method: str, key: str) -> None:
        self.asked.append((method, key))
        await asyncio.sleep(0)
        if method in self.hanging:
            await asyncio.Event().wait()
        if method in self.faults:
            raise self.faults[method]

    def count(self, method: str) -> int:
        return sum(asked == method for asked, _ in self.asked)

    def names(self) -> list[str]:
        return sorted(meta["path"] for batch in self.inner.list() for meta in batch)

    def read(self, key: str) -> bytes:
        return bytes(self.inner.get(key).bytes())


class CutAnswer:
    """An answer whose body breaks."""

    def __init__(self, answer: Any, cut: int) -> None:
        self.meta = answer.meta
        self.range = answer.range
        self._answer = answer
        self._cut = cut

    def stream(self, min_chunk_size: int) -> CutBody:
        return CutBody(self._answer.stream(min_chunk_size), self._cut)


class CutBody:
    def __init__(self, chunks: AsyncIterator[bytes], cut: int) -> None:
        self._chunks = chunks
        self._left = cut

    def __aiter__(self) -> CutBody:
        return self

    async def __anext__(self) -> bytes:
        if self._left == 0:
            raise failure()
        chunk = (await anext(self._chunks))[: self._left]
        self._left -= len(chunk)
        return chunk

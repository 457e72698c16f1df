"""Sources without a network: images in memory, with the same scripts of faults.

What a `FakeRegistry` does over HTTP, a `FaultyReference` does in the process, below the
verification of every source. It serves tests of code that uses sources.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from asupplemented.abc import BlobConcurrency, RawManifest, Signed, SourceAdapter, StreamsBlobs
from asupplemented.errors import NotFoundError, RangeError
from asupplemented.source import open_verified
from asupplemented.testing.control import SourceControl, check_status, take_content
from asupplemented.testing.disk import select
from asupplemented.testing.exchange import Answer, Pause, Request
from asupplemented.transports.memory import MemoryReference, MemorySource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from asupplemented.abc import Context, Opening, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.signature import Signature
    from asupplemented.testing.exchange import Headers
    from asupplemented.testing.images import Built
    from asupplemented.testing.steps import Step

__all__ = ("FaultyBlob", "FaultyReference", "FaultySource", "StreamingAdapter", "hold_in_memory")


def hold_in_memory(
    name: str,
    top: Built,
    *,
    include: Container[str] | None = None,
    omit: Container[str] = (),
) -> MemoryReference:
    """Make a reference to a built image in memory, complete or with parts missing.

    Args:
        name: The name for messages.
        top: The default manifest, which is held even if its digest is omitted.
        include: Digests of the instances to hold; None for all; see `select`.
        omit: Digests of manifests and blobs to leave out.
    """
    manifests, blobs = select(top, include, omit)
    return MemoryReference(
        name,
        RawManifest(top.raw, top.media_type),
        MappingProxyType({d: RawManifest(b.raw, b.media_type) for d, b in manifests.items()}),
        MappingProxyType(blobs),
    )


@dataclass(frozen=True, eq=False)
class FaultyReference:
    """A reference to an image in memory, whose sources fail by script.

    Two of them are never equal.

    Attributes:
        image: The content of the sources.
        control: Scripts and log; several references may share one.
    """

    image: MemoryReference
    control: SourceControl = field(default_factory=SourceControl)

    @property
    def transport(self) -> str:
        """Always "memory"."""
        return self.image.transport

    def open(self, session: Context) -> Opening[Source]:
        """Open the image and read its default manifest, as the transports with a network do."""

        async def opener() -> SourceAdapter:
            await self.control.ask("/open", _answer_nothing)
            return FaultySource(MemorySource(self.image), self.control)

        return open_verified(opener, self, session)

    def __str__(self) -> str:
        return str(self.image)


class StreamingAdapter(SourceAdapter, StreamsBlobs, Protocol):
    """An adapter that streams blobs."""


class FaultySource:
    """An adapter around another one, which fails, waits and lies by script.

    Of the abilities that adapters may have it passes on streamed blobs and signatures.

    Args:
        adapter: Gives the right answers, and streams blobs; closed with this one.
        control: What happens, and what was asked.
    """

    def __init__(self, adapter: StreamingAdapter, control: SourceControl) -> None:
        self._adapter = adapter
        self._control = control
        self._closed = False
        control.note_source(opened=True)

    @property
    def concurrent_blobs(self) -> bool:
        adapter = self._adapter
        return adapter.concurrent_blobs if isinstance(adapter, BlobConcurrency) else True

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        path = f"/manifests/{instance or 'default'}"
        answer = await self._control.ask(path, partial(self._answer, instance))
        return RawManifest(answer.body, answer.header("Content-Type"))

    async def _answer(self, instance: Digest | None) -> Answer:
        try:
            raw, media_type = await self._adapter.fetch_manifest(instance)
        except NotFoundError:
            return Answer(status=404)
        return Answer(body=raw).with_headers({"Content-Type": media_type})

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> FaultyBlob:
        return FaultyBlob(self._adapter, self._control, blob, start, end, etag)

    async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]:
        await self._control.ask(f"/signatures/{instance or 'default'}", _answer_nothing)
        if not isinstance(self._adapter, Signed):
            return ()
        return await self._adapter.fetch_signatures(instance)

    async def aclose(self) -> None:
        """Close the wrapped adapter, even if the script makes closing fail."""
        if self._closed:
            return
        self._closed = True
        self._control.note_source(opened=False)
        try:
            await self._control.ask("/close", _answer_nothing)
        finally:
            await self._adapter.aclose()


class FaultyBlob:
    """One attempt to read a blob, by script. It reads the wrapped blob into memory first."""

    def __init__(
        self,
        adapter: StreamsBlobs,
        control: SourceControl,
        blob: Descriptor,
        start: int,
        end: int | None,
        etag: str | None,
    ) -> None:
        self._adapter = adapter
        self._control = control
        self._blob = blob
        self._end = end
        self._condition = etag
        self._stack = ExitStack()
        self._steps: Iterator[Step] = iter(())
        self._received = 0
        self.start = start
        self.size: int | None = None
        self.etag: str | None = None

    async def __aenter__(self) -> Self:
        path = f"/blobs/{self._blob.digest}"
        request = Request("GET", path, _range_headers(self.start, self._end, self._condition))
        with ExitStack() as stack:
            answer = await self._control.begin(request, self._answer, stack)
            self._steps = take_content(answer)
            while isinstance(step := next(self._steps), Pause):
                await self._control.pause(step, 0)
            check_status(answer, path)
            self._describe(answer)
            self._stack = stack.pop_all()
        self._control.note_body(opened=True)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)
        self._control.note_body(opened=False)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        for step in self._steps:
            if isinstance(step, Pause):
                await self._control.pause(step, self._received)
            elif step:
                self._received += len(step)
                return bytes(step)
        raise StopAsyncIteration

    async def _answer(self) -> Answer:
        try:
            async with self._adapter.open_blob(self._blob) as raw:
                whole = b"".join([chunk async for chunk in raw])
                etag = raw.etag
        except NotFoundError:
            return Answer(status=404)
        if self.start > len(whole):
            message = f"the range starts at {self.start}, the blob has {len(whole)} bytes"
            raise RangeError(message, digest=self._blob.digest)
        body = whole[self.start : self._end]
        headers = () if etag is None else (("ETag", etag),)
        changed = None not in {etag, self._condition} and etag != self._condition
        if changed or len(body) == len(whole):
            return Answer(headers=headers, body=whole)
        span = f"bytes {self.start}-{self.start + len(body) - 1}/{len(whole)}"
        headers = (*headers, ("Content-Range", span))
        return Answer(206, headers, body, whole=whole, offset=self.start)

    def _describe(self, answer: Answer) -> None:
        """Set start, size and ETag as the answer claims them."""
        self.etag = answer.header("ETag")
        span = answer.header("Content-Range")
        self.start = answer.offset if span is None else int(span[6:].partition("-")[0])
        if answer.claim is not None:
            self.size = answer.claim
        elif answer.framing == "length":
            self.size = len(answer.body if answer.whole is None else answer.whole)


async def _answer_nothing() -> Answer:
    return Answer()


def _range_headers(start: int, end: int | None, condition: str | None) -> Headers:
    if start == 0 and end is None:
        return ()
    span = ("Range", f"bytes={start}-{'' if end is None else end - 1}")
    return (span,) if condition is None else (span, ("If-Range", condition))

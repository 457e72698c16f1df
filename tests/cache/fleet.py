"""Hosts for tests: each has a session and a cache of its own, and they share what lies behind."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asupplemented.abc import BlobCache, BlobFile, Spool
from asupplemented.aio.retry import CLOCK
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.cache.remote.object_store import ObjectStore
from asupplemented.cache.remote.tiered import TieredCache
from asupplemented.events import Warned
from asupplemented.session import Session
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.events import Event
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest


class Buffer(Spool):
    """A spool in memory, which may be part of a `Shelf`."""

    def __init__(
        self, shelf: Shelf | None = None, key: tuple[str | None, str] | None = None
    ) -> None:
        self.data = bytearray()
        self.shelf = shelf
        self.key = key
        self.closed = False
        self.nearer: Sequence[BlobCandidate] = ()
        if shelf is not None:
            shelf.spools.append(self)

    @property
    def candidates(self) -> Sequence[BlobCandidate]:
        return self.nearer

    @property
    def length(self) -> int:
        return len(self.data)

    async def append(self, chunk: bytes) -> None:
        self.data += chunk

    async def read(self, start: int, size: int) -> bytes:
        assert not self.closed, "read after it was closed"
        return bytes(self.data[start : start + size])

    async def commit(self) -> None:
        if self.shelf is not None and self.key is not None:
            self.shelf.blobs[self.key] = bytes(self.data)

    async def aclose(self) -> None:
        self.closed = True


@dataclass(eq=False)
class Shelf(BlobCache):
    """A cache of one host in memory.

    Attributes:
        refuses: Whether it claims nothing.
        forgets: Whether nothing that was committed is found.
        blobs: What was committed, by principal and digest.
        spools: All that it gave.
        files: Files that are open.
    """

    refuses: bool = False
    forgets: bool = False
    nearer: Sequence[BlobCandidate] = ()
    blobs: dict[tuple[str | None, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str | None, str | None, str], Manifest] = field(default_factory=dict)
    spools: list[Buffer] = field(default_factory=list)
    files: int = 0

    async def find(
        self, context: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        data = self.blobs.get((context.principal, blob.digest))
        if data is None or self.forgets:
            return None
        fd = os.memfd_create("blob")
        os.write(fd, data)
        self.files += 1
        return BlobFile(fd, Path("/memory"), 0, len(data), partial(self.close_file, fd))

    def close_file(self, fd: int) -> None:
        os.close(fd)
        self.files -= 1

    async def claim(self, context: Context, blob: Descriptor) -> Spool | None:
        if self.refuses:
            return None
        spool = Buffer(self, (context.principal, blob.digest))
        spool.nearer = self.nearer
        return spool

    async def find_manifest(
        self, context: Context, digest: Digest, *, source: str | None = None
    ) -> Manifest | None:
        return self.manifests.get((context.principal, source, digest))

    async def keep_manifest(
        self, context: Context, manifest: Manifest, *, top: bool, source: str | None = None
    ) -> None:
        self.manifests[context.principal, source, manifest.digest] = manifest

    async def aclose(self) -> None:
        """Hold nothing open."""


@dataclass(eq=False)
class Host:
    """One host.

    Attributes:
        session: Its session.
        clock: The time of the session.
        events: What its hook was told.
        local: Its own cache.
        cache: The same with what lies behind.
    """

    session: Session
    clock: FakeClock
    events: list[Event]
    local: Shelf
    cache: TieredCache

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]

    async def pull(
        self, blob: Descriptor, *upstream: BlobCandidate, principal: str | None = None
    ) -> bytes:
        """Fetch a blob as a shared fetch does: what was kept, else through a spool."""
        return await pull(self.scoped(principal), self.cache, blob, *upstream)

    def scoped(self, principal: str | None) -> Context:
        """The session in the name of a principal."""
        return self.session if principal is None else self.session.scoped(principal)


async def pull(
    context: Context, cache: BlobCache, blob: Descriptor, *upstream: BlobCandidate
) -> bytes:
    file = await cache.find(context, blob)
    if file is not None:
        try:
            return os.pread(file.fd, file.size, file.offset)
        finally:
            file.close()
    spool = await cache.claim(context, blob)
    assert spool is not None
    async with spool:
        stream = VerifiedStream(blob, (*spool.candidates, *upstream), context)
        async with stream:
            async for chunk in stream:
                await spool.append(chunk)
        await spool.commit()
        received = bytearray()
        while len(received) < spool.length:
            received += await spool.read(len(received), spool.length)
        return bytes(received)


@asynccontextmanager
async def open_host(
    store: Any, *, clock: FakeClock | None = None, local: Shelf | None = None, **options: Any
) -> AsyncGenerator[Host]:
    """A host over a store of obstore; closing it waits for what it uploads."""
    clock = clock or FakeClock()
    events: list[Event] = []
    local = local or Shelf()
    async with Session(hooks=[events.append]) as session:
        session.resource(CLOCK, lambda: clock.clock)
        async with TieredCache(local, ObjectStore(store), **options) as cache:
            yield Host(session, clock, events, local, cache)
    assert local.files == 0, "files were left open"
    assert all(spool.closed for spool in local.spools), "spools were left open"

"""Members of groups for tests: they count what is open, and take as long as they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from asupplemented.abc import Opening, RawManifest
from asupplemented.source import VerifiedSource
from asupplemented.transports.memory import MemoryReference, MemorySource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asupplemented.abc import Context, Source
    from asupplemented.errors import SupplementedError
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.signature import Signature
    from asupplemented.testing.images import Built
    from asupplemented.transports.memory import MemoryBlob


@dataclass
class MemberLog:
    """What the members of a test did."""

    opened: int = 0
    closed: int = 0
    flying: int = 0
    peak: int = 0
    reads: list[tuple[str, str | None]] = field(default_factory=list[tuple[str, str | None]])
    """Name of the member and digest of the manifest, None for a default, as asked for."""

    @property
    def left_open(self) -> int:
        return self.opened - self.closed


def no_delay(_name: str, _digest: str | None) -> int:
    return 0


def no_entries() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Member:
    """A reference to an image in memory, with scripted faults and delays.

    Attributes:
        name: What ``str()`` says.
        log: Shared by all members of a test.
        content: What it holds.
        faults: Raised instead of an answer; the key None is the default manifest.
        turns: How many turns of the event loop a fetch takes.
        close_error: Raised by closing, after everything was released.
    """

    name: str
    log: MemberLog
    content: MemoryReference
    faults: Mapping[str | None, SupplementedError] = field(default_factory=no_entries)
    turns: Callable[[str, str | None], int] = no_delay
    close_error: Exception | None = None
    layers: Mapping[str | None, Sequence[Descriptor]] = field(default_factory=no_entries)

    @property
    def transport(self) -> str:
        return "member"

    def open(self, context: Context) -> Opening[Source]:
        async def opener() -> Source:
            adapter = MemberAdapter(self)
            source = VerifiedSource(adapter, self, context)
            try:
                await adapter.pause(None)
                await source.get_manifest()
            except BaseException:
                await source.aclose()
                raise
            return source

        return Opening(opener, self)

    def __str__(self) -> str:
        return self.name


class MemberAdapter:
    """The adapter behind a `Member`."""

    concurrent_blobs = True

    def __init__(self, member: Member) -> None:
        self.member = member
        self.inner = MemorySource(member.content)
        self.closed = False
        member.log.opened += 1

    async def pause(self, digest: str | None) -> None:
        log = self.member.log
        log.flying += 1
        log.peak = max(log.peak, log.flying)
        try:
            for _ in range(self.member.turns(self.member.name, digest)):
                await asyncio.sleep(0)
        finally:
            log.flying -= 1

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        self.member.log.reads.append((self.member.name, instance))
        if instance is not None:
            await self.pause(instance)
        fault = self.member.faults.get(instance)
        if fault is not None:
            raise fault
        return await self.inner.fetch_manifest(instance)

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> MemoryBlob:
        return self.inner.open_blob(blob, start, end, etag)

    async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]:
        return await self.inner.fetch_signatures(instance)

    async def layers_for_copy(self, instance: Digest | None) -> Sequence[Descriptor] | None:
        return self.member.layers.get(instance)

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self.member.log.closed += 1
            if self.member.close_error is not None:
                raise self.member.close_error


def hold(
    name: str,
    top: Built,
    *others: Built,
    without: Sequence[Built] = (),
    blobs: bool = True,
) -> MemoryReference:
    """What a member holds: `top`, `others`, and everything built within them."""
    missing = {built.digest for built in without}
    held = [built for whole in (top, *others) for built in whole.walk()]
    return MemoryReference(
        name,
        RawManifest(top.raw, top.media_type),
        {b.digest: RawManifest(b.raw, b.media_type) for b in held if b.digest not in missing},
        {digest: data for b in held for digest, data in b.blobs.items()} if blobs else {},
    )

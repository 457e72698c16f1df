"""Driving a cache by its contract, as a shared fetch does; and looking at what it left on disk."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.oci_layout import REF_NAME
from tests.candidates import describe
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asupplemented.abc import BlobCache, BlobFile, Spool
    from asupplemented.events import Event
    from asupplemented.session import Session
    from asupplemented.testing.images import Built

CHUNK = 64 * 1024


class Scoped:
    """A session as one principal uses it."""

    def __init__(self, session: Session, principal: str | None) -> None:
        self.session = session
        self.principal = principal

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


class Events:
    """A hook that writes everything down."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.seen.append(event)

    @property
    def messages(self) -> list[str]:
        return [event.message for event in self.seen if hasattr(event, "message")]


def chunks_of(data: bytes, size: int = CHUNK) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


async def fill(spool: Spool, data: bytes) -> None:
    for chunk in chunks_of(data):
        await spool.append(chunk)


async def read_all(spool: Spool, step: int = 1 << 20, start: int = 0) -> bytes:
    data = bytearray()
    while start < spool.length:
        block = await spool.read(start, step)
        assert 0 < len(block) <= step
        data += block
        start += len(block)
    return bytes(data)


async def put(cache: BlobCache, context: Any, data: bytes, size: int | None = -1) -> bool:
    """Fetch a blob into a cache; gives whether the cache wanted it."""
    blob = describe(data)
    if size != -1:
        blob = Descriptor(digest=blob.digest, size=size)
    spool = await cache.claim(context, blob)
    if spool is None:
        return False
    async with spool:
        await fill(spool, data)
        await spool.commit()
    return True


async def put_image(cache: BlobCache, context: Any, built: Built, *, top: bool = True) -> None:
    """Fetch an image as a client does: the top, what it lists, and then their blobs."""
    for one in built.walk():
        await cache.keep_manifest(context, manifest_of(one), top=top and one is built)
    for data in built.blobs.values():
        await put(cache, context, data)


def read(file: BlobFile) -> bytes:
    return os.pread(file.fd, file.size + 1, file.offset)


async def get(cache: BlobCache, context: Any, digest: Digest, **how: bool) -> bytes | None:
    """What a cache has for a digest."""
    file = await cache.find(context, Descriptor(digest=digest), **how)
    if file is None:
        return None
    try:
        return read(file)
    finally:
        file.close()


def held(path: Path) -> set[Digest]:
    """The digests of all files of blobs and manifests."""
    return {Digest(f"{file.parent.name}:{file.name}") for file in (path / "blobs").glob("*/*")}


def weigh(path: Path) -> int:
    """Bytes of all files of blobs and manifests."""
    return weigh_files((path / "blobs").glob("*/*"))


def weigh_files(files: Iterable[Path]) -> int:
    """Bytes of files, of which some may be removed or renamed meanwhile."""
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def in_the_making(path: Path) -> list[str]:
    return sorted(file.name for file in (path / ".asupplemented" / "ingest").iterdir())


def listed(path: Path) -> list[str]:
    """What ``index.json`` lists, by digest; the name of each is its digest."""
    entries = json.loads((path / "index.json").read_bytes())["manifests"]
    for entry in entries:
        assert entry["annotations"] == {REF_NAME: entry["digest"]}
    return [entry["digest"] for entry in entries]


def names_of(builts: Iterable[Built]) -> list[str]:
    return [str(built.digest) for built in builts]

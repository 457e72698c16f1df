"""Manifests and the cache of a session: found by source and digest, and kept in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.aio.closing import CLOSE_TIMEOUT
from asupplemented.aio.lru import LRU
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.events import Warned
from asupplemented.limits import MIB

if TYPE_CHECKING:
    from asupplemented.abc import BlobCache, Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest

__all__ = ("KEEPER", "Keeper", "find_manifest", "keep_manifest", "settle_manifests")

MAX_WAITING: Final = 64 * MIB
"""Bytes of manifests that wait to be written; further ones are not kept, so that no reader waits
for the disk."""

MAX_NOTED: Final = 4096
"""Manifests that are known to be kept, so that the cache is not called again for them."""


async def find_manifest(context: Context, digest: Digest, source: str) -> Manifest | None:
    """A manifest that was read from a source before; None if the cache does not hold it."""
    cache = context.cache
    if cache is None:
        return None
    found = await cache.find_manifest(context, digest, source=source)
    if found is not None and found.digest != digest:
        message = f"the cache gave another manifest for {digest}; repair or replace the cache"
        context.emit(Warned(str(cache), message))
        return None
    return found


def keep_manifest(context: Context, manifest: Manifest, source: str, *, top: bool) -> None:
    """Have the cache of a session, if it has one, keep a verified manifest. Does not wait.

    Args:
        context: The session.
        manifest: The manifest.
        source: What it was read from; see `BlobCache.keep_manifest`.
        top: Whether it is the default manifest of a reference.
    """
    if context.cache is None:
        return
    # Made before the keeper, and so closed after it: the keeper writes in its threads.
    context.resource(WORKERS, Workers)
    entry = _Entry(context, context.cache, manifest, source, top)
    context.resource(KEEPER, Keeper).keep(entry)


async def settle_manifests(context: Context) -> None:
    """Wait until the cache of a session holds the manifests that were read up to now."""
    await context.resource(KEEPER, Keeper).settle()


class _Entry(NamedTuple):
    """A manifest that waits to be written."""

    context: Context
    cache: BlobCache
    manifest: Manifest
    source: str
    top: bool


class Keeper(AsyncResource):
    """Writes manifests to the cache, one after another, in one background task."""

    def __init__(self) -> None:
        self._noted = LRU[tuple[str | None, str, "Digest", bool], None](MAX_NOTED)
        self._waiting: deque[_Entry] = deque()
        self._bytes = 0
        """Of the manifests that wait, and of the one that is being written."""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def keep(self, entry: _Entry) -> None:
        """Have a manifest kept, unless that was done before."""
        manifest = entry.manifest
        note = (entry.context.principal, entry.source, manifest.digest, entry.top)
        full = self._bytes + manifest.size > MAX_WAITING
        if self._closed or full or note in self._noted:
            return
        self._noted.put(note, None)
        self._waiting.append(entry)
        self._bytes += manifest.size
        if self._task is None:
            self._task = asyncio.create_task(self._write_all(), name="keep manifests")

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write(self._waiting.popleft())
        finally:
            self._task = None

    async def _write(self, entry: _Entry) -> None:
        context, cache, manifest, source, top = entry
        try:
            await cache.keep_manifest(context, manifest, top=top, source=source)
        except Exception as error:  # noqa: BLE001 - no error of a cache may fail a pull
            message = f"the cache failed to keep manifest {manifest.digest}: {error}"
            context.emit(Warned(str(cache), message))
        finally:
            self._bytes -= manifest.size

    async def settle(self) -> None:
        """Wait until everything that waits now is written."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def aclose(self) -> None:
        """Wait for writes, but not for long; what is late is cancelled, and has ended then."""
        self._closed = True
        task = self._task
        if task is None:
            return
        with anyio.CancelScope(shield=True):
            _, late = await asyncio.wait((task,), timeout=CLOSE_TIMEOUT / 2)
            if late:
                self._waiting.clear()
                task.cancel()
                await asyncio.wait((task,))


KEEPER: Final = ResourceKey["Keeper"]("keeper of manifests")

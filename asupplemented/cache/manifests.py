"""Manifests and the cache of a session: found by digest, and kept in the background."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.aio.closing import CLOSE_TIMEOUT
from asupplemented.aio.lru import LRU
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.events import Warned

if TYPE_CHECKING:
    from asupplemented.abc import BlobCache, Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest

__all__ = ("KEEPER", "Keeper", "find_manifest", "keep_manifest")

MAX_WRITING: Final = 64
"""Manifests that wait to be written; further ones are not kept, so that readers never wait."""

MAX_NOTED: Final = 4096
"""Manifests that are known to be kept, so that the cache is not called again for them."""


async def find_manifest(context: Context, digest: Digest) -> Manifest | None:
    """A manifest from the cache of a session, which has verified it; None if there is none."""
    cache = context.cache
    found = None if cache is None else await cache.find_manifest(context, digest)
    if found is not None and found.digest != digest:
        message = f"the cache gave another manifest for {digest}; repair or replace the cache"
        context.emit(Warned(str(cache), message))
        return None
    return found


def keep_manifest(context: Context, manifest: Manifest, *, top: bool) -> None:
    """Have the cache of a session, if it has one, keep a verified manifest. Does not wait.

    Args:
        context: The session.
        manifest: The manifest.
        top: Whether it is the default manifest of a reference.
    """
    if context.cache is None:
        return
    # Made before the keeper, and so closed after it: the keeper writes in its threads.
    context.resource(WORKERS, Workers)
    context.resource(KEEPER, Keeper).keep(context, context.cache, manifest, top=top)


class Keeper(AsyncResource):
    """Writes manifests to the cache, one after another, in the background."""

    def __init__(self) -> None:
        self._noted = LRU[tuple[str | None, "Digest", bool], None](MAX_NOTED)
        self._writing: set[asyncio.Task[None]] = set()
        self._turn = anyio.Lock()

    def keep(self, context: Context, cache: BlobCache, manifest: Manifest, *, top: bool) -> None:
        """Start to keep a manifest, unless that was done before."""
        note = (context.principal, manifest.digest, top)
        if note in self._noted or len(self._writing) >= MAX_WRITING:
            return
        self._noted.put(note, None)
        task = asyncio.create_task(self._write(context, cache, manifest, top=top))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(
        self, context: Context, cache: BlobCache, manifest: Manifest, *, top: bool
    ) -> None:
        # A cache raises nothing. If one does, the event loop logs the error of the task.
        async with self._turn:
            await cache.keep_manifest(context, manifest, top=top)

    async def aclose(self) -> None:
        """Wait for writes that are running, but not for long."""
        if not self._writing:
            return
        _, late = await asyncio.wait(self._writing, timeout=CLOSE_TIMEOUT / 2)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


KEEPER: Final = ResourceKey["Keeper"]("keeper of manifests")

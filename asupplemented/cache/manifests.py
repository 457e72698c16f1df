"""Manifests and the cache of a session: found by digest, and kept while nobody waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.aio.closing import CLOSE_TIMEOUT
from asupplemented.aio.files import WORKERS, Workers, run_by_size
from asupplemented.errors import SupplementedError
from asupplemented.events import Warned
from asupplemented.model.manifest import UnreadManifest

if TYPE_CHECKING:
    from asupplemented.abc import BlobCache, Context, RawManifest
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest

__all__ = ("KEEPER", "Keeper", "find_manifest", "keep_manifest")

MAX_WRITING: Final = 64
"""Manifests that wait to be written; who reads more of them does not wait, they are not kept."""

MAX_NOTED: Final = 4096
"""Manifests of which is remembered that they were kept; it spares telling the cache again."""


async def find_manifest(context: Context, digest: Digest) -> RawManifest | None:
    """A manifest from the cache of a session, None if there is none that is right."""
    cache = context.cache
    found = None if cache is None else await cache.find_manifest(context, digest)
    if found is None:
        return None
    verify = partial(UnreadManifest.verified, found.raw, found.media_type, digest)
    try:
        await run_by_size(context, len(found.raw), verify)
    except SupplementedError as error:
        message = f"what the cache keeps as manifest {digest} is none: {error.message}"
        context.emit(Warned(str(cache), message))
        return None
    return found


def keep_manifest(context: Context, manifest: Manifest, *, top: bool) -> None:
    """Have a verified manifest kept by the cache of a session, if it has one. Does not wait.

    Args:
        context: For whom.
        manifest: What to keep.
        top: Whether it is the default manifest of a reference.
    """
    if context.cache is None:
        return
    context.resource(WORKERS, Workers)  # made before the keeper, and so closed after it
    context.resource(KEEPER, Keeper).keep(context, context.cache, manifest, top=top)


class Keeper(AsyncResource):
    """Tells the cache of manifests, one after another, while the session goes on."""

    def __init__(self) -> None:
        self._noted: OrderedDict[tuple[str | None, Digest, bool], None] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()
        self._turn = anyio.Lock()

    def keep(self, context: Context, cache: BlobCache, manifest: Manifest, *, top: bool) -> None:
        """Begin to keep a manifest, unless that was done before."""
        note = (context.principal, manifest.digest, top)
        if note in self._noted or len(self._writing) >= MAX_WRITING:
            return
        self._noted[note] = None
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)
        task = asyncio.create_task(self._write(context, cache, manifest, top=top))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(
        self, context: Context, cache: BlobCache, manifest: Manifest, *, top: bool
    ) -> None:
        # A cache raises nothing; one that does is told of by the event loop.
        async with self._turn:
            await cache.keep_manifest(context, manifest, top=top)

    async def aclose(self) -> None:
        """Wait for what is being written, but not for long."""
        if not self._writing:
            return
        _, late = await asyncio.wait(self._writing, timeout=CLOSE_TIMEOUT / 2)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


KEEPER: Final = ResourceKey["Keeper"]("keeper of manifests")

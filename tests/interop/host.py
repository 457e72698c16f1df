"""One host of several, as a process of its own: it pulls the layers of an image, and tells how.

It reads its task from stdin, says that it is ready, and begins when the next line comes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from asupplemented import Session, parse_reference
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.cache.remote.leases import RedisLease
from asupplemented.cache.remote.object_store import ObjectStore
from asupplemented.cache.remote.tiered import TieredCache
from asupplemented.events import AttemptFailed, BlobServed, Warned
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from asupplemented.abc import Source
    from asupplemented.model.descriptor import Descriptor

MAX_BYTES = 1 << 30


async def read(image: Source, blob: Descriptor) -> str:
    """Read a blob, and tell what it was."""
    async with image.open_blob(blob) as stream:
        return Digest.of(b"".join([chunk async for chunk in stream]))


async def run(task: dict[str, Any]) -> dict[str, Any]:
    """Pull every blob of the image that the task names."""
    events: list[Any] = []
    remote = ObjectStore.from_url(task["storage"], task["options"], allow_http=True)
    async with (
        LayoutCache(task["directory"], MAX_BYTES) as local,
        RedisLease.from_url(task["redis"]) as lease,
        TieredCache(local, remote, lease=lease) as cache,
        Session(tls_verify=False, hooks=[events.append], cache=cache) as session,
        parse_reference(task["reference"]).open(session) as image,
    ):
        manifest: Any = (await image.get_manifest()).parse()
        digests = await asyncio.gather(*(read(image, blob) for blob in manifest.layers))
    return {
        "digests": digests,
        "served": sorted({event.reference for event in events if isinstance(event, BlobServed)}),
        "failed": [event.message for event in events if isinstance(event, AttemptFailed)],
        "warnings": [event.message for event in events if isinstance(event, Warned)],
    }


def main() -> None:
    """Say "ready" and wait, so that several begin at once."""
    task = json.loads(sys.stdin.readline())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(asyncio.run(run(task))) + "\n")


if __name__ == "__main__":
    main()

"""Failover: one blob from three places, two of which die while it is read.

Two registries and an OCI layout hold the same image. The registries are shut down in the middle
of its layer, one after the other, and the reader gets the whole layer. It needs no network.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import asupplemented as asup
from asupplemented.testing import FakeRegistry, Slow, build_image, write_layout

if TYPE_CHECKING:
    from asupplemented.testing import BuiltImage

MIB = 1024 * 1024
IMAGE: BuiltImage = build_image("linux/amd64", [hashlib.shake_128(b"a layer").digest(12 * MIB)])
LAYER = IMAGE.layers[0]
DEATHS = (3 * MIB, 7 * MIB)
"""Bytes that the reader has when the first registry dies, and when the second one does."""


def tell(event: asup.Event) -> None:
    """A hook: print which source served what, and which failed."""
    match event:
        case asup.BlobServed(reference, _, start, end):
            print(f"  bytes {start:>8} to {end:>8}  {reference}")
        case asup.AttemptFailed(reference, error=error):
            print(f"  {error:<24}  {reference}")
        case _:
            pass  # there are many more kinds of events


async def read(image: asup.SupplementedSource, dying: list[FakeRegistry]) -> asup.BlobStream:
    """Read the layer, and shut down one registry after the other meanwhile."""
    seen = hashlib.sha256()
    async with image.open_blob(LAYER) as blob:
        async for chunk in blob:
            seen.update(chunk)
            if dying and blob.received >= DEATHS[-len(dying)]:
                await dying.pop(0).aclose()
    if LAYER.encoded != seen.hexdigest():  # the stream has verified it already
        raise AssertionError("the bytes differ")
    return blob


async def show(session: asup.Session, scratch: Path) -> None:
    """Build the three places, group them, and read."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(FakeRegistry()) for _ in range(2)]
        for registry in (first, second):
            # As slow as a network, so that it can die in the middle of the layer.
            registry.script(LAYER, Slow(64 * 1024, seconds=0.001), forever=True)
        # The last supplement is asked first.
        group = asup.supplement(
            write_layout(scratch, IMAGE, name="1.4"),
            second.add("mirror/app", IMAGE, tag="1.4"),
            first.add("team/app", IMAGE, tag="1.4"),
        )
        async with group.open(session) as image:
            print(image.resolution.explain(LAYER))
            print("What happened:")
            blob = await read(image, [first, second])
            print(f"Verified: {blob.verified}, {blob.received} bytes of {LAYER}")
            print("Members:", *(part.member for part in blob.served))


async def main() -> None:
    """Run the example in a temporary directory."""
    with TemporaryDirectory(prefix="asupplemented-failover-") as directory:
        # tls_verify=False: the registries of this example speak plain http.
        async with asup.Session(tls_verify=False, hooks=[tell]) as session:
            await show(session, Path(directory))


if __name__ == "__main__":
    asyncio.run(main())

"""A process that uses a cache: pulls blobs through it as a session does, and checks every byte.

Usage: ``python -m tests.cache.worker DIRECTORY LIMIT SEED PULLS``; to fetch one blob and stop half
way, ``... DIRECTORY LIMIT hang``; to read an image in a session, ``... DIRECTORY LIMIT read
REFERENCE``. It prints what it did as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from typing import TYPE_CHECKING

from asupplemented.blobs.stream import VerifiedStream
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.session import Session
from asupplemented.transports import parse_reference
from tests.cache.driving import read_all
from tests.candidates import Ledger, Wire, describe

if TYPE_CHECKING:
    from asupplemented.abc import BlobFile
    from asupplemented.model.digest import Digest

SIZES = tuple(random.Random(2).randrange(1000, 400_000) for _ in range(40))
HALF = 3_000_000
BIG = 8_000_000


def content(number: int) -> bytes:
    """What the upstream has."""
    return random.Random(number).randbytes(SIZES[number])


def big_content() -> bytes:
    return random.Random(99).randbytes(BIG)


async def pull(cache: LayoutCache, session: Session, data: bytes) -> str:
    """Get one blob; gives how: by a hit, by following, or from upstream."""
    blob = describe(data)
    file = await cache.find(session, blob)
    if file is not None:
        check(file, blob.digest)
        return "hit"
    ledger = Ledger()
    upstream = Wire(data, ledger, sizes=(65536,), pause=0.0005)
    spool = await cache.claim(session, blob)
    assert spool is not None
    candidates = (*spool.candidates, upstream)
    async with spool, VerifiedStream(blob, candidates, session) as stream:
        async for chunk in stream:
            await spool.append(chunk)
        await spool.commit()
        assert hashlib.sha256(await read_all(spool)).hexdigest() == blob.digest[7:]
    return "upstream" if ledger.asked else "followed"


def check(file: BlobFile, digest: Digest | str) -> None:
    """The name of a file that was given out is good until it is closed."""
    try:
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == digest[7:]
    finally:
        file.close()


async def work(directory: str, limit: int, seed: int, pulls: int) -> dict[str, int]:
    dice = random.Random(seed)
    done = {"hit": 0, "followed": 0, "upstream": 0}
    cache = LayoutCache(directory, limit, durable=bool(seed % 2))

    async def some(count: int) -> None:
        for _ in range(count):
            # Few are asked for often, as in real life; the order of all processes is alike.
            number = min(dice.randrange(len(SIZES)), dice.randrange(len(SIZES)))
            done[await pull(cache, session, content(number))] += 1
            print(".", end="", file=sys.stderr, flush=True)  # noqa: T201 - the test counts them

    async with Session() as session, asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(some(pulls))
    return done


async def hang(directory: str, limit: int) -> None:
    """Fetch half of a big blob, say so, and do nothing more."""
    data = big_content()
    async with Session() as session:
        spool = await LayoutCache(directory, limit).claim(session, describe(data))
        assert spool is not None
        await spool.append(data[:HALF])
        print("half", flush=True)  # noqa: T201 - the test reads it
        await asyncio.Event().wait()


async def read(directory: str, limit: int, reference: str) -> dict[str, int]:
    """Read an image, every byte verified; gives how many bytes each blob has."""
    cache = LayoutCache(directory, limit)
    sizes: dict[str, int] = {}
    async with (
        Session(tls_verify=False, cache=cache) as session,
        parse_reference(reference).open(session) as image,
    ):
        print("opened", flush=True)  # noqa: T201 - the test reads it
        for blob in (await image.get_manifest()).parse_image().blobs:
            async with image.open_blob(blob) as stream:
                sizes[blob.digest] = sum([len(chunk) async for chunk in stream])
                assert stream.verified is True
    return sizes


def main() -> None:
    directory, limit, what, *rest = sys.argv[1:]
    if what == "hang":
        asyncio.run(hang(directory, int(limit)))
    elif what == "read":
        print(json.dumps(asyncio.run(read(directory, int(limit), rest[0]))))  # noqa: T201
    else:
        done = asyncio.run(work(directory, int(limit), int(what), int(rest[0])))
        print(json.dumps(done))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()

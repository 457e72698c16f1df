from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ImageNotFoundError, UnsupportedManifestError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.signature import Signature
from asupplemented.session import Session
from asupplemented.transports.memory import MemoryReference
from tests.transports.contract import ARM64, CONTENTS, INDEX, SMALL, AdapterContract, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worlds import Contents


class MemoryWorld:
    @asynccontextmanager
    async def serve(self, contents: Contents) -> AsyncIterator[MemoryReference]:
        default = contents.default
        yield MemoryReference(
            "world",
            None if default is None else contents.manifests[default],
            contents.manifests,
            contents.blobs,
            contents.signatures,
        )


class TestMemory(AdapterContract):
    @pytest.fixture
    def world(self) -> World:
        return MemoryWorld()


async def test_an_image_made_of_bytes() -> None:
    manifests = [member.raw for member in INDEX.members]
    reference = MemoryReference.of(
        "app", INDEX.raw, manifests=manifests[:2], blobs=CONTENTS.blobs.values()
    )
    async with Session() as session, reference.open(session) as source:
        assert (await source.get_manifest()).raw == INDEX.raw
        assert (await source.get_manifest(INDEX.digest)).raw == INDEX.raw
        assert (await source.get_manifest(ARM64.digest)).raw == ARM64.raw
        async with source.open_blob(Digest.of(SMALL)) as blob:
            assert await blob.read_all(len(SMALL)) == SMALL


async def test_signatures_by_instance() -> None:
    mine, other = Signature("simple-signing", b"mine"), Signature("sigstore-json", b"{}")
    reference = MemoryReference(
        "app",
        CONTENTS.manifests[INDEX.digest],
        CONTENTS.manifests,
        signatures={None: (mine,), ARM64.digest: (other, mine)},
    )
    async with Session() as session, reference.open(session) as source:
        assert await source.get_signatures() == (mine,)
        assert await source.get_signatures(ARM64.digest) == (other, mine)
        assert await source.get_signatures(INDEX.digest) == ()


async def test_nothing_and_nonsense_fail_at_open() -> None:
    async with Session() as session:
        with pytest.raises(ImageNotFoundError):
            await MemoryReference("empty").open(session)
        with pytest.raises(UnsupportedManifestError):
            await MemoryReference.of("nonsense", b'{"schemaVersion":7}').open(session)


async def test_chunks_have_the_size_that_was_asked_for() -> None:
    reference = MemoryReference(
        "app",
        CONTENTS.manifests[INDEX.digest],
        blobs=CONTENTS.blobs,
        chunk=1000,
        concurrent_blobs=False,
    )
    async with Session() as session, reference.open(session) as source:
        assert source.concurrent_blobs is False
        [candidate] = source.blob_candidates(_descriptor(SMALL))
        async with candidate.open(5, 3005) as raw:
            assert (raw.start, raw.size) == (5, len(SMALL))
            chunks = [chunk async for chunk in raw]
    assert [len(chunk) for chunk in chunks] == [1000, 1000, 1000]
    assert b"".join(chunks) == SMALL[5:3005]


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor(digest=Digest.of(data), size=len(data))

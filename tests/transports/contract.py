"""What every adapter passes, whatever it reads from.

A test class of an adapter inherits from `AdapterContract` and gives it a `world`: a way to put
contents into a place of its kind. The suite sees what users see, an open `Source`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import pytest

from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    DigestMismatchError,
    LimitExceededError,
    ManifestNotFoundError,
    RangeError,
    SizeMismatchError,
    TruncatedError,
    VerificationError,
)
from asupplemented.limits import MAX_MANIFEST, MIB, SMALL_BLOB
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.session import Session
from asupplemented.testing import build_image, build_index
from tests.candidates import drain, fail
from tests.worlds import Contents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from asupplemented.abc import Reference, Source

SMALL = bytes(range(256)) * 40
LARGE = b"".join(n.to_bytes(4, "big") for n in range((SMALL_BLOB + MIB + 12) // 4))
"""Larger than what is verified before its first byte."""

AMD64 = build_image("linux/amd64", [SMALL, LARGE, {"etc/name": "amd64"}])
ARM64 = build_image("linux/arm64", [SMALL, {"etc/name": "arm64"}])
LONG = build_image("linux/s390x", [{"etc/name": "s390x"}], algorithm="sha512")
INDEX = build_index([AMD64, ARM64, LONG])
CONTENTS = Contents.of(INDEX)

SMALL_DIGEST = Digest.of(SMALL)
LARGE_DIGEST = Digest.of(LARGE)
ABSENT = Digest.of(b"nobody has this")


class World(Protocol):
    """A kind of place."""

    def serve(self, contents: Contents) -> AbstractAsyncContextManager[Reference]:
        """Put contents in a fresh place; the reference leads to their default manifest."""
        ...


def large(size: int | None = len(LARGE)) -> Descriptor:
    return Descriptor(digest=LARGE_DIGEST, size=size)


class AdapterContract:
    """The suite. Subclasses define the fixture `world`, which may check what is left behind."""

    @pytest.fixture
    async def session(self, world: World) -> AsyncIterator[Session]:
        # It is closed before the world looks whether something was left open.
        async with Session() as session:
            yield session

    @pytest.fixture
    async def source(self, world: World, session: Session) -> AsyncIterator[Source]:
        async with world.serve(CONTENTS) as reference, reference.open(session) as source:
            yield source

    # Manifests

    async def test_SR01_the_source_knows_its_reference(
        self, world: World, session: Session
    ) -> None:
        async with world.serve(CONTENTS) as reference, reference.open(session) as source:
            assert source.reference == reference
            assert reference.transport in str(reference)

    async def test_opening_by_await_gives_the_open_source(
        self, world: World, session: Session
    ) -> None:
        async with world.serve(CONTENTS) as reference:
            source = await reference.open(session)
            assert (await source.get_manifest()).raw == INDEX.raw
            await source.aclose()

    async def test_SR02_default_manifest(self, source: Source) -> None:
        manifest = await source.get_manifest()
        assert manifest.raw == INDEX.raw
        assert manifest.digest == INDEX.digest
        assert manifest.media_type == INDEX.media_type
        assert (await source.get_manifest()).raw == INDEX.raw

    @pytest.mark.parametrize("image", [AMD64, ARM64, LONG], ids=["amd64", "arm64", "sha512"])
    async def test_SR02_instance(self, source: Source, image: object) -> None:
        assert image in INDEX.members
        wanted = next(member for member in INDEX.members if member is image)
        manifest = await source.get_manifest(wanted.digest)
        assert manifest.raw == wanted.raw
        assert manifest.digest == wanted.digest
        assert manifest.media_type == wanted.media_type

    async def test_a_missing_instance_is_a_miss(self, source: Source) -> None:
        with pytest.raises(ManifestNotFoundError) as caught:
            await source.get_manifest(ABSENT)
        assert caught.value.digest == ABSENT
        assert caught.value.reference == str(source.reference)

    async def test_a_place_without_a_default_manifest_is_a_miss(
        self, world: World, session: Session
    ) -> None:
        empty = Contents(None, CONTENTS.manifests, CONTENTS.blobs)
        async with world.serve(empty) as reference:
            with pytest.raises(ManifestNotFoundError) as caught:
                async with reference.open(session) as source:
                    await source.get_manifest()
            assert caught.value.reference == str(reference)

    async def test_many_instances_have_one_outcome_each_in_the_order_asked(
        self, source: Source
    ) -> None:
        asked = [ARM64.digest, ABSENT, LONG.digest, ARM64.digest]
        one, absent, long, again = await source.get_manifests(asked)
        assert isinstance(one, Manifest)
        assert isinstance(long, Manifest)
        assert isinstance(again, Manifest)
        assert [one.raw, long.raw, again.raw] == [ARM64.raw, LONG.raw, ARM64.raw]
        assert isinstance(absent, ManifestNotFoundError)
        assert absent.digest == ABSENT

    @pytest.mark.parametrize(
        "wrong", [ARM64.raw[:-1], ARM64.raw + b"\n", AMD64.raw], ids=["short", "long", "other"]
    )
    async def test_DG13_a_manifest_that_is_not_what_named_it_is_refused(
        self, world: World, session: Session, wrong: bytes
    ) -> None:
        lying = CONTENTS.replacing(ARM64.digest, wrong)
        async with world.serve(lying) as reference, reference.open(session) as source:
            with pytest.raises(VerificationError) as caught:
                await source.get_manifest(ARM64.digest)
            assert caught.value.digest == ARM64.digest
            [outcome] = await source.get_manifests([ARM64.digest])
            assert isinstance(outcome, VerificationError)

    async def test_L03_a_manifest_may_be_as_large_as_the_cap_and_not_larger(
        self, world: World, session: Session
    ) -> None:
        fits = ARM64.raw.ljust(MAX_MANIFEST)
        both = Contents.of(ARM64).replacing(ARM64.digest, fits)
        huge = fits + b" " * MIB
        key, other = Digest.of(fits), Digest.of(huge)
        stored = both.manifests[ARM64.digest]
        manifests = {**both.manifests, key: stored, other: stored._replace(raw=huge)}
        contents = Contents(key, manifests, both.blobs)
        async with world.serve(contents) as reference, reference.open(session) as source:
            assert (await source.get_manifest()).raw == fits
            with pytest.raises(LimitExceededError) as caught:
                await source.get_manifest(other)
            assert caught.value.limit == MAX_MANIFEST
            [outcome] = await source.get_manifests([other])
            assert isinstance(outcome, LimitExceededError)

    async def test_an_image_without_signatures_has_none(self, source: Source) -> None:
        assert await source.get_signatures() == ()
        assert await source.get_signatures(ARM64.digest) == ()

    async def test_SR06_the_layers_of_the_manifest_are_right(self, source: Source) -> None:
        assert await source.layers_for_copy(ARM64.digest) is None

    # Blobs

    @pytest.mark.parametrize("blob", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("sized", [True, False])
    async def test_SR03_a_whole_blob(self, source: Source, blob: bytes, sized: bool) -> None:  # noqa: FBT001 - a parameter of the test
        digest = Digest.of(blob)
        stream = source.open_blob(Descriptor(digest=digest, size=len(blob) if sized else None))
        assert await drain(stream) == blob
        assert stream.verified is True
        assert stream.received == len(blob)
        assert stream.size == len(blob)

    async def test_every_blob_of_an_image_by_its_digest(self, source: Source) -> None:
        for digest, data in CONTENTS.blobs.items():
            async with source.open_blob(str(digest)) as blob:
                assert await blob.read_all(len(data)) == data

    async def test_an_empty_blob(self, world: World, session: Session) -> None:
        empty = Digest.of(b"")
        contents = CONTENTS.replacing(empty, b"")
        async with world.serve(contents) as reference, reference.open(session) as source:
            stream = source.open_blob(Descriptor(digest=empty, size=0))
            assert await drain(stream) == b""
            assert stream.verified is True

    async def test_a_missing_blob_is_a_miss(self, source: Source) -> None:
        received, error = await fail(source.open_blob(ABSENT))
        assert isinstance(error, BlobNotFoundError)
        assert error.digest == ABSENT
        assert error.reference == str(source.reference)
        assert received == b""

    @pytest.mark.parametrize("size", [len(LARGE), None], ids=["size known", "size unknown"])
    @pytest.mark.parametrize("cut", [1, MIB, len(LARGE)], ids=["last byte", "1 MiB", "all"])
    async def test_a_truncated_blob_is_refused(
        self, world: World, session: Session, size: int | None, cut: int
    ) -> None:
        contents = CONTENTS.replacing(LARGE_DIGEST, LARGE[:-cut])
        async with world.serve(contents) as reference, reference.open(session) as source:
            received, error = await fail(source.open_blob(large(size)))
        assert isinstance(error, VerificationError | TruncatedError)
        assert error.digest == LARGE_DIGEST
        assert len(received) < len(LARGE) - cut or received == b""

    @pytest.mark.parametrize("at", [0, len(LARGE) // 2, len(LARGE) - 1])
    async def test_a_corrupt_blob_keeps_its_last_chunk_back(
        self, world: World, session: Session, at: int
    ) -> None:
        wrong = LARGE[:at] + bytes((LARGE[at] ^ 1,)) + LARGE[at + 1 :]
        contents = CONTENTS.replacing(LARGE_DIGEST, wrong)
        async with world.serve(contents) as reference, reference.open(session) as source:
            received, error = await fail(source.open_blob(large()))
        assert isinstance(error, DigestMismatchError)
        assert len(received) < len(LARGE)
        assert wrong.startswith(received)

    async def test_a_small_corrupt_blob_hands_nothing_out(
        self, world: World, session: Session
    ) -> None:
        contents = CONTENTS.replacing(SMALL_DIGEST, SMALL[::-1])
        async with world.serve(contents) as reference, reference.open(session) as source:
            received, error = await fail(source.open_blob(SMALL_DIGEST))
        assert isinstance(error, DigestMismatchError)
        assert received == b""

    @pytest.mark.parametrize("blob", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("off", [-1, 1])
    async def test_a_size_that_the_descriptor_got_wrong_is_refused(
        self, source: Source, blob: bytes, off: int
    ) -> None:
        descriptor = Descriptor(digest=Digest.of(blob), size=len(blob) + off)
        received, error = await fail(source.open_blob(descriptor))
        assert isinstance(error, SizeMismatchError | TruncatedError)
        assert len(received) < len(blob)

    async def test_read_all_has_a_limit(self, source: Source) -> None:
        async with source.open_blob(SMALL_DIGEST) as blob:
            with pytest.raises(LimitExceededError):
                await blob.read_all(len(SMALL) - 1)

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, 1), (1, len(LARGE)), (MIB - 1, 3 * MIB + 1), (len(LARGE) - 1, None), (7, None)],
    )
    async def test_a_range_is_the_slice(self, source: Source, start: int, end: int | None) -> None:
        stream = source.open_blob(large(), start=start, end=end)
        assert await drain(stream) == LARGE[start:end]
        assert stream.size == len(LARGE)

    @pytest.mark.parametrize("size", [len(LARGE), None], ids=["size known", "size unknown"])
    async def test_a_range_beyond_the_blob_is_refused(
        self, source: Source, size: int | None
    ) -> None:
        with pytest.raises(RangeError):
            await drain(source.open_blob(large(size), start=len(LARGE) + 1))

    async def test_blobs_side_by_side(self, source: Source) -> None:
        assert source.concurrent_blobs is True
        wanted = [(digest, data) for digest, data in CONTENTS.blobs.items() for _ in range(2)]
        streams = [source.open_blob(digest) for digest, _ in wanted]
        received = await asyncio.gather(*(drain(stream) for stream in streams))
        assert received == [data for _, data in wanted]

    # Ends

    async def test_a_reader_cancelled_in_mid_blob_leaves_the_source_whole(
        self, source: Source
    ) -> None:
        stream = source.open_blob(large())
        begun = asyncio.Event()

        async def read() -> None:
            async with stream as blob:
                async for _ in blob:
                    begun.set()
                    await asyncio.Event().wait()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream.verified is False
        assert await drain(source.open_blob(large())) == LARGE
        assert (await source.get_manifest(ARM64.digest)).raw == ARM64.raw

    async def test_a_reader_may_leave_early_and_close_twice(self, source: Source) -> None:
        stream = source.open_blob(large())
        async with stream as blob:
            await anext(blob)
        await stream.aclose()
        assert stream.verified is False
        with pytest.raises(ClosedError):
            await anext(stream)

    async def test_SR08_closing_twice_is_closing_once(self, world: World, session: Session) -> None:
        async with world.serve(CONTENTS) as reference:
            source = await reference.open(session)
            await source.aclose()
            await source.aclose()
            with pytest.raises(ClosedError):
                await source.get_manifest()

    async def test_a_reference_can_be_opened_again(self, world: World, session: Session) -> None:
        async with world.serve(CONTENTS) as reference:
            for _ in range(2):
                async with reference.open(session) as source:
                    assert (await source.get_manifest()).raw == INDEX.raw

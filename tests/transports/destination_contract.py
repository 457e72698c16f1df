"""What every destination on disk passes, and the streams to feed it with."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import pytest

from asupplemented.aio.atomic import PREFIX
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.errors import (
    ClosedError,
    DigestMismatchError,
    LayoutError,
    PermissionDeniedError,
    SourceError,
    SupplementedError,
    UnsupportedManifestError,
    UsageError,
)
from asupplemented.limits import BLOCK, MIB
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.session import Session
from asupplemented.testing import hold_in_memory
from asupplemented.transports.disk import DiskDestination
from tests.candidates import drain
from tests.suspending import cancel_at_every_await, wait_until
from tests.transports.contract import (
    ABSENT,
    AMD64,
    ARM64,
    CONTENTS,
    INDEX,
    LARGE,
    LARGE_DIGEST,
    LONG,
    SMALL,
    SMALL_DIGEST,
)
from tests.transports.places import failing_open, open_files, tree
from tests.transports.test_oci import SCHEMA1
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from pathlib import Path

    from asupplemented.abc import Destination, Reference, Source, WritableReference

MANIFESTS = {built.digest: built for built in (AMD64, ARM64, LONG)}


class Place(Protocol):
    """A kind of destination."""

    def reference(self, path: Path) -> WritableReference:
        """The reference of an image in a directory."""
        ...

    def blob(self, path: Path, digest: Digest) -> Path:
        """The file of a blob."""
        ...


def leftovers(path: Path) -> list[Path]:
    return list(path.rglob(f"{PREFIX}*"))


async def put(destination: Destination, source: Source, blob: Descriptor) -> None:
    async with source.open_blob(blob) as stream:
        await destination.put_blob(stream)


async def write_image(destination: Destination, source: Source) -> list[Digest]:
    """Write all of `INDEX` as a copy does; returns what had to be fetched."""
    fetched: list[Digest] = []
    for digest, data in CONTENTS.blobs.items():
        blob = Descriptor(digest=digest, size=len(data))
        if not await destination.has_blob(blob):
            await put(destination, source, blob)
            fetched.append(digest)
    for built in MANIFESTS.values():
        await destination.put_manifest(manifest_of(built))
    await destination.commit(manifest_of(INDEX))
    return fetched


@contextmanager
def no_room(size: int) -> Generator[None]:
    """Files cannot grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def failing(name: str, code: int) -> Generator[None]:
    """Let a function of `os` fail."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, refuse)
        yield


class DestinationContract:
    """The suite. Subclasses define the fixture `place`."""

    @pytest.fixture
    async def session(self) -> AsyncIterator[Session]:
        async with Session() as session:
            yield session

    @pytest.fixture
    async def source(self, session: Session) -> AsyncIterator[Source]:
        async with hold_in_memory("source", INDEX).open(session) as source:
            yield source

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "out"

    async def read_back(self, reference: object, session: Session) -> None:
        """The whole of `INDEX` can be read."""
        readable: Reference = reference  # type: ignore[assignment]
        async with readable.open(session) as image:
            assert (await image.get_manifest()).raw == INDEX.raw
            for built in MANIFESTS.values():
                assert (await image.get_manifest(built.digest)).raw == built.raw
            for digest, data in CONTENTS.blobs.items():
                assert await drain(image.open_blob(digest)) == data

    # Writing

    async def test_what_was_written_can_be_read(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            assert destination.reference == reference
            await write_image(destination, source)
        await self.read_back(reference, session)
        assert leftovers(path) == []

    async def test_nothing_can_be_read_before_the_commit(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            for digest, data in CONTENTS.blobs.items():
                await put(destination, source, Descriptor(digest=digest, size=len(data)))
            for built in MANIFESTS.values():
                await destination.put_manifest(manifest_of(built))
            with pytest.raises(LookupError):
                await reference.open(session)  # type: ignore[attr-defined]
            await destination.commit(manifest_of(INDEX))
        await self.read_back(reference, session)

    async def test_a_rerun_fetches_nothing_and_changes_nothing(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            assert len(await write_image(destination, source)) == len(CONTENTS.blobs)
        before = {file: file.stat().st_ino for file in path.rglob("*")}
        async with reference.create(session) as destination:
            assert await write_image(destination, source) == []
        assert {file: file.stat().st_ino for file in path.rglob("*")} == before

    async def test_DI06_a_rerun_after_a_failure_fetches_only_what_lacks(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            await put(destination, source, Descriptor(digest=LARGE_DIGEST))
        async with reference.create(session) as destination:
            fetched = await write_image(destination, source)
        assert set(fetched) == set(CONTENTS.blobs) - {LARGE_DIGEST}
        await self.read_back(reference, session)

    @pytest.mark.parametrize(
        "wrong",
        [SMALL[:-1], SMALL + b"x", SMALL[::-1], b""],
        ids=["short", "long", "other", "none"],
    )
    async def test_a_file_that_is_not_the_blob_is_replaced(
        self, place: Place, path: Path, session: Session, source: Source, wrong: bytes
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            await write_image(destination, source)
        file = place.blob(path, SMALL_DIGEST)
        file.write_bytes(wrong)
        with file.open("rb") as reader:
            async with reference.create(session) as destination:
                assert await write_image(destination, source) == [SMALL_DIGEST]
            assert reader.read() == wrong  # Who reads the old file is not disturbed.
        await self.read_back(reference, session)

    async def test_has_blob_reads_what_is_there_once(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        small = Descriptor(digest=SMALL_DIGEST, size=len(SMALL))
        async with place.reference(path).create(session) as destination:
            assert await destination.has_blob(small) is False
            await put(destination, source, small)
            assert await destination.has_blob(small) is True
        async with place.reference(path).create(session) as destination:
            assert await destination.has_blob(Descriptor(digest=ABSENT)) is False
            assert await destination.has_blob(replace_size(small, None)) is True
            with failing_open(path, errno.EIO):
                assert await destination.has_blob(small) is True
        async with place.reference(path).create(session) as destination:
            assert await destination.has_blob(replace_size(small, len(SMALL) + 1)) is False

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
    async def test_DI07_what_is_no_file_is_no_blob_and_is_replaced(
        self,
        place: Place,
        path: Path,
        session: Session,
        source: Source,
        make: Callable[[Path], None],
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            await write_image(destination, source)
        file = place.blob(path, SMALL_DIGEST)
        file.unlink()
        make(file)
        async with reference.create(session) as destination:
            assert await write_image(destination, source) == [SMALL_DIGEST]
        assert file.is_file()
        assert not file.is_symlink()
        await self.read_back(reference, session)

    async def test_blobs_side_by_side_and_the_same_one_twice(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        blobs = [Descriptor(digest=d, size=len(data)) for d, data in CONTENTS.blobs.items()] * 2
        async with place.reference(path).create(session) as destination:
            await asyncio.gather(*(put(destination, source, blob) for blob in blobs))
            assert all([await destination.has_blob(blob) for blob in blobs])
        assert leftovers(path) == []

    async def test_sparse_an_index_may_name_what_is_not_there(
        self, place: Place, path: Path, session: Session
    ) -> None:
        async with place.reference(path).create(session) as destination:
            await destination.commit(manifest_of(INDEX))
        readable: Reference = place.reference(path)  # type: ignore[assignment]
        async with readable.open(session) as image:
            assert (await image.get_manifest()).raw == INDEX.raw

    # Refusing

    async def test_schema_1_is_never_written(
        self, place: Place, path: Path, session: Session
    ) -> None:
        manifest = Manifest.verified(SCHEMA1, None, None)
        async with place.reference(path).create(session) as destination:
            with pytest.raises(UnsupportedManifestError):
                await destination.put_manifest(manifest)
            with pytest.raises(UnsupportedManifestError):
                await destination.commit(manifest)
        assert not path.exists()

    async def test_a_range_is_not_a_blob(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        async with place.reference(path).create(session) as destination:
            for start, end in ((0, len(LARGE) - 1), (1, None)):
                blob = Descriptor(digest=LARGE_DIGEST, size=len(LARGE))
                async with source.open_blob(blob, start=start, end=end) as stream:
                    with pytest.raises(UsageError):
                        await destination.put_blob(stream)
            assert not place.blob(path, LARGE_DIGEST).exists()
            assert leftovers(path) == []

    async def test_DI05_a_wrong_blob_leaves_no_file(
        self, place: Place, path: Path, session: Session
    ) -> None:
        contents = hold_in_memory("lies", INDEX)
        wrong = replace(contents, blobs={**contents.blobs, LARGE_DIGEST: LARGE[::-1]})
        async with (
            wrong.open(session) as source,
            place.reference(path).create(session) as destination,
        ):
            with pytest.raises(DigestMismatchError):
                await put(destination, source, Descriptor(digest=LARGE_DIGEST))
            assert not place.blob(path, LARGE_DIGEST).exists()
            assert leftovers(path) == []

    async def test_a_closed_destination_refuses(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        destination = await place.reference(path).create(session)
        await destination.aclose()
        await destination.aclose()
        for call in (
            lambda: destination.has_blob(Descriptor(digest=SMALL_DIGEST)),
            lambda: destination.put_manifest(manifest_of(ARM64)),
            lambda: destination.commit(manifest_of(ARM64)),
            lambda: put(destination, source, Descriptor(digest=SMALL_DIGEST)),
        ):
            with pytest.raises(ClosedError):
                await call()

    async def test_a_place_that_was_not_used_is_left_as_it_was(
        self, place: Place, path: Path, session: Session
    ) -> None:
        async with place.reference(path).create(session):
            assert path.is_dir()
        assert not path.exists()
        path.mkdir()
        async with place.reference(path).create(session):
            pass
        assert list(path.iterdir()) == []

    async def test_a_destination_that_is_forgotten_warns(
        self, place: Place, path: Path, session: Session
    ) -> None:
        destination = await place.reference(path).create(session)
        assert isinstance(destination, DiskDestination)
        with pytest.warns(ResourceWarning, match=f"unclosed destination {place.reference(path)}"):
            destination.__del__()  # The thread that made it may hold it a little longer than we.
        await destination.aclose()
        destination.__del__()

    async def test_the_parent_has_to_be_there(
        self, place: Place, tmp_path: Path, session: Session
    ) -> None:
        reference = place.reference(tmp_path / "no" / "such" / "place")
        with pytest.raises(LayoutError, match="No such file") as caught:
            await reference.create(session)
        assert caught.value.reference == str(reference)
        assert not (tmp_path / "no").exists()

    async def test_a_file_in_the_place(self, place: Place, path: Path, session: Session) -> None:
        path.write_text("mine")
        with pytest.raises(LayoutError):
            await place.reference(path).create(session)
        assert path.read_text() == "mine"

    # Failing

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
    async def test_a_place_that_cannot_be_written(
        self, place: Place, path: Path, session: Session, source: Source, code: int
    ) -> None:
        with failing("mkdir", code), pytest.raises(PermissionDeniedError):
            await place.reference(path).create(session)
        assert not path.exists()
        async with place.reference(path).create(session) as destination:
            with failing_open(path, code, flags=os.O_CREAT):
                for attempt in (
                    lambda: put(destination, source, Descriptor(digest=SMALL_DIGEST)),
                    lambda: destination.put_manifest(manifest_of(ARM64)),
                    lambda: destination.commit(manifest_of(INDEX)),
                ):
                    with pytest.raises(PermissionDeniedError) as caught:
                        await attempt()
                    assert isinstance(caught.value, PermissionError)
        assert not any(data for name, data in tree(path).items() if name != "version")

    async def test_a_full_disk_in_mid_blob(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        async with place.reference(path).create(session) as destination:
            await put(destination, source, Descriptor(digest=SMALL_DIGEST))
            with no_room(2 * BLOCK), pytest.raises(SourceError, match="make room"):
                await put(destination, source, Descriptor(digest=LARGE_DIGEST))
            assert leftovers(path) == []
            assert not place.blob(path, LARGE_DIGEST).exists()
            assert place.blob(path, SMALL_DIGEST).read_bytes() == SMALL
            await put(destination, source, Descriptor(digest=LARGE_DIGEST))
            assert place.blob(path, LARGE_DIGEST).read_bytes() == LARGE

    @pytest.mark.parametrize(
        ("function", "code"),
        [("pwrite", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EACCES)],
    )
    async def test_a_failure_at_any_step_leaves_the_image_as_it_was(
        self,
        place: Place,
        path: Path,
        session: Session,
        source: Source,
        function: str,
        code: int,
    ) -> None:
        reference = place.reference(path)
        async with reference.create(session) as destination:
            await write_image(destination, source)
        before = tree(path)
        other = manifest_of(ARM64)
        async with reference.create(session) as destination:
            with failing(function, code), pytest.raises(SourceError) as caught:
                await destination.commit(other)
            assert caught.value.reference == str(reference)
        changed = {name for name, data in tree(path).items() if before.get(name) != data}
        assert changed <= {str(place.blob(path, other.digest).relative_to(path))}
        assert leftovers(path) == []
        await self.read_back(reference, session)

    async def test_cancelled_in_mid_blob_nothing_stays(
        self, place: Place, path: Path, session: Session
    ) -> None:
        reference = place.reference(path)
        stream = Halting(LARGE, after=5 * MIB)
        destination = await reference.create(session)
        task = asyncio.create_task(destination.put_blob(stream))  # type: ignore[arg-type]
        await stream.halted.wait()
        assert len(leftovers(path)) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert leftovers(path) == []
        assert not place.blob(path, LARGE_DIGEST).exists()
        await destination.aclose()
        assert open_files(path) == []

    async def test_cancelled_at_any_await_it_is_whole_or_not_there(
        self, place: Place, path: Path, session: Session, source: Source
    ) -> None:
        path.mkdir()
        blob = Descriptor(digest=SMALL_DIGEST, size=len(SMALL))
        readable: Reference = place.reference(path)  # type: ignore[assignment]

        async def copy() -> None:
            async with place.reference(path).create(session) as destination:
                if not await destination.has_blob(blob):
                    await put(destination, source, blob)
                await destination.put_manifest(manifest_of(ARM64))
                await destination.commit(manifest_of(INDEX))

        async def check() -> None:
            # A call that had begun in a thread runs to its end.
            await wait_until(lambda: "0 calls" in repr(session.resource(WORKERS, Workers)))
            assert not leftovers(path)
            assert not open_files(path)
            file = place.blob(path, SMALL_DIGEST)
            assert not file.exists() or file.read_bytes() == SMALL
            try:
                async with readable.open(session) as image:
                    assert (await image.get_manifest()).raw == INDEX.raw
            except LookupError:
                pass  # It is not there yet.
            shutil.rmtree(path)
            path.mkdir()

        assert await cancel_at_every_await(copy, check) > 5
        await check()

    async def test_what_a_killed_writer_left_is_swept_and_what_lives_is_not(
        self, place: Place, path: Path, session: Session
    ) -> None:
        stream = Halting(LARGE, after=5 * MIB)
        destination = await place.reference(path).create(session)
        task = asyncio.create_task(destination.put_blob(stream))  # type: ignore[arg-type]
        await stream.halted.wait()
        [living] = leftovers(path)
        dead = living.with_name(f"{PREFIX}dead")
        dead.write_bytes(b"half a blob")
        async with place.reference(path).create(session):
            assert leftovers(path) == [living]
        task.cancel()
        await asyncio.wait([task])
        await destination.aclose()

    async def test_errors_name_the_digest(self, place: Place, path: Path, session: Session) -> None:
        async with place.reference(path).create(session) as destination:
            denied = failing_open(path, errno.EACCES, flags=os.O_CREAT)
            with denied, pytest.raises(SupplementedError) as caught:
                await destination.put_manifest(manifest_of(ARM64))
        assert caught.value.digest == ARM64.digest
        assert caught.value.reference == str(place.reference(path))


def replace_size(blob: Descriptor, size: int | None) -> Descriptor:
    return Descriptor(digest=blob.digest, size=size)


class Halting:
    """An entered stream that stops in the middle, and says when all before was taken."""

    def __init__(self, data: bytes, *, after: int) -> None:
        self._chunks = [data[at : at + BLOCK] for at in range(0, after, BLOCK)]
        self.descriptor = Descriptor(digest=Digest.of(data), size=len(data))
        self.verified = None
        self.halted = asyncio.Event()

    def __aiter__(self) -> Halting:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            self.halted.set()
            await asyncio.Event().wait()
        return self._chunks.pop(0)

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import Listing
from asupplemented.errors import LayoutError, LimitExceededError, SourceError
from asupplemented.limits import MAX_SIGNATURES
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.signature import Signature
from asupplemented.testing import build_image, hold_in_memory
from asupplemented.transports.directory import DirectoryReference
from tests.transports.contract import AMD64, ARM64, CONTENTS, INDEX, LONG, SMALL, SMALL_DIGEST
from tests.transports.destination_contract import (
    DestinationContract,
    Place,
    failing,
    put,
    write_image,
)
from tests.transports.places import tree, watching_the_disk
from tests.worlds import manifest_of, plain, write_directory

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.model.digest import Digest
    from asupplemented.session import Session

ONE = Signature("simple-signing", b"\xa3 one")
TWO = Signature("sigstore-json", b'{"two":2}')
THREE = Signature("simple-signing", b"three, not an OpenPGP message")


class DirectoryPlace:
    def reference(self, path: Path) -> DirectoryReference:
        return DirectoryReference(str(path))

    def blob(self, path: Path, digest: Digest) -> Path:
        return path / plain(digest)


class TestDirectoryDestination(DestinationContract):
    @pytest.fixture
    def place(self) -> Place:
        return DirectoryPlace()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


def version_of(path: Path) -> str:
    return (path / "version").read_text()


async def test_DI05_the_files_of_a_directory(path: Path, session: Session) -> None:
    async with (
        hold_in_memory("source", INDEX).open(session) as source,
        DirectoryReference(str(path)).create(session) as destination,
    ):
        await write_image(destination, source)
    files = tree(path)
    assert files.pop("manifest.json") == INDEX.raw
    assert files.pop("version") == b"Directory Transport Version: 1.2\n"
    manifests = {f"{plain(b.digest)}.manifest.json": b.raw for b in (AMD64, ARM64, LONG)}
    assert files == {**manifests, **{plain(d): data for d, data in CONTENTS.blobs.items()}}


async def test_DI05_modes(path: Path, session: Session) -> None:
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.put_signatures([ONE], None)
        await destination.commit(manifest_of(ARM64))
    assert path.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


async def test_DI02_DI03_the_version_is_raised_for_other_algorithms_only(
    path: Path, session: Session
) -> None:
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.commit(manifest_of(ARM64))
    assert version_of(path) == "Directory Transport Version: 1.1\n"
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.put_manifest(manifest_of(LONG))
        assert version_of(path) == "Directory Transport Version: 1.1\n"
        await destination.commit(manifest_of(INDEX))
    assert version_of(path) == "Directory Transport Version: 1.2\n"
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.commit(manifest_of(ARM64))
    assert version_of(path) == "Directory Transport Version: 1.2\n"


async def test_DI03_a_blob_of_another_algorithm_raises_the_version_too(
    path: Path, session: Session
) -> None:
    [config, *_] = LONG.blobs
    for _ in range(2):  # Written, then found.
        async with (
            hold_in_memory("source", INDEX).open(session) as source,
            DirectoryReference(str(path)).create(session) as destination,
        ):
            if not await destination.has_blob(Descriptor(digest=config)):
                await put(destination, source, Descriptor(digest=config))
            await destination.commit(manifest_of(ARM64))
        assert version_of(path) == "Directory Transport Version: 1.2\n"
        (path / "version").write_text("Directory Transport Version: 1.1\n")


async def test_DI06_a_directory_of_something_else_is_refused(path: Path, session: Session) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("important")
    with pytest.raises(LayoutError, match="not an image directory") as caught:
        await DirectoryReference(str(path)).create(session)
    assert caught.value.reference == f"dir:{path}"
    assert tree(path) == {"thesis.tex": b"important"}


@pytest.mark.parametrize("content", [b"garbage", b"Directory Transport Version: 1.3\n"])
async def test_DI06_a_directory_of_an_unknown_version_is_refused(
    path: Path, session: Session, content: bytes
) -> None:
    path.mkdir()
    (path / "version").write_bytes(content)
    with pytest.raises(LayoutError, match="version"):
        await DirectoryReference(str(path)).create(session)
    assert tree(path) == {"version": content}


async def test_DI06_an_image_directory_is_never_wiped(path: Path, session: Session) -> None:
    write_directory(path, CONTENTS)
    (path / "mine").write_text("kept")
    before = tree(path)
    other = build_image("linux/riscv64")
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.commit(manifest_of(other))
    assert tree(path) == {**before, "manifest.json": other.raw}


async def test_DI06_an_interrupted_first_copy_is_known_again(path: Path, session: Session) -> None:
    async with (
        hold_in_memory("source", INDEX).open(session) as source,
        DirectoryReference(str(path)).create(session) as destination,
    ):
        await put(destination, source, Descriptor(digest=SMALL_DIGEST))
    assert sorted(tree(path)) == sorted([SMALL_DIGEST.encoded, "version"])
    async with DirectoryReference(str(path)).create(session) as destination:
        assert await destination.has_blob(Descriptor(digest=SMALL_DIGEST, size=len(SMALL)))


async def test_an_old_image_is_read_until_the_commit(path: Path, session: Session) -> None:
    reference = DirectoryReference(str(path))
    async with reference.create(session) as destination:
        await destination.commit(manifest_of(ARM64))
    async with reference.create(session) as destination:
        await destination.put_manifest(manifest_of(AMD64))
        await destination.put_signatures([ONE], None)
        async with reference.open(session) as source:
            assert (await source.get_manifest()).raw == ARM64.raw
            assert await source.get_signatures() == ()
        await destination.commit(manifest_of(INDEX))
    async with reference.open(session) as source:
        assert (await source.get_manifest()).raw == INDEX.raw
        assert await source.get_signatures() == (ONE,)


async def test_SR12_signatures_round_trip(path: Path, session: Session) -> None:
    reference = DirectoryReference(str(path))
    async with reference.create(session) as destination:
        assert not isinstance(destination, Listing)
        assert await destination.put_signatures([ONE, TWO, THREE], None) is True
        assert await destination.put_signatures([TWO], ARM64.digest) is True
        assert await destination.put_signatures([THREE], LONG.digest) is True
        await destination.commit(manifest_of(INDEX))
    assert (path / "signature-1").read_bytes() == ONE.data
    assert (path / f"{ARM64.digest.encoded}.signature-1").exists()
    assert (path / f"{plain(LONG.digest)}.signature-1").exists()
    async with reference.open(session) as source:
        assert await source.get_signatures() == (ONE, TWO, THREE)
        assert await source.get_signatures(ARM64.digest) == (TWO,)
        assert await source.get_signatures(LONG.digest) == (THREE,)
        assert await source.get_signatures(AMD64.digest) == ()


async def test_fewer_signatures_replace_more(path: Path, session: Session) -> None:
    reference = DirectoryReference(str(path))
    for signatures in ([ONE, TWO, THREE], [TWO]):
        async with reference.create(session) as destination:
            await destination.put_signatures(signatures, None)
            await destination.put_signatures(signatures, ARM64.digest)
            await destination.commit(manifest_of(INDEX))
    async with reference.open(session) as source:
        assert await source.get_signatures() == (TWO,)
        assert await source.get_signatures(ARM64.digest) == (TWO,)
    assert len(list(path.glob("*signature-*"))) == 2


async def test_signatures_of_another_image_do_not_stay(path: Path, session: Session) -> None:
    reference = DirectoryReference(str(path))
    async with reference.create(session) as destination:
        await destination.put_signatures([ONE], None)
        await destination.commit(manifest_of(ARM64))
    async with reference.create(session) as destination:
        await destination.commit(manifest_of(ARM64))
    assert (path / "signature-1").exists()  # The same image again: they are its own.
    async with reference.create(session) as destination:
        await destination.commit(manifest_of(AMD64))
    assert not (path / "signature-1").exists()


async def test_no_more_signatures_than_can_be_read(path: Path, session: Session) -> None:
    reference = DirectoryReference(str(path))
    async with reference.create(session) as destination:
        for instance in (None, ARM64.digest):
            with pytest.raises(LimitExceededError):
                await destination.put_signatures([ONE] * (MAX_SIGNATURES + 1), instance)
            await destination.put_signatures([ONE] * MAX_SIGNATURES, instance)
        await destination.commit(manifest_of(INDEX))
    async with reference.open(session) as source:
        assert len(await source.get_signatures()) == MAX_SIGNATURES


async def test_signatures_that_cannot_be_written(path: Path, session: Session) -> None:
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.put_signatures([ONE], ARM64.digest)
        with failing("pwrite", errno.ENOSPC), pytest.raises(SourceError):
            await destination.commit(manifest_of(INDEX))
        assert not list(path.glob("*signature*"))


async def test_it_may_be_told_not_to_wait_for_the_disk(path: Path, session: Session) -> None:
    reference = DirectoryReference(str(path), durable=False)
    with failing("fsync", errno.EIO):
        async with reference.create(session) as destination:
            await destination.commit(manifest_of(ARM64))
    async with reference.open(session) as source:
        assert (await source.get_manifest()).raw == ARM64.raw


async def test_what_the_manifest_names_is_on_the_disk_before_it(
    tmp_path: Path, path: Path, session: Session
) -> None:
    async with DirectoryReference(str(path)).create(session) as destination:
        with watching_the_disk(tmp_path) as steps:
            await destination.put_manifest(manifest_of(ARM64))
            await destination.commit(manifest_of(INDEX))
    instance = f"name out/{ARM64.digest.encoded}.manifest.json"
    assert steps[:4] == ["sync part", "name out/version", "sync part", instance]
    named = steps.index("name out/manifest.json")
    assert {"sync out", "sync ."} <= set(steps[4:named])
    assert steps[named - 1] == "sync part"
    assert steps[named + 1 :] == ["sync out"]


# Whatever becomes of a commit, the image is the old one with its signatures or the new one

KILLED = """
import asyncio, os, sys
from asupplemented.model.signature import Signature
from asupplemented.session import Session
from asupplemented.transports.directory import DirectoryReference
from tests.transports.contract import AMD64, INDEX
from tests.worlds import manifest_of

left = int(sys.argv[2])
def counted(real):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return real(*args, **options)
    return call
async def main():
    async with Session() as session:
        async with DirectoryReference(sys.argv[1]).create(session) as destination:
            await destination.put_manifest(manifest_of(AMD64))
            await destination.put_signatures([], None)
            await destination.put_signatures([Signature("sigstore-json", b"{}")] * 2, AMD64.digest)
            for name in ("rename", "unlink"):
                setattr(os, name, counted(getattr(os, name)))
            await destination.commit(manifest_of(INDEX))
asyncio.run(main())
"""
OLD = (ARM64.raw, (ONE, TWO), (THREE,))
NEW = (INDEX.raw, (), (Signature("sigstore-json", b"{}"),) * 2)


async def write_old(path: Path, session: Session) -> None:
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.put_manifest(manifest_of(AMD64))
        await destination.put_signatures([ONE, TWO], None)
        await destination.put_signatures([THREE], AMD64.digest)
        await destination.commit(manifest_of(ARM64))


async def write_new(path: Path, session: Session) -> None:
    async with DirectoryReference(str(path)).create(session) as destination:
        await destination.put_manifest(manifest_of(AMD64))
        await destination.put_signatures(NEW[1], None)
        await destination.put_signatures(NEW[2], AMD64.digest)
        await destination.commit(manifest_of(INDEX))


async def image_in(path: Path, session: Session) -> tuple[bytes, object, object]:
    async with DirectoryReference(str(path)).open(session) as source:
        raw = (await source.get_manifest()).raw
        return raw, await source.get_signatures(), await source.get_signatures(AMD64.digest)


async def test_DI06_a_commit_that_is_killed_at_any_step_leaves_one_image_whole(
    tmp_path: Path, session: Session
) -> None:
    seen: list[object] = []
    for step in range(40):
        path = tmp_path / str(step)
        await write_old(path, session)
        command = [sys.executable, "-c", KILLED, str(path), str(step)]
        killed = await asyncio.to_thread(subprocess.run, command, check=False)
        found = await image_in(path, session)
        assert found in (OLD, NEW)
        seen.append(found)
        await write_new(path, session)  # Nothing has to be removed by hand.
        assert await image_in(path, session) == NEW
        assert not list(path.glob(".asupplemented*"))
        if killed.returncode == 0:
            break
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert len(seen) > 5


@pytest.mark.parametrize("function", ["rename", "unlink", "pwrite", "fsync"])
async def test_DI06_a_commit_that_fails_at_any_step_leaves_the_old_image_whole(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    real = getattr(os, function)
    failures = 0
    for step in range(40):
        path = tmp_path / f"{function}{step}"
        await write_old(path, session)
        left = step

        def call(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.ENOSPC, "full")
            return real(*args, **options)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, function, call)
                await write_new(path, session)
        except SourceError:
            failures += 1
            assert await image_in(path, session) in (OLD, NEW)
            await write_new(path, session)
        assert await image_in(path, session) == NEW
        if left >= 0:
            break
    assert failures or function == "unlink"


async def test_DI06_copies_to_one_directory_at_once_all_succeed(
    tmp_path: Path, session: Session
) -> None:
    for turn in range(20):
        path = tmp_path / str(turn)
        await asyncio.gather(*(write_new(path, session) for _ in range(3)))
        assert await image_in(path, session) == NEW


async def test_DI06_a_copy_that_gives_up_does_not_disturb_another_one(
    tmp_path: Path, session: Session
) -> None:
    for turn in range(50):
        path = tmp_path / str(turn)

        async def give_up(path: Path) -> None:
            async with DirectoryReference(str(path)).create(session):
                pass

        await asyncio.gather(give_up(path), write_new(path, session), give_up(path))
        assert await image_in(path, session) == NEW

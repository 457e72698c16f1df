"""Trouble with the disk: the cache is passed by, with a warning, and no pull ever fails."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.aio.locks import lock_file
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.cache.spool import make_spool
from asupplemented.errors import SourceError
from asupplemented.events import Warned
from asupplemented.session import Session
from asupplemented.testing import build_image
from tests.cache.driving import (
    Events,
    chunks_of,
    get,
    held,
    listed,
    put,
    put_image,
    read_all,
    weigh,
)
from tests.candidates import describe
from tests.suspending import count_open_files
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asupplemented.model.digest import Digest
    from tests.clocks import FakeClock

DICE = random.Random(17)
IMAGE = build_image(layers=[DICE.randbytes(30_000), DICE.randbytes(700_000)])
LIMIT = 100_000_000


async def pull(cache: LayoutCache, session: Session, digest: Digest, data: bytes) -> bytes:
    """What a client gets, by way of the cache, from an upstream that has the blob."""
    found = await get(cache, session, digest)
    if found is not None:
        return found
    blob = describe(data)
    spool = await cache.claim(session, blob) or make_spool(session, blob.size)
    async with spool:
        for chunk in chunks_of(data):
            await spool.append(chunk)
        whole = await read_all(spool)
        await spool.commit()
        assert await read_all(spool) == whole
    return whole


async def pull_image(cache: LayoutCache, session: Session) -> None:
    found = await cache.find_manifest(session, IMAGE.digest)
    assert found in (None, manifest_of(IMAGE))
    await cache.keep_manifest(session, manifest_of(IMAGE), top=True)
    for digest, data in IMAGE.blobs.items():
        assert await pull(cache, session, digest, data) == data


@contextmanager
def mounted(size: int) -> Iterator[Path]:
    """A small disk of its own."""
    place = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)
    finally:
        place.rmdir()


def make_read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, timeout=30)


# A disk that is full; where nothing can be mounted, the tests further down do without


async def test_a_full_disk_fails_no_pull(session: Session, events: Events) -> None:
    with mounted(400_000) as place:
        cache = LayoutCache(place / "cache", LIMIT)
        await pull_image(cache, session)
        small = IMAGE.layers[0]
        assert held(cache.path) == {IMAGE.digest, IMAGE.config, small}
        assert listed(cache.path) == []
        assert await get(cache, session, small) == IMAGE.blobs[small]
        [event] = events.seen
        assert isinstance(event, Warned)
        assert event.reference == f"oci:{cache.path}"
        assert "cannot be written, and is passed by" in event.message
        assert "No space left on device" in event.message
        await pull_image(cache, session)


async def test_a_disk_that_has_room_again_is_used_again(session: Session, clock: FakeClock) -> None:
    with mounted(1_200_000) as place:
        (place / "filler").write_bytes(bytes(1_000_000))
        cache = LayoutCache(place / "cache", LIMIT)
        await pull_image(cache, session)
        assert listed(cache.path) == []
        (place / "filler").unlink()
        await pull_image(cache, session)
        assert listed(cache.path) == [IMAGE.digest]


async def test_a_disk_that_is_full_from_the_start_fails_no_pull(session: Session) -> None:
    with mounted(16_384) as place:
        with pytest.raises(OSError, match="No space left"):
            (place / "filler").write_bytes(bytes(1_000_000))
        await pull_image(LayoutCache(place / "cache", LIMIT), session)


# A disk that cannot be written


async def test_a_read_only_disk_serves_what_it_has(session: Session, events: Events) -> None:
    with mounted(4_000_000) as place:
        cache = LayoutCache(place / "cache", LIMIT)
        await put_image(cache, session, IMAGE)
        make_read_only(place)
        for one in (cache, LayoutCache(place / "cache", LIMIT)):
            for digest, data in IMAGE.blobs.items():
                assert await get(one, session, digest) == data
            found = await one.find_manifest(session, IMAGE.digest)
            assert found == manifest_of(IMAGE)
            assert await one.claim(session, describe(b"new")) is None
            assert await pull(one, session, describe(b"new").digest, b"new") == b"new"  # type: ignore[arg-type]
        assert len(events.messages) == 2
        assert all("read-only" in message.lower() for message in events.messages)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_without_permission_fails_no_pull(
    session: Session, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    await pull_image(LayoutCache(tmp_path / "cache", LIMIT), session)


async def test_something_in_the_way_fails_no_pull(
    session: Session, events: Events, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    await pull_image(LayoutCache(tmp_path / "cache", LIMIT), session)
    assert len(events.messages) == 1  # Reading finds nothing, writing cannot.


async def test_a_directory_that_vanished_is_made_again(
    session: Session, events: Events, tmp_path: Path
) -> None:
    cache = LayoutCache(tmp_path / "cache", LIMIT)
    await pull_image(cache, session)
    shutil.rmtree(cache.path)
    await pull_image(cache, session)
    assert len(events.messages) == 1
    await pull_image(cache, session)
    assert listed(cache.path) == [IMAGE.digest]


async def test_a_directory_that_vanishes_in_mid_blob_fails_no_pull(
    session: Session, tmp_path: Path
) -> None:
    before = count_open_files()
    cache = LayoutCache(tmp_path / "cache", LIMIT)
    data = IMAGE.blobs[IMAGE.layers[1]]
    spool = await cache.claim(session, describe(data))
    assert spool is not None
    async with spool:
        for chunk in chunks_of(data):
            await spool.append(chunk)
            shutil.rmtree(cache.path, ignore_errors=True)
        assert await read_all(spool) == data
        await spool.commit()
    assert count_open_files() == before


# Locks


async def test_a_lock_that_is_never_given_back_fails_no_pull(
    session: Session, events: Events, tmp_path: Path
) -> None:
    cache = LayoutCache(tmp_path / "cache", LIMIT)
    await put(cache, session, b"first")
    with (cache.path / ".asupplemented" / "ledger").open("rb") as ledger:
        assert lock_file(ledger.fileno())
        await pull_image(cache, session)
        [message] = events.messages
        assert "has been locked by another process for 10 s" in message
        assert await get(cache, session, describe(b"first").digest) == b"first"  # type: ignore[arg-type]


async def test_a_file_system_without_locks_fails_no_pull(
    session: Session, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    cache = LayoutCache(tmp_path / "cache", LIMIT)
    await put(cache, session, b"first")

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert await get(cache, session, describe(b"first").digest) == b"first"  # type: ignore[arg-type]
    await pull_image(cache, session)
    assert len(events.messages) == 1


# Warnings


async def test_one_kind_of_trouble_is_told_once_a_minute(
    session: Session, events: Events, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = LayoutCache(tmp_path / "cache", LIMIT)
    for _ in range(3):
        assert await cache.claim(session, describe(b"x")) is None
    assert len(events.messages) == 1
    clock.time += 60
    for _ in range(3):
        assert await cache.claim(session, describe(b"x")) is None
    assert len(events.messages) == 2


async def test_pins_that_cannot_be_written_are_an_error(session: Session, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SourceError):
        await LayoutCache(tmp_path / "cache", LIMIT).pin_digests(session, IMAGE.digest)


# Every call that may fail, each in its turn


CALLS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "pwrite", "fsync", "rename", "unlink")),
    *((os, name) for name in ("mkdir", "utime", "rmdir", "scandir", "ftruncate")),
)


class Fault:
    """Has the n-th call of any of `CALLS` that concerns a directory fail; none, if n is 0."""

    def __init__(self, number: int, code: int) -> None:
        self.left = number
        self.code = code
        self.calls = 0

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **keywords)

        return call


async def run_with_fault(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> int:
    """Use a cache that is nearly full while one call fails; gives how many calls there were."""
    limit = 760_000
    async with Session() as session:
        cache = LayoutCache(path, limit)
        await put(cache, session, b"old" * 10_000)
        fault = Fault(number, code)
        with monkeypatch.context() as patch:
            for module, name in CALLS:
                patch.setattr(module, name, fault.wrap(getattr(module, name)))
            await pull_image(cache, session)
        assert weigh(path) <= limit
        for digest in held(path):
            known = {**IMAGE.blobs, IMAGE.digest: IMAGE.raw}
            assert (await get(cache, session, digest, shared=True)) in (
                known.get(digest),
                b"old" * 10_000,
            )
        for digest in listed(path):
            assert held(path) >= {digest, *IMAGE.blobs}
        await pull_image(LayoutCache(path, limit), session)
        assert listed(path) == [IMAGE.digest]
        assert held(path) == {IMAGE.digest, *IMAGE.blobs}
        assert int((path / ".asupplemented" / "ledger").read_text()) == weigh(path) <= limit
    return fault.calls


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
async def test_any_call_may_fail_and_no_pull_fails_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls = await run_with_fault(tmp_path / "all", monkeypatch, 0, code)
    assert calls > 50
    for number in range(1, calls + 1):
        before = count_open_files()
        await run_with_fault(tmp_path / str(number), monkeypatch, number, code)
        assert count_open_files() == before, f"at call {number}"

"""The cache in two tiers: what several hosts need is fetched once, and nothing stops a pull."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.aio.retry import CLOCK
from asupplemented.cache.remote import uploads as object_upload
from asupplemented.cache.remote.leases import LocalLease
from asupplemented.cache.remote.object_store import (
    ANONYMOUS,
    ObjectStore,
    _manifest_grant,
    namespace_of,
)
from asupplemented.cache.remote.remote import RemoteTier, ScopedDigest
from asupplemented.cache.remote.tiered import TieredCache
from asupplemented.cache.remote.uploads import BUDGET, PART
from asupplemented.cache.sharing import open_stream
from asupplemented.cache.spool import SPOOL_MEMORY, SpoolMemory
from asupplemented.errors import ConfigurationError, DigestMismatchError, SourceError
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.session import Session
from asupplemented.testing import build_index
from tests.cache.fleet import Buffer, Shelf, open_host
from tests.cache.stores import FlakyStore, failure
from tests.candidates import DATA, LARGE, WRONG, Ledger, Wire, describe, drain
from tests.clocks import FakeClock
from tests.suspending import cancel_at_every_await, count_open_files, run_leaping, wait_until
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from asupplemented.abc import Context, Lease

BLOB = describe(DATA)
KEY = f"blobs/sha256/{Digest(BLOB.digest).encoded}"
GRANT = f"grants/{ANONYMOUS}/sha256/{Digest(BLOB.digest).encoded}"
MANIFEST = manifest_of(build_index([]))


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def upstream(ledger: Ledger) -> Wire:
    return Wire(DATA, ledger, name="upstream")


class Leases(LocalLease):
    """Leases in memory that remember what was asked."""

    def __init__(self, ttl: float = 30) -> None:
        super().__init__(ttl=ttl)
        self.keys: list[str] = []

    async def acquire(self, context: Context, key: str) -> Lease | None:
        self.keys.append(key)
        await asyncio.sleep(0)
        return await super().acquire(context, key)

    @property
    def held(self) -> set[str]:
        return set(self._holders)


async def test_what_one_host_fetched_the_next_one_finds(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    async with open_host(store) as host:
        assert await host.pull(BLOB, upstream) == DATA
    assert {KEY, GRANT} <= set(store.names())
    async with open_host(store) as other:
        assert await other.pull(BLOB, upstream) == DATA
        assert await other.pull(BLOB, upstream) == DATA
        assert other.warnings == []
    assert ledger.names == ["upstream"]
    assert store.asked.count(("put", KEY)) == 1, "what came from there was uploaded again"
    assert store.asked.count(("get", KEY)) == 1, "what this host had was fetched again"


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
async def test_many_hosts_at_once_fetch_a_blob_once(
    data: bytes, store: FlakyStore, ledger: Ledger
) -> None:
    lease, blob = Leases(ttl=10**9), describe(data)  # each host has a clock of its own

    async def run() -> bytes:
        async with open_host(store, lease=lease, patience=10**9) as host:
            return await host.pull(blob, Wire(data, ledger, name="upstream"))

    assert await asyncio.gather(*(run() for _ in range(5))) == [data] * 5
    assert ledger.names == ["upstream"]
    assert lease.held == set()


async def test_sessions_with_such_a_cache_fetch_once_what_many_of_them_read(
    store: FlakyStore, ledger: Ledger
) -> None:
    lease = Leases(ttl=10**9)

    async def run() -> None:
        async with (
            TieredCache(Shelf(), ObjectStore(store), lease=lease, patience=10**9) as cache,
            Session(cache=cache) as session,
        ):
            clock = FakeClock()
            session.resource(CLOCK, lambda: clock.clock)
            streams = [
                open_stream(describe(LARGE), [Wire(LARGE, ledger)], session) for _ in range(3)
            ]
            assert await asyncio.gather(*map(drain, streams)) == [LARGE] * 3

    await asyncio.gather(*(run() for _ in range(3)))
    assert ledger.names == ["wire"]
    assert (ledger.left_open, lease.held) == (0, set())


async def test_files_come_from_the_cache_of_the_host_and_are_told_to(store: FlakyStore) -> None:
    async with open_host(store, local=Shelf()) as host:
        assert str(host.cache) == str(host.local)
        assert (
            repr(host.cache) == f"<TieredCache of {host.local!r} and <ObjectStore object storage>>"
        )


async def test_without_a_lease_each_host_fetches_what_it_does_not_find(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    async with open_host(store) as one, open_host(store) as other:
        await asyncio.gather(one.pull(BLOB, upstream), other.pull(BLOB, upstream))
    assert len(ledger.names) == 2


async def test_a_lease_is_held_until_the_upload_is_done(store: FlakyStore, ledger: Ledger) -> None:
    lease, store.gate = Leases(), asyncio.Event()
    data = LARGE * 2
    async with open_host(store, lease=lease) as host:
        await host.pull(describe(data), Wire(data, ledger))
        await wait_until(lambda: bool(store.parts))
        assert lease.held == {f"{ANONYMOUS}/{Digest.of(data)}"}
        store.gate.set()
    assert lease.held == set()


async def test_a_lease_that_was_lost_stops_nothing(store: FlakyStore, upstream: Wire) -> None:
    lease = Leases(ttl=30)
    async with open_host(store, lease=lease) as host:
        spool = await host.cache.claim(host.session, BLOB)
        assert spool is not None
        host.clock.time += 31
        taken = await lease.acquire(host.session, f"{ANONYMOUS}/{BLOB.digest}")
        assert taken is not None
        async with spool:
            await spool.append(DATA)
            await spool.commit()
    assert store.read(KEY) == DATA
    assert len(lease.held) == 1, "it is another one's by now"


@pytest.mark.parametrize("failing", [True, False])
async def test_a_fetch_that_ends_early_gives_the_lease_back_at_once(
    failing: bool,  # noqa: FBT001
    store: FlakyStore,
    ledger: Ledger,
) -> None:
    lease = Leases()
    wire = Wire(DATA, ledger, refuses=SourceError("no") if failing else None, pause=60)
    async with open_host(store, lease=lease) as host:
        pulling = asyncio.create_task(host.pull(BLOB, wire))
        await wait_until(lambda: bool(ledger.asked))
        if not failing:
            assert lease.held
            pulling.cancel()
        [outcome] = await asyncio.gather(pulling, return_exceptions=True)
        assert isinstance(outcome, SourceError if failing else asyncio.CancelledError)
        assert lease.held == set()
    assert store.count("put") == 0


async def test_who_waits_goes_on_when_the_leader_gives_up(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    lease = Leases()
    async with open_host(store, lease=lease) as one:
        held = await lease.acquire(one.session, f"{ANONYMOUS}/{BLOB.digest}")
        assert held is not None
        async with open_host(store, lease=lease, patience=10**6) as other:
            pulling = asyncio.create_task(other.pull(BLOB, upstream))
            await wait_until(lambda: len(other.clock.slept) > 3)
            await held.aclose()
            assert await pulling == DATA
    assert ledger.names == ["upstream"]


async def test_who_waits_goes_on_when_the_leader_is_dead(store: FlakyStore, upstream: Wire) -> None:
    lease, clock = Leases(ttl=30), FakeClock()
    async with open_host(store, lease=lease, patience=10**6, clock=clock) as host:
        assert await lease.acquire(host.session, f"{ANONYMOUS}/{BLOB.digest}") is not None
        assert await host.pull(BLOB, upstream) == DATA
        assert 30 <= clock.time < 32


@pytest.mark.parametrize("patience", [0, 35])
async def test_patience_ends_and_then_both_fetch(
    patience: float, store: FlakyStore, upstream: Wire
) -> None:
    lease, clock = Leases(), FakeClock()
    async with open_host(store, lease=lease, patience=patience, clock=clock) as host:
        held = await lease.acquire(host.session, f"{ANONYMOUS}/{BLOB.digest}")
        assert held is not None
        lease._holders[next(iter(lease.held))] = held, 10**9  # renewed again and again
        assert await host.pull(BLOB, upstream) == DATA
        assert clock.time == pytest.approx(patience)
        assert len(clock.slept) < 50
        assert max(clock.slept, default=0) <= 1
    assert store.read(KEY) == DATA, "it is uploaded all the same"


async def test_what_appears_while_the_lease_is_taken_is_not_fetched_again(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    class Late(Leases):
        async def acquire(self, context: Context, key: str) -> Lease | None:
            store.inner.put(KEY, DATA)
            store.inner.put(GRANT, b"")
            return await super().acquire(context, key)

    lease = Late()
    async with open_host(store, lease=lease) as host:
        assert await host.pull(BLOB, upstream) == DATA
        assert lease.held == set()
    assert ledger.names == []


# Principals


async def test_SEC_13_what_one_principal_brought_is_fetched_again_for_another(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    lease = Leases()
    async with open_host(store, lease=lease) as host:
        await host.pull(BLOB, upstream, principal="clara")
    async with open_host(store, lease=lease) as host:
        assert await host.pull(BLOB, upstream, principal="bruno") == DATA
        assert await host.pull(BLOB, upstream) == DATA
    assert ledger.names == ["upstream"] * 3
    assert store.asked.count(("put", KEY)) == 1
    async with open_host(store, lease=lease) as host:
        await host.pull(BLOB, upstream, principal="bruno")
    assert ledger.names == ["upstream"] * 3
    assert set(lease.keys) == {
        f"{namespace_of(name)}/{BLOB.digest}" for name in ("clara", "bruno", None)
    }


async def test_SEC_13_one_principal_does_not_wait_for_another(
    store: FlakyStore, upstream: Wire
) -> None:
    lease = Leases()
    async with open_host(store, lease=lease) as host:
        clara = await host.cache.claim(host.scoped("clara"), BLOB)
        assert clara is not None
        async with clara:
            await host.pull(BLOB, upstream, principal="bruno")
        assert host.clock.slept == []


async def test_SEC_13_a_manifest_belongs_to_its_principal(store: FlakyStore) -> None:
    async with open_host(store) as host:
        clara = host.scoped("clara")
        await host.cache.keep_manifest(clara, MANIFEST, top=True)
    async with open_host(store) as host:
        clara, bruno = host.scoped("clara"), host.scoped("bruno")
        cache = host.cache
        digest = MANIFEST.digest
        assert await cache.find_manifest(bruno, digest) is None
        assert await cache.find_manifest(clara, digest) == MANIFEST
        asked = len(store.asked)
        assert await cache.find_manifest(clara, digest) is not None
        assert len(store.asked) == asked, "this host has it by now"


# Where the local cache cannot help


async def test_where_this_host_keeps_nothing_others_still_find_it(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    spare: list[Buffer] = []

    def make(context: Context, size: int | None) -> Buffer:
        assert size == len(DATA)
        spare.append(Buffer())
        return spare[-1]

    for _ in range(2):
        async with open_host(store, local=Shelf(refuses=True), spools=make) as host:
            assert await host.pull(BLOB, upstream) == DATA
    assert ledger.names == ["upstream"]
    assert [spool.closed for spool in spare] == [True, True]


async def test_a_spare_spool_may_lie_in_a_file(store: FlakyStore, ledger: Ledger) -> None:
    data, before = LARGE * 2, count_open_files()
    async with open_host(store, local=Shelf(refuses=True)) as host:
        host.session.resource(SPOOL_MEMORY, lambda: SpoolMemory(0))
        assert await host.pull(describe(data), Wire(data, ledger)) == data
    assert store.read(f"blobs/sha256/{Digest.of(data).encoded}") == data
    assert count_open_files() == before


async def test_what_was_not_kept_cannot_be_uploaded_once_the_session_is_closed(
    store: FlakyStore, ledger: Ledger
) -> None:
    lease, data, before = Leases(), LARGE * 2, count_open_files()
    store.gate = asyncio.Event()
    async with open_host(store, lease=lease, local=Shelf(refuses=True)) as host:
        host.session.resource(SPOOL_MEMORY, lambda: SpoolMemory(0))  # so it lies in a file
        await host.pull(describe(data), Wire(data, ledger))
        await wait_until(lambda: bool(store.parts))
        await host.session.aclose()
        store.gate.set()
        await host.cache.aclose()
        [warning] = host.warnings
        assert "session is closed" in warning
    assert (store.parts, lease.held) == ({}, set())
    assert count_open_files() == before


async def test_an_upload_that_is_quick_does_not_close_the_spool(store: FlakyStore) -> None:
    async with open_host(store, local=Shelf(forgets=True)) as host:
        spool = await host.cache.claim(host.session, BLOB)
        assert spool is not None
        await spool.append(DATA)
        await spool.commit()
        await host.cache.aclose()
        assert store.read(KEY) == DATA
        assert await spool.read(0, len(DATA)) == DATA
        await spool.aclose()
        await spool.aclose()


async def test_the_spool_lives_until_what_was_not_kept_is_uploaded(
    store: FlakyStore, ledger: Ledger
) -> None:
    data = LARGE * 2
    store.gate = asyncio.Event()
    async with open_host(store, local=Shelf(forgets=True)) as host:
        await host.pull(describe(data), Wire(data, ledger))
        await wait_until(lambda: bool(store.parts))
        [spool] = host.local.spools
        assert not spool.closed
        store.gate.set()
    assert spool.closed
    assert store.read(f"blobs/sha256/{Digest.of(data).encoded}") == data


async def test_who_is_nearer_is_followed_and_nobody_else_is_asked(
    store: FlakyStore, ledger: Ledger
) -> None:
    lease, nearer = Leases(), Wire(DATA, ledger, name="nearer")
    async with open_host(store, lease=lease, local=Shelf(nearer=[nearer])) as host:
        assert await host.pull(BLOB) == DATA
    assert (store.asked, lease.keys) == ([], [])


# Faults


@pytest.mark.parametrize("method", ["head", "get", "put"])
async def test_storage_that_fails_stops_no_pull_and_is_told_once(
    method: str, store: FlakyStore, upstream: Wire
) -> None:
    lease = Leases()
    async with open_host(store) as host:
        await host.pull(BLOB, upstream)
    store.faults[method] = failure()
    blobs = [describe(DATA + bytes([number])) for number in range(5)]
    async with open_host(store, lease=lease) as host:
        assert await host.pull(BLOB, upstream) == DATA
        for number, blob in enumerate(blobs):
            wire = Wire(DATA + bytes([number]), Ledger())
            assert await host.pull(blob, wire) == wire.data
        await host.cache.aclose()
        expected = [] if method == "get" else ["object storage answered with status 503"]
        assert [warning.partition(";")[0] for warning in host.warnings] == expected
    assert lease.held == set()


async def test_reading_and_writing_that_fail_at_once_are_told_once(
    store: FlakyStore, upstream: Wire
) -> None:
    store.faults["head"] = failure()
    async with open_host(store) as host:
        await host.cache.keep_manifest(host.session, MANIFEST, top=True)
        assert await host.pull(BLOB, upstream) == DATA
        await host.cache.aclose()
        assert store.count("head") == 2
        assert len(host.warnings) == 1


async def test_storage_that_failed_is_asked_again_after_a_while(
    store: FlakyStore, upstream: Wire
) -> None:
    async with open_host(store, pause=10) as host:
        store.faults["head"] = failure()
        await host.pull(BLOB, upstream)
        asked = len(store.asked)
        store.faults.clear()
        host.clock.time = 9.9
        await host.pull(describe(LARGE), Wire(LARGE, Ledger()))
        assert len(store.asked) == asked
        host.clock.time = 10
        spool = await host.cache.claim(host.session, BLOB)
        assert spool is not None
        await spool.aclose()
        assert len(store.asked) > asked


async def test_uploads_that_keep_failing_are_one_trouble_although_reads_succeed(
    store: FlakyStore,
) -> None:
    store.faults["put"] = failure()
    async with open_host(store, pause=10) as host:
        for number in range(3):
            data, asked = DATA + bytes([number]), store.count("put")
            assert await host.pull(describe(data), Wire(data, Ledger())) == data
            await wait_until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            assert store.count("put") == asked + 1, "it is asked again after the pause"
            host.clock.time += 10
        assert len(host.warnings) == 1
        assert "is not asked for 10 s" in host.warnings[0]


async def test_a_blob_that_was_swept_is_fetched_and_uploaded_again(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    store.inner.put(GRANT, b"")
    async with open_host(store) as host:
        assert await host.pull(BLOB, upstream) == DATA
    assert ledger.names == ["upstream"]
    assert store.read(KEY) == DATA


@pytest.mark.parametrize("there", [DATA[:-1], DATA + b"?"], ids=["short", "long"])
async def test_a_blob_of_another_size_is_replaced(
    there: bytes, store: FlakyStore, upstream: Wire
) -> None:
    store.inner.put(KEY, there)
    store.inner.put(GRANT, b"")
    async with open_host(store) as host:
        assert await host.pull(BLOB, upstream) == DATA
    assert store.read(KEY) == DATA


async def test_wrong_bytes_of_a_small_blob_are_passed_by(
    store: FlakyStore, upstream: Wire, ledger: Ledger
) -> None:
    store.inner.put(KEY, WRONG)
    store.inner.put(GRANT, b"")
    async with open_host(store) as host:
        assert await host.pull(BLOB, upstream) == DATA
    assert ledger.names == ["upstream"]


async def test_wrong_bytes_of_a_large_blob_are_used_once_and_replaced(
    store: FlakyStore, ledger: Ledger
) -> None:
    blob, digest = describe(LARGE), Digest.of(LARGE)
    key = f"blobs/sha256/{digest.encoded}"
    store.inner.put(key, bytes(len(LARGE)))
    store.inner.put(f"grants/{ANONYMOUS}/sha256/{digest.encoded}", b"")
    async with open_host(store, lease=Leases()) as host:
        with pytest.raises(DigestMismatchError):
            await host.pull(blob, Wire(LARGE, ledger))
        assert ledger.asked == []
        assert await host.pull(blob, Wire(LARGE, ledger)) == LARGE
    assert store.read(key) == LARGE
    async with open_host(store) as other:
        assert await other.pull(blob) == LARGE


async def test_a_manifest_with_wrong_bytes_is_passed_by_and_replaced(store: FlakyStore) -> None:
    digest = MANIFEST.digest
    key = f"blobs/sha256/{digest.encoded}"
    store.inner.put(key, b"{}")
    store.inner.put(_manifest_grant(ANONYMOUS, digest, None), MANIFEST.media_type.encode())
    async with open_host(store) as host:
        assert await host.cache.find_manifest(host.session, digest) is None
        assert len(host.warnings) == 1
        assert await host.cache.find_manifest(host.session, digest) is None
        assert len(host.warnings) == 1
        await host.cache.keep_manifest(host.session, MANIFEST, top=False)
    assert store.read(key) == MANIFEST.raw


@pytest.mark.parametrize("padding", [0, OFFLOAD_BYTES])
async def test_a_manifest_of_any_size_comes_back(padding: int, store: FlakyStore) -> None:
    manifest = Manifest.verified(MANIFEST.raw + b" " * padding, None, None)
    async with open_host(store) as host:
        await host.cache.keep_manifest(host.session, manifest, top=False)
    async with open_host(store) as other:
        found = await other.cache.find_manifest(other.session, manifest.digest)
    assert found == manifest


async def test_too_many_uploads_are_dropped_with_a_warning(
    store: FlakyStore, upstream: Wire
) -> None:
    lease = Leases()
    async with open_host(store, lease=lease) as host:
        uploads = host.cache._tier._uploads
        uploads._weight = BUDGET
        await host.cache.keep_manifest(host.session, MANIFEST, top=False)
        host.clock.time = 100
        assert await host.pull(BLOB, upstream) == DATA
        assert [warning.partition(";")[0] for warning in host.warnings] == [
            "more is to be uploaded than it takes"
        ]
        uploads._weight = 0
    assert (store.count("put"), lease.held) == (0, set())


async def test_uploads_that_take_too_long_end_with_the_cache(
    store: FlakyStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_upload, "ABORT_PATIENCE", 0.01)
    lease, data = Leases(), LARGE * 2
    store.gate = asyncio.Event()
    async with open_host(store, lease=lease, upload_patience=0) as host:
        await host.pull(describe(data), Wire(data, ledger))
        await wait_until(lambda: bool(store.parts))
        await host.cache.aclose()
        assert host.warnings == [f"{Digest.of(data)} was not uploaded before the cache was closed"]
    assert store.parts == {}
    assert lease.held == set()
    assert f"blobs/sha256/{Digest.of(data).encoded}" not in store.names()


async def test_a_closed_cache_uploads_nothing_more_and_that_is_no_fault(
    store: FlakyStore, upstream: Wire
) -> None:
    lease = Leases()
    async with open_host(store, lease=lease) as host:
        await host.cache.aclose()
        assert await host.pull(BLOB, upstream) == DATA
        assert host.warnings == []
    assert (store.count("put"), lease.held) == (0, set())


def test_closing_waits_for_uploads_as_long_as_it_was_told() -> None:
    class Slow:
        name = "slow"
        took = 0.0

        async def put_manifest(self, *_: object, replace: bool) -> None:
            await asyncio.sleep(25)
            self.took = asyncio.get_running_loop().time()

    async def main() -> None:
        slow: Any = Slow()
        tier = RemoteTier(slow, pause=10, patience=30)
        async with Session() as session:
            tier.begin_manifest(ScopedDigest.of(session, MANIFEST.digest), MANIFEST, None)
            await tier.aclose()
        assert slow.took >= 25

    run_leaping(main)


async def test_an_upload_outlasts_the_session(store: FlakyStore, ledger: Ledger) -> None:
    data = LARGE * 2
    store.gate = asyncio.Event()
    async with open_host(store, lease=Leases()) as host:
        await host.pull(describe(data), Wire(data, ledger))
        await wait_until(lambda: bool(store.parts))
        await host.session.aclose()
        store.gate.set()
        await host.cache.aclose()
        assert host.warnings == []
    assert store.read(f"blobs/sha256/{Digest.of(data).encoded}") == data


@pytest.mark.parametrize("there", [True, False])
async def test_a_pull_can_be_cancelled_at_any_await(there: bool) -> None:  # noqa: FBT001
    data = DATA * (PART // len(DATA) + 1)
    blob, lease = describe(data), Leases()
    filled = FlakyStore()
    if there:
        async with open_host(filled) as host:
            await host.pull(blob, Wire(data, Ledger()))

    async def run() -> None:
        store = filled if there else FlakyStore()
        wire = Wire(data, Ledger(), sizes=(1 << 20,))
        async with open_host(store, lease=lease, patience=0) as host:
            assert await host.pull(blob, wire) == data

    async def check() -> None:
        assert lease.held == set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    assert await cancel_at_every_await(run, check) >= 5


async def test_waiting_for_another_host_can_be_cancelled_at_any_await() -> None:
    lease = Leases(ttl=5)

    async def run() -> None:
        async with open_host(FlakyStore(), lease=lease) as host:
            held = await LocalLease.acquire(lease, host.session, f"{ANONYMOUS}/{BLOB.digest}")
            assert held is not None
            assert await host.pull(BLOB, Wire(DATA, Ledger())) == DATA
            assert 5 <= host.clock.time < 7

    async def check() -> None:
        # What the dead holder had may be left; nothing else is held, and no task goes on.
        assert all(ends == 5 for _, ends in lease._holders.values())
        lease._holders.clear()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    assert await cancel_at_every_await(run, check) >= 20


@pytest.mark.parametrize(("patience", "ttl"), [(9.9, 10), (0.1, 30)])
async def test_a_patience_shorter_than_a_lease_is_refused(
    patience: float, ttl: float, store: FlakyStore
) -> None:
    with pytest.raises(ConfigurationError, match=f"its lease lasts {ttl} s.*give a patience"):
        TieredCache(Shelf(), ObjectStore(store), lease=LocalLease(ttl=ttl), patience=patience)
    for fine in (0, ttl):
        TieredCache(Shelf(), ObjectStore(store), lease=LocalLease(ttl=ttl), patience=fine)
    TieredCache(Shelf(), ObjectStore(store), patience=patience)


@pytest.mark.parametrize("name", ["patience", "upload_patience", "pause"])
async def test_a_time_that_is_none_is_refused_by_name(name: str, store: FlakyStore) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is a number of seconds"):
        async with open_host(store, **{name: -1}):
            pass

"""The store as a machine: whatever is done in whatever order, the right blobs are there."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.locks import LockBusy
from asupplemented.cache.layout.lookup import Lookup
from asupplemented.cache.layout.paths import BlobUsage, CachePaths, read_labels
from asupplemented.cache.layout.quota import BATCH, EvictionQueue, Quota
from asupplemented.cache.layout.store import CacheStore
from asupplemented.model.digest import Digest
from tests.cache.driving import held, weigh

if TYPE_CHECKING:
    from asupplemented.abc import BlobFile

LIMIT = 1000
SIZES = (0, 1, 90, 150, 200, 250, 300, 333, 400, 500, 600, 1000, 1001)
BLOBS = {Digest.of(data): data for data in (random.Random(s).randbytes(s) for s in SIZES)}
START = 1_700_000_000.0

some_blob = st.sampled_from(sorted(BLOBS))


class StockMachine(RuleBasedStateMachine):
    """Two processes with one directory, against a model that keeps everything in one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.stores = [CacheStore(CachePaths(self.root, durable=False), LIMIT) for _ in range(2)]
        self.finders = [Lookup(store, verify=False) for store in self.stores]
        self.wall = START
        self.used: dict[Digest, float] = {}
        self.pinned: set[Digest] = set()
        self.leases: list[tuple[Digest, BlobFile]] = []

    def teardown(self) -> None:
        for _, file in self.leases:
            file.close()
        shutil.rmtree(self.root)

    @initialize()
    def prepare(self) -> None:
        for store in self.stores:
            store.prepare(self.wall)

    # What the model says

    def expect_room(self, digest: Digest) -> bool:
        """Evict from the model until a blob fits; gives whether it does."""
        size = len(BLOBS[digest])
        if size > LIMIT - sum(len(BLOBS[other]) for other in self.pinned & self.used.keys()):
            return False
        leased = {other for other, _ in self.leases}
        for _, victim in sorted((used, other) for other, used in self.used.items()):
            if self.total + size <= LIMIT:
                break
            if victim not in self.pinned | leased:
                del self.used[victim]
        return self.total + size <= LIMIT

    @property
    def total(self) -> int:
        return sum(len(BLOBS[digest]) for digest in self.used)

    # What is done

    @rule(digest=some_blob, which=st.integers(0, 1))
    def keep(self, digest: Digest, which: int) -> None:
        self.wall += 0.001  # What happens at once may go in any order.
        expected = digest in self.used or self.expect_room(digest)
        file = StagedFile.create(self.stores[which].paths.ingest)
        try:
            file.write(0, BLOBS[digest])
            kept = self.stores[which].add(file, digest, len(BLOBS[digest]), None, self.wall)
        finally:
            file.close()
        assert kept is expected
        if kept:
            self.used[digest] = self.wall

    @rule(digest=some_blob, which=st.integers(0, 1), lasting=st.booleans())
    def find(self, digest: Digest, which: int, *, lasting: bool) -> None:
        self.wall += 0.001
        file = self.finders[which].open(digest, len(BLOBS[digest]), self.wall)
        assert (file is not None) is (digest in self.used)
        if file is None:
            return
        assert file.path.read_bytes() == BLOBS[digest]
        if self.wall - self.used[digest] >= 60:
            self.used[digest] = self.wall
        if lasting:
            self.leases.append((digest, file))
        else:
            file.close()

    @precondition(lambda self: self.leases)
    @rule()
    def release(self) -> None:
        self.leases.pop(0)[1].close()

    @rule(digest=some_blob, which=st.integers(0, 1), pinned=st.booleans())
    def pin(self, digest: Digest, which: int, *, pinned: bool) -> None:
        self.stores[which].set_pinned((digest,), pinned=pinned)
        (self.pinned.add if pinned else self.pinned.discard)(digest)

    @rule(seconds=st.sampled_from([0.5, 30.0, 61.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.wall += seconds

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.stores[which] = CacheStore(CachePaths(self.root, durable=False), LIMIT)
        self.stores[which].prepare(self.wall)
        self.finders[which] = Lookup(self.stores[which], verify=False)

    # What is always true

    @invariant()
    def the_right_blobs_are_there(self) -> None:
        if (self.root / "blobs").exists():
            assert held(self.root) == self.used.keys()

    @invariant()
    def the_limit_holds_and_the_sum_is_right(self) -> None:
        ledger = self.root / ".asupplemented" / "ledger"
        if ledger.exists():
            assert int(ledger.read_text()) == weigh(self.root) <= LIMIT

    @invariant()
    def who_holds_a_file_can_open_its_name(self) -> None:
        for digest, file in self.leases:
            assert file.path.read_bytes() == BLOBS[digest]


TestStock = StockMachine.TestCase
TestStock.settings = settings(deadline=None, stateful_step_count=30)


# The queue


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=200),
    st.integers(1, 1000),
    st.sets(st.integers(0, 199)),
    st.sets(st.integers(0, 199)),
)
def test_the_queue_gives_the_least_recently_used_that_may_go(
    times: list[int], excess: int, kept: set[int], gone: set[int]
) -> None:
    items = [BlobUsage(used, Digest.of(bytes([n])), 10) for n, used in enumerate(times)]
    number = {item.digest: n for n, item in enumerate(items)}
    queue = EvictionQueue(items)
    chosen = queue.choose(
        excess,
        look_up=lambda digest: None if number[digest] in gone else items[number[digest]],
        may_evict=lambda item: number[item.digest] not in kept,
    )
    may_go = sorted(item for n, item in enumerate(items) if n not in kept | gone)
    assert chosen == may_go[: min(BATCH, -(-excess // 10))]


def test_what_was_used_meanwhile_leaves_the_queue() -> None:
    old, new = Digest.of(b"old"), Digest.of(b"new")
    used = {old: 5, new: 2}
    queue = EvictionQueue([BlobUsage(1, old, 10), BlobUsage(2, new, 10)])

    def look(digest: Digest) -> BlobUsage:
        return BlobUsage(used[digest], digest, 10)

    assert queue.choose(20, look_up=look, may_evict=lambda _: True) == [BlobUsage(2, new, 10)]
    assert queue.choose(20, look_up=look, may_evict=lambda _: True) == []


# The ledger


def test_the_ledger_is_held_by_one(tmp_path: Path) -> None:
    first, second = Quota(tmp_path / "ledger"), Quota(tmp_path / "ledger")
    with first.try_lock() as account:
        assert account is not None
        assert account.total is None
        account.set(7)
        account.add(-10)
        with second.try_lock() as other:
            assert other is None
    with second.try_lock() as account:
        assert account is not None
        assert account.total == 0
        account.add(12)
    assert (tmp_path / "ledger").read_text() == "00000000000000000012\n"


@pytest.mark.parametrize("text", ["", "12\n", "x" * 20, "-" + "1" * 19, "1" * 21, " " * 20])
def test_a_ledger_that_says_nothing_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "ledger").write_text(text)
    with Quota(tmp_path / "ledger").try_lock() as account:
        assert account is not None
        assert account.total is None


def test_a_process_that_died_in_between_leaves_a_sum_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CacheStore(CachePaths(tmp_path), LIMIT)
    store.prepare(START)

    class Killed(BaseException):
        pass

    def die(file: StagedFile, target: Path, *, directory_mode: int) -> bool:
        raise Killed

    file = StagedFile.create(store.paths.ingest)
    file.write(0, b"x" * 600)
    monkeypatch.setattr(StagedFile, "publish", die)
    with pytest.raises(Killed):
        store.add(file, Digest.of(b"x" * 600), 600, None, START)
    file.close()
    with Quota(tmp_path / ".asupplemented" / "ledger").try_lock() as account:
        assert account is not None
        assert account.total == 600
    other = CacheStore(CachePaths(tmp_path), LIMIT)
    other.prepare(START)
    with Quota(tmp_path / ".asupplemented" / "ledger").try_lock() as account:
        assert account is not None
        assert account.total == 0


def test_whoever_meets_a_held_ledger_tries_again_later(tmp_path: Path) -> None:
    store = CacheStore(CachePaths(tmp_path), LIMIT)
    store.prepare(START)
    with Quota(tmp_path / ".asupplemented" / "ledger").try_lock(), pytest.raises(LockBusy):
        store.set_pinned((Digest.of(b"x"),), pinned=True)
    assert list(read_labels(tmp_path / ".asupplemented" / "pins")) == []

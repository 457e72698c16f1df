"""The ledger of request limits."""

from __future__ import annotations

import pytest

from asupplemented.budget import Account, Balance, Ledger
from asupplemented.model.credential import Credential
from tests.clocks import FakeClock

HUB = Account.of("docker.io", None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(epoch=0)


@pytest.fixture
def ledger(clock: FakeClock) -> Ledger:
    ledger = Ledger(clock.clock)
    ledger.use(None, HUB)
    return ledger


def test_an_account_is_a_registry_and_who_asks_it() -> None:
    first = Account.of("docker.io", Credential("alice", "hunter2"))
    assert first == Account.of("docker.io", Credential("alice", "hunter3"))
    assert len({first, HUB, Account.of("quay.io", None)}) == 3
    assert len({Account.of("r", Credential(registry_token=token)) for token in "ab"}) == 2
    assert "alice" not in repr(first)
    assert "hunter2" not in repr(first)


def test_RET09_the_newest_word_counts(ledger: Ledger, clock: FakeClock) -> None:
    assert ledger.find(HUB) is None
    ledger.record(HUB, limit=100, remaining=76, window=21600)
    clock.time += 3600
    ledger.record(HUB, limit=None, remaining=7, window=None)
    assert ledger.find(HUB) == Balance(100, 7, 21600.0, 3600.0)
    assert str(ledger.find(HUB)) == "7 of 100 requests left until 06:00 UTC"
    ledger.record(HUB, limit=100, remaining=None, window=21600)
    assert ledger.find(HUB) == Balance(100, 7, 21600.0, 3600.0)


def test_a_window_ends_and_another_one_begins(ledger: Ledger, clock: FakeClock) -> None:
    ledger.record(HUB, limit=100, remaining=50, window=600)
    clock.time = 300
    ledger.record(HUB, limit=100, remaining=99, window=600)
    assert ledger.find(HUB) == Balance(100, 99, 900.0, 300.0)
    clock.time = 900
    assert ledger.find(HUB) is None


@pytest.mark.parametrize(("retry_after", "resets"), [(None, 600.0), (60.0, 60.0)])
def test_a_refusal_leaves_nothing(ledger: Ledger, retry_after: float | None, resets: float) -> None:
    ledger.record(HUB, limit=100, remaining=50, window=600)
    ledger.record_refusal(HUB, retry_after)
    assert ledger.find(HUB) == Balance(100, 0, resets, 0.0)


def test_a_refusal_without_a_limit_is_short(ledger: Ledger, clock: FakeClock) -> None:
    ledger.record_refusal(HUB, None)
    assert str(ledger.find(HUB)) == "0 requests left until 00:01 UTC"
    clock.time = 60
    assert ledger.find(HUB) is None


@pytest.mark.parametrize(("remaining", "low"), [(11, False), (10, True), (0, True)])
def test_the_last_tenth_is_low(ledger: Ledger, remaining: int, *, low: bool) -> None:
    ledger.record(HUB, limit=100, remaining=remaining, window=600)
    assert ledger.is_low(None, "docker://docker.io/library/busybox:latest") is low
    assert not ledger.is_low(None, "docker://quay.io/o/x:latest")
    assert not ledger.is_low("alice", "docker://docker.io/library/busybox:latest")
    assert not ledger.is_low(None, "oci:/srv/app")


def test_without_a_limit_only_nothing_is_low() -> None:
    assert not Balance(None, 1, 0.0, 0.0).is_low()
    assert Balance(None, 0, 0.0, 0.0).is_low()


def test_what_another_process_heard_counts_if_it_is_newer(ledger: Ledger, clock: FakeClock) -> None:
    clock.time = 100
    ledger.record(HUB, limit=100, remaining=50, window=600)
    ledger.merge(HUB, Balance(100, 60, 600.0, 99.0))
    assert ledger.find(HUB) == Balance(100, 50, 700.0, 100.0)
    ledger.merge(HUB, Balance(100, 40, 600.0, 101.0))
    assert ledger.find(HUB) == Balance(100, 40, 600.0, 101.0)

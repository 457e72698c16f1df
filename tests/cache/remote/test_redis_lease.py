"""Leases in Redis, over a client that fails as it is told; `tests/interop` has a real server."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from asupplemented.aio.retry import CLOCK
from asupplemented.cache.remote.leases import RedisLease, UnheldLease
from asupplemented.errors import ConfigurationError
from asupplemented.events import Warned
from asupplemented.session import Session
from tests.clocks import FakeClock
from tests.suspending import cancel_at_every_await, run_leaping

if TYPE_CHECKING:
    from asupplemented.abc import Lease
    from asupplemented.events import Event

HIDDEN = "hunter2"


class FakeRedis:
    """A server that knows the commands of a lease.

    Attributes:
        keys: Name to owner, and when it lapses.
        commands: The first word of each command.
        failure: Raised in place of an answer.
        silent: Whether it never answers.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.keys: dict[str, tuple[str, float]] = {}
        self.commands: list[str] = []
        self.failure: Exception | None = None
        self.silent = False
        self.closed = False

    async def execute_command(self, *arguments: str | int) -> object:
        self.commands.append(str(arguments[0]))
        await asyncio.sleep(0)
        if self.silent:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        match arguments:
            case "SET", str(key), str(owner), "NX", "PX", int(time):
                if self.holder(key) is not None:
                    return None
                self.keys[key] = owner, self.clock.time + time / 1000
                return True
            case "EVAL", str(script), 1, str(key), str(owner), *rest:
                if self.holder(key) != owner:
                    return 0
                if "pexpire" in script:
                    [time] = rest
                    self.keys[key] = owner, self.clock.time + int(time) / 1000
                else:
                    del self.keys[key]
                return 1
        raise AssertionError(arguments)

    def holder(self, key: str) -> str | None:
        owner, ends = self.keys.get(key, ("", 0.0))
        return owner if self.clock.time < ends else None

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def server(clock: FakeClock) -> FakeRedis:
    return FakeRedis(clock)


async def test_a_lease_is_a_key_with_an_owner_and_a_time(
    session: Session, server: FakeRedis
) -> None:
    lease = RedisLease(server, prefix="team:", ttl=30)
    held = await lease.acquire(session, "key")
    assert held is not None
    [(name, (owner, ends))] = server.keys.items()
    assert (name, ends) == ("team:key", 30)
    assert len(owner) == 32
    assert await lease.acquire(session, "key") is None
    await held.aclose()
    assert server.keys == {}
    assert server.commands == ["SET", "SET", "EVAL"]


async def test_it_is_renewed_while_work_goes_on(
    session: Session, server: FakeRedis, clock: FakeClock
) -> None:
    held = await RedisLease(server, ttl=30).acquire(session, "key")
    assert held is not None
    for _ in range(10):
        clock.time += 20
        assert await held.renew() is True
    assert server.commands == ["SET"] + ["EVAL"] * 10


async def test_losing_it_is_noticed_and_what_another_one_holds_stays(
    session: Session, server: FakeRedis, clock: FakeClock
) -> None:
    lease = RedisLease(server, ttl=30)
    first = await lease.acquire(session, "key")
    clock.time = 31
    second = await lease.acquire(session, "key")
    assert first is not None
    assert second is not None
    assert await first.renew() is False
    await first.aclose()
    assert await lease.acquire(session, "key") is None
    assert await second.renew() is True


async def test_where_nobody_answers_nobody_leads_and_it_is_told_once(
    session: Session, server: FakeRedis, clock: FakeClock, events: list[Event]
) -> None:
    lease = RedisLease(server, pause=10)
    server.failure = RedisConnectionError(f"cannot reach redis://:{HIDDEN}@host")
    for number in range(5):
        held = await lease.acquire(session, f"key {number}")
        assert isinstance(held, UnheldLease)
    assert server.commands == ["SET"], "a server that did not answer was asked again at once"
    clock.time = 10
    assert isinstance(await lease.acquire(session, "key"), UnheldLease)
    assert server.commands == ["SET", "SET"]
    [event] = events
    assert isinstance(event, Warned)
    assert event.reference == "Redis"
    assert event.message.startswith("it could not be asked (ConnectionError)")


@pytest.mark.parametrize("failure", [RuntimeError(HIDDEN), ValueError(HIDDEN), EOFError(HIDDEN)])
async def test_whatever_the_client_raises_stops_nobody(
    failure: Exception, session: Session, server: FakeRedis, events: list[Event]
) -> None:
    server.failure = failure
    assert isinstance(await RedisLease(server).acquire(session, "key"), UnheldLease)
    assert type(failure).__name__ in str(events)
    assert HIDDEN not in str(events)


async def test_it_leads_again_when_the_server_is_back(
    session: Session, server: FakeRedis, clock: FakeClock, events: list[Event]
) -> None:
    lease = RedisLease(server, pause=10)
    for _ in range(2):
        server.failure = ConnectionRefusedError()
        assert isinstance(await lease.acquire(session, "key"), UnheldLease)
        clock.time += 10
        server.failure = None
        held = await lease.acquire(session, "key")
        assert held is not None
        assert not isinstance(held, UnheldLease)
        await held.aclose()
    assert len(events) == 2


def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def main() -> None:
        clock = FakeClock()
        server = FakeRedis(clock)
        server.silent = True
        async with Session() as session:
            session.resource(CLOCK, lambda: clock.clock)
            loop = asyncio.get_running_loop()
            lease = RedisLease(server, timeout=1)
            before = loop.time()
            takes = [lease.acquire(session, f"key {number}") for number in range(20)]
            leases = await asyncio.gather(*takes)
            assert all(isinstance(held, UnheldLease) for held in leases)
            assert isinstance(await lease.acquire(session, "key"), UnheldLease)
            assert loop.time() - before == pytest.approx(1, rel=0.01)

    run_leaping(main)


async def test_a_server_that_dies_meanwhile_stops_nobody(
    session: Session, server: FakeRedis, clock: FakeClock, events: list[Event]
) -> None:
    held = await RedisLease(server, ttl=30, pause=10).acquire(session, "key")
    assert held is not None
    server.failure = RedisConnectionError()
    clock.time = 10
    assert await held.renew() is True, "it is held until its time is over"
    clock.time = 29
    assert await held.renew() is True
    clock.time = 40
    assert await held.renew() is False
    await held.aclose()
    assert len(events) == 1


async def test_what_cannot_be_given_back_lapses(
    session: Session, server: FakeRedis, clock: FakeClock
) -> None:
    lease = RedisLease(server, ttl=30)
    held = await lease.acquire(session, "key")
    assert held is not None
    server.failure = RedisConnectionError()
    await held.aclose()
    server.failure = None
    clock.time = 29
    assert await lease.acquire(session, "key") is None
    clock.time = 31
    assert await lease.acquire(session, "key") is not None


async def test_a_lease_outlasts_the_session(server: FakeRedis, clock: FakeClock) -> None:
    async with Session() as session:
        session.resource(CLOCK, lambda: clock.clock)
        held = await RedisLease(server).acquire(session, "key")
    assert held is not None
    clock.time = 5
    assert await held.renew() is True
    await held.aclose()
    assert server.keys == {}


async def test_one_failure_does_not_cost_the_lease(
    session: Session, server: FakeRedis, clock: FakeClock
) -> None:
    held = await RedisLease(server, ttl=9, pause=60).acquire(session, "key")
    assert held is not None
    clock.time, server.failure = 3, RedisConnectionError()
    assert await held.renew() is True
    clock.time, server.failure = 6, None
    assert await held.renew() is True
    [(_, ends)] = server.keys.values()
    assert ends == 15


async def test_taking_can_be_cancelled_at_any_await(session: Session, server: FakeRedis) -> None:
    lease, answer = RedisLease(server), server.execute_command

    async def answer_late(*arguments: str | int) -> object:
        reply = await answer(*arguments)
        await asyncio.sleep(0)  # The server has acted, and its answer is on the way.
        return reply

    setattr(server, "execute_command", answer_late)  # noqa: B010 - a method, to a type checker

    held: list[Lease | None] = []

    async def run() -> None:
        held.append(await lease.acquire(session, "key"))

    async def check() -> None:
        assert (held, server.keys) == ([], {})

    assert await cancel_at_every_await(run, check) == 2
    assert held != [None]


async def test_a_borrowed_client_stays_open(server: FakeRedis) -> None:
    async with RedisLease(server):
        pass
    assert not server.closed


async def test_its_own_client_is_closed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = RedisLease.from_url(f"redis://user:{HIDDEN}@127.0.0.1:1/0")
    closed: list[object] = []

    async def aclose() -> None:
        closed.append(lease)

    monkeypatch.setattr(lease._client, "aclose", aclose)
    async with lease:
        pass
    await lease.aclose()
    assert closed == [lease]


@pytest.mark.parametrize(
    "url",
    [
        HIDDEN,
        f"redis://user:{HIDDEN}@host:port/0",
        f"redis://user:pass:{HIDDEN}/0:1",
        f"http://user:{HIDDEN}@host/0",
        f"redis://user:{HIDDEN}@[host/0",
        f"redis://host/0?{HIDDEN}={HIDDEN}&socket_timeout={HIDDEN}",
    ],
)
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the URL of Redis is malformed") as caught:
        RedisLease.from_url(url)
    shown = "".join(traceback.format_exception(caught.value)[-1:]) + repr(caught.value)
    assert HIDDEN not in shown
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


async def test_no_password_is_shown_or_told() -> None:
    events: list[Event] = []
    async with (
        RedisLease.from_url(f"redis://user:{HIDDEN}@127.0.0.1:1/0") as lease,
        Session(hooks=[events.append]) as session,
    ):
        assert isinstance(await lease.acquire(session, "key"), UnheldLease)
        assert len(events) == 1
        assert HIDDEN not in repr(lease) + str(events)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asupplemented\[redis\]'"):
        RedisLease.from_url("redis://host")

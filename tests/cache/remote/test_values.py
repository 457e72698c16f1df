"""Values in Redis, over a client that fails as it is told; `tests/interop` has a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from asupplemented import RedisValues
from asupplemented.errors import ConfigurationError
from asupplemented.events import Warned
from tests.clocks import let_pass

if TYPE_CHECKING:
    from asupplemented.events import Event
    from asupplemented.session import Session
    from tests.clocks import FakeClock

KEY = "balance docker.io -"


class FakeRedis:
    """A server that knows GET and SET.

    Attributes:
        keys: Name to value, and when it lapses.
        asked: How many commands it was sent.
        failure: Raised in place of an answer.
        silent: Whether it never answers.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.keys: dict[str, tuple[str, float]] = {}
        self.asked = 0
        self.failure: Exception | None = None
        self.silent = False
        self.closed = False

    async def execute_command(self, *arguments: str | int) -> object:
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        match arguments:
            case "GET", str(key):
                value, ends = self.keys.get(key, ("", 0.0))
                return value.encode() if self.clock.time < ends else None
            case "SET", str(key), str(value), "PX", int(time):
                self.keys[key] = value, self.clock.time + time / 1000
                return True
            case _:
                raise AssertionError(arguments)

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def server(clock: FakeClock) -> FakeRedis:
    return FakeRedis(clock)


async def test_a_value_is_there_for_its_time(
    server: FakeRedis, session: Session, clock: FakeClock
) -> None:
    one, other = RedisValues(server), RedisValues(server)
    assert await one.get(session, KEY) is None
    await one.put(session, KEY, "100 7", 60)
    assert await other.get(session, KEY) == "100 7"
    assert await RedisValues(server, prefix="another:").get(session, KEY) is None
    assert list(server.keys) == [f"asupplemented:value:{KEY}"]
    clock.time += 60
    assert await other.get(session, KEY) is None


async def test_a_server_that_fails_is_no_error_and_is_left_alone_for_a_while(
    server: FakeRedis, session: Session, clock: FakeClock, events: list[Event]
) -> None:
    values = RedisValues(server, pause=10)
    server.failure = RedisConnectionError("redis://user:hunter2@host")
    assert await values.get(session, KEY) is None
    await values.put(session, KEY, "100 7", 60)
    assert server.asked == 1
    [warned] = [event for event in events if isinstance(event, Warned)]
    assert "hunter2" not in warned.message
    clock.time += 10
    server.failure = None
    await values.put(session, KEY, "100 7", 60)
    assert await values.get(session, KEY) == "100 7"


async def test_a_server_that_is_silent_is_given_up(server: FakeRedis, session: Session) -> None:
    server.silent = True
    values = RedisValues(server, timeout=5)
    task = asyncio.create_task(values.get(session, KEY))
    await asyncio.sleep(0)
    await let_pass(5)
    assert await task is None


@pytest.mark.parametrize("reply", [1, None, ["a"]])
async def test_an_answer_that_is_no_text_is_no_value(
    server: FakeRedis, session: Session, reply: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def execute_command(*_: str | int) -> object:
        return reply

    monkeypatch.setattr(server, "execute_command", execute_command)
    assert await RedisValues(server).get(session, KEY) is None


async def test_a_borrowed_client_stays_open(server: FakeRedis) -> None:
    async with RedisValues(server) as values:
        assert repr(values) == "<RedisValues prefix='asupplemented:value:'>"
    assert not server.closed


def test_a_malformed_URL_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisValues.from_url("redis://user:hunter2@host:port")
    assert "hunter2" not in str(caught.value)


def test_times_are_checked(server: FakeRedis) -> None:
    with pytest.raises(ConfigurationError):
        RedisValues(server, timeout=-1)
    with pytest.raises(ConfigurationError):
        RedisValues(server, pause=0)

"""Leases: who of several hosts fetches, while the others wait for what it brings.

What all kinds of them share is here, and the kind that needs no server.

Leases in Redis: one key for each, with an owner and a time to live.
"""

from __future__ import annotations

import abc
import asyncio
import math
import secrets
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self

from asupplemented.abc import AsyncResource, Tenure
from asupplemented.aio.breaker import Breaker, BreakerPolicy, BreakerState, ReportOnce
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import (
    ConfigurationError,
    NetworkError,
    SourceError,
    SourceTimeoutError,
)
from asupplemented.events import Warned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asupplemented.abc import Context
    from asupplemented.events import Event

__all__ = (
    "PAUSE",
    "TTL",
    "FreeTenure",
    "LocalLease",
    "Observer",
    "RedisClient",
    "RedisLease",
    "TimedTenure",
    "check_seconds",
)

PAUSE: Final = 10.0
"""Seconds for which a server that failed is not asked."""

TTL: Final = 30.0
"""Seconds after which the lease of somebody who died is free again."""

_RENEWALS: Final = 3
"""Renewals within one time to live: two of them may fail without harm."""


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Make sure that an argument is a time; arguments come from untyped code, too.

    Args:
        name: Of the argument.
        value: What was given for it.
        zero: Whether it may be 0.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
        if math.isfinite(seconds) and (seconds > 0 or (zero and seconds == 0)):
            return seconds
    least = "0 or more" if zero else "more than 0"
    message = f"{name} is a number of seconds, {least}, not {value!r}"
    raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class Observer:
    """The clock and the hooks of a session, for work that may outlast it."""

    clock: Clock
    emit: Callable[[Event], None]

    @classmethod
    def of(cls, context: Context) -> Self:
        """The observer of an open session."""
        return cls(context.resource(CLOCK, Clock), context.emit)

    def warn(self, name: str, message: str) -> None:
        """Tell the hooks what the operator should know of a server."""
        self.emit(Warned(name, message))


class FreeTenure(Tenure):
    """What who leads holds where nobody can be asked: nothing."""

    __slots__ = ()

    async def renew(self) -> bool:
        """Say yes: nobody else is known to lead."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


class TimedTenure(Tenure):
    """A tenure that is renewed when a third of its time is over, and lapses with it.

    Args:
        clock: Where time comes from.
        ttl: Seconds for which the lease is held without being renewed.
    """

    __slots__ = ("_clock", "_closed", "_due", "_ends", "_lost", "_ttl")

    def __init__(self, clock: Clock, ttl: float) -> None:
        self._clock = clock
        self._ttl = ttl
        self._due = clock.now() + ttl / _RENEWALS
        self._ends = clock.now() + ttl
        self._lost = False
        self._closed = False

    async def renew(self) -> bool:
        now = self._clock.now()
        if self._lost or self._closed or now < self._due:
            return not self._lost
        self._due = now + self._ttl / _RENEWALS
        extended = await self._extend()
        if extended:
            self._ends = now + self._ttl
        self._lost = extended is False or self._clock.now() >= self._ends
        return not self._lost

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._lost:
            await self._give_back()

    @abc.abstractmethod
    async def _extend(self) -> bool | None:
        """Hold the lease for the whole time again: whether it was ours, None if nobody says."""

    @abc.abstractmethod
    async def _give_back(self) -> None:
        """Let go of the lease, if it is still ours. Never raises what the other side says."""


class LocalLease:
    """Leases in memory: for several caches in one process, and for tests.

    Args:
        ttl: Seconds after which a lease that is not renewed is free again.

    Raises:
        ConfigurationError: `ttl` is no time.
    """

    def __init__(self, *, ttl: float = TTL) -> None:
        self._ttl = check_seconds("ttl", ttl)
        self._holders: dict[str, tuple[_LocalTenure, float]] = {}

    async def take(self, context: Context, key: str) -> Tenure | None:
        clock = context.resource(CLOCK, Clock)
        _, ends = self._holders.get(key, (None, -math.inf))
        if clock.now() < ends:
            return None
        tenure = _LocalTenure(clock, self._ttl, self._holders, key)
        self._holders[key] = tenure, clock.now() + self._ttl
        return tenure

    def __repr__(self) -> str:
        return f"<LocalLease ttl={self._ttl:g}, {len(self._holders)} held>"


class _LocalTenure(TimedTenure):
    __slots__ = ("_holders", "_key")

    def __init__(
        self,
        clock: Clock,
        ttl: float,
        holders: dict[str, tuple[_LocalTenure, float]],
        key: str,
    ) -> None:
        super().__init__(clock, ttl)
        self._holders = holders
        self._key = key

    async def _extend(self) -> bool | None:
        if not self._is_ours():
            return False
        self._holders[self._key] = self, self._clock.now() + self._ttl
        return True

    async def _give_back(self) -> None:
        if self._is_ours():
            del self._holders[self._key]

    def _is_ours(self) -> bool:
        holder, _ = self._holders.get(self._key, (None, 0.0))
        return holder is self


PREFIX: Final = "asupplemented:lease:"
TIMEOUT: Final = 1.0
"""Seconds: Redis answers in less than one thousandth of that, or it is of no help."""

_CONNECTIONS: Final = 8
_WHAT: Final = "Redis"

# Whoever has lost a lease must not touch it, and between asking and acting it may be lost.
_EXTEND: Final = """
if redis.call("get", KEYS[1]) == ARGV[1] then
    return redis.call("pexpire", KEYS[1], ARGV[2])
end
return 0
"""
_GIVE_BACK: Final = """
if redis.call("get", KEYS[1]) == ARGV[1] then
    return redis.call("del", KEYS[1])
end
return 0
"""


class RedisClient(Protocol):
    """What is needed of a ``redis.asyncio.Redis``."""

    def execute_command(self, *arguments: str | int) -> Awaitable[object]: ...

    async def aclose(self) -> None: ...


class RedisLease(AsyncResource):
    """Leases in Redis, for all hosts that use the same server and prefix.

    A server that is down or slow fails and delays nobody for long: a question is given up after
    `timeout`, no other one is asked for `pause` seconds, and meanwhile nobody leads.

    Args:
        client: A client to borrow; it is not closed. See `from_url` for one of its own.
        prefix: How the keys begin.
        ttl: Seconds after which a lease that is not renewed is free again.
        timeout: Seconds to wait for one answer.
        pause: Seconds for which a server that did not answer is not asked.

    Raises:
        ConfigurationError: An argument is no time.
    """

    __slots__ = ("_client", "_owned", "_prefix", "_server", "_ttl")

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = PREFIX,
        ttl: float = TTL,
        timeout: float = TIMEOUT,
        pause: float = PAUSE,
    ) -> None:
        self._client = client
        self._owned = False
        self._prefix = prefix
        self._ttl = check_seconds("ttl", ttl)
        self._server = _Server(
            client, check_seconds("timeout", timeout), check_seconds("pause", pause)
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = PREFIX,
        ttl: float = TTL,
        timeout: float = TIMEOUT,
        pause: float = PAUSE,
    ) -> Self:
        """Leases in the Redis at ``redis://[user:password@]host[:port][/database]``.

        ``rediss://`` speaks TLS, and ``unix://[user:password@]/path`` uses a socket. Nothing is
        connected before the first lease is taken. The client belongs to the lease.

        Raises:
            ConfigurationError: The URL is none; it is not repeated, since it may hold a password.
                Or the extra ``redis`` is not installed.
        """
        client = _connect(url, check_seconds("timeout", timeout))
        lease = cls(client, prefix=prefix, ttl=ttl, timeout=timeout, pause=pause)
        lease._owned = True
        return lease

    async def take(self, context: Context, key: str) -> Tenure | None:
        observer = Observer.of(context)
        name, owner = self._prefix + key, secrets.token_hex(16)
        time = max(1, round(self._ttl * 1000))
        try:
            taken = await self._server.ask(observer, "SET", name, owner, "NX", "PX", time)
        except SourceError:
            return FreeTenure()
        return _RedisTenure(self._server, observer, self._ttl, name, owner) if taken else None

    async def aclose(self) -> None:
        if self._owned:
            self._owned = False
            await self._client.aclose()

    def __repr__(self) -> str:
        return f"<RedisLease prefix={self._prefix!r} ttl={self._ttl:g}>"


class _Server:
    """The server behind a breaker: it answers soon, or it is not asked for a while.

    Args:
        client: The client.
        timeout: Seconds to wait for an answer.
        pause: Seconds for which the server is not asked after it failed.
    """

    __slots__ = ("_breaker", "_client", "_pause", "_timeout", "_trouble")

    def __init__(self, client: RedisClient, timeout: float, pause: float) -> None:
        self._client = client
        self._timeout = timeout
        self._pause = pause
        self._breaker = Breaker(BreakerPolicy(pause=pause, longest=pause))
        self._trouble = ReportOnce()

    async def ask(self, observer: Observer, *command: str | int) -> object:
        """Have the server carry out a command.

        Raises:
            SourceError: The server did not, or its breaker is open. The message repeats nothing
                of its answer, which may hold secrets.
        """
        if self._breaker.state(observer.clock.now()) is BreakerState.OPEN:
            message = "Redis did not answer a moment ago"
            raise NetworkError(message)
        failure: SourceError
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._client.execute_command(*command)
        except TimeoutError:
            failure = SourceTimeoutError(f"it did not answer within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a client raises, nobody is stopped
            failure = NetworkError(f"it could not be asked ({type(error).__name__})")
        else:
            self._breaker.record_success()
            self._trouble.end()
            return reply
        self._breaker.record_failure(observer.clock.now())
        message = f"{failure.message}; it is not asked for {self._pause:g} s"
        self._trouble.report(partial(observer.warn, _WHAT), message)
        raise failure


class _RedisTenure(TimedTenure):
    __slots__ = ("_name", "_observer", "_owner", "_server")

    def __init__(
        self, server: _Server, observer: Observer, ttl: float, name: str, owner: str
    ) -> None:
        super().__init__(observer.clock, ttl)
        self._server = server
        self._observer = observer
        self._name = name
        self._owner = owner

    async def _extend(self) -> bool | None:
        time = max(1, round(self._ttl * 1000))
        try:
            return bool(await self._eval(_EXTEND, time))
        except SourceError:
            return None

    async def _give_back(self) -> None:
        with suppress(SourceError):  # It lapses then.
            await self._eval(_GIVE_BACK)

    async def _eval(self, script: str, *arguments: int) -> object:
        return await self._server.ask(
            self._observer, "EVAL", script, 1, self._name, self._owner, *arguments
        )


def _connect(url: str, patience: float) -> RedisClient:
    try:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 - an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError as error:
        message = "leases in Redis need its client: pip install 'asupplemented[redis]'"
        raise ConfigurationError(message) from error
    try:
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            max_connections=_CONNECTIONS,
            timeout=patience,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            retry=Retry(NoBackoff(), 1),  # a connection that broke while nobody used it
        )
    except (ValueError, TypeError):
        pool = None  # Not chained: what is wrong with a URL is told by repeating parts of it.
    if pool is None:
        message = "this is no URL of a Redis; one is like redis://user:password@host:6379/0"
        raise ConfigurationError(message)
    return Redis.from_pool(pool)

"""Leases: one of several hosts fetches a blob, while the others wait for what it uploads.

A lease is held for a time. `RenewedLease` renews it by time while its holder works, so it lasts as
long as the holder is alive, however slowly bytes come or go. `LocalLease` keeps leases in memory.
`RedisLease` keeps each in one key with an owner and a time to live; scripts on the server compare
the owner and act in one step, so a host that lost a lease cannot renew or delete that of another.
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

from asupplemented.abc import AsyncResource, Lease
from asupplemented.aio.breaker import Breaker, BreakerPolicy, BreakerState, ReportOnce
from asupplemented.aio.closing import closing_on_error
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
    "TIMEOUT",
    "TTL",
    "LocalLease",
    "Observer",
    "RedisClient",
    "RedisLease",
    "RedisServer",
    "RenewedLease",
    "TimedLease",
    "UnheldLease",
    "check_seconds",
    "connect_redis",
)

PAUSE: Final = 10.0
"""Seconds for which a server that failed is not asked."""

TTL: Final = 10.0
"""Seconds after which the lease of a host that died is free again."""

_RENEWALS: Final = 3
"""Renewals within one time to live. One may fail without harm; the third would come too late."""


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Check that an argument is a number of seconds; callers may be untyped.

    Args:
        name: Name of the argument, for the error.
        value: Its value.
        zero: Whether it may be 0.

    Raises:
        ConfigurationError: It is no such number.
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
    def of(cls, session: Context) -> Self:
        """The observer of an open session."""
        return cls(session.resource(CLOCK, Clock), session.emit)

    def warn(self, name: str, message: str) -> None:
        """Warn the hooks of a server."""
        self.emit(Warned(name, message))


class UnheldLease(Lease):
    """The lease of a server that does not answer: it is held nowhere, so several hosts may work."""

    __slots__ = ()

    async def renew(self) -> bool:
        """Return True: no other holder is known."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


class TimedLease(Lease):
    """A lease that is lost when its time is over, or when another host holds it.

    Args:
        clock: Where time comes from.
        ttl: Seconds for which the lease is held without being renewed.
    """

    __slots__ = ("_clock", "_closed", "_ends", "_lost", "_ttl")

    def __init__(self, clock: Clock, ttl: float) -> None:
        self._clock = clock
        self._ttl = ttl
        self._ends = clock.now() + ttl
        self._lost = False
        self._closed = False

    async def renew(self) -> bool:
        if self._lost or self._closed:
            return not self._lost
        asked = self._clock.now()
        extended = await self._extend()
        if extended:
            self._ends = asked + self._ttl
        self._lost = extended is False or self._clock.now() >= self._ends
        return not self._lost

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._lost:
            await self._release()

    @abc.abstractmethod
    async def _extend(self) -> bool | None:
        """Restart the time of the lease: whether it was held here, None if that is not known."""

    @abc.abstractmethod
    async def _release(self) -> None:
        """Release the lease, if it is still held here. Errors of the server are not raised."""


class RenewedLease(AsyncResource):
    """A lease that a task renews by time, until it is closed or lost.

    The task sleeps by the time of the event loop, because a server counts real time.

    Args:
        lease: The lease; closed with this one.
        ttl: Seconds for which it is held without being renewed.
        renewed: Called after each renewal, with whether the lease is still held. A call with False
            is the last one.
    """

    __slots__ = ("_lease", "_task")

    def __init__(self, lease: Lease, ttl: float, renewed: Callable[[bool], None]) -> None:
        self._lease = lease
        self._task = asyncio.create_task(_renew(lease, ttl / _RENEWALS, renewed))

    async def aclose(self) -> None:
        self._task.cancel()
        try:
            await asyncio.wait((self._task,))
        finally:
            await self._lease.aclose()


async def _renew(lease: Lease, interval: float, renewed: Callable[[bool], None]) -> None:
    held = True
    while held:
        await asyncio.sleep(interval)
        held = await lease.renew()
        renewed(held)


class LocalLease:
    """Leases in memory: for several caches in one process, and for tests.

    Args:
        ttl: Seconds after which a lease that is not renewed is free again.

    Raises:
        ConfigurationError: `ttl` is not a number of seconds above 0.
    """

    def __init__(self, *, ttl: float = TTL) -> None:
        self._ttl = check_seconds("ttl", ttl)
        self._holders: dict[str, tuple[_LocalHeldLease, float]] = {}

    @property
    def ttl(self) -> float:
        """Seconds after which a lease that is not renewed is free again."""
        return self._ttl

    async def acquire(self, session: Context, key: str) -> Lease | None:
        clock = session.resource(CLOCK, Clock)
        _, ends = self._holders.get(key, (None, -math.inf))
        if clock.now() < ends:
            return None
        lease = _LocalHeldLease(clock, self._ttl, self._holders, key)
        self._holders[key] = lease, clock.now() + self._ttl
        return lease

    def __repr__(self) -> str:
        return f"<LocalLease ttl={self._ttl:g}, {len(self._holders)} held>"


class _LocalHeldLease(TimedLease):
    __slots__ = ("_holders", "_key")

    def __init__(
        self,
        clock: Clock,
        ttl: float,
        holders: dict[str, tuple[_LocalHeldLease, float]],
        key: str,
    ) -> None:
        super().__init__(clock, ttl)
        self._holders = holders
        self._key = key

    async def _extend(self) -> bool | None:
        if not self._is_held():
            return False
        self._holders[self._key] = self, self._clock.now() + self._ttl
        return True

    async def _release(self) -> None:
        if self._is_held():
            del self._holders[self._key]

    def _is_held(self) -> bool:
        holder, _ = self._holders.get(self._key, (None, 0.0))
        return holder is self


PREFIX: Final = "asupplemented:lease:"
TIMEOUT: Final = 1.0
"""Seconds to wait for an answer. Redis usually takes less than one thousandth of that."""

_CONNECTIONS: Final = 8
_WHAT: Final = "Redis"

# Compared on the server, because the lease may be lost between a question and the next command.
_EXTEND: Final = """
if redis.call("get", KEYS[1]) == ARGV[1] then
    return redis.call("pexpire", KEYS[1], ARGV[2])
end
return 0
"""
_RELEASE: Final = """
if redis.call("get", KEYS[1]) == ARGV[1] then
    return redis.call("del", KEYS[1])
end
return 0
"""


class RedisClient(Protocol):
    """The methods of a ``redis.asyncio.Redis`` that are used."""

    def execute_command(self, *arguments: str | int) -> Awaitable[object]: ...

    async def aclose(self) -> None: ...


class RedisLease(AsyncResource):
    """Leases in Redis, for all hosts that use the same server and prefix.

    A server that is down or slow fails no fetch and delays none for long: a request is given up
    after `timeout`, and for the next `pause` seconds no other one is sent. Meanwhile every host
    fetches for itself.

    Args:
        client: A client to borrow; it is not closed here. `from_url` makes one.
        prefix: How the keys begin.
        ttl: Seconds after which a lease that is not renewed is free again.
        timeout: Seconds to wait for one answer.
        pause: Seconds for which a server that did not answer is not asked.

    Raises:
        ConfigurationError: An argument is not a number of seconds above 0.
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
        self._server = RedisServer(
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
        connected before the first lease is acquired. The client is closed by `aclose`.

        Args:
            url: The Redis.
            prefix: Begins the name of every key.
            ttl: Seconds after which a lease that is not renewed is free again.
            timeout: Seconds that a request to Redis may take.
            pause: Seconds without requests after one that failed.

        Raises:
            ConfigurationError: The URL is malformed; the message does not repeat it, because it
                may hold a password. Or the extra ``redis`` is not installed.
        """
        client = connect_redis(url, check_seconds("timeout", timeout))
        lease = cls(client, prefix=prefix, ttl=ttl, timeout=timeout, pause=pause)
        lease._owned = True
        return lease

    @property
    def ttl(self) -> float:
        """Seconds after which a lease that is not renewed is free again."""
        return self._ttl

    async def acquire(self, session: Context, key: str) -> Lease | None:
        observer = Observer.of(session)
        name, owner = self._prefix + key, secrets.token_hex(16)
        time = max(1, round(self._ttl * 1000))
        lease = _RedisHeldLease(self._server, observer, self._ttl, name, owner)
        try:
            # If the caller is cancelled, the server may have set the key without being heard.
            async with closing_on_error(lambda: (lease,), "a lease"):
                acquired = await self._server.ask(observer, "SET", name, owner, "NX", "PX", time)
        except SourceError:
            return UnheldLease()
        return lease if acquired else None

    async def aclose(self) -> None:
        if self._owned:
            self._owned = False
            await self._client.aclose()

    def __repr__(self) -> str:
        return f"<RedisLease prefix={self._prefix!r} ttl={self._ttl:g}>"


class RedisServer:
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
        """Send a command to the server, unless its breaker is open.

        Raises:
            SourceError: The server did not answer, or its breaker is open. The message repeats
                nothing of its answer, which may hold secrets.
        """
        if self._breaker.state(observer.clock.now()) is BreakerState.OPEN:
            message = "Redis failed a moment ago, and is not asked again yet"
            raise NetworkError(message)
        return await self.send(observer, *command)

    async def send(self, observer: Observer, *command: str | int) -> object:
        """Send a command to the server, whatever its breaker says.

        Raises:
            SourceError: The server did not answer.
        """
        failure: SourceError
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._client.execute_command(*command)
        except TimeoutError:
            failure = SourceTimeoutError(f"it did not answer within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - no error of a client may fail a fetch
            failure = NetworkError(f"it could not be asked ({type(error).__name__})")
        else:
            self._breaker.record_success()
            self._trouble.end()
            return reply
        self._breaker.record_failure(observer.clock.now())
        message = f"{failure.message}; it is not asked for {self._pause:g} s"
        self._trouble.report(partial(observer.warn, _WHAT), message)
        raise failure


class _RedisHeldLease(TimedLease):
    __slots__ = ("_name", "_observer", "_owner", "_server")

    def __init__(
        self, server: RedisServer, observer: Observer, ttl: float, name: str, owner: str
    ) -> None:
        super().__init__(observer.clock, ttl)
        self._server = server
        self._observer = observer
        self._name = name
        self._owner = owner

    async def _extend(self) -> bool | None:
        time = max(1, round(self._ttl * 1000))
        # Sent also while the breaker is open: that delays no fetch, and one failure would otherwise
        # cost the lease, because the breaker stays open for as long as the lease lasts.
        try:
            return bool(await self._server.send(self._observer, *self._script(_EXTEND, time)))
        except SourceError:
            return None

    async def _release(self) -> None:
        with suppress(SourceError):  # Then it ends with its time to live.
            await self._server.ask(self._observer, *self._script(_RELEASE))

    def _script(self, script: str, *arguments: int) -> tuple[str | int, ...]:
        return ("EVAL", script, 1, self._name, self._owner, *arguments)


def connect_redis(url: str, patience: float) -> RedisClient:
    """A client of a server that answers each request within some seconds, or fails.

    Raises:
        ConfigurationError: The URL is malformed, or the extra ``redis`` is not installed.
    """
    try:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 - an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError as error:
        message = "sharing through Redis needs its client: pip install 'asupplemented[redis]'"
        raise ConfigurationError(message) from error
    try:
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            max_connections=_CONNECTIONS,
            timeout=patience,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            retry=Retry(NoBackoff(), 1),  # a connection that broke while it was idle
        )
    except (ValueError, TypeError):
        pool = None  # Not chained: the error may repeat the URL.
    if pool is None:
        message = "the URL of Redis is malformed; write one like redis://user:password@host:6379/0"
        raise ConfigurationError(message)
    return Redis.from_pool(pool)

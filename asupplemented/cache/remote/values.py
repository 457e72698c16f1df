"""Small values that hosts share for a while, in Redis.

They save requests and protect nothing: a host that cannot read one goes on without it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import AsyncResource
from asupplemented.cache.remote.leases import (
    PAUSE,
    TIMEOUT,
    Observer,
    RedisServer,
    check_seconds,
    connect_redis,
)
from asupplemented.errors import SourceError

if TYPE_CHECKING:
    from asupplemented.abc import Context
    from asupplemented.cache.remote.leases import RedisClient

__all__ = ("RedisValues",)

PREFIX: Final = "asupplemented:value:"
"""How keys begin."""


class RedisValues(AsyncResource):
    """Values in Redis, for all hosts that use the same server and prefix.

    A server that is down or slow delays no request for long: it is given up after `timeout`, and
    for the next `pause` seconds it is not asked. Meanwhile there are no values.

    Args:
        client: A client to borrow; it is not closed here. `from_url` makes one.
        prefix: How the keys begin.
        timeout: Seconds to wait for one answer.
        pause: Seconds for which a server that did not answer is not asked.

    Raises:
        ConfigurationError: An argument is not a number of seconds above 0.
    """

    __slots__ = ("_client", "_owned", "_prefix", "_server")

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        pause: float = PAUSE,
    ) -> None:
        self._client = client
        self._owned = False
        self._prefix = prefix
        self._server = RedisServer(
            client, check_seconds("timeout", timeout), check_seconds("pause", pause)
        )

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = PREFIX, timeout: float = TIMEOUT, pause: float = PAUSE
    ) -> Self:
        """Values in the Redis at a URL; see `RedisLease.from_url`. Times are in seconds.

        Raises:
            ConfigurationError: The URL is malformed, or the extra ``redis`` is not installed.
        """
        client = connect_redis(url, check_seconds("timeout", timeout))
        values = cls(client, prefix=prefix, timeout=timeout, pause=pause)
        values._owned = True
        return values

    async def get(self, session: Context, key: str) -> str | None:
        """The value of a key, None if there is none or Redis cannot be asked."""
        try:
            reply = await self._server.ask(Observer.of(session), "GET", self._prefix + key)
        except SourceError:
            return None
        if isinstance(reply, bytes):
            return reply.decode("utf-8", "replace")
        return reply if isinstance(reply, str) else None

    async def put(self, session: Context, key: str, value: str, seconds: float) -> None:
        """Set the value of a key for some seconds."""
        time = max(1, round(seconds * 1000))
        with suppress(SourceError):
            await self._server.ask(
                Observer.of(session), "SET", self._prefix + key, value, "PX", time
            )

    async def aclose(self) -> None:
        """Close the client, if it was made here."""
        if self._owned:
            self._owned = False
            await self._client.aclose()

    def __repr__(self) -> str:
        return f"<RedisValues prefix={self._prefix!r}>"

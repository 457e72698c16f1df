"""The session: one place that owns what outlives a single source.

Clients, pools, tokens, limiters and threads are made by those who need them and kept here by
key, so that the session need not know any of them; it closes them in reverse order.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

from asupplemented.abc import AsyncResource, CredentialProvider, Timeouts
from asupplemented.closing import close_all
from asupplemented.errors import ClosedError, ConfigurationError, WrongLoopError
from asupplemented.model.credential import Credential, check_lookup, lookup_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    import aiohttp

    from asupplemented.abc import Hook, ResourceKey
    from asupplemented.events import Event

__all__ = ("LOOKAHEAD", "CredentialLike", "Session")

T = TypeVar("T")

CredentialLike: TypeAlias = Credential | tuple[str, str] | str
"""A credential as users write it: user name and password, a registry token, or the value."""

LOOKAHEAD: Final = 64
"""Manifest fetches beyond the one that is needed next, unless the caller says otherwise."""

_TIMEOUTS: Final = Timeouts()


class Session(AsyncResource):
    """Owns connections, tokens, caches and threads; everything is opened with one.

    It belongs to the event loop that first uses it, may serve many tasks of that loop at once,
    and is closed by who made it. Sources and streams are closed before it.

    Args:
        lookahead: Manifest fetches in flight beyond the one that is needed next; 0 is serial.
        tls_verify: False allows plain http and unverified TLS, for every registry.
        http: An ``aiohttp.ClientSession`` to borrow instead of making one; it is never closed
            here.
        credentials: User name and password, a registry token, or a `Credential`, by registry
            (``host[:port]``), or by a namespace or repository in it (``host/team``,
            ``host/team/app``); the most specific key counts (rule FILE-08), and case matters.
            Or an async function from the name of a repository to one of these or None: see
            `asupplemented.abc.CredentialProvider`. None is anonymous access.
        timeouts: How long to wait.
        hooks: Told of every `asupplemented.events.Event`.

    Raises:
        ConfigurationError: An argument is not what it should be.
    """

    __slots__ = (
        "__weakref__",
        "_credentials",
        "_holdings",
        "_hooks",
        "_http",
        "_lookahead",
        "_timeouts",
        "_tls_verify",
    )

    def __init__(
        self,
        *,
        lookahead: int = LOOKAHEAD,
        tls_verify: bool = True,
        http: aiohttp.ClientSession | None = None,
        credentials: Mapping[str, CredentialLike] | CredentialProvider | None = None,
        timeouts: Timeouts = _TIMEOUTS,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self._lookahead = _check_lookahead(lookahead)
        self._tls_verify = _check_tls_verify(tls_verify)
        self._http = _check_http(http)
        self._credentials = _Credentials(credentials)
        self._timeouts = _check_timeouts(timeouts)
        self._hooks = _check_hooks(hooks)
        self._holdings = _Holdings()

    @property
    def lookahead(self) -> int:
        """Manifest fetches in flight beyond the one that is needed next; 0 is serial."""
        return self._lookahead

    @property
    def tls_verify(self) -> bool:
        """False allows plain http and unverified TLS, for every registry."""
        return self._tls_verify

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait."""
        return self._timeouts

    @property
    def http(self) -> aiohttp.ClientSession | None:
        """The client that was lent to the session, or None."""
        return self._http

    @property
    def credentials(self) -> CredentialProvider:
        """Looks up the credential for a repository; it gives None where there is none."""
        return self._credentials

    @property
    def closed(self) -> bool:
        """Whether `aclose` has been called."""
        return self._holdings.closed

    def resource(self, key: ResourceKey[T], factory: Callable[[], T]) -> T:
        """The session's one object of a kind, made on first use.

        If it is an `AsyncResource` it is closed with the session, in reverse order of making:
        what a factory takes from the session while it runs is closed later.

        Args:
            key: The kind, compared by identity.
            factory: Makes the object. If it raises, nothing is kept.

        Raises:
            ClosedError: The session is closed.
            WrongLoopError: The session belongs to another event loop, or none is running.
        """
        return self._holdings.get(key, factory)

    @property
    def observed(self) -> bool:
        """Whether there is a hook; without one, events need not even be made."""
        return bool(self._hooks)

    def emit(self, event: Event) -> None:
        """Tell the hooks. One that raises is reported to the event loop, and disturbs nobody."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001 - whatever a hook does, the work goes on
                _report(hook, error)

    async def __aenter__(self) -> Self:
        self._holdings.bind()
        return self

    async def aclose(self) -> None:
        """Close everything that the session owns, in reverse order of making.

        May be called again, and from several tasks: all but the first wait until it is done.

        Raises:
            ExceptionGroup: Resources that failed to close; all have been asked to.
            WrongLoopError: The session belongs to another event loop; nothing was closed.
        """
        await self._holdings.aclose()

    def __del__(self) -> None:
        # An argument that was refused leaves a session without holdings.
        holdings = getattr(self, "_holdings", None)
        if holdings is not None and holdings.needs_closing:
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Session lookahead={self._lookahead} tls_verify={self._tls_verify}, {state}>"


class _Holdings:
    """Objects by key, and the event loop that they belong to."""

    __slots__ = ("_done", "_loop", "_objects", "closed")

    def __init__(self) -> None:
        self._objects: dict[object, object] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = asyncio.Event()
        self.closed = False

    @property
    def needs_closing(self) -> bool:
        return any(isinstance(value, AsyncResource) for value in self._objects.values())

    def bind(self) -> None:
        """Belong to the running event loop, unless there is another one already."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            message = "a session is used from within an event loop, and none is running here"
            raise WrongLoopError(message) from None
        if self._loop is None and not self.closed:
            self._loop = loop
        if self._loop not in {None, loop}:
            message = "this session belongs to another event loop; make one session for each loop"
            raise WrongLoopError(message)

    def get(self, key: ResourceKey[T], factory: Callable[[], T]) -> T:
        self.bind()
        # While closing, what is not closed yet still serves those that need it to close.
        if key in self._objects:
            return cast("T", self._objects[key])
        if self.closed:
            message = f"the session is closed, there is no more {key.name}; make a new session"
            raise ClosedError(message)
        made = factory()
        self._objects[key] = made
        return made

    async def aclose(self) -> None:
        self.bind()
        if self.closed:
            await self._done.wait()
            return
        self.closed = True
        try:
            await close_all(self._take_back(), "the resources of a session")
        finally:
            self._done.set()

    def _take_back(self) -> Iterator[AsyncResource]:
        while self._objects:
            _, value = self._objects.popitem()
            if isinstance(value, AsyncResource):
                yield value


class _Credentials:
    """A provider over whatever the caller gave for credentials. It shows nothing of it."""

    __slots__ = ("_known", "_provider")

    def __init__(self, given: Mapping[str, CredentialLike] | CredentialProvider | None) -> None:
        self._known: dict[str, Credential | None] = {}
        self._provider: CredentialProvider | None = None
        if isinstance(given, Mapping):
            self._known = {_check_key(name): Credential.of(v) for name, v in given.items()}
        elif given is None or callable(given):
            self._provider = given
        else:
            message = (
                "credentials is a mapping by registry or namespace, an async function, or None"
            )
            raise ConfigurationError(message)

    async def __call__(self, name: str, /) -> Credential | None:
        if self._provider is not None:
            return Credential.of(await self._provider(name))
        for key in lookup_order(name):
            if key in self._known:
                return self._known[key]
        return None

    def __repr__(self) -> str:
        if self._provider is not None:
            return "<credentials from a function>"
        return f"<credentials for {', '.join(self._known) or 'nobody'}>"


def _report(hook: Hook, error: Exception) -> None:
    context = {"message": f"the hook {hook!r} raised an exception", "exception": error}
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # Events are emitted on the loop; without one there is nobody to tell.
    loop.call_exception_handler(context)


# Arguments come from untyped code too, so they are checked against their annotations.


def _check_lookahead(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        message = f"lookahead is a number of fetches, 0 or more, not {value!r}"
        raise ConfigurationError(message)
    return value


def _check_tls_verify(value: object) -> bool:
    if not isinstance(value, bool):
        message = f"tls_verify is True or False, not {value!r}"
        raise ConfigurationError(message)
    return value


def _check_http(value: object) -> aiohttp.ClientSession | None:
    if value is None:
        return None
    from aiohttp import ClientSession

    if not isinstance(value, ClientSession):
        message = f"http is an aiohttp.ClientSession or None, not a {type(value).__name__}"
        raise ConfigurationError(message)
    if value.closed:
        message = "http is an aiohttp.ClientSession that was closed already; pass an open one"
        raise ConfigurationError(message)
    return value


def _check_key(value: object) -> str:
    if not isinstance(value, str):
        message = f"credentials are keyed by registry or namespace, not by {type(value).__name__}"
        raise ConfigurationError(message)
    return check_lookup(value)


def _check_timeouts(value: object) -> Timeouts:
    if not isinstance(value, Timeouts):
        message = f"timeouts is a Timeouts, not a {type(value).__name__}"
        raise ConfigurationError(message)
    for name in ("connect", "first_byte", "stall", "open"):
        seconds: object = getattr(value, name)
        if seconds is not None and not _is_duration(seconds):
            message = f"timeouts.{name} is a number of seconds above 0, or None, not {seconds!r}"
            raise ConfigurationError(message)
    _check_rate(value.min_rate)
    return value


def _check_rate(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        message = f"timeouts.min_rate is a number of bytes per second, 0 or more, not {value!r}"
        raise ConfigurationError(message)


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def _check_hooks(value: Iterable[Hook]) -> tuple[Hook, ...]:
    hooks = tuple(value)
    for hook in hooks:
        if not callable(hook):
            message = f"a hook is called with one event, and {hook!r} cannot be called"
            raise ConfigurationError(message)
    return hooks

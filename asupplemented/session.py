"""The session: one place that owns what outlives a single source.

Clients, pools, tokens, limiters and threads are made where they are needed and kept here by key,
so that the session need not know any of them; it closes them in reverse order.
"""

from __future__ import annotations

import asyncio
import copy
import warnings
from typing import TYPE_CHECKING, Final, TypeVar, cast

from asupplemented._arguments import (
    CredentialLike,
    GivenCredentials,
    check_cache,
    check_hooks,
    check_lookahead,
    check_principal,
    check_settings,
    check_share,
    check_timeouts,
    check_tls_verify,
)
from asupplemented.abc import AsyncResource, Timeouts
from asupplemented.aio.closing import close_all
from asupplemented.errors import ClosedError, ConfigurationError, WrongLoopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Self

    import aiohttp

    from asupplemented.abc import (
        BlobCache,
        CredentialProvider,
        Hook,
        ResourceKey,
        Setting,
        Share,
    )
    from asupplemented.events import Event

__all__ = ("LOOKAHEAD", "CredentialLike", "Session")

T = TypeVar("T")

_ABSENT: Final = object()

LOOKAHEAD: Final = 64
"""Manifest fetches beyond the one that is needed next, unless the caller says otherwise."""

_TIMEOUTS: Final = Timeouts()


class Session(AsyncResource):
    """Owns connections, tokens, caches and threads; everything is opened with one.

    It belongs to the event loop that first uses it, may serve many tasks of that loop at once,
    and its maker closes it. Sources and streams are closed before it.

    Args:
        lookahead: Manifest fetches in flight beyond the one that is needed next; 0 is serial.
        tls_verify: False allows plain http and unverified TLS for every registry, True for
            none. None leaves it to what is configured for each registry (rule TLS-05), and means
            True where nothing is.
        http: An ``aiohttp.ClientSession`` to borrow instead of making one; it is never closed
            here.
        credentials: User name and password, a registry token, or a `Credential`, by registry
            (``host[:port]``), or by a namespace or repository in it (``host/team``,
            ``host/team/app``); the most specific key counts (rule FILE-08), and case matters.
            Or an async function from the name of a repository to one of these or None: see
            `asupplemented.abc.CredentialProvider`. None is anonymous access.
        timeouts: How long to wait.
        cache: Keeps blobs and manifests for later; it is never closed here.
        share: Decides what principals (see `scoped`) share of what they fetch; None: nothing.
        hooks: Told of every `Event`.
        settings: Options of parts of the library, at most one of each kind, such as
            `RegistryOptions`, `BreakerPolicy` and `ResumptionPolicy`.

    Raises:
        ConfigurationError: An argument is not what it should be.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_credentials",
        "_hooks",
        "_http",
        "_lookahead",
        "_parent",
        "_principal",
        "_resources",
        "_share",
        "_timeouts",
        "_tls_verify",
    )

    def __init__(  # noqa: PLR0913 - given by name, and few of them
        self,
        *,
        lookahead: int = LOOKAHEAD,
        tls_verify: bool | None = None,
        http: aiohttp.ClientSession | None = None,
        credentials: Mapping[str, CredentialLike] | CredentialProvider | None = None,
        timeouts: Timeouts = _TIMEOUTS,
        cache: BlobCache | None = None,
        share: Share | None = None,
        hooks: Iterable[Hook] = (),
        settings: Iterable[Setting] = (),
    ) -> None:
        self._lookahead = check_lookahead(lookahead)
        self._tls_verify = check_tls_verify(tls_verify)
        self._http = _check_http(http)
        self._credentials = GivenCredentials(credentials)
        self._timeouts = check_timeouts(timeouts)
        self._cache = check_cache(cache)
        self._share = check_share(share)
        self._hooks = check_hooks(hooks)
        self._principal: str | None = None
        self._parent: Session | None = None
        """Made this scoped session; kept, for it owns the resources."""
        self._resources = _Resources(check_settings(settings))

    @property
    def lookahead(self) -> int:
        """Manifest fetches in flight beyond the one that is needed next; 0 is serial."""
        return self._lookahead

    @property
    def tls_verify(self) -> bool | None:
        """False allows plain http and unverified TLS for every registry, True for none.

        None leaves it to what is configured for each registry.
        """
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
    def cache(self) -> BlobCache | None:
        """Keeps blobs and manifests; None for nothing."""
        return self._cache

    @property
    def share(self) -> Share | None:
        """Decides what principals share; None: nothing."""
        return self._share

    @property
    def principal(self) -> str | None:
        """Whom a scoped session acts for, None for a session that is not scoped; see `scoped`."""
        return self._principal

    @property
    def closed(self) -> bool:
        """Whether the session was closed; a scoped one is closed with the session it came from."""
        return self._resources.closed

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
        return self._resources.get(key, factory)

    def scoped(
        self,
        principal: str,
        *,
        credentials: Mapping[str, CredentialLike] | CredentialProvider | None = None,
    ) -> Session:
        """A session for one of the principals that a program serves, to open references with.

        It shares the resources of this session: connections, threads, settings and caches. What
        registries grant, and what is kept of their answers, belongs to the principal and its
        credentials, and never reaches another principal (rule SEC-13). Scoped sessions with the
        same principal and the same credentials share it, so one may be made for each request.
        Closing a scoped session does nothing, and it need not be closed; it ends with this one.

        Args:
            principal: A name for the caller of the program. It is never sent or shown. It is
                trusted: what one principal may read is kept for every later session of the same
                name. So use the name of an authenticated caller; where credentials are only
                passed on, use a keyed hash of all of them, for a user name alone proves nothing.
            credentials: As for `Session`. None is anonymous access: the credentials of this
                session are never used.

        Raises:
            ConfigurationError: An argument is not what it should be.
            ClosedError: The session is closed.
        """
        if self.closed:
            raise ClosedError("the session is closed; make a new session")
        scoped = copy.copy(self)
        scoped._principal = check_principal(principal)  # noqa: SLF001 - of this class
        scoped._credentials = GivenCredentials(credentials)  # noqa: SLF001
        scoped._parent = self  # noqa: SLF001
        return scoped

    def with_timeouts(self, timeouts: Timeouts) -> Session:
        """The same session, for the same principal, with other limits on bodies and opening.

        It shares all resources of this session, and need not be closed. `Timeouts.connect` and
        `Timeouts.first_byte` belong to the connections, so those of the first session count.

        Raises:
            ConfigurationError: `timeouts` is not what it should be.
            ClosedError: The session is closed.
        """
        if self.closed:
            raise ClosedError("the session is closed; make a new session")
        view = copy.copy(self)
        view._timeouts = check_timeouts(timeouts)  # noqa: SLF001 - of this class
        view._parent = self  # noqa: SLF001
        return view

    @property
    def observed(self) -> bool:
        """Whether there is a hook; without one, events need not even be made."""
        return bool(self._hooks)

    def emit(self, event: Event) -> None:
        """Tell the hooks. One that raises is reported to the event loop, and the work goes on."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001 - whatever a hook does, the work goes on
                _report(hook, error)

    async def __aenter__(self) -> Self:
        self._resources.bind()
        return self

    async def aclose(self) -> None:
        """Close everything that the session owns, in reverse order of making.

        May be called again, and from several tasks: all but the first wait until it is done. A
        scoped session owns nothing, so closing it does nothing.

        Raises:
            ExceptionGroup: Resources that failed to close; all have been asked to.
            WrongLoopError: The session belongs to another event loop; nothing was closed.
        """
        if self._parent is None:
            await self._resources.aclose()

    def __del__(self) -> None:
        # An argument that was refused leaves a session without resources.
        resources: _Resources | None = getattr(self, "_resources", None)
        if resources is not None and self._parent is None and resources.need_closing:
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        scope = "" if self._parent is None else " scoped"
        state = "closed" if self.closed else "open"
        return (
            f"<Session{scope} lookahead={self._lookahead} tls_verify={self._tls_verify}, {state}>"
        )


class _Resources:
    """The objects of a session by key, and the event loop that they belong to.

    Args:
        objects: The settings, by `ResourceKey`.
    """

    __slots__ = ("_done", "_loop", "_objects", "closed")

    def __init__(self, objects: Mapping[object, object]) -> None:
        self._objects = dict(objects)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = asyncio.Event()
        self.closed = False

    @property
    def need_closing(self) -> bool:
        return any(isinstance(value, AsyncResource) for value in self._objects.values())

    def bind(self) -> None:
        """Belong to the running event loop, unless another one was bound before."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            message = "a session is used from within an event loop, and none is running here"
            raise WrongLoopError(message) from None
        if loop is self._loop:
            return
        if self._loop is None and not self.closed:
            self._loop = loop
        if self._loop not in {None, loop}:
            message = "this session belongs to another event loop; make one session for each loop"
            raise WrongLoopError(message)

    def get(self, key: ResourceKey[T], factory: Callable[[], T]) -> T:
        self.bind()
        # While closing, what is not closed yet still serves what needs it to close.
        kept = self._objects.get(key, _ABSENT)
        if kept is not _ABSENT:
            return cast("T", kept)
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


def _report(hook: Hook, error: Exception) -> None:
    context = {"message": f"the hook {hook!r} raised an exception", "exception": error}
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # Events are emitted on the loop; without one there is none to tell.
    loop.call_exception_handler(context)


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

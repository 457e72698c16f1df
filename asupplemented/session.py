"""The session: one place that owns what outlives a single source.

Clients, pools, tokens, limiters and threads are made by those who need them and kept here by
key, so that the session need not know any of them; it closes them in reverse order.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Final, TypeVar

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
from asupplemented.errors import ClosedError, ConfigurationError
from asupplemented.holdings import Holdings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
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

__all__ = ("LOOKAHEAD", "CredentialLike", "ScopedSession", "Session")

T = TypeVar("T")

LOOKAHEAD: Final = 64
"""Manifest fetches beyond the one that is needed next, unless the caller says otherwise."""

_TIMEOUTS: Final = Timeouts()


class Session(AsyncResource):
    """Owns connections, tokens, caches and threads; everything is opened with one.

    It belongs to the event loop that first uses it, may serve many tasks of that loop at once,
    and is closed by who made it. Sources and streams are closed before it.

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
        hooks: Told of every `asupplemented.events.Event`.
        settings: What those find whom it concerns, one of each kind; see
            `asupplemented.abc.Setting`.

    Raises:
        ConfigurationError: An argument is not what it should be.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_credentials",
        "_holdings",
        "_hooks",
        "_http",
        "_lookahead",
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
        self._holdings = Holdings(check_settings(settings))

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
    def principal(self) -> None:
        """Nobody in particular; see `scoped`."""
        return None

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

    def scoped(
        self,
        principal: str,
        *,
        credentials: Mapping[str, CredentialLike] | CredentialProvider | None = None,
    ) -> ScopedSession:
        """A view of this session for one of those whom a program serves, to open references with.

        Connections, threads and settings are shared. What registries grant, and what is kept of
        their answers, is not: it belongs to the principal and its credentials, and never
        reaches another (rule SEC-13). Views with the same principal and the same credentials
        share it, so a view may be made for each request.

        Args:
            principal: Who asks, as only the program knows it; it is sent to nobody and shown
                nowhere. It is believed: what one principal may read is kept for whoever is
                called the same. So name those whom the program has authenticated; where
                credentials are only passed on, take a keyed hash of all of them, for a user name
                alone proves nothing.
            credentials: As for `Session`. None is anonymous access: those of the session itself
                are never used.

        Raises:
            ConfigurationError: An argument is not what it should be.
            ClosedError: The session is closed.
        """
        if self.closed:
            raise ClosedError("the session is closed; make a new session")
        return ScopedSession(self, check_principal(principal), GivenCredentials(credentials))

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


class ScopedSession:
    """A session as one principal sees it; `Session.scoped` makes it.

    It is what adapters see of a session, and owns nothing: it need not be closed, and is of no
    use once its session is.
    """

    __slots__ = ("_credentials", "_principal", "_session")

    def __init__(self, session: Session, principal: str, credentials: CredentialProvider) -> None:
        self._session = session
        self._principal = principal
        self._credentials = credentials

    @property
    def lookahead(self) -> int:
        return self._session.lookahead

    @property
    def tls_verify(self) -> bool | None:
        return self._session.tls_verify

    @property
    def timeouts(self) -> Timeouts:
        return self._session.timeouts

    @property
    def http(self) -> aiohttp.ClientSession | None:
        return self._session.http

    @property
    def credentials(self) -> CredentialProvider:
        """Those of the principal, and nobody else's."""
        return self._credentials

    @property
    def cache(self) -> BlobCache | None:
        return self._session.cache

    @property
    def share(self) -> Share | None:
        return self._session.share

    @property
    def principal(self) -> str:
        """Who asks."""
        return self._principal

    @property
    def closed(self) -> bool:
        """Whether the session is closed."""
        return self._session.closed

    def scoped(
        self,
        principal: str,
        *,
        credentials: Mapping[str, CredentialLike] | CredentialProvider | None = None,
    ) -> ScopedSession:
        """A view for somebody else in place of this one; see `Session.scoped`."""
        return self._session.scoped(principal, credentials=credentials)

    def resource(self, key: ResourceKey[T], factory: Callable[[], T]) -> T:
        return self._session.resource(key, factory)

    @property
    def observed(self) -> bool:
        return self._session.observed

    def emit(self, event: Event) -> None:
        self._session.emit(event)

    def __repr__(self) -> str:
        return f"<ScopedSession of {self._session!r}>"


def _report(hook: Hook, error: Exception) -> None:
    context = {"message": f"the hook {hook!r} raised an exception", "exception": error}
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # Events are emitted on the loop; without one there is nobody to tell.
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

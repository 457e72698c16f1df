"""Requests, the reference that they are for, and the objects of a session that send them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.budget import Ledger, ledger_of
from asupplemented.errors import RegistryError, SupplementedError
from asupplemented.events import RequestRetried, Warned
from asupplemented.transports.registry.connections import CONNECTIONS, Connections
from asupplemented.transports.registry.options import OPTIONS, RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping

    from multidict import CIMultiDict
    from yarl import URL

    from asupplemented.abc import Context, Timeouts
    from asupplemented.events import Event
    from asupplemented.transports.registry.error_response import Target

__all__ = ("OK", "ClientDeps", "Request", "RequestContext", "join_headers")

OK: Final = frozenset((200,))


class Request(NamedTuple):
    """One HTTP request, before it is sent."""

    url: URL
    """Absolute; or, for `RegistryClient.send`, a path and query below the registry's origin,
    made of validated parts only (rule SEC-09)."""
    target: Target
    headers: CIMultiDict[str] | None = None
    """Sent to every origin that a redirect leads to."""
    origin_headers: CIMultiDict[str] | None = None
    """Sent to the origin of `url` only, besides `headers`: credentials."""
    method: Literal["GET", "HEAD"] = "GET"
    """Used without a form. Redirects do not change it (rule REDIR-04)."""
    form: Mapping[str, str] | None = None
    """Sent by POST. Such a request follows no redirects."""
    check_redirect: Callable[[URL], None] | None = None
    """Raises `MalformedResponseError` for a URL that a redirect must not lead to."""
    scope: str = ""
    """The scope that a token for this request needs."""
    statuses: Collection[int] = OK
    """Statuses that `RegistryClient.send` returns; all others are errors."""
    path: str = ""
    """For `RegistryClient.send`: a path that takes the place of `url`, which saves making two URLs
    of it. It is made of validated parts only."""
    hurried: bool = False
    """Another source can serve this, so `RegistryClient.send` retries with
    ``RegistryOptions.haste``, and not at all if the registry is busy."""
    weight: int = 0
    """The weight of its slot, if it is for the body of a blob."""

    def all_headers(self) -> CIMultiDict[str] | None:
        """The headers for the origin of `url`."""
        return join_headers(self.headers, self.origin_headers)


def join_headers(
    one: CIMultiDict[str] | None, other: CIMultiDict[str] | None
) -> CIMultiDict[str] | None:
    """Both headers together; neither is changed."""
    if one is None or other is None:
        return one or other
    joined = one.copy()
    joined.extend(other)
    return joined


class RequestContext(NamedTuple):
    """The reference that requests are sent for, and where its events go."""

    reference: str
    emit: Callable[[Event], None]
    mirrored_registry: str | None = None
    """The registry that a mirror stands in for, sent in ``ns`` of each request (rule CONF-20)."""
    has_alternatives: bool = False
    """Another registry can serve this, so requests are not retried."""

    def report_retry(self, error: SupplementedError, attempt: int, delay: float) -> None:
        """Emit an event for a request that is sent again."""
        status = error.status if isinstance(error, RegistryError) else None
        reason = type(error).__name__ if status is None else str(status)
        self.emit(RequestRetried(self.reference, reason, attempt, delay))

    def warn(self, message: str) -> None:
        """Emit a warning for the operator."""
        self.emit(Warned(self.reference, message))

    @contextmanager
    def locating(self, digest: str | None = None) -> Generator[None]:
        """Record the reference and the digest on errors that pass through."""
        try:
            yield
        except SupplementedError as error:
            error.locate(reference=self.reference, digest=digest)
            raise


@dataclass(frozen=True, slots=True)
class ClientDeps:
    """What every client of a session works with."""

    connections: Connections
    options: RegistryOptions
    timeouts: Timeouts
    clock: Clock
    ledger: Ledger

    @classmethod
    def of(cls, context: Context) -> ClientDeps:
        """The connections, settings and clock of a session.

        Raises:
            ConfigurationError: The HTTP client that was passed to the session cannot be used.
        """
        options = context.resource(OPTIONS, RegistryOptions)
        workers = context.resource(WORKERS, Workers)
        connections = context.resource(
            CONNECTIONS,
            lambda: Connections(
                context.http,
                timeouts=context.timeouts,
                options=options,
                in_thread=workers.run,
                emit=context.emit if context.observed else None,
            ),
        )
        clock = context.resource(CLOCK, Clock)
        return cls(connections, options, context.timeouts, clock, ledger_of(context))

"""The client of one registry as one identity: ping, access, retries and limits in one place.

The sources of a session share it: however many references of a registry are opened, there is
one ping, one token for each repository, and one count of what is going on (rules SRC-03, -04).

How much at once, and when not at all: the limits of one registry (rule RET-07).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import quote

import anyio
from aiohttp import hdrs
from yarl import URL

from asupplemented.aio.concurrency import SingleFlight
from asupplemented.aio.retry import FirstFailure, retry
from asupplemented.errors import (
    ForbiddenError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.model.credential import Credential
from asupplemented.transports.registry.auth import Access
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.challenge import parse_challenges
from asupplemented.transports.registry.notices import Notices
from asupplemented.transports.registry.patience import judge, judge_ping, judge_rival
from asupplemented.transports.registry.ping import ping
from asupplemented.transports.registry.redirects import REDIRECTS, Courier, Home, Parcel
from asupplemented.transports.registry.tokens import TokenServer, TokenServerPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

    import aiohttp
    from multidict import CIMultiDict

    from asupplemented.aio.retry import Clock, RetryPolicy
    from asupplemented.transports.registry.auth import Grant
    from asupplemented.transports.registry.endpoint import Route
    from asupplemented.transports.registry.error_response import Inquiry
    from asupplemented.transports.registry.request import Caller, Means

__all__ = ("Errand", "Limiter", "RegistryClient", "Site", "locate")


class Limiter:
    """Counts bodies, and holds back new requests while a registry asks for a pause.

    Manifests take no place, so they never wait behind big blobs.

    Args:
        bodies: Blobs that may be read at the same time.
        clock: Where time comes from.
    """

    __slots__ = ("_clock", "_paused_until", "bodies")

    def __init__(self, bodies: int, *, clock: Clock) -> None:
        self.bodies = anyio.Semaphore(bodies)
        self._clock = clock
        self._paused_until: float | None = None

    def pause(self, seconds: float) -> None:
        """Hold back requests that begin from now on; bodies that are being read go on."""
        until = self._clock.now() + seconds
        self._paused_until = max(until, self._paused_until or until)

    @property
    def paused(self) -> bool:
        """Whether a pause was asked for, and nobody has seen its end yet."""
        return self._paused_until is not None

    async def wait(self, patience: float) -> None:
        """Wait until requests may begin.

        Args:
            patience: Seconds that this request waits for pauses to end.

        Raises:
            TooManyRequestsError: The registry asks for more than `patience` in all.
        """
        deadline = self._clock.now() + patience
        while self._paused_until is not None:
            now = self._clock.now()
            if self._paused_until <= now:
                self._paused_until = None
            elif self._paused_until > deadline:
                message = "the registry asks for one pause after another"
                raise TooManyRequestsError(
                    message, status=429, retry_after=self._paused_until - now
                )
            else:
                await self._clock.sleep(self._paused_until - now)


OK: Final = frozenset((200,))

_DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_TOKENS: Final = ("https://auth.docker.io",)


class Errand(NamedTuple):
    """Something to get from a registry."""

    path: str
    """Below the origin; made of validated parts only (rule SEC-09)."""
    scope: str
    """What access it needs."""
    inquiry: Inquiry
    headers: CIMultiDict[str] | None = None
    """Besides the usual ones, wherever a redirect leads."""
    good: Collection[int] = OK
    """Statuses that are an answer."""
    timeout: aiohttp.ClientTimeout | None = None
    query: str = ""
    """What follows the path and a question mark, quoted as it is to be sent."""
    method: Literal["GET", "HEAD"] = "GET"
    patience: RetryPolicy | None = None
    """With what precedes the body; None is the usual one."""


class Site(NamedTuple):
    """A registry that was reached, and the way into it."""

    access: Access
    courier: Courier
    home: Home


def locate(home: Home, errand: Errand, namespace: str | None = None) -> URL:
    """The URL of what is to be got, which names the registry that is stood in for, if any."""
    url = home.url.with_path(errand.path, encoded=True)
    told = "" if namespace is None else f"ns={quote(namespace, safe='')}"
    query = "&".join(filter(None, (errand.query, told)))
    return URL(f"{url}?{query}", encoded=True) if query else url


class RegistryClient:
    """One registry, one identity.

    Args:
        route: The registry, and how it is reached.
        credential: The identity, None for anonymous.
        means: Connections, settings and time.
    """

    def __init__(self, route: Route, credential: Credential | None, means: Means) -> None:
        self.registry = route.registry
        self._route = route
        self.means = means
        options = means.options
        self.limiter = Limiter(options.limits.bodies, clock=means.clock)
        self.signatures = False
        """Whether the registry speaks the X-R-S-S extension (rule PING-07); known when reached."""
        self._connections = means.connections
        self._credential = credential
        self._site: Site | None = None
        self._pings = SingleFlight[Site]()
        self._notices = Notices(route.registry)

    async def send(self, errand: Errand, caller: Caller) -> aiohttp.ClientResponse:
        """Get the head of an answer with one of the good statuses; the caller closes it.

        What precedes a body is tried again as rule RET-06 says.

        Raises:
            NotFoundError: It is not there, if the inquiry foresees that.
            SourceError: The registry failed, refused, or answered what nobody understands.
        """
        start = self.means.clock.now()
        outcome: aiohttp.ClientResponse | SupplementedError | FirstFailure
        try:
            outcome = await self._attempt(errand, caller)
        except SupplementedError as error:
            outcome = FirstFailure(error, start)
        # Beyond the handler, so that failures do not pile up as contexts of one another.
        if isinstance(outcome, FirstFailure):
            try:
                outcome = await self._retry(errand, caller, outcome)
            except SupplementedError as error:
                self._name_trouble(error)
                raise
        if isinstance(outcome, SupplementedError):
            self._name_trouble(outcome)
            raise outcome
        return outcome

    def _name_trouble(self, error: SupplementedError) -> None:
        """Name the credential helper that failed in the error of denied access (rule FILE-01)."""
        trouble = None if self._credential is None else self._credential.trouble
        if not isinstance(error, UnauthorizedError | ForbiddenError) or trouble is None:
            return
        if trouble not in error.message:
            error.message = f"{error.message}; a credential helper failed: {trouble}"
            error.args = (error.message,)

    async def reach(self, caller: Caller) -> Site:
        """Make sure that the registry was reached: ping it, unless that was done before.

        Raises:
            SourceError: It is not there, or does not answer as it should.
        """
        return self._site or await self._pings.run(partial(self._arrive, caller))

    async def _retry(
        self, errand: Errand, caller: Caller, first: FirstFailure
    ) -> aiohttp.ClientResponse | SupplementedError:
        return await retry(
            partial(self._attempt, errand, caller),
            judge=judge_rival if caller.rivals else judge,
            policy=errand.patience or self.means.options.retry,
            clock=self.means.clock,
            notify=partial(self._before_retry, caller),
            first=first,
        )

    async def _attempt(
        self, errand: Errand, caller: Caller
    ) -> aiohttp.ClientResponse | SupplementedError:
        """One attempt. An error that is returned has had its retries; one that is raised not."""
        try:
            if self.limiter.paused:
                await self.limiter.wait((errand.patience or self.means.options.retry).budget)
            site = self._site or await self.reach(caller)
            grant = site.access.current(errand.scope)
            if grant is None:
                grant = await site.access.obtain(errand.scope, caller)
        except SupplementedError as error:
            return error
        response = await self._ask(site, errand, grant, caller)
        if response.status in errand.good:
            self._notices.read(response.headers, caller)
            return response
        return await self._insist(site, errand, grant, response, caller)

    def _ask(
        self, site: Site, errand: Errand, grant: Grant, caller: Caller
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Send the request, and wait for the head of whatever is the answer."""
        home = site.home
        return self._connections.send(
            home.channel,
            locate(home, errand, caller.namespace),
            method=errand.method,
            headers=_join(errand.headers, grant.headers),
            timeout=errand.timeout,
        )

    async def _insist(
        self,
        site: Site,
        errand: Errand,
        grant: Grant,
        response: aiohttp.ClientResponse,
        caller: Caller,
    ) -> aiohttp.ClientResponse | SupplementedError:
        """Make the best of an answer that is not good: go where it sends us, be let in."""
        response, local = await self._follow(site, errand, grant, response, caller)
        if response.status == 401 and local:  # noqa: PLR2004
            better = await self._renew(site, errand, grant, response, caller)
            if isinstance(better, SupplementedError):
                return better
            if better is not None:
                response = await self._ask(site, errand, better, caller)
                response, local = await self._follow(site, errand, better, response, caller)
        if response.status in errand.good:
            return response
        raise await refuse(response, errand.inquiry, self.means, site.access.secrets())

    async def _follow(
        self,
        site: Site,
        errand: Errand,
        grant: Grant,
        response: aiohttp.ClientResponse,
        caller: Caller,
    ) -> tuple[aiohttp.ClientResponse, bool]:
        """The answer at the end of all redirects, and whether it is the registry's own."""
        if response.status not in REDIRECTS:
            self._notices.read(response.headers, caller)
            return response, True
        parcel = Parcel(
            locate(site.home, errand, caller.namespace),
            _join(errand.headers, grant.headers),
            errand.headers,
            timeout=errand.timeout,
            method=errand.method,
        )
        return await site.courier.follow(response, parcel)

    async def _renew(
        self,
        site: Site,
        errand: Errand,
        grant: Grant,
        response: aiohttp.ClientResponse,
        caller: Caller,
    ) -> Grant | SupplementedError | None:
        """What to carry after a 401; None, with the answer still open, if that was all."""
        better: Grant | SupplementedError | None = None
        kept = False
        try:
            offered = parse_challenges(response.headers.getall(hdrs.WWW_AUTHENTICATE, ()))
            better = await site.access.renew(errand.scope, grant, offered.challenges, caller)
            kept = better is None
        except SupplementedError as error:
            better = error
        finally:
            if not kept:
                response.close()
        return better

    async def _arrive(self, caller: Caller) -> Site:
        """Ping, with all patience; done once, and again only if it failed."""
        if self._site is not None:
            return self._site
        greeting = await retry(
            partial(ping, self._route, self.means, caller),
            judge=judge_rival if caller.rivals else judge_ping,
            policy=self.means.options.retry,
            clock=self.means.clock,
            notify=partial(self._before_retry, caller),
        )
        home = greeting.home
        if self._credential is not None and self._credential.trouble is not None:
            caller.warn(f"a credential helper failed: {self._credential.trouble}")
        if self._credential not in {None, Credential()} and home.origin.scheme == "http":
            caller.warn(f"credentials are sent to {home.origin} over plain http")
        policy = TokenServerPolicy(self.registry, home.origin, home.insecure, self._named())
        server = TokenServer(greeting.courier, policy, self._credential, self.means)
        clock = self.means.clock
        access = Access(self._credential, greeting.challenges, server, clock)
        self._site = Site(access, greeting.courier, home)
        self.signatures = greeting.signatures
        return self._site

    def _named(self) -> Collection[str]:
        """Token servers that may have the credentials because somebody said so (CRED-02)."""
        named = self.means.options.token_servers.get(self.registry, ())
        return (*named, *_DOCKER_HUB_TOKENS) if self.registry == _DOCKER_HUB else named

    def _before_retry(
        self, caller: Caller, error: SupplementedError, attempt: int, delay: float
    ) -> None:
        if isinstance(error, TooManyRequestsError):
            self.limiter.pause(delay)
        caller.report_retry(error, attempt, delay)


def _join(
    everywhere: CIMultiDict[str] | None, at_home: CIMultiDict[str] | None
) -> CIMultiDict[str] | None:
    """All headers of a request, those that only the registry may see included."""
    if everywhere is None or at_home is None:
        return everywhere or at_home
    joined = everywhere.copy()
    joined.extend(at_home)
    return joined

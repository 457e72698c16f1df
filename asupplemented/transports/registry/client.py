"""The client of one registry for one identity: ping, authentication, retries and limits.

All sources of a session share it: however many references of a registry are opened, the registry
is pinged once, each repository has one token, and bodies and pauses are counted once
(rules SRC-03, SRC-04).

One request goes through these steps, in this order: wait for a pause that the registry asked for,
ping if that was not done, get an authorization, send, follow redirects, and after a 401 of the
registry itself renew the authorization and send again, twice at most. Only then is the whole
attempt retried.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import hdrs
from yarl import URL

from asupplemented.aio.concurrency import SingleFlight
from asupplemented.aio.retry import FirstFailure, retry
from asupplemented.aio.slots import Slots
from asupplemented.budget import Account
from asupplemented.errors import (
    ForbiddenError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.model.credential import Credential
from asupplemented.transports.registry.auth import Authenticator
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.challenge import parse_challenges
from asupplemented.transports.registry.failures import (
    never_retry,
    should_retry,
    should_retry_in_haste,
)
from asupplemented.transports.registry.notices import HeaderNotices
from asupplemented.transports.registry.ping import ping
from asupplemented.transports.registry.redirects import REDIRECTS
from asupplemented.transports.registry.request import join_headers
from asupplemented.transports.registry.tokens import (
    TokenServer,
    TokenServerPolicy,
    secrets_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import aiohttp

    from asupplemented.aio.retry import Clock, Retry, RetryPolicy
    from asupplemented.transports.registry.auth import Authorization
    from asupplemented.transports.registry.challenge import Challenge
    from asupplemented.transports.registry.endpoint import Endpoint, EndpointConfig
    from asupplemented.transports.registry.ping import PingResult
    from asupplemented.transports.registry.request import ClientDeps, Request, RequestContext

__all__ = ("Limiter", "RegistryClient", "resolve_url")

MAX_RENEWALS: Final = 2
"""Times that one request is sent again with another authorization (rule TOK-08)."""

_UNAUTHORIZED: Final = 401


class Limiter:
    """The limits of one registry: bodies at the same time, and pauses (rule RET-07).

    Manifests take no slot, so they never wait behind big blobs.

    Args:
        bodies: The slots of blobs that are read at the same time.
        clock: Where time comes from.
    """

    __slots__ = ("_clock", "_paused_until", "bodies")

    def __init__(self, bodies: Slots, *, clock: Clock) -> None:
        self.bodies = bodies
        self._clock = clock
        self._paused_until: float | None = None

    def pause(self, seconds: float) -> None:
        """Hold back requests that begin from now on; bodies that are being read go on."""
        until = self._clock.now() + seconds
        self._paused_until = max(until, self._paused_until or until)

    @property
    def paused(self) -> bool:
        """Whether a pause was asked for; `wait` notices its end."""
        return self._paused_until is not None

    async def wait(self, budget: float) -> None:
        """Wait until requests may begin.

        Args:
            budget: Seconds that this request waits for pauses, in all.

        Raises:
            TooManyRequestsError: The registry asks for more than `budget`.
        """
        deadline = self._clock.now() + budget
        while self._paused_until is not None:
            now = self._clock.now()
            if self._paused_until <= now:
                self._paused_until = None
            elif self._paused_until > deadline:
                message = "the registry asked for a pause that lasts too long; try again later"
                raise TooManyRequestsError(
                    message, status=429, retry_after=self._paused_until - now
                )
            else:
                await self._clock.sleep(self._paused_until - now)


def resolve_url(endpoint: Endpoint, url: URL, mirrored_registry: str | None = None) -> URL:
    """The absolute URL of a request to a registry.

    Args:
        endpoint: The registry.
        url: Path and query at its origin.
        mirrored_registry: The registry that it stands in for, if any, for ``ns``.
    """
    resolved = endpoint.url.with_path(url.raw_path, encoded=True)
    namespace = "" if mirrored_registry is None else f"ns={quote(mirrored_registry, safe='')}"
    query = "&".join(filter(None, (url.raw_query_string, namespace)))
    return URL(f"{resolved}?{query}", encoded=True) if query else resolved


class RegistryClient:
    """One registry, one identity.

    Args:
        config: The registry, and how it is reached.
        credential: The identity, None for anonymous.
        deps: Connections, settings and clock.
        principal: Whom the client serves, None for the session itself.

    Attributes:
        signatures: Whether the registry has the X-R-S-S extension (rule PING-07); known once it
            was pinged.
        secrets: What errors and events must not repeat.
    """

    def __init__(
        self,
        config: EndpointConfig,
        credential: Credential | None,
        deps: ClientDeps,
        *,
        principal: str | None = None,
    ) -> None:
        self.registry = config.registry
        self.deps = deps
        limits = deps.options.limits
        slots = Slots(limits.bodies, idle=limits.body_idle, limit=limits.body_wait)
        self.limiter = Limiter(slots, clock=deps.clock)
        self.signatures = False
        self._config = config
        self._credential = credential
        self._pinged: tuple[PingResult, Authenticator] | None = None
        self._pings = SingleFlight[tuple["PingResult", Authenticator]]()
        self.secrets = secrets_of(credential)
        self._account = Account.of(config.registry, credential)
        self._notices = HeaderNotices(self._account, deps.ledger, self.secrets)
        deps.ledger.use(principal, self._account)

    async def send(
        self, request: Request, request_context: RequestContext
    ) -> aiohttp.ClientResponse:
        """Send a request, and return the head of a response with one of its statuses.

        Failures before the body are retried (rule RET-06). The caller closes the response.

        Args:
            request: Its URL is a path and a query.
            request_context: The reference that it is for.

        Raises:
            NotFoundError: It does not exist, if the request's target can be missing.
            SourceError: The registry failed, refused, or sent a response that cannot be read.
        """
        with self.secrets.scrubbing():
            return await self._send(request, request_context)

    async def _send(
        self, request: Request, request_context: RequestContext
    ) -> aiohttp.ClientResponse:
        start = self.deps.clock.now()
        outcome: aiohttp.ClientResponse | SupplementedError | FirstFailure
        try:
            outcome = await self._attempt(request, request_context)
        except SupplementedError as error:
            outcome = FirstFailure(error, start)
        # Retried outside the handler, so that failures do not become contexts of one another.
        if isinstance(outcome, FirstFailure):
            try:
                outcome = await retry(
                    partial(self._attempt, request, request_context),
                    judge=self._choose_judge(request, request_context),
                    policy=self._choose_policy(request),
                    clock=self.deps.clock,
                    notify=partial(self._before_retry, request_context),
                    first=outcome,
                )
            except SupplementedError as error:
                self._finish_error(error)
                raise
        if isinstance(outcome, SupplementedError):
            self._finish_error(outcome)
            raise outcome
        return outcome

    def _finish_error(self, error: SupplementedError) -> None:
        """If access is denied, name a credential helper that failed (rule FILE-01)."""
        trouble = None if self._credential is None else self._credential.trouble
        if not isinstance(error, UnauthorizedError | ForbiddenError) or trouble is None:
            return
        if trouble not in error.message:
            error.message = f"{error.message}; a credential helper failed: {trouble}"
            error.args = (error.message,)

    async def ensure_pinged(self, request_context: RequestContext) -> PingResult:
        """Ping the registry, unless that was done before.

        Raises:
            SourceError: It cannot be reached, or does not respond as a registry.
        """
        with self.secrets.scrubbing():
            ping_result, _ = await self._get_pinged(request_context)
        return ping_result

    def __repr__(self) -> str:
        endpoint = self._pinged and self._pinged[0].redirect_client.endpoint
        authenticator = self._pinged and self._pinged[1]
        return f"RegistryClient({self.registry}, {endpoint and endpoint.url}, {authenticator!r})"

    async def _attempt(
        self, request: Request, request_context: RequestContext
    ) -> aiohttp.ClientResponse | SupplementedError:
        """Send a request once. Returned errors are final; raised errors may be retried."""
        try:
            if self.limiter.paused:
                hurried = request.hurried or request_context.has_alternatives
                await self.limiter.wait(0.0 if hurried else self.deps.options.retry.budget)
            pinged, authenticator = self._pinged or await self._get_pinged(request_context)
            authorization = authenticator.current(request.scope)
            kept = authorization is not None
            if authorization is None:
                authorization = await authenticator.obtain(request.scope, request_context)
        except SupplementedError as error:
            return error  # pings and tokens were retried already
        endpoint = pinged.redirect_client.endpoint
        url = resolve_url(endpoint, request.url, request_context.mirrored_registry)
        response = await self._send_once(endpoint, url, request, authorization)
        if response.status in request.statuses:
            self._notices.read(response.headers, request_context)
            return response
        # The whole request is made only now: most requests end above.
        sent = request._replace(url=url, origin_headers=authorization.headers)
        response, same_origin = await self._follow(pinged, sent, response, request_context)
        refused = [authorization]
        # A 401 of another origin is no challenge of the registry, so it gets no credentials.
        while response.status == _UNAUTHORIZED and same_origin and len(refused) <= MAX_RENEWALS:
            renewing = partial(authenticator.renew, request.scope, refused, kept=kept)
            renewed = await self._renew(renewing, response, request_context)
            if isinstance(renewed, SupplementedError):
                return renewed
            if renewed is None:
                break
            refused.append(renewed)
            kept = False
            response = await self._send_once(endpoint, url, request, renewed)
            sent = sent._replace(origin_headers=renewed.headers)
            response, same_origin = await self._follow(pinged, sent, response, request_context)
        if response.status in request.statuses:
            return response
        refusal = await refuse(response, request.target, self.deps, self.secrets)
        if isinstance(refusal, TooManyRequestsError):
            self.deps.ledger.record_refusal(self._account, refusal.retry_after)
        raise refusal

    def _send_once(
        self, endpoint: Endpoint, url: URL, request: Request, authorization: Authorization
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Send a request to its absolute URL, and wait for the head of the response."""
        return self.deps.connections.send(
            endpoint,
            url,
            method=request.method,
            headers=join_headers(request.headers, authorization.headers),
        )

    async def _follow(
        self,
        pinged: PingResult,
        sent: Request,
        response: aiohttp.ClientResponse,
        request_context: RequestContext,
    ) -> tuple[aiohttp.ClientResponse, bool]:
        """The response at the end of all redirects, and whether the registry itself sent it."""
        if response.status not in REDIRECTS:
            self._notices.read(response.headers, request_context)
            return response, True
        return await pinged.redirect_client.follow(response, sent)

    async def _renew(
        self,
        renewing: Callable[[Sequence[Challenge], RequestContext], Awaitable[Authorization | None]],
        response: aiohttp.ClientResponse,
        request_context: RequestContext,
    ) -> Authorization | SupplementedError | None:
        """The authorization to try after a 401.

        Returns:
            None, with the response still open, if there is nothing better to try. An error is
            final: token requests were retried already.
        """
        renewed: Authorization | SupplementedError | None = None
        keeps_response = False
        try:
            parsed = parse_challenges(response.headers.getall(hdrs.WWW_AUTHENTICATE, ()))
            renewed = await renewing(parsed.challenges, request_context)
            keeps_response = renewed is None
        except SupplementedError as error:
            renewed = error
        finally:
            if not keeps_response:
                response.close()
        return renewed

    async def _get_pinged(
        self, request_context: RequestContext
    ) -> tuple[PingResult, Authenticator]:
        return self._pinged or await self._pings.run(partial(self._ping, request_context))

    async def _ping(self, request_context: RequestContext) -> tuple[PingResult, Authenticator]:
        """Ping; done once, and again only if it failed."""
        if self._pinged is not None:
            return self._pinged
        result = await retry(
            partial(ping, self._config, self.deps, request_context),
            judge=never_retry if request_context.has_alternatives else should_retry,
            policy=self.deps.options.retry,
            clock=self.deps.clock,
            notify=partial(self._before_retry, request_context),
        )
        origin = result.redirect_client.endpoint.origin
        if self._credential is not None and self._credential.trouble is not None:
            request_context.warn(f"a credential helper failed: {self._credential.trouble}")
        if self._credential not in {None, Credential()} and origin.scheme == "http":
            request_context.warn(f"credentials are sent to {origin} over plain http")
        policy = TokenServerPolicy(
            self.registry,
            origin,
            self._config.insecure,
            self.deps.options.named_token_servers(self.registry),
            self.deps.options.private_targets,
        )
        proxy = result.redirect_client.endpoint.proxy
        if proxy is not None and proxy.authorization is not None:
            self.secrets.add(proxy.authorization.partition(" ")[2])
        server = TokenServer(
            result.redirect_client, policy, self._credential, self.deps, self.secrets
        )
        authenticator = Authenticator(self._credential, result.challenges, server, self.deps.clock)
        self._pinged = result, authenticator
        self.signatures = result.signatures
        return self._pinged

    def _choose_policy(self, request: Request) -> RetryPolicy:
        options = self.deps.options
        return options.haste if request.hurried else options.retry

    def _choose_judge(
        self, request: Request, request_context: RequestContext
    ) -> Callable[[SupplementedError], Retry | None]:
        if request_context.has_alternatives:
            return partial(self._judge_busy, never_retry)
        return partial(self._judge_busy, should_retry_in_haste) if request.hurried else should_retry

    def _judge_busy(
        self, judge: Callable[[SupplementedError], Retry | None], error: SupplementedError
    ) -> Retry | None:
        """Judge a failure, and remember the pause that a busy registry asks for (rule RET-06)."""
        pause = error.retry_after if isinstance(error, TooManyRequestsError) else None
        if pause is not None and pause <= self.deps.options.retry.longest:
            self.limiter.pause(pause)
        return judge(error)

    def _before_retry(
        self,
        request_context: RequestContext,
        error: SupplementedError,
        attempt: int,
        delay: float,
    ) -> None:
        if isinstance(error, TooManyRequestsError):
            self.limiter.pause(delay)
        request_context.report_retry(error, attempt, delay)

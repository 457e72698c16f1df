"""The client of one registry for one identity: contact, authentication, retries and limits.

All sources of a session share it: however many references of a registry are opened, its scheme is
chosen once, it is pinged at most once, each repository has one token, and bodies and pauses are
counted once (rules SRC-03, SRC-04).

One request goes through these steps, in this order: wait for a pause that the registry asked for,
find the registry if that was not done, get an authorization, send, follow redirects, and after a
401 of the registry itself get a better authorization and send again: first the one that the
registry demands, then twice at most a renewed one. A first response that is neither a success nor
such a 401 is judged by a ping (see `asupplemented.transports.registry.ping`). Only then is the
whole attempt retried.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from yarl import URL

from asupplemented.aio.concurrency import SingleFlight
from asupplemented.aio.retry import FirstFailure, retry
from asupplemented.aio.slots import BlobSlots
from asupplemented.budget import Account
from asupplemented.errors import (
    ForbiddenError,
    RegistryError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.model.credential import Credential
from asupplemented.transports.registry.auth import ANONYMOUS, Authenticator
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.failures import (
    never_retry,
    should_retry,
    should_retry_in_haste,
)
from asupplemented.transports.registry.notices import HeaderNotices
from asupplemented.transports.registry.ping import (
    find_registry,
    ping,
    read_challenges,
    tell_of_https,
)
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
    from asupplemented.transports.registry.endpoint import Endpoint, EndpointConfig
    from asupplemented.transports.registry.options import RegistryLimits
    from asupplemented.transports.registry.ping import PingResult
    from asupplemented.transports.registry.redirects import RedirectClient
    from asupplemented.transports.registry.request import ClientDeps, Request, RequestContext

__all__ = ("Limiter", "RegistryClient", "resolve_url")

T = TypeVar("T")

MAX_RENEWALS: Final = 2
"""Times that the authorization of one request is renewed (rule TOK-08)."""

_UNAUTHORIZED: Final = 401
_SERVER_ERROR: Final = 500
_BUSY: Final = frozenset((408, 429))
_OVERLOADED: Final = frozenset((429, 503))


class Limiter:
    """The limits of one registry: bodies in flight, and pauses (rules RET-07, RET-11).

    Manifests take no slot, so they never wait behind big blobs.

    Args:
        limits: How many bodies, and how many bytes of them.
        clock: Where time comes from.

    Attributes:
        bodies: The slots of blobs that are read at the same time.
    """

    __slots__ = ("_clock", "_paused_until", "bodies")

    def __init__(self, limits: RegistryLimits, *, clock: Clock) -> None:
        self.bodies = BlobSlots(
            limits.bodies,
            limits.body_bytes,
            idle=limits.body_idle,
            limit=limits.body_wait,
            now=clock.now,
        )
        self._clock = clock
        self._paused_until: float | None = None

    def record_failure(self, error: SupplementedError, sent: float) -> None:
        """A request has failed: the registry may be overloaded (rule RET-11)."""
        status = error.status if isinstance(error, RegistryError) else None
        if status in _OVERLOADED or isinstance(error, SourceTimeoutError):
            self.bodies.record_refusal(sent)

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


def resolve_url(endpoint: Endpoint, request: Request, mirrored_registry: str | None = None) -> URL:
    """The absolute URL of a request to a registry.

    Args:
        endpoint: The registry.
        request: Has the path and the query.
        mirrored_registry: The registry that it stands in for, if any, for ``ns``.
    """
    path, query = request.path, ""
    if not path:
        path, query = request.url.raw_path, request.url.raw_query_string
    resolved = endpoint.url.with_path(path, encoded=True)
    if mirrored_registry is not None:
        namespace = f"ns={quote(mirrored_registry, safe='')}"
        query = f"{query}&{namespace}" if query else namespace
    return URL(f"{resolved}?{query}", encoded=True) if query else resolved


@dataclass(slots=True, eq=False, repr=False)
class _Contact:
    """What is known of a registry that was found."""

    redirect_client: RedirectClient
    authenticator: Authenticator
    https_failure: SupplementedError | None
    """Why it is tried over http; None if it is not, or was pinged."""
    ping_result: PingResult | None = None
    """None if it was not pinged yet."""
    answered: bool = False
    """Whether it has responded as a registry does: to a request, or to a ping."""


class RegistryClient:
    """One registry, one identity.

    Args:
        config: The registry, and how it is reached.
        credential: The identity, None for anonymous.
        deps: Connections, settings and clock.
        principal: Whom the client serves, None for the session itself.

    Attributes:
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
        self.limiter = Limiter(deps.options.limits, clock=deps.clock)
        self._config = config
        self._credential = credential
        self._contact: _Contact | None = None
        self._contacts = SingleFlight[_Contact]()
        self._pings = SingleFlight["PingResult"]()
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
        start = self.deps.clock.now()
        outcome: aiohttp.ClientResponse | SupplementedError | FirstFailure
        try:
            outcome = await self._attempt(request, request_context)
        except SupplementedError as error:
            outcome = FirstFailure(error, start)
        if not isinstance(outcome, SupplementedError | FirstFailure):
            return outcome
        # Retried outside the handler, so that failures do not become contexts of one another.
        with self.secrets.scrubbing():
            return await self._retry_or_raise(outcome, request, request_context)

    async def _retry_or_raise(
        self,
        outcome: SupplementedError | FirstFailure,
        request: Request,
        request_context: RequestContext,
    ) -> aiohttp.ClientResponse:
        """Send a request again after an attempt that failed, unless its failure is final."""
        if isinstance(outcome, FirstFailure):
            try:
                again = await retry(
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
            if not isinstance(again, SupplementedError):
                return again
            outcome = again
        self._finish_error(outcome)
        raise outcome

    def _finish_error(self, error: SupplementedError) -> None:
        """If access is denied, name a credential helper that failed (rule FILE-01)."""
        trouble = None if self._credential is None else self._credential.trouble
        if not isinstance(error, UnauthorizedError | ForbiddenError) or trouble is None:
            return
        if trouble not in error.message:
            error.message = f"{error.message}; a credential helper failed: {trouble}"
            error.args = (error.message,)

    async def find(self, request_context: RequestContext) -> RedirectClient:
        """What sends requests to the registry, and to where it redirects.

        Raises:
            SourceError: Its scheme has to be found out, and it cannot be reached.
        """
        with self.secrets.scrubbing():
            contact = self._contact or await self._find_contact(request_context)
        return contact.redirect_client

    async def has_signatures(self, request_context: RequestContext) -> bool:
        """Whether the registry has the X-R-S-S extension; it is pinged for that (rule PING-07).

        Raises:
            SourceError: It cannot be reached, or does not respond as a registry.
        """
        with self.secrets.scrubbing():
            contact = self._contact or await self._find_contact(request_context)
            try:
                ping_result = await self._get_ping(contact, request_context)
            except SupplementedError as error:
                self._lose(contact, error)
                raise
        return ping_result.signatures

    def __repr__(self) -> str:
        contact = self._contact
        url = contact and contact.redirect_client.endpoint.url
        return f"RegistryClient({self.registry}, {url}, {contact and contact.authenticator!r})"

    async def _attempt(
        self, request: Request, request_context: RequestContext
    ) -> aiohttp.ClientResponse | SupplementedError:
        """Send a request once. Returned errors are final; raised errors may be retried."""
        try:
            if self.limiter.paused:
                hurried = request.hurried or request_context.has_alternatives
                await self.limiter.wait(0.0 if hurried else self.deps.options.retry.budget)
            contact = self._contact or await self._find_contact(request_context)
            authenticator = contact.authenticator
            authorization = authenticator.current(request.scope)
            kept = authorization is not None
            if authorization is None:
                authorization = await authenticator.obtain(request.scope, request_context)
        except SupplementedError as error:
            return error  # pings and tokens were retried already
        began = self.deps.clock.now()
        endpoint = contact.redirect_client.endpoint
        url = resolve_url(endpoint, request, request_context.mirrored_registry)
        try:
            response = await self._send_once(endpoint, url, request, authorization)
            if response.status in request.statuses:
                if not contact.answered:
                    self._confirm(contact, request_context)
                self._notices.read(response.headers, request_context)
                self._record_answer(request, began)
                return response
            # The whole request is made only now: most requests end above.
            sent = request._replace(url=url, path="", origin_headers=authorization.headers)
            return await self._insist(
                contact, sent, response, authorization, request_context, kept=kept, began=began
            )
        except SupplementedError as error:
            self.limiter.record_failure(error, began)
            self._lose(contact, error)
            raise

    def _record_answer(self, request: Request, began: float) -> None:
        if request.weight:
            self.limiter.bodies.record_first_byte(began, request.weight)

    async def _insist(
        self,
        contact: _Contact,
        sent: Request,
        response: aiohttp.ClientResponse,
        authorization: Authorization,
        request_context: RequestContext,
        *,
        kept: bool,
        began: float,
    ) -> aiohttp.ClientResponse | SupplementedError:
        """Follow redirects, and send a request again with what the registry demands.

        Args:
            contact: The registry.
            sent: The request; its URL is absolute.
            response: Its response, which is no success.
            authorization: What it carried.
            request_context: The reference that it is for.
            kept: Whether `authorization` was got for an earlier request.
            began: When the request was sent first.
        """
        if contact.https_failure is not None and response.status in REDIRECTS:
            # Over plain http, a server that only redirects is no registry; the ping tells.
            pinging = self._get_ping(contact, request_context)
            outcome = await self._get_or_close(contact, response, pinging)
            if isinstance(outcome, SupplementedError):
                return outcome
        response, same_origin = await self._follow(contact, sent, response, request_context)
        refused = [authorization]
        while response.status not in sent.statuses:
            finding = self._find_better(
                contact,
                sent.scope,
                response,
                refused,
                request_context,
                same_origin=same_origin,
                kept=kept,
            )
            better = await self._get_or_close(contact, response, finding)
            if isinstance(better, SupplementedError):
                return better
            if better is None:
                break
            response.close()
            refused.append(better)
            kept = False
            sent = sent._replace(origin_headers=better.headers)
            endpoint = contact.redirect_client.endpoint
            response = await self._send_once(endpoint, sent.url, sent, better)
            response, same_origin = await self._follow(contact, sent, response, request_context)
        if response.status in sent.statuses:
            if not contact.answered:
                self._confirm(contact, request_context)
            self._record_answer(sent, began)
            return response
        refusal = await refuse(response, sent.target, self.deps, self.secrets)
        if isinstance(refusal, TooManyRequestsError):
            self.deps.ledger.record_refusal(self._account, refusal.retry_after)
        raise refusal

    async def _get_or_close(
        self, contact: _Contact, response: aiohttp.ClientResponse, getting: Awaitable[T]
    ) -> T | SupplementedError:
        """What a ping or a token request gives; if it fails, a response that is open is closed.

        Returns:
            An error is final, for such requests are retried already.
        """
        try:
            return await getting
        except SupplementedError as error:
            response.close()
            self._lose(contact, error)
            return error
        except BaseException:
            response.close()
            raise

    async def _find_better(
        self,
        contact: _Contact,
        scope: str,
        response: aiohttp.ClientResponse,
        refused: Sequence[Authorization],
        request_context: RequestContext,
        *,
        same_origin: bool,
        kept: bool,
    ) -> Authorization | None:
        """The authorization to send a request again with, None if there is nothing to try.

        A 401 of another origin is no challenge of the registry, so it gets no credentials.
        """
        authenticator = contact.authenticator
        renewals = sum(each is not ANONYMOUS for each in refused)
        if response.status == _UNAUTHORIZED and same_origin and renewals <= MAX_RENEWALS:
            offered = read_challenges(
                response, self.registry, None if contact.answered else request_context
            )
            if not contact.answered:
                self._confirm(contact, request_context)
            better = await authenticator.renew(scope, refused, offered, request_context, kept=kept)
            if better is not None:
                return better
        busy = response.status >= _SERVER_ERROR or response.status in _BUSY
        if renewals or contact.ping_result is not None or busy:
            return None
        # Some registries hide from anonymous clients what they have, instead of challenging them.
        await self._get_ping(contact, request_context)
        better = await authenticator.obtain(scope, request_context)
        return None if better is ANONYMOUS else better

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
        contact: _Contact,
        sent: Request,
        response: aiohttp.ClientResponse,
        request_context: RequestContext,
    ) -> tuple[aiohttp.ClientResponse, bool]:
        """The response at the end of all redirects, and whether the registry itself sent it."""
        if response.status not in REDIRECTS:
            self._notices.read(response.headers, request_context)
            return response, True
        return await contact.redirect_client.follow(response, sent)

    async def _find_contact(self, request_context: RequestContext) -> _Contact:
        return self._contact or await self._contacts.run(
            partial(self._make_contact, request_context)
        )

    async def _make_contact(self, request_context: RequestContext) -> _Contact:
        """Find the registry; done once, and again only if it failed."""
        if self._contact is not None:
            return self._contact
        found = await self._retry(
            partial(find_registry, self._config, self.deps, request_context), request_context
        )
        endpoint = found.redirect_client.endpoint
        policy = TokenServerPolicy(
            self.registry,
            endpoint.origin,
            self._config.insecure,
            self.deps.options.named_token_servers(self.registry),
            self.deps.options.private_targets,
        )
        proxy = endpoint.proxy
        if proxy is not None and proxy.authorization is not None:
            self.secrets.add(proxy.authorization.partition(" ")[2])
        server = TokenServer(
            found.redirect_client, policy, self._credential, self.deps, self.secrets
        )
        authenticator = Authenticator(self._credential, server, self.deps.clock)
        contact = _Contact(found.redirect_client, authenticator, found.https_failure)
        if found.ping_result is not None:
            self._learn(contact, found.ping_result, request_context)
        self._contact = contact
        return contact

    async def _get_ping(self, contact: _Contact, request_context: RequestContext) -> PingResult:
        return contact.ping_result or await self._pings.run(
            partial(self._ping, contact, request_context)
        )

    async def _ping(self, contact: _Contact, request_context: RequestContext) -> PingResult:
        """Ping; done once, and again only if it failed."""
        if contact.ping_result is not None:
            return contact.ping_result
        result = await self._retry(
            partial(ping, contact.redirect_client, self._config, self.deps, request_context),
            request_context,
        )
        self._learn(contact, result, request_context)
        return result

    async def _retry(
        self, operation: Callable[[], Awaitable[T]], request_context: RequestContext
    ) -> T:
        return await retry(
            operation,
            judge=never_retry if request_context.has_alternatives else should_retry,
            policy=self.deps.options.retry,
            clock=self.deps.clock,
            notify=partial(self._before_retry, request_context),
        )

    def _learn(
        self, contact: _Contact, ping_result: PingResult, request_context: RequestContext
    ) -> None:
        """Use what a ping has said."""
        self._confirm(contact, request_context)
        contact.ping_result = ping_result
        contact.authenticator.learn(ping_result.challenges)

    def _confirm(self, contact: _Contact, request_context: RequestContext) -> None:
        """Note that the registry has responded, before any credentials are sent to it."""
        if contact.answered:
            return
        contact.answered = True
        contact.https_failure = None
        self._contact = self._contact or contact
        contact.redirect_client.keep_scope()
        origin = contact.redirect_client.endpoint.origin
        if self._credential is not None and self._credential.trouble is not None:
            request_context.warn(f"a credential helper failed: {self._credential.trouble}")
        if self._credential not in {None, Credential()} and origin.scheme == "http":
            request_context.warn(f"credentials are sent to {origin} over plain http")

    def _lose(self, contact: _Contact, error: SupplementedError) -> None:
        """After a failure over http before any response of a registry, choose the scheme anew."""
        if contact.https_failure is None:
            return
        if self._contact is contact:
            self._contact = None
        tell_of_https(error, contact.https_failure)

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

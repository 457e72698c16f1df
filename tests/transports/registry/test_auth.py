"""Being let in: basic, bearer, refreshing, and where credentials go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import (
    ForbiddenError,
    MalformedResponseError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.model.credential import Credential
from asupplemented.testing import (
    Basic,
    Bearer,
    Body,
    Cut,
    Encoding,
    Endless,
    FakeRegistry,
    Headers,
    Hold,
    Html,
    Redirect,
    Status,
    Unauthorized,
)
from asupplemented.testing.access import credentials_of
from asupplemented.transports import parse_reference
from asupplemented.transports.registry.auth import MAX_SCOPES
from tests.suspending import settle
from tests.transports.registry.sessions import (
    BLOB_DIGEST,
    IMAGE,
    OPTIONS_HERE,
    fill,
    token_requests,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented.testing import Request
    from tests.transports.registry.sessions import Watched

BOB = Credential("bob", "secret")
IDENTITY = "identity"
SCOPE = "repository:team/app:pull"
MANIFEST = "/v2/team/app/manifests/latest"


@pytest.fixture
async def bearer() -> AsyncIterator[FakeRegistry]:
    """A registry with tokens, for bob and for everybody."""
    async with FakeRegistry(access=Bearer({"bob": "secret"})) as registry:
        fill(registry)
        yield registry


@pytest.fixture
async def basic() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        fill(registry)
        yield registry


def as_bob(registry: FakeRegistry, credential: Credential = BOB) -> Any:
    return {"credentials": {registry.host: credential}}


def access_of(registry: FakeRegistry) -> Bearer:
    assert isinstance(registry.access, Bearer)
    return registry.access


def token_body(**fields: Any) -> Body:
    return Body(json.dumps(fields).encode())


async def try_open(watched: Watched, registry: FakeRegistry, repository: str = "team/app") -> None:
    await watched.try_open(registry.reference(repository))


# Basic


async def test_CHAL04_basic(basic: FakeRegistry) -> None:
    async with watch(**as_bob(basic)) as watched:
        await try_open(watched, basic)
    first, second = basic.select_requests("latest")
    assert first.header("Authorization") is None
    assert credentials_of(second) == ("bob", "secret")
    assert basic.count() == 2


async def test_CHAL05_without_credentials_there_is_no_header(
    basic: FakeRegistry, watched: Watched
) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        await try_open(watched, basic)
    assert caught.value.status == 401
    assert all(request.header("Authorization") is None for request in basic.requests)
    assert basic.count("latest") == 1


@pytest.mark.parametrize("credential", [Credential("bob"), Credential("", ""), Credential()])
async def test_CHAL05_without_a_login_no_header_is_sent(
    basic: FakeRegistry, credential: Credential
) -> None:
    async with watch(**as_bob(basic, credential)) as watched:
        with pytest.raises(UnauthorizedError):
            await try_open(watched, basic)
    assert all(request.header("Authorization") is None for request in basic.requests)


async def test_TOK08_a_wrong_password_is_final(basic: FakeRegistry) -> None:
    async with watch(**as_bob(basic, Credential("bob", "wrong"))) as watched:
        with pytest.raises(UnauthorizedError):
            await try_open(watched, basic)
        assert watched.clock.slept == []
    assert basic.count("latest") == 2


async def test_basic_speaks_utf8(registry: FakeRegistry) -> None:
    registry.access = Basic({"bøb": "sécret:x"})
    credential = Credential("bøb", "sécret:x")
    async with watch(**as_bob(registry, credential)) as watched:
        await watched.try_open(fill(registry))


# Bearer


async def test_TOK01_TOK02_an_anonymous_token(bearer: FakeRegistry, watched: Watched) -> None:
    await try_open(watched, bearer)
    [request] = token_requests(bearer)
    assert request.method == "GET"
    assert request.query == (("service", "fake.registry"), ("scope", SCOPE))
    assert request.header("Authorization") is None
    assert bearer.requests[-1].header("Authorization") == "Bearer fake-token-1"


async def test_TOK01_a_token_for_somebody(bearer: FakeRegistry) -> None:
    async with watch(**as_bob(bearer)) as watched:
        await try_open(watched, bearer)
    [request] = token_requests(bearer)
    assert request.query[0] == ("account", "bob")
    assert credentials_of(request) == ("bob", "secret")
    first, second = bearer.select_requests("latest")
    assert first.header("Authorization") is None
    assert second.header("Authorization") == "Bearer fake-token-1"


@pytest.mark.parametrize("credential", [Credential("bob")])
async def test_TOK01_a_user_without_a_password_is_an_account_only(
    bearer: FakeRegistry, credential: Credential
) -> None:
    async with watch(**as_bob(bearer, credential)) as watched:
        await try_open(watched, bearer)
    [request] = token_requests(bearer)
    assert request.argument("account") == "bob"
    assert request.header("Authorization") is None


async def test_TOK01_the_query_of_the_realm_is_kept(bearer: FakeRegistry, watched: Watched) -> None:
    access_of(bearer).realm = f"{bearer.url}/token?tenant=a%2Fb"
    await try_open(watched, bearer)
    assert token_requests(bearer)[0].target.startswith("/token?tenant=a%2Fb&service=")


async def test_TOK03_an_identity_token_is_exchanged(bearer: FakeRegistry) -> None:
    access_of(bearer).refresh_tokens = {IDENTITY: "bob"}
    async with watch(**as_bob(bearer, Credential(identity_token=IDENTITY))) as watched:
        await try_open(watched, bearer)
    [request] = token_requests(bearer)
    assert request.method == "POST"
    assert request.header("Authorization") is None
    assert request.header("Content-Type") == "application/x-www-form-urlencoded"
    assert b"grant_type=refresh_token" in request.body
    assert b"refresh_token=identity" in request.body
    assert access_of(bearer).tokens[0].user == "bob"


@pytest.mark.parametrize("status", [404, 405])
async def test_TOK03_a_server_that_takes_no_identity_tokens_gets_the_password(
    bearer: FakeRegistry, status: int
) -> None:
    bearer.script("/token", Status(status), method="POST")
    credential = Credential("bob", "secret", identity_token=IDENTITY)
    async with watch(**as_bob(bearer, credential)) as watched:
        await try_open(watched, bearer)
    assert [request.method for request in token_requests(bearer)] == ["POST", "GET"]


async def test_TOK03_but_only_if_there_is_one(bearer: FakeRegistry) -> None:
    bearer.script("/token", Status(404), method="POST")
    async with watch(**as_bob(bearer, Credential(identity_token=IDENTITY))) as watched:
        with pytest.raises(UnexpectedStatusError):
            await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 1


async def test_TOK03_a_post_is_not_redirected(bearer: FakeRegistry, other: FakeRegistry) -> None:
    bearer.script("/token", Redirect(f"{other.url}/token"), method="POST")
    async with watch(**as_bob(bearer, Credential(identity_token=IDENTITY))) as watched:
        with pytest.raises(MalformedResponseError) as caught:
            await try_open(watched, bearer)
    assert IDENTITY not in str(caught.value)
    assert other.requests == []


async def test_CHAL04_a_token_is_preferred_where_there_is_one_to_use(
    bearer: FakeRegistry,
) -> None:
    access_of(bearer).refresh_tokens = {IDENTITY: "bob"}
    challenge = f'Basic realm="x", Bearer realm="{bearer.url}/token",service="s"'
    bearer.script("latest", Unauthorized(challenge=challenge), None)
    credential = Credential("bob", "secret", identity_token=IDENTITY)
    async with watch(**as_bob(bearer, credential)) as watched:
        await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 1


async def test_CHAL04_else_the_first_usable_challenge_counts(basic: FakeRegistry) -> None:
    challenge = f'Negotiate, Basic realm="x", Bearer realm="{basic.url}/token"'
    basic.script("latest", Unauthorized(challenge=challenge))
    async with watch(**as_bob(basic)) as watched:
        await try_open(watched, basic)
    assert basic.count("/token") == 0


async def test_CHAL04_an_unusable_challenge_leaves_us_anonymous(
    registry: FakeRegistry, watched: Watched
) -> None:
    registry.script("/v2/*", Unauthorized(challenge="Negotiate, Digest realm=x"), forever=True)
    with pytest.raises(UnauthorizedError):
        await watched.open(fill(registry))
    assert [request.path for request in registry.requests] == [MANIFEST, "/v2/"]


@pytest.mark.parametrize(
    "faults",
    [
        (Body(b"{}"),),
        (Body(b'{"token": ""}'),),
        (Body(b'{"token": "a\\r\\nX: y"}'),),
        (Html(),),
        (Encoding("gzip"),),
        (Endless(),),
        (Body(b" " * (1 << 20) + b"{}"),),
    ],
    ids=["nothing", "empty", "two lines", "a page", "gzip", "endless", "too large"],
)
async def test_TOK05_SEC10_answers_that_are_no_token(
    bearer: FakeRegistry, watched: Watched, faults: tuple[Any, ...]
) -> None:
    bearer.script("/token", faults)
    with pytest.raises(MalformedResponseError):
        await try_open(watched, bearer)
    assert bearer.count("latest") == 1


async def test_TOK06_a_busy_token_server_is_asked_again(
    bearer: FakeRegistry, watched: Watched
) -> None:
    busy = (Status(429, {"Retry-After": "5"}), Status(503))
    cuts = (Cut(after=None), Cut(after=None))  # one is tried again by aiohttp (rule TLS-09)
    bearer.script("/token", *busy, *cuts)
    await try_open(watched, bearer)
    assert watched.clock.slept == [5.0, 4.0, 8.0]


async def test_TOK06_its_patience_is_not_squared(bearer: FakeRegistry, watched: Watched) -> None:
    bearer.script("/token", Status(429), forever=True)
    with pytest.raises(TooManyRequestsError):
        await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 5
    bearer.clear_scripts()
    bearer.script("/token", Status(503), forever=True)
    with pytest.raises(ServerError):
        await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 10


async def test_TOK06_wrong_credentials(bearer: FakeRegistry) -> None:
    async with watch(**as_bob(bearer, Credential("bob", "sentinel"))) as watched:
        with pytest.raises(UnauthorizedError, match="with these credentials") as caught:
            await try_open(watched, bearer)
    assert "sentinel" not in str(caught.value)
    assert len(token_requests(bearer)) == 1


async def test_TOK10_no_anonymous_access(bearer: FakeRegistry, watched: Watched) -> None:
    access_of(bearer).public = False
    with pytest.raises(UnauthorizedError, match="without credentials"):
        await try_open(watched, bearer)


async def test_TOK09_a_registry_token_is_sent_as_it_is(bearer: FakeRegistry) -> None:
    registry_token = Credential(registry_token=IDENTITY)
    async with watch(**as_bob(bearer, registry_token)) as watched:
        with pytest.raises(UnauthorizedError):
            await try_open(watched, bearer)
    assert token_requests(bearer) == []
    sent = [request.header("Authorization") for request in bearer.requests]
    assert sent == [None, f"Bearer {IDENTITY}"]


# One token, and for how long


async def test_TOK07_a_token_serves_all_requests_of_a_repository(
    bearer: FakeRegistry, watched: Watched
) -> None:
    for _ in range(3):
        await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 1


async def test_TOK07_each_repository_has_its_own(bearer: FakeRegistry, watched: Watched) -> None:
    fill(bearer, "team/other")
    for _ in range(2):
        await try_open(watched, bearer, "team/app")
        await try_open(watched, bearer, "team/other")
    assert [request.argument("scope") for request in token_requests(bearer)] == [
        "repository:team/app:pull",
        "repository:team/other:pull",
    ]


async def test_TOK07_SEC13_identities_share_nothing(bearer: FakeRegistry) -> None:
    access_of(bearer).users = {"bob": "secret", "eve": "other"}
    turn = iter((BOB, Credential("eve", "other"), None))

    async def provider(name: str, /) -> Credential | None:
        return next(turn)

    async with watch(credentials=provider) as watched:
        for _ in range(3):
            await try_open(watched, bearer)
        assert repr(watched.pool).startswith("<RegistryPool: 3 clients,")
    assert [token.user for token in access_of(bearer).tokens] == ["bob", "eve", None]
    used = [request.header("Authorization") for request in bearer.select_requests("latest")]
    assert used[::2] == [None, None, None]
    assert len(set(used[1::2])) == 3


async def test_SRC04_sixteen_references_cost_one_token_each_scope(
    bearer: FakeRegistry, watched: Watched
) -> None:
    bearer.latency = 0.01
    for number in range(4):
        fill(bearer, f"team/app{number}")
    references = [bearer.reference(f"team/app{number % 4}") for number in range(16)]
    sources = await asyncio.gather(*(watched.open(reference) for reference in references))
    assert bearer.count("/v2/") == 0
    assert bearer.count("latest") == 2 * 16
    assert len(token_requests(bearer)) == 4
    assert repr(watched.pool).endswith(" 16 leases>")
    assert repr(watched.pool).startswith("<RegistryPool: 1 clients,")
    await asyncio.gather(*(source.aclose() for source in sources))


async def test_TOK07_a_cancelled_leader_poisons_nobody(
    bearer: FakeRegistry, watched: Watched
) -> None:
    bearer.script("/token", Hold(asyncio.Event()))
    leader = asyncio.create_task(try_open(watched, bearer))
    async with asyncio.timeout(5):
        await bearer.wait_until(lambda: len(token_requests(bearer)) == 1)
        follower = asyncio.create_task(try_open(watched, bearer))
        await settle(100)  # it joins
        leader.cancel()
        await follower
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert len(token_requests(bearer)) == 2


async def test_TOK07_a_failure_is_shared_but_not_remembered(
    bearer: FakeRegistry, watched: Watched
) -> None:
    await watched.try_open(bearer.reference("team/app"))
    fill(bearer, "x")
    bearer.script("/token", Status(400))
    opening = (try_open(watched, bearer, "x") for _ in range(4))
    outcomes = await asyncio.gather(*opening, return_exceptions=True)
    assert all(isinstance(outcome, UnexpectedStatusError) for outcome in outcomes)
    assert len(token_requests(bearer)) == 2
    await try_open(watched, bearer, "x")


@pytest.mark.parametrize(
    ("life", "fine", "renewed"), [(300, 294, 296), (None, 54, 56), (10, 54, 56)]
)
async def test_TOK04_a_token_is_renewed_five_seconds_before_its_end(
    bearer: FakeRegistry, watched: Watched, life: int | None, fine: int, renewed: int
) -> None:
    access_of(bearer).expires_in = 100_000
    changes: dict[str, object] = {"token": "fake-token-1"}
    if life is not None:
        changes["expires_in"] = life
    bearer.script("/token", token_body(**changes), forever=True)
    # The token is only pretended; the registry takes whatever it gets.
    access_of(bearer).answer = lambda request, url: (  # type: ignore[method-assign]
        None if request.header("Authorization") else Bearer.answer(access_of(bearer), request, url)
    )
    await try_open(watched, bearer)
    watched.clock.time = fine
    await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 1
    watched.clock.time = renewed
    await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 2


# After a 401


async def test_PING06_a_registry_that_challenges_late_is_answered(
    bearer: FakeRegistry, watched: Watched
) -> None:
    await try_open(watched, bearer)
    assert [request.path for request in bearer.requests] == [MANIFEST, "/token", MANIFEST]
    async with (
        await watched.open(bearer.reference("team/app")) as source,
        source.open_blob(IMAGE.layers[0]) as blob,
    ):
        await blob.read_all(1 << 20)
    assert len(token_requests(bearer)) == 1
    assert bearer.count("latest") == 3  # the challenge was learned


async def test_PING06_basic_too(basic: FakeRegistry) -> None:
    async with watch(**as_bob(basic)) as watched:
        await try_open(watched, basic)
        await try_open(watched, basic)
    used = [credentials_of(request) for request in basic.requests]
    assert used == [None, ("bob", "secret"), ("bob", "secret")]


async def test_PING06_only_once(bearer: FakeRegistry, watched: Watched) -> None:
    access_of(bearer).open_ping = True
    bearer.script("latest", Unauthorized(), forever=True)
    with pytest.raises(UnauthorizedError):
        await try_open(watched, bearer)
    assert bearer.count("latest") == 2


async def test_TOK08_a_revoked_token_is_replaced_once(
    bearer: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(bearer.reference("team/app")) as source:
        access_of(bearer).revoke()
        await source.get_manifest(IMAGE.digest)
    assert len(token_requests(bearer)) == 2
    assert bearer.count(IMAGE.digest) == 2


async def test_TOK08_many_requests_that_are_refused_at_once_share_the_new_token(
    bearer: FakeRegistry, watched: Watched
) -> None:
    bearer.latency = 0.01
    async with await watched.open(bearer.reference("team/app")) as source:
        access_of(bearer).revoke()
        await asyncio.gather(*(source.get_manifest(IMAGE.digest) for _ in range(32)))
    assert len(token_requests(bearer)) == 2


async def test_TOK08_a_second_401_is_final(bearer: FakeRegistry, watched: Watched) -> None:
    async with await watched.open(bearer.reference("team/app")) as source:
        bearer.script(IMAGE.digest, Unauthorized(error="invalid_token"), forever=True)
        with pytest.raises(UnauthorizedError) as caught:
            await source.get_manifest(IMAGE.digest)
    assert caught.value.code == "UNAUTHORIZED"
    assert bearer.count(IMAGE.digest) == 2
    assert len(token_requests(bearer)) == 2
    assert watched.clock.slept == []


async def test_TOK08_one_scope_that_is_missing_is_asked_for(
    bearer: FakeRegistry, watched: Watched
) -> None:
    wider = "repository:registry:5000/base:pull"
    bearer.script("latest", None, Unauthorized(error="insufficient_scope", scope=wider))
    await try_open(watched, bearer)
    first, second = token_requests(bearer)
    assert [v for k, v in first.query if k == "scope"] == [SCOPE]
    assert [v for k, v in second.query if k == "scope"] == sorted((SCOPE, wider))


REFUSALS = {
    "no challenge": None,
    "only Basic": 'Basic realm="harbor"',
    "a bearer challenge without a realm": 'Bearer error="invalid_token"',
    "a bearer challenge that names no error": 'Bearer service="x"',
    "insufficient_scope": f'Bearer scope="{SCOPE}",error="insufficient_scope"',
    "a challenge of another kind": "Negotiate",
    "a challenge that is malformed": 'Bearer realm="',
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("somebody", [True, False])
@pytest.mark.parametrize(
    "ask", ["manifest", "blob", "range", "parts", "tags", "digest", "referrers"]
)
async def test_TOK08_any_401_that_refuses_a_kept_token_has_it_replaced(
    bearer: FakeRegistry, refusal: str | None, ask: str, *, somebody: bool
) -> None:
    headers = () if refusal is None else (("WWW-Authenticate", refusal),)
    good = Bearer.answer

    def answer(request: Request, url: str) -> Any:
        refused = good(access_of(bearer), request, url)
        if refused is None or request.header("Authorization") is None:
            return refused
        return replace(refused, headers=headers)

    access_of(bearer).answer = answer  # type: ignore[method-assign]
    async with watch(**(as_bob(bearer) if somebody else {})) as watched:
        reference: Any = parse_reference(bearer.reference("team/app"))
        async with reference.open(watched.session) as source:
            access_of(bearer).revoke()
            before = len(token_requests(bearer))
            match ask:
                case "manifest":
                    await source.get_manifest(IMAGE.digest)
                case "blob":
                    async with source.open_blob(BLOB_DIGEST) as blob:
                        await blob.read_all(1 << 20)
                case "range":
                    async with source.open_blob(BLOB_DIGEST, start=1) as blob:
                        await blob.read_all(1 << 20)
                case "parts":
                    async with source.open_parts(BLOB_DIGEST, [(1, 2), (4, 5)]) as parts:
                        assert [b"".join([c async for c in part]) async for part in parts]
                case "tags":
                    await reference.list_tags(watched.session)
                case "digest":
                    await reference.get_digest(watched.session)
                case _:
                    await source.get_referrers(IMAGE.digest)
    assert len(token_requests(bearer)) == before + 1


async def test_TOK08_scopes_of_challenges_are_asked_for_together(
    bearer: FakeRegistry, watched: Watched
) -> None:
    """Each 401 may name more; a request is sent with three tokens at most."""
    bearer.script("latest", None)
    for number in range(3):
        challenge = f'Bearer scope="repository:a{number}:pull repository:b{number}:pull,push x"'
        bearer.script("latest", Unauthorized(challenge=challenge))
    with pytest.raises(UnauthorizedError):
        await try_open(watched, bearer)
    assert bearer.count("latest") == 4
    asked = [[v for k, v in each.query if k == "scope"] for each in token_requests(bearer)]
    first = ["repository:a0:pull", "repository:b0:pull,push"]
    second = ["repository:a1:pull", "repository:b1:pull,push"]
    assert asked == [[SCOPE], sorted([SCOPE, *first]), sorted([SCOPE, *first, *second])]


async def test_TOK08_scopes_of_challenges_are_bounded(
    bearer: FakeRegistry, watched: Watched
) -> None:
    named = " ".join(f"repository:n{number}:pull" for number in range(100))
    bearer.script("latest", None, Unauthorized(challenge=f'Bearer scope="{named}"'))
    await try_open(watched, bearer)
    assert len([v for k, v in token_requests(bearer)[-1].query if k == "scope"]) == MAX_SCOPES


@pytest.mark.parametrize("scope", [SCOPE, "aws", "a:b"])
async def test_TOK08_any_other_scope_is_denied(
    bearer: FakeRegistry, watched: Watched, scope: str
) -> None:
    refusal = Unauthorized(error="insufficient_scope", scope=scope)
    bearer.script("latest", None, refusal, forever=True)
    with pytest.raises(ForbiddenError):
        await try_open(watched, bearer)
    assert bearer.count("latest") == 2
    assert len(token_requests(bearer)) == 1


async def test_ERR07_a_private_repository_is_denied(bearer: FakeRegistry, watched: Watched) -> None:
    access_of(bearer).may = lambda user, scope: user is not None
    with pytest.raises(ForbiddenError) as caught:
        await try_open(watched, bearer)
    assert caught.value.status == 401
    assert caught.value.code == "DENIED"


async def test_TOK08_a_challenge_without_a_realm_keeps_the_old_one(
    bearer: FakeRegistry, watched: Watched
) -> None:
    challenge = 'Bearer error="invalid_token"'
    bearer.script("latest", None, Unauthorized(challenge=challenge))
    await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 2


async def test_PING06_another_kind_of_challenge_is_adopted(bearer: FakeRegistry) -> None:
    challenge = 'Basic realm="x"'
    bearer.script("latest", None, Unauthorized(challenge=challenge))

    def allow_basic(request: Request, url: str) -> Any:
        if credentials_of(request) == ("bob", "secret") and request.path != "/token":
            return None
        return Bearer.answer(access_of(bearer), request, url)

    access_of(bearer).answer = allow_basic  # type: ignore[method-assign]
    async with watch(**as_bob(bearer)) as watched:
        await try_open(watched, bearer)
    assert credentials_of(bearer.requests[-1]) == ("bob", "secret")


async def test_TOK11_a_relative_realm_is_refused(bearer: FakeRegistry, watched: Watched) -> None:
    access_of(bearer).realm = "/token"
    with pytest.raises(MalformedResponseError, match="no http or https URL"):
        await try_open(watched, bearer)


# Where credentials go


@pytest.mark.parametrize("credentialed", [False, True])
async def test_CRED02_an_address_that_is_not_public_is_not_asked(
    bearer: FakeRegistry,
    other: FakeRegistry,
    credentialed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    elsewhere = other.url.replace("127.0.0.1", "127.0.0.2")
    access_of(bearer).realm = f"{elsewhere}/token"
    settings = as_bob(bearer) if credentialed else {}
    async with watch(**settings) as watched:
        with pytest.raises(MalformedResponseError, match="token_servers") as caught:
            await try_open(watched, bearer)
    assert f"{elsewhere}/token" in str(caught.value)
    assert other.requests == []


async def test_CRED02_anonymous_may_go_by_name(bearer: FakeRegistry, other: FakeRegistry) -> None:
    other.access = bearer.access
    access_of(bearer).realm = f"{other.url}/token".replace("127.0.0.1", "localhost")
    async with watch() as watched:
        await try_open(watched, bearer)
    assert len(token_requests(other)) == 1


async def test_CRED02_SEC02_credentials_may_not(bearer: FakeRegistry, other: FakeRegistry) -> None:
    other.access = bearer.access
    access_of(bearer).realm = f"{other.url}/token".replace("127.0.0.1", "localhost")
    async with watch(**as_bob(bearer)) as watched:
        with pytest.raises(MalformedResponseError, match="must not get its credentials"):
            await try_open(watched, bearer)
    assert other.requests == []


async def test_CRED02_unless_the_caller_says_so(bearer: FakeRegistry, other: FakeRegistry) -> None:
    other.access = bearer.access
    access_of(bearer).realm = f"{other.url}/token"
    options = replace(OPTIONS_HERE, token_servers={bearer.host: [other.url]})
    async with watch(options=options, **as_bob(bearer)) as watched:
        await try_open(watched, bearer)
    assert credentials_of(token_requests(other)[0]) == ("bob", "secret")


async def test_CRED01_a_redirect_of_the_token_request_is_checked(
    bearer: FakeRegistry, other: FakeRegistry
) -> None:
    bearer.script("/token", Redirect(f"{other.url}/token".replace("127.0.0.1", "127.0.0.2")))
    async with watch(**as_bob(bearer)) as watched:
        with pytest.raises(MalformedResponseError, match="not public"):
            await try_open(watched, bearer)
    assert other.requests == []


async def test_CRED01_a_redirect_of_the_token_request_loses_the_password(
    bearer: FakeRegistry, other: FakeRegistry
) -> None:
    other.access = bearer.access
    location = f"{other.url}/token".replace("127.0.0.1", "localhost")
    bearer.script("/token", Redirect(lambda request: location + "?" + request.target[7:]))
    async with watch(**as_bob(bearer)) as watched:
        await try_open(watched, bearer)
    assert token_requests(other)[0].header("Authorization") is None


async def test_CRED03_other_registries_learn_nothing(
    bearer: FakeRegistry, other: FakeRegistry
) -> None:
    async with watch(**as_bob(bearer)) as watched:
        await try_open(watched, bearer)
        await watched.try_open(fill(other))
    assert all(request.header("Authorization") is None for request in other.requests)


async def test_a_flood_of_repositories_keeps_the_last_ones(
    bearer: FakeRegistry, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asupplemented.transports.registry.auth.KEPT", 3)
    for number in range(5):
        fill(bearer, f"r{number}")
        await try_open(watched, bearer, f"r{number}")
    assert len(token_requests(bearer)) == 5
    for number in (2, 3, 4):
        await try_open(watched, bearer, f"r{number}")
    assert len(token_requests(bearer)) == 5
    await try_open(watched, bearer, "r0")
    assert len(token_requests(bearer)) == 6


async def test_a_challenge_in_many_lines_is_read(bearer: FakeRegistry, watched: Watched) -> None:
    challenge = f'Digest realm="x", Bearer realm="{bearer.url}/token"'
    bearer.script("latest", Headers({"WWW-Authenticate": challenge}))
    await try_open(watched, bearer)
    assert len(token_requests(bearer)) == 1

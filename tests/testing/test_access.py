"""Basic access and the token flow, as a client meets them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import (
    Basic,
    Bearer,
    FakeRegistry,
    Redirect,
    Status,
    Unauthorized,
    build_image,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

IMAGE = build_image()
PULL = "repository:team/app:pull"


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def get(
    http: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str | None]:
    """The status and the challenge."""
    async with http.get(url, headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers.get("WWW-Authenticate")


def basic(user: str, password: str) -> dict[str, str]:
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask_token(
    http: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None
) -> dict[str, object]:
    async with http.get(url, headers=headers) as answer:
        assert answer.status == 200
        document: dict[str, object] = await answer.json()
        return document


async def test_basic_lets_in_who_knows_the_password(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry(access=Basic({"ann": "se:cret"})) as registry:
        registry.add("team/app", IMAGE)
        url = f"{registry.url}/v2/team/app/manifests/latest"
        refused = (401, 'Basic realm="fake"')
        assert await get(http, url) == refused
        assert await get(http, registry.url + "/v2/") == refused
        assert await get(http, url, basic("ann", "wrong")) == refused
        assert await get(http, url, basic("", "")) == refused
        assert await get(http, url, {"Authorization": "Basic %%%"}) == refused
        assert await get(http, url, bearer("x")) == refused
        assert await get(http, url, basic("ann", "se:cret")) == (200, None)
        assert (await get(http, registry.put_file("/storage", b"")))[0] == 200


@pytest.mark.parametrize("access", [Basic({}, open_ping=True), Bearer(open_ping=True)])
async def test_PING06_a_ping_that_asks_for_nothing(
    http: aiohttp.ClientSession, access: Basic | Bearer
) -> None:
    async with FakeRegistry(access=access) as registry:
        assert (await get(http, registry.url + "/v2/"))[0] == 200
        assert (await get(http, registry.url + "/v2/app/manifests/x"))[0] == 401


async def test_bearer_challenges_name_realm_service_and_scope(
    http: aiohttp.ClientSession,
) -> None:
    async with FakeRegistry(access=Bearer(service="svc")) as registry:
        base = f'Bearer realm="{registry.url}/token",service="svc"'
        assert await get(http, registry.url + "/v2/") == (401, base)
        expected = f'{base},scope="{PULL}"'
        for path in ("manifests/latest", "tags/list", f"blobs/{IMAGE.config}"):
            assert await get(http, f"{registry.url}/v2/team/app/{path}") == (401, expected)


async def test_TOK04_an_anonymous_token_is_good_for_its_scope(
    http: aiohttp.ClientSession,
) -> None:
    clock = Clock()
    access = Bearer(now=clock, expires_in=120)
    async with FakeRegistry(access=access) as registry:
        registry.add("team/app", IMAGE)
        registry.add("other", IMAGE)
        token = await ask_token(http, f"{registry.url}/token?service=s&scope={PULL},push")
        assert token == {
            "token": "fake-token-1",
            "issued_at": "1970-01-12T13:46:40+00:00",
            "expires_in": 120,
        }
        headers = bearer("fake-token-1")
        url = f"{registry.url}/v2/team/app/manifests/latest"
        assert await get(http, url, headers) == (200, None)
        assert await get(http, registry.url + "/v2/", headers) == (200, None)
        status, challenge = await get(http, f"{registry.url}/v2/other/manifests/latest", headers)
        assert status == 401
        assert challenge is not None
        assert challenge.endswith(',scope="repository:other:pull",error="insufficient_scope"')
        assert access.tokens[0].scopes == {PULL, "repository:team/app:push"}
        assert access.tokens[0].user is None


@pytest.mark.parametrize("how", ["expired", "revoked", "unknown"])
async def test_a_token_that_is_no_longer_good(http: aiohttp.ClientSession, how: str) -> None:
    clock = Clock()
    access = Bearer(now=clock)
    async with FakeRegistry(access=access) as registry:
        registry.add("team/app", IMAGE)
        url = f"{registry.url}/v2/team/app/manifests/latest"
        await ask_token(http, f"{registry.url}/token?scope={PULL}")
        token = "fake-token-2" if how == "unknown" else "fake-token-1"
        if how == "revoked":
            access.revoke()
        clock.now += 300 if how == "expired" else 299
        status, challenge = await get(http, url, bearer(token))
        assert status == 401
        assert challenge is not None
        assert challenge.endswith(',error="invalid_token"')


async def test_users_get_tokens_with_their_password(http: aiohttp.ClientSession) -> None:
    access = Bearer({"ann": "secret"}, public=False)
    async with FakeRegistry(access=access) as registry:
        url = f"{registry.url}/token?account=ann&scope={PULL}"
        assert (await get(http, url))[0] == 401
        assert (await get(http, url, basic("ann", "wrong")))[0] == 401
        assert (await get(http, url, basic("bob", "secret")))[0] == 401
        assert (await get(http, url, bearer("x")))[0] == 401
        assert (await get(http, url, basic("ann", "secret")))[0] == 200
        assert [token.user for token in access.tokens] == ["ann"]


async def test_TOK03_identity_tokens_are_posted(http: aiohttp.ClientSession) -> None:
    access = Bearer(refresh_tokens={"identity": "ann"}, fields=("access_token",))
    async with FakeRegistry(access=access) as registry:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": "identity",
            "scope": f"{PULL} a:b:c",
        }
        async with http.post(f"{registry.url}/token", data=form) as answer:
            assert (await answer.json())["access_token"] == "fake-token-1"  # noqa: S105
        assert access.tokens[0].scopes == {PULL, "a:b:c"}
        form["refresh_token"] = "other"  # noqa: S105  # of a fake
        async with http.post(f"{registry.url}/token", data=form) as answer:
            assert answer.status == 401
        async with http.put(f"{registry.url}/token") as answer:
            assert answer.status == 405


async def test_who_may_do_what_is_up_to_the_test(http: aiohttp.ClientSession) -> None:
    access = Bearer({"ann": "x"}, may=lambda user, scope: user == "ann" or "public" in scope)
    async with FakeRegistry(access=access) as registry:
        scopes = "scope=repository:public/a:pull&scope=repository:b:pull"
        await ask_token(http, f"{registry.url}/token?{scopes}")
        await ask_token(http, f"{registry.url}/token?{scopes}", basic("ann", "x"))
    assert [len(token.scopes) for token in access.tokens] == [1, 2]


async def test_TOK04_a_token_that_does_not_say_how_long_it_lives(
    http: aiohttp.ClientSession,
) -> None:
    clock = Clock()
    access = Bearer(now=clock, expires_in=None, fields=("token", "access_token"))
    async with FakeRegistry(access=access) as registry:
        document = await ask_token(http, f"{registry.url}/token")
        assert set(document) == {"token", "access_token", "issued_at"}
        assert access.tokens[0].expires == clock.now + 60


async def test_a_token_server_of_another_origin(http: aiohttp.ClientSession) -> None:
    access = Bearer()
    async with FakeRegistry(access=access) as tokens, FakeRegistry(access=access) as registry:
        access.realm = tokens.url + "/token"
        registry.add("team/app", IMAGE)
        url = f"{registry.url}/v2/team/app/manifests/latest"
        _, challenge = await get(http, url)
        assert challenge is not None
        assert f'realm="{tokens.url}/token"' in challenge
        await ask_token(http, f"{tokens.url}/token?scope={PULL}")
        assert (await get(http, url, bearer("fake-token-1")))[0] == 200
        assert (tokens.count("/token"), registry.count("/token")) == (1, 0)


async def test_the_token_server_follows_the_script_too(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry(access=Bearer()) as registry:
        registry.script("/token", Status(429, {"Retry-After": "1"}), Redirect("/else"))
        url = registry.url + "/token"
        assert (await get(http, url))[0] == 429
        async with http.get(url, allow_redirects=False) as answer:
            assert answer.status == 307
        assert (await get(http, url))[0] == 200


async def test_TOK08_a_401_flap_repeats_the_challenge(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry(access=Bearer()) as registry:
        registry.add("team/app", IMAGE)
        await ask_token(http, f"{registry.url}/token?scope={PULL}")
        url = f"{registry.url}/v2/team/app/manifests/latest"
        registry.script(
            url.removeprefix(registry.url),
            Unauthorized("invalid_token"),
            Unauthorized("insufficient_scope", scope="repository:x:pull"),
        )
        base = f'Bearer realm="{registry.url}/token",service="fake.registry"'
        headers = bearer("fake-token-1")
        first = (401, f'{base},scope="{PULL}",error="invalid_token"')
        assert await get(http, url, headers) == first
        second = (401, f'{base},scope="repository:x:pull",error="insufficient_scope"')
        assert await get(http, url, headers) == second
        assert await get(http, url, headers) == (200, None)


async def test_errors_of_access_are_those_of_registries(http: aiohttp.ClientSession) -> None:
    async with (
        FakeRegistry(access=Basic({})) as registry,
        http.get(registry.url + "/v2/") as answer,
    ):
        assert json.loads(await answer.read())["errors"][0]["code"] == "UNAUTHORIZED"

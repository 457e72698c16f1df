"""What the first contact with a registry costs: requests, and round trips in a row.

Each answer takes one second of an event loop in which time leaps, so seconds are round trips.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import asupplemented as asup
from asupplemented.testing import (
    Authority,
    Basic,
    Bearer,
    FakeRegistry,
    Headers,
    build_image,
    build_index,
)
from tests.suspending import run_leaping
from tests.transports.registry.configuring import Configured, table
from tests.transports.registry.sessions import fill, token_requests, watch
from tests.trusting import trust_authority

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from asupplemented.testing import Request
    from tests.transports.registry.sessions import Watched

USER = {"bob": "secret"}
GRACE = 0.02
"""Seconds of real time for sockets, before time leaps."""
MEMBERS = 16
INDEX = build_index([build_image(annotations={"number": str(number)}) for number in range(64)])


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, bytes]:
    """The context of a server, and the authority to trust, in PEM."""
    authority = Authority()
    return authority.server_context(), authority.pem


@pytest.fixture
def server_context(
    tls: tuple[ssl.SSLContext, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext:
    """The context of a server that this process trusts."""
    file = tmp_path / "authority.pem"
    file.write_bytes(tls[1])
    trust_authority(monkeypatch, file)
    return tls[0]


async def open_one(registry: FakeRegistry, watched: Watched) -> None:
    await watched.try_open(registry.reference("team/app"))


async def open_group(registry: FakeRegistry, watched: Watched) -> None:
    """A top and its supplements, in a repository each."""
    members = [registry.reference(f"team/{number}") for number in range(MEMBERS)]
    async with asup.supplement(registry.reference("team/app"), *members).open(watched.session):
        pass


async def open_index(registry: FakeRegistry, watched: Watched) -> None:
    group = asup.supplement(registry.reference("team/index"))
    async with group.open(watched.session):
        pass


async def read_by_digest(registry: FakeRegistry, watched: Watched) -> None:
    """As many manifests as there are, before anything is known of the registry."""
    reference: Any = asup.parse_reference(registry.reference("team/index"))
    async with reference.open_repository(watched.session) as source:
        images = [member.digest for member in INDEX.members]
        await asyncio.gather(*map(source.get_manifest, images))


OPENINGS = {
    "one image": open_one,
    "a group of 16": open_group,
    "an index of 64": open_index,
    "64 by digest": read_by_digest,
}


class Cost(NamedTuple):
    """What a registry was asked, by kind."""

    trips: float
    manifests: int
    tokens: int = 0
    pings: int = 0


COSTS = {
    ("http", "one image"): Cost(1, 1),
    ("http", "a group of 16"): Cost(1, 17),
    ("http", "an index of 64"): Cost(2, 65),
    ("http", "64 by digest"): Cost(1, 64),
    ("verified", "one image"): Cost(1, 1),
    ("verified", "a group of 16"): Cost(1, 17),
    ("verified", "an index of 64"): Cost(2, 65),
    ("unverified", "one image"): Cost(2, 1, pings=1),
    ("unverified", "a group of 16"): Cost(2, 17, pings=1),
    ("unverified", "an index of 64"): Cost(3, 65, pings=1),
    ("basic", "one image"): Cost(2, 2),
    ("basic", "a group of 16"): Cost(2, 34),
    ("basic", "an index of 64"): Cost(3, 66),
    ("bearer", "one image"): Cost(3, 2, 1),
    ("bearer", "a group of 16"): Cost(3, 34, 17),
    ("bearer", "an index of 64"): Cost(3 + 1, 66, 1),
    ("bearer", "64 by digest"): Cost(3, 128, 1),
    ("bearer, bob", "a group of 16"): Cost(3, 34, 17),
    ("bearer, unverified", "a group of 16"): Cost(3, 17, 17, 1),
}


@pytest.mark.parametrize(("kind", "what"), COSTS)
def test_PING01_what_is_opened_costs_no_more_than_it_must(
    server_context: ssl.SSLContext, kind: str, what: str
) -> None:
    over_tls = "verified" in kind
    access = {"basic": Basic(USER), "bearer": Bearer(USER)}.get(kind.partition(",")[0])
    known = kind in {"basic", "bearer, bob"}

    async def measure() -> Cost:
        registry = FakeRegistry(access=access, tls=server_context if over_tls else None)
        async with registry:
            fill_all(registry)
            settings: dict[str, Any] = {"tls_verify": kind == "verified"}
            if known:
                settings["credentials"] = {registry.host: ("bob", "secret")}
            async with watch(**settings) as watched:
                registry.latency = 1.0
                loop = asyncio.get_running_loop()
                began = loop.time()
                await OPENINGS[what](registry, watched)
                return Cost(round(loop.time() - began, 3), *count(registry))

    assert run_leaping(measure, GRACE) == COSTS[kind, what]


def fill_all(registry: FakeRegistry) -> None:
    for name in ("app", *map(str, range(MEMBERS))):
        fill(registry, f"team/{name}")
    registry.add("team/index", INDEX)


def count(registry: FakeRegistry) -> tuple[int, int, int]:
    asked = Counter(kind_of(request) for request in registry.requests)
    return asked["manifests"], asked["token"], asked["v2"]


def kind_of(request: Request) -> str:
    parts = request.path.strip("/").split("/")
    return parts[-2] if len(parts) > 1 else parts[-1]


async def test_TOK02_each_repository_of_a_group_has_the_token_of_its_scope() -> None:
    async with FakeRegistry(access=Bearer()) as registry, watch() as watched:
        fill_all(registry)
        await open_group(registry, watched)
        tokens = [request.argument("scope") for request in token_requests(registry)]
        names = ("app", *map(str, range(MEMBERS)))
        assert sorted(map(str, tokens)) == sorted(f"repository:team/{n}:pull" for n in names)


async def test_PING06_a_challenge_is_answered_at_once_for_other_repositories() -> None:
    async with FakeRegistry(access=Bearer()) as registry, watch() as watched:
        fill_all(registry)
        await open_one(registry, watched)
        before = len(registry.requests)
        await watched.try_open(registry.reference("team/1"))
    assert [kind_of(request) for request in registry.requests[before:]] == ["token", "manifests"]


async def test_PING06_the_token_server_of_another_repository_is_no_dead_end() -> None:
    """A registry may send each repository to a token server of its own."""
    async with FakeRegistry(access=Bearer()) as registry, watch() as watched:
        fill_all(registry)
        bearer = registry.access
        assert isinstance(bearer, Bearer)
        bearer.may = lambda _, scope: True
        good = bearer.answer

        def answer(request: Request, url: str) -> Any:
            answered = good(request, url)
            if request.path == "/token" and "only=1" in request.target:
                scopes = [value for name, value in request.query if name == "scope"]
                if scopes != ["repository:team/1:pull"]:
                    bearer.revoke()
            return answered

        bearer.answer = answer  # type: ignore[method-assign]
        bearer.realm = f"{registry.url}/token?only=1"
        await watched.try_open(registry.reference("team/1"))
        bearer.realm = None
        await watched.try_open(registry.reference("team/2"))
    asked = [request.target.partition("&")[0] for request in token_requests(registry)]
    assert [target.startswith("/token?only=1") for target in asked] == [True, True, False]


async def test_SIG02_the_ping_is_sent_when_signatures_are_asked_for() -> None:
    async with FakeRegistry() as registry, watch() as watched:
        registry.script("/v2/", Headers({"X-Registry-Supports-Signatures": "0"}))
        async with await watched.open(fill(registry)) as source:
            assert count(registry) == (1, 0, 0)
            for _ in range(2):
                await source.get_signatures()
            assert count(registry) == (1, 0, 1)


async def test_CONF13_a_mirror_that_has_the_image_is_asked_once(tmp_path: Path) -> None:
    system = Configured.make(tmp_path)
    async with FakeRegistry() as registry, FakeRegistry() as mirror:
        fill(mirror)
        system.write_registries(table(registry.host, mirror.host))
        async with system.watch() as watched:
            await watched.try_open(registry.reference("team/app"))
    assert (count(mirror), registry.requests) == ((1, 0, 0), [])


async def test_CONF13_a_mirror_that_lacks_it_is_pinged_before_that_is_believed(
    tmp_path: Path,
) -> None:
    system = Configured.make(tmp_path)
    async with FakeRegistry() as registry, FakeRegistry() as mirror:
        system.write_registries(table(registry.host, mirror.host))
        async with system.watch() as watched:
            for _ in range(2):
                await watched.try_open(fill(registry))
    assert (count(mirror), count(registry)) == ((2, 0, 1), (2, 0, 0))


@pytest.mark.parametrize("access", [Basic(USER), Bearer(USER, public=False)])
@pytest.mark.parametrize("secured", [True, False])
def test_CRED03_no_credentials_before_a_challenge(
    server_context: ssl.SSLContext, access: Basic | Bearer, *, secured: bool
) -> None:
    """Whatever is known of the caller, a server that asks for nothing is told nothing."""
    sent = run_leaping(partial(_read_headers, server_context if secured else None, access), GRACE)
    assert sent[0] == [None]
    assert sent[1][0] is None
    assert all(header is not None for header in sent[1][1:])


async def _read_headers(
    context: ssl.SSLContext | None, access: Basic | Bearer
) -> tuple[list[str | None], list[str | None]]:
    async with (
        FakeRegistry(tls=context) as open_to_all,
        FakeRegistry(tls=context, access=access) as guarded,
    ):
        credentials = {each.host: ("bob", "secret") for each in (open_to_all, guarded)}
        async with watch(tls_verify=context is not None, credentials=credentials) as watched:
            for registry in (open_to_all, guarded):
                await watched.try_open(fill(registry))
    one, two = (
        [request.header("Authorization") for request in registry.requests]
        for registry in (open_to_all, guarded)
    )
    return one, two

"""What `Catalog.peek` finds without waiting is, byte for byte, what the long way answers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from asupplemented import Catalog, RegistryOptions, RetryPolicy, Session
from asupplemented.errors import ClosedError
from asupplemented.events import RequestServed
from asupplemented.testing import FakeRegistry, Status, build_image, build_index
from asupplemented.web import Identity
from asupplemented.web.exchange import Limits, Service
from asupplemented.web.request import Request
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asupplemented import Event
    from asupplemented.web.answers import Answer
    from asupplemented.web.exchange import Exchange

OLD = build_image("linux/amd64", [b"old layer"])
NEW = build_image("linux/amd64", [b"new layer"])
INDEX = build_index([OLD, NEW])
TTL = 60.0
STALE = 1000.0

CONDITIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("accept", "text/plain"), ("range", "bytes=0-1")),
    (("if-none-match", f'"{OLD.digest}"'),),
    (("if-none-match", f'W/"{NEW.digest}"'), ("if-none-match", "*")),
    (("if-match", f'"{NEW.digest}"'),),
    (("transfer-encoding", "chunked"), ("content-length", "1")),
)
TARGETS = (
    ("/team/app/manifests/{}", ""),
    ("/team/app/manifests/{}", "ns=reg.test"),
    ("/reg.test/team/app/manifests/{}", ""),
    ("/unknown/manifests/{}", ""),
)


class LongWay:
    """A catalog that is asked by `open` only."""

    def __init__(self, catalog: Catalog) -> None:
        self.open = catalog.open
        self.list_tags = catalog.list_tags
        self.list_referrers = catalog.list_referrers


class Result(NamedTuple):
    """What one request did."""

    answer: Answer
    event: RequestServed


@dataclass
class World:
    """A catalog before a registry, and both ways to it."""

    registry: FakeRegistry
    clock: FakeClock
    session: Session
    catalog: Catalog
    events: list[Event]

    def service(self, catalog: Any, authenticate: Any = None) -> Service:
        return Service(
            catalog,
            self.session,
            authenticate=authenticate,
            limits=Limits(),
            hide_refused=False,
        )

    async def ask(self, service: Service, request: Request) -> tuple[Result, bool]:
        """The result of a request, and whether it was there before the exchange was entered."""
        exchange = service.exchange(request)
        at_once = exchange.begin()
        return await self.enter(exchange), at_once

    async def enter(self, exchange: Exchange) -> Result:
        """The result of an exchange that has begun."""
        async with exchange:
            answer = exchange.answer
        event = self.events[-1]
        assert isinstance(event, RequestServed)
        return Result(answer, event._replace(seconds=0.0))

    async def warm(self, *references: str) -> None:
        """Have tags or digests open under all names, and their manifests in memory."""
        service = self.service(LongWay(self.catalog))
        for (path, query), reference in product(TARGETS, references):
            await self.ask(service, Request("GET", path.format(reference), query))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock, events = FakeClock(), list[Any]()
    settings: list[Any] = [clock.clock, RegistryOptions(retry=RetryPolicy(attempts=1))]
    async with (
        FakeRegistry() as registry,
        Session(settings=settings, tls_verify=False, hooks=[events.append]) as session,
    ):
        registry.add("team/app", OLD)
        registry.add("team/app", INDEX, tag="index")
        target = f"docker://{registry.host}/team/app"
        names = {"team/app": target, "reg.test/*": [target, f"{target}:index"]}
        async with Catalog(names, ttl=TTL, stale_if_error=STALE) as catalog:
            yield World(registry, clock, session, catalog, events)


async def fresh(world: World) -> None:
    await world.warm("latest", OLD.digest, "index")


async def aged(world: World) -> None:
    await fresh(world)
    world.clock.time += TTL - 1


async def stale(world: World) -> None:
    await fresh(world)
    world.registry.script("/v2/*", Status(503), forever=True)
    world.clock.time += TTL
    await fresh(world)


async def moved(world: World) -> None:
    await fresh(world)
    world.registry.add("team/app", NEW)
    world.clock.time += TTL
    await fresh(world)


async def lazy(world: World) -> None:
    """Nothing is open but an index, which lists the digest."""
    await world.warm("index")


async def cold(world: World) -> None:
    del world


async def expired(world: World) -> None:
    await fresh(world)
    world.clock.time += TTL


async def closed(world: World) -> None:
    await fresh(world)
    await world.catalog.aclose()


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (fresh, {"latest", OLD.digest, "index"}),
        (aged, {"latest", OLD.digest, "index"}),
        (stale, {"latest", OLD.digest, "index"}),
        (moved, {"latest", OLD.digest, "index"}),
        (lazy, {"index"}),
        (expired, {OLD.digest}),
        (cold, set[str]()),
        (closed, set[str]()),
    ],
)
async def test_SRV33_what_is_at_hand_is_what_the_long_way_answers(
    world: World, state: Callable[[World], Awaitable[None]], found: set[str]
) -> None:
    short = world.service(world.catalog)
    long = world.service(LongWay(world.catalog))
    await state(world)
    asked = world.registry.count()
    seen: set[str] = set()
    requests = [
        Request(method, path.format(reference), query, headers)
        for reference in ("latest", OLD.digest, "index", "absent")
        for method, (path, query), headers in product(("GET", "HEAD"), TARGETS, CONDITIONS)
    ]
    # All of them are asked before any goes the long way, which may change the state.
    at_hand: list[tuple[Request, Result]] = []
    for request in requests:
        exchange = short.exchange(request)
        if not exchange.begin():
            continue
        at_hand.append((request, await world.enter(exchange)))
        if exchange.answer.status in {200, 304, 412}:
            seen.add((request.path or "").rpartition("/")[2])
    assert world.registry.count() == asked
    assert seen == found
    for request, result in at_hand:
        expected, at_once = await world.ask(long, request)
        assert result == expected
        assert not at_once or expected.answer.status == 400


async def test_SEC13_each_identity_has_what_it_opened_itself(world: World) -> None:
    catalog, session = world.catalog, world.session
    await fresh(world)
    one = session.scoped("one")
    assert catalog.peek(session, "team/app", "latest") is not None
    assert catalog.peek(one, "team/app", "latest") is None
    async with catalog.open(one, "team/app", "latest") as image:
        await image.get_manifest()
    assert catalog.peek(one, "team/app", "latest") is not None
    for other in (
        session.scoped("two"),
        session.scoped("one", credentials={"reg.test": ("user", "password")}),
        session,  # its image is open, but the name was looked up for another one since
    ):
        assert catalog.peek(other, "team/app", "latest") is None


async def test_SRV10_nothing_is_at_hand_before_a_client_is_known(world: World) -> None:
    await fresh(world)

    async def authenticate(_: object) -> Identity:
        return Identity("one")

    exchange = world.service(world.catalog, authenticate=authenticate).exchange(
        Request("GET", "/team/app/manifests/latest")
    )
    assert not exchange.begin()
    async with exchange:
        assert exchange.answer.header("Cache-Control") == "private, no-cache"


async def test_a_function_is_asked_for_each_request(world: World) -> None:
    allowed = True

    def allow(name: str, registry: str | None) -> bool:
        del name, registry
        return allowed

    names = {"team/app": f"docker://{world.registry.host}/team/app"}
    async with Catalog(names, allow=allow) as catalog:
        service = world.service(catalog)
        for status in (200, 200, 404):
            allowed = status == 200
            result, at_once = await world.ask(service, Request("GET", "/team/app/manifests/latest"))
            assert (result.answer.status, at_once) == (status, False)


async def test_an_image_that_was_evicted_is_not_at_hand(world: World) -> None:
    names = {name: f"docker://{world.registry.host}/{name}" for name in ("one", "two")}
    for name in names:
        world.registry.add(name, OLD)
    async with Catalog(names, max_open=1) as catalog:
        for name in names:
            async with catalog.open(world.session, name, "latest") as image:
                await image.get_manifest()
        assert catalog.peek(world.session, "one", "latest") is None
        assert catalog.peek(world.session, "two", "latest") is not None
        assert catalog.peek(world.session, "two", "no tag") is None


async def test_a_session_that_was_closed_is_refused(world: World) -> None:
    await fresh(world)
    await world.session.aclose()
    with pytest.raises(ClosedError):
        world.catalog.peek(world.session, "team/app", "latest")

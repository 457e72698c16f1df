"""The requests that a registry allows: kept back, shared by a fleet, and explained."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import Catalog, Digest, LocalValues, RequestBudget, Session, supplement
from asupplemented.errors import ConfigurationError, TooManyRequestsError
from asupplemented.testing import Headers, Status, build_image, build_index
from tests.catalog.conftest import OPTIONS
from tests.catalog.hub import WINDOW, Hub, MemoryCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented.abc import Setting
    from asupplemented.testing import FakeRegistry, ImageBuilder
    from tests.clocks import FakeClock

MANIFESTS = "/v2/*/manifests/*"
IMAGE = build_image(layers=[b"a layer"])
MOVED = build_image(layers=[b"another layer"])
LAYER = Digest.of(b"a layer")
PROXIES = 50


def left(requests: int) -> Headers:
    return Headers(
        {"RateLimit-Limit": f"100;w={WINDOW}", "RateLimit-Remaining": f"{requests};w={WINDOW}"}
    )


def name_all(registry: FakeRegistry) -> dict[str, str]:
    return {"*": f"docker://{registry.host}/{{name}}"}


async def look(catalog: Catalog, session: Session, name: str = "app") -> tuple[str, bool]:
    async with catalog.open(session, name) as image:
        return image.digest, image.stale


async def test_RET09_what_is_left_is_explained(
    registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    clock.epoch = 1_700_000_000.0 - 1_700_000_000 % 86400 + 8 * 3600  # 08:00 UTC
    registry.add("app", IMAGE)
    registry.script(MANIFESTS, left(7), forever=True)
    async with supplement(registry.reference("app")).open(session) as image:
        for digest in (LAYER, IMAGE.digest):
            assert "7 of 100 requests left until 14:00 UTC" in str(image.explain(digest))
        clock.time += WINDOW
        assert "requests left" not in str(image.explain(LAYER))


async def test_the_reserve_is_not_spent_on_what_can_be_served(
    registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.add("app", IMAGE)
    registry.add("late", IMAGE)
    registry.script(MANIFESTS, left(10), forever=True)
    async with Catalog(name_all(registry)) as catalog:
        assert await look(catalog, session) == (IMAGE.digest, False)
        clock.time += 61
        asked = registry.count(MANIFESTS)
        assert await look(catalog, session) == (IMAGE.digest, True)
        assert registry.count(MANIFESTS) == asked
        assert await look(catalog, session, "late") == (IMAGE.digest, False)
        clock.time += WINDOW
        assert await look(catalog, session) == (IMAGE.digest, False)


async def test_what_may_not_be_served_any_more_is_worth_the_reserve(
    registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.add("app", IMAGE)
    registry.script(MANIFESTS, left(1), forever=True)
    async with Catalog(name_all(registry), stale_if_error=100) as catalog:
        await look(catalog, session)
        clock.time += 161
        assert await look(catalog, session) == (IMAGE.digest, False)


async def test_a_429_of_ours_costs_no_request(
    registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.add("app", IMAGE)
    registry.add("late", IMAGE)
    registry.script(MANIFESTS, left(0), forever=True)
    async with Catalog(name_all(registry)) as catalog:
        await look(catalog, session)
        asked = registry.count(MANIFESTS)
        for digest in ("latest", IMAGE.digest):
            with pytest.raises(TooManyRequestsError, match="0 of 100 requests left") as caught:
                await catalog.open(session, "late", digest)
            assert caught.value.retry_after == pytest.approx(WINDOW)
        assert registry.count(MANIFESTS) == asked
        clock.time += WINDOW
        assert await look(catalog, session, "late") == (IMAGE.digest, False)


async def test_members_that_cost_nothing_are_preferred_when_few_requests_are_left(
    registry: FakeRegistry, session: Session, image_builder: ImageBuilder
) -> None:
    index = build_index([IMAGE])
    registry.add("app", index)
    layout = image_builder.layout(index, name="1")
    registry.script(MANIFESTS, left(5), forever=True)
    group = supplement(registry.reference("app"), layout)
    async with group.open(session) as image:
        candidates = image.blob_candidates(image.resolution.descriptor(LAYER))
        assert [each.local for each in candidates] == [True, False]
    async with Catalog({"app": [f"docker://{registry.host}/app", layout]}) as catalog:
        asked = registry.count(MANIFESTS)
        async with catalog.open(session, "app", IMAGE.digest) as leased:
            assert (await leased.get_manifest()).raw == IMAGE.raw
        assert registry.count(MANIFESTS) == asked


async def test_SEC13_a_balance_is_not_shown_to_another_principal(
    registry: FakeRegistry, session: Session
) -> None:
    registry.add("app", IMAGE)
    registry.script(MANIFESTS, left(7))
    group = supplement(registry.reference("app"))
    alice = session.scoped("alice", credentials={registry.host: ("alice", "hunter2")})
    async with group.open(alice) as image:
        assert "7 of 100 requests left" in str(image.explain(LAYER))
    async with group.open(session.scoped("bob")) as image:
        assert "requests left" not in str(image.explain(LAYER))


async def test_SEC13_what_a_fleet_knows_of_a_tag_is_not_for_principals(
    registry: FakeRegistry, clock: FakeClock
) -> None:
    registry.add("app", IMAGE)
    shared = RequestBudget(shared=LocalValues())
    settings: list[Setting] = [clock.clock, OPTIONS]
    async with (
        Session(settings=settings, tls_verify=False, cache=MemoryCache()) as session,
        Catalog(name_all(registry), budget=shared) as one,
        Catalog(name_all(registry), budget=shared) as other,
    ):
        await look(one, session)
        asked = registry.count(MANIFESTS)
        await look(other, session)
        assert registry.count(MANIFESTS) == asked
        await look(other, session.scoped("alice"))
        assert registry.count(MANIFESTS) == asked + 1


async def test_what_a_fleet_had_is_not_served_for_longer_than_the_catalog_says(
    registry: FakeRegistry, clock: FakeClock
) -> None:
    registry.add("app", IMAGE)
    shared = RequestBudget(shared=LocalValues())
    settings: list[Setting] = [clock.clock, OPTIONS]
    names = name_all(registry)
    async with (
        Session(settings=settings, tls_verify=False, cache=MemoryCache()) as session,
        Catalog(names, budget=shared) as patient,
        Catalog(names, budget=shared, stale_if_error=5) as strict,
        Catalog(names, budget=shared) as late,
    ):
        await look(patient, session)
        registry.script(MANIFESTS, Status(429), forever=True)
        clock.time += 66
        with pytest.raises(TooManyRequestsError):
            await look(strict, session)
        assert await look(late, session) == (IMAGE.digest, True)


@pytest.mark.parametrize("reserve", [-0.1, 1.1])
def test_a_reserve_is_a_part(reserve: float) -> None:
    with pytest.raises(ConfigurationError):
        RequestBudget(reserve)


# A fleet


class Fleet:
    """Proxies with a session and a catalog each, one cache, and one account."""

    def __init__(self, members: list[tuple[Catalog, Session]]) -> None:
        self.members = members

    async def look(self, name: str) -> list[tuple[str, bool] | TooManyRequestsError]:
        """What each proxy answers a client."""
        answers: list[tuple[str, bool] | TooManyRequestsError] = []
        for catalog, session in self.members:
            try:
                answers.append(await look(catalog, session, name))
            except TooManyRequestsError as error:
                answers.append(error)
        return answers


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def make_fleet(
    stack: AsyncExitStack, registry: FakeRegistry, clock: FakeClock, shared: Any
) -> Fleet:
    cache = await stack.enter_async_context(MemoryCache())
    settings: list[Setting] = [clock.clock, OPTIONS]
    members: list[tuple[Catalog, Session]] = []
    for _ in range(PROXIES):
        session = Session(settings=settings, tls_verify=False, cache=cache)
        await stack.enter_async_context(session)
        budget = RequestBudget(shared=shared)
        catalog = Catalog(name_all(registry), ttl=600, budget=budget)
        members.append((await stack.enter_async_context(catalog), session))
    return Fleet(members)


@pytest.mark.parametrize("heads", [False, True])
async def test_a_fleet_of_50_proxies_keeps_within_100_pulls(
    stack: AsyncExitStack, registry: FakeRegistry, clock: FakeClock, *, heads: bool
) -> None:
    hub = Hub(clock, heads=heads)
    registry.script(MANIFESTS, hub, forever=True)
    names = [f"library/image-{n}" for n in range(4)]
    for name in names:
        registry.add(name, IMAGE)
    fleet = await make_fleet(stack, registry, clock, LocalValues())
    stale = 0
    for step in range(WINDOW // 600):
        if step == 6:
            registry.add(names[0], MOVED)
        for name in names:
            answers = await fleet.look(name)
            assert not [each for each in answers if isinstance(each, TooManyRequestsError)]
            stale += sum(each[1] for each in answers if isinstance(each, tuple))
            if step == 6:
                expected = MOVED if name == names[0] else IMAGE
                assert set(answers) == {(expected.digest, False)}
        clock.time += 600
    registry.add("library/late", MOVED)
    clock.time -= 1  # the window is not over yet
    assert set(await fleet.look("library/late")) == {(MOVED.digest, False)}
    assert hub.refused == 0
    assert hub.counted <= 100
    assert (stale > 0) == heads
    clock.time += 601
    for name in names:
        assert not [each for each in await fleet.look(name) if not isinstance(each, tuple)]
    assert hub.refused == 0


async def test_without_sharing_only_what_a_proxy_never_had_is_refused(
    stack: AsyncExitStack, registry: FakeRegistry, clock: FakeClock
) -> None:
    hub = Hub(clock)
    registry.script(MANIFESTS, hub, forever=True)
    names = [f"library/image-{n}" for n in range(4)]
    for name in names:
        registry.add(name, IMAGE)
    fleet = await make_fleet(stack, registry, clock, None)
    first = {name: await fleet.look(name) for name in names}
    answers = [answer for name in names for answer in first[name]]
    assert sum(isinstance(each, tuple) for each in answers) == 100
    for _ in range(10):
        clock.time += 601
        for name in names:
            for before, now in zip(first[name], await fleet.look(name), strict=True):
                assert isinstance(now, tuple) or not isinstance(before, tuple)


async def test_a_new_proxy_serves_what_the_fleet_had_while_the_registry_refuses(
    stack: AsyncExitStack, registry: FakeRegistry, clock: FakeClock
) -> None:
    registry.add("app", IMAGE)
    shared = LocalValues()
    fleet = await make_fleet(stack, registry, clock, shared)
    await look(*fleet.members[0], "app")
    hub = Hub(clock, limit=0, heads=True)
    registry.script(MANIFESTS, hub, forever=True)
    clock.time += 601
    assert set(await fleet.look("app")) == {(IMAGE.digest, True)}
    assert hub.refused == 1, "the fleet knows it from one refusal"
    clock.time += 86400
    answers = await fleet.look("app")
    assert not [each for each in answers if isinstance(each, tuple)], "the time of stale is bounded"

"""Tags: resolved once, kept for their time, confirmed by HEAD, swapped, and served stale."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import Catalog, Digest, Warned
from asupplemented.catalog.catalog import PATIENCE
from asupplemented.catalog.upstreams import Upstreams
from asupplemented.errors import (
    ClosedError,
    DigestMismatchError,
    ForbiddenError,
    ImageNotFoundError,
    InvalidReferenceError,
    NameUnknownError,
    NetworkError,
    ServerError,
    SlotTimeoutError,
    TooManyRequestsError,
)
from asupplemented.testing import (
    Corrupt,
    Cut,
    Headers,
    Hold,
    Html,
    Status,
    build_image,
    build_index,
    hold_in_memory,
)
from tests.clocks import let_pass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented import CatalogImage, Event, Session, Source
    from asupplemented.testing import FakeRegistry
    from tests.clocks import FakeClock

OLD = build_image("linux/amd64", [b"old layer"])
NEW = build_image("linux/amd64", [b"new layer"])
MANIFESTS = "/v2/team/app/manifests/*"


@pytest.fixture
async def catalog(registry: FakeRegistry) -> AsyncIterator[Catalog]:
    registry.add("team/app", OLD)
    registry.add("team/app", OLD, tag="1.4")
    names = {"team/app": f"docker://{registry.host}/team/app"}
    async with Catalog(names, ttl=60, stale_if_error=1000) as opened:
        yield opened


async def look(catalog: Catalog, session: Session, tag: str | None = None) -> tuple[str, bool]:
    """The digest of a tag, and whether it is stale."""
    async with catalog.open(session, "team/app", tag) as image:
        assert (await image.get_manifest()).digest == image.digest
        return image.digest, image.stale


async def read_blob(image: CatalogImage, digest: str) -> bytes:
    async with image.open_blob(digest) as blob:
        return b"".join([chunk async for chunk in blob])


async def test_a_tag_is_resolved_once_for_all_concurrent_requests(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    looks = [look(catalog, session) for _ in range(50)]
    assert set(await asyncio.gather(*looks)) == {(OLD.digest, False)}
    assert registry.count(MANIFESTS) == 1
    assert catalog.stats() == (1, 0, 1, 0)


async def test_an_image_gives_its_manifest_and_blobs(catalog: Catalog, session: Session) -> None:
    layer = Digest.of(b"old layer")
    async with catalog.open(session, "team/app", "1.4") as image:
        assert await read_blob(image, layer) == b"old layer"
        described = await image.describe_blob(layer)
        assert described is not None
        assert (described.digest, described.size) == (layer, len(b"old layer"))
        assert await image.describe_blob(Digest.of(b"other")) is None
        with pytest.raises(LookupError):
            image.open_blob(Digest.of(b"other"))


async def test_within_its_time_a_tag_costs_no_request(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    asked = registry.count()
    clock.time += 59
    await look(catalog, session)
    assert registry.count() == asked


async def test_after_its_time_a_tag_is_confirmed_by_one_HEAD(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    clock.time += 61
    looks = [look(catalog, session) for _ in range(20)]
    assert set(await asyncio.gather(*looks)) == {(OLD.digest, False)}
    assert registry.count(MANIFESTS, method="HEAD") == 1
    assert registry.count(MANIFESTS, method="GET") == 1
    async with catalog.open(session, "team/app") as image:
        assert image.age == 0
        clock.time += 7
    async with catalog.open(session, "team/app") as image:
        assert image.age == 7


@pytest.mark.parametrize(
    "fault", [Headers({"Docker-Content-Digest": None}), Status(405), Status(400)]
)
async def test_where_HEAD_says_nothing_the_manifest_is_read(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock, fault: Any
) -> None:
    registry.script(MANIFESTS, fault, method="HEAD", forever=True)
    await look(catalog, session)
    clock.time += 61
    assert await look(catalog, session) == (OLD.digest, False)
    registry.add("team/app", NEW)
    clock.time += 61
    assert await look(catalog, session) == (NEW.digest, False)


async def test_a_tag_that_moved_is_swapped_and_its_streams_keep_the_old_image(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    layer = Digest.of(b"old layer")
    async with catalog.open(session, "team/app") as before:
        registry.add("team/app", NEW)
        clock.time += 61
        assert await look(catalog, session) == (NEW.digest, False)
        assert before.digest == OLD.digest
        assert (await before.get_manifest()).raw == OLD.raw
        assert await read_blob(before, layer) == b"old layer"
        assert catalog.stats().open_images == 1
        source = before.image
    with pytest.raises(ClosedError):
        await source.get_manifest()
    with pytest.raises(ClosedError):
        await before.get_manifest()


async def test_an_image_that_moves_while_it_is_opened_is_one_image(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    held = asyncio.Event()
    registry.script(MANIFESTS, Hold(held))
    task = asyncio.create_task(look(catalog, session))
    await registry.wait_until(lambda: registry.count(MANIFESTS) == 1)
    registry.add("team/app", NEW)
    held.set()
    assert await task in {(OLD.digest, False), (NEW.digest, False)}


@pytest.mark.parametrize(
    "fault",
    [
        Status(500),
        Status(503),
        Status(429),
        Cut(after=None, how="rst"),
        Html(),
    ],
)
async def test_SRV33_a_tag_is_served_stale_if_the_upstream_fails(
    catalog: Catalog,
    registry: FakeRegistry,
    session: Session,
    clock: FakeClock,
    events: list[Event],
    fault: Any,
) -> None:
    await look(catalog, session)
    registry.script(MANIFESTS, fault, forever=True)
    clock.time += 61
    asked = registry.count(MANIFESTS)
    assert await look(catalog, session) == (OLD.digest, True)
    assert registry.count(MANIFESTS) > asked
    assert [event for event in events if isinstance(event, Warned) and "served" in event.message]


async def test_that_too_much_is_open_here_says_nothing_of_an_upstream(session: Session) -> None:
    upstreams, top = Upstreams(session), hold_in_memory("app", OLD)
    for error in (SlotTimeoutError("all slots are in use"), ServerError("broken", status=503)):
        with pytest.raises(type(error)), upstreams.recording("me", top):
            raise error
        if isinstance(error, SlotTimeoutError):
            upstreams.check("me", top)
    with pytest.raises(ServerError):
        upstreams.check("me", top)


async def test_a_broken_upstream_is_asked_once_in_a_pause(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    registry.script(MANIFESTS, Status(503), forever=True)
    clock.time += 61
    await look(catalog, session)
    asked = registry.count(MANIFESTS)
    for _ in range(100):
        assert await look(catalog, session) == (OLD.digest, True)
    assert registry.count(MANIFESTS) == asked
    clock.time += 11
    await look(catalog, session)
    assert registry.count(MANIFESTS) == asked + 1


async def test_a_pause_that_the_upstream_asks_for_is_kept(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    registry.script(MANIFESTS, (Status(429), Headers({"Retry-After": "200"})))
    clock.time += 61
    assert await look(catalog, session) == (OLD.digest, True)
    asked = registry.count(MANIFESTS)
    clock.time += 199
    assert await look(catalog, session) == (OLD.digest, True)
    assert registry.count(MANIFESTS) == asked
    clock.time += 2
    assert await look(catalog, session) == (OLD.digest, False)


async def test_an_upstream_that_recovered_is_noticed(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    registry.script(MANIFESTS, Status(503))
    clock.time += 61
    assert await look(catalog, session) == (OLD.digest, True)
    registry.add("team/app", NEW)
    clock.time += 11
    assert await look(catalog, session) == (NEW.digest, False)


async def test_SRV33_a_stale_tag_is_served_for_a_bounded_time(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    registry.script(MANIFESTS, Status(503), forever=True)
    clock.time += 1059
    assert await look(catalog, session) == (OLD.digest, True)
    clock.time += 2
    with pytest.raises(ServerError):
        await look(catalog, session)
    assert catalog.stats().open_images == 0


@pytest.mark.parametrize(("status", "kind"), [(404, ImageNotFoundError), (403, ForbiddenError)])
async def test_SRV33_what_was_removed_or_forbidden_is_not_served_stale(
    catalog: Catalog,
    registry: FakeRegistry,
    session: Session,
    clock: FakeClock,
    status: int,
    kind: type[Exception],
) -> None:
    await look(catalog, session)
    registry.script(MANIFESTS, Status(status), forever=True)
    clock.time += 61
    with pytest.raises(kind):
        await look(catalog, session)
    assert catalog.stats().open_images == 0


async def test_a_move_to_wrong_bytes_is_an_outage(
    registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.add("team/app", OLD)
    registry.add("team/more", OLD)
    members = [f"docker://{registry.host}/team/{name}" for name in ("app", "more")]
    async with Catalog({"team/app": members}, ttl=60) as catalog:
        await look(catalog, session)
        registry.add("team/app", build_index([NEW]))
        registry.script(NEW.digest, Corrupt(at=5), forever=True)
        clock.time += 61
        assert await look(catalog, session) == (OLD.digest, True)


async def test_without_an_image_the_failure_is_the_answer_and_is_remembered(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.script(MANIFESTS, (Status(429), Headers({"Retry-After": "30"})))
    with pytest.raises(TooManyRequestsError):
        await look(catalog, session)
    asked = registry.count()
    clock.time += 29
    with pytest.raises(TooManyRequestsError):
        await look(catalog, session)
    assert registry.count() == asked
    clock.time += 2
    assert await look(catalog, session) == (OLD.digest, False)


async def test_a_dead_registry_is_asked_for_one_tag_only(
    session: Session, clock: FakeClock, registry: FakeRegistry
) -> None:
    registry.add("team/app", OLD)
    names = {"*": f"docker://{registry.host}/{{name}}"}
    async with Catalog(names) as catalog:
        await look(catalog, session)
        registry.script("*", Cut(after=None, how="rst"), forever=True)
        for n in range(5):
            with pytest.raises(NetworkError):
                await catalog.open(session, f"team/other-{n}")
        assert registry.count("/v2/team/other-0/*")
        assert sum(registry.count(f"/v2/team/other-{n}/*") for n in range(1, 5)) == 0
        registry.clear_scripts()
        clock.time += 11
        with pytest.raises(ImageNotFoundError):
            await catalog.open(session, "team/other-1")


async def test_a_slow_upstream_does_not_hold_up_what_can_be_served(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    await look(catalog, session)
    held = asyncio.Event()
    registry.script(MANIFESTS, Hold(held))
    registry.add("team/app", NEW)
    clock.time += 61
    task = asyncio.create_task(look(catalog, session))
    await registry.wait_until(lambda: registry.count(MANIFESTS) == 2)
    await let_pass(PATIENCE)
    assert await task == (OLD.digest, True)
    assert await look(catalog, session) == (OLD.digest, True)  # at once
    assert registry.count(MANIFESTS) == 2
    held.set()
    clock.time += 11
    assert await look(catalog, session) == (NEW.digest, False)  # joins the task
    assert registry.count(MANIFESTS, method="HEAD") == 1


async def test_a_request_that_gives_up_leaves_the_opening_to_the_next_one(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    held = asyncio.Event()
    registry.script(MANIFESTS, Hold(held))
    task = asyncio.create_task(look(catalog, session))
    await registry.wait_until(lambda: registry.count(MANIFESTS) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert catalog.stats().pending == 1
    following = asyncio.create_task(look(catalog, session))
    await asyncio.sleep(0)
    held.set()
    assert await following == (OLD.digest, False)
    assert registry.count(MANIFESTS) == 1
    assert catalog.stats().pending == 0


async def test_closing_ends_what_is_being_opened(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    registry.script(MANIFESTS, Hold(asyncio.Event()))
    task = asyncio.create_task(look(catalog, session))
    await registry.wait_until(lambda: registry.count(MANIFESTS) == 1)
    await catalog.aclose()
    with pytest.raises(ClosedError):
        await task


async def test_a_leased_image_outlives_the_catalog(catalog: Catalog, session: Session) -> None:
    async with catalog.open(session, "team/app") as image:
        await catalog.aclose()
        assert (await image.get_manifest()).raw == OLD.raw
        source = image.image
    with pytest.raises(ClosedError):
        await source.get_manifest()


async def test_open_images_are_bounded(session: Session) -> None:
    images = [build_image(layers=[b"layer %d" % n]) for n in range(5)]
    names = {f"app-{n}": hold_in_memory(f"{n}", image) for n, image in enumerate(images)}
    async with Catalog(names, max_open=2) as catalog:
        leased = await catalog.open(session, "app-0")
        for name in names:
            async with catalog.open(session, name):
                pass
        assert catalog.stats() == (2, 0, 2, 0)
        assert (await leased.get_manifest()).raw == images[0].raw
        source = leased.image
        await leased.aclose()
        with pytest.raises(ClosedError):
            await source.get_manifest()


async def test_the_image_that_was_not_used_for_longest_is_closed(session: Session) -> None:
    names = {n: hold_in_memory(n, build_image(layers=[n.encode()])) for n in "abc"}
    async with Catalog(names, max_open=2) as catalog:
        sources: dict[str, Source] = {}
        for name in ("a", "b", "a", "c"):
            async with catalog.open(session, name) as image:
                sources[name] = image.image
        with pytest.raises(ClosedError):
            await sources["b"].get_manifest()
        await sources["a"].get_manifest()


async def test_10000_unknown_names_cost_nothing_that_stays(
    registry: FakeRegistry, session: Session
) -> None:
    names = {"team/app": f"docker://{registry.host}/team/app", "a/*": "dir:/nonexistent/{name}"}
    async with Catalog(names, allow=["team/*", "a/*"]) as catalog:
        for n in range(10_000):
            with pytest.raises(NameUnknownError):
                await catalog.open(session, f"name/n{n}", registry="quay.io" if n % 2 else None)
        for n in range(100):
            with pytest.raises(ImageNotFoundError):
                await catalog.open(session, f"a/n{n}")
            with pytest.raises(LookupError):
                await catalog.open(session, f"a/n{n}", Digest.of(b"%d" % n))
        assert catalog.stats() == (0, 0, 0, 0)
    assert registry.requests == []


async def test_an_unknown_tag_costs_nothing_that_stays(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    for n in range(20):
        with pytest.raises(ImageNotFoundError):
            await look(catalog, session, f"tag-{n}")
    assert catalog.stats() == (0, 0, 0, 0)
    assert registry.count(MANIFESTS) == 20


@pytest.mark.parametrize("tag", ["", "-a", "a/b", "../x", "ü", "a" * 129])
async def test_a_malformed_tag_is_refused_unasked(
    catalog: Catalog, registry: FakeRegistry, session: Session, tag: str
) -> None:
    with pytest.raises(InvalidReferenceError):
        await look(catalog, session, tag)
    assert registry.requests == []


async def test_a_top_on_disk_is_read_again_after_its_time(
    session: Session, clock: FakeClock
) -> None:
    given = [hold_in_memory("a", OLD)]

    async def look_up(_name: str, _registry: str | None) -> Any:
        return given[0]

    async with Catalog(look_up) as catalog:
        async with catalog.open(session, "a") as image:
            assert image.digest == OLD.digest
            source = image.image
        clock.time += 61
        async with catalog.open(session, "a") as image:
            assert image.image is source
        given[0] = hold_in_memory("a", NEW)  # another reference is another image
        async with catalog.open(session, "a") as image:
            assert image.digest == NEW.digest


async def test_a_supplement_that_was_down_is_included_later(
    registry: FakeRegistry, other: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.add("team/app", OLD)
    other.add("mirror/app", NEW)
    other.script("*", Status(503), forever=True)
    group = [f"docker://{registry.host}/team/app", f"docker://{other.host}/mirror/app"]
    async with Catalog({"team/app": group}) as catalog:

        async def lacks() -> bool:
            clock.time += 61
            async with catalog.open(session, "team/app") as image:
                assert not image.stale
                return await image.describe_blob(Digest.of(b"new layer")) is None

        assert await lacks()
        tries = [other.count()]
        for _ in range(6):
            assert await lacks()
            tries.append(other.count())
        assert [after > before for before, after in pairwise(tries)] == [
            *(True, False, True, False, False, False)
        ]
        other.clear_scripts()
        assert not await lacks()
        asked = registry.count(MANIFESTS, method="GET")
        assert not await lacks()
        assert registry.count(MANIFESTS, method="GET") == asked


async def test_an_unclosed_lease_warns(catalog: Catalog, session: Session) -> None:
    image = await catalog.open(session, "team/app")
    await image.aclose()
    await image.aclose()
    assert "closed" in repr(image)
    with pytest.warns(ResourceWarning, match="unclosed <CatalogImage"):
        await catalog.open(session, "team/app")


async def test_a_layer_that_lies_is_no_answer(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    registry.script("/v2/team/app/blobs/*", Corrupt(at=2), forever=True)
    async with catalog.open(session, "team/app") as image:
        with pytest.raises(DigestMismatchError):
            await read_blob(image, Digest.of(b"old layer"))

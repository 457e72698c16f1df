"""Patience: what is tried again before a body, how often, and after what pause."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.retry import RetryPolicy
from asupplemented.errors import (
    ForbiddenError,
    ImageNotFoundError,
    NetworkError,
    ServerError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.events import RequestRetried
from asupplemented.testing import Cut, FakeRegistry, Raw, Status, build_image
from asupplemented.transports.registry.failures import should_retry, should_retry_ping
from tests.suspending import wait_until
from tests.transports.registry.raw_servers import free_port
from tests.transports.registry.sessions import (
    BLOB,
    BLOB_DIGEST,
    IMAGE,
    OPTIONS_HERE,
    fill,
    limited,
    read_blob,
    watch,
)

if TYPE_CHECKING:
    from tests.transports.registry.sessions import Watched


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_RET06_busy_statuses_are_tried_again_with_full_jitter(
    registry: FakeRegistry, watched: Watched, status: int
) -> None:
    reference = fill(registry)
    registry.script("latest", *[Status(status)] * 4)
    watched.clock.chance = 0.5
    await watched.try_open(reference)
    assert watched.clock.slept == [1.0, 2.0, 4.0, 8.0]
    assert watched.told(RequestRetried) == [
        RequestRetried(reference, str(status), attempt, delay)
        for attempt, delay in enumerate(watched.clock.slept, 1)
    ]


@pytest.mark.parametrize(("status", "kind"), [(429, TooManyRequestsError), (503, ServerError)])
async def test_RET06_the_fifth_is_raised(
    registry: FakeRegistry, watched: Watched, status: int, kind: type[SupplementedError]
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(status), forever=True)
    with pytest.raises(kind) as caught:
        await watched.open(reference)
    assert registry.count("latest") == 5
    assert "attempt 5" in caught.value.__notes__[0]


@pytest.mark.parametrize("status", [408, 500])
async def test_RET06_some_are_tried_again_once(
    registry: FakeRegistry, watched: Watched, status: int
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(status), None, Status(status), Status(status), Status(status))
    await watched.try_open(reference)
    with pytest.raises((ServerError, UnexpectedStatusError)):
        await watched.open(reference)
    assert registry.count("latest") == 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UnexpectedStatusError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, ImageNotFoundError),
        (405, UnexpectedStatusError),
        (501, ServerError),
        (505, ServerError),
    ],
)
async def test_RET06_others_are_not(
    registry: FakeRegistry, watched: Watched, status: int, kind: type[SupplementedError]
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(status), forever=True)
    with pytest.raises(kind):
        await watched.open(reference)
    assert registry.count("latest") == 1
    assert watched.clock.slept == []


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_RET06_a_connection_that_breaks_before_the_head_is_tried_again(
    registry: FakeRegistry, watched: Watched, how: str
) -> None:
    reference = fill(registry)
    cut = Cut(after=None, how=how)  # type: ignore[arg-type]
    registry.script("latest", cut, cut, cut, cut)
    await watched.try_open(reference)
    # each of our attempts is two of aiohttp's (rule TLS-09)
    assert registry.count("latest") == 5
    assert watched.clock.slept == [2.0, 4.0]
    assert {event.reason for event in watched.told(RequestRetried)} == {"NetworkError"}


async def test_RET06_a_head_that_breaks_off_is_tried_again(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script("latest", *[Raw(b"HTTP/1.1 200 OK\r\nContent-")] * 2)
    await watched.try_open(reference)
    assert watched.clock.slept == [2.0]


async def test_RET06_a_registry_that_goes_away_is_tried_again(watched: Watched) -> None:
    registry = FakeRegistry()
    async with registry:
        source = await watched.open(fill(registry))
    with pytest.raises(NetworkError):
        await source.get_manifest(IMAGE.digest)
    assert watched.clock.slept == [2.0, 4.0, 8.0, 16.0]
    await source.aclose()


async def test_RET06_a_registry_that_was_never_there_is_not(watched: Watched) -> None:
    with pytest.raises(NetworkError):
        await watched.open(f"docker://127.0.0.1:{free_port()}/a")
    assert watched.clock.slept == []


async def test_RET06_a_blob_is_tried_again_before_its_body(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script("*/blobs/*", Status(503), Status(429, {"Retry-After": "1"}))
    assert await read_blob(watched, reference) == BLOB
    assert watched.clock.slept == [2.0, 1.0]


@pytest.mark.parametrize("status", [429, 503])
async def test_RET06_retry_after_is_heeded(
    registry: FakeRegistry, watched: Watched, status: int
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(status, {"Retry-After": "60"}))
    await watched.try_open(reference)
    assert watched.clock.slept == [60.0]


async def test_RET06_too_long_a_wait_fails_at_once(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(429, {"Retry-After": "61"}), forever=True)
    with pytest.raises(TooManyRequestsError) as caught:
        await watched.open(reference)
    assert caught.value.retry_after == 61.0
    assert caught.value.status == 429
    assert watched.clock.slept == []
    assert registry.count("latest") == 1


@pytest.mark.parametrize(
    ("value", "slept"),
    [
        ("0", [0.0]),
        ("-5", [0.0]),
        ("abc", [2.0]),
        ("", [2.0]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [0.0]),
        ("Tue, 14 Nov 2023 22:13:50 GMT", [30.0]),  # the clock begins at 22:13:20
    ],
)
async def test_RET08_odd_advice(
    registry: FakeRegistry, watched: Watched, value: str, slept: list[float]
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(429, {"Retry-After": value}))
    await watched.try_open(reference)
    assert watched.clock.slept == slept


@pytest.mark.parametrize("value", ["99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_RET08_absurd_advice_is_no_sleep(
    registry: FakeRegistry, watched: Watched, value: str
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(503, {"Retry-After": value}))
    with pytest.raises(ServerError):
        await watched.open(reference)
    assert watched.clock.slept == []


async def test_RET06_the_budget_ends_it(registry: FakeRegistry) -> None:
    reference = fill(registry)
    registry.script("latest", Status(503, {"Retry-After": "50"}), forever=True)
    async with watch() as watched:
        with pytest.raises(ServerError):
            await watched.open(reference)
        assert watched.clock.slept == [50.0, 50.0]


async def test_RET06_the_policy_is_an_option(registry: FakeRegistry) -> None:
    reference = fill(registry)
    registry.script("latest", Status(503), forever=True)
    async with watch(options=replace(OPTIONS_HERE, retry=RetryPolicy(attempts=2))) as watched:
        with pytest.raises(ServerError):
            await watched.open(reference)
    assert registry.count("latest") == 2


async def test_RET07_a_429_holds_back_new_requests_and_lets_bodies_go_on(
    registry: FakeRegistry, watched: Watched
) -> None:
    big = build_image("linux/amd64", [BLOB * 64])
    reference = registry.add("big", big)
    layer = big.layers[0]
    async with await watched.open(reference) as source, source.open_blob(layer) as blob:
        [client] = watched.pool._clients.values()
        registry.script(big.digest, Status(429, {"Retry-After": "30"}))
        began = watched.clock.time
        refused = asyncio.create_task(source.get_manifest(big.digest))
        await wait_until(lambda: client.limiter.paused)
        await source.get_manifest(big.digest)  # begins in the pause, and waits for its end
        assert watched.clock.time >= began + 30
        await refused
        assert await blob.read_all(1 << 24) == BLOB * 64


async def test_RET07_a_pause_is_for_one_registry_only(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(fill(registry)):
        registry.script(IMAGE.digest, Status(429, {"Retry-After": "30"}))
        for client in watched.pool._clients.values():
            client.limiter.pause(30)
        await watched.try_open(fill(other))
        assert watched.clock.slept == []


async def test_RET07_six_bodies_at_once_and_manifests_past_them(
    registry: FakeRegistry, watched: Watched
) -> None:
    from asupplemented.transports.registry.blobs import HttpBlob
    from asupplemented.transports.registry.request import RequestContext

    reference = fill(registry)
    async with await watched.open(reference) as source:
        [client] = watched.pool._clients.values()
        caller = RequestContext(reference, lambda event: None)

        def body() -> HttpBlob:
            return HttpBlob(
                client,
                "team/app",
                BLOB_DIGEST,
                start=0,
                end=None,
                etag=None,
                request_context=caller,
            )

        bodies = [await body().__aenter__() for _ in range(6)]
        seventh = body()
        waiting = asyncio.create_task(seventh.__aenter__())
        await source.get_manifest(IMAGE.digest)
        assert not waiting.done()
        assert registry.count("*/blobs/*") == 6
        await bodies[0].__aexit__(None, None, None)
        await waiting
        for held in (*bodies, seventh):
            await held.__aexit__(None, None, None)


async def test_RET07_the_number_of_bodies_is_an_option(registry: FakeRegistry) -> None:
    reference = fill(registry)
    registry.latency = 0.01
    async with watch(options=limited(bodies=2)) as watched:
        async with await watched.open(reference):
            registry.max_in_flight = 0
            results = await asyncio.gather(*(read_blob(watched, reference) for _ in range(8)))
        assert results == [BLOB] * 8
    registry.clear_scripts()
    blobs = [request.time for request in registry.select_requests("*/blobs/*")]
    assert all(later - earlier >= 0.01 for earlier, later in zip(blobs, blobs[2:], strict=False))


def test_a_stranger_is_not_judged() -> None:
    error = SupplementedError("x")
    assert should_retry(error) is None
    assert should_retry_ping(error) is None

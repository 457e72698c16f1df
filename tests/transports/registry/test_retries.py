"""Patience: what is tried again before a body, how often, and after what pause."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import struct
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from asupplemented.aio.breaker import BreakerState
from asupplemented.aio.retry import RetryPolicy
from asupplemented.blobs.health import health_of
from asupplemented.errors import (
    ForbiddenError,
    ImageNotFoundError,
    NetworkError,
    ServerError,
    SlotTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.events import RequestRetried
from asupplemented.model.descriptor import Descriptor
from asupplemented.supplemented import supplement
from asupplemented.testing import Authority, Chunked, Cut, FakeRegistry, Raw, Status, build_image
from asupplemented.transports.registry.failures import should_retry, translate
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


@pytest.mark.parametrize("status", [429, 502, 503, 504, 520, 521, 522, 523, 524, 529])
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
        (519, ServerError),
        (525, ServerError),
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


async def test_RET06_a_registry_that_is_not_there_yet_is_waited_for(watched: Watched) -> None:
    with pytest.raises(NetworkError):
        await watched.open(f"docker://127.0.0.1:{free_port()}/a")
    assert watched.clock.slept == [2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("secure", [True, False])
async def test_RET06_the_first_contact_is_patient(*, how: str, secure: bool) -> None:
    """Connections that break before TLS or before an answer, then a registry that works."""
    authority = Authority()
    broken = 0

    async with FakeRegistry(tls=authority.server_context() if secure else None) as registry:
        reference = fill(registry)

        async def break_some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal broken
            broken += 1
            if broken <= 4:
                await reader.read(1)
                if how == "rst":
                    _reset(writer)
                writer.close()
                return
            await _pipe(reader, writer, registry.host)

        front = await asyncio.start_server(break_some, "127.0.0.1", 0)
        host = f"127.0.0.1:{front.sockets[0].getsockname()[1]}"
        async with front, watch() as watched:
            await watched.try_open(reference.replace(registry.host, host))
            assert watched.clock.slept
            assert {event.reason for event in watched.told(RequestRetried)} == {"NetworkError"}


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    name, _, port = host.partition(":")
    inner, outer = await asyncio.open_connection(name, int(port))

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    await asyncio.gather(copy(reader, outer), copy(inner, writer))


KEY = ConnectionKey(
    "example.com", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
CONNECTING = {
    "EAI_AGAIN": (
        aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_AGAIN, "")),
        True,
    ),
    "EAI_NONAME": (
        aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "")),
        False,
    ),
    "refused": (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError()), True),
    "reset": (aiohttp.ClientConnectorError(KEY, ConnectionResetError()), True),
    "no route": (aiohttp.ClientConnectorError(KEY, OSError(errno.EHOSTUNREACH, "")), True),
    "TLS eof": (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLEOFError(8, "")), True),
    "TLS closed": (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLZeroReturnError(6, "")), True),
    "TLS refused": (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "")), False),
    "not trusted": (
        aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError()),
        False,
    ),
}


@pytest.mark.parametrize(("error", "retried"), CONNECTING.values(), ids=CONNECTING)
def test_RET06_which_failures_to_connect_pass(error: Exception, *, retried: bool) -> None:
    failure = translate(error, URL("https://example.com/v2/"))
    assert (should_retry(failure) is not None) is retried


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


async def test_RET07_bodies_that_are_not_read_keep_no_other_waiting(registry: FakeRegistry) -> None:
    """Far more bodies than slots are open; those that are read come through, in any order."""
    reference = fill(registry)
    registry.script("*/blobs/*", Chunked(1000), forever=True)
    async with (
        watch(options=limited(bodies=2, body_idle=0.0, body_wait=5.0)) as watched,
        await watched.open(reference) as source,
        AsyncExitStack() as stack,
    ):
        big = Descriptor(digest=BLOB_DIGEST, size=len(BLOB))
        opened = [
            await stack.enter_async_context(source.open_parts(big, [(0, 10), (20, len(BLOB))]))
            for _ in range(8)
        ]
        for parts in reversed(opened):
            read = [b"".join([chunk async for chunk in part]) async for part in parts]
            assert read == [BLOB[:10], BLOB[20:]]


async def test_RET07_waiting_for_a_slot_ends_and_another_source_is_asked(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    group = (other.add("top/app", IMAGE), registry.add("team/app", IMAGE))
    async with (
        watch(options=limited(bodies=1, body_wait=0.0)) as watched,
        supplement(*group).open(watched.session) as image,
    ):
        [client] = [c for c in watched.pool._clients.values() if c.registry == registry.host]
        async with client.limiter.bodies.hold():
            async with image.open_blob(BLOB_DIGEST) as blob:
                assert await blob.read_all(1 << 20) == BLOB
                assert blob.member == 0
            with pytest.raises(SlotTimeoutError):
                await read_blob(watched, group[1])
        assert health_of(watched.session).state(group[1]) is BreakerState.CLOSED

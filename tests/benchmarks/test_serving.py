"""The clients of the benchmarks count right, and the proxy serves what it should."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

import asupplemented as asup
from asupplemented.cache.layout.layout_cache import LayoutCache
from benchmarks.clients import Outcome, crowd
from benchmarks.proxy import serve_blob
from benchmarks.server import LeanRegistry, hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.server import Offer

CLIENTS = 8
CONTENT = bytes(range(256)) * 40_000


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[LeanRegistry]:
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    async with LeanRegistry(hold(1, singles=1, file=file)) as registry:
        yield registry


async def test_a_crowd_counts_every_byte(registry: LeanRegistry) -> None:
    outcome = await asyncio.to_thread(crowd, registry.offer.blob_url, CLIENTS)
    assert outcome.received == CLIENTS * len(CONTENT)
    assert len(outcome.first_bytes) == CLIENTS
    assert 0 < outcome.first_byte(0.5) <= outcome.first_byte(0.99) <= outcome.seconds
    assert registry.sent == CLIENTS
    assert await asyncio.to_thread(registry.offer.count_sent) == CLIENTS


@pytest.mark.parametrize("rate", [0, 100_000])
async def test_who_does_not_read_gets_little(registry: LeanRegistry, rate: int) -> None:
    url = registry.offer.blob_url
    outcome = await asyncio.to_thread(crowd, url, CLIENTS, rate=rate, leave_after=0.2)
    assert 0 < outcome.received <= CLIENTS * 50_000
    assert len(outcome.first_bytes) == CLIENTS


async def test_a_crowd_that_is_refused_says_so(registry: LeanRegistry) -> None:
    with pytest.raises(RuntimeError, match="404"):
        await asyncio.to_thread(crowd, registry.offer.manifest_url("gone"), CLIENTS)


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.5, 2), (0.75, 3), (0.99, 4), (1, 4)])
def test_a_share_of_the_clients_is_rounded_up(share: float, expected: int) -> None:
    assert Outcome(1.0, 0, (1, 2, 3, 4)).first_byte(share) == expected


async def serve_and_get(
    offer: Offer, clients: int, cache: LayoutCache | None
) -> tuple[list[bytes], list[web.StreamResponse]]:
    """What so many clients get from a proxy, and how that answered."""
    blob = asup.Descriptor("application/octet-stream", offer.blob or "", offer.blob_size)
    responses: list[web.StreamResponse] = []
    async with (
        asup.Session(tls_verify=False, cache=cache) as session,
        asup.parse_reference(offer.reference("single-0")).open(session) as source,
    ):

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            responses.append(await serve_blob(request, source, blob))
            return responses[-1]

        async def get() -> bytes:
            async with http.get(server.make_url("/")) as answer:
                assert answer.status == 200
                return await answer.read()

        async with RawTestServer(handle) as server, aiohttp.ClientSession() as http:
            bodies = await asyncio.gather(*(get() for _ in range(clients)))
    return bodies, responses


async def test_the_proxy_fetches_once_for_all(registry: LeanRegistry) -> None:
    bodies, _ = await serve_and_get(registry.offer, CLIENTS, None)
    assert bodies == [CONTENT] * CLIENTS
    assert registry.sent == 1


async def test_the_proxy_sends_the_file_of_what_is_kept(
    registry: LeanRegistry, tmp_path: Path
) -> None:
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    bodies, [response] = await serve_and_get(registry.offer, 1, cache)  # then it is kept
    assert bodies == [CONTENT]
    assert not isinstance(response, web.FileResponse)
    bodies, responses = await serve_and_get(registry.offer, CLIENTS, cache)
    assert bodies == [CONTENT] * CLIENTS
    assert all(isinstance(response, web.FileResponse) for response in responses)
    assert registry.sent == 1

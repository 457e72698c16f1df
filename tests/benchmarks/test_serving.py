"""The clients of the benchmarks count right, and the proxy serves what it should."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

import asupplemented as asup
from benchmarks.clients import Outcome, crowd, repeat
from benchmarks.proxy import bare_app, open_app
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


@asynccontextmanager
async def run_proxy(offer: Offer, cache: Path | None = None) -> AsyncIterator[str]:
    """Our proxy, which knows the image of the blob; gives the URL of its repository."""
    async with open_app(offer.repository, cache) as app, TestServer(app) as server:
        root = f"http://127.0.0.1:{server.port}/v2/bench"
        await asyncio.to_thread(repeat, f"{root}/manifests/file", 2)
        yield root


@pytest.mark.parametrize("kept", [False, True])
async def test_the_proxy_fetches_once_for_all(
    registry: LeanRegistry, tmp_path: Path, *, kept: bool
) -> None:
    async with run_proxy(registry.offer, tmp_path / "cache" if kept else None) as root:
        url = f"{root}/blobs/{registry.offer.blob}"
        outcome = await asyncio.to_thread(crowd, url, CLIENTS)
        assert outcome.received == CLIENTS * len(CONTENT)
    assert registry.sent == 1


async def test_the_proxy_sends_what_is_kept(registry: LeanRegistry, tmp_path: Path) -> None:
    for _ in range(2):
        async with run_proxy(registry.offer, tmp_path / "cache") as root:
            url = f"{root}/blobs/{registry.offer.blob}"
            await asyncio.to_thread(crowd, url, 1)
    assert registry.sent == 1


async def test_a_bare_handler_answers_as_the_proxy_does(registry: LeanRegistry) -> None:
    target = "/manifests/single-0"
    async with (
        asup.Session(tls_verify=False) as session,
        asup.parse_reference(registry.offer.reference("single-0")).open(session) as source,
        TestServer(bare_app(await source.get_manifest())) as bare,
        run_proxy(registry.offer) as root,
        aiohttp.ClientSession() as http,
    ):
        answers = []
        for url in (f"{root}{target}", str(bare.make_url(f"/v2/bench{target}"))):
            async with http.get(url) as answer:
                kind = answer.headers["Content-Type"]
                answers.append((answer.status, kind, await answer.read()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200

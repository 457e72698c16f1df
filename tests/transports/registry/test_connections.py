"""The client underneath: our own, or one that is borrowed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from asupplemented._version import __version__
from asupplemented.abc import Timeouts
from asupplemented.aio.lru import LRU
from asupplemented.aio.threads import Workers
from asupplemented.errors import (
    ClosedError,
    ConfigurationError,
    MalformedResponseError,
    NetworkError,
    SourceTimeoutError,
)
from asupplemented.session import Session
from asupplemented.testing import Authority, Cut, Encoding, FakeRegistry, Headers, Hold, Redirect
from asupplemented.transports.registry import connections as module
from asupplemented.transports.registry.addresses import AddressScope
from asupplemented.transports.registry.connections import Connections
from asupplemented.transports.registry.failures import ForbiddenAddressError
from asupplemented.transports.registry.options import RegistryOptions
from tests.transports.registry.raw_servers import serve_bytes
from tests.transports.registry.sessions import IMAGE, fill, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.transports.registry.sessions import Watched


@pytest.fixture
async def lent() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with every setting that would disturb us."""
    async with aiohttp.ClientSession(
        headers={"Authorization": "Bearer theirs", "Accept": "text/html", "X-Theirs": "1"},
        cookies={"theirs": "1"},
        auto_decompress=True,
        raise_for_status=True,
        timeout=aiohttp.ClientTimeout(total=0.001),
        trust_env=True,
        max_field_size=100,
    ) as client:
        yield client


async def test_what_a_lender_sets_stays_with_the_lender(
    registry: FakeRegistry, lent: aiohttp.ClientSession
) -> None:
    reference = fill(registry)
    registry.script("latest", Headers({"Set-Cookie": "sticky=1; Path=/", "X-Long": "x" * 9000}))
    async with watch(http=lent) as watched:
        for _ in range(2):
            await watched.try_open(reference)
    for request in registry.requests:
        for name in ("Authorization", "Cookie", "X-Theirs"):
            assert request.header(name) is None
        assert request.header("Accept") != "text/html"
    assert not lent.closed
    assert [cookie.key for cookie in lent.cookie_jar] == ["theirs"]


async def test_what_is_borrowed_is_not_closed(
    registry: FakeRegistry, lent: aiohttp.ClientSession
) -> None:
    async with watch(http=lent) as watched:
        await watched.try_open(fill(registry))
    assert not lent.closed
    assert lent.connector is not None
    assert not lent.connector.closed
    assert registry.open_connections >= 1  # and its connections are kept


async def test_a_borrowed_client_follows_our_rules(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    from asupplemented.errors import MalformedResponseError

    reference = fill(registry)
    registry.script("latest", Encoding("gzip"), Redirect("ftp://x/"))
    async with aiohttp.ClientSession() as lent, watch(http=lent) as watched:
        with pytest.raises(MalformedResponseError, match="identity"):
            await watched.open(reference)
        with pytest.raises(MalformedResponseError, match="redirects"):
            await watched.open(reference)


async def test_TLS06_a_lender_decides_about_certificates() -> None:
    authority = Authority()
    connector = aiohttp.TCPConnector(ssl=authority.client_context())
    async with (
        FakeRegistry(tls=authority.server_context()) as registry,
        aiohttp.ClientSession(connector=connector) as lent,
        watch(tls_verify=True, http=lent) as watched,
    ):
        await watched.try_open(fill(registry))


async def test_the_lender_sees_its_traces(registry: FakeRegistry) -> None:
    seen: list[str] = []

    async def note(
        session: object, context: object, params: aiohttp.TraceRequestStartParams
    ) -> None:
        seen.append(params.url.path)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(note)
    config.freeze()
    async with (
        aiohttp.ClientSession(trace_configs=[config]) as lent,
        watch(http=lent) as watched,
    ):
        await watched.try_open(fill(registry))
    assert "/v2/team/app/manifests/latest" in seen


async def test_a_borrowed_client_waits_as_long_for_a_head(registry: FakeRegistry) -> None:
    reference = fill(registry)
    registry.script("latest", Hold(asyncio.Event()), forever=True)
    timeouts = Timeouts(connect=0.5, first_byte=0.5)
    async with aiohttp.ClientSession() as lent, watch(http=lent, timeouts=timeouts) as watched:
        with pytest.raises(SourceTimeoutError):
            await watched.open(reference)


async def test_a_client_that_was_closed_cannot_be_lent(registry: FakeRegistry) -> None:
    lent = aiohttp.ClientSession()
    async with Session(http=lent) as session:
        await lent.close()
        from asupplemented.transports import parse_reference

        with pytest.raises(ConfigurationError, match="closed"):
            await parse_reference(fill(registry)).open(session)


def test_what_is_no_client_cannot_be_lent() -> None:
    with pytest.raises(ConfigurationError, match="not a str"):
        Connections(
            "client", timeouts=Timeouts(), options=RegistryOptions(), in_thread=Workers().run
        )


async def test_a_lender_that_closes_early_is_told(registry: FakeRegistry) -> None:
    lent = aiohttp.ClientSession()
    async with watch(http=lent) as watched, await watched.open(fill(registry)) as source:
        await lent.close()
        with pytest.raises((ClosedError, NetworkError)):
            await source.get_manifest(IMAGE.digest)


async def test_nothing_is_opened_after_the_end(registry: FakeRegistry, watched: Watched) -> None:
    async with await watched.open(fill(registry)) as source:
        await watched.connections.aclose()
        await watched.connections.aclose()
        with pytest.raises(ClosedError):
            await source.get_manifest(IMAGE.digest)
        with pytest.raises(ClosedError):
            await watched.open(registry.reference("team/app").replace("127.0.0.1", "localhost"))


async def test_a_flood_of_hosts_keeps_the_last_ones(
    registry: FakeRegistry, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HOSTS", 2)
    await watched.try_open(fill(registry).replace("127.0.0.1", "localhost"))
    for number in range(4):
        watched.connections._scopes.put(f"host-{number}", AddressScope.PRIVATE)
    hosts = ("localhost", "host-0", "host-1", "host-2", "host-3")
    assert [host for host in hosts if watched.connections.find_scope(host)] == ["host-2", "host-3"]


@pytest.mark.parametrize("timeouts", [Timeouts(connect=None), Timeouts(first_byte=None)])
async def test_no_limit_is_fine(registry: FakeRegistry, timeouts: Timeouts) -> None:
    async with watch(timeouts=timeouts) as watched:
        await watched.try_open(fill(registry))
    async with aiohttp.ClientSession() as lent, watch(http=lent, timeouts=timeouts) as watched:
        await watched.try_open(fill(registry))


async def test_the_first_byte_has_its_time_and_the_connection_its_own(
    registry: FakeRegistry,
) -> None:
    reference = fill(registry)
    registry.script("latest", Hold(asyncio.Event()), forever=True)
    async with watch(timeouts=Timeouts(connect=60, first_byte=0.5)) as watched:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(SourceTimeoutError):
            await watched.open(reference)
        assert loop.time() - began < 5


async def test_TLS09_a_dead_idle_connection_is_replaced(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(fill(registry)) as source:
        registry.script(IMAGE.digest, Cut(after=None))
        await source.get_manifest(IMAGE.digest)
    assert watched.clock.slept == []


async def test_no_cookie_is_kept(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("*", Headers({"Set-Cookie": "a=b; Path=/"}), forever=True)
    for _ in range(2):
        await watched.try_open(reference)
    assert all(request.header("Cookie") is None for request in registry.requests)


async def test_TLS07_no_netrc_is_read(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    from pathlib import Path

    netrc = Path(str(tmp_path)) / "netrc"
    netrc.write_text("machine 127.0.0.1 login bob password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with watch() as watched:
        await watched.try_open(fill(registry))
    assert all(request.header("Authorization") is None for request in registry.requests)


async def test_the_user_agent_has_the_version(registry: FakeRegistry, watched: Watched) -> None:
    await watched.try_open(fill(registry))
    assert registry.requests[0].header("User-Agent") == f"asupplemented/{__version__}"


LENGTHS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": b"Content-Length: 5, 6\r\n\r\nhello!",
    "a length with a sign": b"Content-Length: +5\r\n\r\nhello",
    "a length below nothing": b"Content-Length: -5\r\n\r\nhello",
    "a length with a line": b"Content-Length: 1_0\r\n\r\nhello",
    "a length and chunks": (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    ),
    "a size that is none": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk that goes on": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    "NUL in a header": b"X: a\0b\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", LENGTHS.values(), ids=LENGTHS)
async def test_SEC15_an_answer_with_two_meanings_is_refused(answer: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    async with serve_bytes(b"", then=head + answer) as host, watch() as watched:
        with pytest.raises(MalformedResponseError):
            await watched.open(f"docker://{host}/a")
        for client in watched.connections._clients.values():
            assert client.session.connector is not None
            assert not client.session.connector._conns


class Turning(AbstractResolver):
    """Says another address each time."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(
            hostname=host,
            host=self.addresses.pop(0),
            port=port,
            family=family,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
        return [found]

    async def close(self) -> None: ...


@pytest.mark.parametrize("then", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "0.0.0.0"])  # noqa: S104 - nothing is bound
async def test_SEC01_a_name_that_changes_its_mind_is_judged_each_time(then: str) -> None:
    resolver = module._Resolver(LRU(1), module.AddressGate(AddressScope.PUBLIC, "x"))
    await resolver.close()
    resolver._inner = Turning("93.184.216.34", then)
    [found] = await resolver.resolve("turning.example")
    assert found["host"] == "93.184.216.34"  # and this is what is connected to
    with pytest.raises(ForbiddenAddressError):
        await resolver.resolve("turning.example")


@pytest.mark.parametrize("verified", [True, False])
def test_TLS06_the_contexts_of_aiohttp_demand_TLS_1_2(*, verified: bool) -> None:
    context = aiohttp.connector._make_ssl_context(verified)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode is ssl.CERT_REQUIRED) is verified
    assert context.check_hostname is verified

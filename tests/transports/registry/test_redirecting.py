"""Redirects over the wire: what is followed, and what goes along."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from asupplemented.errors import (
    ConfigurationError,
    InvalidReferenceError,
    MalformedResponseError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.testing import (
    Authority,
    Basic,
    Bearer,
    FakeRegistry,
    Headers,
    Redirect,
    Status,
    Unauthorized,
)
from asupplemented.transports.registry import RegistryReference
from asupplemented.transports.registry import connections as connections_module
from asupplemented.transports.registry.addresses import AddressScope
from tests.transports.registry.sessions import (
    BLOB,
    BLOB_DIGEST,
    IMAGE,
    OPTIONS_HERE,
    fill,
    read_blob,
    watch,
)

if TYPE_CHECKING:
    from tests.transports.registry.sessions import Watched

BLOBS = f"/v2/team/app/blobs/{BLOB_DIGEST}"
SIGNED = "?sig=a%2Bb%2Fc%3D&x=%7E%41&secret=sentinel"
LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "localhost.",
    "%31%32%37.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_REDIR04_a_blob_elsewhere(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched, code: int
) -> None:
    reference = fill(registry)
    url = other.put_file("/storage/blob", BLOB)
    registry.script(BLOBS, Redirect(url + SIGNED, code))
    assert await read_blob(watched, reference) == BLOB
    [request] = other.requests
    assert request.method == "GET"
    assert request.target == "/storage/blob" + SIGNED


async def test_REDIR04_the_range_goes_along(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    other.repository("x").blobs[BLOB_DIGEST] = BLOB
    registry.script(BLOBS, Redirect(f"{other.url}/v2/x/blobs/{BLOB_DIGEST}"))
    assert await read_blob(watched, reference, start=100) == BLOB[100:]
    assert other.requests[0].header("Range") == "bytes=100-"


async def test_REDIR04_a_manifest_elsewhere(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    fill(other, "moved/app")
    registry.script("latest", Redirect(f"{other.url}/v2/moved/app/manifests/latest"))
    async with await watched.open(registry.reference("team/app")) as source:
        assert (await source.get_manifest()).digest == IMAGE.digest


async def test_REDIR02_credentials_stay_at_home(other: FakeRegistry) -> None:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        reference = fill(registry)
        url = other.put_file("/storage/blob", BLOB)
        registry.script(BLOBS, Redirect(url))
        async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
            assert await read_blob(watched, reference) == BLOB
        assert registry.requests[-1].header("Authorization") is not None
        [request] = other.requests
        for name in ("Authorization", "Cookie", "Proxy-Authorization"):
            assert request.header(name) is None
        assert request.header("Accept") == "*/*"


async def test_REDIR02_credentials_are_kept_within_the_origin() -> None:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        reference = fill(registry)
        registry.add("moved/app", IMAGE)
        registry.script(BLOBS, Redirect(f"/v2/moved/app/blobs/{BLOB_DIGEST}"))
        async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
            assert await read_blob(watched, reference) == BLOB


async def test_SEC02_credentials_do_not_come_back_after_a_detour(other: FakeRegistry) -> None:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        reference = fill(registry)
        back = registry.put_file("/back", BLOB)
        registry.script(BLOBS, Redirect(f"{other.url}/detour"))
        other.script("/detour", Redirect(back))
        async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
            assert await read_blob(watched, reference) == BLOB
        assert registry.requests[-1].target == "/back"
        assert registry.requests[-1].header("Authorization") is None
        assert other.requests[0].header("Authorization") is None


async def test_CRED06_a_401_from_elsewhere_is_final(other: FakeRegistry) -> None:
    async with FakeRegistry(access=Bearer({"bob": "secret"})) as registry:
        reference = fill(registry)
        registry.script(BLOBS, Redirect(f"{other.url}/storage"))
        other.script("/storage", Unauthorized(challenge=f'Bearer realm="{other.url}/token"'))
        async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
            with pytest.raises(UnauthorizedError):
                await read_blob(watched, reference)
        assert [request.path for request in other.requests] == ["/storage"]


@pytest.mark.parametrize("hops", [10, 11])
async def test_REDIR04_ten_redirects_and_no_more(
    registry: FakeRegistry, watched: Watched, hops: int
) -> None:
    reference = fill(registry)
    last = registry.put_file("/end", BLOB)
    registry.script(BLOBS, Redirect("/hop/1"))
    for number in range(1, hops - 1):
        registry.script(f"/hop/{number}", Redirect(f"/hop/{number + 1}"))
    registry.script(f"/hop/{hops - 1}", Redirect(last))
    if hops == 10:
        assert await read_blob(watched, reference) == BLOB
    else:
        with pytest.raises(MalformedResponseError, match="10 redirects"):
            await read_blob(watched, reference)
        assert registry.count("/end") == 0


async def test_REDIR04_a_circle_ends(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script(BLOBS, Redirect(f"{other.url}/there{SIGNED}"), forever=True)
    other.script("/there", Redirect(registry.url + BLOBS), forever=True)
    with pytest.raises(MalformedResponseError, match="circle") as caught:
        await read_blob(watched, reference)
    assert "sentinel" not in str(caught.value)
    assert caught.value.status == 307


@pytest.mark.parametrize(
    "location", ["", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://u:sentinel@127.0.0.1/x"]
)
async def test_REDIR04_where_not_to_go(
    registry: FakeRegistry, watched: Watched, location: str
) -> None:
    reference = fill(registry)
    registry.script(BLOBS, Redirect(location))
    with pytest.raises(MalformedResponseError) as caught:
        await read_blob(watched, reference)
    assert "sentinel" not in str(caught.value)


async def test_REDIR04_a_redirect_without_a_location(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script(BLOBS, (Redirect("/x"), Headers({"Location": None})))
    with pytest.raises(MalformedResponseError, match="without a location"):
        await read_blob(watched, reference)


async def test_REDIR04_not_from_https_to_http(other: FakeRegistry) -> None:
    import aiohttp

    authority = Authority()
    async with FakeRegistry(tls=authority.server_context()) as registry:
        reference = fill(registry)
        registry.script(BLOBS, Redirect(other.put_file("/storage", BLOB)))
        connector = aiohttp.TCPConnector(ssl=authority.client_context())
        async with (
            aiohttp.ClientSession(connector=connector) as lent,
            watch(tls_verify=True, http=lent) as watched,
        ):
            with pytest.raises(MalformedResponseError, match="plain http"):
                await read_blob(watched, reference)
    assert other.requests == []


async def test_TLS05_only_the_host_of_the_registry_goes_unverified(registry: FakeRegistry) -> None:
    from asupplemented.errors import NetworkError

    reference = fill(registry)
    async with FakeRegistry(tls=Authority().server_context()) as storage:
        own = storage.put_file("/storage", BLOB)
        registry.script(BLOBS, Redirect(own.replace("127.0.0.1", "localhost")))
        async with watch() as watched:
            with pytest.raises(NetworkError, match="certificate"):
                await read_blob(watched, reference)
        assert storage.requests == []
        registry.script(BLOBS, Redirect(own), forever=True)
        async with watch() as watched:
            assert await read_blob(watched, reference) == BLOB


async def test_REDIR05_errors_from_a_signed_place_show_no_query(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script(BLOBS, Redirect(f"{other.url}/storage{SIGNED}"), forever=True)
    other.script("/storage", Status(418))
    with pytest.raises(UnexpectedStatusError) as caught:
        await read_blob(watched, reference)
    assert caught.value.url == f"{other.url}/storage"
    assert "sentinel" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/",
        "http://0.0.0.0:1/",
        "http://[::ffff:169.254.169.254]/",
        "http://224.0.0.1/",
    ],
)
async def test_SEC01_no_redirect_to_where_nobody_may_go(
    registry: FakeRegistry, watched: Watched, target: str
) -> None:
    reference = fill(registry)
    registry.script(BLOBS, Redirect(target))
    with pytest.raises(MalformedResponseError, match="more private than its own"):
        await read_blob(watched, reference)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "more private than its own") for name in LOOPBACK),
    ],
)
async def test_SEC01_a_public_registry_does_not_lead_to_loopback(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched, name: str, why: str
) -> None:
    reference = fill(registry).replace("127.0.0.1", "localhost")
    url = other.put_file("/storage", BLOB)
    registry.script(BLOBS, Redirect(url.replace("127.0.0.1", name)), forever=True)
    async with await watched.open(reference) as source:
        # Nobody in a test is public, so the registry is declared to be.
        [client] = watched.pool._clients.values()
        assert client._contact is not None
        client._contact.redirect_client._scope = AddressScope.PUBLIC
        with pytest.raises(MalformedResponseError, match=why):
            async with source.open_blob(BLOB_DIGEST):
                pass
    assert other.requests == []


async def test_SEC01_loopback_may_lead_to_loopback_by_name_too(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    url = other.put_file("/storage", BLOB)
    registry.script(BLOBS, Redirect(url.replace("127.0.0.1", "localhost")))
    assert await read_blob(watched, reference) == BLOB
    assert watched.connections.find_scope("127.0.0.1") is AddressScope.LOOPBACK


async def test_SEC01_the_reach_of_a_registry_is_that_of_its_address(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry).replace("127.0.0.1", "localhost")
    await watched.try_open(reference)
    assert watched.connections.find_scope("localhost") is AddressScope.LOOPBACK
    assert watched.connections.find_scope("never.asked") is None


async def test_SEC01_the_scope_of_a_registry_is_not_forgotten(
    registry: FakeRegistry, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A principal that names many hosts must not switch the check off for another one."""
    monkeypatch.setattr(connections_module, "MAX_HOSTS", 1)
    reference = fill(registry).replace("127.0.0.1", "localhost")
    registry.script(BLOBS, Redirect("http://169.254.169.254/"), forever=True)
    async with await watched.open(reference) as source:
        watched.connections._scopes.clear()
        with pytest.raises(MalformedResponseError, match="more private than its own"):
            async with source.open_blob(BLOB_DIGEST):
                pass


PUBLIC_ONLY = replace(OPTIONS_HERE, public_only=True)


@pytest.mark.parametrize("name", ["localhost", *LOOPBACK])
async def test_SEC01_public_only_connects_nowhere_else(registry: FakeRegistry, name: str) -> None:
    reference = fill(registry).replace("127.0.0.1", name)
    async with watch(options=PUBLIC_ONLY) as watched:
        try:
            parsed = RegistryReference.parse(reference.removeprefix("docker:"), allow_ipv6=True)
        except InvalidReferenceError:
            return
        with pytest.raises(MalformedResponseError, match="public_only"):
            await parsed.open(watched.session)
    assert registry.connections == 0


class Rebinding(AbstractResolver):
    """Gives a public address first, and another one from then on."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("127.0.0.1", "10.0.0.1", "100.64.0.1")])
async def test_SEC01_public_only_checks_the_addresses_of_names(
    registry: FakeRegistry, addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Rebinding(*addresses)
    monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: resolver)
    async with watch(options=PUBLIC_ONLY) as watched:
        with pytest.raises(MalformedResponseError, match="public_only"):
            await watched.open(f"docker://rebound.example:{registry.host.split(':')[1]}/a/b")
    assert resolver.asked
    assert registry.connections == 0


async def test_SEC01_each_address_is_checked_again_when_it_is_connected_to(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the resolver says and however an address is written."""
    monkeypatch.setattr(connections_module._Resolver, "resolve", Rebinding("127.0.0.1").resolve)
    async with watch(options=PUBLIC_ONLY) as watched:
        with pytest.raises(MalformedResponseError, match="public_only"):
            await watched.open(f"docker://rebound.example:{registry.host.split(':')[1]}/a/b")
    assert registry.connections == 0


async def test_SEC01_public_only_does_not_go_with_a_borrowed_client(registry: FakeRegistry) -> None:
    async with (
        aiohttp.ClientSession() as lent,
        watch(options=PUBLIC_ONLY, http=lent) as watched,
    ):
        with pytest.raises(ConfigurationError, match="public_only"):
            await watched.open(fill(registry))
    assert registry.connections == 0


async def test_SEC01_private_targets_can_be_allowed(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    reference = fill(registry)
    registry.script(BLOBS, Redirect("http://0.0.0.0:1/"), forever=True)
    async with watch(options=replace(OPTIONS_HERE, private_targets=True)) as watched:
        with pytest.raises(OSError, match="no connection"):
            await read_blob(watched, reference)

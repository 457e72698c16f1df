"""What hooks are told of requests: each once, with its bytes, its source and its cache use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest

from asupplemented import Catalog, LayoutCache, RegistryOptions, RetryPolicy, Session, copy, web
from asupplemented.cache.sharing import SHARING, Sharing, settle
from asupplemented.errors import SupplementedError
from asupplemented.events import (
    BlobServed,
    ManifestFetched,
    RequestServed,
    UpstreamResponded,
)
from asupplemented.model.digest import Digest
from asupplemented.testing import (
    Corrupt,
    FakeRegistry,
    Hold,
    SourceControl,
    Stall,
    Status,
    build_image,
)
from asupplemented.web import Identity, basic
from tests.clocks import let_pass
from tests.web.clients import Exchange, until
from tests.web.conftest import LARGE, SMALL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.web.catalogs import FakeCatalog
    from tests.web.conftest import Serve

IMAGE = build_image("linux/amd64", [SMALL, LARGE])
LAYER = Digest.of(LARGE)
ROOT = "/v2/team/app"
OPTIONS = RegistryOptions(retry=RetryPolicy(attempts=1))


class World(NamedTuple):
    """A registry, a catalog before it, a session with a cache, and what its hook was told."""

    registry: FakeRegistry
    catalog: Catalog
    session: Session
    cache: LayoutCache
    told: list[Any]

    @property
    def source(self) -> str:
        return f"docker://{self.registry.host}/team/app:latest"

    def count_waiting(self) -> int:
        """Requests that wait for an image or a blob."""
        openings = self.catalog._openings._running.values()
        fetches = self.session.resource(SHARING, Sharing)._running
        return sum(each.callers for each in openings) + sum(len(each.readers) for each in fetches)

    def take(self, kind: type[Any] = RequestServed) -> list[Any]:
        """The events of a kind since the last call."""
        found = [event for event in self.told if isinstance(event, kind)]
        self.told.clear()
        return found

    async def take_one(self) -> RequestServed:
        """The event of the request that was sent since the last call."""
        await until(lambda: any(isinstance(event, RequestServed) for event in self.told))
        (event,) = self.take()
        assert event.seconds >= (event.first_byte or 0.0) >= 0
        return event


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    told: list[Any] = []
    async with (
        FakeRegistry() as registry,
        LayoutCache(tmp_path / "cache", 1 << 30) as cache,
        Session(cache=cache, tls_verify=False, settings=[OPTIONS], hooks=[told.append]) as session,
        Catalog(
            {
                "team/app": f"docker://{registry.host}/team/app",
                "reg.test/*": f"docker://{registry.host}/{{name}}",
            },
            ttl=0,
        ) as catalog,
    ):
        registry.add("team/app", IMAGE)
        yield World(registry, catalog, session, cache, told)


async def test_a_pull_cold_and_warm(serve: Serve, world: World) -> None:
    size, source = len(IMAGE.raw), world.source
    at_digest = source.replace(":latest", f"@{IMAGE.digest}")
    kept = f"oci:{world.cache.path}"
    blob = f"blobs/{LAYER}"
    ranged = ("Range", "bytes=5-14")
    rows: list[tuple[str, tuple[tuple[str, str], ...], str, int, int, str | None, str]] = [
        ("GET manifests/latest", (), "manifest", 200, size, source, "miss"),
        ("GET manifests/latest", (), "manifest", 200, size, source, "hit"),
        ("HEAD manifests/latest", (), "manifest", 200, 0, source, "hit"),
        (f"GET manifests/{IMAGE.digest}", (), "manifest", 200, size, source, "hit"),
        (f"GET {blob}", (ranged,), "blob", 206, 10, source, "miss"),
        (f"HEAD {blob}", (), "blob", 200, 0, None, ""),
        (f"GET {blob}", (), "blob", 200, len(LARGE), source, "miss"),
        (f"GET {blob}", (), "blob", 200, len(LARGE), kept, "hit"),
        (f"GET {blob}", (ranged,), "blob", 206, 10, kept, "hit"),
        (f"GET {blob}", (("If-None-Match", f'"{LAYER}"'),), "blob", 304, 0, None, ""),
    ]  # fmt: skip
    async with serve(world.catalog, world.session) as client:
        for line, headers, route, status, sent, where, cache in rows:
            method, _, path = line.partition(" ")
            await client.send(method, f"{ROOT}/{path}", *headers)
            event = await world.take_one()
            assert event._replace(seconds=0, first_byte=None) == RequestServed(
                method, route, None, "team/app", path.partition("/")[2], status, sent, 0,  # type: ignore[arg-type]
                None, where, cache, None, "127.0.0.1", complete=True, error=None,  # type: ignore[arg-type]
            ), line  # fmt: skip
            assert (event.first_byte is None) == (sent == 0)
            await settle(world.session)
    # A restart: the manifest is in the cache, though no image is open.
    async with (
        Catalog({"team/app": source}, ttl=0) as again,
        serve(again, world.session) as client,
    ):
        await client.get(f"{ROOT}/manifests/{IMAGE.digest}")
        event = await world.take_one()
    assert (event.cache, event.source) == ("hit", at_digest)


async def test_what_is_no_content(serve: Serve, world: World) -> None:
    rows = [
        ("GET", "/v2/", "base", None, None, None, 200, None),
        ("GET", f"{ROOT}/tags/list", "tags", None, "team/app", None, 200, None),
        ("GET", f"{ROOT}/tags/list?ns=reg.test", "tags", "reg.test", "team/app", None, 200, None),
        ("GET", f"{ROOT}/referrers/{LAYER}", "referrers", None, "team/app", LAYER, 200, None),
        (
            *("GET", f"{ROOT}/manifests/no?ns=evil.test", "manifest", None, "team/app", "no"),
            *(404, "NameUnknownError"),
        ),
        ("POST", f"{ROOT}/blobs/uploads/", "other", None, None, None, 405, None),
        ("GET", "/v2/a//b", "other", None, None, None, 400, None),
    ]
    async with serve(world.catalog, world.session) as client:
        for method, target, *expected in rows:
            reply = await client.send(method, target)
            event = await world.take_one()
            found = (event.route, event.registry, event.name, event.reference, event.status)
            assert [*found, event.error] == expected, target
            assert (event.method, event.cache, event.complete) == (method, "", True)
            assert event.sent == len(reply.body)


async def test_SRV48_a_coalesced_read_is_one_pull(serve: Serve, world: World) -> None:
    gate = asyncio.Event()
    world.registry.script(f"*/blobs/{LAYER}", Hold(gate), forever=True)
    world.registry.script("*/manifests/latest", Hold(gate), forever=True)
    async with serve(world.catalog, world.session) as client:
        for path, kind, size in (
            ("manifests/latest", ManifestFetched, len(IMAGE.raw)),
            (f"blobs/{LAYER}", BlobServed, len(LARGE)),
        ):
            gate.clear()
            asking = [asyncio.ensure_future(client.get(f"{ROOT}/{path}")) for _ in range(3)]
            await until(lambda: world.count_waiting() == 3)
            gate.set()
            await asyncio.gather(*asking)
            await until(lambda: sum(isinstance(each, RequestServed) for each in world.told) == 3)
            told = list(world.told)
            served = world.take()
            assert sorted(event.cache for event in served) == ["joined", "joined", "miss"]
            assert {(event.sent, event.source) for event in served} == {(size, world.source)}
            assert sum(isinstance(each, kind) for each in told) == 1
            responded = [each for each in told if isinstance(each, UpstreamResponded)]
            assert [each.status for each in responded if each.method == "GET"][-1:] == [200]
    assert world.registry.count(f"*/blobs/{LAYER}", method="GET") == 1


async def test_a_tag_that_upstream_cannot_confirm_is_stale(serve: Serve, world: World) -> None:
    async with serve(world.catalog, world.session) as client:
        await client.get(f"{ROOT}/manifests/latest")
        await world.take_one()
        world.registry.script("*/manifests/latest", Status(500), forever=True)
        await client.get(f"{ROOT}/manifests/latest")
        told = [each for each in world.told if isinstance(each, UpstreamResponded)]
        event = await world.take_one()
    assert (event.status, event.cache, event.source) == (200, "stale", world.source)
    assert (told[-1].registry, told[-1].method, told[-1].status) == (
        world.registry.host,
        "HEAD",
        500,
    )


async def test_files_of_a_member_are_no_use_of_the_cache(
    serve: Serve, world: World, tmp_path: Path
) -> None:
    layout = f"oci:{tmp_path / 'layout'}:1"
    await copy(world.source, layout, world.session)
    world.take()
    async with (
        Catalog({"team/app": layout}) as catalog,
        serve(catalog, world.session) as client,
    ):
        for path in ("manifests/latest", f"blobs/{LAYER}"):
            reply = await client.get(f"{ROOT}/{path}")
            event = await world.take_one()
            assert (event.sent, event.source) == (len(reply.body), layout)
            assert event.cache == ""


async def test_the_principal_is_told(serve: Serve, world: World) -> None:
    def check(user: str, password: str, access: object) -> Identity | None:
        return Identity(user) if (user, password) == ("ann", "pass") else None

    async with serve(world.catalog, world.session, authenticate=basic(check)) as client:
        await client.get(f"{ROOT}/manifests/latest")
        event = await world.take_one()
        assert (event.status, event.principal, event.route) == (401, None, "manifest")
        await client.get(f"{ROOT}/manifests/latest", ("Authorization", "Basic YW5uOnBhc3M="))
        event = await world.take_one()
        assert (event.status, event.principal) == (200, "ann")


async def test_a_blob_that_is_cut(
    serve: Serve, catalog: FakeCatalog, control: SourceControl
) -> None:
    control.script("/blobs/*", Corrupt(at=len(LARGE) - 1), forever=True)
    told: list[Any] = []
    async with Session(hooks=[told.append]) as session, serve(catalog, session) as client:
        with pytest.raises((aiohttp.ClientError, SupplementedError)):
            await client.get(f"{ROOT}/blobs/{LAYER}")
        await until(lambda: any(isinstance(event, RequestServed) for event in told))
    (event,) = [each for each in told if isinstance(each, RequestServed)]
    assert (event.status, event.complete, event.error) == (200, False, "DigestMismatchError")
    assert 0 < event.sent < len(LARGE)


async def test_a_client_that_leaves(catalog: FakeCatalog, control: SourceControl) -> None:
    """Before there is an answer, and in the middle of one. Leaving is no error."""
    told: list[Any] = []
    catalog.gate = asyncio.Event()
    control.script("/blobs/*", Stall(1 << 20), forever=True)
    async with Session(hooks=[told.append]) as session:
        app = web.asgi_app(catalog, session)
        for status, sent in ((499, 0), (200, 1 << 20)):
            exchange = Exchange("GET", f"{ROOT}/blobs/{LAYER}")
            calling = asyncio.ensure_future(app(exchange.scope, exchange.receive, exchange.send))
            await until(lambda: catalog.asked if status == 499 else len(exchange.messages) > 4)  # noqa: B023
            exchange.gone.set()
            await let_pass(1)
            await calling
            (event,) = [each for each in told if isinstance(each, RequestServed)]
            assert (event.status, event.sent, event.complete) == (status, sent, False)
            assert event.error is None
            told.clear()
            catalog.gate.set()


async def test_nothing_is_recorded_without_hooks(
    serve: Serve, catalog: FakeCatalog, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asupplemented.web.exchange.Record", None)
    async with serve(catalog, session) as client:
        assert (await client.get(f"{ROOT}/blobs/{LAYER}")).body == LARGE

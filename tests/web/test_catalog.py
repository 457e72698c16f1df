"""The registry over a real catalog, with a real registry upstream."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest

from asupplemented import Catalog, LayoutCache, RegistryOptions, RetryPolicy, Session, web
from asupplemented.cache.sharing import settle
from asupplemented.model.digest import Digest
from asupplemented.testing import (
    Basic,
    FakeRegistry,
    Html,
    Status,
    build_artifact,
    build_image,
    build_index,
)
from asupplemented.web import Identity, basic
from tests.web.clients import Exchange, until
from tests.web.conftest import LARGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from asupplemented.web import AccessRequest
    from tests.web.clients import Reply
    from tests.web.conftest import Serve

AMD = build_image("linux/amd64", [LARGE])
ARM = build_image("linux/arm64", [b"arm layer"])
INDEX = build_index([AMD, ARM])
LAYER = Digest.of(LARGE)
ROOT = "/v2/team/app"
OPTIONS = RegistryOptions(retry=RetryPolicy(attempts=1))


def authorization(user: str, password: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("team/app", INDEX)
        yield opened


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    """A session with a cache."""
    async with (
        LayoutCache(tmp_path / "cache", 1 << 30) as cache,
        Session(cache=cache, tls_verify=False, settings=[OPTIONS]) as opened,
    ):
        yield opened


@pytest.fixture
async def catalog(registry: FakeRegistry, session: Session) -> AsyncIterator[Catalog]:
    names = {"team/app": f"docker://{registry.host}/team/app", "reg.test/*": (
        f"docker://{registry.host}/{{name}}"
    )}  # fmt: skip
    async with Catalog(names, ttl=0) as opened:
        yield opened


async def test_an_image_is_pulled_through(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    sbom = build_artifact("a/sbom", b"{}", subject=AMD)
    registry.add("team/app", sbom, tag=None)
    async with serve(catalog, session) as client:
        top = await client.get(f"{ROOT}/manifests/latest")
        assert top.body == INDEX.raw
        for image in (AMD, ARM):
            head = await client.head(f"{ROOT}/manifests/{image.digest}")
            assert head.headers["Content-Length"] == str(len(image.raw))
            manifest = await client.get(f"{ROOT}/manifests/{image.digest}")
            assert manifest.body == image.raw
            for digest, content in image.blobs.items():
                assert (await client.get(f"{ROOT}/blobs/{digest}")).body == content
        assert (await client.get(f"{ROOT}/tags/list")).json()["tags"] == ["latest"]
        referrers = await client.get(f"{ROOT}/referrers/{AMD.digest}")
        assert [each["digest"] for each in referrers.json()["manifests"]] == [sbom.digest]
        for target in (f"manifests/{LAYER[:-1]}0", f"blobs/{LAYER[:-1]}0", "manifests/none"):
            assert (await client.get(f"{ROOT}/{target}")).status == 404


async def test_SRV14_SRV15_SRV54_the_registry_is_a_key_of_the_catalog(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    async with serve(catalog, session) as client:
        for target in (
            "/v2/team/app/manifests/latest?ns=reg.test",
            "/v2/reg.test/team/app/manifests/latest",
            "/v2/reg.test/team/app/manifests/latest?ns=reg.test",
            "/v2/team/app/manifests/latest",
        ):
            assert (await client.get(target)).body == INDEX.raw
        before = len(registry.requests)
        unknown = await client.get("/v2/team/app/manifests/latest?ns=evil.example")
        assert (unknown.status, unknown.code) == (404, "NAME_UNKNOWN")
        assert len(registry.requests) == before
        assert not any("ns=" in request.path for request in registry.requests)


async def test_SRV12_concurrent_misses_are_one_request_upstream(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    async with serve(catalog, session) as client:
        replies = await asyncio.gather(*map(client.get, [f"{ROOT}/manifests/latest"] * 8))
        assert {reply.body for reply in replies} == {INDEX.raw}
        replies = await asyncio.gather(*map(client.get, [f"{ROOT}/manifests/{AMD.digest}"] * 8))
        assert {reply.body for reply in replies} == {AMD.raw}
        replies = await asyncio.gather(*map(client.get, [f"{ROOT}/blobs/{LAYER}"] * 8))
        assert {reply.body for reply in replies} == {LARGE}
    assert registry.count(f"*/blobs/{LAYER}", method="GET") == 1
    for reference in ("latest", AMD.digest):
        assert registry.count(f"*/manifests/{reference}", method="GET") == 1


async def test_SRV28_HEAD_asks_upstream_for_no_blob(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    async with serve(catalog, session) as client:
        # Without its manifest only upstream knows the blob: one byte tells its size.
        reply = await client.head(f"{ROOT}/blobs/{LAYER}")
        assert (reply.status, reply.headers["Content-Length"]) == (200, str(len(LARGE)))
        asked = registry.select_requests("*/blobs/*", method="GET")
        assert {request.header("Range") for request in asked} <= {"bytes=0-0"}
        await client.get(f"{ROOT}/manifests/{ARM.digest}")
        for digest, content in ARM.blobs.items():
            reply = await client.head(f"{ROOT}/blobs/{digest}")
            assert reply.headers["Content-Length"] == str(len(content))
        assert registry.select_requests("*/blobs/*", method="GET") == asked


async def test_SRV33_SRV22_SRV54_a_tag_is_stale_rather_than_refused(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    async with serve(catalog, session) as client:
        await client.get(f"{ROOT}/manifests/latest")
        registry.script("*/manifests/latest", Status(429), forever=True)
        reply = await client.get(f"{ROOT}/manifests/latest")
        assert (reply.status, reply.body) == (200, INDEX.raw)
        assert reply.headers["Cache-Status"] == "asupplemented; fwd=stale"
        registry.script("*/manifests/other", Status(429), forever=True)
        reply = await client.get(f"{ROOT}/manifests/other")
        assert (reply.status, reply.code) == (429, "TOOMANYREQUESTS")
        assert int(reply.headers["Retry-After"]) >= 1


async def test_SRV33_the_answer_says_how_the_cache_was_used(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    manifest, blob = f"{ROOT}/manifests/latest", f"{ROOT}/blobs/{LAYER}"

    def uses(replies: Iterable[Reply]) -> list[str]:
        assert not any(registry.host in str(reply.headers) for reply in replies)
        prefix = "asupplemented; "
        return sorted(reply.headers["Cache-Status"].removeprefix(prefix) for reply in replies)

    async with serve(catalog, session) as client:
        both = await asyncio.gather(client.get(manifest), client.get(manifest))
        assert uses(both) == ["fwd=uri-miss; collapsed", "fwd=uri-miss; stored"]
        again = await client.get(manifest)
        assert (uses([again]), again.headers["Age"]) == (["hit"], "0")
        by_digest = await client.get(f"{ROOT}/manifests/{INDEX.digest}")
        assert uses([by_digest]) == ["hit"]
        assert "Age" not in by_digest.headers
        both = await asyncio.gather(client.get(blob), client.get(blob))
        assert uses(both) == ["fwd=uri-miss; collapsed", "fwd=uri-miss; stored"]
        await settle(session)
        assert uses([await client.get(blob), await client.get(blob, ("Range", "bytes=5-"))]) == [
            "hit",
            "hit",
        ]
        (arm, *_) = ARM.layers
        part = await client.get(f"{ROOT}/blobs/{arm}", ("Range", "bytes=1-2"))
        assert uses([part]) == ["fwd=uri-miss"]
        registry.script("*/manifests/latest", Status(503), forever=True)
        assert uses([await client.get(manifest)]) == ["fwd=stale"]


async def test_SRV12_the_same_error_reaches_every_waiter(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    registry.script("*/manifests/latest", Status(500), forever=True)
    registry.script("*/blobs/*", Status(503), forever=True)
    async with serve(catalog, session) as client:
        for target in (f"{ROOT}/manifests/latest", f"{ROOT}/blobs/{LAYER}"):
            replies = await asyncio.gather(*map(client.get, [target] * 8))
            assert {(reply.status, reply.code) for reply in replies} == {(502, "UNAVAILABLE")}
    assert registry.count("*/manifests/latest", method="GET") == 1


async def test_SRV12_a_slow_client_delays_no_other(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    app = web.asgi_app(catalog, session)
    slow = Exchange("GET", f"{ROOT}/blobs/{LAYER}")
    slow.gate = asyncio.Event()
    async with serve(catalog, session) as client:
        await client.get(f"{ROOT}/manifests/{AMD.digest}")
        reading = asyncio.ensure_future(app(slow.scope, slow.receive, slow.send))
        await until(lambda: slow.messages)
        for _ in range(2):
            assert (await client.get(f"{ROOT}/blobs/{LAYER}")).body == LARGE
        slow.gate.set()
        await reading
    assert slow.reply().body == LARGE
    assert registry.count(f"*/blobs/{LAYER}", method="GET") == 1


async def test_SRV13_a_blob_of_one_name_is_not_served_through_another(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    registry.add("other", build_image(layers=[b"other"]))
    async with serve(catalog, session) as client:
        assert (await client.get(f"{ROOT}/blobs/{LAYER}")).status == 200
        await settle(session)
        for target in (f"blobs/{LAYER}", f"manifests/{AMD.digest}", f"manifests/{INDEX.digest}"):
            reply = await client.get(f"/v2/reg.test/other/{target}")
            assert reply.status == 404
            assert (await client.get(f"{ROOT}/{target}")).status == 200


async def test_SRV54_a_page_of_HTML_is_no_blob(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    registry.script("*/blobs/*", Html(), forever=True)
    async with serve(catalog, session) as client:
        reply = await client.get(f"{ROOT}/blobs/{LAYER}")
        assert (reply.status, reply.code) == (502, "UNAVAILABLE")


async def test_SRV13_SEC13_what_one_principal_may_read_no_other_one_gets(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    registry.access = Basic({"ann": "right"})

    def check(user: str, password: str, access: AccessRequest) -> Identity:
        return Identity(f"{user} {password}", {registry.host: (user, password)})

    ann, bob = authorization("ann", "right"), authorization("bob", "wrong")
    targets = [
        f"{ROOT}/manifests/latest",
        f"{ROOT}/manifests/{AMD.digest}",
        f"{ROOT}/blobs/{LAYER}",
    ]
    async with serve(catalog, session, authenticate=basic(check)) as client:
        for _ in range(2):
            for target in (*targets, f"{ROOT}/tags/list"):
                assert (await client.get(target, ann)).status == 200
                refused = await client.get(target, bob)
                assert (refused.status, refused.code) == (502, "UNAVAILABLE")
                assert (await client.get(target)).status == 401
            await settle(session)
    sent = {request.header("Authorization") for request in registry.requests}
    assert sent <= {None, ann[1], bob[1]}

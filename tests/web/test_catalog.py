"""The registry over a real catalog, with a real registry upstream."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest

from asupplemented import Catalog, LayoutCache, RegistryOptions, RetryPolicy, Session
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
from tests.web.conftest import LARGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.web import AccessRequest
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


async def test_10000_unknown_names_leave_nothing(
    serve: Serve, catalog: Catalog, session: Session, registry: FakeRegistry
) -> None:
    async with serve(catalog, session) as client:
        for number in range(10_000 if serve.__name__ == "asgi_client" else 100):
            reply = await client.get(f"/v2/name{number}/manifests/latest")
            assert (reply.status, reply.code) == (404, "NAME_UNKNOWN")
    assert (catalog.stats().open_images, catalog.stats().pending) == (0, 0)
    assert registry.requests == []

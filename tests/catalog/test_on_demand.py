"""Indexes of repositories without supplements: what they list is read when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented import Catalog, LayoutCache, Session
from asupplemented.cache.manifests import settle_manifests
from asupplemented.errors import ManifestNotFoundError, ServerError
from asupplemented.testing import Status, build_image, build_index
from tests.catalog.conftest import OPTIONS
from tests.catalog.test_digests import look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.testing import FakeRegistry

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x", "linux/riscv64")
IMAGES = [build_image(platform) for platform in PLATFORMS]
INDEX = build_index(IMAGES)


@pytest.fixture
async def catalog(registry: FakeRegistry) -> AsyncIterator[Catalog]:
    registry.add("team/app", INDEX)
    async with Catalog({"team/app": f"docker://{registry.host}/team/app"}) as opened:
        yield opened


async def test_a_pull_costs_no_request_for_other_platforms(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    wanted = IMAGES[2]
    async with catalog.open(session, "team/app", "latest") as image:
        assert (await image.get_manifest()).raw == INDEX.raw
    assert await look(catalog, session, INDEX.digest) == INDEX.raw
    for _ in range(2):
        assert await look(catalog, session, wanted.digest) == wanted.raw
        for digest, content in wanted.blobs.items():
            assert await look(catalog, session, digest, blob=True) == content
    asked = [request.path for request in registry.requests if "/manifests/" in request.path]
    assert asked == [f"/v2/team/app/manifests/{each}" for each in ("latest", wanted.digest)]


async def test_an_index_that_lacks_images_is_served(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    lost = IMAGES[1]
    del registry.repository("team/app").manifests[lost.digest]
    async with catalog.open(session, "team/app", "latest") as image:
        assert (await image.get_manifest()).raw == INDEX.raw
    assert await look(catalog, session, IMAGES[0].digest) == IMAGES[0].raw
    with pytest.raises(ManifestNotFoundError):
        await look(catalog, session, lost.digest)


async def test_SRV33_what_an_open_index_lists_comes_from_the_cache_while_upstream_is_down(
    catalog: Catalog, registry: FakeRegistry, tmp_path: Path
) -> None:
    async with (
        LayoutCache(tmp_path / "cache", 1 << 30) as cache,
        Session(cache=cache, tls_verify=False, settings=[OPTIONS]) as session,
    ):
        reference = f"docker://{registry.host}/team/app"
        async with Catalog({"team/app": reference}) as earlier:
            await look(earlier, session, IMAGES[0].digest)
            await settle_manifests(session)
        async with catalog, catalog.open(session, "team/app", "latest"):
            registry.script("*", Status(503), forever=True)
            asked = registry.count()
            assert await look(catalog, session, IMAGES[0].digest) == IMAGES[0].raw
            assert registry.count() == asked
            with pytest.raises(ServerError):
                await look(catalog, session, IMAGES[1].digest)

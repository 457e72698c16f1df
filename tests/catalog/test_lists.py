"""Tags and referrers, united over the members of a name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented import Catalog
from asupplemented.errors import (
    ImageNotFoundError,
    InvalidDigestError,
    NameUnknownError,
    ServerError,
)
from asupplemented.testing import Status, build_artifact, build_image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented import Session
    from asupplemented.testing import FakeRegistry, ImageBuilder

IMAGE = build_image("linux/amd64", [b"layer"])
SIGNATURE = build_artifact("application/signature", b"signed", subject=IMAGE)
SBOM = build_artifact("application/sbom", b"parts", subject=IMAGE)
TAGS = "*/tags/list"
REFERRERS = "*/referrers/*"


@pytest.fixture
async def catalog(registry: FakeRegistry, other: FakeRegistry) -> AsyncIterator[Catalog]:
    for tag in ("1.4", "latest"):
        registry.add("team/app", IMAGE, tag=tag)
    for tag in ("1.5", "1.4", "Old"):
        other.add("mirror/app", IMAGE, tag=tag)
    registry.add("team/app", SIGNATURE, tag=None)
    for built in (SIGNATURE, SBOM):
        other.add("mirror/app", built, tag=None)
    group = [f"docker://{registry.host}/team/app", f"docker://{other.host}/mirror/app"]
    async with Catalog({"team/app": group}) as opened:
        yield opened


async def test_tags_of_all_members_are_united(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    lists = [catalog.list_tags(session, "team/app") for _ in range(5)]
    assert set(await asyncio.gather(*lists)) == {("1.4", "1.5", "Old", "latest")}
    assert registry.count(TAGS) == 1
    assert catalog.stats() == (0, 0, 0, 0)


async def test_a_member_without_the_repository_gives_no_tags(
    catalog: Catalog, registry: FakeRegistry, other: FakeRegistry, session: Session
) -> None:
    registry.script(TAGS, Status(404), forever=True)
    assert await catalog.list_tags(session, "team/app") == ("1.4", "1.5", "Old")
    other.script(TAGS, Status(404), forever=True)
    with pytest.raises(ImageNotFoundError):
        await catalog.list_tags(session, "team/app")


async def test_a_supplement_that_fails_is_left_out_and_a_top_is_not(
    catalog: Catalog, registry: FakeRegistry, other: FakeRegistry, session: Session
) -> None:
    other.script("*", Status(503), forever=True)
    assert await catalog.list_tags(session, "team/app") == ("1.4", "latest")
    registry.script("*", Status(503), forever=True)
    with pytest.raises(ServerError):
        await catalog.list_tags(session, "team/app")


async def test_a_fixed_top_has_its_own_tags(
    registry: FakeRegistry, session: Session, image_builder: ImageBuilder
) -> None:
    registry.add("team/app", IMAGE, tag="2")
    layout = image_builder.layout(IMAGE, name="1.4")
    names = {"alone": layout, "both": [layout, f"docker://{registry.host}/team/app"]}
    async with Catalog(names) as catalog:
        assert await catalog.list_tags(session, "alone") == ("1.4", "latest")
        assert await catalog.list_tags(session, "both") == ("1.4", "2", "latest")


async def test_referrers_of_all_members_are_united(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    lists = [catalog.list_referrers(session, "team/app", IMAGE.digest) for _ in range(5)]
    for found in await asyncio.gather(*lists):
        assert [each.digest for each in found] == [SIGNATURE.digest, SBOM.digest]
    assert registry.count(REFERRERS) == 1
    [sbom] = await catalog.list_referrers(
        session, "team/app", IMAGE.digest, artifact_type="application/sbom"
    )
    assert sbom.digest == SBOM.digest
    async with catalog.open(session, "team/app", SBOM.digest) as image:
        assert (await image.get_manifest()).raw == SBOM.raw


async def test_a_subject_that_is_unknown_has_no_referrers(
    catalog: Catalog, session: Session
) -> None:
    assert await catalog.list_referrers(session, "team/app", SBOM.digest) == ()


async def test_a_supplement_without_such_lists_is_left_out(
    registry: FakeRegistry, session: Session, image_builder: ImageBuilder
) -> None:
    for built in (IMAGE, SIGNATURE):
        registry.add("team/app", built, tag=None)
    group = [f"docker://{registry.host}/team/app", image_builder.layout(IMAGE, name="1")]
    async with Catalog({"team/app": group}) as catalog:
        [found] = await catalog.list_referrers(session, "team/app", IMAGE.digest)
    assert found.digest == SIGNATURE.digest


async def test_what_is_wrong_is_refused_unasked(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    with pytest.raises(NameUnknownError):
        await catalog.list_tags(session, "team/other")
    with pytest.raises(NameUnknownError):
        await catalog.list_referrers(session, "team/other", IMAGE.digest)
    with pytest.raises(InvalidDigestError):
        await catalog.list_referrers(session, "team/app", "sha256:abc")
    assert registry.requests == []

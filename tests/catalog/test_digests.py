"""Digests: never confirmed, checked against the name, found again after a restart."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asupplemented import Catalog, Digest, LayoutCache, Session
from asupplemented.cache.sharing import settle
from asupplemented.errors import (
    BlobNotFoundError,
    ForbiddenError,
    InstanceNotFoundError,
    InvalidDigestError,
    ManifestNotFoundError,
    NameUnknownError,
    NotFoundError,
    ServerError,
)
from asupplemented.model.media_type import OCI_INDEX
from asupplemented.testing import Bearer, FakeRegistry, Headers, Status, build_image, build_index
from tests.catalog.conftest import OPTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.abc import Setting
    from asupplemented.testing import ImageBuilder
    from tests.clocks import FakeClock

AMD = build_image("linux/amd64", [b"amd layer"])
ARM = build_image("linux/arm64", [b"arm layer"])
EXTRA = build_image("linux/riscv64", [b"riscv layer"])
INDEX = build_index([AMD, ARM])
LAYER = Digest.of(b"amd layer")
EXTRA_LAYER = Digest.of(b"riscv layer")


@pytest.fixture
async def catalog(registry: FakeRegistry, other: FakeRegistry) -> AsyncIterator[Catalog]:
    """A top, a supplement that follows and has more, and names beside it."""
    registry.add("team/app", INDEX)
    other.add("mirror/app", EXTRA)
    registry.add("team/other", EXTRA)
    group = [f"docker://{registry.host}/team/app", f"docker://{other.host}/mirror/app"]
    names = {"team/app": group, "team/alone": group[0]}
    async with Catalog(names) as opened:
        yield opened


async def look(
    catalog: Catalog, session: Session, digest: str, name: str = "team/app", *, blob: bool = False
) -> bytes:
    """The bytes of a manifest or blob."""
    async with catalog.open(session, name, digest, blob=blob) as image:
        assert (image.digest, image.stale, image.age) == (digest, False, 0)
        if not blob:
            return (await image.get_manifest()).raw
        async with image.open_blob(digest) as stream:
            return b"".join([chunk async for chunk in stream])


async def test_what_an_open_tag_serves_costs_no_request(
    catalog: Catalog, registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    async with catalog.open(session, "team/app"):
        pass
    asked = registry.count()
    clock.time += 100_000
    for built in (INDEX, AMD, ARM, EXTRA):
        assert await look(catalog, session, built.digest) == built.raw
    for descriptor in (LAYER, EXTRA_LAYER):
        async with catalog.open(session, "team/app", descriptor, blob=True) as image:
            described = await image.describe_blob(descriptor)
            assert described is not None
            assert described.size is not None
    assert registry.count() == asked
    assert catalog.stats().open_images == 1


@pytest.mark.parametrize("built", [INDEX, AMD, ARM, EXTRA])
async def test_SRV13_a_manifest_is_found_after_a_restart(
    catalog: Catalog, session: Session, built: object
) -> None:
    assert isinstance(built, type(INDEX) | type(AMD))
    assert await look(catalog, session, built.digest) == built.raw


@pytest.mark.parametrize(
    ("blob", "content"), [(LAYER, b"amd layer"), (EXTRA_LAYER, b"riscv layer")]
)
async def test_a_blob_is_found_after_a_restart(
    catalog: Catalog,
    registry: FakeRegistry,
    other: FakeRegistry,
    session: Session,
    blob: Digest,
    content: bytes,
) -> None:
    assert await look(catalog, session, blob, blob=True) == content
    async with catalog.open(session, "team/app", blob, blob=True) as image:
        described = await image.describe_blob(blob)
        assert described is not None
        assert described.size == len(content)
        with pytest.raises(NotFoundError):
            await image.get_manifest()
    assert registry.count("*/manifests/*") + other.count("*/manifests/*") == 0


async def test_a_blob_is_found_where_a_manifest_may_be_meant(
    catalog: Catalog, session: Session
) -> None:
    async with (
        catalog.open(session, "team/app", EXTRA_LAYER) as image,
        image.open_blob(EXTRA_LAYER) as stream,
    ):
        assert b"".join([chunk async for chunk in stream]) == b"riscv layer"


async def test_an_empty_blob_is_found_after_a_restart(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    digest = Digest.of(b"")
    registry.put_blob("team/app", b"")
    async with catalog.open(session, "team/app", digest, blob=True) as image:
        described = await image.describe_blob(digest)
    assert described is not None
    assert described.size == 0


async def test_a_fixed_layout_serves_what_only_it_has(
    registry: FakeRegistry, session: Session, image_builder: ImageBuilder
) -> None:
    registry.add("team/app", AMD)
    layout = image_builder.layout(EXTRA, name="1.4")
    names = {"team/app": [f"docker://{registry.host}/team/app", layout]}
    async with Catalog(names) as catalog:
        assert await look(catalog, session, EXTRA.digest) == EXTRA.raw
    async with Catalog(names) as catalog:
        asked = registry.count()
        assert await look(catalog, session, EXTRA_LAYER, blob=True) == b"riscv layer"
        assert registry.count() == asked, "what is on disk is not asked for"
        assert await look(catalog, session, LAYER, blob=True) == b"amd layer"


@pytest.mark.parametrize("blob", [False, True])
async def test_SRV13_a_digest_of_another_name_is_not_served(
    catalog: Catalog, session: Session, *, blob: bool
) -> None:
    digest = EXTRA_LAYER if blob else EXTRA.digest
    await look(catalog, session, digest, blob=blob)
    with pytest.raises(BlobNotFoundError if blob else ManifestNotFoundError):
        await look(catalog, session, digest, "team/alone", blob=blob)
    assert catalog.stats() == (1, 0, 1, 0), "a digest that is not there costs nothing that stays"


@pytest.mark.parametrize("blob", [False, True])
async def test_SRV13_a_cache_is_no_permission(
    registry: FakeRegistry, clock: FakeClock, tmp_path: Path, *, blob: bool
) -> None:
    registry.add("team/app", AMD)
    registry.add("team/secret", EXTRA)
    host = registry.host
    names = {"open": f"docker://{host}/team/app", "secret": f"docker://{host}/team/secret"}
    digest = EXTRA_LAYER if blob else EXTRA.digest
    settings: list[Setting] = [clock.clock, OPTIONS]
    async with (
        LayoutCache(tmp_path / "cache", max_bytes=1 << 20) as cache,
        Session(settings=settings, tls_verify=False, cache=cache) as session,
        Catalog(names) as catalog,
    ):
        await look(catalog, session, EXTRA.digest, "secret")
        await look(catalog, session, EXTRA_LAYER, "secret", blob=True)
        await settle(session)
        with pytest.raises(NotFoundError):
            await look(catalog, session, digest, "open", blob=blob)


@pytest.mark.parametrize(("silent", "reads"), [(False, 1), (True, 3)])
async def test_SRV13_what_is_cached_is_served_once_the_name_is_known_to_hold_it(
    registry: FakeRegistry, clock: FakeClock, tmp_path: Path, *, silent: bool, reads: int
) -> None:
    registry.add("team/app", AMD)
    if silent:  # HEAD says nothing, so each check reads the manifest (rule HTTP-11)
        registry.script("*", Headers({"Docker-Content-Digest": None}), method="HEAD", forever=True)
    names = {"team/app": f"docker://{registry.host}/team/app"}
    settings: list[Setting] = [clock.clock, OPTIONS]
    async with LayoutCache(tmp_path / "cache", max_bytes=1 << 20) as cache:
        for _ in range(2):
            async with (
                Session(settings=settings, tls_verify=False, cache=cache) as session,
                Catalog(names) as catalog,
            ):
                assert await look(catalog, session, AMD.digest) == AMD.raw
    assert registry.count("*/manifests/*", method="HEAD") == 2
    assert registry.count("*/manifests/*", method="GET") == reads


async def test_an_entry_of_unknown_type_is_served_as_bytes(
    registry: FakeRegistry, session: Session
) -> None:
    raw, media_type = b"<xml/>", "application/xml"
    entry = {"mediaType": media_type, "digest": Digest.of(raw), "size": len(raw)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    registry.put_manifest("team/list", raw, media_type)
    registry.put_manifest("team/list", index, OCI_INDEX, tag="latest")
    async with Catalog({"team/list": f"docker://{registry.host}/team/list"}) as opened:
        async with opened.open(session, "team/list", "latest") as image:
            assert (await image.get_manifest()).raw == index
        assert await look(opened, session, Digest.of(raw), "team/list") == raw


async def test_an_unknown_name_is_refused_by_digest_too(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    with pytest.raises(NameUnknownError):
        await look(catalog, session, EXTRA.digest, "team/other")
    assert registry.requests == []


@pytest.mark.parametrize("digest", ["sha256:abc", "sha256:", ":", "md5:" + 32 * "0", "latest:x"])
async def test_a_malformed_digest_is_refused_unasked(
    catalog: Catalog, registry: FakeRegistry, session: Session, digest: str
) -> None:
    with pytest.raises(InvalidDigestError):
        await look(catalog, session, digest)
    assert registry.requests == []


async def test_a_manifest_is_opened_once_for_all_concurrent_requests(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    looks = [look(catalog, session, INDEX.digest) for _ in range(20)]
    assert set(await asyncio.gather(*looks)) == {INDEX.raw}
    assert registry.count(INDEX.digest) == 1


async def test_a_supplement_serves_a_digest_while_the_top_is_down(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    registry.script("*", Status(503), forever=True)
    assert await look(catalog, session, EXTRA.digest) == EXTRA.raw
    assert await look(catalog, session, EXTRA_LAYER, blob=True) == b"riscv layer"


@pytest.mark.parametrize("blob", [False, True])
async def test_a_digest_that_a_failed_member_may_hold_is_not_said_to_be_missing(
    catalog: Catalog, other: FakeRegistry, session: Session, *, blob: bool
) -> None:
    other.script("*", Status(503), forever=True)
    with pytest.raises(ServerError):
        await look(catalog, session, EXTRA_LAYER if blob else EXTRA.digest, blob=blob)
    assert await look(catalog, session, LAYER, blob=True) == b"amd layer"


async def test_a_digest_that_only_a_failed_supplement_may_hold_is_not_said_to_be_missing(
    other: FakeRegistry, session: Session, image_builder: ImageBuilder
) -> None:
    layout = image_builder.layout(AMD, name="1.4")
    other.script("*", Status(503), forever=True)
    async with Catalog({"team/app": [layout, f"docker://{other.host}/mirror/app"]}) as catalog:
        assert await look(catalog, session, AMD.digest) == AMD.raw
        with pytest.raises(ServerError):
            await catalog.open(session, "team/app", EXTRA.digest, blob=False)


async def test_a_manifest_that_is_meant_is_not_looked_for_among_blobs(
    catalog: Catalog, registry: FakeRegistry, session: Session
) -> None:
    for _ in range(2):
        with pytest.raises(ManifestNotFoundError):
            await catalog.open(session, "team/app", LAYER, blob=False)
        assert registry.count("*/blobs/*") == 0
        async with catalog.open(session, "team/app"):  # names the blob
            pass


async def test_an_instance_of_no_member_is_missing(catalog: Catalog, session: Session) -> None:
    async with catalog.open(session, "team/app", AMD.digest) as image:
        with pytest.raises(InstanceNotFoundError):
            await image.image.get_manifest(EXTRA.digest)


# Principals


@pytest.fixture
async def private() -> AsyncIterator[FakeRegistry]:
    """A registry where alice may read everything, and all others nothing."""
    users = {"alice": "hunter2", "bob": "hunter3"}
    access = Bearer(users, may=lambda user, _: user == "alice")
    async with FakeRegistry(access=access) as opened:
        opened.add("team/app", INDEX)
        yield opened


@pytest.mark.parametrize(("which", "blob"), [("latest", False), (AMD.digest, False), (LAYER, True)])
async def test_SEC13_what_one_principal_may_read_another_may_not(
    private: FakeRegistry, session: Session, *, which: str, blob: bool
) -> None:
    def scoped(principal: str, password: str) -> Session:
        user = principal.partition(" ")[0]
        return session.scoped(principal, credentials={private.host: (user, password)})

    async with Catalog({"team/app": f"docker://{private.host}/team/app"}) as catalog:

        async def open_as(context: Session) -> None:
            async with catalog.open(context, "team/app", which, blob=blob):
                pass

        await open_as(scoped("alice", "hunter2"))
        for other in (
            session,
            session.scoped("alice"),
            session.scoped("bob"),
            scoped("bob", "hunter3"),
        ):
            with pytest.raises(ForbiddenError):
                await open_as(other)
        asked = private.count()
        await open_as(scoped("alice", "hunter2"))  # another session object, the same identity
        assert private.count() == asked
        assert catalog.stats().names == 1


async def test_sessions_share_nothing(
    registry: FakeRegistry, session: Session, clock: FakeClock
) -> None:
    registry.add("team/app", AMD)
    async with (
        Session(settings=[clock.clock, OPTIONS], tls_verify=False) as second,
        Catalog({"team/app": f"docker://{registry.host}/team/app"}) as catalog,
    ):
        for each in (session, second, session):
            await look(catalog, each, AMD.digest)
        assert catalog.stats().open_images == 2

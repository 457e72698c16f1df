"""Groups of registries and other places: who is asked for referrers, and for parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    InstanceNotFoundError,
    RangeError,
    ServerError,
    UnsupportedOperationError,
)
from asupplemented.model.digest import Digest
from asupplemented.supplemented import supplement
from asupplemented.testing import (
    FakeRegistry,
    Status,
    build_artifact,
    build_image,
    build_index,
    write_layout,
)
from tests.transports.registry.test_parts import read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transports.registry.sessions import Watched

LAYER = bytes(range(256)) * 9
AMD, ARM = build_image("linux/amd64", [LAYER]), build_image("linux/arm64")
TOP = build_index([AMD, ARM])
OURS, THEIRS, BOTH = (
    build_artifact("application/x", name, subject=AMD) for name in (b"ours", b"theirs", b"both")
)
RANGES = [(0, 5), (300, 310)]


def digests(found: object) -> list[str]:
    assert isinstance(found, tuple)
    return [each.digest for each in found]


@pytest.fixture
def group(registry: FakeRegistry, other: FakeRegistry) -> tuple[str, str]:
    """A top that holds everything, and a supplement that holds one image; each with referrers."""
    for artifact in (OURS, BOTH):
        registry.add("team/app", artifact, tag=None)
    for artifact in (THEIRS, BOTH):
        other.add("mirror/app", artifact, tag=None)
    return registry.add("team/app", TOP), other.add("mirror/app", AMD)


async def test_SIG07_whoever_holds_a_manifest_is_asked_for_referrers(
    group: tuple[str, str], other: FakeRegistry, watched: Watched
) -> None:
    async with supplement(*group).open(watched.session) as image:
        assert image.resolution.sources[AMD.digest] == 1
        found = digests(await image.get_referrers(AMD.digest))
        theirs = sorted((THEIRS.digest, BOTH.digest))
        assert found == [*theirs, OURS.digest]
        assert await image.get_referrers(ARM.digest) == ()
        assert await image.get_referrers(AMD.digest, "application/y") == ()
        assert digests(await image.get_referrers(AMD.digest, "application/x")) == found
    assert other.count(f"*/referrers/{ARM.digest}") == 0


async def test_X09_referrers_of_what_the_group_has_not(
    group: tuple[str, str], watched: Watched
) -> None:
    async with supplement(*group).open(watched.session) as image:
        with pytest.raises(InstanceNotFoundError):
            await image.get_referrers(OURS.digest)
    with pytest.raises(ClosedError):
        await image.get_referrers(AMD.digest)


async def test_REFR02_a_member_that_fails_is_not_passed_over(
    group: tuple[str, str], other: FakeRegistry, watched: Watched
) -> None:
    other.script("*/referrers/*", Status(500), forever=True)
    async with supplement(*group).open(watched.session) as image:
        with pytest.raises(ServerError):
            await image.get_referrers(AMD.digest)


async def test_SIG07_members_without_such_lists_are_passed_over(
    group: tuple[str, str], watched: Watched, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "layout", AMD)
    async with supplement(group[0], layout).open(watched.session) as image:
        assert digests(await image.get_referrers(AMD.digest)) == sorted((OURS.digest, BOTH.digest))
    async with supplement(layout).open(watched.session) as image:
        with pytest.raises(UnsupportedOperationError):
            await image.get_referrers(AMD.digest)


async def test_SIG07_groups_nest(group: tuple[str, str], watched: Watched, tmp_path: Path) -> None:
    top = write_layout(tmp_path / "layout", TOP)
    inner = supplement(group[1])
    async with supplement(top, inner).open(watched.session) as image:
        found = digests(await image.get_referrers(AMD.digest))
        assert found == sorted((THEIRS.digest, BOTH.digest))


async def test_PART01_parts_come_from_the_first_member_that_can(
    group: tuple[str, str], registry: FakeRegistry, watched: Watched, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "layout", AMD)
    async with supplement(*group, layout).open(watched.session) as image:
        digest = Digest.of(LAYER)
        assert image.resolution.candidates(digest)[0].member == 2
        for blob in (digest, image.resolution.descriptor(digest)):
            assert await read(image.open_parts(blob, RANGES)) == [LAYER[:5], LAYER[300:310]]
        with pytest.raises(RangeError):
            image.open_parts(digest, [(0, 1), (len(LAYER), None)])
        with pytest.raises(BlobNotFoundError):
            image.open_parts(Digest.of(b"absent"), RANGES)
    assert registry.count("*/blobs/*") == 0


async def test_PART01_a_group_without_ranges_says_so(watched: Watched, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", AMD)
    async with supplement(layout).open(watched.session) as image:
        with pytest.raises(UnsupportedOperationError):
            image.open_parts(Digest.of(LAYER), RANGES)
    with pytest.raises(ClosedError):
        image.open_parts(Digest.of(LAYER), RANGES)

"""Images of open sources: which one is chosen, and what it knows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asupplemented import (
    DigestMismatchError,
    LimitExceededError,
    NonImageArtifactError,
    PlatformNotFoundError,
    Session,
)
from asupplemented.image import open_image
from asupplemented.limits import MAX_CONFIG
from asupplemented.testing.images import build_artifact, build_image, build_index
from tests.members import Ledger, Member, hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AMD = build_image("linux/amd64")
ARM = build_image("linux/arm64")
NESTED = build_index([build_index([AMD, ARM])])


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with Session() as session:
        yield session


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


async def test_U05_lists_are_followed_to_the_platform(session: Session, ledger: Ledger) -> None:
    member = Member("it", ledger, hold("it", NESTED))
    async with open_image(member, session, platform="linux/arm64") as image:
        assert image.digest == ARM.digest
        assert image.platform.architecture == "arm64"
    assert ledger.left_open == 0


async def test_U05_every_manifest_is_verified(session: Session, ledger: Ledger) -> None:
    content = hold("it", NESTED)
    other = content.manifests[AMD.digest]
    content = replace(content, manifests={**content.manifests, ARM.digest: other})
    with pytest.raises(DigestMismatchError):
        await open_image(Member("it", ledger, content), session, platform="linux/arm64")
    assert ledger.left_open == 0


async def test_U06_a_failure_closes_the_source(session: Session, ledger: Ledger) -> None:
    with pytest.raises(PlatformNotFoundError):
        await open_image(Member("it", ledger, hold("it", NESTED)), session, platform="linux/386")
    assert (ledger.opened, ledger.left_open) == (1, 0)


async def test_AR03_an_artifact_can_be_opened(session: Session, ledger: Ledger) -> None:
    sbom = build_artifact("application/spdx+json", b"{}")
    async with open_image(Member("it", ledger, hold("it", sbom)), session) as image:
        assert await image.read_config() == b"{}"
        with pytest.raises(NonImageArtifactError, match="spdx"):
            image.inspect()


async def test_I03_the_config_is_verified(session: Session, ledger: Ledger) -> None:
    config, data = next(iter(AMD.blobs.items()))
    content = hold("it", AMD)
    blobs = {**content.blobs, config: data.replace(b"amd64", b"amd46")}
    with pytest.raises(DigestMismatchError):
        await open_image(Member("it", ledger, replace(content, blobs=blobs)), session)
    assert ledger.left_open == 0


async def test_I03_the_config_has_a_cap(session: Session, ledger: Ledger) -> None:
    huge = build_image(labels={"much": "x" * MAX_CONFIG})
    with pytest.raises(LimitExceededError):
        await open_image(Member("it", ledger, hold("it", huge)), session)
    assert ledger.left_open == 0

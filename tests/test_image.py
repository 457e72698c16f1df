"""Images of open sources: which one is chosen, and what it knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asupplemented import (
    Digest,
    DigestMismatchError,
    LimitExceededError,
    MalformedManifestError,
    NonImageArtifactError,
    PlatformNotFoundError,
    Session,
    SystemImage,
    supplement,
)
from asupplemented.image import open_image
from asupplemented.limits import MAX_CONFIG
from asupplemented.model.index import ZSTD_ANNOTATION
from asupplemented.testing.images import (
    BuiltImage,
    build_artifact,
    build_image,
    build_index,
    describe,
)
from tests.members import Member, MemberLog, hold

AMD = build_image("linux/amd64")
ARM = build_image("linux/arm64")
NESTED = build_index([build_index([AMD, ARM])])


@pytest.fixture
def log() -> MemberLog:
    return MemberLog()


async def test_U05_lists_are_followed_to_the_platform(session: Session, log: MemberLog) -> None:
    member = Member("it", log, hold("it", NESTED))
    async with open_image(member, session, platform="linux/arm64") as image:
        assert image.digest == ARM.digest
        assert image.platform.architecture == "arm64"
    assert log.left_open == 0


async def test_U05_every_manifest_is_verified(session: Session, log: MemberLog) -> None:
    content = hold("it", NESTED)
    other = content.manifests[AMD.digest]
    content = replace(content, manifests={**content.manifests, ARM.digest: other})
    with pytest.raises(DigestMismatchError):
        await open_image(Member("it", log, content), session, platform="linux/arm64")
    assert log.left_open == 0


async def test_U06_a_failure_closes_the_source(session: Session, log: MemberLog) -> None:
    with pytest.raises(PlatformNotFoundError):
        await open_image(Member("it", log, hold("it", NESTED)), session, platform="linux/386")
    assert (log.opened, log.left_open) == (1, 0)


async def test_AR03_an_artifact_can_be_opened(session: Session, log: MemberLog) -> None:
    sbom = build_artifact("application/spdx+json", b"{}")
    async with open_image(Member("it", log, hold("it", sbom)), session) as image:
        assert await image.read_config() == b"{}"
        with pytest.raises(NonImageArtifactError, match="spdx"):
            image.inspect()


async def test_I03_the_config_is_verified(session: Session, log: MemberLog) -> None:
    config, data = next(iter(AMD.blobs.items()))
    content = hold("it", AMD)
    blobs = {**content.blobs, config: data.replace(b"amd64", b"amd46")}
    with pytest.raises(DigestMismatchError):
        await open_image(Member("it", log, replace(content, blobs=blobs)), session)
    assert log.left_open == 0


async def test_I03_the_config_has_a_cap(session: Session, log: MemberLog) -> None:
    huge = build_image(labels={"much": "x" * MAX_CONFIG})
    with pytest.raises(LimitExceededError):
        await open_image(Member("it", log, hold("it", huge)), session)
    assert log.left_open == 0


async def test_J03_layers_need_no_config_that_can_be_read(session: Session, log: MemberLog) -> None:
    image = built(b'{"os":1}')
    async with open_image(Member("it", log, hold("it", image)), session) as opened:
        assert len(opened.layers) == 1
        assert await opened.read_config() == b'{"os":1}'
        for _ in range(2):
            with pytest.raises(MalformedManifestError) as caught:
                opened.inspect()
            assert caught.value.reference == "it"


def built(config: bytes) -> BuiltImage:
    """An image with any config."""
    other = build_image()
    digest = Digest.of(config)
    old = f'{other.config}","size":{len(other.blobs[other.config])}'.encode()
    raw = other.raw.replace(old, f'{digest}","size":{len(config)}'.encode())
    layers = {layer: other.blobs[layer] for layer in other.layers}
    return replace(other, raw=raw, digest=Digest.of(raw), blobs={digest: config, **layers})


@pytest.mark.parametrize(("prefer_gzip", "expected"), [(False, 1), (True, 0)])
async def test_CI05_the_preference_for_gzip_reaches_the_image(
    session: Session, log: MemberLog, *, prefer_gzip: bool, expected: int
) -> None:
    images = [build_image("linux/amd64", [{"n": number}]) for number in "ab"]
    entries = [
        {
            **describe(image),
            "platform": {"os": "linux", "architecture": "amd64"},
            "annotations": {ZSTD_ANNOTATION: "true"} if number else {},
        }
        for number, image in enumerate(images)
    ]
    index = build_index(entries)
    member = Member("it", log, hold("it", index, *images))
    options = {"platform": "linux/amd64", "prefer_gzip": prefer_gzip}
    async with open_image(member, session, **options) as image:
        assert image.digest == images[expected].digest
    async with supplement(member).open_image(session, **options) as image:
        assert image.digest == images[expected].digest
    system = SystemImage("linux/amd64", prefer_gzip)
    async with supplement(member, selection=system).open_image(session) as image:
        assert image.digest == images[expected].digest

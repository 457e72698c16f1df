"""Reading what a copy consists of: bounds, contradictions, and reading many at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import (
    LimitExceededError,
    MalformedManifestError,
    ManifestNotFoundError,
    PlatformNotFoundError,
    SizeMismatchError,
)
from asupplemented.limits import MAX_NESTING
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, SystemImage
from asupplemented.model.manifest import Manifest, UnreadManifest
from asupplemented.model.platform import Platform
from asupplemented.source import VerifiedSource
from asupplemented.testing.images import build_image, build_index
from asupplemented.transfer import plan
from asupplemented.transfer.plan import plan_copy
from asupplemented.transports.memory import MemoryReference, MemorySource
from tests.members import Member, MemberLog, hold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import RawManifest
    from asupplemented.errors import SupplementedError
    from asupplemented.session import Session
    from asupplemented.testing.images import Built
    from asupplemented.transfer.plan import CopyPlan

IMAGES = [build_image(f"linux/{name}", [{"n": name}]) for name in ("amd64", "arm64", "riscv64")]


async def read(top: Built, session: Session, **options: Any) -> CopyPlan:
    selection = options.pop("selection", AllImages())
    async with hold("top", top).open(session) as source:
        return await plan_copy(source, selection, session, **options)


def nested(depth: int) -> Built:
    """An image below so many lists."""
    built: Built = IMAGES[0]
    for _ in range(depth):
        built = build_index([built])
    return built


# Bounds


@pytest.mark.parametrize("selection", [AllImages(), SystemImage(Platform.parse("linux/amd64"))])
async def test_X15_lists_are_nested_as_deep_as_the_limit_says(
    session: Session, selection: Any
) -> None:
    deepest = await read(nested(MAX_NESTING), session, selection=selection)
    assert len(deepest.layers) == 1
    with pytest.raises(LimitExceededError, match="nested more than 8") as caught:
        await read(nested(MAX_NESTING + 1), session, selection=selection)
    assert caught.value.reference == "memory:top"


async def test_a_long_chain_of_lists_that_the_top_names_all_is_no_deep_nesting(
    session: Session,
) -> None:
    chain: list[Built] = [IMAGES[0]]
    for _ in range(40):
        chain.append(build_index([chain[-1]]))
    found = await read(build_index(chain), session)
    assert [level[0].digest for level in found.levels] == [built.digest for built in chain]


async def test_X15_as_many_manifests_as_the_limit_says(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = build_index(IMAGES)
    monkeypatch.setattr(plan, "MAX_INSTANCES", 4)
    assert len((await read(top, session)).manifests) == 4
    monkeypatch.setattr(plan, "MAX_INSTANCES", 3)
    with pytest.raises(LimitExceededError) as caught:
        await read(top, session)
    assert caught.value.limit == 3


async def test_X15_as_many_bytes_of_manifests_as_the_limit_says(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(len(image.raw) for image in IMAGES)
    monkeypatch.setattr(plan, "MAX_MANIFESTS_TOTAL", total)
    assert len((await read(build_index(IMAGES), session)).manifests) == 4
    monkeypatch.setattr(plan, "MAX_MANIFESTS_TOTAL", total - 1)
    with pytest.raises(LimitExceededError) as caught:
        await read(build_index(IMAGES), session)
    assert caught.value.limit == total - 1


# Contradictions


async def test_two_sizes_of_one_blob_are_refused(session: Session) -> None:
    honest = build_image("linux/amd64", [{"n": "1"}])
    size = len(honest.blobs[honest.layers[0]])
    raw = honest.raw.replace(b'"size":%d}]' % size, b'"size":%d}]' % (size + 1))
    liar = replace(honest, raw=raw, digest=Digest.of(raw))
    with pytest.raises(SizeMismatchError) as caught:
        await read(build_index([honest, liar]), session)
    assert (caught.value.digest, caught.value.expected, caught.value.actual) == (
        honest.layers[0],
        size,
        size + 1,
    )


async def test_a_blob_is_described_by_the_descriptor_with_a_size(session: Session) -> None:
    silent = build_image("linux/amd64", [{"n": "1"}])
    size = b',"size":%d}]' % len(silent.blobs[silent.layers[0]])
    raw = silent.raw.replace(size, b"}]")
    vague = replace(silent, raw=raw, digest=Digest.of(raw))
    assert (await read(vague, session)).size is None
    both = await read(build_index([vague, silent]), session)
    assert both.size == sum(map(len, silent.blobs.values()))


async def test_a_layer_that_is_a_config_too_is_copied_once(session: Session) -> None:
    image = build_image("linux/amd64", [{"n": "1"}])
    other = build_image("linux/arm64", [image.blobs[image.config]])
    found = await read(build_index([image, other]), session)
    digests = [blob.digest for blob in (*found.layers, *found.configs)]
    assert sorted(digests) == sorted({*image.blobs, *other.blobs})
    assert image.config in [blob.digest for blob in found.layers]


class Believer(VerifiedSource):
    """Takes every manifest for what it is called."""

    def __init__(self, named: dict[Digest | None, Manifest], session: Session) -> None:
        reference = MemoryReference("believer")
        super().__init__(MemorySource(reference), reference, session)
        self.named = named

    async def get_manifest(self, instance: Digest | str | None = None) -> Manifest:
        return self.named[None if instance is None else Digest(instance)]

    async def fetch_manifests(self, instances: Sequence[Digest]) -> list[Any]:
        found = [self.named[instance] for instance in instances]
        return [UnreadManifest(each.raw, each.media_type, each.digest) for each in found]


async def test_lists_that_name_each_other_are_refused(session: Session) -> None:
    # Impossible where digests are verified: these two lists cannot be made.
    one, two = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)

    def naming(digest: Digest) -> bytes:
        return build_index([{"mediaType": KIND, "digest": digest}]).raw

    lists = {one: Manifest(naming(two), KIND, one), two: Manifest(naming(one), KIND, two)}
    async with Believer({None: lists[one], **lists}, session) as source:
        with pytest.raises(MalformedManifestError, match="in a circle"):
            await plan_copy(source, AllImages(), session)


KIND = "application/vnd.oci.image.index.v1+json"


# Reading


async def test_CI07_a_nested_list_without_the_platform_names_what_there_is(
    session: Session,
) -> None:
    with pytest.raises(PlatformNotFoundError) as caught:
        await read(nested(1), session, selection=SystemImage(Platform.parse("linux/s390x")))
    assert caught.value.available == ("linux/amd64",)


async def test_a_platform_that_only_the_outer_list_tells_is_kept(session: Session) -> None:
    bare = {
        "mediaType": IMAGES[0].media_type,
        "digest": IMAGES[0].digest,
        "size": len(IMAGES[0].raw),
    }
    inner = build_index([bare])
    named = {"mediaType": KIND, "digest": inner.digest, "size": len(inner.raw)}
    platform = {"os": "linux", "architecture": "amd64"}
    outer = build_index([named | {"platform": platform}])
    async with hold("top", outer, inner, IMAGES[0]).open(session) as source:
        found = await plan_copy(source, SystemImage(Platform.parse("linux/amd64")), session)
    assert (found.top.digest, found.platform) == (IMAGES[0].digest, Platform("linux", "amd64"))


@pytest.mark.parametrize(("concurrency", "peak"), [(1, 1), (2, 2), (9, 3)])
async def test_manifests_are_read_side_by_side(
    session: Session, concurrency: int, peak: int
) -> None:
    log = MemberLog()
    top = Member("top", log, hold("top", build_index(IMAGES)), turns=lambda *_: 3)
    async with top.open(session) as source:
        found = await plan_copy(source, AllImages(), session, concurrency=concurrency)
    assert log.peak == peak
    assert [m.digest for m in found.manifests[:-1]] == [image.digest for image in IMAGES]


@dataclass(eq=False)
class InBatches(MemorySource):
    """An adapter that reads many manifests in one go."""

    def __init__(self, reference: MemoryReference) -> None:
        super().__init__(reference)
        self.held = reference.manifests
        self.asked: list[int] = []

    def fetch_manifests(self, instances: Sequence[Digest]) -> list[RawManifest | SupplementedError]:
        self.asked.append(len(instances))
        return [self.held.get(d) or ManifestNotFoundError("not here") for d in instances]


async def test_a_source_that_reads_batches_is_asked_for_batches(session: Session) -> None:
    images = [build_image("linux/amd64", [{"n": str(n)}]) for n in range(70)]
    reference = hold("top", build_index(images))
    adapter = InBatches(reference)
    async with VerifiedSource(adapter, reference, session) as source:
        found = await plan_copy(source, AllImages(), session)
    assert adapter.asked == [64, 6]
    assert [m.digest for m in found.manifests[:-1]] == [image.digest for image in images]


async def test_a_failure_in_a_batch_names_the_manifest(session: Session) -> None:
    reference = hold("top", build_index(IMAGES), without=[IMAGES[1]])
    async with VerifiedSource(InBatches(reference), reference, session) as source:
        with pytest.raises(ManifestNotFoundError) as caught:
            await plan_copy(source, AllImages(), session)
    assert (caught.value.digest, caught.value.reference) == (IMAGES[1].digest, "memory:top")

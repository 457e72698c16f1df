"""Groups: routing, policies, nesting, reopening, and nothing left open."""

from __future__ import annotations

import pytest

from asupplemented import (
    AllImages,
    BlobNotFoundError,
    ClosedError,
    ConfigurationError,
    Descriptor,
    Digest,
    ImageNotFoundError,
    InstanceNotFoundError,
    InvalidDigestError,
    InvalidReferenceError,
    ManifestNotFoundError,
    NetworkError,
    PlatformNotFoundError,
    Resolution,
    Session,
    Signature,
    SpecificImages,
    SystemImage,
    UnsupportedOperationError,
    UsageError,
    VerificationError,
    supplement,
)
from asupplemented.model.platform import Platform
from asupplemented.testing.images import build_image, build_index
from asupplemented.transports.memory import MemoryReference
from tests.members import Member, MemberLog, hold

AMD = build_image("linux/amd64", [{"bin/amd": "amd"}])
ARM = build_image("linux/arm64", [{"bin/arm": "arm"}])
S390 = build_image("linux/s390x", [{"bin/s390": "s390"}])
TOP = build_index([AMD, ARM])
NOWHERE = Digest.of(b"nowhere")


class World:
    """Members of one test, and what they did."""

    def __init__(self) -> None:
        self.log = MemberLog()

    def member(self, name: str, content: MemoryReference, **options: object) -> Member:
        return Member(name, self.log, content, **options)  # type: ignore[arg-type]

    def sparse_top(self) -> Member:
        """The index, and neither instances nor blobs."""
        return self.member("top", hold("top", TOP, without=[AMD, ARM], blobs=False))

    def image(self, name: str, built: object = AMD, **options: object) -> Member:
        return self.member(name, hold(name, built), **options)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


async def test_the_seeds_main_use(world: World) -> None:
    """A list and one single image per platform, grouped without a push in between."""
    group = supplement(world.sparse_top(), world.image("amd"), world.image("arm", ARM))
    async with Session() as session, group.open(session) as image:
        assert (await image.get_manifest()).raw == TOP.raw
        assert (await image.get_manifest(ARM.digest)).raw == ARM.raw
        assert (await image.get_manifest(str(AMD.digest))).raw == AMD.raw
        for built in (AMD, ARM):
            for digest, data in built.blobs.items():
                async with image.open_blob(digest) as blob:
                    assert await blob.read_all(1 << 20) == data
                    assert blob.verified
                    assert blob.member == (1 if built is AMD else 2)
        assert image.concurrent_blobs
        assert image.reference is group
    assert world.log.opened == 3
    assert world.log.left_open == 0


async def test_X02_what_was_read_is_not_read_again(world: World) -> None:
    group = supplement(world.sparse_top(), world.image("amd"), world.image("arm", ARM))
    async with Session() as session, group.open(session) as image:
        reads = len(world.log.reads)
        for digest in image.resolution.sources:
            await image.get_manifest(digest)
        assert len(world.log.reads) == reads == 3


async def test_X09_unknown_digests(world: World) -> None:
    group = supplement(world.image("top"))
    async with Session() as session, group.open(session) as image:
        with pytest.raises(InstanceNotFoundError) as instance:
            await image.get_manifest(NOWHERE)
        assert instance.value.digest == NOWHERE
        with pytest.raises(BlobNotFoundError) as blob:
            image.open_blob(NOWHERE)
        assert blob.value.digest == NOWHERE
        with pytest.raises(InvalidDigestError):
            await image.get_manifest("sha256:../../etc/passwd")
        with pytest.raises(InvalidDigestError):
            image.open_blob("sha256:../../etc/passwd")
        with pytest.raises(InstanceNotFoundError):
            await image.get_signatures(NOWHERE)
        with pytest.raises(InstanceNotFoundError):
            await image.layers_for_copy(NOWHERE)


async def test_X11_no_deleting(world: World) -> None:
    with pytest.raises(UnsupportedOperationError):
        await supplement(world.image("top")).delete()


async def test_X12_all_close_and_all_failures_are_told(world: World) -> None:
    errors = [OSError("one"), OSError("two")]
    group = supplement(
        world.image("top", close_error=errors[0]),
        world.image("same"),
        world.image("other", ARM, close_error=errors[1]),
    )
    async with Session() as session:
        image = await group.open(session)
        with pytest.raises(ExceptionGroup) as failure:
            await image.aclose()
        assert [*failure.value.exceptions] == errors
        await image.aclose()
    assert world.log.left_open == 0


async def test_X13_an_error_closes_what_was_opened(world: World) -> None:
    failing = world.image("third", faults={None: NetworkError("down")})
    group = supplement(world.image("top"), world.image("second"), failing)
    async with Session() as session:
        with pytest.raises(NetworkError) as failure:
            await group.open(session)
    assert (failure.value.member, failure.value.reference) == (2, "third")
    assert world.log.opened == 3
    assert world.log.left_open == 0


async def test_X14_a_member_that_was_taken_over_is_closed(world: World) -> None:
    group = supplement(world.image("top"), world.image("a"), world.image("b"))
    async with Session() as session, group.open(session) as image:
        assert dict(image.resolution.sources) == {AMD.digest: 2}
        assert image.resolution.alternates[AMD.digest] == (1, 0)
    assert (world.log.opened, world.log.left_open) == (3, 0)


async def test_X01_a_reference_given_again_is_opened_once(world: World) -> None:
    top, again = world.sparse_top(), world.image("amd")
    group = supplement(top, again, world.image("arm", ARM), again, top)
    async with Session() as session, group.open(session) as image:
        assert world.log.opened == 3
        assert image.resolution.defaults == (TOP.digest, AMD.digest, ARM.digest, None, None)
        assert image.resolution.members == ("top", "amd", "arm", "amd", "top")


async def test_closed_images_say_so(world: World) -> None:
    async with Session() as session:
        image = await supplement(world.image("top")).open(session)
        await image.aclose()
        with pytest.raises(ClosedError):
            await image.get_manifest()
        with pytest.raises(ClosedError):
            image.open_blob(AMD.config)
        with pytest.raises(ClosedError):
            await image.get_signatures()
        assert "closed" in repr(image)


async def test_an_opening_is_used_once(world: World) -> None:
    async with Session() as session:
        opening = supplement(world.image("top")).open(session)
        assert world.log.opened == 0
        async with opening:
            pass
        with pytest.raises(UsageError):
            await opening


async def test_groups_nest(world: World) -> None:
    inner = supplement(world.sparse_top(), world.image("amd"))
    outer = supplement(
        inner.with_options(missing="skip"), world.image("arm", ARM), missing="fallback"
    )
    async with Session() as session, outer.open(session) as image:
        assert image.resolution.sources == {TOP.digest: 0, AMD.digest: 0, ARM.digest: 1}
        assert str(outer) == "top supplemented by amd supplemented by arm"
        async with image.open_blob(AMD.config) as blob:
            assert await blob.read_all(1 << 20) == AMD.blobs[AMD.config]
            assert blob.member == 0
    assert (world.log.opened, world.log.left_open) == (3, 0)


async def test_signatures_come_from_the_serving_member(world: World) -> None:
    ours, theirs = Signature("simple-signing", b"\xa3ours"), Signature("simple-signing", b"\xa3x")
    content = hold("amd", AMD)
    signed = MemoryReference(
        "amd", content.default, content.manifests, content.blobs, {None: (ours,)}
    )
    listed = hold("top", TOP, without=[AMD, ARM])
    top = MemoryReference("top", listed.default, listed.manifests, {}, {None: (theirs,)})
    group = supplement(
        world.member("top", top), world.member("amd", signed), world.image("arm", ARM)
    )
    async with Session() as session, group.open(session) as image:
        assert await image.get_signatures() == (theirs,)
        assert await image.get_signatures(TOP.digest) == (theirs,)
        assert await image.get_signatures(AMD.digest) == (ours,)
        assert await image.get_signatures(ARM.digest) == ()


async def test_X10_layers_for_copy_reroute_blobs(world: World) -> None:
    plain = b"the same layer, uncompressed"
    layer = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(plain), len(plain))
    content = hold("amd", AMD)
    storage = MemoryReference(
        "storage", content.default, content.manifests, {**content.blobs, Digest.of(plain): plain}
    )
    member = world.member("storage", storage, layers={None: [layer]})
    group = supplement(world.sparse_top(), member, world.image("arm", ARM))
    async with Session() as session, group.open(session) as image:
        before = image.resolution.to_json()
        with pytest.raises(BlobNotFoundError):
            image.open_blob(layer.digest)
        assert await image.layers_for_copy(ARM.digest) is None
        assert await image.layers_for_copy(AMD.digest) == (layer,)
        async with image.open_blob(layer.digest) as blob:
            assert await blob.read_all(100) == plain
            assert blob.member == 1
        assert image.resolution.to_json() == before


async def test_X08_the_other_holder_serves_what_one_lacks(world: World) -> None:
    """A shared layer is routed to the last manifest's member; if that lacks it, to the next."""
    shared = {"base": "shared"}
    one = build_image("linux/amd64", [shared, {"a": "1"}])
    two = build_image("linux/arm64", [shared, {"b": "2"}])
    layer = one.layers[0]
    assert layer in two.blobs
    poor = hold("two", two)
    lacking = MemoryReference(
        "two", poor.default, poor.manifests, {d: b for d, b in poor.blobs.items() if d != layer}
    )
    group = supplement(world.image("one", one), world.member("two", lacking))
    async with Session() as session, group.open(session) as image:
        assert image.resolution.blobs[layer] == two.digest
        assert [c.member for c in image.resolution.candidates(layer)] == [1, 0]
        async with image.open_blob(layer) as blob:
            assert await blob.read_all(1 << 20) == one.blobs[layer]
            assert blob.member == 0


class TestPolicies:
    async def test_missing_raise(self, world: World) -> None:
        async with Session() as session:
            with pytest.raises(ManifestNotFoundError) as failure:
                await supplement(world.sparse_top(), world.image("amd")).open(session)
        assert (failure.value.member, failure.value.digest) == (0, ARM.digest)
        assert world.log.left_open == 0

    async def test_missing_skip(self, world: World) -> None:
        group = supplement(world.sparse_top(), world.image("amd"), missing="skip")
        async with Session() as session, group.open(session) as image:
            assert image.resolution.missing == ((0, ARM.digest),)
            assert [i.digest for i in image.instances()] == [TOP.digest, AMD.digest]
            with pytest.raises(InstanceNotFoundError):
                await image.get_manifest(ARM.digest)

    async def test_missing_fallback(self, world: World) -> None:
        """A supplement that lists what only the top holds."""
        top = world.member("top", hold("top", TOP))
        other = build_index([ARM, AMD], annotations={"who": "other"})
        sparse = world.member("sparse", hold("sparse", other, without=[ARM], blobs=False))
        group = supplement(top, sparse, missing="fallback")
        async with Session() as session, group.open(session) as image:
            assert image.resolution.sources[ARM.digest] == 0
            assert image.resolution.sources[AMD.digest] == 1
            assert image.resolution.missing == ()
            assert ARM.digest not in image.resolution.alternates
        with pytest.raises(ManifestNotFoundError):
            async with Session() as session:
                await supplement(top, sparse).open(session)
        assert world.log.left_open == 0

    async def test_unavailable_skip(self, world: World) -> None:
        error = NetworkError("down")
        down = world.image("down", faults={None: error})
        group = supplement(
            world.sparse_top(), down, world.image("amd"), world.image("arm", ARM),
            unavailable="skip",
        )  # fmt: skip
        async with Session() as session, group.open(session) as image:
            assert image.resolution.unavailable == {1: error}
            assert image.resolution.defaults[1] is None
            plan = image.resolution.to_dict()
            assert plan["unavailable"] == [{"member": 1, "error": "NetworkError: down"}]
        assert world.log.left_open == 0

    async def test_the_top_is_never_left_out(self, world: World) -> None:
        down = world.image("top", faults={None: NetworkError("down")})
        group = supplement(down, world.image("amd"), unavailable="skip", missing="skip")
        async with Session() as session:
            with pytest.raises(NetworkError):
                await group.open(session)

    async def test_X05b_specific_and_unknown(self, world: World) -> None:
        group = supplement(world.sparse_top(), selection=SpecificImages([NOWHERE]))
        async with Session() as session:
            with pytest.raises(InstanceNotFoundError) as failure:
                await group.open(session)
            assert failure.value.digests == (NOWHERE,)
            skipping = group.with_options(missing="skip")
            assert (await skipping.resolve(session)).missing == ((None, NOWHERE),)

    async def test_X16_system(self, world: World) -> None:
        def select(text: str) -> SystemImage:
            return SystemImage(Platform.parse(text))

        group = supplement(
            world.sparse_top(), world.image("arm", ARM), selection=select("linux/arm64")
        )
        async with Session() as session:
            plan = await group.resolve(session)
            assert plan.sources == {TOP.digest: 0, ARM.digest: 1}
            with pytest.raises(PlatformNotFoundError) as failure:
                await group.with_options(selection=select("linux/s390x")).open(session)
        assert failure.value.available == ("linux/amd64", "linux/arm64")
        assert failure.value.member == 0


class TestPlans:
    async def test_reopening_reads_defaults_only(self, world: World) -> None:
        group = supplement(world.member("top", hold("top", TOP)), world.image("amd"))
        async with Session() as session:
            plan = await group.resolve(session)
            again = Resolution.from_json(plan.to_json())
            assert again == plan
            assert hash(again) == hash(plan)
            assert again.to_dict() == plan.to_dict()
            world.log.reads.clear()
            async with group.open(session, resolution=again) as image:
                assert sorted(world.log.reads) == [("amd", None), ("top", None)]
                async with image.open_blob(ARM.layers[0]) as blob:
                    assert await blob.read_all(1 << 20) == ARM.blobs[ARM.layers[0]]
                assert (await image.get_manifest(ARM.digest)).raw == ARM.raw
        assert world.log.left_open == 0

    async def test_reopening_notices_that_a_tag_moved(self, world: World) -> None:
        before = supplement(world.image("top", AMD), world.image("other"))
        after = supplement(world.image("top", ARM), world.image("other"))
        async with Session() as session:
            plan = await before.resolve(session)
            with pytest.raises(VerificationError) as failure:
                await after.open(session, resolution=plan)
            assert failure.value.member == 0
            with pytest.raises(ConfigurationError):
                await supplement(world.image("top")).open(session, resolution=plan)
        assert world.log.left_open == 0

    @pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"version":1}', b"\xff", b"[" * 100_000])
    def test_foreign_json_is_refused(self, text: bytes) -> None:
        with pytest.raises(ConfigurationError):
            Resolution.from_json(text)

    async def test_contradictions_are_refused(self, world: World) -> None:
        async with Session() as session:
            plan = await supplement(world.image("top")).resolve(session)
        lie = plan.to_json().replace(b'"commits":[[0,', b'"commits":[[7,')
        with pytest.raises(ConfigurationError):
            Resolution.from_json(lie)

    async def test_explain(self, world: World) -> None:
        group = supplement(
            world.member("top", hold("top", TOP)), world.image("amd"), world.image("amd2")
        )
        async with Session() as session:
            plan = await group.resolve(session)
        image = plan.explain(AMD.digest)
        assert (image.kind, image.member) == ("image", 2)
        assert [c.member for c in image.candidates] == [2, 1, 0]
        assert "taken over" in image.candidates[1].reason
        assert "lists" in image.candidates[2].reason
        assert "member 2 (amd2)" in str(image)
        blob = plan.explain(ARM.config)
        assert (blob.kind, blob.member, blob.manifest) == ("blob", 0, ARM.digest)
        assert plan.explain(TOP.digest).kind == "index"
        with pytest.raises(InstanceNotFoundError):
            plan.explain(NOWHERE)
        with pytest.raises(InvalidDigestError):
            plan.explain("nonsense")

    async def test_the_preference_moves_the_top_to_the_end(self, world: World) -> None:
        shared = build_image("linux/s390x", [{"bin/amd": "amd"}])
        top = build_index([shared, AMD])
        group = supplement(world.member("top", hold("top", top)), world.image("amd"))
        async with Session() as session:
            plan = await group.resolve(session)
        layer = AMD.layers[0]
        assert [c.member for c in plan.candidates(layer)] == [0, 1]
        assert [c.member for c in plan.candidates(layer, prefer="supplements")] == [1, 0]
        assert "preferred" in plan.explain(layer, prefer="supplements").rule
        assert "preferred" not in plan.explain(layer).rule

    async def test_find(self, world: World) -> None:
        group = supplement(world.member("top", hold("top", TOP)), world.image("amd"))
        async with Session() as session, group.open(session) as image:
            assert image.find("linux/arm64").digest == ARM.digest
            assert image.find(Platform("linux", "arm64", "v8")).member == 0
            found = image.find("linux/amd64")
            assert (found.member, found.platform) == (1, Platform("linux", "amd64"))
            with pytest.raises(PlatformNotFoundError) as failure:
                image.find("windows/amd64")
            assert failure.value.available == ("linux/amd64", "linux/arm64")


# Preference


async def test_a_group_that_prefers_supplements_asks_the_top_last(world: World) -> None:
    shared = build_image("linux/s390x", [{"bin/amd": "amd"}])
    top = world.member("top", hold("top", build_index([shared, AMD])))
    group = supplement(top, world.image("amd"), world.image("other", ARM))
    layer, alone = AMD.layers[0], shared.config
    async with Session() as session:
        for prefer, order in (("manifest", [0, 1]), ("supplements", [1, 0])):
            preferring = group.with_options(prefer=prefer)  # type: ignore[arg-type]
            assert preferring.with_options(missing="skip").prefer == prefer
            async with preferring.open(session) as image:
                candidates = image.blob_candidates(image.resolution.descriptor(layer))
                assert [each.member for each in candidates] == order
                assert image.resolution.explain(layer).member == order[0]
                async with image.open_blob(layer) as blob:
                    assert await blob.read_all(1 << 20) == AMD.blobs[layer]
                    assert blob.member == order[0]
                async with image.open_blob(alone) as blob:
                    await blob.read_all(1 << 20)
                    assert blob.member == 0
                assert image.resolution.sources[AMD.digest] == 1


async def test_the_plan_keeps_the_preference(world: World) -> None:
    shared = build_image("linux/s390x", [{"bin/amd": "amd"}])
    top = world.member("top", hold("top", build_index([shared, AMD])))
    group = supplement(top, world.image("amd"), prefer="supplements")
    layer = AMD.layers[0]
    async with Session() as session:
        plan = await group.resolve(session)
        named = await group.with_options(prefer="manifest").resolve(session)
        assert plan != named
        assert (plan.prefer, named.prefer) == ("supplements", "manifest")
        again = Resolution.from_json(plan.to_json())
        assert again == plan
        assert [each.member for each in again.candidates(layer)] == [1, 0]
        assert [each.member for each in again.candidates(layer, prefer="manifest")] == [0, 1]
        async with group.open(session, resolution=named) as image:
            [first, _] = image.blob_candidates(plan.descriptor(layer))
            assert first.member == 0, "a plan counts, whatever the options are by now"
    old = named.to_json().replace(b',"prefer":"manifest"', b"")
    assert old != named.to_json()
    assert Resolution.from_json(old) == named
    with pytest.raises(ConfigurationError):
        Resolution.from_json(plan.to_json().replace(b'"supplements"', b'"top"'))


async def test_what_layers_for_copy_rerouted_is_asked_of_its_member_first(world: World) -> None:
    layer = AMD.layers[0]
    blob = Descriptor(digest=layer, size=len(AMD.blobs[layer]))
    top = world.member("top", hold("top", AMD), layers={None: [blob], AMD.digest: [blob]})
    other = build_image("linux/s390x", [{"bin/amd": "amd"}])
    group = supplement(top, world.image("other", other), prefer="supplements")
    async with Session() as session, group.open(session) as image:
        assert [c.member for c in image.blob_candidates(blob)] == [1, 0]
        await image.layers_for_copy()
        assert [c.member for c in image.blob_candidates(blob)] == [0, 1]


class TestArguments:
    def test_options_are_checked(self, world: World) -> None:
        top = world.image("top")
        for options in (
            {"missing": "no"},
            {"unavailable": "fallback"},
            {"prefer": "top"},
            {"selection": "all"},
        ):
            with pytest.raises(ConfigurationError):
                supplement(top, **options)  # type: ignore[arg-type]

    def test_texts_are_parsed(self) -> None:
        group = supplement("oci:/srv/a:1", "dir:/srv/b")
        assert [r.transport for r in group.references] == ["oci", "dir"]
        assert group == supplement("oci:/srv/a:1", "dir:/srv/b", selection=AllImages())
        assert hash(group) == hash(supplement("oci:/srv/a:1", "dir:/srv/b"))
        assert group.transport == "supplemented"
        with pytest.raises(InvalidReferenceError):
            supplement("busybox")

    async def test_nothing_there(self, tmp_path: object) -> None:
        async with Session() as session:
            with pytest.raises(ImageNotFoundError) as failure:
                await supplement(f"oci:{tmp_path}/none").open(session)
        assert failure.value.member == 0

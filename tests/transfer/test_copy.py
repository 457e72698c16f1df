"""Copying: the order of writing, what is copied, and what happens when something fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    InstanceNotFoundError,
    InvalidReferenceError,
    LayoutError,
    ManifestNotFoundError,
    NetworkError,
    PlatformNotFoundError,
    SupplementedError,
    UnsupportedManifestError,
    UnsupportedOperationError,
)
from asupplemented.events import Warned
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.platform import Platform
from asupplemented.model.signature import Signature
from asupplemented.session import Session
from asupplemented.supplemented import supplement
from asupplemented.testing.images import build_artifact, build_image, build_index
from asupplemented.transfer.copy import BlobAdvanced, BlobCopied, BlobReused, CopyPlanned, copy
from tests.members import Member, MemberLog, hold
from tests.sinks import Sink

if TYPE_CHECKING:
    from asupplemented.testing.images import Built
    from asupplemented.transfer.copy import CopyReport

BASE = {"etc/base": "the same in every image"}
AMD = build_image("linux/amd64", [BASE, {"a": "1"}])
ARM = build_image("linux/arm64/v8", [BASE, {"b": "2"}])
ARM7 = build_image("linux/arm/v7", [BASE, {"c": "3"}])
RISCV = build_image("linux/riscv64", [BASE, {"d": "4"}])
INNER = build_index([ARM, ARM7])
TOP = build_index([AMD, INNER, AMD])
FLAT = build_index([AMD, ARM, ARM7])
SIGNATURE = Signature("simple-signing", b"\xa3signed")


def member(top: Built, *others: Built, name: str = "top", **options: Any) -> Member:
    return Member(name, MemberLog(), hold(name, top, *others, **options))


async def copied(source: Member, sink: Sink, session: Session, **options: Any) -> CopyReport:
    report = await copy(source, sink, session, **options)
    assert source.log.left_open == 0
    assert (sink.opened, sink.closed) == (1, 1)
    return report


# What is copied, and in which order


async def test_K01_blobs_come_before_manifests_before_signatures_before_the_top(
    session: Session,
) -> None:
    source, sink = member(TOP), Sink()
    source = replace(source, content=replace(source.content, signatures={None: [SIGNATURE]}))
    await copied(source, sink, session)
    order = ["create", "put_blob", "put_manifest", "put_signatures", "commit"]
    assert sink.order == order


async def test_all_images_copies_nested_lists_and_every_blob_once(session: Session) -> None:
    sink = Sink()
    report = await copied(member(TOP), sink, session)
    assert sink.blobs == dict(TOP.blobs)
    assert len(sink.subjects("put_blob")) == len(TOP.blobs) == 7
    assert sink.manifests == {d: m for d, m in sink.manifests.items() if m.raw} != {}
    assert {d: m.raw for d, m in sink.manifests.items()} == {
        built.digest: built.raw for built in (AMD, ARM, ARM7, INNER)
    }
    [(top, platform)] = sink.committed
    assert (top.raw, top.digest, platform) == (TOP.raw, TOP.digest, None)
    assert (report.digest, report.media_type) == (TOP.digest, TOP.media_type)
    assert (report.manifests, report.blobs) == (5, 7)
    assert report.bytes == sum(map(len, TOP.blobs.values()))
    assert (report.reused_blobs, report.warnings, report.missing) == (0, (), ())
    assert report.destination == "the sink"


async def test_K07_what_a_list_names_is_written_before_the_list(session: Session) -> None:
    # INNER names ARM; the top names ARM too, before INNER: the deepest place decides.
    top, sink = build_index([ARM, INNER]), Sink()
    await copied(member(top), sink, session)
    written = sink.subjects("put_manifest")
    assert sorted(written) == sorted([ARM.digest, ARM7.digest, INNER.digest])
    assert written[-1] == INNER.digest


async def test_a_single_image_is_the_top_itself(session: Session) -> None:
    sink = Sink()
    report = await copied(member(ARM), sink, session)
    assert sink.order == ["create", "put_blob", "commit"]
    assert (report.manifests, report.blobs) == (1, 3)


async def test_an_artifact_is_copied_with_its_payload(session: Session) -> None:
    sbom = build_artifact("application/spdx+json", b'{"spdx": 1}', subject=AMD)
    sink = Sink()
    await copied(member(sbom), sink, session)
    assert sink.blobs == dict(sbom.blobs)


async def test_system_makes_the_one_instance_the_top(session: Session) -> None:
    source, sink = member(TOP), Sink()
    signed = {None: [SIGNATURE], ARM7.digest: [SIGNATURE]}
    source = replace(source, content=replace(source.content, signatures=signed))
    selection = SystemImage(Platform.parse("linux/arm/v7"))
    report = await copied(source, sink, session, selection=selection)
    assert [(top.digest, str(p)) for top, p in sink.committed] == [(ARM7.digest, "linux/arm/v7")]
    assert sink.manifests == {}
    assert sink.blobs == dict(ARM7.blobs)
    assert sink.signatures == {None: (SIGNATURE,)}
    assert (report.digest, report.signatures, report.warnings) == (ARM7.digest, 1, ())


async def test_CI07_system_fails_if_no_instance_fits(session: Session) -> None:
    sink = Sink()
    with pytest.raises(PlatformNotFoundError):
        await copied(
            member(FLAT), sink, session, selection=SystemImage(Platform.parse("linux/s390x"))
        )
    assert sink.order == ["create"]


async def test_specific_keeps_the_bytes_of_the_list_and_warns(session: Session) -> None:
    sink, heard = Sink(), list[Any]()
    async with Session(hooks=[heard.append]) as listening:
        source = member(FLAT)
        report = await copied(source, sink, listening, selection=SpecificImages([ARM.digest]))
    [(top, _)] = sink.committed
    assert top.raw == FLAT.raw
    assert set(sink.manifests) == {ARM.digest}
    assert sink.blobs == dict(ARM.blobs)
    [warning] = report.warnings
    assert f"the list {FLAT.digest} is sparse: 1 of the 3 it names" in warning
    assert Warned("the sink", warning) in heard
    assert report.missing == ()


async def test_a_specific_selection_of_nothing_copies_the_list_alone(session: Session) -> None:
    sink = Sink()
    report = await copied(member(FLAT), sink, session, selection=SpecificImages([]))
    assert sink.order == ["create", "commit"]
    assert "0 of the 3" in report.warnings[0]


async def test_a_nested_list_comes_along_only_if_it_is_requested(session: Session) -> None:
    sink = Sink()
    wanted = SpecificImages([INNER.digest, ARM7.digest])
    report = await copied(member(TOP), sink, session, selection=wanted)
    assert set(sink.manifests) == {INNER.digest, ARM7.digest}
    assert len(report.warnings) == 2
    with pytest.raises(InstanceNotFoundError) as caught:
        await copy(member(TOP), Sink(), session, selection=SpecificImages([ARM7.digest]))
    assert caught.value.digests == (ARM7.digest,)


async def test_nothing_is_written_if_a_requested_instance_is_unknown(session: Session) -> None:
    sink, unknown = Sink(), Digest("sha256:" + "0" * 64)
    with pytest.raises(InstanceNotFoundError, match="do not name the requested"):
        await copied(member(FLAT), sink, session, selection=SpecificImages([AMD.digest, unknown]))
    assert sink.order == ["create"]


# Groups


def grouped(*members: Member, **options: Any) -> Any:
    return supplement(*members, **options)


async def test_a_group_is_copied_with_its_own_selection(session: Session) -> None:
    top = member(FLAT, without=[ARM])
    one = member(ARM, name="one")
    group = grouped(top, one, selection=SpecificImages([ARM.digest]))
    sink = Sink()
    await copy(group, sink, session)
    assert set(sink.manifests) == {ARM.digest}
    assert (top.log.left_open, one.log.left_open) == (0, 0)


async def test_a_selection_given_opens_the_group_with_it(session: Session) -> None:
    top = member(FLAT, without=[AMD, ARM7], blobs=True)
    group = grouped(top, selection=AllImages())
    sink = Sink()
    await copy(group, sink, session, selection=SpecificImages([ARM.digest]))
    assert set(sink.manifests) == {ARM.digest}
    assert group.selection == AllImages()


async def test_an_open_source_stays_open(session: Session) -> None:
    source = member(FLAT)
    async with source.open(session) as image:
        await copy(image, Sink(), session)
        assert source.log.left_open == 1
        assert (await image.get_manifest()).digest == FLAT.digest


async def test_holes_of_a_group_are_copied_as_holes_and_named(session: Session) -> None:
    top = member(FLAT, without=[ARM])
    sink = Sink()
    report = await copy(grouped(top, missing="skip"), sink, session)
    assert set(sink.manifests) == {AMD.digest, ARM7.digest}
    assert report.missing == (ARM.digest,)
    assert f"no member supplies {ARM.digest}" in report.warnings[0]
    assert sink.committed[0][0].raw == FLAT.raw


async def test_many_holes_are_counted_in_the_warning_and_all_named_in_the_report(
    session: Session,
) -> None:
    images = [build_image("linux/amd64", [{"n": str(n)}]) for n in range(25)]
    top = member(build_index(images), without=images)
    report = await copy(grouped(top, missing="skip"), Sink(), session)
    assert "and 5 more" in report.warnings[0]
    assert set(report.missing) == {image.digest for image in images}


async def test_a_requested_instance_that_no_member_knows_is_reported(session: Session) -> None:
    unknown = Digest.of(b"known to no member")
    wanted = SpecificImages([ARM.digest, AMD.digest, unknown])
    group = grouped(member(FLAT, without=[AMD]), selection=wanted, missing="skip")
    sink = Sink()
    report = await copy(group, sink, session)
    assert set(sink.manifests) == {ARM.digest}
    assert report.missing == (AMD.digest, unknown)
    assert f"no member supplies the requested {unknown}" in report.warnings


async def test_a_progress_that_raises_leaves_nothing_open(session: Session) -> None:
    def refuse(event: Any) -> None:
        if getattr(event, "received", None) == 0:
            raise RuntimeError(event)

    sink = Sink()
    source = member(ARM)
    with pytest.raises(RuntimeError):
        await copy(source, sink, session, progress=refuse)
    assert (source.log.left_open, sink.opened - sink.closed, sink.committed) == (0, 0, [])


async def test_missing_instances_fail_before_anything_is_written(session: Session) -> None:
    sink = Sink()
    with pytest.raises(ManifestNotFoundError):
        await copied(member(FLAT, without=[ARM]), sink, session)
    assert sink.order == ["create"]


async def test_extras_are_images_that_only_supplements_have(session: Session) -> None:
    top, other = member(FLAT), member(build_index([AMD, RISCV]), name="other")
    sink = Sink()
    report = await copy(grouped(top, other), sink, session, extras=True)
    assert set(sink.manifests) == {AMD.digest, ARM.digest, ARM7.digest, RISCV.digest}
    assert RISCV.blobs.items() <= sink.blobs.items()
    assert sink.beside == {RISCV.digest: Platform.parse("linux/riscv64")}
    assert sink.order[-2:] == ["list_beside", "commit"]
    assert report.warnings == ()


async def test_extras_stay_behind_unless_they_are_asked_for(session: Session) -> None:
    top, other = member(FLAT), member(RISCV, name="other")
    sink = Sink()
    await copy(grouped(top, other), sink, session)
    assert RISCV.digest not in sink.manifests
    assert "list_beside" not in sink.order


async def test_extras_without_a_list_can_be_had_by_digest(session: Session) -> None:
    top, other = member(FLAT), member(RISCV, name="other")
    sink = Sink(listing=False)
    report = await copy(grouped(top, other), sink, session, extras=True)
    assert RISCV.digest in sink.manifests
    assert "1 extra image can be read by digest only" in report.warnings[0]


async def test_extras_of_a_specific_selection_are_the_requested_ones(session: Session) -> None:
    extra = build_image("linux/s390x", [{"e": "5"}])
    top, other = member(FLAT), member(build_index([RISCV, extra]), name="other")
    wanted = SpecificImages([ARM.digest, RISCV.digest])
    group = grouped(top, other, selection=wanted)
    sink = Sink()
    await copy(group, sink, session, extras=True)
    assert set(sink.manifests) == {ARM.digest, RISCV.digest}
    with pytest.raises(InstanceNotFoundError, match="extras come along only if"):
        await copy(group, Sink(), session)


async def test_extras_do_not_go_with_a_system(session: Session) -> None:
    source, sink = member(FLAT), Sink()
    with pytest.raises(ConfigurationError):
        await copied(source, sink, session, selection=SystemImage(), extras=True)


# What is there already, and how many at once


async def test_blobs_that_are_there_are_not_fetched(session: Session) -> None:
    shared = AMD.layers[0]
    sink, seen = Sink(held=frozenset([shared, AMD.config])), list[Any]()
    report = await copied(member(AMD), sink, session, progress=seen.append)
    assert sink.subjects("put_blob") == [AMD.layers[1]]
    assert (report.blobs, report.reused_blobs) == (1, 2)
    assert report.reused_bytes == len(AMD.blobs[shared]) + len(AMD.blobs[AMD.config])
    assert {e.blob.digest for e in seen if isinstance(e, BlobReused)} == {shared, AMD.config}


async def test_progress_tells_the_plan_then_each_blob(session: Session) -> None:
    seen = list[Any]()
    await copied(member(ARM), Sink(), session, progress=seen.append, concurrency=1)
    total = sum(map(len, ARM.blobs.values()))
    assert seen[0] == CopyPlanned(manifests=1, blobs=3, bytes=total)
    told = [(type(e), e.blob.digest) for e in seen[1:] if not isinstance(e, CopyPlanned)]
    expected = [
        (kind, digest)
        for digest in (*ARM.layers, ARM.config)
        for kind in (BlobAdvanced, BlobAdvanced, BlobCopied)
    ]
    assert told == expected
    assert [e.received for e in seen if isinstance(e, BlobAdvanced)][:2] == [
        0,
        len(ARM.blobs[ARM.layers[0]]),
    ]


@pytest.mark.parametrize(("limit", "peak"), [(1, 1), (2, 2), (6, 6), (None, 7)])
async def test_SR04_blobs_side_by_side_are_limited(
    session: Session, limit: int | None, peak: int
) -> None:
    sink = Sink()
    await copied(member(FLAT), sink, session, concurrency=limit)
    assert sink.peak == peak


async def test_SR04_a_source_that_cannot_is_read_one_blob_at_a_time(session: Session) -> None:
    sink = Sink()
    reference = replace(hold("serial", FLAT), concurrent_blobs=False)
    await copy(reference, sink, session)
    assert sink.peak == 1


async def test_concurrency_is_at_least_one(session: Session) -> None:
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        await copy(member(FLAT), Sink(), session, concurrency=0)


# Signatures, layers and media types


async def test_signatures_go_to_their_manifests(session: Session) -> None:
    other = Signature("sigstore-json", b"{}")
    source = member(FLAT)
    signed = {None: [SIGNATURE], ARM.digest: [SIGNATURE, other]}
    source = replace(source, content=replace(source.content, signatures=signed))
    sink = Sink()
    report = await copied(source, sink, session)
    assert sink.signatures == {None: (SIGNATURE,), ARM.digest: (SIGNATURE, other)}
    assert (report.signatures, report.warnings) == (3, ())


async def test_signatures_that_cannot_be_held_are_a_warning(session: Session) -> None:
    source = member(ARM)
    source = replace(source, content=replace(source.content, signatures={None: [SIGNATURE]}))
    report = await copied(source, Sink(signed=False), session)
    assert report.signatures == 0
    assert "1 signature was not copied" in report.warnings[0]


def layer_of(image: Any, number: int, **changes: Any) -> Descriptor:
    digest = image.layers[number]
    plain = {"digest": digest, "size": len(image.blobs[digest]), "media_type": "layer"}
    return Descriptor(**(plain | changes))


async def test_K06_layers_in_another_form_are_refused(session: Session) -> None:
    other = Digest.of(b"the layer, uncompressed")
    layers = [layer_of(ARM, 0), layer_of(ARM, 1, digest=other)]
    sink = Sink()
    source = replace(member(FLAT), layers={ARM.digest: layers})
    with pytest.raises(UnsupportedOperationError, match="another form") as caught:
        await copied(source, sink, session)
    assert caught.value.digest == ARM.digest
    assert sink.order == ["create"]


async def test_K04_layers_for_copy_of_the_same_form_are_asked_for(session: Session) -> None:
    layers = [layer_of(ARM, 0), layer_of(ARM, 1)]
    sink = Sink()
    await copied(replace(member(ARM), layers={None: layers}), sink, session)
    assert sink.blobs == dict(ARM.blobs)


async def test_docker_types_are_kept_in_a_layout_with_a_warning(session: Session) -> None:
    docker = build_index([build_image(docker=True)], docker=True)
    sink = Sink(transport="oci")
    report = await copied(member(docker), sink, session)
    assert sink.committed[0][0].raw == docker.raw
    assert "Docker media types are kept" in report.warnings[0]
    assert (await copied(member(docker), Sink(transport="dir"), session)).warnings == ()
    assert (await copied(member(FLAT), Sink(transport="oci"), session)).warnings == ()


def with_urls(image: Any) -> Any:
    """An image whose last layer is to be found elsewhere."""
    urls = b'"size":%d,"urls":["https://example.org/layer"]}]' % len(image.blobs[image.layers[-1]])
    raw = image.raw.replace(b'"size":%d}]' % len(image.blobs[image.layers[-1]]), urls)
    assert raw != image.raw
    kept = {d: b for d, b in image.blobs.items() if d != image.layers[-1]}
    return replace(image, raw=raw, digest=Digest.of(raw), blobs=kept)


async def test_a_foreign_layer_that_no_source_holds_is_left_out_with_a_warning(
    session: Session,
) -> None:
    sink, foreign = Sink(), with_urls(ARM)
    report = await copied(member(foreign), sink, session)
    assert set(sink.blobs) == set(foreign.blobs)
    assert f"no source holds {ARM.layers[-1]}" in report.warnings[0]


# What fails


def without_blob(digest: Digest) -> Member:
    source = member(FLAT)
    blobs = {d: b for d, b in source.content.blobs.items() if d != digest}
    return replace(source, content=replace(source.content, blobs=blobs))


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


async def test_a_blob_that_is_missing_fails_the_copy_and_says_where(session: Session) -> None:
    source, sink = without_blob(ARM.layers[1]), Sink()
    with pytest.raises(BlobNotFoundError) as caught:
        await copied(source, sink, session)
    assert caught.value.digest == ARM.layers[1]
    assert notes(caught.value) == ["while copying, the source failed: top"]
    assert sink.committed == []
    assert sink.manifests == {}
    assert sink.flying == 0
    assert (source.log.left_open, sink.opened - sink.closed) == (0, 0)


async def test_a_wrong_blob_fails_the_copy(session: Session) -> None:
    source, sink = member(FLAT), Sink()
    wrong = dict(source.content.blobs)
    wrong[ARM.layers[1]] = bytes(len(wrong[ARM.layers[1]]))
    source = replace(source, content=replace(source.content, blobs=wrong))
    with pytest.raises(DigestMismatchError):
        await copied(source, sink, session)
    assert sink.committed == []
    assert ARM.layers[1] not in sink.blobs


@pytest.mark.parametrize(
    "method", ["create", "has_blob", "put_blob", "put_manifest", "put_signatures", "commit"]
)
async def test_what_the_destination_does_wrong_is_said_to_be_its_fault(
    session: Session, method: str
) -> None:
    source, sink = member(FLAT), Sink(faults={method: LayoutError("no room")})
    source = replace(source, content=replace(source.content, signatures={None: [SIGNATURE]}))
    with pytest.raises(LayoutError) as caught:
        await copy(source, sink, session)
    assert notes(caught.value) == ["while copying, the destination failed: the sink"]
    assert sink.committed == []
    assert (source.log.left_open, sink.opened - sink.closed) == (0, 0)


async def test_a_source_that_cannot_be_opened_is_said_to_be_at_fault(session: Session) -> None:
    source = replace(member(FLAT), faults={None: NetworkError("no route")})
    sink = Sink()
    with pytest.raises(NetworkError) as caught:
        await copied(source, sink, session)
    assert notes(caught.value) == ["while copying, the source failed: top"]
    assert sink.order == ["create"]


async def test_schema_1_is_refused_before_anything_is_written(session: Session) -> None:
    raw = (
        b'{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64","fsLayers":[{"blobSum":"%s"}],'
        b'"history":[{"v1Compatibility":"{\\"id\\":\\"%s\\"}"}]}'
        % (Digest.of(b"layer").encode(), b"0" * 64)
    )
    kind = "application/vnd.docker.distribution.manifest.v1+json"
    old = replace(ARM, raw=raw, media_type=kind, digest=Digest.of(raw), blobs={})
    sink = Sink()
    with pytest.raises(UnsupportedManifestError, match="never written"):
        await copied(member(old), sink, session)
    assert sink.order == ["create"]


async def test_what_cannot_be_written_is_refused_before_anything_is_opened(
    session: Session,
) -> None:
    source = member(FLAT)
    with pytest.raises(UnsupportedOperationError, match="nothing can be copied to member:"):
        await copy(source, member(FLAT), session)
    with pytest.raises(InvalidReferenceError):
        await copy(source, "nowhere", session)
    assert source.log.opened == 0


async def cancelled_after(turns: int) -> bool:
    """Copy for some turns of the event loop, then cancel; whether the copy was not done by then."""
    source, sink = member(TOP), Sink()
    async with Session() as session:
        task = asyncio.ensure_future(copy(source, sink, session))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert bool(sink.committed) is not task.cancelled()
        assert task.cancelled() or task.exception() is None
    assert source.log.left_open == 0
    assert sink.opened == sink.closed
    assert sink.flying == 0
    return task.cancelled()


async def test_a_copy_cancelled_at_any_await_leaves_nothing_open() -> None:
    turns = 0
    while await cancelled_after(turns):
        turns += 1
    assert turns > 20


async def test_errors_of_several_blobs_leave_as_the_first_one(session: Session) -> None:
    source = replace(member(FLAT), content=replace(hold("top", FLAT), blobs={}))
    with pytest.raises(SupplementedError) as caught:
        await copied(source, Sink(), session)
    assert isinstance(caught.value, BlobNotFoundError)
    assert any(note.startswith("another one failed as well: ") for note in notes(caught.value))

"""The rules of resolving, each by its id, and the answers of the Go package.

Rule ids are those of the specification (X: the source itself). What has no id is a decision
of the design.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from asupplemented import errors
from asupplemented.errors import (
    DigestMismatchError,
    ImageNotFoundError,
    InstanceNotFoundError,
    InvalidDigestError,
    MalformedManifestError,
    ManifestNotFoundError,
    NetworkError,
    PlatformNotFoundError,
    SupplementedError,
    UnsupportedDigestError,
)
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import DOCKER_MANIFEST
from asupplemented.model.platform import Platform
from asupplemented.supplemented.resolution import Missing
from asupplemented.supplemented.resolver import Resolver, Want, is_miss, is_unavailable
from tests.oracle_data import OracleCase, case_files, load_case
from tests.resolving import drive, resolve
from tests.serial_model import Request, World, resolve_serially
from tests.strategies import group, image, index, named

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.abc import RawManifest
    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.resolver import MissingPolicy, Outcome, UnavailablePolicy


def test_X02_the_top_comes_first_and_each_default_is_remembered() -> None:
    resolver = resolve(group([index("T", "A"), image("A")], [image("S")]))
    assert resolver.commits[0] == (0, named("T"))
    assert resolver.defaults == {0: named("T"), 1: named("S")}
    assert resolver.committed[named("T")].parent is None
    assert resolver.committed[named("A")].parent == named("T")


def test_X04_an_image_registers_its_config_and_every_layer() -> None:
    resolver = resolve(group([image("A", "u", "v", "u", config="c")]))
    assert resolver.blobs == dict.fromkeys(map(named, "cuv"), named("A"))
    contribution = resolver.committed[named("A")]
    assert [blob.digest for blob in contribution.blobs] == [named(name) for name in "cuvu"]
    assert contribution.instances is None


def test_X04_an_empty_config_digest_is_skipped() -> None:
    assert resolve(group([image("A", "u", config="")])).blobs == {named("u"): named("A")}


def test_X04_a_list_registers_its_digest_and_no_blobs() -> None:
    resolver = resolve(group([index("T", "A"), image("A", config="c")]))
    assert resolver.sources == {named("T"): 0, named("A"): 0}
    assert resolver.blobs == {named("c"): named("A")}
    assert resolver.committed[named("T")].blobs == ()
    entries = resolver.committed[named("T")].instances
    assert entries is not None
    assert [entry.digest for entry in entries] == [named("A")]


def test_X04_a_malformed_digest_raises_at_its_commit() -> None:
    for broken in (index("T", "A", "sha256:abc"), image("T", "sha256:abc")):
        resolver = resolve(group([broken, image("A")]))
        assert type(resolver.failure) is InvalidDigestError
        assert (resolver.failure.member, resolver.failure.digest) == (0, named("T"))


def test_X04_an_unknown_algorithm_is_refused_only_where_it_is_chosen() -> None:
    foreign = "md5:" + "0" * 32
    world = group([index("T", "A", foreign), image("A")])
    assert isinstance(resolve(world).failure, UnsupportedDigestError)
    assert resolve(world, Request(SpecificImages([named("A")]))).failure is None


def test_X04_a_malformed_digest_in_a_list_raises_even_where_it_is_not_chosen() -> None:
    world = group([index("T", "A", "sha256:abc"), image("A")])
    resolver = resolve(world, Request(SpecificImages([named("A")])))
    assert type(resolver.failure) is InvalidDigestError


def test_X05_all_takes_every_instance_of_every_list() -> None:
    world = group([index("T", "K", "A"), index("K", "B"), image("A"), image("B")])
    assert set(resolve(world).sources) == set(map(named, "TKAB"))


def test_X05_system_chooses_from_each_list() -> None:
    platforms = ("linux/amd64", "linux/arm64")
    world = group(
        [index("T", "A", "B", platforms=platforms), image("A"), image("B")],
        [index("K", "C", "L", platforms=platforms), image("C"), image("D"), image("E")],
    )
    world.instances[1, named("L")] = index("L", "D", "E", platforms=platforms)
    resolver = resolve(world, Request(SystemImage(Platform("linux", "arm64"))))
    assert list(resolver.sources) == [named(name) for name in "TKLEB"]


def test_X05_specific_takes_from_each_list_what_that_list_names() -> None:
    world = group([index("T", "A", "B"), image("A"), image("B")], [index("K", "B"), image("B")])
    resolver = resolve(world, Request(SpecificImages([named("A"), named("B")])))
    assert resolver.failure is None
    assert resolver.sources == {named("T"): 0, named("K"): 1, named("B"): 1, named("A"): 0}


def test_X05_a_nested_list_is_read_only_if_it_is_requested() -> None:
    world = group([index("T", "K"), index("K", "A"), image("A")])
    alone = resolve(world, Request(SpecificImages([named("A")])))
    assert isinstance(alone.failure, InstanceNotFoundError)
    both = resolve(world, Request(SpecificImages([named("A"), named("K")])))
    assert list(both.sources) == [named("T"), named("K"), named("A")]


def test_X05_an_empty_request_reads_the_defaults_only() -> None:
    world = group([index("T", "A")], [index("K", "A")], [image("S")])
    resolver = resolve(world, Request(SpecificImages([])))
    assert resolver.sources == {named("T"): 0, named("K"): 1, named("S"): 2}


def test_X05b_requested_digests_found_nowhere_raise_together() -> None:
    world = group([index("T", "A", "B"), image("A"), image("B")])
    asked = SpecificImages(map(named, "CAD"))
    policies: tuple[MissingPolicy, ...] = ("raise", "fallback")
    for missing in policies:
        failure = resolve(world, Request(asked, missing)).failure
        assert type(failure) is InstanceNotFoundError
        assert failure.digests == (named("C"), named("D"))
        assert named("C") in str(failure)
        assert named("D") in str(failure)


def test_X05b_requested_digests_found_nowhere_are_recorded_under_skip() -> None:
    world = group([index("T", "A", "B"), image("A")])
    asked = SpecificImages(map(named, "CAB"))
    resolver = resolve(world, Request(asked, "skip"))
    assert resolver.failure is None
    assert resolver.missing == [Missing(0, named("B")), Missing(None, named("C"))]


def test_X06_later_supplements_go_first_each_list_reversed_and_the_top_last() -> None:
    world = group(
        [index("T", *"ABCD"), *map(image, "ABCD")],
        [index("K", *"AB"), *map(image, "AB")],
        [index("L", *"BC"), *map(image, "BC")],
    )
    run = drive(world, Request())
    assert run.fed[3:] == [(2, named("C")), (2, named("B")), (1, named("A")), (0, named("D"))]


def test_X06_a_list_within_the_top_goes_to_the_back_and_within_a_supplement_to_the_front() -> None:
    world = group(
        [index("T", "M", "A"), index("M", "B"), image("A"), image("B")],
        [index("K", "C", "L", "D"), index("L", "E", "F"), *map(image, "CDEF")],
    )
    run = drive(world, Request())
    names = [want.digest for want in run.fed[2:]]
    assert names == [named(name) for name in "DLFECMAB"]


def test_X06_an_instance_that_was_read_is_not_read_again() -> None:
    world = group([index("T", "A", "A", "S"), image("A")], [image("S")])
    run = drive(world, Request())
    assert run.fed == [(0, None), (1, None), (0, named("A"))]


def test_X06_a_default_is_always_read_and_a_list_never_takes_it_back() -> None:
    world = group([index("T", "A"), image("A", "u")], [index("K", "A"), image("A", "u")])
    world.defaults[2] = image("A", "u")
    resolver = resolve(world)
    assert resolver.sources[named("A")] == 2
    assert resolver.alternates(named("A")) == (1, 0)


def test_X07_a_missing_instance_raises_and_names_its_member() -> None:
    world = group([image("T")], [index("K", "A", "B"), image("B")])
    failure = resolve(world).failure
    assert failure is world.instances[1, named("A")]
    assert failure is not None
    assert (failure.member, failure.digest) == (1, named("A"))


def test_X07_specific_instances_that_are_there_are_enough() -> None:
    world = group([index("T", "A", "B"), image("A")])
    assert resolve(world, Request(SpecificImages([named("A")]))).failure is None


def test_X07_a_sparse_top_is_served_by_its_supplements() -> None:
    world = group([index("T", *"ABC")], [image("A")], [index("K", *"BC"), *map(image, "BC")])
    resolver = resolve(world)
    assert resolver.failure is None
    assert resolver.sources == dict(zip(map(named, "TAKCB"), (0, 1, 2, 2, 2), strict=True))
    assert resolver.alternates(named("A")) == (0,)


def test_X08_the_last_commit_that_names_a_blob_wins() -> None:
    world = group([index("T", "A", "B"), image("A", "u"), image("B", "u")], [image("S", "u", "v")])
    resolver = resolve(world)
    assert resolver.blobs[named("u")] == named("B")
    assert resolver.blobs[named("v")] == named("S")


def test_X14_a_default_takes_its_digest_over_from_an_earlier_member() -> None:
    taken = image("A", "u", kind=DOCKER_MANIFEST)
    resolver = resolve(group([image("A", "u")], [image("B", "u")], [taken]))
    assert resolver.sources == {named("A"): 2, named("B"): 1}
    assert resolver.committed[named("A")].media_type == DOCKER_MANIFEST, "as its new member says"
    assert list(resolver.sources) == [named("A"), named("B")]
    assert resolver.blobs[named("u")] == named("A")
    assert resolver.defaults == {0: named("A"), 1: named("B"), 2: named("A")}
    assert resolver.commits == [(0, named("A")), (1, named("B")), (2, named("A"))]
    assert resolver.alternates(named("A")) == (0,)


def test_X16_a_supplemental_list_without_the_platform_fails_and_an_image_does_not() -> None:
    wanted = Request(SystemImage(Platform("linux", "amd64")))
    top = [index("T", "A", platforms=["linux/amd64"]), image("A")]
    lacking = index("K", "B", platforms=["linux/arm64"])
    resolver = resolve(group(top, [lacking, image("B")]), wanted)
    assert isinstance(resolver.failure, PlatformNotFoundError)
    assert (resolver.failure.member, resolver.failure.digest) == (1, named("K"))
    assert resolve(group(top, [image("B")]), wanted).failure is None


@pytest.mark.parametrize("missing", ["fallback", "skip"])
def test_X16_a_platform_that_no_list_offers_is_no_miss(missing: MissingPolicy) -> None:
    world = group([index("T", "A")], [image("S")])
    world.instances[0, named("A")] = PlatformNotFoundError("of a nested group")
    assert resolve(world, Request(missing=missing)).failure is world.instances[0, named("A")]


# Misses


def test_missing_fallback_serves_the_digest_at_the_place_of_the_other_entry() -> None:
    world = group(
        [index("T", *"BA"), *map(image, "BA")],
        [index("K", *"AB"), image("B")],
    )
    run = drive(world, Request(missing="fallback"))
    assert run.fed[2:] == [(1, named("B")), (1, named("A")), (0, named("A"))]
    assert run.resolver.failure is None
    assert run.resolver.sources == {named("T"): 0, named("K"): 1, named("B"): 1, named("A"): 0}
    assert run.resolver.missing == []
    assert run.resolver.alternates(named("A")) == ()


def test_missing_fallback_raises_the_first_unserved_in_the_end() -> None:
    world = group([index("T", *"ABC"), *map(image, "AC")], [index("K", *"DBA")])
    run = drive(world, Request(missing="fallback"))
    assert run.fed[-1] == (0, named("C")), "it goes on to the end first"
    assert run.resolver.failure is world.instances[1, named("B")]


def test_missing_skip_records_what_no_member_supplied() -> None:
    world = group([index("T", *"ABC"), image("A")], [index("K", *"BC"), image("C")])
    resolver = resolve(world, Request(missing="skip"))
    assert resolver.failure is None
    assert resolver.missing == [Missing(1, named("B")), Missing(0, named("B"))]
    assert named("B") not in resolver.sources


def test_a_member_that_missed_is_not_asked_again() -> None:
    world = group([image("T")], [index("K", "A", "L", "A"), index("L", "A")])
    run = drive(world, Request(missing="skip"))
    assert run.fed == [(0, None), (1, None), (1, named("A")), (1, named("L"))]
    assert run.resolver.missing == [(1, named("A"))]


def test_a_miss_is_forgotten_when_a_later_list_of_another_member_serves_it() -> None:
    world = group(
        [index("T", "K"), index("K", "A"), image("A")],
        [index("L", "A")],
    )
    resolver = resolve(world, Request(missing="fallback"))
    assert resolver.failure is None
    assert resolver.sources[named("A")] == 0


@pytest.mark.parametrize("error", [DigestMismatchError, MalformedManifestError, NetworkError])
@pytest.mark.parametrize("missing", ["raise", "fallback", "skip"])
def test_what_is_no_miss_raises(missing: MissingPolicy, error: type[SupplementedError]) -> None:
    world = group([index("T", "A", "B"), image("B")])
    world.instances[0, named("A")] = error("no")
    assert resolve(world, Request(missing=missing)).failure is world.instances[0, named("A")]


# Failures


def test_the_failure_is_the_first_in_serial_order_not_in_time() -> None:
    first, second = NetworkError("first"), NetworkError("second")
    resolver = Resolver([0], AllImages())
    resolver.feed(Want(0, None), index("T", "A", "B", "C"))
    resolver.feed(Want(0, named("C")), second)
    assert resolver.failure is None
    resolver.feed(Want(0, named("B")), first)
    assert resolver.failure is None
    resolver.feed(Want(0, named("A")), image("A"))
    assert resolver.failure is first
    assert resolver.done


def test_a_failure_that_serial_order_never_meets_is_dropped() -> None:
    resolver = Resolver([0, 1], AllImages())
    resolver.feed(Want(0, None), image("T"))
    resolver.feed(Want(1, None), index("K", "A", "L"))
    resolver.feed(Want(1, named("A")), image("A"))
    resolver.feed(Want(1, named("B")), NetworkError("never met"))
    resolver.feed(Want(1, named("L")), index("L", "A"))
    assert resolver.done
    assert resolver.failure is None


def test_after_the_end_nothing_is_taken() -> None:
    resolver = Resolver([0, 1], AllImages())
    broken = NetworkError("broken")
    resolver.feed(Want(0, None), broken)
    resolver.feed(Want(1, None), image("S"))
    assert resolver.failure is broken
    assert resolver.sources == {}
    assert resolver.wants(9) == []


def test_an_error_of_a_nested_group_has_the_number_of_the_outermost_member() -> None:
    error = ManifestNotFoundError("of a nested group", member=3, digest=named("Z"))
    world = group([index("T", "A")])
    world.instances[0, named("A")] = error
    assert drive(world, Request()).resolver.failure is error
    assert (error.member, error.digest) == (0, named("Z"))


# Unavailable members, class by class

MISS = {
    "BlobNotFoundError",
    "ImageNotFoundError",
    "InstanceNotFoundError",
    "ManifestNotFoundError",
    "NameUnknownError",
    "NotFoundError",
}
UNAVAILABLE = MISS | {
    "PermissionDeniedError",
    "ForbiddenError",
    "NetworkError",
    "ServerError",
    "SlotTimeoutError",
    "SourceTimeoutError",
    "TooManyRequestsError",
    "TruncatedError",
    "UnauthorizedError",
}
EVERY_ERROR: list[type[SupplementedError]] = [
    getattr(errors, name) for name in errors.__all__ if name != "excerpt"
]


def test_what_is_a_miss_and_what_is_unavailable() -> None:
    assert {error.__name__ for error in EVERY_ERROR if is_miss(error("x"))} == MISS
    assert {error.__name__ for error in EVERY_ERROR if is_unavailable(error("x"))} == UNAVAILABLE


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("member", [0, 1])
def test_a_member_that_cannot_be_opened(policy: UnavailablePolicy, member: int) -> None:
    for error in EVERY_ERROR:
        world = group([image("T")], [image("S")], [image("U")])
        world.defaults[member] = broken = error("x")
        resolver = resolve(world, Request(unavailable=policy))
        if member == 1 and policy == "skip" and error.__name__ in UNAVAILABLE:
            assert resolver.failure is None
            assert resolver.unavailable == {1: broken}
            assert resolver.defaults == {0: named("T"), 2: named("U")}
        else:
            assert resolver.failure is broken
            assert (broken.member, broken.digest) == (member, None)


@pytest.mark.parametrize("unavailable", ["raise", "skip"])
@pytest.mark.parametrize("missing", ["raise", "skip"])
@pytest.mark.parametrize("member", [0, 1])
def test_an_instance_that_cannot_be_read(
    unavailable: UnavailablePolicy, missing: MissingPolicy, member: int
) -> None:
    tolerated: set[str] = set() if missing == "raise" else MISS
    if missing == "skip" and unavailable == "skip" and member == 1:
        tolerated = UNAVAILABLE
    digest = named("AB"[member])
    for error in EVERY_ERROR:
        world = group([index("T", "A")], [index("K", "B")])
        world.instances[0, named("A")] = image("A")
        world.instances[1, named("B")] = image("B")
        world.instances[member, digest] = broken = error("x")
        resolver = resolve(world, Request(missing=missing, unavailable=unavailable))
        if error.__name__ in tolerated:
            assert resolver.missing == [(member, digest)]
        else:
            assert resolver.failure is broken


# The answers of the Go package


def as_world(case: OracleCase) -> World:
    world = World({})
    for source in case.sources:
        if source.same_as is not None:
            continue
        contents = source.contents
        if contents is None or contents.default is None:
            world.defaults[source.number] = ImageNotFoundError("nothing here")
            continue
        world.defaults[source.number] = verified(contents.manifests[contents.default], None)
        for digest, stored in contents.manifests.items():
            world.instances[source.number, digest] = verified(stored, digest)
    return world


def verified(stored: RawManifest, digest: Digest | None) -> Outcome:
    try:
        return Manifest.verified(stored.raw, stored.media_type, digest)
    except SupplementedError as error:
        return error


def as_request(case: OracleCase) -> Request:
    asked = case.request
    match asked.multiple:
        case "all":
            return Request(AllImages())
        case "system":
            return Request(SystemImage(Platform(asked.os, asked.architecture, asked.variant)))
        case _:
            return Request(SpecificImages(case.requested()))


@pytest.mark.parametrize("lookahead", [0, 1, 4, 64])
@pytest.mark.parametrize("path", case_files(), ids=lambda path: path.stem)
def test_oracle(path: Path, lookahead: int) -> None:
    case = load_case(path)
    world, asked = as_world(case), as_request(case)
    assert resolve_serially(world, asked).failure is None or not case.expected.ok
    run = drive(world, asked, lookahead, order=random.Random(case.name))
    resolver = run.resolver
    assert (resolver.failure is None) is case.expected.ok, resolver.failure
    if not case.expected.ok or case.outcome_only:
        return
    assert resolver.sources == case.expected_sources()
    assert resolver.blobs == case.expected_blobs()
    defaults = [resolver.defaults.get(source.number) for source in case.sources]
    assert defaults == case.expected_defaults()
    if lookahead == 0:
        assert tuple(spell(case, want) for want in run.fed) == case.expected.reads


def spell(case: OracleCase, want: Want) -> str:
    return f"s{want.member} {'default' if want.digest is None else case.names[want.digest]}"

"""Rules LI, CI and X-05: indexes, and which of their entries are selected."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import (
    InstanceNotFoundError,
    InvalidDigestError,
    InvalidPlatformError,
    PlatformNotFoundError,
    UsageError,
)
from asupplemented.model import media_type as kinds
from asupplemented.model.digest import Digest
from asupplemented.model.index import (
    ZSTD_ANNOTATION,
    AllImages,
    Index,
    Selection,
    SpecificImages,
    SystemImage,
    choose,
)
from asupplemented.model.manifest import Manifest
from asupplemented.model.platform import Platform
from tests.model.documents import Tree, digest_of, docker_list, entry, oci_index, to_json

if TYPE_CHECKING:
    from collections.abc import Callable


def parse(tree: Tree) -> Index:
    return Manifest.verified(to_json(tree), None, None).parse_index()


def zstd(name: str, platform: str | None = None, value: str = "true") -> Tree:
    return entry(name, platform, annotations={ZSTD_ANNOTATION: value})


def chosen(index: Index, platform: str, *, prefer_gzip: bool = False) -> str:
    """Which entry is chosen, by its digest; the platform is taken literally."""
    system, architecture, variant, *_ = [*platform.split("/"), None]
    wanted = Platform(str(system), str(architecture), variant)
    return index.choose(wanted, prefer_gzip=prefer_gzip).digest


def test_LI01_entries_are_in_document_order_and_kept_twice() -> None:
    index = parse(oci_index(entry("b"), entry("a"), entry("b")))
    assert [each.digest for each in index.manifests] == [*map(digest_of, "bab")]


def test_LI02_the_first_entry_with_a_digest() -> None:
    first = entry("a", "linux/amd64", annotations={"k": "v"}, artifactType="x/y")
    index = parse(oci_index(entry("b"), first, entry("a", "linux/arm64")))
    for _ in range(2):
        found = index.find(digest_of("a"))
        assert found.to_dict() == first
    with pytest.raises(InstanceNotFoundError, match=digest_of("c")) as caught:
        index.find(digest_of("c"))
    assert caught.value.digests == (digest_of("c"),)
    with pytest.raises(InstanceNotFoundError):
        parse(oci_index(manifests=[])).find(digest_of("a"))


@pytest.mark.parametrize(
    ("value", "expected"), [("true", "zstd"), ("True", "gzip"), ("1", "gzip"), ("", "gzip")]
)
def test_LI03_compression_names(value: str, expected: str) -> None:
    index = parse(oci_index(zstd("a", value=value)))
    assert index.compression_names(index.manifests[0]) == (expected,)
    docker = parse(docker_list(zstd("a", value=value)))
    assert docker.compression_names(docker.manifests[0]) == ("gzip",)


def test_LI04_features_of_docker_platforms_are_dropped() -> None:
    tree = docker_list(
        {**entry("a"), "platform": {"os": "linux", "architecture": "386", "features": ["sse4"]}}
    )
    assert parse(tree).manifests[0].platform == Platform("linux", "386")


def test_P10_lists_are_hardly_checked() -> None:
    tree: Tree = {"mediaType": kinds.DOCKER_LIST, "schemaVersion": 9, "manifests": [{}]}
    assert len(parse(tree).manifests) == 1
    nameless = Manifest.verified(b"{}", kinds.DOCKER_LIST, None).parse_index()
    assert (nameless.media_type, nameless.manifests) == (kinds.DOCKER_LIST, ())


def test_AR05_AR06_what_an_index_says_of_itself() -> None:
    subject = entry("subject")
    index = parse(oci_index(annotations={"k": "v"}, artifactType="a/b", subject=subject))
    assert (index.annotations, index.artifact_type) == ({"k": "v"}, "a/b")
    assert index.subject is not None
    assert index.subject.digest == digest_of("subject")
    assert digest_of("subject") not in [each.digest for each in index.manifests]


def test_an_index_is_a_value() -> None:
    index, again = parse(oci_index()), parse(oci_index())
    again.find(again.manifests[0].digest)
    assert index == again
    assert hash(index) == hash(again)


# ---------------------------------------------------------------------------------- choosing

VARIANTS = (
    entry("gz-amd64", "linux/amd64"),
    entry("eee", "linux/arm/v7"),
    entry("ddd", "linux/arm/v6"),
    zstd("f36", "linux/arm/v6"),
    entry("bcf", "linux/arm/unrecognized-present"),
    entry("c84", "linux/arm"),
)


@pytest.mark.parametrize(
    ("platform", "prefer_gzip", "expected"),
    [
        pytest.param("linux/arm/v7", False, "eee", id="CI-08 v7"),
        pytest.param("linux/arm/v8", False, "eee", id="CI-08 WP-06 v8"),
        pytest.param("linux/arm/v6", False, "f36", id="CI-05 CI-08 v6"),
        pytest.param("linux/arm/v6", True, "ddd", id="CI-05 CI-08 CI-10 v6 gzip"),
        pytest.param("linux/arm/v5", False, "c84", id="CI-08 v5"),
        pytest.param("linux/arm", False, "c84", id="CI-08 WP-07 none"),
        pytest.param("linux/arm/unrecognized-present", False, "bcf", id="CI-08 custom"),
        pytest.param("linux/arm/unrecognized-not-present", False, "c84", id="CI-08 WP-06 unknown"),
        pytest.param("linux/amd64", False, "gz-amd64", id="CI-08 amd64"),
        pytest.param("linux/amd64/v3", False, "gz-amd64", id="WP-06 amd64 variant"),
    ],
)
def test_CI02_CI08_the_best_variant_wins(
    platform: str, *, prefer_gzip: bool, expected: str
) -> None:
    index = parse(oci_index(*VARIANTS))
    assert chosen(index, platform, prefer_gzip=prefer_gzip) == digest_of(expected)


@pytest.mark.parametrize("prefer_gzip", [False, True])
def test_CI01_CI05_a_docker_list_knows_no_zstd_and_takes_the_first(*, prefer_gzip: bool) -> None:
    index = parse(docker_list(*VARIANTS))
    assert chosen(index, "linux/arm/v6", prefer_gzip=prefer_gzip) == digest_of("ddd")
    assert chosen(index, "linux/arm/v7", prefer_gzip=prefer_gzip) == digest_of("eee")


def test_CI06_compression_breaks_ties_only() -> None:
    index = parse(oci_index(zstd("v6", "linux/arm/v6"), entry("v7", "linux/arm/v7")))
    assert chosen(index, "linux/arm/v7") == digest_of("v7")
    index = parse(oci_index(entry("v6", "linux/arm/v6"), zstd("v7", "linux/arm/v7")))
    assert chosen(index, "linux/arm/v7", prefer_gzip=True) == digest_of("v7")


@pytest.mark.parametrize("make", [oci_index, docker_list])
def test_CI01_CI02_of_equals_the_first_wins(make: object) -> None:
    assert callable(make)
    index = parse(make(entry("a", "linux/386"), entry("b", "linux/386")))
    assert chosen(index, "linux/386") == digest_of("a")


@pytest.mark.parametrize(
    ("prefer_gzip", "expected"), [(False, "nowhere-zstd"), (True, "nowhere-gzip")]
)
def test_CI03_CI04_CI09_entries_without_a_platform_come_last(
    *, prefer_gzip: bool, expected: str
) -> None:
    index = parse(
        oci_index(
            entry("nowhere-gzip"),
            zstd("nowhere-zstd"),
            entry("nowhere-second"),
            entry("here", "linux/amd64"),
        )
    )
    assert chosen(index, "linux/s390x", prefer_gzip=prefer_gzip) == digest_of(expected)
    assert chosen(index, "linux/amd64", prefer_gzip=prefer_gzip) == digest_of("here")


def test_CI03_LI04_a_docker_list_has_no_such_fallback() -> None:
    index = parse(docker_list(entry("a")))
    with pytest.raises(PlatformNotFoundError):
        index.choose(Platform("linux", "amd64"))


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [
        pytest.param("linux/amd64/v2", "linux/amd64", id="WP-09 a labelled amd64"),
        pytest.param("linux/arm/v8", "linux/arm/v7", id="WP-09 a newer variant"),
        pytest.param("windows/amd64", "linux/amd64", id="WP-09 another system"),
        pytest.param("unknown/unknown", "linux/amd64", id="AR-08 an attestation"),
        pytest.param("linux/arm", "linux/arm64", id="WP-09 another architecture"),
    ],
)
def test_WP09_a_match_is_exact(offered: str, wanted: str) -> None:
    for make, name in ((oci_index, "image index"), (docker_list, "manifest list")):
        index = parse(make(entry("a", offered), entry("b", offered)))
        with pytest.raises(PlatformNotFoundError, match=f"no image found in {name}") as caught:
            chosen(index, wanted)
        assert caught.value.available == (offered,)


ALIASES = [
    *[(f"linux/{machine}", "linux/amd64") for machine in ("x86_64", "x86-64", "AMD64", "X86_64")],
    *[(f"linux/{machine}/v8", "linux/arm64/v8") for machine in ("aarch64", "AArch64", "ARM64")],
    ("linux/arm64/8", "linux/arm64/v8"),
    ("linux/armhf", "linux/arm/v7"),
    ("linux/arm/V7", "linux/arm/v7"),
    ("linux/armel", "linux/arm/v6"),
    ("linux/i686", "linux/386"),
    ("Linux/loongarch64", "linux/loong64"),
    ("macOS/aarch64", "darwin/arm64"),
]


@pytest.mark.parametrize("make", [oci_index, docker_list])
@pytest.mark.parametrize(("odd", "plain"), ALIASES)
def test_WP09_platforms_are_compared_in_go_words_on_both_sides(
    odd: str, plain: str, make: Callable[..., Tree]
) -> None:
    for offered, wanted in ((odd, plain), (plain, odd), (odd, odd)):
        index = parse(make(entry("a", offered)))
        names = wanted.split("/")
        assert index.choose(Platform(*names)).digest == digest_of("a")
        assert chosen(index, wanted) == digest_of("a")


def on_windows(name: str, version: str | None, *features: str) -> Tree:
    platform: Tree = {"os": "windows", "architecture": "amd64", "os.features": list(features)}
    if version is not None:
        platform["os.version"] = version
    return {**entry(name), "platform": platform}


@pytest.mark.parametrize(
    ("version", "features", "expected"),
    [
        pytest.param(None, (), "new", id="neither wanted"),
        pytest.param("10.0.17763.2300", (), "old", id="equal"),
        pytest.param("10.0.17763.9", (), "older", id="another revision: the first of the build"),
        pytest.param("10.0.17764.2300", (), None, id="another build"),
        pytest.param("10.0", (), None, id="fewer numbers"),
        pytest.param(None, ("win32k",), "featured", id="a feature"),
        pytest.param("10.0.20348.1", ("win32k",), "featured", id="both"),
        pytest.param("10.0.17763.2300", ("win32k",), None, id="both, in no entry"),
        pytest.param(None, ("other",), None, id="a feature that no entry has"),
    ],
)
def test_CI02_version_and_features_count_where_they_are_wanted(
    version: str | None, features: tuple[str, ...], expected: str | None
) -> None:
    entries = (
        on_windows("new", "10.0.20348.350"),
        on_windows("older", "10.0.17763.1"),
        on_windows("old", "10.0.17763.2300"),
        on_windows("silent", None),
        on_windows("featured", "10.0.20348.9", "win32k", "more"),
    )
    wanted = Platform("windows", "amd64", None, version, features)
    for make in (oci_index, docker_list):
        index = parse(make(*entries))
        if expected is None:
            with pytest.raises(PlatformNotFoundError):
                index.choose(wanted)
        else:
            assert index.choose(wanted).digest == digest_of(expected)


def test_an_empty_variant_is_none() -> None:
    named = {"os": "linux", "architecture": "amd64", "variant": ""}
    index = parse(oci_index({**entry("a"), "platform": named}))
    assert chosen(index, "linux/amd64") == digest_of("a")
    assert index.choose(Platform("linux", "amd64", "")).digest == digest_of("a")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("linux/arm/v6", "architecture 'arm', variant 'v6', OS 'linux'"),
        ("linux/arm", "architecture 'arm', variant '', OS 'linux'"),
    ],
)
def test_CI07_the_error_names_the_first_platform_wanted(wanted: str, words: str) -> None:
    for tree in (oci_index(entry("a", "linux/amd64")), oci_index(manifests=[])):
        with pytest.raises(PlatformNotFoundError, match=words):
            chosen(parse(tree), wanted)


def test_the_platform_of_this_host_is_the_default() -> None:
    host = Platform.host()
    index = parse(oci_index(entry("other", "plan9/mips"), entry("mine", str(host))))
    assert index.choose(None).digest == digest_of("mine")


def test_finding_and_choosing_are_linear() -> None:
    entries = [entry(f"{number}", "linux/arm/v5") for number in range(5_000)]
    index = parse(oci_index(*entries))
    began = time.process_time()
    for each in index.manifests:
        assert index.find(each.digest) is each
    assert chosen(index, "linux/arm/v7") == digest_of("0")
    assert time.process_time() - began < 2


TREE = oci_index(
    entry("a", "linux/amd64"),
    entry("b", "linux/arm64"),
    entry("a", "linux/amd64"),
    entry("c", "linux/amd64", annotations={ZSTD_ANNOTATION: "true"}),
    {**entry("d"), "digest": "garbage"},
)


@pytest.fixture(scope="module")
def index() -> Index:
    return Manifest.verified(to_json(TREE), None, None).parse_index()


def names(selection: Selection, index: Index) -> list[str]:
    known = {digest_of(name): name for name in "abc"}
    return [known.get(Digest(each.digest), "?") for each in choose(selection, index)]


def test_X05_all_takes_every_entry_in_order(index: Index) -> None:
    assert choose(AllImages(), index) == index.manifests


def test_X05_system_takes_the_one_that_fits(index: Index) -> None:
    amd64 = Platform("linux", "amd64")
    assert names(SystemImage(amd64), index) == ["c"]
    assert names(SystemImage(amd64, prefer_gzip=True), index) == ["a"]
    with pytest.raises(PlatformNotFoundError):
        choose(SystemImage(Platform("linux", "s390x")), Index(index.media_type, ()))


def test_X05_X05b_specific_takes_what_this_list_names(index: Index) -> None:
    assert names(SpecificImages(map(digest_of, "bxa")), index) == ["a", "b", "a"]
    assert names(SpecificImages([digest_of("x")]), index) == []
    assert names(SpecificImages([]), index) == []


def test_specific_images_keep_their_order_each_once() -> None:
    texts = [str(digest_of(name)) for name in "baab"]
    selection = SpecificImages(texts)
    texts.clear()
    assert selection.digests == (digest_of("b"), digest_of("a"))
    assert all(type(digest) is Digest for digest in selection.digests)
    assert SpecificImages([Digest.of(b"", "sha512")]).digests[0].algorithm == "sha512"


def test_X00_what_is_no_digest_is_refused_at_once() -> None:
    with pytest.raises(InvalidDigestError):
        SpecificImages(["sha256:../x"])
    with pytest.raises(UsageError, match="list"):
        SpecificImages(str(digest_of("a")))


def test_selections_are_values() -> None:
    same: list[tuple[Selection, Selection]] = [
        (AllImages(), AllImages()),
        (SystemImage(Platform("a", "b")), SystemImage(Platform("a", "b"))),
        (SpecificImages([digest_of("a")]), SpecificImages([str(digest_of("a"))])),
    ]
    for left, right in same:
        assert left == right
        assert hash(left) == hash(right)
    assert SystemImage() != SystemImage(prefer_gzip=True)
    assert len({AllImages(), SystemImage(), SpecificImages([])}) == 3


def test_a_system_image_takes_its_platform_as_text() -> None:
    assert SystemImage("linux/arm/v7") == SystemImage(Platform("linux", "arm", "v7"))
    assert hash(SystemImage("linux/arm/v7")) == hash(SystemImage(Platform("linux", "arm", "v7")))
    with pytest.raises(InvalidPlatformError):
        SystemImage("linux")

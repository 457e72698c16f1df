"""Selections, and rule X-05: what they take from one index."""

from __future__ import annotations

import pytest

from asupplemented.errors import (
    InvalidDigestError,
    InvalidPlatformError,
    PlatformNotFoundError,
    UsageError,
)
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
from tests.model.documents import digest_of, entry, oci_index, to_json

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

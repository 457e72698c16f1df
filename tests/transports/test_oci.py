from __future__ import annotations

import errno
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import Batched, LocalFile, Named, Signed, WritableReference
from asupplemented.errors import (
    AmbiguousManifestError,
    BlobNotFoundError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidDigestError,
    InvalidReferenceError,
    LayoutError,
    LimitExceededError,
    MalformedManifestError,
    ManifestNotFoundError,
    PermissionDeniedError,
    SizeMismatchError,
    SourceError,
    SupplementedError,
    UnsupportedManifestError,
)
from asupplemented.events import Warned
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    OCI_INDEX,
    OCI_MANIFEST,
)
from asupplemented.oci_layout import LayoutIndex
from asupplemented.session import Session
from asupplemented.testing import build_image, build_index
from asupplemented.transports import parse_reference
from asupplemented.transports.oci import LayoutReference, LayoutSource, choose_entry
from tests.candidates import drain
from tests.transports.contract import (
    AMD64,
    ARM64,
    CONTENTS,
    INDEX,
    SMALL,
    SMALL_DIGEST,
    AdapterContract,
    World,
)
from tests.transports.places import DiskWorld, failing_open, failure_of, open_files
from tests.worlds import REF_NAME, Contents, write_index, write_layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asupplemented.events import Event

SCHEMA1 = json.dumps(
    {
        "schemaVersion": 1,
        "name": "x/o",
        "tag": "t",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": SMALL_DIGEST}],
        "history": [{"v1Compatibility": json.dumps({"id": "0" * 64})}],
    }
).encode()


class TestLayout(AdapterContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        yield DiskWorld(tmp_path, write_layout)
        assert open_files(tmp_path) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A layout with one image, without a name."""
    write_layout(tmp_path / "app", CONTENTS)
    return tmp_path / "app"


def entry(built: object = INDEX, **changes: object) -> dict[str, object]:
    """An entry of ``index.json``."""
    assert isinstance(built, type(INDEX) | type(ARM64))
    plain = {"mediaType": built.media_type, "digest": built.digest, "size": len(built.raw)}
    return {**plain, **changes}


def named(name: str, built: object = INDEX, **changes: object) -> dict[str, object]:
    return entry(built, annotations={REF_NAME: name}, **changes)


async def default_of(reference: LayoutReference | str, session: Session) -> bytes:
    if isinstance(reference, str):
        reference = LayoutReference.parse(reference)
    async with reference.open(session) as source:
        return (await source.get_manifest()).raw


# References


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("/x", LayoutReference("/x")),
        ("/x:", LayoutReference("/x")),
        ("/x:1.0", LayoutReference("/x", "1.0")),
        ("dir:quay.io/x:1", LayoutReference("dir", "quay.io/x:1")),
        ("/x:a@b", LayoutReference("/x", "a@b")),
        ("/x:a--b", LayoutReference("/x", "a--b")),
        ("/x:a+b_c-d.e", LayoutReference("/x", "a+b_c-d.e")),
        ("/x:notlatest@1", LayoutReference("/x", "notlatest@1")),
        ("/x y:1", LayoutReference("/x y", "1")),
    ],
)
def test_OC01_the_first_colon_parts_path_and_image(rest: str, expected: LayoutReference) -> None:
    assert LayoutReference.parse(rest) == expected


@pytest.mark.parametrize(
    "image",
    ["a b", "/a", "a/", "a//b", ".a", "a.", "a---b", "a..b", "ä", "a:", ":", "a\n", "-", "a/@b"],
)
def test_OC01_an_image_name_has_a_grammar(image: str) -> None:
    with pytest.raises(InvalidReferenceError, match="invalid image name"):
        LayoutReference.parse(f"/x:{image}")


def test_OC01_the_grammar_is_linear() -> None:
    with pytest.raises(InvalidReferenceError):
        LayoutReference.parse("/x:" + "a-" * 30_000 + "!")


@pytest.mark.parametrize(("rest", "index"), [("/x:@0", 0), ("/x:@17", 17), ("/x:@007", 7)])
def test_OC02_a_number_is_a_position_in_the_index(rest: str, index: int) -> None:
    reference = LayoutReference.parse(rest)
    assert (reference.image, reference.index) == (None, index)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("number", ["@", "@-1", "@+1", "@1.0", "@x", "@1 ", "@1:2", "@" + "9" * 99])
def test_OC02_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(InvalidReferenceError, match="invalid source index"):
        LayoutReference.parse(f"/x:{number}")


@pytest.mark.parametrize(
    "options",
    [
        {"path": "a:b"},
        {"path": ""},
        {"path": "a\0"},
        {"path": "/x", "image": ""},
        {"path": "/x", "index": -1},
        {"path": "/x", "image": "a", "index": 0},
        {"path": "/x", "shared_blob_dir": ""},
    ],
)
def test_OC02_what_text_cannot_say_the_constructor_refuses(options: dict[str, object]) -> None:
    with pytest.raises(InvalidReferenceError):
        LayoutReference(**options)  # type: ignore[arg-type]


def test_equality_is_lexical() -> None:
    assert LayoutReference("/x") != LayoutReference("/x/")
    assert LayoutReference("/x", "a") != LayoutReference("/x", "b")
    assert LayoutReference("/x") != LayoutReference("/x", index=0)
    assert LayoutReference("/x") != LayoutReference("/x", shared_blob_dir="/y")
    assert len({LayoutReference("/x", "a"), LayoutReference.parse("/x:a")}) == 1


def test_a_layout_reference_can_be_copied_to() -> None:
    assert isinstance(LayoutReference("/x"), WritableReference)


# Looking an image up


async def test_OC03_a_missing_layout_names_path_and_remedy(
    tmp_path: Path, session: Session
) -> None:
    for place in ("nowhere", "."):
        reference = LayoutReference(str(tmp_path / place))
        error = await failure_of(reference, session, ImageNotFoundError)
        assert str(tmp_path) in str(error)
        assert "index.json" in str(error)
        assert "copy" in str(error)


async def test_OC03_a_file_in_place_of_the_layout(tmp_path: Path, session: Session) -> None:
    (tmp_path / "file").write_text("x")
    await failure_of(LayoutReference(str(tmp_path / "file")), session, LayoutError)


async def test_OC03_without_the_layout_file_it_works_with_a_warning(path: Path) -> None:
    (path / "oci-layout").unlink()
    events: list[Event] = []
    async with Session(hooks=[events.append]) as session:
        assert await default_of(f"{path}", session) == INDEX.raw
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert warning.reference == f"oci:{path}"
    assert "oci-layout" in warning.message


async def test_OC03_a_whole_layout_warns_of_nothing(path: Path) -> None:
    events: list[Event] = []
    async with Session(hooks=[events.append]) as session:
        await default_of(f"{path}", session)
    assert not [event for event in events if isinstance(event, Warned)]


def choose(reference: str, *entries: Descriptor) -> Descriptor:
    return choose_entry(LayoutIndex(manifests=entries), LayoutReference.parse(reference))


def listed(
    digest: str, media_type: str | None = OCI_MANIFEST, name: str | None = None
) -> Descriptor:
    annotations = {} if name is None else {REF_NAME: name}
    return Descriptor(media_type=media_type, digest=digest, annotations=annotations)


@pytest.mark.parametrize("kind", [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST])
def test_OC04_the_first_entry_of_the_name_and_a_readable_type(kind: str) -> None:
    entries = [
        listed("a", kind),
        listed("b", kind, "repo:1.0"),
        listed("c", "text/plain", "1.0"),
        listed("d", kind, "1.0"),
        listed("e", kind, "1.0"),
    ]
    assert choose("/x:1.0", *entries).digest == "d"
    assert choose("/x:repo:1.0", *entries).digest == "b"


def test_OC04_the_whole_name_has_to_match() -> None:
    with pytest.raises(ImageNotFoundError, match=r"no image 1\.0 .* 'repo:1\.0'"):
        choose("/x:1.0", listed("a", name="repo:1.0"), listed("b"))


def test_OC04_a_name_with_unreadable_types_only() -> None:
    entries = [
        listed("a", "text/plain", "x"),
        listed("b", DOCKER_SCHEMA1, "x"),
        listed("c", None, "x"),
    ]
    with pytest.raises(UnsupportedManifestError, match=r"text/plain.*manifest\.v1.*none"):
        choose("/x:x", *entries)


def test_OC04_an_absent_name_lists_a_few_of_those_there() -> None:
    entries = [listed(f"d{n}", name=f"name{n}") for n in range(1000)]
    with pytest.raises(ImageNotFoundError, match="'name9' and 990 more") as caught:
        choose("/x:y", *entries)
    assert len(str(caught.value)) < 400


def test_OC05_a_sole_entry_needs_no_name_and_may_have_any_type() -> None:
    assert choose("/x", listed("a", "text/plain", "some")).digest == "a"


def test_OC05_no_entry_is_no_image() -> None:
    with pytest.raises(ImageNotFoundError, match="holds no image"):
        choose("/x")


def test_OC05_several_entries_need_a_choice() -> None:
    with pytest.raises(InvalidReferenceError, match=r"more than one image.*'one'.*:@0 to :@1"):
        choose("/x", listed("a", name="one"), listed("b"))


def test_OC02_a_number_chooses_by_position() -> None:
    entries = [listed("a"), listed("b", "text/plain")]
    assert choose("/x:@1", *entries).digest == "b"
    with pytest.raises(ImageNotFoundError, match="index 2 is too large, only 2 entries"):
        choose("/x:@2", *entries)


async def test_OC04_OC05_on_disk(path: Path, session: Session) -> None:
    entries = [named("index"), named("arm", ARM64), entry(AMD64), named("twice", ARM64)]
    write_index(path, [*entries, named("twice", AMD64)])
    assert await default_of(f"{path}:index", session) == INDEX.raw
    assert await default_of(f"{path}:arm", session) == ARM64.raw
    assert await default_of(f"{path}:twice", session) == ARM64.raw
    assert await default_of(f"{path}:@2", session) == AMD64.raw
    await failure_of(LayoutReference(str(path)), session, InvalidReferenceError)
    await failure_of(LayoutReference(str(path), "gone"), session, ImageNotFoundError)
    await failure_of(LayoutReference(str(path), index=5), session, ImageNotFoundError)


# Manifests


async def test_OC06_the_type_comes_from_the_index_of_the_layout_else_from_the_bytes(
    path: Path, session: Session
) -> None:
    untyped = json.loads(ARM64.raw)
    del untyped["mediaType"]
    raw = json.dumps(untyped).encode()
    digest = Digest.of(raw)
    (path / "blobs" / "sha256" / digest.encoded).write_bytes(raw)
    listing = {"mediaType": DOCKER_MANIFEST, "digest": digest, "size": len(raw)}
    write_index(path, [named("app"), listing, {**listing, "mediaType": OCI_INDEX}])
    async with LayoutReference(str(path), "app").open(session) as source:
        assert (await source.get_manifest(digest)).media_type == DOCKER_MANIFEST
        [batched] = await source.get_manifests([digest])
        assert not isinstance(batched, SupplementedError)
        assert batched.media_type == DOCKER_MANIFEST
        assert (await source.get_manifest(ARM64.digest)).media_type == OCI_MANIFEST
    write_index(path, [named("app")])
    async with LayoutReference(str(path), "app").open(session) as source:
        assert (await source.get_manifest(digest)).media_type == OCI_MANIFEST


async def test_OC06_an_entry_that_contradicts_the_manifest_is_ambiguous(
    path: Path, session: Session
) -> None:
    write_index(path, [entry(ARM64, mediaType=OCI_INDEX)])
    await failure_of(LayoutReference(str(path)), session, AmbiguousManifestError)


async def test_OC07_the_default_manifest_has_the_digest_of_its_entry(
    path: Path, session: Session
) -> None:
    (path / "blobs" / "sha256" / INDEX.digest.encoded).write_bytes(ARM64.raw.ljust(len(INDEX.raw)))
    error = await failure_of(LayoutReference(str(path)), session, DigestMismatchError)
    assert error.digest == INDEX.digest


@pytest.mark.parametrize("off", [-1, 1])
async def test_OC07_the_default_manifest_has_the_size_of_its_entry(
    path: Path, session: Session, off: int
) -> None:
    write_index(path, [entry(size=len(INDEX.raw) + off)])
    await failure_of(LayoutReference(str(path)), session, SizeMismatchError)


async def test_OC07_an_entry_need_not_tell_the_size(path: Path, session: Session) -> None:
    write_index(path, [{"mediaType": INDEX.media_type, "digest": INDEX.digest}])
    assert await default_of(f"{path}", session) == INDEX.raw


@pytest.mark.parametrize("kind", [DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, None])
async def test_schema_1_has_no_place_in_a_layout(
    path: Path, session: Session, kind: str | None
) -> None:
    digest = Digest.of(SCHEMA1)
    (path / "blobs" / "sha256" / digest.encoded).write_bytes(SCHEMA1)
    listing: dict[str, object] = {"digest": digest, "size": len(SCHEMA1)}
    write_index(path, [listing if kind is None else {**listing, "mediaType": kind}])
    error = await failure_of(LayoutReference(str(path)), session, UnsupportedManifestError)
    assert "schema 1" in str(error)
    write_index(path, [entry()])
    async with LayoutReference(str(path)).open(session) as source:
        with pytest.raises(UnsupportedManifestError, match="schema 1"):
            await source.get_manifest(digest)
        [outcome] = await source.get_manifests([digest])
        assert isinstance(outcome, UnsupportedManifestError)


async def test_schema_1_behind_an_escape_is_found_too(path: Path, session: Session) -> None:
    raw = SCHEMA1.replace(b"fsLayers", b"fs\\u004cayers")
    digest = Digest.of(raw)
    (path / "blobs" / "sha256" / digest.encoded).write_bytes(raw)
    async with LayoutReference(str(path)).open(session) as source:
        with pytest.raises(UnsupportedManifestError, match="schema 1"):
            await source.get_manifest(digest)


async def test_OC11_a_nested_index_and_holes(path: Path, session: Session) -> None:
    outer = build_index([INDEX, build_image("linux/riscv64")])
    write_layout(path, Contents.of(outer, omit={ARM64.digest, SMALL_DIGEST}))
    async with LayoutReference(str(path)).open(session) as source:
        assert (await source.get_manifest()).raw == outer.raw
        assert (await source.get_manifest(INDEX.digest)).raw == INDEX.raw
        assert (await source.get_manifest(AMD64.digest)).raw == AMD64.raw


async def test_OC11_holes_are_misses(tmp_path: Path, session: Session) -> None:
    reference = write_layout(tmp_path, Contents.of(INDEX, omit={ARM64.digest, SMALL_DIGEST}))
    async with parse_reference(reference).open(session) as source:
        with pytest.raises(ManifestNotFoundError):
            await source.get_manifest(ARM64.digest)
        with pytest.raises(BlobNotFoundError):
            await drain(source.open_blob(SMALL_DIGEST))


async def test_OC11_a_default_manifest_that_is_not_there(path: Path, session: Session) -> None:
    (path / "blobs" / "sha256" / INDEX.digest.encoded).unlink()
    error = await failure_of(LayoutReference(str(path)), session, ManifestNotFoundError)
    assert error.digest == INDEX.digest


# Blobs


async def test_OC08_urls_are_never_followed(path: Path, session: Session) -> None:
    url = ("http://127.0.0.1:9/never",)
    blob = Descriptor(digest=SMALL_DIGEST, size=len(SMALL), urls=url)
    gone = Descriptor(digest=Digest.of(b"gone"), size=4, urls=url)
    async with LayoutReference(str(path)).open(session) as source:
        assert await drain(source.open_blob(blob)) == SMALL
        with pytest.raises(BlobNotFoundError):
            await drain(source.open_blob(gone))


async def test_OC09_blobs_and_manifests_in_a_shared_directory(
    tmp_path: Path, session: Session
) -> None:
    write_layout(tmp_path / "app", CONTENTS, shared=tmp_path / "shared")
    await failure_of(LayoutReference(str(tmp_path / "app")), session, ManifestNotFoundError)
    reference = LayoutReference(str(tmp_path / "app"), shared_blob_dir=str(tmp_path / "shared"))
    async with reference.open(session) as source:
        assert (await source.get_manifest()).raw == INDEX.raw
        assert (await source.get_manifest(ARM64.digest)).raw == ARM64.raw
        assert await drain(source.open_blob(SMALL_DIGEST)) == SMALL


async def test_OC10_symbolic_links_are_followed_unless_told_otherwise(
    path: Path, tmp_path: Path, session: Session
) -> None:
    for name in (SMALL_DIGEST.encoded, ARM64.digest.encoded):
        file = path / "blobs" / "sha256" / name
        file.symlink_to(file.rename(tmp_path / name))
    async with LayoutReference(str(path)).open(session) as source:
        assert await drain(source.open_blob(SMALL_DIGEST)) == SMALL
        assert (await source.get_manifest(ARM64.digest)).raw == ARM64.raw
    async with LayoutReference(str(path), follow_symlinks=False).open(session) as source:
        with pytest.raises(LayoutError):
            await drain(source.open_blob(SMALL_DIGEST))
        with pytest.raises(LayoutError):
            await source.get_manifest(ARM64.digest)


async def test_OC12_a_layout_holds_no_signatures(path: Path, session: Session) -> None:
    async with LayoutReference(str(path)).open(session) as source:
        assert await source.get_signatures() == ()
    adapter = await LayoutSource.find(LayoutReference(str(path)), session)
    assert isinstance(adapter, Batched)
    assert isinstance(adapter, LocalFile)
    assert isinstance(adapter, Named)
    assert not isinstance(adapter, Signed)


# Hostile content


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../etc/passwd",
        "../../etc:passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 64 + "\n",
        "md5:" + "0" * 32,
        "",
        "/etc/passwd",
    ],
)
async def test_D04_a_digest_never_becomes_a_path_unchecked(
    path: Path, session: Session, digest: str
) -> None:
    write_index(path, [entry(digest=digest)])
    await failure_of(LayoutReference(str(path)), session, InvalidDigestError)
    write_index(path, [entry()])
    async with LayoutReference(str(path)).open(session) as source:
        with pytest.raises(InvalidDigestError):
            await source.get_manifest(digest)
        with pytest.raises(InvalidDigestError):
            source.open_blob(digest)
        with pytest.raises(InvalidDigestError):
            source.open_blob(Descriptor(digest=digest))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
async def test_DI07_what_is_no_regular_file_is_refused_without_waiting(
    path: Path, session: Session, make: object
) -> None:
    assert callable(make)
    for name in (SMALL_DIGEST.encoded, ARM64.digest.encoded):
        file = path / "blobs" / "sha256" / name
        file.unlink()
        make(file)
    async with LayoutReference(str(path)).open(session) as source:
        with pytest.raises(LayoutError):
            await drain(source.open_blob(SMALL_DIGEST))
        with pytest.raises(LayoutError):
            await source.get_manifest(ARM64.digest)
    (path / "index.json").unlink()
    make(path / "index.json")
    await failure_of(LayoutReference(str(path)), session, LayoutError)


async def test_DI07_a_device_is_no_blob(path: Path, session: Session) -> None:
    file = path / "blobs" / "sha256" / SMALL_DIGEST.encoded
    file.unlink()
    file.symlink_to("/dev/zero")
    async with LayoutReference(str(path)).open(session) as source:
        with pytest.raises(LayoutError):
            await drain(source.open_blob(SMALL_DIGEST))


@pytest.mark.parametrize("size", [MAX_MANIFEST + 1, 5 * 1024 * 1024])
async def test_L03_an_index_file_has_a_cap(path: Path, session: Session, size: int) -> None:
    raw = (path / "index.json").read_bytes()
    (path / "index.json").write_bytes(raw.ljust(MAX_MANIFEST))
    assert await default_of(f"{path}", session) == INDEX.raw
    (path / "index.json").write_bytes(raw.ljust(size))
    error = await failure_of(LayoutReference(str(path)), session, LimitExceededError)
    assert str(MAX_MANIFEST) in str(error)


async def test_J08_what_follows_the_index_is_ignored(path: Path, session: Session) -> None:
    raw = (path / "index.json").read_bytes()
    for garbage in (b"garbage", b'{"manifests":[]}', b"\0\xff", b"]]}}"):
        (path / "index.json").write_bytes(b" \n" + raw + garbage)
        assert await default_of(f"{path}", session) == INDEX.raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        b"[]",
        b'"text"',
        b"\xff\xfe{\0}\0",
        b'{"manifests":[',
        b'{"manifests":{}}',
        b'{"manifests":[1]}',
        b'{"manifests":[{"digest":1}]}',
        b'{"manifests":[{"size":"1"}]}',
        b'{"manifests":[],"manifests":[]}',
        b'{"MANIFESTS":[]}',
        b'{"manifests":[{"annotations":{"a":1}}]}',
        b'{"schemaVersion":"2"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
async def test_J_an_index_file_that_is_none_is_refused(
    path: Path, session: Session, raw: bytes
) -> None:
    (path / "index.json").write_bytes(raw)
    error = await failure_of(LayoutReference(str(path)), session, MalformedManifestError)
    assert str(path / "index.json") in str(error)
    assert len(str(error)) < 500


async def test_J09_a_null_is_an_empty_index(path: Path, session: Session) -> None:
    (path / "index.json").write_bytes(b"null")
    await failure_of(LayoutReference(str(path)), session, ImageNotFoundError)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
async def test_a_layout_without_permission(path: Path, session: Session, code: int) -> None:
    with failing_open(path / "index.json", code):
        error = await failure_of(LayoutReference(str(path)), session, PermissionDeniedError)
    assert isinstance(error, PermissionError)
    assert "permissions" in str(error)
    with failing_open(path / "blobs", code):
        await failure_of(LayoutReference(str(path)), session, PermissionDeniedError)


async def test_a_disk_that_fails_is_a_source_error(path: Path, session: Session) -> None:
    async with LayoutReference(str(path)).open(session) as source:
        with failing_open(path / "blobs", errno.EIO):
            with pytest.raises(SourceError, match="Input/output error") as caught:
                await source.get_manifest(ARM64.digest)
            assert caught.value.digest == ARM64.digest
            [outcome] = await source.get_manifests([ARM64.digest])
            assert isinstance(outcome, SourceError)
            with pytest.raises(SourceError):
                await drain(source.open_blob(SMALL_DIGEST))
        assert await drain(source.open_blob(SMALL_DIGEST)) == SMALL


async def test_reading_happens_off_the_event_loop(
    path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    real = os.open

    def spy(*args: object, **kwargs: object) -> int:
        threads.add(threading.current_thread().name)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", spy)
    async with LayoutReference(str(path)).open(session) as source:
        await source.get_manifests([ARM64.digest, AMD64.digest])
        await drain(source.open_blob(SMALL_DIGEST))
    assert threads
    assert threading.main_thread().name not in threads

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import Batched, LocalFile, Named, Signed, WritableReference
from asupplemented.errors import (
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
    SupplementedError,
    UnsupportedManifestError,
)
from asupplemented.limits import MAX_MANIFEST, MAX_SIGNATURE, MAX_SIGNATURES
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import DOCKER_SCHEMA1, OCI_MANIFEST
from asupplemented.model.signature import Signature
from asupplemented.transports import parse_reference
from asupplemented.transports.directory import DirectoryReference, DirectorySource, read_version
from tests.candidates import drain
from tests.transports.contract import (
    AMD64,
    ARM64,
    CONTENTS,
    INDEX,
    LONG,
    SMALL,
    SMALL_DIGEST,
    AdapterContract,
    World,
)
from tests.transports.places import DiskWorld, failing_open, failure_of, open_files
from tests.transports.test_oci import SCHEMA1
from tests.worlds import plain, write_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asupplemented.session import Session

OPENPGP = Signature("simple-signing", b"\xa3 an OpenPGP message")
SIGSTORE = Signature("sigstore-json", b'{"payload":"x"}')


class TestDirectory(AdapterContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        yield DiskWorld(tmp_path, write_directory)
        assert open_files(tmp_path) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_directory(tmp_path / "app", CONTENTS)
    return tmp_path / "app"


# References


@pytest.mark.parametrize("rest", ["/x", "x", "/x:1.0", ":", "a:@1", "/x y", "/x/", "ä", "-"])
def test_DI01_any_path_is_a_reference(rest: str) -> None:
    reference = DirectoryReference.parse(rest)
    assert reference.path == rest
    assert str(reference) == f"dir:{rest}"
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("rest", ["", "a\0b", "\udc80\ud800"])
def test_DI01_what_is_no_path_is_no_reference(rest: str) -> None:
    with pytest.raises(InvalidReferenceError):
        DirectoryReference.parse(rest)


def test_equality_is_lexical() -> None:
    assert DirectoryReference("/x") == DirectoryReference("/x")
    assert DirectoryReference("/x") != DirectoryReference("/x/")
    assert DirectoryReference("/x") != DirectoryReference("/x", follow_symlinks=False)
    assert isinstance(DirectoryReference("/x"), WritableReference)


# Files


async def test_DI01_the_files_of_an_image(path: Path, session: Session) -> None:
    assert (path / "manifest.json").read_bytes() == INDEX.raw
    assert (path / f"{ARM64.digest.encoded}.manifest.json").read_bytes() == ARM64.raw
    assert (path / SMALL_DIGEST.encoded).read_bytes() == SMALL
    async with DirectoryReference(str(path)).open(session) as source:
        assert (await source.get_manifest()).raw == INDEX.raw
        assert (await source.get_manifest(ARM64.digest)).raw == ARM64.raw
        assert await drain(source.open_blob(SMALL_DIGEST)) == SMALL
        with pytest.raises(ManifestNotFoundError):  # A blob is no instance, nor is the default.
            await source.get_manifest(SMALL_DIGEST)
        with pytest.raises(ManifestNotFoundError):
            await source.get_manifest(INDEX.digest)


async def test_DI02_other_algorithms_are_spelled_with_their_name_or_by_older_tools_without(
    path: Path, session: Session
) -> None:
    [config, *_] = LONG.blobs
    assert (path / f"sha512-{LONG.digest.encoded}.manifest.json").exists()
    assert (path / f"sha512-{config.encoded}").exists()
    for _ in range(2):
        async with DirectoryReference(str(path)).open(session) as source:
            assert (await source.get_manifest(LONG.digest)).raw == LONG.raw
            assert await drain(source.open_blob(config)) == LONG.blobs[config]
            assert await source.get_signatures(LONG.digest) == ()
        for file in path.glob("sha512-*"):
            file.rename(path / file.name.removeprefix("sha512-"))
    assert not list(path.glob("sha512-*"))


async def test_DI02_the_spelling_with_the_algorithm_comes_first(
    path: Path, session: Session
) -> None:
    (path / f"{LONG.digest.encoded}.manifest.json").write_bytes(b"something else")
    async with DirectoryReference(str(path)).open(session) as source:
        assert (await source.get_manifest(LONG.digest)).raw == LONG.raw


async def test_DI02_a_hole_is_told_by_the_spelling_with_the_algorithm(
    path: Path, session: Session
) -> None:
    absent = Digest.of(b"absent", "sha512")
    async with DirectoryReference(str(path)).open(session) as source:
        with pytest.raises(ManifestNotFoundError, match=f"/sha512-{absent.encoded}"):
            await source.get_manifest(absent)
        with pytest.raises(BlobNotFoundError, match=f"/sha512-{absent.encoded}"):
            await drain(source.open_blob(absent))


async def test_DI02_sha256_never_has_a_prefix(path: Path, session: Session) -> None:
    file = path / SMALL_DIGEST.encoded
    file.rename(path / f"sha256-{SMALL_DIGEST.encoded}")
    async with DirectoryReference(str(path)).open(session) as source:
        with pytest.raises(BlobNotFoundError):
            await drain(source.open_blob(SMALL_DIGEST))


@pytest.mark.parametrize(
    ("text", "version"),
    [("0.9", (0, 9)), ("1.0", (1, 0)), ("1.1", (1, 1)), ("1.2", (1, 2)), ("0.10", (0, 10))],
)
async def test_DI03_known_versions(
    path: Path, session: Session, text: str, version: tuple[int, int]
) -> None:
    (path / "version").write_text(f"Directory Transport Version: {text}\n")
    assert read_version(str(path)) == version
    async with DirectoryReference(str(path)).open(session) as source:
        assert (await source.get_manifest()).raw == INDEX.raw


async def test_DI03_the_version_may_be_absent(path: Path, session: Session) -> None:
    (path / "version").unlink()
    assert read_version(str(path)) is None
    async with DirectoryReference(str(path)).open(session) as source:
        assert (await source.get_manifest()).raw == INDEX.raw


@pytest.mark.parametrize("text", ["1.3", "2.0", "10.0", "1.10", "999999999.999999999"])
async def test_DI03_newer_versions_are_refused(path: Path, session: Session, text: str) -> None:
    (path / "version").write_text(f"Directory Transport Version: {text}\n")
    error = await failure_of(DirectoryReference(str(path)), session, LayoutError)
    assert f"unsupported version {text}" in str(error)
    assert str(path) in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1.1\n",
        b"Directory Transport Version: 1.1",
        b"Directory Transport Version: 1.1\n\n",
        b"Directory Transport Version: 1\n",
        b"Directory Transport Version: 1.\n",
        b"Directory Transport Version: -1.1\n",
        b"Directory Transport Version: 1.1.1\n",
        b"directory transport version: 1.1\n",
        b" Directory Transport Version: 1.1\n",
        "Directory Transport Version: \u0661.\u0661\n".encode(),
        b"Directory Transport Version: 1.1\n" + b"x" * 1_000_000,
    ],
)
async def test_DI03_malformed_versions_are_refused(
    path: Path, session: Session, content: bytes
) -> None:
    (path / "version").write_bytes(content)
    error = await failure_of(DirectoryReference(str(path)), session, LayoutError)
    assert "invalid version file content" in str(error)
    assert len(str(error)) < 500


async def test_DI04_the_type_is_guessed(path: Path, session: Session) -> None:
    adapter = await DirectorySource.find(DirectoryReference(str(path)), session)
    assert (await adapter.fetch_manifest(None)).media_type is None
    async with DirectoryReference(str(path)).open(session) as source:
        assert (await source.get_manifest(ARM64.digest)).media_type == OCI_MANIFEST


async def test_DI04_schema_1_is_read_from_a_directory(path: Path, session: Session) -> None:
    (path / "manifest.json").write_bytes(SCHEMA1)
    async with DirectoryReference(str(path)).open(session) as source:
        manifest = await source.get_manifest()
        assert (manifest.raw, manifest.media_type) == (SCHEMA1, DOCKER_SCHEMA1)


async def test_a_missing_directory_names_path_and_remedy(tmp_path: Path, session: Session) -> None:
    error = await failure_of(
        DirectoryReference(str(tmp_path / "nowhere")), session, ImageNotFoundError
    )
    assert str(tmp_path / "nowhere") in str(error)
    assert "copy" in str(error)


async def test_a_directory_without_an_image(tmp_path: Path, session: Session) -> None:
    error = await failure_of(DirectoryReference(str(tmp_path)), session, ImageNotFoundError)
    assert "manifest.json" in str(error)
    assert "copy" in str(error)


async def test_a_file_in_place_of_the_directory(tmp_path: Path, session: Session) -> None:
    (tmp_path / "file").write_text("x")
    await failure_of(DirectoryReference(str(tmp_path / "file")), session, LayoutError)
    await failure_of(DirectoryReference(str(tmp_path / "file" / "below")), session, LayoutError)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", MalformedManifestError),
        (b"garbage", MalformedManifestError),
        (b'{"schemaVersion":3}', UnsupportedManifestError),
        (INDEX.raw.ljust(5 * 1024 * 1024), LimitExceededError),
    ],
    ids=["empty", "garbage", "unknown", "5 MiB"],
)
async def test_a_default_manifest_that_is_none(
    path: Path, session: Session, raw: bytes, kind: type[SupplementedError]
) -> None:
    (path / "manifest.json").write_bytes(raw)
    await failure_of(DirectoryReference(str(path)), session, kind)


# Signatures


async def test_DI04_SR12_signatures_are_read_until_one_is_missing(
    path: Path, session: Session
) -> None:
    (path / "signature-1").write_bytes(OPENPGP.data)
    (path / "signature-2").write_bytes(b"\0sigstore-json\n" + SIGSTORE.data)
    (path / "signature-4").write_bytes(OPENPGP.data)
    prefix = ARM64.digest.encoded
    (path / f"{prefix}.signature-1").write_bytes(b"\0simple-signing\n" + OPENPGP.data)
    async with DirectoryReference(str(path)).open(session) as source:
        assert await source.get_signatures() == (OPENPGP, SIGSTORE)
        assert await source.get_signatures(ARM64.digest) == (OPENPGP,)
        assert await source.get_signatures(AMD64.digest) == ()


async def test_DI02_signatures_in_either_spelling(path: Path, session: Session) -> None:
    (path / f"{plain(LONG.digest)}.signature-1").write_bytes(OPENPGP.data)
    (path / f"{LONG.digest.encoded}.signature-2").write_bytes(SIGSTORE.to_blob())
    async with DirectoryReference(str(path)).open(session) as source:
        assert await source.get_signatures(LONG.digest) == (OPENPGP, SIGSTORE)


@pytest.mark.parametrize("blob", [b"", b"\0", b"\0x\n", b"\0\xff\n", b"text", b"\0sigstore-json"])
async def test_SR12_a_bad_signature_names_its_file(
    path: Path, session: Session, blob: bytes
) -> None:
    (path / "signature-1").write_bytes(OPENPGP.data)
    (path / "signature-2").write_bytes(blob)
    async with DirectoryReference(str(path)).open(session) as source:
        with pytest.raises(LayoutError, match=r"/signature-2: ") as caught:
            await source.get_signatures()
        assert caught.value.reference == f"dir:{path}"


async def test_L03_signatures_have_a_cap_each_and_together(path: Path, session: Session) -> None:
    half = OPENPGP.data.ljust(MAX_SIGNATURE // 2)
    async with DirectoryReference(str(path)).open(session) as source:
        (path / "signature-1").write_bytes(OPENPGP.data.ljust(MAX_SIGNATURE))
        [whole] = await source.get_signatures()
        assert len(whole.data) == MAX_SIGNATURE
        (path / "signature-1").write_bytes(OPENPGP.data.ljust(MAX_SIGNATURE + 1))
        with pytest.raises(LimitExceededError):
            await source.get_signatures()
        for number in (1, 2):
            (path / f"signature-{number}").write_bytes(half)
        assert len(await source.get_signatures()) == 2
        (path / "signature-3").write_bytes(OPENPGP.data)
        with pytest.raises(LimitExceededError, match=str(MAX_SIGNATURE)):
            await source.get_signatures()


async def test_L03_signatures_are_counted(path: Path, session: Session) -> None:
    async with DirectoryReference(str(path)).open(session) as source:
        for number in range(1, MAX_SIGNATURES + 1):
            (path / f"signature-{number}").write_bytes(OPENPGP.data)
        assert len(await source.get_signatures()) == MAX_SIGNATURES
        (path / f"signature-{MAX_SIGNATURES + 1}").write_bytes(OPENPGP.data)
        with pytest.raises(LimitExceededError, match=f"more than {MAX_SIGNATURES} signatures"):
            await source.get_signatures()


async def test_SR05_a_directory_shows_what_it_can(path: Path, session: Session) -> None:
    adapter = await DirectorySource.find(DirectoryReference(str(path)), session)
    assert isinstance(adapter, Batched)
    assert isinstance(adapter, LocalFile)
    assert isinstance(adapter, Signed)
    assert not isinstance(adapter, Named)


# Hostile content


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../etc/passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
        "",
        "version",
    ],
)
async def test_D04_DI08_a_digest_never_becomes_a_path_unchecked(
    path: Path, session: Session, digest: str
) -> None:
    async with DirectoryReference(str(path)).open(session) as source:
        with pytest.raises(InvalidDigestError):
            await source.get_manifest(digest)
        with pytest.raises(InvalidDigestError):
            await source.get_signatures(digest)
        with pytest.raises(InvalidDigestError):
            source.open_blob(Descriptor(digest=digest))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
async def test_DI07_what_is_no_regular_file_is_refused_without_waiting(
    path: Path, session: Session, make: object
) -> None:
    assert callable(make)
    make(path / "signature-1")
    for name in (SMALL_DIGEST.encoded, f"{ARM64.digest.encoded}.manifest.json"):
        (path / name).unlink()
        make(path / name)
    async with DirectoryReference(str(path)).open(session) as source:
        with pytest.raises(LayoutError):
            await drain(source.open_blob(SMALL_DIGEST))
        with pytest.raises(LayoutError):
            await source.get_manifest(ARM64.digest)
        with pytest.raises(LayoutError):
            await source.get_signatures()
    for name in ("manifest.json", "version"):
        (path / name).unlink()
        make(path / name)
        await failure_of(DirectoryReference(str(path)), session, LayoutError)


async def test_DI07_symbolic_links_are_followed_unless_told_otherwise(
    path: Path, tmp_path: Path, session: Session
) -> None:
    for name in (SMALL_DIGEST.encoded, f"{ARM64.digest.encoded}.manifest.json"):
        (path / name).symlink_to((path / name).rename(tmp_path / name))
    (path / "manifest.json").rename(path / "other.json")
    (path / "manifest.json").symlink_to("other.json")
    async with DirectoryReference(str(path)).open(session) as source:
        assert await drain(source.open_blob(SMALL_DIGEST)) == SMALL
        assert (await source.get_manifest(ARM64.digest)).raw == ARM64.raw
    strict = DirectoryReference(str(path), follow_symlinks=False)
    with pytest.raises(LayoutError):
        await strict.open(session)
    (path / "manifest.json").unlink()
    (path / "manifest.json").write_bytes(INDEX.raw)
    async with strict.open(session) as source:
        with pytest.raises(LayoutError):
            await drain(source.open_blob(SMALL_DIGEST))
        with pytest.raises(LayoutError):
            await source.get_manifest(ARM64.digest)


@pytest.mark.parametrize("name", ["manifest.json", "version", "signature-1"])
async def test_DI07_what_no_digest_names_is_not_read_behind_a_link_out_of_the_image(
    path: Path, tmp_path: Path, session: Session, name: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the password is swordfish")
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(secret)
    with pytest.raises(LayoutError, match="a symbolic link leads out of the image") as caught:
        async with DirectoryReference(str(path)).open(session) as source:
            await source.get_signatures()
    assert "swordfish" not in str(caught.value)


async def test_DI04_the_content_of_an_instance_is_checked(path: Path, session: Session) -> None:
    (path / f"{ARM64.digest.encoded}.manifest.json").write_bytes(AMD64.raw)
    async with DirectoryReference(str(path)).open(session) as source:
        with pytest.raises(DigestMismatchError):
            await source.get_manifest(ARM64.digest)


async def test_a_directory_without_permission(path: Path, session: Session) -> None:
    with failing_open(path / "manifest.json", errno.EACCES):
        await failure_of(DirectoryReference(str(path)), session, PermissionDeniedError)
    with failing_open(path / "version", errno.EACCES):
        await failure_of(DirectoryReference(str(path)), session, PermissionDeniedError)


async def test_L03_a_manifest_of_the_largest_size(path: Path, session: Session) -> None:
    (path / "manifest.json").write_bytes(INDEX.raw.ljust(MAX_MANIFEST))
    async with DirectoryReference(str(path)).open(session) as source:
        assert (await source.get_manifest()).digest == Digest.of(INDEX.raw.ljust(MAX_MANIFEST))

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import Listing
from asupplemented.aio.atomic import PREFIX
from asupplemented.errors import (
    LayoutError,
    LimitExceededError,
    MalformedManifestError,
    UnsupportedOperationError,
)
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.media_type import DOCKER_LIST, DOCKER_MANIFEST
from asupplemented.model.platform import Platform
from asupplemented.model.signature import Signature
from asupplemented.session import Session
from asupplemented.testing import build_image, build_index, hold_in_memory
from asupplemented.transports.oci import LayoutReference
from tests.candidates import drain
from tests.transports.contract import (
    AMD64,
    ARM64,
    CONTENTS,
    INDEX,
    LONG,
    SMALL,
    SMALL_DIGEST,
)
from tests.transports.destination_contract import (
    DestinationContract,
    Place,
    failing,
    leftovers,
    put,
    write_image,
)
from tests.transports.places import tree, watching_the_disk
from tests.worlds import REF_NAME, manifest_of, read_index, write_layout

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.model.digest import Digest
    from asupplemented.session import Session


class LayoutPlace:
    def __init__(self, image: str | None) -> None:
        self.image = image

    def reference(self, path: Path) -> LayoutReference:
        return LayoutReference(str(path), self.image)

    def blob(self, path: Path, digest: Digest) -> Path:
        return path / "blobs" / digest.algorithm / digest.encoded


class TestLayoutDestination(DestinationContract):
    @pytest.fixture
    def place(self) -> Place:
        return LayoutPlace("team/app:1.4")


class TestNamelessLayoutDestination(DestinationContract):
    @pytest.fixture
    def place(self) -> Place:
        return LayoutPlace(None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


def names(path: Path) -> list[tuple[str, str | None]]:
    """Digest and name of each entry, in order."""
    return [(e["digest"], e.get("annotations", {}).get(REF_NAME)) for e in read_index(path)]


async def commit(path: Path, session: Session, built: object, image: str | None = None) -> None:
    assert isinstance(built, type(INDEX) | type(ARM64))
    async with LayoutReference(str(path), image).create(session) as destination:
        await destination.commit(manifest_of(built))


async def test_the_files_of_a_layout(path: Path, session: Session) -> None:
    async with (
        hold_in_memory("source", INDEX).open(session) as source,
        LayoutReference(str(path), "1.4").create(session) as destination,
    ):
        await write_image(destination, source)
    files = tree(path)
    assert json.loads(files.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(files.pop("index.json")) == {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": INDEX.media_type,
                "digest": INDEX.digest,
                "size": len(INDEX.raw),
                "annotations": {REF_NAME: "1.4"},
            }
        ],
    }
    raw = {digest: stored.raw for digest, stored in CONTENTS.manifests.items()}
    expected = {**raw, **CONTENTS.blobs}
    assert files == {f"blobs/{d.algorithm}/{d.encoded}": data for d, data in expected.items()}


async def test_modes_are_for_everyone_to_read(path: Path, session: Session) -> None:
    await commit(path, session, ARM64)
    assert {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()} == {0o644}
    assert {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_dir()} == {0o755}


async def test_OC02_a_number_is_no_destination(path: Path, session: Session) -> None:
    reference = LayoutReference(str(path), index=0)
    with pytest.raises(UnsupportedOperationError, match="give the image a name") as caught:
        await reference.create(session)
    assert caught.value.reference == str(reference)
    assert not path.exists()


async def test_OC12_a_name_moves_to_the_new_image(path: Path, session: Session) -> None:
    await commit(path, session, ARM64, "latest")
    await commit(path, session, AMD64, "1.0")
    await commit(path, session, INDEX, "latest")
    assert names(path) == [
        (ARM64.digest, None),
        (AMD64.digest, "1.0"),
        (INDEX.digest, "latest"),
    ]


async def test_OC12_the_other_annotations_of_a_renamed_entry_stay(
    path: Path, session: Session
) -> None:
    write_layout(path, CONTENTS, name="latest")
    document = json.loads((path / "index.json").read_bytes())
    document["manifests"][0]["annotations"]["mine"] = "kept"
    document["manifests"][0]["unknown"] = {"x": [1, 2.5, None]}
    document["annotations"] = {"of": "all"}
    (path / "index.json").write_text(json.dumps(document) + " trailing")
    await commit(path, session, ARM64, "latest")
    after = json.loads((path / "index.json").read_bytes())
    assert after["annotations"] == {"of": "all"}
    first, second = after["manifests"]
    assert first["annotations"] == {"mine": "kept"}
    assert first["unknown"] == {"x": [1, 2.5, None]}
    assert second["annotations"] == {REF_NAME: "latest"}


async def test_OC12_the_same_digest_without_a_name_is_replaced(
    path: Path, session: Session
) -> None:
    await commit(path, session, ARM64)
    await commit(path, session, AMD64, "keep")
    await commit(path, session, ARM64, "latest")
    assert names(path) == [(ARM64.digest, "latest"), (AMD64.digest, "keep")]
    await commit(path, session, ARM64, "latest")
    assert names(path) == [(ARM64.digest, "latest"), (AMD64.digest, "keep")]
    await commit(path, session, ARM64, "other")
    assert names(path)[2:] == [(ARM64.digest, "other")]


@pytest.mark.parametrize("kind", ["manifest", "list"])
async def test_OC12_docker_types_are_kept_verbatim(path: Path, session: Session, kind: str) -> None:
    image = build_image("linux/amd64", docker=True)
    built = image if kind == "manifest" else build_index([image], docker=True)
    await commit(path, session, built)
    [listed] = read_index(path)
    assert listed["mediaType"] == (DOCKER_MANIFEST if kind == "manifest" else DOCKER_LIST)
    async with LayoutReference(str(path)).open(session) as source:
        manifest = await source.get_manifest()
    assert (manifest.raw, manifest.media_type) == (built.raw, listed["mediaType"])


async def test_the_platform_of_the_top_is_listed(path: Path, session: Session) -> None:
    platform = Platform("linux", "arm64", "v8")
    async with LayoutReference(str(path)).create(session) as destination:
        await destination.commit(manifest_of(ARM64), platform=platform)
    [listed] = read_index(path)
    assert listed["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}


async def test_images_beside_a_named_one_are_listed_without_a_name(
    path: Path, session: Session
) -> None:
    await commit(path, session, AMD64, "amd")
    beside = [(manifest_of(AMD64), None), (manifest_of(LONG), Platform("linux", "s390x"))]
    async with LayoutReference(str(path), "app").create(session) as destination:
        assert isinstance(destination, Listing)
        assert destination.list_beside(beside) is True
        await destination.commit(manifest_of(ARM64))
    assert names(path) == [(AMD64.digest, "amd"), (ARM64.digest, "app"), (LONG.digest, None)]
    assert read_index(path)[2]["platform"] == {"os": "linux", "architecture": "s390x"}


async def test_nothing_is_listed_beside_an_image_without_a_name(
    path: Path, session: Session
) -> None:
    async with LayoutReference(str(path)).create(session) as destination:
        assert isinstance(destination, Listing)
        assert destination.list_beside([(manifest_of(LONG), None)]) is False
        await destination.commit(manifest_of(ARM64))
    assert names(path) == [(ARM64.digest, None)]


async def test_OC12_signatures_have_no_place(path: Path, session: Session) -> None:
    async with LayoutReference(str(path)).create(session) as destination:
        signature = Signature("simple-signing", b"\xa3")
        assert await destination.put_signatures([signature], None) is False
        assert await destination.put_signatures([signature], ARM64.digest) is False
    assert not path.exists()


async def test_OC09_blobs_in_a_shared_directory(
    tmp_path: Path, path: Path, session: Session
) -> None:
    reference = LayoutReference(
        str(path), "a", shared_blob_dir=str(tmp_path / "shared"), durable=False
    )
    async with hold_in_memory("source", INDEX).open(session) as source:
        async with reference.create(session) as destination:
            await write_image(destination, source)
        assert sorted(tree(path)) == ["index.json", "oci-layout"]
        assert (tmp_path / "shared" / "sha256" / SMALL_DIGEST.encoded).read_bytes() == SMALL
        other = LayoutReference(str(tmp_path / "two"), shared_blob_dir=str(tmp_path / "shared"))
        for place in ("two", "shared"):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / f"{PREFIX}dead").write_text("half")
        async with other.create(session) as destination:
            assert leftovers(tmp_path) == []
            assert await write_image(destination, source) == []
    async with other.open(session) as image:
        assert await drain(image.open_blob(SMALL_DIGEST)) == SMALL


async def test_OC10_a_blob_behind_a_link_counts_unless_told_otherwise(
    tmp_path: Path, path: Path, session: Session
) -> None:
    write_layout(path, CONTENTS)
    file = path / "blobs" / "sha256" / SMALL_DIGEST.encoded
    file.symlink_to(file.rename(tmp_path / "elsewhere"))
    small = Descriptor(digest=SMALL_DIGEST, size=len(SMALL))
    async with LayoutReference(str(path)).create(session) as destination:
        assert await destination.has_blob(small) is True
    async with LayoutReference(str(path), follow_symlinks=False).create(session) as destination:
        assert await destination.has_blob(small) is False
        async with hold_in_memory("source", INDEX).open(session) as source:
            await put(destination, source, small)
    assert not file.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == SMALL


@pytest.mark.parametrize("raw", [b"garbage", b"[]", b'{"manifests":1}', b'{"Manifests":[]}'])
async def test_an_index_that_is_none_is_left_alone(
    path: Path, session: Session, raw: bytes
) -> None:
    path.mkdir()
    (path / "index.json").write_bytes(raw)
    with pytest.raises(MalformedManifestError):
        await LayoutReference(str(path)).create(session)
    assert tree(path) == {"index.json": raw}


@pytest.mark.parametrize("raw", [b"garbage", b'{"manifests":1}', b'{"manifests":[{"size":"1"}]}'])
async def test_an_index_that_breaks_during_the_copy_is_left_alone(
    path: Path, session: Session, raw: bytes
) -> None:
    async with LayoutReference(str(path)).create(session) as destination:
        (path / "index.json").write_bytes(raw)
        with pytest.raises(MalformedManifestError):
            await destination.commit(manifest_of(ARM64))
    assert (path / "index.json").read_bytes() == raw


async def test_what_the_index_names_is_on_the_disk_before_it(
    tmp_path: Path, path: Path, session: Session
) -> None:
    async with LayoutReference(str(path)).create(session) as destination:
        with watching_the_disk(tmp_path) as steps:
            await destination.commit(manifest_of(ARM64))
    manifest = f"out/blobs/sha256/{ARM64.digest.encoded}"
    assert steps[:4] == ["sync part", "name out/oci-layout", "sync part", f"name {manifest}"]
    named = steps.index("name out/index.json")
    directories = {"sync out/blobs/sha256", "sync out/blobs", "sync out", "sync ."}
    assert directories <= set(steps[4:named])
    assert steps[named - 1] == "sync part"
    assert steps[named + 1 :] == ["sync out"]


async def test_OC09_a_shared_directory_is_on_the_disk_as_well(
    tmp_path: Path, path: Path, session: Session
) -> None:
    for _ in range(2):  # Directories that were there, and a manifest that was there.
        reference = LayoutReference(str(path), shared_blob_dir=str(tmp_path / "shared"))
        async with reference.create(session) as destination:
            with watching_the_disk(tmp_path) as steps:
                await destination.commit(manifest_of(ARM64))
        assert {"sync shared/sha256", "sync shared"} <= set(steps)


@pytest.mark.parametrize("where", ["blobs", "blobs/sha256"])
async def test_SEC20_a_linked_directory_is_not_written_through(
    tmp_path: Path, path: Path, session: Session, where: str
) -> None:
    (tmp_path / "elsewhere" / "sha256").mkdir(parents=True)
    (path / where).parent.mkdir(parents=True)
    (path / where).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match=r"a symbolic link leads out of .* replace it"):
        await commit(path, session, ARM64)
    assert tree(tmp_path / "elsewhere") == {}


async def test_SEC20_the_directory_of_the_layout_itself_may_be_a_link(
    tmp_path: Path, path: Path, session: Session
) -> None:
    (tmp_path / "disk").mkdir()
    path.symlink_to(tmp_path / "disk")
    await commit(path, session, ARM64)
    async with LayoutReference(str(path)).open(session) as source:
        assert (await source.get_manifest()).raw == ARM64.raw


async def test_it_may_be_told_not_to_wait_for_the_disk(path: Path, session: Session) -> None:
    reference = LayoutReference(str(path), durable=False)
    with failing("fsync", errno.EIO):
        async with reference.create(session) as destination:
            await destination.commit(manifest_of(ARM64))
    async with reference.open(session) as source:
        assert (await source.get_manifest()).raw == ARM64.raw


async def test_L03_an_index_does_not_outgrow_what_can_be_read(path: Path, session: Session) -> None:
    path.mkdir()
    full = {"schemaVersion": 2, "manifests": [], "annotations": {"x": "y" * (MAX_MANIFEST - 100)}}
    raw = json.dumps(full).encode()
    (path / "index.json").write_bytes(raw)
    with pytest.raises(LimitExceededError):
        await commit(path, session, ARM64)
    assert (path / "index.json").read_bytes() == raw


@pytest.mark.parametrize("raw", [b"null", b"{}", b'{"manifests":null}', b'{"manifests":[null]}'])
async def test_J04_an_empty_index_is_filled(path: Path, session: Session, raw: bytes) -> None:
    path.mkdir()
    (path / "index.json").write_bytes(raw)
    async with LayoutReference(str(path)).create(session) as destination:
        await destination.commit(manifest_of(ARM64))
    assert [
        entry["digest"] for entry in json.loads((path / "index.json").read_bytes())["manifests"]
    ] == [ARM64.digest]

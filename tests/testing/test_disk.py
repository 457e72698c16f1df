from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asupplemented.model.digest import Digest
from asupplemented.testing import build_image, build_index, select, write_directory, write_layout

if TYPE_CHECKING:
    from pathlib import Path

AMD64 = build_image()
ARM = build_image("linux/arm/v7")
INDEX = build_index([AMD64, ARM])


def blobs_of(path: Path) -> set[str]:
    files = [file for file in (path / "blobs").rglob("*") if file.is_file()]
    for file in files:
        assert Digest(f"{file.parent.name}:{file.name}").matches(file.read_bytes())
    return {f"{file.parent.name}:{file.name}" for file in files}


def test_select_takes_all_by_default() -> None:
    manifests, blobs = select(INDEX, None, ())
    assert list(manifests) == [INDEX.digest, AMD64.digest, ARM.digest]
    assert blobs == {**AMD64.blobs, **ARM.blobs}


def test_select_takes_only_the_instances_named_and_their_blobs() -> None:
    manifests, blobs = select(INDEX, {ARM.digest}, ())
    assert list(manifests) == [INDEX.digest, ARM.digest]
    assert blobs == dict(ARM.blobs)


def test_an_omitted_instance_keeps_its_blobs_and_a_blob_can_be_omitted() -> None:
    manifests, blobs = select(INDEX, None, {AMD64.digest, ARM.layers[0], INDEX.digest})
    assert list(manifests) == [ARM.digest]
    assert set(blobs) == {*AMD64.blobs, ARM.config}


def test_a_layout_holds_every_blob_under_its_digest(tmp_path: Path) -> None:
    reference = write_layout(tmp_path / "store", INDEX, name="app:1")
    assert reference == f"oci:{tmp_path}/store:app:1"
    layout = json.loads((tmp_path / "store" / "oci-layout").read_text())
    assert layout == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((tmp_path / "store" / "index.json").read_text())["manifests"]
    assert entry["digest"] == INDEX.digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "app:1"}
    expected = {INDEX.digest, AMD64.digest, ARM.digest, *AMD64.blobs, *ARM.blobs}
    assert blobs_of(tmp_path / "store") == expected


def test_a_layout_is_added_to_and_a_name_moves(tmp_path: Path) -> None:
    write_layout(tmp_path, AMD64, name="a")
    write_layout(tmp_path, ARM, name="b")
    assert write_layout(tmp_path, INDEX) == f"oci:{tmp_path}"
    write_layout(tmp_path, ARM, name="a")
    entries = json.loads((tmp_path / "index.json").read_text())["manifests"]
    names = [
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in entries
    ]
    assert [(entry["digest"], name) for entry, name in zip(entries, names, strict=True)] == [
        (ARM.digest, "b"),
        (INDEX.digest, None),
        (ARM.digest, "a"),
    ]


def test_a_sparse_layout(tmp_path: Path) -> None:
    write_layout(tmp_path, INDEX, include=[AMD64.digest], omit=[AMD64.config])
    assert blobs_of(tmp_path) == {INDEX.digest, AMD64.digest, *AMD64.layers}


def test_a_layout_with_sha512(tmp_path: Path) -> None:
    image = build_image(algorithm="sha512")
    write_layout(tmp_path, image)
    assert blobs_of(tmp_path) == {image.digest, *image.blobs}


@pytest.mark.parametrize(
    ("algorithm", "prefix", "version"),
    [("sha256", "", "1.1"), ("sha512", "sha512-", "1.2")],
    ids=["DI-01", "DI-02"],
)
def test_a_directory_names_its_files(
    tmp_path: Path, algorithm: str, prefix: str, version: str
) -> None:
    image = build_image(algorithm=algorithm)
    index = build_index([image], algorithm=algorithm)
    assert write_directory(tmp_path, index) == f"dir:{tmp_path}"
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert files == {
        "version": f"Directory Transport Version: {version}\n".encode(),
        "manifest.json": index.raw,
        f"{prefix}{image.digest.encoded}.manifest.json": image.raw,
        **{f"{prefix}{digest.encoded}": data for digest, data in image.blobs.items()},
    }


def test_a_sparse_directory(tmp_path: Path) -> None:
    write_directory(tmp_path, INDEX, include=[ARM.digest], omit=ARM.layers)
    assert {file.name for file in tmp_path.iterdir()} == {
        "version",
        "manifest.json",
        f"{ARM.digest.encoded}.manifest.json",
        ARM.config.encoded,
    }

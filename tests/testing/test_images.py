"""Builders: manifests, configs and layers with the same bytes everywhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.model.digest import Digest
from asupplemented.model.media_type import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from asupplemented.testing import BuiltImage, build_artifact, build_image, build_index
from asupplemented.testing.images import pack_files, wrap_gzip

if TYPE_CHECKING:
    from asupplemented.testing.images import Json, Layer


def check_descriptors(image: BuiltImage) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(image.raw)
    named = [document["config"], *document["layers"]]
    assert [entry["digest"] for entry in named] == list(image.blobs)
    for entry in named:
        data = image.blobs[entry["digest"]]
        assert Digest(entry["digest"]).matches(data)
        assert entry["size"] == len(data)
    assert Digest(image.digest).matches(image.raw)
    return document


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("docker", [False, True])
def test_an_image_names_what_it_holds(*, docker: bool, algorithm: str) -> None:
    layers: list[Layer] = [{"a": "1"}, {"b": b"2"}, b"not an archive"]
    image = build_image("linux/arm/v7", layers, docker=docker, algorithm=algorithm)
    document = check_descriptors(image)
    zipped, plain = (DOCKER_LAYER_GZIP, DOCKER_LAYER) if docker else (OCI_LAYER_GZIP, OCI_LAYER)
    kinds = [entry["mediaType"] for entry in document["layers"]]
    assert kinds == [zipped, zipped, plain]
    assert document["config"]["mediaType"] == (DOCKER_CONFIG if docker else OCI_CONFIG)
    assert (
        document["mediaType"] == image.media_type == (DOCKER_MANIFEST if docker else OCI_MANIFEST)
    )
    assert image.digest.algorithm == algorithm


def test_diff_ids_are_those_of_the_unpacked_layers() -> None:
    image = build_image(layers=[{"a": "1"}, b"plain"], labels={"team": "blue"})
    config = json.loads(image.blobs[image.config])
    first, second = (image.blobs[layer] for layer in image.layers)
    unpacked = [gzip.decompress(first), second]
    assert config["rootfs"] == {
        "type": "layers",
        "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in unpacked],
    }
    assert config["config"]["Labels"] == {"team": "blue"}
    assert len(config["history"]) == 2


def test_the_platform_is_in_the_config() -> None:
    config = json.loads(build_image("linux/arm/v7").blobs[build_image("linux/arm/v7").config])
    assert (config["os"], config["architecture"], config["variant"]) == ("linux", "arm", "v7")
    assert "variant" not in json.loads(build_image().blobs[build_image().config])


def test_the_same_arguments_give_the_same_bytes_and_others_do_not() -> None:
    assert build_image() == build_image()
    assert build_image().digest != build_image("linux/arm64").digest
    assert build_image().digest == (
        "sha256:449591d09f8ae79bb6c74f2fea14fef1292ff5561e77f2fbdbecdd98096d3b41"
    )


def test_an_image_without_layers() -> None:
    image = build_image(layers=[])
    assert image.layers == ()
    assert check_descriptors(image)["layers"] == []


def test_an_index_names_its_members_and_what_nobody_has() -> None:
    amd64, arm = build_image(), build_image("linux/arm/v7")
    stranger: dict[str, Json] = {
        "mediaType": OCI_MANIFEST,
        "digest": "sha256:" + "0" * 64,
        "size": 7,
    }
    inner = build_index([arm])
    index = build_index([amd64, stranger, inner], annotations={"k": "v"})
    document = json.loads(index.raw)
    assert document["mediaType"] == index.media_type == OCI_INDEX
    assert document["annotations"] == {"k": "v"}
    assert document["manifests"] == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": amd64.digest,
            "size": len(amd64.raw),
            "platform": {"architecture": "amd64", "os": "linux"},
        },
        stranger,
        {"mediaType": OCI_INDEX, "digest": inner.digest, "size": len(inner.raw)},
    ]
    assert index.members == (amd64, inner)
    assert list(index.walk()) == [index, amd64, inner, arm]
    assert dict(index.blobs) == {**amd64.blobs, **arm.blobs}


def test_a_docker_list() -> None:
    index = build_index([build_image(docker=True)], docker=True)
    assert json.loads(index.raw)["mediaType"] == index.media_type == DOCKER_LIST


def test_an_artifact_refers_to_its_subject() -> None:
    image = build_image()
    artifact = build_artifact(
        "application/vnd.example.sbom",
        b"payload",
        subject=image,
        annotations={"k": "v"},
        layer_type="text/plain",
        layer_annotations={"signature": "abc"},
    )
    document = check_descriptors(artifact)
    assert document["artifactType"] == artifact.artifact_type == "application/vnd.example.sbom"
    assert document["config"]["mediaType"] == OCI_EMPTY
    assert document["subject"]["digest"] == image.digest
    assert document["annotations"] == artifact.annotations == {"k": "v"}
    assert document["layers"][0]["mediaType"] == "text/plain"
    assert document["layers"][0]["annotations"] == {"signature": "abc"}
    assert artifact.platform is None
    entry = json.loads(build_index([artifact]).raw)["manifests"][0]
    assert entry["artifactType"] == artifact.artifact_type
    assert "platform" not in entry


def members(archive: bytes) -> dict[str, tuple[bytes | None, int]]:
    found: dict[str, tuple[bytes | None, int]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            file = opened.extractfile(member)
            found[member.name] = (None if file is None else file.read(), member.mode)
    return found


def test_files_are_packed_with_their_parents() -> None:
    archive = pack_files({"etc/deep/motd": "hi", "/bin/sh": b"\x7fELF", "var/empty/": b""})
    assert members(archive) == {
        "bin": (None, 0o755),
        "bin/sh": (b"\x7fELF", 0o644),
        "etc": (None, 0o755),
        "etc/deep": (None, 0o755),
        "etc/deep/motd": (b"hi", 0o644),
        "var": (None, 0o755),
        "var/empty": (None, 0o755),
    }
    assert list(members(archive)) == sorted(members(archive))


def test_order_of_the_files_does_not_matter() -> None:
    assert pack_files({"a": "1", "b": "2"}) == pack_files({"b": "2", "a": "1"})


def test_bytes_are_the_same_everywhere() -> None:
    packed = wrap_gzip(pack_files({"etc/platform": "linux/amd64\n"}))
    assert Digest.of(packed) == (
        "sha256:0b27c0d7ce161d5f88a7fabdd4d35d9bb61fb2dbc2bd8d22c0a53fd77529f576"
    )


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 200_000])
def test_gzip_is_read_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert gzip.decompress(wrap_gzip(data[:size])) == data[:size]


@given(st.binary(max_size=1000))
def test_gzip_of_anything_is_read_back(data: bytes) -> None:
    assert gzip.decompress(wrap_gzip(data)) == data

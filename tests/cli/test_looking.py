"""Looking at one thing of an index that is not whole, or names what is unknown (X-07b, P-06)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.model.digest import Digest
from asupplemented.model.media_type import DOCKER_MANIFEST, OCI_LAYER_GZIP, OCI_MANIFEST
from asupplemented.testing.disk import write_layout
from asupplemented.testing.images import build_index, describe
from tests.cli.conftest import AMD, ARM

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

GONE: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": Digest.of(b"gone"), "size": 4}
BLAKE = {**GONE, "digest": "blake3:" + "0" * 64}
XML = b"<xml/>"
UNKNOWN: dict[str, Any] = {
    "mediaType": "application/xml",
    "digest": Digest.of(XML),
    "size": len(XML),
}


def layout(path: Path, *others: dict[str, Any]) -> str:
    """A layout with an image and whatever else its index names."""
    write_layout(path, build_index([AMD, ARM]), name="x")
    top = build_index([describe(AMD), *others])
    for raw in (top.raw, XML):
        (path / "blobs/sha256" / Digest.of(raw).encoded).write_bytes(raw)
    named = {**describe(top), "annotations": {"org.opencontainers.image.ref.name": "x"}}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return f"oci:{path}:x"


@pytest.mark.parametrize("other", [GONE, BLAKE, UNKNOWN], ids=["gone", "blake3", "XML"])
@pytest.mark.parametrize("grouped", [False, True])
def test_X07b_one_image_can_be_looked_at(
    cli: Cli, tmp_path: Path, other: dict[str, Any], *, grouped: bool
) -> None:
    place = layout(tmp_path / "in", other)
    references = [place, layout(tmp_path / "other", other)] if grouped else [place]
    top = build_index([describe(AMD), other]).raw.decode()
    assert cli("manifest", *references)[:2] == (0, top)
    assert cli("manifest", *references, "--instance", AMD.digest)[:2] == (0, AMD.raw.decode())
    for choice in (("--platform", "linux/amd64"), ("--instance", AMD.digest)):
        answer = cli("inspect", *references, *choice)
        assert (answer.code, answer.json["Architecture"]) == (0, "amd64")


def test_X07b_opaque_instances_are_shown_and_copied(cli: Cli, tmp_path: Path) -> None:
    place = layout(tmp_path / "in", UNKNOWN, BLAKE)
    answer = cli("resolve", place, "--json")
    assert answer.json["opaque"] == [UNKNOWN["digest"]]
    assert answer.json["missing"] == [{"member": 0, "digest": BLAKE["digest"]}]
    drawn = cli("resolve", place).out
    assert f"opaque  {UNKNOWN['digest'][:19]}" in drawn
    assert "missing  blake3:" in drawn
    explained = cli("explain", place, "--digest", UNKNOWN["digest"])
    assert explained.out.startswith("opaque sha256:")
    assert cli("manifest", place, "--instance", UNKNOWN["digest"]).out == XML.decode()
    assert cli("copy", place, "--to", f"oci:{tmp_path / 'out'}:x").code == 0
    assert cli("resolve", f"oci:{tmp_path / 'out'}:x", "--json").json["opaque"]
    strict = cli("resolve", place, "--unknown", "raise")
    assert strict.code != 0


def test_a_missing_instance_is_reported_with_what_can_be_done(cli: Cli, tmp_path: Path) -> None:
    place = layout(tmp_path / "in", GONE)
    to = ("--to", f"oci:{tmp_path / 'out'}:x")
    answer = cli("copy", place, *to)
    assert answer.code == 3
    assert "--missing skip" in answer.err
    assert "--platform" in answer.err
    chosen = cli("copy", place, *to, "--select", "specific", "--instance", GONE["digest"])
    assert "--missing skip" in chosen.err
    assert "with --platform" not in chosen.err
    assert cli("copy", place, *to, "--missing", "fallback").code == 3
    assert "--missing" not in cli("copy", place, *to, "--missing", "fallback").err


def test_P06_printing_a_manifest_parses_nothing_else(cli: Cli, tmp_path: Path) -> None:
    for number, raw in enumerate(
        (
            b'{"schemaVersion":2,"mediaType":"%s","layers":[{"mediaType":"%s"}]}'
            % (DOCKER_MANIFEST.encode(), OCI_LAYER_GZIP.encode()),
            b'{"schemaVersion":2,"mediaType":"%s","layers":5}' % OCI_MANIFEST.encode(),
            b'{"schemaVersion":2,"mediaType":"%s","x":1,"x":2}' % OCI_MANIFEST.encode(),
        )
    ):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "manifest.json").write_bytes(raw)
        assert cli("manifest", f"dir:{path}")[:2] == (0, raw.decode())
        assert cli("resolve", f"dir:{path}").code == 4


def test_CI05_gzip_can_be_preferred(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "in"
    write_layout(path, build_index([AMD, ARM]), name="x")
    platform = {"os": "linux", "architecture": "amd64"}
    zstd = {"io.github.containers.compression.zstd": "true"}
    top = build_index(
        [
            {**describe(AMD), "platform": platform, "annotations": zstd},
            {**describe(ARM), "platform": platform},
        ]
    )
    (path / "blobs/sha256" / top.digest.encoded).write_bytes(top.raw)
    named = {**describe(top), "annotations": {"org.opencontainers.image.ref.name": "x"}}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    options = ("inspect", f"oci:{path}:x", "--platform", "linux/amd64")
    assert cli(*options).json["Architecture"] == "amd64"
    assert cli(*options, "--prefer-gzip").json["Architecture"] == "arm64"

"""Rules MT and G: media types, and guessing them from bytes."""

from __future__ import annotations

import json

import pytest

from asupplemented.model import media_type as kinds
from asupplemented.model.media_type import ACCEPT, KNOWN_MANIFESTS, guess, is_index, normalize
from tests.model.documents import (
    Tree,
    config,
    docker_list,
    docker_manifest,
    oci_index,
    oci_manifest,
    schema1,
    sign,
    to_json,
)


def without(tree: Tree, key: str) -> Tree:
    return {name: value for name, value in tree.items() if name != key}


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        (kinds.DOCKER_LIST, True),
        (kinds.OCI_INDEX, True),
        (kinds.OCI_MANIFEST, False),
        (kinds.OCI_INDEX.upper(), False),
        (kinds.OCI_INDEX + "; charset=utf-8", False),
        (" " + kinds.OCI_INDEX, False),
        ("", False),
        (None, False),
    ],
)
def test_MT01_two_types_are_indexes_verbatim(media_type: str | None, *, expected: bool) -> None:
    assert is_index(media_type) is expected


@pytest.mark.parametrize("media_type", sorted(KNOWN_MANIFESTS))
def test_MT02_the_six_types_stay(media_type: str) -> None:
    assert normalize(media_type) == media_type


@pytest.mark.parametrize(
    "media_type",
    [
        *(None, "", "application/json", "text/plain", "rubbish", kinds.OCI_CONFIG),
        "application/vnd.oci.artifact.manifest.v1+json",
    ],
    ids=lambda media_type: f"MT-02 {media_type}" if media_type else "MT-02 nothing",
)
def test_MT02_AR07_everything_else_is_signed_schema_1(media_type: str | None) -> None:
    assert normalize(media_type) == kinds.DOCKER_SCHEMA1_SIGNED


def test_MT03_what_is_asked_of_registries_and_in_which_order() -> None:
    assert ACCEPT == (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    )


NAMELESS = without(oci_index(), "mediaType")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        pytest.param(docker_manifest(), kinds.DOCKER_MANIFEST, id="G-08 v2s2"),
        pytest.param(docker_list(), kinds.DOCKER_LIST, id="G-08 v2list"),
        pytest.param(schema1(), kinds.DOCKER_SCHEMA1, id="G-08 v2s1-unsigned"),
        pytest.param(
            schema1(signatures=1), kinds.DOCKER_SCHEMA1_SIGNED, id="G-08 v2s1-invalid-signatures"
        ),
        pytest.param(
            without(docker_manifest(), "mediaType"), kinds.DOCKER_MANIFEST, id="G-08 v2s2nomime"
        ),
        pytest.param({"schemaVersion": 99999}, None, id="G-08 unknown version"),
        pytest.param(oci_manifest(), kinds.OCI_MANIFEST, id="G-08 ociv1"),
        pytest.param(
            without(oci_manifest(), "mediaType"), kinds.OCI_MANIFEST, id="G-08 ociv1nomime"
        ),
        pytest.param(
            oci_manifest(config=config("application/x")), kinds.OCI_MANIFEST, id="G-08 artifact"
        ),
        pytest.param(oci_index(), kinds.OCI_INDEX, id="G-08 image.index"),
        pytest.param(NAMELESS, kinds.OCI_INDEX, id="G-05 nameless index"),
        pytest.param({"mediaType": 5, "schemaVersion": 2}, None, id="G-01 mediaType"),
        pytest.param({"mediaType": kinds.OCI_INDEX, "schemaVersion": "2"}, None, id="G-01 version"),
        pytest.param(
            {"mediaType": kinds.OCI_INDEX, "schemaVersion": 7, "layers": 5, "config": []},
            kinds.OCI_INDEX,
            id="G-02 whatever else",
        ),
        pytest.param({"mediaType": kinds.DOCKER_LIST}, kinds.DOCKER_LIST, id="G-02 no version"),
        pytest.param({"mediaType": kinds.DOCKER_SCHEMA1_SIGNED}, None, id="G-03 not in G-02"),
        pytest.param(
            oci_manifest(mediaType=kinds.DOCKER_SCHEMA1), kinds.OCI_MANIFEST, id="G-03 by version"
        ),
        pytest.param({}, None, id="G-03 nothing"),
        pytest.param({"schemaVersion": 0}, None, id="G-03 version 0"),
        pytest.param(schema1(signatures=[]), kinds.DOCKER_SCHEMA1_SIGNED, id="G-04 empty list"),
        pytest.param(schema1(signatures={}), kinds.DOCKER_SCHEMA1_SIGNED, id="G-04 empty object"),
        pytest.param(schema1(signatures=0), kinds.DOCKER_SCHEMA1_SIGNED, id="G-04 zero"),
        pytest.param(schema1(signatures=None), kinds.DOCKER_SCHEMA1, id="G-04 null"),
        pytest.param({**NAMELESS, "config": config()}, kinds.OCI_MANIFEST, id="G-05 config wins"),
        pytest.param(
            {**NAMELESS, "config": config(kinds.DOCKER_CONFIG)},
            kinds.DOCKER_MANIFEST,
            id="G-05 Docker config wins",
        ),
        pytest.param(
            {**NAMELESS, "config": config("text/x")}, "text/x", id="G-05 quirk: the config type"
        ),
        pytest.param({**NAMELESS, "config": {}}, kinds.OCI_INDEX, id="G-05 config without a type"),
        pytest.param({"schemaVersion": 2}, kinds.OCI_MANIFEST, id="G-05 else"),
        pytest.param({**NAMELESS, "manifests": []}, kinds.OCI_MANIFEST, id="G-06 empty index"),
        pytest.param({**NAMELESS, "config": []}, None, id="G-07 config: array"),
        pytest.param({**NAMELESS, "config": "x"}, None, id="G-07 config: text"),
        pytest.param({**NAMELESS, "manifests": {}}, None, id="G-07 manifests: object"),
        pytest.param({**NAMELESS, "manifests": [1]}, None, id="G-07 manifests: numbers"),
        pytest.param(
            {**NAMELESS, "layers": 5}, kinds.OCI_INDEX, id="G-05 other keys do not matter"
        ),
        pytest.param({"MediaType": kinds.OCI_INDEX}, None, id="J-03 almost a key"),
    ],
)
def test_a_media_type_is_guessed(tree: Tree, expected: str | None) -> None:
    assert guess(to_json(tree)) == expected
    assert guess(to_json({**tree, "unknown": {}})) == expected


def test_G08_a_signed_manifest() -> None:
    assert guess(sign(to_json(schema1()))) == kinds.DOCKER_SCHEMA1_SIGNED


@pytest.mark.parametrize(
    "raw",
    [b"", b"\n", b"[]", b"<html>", b"\xff\xfe", b'{"schemaVersion":2,"schemaVersion":2}'],
)
def test_G08_what_cannot_be_read_is_nothing(raw: bytes) -> None:
    assert guess(raw) is None


def test_J09_null_is_nothing_known() -> None:
    assert guess(json.dumps(None).encode()) is None

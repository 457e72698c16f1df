"""Rules I-01 to I-03 and AR-02: configs, and what inspection tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import MalformedManifestError, NonImageArtifactError
from asupplemented.model import media_type as kinds
from asupplemented.model.config import ImageConfig, Inspection
from asupplemented.model.manifest import Manifest
from asupplemented.model.platform import Platform
from tests.model.documents import (
    Tree,
    config,
    digest_of,
    docker_manifest,
    identifier,
    layer,
    oci_manifest,
    schema1,
    sign,
    to_json,
)

FULL: Tree = {
    "created": "2020-02-03T04:05:06.789012345Z",
    "author": "somebody",
    "architecture": "arm",
    "variant": "v7",
    "os": "linux",
    "os.version": "1.2",
    "os.features": ["f"],
    "docker_version": "20.10",
    "config": {
        "Hostname": "ignored",
        "User": "1000",
        "Env": ["PATH=/bin", "A=b"],
        "Entrypoint": ["/sh"],
        "Cmd": [],
        "WorkingDir": "/w",
        "Labels": {"Foo": "1", "foo": "2"},
        "StopSignal": "SIGTERM",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}, "/null": None},
        "OnBuild": None,
    },
    "rootfs": {"type": "layers", "diff_ids": [digest_of("base"), digest_of("top")]},
    "history": [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": True}],
    "container_config": {"Cmd": 5},
}


if TYPE_CHECKING:
    from collections.abc import Mapping

    from asupplemented.model.image_manifest import ImageManifest


JSON_LEAVES = st.none() | st.booleans() | st.integers() | st.text()
KEYS = st.sampled_from(["os", "OS", "Config", "env", "Env", "x"])


def parse_image(tree: Tree) -> ImageManifest:
    return Manifest.verified(to_json(tree), None, None).parse_image()


def test_I02_a_config_is_read_and_the_rest_ignored() -> None:
    parsed = ImageConfig.parse(to_json(FULL))
    assert parsed.platform == Platform("linux", "arm", "v7", "1.2", ("f",))
    assert parsed.created == "2020-02-03T04:05:06.789012345Z"
    assert (parsed.author, parsed.docker_version) == ("somebody", "20.10")
    assert (parsed.env, parsed.entrypoint, parsed.cmd) == (("PATH=/bin", "A=b"), ("/sh",), ())
    assert parsed.labels == {"Foo": "1", "foo": "2"}
    assert parsed.diff_ids == (digest_of("base"), digest_of("top"))
    assert [entry.empty_layer for entry in parsed.history] == [False, True]
    assert [entry.created_by for entry in parsed.history] == ["ADD", "ENV"]
    run = parsed.config
    assert run is not None
    assert (run.user, run.working_dir, run.stop_signal) == ("1000", "/w", "SIGTERM")
    assert run.exposed_ports == {"80/tcp": {}}
    assert run.volumes == {"/data": {}, "/null": {}}


@pytest.mark.parametrize("raw", [b"{}", b"null", b'{"config":null,"rootfs":null}'])
def test_I02_what_is_not_said_is_unknown(raw: bytes) -> None:
    parsed = ImageConfig.parse(raw)
    assert parsed.config is None
    assert (parsed.env, parsed.labels, parsed.entrypoint, parsed.cmd) == (None,) * 4
    assert (parsed.os, parsed.architecture, parsed.diff_ids, parsed.history) == ("", "", (), ())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(b"PK", "image config is not JSON", id="I-02 not JSON"),
        pytest.param(b"[]", "not a JSON object", id="J-09"),
        pytest.param(b'{"os":1}', "Expected", id="J-05"),
        pytest.param(b'{"config":{"Labels":{"a":1}}}', "Expected", id="J-05 label"),
    ],
)
def test_J_values_of_configs_are_read_strictly(raw: bytes, words: str) -> None:
    with pytest.raises(MalformedManifestError, match=words):
        ImageConfig.parse(raw)


DEEP = b"[" * 3000 + b"]" * 3000

TOLERATED = {
    "twice": (b'{"os":"a","os":"linux"}', {"os": "linux"}),
    "in another case": (b'{"OS":"linux"}', {"os": "linux"}),
    "in another case, within": (b'{"config":{"env":["a=b"]}}', {"env": ("a=b",)}),
    "an exact key wins": (b'{"os":"linux","OS":"x","Os":"y"}', {"os": "linux"}),
    "an exact key wins, behind": (b'{"OS":"x","os":"linux"}', {"os": "linux"}),
    "an exact null wins": (b'{"OS":"x","os":null}', {"os": ""}),
    "another case, of the wrong type": (b'{"os":"linux","Config":5}', {"os": "linux"}),
    "an unknown key": (b'{"x":{"x":1,"x":2},"os":"linux"}', {"os": "linux"}),
    "a long s": ('{"o\u017f":"linux"}'.encode(), {"os": "linux"}),
    "deep and ignored": (b'{"x":%s,"os":"linux"}' % DEEP, {"os": "linux"}),
    "deep, in text": (b'{"author":"%s","os":"linux"}' % DEEP, {"os": "linux"}),
    "deep objects": (b'{"x":%s1%s,"os":"linux"}' % (b'{"a":' * 3000, b"}" * 3000), {"os": "linux"}),
}


@pytest.mark.parametrize(("raw", "expected"), TOLERATED.values(), ids=TOLERATED)
def test_J03_no_key_refuses_a_config(raw: bytes, expected: Mapping[str, object]) -> None:
    parsed = ImageConfig.parse(raw)
    assert {name: getattr(parsed, name) for name in expected} == expected


@given(st.recursive(JSON_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_J03_what_is_added_changes_nothing_that_is_there(extra: object) -> None:
    tree = {**FULL, "more": extra}
    plain = json.dumps(FULL)[1:]
    assert ImageConfig.parse(json.dumps(tree).encode()) == ImageConfig.parse(to_json(FULL))
    for key in ("OS", "Config", "ROOTFS", "History", "os.Version"):
        before = f"{{{json.dumps(key)}:{json.dumps(extra)},{plain}"
        assert ImageConfig.parse(before.encode()) == ImageConfig.parse(to_json(FULL))


@pytest.mark.parametrize(
    "tree", [oci_manifest(), docker_manifest()], ids=["I-02 OCI", "I-02 schema 2"]
)
def test_I01_what_is_told_of_an_image(tree: Tree) -> None:
    image = parse_image(tree)
    told = Inspection.of(image, ImageConfig.parse(to_json(FULL)))
    assert told.to_dict() == {
        "Tag": "",
        "Created": "2020-02-03T04:05:06.789012345Z",
        "DockerVersion": "20.10",
        "Labels": {"Foo": "1", "foo": "2"},
        "Architecture": "arm",
        "Variant": "v7",
        "Os": "linux",
        "Layers": [digest_of("base"), digest_of("top")],
        "LayersData": [
            {
                "MIMEType": image.layers[number].media_type,
                "Digest": digest_of(name),
                "Size": 9,
                "Annotations": None,
            }
            for number, name in enumerate(("base", "top"))
        ],
        "Env": ["PATH=/bin", "A=b"],
        "Author": "somebody",
    }
    assert json.dumps(told.to_dict())


def test_I01_annotations_of_layers_are_told() -> None:
    image = parse_image(oci_manifest(layers=[{**layer("x"), "annotations": {"k": "v"}}]))
    told = Inspection.of(image, ImageConfig())
    assert told.layers_data[0].to_dict()["Annotations"] == {"k": "v"}


def test_I02_without_a_config_object_labels_and_env_are_null() -> None:
    told = Inspection.of(parse_image(oci_manifest()), ImageConfig()).to_dict()
    assert told["Labels"] is told["Env"] is told["Created"] is None
    assert told["Architecture"] == told["Variant"] == told["Os"] == told["Author"] == ""


def test_I01_I02_schema_1_brings_its_config_along() -> None:
    tree = schema1()
    history = tree["history"]
    assert isinstance(history, list)
    newest = {"id": identifier(3), "parent": identifier(2), "os": "linux", "architecture": "386"}
    newest_config = {"Env": ["A=b"], "Labels": None}
    history[0]["v1Compatibility"] = json.dumps(
        {**newest, "config": newest_config, "throwaway": False}
    )
    image = Manifest.verified(sign(to_json(tree)), None, None).parse_image()
    told = Inspection.of(image, ImageConfig.from_schema1(image))
    assert (told.tag, told.os, told.architecture) == ("1.0", "linux", "386")
    assert (told.env, told.labels, told.created) == (("A=b",), None, None)
    assert told.layers == tuple(digest_of(f"blob {number}") for number in (1, 2, 3))
    assert told.to_dict()["Tag"] == "1.0"
    [first, *_] = told.layers_data
    assert first.to_dict() == {
        "MIMEType": "",
        "Digest": digest_of("blob 1"),
        "Size": -1,
        "Annotations": None,
    }


def test_I02_other_kinds_bring_none_along() -> None:
    with pytest.raises(MalformedManifestError, match="contains no config"):
        ImageConfig.from_schema1(parse_image(docker_manifest(config=None)))


def test_AR02_artifacts_are_not_inspected() -> None:
    with pytest.raises(NonImageArtifactError) as caught:
        Inspection.of(parse_image(oci_manifest(config=config(kinds.OCI_EMPTY))), ImageConfig())
    assert caught.value.artifact_type == kinds.OCI_EMPTY

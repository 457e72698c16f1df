"""Rules P-06 to P-11 (kinds of image manifests), C (config and layers), AR (artifacts)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import (
    InvalidDigestError,
    LimitExceededError,
    MalformedManifestError,
    NonImageArtifactError,
)
from asupplemented.model import document
from asupplemented.model import media_type as kinds
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.manifest import Manifest
from asupplemented.model.platform import Platform
from tests.model.documents import (
    Tree,
    config,
    digest_of,
    docker_list,
    docker_manifest,
    entry,
    layer,
    oci_index,
    oci_manifest,
    schema1,
    to_json,
)

if TYPE_CHECKING:
    from asupplemented.model.image_manifest import ImageManifest


def parse(tree: Tree, kind: str | None = None) -> ImageManifest:
    return Manifest.verified(to_json(tree), kind, None).parse_image()


# ---------------------------------------------------------------------------------- schema 2


@pytest.mark.parametrize("media_type", sorted(kinds.DOCKER_TYPES))
def test_P06_a_layer_has_one_of_ten_types(media_type: str) -> None:
    assert (
        parse(docker_manifest(layers=[layer("x", media_type)])).layers[0].media_type == media_type
    )


def test_P06_there_are_ten() -> None:
    assert len(kinds.DOCKER_TYPES) == 10


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param(docker_manifest(mediaType=None), id="P-07 nameless"),
        pytest.param(docker_manifest(mediaType=kinds.OCI_CONFIG), id="P-06 own type"),
        pytest.param(docker_manifest(layers=[layer("x", kinds.OCI_LAYER)]), id="P-07 OCI layer"),
        pytest.param(docker_manifest(layers=[{"digest": "x"}]), id="P-06 layer without a type"),
        pytest.param(docker_manifest(layers=[layer("x", "x" * 9999)]), id="P-06 endless type"),
    ],
)
def test_P06_P07_other_types_are_refused(tree: Tree) -> None:
    with pytest.raises(MalformedManifestError, match="unsupported media type") as caught:
        parse(tree, kinds.DOCKER_MANIFEST)
    assert len(str(caught.value)) < 400


def test_P07_a_nameless_manifest_is_guessed_and_then_refused() -> None:
    manifest = Manifest.verified(to_json(docker_manifest(mediaType=None)), None, None)
    assert manifest.media_type == kinds.DOCKER_MANIFEST
    with pytest.raises(MalformedManifestError):
        manifest.parse()


def test_P06_neither_the_config_type_nor_the_version_matters() -> None:
    tree = docker_manifest(config=config("application/x"), schemaVersion=7)
    assert not parse(tree, kinds.DOCKER_MANIFEST).is_artifact


# --------------------------------------------------------------------------------------- OCI


def test_P08_an_oci_manifest_is_hardly_checked() -> None:
    tree: Tree = {
        "schemaVersion": 9,
        "config": {"mediaType": "x/y", "digest": "no digest", "size": 0},
        "layers": [{"mediaType": 'a"b', "digest": "../../etc/passwd"}, {}],
    }
    parsed = parse(tree, kinds.OCI_MANIFEST)
    assert parsed.layers == (Descriptor('a"b', "../../etc/passwd"), Descriptor())


def test_P08_a_docker_document_parses_as_oci() -> None:
    tree = {key: value for key, value in docker_manifest().items() if key != "mediaType"}
    assert parse(tree, kinds.OCI_MANIFEST).layers == parse(docker_manifest()).layers


@pytest.mark.parametrize("data", ["e30=", "", "e3\r\n0=", "AA==", "//++"])
def test_P09_embedded_data_is_base64(data: str) -> None:
    parsed = parse(oci_manifest(config={**config(), "data": data}))
    assert parsed.config is not None
    assert parsed.config.data == data


BROKEN = ["e30", "e3-_", "e30==", "=", "a b=", "é", "e30=e30=", "AAAAA"]


@pytest.mark.parametrize("data", BROKEN)
@pytest.mark.parametrize("place", ["config", "layers", "subject", "manifests"])
def test_P09_anything_else_in_data_is_refused(data: str, place: str) -> None:
    descriptor = {**layer("x"), "data": data}
    tree = {
        "config": oci_manifest(config=descriptor),
        "layers": oci_manifest(layers=[layer("y"), descriptor]),
        "subject": oci_manifest(subject=descriptor),
        "manifests": oci_index(descriptor),
    }[place]
    with pytest.raises(MalformedManifestError, match="not base64"):
        Manifest.verified(to_json(tree), None, None).parse()


def test_P09_docker_has_no_data() -> None:
    odd = {**layer("x", kinds.DOCKER_LAYER), "data": "no base64"}
    assert parse(docker_manifest(layers=[odd])).layers[0].data == "no base64"
    odd = {**entry("x"), "data": "!"}
    index = Manifest.verified(to_json(docker_list(odd)), None, None).parse_index()
    assert index.manifests[0].data == "!"


@pytest.mark.parametrize("digest", ["", "garbage", "sha256:../../x"])
def test_P11_digests_survive_as_text(digest: str) -> None:
    parsed = parse(oci_manifest(layers=[{**layer("x"), "digest": digest}]))
    assert parsed.layers[0].digest == digest


# --------------------------------------------------------------------------- config and layers


def test_C01_schema_1_has_no_config() -> None:
    parsed = parse(schema1())
    assert parsed.config is None
    assert parsed.blobs == parsed.layers
    assert parsed.image_id is None


@pytest.mark.parametrize("tree", [docker_manifest(), oci_manifest()], ids=["schema 2", "OCI"])
def test_C02_C04_C07_descriptors_are_verbatim_and_base_first(tree: Tree) -> None:
    parsed = parse(tree)
    assert parsed.config is not None
    assert parsed.config.to_dict() == tree["config"]
    assert [each.to_dict() for each in parsed.layers] == tree["layers"]
    assert [info.empty for info in parsed.layer_infos] == [False, False]
    assert [info.descriptor for info in parsed.layer_infos] == [*parsed.layers]


def test_C02_C08_everything_a_descriptor_says_is_kept() -> None:
    said: Tree = {
        "mediaType": kinds.OCI_NONDISTRIBUTABLE_LAYER_GZIP,
        "digest": digest_of("x"),
        "size": 2**40,
        "urls": ["https://a/b", "https://c"],
        "annotations": {"k": "v", "K": ""},
        "artifactType": "x/y",
        "data": base64.b64encode(b"hello").decode(),
        "platform": {
            "os": "windows",
            "architecture": "amd64",
            "variant": "v2",
            "os.version": "10.0.1",
            "os.features": ["win32k"],
        },
    }
    [kept] = parse(oci_manifest(layers=[said])).layers
    assert kept.to_dict() == said
    assert kept.platform == Platform("windows", "amd64", "v2", "10.0.1", ("win32k",))
    assert parse(oci_manifest(layers=[said], extra=1)).layers == (kept,)


def test_C03_a_config_without_a_digest_is_no_blob() -> None:
    parsed = parse(oci_manifest(config={"digest": "", "size": 0}, layers=None))
    assert parsed.config == Descriptor(None, "", 0)
    assert parsed.layers == parsed.blobs == ()


def test_C05_C07_duplicate_layers_are_kept() -> None:
    parsed = parse(oci_manifest(layers=[layer("x"), layer("y"), layer("x")]))
    assert [each.digest for each in parsed.blobs] == [
        *map(digest_of, ("config", "x", "y", "x")),
    ]


def test_C05_only_schema_1_knows_empty_layers() -> None:
    tree = schema1((1,))
    history = tree["history"]
    assert isinstance(history, list)
    history[0]["v1Compatibility"] = history[0]["v1Compatibility"][:-1] + ', "throwaway": true}'
    parsed = parse(tree)
    assert [info.empty for info in parsed.layer_infos] == [True]
    assert parsed.blobs[0].digest == digest_of("blob 1")


def test_C09_the_image_id() -> None:
    assert parse(oci_manifest()).image_id == digest_of("config").encoded
    assert parse(docker_manifest()).image_id == digest_of("config").encoded
    with pytest.raises(InvalidDigestError):
        assert parse(docker_manifest(config=None)).image_id
    with pytest.raises(NonImageArtifactError):
        assert parse(oci_manifest(config=config("x/y"))).image_id


# --------------------------------------------------------------------------------- artifacts


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        pytest.param(oci_manifest(), False, id="AR-01 image"),
        pytest.param(oci_manifest(config=config(kinds.OCI_EMPTY)), True, id="AR-01 empty config"),
        pytest.param(oci_manifest(config=config(kinds.DOCKER_CONFIG)), True, id="AR-02 mixed"),
        pytest.param(oci_manifest(config=None), True, id="AR-01 no config"),
        pytest.param(oci_manifest(artifactType="x/y"), False, id="AR-04 the config type decides"),
        pytest.param(docker_manifest(config=config("x/y")), False, id="AR-01 only OCI"),
        pytest.param(schema1(), False, id="AR-01 schema 1"),
    ],
)
def test_AR01_AR04_what_is_an_artifact(tree: Tree, *, expected: bool) -> None:
    assert parse(tree).is_artifact is expected


@pytest.mark.parametrize(
    ("tree", "kind", "words"),
    [
        (oci_manifest(config=config("x/y")), "x/y", "'x/y' is not an image"),
        (oci_manifest(config=config("x/y"), artifactType="a/b"), "a/b", "'a/b' is not an image"),
        (oci_manifest(config=None), "", "'' is not an image"),
        (
            oci_manifest(config=config(kinds.DOCKER_CONFIG)),
            kinds.DOCKER_CONFIG,
            "invalid mixed OCI image with Docker v2s2 config",
        ),
    ],
)
def test_AR02_the_error_names_the_kind_of_artifact(tree: Tree, kind: str, words: str) -> None:
    error = parse(tree).artifact_error()
    assert error.artifact_type == kind
    assert words in str(error)


def test_AR01_AR05_artifacts_parse_and_keep_what_they_are_about() -> None:
    parsed = parse(
        oci_manifest(
            config=config(kinds.OCI_EMPTY),
            layers=[layer("x", "text/plain")],
            subject=layer("subject", kinds.OCI_MANIFEST),
            artifactType="a/b",
            annotations={"k": "v"},
        )
    )
    assert (parsed.artifact_type, parsed.annotations) == ("a/b", {"k": "v"})
    assert parsed.subject is not None
    assert parsed.subject.digest == digest_of("subject")
    assert digest_of("subject") not in [blob.digest for blob in parsed.blobs]
    assert hash(parsed) == hash(
        parse(oci_manifest(config=config(kinds.OCI_EMPTY), layers=[layer("x", "text/plain")]))
    )


def test_L04_a_manifest_has_at_most_so_many_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_LAYERS", 3)
    for make in (oci_manifest, docker_manifest):
        kind = kinds.OCI_LAYER_GZIP if make is oci_manifest else kinds.DOCKER_LAYER_GZIP
        layers = [layer(str(number), kind) for number in range(4)]
        assert len(parse(make(layers=layers[:3])).layers) == 3
        with pytest.raises(LimitExceededError) as caught:
            parse(make(layers=layers))
        assert caught.value.limit == 3

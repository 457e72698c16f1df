"""Rules DG, A, P and J of whole manifests: verified, told apart, parsed."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import (
    AmbiguousManifestError,
    DigestMismatchError,
    LimitExceededError,
    MalformedManifestError,
    ManifestError,
    SizeMismatchError,
    UnsupportedManifestError,
    VerificationError,
)
from asupplemented.limits import MAX_JSON_VALUES
from asupplemented.model import document, strict_json
from asupplemented.model import media_type as kinds
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import ALGORITHMS, Digest
from asupplemented.model.manifest import ImageManifest, Index, Manifest, UnreadManifest
from tests.model.documents import (
    Tree,
    docker_list,
    docker_manifest,
    entry,
    identifier,
    layer,
    oci_index,
    oci_manifest,
    schema1,
    sign,
    signature,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TREES = {
    kinds.DOCKER_SCHEMA1: schema1(),
    kinds.DOCKER_MANIFEST: docker_manifest(),
    kinds.OCI_MANIFEST: oci_manifest(),
    kinds.DOCKER_LIST: docker_list(),
    kinds.OCI_INDEX: oci_index(),
}
PAYLOAD = to_json(schema1())
SIGNED = sign(PAYLOAD)
FOREIGN = {
    kinds.DOCKER_SCHEMA1: ("config", "layers", "manifests"),
    kinds.DOCKER_MANIFEST: ("fsLayers", "history", "manifests"),
    kinds.OCI_MANIFEST: ("fsLayers", "history", "manifests"),
    kinds.DOCKER_LIST: ("config", "fsLayers", "history", "layers"),
    kinds.OCI_INDEX: ("config", "fsLayers", "history", "layers"),
}


def verified(tree: Tree, claimed: str | None = None) -> Manifest:
    return Manifest.verified(to_json(tree), claimed, None)


# ------------------------------------------------------------------------------------ digests


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda name: f"DG-13 {name}")
def test_DG01_DG13_bytes_are_verified_with_the_algorithm_that_named_them(
    kind: str, algorithm: str
) -> None:
    raw = to_json(TREES[kind])
    expected = Digest.of(raw, algorithm)
    for claimed in (kind, None):
        manifest = Manifest.verified(raw, claimed, expected)
        assert (manifest.raw, manifest.media_type) == (raw, kind)
        assert manifest.digest == expected
        assert manifest.size == len(raw)
    with pytest.raises(DigestMismatchError) as caught:
        Manifest.verified(raw + b"\n", kind, expected)
    assert caught.value.digest == expected
    assert caught.value.actual == Digest.of(raw + b"\n", algorithm)


def test_DG01_what_nothing_named_goes_by_its_sha256() -> None:
    raw = to_json(oci_index())
    assert Manifest.verified(raw, None, None).digest == Digest.of(raw)


@pytest.mark.parametrize("claimed", [None, kinds.DOCKER_SCHEMA1_SIGNED, kinds.DOCKER_SCHEMA1])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_DG01_DG10_DG11_a_signed_manifest_has_the_digest_of_its_payload(
    claimed: str | None, algorithm: str
) -> None:
    expected = Digest.of(PAYLOAD, algorithm)
    manifest = Manifest.verified(SIGNED, claimed, expected)
    assert manifest.raw == SIGNED
    assert manifest.digest == expected
    assert manifest.media_type == (claimed or kinds.DOCKER_SCHEMA1_SIGNED)
    assert Manifest.verified(SIGNED, claimed, None).digest == Digest.of(PAYLOAD)
    with pytest.raises(DigestMismatchError):
        Manifest.verified(SIGNED, claimed, Digest.of(SIGNED, algorithm))


def test_DG01_signatures_mean_nothing_in_other_kinds() -> None:
    raw = to_json(oci_manifest(signatures=[signature(5)]))
    assert Manifest.verified(raw, None, Digest.of(raw)).parse() == verified(oci_manifest()).parse()


def test_DG07_an_empty_list_of_signatures_does_not_match_the_digest_of_nothing() -> None:
    raw = to_json(schema1(signatures=[]))
    with pytest.raises(MalformedManifestError):
        Manifest.verified(raw, None, Digest.of(b""))


def test_DG04_DG12_broken_signatures_are_an_error_not_a_plain_hash() -> None:
    raw = to_json(schema1(signatures=1))
    with pytest.raises(MalformedManifestError):
        Manifest.verified(raw, kinds.DOCKER_SCHEMA1_SIGNED, Digest.of(raw))


def test_DG09_what_the_signatures_do_not_cover_is_not_read() -> None:
    """Bytes between prefix and signatures do not change the digest."""
    forged = SIGNED.replace(b',\n   "signatures"', b',\n   "tag2": 1, "name2": [],\n "signatures"')
    manifest = Manifest.verified(forged, None, Digest.of(PAYLOAD))
    assert manifest.parse() == Manifest.verified(SIGNED, None, None).parse()
    nameless = to_json({key: value for key, value in schema1().items() if key != "tag"})
    tagged = sign(nameless).replace(b',\n   "signatures"', b',"tag":"evil",\n   "signatures"')
    parsed = Manifest.verified(tagged, None, Digest.of(nameless)).parse_image()
    assert parsed.schema1 is not None
    assert parsed.schema1.tag == ""


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(to_json(oci_index())[:-9], id="truncated"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b"", id="empty"),
        pytest.param(to_json({"schemaVersion": "2"}), id="head of the wrong type"),
        pytest.param(to_json({"hello": 1}), id="unknown"),
        pytest.param(to_json(docker_list()), id="ambiguous"),
    ],
)
def test_SEC04_wrong_bytes_are_called_that_before_anything_else(raw: bytes) -> None:
    expected = Digest.of(b"something else")
    with pytest.raises(DigestMismatchError):
        Manifest.verified(raw, kinds.OCI_INDEX, expected)


def test_a_digest_does_not_excuse_malformed_bytes() -> None:
    raw = b'{"schemaVersion":2,"schemaVersion":2}'
    with pytest.raises(MalformedManifestError, match="duplicate"):
        Manifest.verified(raw, kinds.OCI_INDEX, Digest.of(raw)).parse()


# -------------------------------------------------------------------------------- media types


@pytest.mark.parametrize("claimed", [None, "", "application/json", "text/plain", "x" * 5000])
def test_a_type_that_is_not_known_counts_as_none(claimed: str | None) -> None:
    for kind, tree in TREES.items():
        assert verified(tree, claimed).media_type == kind


@pytest.mark.parametrize(
    ("own", "served"),
    [
        (kinds.OCI_MANIFEST, kinds.OCI_INDEX),
        (kinds.OCI_INDEX, kinds.OCI_MANIFEST),
        (kinds.DOCKER_MANIFEST, kinds.OCI_MANIFEST),
        (kinds.OCI_INDEX, kinds.DOCKER_LIST),
        (kinds.OCI_MANIFEST, kinds.DOCKER_SCHEMA1),
    ],
)
@pytest.mark.parametrize("more", [{}, {"unknown": 1}], ids=["quick", "exact"])
def test_SEC05_what_is_served_as_one_thing_and_calls_itself_another(
    own: str, served: str, more: Tree
) -> None:
    with pytest.raises(AmbiguousManifestError) as caught:
        verified({**TREES[own], **more}, served)
    assert own in str(caught.value)
    assert served in str(caught.value)


def test_a_body_that_does_not_say_what_it_is_is_what_it_is_served_as() -> None:
    nameless = {key: value for key, value in oci_manifest().items() if key != "mediaType"}
    assert verified(nameless, kinds.DOCKER_MANIFEST).media_type == kinds.DOCKER_MANIFEST
    unknown = {**nameless, "mediaType": "application/x"}
    assert verified(unknown, kinds.OCI_MANIFEST).media_type == kinds.OCI_MANIFEST


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        pytest.param({"mediaType": "application/x"}, "'application/x'", id="P-02 its own words"),
        pytest.param({"some": "thing"}, r"no mediaType, it begins with '\{", id="P-02 excerpt"),
        pytest.param({"schemaVersion": 3}, "no mediaType", id="G-03"),
        pytest.param(
            {"mediaType": "application/vnd.oci.artifact.manifest.v1+json"},
            "vnd.oci.artifact",
            id="AR-07",
        ),
        pytest.param(
            {"schemaVersion": 2, "manifests": [{}], "config": {"mediaType": "text/x"}},
            "no mediaType",
            id="G-05 quirk",
        ),
    ],
)
def test_P02_what_nobody_knows_is_unsupported(tree: Tree, words: str) -> None:
    with pytest.raises(UnsupportedManifestError, match=words) as caught:
        verified(tree, "application/json")
    assert len(str(caught.value)) < 400


def test_a_hostile_type_is_not_repeated_at_length() -> None:
    trees: list[Tree] = [{"mediaType": "x" * 100_000}, {"x" * 100_000: 1}]
    for tree in trees:
        with pytest.raises(UnsupportedManifestError) as caught:
            verified(tree)
        assert len(str(caught.value)) < 400


def test_parsing_a_manifest_of_an_unknown_type_is_refused() -> None:
    manifest = Manifest(b"{}", "application/x", Digest.of(b"{}"))
    with pytest.raises(UnsupportedManifestError, match="application/x"):
        manifest.parse()


# ------------------------------------------------------------------------------------ parsing


@pytest.mark.parametrize(("kind", "tree"), TREES.items())
@pytest.mark.parametrize("more", [{}, {"unknown": 1}], ids=["quick", "exact"])
def test_a_manifest_is_parsed_once_as_its_type_says(kind: str, tree: Tree, more: Tree) -> None:
    raw = to_json({**tree, **more})
    fresh, trusted = Manifest.verified(raw, None, None), Manifest(raw, kind, Digest.of(raw))
    parsed = fresh.parse()
    assert parsed.media_type == kind
    assert parsed == trusted.parse()
    assert fresh.parse() is parsed
    assert isinstance(parsed, Index) is fresh.is_index is kinds.is_index(kind)


def test_a_signed_manifest_is_parsed_from_its_payload() -> None:
    trusted = Manifest(SIGNED, kinds.DOCKER_SCHEMA1_SIGNED, Digest.of(PAYLOAD))
    assert trusted.parse() == Manifest.verified(SIGNED, None, None).parse()
    assert len(trusted.parse_image().layers) == 3


@pytest.mark.parametrize(("kind", "keys"), FOREIGN.items())
@pytest.mark.parametrize("value", [[], {}, 0, "", False], ids=repr)
def test_A01_A02_A05_keys_of_another_kind_are_refused(
    kind: str, keys: tuple[str, ...], value: object
) -> None:
    for key in keys:
        manifest = verified({**TREES[kind], key: value}, kind)
        for _ in range(2):  # a failure is not forgotten
            with pytest.raises(AmbiguousManifestError, match="rejecting ambiguous") as caught:
                manifest.parse()
            assert f"unexpected fields ['{key}'] in supposedly {kind}" in str(caught.value)


@pytest.mark.parametrize(("kind", "keys"), FOREIGN.items())
def test_A01_null_does_not_count_and_case_does_not_help(kind: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        assert verified({**TREES[kind], key: None}, kind).parse() == verified(TREES[kind]).parse()
        for spelling in (key.upper(), key.capitalize(), key.replace("s", "\u017f")):
            if spelling != key:
                with pytest.raises(AmbiguousManifestError):
                    verified({**TREES[kind], spelling: []}, kind).parse()


def test_A02_all_foreign_keys_are_named() -> None:
    manifest = verified(oci_index(config={}, layers=[], fsLayers=[]), kinds.OCI_INDEX)
    with pytest.raises(AmbiguousManifestError, match=r"\['config', 'layers', 'fsLayers'\]"):
        manifest.parse()


def test_SEC05_well_formed_keys_of_another_kind_are_refused_as_well() -> None:
    mixed = oci_index(layers=[layer("x")], config=oci_manifest()["config"])
    with pytest.raises(AmbiguousManifestError, match=r"\['config', 'layers'\]"):
        verified(mixed).parse()
    with pytest.raises(AmbiguousManifestError, match=r"\['manifests'\]"):
        verified(oci_manifest(manifests=[entry("x")])).parse()


def test_A03_plainly_wrong_input_gets_the_plainer_error() -> None:
    with pytest.raises(MalformedManifestError):
        verified(oci_index(manifests=5, layers=[]), kinds.OCI_INDEX).parse()


def test_A04_missing_keys_are_not_missed() -> None:
    empty: Tree = {}
    for kind in (kinds.OCI_MANIFEST, kinds.OCI_INDEX, kinds.DOCKER_LIST):
        parsed = verified(empty, kind).parse()
        assert (parsed.layers if isinstance(parsed, ImageManifest) else parsed.manifests) == ()


def test_G06_a_nameless_empty_index_is_guessed_as_a_manifest_and_refused() -> None:
    manifest = verified({"schemaVersion": 2, "manifests": []})
    assert manifest.media_type == kinds.OCI_MANIFEST
    with pytest.raises(AmbiguousManifestError, match="manifests"):
        manifest.parse()


def test_P01_lists_and_manifests_are_not_mistaken_for_each_other() -> None:
    index, image = verified(oci_index()), verified(oci_manifest())
    assert isinstance(index.parse_index(), Index)
    assert isinstance(image.parse_image(), ImageManifest)
    with pytest.raises(UnsupportedManifestError, match="manifest lists as individual manifests"):
        index.parse_image()
    with pytest.raises(UnsupportedManifestError, match="individual manifests as manifest lists"):
        image.parse_index()


def test_P02_a_newer_version_served_as_schema_1_is_refused_by_its_version() -> None:
    tree = {"schemaVersion": 2, "layers": []}
    with pytest.raises(MalformedManifestError, match="schema version 2"):
        verified(tree, kinds.DOCKER_SCHEMA1_SIGNED).parse()


def test_J03_keys_that_are_almost_right_are_refused_when_parsed() -> None:
    manifest = verified(oci_manifest(Layers=[]))
    for _ in range(2):
        with pytest.raises(ManifestError):
            manifest.parse()
    with pytest.raises(MalformedManifestError, match="take it for"):
        verified({"MediaType": kinds.OCI_INDEX, "schemaVersion": 2}).parse()


def test_every_failure_is_a_manifest_error() -> None:
    broken = schema1(history=[{"v1Compatibility": identifier(1)}] * 3)
    with pytest.raises(ManifestError):
        verified(broken).parse()


# -------------------------------------------------------------------------------------- values


def test_a_manifest_is_a_value() -> None:
    manifest = verified(oci_manifest())
    again = verified(oci_manifest())
    again.parse()
    assert manifest == again
    assert hash(manifest) == hash(again)
    assert manifest != verified(oci_index())
    assert manifest != "manifest"
    assert copy.copy(manifest) == manifest
    assert pickle.loads(pickle.dumps(again)) == manifest  # noqa: S301 - our own bytes
    for name in ("raw", "media_type", "digest", "size", "is_index"):
        with pytest.raises(AttributeError):
            setattr(manifest, name, None)


def test_the_bytes_of_a_manifest_are_not_shown() -> None:
    shown = repr(verified(oci_manifest(annotations={"secret": "x" * 5000})))
    assert "secret" not in shown
    assert kinds.OCI_MANIFEST in shown


# ------------------------------------------------------------------------ reading and parsing


COMPACT = json.dumps(oci_manifest(), separators=(",", ":")).encode()
RAW = {
    **{kind: to_json(tree) for kind, tree in TREES.items()},
    "signed": SIGNED,
    "compact": COMPACT,
    "a duplicate": COMPACT.replace(b"{", b'{"schemaVersion":2,', 1),
    "two types": COMPACT.replace(b"{", b'{"mediaType":"%s",' % kinds.OCI_INDEX.encode(), 1),
    "an escape": COMPACT.replace(b'"mediaType"', b'"media\\u0054ype"'),
    "almost a key": COMPACT.replace(b'"layers"', b'"Layers"'),
    "unknown keys": to_json(oci_manifest(x=1, signatures=[])),
    "signatures beside": to_json({**oci_manifest(), "signatures": [1]}),
    "null": to_json(oci_manifest(mediaType=None, config=None, layers=None)),
    "no type": to_json({"schemaVersion": 2, "layers": [layer("base")]}),
    "both kinds": to_json(oci_manifest(manifests=[entry("a")])),
    "another type": to_json(oci_manifest(mediaType="application/x")),
    "a wrong field": to_json(oci_manifest(layers=5)),
    "a wrong head": to_json(oci_manifest(schemaVersion="2")),
    "broken data": to_json(oci_manifest(subject={"digest": "x", "data": "?"})),
    "no object": b"[]",
    "no JSON": b"<html>",
    "cut off": COMPACT[:-1],
    "nothing": b"",
}
TELLS = (None, "", "application/x", kinds.OCI_MANIFEST, kinds.OCI_INDEX, kinds.DOCKER_SCHEMA1)


def outcome(action: Callable[[], object]) -> object:
    try:
        return action()
    except (ManifestError, LimitExceededError, VerificationError) as error:
        return type(error), error.message


def read_then_parse(
    unread: UnreadManifest, named: Descriptor | None, *, opaque: bool
) -> tuple[str, ImageManifest | Index | None]:
    manifest = unread.read(named, opaque=opaque)
    return manifest.media_type, None if opaque and manifest.is_opaque else manifest.parse()


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_reading_and_parsing_at_once_is_reading_and_then_parsing(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(raw)
    names = (None, *(Descriptor(told, digest, size) for told in TELLS for size in (None, len(raw))))
    for cap in (MAX_JSON_VALUES, 3):
        monkeypatch.setattr(strict_json, "MAX_JSON_VALUES", cap)
        monkeypatch.setattr(document, "MAX_JSON_VALUES", cap)
        for named, claimed, opaque in product(names, TELLS, (False, True)):
            unread = UnreadManifest(raw, claimed or None, digest)
            expected = outcome(partial(read_then_parse, unread, named, opaque=opaque))
            assert outcome(partial(unread.parse_as, named, opaque=opaque)) == expected
    wrong = Descriptor(digest=digest, size=len(raw) + 1)
    with pytest.raises(SizeMismatchError):
        UnreadManifest(raw, None, digest).parse_as(wrong)

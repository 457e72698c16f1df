"""Rules DG-02 to DG-09 (signed payloads), P-03 to P-05 and C-04 to C-06 (layers and history)."""

from __future__ import annotations

import gzip
import json

import pytest

from asupplemented.errors import AmbiguousManifestError, MalformedManifestError
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import DOCKER_SCHEMA1
from asupplemented.model.schema1 import (
    EMPTY_LAYER,
    EMPTY_LAYER_BYTES,
    Schema1,
    parse,
    rebuild_payload,
)
from tests.model.documents import (
    Tree,
    digest_of,
    encode64,
    identifier,
    schema1,
    sign,
    signature,
    to_json,
)

PAYLOAD = to_json(schema1())
LENGTH = len(PAYLOAD) - 2


def parsed(tree: Tree) -> Schema1:
    return parse(to_json(tree), DOCKER_SCHEMA1)


def test_DG02_the_payload_is_rebuilt() -> None:
    signed = sign(PAYLOAD)
    assert signed != PAYLOAD
    assert rebuild_payload(signed) == PAYLOAD


def test_DG02_spaces_and_padding_of_base64_do_not_matter() -> None:
    block = signature(LENGTH)
    text = str(block["protected"])
    block["protected"] = f"{text[:5]} \n{text[5:]}"
    assert rebuild_payload(sign(PAYLOAD, [block])) == PAYLOAD
    block["protected"] = text + "=" * (-len(text) % 4)
    assert rebuild_payload(sign(PAYLOAD, [block])) == PAYLOAD


def test_DG03_signatures_that_agree_are_accepted() -> None:
    blocks = [signature(LENGTH), signature(LENGTH, header={"alg": "ES256"})]
    assert rebuild_payload(sign(PAYLOAD, blocks)) == PAYLOAD


RSA = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}


@pytest.mark.parametrize("key", [None, RSA], ids=["no key", "RSA"])
def test_DG05_keys_are_not_used(key: object) -> None:
    block = signature(LENGTH, header={"jwk": key}, signature="nonsense")
    assert rebuild_payload(sign(PAYLOAD, [block])) == PAYLOAD


@pytest.mark.parametrize(
    ("signatures", "words"),
    [
        pytest.param([signature(LENGTH), signature(LENGTH - 1)], "conflict", id="DG-03 length"),
        pytest.param([signature(LENGTH), signature(LENGTH, b"}")], "conflict", id="DG-03 tail"),
        pytest.param(
            [signature(LENGTH, b""), signature(LENGTH)], "conflict", id="DG-03 empty tail"
        ),
        pytest.param([signature(18.9)], "Expected", id="DG-03 DG-08 not a whole number"),
        pytest.param([signature(10**6)], "more than its", id="DG-04 longer than the manifest"),
        pytest.param([signature(None)], "without format length", id="DG-04 no length"),
        pytest.param(
            [signature(LENGTH, None)], "without format length or tail", id="DG-04 no tail"
        ),
        pytest.param(
            [signature(LENGTH, protected="A")], "base64url", id="DG-02 DG-04 one too many"
        ),
        pytest.param([signature(LENGTH, protected="AA+A")], "base64url", id="DG-04 wrong alphabet"),
        pytest.param([signature(LENGTH, protected="A=AA")], "base64url", id="DG-04 early padding"),
        pytest.param([signature(LENGTH, protected="AAAA")], "not JSON", id="DG-04 no JSON within"),
        pytest.param([signature(LENGTH, protected=None)], "not JSON", id="DG-04 nothing protected"),
        pytest.param(1, "Expected", id="DG-04 a number"),
        pytest.param({}, "Expected", id="DG-04 an object"),
        pytest.param([1], "Expected", id="DG-04 a list of numbers"),
        pytest.param([signature(LENGTH, header={"jwk": 1})], "Expected", id="DG-04 key: number"),
        pytest.param([signature(LENGTH, header={"jwk": {}})], "unreadable", id="DG-04 key: empty"),
        pytest.param(
            [signature(LENGTH, header={"jwk": {"kty": "oct"}})], "unreadable", id="DG-04 key: kind"
        ),
        pytest.param(
            [signature(LENGTH, header={"jwk": {"kty": "RSA", "n": "A", "e": "AQAB"}})],
            "base64url",
            id="DG-04 key: base64",
        ),
        pytest.param([], "no signature", id="DG-07 an empty list"),
        pytest.param([signature(0)], "not positive", id="DG-08 zero"),
        pytest.param([signature(-1)], "not positive", id="DG-08 negative"),
        pytest.param([signature(length=True)], "Expected", id="DG-08 bool"),
        pytest.param([signature("18")], "Expected", id="DG-08 text"),
    ],
)
def test_signatures_that_cannot_be_undone_are_an_error(signatures: object, words: str) -> None:
    with pytest.raises(MalformedManifestError, match=words):
        rebuild_payload(sign(PAYLOAD, signatures))


@pytest.mark.parametrize("name", ["Signatures", "\u017fignatures"])
def test_DG06_the_key_is_exactly_signatures(name: str) -> None:
    signed = sign(PAYLOAD).replace(b'"signatures"', json.dumps(name).encode())
    with pytest.raises(MalformedManifestError):
        rebuild_payload(signed)
    with pytest.raises(MalformedManifestError, match="missing signature key"):
        rebuild_payload(PAYLOAD)


def test_the_protected_header_is_read_strictly() -> None:
    twice = encode64(b'{"formatLength":5,"formatLength":6,"formatTail":"fQ"}')
    with pytest.raises(MalformedManifestError, match="duplicate"):
        rebuild_payload(sign(PAYLOAD, [signature(LENGTH, protected=twice)]))


def test_C04_C05_layers_are_base_first_and_keep_their_flags() -> None:
    tree = schema1()
    history = tree["history"]
    assert isinstance(history, list)
    told = json.loads(history[1]["v1Compatibility"])
    history[1]["v1Compatibility"] = json.dumps({**told, "throwaway": True})
    result = parsed(tree)
    assert [layer.digest for layer in result.layers] == [digest_of(f"blob {n}") for n in (1, 2, 3)]
    assert all(layer.size is None and layer.media_type is None for layer in result.layers)
    assert result.empty == (False, True, False)
    assert [json.loads(text)["id"] for text in result.history] == [*map(identifier, (1, 2, 3))]
    assert (result.name, result.tag, result.architecture) == ("library/thing", "1.0", "amd64")


def test_C06_the_empty_layer() -> None:
    assert gzip.decompress(EMPTY_LAYER_BYTES) == bytes(1024)
    assert (EMPTY_LAYER.digest, EMPTY_LAYER.size) == (Digest.of(EMPTY_LAYER_BYTES), 32)


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        pytest.param((1,), [0], id="P-05 one layer"),
        pytest.param((2, 2, 1), [2, 1], id="P-05 twice in a row"),
        pytest.param((2, 2, 2, 1, 1), [4, 2], id="P-05 rows"),
    ],
)
def test_P05_of_equal_neighbours_the_older_stays(numbers: tuple[int, ...], kept: list[int]) -> None:
    blobs: list[Tree] = [{"blobSum": f"blob at {place}"} for place in range(len(numbers))]
    result = parsed(schema1(numbers, fsLayers=blobs))
    assert [layer.digest for layer in result.layers] == [f"blob at {place}" for place in kept]
    assert len(result.history) == len(result.empty) == len(kept)


def history(*entries: object) -> Tree:
    """A schema 1 manifest with these v1Compatibility texts."""
    texts = [text if text is None else json.dumps(text) for text in entries]
    return schema1(
        history=[{"v1Compatibility": text} for text in texts],
        fsLayers=[{"blobSum": "x"} for _ in texts],
    )


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        pytest.param(schema1(schemaVersion=2), "schema version 2", id="P-03 P-02 version"),
        pytest.param(schema1(schemaVersion=None), "schema version", id="P-03 no version"),
        pytest.param(schema1(fsLayers=[]), "0 layers, but 3", id="P-03 lengths"),
        pytest.param(schema1(fsLayers=[], history=[]), "no layers", id="P-03 nothing"),
        pytest.param(schema1(fsLayers=None, history=None), "no layers", id="P-03 null"),
        pytest.param(schema1(history=[{}, {}, {}]), "without v1Compat", id="P-03 no text"),
        pytest.param(schema1(history=[{"v1Compatibility": {}}]), "Expected", id="P-03 no string"),
        pytest.param(schema1(fsLayers="x"), "Expected", id="J-05 layers"),
        pytest.param(history({}), "64 hex digits", id="P-04 no id"),
        pytest.param(history({"id": "A" * 64}), "64 hex digits", id="P-04 uppercase"),
        pytest.param(history({"id": "a" * 64 + "\n"}), "64 hex digits", id="P-04 D-05 newline"),
        pytest.param(history(None), "without v1Compat", id="P-03 null text"),
        pytest.param(history([]), "not a JSON object", id="P-03 an array within"),
        pytest.param(
            history({"id": identifier(1), "parent": identifier(0)}), "has a parent", id="P-04 base"
        ),
        pytest.param(
            history({"id": identifier(2), "parent": identifier(9)}, {"id": identifier(1)}),
            "instead of",
            id="P-05 wrong parent",
        ),
        pytest.param(
            history({"id": identifier(2)}, {"id": identifier(1)}), "instead of", id="P-05 no parent"
        ),
        pytest.param(
            history(
                {"id": identifier(1), "parent": identifier(2)},
                {"id": identifier(2), "parent": identifier(1)},
                {"id": identifier(1)},
            ),
            "more than once",
            id="P-04 repeated",
        ),
    ],
)
def test_rules_of_schema_1(tree: Tree, words: str) -> None:
    with pytest.raises(MalformedManifestError, match=words):
        parsed(tree)


@pytest.mark.parametrize("key", ["config", "layers", "manifests", "Layers"])
def test_A05_keys_of_other_kinds_are_refused(key: str) -> None:
    with pytest.raises(AmbiguousManifestError, match=r"unexpected fields .* in supposedly"):
        parsed(schema1(**{key: []}))


def test_A03_a_wrong_version_is_the_plainer_error() -> None:
    with pytest.raises(MalformedManifestError, match="schema version 2"):
        parsed(schema1(schemaVersion=2, layers=[]))

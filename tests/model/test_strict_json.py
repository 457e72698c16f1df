"""Rules J-01 to J-09, SEC-05, SEC-06: one document, one meaning."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asupplemented.errors import LimitExceededError, MalformedManifestError
from asupplemented.limits import MAX_JSON_DEPTH, MAX_MANIFEST
from asupplemented.model import strict_json
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.document import Document
from asupplemented.model.strict_json import (
    convert,
    decode,
    decode_quickly,
    fold,
    load,
    quick_decoder,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy

EMPTY = Document()


class Loose(msgspec.Struct):
    """A struct that promises nothing: it takes unknown fields and writes its defaults."""

    number: int = 0
    flag: bool = False
    words: tuple[str, ...] = ()
    by_name: dict[str, int] = {}
    nested: Descriptor | None = None
    anything: object = None


@pytest.mark.parametrize("text", ['{"size":1}', ' {"size" : 1}\r\n\t', '{"size":1,"extra":[{}]}'])
def test_a_plain_document_is_decoded(text: str) -> None:
    assert decode(text.encode(), Descriptor) == Descriptor(size=1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"LAYERS":[]}', id="J-01 capitals"),
        pytest.param('{"MediaType":"x"}', id="J-01 one capital"),
        pytest.param('{"mediatype":"x"}', id="J-01 lowercase"),
        pytest.param('{"layer\u017f":[]}', id="J-01 long s"),
        pytest.param('{"layer\\u017f":[]}', id="J-01 long s escaped"),
        pytest.param('{"config":{"platform":{"OS":"x"}}}', id="J-03 within"),
        pytest.param('{"manifests":[{},{"Digest":"x"}]}', id="J-03 within an element"),
        pytest.param('{"layers":[],"Layers":null}', id="J-03 null"),
        pytest.param('{"config":{"platform":{"o\\u017f.version":""}}}', id="J-01 dotted"),
    ],
)
def test_J03_a_key_that_is_almost_a_known_one_is_refused(text: str) -> None:
    with pytest.raises(MalformedManifestError, match="some readers take it for that"):
        decode(text.encode(), Document)


class Kelvin(msgspec.Struct):
    kind: str = ""


def test_J01_the_kelvin_sign_is_a_k() -> None:
    assert fold("\u212aind") == fold("KIND") == fold("kind") == "kind"
    with pytest.raises(MalformedManifestError, match="take it for"):
        decode('{"\u212aind":"x"}'.encode(), Kelvin)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"mediaType":"a","mediaType":"b"}', id="J-02 scalar"),
        pytest.param('{"mediaType":"a","mediaType":"a"}', id="J-02 same value"),
        pytest.param('{"mediaType":"a","mediaType":null}', id="J-02 null"),
        pytest.param('{"config":{"size":1},"config":{"digest":"x"}}', id="J-02b object"),
        pytest.param('{"layers":[{"size":1}],"layers":[{"digest":"b"}]}', id="J-02b array"),
        pytest.param('{"layers":[{"size":1,"size":2}]}', id="J-03 within"),
        pytest.param('{"annotations":{"a":"1","a":"2"}}', id="J-03 in a map of strings"),
        pytest.param('{"unknown":{"deep":[{"a":1,"a":2}]}}', id="J-03 in what is ignored"),
        pytest.param('{"media\\u0054ype":"a","mediaType":"b"}', id="J-03 escaped"),
        pytest.param('{"annotations":{"a":"","\\u0061":""}}', id="J-03 escaped in a map"),
        pytest.param('{"mediaType":"\\u003a","mediaType":"b"}', id="J-03 escaped colon"),
        pytest.param('{"mediaType":"a","mediaType":"\\u003A"}', id="J-03 another escaped colon"),
        pytest.param('{"mediaType":":","mediaType":"b"}', id="J-03 colon in what is lost"),
        pytest.param('{"mediaType":"a","mediaType":":::"}', id="J-03 colons in what stays"),
        pytest.param('{"annotations":{"\\ud800":"","\\ud801":""}}', id="J-07 equal when replaced"),
    ],
)
def test_J03_a_key_that_is_there_twice_is_refused(text: str) -> None:
    assert decode_quickly(text.encode(), Document) is None
    with pytest.raises(MalformedManifestError, match="duplicate key"):
        decode(text.encode(), Document)


@pytest.mark.parametrize(
    "text",
    [
        '{"annotations":{"Foo":"1","foo":"2","Layers":"3","MediaType":"4","\u017f":"5","s":"6"}}',
        '{"config":{"annotations":{"Digest":"x"}}}',
        '{"unknown":{"Layers":1,"layers":2}}',
    ],
)
def test_J03_maps_of_strings_and_unknown_objects_are_free(text: str) -> None:
    assert decode(text.encode(), Document) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"mediaType":null,"schemaVersion":null,"layers":null,"config":null}', EMPTY),
        ('{"annotations":{"a":null}}', Document(annotations={"a": ""})),
        ('{"layers":[null]}', Document(layers=(Descriptor(),))),
        ('{"config":{"urls":[null],"platform":{}}}', None),
        ('{"annotations":null}', EMPTY),
    ],
)
def test_J04_null_is_the_zero_value(text: str, expected: Document | None) -> None:
    decoded = decode(text.encode(), Document)
    if expected is None:
        assert decoded.config is not None
        assert decoded.config.urls == ("",)
        assert decoded.config.platform is not None
    else:
        assert decoded == expected


def test_J04_null_within_lists_and_maps_of_every_kind() -> None:
    text = b'{"words":[null,"a"],"by_name":{"a":null},"nested":{"annotations":{"b":null}}}'
    decoded = decode(text, Loose)
    assert (decoded.words, decoded.by_name) == (("", "a"), {"a": 0})
    assert decoded.nested == Descriptor(annotations={"b": ""})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"schemaVersion":"2"}', id="J-05 text"),
        pytest.param('{"schemaVersion":2.0}', id="J-05 2.0"),
        pytest.param('{"schemaVersion":2e0}', id="J-05 2e0"),
        pytest.param('{"schemaVersion":true}', id="J-05 bool"),
        pytest.param('{"schemaVersion":9223372036854775808}', id="J-05 beyond int64"),
        pytest.param('{"schemaVersion":-9223372036854775809}', id="J-05 below int64"),
        pytest.param('{"mediaType":5}', id="J-05 number"),
        pytest.param('{"layers":{}}', id="J-05 object"),
        pytest.param('{"config":[]}', id="J-05 array"),
        pytest.param('{"annotations":{"a":1}}', id="J-05 P-09 annotation"),
        pytest.param('{"config":{"size":"5"}}', id="SEC-06 text as size"),
        pytest.param('{"config":{"size":false}}', id="SEC-06 bool as size"),
        pytest.param('{"config":{"urls":"x"}}', id="J-05 text for a list"),
    ],
)
@pytest.mark.parametrize("prefix", ["", '"extra":0,'], ids=["quick", "exact"])
def test_J05_a_wrong_type_is_an_error(text: str, prefix: str) -> None:
    with pytest.raises(MalformedManifestError, match="Expected"):
        decode(("{" + prefix + text[1:]).encode(), Document)


def test_J05_the_largest_numbers_pass() -> None:
    assert decode(b'{"schemaVersion":9223372036854775807}', Document).schema_version == 2**63 - 1
    assert decode(b'{"schemaVersion":-9223372036854775808}', Document).schema_version == -(2**63)
    assert decode(b'{"size":9223372036854775807}', Descriptor).size == 2**63 - 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"a":NaN}', id="J-06 NaN"),
        pytest.param(b'{"a":Infinity}', id="J-06 Infinity"),
        pytest.param(b'{"a":-Infinity}', id="J-06 minus Infinity"),
        pytest.param(b"\xef\xbb\xbf{}", id="J-06 BOM"),
        pytest.param("{}".encode("utf-16"), id="J-06 UTF-16"),
        pytest.param("{}".encode("utf-16-le"), id="J-06 UTF-16 LE"),
        pytest.param("{}".encode("utf-32"), id="J-06 UTF-32"),
        pytest.param(b"{} x", id="J-08 trailing word"),
        pytest.param(b"{}{}", id="J-08 trailing object"),
        pytest.param(b"{}\0", id="J-08 trailing NUL"),
        pytest.param(b"", id="empty"),
        pytest.param(b"  \n", id="blank"),
        pytest.param(b"{", id="cut"),
        pytest.param(b'{"a":1,}', id="trailing comma"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b'{"a":+1}', id="plus"),
        pytest.param(b'{"a":.5}', id="no digit"),
        pytest.param(b'{"a":"\n"}', id="line break in a string"),
        pytest.param(b'{"a":"\\x41"}', id="unknown escape"),
        pytest.param(b'{"a":/**/1}', id="comment"),
        pytest.param(b"\xff{}", id="J-07 invalid UTF-8 outside of a string"),
        pytest.param(b"<html></html>", id="HTML"),
        pytest.param(b"{\xc2\xa0}", id="foreign space"),
        pytest.param(b'{"a":' + b"1" * 5000 + b"}", id="SEC-06 5000 digits"),
    ],
)
def test_J06_J08_what_is_not_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedManifestError, match="not JSON"):
        decode(raw, Document)


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"5", b"true", b"1.5"])
def test_J09_only_objects_and_null_are_documents(raw: bytes) -> None:
    with pytest.raises(MalformedManifestError, match="not a JSON object"):
        decode(raw, Document)


def test_J09_null_is_an_empty_document() -> None:
    assert decode(b" null ", Document) == EMPTY


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"mediaType":"a\xffb"}', "a\ufffdb"),
        (b'{"mediaType":"\xed\xa0\x80"}', "\ufffd\ufffd\ufffd"),
        (b'{"mediaType":"\\ud800"}', "\ufffd"),
        (b'{"mediaType":"\\udc00x"}', "\ufffdx"),
        (b'{"mediaType":"\\ud800\\ud83d\\ude00"}', "\ufffd\U0001f600"),
        (b'{"mediaType":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"mediaType":"\\\\ud800"}', "\\ud800"),
        (b'{"mediaType":"\\uD83D\\uD83D"}', "\ufffd\ufffd"),
    ],
)
def test_J07_what_is_no_text_is_replaced(raw: bytes, expected: str) -> None:
    assert decode(raw, Document).media_type == expected
    assert decode(raw[:-1] + b',"extra":0}', Document).media_type == expected


@pytest.mark.parametrize("rest", [b" garbage", b"{}", b"\0", b"\xff", b"]"])
def test_J08_what_follows_can_be_ignored(rest: bytes) -> None:
    raw = b'\n {"mediaType":"x"}' + rest
    assert decode(raw, Document, trailing=True).media_type == "x"
    with pytest.raises(MalformedManifestError):
        decode(raw, Document)


def test_J08_what_comes_first_is_never_ignored() -> None:
    for raw in (b"x {}", b"", b"  ", b"\xef\xbb\xbf{}", b'{"a":1,"a":2} x'):
        with pytest.raises(MalformedManifestError):
            decode(raw, Document, trailing=True)


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return b'{"x":' + opening * (depth - 1) + b"0" + closing * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"y":', b"}"), (b'[{"y":', b"}]")]
)
def test_SEC06_depth_is_bounded_on_both_sides(opening: bytes, closing: bytes) -> None:
    step = 2 if opening.startswith(b"[{") else 1
    deepest = (MAX_JSON_DEPTH - 1) // step + 1
    assert load(nested(deepest, opening, closing))
    with pytest.raises(MalformedManifestError, match=f"deeper than {MAX_JSON_DEPTH}"):
        load(nested(deepest + 1, opening, closing))


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
def test_SEC06_a_bottomless_document_is_refused(depth: int) -> None:
    for raw in (nested(depth, b"[", b"]"), b"[" * depth, b'{"a":' * depth):
        with pytest.raises(MalformedManifestError):
            decode(raw, Document)


def test_errors_say_what_and_stay_short() -> None:
    hostile = b'{"layers":' + b'"\\n\x1b' * 100_000
    for raw in (
        hostile,
        b"<" * 100_000,
        b'{"' + b"k" * 100_000 + b'":1,"' + b"k" * 100_000 + b'":1}',
    ):
        with pytest.raises(MalformedManifestError, match=r"^the thing") as caught:
            decode(raw, Document, what="the thing")
        assert len(str(caught.value)) < 400
    wrong = json.dumps({"annotations": {"k" * 100_000: 5}}).encode()
    with pytest.raises(MalformedManifestError, match=r"^the thing") as caught:
        decode(wrong, Document, what="the thing")
    assert len(str(caught.value)) < 400


def test_converting_does_not_change_the_tree() -> None:
    tree = load(b'{"mediaType":null,"layers":[null],"extra":1}')
    convert(tree, Document)
    assert tree == {"mediaType": None, "layers": [None], "extra": 1}


# ---------------------------------------------------------------------- the quick way is no other


@pytest.mark.parametrize("kind", [Document, Descriptor])
def test_the_types_of_manifests_may_take_the_quick_way(kind: type[msgspec.Struct]) -> None:
    assert quick_decoder(kind) is not None


class Writing(msgspec.Struct, forbid_unknown_fields=True):
    """It writes its defaults: their colons would make up for those of duplicates."""

    first: str | None = None
    second: str | None = None


class Unsure(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    inner: Writing | None = None


class Untyped(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    inner: msgspec.Raw = msgspec.Raw(b"")


@pytest.mark.parametrize("kind", [Loose, Writing, Unsure, Untyped])
def test_a_type_without_the_promise_may_not(kind: type[msgspec.Struct]) -> None:
    assert quick_decoder(kind) is None


def test_a_type_without_the_promise_still_finds_duplicates() -> None:
    with pytest.raises(MalformedManifestError, match="duplicate"):
        decode(b'{"first":"a","first":"b"}', Writing)


@pytest.mark.parametrize("indent", [None, 2])
def test_tidy_documents_take_the_quick_way(indent: int | None) -> None:
    tidy = {
        "schemaVersion": 2,
        "mediaType": "x",
        "config": {"mediaType": "y", "digest": "sha256:0", "size": 5},
        "layers": [{"digest": "a:b", "annotations": {"k:1": "v:<>"}, "urls": ["http://x"]}],
        "annotations": {"author": 'A "B" <c@d>\n\\'},
    }
    raw = json.dumps(tidy, indent=indent).replace("<", "\\u003c").encode()
    quick = decode_quickly(raw, Document)
    assert quick is not None
    assert quick == convert(load(raw), Document)


def pairs(keys: SearchStrategy[str], values: SearchStrategy[str]) -> SearchStrategy[str]:
    """JSON objects as text, with keys as often as they come."""
    pair = st.tuples(keys, st.sampled_from([":", " : ", "\n:"]), values).map("".join)
    return st.lists(pair, max_size=4).map(lambda each: "{" + ",".join(each) + "}")


def quoted(*texts: str) -> SearchStrategy[str]:
    return st.sampled_from([f'"{text}"' for text in texts])


scalars = st.one_of(
    quoted("", "x", ":", "::", "a:b", "\\u003a", "\\u003A", "\\\\u003a", "\\ud800", "é", "\\/"),
    quoted('\\"', '\\":', ' : "'.replace('"', '\\"')),
    st.sampled_from(["0", "5", "-1", "2.0", "1e3", "null", "true", "[]", "{}", "-0"]),
)


@st.composite
def documents(draw: DrawFn) -> str:
    annotations = pairs(quoted("a", "b", ":", "\\u0061", "mediaType"), scalars)
    platform = pairs(quoted("os", "variant", "architecture", "OS"), scalars)
    entry = pairs(
        quoted("digest", "size", "mediaType", "annotations", "platform", "Size", "data"),
        st.one_of(scalars, annotations, platform),
    )
    entries = st.lists(entry, max_size=3).map(lambda each: "[" + ",".join(each) + "]")
    top = pairs(
        quoted("mediaType", "config", "layers", "annotations", "media\\u0054ype", "extra"),
        st.one_of(scalars, entry, entries, annotations),
    )
    return draw(top) + draw(st.sampled_from(["", " ", "\n", "x"]))


def outcome(action: Callable[[], Document | None]) -> Document | None:
    try:
        return action()
    except (MalformedManifestError, LimitExceededError):
        return None


@settings(max_examples=400, deadline=None)
@given(documents())
def test_the_quick_way_accepts_nothing_that_the_exact_way_does_not(text: str) -> None:
    raw = text.encode()
    quick = decode_quickly(raw, Document)
    exact = outcome(lambda: convert(load(raw), Document))
    if quick is not None:
        assert quick == exact
    assert outcome(lambda: decode(raw, Document)) == exact


@pytest.mark.parametrize("prefix", ["", '"extra":0,'], ids=["quick", "exact"])
@pytest.mark.parametrize(
    ("size", "expected"), [(-1, None), (-(2**70), None), (0, 0), (2**63, 2**63), (2**80, 2**80)]
)
def test_C08_a_bad_size_is_no_business_of_the_neighbours(
    size: int, expected: int | None, prefix: str
) -> None:
    text = f'{{"manifests":[{{{prefix}"digest":"a","size":{size}}},{{"digest":"b","size":7}}]}}'
    found = decode(text.encode(), Document).manifests
    assert found is not None
    assert [entry.size for entry in found] == [expected, 7]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), documents(), st.integers(0, 200))
def test_mangled_bytes_raise_nothing_but_our_own_error(cut: bytes, text: str, at: int) -> None:
    raw = text.encode()
    mangled = raw[:at] + cut + raw[at + len(cut) :]
    quick = decode_quickly(mangled, Document)
    exact = outcome(lambda: convert(load(mangled), Document))
    assert quick is None or quick == exact


BOMBS = {
    "empty objects": b'{"x":[' + b"{}," * (MAX_MANIFEST // 3 - 4) + b"{}]}",
    "tiny descriptors": b'{"layers":[' + b'{"size":1},' * (MAX_MANIFEST // 11 - 4) + b"{}]}",
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(350_000)) + b"}",
    "escapes": b'{"x":"' + b"\\ud800" * (MAX_MANIFEST // 6 - 4) + b'"}',
    "backslashes": b'{"x":"' + b"\\\\" * (MAX_MANIFEST // 2 - 8) + b'"}',
    "chains": b'{"x":[' + (b"[" * 900 + b"]" * 900 + b",") * 2_000 + b"0]}",
    "numbers": b'{"x":[' + (b"9" * 4_000 + b",") * 1_000 + b"0]}",
}


@pytest.mark.parametrize("raw", BOMBS.values(), ids=BOMBS)
def test_SEC06_four_mebibytes_of_anything_take_bounded_time(raw: bytes) -> None:
    assert len(raw) <= MAX_MANIFEST
    began = time.process_time()
    outcome(lambda: decode(raw, Document))
    assert time.process_time() - began < 10  # CPU time: other load does not count


def test_L04_a_document_has_at_most_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_JSON_VALUES", 5)
    for raw in (b'{"annotations":{"a":"","b":"","c":"","d":""}}', b'{"artifactType":"{{{{{,,,,,"}'):
        decode(raw, Document)
        load(raw)
        strict_json.decode_leniently(raw, Document)
    for raw in (b'{"x":[{},{},{}]}', b'{"annotations":{"a":"","b":"","c":"","d":"","e":""}}'):
        for read in (load, lambda raw: decode(raw, Document)):
            with pytest.raises(LimitExceededError) as caught:
                read(raw)
            assert caught.value.limit == 5
        with pytest.raises(LimitExceededError):
            strict_json.decode_leniently(raw, Document)

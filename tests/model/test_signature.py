"""Rule SR-12: how signatures are framed on disk."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import LayoutError
from asupplemented.model.signature import Signature, SignatureFormat

OPENPGP = [0xA0, 0xA3, 0xC8, 0x90, 0x92, 0x3D, 0xC4, 0x88, 0x8B, 0xC2]


@pytest.mark.parametrize("first", OPENPGP, ids=hex)
def test_SR12_a_bare_openpgp_message_is_a_simple_signature(first: int) -> None:
    blob = bytes([first]) + b"\0message\n"
    signature = Signature.from_blob(blob)
    assert signature == Signature("simple-signing", blob)
    assert signature.to_blob() == blob


@pytest.mark.parametrize("name", ["simple-signing", "sigstore-json"])
def test_SR12_a_frame_names_its_format(name: str) -> None:
    signature = Signature.from_blob(b"\0" + name.encode() + b"\n{\n\0}")
    assert (signature.format, signature.data) == (name, b"{\n\0}")


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        pytest.param(b"", "empty", id="SR-12 empty"),
        pytest.param(b"{}", "0x7b", id="SR-12 JSON"),
        pytest.param(b"\x9f", "0x9f", id="SR-12 beside a range"),
        pytest.param(b"\0sigstore-json", "frame", id="SR-12 no line break"),
        pytest.param(b"\0" + b"a" * 5000 + b"\n", "frame", id="SR-12 endless name"),
        pytest.param(b"\0sig\x7fstore\nx", "frame", id="SR-12 control character"),
        pytest.param("\0sigstöre\nx".encode(), "frame", id="SR-12 not ASCII"),
        pytest.param(b"\0\nx", "unknown format", id="SR-12 no name"),
        pytest.param(b"\0notary\nx", "unknown format", id="SR-12 unknown"),
    ],
)
def test_SR12_anything_else_is_an_error(blob: bytes, words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        Signature.from_blob(blob)


@given(st.sampled_from(get_args(SignatureFormat)), st.binary(max_size=80))
def test_SR12_what_is_written_is_read_back(format_name: SignatureFormat, data: bytes) -> None:
    signature = Signature(format_name, data)
    assert Signature.from_blob(signature.to_blob()) == signature


def test_the_bytes_of_a_signature_are_not_shown() -> None:
    signature = Signature("sigstore-json", b"secret", annotations={"a": "b"})
    assert "secret" not in repr(signature)
    assert hash(signature) == hash(Signature("sigstore-json", b"secret"))

"""Descriptors: values as documents write them."""

from __future__ import annotations

import msgspec
import pytest

from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.platform import Platform
from asupplemented.model.strict_json import decode

DIGEST = Digest.of(b"x")


def test_three_things_make_a_descriptor() -> None:
    descriptor = Descriptor("a/b", DIGEST, 1)
    assert (descriptor.media_type, descriptor.digest, descriptor.size) == ("a/b", DIGEST, 1)
    assert (descriptor.platform, descriptor.artifact_type, descriptor.data) == (None,) * 3
    assert (descriptor.urls, descriptor.annotations) == ((), {})


def test_P11_what_is_not_said_is_unknown() -> None:
    assert decode(b"{}", Descriptor) == Descriptor(None, "", None)


def test_a_descriptor_is_a_value_and_can_be_a_key() -> None:
    left = Descriptor("a/b", DIGEST, 1, annotations={"k": "v"})
    right = Descriptor("a/b", str(DIGEST), 1, annotations={"k": "v"})
    assert left == right
    assert {left: 1}[right] == 1
    assert left != Descriptor("a/b", DIGEST, 1)
    with pytest.raises(AttributeError):
        left.size = 2  # type: ignore[misc]  # it is frozen


def test_AR06_to_dict_writes_what_is_known_and_is_read_back() -> None:
    full = Descriptor(
        "a/b",
        DIGEST,
        0,
        Platform("linux", "arm", "v7", "1", ("f",)),
        ("https://x",),
        {"k": "v"},
        "c/d",
        "e30=",
    )
    plain = full.to_dict()
    assert plain == {
        "mediaType": "a/b",
        "digest": DIGEST,
        "size": 0,
        "platform": {
            "os": "linux",
            "architecture": "arm",
            "variant": "v7",
            "os.version": "1",
            "os.features": ["f"],
        },
        "urls": ["https://x"],
        "annotations": {"k": "v"},
        "artifactType": "c/d",
        "data": "e30=",
    }
    assert type(plain["digest"]) is str
    assert decode(msgspec.json.encode(plain), Descriptor) == full
    assert Descriptor(None, "x").to_dict() == {"digest": "x"}

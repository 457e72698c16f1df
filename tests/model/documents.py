"""Manifests for the tests of the model, made from nothing."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from asupplemented.model import media_type as kinds
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = (
    "Tree",
    "config",
    "digest_of",
    "docker_list",
    "docker_manifest",
    "entry",
    "identifier",
    "layer",
    "oci_index",
    "oci_manifest",
    "schema1",
    "sign",
    "signature",
    "to_json",
)

Tree = dict[str, object]


def to_json(tree: Mapping[str, object]) -> bytes:
    return json.dumps(tree, indent=3).encode()


def digest_of(name: str) -> Digest:
    """A digest that a test can know by a name."""
    return Digest.of(name.encode())


def config(kind: str = kinds.OCI_CONFIG, name: str = "config") -> Tree:
    return {"mediaType": kind, "digest": digest_of(name), "size": 7}


def layer(name: str, kind: str = kinds.OCI_LAYER_GZIP) -> Tree:
    return {"mediaType": kind, "digest": digest_of(name), "size": 9}


def oci_manifest(**changes: object) -> Tree:
    return {
        "schemaVersion": 2,
        "mediaType": kinds.OCI_MANIFEST,
        "config": config(),
        "layers": [layer("base"), layer("top")],
        **changes,
    }


def docker_manifest(**changes: object) -> Tree:
    return {
        "schemaVersion": 2,
        "mediaType": kinds.DOCKER_MANIFEST,
        "config": config(kinds.DOCKER_CONFIG),
        "layers": [layer("base", kinds.DOCKER_LAYER_GZIP), layer("top", kinds.DOCKER_LAYER)],
        **changes,
    }


def entry(name: str, platform: str | None = None, **more: object) -> Tree:
    """An entry of an index; `platform` is os/architecture[/variant], taken literally."""
    made: Tree = {"mediaType": kinds.OCI_MANIFEST, "digest": digest_of(name), "size": 5, **more}
    if platform is not None:
        fields = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        made["platform"] = fields
    return made


def oci_index(*entries: Tree, **changes: object) -> Tree:
    return {
        "schemaVersion": 2,
        "mediaType": kinds.OCI_INDEX,
        "manifests": list(entries) or [entry("one", "linux/amd64")],
        **changes,
    }


def docker_list(*entries: Tree, **changes: object) -> Tree:
    return {**oci_index(*entries), "mediaType": kinds.DOCKER_LIST, **changes}


def identifier(number: int) -> str:
    """An image ID of schema 1."""
    return f"{number:064x}"


def schema1(numbers: Sequence[int] = (3, 2, 1), **changes: object) -> Tree:
    """Unsigned schema 1, newest layer first, as it is stored."""
    history: list[Tree] = []
    for position, number in enumerate(numbers):
        later = [other for other in numbers[position + 1 :] if other != number]
        told: Tree = {"id": identifier(number), "created": "2020-01-01T00:00:00Z"}
        if later:
            told["parent"] = identifier(later[0])
        history.append({"v1Compatibility": json.dumps(told)})
    return {
        "schemaVersion": 1,
        "name": "library/thing",
        "tag": "1.0",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": digest_of(f"blob {number}")} for number in numbers],
        "history": history,
        **changes,
    }


def encode64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signature(length: object, tail: bytes | None = b"\n}", **changes: object) -> Tree:
    """One signature block, with a signature that is never checked."""
    protected: Tree = {"formatLength": length, "time": "2020-01-01T00:00:00Z"}
    if tail is not None:
        protected["formatTail"] = encode64(tail)
    key = {"kty": "EC", "crv": "P-256", "kid": "A:B", "x": encode64(b"x" * 32)}
    return {
        "header": {"jwk": {**key, "y": encode64(b"y" * 32)}, "alg": "ES256"},
        "signature": encode64(b"s" * 64),
        "protected": encode64(json.dumps(protected).encode()),
        **changes,
    }


def sign(payload: bytes, signatures: object = None) -> bytes:
    """Put signatures into an unsigned manifest as Docker does: before its last line break.

    Args:
        payload: JSON that ends with a line break and a brace.
        signatures: What to write; None for one right signature.
    """
    prefix, tail = payload[:-2], payload[-2:]
    assert tail == b"\n}"
    blocks = [signature(len(prefix), tail)] if signatures is None else signatures
    return prefix + b',\n   "signatures": ' + json.dumps(blocks).encode() + tail

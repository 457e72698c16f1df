"""Docker schema 1: signed payload (rules DG-02 to DG-09), layers (P-03 to P-05, C-04 to C-06).

Signatures are undone, never checked (rule DG-05): the digest of a signed manifest is that of the
payload, so it is the payload that is verified, and nothing but the payload that is read.
"""

from __future__ import annotations

import binascii
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from asupplemented.errors import MalformedManifestError, excerpt
from asupplemented.model import strict_json
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.document import Integer, check_foreign, find_foreign

if TYPE_CHECKING:
    from asupplemented.model.strict_json import Json

__all__ = ("EMPTY_LAYER", "EMPTY_LAYER_BYTES", "Schema1", "is_signed", "parse", "rebuild_payload")

EMPTY_LAYER_BYTES: Final = bytes.fromhex(
    "1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000"
)
"""The gzip of 1024 NULs: the blob of nearly every layer that holds nothing (rule C-06)."""

EMPTY_LAYER: Final = Descriptor(
    None,
    "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
    len(EMPTY_LAYER_BYTES),
)
"""`EMPTY_LAYER_BYTES` as a descriptor."""

_WHAT: Final = "schema 1 manifest"
_KEYS: Final = frozenset(("fsLayers", "history"))
_ID: Final = re.compile(r"[a-f0-9]{64}", re.ASCII)
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*+={0,2}", re.ASCII)


class _FsLayer(msgspec.Struct, frozen=True, rename="camel"):
    blob_sum: str = ""


class _History(msgspec.Struct, frozen=True):
    compatibility: str | None = msgspec.field(default=None, name="v1Compatibility")


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: Integer | None = None
    media_type: str | None = None
    name: str = ""
    tag: str = ""
    architecture: str = ""
    fs_layers: tuple[_FsLayer, ...] = ()
    history: tuple[_History, ...] = ()


class _Compatibility(msgspec.Struct, frozen=True):
    id: str = ""
    parent: str = ""
    throwaway: bool = False


class _Signature(msgspec.Struct, frozen=True):
    header: _Header | None = None
    protected: str = ""


class _Header(msgspec.Struct, frozen=True):
    jwk: _Key | None = None


class _Key(msgspec.Struct, frozen=True):
    kty: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None
    n: str | None = None
    e: str | None = None


class _Protected(msgspec.Struct, frozen=True, rename="camel"):
    format_length: Integer | None = None
    format_tail: str | None = None


class _Signatures(msgspec.Struct, frozen=True):
    signatures: tuple[_Signature, ...] | None = None


@dataclass(frozen=True, slots=True)
class Schema1:
    """What a schema 1 manifest says, base layer first (rule C-04).

    Attributes:
        name: Repository, as written; "" if the manifest does not say.
        tag: As written; "" if the manifest does not say.
        architecture: As written; "" if the manifest does not say.
        layers: Blobs of all layers, throwaway ones included; size and media type are unknown.
        empty: For each layer, whether the manifest calls it throwaway (rule C-05).
        history: The ``v1Compatibility`` of each layer: JSON, as written.
    """

    name: str
    tag: str
    architecture: str
    layers: tuple[Descriptor, ...]
    empty: tuple[bool, ...]
    history: tuple[str, ...]


def is_signed(tree: dict[str, Json]) -> bool:
    """Whether a manifest has signatures, be they right or wrong (rule G-04)."""
    return tree.get("signatures") is not None


def rebuild_payload(raw: bytes) -> bytes:
    """The bytes that were signed: what remains when the signatures are undone (rule DG-02).

    Raises:
        MalformedManifestError: There are no signatures, they are broken, or they disagree
            (rules DG-03, DG-04, DG-06, DG-07, DG-08).
    """
    document = strict_json.decode(raw, _Signatures, what=_WHAT)
    if not document.signatures:
        raise _malformed("missing signature key, or no signature in it")
    formats = {_read_format(signature) for signature in document.signatures}
    if len(formats) != 1:
        raise _malformed("conflicting format length or tail of its signatures")
    length, tail = formats.pop()
    if length > len(raw):
        raise _malformed(f"format length {length} is more than its {len(raw)} bytes")
    return raw[:length] + tail


def parse(payload: bytes, media_type: str) -> Schema1:
    """Read an unsigned manifest, or the payload of a signed one.

    Raises:
        MalformedManifestError: A rule of the format is broken (rules P-03 to P-05).
        AmbiguousManifestError: It has keys of another kind (rule A-02).
    """
    tree = strict_json.load(payload, what=_WHAT)
    manifest = strict_json.convert(tree, _Manifest, what=_WHAT)
    if manifest.schema_version != 1:
        raise _malformed(f"unsupported schema version {manifest.schema_version}")
    check_foreign(find_foreign(tree, _KEYS), media_type)
    if len(manifest.fs_layers) != len(manifest.history):
        count = f"{len(manifest.fs_layers)} layers, but {len(manifest.history)} history entries"
        raise _malformed(count)
    if not manifest.fs_layers:
        raise _malformed("no layers")
    history = [_text_of(entry) for entry in manifest.history]
    images = [strict_json.decode(text.encode(), _Compatibility, what=_WHAT) for text in history]
    _check_ids(images)
    # Newest first, as stored; reversed it is base first.
    kept = [index for index in range(len(images)) if not _is_repeated(images, index)][::-1]
    return Schema1(
        name=manifest.name,
        tag=manifest.tag,
        architecture=manifest.architecture,
        layers=tuple(Descriptor(None, manifest.fs_layers[index].blob_sum) for index in kept),
        empty=tuple(images[index].throwaway for index in kept),
        history=tuple(history[index] for index in kept),
    )


def _text_of(entry: _History) -> str:
    if entry.compatibility is None:
        raise _malformed("a history entry without v1Compatibility")
    return entry.compatibility


def _check_ids(images: list[_Compatibility]) -> None:
    """Each layer names the next older one as its parent (rules P-04, P-05)."""
    for image in images:
        if _ID.fullmatch(image.id) is None:
            raise _malformed(f"image ID {excerpt(image.id)} is not 64 hex digits")
    if images[-1].parent:
        raise _malformed(f"the base layer has a parent, {excerpt(images[-1].parent)}")
    seen: set[str] = set()
    for newer, older in itertools.pairwise(images):
        if newer.id == older.id:
            continue
        if older.id in seen:
            raise _malformed(f"image ID {older.id} appears more than once")
        seen.add(newer.id)
        if newer.parent != older.id:
            raise _malformed(f"parent {excerpt(newer.parent)} instead of {older.id}")


def _is_repeated(images: list[_Compatibility], index: int) -> bool:
    """Of entries with one ID in a row, the oldest stays (rule P-05)."""
    return index + 1 < len(images) and images[index].id == images[index + 1].id


def _read_format(signature: _Signature) -> tuple[int, bytes]:
    """Length of the signed prefix, and the tail that follows it in the payload."""
    key = signature.header.jwk if signature.header is not None else None
    if key is not None and not _is_readable(key):
        raise _malformed("a signature with an unreadable key")
    protected = strict_json.decode(_decode64(signature.protected), _Protected, what=_WHAT)
    if protected.format_length is None or protected.format_tail is None:
        raise _malformed("a signature without format length or tail")
    if protected.format_length <= 0:
        raise _malformed(f"format length {protected.format_length} is not positive")
    return protected.format_length, _decode64(protected.format_tail)


def _is_readable(key: _Key) -> bool:
    """Whether it could be a public key (rule DG-04); nothing is verified with it (rule DG-05)."""
    match key:
        case _Key(kty="EC", crv=str(), x=str() as x, y=str() as y):
            return bool(_decode64(x) and _decode64(y))
        case _Key(kty="RSA", n=str() as n, e=str() as e):
            return bool(_decode64(n) and _decode64(e))
        case _:
            return False


def _decode64(text: str) -> bytes:
    compact = text.replace("\n", "").replace(" ", "")
    padded = compact + "=" * (-len(compact) % 4)
    if len(compact) % 4 == 1 or _BASE64URL.fullmatch(padded) is None:
        raise _malformed(f"a signature with broken base64url {excerpt(text, 50)}")
    try:
        return binascii.a2b_base64(padded.replace("-", "+").replace("_", "/"), strict_mode=True)
    except binascii.Error as error:
        raise _malformed(f"a signature with broken base64url {excerpt(text, 50)}") from error


def _malformed(fault: str) -> MalformedManifestError:
    return MalformedManifestError(f"{_WHAT}: {fault}")

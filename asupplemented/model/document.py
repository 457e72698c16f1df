"""The JSON of a manifest, before its kind is known."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from asupplemented.errors import AmbiguousManifestError, LimitExceededError
from asupplemented.limits import MAX_JSON_VALUES, MAX_LAYERS
from asupplemented.model import strict_json
from asupplemented.model.descriptor import INT64_MAX, Descriptor
from asupplemented.model.strict_json import Json, fold

__all__ = (
    "Document",
    "Head",
    "Integer",
    "Reading",
    "check_foreign",
    "check_layers",
    "convert",
    "convert_as",
    "find_foreign",
    "read",
    "read_head",
    "read_quickly",
)

_WHAT: Final = "manifest"

_TYPED: Final = ("config", "layers", "manifests")
_TELLING: Final = {fold(key): key for key in (*_TYPED, "fsLayers", "history")}
"""The keys that tell one kind of manifest from another (rule A-01)."""

Integer = Annotated[int, msgspec.Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
"""A number that fits 64 bits: any other makes a document malformed (rule J-05)."""


class Document(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename="camel",
):
    """All fields of a manifest or index of Docker schema 2 or OCI.

    None stands for a missing or null field; an empty field is not None.
    """

    schema_version: Integer | None = None
    media_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    annotations: dict[str, str] = {}
    artifact_type: str | None = None
    subject: Descriptor | None = None


class Head(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that tell the kind of a manifest (rule G-01).

    Attributes:
        schema_version: Or None.
        media_type: Or None.
        signed: Whether there are signatures, be they right or wrong (rule G-04).
    """

    schema_version: Integer | None = None
    media_type: str | None = None
    signed: bool = False

    @classmethod
    def of(cls, document: Document) -> Head:
        """The head of a document that was read, which cannot have signatures."""
        return cls(document.schema_version, document.media_type)


class _QuickHead(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: Integer | None = None
    media_type: str | None = None
    signatures: msgspec.Raw = msgspec.Raw(b"null")


class _ExactHead(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: Integer | None = None
    media_type: str | None = None
    signatures: object = None


_QUICK_HEAD: Final = msgspec.json.Decoder(_QuickHead)


Reading: TypeAlias = Document | dict[str, Json]
"""A parsed manifest: typed if the quick way accepted it, else a tree."""


def read(raw: bytes) -> Reading:
    """Read a manifest of any kind, strictly.

    Raises:
        MalformedManifestError: It is not a JSON object, or holds a key twice.
        LimitExceededError: It holds more than ``MAX_JSON_VALUES`` values.
    """
    strict_json.check_values(raw, _WHAT)
    document = strict_json.decode_quickly(raw, Document)
    return strict_json.load(raw, what=_WHAT) if document is None else document


def read_quickly(raw: bytes) -> Document | None:
    """Read a manifest that is nothing unusual: its head, and all else.

    What this accepts, `read` and `read_head` accept with the same result, and it has no signatures.

    Returns:
        None if only `read_head` and `read` can tell what it is, or is not.
    """
    if len(raw) > MAX_JSON_VALUES:  # so the cap is for `read` to check, after the head
        return None
    return strict_json.decode_quickly(raw, Document)


def read_head(raw: bytes) -> Head:
    """Read the fields that tell the kind of a manifest, and nothing else (rule P-06).

    The other fields take no memory. Whether their keys are right is for `read` to say.

    Raises:
        MalformedManifestError: It is not a JSON object, or one of these fields has the wrong type.
        LimitExceededError: It holds more than ``MAX_JSON_VALUES`` values.
    """
    try:
        quick = _QUICK_HEAD.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        exact = strict_json.convert(strict_json.load(raw, what=_WHAT), _ExactHead, what=_WHAT)
        return Head(exact.schema_version, exact.media_type, exact.signatures is not None)
    signed = bytes(quick.signatures).strip() != b"null"
    return Head(quick.schema_version, quick.media_type, signed)


def convert(reading: Reading) -> Document:
    """Convert a manifest that is not schema 1 to its typed form.

    Raises:
        MalformedManifestError: A field has the wrong type, or a known name in the wrong case.
    """
    if isinstance(reading, Document):
        return reading
    return strict_json.convert(reading, Document, what=_WHAT)


def convert_as(reading: Reading, media_type: str, allowed: frozenset[str]) -> Document:
    """The typed document of a manifest that must not look like another kind (rules A).

    Raises:
        MalformedManifestError: See `convert`; malformed input is reported first (rule A-03).
        AmbiguousManifestError: It has keys of another kind.
    """
    foreign = find_foreign(reading, allowed)
    if not foreign:
        return reading if isinstance(reading, Document) else convert(reading)
    if not isinstance(reading, Document):
        reading = {key: value for key, value in reading.items() if key not in foreign}
    typed = convert(reading)
    check_foreign(foreign, media_type)
    return typed


def check_layers(count: int) -> None:
    """Refuse a manifest with too many layers (rule L-04).

    Raises:
        LimitExceededError: `count` is above ``MAX_LAYERS``.
    """
    if count > MAX_LAYERS:
        message = f"the manifest names {count} layers, more than {MAX_LAYERS}"
        raise LimitExceededError(message, limit=MAX_LAYERS)


def find_foreign(reading: Reading, allowed: frozenset[str]) -> tuple[str, ...]:
    """Keys that belong to another kind of manifest, in whatever case they are written (rule A-01).

    Args:
        reading: The manifest.
        allowed: The keys of its own kind.
    """
    if isinstance(reading, Document):
        foreign = [
            key for key in _TYPED if key not in allowed and getattr(reading, key) is not None
        ]
        return tuple(foreign)
    present = [key for key, value in reading.items() if value is not None]
    return tuple([key for key in present if _TELLING.get(fold(key), "") not in {"", *allowed}])


def check_foreign(foreign: tuple[str, ...], media_type: str) -> None:
    """Refuse a manifest that could be read as another kind (rule A-02).

    Raises:
        AmbiguousManifestError: `foreign` is not empty.
    """
    if foreign:
        keys = ", ".join(map(repr, foreign))
        message = (
            f"rejecting ambiguous manifest, unexpected fields [{keys}] in supposedly {media_type}"
        )
        raise AmbiguousManifestError(message)

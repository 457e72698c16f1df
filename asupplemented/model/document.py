"""Documents: the JSON of manifests, before anybody knows which kind of manifest it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeAlias

import msgspec

from asupplemented.errors import AmbiguousManifestError
from asupplemented.model import strict_json
from asupplemented.model.descriptor import INT64_MAX, Descriptor
from asupplemented.model.strict_json import Json, fold

__all__ = (
    "Document",
    "Head",
    "Integer",
    "Reading",
    "check_foreign",
    "convert",
    "convert_as",
    "find_foreign",
    "read",
    "read_head",
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
    """All that a manifest or index of Docker schema 2 or OCI can hold.

    None means that a field is not there or null; what is there and empty is not None.
    """

    schema_version: Integer | None = None
    media_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    annotations: dict[str, str] = {}
    artifact_type: str | None = None
    subject: Descriptor | None = None

    signatures: ClassVar[None] = None
    """Only schema 1 has them; so a document is a `Head`, too."""


class Head(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that say what a manifest is (rule G-01).

    Attributes:
        schema_version: Or None.
        media_type: Or None.
        signatures: Whatever it is; None if it is null or not there.
    """

    schema_version: Integer | None = None
    media_type: str | None = None
    signatures: object = None


Reading: TypeAlias = Document | dict[str, Json]
"""A manifest that was read: typed if it was plainly in order, else as a tree."""


def read(raw: bytes) -> Reading:
    """Read a manifest of any kind, strictly.

    Raises:
        MalformedManifestError: It is not a JSON object, or holds a key twice.
    """
    document = strict_json.decode_quickly(raw, Document)
    return strict_json.load(raw, what=_WHAT) if document is None else document


def read_head(reading: Reading) -> Head | Document:
    """What a manifest says that it is.

    Raises:
        MalformedManifestError: One of these fields has the wrong type, or almost its name.
    """
    if isinstance(reading, Document):
        return reading
    return strict_json.convert(reading, Head, what=_WHAT)


def convert(reading: Reading) -> Document:
    """The typed document of a manifest that is not schema 1.

    Raises:
        MalformedManifestError: A field has the wrong type, or almost the name of a known one.
    """
    if isinstance(reading, Document):
        return reading
    return strict_json.convert(reading, Document, what=_WHAT)


def convert_as(reading: Reading, media_type: str, allowed: frozenset[str]) -> Document:
    """The typed document of a manifest that must not look like another kind (rules A).

    Raises:
        MalformedManifestError: See `convert`; plainly wrong input is called that (rule A-03).
        AmbiguousManifestError: It has keys of another kind.
    """
    foreign = find_foreign(reading, allowed)
    if not foreign:
        return convert(reading)
    if not isinstance(reading, Document):
        reading = {key: value for key, value in reading.items() if key not in foreign}
    typed = convert(reading)
    check_foreign(foreign, media_type)
    return typed


def find_foreign(reading: Reading, allowed: frozenset[str]) -> tuple[str, ...]:
    """Keys that belong to another kind of manifest, in whatever case they are written (rule A-01).

    Args:
        reading: The manifest.
        allowed: Those of the telling keys that its own kind has.
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

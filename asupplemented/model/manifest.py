"""Manifests: verified bytes, and what they contain.

The bytes are never serialised again, because their digest is their name.

A manifest that a descriptor names is read in two steps. `UnreadManifest` is verified bytes: they
match the digest, and nothing else is known. `UnreadManifest.read` checks the size and decides the
media type by the descriptor. So bytes can wait for a long time before any of them is parsed, and
what waits takes no more memory than the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.errors import (
    AmbiguousManifestError,
    DigestMismatchError,
    MalformedManifestError,
    SizeMismatchError,
    UnsupportedManifestError,
    excerpt,
)
from asupplemented.model import document, schema1
from asupplemented.model.digest import Digest
from asupplemented.model.image_manifest import ImageManifest, parse_image, parse_schema1
from asupplemented.model.index import Index, parse_index
from asupplemented.model.media_type import (
    KNOWN_MANIFESTS,
    SCHEMA1,
    guess_with_head,
    is_declared,
    is_index,
)

if TYPE_CHECKING:
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.document import Head

__all__ = ("ImageManifest", "Index", "Manifest", "UnreadManifest")

UNKNOWN_TYPE: Final = "application/octet-stream"
"""The media type of bytes of which nothing tells the type."""


class Manifest:
    """The bytes of a manifest, with their media type and digest. A value.

    `verified` makes one from untrusted bytes; the constructor trusts its arguments.

    Args:
        raw: The bytes, unchanged.
        media_type: One of ``media_type.KNOWN_MANIFESTS``; any other type for opaque bytes.
        digest: The digest under which the manifest is indexed.
    """

    __slots__ = ("_digest", "_media_type", "_parsed", "_raw")

    def __init__(self, raw: bytes, media_type: str, digest: Digest) -> None:
        self._raw = raw
        self._media_type = media_type
        self._digest = digest
        self._parsed: ImageManifest | Index | None = None

    @classmethod
    def verified(
        cls, raw: bytes, claimed_media_type: str | None, expected: Digest | None
    ) -> Manifest:
        """Verify untrusted bytes against the digest that named them, and find their media type.

        The media type is the claimed one if it is one of the six known, else it is guessed from
        the bytes (rules G). The digest is that of the bytes, for signed schema 1 that of the
        signed payload (rules DG-01, DG-02), by the algorithm of `expected` (rule DG-13). Nothing
        beyond the media type is parsed (rule P-06).

        Args:
            raw: The bytes that a source gave.
            claimed_media_type: The media type that the source gave; None if it gave none.
            expected: The digest that named them; None for none: then they are indexed under
                sha256.

        Returns:
            The manifest, with its digest and its media type.

        Raises:
            DigestMismatchError: The bytes do not match `expected`. It is raised before all errors
                of the content but malformed signatures.
            MalformedManifestError: Not a JSON object, or the fields that tell its kind are
                malformed.
            AmbiguousManifestError: The bytes claim another known media type than the source.
            UnsupportedManifestError: Neither the source nor the bytes tell the media type.
        """
        try:
            head = document.read_head(raw)
            known = claimed_media_type in KNOWN_MANIFESTS
            kind = claimed_media_type if known else guess_with_head(raw, head)
        except MalformedManifestError:
            # A truncated body is reported as a digest mismatch first.
            if expected is not None:
                _checked(raw, expected)
            raise
        content = _content(raw, kind, head)
        digest = Digest.of(content) if expected is None else _checked(content, expected)
        return cls(raw, _decided(kind, head, raw), digest)

    def read(self, named: Descriptor | None = None, *, opaque: bool = False) -> Manifest:
        """The same bytes, read as a descriptor names them; see `UnreadManifest.read`."""
        if named is None:
            return self
        return UnreadManifest(self._raw, self._media_type, self._digest).read(named, opaque=opaque)

    @property
    def raw(self) -> bytes:
        """The bytes, unchanged."""
        return self._raw

    @property
    def media_type(self) -> str:
        """One of the six types of ``media_type.KNOWN_MANIFESTS``, any other if it is opaque."""
        return self._media_type

    @property
    def is_opaque(self) -> bool:
        """Whether it is bytes of a type that is not read here (rule X-07b)."""
        return self._media_type not in KNOWN_MANIFESTS

    @property
    def digest(self) -> Digest:
        """The digest under which the manifest is indexed."""
        return self._digest

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.raw)

    @property
    def is_index(self) -> bool:
        """Whether it is an index or list, by its media type (rule MT-01)."""
        return is_index(self.media_type)

    def parse(self) -> ImageManifest | Index:
        """Parse the manifest according to its media type. The result is kept.

        It takes many times the memory of the bytes: see `parse_once`.

        Raises:
            MalformedManifestError: It breaks the rules of its kind (rules J, P).
            AmbiguousManifestError: It has fields of another kind (rules A).
            UnsupportedManifestError: Its media type is not one of the six known.
            LimitExceededError: It has too many layers or values (rule L-04).
        """
        parsed = self._parsed
        if parsed is None:
            parsed = self._parsed = self.parse_once()
        return parsed

    def parse_once(self) -> ImageManifest | Index:
        """Parse the manifest without keeping the result.

        Raises:
            ManifestError: See `parse`.
            LimitExceededError: See `parse`.
        """
        return self._parsed or _parse(self._raw, self._media_type)

    def parse_image(self) -> ImageManifest:
        """Parse the manifest of one image or artifact.

        Raises:
            UnsupportedManifestError: It is an index (rule P-01).
            ManifestError: See `parse`.
        """
        parsed = self.parse()
        if isinstance(parsed, Index):
            message = "manifest lists as individual manifests are not supported"
            raise UnsupportedManifestError(message, digest=self.digest)
        return parsed

    def parse_index(self) -> Index:
        """Parse an index or list.

        Raises:
            UnsupportedManifestError: It is the manifest of one image (rule P-01).
            ManifestError: See `parse`.
        """
        parsed = self.parse()
        if isinstance(parsed, ImageManifest):
            message = "individual manifests as manifest lists are not supported"
            raise UnsupportedManifestError(message, digest=self.digest)
        return parsed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return NotImplemented
        return (self._digest, self._media_type, self._raw) == (
            other._digest,
            other._media_type,
            other._raw,
        )

    def __hash__(self) -> int:
        return hash((self._digest, self._media_type))

    def __repr__(self) -> str:
        return f"<Manifest {self._digest}, {self._media_type}, {len(self._raw)} bytes>"


class UnreadManifest(NamedTuple):
    """The bytes of a manifest, which match the digest that named them. A value."""

    raw: bytes
    """The bytes, unchanged."""
    claimed: str | None
    """The media type that the source gave, None if it gave none."""
    digest: Digest
    """The digest that named them."""

    @classmethod
    def verified(cls, raw: bytes, claimed: str | None, expected: Digest) -> UnreadManifest:
        """Verify untrusted bytes against the digest that named them.

        Raises:
            DigestMismatchError: The bytes do not match.
            MalformedManifestError: The signatures of a schema 1 manifest are malformed.
        """
        _checked(_covered(raw, claimed), expected)
        return cls(raw, claimed, expected)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.raw)

    def read(self, named: Descriptor | None = None, *, opaque: bool = False) -> Manifest:
        """Read the media type, as the descriptor that names the manifest tells it (rule G-05).

        The type of the descriptor counts, then that which the source gave, and a guess from the
        bytes comes last. Schema 1 has two types that sources mix up; there the source decides.

        Args:
            named: The descriptor; None if nothing names the manifest.
            opaque: Whether bytes of an unknown type are a manifest of that type, which is not
                read further, rather than an error (rule X-07b).

        Raises:
            SizeMismatchError: The descriptor gives another size (rule C-08).
            MalformedManifestError: The fields that tell the media type are malformed.
            AmbiguousManifestError: The bytes claim another known media type than the descriptor
                or, if that tells none, the source.
            UnsupportedManifestError: Nothing tells the media type, and `opaque` is not set.
        """
        if named is not None and named.size is not None and named.size != self.size:
            message = f"the manifest has {self.size} bytes, but its descriptor says {named.size}"
            raise SizeMismatchError(
                message, digest=self.digest, expected=named.size, actual=self.size
            )
        told = None if named is None else named.media_type
        unknown = bool(told) and told not in KNOWN_MANIFESTS
        try:
            head = document.read_head(self.raw)
            kind = self._decide(told, head)
        except MalformedManifestError:
            if opaque and told not in KNOWN_MANIFESTS:
                return self._as_opaque(told)
            raise
        if opaque and not is_declared(head) and (unknown or kind not in KNOWN_MANIFESTS):
            return self._as_opaque(told)
        return Manifest(self.raw, _decided(kind, head, self.raw), self.digest)

    def _decide(self, told: str | None, head: Head) -> str | None:
        if told in KNOWN_MANIFESTS and told not in SCHEMA1:
            return told
        if self.claimed in KNOWN_MANIFESTS:
            return self.claimed
        return guess_with_head(self.raw, head)

    def _as_opaque(self, told: str | None) -> Manifest:
        return Manifest(self.raw, told or self.claimed or UNKNOWN_TYPE, self.digest)


def _covered(raw: bytes, claimed: str | None) -> bytes:
    """What the digest of a manifest covers, before its media type is decided."""
    if claimed in KNOWN_MANIFESTS and claimed not in SCHEMA1:
        return raw
    # Only schema 1 with this key is signed; an escape might hide the key.
    if b"signatures" not in raw and b"\\" not in raw:
        return raw
    try:
        head = document.read_head(raw)
    except MalformedManifestError:
        return raw
    signed = claimed in SCHEMA1 or (not is_declared(head) and head.schema_version == 1)
    return schema1.rebuild_payload(raw) if signed and head.signed else raw


def _content(raw: bytes, kind: str | None, head: Head) -> bytes:
    """What the digest of a manifest covers (rules DG-01, DG-09)."""
    return schema1.rebuild_payload(raw) if kind in SCHEMA1 and head.signed else raw


def _checked(content: bytes, expected: Digest) -> Digest:
    if not expected.matches(content):
        actual = Digest.of(content, expected.algorithm)
        message = f"manifest does not match the digest that named it, {expected}, but {actual}"
        raise DigestMismatchError(message, digest=expected, actual=actual)
    return expected


def _decided(kind: str | None, head: Head, raw: bytes) -> str:
    """The media type, if it is known and the body does not contradict it."""
    if kind is None or kind not in KNOWN_MANIFESTS:
        own = "no mediaType" if head.media_type is None else f"mediaType {excerpt(head.media_type)}"
        message = f"unsupported manifest with {own}, it begins with {excerpt(raw, 50)}"
        raise UnsupportedManifestError(message)
    if head.media_type != kind and head.media_type in KNOWN_MANIFESTS:
        message = f"ambiguous manifest: served as {kind}, but calls itself {head.media_type}"
        raise AmbiguousManifestError(message)
    return kind


def _parse(raw: bytes, media_type: str) -> ImageManifest | Index:
    if media_type in SCHEMA1:
        return parse_schema1(_content(raw, media_type, document.read_head(raw)), media_type)
    if media_type not in KNOWN_MANIFESTS:
        raise UnsupportedManifestError(f"unsupported manifest type {excerpt(media_type)}")
    read_as = parse_index if is_index(media_type) else parse_image
    return read_as(document.read(raw), media_type)

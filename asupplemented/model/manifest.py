"""Manifests: verified bytes, and what they contain.

The bytes are never serialised again, because their digest is their name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.errors import (
    AmbiguousManifestError,
    DigestMismatchError,
    MalformedManifestError,
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
    guess_read,
    is_index,
)

if TYPE_CHECKING:
    from asupplemented.model.document import Document, Head, Reading

__all__ = ("ImageManifest", "Index", "Manifest")


class Manifest:
    """The bytes of a manifest, with their media type and digest. A value.

    `verified` makes one from untrusted bytes; the constructor trusts its arguments.

    Args:
        raw: The bytes, unchanged.
        media_type: One of ``media_type.KNOWN_MANIFESTS``.
        digest: The digest under which the manifest is indexed.
    """

    __slots__ = ("_digest", "_media_type", "_parsed", "_raw", "_reading")

    def __init__(self, raw: bytes, media_type: str, digest: Digest) -> None:
        self._raw = raw
        self._media_type = media_type
        self._digest = digest
        self._reading: Reading | None = None
        self._parsed: ImageManifest | Index | None = None

    @classmethod
    def verified(
        cls, raw: bytes, claimed_media_type: str | None, expected: Digest | None
    ) -> Manifest:
        """Verify untrusted bytes against the digest that named them, and find their media type.

        The media type is the claimed one if it is one of the six known, else it is guessed from
        the bytes (rules G). The digest is that of the bytes, for signed schema 1 that of the
        signed payload (rules DG-01, DG-02), by the algorithm of `expected` (rule DG-13).

        Args:
            raw: The bytes that a source gave.
            claimed_media_type: The media type that the source gave; None if it gave none.
            expected: The digest that named them; None for none: then they are indexed under
                sha256.

        Raises:
            DigestMismatchError: The bytes do not match `expected`. It is raised before all errors
                of the content but malformed signatures.
            MalformedManifestError: Not a JSON object, or the fields that tell its kind are
                malformed.
            AmbiguousManifestError: The bytes claim another known media type than the source.
            UnsupportedManifestError: Neither the source nor the bytes tell the media type.
        """
        reading, head = _read(raw, expected)
        known = claimed_media_type in KNOWN_MANIFESTS
        kind = claimed_media_type if known else guess_read(reading, head)
        content = _content(raw, kind, head)
        digest = Digest.of(content) if expected is None else _checked(content, expected)
        manifest = cls(raw, _decided(kind, head, raw), digest)
        manifest._reading = reading
        return manifest

    @property
    def raw(self) -> bytes:
        """The bytes, unchanged."""
        return self._raw

    @property
    def media_type(self) -> str:
        """One of the six types of ``media_type.KNOWN_MANIFESTS``."""
        return self._media_type

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

        Raises:
            MalformedManifestError: It breaks the rules of its kind (rules J, P).
            AmbiguousManifestError: It has fields of another kind (rules A).
            UnsupportedManifestError: Its media type is not one of the six known.
        """
        parsed = self._parsed
        if parsed is None:
            parsed = _parse(self._raw, self._media_type, self._reading)
            self._parsed, self._reading = parsed, None
        return parsed

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


def _read(raw: bytes, expected: Digest | None) -> tuple[Reading, Head | Document]:
    try:
        reading = document.read(raw)
        return reading, document.read_head(reading)
    except MalformedManifestError:
        # A truncated body is reported as a digest mismatch first.
        if expected is not None:
            _checked(raw, expected)
        raise


def _content(raw: bytes, kind: str | None, head: Head | Document) -> bytes:
    """What the digest of a manifest covers (rules DG-01, DG-09)."""
    signed = kind in SCHEMA1 and head.signatures is not None
    return schema1.rebuild_payload(raw) if signed else raw


def _checked(content: bytes, expected: Digest) -> Digest:
    if not expected.matches(content):
        actual = Digest.of(content, expected.algorithm)
        message = f"manifest does not match the digest that named it, {expected}, but {actual}"
        raise DigestMismatchError(message, digest=expected, actual=actual)
    return expected


def _decided(kind: str | None, head: Head | Document, raw: bytes) -> str:
    """The media type, if it is known and the body does not contradict it."""
    if kind is None or kind not in KNOWN_MANIFESTS:
        own = "no mediaType" if head.media_type is None else f"mediaType {excerpt(head.media_type)}"
        message = f"unsupported manifest with {own}, it begins with {excerpt(raw, 50)}"
        raise UnsupportedManifestError(message)
    if head.media_type != kind and head.media_type in KNOWN_MANIFESTS:
        message = f"ambiguous manifest: served as {kind}, but calls itself {head.media_type}"
        raise AmbiguousManifestError(message)
    return kind


def _parse(raw: bytes, media_type: str, reading: Reading | None) -> ImageManifest | Index:
    if media_type in SCHEMA1:
        head = document.read_head(document.read(raw) if reading is None else reading)
        return parse_schema1(_content(raw, media_type, head), media_type)
    if media_type not in KNOWN_MANIFESTS:
        raise UnsupportedManifestError(f"unsupported manifest type {excerpt(media_type)}")
    if reading is None:
        reading = document.read(raw)
    read_as = parse_index if is_index(media_type) else parse_image
    return read_as(reading, media_type)

"""Signatures: bytes that vouch for a manifest, and how they are framed on disk (rule SR-12)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from asupplemented.errors import LayoutError, excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("Signature", "SignatureFormat")

SignatureFormat: TypeAlias = Literal["simple-signing", "sigstore-json"]

_OPENPGP_BYTES: Final = frozenset(
    (*range(0xA0, 0xA4), 0xC8, *range(0x90, 0x93), 0x3D, 0xC4, *range(0x88, 0x8C), 0xC2)
)
"""First bytes of OpenPGP messages: simple signatures were stored without a frame once."""

_LONGEST_FORMAT: Final = 64
"""The line break of a frame comes before this, or the frame is broken."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of one manifest. It is carried, never checked, by this library.

    Attributes:
        format: "simple-signing" (an OpenPGP message) or "sigstore-json".
        data: The signature itself, without a frame. For "sigstore-json" this is the JSON of
            payload, media type and annotations, as other tools store it.
        media_type: Of the payload, where the source said so.
        annotations: Of the payload, where the source gave any.
    """

    format: SignatureFormat
    data: bytes = field(repr=False)
    media_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @classmethod
    def from_blob(cls, blob: bytes) -> Signature:
        """Read a signature from `blob`, as a file or a lookaside server holds it (rule SR-12).

        Raises:
            LayoutError: The frame is not one of those that are known.
        """
        if not blob:
            message = "a signature is empty"
            raise LayoutError(message)
        if blob[0] in _OPENPGP_BYTES:
            return cls("simple-signing", blob)
        if blob[0] != 0:
            message = f"a signature begins with byte {blob[0]:#04x}, which no known kind does"
            raise LayoutError(message)
        return _from_frame(blob)

    def to_blob(self) -> bytes:
        """The signature as a file holds it; `from_blob` reads it back (rule SR-12)."""
        if self.format == "simple-signing" and self.data and self.data[0] in _OPENPGP_BYTES:
            return self.data
        return b"\0%s\n%s" % (self.format.encode("ascii"), self.data)


def _from_frame(blob: bytes) -> Signature:
    name, newline, _ = blob[1:_LONGEST_FORMAT].partition(b"\n")
    text = name.decode("ascii", "replace")
    if not newline or not text.isascii() or not text.isprintable():
        message = f"the frame of a signature is broken: {excerpt(name, 50)}"
        raise LayoutError(message)
    data = blob[len(name) + 2 :]
    match text:
        case "simple-signing" | "sigstore-json":
            return Signature(text, data)
        case _:
            message = f"a signature has the unknown format {excerpt(text, 50)}"
            raise LayoutError(message)

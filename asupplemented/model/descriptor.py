"""Descriptors: references from one document to another, or to a blob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from asupplemented.model.platform import Platform

if TYPE_CHECKING:
    from asupplemented.model.strict_json import Json

__all__ = ("Descriptor",)

INT64_MAX: Final = 2**63 - 1

Size = Annotated[int, msgspec.Meta(ge=0)]
"""A size in bytes. The exact way of `strict_json` reads a negative one as None."""


class Descriptor(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename="camel",
):
    """Content by media type, digest and size, with what the document says about it.

    The fields are as the document wrote them. In particular `digest` is text that is not checked
    (rule P-11): parse it with `Digest` where it is used.

    Attributes:
        media_type: None if the document does not say.
        digest: As written; "" if the document does not say.
        size: Bytes, or None if the document does not say. A negative number in a document says
            nothing, and is read as None (rule C-08).
        platform: The platform of the content, or None.
        urls: Other locations of the content, in order of preference.
        annotations: Strings by name; empty if there are none.
        artifact_type: The artifact type of the content, or None.
        data: The content itself in base64, as written, or None (rule P-09).
    """

    media_type: str | None = None
    digest: str = ""
    size: Size | None = None
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}
    artifact_type: str | None = None
    data: str | None = None

    def __hash__(self) -> int:
        # Annotations cannot be hashed; equal descriptors have equal digests anyway.
        return hash((self.media_type, self.digest, self.size))

    def to_dict(self) -> dict[str, Json]:
        """The descriptor as a JSON object with the names of the OCI specification.

        Unknown values are left out.
        """
        plain: dict[str, Json] = msgspec.json.decode(
            msgspec.json.encode(self, enc_hook=_plain_text)
        )
        return plain


def _plain_text(value: object) -> str:
    # msgspec encodes no subclass of str, and a digest may well be a Digest.
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError

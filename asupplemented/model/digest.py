"""Digests: the names of manifests and blobs (rules D-01 to D-05)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Protocol, Self

from asupplemented.errors import InvalidDigestError, UnsupportedDigestError, excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("ALGORITHMS", "Digest", "Hasher", "check_digests", "parse_digests")

ALGORITHMS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
"""The known algorithms, each with the number of hex digits that its digests have (rule D-02)."""

_VALID: Final = re.compile(
    "|".join(f"{name}:[a-f0-9]{{{length}}}" for name, length in ALGORITHMS.items())
)
_FOREIGN: Final = re.compile(r"[a-z0-9]++(?:[.+_-][a-z0-9]++)*+:[a-zA-Z0-9=_-]++")
_CONSTRUCTORS: Final = {
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}


class Hasher(Protocol):
    """A running hash, as `hashlib` makes it."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class Digest(str):
    """``algorithm:hex``, validated once, when it is made.

    It is a `str` and can be used, compared and hashed as one. Because it was validated, it is
    safe in a path or URL (rule D-04): it holds nothing but lowercase letters, digits and a colon.

    Args:
        text: The digest as text.

    Raises:
        UnsupportedDigestError: Well-formed, but of an unknown algorithm (rule D-03).
        InvalidDigestError: Anything else that is not a digest.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if isinstance(text, cls):
            return text
        if _VALID.fullmatch(text) is None:
            raise _refusal(text)
        return str.__new__(cls, text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The same as ``Digest(text)``."""
        return cls(text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of `data`.

        Raises:
            UnsupportedDigestError: `algorithm` is not one of `ALGORITHMS`.
        """
        constructor = _CONSTRUCTORS.get(algorithm)
        if constructor is None:
            message = f"unsupported digest algorithm {excerpt(algorithm)}, use one of {_known()}"
            raise UnsupportedDigestError(message)
        return str.__new__(cls, f"{algorithm}:{constructor(data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """What comes before the colon: "sha256", "sha384" or "sha512"."""
        return self[:6]

    @property
    def encoded(self) -> str:
        """What comes after the colon: lowercase hex digits."""
        return self[7:]

    def hasher(self) -> Hasher:
        """A fresh hash of this digest's algorithm; compare its ``hexdigest()`` to `encoded`."""
        return _CONSTRUCTORS[self[:6]]()

    def matches(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether `data` has this digest, by this digest's own algorithm (rule DG-13)."""
        return _CONSTRUCTORS[self[:6]](data).hexdigest() == self[7:]

    def __repr__(self) -> str:
        return f"Digest({str.__repr__(self)})"


_LENGTH: Final = len("sha256:") + ALGORITHMS["sha256"]
_HEX: Final = b"0123456789abcdef"


def check_digests(texts: Sequence[str]) -> None:
    """Make sure that every text is a digest; `Digest` of each says the same, at more cost.

    Almost all digests are sha256. Of each of those, exactly ``sh:`` is left once every
    hexadecimal digit is taken out, so that many are checked in one sweep.

    Raises:
        InvalidDigestError: For the first one that is none.
    """
    count = len(texts)
    lines = ("\n" + "\n".join(texts)).encode("utf-8", "replace")
    if (
        lines[:: _LENGTH + 1] == b"\n" * count  # so all lines are as long
        and len(lines) == count * (_LENGTH + 1)
        and lines.translate(None, _HEX) == b"\nsh:" * count
        and lines.count(b"\nsha256:") == count
    ):
        return
    for text in texts:
        Digest(text)


def parse_digests(texts: Sequence[str]) -> list[Digest]:
    """The `Digest` of each text, checked in one sweep.

    Raises:
        InvalidDigestError: For the first one that is none.
    """
    check_digests(texts)
    return [str.__new__(Digest, text) for text in texts]


def _refusal(text: str) -> InvalidDigestError:
    """Why `text` is no digest (rules D-01 to D-03)."""
    algorithm, _, encoded = text.partition(":")
    if not algorithm or not encoded:
        message = f"invalid digest format: {excerpt(text)} is not algorithm:hex"
    elif (length := ALGORITHMS.get(algorithm)) is None:
        if _FOREIGN.fullmatch(text) is not None:
            message = f"unsupported digest algorithm in {excerpt(text)}, known are {_known()}"
            return UnsupportedDigestError(message)
        message = f"invalid digest format: {excerpt(text)} is not algorithm:hex"
    elif len(encoded) != length:
        message = (
            f"invalid checksum digest length in {excerpt(text)}: "
            f"{algorithm} has {length} hex digits, not {len(encoded)}"
        )
    else:
        message = (
            f"invalid checksum digest format in {excerpt(text)}: "
            "only 0-9 and lowercase a-f may follow the colon"
        )
    return InvalidDigestError(message)


def _known() -> str:
    return ", ".join(ALGORITHMS)

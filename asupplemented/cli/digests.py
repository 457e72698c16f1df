"""Digests as arguments: whole, or abbreviated as other commands print them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from asupplemented.errors import InstanceNotFoundError, InvalidDigestError
from asupplemented.model.digest import ALGORITHMS, Digest

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ("DigestPrefix", "complete_digest", "parse_abbreviated")

_SHORTEST: Final = 4
"""Hex digits of the shortest abbreviation."""
_LISTED: Final = 10
"""Digests that a message lists."""
_ABBREVIATED: Final = re.compile(
    rf"(?:(?P<algorithm>{'|'.join(ALGORITHMS)}):)?(?P<encoded>[a-f0-9]{{{_SHORTEST},}})"
)


class DigestPrefix(NamedTuple):
    """The beginning of a digest.

    Attributes:
        text: The hex digits, after the algorithm and a colon if the user gave an algorithm.
        hint: The argument, as the help text names it.
    """

    text: str
    hint: str

    def matches(self, digest: str) -> bool:
        """Whether a digest begins like this."""
        return digest.startswith(self.text) or digest.partition(":")[2].startswith(self.text)


def parse_abbreviated(text: str, hint: str) -> Digest | DigestPrefix:
    """Parse a digest, or the beginning of one, that was given as the argument `hint`.

    Raises:
        click.BadParameter: It is neither.
    """
    try:
        return Digest(text)
    except InvalidDigestError as error:
        found = _ABBREVIATED.fullmatch(text)
        longest = ALGORITHMS[found["algorithm"] or "sha512"] if found else 0
        if found is None or len(found["encoded"]) > longest:
            raise click.BadParameter(str(error), param_hint=hint) from error
        return DigestPrefix(text, hint)


def complete_digest(wanted: Digest | DigestPrefix, known: Collection[str]) -> Digest:
    """The whole digest that an argument stands for.

    Args:
        wanted: The argument; a whole digest need not be known.
        known: The digests that can be meant.

    Raises:
        InstanceNotFoundError: No known digest begins like this.
        click.BadParameter: Several do.
    """
    if isinstance(wanted, Digest):
        return wanted
    found = [digest for digest in dict.fromkeys(known) if wanted.matches(digest)]
    if not found:
        message = f"no digest of this image begins with {wanted.text}"
        raise InstanceNotFoundError(message)
    if len(found) > 1:
        listed = ", ".join(found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        message = f"{wanted.text} is ambiguous: it can mean {listed}{more}"
        raise click.BadParameter(message, param_hint=wanted.hint)
    return Digest(found[0])

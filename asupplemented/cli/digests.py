"""Digests as arguments: whole, or abbreviated as other commands print them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from asupplemented.errors import (
    InstanceNotFoundError,
    InvalidDigestError,
    NotFoundError,
    SupplementedError,
)
from asupplemented.model.digest import ALGORITHMS, Digest
from asupplemented.model.media_type import is_index
from asupplemented.supplemented import SupplementedSource

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asupplemented.abc import Source
    from asupplemented.session import Session
    from asupplemented.supplemented import SupplementedReference

__all__ = (
    "DigestPrefix",
    "complete_digest",
    "complete_instances",
    "list_manifests",
    "parse_abbreviated",
)

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


async def list_manifests(source: Source) -> list[str]:
    """The digests of all manifests of an image, nested lists included."""
    if isinstance(source, SupplementedSource):
        return [*source.resolution.sources]
    top = await source.get_manifest()
    found: list[str] = [top.digest]
    lists = [top] if top.is_index else []
    while lists:
        for entry in lists.pop().parse_index().manifests:
            if entry.digest in found:
                continue
            found.append(entry.digest)
            if is_index(entry.media_type or ""):
                try:
                    lists.append(await source.get_named(entry))
                except NotFoundError:
                    continue  # A sparse image names what it does not have.
    return found


async def complete_instances(
    group: SupplementedReference, wanted: Sequence[Digest | DigestPrefix], session: Session
) -> list[Digest]:
    """The whole digests of instances that the members of a group list.

    Raises:
        InstanceNotFoundError: No instance begins like one of them.
        click.BadParameter: Several do.
        SupplementedError: A member cannot be read, and is not to be skipped.
    """
    known: list[str] = []
    for number, reference in enumerate(group.references):
        try:
            async with reference.open(session) as source:
                known += await list_manifests(source)
        except SupplementedError:
            if not number or group.unavailable == "raise":
                raise
    return [complete_digest(each, known) for each in wanted]

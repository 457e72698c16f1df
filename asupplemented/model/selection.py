"""Selections: which instances of an index are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from asupplemented.errors import UsageError
from asupplemented.model.digest import Digest
from asupplemented.model.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Index

__all__ = ("AllImages", "Selection", "SpecificImages", "SystemImage", "choose")


@dataclass(frozen=True, slots=True)
class AllImages:
    """Every instance of every list (seed: ``CopyAllImages``)."""


@dataclass(frozen=True, slots=True, init=False)
class SystemImage:
    """The one instance of each list that fits a platform (seed: ``CopySystemImage``).

    Attributes:
        platform: What it must run on, also as text like ``linux/arm/v7``; None for this host.
        prefer_gzip: Of instances that fit equally well, take the one compressed with gzip
            rather than zstd (rules CI-05, CI-10).

    Raises:
        InvalidPlatformError: The text is no platform.
    """

    platform: Platform | None
    prefer_gzip: bool

    def __init__(
        self,
        platform: Platform | str | None = None,
        prefer_gzip: bool = False,  # noqa: FBT001, FBT002 - a field of a value
    ) -> None:
        parsed = Platform.parse(platform) if isinstance(platform, str) else platform
        object.__setattr__(self, "platform", parsed)
        object.__setattr__(self, "prefer_gzip", prefer_gzip)


@dataclass(frozen=True, slots=True, init=False)
class SpecificImages:
    """Named instances (seed: ``CopySpecificImages``).

    Attributes:
        digests: What is wanted, in the order given, each once. None at all is a valid wish:
            then only the default manifests are read.

    Raises:
        InvalidDigestError: One of them is no digest.
        UsageError: A single text was given instead of a list.
    """

    digests: tuple[Digest, ...]

    def __init__(self, digests: Iterable[Digest | str]) -> None:
        if isinstance(digests, str):
            message = "SpecificImages takes a list of digests, even for one: [digest]"
            raise UsageError(message)
        unique = dict.fromkeys(map(Digest, digests))
        object.__setattr__(self, "digests", tuple(unique))


Selection: TypeAlias = AllImages | SystemImage | SpecificImages


def choose(selection: Selection, index: Index) -> tuple[Descriptor, ...]:
    """The entries of one index that a selection takes (rule X-05).

    Returns:
        In document order, an entry as often as the index names it. A specific selection takes
        only what this index names, and that may be nothing.

    Raises:
        PlatformNotFoundError: No entry fits the platform of a `SystemImage`.
    """
    match selection:
        case AllImages():
            return index.manifests
        case SystemImage(platform, prefer_gzip):
            return (index.choose(platform, prefer_gzip=prefer_gzip),)
        case SpecificImages(digests):
            wanted = frozenset(digests)
            return tuple(entry for entry in index.manifests if entry.digest in wanted)
    assert_never(selection)

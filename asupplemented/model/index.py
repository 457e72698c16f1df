"""Indexes and lists: the instances of an image, and which of them a selection takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from asupplemented.errors import InstanceNotFoundError, PlatformNotFoundError, UsageError, excerpt
from asupplemented.model import document
from asupplemented.model.digest import Digest
from asupplemented.model.image_manifest import check_data
from asupplemented.model.media_type import DOCKER_LIST
from asupplemented.model.platform import Platform, Rank, WantedPlatform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.document import Reading

__all__ = (
    "ZSTD_ANNOTATION",
    "AllImages",
    "Index",
    "Selection",
    "SpecificImages",
    "SystemImage",
    "choose",
    "parse_index",
)

ZSTD_ANNOTATION: Final = "io.github.containers.compression.zstd"
"""On an entry of an OCI index, with the value "true": its layers are zstd (rule LI-03)."""

_KEYS: Final = frozenset(("manifests",))


@dataclass(frozen=True, slots=True)
class Index:
    """The content of an index or list.

    Attributes:
        media_type: What it was read as.
        manifests: Its entries in document order; what is there twice is there twice (rule LI-01).
        annotations: Empty if there are none.
        artifact_type: Or None.
        subject: What it is about, or None; it is never followed (rule AR-05).
    """

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    _first: dict[str, Descriptor] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def find(self, digest: str) -> Descriptor:
        """The first entry with a digest (rule LI-02).

        Raises:
            InstanceNotFoundError: The index does not name it.
        """
        first = self._first
        if first is None:
            first = {entry.digest: entry for entry in reversed(self.manifests)}
            object.__setattr__(self, "_first", first)
        entry = first.get(digest)
        if entry is None:
            message = f"the index does not name {excerpt(digest)}"
            raise InstanceNotFoundError(message, digests=(digest,))
        return entry

    def compression_names(self, entry: Descriptor) -> tuple[str, ...]:
        """How the layers of an entry are compressed, as far as the index tells (rule LI-03)."""
        if self.media_type == DOCKER_LIST:
            return ("gzip",)
        return ("zstd",) if entry.annotations.get(ZSTD_ANNOTATION) == "true" else ("gzip",)

    def choose(self, platform: Platform | None, *, prefer_gzip: bool = False) -> Descriptor:
        """The entry that fits a platform best (rules CI-01 to CI-06).

        The better platform wins, as `wanted_platforms` orders them. In an OCI index entries
        without a platform come after all that match, and among equals zstd comes before gzip.
        Among what is still equal the first one wins.

        Args:
            platform: The platform to run on; None for this host.
            prefer_gzip: Whether gzip comes before zstd.

        Raises:
            PlatformNotFoundError: Nothing fits (rule CI-07).
        """
        wanted = WantedPlatform(platform)
        best: tuple[Rank, bool] | None = None
        chosen: Descriptor | None = None
        for entry in self.manifests:
            rank = self._rank(entry, wanted)
            if rank is None:
                continue
            score = (rank, (self.compression_names(entry) == ("gzip",)) is not prefer_gzip)
            if best is None or score < best:
                best, chosen = score, entry
        if chosen is None:
            raise self._no_match(wanted.first)
        return chosen

    def _rank(self, entry: Descriptor, wanted: WantedPlatform) -> Rank | None:
        """How well the platform of an entry fits; None if not at all."""
        if entry.platform is None:
            return None if self.media_type == DOCKER_LIST else wanted.last
        return wanted.rank(entry.platform)

    def _no_match(self, wanted: Platform) -> PlatformNotFoundError:
        kind = "manifest list" if self.media_type == DOCKER_LIST else "image index"
        message = (
            f"no image found in {kind} for architecture {wanted.architecture!r}, "
            f"variant {wanted.variant or ''!r}, OS {wanted.os!r}"
        )
        offered = (str(entry.platform) for entry in self.manifests if entry.platform is not None)
        return PlatformNotFoundError(message, available=tuple(dict.fromkeys(offered)))


def parse_index(reading: Reading, media_type: str) -> Index:
    """Read an OCI index or a Docker manifest list (rule P-10).

    Raises:
        MalformedManifestError: A field has the wrong type (rule P-09 for embedded data).
        AmbiguousManifestError: It has keys of another kind (rule A-02).
    """
    typed = document.convert_as(reading, media_type, _KEYS)
    manifests = typed.manifests or ()
    if media_type != DOCKER_LIST:
        check_data((typed.subject, *manifests))
    return Index(
        media_type=media_type,
        manifests=manifests,
        annotations=typed.annotations,
        artifact_type=typed.artifact_type,
        subject=typed.subject,
    )


@dataclass(frozen=True, slots=True)
class AllImages:
    """Every instance of every list (seed: ``CopyAllImages``)."""


@dataclass(frozen=True, slots=True, init=False)
class SystemImage:
    """The one instance of each list that fits a platform (seed: ``CopySystemImage``).

    Attributes:
        platform: The platform to run on, also as text like ``linux/arm/v7``; None for this host.
        prefer_gzip: Of instances that fit equally well, take the one compressed with gzip
            rather than zstd (rules CI-05, CI-10).

    Raises:
        InvalidPlatformError: The text is not a platform.
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
        digests: The instances, in the order given, each once. With an empty selection only the
            default manifests are read.

    Raises:
        InvalidDigestError: One of them is not a digest.
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
        Entries in document order, each as often as the index names it. A specific selection
        takes only entries of this index, possibly none.

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

"""The result of resolving a group: frozen, deterministic, and able to explain itself.

Theory of operation. A `Resolution` is derived from two things only: what each manifest contributes
(`Contribution`), and the order of the commits. Everything else is computed from these when it is
first asked for. It is therefore small as JSON, and a group can be opened again from it without
resolving once more.
"""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from asupplemented import errors
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    InstanceNotFoundError,
    InvalidDigestError,
    PlatformNotFoundError,
    SupplementedError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest, check_digests
from asupplemented.model.platform import Platform, wanted_platforms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = (
    "Candidate",
    "Contribution",
    "Document",
    "Explanation",
    "Instance",
    "Missing",
    "Preference",
    "Resolution",
    "Unavailable",
)

Preference: TypeAlias = Literal["manifest", "supplements"]
"""Which member is asked first for a blob: the one whose manifest names it, or any but the top."""

FORMAT: Final = 1
"""Version of the JSON form; another one is refused."""


class Missing(NamedTuple):
    """An instance that no member supplies."""

    member: int | None
    """The member whose list names it; None if no list does."""
    digest: Digest


class Instance(NamedTuple):
    """A manifest that can be served."""

    digest: Digest
    member: int
    """The member that serves it."""
    media_type: str
    size: int
    """Bytes of the manifest."""
    platform: Platform | None
    """The platform in the first list that names one; None if no list does."""
    is_index: bool


class Candidate(NamedTuple):
    """A member that can serve a manifest or blob, and why."""

    member: int
    reference: str
    manifest: Digest
    """The manifest from which this is known."""
    reason: str


class Explanation(NamedTuple):
    """Which member serves a digest, which others could, and which rule decided."""

    digest: Digest
    kind: Literal["index", "image", "blob"]
    member: int
    manifest: Digest
    """For a blob, the manifest that decides; else the digest itself."""
    rule: str
    candidates: tuple[Candidate, ...]
    """Best first; the first one serves it."""

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.digest} is served by member {self.member}: {self.rule}"]
        for rank, candidate in enumerate(self.candidates, start=1):
            lines.append(
                f"  {rank}. member {candidate.member} ({candidate.reference}): {candidate.reason}"
            )
        return "\n".join(lines)


class Contribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one manifest contributes, as its last commit left it."""

    digest: Digest
    media_type: str
    size: int
    parent: Digest | None = None
    """The list through which it was read; None for the default manifest of a member."""
    blobs: tuple[Descriptor, ...] = ()
    """Config first, then layers, base first; empty for an index."""
    instances: tuple[Descriptor, ...] | None = None
    """All entries of an index in document order; None for an image."""
    alternates: tuple[int, ...] = ()
    """Other members known to hold it; known when the resolution is done."""

    def with_alternates(self, alternates: tuple[int, ...]) -> Contribution:
        """The same contribution, with the members that also hold the manifest."""
        return msgspec.structs.replace(self, alternates=alternates) if alternates else self


class Unavailable(msgspec.Struct, frozen=True):
    """A member that was left out, and the error because of which it was."""

    member: int
    error: str
    message: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON form of a resolution."""

    version: int = FORMAT
    members: tuple[str, ...]
    top: Digest
    defaults: tuple[Digest | None, ...]
    commits: tuple[tuple[int, Digest], ...]
    manifests: tuple[Contribution, ...]
    missing: tuple[Missing, ...]
    unavailable: tuple[Unavailable, ...]
    prefer: Preference = "manifest"
    """Resolutions that were written before there was a choice prefer the manifest's member."""


class Resolution:
    """The plan of a group: which member serves which manifest and blob.

    Immutable; equal to another one if both say the same. Members are numbered by their position
    in the argument list; the top is 0. The driver makes it; read one back with `from_json`.
    """

    def __init__(
        self, document: Document, failures: Mapping[int, SupplementedError] | None = None
    ) -> None:
        self._document = document
        self._failures = failures

    @property
    def members(self) -> tuple[str, ...]:
        """The references as text, in the order given, duplicates included."""
        return self._document.members

    @property
    def prefer(self) -> Preference:
        """Which member is asked first for a blob; see `supplement`."""
        return self._document.prefer

    @property
    def top(self) -> Digest:
        """Digest of the default manifest of the group, which is the top's."""
        return self._document.top

    @property
    def defaults(self) -> tuple[Digest | None, ...]:
        """Each member's default digest; None for a duplicate or a member that was left out."""
        return self._document.defaults

    @cached_property
    def sources(self) -> Mapping[Digest, int]:
        """Manifest digest to the number of the member that serves it, in commit order."""
        return MappingProxyType({digest: member for member, digest in self._document.commits})

    @cached_property
    def blobs(self) -> Mapping[Digest, Digest]:
        """Blob digest to the digest of the manifest that decides which member serves it."""
        return MappingProxyType({blob: manifests[-1] for blob, manifests in self._named_by.items()})

    @cached_property
    def alternates(self) -> Mapping[Digest, tuple[int, ...]]:
        """Manifest digest to the other members known to hold it; without manifests that have none.

        These members list the manifest, or had it as a default that was taken over. Supplements
        come before the top, later ones first.
        """
        manifests = self._document.manifests
        return MappingProxyType(
            {each.digest: each.alternates for each in manifests if each.alternates}
        )

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Instances that no member supplies, each with the member whose list names it."""
        return self._document.missing

    @cached_property
    def unavailable(self) -> Mapping[int, SupplementedError]:
        """Member number to the error because of which it was left out."""
        failures = self._failures
        if failures is None:
            entries = self._document.unavailable
            failures = {entry.member: _error_of(entry, self.members) for entry in entries}
        return MappingProxyType(failures)

    @cached_property
    def _contributions(self) -> dict[Digest, Contribution]:
        return {each.digest: each for each in self._document.manifests}

    @cached_property
    def _named_by(self) -> dict[Digest, tuple[Digest, ...]]:
        """Blob digest to the manifests that name it, in commit order; blobs in commit order."""
        named_by: dict[Digest, dict[Digest, None]] = {}
        for _, manifest in self._document.commits:
            for blob in self._contributions[manifest].blobs:
                manifests = named_by.setdefault(Digest(blob.digest), {})
                # A manifest that is committed twice counts at its last commit.
                manifests.pop(manifest, None)
                manifests[manifest] = None
        return {blob: tuple(manifests) for blob, manifests in named_by.items()}

    @cached_property
    def _descriptors(self) -> dict[str, Descriptor]:
        """Blob digest to the descriptor in the manifest that decides."""
        found: dict[str, Descriptor] = {}
        for _, manifest in self._document.commits:
            found.update((blob.digest, blob) for blob in self._contributions[manifest].blobs)
        return found

    def descriptor(self, blob: Digest | str) -> Descriptor:
        """The descriptor of a blob, from the manifest that decides which member serves it.

        Raises:
            BlobNotFoundError: No manifest of the group names the blob.
        """
        try:
            return self._descriptors[str(blob)]
        except KeyError:
            message = "no manifest of this group names the blob"
            raise BlobNotFoundError(message, digest=str(blob)) from None

    def candidates(
        self, blob: Digest | str, *, prefer: Preference | None = None
    ) -> tuple[Candidate, ...]:
        """The members that can serve a blob, best first, each once.

        First the members from which the manifests that name it were read, the last commit first;
        then the alternates of these manifests, in the same order.

        Args:
            blob: Digest of the blob.
            prefer: ``"supplements"`` moves the top to the end; None is the plan's own `prefer`.

        Raises:
            BlobNotFoundError: No manifest of the group names the blob.
        """
        manifests = self._named_by.get(Digest(blob))
        if manifests is None:
            message = "no manifest of this group names the blob"
            raise BlobNotFoundError(message, digest=str(blob))
        found: dict[int, Candidate] = {}
        for manifest in reversed(manifests):
            member = self.sources[manifest]
            self._add(found, member, manifest, f"serves {manifest}, which names it")
        for manifest in reversed(manifests):
            for member in self.alternates.get(manifest, ()):
                self._add(found, member, manifest, f"also holds {manifest}, which names it")
        if (prefer or self.prefer) == "supplements" and 0 in found:
            found[0] = found.pop(0)
        return tuple(found.values())

    def _add(self, found: dict[int, Candidate], member: int, manifest: Digest, reason: str) -> None:
        if member not in found:
            found[member] = Candidate(member, self.members[member], manifest, reason)

    def explain(self, digest: Digest | str, *, prefer: Preference | None = None) -> Explanation:
        """Say which member serves a manifest or blob, which others could, and why.

        Args:
            digest: Of the manifest or blob.
            prefer: See `candidates`.

        Raises:
            InvalidDigestError: `digest` is no digest.
            InstanceNotFoundError: The group has neither a manifest nor a blob of that digest.
        """
        digest = Digest(digest)
        if digest in self.sources:
            return self._explain_manifest(digest)
        if digest in self._named_by:
            return self._explain_blob(digest, prefer)
        message = "this group has no such manifest or blob"
        raise InstanceNotFoundError(message, digest=digest, digests=(digest,))

    def _explain_manifest(self, digest: Digest) -> Explanation:
        contribution, member = self._contributions[digest], self.sources[digest]
        rule = self._origin(digest, contribution)
        found = {member: Candidate(member, self.members[member], digest, rule)}
        for other in self.alternates.get(digest, ()):
            held = self.defaults[other] == digest
            reason = "its default, taken over by a later member"
            self._add(found, other, digest, reason if held else "one of its lists names it")
        kind: Literal["index", "image"] = "image" if contribution.instances is None else "index"
        return Explanation(digest, kind, member, digest, rule, tuple(found.values()))

    def _origin(self, digest: Digest, contribution: Contribution) -> str:
        member = self.sources[digest]
        others = self.alternates.get(digest, ())
        if self.defaults[member] == digest:
            if any(self.defaults[other] == digest for other in others):
                return "its default manifest; the last member to have it as default serves it"
            return "its default manifest, which is always read first"
        rule = f"read through its list {contribution.parent}"
        if not others:
            return f"{rule}; no other member is known to hold it"
        if member == 0:
            return f"{rule}; the other members that list it do not supply it"
        if others == (0,):
            return f"{rule}; any member is preferred over the top"
        return f"{rule}; it came first in the queue, where later members precede earlier ones"

    def _explain_blob(self, digest: Digest, prefer: Preference | None) -> Explanation:
        candidates = self.candidates(digest, prefer=prefer)
        manifests = self._named_by[digest]
        first = candidates[0]
        rule = f"{first.manifest} names it"
        if len(manifests) > 1:
            rule = (
                f"{len(manifests)} manifests name it; the last one read, {manifests[-1]}, decides"
            )
        if self.candidates(digest, prefer="manifest")[0] != first:
            rule = 'for blobs, any member is preferred over the top (prefer="supplements")'
        return Explanation(digest, "blob", first.member, first.manifest, rule, candidates)

    def instances(self) -> tuple[Instance, ...]:
        """All manifests that can be served, in commit order, indexes included."""
        platforms = self._platforms
        return tuple(
            Instance(
                digest,
                member,
                contribution.media_type,
                contribution.size,
                platforms.get(digest),
                contribution.instances is not None,
            )
            for digest, member in self.sources.items()
            for contribution in (self._contributions[digest],)
        )

    @cached_property
    def _platforms(self) -> dict[str, Platform]:
        platforms: dict[str, Platform] = {}
        for contribution in self._document.manifests:
            for entry in contribution.instances or ():
                if entry.platform is not None:
                    platforms.setdefault(entry.digest, entry.platform)
        return platforms

    def find(self, platform: Platform | str | None = None) -> Instance:
        """The best image for a platform among those that can be served (rules WP).

        Args:
            platform: ``os/architecture[/variant]``; None is the host's.

        Raises:
            InvalidPlatformError: The text is no platform.
            PlatformNotFoundError: No image that can be served is listed for it.
        """
        wanted = Platform.parse(platform) if isinstance(platform, str) else platform
        images = [
            (instance, instance.platform)
            for instance in self.instances()
            if not instance.is_index and instance.platform is not None
        ]
        for choice in wanted_platforms(wanted):
            for instance, offered in images:
                if _same(choice, offered):
                    return instance
        named = "the host's platform" if wanted is None else str(wanted)
        message = f"no image for {named} can be served"
        raise PlatformNotFoundError(message, available=_texts(offered for _, offered in images))

    def to_dict(self) -> dict[str, object]:
        """The mappings as plain JSON values: what ``asupplemented resolve --json`` prints."""
        return {
            "members": list(self.members),
            "prefer": self.prefer,
            "top": {
                "digest": str(self.top),
                "media_type": self._contributions[self.top].media_type,
            },
            "sources": {str(digest): member for digest, member in self.sources.items()},
            "blobs": {str(blob): str(manifest) for blob, manifest in self.blobs.items()},
            "defaults": [None if digest is None else str(digest) for digest in self.defaults],
            "alternates": {str(digest): list(found) for digest, found in self.alternates.items()},
            "missing": [{"member": m.member, "digest": str(m.digest)} for m in self.missing],
            "unavailable": [
                {"member": member, "error": f"{type(error).__name__}: {error.message}"}
                for member, error in self.unavailable.items()
            ],
        }

    def to_json(self) -> bytes:
        """The whole resolution as JSON; `from_json` gives back an equal one."""
        return msgspec.json.encode(self._document, enc_hook=str)

    @classmethod
    def from_json(cls, raw: bytes | str) -> Resolution:
        """Read back what `to_json` wrote.

        Raises:
            ConfigurationError: `raw` is not the JSON of a resolution, is of another version, or
                contradicts itself.
            InvalidDigestError: A digest in it is malformed.
        """
        try:
            document = msgspec.json.decode(raw, type=Document, dec_hook=_decode_digest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if isinstance(error.__cause__, InvalidDigestError):
                raise error.__cause__ from None
            message = f"this is not the JSON of a resolution: {error}; resolve again"
            raise ConfigurationError(message) from error
        if document.version != FORMAT:
            message = (
                f"version {document.version} of a resolution; this library reads {FORMAT}, so "
                "resolve again"
            )
            raise ConfigurationError(message)
        resolution = cls(document)
        resolution._check()
        return resolution

    def _check(self) -> None:
        """Refuse a document that contradicts itself, before anything relies on it."""
        document, count = self._document, len(self._document.members)
        numbers = [member for member, _ in document.commits]
        numbers += [entry.member for entry in document.unavailable]
        numbers += [other for each in document.manifests for other in each.alternates]
        whole = (
            len(document.defaults) == count
            and all(0 <= number < count for number in numbers)
            and all(digest in self._contributions for _, digest in document.commits)
            and document.top == document.defaults[0]
            and document.top in self.sources
        )
        if not whole:
            message = "this resolution contradicts itself; resolve again"
            raise ConfigurationError(message)
        for each in document.manifests:
            check_digests([blob.digest for blob in each.blobs])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resolution):
            return NotImplemented
        return self._document == other._document

    def __hash__(self) -> int:
        return hash((self._document.members, self._document.commits))

    def __repr__(self) -> str:
        return (
            f"<Resolution of {len(self.members)} members: {len(self.sources)} manifests, "
            f"{len(self.blobs)} blobs, {len(self.missing)} missing>"
        )


def _decode_digest(_: type[Any], value: str) -> Digest:
    return Digest(value)


def _error_of(entry: Unavailable, members: Sequence[str]) -> SupplementedError:
    kind = getattr(errors, entry.error, SupplementedError)
    known = isinstance(kind, type) and issubclass(kind, SupplementedError)
    error: SupplementedError = (kind if known else SupplementedError)(entry.message)
    return error.locate(reference=members[entry.member], member=entry.member)


def _same(wanted: Platform, offered: Platform) -> bool:
    """Exact equality of os, architecture and variant (rule WP-09)."""
    return (wanted.os, wanted.architecture, wanted.variant or None) == (
        offered.os,
        offered.architecture,
        offered.variant or None,
    )


def _texts(platforms: Iterable[Platform]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(platform) for platform in platforms))

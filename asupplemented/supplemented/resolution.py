"""What a resolution found: frozen, deterministic, and able to explain itself.

A `Resolution` is derived from two things only: what each manifest contributed, and the order of
the commits. It is therefore small as JSON, and an image can be opened again from it without
resolving once more.
"""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from asupplemented import errors
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    InstanceNotFoundError,
    PlatformNotFoundError,
    SupplementedError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.platform import Platform, wanted_platforms
from asupplemented.supplemented.resolver import Committed, Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asupplemented.supplemented.resolver import Resolver

__all__ = (
    "Candidate",
    "Explanation",
    "Instance",
    "Preference",
    "Resolution",
)

Preference: TypeAlias = Literal["manifest", "supplements"]
"""Which member is asked first for a blob: the one whose manifest names it, or any but the top."""

_FORMAT: Final = 1
"""Version of the JSON form; another one is refused."""


class Instance(NamedTuple):
    """A manifest that can be served."""

    digest: Digest
    member: int
    """The member that serves it."""
    media_type: str
    size: int
    """Bytes of the manifest."""
    platform: Platform | None
    """As the first list that names it says; None if none does."""
    is_index: bool


class Candidate(NamedTuple):
    """A member that can serve something, and why."""

    member: int
    reference: str
    manifest: Digest
    """The manifest through which it is known to."""
    reason: str


class Explanation(NamedTuple):
    """Which member serves a digest, which others could, and the rule that decided."""

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


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contribution, as it is written to JSON."""

    digest: str
    media_type: str
    size: int
    parent: str | None = None
    blobs: tuple[Descriptor, ...] = ()
    instances: tuple[Descriptor, ...] | None = None
    alternates: tuple[int, ...] = ()


class _Unavailable(msgspec.Struct, frozen=True):
    member: int
    error: str
    message: str


class _Missing(msgspec.Struct, frozen=True):
    member: int | None
    digest: str


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON form of a resolution."""

    version: int
    members: tuple[str, ...]
    top: str
    defaults: tuple[str | None, ...]
    commits: tuple[tuple[int, str], ...]
    manifests: tuple[_Record, ...]
    missing: tuple[_Missing, ...]
    unavailable: tuple[_Unavailable, ...]
    prefer: Preference = "manifest"
    """Plans that were written before there was a choice follow the seed."""


class Resolution:
    """The plan of a group: which member serves which manifest and blob.

    Immutable; equal to another one if it says the same. Members are numbered by their position
    in the argument list, the top being 0.
    """

    def __init__(
        self, document: _Document, failures: Mapping[int, SupplementedError] | None = None
    ) -> None:
        self._document = document
        self._failures = failures

    @classmethod
    def of(
        cls, resolver: Resolver, members: Sequence[str], prefer: Preference = "manifest"
    ) -> Resolution:
        """Freeze what a resolver found.

        Args:
            resolver: Done, and without failure.
            members: All references as text, duplicates included.
            prefer: Which member is asked first for a blob.
        """
        defaults = resolver.defaults
        return cls(
            _Document(
                version=_FORMAT,
                members=tuple(members),
                top=defaults[0],
                defaults=tuple(defaults.get(number) for number in range(len(members))),
                commits=tuple(resolver.commits),
                manifests=tuple(
                    _record(committed, resolver.alternates(digest))
                    for digest, committed in resolver.committed.items()
                ),
                missing=tuple(_Missing(m.member, m.digest) for m in resolver.missing),
                unavailable=tuple(
                    _Unavailable(member, type(error).__name__, error.message)
                    for member, error in resolver.unavailable.items()
                ),
                prefer=prefer,
            ),
            dict(resolver.unavailable),
        )

    @property
    def members(self) -> tuple[str, ...]:
        """The references as text, in the order given, duplicates included."""
        return self._document.members

    @property
    def prefer(self) -> Preference:
        """Who is asked first for a blob, as `supplement` was told."""
        return self._document.prefer

    @cached_property
    def top(self) -> Digest:
        """Digest of the group's default manifest, which is the top's."""
        return Digest(self._document.top)

    @cached_property
    def defaults(self) -> tuple[Digest | None, ...]:
        """Each member's default digest; None for a duplicate or a member that was left out."""
        return tuple(None if text is None else Digest(text) for text in self._document.defaults)

    @cached_property
    def sources(self) -> Mapping[Digest, int]:
        """Manifest digest to the number of the member that serves it, in commit order."""
        return MappingProxyType({Digest(digest): m for m, digest in self._document.commits})

    @cached_property
    def blobs(self) -> Mapping[Digest, Digest]:
        """Blob digest to the digest of the manifest that decides who serves it."""
        return MappingProxyType({blob: names[-1] for blob, names in self._namings.items()})

    @cached_property
    def alternates(self) -> Mapping[Digest, tuple[int, ...]]:
        """Manifest digest to the other members known to hold it; empty ones are left out.

        They list it, or held it as a default that was taken over. Non-top first, later first.
        """
        return MappingProxyType(
            {
                Digest(record.digest): record.alternates
                for record in self._document.manifests
                if record.alternates
            }
        )

    @cached_property
    def missing(self) -> tuple[Missing, ...]:
        """Instances that nobody supplied, with the member that should have (None: unlisted)."""
        return tuple(Missing(m.member, Digest(m.digest)) for m in self._document.missing)

    @cached_property
    def unavailable(self) -> Mapping[int, SupplementedError]:
        """Member number to the error for which it was left out."""
        failures = self._failures
        if failures is None:
            entries = self._document.unavailable
            failures = {entry.member: _error_of(entry, self.members) for entry in entries}
        return MappingProxyType(failures)

    @cached_property
    def _records(self) -> dict[str, _Record]:
        return {record.digest: record for record in self._document.manifests}

    @cached_property
    def _namings(self) -> dict[Digest, tuple[Digest, ...]]:
        """Blob digest to the manifests that name it, last committed last; blobs in commit order."""
        namings: dict[Digest, dict[Digest, None]] = {}
        for _, text in self._document.commits:
            manifest = Digest(text)
            for blob in self._records[text].blobs:
                named = namings.setdefault(Digest(blob.digest), {})
                named.pop(manifest, None)
                named[manifest] = None
        return {blob: tuple(named) for blob, named in namings.items()}

    @cached_property
    def _descriptors(self) -> dict[str, Descriptor]:
        """Blob digest to the descriptor in the manifest that decides."""
        found: dict[str, Descriptor] = {}
        for _, text in self._document.commits:
            found.update((blob.digest, blob) for blob in self._records[text].blobs)
        return found

    def descriptor(self, blob: Digest | str) -> Descriptor:
        """The descriptor of a blob, from the manifest that decides who serves it.

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
        """Who can serve a blob, best first, each member once.

        For each manifest that names it, last committed first: the member that the manifest was
        read from; then the alternates of those manifests, in the same order.

        Args:
            blob: Digest of the blob.
            prefer: ``"supplements"`` moves the top to the end; None is the plan's own `prefer`.

        Raises:
            BlobNotFoundError: No manifest of the group names the blob.
        """
        namings = self._namings.get(Digest(blob))
        if namings is None:
            message = "no manifest of this group names the blob"
            raise BlobNotFoundError(message, digest=str(blob))
        found: dict[int, Candidate] = {}
        for manifest in reversed(namings):
            member = self.sources[manifest]
            self._add(found, member, manifest, f"serves {manifest}, which names it")
        for manifest in reversed(namings):
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
        if digest in self._namings:
            return self._explain_blob(digest, prefer)
        message = "this group has no such manifest or blob"
        raise InstanceNotFoundError(message, digest=digest, digests=(digest,))

    def _explain_manifest(self, digest: Digest) -> Explanation:
        record, member = self._records[digest], self.sources[digest]
        rule = self._origin(digest, record)
        found = {member: Candidate(member, self.members[member], digest, rule)}
        for other in self.alternates.get(digest, ()):
            held = self.defaults[other] == digest
            reason = "its default, taken over by a later member" if held else "one of its lists"
            self._add(found, other, digest, f"{reason} names it" if not held else reason)
        kind: Literal["index", "image"] = "image" if record.instances is None else "index"
        return Explanation(digest, kind, member, digest, rule, tuple(found.values()))

    def _origin(self, digest: Digest, record: _Record) -> str:
        member = self.sources[digest]
        others = self.alternates.get(digest, ())
        if self.defaults[member] == digest:
            if any(self.defaults[other] == digest for other in others):
                return "its default manifest; the last member to have it as default serves it"
            return "its default manifest, which is always read first"
        rule = f"read through its list {record.parent}"
        if not others:
            return f"{rule}; no other member is known to hold it"
        if member == 0:
            return f"{rule}; the other members that list it do not supply it"
        if others == (0,):
            return f"{rule}; any member is preferred over the top"
        return f"{rule}; it came first in the queue, where later members precede earlier ones"

    def _explain_blob(self, digest: Digest, prefer: Preference | None) -> Explanation:
        candidates = self.candidates(digest, prefer=prefer)
        namings = self._namings[digest]
        first = candidates[0]
        rule = f"{first.manifest} names it"
        if len(namings) > 1:
            rule = f"{len(namings)} manifests name it; the last one read, {namings[-1]}, decides"
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
                record.media_type,
                record.size,
                platforms.get(digest),
                record.instances is not None,
            )
            for digest, member in self.sources.items()
            for record in (self._records[digest],)
        )

    @cached_property
    def _platforms(self) -> dict[str, Platform]:
        platforms: dict[str, Platform] = {}
        for record in self._document.manifests:
            for entry in record.instances or ():
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
                "media_type": self._records[self.top].media_type,
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
        """The whole plan as JSON; `from_json` gives back an equal one."""
        return msgspec.json.encode(self._document, enc_hook=str)

    @classmethod
    def from_json(cls, raw: bytes | str) -> Resolution:
        """Read back what `to_json` wrote.

        Raises:
            ConfigurationError: It is not the JSON of a resolution, or of another version.
            InvalidDigestError: A digest in it is malformed.
        """
        try:
            document = msgspec.json.decode(raw, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"this is not the JSON of a resolution: {error}"
            raise ConfigurationError(message) from error
        if document.version != _FORMAT:
            message = f"version {document.version} of a resolution; this library reads {_FORMAT}"
            raise ConfigurationError(message)
        resolution = cls(document)
        resolution._check()
        return resolution

    def _check(self) -> None:
        """Refuse a document that contradicts itself, before anything relies on it."""
        document, count = self._document, len(self._document.members)
        numbers = [member for member, _ in document.commits]
        numbers += [entry.member for entry in document.unavailable]
        numbers += [other for record in document.manifests for other in record.alternates]
        whole = (
            len(document.defaults) == count
            and all(0 <= number < count for number in numbers)
            and all(digest in self._records for _, digest in document.commits)
            and document.top == document.defaults[0]
            and document.top in self.sources
        )
        if not whole:
            message = "this resolution contradicts itself; resolve again"
            raise ConfigurationError(message)
        for text in (*self._records, *(blob for r in document.manifests for blob in _digests(r))):
            Digest(text)

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


def _record(committed: Committed, alternates: tuple[int, ...]) -> _Record:
    return _Record(
        digest=committed.digest,
        media_type=committed.media_type,
        size=committed.size,
        parent=committed.parent,
        blobs=committed.blobs,
        instances=committed.instances,
        alternates=alternates,
    )


def _digests(record: _Record) -> Iterable[str]:
    return (blob.digest for blob in record.blobs)


def _error_of(entry: _Unavailable, members: Sequence[str]) -> SupplementedError:
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

"""The result of resolving a group: frozen, deterministic, and able to explain itself.

Theory of operation. A `Resolution` is derived from two things only: what each manifest contributes
(`Contribution`), and the order of the commits. Everything else is computed from these when it is
first asked for. It is therefore small as JSON, and a group can be opened again from it without
resolving once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from asupplemented import errors, limits
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    InstanceNotFoundError,
    InvalidDigestError,
    PlatformNotFoundError,
    SupplementedError,
    UnsupportedDigestError,
    excerpt,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest, check_digests
from asupplemented.model.media_type import KNOWN_MANIFESTS, is_index
from asupplemented.model.platform import Platform, Rank, WantedPlatform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    digest: str
    """A `Digest`, or text of an unknown algorithm, which cannot be checked (rule X-07b)."""


class Instance(NamedTuple):
    """A manifest that can be served."""

    digest: Digest
    """Its digest."""
    member: int
    """The member that serves it."""
    media_type: str
    """Its media type."""
    size: int
    """Bytes of the manifest."""
    platform: Platform | None
    """The platform in the first list that names one; None if no list does."""
    is_index: bool
    """Whether it is an index itself."""
    is_opaque: bool = False
    """Whether it is of an unknown type: bytes that name nothing."""


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
    """What is explained."""
    kind: Literal["index", "image", "opaque", "blob"]
    """What the digest names."""
    member: int
    """The member that serves it."""
    manifest: Digest
    """For a blob, the manifest that decides; else the digest itself."""
    rule: str
    """The rule that decided."""
    candidates: tuple[Candidate, ...]
    """Best first; the first one serves it."""

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.digest} is served by member {self.member}: {self.rule}"]
        for rank, candidate in enumerate(self.candidates, start=1):
            lines.append(
                f"  {rank}. member {candidate.member} ({candidate.reference}): {candidate.reason}"
            )
        return "\n".join(lines)


class Contribution(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
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
    opaque: bool = False
    """Whether it is of an unknown type: bytes that name nothing (rule X-07b)."""

    def with_alternates(self, alternates: tuple[int, ...]) -> Contribution:
        """The same contribution, with the members that also hold the manifest."""
        return msgspec.structs.replace(self, alternates=alternates) if alternates else self


class Unavailable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member that was left out, and the error because of which it was."""

    member: int
    error: str
    message: str


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    in the argument list; the top is 0. It is made by opening a group; `from_json` reads one back.
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
        return _LastNaming(self._named_by)

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

    @property
    def opaque(self) -> tuple[Digest, ...]:
        """Instances of an unknown type, in commit order: bytes that name nothing (rule X-07b)."""
        return tuple(digest for digest in self.sources if self._contributions[digest].opaque)

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
    def _named_by(self) -> dict[str, tuple[Digest, ...]]:
        """Blob digest to the manifests that name it, in commit order; blobs in commit order."""
        named_by: dict[str, tuple[Digest, ...]] = {}
        several: dict[str, dict[Digest, None]] = {}
        for _, manifest in self._document.commits:
            alone = (manifest,)  # Nearly all blobs are named once; they share this value.
            for blob in self._contributions[manifest].blobs:
                known = named_by.setdefault(blob.digest, alone)
                if known is not alone:
                    manifests = several.setdefault(blob.digest, dict.fromkeys(known))
                    # A manifest that is committed twice counts at its last commit.
                    manifests.pop(manifest, None)
                    manifests[manifest] = None
        named_by.update((blob, tuple(manifests)) for blob, manifests in several.items())
        return named_by

    @cached_property
    def _descriptors(self) -> dict[str, Descriptor]:
        """Blob digest to the descriptor in the manifest that decides."""
        found: dict[str, Descriptor] = {}
        for _, manifest in self._document.commits:
            found.update((blob.digest, blob) for blob in self._contributions[manifest].blobs)
        return found

    def with_maps(self) -> Resolution:
        """The same resolution with the maps made that blobs are looked up in.

        They are made on first use otherwise, which takes about a microsecond for each layer.
        """
        _ = self._named_by, self._descriptors
        return self

    def media_type(self, manifest: Digest | str) -> str:
        """The media type of a manifest of the group.

        Raises:
            InstanceNotFoundError: The group has no such manifest.
        """
        found = self._contributions.get(Digest(manifest))
        if found is None:
            message = "this group has no such manifest"
            raise InstanceNotFoundError(message, digest=str(manifest), digests=(str(manifest),))
        return found.media_type

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

        Returns:
            The explanation; its `str` is for people.

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
        kind: Literal["index", "image", "opaque"] = "image"
        if contribution.opaque:
            kind = "opaque"
            rule = f"{rule}; of unknown type {contribution.media_type}, so it is served as bytes"
        elif contribution.instances is not None:
            kind = "index"
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
                contribution.opaque,
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
        """The best image for a platform among those that can be served (rules WP, CI-02).

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
            if not instance.is_index and not instance.is_opaque and instance.platform is not None
        ]
        fitting = WantedPlatform(wanted)
        best: tuple[Rank, Instance] | None = None
        for instance, offered in images:
            rank = fitting.rank(offered)
            if rank is not None and (best is None or rank < best[0]):
                best = rank, instance
        if best is not None:
            return best[1]
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
            "opaque": [str(digest) for digest in self.opaque],
            "manifests": {
                str(each.digest): {
                    "media_type": each.media_type,
                    "size": each.size,
                    "platform": None if each.platform is None else str(each.platform),
                }
                for each in self.instances()
            },
            "descriptors": {
                str(blob): {"media_type": found.media_type, "size": found.size}
                for blob, found in self._descriptors.items()
            },
        }

    def to_json(self) -> bytes:
        """The whole resolution as JSON; `from_json` gives back an equal one."""
        return msgspec.json.encode(self._document, enc_hook=str)

    @classmethod
    def from_json(cls, raw: bytes | str) -> Resolution:
        """Read back what `to_json` wrote.

        Raises:
            ConfigurationError: `raw` is not the JSON of a resolution, is of another version, has
                a malformed digest, or contradicts itself.
        """
        try:
            document = msgspec.json.decode(raw, type=Document, dec_hook=_decode_digest)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            shown = excerpt(str(error), 200)
            message = f"this is not the JSON of a resolution: {shown}; resolve again"
            raise ConfigurationError(message) from error
        if document.version != FORMAT:
            message = (
                f"version {document.version} of a resolution; this library reads {FORMAT}, so "
                "resolve again"
            )
            raise ConfigurationError(message)
        try:
            _check_document(document)
        except (_Contradiction, InvalidDigestError) as error:
            message = f"this resolution contradicts itself: {error}; resolve again"
            raise ConfigurationError(message) from error
        return cls(document)

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


class _LastNaming(Mapping[Digest, Digest]):
    """Blob digest to the last manifest that names it; a view, because there may be many blobs."""

    __slots__ = ("_named_by",)

    def __init__(self, named_by: Mapping[str, tuple[Digest, ...]]) -> None:
        self._named_by = named_by

    def __getitem__(self, blob: Digest) -> Digest:
        return self._named_by[blob][-1]

    def __contains__(self, blob: object) -> bool:
        return blob in self._named_by

    def __iter__(self) -> Iterator[Digest]:
        return map(Digest, self._named_by)

    def __len__(self) -> int:
        return len(self._named_by)

    def __repr__(self) -> str:
        return repr(dict(self))


class _Contradiction(Exception):  # noqa: N818 - never leaves this module
    """A document that no resolution could have written."""


def _expect(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise _Contradiction(what)


def _check_document(document: Document) -> None:
    """Refuse a document that no resolution writes, before anything relies on it.

    Raises:
        _Contradiction: It contradicts itself.
        InvalidDigestError: A digest is malformed.
    """
    members, defaults = document.members, document.defaults
    opened = {number for number, digest in enumerate(defaults) if digest is not None}
    _expect(bool(members) and len(defaults) == len(members), "each member has a default or None")
    _expect(document.top == defaults[0], "the top is the default of member 0")
    contributions = {each.digest: each for each in document.manifests}
    _expect(len(contributions) == len(document.manifests), "a manifest is described twice")
    _check_commits(document, opened, contributions)
    _check_left_out(document, opened, contributions)
    sources = {digest: member for member, digest in document.commits}
    listed = {
        each.digest: frozenset(entry.digest for entry in each.instances)
        for each in document.manifests
        if each.instances is not None
    }
    for each in document.manifests:
        _check_contribution(each)
        named = each.parent is None or each.digest in listed.get(each.parent, ())
        _expect(named, "a parent does not list an instance")
        others = each.alternates
        _expect(opened.issuperset(others), "an alternate is no open member")
        _expect(list(others) == sorted(set(others), reverse=True), "alternates are out of order")
        _expect(sources[each.digest] not in others, "a member is its own alternate")


def _check_commits(
    document: Document, opened: set[int], contributions: Mapping[Digest, Contribution]
) -> None:
    """The defaults come first, in order; an instance is committed once."""
    first = [(number, document.defaults[number]) for number in sorted(opened)]
    _expect(list(document.commits[: len(first)]) == first, "the defaults are committed first")
    committed = {digest for _, digest in first}
    for member, digest in document.commits[len(first) :]:
        _expect(member in opened, "a manifest is read from a member that is not open")
        _expect(digest not in committed, "an instance is committed twice")
        committed.add(digest)
        each = contributions.get(digest)
        _expect(each is not None and each.parent is not None, "an instance has no parent")
    _expect(committed == set(contributions), "the commits are not those of the manifests")
    for default in filter(None, document.defaults):
        alone = contributions[default].parent is None and not contributions[default].opaque
        _expect(alone, "a default is read through a list")


def _check_left_out(
    document: Document, opened: set[int], contributions: Mapping[Digest, Contribution]
) -> None:
    """A member without a default is unavailable, or a repetition of an earlier one."""
    members, left_out = document.members, {entry.member for entry in document.unavailable}
    _expect(len(left_out) == len(document.unavailable), "a member is unavailable twice")
    for number in left_out:
        _expect(0 < number < len(members) and number not in opened, "a member is not unavailable")
    for number, text in enumerate(members):
        known = number in opened or number in left_out or text in members[:number]
        _expect(known, f"member {number} has no default")
    for missing in document.missing:
        _expect(missing.member is None or missing.member in opened, "a miss is of no member")
        _expect(missing.digest not in contributions, "a manifest is served and missing")
        _check_listed(missing.digest)
    _expect(len(set(document.missing)) == len(document.missing), "something is missing twice")


def _check_contribution(each: Contribution) -> None:
    _expect(0 <= each.size <= limits.MAX_MANIFEST, "a manifest has an impossible size")
    if each.opaque:
        _expect(each.media_type != "", "an opaque manifest has no type")
        _expect(not each.blobs and each.instances is None, "an opaque manifest names something")
    else:
        _expect(each.media_type in KNOWN_MANIFESTS, "a manifest is of an unknown type")
        listing = each.instances is not None
        _expect(listing == is_index(each.media_type), "only lists have instances")
        _expect(not (listing and each.blobs), "a list names blobs")
    check_digests([blob.digest for blob in each.blobs])
    for entry in each.instances or ():
        _check_listed(entry.digest)


def _check_listed(digest: str) -> None:
    """A list may name what cannot be checked, but nothing that is no digest."""
    try:
        Digest(digest)
    except UnsupportedDigestError:
        return


def _texts(platforms: Iterable[Platform]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(platform) for platform in platforms))

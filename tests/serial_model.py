"""The serial loop, written out: what the resolver has to answer, whatever arrives when.

This is the Go loop in Python, statement by statement, with what upstream changed since (a
specific request takes from each list only what that list names) and what DESIGN section 5
decides (misses, members that are not available, bounds, digests). It reads one manifest after
the other and looks ahead at nothing. Read it beside the Go text; keep it as plain as it is.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from asupplemented.errors import (
    ForbiddenError,
    InstanceNotFoundError,
    LimitExceededError,
    ManifestNotFoundError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    PlatformNotFoundError,
    ServerError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
    UnsupportedDigestError,
)
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.manifest import Index, Manifest

if TYPE_CHECKING:
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Selection

Outcome: TypeAlias = Manifest | SupplementedError
Held: TypeAlias = tuple[int, Digest]
Read: TypeAlias = tuple[int, Digest | None]
Missed: TypeAlias = tuple[int | None, str]

TOP = 0


@dataclass
class World:
    """What every member answers, the same each time it is asked."""

    defaults: dict[int, Outcome]
    """By member: what opening it and reading its default manifest comes to."""
    instances: dict[Held, Outcome] = field(default_factory=dict[Held, Outcome])
    """By member and digest; what is not here is not found."""

    def read(self, member: int, digest: Digest | None) -> Outcome:
        if digest is None:
            return self.defaults[member]
        absent = ManifestNotFoundError("not here")
        return self.instances.setdefault((member, digest), absent)


@dataclass
class Request:
    """What is asked of a world, and under which policies and caps."""

    selection: Selection = field(default_factory=AllImages)
    missing: Literal["raise", "fallback", "skip"] = "raise"
    unavailable: Literal["raise", "skip"] = "raise"
    unknown: Literal["raise", "opaque"] = "raise"
    max_instances: int = 20_000
    max_entries: int = 200_000
    max_nesting: int = 8
    max_bytes: int = 256 * 1024 * 1024


@dataclass
class Contribution:
    """What one manifest adds to the group."""

    media_type: str
    size: int
    parent: Digest | None
    blobs: tuple[Descriptor, ...] = ()
    instances: tuple[Descriptor, ...] | None = None
    opaque: bool = False


@dataclass
class Answer:
    """What comes out."""

    failure: SupplementedError | None = None
    sources: dict[Digest, int] = field(default_factory=dict[Digest, int])
    blobs: dict[Digest, Digest] = field(default_factory=dict[Digest, Digest])
    defaults: dict[int, Digest] = field(default_factory=dict[int, Digest])
    contributions: dict[Digest, Contribution] = field(default_factory=dict[Digest, Contribution])
    commits: list[Held] = field(default_factory=list[Held])
    missing: list[Missed] = field(default_factory=list[Missed])
    unavailable: dict[int, SupplementedError] = field(default_factory=dict[int, SupplementedError])
    alternates: dict[Digest, tuple[int, ...]] = field(default_factory=dict[Digest, tuple[int, ...]])
    reads: list[Read] = field(default_factory=list[Read])


@dataclass
class ToRead:
    """An entry of the queue: the Go type ``manifestToRead``, and how it came there."""

    member: int
    instance: Digest
    parent: Digest
    depth: int
    named: Descriptor


def resolve_serially(world: World, request: Request) -> Answer:
    """Resolve a world one read at a time; a failure is part of the answer."""
    loop = SerialLoop(world, request)
    try:
        loop.run()
    except SupplementedError as error:
        loop.answer.failure = error
    return loop.answer


class SerialLoop:
    """One run of ``NewImageSource``: its local variables, and its closures as methods."""

    def __init__(self, world: World, request: Request) -> None:
        self.world = world
        self.request = request
        self.answer = Answer()
        self.manifests_to_read: list[ToRead] = []  # the front is at 0
        self.dropped: dict[Held, SupplementedError] = {}
        self.unverifiable: list[Missed] = []
        self.holders: list[tuple[Digest, int]] = []
        self.known: set[Digest] = set()
        self.pushes = 0
        self.bytes = 0

    def run(self) -> None:
        for member in self.world.defaults:
            # Open this image, read its default manifest.
            outcome = self.read(member, None)
            if isinstance(outcome, SupplementedError):
                if not self.may_leave_out(member, outcome):
                    raise outcome
                self.answer.unavailable[member] = outcome
                continue
            # Record the digest of the default instance's manifest.
            self.answer.defaults[member] = outcome.digest
            self.add(outcome, member, parent=None, depth=0)

        # Parse the rest of the instances.
        while self.manifests_to_read:
            front = self.manifests_to_read.pop(0)
            # If we already read this manifest, no need to read it again.
            if front.instance in self.answer.sources:
                continue
            # A member that did not have it a moment ago does not have it now.
            if (front.member, front.instance) in self.dropped:
                continue
            # Read the instance's manifest.
            outcome = self.read(front.member, front.instance)
            if isinstance(outcome, SupplementedError):
                if not self.may_drop(front.member, outcome):
                    raise outcome
                self.dropped[front.member, front.instance] = outcome
                continue
            # The entry of the list says what it is.
            manifest = self.read_as(outcome, front.named)
            self.add(manifest, front.member, parent=front.parent, depth=front.depth)

        self.find_missing()
        self.find_alternates()

    def read(self, member: int, instance: Digest | None) -> Outcome:
        self.answer.reads.append((member, instance))
        return self.world.read(member, instance)

    def read_as(self, outcome: Manifest, named: Descriptor) -> Manifest:
        self.count_bytes(outcome)
        return outcome.read(named, opaque=self.request.unknown == "opaque")

    def count_bytes(self, manifest: Manifest) -> None:
        self.bytes += len(manifest.raw)
        if self.bytes > self.request.max_bytes:
            raise LimitExceededError(limit=self.request.max_bytes)

    def add(self, manifest: Manifest, member: int, parent: Digest | None, depth: int) -> None:
        opaque = manifest.is_opaque and self.request.unknown == "opaque"
        if parent is None:
            self.count_bytes(manifest)
        parsed = None if opaque else manifest.parse()
        # Mark this instance as being associated with this member.
        self.answer.sources[manifest.digest] = member
        self.answer.commits.append((member, manifest.digest))
        if parent is None:
            self.holders.append((manifest.digest, member))
            self.count(manifest.digest)
        contribution = Contribution(manifest.media_type, len(manifest.raw), parent)
        self.answer.contributions[manifest.digest] = contribution
        if parsed is None:
            contribution.opaque = True  # It names nothing.
        elif isinstance(parsed, Index):
            contribution.instances = parsed.manifests
            self.add_multi(parsed, manifest.digest, member, depth + 1)
        else:
            contribution.blobs = parsed.blobs
            self.add_single(parsed.blobs, manifest.digest)

    def add_single(self, blobs: tuple[Descriptor, ...], manifest: Digest) -> None:
        # The config blob's digest and the blobs of its layers belong to this manifest.
        for blob in blobs:
            self.answer.blobs[Digest(blob.digest)] = manifest

    def add_multi(self, index: Index, manifest: Digest, member: int, depth: int) -> None:
        if depth > self.request.max_nesting:
            raise LimitExceededError(limit=self.request.max_nesting)
        for entry in index.manifests:
            # One of an algorithm that we do not know is refused below, if it is chosen.
            with suppress(UnsupportedDigestError):
                self.holders.append((Digest(entry.digest), member))
        # Figure out which of its instances we want to look at.
        chase = self.choose(index)
        if self.request.unknown == "opaque":
            foreign = [entry.digest for entry in chase if not is_checkable(entry.digest)]
            self.unverifiable += [(member, digest) for digest in foreign]
            chase = [entry for entry in chase if is_checkable(entry.digest)]
        chase_instances = [(Digest(entry.digest), entry) for entry in chase]
        self.pushes += len(chase_instances)
        if self.pushes > self.request.max_entries:
            raise LimitExceededError(limit=self.request.max_entries)
        # Queue these manifest instances for reading from this member later, if we don't
        # stumble across them somewhere else first.
        for instance, entry in chase_instances:
            self.count(instance)
            next_to_read = ToRead(member, instance, manifest, depth, entry)
            if member == TOP:
                # Prefer any other member.
                self.manifests_to_read.append(next_to_read)
            else:
                # Prefer this member over the first ("main") one.
                self.manifests_to_read.insert(0, next_to_read)

    def choose(self, index: Index) -> list[Descriptor]:
        match self.request.selection:
            case SystemImage(platform, prefer_gzip):
                return [index.choose(platform, prefer_gzip=prefer_gzip)]
            case SpecificImages(digests):
                return [entry for entry in index.manifests if entry.digest in digests]
            case AllImages():
                return list(index.manifests)

    def count(self, digest: Digest) -> None:
        self.known.add(digest)
        if len(self.known) > self.request.max_instances:
            raise LimitExceededError(limit=self.request.max_instances)

    def may_leave_out(self, member: int, error: SupplementedError) -> bool:
        if member == TOP or self.request.unavailable == "raise":
            return False
        return is_not_found(error) or is_out_of_reach(error)

    def may_drop(self, member: int, error: SupplementedError) -> bool:
        if self.request.missing == "raise":
            return False
        return is_not_found(error) or self.may_leave_out(member, error)

    def find_missing(self) -> None:
        sources, policy = self.answer.sources, self.request.missing
        for (member, digest), error in self.dropped.items():
            if digest not in sources:
                if policy == "fallback":
                    raise error
                self.answer.missing.append((member, digest))
        self.answer.missing += dict.fromkeys(self.unverifiable)
        if isinstance(self.request.selection, SpecificImages):
            absent = [d for d in self.request.selection.digests if d not in sources]
            if absent and policy != "skip":
                raise InstanceNotFoundError(digests=absent)
            recorded = [digest for _, digest in self.answer.missing]
            self.answer.missing += [(None, d) for d in absent if d not in recorded]

    def find_alternates(self) -> None:
        for digest, source in self.answer.sources.items():
            others = {
                member
                for held, member in self.holders
                if held == digest and member != source and (member, digest) not in self.dropped
            }
            self.answer.alternates[digest] = tuple(sorted(others, reverse=True))


def is_checkable(digest: str) -> bool:
    """Whether its algorithm is known."""
    try:
        Digest(digest)
    except UnsupportedDigestError:
        return False
    return True


def is_not_found(error: SupplementedError) -> bool:
    """A platform that no list offers is wrong content of the list, not something missing."""
    return isinstance(error, NotFoundError) and not isinstance(error, PlatformNotFoundError)


def is_out_of_reach(error: SupplementedError) -> bool:
    return isinstance(
        error,
        NetworkError
        | TruncatedError
        | SourceTimeoutError
        | ServerError  # 5xx
        | TooManyRequestsError  # 429
        | UnauthorizedError  # 401
        | ForbiddenError  # 403
        | PermissionDeniedError,  # the same from an operating system
    )

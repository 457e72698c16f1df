"""The resolver: which member supplies which manifest, decided in serial order.

Theory of operation. The serial answer is a fold. First the default manifests of all members,
in order; then a queue of instances. A list found in the top (member 0) pushes its chosen
instances at the *back* of the queue, first one first; a list found in any other member pushes
each at the *front*, so that its last one is read first. A default manifest is always read, and
takes its digest over from an earlier member; an instance whose digest is committed is never
read again. That is how every other member comes to be preferred over the top.

This module is that fold and nothing else: no I/O, no clock, no logging. A driver asks `wants`
what to fetch and hands each outcome to `feed`, in any order. Outcomes wait here until serial
order reaches them, so the answer depends on the outcomes alone and never on their arrival.

Two rules for whoever changes it:

1. Everything that decides the answer happens in `_advance` and below it, one commit at a time.
2. `_Advice` is for `wants` alone: it may be wrong and cost a fetch, and must never be read by
   a commit.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from asupplemented import limits
from asupplemented.errors import (
    AccessError,
    DeniedError,
    InstanceNotFoundError,
    LimitExceededError,
    NetworkError,
    NotFoundError,
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
from asupplemented.model.manifest import Index, Manifest
from asupplemented.model.selection import SpecificImages, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import ImageManifest
    from asupplemented.model.selection import Selection

__all__ = (
    "Bounds",
    "Committed",
    "Missing",
    "MissingPolicy",
    "Outcome",
    "Resolver",
    "UnavailablePolicy",
    "Want",
    "is_miss",
    "is_unavailable",
)

MissingPolicy: TypeAlias = Literal["raise", "fallback", "skip"]
UnavailablePolicy: TypeAlias = Literal["raise", "skip"]

TOP: Final = 0


class Want(NamedTuple):
    """One fetch: a manifest of a member, or (digest None) opening it and reading its default."""

    member: int
    digest: Digest | None


class Missing(NamedTuple):
    """An instance that nobody supplied: who should have, None if no list names it."""

    member: int | None
    digest: Digest


class Committed(NamedTuple):
    """What one manifest contributes, as it stands after its last commit."""

    digest: Digest
    member: int
    media_type: str
    size: int
    parent: Digest | None
    """The list through which it was read, None for the default manifest of `member`."""
    blobs: tuple[Descriptor, ...]
    """Config first, then layers, base first; empty for an index."""
    instances: tuple[Descriptor, ...] | None
    """All entries of an index in document order; None for an image."""


class _Entry(NamedTuple):
    """A place in the serial queue."""

    want: Want
    parent: Digest
    depth: int
    place: int
    """Of two entries, the one with the smaller place is nearer to the front."""


Outcome: TypeAlias = Manifest | SupplementedError


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a resolution may cost; the defaults are the caps of `asupplemented.limits`."""

    instances: int = limits.MAX_INSTANCES
    """Distinct manifests, read or queued."""
    entries: int = limits.MAX_ENTRIES
    """Pushes to the queue."""
    nesting: int = limits.MAX_NESTING
    """Lists on the way to a manifest, the default one included."""
    total_bytes: int = limits.MAX_MANIFESTS_TOTAL
    """Bytes of all manifests committed."""
    read_ahead: int = limits.MAX_READ_AHEAD
    """Bytes of manifests that wait for serial order."""


def is_miss(error: SupplementedError) -> bool:
    """Whether an error says "not here", and nothing else, of an instance."""
    return isinstance(error, NotFoundError) and not isinstance(error, PlatformNotFoundError)


_UNAVAILABLE: Final = (
    NetworkError,
    TruncatedError,
    SourceTimeoutError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    DeniedError,
    AccessError,
)


def is_unavailable(error: SupplementedError) -> bool:
    """Whether an error says that a member cannot be used now; wrong content never does."""
    return is_miss(error) or isinstance(error, _UNAVAILABLE)


class _Fate(Enum):
    """What is known of a want."""

    UNKNOWN = auto()
    """Nothing."""
    HELD = auto()
    """Its manifest waits for serial order."""
    MISSED = auto()
    """It failed in a way that the policies tolerate: serial order goes past it."""
    FAILED = auto()
    """It failed, and that ends the resolution if serial order meets it."""


@dataclass(slots=True)
class _Outcomes:
    """What came back, and what the policies make of it."""

    missing: MissingPolicy
    unavailable: UnavailablePolicy
    waiting: dict[Want, Outcome] = field(default_factory=dict[Want, Outcome])
    """Outcomes that wait for serial order."""
    size: int = 0
    """Bytes of the manifests among them."""
    dropped: dict[Want, SupplementedError] = field(default_factory=dict[Want, SupplementedError])
    """Instances that serial order went past without, in its order."""

    def add(self, want: Want, outcome: Outcome) -> None:
        self.waiting[want] = outcome
        if isinstance(outcome, Manifest):
            self.size += outcome.size

    def take(self, want: Want) -> Outcome | None:
        outcome = self.waiting.pop(want, None)
        if isinstance(outcome, Manifest):
            self.size -= outcome.size
        return outcome

    def tolerates(self, want: Want, error: SupplementedError) -> bool:
        skips = self.unavailable == "skip" and want.member != TOP
        if want.digest is None:
            return skips and is_unavailable(error)
        if self.missing == "raise":
            return False
        return is_miss(error) or (skips and is_unavailable(error))

    def fate(self, want: Want) -> _Fate:
        if want in self.dropped:
            return _Fate.MISSED
        outcome = self.waiting.get(want)
        if outcome is None:
            return _Fate.UNKNOWN
        if isinstance(outcome, Manifest):
            return _Fate.HELD
        return _Fate.MISSED if self.tolerates(want, outcome) else _Fate.FAILED


@dataclass(slots=True)
class _Advice:
    """Which fetches are worth having in flight. Never consulted for the answer.

    The entries that name one digest form a line, in serial order. The first one that has not
    missed leads it: that is what will be read for the digest, as far as anybody knows now.
    """

    outcomes: _Outcomes
    unopened: OrderedDict[Want, None]
    """Default manifests in serial order, without those that serial order will get past."""
    planned: OrderedDict[Digest, _Entry] = field(default_factory=OrderedDict[Digest, _Entry])
    """Leaders that nobody fetched yet or that failed: in serial order, heirs last."""
    held: dict[Digest, _Entry] = field(default_factory=dict[Digest, _Entry])
    """Leaders whose manifest waits for serial order."""
    behind: dict[Digest, list[_Entry]] = field(default_factory=dict[Digest, list[_Entry]])
    """Who else stands in line, the next one last."""
    failed: dict[Digest, int] = field(default_factory=dict[Digest, int])
    """The places of the leaders that failed: nothing behind them is started."""

    def push_front(self, entry: _Entry, digest: Digest) -> None:
        leader = self.planned.pop(digest, None) or self.held.pop(digest, None)
        if leader is not None:
            self.failed.pop(digest, None)
            if leader.want != entry.want:
                self.behind.setdefault(digest, []).append(leader)
        self._lead(entry, digest)
        if digest in self.planned:
            self.planned.move_to_end(digest, last=False)

    def push_back(self, entry: _Entry, digest: Digest) -> None:
        if digest not in self.planned and digest not in self.held:
            self._lead(entry, digest)
            return
        behind = self.behind.setdefault(digest, [])
        if not behind or behind[0].want != entry.want:
            behind.insert(0, entry)

    def heed(self, want: Want) -> None:
        """An outcome arrived."""
        digest = want.digest
        if digest is None:
            if self.outcomes.fate(want) is not _Fate.FAILED:
                self.unopened.pop(want, None)
            return
        leader = self.planned.get(digest)
        if leader is None or leader.want != want:
            return
        if self.outcomes.fate(want) is _Fate.FAILED:
            self.failed[digest] = leader.place
        else:
            del self.planned[digest]
            self._lead(leader, digest)

    def _lead(self, entry: _Entry, digest: Digest) -> None:
        """Put an entry in front of its line, or who comes next if it has missed."""
        behind = self.behind.get(digest)
        while (fate := self.outcomes.fate(entry.want)) is _Fate.MISSED:
            if not behind:
                return
            entry = behind.pop()
        if fate is _Fate.HELD:
            self.held[digest] = entry
            return
        self.planned[digest] = entry
        if fate is _Fate.FAILED:
            self.failed[digest] = entry.place

    def forget(self, digest: Digest) -> None:
        """A digest was committed: nobody will read it again."""
        self.planned.pop(digest, None)
        self.held.pop(digest, None)
        self.behind.pop(digest, None)
        self.failed.pop(digest, None)

    def defaults(self, n: int) -> list[Want]:
        """Up to `n` default manifests to fetch, none behind one that failed."""
        wants: list[Want] = []
        for want in islice(self.unopened, n):
            if want in self.outcomes.waiting:
                break
            wants.append(want)
        return wants

    def instances(self, n: int) -> list[Want]:
        """Up to `n` instances to fetch, none behind one that failed."""
        entries = islice(self.planned.values(), n)
        if not self.failed:
            return [entry.want for entry in entries]
        barrier = min(self.failed.values())
        return [entry.want for entry in entries if entry.place < barrier]


class Resolver:
    """The fold over the members of one group.

    Args:
        members: The member numbers to open, in order and without duplicates; the first is the
            top, 0.
        selection: What is taken from each list.
        missing: What an instance does that its member does not hold: ``"raise"``; ``"fallback"``
            drops that entry, lets another member's entry serve the digest at its own place, and
            raises at the end if none did; ``"skip"`` records it instead.
        unavailable: Whether a supplement that cannot be opened is an error or is left out.
        bounds: Caps against hostile input.

    Attributes:
        failure: The error that ends the resolution, None as long as there is none.
        done: Whether the fold has ended, well or with `failure`.
        sources: Manifest digest to member number, in commit order.
        blobs: Blob digest to the digest of the manifest that named it last.
        namings: Blob digest to all manifests that name it, last committed last.
        defaults: Member number to the digest of its default manifest.
        committed: Manifest digest to what it contributed.
        listed: Manifest digest to the members whose lists name it, in the order seen.
        held: Manifest digest to the members that had it as their default.
        missing: Instances that nobody supplied. Complete once done.
        unavailable: Member number to the error for which it was left out.
        commits: Every commit in order; a digest taken over appears twice.
    """

    def __init__(
        self,
        members: Sequence[int],
        selection: Selection,
        *,
        missing: MissingPolicy = "raise",
        unavailable: UnavailablePolicy = "raise",
        bounds: Bounds | None = None,
    ) -> None:
        self.failure: SupplementedError | None = None
        self.done = False
        self.sources: dict[Digest, int] = {}
        self.blobs: dict[Digest, Digest] = {}
        self.namings: dict[Digest, dict[Digest, None]] = {}
        self.defaults: dict[int, Digest] = {}
        self.committed: dict[Digest, Committed] = {}
        self.listed: dict[Digest, dict[int, None]] = {}
        self.held: dict[Digest, dict[int, None]] = {}
        self.missing: list[Missing] = []
        self.unavailable: dict[int, SupplementedError] = {}
        self.commits: list[tuple[int, Digest]] = []
        self._selection = selection
        self._bounds = bounds or Bounds()
        self._unopened = deque(Want(member, None) for member in members)
        self._queue: deque[_Entry] = deque()
        self._outcomes = _Outcomes(missing, unavailable)
        self._known: set[Digest] = set()
        self._pushes = 0
        self._bytes = 0
        self._advice = _Advice(self._outcomes, OrderedDict.fromkeys(self._unopened))

    # What to fetch

    def wants(self, n: int) -> list[Want]:
        """The head, which serial order reads next, then up to `n` more fetches worth having.

        The head comes first and decides; the rest is advice, most needed first, read off what
        is committed. Before all defaults are committed only defaults are advised, because each
        may take over what a list in the queue names. Nothing is advised whose digest is
        committed, whose outcome is known, or that lies behind a failure that would raise.

        Args:
            n: How many beyond the head, 0 or more.

        Returns:
            At most ``n + 1`` distinct wants, empty once done. Wants in flight are listed again:
            the caller knows what it has started. Takes O(n) time.
        """
        head = self._head()
        if head is None or self.done:
            return []
        if n == 0 or self._outcomes.size > self._bounds.read_ahead:
            return [head]
        advice = self._advice
        wanted = advice.defaults(n + 1) if self._unopened else advice.instances(n + 1)
        if wanted and wanted[0] == head:
            return wanted
        return [head, *(want for want in wanted if want != head)][: n + 1]

    # What came back

    def feed(self, want: Want, outcome: Outcome) -> None:
        """Take one outcome and commit as far as serial order allows.

        Never raises: an outcome or a commit that ends the resolution sets `failure`. Outcomes
        are told apart by member and digest; the same bytes from another member do not answer
        a want. What serial order never meets is dropped.
        """
        if self.done or want in self._outcomes.waiting or want.digest in self.sources:
            return
        self._outcomes.add(want, outcome)
        self._advice.heed(want)
        self._advance()

    # The fold

    def _head(self) -> Want | None:
        if self._unopened:
            return self._unopened[0]
        queue, sources, dropped = self._queue, self.sources, self._outcomes.dropped
        while queue:
            want = queue[0].want
            if want.digest not in sources and want not in dropped:
                return want
            queue.popleft()
            self._outcomes.take(want)
        return None

    def _advance(self) -> None:
        try:
            while (head := self._head()) is not None:
                outcome = self._outcomes.take(head)
                if outcome is None:
                    return
                self._step(head, outcome)
            self._finish()
        except SupplementedError as error:
            self.failure = error
        self.done = True
        self._outcomes.waiting.clear()

    def _step(self, head: Want, outcome: Outcome) -> None:
        entry = None if head.digest is None else self._queue.popleft()
        if entry is None:
            self._unopened.popleft()
        if isinstance(outcome, SupplementedError):
            self._forgo(head, outcome)
            return
        try:
            self._commit(head.member, outcome, entry)
        except SupplementedError as error:
            error.locate(member=head.member, digest=outcome.digest)
            raise

    def _forgo(self, want: Want, error: SupplementedError) -> None:
        """Go on without an outcome, or end."""
        error.locate(member=want.member, digest=want.digest)
        if not self._outcomes.tolerates(want, error):
            raise error
        if want.digest is None:
            self.unavailable[want.member] = error
        else:
            self._outcomes.dropped[want] = error

    def _commit(self, member: int, manifest: Manifest, entry: _Entry | None) -> None:
        digest = manifest.digest
        self._bytes += manifest.size
        if self._bytes > self._bounds.total_bytes:
            cap = self._bounds.total_bytes
            message = f"the manifests of this group exceed {cap} bytes in all"
            raise LimitExceededError(message, limit=cap)
        parsed = manifest.parse()
        self.sources[digest] = member
        self.commits.append((member, digest))
        self._advice.forget(digest)
        if entry is None:
            self.defaults[member] = digest
            self.held.setdefault(digest, {})[member] = None
            self._admit(digest)
        instances = parsed.manifests if isinstance(parsed, Index) else None
        self.committed[digest] = Committed(
            digest,
            member,
            manifest.media_type,
            manifest.size,
            entry.parent if entry else None,
            () if isinstance(parsed, Index) else self._register(digest, parsed),
            instances,
        )
        if isinstance(parsed, Index):
            self._enqueue(member, digest, parsed, entry.depth + 1 if entry else 1)

    def _register(self, manifest: Digest, image: ImageManifest) -> tuple[Descriptor, ...]:
        for blob in image.blobs:
            digest = Digest(blob.digest)
            self.blobs[digest] = manifest
            namings = self.namings.setdefault(digest, {})
            namings.pop(manifest, None)
            namings[manifest] = None
        return image.blobs

    def _enqueue(self, member: int, parent: Digest, index: Index, depth: int) -> None:
        if depth > self._bounds.nesting:
            message = f"lists are nested more than {self._bounds.nesting} deep"
            raise LimitExceededError(message, limit=self._bounds.nesting)
        digests = self._note_listing(member, index)
        chosen = [
            digests.get(entry.digest) or Digest(entry.digest)
            for entry in choose(self._selection, index)
        ]
        if self._pushes + len(chosen) > self._bounds.entries:
            message = f"the lists of this group have more than {self._bounds.entries} entries"
            raise LimitExceededError(message, limit=self._bounds.entries)
        for digest in chosen:
            self._admit(digest)
            self._push(Want(member, digest), digest, parent, depth)

    def _push(self, want: Want, digest: Digest, parent: Digest, depth: int) -> None:
        self._pushes += 1
        if digest in self.sources or want in self._outcomes.dropped:
            return
        if want.member == TOP:
            entry = _Entry(want, parent, depth, self._pushes)
            self._queue.append(entry)
            self._advice.push_back(entry, digest)
        else:
            entry = _Entry(want, parent, depth, -self._pushes)
            self._queue.appendleft(entry)
            self._advice.push_front(entry, digest)

    def _note_listing(self, member: int, index: Index) -> dict[str, Digest]:
        """Remember who lists what; returns the digests by their text in the list."""
        digests: dict[str, Digest] = {}
        for entry in index.manifests:
            try:
                digest = digests[entry.digest] = Digest(entry.digest)
            except UnsupportedDigestError:
                continue  # Another platform's, for all we know; it is refused if it is chosen.
            self.listed.setdefault(digest, {})[member] = None
        return digests

    def _admit(self, digest: Digest) -> None:
        self._known.add(digest)
        if len(self._known) > self._bounds.instances:
            message = f"this group names more than {self._bounds.instances} manifests"
            raise LimitExceededError(message, limit=self._bounds.instances)

    def _finish(self) -> None:
        unserved = {
            want: error
            for want, error in self._outcomes.dropped.items()
            if want.digest not in self.sources
        }
        if unserved and self._outcomes.missing == "fallback":
            raise next(iter(unserved.values()))
        for want in unserved:
            if want.digest is not None:
                self.missing.append(Missing(want.member, want.digest))
        if isinstance(self._selection, SpecificImages):
            self._finish_specific(self._selection, {missing.digest for missing in self.missing})

    def _finish_specific(self, selection: SpecificImages, recorded: set[Digest]) -> None:
        absent = [digest for digest in selection.digests if digest not in self.sources]
        if absent and self._outcomes.missing != "skip":
            names = ", ".join(absent)
            message = f"no member supplies the requested {names}"
            raise InstanceNotFoundError(message, digests=absent)
        self.missing.extend(Missing(None, digest) for digest in absent if digest not in recorded)

    # What is known in the end

    def alternates(self, digest: Digest) -> tuple[int, ...]:
        """Other members known to hold a manifest: non-top first, later ones first."""
        members = {*self.listed.get(digest, ()), *self.held.get(digest, ())}
        members.discard(self.sources[digest])
        holding = (m for m in members if Want(m, digest) not in self._outcomes.dropped)
        return tuple(sorted(holding, reverse=True))

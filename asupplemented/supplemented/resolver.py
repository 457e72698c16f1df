"""The resolver: which member supplies which manifest, decided in serial order.

Theory of operation. The serial answer is a fold. First the default manifests of all members,
in order; then a queue of instances. A list found in the top (member 0) pushes its chosen
instances at the *back* of the queue, first one first; a list found in any other member pushes
each at the *front*, so that its last one is read first. A default manifest is always read, and
takes its digest over from an earlier member; an instance whose digest is committed is never
read again. That is how every other member comes to be preferred over the top.

This module is that fold and nothing else: no I/O, no clock, no logging. A driver asks `wants`
what to fetch and hands each outcome to `offer`, in any order. Outcomes wait here until serial
order reaches them, so the answer depends on the outcomes alone and never on their arrival. A
manifest waits as bytes and is read and parsed at its commit, as the list entry names it that
serial order reached first (rules G-05, C-08).

The *head* is the one want that serial order needs next. Once its outcome is there, `ready` says
so, and `step` moves the fold on by one commit. The next head may have its outcome stored already.
So the driver decides how much it does in one go, and where: a large manifest in a thread. `feed`
does all of it at once. The first failure that serial order meets and no policy tolerates ends the
fold, whichever failure arrived first.

Two rules for changes:

1. Everything that decides the answer happens in `step` and below it, one commit at a time.
2. `Lookahead` is updated everywhere and read by `wants` alone: it may be wrong and cost a fetch,
   and a commit must never read it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asupplemented import limits
from asupplemented.errors import (
    InstanceNotFoundError,
    InvalidDigestError,
    LimitExceededError,
    SupplementedError,
    UnsupportedDigestError,
)
from asupplemented.model.digest import Digest, check_digests, parse_digests
from asupplemented.model.index import SpecificImages, choose
from asupplemented.model.manifest import Index
from asupplemented.supplemented.lookahead import (
    TOP,
    Entry,
    Lookahead,
    MissingPolicy,
    Outcome,
    Outcomes,
    UnavailablePolicy,
    UnknownPolicy,
    Want,
    is_miss,
    is_unavailable,
)
from asupplemented.supplemented.resolution import Contribution, Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import ImageManifest, Manifest, UnreadManifest

__all__ = (
    "Bounds",
    "MissingPolicy",
    "Outcome",
    "Resolver",
    "UnavailablePolicy",
    "UnknownPolicy",
    "Want",
    "is_miss",
    "is_unavailable",
    "weigh",
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Caps against hostile input; the defaults are those of `asupplemented.limits`."""

    instances: int = limits.MAX_INSTANCES
    """Distinct manifests, read or queued."""
    entries: int = limits.MAX_ENTRIES
    """Pushes to the queue."""
    nesting: int = limits.MAX_NESTING
    """Lists on the way to a manifest, the default one included."""
    total_bytes: int = limits.MAX_MANIFESTS_TOTAL
    """Bytes of all manifests committed."""
    read_ahead: int = limits.MAX_READ_AHEAD
    """Bytes of manifests that wait for serial order; beyond, only the head is wanted."""
    memory: int = limits.MAX_RESOLVED
    """Memory of all descriptors, as `weigh` estimates it."""


class Resolver:
    """The fold over the members of one group.

    Args:
        members: The member numbers to open, in order and without duplicates; the first is the
            top, 0.
        selection: What is taken from each list.
        missing: What happens to an instance that its member does not hold. ``"raise"`` ends the
            resolution. ``"fallback"`` drops the entry, lets another member's entry serve the
            digest at its own place in the queue, and raises at the end if none did. ``"skip"``
            records it instead of raising at the end.
        unavailable: Whether a supplement that cannot be opened is an error or is left out.
        unknown: Whether an entry of unknown media type or digest algorithm is an error, or is
            opaque: bytes that name nothing or, if its digest cannot be checked, missing.
        bounds: Caps against hostile input.

    Attributes:
        failure: The error that ended the resolution, None while there is none.
        done: Whether the fold has ended, with success or with `failure`.
        sources: Manifest digest to member number, in commit order.
        defaults: Member number to the digest of its default manifest.
        committed: Manifest digest to what it contributed.
        holders: Manifest digest to the members that list it or have it as their default.
        missing: Instances that no member supplies. Complete once done.
        unavailable: Member number to the error because of which it was left out.
        commits: Every commit in order; a digest taken over appears twice.
    """

    def __init__(
        self,
        members: Sequence[int],
        selection: Selection,
        *,
        missing: MissingPolicy = "raise",
        unavailable: UnavailablePolicy = "raise",
        unknown: UnknownPolicy = "raise",
        bounds: Bounds | None = None,
    ) -> None:
        self.failure: SupplementedError | None = None
        self.done = False
        self.sources: dict[Digest, int] = {}
        self.defaults: dict[int, Digest] = {}
        self.committed: dict[Digest, Contribution] = {}
        self.holders: dict[Digest, tuple[int, ...]] = {}
        self.missing: list[Missing] = []
        self.unavailable: dict[int, SupplementedError] = {}
        self.commits: list[tuple[int, Digest]] = []
        self._selection = selection
        self._opaque = unknown == "opaque"
        self._unverifiable: dict[Missing, None] = {}
        self._bounds = bounds or Bounds()
        self._outcomes = Outcomes(missing, unavailable)
        self._unopened = deque(Want(member, None) for member in members)
        self._queue: deque[Entry] = deque()
        self._head: Want | None = self._unopened[0]
        self._known: set[Digest] = set()
        self._pushes = 0
        self._bytes = 0
        self._memory = 0
        positions = ((want, position) for position, want in enumerate(self._unopened))
        self._lookahead = Lookahead(self._outcomes, OrderedDict(positions))

    # What to fetch

    def wants(self, n: int) -> list[Want]:
        """The head, which serial order reads next, then up to `n` more fetches worth starting.

        Only the head decides; the others are guesses, the most needed one first. Before all
        defaults are committed only defaults are guessed, because each may take over what a list
        in the queue names. A want is left out if its digest is committed, if its outcome is
        known, or if it lies behind a failure that would raise.

        Args:
            n: How many beyond the head, 0 or more.

        Returns:
            At most ``n + 1`` distinct wants, empty once done. Wants in flight are listed again,
            because only the caller knows what it has started. Takes O(n) time.
        """
        head = self._head
        if head is None:
            return []
        if n == 0 or self._outcomes.size > self._bounds.read_ahead:
            return [head]
        wanted = self._lookahead.first(n + 1)
        if wanted and wanted[0] == head:
            return wanted
        return [head, *(want for want in wanted if want != head)][: n + 1]

    @property
    def head(self) -> Want | None:
        """The want that serial order needs next; None once done."""
        return self._head

    @property
    def waiting(self) -> int:
        """Bytes of the manifests that wait for serial order."""
        return self._outcomes.size

    def size_of(self, want: Want) -> int | None:
        """The size that a list gives for a want; None if it gives none."""
        leader = None if want.digest is None else self._lookahead.leaders.get(want.digest)
        return None if leader is None else leader.named.size

    # Outcomes

    def feed(self, want: Want, outcome: Outcome) -> None:
        """Take one outcome and commit as far as serial order allows.

        Never raises: an outcome or a commit that ends the resolution sets `failure`.
        """
        self.offer(want, outcome)
        while self.ready is not None:
            self.step()

    def offer(self, want: Want, outcome: Outcome) -> None:
        """Take one outcome; `step` commits it when serial order reaches it.

        Outcomes are told apart by member and digest: the same bytes from another member do not
        answer a want. Outcomes that serial order never reaches are dropped.
        """
        if not (self.done or want in self._outcomes.waiting or want.digest in self.sources):
            self._outcomes.add(want, outcome)
            self._lookahead.update(want)

    @property
    def ready(self) -> Outcome | None:
        """The outcome of the head, which the next `step` takes; None if it is not known yet."""
        return None if self._head is None else self._outcomes.waiting.get(self._head)

    # The fold

    def step(self) -> None:
        """Take the outcome of the head, if it is ready, and find the next head. Never raises."""
        head = self._head
        outcome = None if head is None else self._outcomes.take(head)
        if head is None or outcome is None:
            return
        try:
            self._step(head, outcome)
            self._head = self._find_head()
            if self._head is not None:
                return
            # Only at the end of the queue is it known what no member supplies.
            self._finish()
        except SupplementedError as error:
            self.failure = error
        self.done = True
        self._head = None
        self._outcomes.waiting.clear()

    def _find_head(self) -> Want | None:
        """The want that serial order reads next; None at the end."""
        if self._unopened:
            return self._unopened[0]
        queue, sources, dropped = self._queue, self.sources, self._outcomes.dropped
        while queue:
            want = queue[0].want
            if want.digest not in sources and want not in dropped:
                return want
            queue.popleft()
            self._outcomes.take(want)  # it is never read, so its bytes no longer count as waiting
        return None

    def _step(self, head: Want, outcome: Outcome) -> None:
        entry = None if head.digest is None else self._queue.popleft()
        if entry is None:
            self._unopened.popleft()
            self._lookahead.unopened.pop(head, None)
        if isinstance(outcome, SupplementedError):
            self._forgo(head, outcome)
            return
        try:
            self._commit(head.member, outcome, entry)
        except SupplementedError as error:
            error.locate(member=head.member, digest=outcome.digest)
            raise

    def _forgo(self, want: Want, error: SupplementedError) -> None:
        """Go on without a manifest if a policy allows it, otherwise raise."""
        error.locate(digest=want.digest)
        error.member = want.member  # a nested group counts its members for itself
        if not self._outcomes.tolerates(want, error):
            raise error
        if want.digest is None:
            self.unavailable[want.member] = error
        else:
            self._outcomes.dropped[want] = error

    def _commit(self, member: int, unread: Manifest | UnreadManifest, entry: Entry | None) -> None:
        digest, size = unread.digest, len(unread.raw)
        # The cap comes before parsing, which is what the cap has to bound.
        self._weigh(size)
        named = None if entry is None else entry.named
        media_type, parsed = unread.parse_as(named, opaque=self._opaque)
        if entry is None:
            self._admit((digest,))
            self._note_holder(digest, (member,))
            self.defaults[member] = digest
        blobs, instances = _contents(parsed)
        self._weigh_memory(instances or blobs)
        parent, depth = (entry.parent, entry.depth) if entry else (None, 0)
        self.committed[digest] = Contribution(
            digest, media_type, size, parent, blobs, instances, opaque=parsed is None
        )
        self.sources[digest] = member
        self.commits.append((member, digest))
        self._lookahead.forget(digest)
        if isinstance(parsed, Index):
            self._enqueue(member, digest, parsed, depth + 1)

    def _weigh(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._bounds.total_bytes:
            cap = self._bounds.total_bytes
            message = f"the manifests of this group exceed {cap} bytes in all"
            raise LimitExceededError(message, limit=cap)

    def _weigh_memory(self, descriptors: Sequence[Descriptor]) -> None:
        self._memory += weigh(descriptors)
        if self._memory > self._bounds.memory:
            cap = self._bounds.memory
            message = f"the lists and layers of this group take more than {cap} bytes of memory"
            raise LimitExceededError(message, limit=cap)

    def _admit(self, digests: Iterable[Digest]) -> None:
        self._known.update(digests)
        if len(self._known) > self._bounds.instances:
            message = f"this group names more than {self._bounds.instances} manifests"
            raise LimitExceededError(message, limit=self._bounds.instances)

    def _enqueue(self, member: int, parent: Digest, index: Index, depth: int) -> None:
        if depth > self._bounds.nesting:
            message = f"lists are nested more than {self._bounds.nesting} deep"
            raise LimitExceededError(message, limit=self._bounds.nesting)
        listed = self._note_list(member, index)
        entries = choose(self._selection, index)
        if self._opaque:
            entries = self._leave_unverifiable(member, entries, listed)
        chosen = [listed.get(entry.digest) or Digest(entry.digest) for entry in entries]
        if self._pushes + len(chosen) > self._bounds.entries:
            message = f"the lists of this group have more than {self._bounds.entries} entries"
            raise LimitExceededError(message, limit=self._bounds.entries)
        self._admit(chosen)
        named = iter(entries)
        for digest in chosen:
            self._pushes += 1
            descriptor = next(named)
            if digest not in self.sources:
                self._push(Want(member, digest), digest, parent, depth, descriptor)

    def _leave_unverifiable(
        self, member: int, entries: Sequence[Descriptor], listed: Mapping[str, Digest]
    ) -> tuple[Descriptor, ...]:
        """Record the entries whose digest cannot be checked as missing; return the others."""
        for entry in entries:
            if entry.digest not in listed:
                self._unverifiable[Missing(member, entry.digest)] = None
        return tuple(entry for entry in entries if entry.digest in listed)

    def _push(
        self, want: Want, digest: Digest, parent: Digest, depth: int, named: Descriptor
    ) -> None:
        if want.member == TOP:
            entry = Entry(want, parent, depth, self._pushes, named)
            self._queue.append(entry)
            self._lookahead.push_back(entry, digest)
        else:
            entry = Entry(want, parent, depth, -self._pushes, named)
            self._queue.appendleft(entry)
            self._lookahead.push_front(entry, digest)

    def _note_list(self, member: int, index: Index) -> dict[str, Digest]:
        """Note which instances a member lists; return the digests by their text in the list."""
        texts = [entry.digest for entry in index.manifests]
        try:
            digests = dict(zip(texts, parse_digests(texts), strict=True))
        except InvalidDigestError:
            digests = _parse_known(texts)
        alone = (member,)
        for digest in digests.values():
            self._note_holder(digest, alone)
        return digests

    def _note_holder(self, digest: Digest, holder: tuple[int]) -> None:
        known = self.holders.setdefault(digest, holder)
        if known is not holder and holder[0] not in known:
            self.holders[digest] = known + holder

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
        self.missing.extend(self._unverifiable)
        if isinstance(self._selection, SpecificImages):
            self._finish_specific(self._selection, {missing.digest for missing in self.missing})

    def _finish_specific(self, selection: SpecificImages, recorded: set[str]) -> None:
        absent = [digest for digest in selection.digests if digest not in self.sources]
        if absent and self._outcomes.missing != "skip":
            names = ", ".join(absent)
            message = f"no member supplies the requested {names}"
            raise InstanceNotFoundError(message, digests=absent)
        self.missing.extend(Missing(None, digest) for digest in absent if digest not in recorded)

    # Results

    @property
    def blobs(self) -> dict[Digest, Digest]:
        """Blob digest to the digest of the last commit that names it. Computed on each access."""
        return {
            Digest(blob.digest): manifest
            for _, manifest in self.commits
            for blob in self.committed[manifest].blobs
        }

    def alternates(self, digest: Digest) -> tuple[int, ...]:
        """Other members known to hold a manifest: non-top first, later ones first."""
        holders = self.holders.get(digest, ())
        if len(holders) == 1:  # nearly always; it is the member that serves it
            return ()
        others = set(holders)
        others.discard(self.sources[digest])
        holding = (m for m in others if Want(m, digest) not in self._outcomes.dropped)
        return tuple(sorted(holding, reverse=True))


def weigh(descriptors: Sequence[Descriptor]) -> int:
    """About how much memory descriptors take, in bytes."""
    weight = 240 * len(descriptors)
    for each in descriptors:
        weight += len(each.digest) + len(each.media_type or "")
        # Nearly all descriptors of blobs have nothing else.
        if each.annotations or each.urls or each.platform or each.data or each.artifact_type:
            weight += _weigh_extras(each)
    return weight


def _weigh_extras(descriptor: Descriptor) -> int:
    weight = len(descriptor.data or "") + len(descriptor.artifact_type or "")
    if descriptor.annotations:
        weight += sum(128 + len(k) + len(v) for k, v in descriptor.annotations.items())
    if descriptor.urls:
        weight += sum(64 + len(url) for url in descriptor.urls)
    platform = descriptor.platform
    if platform is not None:
        weight += 400 + sum(64 + len(feature) for feature in platform.os_features)
        weight += len(platform.os) + len(platform.architecture)
        weight += len(platform.variant or "") + len(platform.os_version or "")
    return weight


def _parse_known(texts: Sequence[str]) -> dict[str, Digest]:
    """The digests of known algorithms, by their text.

    Raises:
        InvalidDigestError: A text is no digest of any algorithm.
    """
    digests: dict[str, Digest] = {}
    for text in texts:
        try:
            digests[text] = Digest(text)
        except UnsupportedDigestError:
            continue  # Refused if it is chosen; otherwise it may be for another platform.
    return digests


def _contents(
    parsed: Index | ImageManifest | None,
) -> tuple[tuple[Descriptor, ...], tuple[Descriptor, ...] | None]:
    """The blobs that a manifest names, and the instances, None if it is no index.

    Args:
        parsed: The manifest, None if it is opaque.

    Raises:
        InvalidDigestError: The digest of a blob is malformed.
    """
    if parsed is None:
        return (), None
    if isinstance(parsed, Index):
        return (), parsed.manifests
    blobs = parsed.blobs
    check_digests([blob.digest for blob in blobs])
    return blobs, None

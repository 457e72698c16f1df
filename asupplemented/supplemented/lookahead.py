"""Which fetches are worth starting before serial order needs them.

Theory of operation. An outcome that arrives early waits in `Outcomes` until serial order reaches
it. Meanwhile `Outcomes.outlook` says, by the policies of the group, what the resolution will do
with it: commit it, go past it, or end with it.

`Lookahead` keeps two plans in serial order, the default manifests and then the instances, and
offers the first wants of a plan. Several entries of the queue may name the same digest; only one
of them will be read. These entries form a line, and the *leader* of a line is the first entry that
has not missed: as far as is known now, it is the one that will be read. Only leaders are in the
plan. A want that failed and will end the resolution is a barrier: nothing behind it is started.

None of this decides an answer. The resolver never reads `Lookahead` in a commit, so a wrong guess
costs one fetch and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from asupplemented.errors import (
    ForbiddenError,
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
)
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest, UnreadManifest

if TYPE_CHECKING:
    from asupplemented.model.descriptor import Descriptor

__all__ = (
    "TOP",
    "Entry",
    "Lookahead",
    "MissingPolicy",
    "Outcome",
    "Outcomes",
    "Outlook",
    "UnavailablePolicy",
    "UnknownPolicy",
    "Want",
    "is_miss",
    "is_unavailable",
)

MissingPolicy: TypeAlias = Literal["raise", "fallback", "skip"]
UnavailablePolicy: TypeAlias = Literal["raise", "skip"]
UnknownPolicy: TypeAlias = Literal["raise", "opaque"]
Outcome: TypeAlias = Manifest | UnreadManifest | SupplementedError

TOP: Final = 0
"""The member number of the top."""


class Want(NamedTuple):
    """One fetch: an instance of a member; with digest None, opening it for its default."""

    member: int
    digest: Digest | None


class Entry(NamedTuple):
    """An instance in the serial queue."""

    want: Want
    parent: Digest
    """The list that names it."""
    depth: int
    """Number of lists on the way to it."""
    position: int
    """Smaller is nearer to the front."""
    named: Descriptor
    """The entry of the list, which tells size and media type."""


def is_miss(error: SupplementedError) -> bool:
    """Whether an error says that an instance does not exist here, and nothing else."""
    return isinstance(error, NotFoundError) and not isinstance(error, PlatformNotFoundError)


_UNAVAILABLE: Final = (
    NetworkError,
    TruncatedError,
    SourceTimeoutError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    ForbiddenError,
    PermissionDeniedError,
)


def is_unavailable(error: SupplementedError) -> bool:
    """Whether an error says that a member cannot be used now; wrong content never says so."""
    return is_miss(error) or isinstance(error, _UNAVAILABLE)


class Outlook(Enum):
    """What the resolution will do with a want when serial order reaches it."""

    UNKNOWN = auto()
    """It has no outcome yet."""
    HELD = auto()
    """Its manifest waits to be committed."""
    MISSED = auto()
    """It failed, and the policies tolerate that: serial order goes past it."""
    FAILED = auto()
    """It failed, and ends the resolution."""


_UNKNOWN, _HELD, _MISSED, _FAILED = Outlook
# Python 3.11 takes 0.3 us to look up a member of an enum, and each manifest needs eight.


@dataclass(slots=True)
class Outcomes:
    """The outcomes that wait for serial order, and what the policies say of them."""

    missing: MissingPolicy
    unavailable: UnavailablePolicy
    waiting: dict[Want, Outcome] = field(default_factory=dict[Want, Outcome])
    """Outcomes that serial order has not reached."""
    size: int = 0
    """Bytes of the manifests in `waiting`."""
    dropped: dict[Want, SupplementedError] = field(default_factory=dict[Want, SupplementedError])
    """Instances that missed and were passed over, in serial order."""

    def add(self, want: Want, outcome: Outcome) -> None:
        """Store an outcome until it is taken."""
        self.waiting[want] = outcome
        if not isinstance(outcome, SupplementedError):
            self.size += len(outcome.raw)

    def take(self, want: Want) -> Outcome | None:
        """Remove and return an outcome; None if there is none."""
        outcome = self.waiting.pop(want, None)
        if outcome is not None and not isinstance(outcome, SupplementedError):
            self.size -= len(outcome.raw)
        return outcome

    def tolerates(self, want: Want, error: SupplementedError) -> bool:
        """Whether the resolution goes on without a want that failed with this error."""
        skips = self.unavailable == "skip" and want.member != TOP
        if want.digest is None:
            return skips and is_unavailable(error)
        if self.missing == "raise":
            return False
        return is_miss(error) or (skips and is_unavailable(error))

    def outlook(self, want: Want) -> Outlook:
        """What the resolution will do with a want."""
        if want in self.dropped:
            return _MISSED
        outcome = self.waiting.get(want)
        if outcome is None:
            return _UNKNOWN
        if not isinstance(outcome, SupplementedError):
            return _HELD
        return _MISSED if self.tolerates(want, outcome) else _FAILED


@dataclass(slots=True)
class Lookahead:
    """The wants to fetch ahead of serial order. Never read by a commit."""

    outcomes: Outcomes
    unopened: OrderedDict[Want, int]
    """Default manifests that are unknown or failed, in serial order, with their positions."""
    planned: OrderedDict[Want, int] = field(default_factory=OrderedDict[Want, int])
    """Leaders that are unknown or failed, in serial order; those that took over a line are last."""
    leaders: dict[Digest, Entry] = field(default_factory=dict[Digest, Entry])
    """Digest to the leader of its line."""
    behind: dict[Digest, list[Entry]] = field(default_factory=dict[Digest, list[Entry]])
    """Digest to the other entries of its line, the next one last."""
    failed: dict[Want, int] = field(default_factory=dict[Want, int])
    """Wants in a plan that failed, with their positions; nothing behind them is started."""

    def first(self, n: int) -> list[Want]:
        """Up to `n` wants, none behind one that failed. Instances wait for all defaults."""
        plan = self.unopened or self.planned
        wants = list(islice(plan, n))
        if self.failed:
            barrier = min(self.failed.values())
            return [want for want in wants if plan[want] < barrier]
        return wants

    def push_front(self, entry: Entry, digest: Digest) -> None:
        """An entry joined the queue in front of all others: it leads its line."""
        leader = self.leaders.get(digest)
        if leader is not None:
            self._withdraw(leader.want)
            if leader.want != entry.want:
                self.behind.setdefault(digest, []).append(leader)
        self._lead(entry, digest)
        # If this entry missed before, `_lead` planned an older one, which keeps its position.
        if entry.want in self.planned:
            self.planned.move_to_end(entry.want, last=False)

    def push_back(self, entry: Entry, digest: Digest) -> None:
        """An entry joined the queue behind all others: it leads only a line of its own.

        It need not join an existing line. All entries of the queue are the top's at that time, so
        the leader is the same want.
        """
        if digest not in self.leaders:
            self._lead(entry, digest)

    def update(self, want: Want) -> None:
        """The outlook of a want has changed."""
        digest, outlook = want.digest, self.outcomes.outlook(want)
        plan = self.unopened if digest is None else self.planned
        if outlook is _FAILED and want in plan:
            self.failed[want] = plan[want]
            return
        plan.pop(want, None)
        if outlook is _MISSED and digest is not None and digest in self.leaders:
            self._lead(self.leaders[digest], digest)

    def _lead(self, entry: Entry, digest: Digest) -> None:
        """Let an entry lead its line, or the next entry if it has missed."""
        behind = self.behind.get(digest)
        while (outlook := self.outcomes.outlook(entry.want)) is _MISSED:
            if not behind:
                self.leaders.pop(digest, None)
                return
            entry = behind.pop()
        self.leaders[digest] = entry
        if outlook is not _HELD:
            self.planned[entry.want] = entry.position
        if outlook is _FAILED:
            self.failed[entry.want] = entry.position

    def _withdraw(self, want: Want) -> None:
        self.planned.pop(want, None)
        if self.failed:
            self.failed.pop(want, None)

    def forget(self, digest: Digest) -> None:
        """A digest was committed and is never read again: its line ends."""
        leader = self.leaders.pop(digest, None)
        if leader is not None:
            self._withdraw(leader.want)
            if self.behind:
                self.behind.pop(digest, None)

"""What the resolver knows of fetches, and which ones it advises.

An outcome waits here until serial order reaches it. Meanwhile the policies say what it will
come to, and `Advice` tells which further fetches are worth having in flight. Advice may be
wrong, and then costs a fetch; nothing that decides the answer reads it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import Final, Literal, NamedTuple, TypeAlias

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
from asupplemented.model.manifest import Manifest

__all__ = (
    "TOP",
    "Advice",
    "Entry",
    "Fate",
    "MissingPolicy",
    "Outcome",
    "Outcomes",
    "UnavailablePolicy",
    "Want",
    "is_miss",
    "is_unavailable",
)

MissingPolicy: TypeAlias = Literal["raise", "fallback", "skip"]
UnavailablePolicy: TypeAlias = Literal["raise", "skip"]
Outcome: TypeAlias = Manifest | SupplementedError

TOP: Final = 0
"""The member number of the top."""


class Want(NamedTuple):
    """One fetch: a manifest of a member, or (digest None) opening it and reading its default."""

    member: int
    digest: Digest | None


class Entry(NamedTuple):
    """An instance in the serial queue."""

    want: Want
    parent: Digest
    """The list that it was chosen from."""
    depth: int
    """Lists on the way to it."""
    place: int
    """Of two entries, the one with the smaller place is nearer to the front."""


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
    ForbiddenError,
    PermissionDeniedError,
)


def is_unavailable(error: SupplementedError) -> bool:
    """Whether an error says that a member cannot be used now; wrong content never does."""
    return is_miss(error) or isinstance(error, _UNAVAILABLE)


class Fate(Enum):
    """What will become of a want when serial order reaches it."""

    UNKNOWN = auto()
    """It was not fetched yet."""
    HELD = auto()
    """Its manifest is here."""
    MISSED = auto()
    """It failed in a way that the policies tolerate: serial order goes past it."""
    FAILED = auto()
    """It failed, and ends the resolution."""


@dataclass(slots=True)
class Outcomes:
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
        """Keep an outcome until it is taken."""
        self.waiting[want] = outcome
        if isinstance(outcome, Manifest):
            self.size += outcome.size

    def take(self, want: Want) -> Outcome | None:
        """Hand out an outcome and let go of it; None if it is not here."""
        outcome = self.waiting.pop(want, None)
        if isinstance(outcome, Manifest):
            self.size -= outcome.size
        return outcome

    def tolerates(self, want: Want, error: SupplementedError) -> bool:
        """Whether the resolution goes on without a want that failed so."""
        skips = self.unavailable == "skip" and want.member != TOP
        if want.digest is None:
            return skips and is_unavailable(error)
        if self.missing == "raise":
            return False
        return is_miss(error) or (skips and is_unavailable(error))

    def fate(self, want: Want) -> Fate:
        """What will become of a want."""
        if want in self.dropped:
            return Fate.MISSED
        outcome = self.waiting.get(want)
        if outcome is None:
            return Fate.UNKNOWN
        if isinstance(outcome, Manifest):
            return Fate.HELD
        return Fate.MISSED if self.tolerates(want, outcome) else Fate.FAILED


@dataclass(slots=True)
class Advice:
    """Which fetches are worth having in flight. Never consulted for the answer.

    The entries that name one digest form a line, in serial order. The first one that has not
    missed leads it: that is what will be read for the digest, as far as anybody knows now.
    """

    outcomes: Outcomes
    unopened: OrderedDict[Want, int]
    """Default manifests that are unknown or failed, in serial order, with their places."""
    planned: OrderedDict[Want, int] = field(default_factory=OrderedDict[Want, int])
    """The same of leaders: in serial order, but those who inherited the lead come last."""
    leaders: dict[Digest, Entry] = field(default_factory=dict[Digest, Entry])
    """Who leads each line."""
    behind: dict[Digest, list[Entry]] = field(default_factory=dict[Digest, list[Entry]])
    """Who else stands in line, the next one last."""
    failed: dict[Want, int] = field(default_factory=dict[Want, int])
    """Those of the first two that failed: nothing behind their places is started."""

    def first(self, n: int) -> list[Want]:
        """Up to `n` fetches, none behind one that failed. Instances wait for all defaults."""
        plan = self.unopened or self.planned
        wants = list(islice(plan, n))
        if self.failed:
            barrier = min(self.failed.values())
            return [want for want in wants if plan[want] < barrier]
        return wants

    def push_front(self, entry: Entry, digest: Digest) -> None:
        """An entry joined the queue in front of all others."""
        leader = self.leaders.get(digest)
        if leader is not None:
            self._withdraw(leader.want)
            if leader.want != entry.want:
                self.behind.setdefault(digest, []).append(leader)
        self._lead(entry, digest)
        if entry.want in self.planned:
            self.planned.move_to_end(entry.want, last=False)

    def push_back(self, entry: Entry, digest: Digest) -> None:
        """An entry joined the queue behind all others.

        Those are entries of the top too by then, so who leads the line is the same want.
        """
        if digest not in self.leaders:
            self._lead(entry, digest)

    def heed(self, want: Want) -> None:
        """Something became of a want."""
        digest, fate = want.digest, self.outcomes.fate(want)
        plan = self.unopened if digest is None else self.planned
        if fate is Fate.FAILED and want in plan:
            self.failed[want] = plan[want]
            return
        plan.pop(want, None)
        if fate is Fate.MISSED and digest is not None and digest in self.leaders:
            self._lead(self.leaders[digest], digest)

    def _lead(self, entry: Entry, digest: Digest) -> None:
        """Put an entry in front of its line, or who comes next if it has missed."""
        behind = self.behind.get(digest)
        while (fate := self.outcomes.fate(entry.want)) is Fate.MISSED:
            if not behind:
                self.leaders.pop(digest, None)
                return
            entry = behind.pop()
        self.leaders[digest] = entry
        if fate is not Fate.HELD:
            self.planned[entry.want] = entry.place
        if fate is Fate.FAILED:
            self.failed[entry.want] = entry.place

    def _withdraw(self, want: Want) -> None:
        self.planned.pop(want, None)
        if self.failed:
            self.failed.pop(want, None)

    def forget(self, digest: Digest) -> None:
        """A digest was committed: nobody will read it again."""
        leader = self.leaders.pop(digest, None)
        if leader is not None:
            self._withdraw(leader.want)
            if self.behind:
                self.behind.pop(digest, None)

"""Failover: one blob, read from one source after another, under one hash.

Theory of operation
-------------------

Two classes share the work. `Failover` decides: it is told what happened, and answers at once. It
does not wait, reads no clock and opens nothing. `FailoverReader`, in `failover_reader`, acts: it
opens attempts, reads and hashes them, tells `Failover` what happened, and carries out the decision.

What happened, and the method that is told:

- `begin`: a candidate answered, and bytes from `position` on are about to come;
- `receive`: a chunk came. The answer says whether it may be released to the caller;
- `end`: the body ended. It raises what is wrong with that end;
- `check`: the hash of everything is known. It raises if it is the wrong one;
- `fail`: reading failed, or `end` or `check` raised. The answer is a decision;
- `refuse`: the same source was asked for the rest, and did not serve it.

A decision is one of four:

- `Resume`: ask the same source for the rest, after a pause. Only bodies that broke off are
  resumed, and only as often as `asupplemented.blobs.history` allows (rules RES-01 to RES-04);
- `NextCandidate`: ask the next candidate for the rest. The hash runs on, so the reader cannot tell
  how many sources served the bytes, and one digest proves them all;
- `StartOver`: ask the next candidate for everything. All bytes so far are void;
- `Raise`: the caller gets the error.

Three facts decide between them:

1. *Was a byte released?* Bytes that the caller has cannot become void, so there is no `StartOver`
   any more. A hashed blob of at most ``SMALL_BLOB`` bytes is held back until it is verified, so a
   source that lies is replaced, and the caller sees nothing of it.
2. *What proves the bytes?* See `Proof`. Bytes of a file that was verified before are not hashed.
   If that file fails in the middle of a whole blob, what came of it is right all the same, but no
   hash can prove the rest. So the next source serves all of the blob (`StartOver`), under a hash,
   and the bytes that the caller has (`handed`) are not handed out again.
3. *Whose bytes are they?* If the digest is wrong and one source served all bytes, that source is at
   fault. If several served, none is, but their bytes do not fit together: each is asked again, and
   from then on each has to serve the whole blob by itself (`Failover` calls that solo).

If the descriptor has no size, the first source that claims one sets it. If that source fails
before a byte is released, its claim is dropped together with its bytes, by a `StartOver`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from asupplemented.blobs.history import ResumptionPolicy, Resumptions, ServedParts
from asupplemented.errors import (
    DigestMismatchError,
    LimitExceededError,
    NetworkError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TruncatedError,
)
from asupplemented.limits import MAX_BLOB, SMALL_BLOB

if TYPE_CHECKING:
    from asupplemented.abc import BlobCandidate, Served
    from asupplemented.model.digest import Digest

__all__ = (
    "BlobProgress",
    "Decision",
    "Failover",
    "Fault",
    "NextCandidate",
    "Proof",
    "Raise",
    "Resume",
    "StartOver",
)

_BREAKS: Final = (TruncatedError, NetworkError, SourceTimeoutError)
"""What ends a body in a way that the same source may mend (rule RES-01)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The candidate to which a failure is attributed."""

    candidate: BlobCandidate
    certain: bool = True
    """Whether no other source can have caused the failure."""
    progress: int | None = None
    """Bytes that had come, if the candidate may be asked again once there are more."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Ask the same source for ``[start, end)`` after a pause."""

    start: int
    end: int | None
    pause: float
    """Seconds."""
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class NextCandidate:
    """Ask the next candidate for ``[start, end)``."""

    start: int
    end: int | None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class StartOver:
    """Forget all bytes, and ask the next candidate for ``[start, end)``."""

    start: int
    end: int | None
    first: tuple[BlobCandidate, ...] = ()
    """Candidates to ask before all others, also if they were asked before."""
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Raise:
    """Give up."""

    error: SupplementedError
    fault: Fault | None = None


Decision: TypeAlias = Resume | NextCandidate | StartOver | Raise


class Proof(enum.Enum):
    """What proves the bytes that came so far."""

    PREVERIFIED = enum.auto()
    """Every attempt reads a file that was verified before. True too while nothing has come."""
    HASHED = enum.auto()
    """One hash runs over the whole blob."""
    NONE = enum.auto()
    """A range, of which at least a part is not known to be right."""


class BlobProgress:
    """How far one blob, or one range of it, was read. A stream looks at it with every chunk.

    Attributes:
        position: Offset behind the last byte that was fetched.
        size: Bytes of the whole blob; None until it is known.
        is_whole: Whether all of the blob is fetched, so that it can be verified. Settled when the
            first byte comes, whatever sources claim after that.
        verified: None while bytes are missing; then whether all bytes were verified.
    """

    __slots__ = ("is_whole", "position", "size", "verified")

    def __init__(self, start: int, size: int | None, *, is_whole: bool) -> None:
        self.position = start
        self.size = size
        self.is_whole = is_whole
        self.verified: bool | None = None


_POLICY: Final = ResumptionPolicy()


class Failover(BlobProgress):
    """Decides how to fetch ``[start, end)`` of a blob, each byte once. See the module.

    Args:
        digest: Digest of the blob.
        size: Its size, as the descriptor says; None if it does not.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
        policy: How often each source may be asked for the rest.

    Attributes:
        candidate: The candidate that serves the bytes, or served the last ones.
        handed: Offset behind the last byte of a verified file that the caller has, although the
            blob started over after that.
        parts: What each source served.
        proof: What proves the bytes.
    """

    __slots__ = (
        "_attempt_start",
        "_digest",
        "_end",
        "_promised",
        "_released",
        "_resumptions",
        "_solo",
        "_start",
        "candidate",
        "handed",
        "parts",
        "proof",
    )

    def __init__(
        self,
        digest: Digest,
        size: int | None,
        *,
        start: int,
        end: int | None,
        policy: ResumptionPolicy = _POLICY,
    ) -> None:
        self._digest = digest
        self._promised = size
        self._start = start
        self._end = end
        super().__init__(start, size, is_whole=self._covers_all(size))
        self._attempt_start = start
        """Offset of the first byte of the attempt that is not in `parts` yet."""
        self._released = False
        self._solo = False
        self.handed = start
        self._resumptions = Resumptions(policy)
        self.candidate: BlobCandidate | None = None
        self.parts = ServedParts()
        self.proof = Proof.PREVERIFIED

    def _covers_all(self, size: int | None) -> bool:
        if self._start != 0:
            return False
        return self._end is None or (size is not None and self._end >= size)

    @property
    def received(self) -> int:
        """Bytes that were fetched."""
        return self.position - self._start

    @property
    def due(self) -> int | None:
        """Offset at which the body has to end; None if it is not known."""
        if self.size is None:
            return None
        return self.size if self._end is None else min(self._end, self.size)

    @property
    def is_empty(self) -> bool:
        """Whether a range without bytes is asked for, so that no source is needed."""
        return self._start == (self.size if self._end is None else self._end) and not self.is_whole

    @property
    def end_of_range(self) -> int | None:
        """Offset behind the last byte that is wanted; None for all bytes there are."""
        return None if self.is_whole else self._end

    @property
    def end_to_ask(self) -> int | None:
        """The end to ask for. The rest of a blob is a closed range if possible (rule RES-04)."""
        if self.position == self._start:
            return self.end_of_range
        return self.due or self.end_of_range

    # What happened

    def begin(self, candidate: BlobCandidate, size: int | None, *, preverified: bool) -> None:
        """Bytes from `position` on are about to come.

        Args:
            candidate: The source that serves them.
            size: Bytes of the blob, as the source claims; None if it does not.
            preverified: Whether the source is a file that was verified before.
        """
        self.candidate = candidate
        self._attempt_start = self.position
        if self.size is None:
            self.size = size
        if self.position == self._start:
            self.is_whole = self._covers_all(self.size)
        if self.proof is not Proof.HASHED and not (preverified and self.proof is Proof.PREVERIFIED):
            self.proof = Proof.HASHED if self.is_whole else Proof.NONE

    def receive(self, count: int) -> bool:
        """A chunk came.

        Args:
            count: Its bytes.

        Returns:
            Whether it may be released; it counts as released then.

        Raises:
            LimitExceededError: A blob of unknown size is too large.
        """
        self.position += count
        if self.size is None:
            if self.position > MAX_BLOB:
                message = (
                    f"a blob of unknown size exceeded maximum allowed size of {MAX_BLOB} bytes"
                )
                raise LimitExceededError(message, limit=MAX_BLOB)
        elif self.size <= SMALL_BLOB and self.proof is Proof.HASHED and not self._released:
            return False
        self._released = self._released or self.position > self.handed
        return True

    def take(self) -> None:
        """The caller takes the file that holds all of the blob, in place of its bytes."""
        if self.size is not None:
            self.position = self.size
        self.verified = True

    def end(self, *, trusted: bool, delimited: bool = True) -> None:
        """The body ended. If everything is hashed, `check` comes next.

        Args:
            trusted: Whether the file that was read is still the one that was verified before.
            delimited: Whether the body said where it ends.

        Raises:
            TruncatedError: Bytes are missing.
            SourceError: A file was changed while it was read.
        """
        due = self.due
        if due is not None and self.position < due:
            received = self.received
            message = f"the body ended after {received} of {due - self._start} bytes"
            raise TruncatedError(message, received=received)
        if self.proof is Proof.HASHED:
            return
        if due is None and not delimited and self.position != self._end:
            message = f"the body ended after {self.received} bytes, perhaps too early"
            raise TruncatedError(message, received=self.received)
        verified = self.proof is Proof.PREVERIFIED and trusted
        if self.is_whole and not verified:
            message = "the file was changed while it was read; open the blob again"
            raise SourceError(message)
        self.verified = verified

    def check(self, actual: Digest) -> None:
        """Everything was hashed.

        Raises:
            DigestMismatchError: The bytes are not those of the blob.
        """
        if actual != self._digest:
            message = f"the content of the blob has the digest {actual}"
            parts = self.parts
            failure = DigestMismatchError(message, actual=actual, suspects=parts.members)
            if len(parts.suppliers) == 1:
                source = parts.suppliers[0]
                failure.locate(reference=source.reference, member=source.member)
            raise failure
        self.size = self.position
        self.verified = True

    def record_part(self) -> Served | None:
        """Record what the attempt has served since the last call; None if that is nothing."""
        start, self._attempt_start = self._attempt_start, self.position
        if self.candidate is None:
            return None
        return self.parts.add(self.candidate, start, self.position)

    def fail(
        self, failure: SupplementedError, *, resumable: bool, now: float, chance: float
    ) -> Decision:
        """Reading from `candidate` failed; call `record_part` first.

        Args:
            failure: What happened.
            resumable: Whether the source can be asked for the rest.
            now: The time, in seconds.
            chance: A number in ``[0, 1)``.
        """
        source = self.candidate
        if source is None or isinstance(failure, LimitExceededError):
            return Raise(failure)
        if isinstance(failure, DigestMismatchError):
            return self._fail_check(source, failure)
        pause = self._allow_resumption(source, failure, now, chance) if resumable else None
        fault = Fault(source, progress=self.received if pause is None else None)
        if self.position != self._start and self.proof is Proof.PREVERIFIED:
            if self.is_whole:
                self.handed = max(self.handed, self.position)
                self._released = False
                return self._start_over(fault)
            self.proof = Proof.NONE  # What comes now is not hashed.
        if pause is None:
            return self._go_on(fault)
        return Resume(self.position, self.end_to_ask, pause, fault)

    def refuse(self) -> Decision:
        """The source was asked for the rest, and does not serve it."""
        return self._go_on(None)

    # Deciding

    def _allow_resumption(
        self, source: BlobCandidate, failure: SupplementedError, now: float, chance: float
    ) -> float | None:
        """Seconds until the same source is asked again; None if it is not."""
        if not isinstance(failure, _BREAKS):
            return None
        record = self._resumptions.of(source)
        stalled = isinstance(failure, SourceTimeoutError)
        if not record.allows(self.position, now, stalled=stalled):
            return None
        return record.begin(self.position, now, chance)

    def _go_on(self, fault: Fault | None) -> Decision:
        # A size that only sources claim goes with the source that claimed it.
        if self._solo or (not self._released and self._promised is None):
            return self._start_over(fault)
        return NextCandidate(self.position, self.end_to_ask, fault)

    def _fail_check(self, last: BlobCandidate, failure: DigestMismatchError) -> Decision:
        suppliers = self.parts.suppliers
        mixed = len(suppliers) > 1
        culprit = suppliers[0] if len(suppliers) == 1 else last
        fault = Fault(culprit, certain=not mixed)
        if self._released:
            return Raise(failure, fault)
        first: tuple[BlobCandidate, ...] = ()
        if mixed:
            first = suppliers
            self._solo = True
        if suppliers and all(last is not supplier for supplier in suppliers):
            first = (last, *first)  # It had nothing left to serve, right or wrong.
        return self._start_over(fault, first)

    def _start_over(self, fault: Fault | None, first: tuple[BlobCandidate, ...] = ()) -> StartOver:
        self.parts.clear()
        self._resumptions.clear()
        self.proof = Proof.PREVERIFIED
        self._attempt_start = self.position = self._start
        self.size = self._promised
        self.is_whole = self._covers_all(self.size)
        return StartOver(self.position, self.end_to_ask, first, fault)

    def list_served(self) -> list[Served]:
        """The parts that each source has served up to now, in order."""
        if self.candidate is None:
            return []
        return self.parts.list_with(self.candidate, self._attempt_start, self.position)

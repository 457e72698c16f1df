"""The reader that carries out what `asupplemented.blobs.failover` decides."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Final, TypeAlias

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import close_all
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.blobs.candidates import (
    Candidates,
    check_announced,
    locate_failure,
    naming_encoding,
)
from asupplemented.blobs.failover import Failover, Proof, Raise, Resume, StartOver
from asupplemented.blobs.hashing import start_hash
from asupplemented.blobs.history import RESUMPTION, ResumptionPolicy
from asupplemented.errors import (
    ClosedError,
    RangeError,
    SourceError,
    SupplementedError,
    UsageError,
    VerificationError,
)
from asupplemented.events import BlobServed, BlobStarted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from asupplemented.abc import BlobCandidate, Context, Served
    from asupplemented.blobs.attempts import Attempt
    from asupplemented.blobs.failover import BlobProgress, Decision, Fault
    from asupplemented.blobs.hashing import RunningHash
    from asupplemented.events import CacheUse
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest

__all__ = ("BlobReader", "FailoverReader", "FirstChoice")

MAX_PIECES: Final = 1024
"""Chunks of a small blob that are kept apart. Many tiny ones cost far more than their bytes."""


class BlobReader(AsyncResource):
    """What a stream reads from: the bytes of one blob, in order, each once."""

    __slots__ = ()

    progress: BlobProgress
    """How far it has read."""
    successor: BlobReader | None
    """The reader to go on with, in place of this one, once there is one."""

    @property
    @abc.abstractmethod
    def candidate(self) -> BlobCandidate | None:
        """The candidate that serves the bytes, or served the last ones; None before the first."""

    @property
    def cached(self) -> bool:
        """Whether the last bytes came from the cache."""
        return False

    @property
    def cache_use(self) -> CacheUse:
        """What serves the bytes; see `BlobStream.cache_use`."""
        return "" if self.candidate is None else self.candidate.cache_use

    def take_path(self) -> Path | None:
        """Take a file that holds the blob and nothing else, and was verified before."""
        return None

    @abc.abstractmethod
    async def read(self) -> list[bytes]:
        """The next chunks; none at the end, when ``progress.verified`` is set.

        Raises:
            DigestMismatchError: The content is not what the digest names.
            SupplementedError: No source serves the rest.
            ClosedError: The reader was closed.
        """

    def follow(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when bytes come that are held back: `read` does not return then."""

    @abc.abstractmethod
    def list_served(self) -> Sequence[Served]:
        """The parts that each source has served up to now, in order."""

    @abc.abstractmethod
    def list_corrupt(self) -> Sequence[VerificationError]:
        """Errors of the sources that had other content, in order."""


FirstChoice: TypeAlias = (
    "Callable[[Sequence[BlobCandidate], int], Awaitable[Attempt | BlobReader | None]]"
)
"""Finds something better than some candidates: an attempt to begin with, or another reader.

It is given the candidates, best first, and the offset of the first byte that the caller lacks, from
which another reader begins. An attempt begins where the stream began."""

MAX_CHOICES: Final = 2
"""How often a first choice is tried: to begin with, and once more after a file has failed."""


class FailoverReader(BlobReader):
    """Fetches ``[start, end)`` of a blob from its candidates, as `Failover` decides.

    Args:
        descriptor: The blob; its digest was validated.
        digest: The same digest.
        candidates: The candidates, best first.
        context: The session.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
        first_choice: Tried before the first candidate that is not on this machine. If it is None
            or returns None, the candidates are asked.
    """

    __slots__ = (
        "_attempt",
        "_candidates",
        "_choices",
        "_clock",
        "_closed",
        "_context",
        "_digest",
        "_failover",
        "_first_choice",
        "_hash",
        "_start",
        "_tell",
        "progress",
        "successor",
    )

    def __init__(
        self,
        descriptor: Descriptor,
        digest: Digest,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int,
        end: int | None,
        first_choice: FirstChoice | None = None,
    ) -> None:
        promised = descriptor.size is not None
        self._candidates = Candidates(candidates, context, digest, promised=promised)
        self._clock = context.resource(CLOCK, Clock)
        self._context = context
        self._digest = digest
        self._first_choice = first_choice
        self._choices = 0
        self._start = start
        self.successor: BlobReader | None = None
        self._failover = Failover(
            digest,
            descriptor.size,
            start=start,
            end=end,
            policy=context.resource(RESUMPTION, ResumptionPolicy),
        )
        self.progress = self._failover
        self._attempt: Attempt | None = None
        self._hash: RunningHash | None = None
        self._closed = False
        self._tell: Callable[[], None] | None = None

    @property
    def candidate(self) -> BlobCandidate | None:
        return self._failover.candidate

    @property
    def cached(self) -> bool:
        return self.cache_use in {"hit", "joined"}

    def take_path(self) -> Path | None:
        attempt = self._attempt
        path = None if attempt is None else attempt.path
        if attempt is not None and path is not None:
            self._failover.take()
            self._record_part()
            self._candidates.record_success(attempt.candidate)
        return path

    def follow(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def list_served(self) -> Sequence[Served]:
        return self._failover.list_served()

    def list_corrupt(self) -> Sequence[VerificationError]:
        return self._candidates.corrupt

    # Opening

    async def open(self) -> BlobReader:
        """Ask the candidates until one answers. An empty range asks none.

        Returns:
            The reader to read from: this one, or what `first_choice` found.

        Raises:
            RangeError: The range starts behind the end of the blob.
            LimitExceededError: The blob is larger than ``MAX_BLOB``.
            SupplementedError: No candidate answers; see `Candidates.verdict`.
        """
        failover = self._failover
        size = failover.size
        if size is not None and failover.position > size:
            message = f"the range starts at {failover.position}, and the blob has {size} bytes"
            raise RangeError(message, digest=self._digest)
        check_announced(size)
        if failover.is_empty:
            failover.verified = False
            return self
        await self._ask_next(failover.position, failover.end_to_ask)
        return self.successor or self

    async def _ask_next(self, start: int, end: int | None) -> None:
        failover = self._failover
        attempt = await self._try_first_choice(start, end)
        if self.successor is not None:
            return
        if attempt is None:
            attempt = await self._candidates.open_next(
                size=failover.size, start=start, end=end, progress=failover.received
            )
        await self._use(attempt)

    async def _try_first_choice(self, start: int, end: int | None) -> Attempt | None:
        """What is better than the candidate to ask next: a file, or `successor`; None if nothing.

        Files of this machine are read in their turn; the first choice is for what follows them.
        """
        choose = self._first_choice
        if choose is None or start != self._start or self._choices == MAX_CHOICES:
            return None
        size = self._failover.size
        attempt = await self._candidates.open_local(size=size, start=start, end=end)
        waiting = self._candidates.waiting
        if attempt is not None or not waiting:
            return attempt
        self._choices += 1
        try:
            found = await choose(waiting, self._failover.handed)
        except UsageError:
            raise
        except SupplementedError as error:
            raise self._candidates.join(error) from None
        if not isinstance(found, BlobReader):
            return found
        if self._closed:
            await found.aclose()
            raise self._closed_error()
        self.successor = found
        return None

    async def _use(self, attempt: Attempt) -> None:
        failover, candidate = self._failover, attempt.candidate
        self._attempt = attempt
        failover.begin(candidate, attempt.size, preverified=attempt.preverified)
        if self._closed:
            self._candidates.release(candidate)
            await self._drop_attempt()
            raise self._closed_error()
        if failover.proof is Proof.HASHED and self._hash is None:
            self._hash = start_hash(self._context, self._digest)
        await attempt.begin(failover.end_of_range, self._hash, failover.size)
        if self._context.observed:
            start, member = failover.position, candidate.member
            self._context.emit(
                BlobStarted(candidate.reference, self._digest, start, member, self.cached)
            )

    # Reading

    async def read(self) -> list[bytes]:
        failover = self._failover
        blocks: list[bytes] = []
        while failover.verified is None:
            attempt = self._attempt
            if attempt is None:
                raise self._closed_error()
            try:
                block = await attempt.read()
                if self._closed:
                    raise self._closed_error()
                if block:
                    if self._receive(block, blocks):
                        return blocks
                else:
                    await self._finish(attempt)
                continue
            except (SupplementedError, OSError, EOFError) as error:
                failure = locate_failure(error, attempt.candidate, self._digest)
                if isinstance(failure, UsageError):
                    raise
            # Beyond the handler, so that failures do not pile up as contexts of one another.
            if await self._go_on(attempt, failure):
                blocks.clear()
            if self.successor is not None:
                break
        return blocks

    def _receive(self, block: bytes, blocks: list[bytes]) -> bool:
        """Add a block to those for the caller; gives whether these may be released."""
        failover = self._failover
        known = failover.handed - failover.position
        may_release = failover.receive(len(block))
        if known >= len(block):
            return False  # The caller has it.
        blocks.append(block[known:] if known > 0 else block)
        if len(blocks) > MAX_PIECES:
            blocks[:] = [b"".join(blocks)]
        if not may_release and self._tell is not None:
            self._tell()
        return may_release

    async def _finish(self, attempt: Attempt) -> None:
        """The body has ended: verify what can be verified."""
        self._record_part()
        self._failover.end(trusted=attempt.trusted, delimited=attempt.delimited)
        if self._hash is not None:
            actual = await self._hash.finish()
            with naming_encoding(attempt):
                self._failover.check(actual)
            self._hash = None
            attempt.confirm()
        self._candidates.record_success(attempt.candidate)

    async def _go_on(self, attempt: Attempt, failure: SupplementedError) -> bool:
        """Carry out what is decided after a failure.

        Returns:
            Whether it starts over, so that all bytes so far are void.
        """
        if self._attempt is None:
            raise failure
        failover, clock = self._failover, self._clock
        self._record_part()
        if isinstance(failure, SourceError):
            failure.received = failover.received
        decision = failover.fail(
            failure, resumable=attempt.resumable, now=clock.now(), chance=clock.random()
        )
        self._record_fault(decision.fault, attempt.candidate, failure)
        if isinstance(decision, Raise):
            raise decision.error
        await self._drop_attempt(failure)
        if isinstance(decision, Resume):
            if await self._resume(decision, attempt):
                return False
            decision = failover.refuse()
        return await self._replace(decision)

    async def _resume(self, decision: Resume, attempt: Attempt) -> bool:
        """Ask the same source for the rest; False if it does not serve it."""
        await self._clock.sleep(decision.pause)
        if self._closed:
            raise self._closed_error()
        again = await self._candidates.ask(
            attempt.candidate,
            size=self._failover.size,
            start=decision.start,
            end=decision.end,
            progress=self._failover.received,
            after=attempt,
        )
        if again is None:
            return False
        await self._use(again)
        return True

    async def _replace(self, decision: Decision) -> bool:
        """Ask another source; True if it starts over."""
        if isinstance(decision, Raise):
            raise decision.error
        starts_over = isinstance(decision, StartOver)
        if isinstance(decision, StartOver):
            self._discard_hash()
            self._candidates.put_first(decision.first)
        await self._ask_next(decision.start, decision.end)
        return starts_over

    def _record_fault(
        self, fault: Fault | None, last: BlobCandidate, failure: SupplementedError
    ) -> None:
        if fault is None:
            return
        self._candidates.record_failure(
            fault.candidate, failure, progress=fault.progress, alone=fault.certain
        )
        if fault.candidate is not last:
            self._candidates.release(last)

    def _record_part(self) -> None:
        part = self._failover.record_part()
        if part is not None and self._context.observed:
            reference, member, start, end = part
            self._context.emit(BlobServed(reference, self._digest, start, end, member, self.cached))

    def _discard_hash(self) -> None:
        running, self._hash = self._hash, None
        if running is not None:
            running.discard()

    async def _drop_attempt(self, failure: SupplementedError | None = None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        try:
            await close_all((attempt,), "its source")
        except ExceptionGroup as group:
            if failure is not None:
                failure.add_note(f"{group.message} failed as well: {group.exceptions}")

    # Closing

    def _closed_error(self) -> ClosedError:
        message = "the blob stream has been closed; open the blob again"
        return ClosedError(message, digest=self._digest)

    async def aclose(self) -> None:
        """Release everything, also in the middle. May be called again.

        Raises:
            ExceptionGroup: The source did not close without an error.
        """
        if self._closed:
            return
        self._closed = True
        if self._hash is not None:
            self._hash.discard()
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            self._candidates.forget()
            return
        self._record_part()
        if self._failover.verified is None:
            self._candidates.release(attempt.candidate)
        self._candidates.forget()
        await close_all((attempt,), f"blob {self._digest}")

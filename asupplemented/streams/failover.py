"""A relay of candidates: one blob, from one source after another, under one hash.

What breaks off is gone on with at the byte where it broke off: by the same source if its rules
allow it, else by the next one, of whatever kind it is. The hash over all bytes runs on, so that
nobody can tell from the bytes how many have carried them, and the digest is proof for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.abc import AsyncResource
from asupplemented.closing import close_all
from asupplemented.errors import (
    ClosedError,
    DigestMismatchError,
    LimitExceededError,
    NetworkError,
    RangeError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TruncatedError,
    UsageError,
)
from asupplemented.events import BlobStarted
from asupplemented.limits import MAX_BLOB, SMALL_BLOB
from asupplemented.retry import CLOCK, Clock
from asupplemented.streams.candidates import Candidates, located
from asupplemented.streams.hashing import start_hash
from asupplemented.streams.history import Resumption, ResumptionPolicy
from asupplemented.streams.service import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import BlobCandidate, Context, Served
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.streams.attempts import Attempt
    from asupplemented.streams.hashing import RunningHash

__all__ = ("Relay",)

_PIECES: Final = 1024
"""Pieces of a small blob that are kept apart: of tiny ones each costs far more than its bytes."""

_BREAKS = (TruncatedError, NetworkError, SourceTimeoutError)
"""What ends a body in a way that the same source may mend (rule RES-01)."""


class Relay(AsyncResource):
    """Fetches ``[start, end)`` of a blob, in order, each byte once.

    A blob of up to ``SMALL_BLOB`` bytes is fetched whole and verified before any of it is given,
    so that who lies is replaced, and nobody notices.

    Args:
        descriptor: What to fetch; its digest was validated.
        digest: The same digest.
        candidates: Who may serve it, best first.
        context: The session.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
        front: Asked before all candidates; it may have something better, and knows when not.
    """

    __slots__ = (
        "_alone",
        "_attempt",
        "_began",
        "_candidate",
        "_candidates",
        "_clock",
        "_closed",
        "_context",
        "_descriptor",
        "_digest",
        "_end",
        "_front",
        "_given",
        "_proven",
        "_resumptions",
        "_running",
        "_service",
        "_start",
        "is_whole",
        "position",
        "right",
        "size",
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
        front: Callable[[], Awaitable[Attempt | None]] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._digest = digest
        self._candidates = Candidates(
            candidates, context, digest, promised=descriptor.size is not None
        )
        self._context = context
        self._clock = context.resource(CLOCK, Clock)
        self._start = start
        self._end = end
        self._front = front
        self._closed = False
        self._attempt: Attempt | None = None
        self._began = start
        """Where the attempt began, or what it served was written down."""
        self._running: RunningHash | None = None
        self._proven = True
        """Whether all attempts so far gave bytes that were verified before."""
        self._alone = False
        """Bytes of several sources make no sense together, so each has to serve all by itself."""
        self._given = False
        """Something was handed on, so that it cannot begin again any more."""
        self._resumptions: list[tuple[BlobCandidate, Resumption]] = []
        self._service = Service(context, digest)
        self._candidate: BlobCandidate | None = None
        self.position = start
        """Offset behind the last byte that was fetched."""
        self.right: bool | None = None
        """What verification said of everything; None until everything came."""
        self.size = descriptor.size
        """Bytes of the whole blob, None until somebody says so."""
        self.is_whole = self._covers_all()
        """Whether all of the blob is fetched, so that it can be verified; that is settled when
        the first byte comes, whatever is said of the size after that."""

    def _covers_all(self) -> bool:
        if self._start != 0:
            return False
        return self._end is None or (self.size is not None and self._end >= self.size)

    @property
    def candidate(self) -> BlobCandidate | None:
        """Who serves, or served at last."""
        return self._candidate if self._attempt is None else self._attempt.candidate

    @property
    def attempt(self) -> Attempt | None:
        """What is being read."""
        return self._attempt

    @property
    def due(self) -> int | None:
        """Offset at which the body has to end, None if nobody knows."""
        if self.size is None:
            return None
        return self.size if self._end is None else min(self._end, self.size)

    @property
    def _is_held_back(self) -> bool:
        """Whether everything is verified before any of it is given."""
        if self._given or self._running is None or self.size is None:
            return False
        return self.size <= SMALL_BLOB

    # Asking

    async def open(self) -> None:
        """Ask until one answers; a range without bytes asks nobody.

        Raises:
            RangeError: The range starts behind the end of the blob.
            SupplementedError: Nobody answers; see `Candidates.verdict`.
        """
        if self.size is not None and self._start > self.size:
            message = f"the range starts at {self._start}, and the blob has {self.size} bytes"
            raise RangeError(message, digest=self._digest)
        if self._start == (self.size if self._end is None else self._end) and not self.is_whole:
            self.right = False
            return
        attempt = None if self._front is None else await self._front()
        if attempt is None:
            await self._ask_next()
        else:
            await self._use(attempt)

    async def _ask_next(self) -> None:
        attempt = await self._candidates.open_next(
            size=self.size,
            start=self.position,
            end=self._asked_end,
            progress=self._progress,
        )
        await self._use(attempt)

    @property
    def _progress(self) -> int:
        return self.position - self._start

    @property
    def _wanted_end(self) -> int | None:
        return None if self.is_whole else self._end

    @property
    def _asked_end(self) -> int | None:
        """The end to ask for; the rest of a blob is a closed range if possible (rule RES-04)."""
        return self._wanted_end if self.position == self._start else self.due or self._wanted_end

    async def _use(self, attempt: Attempt) -> None:
        self._attempt, self._candidate = attempt, attempt.candidate
        if self._closed:
            self._candidates.leave(attempt.candidate)
            await self._drop_attempt()
            raise self._closed_error()
        self._began = self.position
        if self.size is None:
            self.size = attempt.size
        if self.position == self._start:
            self.is_whole = self._covers_all()
        self._proven = self._proven and attempt.proven
        if self.is_whole and self._running is None and not self._proven:
            self._running = start_hash(self._context, self._digest)
        await attempt.begin(self._wanted_end, self._running, self.size)
        if self._context.observed and attempt.served is None:
            reference, member = attempt.candidate.reference, attempt.candidate.member
            self._context.emit(BlobStarted(reference, self._digest, self.position, member))

    # Reading

    async def read(self) -> list[bytes]:
        """The next blocks; none at the end, once everything is right.

        Raises:
            DigestMismatchError: The content is not what the digest names.
            SupplementedError: Nobody serves the rest.
            ClosedError: The relay was closed.
        """
        blocks: list[bytes] = []
        while self.right is None and (not blocks or self._is_held_back):
            try:
                block = await self._pull()
            except UsageError:
                raise
            except SupplementedError as error:
                failure = error
            else:
                if block:
                    blocks.append(block)
                if len(blocks) > _PIECES:
                    blocks = [b"".join(blocks)]
                continue
            # Beyond the handler, so that failures do not pile up as contexts of one another.
            if await self._go_on(failure):
                blocks.clear()
        self._given = self._given or bool(blocks)
        return blocks

    async def _pull(self) -> bytes:
        attempt = self._attempt
        if attempt is None:
            raise self._closed_error()
        with located(attempt.candidate, self._digest):
            block = await attempt.read()
            if self._closed:
                raise self._closed_error()
            if block:
                self.position += len(block)
                self._check_cap()
            else:
                await self._complete(attempt)
        return block

    def _check_cap(self) -> None:
        if self.size is None and self.position > MAX_BLOB:
            message = f"a blob of unknown size exceeded maximum allowed size of {MAX_BLOB} bytes"
            raise LimitExceededError(message, limit=MAX_BLOB)

    async def _complete(self, attempt: Attempt) -> None:
        """The body has ended: see whether it is what it should be."""
        due = self.due
        if due is not None and self.position < due:
            received = self.position - self._start
            message = f"the body ended after {received} of {due - self._start} bytes"
            raise TruncatedError(message, received=received)
        if self._running is None:
            self._conclude(attempt, right=self._proven and attempt.trusted)
            return
        actual = await self._running.finish()
        if actual != self._digest:
            message = f"the content of the blob has the digest {actual}"
            self._note_service(attempt)
            raise self._accuse(
                DigestMismatchError(message, actual=actual, suspects=self._service.members)
            )
        self._running, self.size = None, self.position
        self._conclude(attempt, right=True)
        attempt.confirm()

    def _conclude(self, attempt: Attempt, *, right: bool) -> None:
        if self.is_whole and not right:
            message = "the file was changed while it was read; open the blob again"
            raise SourceError(message)
        self._note_service(attempt)
        if attempt.served is None:
            self._candidates.praise(attempt.candidate)
        self.right = right

    # Going on

    async def _go_on(self, failure: SupplementedError) -> bool:
        """Find somebody for the rest, or raise the failure.

        Returns:
            Whether it begins again with the first byte, so that what came so far is void.
        """
        attempt = self._attempt
        if attempt is None or attempt.final or isinstance(failure, LimitExceededError):
            raise failure
        self._note_service(attempt)
        if isinstance(failure, DigestMismatchError):
            await self._judge(attempt, failure)
            again = True
        elif await self._resume(attempt, failure):
            return False
        else:
            # A size that nobody promised goes with who claimed it, as long as that is possible.
            again = self._alone or (not self._given and self._descriptor.size is None)
        if again:
            self._begin_again()
        await self._ask_next()
        return again

    async def _judge(self, attempt: Attempt, failure: DigestMismatchError) -> None:
        """The content is wrong: say who is to blame, if that is clear."""
        last = attempt.candidate
        suppliers = self._service.suppliers
        mixed = len(suppliers) > 1
        culprit = suppliers[0] if len(suppliers) == 1 else last
        self._candidates.blame(culprit, failure, alone=not mixed)
        if culprit is not last:
            self._candidates.leave(last)
        if self._given:
            raise failure
        await self._drop_attempt(failure)
        if mixed:
            self._candidates.put_first(suppliers)
            self._alone = True
        if suppliers and all(last is not supplier for supplier in suppliers):
            self._candidates.put_first((last,))  # It had nothing left to serve, right or wrong.

    def _accuse(self, failure: DigestMismatchError) -> DigestMismatchError:
        """Say whose bytes they were, if they were all from one source, be it not the last one."""
        suppliers = self._service.suppliers
        if len(suppliers) == 1:
            failure.locate(reference=suppliers[0].reference, member=suppliers[0].member)
        return failure

    async def _resume(self, attempt: Attempt, failure: SupplementedError) -> bool:
        """Have done with an attempt that broke off, and ask the same source for the rest.

        Returns:
            Whether it goes on; if not, that is no use, or failed.
        """
        pause = self._allow_resumption(attempt, failure)
        progress = self._progress if pause is None else None
        self._take_failure(attempt, failure, progress)
        await self._drop_attempt(failure)
        if pause is None:
            return False
        await self._clock.sleep(pause)
        if self._closed:
            raise self._closed_error()
        again = await self._candidates.ask(
            attempt.candidate,
            size=self.size,
            start=self.position,
            end=self._asked_end,
            progress=self._progress,
            after=attempt,
        )
        if again is None:
            return False
        await self._use(again)
        return True

    def _take_failure(
        self, attempt: Attempt, failure: SupplementedError, progress: int | None
    ) -> None:
        if isinstance(failure, SourceError):
            failure.received = self._progress
        self._candidates.blame(attempt.candidate, failure, progress=progress)
        if self.position == self._start:
            return
        if self.is_whole and self._running is None:
            raise failure  # what was not hashed cannot be hashed any more
        self._proven = False  # what a file was that failed, nobody can tell

    def _allow_resumption(self, attempt: Attempt, failure: SupplementedError) -> float | None:
        """Seconds until the same source is asked again, None if it is not (rules RES-01 to -04)."""
        if not attempt.resumable or not isinstance(failure, _BREAKS):
            return None
        record, now = self._resumption_of(attempt.candidate), self._clock.now()
        stalled = isinstance(failure, SourceTimeoutError)
        if not record.allows(self.position, now, stalled=stalled):
            return None
        return record.begin(self.position, now, self._clock.random())

    def _resumption_of(self, candidate: BlobCandidate) -> Resumption:
        for known, record in self._resumptions:
            if known is candidate:
                return record
        record = Resumption(ResumptionPolicy())
        self._resumptions.append((candidate, record))
        return record

    def _begin_again(self) -> None:
        if self._running is not None:
            self._running.discard()
            self._running = None
        self._service.forget()
        self._resumptions.clear()
        self._proven = True
        self._began = self.position = self._start
        self.size = self._descriptor.size
        self.is_whole = self._covers_all()

    def list_served(self) -> list[Served]:
        """Who has served what, up to now."""
        attempt, candidate = self._attempt, self.candidate
        if attempt is not None and attempt.served is not None:
            return list(attempt.served)
        if candidate is None:
            return []
        return self._service.list_parts(candidate, self._began, self.position)

    def _note_service(self, attempt: Attempt) -> None:
        """Write down what the attempt has served, once."""
        began, self._began = self._began, self.position
        if attempt.served is not None:
            self._service.adopt(attempt.served)
        else:
            self._service.note(attempt.candidate, began, self.position)

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
            ExceptionGroup: The source did not let go gracefully.
        """
        if self._closed:
            return
        self._closed = True
        if self._running is not None:
            self._running.discard()
        self._candidate = self.candidate
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            self._candidates.forget()
            return
        self._note_service(attempt)
        if self.right is None:
            self._candidates.leave(attempt.candidate)
        self._candidates.forget()
        await close_all((attempt,), f"blob {self._digest}")

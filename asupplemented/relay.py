"""A relay of candidates: one blob, from one source after another, under one hash.

What breaks off is gone on with at the byte where it broke off: by the same source if its rules
allow it, else by the next one, of whatever kind it is. The hash over all bytes runs on, so that
nobody can tell from the bytes how many have carried them, and the digest is proof for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.abc import AsyncResource, Served
from asupplemented.candidates import Candidates, located
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
from asupplemented.events import BlobServed, BlobStarted
from asupplemented.hashing import start_hash
from asupplemented.limits import MAX_BLOB, SMALL_BLOB
from asupplemented.resumption import Resumption, ResumptionPolicy
from asupplemented.retry import CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.attempts import Attempt
    from asupplemented.hashing import RunningHash
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest

__all__ = ("Relay",)

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
        "_proven",
        "_resumptions",
        "_running",
        "_start",
        "_suppliers",
        "position",
        "right",
        "served",
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
        self._candidates = Candidates(candidates, context, digest)
        self._context = context
        self._clock = context.resource(CLOCK, Clock)
        self._start = start
        self._end = end
        self._front = front
        self._closed = False
        self._attempt: Attempt | None = None
        self._began = start
        """Where the attempt began."""
        self._running: RunningHash | None = None
        self._proven = True
        """Whether all attempts so far gave bytes that were verified before."""
        self._alone = False
        """Bytes of several sources make no sense together, so each has to serve all by itself."""
        self._resumptions: list[tuple[BlobCandidate, Resumption]] = []
        self._suppliers: list[BlobCandidate] = []
        """Whose bytes went into the hash, each once."""
        self._candidate: BlobCandidate | None = None
        self.position = start
        """Offset behind the last byte that was fetched."""
        self.right: bool | None = None
        """What verification said of everything; None until everything came."""
        self.served: list[Served] = []
        """Who has served what, in order; what is being read is not there yet."""
        self.size = descriptor.size
        """Bytes of the whole blob, None until somebody says so."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the blob was asked for, as far as one can tell."""
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
    def _is_small(self) -> bool:
        return self._running is not None and self.size is not None and self.size <= SMALL_BLOB

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
            end=self._wanted_end,
            progress=self._progress,
        )
        await self._use(attempt)

    @property
    def _progress(self) -> int:
        return self.position - self._start

    @property
    def _wanted_end(self) -> int | None:
        return None if self.is_whole else self._end

    async def _use(self, attempt: Attempt) -> None:
        self._attempt, self._candidate = attempt, attempt.candidate
        if self._closed:
            await self._drop_attempt()
            raise self._closed_error()
        self._began = self.position
        if self.size is None:
            self.size = attempt.size
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
        whole = self._is_small
        while self.right is None and (whole or not blocks):
            try:
                block = await self._pull()
            except UsageError:
                raise
            except SupplementedError as error:
                failure = error
            else:
                if block:
                    blocks.append(block)
                continue
            # Beyond the handler, so that failures do not pile up as contexts of one another.
            if await self._go_on(failure, kept=whole):
                blocks.clear()
                whole = self._is_small
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
            raise DigestMismatchError(message, actual=actual, suspects=self._suspects())
        self._running, self.size = None, self.position
        self._conclude(attempt, right=True)
        attempt.confirm()

    def _conclude(self, attempt: Attempt, *, right: bool) -> None:
        if self.is_whole and not right:
            message = "the file was changed while it was read; open the blob again"
            raise SourceError(message)
        self._note_service()
        if attempt.served is None:
            self._candidates.praise(attempt.candidate)
        self.right = right

    def _suspects(self) -> list[int]:
        self._note_service()
        return [n for n in dict.fromkeys(part.member for part in self.served) if n is not None]

    # Going on

    async def _go_on(self, failure: SupplementedError, *, kept: bool) -> bool:
        """Find somebody for the rest, or raise the failure.

        Args:
            failure: What ended the attempt.
            kept: Nothing of the blob was given away yet.

        Returns:
            Whether it begins again with the first byte, so that what came so far is void.
        """
        attempt = self._attempt
        if attempt is None or attempt.final or isinstance(failure, LimitExceededError):
            raise failure
        self._note_service()
        if isinstance(failure, DigestMismatchError):
            await self._judge(attempt, failure, kept=kept)
        elif await self._resume(attempt, failure):
            return False
        else:
            self._check_can_go_on(attempt, failure)
            broke_off = self._progress if self._has_served(attempt.candidate) else None
            self._candidates.blame(attempt.candidate, failure, broke_off=broke_off)
            await self._drop_attempt(failure)
            if not self._alone:
                await self._ask_next()
                return False
        self._begin_again()
        await self._ask_next()
        return True

    def _check_can_go_on(self, attempt: Attempt, failure: SupplementedError) -> None:
        # What was not hashed cannot be hashed any more.
        if self.is_whole and attempt.proven and self.position > self._start:
            raise failure

    async def _judge(self, attempt: Attempt, failure: DigestMismatchError, *, kept: bool) -> None:
        """The content is wrong: say who is to blame, if that is clear."""
        mixed = len(self._suppliers) > 1
        if not mixed:
            self._candidates.blame(attempt.candidate, failure)
        if not kept:
            raise failure
        await self._drop_attempt(failure)
        if mixed:
            self._candidates.put_first(self._suppliers)
            self._alone = True

    async def _resume(self, attempt: Attempt, failure: SupplementedError) -> bool:
        """Ask the same source for the rest (rules RES-01 to RES-06); False if that is no use."""
        candidate, now = attempt.candidate, self._clock.now()
        if not attempt.resumable or not isinstance(failure, _BREAKS):
            return False
        record = self._resumption_of(candidate)
        stalled = isinstance(failure, SourceTimeoutError)
        if not record.allows(self.position, now, stalled=stalled):
            return False
        etag = attempt.etag
        pause = record.begin(self.position, now, self._clock.random())
        self._candidates.blame(candidate, failure)
        await self._drop_attempt(failure)
        await self._clock.sleep(pause)
        if self._closed:
            raise self._closed_error()
        again = await self._candidates.ask(
            candidate,
            size=self.size,
            start=self.position,
            end=self._wanted_end,
            etag=etag,
            broke_off=self._progress,
        )
        if again is not None and etag is not None and again.etag not in {None, etag}:
            await self._refuse(again)
            again = None
        await (self._ask_next() if again is None else self._use(again))
        return True

    def _resumption_of(self, candidate: BlobCandidate) -> Resumption:
        for known, record in self._resumptions:
            if known is candidate:
                return record
        record = Resumption(ResumptionPolicy())
        self._resumptions.append((candidate, record))
        return record

    async def _refuse(self, again: Attempt) -> None:
        message = "the source has another content under this digest than before"
        failure = SourceError(message)
        failure.locate(
            reference=again.candidate.reference, digest=self._digest, member=again.candidate.member
        )
        self._candidates.blame(again.candidate, failure)
        self._attempt = again
        await self._drop_attempt(failure)

    def _begin_again(self) -> None:
        if self._running is not None:
            self._running.discard()
            self._running = None
        self.served.clear()
        self._suppliers.clear()
        self._resumptions.clear()
        self._proven = True
        self.position = self._start
        self.size = self._descriptor.size

    def list_served(self) -> list[Served]:
        """Who has served what, up to now."""
        attempt = self._attempt
        if attempt is not None and attempt.served is not None:
            return list(attempt.served)
        parts = list(self.served)
        if attempt is not None and self.position > self._began:
            reference, member = attempt.candidate.reference, attempt.candidate.member
            _extend(parts, Served(reference, member, self._began, self.position))
        return parts

    def _note_service(self) -> None:
        """Write down what the attempt has served, once."""
        attempt = self._attempt
        if attempt is None or self.position <= self._began:
            return
        if attempt.served is not None:
            self.served = list(attempt.served)
            return
        candidate, start = attempt.candidate, self._began
        self._began = self.position
        part = Served(candidate.reference, candidate.member, start, self.position)
        _extend(self.served, part)
        if not self._has_served(candidate):
            self._suppliers.append(candidate)
        if self._context.observed:
            event = BlobServed(
                candidate.reference, self._digest, start, self.position, candidate.member
            )
            self._context.emit(event)

    def _has_served(self, candidate: BlobCandidate) -> bool:
        return any(known is candidate for known in self._suppliers)

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
        self._note_service()
        self._candidate = self.candidate
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            self._candidates.forget()
            return
        if self.right is None:
            self._candidates.leave(attempt.candidate)
        self._candidates.forget()
        await close_all((attempt,), f"blob {self._digest}")


def _extend(parts: list[Served], part: Served) -> None:
    """Add a part; what the same one goes on with is one part with what it served before."""
    last = parts[-1] if parts else None
    if last is not None and last[:2] == part[:2] and last.end == part.start:
        parts[-1] = part._replace(start=last.start)
    else:
        parts.append(part)

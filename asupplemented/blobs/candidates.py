"""Candidates of a blob: asked one at a time, in order, for as long as somebody may serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.files import map_os_error
from asupplemented.blobs.attempts import FileAttempt, Haste, WireAttempt
from asupplemented.blobs.health import health_of
from asupplemented.errors import (
    BlobNotFoundError,
    FailoverError,
    NetworkError,
    NotFoundError,
    RangeError,
    ServerError,
    SizeMismatchError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    TruncatedError,
    UsageError,
)
from asupplemented.events import AttemptFailed
from asupplemented.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.blobs.attempts import Attempt
    from asupplemented.model.digest import Digest

__all__ = ("MAX_DISCARD", "Candidates", "is_transient", "located", "open_attempt")

MAX_DISCARD: Final = 64 * MIB
"""Bytes to skip where a source cannot start in the middle (rule RES-06)."""

ROUND: Final = MIB
"""Bytes that a blob has to come on before those who broke off are asked once more."""

MAX_TOLD: Final = 64
"""Failures that are kept: the first ones and the last ones."""

_TRANSIENT: Final = (
    NetworkError,
    ServerError,
    SourceTimeoutError,
    TooManyRequestsError,
    TruncatedError,
)


def is_transient(failure: SupplementedError) -> bool:
    """Whether the same source may do better next time."""
    return isinstance(failure, _TRANSIENT)


class Candidates:
    """Those who may be asked for a blob, and what became of the others.

    Who is unfit (`asupplemented.blobs.health`) is asked last. As long as others that are fit
    wait, nobody tries for long what fails. Who failed in a way that may pass is asked again when
    nobody else is left: with all patience if it was in a hurry, or if others have brought the blob
    on meanwhile.

    Args:
        candidates: Whom to ask, best first.
        context: The session.
        digest: Name of the blob.
        promised: Whether the descriptor says what size the blob has. Where nobody does but those
            who serve it, none of them is condemned for saying something else.
    """

    __slots__ = (
        "_calm",
        "_context",
        "_digest",
        "_failures",
        "_health",
        "_hurried",
        "_known",
        "_promised",
        "_tired",
        "_untold",
        "_waiting",
    )

    def __init__(
        self,
        candidates: Iterable[BlobCandidate],
        context: Context,
        digest: Digest,
        *,
        promised: bool = True,
    ) -> None:
        self._waiting = list(candidates)
        self._known = len(self._waiting)
        self._context = context
        self._digest = digest
        self._promised = promised
        self._health = health_of(context)
        self._failures: list[SupplementedError] = []
        self._untold = 0
        """Failures that were dropped, because there were so many."""
        self._hurried: list[BlobCandidate] = []
        """Who failed, and might not have if it had been patient."""
        self._calm = False
        """Everybody had a chance, so that there is no reason to hurry any more."""
        self._tired: list[tuple[BlobCandidate, int]] = []
        """Who failed and may do better, and how many bytes of the blob had come then."""

    @property
    def failures(self) -> int:
        """Attempts that failed."""
        return len(self._failures) + self._untold

    async def open_next(
        self, *, size: int | None, start: int, end: int | None, progress: int = 0
    ) -> Attempt:
        """The next attempt that succeeds; for the arguments see `open_attempt`.

        Args:
            size: Bytes of the whole blob, None if unknown.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.
            progress: Bytes that were read so far.

        Raises:
            UsageError: A candidate cannot be asked, because it is closed.
            SupplementedError: Nobody is left; see `verdict`.
        """
        while self._waiting or self._wake(progress):
            candidate = self._waiting.pop(self._health.choose(self._waiting))
            attempt = await self.ask(candidate, size=size, start=start, end=end, progress=progress)
            if attempt is not None:
                return attempt
        raise self.verdict(progress)

    async def ask(
        self,
        candidate: BlobCandidate,
        *,
        size: int | None,
        start: int,
        end: int | None,
        progress: int | None = None,
        after: Attempt | None = None,
    ) -> Attempt | None:
        """Ask one candidate; None if it fails, which is noted.

        For the arguments see `open_attempt` and `blame`.

        Raises:
            UsageError: It cannot be asked, because it is closed.
        """
        haste = Haste(wanted=not self._calm and self._health.has_usable(self._waiting))
        try:
            return await open_attempt(
                candidate,
                self._context,
                self._digest,
                size=size,
                start=start,
                end=end,
                after=after,
                haste=haste,
            )
        except UsageError:
            self._health.release(candidate.reference)
            raise
        except SupplementedError as error:
            early = haste.heeded and is_transient(error)
            self.blame(candidate, error, progress=None if early else progress)
            if early:
                self._hurried.append(candidate)
            return None
        except BaseException:
            self._health.release(candidate.reference)
            raise

    def blame(
        self,
        candidate: BlobCandidate,
        failure: SupplementedError,
        *,
        progress: int | None = None,
        alone: bool = True,
    ) -> None:
        """Take note of why a candidate did not serve the blob, or not to its end.

        Args:
            candidate: Whose failure it is.
            failure: What happened.
            progress: Bytes of the blob that had come by then, so that it may be asked again when
                there are more; None if it is not to be.
            alone: Whether it is the fault of nobody else, for sure.
        """
        self._note(failure)
        if alone and (self._promised or not isinstance(failure, SizeMismatchError)):
            self._health.record_failure(candidate.reference, failure)
        else:
            self._health.release(candidate.reference)
        if self._context.observed:
            name, text = type(failure).__name__, failure.message
            event = AttemptFailed(candidate.reference, self._digest, candidate.member, name, text)
            self._context.emit(event)
        if progress is not None and is_transient(failure):
            self._tired.append((candidate, progress))

    def praise(self, candidate: BlobCandidate) -> None:
        """Take note that a candidate served what it was asked for."""
        self._health.record_success(candidate.reference)

    def leave(self, candidate: BlobCandidate) -> None:
        """Take note that a candidate was left before anything can be said of it."""
        self._health.release(candidate.reference)

    def put_first(self, candidates: Iterable[BlobCandidate]) -> None:
        """Have some asked before all others, be they asked again."""
        self._waiting = [*candidates, *self._waiting]

    def forget(self) -> None:
        """Drop everything: nobody will be asked any more."""
        self._waiting.clear()
        self._hurried.clear()
        self._tired.clear()
        self._failures.clear()

    def _note(self, failure: SupplementedError) -> None:
        # Its frames hold chunks, and a blob that breaks off often is long.
        self._failures.append(failure.with_traceback(None))
        if len(self._failures) > MAX_TOLD:
            del self._failures[MAX_TOLD // 2]
            self._untold += 1

    def _wake(self, progress: int) -> bool:
        """Have those asked again who failed in haste, or before the blob came on."""
        self._waiting, self._hurried = self._hurried, []
        self._calm = self._calm or bool(self._waiting)
        ready = [each for each, before in self._tired if progress - before >= ROUND]
        self._tired = [each for each in self._tired if progress - each[1] < ROUND]
        self._waiting += ready
        return bool(self._waiting)

    def verdict(self, progress: int = 0) -> SupplementedError:
        """The one error for all that happened.

        If all attempts but one were misses, it is that one: an authentication failure, say. If
        all were, nobody has the blob. If all say that the range lies outside of the blob, it does.
        Otherwise it is a `FailoverError` that has them all.
        """
        failures = self._failures
        if not failures:
            message = f"nobody is known to have blob {self._digest}"
            return BlobNotFoundError(message, digest=self._digest)
        hard = [error for error in failures if not isinstance(error, NotFoundError)]
        ranges = all(isinstance(error, RangeError) for error in hard)
        if len(hard) > 1 and self._known > 1 and not ranges:
            return self._join(hard[0], progress)
        chosen = (hard or failures)[0]
        for error in failures:
            if error is not chosen:
                chosen.add_note(f"another attempt failed as well: {error}")
        if isinstance(chosen, NotFoundError) and not isinstance(chosen, BlobNotFoundError):
            missing = BlobNotFoundError(f"nobody has blob {self._digest}", digest=self._digest)
            missing.__cause__ = chosen
            return missing
        return chosen

    def _join(self, cause: SupplementedError, progress: int) -> FailoverError:
        told = "; ".join(f"{error.reference}: {error.message}" for error in self._failures)
        if self._untold:
            told += f"; and {self._untold} more"
        message = f"nobody serves blob {self._digest}: {told}"
        joined = FailoverError(
            message, attempts=self._failures, digest=self._digest, received=progress or None
        )
        joined.__cause__ = cause
        return joined


async def open_attempt(
    candidate: BlobCandidate,
    context: Context,
    digest: Digest,
    *,
    size: int | None,
    start: int = 0,
    end: int | None = None,
    after: Attempt | None = None,
    haste: Haste | None = None,
) -> Attempt:
    """Ask a candidate for ``[start, end)`` of a blob.

    Args:
        candidate: Whom to ask.
        context: The session.
        digest: Name of the blob.
        size: Bytes of the whole blob, None if unknown.
        start: Offset of the first byte.
        end: Offset behind the last byte, None for the end of the blob.
        after: The attempt that this one goes on with, if it is the same candidate's.
        haste: Whether to be patient; None is patient.

    Raises:
        SizeMismatchError: The candidate claims another size.
        RangeError: It claims that `start` is behind the end.
        SourceError: It has something else by now than what it began with (rule RES-06).
        SupplementedError: What the candidate raised. Nothing stays open then.
    """
    with located(candidate, digest):
        file = await candidate.open_file()
        if file is None:
            attempt: Attempt = await WireAttempt.open(
                candidate, context, start, end, after, haste or Haste()
            )
        else:
            attempt = FileAttempt(candidate, context, digest, file, start)
        async with closing_on_error(lambda: (attempt,), "what was opened"):
            _check_claims(attempt, size, start)
            _check_same(attempt, after)
            await attempt.look()
        return attempt


def _check_claims(attempt: Attempt, size: int | None, start: int) -> None:
    claimed = attempt.size
    if size is not None and claimed is not None and claimed != size:
        message = f"the source announces {claimed} bytes where {size} were promised"
        raise SizeMismatchError(message, expected=size, actual=claimed)
    if claimed is not None and start > claimed:
        message = f"the range starts at {start}, and the blob has {claimed} bytes"
        raise RangeError(message)
    if not 0 <= start - attempt.start <= MAX_DISCARD:
        message = f"the source starts at byte {attempt.start} where {start} was asked for"
        raise SourceError(message)


def _check_same(attempt: Attempt, after: Attempt | None) -> None:
    before = None if after is None else after.etag
    if before is not None and attempt.etag not in {None, before}:
        message = "the source has another content under this digest than before"
        raise SourceError(message)


class located:  # noqa: N801 - it is used as a function
    """Say where an error happened, and turn strays of the standard library into ours.

    Every chunk of a blob passes through it, so it is no generator.
    """

    __slots__ = ("_candidate", "_digest")

    def __init__(self, candidate: BlobCandidate, digest: Digest) -> None:
        self._candidate = candidate
        self._digest = digest

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, SupplementedError):
            self._locate(error)
        elif isinstance(error, (OSError, EOFError)):
            raise self._locate(map_os_error(error, f"blob {self._digest}")) from error

    def _locate(self, error: SupplementedError) -> SupplementedError:
        candidate = self._candidate
        return error.locate(
            reference=candidate.reference, digest=self._digest, member=candidate.member
        )

"""Candidates of a blob: asked one at a time, in order, until one serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.abc import Hasty, SelfTimed
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.files import map_os_error
from asupplemented.blobs.attempts import FileAttempt, WireAttempt
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
    VerificationError,
)
from asupplemented.events import AttemptFailed
from asupplemented.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import BlobCandidate, Context, RawBlob
    from asupplemented.blobs.attempts import Attempt
    from asupplemented.model.digest import Digest

__all__ = ("MAX_DISCARD", "Candidates", "is_transient", "locate_failure")

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
        "_corrupt",
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
        self._corrupt: list[VerificationError] = []
        self._untold = 0
        """Failures that were dropped, because there were so many."""
        self._hurried: list[BlobCandidate] = []
        """Who failed, and might not have if it had been patient."""
        self._calm = False
        """Every candidate was asked, so there is no reason to hurry any more."""
        self._tired: list[tuple[BlobCandidate, int]] = []
        """Who failed and may do better, and how many bytes of the blob had come then."""

    @property
    def failures(self) -> int:
        """Attempts that failed."""
        return len(self._failures) + self._untold

    @property
    def corrupt(self) -> Sequence[VerificationError]:
        """Errors of the candidates that had other content under the digest."""
        return self._corrupt

    async def open_next(
        self, *, size: int | None, start: int, end: int | None, progress: int = 0
    ) -> Attempt:
        """The next attempt that succeeds.

        Args:
            size: Bytes of the whole blob, None if unknown.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.
            progress: Bytes that were read so far.

        Raises:
            UsageError: A candidate cannot be asked, because it is closed.
            SupplementedError: No candidate is left; see `verdict`.
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
        """Ask one candidate for ``[start, end)``.

        It fails too if it claims another size, if it claims that `start` is behind the end, or if
        it has something else by now than what it began with (rule RES-06).

        Args:
            candidate: The candidate.
            size: Bytes of the whole blob, None if unknown.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.
            progress: See `blame`.
            after: The attempt of the same candidate that this one resumes.

        Returns:
            None if it fails, which is recorded; nothing stays open then.

        Raises:
            UsageError: It cannot be asked, because it is closed.
        """
        hurried = False
        try:
            file = await candidate.open_file()
            if file is None:
                raw = candidate.open(start, end, None if after is None else after.etag)
                hurried = self._hurry(raw)
                if isinstance(raw, SelfTimed):
                    raw.leave_timing()
                await raw.__aenter__()
                attempt: Attempt = WireAttempt(candidate, self._context, raw, start, after)
            else:
                attempt = FileAttempt(candidate, self._context, self._digest, file, start)
            async with closing_on_error(lambda: (attempt,), "what was opened"):
                _check_claims(attempt, size, start)
                _check_same(attempt, after)
                await attempt.look()
        except (SupplementedError, OSError, EOFError) as error:
            failure = locate_failure(error, candidate, self._digest)
            if isinstance(failure, UsageError):
                self._health.release(candidate.reference)
                raise
            early = hurried and is_transient(failure)
            self.blame(candidate, failure, progress=None if early else progress)
            if early:
                self._hurried.append(candidate)
            return None
        except BaseException:
            self._health.release(candidate.reference)
            raise
        return attempt

    def _hurry(self, raw: RawBlob) -> bool:
        """Tell a body to fail soon if other candidates are fit; whether it was told."""
        if self._calm or not isinstance(raw, Hasty):
            return False
        if not self._health.has_usable(self._waiting):
            return False
        raw.hurry()
        return True

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
            alone: Whether no other source can have caused it.
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
        """Drop everything: no candidate will be asked any more."""
        self._waiting.clear()
        self._hurried.clear()
        self._tired.clear()
        self._failures.clear()

    def _note(self, failure: SupplementedError) -> None:
        # Its frames hold chunks, and a blob that breaks off often is long.
        self._failures.append(failure.with_traceback(None))
        if isinstance(failure, VerificationError) and len(self._corrupt) < MAX_TOLD:
            self._corrupt.append(failure)
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
        all were, no source has the blob. If all say that the range lies outside, it does.
        Otherwise it is a `FailoverError` that has them all.
        """
        failures = self._failures
        if not failures:
            message = f"no source is known to have blob {self._digest}"
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
            missing = BlobNotFoundError(f"no source has blob {self._digest}", digest=self._digest)
            missing.__cause__ = chosen
            return missing
        return chosen

    def _join(self, cause: SupplementedError, progress: int) -> FailoverError:
        told = "; ".join(f"{error.reference}: {error.message}" for error in self._failures)
        if self._untold:
            told += f"; and {self._untold} more"
        message = f"no source serves blob {self._digest}: {told}"
        joined = FailoverError(
            message, attempts=self._failures, digest=self._digest, received=progress or None
        )
        joined.__cause__ = cause
        return joined


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


def locate_failure(
    error: SupplementedError | OSError | EOFError, candidate: BlobCandidate, digest: Digest
) -> SupplementedError:
    """Say where an error happened, and turn errors of the standard library into ours."""
    if isinstance(error, SupplementedError):
        failure = error
    else:
        failure = map_os_error(error, f"blob {digest}")
        failure.__cause__ = error
    return failure.locate(reference=candidate.reference, digest=digest, member=candidate.member)

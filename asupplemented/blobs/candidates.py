"""Candidates of a blob: asked one at a time, in order, until one serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.abc import Hasty
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.files import map_os_error
from asupplemented.blobs.attempts import FileAttempt, WireAttempt
from asupplemented.blobs.health import health_of
from asupplemented.errors import (
    BlobNotFoundError,
    FailoverError,
    LimitExceededError,
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
    excerpt,
)
from asupplemented.events import AttemptFailed
from asupplemented.limits import MAX_BLOB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asupplemented.abc import BlobCandidate, Context, RawBlob
    from asupplemented.blobs.attempts import Attempt
    from asupplemented.model.digest import Digest

__all__ = (
    "MAX_DISCARD",
    "Candidates",
    "check_announced",
    "is_transient",
    "locate_failure",
    "naming_encoding",
)

MAX_DISCARD: Final = 64 * MIB
"""Bytes to skip where a source cannot start in the middle (rule RES-06)."""

ROUND: Final = MIB
"""Bytes of progress after which a candidate that broke off may be asked once more."""

MAX_FAILURES: Final = 64
"""Failures that are kept: half of them the first ones, half the last ones."""

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
    """The candidates of one blob: which is asked next, and how each attempt ended.

    A candidate whose breaker is open (`asupplemented.blobs.health`) is asked last. While other
    usable candidates wait, a body is told to fail soon. When no candidate is left, those that
    failed in a transient way are asked again: once without hurry if they were hurried, and
    whenever other candidates have brought the blob on by `ROUND` bytes since they failed.

    Args:
        candidates: The candidates, best first.
        context: The session.
        digest: Name of the blob.
        promised: Whether the descriptor gives the size of the blob. If only the candidates give
            it, a candidate that gives another size is not taken to be at fault.
    """

    __slots__ = (
        "_calm",
        "_context",
        "_corrupt",
        "_digest",
        "_dropped",
        "_failures",
        "_health",
        "_hurried",
        "_known",
        "_promised",
        "_retryable",
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
        self._dropped = 0
        """Number of failures beyond `MAX_FAILURES`, which are not kept."""
        self._hurried: list[BlobCandidate] = []
        """Candidates that failed after being hurried."""
        self._calm = False
        """Every candidate was asked once, so no body is hurried any more."""
        self._retryable: list[tuple[BlobCandidate, int]] = []
        """Candidates that failed in a transient way, each with the progress at that time."""

    @property
    def failures(self) -> int:
        """Attempts that failed."""
        return len(self._failures) + self._dropped

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

    async def open_local(self, *, size: int | None, start: int, end: int | None) -> Attempt | None:
        """The next attempt that succeeds, as long as it is the turn of files of this machine.

        Args:
            size: Bytes of the whole blob, None if unknown.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.

        Returns:
            None if another candidate is to be asked next, or none is left.

        Raises:
            UsageError: A candidate cannot be asked, because it is closed.
        """
        while self._waiting:
            position = self._health.choose(self._waiting)
            candidate = self._waiting[position]
            if not candidate.local:
                self._health.release(candidate.reference)
                return None
            del self._waiting[position]
            attempt = await self.ask(candidate, size=size, start=start, end=end)
            if attempt is not None:
                return attempt
        return None

    @property
    def waiting(self) -> tuple[BlobCandidate, ...]:
        """The candidates that were not asked yet, or may be asked again, best first."""
        return tuple(self._waiting)

    def join(self, failure: SupplementedError) -> SupplementedError:
        """The one error for what a shared fetch of the other candidates ended with."""
        if not self._failures:
            return failure
        self._note(failure)
        return self.verdict()

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
            progress: See `record_failure`.
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
                leave_timing: Callable[[], None] | None = getattr(raw, "leave_timing", None)
                if leave_timing is not None:  # `isinstance` of a protocol takes 10 us
                    leave_timing()
                await raw.__aenter__()
                attempt: Attempt = WireAttempt(candidate, self._context, raw, start, after)
            else:
                attempt = FileAttempt(candidate, self._context, self._digest, file, start)
            async with closing_on_error(lambda: (attempt,), "what was opened"):
                with naming_encoding(attempt):
                    _check_claims(attempt, size, start)
                _check_same(attempt, after)
                await attempt.look()
        except (SupplementedError, OSError, EOFError) as error:
            failure = locate_failure(error, candidate, self._digest)
            if isinstance(failure, UsageError):
                self._health.release(candidate.reference)
                raise
            early = hurried and is_transient(failure)
            self.record_failure(candidate, failure, progress=None if early else progress)
            if early:
                self._hurried.append(candidate)
            return None
        except BaseException:  # a cancellation, too, ends the trial of a source that was half-open
            self._health.release(candidate.reference)
            raise
        return attempt

    def _hurry(self, raw: RawBlob) -> bool:
        """Tell a body to fail soon if other candidates are fit; whether it was told."""
        if self._calm or not self._waiting or not isinstance(raw, Hasty):
            return False
        if not self._health.has_usable(self._waiting):
            return False
        raw.hurry()
        return True

    def record_failure(
        self,
        candidate: BlobCandidate,
        failure: SupplementedError,
        *,
        progress: int | None = None,
        alone: bool = True,
    ) -> None:
        """Record why a candidate did not serve the blob, or not to its end.

        Args:
            candidate: The candidate that failed.
            failure: Its error.
            progress: Bytes of the blob received so far; the candidate may be asked again after
                further progress. None: it is not asked again.
            alone: Whether no other source can have caused the failure.
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
            self._retryable.append((candidate, progress))

    def record_success(self, candidate: BlobCandidate) -> None:
        """Record that a candidate served what it was asked for."""
        self._health.record_success(candidate.reference)

    def release(self, candidate: BlobCandidate) -> None:
        """Record that an attempt ended with no verdict about its candidate."""
        self._health.release(candidate.reference)

    def put_first(self, candidates: Iterable[BlobCandidate]) -> None:
        """Ask these candidates before all others, even if they were asked before."""
        self._waiting = [*candidates, *self._waiting]

    def forget(self) -> None:
        """Drop everything: no candidate will be asked any more."""
        self._waiting.clear()
        self._hurried.clear()
        self._retryable.clear()
        self._failures.clear()

    def _note(self, failure: SupplementedError) -> None:
        # Its frames hold chunks, and a blob that breaks off often is long.
        self._failures.append(failure.with_traceback(None))
        if isinstance(failure, VerificationError) and len(self._corrupt) < MAX_FAILURES:
            self._corrupt.append(failure)
        if len(self._failures) > MAX_FAILURES:
            del self._failures[MAX_FAILURES // 2]
            self._dropped += 1

    def _wake(self, progress: int) -> bool:
        """Queue candidates that may be asked again; whether there are any."""
        self._waiting, self._hurried = self._hurried, []
        self._calm = self._calm or bool(self._waiting)
        ready = [each for each, before in self._retryable if progress - before >= ROUND]
        self._retryable = [each for each in self._retryable if progress - each[1] < ROUND]
        self._waiting += ready
        return bool(self._waiting)

    def verdict(self, progress: int = 0) -> SupplementedError:
        """The one error that stands for all failures.

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
        if self._dropped:
            told += f"; and {self._dropped} more"
        message = f"no source serves blob {self._digest}: {told}"
        joined = FailoverError(
            message, attempts=self._failures, digest=self._digest, received=progress or None
        )
        joined.__cause__ = cause
        return joined


def check_announced(size: int | None) -> None:
    """Check a size that is announced, before the first byte is read.

    Raises:
        LimitExceededError: It is larger than ``MAX_BLOB``.
    """
    if size is not None and size > MAX_BLOB:
        message = f"a blob of {size} bytes is announced, and {MAX_BLOB} are allowed"
        raise LimitExceededError(message, limit=MAX_BLOB)


def _check_claims(attempt: Attempt, size: int | None, start: int) -> None:
    claimed = attempt.size
    check_announced(claimed)
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


class naming_encoding:  # noqa: N801 - it is used as a function
    """Name the encoding of a body in what is wrong with its content (rule BLOB-07)."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        """There is nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if not isinstance(error, VerificationError) or self._attempt.encoding is None:
            return
        named = excerpt(self._attempt.encoding)
        error.message += f"; it came with the Content-Encoding {named}, which was not asked for"
        error.args = (error.message, *error.args[1:])


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

"""Candidates of a blob: asked in order, one at a time, until one answers."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asupplemented.attempts import FileAttempt, WireAttempt
from asupplemented.closing import closing_on_error
from asupplemented.errors import (
    BlobNotFoundError,
    NotFoundError,
    RangeError,
    SizeMismatchError,
    SourceError,
    SupplementedError,
    UsageError,
)
from asupplemented.files import map_os_error

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.attempts import Attempt
    from asupplemented.model.digest import Digest

__all__ = ("Candidates", "located", "open_attempt")

MAX_DISCARD: Final = 64 * 1024 * 1024
"""Bytes to skip where a source cannot start in the middle (rule RES-06)."""


class Candidates:
    """Those who have not been asked for a blob yet, and what the others said.

    Args:
        candidates: Whom to ask, best first.
        context: The session.
        digest: Name of the blob.
    """

    __slots__ = ("_context", "_digest", "_failures", "_waiting")

    def __init__(
        self, candidates: Iterable[BlobCandidate], context: Context, digest: Digest
    ) -> None:
        self._waiting = deque(candidates)
        self._context = context
        self._digest = digest
        self._failures: list[SupplementedError] = []

    async def open_next(self, *, size: int | None, start: int, end: int | None) -> Attempt:
        """The next attempt that succeeds; for the arguments see `open_attempt`.

        Raises:
            UsageError: A candidate cannot be asked, because it is closed.
            SupplementedError: Nobody is left: the first failure that is more than a miss, with
                the others in its notes.
            BlobNotFoundError: Nobody is left, and nobody had it.
        """
        while self._waiting:
            candidate = self._waiting.popleft()
            try:
                return await open_attempt(
                    candidate, self._context, self._digest, size=size, start=start, end=end
                )
            except UsageError:
                raise
            except SupplementedError as error:
                self.blame(error)
        raise self._verdict()

    def blame(self, failure: SupplementedError) -> None:
        """Take note of why a candidate did not serve the blob."""
        self._failures.append(failure)

    def forget(self) -> None:
        """Drop everything: nobody will be asked any more."""
        self._waiting.clear()
        self._failures.clear()

    def _verdict(self) -> SupplementedError:
        if not self._failures:
            message = f"nobody is known to have blob {self._digest}"
            return BlobNotFoundError(message, digest=self._digest)
        hard = [error for error in self._failures if not isinstance(error, NotFoundError)]
        chosen = (hard or self._failures)[0]
        for error in self._failures:
            if error is not chosen:
                chosen.add_note(f"another source failed as well: {error}")
        if isinstance(chosen, NotFoundError) and not isinstance(chosen, BlobNotFoundError):
            missing = BlobNotFoundError(f"nobody has blob {self._digest}", digest=self._digest)
            missing.__cause__ = chosen
            return missing
        return chosen


async def open_attempt(
    candidate: BlobCandidate,
    context: Context,
    digest: Digest,
    *,
    size: int | None,
    start: int = 0,
    end: int | None = None,
) -> Attempt:
    """Ask a candidate for ``[start, end)`` of a blob.

    Args:
        candidate: Whom to ask.
        context: The session.
        digest: Name of the blob.
        size: Bytes of the whole blob, None if unknown.
        start: Offset of the first byte.
        end: Offset behind the last byte, None for the end of the blob.

    Raises:
        SizeMismatchError: The candidate claims another size.
        RangeError: It claims that `start` is behind the end.
        SupplementedError: What the candidate raised. Nothing stays open then.
    """
    with located(candidate, digest):
        file = await candidate.open_file()
        if file is None:
            attempt: Attempt = await WireAttempt.open(candidate, context, start, end)
        else:
            attempt = FileAttempt(candidate, context, digest, file, start)
        async with closing_on_error(lambda: (attempt,), "what was opened"):
            _check_claims(attempt, size, start)
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


@contextmanager
def located(candidate: BlobCandidate, digest: Digest) -> Generator[None]:
    """Say where an error happened, and turn strays of the standard library into ours."""
    try:
        yield
    except SupplementedError as error:
        error.locate(reference=candidate.reference, digest=digest, member=candidate.member)
        raise
    except (OSError, EOFError) as error:
        mapped = map_os_error(error, f"blob {digest}")
        mapped.locate(reference=candidate.reference, digest=digest, member=candidate.member)
        raise mapped from error

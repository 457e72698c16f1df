"""Messages on stderr: events, warnings, errors, and the progress of a copy."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Final, assert_never, cast

from asupplemented.cli.output import printable, short
from asupplemented.errors import PlatformNotFoundError
from asupplemented.events import (
    AttemptFailed,
    BlobEvicted,
    BlobFinished,
    BlobJoined,
    BlobServed,
    BlobStarted,
    ManifestFetched,
    RateLimitTold,
    RequestRetried,
    RequestServed,
    ResolutionFinished,
    UpstreamResponded,
    Warned,
)
from asupplemented.model.sizes import show_size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from rich.console import Console

    from asupplemented.events import CopyProgress, Event

__all__ = ("ConsoleReporter", "flatten_errors")

_PLATFORMS_SHOWN: Final = 20
"""Platforms that a remedy lists."""


def flatten_errors(error: BaseException) -> list[BaseException]:
    """The errors of an exception group and of the groups in it; else the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for each in group.exceptions for leaf in flatten_errors(each)]


class ConsoleReporter:
    """Writes messages to stderr. It is also a hook of the session.

    Args:
        verbose: Report every event, not warnings only.
        quiet: Report errors only.
        console: Where to write, instead of stderr.
    """

    def __init__(
        self, *, verbose: bool = False, quiet: bool = False, console: Console | None = None
    ) -> None:
        self._verbose = verbose and not quiet
        self._quiet = quiet
        self._given = console

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.warning(event.message)
        elif self._verbose:
            self._print("", "dim", _describe(event))

    def warning(self, message: str) -> None:
        """Write a warning."""
        if not self._quiet:
            self._print("warning: ", "yellow", message)

    def info(self, message: str) -> None:
        """Write a message without a label."""
        if not self._quiet:
            self._print("", "", message)

    def error(self, message: str) -> None:
        """Write why the command failed."""
        self._print("error: ", "bold red", message)

    def exception(self, error: BaseException) -> None:
        """Write each error of a group, or the one error, with a line for each note."""
        for each in flatten_errors(error):
            self.error(str(each) or type(each).__name__)
            for note in (*_remedies(each), *getattr(each, "__notes__", ())):
                self._print("  ", "", note)

    @cached_property
    def _console(self) -> Console:
        """Made for the first message, as most commands have none and rich takes long to import."""
        from rich.console import Console

        return self._given or Console(stderr=True, highlight=False)

    def _print(self, label: str, style: str, message: str) -> None:
        from rich.text import Text

        line = Text.assemble((label, style), printable(message.replace("\n", "; ")))
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def copy_progress(self) -> Generator[Callable[[CopyProgress], None]]:
        """A progress callback that draws bars on a terminal, and nothing elsewhere."""
        if self._quiet or not self._console.is_terminal:
            yield lambda _event: None
            return
        from asupplemented.cli.progress import ProgressBars, make_progress

        with make_progress(self._console) as progress:
            yield ProgressBars(progress).update


def _remedies(error: BaseException) -> Iterator[str]:
    """What the user can do about an error."""
    if isinstance(error, PlatformNotFoundError) and error.available:
        more = len(error.available) - _PLATFORMS_SHOWN
        names = ", ".join(error.available[:_PLATFORMS_SHOWN]) + (
            f" and {more} more" if more > 0 else ""
        )
        yield f"choose another platform with --platform; there is {names}"


def _describe(event: Event) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each event
    match event:
        case ManifestFetched(reference, digest, size, seconds):
            took = f"{seconds * 1000:.0f} ms"
            return f"manifest {short(digest)}, {show_size(size)} in {took}, from {reference}"
        case BlobStarted(reference, digest, start, member):
            offset = f" from byte {start}" if start else ""
            return f"blob {short(digest)}{offset}{_by(member)}: reading {reference}"
        case BlobJoined(reference, digest, fetched):
            return f"blob {short(digest)}: joined at {show_size(fetched)}, read from {reference}"
        case BlobServed(reference, digest, start, end, member):
            return f"blob {short(digest)}{_by(member)}: bytes {start} to {end} from {reference}"
        case AttemptFailed(reference, digest, member, error, message):
            return f"blob {short(digest)}{_by(member)}: {error} from {reference}: {message}"
        case BlobFinished(reference, digest, _, received, member, verified, error):
            how = "verified" if verified else error or "not verified"
            return f"blob {short(digest)}{_by(member)}: {how}, {show_size(received)} of {reference}"
        case RateLimitTold(_, registry, limit, remaining, window):
            per = "" if window is None else f" in {window} s"
            return f"{registry} allows {_known(remaining)} of {_known(limit)} requests{per}"
        case RequestRetried(reference, reason, attempt, delay):
            return f"{reference}: {reason}, attempt {attempt + 1} in {delay:.1f} s"
        case UpstreamResponded(registry, method, status, seconds, error):
            told = error or status or "given up"
            return f"{registry}: {method} {told} after {seconds * 1000:.0f} ms"
        case BlobEvicted(digest, size):
            return f"blob {short(digest)}: evicted, {show_size(size)}"
        case RequestServed(method, route, name=name, reference=which, status=status, sent=sent):
            what = " ".join(filter(None, (route, name, which)))
            return f"{method} {what}: {status}, {show_size(sent)}"
        case ResolutionFinished(reference, manifests, fetches, seconds, error):
            how = f"failed with {error}" if error else f"has {manifests} manifests"
            return f"{reference} {how}, {fetches} fetches in {seconds * 1000:.0f} ms"
        case Warned(reference, message):
            return f"{reference}: {message}"
    assert_never(event)


def _known(count: int | None) -> str:
    return "?" if count is None else str(count)


def _by(member: int | None) -> str:
    return "" if member is None else f" by member {member}"

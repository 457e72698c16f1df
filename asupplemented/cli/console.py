"""What people are told on stderr: events, warnings, errors, and how a copy gets on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, assert_never, cast

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from asupplemented.cli.output import printable, short, show_size
from asupplemented.errors import PlatformNotFoundError
from asupplemented.events import (
    AttemptFailed,
    BlobFinished,
    BlobJoined,
    BlobServed,
    BlobStarted,
    ManifestFetched,
    RateLimitTold,
    RequestRetried,
    ResolutionFinished,
    Warned,
)
from asupplemented.transfer.copy import BlobAdvanced, BlobCopied, BlobReused, CopyPlanned

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from rich.progress import TaskID

    from asupplemented.events import Event
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transfer.copy import CopyProgress

__all__ = ("Narrator", "flatten")

_NAMED: Final = 20
"""Platforms that an advice names."""


def flatten(error: BaseException) -> list[BaseException]:
    """The errors of a group, and of groups in it; an error that is no group, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for each in group.exceptions for leaf in flatten(each)]


class Narrator:
    """Tells people what happens. A hook of the session, too.

    Args:
        verbose: Whether to tell of every event, not of warnings only.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._console = Console(stderr=True, highlight=False)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self._print("warning: ", "yellow", event.message)
        elif self._verbose:
            self._print("", "dim", _describe(event))

    def say(self, message: str) -> None:
        """Tell how it went."""
        self._print("", "", message)

    def complain(self, message: str) -> None:
        """Tell why it ended."""
        self._print("error: ", "bold red", message)

    def tell_error(self, error: BaseException) -> None:
        """Tell of an error in a line, with a line for each note; of a group, of each error."""
        for each in flatten(error):
            self.complain(str(each) or type(each).__name__)
            for note in (*_advise(each), *getattr(each, "__notes__", ())):
                self._print("  ", "", note)

    def _print(self, label: str, style: str, message: str) -> None:
        line = Text.assemble((label, style), printable(message.replace("\n", "; ")))
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def following_copy(self) -> Generator[Callable[[CopyProgress], None]]:
        """Bars on a terminal, and nothing elsewhere."""
        if not self._console.is_terminal:
            yield lambda _event: None
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=self._console,
            transient=True,
        ) as progress:
            yield _Bars(progress).follow


def _advise(error: BaseException) -> Iterator[str]:
    """What the user may do about an error."""
    if isinstance(error, PlatformNotFoundError) and error.available:
        more = len(error.available) - _NAMED
        names = ", ".join(error.available[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        yield f"choose another platform with --platform; there is {names}"


class _Bars:
    """A bar for the whole copy, and one for each blob that is on its way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole = progress.add_task("reading manifests", total=None)
        self._blobs: dict[str, TaskID] = {}

    def follow(self, event: CopyProgress) -> None:
        match event:
            case CopyPlanned(blobs=blobs, bytes=total):
                self._progress.update(self._whole, description=f"{blobs} blobs", total=total)
            case BlobAdvanced(blob, received):
                self._progress.update(self._bar(blob), completed=received)
            case BlobCopied(blob, size):
                self._progress.remove_task(self._bar(blob))
                del self._blobs[blob.digest]
                self._progress.advance(self._whole, size)
            case BlobReused(blob):
                self._progress.advance(self._whole, blob.size or 0)
            case _:
                assert_never(event)

    def _bar(self, blob: Descriptor) -> TaskID:
        bar = self._blobs.get(blob.digest)
        if bar is None:
            bar = self._progress.add_task(f"  {short(blob.digest)}", total=blob.size)
            self._blobs[blob.digest] = bar
        return bar


def _describe(event: Event) -> str:  # noqa: C901, PLR0911 - one line for each event
    match event:
        case ManifestFetched(reference, digest, size, seconds):
            took = f"{seconds * 1000:.0f} ms"
            return f"manifest {short(digest)}, {show_size(size)} in {took}, from {reference}"
        case BlobStarted(reference, digest, start, member):
            behind = f" from byte {start}" if start else ""
            return f"blob {short(digest)}{behind}{_by(member)}: reading {reference}"
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

"""Bars for what is being copied: one for all of it, and one for each blob in flight.

All bars count the bytes that have come. The bar of the whole also counts blobs in flight, so it
moves while the first blob comes; a blob that starts over takes back what it had counted.

The event loop draws the bars, not a thread of rich: that one draws between the moment when rich
looks how many lines to go up for a message, and the moment when it writes the message.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, assert_never

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from asupplemented.cli.output import short
from asupplemented.events import BlobAdvanced, BlobCopied, BlobReused, CopyPlanned
from asupplemented.model.sizes import show_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task, TaskID

    from asupplemented.events import CopyProgress
    from asupplemented.model.descriptor import Descriptor

__all__ = ("ProgressBars", "make_progress")

_PERIOD: Final = 0.1
"""Seconds between two drawings."""
_BAR: Final = 16
"""Columns of a bar, so that a line has fewer than 80."""


class _SizeColumn(ProgressColumn):
    """Bytes so far, and of how many."""

    def render(self, task: Task) -> Text:
        done = show_size(int(task.completed))
        of = "" if task.total is None else f" of {show_size(int(task.total))}"
        return Text(f"{done}{of}", justify="right")


class _RateColumn(ProgressColumn):
    """Bytes per second, in the units of the sizes."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{show_size(int(speed))}/s", justify="right")


def make_progress(console: Console) -> Progress:
    """The display of bars on a terminal. Its lines disappear at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(_BAR),
        _SizeColumn(),
        _RateColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        auto_refresh=False,
        transient=True,
    )


class ProgressBars:
    """Follows a copy.

    Args:
        progress: Draws the bars.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole = progress.add_task("reading manifests", total=None)
        self._done = 0
        """Bytes of blobs that are finished."""
        self._received: dict[str, int] = {}
        """Bytes of blobs in flight."""
        self._bars: dict[str, TaskID] = {}
        self._timer: asyncio.TimerHandle | None = None

    def update(self, event: CopyProgress) -> None:
        """Draw an event, soon. The caller is in the event loop."""
        match event:
            case CopyPlanned(blobs=blobs, bytes=total):
                several = blobs != 1
                self._progress.update(
                    self._whole, description=f"{blobs} blobs", total=total, visible=several
                )
            case BlobAdvanced(blob, received):
                self._received[blob.digest] = received
                self._progress.update(self._bar(blob), completed=received)
            case BlobCopied(blob, size):
                self._finish(blob, size)
            case BlobReused(blob):
                self._finish(blob, blob.size or 0)
            case _:
                assert_never(event)
        completed = self._done + sum(self._received.values())
        self._progress.update(self._whole, completed=completed)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PERIOD, self._draw)

    def _draw(self) -> None:
        self._timer = None
        self._progress.refresh()

    def _bar(self, blob: Descriptor) -> TaskID:
        bar = self._bars.get(blob.digest)
        if bar is None:
            bar = self._progress.add_task(f"  {short(blob.digest)}", total=blob.size)
            self._bars[blob.digest] = bar
        return bar

    def _finish(self, blob: Descriptor, size: int) -> None:
        self._done += size
        self._received.pop(blob.digest, None)
        bar = self._bars.pop(blob.digest, None)
        if bar is not None:
            self._progress.remove_task(bar)

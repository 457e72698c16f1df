"""The access log: a line for each request, on standard output.

Lines are written by a thread, so a terminal or a pipe that stands still never stops the event loop.
At most `LINES` of them wait; those beyond that are dropped, and a line says how many. If standard
output was closed, the server goes on without the log.

A line has only what `RequestServed` has: no header, no query, no credential. What a client may
choose freely is escaped, so that it can neither begin a line nor move the cursor of a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from asupplemented.events import RequestServed

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.events import Event

__all__ = ("AccessLog", "LineWriter", "format_json", "format_text")

LINES: Final = 20_000
"""Lines that may wait to be written."""

CLOSE_WITHIN: Final = 2.0
"""Seconds that closing waits for the last lines."""

GATHER: Final = 0.05
"""Seconds in which lines are gathered, to be written together."""

_BATCH: Final = 128
"""Lines that are written at once, at most."""

_log: Final = logging.getLogger(__name__)


class LineWriter:
    """Writes lines to a file descriptor, in a thread that ends with `close`.

    Args:
        fd: The descriptor, which stays open; None drops all lines.
        limit: Lines that may wait.
    """

    def __init__(self, fd: int | None, *, limit: int = LINES) -> None:
        self._fd = -1 if fd is None else fd
        self._limit = limit
        self._lines = deque[bytes]()
        self._dropped = 0
        self._told = 0
        """How many of the dropped lines a line told of; only the thread counts them."""
        self._broken = fd is None
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon: a reader that stands still must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        if not self._broken:
            self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line, without its line break; it is dropped if too many wait."""
        if self._broken:
            return
        if len(self._lines) >= self._limit:
            self._dropped += 1
            return
        self._lines.append(f"{line}\n".encode("utf-8", "backslashreplace"))
        self._wake.set()

    def close(self, within: float = CLOSE_WITHIN) -> None:
        """Write what waits, for at most so many seconds."""
        self._closing.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(within)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._wake.wait()
                self._closing.wait(GATHER)  # Waking for every line would cost more than the line.
                self._wake.clear()
                self._write_all()
        except OSError as error:
            self._broken = True
            self._lines.clear()
            _log.warning("the access log ends, for standard output failed: %s", error)

    def _write_all(self) -> None:
        while self._lines:
            batch = [self._lines.popleft() for _ in range(min(_BATCH, len(self._lines)))]
            dropped = self._dropped - self._told
            if dropped:
                self._told += dropped
                batch.append(b'{"dropped":%d}\n' % dropped)
            self._write_whole(memoryview(b"".join(batch)))

    def _write_whole(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # The program at the other end may have made it non-blocking.
                select.select((), (self._fd,), ())


class AccessLog:
    """A hook that logs each request.

    Args:
        writer: Writes the lines.
        style: "json" gives an object to each line; "text" is for people.
        now: Gives seconds since the epoch.
    """

    def __init__(
        self,
        writer: LineWriter,
        style: Literal["json", "text"],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._write = writer.write
        self._format = format_json if style == "json" else format_text
        self._now = now

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestServed):
            self._write(self._format(event, self._now()))


def _show_time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def format_json(event: RequestServed, now: float) -> str:
    """The line of a request as a JSON object. The time is UTC, durations are seconds."""
    first_byte = event.first_byte
    fields: dict[str, object] = {
        "time": _show_time(now),
        **event._asdict(),
        "seconds": round(event.seconds, 6),
        "first_byte": None if first_byte is None else round(first_byte, 6),
    }
    # JSON escapes the control characters of ASCII but this one; the rest of Unicode is escaped too.
    return json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f")


def format_text(event: RequestServed, now: float) -> str:
    """The line of a request for people; "-" is what is not known.

    Time, client, principal, method, name and reference, status, bytes, milliseconds, cache, source.
    """
    name = "/".join(each for each in (event.registry, event.name) if each is not None)
    separator = "@" if event.reference is not None and ":" in event.reference else ":"
    target = f"{name}{separator}{event.reference}" if event.reference is not None else name
    words = [
        _show_time(now),
        _word(event.client),
        _word(event.principal),
        _word(event.method),
        _word(event.route),
        _word(target),
        str(event.status),
        str(event.sent),
        f"{event.seconds * 1000:.1f}ms",
        _word(event.cache),
        _word(event.source),
    ]
    if not event.complete:
        words.append("cut")
    if event.error is not None:
        words.append(_word(event.error))
    return " ".join(words)


def _word(value: str | None) -> str:
    """A value as one word of printable ASCII."""
    if not value:
        return "-"
    if value.isascii() and value.isprintable() and not set(' "\\').intersection(value):
        return value
    return json.dumps(value).replace("\x7f", "\\u007f")

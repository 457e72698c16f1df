"""Running a program of strangers: no shell, bounded time and output, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import anyio

from asupplemented.errors import LimitExceededError, SourceTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType
    from typing import Self

__all__ = ("Command", "Outcome", "run")

PIECE: Final = 64 * 1024
"""Bytes that a pipe holds, usually."""

GRACE: Final = 0.5
"""Seconds that others have to let go of stdout when the program has ended."""

REAPING: Final = 5.0
"""Seconds to wait for the end of a program that was killed; it is collected in any case."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program to be run.

    Attributes:
        program: Its absolute path.
        argument: Its one argument.
        said: What it finds on stdin; at most 4 KiB, which any pipe holds.
        environ: Its environment; None for that of this process.
    """

    program: str
    argument: str
    said: bytes
    environ: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """The name of the program, for people."""
        return os.path.basename(self.program)  # noqa: PTH119 - it is no path to anything here

    def __repr__(self) -> str:
        return f"<Command {self.program} {self.argument}>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. Its `repr` does not show what it printed.

    Attributes:
        status: Its exit status; if below 0, the number of the signal that ended it.
        output: What it printed on stdout.
    """

    status: int
    output: bytes

    def __repr__(self) -> str:
        return f"<Outcome with status {self.status}>"


async def run(
    command: Command,
    *,
    longest: float,
    limit: int,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Outcome:
    """Run a program to its end.

    It gets a session of its own, and its stderr is ours. It ends when its first process does.
    Others that hold on to its stdout then are killed; those that let go of it are left alone.
    When it is too slow or prints too much, or the caller is cancelled, all of them are killed.

    Args:
        command: What to run.
        longest: Seconds that it may take.
        limit: Bytes that it may print on stdout.
        sleep: Waits for so many seconds.

    Raises:
        OSError: It cannot be started.
        SourceTimeoutError: It took too long.
        LimitExceededError: It printed too much.
    """
    with _Output(limit) as output:
        process = await _start(command, output)
        try:
            stirred = output.stirred
            await _wait(lambda: process.ended or output.flooded, stirred, partial(sleep, longest))
            if process.ended:
                await _wait(lambda: output.ended or output.flooded, stirred, partial(sleep, GRACE))
                output.drain()
            if output.flooded:
                message = f"{command.name} printed more than {limit} bytes, and was killed"
                raise LimitExceededError(message, limit=limit)
            if process.status is None:
                message = f"{command.name} did not end within {longest:g} s, and was killed"
                raise SourceTimeoutError(message)
            return Outcome(process.status, bytes(output.data))
        finally:
            await process.end(kill=not (process.ended and output.ended))


async def _start(command: Command, output: _Output) -> _Process:
    process = _Process(output.stirred)
    stdin = _pipe_with(command.said)
    try:
        await asyncio.get_running_loop().subprocess_exec(
            lambda: process,
            command.program,
            command.argument,
            stdin=stdin,
            stdout=output.inlet,
            stderr=None,
            env=command.environ,
            start_new_session=True,
        )
    except BaseException:
        process.kill()  # the event loop has killed the first process only
        raise
    finally:
        os.close(stdin)
        output.close_inlet()
    return process


def _pipe_with(content: bytes) -> int:
    """The end of a pipe at which there is something to read. The caller closes it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, content)
    finally:
        os.close(writing)
    return reading


async def _wait(
    over: Callable[[], bool], stirred: asyncio.Event, pause: Callable[[], Awaitable[object]]
) -> None:
    """Wait until something is so, which may change when it stirs; no longer than a pause."""
    if over():
        return
    timer = asyncio.ensure_future(pause())
    timer.add_done_callback(lambda _: stirred.set())
    try:
        while not over() and not timer.done():
            stirred.clear()
            await stirred.wait()
    finally:
        timer.cancel()
        await asyncio.wait({timer})


class _Process(asyncio.SubprocessProtocol):
    """A process that leads a group of its own.

    Args:
        stirred: Set when it ends.
    """

    def __init__(self, stirred: asyncio.Event) -> None:
        self._stirred = stirred
        self._exited = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._exited.is_set()

    @property
    def status(self) -> int | None:
        """How it ended, None if it has not."""
        if self._transport is None or not self.ended:
            return None
        return self._transport.get_returncode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def process_exited(self) -> None:
        self._exited.set()
        self._stirred.set()

    def kill(self) -> None:
        """Kill it, and what it has started."""
        if self._transport is not None:
            # A group without processes is no group; one with another user's is beyond us.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    async def end(self, *, kill: bool) -> None:
        """Kill it if need be, and collect what is left of it."""
        if kill:
            self.kill()
        with anyio.move_on_after(REAPING, shield=True):
            await self._exited.wait()
        if self._transport is not None:
            self._transport.close()


class _Output:
    """A pipe, read as it fills, up to a limit.

    Attributes:
        data: What came, and one piece too much at the most.
        ended: Whether nothing more can come.
        stirred: Set whenever something happens that somebody may wait for.
    """

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.ended = False
        self.stirred = asyncio.Event()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._outlet, self._inlet = os.pipe()
        os.set_blocking(self._outlet, False)

    @property
    def inlet(self) -> int:
        """The end to write to."""
        return self._inlet

    @property
    def flooded(self) -> bool:
        """Whether there was too much."""
        return len(self.data) > self._limit

    def close_inlet(self) -> None:
        """Leave the other end to others. May be called again."""
        if self._inlet >= 0:
            os.close(self._inlet)
            self._inlet = -1

    def drain(self) -> None:
        """Take all that is there, without waiting."""
        while not self.ended and not self.flooded and self._read():
            pass

    def __enter__(self) -> Self:
        self._loop.add_reader(self._outlet, self._read)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.remove_reader(self._outlet)
        os.close(self._outlet)
        self.close_inlet()

    def _read(self) -> bool:
        """Take a piece; False if there is none now."""
        try:
            piece = os.read(self._outlet, PIECE)
        except BlockingIOError:
            return False
        self.data += piece
        self.ended = not piece
        if self.ended or self.flooded:
            self._loop.remove_reader(self._outlet)
            self.stirred.set()
        return True

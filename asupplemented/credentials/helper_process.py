"""Run a credential helper: without a shell, within limits of time and output.

Theory of operation: the program runs in a session of its own, so that it can be killed with all
processes that it started. Its stdout is a pipe that this module reads itself, because the end of
the program and the end of the pipe are two events: a process that the program started may keep
the pipe open. The program has ended when its first process has. Then the pipe gets `GRACE` seconds
to end, too; whatever holds it after that is killed.
"""

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

READ_SIZE: Final = 64 * 1024
"""Bytes of one read: the usual capacity of a pipe."""

GRACE: Final = 0.5
"""Seconds that other processes may keep stdout open when the program has ended."""

REAP_TIMEOUT: Final = 5.0
"""Seconds to wait for the end of a killed program; the event loop reaps it in any case."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run.

    Attributes:
        program: Its absolute path.
        argument: Its one argument.
        stdin: Its input; at most 4 KiB, which any pipe holds.
        environ: Its environment; None for that of this process.
    """

    program: str
    argument: str
    stdin: bytes
    environ: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """The name of the program, for messages."""
        return os.path.basename(self.program)  # noqa: PTH119 - a name, not a file

    def __repr__(self) -> str:
        return f"<Command {self.program} {self.argument}>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. Its `repr` does not show the output.

    Attributes:
        status: Its exit status; if below 0, the number of the signal that ended it.
        output: The bytes that it printed on stdout.
    """

    status: int
    output: bytes

    def __repr__(self) -> str:
        return f"<Outcome with status {self.status}>"


async def run(
    command: Command,
    *,
    seconds: float,
    limit: int,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Outcome:
    """Run a program to its end.

    The program inherits stderr. If it is too slow, prints too much, or the caller is cancelled,
    it and all processes that it started are killed. When it ends by itself, processes that keep
    its stdout open are killed, and processes that closed it go on.

    Args:
        command: The program and its input.
        seconds: The most seconds that it may take.
        limit: The most bytes that it may print on stdout.
        sleep: Sleeps for a number of seconds.

    Raises:
        OSError: The program cannot be started.
        SourceTimeoutError: The program took too long.
        LimitExceededError: The program printed too much.
    """
    with _Output(limit) as output:
        process = await _start(command, output)
        try:
            changed = output.changed
            await _wait(lambda: process.ended or output.exceeded, changed, partial(sleep, seconds))
            if process.ended:
                await _wait(lambda: output.ended or output.exceeded, changed, partial(sleep, GRACE))
                output.drain()
            if output.exceeded:
                message = f"{command.name} printed more than {limit} bytes, and was killed"
                raise LimitExceededError(message, limit=limit)
            if process.status is None:
                message = f"{command.name} did not end within {seconds:g} s, and was killed"
                raise SourceTimeoutError(message)
            return Outcome(process.status, bytes(output.data))
        finally:
            await process.end(kill=not (process.ended and output.ended))


async def _start(command: Command, output: _Output) -> _Process:
    process = _Process(output.changed)
    stdin = _pipe_containing(command.stdin)
    try:
        await asyncio.get_running_loop().subprocess_exec(
            lambda: process,
            command.program,
            command.argument,
            stdin=stdin,
            stdout=output.write_end,
            stderr=None,
            env=command.environ,
            start_new_session=True,
        )
    except BaseException:
        process.kill()  # The event loop has killed the first process only.
        raise
    finally:
        os.close(stdin)
        output.close_write_end()
    return process


def _pipe_containing(content: bytes) -> int:
    """The read end of a pipe that holds some bytes. The caller closes it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, content)
    finally:
        os.close(writing)
    return reading


async def _wait(
    over: Callable[[], bool], changed: asyncio.Event, pause: Callable[[], Awaitable[object]]
) -> None:
    """Wait until `over` is true; `changed` says when to check again, `pause` limits the wait."""
    if over():
        return
    timer = asyncio.ensure_future(pause())
    timer.add_done_callback(lambda _: changed.set())
    try:
        while not over() and not timer.done():
            changed.clear()
            await changed.wait()
    finally:
        timer.cancel()
        await asyncio.wait({timer})


class _Process(asyncio.SubprocessProtocol):
    """A process that leads a process group of its own.

    Args:
        changed: Set when the process ends.
    """

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
        self._exited = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._exited.is_set()

    @property
    def status(self) -> int | None:
        """The exit status; None while the process runs."""
        if self._transport is None or not self.ended:
            return None
        return self._transport.get_returncode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def process_exited(self) -> None:
        self._exited.set()
        self._changed.set()

    def kill(self) -> None:
        """Kill the process group."""
        if self._transport is not None:
            # The group may be empty, or hold a process of another user.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    async def end(self, *, kill: bool) -> None:
        """Wait until the process has ended, after killing it if `kill` is set."""
        if kill:
            self.kill()
        with anyio.move_on_after(REAP_TIMEOUT, shield=True):
            await self._exited.wait()
        if self._transport is not None:
            self._transport.close()


class _Output:
    """A pipe that is read as it fills, up to a limit.

    Attributes:
        data: The bytes that were read: at most one read more than the limit.
        ended: Whether the pipe has ended.
        changed: Set when the pipe has ended or the limit is exceeded.
    """

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.ended = False
        self.changed = asyncio.Event()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    @property
    def write_end(self) -> int:
        """The write end of the pipe."""
        return self._write_end

    @property
    def exceeded(self) -> bool:
        """Whether more bytes than the limit were read."""
        return len(self.data) > self._limit

    def close_write_end(self) -> None:
        """Close the write end in this process. May be called again."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def drain(self) -> None:
        """Read all bytes that are in the pipe, without waiting."""
        while not self.ended and not self.exceeded and self._read():
            pass

    def __enter__(self) -> Self:
        self._loop.add_reader(self._read_end, self._read)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        self.close_write_end()

    def _read(self) -> bool:
        """Read once; False if the pipe is empty now."""
        try:
            data = os.read(self._read_end, READ_SIZE)
        except BlockingIOError:
            return False
        self.data += data
        self.ended = not data
        if self.ended or self.exceeded:
            self._loop.remove_reader(self._read_end)
            self.changed.set()
        return True

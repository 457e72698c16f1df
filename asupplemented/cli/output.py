"""Data on stdout or in a file, and text that is safe to show."""

from __future__ import annotations

import json
import os
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import aiofiles
import aiofiles.os
import typer

from asupplemented.aio.async_files import opened
from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.files import map_write_errors
from asupplemented.aio.threads import run_blocking, run_closing, run_opening
from asupplemented.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from aiofiles.threadpool.binary import AsyncFileIO

    from asupplemented.abc import Context

__all__ = (
    "open_output",
    "printable",
    "short",
    "write_bytes",
    "write_json",
    "write_text",
)

_HEX_SHOWN: Final = 12


def write_bytes(data: bytes) -> None:
    """Write to stdout and flush. Blocking.

    Raises:
        typer.Exit: The reader closed the pipe. The program ends without a message, with code 1.
        SourceError: stdout cannot be written.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard_stdout()
        raise typer.Exit(1) from None
    except OSError as error:
        _discard_stdout()
        raise SourceError(f"cannot write to stdout: {error.strerror}") from error


def write_text(text: str) -> None:
    """Write lines to stdout."""
    write_bytes(f"{text}\n".encode(errors="backslashreplace"))


def write_json(value: object) -> None:
    """Write one JSON value to stdout, in ASCII."""
    write_text(json.dumps(value, indent=2))


def _discard_stdout() -> None:
    """Point stdout at the null device, so that the flush at exit does not fail again."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@asynccontextmanager
async def open_output(
    context: Context, path: Path | None
) -> AsyncGenerator[Callable[[bytes], Awaitable[object]]]:
    """Open stdout, or a file that appears under its name when the body ends without an error.

    If the body fails, an existing file keeps its content. A path that is not a regular file, such
    as a device or a pipe, is written directly.

    Args:
        context: The session, whose threads write to stdout.
        path: The file; None or ``-`` for stdout.

    Yields:
        A function that writes all of its argument.

    Raises:
        SourceError: The file or stdout cannot be written.
        typer.Exit: The reader of stdout closed the pipe.
    """
    if path is None or str(path) == "-":
        yield lambda data: run_blocking(context, write_bytes, data)
        return
    if await aiofiles.os.path.exists(path) and not await aiofiles.os.path.isfile(path):
        with map_write_errors(path):
            async with opened(aiofiles.open(path, "wb", buffering=0)) as file:
                yield partial(_write_all, file)
        return
    target = await run_blocking(context, path.resolve)
    make = partial(StagedFile.create, target.parent)
    staged = await run_opening(context, make, StagedFile.close)
    try:
        with map_write_errors(path):
            # Not "wb": an open that a cancelled caller left behind would create the file again.
            async with opened(aiofiles.open(staged.path, "r+b", buffering=0)) as file:
                yield partial(_write_all, file)
        await run_blocking(context, staged.sync)
        await run_blocking(context, staged.publish, target)
    finally:
        await run_closing(context, staged.close)


async def _write_all(file: AsyncFileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[await file.write(rest) :]


def short(digest: str) -> str:
    """The algorithm and the first twelve hex digits of a digest."""
    algorithm, _, encoded = printable(digest).partition(":")
    return f"{algorithm}:{encoded[:_HEX_SHOWN]}"


def printable(text: object) -> str:
    """Text with every character that could control a terminal replaced by U+FFFD."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )

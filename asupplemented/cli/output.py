"""Data on stdout, or in a file that appears when it is whole."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import typer

from asupplemented.aio.atomic import StagedFile, map_write_errors
from asupplemented.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

__all__ = ("open_output", "printable", "show_size", "write_bytes", "write_json", "write_text")

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_KIB: Final = 1024


def write_bytes(data: bytes) -> None:
    """Write to stdout, at once.

    Raises:
        typer.Exit: Nobody reads any more: the program ends quietly, with code 1.
        SourceError: It cannot be written.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _silence()
        raise typer.Exit(1) from None
    except OSError as error:
        _silence()
        raise SourceError(f"cannot write to stdout: {error.strerror}") from error


def write_text(text: str) -> None:
    """Write lines to stdout."""
    write_bytes(f"{text}\n".encode(errors="backslashreplace"))


def write_json(value: object) -> None:
    """Write one JSON value to stdout, in ASCII."""
    write_text(json.dumps(value, indent=2))


def _silence() -> None:
    """Keep what is left in the buffer of stdout from failing once more at the very end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def open_output(path: Path | None) -> Generator[Callable[[bytes], None]]:
    """What to write with: to stdout, or to a file that appears when the body ends well.

    If the body fails, what was under that name before still is. What is no regular file, a
    device or a pipe, is written as it is. The function blocks, and may be called in any thread.

    Args:
        path: The file; None or ``-`` for stdout.

    Raises:
        SourceError: It cannot be written.
        typer.Exit: It is stdout, and nobody reads any more.
    """
    if path is None or str(path) == "-":
        yield write_bytes
        return
    if path.exists() and not path.is_file():
        with map_write_errors(path), path.open("wb", buffering=0) as file:
            yield lambda data: _write_all(file.write, data)
        return
    target = path.resolve()
    staged = StagedFile(target.parent)
    try:
        yield lambda data: staged.write((data,))
        staged.publish(target)
    finally:
        staged.discard()


def _write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) or 0 :]


def printable(text: object) -> str:
    """Text of a stranger without what would steer a terminal."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )


def show_size(size: int | None) -> str:
    """Bytes for people: ``"512 B"``, ``"1.5 MiB"``; a question mark if they are not known."""
    if size is None:
        return "? B"
    if size < _KIB:
        return f"{size} B"
    steps = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / _KIB**steps:.1f} {_UNITS[steps - 1]}"

"""Data on stdout, and text that is safe to show."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Final

import click

from asupplemented.errors import SourceError

__all__ = (
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
        click.exceptions.Exit: The reader closed the pipe. The program ends without a message,
            with code 1.
        SourceError: stdout cannot be written.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard_stdout()
        raise click.exceptions.Exit(1) from None
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


def short(digest: str) -> str:
    """The algorithm and the first twelve hex digits of a digest."""
    algorithm, _, encoded = printable(digest).partition(":")
    return f"{algorithm}:{encoded[:_HEX_SHOWN]}"


def printable(text: object) -> str:
    """Text with every character that could control a terminal replaced by U+FFFD."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )

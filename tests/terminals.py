"""What a program draws on a terminal: read from the other end, and shown as lines."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = re.compile(r"\x1b\[(?P<value>[?\d;]*)(?P<command>[A-Za-z])|(?P<text>.)", re.DOTALL)


def read_terminal(descriptor: int) -> Iterator[bytes]:
    """All that is written to the other end, until it is closed."""
    try:
        while data := os.read(descriptor, 65536):
            yield data
    except OSError as error:
        if error.errno != errno.EIO:  # what Linux says at the end
            raise
    finally:
        os.close(descriptor)


def show_screen(drawn: bytes) -> list[str]:
    """The lines that are seen in the end, on a terminal that is high enough not to scroll."""
    lines, row, column = [list[str]()], 0, 0
    for found in TOKEN.finditer(drawn.decode()):
        match found["command"], found["text"]:
            case None, "\r":
                column = 0
            case None, "\n":
                row += 1
                lines += [[] for _ in range(row + 1 - len(lines))]
            case None, text:
                line = lines[row]
                line += [" "] * (column + 1 - len(line))
                line[column] = text
                column += 1
            case "A", _:
                row -= int(found["value"] or 1)
            case "K", _:
                assert found["value"] == "2"
                lines[row] = []
            case command, _:
                assert command in "hlm", found  # modes and colours
    return "\n".join("".join(line).rstrip() for line in lines).rstrip("\n").split("\n")

"""Kinds of places on disk, for the contract and for what is particular to each."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tests.worlds import write_directory, write_layout

from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asupplemented.abc import Reference
    from tests.worlds import Contents


class DiskWorld:
    """Writes contents below a directory, each to a place of its own.

    Args:
        root: Where.
        write: `write_layout` or `write_directory`.
    """

    def __init__(self, root: Path, write: Callable[[Path, Contents], str]) -> None:
        self.root = root
        self.write = write
        self._numbers = count()

    @asynccontextmanager
    async def serve(self, contents: Contents) -> AsyncIterator[Reference]:
        before = open_files(self.root)
        yield parse_reference(self.write(self.root / str(next(self._numbers)), contents))
        assert open_files(self.root) == before


def layouts(root: Path) -> DiskWorld:
    return DiskWorld(root, write_layout)


def directories(root: Path) -> DiskWorld:
    return DiskWorld(root, write_directory)


def open_files(root: Path) -> list[str]:
    """The files below a directory that this process has open."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:  # The directory listing itself, closed by now.
            continue
    return sorted(link for link in links if link.startswith(f"{root}{os.sep}"))


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path in it."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }

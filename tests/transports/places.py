"""Kinds of places on disk, for the contract and for what is particular to each."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.atomic import PREFIX
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from asupplemented.abc import Reference
    from asupplemented.errors import SupplementedError
    from asupplemented.session import Session
    from asupplemented.transports.directory import DirectoryReference
    from asupplemented.transports.oci import LayoutReference
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
        yield parse_reference(self.write(self.root / str(next(self._numbers)), contents))


def open_files(root: Path, pid: int | str = "self") -> list[str]:
    """The files below a directory that a process has open; this one, unless another is given."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:  # The directory listing itself, closed by now.
            continue
    return sorted(link for link in links if link.startswith(f"{root}{os.sep}"))


async def failure_of(
    reference: DirectoryReference | LayoutReference,
    session: Session,
    kind: type[SupplementedError],
) -> SupplementedError:
    """The error of opening, which names the reference and leaves nothing open."""
    with pytest.raises(kind) as caught:
        await reference.open(session)
    assert caught.value.reference == str(reference)
    assert open_files(Path(reference.path)) == []
    return caught.value


def at(path: str | Path, directory: int | None) -> Path:
    """The whole path of what a function of `os` is given with ``dir_fd``."""
    return Path(path) if directory is None else Path(f"/proc/self/fd/{directory}").readlink() / path


@contextmanager
def failing_open(place: Path, code: int, *, flags: int = 0) -> Generator[None]:
    """Let the operating system refuse to open what lies in a place.

    Permissions do not bind root, and disks do not fail when asked: this does.

    Args:
        place: The file or directory, with all below it.
        code: The errno.
        flags: Only calls with one of these flags fail; 0 is every call.
    """
    real = os.open

    def refuse(path: str | Path, mode: int, *args: int, **kwargs: int) -> int:
        if at(path, kwargs.get("dir_fd")).is_relative_to(place) and (not flags or mode & flags):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield


@contextmanager
def watching_the_disk(root: Path) -> Generator[list[str]]:
    """What is synced and renamed below a directory, in order, as ``verb path``."""
    steps: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        steps.append(f"sync {_inside(root, Path(f'/proc/self/fd/{fd}').readlink())}")
        real_sync(fd)

    def rename(source: str, target: str, **directories: int) -> None:
        steps.append(f"name {_inside(root, at(target, directories.get('dst_dir_fd')))}")
        real_rename(source, target, **directories)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        patch.setattr(os, "rename", rename)
        yield steps


def _inside(root: Path, path: Path) -> str:
    name = str(path.relative_to(root))
    return "part" if path.name.startswith(PREFIX) else name


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path in it."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }

"""Data on stdout or in a file, and how values are shown: sizes, digests, the resolution tree."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Final

import aiofiles
import aiofiles.os
import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from asupplemented.aio.async_files import opened
from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.files import map_write_errors
from asupplemented.aio.threads import run_blocking, run_closing, run_opening
from asupplemented.errors import SourceError
from asupplemented.model.sizes import show_size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from aiofiles.threadpool.binary import AsyncFileIO

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.resolution import Instance, Resolution

__all__ = (
    "draw_resolution",
    "open_output",
    "printable",
    "render",
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


_WIDE: Final = 1000
"""Columns if stdout is no terminal: programs that read lines get unbroken ones."""


def render(tree: Tree) -> str:
    """The tree as text: coloured and wrapped for a terminal, else plain."""
    terminal = Console()
    drawn = StringIO()
    console = Console(
        file=drawn,
        force_terminal=terminal.is_terminal,
        highlight=False,
        width=terminal.width if terminal.is_terminal else _WIDE,
    )
    console.print(tree)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())


def draw_resolution(resolution: Resolution, *, full: bool = False) -> Tree:
    """Draw a resolution as a tree, with whole digests or with abbreviated ones.

    Each manifest is a child of the member that serves it, and each blob a child of the manifest
    whose member serves it. So each of them occurs once.
    """
    return _ResolutionTree(resolution, printable if full else short).draw()


class _ResolutionTree:
    def __init__(self, resolution: Resolution, show: Callable[[str], str]) -> None:
        self._resolution = resolution
        self._show = show
        self._instances: defaultdict[int, list[Instance]] = defaultdict(list)
        for instance in resolution.instances():
            self._instances[instance.member].append(instance)
        self._blobs: defaultdict[Digest, list[Digest]] = defaultdict(list)
        for blob, manifest in resolution.blobs.items():
            self._blobs[manifest].append(blob)
        self._missing: defaultdict[int | None, list[str]] = defaultdict(list)
        for missing in resolution.missing:
            self._missing[missing.member].append(missing.digest)

    def draw(self) -> Tree:
        resolution = self._resolution
        sizes = [resolution.descriptor(blob).size for blob in resolution.blobs]
        known = [size for size in sizes if size is not None]
        total = show_size(sum(known)) + ("" if len(known) == len(sizes) else " or more")
        counts = f"{len(resolution.sources)} manifests, {len(sizes)} blobs, {total}"
        tree = Tree(Text.assemble((self._show(resolution.top), "bold"), f"  {counts}"))
        for number in range(len(resolution.members)):
            self._add_member(tree, number)
        self._add_missing(tree, None)
        return tree

    def _add_member(self, tree: Tree, number: int) -> None:
        resolution = self._resolution
        role = "top" if number == 0 else "supplement"
        reference = printable(resolution.members[number])
        label = Text.assemble((f"{number} {role}", "bold cyan"), f"  {reference}")
        failure = resolution.unavailable.get(number)
        first = resolution.members.index(resolution.members[number])
        if failure is not None:
            reason = printable(f"{type(failure).__name__}: {failure.message}")
            label.append(f"  unavailable: {reason}", "red")
        elif first != number:
            label.append(f"  the same as member {first}", "dim")
        elif not self._instances[number]:
            label.append("  serves nothing", "dim")
        branch = tree.add(label)
        for instance in self._instances[number]:
            self._add_instance(branch, instance)
        self._add_missing(branch, number)

    def _add_instance(self, branch: Tree, instance: Instance) -> None:
        resolution, digest = self._resolution, instance.digest
        kind = "index" if instance.is_index else "opaque" if instance.is_opaque else "image"
        platform = "" if instance.platform is None else f" {printable(instance.platform)}"
        label = Text.assemble(
            (f"{kind}{platform}", "green"), f"  {self._show(digest)}  {show_size(instance.size)}"
        )
        if digest == resolution.top:
            label.append("  the top manifest", "bold")
        elif digest == resolution.defaults[instance.member]:
            label.append("  default", "dim")
        others = resolution.alternates.get(digest, ())
        if others:
            label.append(f"  also in {', '.join(map(str, others))}", "dim")
        node = branch.add(label)
        for blob in self._blobs[digest]:
            descriptor = resolution.descriptor(blob)
            kind = printable(descriptor.media_type or "")
            node.add(Text(f"{self._show(blob)}  {show_size(descriptor.size)}  {kind}"))

    def _add_missing(self, branch: Tree, member: int | None) -> None:
        for digest in self._missing[member]:
            branch.add(Text(f"missing  {self._show(digest)}", "red"))

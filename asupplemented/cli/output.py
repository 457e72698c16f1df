"""Data on stdout, or in a file that appears when it is whole.

A resolution as a tree: members, what each serves, and the blobs that come along.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from contextlib import contextmanager, suppress
from io import StringIO
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.files import map_write_errors
from asupplemented.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.resolution import Instance, Resolution

__all__ = (
    "draw_resolution",
    "open_output",
    "printable",
    "render",
    "short",
    "show_size",
    "write_bytes",
    "write_json",
    "write_text",
)

_HEX_SHOWN: Final = 12
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
    staged = StagedFile.create(target.parent)
    try:
        position = 0

        def write(data: bytes) -> None:
            nonlocal position
            staged.write(position, data)
            position += len(data)

        yield write
        staged.sync()
        staged.publish(target)
    finally:
        staged.close()


def _write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) or 0 :]


def short(digest: str) -> str:
    """A digest as people tell digests apart: the algorithm and twelve hex digits."""
    algorithm, _, encoded = printable(digest).partition(":")
    return f"{algorithm}:{encoded[:_HEX_SHOWN]}"


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


_WIDE: Final = 1000
"""Columns where there is no terminal: a line is a line then, for programs that read lines."""


def render(tree: Tree) -> str:
    """The tree as text: with colours and line breaks for a terminal, plain for all else."""
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


def draw_resolution(resolution: Resolution) -> Tree:
    """Draw who serves what.

    Each manifest stands below the member that serves it, and each blob below the manifest that
    decides who serves it, so everything stands in one place.
    """
    return _Drawing(resolution).draw()


class _Drawing:
    def __init__(self, resolution: Resolution) -> None:
        self._resolution = resolution
        self._instances: defaultdict[int, list[Instance]] = defaultdict(list)
        for instance in resolution.instances():
            self._instances[instance.member].append(instance)
        self._blobs: defaultdict[Digest, list[Digest]] = defaultdict(list)
        for blob, manifest in resolution.blobs.items():
            self._blobs[manifest].append(blob)
        self._missing: defaultdict[int | None, list[Digest]] = defaultdict(list)
        for missing in resolution.missing:
            self._missing[missing.member].append(missing.digest)

    def draw(self) -> Tree:
        resolution = self._resolution
        sizes = [resolution.descriptor(blob).size for blob in resolution.blobs]
        known = [size for size in sizes if size is not None]
        total = show_size(sum(known)) + ("" if len(known) == len(sizes) else " or more")
        counts = f"{len(resolution.sources)} manifests, {len(sizes)} blobs, {total}"
        tree = Tree(Text.assemble((short(resolution.top), "bold"), f"  {counts}"))
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
            told = printable(f"{type(failure).__name__}: {failure.message}")
            label.append(f"  unavailable: {told}", "red")
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
        kind = "index" if instance.is_index else "image"
        platform = "" if instance.platform is None else f" {printable(instance.platform)}"
        label = Text.assemble(
            (f"{kind}{platform}", "green"), f"  {short(digest)}  {show_size(instance.size)}"
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
            node.add(Text(f"{short(blob)}  {show_size(descriptor.size)}  {kind}"))

    def _add_missing(self, branch: Tree, member: int | None) -> None:
        for digest in self._missing[member]:
            branch.add(Text(f"missing  {short(digest)}", "red"))

"""A resolution as a tree for people."""

from __future__ import annotations

from collections import defaultdict
from io import StringIO
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from asupplemented.cli.output import printable, short
from asupplemented.model.sizes import show_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.resolution import Instance, Resolution

__all__ = ("draw_resolution", "render")

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

"""The demo: one image from four places, copied whole while one of them dies, every blob verified.

It builds small multi-platform images, writes two of them to temporary OCI layouts, serves the rest
from a registry and its mirror in this process, and groups the four. While the image is copied, the
registry that sends a layer is shut down in the middle of it. It needs no network.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

import asupplemented as asup
from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.output import short, write_text
from asupplemented.cli.tree import draw_resolution, render
from asupplemented.model.sizes import show_size
from asupplemented.testing import FakeRegistry, Stall, build_image, build_index, write_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from asupplemented.testing import BuiltImage

PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/riscv64")
LAYER = 6 * 1024**2
"""Bytes of the program in each image."""
LATENCY = 0.02
"""Seconds that the registries take to respond."""

console = Console(highlight=False)


class Verified(NamedTuple):
    """What was verified in a layout."""

    files: int
    size: int


def build_app(platform: str) -> BuiltImage:
    """A real small image: a base that all platforms share, and a program."""
    base: dict[str, bytes | str] = {"etc/os-release": 'NAME="Demo"\nID=demo\n', "usr/share/": b""}
    program = hashlib.shake_128(platform.encode()).digest(LAYER)
    return build_image(platform, [base, {"bin/app": program}], labels={"demo": platform})


class Places(NamedTuple):
    """One image in four places, none of which holds all of it."""

    references: tuple[str, ...]
    """The top, which names all platforms and holds one, and the supplements with the others."""
    layer: str
    """The layer during which the registry dies."""


def build_places(scratch: Path, registry: FakeRegistry, mirror: FakeRegistry) -> Places:
    """Spread one image over four places."""
    amd64, arm64, armv7, riscv64 = images = [build_app(platform) for platform in PLATFORMS]
    release, rest = build_index(images), build_index([armv7, riscv64])
    layer = riscv64.layers[-1]
    registry.script(layer, Stall(after=len(riscv64.blobs[layer]) // 2))
    references = (
        write_layout(scratch / "release", release, name="1.4", include={amd64.digest}),
        write_layout(scratch / "airgap", build_index([arm64, amd64]), name="1.4"),
        mirror.add("team/app", rest, tag="1.4"),
        registry.add("team/app", rest, tag="1.4"),
    )
    return Places(references, layer)


def say(text: str) -> None:
    """Print a line without wrapping it."""
    console.print(text, soft_wrap=True)


def with_lines(
    *followers: Callable[[asup.CopyProgress], None],
) -> Callable[[asup.CopyProgress], None]:
    """Print a line for each blob, in addition to what follows the copy."""

    def show_blob(event: asup.CopyProgress) -> None:
        for follow in followers:
            follow(event)
        if isinstance(event, asup.BlobCopied):
            size = show_size(event.size)
            say(f"  {short(event.blob.digest)}  {size:>9}  from member {event.member}")

    return show_blob


def verify(layout: Path, blobs: Collection[str]) -> Verified:
    """Hash every file of a layout, compare it with its name, and check that no blob is missing."""
    found: dict[str, int] = {}
    for path in sorted(layout.glob("blobs/*/*")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, path.parent.name).hexdigest()
        if digest != path.name:
            raise SystemExit(f"{path} holds {digest}")
        found[f"{path.parent.name}:{digest}"] = path.stat().st_size
    if absent := [blob for blob in blobs if blob not in found]:
        raise SystemExit(f"not copied: {absent}")
    return Verified(len(found), sum(found.values()))


def draw_served(references: Sequence[str], served: Sequence[asup.BlobServed]) -> Tree:
    """Draw which bytes of which blob came from which place."""
    tree = Tree(Text("Who served what, to the byte", "bold"))
    for number, reference in enumerate(references):
        branch = tree.add(Text(f"{number}  {reference}", "cyan"))
        for part in served:
            if part.member == number:
                branch.add(Text(f"{short(part.digest)}  {part.start:>9,} to {part.end:>9,}"))
    return tree


class Killer:
    """Shuts a registry down as soon as half of a layer has come from it."""

    def __init__(self, registry: FakeRegistry, layer: str) -> None:
        self._registry = registry
        self._layer = layer
        self._reached = asyncio.Event()

    async def run(self) -> None:
        """Wait for that moment."""
        await self._reached.wait()
        say(f"  {short(self._layer)}  half of it is there: [red]its registry dies[/red]")
        await self._registry.aclose()

    def watch(self, event: asup.CopyProgress) -> None:
        """Follow a copy."""
        match event:
            case asup.BlobAdvanced(blob, received) if blob.digest == self._layer:
                if received >= (blob.size or 0) // 2:
                    self._reached.set()
            case _:
                pass


async def show(places: Places, output: Path, registry: FakeRegistry) -> None:
    """Group the places, show which serves what, copy the image and verify the copy."""
    served: list[asup.BlobServed] = []

    def note(event: asup.Event) -> None:
        if isinstance(event, asup.BlobServed):
            served.append(event)

    # tls_verify=False: the registries of this demo speak plain http.
    async with asup.Session(tls_verify=False, hooks=[note]) as session:
        group = asup.supplement(*places.references)
        async with group.open(session) as image, asyncio.TaskGroup() as tasks:
            plan = image.resolution
            say("\n[bold]The plan[/bold]: which member serves what")
            write_text(render(draw_resolution(plan)))
            say("\n[bold]Why[/bold], for one of them")
            write_text(str(plan.explain(image.find("linux/riscv64").digest)))
            say(f"\n[bold]Copying[/bold] to oci:{output}:1.4")
            killer = Killer(registry, places.layer)
            killing = tasks.create_task(killer.run())
            with ConsoleReporter(console=console).copy_progress() as follow:
                progress = with_lines(follow, killer.watch)
                report = await asup.copy(image, f"oci:{output}:1.4", session, progress=progress)
            killing.cancel()
    write_text(f"\n{render(draw_served(places.references, served))}")
    summarize(plan, report, await asyncio.to_thread(verify, output, plan.blobs))


def summarize(plan: asup.Resolution, report: asup.CopyReport, verified: Verified) -> None:
    """Print a summary."""
    instances = sum(not instance.is_index for instance in plan.instances())
    say(
        f"\nGrouped  {len(plan.members)} places into one image of {instances} platforms; "
        "the top alone holds one of them."
    )
    say(
        f"Copied   {report.manifests} manifests and {report.blobs} blobs "
        f"({show_size(report.bytes)}) in {report.seconds:.2f} s."
    )
    say("Lost     a registry in the middle of a layer; its mirror served the rest from there on.")
    say(
        f"Verified {verified.files} files ({show_size(verified.size)}): "
        "each has the digest that names it."
    )


async def main() -> None:
    """Run the demo in a temporary directory."""
    with TemporaryDirectory(prefix="asupplemented-demo-") as directory:
        scratch = Path(directory)
        async with (
            FakeRegistry(latency=LATENCY) as registry,
            FakeRegistry(latency=LATENCY) as mirror,
        ):
            places = build_places(scratch, registry, mirror)
            say("[bold]Four places[/bold], the top first")
            for reference in places.references:
                say(f"  {reference}")
            await show(places, scratch / "copy", registry)


if __name__ == "__main__":
    asyncio.run(main())

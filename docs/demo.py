"""The demo: one image from three places, copied whole, every blob verified.

It builds small multi-platform images, writes two of them to temporary OCI layouts, serves the
third one from a registry in this process, and groups the three. It needs no network.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

import asupplemented as asup
from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.output import short, write_text
from asupplemented.cli.tree import draw_resolution, render
from asupplemented.model.sizes import show_size
from asupplemented.testing import FakeRegistry, build_image, build_index, write_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asupplemented.testing import BuiltImage

PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/riscv64")
LAYER = 512 * 1024
"""Bytes of the program in each image."""
LATENCY = 0.02
"""Seconds that the registry takes to respond."""

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


def build_places(scratch: Path, registry: FakeRegistry) -> tuple[str, str, str]:
    """Spread one image over three places, none of which holds all of it.

    Returns:
        The reference of the top, which names all platforms but holds one of them, and the
        references of the two supplements that hold the others.
    """
    amd64, arm64, armv7, riscv64 = images = [build_app(platform) for platform in PLATFORMS]
    release = build_index(images)
    return (
        write_layout(scratch / "release", release, name="1.4", include={amd64.digest}),
        write_layout(scratch / "airgap", build_index([arm64, amd64]), name="1.4"),
        registry.add("team/app", build_index([armv7, riscv64]), tag="1.4"),
    )


def say(text: str) -> None:
    """Print a line without wrapping it."""
    console.print(text, soft_wrap=True)


def with_lines(follow: Callable[[asup.CopyProgress], None]) -> Callable[[asup.CopyProgress], None]:
    """Print a line for each blob, in addition to the progress bars of a terminal."""

    def show_blob(event: asup.CopyProgress) -> None:
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


async def show(references: tuple[str, str, str], output: Path, session: asup.Session) -> None:
    """Group the places, show which serves what, copy the image and verify the copy."""
    group = asup.supplement(*references)
    async with group.open(session) as image:
        plan = image.resolution
        say("\n[bold]The plan[/bold]: which member serves what")
        write_text(render(draw_resolution(plan)))
        say("\n[bold]Why[/bold], for one of them")
        write_text(str(plan.explain(image.find("linux/riscv64").digest)))
        say(f"\n[bold]Copying[/bold] to oci:{output}:1.4")
        with ConsoleReporter(console=console).copy_progress() as follow:
            report = await asup.copy(
                image, f"oci:{output}:1.4", session, progress=with_lines(follow)
            )
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
    say(
        f"Verified {verified.files} files ({show_size(verified.size)}): "
        "each has the digest that names it."
    )


async def main() -> None:
    """Run the demo in a temporary directory."""
    with TemporaryDirectory(prefix="asupplemented-demo-") as directory:
        scratch = Path(directory)
        # tls_verify=False: the registry of this demo speaks plain http.
        async with (
            FakeRegistry(latency=LATENCY) as registry,
            asup.Session(tls_verify=False) as session,
        ):
            references = build_places(scratch, registry)
            say("[bold]Three places[/bold], the top first")
            for reference in references:
                say(f"  {reference}")
            await show(references, scratch / "copy", session)


if __name__ == "__main__":
    asyncio.run(main())

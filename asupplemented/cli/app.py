"""The commands.

The commands that ask a place something, and read no image.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asupplemented.abc import RemoteReference, WritableReference
from asupplemented.aio.threads import run_blocking
from asupplemented.cli.caching import make_cache, prefetch
from asupplemented.cli.options import (
    GroupOptions,
    PlaceOptions,
    as_usage_error,
    parse_digest,
    with_group,
    with_place,
)
from asupplemented.cli.output import (
    draw_resolution,
    open_output,
    printable,
    render,
    show_size,
    write_bytes,
    write_json,
    write_text,
)
from asupplemented.cli.running import working
from asupplemented.image import get_image
from asupplemented.model.index import SystemImage
from asupplemented.transfer.copy import copy as copy_image
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from asupplemented.abc import Reference
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.session import Session
    from asupplemented.supplemented import SupplementedSource
    from asupplemented.transfer.copy import CopyReport

__all__ = (
    "app",
    "blob",
    "copy",
    "digest",
    "explain",
    "inspect",
    "main",
    "manifest",
    "referrers",
    "resolve",
    "tags",
)

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the callback of an option
    if wanted:
        try:
            found = version("asupplemented")
        except PackageNotFoundError:
            found = "unknown: it was not installed"
        write_text(f"asupplemented {found}")
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Group container images into one verified source, and look at it or copy it.

    Data goes to stdout, words for people to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
    3 not found, 4 content that is not what was named.
    """


@app.command()
@with_group
def resolve(options: GroupOptions) -> None:
    """Show which member serves what."""
    group = options.group()
    with working(options, make_cache(options)) as desk:
        resolution = desk.run(group.resolve)
        if options.as_json:
            write_json(resolution.to_dict())
        else:
            write_text(render(draw_resolution(resolution)))


DigestOption = Annotated[
    str, typer.Option("--digest", metavar="DIGEST", help="Digest of a manifest or blob.")
]


@app.command()
@with_group
def explain(options: GroupOptions, digest: DigestOption) -> None:
    """Tell why a member serves something.

    Tells which member serves the manifest or blob, which others could, and why.
    """
    group = options.group()
    wanted = parse_digest(digest, "--digest")
    with working(options, make_cache(options)) as desk:
        explanation = desk.run(group.resolve).explain(wanted)
        if options.as_json:
            candidates = [candidate._asdict() for candidate in explanation.candidates]
            write_json(explanation._asdict() | {"candidates": candidates})
        else:
            write_text("\n".join(map(printable, str(explanation).splitlines())))


@app.command()
@with_group
def inspect(options: GroupOptions) -> None:
    """Print what an image is, as JSON.

    Of a list, the image for --platform is taken, else the one for this host. --instance names a
    manifest to look at instead of the top's.
    """
    group = options.group("--instance", "--platform")
    instance, platform = options.looked_at(), options.wanted_platform()

    async def look(image: SupplementedSource) -> dict[str, object]:
        found = await get_image(image, instance, platform=platform)
        return found.inspect().to_dict()

    with working(options, make_cache(options)) as desk:
        write_json(desk.run_on(group, look))


@app.command()
@with_group
def manifest(options: GroupOptions) -> None:
    """Print a manifest, byte for byte.

    It is the top's, or the one that --instance names.
    """
    group = options.group("--instance")
    instance = options.looked_at()
    with working(options, make_cache(options)) as desk:
        found = desk.run_on(group, lambda image: image.get_manifest(instance))
        write_bytes(found.raw)


OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write here, whole or not at all, instead of to stdout.",
        show_default=False,
    ),
]


@app.command()
@with_group
def blob(options: GroupOptions, digest: DigestOption, output: OutputOption = None) -> None:
    """Print a blob, or write it to a file.

    It is verified while it is read: if the exit code is 0, the content is right.
    """
    group = options.group()
    wanted = parse_digest(digest, "--digest")
    to_stdout = output is None or str(output) == "-"
    if options.as_json and to_stdout:
        message = "stdout takes the blob or the JSON; write the blob to a file with --output"
        raise typer.BadParameter(message, param_hint="--json")

    async def fetch(session: Session) -> dict[str, object]:
        async with group.open(session) as image, image.open_blob(wanted) as stream:
            with open_output(output) as write:
                async for chunk in stream:
                    await run_blocking(session, write, chunk)
            return {"digest": wanted, "size": stream.received, "member": stream.member}

    with working(options, make_cache(options)) as desk:
        fetched = desk.run(fetch)
        if options.as_json:
            write_json(fetched)


@app.command()
@with_group
def copy(
    options: GroupOptions,
    destination: Annotated[
        str, typer.Option("--to", metavar="DESTINATION", help="oci:PATH[:IMAGE] or dir:PATH.")
    ],
    *,
    extras: Annotated[
        bool,
        typer.Option("--extras", help="Copy images, too, that only supplements have."),
    ] = False,
) -> None:
    """Copy an image with all its blobs.

    Prints the digest of the copy. Nothing is visible in the destination before all of it is
    there, and what is there already is not fetched again.
    """
    group = options.group()
    target = _parse_destination(destination)
    if extras and isinstance(group.selection, SystemImage):
        message = "extras go with all images or specific ones, not with the one of a system"
        raise typer.BadParameter(message, param_hint="--extras")
    with working(options, make_cache(options)) as desk:
        with desk.narrator.following_copy() as follow:
            report = desk.run(
                lambda session: copy_image(group, target, session, extras=extras, progress=follow)
            )
        if options.as_json:
            write_json(report._asdict())
        else:
            write_text(report.digest)
            desk.narrator.say(_tell(report))


def _parse_destination(text: str) -> Reference:
    with as_usage_error("--to"):
        target = parse_reference(text)
    if not isinstance(target, WritableReference):
        message = f"nothing can be copied to {target.transport}:, only to oci: and dir:"
        raise typer.BadParameter(message, param_hint="--to")
    return target


def _tell(report: CopyReport) -> str:
    told = (
        f"copied {report.manifests} manifests and {report.blobs} blobs "
        f"({show_size(report.bytes)}) to {report.destination} in {report.seconds:.1f} s"
    )
    if report.reused_blobs:
        told += f"; {report.reused_blobs} blobs ({show_size(report.reused_bytes)}) were there"
    return told


@with_place
def tags(options: PlaceOptions) -> None:
    """List the tags of a repository.

    Prints them one on a line, in the order of the registry. The tag of the reference does not
    count.
    """
    place = options.place()
    if not isinstance(place, RemoteReference):
        message = f"only registries list tags, and this is {place.transport}:"
        raise typer.BadParameter(message, param_hint="REFERENCE")
    with working(options) as desk:
        found = desk.run(place.list_tags)
        if options.as_json:
            write_json({"tags": found})
        else:
            for tag in found:
                write_text(tag)


@with_place
def digest(options: PlaceOptions) -> None:
    """Print the digest of an image.

    A registry is only asked for it, which is cheap and proves nothing. Elsewhere the manifest is
    read.
    """
    place = options.place()
    with working(options) as desk:
        found = desk.run(lambda session: _find_digest(place, session))
        if options.as_json:
            write_json({"digest": found})
        else:
            write_text(found)


async def _find_digest(place: Reference, session: Session) -> Digest:
    if isinstance(place, RemoteReference):
        return await place.get_digest(session)
    async with place.open(session) as image:
        return (await image.get_manifest()).digest


SubjectOption = Annotated[
    str | None,
    typer.Option(
        "--digest",
        metavar="DIGEST",
        help="The manifest that is referred to, instead of the image itself.",
        show_default=False,
    ),
]
ArtifactTypeOption = Annotated[
    str | None,
    typer.Option(
        "--artifact-type", metavar="TYPE", help="Only those of this type.", show_default=False
    ),
]


@with_place
def referrers(
    options: PlaceOptions, subject: SubjectOption = None, artifact_type: ArtifactTypeOption = None
) -> None:
    """List what refers to an image: signatures, SBOMs, attestations.

    Prints digest, artifact type and size of each, one on a line.
    """
    place = options.place()
    named = None if subject is None else parse_digest(subject, "--digest")

    async def find(session: Session) -> tuple[Digest, tuple[Descriptor, ...]]:
        async with place.open(session) as image:
            about = named or (await image.get_manifest()).digest
            return about, await image.get_referrers(about, artifact_type)

    with working(options) as desk:
        about, found = desk.run(find)
        if options.as_json:
            write_json({"subject": about, "referrers": [each.to_dict() for each in found]})
        else:
            for each in found:
                kind = printable(each.artifact_type or "?")
                write_text(f"{each.digest}  {kind}  {show_size(each.size)}")


for _command in (prefetch, tags, digest, referrers):
    app.command()(_command)

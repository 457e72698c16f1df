"""All commands: each parses its arguments, calls the library and prints the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asupplemented._version import __version__
from asupplemented.abc import RemoteReference, WritableReference, reference_for
from asupplemented.cli.caching import make_cache, prefetch
from asupplemented.cli.options import (
    GroupOptions,
    ReferenceOptions,
    as_usage_error,
    parse_digest,
    with_group,
    with_reference,
)
from asupplemented.cli.output import (
    draw_resolution,
    open_output,
    printable,
    render,
    write_bytes,
    write_json,
    write_text,
)
from asupplemented.cli.running import running
from asupplemented.cli.serving import mirrors, serve
from asupplemented.errors import InstanceNotFoundError, LimitExceededError, ManifestError
from asupplemented.image import get_image, open_image
from asupplemented.model.digest import Digest
from asupplemented.model.index import SystemImage
from asupplemented.model.sizes import show_size
from asupplemented.transfer.copy import copy as copy_image
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from asupplemented.abc import Reference, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.session import Session
    from asupplemented.supplemented import SupplementedReference
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
        write_text(f"asupplemented {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Group container images into one verified source, and inspect or copy it.

    Data goes to stdout, messages go to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
    3 not found, 4 content that does not match its digest or is malformed.
    """


@app.command()
@with_group
def resolve(options: GroupOptions) -> None:
    """Show which member serves each manifest and blob."""
    group = options.parse_group()
    with running(options, make_cache(options)) as runner:
        resolution = runner.run(group.resolve)
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
    """Explain which member serves a manifest or blob.

    Shows the member that serves it, the members that could serve it too, and the reasons.
    """
    group = options.parse_group()
    wanted = parse_digest(digest, "--digest")
    with running(options, make_cache(options)) as runner:
        explanation = runner.run(group.resolve).explain(wanted)
        if options.as_json:
            candidates = [candidate._asdict() for candidate in explanation.candidates]
            write_json(explanation._asdict() | {"candidates": candidates})
        else:
            write_text("\n".join(map(printable, str(explanation).splitlines())))


@app.command()
@with_group
def inspect(options: GroupOptions) -> None:
    """Print the configuration of an image as JSON.

    From an index, the image for --platform is read, by default the one for this host. --instance
    names another manifest to read than that of the top.
    """
    group = options.parse_one("--instance", "--platform")
    instance, platform = options.parse_instance(), options.parse_platform()

    async def read(session: Session) -> dict[str, object]:
        reference = _single_or_group(group)
        if instance is None:
            found = open_image(
                reference, session, platform=platform, prefer_gzip=options.prefer_gzip
            )
            async with found as image:
                return image.inspect().to_dict()
        async with reference.open(session) as source:
            named = await _find_entry(source, instance)
            image = await get_image(
                source, session, named, platform=platform, prefer_gzip=options.prefer_gzip
            )
            return image.inspect().to_dict()

    with running(options, make_cache(options)) as runner:
        write_json(runner.run(read))


@app.command()
@with_group
def manifest(options: GroupOptions) -> None:
    """Print a manifest byte for byte.

    It is the manifest of the top, or the one that --instance names.
    """
    group = options.parse_one("--instance")
    instance = options.parse_instance()

    async def read(session: Session) -> bytes:
        async with _single_or_group(group).open(session) as source:
            if instance is None:
                return (await source.get_manifest()).raw
            named = await _find_entry(source, instance)
            if isinstance(named, Digest):
                return (await source.get_manifest(named)).raw
            return (await source.get_named(named, opaque=True)).raw

    with running(options, make_cache(options)) as runner:
        write_bytes(runner.run(read))


def _single_or_group(group: SupplementedReference) -> Reference:
    """What to open to look at one manifest: a single reference needs no resolving."""
    if len(group.references) > 1:
        return group
    return reference_for(group.top, group.selection)


async def _find_entry(source: Source, instance: Digest) -> Descriptor | Digest:
    """The entry of the default list that names an instance, which tells its media type.

    Returns:
        The digest itself if there is no such entry.
    """
    top = await source.get_manifest()
    if not top.is_index:
        return instance
    try:
        return top.parse_index().find(instance)
    except (InstanceNotFoundError, ManifestError, LimitExceededError):
        return instance


OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to this file instead of to stdout; it appears when it is complete.",
        show_default=False,
    ),
]


@app.command()
@with_group
def blob(options: GroupOptions, digest: DigestOption, output: OutputOption = None) -> None:
    """Print a blob, or write it to a file.

    The blob is verified while it is read. The exit code is 0 only if it matches its digest.
    """
    group = options.parse_group()
    wanted = parse_digest(digest, "--digest")
    to_stdout = output is None or str(output) == "-"
    if options.as_json and to_stdout:
        message = (
            "stdout can take the blob or the JSON, not both; write the blob to a file with --output"
        )
        raise typer.BadParameter(message, param_hint="--json")

    async def fetch(session: Session) -> dict[str, object]:
        async with group.open(session) as image, image.open_blob(wanted) as stream:
            async with open_output(session, output) as write:
                async for chunk in stream:
                    await write(chunk)
            return {"digest": wanted, "size": stream.received, "member": stream.member}

    with running(options, make_cache(options)) as runner:
        fetched = runner.run(fetch)
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
        typer.Option("--extras", help="Copy the images that only supplements hold, too."),
    ] = False,
) -> None:
    """Copy an image with all its blobs.

    Prints the digest of the copy. The destination shows the image once it is complete. Blobs
    that the destination holds already are not fetched again.
    """
    group = options.parse_group()
    target = _parse_destination(destination)
    if extras and isinstance(group.selection, SystemImage):
        message = "--extras needs --select all or --select specific"
        raise typer.BadParameter(message, param_hint="--extras")
    with running(options, make_cache(options)) as runner:
        with runner.reporter.copy_progress() as progress:
            report = runner.run(
                lambda session: copy_image(group, target, session, extras=extras, progress=progress)
            )
        if options.as_json:
            write_json(report._asdict())
        else:
            write_text(report.digest)
            runner.reporter.info(_summarize(report))


app.command()(prefetch)
app.command()(serve)
app.command()(mirrors)


def _parse_destination(text: str) -> Reference:
    with as_usage_error("--to"):
        target = parse_reference(text, allow_ipv6=True)
    if not isinstance(target, WritableReference):
        message = f"cannot copy to {target.transport}:, only to oci: and dir:"
        raise typer.BadParameter(message, param_hint="--to")
    return target


def _summarize(report: CopyReport) -> str:
    text = (
        f"copied {report.manifests} manifests and {report.blobs} blobs "
        f"({show_size(report.bytes)}) to {report.destination} in {report.seconds:.1f} s"
    )
    if report.reused_blobs:
        reused = f"{report.reused_blobs} blobs ({show_size(report.reused_bytes)})"
        text += f"; {reused} were already there"
    return text


@app.command()
@with_reference
def tags(options: ReferenceOptions) -> None:
    """List the tags of a repository.

    Prints one tag on a line, in the order of the registry. The tag of the reference is ignored.
    """
    reference = options.parse_reference()
    if not isinstance(reference, RemoteReference):
        message = f"only registries list tags, and this is a reference to {reference.transport}:"
        raise typer.BadParameter(message, param_hint="REFERENCE")
    with running(options) as runner:
        found = runner.run(reference.list_tags)
        if options.as_json:
            write_json({"tags": found})
        else:
            for tag in found:
                write_text(tag)


@app.command()
@with_reference
def digest(options: ReferenceOptions) -> None:
    """Print the digest of an image.

    A registry is asked for the digest only, and the manifest is not verified. From other
    transports the manifest is read.
    """
    reference = options.parse_reference()
    with running(options) as runner:
        found = runner.run(lambda session: _find_digest(reference, session))
        if options.as_json:
            write_json({"digest": found})
        else:
            write_text(found)


async def _find_digest(reference: Reference, session: Session) -> Digest:
    if isinstance(reference, RemoteReference):
        return await reference.get_digest(session)
    async with reference.open(session) as image:
        return (await image.get_manifest()).digest


SubjectOption = Annotated[
    str | None,
    typer.Option(
        "--digest",
        metavar="DIGEST",
        help="List what refers to this manifest, not to the image itself.",
        show_default=False,
    ),
]
ArtifactTypeOption = Annotated[
    str | None,
    typer.Option(
        "--artifact-type", metavar="TYPE", help="List only this type.", show_default=False
    ),
]


@app.command()
@with_reference
def referrers(
    options: ReferenceOptions,
    subject: SubjectOption = None,
    artifact_type: ArtifactTypeOption = None,
) -> None:
    """List what refers to an image: signatures, SBOMs, attestations.

    Prints the digest, artifact type and size of one referrer on a line.
    """
    reference = options.parse_reference()
    named = None if subject is None else parse_digest(subject, "--digest")

    async def find(session: Session) -> tuple[Digest, tuple[Descriptor, ...]]:
        async with reference.open(session) as image:
            digest = named or (await image.get_manifest()).digest
            return digest, await image.get_referrers(digest, artifact_type)

    with running(options) as runner:
        digest, found = runner.run(find)
        if options.as_json:
            write_json({"subject": digest, "referrers": [each.to_dict() for each in found]})
        else:
            for each in found:
                kind = printable(each.artifact_type or "?")
                write_text(f"{each.digest}  {kind}  {show_size(each.size)}")

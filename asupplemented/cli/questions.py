"""The commands that ask a place something, and read no image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asupplemented.abc import RemoteReference
from asupplemented.cli.options import PlaceOptions, parse_digest, with_place
from asupplemented.cli.output import printable, show_size, write_json, write_text
from asupplemented.cli.running import working

if TYPE_CHECKING:
    from asupplemented.abc import Reference
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.session import Session

__all__ = ("digest", "referrers", "tags")


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

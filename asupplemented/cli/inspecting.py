"""The commands that look at one thing: a manifest, a configuration, a digest, tags, referrers.

Each asks for that one thing only: an image of an index costs the index and its own manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asupplemented.abc import (
    ChoosingReference,
    RemoteReference,
    RepositoryReference,
    reference_for,
)
from asupplemented.cli.caching import make_cache
from asupplemented.cli.digests import (
    DigestPrefix,
    complete_digest,
    list_manifests,
    parse_abbreviated,
)
from asupplemented.cli.options import (
    GroupOptions,
    ReferenceOptions,
    parse_platform,
    with_group,
    with_reference,
)
from asupplemented.cli.output import printable, write_bytes, write_json, write_text
from asupplemented.cli.parameters import shared_option
from asupplemented.cli.running import running
from asupplemented.errors import (
    InstanceNotFoundError,
    LimitExceededError,
    ManifestError,
    SupplementedError,
)
from asupplemented.image import get_image, open_image
from asupplemented.limits import MAX_NESTING
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import is_index
from asupplemented.model.sizes import show_size
from asupplemented.supplemented import SupplementedSource

if TYPE_CHECKING:
    from asupplemented.abc import Reference, Source
    from asupplemented.cli.running import CommandRunner
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform
    from asupplemented.session import Session
    from asupplemented.supplemented import SupplementedReference

__all__ = ("digest", "inspect", "manifest", "referrers", "tags")


@with_group
@click.option("--no-tags", is_flag=True, help="Do not list the tags.")
def inspect(options: GroupOptions, *, no_tags: bool) -> None:
    """Print the configuration of an image as JSON.

    From an index, the image for --platform is read, by default the one for this host. --instance
    names another manifest to read than that of the top. Digest is that of the top, as skopeo
    prints it, or that of the instance. A registry also tells Name and RepoTags.
    """
    group = options.parse_one("--instance", "--platform")
    instance, platform = options.parse_instance(), options.parse_platform()

    async def read(session: Session) -> dict[str, object]:
        reference = _single_or_group(group)
        if instance is None:
            opening = open_image(
                reference, session, platform=platform, prefer_gzip=options.prefer_gzip
            )
            async with opening as image:
                top = await image.source.get_manifest()
                return {"Digest": top.digest} | image.inspect().to_dict()
        async with reference.open(session) as source:
            named = await _find_entry(source, instance)
            image = await get_image(
                source, session, named, platform=platform, prefer_gzip=options.prefer_gzip
            )
            digest = named if isinstance(named, Digest) else named.digest
            return {"Digest": digest} | image.inspect().to_dict()

    async def describe(session: Session) -> dict[str, object]:
        found = await read(session)
        names = {} if no_tags else await _list_names(group.top, session, runner)
        first = {key: names[key] for key in ("Name",) if key in names}
        return first | {"Digest": found["Digest"]} | names | found

    with running(options, make_cache(options)) as runner:
        write_json(runner.run(describe))


async def _list_names(top: Reference, session: Session, runner: CommandRunner) -> dict[str, object]:
    """The names by which a registry knows an image: its repository, and all tags of that."""
    names: dict[str, object] = {}
    if isinstance(top, RepositoryReference):
        names["Name"] = top.repository
    if isinstance(top, RemoteReference):
        try:
            names["RepoTags"] = await top.list_tags(session)
        except SupplementedError as error:
            runner.reporter.warning(f"the tags cannot be listed (see --no-tags): {error}")
            names["RepoTags"] = ()
    return names


@with_group
def manifest(options: GroupOptions) -> None:
    """Print a manifest byte for byte.

    It is the manifest of the top, the one that --instance names, or that of the image for
    --platform.
    """
    group = options.parse_one("--instance")
    instance, platform = options.parse_instance(), options.parse_platform()

    async def read(session: Session) -> bytes:
        async with _single_or_group(group).open(session) as source:
            if instance is not None:
                named = await _find_entry(source, instance)
                if isinstance(named, Digest):
                    return (await source.get_manifest(named)).raw
                return (await source.get_named(named, opaque=True)).raw
            top = await source.get_manifest()
            if platform is None or not top.is_index:
                return top.raw
            if isinstance(source, SupplementedSource):
                found = source.resolution.find(platform)
                return (await source.get_manifest(found.digest)).raw
            entry = await _choose(source, top, platform, prefer_gzip=options.prefer_gzip)
            return (await source.get_named(entry, opaque=True)).raw

    with running(options, make_cache(options)) as runner:
        write_bytes(runner.run(read))


def _single_or_group(group: SupplementedReference) -> Reference:
    """What to open to look at one manifest: a single reference needs no resolving."""
    if len(group.references) > 1:
        return group
    return reference_for(group.top, group.selection)


async def _choose(
    source: Source, top: Manifest, platform: Platform | None, *, prefer_gzip: bool
) -> Descriptor:
    """The entry of an index, or of the lists that it names, that fits a platform best.

    Raises:
        PlatformNotFoundError: None fits.
        LimitExceededError: Lists are nested too deep.
    """
    for _ in range(MAX_NESTING + 1):
        entry = top.parse_index().choose(platform, prefer_gzip=prefer_gzip)
        if not is_index(entry.media_type or ""):
            return entry
        top = await source.get_named(entry)
    message = f"lists are nested more than {MAX_NESTING} deep"
    raise LimitExceededError(message, limit=MAX_NESTING, reference=source.reference)


async def _find_entry(source: Source, instance: Digest | DigestPrefix) -> Descriptor | Digest:
    """The entry of the default list that names an instance, which tells its media type.

    Returns:
        The digest itself if there is no such entry.

    Raises:
        InstanceNotFoundError: An abbreviation fits no manifest of the image.
        click.BadParameter: It fits several.
    """
    if isinstance(instance, DigestPrefix):
        instance = complete_digest(instance, await list_manifests(source))
    top = await source.get_manifest()
    if not top.is_index:
        return instance
    try:
        return top.parse_index().find(instance)
    except (InstanceNotFoundError, ManifestError, LimitExceededError):
        return instance


@with_reference
def tags(options: ReferenceOptions) -> None:
    """List the tags of a repository.

    Prints one tag on a line, in the order of the registry. The tag of the reference is ignored.
    """
    reference = options.parse_reference()
    if not isinstance(reference, RemoteReference):
        message = f"only registries list tags, and this is a reference to {reference.transport}:"
        raise click.BadParameter(message, param_hint="REFERENCE")
    with running(options) as runner:
        found = runner.run(reference.list_tags)
        if options.as_json:
            write_json({"tags": found})
        else:
            for tag in found:
                write_text(tag)


@with_reference
@shared_option(GroupOptions, "platform")
@shared_option(GroupOptions, "prefer_gzip")
def digest(options: ReferenceOptions, *, platform: str | None, prefer_gzip: bool) -> None:
    """Print the digest of an image, or of its image for a platform.

    A registry is asked for the digest only, and the manifest is not verified. With --platform, and
    from other transports, the manifest is read.
    """
    reference = options.parse_reference()
    wanted = parse_platform(platform)

    async def find(session: Session) -> str:
        if wanted is None and isinstance(reference, RemoteReference):
            return await reference.get_digest(session)
        chosen = reference
        if wanted is not None and isinstance(reference, ChoosingReference):
            chosen = reference.for_platform(wanted)
        async with chosen.open(session) as source:
            top = await source.get_manifest()
            if wanted is None or not top.is_index:
                return top.digest
            return (await _choose(source, top, wanted, prefer_gzip=prefer_gzip)).digest

    with running(options) as runner:
        found = runner.run(find)
        if options.as_json:
            write_json({"digest": found})
        else:
            write_text(found)


@with_reference
@click.option(
    "--digest",
    "subject",
    metavar="DIGEST",
    help="List what refers to this manifest, not to the image itself.",
)
@click.option("--artifact-type", metavar="TYPE", help="List only this type.")
def referrers(options: ReferenceOptions, subject: str | None, artifact_type: str | None) -> None:
    """List what refers to an image: signatures, SBOMs, attestations.

    Prints the digest, artifact type and size of one referrer on a line.
    """
    reference = options.parse_reference()
    named = None if subject is None else parse_abbreviated(subject, "--digest")

    async def find(session: Session) -> tuple[Digest, tuple[Descriptor, ...]]:
        async with reference.open(session) as image:
            if named is None:
                digest = (await image.get_manifest()).digest
            elif isinstance(named, DigestPrefix):
                digest = complete_digest(named, await list_manifests(image))
            else:
                digest = named
            return digest, await image.get_referrers(digest, artifact_type)

    with running(options) as runner:
        digest, found = runner.run(find)
        if options.as_json:
            write_json({"subject": digest, "referrers": [each.to_dict() for each in found]})
        else:
            for each in found:
                kind = printable(each.artifact_type or "?")
                write_text(f"{each.digest}  {kind}  {show_size(each.size)}")
